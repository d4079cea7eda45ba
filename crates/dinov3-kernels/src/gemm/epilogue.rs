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

    /// What belongs to the last of the panels over `n` columns, filled up to a whole panel.
    pub(crate) fn tail(&self, n: usize) -> Tail {
        let first = n.saturating_sub(1) / PANEL * PANEL;
        let (bias, gamma) = match *self {
            Epilogue::Store { bias } | Epilogue::Rotary { bias, .. } => (bias, None),
            Epilogue::Gelu { bias } | Epilogue::SwiGlu { bias } => (Some(bias), None),
            Epilogue::Residual { bias, gamma } => (bias, Some(gamma)),
        };
        let part = |vector: Option<&[f32]>| {
            let mut part = [[0.0; LANES]; VECTORS];
            let columns = vector.map_or(&[][..], |vector| &vector[first..]);
            part.as_flattened_mut()[..columns.len()].copy_from_slice(columns);
            part
        };
        Tail { bias: part(bias), gamma: part(gamma) }
    }

    /// The parts of the vectors that belong to the panel from column `first` on, of `n` columns in all.
    #[inline(always)]
    pub(crate) fn at_panel<'a>(&'a self, tail: &'a Tail, first: usize, n: usize) -> PanelEpilogue<'a> {
        let bias_part = |bias| Biased(panel_part(bias, first).unwrap_or(&tail.bias));
        match *self {
            Epilogue::Store { bias: None } => PanelEpilogue::Plain,
            Epilogue::Store { bias: Some(bias) } => PanelEpilogue::Biased(bias_part(bias)),
            Epilogue::Gelu { bias } => PanelEpilogue::Gelu(Gelu(bias_part(bias).0)),
            Epilogue::SwiGlu { bias } => PanelEpilogue::SwiGlu(bias_part(bias)),
            Epilogue::Rotary { bias, rotary } => match (first < n / 3 * 2, bias) {
                // What changes no sum.
                (true, None) => PanelEpilogue::Turned(rotary, Biased(&[[-0.0; LANES]; VECTORS])),
                (true, Some(bias)) => PanelEpilogue::Turned(rotary, bias_part(bias)),
                (false, Some(bias)) => PanelEpilogue::Biased(bias_part(bias)),
                (false, None) => PanelEpilogue::Plain,
            },
            Epilogue::Residual { bias, gamma } => {
                let gamma = panel_part(gamma, first).unwrap_or(&tail.gamma);
                match bias {
                    None => PanelEpilogue::Scaled(Scaled(gamma)),
                    Some(bias) => PanelEpilogue::BiasedAndScaled(BiasedAndScaled(bias_part(bias).0, gamma)),
                }
            }
        }
    }

    /// How many columns of tiles lie between the two whose sums are needed together.
    pub(crate) fn tiles_apart(&self) -> usize {
        match self {
            // The halves of a head; a gate and its value.
            Epilogue::Rotary { .. } => VECTORS / 2,
            _ => 1,
        }
    }
}

/// An [`Epilogue`] over one panel.
#[derive(Clone, Copy)]
pub(crate) enum PanelEpilogue<'a> {
    Plain,
    Biased(Biased<'a>),
    Gelu(Gelu<'a>),
    SwiGlu(Biased<'a>),
    Turned(Rotary<'a>, Biased<'a>),
    Scaled(Scaled<'a>),
    BiasedAndScaled(BiasedAndScaled<'a>),
}

impl PanelEpilogue<'_> {
    /// Writes the results of some rows. What is to be done is decided once for all of them: a jump for each row, and values
    /// that live on the stack meanwhile, cost a tenth of the time of a whole encoder on a bad day.
    ///
    /// # Safety
    /// Nothing else uses these parts of the output meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd, E: Operand, O: Element, V: Vectors>(
        &self,
        simd: S,
        rows: PanelRows<'_, E, O>,
        vectors: V,
    ) {
        match *self {
            PanelEpilogue::Plain => simd.call(Each { rows, vectors, step: Plain }),
            PanelEpilogue::Biased(step) => simd.call(Each { rows, vectors, step }),
            PanelEpilogue::Gelu(step) => simd.call(Each { rows, vectors, step }),
            PanelEpilogue::SwiGlu(step) => simd.call(SwiGluRows { rows, vectors, step }),
            PanelEpilogue::Turned(rotary, step) => simd.call(Turned { rows, vectors, rotary, step }),
            PanelEpilogue::Scaled(step) => simd.call(Each { rows, vectors, step }),
            PanelEpilogue::BiasedAndScaled(step) => simd.call(Each { rows, vectors, step }),
        }
    }
}

/// Which vectors of a panel's rows have been summed.
pub(crate) trait Vectors: Copy {
    /// How many: an even number.
    const COUNT: usize;
    /// The place of one.
    fn at(self, index: usize) -> usize;
    /// The place of one in the first half of a panel whose partner in the second half has been summed as well.
    fn low(self, index: usize) -> usize;
}

/// All of them.
#[derive(Clone, Copy)]
pub(crate) struct WholePanel;

impl Vectors for WholePanel {
    const COUNT: usize = VECTORS;

    #[inline(always)]
    fn at(self, index: usize) -> usize {
        index
    }

    #[inline(always)]
    fn low(self, index: usize) -> usize {
        index
    }
}

/// Two columns of tiles, [`Epilogue::tiles_apart`].
#[derive(Clone, Copy)]
pub(crate) struct TwoColumns {
    pub(crate) first: usize,
    pub(crate) apart: usize,
}

impl Vectors for TwoColumns {
    const COUNT: usize = 2;

    #[inline(always)]
    fn at(self, index: usize) -> usize {
        self.first + index * self.apart
    }

    #[inline(always)]
    fn low(self, _: usize) -> usize {
        self.first
    }
}

/// Vectors of a panel.
const VECTORS: usize = PANEL / LANES;

/// The part of a vector that belongs to a panel.
pub(crate) type PanelPart = [Lanes; VECTORS];

/// The part from column `first` on, if a whole panel is left.
#[inline(always)]
fn panel_part(vector: &[f32], first: usize) -> Option<&PanelPart> {
    vector[first..].as_chunks::<LANES>().0.first_chunk()
}

/// See [`Epilogue::tail`].
pub(crate) struct Tail {
    bias: PanelPart,
    gamma: PanelPart,
}

/// The sums of some rows over a panel, with what makes numbers of them, and where these go.
pub(crate) struct PanelRows<'a, E, O> {
    pub(crate) sums: &'a [PanelPart],
    /// The operands of the first row.
    pub(crate) a: &'a [E],
    pub(crate) a_stride: usize,
    pub(crate) row_length: usize,
    pub(crate) columns: &'a ColumnScales,
    /// The panel's first column.
    pub(crate) first: usize,
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
    /// The rows from `start` to before `end`.
    #[inline(always)]
    pub(crate) fn part(&self, start: usize, end: usize) -> PanelRows<'a, E, O> {
        PanelRows {
            sums: &self.sums[start..end],
            a: &self.a[start * self.a_stride..],
            first_row: self.first_row + start,
            span: (self.span.0 + start * self.out_stride, self.span.1),
            ..*self
        }
    }

    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, row: usize) -> (Sums<'a, S, E>, &'a mut [O]) {
        let sums = Sums {
            sums: &self.sums[row],
            row_scale: if E::SCALED {
                E::row_scale(simd, &self.a[row * self.a_stride..][..self.row_length])
            } else {
                [simd.splat(0.0); 2]
            },
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
pub(crate) trait Step {
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

#[derive(Clone, Copy)]
pub(crate) struct Biased<'a>(&'a PanelPart);

impl Step for Biased<'_> {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, _: &[O; LANES]) -> S::V {
        simd.add(value, simd.load(&self.0[at]))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Gelu<'a>(&'a PanelPart);

impl Step for Gelu<'_> {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, _: &[O; LANES]) -> S::V {
        O::gelu(simd, simd.add(value, simd.load(&self.0[at])))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Scaled<'a>(&'a PanelPart);

impl Step for Scaled<'_> {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, before: &[O; LANES]) -> S::V {
        simd.fused(simd.load(&self.0[at]), value, O::load(simd, before))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct BiasedAndScaled<'a>(&'a PanelPart, &'a PanelPart);

impl Step for BiasedAndScaled<'_> {
    #[inline(always)]
    fn result<S: Simd, O: Element>(&self, simd: S, value: S::V, at: usize, before: &[O; LANES]) -> S::V {
        let value = simd.add(value, simd.load(&self.0[at]));
        simd.fused(simd.load(&self.1[at]), value, O::load(simd, before))
    }
}

/// The same step for all results.
struct Each<'a, E, O, V, T> {
    rows: PanelRows<'a, E, O>,
    vectors: V,
    step: T,
}

impl<E: Operand, O: Element, V: Vectors, T: Step> Kernel for Each<'_, E, O, V, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Each { rows, vectors, step } = self;
        for row in 0..rows.sums.len() {
            let (sums, out) = rows.row(simd, row);
            each(simd, &sums, vectors, &step, out);
        }
    }
}

/// Puts results of a row into `out`, which is up to a panel long.
#[inline(always)]
fn each<S: Simd, E: Operand, O: Element, V: Vectors>(
    simd: S,
    sums: &Sums<'_, S, E>,
    vectors: V,
    step: &impl Step,
    out: &mut [O],
) {
    if let Some(out) = out.first_chunk_mut::<PANEL>() {
        // Whole panels as a loop of known length.
        let out = out.as_chunks_mut::<LANES>().0;
        for index in 0..V::COUNT {
            let at = vectors.at(index);
            let out = &mut out[at];
            let result = step.result(simd, sums.vector(simd, at), at, out);
            O::store_normal(simd, result, out);
        }
        return;
    }
    for index in 0..V::COUNT {
        let at = vectors.at(index);
        let Some(out) = out.get_mut(at * LANES..).filter(|out| !out.is_empty()) else { continue };
        let length = out.len().min(LANES);
        let out = &mut out[..length];
        let mut before = [O::default(); LANES];
        before[..length].copy_from_slice(out);
        store_part(simd, step.result(simd, sums.vector(simd, at), at, &before), out);
    }
}

/// [`Epilogue::SwiGlu`].
struct SwiGluRows<'a, E, O, V> {
    rows: PanelRows<'a, E, O>,
    vectors: V,
    step: Biased<'a>,
}

impl<E: Operand, O: Element, V: Vectors> Kernel for SwiGluRows<'_, E, O, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let SwiGluRows { rows, vectors, step: Biased(bias) } = self;
        for row in 0..rows.sums.len() {
            let (sums, out) = rows.row(simd, row);
            let out = out.as_chunks_mut::<LANES>().0;
            for index in 0..V::COUNT / 2 {
                let at = vectors.at(2 * index);
                let Some(out) = out.get_mut(at / 2) else { continue };
                let gate = sums.biased(simd, bias, at);
                let value = sums.biased(simd, bias, at + 1);
                O::store_normal(simd, simd.multiply(math::silu(simd, gate), value), out);
            }
        }
    }
}

/// Heads of q or k.
struct Turned<'a, E, O, V> {
    rows: PanelRows<'a, E, O>,
    vectors: V,
    rotary: Rotary<'a>,
    step: Biased<'a>,
}

impl<E: Operand, O: Element, V: Vectors> Kernel for Turned<'_, E, O, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Turned { rows, vectors, rotary, step } = self;
        for row in 0..rows.sums.len() {
            let (sums, out) = rows.row(simd, row);
            let angles = rotary.angles(rows.first_row + row);
            match angles.and_then(|(sin, cos)| sin.first_chunk().zip(cos.first_chunk())) {
                Some((sin, cos)) => turned(simd, &sums, vectors, step.0, sin, cos, out),
                None => each(simd, &sums, vectors, &step, out),
            }
        }
    }
}

/// Puts a head that is turned by its angles into `out`.
#[inline(always)]
fn turned<S: Simd, E: Operand, O: Element, V: Vectors>(
    simd: S,
    sums: &Sums<'_, S, E>,
    vectors: V,
    bias: &PanelPart,
    sin: &[f32; PANEL],
    cos: &[f32; PANEL],
    out: &mut [O],
) {
    let out: &mut [O; PANEL] = out.first_chunk_mut().expect("panels are whole");
    let (sin, cos, out) = (sin.as_chunks::<LANES>().0, cos.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
    for index in 0..V::COUNT / 2 {
        let low = vectors.low(index);
        let high = low + VECTORS / 2;
        let pair = [sums.biased(simd, bias, low), sums.biased(simd, bias, high)];
        let sin = [simd.load(&sin[low]), simd.load(&sin[high])];
        let cos = [simd.load(&cos[low]), simd.load(&cos[high])];
        let pair = turn(simd, pair, sin, cos);
        O::store_normal(simd, pair[0], &mut out[low]);
        O::store_normal(simd, pair[1], &mut out[high]);
    }
}
