//! Every kernel against exact arithmetic and against its portable twin, on odd shapes.
//!
//! The tests of this crate and `dinov3 selftest` run the same comparisons. An output passes if it lies within a bound of
//! its exact value, computed in f64 from the same operands, and within twice that bound of what the portable code gives,
//! which may miss the exact value by the bound in the other direction.
//!
//! # Where the bounds come from
//!
//! Rounding to f32 moves a number by at most u = 2^-24 of itself, to bf16 by 2^-8.
//!
//! - **Products of f32 and bf16.** Operands are rounded before, products of bf16 are exact or rounded once, and each of n
//!   additions moves the sum by at most u times the sum of absolute products, s. As steps that do not know of each other
//!   these errors add up like their squares: 4 √n u s is more than four deviations. The order of additions is by blocks of
//!   128 words and then over the blocks, or by 16 words on tiles, so that n stays below 1024 for any k; 4 u s covers the
//!   ends. Subnormal products count as zero in some instructions: k times 2^-126 more.
//! - **Products of bytes.** Integers: no error at all. Without a bias the bits are those of the portable twin.
//! - **Epilogues.** The derivatives of GELU and SiLU are below 1.2; a gate's error is scaled by its value and the other way
//!   round. Polynomials: 3e-7 of 1 + |value|. Then the output's own rounding.
//! - **Attention.** Both factors of a score's products are rounded and the sum is taken: a score s of absolute size p is
//!   wrong by e = p (3 u' + 30 u), u' the operands' rounding unit. That moves a probability by e^e - 1 of itself, and the
//!   output, numerator and denominator, by twice that share of its absolute terms; probabilities and values are rounded.
//! - **LayerNorm.** A sum of d squares over sixteen lanes: d / 16 additions one after the other, and a handful of others.
//! - **Depthwise convolution.** 49 additions of numbers of size 2 (200 u), divided by the pixel's deviation.
//! - **GELU, SiLU alone.** The polynomial's fit, 1e-7 / 2 of x, and three roundings; six roundings.
//! - **Conversion and quantisation of rows.** The same bits. A norm that writes bytes: one step, where a number lies between
//!   two.

mod kernels;
mod oracle;

pub use kernels::{
    Apply, attention, convert, depthwise, exact_attention, gelu_and_silu, layer_norm, layer_norm_bytes, linear,
    quantize,
};
pub use oracle::{BF16_EPS, EPS, Exact, Random, gelu, pack, product_bound, silu, unit};

use std::ops::DerefMut;

use crate::bf16::Bf16;
use crate::int8::Int8;
use crate::isa::Isa;

/// Where a comparison puts the slices that a kernel gets: in a vector, or, in tests, between pages that nobody may touch.
pub trait Place {
    /// A slice at its place.
    type Slice<T: Copy>: DerefMut<Target = [T]>;
    /// Copies values there.
    fn copy<T: Copy>(&self, values: &[T]) -> Self::Slice<T>;
}

/// Ordinary memory.
pub struct Heap;

impl Place for Heap {
    type Slice<T: Copy> = Vec<T>;

    fn copy<T: Copy>(&self, values: &[T]) -> Vec<T> {
        values.to_vec()
    }
}

/// How far outputs are from where they should be.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Outputs that were compared.
    pub outputs: usize,
    /// The largest error as a share of its bound. Infinite for NaN, and for any error where none is allowed.
    pub worst: f64,
    /// Where that is, and what was found there.
    pub place: String,
}

impl Comparison {
    /// Whether every output lies within its bound.
    pub fn passed(&self) -> bool {
        self.worst <= 1.0
    }

    /// Notes an output of which `wanted` is the exact value; `place` says where it is.
    pub fn note(&mut self, got: f64, wanted: f64, bound: f64, place: impl FnOnce() -> String) {
        self.outputs += 1;
        let error = (got - wanted).abs();
        let share = if got == wanted { 0.0 } else { error / bound };
        let share = if share.is_nan() { f64::INFINITY } else { share };
        if share > self.worst {
            self.worst = share;
            self.place = format!("{}: {got:.7e} for {wanted:.7e}, bound {bound:.1e}", place());
        }
    }

    /// Adds another one.
    pub fn merge(&mut self, other: Comparison) {
        self.outputs += other.outputs;
        if other.worst > self.worst {
            (self.worst, self.place) = (other.worst, other.place);
        }
    }

    /// Both together.
    fn and(mut self, other: Comparison) -> Comparison {
        self.merge(other);
        self
    }

    /// For tests.
    ///
    /// # Panics
    /// If an output lies outside its bound.
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(self.passed(), "{} times the bound at {}", self.worst, self.place);
    }
}

/// One line of the self-test.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Check {
    /// What was run, with the type of its operands.
    pub kernel: &'static str,
    /// The [`Isa::name`].
    pub instruction_set: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a [`Check`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The kernel ran.
    Compared(Comparison),
    /// It did not, and why.
    Skipped(String),
}

/// A name, its comparison, and whether it runs on the tiles of AMX.
type Kernel = (&'static str, fn(Isa) -> Comparison, bool);

const KERNELS: [Kernel; 15] = [
    ("linear f32", products::<f32>, false),
    ("linear bf16", products::<Bf16>, true),
    ("linear int8", products::<Int8>, true),
    ("quantize int8", |isa| each([(5, 96), (3, 77)], |(rows, width)| quantize(&Heap, isa, rows, width)), false),
    ("attention f32", heads::<f32>, false),
    ("attention bf16", heads::<Bf16>, false),
    ("attention f32, blocks of keys", |isa| attention::<f32>(&Heap, isa, (1, 1381, 5, 1, 4)), false),
    ("layer_norm f32", |isa| each([15, 17, 384], |d| layer_norm::<f32>(&Heap, isa, 3, d, 0.0, 1.0)), false),
    ("layer_norm bf16", |isa| each([15, 17, 384], |d| layer_norm::<Bf16>(&Heap, isa, 3, d, 0.0, 1.0)), false),
    ("layer_norm int8", |isa| each([33, 96], |d| layer_norm_bytes(&Heap, isa, 3, d)), false),
    ("depthwise f32", |isa| each([17, 33], |c| depthwise::<f32>(&Heap, isa, 2, 5, 9, c)), false),
    ("depthwise bf16", |isa| each([17, 33], |c| depthwise::<Bf16>(&Heap, isa, 2, 5, 9, c)), false),
    ("gelu, silu", |isa| gelu_and_silu(&Heap, isa, &[-12.0, 12.0], 2003), false),
    ("convert f32", |isa| convert::<f32>(&Heap, isa, 1003), false),
    ("convert bf16", |isa| convert::<Bf16>(&Heap, isa, 1003), false),
];

fn each<T, const N: usize>(cases: [T; N], run: impl Fn(T) -> Comparison) -> Comparison {
    cases.into_iter().map(run).fold(Comparison::default(), Comparison::and)
}

fn products<E: crate::Operand>(isa: Isa) -> Comparison {
    let shapes = [(1, 1, 1), (7, 65, 33), (37, 70, 150), (97, 48, 77), (2, 17, 1029)];
    let plain = each(shapes, |(m, n, k)| linear::<E, f32>(&Heap, isa, (m, n, k), Apply::Store));
    let fused = each([Apply::Bias, Apply::Gelu, Apply::SwiGlu], |apply| {
        linear::<E, Bf16>(&Heap, isa, (14, 96, 50), apply).and(linear::<E, f32>(&Heap, isa, (14, 96, 50), apply))
    });
    plain.and(fused).and(linear::<E, f32>(&Heap, isa, (14, 96, 50), Apply::Residual))
}

fn heads<E: crate::Element>(isa: Isa) -> Comparison {
    let shapes = [(1, 1, 0, 1, 64), (2, 17, 5, 2, 20), (1, 131, 5, 1, 64), (1, 33, 1, 1, 128)];
    each(shapes, |shape| attention::<E>(&Heap, isa, shape))
}

/// Runs every kernel on every instruction set, or on this one alone, and the products of AMX on emulated tiles: about a
/// second. What this machine cannot run is skipped and says so. The portable code is compared with exact values only.
pub fn run(only: Option<Isa>) -> Vec<Check> {
    let mut checks = Vec::new();
    for candidate in Isa::candidates() {
        for (kernel, compare, _) in KERNELS {
            let outcome = match candidate.isa {
                Some(isa) if only.is_none_or(|only| only == isa) => Outcome::Compared(compare(isa)),
                Some(_) => Outcome::Skipped("another one is asked for".to_owned()),
                None => Outcome::Skipped(candidate.obstacle.clone().unwrap_or_default()),
            };
            checks.push(Check { kernel, instruction_set: candidate.name, outcome });
        }
    }
    let emulated = Isa::AMX_EMULATED;
    if only.is_none_or(|only| only == emulated) {
        for (kernel, compare, _) in KERNELS.into_iter().filter(|(.., tiles)| *tiles) {
            let outcome = Outcome::Compared(compare(emulated));
            checks.push(Check { kernel, instruction_set: emulated.name(), outcome });
        }
    }
    checks
}

/// The products that AMX and AVX-VNNI have instructions for: a few milliseconds. The error is the output that lies outside
/// its bound.
pub(crate) fn bf16_and_byte_products(isa: Isa) -> Result<(), String> {
    // Whole tiles, single rows, columns and words beside them, several blocks of columns.
    let shapes = [(1, 1, 1), (32, 32, 64), (37, 70, 150), (19, 17, 515)];
    let bytes = each(shapes, |(m, n, k)| linear::<Int8, f32>(&Heap, isa, (m, n, k), Apply::Store));
    let numbers = each(shapes, |(m, n, k)| linear::<Bf16, f32>(&Heap, isa, (m, n, k), Apply::Store));
    let both = bytes.and(numbers);
    if both.passed() { Ok(()) } else { Err(both.place) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_fails() {
        for (got, wanted, bound) in [(f64::NAN, 1.0, 1.0), (1.0, f64::NAN, 1.0), (1.0, 2.0, 0.0), (1.0, 2.0, 0.5)] {
            let mut comparison = Comparison::default();
            comparison.note(got, wanted, bound, || "here".to_owned());
            assert!(!comparison.passed() && comparison.place.starts_with("here"), "{comparison:?}");
        }
        let mut comparison = Comparison::default();
        comparison.note(2.0, 2.0, 0.0, String::new);
        assert!(comparison.passed());
    }

    #[test]
    fn everything_that_this_machine_runs_passes_and_the_rest_is_skipped_with_its_reason() {
        for check in run(None) {
            match check.outcome {
                Outcome::Compared(comparison) => {
                    assert!(comparison.outputs > 0);
                    assert!(comparison.passed(), "{} on {}: {comparison:?}", check.kernel, check.instruction_set);
                }
                Outcome::Skipped(reason) => assert!(reason.contains("lacks"), "{reason}"),
            }
        }
        assert_eq!(bf16_and_byte_products(Isa::AMX_EMULATED), Ok(()));
    }
}
