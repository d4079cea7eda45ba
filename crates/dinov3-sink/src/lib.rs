//! Output files: embeddings as Parquet, npy, safetensors or JSON lines ([`EmbeddingSink`]), feature maps as
//! safetensors or npy ([`write_features_safetensors`], [`write_npy`]).
//!
//! What this room does: it lays rows out in files that other tools read, says in them where they come from, and
//! makes them appear whole or not at all ([`AtomicFile`]). Memory stays bounded however long the run. What it does
//! not know: images, models' weights, and what is in the provenance beyond what it adds itself.
//!
//! # What is in an embedding file
//!
//! One row per image, in input order: its name ([`RowName`]) and one vector of f32 per column. The first requested
//! pooling is the column `embedding`, a further one `embedding_` and timm's name (`embedding_token`), class scores
//! are `logits`. Images that failed have no row (in JSON lines: a line with `error`).
//!
//! The provenance is the caller's JSON object, to which the sink adds `columns` (what each column is), `counts`
//! (`done`, `failed`), `failures` (`path`, `error`) and, if the caller set none, `schema`: 1.
//!
//! | Format | Rows | Provenance |
//! |---|---|---|
//! | `.parquet` | `path` and one FixedSizeList column per vector; ZSTD, byte-stream-split | file metadata `dinov3` |
//! | `.npy` | `[N, D]`; exactly one column | beside it, `NAME.npy.json`, with `paths` and `failures` |
//! | `.safetensors` | one `[N, D]` tensor per column | metadata `dinov3`; metadata `paths` has the names |
//! | `.jsonl` | one object per line; NaN and infinities are `null`, because JSON has no word for them | `NAME.jsonl.json` |
//! | `-` | JSON lines to standard output, each as soon as it is there | nowhere |
//!
//! # What is in a file of chips
//!
//! [`ChipSink`] writes windows of scenes ([`ChipRow`]) as GeoParquet 1.1, in the order of their Hilbert index:
//!
//! | Column | Type | What it is |
//! |---|---|---|
//! | `id` | string | names the chip |
//! | `geometry` | WKB | footprint in longitude and latitude (OGC:CRS84), counterclockwise; MultiPolygon at the antimeridian |
//! | `bbox` | struct of four doubles | `xmin`, `ymin`, `xmax`, `ymax`, the covering; -180 to 180 for what crosses the antimeridian |
//! | `datetime` | timestamp, µs, UTC | acquisition, or null |
//! | `source` | string | link to the scene |
//! | `epsg` | int32 | of the grid that was cut, or null |
//! | `x_px`, `y_px`, `width_px`, `height_px` | int32 | valid window, without padding, in pixels of that grid |
//! | `grid_cell` | string | only if announced ([`ChipColumns`]) |
//! | `valid_fraction` | float | share of pixels that are data |
//! | `stac_item` | string | only if announced |
//! | `embedding`, ... | FixedSizeList of float, D | as above |
//!
//! File metadata: `geo`, `emb` if given, and the provenance under `dinov3`. A file without chips is valid, too. Row
//! groups have about 128 MB, and the page index tells which pages a box can lie in.
//!
//! # Runs that are interrupted
//!
//! A [`Journal`] beside the output keeps the rows of a run that did not come to its end; [`JournaledSource`] and
//! [`JournaledSink`] around a run's two ends write it and continue from it.
//!
//! ```
//! use dinov3_engine::{ImageFeatures, Sink, Summary};
//! use dinov3_model::array::Array;
//! use dinov3_model::encoder::{Features, Pooling};
//! use dinov3_sink::{EmbeddingLayout, EmbeddingSink};
//!
//! let mut features = Features::default();
//! features.count = 1;
//! features.pooled = vec![(Pooling::Average, Array { shape: vec![1, 2], data: vec![0.5, -1.0] })];
//!
//! let folder = std::env::temp_dir().join(format!("dinov3-sink-doctest-{}", std::process::id()));
//! std::fs::create_dir_all(&folder)?;
//! let path = folder.join("embeddings.jsonl");
//! let layout = EmbeddingLayout::new(&[Pooling::Average], 2, None)?;
//! let mut sink = EmbeddingSink::open(&path, layout, Box::new(|_| serde_json::json!({"model": "toy"})))?;
//! let image = ImageFeatures::new(&features, 0).ok_or("no such image")?;
//! sink.write(&"cat.jpg", image)?;
//! assert!(!path.exists(), "appears only when it is finished");
//! Sink::<&str>::finish(&mut sink, &Summary::default())?;
//! assert_eq!(std::fs::read_to_string(&path)?, "{\"path\":\"cat.jpg\",\"embedding\":[0.5,-1.0]}\n");
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod atomic;
mod atomic_folder;
mod chip;
mod chip_file;
mod chips;
mod cog;
mod components;
mod disk;
mod element;
mod embedding;
mod error;
mod features;
mod geoparquet;
mod journal;
mod journaled;
mod json_lines;
mod layout;
mod name;
mod npy;
mod parquet;
mod patches;
mod raster;
mod records;
mod safetensors;
mod spill;
mod table;
#[cfg(test)]
mod tests;
mod untrusted;
mod work_list;
mod zarr;

pub use atomic::AtomicFile;
pub use atomic_folder::move_file;
pub use chip::{Chip, ChipCell, ChipFootprint, ChipRow};
pub use chip_file::{ChipFile, ChipFileError, ChipVectors};
pub use chips::ChipSink;
pub use cog::{CogFile, CogOptions, CogSample, check_reference_system};
pub use components::{fit_components, write_components_picture};
pub use element::ElementType;
pub use embedding::{EmbeddingSink, Format, Provenance};
pub use error::OutputError;
pub use features::{write_features_safetensors, write_npy};
pub use geoparquet::ChipColumns;
pub use journal::{Journal, JournalError, KnownRows, Stamp, remove_journal};
pub use journaled::{JournalKey, JournaledSink, JournaledSource, Stamped};
pub use layout::{Column, ColumnContent, EmbeddingLayout};
pub use name::{RowName, row_name_bytes, safe_stem};
pub use patches::{PatchSink, PatchWindow, PatchWindows, WriteRaster};
pub use raster::{ArrayRaster, FeatureBlock, FeatureGrid, FeatureRaster, NorthUpRaster, ReducedRaster};
pub use records::RecordSink;
pub use untrusted::read_untrusted_parquet;
pub use work_list::{WorkUnit, parse_work_list, read_work_list, write_work_list};
pub use zarr::{
    ChipShards, ChipStoreOptions, DenseStoreOptions, MergedStore, ShardPlace, check_grid, group_names, is_store_name,
    write_dense_store,
};
