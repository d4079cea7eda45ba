//! The driver: images in order into buckets of one size, batches through the encoder, rows in order to the sink.
//!
//! Which images share a batch follows from their order and sizes alone, never from the clock: images are put into
//! buckets in the source's order, and the two bounds on what may wait (rows; bytes) are counted in that order. So a
//! run can be repeated exactly, also with an encoder that is less strict about batches than ours.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Request};

use crate::loader::{Arrival, Loader, Next, StopOnDrop, pixel_bytes};
use crate::options::{Progress, RunOptions};
use crate::sink::{ImageFeatures, Sink, SinkError, arrays, inconsistency};
use crate::source::{Item, ItemError, ItemErrorKind, Source};

/// An image without features.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedItem {
    /// Its place among the source's keys, from 0.
    pub position: usize,
    /// Why.
    pub error: ItemError,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Images whose features are in the sink, known ones included.
    pub done: usize,
    /// Images whose rows the sink had already, from an earlier run.
    pub known: usize,
    /// Images that the source did not want a row of.
    pub skipped: usize,
    /// Images without features, in the source's order.
    pub failed: Vec<FailedItem>,
    /// Duration of the run up to [`Sink::finish`].
    pub elapsed: Duration,
    /// The part of it spent in the encoder.
    pub encode: Duration,
    /// Batches encoded.
    pub batches: usize,
}

/// Why a run ended without output. The encoder can be used again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// [`CancelToken::cancel`](crate::CancelToken::cancel) was called.
    #[error("cancelled")]
    Cancelled,
    /// An image failed in a strict run.
    #[error("image {position} failed, and this run is strict: {error}")]
    Item {
        /// Its place among the source's keys, from 0.
        position: usize,
        /// Why.
        error: ItemError,
    },
    /// The request does not fit the model, whatever the image.
    #[error(transparent)]
    Request(EncodeError),
    /// The encoder broke its contract: a bug in it.
    #[error("the encoder delivered inconsistent features: {message}")]
    Encoder {
        /// What does not fit together.
        message: String,
    },
    /// Listing the keys panicked: a bug in the source.
    #[error("listing the images panicked: {message}")]
    Source {
        /// The panic's message.
        message: String,
    },
    /// No loader thread could be started.
    #[error("no loader thread could be started")]
    Threads(#[source] std::io::Error),
    /// The sink could not go on.
    #[error(transparent)]
    Sink(SinkError),
}

/// A batch is closed early at this many pixels: the activations of large images are what fills memory, and a batch
/// of one of them keeps a machine busy.
const MOST_BATCH_PIXELS: usize = 1 << 22;

/// Encodes every image of `source` and writes one row per image to `sink`, in the source's order.
///
/// Failed images are reported to the sink and in the [`Summary`]; the run goes on.
///
/// # Errors
/// If the run had to end early; `sink` is not finished then, and its owner drops it.
pub fn run<S: Source + ?Sized>(
    source: &S,
    encoder: &mut dyn Encoder,
    sink: &mut dyn Sink<S::Key>,
    request: &Request,
    options: &RunOptions,
) -> Result<Summary, RunError> {
    let start = Instant::now();
    let window = options.window().max(options.batch_size);
    // Beyond the window: what loads while a batch is encoded.
    let ahead = options.batch_size.saturating_mul(2).saturating_add(options.loader_threads);
    let loader = Loader::new(source, window.saturating_add(ahead), options.memory_limit_bytes);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&loader);
        for index in 0..options.loader_threads {
            let builder = std::thread::Builder::new().name(format!("dinov3-load-{index}"));
            match builder.spawn_scoped(scope, || loader.work()) {
                Ok(_) => {}
                // Fewer threads than wished are slower, not wrong.
                Err(_) if index > 0 => break,
                Err(error) => return Err(RunError::Threads(error)),
            }
        }
        let mut driver = Driver {
            loader: &loader,
            encoder,
            sink,
            request,
            options,
            start,
            total: source.len_hint(),
            window,
            rows: VecDeque::new(),
            first_position: 0,
            buckets: HashMap::new(),
            pending_bytes: 0,
            batches: Vec::new(),
            features_bytes: 0,
            spare: Vec::new(),
            batch_pixels: Vec::new(),
            encoded: 0,
            known: 0,
            skipped: 0,
            refused: 0,
            summary: Summary::default(),
        };
        driver.drive()?;
        Ok(driver.summary)
    })
}

/// Height and width.
type Size = (usize, usize);

/// Where the row of an image stands.
enum RowState {
    /// Its image is in the bucket of that size.
    Waiting(Size),
    /// Its features are at that place of that batch.
    Ready {
        batch: usize,
        index: usize,
    },
    /// The sink has its row.
    Known,
    Skipped,
    Failed(ItemError),
}

struct Row<K> {
    key: K,
    state: RowState,
}

/// An encoded batch of which some rows are not written yet.
struct Batch {
    features: Features,
    bytes: usize,
    rows_left: usize,
}

struct Driver<'r, 's, S: Source + ?Sized> {
    loader: &'r Loader<'s, S>,
    encoder: &'r mut dyn Encoder,
    sink: &'r mut dyn Sink<S::Key>,
    request: &'r Request,
    options: &'r RunOptions,
    start: Instant,
    total: Option<usize>,
    window: usize,
    /// From the oldest row that is not written to the newest that has arrived.
    rows: VecDeque<Row<S::Key>>,
    /// Position of `rows[0]`.
    first_position: usize,
    /// Images that wait for their batch to fill, with their positions, ascending.
    buckets: HashMap<Size, Vec<(usize, Item)>>,
    pending_bytes: usize,
    /// Addressed by [`RowState::Ready`]; `None` is free to be used again.
    batches: Vec<Option<Batch>>,
    features_bytes: usize,
    /// Features whose allocations can be used again.
    spare: Vec<Features>,
    batch_pixels: Vec<f32>,
    encoded: usize,
    known: usize,
    skipped: usize,
    refused: usize,
    summary: Summary,
}

impl<S: Source + ?Sized> Driver<'_, '_, S> {
    fn drive(&mut self) -> Result<(), RunError> {
        loop {
            let position = self.first_position + self.rows.len();
            match self.loader.next(position, &self.options.cancel) {
                Next::Arrived(key, arrival) => self.arrive(position, key, arrival)?,
                Next::End => break,
                Next::Cancelled => return Err(RunError::Cancelled),
                Next::SourcePanicked(message) => return Err(RunError::Source { message }),
            }
            while self.rows.len() > self.window
                || self.pending_bytes.saturating_add(self.features_bytes) > self.options.memory_limit_bytes / 2
            {
                if !self.encode_oldest()? {
                    break;
                }
            }
        }
        while self.encode_oldest()? {}
        if self.options.cancel.is_cancelled() {
            return Err(RunError::Cancelled);
        }
        self.summary.elapsed = self.start.elapsed();
        self.sink.finish(&self.summary).map_err(RunError::Sink)
    }

    fn arrive(&mut self, position: usize, key: S::Key, arrival: Arrival) -> Result<(), RunError> {
        match arrival {
            Arrival::Item(item) => {
                let size = (item.height_px, item.width_px);
                let state = RowState::Waiting(size);
                self.rows.push_back(Row { key, state });
                self.pending_bytes += pixel_bytes(&item);
                let bucket = self.buckets.entry(size).or_default();
                bucket.push((position, item));
                let pixels = bucket.len() * size.0 * size.1;
                if bucket.len() >= self.options.batch_size || pixels >= MOST_BATCH_PIXELS {
                    self.encode(size)?;
                }
            }
            Arrival::Known => {
                self.known += 1;
                self.rows.push_back(Row { key, state: RowState::Known });
                self.write_ready_rows()?;
                self.report();
            }
            Arrival::Skipped => {
                self.rows.push_back(Row { key, state: RowState::Skipped });
                self.skipped += 1;
                self.write_ready_rows()?;
                self.report();
            }
            Arrival::Failed(error) => {
                let state = RowState::Failed(self.refuse(position, error)?);
                self.rows.push_back(Row { key, state });
                self.write_ready_rows()?;
                self.report();
            }
        }
        Ok(())
    }

    /// Counts a failure, and ends a strict run.
    fn refuse(&mut self, position: usize, error: ItemError) -> Result<ItemError, RunError> {
        if self.options.strict {
            return Err(RunError::Item { position, error });
        }
        self.refused += 1;
        Ok(error)
    }

    /// Encodes the batch of the oldest waiting image; false if none waits.
    fn encode_oldest(&mut self) -> Result<bool, RunError> {
        // Rows before the first waiting one are written at once, so it is the first row or there is none.
        match self.rows.front() {
            Some(Row { state: RowState::Waiting(size), .. }) => {
                let size = *size;
                self.encode(size)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn encode(&mut self, size: Size) -> Result<(), RunError> {
        if self.options.cancel.is_cancelled() {
            return Err(RunError::Cancelled);
        }
        let items = self.buckets.remove(&size).unwrap_or_default();
        let bytes = items.iter().map(|(_, item)| pixel_bytes(item)).sum();
        let (positions, mut items): (Vec<usize>, Vec<Item>) = items.into_iter().unzip();
        let alone;
        let pixels = if items.len() == 1 {
            alone = items.remove(0).pixels;
            &alone
        } else {
            self.batch_pixels.clear();
            for item in items {
                self.batch_pixels.extend_from_slice(&item.pixels);
            }
            &self.batch_pixels
        };
        let batch = ImageBatch { pixels, count: positions.len(), height_px: size.0, width_px: size.1 };
        let mut features = self.spare.pop().unwrap_or_default();
        let start = Instant::now();
        let encoded = self.encoder.encode(&batch, self.request, &mut features);
        self.summary.encode += start.elapsed();
        self.summary.batches += 1;
        self.pending_bytes -= bytes;
        self.loader.release(bytes);
        match encoded {
            Ok(()) => self.accept(positions, features)?,
            Err(
                error @ (EncodeError::UnsupportedPooling { .. }
                | EncodeError::TapOutOfRange { .. }
                | EncodeError::UnsortedTaps { .. }
                | EncodeError::NoHead { .. }),
            ) => return Err(RunError::Request(error)),
            Err(error) => {
                self.spare.push(features);
                for position in positions {
                    let error = ItemError::new(ItemErrorKind::Encode, error.to_string());
                    let error = self.refuse(position, error)?;
                    self.rows[position - self.first_position].state = RowState::Failed(error);
                }
            }
        }
        self.write_ready_rows()?;
        self.report();
        Ok(())
    }

    fn accept(&mut self, positions: Vec<usize>, features: Features) -> Result<(), RunError> {
        let (wanted, found) = (positions.len(), features.count);
        if wanted != found {
            let message = format!("{found} images instead of {wanted}");
            return Err(RunError::Encoder { message });
        }
        if let Some(message) = inconsistency(&features) {
            return Err(RunError::Encoder { message });
        }
        // No class could be told from scores that overflowed.
        let scores = features.logits.as_ref();
        let is_finite = |index| scores.is_none_or(|scores| scores.item(index).iter().all(|score| score.is_finite()));
        let (usable, overflowed): (Vec<_>, Vec<_>) =
            positions.into_iter().enumerate().partition(|(index, _)| is_finite(*index));
        for (_, position) in overflowed {
            let error =
                ItemError::new(ItemErrorKind::Encode, "a class score is not finite: the head's numbers overflow");
            let error = self.refuse(position, error)?;
            self.rows[position - self.first_position].state = RowState::Failed(error);
        }
        if usable.is_empty() {
            self.spare.push(features);
            return Ok(());
        }
        let bytes = arrays(&features).map(|array| size_of_val(array.data.as_slice())).sum();
        self.features_bytes += bytes;
        self.encoded += usable.len();
        let held = Some(Batch { features, bytes, rows_left: usable.len() });
        let batch = match self.batches.iter().position(Option::is_none) {
            Some(free) => {
                self.batches[free] = held;
                free
            }
            None => {
                self.batches.push(held);
                self.batches.len() - 1
            }
        };
        for (index, position) in usable {
            self.rows[position - self.first_position].state = RowState::Ready { batch, index };
        }
        Ok(())
    }

    /// Hands every row to the sink before which no other waits.
    fn write_ready_rows(&mut self) -> Result<(), RunError> {
        loop {
            if let Some(RowState::Waiting(_)) = self.rows.front().map(|row| &row.state) {
                return Ok(());
            }
            let Some(row) = self.rows.pop_front() else {
                return Ok(());
            };
            match row.state {
                RowState::Waiting(_) => {}
                RowState::Ready { batch, index } => self.write_row(&row.key, batch, index)?,
                RowState::Known => {
                    self.sink.known(&row.key).map_err(RunError::Sink)?;
                    self.summary.done += 1;
                    self.summary.known += 1;
                }
                RowState::Skipped => self.summary.skipped += 1,
                RowState::Failed(error) => {
                    self.sink.failed(&row.key, &error).map_err(RunError::Sink)?;
                    let position = self.first_position;
                    self.summary.failed.push(FailedItem { position, error });
                }
            }
            self.first_position += 1;
            self.loader.retire();
        }
    }

    fn write_row(&mut self, key: &S::Key, batch: usize, index: usize) -> Result<(), RunError> {
        let Some(held) = &mut self.batches[batch] else {
            // A batch is freed with its last row, so every row finds its batch.
            return Ok(());
        };
        let features = ImageFeatures::new_checked(&held.features, index);
        self.sink.write(key, features).map_err(RunError::Sink)?;
        self.summary.done += 1;
        held.rows_left -= 1;
        if held.rows_left == 0
            && let Some(held) = self.batches[batch].take()
        {
            self.features_bytes -= held.bytes;
            self.spare.push(held.features);
        }
        Ok(())
    }

    fn report(&self) {
        if let Some(progress) = &self.options.progress {
            progress(&Progress {
                done: self.encoded + self.known,
                known: self.known,
                skipped: self.skipped,
                failed: self.refused,
                total: self.total,
                elapsed: self.start.elapsed(),
            });
        }
    }
}
