//! The arithmetic of the encoders on the CPU: matrix products with fused epilogues, attention, LayerNorm, depthwise
//! convolution, and their small relatives.
//!
//! This room does not know models: no layer, no weight name, no image. It gets slices and shapes, and it neither keeps
//! state nor reads files. Every kernel is written once over sixteen lanes and compiled for each instruction set; the
//! portable version is the twin that the others are tested against. The bits of a result do not depend on the number of
//! threads, on the batch, or on the place of a row in it.
//!
//! ```
//! use dinov3_kernels::{Epilogue, Isa, PackedMatrix, linear};
//! use dinov3_system::threads::Pool;
//!
//! let pool = Pool::new(2);
//! // Two rows of three numbers: out = a × Wᵀ + bias.
//! let weights = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
//! let packed = PackedMatrix::<f32>::pack(Isa::detect(), &pool, 2, 3, &|start, rows: &mut [f32]| {
//!     rows.copy_from_slice(&weights[start * 3..start * 3 + rows.len()]);
//!     Ok::<(), std::io::Error>(())
//! })?;
//! let bias = Some(&[10.0, 20.0][..]);
//! let mut out = [0.0_f32; 2];
//! linear(&pool, &[1.0, 2.0, 3.0], 1, 3, &packed, Epilogue::Store { bias }, &mut out, 2);
//! assert_eq!(out, [11.0, 25.0]);
//! # Ok::<(), std::io::Error>(())
//! ```

// Loops over lanes and tiles index several arrays by constants: that is the form that unrolls into registers.
#![allow(clippy::needless_range_loop)]

mod amx;
mod attention;
mod bf16;
mod depthwise;
mod element;
mod elementwise;
mod feed_forward;
mod gemm;
mod int8;
mod isa;
mod math;
mod memory;
mod norm;
mod probe;
mod reduce;
mod rotary;
pub mod selftest;
mod simd;

pub use attention::{AttentionScratch, AttentionShape, attention};
pub use bf16::Bf16;
pub use depthwise::depthwise7x7_layer_norm;
pub use element::{Element, Operand};
pub use elementwise::{convert, gelu, silu};
pub use feed_forward::{FeedForwardScratch, feed_forward};
pub use gemm::{Epilogue, PackedMatrix, linear};
pub use int8::Int8;
pub use isa::{Candidate, Isa, IsaError};
pub use norm::layer_norm;
pub use probe::{Peak, measure_peak};
pub use reduce::{max_rows, mean_rows};
pub use rotary::{Rotary, rotate_heads};
