//! Rows of bytes for products of integers, and the rotation that keeps single large channels from spoiling a row.
//!
//! Sixteen-lane vectors of a row are mixed by a Hadamard matrix of up to sixteen of them before the row is quantised,
//! and the weights likewise, so that the product stays what it was: (x H) (w H)ᵀ = n x wᵀ. A channel far above the rest,
//! of activations or of weights, then costs every number of its block a little instead of one row all of its digits.
//! Lane i of a vector only ever meets lanes i of others: the rotation is additions of whole registers.
#![allow(unsafe_code)]

use dinov3_system::threads::Pool;

use crate::amx::TileOps;
use crate::bf16::Bf16;
use crate::element::{Element, Operand, RowWork, SealedOperand, Work, run_rows_here};
use crate::gemm::{ColumnScales, LinearTask};
use crate::isa::Isa;
use crate::memory::SharedOutput;
use crate::norm::{Norm, normalize_row};
use crate::simd::{Kernel, LANES, Part, Simd, dispatch};

/// A byte of a quantised row.
///
/// A row of `width` numbers is that many bytes q, zero bytes up to a multiple of four, and eight bytes with the row's
/// scale (f32) and zero point z (i32): after the rotation a number was `scale * (q - z)`. Weights are signed bytes with
/// a scale per row of W, and the products are summed in integers, so a product has the same bits on every instruction
/// set. Weights that are not finite give numbers that mean nothing; activations that are not finite give NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Int8(pub(crate) u8);

/// Bytes at the end of a row: scale and zero point.
const TRAILER: usize = 8;
/// Largest weight in steps of its scale.
const WEIGHT_STEPS: f32 = 127.0;
/// Largest activation in steps of its scale.
const STEPS: f32 = 255.0;

impl Int8 {
    /// Longest row whose integer sums are certain to fit: a product is at most 255 * 127. Rounded down to whole vectors,
    /// so that a padded row fits too.
    pub const MOST_NUMBERS: usize = (i32::MAX / (255 * 127)) as usize / LANES * LANES;
}

impl Operand for Int8 {
    type Element = Bf16;
    const NAME: &'static str = "int8";

    fn row_length(width: usize) -> usize {
        width.next_multiple_of(4) + TRAILER
    }

    fn operands<'a>(
        pool: &Pool,
        isa: Isa,
        elements: &'a [Bf16],
        width: usize,
        buffer: &'a mut Vec<Int8>,
    ) -> &'a [Int8] {
        let rows = elements.len().checked_div(width).unwrap_or(0);
        assert_eq!(elements.len(), rows * width, "whole rows");
        let length = Int8::row_length(width);
        buffer.resize(rows * length, Int8::default());
        // About 16k numbers a task: some microseconds.
        let rows_per_task = (16384 / width.max(1)).max(1);
        let output = SharedOutput::new(&mut buffer[..]);
        pool.run(rows.div_ceil(rows_per_task), &|task| {
            let first = task * rows_per_task;
            let last = rows.min(first + rows_per_task);
            // SAFETY: each task writes the rows of its own number.
            let out = unsafe { output.part(first * length, (last - first) * length) };
            dispatch(isa, QuantizeRows { elements: &elements[first * width..last * width], width, out });
        });
        buffer
    }
}

impl SealedOperand for Int8 {
    const GROUP: usize = 4;
    const SCALED: bool = true;

    run_rows_here!();

    fn run_linear<O: Element>(isa: Isa, task: LinearTask<'_, Self, O>) {
        O::run(isa, Work::LinearInt8(task));
    }

    #[inline(always)]
    unsafe fn read_word(source: *const Int8) -> u32 {
        // SAFETY: valid for 4 bytes by this function's contract.
        unsafe { source.cast::<u32>().read_unaligned() }
    }

    #[inline(always)]
    fn half_word(self) -> u32 {
        u32::from(self.0)
    }

    #[inline(always)]
    fn word_of(weights: &[f32]) -> u32 {
        let byte = |index: usize| weights.get(index).map_or(0, |&weight| weight as i8 as u8);
        u32::from_ne_bytes([byte(0), byte(1), byte(2), byte(3)])
    }

    #[inline(always)]
    fn is_apart<S: Simd>() -> bool {
        !S::MULTIPLIES_BYTES
    }

    #[inline(always)]
    fn part_of_row<S: Simd>(simd: S, words: S::V, part: Part) -> S::V {
        simd.unsigned_of_words(words, part)
    }

    #[inline(always)]
    fn part_of_columns<S: Simd>(simd: S, words: S::V, part: Part) -> S::V {
        if S::MULTIPLIES_BYTES { words } else { simd.signed_of_words(words, part) }
    }

    // The instruction that multiplies bytes without a dot product saturates its sums; pairs of 16-bit numbers are exact.
    #[inline(always)]
    fn accumulate<S: Simd>(simd: S, sum: S::V, a: S::V, b: S::V) -> S::V {
        if S::MULTIPLIES_BYTES { simd.dot_u8s8(sum, a, b) } else { simd.dot_i16(sum, a, b) }
    }

    const TILES: bool = true;

    #[inline(always)]
    fn tile_dot<T: TileOps, const C: usize, const A: usize, const B: usize>(tiles: &mut T) {
        tiles.dot_u8s8::<C, A, B>();
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::V, b: S::V) -> S::V {
        simd.add_integers(a, b)
    }

    fn product_length(width: usize) -> usize {
        width.next_multiple_of(4)
    }

    /// Rotates each column's weights and replaces them by whole numbers of steps.
    fn prepare_columns(isa: Isa, columns: &mut [f32], k: usize, scales: &mut [f32], sums: &mut [i32]) {
        assert!(k <= Int8::MOST_NUMBERS, "rows of {k} numbers do not fit integer sums");
        if k == 0 {
            return;
        }
        // The rotation of both sides multiplies the product by the size of the matrix, a power of two.
        let unit = 1.0 / rotation_size(k) as f32;
        for (column, (scale, sum)) in columns.chunks_exact_mut(k).zip(scales.iter_mut().zip(sums)) {
            dispatch(isa, RotateRow { row: column });
            let largest = column.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
            let steps = if largest > 0.0 { WEIGHT_STEPS / largest } else { 0.0 };
            for weight in column.iter_mut() {
                // Adding 1.5 * 2^23 leaves no fraction bits; the library's rounding is a call without vectors.
                const SHIFT: f32 = 12_582_912.0;
                *weight = ((*weight * steps + SHIFT) - SHIFT).clamp(-WEIGHT_STEPS, WEIGHT_STEPS);
            }
            *scale = largest / WEIGHT_STEPS * unit;
            *sum = column.iter().map(|&weight| weight as i32).sum();
        }
    }

    #[inline(always)]
    fn row_scale<S: Simd>(simd: S, row: &[Int8]) -> [S::V; 2] {
        let (scale, zero) = read_trailer(row);
        [simd.splat(scale), simd.splat_word(zero as u32)]
    }

    #[inline(always)]
    fn finish<S: Simd>(simd: S, row_scale: [S::V; 2], columns: &ColumnScales, column: usize, sum: S::V) -> S::V {
        let [scale, zero] = row_scale;
        let scales = columns.scales[column..column + LANES].first_chunk().expect("sixteen");
        // SAFETY: a slice of sixteen words.
        let column_sums = unsafe { simd.load_words(columns.sums[column..column + LANES].as_ptr().cast()) };
        simd.dequantize(sum, zero, column_sums, simd.multiply(scale, simd.load(scales)))
    }

    #[inline(always)]
    fn normalize<S: Simd>(simd: S, x: &[f32], norm: Norm<'_>, buffer: &mut Vec<f32>, out: &mut [Int8]) {
        buffer.resize(x.len(), 0.0);
        normalize_row(simd, x, norm, &mut buffer[..]);
        quantize_row(simd, buffer, out);
    }
}

/// Scale and zero point of a row.
pub(crate) fn read_trailer(row: &[Int8]) -> (f32, i32) {
    let bytes: [Int8; TRAILER] = *row.last_chunk().expect("a quantised row ends with its scale");
    let [a, b, c, d, e, f, g, h] = bytes.map(|byte| byte.0);
    (f32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]))
}

fn write_trailer(row: &mut [Int8], scale: f32, zero: i32) {
    let trailer: &mut [Int8; TRAILER] = row.last_chunk_mut().expect("a quantised row ends with its scale");
    let bytes = scale.to_ne_bytes().into_iter().chain(zero.to_ne_bytes());
    for (target, byte) in trailer.iter_mut().zip(bytes) {
        *target = Int8(byte);
    }
}

/// Vectors that are mixed with each other in a row of `width` numbers: the largest power of two up to sixteen that
/// divides their number. Rows that are not made of whole vectors stay as they are.
fn rotation_size(width: usize) -> usize {
    if width == 0 || !width.is_multiple_of(LANES) {
        return 1;
    }
    1 << (width / LANES).trailing_zeros().min(4)
}

/// What a row's values are bounded by, lane by lane.
#[derive(Clone, Copy)]
struct Bounds<V> {
    /// At most zero.
    lowest: V,
    /// At least zero.
    highest: V,
    /// Zero, or NaN if a value was not finite.
    finite: V,
}

impl<V: Copy> Bounds<V> {
    #[inline(always)]
    fn see<S: Simd<V = V>>(&mut self, simd: S, value: V) {
        self.lowest = simd.min(value, self.lowest);
        self.highest = simd.max(value, self.highest);
        // Times zero every finite number is zero, and every other one NaN.
        self.finite = simd.fused(value, simd.splat(0.0), self.finite);
    }
}

/// Multiplies blocks of `SIZE` vectors with a Hadamard matrix, whose entries are 1 and -1, and notes what comes of it.
#[inline(always)]
fn rotate<S: Simd, const SIZE: usize>(simd: S, row: &mut [f32], bounds: &mut Bounds<S::V>) {
    for block in row.as_chunks_mut::<LANES>().0.chunks_exact_mut(SIZE) {
        let mut vectors = [simd.splat(0.0); SIZE];
        for index in 0..SIZE {
            vectors[index] = simd.load(&block[index]);
        }
        let mut half = 1;
        while half < SIZE {
            for index in 0..SIZE {
                if index & half == 0 {
                    let (a, b) = (vectors[index], vectors[index + half]);
                    vectors[index] = simd.add(a, b);
                    vectors[index + half] = simd.subtract(a, b);
                }
            }
            half *= 2;
        }
        for index in 0..SIZE {
            bounds.see(simd, vectors[index]);
            simd.store(vectors[index], &mut block[index]);
        }
    }
}

/// [`rotate`] with the size that belongs to the row's width.
#[inline(always)]
fn rotate_row<S: Simd>(simd: S, row: &mut [f32]) -> Bounds<S::V> {
    let zero = simd.splat(0.0);
    let mut bounds = Bounds { lowest: zero, highest: zero, finite: zero };
    match rotation_size(row.len()) {
        16 => rotate::<S, 16>(simd, row, &mut bounds),
        8 => rotate::<S, 8>(simd, row, &mut bounds),
        4 => rotate::<S, 4>(simd, row, &mut bounds),
        2 => rotate::<S, 2>(simd, row, &mut bounds),
        _ => rotate::<S, 1>(simd, row, &mut bounds),
    }
    bounds
}

struct RotateRow<'a> {
    row: &'a mut [f32],
}

impl Kernel for RotateRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        rotate_row(simd, self.row);
    }
}

/// Rotates a row and writes it as bytes. The row is left rotated.
#[inline(always)]
fn quantize_row<S: Simd>(simd: S, row: &mut [f32], out: &mut [Int8]) {
    let mut bounds = rotate_row(simd, row);
    let tail = row.as_chunks::<LANES>().1;
    if !tail.is_empty() {
        bounds.see(simd, simd.load_part(tail, 0.0));
    }
    let Bounds { lowest, highest, finite } = bounds;
    // Zero is always in the range, so that the zero point is a byte.
    let (lowest, highest) = (-simd.largest(simd.subtract(simd.splat(0.0), lowest)), simd.largest(highest));
    let range = highest - lowest;
    // A row of zeros, or of numbers whose reciprocal is beyond f32, becomes zeros.
    let steps = if range > f32::MIN_POSITIVE { STEPS / range } else { 0.0 };
    let zero = (-lowest * steps).round_ties_even();
    let scale = range / STEPS + simd.sum(finite);

    let (steps, zeros) = (simd.splat(steps), simd.splat(zero));
    let width = row.len();
    let (numbers, trailer) = out.split_at_mut(width);
    let (chunks, tail) = row.as_chunks::<LANES>();
    let (targets, target_tail) = numbers.as_chunks_mut::<LANES>();
    // Product and sum apart: with one rounding on one instruction set and two on another the bytes would differ.
    for (chunk, target) in chunks.iter().zip(targets) {
        *target = bytes(simd, simd.add(simd.multiply(simd.load(chunk), steps), zeros));
    }
    if !tail.is_empty() {
        let value = simd.add(simd.multiply(simd.load_part(tail, 0.0), steps), zeros);
        target_tail.copy_from_slice(&bytes(simd, value)[..tail.len()]);
    }
    trailer.fill(Int8::default());
    write_trailer(trailer, scale, zero as i32);
}

#[inline(always)]
fn bytes<S: Simd>(simd: S, value: S::V) -> [Int8; LANES] {
    let mut bytes = [0; LANES];
    simd.store_bytes(value, &mut bytes);
    bytes.map(Int8)
}

struct QuantizeRows<'a> {
    elements: &'a [Bf16],
    width: usize,
    out: &'a mut [Int8],
}

impl Kernel for QuantizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut buffer = vec![0.0; self.width];
        let rows = self.elements.chunks_exact(self.width);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(Int8::row_length(self.width))) {
            let (chunks, tail) = row.as_chunks::<LANES>();
            let (targets, target_tail) = buffer.as_chunks_mut::<LANES>();
            for (chunk, target) in chunks.iter().zip(targets) {
                simd.store(simd.load_bf16(&chunk.map(Bf16::to_bits)), target);
            }
            for (number, target) in tail.iter().zip(target_tail) {
                *target = number.to_f32();
            }
            quantize_row(simd, &mut buffer, out);
        }
    }
}
