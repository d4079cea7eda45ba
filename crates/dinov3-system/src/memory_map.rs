//! Read-only view of a whole file, mapped where the platform can map.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

#[cfg(any(unix, windows))]
type Bytes = memmap2::Mmap;
#[cfg(not(any(unix, windows)))]
type Bytes = Vec<u8>;

/// The bytes of a file. Clones share one mapping.
///
/// The file must not be shortened while it is mapped: the operating system then raises a bus error on access.
#[derive(Clone)]
pub struct MappedFile {
    /// None for an empty file, which some platforms refuse to map.
    bytes: Option<Arc<Bytes>>,
}

impl MappedFile {
    /// Opens and maps `path`.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        // Asked before opening: opening a pipe would wait for its other end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(MappedFile { bytes: None });
        }
        Ok(MappedFile { bytes: Some(Arc::new(read(file)?)) })
    }

    /// Says that a range of bytes was read and is not needed soon: its pages no longer count as this process's
    /// memory, though the system may keep them cached. Reading them again is allowed and gives the same bytes.
    pub fn release(&self, range: Range<usize>) {
        let range = range.start.min(self.len())..range.end.min(self.len());
        if let Some(bytes) = self.bytes.as_deref().filter(|_| !range.is_empty()) {
            advise_not_needed(bytes, range);
        }
    }
}

#[cfg(any(unix, windows))]
fn read(file: File) -> io::Result<Bytes> {
    // SAFETY: the mapping is private and read-only. That no other process shortens or rewrites the file meanwhile
    // cannot be proved here; the type's documentation passes that condition on.
    unsafe { memmap2::Mmap::map(&file) }
}

#[cfg(unix)]
fn advise_not_needed(bytes: &Bytes, range: Range<usize>) {
    // SAFETY: the mapping is of a file and read-only, so what is dropped comes back from the file unchanged.
    // That the advice fails costs nothing.
    let _ = unsafe { bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
}

#[cfg(not(unix))]
fn advise_not_needed(_bytes: &Bytes, _range: Range<usize>) {}

#[cfg(not(any(unix, windows)))]
fn read(mut file: File) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_deref().map_or(&[], |bytes| bytes)
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MappedFile").field("bytes", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_full_empty_and_missing_files() {
        let folder = std::env::temp_dir().join(format!("dinov3-map-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let full = folder.join("full");
        std::fs::write(&full, b"abc").unwrap();
        let mapped = MappedFile::open(&full).unwrap();
        let clone = mapped.clone();
        drop(mapped);
        assert_eq!(&*clone, b"abc");
        for range in [0..3, 1..2, 2..9, 7..9] {
            clone.release(range);
            assert_eq!(&*clone, b"abc");
        }
        let empty = folder.join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(MappedFile::open(&empty).unwrap().is_empty());
        assert!(MappedFile::open(&folder.join("missing")).is_err());
        assert!(MappedFile::open(&folder).is_err());
        drop(clone);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
