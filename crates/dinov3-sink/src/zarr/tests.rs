//! Stores: what is in them, read without the code that wrote them, and that they are whole or not there.

use std::fs;
use std::path::{Path, PathBuf};

use dinov3_geo::{AffineTransform, Crs};
use serde_json::{Value, json};

use super::*;
use crate::atomic::remove_leftovers;
use crate::disk::faults::{self, Fault};
use crate::raster::ArrayRaster;
use crate::tests::Folder;

fn grid(width_px: u32, height_px: u32) -> FeatureGrid {
    let transform = AffineTransform::unrotated(500_000.0, 4_000_000.0, 160.0, -160.0);
    FeatureGrid { width_px, height_px, transform, crs: Crs::from_epsg(32633).unwrap() }
}

/// A value that says where it is; some cells hold nothing.
fn value(row: usize, column: usize, dim: usize) -> f32 {
    match (row + column).is_multiple_of(7) {
        true => f32::NAN,
        false => (row * 1000 + column) as f32 - dim as f32 / 64.0,
    }
}

fn raster(width_px: u32, height_px: u32, dims: usize) -> ArrayRaster {
    let cells = (0..height_px as usize).flat_map(|row| (0..width_px as usize).map(move |column| (row, column)));
    let values = cells.flat_map(|(row, column)| (0..dims).map(move |dim| value(row, column, dim)));
    ArrayRaster::new(grid(width_px, height_px), dims, values.collect())
}

fn options(element: ElementType) -> DenseStoreOptions {
    DenseStoreOptions {
        model: "https://example.org/model".to_owned(),
        source: "https://example.org/scene.tif".to_owned(),
        cell_px: 16.0,
        datetime_us: Some(1),
        element,
    }
}

fn write(path: &Path, raster: &mut ArrayRaster, element: ElementType) -> Result<(), OutputError> {
    write_dense_store(path, raster, &options(element), json!({"model": "toy"}))
}

fn metadata(node: &Path) -> Value {
    serde_json::from_slice(&fs::read(node.join(METADATA_FILE)).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

/// All bytes of an array in C order, as its own metadata say, and how many shards there are.
fn bytes_of(array: &Path, value_bytes: usize) -> (Vec<u8>, usize) {
    let metadata = metadata(array);
    let shape = numbers(&metadata["shape"]);
    let shard = numbers(&metadata["chunk_grid"]["configuration"]["chunk_shape"]);
    let chunk = numbers(&metadata["codecs"][0]["configuration"]["chunk_shape"]);
    let axes = shape.len();
    let (y_axis, x_axis) = (axes - 2, axes - 1);
    let planes: usize = shape[..y_axis].iter().product();
    let mut out = vec![0xee; shape.iter().product::<usize>() * value_bytes];
    let mut shards = 0;
    let inner = [shard[y_axis] / chunk[y_axis], shard[x_axis] / chunk[x_axis]];
    for row in 0..shape[y_axis].div_ceil(shard[y_axis]) {
        for column in 0..shape[x_axis].div_ceil(shard[x_axis]) {
            let place = array.join(format!("c{}/{row}/{column}", "/0".repeat(y_axis)));
            let Ok(file) = fs::read(place) else { continue };
            shards += 1;
            let index = &file[file.len() - 4 - 16 * inner[0] * inner[1]..file.len() - 4];
            let mut end = 0;
            for (number, entry) in index.chunks(16).enumerate() {
                let [start, length] = [0, 8].map(|at| u64::from_le_bytes(*entry[at..].first_chunk().unwrap()));
                if start == u64::MAX {
                    continue;
                }
                // One after the other, in C order.
                assert_eq!(start, end);
                end += length;
                let values = blosc::decompressed(&file[start as usize..end as usize]);
                let first = [
                    row * shard[y_axis] + number / inner[1] * chunk[y_axis],
                    column * shard[x_axis] + number % inner[1] * chunk[x_axis],
                ];
                for (cell, bytes) in values.chunks(value_bytes).enumerate() {
                    let (plane, rest) =
                        (cell / (chunk[y_axis] * chunk[x_axis]), cell % (chunk[y_axis] * chunk[x_axis]));
                    let (y, x) = (first[0] + rest / chunk[x_axis], first[1] + rest % chunk[x_axis]);
                    if y < shape[y_axis] && x < shape[x_axis] {
                        let at = (plane * shape[y_axis] + y) * shape[x_axis] + x;
                        out[at * value_bytes..][..value_bytes].copy_from_slice(bytes);
                    }
                }
            }
            assert_eq!(end as usize, file.len() - 4 - index.len());
        }
    }
    assert_eq!(out.len(), planes * shape[y_axis] * shape[x_axis] * value_bytes);
    (out, shards)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Every file and folder, and what is in files.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(tree(&path)),
            path => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn vectors_come_back_from_several_shards() {
    let folder = Folder::new("zarr-shards");
    let store = folder.at("out.zarr");
    // So long that inner chunks have 3 x 8 cells and shards 3 x 72.
    let (width, height, dims) = (150, 3, 16_384);
    write(&store, &mut raster(width, height, dims), ElementType::F32).unwrap();
    let (bytes, shards) = bytes_of(&store.join("embeddings"), 4);
    assert_eq!(shards, 3);
    let (width, height) = (width as usize, height as usize);
    for (at, found) in floats(&bytes).into_iter().enumerate() {
        let expected = value(at / width % height, at % width, at / width / height);
        assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{at}");
    }
}

#[test]
fn halves_and_bytes_are_the_nearest_ones() {
    let folder = Folder::new("zarr-elements");
    let (width, height, dims) = (9, 5, 6);
    let cell = |at: usize| (at / width % height, at % width);
    let store = folder.at("f16.zarr");
    write(&store, &mut raster(9, 5, dims), ElementType::F16).unwrap();
    for (at, bytes) in bytes_of(&store.join("embeddings"), 2).0.chunks(2).enumerate() {
        let (row, column) = cell(at);
        let found = half::f16::from_le_bytes(bytes.try_into().unwrap());
        let expected = half::f16::from_f32(value(row, column, at / (width * height)));
        assert!(found == expected || found.is_nan() && expected.is_nan());
    }
    let store = folder.at("int8.zarr");
    write(&store, &mut raster(9, 5, dims), ElementType::Int8).unwrap();
    let scales = floats(&bytes_of(&store.join("scales"), 4).0);
    for (at, byte) in bytes_of(&store.join("embeddings"), 1).0.into_iter().enumerate() {
        let (row, column) = cell(at);
        let (scale, expected) = (scales[row * width + column], value(row, column, at / (width * height)));
        match expected.is_nan() {
            true => assert!(scale.is_nan() && byte == 0),
            false => assert!((f32::from(byte as i8) * scale - expected).abs() <= scale * 0.5001),
        }
    }
    let attributes = &metadata(&store)["attributes"];
    assert_eq!(attributes["geoemb:quantization"]["scale"]["array_name"], "scales");
    assert_eq!(attributes["geoemb:data_type"], "int8");
}

#[test]
fn metadata_are_consolidated_and_say_where_cells_lie() {
    let folder = Folder::new("zarr-metadata");
    let store = folder.at("out.zarr");
    write(&store, &mut raster(9, 5, 6), ElementType::F32).unwrap();
    let root = metadata(&store);
    let nodes = root["consolidated_metadata"]["metadata"].as_object().unwrap();
    assert_eq!(nodes.keys().collect::<Vec<_>>(), ["embeddings", "time", "x", "y"]);
    for (name, node) in nodes {
        assert_eq!(*node, metadata(&store.join(name)));
    }
    let attributes = &root["attributes"];
    assert_eq!(attributes["dinov3"], json!({"model": "toy"}));
    assert_eq!(attributes["geoemb:type"], "pixel");
    assert_eq!(attributes["geoemb:gsd"], 10.0);
    assert_eq!(attributes["proj:code"], "EPSG:32633");
    assert_eq!(attributes["spatial:bbox"], json!([500_000.0, 3_999_200.0, 501_440.0, 4_000_000.0]));
    let x = fs::read(store.join("x/c/0")).unwrap();
    assert_eq!(x[..8], 500_080f64.to_le_bytes());
}

#[test]
fn cells_without_vectors_are_not_stored() {
    let folder = Folder::new("zarr-empty");
    let store = folder.at("out.zarr");
    write(&store, &mut ArrayRaster::new(grid(40, 40), 3, Vec::new()), ElementType::F32).unwrap();
    assert!(!store.join("embeddings/c").exists() && store.join("embeddings/zarr.json").exists());
}

#[test]
fn rasters_that_cannot_be_named_or_are_rotated_are_refused() {
    let folder = Folder::new("zarr-refused");
    let refused = |crs: &str, b: f64| {
        let transform = AffineTransform { b, ..grid(2, 2).transform };
        let crs = if crs.starts_with('+') { Crs::from_proj(crs) } else { crs.parse() };
        let grid = FeatureGrid { transform, crs: crs.unwrap(), ..grid(2, 2) };
        let error = write(&folder.at("out.zarr"), &mut ArrayRaster::new(grid, 1, vec![1.0; 4]), ElementType::F32);
        error.unwrap_err().to_string()
    };
    assert!(refused("EPSG:32633", 1.0).contains("gdalwarp"));
    assert!(refused("+proj=tmerc +lon_0=15 +ellps=bessel +towgs84=598,73,418", 0.0).contains("--crs EPSG"));
    assert!(tree(&folder.at(".")).is_empty());
}

#[test]
fn a_system_without_a_code_is_written_out() {
    let folder = Folder::new("zarr-wkt2");
    let crs = Crs::from_proj("+proj=laea +lat_0=52 +lon_0=10 +datum=WGS84").unwrap();
    let grid = FeatureGrid { crs, ..grid(2, 2) };
    let store = folder.at("out.zarr");
    write(&store, &mut ArrayRaster::new(grid, 1, vec![1.0; 4]), ElementType::F32).unwrap();
    for node in [&store, &store.join("embeddings")] {
        let attributes = &metadata(node)["attributes"];
        assert!(attributes["proj:wkt2"].as_str().unwrap().starts_with("PROJCRS[") && attributes["proj:code"].is_null());
    }
}

#[test]
fn what_is_no_store_of_ours_is_never_replaced() {
    let folder = Folder::new("zarr-others");
    let (store, mut cells) = (folder.at("out.zarr"), raster(3, 2, 2));
    fs::create_dir(&store).unwrap();
    for content in [None, Some("{}"), Some("{\"zarr_format\": 3, \"attributes\": {\"dinov3\": 1}}")] {
        if let Some(content) = content {
            fs::write(store.join(METADATA_FILE), content).unwrap();
        }
        let error = write(&store, &mut cells, ElementType::F32).unwrap_err();
        assert!(matches!(error, OutputError::NotAStore { .. }), "{error}");
    }
    fs::remove_dir_all(&store).unwrap();
    write(&store, &mut cells, ElementType::F32).unwrap();
    write(&store, &mut cells, ElementType::F32).unwrap();
    assert_eq!(fs::read_dir(folder.at(".")).unwrap().count(), 1);
}

#[test]
fn whatever_fails_the_old_store_or_the_new_one_is_there() {
    let folder = Folder::new("zarr-faults");
    let store = folder.at("out.zarr");
    write(&store, &mut raster(4, 3, 2), ElementType::F32).unwrap();
    let old = tree(&store);
    write(&store, &mut raster(5, 3, 2), ElementType::Int8).unwrap();
    let new = tree(&store);
    for fault in [Fault::Once, Fault::FullDisk, Fault::ShortWrite, Fault::Dead] {
        for operations in 0.. {
            write(&store, &mut raster(4, 3, 2), ElementType::F32).unwrap();
            faults::plan(fault, operations);
            let result = write(&store, &mut raster(5, 3, 2), ElementType::Int8);
            let reached = faults::end();
            let found = tree(&store);
            let is_new = found == new;
            assert!(is_new || found == old, "{fault:?} at {operations}");
            assert!(is_new || result.is_err(), "{fault:?} at {operations}");
            remove_leftovers(&store);
            assert_eq!(fs::read_dir(folder.at(".")).unwrap().count(), 1, "{fault:?} at {operations}");
            assert_eq!(tree(&store), found, "{fault:?} at {operations}");
            if !reached {
                assert!(operations > 20, "{operations}");
                break;
            }
        }
    }
}
