//! Functions of single numbers over slices.
#![allow(unsafe_code)]

use dinov3_system::threads::Pool;

use crate::element::{Element, Work, store_part};
use crate::isa::Isa;
use crate::math;
use crate::memory::SharedOutput;
use crate::simd::{Kernel, LANES, Simd, dispatch};

#[derive(Clone, Copy)]
enum Function {
    Gelu,
    Silu,
}

struct Apply<'a> {
    function: Function,
    values: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for chunk in self.values.chunks_mut(LANES) {
            let value = simd.load_part(chunk, 0.0);
            let result = match self.function {
                Function::Gelu => math::gelu(simd, value, &math::GELU),
                Function::Silu => math::silu(simd, value),
            };
            store_part(simd, result, chunk);
        }
    }
}

/// Replaces each x by x (1 + erf(x / √2)) / 2.
pub fn gelu(isa: Isa, values: &mut [f32]) {
    let function = Function::Gelu;
    dispatch(isa, Apply { function, values });
}

/// Replaces each x by x / (1 + e^-x).
pub fn silu(isa: Isa, values: &mut [f32]) {
    let function = Function::Silu;
    dispatch(isa, Apply { function, values });
}

pub struct ConvertRange<'a, O> {
    source: &'a [f32],
    target: &'a mut [O],
}

impl<O: Element> Kernel for ConvertRange<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (source, target) in self.source.chunks(LANES).zip(self.target.chunks_mut(LANES)) {
            store_part(simd, simd.load_part(source, 0.0), target);
        }
    }
}

/// Numbers that one task converts: large enough to hide the cost of handing it out.
const CONVERT_TASK: usize = 16384;

/// Writes each f32 as an `O`, rounded to nearest even.
///
/// # Panics
/// If the slices differ in length.
pub fn convert<O: Element>(pool: &Pool, isa: Isa, x: &[f32], out: &mut [O]) {
    assert_eq!(x.len(), out.len());
    let output = SharedOutput::new(out);
    pool.run(x.len().div_ceil(CONVERT_TASK), &|task| {
        let start = task * CONVERT_TASK;
        let source = &x[start..x.len().min(start + CONVERT_TASK)];
        // SAFETY: each task writes the range of its own number.
        let target = unsafe { output.part(start, source.len()) };
        O::run(isa, Work::Convert(ConvertRange { source, target }));
    });
}
