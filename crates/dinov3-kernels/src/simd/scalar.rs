//! The portable twin: plain loops over arrays, which the compiler vectorises for the build's baseline.
#![allow(unsafe_code)]

use super::{Kernel, LANES, Lanes, Part, Simd};
use crate::bf16::Bf16;

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn map2(a: Lanes, b: Lanes, operation: impl Fn(f32, f32) -> f32) -> Lanes {
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        out[lane] = operation(a[lane], b[lane]);
    }
    out
}

impl Simd for Scalar {
    type V = Lanes;
    const TILE_VECTORS: usize = 1;
    const TILE_ROWS: usize = 2;

    #[inline(never)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, source: &Lanes) -> Lanes {
        *source
    }

    #[inline(always)]
    fn store(self, value: Lanes, target: &mut Lanes) {
        *target = value;
    }

    #[inline(always)]
    unsafe fn load_words(self, source: *const u32) -> Lanes {
        // SAFETY: valid for 64 bytes by this function's contract, and read without alignment.
        unsafe { source.cast::<Lanes>().read_unaligned() }
    }

    #[inline(always)]
    fn splat_word(self, word: u32) -> Lanes {
        [f32::from_bits(word); LANES]
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn subtract(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn multiply(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn divide(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fused(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        // Two roundings: f32::mul_add without the instruction is a slow library call.
        self.add(self.multiply(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self, a: Lanes) -> Lanes {
        // Adding 1.5 * 2^23 leaves no fraction bits; the baseline has no rounding instruction.
        const SHIFT: f32 = 12_582_912.0;
        map2(a, a, |a, _| (a + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn scale(self, a: Lanes, n: Lanes) -> Lanes {
        // Adding 2^23 + 127 puts the biased exponent into the low bits of the sum.
        const SHIFT: f32 = 8_388_608.0 + 127.0;
        map2(a, n, |a, n| a * f32::from_bits((n + SHIFT).to_bits() << 23))
    }

    #[inline(always)]
    fn select_less(self, a: Lanes, b: Lanes, then: Lanes, otherwise: Lanes) -> Lanes {
        let mut out = otherwise;
        for lane in 0..LANES {
            out[lane] = if a[lane] < b[lane] { then[lane] } else { otherwise[lane] };
        }
        out
    }

    #[inline(always)]
    fn bf16_of_words(self, words: Lanes, part: Part) -> Lanes {
        words.map(|word| {
            f32::from_bits(match part {
                Part::Even => word.to_bits() << 16,
                Part::Odd => word.to_bits() & 0xffff_0000,
            })
        })
    }

    #[inline(always)]
    fn unsigned_of_words(self, words: Lanes, part: Part) -> Lanes {
        words.map(|word| {
            f32::from_bits(match part {
                Part::Even => word.to_bits() & 0x00ff_00ff,
                Part::Odd => word.to_bits() >> 8 & 0x00ff_00ff,
            })
        })
    }

    #[inline(always)]
    fn signed_of_words(self, words: Lanes, part: Part) -> Lanes {
        // Twice as many narrow lanes: the sign of each comes from its own byte.
        words.map(|word| {
            let shift = if part == Part::Even { 8 } else { 0 };
            let low = (((word.to_bits() as u16) << shift) as i16 >> 8) as u16;
            let high = ((((word.to_bits() >> 16) as u16) << shift) as i16 >> 8) as u16;
            f32::from_bits(u32::from(low) | u32::from(high) << 16)
        })
    }

    #[inline(always)]
    fn dot_i16(self, sum: Lanes, a: Lanes, b: Lanes) -> Lanes {
        let low = |word: f32| i32::from(word.to_bits() as i16);
        let high = |word: f32| word.to_bits() as i32 >> 16;
        let pairs = map2(a, b, |a, b| f32::from_bits((low(a) * low(b)).wrapping_add(high(a) * high(b)) as u32));
        self.add_integers(sum, pairs)
    }

    #[inline(always)]
    fn add_integers(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| f32::from_bits(a.to_bits().wrapping_add(b.to_bits())))
    }

    #[inline(always)]
    fn dequantize(self, sum: Lanes, zero: Lanes, column: Lanes, scale: Lanes) -> Lanes {
        let offset = map2(zero, column, |zero, column| f32::from_bits(zero.to_bits().wrapping_mul(column.to_bits())));
        let exact = map2(sum, offset, |sum, offset| sum.to_bits().wrapping_sub(offset.to_bits()) as i32 as f32);
        self.multiply(exact, scale)
    }

    #[inline(always)]
    fn store_bytes(self, value: Lanes, target: &mut [u8; LANES]) {
        let whole = self.round(self.min(self.splat(255.0), self.max(self.splat(0.0), value)));
        for lane in 0..LANES {
            target[lane] = whole[lane] as u8;
        }
    }

    #[inline(always)]
    fn load_bf16(self, source: &[u16; LANES]) -> Lanes {
        let mut out = [0.0; LANES];
        for lane in 0..LANES {
            out[lane] = Bf16::from_bits(source[lane]).to_f32();
        }
        out
    }

    #[inline(always)]
    fn store_bf16(self, value: Lanes, target: &mut [u16; LANES]) {
        for lane in 0..LANES {
            target[lane] = Bf16::from_f32(value[lane]).to_bits();
        }
    }
}
