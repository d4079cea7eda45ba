//! `dinov3 scene`: satellite scenes. What its commands share.

mod dense;
mod embed;
mod info;
mod map;

use std::time::Duration;

use anyhow::Result;
use dinov3::ModelSpec;
use dinov3::pixels::Statistics;
use dinov3_scene::raster::{Addresses, Opener, Options};
use dinov3_scene::{Cut, SceneOptions};

use crate::arguments::{Edges, RemoteArguments, SceneArguments, SceneCommand};
use crate::failure::{Outcome, usage};
use crate::setup::chosen_statistics;

/// Runs the command.
pub fn run(command: &SceneCommand) -> Result<Outcome> {
    match command {
        SceneCommand::Embed(arguments) if arguments.dense.dense => dense::run(arguments),
        SceneCommand::Embed(arguments) => embed::run(arguments),
        SceneCommand::Info(arguments) => info::run(arguments),
        SceneCommand::Map(arguments) => map::run(arguments),
    }
}

fn opener(scene: &SceneArguments, remote: &RemoteArguments) -> Opener {
    let mut options = Options::default();
    options.block_cache_bytes = scene.block_cache;
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
    options.bands = (!arguments.bands.is_empty()).then(|| arguments.bands.clone());
    options.scale = arguments.scale;
    options.min_valid = arguments.min_valid;
    options.crs = arguments.crs.clone();
    options.datetime_us = datetime_us;
    options.block_cache_bytes = arguments.block_cache;
    Ok(options)
}

/// Whether the model was trained on satellite pictures.
fn is_for_satellites(spec: &ModelSpec) -> bool {
    dinov3::image::statistics(spec) == Statistics::SATELLITE
}
