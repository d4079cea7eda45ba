//! The rate that the machine can reach at all: multiply-adds on registers only.

use crate::bf16::Bf16;
use crate::element::{Operand, SealedOperand};
use crate::int8::Int8;
use crate::isa::Isa;
use crate::simd::{Kernel, LANES, Simd, dispatch, dispatch_integers};

/// Independent sums: enough to hide the latency of a multiply-add.
const SUMS: usize = 12;

struct Probe<E> {
    rounds: usize,
    seed: E,
}

impl<E: Operand> Kernel for Probe<E> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let factor = simd.splat_word(E::half_word(std::hint::black_box(self.seed)));
        let mut sums = [factor; SUMS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = E::accumulate(simd, *sum, factor, factor);
            }
        }
        let mut total = simd.splat(0.0);
        for sum in sums {
            total = simd.add(total, sum);
        }
        simd.sum(total)
    }
}

/// Keeps the multiply-add units of this thread busy for `rounds` rounds on operands of type `E`, and gives the number of
/// operations of one round, a multiplication and an addition counted as two. For benchmarks: the share of a peak means little if the peak is from a table.
pub fn peak_probe<E: Operand>(isa: Isa, rounds: usize) -> f64 {
    // All types are compiled here and not in the benchmark.
    let total = match E::NAME {
        <f32 as Operand>::NAME => dispatch(isa, Probe { rounds, seed: 0.5_f32 }),
        <Bf16 as Operand>::NAME => dispatch(isa, Probe { rounds, seed: Bf16::from_f32(0.5) }),
        _ => dispatch_integers(isa, Probe { rounds, seed: Int8::default() }),
    };
    std::hint::black_box(total);
    (SUMS * LANES * 2 * <E as SealedOperand>::GROUP) as f64
}
