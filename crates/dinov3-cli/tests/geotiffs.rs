//! `dinov3 scene`: scenes on disk and on a server.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.

mod common;

use std::fs;

use common::chips::{number, provenance, rows, text, value, windows};
use common::{Scene, stderr, stdout};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use dinov3_testing::http_server::{HttpReply, HttpServer, part_of};
use parquet::record::Field;
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

/// With `rgb.tif` beside the small model.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("rgb.tif", TiffFile::of(rgb()).to_bytes());
    scene
}

fn embed(scene: &Scene, line: &str) -> Command {
    scene.dinov3(&format!("scene embed {line} -m tiny.json --weights synthetic:7 --chip 32"))
}

#[test]
fn an_rgb_scene_needs_no_option() {
    let scene = scene();
    embed(&scene, "rgb.tif -o chips.parquet").assert().code(0).stdout_eq("").stderr_eq(str![[r#"
note: vit_small_patch16_dinov3 (tiny.json) was trained on pictures of the web; vit_large_patch16_dinov3.sat493m was trained on satellite scenes
12 chips in [..] s, [..] chips/s, 0 failed -> chips.parquet

"#]]);
    let rows = rows(&scene, "chips.parquet");
    assert_eq!(
        windows(&rows)[..5],
        [[0, 0, 32, 32], [32, 0, 32, 32], [64, 0, 32, 32], [96, 0, 4, 32], [0, 32, 32, 32]]
    );
    assert_eq!(windows(&rows).last(), Some(&[96, 64, 4, 6]));
    for row in &rows {
        assert_eq!((text(row, "source"), number(row, "epsg")), ("rgb.tif".to_owned(), 32633));
        assert_eq!(value(row, "valid_fraction"), Field::Float(1.0));
        assert!(text(row, "id").starts_with("rgb.tif#xywh="));
        assert_eq!(value(row, "datetime"), Field::Null);
    }
    assert_eq!(scene.new_files(), ["chips.parquet", "rgb.tif"]);
}

#[test]
fn provenance_says_what_was_made_of_the_scene() {
    let scene = scene();
    let options = "--stride 16 --edges shift --min-valid 0.25 --datetime 2026-05-17 --pool token,avg";
    embed(&scene, &format!("rgb.tif {options} -o chips.parquet")).assert().code(0);
    let found = provenance(&scene, "chips.parquet");
    assert_eq!(found["scene"]["chip_px"], 32);
    assert_eq!(found["scene"]["stride_px"], 16);
    assert_eq!(found["scene"]["edges"], "shift");
    assert_eq!(found["scene"]["min_valid"], 0.25);
    assert_eq!(found["preprocess"]["name"], "native");
    assert_eq!(found["pooling"], serde_json::json!(["token", "avg"]));
    let rows = rows(&scene, "chips.parquet");
    // Shifted chips are all whole.
    assert!(windows(&rows).iter().all(|[.., width, height]| (*width, *height) == (32, 32)));
    assert_eq!(value(&rows[0], "datetime"), Field::TimestampMicros(1_778_976_000_000_000));
    let _ = value(&rows[0], "embedding_avg");
}

#[test]
fn a_chip_has_the_embedding_of_its_pixels() {
    let scene = scene();
    embed(&scene, "rgb.tif -o chips.parquet").assert().code(0);
    // The chip at (32, 0) as a picture of its own.
    let moved = TiffImage {
        width_px: 32,
        height_px: 32,
        sample: |band, x, y| dinov3_testing::geotiff::pattern(band, x + 32, y),
        tags: vec![(262, TiffValue::Short(vec![2]))],
        ..TiffImage::default()
    };
    scene.file("chip.tif", TiffFile::of(moved).to_bytes());
    let line = "embed chip.tif -m tiny.json --weights synthetic:7 --preprocess native -o chip.parquet";
    scene.dinov3(line).assert().code(0);
    let chips = rows(&scene, "chips.parquet");
    let chip = chips.iter().find(|row| (number(row, "x_px"), number(row, "y_px")) == (32, 0)).unwrap();
    let picture = &rows(&scene, "chip.parquet")[0];
    assert_eq!(value(chip, "embedding"), value(picture, "embedding"));
}

#[test]
fn batches_threads_and_continued_runs_give_the_same_file() {
    let scene = scene();
    embed(&scene, "rgb.tif -o a.parquet").assert().code(0);
    embed(&scene, "rgb.tif -o b.parquet --batch-size 1 --threads 1").assert().code(0);
    embed(&scene, "rgb.tif -o c.parquet --batch-size 5 --resume --block-cache 1").assert().code(0);
    let [a, b, c] = ["a", "b", "c"].map(|name| fs::read(scene.path(&format!("{name}.parquet"))).unwrap());
    assert!(a == b && a == c);
}

#[test]
fn chips_with_too_little_data_have_no_row() {
    let scene = Scene::new();
    let sample =
        |band: u32, x: u32, y: u32| if x < 40 { 0 } else { dinov3_testing::geotiff::pattern(band, x, y).max(1) };
    let mut image = rgb();
    (image.width_px, image.height_px, image.sample) = (96, 32, sample);
    image.tags.push((42113, TiffValue::Ascii("0")));
    scene.file("border.tif", TiffFile::of(image).to_bytes());
    let output = embed(&scene, "border.tif -o chips.parquet").assert().code(0);
    assert!(stderr(&output).contains("2 chips in"), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 without enough data"), "{}", stderr(&output));
    let rows_found = rows(&scene, "chips.parquet");
    let second = rows_found.iter().find(|row| number(row, "x_px") == 32).unwrap();
    assert_eq!(value(second, "valid_fraction"), Field::Float(0.75));
    embed(&scene, "border.tif --min-valid 0.8 -o chips.parquet").assert().code(0);
    assert_eq!(rows(&scene, "chips.parquet").len(), 1);
    // The first chip has no data at all, whatever is asked for.
    embed(&scene, "border.tif --min-valid 0 -o chips.parquet").assert().code(0);
    assert_eq!(rows(&scene, "chips.parquet").len(), 2);
}

#[test]
fn a_scene_that_cannot_be_used_is_reported_and_the_rest_goes_on() {
    let scene = scene();
    scene.file("scenes/a.tif", TiffFile::of(rgb()).to_bytes());
    scene.file("scenes/b.tif", "no TIFF");
    scene.file("scenes/c.tiff", TiffFile::of(rgb()).to_bytes());
    scene.file("scenes/notes.txt", "no scene");
    let output = embed(&scene, "scenes -o chips.parquet").assert().code(3);
    assert!(stderr(&output).contains("failed: scenes/b.tif: "), "{}", stderr(&output));
    assert!(stderr(&output).contains("24 chips in"), "{}", stderr(&output));
    assert_eq!(rows(&scene, "chips.parquet").len(), 24);
    assert_eq!(provenance(&scene, "chips.parquet")["failures"][0]["path"], "scenes/b.tif");
}

#[test]
fn what_is_missing_is_said_before_the_weights_are_read() {
    let scene = Scene::new();
    scene.file("plain.tif", TiffFile::of(TiffImage::default()).to_bytes());
    let deep = TiffImage { bits: 16, sample: |_, x, _| 200 + u64::from(x), ..rgb() };
    scene.file("deep.tif", TiffFile::of(deep).to_bytes());
    let four = TiffImage { bands: 4, tags: utm_tags(), ..TiffImage::default() };
    scene.file("four.tif", TiffFile::of(four).to_bytes());
    let embed = |line: &str| {
        scene.dinov3(&format!("scene embed {line} -m tiny.json --weights missing.safetensors -o chips.parquet"))
    };
    embed("plain.tif").assert().code(1).stderr_eq(str![[r#"
error: plain.tif has no georeference: for plain pictures use 'dinov3 embed'

"#]]);
    embed("deep.tif").assert().code(1).stderr_eq(str![[r#"
error: deep.tif has uint16 samples, from 200 to 299 in its middle: say which values are black and white, as --scale 'range 200,299'

"#]]);
    embed("deep.tif --scale u8").assert().code(1).stderr_eq(str![[r#"
error: deep.tif has uint16 samples, which --scale u8 does not fit: use --scale 'range LOW,HIGH'

"#]]);
    embed("four.tif").assert().code(1).stderr_eq(str![[r#"
note: vit_small_patch16_dinov3 (tiny.json) was trained on pictures of the web; vit_large_patch16_dinov3.sat493m was trained on satellite scenes
error: missing.safetensors: No such file or directory (os error 2)

"#]]);
    embed("four.tif --bands 3,2,5").assert().code(1).stderr_eq(str![[r#"
error: four.tif has 4 bands, and no band 5: bands are counted from 1

"#]]);
    embed("missing.tif").assert().code(1).stderr_eq(str![[r#"
error: missing.tif does not exist

"#]]);
    assert_eq!(scene.new_files(), ["deep.tif", "four.tif", "plain.tif"]);
}

#[test]
fn wrong_options_are_wrong_usage() {
    let scene = scene();
    let embed = |line: &str| scene.dinov3(&format!("scene embed {line} -m tiny.json --weights synthetic:7"));
    embed("rgb.tif -o chips.tif").assert().code(2).stderr_eq(str![[r#"
error: chips.tif: the output of scenes is GeoParquet, a file that ends in .parquet, a Zarr store that ends in .zarr, or a folder; a .tif is one of --dense

"#]]);
    embed("rgb.tif -o chips.parquet --chip 100").assert().code(2).stderr_eq(str![[r#"
error: --chip 100 is not divisible by 16; sizes that work: 96 or 112

"#]]);
    embed("rgb.tif -o chips.parquet --bands 1,2").assert().code(2).stderr_eq(str![[r#"
error: --bands: name three bands, R,G,B, or one for all three

"#]]);
    embed("rgb.tif ./rgb.tif -o chips.parquet").assert().code(2);
    let output = embed("http://h/a.tif?sig=1 http://h/a.tif?sig=1 -o chips.parquet").assert().code(2);
    assert!(stderr(&output).contains("http://h/a.tif is named twice") && !stderr(&output).contains("sig"));
    embed("rgb.tif rgb.tif -o chips.parquet").assert().code(2).stderr_eq(str![[r#"
error: rgb.tif is named twice, and would give the same rows twice

"#]]);
    let output = scene.dinov3("scene embed rgb.tif -m tiny.json --crs EPSG:1 -o chips.parquet").assert().code(2);
    assert!(
        stderr(&output).contains("'EPSG:1' for '--crs <CRS>': it is not in the built-in table"),
        "{}",
        stderr(&output)
    );
    for wrong in ["--datetime soon", "--min-valid 2", "--scale grey", "--edges mirror", "--stride 0"] {
        embed(&format!("rgb.tif -o chips.parquet {wrong}")).assert().code(2);
    }
}

#[cfg(unix)]
#[test]
fn a_scene_is_never_the_output_under_whatever_name() {
    let scene = scene();
    std::os::unix::fs::symlink("rgb.tif", scene.path("out.parquet")).unwrap();
    scene.file("b.parquet", TiffFile::of(rgb()).to_bytes());
    let before = fs::read(scene.path("rgb.tif")).unwrap();
    embed(&scene, "rgb.tif -o out.parquet").assert().code(2);
    let place = scene.path("b.parquet");
    embed(&scene, &format!("file://{} -o b.parquet", place.display())).assert().code(2);
    assert_eq!(fs::read(scene.path("rgb.tif")).unwrap(), before);
    assert_eq!(fs::read(place).unwrap(), before);
}

#[test]
fn what_is_no_number_is_no_data() {
    let scene = Scene::new();
    let sample = |_, x: u32, _| u64::from(if x < 24 { f32::NAN.to_bits() } else { (x as f32 / 100.0).to_bits() });
    let image = TiffImage { bits: 32, sample_format: 3, sample, width_px: 64, height_px: 32, ..rgb() };
    scene.file("nan.tif", TiffFile::of(image).to_bytes());
    let command = embed(&scene, "nan.tif --min-valid 0.2 -o chips.parquet").args(["--scale", "range 0,1"]);
    command.assert().code(0);
    let found = rows(&scene, "chips.parquet");
    let first = found.iter().find(|row| number(row, "x_px") == 0).unwrap();
    assert_eq!((found.len(), value(first, "valid_fraction")), (2, Field::Float(0.25)));
}

#[test]
fn a_run_without_any_chip_says_why() {
    let scene = scene();
    let output = scene.dinov3("scene embed rgb.tif --edges drop -m tiny.json --weights synthetic:7 -o chips.parquet");
    assert!(stderr(&output.assert().code(0)).contains("note: no scene is as large as a chip"));
}

#[test]
fn a_reference_system_in_which_a_scene_lies_nowhere_is_one_error() {
    let scene = scene();
    let line = "scene embed rgb.tif --crs EPSG:4326 -m tiny.json --weights missing.safetensors -o chips.parquet";
    let told = stderr(&scene.dinov3(line).assert().code(1));
    assert!(told.starts_with("error: rgb.tif: ") && told.lines().count() == 1, "{told}");
    assert!(!scene.path("chips.parquet").exists());
}

#[test]
fn other_samples_are_scaled_as_declared() {
    let scene = Scene::new();
    let levels = TiffImage { sample: |band, x, y| dinov3_testing::geotiff::pattern(band, x, y), ..rgb() };
    let numbers =
        TiffImage { bits: 16, sample: |band, x, y| 1000 + 10 * dinov3_testing::geotiff::pattern(band, x, y), ..rgb() };
    scene.file("levels.tif", TiffFile::of(levels).to_bytes());
    scene.file("numbers.tif", TiffFile::of(numbers).to_bytes());
    embed(&scene, "levels.tif -o levels.parquet").assert().code(0);
    let mut command = embed(&scene, "numbers.tif -o numbers.parquet");
    command = command.args(["--scale", "range 1000,3550"]);
    command.assert().code(0);
    let vectors = |name: &str| -> Vec<Field> { rows(&scene, name).iter().map(|row| value(row, "embedding")).collect() };
    assert_eq!(vectors("levels.parquet"), vectors("numbers.parquet"));
}

#[test]
fn a_scene_on_a_server_gives_the_same_vectors() {
    let scene = scene();
    embed(&scene, "rgb.tif -o file.parquet").assert().code(0);
    let bytes = fs::read(scene.path("rgb.tif")).unwrap();
    let server = HttpServer::start(move |request| match request.path.as_str() {
        "/rgb.tif" => part_of(&bytes, request),
        _ => HttpReply::new(404, ""),
    });
    let url = server.url();
    embed(&scene, &format!("{url}/rgb.tif -o url.parquet")).assert().code(0);
    let vectors = |name: &str| -> Vec<Field> { rows(&scene, name).iter().map(|row| value(row, "embedding")).collect() };
    assert_eq!(vectors("file.parquet"), vectors("url.parquet"));
    assert_eq!(text(&rows(&scene, "url.parquet")[0], "source"), format!("{url}/rgb.tif"));
    let output = embed(&scene, &format!("{url}/other.tif -o no.parquet")).assert().code(1);
    assert!(stderr(&output).contains("/other.tif does not exist"), "{}", stderr(&output));
}

#[test]
fn info_tells_what_a_scene_is() {
    let scene = scene();
    scene.dinov3("scene info rgb.tif --chip 32").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
scene             rgb.tif
size              100 x 70 px
samples           3 bands of uint8
stored            tiles of 32 x 16 px, DEFLATE
overviews         none
valid pixels      all
reference system  EPSG:32633 (WGS 84 / UTM zone 33N)
datum             WGS 84
pixel             10 x 10 metres
corner            399960, 4200000
longitude         13.861471 to 13.872946
latitude          37.935773 to 37.942190
red, green, blue  bands 1, 2, 3; scale u8
mean              0.491, 0.492, 0.489 of all pixels
deviation         0.284, 0.285, 0.285
z                 0.288, 0.516, 1.352 against the weights for satellites
chips             12 of 32 x 32 px every 32 px, edges pad

"#]]);
    let found: Value =
        serde_json::from_str(&stdout(&scene.dinov3("scene info rgb.tif --json").assert().code(0))).unwrap();
    assert_eq!((&found["epsg"], &found["chips"]), (&Value::from(32633), &Value::from(1)));
    assert_eq!(found["rgb_bands"], serde_json::json!([1, 2, 3]));
    let plain = TiffFile::of(TiffImage::default()).to_bytes();
    scene.file("plain.tif", plain);
    let output = scene.dinov3("scene info plain.tif").assert().code(1);
    assert!(stdout(&output).contains("100 x 70 px") && stderr(&output).contains("no georeference"));
}
