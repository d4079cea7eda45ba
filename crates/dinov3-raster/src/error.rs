//! Why a raster cannot be opened or read.

use dinov3_geo::PixelWindow;

/// Why a raster cannot be opened or read. Locations are told as [`crate::Location::shown`] shows them: without passwords,
/// tokens and signatures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RasterError {
    /// A text that names no file, URL or object.
    #[error("'{location}' is no raster's location: {reason}")]
    Location {
        /// The text, without secrets.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such file or object.
    #[error("{location} does not exist")]
    NotFound {
        /// Where.
        location: String,
    },
    /// It may not be read.
    #[error("{location} may not be read: {reason}")]
    Denied {
        /// Where.
        location: String,
        /// What the system or the server said.
        reason: String,
    },
    /// An object cannot be written.
    #[error("{location} cannot be written: {reason}")]
    Write {
        /// Which object.
        location: String,
        /// Why.
        reason: String,
    },
    /// The file cannot be read.
    #[error("{location} cannot be read: {reason}")]
    Io {
        /// Where.
        location: String,
        /// What the system or, after the last attempt, the server said.
        reason: String,
    },
    /// The server cannot give parts of a file.
    #[error(
        "{location} is on a server that gives whole files only ({length_bytes} bytes): download it and read the copy"
    )]
    NoRanges {
        /// Where.
        location: String,
        /// The file's length.
        length_bytes: u64,
    },
    /// The file is not the one that was opened.
    #[error("{location} changed while it was read ({reason}): start again")]
    Changed {
        /// Where.
        location: String,
        /// What differs.
        reason: String,
    },
    /// Not a TIFF.
    #[error("{location} is no TIFF: {reason}; if GDAL reads it, this helps: {remedy}")]
    NotTiff {
        /// Where.
        location: String,
        /// What is wrong.
        reason: String,
        /// A command that writes a file that can be read.
        remedy: String,
    },
    /// The file contradicts itself or the format.
    #[error("{location} is damaged: {reason}")]
    Damaged {
        /// Where.
        location: String,
        /// What is wrong.
        reason: String,
    },
    /// A sound file with something that is not read here.
    #[error("{location} has {feature}, which is not read here; this helps: {remedy}")]
    Unsupported {
        /// Where.
        location: String,
        /// What.
        feature: String,
        /// A command that writes a file that can be read.
        remedy: String,
    },
    /// More memory than allowed.
    #[error("{location}: {what} takes {needed_bytes} bytes, and {limit_bytes} are allowed; this helps: {remedy}")]
    TooLarge {
        /// Where.
        location: String,
        /// What is large.
        what: String,
        /// Its size.
        needed_bytes: u64,
        /// The limit.
        limit_bytes: u64,
        /// What to do.
        remedy: String,
    },
    /// No such band.
    #[error("{location} has {bands} bands: there is no band {}", band + 1)]
    NoSuchBand {
        /// Where.
        location: String,
        /// The band, counted from 0; the message counts from 1, as GDAL does.
        band: usize,
        /// How many there are.
        bands: usize,
    },
    /// No such overview.
    #[error("{location} has {overviews} overviews: there is no overview {level}")]
    NoSuchOverview {
        /// Where.
        location: String,
        /// The overview, counted from 0.
        level: usize,
        /// How many there are.
        overviews: usize,
    },
    /// A window without pixels, or too large for memory.
    #[error("the window {}x{} at ({}, {}) of {location} {reason}", window.width_px, window.height_px, window.x_px, window.y_px)]
    Window {
        /// Where.
        location: String,
        /// The window.
        window: PixelWindow,
        /// What is wrong.
        reason: String,
    },
    /// A file that shall be bands of a scene with another one, and does not lie on its grid.
    #[error("{location} does not lie on the grid of {other}: {difference}; this helps: {remedy}")]
    OtherGrid {
        /// Where.
        location: String,
        /// The file that has the grid.
        other: String,
        /// What differs.
        difference: String,
        /// What brings it there.
        remedy: String,
    },
    /// Files of one scene with samples of different types.
    #[error("{location} has {sample_type} samples, and {other} {expected}: files of one scene have the same type")]
    OtherSamples {
        /// Where.
        location: String,
        /// numpy's name of the type.
        sample_type: &'static str,
        /// The other file.
        other: String,
        /// Its type.
        expected: &'static str,
    },
    /// The settings of the network or of an object store.
    #[error("{reason}")]
    Settings {
        /// What is wrong, with the name of the setting.
        reason: String,
    },
}
