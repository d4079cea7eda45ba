//! Files that appear whole or not at all.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::atomic_folder::remove_abandoned_folder;
use crate::disk::{self, DiskFile, folder_of};
use crate::error::OutputError;
use crate::zarr;

/// Distinguishes the temporary files of this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

const BUFFER_BYTES: usize = 1 << 18;

/// Names of outputs that are longer are shortened in the names of the hidden files beside them.
const LONGEST_NAME_BYTES: usize = 100;

/// How many links are followed to a file that is not there yet; Linux's own limit.
const MOST_LINKS: usize = 40;

/// Between an output's name and the rest of a hidden one.
const MARK: &str = ".dinov3-";

/// The ending of temporary files.
const TEMPORARY: &str = ".tmp";

/// Folders that this process has cleared of leftovers.
static CLEARED: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// A hidden file that vanishes with its owner, unless it is renamed before. It is locked as long as its owner lives, so
/// that others can tell it from what a killed process left.
pub(crate) struct Temporary {
    path: PathBuf,
    /// `None` once it is closed.
    file: Option<BufWriter<DiskFile>>,
    keep: bool,
}

impl Temporary {
    /// A new file beside `target`.
    pub(crate) fn beside(target: &Path) -> io::Result<Self> {
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = hidden_beside(target, &format!("{}-{number}{TEMPORARY}", std::process::id()));
            match DiskFile::create_new(&path) {
                // Another process may have taken it for abandoned before it was locked, and removed it.
                Ok(file) if !file.lock() || !file.is_at(&path) => {}
                Ok(file) => {
                    let file = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
                    let keep = false;
                    return Ok(Self { path, file, keep });
                }
                // Left by a killed process that had the same id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the file stay where it is: it is no longer locked when its owner has gone.
    pub(crate) fn leave(&mut self) {
        self.keep = true;
    }

    fn open(&mut self) -> io::Result<&mut BufWriter<DiskFile>> {
        let closed = || io::Error::other("the file is closed");
        self.file.as_mut().ok_or_else(closed)
    }

    /// Reads what was written there. Seek before writing again.
    pub(crate) fn read_at(&mut self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        let file = self.open()?;
        file.seek(SeekFrom::Start(start))?;
        file.get_mut().read_exact(bytes)
    }

    /// Everything written so far, from the beginning.
    pub(crate) fn rewind(&mut self) -> io::Result<&mut DiskFile> {
        let file = self.open()?;
        file.flush()?;
        let file = file.get_mut();
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl Seek for Temporary {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.open()?.seek(position)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Without its buffer, which would only be written to be removed.
        if let Some(file) = self.file.take() {
            drop(file.into_parts());
        }
        if !self.keep {
            // Nobody is left to tell.
            let _ = disk::remove(&self.path);
        }
    }
}

/// A file that appears under its name, whole and on disk, when [`AtomicFile::commit`] is called, replacing what was
/// there. Dropped before that, it leaves nothing behind, and what was there stays.
///
/// Until then its content is in a hidden temporary file in the same folder, `.NAME.dinov3-PID-N.tmp`. Only a killed
/// process leaves one behind, and the next process that creates an output in that folder removes it: a living owner
/// holds a lock. Where the file system has no locks, it stays.
pub struct AtomicFile {
    /// As the user said it.
    path: PathBuf,
    /// The same with symbolic links followed, so that they are not replaced themselves.
    target: PathBuf,
    temporary: Temporary,
}

impl std::fmt::Debug for AtomicFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AtomicFile").field("path", &self.path).field("temporary", &self.temporary.path).finish()
    }
}

impl AtomicFile {
    /// Starts a file. What can be known to go wrong at the end goes wrong here.
    ///
    /// # Errors
    /// If `path` is a folder or a device, if its folder is missing, or if that cannot be written to.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, OutputError> {
        let path = path.as_ref().to_owned();
        let target = target_of(&path)?;
        clear_folder_once(&folder_of(&target));
        match Temporary::beside(&target) {
            Ok(temporary) => Ok(Self { path, target, temporary }),
            Err(source) => Err(OutputError::create(&path, &target, source)),
        }
    }

    /// The file's name once it is committed, as given to [`AtomicFile::create`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What [`AtomicFile::path`] leads to.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// A further temporary file of the same output.
    pub(crate) fn another(&self) -> Result<Temporary, OutputError> {
        Temporary::beside(&self.target).map_err(|source| OutputError::create(&self.path, &self.target, source))
    }

    /// Brings everything written so far to disk. [`AtomicFile::commit`] does so too; called before, it lets several
    /// files be completed before the first of them appears.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn sync(&mut self) -> Result<(), OutputError> {
        let sync = |temporary: &mut Temporary| {
            let file = temporary.open()?;
            file.flush()?;
            file.get_ref().sync()
        };
        sync(&mut self.temporary).map_err(OutputError::write(&self.path))
    }

    /// Completes the file and makes it appear.
    ///
    /// # Errors
    /// If the disk does not take it; the target is unchanged then.
    pub fn commit(mut self) -> Result<(), OutputError> {
        self.sync()?;
        // Some systems do not rename open files. Elsewhere the lock shall hold until nobody can take it for a leftover.
        if cfg!(not(unix)) {
            self.temporary.file = None;
        }
        if let Err(source) = disk::rename(&self.temporary.path, &self.target) {
            let path = self.path;
            return Err(OutputError::Commit { path, source });
        }
        self.temporary.keep = true;
        disk::sync_folder(&folder_of(&self.target));
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.temporary.seek(position)
    }
}

/// The file, or the Zarr store, that an output of this name will be, with symbolic links followed.
pub(crate) fn target_of(path: &Path) -> Result<PathBuf, OutputError> {
    let path = path.to_owned();
    let mut target = path.clone();
    let is_store = zarr::is_store_name(&path);
    match fs::metadata(&path) {
        Ok(_) if is_store && zarr::is_own_store(&path) => {
            if let Ok(resolved) = fs::canonicalize(&path) {
                target = resolved;
            }
        }
        // What may be anything is not removed as a whole.
        Ok(_) if is_store => return Err(OutputError::NotAStore { path }),
        Ok(existing) if existing.is_dir() => return Err(OutputError::IsFolder { path }),
        Ok(existing) if !existing.is_file() => return Err(OutputError::NotAFile { path }),
        Ok(_) => {
            if let Ok(resolved) = fs::canonicalize(&path) {
                target = resolved;
            }
        }
        // Found now and not when it is renamed, after the run.
        Err(source) if source.kind() == io::ErrorKind::InvalidFilename => {
            return Err(OutputError::Create { path, source });
        }
        // Not there yet; or unreachable, which creating the temporary file will say. A link may lead there.
        Err(source) => {
            let mut followed = 0;
            while let Ok(next) = fs::read_link(&target) {
                followed += 1;
                if followed > MOST_LINKS {
                    return Err(OutputError::Create { path, source });
                }
                target = folder_of(&target).join(next);
            }
        }
    }
    if target.file_name().is_none() || (ends_with_separator(&path) && !is_store) {
        return Err(OutputError::IsFolder { path });
    }
    Ok(target)
}

/// `.NAME.dinov3-ENDING` beside the file NAME, which may be as long as a name can be: a long one is shortened.
pub(crate) fn hidden_beside(target: &Path, ending: &str) -> PathBuf {
    let mut name = hidden_prefix(target.file_name().unwrap_or_default());
    name.push(ending);
    folder_of(target).join(name)
}

fn hidden_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    match name.len() <= LONGEST_NAME_BYTES {
        true => prefix.push(name),
        false => prefix.push(format!("{:08x}", crc32fast::hash(name.as_encoded_bytes()))),
    }
    prefix.push(MARK);
    prefix
}

/// The hidden folder that goes with a temporary file.
pub(crate) fn content_of(temporary: &Path) -> PathBuf {
    let mut name = OsString::from(temporary);
    name.push(".content");
    PathBuf::from(name)
}

/// Removes the temporary files and folders that killed processes left of `target`.
pub(crate) fn remove_leftovers(target: &Path) {
    let prefix = hidden_prefix(target.file_name().unwrap_or_default());
    remove_abandoned(&folder_of(target), Some(target), &|name| name.strip_prefix(prefix.as_encoded_bytes()));
}

/// Removes what killed processes left of any output in this folder, once per process: a folder may have a million files.
pub(crate) fn clear_folder_once(folder: &Path) {
    let first = CLEARED.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
    if first {
        remove_abandoned(folder, None, &|name| {
            let marked = name.windows(MARK.len()).rposition(|bytes| bytes == MARK.as_bytes())?;
            (name.starts_with(b".") && marked > 1).then(|| &name[marked + MARK.len()..])
        });
    }
}

/// Removes temporary files that nobody holds, with their folders; they may all be of one `target`. `ending` gives what
/// follows on the prefix in names that have it.
fn remove_abandoned(folder: &Path, target: Option<&Path>, ending: &dyn Fn(&[u8]) -> Option<&[u8]>) {
    let is_digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let is_temporary = |name: &OsStr| {
        let rest = ending(name.as_encoded_bytes());
        let middle = rest.and_then(|rest| rest.strip_suffix(TEMPORARY.as_bytes())).unwrap_or_default();
        let mut parts = middle.split(|&byte| byte == b'-');
        let (process, number, more) = (parts.next(), parts.next(), parts.next());
        process.is_some_and(is_digits) && number.is_some_and(is_digits) && more.is_none()
    };
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| is_temporary(&entry.file_name())) {
        let path = entry.path();
        if DiskFile::is_abandoned(&path) {
            // Only room on the disk: a later run will try again.
            let _ = remove_abandoned_folder(&content_of(&path), target).and_then(|()| disk::remove(&path));
        }
    }
}

/// `a/` means a folder, which [`Path`] forgets.
fn ends_with_separator(path: &Path) -> bool {
    let last = path.as_os_str().as_encoded_bytes().last();
    last.is_some_and(|&byte| std::path::is_separator(char::from(byte)))
}

/// The name of the file that says more about `path`: `out.npy.json` for `out.npy`. The whole name is kept, so that
/// `out.npy` and `out.jsonl` can live in one folder.
pub(crate) fn sidecar(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".json");
    PathBuf::from(name)
}

/// Writes values as little-endian bytes.
pub(crate) fn write_f32(file: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = [0; 4096];
    for values in values.chunks(bytes.len() / 4) {
        for (bytes, value) in bytes.chunks_exact_mut(4).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        file.write_all(&bytes[..values.len() * 4])?;
    }
    Ok(())
}
