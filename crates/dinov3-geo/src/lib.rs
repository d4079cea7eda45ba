//! The geometry of satellite scenes, without I/O: where the pixels of a grid lie on the Earth.
//!
//! An [`AffineTransform`] takes pixels to the coordinates of a [`Crs`], which takes them to longitude and latitude; a
//! [`Footprint`] does both for the outline of a [`PixelWindow`]. [`HilbertCurve`] puts places in an order, and
//! [`UtmZone`], [`MajorTomGrid`] and [`WebMercatorTile`] name the cells that they lie in, a [`CellScheme`] any of them. An
//! [`Area`] says which footprints it meets.
//!
//! Longitude and latitude are degrees of WGS 84 in the order x, y everywhere (OGC:CRS84).
#![forbid(unsafe_code)]

mod affine;
mod area;
mod cell;
mod crs;
mod error;
mod footprint;
mod grid;
mod ground;
mod hilbert;
mod window;
mod wkb;
mod wkt;

pub use affine::AffineTransform;
pub use area::{Area, Coverage};
pub use cell::{CellScheme, utm_block};
pub use crs::{Crs, DatumShift};
pub use error::GeoError;
pub use footprint::{Footprint, Ring};
pub use grid::{MajorTomCell, MajorTomGrid, UtmZone, WebMercatorTile};
pub use hilbert::HilbertCurve;
pub use window::PixelWindow;
pub use wkb::{read_wkb_areas, read_wkb_polygons};
