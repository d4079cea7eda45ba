//! LayerNorm over the last axis.
#![allow(unsafe_code)]

use dinov3_system::threads::Pool;

use crate::element::{Element, Operand, RowWork, store_part};
use crate::isa::Isa;
use crate::memory::SharedOutput;
use crate::simd::{Kernel, LANES, Simd};

/// What LayerNorm knows besides the row.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) eps: f32,
}

/// One row: out = (x - mean) / sqrt(variance + eps) * weight + bias.
///
/// The mean is taken twice: the second pass sums x minus the first mean, which is exact where it matters, so a row with a
/// mean far above its deviation loses no digits.
#[inline(always)]
pub(crate) fn normalize_row<S: Simd, O: Element>(simd: S, x: &[f32], norm: Norm<'_>, out: &mut [O]) {
    let Norm { weight, bias, eps } = norm;
    let width = x.len();
    let (chunks, tail) = x.as_chunks::<LANES>();
    // Two sums hide part of the addition's latency; their order depends on the width only.
    let mut sums = [simd.splat(0.0); 2];
    for (index, chunk) in chunks.iter().enumerate() {
        sums[index % 2] = simd.add(sums[index % 2], simd.load(chunk));
    }
    if !tail.is_empty() {
        sums[1] = simd.add(sums[1], simd.load_part(tail, 0.0));
    }
    let count = width as f32;
    let mean = simd.sum(simd.add(sums[0], sums[1])) / count;

    let mean_lanes = simd.splat(mean);
    let mut rest = simd.splat(0.0);
    let mut squares = [simd.splat(0.0); 2];
    for (index, chunk) in chunks.iter().enumerate() {
        let centred = simd.subtract(simd.load(chunk), mean_lanes);
        rest = simd.add(rest, centred);
        squares[index % 2] = simd.fused(centred, centred, squares[index % 2]);
    }
    if !tail.is_empty() {
        let centred = simd.subtract(simd.load_part(tail, mean), mean_lanes);
        rest = simd.add(rest, centred);
        squares[1] = simd.fused(centred, centred, squares[1]);
    }
    let correction = simd.sum(rest) / count;
    let variance = (simd.sum(simd.add(squares[0], squares[1])) / count - correction * correction).max(0.0);
    let scale = simd.splat(1.0 / (variance + eps).sqrt());
    let correction = simd.splat(correction);

    let whole = chunks.len() * LANES;
    let (weights, weight_tail) = weight[..width].as_chunks::<LANES>();
    let (biases, bias_tail) = bias[..width].as_chunks::<LANES>();
    let (outs, out_tail) = out[..width].as_chunks_mut::<LANES>();
    for index in 0..whole / LANES {
        let centred = simd.subtract(simd.subtract(simd.load(&chunks[index]), mean_lanes), correction);
        let value = simd.fused(simd.multiply(centred, scale), simd.load(&weights[index]), simd.load(&biases[index]));
        O::store(simd, value, &mut outs[index]);
    }
    if !tail.is_empty() {
        let centred = simd.subtract(simd.subtract(simd.load_part(tail, 0.0), mean_lanes), correction);
        let (weight, bias) = (simd.load_part(weight_tail, 0.0), simd.load_part(bias_tail, 0.0));
        let value = simd.fused(simd.multiply(centred, scale), weight, bias);
        store_part(simd, value, out_tail);
    }
}

pub struct NormRows<'a, O> {
    x: &'a [f32],
    width: usize,
    norm: Norm<'a>,
    out: &'a mut [O],
}

impl<O: Operand> Kernel for NormRows<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.x.chunks_exact(self.width);
        let mut buffer = Vec::new();
        for (x, out) in rows.zip(self.out.chunks_exact_mut(O::row_length(self.width))) {
            O::normalize(simd, x, self.norm, &mut buffer, out);
        }
    }
}

/// Normalises each of `rows` rows of `d` numbers: (x - mean) / sqrt(variance + eps) * weight + bias. Rows of `out` are
/// [`Operand::row_length`] long.
///
/// # Panics
/// If a slice does not have the length that `rows` and `d` say.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm<O: Operand>(
    pool: &Pool,
    isa: Isa,
    x: &[f32],
    rows: usize,
    d: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [O],
) {
    assert_eq!(x.len(), rows * d);
    let out_length = O::row_length(d);
    assert_eq!(out.len(), rows * out_length);
    assert_eq!((weight.len(), bias.len()), (d, d));
    if d == 0 {
        return;
    }
    // About 16k numbers a task: some microseconds.
    let rows_per_task = (16384 / d).max(1);
    let output = SharedOutput::new(out);
    pool.run(rows.div_ceil(rows_per_task), &|task| {
        let first = task * rows_per_task;
        let last = rows.min(first + rows_per_task);
        // SAFETY: each task writes the rows of its own number.
        let out = unsafe { output.part(first * out_length, (last - first) * out_length) };
        let x = &x[first * d..last * d];
        let rows = NormRows { x, width: d, norm: Norm { weight, bias, eps }, out };
        O::run_rows(isa, RowWork::Norm(rows));
    });
}
