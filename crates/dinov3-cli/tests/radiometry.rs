//! `dinov3 scene`: from bands to colours, by product, scale and mask.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.

mod common;

use std::fs::File;

use common::{Scene, stderr, stdout};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, pattern, utm_tags};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Value, json};
use snapbox::cmd::Command;
use snapbox::str;

/// A product of baseline 05.10, by its name.
const PRODUCT: &str = "S2A_MSIL2A_20240618T095031_N0510_R079_T33UUP_20240618T140000.tif";

/// 64 x 32 pixels of three 16-bit bands in UTM zone 33.
fn deep(sample: fn(u32, u32, u32) -> u64) -> TiffImage {
    TiffImage { width_px: 64, height_px: 32, bits: 16, sample, tags: utm_tags(), ..TiffImage::default() }
}

fn put(scene: &Scene, name: &str, image: TiffImage) {
    scene.file(name, TiffFile::of(image).to_bytes());
}

fn embed(scene: &Scene, arguments: &[&str]) -> Command {
    let line = "scene embed -m tiny.json --weights synthetic:7 --chip 32 -o chips.parquet";
    scene.dinov3(line).args(arguments)
}

fn reader(scene: &Scene) -> SerializedFileReader<File> {
    SerializedFileReader::new(File::open(scene.path("chips.parquet")).unwrap()).unwrap()
}

fn column(row: &Row, name: &str) -> Field {
    row.get_column_iter().find(|(column, _)| *column == name).unwrap().1.clone()
}

/// Embeddings and valid fractions of the chips, from left to right.
fn chips(scene: &Scene) -> Vec<(Field, Field)> {
    let mut rows: Vec<Row> = reader(scene).get_row_iter(None).unwrap().map(Result::unwrap).collect();
    rows.sort_by_key(|row| match column(row, "x_px") {
        Field::Int(x_px) => x_px,
        other => panic!("{other}"),
    });
    rows.iter().map(|row| (column(row, "embedding"), column(row, "valid_fraction"))).collect()
}

fn vectors(scene: &Scene, arguments: &[&str]) -> Vec<(Field, Field)> {
    embed(scene, arguments).assert().code(0);
    chips(scene)
}

fn provenance(scene: &Scene) -> Value {
    let reader = reader(scene);
    let entries = reader.metadata().file_metadata().key_value_metadata().unwrap().clone();
    serde_json::from_str(entries.iter().find(|entry| entry.key == "dinov3").unwrap().value.as_ref().unwrap()).unwrap()
}

fn refused(scene: &Scene, arguments: &[&str]) -> String {
    stderr(&embed(scene, arguments).assert().code(1))
}

#[test]
fn the_baseline_decides_about_the_offset() {
    let scene = Scene::new();
    put(&scene, PRODUCT, deep(|band, x, y| 1000 + 10 * pattern(band, x, y)));
    // Zeros are no data, and so these are not from the first sample on.
    put(&scene, "old.tif", deep(|band, x, y| (10 * pattern(band, x, y)).max(1)));
    put(&scene, "raw.tif", deep(|band, x, y| (1000 + 10 * pattern(band, x, y)).max(1001)));
    let preset = ["--preset", "sentinel-2-l2a"];
    let offset = vectors(&scene, &[&[PRODUCT], &preset[..]].concat());
    let found = provenance(&scene);
    assert_eq!(found["scene"]["preset"], "sentinel-2-l2a");
    assert_eq!(found["scenes"][0]["reflectance"], "(DN - 1000) / 10000");
    assert_eq!(found["scenes"][0]["reflectance_source"], "baseline 05.10 (N0510 in the product's name)");
    assert_eq!(found["scenes"][0]["scale"], "reflectance 0,0.3");
    let harmonized = vectors(&scene, &[&["old.tif", "--baseline", "harmonized"], &preset[..]].concat());
    let declared = vectors(&scene, &[&["raw.tif", "--baseline", "05.00"], &preset[..]].concat());
    let old = vectors(&scene, &[&["old.tif", "--baseline", "03.01"], &preset[..]].concat());
    assert_eq!(provenance(&scene)["scenes"][0]["reflectance"], "DN / 10000");
    assert_eq!((&harmonized, &harmonized), (&declared, &old));
    // A product without any offset that is not below it is another picture.
    assert!(offset.len() == 2 && offset != vectors(&scene, &[&[PRODUCT, "--baseline", "03.01"], &preset[..]].concat()));
}

#[test]
fn a_declared_baseline_that_metadata_contradict_is_a_warning() {
    let scene = Scene::new();
    put(&scene, PRODUCT, deep(|band, x, y| 1001 + 10 * pattern(band, x, y)));
    let told = |baseline: &str| {
        let arguments = [PRODUCT, "--preset", "sentinel-2-l2a", "--baseline", baseline];
        stderr(&embed(&scene, &arguments).assert().code(0))
    };
    let contradicts = "--baseline 03.01 contradicts baseline 05.10 (N0510 in the product's name)";
    assert!(told("03.01").contains(contradicts), "{}", told("03.01"));
    assert!(!told("05.00").contains("contradicts"));
}

#[test]
fn a_map_takes_the_offset_that_was_found_when_its_chips_were_made() {
    let scene = Scene::new();
    put(&scene, PRODUCT, deep(|band, x, y| 1001 + 10 * pattern(band, x, y)));
    vectors(&scene, &[PRODUCT, "--preset", "sentinel-2-l2a"]);
    std::fs::rename(scene.path(PRODUCT), scene.path("plain.tif")).unwrap();
    scene.dinov3("scene map map.html plain.tif --embeddings chips.parquet").assert().code(0);
}

#[test]
fn an_unknown_baseline_is_refused_with_the_option_that_declares_it() {
    let scene = Scene::new();
    put(&scene, "S2A_33UUP_20240618_0_L2A.tif", deep(|band, x, y| 1000 + 10 * pattern(band, x, y)));
    let arguments = ["S2A_33UUP_20240618_0_L2A.tif", "--preset", "sentinel-2-l2a", "--weights", "missing.safetensors"];
    let line = "scene embed -m tiny.json -o chips.parquet";
    scene.dinov3(line).args(arguments).assert().code(1).stderr_eq(str![[r#"
error: S2A_33UUP_20240618_0_L2A.tif: --preset sentinel-2-l2a: its processing baseline, which decides about the offset, is not known (neither a STAC item, nor MTD_MSIL2A.xml in its folder or above, nor N0509 or the like in its name): declare it as --baseline 05.09, or --baseline harmonized where the offset was added already

"#]]);
}

#[test]
fn the_metadata_file_of_a_product_is_found_above_its_bands() {
    let scene = Scene::new();
    let bands = "X.SAFE/GRANULE/L2A/IMG_DATA/R10m/stack.tif";
    put(&scene, bands, deep(|band, x, y| 1000 + 10 * pattern(band, x, y)));
    let xml = "<a><PROCESSING_BASELINE>05.11</PROCESSING_BASELINE></a>";
    scene.file("X.SAFE/MTD_MSIL2A.xml", xml);
    vectors(&scene, &[bands, "--preset", "sentinel-2-l2a"]);
    let found = provenance(&scene);
    assert_eq!(found["scenes"][0]["reflectance_source"], "baseline 05.11 (MTD_MSIL2A.xml)");
    assert_eq!(found["scene"]["overrides"], json!([]));
    embed(&scene, &[bands, "--preset", "sentinel-2-l2a", "--scale", "reflectance 0,0.4"]).assert().code(0);
    assert_eq!(provenance(&scene)["scene"]["overrides"], json!(["scale"]));
}

#[test]
fn samples_that_turn_negative_by_the_offset_stop_the_scene() {
    let scene = Scene::new();
    put(&scene, PRODUCT, deep(|band, x, y| 1 + 10 * pattern(band, x, y)));
    let told = refused(&scene, &[PRODUCT, "--preset", "sentinel-2-l2a"]);
    assert!(told.contains("% of the valid pixels have a negative reflectance by (DN - 1000) / 10000"), "{told}");
    assert!(told.contains("--baseline harmonized"), "{told}");
    vectors(&scene, &[PRODUCT, "--preset", "sentinel-2-l2a", "--baseline", "harmonized"]);
}

#[test]
fn deep_samples_are_refused_with_the_preset_that_fits() {
    let scene = Scene::new();
    put(&scene, PRODUCT, deep(|_, x, _| 1000 + 10 * u64::from(x)));
    put(&scene, "LC08_L2SP_014041_20200503_20200820_02_T1_SR.tif", deep(|_, x, _| 8000 + 100 * u64::from(x)));
    put(&scene, "numbers.tif", deep(|_, x, _| 300 + 20 * u64::from(x)));
    let mut four = deep(|_, x, _| 300 + 20 * u64::from(x));
    four.bands = 4;
    put(&scene, "20240618_095031_3B_AnalyticMS_SR.tif", four.clone());
    put(&scene, "20240618_095031_3B_AnalyticMS.tif", four);
    let tell = |name: &str| scene.dinov3(&format!("scene info {name}")).assert().code(1);
    tell(PRODUCT).stderr_eq(str![[r#"
error: S2A_MSIL2A_20240618T095031_N0510_R079_T33UUP_20240618T140000.tif has uint16 samples, from 1000 to 1630 in its middle: --preset sentinel-2-l2a fits (its name); otherwise say which values are black and white, as --scale 'range 1000,1630'

"#]]);
    tell("LC08_L2SP_014041_20200503_20200820_02_T1_SR.tif").stderr_eq(str![[r#"
error: LC08_L2SP_014041_20200503_20200820_02_T1_SR.tif has uint16 samples, from 8000 to 14300 in its middle: --preset landsat-c2-l2 fits (the name LC08_L2SP_014041_20200503_20200820_02_T1_SR.tif); otherwise say which values are black and white, as --scale 'range 8000,14300'

"#]]);
    tell("numbers.tif").stderr_eq(str![[r#"
error: numbers.tif has uint16 samples, from 300 to 1560 in its middle: --preset sentinel-2-l2a fits such numbers, if that is the product; otherwise say which values are black and white, as --scale 'range 300,1560'

"#]]);
    tell("20240618_095031_3B_AnalyticMS_SR.tif").stderr_eq(str![[r#"
error: 20240618_095031_3B_AnalyticMS_SR.tif has uint16 samples, from 300 to 1560 in its middle: --preset planetscope-sr-4b fits (its name); otherwise say which values are black and white, as --scale 'range 300,1560'

"#]]);
    tell("20240618_095031_3B_AnalyticMS.tif").stderr_eq(str![[r#"
error: 20240618_095031_3B_AnalyticMS.tif has uint16 samples, from 300 to 1560 in its middle: say which values are black and white, as --scale 'range 300,1560'

"#]]);
    let found: Value =
        serde_json::from_str(&stdout(&scene.dinov3(&format!("scene info {PRODUCT} --json")).assert().code(1))).unwrap();
    assert_eq!(found["preset_that_fits"], "sentinel-2-l2a");
    assert!(found["problem"].as_str().unwrap().contains("from 1000 to 1630"));
    let told = refused(&scene, &["numbers.tif", "--scale", "reflectance"]);
    assert!(told.contains("does not say how they become reflectance"), "{told}");
}

#[test]
fn what_is_not_the_product_is_refused() {
    let scene = Scene::new();
    let mut four = deep(|_, x, _| 300 + 20 * u64::from(x));
    four.bands = 4;
    put(&scene, "20240618_095031_3B_AnalyticMS.tif", four.clone());
    put(&scene, "four.tif", four);
    put(&scene, "ard-ms.tif", TiffImage { bits: 8, ..deep(pattern) });
    put(&scene, "LC08_L1TP_014041_20200503_20200820_02_T1.tif", deep(pattern));
    put(&scene, "unknown.tif", deep(pattern));
    for (name, preset, problem) in [
        ("20240618_095031_3B_AnalyticMS.tif", "planetscope-sr-4b", "this is radiance"),
        ("four.tif", "planetscope-sr-8b", "the product has 8 bands, and this file 4"),
        ("four.tif", "naip", "the product has 8 bits, and this file uint16"),
        ("four.tif", "landsat-c2-l2", "name the bands with --bands"),
        ("ard-ms.tif", "maxar-visual", "use the file that ends in -visual.tif"),
        ("ard-ms.tif", "sentinel-2-l2a", "a picture needs no preset"),
        ("LC08_L1TP_014041_20200503_20200820_02_T1.tif", "landsat-c2-l2", "this is L1TP"),
        ("unknown.tif", "landsat-c2-l2", "whether it is from Landsat 4 to 7 or 8 to 9 is not known"),
    ] {
        let told = refused(&scene, &[name, "--preset", preset]);
        assert!(told.contains(problem), "{name} as {preset}: {told}");
    }
    let told = embed(&scene, &["four.tif", "--preset", "naip", "--baseline", "05.09"]).assert().code(2);
    assert!(stderr(&told).contains("--preset sentinel-2-l2a"));
    for wrong in [["--preset", "landsat"], ["--baseline", "2022"], ["--mask-values", "1"], ["--scale", "percentile 2"]]
    {
        embed(&scene, &[&["four.tif"], &wrong[..]].concat()).assert().code(2);
    }
}

#[test]
fn bands_of_landsat_are_those_of_its_instrument() {
    let scene = Scene::new();
    let described = |text: &'static str, sample| {
        let mut image = deep(sample);
        image.bands = 4;
        image.tags.push((42112, TiffValue::Ascii(text)));
        image
    };
    let bands = "<GDALMetadata>\
        <Item name=\"DESCRIPTION\" sample=\"0\" role=\"description\">SR_B1</Item>\
        <Item name=\"DESCRIPTION\" sample=\"1\" role=\"description\">SR_B2</Item>\
        <Item name=\"DESCRIPTION\" sample=\"2\" role=\"description\">SR_B3</Item>\
        <Item name=\"DESCRIPTION\" sample=\"3\" role=\"description\">SR_B4</Item></GDALMetadata>";
    let names = ["LC09_L2SP_014041_20220503_20220820_02_T1.tif", "LE07_L2SP_014041_20020503_20200820_02_T1.tif"];
    for (name, expected) in names.into_iter().zip([json!([4, 3, 2]), json!([3, 2, 1])]) {
        put(&scene, name, described(bands, |band, x, y| 8000 + 40 * pattern(band, x, y)));
        vectors(&scene, &[name, "--preset", "landsat-c2-l2"]);
        let found = provenance(&scene);
        assert_eq!(
            (&found["scenes"][0]["bands"], &found["scenes"][0]["reflectance"]),
            (&expected, &json!("DN * 0.0000275 - 0.2"))
        );
        vectors(&scene, &[name, "--preset", "landsat-c2-l2", "--bands", "4,3,1"]);
        let found = provenance(&scene);
        assert_eq!(
            (&found["scenes"][0]["bands"], &found["scene"]["overrides"]),
            (&json!([4, 3, 1]), &json!(["bands"]))
        );
    }
}

#[test]
fn zeros_are_no_data_before_any_offset() {
    let scene = Scene::new();
    // A quarter of the first chip is 0 in all bands, an eighth more in one of them.
    put(
        &scene,
        PRODUCT,
        deep(|band, x, y| if x < 8 || x < 12 && band == 1 { 0 } else { 1100 + 10 * pattern(band, x, y) }),
    );
    let found = vectors(&scene, &[PRODUCT, "--preset", "sentinel-2-l2a"]);
    assert_eq!(
        found.iter().map(|(_, valid)| valid.clone()).collect::<Vec<_>>(),
        [Field::Float(0.625), Field::Float(1.0)]
    );
    // Dark water is 0 in single bands of the picture.
    let picture = TiffImage {
        bits: 8,
        ..deep(|band, x, y| if x < 8 || x < 12 && band == 1 { 0 } else { 1 + pattern(band, x, y) })
    };
    put(&scene, "T33UUP_TCI.tif", picture);
    let found = vectors(&scene, &["T33UUP_TCI.tif", "--preset", "sentinel-2-tci"]);
    assert_eq!(found[0].1, Field::Float(0.75));
}

#[test]
fn infrared_is_never_opacity() {
    let scene = Scene::new();
    let mut image =
        TiffImage { bits: 8, bands: 4, ..deep(|band, x, y| if band == 3 { 0 } else { pattern(band, x, y) }) };
    image.tags.extend([(262, TiffValue::Short(vec![2])), (338, TiffValue::Short(vec![2]))]);
    put(&scene, "m_3807708_ne_18_060_20180906.tif", image);
    embed(&scene, &["m_3807708_ne_18_060_20180906.tif"]).assert().code(0);
    assert!(chips(&scene).is_empty());
    let found = vectors(&scene, &["m_3807708_ne_18_060_20180906.tif", "--preset", "naip"]);
    assert_eq!(found.len(), 2);
}

#[test]
fn percentiles_are_of_the_whole_scene() {
    let scene = Scene::new();
    put(&scene, "deep.tif", deep(|band, x, y| 500 + u64::from(band) + 10 * u64::from(x + y)));
    let whole = vectors(&scene, &["deep.tif", "--scale", "percentile 0,100"]);
    let found = provenance(&scene);
    assert_eq!(
        (&found["scenes"][0]["black"], &found["scenes"][0]["white"]),
        (&json!([500.0, 501.0, 502.0]), &json!([1440.0, 1441.0, 1442.0]))
    );
    let alone = |band: &str, range: &str| vectors(&scene, &["deep.tif", "--bands", band, "--scale", range]);
    assert_eq!(alone("1", "percentile 0,100"), alone("1", "range 500,1440"));
    assert_eq!(vectors(&scene, &["deep.tif", "--scale", "percentile 0,100", "--batch-size", "1"]), whole);
    put(&scene, "flat.tif", deep(|_, _, _| 700));
    let told = refused(&scene, &["flat.tif", "--scale", "percentile 2,98"]);
    assert!(told.contains("band 1 is 700 at both ends of percentile 2,98"), "{told}");
}

#[test]
fn a_coarser_mask_in_the_scenes_folder_feeds_the_valid_fraction() {
    let scene = Scene::new();
    let classes = |sample| {
        let mut tags = utm_tags();
        tags[0].1 = TiffValue::Double(vec![20.0, 20.0, 0.0]);
        TiffImage { width_px: 32, height_px: 16, bands: 1, sample, tags, ..TiffImage::default() }
    };
    put(&scene, &format!("R10m/{PRODUCT}"), deep(|band, x, y| 1100 + 10 * pattern(band, x, y)));
    // Clouds over 8 of the 32 columns of the first chip, and over all of the second one.
    put(&scene, "R20m/T33UUP_SCL_20m.tif", classes(|_, x, _| if (4..16).contains(&x) { 4 } else { 9 }));
    let file = format!("R10m/{PRODUCT}");
    let masked = [file.as_str(), "--preset", "sentinel-2-l2a", "--mask", "../R20m/*_SCL_20m.tif"];
    let found = vectors(&scene, &masked);
    assert_eq!(found.iter().map(|(_, valid)| valid.clone()).collect::<Vec<_>>(), [Field::Float(0.75)]);
    let told = provenance(&scene);
    assert_eq!(told["scenes"][0]["mask_values"], "0,1,3,8,9,10");
    let found = vectors(&scene, &[&masked[..], &["--mask-values", "bits:2", "--min-valid", "0.2"]].concat());
    assert_eq!(found[0].1, Field::Float(0.25));
    assert_eq!(provenance(&scene)["scene"]["overrides"], json!(["mask_values"]));
    let told = refused(&scene, &[&file, "--preset", "sentinel-2-l2a", "--mask", "scl.tif"]);
    assert!(told.contains("there is neither such an asset nor R10m/scl.tif"), "{told}");
    let told = embed(&scene, &[&file, "--scale", "range 0,4000", "--mask", "R20m/T33UUP_SCL_20m.tif"]).assert().code(2);
    assert!(stderr(&told).contains("--mask needs --mask-values"), "{}", stderr(&told));
    // Another mask is another scene.
    let told = stderr(&embed(&scene, &masked).assert().code(0));
    assert!(told.contains("1 chips"), "{told}");
    // A product without its mask is reported, and the others go on.
    put(&scene, &format!("other/R10m/{PRODUCT}"), deep(|band, x, y| 1100 + 10 * pattern(band, x, y)));
    let other = format!("other/R10m/{PRODUCT}");
    let told = embed(&scene, &[&[other.as_str()][..], &masked].concat()).assert().code(3);
    let problem = "there is neither such an asset nor other/R10m/../R20m/*_SCL_20m.tif";
    assert!(stderr(&told).contains(problem), "{}", stderr(&told));
    assert!(stderr(&told).contains("1 chips"), "{}", stderr(&told));
}

#[test]
fn a_scene_that_the_weights_do_not_expect_is_told_loudly_and_once() {
    let scene = Scene::new();
    put(&scene, "dark.tif", deep(|band, x, y| 300 + 2 * pattern(band, x, y)));
    let told = stderr(&embed(&scene, &["dark.tif", "--scale", "range 0,10000"]).assert().code(0));
    assert_eq!(told.matches("warning: dark.tif: on the scale 'range 0,10000' it is far darker").count(), 1, "{told}");
    let found = provenance(&scene);
    assert!(found["scenes"][0]["warnings"][0].as_str().unwrap().contains("far darker"));
    assert!(found["scenes"][0]["statistics"]["z"][0].as_f64().unwrap() < -1.5);
    assert_eq!(found["scenes"][0]["statistics"]["sample"], "all pixels");
    for at in 0..12 {
        put(&scene, &format!("many/{at}.tif"), deep(|band, x, y| 300 + 2 * pattern(band, x, y)));
    }
    let told = stderr(&embed(&scene, &["many", "--scale", "range 0,10000"]).assert().code(0));
    assert_eq!(told.matches("far darker").count(), 10, "{told}");
    assert_eq!(told.matches("further scenes have warnings too").count(), 1, "{told}");
    assert_eq!(provenance(&scene)["scenes"].as_array().unwrap().len(), 12);
}

#[test]
fn info_shows_what_the_encoder_will_see() {
    let scene = Scene::new();
    put(&scene, PRODUCT, deep(|band, x, y| 1100 + 10 * pattern(band, x, y)));
    let line = format!("scene info {PRODUCT} --preset sentinel-2-l2a --chip 32");
    let output = stdout(&scene.dinov3(&line).assert().code(0));
    snapbox::assert_data_eq!(
        output,
        str![[r#"
scene             S2A_MSIL2A_20240618T095031_N0510_R079_T33UUP_20240618T140000.tif
size              64 x 32 px
samples           3 bands of uint16
stored            tiles of 32 x 16 px, DEFLATE
overviews         none
valid pixels      all
reference system  EPSG:32633 (WGS 84 / UTM zone 33N)
datum             WGS 84
pixel             10 x 10 metres
corner            399960, 4200000
longitude         13.861471 to 13.868797
latitude          37.939197 to 37.942151
red, green, blue  bands 1, 2, 3; scale reflectance 0,0.3
reflectance       (DN - 1000) / 10000 (baseline 05.10 (N0510 in the product's name))
product's rule    invalid where one of the bands is 0
mean              0.453, 0.454, 0.446 of all pixels
deviation         0.240, 0.244, 0.244
z                 0.110, 0.277, 1.052 against the weights for satellites
chips             2 of 32 x 32 px every 32 px, edges pad

"#]]
    );
    let found: Value =
        serde_json::from_str(&stdout(&scene.dinov3(&format!("{line} --json")).assert().code(0))).unwrap();
    assert_eq!(found["preset_that_fits"], "sentinel-2-l2a");
    assert_eq!(found["scale"], "reflectance 0,0.3");
    assert_eq!(found["bands"], 3);
    assert_eq!(found["statistics"]["pixels"], 2048);
}

#[test]
fn weights_for_satellites_hint_at_others_for_photographs() {
    let scene = Scene::new();
    scene.file("photo.jpg", "a photo");
    let run = |line: &str| {
        let line =
            format!("embed {line} -m vit_large_patch16_dinov3.sat493m --weights missing.safetensors -o a.parquet");
        stderr(&scene.dinov3(&line).assert().code(1))
    };
    let hint =
        "note: vit_large_patch16_dinov3.sat493m was trained on satellite scenes; vit_large_patch16_dinov3.lvd1689m";
    assert_eq!(run("photo.jpg").matches(hint).count(), 1);
    assert!(!run("photo.jpg --preprocess native").contains(hint));
}

/// 1280 x 1280 pixels of which one block of 256 has data, where the sample's grid has no block.
fn one_block(sample: fn(u32, u32, u32) -> u64) -> TiffImage {
    let tags = [utm_tags(), vec![(42113, TiffValue::Ascii("0"))]].concat();
    TiffImage { width_px: 1280, height_px: 1280, block_px: (256, 256), bits: 16, sample, tags, ..TiffImage::default() }
}

fn is_in_the_block(x: u32, y: u32) -> bool {
    (512..768).contains(&x) && (512..768).contains(&y)
}

#[test]
fn what_is_measured_is_what_is_valid_wherever_it_lies() {
    let scene = Scene::new();
    put(&scene, "part.tif", one_block(|_, x, y| if is_in_the_block(x, y) { 1000 + u64::from(x) } else { 0 }));
    embed(&scene, &["part.tif", "--scale", "percentile 0,100"]).assert().code(0);
    let about = &provenance(&scene)["scenes"][0];
    assert_eq!(
        (&about["black"], &about["white"]),
        (&json!([1512.0, 1512.0, 1512.0]), &json!([1767.0, 1767.0, 1767.0])),
        "{about}"
    );
    // And the samples that Sentinel-2's offset makes negative are found there.
    put(&scene, "dark.tif", one_block(|_, x, y| if is_in_the_block(x, y) { 500 } else { 0 }));
    let told = refused(&scene, &["dark.tif", "--preset", "sentinel-2-l2a", "--baseline", "05.09"]);
    assert!(told.contains("100 %"), "{told}");
}
