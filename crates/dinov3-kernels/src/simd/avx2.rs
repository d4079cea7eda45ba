//! AVX2 with FMA, with or without the dot product of bytes: a vector is two registers of eight lanes.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Kernel, LANES, Lanes, Part, Simd};

#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>(());

/// # Safety
/// The CPU has avx2 and fma.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<false>(()))
}

/// # Safety
/// The CPU has avx2, fma and avxvnni.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) unsafe fn run_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<true>(()))
}

/// Word j of vector i becomes word i of vector j: three rounds, which exchange words, pairs of words and halves.
///
/// # Safety
/// The CPU has avx2.
#[inline(always)]
unsafe fn transpose_eight(rows: [__m256; 8]) -> [__m256; 8] {
    let mut words = rows;
    let mut pairs = rows;
    let mut halves = rows;
    // SAFETY: the CPU has avx2 by this function's contract.
    unsafe {
        for at in 0..4 {
            words[2 * at] = _mm256_unpacklo_ps(rows[2 * at], rows[2 * at + 1]);
            words[2 * at + 1] = _mm256_unpackhi_ps(rows[2 * at], rows[2 * at + 1]);
        }
        for at in [0, 4] {
            for high in 0..2 {
                let (a, b) = (words[at + high], words[at + 2 + high]);
                pairs[at + 2 * high] = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                pairs[at + 2 * high + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, b);
            }
        }
        for at in 0..4 {
            halves[at] = _mm256_permute2f128_ps::<0x20>(pairs[at], pairs[at + 4]);
            halves[at + 4] = _mm256_permute2f128_ps::<0x31>(pairs[at], pairs[at + 4]);
        }
    }
    halves
}

/// The same operation on both halves.
macro_rules! both {
    ($operation:ident, $($argument:expr),+) => {
        // SAFETY: an Avx2 value is only made where the CPU has avx2 and fma.
        unsafe { [$operation($($argument[0]),+), $operation($($argument[1]),+)] }
    };
}

/// The same expression for both halves of some vectors. Not a closure: one that is not inlined has no vector registers.
macro_rules! halves {
    (|$($name:ident),+| $body:expr) => {{
        let half = {
            $(let $name = $name[0];)+
            // SAFETY: an Avx2 value is only made where the CPU has avx2 and fma, and Avx2<true> where it has avxvnni.
            unsafe { $body }
        };
        [half, {
            $(let $name = $name[1];)+
            // SAFETY: as above.
            unsafe { $body }
        }]
    }};
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type V = [__m256; 2];
    const TILE_VECTORS: usize = 1;
    const TILE_ROWS: usize = 6;
    const MULTIPLIES_BYTES: bool = VNNI;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: an Avx2 value is only made where the CPU has the instructions of its type.
        unsafe { if VNNI { run_vnni(kernel) } else { run(kernel) } }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        // SAFETY: an Avx2 value is only made where the CPU has avx2.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    fn load(self, source: &Lanes) -> Self::V {
        let source = source.as_ptr();
        // SAFETY: the array holds sixteen floats; the CPU has avx2, see `splat`.
        unsafe { [_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(8))] }
    }

    #[inline(always)]
    fn store(self, value: Self::V, target: &mut Lanes) {
        let target = target.as_mut_ptr();
        // SAFETY: the array holds sixteen floats; the CPU has avx2, see `splat`.
        unsafe {
            _mm256_storeu_ps(target, value[0]);
            _mm256_storeu_ps(target.add(8), value[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_words(self, source: *const u32) -> Self::V {
        let source = source.cast::<f32>();
        // SAFETY: valid for sixteen words by this function's contract; the CPU has avx2, see `splat`.
        unsafe { [_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(8))] }
    }

    #[inline(always)]
    fn splat_word(self, word: u32) -> Self::V {
        self.splat(f32::from_bits(word))
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn subtract(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn multiply(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn divide(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    fn fused(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        both!(_mm256_fmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: the CPU has avx2, see `splat`.
        unsafe { [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])] }
    }

    #[inline(always)]
    fn scale(self, a: Self::V, n: Self::V) -> Self::V {
        halves!(|a, n| {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        })
    }

    #[inline(always)]
    fn select_less(self, a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V {
        // SAFETY: the CPU has avx2, see `splat`.
        let less = unsafe { [_mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])] };
        both!(_mm256_blendv_ps, otherwise, then, less)
    }

    #[inline(always)]
    fn dot_u8s8(self, sum: Self::V, a: Self::V, b: Self::V) -> Self::V {
        assert!(VNNI, "only where there is the instruction");
        halves!(|sum, a, b| {
            let (sum, a, b) = (_mm256_castps_si256(sum), _mm256_castps_si256(a), _mm256_castps_si256(b));
            _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(sum, a, b))
        })
    }

    #[inline(always)]
    fn bf16_of_words(self, words: Self::V, part: Part) -> Self::V {
        halves!(|words| {
            let words = _mm256_castps_si256(words);
            _mm256_castsi256_ps(match part {
                Part::Even => _mm256_slli_epi32::<16>(words),
                Part::Odd => _mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32 as i32)),
            })
        })
    }

    #[inline(always)]
    fn unsigned_of_words(self, words: Self::V, part: Part) -> Self::V {
        halves!(|words| {
            let words = _mm256_castps_si256(words);
            _mm256_castsi256_ps(match part {
                Part::Even => _mm256_and_si256(words, _mm256_set1_epi16(0xff)),
                Part::Odd => _mm256_srli_epi16::<8>(words),
            })
        })
    }

    #[inline(always)]
    fn signed_of_words(self, words: Self::V, part: Part) -> Self::V {
        halves!(|words| {
            let words = _mm256_castps_si256(words);
            _mm256_castsi256_ps(match part {
                Part::Even => _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(words)),
                Part::Odd => _mm256_srai_epi16::<8>(words),
            })
        })
    }

    #[inline(always)]
    fn dot_i16(self, sum: Self::V, a: Self::V, b: Self::V) -> Self::V {
        halves!(|sum, a, b| {
            let pairs = _mm256_madd_epi16(_mm256_castps_si256(a), _mm256_castps_si256(b));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), pairs))
        })
    }

    #[inline(always)]
    fn add_integers(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(|a, b| _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))))
    }

    #[inline(always)]
    fn dequantize(self, sum: Self::V, zero: Self::V, column: Self::V, scale: Self::V) -> Self::V {
        halves!(|sum, zero, column, scale| {
            let offset = _mm256_mullo_epi32(_mm256_castps_si256(zero), _mm256_castps_si256(column));
            _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_castps_si256(sum), offset)), scale)
        })
    }

    #[inline(always)]
    fn store_bytes(self, value: Self::V, target: &mut [u8; LANES]) {
        // Bounded before the conversion, which gives the lowest integer for whatever is too large.
        let bounded = self.min(self.splat(255.0), self.max(self.splat(0.0), value));
        // SAFETY: the CPU has avx2, see `splat`; the array holds sixteen bytes.
        unsafe {
            let words = _mm256_packus_epi32(_mm256_cvtps_epi32(bounded[0]), _mm256_cvtps_epi32(bounded[1]));
            // The packs work within 128-bit halves; put the quarters in order between them.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(target.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn load_bf16(self, source: &[u16; LANES]) -> Self::V {
        let source = source.as_ptr();
        // SAFETY: the array holds sixteen numbers; the CPU has avx2, see `splat`.
        let eights = unsafe { [_mm_loadu_si128(source.cast()), _mm_loadu_si128(source.add(8).cast())] };
        halves!(|eights| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(eights))))
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::V; LANES]) -> [Self::V; LANES] {
        let mut columns = rows;
        for first in [0, 8] {
            for half in 0..2 {
                let mut eight = [rows[0][0]; 8];
                for (at, target) in eight.iter_mut().enumerate() {
                    *target = rows[first + at][half];
                }
                // SAFETY: the CPU has avx2, see `splat`.
                let eight = unsafe { transpose_eight(eight) };
                for (at, source) in eight.into_iter().enumerate() {
                    columns[8 * half + at][first / 8] = source;
                }
            }
        }
        columns
    }

    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch touches no memory as far as the program can tell; SSE is part of the baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn store_bf16(self, value: Self::V, target: &mut [u16; LANES]) {
        let halves = halves!(|value| {
            let bits = _mm256_castps_si256(value);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let not_number = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
            _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, not_number))
        });
        // SAFETY: the CPU has avx2, see `splat`; the array holds 32 bytes.
        unsafe {
            let packed = _mm256_packus_epi32(halves[0], halves[1]);
            // The pack works within 128-bit halves; put the quarters in order.
            let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            _mm256_storeu_si256(target.as_mut_ptr().cast(), ordered);
        }
    }
}
