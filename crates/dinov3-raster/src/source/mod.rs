//! Bytes of files, wherever they are.

mod file;
#[cfg(feature = "object-stores")]
mod object;
mod pool;
mod remote;
mod web;

use std::ops::Range;
use std::sync::Arc;

use tiff_reader::source::TiffSource;

use crate::RasterError;

pub(crate) use file::{LocalFile, MemoryFile};
#[cfg(feature = "object-stores")]
pub use object::StoreFolder;
#[cfg(feature = "object-stores")]
pub(crate) use object::Stores;
pub(crate) use pool::FetchPool;
pub(crate) use remote::RemoteFile;
pub(crate) use web::WebFile;

/// A file whose parts can be read in any order, by several threads at once.
pub(crate) trait ByteSource: Send + Sync {
    /// Its length.
    fn length_bytes(&self) -> u64;

    /// What names this version of it beside its length, if its server says so.
    fn version(&self) -> Option<&str> {
        None
    }

    /// Reads a part; a range beyond the end is [`RasterError::Damaged`], since only a file's own tables lead there.
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RasterError>;

    /// Fetches parts that will be read, concurrently; returns when they are here.
    fn fetch(&self, _ranges: &[Range<u64>]) -> Result<(), RasterError> {
        Ok(())
    }

    /// Begins to fetch parts that will be read.
    fn prefetch(&self, _ranges: &[Range<u64>]) {}

    /// Told once the file's index is read: from now on reads are of blocks.
    fn index_is_read(&self) {}
}

/// The range of this length, if the file has it.
pub(crate) fn checked_range(
    location: &str,
    offset: u64,
    length: u64,
    file_bytes: u64,
) -> Result<Range<u64>, RasterError> {
    match offset.checked_add(length) {
        Some(end) if end <= file_bytes => Ok(offset..end),
        _ => Err(RasterError::Damaged {
            location: location.to_string(),
            reason: format!("it names {length} bytes at {offset}, and has {file_bytes}"),
        }),
    }
}

/// What is said of a file that is read whole and is longer than the limit.
pub(crate) fn too_long(location: String, limit_bytes: u64) -> RasterError {
    RasterError::Io { location, reason: format!("it is longer than {limit_bytes} bytes") }
}

/// A source as the TIFF reader wants it. Our errors travel inside of its errors.
pub(crate) struct AsTiffSource {
    pub source: Arc<dyn ByteSource>,
    pub location: String,
}

impl TiffSource for AsTiffSource {
    fn len(&self) -> u64 {
        self.source.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, tiff_reader::TiffError> {
        let wrap = |error: RasterError| tiff_reader::TiffError::Io(std::io::Error::other(error), String::new());
        let range = checked_range(&self.location, offset, len as u64, self.source.length_bytes()).map_err(wrap)?;
        self.source.read(range).map_err(wrap)
    }
}
