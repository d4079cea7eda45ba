//! `dinov3 embed`: one vector per picture.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use dinov3::engine::{
    CancelToken, ImageFeatures, ItemError, RunError, RunOptions, Sink, SinkError, Source, Summary, run as run_engine,
};
use dinov3::sink::{
    EmbeddingLayout, EmbeddingSink, Format, Journal, JournalError, JournalKey, JournaledSink, JournaledSource, RowName,
};
use dinov3::{Encoder, Normalized, Pooling, Request};
use serde_json::json;

use crate::arguments::EmbedArguments;
use crate::failure::{Outcome, in_words_of_the_command, usage};
use crate::progress::Reporter;
use crate::setup::{
    InputKey, Inputs, Provenance, chosen_recipe, model_spec, open_model, refuse_overwriting, report_weights,
    weight_files,
};

/// Runs the command.
pub fn run(arguments: &EmbedArguments) -> Result<Outcome> {
    // Everything that can be wrong with the command line is found before the weights are read.
    let spec = model_spec(&arguments.model)?;
    let request = request(arguments, &spec)?;
    let layout = EmbeddingLayout::for_request(&spec, &request)?;
    let recipe = chosen_recipe(&spec, &arguments.model, &arguments.pixels)?;
    let files = dinov3::inputs::expand(&arguments.inputs, &mut std::io::stdin().lock())?;
    let mut journal = open_journal(arguments)?;
    check_output(arguments, &layout)?;
    refuse_overwriting(&arguments.output, &files)?;
    let source = Inputs::new(files, &arguments.inputs, recipe, &arguments.model, &arguments.pixels)?;

    let opened = open_model(&spec, &arguments.model)?;
    refuse_overwriting(&arguments.output, weight_files(&opened))?;
    report_weights(&opened);
    let provenance = Provenance::start(&opened, recipe.as_ref(), &arguments.pixels)
        .with("pooling", json!(request.poolings.iter().map(|pooling| pooling.name()).collect::<Vec<_>>()))
        .with("normalized", json!(arguments.normalize));
    if let Some(journal) = &mut journal {
        agree(journal, arguments, provenance.fingerprint(&opened), &layout)?;
    }
    // Before the output exists, so that an interruption always removes it.
    let cancel = CancelToken::new();
    let token = cancel.clone();
    // A second handler cannot be set, and none is needed in a process that has one command.
    let _ = ctrlc::set_handler(move || token.cancel());
    let output = EmbeddingSink::open(&arguments.output, layout, Box::new(move |_: &Summary| provenance.finish()))?;

    let source = JournaledSource::new(&source, journal.as_ref());
    let output = JournaledSink::new(output, journal);
    let reporter = Arc::new(Reporter::new(output.safe_rows()));
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
    let summary = match result {
        Ok(summary) => summary,
        Err(error) => {
            // Not lost with the error that ended the run, nor hiding it.
            let written = match sink.output.keep() {
                _ if stream => String::new(),
                Ok(0) => "; nothing was written".to_string(),
                Ok(rows) => format!("; {rows} finished rows are kept, --resume continues"),
                Err(error) => format!("; {error}; --resume continues with what was kept"),
            };
            return Err(match error {
                RunError::Cancelled => anyhow!("interrupted{written}"),
                RunError::Item { position, error } => {
                    let key = source.keys().nth(position);
                    let name = key.map_or_else(String::new, |key| key.key.row_name().into_owned());
                    anyhow!("{name}: {error}\nstopped at the first failure (--strict){written}")
                }
                other => {
                    if let Some(written) = written.strip_prefix("; ") {
                        eprintln!("{written}");
                    }
                    other.into()
                }
            });
        }
    };
    let failed = summary.failed.len();
    let seconds = summary.elapsed.as_secs_f64();
    eprintln!(
        "{} images in {seconds:.1} s, {:.1} images/s, {failed} failed{} -> {}",
        summary.done,
        (summary.done - summary.known) as f64 / seconds.max(1e-9),
        if summary.known > 0 { format!(", {} from before", summary.known) } else { String::new() },
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
    let mut journal = Journal::open(&arguments.output)?;
    let rows = journal.rows();
    if rows > 0 && arguments.fresh {
        eprintln!("forgetting {rows} rows of an interrupted run");
        journal.discard();
    } else if rows > 0 && !arguments.resume {
        return Err(usage(format!(
            "{}: an interrupted run has finished {rows} rows; continue it with --resume, or start anew with --fresh",
            arguments.output.display()
        )));
    }
    Ok(Some(journal))
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
    match journal.agree(fingerprint, layout) {
        Err(error @ JournalError::Differs { .. }) => {
            return Err(usage(format!("{error}; repeat its command, or start anew with --fresh")));
        }
        other => other?,
    }
    if journal.rows() > 0 {
        eprintln!("continuing after {} rows", journal.rows());
    }
    Ok(())
}

/// Writes rows under the names of their keys, and tells of failures.
struct NamedSink {
    output: JournaledSink,
    reporter: Arc<Reporter>,
}

impl Sink<JournalKey<InputKey>> for NamedSink {
    fn write(&mut self, key: &JournalKey<InputKey>, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        self.output.write(key, features)
    }

    fn known(&mut self, key: &JournalKey<InputKey>) -> Result<(), SinkError> {
        self.output.known(key)
    }

    fn failed(&mut self, key: &JournalKey<InputKey>, error: &ItemError) -> Result<(), SinkError> {
        let error = ItemError::new(error.kind, in_words_of_the_command(&error.message));
        self.reporter.line(&format!("failed: {}: {error}", key.key.row_name()));
        self.output.failed(key, &error)
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        Sink::<JournalKey<InputKey>>::finish(&mut self.output, summary)
    }
}
