//! What happens to the sums of a matrix product on their way to memory.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::marker::PhantomData;

use super::ColumnScales;
use super::tile::PANEL;
use crate::element::{Element, Operand, store_part};
use crate::math;
use crate::memory::SharedOutput;
use crate::rotary::{Rotary, turn};
use crate::simd::{Kernel, LANES, Lanes, Simd};

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

    /// Writes the results of some rows over a panel. What is to be done is decided once for all of them: a jump for each
    /// row, and values that live on the stack meanwhile, cost a tenth of the time of a whole encoder on a bad day.
    ///
    /// # Safety
    /// Nothing else uses these parts of the output meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd, E: Operand, O: Element>(&self, simd: S, rows: PanelRows<'_, E, O>) {
        let first = rows.first;
        let part = |vector: &[f32]| panel_part(vector, first);
        match *self {
            Epilogue::Store { bias: None } => simd.call(Each { rows, step: Plain }),
            Epilogue::Store { bias: Some(bias) } => simd.call(Each { rows, step: Biased(part(bias)) }),
            Epilogue::Gelu { bias } => simd.call(Each { rows, step: Gelu(part(bias)) }),
            Epilogue::SwiGlu { bias } => simd.call(SwiGluRows { rows, bias: part(bias) }),
            Epilogue::Rotary { bias, rotary } => {
                let is_turned = rows.first < rows.columns_of_product / 3 * 2;
                match (is_turned, bias) {
                    // Without a bias, -0.0 is what changes no sum.
                    (true, bias) => {
                        simd.call(Turned { rows, rotary, bias: bias.map_or([[-0.0; LANES]; VECTORS], part) })
                    }
                    (false, Some(bias)) => simd.call(Each { rows, step: Biased(part(bias)) }),
                    (false, None) => simd.call(Each { rows, step: Plain }),
                }
            }
            Epilogue::Residual { bias: None, gamma } => simd.call(Each { rows, step: Scaled(part(gamma)) }),
            Epilogue::Residual { bias: Some(bias), gamma } => {
                simd.call(Each { rows, step: BiasedAndScaled(part(bias), part(gamma)) });
            }
        }
    }
}

/// Vectors of a panel.
const VECTORS: usize = PANEL / LANES;

/// The part of a vector that belongs to a panel.
type PanelPart = [Lanes; VECTORS];

/// The part from column `first` on, filled up with zeros.
#[inline(always)]
fn panel_part(vector: &[f32], first: usize) -> PanelPart {
    let mut part = [[0.0; LANES]; VECTORS];
    let columns = &vector[first..vector.len().min(first + PANEL)];
    part.as_flattened_mut()[..columns.len()].copy_from_slice(columns);
    part
}

/// The sums of some rows over a panel, with what makes numbers of them, and where these go.
pub(crate) struct PanelRows<'a, E, O> {
    pub(crate) sums: &'a [PanelPart],
    /// The operands of the first row.
    pub(crate) a: &'a [E],
    pub(crate) a_stride: usize,
    pub(crate) row_length: usize,
    pub(crate) columns: &'a ColumnScales,
    /// The panel's first column, and the columns of all panels.
    pub(crate) first: usize,
    pub(crate) columns_of_product: usize,
    /// The first row's number in the output.
    pub(crate) first_row: usize,
    pub(crate) output: &'a SharedOutput<'a, O>,
    /// Where the first row's results go and how many they are, and from there to the next row.
    pub(crate) span: (usize, usize),
    pub(crate) out_stride: usize,
}

/// A row of [`PanelRows`].
struct Sums<'a, S: Simd, E> {
    sums: &'a PanelPart,
    row_scale: [S::V; 2],
    columns: &'a ColumnScales,
    first: usize,
    operand: PhantomData<E>,
}

impl<'a, E: Operand, O: Element> PanelRows<'a, E, O> {
    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, row: usize) -> (Sums<'a, S, E>, &'a mut [O]) {
        let sums = Sums {
            sums: &self.sums[row],
            row_scale: E::row_scale(simd, &self.a[row * self.a_stride..][..self.row_length]),
            columns: self.columns,
            first: self.first,
            operand: PhantomData,
        };
        let (start, length) = self.span;
        // SAFETY: rows and panels of different tasks, and so these parts, do not overlap (contract of `Epilogue::apply`),
        // and each row is asked for once.
        (sums, unsafe { self.output.part(start + row * self.out_stride, length) })
    }
}

impl<S: Simd, E: Operand> Sums<'_, S, E> {
    /// Sixteen results.
    #[inline(always)]
    fn vector(&self, simd: S, at: usize) -> S::V {
        E::finish(simd, self.row_scale, self.columns, self.first + at * LANES, simd.load(&self.sums[at]))
    }

    /// Sixteen results and their bias.
    #[inline(always)]
    fn biased(&self, simd: S, bias: &PanelPart, at: usize) -> S::V {
        simd.add(self.vector(simd, at), simd.load(&bias[at]))
    }
}

/// What becomes of sixteen results. Not a closure, because only a function can be made to be inlined, and one that is not
/// has no vector registers.
trait Step {
    /// `at` is the vector's number in the panel, `before` what the output held.
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, before: &[O; LANES]) -> S::V;
}

struct Plain;

impl Step for Plain {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, _: S, value: S::V, _: usize, _: &[O; LANES]) -> S::V {
        value
    }
}

struct Biased(PanelPart);

impl Step for Biased {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, _: &[O; LANES]) -> S::V {
        simd.add(value, simd.load(&self.0[at]))
    }
}

struct Gelu(PanelPart);

impl Step for Gelu {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, _: &[O; LANES]) -> S::V {
        O::gelu(simd, simd.add(value, simd.load(&self.0[at])))
    }
}

struct Scaled(PanelPart);

impl Step for Scaled {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, before: &[O; LANES]) -> S::V {
        simd.fused(simd.load(&self.0[at]), value, O::load(simd, before))
    }
}

struct BiasedAndScaled(PanelPart, PanelPart);

impl Step for BiasedAndScaled {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, before: &[O; LANES]) -> S::V {
        let value = simd.add(value, simd.load(&self.0[at]));
        simd.fused(simd.load(&self.1[at]), value, O::load(simd, before))
    }
}

/// The same step for all results.
struct Each<'a, E, O, T> {
    rows: PanelRows<'a, E, O>,
    step: T,
}

impl<E: Operand, O: Element, T: Step> Kernel for Each<'_, E, O, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Each { rows, step } = self;
        for row in 0..rows.sums.len() {
            let (sums, out) = rows.row(simd, row);
            each(simd, &sums, &step, out);
        }
    }
}

/// Puts the results of a row over up to a panel into `out`.
#[inline(always)]
fn each<S: Simd, E: Operand, O: Element>(simd: S, sums: &Sums<'_, S, E>, step: &impl Step, out: &mut [O]) {
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

/// [`Epilogue::SwiGlu`].
struct SwiGluRows<'a, E, O> {
    rows: PanelRows<'a, E, O>,
    bias: PanelPart,
}

impl<E: Operand, O: Element> Kernel for SwiGluRows<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let SwiGluRows { rows, bias } = self;
        for row in 0..rows.sums.len() {
            let (sums, out) = rows.row(simd, row);
            for (index, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let gate = sums.biased(simd, &bias, 2 * index);
                let value = sums.biased(simd, &bias, 2 * index + 1);
                O::store_normal(simd, simd.multiply(math::silu(simd, gate), value), out);
            }
        }
    }
}

/// Heads of q or k.
struct Turned<'a, E, O> {
    rows: PanelRows<'a, E, O>,
    rotary: Rotary<'a>,
    bias: PanelPart,
}

impl<E: Operand, O: Element> Kernel for Turned<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Turned { rows, rotary, bias } = self;
        let step = Biased(bias);
        for row in 0..rows.sums.len() {
            let (sums, out) = rows.row(simd, row);
            let angles = rotary.angles(rows.first_row + row);
            match angles.and_then(|(sin, cos)| sin.first_chunk().zip(cos.first_chunk())) {
                Some((sin, cos)) => turned(simd, &sums, &step.0, sin, cos, out),
                None => each(simd, &sums, &step, out),
            }
        }
    }
}

/// Puts a head that is turned by its angles into `out`.
#[inline(always)]
fn turned<S: Simd, E: Operand, O: Element>(
    simd: S,
    sums: &Sums<'_, S, E>,
    bias: &PanelPart,
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
