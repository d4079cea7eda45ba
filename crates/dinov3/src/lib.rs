//! Meta's DINOv3 image encoders in Rust: feature maps and embeddings with the numbers of timm, without Python.
//!
//! [`open()`] takes a model by name, alias or `config.json` with weights from a path or a seed; a [`Session`] turns
//! pixels into features; [`image`] makes pixels of files as timm's transform does; [`engine`] and [`sink`] carry
//! whole folders into files.
//!
//! ```
//! use dinov3::{Encoder, Features, Options, Pooling, Request, Weights};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let picture = dinov3::pixels::RgbImage::from_raw(40, 30, vec![90; 40 * 30 * 3])?;
//! let opened = dinov3::open("vit_small_patch16_dinov3", &Weights::parse("synthetic:7")?, &Options::new())?;
//! let input = dinov3::image::recipe(opened.model.spec()).apply(&picture)?; // [3, 256, 256], normalised
//! let mut session = opened.model.session();
//! let mut features = Features::default();
//! let request = Request::new().poolings([Pooling::Average, Pooling::Token]).taps([9, 10, 11]);
//! session.encode(&dinov3::image::batch_of_one(&input), &request, &mut features)?;
//! assert_eq!(features.pooled[0].1.shape, [1, 384]);
//! assert_eq!(features.maps[2].map.shape, [1, 384, 16, 16]);
//! # Ok(())
//! # }
//! ```

pub mod image;
pub mod inputs;
mod normalize;
pub mod npy;
mod open;

pub use dinov3_cpu::{Model, Options, Precision, Session, peak_flops};
pub use dinov3_engine as engine;
pub use dinov3_kernels::Isa;
pub use dinov3_model::array::Array;
pub use dinov3_model::encoder::{EncodeError, Encoder, FeatureMap, Features, ImageBatch, Pooling, Request};
pub use dinov3_model::rope::RopePeriods;
pub use dinov3_model::spec::{self, ModelSpec};
pub use dinov3_model::{config_json, cost, synthetic, tensors, weights};
pub use dinov3_picture as picture;
pub use dinov3_pixels as pixels;
pub use dinov3_sink as sink;
pub use dinov3_system as system;
pub use dinov3_weights as checkpoint;
pub use normalize::Normalized;
pub use open::{OpenError, Opened, PendingIdentity, Weights, WeightsIdentity, find_model, open};
