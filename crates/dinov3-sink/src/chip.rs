//! What is said of a chip, a window cut from a scene, beside its vectors.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::name::RowName;
use crate::raster::FeatureGrid;

/// A key that knows the row of its chip. Asked after the chip was loaded, so what only its pixels say can be in it.
pub trait Chip: RowName {
    /// The row. Its `id` is the [row name](RowName), which two chips of a run never share.
    fn chip_row(&self) -> Cow<'_, ChipRow>;

    /// Its cell, if chips of its scene lie on a regular grid; known before the chip is loaded.
    fn cell(&self) -> Option<ChipCell<'_>> {
        None
    }
}

/// A chip as a cell of a raster.
#[derive(Clone, Copy, Debug)]
pub struct ChipCell<'a> {
    /// Names the scene.
    pub scene: &'a str,
    /// The scene's chips: a cell per chip, as large as the way to the next one, around the chip's centre.
    pub grid: &'a FeatureGrid,
    /// Counted from 0.
    pub column: u32,
    /// Counted from 0.
    pub row: u32,
}

/// All columns of a chip but its vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChipRow {
    /// Names the chip, among all chips of all scenes of a file.
    pub id: String,
    /// Where its valid part lies on Earth.
    pub footprint: ChipFootprint,
    /// Acquisition, in microseconds since 1970-01-01T00:00:00Z.
    pub datetime_us: Option<i64>,
    /// Link to the scene: a path or a URL.
    pub source: String,
    /// EPSG code of the grid that was cut, if it has one.
    pub epsg: Option<i32>,
    /// First column of the valid window, in pixels of the grid that was cut.
    pub x_px: i32,
    /// First row of the valid window.
    pub y_px: i32,
    /// Columns of the valid window: without padding.
    pub width_px: i32,
    /// Rows of the valid window.
    pub height_px: i32,
    /// Cell of a named grid; only in files that [have the column](crate::ChipColumns).
    pub grid_cell: Option<String>,
    /// Share of the chip's pixels that are data, 0 to 1.
    pub valid_fraction: f32,
    /// Link to the chip's STAC item; only in files that [have the column](crate::ChipColumns).
    pub stac_item: Option<String>,
    /// Place on the Hilbert curve; rows are in its order.
    pub hilbert: u32,
}

/// A polygon in longitude and latitude, in degrees (OGC:CRS84).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChipFootprint {
    /// A Polygon, or a MultiPolygon where the antimeridian splits it; two-dimensional, outer rings counterclockwise.
    pub wkb: Vec<u8>,
    /// West, south, east, north. West > east where it crosses the antimeridian, as in RFC 7946.
    pub bbox: [f64; 4],
}

impl RowName for ChipRow {
    fn row_name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }
}

impl Chip for ChipRow {
    fn chip_row(&self) -> Cow<'_, ChipRow> {
        Cow::Borrowed(self)
    }
}

/// Geometry types that a footprint can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GeometryType {
    Polygon,
    MultiPolygon,
}

impl GeometryType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            GeometryType::Polygon => "Polygon",
            GeometryType::MultiPolygon => "MultiPolygon",
        }
    }
}

impl ChipFootprint {
    /// What the bytes say they are; a sentence if that, or the box, cannot stand in a file.
    pub(crate) fn geometry_type(&self) -> Result<GeometryType, String> {
        let code = match self.wkb.first_chunk::<5>() {
            Some([0, code @ ..]) => u32::from_be_bytes(*code),
            Some([1, code @ ..]) => u32::from_le_bytes(*code),
            _ => return Err("its footprint is no WKB".to_owned()),
        };
        let [_, south, _, north] = self.bbox;
        if !self.bbox.iter().all(|degrees| degrees.is_finite()) || south > north {
            return Err(format!("its bounding box is {:?}", self.bbox));
        }
        match code {
            3 => Ok(GeometryType::Polygon),
            6 => Ok(GeometryType::MultiPolygon),
            _ => Err(format!("its footprint has WKB type {code}, neither Polygon (3) nor MultiPolygon (6)")),
        }
    }

    /// Least and largest coordinates: west, south, east, north, and west <= east. What crosses the antimeridian
    /// touches both ends of the map, so that no filter by box can miss it; GeoParquet 1.1 has no narrower box for it.
    pub fn covering(&self) -> [f64; 4] {
        match self.bbox {
            [west, south, east, north] if west > east => [-180.0, south, 180.0, north],
            bbox => bbox,
        }
    }
}
