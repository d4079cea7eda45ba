//! Satellite scenes of any size: cut into chips, made pixels for an encoder, and described for the files of the
//! geospatial world.
//!
//! A [`SceneSource`] is the [`Source`](dinov3_engine::Source) of a run: its keys are the chips of all scenes, each of which
//! knows the row ([`ChipRow`](dinov3_sink::ChipRow)) that it becomes. Nothing larger than a few chips and the decoded
//! blocks around them is ever in memory.
#![forbid(unsafe_code)]

pub use dinov3_geo as geo;
pub use dinov3_raster as raster;

mod cut;
mod dense;
mod error;
mod input;
mod overview;
mod pixels;
mod scale;
mod scene;
mod source;

pub use cut::{ChipGrid, Cut, Edges};
pub use dense::{DenseCut, DenseKey, DenseSource};
pub use error::SceneError;
pub use input::SceneInput;
pub use scale::Scale;
pub use scene::{Scene, SceneOptions, scene_name};
pub use source::{ChipKey, SceneSource, Survey};
