//! Satellite scenes of any size: cut into chips, made pixels for an encoder, and described for the files of the
//! geospatial world.
//!
//! A [`SceneSource`] is the [`Source`](dinov3_engine::Source) of a run: its keys are the chips of all scenes, each of which
//! knows the row ([`ChipRow`](dinov3_sink::ChipRow)) that it becomes. Nothing larger than a few chips and the decoded
//! blocks around them is ever in memory.
#![forbid(unsafe_code)]

pub use dinov3_geo as geo;
pub use dinov3_raster as raster;
pub use dinov3_stac as stac;

mod align;
mod aoi;
mod band_files;
mod catalogue;
mod cells;
mod cut;
mod dense;
mod error;
mod input;
mod mask;
mod mask_files;
mod measure;
mod overview;
mod pixels;
mod plan;
mod preset;
mod product;
mod radiometry;
mod remark;
mod resample;
mod scale;
mod scene;
mod source;

pub use align::AlignedGrid;
pub use aoi::AreaOfInterest;
pub use band_files::BandFiles;
pub use catalogue::{AssetChoice, Listed, is_catalogue, read_items};
pub use cut::{ChipGrid, Cut, Edges};
pub use dense::{DenseCut, DenseKey, DenseSource};
pub use error::SceneError;
pub use input::{SceneInput, tell_apart};
pub use mask::MaskValues;
pub use mask_files::find_masks;
pub use measure::{SampleKind, SceneStatistics};
pub use plan::{Division, assign, check_unchanged, place_on_curve, plan_units, scene_version, unit_name};
pub use preset::{DeclaredBaseline, Fit, Preset};
pub use product::{Baseline, Evidence, LandsatInstrument, LinearOfBands, ProductFacts};
pub use radiometry::Measured;
pub use remark::Remark;
pub use resample::Resampling;
pub use scale::{Calibration, Scale};
pub use scene::{Scene, SceneOptions, scene_name};
pub use source::{ChipKey, Demand, SceneSource, Survey, without_name};
