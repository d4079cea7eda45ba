//! `dinov3 embed`: one vector per picture.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use dinov3::engine::{
    CancelToken, ImageFeatures, ItemError, RunError, RunOptions, Sink, SinkError, Source, Summary, run as run_engine,
};
use dinov3::sink::{EmbeddingLayout, EmbeddingSink, RowName};
use dinov3::{Encoder, Normalized, Pooling, Request};
use serde_json::json;

use crate::arguments::EmbedArguments;
use crate::failure::{Outcome, in_words_of_the_command, usage};
use crate::progress::Reporter;
use crate::setup::{
    Inputs, Provenance, chosen_recipe, model_spec, open_model, refuse_overwriting, report_weights, weight_files,
};

/// Runs the command.
pub fn run(arguments: &EmbedArguments) -> Result<Outcome> {
    // Everything that can be wrong with the command line is found before the weights are read.
    let spec = model_spec(&arguments.model)?;
    let request = request(arguments, &spec)?;
    let layout = EmbeddingLayout::for_request(&spec, &request)?;
    let recipe = chosen_recipe(&spec, &arguments.model, &arguments.pixels)?;
    let files = dinov3::inputs::expand(&arguments.inputs, &mut std::io::stdin().lock())?;
    check_output(arguments, &layout)?;
    refuse_overwriting(&arguments.output, &files)?;
    let source = Inputs::new(files, &arguments.inputs, recipe, &arguments.model, &arguments.pixels)?;

    let opened = open_model(&spec, &arguments.model)?;
    refuse_overwriting(&arguments.output, weight_files(&opened))?;
    report_weights(&opened);
    let provenance = Provenance::start(&opened, recipe.as_ref(), &arguments.pixels)
        .with("pooling", json!(request.poolings.iter().map(|pooling| pooling.name()).collect::<Vec<_>>()))
        .with("normalized", json!(arguments.normalize));
    // Before the output exists, so that an interruption always removes it.
    let cancel = CancelToken::new();
    let token = cancel.clone();
    // A second handler cannot be set, and none is needed in a process that has one command.
    let _ = ctrlc::set_handler(move || token.cancel());
    let output = EmbeddingSink::open(&arguments.output, layout, Box::new(move |_: &Summary| provenance.finish()))?;

    let reporter = Arc::new(Reporter::new());
    let mut sink = NamedSink { output, reporter: Arc::clone(&reporter) };
    let told = Arc::clone(&reporter);
    let options = RunOptions::new()
        .batch_size(usize::from(arguments.batch_size))
        .strict(arguments.strict)
        .cancel(cancel)
        .progress(move |progress| told.update(progress));
    let mut encoder: Box<dyn Encoder> = match arguments.normalize {
        true => Box::new(Normalized(opened.model.session())),
        false => Box::new(opened.model.session()),
    };
    let result = run_engine(&source, encoder.as_mut(), &mut sink, &request, &options);
    reporter.finish();
    let stream = arguments.output == Path::new("-");
    let written = if stream { "" } else { "; nothing was written" };
    let summary = match result {
        Err(RunError::Cancelled) => anyhow::bail!("interrupted{written}"),
        Err(RunError::Item { position, error }) => {
            let name = source.keys().nth(position).map_or_else(String::new, |key| key.1.row_name().into_owned());
            anyhow::bail!("{name}: {error}\nstopped at the first failure (--strict){written}");
        }
        other => other?,
    };
    let failed = summary.failed.len();
    let seconds = summary.elapsed.as_secs_f64();
    eprintln!(
        "{} images in {seconds:.1} s, {:.1} images/s, {failed} failed -> {}",
        summary.done,
        summary.done as f64 / seconds.max(1e-9),
        if stream { "standard output".into() } else { arguments.output.display().to_string() }
    );
    Ok(if failed > 0 { Outcome::SomeFailed } else { Outcome::Done })
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
            return Err(usage("--logits: the model has no head; give --num-classes and weights with a head"));
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

/// Writes rows under the names of their keys, and tells of failures.
struct NamedSink {
    output: EmbeddingSink,
    reporter: Arc<Reporter>,
}

impl Sink<(usize, std::path::PathBuf)> for NamedSink {
    fn write(&mut self, key: &(usize, std::path::PathBuf), features: ImageFeatures<'_>) -> Result<(), SinkError> {
        self.output.write(&key.1, features)
    }

    fn failed(&mut self, key: &(usize, std::path::PathBuf), error: &ItemError) -> Result<(), SinkError> {
        let error = ItemError::new(error.kind, in_words_of_the_command(&error.message));
        self.reporter.line(&format!("failed: {}: {error}", key.1.row_name()));
        self.output.failed(&key.1, &error)
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        Sink::<std::path::PathBuf>::finish(&mut self.output, summary)
    }
}
