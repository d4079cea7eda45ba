//! Files that appear whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::OutputError;

/// Distinguishes the temporary files of this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

const BUFFER_BYTES: usize = 1 << 18;

/// A hidden file that vanishes with its owner, unless it is renamed before.
pub(crate) struct Temporary {
    path: PathBuf,
    /// `None` once it is closed.
    file: Option<BufWriter<File>>,
    keep: bool,
}

impl Temporary {
    /// A new file in `folder`.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            // Short and without the target's name, which may be as long as a name can be.
            let path = folder.join(format!(".dinov3-{}-{number}.tmp", std::process::id()));
            let mut options = OpenOptions::new();
            match options.read(true).write(true).create_new(true).open(&path) {
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

    fn open(&mut self) -> io::Result<&mut BufWriter<File>> {
        let closed = || io::Error::other("the file is closed");
        self.file.as_mut().ok_or_else(closed)
    }

    /// Everything written so far, from the beginning.
    pub(crate) fn rewind(&mut self) -> io::Result<&mut File> {
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

impl Drop for Temporary {
    fn drop(&mut self) {
        // Without its buffer, which would only be written to be removed.
        if let Some(file) = self.file.take() {
            drop(file.into_parts());
        }
        if !self.keep {
            // Nobody is left to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file that appears under its name, whole and on disk, when [`AtomicFile::commit`] is called, replacing what was
/// there. Dropped before that, it leaves nothing behind, and what was there stays.
///
/// Until then its content is in a hidden temporary file in the same folder, `.dinov3-PID-N.tmp`; only a killed
/// process leaves one behind.
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
        let mut target = path.clone();
        match fs::metadata(&path) {
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
            // Not there yet; or unreachable, which creating the temporary file will say.
            Err(_) => {}
        }
        if target.file_name().is_none() || ends_with_separator(&path) {
            return Err(OutputError::IsFolder { path });
        }
        let folder = folder_of(&target);
        match Temporary::new(&folder) {
            Ok(temporary) => Ok(Self { path, target, temporary }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OutputError::MissingFolder { path, folder }),
            Err(source) => Err(OutputError::Create { path, source }),
        }
    }

    /// The file's name once it is committed, as given to [`AtomicFile::create`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn folder(&self) -> PathBuf {
        folder_of(&self.target)
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
            file.get_ref().sync_all()
        };
        sync(&mut self.temporary).map_err(OutputError::write(&self.path))
    }

    /// Completes the file and makes it appear.
    ///
    /// # Errors
    /// If the disk does not take it; the target is unchanged then.
    pub fn commit(mut self) -> Result<(), OutputError> {
        self.sync()?;
        // Some systems do not rename open files.
        self.temporary.file = None;
        if let Err(source) = fs::rename(&self.temporary.path, &self.target) {
            let path = self.path;
            return Err(OutputError::Commit { path, source });
        }
        self.temporary.keep = true;
        // The content is safe and the file is there; not every file system can also confirm the name.
        #[cfg(unix)]
        if let Ok(folder) = File::open(self.folder()) {
            let _ = folder.sync_all();
        }
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
        self.temporary.open()?.seek(position)
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
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
