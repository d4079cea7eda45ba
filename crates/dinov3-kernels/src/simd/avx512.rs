//! AVX-512, with or without the dot products of bytes and of bf16.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Kernel, LANES, Lanes, Part, Simd};

#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool, const BF16: bool>(());

/// # Safety
/// The CPU has avx512f, avx512bw, avx512dq, avx512vl, avx2 and fma.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false, false>(()))
}

/// # Safety
/// The CPU has what [`run`] needs and avx512vnni.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn run_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true, false>(()))
}

/// # Safety
/// The CPU has what [`run`] needs, avx512vnni and avx512bf16.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma")]
pub(super) unsafe fn run_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true, true>(()))
}

/// Instructions that touch no memory.
macro_rules! registers {
    ($expression:expr) => {
        // SAFETY: an Avx512 value is only made where the CPU has these instructions.
        unsafe { $expression }
    };
}

impl<const VNNI: bool, const BF16: bool> Simd for Avx512<VNNI, BF16> {
    type V = __m512;
    const TILE_VECTORS: usize = 4;
    const TILE_ROWS: usize = 6;
    const MULTIPLIES_BF16: bool = BF16;
    const MULTIPLIES_BYTES: bool = VNNI;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: an Avx512 value is only made where the CPU has the instructions of its type.
        unsafe {
            match (VNNI, BF16) {
                (_, true) => run_bf16(kernel),
                (true, false) => run_vnni(kernel),
                (false, false) => run(kernel),
            }
        }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        registers!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, source: &Lanes) -> __m512 {
        // SAFETY: the array holds sixteen floats; the CPU has avx512f, see `registers`.
        unsafe { _mm512_loadu_ps(source.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, value: __m512, target: &mut Lanes) {
        // SAFETY: the array holds sixteen floats; the CPU has avx512f, see `registers`.
        unsafe { _mm512_storeu_ps(target.as_mut_ptr(), value) }
    }

    #[inline(always)]
    unsafe fn load_words(self, source: *const u32) -> __m512 {
        // SAFETY: valid for sixteen words by this function's contract; the CPU has avx512f, see `registers`.
        unsafe { _mm512_loadu_ps(source.cast()) }
    }

    #[inline(always)]
    fn splat_word(self, word: u32) -> __m512 {
        self.splat(f32::from_bits(word))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn subtract(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn multiply(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn divide(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fused(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        registers!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        registers!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn scale(self, a: __m512, n: __m512) -> __m512 {
        registers!(_mm512_scalef_ps(a, n))
    }

    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
        registers!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), otherwise, then))
    }

    #[inline(always)]
    fn dot_bf16(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        assert!(BF16, "only where there is the instruction");
        // SAFETY: Avx512<_, true> is only made where the CPU has avx512bf16. Both types are 64 bytes without padding.
        unsafe {
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512, __m512bh>(a),
                std::mem::transmute::<__m512, __m512bh>(b),
            )
        }
    }

    #[inline(always)]
    fn dot_u8s8(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        assert!(VNNI, "only where there is the instruction");
        // SAFETY: Avx512<true, _> is only made where the CPU has avx512vnni.
        unsafe {
            let (sum, a, b) = (_mm512_castps_si512(sum), _mm512_castps_si512(a), _mm512_castps_si512(b));
            _mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, a, b))
        }
    }

    #[inline(always)]
    fn bf16_of_words(self, words: __m512, part: Part) -> __m512 {
        registers!({
            let words = _mm512_castps_si512(words);
            _mm512_castsi512_ps(match part {
                Part::Even => _mm512_slli_epi32::<16>(words),
                Part::Odd => _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32)),
            })
        })
    }

    #[inline(always)]
    fn unsigned_of_words(self, words: __m512, part: Part) -> __m512 {
        registers!({
            let words = _mm512_castps_si512(words);
            _mm512_castsi512_ps(match part {
                Part::Even => _mm512_and_si512(words, _mm512_set1_epi16(0xff)),
                Part::Odd => _mm512_srli_epi16::<8>(words),
            })
        })
    }

    #[inline(always)]
    fn signed_of_words(self, words: __m512, part: Part) -> __m512 {
        registers!({
            let words = _mm512_castps_si512(words);
            _mm512_castsi512_ps(match part {
                Part::Even => _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(words)),
                Part::Odd => _mm512_srai_epi16::<8>(words),
            })
        })
    }

    #[inline(always)]
    fn dot_i16(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        registers!({
            let pairs = _mm512_madd_epi16(_mm512_castps_si512(a), _mm512_castps_si512(b));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sum), pairs))
        })
    }

    #[inline(always)]
    fn add_integers(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))))
    }

    #[inline(always)]
    fn dequantize(self, sum: __m512, zero: __m512, column: __m512, scale: __m512) -> __m512 {
        registers!({
            let offset = _mm512_mullo_epi32(_mm512_castps_si512(zero), _mm512_castps_si512(column));
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(sum), offset)), scale)
        })
    }

    #[inline(always)]
    fn store_bytes(self, value: __m512, target: &mut [u8; LANES]) {
        // Bounded before the conversion, which gives the lowest integer for whatever is too large.
        let bounded = self.min(self.splat(255.0), self.max(self.splat(0.0), value));
        // SAFETY: the CPU has these instructions, see `registers`; the array holds sixteen bytes.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(bounded));
            _mm_storeu_si128(target.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn load_bf16(self, source: &[u16; LANES]) -> __m512 {
        // SAFETY: the CPU has these instructions, see `registers`; the array holds 32 bytes.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(source.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }

    #[inline(always)]
    fn store_normal_bf16(self, value: __m512, target: &mut [u16; LANES]) {
        if BF16 {
            // SAFETY: Avx512<_, true> is only made where the CPU has avx512bf16. Both types are 32 bytes without padding.
            unsafe {
                let packed = _mm512_cvtneps_pbh(value);
                let packed = std::mem::transmute::<__m256bh, __m256i>(packed);
                _mm256_storeu_si256(target.as_mut_ptr().cast(), packed);
            }
        } else {
            self.store_bf16(value, target);
        }
    }

    #[inline(always)]
    fn transpose(self, mut rows: [__m512; LANES]) -> [__m512; LANES] {
        // Four rounds, each of which merges vectors i and i + 8: after a round vector 2i + h holds the halves h of those
        // two, word by word in turn. Four perfect shuffles of the eight bits of (vector, lane) exchange the two.
        registers!({
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            for _ in 0..4 {
                let before = rows;
                for pair in 0..LANES / 2 {
                    let (a, b) = (before[pair], before[pair + LANES / 2]);
                    rows[2 * pair] = _mm512_permutex2var_ps(a, low, b);
                    rows[2 * pair + 1] = _mm512_permutex2var_ps(a, high, b);
                }
            }
            rows
        })
    }

    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch touches no memory as far as the program can tell; SSE is part of the baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn store_bf16(self, value: __m512, target: &mut [u16; LANES]) {
        // The conversion instruction flushes subnormal numbers; integer steps give the same bits as every other twin.
        // SAFETY: the CPU has these instructions, see `registers`; the array holds 32 bytes.
        unsafe {
            let bits = _mm512_castps_si512(value);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let not_number = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
            let kept = _mm512_mask_or_epi32(rounded, not_number, bits, _mm512_set1_epi32(0x0040_0000));
            let packed = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(kept));
            _mm256_storeu_si256(target.as_mut_ptr().cast(), packed);
        }
    }
}
