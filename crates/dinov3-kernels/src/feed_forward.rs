//! Two matrix products in a row whose hidden numbers never leave the cache.
#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};

use dinov3_system::threads::Pool;

use crate::element::Operand;
use crate::gemm::{Epilogue, LinearTask, PackedMatrix, ROW_BLOCK, linear, row_block};
use crate::memory::SharedOutput;

/// Buffers that [`feed_forward`] keeps from call to call. They only grow.
pub struct FeedForwardScratch<E: Operand> {
    /// For products one after the other.
    whole: Hidden<E>,
    /// Of each thread, for products together.
    workers: Vec<Mutex<Hidden<E>>>,
}

struct Hidden<E: Operand> {
    elements: Vec<E::Element>,
    /// The same as operands, if they are not operands already.
    quantized: Vec<E>,
}

impl<E: Operand> Default for Hidden<E> {
    fn default() -> Hidden<E> {
        Hidden { elements: Vec::new(), quantized: Vec::new() }
    }
}

impl<E: Operand> Default for FeedForwardScratch<E> {
    fn default() -> FeedForwardScratch<E> {
        FeedForwardScratch { whole: Hidden::default(), workers: Vec::new() }
    }
}

impl<E: Operand> std::fmt::Debug for FeedForwardScratch<E> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FeedForwardScratch")
    }
}

impl<E: Operand> Hidden<E> {
    fn rows(&mut self, rows: usize, width: usize) -> (&mut [E::Element], &mut Vec<E>) {
        if self.elements.len() < rows * width {
            self.elements.resize(rows * width, E::Element::default());
        }
        (&mut self.elements[..rows * width], &mut self.quantized)
    }
}

/// Row blocks per thread from which on each goes through both products at once: with fewer, a thread that another process
/// holds up would cost too much.
const BLOCKS_PER_THREAD: usize = 4;

/// `out = residual(activation(a × W1ᵀ) × W2ᵀ)`: [`linear`] twice, with the same bits.
///
/// `a` holds `m` rows of `first.k()` numbers, each [`Operand::row_length`] long; `out` holds `m` rows of `second.n()`
/// numbers.
///
/// # Panics
/// As [`linear`]; and if the first product does not deliver what the second takes.
#[allow(clippy::too_many_arguments)]
pub fn feed_forward<E: Operand>(
    pool: &Pool,
    a: &[E],
    m: usize,
    first: &PackedMatrix<E>,
    activation: Epilogue<'_>,
    second: &PackedMatrix<E>,
    residual: Epilogue<'_>,
    scratch: &mut FeedForwardScratch<E>,
    out: &mut [f32],
) {
    let (a_stride, isa) = (E::row_length(first.k()), first.isa());
    let (width, out_width) = (second.k(), second.n());
    assert_eq!(activation.check::<E::Element>(first.n()), width, "hidden numbers");
    residual.check::<f32>(out_width);
    assert_eq!((a.len(), out.len()), (m * a_stride, m * out_width), "rows");
    let block = row_block::<E>(isa, m);
    if m.div_ceil(ROW_BLOCK) < BLOCKS_PER_THREAD * pool.threads() || out_width == 0 {
        let (elements, quantized) = scratch.whole.rows(m, width);
        linear(pool, a, m, a_stride, first, activation, elements, width);
        let hidden = E::operands(pool, isa, elements, width, quantized);
        linear(pool, hidden, m, E::row_length(width), second, residual, out, out_width);
        return;
    }
    while scratch.workers.len() < pool.threads() {
        scratch.workers.push(Mutex::default());
    }
    let workers = &scratch.workers;
    let output = SharedOutput::new(out);
    pool.run_with_worker(m.div_ceil(block), &|task, worker| {
        let mut hidden = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
        let first_row = task * block;
        let rows = block.min(m - first_row);
        let (elements, quantized) = hidden.rows(rows, width);
        let hidden = SharedOutput::new(elements);
        E::run_linear(isa, LinearTask::rows(&a[first_row * a_stride..], a_stride, first, activation, &hidden, 0, rows));
        // Inside a task this runs on the task's thread.
        let operands = E::operands(pool, isa, elements, width, quantized);
        let stride = E::row_length(width);
        E::run_linear(isa, LinearTask::rows(operands, stride, second, residual, &output, first_row, rows));
    });
}
