//! Tiles of numbers as compressed bytes.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use half::f16;

use super::CogSample;

/// More costs time and gains less than 1 % on features.
const ZSTD_LEVEL: i32 = 3;

/// TIFF's numbers of a compression and of a predictor.
pub(super) fn codes(sample: CogSample) -> (u16, u16) {
    match sample {
        CogSample::F32 | CogSample::F16 => (50000, 3),
        CogSample::U8 => (8, 2),
    }
}

/// A tile, `[rows, columns, bands]`, in rows of so many values; NaN is no data.
pub(super) fn tile(values: &[f32], row_values: usize, bands: usize, sample: CogSample) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * sample.size_bytes());
    for row in values.chunks_exact(row_values) {
        let start = bytes.len();
        match sample {
            CogSample::F32 => planes(&mut bytes, row.iter().map(|value| value.to_be_bytes())),
            CogSample::F16 => planes(&mut bytes, row.iter().map(|&value| f16::from_f32(value).to_be_bytes())),
            CogSample::U8 => bytes.extend(row.iter().map(|&value| value.round() as u8)),
        }
        // Each byte minus that of the pixel before it, from the end so that they are still what they were.
        let row = &mut bytes[start..];
        for at in (bands..row.len()).rev() {
            row[at] = row[at].wrapping_sub(row[at - bands]);
        }
    }
    match sample {
        CogSample::F32 | CogSample::F16 => zstd::bulk::compress(&bytes, ZSTD_LEVEL),
        CogSample::U8 => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&bytes)?;
            encoder.finish()
        }
    }
}

/// First the highest bytes of all values, then the next ones: predictor 3 of Adobe's technical note 3.
fn planes<const BYTES: usize>(to: &mut Vec<u8>, values: impl ExactSizeIterator<Item = [u8; BYTES]>) {
    let (start, count) = (to.len(), values.len());
    to.resize(start + BYTES * count, 0);
    for (index, value) in values.enumerate() {
        for (plane, byte) in value.into_iter().enumerate() {
            to[start + plane * count + index] = byte;
        }
    }
}
