//! Rasters of features as Zarr v3, which xarray, zarr-python and GDAL (3.13) open.
//!
//! ```text
//! OUT.zarr/zarr.json             group: conventions geoemb:, spatial and proj, provenance, consolidated metadata
//!          embeddings/           (time, embedding, y, x): sharded, inner chunks of about 4 MB in C order, Blosc with ZSTD
//!          embeddings_POOL/      further poolings
//!          scales/, scales_POOL/ (time, y, x): only beside int8
//!          valid_fraction/       (time, y, x)
//!          x/, y/                centres of the cells
//!          time/                 only where the acquisition is known
//! ```
//!
//! With several scenes these stand in a group per scene. Cells without a vector are NaN, as bytes 0 with the scale NaN;
//! inner chunks and shards without any vector are not stored. Nothing in a store depends on a clock or on threads.
//!
//! The array is not called `embedding`: xarray takes an array with the name of a dimension for its coordinates.

mod blosc;
mod chips;
mod conventions;
mod parts;
mod shard;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use dinov3_geo::AffineTransform;
use dinov3_stac::uri_of;
use serde_json::{Map, Value, json};

use self::conventions::{array_attributes, group_attributes};
use self::shard::{ArrayKind, Chunking, ShardWriter};
use crate::atomic_folder::AtomicFolder;
use crate::element::{ElementType, quantized};
use crate::error::OutputError;
use crate::raster::{FeatureBlock, FeatureGrid, FeatureRaster, NorthUpRaster};

pub(crate) use self::chips::ChipStore;
pub use self::chips::{ChipStoreOptions, group_names};
pub(crate) use self::conventions::Cells;
pub use self::conventions::check_grid;
pub use self::parts::{ChipShards, MergedStore, ShardPlace};

/// Ending of the names of stores, without dot.
const EXTENSION: &str = "zarr";
const METADATA_FILE: &str = "zarr.json";
/// The caller's key of the provenance in the attributes of the root.
const PROVENANCE_KEY: &str = "dinov3";

/// Whether an output of this name is a Zarr store, and so a folder.
pub fn is_store_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION))
}

/// Whether this is a store that was written here, which may be replaced.
pub(crate) fn is_own_store(path: &Path) -> bool {
    let metadata = std::fs::read(path.join(METADATA_FILE)).ok();
    let metadata: Option<Value> = metadata.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    metadata.is_some_and(|metadata| metadata["attributes"][PROVENANCE_KEY].is_object())
}

/// What a store of dense features says beside them.
#[derive(Clone, Debug)]
pub struct DenseStoreOptions {
    /// A URI of the model.
    pub model: String,
    /// The scene: a path or a URL.
    pub source: String,
    /// Side of a cell in pixels of the scene: 16 where each is a patch.
    pub cell_px: f64,
    /// Acquisition, in microseconds since 1970-01-01T00:00:00Z.
    pub datetime_us: Option<i64>,
    /// How values are stored.
    pub element: ElementType,
}

/// Writes a raster of dense features as a store: `embeddings`, its scales beside bytes, and coordinates. `provenance`
/// goes into the attributes of the root.
///
/// # Errors
/// If the raster cannot be read or [stand in a store](check_grid), or the store cannot be written; what was there stays
/// then.
pub fn write_dense_store(
    path: &Path,
    raster: &mut dyn FeatureRaster,
    options: &DenseStoreOptions,
    provenance: Value,
) -> Result<(), OutputError> {
    let mut raster = NorthUpRaster::new(raster);
    let grid = raster.grid().clone();
    let facts = RasterFacts {
        cells: Cells::Patches,
        model: &options.model,
        sources: vec![uri_of(&options.source)],
        dims: raster.dims(),
        cell_bytes: raster.dims().saturating_mul(options.element.size_bytes()),
        pixel_m: pixel_m(&grid, options.cell_px),
        element: options.element,
        datetime_us: options.datetime_us,
    };
    let mut store = Store::create(path, None)?;
    store.begin("", &grid, &facts)?;
    store.vectors("", ("embeddings", "scales"), options.element, &mut raster)?;
    store.finish(provenance)
}

/// Side of a pixel of the scene in metres, of which a cell has so many to a side.
fn pixel_m(grid: &FeatureGrid, cell_px: f64) -> Option<f64> {
    let (cell_width, _) = grid.transform.pixel_size();
    grid.crs.metres_per_unit().map(|metres| metres * cell_width / cell_px)
}

/// A store in the making.
#[derive(Debug)]
pub(crate) struct Store {
    folder: AtomicFolder,
    groups: BTreeMap<String, Group>,
    /// Row and column of the only shard of each array that is written.
    only: Option<[usize; 2]>,
}

/// A raster of features, in the root of a store (its name is empty) or in a group of it.
#[derive(Debug)]
struct Group {
    grid: FeatureGrid,
    /// Of the array with the largest cells.
    chunking: Chunking,
    cell_bytes: usize,
    attributes: Value,
    /// `zarr.json` of each array, by name.
    arrays: BTreeMap<String, Value>,
}

/// What is said of a raster of features beside its vectors.
#[derive(Clone, Debug)]
pub(crate) struct RasterFacts<'a> {
    /// What a cell is.
    pub(crate) cells: Cells,
    /// A URI.
    pub(crate) model: &'a str,
    /// URIs.
    pub(crate) sources: Vec<String>,
    /// Values per cell of the first array of vectors.
    pub(crate) dims: usize,
    /// Bytes of a cell of the array that has the most.
    pub(crate) cell_bytes: usize,
    /// Side of a pixel of the source, in metres.
    pub(crate) pixel_m: Option<f64>,
    pub(crate) element: ElementType,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub(crate) datetime_us: Option<i64>,
}

impl Store {
    /// Starts a store, or the part of one that has a single shard of each array. Nothing is at `path` before
    /// [`Store::finish`].
    pub(crate) fn create(path: &Path, only: Option<[usize; 2]>) -> Result<Self, OutputError> {
        Ok(Self { folder: AtomicFolder::create(path)?, groups: BTreeMap::new(), only })
    }

    /// Begins a raster, in the root if `group` is empty.
    pub(crate) fn begin(
        &mut self,
        group: &str,
        grid: &FeatureGrid,
        facts: &RasterFacts<'_>,
    ) -> Result<(), OutputError> {
        let attributes = group_attributes(grid, facts).map_err(|problem| self.refused(problem))?;
        let (cell_bytes, chunking) = (facts.cell_bytes, Chunking::of_grid(grid, facts.cell_bytes));
        let begun = Group { grid: grid.clone(), chunking, cell_bytes, attributes, arrays: BTreeMap::new() };
        self.groups.insert(group.to_owned(), begun);
        let AffineTransform { a, c, e, f, .. } = grid.transform;
        let centres = |count: u32, first: f64, step: f64| -> Vec<f64> {
            (0..count).map(|number| step * (f64::from(number) + 0.5) + first).collect()
        };
        let [x, y] = conventions::axes(&grid.crs);
        self.coordinates(group, "x", &centres(grid.width_px, c, a), "float64", f64::to_le_bytes, x)?;
        self.coordinates(group, "y", &centres(grid.height_px, f, e), "float64", f64::to_le_bytes, y)?;
        if let Some(time) = facts.datetime_us {
            let attributes = json!({
                "standard_name": "time", "axis": "T",
                "units": "microseconds since 1970-01-01T00:00:00", "calendar": "proleptic_gregorian",
            });
            self.coordinates(group, "time", &[time], "int64", i64::to_le_bytes, attributes)?;
        }
        Ok(())
    }

    /// One chunk without compression: they are small.
    fn coordinates<T: Copy>(
        &mut self,
        group: &str,
        name: &str,
        values: &[T],
        data_type: &str,
        bytes: fn(T) -> [u8; 8],
        attributes: Value,
    ) -> Result<(), OutputError> {
        let content: Vec<u8> = values.iter().copied().flat_map(bytes).collect();
        self.write_file(&place(group, &format!("{name}/c/0")), &content)?;
        let metadata = json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": [values.len()],
            "data_type": data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [values.len()]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": if data_type == "float64" { json!("NaN") } else { json!(0) },
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "attributes": attributes,
            "dimension_names": [name],
        });
        self.keep(group, name, metadata)
    }

    /// Writes the vectors of a raster: (time, embedding, y, x). As bytes, their scales are `scales`, an array of its own.
    pub(crate) fn vectors(
        &mut self,
        group: &str,
        (name, scales): (&str, &str),
        element: ElementType,
        raster: &mut dyn FeatureRaster,
    ) -> Result<(), OutputError> {
        let leading = vec![(1, "time"), (raster.dims(), "embedding")];
        let scales = (element == ElementType::Int8).then_some(scales);
        self.array(group, name, scales, leading, element, raster)
    }

    /// Writes a raster of one number per cell: (time, y, x).
    pub(crate) fn numbers(
        &mut self,
        group: &str,
        name: &str,
        raster: &mut dyn FeatureRaster,
    ) -> Result<(), OutputError> {
        self.array(group, name, None, vec![(1, "time")], ElementType::F32, raster)
    }

    fn array(
        &mut self,
        group: &str,
        name: &str,
        scales: Option<&str>,
        leading: Vec<(usize, &'static str)>,
        element: ElementType,
        raster: &mut dyn FeatureRaster,
    ) -> Result<(), OutputError> {
        let Some(begun) = self.groups.get(group) else { return Err(OutputError::Closed) };
        let grid = begun.grid.clone();
        let dims = raster.dims();
        let cell_bytes = dims.saturating_mul(element.size_bytes());
        let chunking = match cell_bytes < begun.cell_bytes {
            true => begun.chunking.narrowed(cell_bytes),
            false => begun.chunking,
        };
        let mut arrays = Chunks::new(dims, chunking, element);
        let mut values = ShardWriter::new(ArrayKind { element, leading, chunking }, place(group, name));
        let scale_kind = ArrayKind { element: ElementType::F32, leading: vec![(1, "time")], chunking };
        let mut scale_writer = scales.map(|name| ShardWriter::new(scale_kind, place(group, name)));
        let mut block = FeatureBlock::default();
        let [rows, columns] = chunking.chunk.map(|side| side as u32);
        for window in grid.blocks(columns, rows) {
            let chunk = [window.y_px as usize / chunking.chunk[0], window.x_px as usize / chunking.chunk[1]];
            let shard = [0, 1].map(|axis| chunk[axis] / chunking.per_shard[axis]);
            if self.only.is_some_and(|only| only != shard) {
                continue;
            }
            raster.read(window, &mut block)?;
            let cells = window.width_px as usize * window.height_px as usize;
            if block.values.len() != cells * dims || block.valid.len() != cells {
                return Err(self.refused("a block of features has another size than its window"));
            }
            let filled = arrays.fill(&block);
            values.chunk(&mut self.folder, chunk, filled.then_some(&arrays.values))?;
            if let Some(writer) = &mut scale_writer {
                writer.chunk(&mut self.folder, chunk, filled.then_some(&arrays.scales))?;
            }
        }
        values.close(&mut self.folder)?;
        let attributes = array_attributes(&grid).map_err(|problem| self.refused(problem))?;
        self.keep(group, name, values.kind().metadata(attributes.clone()))?;
        if let (Some(name), Some(mut writer)) = (scales, scale_writer) {
            writer.close(&mut self.folder)?;
            self.keep(group, name, writer.kind().metadata(attributes))?;
        }
        Ok(())
    }

    /// Writes an array's metadata.
    fn keep(&mut self, group: &str, name: &str, metadata: Value) -> Result<(), OutputError> {
        self.write_metadata(&place(group, name), &metadata)?;
        if let Some(group) = self.groups.get_mut(group) {
            group.arrays.insert(name.to_owned(), metadata);
        }
        Ok(())
    }

    /// Completes the store, with this under `dinov3` in the attributes of its root, and makes it appear.
    pub(crate) fn finish(mut self, provenance: Value) -> Result<(), OutputError> {
        let mut attributes = Map::new();
        let mut all = Map::new();
        for (name, group) in std::mem::take(&mut self.groups) {
            let arrays: Map<String, Value> = group.arrays.into_iter().collect();
            if name.is_empty() {
                attributes.extend(group.attributes.as_object().cloned().unwrap_or_default());
                all.extend(arrays);
                continue;
            }
            for (array, metadata) in &arrays {
                all.insert(format!("{name}/{array}"), metadata.clone());
            }
            all.insert(name.clone(), group_metadata(group.attributes.clone(), Map::new()));
            self.write_metadata(&name, &group_metadata(group.attributes, arrays))?;
        }
        attributes.insert(PROVENANCE_KEY.to_owned(), provenance);
        self.write_metadata("", &group_metadata(Value::Object(attributes), all))?;
        self.folder.commit()
    }

    fn write_metadata(&mut self, node: &str, metadata: &Value) -> Result<(), OutputError> {
        self.write_file(&place(node, METADATA_FILE), &metadata_text(metadata))
    }

    fn write_file(&mut self, name: &str, content: &[u8]) -> Result<(), OutputError> {
        let mut file = self.folder.create_file(name)?;
        let mut write = || {
            file.write_all(content)?;
            file.sync()
        };
        write().map_err(OutputError::write(self.folder.path()))
    }

    fn refused(&self, problem: impl Into<String>) -> OutputError {
        OutputError::Grid { path: self.folder.path().to_owned(), problem: problem.into() }
    }
}

/// What is in a `zarr.json`: the same for the same metadata.
fn metadata_text(metadata: &Value) -> Vec<u8> {
    format!("{metadata:#}\n").into_bytes()
}

/// A group's `zarr.json`. Consolidated inside of it, so that a reader over HTTP fetches one file.
fn group_metadata(attributes: Value, nodes: Map<String, Value>) -> Value {
    let consolidated = json!({"kind": "inline", "must_understand": false, "metadata": nodes});
    json!({"zarr_format": 3, "node_type": "group", "attributes": attributes, "consolidated_metadata": consolidated})
}

fn place(group: &str, name: &str) -> String {
    match group {
        "" => name.to_owned(),
        group => format!("{group}/{name}"),
    }
}

/// An inner chunk of vectors, and one of their scales.
struct Chunks {
    dims: usize,
    chunking: Chunking,
    element: ElementType,
    values: Vec<u8>,
    scales: Vec<u8>,
    bytes: Vec<i8>,
}

impl Chunks {
    fn new(dims: usize, chunking: Chunking, element: ElementType) -> Self {
        Self { dims, chunking, element, values: Vec::new(), scales: Vec::new(), bytes: Vec::new() }
    }

    /// Takes the cells of a block, with the values of a cell as far apart as there are cells in a chunk. Says whether
    /// any of them holds data.
    fn fill(&mut self, block: &FeatureBlock) -> bool {
        if !block.valid.contains(&true) {
            return false;
        }
        let [rows, columns] = self.chunking.chunk;
        let cells = rows * columns;
        let repeat = |values: &mut Vec<u8>, pattern: &[u8], count: usize| {
            values.clear();
            values.extend(pattern.iter().copied().cycle().take(count * pattern.len()));
        };
        let nan = f32::NAN.to_le_bytes();
        let half_nan = half::f16::NAN.to_le_bytes();
        let fill: &[u8] = match self.element {
            ElementType::F32 => &nan,
            ElementType::F16 => &half_nan,
            ElementType::Int8 => &[0],
        };
        repeat(&mut self.values, fill, cells * self.dims);
        if self.element == ElementType::Int8 {
            repeat(&mut self.scales, &nan, cells);
        }
        for (number, vector) in block.values.chunks_exact(self.dims.max(1)).enumerate() {
            if !block.valid[number] {
                continue;
            }
            let width = block.width_px as usize;
            let cell = number / width * columns + number % width;
            match self.element {
                ElementType::F32 => {
                    for (plane, value) in self.values.chunks_exact_mut(4 * cells).zip(vector) {
                        plane[4 * cell..][..4].copy_from_slice(&value.to_le_bytes());
                    }
                }
                ElementType::F16 => {
                    for (plane, value) in self.values.chunks_exact_mut(2 * cells).zip(vector) {
                        plane[2 * cell..][..2].copy_from_slice(&half::f16::from_f32(*value).to_le_bytes());
                    }
                }
                ElementType::Int8 => {
                    self.bytes.clear();
                    let scale = quantized(vector, &mut self.bytes);
                    self.scales[4 * cell..][..4].copy_from_slice(&scale.to_le_bytes());
                    for (plane, byte) in self.values.chunks_exact_mut(cells).zip(&self.bytes) {
                        plane[cell] = *byte as u8;
                    }
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
