//! The tile instructions in plain code: what they do according to Intel's Software Developer's Manual, bit for bit.
#![allow(unsafe_code)]

use super::{ROW_BYTES, SIDE, TILE_BYTES, TileOps};

/// Eight tiles in memory.
pub(crate) struct Emulator {
    tiles: [[u8; TILE_BYTES]; 8],
}

impl Default for Emulator {
    fn default() -> Emulator {
        Emulator { tiles: [[0; TILE_BYTES]; 8] }
    }
}

/// The smallest f32 that is not subnormal.
const SMALLEST: f32 = f32::MIN_POSITIVE;

/// A subnormal operand counts as zero of its sign.
fn read(value: f32) -> f32 {
    if value.abs() < SMALLEST { 0.0_f32.copysign(value) } else { value }
}

/// The nearest f32, ties to even; what is still subnormal after that becomes zero of its sign.
///
/// Every value here is the sum of two numbers of at most 24 digits each, in f64, whose 53 digits are enough that rounding
/// twice equals rounding once.
fn round(value: f64) -> f32 {
    // With unbounded exponents 24 digits would round to the smallest normal number from here on: half a step below it.
    const BOUND: f64 = SMALLEST as f64 * (1.0 - f32::EPSILON as f64 / 4.0);
    if value.abs() < BOUND { 0.0_f32.copysign(value as f32) } else { value as f32 }
}

/// `a * b + c` for bf16 numbers a and b, whose product has 16 digits and so is exact in f64.
fn fused(a: f32, b: f32, c: f32) -> f32 {
    round(f64::from(a) * f64::from(b) + f64::from(c))
}

impl Emulator {
    fn word(&self, tile: usize, row: usize, word: usize) -> u32 {
        let at = row * ROW_BYTES + word * 4;
        let bytes = self.tiles[tile][at..at + 4].first_chunk();
        u32::from_le_bytes(*bytes.expect("four bytes"))
    }

    fn set_word(&mut self, tile: usize, row: usize, word: usize, value: u32) {
        let at = row * ROW_BYTES + word * 4;
        self.tiles[tile][at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The two numbers of a word.
fn halves(word: u32) -> [f32; 2] {
    [word << 16, word & 0xffff_0000].map(|bits| read(f32::from_bits(bits)))
}

impl TileOps for Emulator {
    fn zero<const TILE: usize>(&mut self) {
        self.tiles[TILE].fill(0);
    }

    unsafe fn load<const TILE: usize>(&mut self, source: *const u8, stride_bytes: usize) {
        for (row, target) in self.tiles[TILE].chunks_exact_mut(ROW_BYTES).enumerate() {
            // SAFETY: row `row` is valid for 64 bytes by this function's contract.
            target.copy_from_slice(unsafe {
                std::slice::from_raw_parts(source.wrapping_add(row * stride_bytes), ROW_BYTES)
            });
        }
    }

    unsafe fn store<const TILE: usize>(&mut self, target: *mut u8, stride_bytes: usize) {
        for (row, source) in self.tiles[TILE].chunks_exact(ROW_BYTES).enumerate() {
            // SAFETY: row `row` is valid for 64 bytes by this function's contract, and not part of this value.
            unsafe { target.wrapping_add(row * stride_bytes).copy_from_nonoverlapping(source.as_ptr(), ROW_BYTES) };
        }
    }

    /// The first and the second numbers of words are summed apart, from zero and over all words, each step one fused
    /// multiply-add; then the two sums are added, and that to C. Round to nearest even throughout, subnormal operands and
    /// results are zero, MXCSR plays no part. (The manual leaves the payload of a NaN open, and so does this.)
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        for row in 0..SIDE {
            let mut sums = [[0.0_f32; 2]; SIDE];
            for word in 0..SIDE {
                let a = halves(self.word(A, row, word));
                for (column, sum) in sums.iter_mut().enumerate() {
                    let b = halves(self.word(B, word, column));
                    *sum = [fused(a[0], b[0], sum[0]), fused(a[1], b[1], sum[1])];
                }
            }
            for (column, [even, odd]) in sums.into_iter().enumerate() {
                let pair = round(f64::from(even) + f64::from(odd));
                let before = read(f32::from_bits(self.word(C, row, column)));
                self.set_word(C, row, column, round(f64::from(before) + f64::from(pair)).to_bits());
            }
        }
    }

    /// Integers that wrap around; the instruction does not saturate.
    fn dot_u8s8<const C: usize, const A: usize, const B: usize>(&mut self) {
        for row in 0..SIDE {
            for column in 0..SIDE {
                let mut sum = self.word(C, row, column) as i32;
                for word in 0..SIDE {
                    let (a, b) = (self.word(A, row, word).to_le_bytes(), self.word(B, word, column).to_le_bytes());
                    for byte in 0..4 {
                        sum = sum.wrapping_add(i32::from(a[byte]) * i32::from(b[byte] as i8));
                    }
                }
                self.set_word(C, row, column, sum as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnormal_numbers_are_zero_and_ties_go_to_even() {
        assert_eq!(read(-1e-40).to_bits(), (-0.0_f32).to_bits());
        let tiny = f64::from(SMALLEST);
        let step = tiny * f64::from(f32::EPSILON);
        assert_eq!(round(tiny - step / 8.0), SMALLEST);
        // Half way between the smallest normal number and the 24-digit number below it: the even one.
        assert_eq!(round(tiny - step / 4.0), SMALLEST);
        assert_eq!(round(tiny - step / 2.0), 0.0);
        assert_eq!(round(-tiny / 2.0).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(round(1.0 + f64::from(f32::EPSILON) / 2.0), 1.0);
        assert_eq!(round(1.0 + f64::from(f32::EPSILON) * 1.5), 1.0 + 2.0 * f32::EPSILON);
        assert!(round(f64::NAN).is_nan() && round(1e39).is_infinite());
    }

    #[test]
    fn fused_steps_equal_those_of_the_library() {
        // Numbers far from the ends of the range, where nothing is flushed.
        let mut state = 1_u32;
        let mut number = |digits: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bits = (state & 0x807f_ffff) | ((100 + (state >> 24) % 54) << 23);
            f32::from_bits(bits & (u32::MAX << (24 - digits)))
        };
        for _ in 0..200_000 {
            let (a, b, c) = (number(8), number(8), number(24));
            assert_eq!(fused(a, b, c), a.mul_add(b, c), "{a:e} {b:e} {c:e}");
        }
    }
}
