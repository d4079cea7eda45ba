//! The two number types that matrices are made of.
#![allow(unsafe_code)]

use crate::attention::AttentionTask;
use crate::bf16::Bf16;
use crate::depthwise::DepthwiseRow;
use crate::elementwise::ConvertRange;
use crate::gemm::LinearTask;
use crate::isa::Isa;
use crate::norm::NormRows;
use crate::simd::{LANES, Simd, dispatch};

/// Every kernel that is generic over the element it writes. The `run` of a number type compiles them all here, once; as
/// plain generic functions each crate that calls them would compile them anew.
pub enum Work<'a, O> {
    Convert(ConvertRange<'a, O>),
    Norm(NormRows<'a, O>),
    Depthwise(DepthwiseRow<'a, O>),
    Attention(AttentionTask<'a, O>),
    LinearF32(LinearTask<'a, f32, O>),
    LinearBf16(LinearTask<'a, Bf16, O>),
}

macro_rules! run_here {
    () => {
        fn run(isa: Isa, work: Work<'_, Self>) {
            match work {
                Work::Convert(kernel) => dispatch(isa, kernel),
                Work::Norm(kernel) => dispatch(isa, kernel),
                Work::Depthwise(kernel) => dispatch(isa, kernel),
                Work::Attention(kernel) => dispatch(isa, kernel),
                Work::LinearF32(kernel) => dispatch(isa, kernel),
                Work::LinearBf16(kernel) => dispatch(isa, kernel),
            }
        }
    };
}

/// f32 or [`Bf16`].
pub trait Element: Copy + Default + Send + Sync + Sealed + 'static {
    /// The nearest number of this type.
    fn from_f32(value: f32) -> Self;
    /// The value as f32.
    fn to_f32(self) -> f32;
    /// The type's name.
    const NAME: &'static str;
}

/// What the kernels need and nobody else may see or implement.
pub trait Sealed: Sized {
    /// Numbers in a 32-bit word: the unit in which a matrix row is broadcast.
    #[doc(hidden)]
    const GROUP: usize;
    /// The word at `source`.
    ///
    /// # Safety
    /// `source` is valid for reading 4 bytes.
    #[doc(hidden)]
    unsafe fn read_word(source: *const Self) -> u32;
    /// A word of this number, filled up with zero.
    #[doc(hidden)]
    fn half_word(self) -> u32;
    /// A word of one or two numbers; a missing second one is zero.
    #[doc(hidden)]
    fn word_of(first: f32, second: f32) -> u32;
    #[doc(hidden)]
    fn accumulate<S: Simd>(simd: S, sum: S::V, a: S::V, b: S::V) -> S::V;
    #[doc(hidden)]
    fn run(isa: Isa, work: Work<'_, Self>);
    #[doc(hidden)]
    fn run_linear<O: Element>(isa: Isa, task: LinearTask<'_, Self, O>)
    where
        Self: Element;
    #[doc(hidden)]
    fn store<S: Simd>(simd: S, value: S::V, target: &mut [Self; LANES]);
    /// For values of which none is subnormal.
    #[doc(hidden)]
    fn store_normal<S: Simd>(simd: S, value: S::V, target: &mut [Self; LANES]);
    /// Sixteen words of [`Sealed::word_of`].
    #[doc(hidden)]
    fn store_words<S: Simd>(simd: S, first: S::V, second: S::V, target: &mut [u32; LANES]);
}

impl Element for f32 {
    #[inline(always)]
    fn from_f32(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    const NAME: &'static str = "f32";
}

impl Sealed for f32 {
    const GROUP: usize = 1;

    run_here!();

    fn run_linear<O: Element>(isa: Isa, task: LinearTask<'_, Self, O>) {
        O::run(isa, Work::LinearF32(task));
    }

    #[inline(always)]
    unsafe fn read_word(source: *const f32) -> u32 {
        // SAFETY: valid for 4 bytes by this function's contract.
        unsafe { source.cast::<u32>().read_unaligned() }
    }

    #[inline(always)]
    fn half_word(self) -> u32 {
        self.to_bits()
    }

    #[inline(always)]
    fn word_of(first: f32, _second: f32) -> u32 {
        first.to_bits()
    }

    #[inline(always)]
    fn accumulate<S: Simd>(simd: S, sum: S::V, a: S::V, b: S::V) -> S::V {
        simd.fused(a, b, sum)
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, value: S::V, target: &mut [f32; LANES]) {
        simd.store(value, target);
    }

    #[inline(always)]
    fn store_normal<S: Simd>(simd: S, value: S::V, target: &mut [f32; LANES]) {
        simd.store(value, target);
    }

    #[inline(always)]
    fn store_words<S: Simd>(simd: S, first: S::V, _second: S::V, target: &mut [u32; LANES]) {
        let mut lanes = [0.0; LANES];
        simd.store(first, &mut lanes);
        *target = lanes.map(f32::to_bits);
    }
}

impl Element for Bf16 {
    #[inline(always)]
    fn from_f32(value: f32) -> Bf16 {
        Bf16::from_f32(value)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        Bf16::to_f32(self)
    }

    const NAME: &'static str = "bf16";
}

impl Sealed for Bf16 {
    const GROUP: usize = 2;

    run_here!();

    fn run_linear<O: Element>(isa: Isa, task: LinearTask<'_, Self, O>) {
        O::run(isa, Work::LinearBf16(task));
    }

    #[inline(always)]
    unsafe fn read_word(source: *const Bf16) -> u32 {
        // SAFETY: valid for 4 bytes by this function's contract.
        let [first, second] = unsafe { source.cast::<[u16; 2]>().read_unaligned() };
        u32::from(first) | u32::from(second) << 16
    }

    #[inline(always)]
    fn half_word(self) -> u32 {
        u32::from(self.to_bits())
    }

    #[inline(always)]
    fn word_of(first: f32, second: f32) -> u32 {
        let bits = |value| u32::from(Bf16::from_f32(value).to_bits());
        bits(first) | bits(second) << 16
    }

    #[inline(always)]
    fn accumulate<S: Simd>(simd: S, sum: S::V, a: S::V, b: S::V) -> S::V {
        simd.dot_bf16(sum, a, b)
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, value: S::V, target: &mut [Bf16; LANES]) {
        let mut bits = [0; LANES];
        simd.store_bf16(value, &mut bits);
        *target = bits.map(Bf16::from_bits);
    }

    #[inline(always)]
    fn store_normal<S: Simd>(simd: S, value: S::V, target: &mut [Bf16; LANES]) {
        let mut bits = [0; LANES];
        simd.store_normal_bf16(value, &mut bits);
        *target = bits.map(Bf16::from_bits);
    }

    #[inline(always)]
    fn store_words<S: Simd>(simd: S, first: S::V, second: S::V, target: &mut [u32; LANES]) {
        let (mut even, mut odd) = ([0; LANES], [0; LANES]);
        simd.store_bf16(first, &mut even);
        simd.store_bf16(second, &mut odd);
        for lane in 0..LANES {
            target[lane] = u32::from(even[lane]) | u32::from(odd[lane]) << 16;
        }
    }
}

/// Writes the first lanes of `value` to a slice of at most sixteen numbers.
#[inline(always)]
pub(crate) fn store_part<S: Simd, O: Element>(simd: S, value: S::V, target: &mut [O]) {
    if let Some(whole) = target.first_chunk_mut::<LANES>() {
        O::store(simd, value, whole);
        return;
    }
    let mut lanes = [O::default(); LANES];
    O::store(simd, value, &mut lanes);
    target.copy_from_slice(&lanes[..target.len()]);
}
