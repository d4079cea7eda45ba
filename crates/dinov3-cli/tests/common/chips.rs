//! Readers of the tables that `dinov3 scene` writes.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::Value;

use super::Scene;

pub fn rows(scene: &Scene, name: &str) -> Vec<Row> {
    let file = SerializedFileReader::new(File::open(scene.path(name)).unwrap()).unwrap();
    file.get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

pub fn value(row: &Row, name: &str) -> Field {
    row.get_column_iter().find(|(column, _)| *column == name).unwrap().1.clone()
}

pub fn number(row: &Row, name: &str) -> i32 {
    let Field::Int(number) = value(row, name) else { panic!("{name} is no int32") };
    number
}

pub fn text(row: &Row, name: &str) -> String {
    let Field::Str(text) = value(row, name) else { panic!("{name} is no text") };
    text
}

pub fn windows(rows: &[Row]) -> Vec<[i32; 4]> {
    let mut windows: Vec<_> =
        rows.iter().map(|row| ["x_px", "y_px", "width_px", "height_px"].map(|name| number(row, name))).collect();
    windows.sort_by_key(|[x, y, ..]| (*y, *x));
    windows
}

pub fn provenance(scene: &Scene, name: &str) -> Value {
    let file = SerializedFileReader::new(File::open(scene.path(name)).unwrap()).unwrap();
    let entries = file.metadata().file_metadata().key_value_metadata().unwrap();
    let entry = entries.iter().find(|entry| entry.key == "dinov3").expect("provenance");
    serde_json::from_str(entry.value.as_ref().unwrap()).unwrap()
}
