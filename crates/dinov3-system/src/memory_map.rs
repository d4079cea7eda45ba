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
type Bytes = aligned::AlignedBytes;

/// The bytes of a file, the first of which lies at a multiple of 64. Clones share one mapping.
///
/// The file must not be shortened while it is mapped: the operating system then raises a bus error on access.
#[derive(Clone)]
pub struct MappedFile {
    /// None for an empty file, which some platforms refuse to map.
    bytes: Option<Arc<Mapping>>,
}

struct Mapping {
    bytes: Bytes,
    /// Kept for advice about the page cache.
    #[cfg(target_os = "linux")]
    file: File,
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
        let bytes = read(&file)?;
        #[cfg(target_os = "linux")]
        let mapping = Mapping { bytes, file };
        #[cfg(not(target_os = "linux"))]
        let mapping = Mapping { bytes };
        Ok(MappedFile { bytes: Some(Arc::new(mapping)) })
    }

    /// Says that a range of bytes was read and is not needed soon: its pages no longer count as this process's
    /// memory, though the system may keep them cached. Reading them again is allowed and gives the same bytes.
    pub fn release(&self, range: Range<usize>) {
        let range = range.start.min(self.len())..range.end.min(self.len());
        if let Some(mapping) = self.bytes.as_deref().filter(|_| !range.is_empty()) {
            advise_not_needed(&mapping.bytes, range);
        }
    }

    /// [`MappedFile::release`], and the system need not keep the pages cached either: for a file that is larger than
    /// the memory, so that what was used makes room for what comes next and not for something that would be needed.
    pub fn discard(&self, range: Range<usize>) {
        let range = range.start.min(self.len())..range.end.min(self.len());
        self.release(range.clone());
        #[cfg(target_os = "linux")]
        if let Some(mapping) = self.bytes.as_deref().filter(|_| !range.is_empty()) {
            use std::os::fd::AsRawFd;
            // SAFETY: the descriptor is open as long as the mapping lives. Only clean pages are dropped, and that the
            // advice fails costs nothing.
            let _ = unsafe {
                libc::posix_fadvise(
                    mapping.file.as_raw_fd(),
                    range.start as libc::off_t,
                    range.len() as libc::off_t,
                    libc::POSIX_FADV_DONTNEED,
                )
            };
        }
    }

    /// Brings a range into memory and returns when it is there: for a thread that runs ahead of those that compute.
    pub fn prefetch(&self, range: Range<usize>) {
        /// The system reads no more than this ahead at one piece of advice.
        const ADVICE_BYTES: usize = 128 << 10;
        const PIECE_BYTES: usize = 8 << 20;
        const PAGE_BYTES: usize = 4096;
        let range = range.start.min(self.len())..range.end.min(self.len());
        let piece_from = |start: usize| start.min(range.end)..range.end.min(start.saturating_add(PIECE_BYTES));
        let advise = |piece: Range<usize>| {
            for part in piece.clone().step_by(ADVICE_BYTES) {
                self.advise_needed(part..piece.end.min(part + ADVICE_BYTES));
            }
        };
        advise(piece_from(range.start));
        for start in range.clone().step_by(PIECE_BYTES) {
            // A piece ahead, so that the disk is never without work.
            advise(piece_from(start + PIECE_BYTES));
            // Touched, so that the pages are in the process's table too, and this thread no further than the disk.
            let touched = piece_from(start).step_by(PAGE_BYTES).fold(0, |sum: u8, page| sum ^ self[page]);
            std::hint::black_box(touched);
        }
    }

    fn advise_needed(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(mapping) = self.bytes.as_deref().filter(|_| !range.is_empty()) {
            let _ = mapping.bytes.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

#[cfg(any(unix, windows))]
fn read(file: &File) -> io::Result<Bytes> {
    // SAFETY: the mapping is private and read-only. That no other process shortens or rewrites the file meanwhile
    // cannot be proved here; the type's documentation passes that condition on.
    unsafe { memmap2::Mmap::map(file) }
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
fn read(file: &File) -> io::Result<Bytes> {
    aligned::AlignedBytes::read(file)
}

/// For platforms that do not map: the whole file in memory.
#[cfg(any(test, not(any(unix, windows))))]
mod aligned {
    use std::io::{self, Read};
    use std::ops::Deref;

    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    struct Line([u8; 64]);

    pub(super) struct AlignedBytes {
        lines: Vec<Line>,
        length: usize,
    }

    impl AlignedBytes {
        pub(super) fn read(mut reader: impl Read) -> io::Result<Self> {
            let (mut lines, mut length) = (Vec::new(), 0);
            loop {
                let mut line = Line([0; 64]);
                let mut filled = 0;
                while filled < line.0.len() {
                    match reader.read(&mut line.0[filled..]) {
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                if filled > 0 {
                    lines.push(line);
                    length += filled;
                }
                if filled < 64 {
                    return Ok(Self { lines, length });
                }
            }
        }
    }

    impl Deref for AlignedBytes {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            // SAFETY: a line is 64 bytes without gaps, and no more of them are taken than were read.
            unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_deref().map_or(&[], |mapping| &mapping.bytes)
    }
}

/// Numbers of which any bits are a value.
pub trait Plain: Copy + Send + Sync + sealed::Sealed + 'static {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
    impl Sealed for i32 {}
}

impl Plain for f32 {}
impl Plain for u32 {}
impl Plain for i32 {}

/// A run of numbers in a mapped file, in the machine's byte order. It keeps the mapping.
pub struct MappedValues<T> {
    /// Keeps the mapping that `start` points into.
    _file: MappedFile,
    start: *const T,
    length: usize,
}

// SAFETY: the values are only read, and the mapping, which is shared by reference count, outlives them.
unsafe impl<T: Plain> Send for MappedValues<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for MappedValues<T> {}

impl<T: Plain> MappedValues<T> {
    /// The values in a range of bytes; `None` if the file does not have the range, if it does not start at a multiple
    /// of the type's size, or if its length is none.
    pub fn new(file: &MappedFile, range: Range<usize>) -> Option<Self> {
        let size = size_of::<T>();
        let bytes = file.get(range)?;
        let start = bytes.as_ptr().cast::<T>();
        (start.is_aligned() && bytes.len().is_multiple_of(size)).then(|| Self {
            _file: file.clone(),
            start,
            length: bytes.len() / size,
        })
    }
}

impl<T: Plain> Deref for MappedValues<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: aligned and inside the mapping (checked when made), which `self._file` keeps; any bits are a value.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

/// Numbers in memory or in a mapped file: who reads them need not know.
pub enum Values<T> {
    /// In memory.
    Owned(Vec<T>),
    /// In a file.
    Mapped(MappedValues<T>),
}

impl<T: Plain> Deref for Values<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Values::Owned(values) => values,
            Values::Mapped(values) => values,
        }
    }
}

impl<T> From<Vec<T>> for Values<T> {
    fn from(values: Vec<T>) -> Self {
        Values::Owned(values)
    }
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Values::Owned(Vec::new())
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
            clone.release(range.clone());
            clone.discard(range.clone());
            clone.prefetch(range);
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

    #[test]
    fn numbers_are_read_where_they_are_whole_and_aligned() {
        let path = std::env::temp_dir().join(format!("dinov3-values-{}", std::process::id()));
        let bytes: Vec<u8> = [1.5_f32, -2.0, 3.25].into_iter().flat_map(f32::to_ne_bytes).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = MappedFile::open(&path).unwrap();
        let values = Values::Mapped(MappedValues::<f32>::new(&file, 4..12).unwrap());
        assert_eq!(MappedValues::<u32>::new(&file, 0..4).unwrap()[0], 1.5_f32.to_bits());
        assert!(MappedValues::<f32>::new(&file, 0..0).unwrap().is_empty());
        for wrong in [2..6, 0..6, 8..16, 16..20] {
            assert!(MappedValues::<f32>::new(&file, wrong.clone()).is_none(), "{wrong:?}");
        }
        drop(file);
        assert_eq!(*values, [-2.0, 3.25], "the values keep the mapping");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn files_that_are_not_mapped_are_aligned_too() {
        for length in [0_usize, 1, 63, 64, 65, 200] {
            let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let read = aligned::AlignedBytes::read(&bytes[..]).unwrap();
            assert_eq!(*read, *bytes);
            assert!(read.as_ptr().addr().is_multiple_of(64));
        }
    }
}
