//! Wrong input to `dinov3 scene`: one line that says what is wrong, the right exit code, nothing half written.

mod common;

use common::{Scene, stderr};
use dinov3_testing::geotiff::{TiffFile, TiffImage, utm_tags};
use dinov3_testing::http_server::{HttpReply, HttpServer};
use serde_json::json;

fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("rgb.tif", TiffFile::of(TiffImage { tags: utm_tags(), ..TiffImage::default() }).to_bytes());
    for (name, content) in [("empty.tif", ""), ("text.tif", "text"), ("empty.json", ""), ("list.json", "[]")] {
        scene.file(name, content);
    }
    scene.file("deep.json", "[".repeat(100_000));
    scene.file("wide.json", ["[", &"[],".repeat(16 << 20), "0]"].concat());
    scene.file("bad.parquet", "PAR1 no table PAR1");
    std::fs::create_dir(scene.path("folder.tif")).unwrap();
    scene
}

/// What is said, with the exit code, of a command that leaves no file behind.
fn told(scene: &Scene, line: &str, code: i32) -> String {
    let before = scene.new_files();
    let output = scene.dinov3(&format!("scene {line}")).assert().code(code);
    let told = stderr(&output);
    assert_eq!(scene.new_files(), before, "{line}: {told}");
    assert!(!told.contains("panicked"), "{line}: {told}");
    let first = told.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{line}: {told}"));
    assert!(first.len() < 400, "{line}: {first}");
    first.to_owned()
}

#[test]
fn wrong_input_is_one_line_and_leaves_nothing() {
    let scene = scene();
    let model = "-m tiny.json --weights synthetic:7 --chip 32";
    for (inputs, code, said) in [
        ("empty.tif -o o.parquet", 1, "empty.tif is no TIFF: it is empty"),
        ("text.tif -o o.parquet", 1, "text.tif is no TIFF"),
        ("folder.tif -o o.parquet", 1, "no scenes found in folder.tif"),
        ("missing.tif -o o.parquet", 1, "missing.tif does not exist"),
        ("empty.json -o o.parquet", 1, "empty.json cannot be read as JSON"),
        ("deep.json -o o.parquet", 1, "recursion limit"),
        ("wide.json -o o.parquet", 1, "MiB of memory"),
        ("list.json -o o.parquet", 1, "is no STAC item"),
        ("bad.parquet -o o.parquet", 1, "bad.parquet cannot be read as stac-geoparquet"),
        ("rgb.tif -o o.txt", 2, "the output of scenes is"),
        ("rgb.tif -o o.tif", 2, "a .tif is one of --dense"),
        ("rgb.tif -o nowhere/o.parquet", 1, "the folder nowhere does not exist"),
        ("rgb.tif rgb.tif -o o.parquet", 2, "rgb.tif is named twice"),
        ("rgb.tif --aoi empty.json -o o.parquet", 1, "empty.json is neither GeoJSON"),
        ("rgb.tif --aoi wide.json -o o.parquet", 1, "MiB of memory"),
        ("rgb.tif --aoi bad.parquet -o o.parquet", 1, "bad.parquet cannot be read as GeoParquet"),
        ("rgb.tif --aoi folder.tif -o o.parquet", 1, "folder.tif is a folder"),
        ("rgb.tif --mask text.tif -o o.parquet", 2, "--mask needs --mask-values"),
        ("rgb.tif --mask text.tif --mask-values 1 -o o.parquet", 1, "rgb.tif: its mask text.tif is no TIFF"),
        ("rgb.tif --crs EPSG:999999 -o o.parquet", 2, "it is not in the built-in table: give the PROJ string"),
        ("rgb.tif --crs rubbish -o o.parquet", 2, "it is neither a code such as EPSG:32633 nor a PROJ string"),
        ("rgb.tif --bands 9,8,7 -o o.parquet", 1, "no band 9"),
        ("rgb.tif --gsd nan -o o.parquet", 2, "expected metres"),
        ("rgb.tif --min-valid nan -o o.parquet", 2, "expected a share"),
        ("rgb.tif --stride 0 -o o.parquet", 2, "0 is not in 1..=65536"),
        ("s3:// -o o.parquet", 1, "SCHEME://BUCKET/KEY"),
        ("http://127.0.0.1:9/x.tif -o o.parquet", 1, "cannot be reached"),
    ] {
        let found = told(&scene, &format!("embed {inputs} {model}"), code);
        assert!(found.contains(said), "{inputs}: {found}");
    }
    for (line, code, said) in [
        ("embed rgb.tif --chip 0 -m tiny.json -o o.parquet", 2, "0 is not in 1..=65536"),
        ("run --plan bad.parquet -o out/", 1, "bad.parquet: not a plan"),
        ("merge nowhere/", 2, "does not exist"),
        ("map o.html --embeddings text.tif", 1, "is no TIFF"),
    ] {
        let found = told(&scene, line, code);
        assert!(found.contains(said), "{line}: {found}");
    }
}

#[test]
fn a_document_of_a_server_leads_neither_to_files_of_this_machine_nor_into_its_network() {
    let scene = scene();
    let other = HttpServer::start(|_| HttpReply::new(200, ""));
    let port = other.url().rsplit(':').next().unwrap().to_owned();
    let local = format!("file://{}", scene.path("rgb.tif").display());
    let inner = format!("http://127.0.0.2:{port}/a.tif");
    let item = |id: &str, href: &str| {
        json!({"type": "Feature", "stac_version": "1.0.0", "id": id, "properties": {}, "links": [],
               "assets": {"visual": {"href": href, "type": "image/tiff"}}})
    };
    let items =
        json!({"type": "FeatureCollection", "features": [item("own", &local), item("inner", &inner)]}).to_string();
    let server = HttpServer::start(move |_| HttpReply::new(200, items.clone()));
    let line = format!(
        "scene embed {}/items.json rgb.tif -o o.parquet -m tiny.json --weights synthetic:7 --chip 32",
        server.url()
    );
    let output = scene.dinov3(&line).assert().code(3);
    let told = stderr(&output);
    assert!(told.contains("failed: own: the asset 'visual' is file://"), "{told}");
    assert!(told.contains("a file of this machine, which a document of a server cannot name"), "{told}");
    assert!(told.contains("only public addresses are allowed here (--allow-local-addresses)"), "{told}");
    assert_eq!(other.requests().len(), 0);
}
