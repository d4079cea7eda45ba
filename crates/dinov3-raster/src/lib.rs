//! Windows of rasters: GeoTIFF, BigTIFF and COG, from disks, web servers and object stores.
//!
//! ```no_run
//! use dinov3_geo::PixelWindow;
//! use dinov3_raster::{Opener, Options};
//!
//! # fn main() -> Result<(), dinov3_raster::RasterError> {
//! let raster = Opener::new(Options::default()).open("https://example.org/scene.tif")?;
//! let window = raster.read(PixelWindow::new(512, 512, 256, 256), &[0, 1, 2])?;
//! println!("{} {:.0} % valid", raster.profile().georeference.crs().is_some(), 100.0 * window.valid_fraction());
//! # Ok(())
//! # }
//! ```
//!
//! Values are GDAL's, sample for sample; JPEG inside of TIFF is decoded by another library than GDAL's and differs by a
//! level (by up to 7 with reduced colour, from the IJG's decoder). What is not read is refused by name, with the
//! `gdal_translate` command that makes a file that is.
#![forbid(unsafe_code)]

mod cache;
mod error;
mod geotiff;
mod location;
mod on_grid;
mod opener;
mod profile;
mod raster;
mod samples;
mod source;
mod stack;

pub use dinov3_http::Addresses;
pub use error::RasterError;
pub use location::{Location, Store, named_apart, named_together, redacted};
pub use on_grid::{OnGrid, Resampling};
pub use opener::{Opener, Options};
pub use profile::{
    BandProfile, BlockLayout, Colour, CrsDefinition, Georeference, MaskKind, NoData, Photometric, RasterProfile,
    StackedFile,
};
pub use raster::{Raster, RasterWindow};
pub use samples::{SampleType, Samples};
#[cfg(feature = "object-stores")]
pub use source::StoreFolder;
pub use stack::Stack;
