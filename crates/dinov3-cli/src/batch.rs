//! A run over many pictures: what `embed` and `classify` share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use dinov3::engine::{
    CancelToken, ImageFeatures, ItemError, RunError, RunOptions, Sink, SinkError, Source, Summary, run as run_engine,
};
use dinov3::sink::RowName;
use dinov3::{Encoder, Request};

use crate::arguments::BatchArguments;
use crate::failure::{Outcome, in_words_of_the_command};
use crate::progress::Reporter;
use crate::setup::Inputs;

/// A run that was begun: it can be interrupted and tells how far it is.
pub struct Batch<'a> {
    arguments: &'a BatchArguments,
    output: &'a Path,
    cancel: CancelToken,
    pub reporter: Arc<Reporter>,
}

impl<'a> Batch<'a> {
    /// To be called before the output exists, so that an interruption always removes it. `output` is for messages.
    pub fn begin(arguments: &'a BatchArguments, output: &'a Path) -> Self {
        let cancel = CancelToken::new();
        let token = cancel.clone();
        // A second handler cannot be set, and none is needed in a process that has one command.
        let _ = ctrlc::set_handler(move || token.cancel());
        Self { arguments, output, cancel, reporter: Arc::new(Reporter::new()) }
    }

    /// Encodes everything, writes rows to `sink`, and says what was done.
    pub fn run(
        self,
        source: &Inputs,
        encoder: &mut dyn Encoder,
        sink: &mut dyn Sink<PathBuf>,
        request: &Request,
    ) -> Result<Outcome> {
        let Self { arguments, output, cancel, reporter } = self;
        let told = Arc::clone(&reporter);
        let options = RunOptions::new()
            .batch_size(usize::from(arguments.batch_size))
            .strict(arguments.strict)
            .cancel(cancel)
            .progress(move |progress| told.update(progress));
        let mut sink = NamedSink { output: sink, reporter: &reporter };
        let result = run_engine(source, encoder, &mut sink, request, &options);
        reporter.finish();
        let stream = output == Path::new("-");
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
            if stream { "standard output".into() } else { output.display().to_string() }
        );
        Ok(if failed > 0 { Outcome::SomeFailed } else { Outcome::Done })
    }
}

/// Writes rows under the names of their keys, and tells of failures.
struct NamedSink<'a> {
    output: &'a mut dyn Sink<PathBuf>,
    reporter: &'a Reporter,
}

impl Sink<(usize, PathBuf)> for NamedSink<'_> {
    fn write(&mut self, key: &(usize, PathBuf), features: ImageFeatures<'_>) -> Result<(), SinkError> {
        self.output.write(&key.1, features)
    }

    fn failed(&mut self, key: &(usize, PathBuf), error: &ItemError) -> Result<(), SinkError> {
        let error = ItemError::new(error.kind, in_words_of_the_command(&error.message));
        self.reporter.line(&format!("failed: {}: {error}", key.1.row_name()));
        self.output.failed(&key.1, &error)
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        self.output.finish(summary)
    }
}
