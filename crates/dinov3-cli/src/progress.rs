//! Progress on standard error: a bar on a terminal, plain lines in a log.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dinov3::engine::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines of a log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A bar for reading weights; none in a log, where loading is one line of silence.
pub fn loading(model: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {percent}%").expect("the template is sound");
    Some(ProgressBar::new(0).with_style(style).with_message(format!("loading {model}")))
}

/// Tells how far a run is.
pub enum Reporter {
    Bar(ProgressBar),
    Log(Mutex<Instant>),
}

impl Reporter {
    /// A bar if standard error is a terminal.
    pub fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Log(Mutex::new(Instant::now()));
        }
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} images, {msg}, {eta} left");
        Self::Bar(ProgressBar::new(0).with_style(style.expect("the template is sound")))
    }

    /// Called by the run.
    pub fn update(&self, progress: &Progress) {
        let speed = format!("{:.1} images/s", progress.images_per_second());
        match self {
            Self::Bar(bar) => {
                bar.set_length(progress.total.unwrap_or(progress.done + progress.failed) as u64);
                bar.set_position((progress.done + progress.failed) as u64);
                bar.set_message(match progress.failed {
                    0 => speed,
                    failed => format!("{speed}, {failed} failed"),
                });
            }
            Self::Log(last) => {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.elapsed() < LOG_INTERVAL {
                    return;
                }
                *last = Instant::now();
                let total = progress.total.map_or("?".to_string(), |total| total.to_string());
                eprintln!("{}/{total} images, {speed}, {} failed", progress.done + progress.failed, progress.failed);
            }
        }
    }

    /// Prints a line without tearing the bar.
    pub fn line(&self, text: &str) {
        self.aside(|| eprintln!("{text}"));
    }

    /// Prints something without tearing the bar.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match self {
            Self::Bar(bar) => bar.suspend(print),
            Self::Log(_) => print(),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
