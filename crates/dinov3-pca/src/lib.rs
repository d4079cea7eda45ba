//! Principal components of feature vectors: of up to 4096 dimensions, up to 128 of them and more.
//!
//! [`Covariance`] takes vectors as they come, and [`Pca::of_covariance`] makes the basis of them; vectors that are in
//! memory are served by [`Pca::of_channels`], which forms no matrix. Both end in one subspace iteration in f64, in a fixed
//! order on one thread: the same vectors in the same order give the same bits.
//!
//! What this room does not know: models, pictures, scenes, files. A basis becomes bytes ([`Pca::to_safetensors`]) that say
//! whose features it is for ([`Origin`]).
//!
//! ```
//! use dinov3_pca::{Covariance, Pca};
//!
//! let mut covariance = Covariance::new(2);
//! covariance.add(&[0.0, 0.0, 1.0, 2.0, 2.0, 4.0]);
//! let pca = Pca::of_covariance(covariance, 1);
//! assert!((pca.component(0)[1] / pca.component(0)[0] - 2.0).abs() < 1e-6);
//! assert_eq!(pca.project(&[1.0, 2.0]), [0.0]);
//! ```
#![forbid(unsafe_code)]

mod basis;
mod covariance;
mod error;
mod file;
mod stretch;
mod subspace;

pub use basis::Pca;
pub use covariance::Covariance;
pub use error::PcaError;
pub use file::{BasisFile, Origin, Tensor};
pub use stretch::{percentile_range, place_in};
