//! `dinov3 features`: feature maps and tokens of one picture.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use dinov3::engine::ItemError;
use dinov3::npy::NpySource;
use dinov3::sink::{RowName, write_features_safetensors, write_npy};
use dinov3::{Array, Encoder, Features, ImageBatch, ModelSpec, Request};
use serde_json::json;

use crate::arguments::FeaturesArguments;
use crate::failure::{Outcome, usage};
use crate::setup::{Provenance, chosen_recipe, decode_options, extension, model_spec, open_model, report_weights};

/// Runs the command.
pub fn run(arguments: &FeaturesArguments) -> Result<Outcome> {
    let spec = model_spec(&arguments.model)?;
    let request = request(arguments, &spec)?;
    let arrays = request.taps.len() * (1 + usize::from(request.tap_prefix_tokens)) + usize::from(request.tokens);
    match extension(&arguments.output).as_str() {
        "safetensors" => {}
        "npy" if arrays == 1 => {}
        "npy" => return Err(usage(format!("{arrays} arrays do not fit into one .npy; write .safetensors"))),
        other => return Err(usage(format!("'.{other}' is unknown: write .safetensors, or .npy for a single array"))),
    }
    let recipe = chosen_recipe(&spec, &arguments.pixels)?;
    if arguments.input.is_dir() {
        return Err(usage(format!("{} is a folder; features takes one picture", arguments.input.display())));
    }
    let named = |error: ItemError| anyhow::anyhow!("{}: {error}", arguments.input.display());
    let (pixels, (count, height_px, width_px)) = match &recipe {
        None => NpySource::open(&arguments.input)?.pixels(),
        Some(_) if extension(&arguments.input) == "npy" => {
            return Err(usage(format!("{}: arrays need --preprocess none", arguments.input.display())));
        }
        Some(recipe) => {
            let picture = dinov3::image::read_rgb(&arguments.input, &decode_options(&arguments.pixels)).map_err(named)?;
            let prepared = recipe.apply(&picture).with_context(|| arguments.input.display().to_string())?;
            (prepared.data, (1, prepared.height_px, prepared.width_px))
        }
    };

    let opened = open_model(&spec, &arguments.model)?;
    report_weights(&opened);
    let provenance = Provenance::start(&opened, recipe.as_ref(), &arguments.pixels)
        .with("input", json!(arguments.input.row_name()))
        .with("norm", json!(request.tap_norm));
    let mut features = Features::default();
    let batch = ImageBatch { pixels: &pixels, count, height_px, width_px };
    opened
        .model
        .session()
        .encode(&batch, &request, &mut features)
        .with_context(|| arguments.input.display().to_string())?;

    let mut arrays = named_arrays(&spec, features);
    let provenance = provenance.finish();
    if extension(&arguments.output) == "npy" {
        let (name, array) = arrays.swap_remove(0);
        let mut about = provenance;
        about["array"] = json!(name);
        write_npy(&arguments.output, &array, Some(&about))?;
    } else {
        let metadata = BTreeMap::from([("dinov3".to_string(), provenance.to_string())]);
        write_features_safetensors(&arguments.output, &arrays, &metadata)?;
    }
    Ok(Outcome::Done)
}

fn request(arguments: &FeaturesArguments, spec: &ModelSpec) -> Result<Request> {
    let depth = spec.depth() as isize;
    let unit = if spec.vit().is_some() { "blocks" } else { "stages" };
    let mut taps = Vec::new();
    for &index in &arguments.blocks {
        let from_start = if index < 0 { index + depth } else { index };
        if !(0..depth).contains(&from_start) {
            return Err(usage(format!("--blocks {index}: {} has {unit} 0 to {} (-{depth} to -1)", spec.name, depth - 1)));
        }
        taps.push(from_start as usize);
    }
    match arguments.last {
        Some(last) if last == 0 || last > depth as usize => {
            return Err(usage(format!("--last {last}: {} has {depth} {unit}", spec.name)));
        }
        Some(last) => taps.extend(depth as usize - last..depth as usize),
        None if arguments.blocks.is_empty() && !arguments.all_tokens => taps = spec.default_taps(),
        None => {}
    }
    if spec.vit().is_none() && arguments.prefix_tokens {
        return Err(usage(format!("--prefix-tokens: {} has no prefix tokens", spec.name)));
    }
    let mut request = Request::new()
        .taps(taps)
        .tap_norm(arguments.norm)
        .tap_prefix_tokens(arguments.prefix_tokens)
        .pad(arguments.pixels.pad);
    if arguments.all_tokens {
        request = request.tokens();
    }
    Ok(request)
}

/// `blocks.N`, `blocks.N.prefix_tokens` or `stages.N`, and `tokens`.
fn named_arrays(spec: &ModelSpec, features: Features) -> Vec<(String, Array)> {
    let unit = if spec.vit().is_some() { "blocks" } else { "stages" };
    let mut arrays = Vec::new();
    for map in features.maps {
        let name = format!("{unit}.{}", map.index);
        if let Some(prefix) = map.prefix_tokens {
            arrays.push((format!("{name}.prefix_tokens"), prefix));
        }
        arrays.push((name, map.map));
    }
    arrays.extend(features.tokens.map(|tokens| ("tokens".to_string(), tokens)));
    arrays
}
