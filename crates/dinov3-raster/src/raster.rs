//! The one trait through which windows of rasters are read.

use dinov3_geo::PixelWindow;

use crate::RasterError;
use crate::profile::RasterProfile;
use crate::samples::Samples;

/// A raster whose windows can be read, by several threads at once.
pub trait Raster: Send + Sync {
    /// What is known without reading pixels.
    fn profile(&self) -> &RasterProfile;

    /// The length in bytes of a file on a server, and what names this version of it: its entity tag, or when it was
    /// written. Nothing for others, and where the server does not say.
    fn version(&self) -> Option<(u64, &str)> {
        None
    }

    /// Reads a window of some bands (counted from 0; repeated or reordered as you like).
    ///
    /// The window may reach beyond the raster: pixels outside hold the no-data value, or 0 without one, and are invalid.
    ///
    /// # Errors
    /// If the window has no pixel or exceeds the limit of a window, if there is no such band, or if a block cannot be
    /// fetched or decoded.
    fn read(&self, window: PixelWindow, bands: &[usize]) -> Result<RasterWindow, RasterError>;

    /// Whether the file's index alone says that no pixel of the window is valid: nothing is stored there, and what is not
    /// stored is no data. Costs no I/O. Never true for a raster without mask, no-data value and alpha band, where what is
    /// not stored is a valid 0.
    fn is_empty(&self, window: PixelWindow) -> bool;

    /// Starts to fetch what [`Raster::read`] of these windows will need, concurrently, and returns at once. Stops quietly
    /// at the limit of bytes held ahead; failures appear in `read`.
    fn prefetch(&self, windows: &[PixelWindow], bands: &[usize]);

    /// [`RasterProfile::row_of_windows_bytes`], of what is stored: for windows of a raster that is made of another one, of
    /// the blocks that these need.
    fn row_of_windows_bytes(&self, height_px: u32, bands: usize) -> u64 {
        self.profile().row_of_windows_bytes(height_px, bands)
    }

    /// The overview `level`, counted from 0, as a raster of its own. For pictures: overviews are resampled.
    ///
    /// # Errors
    /// [`RasterError::NoSuchOverview`], or why this overview cannot be read.
    fn overview(&self, level: usize) -> Result<Box<dyn Raster>, RasterError>;
}

/// A window that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct RasterWindow {
    /// Which window.
    pub window: PixelWindow,
    /// How many bands.
    pub bands: usize,
    /// The samples, band after band, each row after row: `bands * height_px * width_px`.
    pub samples: Samples,
    /// Which pixels hold data, row after row: `height_px * width_px`. By GDAL's order the first of these decides that
    /// exists: the internal mask, the no-data value, the alpha band. With a no-data value a pixel is valid if any of the
    /// bands *that were read* differs from it (as rasterio's `dataset_mask` over all bands). NaN is valid unless it is the
    /// no-data value. Pixels outside of the raster are invalid.
    pub valid: Vec<bool>,
}

impl RasterWindow {
    /// The share of valid pixels, 0 to 1.
    pub fn valid_fraction(&self) -> f64 {
        let valid = self.valid.iter().filter(|&&valid| valid).count();
        valid as f64 / self.valid.len().max(1) as f64
    }
}

/// Refuses windows without pixels, beyond the limit of memory, and bands that do not exist.
pub(crate) fn check_request(
    profile: &RasterProfile,
    window: PixelWindow,
    bands: &[usize],
    limit_bytes: u64,
) -> Result<(), RasterError> {
    let refused = |reason: String| RasterError::Window { location: profile.location.clone(), window, reason };
    if window.is_empty() || bands.is_empty() {
        return Err(refused("has no pixel or no band".to_string()));
    }
    if let Some(&band) = bands.iter().find(|&&band| band >= profile.bands.len()) {
        let location = profile.location.clone();
        return Err(RasterError::NoSuchBand { location, band, bands: profile.bands.len() });
    }
    let sample_bytes = (profile.sample_type.size_bytes() as u64).saturating_mul(bands.len() as u64);
    let window_bytes = window.pixels().saturating_mul(sample_bytes.saturating_add(1));
    if window_bytes > limit_bytes || usize::try_from(window_bytes).is_err() {
        return Err(refused(format!("takes {window_bytes} bytes, and {limit_bytes} are allowed: read it in parts")));
    }
    Ok(())
}
