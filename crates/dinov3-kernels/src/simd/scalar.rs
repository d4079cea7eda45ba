//! The portable twin: plain loops over arrays, which the compiler vectorises for the build's baseline.
#![allow(unsafe_code)]

use super::{Kernel, LANES, Lanes, Simd};
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
    fn dot_bf16(self, sum: Lanes, a: Lanes, b: Lanes) -> Lanes {
        let low = |word: f32| f32::from_bits(word.to_bits() << 16);
        let high = |word: f32| f32::from_bits(word.to_bits() & 0xffff_0000);
        let even = self.add(map2(a, b, |a, b| low(a) * low(b)), sum);
        self.add(map2(a, b, |a, b| high(a) * high(b)), even)
    }

    #[inline(always)]
    fn store_bf16(self, value: Lanes, target: &mut [u16; LANES]) {
        for lane in 0..LANES {
            target[lane] = Bf16::from_f32(value[lane]).to_bits();
        }
    }
}
