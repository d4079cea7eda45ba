//! `dinov3 scene plan --format zarr`, `run` and `merge` of Zarr stores.

mod common;

use std::fs;
use std::path::Path;

use common::jobs::dinov3;
use common::objects::Objects;
use common::{Scene, stderr};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use serde_json::json;

/// So wide that a shard holds 2880 chips of one row.
const WIDE: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 256, "depth": 1, "num_heads": 4}}"#;
const MODEL: &str = "-m tiny.json --weights synthetic:7 --datetime 2026-05-17";

/// 8-bit RGB in UTM zone 33.
fn rgb(width_px: u32, height_px: u32) -> TiffImage {
    let mut tags: Vec<_> = utm_tags().into_iter().chain([(262, TiffValue::Short(vec![2]))]).collect();
    tags.sort_by_key(|(tag, _)| *tag);
    TiffImage { width_px, height_px, tags, ..TiffImage::default() }
}

/// With a matrix from pixels to coordinates.
fn placed(image: TiffImage, [a, b, c, d, e, f]: [f64; 6]) -> Vec<u8> {
    let mut tags: Vec<_> = image.tags.into_iter().filter(|(tag, _)| ![33550, 33922].contains(tag)).collect();
    let matrix = vec![a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    tags.push((34264, TiffValue::Double(matrix)));
    tags.sort_by_key(|(tag, _)| *tag);
    TiffFile::of(TiffImage { tags, ..image }).to_bytes()
}

fn said(scene: &Scene, line: &str, code: i32) -> String {
    stderr(&dinov3(scene, line).assert().code(code))
}

/// Names of all files but those that only jobs have, and what is in them.
fn store(scene: &Scene, name: &str) -> Vec<(String, Vec<u8>)> {
    fn below(folder: &Path, prefix: &str, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => below(&entry.path(), &format!("{name}/"), found),
                false => found.push((name, fs::read(entry.path()).unwrap())),
            }
        }
    }
    let mut found = Vec::new();
    below(&scene.path(name), "", &mut found);
    found.retain(|(name, _)| !name.starts_with(".dinov3/"));
    found.sort();
    found
}

fn assert_same(scene: &Scene, one: &str, other: &str) {
    let (one, other) = (store(scene, one), store(scene, other));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for ((name, one), (_, other)) in one.iter().zip(&other) {
        assert!(one == other, "{name} differs");
    }
}

/// Two scenes of 12 chips that overlap.
fn two_scenes() -> Scene {
    let scene = Scene::new();
    scene.file("scenes/a.tif", TiffFile::of(rgb(100, 70)).to_bytes());
    scene.file("scenes/b.tif", placed(rgb(100, 70), [10.0, 0.0, 400_123.456_7, 0.0, -10.0, 4_200_000.1]));
    scene
}

#[test]
fn shards_in_any_order_give_the_store_of_one_run() {
    let scene = Scene::new();
    scene.file("tiny.json", WIDE);
    scene.file("wide.tif", TiffFile::of(rgb(2960, 16)).to_bytes());
    // From the south: its first shard is the one with the last rows.
    scene.file("up.tif", placed(rgb(16, 2960), [10.0, 0.0, 400_123.456_7, 0.0, 10.0, 4_200_000.1]));
    scene.file("small.tif", TiffFile::of(rgb(40, 33)).to_bytes());
    let line = format!("wide.tif up.tif small.tif {MODEL} --chip 16 --stride 1");
    dinov3(&scene, &format!("embed {line} -o one.zarr")).assert().code(0);
    let told = said(&scene, &format!("plan {line} --format zarr -o plan.parquet"), 0);
    assert!(told.contains("5 units of 3 scenes, 6340 chips"), "{told}");
    for shard in [2, 0, 1] {
        let run = format!("run --plan plan.parquet --shard {shard}/3 --batch-size {} -o jobs.zarr", 7 + shard);
        dinov3(&scene, &run).assert().code(0);
    }
    let told = said(&scene, "merge jobs.zarr", 0);
    assert!(told.contains("5 of 5 units, 6340 chips, 0 problems -> jobs.zarr"), "{told}");
    assert_same(&scene, "one.zarr", "jobs.zarr");
    assert!(scene.path("jobs.zarr/up/embeddings/c/0/0/1/0").exists());
    assert!(scene.path("jobs.zarr/wide/valid_fraction/c/0/0/1").exists());
}

#[test]
fn several_vectors_and_their_scales_are_parts_too() {
    let scene = two_scenes();
    let line = format!("scenes {MODEL} --chip 32 --stride 20 --embedding-type int8 --pool token,avg");
    dinov3(&scene, &format!("embed {line} -o one.zarr")).assert().code(0);
    dinov3(&scene, &format!("plan {line} --format zarr -o plan.parquet")).assert().code(0);
    dinov3(&scene, "run --plan plan.parquet -o jobs.zarr").assert().code(0);
    dinov3(&scene, "merge jobs.zarr").assert().code(0);
    assert_same(&scene, "one.zarr", "jobs.zarr");
    assert!(scene.path("jobs.zarr/a/scales_avg/c/0/0/0").exists());
}

#[test]
fn finished_units_are_skipped_and_what_is_missing_is_made() {
    let scene = two_scenes();
    dinov3(&scene, &format!("embed scenes {MODEL} --chip 32 -o one.zarr")).assert().code(0);
    dinov3(&scene, &format!("plan scenes {MODEL} --chip 32 --format zarr -o plan.parquet")).assert().code(0);
    let run = "run --plan plan.parquet -o jobs.zarr";
    // One shard: the store has no root yet, and the units that are there can be read.
    dinov3(&scene, &format!("{run} --shard 1/2")).assert().code(0);
    assert!(!scene.path("jobs.zarr/zarr.json").exists() && scene.path("jobs.zarr/b/zarr.json").exists());
    let told = said(&scene, "merge jobs.zarr", 3);
    assert!(told.contains("missing: unit a-") && told.contains("1 of 2 units"), "{told}");
    let told = said(&scene, run, 0);
    assert!(told.contains("2 units: 1 made, 1 from before -> jobs.zarr"), "{told}");
    dinov3(&scene, "merge jobs.zarr").assert().code(0);
    assert_same(&scene, "one.zarr", "jobs.zarr");
    let told = said(&scene, run, 0);
    assert!(told.contains("2 units: 0 made, 2 from before -> jobs.zarr"), "{told}");
    // Nothing unfinished is left.
    let parts = fs::read_dir(scene.path("jobs.zarr/.dinov3/parts")).unwrap();
    let parts: Vec<_> = parts.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(parts.len() == 2 && parts.iter().all(|name| name.ends_with(".json")), "{parts:?}");

    // A damaged object is found, and made anew when it is gone.
    let object = scene.path("jobs.zarr/a/embeddings/c/0/0/0/0");
    let mut bytes = fs::read(&object).unwrap();
    bytes[100] ^= 1;
    fs::write(&object, bytes).unwrap();
    let told = said(&scene, "merge jobs.zarr", 3);
    assert!(told.contains("a/embeddings/c/0/0/0/0 is damaged: its checksum is another"), "{told}");
    fs::remove_file(&object).unwrap();
    let told = said(&scene, run, 0);
    assert!(told.contains("1 made, 1 from before"), "{told}");
    dinov3(&scene, "merge jobs.zarr").assert().code(0);
    assert_same(&scene, "one.zarr", "jobs.zarr");
}

#[test]
fn a_unit_whose_marker_is_missing_is_delivered_once_more() {
    let scene = two_scenes();
    dinov3(&scene, &format!("embed scenes {MODEL} --chip 32 -o one.zarr")).assert().code(0);
    dinov3(&scene, &format!("plan scenes {MODEL} --chip 32 --format zarr -o plan.parquet")).assert().code(0);
    let run = "run --plan plan.parquet -o jobs.zarr";
    dinov3(&scene, run).assert().code(0);
    // As a process leaves it that is killed between the objects and the marker: some are moved, some are not, and a
    // part whose removal had begun.
    let units = scene.path("jobs.zarr/.dinov3/units");
    for marker in fs::read_dir(&units).unwrap() {
        let marker = marker.unwrap().path();
        let unit = marker.file_stem().unwrap().to_string_lossy().into_owned();
        fs::remove_file(&marker).unwrap();
        let part = scene.path("jobs.zarr/.dinov3/parts").join(format!("{unit}.zarr"));
        fs::create_dir_all(part.join("a/x")).unwrap();
        fs::write(part.join("a/x/zarr.json"), "half").unwrap();
        if unit.starts_with('a') {
            fs::write(part.join("zarr.json"), r#"{"attributes": {"dinov3": {}}}"#).unwrap();
        }
    }
    // A shard of a version of the scene that was larger in data than this one.
    fs::remove_file(scene.path("jobs.zarr/a/embeddings/c/0/0/0/0")).unwrap();
    let told = said(&scene, run, 0);
    assert!(told.contains("2 units: 2 made"), "{told}");
    dinov3(&scene, "merge jobs.zarr").assert().code(0);
    assert_same(&scene, "one.zarr", "jobs.zarr");
}

#[test]
fn a_shard_without_data_takes_away_the_one_that_was_there() {
    let scene = two_scenes();
    let plan = format!("plan scenes {MODEL} --chip 32 --min-valid 0.9 --format zarr -o plan.parquet");
    dinov3(&scene, &plan).assert().code(0);
    let run = "run --plan plan.parquet -o jobs.zarr";
    dinov3(&scene, run).assert().code(0);
    assert!(scene.path("jobs.zarr/a/embeddings/c/0/0/0/0").exists());
    // The same scene, all of it no data.
    let mut image = TiffImage { is_absent: |_| true, ..rgb(100, 70) };
    image.tags.push((42113, TiffValue::Ascii("0")));
    scene.file("scenes/a.tif", TiffFile::of(image).to_bytes());
    dinov3(&scene, &plan).assert().code(0);
    dinov3(&scene, run).assert().code(0);
    assert!(!scene.path("jobs.zarr/a/embeddings/c/0/0/0/0").exists());
    assert!(!scene.path("jobs.zarr/a/valid_fraction/c/0/0/0").exists());
}

#[test]
fn stores_go_into_object_stores_with_the_marker_last() {
    let scene = two_scenes();
    dinov3(&scene, &format!("embed scenes {MODEL} --chip 32 -o one.zarr")).assert().code(0);
    dinov3(&scene, &format!("plan scenes {MODEL} --chip 32 --format zarr -o plan.parquet")).assert().code(0);
    let objects = Objects::start();
    let stored = |line: &str| objects.known_to(dinov3(&scene, &format!("{line} --scratch scratch"))).assert();
    let found = |store: &str| -> Vec<(String, Vec<u8>)> {
        let prefix = format!("/bucket/{store}/");
        let of_store = |(path, bytes): (String, Vec<u8>)| Some((path.strip_prefix(&prefix)?.to_owned(), bytes));
        let of_store = objects.all().into_iter().filter_map(of_store);
        of_store.filter(|(name, _)| !name.starts_with(".dinov3/")).collect()
    };
    let run = "run --plan plan.parquet -o s3://bucket/jobs.zarr";
    for shard in [1, 0] {
        stored(&format!("{run} --shard {shard}/2")).code(0);
    }
    stored("merge s3://bucket/jobs.zarr").code(0);
    assert!(found("jobs.zarr") == store(&scene, "one.zarr"));
    let puts = objects.puts();
    let marker = puts.iter().position(|path| path.contains("/.dinov3/units/b-")).unwrap();
    assert!(puts.iter().rposition(|path| path.contains("/jobs.zarr/b/")).unwrap() < marker, "{puts:?}");
    assert!(puts.last().unwrap().ends_with("/jobs.zarr/zarr.json"), "{puts:?}");
    let told = stderr(&stored(run).code(0));
    assert!(told.contains("0 made, 2 from before"), "{told}");
    objects.remove("/bucket/jobs.zarr/a/embeddings/c/0/0/0/0");
    let told = stderr(&stored("merge s3://bucket/jobs.zarr").code(3));
    assert!(told.contains("a/embeddings/c/0/0/0/0 has gone"), "{told}");
    // In one command.
    stored(&format!("embed scenes {MODEL} --chip 32 -o s3://bucket/whole.zarr")).code(0);
    assert!(found("whole.zarr") == store(&scene, "one.zarr"));
    let parts = fs::read_dir(scene.path("scratch/.dinov3/parts")).unwrap().count();
    assert_eq!(parts, 0);
}

#[test]
fn a_scene_that_does_not_fit_is_named_and_the_rest_is_made() {
    let scene = two_scenes();
    scene.file("scenes/turned.tif", placed(rgb(100, 70), [10.0, 2.0, 400_000.0, 2.0, -10.0, 4_200_000.0]));
    let line = format!("{MODEL} --chip 32 --format zarr -o plan.parquet");
    let told = said(&scene, &format!("plan scenes {line}"), 3);
    assert!(told.contains("failed: scenes/turned.tif: scenes/turned.tif is rotated or mirrored"), "{told}");
    let told = said(&scene, "run --plan plan.parquet -o jobs.zarr", 3);
    assert!(told.contains("3 units: 2 made, 1 failed -> jobs.zarr"), "{told}");
    let told = said(&scene, "merge jobs.zarr", 3);
    assert!(
        told.contains("scenes/turned.tif: it could not be planned") && told.contains("24 chips, 1 problems"),
        "{told}"
    );
    let root = scene.json("jobs.zarr/zarr.json");
    assert_eq!(root["attributes"]["dinov3"]["counts"], json!({"done": 24, "failed": 1}));
    assert_eq!(root["attributes"]["dinov3"]["failures"][0]["path"], "scenes/turned.tif");
    // Alone it is an error, as in one process.
    let told = said(&scene, &format!("plan scenes/turned.tif {line}"), 1);
    assert!(told.contains("gdalwarp"), "{told}");
    // Mended and planned anew, it takes its place.
    scene.file("scenes/turned.tif", TiffFile::of(rgb(100, 70)).to_bytes());
    let told = said(&scene, "run --plan plan.parquet -o jobs.zarr", 3);
    assert!(told.contains("plan anew"), "{told}");
    dinov3(&scene, &format!("plan scenes {line}")).assert().code(0);
    dinov3(&scene, "run --plan plan.parquet -o jobs.zarr").assert().code(0);
    dinov3(&scene, "merge jobs.zarr").assert().code(0);
    dinov3(&scene, &format!("embed scenes {MODEL} --chip 32 -o one.zarr")).assert().code(0);
    assert_same(&scene, "one.zarr", "jobs.zarr");
}

#[test]
fn stores_and_plans_that_do_not_belong_together_are_refused() {
    let scene = two_scenes();
    dinov3(&scene, &format!("plan scenes {MODEL} --chip 32 --format zarr -o plan.parquet")).assert().code(0);
    dinov3(&scene, &format!("plan scenes {MODEL} --chip 32 -o files.parquet")).assert().code(0);
    let told = said(&scene, "run --plan plan.parquet -o out/", 2);
    assert!(told.contains("the plan is for a Zarr store, whose name ends in .zarr"), "{told}");
    let told = said(&scene, "run --plan files.parquet -o out.zarr", 2);
    assert!(told.contains("a plan for a Zarr store is made with --format zarr"), "{told}");
    assert!(!scene.path("out").exists() && !scene.path("out.zarr").exists());
    let told = said(&scene, &format!("plan scenes {MODEL} --chip 32 --edges shift --format zarr -o plan2.parquet"), 2);
    assert!(told.contains("--edges shift moves chips"), "{told}");
    let told = said(&scene, &format!("embed scenes {MODEL} --chip 32 --format zarr -o out.parquet"), 2);
    assert!(told.contains("--format: it is of outputs that are folders or in object stores"), "{told}");
    // A store that one process made, and one that was begun for other scenes.
    dinov3(&scene, &format!("embed scenes {MODEL} --chip 32 -o one.zarr")).assert().code(0);
    let told = said(&scene, "run --plan plan.parquet -o one.zarr", 2);
    assert!(told.contains("one.zarr: is a store already, and of no plan"), "{told}");
    dinov3(&scene, "run --plan plan.parquet -o jobs.zarr").assert().code(0);
    dinov3(&scene, &format!("plan scenes/a.tif {MODEL} --chip 32 --format zarr -o a.parquet")).assert().code(0);
    let told = said(&scene, "run --plan a.parquet -o jobs.zarr", 2);
    assert!(
        told.contains("jobs.zarr: was begun for another list of scenes, which first differs at scenes/a.tif"),
        "{told}"
    );
    let told = said(&scene, "merge jobs.zarr --parquet all.parquet", 2);
    assert!(told.contains("holds cells of rasters, without rows"), "{told}");
}
