//! What can go wrong with coordinates.

use crate::{AffineTransform, PixelWindow};

/// Why a geometry could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GeoError {
    /// The pixels of the grid have no area, or their place is not a number.
    #[error("the transform {transform:?} does not map pixels to an area: the georeference is broken")]
    SingularTransform {
        /// The transform.
        transform: AffineTransform,
    },
    /// No definition of this code is known.
    #[error("EPSG:{code} is not in the built-in table: give the reference system's PROJ string with --crs")]
    UnknownEpsg {
        /// The code.
        code: u32,
    },
    /// The text is not a reference system, or one that is not computed here.
    #[error("the reference system {crs} cannot be used: {reason}; give another with --crs, or reproject with gdalwarp")]
    UnsupportedCrs {
        /// The code or the PROJ string.
        crs: String,
        /// What it has or lacks.
        reason: String,
    },
    /// The way to WGS 84 is a table of shifts (NADCON, NTv2), or is not said at all. Neither is guessed: without it
    /// coordinates are off by up to hundreds of metres.
    #[error(
        "the reference system {crs} needs a datum shift to WGS 84 that is not built in ({reason}): reproject with \
         gdalwarp -t_srs EPSG:4326, or state the shift with --crs '+proj=… +towgs84=…'"
    )]
    DatumShift {
        /// The code or the PROJ string.
        crs: String,
        /// The grid's name, or what is missing.
        reason: String,
    },
    /// A coordinate is NaN or infinite.
    #[error("the coordinates {x}, {y} are not numbers")]
    NotFinite {
        /// x or longitude.
        x: f64,
        /// y or latitude.
        y: f64,
    },
    /// The projection does not map this point, or maps it where it does not come back from.
    #[error("the point {x}, {y} lies outside the domain of {crs}")]
    OutsideDomain {
        /// The code or the PROJ string.
        crs: String,
        /// x or longitude, as given.
        x: f64,
        /// y or latitude, as given.
        y: f64,
    },
    /// A window without pixels has no footprint.
    #[error("the window {window:?} has no pixels")]
    EmptyWindow {
        /// The window.
        window: PixelWindow,
    },
    /// The outline of a window has no simple shape on the Earth: it folds, or winds around more than a pole.
    #[error("the outline of the window {window:?} in {crs} is no polygon on the Earth: {reason}")]
    NoOutline {
        /// The window.
        window: PixelWindow,
        /// The code or the PROJ string.
        crs: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A number that decides a grid or an accuracy is out of its range.
    #[error("{name} is {value}, expected {expected}")]
    OutOfRange {
        /// What the number is.
        name: &'static str,
        /// The number.
        value: f64,
        /// Its range, in words.
        expected: &'static str,
    },
    /// The bytes are not the WKB of a polygon or of several.
    #[error("the WKB is broken at byte {offset}: {reason}")]
    BrokenWkb {
        /// Where.
        offset: usize,
        /// What was found.
        reason: &'static str,
    },
}
