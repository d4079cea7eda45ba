//! `dinov3 scene`: chips at a ground sample distance, in an area of interest, on the cells of a grid.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.

mod common;

use common::chips::{provenance, rows, text, windows};
use common::{Scene, stderr, stdout};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use serde_json::Value;
use snapbox::cmd::Command;
use snapbox::str;

/// 100 x 70 pixels of 10 m, in UTM zone 33, with this upper left corner.
fn rgb_at(x: f64, y: f64) -> TiffImage {
    let corner = (33922, TiffValue::Double(vec![0.0, 0.0, 0.0, x, y, 0.0]));
    let tags = utm_tags().into_iter().map(|tag| if tag.0 == corner.0 { corner.clone() } else { tag });
    TiffImage { tags: tags.chain([(262, TiffValue::Short(vec![2]))]).collect(), ..TiffImage::default() }
}

fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("rgb.tif", TiffFile::of(rgb_at(399_960.0, 4_200_000.0)).to_bytes());
    scene
}

fn embed(scene: &Scene, line: &str) -> Command {
    scene.dinov3(&format!("scene embed {line} -m tiny.json --weights synthetic:7 --chip 32"))
}

/// What a run said, without what every run says.
fn told(output: &snapbox::cmd::OutputAssert) -> String {
    let lines = stderr(output);
    let own = |line: &&str| !line.contains("was trained on pictures of the web") && !line.contains(" chips/s");
    lines.lines().filter(own).map(|line| format!("{line}\n")).collect()
}

/// Ids of cells with the valid windows of their chips.
fn cells(scene: &Scene, name: &str) -> Vec<(String, [i32; 4])> {
    let rows = rows(scene, name);
    let cell = |row: &parquet::record::Row| (text(row, "grid_cell"), windows(std::slice::from_ref(row))[0]);
    let mut cells: Vec<_> = rows.iter().map(cell).collect();
    cells.sort();
    cells
}

#[test]
fn a_scene_is_resampled_before_it_is_cut() {
    let scene = scene();
    let output = embed(&scene, "rgb.tif --gsd 20 -o chips.parquet").assert().code(0);
    assert_eq!(told(&output), "");
    let rows = rows(&scene, "chips.parquet");
    // 50 x 35 pixels of 20 m.
    assert_eq!(windows(&rows), [[0, 0, 32, 32], [32, 0, 18, 32], [0, 32, 32, 3], [32, 32, 18, 3]]);
    assert!(rows.iter().any(|row| text(row, "id") == "rgb.tif#xywh=32,0,32,32&gsd=20"));
    let found = provenance(&scene, "chips.parquet");
    assert_eq!(found["scene"]["gsd_m"], 20.0);
    assert_eq!(found["scenes"][0]["resampled"]["source_gsd_m"], serde_json::json!([10.0, 10.0]));
    assert_eq!(found["scenes"][0]["resampled"]["factor"], serde_json::json!([2.0, 2.0]));
}

#[test]
fn upsampling_is_told_and_what_needs_no_resampling_too() {
    let scene = scene();
    let output = embed(&scene, "rgb.tif --gsd 4 --edges drop -o chips.parquet").assert().code(0);
    snapbox::assert_data_eq!(
        told(&output),
        str![[r#"
warning: rgb.tif has pixels of 10.000 x 10.000 m: --gsd 4 makes 2.5 of each along a side, which adds no detail

"#]]
    );
    let output = embed(&scene, "rgb.tif --gsd 10 -o same.parquet").assert().code(0);
    snapbox::assert_data_eq!(
        told(&output),
        str![[r#"
note: rgb.tif has pixels of 10 m already: nothing is resampled

"#]]
    );
    assert_eq!(rows(&scene, "same.parquet").len(), 12);
    assert!(rows(&scene, "same.parquet").iter().all(|row| !text(row, "id").contains("gsd")));
    let wrong = embed(&scene, "rgb.tif --gsd 0 -o chips.parquet").assert().code(2);
    assert!(stderr(&wrong).contains("expected metres, such as 0.6"));
}

#[test]
fn info_tells_how_a_scene_would_be_cut() {
    let scene = scene();
    let output = scene.dinov3("scene info rgb.tif --gsd 20 --chip 16 --grid utm").assert().code(0).stderr_eq("");
    let lines = stdout(&output);
    for line in [
        "size              100 x 70 px\n",
        "pixel             20 x 20 metres\n",
        "chips             [..] of 16 x 16 px on the blocks of utm, 320 m, edges pad\n",
        "resampled         to 50 x 35 px of 20 m, from 10.000 x 10.000 m\n",
    ] {
        let (start, end) = line.split_once("[..]").unwrap_or((line, ""));
        assert!(
            lines.lines().any(|found| format!("{found}\n").starts_with(start) && format!("{found}\n").ends_with(end)),
            "{line}{lines}"
        );
    }
    let json = scene.dinov3("scene info rgb.tif --gsd 20 --chip 16 --grid utm --json").assert().code(0);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!((&json["grid"], &json["block_side_m"]), (&"utm".into(), &320.0.into()));
    assert_eq!(json["resampled"]["factor"], serde_json::json!([2.0, 2.0]));
    assert_eq!(json["width_px"], 50);
}

/// Around pixels 40 to 60, 5 to 20 of the scene: in longitude and latitude.
const CORNER: &str = r#"{"type":"Feature","properties":{},"geometry":{"type":"Polygon","coordinates":[[
    [13.866,37.9408],[13.8683,37.9408],[13.8683,37.9421],[13.866,37.9421],[13.866,37.9408]]]}}"#;

#[test]
fn only_chips_in_the_area_of_interest_are_cut() {
    let scene = scene();
    scene.file("area.geojson", CORNER);
    let output = embed(&scene, "rgb.tif --aoi area.geojson -o chips.parquet").assert().code(0);
    assert_eq!(told(&output), "");
    assert_eq!(windows(&rows(&scene, "chips.parquet")), [[32, 0, 32, 32]]);
    let sha256 = provenance(&scene, "chips.parquet")["scene"]["aoi_sha256"].clone();
    assert_eq!(sha256.as_str().unwrap().len(), 64);
    let info = scene.dinov3("scene info rgb.tif --chip 32 --aoi area.geojson").assert().code(0);
    assert!(
        stdout(&info).contains("chips             1 of 32 x 32 px every 32 px, edges pad, in the area of interest")
    );
}

#[test]
fn an_area_without_chips_is_said_and_no_error() {
    let scene = scene();
    scene.file("far.tif", TiffFile::of(rgb_at(499_960.0, 4_300_000.0)).to_bytes());
    scene.file("area.geojson", CORNER);
    let output = embed(&scene, "rgb.tif far.tif --aoi area.geojson -o chips.parquet").assert().code(0);
    snapbox::assert_data_eq!(
        told(&output),
        str![[r#"
note: far.tif has no chip in the area of interest

"#]]
    );
    assert_eq!(rows(&scene, "chips.parquet").len(), 1);
    let output = embed(&scene, "far.tif --aoi area.geojson -o none.parquet").assert().code(0);
    snapbox::assert_data_eq!(
        told(&output),
        str![[r#"
note: far.tif has no chip in the area of interest
note: no chip of any scene lies in the area of interest: the output has no rows

"#]]
    );
    assert_eq!(rows(&scene, "none.parquet").len(), 0);
    scene.file("point.geojson", r#"{"type":"Point","coordinates":[13,37]}"#);
    embed(&scene, "rgb.tif --aoi point.geojson -o chips.parquet").assert().code(1).stderr_eq(str![[r#"
error: point.geojson holds a Point, and areas are polygons

"#]]);
    scene.file(
        "metres.geojson",
        r#"{"type":"Polygon","coordinates":[[[400000,4000000],[400010,4000000],[400010,4000010]]]}"#,
    );
    embed(&scene, "rgb.tif --aoi metres.geojson -o chips.parquet").assert().code(1).stderr_eq(str![[r#"
error: metres.geojson a longitude of the area is 400000, expected -180 to 180

"#]]);
}

#[test]
fn two_dates_fall_on_the_same_blocks() {
    let scene = scene();
    let mut found = Vec::new();
    for (date, (x, y)) in [(0.0, 0.0), (3.1, -4.9), (-4.2, 2.5)].into_iter().enumerate() {
        scene.file("date.tif", TiffFile::of(rgb_at(399_960.0 + x, 4_200_000.0 + y)).to_bytes());
        let output = embed(&scene, &format!("date.tif --grid utm -o {date}.parquet")).assert().code(0);
        assert_eq!(told(&output), "");
        found.push(cells(&scene, &format!("{date}.parquet")));
    }
    // Blocks of 320 m: the first from 399680 (1249) on, 28 pixels before the scene, the next from pixel 4 on.
    assert_eq!(found[0][0].0, "32633_320m_1250_13123");
    assert_eq!(found[0].len(), 6, "{:?}", found[0]);
    for date in &found[1..] {
        for ((cell, window), (other, moved)) in found[0].iter().zip(date) {
            assert_eq!(cell, other);
            // Whole windows start within half a pixel of the block, so within one of each other.
            assert!(
                window.iter().zip(moved).all(|(one, other)| one.abs_diff(*other) <= 1),
                "{cell}: {window:?} {moved:?}"
            );
        }
        assert_eq!(date.len(), found[0].len());
    }
}

#[test]
fn cells_of_major_tom_are_cut_in_their_own_zone_only() {
    let scene = scene();
    let output = embed(&scene, "rgb.tif --grid major-tom:0.32 --min-valid 0.9 -o cells.parquet").assert().code(0);
    assert_eq!(told(&output), "");
    let found = cells(&scene, "cells.parquet");
    assert!(!found.is_empty() && found.iter().all(|(_, window)| window[2] >= 28), "{found:?}");
    let names: std::collections::BTreeSet<_> = found.iter().map(|(cell, _)| cell).collect();
    assert_eq!(names.len(), found.len());
    let output = embed(&scene, "rgb.tif --grid major-tom:0.6 -o few.parquet").assert().code(0);
    snapbox::assert_data_eq!(
        told(&output),
        str![[r#"
note: rgb.tif is cut into chips of 320.0 m, one in the corner of each cell of 600 m: the rest of the ground is left out (--grid major-tom:0.320 would not)

"#]]
    );
    scene.file("degrees.tif", TiffFile::of(degrees()).to_bytes());
    embed(&scene, "degrees.tif --grid major-tom -o no.parquet").assert().code(1).stderr_eq(str![[r#"
error: degrees.tif is in EPSG:4326, which is no UTM zone: cells of Major TOM are not in its coordinates; --grid-id major-tom:10 names them

"#]]);
    embed(&scene, "rgb.tif --grid h3:9 -o no.parquet").assert().code(2).stderr_eq(str![[r#"
error: invalid value 'h3:9' for '--grid <GRID>': chips cannot be cut on it; --grid-id h3:9 names the cell of each chip

For more information, try '--help'.

"#]]);
    embed(&scene, "rgb.tif --grid utm --edges shift -o no.parquet").assert().code(2).stderr_eq(str![[r#"
error: --edges shift: chips on the cells of a grid stay where they are; pad or drop them

"#]]);
    embed(&scene, "rgb.tif --grid utm --stride 16 -o no.parquet").assert().code(2);
}

/// Pixels of a ten-thousandth of a degree.
fn degrees() -> TiffImage {
    TiffImage {
        tags: vec![
            (262, TiffValue::Short(vec![2])),
            (33550, TiffValue::Double(vec![1e-4, 1e-4, 0.0])),
            (33922, TiffValue::Double(vec![0.0, 0.0, 0.0, 13.0, 52.0, 0.0])),
            (34735, TiffValue::Short(vec![1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326])),
        ],
        ..TiffImage::default()
    }
}

#[test]
fn chips_anywhere_have_the_cell_of_their_middle() {
    let scene = scene();
    scene.file("degrees.tif", TiffFile::of(degrees()).to_bytes());
    for (grid, start) in
        [("major-tom", "578U_"), ("h3:7", "871"), ("web-mercator:14", "14/878"), ("utm:1000", "32633_1000m_3")]
    {
        embed(&scene, &format!("degrees.tif --grid-id {grid} -o chips.parquet")).assert().code(0);
        let found = cells(&scene, "chips.parquet");
        assert_eq!(found.len(), 12);
        assert!(found.iter().all(|(cell, _)| cell.starts_with(start)), "{grid}: {found:?}");
        assert!(provenance(&scene, "chips.parquet")["scene"]["grid_id"].as_str().unwrap().starts_with(grid));
    }
}

#[test]
fn a_run_on_a_grid_continues_to_the_same_bytes_in_any_strips() {
    let scene = scene();
    scene.file("area.geojson", CORNER);
    for options in ["--gsd 15 --aoi area.geojson", "--grid major-tom:0.2", "--gsd 7 --grid utm"] {
        embed(&scene, &format!("rgb.tif {options} -o one.parquet")).assert().code(0);
        embed(&scene, &format!("rgb.tif {options} --block-cache 3K -o two.parquet")).assert().code(0);
        assert!(!rows(&scene, "one.parquet").is_empty(), "{options}");
        let bytes = |name: &str| std::fs::read(scene.path(name)).unwrap();
        assert!(bytes("one.parquet") == bytes("two.parquet"), "{options}");
    }
}
