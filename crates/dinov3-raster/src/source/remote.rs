//! Parts of a file on a server, fetched once, ahead and side by side.
//!
//! The index is read with growing steps: 64 KiB in the first request, and more where a large table needs it. Blocks are
//! fetched as the ranges that the tables name; ranges that lie side by side become one request. What was fetched for
//! blocks is dropped as soon as each of them was read, since decoded blocks are kept elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::pool::FetchPool;
use super::{ByteSource, checked_range};
use crate::RasterError;

/// The first request: header, directory and tables of most files.
const FIRST_REQUEST_BYTES: u64 = 64 << 10;
/// The longest step of reading an index.
const LONGEST_STEP_BYTES: u64 = 4 << 20;
/// Gaps up to this are fetched along: shorter than what a request costs.
const LARGEST_GAP_BYTES: u64 = 4 << 10;
/// Ranges are joined up to this length, so that one slow request does not hold up everything.
const LONGEST_JOINED_BYTES: u64 = 4 << 20;
/// What is held of a file for reads to come.
const HELD_BYTES: u64 = 64 << 20;

/// What tells one version of a file from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub length_bytes: u64,
    /// The entity tag.
    pub tag: Option<String>,
    /// When it was written, in the server's words.
    pub modified: Option<String>,
}

/// A part of a file.
pub(crate) struct Part {
    pub start: u64,
    pub bytes: Vec<u8>,
    pub version: Version,
}

/// A server that gives parts of one file. Failures that may pass were tried again already.
pub(crate) trait RangeServer: Send + Sync {
    /// The bytes of a range; fewer, if the file ends in it. A server may give the whole of a small file instead.
    fn get(&self, range: Range<u64>, known: Option<&Version>) -> Result<Part, RasterError>;
}

/// A file on a server.
pub(crate) struct RemoteFile {
    inner: Arc<Inner>,
    pool: Arc<FetchPool>,
}

struct Inner {
    server: Box<dyn RangeServer>,
    location: String,
    version: Version,
    reads_index: AtomicBool,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    /// By where they start.
    pieces: BTreeMap<u64, Piece>,
    held_bytes: u64,
    /// Being fetched: start and end.
    in_flight: BTreeMap<u64, u64>,
    in_flight_bytes: u64,
    /// Where a failed fetch ended and why, by where it started.
    failures: BTreeMap<u64, (u64, RasterError)>,
    /// The next step of reading the index.
    step_bytes: u64,
    clock: u64,
}

struct Piece {
    bytes: Arc<Vec<u8>>,
    arrived: u64,
    /// The ranges in it that were asked for and not yet read; a piece of the index has none and stays.
    unread: Vec<Range<u64>>,
    is_index: bool,
}

impl RemoteFile {
    /// Fetches the file's first bytes.
    pub fn open(server: Box<dyn RangeServer>, location: String, pool: Arc<FetchPool>) -> Result<Self, RasterError> {
        let part = server.get(0..FIRST_REQUEST_BYTES, None)?;
        let mut state = State { step_bytes: FIRST_REQUEST_BYTES, ..State::default() };
        state.keep(part.start, part.bytes, Vec::new(), true);
        let inner = Inner {
            server,
            location,
            version: part.version,
            reads_index: AtomicBool::new(true),
            state: Mutex::new(state),
            arrived: Condvar::new(),
        };
        Ok(Self { inner: Arc::new(inner), pool })
    }

    /// Begins to fetch what is neither here nor under way. Gives the requests.
    fn request(&self, ranges: &[Range<u64>], urgent: bool) -> Vec<Range<u64>> {
        let mut state = self.inner.lock();
        let mut missing: Vec<Range<u64>> = ranges.iter().filter(|range| !state.is_coming(range)).cloned().collect();
        missing.sort_by_key(|range| (range.start, range.end));
        missing.dedup();
        let requests = in_order_of_need(joined(missing), ranges);
        let mut begun = Vec::new();
        for (range, parts) in requests {
            let length = range.end - range.start;
            // What is needed now is fetched whatever is held; what may be needed waits for room.
            if !urgent && state.held_bytes + state.in_flight_bytes + length > HELD_BYTES {
                break;
            }
            state.failures.retain(|start, (end, _)| *end <= range.start || *start >= range.end);
            state.in_flight.insert(range.start, range.end);
            state.in_flight_bytes += length;
            begun.push((range, parts));
        }
        drop(state);
        let requests = begun.iter().map(|(range, _)| range.clone()).collect();
        for (range, parts) in begun {
            // A file that is closed meanwhile is not fetched any more.
            let inner = Arc::downgrade(&self.inner);
            self.pool.submit(urgent, move || Inner::fetch_if_open(&inner, range, parts));
        }
        requests
    }

    /// Waits until each range is here or has failed, and gives those that have failed, with their requests.
    fn wait_for(&self, ranges: &[Range<u64>]) -> Vec<Failed> {
        let mut failed = Vec::new();
        let mut state = self.inner.lock();
        // All of them, also after one has failed: a late failure would be told to the next one who reads.
        for range in ranges {
            // What is not under way was read by another thread meanwhile, and decoded: whoever misses it fetches it again.
            while !state.has(range) {
                if let Some((request, error)) = state.failure_of(range) {
                    failed.push(Failed { range: range.clone(), request, error });
                    break;
                }
                if !state.is_coming(range) {
                    break;
                }
                state = self.inner.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        failed
    }
}

/// A range that did not come, the request that it was a part of, and why.
struct Failed {
    range: Range<u64>,
    request: Range<u64>,
    error: RasterError,
}

/// Ranges that overlap or almost touch become one; each with those that it was made of.
fn joined(ranges: Vec<Range<u64>>) -> Vec<(Range<u64>, Vec<Range<u64>>)> {
    let mut joined: Vec<(Range<u64>, Vec<Range<u64>>)> = Vec::new();
    for range in ranges {
        if let Some((last, parts)) = joined.last_mut()
            && range.start <= last.end.saturating_add(LARGEST_GAP_BYTES)
            && range.end.max(last.end) - last.start <= LONGEST_JOINED_BYTES
        {
            last.end = last.end.max(range.end);
            parts.push(range);
        } else {
            joined.push((range.clone(), vec![range]));
        }
    }
    joined
}

/// The requests in the order in which the first of their parts were asked for.
fn in_order_of_need(
    mut requests: Vec<(Range<u64>, Vec<Range<u64>>)>,
    asked: &[Range<u64>],
) -> Vec<(Range<u64>, Vec<Range<u64>>)> {
    let places: HashMap<&Range<u64>, usize> =
        asked.iter().enumerate().rev().map(|(place, range)| (range, place)).collect();
    requests.sort_by_key(|(_, parts)| parts.iter().filter_map(|part| places.get(part)).min().copied());
    requests
}

impl ByteSource for RemoteFile {
    fn length_bytes(&self) -> u64 {
        self.inner.version.length_bytes
    }

    fn version(&self) -> Option<&str> {
        let version = &self.inner.version;
        version.tag.as_deref().or(version.modified.as_deref())
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RasterError> {
        let inner = &self.inner;
        let length = range.end.saturating_sub(range.start);
        checked_range(&inner.location, range.start, length, inner.version.length_bytes)?;
        let mut state = inner.lock();
        loop {
            if let Some(bytes) = state.take(&range) {
                return Ok(bytes);
            }
            if !state.is_coming(&range) {
                break;
            }
            state = inner.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.reads_index.load(Ordering::Relaxed) {
            let wanted = state.next_step(&range, inner.version.length_bytes);
            drop(state);
            let bytes = inner.get(wanted.clone())?;
            let mut state = inner.lock();
            state.keep(wanted.start, bytes, Vec::new(), true);
            return state.take(&range).ok_or_else(|| inner.short(&range));
        }
        drop(state);
        inner.get(range)
    }

    fn fetch(&self, ranges: &[Range<u64>]) -> Result<(), RasterError> {
        let requests = self.request(ranges, true);
        let failed = self.wait_for(ranges);
        let (own, of_others): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|failed| requests.contains(&failed.request));
        if let Some(first) = own.into_iter().next() {
            return Err(first.error);
        }
        // A request that was begun ahead, for many, says little of a few of its ranges.
        let again: Vec<_> = of_others.into_iter().map(|failed| failed.range).collect();
        self.request(&again, true);
        self.wait_for(&again).into_iter().next().map_or(Ok(()), |failed| Err(failed.error))
    }

    fn prefetch(&self, ranges: &[Range<u64>]) {
        self.request(ranges, false);
    }

    fn index_is_read(&self) {
        self.inner.reads_index.store(false, Ordering::Relaxed);
        // From here on the index is in its parsed form; only the file's beginning may hold blocks too.
        let mut state = self.inner.lock();
        let later: Vec<u64> = state.pieces.range(1..).map(|(start, _)| *start).collect();
        later.into_iter().for_each(|start| state.drop_piece(start));
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch_if_open(inner: &Weak<Self>, range: Range<u64>, parts: Vec<Range<u64>>) {
        let Some(inner) = inner.upgrade() else { return };
        // Whoever waits for the range must hear of it, whatever happens.
        let result = catch_unwind(AssertUnwindSafe(|| inner.get(range.clone()))).unwrap_or_else(|_| {
            let reason = "the client panicked".to_string();
            Err(RasterError::Io { location: inner.location.clone(), reason })
        });
        let mut state = inner.lock();
        state.in_flight.remove(&range.start);
        state.in_flight_bytes -= range.end - range.start;
        match result {
            Ok(bytes) => state.keep(range.start, bytes, parts, false),
            Err(error) => {
                state.failures.insert(range.start, (range.end, error));
            }
        }
        drop(state);
        inner.arrived.notify_all();
    }

    /// Exactly this range, of the version that was opened.
    fn get(&self, range: Range<u64>) -> Result<Vec<u8>, RasterError> {
        let part = self.server.get(range.clone(), Some(&self.version))?;
        if let Some(reason) = self.difference(&part.version) {
            return Err(RasterError::Changed { location: self.location.clone(), reason });
        }
        let from = range.start.checked_sub(part.start).and_then(|from| usize::try_from(from).ok());
        let length = (range.end - range.start) as usize;
        match from {
            Some(0) if part.bytes.len() == length => Ok(part.bytes),
            Some(from) => part
                .bytes
                .get(from..)
                .and_then(|bytes| bytes.get(..length))
                .map(<[u8]>::to_vec)
                .ok_or_else(|| self.short(&range)),
            None => Err(self.short(&range)),
        }
    }

    fn difference(&self, now: &Version) -> Option<String> {
        let known = &self.version;
        if known.length_bytes != now.length_bytes {
            return Some(format!("{} bytes became {}", known.length_bytes, now.length_bytes));
        }
        match (&known.tag, &now.tag) {
            (Some(known), Some(now)) => (known != now).then(|| "its ETag is another".to_string()),
            _ => (known.modified != now.modified).then(|| "its date is another".to_string()),
        }
    }

    fn short(&self, range: &Range<u64>) -> RasterError {
        let reason = format!("the server gave fewer bytes than asked for at {}", range.start);
        RasterError::Io { location: self.location.clone(), reason }
    }
}

impl State {
    /// The piece that holds a range.
    fn piece_of(&self, range: &Range<u64>) -> Option<u64> {
        // Pieces may overlap; one that begins earlier may reach further, but is then found by a second look.
        let mut candidates = self.pieces.range(..=range.start).rev();
        candidates.find(|(start, piece)| **start + piece.bytes.len() as u64 >= range.end).map(|(start, _)| *start)
    }

    fn has(&self, range: &Range<u64>) -> bool {
        self.piece_of(range).is_some()
    }

    fn is_coming(&self, range: &Range<u64>) -> bool {
        self.has(range) || self.in_flight.range(..=range.start).any(|(_, end)| *end >= range.end)
    }

    fn failure_of(&self, range: &Range<u64>) -> Option<(Range<u64>, RasterError)> {
        let mut failures = self.failures.range(..=range.start);
        let (start, (end, error)) = failures.find(|(_, (end, _))| *end >= range.end)?;
        (!self.is_coming(range)).then(|| (*start..*end, error.clone()))
    }

    /// The bytes of a range that is here; a piece whose parts were all read is dropped.
    fn take(&mut self, range: &Range<u64>) -> Option<Vec<u8>> {
        let start = self.piece_of(range)?;
        let piece = self.pieces.get_mut(&start)?;
        let from = (range.start - start) as usize;
        let bytes = piece.bytes.get(from..from + (range.end - range.start) as usize)?.to_vec();
        // Ranges were asked for with the four bytes before and behind a block, which are read or not.
        piece.unread.retain(|part| !(range.start <= part.start + 4 && range.end + 4 >= part.end));
        if piece.unread.is_empty() && !piece.is_index {
            self.drop_piece(start);
        }
        Some(bytes)
    }

    fn keep(&mut self, start: u64, bytes: Vec<u8>, unread: Vec<Range<u64>>, is_index: bool) {
        self.drop_piece(start);
        self.clock += 1;
        self.held_bytes += bytes.len() as u64;
        self.pieces.insert(start, Piece { bytes: Arc::new(bytes), arrived: self.clock, unread, is_index });
        while self.held_bytes > HELD_BYTES {
            // What came first and was never read.
            let oldest = self.pieces.iter().filter(|(_, piece)| !piece.is_index).min_by_key(|(_, piece)| piece.arrived);
            match oldest.map(|(start, piece)| (*start, piece.arrived)) {
                Some((start, arrived)) if arrived != self.clock => self.drop_piece(start),
                _ => break,
            }
        }
    }

    fn drop_piece(&mut self, start: u64) {
        if let Some(piece) = self.pieces.remove(&start) {
            self.held_bytes -= piece.bytes.len() as u64;
        }
    }

    /// What to fetch when a part of the index is missing: it, and more and more behind it.
    fn next_step(&mut self, range: &Range<u64>, length_bytes: u64) -> Range<u64> {
        self.step_bytes = (self.step_bytes * 4).min(LONGEST_STEP_BYTES);
        range.start..range.end.max(range.start.saturating_add(self.step_bytes)).min(length_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_fetched_together() {
        let parts = |range: &[(u64, u64)]| range.iter().map(|(start, end)| *start..*end).collect::<Vec<_>>();
        let found = joined(parts(&[(100, 200), (200, 300), (350, 400), (10_000, 10_100)]));
        assert_eq!(
            found.iter().map(|(range, parts)| (range.clone(), parts.len())).collect::<Vec<_>>(),
            [(100..400, 3), (10_000..10_100, 1)]
        );
        let long = joined(parts(&[(0, 3 << 20), (3 << 20, 6 << 20)]));
        assert_eq!(long.len(), 2);
    }

    /// Zeros; of long ranges, nothing, and that after a while.
    #[derive(Default)]
    struct OfShortRanges {
        asked: Arc<Mutex<Vec<Range<u64>>>>,
    }

    impl RangeServer for OfShortRanges {
        fn get(&self, range: Range<u64>, _: Option<&Version>) -> Result<Part, RasterError> {
            self.asked.lock().unwrap().push(range.clone());
            let (start, length) = (range.start, (range.end - range.start) as usize);
            if start > 0 && length > 1000 {
                std::thread::sleep(std::time::Duration::from_millis(300));
                return Err(RasterError::Io { location: "here".to_owned(), reason: "too long".to_owned() });
            }
            let version = Version { length_bytes: 1 << 30, ..Version::default() };
            Ok(Part { start, bytes: vec![0; length], version })
        }
    }

    #[test]
    fn what_failed_with_others_is_asked_for_again() {
        let server = OfShortRanges::default();
        let asked = Arc::clone(&server.asked);
        let file = RemoteFile::open(Box::new(server), "here".to_owned(), Arc::new(FetchPool::new(2))).unwrap();
        file.index_is_read();
        let blocks: Vec<Range<u64>> =
            (0..4).map(|block| (1 << 20) + block * 500..(1 << 20) + (block + 1) * 500).collect();
        file.prefetch(&blocks);
        file.fetch(&blocks[1..2]).unwrap();
        file.fetch(&blocks[3..]).unwrap();
        assert_eq!(file.read(blocks[3].clone()).unwrap().len(), 500);
        // What a window itself asks for is tried once.
        let before = asked.lock().unwrap().len();
        assert!(file.fetch(&blocks[..3]).unwrap_err().to_string().contains("too long"));
        assert_eq!(asked.lock().unwrap().len(), before + 1);
    }

    #[test]
    fn what_is_needed_first_is_asked_for_first() {
        let asked = [50_000..50_100, 10..20, 50_100..50_200, 20..30, 90_000..90_001, 50_000..50_100];
        let mut missing = asked.to_vec();
        missing.sort_by_key(|range| (range.start, range.end));
        missing.dedup();
        let requests = in_order_of_need(joined(missing), &asked);
        let found: Vec<_> = requests.into_iter().map(|(range, _)| range).collect();
        assert_eq!(found, [50_000..50_200, 10..30, 90_000..90_001]);
    }
}
