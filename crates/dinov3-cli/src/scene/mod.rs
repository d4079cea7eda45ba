//! `dinov3 scene`: satellite scenes. What its commands share.

mod dense;
mod embed;
mod energy;
mod folder;
mod form;
mod info;
mod inputs;
mod item;
mod job;
mod make;
mod map;
mod marker;
mod merge;
mod merged;
mod options;
mod plan;
mod reports;
mod run;
mod shard;
mod store;
mod units;
mod zarr_merge;
mod zarr_plan;
mod zarr_units;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use dinov3::ModelSpec;
use dinov3::pixels::Statistics;
use dinov3::sink::is_store_name;
use dinov3_scene::raster::{Addresses, Opener, Options, RasterProfile, Resampling, StackedFile};
use dinov3_scene::{AreaOfInterest, Cut, Preset, SceneOptions};

use crate::arguments::{Edges, RemoteArguments, SceneArguments, SceneCommand};
use crate::failure::{Outcome, usage};
use crate::setup::chosen_statistics;

pub use shard::Shard;
pub use store::without_file_scheme;

/// Runs the command.
pub fn run(command: &SceneCommand) -> Result<Outcome> {
    match command {
        SceneCommand::Embed(arguments) => {
            // A store of chips is made there by units.
            if arguments.dense.dense || !is_store_name(&arguments.output) {
                store::check_place(&arguments.output)?;
            }
            embed::run(arguments)
        }
        SceneCommand::Plan(arguments) => plan::run(arguments),
        SceneCommand::Run(arguments) => run::run(arguments),
        SceneCommand::Merge(arguments) => merge::run(arguments),
        SceneCommand::Info(arguments) => info::run(arguments),
        SceneCommand::Map(arguments) => map::run(arguments),
    }
}

fn opener(scene: &SceneArguments, remote: &RemoteArguments) -> Opener {
    opener_with(scene.block_cache, remote)
}

fn opener_with(block_cache_bytes: u64, remote: &RemoteArguments) -> Opener {
    let mut options = Options::default();
    options.block_cache_bytes = block_cache_bytes;
    options.concurrent_requests = usize::from(remote.requests);
    options.silence_timeout = Duration::from_secs(remote.url_timeout.into());
    if remote.allow_local_addresses {
        options.addresses = Addresses::Any;
    }
    Opener::new(options)
}

fn scene_options(arguments: &SceneArguments, statistics: Statistics, datetime_us: Option<i64>) -> Result<SceneOptions> {
    if !matches!(arguments.bands.len(), 0 | 1 | 3) {
        return Err(usage("--bands: name three bands, R,G,B, or one for all three"));
    }
    let mut options = SceneOptions::new(chosen_statistics(statistics, arguments.mean, arguments.std)?);
    options.cut = Cut {
        chip_px: arguments.chip,
        stride_px: arguments.stride.unwrap_or(arguments.chip),
        edges: match arguments.edges {
            Edges::Pad => dinov3_scene::Edges::Pad,
            Edges::Drop => dinov3_scene::Edges::Drop,
            Edges::Shift => dinov3_scene::Edges::Shift,
        },
    };
    if arguments.grid.is_some() && arguments.edges == Edges::Shift {
        return Err(usage("--edges shift: chips on the cells of a grid stay where they are; pad or drop them"));
    }
    options.gsd_m = arguments.gsd;
    options.grid = arguments.grid;
    options.cell_ids = arguments.grid_id;
    options.area = arguments.aoi.as_deref().map(area_of_interest).transpose()?;
    options.bands = (!arguments.bands.is_empty()).then(|| arguments.bands.clone());
    options.scale = arguments.scale;
    options.preset = arguments.preset;
    if arguments.baseline.is_some() && arguments.preset != Some(Preset::Sentinel2L2a) {
        return Err(usage("--baseline is of Sentinel-2: it goes with --preset sentinel-2-l2a"));
    }
    options.baseline = arguments.baseline;
    options.mask_values = arguments.mask_values.clone();
    options.min_valid = arguments.min_valid;
    options.crs = arguments.crs.clone();
    options.datetime_us = datetime_us;
    options.block_cache_bytes = arguments.block_cache;
    Ok(options)
}

/// How a coarser file came onto the grid of its scene.
fn resampling_told(file: &StackedFile, method: Resampling, scene: &RasterProfile) -> String {
    let (from, to) = ((file.width_px, file.height_px), (scene.width_px, scene.height_px));
    let method = if method == Resampling::Bilinear { "bilinearly" } else { method.name() };
    format!("{} is resampled {method} from {} x {} to {} x {} px", file.location, from.0, from.1, to.0, to.1)
}

fn area_of_interest(path: &Path) -> Result<AreaOfInterest> {
    let area = AreaOfInterest::read(path)?;
    let (polygons, long_edges) = (area.area().polygons(), area.area().long_edges());
    if polygons == 0 {
        eprintln!("note: {} holds no polygon: no chip lies in it", path.display());
    }
    if long_edges > 0 {
        eprintln!(
            "warning: {}: {long_edges} edges are longer than 180 degrees and go the long way around the Earth, as RFC 7946 \
             says: cut polygons at the antimeridian",
            path.display()
        );
    }
    Ok(area)
}

/// Whether the model was trained on satellite pictures.
pub fn is_for_satellites(spec: &ModelSpec) -> bool {
    dinov3::image::statistics(spec) == Statistics::SATELLITE
}
