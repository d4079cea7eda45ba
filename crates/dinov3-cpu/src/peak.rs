//! What this machine could do at most.

use dinov3_kernels::{Bf16, Isa};
use dinov3_system::threads::Pool;

use crate::Precision;

/// Floating-point operations per second that `threads` threads reach on operands of this precision with nothing but
/// multiply-adds on registers, measured in a tenth of a second: what the rate of an encoder is a share of.
pub fn peak_flops(precision: Precision, isa: Isa, threads: usize) -> f64 {
    let pool = Pool::new(threads);
    match precision {
        Precision::F32 => dinov3_kernels::peak_flops::<f32>(&pool, isa),
        Precision::Bf16 => dinov3_kernels::peak_flops::<Bf16>(&pool, isa),
    }
}
