//! `dinov3 scene map`: the page, from chips and from patches.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.
//! What the page does in a browser: `dev/scene/map.py`.

mod common;

use std::fs;

use common::{Scene, stderr};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use serde_json::Value;
use snapbox::cmd::Command;
use snapbox::str;

/// 100 x 70 pixels of 8-bit RGB in UTM zone 33.
fn rgb() -> TiffImage {
    TiffImage {
        tags: utm_tags().into_iter().chain([(262, TiffValue::Short(vec![2]))]).collect(),
        ..TiffImage::default()
    }
}

/// With `rgb.tif` beside the small model, and its chips.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("rgb.tif", TiffFile::of(rgb()).to_bytes());
    embed(&scene, "rgb.tif -o chips.parquet").assert().code(0);
    scene
}

fn embed(scene: &Scene, line: &str) -> Command {
    scene.dinov3(&format!("scene embed {line} -m tiny.json --weights synthetic:7 --chip 32"))
}

fn head(scene: &Scene, name: &str) -> Value {
    let page = fs::read_to_string(scene.path(name)).unwrap();
    let (_, after) = page.split_once("id=\"head\">").unwrap();
    serde_json::from_str(after.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_map_is_made_of_chips() {
    let scene = scene();
    scene.dinov3("scene map map.html --embeddings chips.parquet").assert().code(0).stdout_eq("").stderr_eq(str![[r#"
12 chips of rgb.tif in 64 dimensions, recall@10 [..], 0.1 MB -> map.html

"#]]);
    let head = head(&scene, "map.html");
    assert_eq!((&head["scene"], &head["place"], &head["count"]), (&"rgb.tif".into(), &"chip".into(), &12.into()));
    assert_eq!((&head["bands"], &head["scale"]), (&"1, 2, 3".into(), &"u8".into()));
    assert_eq!((&head["weights"], &head["pooling"]), (&"synthetic:7".into(), &"avg".into()));
    assert_eq!(head["crs"], "EPSG:32633 (WGS 84 / UTM zone 33N)");
    assert_eq!(scene.new_files(), ["chips.parquet", "map.html", "rgb.tif"]);
    let first = fs::read(scene.path("map.html")).unwrap();
    scene.dinov3("scene map map.html --embeddings chips.parquet").assert().code(0);
    assert_eq!(fs::read(scene.path("map.html")).unwrap(), first);
}

#[test]
fn a_scene_is_found_beside_its_chips_or_named() {
    let scene = scene();
    fs::create_dir(scene.path("moved")).unwrap();
    fs::rename(scene.path("rgb.tif"), scene.path("moved/rgb.tif")).unwrap();
    scene.dinov3("scene map map.html --embeddings chips.parquet").assert().code(2).stderr_eq(str![[r#"
error: chips.parquet is of rgb.tif, which is not there: name the scene where it is now

"#]]);
    scene.dinov3("scene map map.html moved/rgb.tif --embeddings chips.parquet").assert().code(0);
    fs::rename(scene.path("chips.parquet"), scene.path("moved/chips.parquet")).unwrap();
    scene.dinov3("scene map map.html --embeddings moved/chips.parquet").assert().code(0);
}

#[test]
fn one_scene_of_several_is_named() {
    let scene = scene();
    fs::copy(scene.path("rgb.tif"), scene.path("other.tif")).unwrap();
    embed(&scene, "rgb.tif other.tif -o both.parquet").assert().code(0);
    scene.dinov3("scene map map.html --embeddings both.parquet").assert().code(2).stderr_eq(str![[r#"
error: both.parquet has chips of 2 scenes: name the one to map, as other.tif or rgb.tif

"#]]);
    scene.dinov3("scene map map.html other.tif --embeddings both.parquet").assert().code(0);
    let head = head(&scene, "map.html");
    assert_eq!((&head["scene"], &head["count"]), (&"other.tif".into(), &12.into()));
}

#[test]
fn a_map_is_made_of_patches() {
    let scene = scene();
    let model = "-m tiny.json --weights synthetic:7";
    scene
        .dinov3(&format!("scene embed --dense rgb.tif {model} --dims all --no-picture -o patches.tif"))
        .assert()
        .code(0);
    scene.dinov3("scene map map.html --embeddings patches.tif").assert().code(0).stderr_eq(str![[r#"
35 patches of rgb.tif in 64 dimensions, recall@10 [..], 0.1 MB -> map.html

"#]]);
    let found = head(&scene, "map.html");
    assert_eq!((&found["place"], &found["count"]), (&"patch".into(), &35.into()));
    // Patches at the edges are as wide as what lies in the scene.
    assert_eq!(found["ids"].as_array().unwrap().last().unwrap(), "96,64,4,6");
    // The same in one step; nothing else is left.
    let before = scene.new_files();
    scene.dinov3(&format!("scene map direct.html rgb.tif {model}")).assert().code(0);
    assert_eq!(scene.new_files().len(), before.len() + 1);
    let (two, one) = (fs::read(scene.path("map.html")).unwrap(), fs::read(scene.path("direct.html")).unwrap());
    assert!(two == one);
}

#[test]
fn what_cannot_be_mapped_is_told() {
    let scene = scene();
    scene.dinov3("scene map map.txt --embeddings chips.parquet").assert().code(2).stderr_eq(str![[r#"
error: map.txt: a map is a page, a file that ends in .html

"#]]);
    scene.dinov3("scene map map.html --embeddings rgb.tif").assert().code(1).stderr_eq(str![[r#"
error: rgb.tif has uint8 samples, as pictures have, and no features

"#]]);
    scene.dinov3("scene map map.html --embeddings chips.parquet --column token").assert().code(1).stderr_eq(str![[
        r#"
error: chips.parquet has no vectors token: it has embedding

"#
    ]]);
    scene.dinov3("scene map map.html --embeddings chips.parquet --max-page 40k").assert().code(1).stderr_eq(str![[r#"
error: a page of 12 places in 64 dimensions would have [..] MB, more than the 0.0 MB that it may: allow it with --max-page 1MB, or map chips instead of patches, or larger ones

"#]]);
    // Embeddings of pictures, and what is no Parquet file.
    scene.tiny("embed photos/a.bmp -o pictures.parquet").assert().code(0);
    scene.dinov3("scene map map.html --embeddings pictures.parquet").assert().code(1).stderr_eq(str![[r#"
error: pictures.parquet is no file of chips: it has no column id of text

"#]]);
    scene.file("text.parquet", "no parquet file at all");
    let result = scene.dinov3("scene map map.html --embeddings text.parquet").assert().code(1);
    assert!(stderr(&result).starts_with("error: text.parquet: not a readable Parquet file"), "{}", stderr(&result));
    // Chips of another scene.
    let small = TiffImage { width_px: 40, height_px: 40, ..rgb() };
    scene.file("small.tif", TiffFile::of(small).to_bytes());
    let result = scene.dinov3("scene map map.html small.tif --embeddings chips.parquet").assert().code(1);
    assert!(stderr(&result).contains("does not lie in small.tif, which has 40 x 40 pixels"), "{}", stderr(&result));
    scene.dinov3("scene map map.html rgb.tif").assert().code(2);
    assert!(!scene.path("map.html").exists());
}
