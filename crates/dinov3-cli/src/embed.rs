//! `dinov3 embed`: one vector per picture.

use std::path::{Path, PathBuf};

use anyhow::Result;
use dinov3::engine::Summary;
use dinov3::inputs::{Kind, expand};
use dinov3::pixels::Recipe;
use dinov3::sink::{EmbeddingLayout, EmbeddingSink, Format, Journal, JournaledSink, JournaledSource};
use dinov3::{Encoder, ModelSpec, Normalized, Opened, Request};
use serde_json::json;

use crate::arguments::EmbedArguments;
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::resume::{agree, open_journal};
use crate::scene::is_for_satellites;
use crate::setup::{
    Inputs, Provenance, chosen_poolings, chosen_recipe, model_spec, open_model, open_weights, refuse_overwriting,
    refuse_overwriting_inputs, report_weights, weight_files, weights,
};

/// Runs the command.
pub fn run(arguments: &EmbedArguments) -> Result<Outcome> {
    // Everything that can be wrong with the command line is found before the weights are read.
    let mut spec = model_spec(&arguments.model)?;
    // Only the weights know whether there is a head, and how wide its scores are.
    let found = match arguments.logits && spec.num_classes() == 0 {
        true => Some(weights(&spec, &arguments.model)?),
        false => None,
    };
    if let Some(found) = &found {
        spec = dinov3::with_stored_head(spec, found)?;
    }
    let request = request(arguments, &spec)?;
    let layout = EmbeddingLayout::for_request(&spec, &request)?.with_element(arguments.vectors.embedding_type.into());
    let recipe = chosen_recipe(&spec, &arguments.model, &arguments.pixels)?;
    let files = expand(&arguments.inputs, Kind::Pictures, &mut std::io::stdin().lock())?;
    let mut journal = journal(arguments)?;
    check_output(arguments, &layout)?;
    refuse_overwriting_inputs(&arguments.output, &files)?;
    hint_at_weights(&spec, recipe.as_ref(), &files);
    let source = Inputs::new(files, &arguments.inputs, recipe, &arguments.model, &arguments.pixels)?;

    let opened = match &found {
        Some(found) => open_weights(&spec, found, &arguments.model)?,
        None => open_model(&spec, &arguments.model)?,
    };
    refuse_overwriting(&arguments.output, weight_files(&opened))?;
    report_weights(&opened);
    let provenance = Provenance::start(&opened, recipe.as_ref(), arguments.model.precision)
        .with_pixels(&arguments.pixels)
        .with("pooling", json!(request.poolings.iter().map(|pooling| pooling.name()).collect::<Vec<_>>()))
        .with("normalized", json!(arguments.vectors.normalize));
    if let Some(journal) = &mut journal {
        agree(journal, &arguments.journal, fingerprint(arguments, &provenance, &opened), &layout)?;
    }
    // Before the output exists, so that an interruption always removes it.
    let batch = Batch::begin(&arguments.batch, &arguments.output);
    let output = EmbeddingSink::open(&arguments.output, layout, Box::new(move |_: &Summary| provenance.finish()))?;
    let source = JournaledSource::new(&source, journal.as_ref());
    let sink = JournaledSink::new(output, journal);
    let batch = batch.telling_safe_rows(sink.safe_rows());
    let mut encoder: Box<dyn Encoder> = match arguments.vectors.normalize {
        true => Box::new(Normalized(opened.model.session())),
        false => Box::new(opened.model.session()),
    };
    batch.run(&source, encoder.as_mut(), sink, &request, |sink| match sink.keep() {
        Ok(0) => "nothing was written".to_string(),
        Ok(rows) => format!("{rows} finished rows are kept, --resume continues"),
        Err(error) => format!("{error}; --resume continues with what was kept"),
    })
}

/// Weights for satellites see photographs that they do not know. Tiles, which are not resized, are theirs.
fn hint_at_weights(spec: &ModelSpec, recipe: Option<&Recipe>, files: &[PathBuf]) {
    let is_resized = recipe.is_some_and(|recipe| !matches!(recipe, Recipe::Native { .. }));
    let is_tiff = |file: &PathBuf| file.extension().is_some_and(|ending| ending.to_string_lossy().starts_with("tif"));
    if is_for_satellites(spec) && is_resized && files.iter().any(|file| !is_tiff(file)) {
        eprintln!(
            "note: {} was trained on satellite scenes; vit_large_patch16_dinov3.lvd1689m was trained on pictures of the web",
            spec.name
        );
    }
}

fn request(arguments: &EmbedArguments, spec: &dinov3::ModelSpec) -> Result<Request> {
    let poolings = chosen_poolings(spec, &arguments.vectors.pool)?;
    let mut request = Request::new().poolings(poolings).pad(arguments.pixels.pad);
    if arguments.logits {
        if spec.num_classes() == 0 {
            return Err(usage("--logits: neither the model nor its weights have a head"));
        }
        request = request.logits(spec.pooling);
    }
    Ok(request)
}

/// Finds out whether the output can be written, before the long part.
fn check_output(arguments: &EmbedArguments, layout: &EmbeddingLayout) -> Result<()> {
    let nothing = Box::new(|_: &Summary| serde_json::Value::Null);
    drop(EmbeddingSink::open(&arguments.output, layout.clone(), nothing)?);
    Ok(())
}

/// The journal of the output file; a stream has none.
fn journal(arguments: &EmbedArguments) -> Result<Option<Journal>> {
    if arguments.output == Path::new("-") {
        return match arguments.journal.resume || arguments.journal.fresh {
            true => Err(usage("--resume and --fresh need a file; standard output cannot be continued")),
            false => Ok(None),
        };
    }
    // A name without a format is no output, and shall not get a journal.
    Format::from_path(&arguments.output)?;
    open_journal(&arguments.output, &arguments.journal).map(Some)
}

/// What decides the rows: limits too, since they decide which rows there are.
fn fingerprint(
    arguments: &EmbedArguments,
    provenance: &Provenance,
    opened: &Opened,
) -> serde_json::Map<String, serde_json::Value> {
    let (pixels, model) = (&arguments.pixels, &arguments.model);
    let mut fingerprint = provenance.fingerprint(opened);
    let limits = json!({
        "max_pixels": pixels.max_pixels,
        "max_file_bytes": pixels.max_file_bytes,
        "max_side": pixels.max_side,
        "max_tokens": model.max_tokens,
    });
    fingerprint.insert("limits".to_owned(), limits);
    fingerprint
}
