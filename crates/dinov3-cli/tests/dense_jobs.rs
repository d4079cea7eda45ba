//! Folders and plans of rasters of patches, and of a Zarr store for each scene.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::jobs::{dinov3, files, rgb, scenes};
use common::objects::Objects;
use common::{Scene, stderr};
use dinov3_testing::geotiff::{TiffFile, TiffImage};
use serde_json::{Value, json};

const MODEL: &str = "-m tiny.json --weights synthetic:7 --datetime 2026-05-17";
const DENSE: &str = "--dense --window 48 --overlap 16 --dims 8";
const COG: &str = "image/tiff; application=geotiff; profile=cloud-optimized";
const ZARR: &str = "application/vnd.zarr; version=3";

fn said(scene: &Scene, line: &str, code: i32) -> String {
    stderr(&dinov3(scene, line).assert().code(code))
}

/// Every file below a folder that is no document with a clock in it.
fn data(scene: &Scene, folder: &str) -> BTreeMap<String, Vec<u8>> {
    fn add(folder: &Path, name: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = format!("{name}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => add(&entry.path(), &format!("{name}/"), found),
                false => _ = found.insert(name, fs::read(entry.path()).unwrap()),
            }
        }
    }
    let mut found = BTreeMap::new();
    add(&scene.path(folder), "", &mut found);
    let is_document = |name: &String| name.ends_with(".json") && !name.contains('/');
    found.retain(|name, _| !name.starts_with(".dinov3/") && !is_document(name));
    found
}

/// The unit of a scene.
fn unit(scene: &Scene, folder: &str, source: &str) -> String {
    let documents = files(scene.path(folder)).into_iter().filter(|name| name.ends_with(".json"));
    let is_of = |name: &String| scene.json(&format!("{folder}/{name}"))["properties"]["dinov3:source"] == source;
    documents.into_iter().find(is_of).unwrap().trim_end_matches(".json").to_owned()
}

fn links<'a>(document: &'a Value, rel: &str) -> Vec<&'a str> {
    let links = document["links"].as_array().unwrap().iter().filter(|link| link["rel"] == rel);
    links.map(|link| link["href"].as_str().unwrap()).collect()
}

#[test]
fn a_folder_gets_a_raster_a_picture_a_basis_and_an_item_per_scene() {
    let scene = scenes();
    let line = format!("embed scenes {DENSE} {MODEL} -o out/");
    let told = said(&scene, &line, 0);
    assert!(told.contains("3 units: 3 made -> out") && told.contains("3 of 3 units, 18 windows, 0 problems"), "{told}");
    let names = files(scene.path("out"));
    assert_eq!(names.len(), 13, "{names:?}");
    let unit = unit(&scene, "out", "scenes/b.tif");

    let item = scene.json(&format!("out/{unit}.json"));
    assert_eq!((&item["stac_version"], &item["id"]), (&json!("1.0.0"), &json!(unit)));
    let properties = &item["properties"];
    assert_eq!((&properties["proj:shape"], &properties["dinov3:dimensions"]), (&json!([70, 100]), &json!(8)));
    assert_eq!(properties["dinov3:windows"], json!({"done": 6, "failed": 0, "skipped": 0}));
    assert_eq!(properties["emb:runtime_parameters"]["dense"]["window_px"], 48);
    assert_eq!(properties["emb:postprocessing"]["expression"]["pca"]["components"], 8);
    let assets = &item["assets"];
    assert_eq!((&assets["embeddings"]["type"], &assets["picture"]["type"]), (&json!(COG), &json!(COG)));
    assert_eq!(assets["picture"]["roles"], json!(["overview", "visual"]));
    for asset in ["embeddings", "picture"] {
        let transform = json!([160.0, 0.0, 400_460.0, 0.0, -160.0, 4_200_000.0]);
        assert_eq!((&assets[asset]["proj:shape"], &assets[asset]["proj:transform"]), (&json!([5, 7]), &transform));
    }
    for (asset, name) in [("embeddings", ".tif"), ("picture", "-pca.tif"), ("basis", "-pca.safetensors")] {
        assert_eq!(assets[asset]["href"], format!("./{unit}{name}"));
        let bytes = fs::read(scene.path(&format!("out/{unit}{name}"))).unwrap();
        assert_eq!(assets[asset]["file:size"], bytes.len());
        assert_eq!(assets[asset]["file:checksum"], format!("1220{}", dinov3::checkpoint::hash::sha256(&bytes)));
    }
    let collection = scene.json("out/collection.json");
    assert_eq!((&collection["emb:type"], &collection["emb:dimensions"]), (&json!("pixel"), &json!(8)));
    assert_eq!((&collection["emb:chip_layout"], links(&collection, "item").len()), (&Value::Null, 3));

    // What a scene alone gives under the same name.
    fs::create_dir(scene.path("one")).unwrap();
    said(&scene, &format!("embed scenes/b.tif {DENSE} {MODEL} -o one/{unit}.tif"), 0);
    let (all, one) = (data(&scene, "out"), data(&scene, "one"));
    assert_eq!(one.len(), 3);
    assert!(one.iter().all(|(name, bytes)| all[name] == *bytes));

    // A second time there is nothing to do; other options and formats do not join.
    assert!(said(&scene, &line, 0).contains("3 units: 0 made, 3 from before -> out"));
    assert_eq!(data(&scene, "out"), all);
    for (other, told) in [
        (line.replace("--dims 8", "--dims 9"), "made with --dims 8 and not 9"),
        (line.replace("-o out/", "--format zarr -o out/"), "made with --format tif and not zarr"),
        (format!("embed scenes {MODEL} --chip 32 -o out/"), "holds results of another plan"),
    ] {
        let found = said(&scene, &other, 2);
        assert!(found.contains(told), "{found}");
    }
    assert_eq!(data(&scene, "out"), all);
}

#[test]
fn units_of_patches_are_planned_and_made_in_any_order() {
    let scene = scenes();
    scene.file("scenes/bad.tif", "no TIFF");
    for (format, name) in [("", "tif"), ("--format zarr --embedding-type int8", "zarr")] {
        let plan = format!("plan scenes {DENSE} {MODEL} {format} -o plan.parquet");
        let told = said(&scene, &plan, 3);
        assert!(told.contains("3 units of 3 scenes, 18 windows, 1 scenes cannot be used"), "{told}");
        said(&scene, &format!("run --plan plan.parquet -o {name}-whole/ --threads 1"), 3);
        for shard in [2, 0, 1] {
            let part = format!("run --plan plan.parquet --shard {shard}/3 -o {name}-parts/ --batch-size 2");
            // Whoever has the broken scene ends with 3.
            let _ = dinov3(&scene, &part).assert();
        }
        let (whole, parts) = (data(&scene, &format!("{name}-whole")), data(&scene, &format!("{name}-parts")));
        assert!(whole == parts, "{name}");
        let told = said(&scene, &format!("merge {name}-parts"), 3);
        assert!(told.contains("missing: unit bad-") && told.contains("3 of 4 units, 18 windows"), "{told}");
        assert_eq!(scene.json(&format!("{name}-parts/collection.json"))["emb:type"], "pixel");
        let told = said(&scene, &format!("merge {name}-parts --parquet all.parquet"), 2);
        assert!(told.contains("without rows"), "{told}");
        let told = said(&scene, "run --plan plan.parquet -o one.zarr", 2);
        assert!(told.contains("every scene has a raster of its own: name a folder"), "{told}");
    }
    // What a raster cannot be of is a row with the reason, before anything is encoded.
    let mut south = rgb(0);
    south.tags.retain(|(tag, _)| *tag != 33550 && *tag != 33922);
    let matrix = vec![9.0, 3.0, 0.0, 4e5, 3.0, -9.0, 0.0, 4e6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    south.tags.push((34264, dinov3_testing::geotiff::TiffValue::Double(matrix)));
    south.tags.sort_by_key(|(tag, _)| *tag);
    scene.file("scenes/bad.tif", TiffFile::of(south).to_bytes());
    let told = said(&scene, &format!("embed scenes {DENSE} {MODEL} -o turned/"), 3);
    assert!(told.contains("scenes/bad.tif is rotated or mirrored") && told.contains("gdalwarp"), "{told}");
    assert!(told.contains("4 units: 3 made, 1 failed -> turned"), "{told}");
}

#[test]
fn a_folder_gets_a_zarr_store_per_scene() {
    let scene = scenes();
    let chips = format!("embed scenes {MODEL} --chip 32 --format zarr -o chips/");
    let patches = format!("embed scenes {DENSE} {MODEL} --format zarr -o patches/");
    for (line, folder, kind) in [(&chips, "chips", "chip"), (&patches, "patches", "pixel")] {
        let told = said(&scene, line, 0);
        assert!(told.contains(&format!("3 units: 3 made -> {folder}")), "{told}");
        let unit = unit(&scene, folder, "scenes/a b.tif");
        let item = scene.json(&format!("{folder}/{unit}.json"));
        let asset = &item["assets"]["embeddings"];
        assert_eq!((&asset["href"], &asset["type"]), (&json!(format!("./{unit}.zarr")), &json!(ZARR)));
        let within = format!("{unit}.zarr/");
        let before = data(&scene, folder);
        let bytes: usize =
            before.iter().filter(|(name, _)| name.starts_with(&within)).map(|(_, bytes)| bytes.len()).sum();
        assert_eq!((&asset["file:size"], &asset["file:checksum"]), (&json!(bytes), &Value::Null));
        let root = scene.json(&format!("{folder}/{unit}.zarr/zarr.json"));
        let shape = &root["consolidated_metadata"]["metadata"]["embeddings"]["shape"];
        assert_eq!(asset["proj:shape"], json!([shape[2], shape[3]]));
        assert_eq!(root["attributes"]["geoemb:type"], kind);
        let collection = scene.json(&format!("{folder}/collection.json"));
        assert_eq!(collection["emb:type"], kind);
        assert_eq!(collection["emb:chip_layout"].is_object(), kind == "chip");

        // The bytes of a store that is made alone; found again, and mended where an object is missing.
        let one = line.replace("embed scenes ", "embed scenes/b.tif ").replace(&format!("-o {folder}/"), "-o alone/");
        said(&scene, &one, 0);
        let alone = data(&scene, "alone");
        assert!(!alone.is_empty() && alone.iter().all(|(name, bytes)| before[name] == *bytes));
        fs::remove_dir_all(scene.path("alone")).unwrap();
        assert!(said(&scene, line, 0).contains("0 made, 3 from before"));
        fs::remove_file(scene.path(&format!("{folder}/{unit}.zarr/embeddings/c/0/0/0/0"))).unwrap();
        let told = said(&scene, &format!("merge {folder}"), 3);
        assert!(told.contains(&format!("{unit}.zarr/embeddings/c/0/0/0/0 has gone")), "{told}");
        assert!(said(&scene, line, 0).contains("1 made, 2 from before"));
        assert_eq!(data(&scene, folder), before);
        said(&scene, &format!("merge {folder}"), 0);
    }
    let told = said(&scene, &format!("{chips} --edges shift"), 2);
    assert!(told.contains("--edges shift moves chips off the grid"), "{told}");
    let told = said(&scene, &patches.replace("--format zarr", "--embedding-type int8"), 2);
    assert!(told.contains("a GeoTIFF has no scale per cell"), "{told}");
    let told = said(&scene, &format!("{patches} --picture one.tif"), 2);
    assert!(told.contains("--picture names one file"), "{told}");
}

#[test]
fn scenes_that_share_a_basis_have_copies_of_it_and_none_is_fitted_by_chance() {
    let scene = scenes();
    let line = format!("embed scenes {DENSE} {MODEL} --pca-basis basis.safetensors -o out/");
    let plan = format!("plan scenes {DENSE} {MODEL} --pca-basis basis.safetensors -o plan.parquet");
    for command in [&line, &plan] {
        let told = said(&scene, command, 2);
        assert!(
            told.contains("--pca-basis basis.safetensors: is not there") && told.contains("-o first.tif"),
            "{told}"
        );
    }
    let first = format!("embed scenes/b.tif {DENSE} {MODEL} --pca-basis basis.safetensors -o first.tif");
    said(&scene, &first, 0);
    said(&scene, &line, 0);
    let basis = fs::read(scene.path("basis.safetensors")).unwrap();
    let made = data(&scene, "out");
    let copies: Vec<_> = made.iter().filter(|(name, _)| name.ends_with(".safetensors")).collect();
    assert!(copies.len() == 3 && copies.iter().all(|(_, bytes)| **bytes == basis));
    said(&scene, &plan, 0);
    said(&scene, "run --plan plan.parquet -o planned/", 0);
    assert!(data(&scene, "planned") == made);
    // Another basis under the same name would be another space.
    fs::remove_file(scene.path("basis.safetensors")).unwrap();
    let told = said(&scene, "run --plan plan.parquet -o planned/", 2);
    assert!(told.contains("copy the file with which the plan was made to this place, SHA-256 "), "{told}");
    scene.file("other.tif", TiffFile::of(TiffImage { width_px: 90, ..rgb(0) }).to_bytes());
    said(&scene, &first.replace("scenes/b.tif", "other.tif").replace("first.tif", "second.tif"), 0);
    assert_ne!(fs::read(scene.path("basis.safetensors")).unwrap(), basis);
    let told = said(&scene, &line, 2);
    assert!(told.contains("made with a file of other content as --pca-basis"), "{told}");
    let told = said(&scene, "run --plan plan.parquet -o planned/", 2);
    assert!(told.contains("a file of other content as --pca-basis; plan anew"), "{told}");
    let told = said(&scene, &line.replace("--dims 8", "--dims 20").replace("out/", "more/"), 2);
    assert!(told.contains("it has 8 components, --dims 20 asks for more"), "{told}");
}

#[test]
fn a_basis_among_the_units_is_refused_since_they_are_replaced() {
    let scene = scenes();
    said(&scene, &format!("embed scenes/b.tif {DENSE} {MODEL} -o out/"), 0);
    let basis = files(scene.path("out")).into_iter().find(|name| name.ends_with("-pca.safetensors")).unwrap();
    let line = format!("embed scenes/b.tif {DENSE} {MODEL} --pca-basis out/{basis} --fresh -o out/");
    let told = said(&scene, &line, 2);
    assert!(told.contains("lies among the units of out") && told.contains("copy it"), "{told}");
    assert!(scene.path("out").join(basis).exists());
}

#[test]
fn fresh_finds_what_an_interrupted_unit_of_another_form_has_left() {
    let scene = scenes();
    said(&scene, &format!("embed scenes/b.tif {DENSE} {MODEL} -o out/"), 0);
    // As if it had been killed between its picture and its raster.
    fs::remove_dir_all(scene.path("out/.dinov3/units")).unwrap();
    for name in files(scene.path("out")) {
        if name.ends_with(".tif") && !name.ends_with("-pca.tif") {
            fs::remove_file(scene.path("out").join(name)).unwrap();
        }
    }
    said(&scene, &format!("embed scenes/b.tif {MODEL} --chip 32 --fresh -o out/"), 0);
    let left: Vec<String> = files(scene.path("out")).into_iter().filter(|name| name.contains("-pca")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn windows_that_fail_are_all_that_a_second_run_makes() {
    let scene = Scene::new();
    let wide = || TiffImage { width_px: 160, height_px: 48, ..rgb(0) };
    let sound = TiffFile::of(wide()).to_bytes();
    let mut damaged = sound.clone();
    let end = damaged.len();
    damaged[end - 600..].fill(0xff);
    scene.file("a.tif", &damaged);
    let line = format!("embed a.tif {DENSE} {MODEL} -o out/");
    // Ended by the failure, with windows of a small scene in the journal; then there is a larger one.
    let small = TiffFile::of(TiffImage { height_px: 30, ..wide() }).to_bytes();
    let mut broken = small.clone();
    let end = broken.len();
    broken[end - 300..].fill(0xff);
    scene.file("a.tif", &broken);
    said(&scene, &format!("{line} --strict --batch-size 1"), 1);
    scene.file("a.tif", &damaged);
    let told = said(&scene, &line, 3);
    assert!(told.contains("note: a.tif had another size when unit a-"), "{told}");
    assert!(told.contains("1 units: 0 made, 1 with failed windows -> out"), "{told}");
    assert!(told.contains("missing: unit a-") && told.contains("of its windows failed"), "{told}");
    let told = said(&scene, &line, 3);
    assert!(told.contains("from before"), "{told}");
    scene.file("a.tif", &sound);
    said(&scene, &line, 0);
    let unit = unit(&scene, "out", "a.tif");
    fs::create_dir(scene.path("one")).unwrap();
    said(&scene, &format!("embed a.tif {DENSE} {MODEL} -o one/{unit}.tif"), 0);
    assert!(data(&scene, "out") == data(&scene, "one"));
    assert!(files(scene.path("out")).iter().all(|name| !name.starts_with('.')), "{:?}", files(scene.path("out")));
}

#[test]
fn fresh_leaves_nothing_of_another_form() {
    let scene = scenes();
    let names = |scene: &Scene| {
        let endings = |name: &String| name.split_once(['.', '-']).map(|(_, rest)| rest[rest.len() - 4..].to_owned());
        let mut found: Vec<String> = files(scene.path("out")).iter().filter_map(endings).collect();
        found.sort();
        found
    };
    said(&scene, &format!("embed scenes/b.tif {DENSE} {MODEL} -o out/"), 0);
    assert_eq!(names(&scene), [".tif", ".tif", "json", "json", "sors"]);
    said(
        &scene,
        &format!("embed scenes/b.tif --dense --window 48 --overlap 16 --dims all --no-picture {MODEL} --fresh -o out/"),
        0,
    );
    assert_eq!(names(&scene), [".tif", "json", "json"]);
    said(&scene, &format!("embed scenes/b.tif {MODEL} --chip 32 --format zarr --fresh -o out/"), 0);
    assert_eq!(names(&scene), ["json", "json", "zarr"]);
    said(&scene, &format!("embed scenes/b.tif {MODEL} --chip 32 --fresh -o out/"), 0);
    assert_eq!(names(&scene), ["json", "json", "quet"]);
    assert_eq!(scene.json("out/collection.json")["emb:type"], "chip");
}

#[test]
fn shards_that_begin_anew_in_another_form_leave_what_the_others_have_made() {
    let scene = scenes();
    said(&scene, &format!("embed scenes {DENSE} {MODEL} -o out/"), 0);
    let earlier = fs::read(scene.path("out/.dinov3/plan.parquet")).unwrap();
    said(&scene, &format!("plan scenes {MODEL} --chip 32 -o plan.parquet"), 0);
    said(&scene, "run --plan plan.parquet --shard 0/2 --fresh -o out/", 0);
    // So the list was when the other shard began.
    fs::write(scene.path("out/.dinov3/plan.parquet"), earlier).unwrap();
    said(&scene, "run --plan plan.parquet --shard 1/2 --fresh -o out/", 0);
    let told = said(&scene, "run --plan plan.parquet -o out/", 0);
    assert!(told.contains("3 units: 0 made, 3 from before"), "{told}");
    let names = files(scene.path("out"));
    assert_eq!(names.iter().filter(|name| name.ends_with(".parquet")).count(), 3, "{names:?}");
    assert!(!names.iter().any(|name| name.contains("-pca") || name.ends_with(".tif")), "{names:?}");
}

#[test]
fn stores_go_into_object_stores_and_keep_nothing_of_an_earlier_version() {
    let scene = Scene::new();
    scene.file("a.tif", TiffFile::of(rgb(0)).to_bytes());
    let objects = Objects::start();
    let line = |options: &str| format!("embed a.tif {MODEL} --chip 32 --format zarr {options}");
    let stored = |options: &str| {
        let line = line(&format!("{options} -o s3://bucket/some/place --scratch scratch"));
        stderr(&objects.known_to(dinov3(&scene, &line)).assert().code(0))
    };
    let below = |prefix: &str| -> BTreeMap<String, Vec<u8>> {
        let named = objects.all().into_iter();
        let data = named.filter_map(|(name, bytes)| Some((name.strip_prefix(prefix)?.to_owned(), bytes)));
        data.filter(|(name, _)| name.contains(".zarr/")).collect()
    };
    stored("--pool token,avg");
    said(&scene, &line("--pool token,avg -o both/"), 0);
    assert!(data(&scene, "both") == below("/bucket/some/place/"));
    let puts = objects.puts();
    let place = |end: &str| puts.iter().position(|path| path.ends_with(end)).unwrap();
    let unit = unit(&scene, "both", "a.tif");
    let root = place(&format!("/{unit}.zarr/zarr.json"));
    assert!(place(".zarr/embeddings/c/0/0/0/0") < root && root < place(&format!("/units/{unit}.json")), "{puts:?}");
    assert_eq!(files(scene.path("scratch")), Vec::<String>::new());
    assert!(stored("--pool token,avg").contains("0 made, 1 from before"));
    // Made anew with fewer arrays.
    stored("--fresh");
    said(&scene, &line("-o one/"), 0);
    let found = below("/bucket/some/place/");
    assert!(!found.keys().any(|name| name.contains("embeddings_avg")), "{:?}", found.keys());
    assert!(data(&scene, "one") == found);
    // Of patches, with what lies beside them.
    let dense = format!("embed a.tif {DENSE} {MODEL} -o s3://bucket/patches --scratch scratch");
    scene.file("a.tif", TiffFile::of(rgb(7)).to_bytes());
    objects.known_to(dinov3(&scene, &dense)).assert().code(0);
    said(&scene, &format!("embed a.tif {DENSE} {MODEL} -o patches/"), 0);
    let found: BTreeMap<String, Vec<u8>> = objects.all();
    for (name, bytes) in data(&scene, "patches") {
        assert!(found[&format!("/bucket/patches/{name}")] == bytes, "{name}");
    }
    assert_eq!(files(scene.path("scratch")), Vec::<String>::new());
}
