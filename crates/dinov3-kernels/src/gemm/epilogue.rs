//! What happens to the sums of a matrix product on their way to memory.

use std::any::TypeId;
use std::marker::PhantomData;

use super::ColumnScales;
use super::tile::PANEL;
use crate::element::{Element, Operand, store_part};
use crate::math;
use crate::rotary::{Rotary, turn};
use crate::simd::{LANES, Lanes, Simd};

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
    /// The projection to q, k and v, side by side, for [`attention`](crate::attention()): out = sum + bias, the heads of q
    /// and k turned. Only for heads of [`Epilogue::ROTARY_HEAD`] numbers; others take
    /// [`rotate_heads`](crate::rotate_heads).
    Rotary {
        /// Added to each row.
        bias: Option<&'a [f32]>,
        /// The angles; row 0 is an image's first token.
        rotary: Rotary<'a>,
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
    /// Numbers of a head that [`Epilogue::Rotary`] can turn: those that a panel holds.
    pub const ROTARY_HEAD: usize = PANEL;

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
            Epilogue::Rotary { bias, rotary } => {
                assert!(bias.is_none_or(|bias| bias.len() == n), "bias");
                assert_eq!((rotary.head_dim, n % (3 * PANEL)), (PANEL, 0), "heads");
                rotary.check();
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

    /// One row of at most a panel: in whole vectors `sums`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd, E: Operand, O: Element>(&self, simd: S, sums: &Sums<'_, S, E>, out: &mut [O]) {
        let first = sums.first;
        let part = |vector: &[f32]| first..vector.len().min(first + PANEL);
        match *self {
            Epilogue::Store { bias: None } => each(simd, sums, Plain, out),
            Epilogue::Store { bias: Some(bias) } => each(simd, sums, Biased(&bias[part(bias)]), out),
            Epilogue::Gelu { bias } => each(simd, sums, Gelu(&bias[part(bias)]), out),
            Epilogue::SwiGlu { bias } => {
                let bias = &bias[part(bias)];
                for (index, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    let gate = sums.biased(simd, Some(bias), 2 * index);
                    let value = sums.biased(simd, Some(bias), 2 * index + 1);
                    O::store_normal(simd, simd.multiply(math::silu(simd, gate), value), out);
                }
            }
            Epilogue::Rotary { bias, rotary } => {
                let bias = bias.map(|bias| &bias[part(bias)]);
                let angles = if first < sums.columns_of_product / 3 * 2 { rotary.angles(sums.row) } else { None };
                match (angles.and_then(|(sin, cos)| sin.first_chunk().zip(cos.first_chunk())), bias) {
                    (Some((sin, cos)), bias) => turned(simd, sums, bias, sin, cos, out),
                    (None, Some(bias)) => each(simd, sums, Biased(bias), out),
                    (None, None) => each(simd, sums, Plain, out),
                }
            }
            Epilogue::Residual { bias: None, gamma } => each(simd, sums, Scaled(&gamma[part(gamma)]), out),
            Epilogue::Residual { bias: Some(bias), gamma } => {
                each(simd, sums, BiasedAndScaled(&bias[part(bias)], &gamma[part(gamma)]), out);
            }
        }
    }
}

/// The sums of a row over a panel, with what makes numbers of them.
pub(crate) struct Sums<'a, S: Simd, E> {
    pub(crate) sums: &'a [Lanes; PANEL / LANES],
    pub(crate) row_scale: [S::V; 2],
    pub(crate) columns: &'a ColumnScales,
    /// The panel's first column, and the columns of all panels.
    pub(crate) first: usize,
    pub(crate) columns_of_product: usize,
    /// The row's number in the output.
    pub(crate) row: usize,
    pub(crate) operand: PhantomData<E>,
}

impl<S: Simd, E: Operand> Sums<'_, S, E> {
    /// Sixteen results.
    #[inline(always)]
    fn vector(&self, simd: S, at: usize) -> S::V {
        E::finish(simd, self.row_scale, self.columns, self.first + at * LANES, simd.load(&self.sums[at]))
    }

    /// Sixteen results and their bias.
    #[inline(always)]
    fn biased(&self, simd: S, bias: Option<&[f32]>, at: usize) -> S::V {
        let value = self.vector(simd, at);
        match bias {
            Some(bias) => simd.add(value, vector(simd, bias, at)),
            None => value,
        }
    }
}

/// Vector number `at` of a slice, the last one filled up with zeros.
#[inline(always)]
fn vector<S: Simd>(simd: S, numbers: &[f32], at: usize) -> S::V {
    let (chunks, tail) = numbers.as_chunks::<LANES>();
    match chunks.get(at) {
        Some(chunk) => simd.load(chunk),
        None => simd.load_part(tail, 0.0),
    }
}

/// What becomes of sixteen results. Not a closure, because only a function can be made to be inlined, and one that is not
/// has no vector registers.
trait Step: Copy {
    /// `at` is the vector's number in the panel, `before` what the output held.
    fn result<S: Simd, O: Element>(self, simd: S, value: S::V, at: usize, before: &[O; LANES]) -> S::V;
}

#[derive(Clone, Copy)]
struct Plain;

impl Step for Plain {
    #[inline(always)]
    fn result<S: Simd, O: Element>(self, _: S, value: S::V, _: usize, _: &[O; LANES]) -> S::V {
        value
    }
}

#[derive(Clone, Copy)]
struct Biased<'a>(&'a [f32]);

impl Step for Biased<'_> {
    #[inline(always)]
    fn result<S: Simd, O: Element>(self, simd: S, value: S::V, at: usize, _: &[O; LANES]) -> S::V {
        simd.add(value, vector(simd, self.0, at))
    }
}

#[derive(Clone, Copy)]
struct Gelu<'a>(&'a [f32]);

impl Step for Gelu<'_> {
    #[inline(always)]
    fn result<S: Simd, O: Element>(self, simd: S, value: S::V, at: usize, _: &[O; LANES]) -> S::V {
        O::gelu(simd, simd.add(value, vector(simd, self.0, at)))
    }
}

#[derive(Clone, Copy)]
struct Scaled<'a>(&'a [f32]);

impl Step for Scaled<'_> {
    #[inline(always)]
    fn result<S: Simd, O: Element>(self, simd: S, value: S::V, at: usize, before: &[O; LANES]) -> S::V {
        simd.fused(vector(simd, self.0, at), value, O::load(simd, before))
    }
}

#[derive(Clone, Copy)]
struct BiasedAndScaled<'a>(&'a [f32], &'a [f32]);

impl Step for BiasedAndScaled<'_> {
    #[inline(always)]
    fn result<S: Simd, O: Element>(self, simd: S, value: S::V, at: usize, before: &[O; LANES]) -> S::V {
        let value = simd.add(value, vector(simd, self.0, at));
        simd.fused(vector(simd, self.1, at), value, O::load(simd, before))
    }
}

/// Puts a head that is turned by its angles into `out`.
#[inline(always)]
fn turned<S: Simd, E: Operand, O: Element>(
    simd: S,
    sums: &Sums<'_, S, E>,
    bias: Option<&[f32]>,
    sin: &[f32; PANEL],
    cos: &[f32; PANEL],
    out: &mut [O],
) {
    let out: &mut [O; PANEL] = out.first_chunk_mut().expect("panels are whole");
    let (sin, cos, out) = (sin.as_chunks::<LANES>().0, cos.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
    for low in 0..2 {
        let high = low + 2;
        let pair = [sums.biased(simd, bias, low), sums.biased(simd, bias, high)];
        let sin = [simd.load(&sin[low]), simd.load(&sin[high])];
        let cos = [simd.load(&cos[low]), simd.load(&cos[high])];
        let pair = turn(simd, pair, sin, cos);
        O::store_normal(simd, pair[0], &mut out[low]);
        O::store_normal(simd, pair[1], &mut out[high]);
    }
}

/// Puts the results of a row over up to a panel into `out`.
#[inline(always)]
fn each<S: Simd, E: Operand, O: Element>(simd: S, sums: &Sums<'_, S, E>, step: impl Step, out: &mut [O]) {
    if let Some(out) = out.first_chunk_mut::<PANEL>() {
        // Whole panels as a loop of known length.
        for (at, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let result = step.result(simd, sums.vector(simd, at), at, out);
            O::store_normal(simd, result, out);
        }
        return;
    }
    for (at, out) in out.chunks_mut(LANES).enumerate() {
        let mut before = [O::default(); LANES];
        before[..out.len()].copy_from_slice(out);
        store_part(simd, step.result(simd, sums.vector(simd, at), at, &before), out);
    }
}
