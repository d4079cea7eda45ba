//! Where rasters are opened: what they share.

use std::sync::Arc;

use crate::RasterError;
use crate::cache::BlockCache;
use crate::geotiff::GeoTiff;
use crate::location::Location;
use crate::raster::Raster;
use crate::source::{ByteSource, LocalFile};

/// Limits and settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Memory for decoded blocks, over all rasters of an opener. See
    /// [`crate::RasterProfile::row_of_windows_bytes`] for what avoids decoding twice.
    pub block_cache_bytes: u64,
    /// The largest decoded block. A file of larger ones is refused when it is opened.
    pub largest_block_bytes: u64,
    /// The largest window, with its mask.
    pub largest_window_bytes: u64,
}

impl Default for Options {
    /// 64 MiB of blocks, none above 256 MiB; windows of up to 1 GiB.
    fn default() -> Self {
        Self { block_cache_bytes: 64 << 20, largest_block_bytes: 256 << 20, largest_window_bytes: 1 << 30 }
    }
}

/// Opens rasters. Those of one opener share the memory for decoded blocks, connections and threads. Clones are the same
/// opener.
#[derive(Clone)]
pub struct Opener {
    options: Options,
    cache: Arc<BlockCache>,
}

impl Opener {
    /// An opener with these limits; costs nothing until something is opened.
    pub fn new(options: Options) -> Self {
        let cache = Arc::new(BlockCache::new(options.block_cache_bytes));
        Self { options, cache }
    }

    /// Opens what a user writes: a path, or a URL with `http`, `https`, `s3`, `gs` or `az`.
    ///
    /// # Errors
    /// If it names nothing that can be read, or a file that is not read here; the error then has the command that makes
    /// one that is.
    pub fn open(&self, location: &str) -> Result<Box<dyn Raster>, RasterError> {
        self.open_location(&Location::parse(location)?)
    }

    /// The same for a location that was parsed.
    ///
    /// # Errors
    /// Those of [`Opener::open`].
    pub fn open_location(&self, location: &Location) -> Result<Box<dyn Raster>, RasterError> {
        let source: Arc<dyn ByteSource> = match location {
            Location::File(path) => Arc::new(LocalFile::open(path)?),
            _ => todo!(),
        };
        self.open_source(location, source)
    }

    fn open_source(&self, location: &Location, source: Arc<dyn ByteSource>) -> Result<Box<dyn Raster>, RasterError> {
        let raster = GeoTiff::open(location.clone(), source, Arc::clone(&self.cache), &self.options)?;
        Ok(Box::new(raster))
    }
}
