//! What reader and writer agree on.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// As in PNG: a byte above 127, a name, and line ends that a transfer as text would change.
pub(crate) const MAGIC: [u8; 8] = *b"\x89D3P\r\n\x1a\n";
pub(crate) const VERSION: u32 = 1;
/// Where parts may begin.
pub(crate) const HEAD_BYTES: u64 = 128;
/// What the head's own checksum is of.
const CHECKED_BYTES: usize = 72;
/// The smallest alignment of a part: a cache line.
pub(crate) const LINE_BYTES: u64 = 64;
/// Bytes under one checksum.
pub(crate) const CHUNK_BYTES: u64 = 16 << 20;
/// Largest table that is read. The 7B's in f32 has 0.3 MB, a good part of it checksums.
pub(crate) const MOST_TABLE_BYTES: u64 = 1 << 20;
/// Longest name of a part.
pub(crate) const LONGEST_NAME_BYTES: usize = 200;

/// What the parts are. Texts and values are kept as they are given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The program that wrote the file.
    pub program: String,
    /// The layout of the matrices.
    pub layout: String,
    /// The precision of the model.
    pub precision: String,
    /// The model.
    pub model: Value,
    /// Which weights were packed.
    pub source: Value,
}

/// A part: where it lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What it is made of: `f32`, `i32`, or words in a layout.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its extents; what they mean is the type's.
    pub shape: Vec<usize>,
    /// Its first byte in the file.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Table {
    #[serde(flatten)]
    pub description: Description,
    pub parts: Vec<Part>,
    pub chunk_bytes: u64,
    /// In hexadecimal.
    pub chunk_sha256: Vec<String>,
}

/// Where a part of this size may begin, from `offset` on.
pub(crate) fn aligned(offset: u64, bytes: u64) -> u64 {
    offset.next_multiple_of(match bytes {
        0..0x1_0000 => LINE_BYTES,
        0x1_0000..0x400_0000 => 4096,
        _ => 2 << 20,
    })
}

/// The first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub file_bytes: u64,
    pub table_offset: u64,
    pub table_bytes: u64,
    pub table_sha256: [u8; 32],
}

impl Head {
    pub fn to_bytes(self) -> [u8; HEAD_BYTES as usize] {
        let mut bytes = [0; HEAD_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.table_offset.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.table_bytes.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.table_sha256);
        let checksum = Sha256::digest(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..CHECKED_BYTES + 32].copy_from_slice(&checksum);
        bytes
    }

    /// The head in these bytes; `None` if they are not what [`Head::to_bytes`] makes.
    pub fn from_bytes(bytes: &[u8; HEAD_BYTES as usize]) -> Option<Self> {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        let head = Self {
            file_bytes: number(16),
            table_offset: number(24),
            table_bytes: number(32),
            table_sha256: std::array::from_fn(|index| bytes[40 + index]),
        };
        // All of them, zeros and checksum too.
        (head.to_bytes() == *bytes).then_some(head)
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
