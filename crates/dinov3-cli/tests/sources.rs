//! Where `dinov3 scene` takes scenes from: files of bands, STAC items, servers.

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::chips::{number, provenance, rows, text, value};
use common::objects::Objects;
use common::{Scene, stderr, stdout};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, pattern, utm_tags};
use dinov3_testing::http_server::{HttpReply, HttpServer, part_of};
use parquet::record::Field;
use serde_json::{Value, json};
use snapbox::cmd::Command;

/// 100 x 70 pixels of 8-bit RGB in UTM zone 33.
fn rgb() -> TiffImage {
    TiffImage { tags: utm_tags(), ..TiffImage::default() }
}

/// One band of it.
fn band(sample: fn(u32, u32, u32) -> u64) -> TiffImage {
    TiffImage { bands: 1, sample, ..rgb() }
}

fn bytes(image: TiffImage) -> Vec<u8> {
    TiffFile::of(image).to_bytes()
}

fn red() -> Vec<u8> {
    bytes(band(|_, x, y| pattern(0, x, y)))
}

fn green() -> Vec<u8> {
    bytes(band(|_, x, y| pattern(1, x, y)))
}

fn blue() -> Vec<u8> {
    bytes(band(|_, x, y| pattern(2, x, y)))
}

/// With `rgb.tif`, its bands `r.tif`, `g.tif`, `b.tif`, and the small model.
fn scene() -> Scene {
    let scene = Scene::new();
    for (name, bytes) in [("rgb.tif", bytes(rgb())), ("r.tif", red()), ("g.tif", green()), ("b.tif", blue())] {
        scene.file(name, bytes);
    }
    scene
}

fn embed(scene: &Scene, line: &str) -> Command {
    scene.dinov3(&format!("scene embed {line} -m tiny.json --weights synthetic:7 --chip 32"))
}

/// The vectors by their places, whatever the scene is called.
fn vectors(scene: &Scene, name: &str) -> Vec<((i32, i32), Field)> {
    let place = |row: &parquet::record::Row| (number(row, "y_px"), number(row, "x_px"));
    let mut found: Vec<_> = rows(scene, name).iter().map(|row| (place(row), value(row, "embedding"))).collect();
    found.sort_by_key(|(place, _)| *place);
    found
}

fn item(assets: Value) -> Value {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": "S2A_33", "collection": "sentinel-2-l2a", "geometry": null,
        "properties": {"datetime": "2026-05-17T10:30:31.024Z"}, "links": [], "assets": assets,
    })
}

fn band_assets() -> Value {
    let asset = |name: &str, colour: &str| {
        json!({"href": format!("./{name}.tif"), "type": "image/tiff; application=geotiff", "roles": ["data"],
               "eo:bands": [{"name": name, "common_name": colour}]})
    };
    json!({"B04": asset("r", "red"), "B03": asset("g", "green"), "B02": asset("b", "blue"),
           "visual": {"href": "rgb.tif", "type": "image/tiff", "roles": ["visual"]},
           "thumbnail": {"href": "t.png", "type": "image/png", "roles": ["thumbnail"]}})
}

const TIME: Field = Field::TimestampMicros(1_779_013_831_024_000);

#[test]
fn files_of_bands_give_what_one_file_with_them_gives() {
    let scene = scene();
    embed(&scene, "rgb.tif -o one.parquet").assert().code(0);
    let output = embed(&scene, "--band-files r.tif,g.tif,b.tif -o three.parquet").assert().code(0);
    assert!(!stderr(&output).contains("resampled"), "{}", stderr(&output));
    assert_eq!(vectors(&scene, "one.parquet"), vectors(&scene, "three.parquet"));
    let row = &rows(&scene, "three.parquet")[0];
    assert_eq!(text(row, "source"), "{r,g,b}.tif");
    assert!(text(row, "id").starts_with("{r,g,b}.tif#xywh="));
    let found = provenance(&scene, "three.parquet");
    assert_eq!(found["scene"]["band_files"], json!(["r.tif", "g.tif", "b.tif"]));
    assert_eq!(found["resampled"], Value::Null);
    // A change of one of them changes the scene.
    embed(&scene, "--band-files b.tif,g.tif,r.tif -o other.parquet").assert().code(0);
    assert_ne!(vectors(&scene, "one.parquet"), vectors(&scene, "other.parquet"));
}

#[test]
fn coarser_files_are_resampled_and_said_so() {
    let scene = scene();
    let mut coarse = band(|_, x, y| pattern(2, x, y));
    (coarse.width_px, coarse.height_px) = (50, 35);
    coarse.tags[0] = (33550, TiffValue::Double(vec![20.0, 20.0, 0.0]));
    scene.file("b20.tif", bytes(coarse.clone()));
    let output = embed(&scene, "--band-files r.tif,g.tif,b20.tif -o chips.parquet").assert().code(0);
    let note = "note: b20.tif is resampled bilinearly from 50 x 35 to 100 x 70 px\n";
    assert!(stderr(&output).contains(note), "{}", stderr(&output));
    let found = provenance(&scene, "chips.parquet");
    let kind = json!([{"file": 3, "from_px": [50, 35], "to_px": [100, 70], "method": "bilinear", "scenes": 1}]);
    assert_eq!(found["resampled"], kind);
    let info = scene.dinov3("scene info --band-files r.tif,g.tif,b20.tif").assert().code(0);
    assert!(stdout(&info).contains("file              b20.tif is resampled bilinearly"), "{}", stdout(&info));
    assert!(stdout(&info).contains("valid pixels      where every file that is used says so"), "{}", stdout(&info));
    // Half a pixel off is another grid.
    coarse.tags[1] = (33922, TiffValue::Double(vec![0.0, 0.0, 0.0, 399_970.0, 4_200_000.0, 0.0]));
    scene.file("off.tif", bytes(coarse));
    let output = embed(&scene, "--band-files r.tif,g.tif,off.tif -o no.parquet").assert().code(1);
    let error = "off.tif does not lie on the grid of r.tif: its upper left corner (399970, 4200000) lies 1.00 columns";
    assert!(stderr(&output).contains(error), "{}", stderr(&output));
    assert!(stderr(&output).contains("this helps: gdalwarp -t_srs EPSG:32633 -te"), "{}", stderr(&output));
}

#[test]
fn folders_of_products_are_searched_for_files_of_bands() {
    let scene = scene();
    for folder in ["products/one", "products/two", "products/half"] {
        scene.file(&format!("{folder}/T33_B04.tif"), red());
        scene.file(&format!("{folder}/T33_B03.tif"), green());
        if !folder.ends_with("half") {
            scene.file(&format!("{folder}/T33_B02.tif"), blue());
        }
    }
    let output = embed(&scene, "products --band-files *_B04.tif,*_B03.tif,*_B02.tif -o chips.parquet").assert().code(3);
    let error =
        "failed: products/half/T33_{B04,B03}.tif: there is no '*_B02.tif' beside products/half/T33_{B04,B03}.tif";
    assert!(stderr(&output).contains(error), "{}", stderr(&output));
    assert_eq!(rows(&scene, "chips.parquet").len(), 24);
    let told = |line: &str| stderr(&embed(&scene, line).assert());
    assert!(told("rgb.tif --band-files *_B04.tif -o x.parquet").contains("rgb.tif is no folder"));
    assert!(told("products --band-files *_B04.tif,B03.tif -o x.parquet").contains("differ in their number of * and ?"));
    assert!(told("-o x.parquet").contains("required"));
}

#[test]
fn an_item_gives_its_files_its_time_and_its_link() {
    let scene = scene();
    scene.file("item.json", item(band_assets()).to_string());
    embed(&scene, "rgb.tif -o one.parquet").assert().code(0);
    for (options, source) in [
        ("", "rgb.tif"),
        ("--assets visual", "rgb.tif"),
        ("--assets role:visual", "rgb.tif"),
        ("--assets red,green,blue", "{r,g,b}.tif"),
        ("--assets B04,B03,B02", "{r,g,b}.tif"),
    ] {
        embed(&scene, &format!("item.json {options} -o chips.parquet")).assert().code(0);
        assert_eq!(vectors(&scene, "one.parquet"), vectors(&scene, "chips.parquet"), "{options}");
        let row = &rows(&scene, "chips.parquet")[0];
        assert_eq!((text(row, "source"), text(row, "stac_item")), (source.to_owned(), "item.json".to_owned()));
        assert_eq!(value(row, "datetime"), TIME);
    }
    embed(&scene, "item.json --datetime 1970-01-02 -o chips.parquet").assert().code(0);
    assert_eq!(value(&rows(&scene, "chips.parquet")[0], "datetime"), Field::TimestampMicros(86_400_000_000));
    let info = stdout(&scene.dinov3("scene info item.json --assets red,green,blue").assert().code(0));
    assert!(info.contains("datetime          2026-05-17T10:30:31.024Z\n"), "{info}");
    assert!(info.contains("STAC item         item.json\n"), "{info}");
    // Without items there is no such column.
    assert!(rows(&scene, "one.parquet")[0].get_column_iter().all(|(name, _)| name != "stac_item"));
}

#[test]
fn items_of_a_collection_are_scenes_and_bad_ones_are_reported() {
    let scene = scene();
    let mut other = item(json!({"visual": {"href": "b.tif"}}));
    (other["id"], other["links"]) = (json!("other"), json!([{"rel": "self", "href": "https://h/other?token=secret"}]));
    other["assets"]["visual"]["href"] = json!(format!("file://{}", scene.path("b.tif").display()));
    let mut without = item(json!({"B01": {"href": "x.tif"}, "B05": {"href": "x.tif"}}));
    without["id"] = json!("without");
    let page = json!({"type": "FeatureCollection", "features": [item(band_assets()), other, without],
                      "links": [{"rel": "next", "href": "https://h/search?page=2"}]});
    scene.file("page.json", page.to_string());
    let output = embed(&scene, "page.json -o chips.parquet").assert().code(3);
    let told = stderr(&output);
    assert!(told.contains("note: page.json has further pages, which are not read"), "{told}");
    assert!(told.contains("failed: without: item without has no asset that is a picture by itself"), "{told}");
    assert!(told.contains("it has B01, B05"), "{told}");
    let links: std::collections::BTreeSet<_> =
        rows(&scene, "chips.parquet").iter().map(|row| text(row, "stac_item")).collect();
    assert_eq!(links.into_iter().collect::<Vec<_>>(), ["S2A_33", "https://h/other"]);
    assert!(!String::from_utf8_lossy(&fs::read(scene.path("chips.parquet")).unwrap()).contains("secret"));
    // Several scenes cannot be told of at once.
    assert!(stderr(&scene.dinov3("scene info page.json").assert().code(2)).contains("these are 3 scenes: name one"));
}

#[test]
fn what_is_no_item_is_said() {
    let scene = scene();
    scene.file("collection.json", r#"{"type": "Collection", "links": []}"#);
    scene.file("broken.json", "{");
    scene.file("item.json", item(band_assets()).to_string());
    scene.file("table.parquet", "PAR1 no table PAR1");
    let told = |line: &str| stderr(&embed(&scene, &format!("{line} -o chips.parquet")).assert().code(1));
    assert!(told("collection.json").contains("error: collection.json is a STAC Collection, which links to items"));
    assert!(told("broken.json").contains("error: broken.json cannot be read as JSON: "));
    assert!(told("missing.json").contains("error: missing.json does not exist"));
    assert!(told("table.parquet").contains("error: table.parquet cannot be read as stac-geoparquet: "));
    assert!(told("item.json --assets nir").contains("item S2A_33 has no asset 'nir'; it has B02, B03, B04, visual"));
    let output = embed(&scene, "rgb.tif --assets visual -o chips.parquet").assert().code(2);
    assert!(stderr(&output).contains("rgb.tif is no document of STAC items"), "{}", stderr(&output));
    // Beside others it is reported, and the rest goes on.
    let output = embed(&scene, "broken.json rgb.tif -o chips.parquet").assert().code(3);
    assert!(stderr(&output).contains("failed: broken.json: cannot be read as JSON: "), "{}", stderr(&output));
    // The item is what the command reads.
    let output = embed(&scene, "item.json -o item.json").assert().code(2);
    assert!(stderr(&output).contains("item.json"), "{}", stderr(&output));
}

#[test]
fn an_item_on_a_server_costs_one_request_and_each_file_its_tiles() {
    let scene = scene();
    let files = [("r", red()), ("g", green()), ("b", blue())];
    let document = item(band_assets()).to_string();
    let server = HttpServer::start(move |request| {
        let path = request.path.split('?').next().unwrap_or_default();
        match files.iter().find(|(name, _)| path == format!("/items/{name}.tif")) {
            Some((_, bytes)) => part_of(bytes, request),
            // As servers that make what they tell: without a length, whatever is asked for.
            None if path == "/items/S2A_33" => HttpReply::new(200, document.clone()),
            None => HttpReply::new(404, ""),
        }
    });
    let url = server.url();
    embed(&scene, &format!("{url}/items/S2A_33?key=secret --assets red,green,blue -o chips.parquet")).assert().code(0);
    embed(&scene, "rgb.tif -o one.parquet").assert().code(0);
    assert_eq!(vectors(&scene, "one.parquet"), vectors(&scene, "chips.parquet"));
    let row = &rows(&scene, "chips.parquet")[0];
    assert_eq!(text(row, "stac_item"), format!("{url}/items/S2A_33"));
    assert_eq!(text(row, "source"), format!("{url}/items/{{r,g,b}}.tif"));
    // Each file is short enough to come with its index.
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn urls_that_differ_in_their_query_are_two_scenes_and_the_query_stays_secret() {
    let scene = scene();
    let (one, two) = (bytes(rgb()), bytes(TiffImage { sample: |_, x, y| pattern(1, y, x), ..rgb() }));
    let server =
        HttpServer::start(move |request| part_of(if request.path.contains("id=1") { &one } else { &two }, request));
    let url = server.url();
    let line = format!("{url}/get.tif?id=1&sig=secret {url}/get.tif?id=2&sig=secret -o chips.parquet");
    let output = embed(&scene, &line).assert().code(0);
    assert!(!stderr(&output).contains("secret"), "{}", stderr(&output));
    let sources: std::collections::BTreeSet<_> =
        rows(&scene, "chips.parquet").iter().map(|row| text(row, "source")).collect();
    let start = format!("{url}/get.tif?[");
    assert!(sources.len() == 2 && sources.iter().all(|source| source.starts_with(&start)), "{sources:?}");
    assert!(!String::from_utf8_lossy(&fs::read(scene.path("chips.parquet")).unwrap()).contains("secret"));
    let twice = format!("{url}/get.tif?id=1&sig=secret {url}/get.tif?id=1&sig=secret -o chips.parquet");
    let output = embed(&scene, &twice).assert().code(2);
    assert!(stderr(&output).contains("/get.tif is named twice"), "{}", stderr(&output));
}

#[test]
fn a_failure_names_its_scene_once() {
    let scene = scene();
    scene.file("scenes/a.tif", bytes(rgb()));
    scene.file("scenes/b.tif", "no TIFF");
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", scene.path("scenes/c.tif")).unwrap();
    let output = embed(&scene, "scenes -o chips.parquet").assert().code(3);
    assert!(stderr(&output).contains("failed: scenes/b.tif: is no TIFF: "), "{}", stderr(&output));
    #[cfg(unix)]
    assert!(stderr(&output).contains("failed: scenes/c.tif: does not exist\n"), "{}", stderr(&output));
}

#[test]
fn a_continued_run_fetches_nothing_for_what_is_done() {
    let scene = Scene::new();
    // Not compressed, so that it is longer than what is fetched with the index; the index comes first. Of so many pixels
    // only sixteen blocks are looked at for statistics, none of them near the end.
    let image = TiffImage { width_px: 1056, height_px: 1056, block_px: (32, 32), is_deflated: false, ..rgb() };
    let file = bytes(image);
    let (length, is_broken) = (file.len() as u64, Arc::new(AtomicBool::new(true)));
    let broken = Arc::clone(&is_broken);
    let server = HttpServer::start(move |request| {
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next());
        let start: u64 = range.and_then(|start| start.parse().ok()).unwrap_or(0);
        match broken.load(Ordering::Relaxed) && start > length * 11 / 12 {
            true => HttpReply::new(403, ""),
            false => part_of(&file, request),
        }
    });
    let line = format!("{}/scene.tif -o chips.parquet --strict --batch-size 1 --resume", server.url());
    let output = embed(&scene, &line).assert().code(1);
    assert!(stderr(&output).contains("finished rows are kept"), "{}", stderr(&output));
    let before = server.requests().len();
    is_broken.store(false, Ordering::Relaxed);
    embed(&scene, &line).assert().code(0);
    assert_eq!(rows(&scene, "chips.parquet").len(), 33 * 33);
    let start_of =
        |range: &str| range.strip_prefix("bytes=").unwrap().split('-').next().unwrap().parse::<u64>().unwrap();
    let again: Vec<u64> =
        server.requests()[before..].iter().map(|request| start_of(request.header("range").unwrap())).collect();
    // The index, the blocks that are looked at, and tiles of the chips that were not done: the last rows.
    assert_eq!(again.iter().filter(|&&start| start == 0).count(), 1);
    let for_others = again.iter().filter(|&&start| start != 0 && start < length * 10 / 12).count();
    assert!(for_others <= 16, "{again:?} of {length}");
    assert!(again.len() <= 17 + 6 * 33, "{again:?}");
}

#[test]
fn folders_and_patterns_of_object_stores_are_searched_as_those_of_disks() {
    let scene = scene();
    let objects = Objects::start();
    for name in ["s/b.TIFF", "s/a.tif", "s/sub/c.tif", "s/.hidden/d.tif", "s/notes.txt", "st/e.tif", "root.tif"] {
        objects.put(&format!("/bucket/{name}"), bytes(rgb()));
    }
    let named = |input: &str, code: i32| {
        let line = format!("{input} --fresh -o chips.parquet");
        stderr(&objects.known_to(embed(&scene, &line)).assert().code(code))
    };
    let sources = |input: &str| {
        named(input, 0);
        let found = rows(&scene, "chips.parquet").iter().map(|row| text(row, "source")).collect::<Vec<_>>();
        let mut found: Vec<_> =
            found.iter().map(|source| source.trim_start_matches("s3://bucket/").to_owned()).collect();
        found.sort();
        found.dedup();
        found
    };
    assert_eq!(sources("s3://bucket/s/"), ["s/a.tif", "s/b.TIFF", "s/sub/c.tif"]);
    assert_eq!(sources("s3://bucket/s/*.tif"), ["s/a.tif"]);
    assert_eq!(sources("s3://bucket/s*/?.tif"), ["s/a.tif", "st/e.tif"]);
    assert_eq!(sources("s3://bucket/**/c.tif rgb.tif"), ["rgb.tif", "s/sub/c.tif"]);
    assert_eq!(sources("s3://bucket/").len(), 5);
    assert!(named("s3://bucket/none/", 1).contains("no scenes found in s3://bucket/none/ (looked for tif, tiff)"));
    assert!(named("s3://bucket", 1).contains("a folder of them SCHEME://BUCKET/FOLDER/"));
}
