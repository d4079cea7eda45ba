//! The geometry of satellite scenes, without I/O: where the pixels of a grid lie on the Earth.
//!
//! Longitude and latitude are degrees of WGS 84 in the order x, y everywhere (OGC:CRS84).
#![forbid(unsafe_code)]

mod affine;
mod error;
mod window;

pub use affine::AffineTransform;
pub use error::GeoError;
pub use window::PixelWindow;
