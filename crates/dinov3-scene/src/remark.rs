//! What is worth telling about a scene that can be used.

use std::fmt;

/// What is worth telling about a scene that can be used; as the end of a sentence that begins with its name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Remark {
    /// It needs no resampling.
    HasGsd {
        /// What was asked for, in metres.
        gsd_m: f64,
    },
    /// Its pixels become many more.
    Upsampled {
        /// What was asked for, in metres.
        gsd_m: f64,
        /// Width and height of its own pixels in metres.
        source_gsd_m: (f64, f64),
        /// How many times as many along a side.
        times: f64,
    },
    /// Some of its ground belongs to cells of another UTM zone.
    OtherZones {
        /// How many cells.
        cells: u64,
    },
    /// Chips leave most of a cell's ground out.
    SmallChips {
        /// Side of a chip in metres.
        chip_m: f64,
        /// Distance of the cells in metres.
        cell_m: f64,
    },
    /// Files beside it change what GDAL makes of it.
    NotHeeded {
        /// Which: masks, and notes of its place, its mask or its colours.
        files: Vec<String>,
    },
    /// None of its chips meets the area of interest.
    OutsideArea,
}

impl Remark {
    /// Whether results may be other than what was expected.
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::Upsampled { .. } | Self::NotHeeded { .. })
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasGsd { gsd_m } => write!(formatter, "has pixels of {gsd_m} m already: nothing is resampled"),
            Self::Upsampled { gsd_m, source_gsd_m: (width_m, height_m), times } => write!(
                formatter,
                "has pixels of {width_m:.3} x {height_m:.3} m: --gsd {gsd_m} makes {times:.1} of each along a side, which \
                 adds no detail"
            ),
            Self::OtherZones { cells } => {
                write!(formatter, "meets {cells} cells of another UTM zone, which are left to the scenes in that zone")
            }
            Self::SmallChips { chip_m, cell_m } => write!(
                formatter,
                "is cut into chips of {chip_m:.1} m, one in the corner of each cell of {cell_m:.0} m: the rest of the \
                 ground is left out (--grid major-tom:{:.3} would not)",
                chip_m / 1000.0
            ),
            Self::NotHeeded { files } => write!(
                formatter,
                "is read without {}, which GDAL heeds: 'gdal_translate -of COG' makes one file of all",
                files.join(", ")
            ),
            Self::OutsideArea => formatter.write_str("has no chip in the area of interest"),
        }
    }
}
