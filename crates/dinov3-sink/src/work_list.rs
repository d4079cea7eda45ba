//! The work list of a large job, as Parquet: a row per unit of work, readable by whatever reads tables.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::atomic::AtomicFile;
use crate::error::OutputError;
use crate::table::{CREATED_BY, PROVENANCE_KEY, parquet_error};
use crate::untrusted::read_untrusted_parquet;
use crate::zarr::ShardPlace;

/// A unit of work: a scene, or the chips of a large one that start in a range of its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkUnit {
    /// Names it, and its files: letters, digits, `.`, `-` and `_` only.
    pub unit: String,
    /// What messages call the scene.
    pub scene: String,
    /// What opens it, for whom made it.
    pub input: String,
    /// What told the scene's version when the list was made, likewise.
    pub stamp: Option<String>,
    /// Chips that may have data; or windows, where patches are made.
    pub chips: u64,
    /// First row of pixels in which a chip of this unit starts, and the row after the last; all rows without.
    pub rows_px: Option<(i64, i64)>,
    /// The part of a Zarr store that it is, where the output is one.
    pub shard: Option<ShardPlace>,
    /// Columns and rows of the grid that is cut.
    pub size_px: Option<(u32, u32)>,
    /// EPSG code of that grid, if it has one.
    pub epsg: Option<i32>,
    /// Acquisition, in microseconds since 1970-01-01T00:00:00Z.
    pub datetime_us: Option<i64>,
    /// Why the scene could not be used when the list was made.
    pub error: Option<String>,
}

/// Work lists are read whole.
const LARGEST_FILE_BYTES: u64 = 1 << 30;
/// What their texts may take in memory.
const MOST_TEXT_BYTES: usize = 4 << 30;

fn fields() -> Vec<Field> {
    let datetime = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        Field::new("unit", DataType::Utf8, false),
        Field::new("scene", DataType::Utf8, false),
        Field::new("chips", DataType::Int64, false),
        Field::new("first_y_px", DataType::Int64, true),
        Field::new("end_y_px", DataType::Int64, true),
        Field::new("width_px", DataType::Int64, true),
        Field::new("height_px", DataType::Int64, true),
        Field::new("epsg", DataType::Int32, true),
        Field::new("datetime", datetime, true),
        Field::new("input", DataType::Utf8, false),
        Field::new("stamp", DataType::Utf8, true),
        Field::new("error", DataType::Utf8, true),
        Field::new("group", DataType::Utf8, true),
        Field::new("shard_row", DataType::Int64, true),
        Field::new("shard_column", DataType::Int64, true),
    ]
}

/// Writes a work list, with `about` in its metadata under `dinov3`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_work_list(path: impl AsRef<Path>, units: &[WorkUnit], about: &Value) -> Result<(), OutputError> {
    let path = path.as_ref();
    let texts = |text: fn(&WorkUnit) -> &String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(units.iter().map(text)))
    };
    let some_texts = |text: fn(&WorkUnit) -> Option<&String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(units.iter().map(text)))
    };
    let numbers = |number: fn(&WorkUnit) -> Option<i64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(units.iter().map(number)))
    };
    let datetimes: TimestampMicrosecondArray = units.iter().map(|unit| unit.datetime_us).collect();
    let arrays: Vec<ArrayRef> = vec![
        texts(|unit| &unit.unit),
        texts(|unit| &unit.scene),
        numbers(|unit| Some(unit.chips as i64)),
        numbers(|unit| unit.rows_px.map(|(first, _)| first)),
        numbers(|unit| unit.rows_px.map(|(_, end)| end)),
        numbers(|unit| unit.size_px.map(|(width, _)| width.into())),
        numbers(|unit| unit.size_px.map(|(_, height)| height.into())),
        Arc::new(Int32Array::from_iter(units.iter().map(|unit| unit.epsg))),
        Arc::new(datetimes.with_timezone("UTC")),
        texts(|unit| &unit.input),
        some_texts(|unit| unit.stamp.as_ref()),
        some_texts(|unit| unit.error.as_ref()),
        some_texts(|unit| unit.shard.as_ref().map(|shard| &shard.group)),
        numbers(|unit| unit.shard.as_ref().map(|shard| shard.row.into())),
        numbers(|unit| unit.shard.as_ref().map(|shard| shard.column.into())),
    ];
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(PROVENANCE_KEY.to_owned(), about.to_string())]))
        .build();
    let file = AtomicFile::create(path)?;
    let write = || {
        let schema = Arc::new(Schema::new(fields()));
        let batch = RecordBatch::try_new(schema.clone(), arrays)?;
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties))?;
        writer.write(&batch)?;
        writer.into_inner()
    };
    write().map_err(|error| parquet_error(path, error))?.commit()
}

/// Reads a work list, and what is said about it.
///
/// # Errors
/// If the file cannot be read, or is something else.
pub fn read_work_list(path: impl AsRef<Path>) -> Result<(Vec<WorkUnit>, Value), OutputError> {
    let path = path.as_ref();
    let none = |problem: &str| OutputError::NotAWorkList { path: path.to_owned(), problem: problem.to_owned() };
    let failed = |source| OutputError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        return Err(none(&format!("it has more than {LARGEST_FILE_BYTES} bytes")));
    }
    parse_work_list(bytes.into()).map_err(|problem| none(&problem))
}

/// The units of a work list with these bytes, and what is said about it.
///
/// # Errors
/// Why it is none.
pub fn parse_work_list(bytes: Bytes) -> Result<(Vec<WorkUnit>, Value), String> {
    read_untrusted_parquet(bytes, parse)
}

fn parse(bytes: Bytes) -> Result<(Vec<WorkUnit>, Value), String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| error.to_string())?;
    let metadata = builder.metadata().file_metadata().key_value_metadata();
    let about = metadata.and_then(|entries| entries.iter().find(|entry| entry.key == PROVENANCE_KEY)?.value.as_deref());
    let about: Value = about.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let found: Vec<_> = builder.schema().fields().iter().map(|field| (field.name(), field.data_type())).collect();
    for expected in &fields() {
        if !found.contains(&(expected.name(), expected.data_type())) {
            return Err(format!("it has no column {} of {}", expected.name(), expected.data_type()));
        }
    }
    let (mut units, mut text_bytes) = (Vec::new(), 0);
    for batch in builder.build().map_err(|error| error.to_string())? {
        let batch = batch.map_err(|error| error.to_string())?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"));
        let [unit, scene, input, stamp, error] = ["unit", "scene", "input", "stamp", "error"].map(column);
        let [unit, scene, input, stamp, error] =
            [unit?, scene?, input?, stamp?, error?].map(|array| array.as_string::<i32>());
        let [chips, first, end, width, height] =
            ["chips", "first_y_px", "end_y_px", "width_px", "height_px"].map(column);
        let [chips, first, end, width, height] =
            [chips?, first?, end?, width?, height?].map(|array| array.as_primitive::<Int64Type>());
        let group = column("group")?.as_string::<i32>();
        let [shard_row, shard_column] = ["shard_row", "shard_column"].map(column);
        let [shard_row, shard_column] = [shard_row?, shard_column?].map(|array| array.as_primitive::<Int64Type>());
        let epsg = column("epsg")?.as_primitive::<Int32Type>();
        let datetime = column("datetime")?.as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let text = |array: &StringArray| array.is_valid(row).then(|| array.value(row).to_owned());
            let number = |array: &Int64Array| array.is_valid(row).then(|| array.value(row));
            let pixels = |array: &Int64Array| number(array).and_then(|value| u32::try_from(value).ok());
            let unit = WorkUnit {
                unit: text(unit).unwrap_or_default(),
                scene: text(scene).unwrap_or_default(),
                input: text(input).unwrap_or_default(),
                stamp: text(stamp),
                chips: number(chips).and_then(|value| u64::try_from(value).ok()).unwrap_or_default(),
                rows_px: number(first).zip(number(end)),
                shard: (text(group).zip(pixels(shard_row).zip(pixels(shard_column))))
                    .map(|(group, (row, column))| ShardPlace { group, row, column }),
                size_px: pixels(width).zip(pixels(height)),
                epsg: epsg.is_valid(row).then(|| epsg.value(row)),
                datetime_us: datetime.is_valid(row).then(|| datetime.value(row)),
                error: text(error),
            };
            // A text that stands in the file once may be that of a million units.
            text_bytes +=
                unit.unit.len() + unit.scene.len() + unit.input.len() + unit.error.as_ref().map_or(0, String::len);
            if text_bytes > MOST_TEXT_BYTES {
                return Err(format!("its texts have more than {MOST_TEXT_BYTES} bytes"));
            }
            units.push(unit);
        }
    }
    Ok((units, about))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::Folder;

    #[test]
    fn what_was_written_is_read() {
        let folder = Folder::new("work-list");
        let whole = WorkUnit {
            unit: "a-1".to_owned(),
            scene: "a.tif".to_owned(),
            input: "{}".to_owned(),
            stamp: Some("{\"size_bytes\":1}".to_owned()),
            chips: 7,
            size_px: Some((100, 70)),
            epsg: Some(32633),
            datetime_us: Some(5),
            ..WorkUnit::default()
        };
        let part = WorkUnit { unit: "a-2".to_owned(), rows_px: Some((-3, 40)), ..whole.clone() };
        let shard = Some(ShardPlace { group: "a".to_owned(), row: 2, column: 1 });
        let part_of_store = WorkUnit { unit: "a-s2.1".to_owned(), shard, ..whole.clone() };
        let broken = WorkUnit { unit: "b".to_owned(), error: Some("no TIFF".to_owned()), ..WorkUnit::default() };
        let units = [whole, part, part_of_store, broken];
        let about = json!({"options": {"chip": ["32"]}});
        let path = folder.at("plan.parquet");
        write_work_list(&path, &units, &about).unwrap();
        assert_eq!(read_work_list(&path).unwrap(), (units.to_vec(), about.clone()));
        let before = std::fs::read(&path).unwrap();
        write_work_list(&path, &units, &about).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
        write_work_list(&path, &[], &about).unwrap();
        assert_eq!(read_work_list(&path).unwrap().0, []);
    }

    #[test]
    fn what_is_no_work_list_is_refused() {
        let folder = Folder::new("no-work-list");
        let path = folder.at("plan.parquet");
        assert!(matches!(read_work_list(&path), Err(OutputError::Read { .. })));
        std::fs::write(&path, "no Parquet").unwrap();
        assert!(matches!(read_work_list(&path), Err(OutputError::NotAWorkList { .. })));
    }
}
