//! Files of chips: what is in them, and that nothing but the chips decides it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use dinov3_engine::{ImageFeatures, Item, ItemError, ItemErrorKind, RunOptions, Sink, Source, Summary, run};
use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Pooling, Request};
use dinov3_model::spec::{self, ModelSpec};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::statistics::Statistics;
use serde_json::Map;

use super::*;
use crate::disk::faults::{self, Fault};
use crate::tests::Folder;
use crate::{
    Chip, ChipFootprint, ChipSink, EmbeddingLayout, Journal, JournalKey, JournaledSource, Provenance, RowName, Stamp,
    Stamped, remove_journal,
};

const WIDTH: usize = 4;

/// A rectangle, or two where it crosses the antimeridian.
fn footprint(west: f64, south: f64, degrees: f64) -> ChipFootprint {
    let (mut east, north) = (west + degrees, south + degrees);
    let ring = |west: f64, east: f64| {
        let corners = [[west, south], [east, south], [east, north], [west, north], [west, south]];
        let mut bytes = [1u32.to_le_bytes(), 5u32.to_le_bytes()].concat();
        bytes.extend(corners.iter().flatten().flat_map(|value| value.to_le_bytes()));
        bytes
    };
    let polygon = |west, east| [&[1, 3, 0, 0, 0][..], &ring(west, east)].concat();
    let wkb = match east > 180.0 {
        false => polygon(west, east),
        true => {
            east -= 360.0;
            [&[1, 6, 0, 0, 0, 2, 0, 0, 0][..], &polygon(west, 180.0), &polygon(-180.0, east)].concat()
        }
    };
    ChipFootprint { wkb, bbox: [west, south, east, north] }
}

fn chip(number: i32) -> ChipRow {
    let spread = number.wrapping_mul(0x9e37_79b1u32 as i32) as u32;
    ChipRow {
        id: format!("scene/{number}"),
        footprint: footprint(f64::from(number) * 0.02 + 1.0 / 3.0, -0.7, 0.02),
        datetime_us: (number % 3 > 0).then_some(1_700_000_000_000_000 + i64::from(number)),
        source: "https://example.org/scene.tif".to_owned(),
        epsg: (number % 5 > 0).then_some(32_631),
        x_px: 256 * number,
        y_px: 7,
        width_px: 256,
        height_px: 255,
        grid_cell: None,
        valid_fraction: 0.0,
        stac_item: None,
        // Some share one: their ids decide.
        hilbert: spread >> 30 << 8 | spread >> 28,
    }
}

/// A chip whose valid fraction is known when it was loaded.
struct Key {
    number: i32,
    valid_fraction: OnceLock<f32>,
    stamped: bool,
}

impl RowName for Key {
    fn row_name(&self) -> std::borrow::Cow<'_, str> {
        format!("scene/{}", self.number).into()
    }
}

impl Chip for Key {
    fn chip_row(&self) -> std::borrow::Cow<'_, ChipRow> {
        let valid_fraction = *self.valid_fraction.get().expect("a chip that was loaded");
        std::borrow::Cow::Owned(ChipRow { valid_fraction, ..chip(self.number) })
    }
}

impl Stamped for Key {
    fn stamp(&self) -> Option<Stamp> {
        self.stamped.then(|| Stamp::of_version(77, "\"etag\""))
    }
}

struct Scene {
    order: Vec<i32>,
    stamped: bool,
    loaded: AtomicUsize,
}

impl Scene {
    fn new(order: impl IntoIterator<Item = i32>) -> Self {
        Self { order: order.into_iter().collect(), stamped: true, loaded: AtomicUsize::new(0) }
    }
}

impl Source for Scene {
    type Key = Key;

    fn keys(&self) -> Box<dyn Iterator<Item = Key> + Send + '_> {
        let key = |&number| Key { number, valid_fraction: OnceLock::new(), stamped: self.stamped };
        Box::new(self.order.iter().map(key))
    }

    fn load(&self, key: &Key) -> Result<Option<Item>, ItemError> {
        if key.number % 10 == 3 {
            return Err(ItemError::new(ItemErrorKind::Read, format!("tile {} is corrupt", key.number)));
        }
        self.loaded.fetch_add(1, Ordering::Relaxed);
        let _ = key.valid_fraction.set(1.0 / (1.0 + key.number as f32));
        Ok(Some(Item { height_px: 16, width_px: 16, pixels: vec![key.number as f32; 3 * 256] }))
    }
}

struct Toy(ModelSpec);

impl Encoder for Toy {
    fn spec(&self) -> &ModelSpec {
        &self.0
    }

    fn encode(&mut self, batch: &ImageBatch<'_>, _: &Request, features: &mut Features) -> Result<(), EncodeError> {
        features.count = batch.count;
        features.pooled = [Pooling::Token, Pooling::Average].map(|pooling| (pooling, Default::default())).into();
        for (scale, (_, array)) in [1.0, -0.25].into_iter().zip(&mut features.pooled) {
            array.reshape(&[batch.count, WIDTH]);
            for (row, pixels) in array.data.chunks_mut(WIDTH).zip(batch.pixels.chunks(3 * 256)) {
                row.copy_from_slice(&[scale * pixels[0], 0.1, f32::from_bits(0x7fc0_1234), -0.0]);
            }
        }
        Ok(())
    }
}

fn layout() -> EmbeddingLayout {
    EmbeddingLayout::new(&[Pooling::Token, Pooling::Average], WIDTH, None).unwrap()
}

/// Runs a job on a scene, continuing what is there. How many rows were known.
fn embed(output: &Path, scene: &Scene, batch_size: usize) -> Result<usize, String> {
    let mut journal = Journal::open(output).map_err(|error| error.to_string())?;
    journal.agree(Map::from_iter([("stride".to_owned(), json!(256))]), &layout()).map_err(|error| error.to_string())?;
    let provenance: Provenance = Box::new(|_| json!({"model": "toy"}));
    let mut sink = ChipSink::geoparquet(journal, layout(), ChipColumns::default(), provenance)
        .map_err(|error| error.to_string())?;
    let source = JournaledSource::new(scene, Some(sink.journal()));
    let request = Request::new().poolings([Pooling::Token, Pooling::Average]);
    let options = RunOptions::new().batch_size(batch_size);
    let result = run(&source, &mut Toy(spec::all().swap_remove(0)), &mut sink, &request, &options);
    if result.is_err() {
        let _ = sink.keep();
    }
    result.map(|summary| summary.known).map_err(|error| error.to_string())
}

fn written(output: &Path, scene: &Scene) -> Vec<u8> {
    embed(output, scene, 4).unwrap();
    fs::read(output).unwrap()
}

/// Writes rows without an engine; each has the vector of its place in the list.
fn write_rows(output: &Path, rows: &[ChipRow], columns: ChipColumns) -> Result<(), String> {
    let layout = EmbeddingLayout::new(&[Pooling::Token], 2, None).unwrap();
    let mut journal = Journal::open(output).unwrap();
    journal.agree(Map::new(), &layout).unwrap();
    let mut sink = ChipSink::geoparquet(journal, layout, columns, Box::new(|_| json!({}))).unwrap();
    for (number, row) in rows.iter().enumerate() {
        let mut features = Features::default();
        features.count = 1;
        let array = dinov3_model::array::Array { shape: vec![1, 2], data: vec![number as f32, 0.5] };
        features.pooled = vec![(Pooling::Token, array)];
        let key = JournalKey::unstamped(row.clone());
        sink.write(&key, ImageFeatures::new(&features, 0).unwrap()).map_err(|error| error.to_string())?;
    }
    Sink::<JournalKey<ChipRow>>::finish(&mut sink, &Summary::default()).map_err(|error| error.to_string())
}

fn read(path: &Path) -> (RecordBatch, HashMap<String, Value>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let file = builder.metadata().file_metadata().key_value_metadata().unwrap().iter();
    let file: HashMap<String, String> = file.filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?))).collect();
    // What Arrow's readers see is what others see.
    assert!(schema.metadata().iter().all(|(key, text)| &file[key] == text));
    let json = |(key, text): (&String, &String)| (key.clone(), serde_json::from_str(text).unwrap());
    let metadata: HashMap<String, Value> = schema.metadata().iter().map(json).collect();
    let batches: Vec<RecordBatch> = builder.with_batch_size(1 << 20).build().unwrap().map(Result::unwrap).collect();
    assert!(batches.len() < 2);
    (batches.into_iter().next().unwrap_or_else(|| RecordBatch::new_empty(schema)), metadata)
}

#[test]
fn a_file_says_what_the_specification_asks_for() {
    let folder = Folder::new("geo-schema");
    let output = folder.at("chips.parquet");
    written(&output, &Scene::new(0..30));
    let (rows, metadata) = read(&output);
    let names: Vec<&str> = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(
        names.join(" "),
        "id geometry bbox datetime source epsg x_px y_px width_px height_px valid_fraction embedding embedding_avg"
    );
    assert_eq!(rows.num_rows(), 27);
    let geo = json!({
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "orientation": "counterclockwise",
            "bbox": [1.0 / 3.0, -0.7, f64::from(29) * 0.02 + 1.0 / 3.0 + 0.02, -0.7 + 0.02],
            "covering": {"bbox": {
                "xmin": ["bbox", "xmin"], "ymin": ["bbox", "ymin"], "xmax": ["bbox", "xmax"], "ymax": ["bbox", "ymax"],
            }},
        }},
    });
    // Read as the other was: decimal numbers may lose their last bit.
    let geo: Value = serde_json::from_str(&geo.to_string()).unwrap();
    assert_eq!(metadata["geo"], geo);
    assert!(!metadata.contains_key("emb"));
    let provenance = &metadata["dinov3"];
    assert_eq!(provenance["model"], "toy");
    assert_eq!(provenance["counts"], json!({"done": 27, "failed": 3}));
    assert_eq!(provenance["failures"][0], json!({"path": "scene/13", "error": "tile 13 is corrupt"}));
    assert_eq!(provenance["columns"]["embedding_avg"]["pooling"], "avg");

    let ids = rows["id"].as_string::<i32>();
    let mut order: Vec<(u32, &str)> = Vec::new();
    for row in 0..rows.num_rows() {
        let number: i32 = ids.value(row).strip_prefix("scene/").unwrap().parse().unwrap();
        let expected = chip(number);
        order.push((expected.hilbert, ids.value(row)));
        assert_eq!(rows["geometry"].as_binary::<i32>().value(row), expected.footprint.wkb);
        let bbox = rows["bbox"].as_struct();
        let corners = [0, 1, 2, 3].map(|corner| bbox.column(corner).as_primitive::<Float64Type>().value(row));
        assert_eq!(corners, expected.footprint.bbox);
        let datetimes = rows["datetime"].as_primitive::<TimestampMicrosecondType>();
        assert_eq!(datetimes.is_valid(row).then(|| datetimes.value(row)), expected.datetime_us);
        assert_eq!(rows["x_px"].as_primitive::<Int32Type>().value(row), expected.x_px);
        assert_eq!(rows["height_px"].as_primitive::<Int32Type>().value(row), 255);
        let valid_fraction = rows["valid_fraction"].as_primitive::<Float32Type>().value(row);
        assert_eq!(valid_fraction, 1.0 / (1.0 + number as f32));
        let vector = rows["embedding_avg"].as_fixed_size_list().value(row);
        let bits = vector.as_primitive::<Float32Type>().values().iter().map(|value| value.to_bits());
        let expected = [-0.25 * number as f32, 0.1, f32::from_bits(0x7fc0_1234), -0.0].map(f32::to_bits);
        assert!(bits.eq(expected));
    }
    assert!(order.is_sorted() && order.windows(2).any(|pair| pair[0].0 == pair[1].0), "{order:?}");
}

trait Column {
    fn is_list_of_required_floats(&self) -> bool;
}

impl Column for DataType {
    fn is_list_of_required_floats(&self) -> bool {
        matches!(self, DataType::FixedSizeList(child, 4)
            if child.name() == "element" && !child.is_nullable() && child.data_type() == &DataType::Float32)
    }
}

#[test]
fn boxes_prune_row_groups_and_pages_and_vectors_have_no_statistics() {
    let folder = Folder::new("geo-statistics");
    let output = folder.at("chips.parquet");
    written(&output, &Scene::new((0..6000).filter(|number| number % 10 != 3)));
    let (rows, _) = read(&output);
    assert!(rows["embedding"].data_type().is_list_of_required_floats());
    let options = parquet::file::serialized_reader::ReadOptionsBuilder::new().with_page_index().build();
    let reader = SerializedFileReader::new_with_options(fs::File::open(&output).unwrap(), options).unwrap();
    let metadata = reader.metadata();
    assert_eq!(metadata.file_metadata().created_by().unwrap().split(' ').next(), Some("dinov3"));
    let group = metadata.row_group(0);
    let index = |path: &str| group.columns().iter().position(|column| column.column_path().string() == path).unwrap();
    let Some(Statistics::Double(xmax)) = group.column(index("bbox.xmax")).statistics() else { panic!() };
    assert_eq!(
        (xmax.min_opt(), xmax.max_opt()),
        (Some(&(1.0 / 3.0 + 0.02)), Some(&(5999.0 * 0.02 + 1.0 / 3.0 + 0.02)))
    );
    let pages = &metadata.offset_index().unwrap()[0][index("bbox.ymax")].page_locations;
    assert_eq!(pages.len(), 5400usize.div_ceil(PAGE_ROWS));
    assert!(group.column(index("embedding.list.element")).statistics().is_none());
    assert!(group.column(index("geometry")).statistics().is_none());
}

#[test]
fn neither_order_nor_batches_nor_stamps_change_a_byte() {
    let folder = Folder::new("geo-order");
    let output = folder.at("chips.parquet");
    let expected = written(&output, &Scene::new(0..200));
    for (turn, batch_size) in [(7, 1), (31, 3), (199, 64)] {
        let order = (0..200).map(|number| number * turn % 200);
        let scene = Scene { stamped: turn != 31, ..Scene::new(order) };
        // It stays where chips have failed.
        remove_journal(&output).unwrap();
        fs::remove_file(&output).unwrap();
        embed(&output, &scene, batch_size).unwrap();
        assert!(fs::read(&output).unwrap() == expected, "every {turn}th");
    }
    let known = embed(&output, &Scene::new(0..200), 8).unwrap();
    assert!(known > 100, "the next run makes just what failed");
    assert!(fs::read(&output).unwrap() == expected);
    remove_journal(&output).unwrap();
    assert_eq!(folder.outputs().len(), 1, "the journal has gone");
}

#[test]
fn whatever_operation_fails_the_next_run_continues_and_gives_the_same_bytes() {
    let folder = Folder::new("geo-faults");
    let output = folder.at("chips.parquet");
    let scene = Scene::new([5, 2, 3, 11, 0, 7, 1]);
    let expected = written(&output, &scene);
    folder.empty();
    for fault in [Fault::Once, Fault::FullDisk, Fault::ShortWrite, Fault::Dead] {
        let (mut operations, mut known_in_all) = (0, 0);
        loop {
            faults::plan(fault, operations);
            let finished = embed(&output, &scene, 2).is_ok();
            let reached = faults::end();
            if !finished {
                // Another order: a resumed run need not be planned as the first was.
                let again = Scene::new([0, 1, 2, 3, 5, 7, 11]);
                let known = embed(&output, &again, 3).unwrap_or_else(|error| panic!("{fault:?} {operations}: {error}"));
                assert_eq!(known + again.loaded.load(Ordering::Relaxed), 6);
                known_in_all += known;
            }
            // Failures stand in the order of ids, so nothing tells the runs apart.
            assert!(fs::read(&output).unwrap() == expected, "{fault:?} at {operations}");
            remove_journal(&output).unwrap();
            assert_eq!(folder.outputs().len(), 1, "{fault:?} at {operations}");
            folder.empty();
            if !reached {
                break;
            }
            operations += 1;
        }
        assert!(operations > 20 && known_in_all > 40, "{fault:?}: {operations} operations, {known_in_all} rows");
    }
}

#[test]
fn chips_without_a_stamp_are_encoded_again() {
    let folder = Folder::new("geo-unstamped");
    let output = folder.at("chips.parquet");
    let scene = Scene { stamped: false, ..Scene::new(0..9) };
    let expected = written(&output, &scene);
    folder.empty();
    // At the very end: all rows are in the journal.
    for operations in (0..).step_by(3) {
        faults::plan(Fault::Dead, operations);
        let finished = embed(&output, &scene, 2).is_ok();
        faults::end();
        if finished {
            break;
        }
        assert_eq!(embed(&output, &scene, 2), Ok(0));
        assert!(fs::read(&output).unwrap() == expected);
        folder.empty();
    }
}

#[test]
fn footprints_at_the_antimeridian_touch_both_ends_of_the_map() {
    let folder = Folder::new("geo-antimeridian");
    let output = folder.at("chips.parquet");
    let at = |number, footprint| ChipRow { footprint, ..chip(number) };
    let rows = [at(1, footprint(179.95, 65.0, 0.1)), at(2, footprint(179.5, 65.0, 0.1))];
    write_rows(&output, &rows, ChipColumns::default()).unwrap();
    let (rows, metadata) = read(&output);
    let column = &metadata["geo"]["columns"]["geometry"];
    assert_eq!(column["geometry_types"], json!(["Polygon", "MultiPolygon"]));
    assert_eq!(column["bbox"], json!([-180.0, 65.0, 180.0, 65.1]));
    let bbox = rows["bbox"].as_struct();
    let split = rows["id"].as_string::<i32>().iter().position(|id| id == Some("scene/1")).unwrap();
    let corners = [0, 1, 2, 3].map(|corner| bbox.column(corner).as_primitive::<Float64Type>().value(split));
    assert_eq!(corners, [-180.0, 65.0, 180.0, 65.1]);
}

#[test]
fn optional_columns_and_emb_are_there_when_announced() {
    let folder = Folder::new("geo-optional");
    let output = folder.at("chips.parquet");
    let with = ChipRow {
        grid_cell: Some("198U_1016L".to_owned()),
        stac_item: Some("https://example.org/item.json".to_owned()),
        ..chip(1)
    };
    let emb = json!({"href": "chips.parquet", "type": "application/vnd.apache.parquet"});
    let columns = ChipColumns { grid_cell: true, stac_item: true, emb: Some(emb.clone()) };
    write_rows(&output, &[with.clone(), chip(2)], columns).unwrap();
    let (rows, metadata) = read(&output);
    assert_eq!(metadata["emb"], emb);
    let cells: Vec<Option<&str>> = rows["grid_cell"].as_string::<i32>().iter().collect();
    assert!(cells.contains(&None) && cells.contains(&Some("198U_1016L")));
    assert_eq!(rows["stac_item"].null_count(), 1);
    let error = write_rows(&output, &[with], ChipColumns::default()).unwrap_err();
    assert_eq!(error, "scene/1: it has a grid_cell, and the file has no such column");
}

#[test]
fn no_chip_at_all_makes_a_valid_file() {
    let folder = Folder::new("geo-empty");
    let output = folder.at("chips.parquet");
    written(&output, &Scene::new([3]));
    let (rows, metadata) = read(&output);
    assert_eq!((rows.num_rows(), rows.num_columns()), (0, 13));
    let column = &metadata["geo"]["columns"]["geometry"];
    assert_eq!((column["geometry_types"].clone(), column.get("bbox")), (json!([]), None));
    assert_eq!(metadata["dinov3"]["counts"], json!({"done": 0, "failed": 1}));
}

#[test]
fn rows_that_cannot_stand_in_a_file_are_refused_by_name() {
    let folder = Folder::new("geo-refusals");
    let output = folder.at("chips.parquet");
    let refused = |rows: &[ChipRow]| write_rows(&output, rows, ChipColumns::default()).unwrap_err();
    assert_eq!(refused(&[chip(1), chip(2), chip(1)]), "scene/1: it comes twice");
    let point = ChipFootprint { wkb: vec![1, 1, 0, 0, 0], bbox: [0.0; 4] };
    assert_eq!(
        refused(&[ChipRow { footprint: point, ..chip(1) }]),
        "scene/1: its footprint has WKB type 1, neither Polygon (3) nor MultiPolygon (6)"
    );
    let mut endless = chip(1);
    endless.footprint.bbox[2] = f64::NAN;
    assert_eq!(
        refused(&[endless]),
        "scene/1: its bounding box is [0.35333333333333333, -0.7, NaN, -0.6799999999999999]"
    );
    let cut = ChipFootprint { wkb: vec![1, 3], bbox: [0.0; 4] };
    assert_eq!(refused(&[ChipRow { footprint: cut, ..chip(1) }]), "scene/1: its footprint is no WKB");
    assert_eq!(folder.outputs(), [], "a refusal leaves nothing behind");
}
