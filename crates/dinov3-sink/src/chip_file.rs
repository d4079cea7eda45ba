//! Files of chips that [`ChipSink`](crate::ChipSink) wrote, read again: what is said of each chip, and its vectors as floats,
//! however they are stored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int32Type, TimestampMicrosecondType};
use arrow_array::{Array, FixedSizeListArray, RecordBatch};
use arrow_schema::{DataType, Schema};
use dinov3_model::encoder::Pooling;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use serde_json::Value;

use crate::chip::{ChipFootprint, ChipRow};
use crate::element::{ElementType, dequantized};
use crate::error::OutputError;
use crate::layout::{Column, EmbeddingLayout};
use crate::table::{PROVENANCE_KEY, scale_column};

const SOURCE: &str = "source";

/// Most values of vectors that are held: 4 GiB.
const MOST_VALUES: usize = 1 << 30;

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 512;

/// Why a file of chips cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChipFileError {
    /// It cannot be opened.
    #[error("{}: cannot be read: {source}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no Parquet file, or a damaged one.
    #[error("{}: not a readable Parquet file: {source}", path.display())]
    Parquet {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// It is no file of chips.
    #[error("{} is no file of chips: it has no column {column} of {expected}", path.display())]
    Column {
        /// Which file.
        path: PathBuf,
        /// The column that is missing, or has another type.
        column: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It does not say how it was made, or says what cannot be.
    #[error("{}: not a file of chips that was written here: {problem}", path.display())]
    Provenance {
        /// Which file.
        path: PathBuf,
        /// What is missing or wrong.
        problem: String,
    },
    /// It has no such vectors.
    #[error("{} has no vectors {column}: it has {}", path.display(), found.join(", "))]
    NoSuchVectors {
        /// Which file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// Those that there are.
        found: Vec<String>,
    },
    /// More vectors than are held.
    #[error("{}: {rows} vectors of {width} numbers are more than can be held", path.display())]
    TooMany {
        /// Which file.
        path: PathBuf,
        /// Rows.
        rows: usize,
        /// Numbers in each.
        width: usize,
    },
}

/// Chips, and one vector of each.
#[derive(Clone, Debug, PartialEq)]
pub struct ChipVectors {
    /// What is said of them, in the file's order; without their places on the Hilbert curve, which a file does not hold.
    pub rows: Vec<ChipRow>,
    /// Numbers in a vector.
    pub width: usize,
    /// `[rows, width]`.
    pub values: Vec<f32>,
}

/// An opened file of chips.
#[derive(Debug)]
pub struct ChipFile {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    layout: EmbeddingLayout,
    provenance: Value,
}

impl ChipFile {
    /// Opens it; only its metadata are read.
    ///
    /// # Errors
    /// If it cannot be read, or is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ChipFileError> {
        let path = path.as_ref().to_owned();
        let file = File::open(&path).map_err(|source| ChipFileError::Open { path: path.clone(), source })?;
        let metadata = ArrowReaderMetadata::load(&file, Default::default())
            .map_err(|source| ChipFileError::Parquet { path: path.clone(), source })?;
        if let Some((column, expected)) = wrong_column(metadata.schema()) {
            return Err(ChipFileError::Column { path, column: column.to_owned(), expected });
        }
        let entries = metadata.metadata().file_metadata().key_value_metadata().into_iter().flatten();
        let text = entries.filter(|entry| entry.key == PROVENANCE_KEY).find_map(|entry| entry.value.as_deref());
        let provenance = text.and_then(|text| serde_json::from_str(text).ok());
        let problem = |problem: String| ChipFileError::Provenance { path: path.clone(), problem };
        let provenance: Value = provenance.ok_or_else(|| problem("it has no provenance".to_owned()))?;
        let layout = layout_of(metadata.schema(), &provenance).map_err(problem)?;
        Ok(Self { path, file, metadata, layout, provenance })
    }

    /// Its columns of vectors, and how they are stored.
    pub fn layout(&self) -> &EmbeddingLayout {
        &self.layout
    }

    /// Whether it has the column `grid_cell`.
    pub fn has_grid_cell(&self) -> bool {
        self.metadata.schema().field_with_name("grid_cell").is_ok()
    }

    /// What it says of its making.
    pub fn provenance(&self) -> &Value {
        &self.provenance
    }

    /// The number of chips.
    pub fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    /// The scenes and how many chips each has.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn sources(&self) -> Result<BTreeMap<String, usize>, ChipFileError> {
        let mut sources = BTreeMap::new();
        self.each_batch(Some(&[SOURCE]), |batch| {
            for source in batch.column(0).as_string::<i32>().iter().flatten() {
                match sources.get_mut(source) {
                    Some(count) => *count += 1,
                    None => _ = sources.insert(source.to_owned(), 1),
                }
            }
            Ok(())
        })?;
        Ok(sources)
    }

    /// The width of these vectors.
    ///
    /// # Errors
    /// [`ChipFileError::NoSuchVectors`].
    pub fn width(&self, column: &str) -> Result<usize, ChipFileError> {
        self.column(column).map(|(_, column)| column.width)
    }

    fn column(&self, name: &str) -> Result<(usize, &Column), ChipFileError> {
        let columns = self.layout.columns();
        columns.iter().enumerate().find(|(_, column)| column.name == name).ok_or_else(|| ChipFileError::NoSuchVectors {
            path: self.path.clone(),
            column: name.to_owned(),
            found: self.layout.names(),
        })
    }

    /// The chips of one scene with the vectors of a column.
    ///
    /// # Errors
    /// If there is no such column, there are too many, or the file is damaged.
    pub fn read(&self, source: &str, column: &str) -> Result<ChipVectors, ChipFileError> {
        let (rows, (index, Column { width, .. })) = (self.rows(), self.column(column)?);
        if rows.checked_mul(*width).is_none_or(|values| values > MOST_VALUES) {
            return Err(ChipFileError::TooMany { path: self.path.clone(), rows, width: *width });
        }
        let mut chips = ChipVectors { rows: Vec::new(), width: *width, values: Vec::new() };
        self.each(|row, vectors| {
            if row.source == source {
                chips.rows.push(row);
                chips.values.extend_from_slice(vectors[index]);
            }
            Ok::<_, ChipFileError>(())
        })?;
        Ok(chips)
    }

    /// Hands out every row: what is said of the chip, without its place on the Hilbert curve, and its vectors. Written with
    /// the same layout, these are stored as the same bytes.
    ///
    /// # Errors
    /// If the file is damaged, or what `take` fails with.
    pub fn each<E: From<ChipFileError>>(
        &self,
        mut take: impl FnMut(ChipRow, &[&[f32]]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each_batch(None, |batch| {
            let damaged = || ParquetError::General("a column has changed its type".to_owned());
            let rows = Rows::new(batch, &self.layout).ok_or_else(damaged).map_err(|source| self.parquet(source))?;
            for row in 0..batch.num_rows() {
                let vectors: Vec<&[f32]> =
                    rows.vectors.iter().map(|(values, width)| &values[row * width..][..*width]).collect();
                take(rows.row(row), &vectors)?;
            }
            Ok(())
        })
    }

    /// Decodes these columns, or all.
    fn each_batch<E: From<ChipFileError>>(
        &self,
        columns: Option<&[&str]>,
        mut act: impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let file = self.file.try_clone().map_err(|source| ChipFileError::Open { path: self.path.clone(), source })?;
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        if let Some(columns) = columns {
            let roots: Vec<usize> =
                columns.iter().filter_map(|name| self.metadata.schema().index_of(name).ok()).collect();
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
            builder = builder.with_projection(mask);
        }
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|source| self.parquet(source))?;
        for batch in reader {
            act(&batch.map_err(|error| self.parquet(ParquetError::from(error)))?)?;
        }
        Ok(())
    }

    fn parquet(&self, source: ParquetError) -> ChipFileError {
        ChipFileError::Parquet { path: self.path.clone(), source }
    }
}

/// The first of a file's columns that is missing or of another type, and what it should be.
fn wrong_column(schema: &Schema) -> Option<(&'static str, &'static str)> {
    let is = |name: &str, is_kind: fn(&DataType) -> bool| {
        schema.field_with_name(name).is_ok_and(|field| is_kind(field.data_type()))
    };
    let texts = ["id", SOURCE].map(|name| (name, "text", is(name, |kind| *kind == DataType::Utf8)));
    let numbers = ["x_px", "y_px", "width_px", "height_px", "epsg"]
        .map(|name| (name, "32-bit numbers", is(name, |kind| *kind == DataType::Int32)));
    let others = [
        ("geometry", "bytes", is("geometry", |kind| *kind == DataType::Binary)),
        ("valid_fraction", "32-bit floats", is("valid_fraction", |kind| *kind == DataType::Float32)),
        ("datetime", "times", is("datetime", |kind| matches!(kind, DataType::Timestamp(..)))),
        ("bbox", "four doubles", is("bbox", |kind| matches!(kind, DataType::Struct(corners) if corners.len() == 4))),
    ];
    let wrong = texts.into_iter().chain(numbers).chain(others).find(|(.., is_right)| !is_right);
    wrong.map(|(name, expected, _)| (name, expected))
}

/// Which columns are vectors, and how they are stored; a sentence if that cannot be.
fn layout_of(schema: &Schema, provenance: &Value) -> Result<EmbeddingLayout, String> {
    let is_scaled = |name: &str| {
        schema.field_with_name(&scale_column(name)).is_ok_and(|scale| *scale.data_type() == DataType::Float32)
    };
    let mut poolings = Vec::new();
    let mut known = None;
    for field in schema.fields() {
        let stored = match field.data_type() {
            DataType::FixedSizeList(child, width) if *child.data_type() == DataType::Float32 => {
                (ElementType::F32, *width)
            }
            DataType::FixedSizeList(child, width) if *child.data_type() == DataType::Float16 => {
                (ElementType::F16, *width)
            }
            DataType::FixedSizeBinary(width) if is_scaled(field.name()) => (ElementType::Int8, *width),
            _ => continue,
        };
        let pooling = provenance["columns"][field.name()]["pooling"].as_str().and_then(Pooling::from_name);
        poolings.push(pooling.ok_or_else(|| format!("its provenance does not tell what {} is", field.name()))?);
        if *known.get_or_insert(stored) != stored {
            return Err("its vectors are of several lengths or kinds".to_owned());
        }
    }
    let (element, width) = known.ok_or("it has no vectors")?;
    let width = usize::try_from(width).unwrap_or_default();
    let told = |error: OutputError| error.to_string();
    Ok(EmbeddingLayout::new(&poolings, width, None).map_err(told)?.with_element(element))
}

/// The columns of some rows.
struct Rows<'b> {
    batch: &'b RecordBatch,
    /// Values of all rows, and how many a row has.
    vectors: Vec<(Cow<'b, [f32]>, usize)>,
}

impl<'b> Rows<'b> {
    /// Nothing if a column is not what it should be.
    fn new(batch: &'b RecordBatch, layout: &EmbeddingLayout) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name);
        column("datetime")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        for corner in column("bbox")?.as_struct_opt()?.columns() {
            corner.as_primitive_opt::<Float64Type>()?;
        }
        let vectors =
            layout.columns().iter().map(|column| Some((floats(batch, column, layout.element())?, column.width)));
        Some(Self { batch, vectors: vectors.collect::<Option<_>>()? })
    }

    fn row(&self, row: usize) -> ChipRow {
        let column = |name: &str| &self.batch[name];
        let text = |name: &str| column(name).as_string::<i32>().value(row).to_owned();
        let optional = |name: &str| {
            let array = self.batch.column_by_name(name)?.as_string_opt::<i32>()?;
            array.is_valid(row).then(|| array.value(row).to_owned())
        };
        let pixels = |name: &str| column(name).as_primitive::<Int32Type>().value(row);
        let datetime = column("datetime").as_primitive::<TimestampMicrosecondType>();
        let epsg = column("epsg").as_primitive::<Int32Type>();
        let bbox = column("bbox").as_struct();
        let corner = |at: usize| bbox.column(at).as_primitive::<Float64Type>().value(row);
        ChipRow {
            id: text("id"),
            footprint: ChipFootprint {
                wkb: column("geometry").as_binary::<i32>().value(row).to_vec(),
                bbox: std::array::from_fn(corner),
            },
            datetime_us: datetime.is_valid(row).then(|| datetime.value(row)),
            source: text(SOURCE),
            epsg: epsg.is_valid(row).then(|| epsg.value(row)),
            x_px: pixels("x_px"),
            y_px: pixels("y_px"),
            width_px: pixels("width_px"),
            height_px: pixels("height_px"),
            grid_cell: optional("grid_cell"),
            valid_fraction: column("valid_fraction").as_primitive::<Float32Type>().value(row),
            stac_item: optional("stac_item"),
            hilbert: 0,
        }
    }
}

/// The vectors of a column as floats, one after the other; nothing if they are not stored so.
fn floats<'b>(batch: &'b RecordBatch, column: &Column, element: ElementType) -> Option<Cow<'b, [f32]>> {
    let stored = batch.column_by_name(&column.name)?;
    // A list's child may hold more than its rows.
    let own = |list: &FixedSizeListArray| {
        let start = usize::try_from(list.value_offset(0)).ok()?;
        Some(start..start.checked_add(list.len().checked_mul(column.width)?)?)
    };
    match element {
        ElementType::F32 => {
            let list = stored.as_fixed_size_list_opt()?;
            let values: &'b [f32] = list.values().as_primitive_opt::<Float32Type>()?.values();
            values.get(own(list)?).map(Cow::Borrowed)
        }
        ElementType::F16 => {
            let list = stored.as_fixed_size_list_opt()?;
            let values: &[half::f16] = list.values().as_primitive_opt::<Float16Type>()?.values();
            Some(values.get(own(list)?)?.iter().map(|value| value.to_f32()).collect())
        }
        ElementType::Int8 => {
            let bytes = stored.as_fixed_size_binary_opt()?;
            let scales = batch.column_by_name(&scale_column(&column.name))?.as_primitive_opt::<Float32Type>()?;
            let mut values = Vec::with_capacity(bytes.len() * column.width);
            (0..bytes.len()).for_each(|row| dequantized(bytes.value(row), scales.value(row), &mut values));
            (values.len() == bytes.len() * column.width).then_some(Cow::Owned(values))
        }
    }
}

#[cfg(test)]
mod tests {
    use dinov3_engine::{Sink, Summary};
    use serde_json::{Map, json};

    use super::*;
    use crate::tests::Folder;
    use crate::{ChipColumns, ChipSink, Journal, JournalKey, RowName};

    struct NoKey;

    impl RowName for NoKey {
        fn row_name(&self) -> Cow<'_, str> {
            "".into()
        }
    }

    impl crate::Chip for NoKey {
        fn chip_row(&self) -> Cow<'_, ChipRow> {
            Cow::Owned(chip(0))
        }
    }

    fn chip(number: i32) -> ChipRow {
        let corners: [[f64; 2]; 5] = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]];
        let mut wkb = [&[1u8, 3, 0, 0, 0][..], &1u32.to_le_bytes(), &5u32.to_le_bytes()].concat();
        wkb.extend(corners.iter().flatten().flat_map(|value| value.to_le_bytes()));
        ChipRow {
            id: format!("{number}"),
            footprint: ChipFootprint { wkb, bbox: [0.0, 0.0, 1.0, 1.0] },
            datetime_us: (number > 1).then_some(5),
            source: if number % 2 == 0 { "even.tif" } else { "odd.tif" }.to_owned(),
            epsg: Some(32633),
            x_px: number,
            y_px: 2,
            width_px: 3,
            height_px: 4,
            grid_cell: None,
            valid_fraction: 0.5,
            stac_item: None,
            hilbert: number as u32,
        }
    }

    fn write(path: &Path, layout: &EmbeddingLayout, rows: &[(ChipRow, Vec<Vec<f32>>)]) {
        let mut journal = Journal::open(path).unwrap();
        journal.agree(Map::new(), layout).unwrap();
        let provenance = Box::new(|_: &Summary| json!({}));
        let mut sink = ChipSink::geoparquet(journal, layout.clone(), ChipColumns::default(), provenance).unwrap();
        for (row, vectors) in rows {
            let vectors: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
            sink.row(row, &vectors).unwrap();
        }
        Sink::<JournalKey<NoKey>>::finish(&mut sink, &Summary::default()).unwrap();
    }

    #[test]
    fn every_element_type_is_read_and_written_again_as_the_same_bytes() {
        let folder = Folder::new("chip-file");
        let vector = |number: i32, start: f32| -> Vec<f32> {
            (0..7).map(|at| (start + 0.37 * at as f32) * (1.0 + number as f32 / 3.0)).collect()
        };
        let rows: Vec<_> =
            (0..1100).map(|number| (chip(number), vec![vector(number, -1.0), vector(number, 0.01)])).collect();
        for element in ElementType::ALL {
            let layout = EmbeddingLayout::new(&[Pooling::Average, Pooling::Token], 7, None).unwrap();
            let layout = layout.with_element(element);
            let (first, second) = (folder.at("first.parquet"), folder.at("second.parquet"));
            write(&first, &layout, &rows);
            let file = ChipFile::open(&first).unwrap();
            assert_eq!((file.layout(), file.rows(), file.has_grid_cell()), (&layout, 1100, false));
            assert_eq!(file.sources().unwrap(), BTreeMap::from([("even.tif".into(), 550), ("odd.tif".into(), 550)]));
            let mut again = Vec::new();
            file.each(|mut row, vectors| {
                row.hilbert = row.x_px as u32;
                again.push((row, vectors.iter().map(|vector| vector.to_vec()).collect::<Vec<_>>()));
                Ok::<_, ChipFileError>(())
            })
            .unwrap();
            for ((row, vectors), (expected_row, expected)) in again.iter().zip(&rows) {
                assert_eq!(row, expected_row);
                for (value, expected) in vectors.iter().flatten().zip(expected.iter().flatten()) {
                    let most = match element {
                        ElementType::F32 => 0.0,
                        ElementType::F16 => expected.abs() / 2048.0,
                        ElementType::Int8 => expected.abs().max(3000.0) / 250.0,
                    };
                    assert!((value - expected).abs() <= most, "{element:?}: {value} {expected}");
                }
            }
            write(&second, &layout, &again);
            assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "{element:?}");
            let odd = file.read("odd.tif", "embedding_token").unwrap();
            assert_eq!((odd.rows.len(), odd.width, odd.values.len()), (550, 7, 550 * 7));
            assert_eq!(odd.rows[1].id, "3");
            assert_eq!(odd.values[7..14], again[3].1[1]);
            assert!(matches!(file.read("odd.tif", "logits"), Err(ChipFileError::NoSuchVectors { found, .. })
                if found == ["embedding", "embedding_token"]));
        }
    }
}
