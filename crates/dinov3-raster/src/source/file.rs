//! Files of this machine.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use super::{ByteSource, checked_range};
use crate::RasterError;

/// An open file. Reads name their position, so threads do not wait for each other.
pub(crate) struct LocalFile {
    file: File,
    location: String,
    length_bytes: u64,
    modified: Option<SystemTime>,
}

impl LocalFile {
    pub fn open(path: &Path) -> Result<Self, RasterError> {
        let location = path.display().to_string();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => RasterError::NotFound { location: location.clone() },
            io::ErrorKind::PermissionDenied => {
                RasterError::Denied { location: location.clone(), reason: error.to_string() }
            }
            _ => RasterError::Io { location: location.clone(), reason: error.to_string() },
        };
        // Before it is opened: opening a pipe waits for someone who writes.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(RasterError::Io { location, reason: "it is not a file".to_string() });
        }
        let file = File::open(path).map_err(failed)?;
        let information = file.metadata().map_err(failed)?;
        Ok(Self { file, length_bytes: information.len(), modified: information.modified().ok(), location })
    }

    fn check_unchanged(&self) -> Result<(), RasterError> {
        let changed = |reason: String| RasterError::Changed { location: self.location.clone(), reason };
        let now = self.file.metadata().map_err(|error| changed(error.to_string()))?;
        if now.len() != self.length_bytes {
            return Err(changed(format!("{} bytes became {}", self.length_bytes, now.len())));
        }
        match now.modified().ok() == self.modified {
            true => Ok(()),
            false => Err(changed("it was written to".to_string())),
        }
    }
}

impl ByteSource for LocalFile {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RasterError> {
        let length = range.end.saturating_sub(range.start);
        checked_range(&self.location, range.start, length, self.length_bytes)?;
        self.check_unchanged()?;
        let mut bytes = vec![0; length as usize];
        read_exact_at(&self.file, &mut bytes, range.start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                RasterError::Changed { location: self.location.clone(), reason: "it became shorter".to_string() }
            }
            _ => RasterError::Io { location: self.location.clone(), reason: error.to_string() },
        })?;
        Ok(bytes)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                bytes = &mut bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A file in memory.
pub(crate) struct MemoryFile {
    pub location: String,
    pub bytes: Vec<u8>,
}

impl ByteSource for MemoryFile {
    fn length_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RasterError> {
        let length = range.end.saturating_sub(range.start);
        let range = checked_range(&self.location, range.start, length, self.length_bytes())?;
        Ok(self.bytes[range.start as usize..range.end as usize].to_vec())
    }
}
