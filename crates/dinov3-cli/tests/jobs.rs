//! `dinov3 scene plan`, `run`, `merge`, and folders as outputs.

mod common;

use std::fs::{self, File};

use common::chips::{text, value};
use common::jobs::{MODEL, chips, data, dinov3, files, rgb, rows, scenes};
use common::objects::Objects;
use common::{Scene, stderr};
use dinov3_testing::geotiff::{TiffFile, TiffImage};
use dinov3_testing::http_server::{HttpReply, HttpServer};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Value, json};

#[test]
fn a_folder_gets_a_file_and_an_item_per_scene_and_their_collection() {
    let scene = scenes();
    let line = format!("embed scenes {MODEL} --datetime 2026-05-17 -o out/");
    let output = dinov3(&scene, &line).assert().code(0);
    assert!(stderr(&output).contains("3 units: 3 made -> out"), "{}", stderr(&output));
    let names = files(scene.path("out"));
    assert_eq!(names.len(), 7, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("a_b-") && name.ends_with(".parquet")), "{names:?}");
    assert!(names.contains(&"collection.json".to_owned()));
    assert_eq!(files(scene.path("out/.dinov3")), ["plan.parquet", "units"]);

    // The same rows as in one file.
    dinov3(&scene, &format!("embed scenes {MODEL} --datetime 2026-05-17 -o one.parquet")).assert().code(0);
    let of_files: Vec<Row> = names
        .iter()
        .filter(|name| name.ends_with(".parquet"))
        .flat_map(|name| rows(scene.path("out").join(name)))
        .collect();
    assert_eq!(chips(&of_files), chips(&rows(scene.path("one.parquet"))));

    let collection = scene.json("out/collection.json");
    assert_eq!((&collection["id"], &collection["emb:dimensions"]), (&json!("out"), &json!(64)));
    assert_eq!(collection["emb:chip_layout"]["chip_size"], json!([32, 32]));
    let links: Vec<&Value> =
        collection["links"].as_array().unwrap().iter().filter(|link| link["rel"] == "item").collect();
    assert_eq!(links.len(), 3);
    let item = scene.json(&format!("out/{}", links[0]["href"].as_str().unwrap()));
    assert_eq!(item["properties"]["datetime"], "2026-05-17T00:00:00Z");
    assert_eq!((&item["stac_version"], &item["properties"]["proj:code"]), (&json!("1.0.0"), &json!("EPSG:32633")));
    assert_eq!(item["properties"]["dinov3:chips"], json!({"done": 12, "failed": 0, "skipped": 0}));
    let derived = item["links"].as_array().unwrap().iter().find(|link| link["rel"] == "derived_from").unwrap();
    assert!(derived["href"].as_str().unwrap().starts_with("../scenes/a%20b.tif"), "{derived}");
    // The data file tells its asset, and no clock.
    let file = item["assets"]["embeddings"]["href"].as_str().unwrap().trim_start_matches("./").to_owned();
    let reader = SerializedFileReader::new(File::open(scene.path("out").join(file)).unwrap()).unwrap();
    let entries = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let emb = entries.iter().find(|entry| entry.key == "emb").unwrap().value.clone().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&emb).unwrap()["href"], item["assets"]["embeddings"]["href"]);

    // A second time there is nothing to do, and the weights are not needed.
    let before = data(&scene, "out");
    let output = dinov3(&scene, &line).assert().code(0);
    assert!(stderr(&output).contains("3 units: 0 made, 3 from before -> out"), "{}", stderr(&output));
    assert_eq!(data(&scene, "out"), before);
    // Another scene joins them; other options do not.
    scene.file("c.tif", TiffFile::of(rgb(7)).to_bytes());
    dinov3(&scene, &format!("embed c.tif {MODEL} --datetime 2026-05-17 -o out")).assert().code(0);
    let count =
        |collection: &Value| collection["links"].as_array().unwrap().iter().filter(|l| l["rel"] == "item").count();
    assert_eq!(count(&scene.json("out/collection.json")), 4);
    let output =
        dinov3(&scene, &format!("embed c.tif {MODEL} --stride 16 --datetime 2026-05-17 -o out")).assert().code(2);
    assert!(
        stderr(&output).contains("holds results of another plan, made with --stride none and not 16"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn shards_in_any_order_give_the_bytes_of_one_run() {
    let scene = scenes();
    let plan = format!("plan scenes {MODEL} --unit-chips 5 --datetime 2026-05-17 -o plan.parquet");
    let output = dinov3(&scene, &plan).assert().code(0);
    assert!(stderr(&output).contains("9 units of 3 scenes, 36 chips, 0 scenes cannot be used"), "{}", stderr(&output));
    let planned = rows(scene.path("plan.parquet"));
    assert_eq!(planned.len(), 9);
    assert!(text(&planned[0], "unit").ends_with("-y0") && text(&planned[1], "unit").ends_with("-y32"));
    assert_eq!(value(&planned[0], "error"), Field::Null);
    dinov3(&scene, "run --plan plan.parquet -o whole/ --threads 1").assert().code(0);
    for shard in [2, 0, 1] {
        dinov3(&scene, &format!("run --plan plan.parquet --shard {shard}/3 -o parts/ --batch-size 3")).assert().code(0);
    }
    assert_eq!(data(&scene, "whole"), data(&scene, "parts"));
    assert_eq!(data(&scene, "whole").len(), 9);
    let output = dinov3(&scene, "merge parts --parquet all.parquet").assert().code(0);
    assert!(
        stderr(&output).contains("9 of 9 units, 36 chips, 0 problems -> parts/collection.json"),
        "{}",
        stderr(&output)
    );
    dinov3(&scene, "merge whole/ --plan plan.parquet").assert().code(0);
    // All rows once, in the order of a single file, with the same bits.
    dinov3(&scene, &format!("embed scenes {MODEL} --datetime 2026-05-17 -o one.parquet")).assert().code(0);
    let (all, one) = (rows(scene.path("all.parquet")), rows(scene.path("one.parquet")));
    let ids = |rows: &[Row]| -> Vec<String> { rows.iter().map(|row| text(row, "id")).collect() };
    assert_eq!(ids(&all), ids(&one));
    assert_eq!(chips(&all), chips(&one));
    let item = text(&all[0], "stac_item");
    assert!(item.starts_with("./parts/") && scene.path(&item).exists(), "{item}");
    // Plans are the same again.
    let before = fs::read(scene.path("plan.parquet")).unwrap();
    dinov3(&scene, &plan).assert().code(0);
    assert_eq!(fs::read(scene.path("plan.parquet")).unwrap(), before);
}

#[test]
fn array_jobs_are_understood() {
    let scene = scenes();
    dinov3(&scene, &format!("plan scenes {MODEL} --datetime 2026-05-17 -o plan.parquet")).assert().code(0);
    let slurm = |line: &str, id: &str| {
        let variables = [("ID", id), ("COUNT", "3"), ("MIN", "1"), ("MAX", "3"), ("STEP", "1")];
        let command = scene.dinov3(&format!("scene {line}"));
        variables.iter().fold(command, |command, (name, value)| command.env(format!("SLURM_ARRAY_TASK_{name}"), value))
    };
    for id in ["3", "1", "2"] {
        let output = slurm("run --plan plan.parquet -o out/", id).assert().code(0);
        assert!(stderr(&output).contains("(SLURM_ARRAY_TASK_ID="), "{}", stderr(&output));
        assert!(stderr(&output).contains("1 of 3 units, 12 chips"), "{}", stderr(&output));
    }
    dinov3(&scene, "merge out").assert().code(0);
    let output = slurm("run --plan plan.parquet --shard 0/3 -o out/", "2").assert().code(2);
    assert!(stderr(&output).contains("unset what is not meant"), "{}", stderr(&output));
    dinov3(&scene, "run --plan plan.parquet -o out/ --shards 3").env("JOB_COMPLETION_INDEX", "1").assert().code(0);
    dinov3(&scene, "run --plan plan.parquet -o out/").env("JOB_COMPLETION_INDEX", "1").assert().code(2);
}

#[test]
fn a_scene_that_cannot_be_read_is_a_row_and_is_made_when_it_is_mended() {
    let scene = scenes();
    let sound = fs::read(scene.path("scenes/b.tif")).unwrap();
    scene.file("scenes/b.tif", "no TIFF");
    let output = dinov3(&scene, &format!("plan scenes {MODEL} --datetime 2026-05-17 -o plan.parquet")).assert().code(3);
    assert!(stderr(&output).contains("failed: scenes/b.tif"), "{}", stderr(&output));
    assert!(rows(scene.path("plan.parquet")).iter().any(|row| matches!(value(row, "error"), Field::Str(_))));
    let output = dinov3(&scene, "run --plan plan.parquet -o out/").assert().code(3);
    assert!(stderr(&output).contains("3 units: 2 made, 1 failed -> out"), "{}", stderr(&output));
    let output = dinov3(&scene, "merge out").assert().code(3);
    assert!(stderr(&output).contains("missing: unit b-"), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 of 3 units"), "{}", stderr(&output));
    scene.file("scenes/b.tif", sound);
    let output = dinov3(&scene, "run --plan plan.parquet -o out/").assert().code(0);
    assert!(stderr(&output).contains("3 units: 1 made, 2 from before -> out"), "{}", stderr(&output));
    dinov3(&scene, "merge out").assert().code(0);
    // One that changes afterwards is not the one that was planned.
    dinov3(&scene, &format!("plan scenes {MODEL} --datetime 2026-05-17 -o plan.parquet")).assert().code(0);
    scene.file("scenes/b.tif", TiffFile::of(TiffImage { width_px: 200, ..rgb(0) }).to_bytes());
    let output = dinov3(&scene, "run --plan plan.parquet -o other/").assert().code(3);
    assert!(stderr(&output).contains("it has changed since it was planned"), "{}", stderr(&output));
}

#[test]
fn chips_that_failed_are_all_that_a_second_run_makes() {
    let scene = Scene::new();
    let bytes = TiffFile::of(rgb(0)).to_bytes();
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_broken = std::sync::Arc::clone(&broken);
    let length = bytes.len();
    let server = HttpServer::start(move |request| {
        let first =
            request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        // The index and the first tiles are always there.
        match first.unwrap_or(0_usize) > length / 2 && is_broken.load(std::sync::atomic::Ordering::Relaxed) {
            true => HttpReply::new(404, ""),
            false => dinov3_testing::http_server::part_of(&bytes, request),
        }
    });
    // Larger than the first request.
    let _ = length;
    for (output, resume) in [("out/", ""), ("one.parquet", "--resume")] {
        broken.store(true, std::sync::atomic::Ordering::Relaxed);
        let line = format!("embed {}/a.tif {MODEL} --datetime 2026-05-17 -o {output}", server.url());
        let first = dinov3(&scene, &line).assert();
        if first.get_output().status.code() == Some(0) {
            // The whole file came with its index: nothing can fail.
            continue;
        }
        let first = first.code(3);
        assert!(stderr(&first).contains("the same command"), "{}", stderr(&first));
        broken.store(false, std::sync::atomic::Ordering::Relaxed);
        let second = dinov3(&scene, &format!("{line} {resume}")).assert().code(0);
        assert!(stderr(&second).contains("from before"), "{}", stderr(&second));
    }
}

#[test]
fn a_damaged_tile_costs_its_chips_and_the_mended_scene_is_made() {
    let scene = Scene::new();
    let sound = TiffFile::of(rgb(0)).to_bytes();
    let mut damaged = sound.clone();
    let place = sound.len() / 2;
    damaged[place..place + 200].fill(0xff);
    scene.file("a.tif", &damaged);
    let line = format!("embed a.tif {MODEL} --datetime 2026-05-17 -o out/");
    let output = dinov3(&scene, &line).assert().code(3);
    assert!(stderr(&output).contains("1 units: 0 made, 1 with failed chips -> out"), "{}", stderr(&output));
    assert!(stderr(&output).contains("missing: unit a-"), "{}", stderr(&output));
    // Nothing has changed: only the failed chips are tried.
    let output = dinov3(&scene, &line).assert().code(3);
    assert!(stderr(&output).contains("from before"), "{}", stderr(&output));
    scene.file("a.tif", &sound);
    dinov3(&scene, &line).assert().code(0);
    dinov3(&scene, &format!("embed a.tif {MODEL} --datetime 2026-05-17 -o one.parquet")).assert().code(0);
    let made = data(&scene, "out");
    assert_eq!(chips(&rows(scene.path("out").join(&made[0].0))), chips(&rows(scene.path("one.parquet"))));
    assert!(files(scene.path("out")).iter().all(|name| !name.starts_with('.')), "{:?}", files(scene.path("out")));
}

#[test]
fn what_is_damaged_or_has_gone_is_named_and_made_anew() {
    let scene = scenes();
    let line = format!("embed scenes {MODEL} --datetime 2026-05-17 -o out/");
    dinov3(&scene, &line).assert().code(0);
    let before = data(&scene, "out");
    let first = scene.path("out").join(&before[0].0);
    let mut flipped = before[0].1.clone();
    flipped[100] ^= 1;
    fs::write(&first, flipped).unwrap();
    dinov3(&scene, "merge out --sizes-only").assert().code(0);
    let output = dinov3(&scene, "merge out").assert().code(3);
    assert!(stderr(&output).contains("is damaged: its checksum is another"), "{}", stderr(&output));
    fs::remove_file(&first).unwrap();
    let output = dinov3(&scene, "merge out").assert().code(3);
    assert!(stderr(&output).contains("has gone"), "{}", stderr(&output));
    let output = dinov3(&scene, &line).assert().code(0);
    assert!(stderr(&output).contains("1 made, 2 from before"), "{}", stderr(&output));
    assert_eq!(data(&scene, "out"), before);
    dinov3(&scene, &format!("{line} --fresh")).assert().code(0);
    assert_eq!(data(&scene, "out"), before);
}

#[test]
fn what_cannot_be_planned_is_said() {
    let scene = scenes();
    let said = |line: &str, code: i32| stderr(&dinov3(&scene, line).assert().code(code));
    let told = said(&format!("plan scenes {MODEL} -o plan.parquet"), 2);
    assert!(told.contains("and 2 more: no time of acquisition is known") && told.contains("--datetime"), "{told}");
    let told = said(&format!("plan scenes {MODEL} --threads 2 --datetime 2026-05-17 -o plan.parquet"), 2);
    assert!(told.contains("--threads decides no result: give it to 'dinov3 scene run'"), "{told}");
    let told = said(&format!("plan scenes {MODEL} --datetime 2026-05-17 -o plan.csv"), 2);
    assert!(told.contains("a plan is a file that ends in .parquet"), "{told}");
    assert!(said("run --plan tiny.json -o out/", 1).contains("not a plan of 'dinov3 scene plan'"));
    assert!(said("merge nothing/", 2).contains("name the plan with --plan"));
    // One file without a time is as before.
    dinov3(&scene, &format!("embed scenes {MODEL} -o one.parquet")).assert().code(0);
}

#[test]
fn results_go_into_object_stores_with_the_marker_last() {
    let scene = scenes();
    let objects = Objects::start();
    let stored = |line: &str| objects.known_to(dinov3(&scene, line));
    let line = format!("embed scenes {MODEL} --datetime 2026-05-17 -o s3://bucket/some/place --scratch scratch");
    stored(&line).assert().code(0);
    dinov3(&scene, &format!("embed scenes {MODEL} --datetime 2026-05-17 -o place/")).assert().code(0);
    for (name, bytes) in data(&scene, "place") {
        assert!(objects.all()[&format!("/bucket/some/place/{name}")] == bytes, "{name}");
    }
    let puts = objects.puts();
    let of_unit: Vec<&String> = puts.iter().filter(|path| path.contains("/a_b-")).collect();
    assert!(of_unit[0].ends_with(".parquet") && of_unit[2].contains("/.dinov3/units/"), "{puts:?}");
    assert!(puts.last().unwrap().ends_with("/collection.json"), "{puts:?}");
    // Nothing unfinished is left, and nothing is made twice.
    assert_eq!(files(scene.path("scratch")), Vec::<String>::new());
    let output = stored(&line).assert().code(0);
    assert!(stderr(&output).contains("0 made, 3 from before"), "{}", stderr(&output));
    stored("merge s3://bucket/some/place --scratch scratch --parquet all.parquet").assert().code(0);
    assert_eq!(rows(scene.path("all.parquet")).len(), 36);
    let name = objects.all().into_keys().find(|name| name.contains("/a_b-")).unwrap();
    objects.remove(&name);
    stored("merge s3://bucket/some/place --scratch scratch").assert().code(3);
}
