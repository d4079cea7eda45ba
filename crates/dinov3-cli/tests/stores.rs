//! `dinov3 scene embed -o OUT.zarr` and `--embedding-type`.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.

mod common;

use std::fs::{self, File};
use std::path::Path;

use common::Scene;
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;
use snapbox::cmd::Command;
use snapbox::str;

/// `rgb.tif`, 100 x 70 pixels of 8-bit RGB in UTM zone 33, beside the small model.
fn scene() -> Scene {
    let scene = Scene::new();
    let tags = utm_tags().into_iter().chain([(262, TiffValue::Short(vec![2]))]).collect();
    scene.file("rgb.tif", TiffFile::of(TiffImage { tags, ..TiffImage::default() }).to_bytes());
    scene
}

fn embed(scene: &Scene, line: &str) -> Command {
    scene.dinov3(&format!("scene embed {line} -m tiny.json --weights synthetic:7 --chip 32"))
}

fn metadata(node: &Path) -> Value {
    serde_json::from_slice(&fs::read(node.join("zarr.json")).unwrap()).unwrap()
}

/// Names of all files, and what is in them.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => {
                found.extend(tree(&entry.path()).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)))
            }
            false => found.push((name, fs::read(entry.path()).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_store_has_a_cell_per_chip_and_says_what_it_is() {
    let scene = scene();
    embed(&scene, "rgb.tif -o chips.zarr --datetime 2026-05-17 --pool token,avg").assert().code(0).stdout_eq("").stderr_eq(
        str![[r#"
note: vit_small_patch16_dinov3 (tiny.json) was trained on pictures of the web; vit_large_patch16_dinov3.sat493m was trained on satellite scenes
12 chips in [..] s, [..] chips/s, 0 failed -> chips.zarr

"#]],
    );
    let store = scene.path("chips.zarr");
    let root = metadata(&store);
    let arrays: Vec<&String> = root["consolidated_metadata"]["metadata"].as_object().unwrap().keys().collect();
    assert_eq!(arrays, ["embeddings", "embeddings_avg", "time", "valid_fraction", "x", "y"]);
    let attributes = &root["attributes"];
    assert_eq!(attributes["geoemb:type"], "chip");
    assert_eq!(attributes["geoemb:chip_layout"]["stride"], serde_json::json!([32, 32]));
    assert!(attributes["geoemb:source_data"][0].as_str().unwrap().starts_with("file://"));
    assert!(attributes["geoemb:model"].as_str().unwrap().starts_with("urn:dinov3:"));
    assert_eq!(attributes["dinov3"]["counts"], serde_json::json!({"done": 12, "failed": 0}));
    let shape = &metadata(&store.join("embeddings"))["shape"];
    assert_eq!((shape[0].as_u64(), shape[2].as_u64(), shape[3].as_u64()), (Some(1), Some(3), Some(4)));
    assert_eq!(scene.new_files(), ["chips.zarr", "rgb.tif"]);
}

#[test]
fn runs_with_other_threads_and_continued_ones_give_the_same_store() {
    let scene = scene();
    let line = "rgb.tif --stride 16 --embedding-type int8 -o";
    embed(&scene, &format!("{line} a.zarr")).assert().code(0);
    let expected = tree(&scene.path("a.zarr"));
    embed(&scene, &format!("{line} a.zarr --threads 1 --batch-size 3")).assert().code(0);
    assert!(tree(&scene.path("a.zarr")) == expected);
    embed(&scene, &format!("{line} a.zarr/ --resume --batch-size 1")).assert().code(0);
    assert!(tree(&scene.path("a.zarr")) == expected);
}

#[test]
fn several_scenes_have_a_group_each() {
    let scene = scene();
    scene.file("other.tif", fs::read(scene.path("rgb.tif")).unwrap());
    embed(&scene, "rgb.tif other.tif -o both.zarr").assert().code(0);
    let store = scene.path("both.zarr");
    for group in ["rgb", "other"] {
        assert_eq!(metadata(&store.join(group))["attributes"]["geoemb:type"], "chip");
        assert!(store.join(group).join("embeddings/c/0/0/0/0").exists());
    }
    assert_eq!(metadata(&store)["attributes"]["dinov3"]["counts"]["done"], 24);
}

#[test]
fn what_cannot_be_a_store_is_refused_with_what_helps() {
    let scene = scene();
    embed(&scene, "rgb.tif -o chips.zarr --edges shift").assert().code(2).stderr_eq(str![[r#"
error: --edges shift moves chips off the grid whose cells a Zarr store holds: use --edges pad or drop, or write .parquet

"#]]);
    embed(&scene, "rgb.tif -o chips.zarr").args(["--crs", "+proj=tmerc +lon_0=15 +ellps=bessel +towgs84=598,73,418"]).assert().code(1).stderr_eq(str![[
        r#"
error: rgb.tif has a reference system without an EPSG code, by which a Zarr store names it: write .parquet, or give its code with --crs EPSG:CODE

"#
    ]]);
    fs::create_dir(scene.path("mine.zarr")).unwrap();
    embed(&scene, "rgb.tif -o mine.zarr").assert().code(1).stderr_eq(str![[r#"
error: mine.zarr: exists and is not a Zarr store that dinov3 wrote; remove it, or choose another name

"#]]);
    let line = "embed rgb.tif -m tiny.json --weights synthetic:7 --embedding-type int8 -o out.npy";
    scene.dinov3(line).assert().code(1).stderr_eq(str![[r#"
error: out.npy: int8 are stored in Parquet and Zarr only

"#]]);
    assert_eq!(scene.new_files(), ["mine.zarr", "rgb.tif"]);
}

#[test]
fn bytes_have_a_column_of_scales_and_a_formula() {
    let scene = scene();
    embed(&scene, "rgb.tif -o f32.parquet").assert().code(0);
    embed(&scene, "rgb.tif -o int8.parquet --embedding-type int8").assert().code(0);
    let open = |name: &str| SerializedFileReader::new(File::open(scene.path(name)).unwrap()).unwrap();
    let (floats, bytes) = (open("f32.parquet"), open("int8.parquet"));
    for (float, byte) in floats.get_row_iter(None).unwrap().zip(bytes.get_row_iter(None).unwrap()) {
        let (float, byte) = (float.unwrap(), byte.unwrap());
        let value = |row: &parquet::record::Row, name: &str| {
            row.get_column_iter().find(|(column, _)| *column == name).unwrap().1.clone()
        };
        let Field::ListInternal(vector) = value(&float, "embedding") else { panic!("no list") };
        let Field::Bytes(stored) = value(&byte, "embedding") else { panic!("no bytes") };
        let Field::Float(scale) = value(&byte, "embedding_scale") else { panic!("no float") };
        assert_eq!(vector.elements().len(), stored.data().len());
        for (expected, stored) in vector.elements().iter().zip(stored.data()) {
            let Field::Float(expected) = expected else { panic!("no float") };
            assert!((f32::from(*stored as i8) * scale - expected).abs() <= 0.5001 * scale);
        }
    }
    let entries = bytes.metadata().file_metadata().key_value_metadata().unwrap();
    let entry = entries.iter().find(|entry| entry.key == "dinov3").unwrap();
    let provenance: Value = serde_json::from_str(entry.value.as_ref().unwrap()).unwrap();
    assert_eq!(provenance["columns"]["embedding"]["element_type"], "int8");
    assert!(provenance["columns"]["embedding"]["formula"].as_str().unwrap().starts_with("value = int8 * scale"));
}
