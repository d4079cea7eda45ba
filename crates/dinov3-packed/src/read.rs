//! Opening a packed file: what is cheap to check is checked, then everything is where the table says.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dinov3_system::memory_map::{MappedFile, MappedValues, Plain};
use dinov3_system::threads::Pool;
use sha2::{Digest, Sha256};

use crate::error::PackedError;
use crate::format::{
    CHUNK_BYTES, Description, HEAD_BYTES, Head, LINE_BYTES, LONGEST_NAME_BYTES, MAGIC, MOST_TABLE_BYTES, Part, Table,
    VERSION, hexadecimal,
};

/// Whether a file says of itself that it is packed. It may be damaged all the same.
pub fn is_packed(path: &Path) -> bool {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path).is_ok_and(|information| information.is_file()) {
        return false;
    }
    let mut magic = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == MAGIC
}

/// An open packed file: its table in memory, its parts mapped.
#[derive(Debug)]
pub struct PackedFile {
    path: PathBuf,
    map: MappedFile,
    description: Description,
    parts: Vec<Part>,
    by_name: HashMap<String, usize>,
    chunk_sha256: Vec<String>,
    table_offset: u64,
    digest: String,
}

impl PackedFile {
    /// Opens a file and checks its head and its table.
    ///
    /// # Errors
    /// If it cannot be read, is no packed file, was written in another format, or is shorter, longer or other than it was
    /// written, as far as head and table tell.
    pub fn open(path: &Path) -> Result<Self, PackedError> {
        let owned = || path.to_path_buf();
        let damaged = |reason: String| PackedError::Damaged { path: owned(), reason };
        let map = MappedFile::open(path).map_err(|source| PackedError::Io { path: owned(), source })?;
        if !map.starts_with(&MAGIC) {
            return Err(PackedError::NotPacked { path: owned() });
        }
        let found_bytes = map.len() as u64;
        let Some(head) = map.first_chunk::<{ HEAD_BYTES as usize }>() else {
            return Err(PackedError::Size { path: owned(), expected_bytes: HEAD_BYTES, found_bytes });
        };
        let found = u32::from_le_bytes(std::array::from_fn(|index| head[8 + index]));
        if found != VERSION {
            return Err(PackedError::OtherVersion { path: owned(), found, expected: VERSION });
        }
        let head = Head::from_bytes(head).ok_or_else(|| damaged("the head's checksum is wrong".to_string()))?;
        if head.file_bytes != found_bytes {
            return Err(PackedError::Size { path: owned(), expected_bytes: head.file_bytes, found_bytes });
        }
        let end = head.table_offset.checked_add(head.table_bytes);
        if head.table_offset < HEAD_BYTES || end != Some(found_bytes) || head.table_bytes > MOST_TABLE_BYTES {
            let (offset, bytes) = (head.table_offset, head.table_bytes);
            return Err(damaged(format!("a table of {bytes} bytes at byte {offset} cannot be")));
        }
        // Both are at most the length of the mapping.
        let table = &map[head.table_offset as usize..];
        if <[u8; 32]>::from(Sha256::digest(table)) != head.table_sha256 {
            return Err(damaged("the table's checksum is wrong".to_string()));
        }
        let table: Table = serde_json::from_slice(table).map_err(|error| damaged(format!("its table: {error}")))?;
        let by_name = check_table(&table, head.table_offset).map_err(damaged)?;
        let Table { description, parts, chunk_sha256, .. } = table;
        let digest = hexadecimal(&head.table_sha256);
        let (path, table_offset) = (owned(), head.table_offset);
        Ok(Self { path, map, description, parts, by_name, chunk_sha256, table_offset, digest })
    }

    /// The file, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mapping of the whole file.
    pub fn map(&self) -> &MappedFile {
        &self.map
    }

    /// What the writer said of the parts.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// All parts, in the order in which they lie.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// SHA-256 of the table in hexadecimal. The table has the checksums of everything else: two files with the same one
    /// are the same, if each passes [`PackedFile::verify`].
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The numbers of a part.
    ///
    /// # Errors
    /// If there is no part of this name, type and shape.
    pub fn values<T: Plain>(&self, name: &str, kind: &str, shape: &[usize]) -> Result<MappedValues<T>, PackedError> {
        let part = self.by_name.get(name).map(|&index| &self.parts[index]);
        part.filter(|part| part.kind == kind && part.shape == shape)
            .and_then(|part| MappedValues::new(&self.map, bytes_of(part)))
            .ok_or_else(|| PackedError::Part {
                path: self.path.clone(),
                part: name.to_string(),
                expected: format!("{kind} {shape:?}"),
            })
    }

    /// The bytes from the first to the last part whose name begins so; empty if there is none.
    pub fn range_of(&self, prefix: &str) -> Range<usize> {
        let mut parts = self.parts.iter().filter(|part| part.name.starts_with(prefix)).map(bytes_of);
        match parts.next() {
            None => 0..0,
            Some(first) => first.start..parts.next_back().map_or(first.end, |last| last.end),
        }
    }

    /// Reads everything and compares it with the checksums. `progress` is told the bytes done and their total, from
    /// several threads.
    ///
    /// # Errors
    /// The first chunk that is not what was written.
    pub fn verify(&self, pool: &Pool, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<(), PackedError> {
        let (done, total) = (AtomicU64::new(0), self.table_offset - HEAD_BYTES);
        let wrong: Mutex<Option<usize>> = Mutex::new(None);
        let chunk_range = |chunk: usize| {
            let start = HEAD_BYTES + chunk as u64 * CHUNK_BYTES;
            start..self.table_offset.min(start + CHUNK_BYTES)
        };
        pool.run(self.chunk_sha256.len(), &|chunk| {
            let range = chunk_range(chunk);
            let bytes = range.start as usize..range.end as usize;
            if hexadecimal(&Sha256::digest(&self.map[bytes.clone()])) != self.chunk_sha256[chunk] {
                let mut wrong = wrong.lock().unwrap_or_else(|lock| lock.into_inner());
                *wrong = Some(wrong.map_or(chunk, |first| first.min(chunk)));
            }
            self.map.release(bytes);
            let size = range.end - range.start;
            progress(done.fetch_add(size, Ordering::Relaxed) + size, total);
        });
        let Some(chunk) = wrong.into_inner().unwrap_or_else(|lock| lock.into_inner()) else { return Ok(()) };
        let range = chunk_range(chunk);
        let within = |part: &&Part| part.offset < range.end && range.start < part.offset + part.bytes;
        let mut names = self.parts.iter().filter(within).map(|part| part.name.as_str());
        let parts = match (names.next(), names.next_back()) {
            (None, _) => "between parts".to_string(),
            (Some(only), None) => only.to_string(),
            (Some(first), Some(last)) => format!("{first} to {last}"),
        };
        Err(PackedError::Checksum { path: self.path.clone(), start: range.start, end: range.end, parts })
    }
}

/// Where a part lies; it was checked to lie within the mapping.
fn bytes_of(part: &Part) -> Range<usize> {
    part.offset as usize..(part.offset + part.bytes) as usize
}

/// Parts by their names, if they lie one behind the other before the table.
fn check_table(table: &Table, table_offset: u64) -> Result<HashMap<String, usize>, String> {
    if table.chunk_bytes != CHUNK_BYTES {
        return Err(format!("checksums of {} bytes each instead of {CHUNK_BYTES}", table.chunk_bytes));
    }
    let chunks = (table_offset - HEAD_BYTES).div_ceil(CHUNK_BYTES);
    if table.chunk_sha256.len() as u64 != chunks {
        return Err(format!("{} checksums instead of {chunks}", table.chunk_sha256.len()));
    }
    let mut by_name = HashMap::with_capacity(table.parts.len());
    let mut behind = HEAD_BYTES;
    for (index, part) in table.parts.iter().enumerate() {
        let name: String = part.name.escape_debug().take(LONGEST_NAME_BYTES).collect();
        let end = part.offset.checked_add(part.bytes).filter(|&end| end <= table_offset);
        let Some(end) = end.filter(|_| part.offset >= behind) else {
            return Err(format!("part {name} of {} bytes at byte {} has no place there", part.bytes, part.offset));
        };
        if !part.offset.is_multiple_of(LINE_BYTES) || !part.bytes.is_multiple_of(4) {
            return Err(format!("part {name} of {} bytes at byte {} is not aligned", part.bytes, part.offset));
        }
        let values = part.shape.iter().try_fold(4_u64, |bytes, &extent| bytes.checked_mul(extent as u64));
        if ["f32", "i32"].contains(&part.kind.as_str()) && values != Some(part.bytes) {
            return Err(format!("part {name} has {} bytes and the shape {:?}", part.bytes, part.shape));
        }
        if part.name.is_empty() || part.name.len() > LONGEST_NAME_BYTES {
            return Err(format!("a part's name of {} bytes", part.name.len()));
        }
        if by_name.insert(part.name.clone(), index).is_some() {
            return Err(format!("two parts called {name}"));
        }
        behind = end;
    }
    Ok(by_name)
}
