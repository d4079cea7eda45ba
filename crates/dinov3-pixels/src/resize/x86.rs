//! The passes for x86-64, bit-equal to the scalar ones.
//!
//! A weight has up to 22 fractional bits and does not fit the 16 bits that `pmaddwd` multiplies. It is split exactly
//! into `high * 2048 + low`, both 16 bits; the two sums are joined at the end. All sums are modulo 2^32, as in the scalar
//! code, so the order of additions does not matter.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::Plane;
use super::coefficients::Coefficients;

const SPLIT_BITS: u32 = 11;

/// How far past its own bytes a row may be read by the horizontal kernels.
pub(super) const OVERREAD_BYTES: usize = 64;

/// How many rows the horizontal kernels work on together.
pub(super) const ROWS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Avx2,
    /// AVX-512 with byte permutation and dot products (Ice Lake, Zen 4 and later).
    Avx512,
}

/// The best instructions of this machine, if any are good enough.
pub(super) fn best_level() -> Option<Level> {
    if !is_x86_feature_detected!("avx2") {
        return None;
    }
    let wide = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni");
    Some(if wide { Level::Avx512 } else { Level::Avx2 })
}

fn split(weight: i32) -> (i16, i16) {
    let low = (weight << (32 - SPLIT_BITS)) >> (32 - SPLIT_BITS);
    ((weight.wrapping_sub(low) >> SPLIT_BITS) as i16, low as i16)
}

/// Split weights in the order of the horizontal registers: eight taps take 32 high parts, then 32 low parts.
pub(super) struct HorizontalWeights {
    starts: Vec<usize>,
    /// Blocks of eight taps per output.
    blocks: usize,
    parts: Vec<[i16; 64]>,
    scale: Scale,
}

/// From sums of products to levels.
#[derive(Clone, Copy)]
struct Scale {
    rounding: i32,
    bits: u32,
}

impl Scale {
    fn of(coefficients: &Coefficients) -> Self {
        Self { rounding: coefficients.rounding(), bits: coefficients.bits }
    }
}

impl HorizontalWeights {
    pub(super) fn new(coefficients: &Coefficients) -> Self {
        let blocks = coefficients.taps / 8;
        let mut parts = vec![[0; 64]; coefficients.starts.len() * blocks];
        for (part, taps) in parts.iter_mut().zip(coefficients.weights.chunks_exact(8)) {
            for (tap, &weight) in taps.iter().enumerate() {
                let (high, low) = split(weight);
                // A pair of taps fills one 128-bit lane: the same two weights for red, green, blue and a spare.
                for channel in 0..4 {
                    let at = tap / 2 * 8 + channel * 2 + tap % 2;
                    part[at] = high;
                    part[32 + at] = low;
                }
            }
        }
        Self { starts: coefficients.starts.clone(), blocks, parts, scale: Scale::of(coefficients) }
    }
}

/// Four rows (repeated pointers are fine) to four rows.
///
/// # Safety
///
/// The machine has the instructions of `level`. Each source is readable for the row's bytes and [`OVERREAD_BYTES`]
/// more; each target is writable for three bytes per output.
pub(super) unsafe fn horizontal(
    level: Level,
    sources: [*const u8; ROWS],
    targets: [*mut u8; ROWS],
    weights: &HorizontalWeights,
) {
    // SAFETY: the caller's promises are those of the functions called.
    unsafe {
        match level {
            Level::Avx2 => horizontal_avx2(sources, targets, weights),
            Level::Avx512 => horizontal_avx512(sources, targets, weights),
        }
    }
}

/// # Safety
///
/// As for [`horizontal`].
#[target_feature(enable = "avx2")]
unsafe fn horizontal_avx2(sources: [*const u8; ROWS], targets: [*mut u8; ROWS], weights: &HorizontalWeights) {
    // Four RGB pixels of a 16-byte load, twice: the lower lane takes pixels 0 and 1 as r r g g b b, the upper 2 and 3.
    let spread = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1,
        -1, -1,
    );
    let outputs = weights.starts.len();
    for (index, &start) in weights.starts.iter().enumerate() {
        let parts = &weights.parts[index * weights.blocks..(index + 1) * weights.blocks];
        let mut high = [_mm256_setzero_si256(); ROWS];
        let mut low = [_mm256_setzero_si256(); ROWS];
        for (block, part) in parts.iter().enumerate() {
            let part = part.as_ptr();
            for half in 0..2 {
                // SAFETY: a part is 64 values: 2 x 16 high ones, then 2 x 16 low ones.
                let (weight_high, weight_low) = unsafe {
                    (
                        _mm256_loadu_si256(part.add(half * 16).cast()),
                        _mm256_loadu_si256(part.add(32 + half * 16).cast()),
                    )
                };
                for row in 0..ROWS {
                    // SAFETY: `start + taps` is at most 8 pixels past the row; the caller allows 64 bytes.
                    let pixels = unsafe {
                        let at = sources[row].add((start + block * 8 + half * 4) * 3);
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(at.cast()))
                    };
                    let pixels = _mm256_shuffle_epi8(pixels, spread);
                    high[row] = _mm256_add_epi32(high[row], _mm256_madd_epi16(pixels, weight_high));
                    low[row] = _mm256_add_epi32(low[row], _mm256_madd_epi16(pixels, weight_low));
                }
            }
        }
        let mut sums = [_mm_setzero_si128(); ROWS];
        for row in 0..ROWS {
            let joined = _mm256_add_epi32(_mm256_slli_epi32::<{ SPLIT_BITS as i32 }>(high[row]), low[row]);
            sums[row] = _mm_add_epi32(_mm256_castsi256_si128(joined), _mm256_extracti128_si256::<1>(joined));
        }
        // SAFETY: the caller gives targets of three bytes per output.
        unsafe { store_pixels(sums, targets, index, outputs, weights.scale) };
    }
}

/// # Safety
///
/// As for [`horizontal`].
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi,avx512vnni")]
unsafe fn horizontal_avx512(sources: [*const u8; ROWS], targets: [*mut u8; ROWS], weights: &HorizontalWeights) {
    // Eight RGB pixels: each 128-bit lane takes two of them as r r g g b b, widened to 16 bits. The upper half of the
    // register is zero, and byte 32 of it is where the zeros come from: a masked permutation would do the same, but is
    // compiled to one of two registers, which is slower.
    let mut order = [32_u8; 64];
    for lane in 0..4 {
        for channel in 0..3 {
            for pixel in 0..2 {
                order[lane * 16 + channel * 4 + pixel * 2] = ((lane * 2 + pixel) * 3 + channel) as u8;
            }
        }
    }
    // SAFETY: the array holds 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    let outputs = weights.starts.len();
    for (index, &start) in weights.starts.iter().enumerate() {
        let parts = &weights.parts[index * weights.blocks..(index + 1) * weights.blocks];
        let mut high = [_mm512_setzero_si512(); ROWS];
        let mut low = [_mm512_setzero_si512(); ROWS];
        for (block, part) in parts.iter().enumerate() {
            // SAFETY: a part is 64 values: 32 high ones, then 32 low ones.
            let (weight_high, weight_low) =
                unsafe { (_mm512_loadu_si512(part.as_ptr().cast()), _mm512_loadu_si512(part.as_ptr().add(32).cast())) };
            for row in 0..ROWS {
                // SAFETY: `start + taps` is at most 8 pixels past the row; the caller allows 64 bytes.
                let pixels = unsafe {
                    let at = sources[row].add((start + block * 8) * 3);
                    _mm512_zextsi256_si512(_mm256_loadu_si256(at.cast()))
                };
                let pixels = _mm512_permutexvar_epi8(order, pixels);
                high[row] = _mm512_dpwssd_epi32(high[row], pixels, weight_high);
                low[row] = _mm512_dpwssd_epi32(low[row], pixels, weight_low);
            }
        }
        let mut sums = [_mm_setzero_si128(); ROWS];
        for row in 0..ROWS {
            let joined = _mm512_add_epi32(_mm512_slli_epi32::<SPLIT_BITS>(high[row]), low[row]);
            let half = _mm256_add_epi32(_mm512_castsi512_si256(joined), _mm512_extracti64x4_epi64::<1>(joined));
            sums[row] = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
        }
        // SAFETY: the caller gives targets of three bytes per output.
        unsafe { store_pixels(sums, targets, index, outputs, weights.scale) };
    }
}

/// Rounds four sums of red, green, blue and writes one pixel to each target.
///
/// # Safety
///
/// Each target is writable for `outputs * 3` bytes and `index < outputs`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store_pixels(sums: [__m128i; ROWS], targets: [*mut u8; ROWS], index: usize, outputs: usize, scale: Scale) {
    let rounding = _mm_set1_epi32(scale.rounding);
    let bits = _mm_cvtsi32_si128(scale.bits as i32);
    let level = |sum| _mm_sra_epi32(_mm_add_epi32(sum, rounding), bits);
    let upper = _mm_packs_epi32(level(sums[0]), level(sums[1]));
    let lower = _mm_packs_epi32(level(sums[2]), level(sums[3]));
    let bytes = _mm_packus_epi16(upper, lower);
    let mut pixels = [0_u32; ROWS];
    // SAFETY: the array holds 16 bytes.
    unsafe { _mm_storeu_si128(pixels.as_mut_ptr().cast(), bytes) };
    for row in 0..ROWS {
        // SAFETY: pixel `index` lies in the target; a fourth byte is written only where another pixel follows, which
        // then overwrites it.
        unsafe {
            let at = targets[row].add(index * 3);
            if index + 1 < outputs {
                at.cast::<u32>().write_unaligned(pixels[row]);
            } else {
                std::ptr::copy_nonoverlapping(pixels[row].to_ne_bytes().as_ptr(), at, 3);
            }
        }
    }
}

/// The split weights of two neighbouring rows, as `pmaddwd` wants them.
#[derive(Clone, Copy, Default)]
struct PairWeights {
    high: i32,
    low: i32,
}

impl PairWeights {
    /// An odd last row is paired with nothing, at weight zero.
    fn new(taps: &[i32]) -> Self {
        let (first, second) = (split(taps[0]), split(taps.get(1).copied().unwrap_or(0)));
        let join = |a: i16, b: i16| i32::from(a as u16) | i32::from(b) << 16;
        Self { high: join(first.0, second.0), low: join(first.1, second.1) }
    }
}

/// One output row as a weighted sum of `row_count` rows that lie `row_bytes` apart, with a weight per two of them.
///
/// Returns how many bytes from the left were written; the caller does the rest.
///
/// # Safety
///
/// The machine has AVX2. From each row start, `rows` holds `target.len()` bytes. There are `row_count / 2` weights,
/// rounded up.
#[target_feature(enable = "avx2")]
unsafe fn vertical_avx2(
    rows: &[u8],
    row_bytes: usize,
    target: &mut [u8],
    row_count: usize,
    weights: &[PairWeights],
    scale: Scale,
) -> usize {
    const STEP: usize = 32;
    if target.len() < STEP {
        return 0;
    }
    let zero = _mm256_setzero_si256();
    let rounding = _mm256_set1_epi32(scale.rounding);
    let bits = _mm_cvtsi32_si128(scale.bits as i32);
    let mut x = 0;
    loop {
        let mut high = [zero; 4];
        let mut low = [zero; 4];
        for (pair, weight) in weights.iter().enumerate() {
            let second_row = (pair * 2 + 1).min(row_count - 1);
            let (weight_high, weight_low) = (_mm256_set1_epi32(weight.high), _mm256_set1_epi32(weight.low));
            // SAFETY: x + 32 <= target.len(), and both rows are among those that `rows` holds.
            let (upper, lower) = unsafe {
                (
                    _mm256_loadu_si256(rows.as_ptr().add(pair * 2 * row_bytes + x).cast()),
                    _mm256_loadu_si256(rows.as_ptr().add(second_row * row_bytes + x).cast()),
                )
            };
            let left = _mm256_unpacklo_epi8(upper, lower);
            let right = _mm256_unpackhi_epi8(upper, lower);
            let quarters = [
                _mm256_unpacklo_epi8(left, zero),
                _mm256_unpackhi_epi8(left, zero),
                _mm256_unpacklo_epi8(right, zero),
                _mm256_unpackhi_epi8(right, zero),
            ];
            for quarter in 0..4 {
                high[quarter] = _mm256_add_epi32(high[quarter], _mm256_madd_epi16(quarters[quarter], weight_high));
                low[quarter] = _mm256_add_epi32(low[quarter], _mm256_madd_epi16(quarters[quarter], weight_low));
            }
        }
        let level = |quarter: usize| {
            let joined = _mm256_add_epi32(_mm256_slli_epi32::<{ SPLIT_BITS as i32 }>(high[quarter]), low[quarter]);
            _mm256_sra_epi32(_mm256_add_epi32(joined, rounding), bits)
        };
        let bytes = _mm256_packus_epi16(_mm256_packs_epi32(level(0), level(1)), _mm256_packs_epi32(level(2), level(3)));
        // SAFETY: x + 32 <= target.len().
        unsafe { _mm256_storeu_si256(target.as_mut_ptr().add(x).cast(), bytes) };
        if x + STEP == target.len() {
            return target.len();
        }
        // The last step overlaps the one before it instead of leaving a tail.
        x = (x + STEP).min(target.len() - STEP);
    }
}

/// One output row as a weighted sum of `row_count` rows that lie `row_bytes` apart, with a weight per two of them.
///
/// Returns how many bytes from the left were written; the caller does the rest.
///
/// # Safety
///
/// As for [`vertical_avx2`], and the machine has the instructions of [`Level::Avx512`].
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vnni")]
unsafe fn vertical_avx512(
    rows: &[u8],
    row_bytes: usize,
    target: &mut [u8],
    row_count: usize,
    weights: &[PairWeights],
    scale: Scale,
) -> usize {
    const STEP: usize = 64;
    if target.len() < STEP {
        return 0;
    }
    let zero = _mm512_setzero_si512();
    let rounding = _mm512_set1_epi32(scale.rounding);
    let bits = _mm_cvtsi32_si128(scale.bits as i32);
    let mut x = 0;
    loop {
        let mut high = [zero; 4];
        let mut low = [zero; 4];
        for (pair, weight) in weights.iter().enumerate() {
            let second_row = (pair * 2 + 1).min(row_count - 1);
            let (weight_high, weight_low) = (_mm512_set1_epi32(weight.high), _mm512_set1_epi32(weight.low));
            // SAFETY: x + 64 <= target.len(), and both rows are among those that `rows` holds.
            let (upper, lower) = unsafe {
                (
                    _mm512_loadu_si512(rows.as_ptr().add(pair * 2 * row_bytes + x).cast()),
                    _mm512_loadu_si512(rows.as_ptr().add(second_row * row_bytes + x).cast()),
                )
            };
            let left = _mm512_unpacklo_epi8(upper, lower);
            let right = _mm512_unpackhi_epi8(upper, lower);
            let quarters = [
                _mm512_unpacklo_epi8(left, zero),
                _mm512_unpackhi_epi8(left, zero),
                _mm512_unpacklo_epi8(right, zero),
                _mm512_unpackhi_epi8(right, zero),
            ];
            for quarter in 0..4 {
                high[quarter] = _mm512_dpwssd_epi32(high[quarter], quarters[quarter], weight_high);
                low[quarter] = _mm512_dpwssd_epi32(low[quarter], quarters[quarter], weight_low);
            }
        }
        let level = |quarter: usize| {
            let joined = _mm512_add_epi32(_mm512_slli_epi32::<SPLIT_BITS>(high[quarter]), low[quarter]);
            _mm512_sra_epi32(_mm512_add_epi32(joined, rounding), bits)
        };
        let bytes = _mm512_packus_epi16(_mm512_packs_epi32(level(0), level(1)), _mm512_packs_epi32(level(2), level(3)));
        // SAFETY: x + 64 <= target.len().
        unsafe { _mm512_storeu_si512(target.as_mut_ptr().add(x).cast(), bytes) };
        if x + STEP == target.len() {
            return target.len();
        }
        // The last step overlaps the one before it instead of leaving a tail.
        x = (x + STEP).min(target.len() - STEP);
    }
}

/// The safe entrance to the vertical kernels: all rows of `result`, of `byte_count` bytes each.
pub(super) fn vertical_rows(
    level: Level,
    source: Plane<'_>,
    first_byte: usize,
    byte_count: usize,
    result: &mut [u8],
    coefficients: &Coefficients,
) {
    let scale = Scale::of(coefficients);
    let mut pairs = Vec::with_capacity(coefficients.taps / 2);
    for (index, target) in result.chunks_exact_mut(byte_count).enumerate() {
        let rows = &source.data[coefficients.starts[index] * source.row_bytes + first_byte..];
        let weights = coefficients.of(index);
        assert!(!weights.is_empty() && rows.len() >= (weights.len() - 1) * source.row_bytes + byte_count);
        pairs.clear();
        pairs.extend(weights.chunks(2).map(PairWeights::new));
        // SAFETY: a level exists only on machines that have it (see `best_level`), and the last row was just checked.
        let done = unsafe {
            match level {
                Level::Avx512 if byte_count >= 64 => {
                    vertical_avx512(rows, source.row_bytes, target, weights.len(), &pairs, scale)
                }
                _ => vertical_avx2(rows, source.row_bytes, target, weights.len(), &pairs, scale),
            }
        };
        if done < byte_count {
            super::scalar::vertical(rows, source.row_bytes, target, coefficients, index);
        }
    }
}

/// The safe entrance to [`horizontal`]: as many rows of `source`, from `first_row` on, as `result` has room for.
pub(super) fn horizontal_rows(
    level: Level,
    source: Plane<'_>,
    first_row: usize,
    result: &mut [u8],
    coefficients: &Coefficients,
) {
    let weights = HorizontalWeights::new(coefficients);
    let stride = weights.starts.len() * 3;
    let row_bytes = source.row_bytes;
    let row_count = result.len() / stride;
    assert!(coefficients.input_range().1 * 3 <= row_bytes);
    // The last rows of a picture have nothing behind them to read over; they are copied to where there is room.
    let padded_bytes = row_bytes + OVERREAD_BYTES;
    let mut scratch = vec![0_u8; padded_bytes * ROWS];
    for block in (0..row_count).step_by(ROWS) {
        let mut sources = [std::ptr::null(); ROWS];
        let mut targets = [std::ptr::null_mut(); ROWS];
        for (slot, padded) in scratch.chunks_exact_mut(padded_bytes).enumerate() {
            // A last block of fewer rows does its last row several times.
            let row = (block + slot).min(row_count - 1);
            let start = (first_row + row) * row_bytes;
            let readable = match source.data.get(start..start + padded_bytes) {
                Some(readable) => readable,
                None => {
                    padded[..row_bytes].copy_from_slice(source.row(first_row + row));
                    &*padded
                }
            };
            sources[slot] = readable.as_ptr();
            targets[slot] = result[row * stride..(row + 1) * stride].as_mut_ptr();
        }
        // SAFETY: a level exists only on machines that have it; each source was sliced with OVERREAD_BYTES behind the
        // row, inside of which all outputs start; each target was sliced from `result` with three bytes per output.
        // The pointers stay valid because nothing else touches `result` before the call returns.
        unsafe { horizontal(level, sources, targets, &weights) };
    }
}
