//! Pictures of feature maps: what an encoder saw, for human eyes.
//!
//! [`pca_picture`] shows the first three principal components of the patch vectors as red, green and blue, so that
//! patches with like features get like colours; its [`PcaBasis`] can be kept, so that the colours mean the same in
//! other pictures. [`similarity_picture`] shows how alike every patch is to a chosen one.
//!
//! What this room does not know: models, files, where a map comes from. It gets a map `[1, D, h, w]` and the size of
//! the picture that was encoded, and gives back an [`RgbPicture`]. The same map gives the same bytes on one machine.
//!
//! ```
//! use dinov3_model::array::Array;
//! use dinov3_picture::{pca_picture, similarity_picture};
//!
//! // Two channels, 2 × 3 patches: the left column has other features than the rest.
//! let data = vec![1.0, 0.1, 0.0, 0.9, 0.0, 0.1, 0.0, 1.0, 0.9, 0.1, 1.1, 1.0];
//! let map = Array { shape: vec![1, 2, 2, 3], data };
//! let (picture, basis) = pca_picture(&map, 48, 32, None)?;
//! assert_eq!((picture.width_px(), picture.height_px()), (48, 32));
//! assert_eq!(pca_picture(&map, 48, 32, Some(&basis))?.0, picture);
//!
//! let mut png = Vec::new();
//! similarity_picture(&map, 5, 20, 48, 32)?.write_png(&mut png)?;
//! assert!(png.starts_with(b"\x89PNG"));
//! # Ok::<(), dinov3_picture::PictureError>(())
//! ```
#![forbid(unsafe_code)]

mod colour_map;
mod enlarge;
mod error;
mod map;
mod pca;
mod rgb;
mod similarity;

pub use dinov3_pca::Origin as BasisOrigin;

pub use colour_map::{ColourMap, colour_map};
pub use error::PictureError;
pub use pca::{PcaBasis, pca_picture};
pub use rgb::RgbPicture;
pub use similarity::{similarity, similarity_picture};
