//! Progress on standard error: a bar on a terminal, plain lines in a log.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dinov3::Options;
use dinov3::engine::Progress;
use dinov3::hub::Event;
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::printable_line;

/// Time between two lines of a log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A bar for reading weights; none in a log, where reading is one line of silence.
pub fn reading(what: String) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {percent}%").expect("the template is sound");
    Some(ProgressBar::new(0).with_style(style).with_message(what))
}

/// The same for loading or packing a model with these options.
pub fn loading(what: String, options: &mut Options) -> Option<ProgressBar> {
    let bar = reading(what)?;
    let told = bar.clone();
    options.progress = Some(Arc::new(move |done, total| {
        told.set_length(total as u64);
        told.set_position(done as u64);
    }));
    Some(bar)
}

/// A line that does not tear the bar, if there is one.
pub fn aside(bar: Option<&ProgressBar>, line: &str) {
    match bar {
        Some(bar) => bar.suspend(|| eprintln!("{line}")),
        None => eprintln!("{line}"),
    }
}

/// Tells how far a download is, and before the first what its licence is.
pub struct DownloadReporter {
    license: Option<String>,
    bar: Option<ProgressBar>,
    last: Instant,
    waiting: bool,
}

impl DownloadReporter {
    /// For a repository under this licence, if it is known.
    pub fn new(license: Option<String>) -> Self {
        Self { license, bar: None, last: Instant::now(), waiting: false }
    }

    /// Called by the download; it goes on.
    pub fn tell(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match event {
            Event::FirstDownload { page } => {
                self.line(&format!("downloading {page}"));
                match &self.license {
                    Some(license) => self.line(&format!("license: {license} (and on that page)")),
                    None => self.line("license: see that page"),
                }
            }
            Event::Download { name, size_bytes, from_bytes } => {
                if std::io::stderr().is_terminal() {
                    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}, {eta} left");
                    let bar = ProgressBar::new(size_bytes.unwrap_or(0)).with_position(*from_bytes);
                    self.bar =
                        Some(bar.with_style(style.expect("the template is sound")).with_message(name.to_string()));
                    return ControlFlow::Continue(());
                }
                self.last = Instant::now();
                let size = size_bytes.map_or("size unknown".to_string(), megabytes);
                match from_bytes {
                    0 => self.line(&format!("{name}: {size}")),
                    _ => self.line(&format!("{name}: {size}, continued at {}", megabytes(*from_bytes))),
                }
            }
            Event::Bytes { name, done_bytes, size_bytes } => match &self.bar {
                Some(bar) => bar.set_position(*done_bytes),
                None if self.last.elapsed() >= LOG_INTERVAL => {
                    self.last = Instant::now();
                    let share =
                        size_bytes.map_or(String::new(), |size| format!(", {}%", done_bytes * 100 / size.max(1)));
                    self.line(&format!("{name}: {}{share}", megabytes(*done_bytes)));
                }
                None => {}
            },
            Event::Done { .. } => self.finish(),
            Event::Waiting { name } if !self.waiting => {
                self.waiting = true;
                self.line(&format!("{name}: waiting for another process that downloads it"));
            }
            Event::Retry { error, wait } => {
                let error = error.without_advice();
                self.line(&format!("note: {error}; trying again in {:.1} s", wait.as_secs_f64()));
            }
            Event::UsingCache { error, commit } => {
                let error = error.without_advice();
                self.line(&format!("note: {error}; using commit {commit} from the cache"));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// One line, whatever strangers' names are in it.
    fn line(&self, text: &str) {
        let text = printable_line(text);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Removes the bar.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Tells how far a run is.
pub struct Reporter {
    display: Display,
    /// What is encoded: images, chips.
    items: &'static str,
    /// The rows that are safe on disk, where the output keeps a journal.
    safe_rows: Option<Arc<AtomicUsize>>,
}

enum Display {
    Bar(ProgressBar),
    Log(Mutex<Instant>),
}

impl Reporter {
    /// A bar if standard error is a terminal. `safe_rows` is told as done, and not what a power failure could take.
    pub fn new(items: &'static str, safe_rows: Option<Arc<AtomicUsize>>) -> Self {
        let display = match std::io::stderr().is_terminal() {
            false => Display::Log(Mutex::new(Instant::now())),
            true => {
                let template = format!("{{bar:30}} {{pos}}/{{len}} {items}, {{msg}}, {{eta}} left");
                let style = ProgressStyle::with_template(&template);
                Display::Bar(ProgressBar::new(0).with_style(style.expect("the template is sound")))
            }
        };
        Self { display, items, safe_rows }
    }

    /// Called by the run.
    pub fn update(&self, progress: &Progress) {
        let speed = format!("{:.1} {}/s", progress.images_per_second(), self.items);
        let done = self.safe_rows.as_ref().map_or(progress.done, |rows| rows.load(Ordering::Relaxed));
        let done = done + progress.failed + progress.skipped;
        match &self.display {
            Display::Bar(bar) => {
                bar.set_length(progress.total.unwrap_or(done) as u64);
                bar.set_position(done as u64);
                bar.set_message(match progress.failed {
                    0 => speed,
                    failed => format!("{speed}, {failed} failed"),
                });
            }
            Display::Log(last) => {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.elapsed() < LOG_INTERVAL {
                    return;
                }
                *last = Instant::now();
                let total = progress.total.map_or("?".to_string(), |total| total.to_string());
                eprintln!("{done}/{total} {}, {speed}, {} failed", self.items, progress.failed);
            }
        }
    }

    /// Prints a line without tearing the bar: one line, whatever strangers' names are in it.
    pub fn line(&self, text: &str) {
        let text = printable_line(text);
        self.aside(|| eprintln!("{text}"));
    }

    /// Prints something without tearing the bar.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.display {
            Display::Bar(bar) => bar.suspend(print),
            Display::Log(_) => print(),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}
