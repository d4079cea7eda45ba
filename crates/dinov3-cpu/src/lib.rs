//! The encoder on the CPU.
//!
//! A [`Model`] holds weights packed for this CPU's kernels: immutable, shared, cheap to clone. A [`Session`] owns the
//! scratch memory and the threads of one stream of batches; it is the [`Encoder`](dinov3_model::encoder::Encoder).
//! This room knows the order of operations; the arithmetic is in `dinov3-kernels`, and what the model *is* in
//! `dinov3-model`. It opens no file; parts of packed files are handed to it open, and mapped.
//!
//! ```
//! use dinov3_cpu::{Model, Options};
//! use dinov3_model::encoder::{Encoder, Features, ImageBatch, Pooling, Request};
//! use dinov3_model::{config_json, synthetic::{SyntheticSpec, SyntheticWeights}};
//!
//! let text = r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;
//! let spec = config_json::parse(text, "tiny")?;
//! let weights = SyntheticWeights::new(&spec, SyntheticSpec { seed: 7, outliers: false });
//! let model = Model::load(&spec, &weights, &Options::new())?;
//! let mut session = model.session();
//! let pixels = vec![0.5; 3 * 32 * 48];
//! let batch = ImageBatch { pixels: &pixels, count: 1, height_px: 32, width_px: 48 };
//! let mut features = Features::default();
//! session.encode(&batch, &Request::new().poolings([Pooling::Average]), &mut features)?;
//! assert_eq!(features.pooled[0].1.shape, [1, 64]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod convnext;
mod division;
mod head;
mod load;
mod model;
mod output;
mod packed;
mod patches;
mod peak;
mod vit;

pub use head::{LinearHead, LinearHeadError};
pub use model::{Model, Options, Precision, Session};
pub use packed::{PackError, Streaming, layout, packed_description, packed_precision, packed_spec};
pub use peak::measure_peak;
