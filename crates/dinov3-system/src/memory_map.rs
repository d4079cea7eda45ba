//! Read-only view of a whole file, mapped where the platform can map.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
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
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Ok(MappedFile { bytes: None });
        }
        Ok(MappedFile { bytes: Some(Arc::new(read(File::open(path)?)?)) })
    }
}

#[cfg(any(unix, windows))]
fn read(file: File) -> io::Result<Bytes> {
    // SAFETY: the mapping is private and read-only. That no other process shortens or rewrites the file meanwhile
    // cannot be proved here; the type's documentation passes that condition on.
    unsafe { memmap2::Mmap::map(&file) }
}

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
        let empty = folder.join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(MappedFile::open(&empty).unwrap().is_empty());
        assert!(MappedFile::open(&folder.join("missing")).is_err());
        assert!(MappedFile::open(&folder).is_err());
        drop(clone);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
