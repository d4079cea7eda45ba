//! Loading ahead on several threads, within bounds, without ever standing still.
//!
//! Threads take keys in order and load them at the same time; the driver fetches the results in order. A load may
//! start while the rows in flight and the bytes held stay within bounds. How large an image is shows only once it
//! is decoded, so until then it counts as much as a recent large one did. So that the bounds cannot block a run for
//! good, one load may always start when nothing is loading and the driver waits for it.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::options::CancelToken;
use crate::source::{Item, ItemError, ItemErrorKind, Source};

/// How often a waiting driver looks at the cancel token.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// What became of a key.
pub(crate) enum Arrival {
    Item(Item),
    /// Not loaded: the sink has its row.
    Known,
    /// Shall have no row.
    Skipped,
    Failed(ItemError),
}

/// What the driver gets when it asks for the next position.
pub(crate) enum Next<K> {
    Arrived(K, Arrival),
    End,
    Cancelled,
    /// The key iterator panicked.
    SourcePanicked(String),
}

struct State<K> {
    /// Loaded, not yet fetched; by position.
    arrived: BTreeMap<usize, (K, Arrival)>,
    /// Keys handed out.
    taken: usize,
    /// Rows that the sink has got.
    retired: usize,
    /// Loads under way.
    loading: usize,
    /// Pixels loaded and not yet encoded.
    held_bytes: usize,
    /// What a load counts before its size is known.
    estimate_bytes: usize,
    /// The driver has nothing to do.
    waiting: bool,
    exhausted: bool,
    stop: bool,
    panicked: Option<String>,
}

/// Shared by the loader threads and the driver.
pub(crate) struct Loader<'s, S: Source + ?Sized> {
    source: &'s S,
    /// Held by the one thread that is next to take a key, also while it waits for room.
    keys: Mutex<Box<dyn Iterator<Item = S::Key> + Send + 's>>,
    state: Mutex<State<S::Key>>,
    changed: Condvar,
    limit_rows: usize,
    limit_bytes: usize,
}

/// Locks. No code of ours panics while it holds one of the locks, and foreign code runs inside `catch_unwind`.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn pixel_bytes(item: &Item) -> usize {
    size_of_val(item.pixels.as_slice())
}

impl<'s, S: Source + ?Sized> Loader<'s, S> {
    pub(crate) fn new(source: &'s S, limit_rows: usize, limit_bytes: usize) -> Self {
        let state = State {
            arrived: BTreeMap::new(),
            taken: 0,
            retired: 0,
            loading: 0,
            held_bytes: 0,
            estimate_bytes: 0,
            waiting: false,
            exhausted: false,
            stop: false,
            panicked: None,
        };
        Self {
            source,
            keys: Mutex::new(source.keys()),
            state: Mutex::new(state),
            changed: Condvar::new(),
            limit_rows,
            limit_bytes,
        }
    }

    /// What a loader thread does until the keys end or the driver stops.
    pub(crate) fn work(&self) {
        while let Some((position, key)) = self.take_key() {
            let arrival = catch_unwind(AssertUnwindSafe(|| self.load(&key))).unwrap_or_else(|panic| {
                let message = format!("loading panicked: {}", panic_message(&*panic));
                Arrival::Failed(ItemError::new(ItemErrorKind::Panicked, message))
            });
            let mut state = lock(&self.state);
            state.loading -= 1;
            if let Arrival::Item(item) = &arrival {
                let bytes = pixel_bytes(item);
                state.held_bytes += bytes;
                // Follows a larger image at once and forgets it over the next ones.
                state.estimate_bytes = bytes.max(state.estimate_bytes / 8 * 7);
            }
            state.arrived.insert(position, (key, arrival));
            drop(state);
            self.changed.notify_all();
        }
    }

    fn load(&self, key: &S::Key) -> Arrival {
        if self.source.is_known(key) {
            return Arrival::Known;
        }
        match self.source.load(key).and_then(|item| item.map(checked).transpose()) {
            Ok(Some(item)) => Arrival::Item(item),
            Ok(None) => Arrival::Skipped,
            Err(error) => Arrival::Failed(error),
        }
    }

    fn take_key(&self) -> Option<(usize, S::Key)> {
        let mut keys = lock(&self.keys);
        let mut state = lock(&self.state);
        while !(state.stop || state.exhausted || self.has_room(&state)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop || state.exhausted {
            return None;
        }
        state.loading += 1;
        drop(state);
        // Outside the lock of the state: listing a folder may take its time.
        let next = catch_unwind(AssertUnwindSafe(|| keys.next()));
        let mut state = lock(&self.state);
        let key = next.unwrap_or_else(|panic| {
            state.panicked = Some(panic_message(&*panic));
            None
        });
        match key {
            Some(key) => {
                let position = state.taken;
                state.taken += 1;
                Some((position, key))
            }
            None => {
                state.loading -= 1;
                state.exhausted = true;
                drop(state);
                self.changed.notify_all();
                None
            }
        }
    }

    fn has_room(&self, state: &State<S::Key>) -> bool {
        let expected = (state.loading + 1).saturating_mul(state.estimate_bytes);
        let fits = state.taken - state.retired < self.limit_rows
            && state.held_bytes.saturating_add(expected) <= self.limit_bytes;
        fits || (state.waiting && state.loading == 0 && state.arrived.is_empty())
    }

    /// Waits for the image at `position`.
    pub(crate) fn next(&self, position: usize, cancel: &CancelToken) -> Next<S::Key> {
        let mut state = lock(&self.state);
        loop {
            if cancel.is_cancelled() {
                return Next::Cancelled;
            }
            if let Some((key, arrival)) = state.arrived.remove(&position) {
                return Next::Arrived(key, arrival);
            }
            if state.exhausted && state.taken <= position {
                return match state.panicked.take() {
                    Some(message) => Next::SourcePanicked(message),
                    None => Next::End,
                };
            }
            state.waiting = true;
            self.changed.notify_all();
            state = self.changed.wait_timeout(state, CANCEL_POLL).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting = false;
        }
    }

    /// Pixels were encoded and dropped.
    pub(crate) fn release(&self, bytes: usize) {
        lock(&self.state).held_bytes -= bytes;
        self.changed.notify_all();
    }

    /// A row has gone to the sink.
    pub(crate) fn retire(&self) {
        lock(&self.state).retired += 1;
        self.changed.notify_all();
    }

    fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_all();
    }
}

/// Ends the loader threads when the driver leaves, also by a panic: the scope would wait for them for ever.
pub(crate) struct StopOnDrop<'l, 's, S: Source + ?Sized>(pub(crate) &'l Loader<'s, S>);

impl<S: Source + ?Sized> Drop for StopOnDrop<'_, '_, S> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// An item of the wrong length would spoil the batch that it joins; alone it is only one failure.
fn checked(item: Item) -> Result<Item, ItemError> {
    let (height, width, found) = (item.height_px, item.width_px, item.pixels.len());
    let expected = height.checked_mul(width).and_then(|area| area.checked_mul(3));
    if expected == Some(found) {
        return Ok(item);
    }
    let message = format!("an image of 3x{height}x{width} came with {found} values");
    Err(ItemError::new(ItemErrorKind::Other, message))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "no message".to_owned()
    }
}
