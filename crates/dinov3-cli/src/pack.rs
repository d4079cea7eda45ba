//! `dinov3 pack`: weights as the kernels take them, in a file of their own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use dinov3::checkpoint::open_files;
use dinov3::packed::{PackError, PackedFile, is_packed, pack};
use dinov3::{ModelSpec, Options, Weights, find_model};
use serde_json::json;

use crate::arguments::{ModelArguments, PackArguments};
use crate::batch::{catch_interruptions, interruption};
use crate::failure::{Outcome, usage};
use crate::info::{matching_model, told_of_packed};
use crate::progress;
use crate::setup::{chosen_precision, model_spec, refuse_overwriting, told, weights, with_classes};

/// Runs the command.
pub fn run(arguments: &PackArguments) -> Result<Outcome> {
    if let Some(path) = packed_file(arguments) {
        return Err(PackError::PackedAlready { path }.into());
    }
    let (spec, weights) = model_and_weights(arguments)?;
    refuse_overwriting(&arguments.output, &read_files(&weights))?;
    let isa = dinov3::Isa::try_from_env()?;
    let precision = told(chosen_precision(arguments.precision, isa));
    let mut options = Options::new()
        .precision(precision)
        .threads(arguments.threads.map_or(0, usize::from))
        .isa(isa)
        .cancelled(Arc::new(|| interruption().is_cancelled()));
    // The file that was begun is removed; it may be large.
    catch_interruptions();
    let bar = progress::loading(format!("packing {}", spec.name), &mut options);
    let result = pack(&spec, &weights, &options, &arguments.output);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result?;
    let (mut json, text) = told_of_packed(&PackedFile::open(&arguments.output)?)?;
    json["output"] = json!(arguments.output);
    let text = if arguments.json { serde_json::to_string_pretty(&json)? + "\n" } else { text };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

/// What is named may be a model, whose weights are downloaded or named beside it, or weights, whose model is found.
fn model_and_weights(arguments: &PackArguments) -> Result<(ModelSpec, Weights)> {
    let target = arguments.target.as_deref();
    let (model, named_weights) = match (target, &arguments.model, &arguments.weights) {
        (Some(_), Some(_), Some(_)) => {
            return Err(usage("two of MODEL|WEIGHTS, --model and --weights say everything; the third contradicts"));
        }
        (target, Some(model), weights) => (model.clone(), weights.as_deref().or(target).map(str::to_string)),
        (Some(model), None, Some(weights)) => (model.to_string(), Some(weights.clone())),
        (Some(target), None, None) => {
            let is_config = Path::new(target).extension().is_some_and(|extension| extension == "json")
                && !target.ends_with(".index.json");
            let is_model = !Path::new(target).exists() && !target.starts_with("hf-hub:");
            if is_config || is_model {
                (target.to_string(), None)
            } else {
                return of_weights(arguments, target);
            }
        }
        (None, None, _) => return Err(usage("name a model or weights")),
    };
    let arguments = model_arguments(arguments, model, named_weights);
    let spec = model_spec(&arguments)?;
    let weights = weights(&spec, &arguments)?;
    Ok((spec, weights))
}

/// The model of weights that stand alone.
fn of_weights(arguments: &PackArguments, target: &str) -> Result<(ModelSpec, Weights)> {
    // A repository of the table names its model; another one is downloaded first.
    let any_model = find_model(target).or_else(|_| find_model("vit_small_patch16_dinov3"))?;
    let weights = weights(&any_model, &model_arguments(arguments, any_model.name.clone(), Some(target.to_string())))?;
    let path = match &weights {
        Weights::Path(path) => path,
        Weights::Snapshot(snapshot) => &snapshot.weights,
        _ => return Ok((any_model, weights)),
    };
    // A folder with a config.json says itself what it is.
    let spec = match path.join("config.json").is_file() {
        true => find_model(target)?,
        false => matching_model(&open_files(path)?)?.0,
    };
    Ok((with_classes(spec, arguments.num_classes)?, weights))
}

/// The packed file that was named instead of weights, if it was.
fn packed_file(arguments: &PackArguments) -> Option<PathBuf> {
    let named = [&arguments.target, &arguments.model, &arguments.weights];
    named.into_iter().flatten().map(PathBuf::from).find(|path| is_packed(path))
}

/// Files that an output must not replace.
fn read_files(weights: &Weights) -> Vec<PathBuf> {
    match weights {
        Weights::Path(path) => open_files(path).map(|files| files.paths).unwrap_or_default(),
        Weights::Snapshot(snapshot) => vec![snapshot.weights.clone()],
        _ => Vec::new(),
    }
}

/// The rest of a model's options at their defaults.
fn model_arguments(arguments: &PackArguments, model: String, weights: Option<String>) -> ModelArguments {
    ModelArguments {
        model,
        weights,
        revision: arguments.revision.clone(),
        precision: Some(arguments.precision),
        num_classes: arguments.num_classes,
        threads: arguments.threads,
        ..ModelArguments::default()
    }
}
