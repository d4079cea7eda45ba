//! `dinov3 scene embed --dense`: a scene's patches as one raster.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.

mod common;

use std::fs;

use common::{Scene, stderr};
use dinov3_scene::geo::AffineTransform;
use dinov3_scene::raster::{Opener, Options, Raster};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, pattern, utm_tags};
use snapbox::cmd::Command;
use snapbox::str;

/// Pixels of 8-bit RGB in UTM zone 33.
fn rgb(width_px: u32, height_px: u32, sample: fn(u32, u32, u32) -> u64) -> TiffImage {
    let tags = utm_tags().into_iter().chain([(262, TiffValue::Short(vec![2]))]).collect();
    TiffImage { width_px, height_px, sample, tags, ..TiffImage::default() }
}

/// With `rgb.tif`, 7 x 5 patches of which the last ones reach beyond it.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("rgb.tif", TiffFile::of(rgb(100, 70, pattern)).to_bytes());
    scene
}

fn dense(scene: &Scene, line: &str) -> Command {
    let windows = "--window 48 --overlap 16";
    scene.dinov3(&format!("scene embed --dense {line} -m tiny.json --weights synthetic:7 {windows}"))
}

fn open(scene: &Scene, name: &str) -> Box<dyn Raster> {
    Opener::new(Options::default()).open(scene.path(name).to_str().unwrap()).unwrap()
}

/// `[rows, columns, D]`.
fn cells(scene: &Scene, name: &str) -> Vec<f32> {
    let raster = open(scene, name);
    let bands: Vec<usize> = (0..raster.profile().bands.len()).collect();
    let read = raster.read(raster.profile().window(), &bands).unwrap();
    let pixels = read.valid.len();
    let at = |pixel: usize| bands.iter().map(move |band| band * pixels + pixel);
    (0..pixels).flat_map(at).map(|at| read.samples.get(at) as f32).collect()
}

#[test]
fn a_raster_its_picture_and_its_basis_are_written() {
    let scene = scene();
    dense(&scene, "rgb.tif --dims 8 -o patches.tif").assert().code(0).stdout_eq("").stderr_eq(str![[r#"
note: vit_small_patch16_dinov3 (tiny.json) was trained on pictures of the web; vit_large_patch16_dinov3.sat493m was trained on satellite scenes
6 windows in [..] s, [..] windows/s, 0 failed -> patches.tif

"#]]);
    let raster = open(&scene, "patches.tif");
    let profile = raster.profile();
    assert_eq!((profile.width_px, profile.height_px, profile.bands.len()), (7, 5, 8));
    let transform = AffineTransform::unrotated(399_960.0, 4_200_000.0, 160.0, -160.0);
    assert_eq!(profile.georeference.transform(), Some(&transform));
    assert_eq!(profile.bands[7].description.as_deref(), Some("component 8"));
    let about: serde_json::Value = serde_json::from_str(&profile.metadata["dinov3"]).unwrap();
    assert_eq!(about["dense"]["window_px"], 48);
    assert_eq!(about["pca"]["components"], 8);
    assert_eq!(about["counts"]["done"], 6);
    assert!(about["weights"]["synthetic"].is_string());
    let picture = open(&scene, "patches-pca.tif");
    assert_eq!(picture.profile().rgb(), Some([0, 1, 2]));
    assert!(scene.path("patches-pca.safetensors").exists());
    assert!(!scene.path(".patches.tif.dinov3-journal").exists());
}

#[test]
fn neither_batches_nor_threads_nor_a_basis_that_was_saved_change_bytes() {
    let scene = scene();
    dense(&scene, "rgb.tif --dims 8 --pca-basis basis.safetensors -o a.tif").assert().code(0);
    dense(&scene, "rgb.tif --dims 8 --pca-basis basis.safetensors -o b.tif --batch-size 1 --threads 1")
        .assert()
        .code(0);
    assert_eq!(cells(&scene, "a.tif"), cells(&scene, "b.tif"));
    let picture = |name: &str| cells(&scene, name);
    assert_eq!(picture("a-pca.tif"), picture("b-pca.tif"));
    dense(&scene, "rgb.tif --dims 8 -o c.tif --batch-size 5").assert().code(0);
    assert_eq!(cells(&scene, "a.tif"), cells(&scene, "c.tif"));
    assert_eq!(fs::read(scene.path("basis.safetensors")).unwrap(), fs::read(scene.path("c-pca.safetensors")).unwrap());
}

#[test]
fn smaller_cells_are_those_of_shifted_passes() {
    let scene = scene();
    dense(&scene, "rgb.tif --dims all --no-picture --dense-step 8 -o fine.tif").assert().code(0);
    let raster = open(&scene, "fine.tif");
    let profile = raster.profile();
    assert_eq!((profile.width_px, profile.height_px, profile.bands.len()), (13, 9, 64));
    let transform = AffineTransform::unrotated(399_960.0, 4_200_000.0, 80.0, -80.0);
    assert_eq!(profile.georeference.transform(), Some(&transform));
    assert!(cells(&scene, "fine.tif").iter().all(|value| value.is_finite()));
    assert!(!scene.path("fine-pca.tif").exists() && !scene.path("fine-pca.safetensors").exists());
}

#[test]
fn cells_without_data_and_vectors_of_length_one() {
    let scene = Scene::new();
    // The left third is 0: no data.
    let holes = |band: u32, x: u32, y: u32| if x < 32 { 0 } else { pattern(band, x, y).max(1) };
    let mut image = rgb(96, 48, holes);
    image.tags.push((42113, TiffValue::Ascii("0")));
    scene.file("holes.tif", TiffFile::of(image).to_bytes());
    dense(&scene, "holes.tif --dims all --normalize --embedding-type f16 --no-picture -o out.tif").assert().code(0);
    assert_eq!(open(&scene, "out.tif").profile().bits_per_sample, 16);
    for (cell, vector) in cells(&scene, "out.tif").chunks_exact(64).enumerate() {
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        match cell % 6 < 2 {
            true => assert!(vector.iter().all(|value| value.is_nan()), "{cell}"),
            false => assert!((length - 1.0).abs() < 1e-3, "{cell}: {length}"),
        }
    }
}

#[test]
fn a_window_that_fails_leaves_its_cells_to_the_others_and_a_run_goes_on() {
    let scene = Scene::new();
    let mut bytes = TiffFile::of(rgb(160, 48, pattern)).to_bytes();
    // The last tiles of the pixels: the lower right corner.
    let end = bytes.len();
    bytes[end - 600..].fill(0xff);
    scene.file("broken.tif", bytes);
    // Ended by the failure, it keeps what was done.
    let strict = dense(&scene, "broken.tif --dims 4 -o out.tif --strict --batch-size 1").assert().code(1);
    assert!(stderr(&strict).contains("finished windows are kept, --resume continues"), "{}", stderr(&strict));
    assert!(!scene.path("out.tif").exists());
    let again = dense(&scene, "broken.tif --dims 4 -o out.tif --resume").assert().code(3);
    let text = stderr(&again);
    assert!(text.contains("from before") && text.contains("failed: broken.tif#xywh="), "{text}");
    let found = cells(&scene, "out.tif");
    assert!(found[0].is_finite() && found.last().unwrap().is_nan());
    dense(&scene, "broken.tif --dims 4 -o new.tif").assert().code(3);
    assert_eq!(fs::read(scene.path("out.tif")).unwrap().len(), fs::read(scene.path("new.tif")).unwrap().len());
}

#[test]
fn what_cannot_be_is_told_before_anything_is_read() {
    let scene = scene();
    scene.file("convnext.json", common::TINY_CONVNEXT);
    let told = |line: &str| {
        let output = dense(&scene, line).assert().code(2).stdout_eq("");
        stderr(&output).lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(
        told("rgb.tif --dims 65 -o out.tif"),
        "error: --dims 65: vit_small_patch16_dinov3 (tiny.json) has 64 dimensions"
    );
    assert_eq!(
        told("rgb.tif -o out.parquet"),
        "error: --output out.parquet: a dense output is a GeoTIFF that ends in .tif, a Zarr store that ends in .zarr, or a folder"
    );
    assert_eq!(
        told("rgb.tif --dense-step 3 -o out.tif"),
        "error: --dense: a cell can be 16 pixels on a side, or 8, 4, 2, and not 3"
    );
    assert_eq!(
        told("rgb.tif rgb.tif -o out.tif"),
        "error: --dense makes one raster of one scene, and there are 2: name a folder, OUT/, for a raster of each"
    );
    assert_eq!(told("rgb.tif --picture out.tif -o out.tif"), "error: out.tif is named twice among the outputs");
    assert!(told("rgb.tif --chip 32 -o out.tif").contains("cannot be used with"));
    assert!(told("rgb.tif -o rgb.tif").contains("is read by this command"));
    let output =
        scene.dinov3("scene embed rgb.tif --dense -m convnext.json --weights synthetic:7 -o out.tif").assert().code(2);
    assert!(stderr(&output).contains("has no patches; name a ViT"));
}

/// Octaves of smooth noise, each half as strong as the one of twice its size: about 1/f, and without period.
fn noise(band: u32, x: u32, y: u32) -> u64 {
    let random = |x: u32, y: u32, octave: u32| {
        let mut state = u64::from(x) << 40 | u64::from(y) << 16 | u64::from(octave) << 4 | u64::from(band);
        state = (state ^ (state >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (state >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    let mut sum = 0.0;
    for octave in 0..8 {
        let size = 1 << octave;
        let (column, row) = (x / size, y / size);
        let (right, down) = (f64::from(x % size) / f64::from(size), f64::from(y % size) / f64::from(size));
        let across = |row: u32| random(column, row, octave) * (1.0 - right) + random(column + 1, row, octave) * right;
        sum += f64::from(size) * (across(row) * (1.0 - down) + across(row + 1) * down);
    }
    (128.0 + sum).clamp(0.0, 255.0) as u64
}

/// Mean cosine distance of neighbours across the given columns and rows of cells, over that of all other neighbours.
fn jump(cells: &[f32], side: usize, edges: &[usize]) -> f64 {
    let dims = cells.len() / (side * side);
    let vector = |x: usize, y: usize| &cells[(y * side + x) * dims..][..dims];
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let distance = |a: &[f32], b: &[f32]| 1.0 - product(a, b) / (product(a, a) * product(b, b)).sqrt();
    let (mut across, mut elsewhere) = ((0.0, 0.0), (0.0, 0.0));
    for at in 1..side {
        for along in 0..side {
            let sums = if edges.contains(&at) { &mut across } else { &mut elsewhere };
            sums.0 += distance(vector(at - 1, along), vector(at, along));
            sums.0 += distance(vector(along, at - 1), vector(along, at));
            sums.1 += 2.0;
        }
    }
    (across.0 / across.1) / (elsewhere.0 / elsewhere.1)
}

#[test]
fn there_is_no_seam_unless_windows_do_not_overlap() {
    let scene = Scene::new();
    scene.file("noise.tif", TiffFile::of(rgb(768, 768, noise)).to_bytes());
    let embedded = |window: u32, overlap: u32| {
        let model = "-m vit_small_patch16_dinov3 --weights synthetic:7 --precision bf16 --dims all --no-picture";
        let line = format!("scene embed noise.tif --dense {model} --window {window} --overlap {overlap} -o out.tif");
        scene.dinov3(&line).assert().code(0);
        cells(&scene, "out.tif")
    };
    let (side, window, stride) = (48, 16, 12);
    let whole = embedded(768, 0);
    let starts = [0, 12, 24, 32];
    let edges: Vec<usize> =
        starts.iter().flat_map(|start| [*start, start + window]).filter(|edge| edge % side > 0).collect();
    assert_eq!(starts[1], stride);
    let blended = jump(&embedded(256, 64), side, &edges) / jump(&whole, side, &edges);
    let bare_edges = [16, 32];
    let bare = jump(&embedded(256, 0), side, &bare_edges) / jump(&whole, side, &bare_edges);
    println!("excess jump {blended:.4}; without overlap {bare:.4}");
    // 2,256 pairs vary by some hundredths; `dev/scene/seams.py` has 2048 pixels.
    assert!((blended - 1.0).abs() < 0.03, "{blended}");
    assert!(bare > 1.05, "{bare}");
}

#[test]
fn a_store_holds_the_same_cells_as_the_raster() {
    let scene = scene();
    dense(&scene, "rgb.tif --dims all --no-picture --datetime 2026-05-17 -o patches.zarr").assert().code(0);
    let root: serde_json::Value =
        serde_json::from_slice(&fs::read(scene.path("patches.zarr/zarr.json")).unwrap()).unwrap();
    assert_eq!(root["attributes"]["geoemb:type"], "pixel");
    assert_eq!(root["attributes"]["dinov3"]["dense"]["step_px"], 16);
    let array = &root["consolidated_metadata"]["metadata"]["embeddings"];
    let dims = array["shape"][1].as_u64().unwrap();
    assert_eq!(array["shape"], serde_json::json!([1, dims, 5, 7]));
    assert_eq!(array["dimension_names"], serde_json::json!(["time", "embedding", "y", "x"]));
    // One that this program did not write is never replaced.
    fs::create_dir(scene.path("mine.zarr")).unwrap();
    scene.file("mine.zarr/notes.txt", "mine");
    dense(&scene, "rgb.tif --dims all --no-picture -o mine.zarr").assert().code(1);
    assert!(scene.path("mine.zarr/notes.txt").exists());
}

#[test]
fn a_reference_system_without_geokeys_is_refused_before_weights_are_read() {
    let scene = scene();
    for system in ["+proj=omerc +lat_0=4 +lonc=102 +alpha=323 +datum=WGS84", "+proj=tmerc +ellps=WGS84 +R_A"] {
        let command = dense(&scene, "rgb.tif --dims 8 -o patches.tif").args(["--crs", system]);
        let told = stderr(&command.assert().code(1));
        assert!(told.contains("for which GeoTIFF has no keys: write a Zarr store (.zarr)"), "{told}");
        assert!(!told.contains("was trained on"), "{told}");
        assert!(!scene.path("patches.tif").exists());
    }
    // One that has some comes back as it was given.
    let system = "+proj=lcc +lat_1=45 +lat_0=40 +lon_0=15 +x_0=500000 +y_0=4000000 +datum=WGS84 +units=m";
    dense(&scene, "rgb.tif --dims 8 --no-picture -o patches.tif").args(["--crs", system]).assert().code(0);
    let raster = open(&scene, "patches.tif");
    let found = format!("{:?}", raster.profile().georeference);
    assert!(found.contains("+lat_0=40") && found.contains("+lat_1=45 +lat_2=45"), "{found}");
}
