//! A run over many pictures: what `embed` and `classify` share.

use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};

use anyhow::{Result, anyhow};
use dinov3::engine::{
    CancelToken, ImageFeatures, ItemError, RunError, RunOptions, Sink, SinkError, Source, Summary, run as run_engine,
};
use dinov3::sink::RowName;
use dinov3::url::without_user;
use dinov3::{Encoder, Request};

use crate::arguments::BatchArguments;
use crate::failure::{Outcome, in_words_of_the_command};
use crate::progress::Reporter;

/// What a shell says of a process that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// The token that Ctrl-C and SIGTERM cancel: one for the process, which has one command. Whatever waits for others looks
/// at it.
pub fn interruption() -> CancelToken {
    static TOKEN: LazyLock<CancelToken> = LazyLock::new(CancelToken::new);
    TOKEN.clone()
}

/// Lets Ctrl-C and SIGTERM cancel [`interruption`] instead of ending the process.
pub fn catch_interruptions() {
    let token = interruption();
    // A second handler cannot be set, and none is needed in a process that has one command.
    let _ = ctrlc::set_handler(move || {
        // Who asks twice does not want to wait for the end of a batch. The journal is on disk as it is.
        if token.is_cancelled() {
            std::process::exit(INTERRUPTED);
        }
        token.cancel();
    });
}

/// A row's name for messages: a URL may hold a password, and logs are read by many. Rows themselves keep the name.
fn shown(name: &str) -> Cow<'_, str> {
    match dinov3::inputs::is_url(Path::new(name)) {
        true => without_user(name).into(),
        false => name.into(),
    }
}

/// A run that was begun: it can be interrupted and tells how far it is.
pub struct Batch<'a> {
    arguments: &'a BatchArguments,
    output: &'a Path,
    cancel: CancelToken,
    /// What is encoded, for messages.
    items: &'static str,
    /// Rows of an earlier run that this one may take.
    known: usize,
    pub reporter: Arc<Reporter>,
}

impl<'a> Batch<'a> {
    /// To be called before the output exists, so that an interruption always removes it. `output` is for messages.
    pub fn begin(arguments: &'a BatchArguments, output: &'a Path) -> Self {
        catch_interruptions();
        let cancel = interruption();
        let items = "images";
        Self { arguments, output, cancel, items, known: 0, reporter: Arc::new(Reporter::new(items, None)) }
    }

    /// Calls what is encoded something else than images.
    pub fn of(self, items: &'static str) -> Self {
        Self { items, reporter: Arc::new(Reporter::new(items, None)), ..self }
    }

    /// Says at the end how many rows of an earlier run, of so many, were not taken.
    pub fn knowing(self, known: usize) -> Self {
        Self { known, ..self }
    }

    /// Counts rows as done once they are safe on disk.
    pub fn telling_safe_rows(self, rows: Option<Arc<AtomicUsize>>) -> Self {
        Self { reporter: Arc::new(Reporter::new(self.items, rows)), ..self }
    }

    /// Encodes everything, writes rows to `sink`, and says what was done. `left` is asked what is left of a run that
    /// failed.
    pub fn run<S: Source<Key: RowName>, T: Sink<S::Key>>(
        self,
        source: &S,
        encoder: &mut dyn Encoder,
        sink: T,
        request: &Request,
        left: impl FnOnce(T) -> String,
    ) -> Result<Outcome> {
        let Self { arguments, output, cancel, items, known, reporter } = self;
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
        let summary = match result {
            Ok(summary) => summary,
            Err(error) => {
                // Not lost with the error that ended the run, nor hiding it.
                let left = left(sink.output);
                let left = if stream { String::new() } else { format!("; {left}") };
                return Err(match error {
                    RunError::Cancelled => anyhow!("interrupted{left}"),
                    RunError::Item { position, error } => {
                        let key = source.keys().nth(position);
                        let name = key.map_or_else(String::new, |key| shown(&key.row_name()).into_owned());
                        anyhow!("{name}: {error}\nstopped at the first failure (--strict){left}")
                    }
                    other => {
                        if let Some(left) = left.strip_prefix("; ") {
                            eprintln!("{left}");
                        }
                        other.into()
                    }
                });
            }
        };
        let failed = summary.failed.len();
        let seconds = summary.elapsed.as_secs_f64();
        eprintln!(
            "{} {items} in {seconds:.1} s, {:.1} {items}/s, {failed} failed{}{} -> {}",
            summary.done,
            (summary.done - summary.known) as f64 / seconds.max(1e-9),
            if summary.known > 0 { format!(", {} from before", summary.known) } else { String::new() },
            if summary.skipped > 0 { format!(", {} without enough data", summary.skipped) } else { String::new() },
            if stream { "standard output".into() } else { output.display().to_string() }
        );
        if known > summary.known {
            let left = known - summary.known;
            eprintln!(
                "note: {left} rows from before were left out: what they were made of is not named any more, or has changed"
            );
        }
        Ok(if failed > 0 { Outcome::SomeFailed } else { Outcome::Done })
    }
}

/// Tells of failures, in the words of the command line.
struct NamedSink<'a, T> {
    output: T,
    reporter: &'a Reporter,
}

impl<K: RowName, T: Sink<K>> Sink<K> for NamedSink<'_, T> {
    fn write(&mut self, key: &K, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        self.output.write(key, features)
    }

    fn known(&mut self, key: &K) -> Result<(), SinkError> {
        self.output.known(key)
    }

    fn failed(&mut self, key: &K, error: &ItemError) -> Result<(), SinkError> {
        let error = ItemError::new(error.kind, in_words_of_the_command(&error.message));
        self.reporter.line(&format!("failed: {}: {error}", shown(&key.row_name())));
        self.output.failed(key, &error)
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        self.output.finish(summary)
    }
}
