//! The number types that matrices are made of.
#![allow(unsafe_code)]

use dinov3_system::threads::Pool;

use crate::amx::TileOps;
use crate::attention::AttentionTask;
use crate::bf16::Bf16;
use crate::depthwise::DepthwiseRow;
use crate::elementwise::ConvertRange;
use crate::gemm::{ColumnScales, LinearTask};
use crate::int8::Int8;
use crate::isa::Isa;
use crate::math;
use crate::norm::{Norm, NormRows, normalize_row};
use crate::rotary::RotateRows;
use crate::simd::{LANES, Part, Simd, dispatch, dispatch_integers};

/// Every kernel that is generic over the element it writes. The `run` of a number type compiles them all here, once; as
/// plain generic functions each crate that calls them would compile them anew.
pub enum Work<'a, O> {
    Convert(ConvertRange<'a, O>),
    Attention(AttentionTask<'a, O>),
    Rotate(RotateRows<'a, O>),
    LinearF32(LinearTask<'a, f32, O>),
    LinearBf16(LinearTask<'a, Bf16, O>),
    LinearInt8(LinearTask<'a, Int8, O>),
}

/// Every kernel that is generic over the operand it writes; see [`Work`].
pub enum RowWork<'a, O> {
    Norm(NormRows<'a, O>),
    Depthwise(DepthwiseRow<'a, O>),
}

/// `run_rows` of an operand type.
macro_rules! run_rows_here {
    () => {
        fn run_rows(isa: Isa, work: RowWork<'_, Self>) {
            match work {
                RowWork::Norm(kernel) => dispatch(isa, kernel),
                RowWork::Depthwise(kernel) => dispatch(isa, kernel),
            }
        }
    };
}
pub(crate) use run_rows_here;

/// What is alike for both floating-point types.
macro_rules! float_operand {
    () => {
        run_rows_here!();

        #[inline(always)]
        fn add<S: Simd>(simd: S, a: S::V, b: S::V) -> S::V {
            simd.add(a, b)
        }

        #[inline(always)]
        fn normalize<S: Simd>(simd: S, x: &[f32], norm: Norm<'_>, _buffer: &mut Vec<f32>, out: &mut [Self]) {
            normalize_row(simd, x, norm, out);
        }
    };
}

macro_rules! float_element {
    () => {
        fn run(isa: Isa, work: Work<'_, Self>) {
            match work {
                Work::Convert(kernel) => dispatch(isa, kernel),
                Work::Attention(kernel) => dispatch(isa, kernel),
                Work::Rotate(kernel) => dispatch(isa, kernel),
                Work::LinearF32(kernel) => dispatch(isa, kernel),
                Work::LinearBf16(kernel) => dispatch(isa, kernel),
                Work::LinearInt8(kernel) => dispatch_integers(isa, kernel),
            }
        }
    };
}

/// What the rows and the weights of a matrix product are made of: f32, [`Bf16`] or [`Int8`].
pub trait Operand: Copy + Default + Send + Sync + SealedOperand + 'static {
    /// The numbers that become operands: the type itself, or bf16 for [`Int8`].
    type Element: Element;
    /// The type's name.
    const NAME: &'static str;

    /// Values of this type that a row of `width` numbers takes.
    fn row_length(width: usize) -> usize {
        width
    }

    /// Rows of `width` elements as operands: what is given, or, for [`Int8`], quantised into `buffer`.
    ///
    /// # Panics
    /// If `elements` is not made of whole rows.
    fn operands<'a>(
        pool: &Pool,
        isa: Isa,
        elements: &'a [Self::Element],
        width: usize,
        buffer: &'a mut Vec<Self>,
    ) -> &'a [Self];
}

/// A number type: f32 or [`Bf16`].
pub trait Element: Operand<Element = Self> + SealedElement {
    /// The nearest number of this type.
    fn from_f32(value: f32) -> Self;
    /// The value as f32.
    fn to_f32(self) -> f32;
}

/// What the kernels need of operands and nobody else may see or implement.
pub trait SealedOperand: Sized {
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
    /// A word of up to [`SealedOperand::GROUP`] weights; missing ones are zero.
    #[doc(hidden)]
    fn word_of(weights: &[f32]) -> u32;
    /// Whether words are taken apart into two parts before they are multiplied, since no instruction takes them whole.
    #[doc(hidden)]
    #[inline(always)]
    fn is_apart<S: Simd>() -> bool {
        false
    }
    /// A part of each word of a row, for [`SealedOperand::accumulate`]. Only where words are taken apart.
    #[doc(hidden)]
    #[inline(always)]
    fn part_of_row<S: Simd>(simd: S, words: S::V, part: Part) -> S::V {
        let _ = (simd, part);
        words
    }
    /// The same of columns; whole words where they are not.
    #[doc(hidden)]
    #[inline(always)]
    fn part_of_columns<S: Simd>(simd: S, words: S::V, part: Part) -> S::V {
        let _ = (simd, part);
        words
    }
    /// Adds the products of a part of each word, or of whole words.
    #[doc(hidden)]
    fn accumulate<S: Simd>(simd: S, sum: S::V, a: S::V, b: S::V) -> S::V;
    /// Adds two results of [`SealedOperand::accumulate`].
    #[doc(hidden)]
    fn add<S: Simd>(simd: S, a: S::V, b: S::V) -> S::V;
    /// Whether there are tile instructions for this type.
    #[doc(hidden)]
    const TILES: bool = false;
    /// Adds A × B to C, on tiles of words of this type.
    #[doc(hidden)]
    #[inline(always)]
    fn tile_dot<T: TileOps, const C: usize, const A: usize, const B: usize>(tiles: &mut T) {
        // Never called: a type without tile instructions is never on tiles.
        let _ = tiles;
    }
    /// Whether the weights of a column have a scale of their own.
    #[doc(hidden)]
    const SCALED: bool = false;
    /// The length over which a row of `width` numbers is multiplied.
    #[doc(hidden)]
    fn product_length(width: usize) -> usize {
        width
    }
    /// Makes columns of `k` weights ready for [`SealedOperand::word_of`].
    #[doc(hidden)]
    fn prepare_columns(isa: Isa, columns: &mut [f32], k: usize, scales: &mut [f32], sums: &mut [i32]) {
        let _ = (isa, columns, k, scales, sums);
    }
    /// What a row of operands knows about itself: for [`Int8`], its scale and zero point in all lanes.
    #[doc(hidden)]
    #[inline(always)]
    fn row_scale<S: Simd>(simd: S, row: &[Self]) -> [S::V; 2] {
        let _ = row;
        [simd.splat(0.0); 2]
    }
    /// Turns what was accumulated for a row and the sixteen columns from `column` on into f32.
    #[doc(hidden)]
    #[inline(always)]
    fn finish<S: Simd>(simd: S, row_scale: [S::V; 2], columns: &ColumnScales, column: usize, sum: S::V) -> S::V {
        let _ = (simd, row_scale, columns, column);
        sum
    }
    /// One normalised row.
    #[doc(hidden)]
    fn normalize<S: Simd>(simd: S, x: &[f32], norm: Norm<'_>, buffer: &mut Vec<f32>, out: &mut [Self]);
    #[doc(hidden)]
    fn run_rows(isa: Isa, work: RowWork<'_, Self>);
    #[doc(hidden)]
    fn run_linear<O: Element>(isa: Isa, task: LinearTask<'_, Self, O>)
    where
        Self: Operand;
}

/// What the kernels need of elements and nobody else may see or implement.
pub trait SealedElement: Sized {
    #[doc(hidden)]
    fn run(isa: Isa, work: Work<'_, Self>);
    #[doc(hidden)]
    fn load<S: Simd>(simd: S, source: &[Self; LANES]) -> S::V;
    #[doc(hidden)]
    fn store<S: Simd>(simd: S, value: S::V, target: &mut [Self; LANES]);
    /// For values of which none is subnormal, or whose subnormals may become zero: products take those for zero anyway.
    #[doc(hidden)]
    fn store_normal<S: Simd>(simd: S, value: S::V, target: &mut [Self; LANES]);
    /// x (1 + erf(x / √2)) / 2, as exactly as this type can show.
    #[doc(hidden)]
    fn gelu<S: Simd>(simd: S, x: S::V) -> S::V;
    /// 2^(x factor) for -126.4 < x factor < 127, as exactly as this type can show. The factor is the sum of a large and a
    /// small number.
    #[doc(hidden)]
    fn exp2<S: Simd>(simd: S, x: S::V, factor: [S::V; 2]) -> S::V;
    /// Sixteen words of two numbers each (of the first, if a word holds one).
    #[doc(hidden)]
    fn pairs(first: &[Self; LANES], second: &[Self; LANES]) -> [u32; LANES];
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
}

impl Operand for f32 {
    type Element = f32;
    const NAME: &'static str = "f32";

    fn operands<'a>(_: &Pool, _: Isa, elements: &'a [f32], _width: usize, _buffer: &'a mut Vec<f32>) -> &'a [f32] {
        elements
    }
}

impl SealedOperand for f32 {
    const GROUP: usize = 1;

    float_operand!();

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
    fn word_of(weights: &[f32]) -> u32 {
        weights[0].to_bits()
    }

    #[inline(always)]
    fn accumulate<S: Simd>(simd: S, sum: S::V, a: S::V, b: S::V) -> S::V {
        simd.fused(a, b, sum)
    }
}

impl SealedElement for f32 {
    float_element!();

    #[inline(always)]
    fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
        math::gelu(simd, x, &math::GELU)
    }

    #[inline(always)]
    fn exp2<S: Simd>(simd: S, x: S::V, factor: [S::V; 2]) -> S::V {
        math::exp2_of_product(simd, x, factor, &math::EXP2)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, source: &[f32; LANES]) -> S::V {
        simd.load(source)
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
    fn pairs(first: &[f32; LANES], _second: &[f32; LANES]) -> [u32; LANES] {
        first.map(f32::to_bits)
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
}

impl Operand for Bf16 {
    type Element = Bf16;
    const NAME: &'static str = "bf16";

    fn operands<'a>(_: &Pool, _: Isa, elements: &'a [Bf16], _width: usize, _buffer: &'a mut Vec<Bf16>) -> &'a [Bf16] {
        elements
    }
}

impl SealedOperand for Bf16 {
    const GROUP: usize = 2;

    float_operand!();

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
    fn word_of(weights: &[f32]) -> u32 {
        let bits = |value| u32::from(Bf16::from_f32(value).to_bits());
        bits(weights[0]) | bits(weights.get(1).copied().unwrap_or(0.0)) << 16
    }

    #[inline(always)]
    fn is_apart<S: Simd>() -> bool {
        !S::MULTIPLIES_BF16
    }

    #[inline(always)]
    fn part_of_row<S: Simd>(simd: S, words: S::V, part: Part) -> S::V {
        simd.bf16_of_words(words, part)
    }

    #[inline(always)]
    fn part_of_columns<S: Simd>(simd: S, words: S::V, part: Part) -> S::V {
        if S::MULTIPLIES_BF16 { words } else { simd.bf16_of_words(words, part) }
    }

    #[inline(always)]
    fn accumulate<S: Simd>(simd: S, sum: S::V, a: S::V, b: S::V) -> S::V {
        if S::MULTIPLIES_BF16 { simd.dot_bf16(sum, a, b) } else { simd.fused(a, b, sum) }
    }

    const TILES: bool = true;

    #[inline(always)]
    fn tile_dot<T: TileOps, const C: usize, const A: usize, const B: usize>(tiles: &mut T) {
        tiles.dot_bf16::<C, A, B>();
    }
}

impl SealedElement for Bf16 {
    float_element!();

    #[inline(always)]
    fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
        math::gelu(simd, x, &math::GELU_SHORT)
    }

    #[inline(always)]
    fn exp2<S: Simd>(simd: S, x: S::V, factor: [S::V; 2]) -> S::V {
        math::exp2(simd, simd.multiply(x, factor[0]), &math::EXP2_SHORT)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, source: &[Bf16; LANES]) -> S::V {
        simd.load_bf16(&source.map(Bf16::to_bits))
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
    fn pairs(first: &[Bf16; LANES], second: &[Bf16; LANES]) -> [u32; LANES] {
        let mut words = [0; LANES];
        for lane in 0..LANES {
            words[lane] = u32::from(first[lane].to_bits()) | u32::from(second[lane].to_bits()) << 16;
        }
        words
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
