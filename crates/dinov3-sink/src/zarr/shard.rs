//! Arrays as sharded chunks on disk: the codec `sharding_indexed` of Zarr v3.
//!
//! A shard is a file: its inner chunks one after the other, in C order, and an index of where each one is, with a
//! CRC-32C. Written here and not by `zarrs`: inner chunks go to the file as they are made, where a library wants the whole
//! shard in memory, and their order is ours, where `zarrs` takes that of its threads unless told.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use super::blosc;
use crate::atomic_folder::AtomicFolder;
use crate::disk::DiskFile;
use crate::element::ElementType;
use crate::error::OutputError;
use crate::raster::FeatureGrid;

/// Raw size that inner chunks come near to: what a reader fetches at once.
const CHUNK_BYTES: usize = 4 << 20;
/// Raw size that shards stay below, and so about the largest file.
const SHARD_BYTES: usize = 128 << 20;
/// Sides of inner chunks are multiples of this where the array is larger.
const SIDE_STEP: usize = 8;
const BUFFER_BYTES: usize = 1 << 18;
/// In the index: no such chunk.
const ABSENT: [u8; 16] = [0xff; 16];

/// How cells of a grid are grouped. All arrays of a grid have the same shards, so that a shard of each is one piece of
/// work; inner chunks of small values may be larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunking {
    /// Rows and columns of the grid.
    pub(super) shape: [usize; 2],
    /// Rows and columns of an inner chunk.
    pub(super) chunk: [usize; 2],
    /// Inner chunks of a shard, downwards and to the right.
    pub(super) per_shard: [usize; 2],
}

impl Chunking {
    /// For the cells of a grid, of so many bytes each.
    pub(super) fn of_grid(grid: &FeatureGrid, cell_bytes: usize) -> Self {
        Self::new([grid.height_px as usize, grid.width_px as usize], cell_bytes)
    }

    /// For cells of so many bytes.
    pub(super) fn new(shape: [usize; 2], cell_bytes: usize) -> Self {
        let side = ((CHUNK_BYTES / cell_bytes.max(1)) as f64).sqrt() as usize / SIDE_STEP * SIDE_STEP;
        let chunk = shape.map(|length| side.max(SIDE_STEP).min(length.max(1)));
        let chunk_bytes = (chunk[0] * chunk[1]).saturating_mul(cell_bytes).max(1);
        let most = ((SHARD_BYTES / chunk_bytes) as f64).sqrt() as usize;
        let per_shard = [0, 1].map(|axis| most.clamp(1, shape[axis].div_ceil(chunk[axis]).max(1)));
        Self { shape, chunk, per_shard }
    }

    /// The same shards for an array whose cells have fewer bytes: each is one inner chunk, if that is small.
    pub(super) fn narrowed(&self, cell_bytes: usize) -> Self {
        let shard = self.shard();
        match (shard[0] * shard[1]).saturating_mul(cell_bytes) <= CHUNK_BYTES {
            true => Self { chunk: shard, per_shard: [1, 1], ..*self },
            false => *self,
        }
    }

    /// Rows and columns of a shard.
    pub(super) fn shard(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.chunk[axis] * self.per_shard[axis])
    }

    /// Rows and columns of shards.
    pub(super) fn shards(&self) -> [usize; 2] {
        let shard = self.shard();
        [0, 1].map(|axis| self.shape[axis].div_ceil(shard[axis]))
    }
}

/// What an array is, but for its cells.
#[derive(Clone, Debug)]
pub(super) struct ArrayKind {
    pub(super) element: ElementType,
    /// Sizes of the axes before y and x, which are whole in every chunk, and their names.
    pub(super) leading: Vec<(usize, &'static str)>,
    pub(super) chunking: Chunking,
}

impl ArrayKind {
    fn axes(&self, cells: [usize; 2]) -> Vec<usize> {
        self.leading.iter().map(|(length, _)| *length).chain(cells).collect()
    }

    /// The array's `zarr.json`.
    pub(super) fn metadata(&self, attributes: Value) -> Value {
        let value_bytes = self.element.size_bytes();
        let to_bytes = match value_bytes {
            1 => json!({"name": "bytes"}),
            _ => json!({"name": "bytes", "configuration": {"endian": "little"}}),
        };
        let blosc = json!({
            "cname": "zstd", "clevel": blosc::LEVEL, "shuffle": if value_bytes > 1 { "shuffle" } else { "noshuffle" },
            "typesize": value_bytes, "blocksize": 0,
        });
        let index = json!([{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]);
        let sharding = json!({
            "chunk_shape": self.axes(self.chunking.chunk),
            "codecs": [to_bytes, {"name": "blosc", "configuration": blosc}],
            "index_codecs": index,
            "index_location": "end",
        });
        let names: Vec<_> = self.leading.iter().map(|(_, name)| *name).chain(["y", "x"]).collect();
        json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": self.axes(self.chunking.shape),
            "data_type": self.element.numpy_name(),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.axes(self.chunking.shard())}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": if self.element == ElementType::Int8 { json!(0) } else { json!("NaN") },
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": attributes,
            "dimension_names": names,
        })
    }
}

/// The name of a shard below its array, which has so many axes before y and x.
pub(super) fn shard_key(leading: usize, shard: [usize; 2]) -> String {
    let axes = std::iter::repeat_n(0, leading).chain(shard);
    std::iter::once("c".to_owned()).chain(axes.map(|number| format!("/{number}"))).collect()
}

/// Writes an array's shards. Inner chunks come in C order, all those of each shard.
pub(super) struct ShardWriter {
    kind: ArrayKind,
    /// Of the array, in the store.
    path: String,
    /// The row of shards that is open.
    row: usize,
    /// Shards that chunks of this row of shards have come for, by column.
    open: BTreeMap<usize, Shard>,
}

struct Shard {
    file: BufWriter<DiskFile>,
    end: u64,
    index: Vec<u8>,
}

impl ShardWriter {
    pub(super) fn new(kind: ArrayKind, path: String) -> Self {
        Self { kind, path, row: 0, open: BTreeMap::new() }
    }

    pub(super) fn kind(&self) -> &ArrayKind {
        &self.kind
    }

    /// Takes the chunk in this row and column of chunks: its values in C order, little-endian, or nothing where no cell has
    /// any.
    pub(super) fn chunk(
        &mut self,
        folder: &mut AtomicFolder,
        [row, column]: [usize; 2],
        values: Option<&[u8]>,
    ) -> Result<(), OutputError> {
        let [down, right] = self.kind.chunking.per_shard;
        if row / down != self.row {
            self.close(folder)?;
            self.row = row / down;
        }
        let Some(values) = values else { return Ok(()) };
        let packed = blosc::compressed(values, self.kind.element.size_bytes());
        let packed = packed.map_err(OutputError::write(folder.path()))?;
        let shard = match self.open.entry(column / right) {
            std::collections::btree_map::Entry::Occupied(shard) => shard.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let key = shard_key(self.kind.leading.len(), [row / down, column / right]);
                let file = folder.create_file(&format!("{}/{key}", self.path))?;
                let file = BufWriter::with_capacity(BUFFER_BYTES, file);
                place.insert(Shard { file, end: 0, index: ABSENT.repeat(down * right) })
            }
        };
        shard.file.write_all(&packed).map_err(OutputError::write(folder.path()))?;
        let entry = &mut shard.index[16 * (row % down * right + column % right)..][..16];
        entry[..8].copy_from_slice(&shard.end.to_le_bytes());
        entry[8..].copy_from_slice(&(packed.len() as u64).to_le_bytes());
        shard.end += packed.len() as u64;
        Ok(())
    }

    /// Completes the shards that are open. To be called after the last chunk.
    pub(super) fn close(&mut self, folder: &mut AtomicFolder) -> Result<(), OutputError> {
        for shard in std::mem::take(&mut self.open).into_values() {
            shard.close().map_err(OutputError::write(folder.path()))?;
        }
        Ok(())
    }
}

impl Shard {
    fn close(mut self) -> io::Result<()> {
        let checksum = crc32c(&self.index);
        self.file.write_all(&self.index)?;
        self.file.write_all(&checksum.to_le_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync()
    }
}

/// CRC-32C (Castagnoli). Of indices alone, a few hundred bytes per shard: bit by bit is fast enough.
fn crc32c(bytes: &[u8]) -> u32 {
    let step =
        |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ ((crc & 1) * 0x82f6_3b78));
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn chunks_and_shards_have_the_sizes_that_readers_like() {
        let chunking = |shape, cell_bytes| Chunking::new(shape, cell_bytes);
        // ViT-L in f32, as dense features of 10,000 x 10,000 pixels.
        let large = chunking([625, 625], 4 * 1024);
        assert_eq!((large.chunk, large.shard(), large.shards()), ([32, 32], [160, 160], [4, 4]));
        let narrow = large.narrowed(4);
        assert_eq!((narrow.chunk, narrow.shard(), narrow.shards()), ([160, 160], large.shard(), large.shards()));
        assert_eq!(large.narrowed(2 * 1024), large);
        // ViT-7B.
        assert_eq!(chunking([625, 625], 4 * 4096).chunk, [16, 16]);
        // As bytes.
        assert_eq!((chunking([625, 625], 1024).chunk, chunking([625, 625], 1024).shard()), ([64, 64], [320, 320]));
        // Not more than there is.
        assert_eq!((chunking([8, 7], 1536).chunk, chunking([8, 7], 1536).shard()), ([8, 7], [8, 7]));
        assert_eq!((chunking([3, 5000], 1536).chunk, chunking([3, 5000], 1536).per_shard[0]), ([3, 48], 1));
        for (shape, cell_bytes) in [([1, 1], 1), ([100_000, 100_000], 16_384), ([9, 100_000], 300_000)] {
            let found = chunking(shape, cell_bytes);
            let shard_bytes = found.shard()[0] * found.shard()[1] * cell_bytes;
            assert!(shard_bytes <= SHARD_BYTES, "{found:?}: {shard_bytes}");
        }
    }
}
