//! Writing a packed file, one part after the other.

use std::io::{self, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};

use crate::format::{
    CHUNK_BYTES, Description, HEAD_BYTES, Head, LINE_BYTES, LONGEST_NAME_BYTES, MOST_TABLE_BYTES, Part, Table, aligned,
    hexadecimal,
};

/// The numbers of a part; little-endian in the file.
#[derive(Clone, Copy, Debug)]
pub enum PartData<'a> {
    /// Type `f32`.
    F32(&'a [f32]),
    /// Type `i32`.
    I32(&'a [i32]),
    /// Words of a layout.
    Words(&'a [u32]),
}

impl PartData<'_> {
    fn size_bytes(&self) -> u64 {
        4 * match self {
            Self::F32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::Words(values) => values.len(),
        } as u64
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackedSummary {
    /// Size of the file.
    pub file_bytes: u64,
    /// Number of parts.
    pub parts: usize,
    /// SHA-256 of the table, and by the checksums in it of everything; see [`PackedFile::digest`].
    ///
    /// [`PackedFile::digest`]: crate::PackedFile::digest
    pub digest: String,
}

/// Writes a packed file into something that is not read before it is finished. Nothing of the parts is kept in memory.
pub struct PackedWriter<W> {
    out: W,
    /// From where parts began.
    start: u64,
    offset: u64,
    table: Table,
    /// The hash of the chunk that is being written.
    chunk: Sha256,
    buffer: Vec<u8>,
}

impl<W: Write + Seek> PackedWriter<W> {
    /// Starts a file at the place where `out` stands.
    ///
    /// # Errors
    /// If `out` does not take it.
    pub fn new(mut out: W, description: Description) -> io::Result<Self> {
        let start = out.stream_position()?;
        // No head yet: an unfinished file is none.
        out.write_all(&[0; HEAD_BYTES as usize])?;
        let table = Table { description, parts: Vec::new(), chunk_bytes: CHUNK_BYTES, chunk_sha256: Vec::new() };
        Ok(Self { out, start, offset: HEAD_BYTES, table, chunk: Sha256::new(), buffer: Vec::new() })
    }

    /// Sets which weights were packed, for those who know it only when they are.
    pub fn set_source(&mut self, source: serde_json::Value) {
        self.table.description.source = source;
    }

    /// Adds a part. Parts are read in the order in which they are written.
    ///
    /// # Errors
    /// If the file does not take it.
    ///
    /// # Panics
    /// If the name is empty, longer than 200 bytes or in the file already.
    pub fn part(&mut self, name: &str, kind: &str, shape: &[usize], data: PartData<'_>) -> io::Result<()> {
        assert!(!name.is_empty() && name.len() <= LONGEST_NAME_BYTES, "a part's name of {} bytes", name.len());
        assert!(self.table.parts.iter().all(|part| part.name != name), "two parts called {name}");
        let bytes = data.size_bytes();
        self.fill_up_to(aligned(self.offset, bytes))?;
        let part =
            Part { name: name.to_string(), kind: kind.to_string(), shape: shape.to_vec(), offset: self.offset, bytes };
        self.table.parts.push(part);
        match data {
            PartData::F32(values) => self.write_words(values, f32::to_bits),
            PartData::I32(values) => self.write_words(values, |value| value as u32),
            PartData::Words(values) => self.write_words(values, |value| value),
        }
    }

    /// Completes the file and gives back what it was written into.
    ///
    /// # Errors
    /// If it does not take the rest, or if there are more parts than a table has room for.
    pub fn finish(mut self) -> io::Result<(W, PackedSummary)> {
        self.fill_up_to(self.offset.next_multiple_of(LINE_BYTES))?;
        let table_offset = self.offset;
        if !(table_offset - HEAD_BYTES).is_multiple_of(CHUNK_BYTES) {
            self.end_chunk();
        }
        let table = serde_json::to_vec(&self.table)?;
        if table.len() as u64 > MOST_TABLE_BYTES {
            let reason = format!("a table of {} bytes, above the limit of {MOST_TABLE_BYTES}", table.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        self.out.write_all(&table)?;
        let head = Head {
            file_bytes: table_offset + table.len() as u64,
            table_offset,
            table_bytes: table.len() as u64,
            table_sha256: Sha256::digest(&table).into(),
        };
        self.out.seek(SeekFrom::Start(self.start))?;
        self.out.write_all(&head.to_bytes())?;
        self.out.seek(SeekFrom::Start(self.start + head.file_bytes))?;
        self.out.flush()?;
        let digest = hexadecimal(&head.table_sha256);
        let summary = PackedSummary { file_bytes: head.file_bytes, parts: self.table.parts.len(), digest };
        Ok((self.out, summary))
    }

    fn fill_up_to(&mut self, offset: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.offset < offset {
            let count = (offset - self.offset).min(ZEROS.len() as u64) as usize;
            self.write(&ZEROS[..count])?;
        }
        Ok(())
    }

    fn write_words<T: Copy>(&mut self, values: &[T], word: impl Fn(T) -> u32) -> io::Result<()> {
        const WORDS_AT_ONCE: usize = 1 << 16;
        let mut buffer = std::mem::take(&mut self.buffer);
        for values in values.chunks(WORDS_AT_ONCE) {
            buffer.resize(values.len() * 4, 0);
            for (bytes, &value) in buffer.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *bytes = word(value).to_le_bytes();
            }
            self.write(&buffer)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        while !bytes.is_empty() {
            let left = CHUNK_BYTES - (self.offset - HEAD_BYTES) % CHUNK_BYTES;
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.chunk.update(&bytes[..count]);
            self.offset += count as u64;
            if count as u64 == left {
                self.end_chunk();
            }
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn end_chunk(&mut self) {
        self.table.chunk_sha256.push(hexadecimal(&self.chunk.finalize_reset()));
    }
}
