//! What goes wrong in large jobs: scenes that fail, files that change between two runs, secrets, names, and results of
//! another plan in the way.

mod common;

use std::fs;

use common::chips::{provenance, text, value};
use common::jobs::{MODEL, chips, data, dinov3, files, rgb, rows, scenes};
use common::{Scene, stderr};
use dinov3_testing::checkpoints::{self, Type};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use dinov3_testing::http_server::HttpServer;
use parquet::record::Field;
use serde_json::{Value, json};
use snapbox::cmd::Command;

const DATED: &str = "--datetime 2026-05-17";

fn said(scene: &Scene, line: &str, code: i32) -> String {
    stderr(&dinov3(scene, line).assert().code(code))
}

/// The text of every file below a folder.
fn texts(folder: &std::path::Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => found.extend(texts(&entry.path())),
            false => {
                let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
                found.push((entry.path().display().to_string(), text));
            }
        }
    }
    found
}

#[test]
fn what_fails_costs_its_unit_and_a_second_run_makes_just_that() {
    let scene = Scene::new();
    let sound = TiffFile::of(rgb(0)).to_bytes();
    let mut damaged = sound.clone();
    let place = sound.len() / 2;
    damaged[place..place + 200].fill(0xff);
    let large = TiffFile::of(TiffImage { width_px: 1000, height_px: 700, ..rgb(0) }).to_bytes();
    scene.file("scenes/sound.tif", &sound);
    scene.file("scenes/damaged.tif", &damaged);
    scene.file("scenes/unreadable.tif", "no TIFF");
    scene.file("scenes/large.tif", &large);
    let told = said(&scene, &format!("plan scenes {MODEL} {DATED} -o plan.parquet"), 3);
    assert!(told.contains("failed: scenes/unreadable.tif"), "{told}");
    assert!(told.contains("3 units of 3 scenes"), "{told}");
    // A disk on which no file has room that is larger than 64 blocks.
    let program = snapbox::cmd::cargo_bin!("dinov3").display().to_string();
    let script = format!("trap '' XFSZ; ulimit -f 64; exec '{program}' scene run --plan plan.parquet -o out/");
    let full = Command::new("sh").current_dir(scene.0.path()).args(["-c", &script]).assert().code(3);
    let told = stderr(&full);
    assert!(told.contains("4 units: 1 made, 1 with failed chips, 2 failed -> out"), "{told}");
    assert!(told.contains("failed: unit large-") && told.contains("failed: unit unreadable-"), "{told}");
    let before = data(&scene, "out");
    assert_eq!(before.len(), 2);
    let told = said(&scene, "merge out --parquet all.parquet", 3);
    assert!(told.contains("missing: unit large-") && told.contains("2 of 4 units"), "{told}");
    assert!(told.contains("of its chips failed") && told.contains("all.parquet is not written"), "{told}");
    assert!(!scene.path("all.parquet").exists());
    let done = before.iter().map(|(name, _)| rows(scene.path("out").join(name)).len()).sum::<usize>();
    said(&scene, "merge out --parquet all.parquet --partial", 3);
    assert_eq!(rows(scene.path("all.parquet")).len(), done);
    let missing = &provenance(&scene, "all.parquet")["missing"];
    assert_eq!((&missing["units"], missing["chips"].as_array().unwrap().len()), (&json!(2), 24 - done));
    // There is room, and the scenes are mended.
    scene.file("scenes/damaged.tif", &sound);
    scene.file("scenes/unreadable.tif", &sound);
    let told = said(&scene, "run --plan plan.parquet -o out/", 0);
    assert!(told.contains("4 units: 3 made, 1 from before -> out"), "{told}");
    let told = said(&scene, "merge out --parquet all.parquet", 0);
    assert!(told.contains("4 of 4 units") && told.contains("0 problems"), "{told}");
    said(&scene, &format!("embed scenes {MODEL} {DATED} -o one.parquet"), 0);
    assert_eq!(chips(&rows(scene.path("all.parquet"))), chips(&rows(scene.path("one.parquet"))));
    assert_eq!(data(&scene, "out").iter().filter(|file| before.contains(file)).count(), 1, "one was left as it was");
}

#[test]
fn what_decides_about_bytes_is_compared_before_results_are_kept() {
    let scene = Scene::new();
    scene.file("a.tif", TiffFile::of(rgb(0)).to_bytes());
    let square = |east: f64| {
        let (west, south, size) = (east, 37.0, 3.0);
        let corner = |x: f64, y: f64| json!([west + x * size, south + y * size]);
        let ring = [corner(0., 0.), corner(1., 0.), corner(1., 1.), corner(0., 1.), corner(0., 0.)];
        json!({"type": "Polygon", "coordinates": [ring]}).to_string()
    };
    let weights = |seed: u64| {
        let spec = dinov3::find_model(scene.path("tiny.json").to_str().unwrap()).unwrap();
        let tensors = checkpoints::synthetic_weights(&spec, seed, dinov3_testing::dialect::Dialect::Timm);
        checkpoints::write(&scene.path("w.safetensors"), &tensors, Type::F32);
    };
    weights(7);
    scene.file("area.json", square(12.0));
    let line = format!("embed a.tif -m tiny.json --weights w.safetensors --chip 32 --aoi area.json {DATED} -o out/");
    said(&scene, &line, 0);
    let first = data(&scene, "out");
    assert!(said(&scene, &line, 0).contains("0 made, 1 from before"));
    weights(8);
    let told = said(&scene, &line, 2);
    assert!(
        told.contains("was made with other weights, w.safetensors of SHA-256") && told.contains("--fresh"),
        "{told}"
    );
    assert_eq!(data(&scene, "out"), first);
    said(&scene, &format!("{line} --fresh"), 0);
    let second = data(&scene, "out");
    assert_ne!(second, first);
    // Another area of interest under the same name.
    scene.file("area.json", square(-60.0));
    let told = said(&scene, &line, 2);
    assert!(told.contains("made with a file of other content as --aoi"), "{told}");
    assert_eq!(data(&scene, "out"), second);
    said(&scene, &format!("{line} --fresh"), 0);
    assert_eq!(rows(scene.path("out").join(&data(&scene, "out")[0].0)).len(), 0);
    // A second scene is not made with other weights than the first one.
    weights(9);
    scene.file("b.tif", TiffFile::of(rgb(50)).to_bytes());
    assert!(said(&scene, &line.replace("a.tif", "a.tif b.tif"), 2).contains("other weights"));
    // A plan is of the files that there were.
    scene.file("area.json", square(12.0));
    let plan =
        format!("plan a.tif -m tiny.json --weights w.safetensors --chip 32 --aoi area.json {DATED} -o plan.parquet");
    said(&scene, &plan, 0);
    scene.file("area.json", square(12.5));
    let told = said(&scene, "run --plan plan.parquet -o other/", 2);
    assert!(told.contains("a file of other content as --aoi; plan anew"), "{told}");
}

#[test]
fn a_mask_or_metadata_that_changed_makes_its_unit_anew() {
    let scene = Scene::new();
    scene.file("a.tif", TiffFile::of(rgb(0)).to_bytes());
    let mask = |sample| {
        let image = TiffImage { bands: 1, sample, tags: utm_tags(), is_deflated: false, ..TiffImage::default() };
        scene.file("mask.tif", TiffFile::of(image).to_bytes());
        let file = fs::File::options().write(true).open(scene.path("mask.tif")).unwrap();
        let time = std::time::SystemTime::now() + std::time::Duration::from_secs(sample(0, 0, 0) * 100);
        file.set_modified(time).unwrap();
    };
    mask(|_, _, _| 0);
    let line = format!("embed a.tif {MODEL} --mask mask.tif --mask-values 1 {DATED} -o out/");
    said(&scene, &line, 0);
    let count = |folder: &str| rows(scene.path(folder).join(&data(&scene, folder)[0].0)).len();
    assert_eq!(count("out"), 12);
    assert!(said(&scene, &line, 0).contains("0 made, 1 from before"));
    mask(|_, x, _| u64::from(x < 32));
    let told = said(&scene, &line, 0);
    assert!(told.contains("a.tif has changed since unit a-") && told.contains("1 made"), "{told}");
    assert_eq!(count("out"), 9);

    let deep = TiffImage { bits: 16, sample: |band, x, y| u64::from(3000 + 10 * ((x + y + band) % 50)), ..rgb(0) };
    scene.file("X.SAFE/IMG_DATA/stack.tif", TiffFile::of(deep).to_bytes());
    let metadata = |baseline: &str| {
        scene.file("X.SAFE/MTD_MSIL2A.xml", format!("<a><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></a>"));
    };
    metadata("05.11");
    let line = format!("embed X.SAFE/IMG_DATA/stack.tif {MODEL} --preset sentinel-2-l2a {DATED} -o deep/");
    said(&scene, &line, 0);
    let before = data(&scene, "deep");
    assert!(said(&scene, &line, 0).contains("0 made, 1 from before"));
    metadata("03.01");
    assert!(said(&scene, &line, 0).contains("1 made"));
    assert_ne!(data(&scene, "deep"), before);
}

#[test]
fn nobody_is_told_what_signs_a_url() {
    let scene = Scene::new();
    let bytes = TiffFile::of(rgb(0)).to_bytes();
    let server = HttpServer::start(move |request| match request.path.contains("sig=secret") {
        true => dinov3_testing::http_server::part_of(&bytes, request),
        false => dinov3_testing::http_server::HttpReply::new(403, ""),
    });
    let source = |secret: &str| format!("{}/a.tif?sig={secret}", server.url());
    let plan =
        |secret: &str| format!("plan {} {MODEL} {DATED} --allow-local-addresses -o plan.parquet", source(secret));
    let told = said(&scene, &plan("secret-1"), 0);
    assert!(told.contains("note: plan.parquet holds URLs as they were given") && !told.contains("secret"), "{told}");
    let run = "run --plan plan.parquet --allow-local-addresses -o out/";
    assert!(!said(&scene, run, 0).contains("secret"));
    assert!(!said(&scene, "merge out --parquet all.parquet", 0).contains("secret"));
    let before = data(&scene, "out");
    // The same scene with another signature.
    said(&scene, &plan("secret-2"), 0);
    assert!(said(&scene, run, 0).contains("0 made, 1 from before"));
    assert_eq!(data(&scene, "out"), before);
    said(&scene, &format!("embed {} {MODEL} --allow-local-addresses -o one.parquet", source("secret-3")), 0);
    // What fails, and files of bands.
    let host = server.url();
    let told =
        said(&scene, &format!("embed {host}/none.tif?x=secret {MODEL} --allow-local-addresses {DATED} -o none/"), 1);
    assert!(!told.contains("x=secret"), "{told}");
    let stranger = host.replace("http://", "http://user:secret@");
    let line = format!("embed {MODEL} --allow-local-addresses --band-files {stranger}/secret.tif -o bands.parquet");
    let told = stderr(&dinov3(&scene, &line).assert());
    assert!(!told.contains("user:secret"), "{told}");
    for (name, text) in texts(scene.0.path()) {
        assert!(name.ends_with("plan.parquet") && !name.contains(".dinov3") || !text.contains("sig=secret"), "{name}");
        assert!(!text.contains("user:secret"), "{name}");
    }
}

#[test]
fn another_division_into_units_gives_no_row_twice() {
    let scene = scenes();
    said(&scene, &format!("plan scenes {MODEL} {DATED} -o whole.parquet"), 0);
    said(&scene, &format!("plan scenes {MODEL} --unit-chips 5 {DATED} -o parts.parquet"), 0);
    said(&scene, "run --plan whole.parquet -o out/", 0);
    let before = data(&scene, "out");
    let told = said(&scene, "run --plan parts.parquet -o out/", 2);
    assert!(told.contains("is divided into other units there") && told.contains("--fresh"), "{told}");
    assert_eq!(data(&scene, "out"), before);
    let told = said(&scene, "run --plan parts.parquet --fresh -o out/", 0);
    assert!(told.contains("note: 3 units of an earlier plan are removed from out"), "{told}");
    said(&scene, "merge out --parquet all.parquet", 0);
    let count = |folder: &str| {
        data(&scene, folder).iter().map(|(name, _)| rows(scene.path(folder).join(name)).len()).sum::<usize>()
    };
    assert_eq!((count("out"), rows(scene.path("all.parquet")).len()), (36, 36));
    assert_eq!(files(scene.path("out")).len(), 19, "{:?}", files(scene.path("out")));
    // A scene that has another size has other units, and the old ones go.
    scene.file("scenes/b.tif", TiffFile::of(TiffImage { height_px: 40, ..rgb(0) }).to_bytes());
    said(&scene, &format!("plan scenes {MODEL} --unit-chips 5 {DATED} -o parts.parquet"), 0);
    said(&scene, "run --plan parts.parquet -o out/", 0);
    said(&scene, "merge out", 0);
    assert_eq!(count("out"), 32);
}

#[test]
fn fresh_makes_all_of_it_with_other_options() {
    let scene = scenes();
    let line = format!("embed scenes {MODEL} {DATED} -o out/");
    said(&scene, &line, 0);
    let told = said(&scene, &format!("{line} --stride 16"), 2);
    assert!(told.contains("make all of it anew with --fresh"), "{told}");
    fs::remove_file(scene.path("scenes/more/b.tif")).unwrap();
    let told = said(&scene, &format!("{line} --stride 16 --fresh"), 0);
    assert!(told.contains("1 units of an earlier plan are removed") && told.contains("2 units: 2 made"), "{told}");
    assert_eq!(data(&scene, "out").len(), 2);
    let links = scene.json("out/collection.json")["links"].clone();
    assert_eq!(links.as_array().unwrap().iter().filter(|link| link["rel"] == "item").count(), 2);
}

#[test]
fn what_is_not_of_this_program_stays() {
    let scene = scenes();
    scene.file("out/notes.txt", "mine");
    scene.file("out/other.parquet", "mine");
    let line = format!("embed scenes {MODEL} {DATED} -o out/");
    said(&scene, &line, 0);
    assert_eq!(fs::read(scene.path("out/notes.txt")).unwrap(), b"mine");
    assert_eq!(fs::read(scene.path("out/other.parquet")).unwrap(), b"mine");
    scene.file("catalogue/collection.json", r#"{"type": "Collection", "id": "mine"}"#);
    let told = said(&scene, &line.replace("out/", "catalogue/"), 2);
    assert!(told.contains("catalogue/collection.json is there, and is not of this program"), "{told}");
    let unit = data(&scene, "out").iter().find(|(name, _)| name.starts_with("a_b-")).unwrap().0.clone();
    scene.file(&format!("units/{unit}"), "mine");
    let told = said(&scene, &line.replace("out/", "units/"), 2);
    assert!(told.contains(&format!("units/{unit} is there")), "{told}");
}

#[test]
fn merged_files_say_what_all_units_say_and_lie_in_nobodys_way() {
    let scene = scenes();
    said(&scene, &format!("plan scenes {MODEL} --unit-chips 5 {DATED} -o plan.parquet"), 0);
    said(&scene, "run --plan plan.parquet -o out/", 0);
    let before = data(&scene, "out");
    let first = before[0].0.clone();
    for (name, problem) in [
        (format!("out/{first}"), "lies among the units"),
        ("out/all.parquet".to_owned(), "lies among the units"),
        ("plan.parquet".to_owned(), "is no merged file"),
        ("tiny.json".to_owned(), "ends in .parquet"),
        ("s3://bucket/all.parquet".to_owned(), "is written to a disk of this machine"),
    ] {
        let told = said(&scene, &format!("merge out --parquet {name}"), 2);
        assert!(told.contains(problem), "{name}: {told}");
    }
    assert_eq!(data(&scene, "out"), before);
    fs::create_dir(scene.path("merged")).unwrap();
    for _ in 0..2 {
        said(&scene, "merge out --parquet merged/all.parquet", 0);
    }
    assert_eq!(files(scene.path("merged")), ["all.parquet"]);
    let merged = rows(scene.path("merged/all.parquet"));
    let item = text(&merged[0], "stac_item");
    assert!(item.starts_with("../out/") && scene.path("merged").join(item).exists());
    let about = provenance(&scene, "merged/all.parquet");
    said(&scene, &format!("embed scenes {MODEL} {DATED} -o one.parquet"), 0);
    let one = provenance(&scene, "one.parquet");
    assert_eq!((&about["scenes"], &about["counts"]), (&one["scenes"], &one["counts"]));
    assert_eq!(about["units"], 9);
    // A unit says what a single run says, and so does its item.
    let of_unit = provenance(&scene, &format!("out/{first}"));
    assert_eq!(of_unit["scenes"][0], one["scenes"][0]);
    let item = scene.json(&format!("out/{}", first.replace(".parquet", ".json")));
    assert_eq!(item["properties"]["emb:preprocessing"]["expression"]["scenes"], of_unit["scenes"]);
    // Whoever edits a plan is told by the count.
    let marker = format!("out/.dinov3/units/{}", first.replace(".parquet", ".json"));
    let mut counted = scene.json(&marker);
    counted["counts"]["done"] = json!(1);
    scene.file(&marker, counted.to_string());
    let told = said(&scene, "merge out --sizes-only", 3);
    assert!(told.contains("it has 1 chips, and 4 were planned"), "{told}");
}

#[test]
fn documents_say_which_model_it_was_and_how_chips_lie() {
    let scene = Scene::new();
    scene.file("a.tif", TiffFile::of(rgb(0)).to_bytes());
    let made = |options: &str, output: &str| -> Value {
        said(&scene, &format!("embed a.tif {MODEL} {options} {DATED} -o {output}"), 0);
        scene.json(&format!("{output}collection.json"))
    };
    let regular = made("", "regular/");
    let model = regular["links"].as_array().unwrap().iter().find(|link| link["rel"] == "emb:model").unwrap();
    assert!(
        model["href"].as_str().unwrap().starts_with("urn:dinov3:")
            && model["href"].as_str().unwrap().ends_with(":synthetic")
    );
    assert_eq!(
        regular["emb:chip_layout"],
        json!({"layout_type": "regular_grid", "chip_size": [32, 32], "stride": [32, 32]})
    );
    assert_eq!(regular["data_type"], "float32");
    let overlapping = made("--stride 16 --embedding-type f16", "overlapping/");
    assert_eq!(
        (&overlapping["emb:chip_layout"]["stride"], &overlapping["data_type"]),
        (&json!([16, 16]), &json!("float16"))
    );
    let shifted = made("--edges shift", "shifted/");
    assert_eq!(shifted["emb:chip_layout"], json!({"layout_type": "variable_grid", "chip_size": [32, 32]}));
    let named = made("--grid utm", "named/");
    let layout = json!({"layout_type": "named_grid", "chip_size": [32, 32], "grid_id": "utm"});
    assert_eq!(named["emb:chip_layout"], layout);
}

#[test]
fn outputs_are_where_their_names_say_or_refused() {
    let scene = Scene::new();
    scene.file("a.tif", TiffFile::of(rgb(0)).to_bytes());
    let line = format!("embed a.tif {MODEL} {DATED}");
    for name in ["s3://bucket/x.parquet", "https://host/x.parquet", "s3://u:secret@bucket/x.tif"] {
        let told = said(&scene, &format!("{line} -o {name}"), 2);
        assert!(told.contains("one file is written to a disk of this machine") && !told.contains("secret"), "{told}");
    }
    let told = said(&scene, &format!("{line} -o https://host/out/"), 2);
    assert!(told.contains("results go into folders of this machine and of object stores"), "{told}");
    let told = said(&scene, &format!("plan a.tif {MODEL} {DATED} -o s3://bucket/plan.parquet"), 2);
    assert!(told.contains("a plan is written to a disk of this machine"), "{told}");
    let folder = scene.0.path().canonicalize().unwrap();
    let at = |name: &str| format!("file://{}/{name}", folder.display());
    for name in ["one.parquet", "one.zarr"] {
        said(&scene, &format!("{line} -o {}", at(name)), 0);
        assert!(scene.path(name).exists(), "{name}");
    }
    let told = said(&scene, &format!("{line} -o {}", at("out//")), 0);
    assert!(told.contains("out/collection.json") && !told.contains("out//"), "{told}");
    said(&scene, &format!("merge {} --parquet {}", at("out/"), at("all.parquet")), 0);
    assert!(scene.path("all.parquet").exists() && !scene.path("file:").exists() && !scene.path("s3:").exists());
    // Of the file and of the store beside it.
    let dense = |output: &str| {
        format!("embed --dense a.tif -m tiny.json --weights synthetic:7 --window 48 --overlap 16 --dims 4 -o {output}")
    };
    said(&scene, &dense("x.tif"), 0);
    let basis = fs::metadata(scene.path("x-pca.safetensors")).unwrap().modified().unwrap();
    said(&scene, &dense("x.zarr --normalize"), 0);
    assert_eq!(fs::metadata(scene.path("x-pca.safetensors")).unwrap().modified().unwrap(), basis);
    assert!(scene.path("x.zarr-pca.safetensors").exists() && scene.path("x.zarr-pca.tif").exists());
    // With a basis that is there, or is not yet, a raster has the same bytes.
    said(&scene, &dense("y.tif --pca-basis basis.safetensors"), 0);
    let fitted = fs::read(scene.path("y.tif")).unwrap();
    said(&scene, &dense("y.tif --pca-basis basis.safetensors"), 0);
    assert!(fs::read(scene.path("y.tif")).unwrap() == fitted);
}

#[test]
fn a_plan_made_of_copies_elsewhere_is_run() {
    let scene = Scene::new();
    let band = |value: fn(u32, u32, u32) -> u64| {
        let mut tags: Vec<_> = utm_tags().into_iter().chain([(262, TiffValue::Short(vec![1]))]).collect();
        tags.sort_by_key(|(tag, _)| *tag);
        TiffFile::of(TiffImage { bands: 1, sample: value, tags, ..TiffImage::default() }).to_bytes()
    };
    for name in ["s_B04.tif", "s_B03.tif", "s_B02.tif"] {
        scene.file(&format!("scenes/{name}"), band(dinov3_testing::geotiff::pattern));
    }
    let line = format!("plan scenes {MODEL} --band-files *_B04.tif,*_B03.tif,*_B02.tif {DATED} -o plan.parquet");
    said(&scene, &line, 0);
    for name in ["s_B04.tif", "s_B03.tif", "s_B02.tif"] {
        let path = scene.path("scenes").join(name);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let copy = fs::File::options().write(true).open(&path).unwrap();
        copy.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    said(&scene, "run --plan plan.parquet -o out/", 0);
    let planned = rows(scene.path("plan.parquet"));
    assert!(matches!(value(&planned[0], "stamp"), Field::Str(_)));
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_no_plan_can_hold_is_told_and_the_rest_is_made() {
    use std::os::unix::ffi::OsStrExt;
    let scene = Scene::new();
    let bytes = TiffFile::of(rgb(0)).to_bytes();
    scene.file("scenes/a.tif", &bytes);
    fs::write(scene.path("scenes").join(std::ffi::OsStr::from_bytes(b"b\xff.tif")), &bytes).unwrap();
    let told = said(&scene, &format!("embed scenes {MODEL} {DATED} -o out/"), 3);
    assert!(told.contains("is not UTF-8, and a plan is"), "{told}");
    assert!(told.contains("2 units: 1 made, 1 failed -> out"), "{told}");
    said(&scene, &format!("embed scenes {MODEL} {DATED} -o one.parquet"), 0);
}
