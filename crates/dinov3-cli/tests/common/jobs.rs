//! Small scenes, and what is left of them in folders of results.

use std::fs::{self, File};
use std::path::Path;

use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use snapbox::cmd::Command;

use super::Scene;
use super::chips::{text, value};

pub const MODEL: &str = "-m tiny.json --weights synthetic:7 --chip 32";

/// 100 x 70 pixels of 8-bit RGB in UTM zone 33; `east` moves it, by pixels.
pub fn rgb(east: u32) -> TiffImage {
    let mut tags: Vec<_> = utm_tags().into_iter().chain([(262, TiffValue::Short(vec![2]))]).collect();
    let corner = vec![0.0, 0.0, 0.0, 399_960.0 + 10.0 * f64::from(east), 4_200_000.0, 0.0];
    tags.retain(|(tag, _)| *tag != 33922);
    tags.push((33922, TiffValue::Double(corner)));
    tags.sort_by_key(|(tag, _)| *tag);
    TiffImage { tags, ..TiffImage::default() }
}

/// Three scenes that overlap: 12 chips each.
pub fn scenes() -> Scene {
    let scene = Scene::new();
    for (index, name) in ["a b.tif", "b.tif", "more/b.tif"].into_iter().enumerate() {
        scene.file(&format!("scenes/{name}"), TiffFile::of(rgb(50 * index as u32)).to_bytes());
    }
    scene
}

pub fn dinov3(scene: &Scene, line: &str) -> Command {
    let cleared = ["SLURM_ARRAY_TASK_ID", "AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX"];
    cleared.iter().fold(scene.dinov3(&format!("scene {line}")), |command, name| command.env_remove(name))
}

pub fn rows(path: impl AsRef<Path>) -> Vec<Row> {
    let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    file.get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

/// Without what belongs to the file and not to the chip.
pub fn chips(rows: &[Row]) -> Vec<(String, Field, Field)> {
    let mut chips: Vec<_> =
        rows.iter().map(|row| (text(row, "id"), value(row, "geometry"), value(row, "embedding"))).collect();
    chips.sort_by(|a, b| a.0.cmp(&b.0));
    chips
}

pub fn files(folder: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".dinov3")
        .collect();
    names.sort();
    names
}

pub fn data(scene: &Scene, folder: &str) -> Vec<(String, Vec<u8>)> {
    let names = files(scene.path(folder)).into_iter().filter(|name| name.ends_with(".parquet"));
    names.map(|name| (name.clone(), fs::read(scene.path(folder).join(name)).unwrap())).collect()
}
