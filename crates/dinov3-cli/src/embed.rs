//! `dinov3 embed`: one vector per picture.

use std::path::Path;

use anyhow::Result;
use dinov3::engine::Summary;
use dinov3::sink::{EmbeddingLayout, EmbeddingSink, Format, Journal, JournalError, JournaledSink, JournaledSource};
use dinov3::{Encoder, Normalized, Pooling, Request};
use serde_json::json;

use crate::arguments::EmbedArguments;
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::setup::{
    Inputs, Provenance, chosen_recipe, model_spec, open_model, open_weights, refuse_overwriting,
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
    let layout = EmbeddingLayout::for_request(&spec, &request)?;
    let recipe = chosen_recipe(&spec, &arguments.model, &arguments.pixels)?;
    let files = dinov3::inputs::expand(&arguments.inputs, &mut std::io::stdin().lock())?;
    let mut journal = open_journal(arguments)?;
    check_output(arguments, &layout)?;
    refuse_overwriting_inputs(&arguments.output, &files)?;
    let source = Inputs::new(files, &arguments.inputs, recipe, &arguments.model, &arguments.pixels)?;

    let opened = match &found {
        Some(found) => open_weights(&spec, found, &arguments.model)?,
        None => open_model(&spec, &arguments.model)?,
    };
    refuse_overwriting(&arguments.output, weight_files(&opened))?;
    report_weights(&opened);
    let provenance = Provenance::start(&opened, recipe.as_ref(), arguments.model.precision, &arguments.pixels)
        .with("pooling", json!(request.poolings.iter().map(|pooling| pooling.name()).collect::<Vec<_>>()))
        .with("normalized", json!(arguments.normalize));
    if let Some(journal) = &mut journal {
        agree(journal, arguments, provenance.fingerprint(&opened), &layout)?;
    }
    // Before the output exists, so that an interruption always removes it.
    let batch = Batch::begin(&arguments.batch, &arguments.output);
    let output = EmbeddingSink::open(&arguments.output, layout, Box::new(move |_: &Summary| provenance.finish()))?;
    let source = JournaledSource::new(&source, journal.as_ref());
    let sink = JournaledSink::new(output, journal);
    let batch = batch.telling_safe_rows(sink.safe_rows());
    let mut encoder: Box<dyn Encoder> = match arguments.normalize {
        true => Box::new(Normalized(opened.model.session())),
        false => Box::new(opened.model.session()),
    };
    batch.run(&source, encoder.as_mut(), sink, &request, |sink| match sink.keep() {
        Ok(0) => "nothing was written".to_string(),
        Ok(rows) => format!("{rows} finished rows are kept, --resume continues"),
        Err(error) => format!("{error}; --resume continues with what was kept"),
    })
}

fn request(arguments: &EmbedArguments, spec: &dinov3::ModelSpec) -> Result<Request> {
    let poolings = match arguments.pool.is_empty() {
        true => vec![spec.pooling],
        false => arguments.pool.clone(),
    };
    for (index, pooling) in poolings.iter().enumerate() {
        if poolings[..index].contains(pooling) {
            return Err(usage(format!("--pool names '{pooling}' twice")));
        }
        if spec.vit().is_none() && *pooling == Pooling::Token {
            return Err(usage(format!("--pool token: {} has no class token; avg, max and avgmax work", spec.name)));
        }
    }
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
fn open_journal(arguments: &EmbedArguments) -> Result<Option<Journal>> {
    if arguments.output == Path::new("-") {
        return match arguments.resume || arguments.fresh {
            true => Err(usage("--resume and --fresh need a file; standard output cannot be continued")),
            false => Ok(None),
        };
    }
    // A name without a format is no output, and shall not get a journal.
    Format::from_path(&arguments.output)?;
    let journal = Journal::open(&arguments.output)?;
    let rows = journal.rows();
    if arguments.fresh {
        // Its rows go when the new run can start, and not before.
        return Ok(Some(journal));
    }
    journal.check().map_err(or_fresh)?;
    if rows > 0 && !arguments.resume {
        return Err(usage(format!(
            "{}: an interrupted run has finished {rows} rows; continue it with --resume, or start anew with --fresh",
            arguments.output.display()
        )));
    }
    Ok(Some(journal))
}

/// With what can be done about it.
fn or_fresh(error: JournalError) -> anyhow::Error {
    match error {
        JournalError::Differs { .. } => usage(format!("{error}; repeat its command, or start anew with --fresh")),
        JournalError::Unreadable { .. } => usage(format!("{error}; start anew with --fresh")),
        other => other.into(),
    }
}

/// Makes sure that the rows of the interrupted run are what this command would make.
fn agree(
    journal: &mut Journal,
    arguments: &EmbedArguments,
    mut fingerprint: serde_json::Map<String, serde_json::Value>,
    layout: &EmbeddingLayout,
) -> Result<()> {
    let (pixels, model) = (&arguments.pixels, &arguments.model);
    let limits = json!({
        "max_pixels": pixels.max_pixels,
        "max_file_bytes": pixels.max_file_bytes,
        "max_side": pixels.max_side,
        "max_tokens": model.max_tokens,
    });
    fingerprint.insert("limits".to_owned(), limits);
    if arguments.fresh {
        if journal.rows() > 0 {
            eprintln!("forgetting {} rows of an interrupted run", journal.rows());
        }
        journal.discard();
    }
    let damaged_bytes = journal.damaged_bytes();
    journal.agree(fingerprint, layout).map_err(or_fresh)?;
    if journal.rows() > 0 {
        eprintln!("continuing: {} rows are there, those of unchanged pictures are taken", journal.rows());
    }
    if damaged_bytes > 0 {
        eprintln!(
            "note: the journal was damaged; its last {damaged_bytes} bytes are lost and their pictures encoded anew"
        );
    }
    Ok(())
}
