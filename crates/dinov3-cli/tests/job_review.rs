//! What a second command does to the results of a first one: nothing that it did not say.

mod common;

use std::fs;

use common::jobs::{MODEL, data, dinov3, files, rgb, scenes};
use common::{Scene, stderr};
use dinov3_testing::geotiff::{TiffFile, TiffImage};

const DATED: &str = "--datetime 2026-05-17";

fn said(scene: &Scene, line: &str, code: i32) -> String {
    stderr(&dinov3(scene, line).assert().code(code))
}

fn markers(scene: &Scene) -> Vec<String> {
    files(scene.path("out/.dinov3/units"))
}

fn marker_of(data: &str) -> String {
    format!("out/.dinov3/units/{}", data.replace(".parquet", ".json"))
}

#[test]
fn fresh_removes_nothing_before_the_weights_are_open() {
    let scene = scenes();
    said(&scene, &format!("embed scenes {MODEL} {DATED} -o out/"), 0);
    let before = (data(&scene, "out"), markers(&scene), files(scene.path("out")));
    let none = MODEL.replace("synthetic:7", "nope.safetensors");
    for line in [
        // The same options but for the weights, and other ones.
        format!("embed scenes {none} {DATED} -o out/ --fresh"),
        format!("embed scenes/b.tif {none} {DATED} -o out/ --fresh"),
        format!("embed scenes/b.tif {none} --stride 16 {DATED} -o out/ --fresh"),
    ] {
        let told = said(&scene, &line, 1);
        assert!(told.contains("nope.safetensors"), "{told}");
        assert_eq!((data(&scene, "out"), markers(&scene), files(scene.path("out"))), before, "{line}");
    }
    let told = said(&scene, &format!("embed scenes {MODEL} {DATED} -o out/"), 0);
    assert!(told.contains("0 made, 3 from before"), "{told}");
}

#[test]
fn a_store_that_a_plan_made_is_not_replaced() {
    let scene = scenes();
    said(&scene, &format!("plan scenes/b.tif {MODEL} {DATED} --format zarr -o plan.parquet"), 0);
    said(&scene, "run --plan plan.parquet -o jobs.zarr", 0);
    said(&scene, "merge jobs.zarr", 0);
    let chips = format!("embed scenes/b.tif {MODEL} {DATED} -o jobs.zarr");
    let dense = "embed --dense scenes/b.tif -m tiny.json --weights synthetic:7 --window 48 --overlap 16 -o jobs.zarr";
    for line in [chips.as_str(), dense] {
        let told = said(&scene, line, 2);
        assert!(told.contains("was made by 'dinov3 scene plan' and 'run'") && told.contains("--fresh"), "{told}");
    }
    said(&scene, "merge jobs.zarr", 0);
    said(&scene, &format!("{chips} --fresh"), 0);
    assert!(!scene.path("jobs.zarr/.dinov3/plan.parquet").exists());
}

#[test]
fn a_scene_by_another_spelling_gives_no_row_twice() {
    let scene = scenes();
    said(&scene, &format!("embed scenes {MODEL} {DATED} -o out/"), 0);
    let before = (data(&scene, "out"), markers(&scene));
    let whole = scene.0.path().canonicalize().unwrap().join("scenes").display().to_string();
    for other in ["./scenes/", "scenes/../scenes/b.tif", &whole] {
        let told = said(&scene, &format!("embed {other} {MODEL} {DATED} -o out/"), 2);
        assert!(told.contains("is in out as scenes/") && told.contains("would be there twice"), "{other}: {told}");
    }
    // From another folder the first name leads nowhere.
    scene.file("elsewhere/tiny.json", fs::read(scene.path("tiny.json")).unwrap());
    let line = format!("embed ../scenes {MODEL} {DATED} -o ../out/");
    let told = stderr(&dinov3(&scene, &line).current_dir(scene.path("elsewhere")).assert().code(2));
    assert!(told.contains("is in ../out as scenes/"), "{told}");
    assert_eq!((data(&scene, "out"), markers(&scene)), before);
}

#[test]
fn scenes_that_are_not_named_any_more_stay_and_are_told() {
    let scene = scenes();
    let line = format!("embed scenes {MODEL} {DATED} -o out/");
    said(&scene, &line, 0);
    // Added to: the usual way.
    scene.file("new/c.tif", TiffFile::of(rgb(300)).to_bytes());
    let told = said(&scene, &format!("embed new {MODEL} {DATED} -o out/"), 0);
    assert!(told.contains("note: 3 units of scenes that are not named now stay in out: scenes/a b.tif,"), "{told}");
    assert!(!told.contains("delete"), "{told}");
    fs::rename(scene.path("scenes/b.tif"), scene.path("scenes/renamed.tif")).unwrap();
    let told = said(&scene, &line, 0);
    assert!(told.contains("note: 2 units of scenes that are not named now stay in out"), "{told}");
    let old = data(&scene, "out").into_iter().map(|(name, _)| name).filter(|name| name.starts_with("b-"));
    let gone = old.filter(|name| told.contains(&format!("delete out/{name}"))).collect::<Vec<_>>();
    assert!(gone.len() == 1 && told.contains("; scenes/b.tif is not there any more"), "{told}");
    // As it was told.
    for name in
        [format!("out/{}", gone[0]), format!("out/{}", gone[0].replace(".parquet", ".json")), marker_of(&gone[0])]
    {
        fs::remove_file(scene.path(&name)).unwrap();
    }
    let told = said(&scene, &line, 0);
    assert!(told.contains("note: 1 units of scenes that failed or are not there"), "{told}");
    assert!(told.contains("4 of 4 units") && told.contains("0 problems"), "{told}");
}

#[test]
fn a_scene_that_failed_and_is_named_no_more_is_not_missing() {
    let scene = scenes();
    scene.file("scenes/bad.tif", "no TIFF");
    let line = format!("embed scenes {MODEL} {DATED} -o out/");
    said(&scene, &line, 3);
    fs::remove_file(scene.path("scenes/bad.tif")).unwrap();
    scene.file("scenes/mended.tif", TiffFile::of(rgb(300)).to_bytes());
    let told = said(&scene, &line, 0);
    assert!(told.contains("4 of 4 units") && told.contains("0 problems"), "{told}");
    said(&scene, "merge out", 0);
}

#[test]
fn a_damaged_list_of_results_is_named_and_fresh_makes_it_anew() {
    let scene = scenes();
    let line = format!("embed scenes {MODEL} {DATED} -o out/");
    said(&scene, &line, 0);
    let before = data(&scene, "out");
    scene.file("out/.dinov3/plan.parquet", "no Parquet");
    let told = said(&scene, &line, 2);
    assert!(told.contains("out/.dinov3/plan.parquet cannot be read") && told.contains("--fresh"), "{told}");
    said(&scene, &format!("{line} --fresh"), 0);
    assert_eq!(data(&scene, "out"), before);
    assert!(said(&scene, &line, 0).contains("0 made, 3 from before"));
}

#[test]
fn parts_of_array_jobs_that_contradict_each_other_are_refused() {
    let scene = scenes();
    said(&scene, &format!("plan scenes {MODEL} {DATED} -o plan.parquet"), 0);
    for (variable, options, problem) in [
        ("JOB_COMPLETION_INDEX", "--shard 0/3", "unset what is not meant"),
        ("AWS_BATCH_JOB_ARRAY_INDEX", "", "add --shards N"),
        ("SLURM_ARRAY_TASK_ID", "", "say --shard I/N"),
    ] {
        let output = dinov3(&scene, &format!("run --plan plan.parquet {options} -o out/"))
            .env_remove("SLURM_ARRAY_TASK_COUNT")
            .env_remove("AWS_BATCH_JOB_ARRAY_SIZE")
            .env(variable, "2")
            .assert()
            .code(2);
        assert!(stderr(&output).contains(problem), "{variable}: {}", stderr(&output));
    }
    assert!(!scene.path("out").exists());
}

#[test]
fn a_scene_that_has_changed_is_told_by_what_differs() {
    let scene = Scene::new();
    scene.file("a.tif", TiffFile::of(rgb(0)).to_bytes());
    said(&scene, &format!("plan a.tif {MODEL} {DATED} -o plan.parquet"), 0);
    scene.file("a.tif", TiffFile::of(TiffImage { width_px: 200, ..rgb(0) }).to_bytes());
    let told = said(&scene, "run --plan plan.parquet -o out/", 3);
    assert!(told.contains("it had ") && !told.contains("read as"), "{told}");
    let deep = TiffImage { bits: 16, sample: |band, x, y| u64::from(3000 + 10 * ((x + y + band) % 50)), ..rgb(0) };
    scene.file("X.SAFE/IMG_DATA/stack.tif", TiffFile::of(deep).to_bytes());
    let metadata = |baseline: &str| {
        scene.file("X.SAFE/MTD_MSIL2A.xml", format!("<a><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></a>"));
    };
    metadata("05.11");
    let plan = format!("plan X.SAFE/IMG_DATA/stack.tif {MODEL} --preset sentinel-2-l2a {DATED} -o plan.parquet");
    said(&scene, &plan, 0);
    metadata("03.01");
    let told = said(&scene, "run --plan plan.parquet -o deep/", 3);
    assert!(
        told.contains("the metadata beside it, or its STAC item, says otherwise") && !told.contains("bytes"),
        "{told}"
    );
}

#[test]
fn a_file_is_no_folder_of_results() {
    let scene = scenes();
    scene.file("k3", "mine");
    let told = said(&scene, &format!("embed scenes {MODEL} {DATED} -o k3/"), 2);
    assert!(told.contains("error: k3 is a file"), "{told}");
    assert!(said(&scene, "merge k3/", 2).contains("error: k3 is a file"));
    assert_eq!(fs::read(scene.path("k3")).unwrap(), b"mine");
}
