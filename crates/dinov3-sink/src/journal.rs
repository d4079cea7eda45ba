//! What an interrupted run has done already: the rows of an output that is not finished.
//!
//! One hidden file beside the output, `.OUT.dinov3-journal`, appended to and never changed:
//!
//! ```text
//! "dinov3 journal 2"                               16 bytes
//! record*
//! record  = length u32, CRC-32 of the payload u32, payload (length bytes, at least 1); all little-endian
//! payload = 0, JSON                                the fingerprint; the first record and no other
//!         | kind, name length u32, details length u32, name, stamp, details, f32*
//! kind    = 1: a row that the next run may take, if its image still has this stamp
//!         | 2: a row that only this run knows to be good: it has no stamp, and zeros in its place
//! stamp   = size u64, modified i64, file id u64
//! details = what the row's output keeps beside its vectors; of an image nothing
//! ```
//!
//! A row is written with one call, so a killed process leaves at most one torn record, the last one; reading ends
//! before it, and the next run cuts it off. What else is damaged is told: rows behind a damaged one are not taken, and
//! a journal whose rows are all behind the damage is refused. The name of a row may come twice (its image has changed,
//! or was named twice): the last one counts.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use dinov3_engine::SinkError;
use serde_json::{Map, Value, json};

use crate::atomic::{hidden_beside, remove_leftovers, sidecar, target_of};
use crate::disk::{self, DiskFile, folder_of};
use crate::error::OutputError;
use crate::layout::EmbeddingLayout;

const MAGIC: &[u8; 16] = b"dinov3 journal 2";
const FINGERPRINT: u8 = 0;
const ROW: u8 = 1;
const UNSTAMPED_ROW: u8 = 2;

/// Length and checksum before a payload.
const HEAD_BYTES: usize = 8;
/// Kind and both lengths before a row's name.
const ROW_HEAD_BYTES: usize = 9;
const STAMP_BYTES: usize = 24;

/// How long a row may be in the system's memory only: what a power failure costs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process writes the same output.
    #[error("{}: another run is writing it", output.display())]
    InUse {
        /// The output.
        output: PathBuf,
    },
    /// Something else lies where the journal should be.
    #[error("{}: is not a journal of this version; delete it to start afresh", path.display())]
    NotAJournal {
        /// The journal.
        path: PathBuf,
    },
    /// The interrupted run would have given other values.
    #[error("{}: the interrupted run had {}", output.display(), told_difference(field, expected, found))]
    Differs {
        /// The output.
        output: PathBuf,
        /// The first field of the fingerprint that differs, with dots between its parts.
        field: String,
        /// Its value now.
        expected: String,
        /// Its value in the journal.
        found: String,
    },
    /// There were rows in it, and a damaged byte before them hides them all.
    #[error("{}: the journal of an interrupted run is damaged, none of its rows can be read", output.display())]
    Unreadable {
        /// The output.
        output: PathBuf,
    },
    /// A row that was there when the journal was opened is not any more.
    #[error("{}: the row of {row} is damaged", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The image.
        row: String,
    },
    /// The journal cannot be read or written.
    #[error("{}: the journal cannot be {operation}: {source}", path.display())]
    Disk {
        /// The journal.
        path: PathBuf,
        /// `read`, `written` or `removed`.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There cannot be such an output.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl From<JournalError> for SinkError {
    fn from(error: JournalError) -> Self {
        SinkError::new(error)
    }
}

/// What tells whether an image has changed since its row was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Stamp {
    size_bytes: u64,
    modified_ns: i64,
    // Serialised for people and for comparison with a copy elsewhere.
    #[serde(skip)]
    file_id: u64,
}

impl Stamp {
    /// The stamp of a file: size, time of the last change and, on Unix, inode. Nothing if it cannot be reached.
    pub fn of_file(path: &Path) -> Option<Self> {
        let information = std::fs::metadata(path).ok()?;
        let modified_ns = match information.modified().ok()?.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos() as i64,
            Err(before) => -(before.duration().as_nanos() as i64),
        };
        Some(Self { size_bytes: information.len(), modified_ns, file_id: disk::file_id(&information) })
    }

    /// The stamp of what has no file here: its size, and whatever names this version of it to whom it belongs, such as
    /// the `ETag` of an HTTP server or the version of an object.
    pub fn of_version(size_bytes: u64, version: &str) -> Self {
        // FNV-1a: versions differ by accident, never by design.
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let file_id = version.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, hash);
        Self { size_bytes, modified_ns: 0, file_id }
    }

    /// The stamp of an image that is made of several files, and of a text that belongs to it.
    pub fn of_several(stamps: &[Self], text: &str) -> Self {
        let size_bytes = stamps.iter().fold(0, |sum: u64, stamp| sum.wrapping_add(stamp.size_bytes));
        let each: Vec<String> = stamps.iter().map(|stamp| format!("{stamp:?}")).collect();
        Self::of_version(size_bytes, &format!("{} {text}", each.join(" ")))
    }

    /// The size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The last change of a file, in nanoseconds since 1970; 0 for something that is not a file of this machine.
    pub fn modified_ns(&self) -> i64 {
        self.modified_ns
    }

    /// Of [`Stamp::of_version`]: a hash of the version.
    pub fn version_hash(&self) -> u64 {
        self.file_id
    }

    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.modified_ns.to_le_bytes());
        bytes[16..].copy_from_slice(&self.file_id.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; STAMP_BYTES]) -> Self {
        let [size_bytes, modified_ns, file_id] = [0, 8, 16].map(|at| std::array::from_fn(|index| bytes[at + index]));
        Self {
            size_bytes: u64::from_le_bytes(size_bytes),
            modified_ns: i64::from_le_bytes(modified_ns),
            file_id: u64::from_le_bytes(file_id),
        }
    }
}

/// Where a row is in the journal.
#[derive(Clone, Copy)]
struct Place {
    /// Of its record.
    start: u64,
    stamp: Stamp,
    values: usize,
}

/// The rows of an earlier run, by name.
#[derive(Default)]
pub struct KnownRows(HashMap<Box<str>, Place>);

impl KnownRows {
    /// Whether there is a row of this name, of an image that has not changed since.
    pub fn has(&self, name: &str, stamp: Stamp) -> bool {
        self.0.get(name).is_some_and(|place| place.stamp == stamp)
    }
}

/// What a row holds beside its name and stamp.
pub(crate) struct JournalRow {
    pub(crate) details: Vec<u8>,
    /// One vector after the other.
    pub(crate) values: Vec<f32>,
}

/// The parts of a row's record.
struct RowView<'a> {
    name: &'a str,
    /// Nothing if the next run cannot tell whether it is still good.
    stamp: Option<Stamp>,
    details: &'a [u8],
    values: &'a [[u8; 4]],
}

/// The rows of an output that is not finished. Keeps every other process that has a journal from writing it.
///
/// Opened before a run, [agreed on](Journal::agree) when everything that decides the values is known, and given to
/// [`JournaledSource`](crate::JournaledSource) and [`JournaledSink`](crate::JournaledSink). Dropped, it stays on disk
/// if there are rows in it.
pub struct Journal {
    /// As the user said it.
    output: PathBuf,
    target: PathBuf,
    path: PathBuf,
    file: DiskFile,
    /// Left by an earlier process.
    inherited: bool,
    fingerprint: Option<Value>,
    known: Arc<KnownRows>,
    /// The end of the last whole record.
    end: u64,
    rows: usize,
    unsynced_rows: usize,
    synced: Instant,
    safe: Arc<AtomicUsize>,
    record: Vec<u8>,
    /// Bytes at its end that are neither whole records nor what a killed process leaves.
    damaged_bytes: u64,
    /// Whether it may go when there are no rows in it: it was read, and is one of ours.
    disposable: bool,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal of `output`, or starts one, and reads what is in it. Nothing is changed yet.
    ///
    /// # Errors
    /// If another process has it, if something else lies there, or if it cannot be read.
    pub fn open(output: impl AsRef<Path>) -> Result<Self, JournalError> {
        let output = output.as_ref().to_owned();
        let target = target_of(&output)?;
        let path = hidden_beside(&target, "journal");
        let (file, inherited) = loop {
            // A link, too: it is none of ours.
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                return Err(JournalError::NotAJournal { path });
            }
            let opened = DiskFile::open_to_append(&path);
            let (file, inherited) = opened.map_err(|source| OutputError::create(&output, &target, source))?;
            if !file.lock() {
                return Err(JournalError::InUse { output });
            }
            // Its last owner may have removed it in between.
            if file.is_at(&path) {
                break (file, inherited);
            }
        };
        let mut journal = Self {
            output,
            target,
            path,
            file,
            inherited,
            fingerprint: None,
            known: Arc::default(),
            end: 0,
            rows: 0,
            unsynced_rows: 0,
            synced: Instant::now(),
            safe: Arc::default(),
            record: Vec::new(),
            damaged_bytes: 0,
            disposable: false,
        };
        journal.read_all()?;
        // Rows that cannot be read are not rows that are not there.
        journal.disposable = journal.damaged_bytes == 0;
        Ok(journal)
    }

    /// The hidden file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Rows that are in it.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that this run may take, if their images have not changed: a name counts once.
    pub fn known_rows(&self) -> usize {
        self.known.0.len()
    }

    /// Bytes behind the last readable row that are damaged, and more than a killed process leaves; 0 if all is well.
    pub fn damaged_bytes(&self) -> u64 {
        self.damaged_bytes
    }

    /// An error if there were rows in it and none can be read any more. [`Journal::discard`] makes it usable again.
    ///
    /// # Errors
    /// [`JournalError::Unreadable`].
    pub fn check(&self) -> Result<(), JournalError> {
        match self.rows == 0 && self.damaged_bytes > 0 {
            true => Err(JournalError::Unreadable { output: self.output.clone() }),
            false => Ok(()),
        }
    }

    /// Forgets the rows of the interrupted run. Call [`Journal::agree`] next: without it, the journal goes.
    pub fn discard(&mut self) {
        self.fingerprint = None;
        self.known = Arc::default();
        self.rows = 0;
        self.damaged_bytes = 0;
        self.disposable = true;
    }

    /// Makes sure that the rows in it are those that this run would make; without rows, starts it anew.
    ///
    /// `fingerprint` is an object with all that decides the values of a row, beside its image. The layout and the
    /// name of the output are added here.
    ///
    /// # Errors
    /// If the interrupted run's fingerprint was another one, if its rows cannot be read, or if the journal cannot be
    /// written.
    pub fn agree(&mut self, fingerprint: Map<String, Value>, layout: &EmbeddingLayout) -> Result<(), JournalError> {
        self.check()?;
        let mut fingerprint = Value::Object(fingerprint);
        let columns = layout.columns().iter().map(|column| json!([column.name, column.width]));
        fingerprint["columns"] = columns.collect();
        fingerprint["output"] = json!(self.output.file_name().unwrap_or_default().to_string_lossy());
        // Read back as the other one was, so that decimal numbers went the same way.
        let text = fingerprint.to_string();
        let expected = serde_json::from_str(&text).unwrap_or(fingerprint);
        match &self.fingerprint {
            Some(found) if self.rows > 0 => {
                if let Some((field, expected, found)) = first_difference("", &expected, found) {
                    let output = self.output.clone();
                    return Err(JournalError::Differs { output, field, expected, found });
                }
                self.file.set_len(self.end).map_err(self.failed("written"))?;
            }
            _ => {
                self.start(text.as_bytes()).map_err(self.failed("written"))?;
                self.fingerprint = Some(expected);
            }
        }
        // A row of another length would be a forgery: its checksum and the fingerprint fit.
        let values: usize = layout.columns().iter().map(|column| column.width).sum();
        if let Some(known) = Arc::get_mut(&mut self.known) {
            known.0.retain(|_, place| place.values == values);
        }
        if self.inherited {
            self.remove_leftovers();
        }
        Ok(())
    }

    /// Temporary files of a killed process, or that could not be removed at first.
    fn remove_leftovers(&self) {
        remove_leftovers(&self.target);
        if let Ok(sidecar) = target_of(&sidecar(&self.output)) {
            remove_leftovers(&sidecar);
        }
    }

    fn start(&mut self, fingerprint: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(MAGIC)?;
        self.end = MAGIC.len() as u64;
        self.append(|payload| {
            payload.push(FINGERPRINT);
            payload.extend_from_slice(fingerprint);
        })?;
        self.file.sync()?;
        disk::sync_folder(&folder_of(&self.path));
        Ok(())
    }

    fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let record = &mut self.record;
        record.clear();
        record.extend_from_slice(&[0; HEAD_BYTES]);
        fill(record);
        let payload = &record[HEAD_BYTES..];
        let length = u32::try_from(payload.len()).map_err(|_| io::Error::other("a row of more than 4 GiB"))?;
        let checksum = crc32fast::hash(payload);
        record[..4].copy_from_slice(&length.to_le_bytes());
        record[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all(record)?;
        self.end += record.len() as u64;
        Ok(())
    }

    /// Adds a row that the next run may take. Without a stamp, nobody could tell then whether its image is still the
    /// same: it is counted and not kept.
    pub(crate) fn row(&mut self, name: &str, stamp: Option<Stamp>, vectors: &[&[f32]]) -> Result<(), JournalError> {
        match stamp {
            Some(_) => self.append_row(name, stamp, &[], vectors).map(drop),
            None => {
                self.safe.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Adds a row and gives its place, for [`Journal::row_at`]; without a stamp, only this run will find it. It is safe
    /// after the next [`Journal::sync`], which comes by itself within a second or with the next row.
    pub(crate) fn append_row(
        &mut self,
        name: &str,
        stamp: Option<Stamp>,
        details: &[u8],
        vectors: &[&[f32]],
    ) -> Result<u64, JournalError> {
        let start = self.end;
        let fill = |payload: &mut Vec<u8>| {
            payload.push(if stamp.is_some() { ROW } else { UNSTAMPED_ROW });
            payload.extend_from_slice(&(name.len() as u32).to_le_bytes());
            payload.extend_from_slice(&(details.len() as u32).to_le_bytes());
            payload.extend_from_slice(name.as_bytes());
            payload.extend_from_slice(&stamp.map_or([0; STAMP_BYTES], Stamp::to_bytes));
            payload.extend_from_slice(details);
            payload.extend(vectors.iter().copied().flatten().flat_map(|value| value.to_le_bytes()));
        };
        self.append(fill).map_err(self.failed("written"))?;
        match stamp {
            Some(_) => {
                self.rows += 1;
                self.unsynced_rows += 1;
            }
            // There is nothing to wait for.
            None => _ = self.safe.fetch_add(1, Ordering::Relaxed),
        }
        if self.synced.elapsed() >= SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(start)
    }

    /// Brings all rows to disk and counts them as safe.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced_rows > 0 {
            self.file.sync().map_err(self.failed("written"))?;
            self.safe.fetch_add(std::mem::take(&mut self.unsynced_rows), Ordering::Relaxed);
        }
        self.synced = Instant::now();
        Ok(())
    }

    /// A known row, taken into this run's output, and its place.
    pub(crate) fn known_row(&mut self, name: &str) -> Result<(u64, JournalRow), JournalError> {
        let place = self.known.0.get(name).copied();
        let start = place.ok_or_else(|| self.damaged(name))?.start;
        let row = self.row_at(start, name)?;
        self.safe.fetch_add(1, Ordering::Relaxed);
        Ok((start, row))
    }

    /// The row of this name that starts there.
    pub(crate) fn row_at(&mut self, start: u64, name: &str) -> Result<JournalRow, JournalError> {
        // Appending is not disturbed: it always goes to the end.
        self.file.seek(SeekFrom::Start(start)).map_err(self.failed("read"))?;
        let length = self.end - start;
        let payload = read_record(&mut self.file, length).map_err(self.failed("read"))?;
        match payload.as_deref().and_then(parse_row) {
            Some(row) if row.name == name => {
                let values = row.values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                Ok(JournalRow { details: row.details.to_vec(), values })
            }
            _ => Err(self.damaged(name)),
        }
    }

    /// A row that was whole when the journal was opened is not any more.
    pub(crate) fn damaged(&self, name: &str) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), row: name.to_owned() }
    }

    /// The output, as the user said it.
    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    /// The rows of an earlier run.
    pub fn known(&self) -> Arc<KnownRows> {
        Arc::clone(&self.known)
    }

    /// Rows of this run's output that nothing can take away any more: known ones that were used, and synced ones. Rows
    /// that are not kept count, too: there is nothing to wait for.
    pub(crate) fn safe_rows(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.safe)
    }

    /// The output is there.
    pub(crate) fn remove(&mut self) -> Result<(), JournalError> {
        // While the lock is held.
        self.remove_leftovers();
        disk::remove(&self.path).map_err(self.failed("removed"))?;
        self.disposable = false;
        Ok(())
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.path.clone();
        move |source| JournalError::Disk { path, operation, source }
    }

    fn read_all(&mut self) -> Result<(), JournalError> {
        let failed = self.failed("read");
        let mut read = || -> io::Result<Option<()>> {
            let length = self.file.len()?;
            let mut reader = BufReader::with_capacity(1 << 18, &mut self.file);
            let mut magic = Vec::new();
            reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
            if magic != MAGIC {
                // A start that did not reach the disk, or something else.
                let unwritten = magic.iter().all(|&byte| byte == 0) && only_zeros(&mut reader)?;
                return Ok((MAGIC.starts_with(&magic) || unwritten).then_some(()));
            }
            self.end = MAGIC.len() as u64;
            let mut known = KnownRows::default();
            while let Some(payload) = read_record(&mut reader, length - self.end)? {
                match (payload[0], &self.fingerprint) {
                    (FINGERPRINT, None) => match serde_json::from_slice(&payload[1..]) {
                        Ok(fingerprint) => self.fingerprint = Some(fingerprint),
                        Err(_) => break,
                    },
                    (ROW | UNSTAMPED_ROW, Some(_)) => {
                        let Some(row) = parse_row(&payload) else { break };
                        if let Some(stamp) = row.stamp {
                            let place = Place { start: self.end, stamp, values: row.values.len() };
                            known.0.insert(row.name.into(), place);
                            self.rows += 1;
                        }
                    }
                    _ => break,
                }
                self.end += (HEAD_BYTES + payload.len()) as u64;
            }
            self.known = Arc::new(known);
            let left = length - self.end;
            reader.seek(SeekFrom::Start(self.end))?;
            let torn = match &self.fingerprint {
                None => is_torn_fingerprint(&mut reader)?,
                Some(fingerprint) => is_torn_row(&mut reader, left, values_of(fingerprint))?,
            };
            self.damaged_bytes = if torn { 0 } else { left };
            Ok(Some(()))
        };
        match read().map_err(failed)? {
            Some(()) => Ok(()),
            None => Err(JournalError::NotAJournal { path: self.path.clone() }),
        }
    }
}

/// Removes the journal that was kept beside a finished output, if there is one that nobody has.
///
/// # Errors
/// If it cannot be removed.
pub fn remove_journal(output: impl AsRef<Path>) -> Result<(), JournalError> {
    let path = hidden_beside(&target_of(output.as_ref())?, "journal");
    let remove = || match DiskFile::open_to_append(&path) {
        Ok((file, _)) if !file.lock() => Ok(()),
        _ => disk::remove(&path),
    };
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => remove(),
        _ => Ok(()),
    }
    .map_err(|source| JournalError::Disk { path, operation: "removed", source })
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.rows == 0 && self.disposable {
            // Nobody is left to tell.
            let _ = disk::remove(&self.path);
        }
    }
}

/// The payload of the record that starts here; nothing if no whole one of at most `length` bytes does. It has at
/// least one byte.
fn read_record(reader: &mut impl Read, length: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(available) = length.checked_sub(HEAD_BYTES as u64) else { return Ok(None) };
    let mut head = [0; HEAD_BYTES];
    reader.read_exact(&mut head)?;
    let [a, b, c, d, checksum @ ..] = head;
    let bytes = u32::from_le_bytes([a, b, c, d]);
    if bytes == 0 || u64::from(bytes) > available {
        return Ok(None);
    }
    let mut payload = vec![0; bytes as usize];
    reader.read_exact(&mut payload)?;
    Ok((crc32fast::hash(&payload) == u32::from_le_bytes(checksum)).then_some(payload))
}

/// Values of a row, as the fingerprint tells them.
fn values_of(fingerprint: &Value) -> u64 {
    let columns = fingerprint["columns"].as_array().map_or(&[][..], Vec::as_slice);
    columns.iter().filter_map(|column| column[1].as_u64()).fold(0, u64::saturating_add).min(u32::MAX.into())
}

/// Whether the rest of the file, `left` bytes, is what a killed process or a power failure leaves of the last row of
/// so many values, and not damage with rows behind it.
fn is_torn_row(reader: &mut impl BufRead, left: u64, values: u64) -> io::Result<bool> {
    let mut start = Vec::new();
    reader.by_ref().take((HEAD_BYTES + ROW_HEAD_BYTES) as u64).read_to_end(&mut start)?;
    let Some(&[a, b, c, d, _, _, _, _, kind, e, f, g, h, i, j, k, l]) = start.first_chunk() else { return Ok(true) };
    let [announced, name, details] =
        [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(|bytes| u64::from(u32::from_le_bytes(bytes)));
    // A damaged length says something else than the rest does.
    let expected = ROW_HEAD_BYTES as u64 + name + STAMP_BYTES as u64 + details + 4 * values;
    let sound = matches!(kind, ROW | UNSTAMPED_ROW) && announced == expected;
    if sound && HEAD_BYTES as u64 + announced >= left {
        return Ok(true);
    }
    Ok(start.iter().all(|&byte| byte == 0) && only_zeros(reader)?)
}

/// The same for the fingerprint, the first record: a text, of which the end is missing or zeros. Rows are no text.
fn is_torn_fingerprint(reader: &mut impl BufRead) -> io::Result<bool> {
    reader.by_ref().take(HEAD_BYTES as u64 + 1).read_to_end(&mut Vec::new())?;
    loop {
        let bytes = reader.fill_buf()?;
        let text = bytes.iter().take_while(|&&byte| byte >= b' ').count();
        let ends = text == 0 || text < bytes.len();
        reader.consume(text);
        if ends {
            return only_zeros(reader);
        }
    }
}

fn only_zeros(reader: &mut impl BufRead) -> io::Result<bool> {
    for byte in reader.bytes() {
        if byte? != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn parse_row(payload: &[u8]) -> Option<RowView<'_>> {
    let (&kind, rest) = payload.split_first()?;
    let (name_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (details_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*name_bytes) as usize)?;
    let (stamp, rest) = rest.split_first_chunk::<STAMP_BYTES>()?;
    let (details, values) = rest.split_at_checked(u32::from_le_bytes(*details_bytes) as usize)?;
    let (values, []) = values.as_chunks::<4>() else { return None };
    let stamp = match kind {
        ROW => Some(Stamp::from_bytes(stamp)),
        UNSTAMPED_ROW => None,
        _ => return None,
    };
    Some(RowView { name: std::str::from_utf8(name).ok()?, stamp, details, values })
}

/// What differs, for people. Files are lists of names and stamps, of which the names say enough.
fn told_difference(field: &str, expected: &str, found: &str) -> String {
    let names = |text: &str| -> Option<Vec<String>> {
        let files: Vec<(String, Value)> = serde_json::from_str(text).ok()?;
        (!files.is_empty()).then(|| files.into_iter().map(|(name, _)| name).collect())
    };
    match (field, names(expected), names(found)) {
        ("columns", ..) | (_, None, _) | (_, _, None) => {
            format!("another {field}: it was {found}, and is {expected} now")
        }
        (_, Some(expected), Some(found)) if expected == found => {
            format!("other {field} ({} changed)", found.join(", "))
        }
        (_, Some(expected), Some(found)) => {
            format!("other {field}: {}, and not {}", found.join(", "), expected.join(", "))
        }
    }
}

/// The first field whose values differ, and both values.
fn first_difference(field: &str, expected: &Value, found: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(expected), Value::Object(found)) = (expected, found) {
        let mut names: Vec<&String> = expected.keys().chain(found.keys()).collect();
        names.sort();
        return names.into_iter().find_map(|name| {
            let field = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            let value = |object: &Map<String, Value>| object.get(name).cloned().unwrap_or_default();
            first_difference(&field, &value(expected), &value(found))
        });
    }
    (expected != found).then(|| (field.to_owned(), expected.to_string(), found.to_string()))
}
