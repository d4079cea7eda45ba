//! How a run shall go: batch, threads, memory, strictness, and the two ways to look in from outside.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Stops a run from outside, from any thread or a signal handler. Clones share the same flag.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop at the next opportunity; cannot be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Images with features so far, known ones included.
    pub done: usize,
    /// Images so far whose rows were known from an earlier run.
    pub known: usize,
    /// Images so far that the source did not want a row of.
    pub skipped: usize,
    /// Images failed so far.
    pub failed: usize,
    /// How many there are in all, if the source knows.
    pub total: Option<usize>,
    /// Since the start of the run.
    pub elapsed: Duration,
}

impl Progress {
    /// Encoded images per second since the start.
    pub fn images_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.done.saturating_sub(self.known) as f64 / seconds } else { 0.0 }
    }
}

type ProgressFn = Arc<dyn Fn(&Progress) + Send + Sync>;

/// How a run shall go. The defaults suit a folder of photographs.
#[derive(Clone)]
pub struct RunOptions {
    pub(crate) batch_size: usize,
    pub(crate) loader_threads: usize,
    pub(crate) memory_limit_bytes: usize,
    pub(crate) reorder_window: Option<usize>,
    pub(crate) strict: bool,
    pub(crate) cancel: CancelToken,
    pub(crate) progress: Option<ProgressFn>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            batch_size: 8,
            loader_threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            memory_limit_bytes: 512 << 20,
            reorder_window: None,
            strict: false,
            cancel: CancelToken::new(),
            progress: None,
        }
    }
}

impl RunOptions {
    /// The defaults: batches of 8, one loader thread per CPU, 512 MiB of decoded pixels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Largest number of images per batch; 0 counts as 1. Does not change results.
    pub fn batch_size(mut self, images: usize) -> Self {
        self.batch_size = images.max(1);
        self
    }

    /// Threads that load images; 0 counts as 1. Does not change results.
    pub fn loader_threads(mut self, threads: usize) -> Self {
        self.loader_threads = threads.max(1);
        self
    }

    /// Bound on the decoded pixels that wait for the encoder. Features that wait for an earlier row count
    /// against half of it.
    ///
    /// It can be exceeded in two ways: by images whose size was not known while they were being decoded, at most
    /// one per loader thread; and by one image that is larger than half the limit, which still goes through,
    /// alone. The batch that is being encoded exists once more while its images are put side by side.
    pub fn memory_limit_bytes(mut self, bytes: usize) -> Self {
        self.memory_limit_bytes = bytes;
        self
    }

    /// How many rows may wait for an earlier one, so that images of unequal sizes can be batched; by default
    /// eight batches, at least 64. When the window is full, the batch of the oldest image runs incomplete.
    pub fn reorder_window(mut self, rows: usize) -> Self {
        self.reorder_window = Some(rows);
        self
    }

    /// Ends the run at the first image that fails, with nothing written, instead of reporting it.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// A token that stops the run between batches.
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = token;
        self
    }

    /// Called after every batch and every failed image, on the thread that called [`run`](crate::run()).
    pub fn progress(mut self, callback: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(callback));
        self
    }

    pub(crate) fn window(&self) -> usize {
        let rows = self.reorder_window;
        rows.unwrap_or_else(|| self.batch_size.saturating_mul(8).max(64))
    }
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions")
            .field("batch_size", &self.batch_size)
            .field("loader_threads", &self.loader_threads)
            .field("memory_limit_bytes", &self.memory_limit_bytes)
            .field("reorder_window", &self.window())
            .field("strict", &self.strict)
            .field("cancel", &self.cancel)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}
