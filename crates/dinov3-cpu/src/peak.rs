//! What this machine could do at most.

use dinov3_kernels::{Bf16, Int8, Isa, Peak};

use crate::Precision;

/// What `threads` threads, or as many as this process may use, reach on operands of this precision with nothing but
/// multiply-adds on registers: what the rate of an encoder is a share of. Takes less than a tenth of a second.
pub fn measure_peak(precision: Precision, isa: Isa, threads: usize) -> Peak {
    match precision {
        Precision::F32 => dinov3_kernels::measure_peak::<f32>(threads, isa),
        Precision::Bf16 => dinov3_kernels::measure_peak::<Bf16>(threads, isa),
        Precision::Int8 => dinov3_kernels::measure_peak::<Int8>(threads, isa),
    }
}
