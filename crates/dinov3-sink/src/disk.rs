//! The operations on files that an output consists of, in one place, so that a test can let each of them fail.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

#[cfg(test)]
pub(crate) mod faults;

/// An open file.
#[derive(Debug)]
pub(crate) struct DiskFile(File);

impl DiskFile {
    /// A new file; an error if there is one.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        may_fail()?;
        OpenOptions::new().read(true).write(true).create_new(true).open(path).map(Self)
    }

    /// A file that is read anywhere and written at its end, and whether it was there before.
    pub(crate) fn open_to_append(path: &Path) -> io::Result<(Self, bool)> {
        may_fail()?;
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        match options.clone().create_new(true).open(path) {
            Ok(file) => Ok((Self(file), false)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((Self(options.open(path)?), true)),
            Err(error) => Err(error),
        }
    }

    /// Whether this process is now the only one that holds the file. A file system without locks says yes.
    pub(crate) fn lock(&self) -> bool {
        !matches!(self.0.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Whether the file of this name is held by nobody; on a file system without locks that cannot be known.
    pub(crate) fn is_abandoned(path: &Path) -> bool {
        // Not through a link, and not waiting for a pipe.
        let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        is_file && File::open(path).is_ok_and(|file| file.try_lock().is_ok())
    }

    /// Whether the file still has this name.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        match (self.0.metadata(), fs::metadata(path)) {
            (Ok(open), Ok(named)) => file_id(&open) == file_id(&named),
            _ => false,
        }
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    pub(crate) fn set_len(&self, bytes: u64) -> io::Result<()> {
        may_fail()?;
        self.0.set_len(bytes)
    }

    /// Brings the content to disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        may_fail()?;
        self.0.sync_all()
    }
}

impl Read for DiskFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        may_fail()?;
        self.0.read(bytes)
    }
}

impl Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        may_fail()?;
        self.0.write(&bytes[..writable(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for DiskFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    may_fail()?;
    fs::rename(from, to)
}

pub(crate) fn remove(path: &Path) -> io::Result<()> {
    may_fail()?;
    fs::remove_file(path)
}

pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    may_fail()?;
    fs::create_dir(path)
}

/// With all that is in it.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    may_fail()?;
    fs::remove_dir_all(path)
}

/// Exchanges two names in one step, where the system can.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    may_fail()?;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (one, other);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Brings the names in a folder to disk. Not every file system can, and the content is safe already.
pub(crate) fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}

/// What stays the same when a file is written to, and differs between files; 0 where nobody knows.
pub(crate) fn file_id(information: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::ino(information);
    #[cfg(not(unix))]
    {
        let _ = information;
        0
    }
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(not(test))]
fn may_fail() -> io::Result<()> {
    Ok(())
}

#[cfg(not(test))]
fn writable(bytes: usize) -> usize {
    bytes
}

#[cfg(test)]
use faults::{may_fail, writable};
