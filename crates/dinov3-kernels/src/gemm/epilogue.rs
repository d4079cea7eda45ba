//! What happens to the sums of a matrix product on their way to memory.

use std::any::TypeId;

use crate::element::{Element, store_part};
use crate::math;
use crate::simd::{LANES, Simd};

/// What [`linear`](crate::linear) writes for each sum.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// out = sum + bias
    Store {
        /// Added to each row.
        bias: Option<&'a [f32]>,
    },
    /// out = gelu(sum + bias), with the error function
    Gelu {
        /// Added to each row.
        bias: &'a [f32],
    },
    /// Columns alternate in groups of 16: 16 gates, 16 values, 16 gates...; out has half as many columns:
    /// silu(gate + bias) * (value + bias)
    SwiGlu {
        /// Added to each row, in the order of the columns.
        bias: &'a [f32],
    },
    /// out += gamma * (sum + bias); f32 only
    Residual {
        /// Added to each row.
        bias: Option<&'a [f32]>,
        /// Multiplied with each row.
        gamma: &'a [f32],
    },
}

impl Epilogue<'_> {
    /// Checks the vectors against `n` columns and gives the number of output columns.
    pub(crate) fn check<O: Element>(&self, n: usize) -> usize {
        match *self {
            Epilogue::Store { bias } => assert!(bias.is_none_or(|bias| bias.len() == n), "bias"),
            Epilogue::Gelu { bias } => assert_eq!(bias.len(), n, "bias"),
            Epilogue::SwiGlu { bias } => {
                assert_eq!(bias.len(), n, "bias");
                assert_eq!(n % (2 * LANES), 0, "SwiGLU columns come in pairs of 16");
                return n / 2;
            }
            Epilogue::Residual { bias, gamma } => {
                assert!(bias.is_none_or(|bias| bias.len() == n), "bias");
                assert_eq!(gamma.len(), n, "gamma");
                assert_eq!(TypeId::of::<O>(), TypeId::of::<f32>(), "the residual stream is f32");
            }
        }
        n
    }

    /// Where the results of `columns` columns from `first` on go in the row that starts at `row_start`.
    #[inline(always)]
    pub(crate) fn span(&self, row_start: usize, first: usize, columns: usize) -> (usize, usize) {
        match self {
            Epilogue::SwiGlu { .. } => (row_start + first / 2, columns / 2),
            _ => (row_start + first, columns),
        }
    }

    /// One row of at most a panel: `sums` are those of the columns from `first` on.
    #[inline(always)]
    pub(crate) fn apply<S: Simd, O: Element>(&self, simd: S, sums: &[f32], first: usize, out: &mut [O]) {
        let columns = sums.len();
        // The vector's part for these columns; sixteen of it from `at` on.
        let part =
            |vector: &[f32], at: usize| simd.load_part(&vector[first + at..first + columns.min(at + LANES)], 0.0);
        match *self {
            Epilogue::Store { bias } => {
                for (index, (sums, out)) in sums.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
                    let mut value = simd.load_part(sums, 0.0);
                    if let Some(bias) = bias {
                        value = simd.add(value, part(bias, index * LANES));
                    }
                    store_part(simd, value, out);
                }
            }
            Epilogue::Gelu { bias } => {
                for (index, (sums, out)) in sums.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
                    let value = simd.add(simd.load_part(sums, 0.0), part(bias, index * LANES));
                    store_part(simd, math::gelu(simd, value), out);
                }
            }
            Epilogue::SwiGlu { bias } => {
                let pairs = sums.chunks_exact(2 * LANES);
                for (index, (sums, out)) in pairs.zip(out.chunks_exact_mut(LANES)).enumerate() {
                    let at = index * 2 * LANES;
                    let gate = simd.add(simd.load_part(sums, 0.0), part(bias, at));
                    let value = simd.add(simd.load_part(&sums[LANES..], 0.0), part(bias, at + LANES));
                    store_part(simd, simd.multiply(math::silu(simd, gate), value), out);
                }
            }
            Epilogue::Residual { bias, gamma } => {
                for (index, (sums, out)) in sums.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
                    let mut value = simd.load_part(sums, 0.0);
                    if let Some(bias) = bias {
                        value = simd.add(value, part(bias, index * LANES));
                    }
                    // The output is f32 (checked), so this reads what is there.
                    let mut before = [0.0; LANES];
                    for (before, out) in before.iter_mut().zip(out.iter()) {
                        *before = out.to_f32();
                    }
                    let gamma = part(gamma, index * LANES);
                    store_part(simd, simd.fused(gamma, value, simd.load(&before)), out);
                }
            }
        }
    }
}
