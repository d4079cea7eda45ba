//! The container of Blosc 1 (`README_CHUNK_FORMAT.rst` of c-blosc): bytes in their order of significance, ZSTD.
//!
//! Written here, since it is a header around ZSTD, which the workspace has: c-blosc would come with four more compressors
//! and a C++ build. What is written is read by c-blosc, and so by numcodecs, zarr-python and GDAL.

use std::io;

/// Versions of the container and of its use of ZSTD.
const FORMAT: [u8; 2] = [2, 1];
const SHUFFLED: u8 = 0x01;
/// A block is one stream, and not one per byte of a value.
const NOT_SPLIT: u8 = 0x10;
const ZSTD: u8 = 4 << 5;
const HEADER_BYTES: usize = 16;

/// What is compressed at once.
const BLOCK_BYTES: usize = 256 << 10;

/// Floats of embeddings do not become smaller at higher levels, see the table of vectors in Parquet.
pub(super) const LEVEL: i32 = 1;

/// The bytes of values of `value_bytes` each as a Blosc container.
pub(super) fn compressed(bytes: &[u8], value_bytes: usize) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::other("a chunk of more than 2 GiB");
    let length = i32::try_from(bytes.len()).map_err(|_| too_large())?;
    let block_bytes = BLOCK_BYTES.min(bytes.len()).max(1);
    let blocks = bytes.len().div_ceil(block_bytes);
    let shuffle = if value_bytes > 1 { SHUFFLED } else { 0 };
    let mut out = Vec::with_capacity(HEADER_BYTES + bytes.len());
    out.extend_from_slice(&FORMAT);
    out.extend_from_slice(&[shuffle | NOT_SPLIT | ZSTD, value_bytes as u8]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(block_bytes as i32).to_le_bytes());
    // The whole length, and where blocks start, are known at the end.
    out.resize(HEADER_BYTES + 4 * blocks, 0);
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let mut shuffled = Vec::new();
    for (number, block) in bytes.chunks(block_bytes).enumerate() {
        let start = i32::try_from(out.len()).map_err(|_| too_large())?;
        out[HEADER_BYTES + 4 * number..][..4].copy_from_slice(&start.to_le_bytes());
        let block = match shuffle {
            0 => block,
            _ => {
                shuffle_into(block, value_bytes, &mut shuffled);
                &shuffled
            }
        };
        let packed = compressor.compress(block)?;
        // What does not become smaller is stored, and told by its length.
        let stored = if packed.len() < block.len() { &packed } else { block };
        out.extend_from_slice(&(stored.len() as i32).to_le_bytes());
        out.extend_from_slice(stored);
    }
    let whole = i32::try_from(out.len()).map_err(|_| too_large())?;
    out[12..HEADER_BYTES].copy_from_slice(&whole.to_le_bytes());
    Ok(out)
}

/// First the first byte of every value, then the second one, and so on; what is no whole value stays behind.
fn shuffle_into(block: &[u8], value_bytes: usize, out: &mut Vec<u8>) {
    let whole = block.len() / value_bytes * value_bytes;
    out.clear();
    for place in 0..value_bytes {
        out.extend(block[..whole].iter().skip(place).step_by(value_bytes));
    }
    out.extend_from_slice(&block[whole..]);
}

#[cfg(test)]
pub(super) fn decompressed(packed: &[u8]) -> Vec<u8> {
    let number = |at: usize| i32::from_le_bytes(*packed[at..].first_chunk().unwrap()) as usize;
    assert_eq!((&packed[..2], number(12)), (&FORMAT[..], packed.len()));
    let (flags, value_bytes, length, block_bytes) = (packed[2], usize::from(packed[3]), number(4), number(8));
    assert_eq!(flags & !SHUFFLED, NOT_SPLIT | ZSTD);
    let mut out = Vec::new();
    for block in 0..length.div_ceil(block_bytes) {
        let start = number(HEADER_BYTES + 4 * block);
        let expected = block_bytes.min(length - out.len());
        let stored = &packed[start + 4..][..number(start)];
        let bytes = match stored.len() == expected {
            true => stored.to_vec(),
            false => zstd::bulk::decompress(stored, expected).unwrap(),
        };
        assert_eq!(bytes.len(), expected);
        let values = expected / value_bytes;
        let whole = values * value_bytes;
        out.extend((0..expected).map(|at| match flags & SHUFFLED != 0 && at < whole {
            true => bytes[at % value_bytes * values + at / value_bytes],
            false => bytes[at],
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let noise = |length: usize| -> Vec<u8> {
            let mut state = 7u64;
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            (0..length).map(|_| byte()).collect()
        };
        for length in [0, 1, 7, 4096, BLOCK_BYTES, BLOCK_BYTES + 3, 3 * BLOCK_BYTES - 1] {
            for value_bytes in [1, 2, 4, 8] {
                for bytes in [noise(length), (0..length).map(|at| (at / 5) as u8).collect()] {
                    let packed = compressed(&bytes, value_bytes).unwrap();
                    assert!(decompressed(&packed) == bytes, "{length} bytes, values of {value_bytes}");
                    assert!(packed.len() <= length + HEADER_BYTES + 8 * length.div_ceil(BLOCK_BYTES));
                }
            }
        }
    }
}
