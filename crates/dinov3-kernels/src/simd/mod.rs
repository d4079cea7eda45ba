//! Sixteen f32 lanes under one interface, so that each kernel is written once.
//!
//! A value of a [`Simd`] type is the proof that the CPU has its instructions: only [`dispatch`] makes one, from an
//! [`Isa`], inside a function compiled for them. All kernel code is `inline(always)` and ends up in that function.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use crate::isa::{Isa, Level};

/// Lanes of a vector, for every instruction set.
pub const LANES: usize = 16;

/// Sixteen floats as loaded and stored.
pub type Lanes = [f32; LANES];

/// Which numbers of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those that come first, or first of each pair.
    Even,
    /// The others.
    Odd,
}

/// Arithmetic on sixteen lanes.
pub trait Simd: Copy {
    /// Sixteen f32 values, or the 32-bit words of the same register.
    type V: Copy;
    /// Vectors across a register tile of the matrix product.
    const TILE_VECTORS: usize;
    /// Rows of a register tile.
    const TILE_ROWS: usize;
    /// Whether there is [`Simd::dot_bf16`].
    const MULTIPLIES_BF16: bool = false;
    /// Whether there is [`Simd::dot_u8s8`].
    const MULTIPLIES_BYTES: bool = false;

    fn splat(self, value: f32) -> Self::V;
    fn load(self, source: &Lanes) -> Self::V;
    fn store(self, value: Self::V, target: &mut Lanes);
    /// Sixteen words.
    ///
    /// # Safety
    /// `source` is valid for reading 64 bytes; any alignment.
    unsafe fn load_words(self, source: *const u32) -> Self::V;
    /// One word in all lanes.
    fn splat_word(self, word: u32) -> Self::V;

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn subtract(self, a: Self::V, b: Self::V) -> Self::V;
    fn multiply(self, a: Self::V, b: Self::V) -> Self::V;
    fn divide(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, with one rounding where the instruction exists.
    fn fused(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The nearest integer, for |a| < 2^22.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for an integer n from -126 to 127.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;
    /// `then` where a < b, else `otherwise`.
    fn select_less(self, a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// Adds the products of the two bf16 numbers in each word. Only where [`Simd::MULTIPLIES_BF16`].
    #[inline(always)]
    fn dot_bf16(self, sum: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let _ = (sum, a, b);
        unreachable!("there is no such instruction")
    }
    /// Adds the products of the four bytes in each word, unsigned in `a` and signed in `b`, to integers. Only where
    /// [`Simd::MULTIPLIES_BYTES`].
    #[inline(always)]
    fn dot_u8s8(self, sum: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let _ = (sum, a, b);
        unreachable!("there is no such instruction")
    }
    /// The first or the second bf16 number of each word, as f32.
    fn bf16_of_words(self, words: Self::V, part: Part) -> Self::V;
    /// The first and third, or the second and fourth, byte of each word as 16-bit numbers.
    fn unsigned_of_words(self, words: Self::V, part: Part) -> Self::V;
    /// The same for signed bytes.
    fn signed_of_words(self, words: Self::V, part: Part) -> Self::V;
    /// Adds the products of the two signed 16-bit numbers in each word to integers.
    fn dot_i16(self, sum: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of integers.
    fn add_integers(self, a: Self::V, b: Self::V) -> Self::V;
    /// `(sum - zero * column) * scale`, the difference of integers, the product of f32.
    fn dequantize(self, sum: Self::V, zero: Self::V, column: Self::V, scale: Self::V) -> Self::V;
    /// The nearest integers, ties to even, held within 0 to 255; NaN becomes either.
    fn store_bytes(self, value: Self::V, target: &mut [u8; LANES]);
    /// Sixteen bf16 numbers.
    fn load_bf16(self, source: &[u16; LANES]) -> Self::V;
    /// Sixteen bf16 numbers, rounded to nearest even.
    fn store_bf16(self, value: Self::V, target: &mut [u16; LANES]);

    /// Word j of vector i becomes word i of vector j.
    #[inline(always)]
    fn transpose(self, rows: [Self::V; LANES]) -> [Self::V; LANES] {
        let mut lanes = [[0.0; LANES]; LANES];
        for (row, lanes) in rows.iter().zip(&mut lanes) {
            self.store(*row, lanes);
        }
        let mut columns = rows;
        for (column, target) in columns.iter_mut().enumerate() {
            let mut words = [0.0; LANES];
            for (word, row) in words.iter_mut().zip(&lanes) {
                *word = row[column];
            }
            *target = self.load(&words);
        }
        columns
    }

    /// Brings the cache line at `address` closer. Any address is allowed.
    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        let _ = address;
    }

    /// Like [`Simd::store_bf16`], for values of which none is subnormal: there is an instruction that takes those for zero.
    #[inline(always)]
    fn store_normal_bf16(self, value: Self::V, target: &mut [u16; LANES]) {
        self.store_bf16(value, target);
    }

    /// Runs a kernel as a function of its own: what several kernels share is compiled once.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    /// The sum of the lanes, always in the same order.
    #[inline(always)]
    fn sum(self, value: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self, value: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] = lanes[lane].max(lanes[lane + width]);
            }
            width /= 2;
        }
        lanes[0]
    }

    /// Up to sixteen values; `fill` in the lanes that the slice does not reach.
    #[inline(always)]
    fn load_part(self, source: &[f32], fill: f32) -> Self::V {
        if let Some(whole) = source.first_chunk::<LANES>() {
            return self.load(whole);
        }
        let mut lanes = [fill; LANES];
        lanes[..source.len()].copy_from_slice(source);
        self.load(&lanes)
    }
}

/// Work that is generic over the instruction set.
pub trait Kernel {
    type Output;
    /// Must be `inline(always)`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the instructions of `isa`. Tiles are no instruction set of vectors: beside AMX stands AVX-512.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.level() {
        Level::Scalar | Level::AmxEmulated => kernel.run(scalar::Scalar),
        // SAFETY: an Isa of this level is only made after the CPU reported its features.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => unsafe { avx2::run(kernel) },
        // SAFETY: an Isa of this level is only made after the CPU reported its features.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Vnni => unsafe { avx512::run(kernel) },
        // SAFETY: an Isa of this level is only made after the CPU reported its features.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16 | Level::Amx => unsafe { avx512::run_bf16(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => kernel.run(scalar::Scalar),
    }
}

/// Like [`dispatch`], for kernels that multiply bytes; all others are spared the additional instruction sets.
pub(crate) fn dispatch_integers<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.level() {
        // SAFETY: an Isa of this level is only made after the CPU reported its features.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => unsafe { avx2::run_vnni(kernel) },
        // SAFETY: an Isa of this level is only made after the CPU reported its features.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => unsafe { avx512::run_vnni(kernel) },
        _ => dispatch(isa, kernel),
    }
}
