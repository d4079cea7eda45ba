//! What this machine could do at most.

use dinov3_kernels::{Bf16, Int8, Isa};

use crate::Precision;

/// Floating-point operations per second that `threads` threads, or as many as this process may use, reach on operands of
/// this precision with nothing but multiply-adds on registers: what the rate of an encoder is a share of. Takes less
/// than a tenth of a second.
pub fn peak_flops(precision: Precision, isa: Isa, threads: usize) -> f64 {
    match precision {
        Precision::F32 => dinov3_kernels::peak_flops::<f32>(threads, isa),
        Precision::Bf16 => dinov3_kernels::peak_flops::<Bf16>(threads, isa),
        Precision::Int8 => dinov3_kernels::peak_flops::<Int8>(threads, isa),
    }
}
