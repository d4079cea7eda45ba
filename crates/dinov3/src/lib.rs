//! Meta's DINOv3 image encoders in Rust: feature maps and embeddings with the numbers of timm, without Python.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dinov3::{Options, Weights};
//!
//! let weights = Weights::parse("synthetic:7")?; // or a file, a folder, an index of shards
//! let model = dinov3::open("vit_small_patch16_dinov3", &weights, &Options::new())?;
//!
//! # let pixels = vec![90; 30 * 40 * 3];
//! let image = model.preprocess_rgb(30, 40, &pixels)?; // or preprocess_path("a.jpg"), preprocess_bytes(&jpeg)
//! let embedding = model.embed(&image)?; // [384]
//! let tokens = model.tokens(&image)?; // [261, 384]: class token, 4 registers, 256 patches
//! let maps = model.feature_maps(&image, &[9, 10, 11])?; // three times [384, 16, 16]
//! assert_eq!(embedding.len(), 384);
//! assert_eq!(tokens.shape, [261, 384]);
//! assert_eq!(maps[2].shape, [384, 16, 16]);
//! # Ok(())
//! # }
//! ```
//!
//! With the published weights, downloaded once into the Hugging Face cache:
//!
//! ```no_run
//! # #[cfg(feature = "hub")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dinov3::{Opened, Options, Weights, find_model};
//!
//! let spec = find_model("vit_small_patch16_dinov3")?;
//! let model = Opened::from_spec(&spec, &Weights::default_for(&spec)?, &Options::new())?;
//! let embedding = model.embed(&model.preprocess_path("picture.jpg")?)?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "hub"))]
//! # fn main() {}
//! ```
//!
//! That is the short way, one picture at a time. Below it everything is explicit: a [`Session`] encodes whole batches
//! ([`ImageBatch`]) and gives everything that a [`Request`] asks for from one pass; [`image`] makes pixels of files as
//! timm's transform does; [`Head`] and [`top_k`] give classes; [`engine`] and [`sink`] carry whole folders into files; [`packed`] keeps
//! weights ready for the kernels.
//! `examples/` has a program for each.

pub mod golden;
mod head;
#[cfg(feature = "hub")]
pub mod hub;
pub mod image;
pub mod inputs;
mod labels;
mod normalize;
pub mod npy;
mod open;
mod opened;
pub mod packed;
mod scores;
#[cfg(feature = "hub")]
pub mod url;

pub use dinov3_cpu::{LinearHead, LinearHeadError, Model, Options, Precision, Session, Streaming, measure_peak};
pub use dinov3_engine as engine;
pub use dinov3_kernels::{Candidate, Isa, Peak, selftest};
pub use dinov3_model::array::Array;
pub use dinov3_model::encoder::{EncodeError, Encoder, FeatureMap, Features, ImageBatch, MapLayout, Pooling, Request};
pub use dinov3_model::rope::RopePeriods;
pub use dinov3_model::spec::{self, ModelSpec};
pub use dinov3_model::{config_json, cost, synthetic, tensors, weights};
pub use dinov3_pca as pca;
pub use dinov3_picture as picture;
pub use dinov3_pixels as pixels;
pub use dinov3_sink as sink;
pub use dinov3_system as system;
pub use dinov3_weights as checkpoint;
pub use dinov3_weights::MOST_CLASSES;
pub use head::{Head, HeadError, HeadInput, WithHead, with_head_in, with_stored_head};
pub use labels::{Labels, LabelsError};
pub use normalize::Normalized;
pub use open::{
    HubOrigin, OpenError, Opened, PendingIdentity, Weights, WeightsIdentity, find_model, hashed_files, open,
};
pub use opened::ImageError;
pub use scores::{ClassScore, top_k};
