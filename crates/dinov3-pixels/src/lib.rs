//! Image bytes in, pixels as a DINOv3 encoder wants them out.
//!
//! This room decodes JPEG, PNG, WebP, TIFF and BMP to 8-bit RGB, resizes, crops and normalises. The measure is the
//! Python stack that the models were evaluated with: Pillow's decoding (`Image.open(...).convert("RGB")`), Pillow's
//! 8-bit resampling and timm's evaluation transform, bit for bit, because embeddings move with the pixels. The
//! recipes of Transformers and of Meta's repository stand beside it.
//!
//! It does not know what a model is, where files come from, or how pictures are batched. It reads untrusted bytes:
//! sizes are checked before memory is asked for ([`Limits`]), and every fault is a [`PixelError`].
//!
//! ```
//! use dinov3_pixels::{CropMode, DecodeOptions, Filter, Recipe, Statistics, TimmRecipe, decode};
//!
//! // A bitmap of two pixels, red and blue.
//! let mut bytes = b"BM\x3e\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\x18\0".to_vec();
//! bytes.extend([0; 24]);
//! bytes.extend([0, 0, 255, 255, 0, 0, 0, 0]);
//!
//! let image = decode(&bytes, &DecodeOptions::default())?;
//! assert_eq!(image.data(), [255, 0, 0, 0, 0, 255]);
//!
//! let recipe = Recipe::Timm(TimmRecipe {
//!     height_px: 256,
//!     width_px: 256,
//!     filter: Filter::Bicubic,
//!     crop_pct: 1.0,
//!     crop_mode: CropMode::Center,
//!     statistics: Statistics::IMAGENET,
//! });
//! let input = recipe.apply(&image)?;
//! assert_eq!(input.data.len(), 3 * 256 * 256);
//! # Ok::<(), dinov3_pixels::PixelError>(())
//! ```

mod decode;
mod error;
mod image;
mod limits;
pub mod npy;
mod orientation;
mod recipe;
mod resize;
mod tiff_directory;

pub use decode::{DecodeOptions, DeepGrey, ImageFormat, Orientation, decode, image_size};
pub use error::PixelError;
pub use image::RgbImage;
pub use limits::Limits;
pub use recipe::{CropMode, NormalizedImage, Recipe, ShorterSideRecipe, SquashRecipe, Statistics, TimmRecipe};
pub use resize::{Filter, resize};
