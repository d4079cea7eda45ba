//! Vectors as they are stored, wherever they are read again; options that mean nothing for an output; scenes that do not fit
//! one.

mod common;

use std::fs;

use common::chips::{provenance, rows};
use common::{Scene, stderr};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, pattern, utm_tags};
use dinov3_testing::kills::{Input, Plan};
use serde_json::{Value, json};
use snapbox::cmd::Command;

/// Pixels of 8-bit RGB in UTM zone 33, from this corner on.
fn rgb(width_px: u32, height_px: u32, corner: [f64; 2]) -> TiffImage {
    let tags = utm_tags().into_iter().map(|(tag, value)| match tag {
        33922 => (tag, TiffValue::Double(vec![0.0, 0.0, 0.0, corner[0], corner[1], 0.0])),
        _ => (tag, value),
    });
    let tags = tags.chain([(262, TiffValue::Short(vec![2]))]).collect();
    TiffImage { width_px, height_px, sample: pattern, tags, ..TiffImage::default() }
}

const CORNER: [f64; 2] = [399_960.0, 4_200_000.0];

fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("rgb.tif", TiffFile::of(rgb(100, 70, CORNER)).to_bytes());
    scene
}

/// Turned by a matrix of ten metres a pixel.
fn rotated() -> Vec<u8> {
    let mut image = rgb(100, 70, CORNER);
    image.tags.retain(|(tag, _)| ![33550, 33922].contains(tag));
    let matrix = vec![9.0, 3.0, 0.0, CORNER[0], 3.0, -9.0, 0.0, CORNER[1], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    image.tags.push((34264, TiffValue::Double(matrix)));
    TiffFile::of(image).to_bytes()
}

fn run(scene: &Scene, line: &str) -> Command {
    scene.dinov3(&format!("scene {line} -m tiny.json --weights synthetic:7"))
}

fn told(command: Command, code: i32) -> String {
    stderr(&command.assert().code(code))
}

fn stored(scene: &Scene, name: &str) -> Vec<String> {
    let mut vectors: Vec<String> = rows(scene, name)
        .iter()
        .map(|row| {
            let wanted = |name: &str| name == "id" || name.starts_with("embedding");
            let values = row.get_column_iter().filter(|(name, _)| wanted(name));
            values.map(|(name, value)| format!("{name}={value:?};")).collect()
        })
        .collect();
    vectors.sort();
    vectors
}

#[test]
fn vectors_of_every_type_are_merged_as_they_are_stored_and_mapped() {
    for (kind, numpy, method) in [
        ("f32", "float32", None),
        ("f16", "float16", Some("round_to_nearest_even")),
        ("int8", "int8", Some("per_vector_scale")),
    ] {
        let scene = scene();
        fs::copy(scene.path("rgb.tif"), scene.path("other.tif")).unwrap();
        let options = format!("--chip 32 --datetime 2026-05-17 --pool token,avg --embedding-type {kind}");
        run(&scene, &format!("embed rgb.tif other.tif {options} -o out/")).assert().code(0);
        scene.dinov3("scene merge out/ --parquet all.parquet").assert().code(0);
        let mut parts = Vec::new();
        for entry in fs::read_dir(scene.path("out")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".parquet") {
                parts.extend(stored(&scene, &format!("out/{name}")));
            } else if name.ends_with(".json") && name != "collection.json" {
                let item = scene.json(&format!("out/{name}"));
                let found = &item["properties"]["emb:quantization"];
                assert_eq!(found["method"].as_str(), method);
                assert_eq!(found["quantized_dtype"].as_str(), method.map(|_| numpy));
            }
        }
        parts.sort();
        assert!(parts.len() == 24 && stored(&scene, "all.parquet") == parts, "{kind}");
        assert_eq!(
            provenance(&scene, "all.parquet")["columns"]["embedding"]["element_type"].as_str().unwrap_or("f32"),
            kind
        );
        assert_eq!(scene.json("out/collection.json")["data_type"], numpy);
        for column in ["embedding", "embedding_avg"] {
            let line = format!("scene map map.html rgb.tif --embeddings all.parquet --column {column}");
            assert!(told(scene.dinov3(&line), 0).starts_with("12 chips of rgb.tif in 64 dimensions"));
        }
    }
}

#[test]
fn one_switch_says_how_values_are_stored() {
    let scene = scene();
    run(&scene, "embed rgb.tif --dense --no-picture --dims all --embedding-type int8 -o bytes.zarr").assert().code(0);
    let root = scene.json("bytes.zarr/zarr.json");
    let metadata = &root["consolidated_metadata"]["metadata"];
    assert_eq!((&metadata["embeddings"]["data_type"], metadata["scales"].is_object()), (&json!("int8"), true));
    assert_eq!(root["attributes"]["geoemb:quantization"]["method"], "per_pixel_scale");
    assert_eq!(root["attributes"]["geoemb:type"], "pixel");
    let text = told(run(&scene, "embed rgb.tif --dense --embedding-type int8 -o bytes.tif"), 2);
    assert_eq!(
        text,
        "error: --embedding-type int8: a GeoTIFF has no scale per cell; use f16, or write a Zarr store, .zarr\n"
    );
}

#[test]
fn options_that_would_be_ignored_are_refused() {
    let scene = scene();
    for (line, option) in [
        // What contradicts --dense once let these pass.
        ("embed rgb.tif --chip 32 --window 64 -o out.parquet", "--window: it goes with --dense"),
        ("embed rgb.tif --chip 32 --no-picture -o out.parquet", "--no-picture: it goes with --dense"),
        ("embed rgb.tif --dims 8 -o out.parquet", "--dims: it goes with --dense"),
        ("plan rgb.tif --dense --unit-chips 5 -o plan.parquet", "--unit-chips: with --dense a scene is one unit"),
        ("embed rgb.tif --dense --format parquet -o out/", "--format parquet: patches are cells of a raster"),
        ("embed rgb.tif --chip 32 --format tif -o out/", "--format tif: it goes with --dense"),
        ("plan rgb.tif --chip 32 --overlap 0 -o plan.parquet", "--overlap: it goes with"),
        ("embed rgb.tif --scratch x -o out.parquet", "--scratch: it is of outputs that are folders"),
        ("embed rgb.tif --format parquet -o out.zarr", "--format: it is of outputs that are folders"),
        ("embed rgb.tif --dense --scratch x -o out.tif", "--scratch: it is of outputs that are folders"),
    ] {
        let text = told(run(&scene, line), 2);
        assert!(text.starts_with(&format!("error: {option}")), "{line}: {text}");
    }
    run(&scene, "embed rgb.tif --chip 32 -o chips.parquet").assert().code(0);
    for option in ["--chip 32", "--grid utm", "--min-valid 0.1", "--batch-size 2", "--resume"] {
        let text = told(scene.dinov3(&format!("scene map map.html --embeddings chips.parquet {option}")), 2);
        assert!(text.starts_with(&format!("error: {}: ", option.split(' ').next().unwrap())), "{text}");
    }
    let text = told(run(&scene, "map map.html rgb.tif --stride 8"), 2);
    assert!(text.starts_with("error: --stride: a map shows chips as 'dinov3 scene embed' has cut them"), "{text}");
    assert_eq!(scene.new_files(), ["chips.parquet", "rgb.tif"]);
}

#[test]
fn a_map_of_another_scene_is_refused() {
    let scene = scene();
    run(&scene, "embed rgb.tif --chip 32 -o chips.parquet").assert().code(0);
    run(&scene, "embed rgb.tif --dense --no-picture --dims all -o patches.tif").assert().code(0);
    // As large, and two pixels to the east; larger; in another zone.
    scene.file("moved.tif", TiffFile::of(rgb(100, 70, [CORNER[0] + 20.0, CORNER[1]])).to_bytes());
    scene.file("large.tif", TiffFile::of(rgb(120, 70, CORNER)).to_bytes());
    for (name, crs) in [("moved.tif", ""), ("large.tif", ""), ("rgb.tif", "--crs EPSG:32634")] {
        let text = told(scene.dinov3(&format!("scene map map.html {name} --embeddings chips.parquet {crs}")), 1);
        assert!(text.contains(&format!("does not lie where its pixels lie in {name}")), "{text}");
        let text = told(scene.dinov3(&format!("scene map map.html {name} --embeddings patches.tif {crs}")), 1);
        assert!(text.contains(&format!("do not cover {name}")), "{text}");
    }
    // The same place under another name may be another date.
    fs::copy(scene.path("rgb.tif"), scene.path("later.tif")).unwrap();
    for file in ["chips.parquet", "patches.tif"] {
        let text = told(scene.dinov3(&format!("scene map map.html later.tif --embeddings {file}")), 0);
        assert!(text.contains(&format!("note: {file} is of rgb.tif; the picture is that of later.tif\n")), "{text}");
    }
}

#[test]
fn what_no_map_is_made_of_is_named() {
    let scene = scene();
    run(&scene, "embed rgb.tif --chip 32 -o chips.zarr").assert().code(0);
    let text = told(scene.dinov3("scene map map.html --embeddings chips.zarr"), 2);
    assert!(
        text.starts_with("error: chips.zarr: a map is not made of Zarr stores: write the vectors as chips"),
        "{text}"
    );
    let text = told(scene.dinov3("scene map map.html --embeddings photos"), 2);
    assert!(text.starts_with("error: photos is a folder: name one of its .parquet files"), "{text}");
}

#[test]
fn a_map_of_files_of_bands_finds_them_again() {
    let scene = Scene::new();
    for band in ["B04", "B03", "B02"] {
        let mut image = rgb(100, 70, CORNER);
        image.bands = 1;
        image.tags.retain(|(tag, _)| *tag != 262);
        scene.file(&format!("products/T33_{band}.tif"), TiffFile::of(image).to_bytes());
    }
    let bands = ["--band-files", "*_B04.tif,*_B03.tif,*_B02.tif"];
    run(&scene, "embed products --chip 32 -o chips.parquet").args(bands).assert().code(0);
    let text = told(scene.dinov3("scene map map.html --embeddings chips.parquet"), 0);
    assert!(text.starts_with("12 chips of products/T33_{B04,B03,B02}.tif in "), "{text}");
    fs::rename(scene.path("products"), scene.path("moved")).unwrap();
    let text = told(scene.dinov3("scene map map.html --embeddings chips.parquet"), 2);
    assert!(text.contains("name the files of its bands where they are now, --band-files R,G,B"), "{text}");
    let bands = ["--band-files", "moved/T33_B04.tif,moved/T33_B03.tif,moved/T33_B02.tif"];
    scene.dinov3("scene map map.html --embeddings chips.parquet").args(bands).assert().code(0);
}

#[test]
fn one_place_has_no_recall_and_messages_name_the_page() {
    let scene = Scene::new();
    scene.file("one.tif", TiffFile::of(rgb(16, 16, CORNER)).to_bytes());
    let text = told(run(&scene, "map map.html one.tif"), 0);
    assert!(!text.contains("recall") && !text.contains(".patches.tif"), "{text}");
    assert!(text.contains("1 windows in ") && text.contains("-> map.html\n1 patch of one.tif in "), "{text}");
    // Where the patches wait, nobody's link is followed.
    #[cfg(unix)]
    {
        scene.file("mine.tif", "mine");
        std::os::unix::fs::symlink(scene.path("mine.tif"), scene.path(".map.html.patches.tif")).unwrap();
        let text = told(run(&scene, "map map.html one.tif"), 1);
        assert!(text.contains(".map.html.patches.tif: exists and is no file"), "{text}");
        assert_eq!(fs::read(scene.path("mine.tif")).unwrap(), b"mine");
    }
}

#[test]
fn what_is_stored_from_the_south_is_mapped_with_north_up_and_what_is_rotated_is_refused() {
    let scene = scene();
    let mut south = rgb(100, 70, CORNER);
    south.tags.retain(|(tag, _)| ![33550, 33922].contains(tag));
    // A matrix, since a scale cannot be negative.
    let matrix = vec![10.0, 0.0, 0.0, CORNER[0], 0.0, 10.0, 0.0, CORNER[1], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    south.tags.push((34264, TiffValue::Double(matrix)));
    scene.file("south.tif", TiffFile::of(south).to_bytes());
    run(&scene, "map map.html south.tif").assert().code(0);
    let page = fs::read_to_string(scene.path("map.html")).unwrap();
    let head = page.split_once("id=\"head\">").unwrap().1.split_once("</script>").unwrap().0;
    let head: Value = serde_json::from_str(head).unwrap();
    assert_eq!((&head["count"], &head["height_px"]), (&json!(35), &json!(70)));
    scene.file("turned.tif", rotated());
    let advice = "has north up: turn it with gdalwarp -t_srs EPSG:32633 turned.tif turned.tif";
    for line in ["embed turned.tif --dense -o out.tif", "map map.html turned.tif"] {
        let text = told(run(&scene, line), 1);
        assert!(
            text.contains("turned.tif is rotated or mirrored") && text.contains("has north up"),
            "{advice}: {text}"
        );
    }
    run(&scene, "embed turned.tif --chip 32 -o chips.parquet").assert().code(0);
    let text = told(scene.dinov3("scene map map.html --embeddings chips.parquet"), 1);
    assert!(text.contains("turned.tif is rotated or mirrored, and a map has north up"), "{text}");
}

#[test]
fn blocks_of_a_grid_are_cells_of_a_store_and_what_does_not_fit_is_left_out() {
    let scene = scene();
    let text = told(run(&scene, "embed rgb.tif --grid major-tom --chip 32 -o out.zarr"), 2);
    assert!(text.starts_with("error: --grid major-tom:10: its cells are no columns and rows"), "{text}");
    scene.file("later.tif", TiffFile::of(rgb(100, 70, [CORNER[0] + 124.0, CORNER[1] - 96.0])).to_bytes());
    run(&scene, "embed rgb.tif later.tif --grid utm --chip 32 --min-valid 0.1 -o dates.zarr").assert().code(0);
    let transform =
        |group: &str| scene.json(&format!("dates.zarr/{group}/zarr.json"))["attributes"]["spatial:transform"].clone();
    for group in ["rgb", "later"] {
        let found = transform(group);
        assert_eq!((&found[0], &found[4]), (&json!(320.0), &json!(-320.0)));
        for origin in [&found[2], &found[5]] {
            assert_eq!(origin.as_f64().unwrap() % 320.0, 0.0, "{group}: {found}");
        }
    }
    // A scene that cannot be a raster costs itself.
    scene.file("turned.tif", rotated());
    let output = run(&scene, "embed rgb.tif turned.tif --chip 32 -o some.zarr").assert().code(3);
    let text = stderr(&output);
    assert!(text.contains("failed: turned.tif: is rotated or mirrored, and a Zarr store has coordinates"), "{text}");
    assert!(text.contains("12 chips in ") && scene.path("some.zarr/rgb/embeddings").exists(), "{text}");
}

#[test]
fn a_dense_run_with_failed_windows_keeps_what_was_done() {
    let scene = Scene::new();
    let whole = TiffFile::of(rgb(160, 48, CORNER)).to_bytes();
    let mut broken = whole.clone();
    let end = broken.len();
    broken[end - 600..].fill(0xff);
    scene.file("scene.tif", &broken);
    let dense = |options: &str| {
        run(&scene, &format!("embed scene.tif --dense --dims 4 --window 48 --overlap 16 -o out.tif {options}"))
    };
    let text = told(dense(""), 3);
    assert!(text.contains("the same command with --resume makes just what is missing"), "{text}");
    let first = fs::read(scene.path("out.tif")).unwrap();
    assert!(told(dense(""), 2).contains("continue it with --resume"));
    let text = told(dense("--resume"), 3);
    let known = text.split_once(", ").and_then(|(_, rest)| rest.split_once(" from before"));
    assert!(known.is_some() && text.contains("0.0 windows/s"), "{text}");
    assert_eq!(fs::read(scene.path("out.tif")).unwrap(), first);
    // Mended, it is another scene, since its time has changed.
    scene.file("scene.tif", &whole);
    let text = told(dense("--resume"), 0);
    assert!(text.contains("rows from before were left out"), "{text}");
    assert!(!scene.path(".out.tif.dinov3-journal").exists());
}

#[test]
fn a_dense_raster_tells_of_resampled_files_as_chips_do() {
    let scene = Scene::new();
    for (name, width_px, height_px, pixel_m) in [("a", 100, 70, 10.0), ("b", 50, 35, 20.0), ("c", 100, 70, 10.0)] {
        let mut image = rgb(width_px, height_px, CORNER);
        image.bands = 1;
        image.tags.retain(|(tag, _)| *tag != 262);
        for (tag, value) in &mut image.tags {
            if *tag == 33550 {
                *value = TiffValue::Double(vec![pixel_m, pixel_m, 0.0]);
            }
        }
        scene.file(&format!("{name}.tif"), TiffFile::of(image).to_bytes());
    }
    let text = told(run(&scene, "embed --band-files a.tif,b.tif,c.tif --dense --no-picture --dims 4 -o out.zarr"), 0);
    assert!(text.contains("note: b.tif is resampled bilinearly from 50 x 35 to 100 x 70 px\n"), "{text}");
    let about = &scene.json("out.zarr/zarr.json")["attributes"]["dinov3"];
    assert_eq!(about["resampled"][0]["file"], 2);
    assert_eq!(about["scenes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_dense_run_that_was_killed_goes_on_to_the_same_bytes() {
    for (seed, extension) in ["tif", "zarr"].into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            program: snapbox::cmd::cargo_bin!("dinov3"),
            folder: folder.path(),
            extension,
            pictures: 1,
            kills: 4,
            finishing: 1,
            seed: seed as u64,
        };
        let tally = plan.run_on(Input::Dense, &mut |line| println!("{line}"));
        assert!(tally.kills >= 4 && tally.finishing >= 1 && tally.outputs >= 1);
    }
}
