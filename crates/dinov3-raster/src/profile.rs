//! What is known about a raster without reading its pixels.

use std::collections::BTreeMap;

use dinov3_geo::{AffineTransform, PixelWindow};

use crate::on_grid::Resampling;
use crate::samples::SampleType;

/// What is known about a raster without reading its pixels.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RasterProfile {
    /// Where it is, without secrets.
    pub location: String,
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// The bands in their order.
    pub bands: Vec<BandProfile>,
    /// What samples are given as.
    pub sample_type: SampleType,
    /// Bits of a sample in the file.
    pub bits_per_sample: u16,
    /// The value that means no data.
    pub no_data: Option<NoData>,
    /// Where it lies on the Earth.
    pub georeference: Georeference,
    /// What decides which pixels are valid.
    pub mask: MaskKind,
    /// How colours are stored.
    pub photometric: Photometric,
    /// The compression's name, in GDAL's spelling (`DEFLATE`, `JPEG`, ...; `NONE`).
    pub compression: &'static str,
    /// What is stored instead of plain samples: 1 nothing, 2 differences, 3 differences of the bytes of floats.
    pub predictor: u16,
    /// Whether the file keeps each band apart.
    pub is_planar: bool,
    /// How the file is cut.
    pub blocks: BlockLayout,
    /// Width and height of the overviews, the largest first.
    pub overviews: Vec<(u32, u32)>,
    /// Further images (pages) in the file, which are not read.
    pub further_images: usize,
    /// `TIFFTAG_DATETIME`: when the file was written, rarely when the scene was seen.
    pub datetime: Option<String>,
    /// GDAL's metadata of the whole file (`AREA_OR_POINT` is in [`RasterProfile::is_pixel_point`]).
    pub metadata: BTreeMap<String, String>,
    /// Whether the file calls its points pixel centres; the transform accounts for it.
    pub is_pixel_point: bool,
    /// Files beside a local one that GDAL would heed and this reader does not: `.msk` masks, `.aux.xml`, world files.
    pub ignored_files: Vec<String>,
    /// The files that a [`crate::Stack`] is made of; none for a raster that is one file.
    pub files: Vec<StackedFile>,
}

/// One file of a [`crate::Stack`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackedFile {
    /// Where it is, without secrets.
    pub location: String,
    /// Its own columns.
    pub width_px: u32,
    /// Its own rows.
    pub height_px: u32,
    /// How it came onto the grid of the finest one; nothing where it is on it.
    pub resampling: Option<Resampling>,
}

impl RasterProfile {
    /// The whole raster as a window.
    pub fn window(&self) -> PixelWindow {
        PixelWindow::of_grid(self.width_px, self.height_px)
    }

    /// The first band of this colour.
    pub fn band_of(&self, colour: &Colour) -> Option<usize> {
        self.bands.iter().position(|band| band.colour == *colour)
    }

    /// The bands of red, green and blue if the file says which they are.
    pub fn rgb(&self) -> Option<[usize; 3]> {
        Some([self.band_of(&Colour::Red)?, self.band_of(&Colour::Green)?, self.band_of(&Colour::Blue)?])
    }

    /// Memory for the decoded blocks that a row of windows of this height touches, for so many bands: what the block cache
    /// must hold so that no block is decoded twice. For strips this is `(height + 2 (rows per strip - 1)) * width * bytes
    /// of a pixel`, at most.
    pub fn row_of_windows_bytes(&self, height_px: u32, bands: usize) -> u64 {
        let block_height = u64::from(self.blocks.height_px.max(1));
        let worst_rows = (u64::from(height_px) + 2 * (block_height - 1)) / block_height * block_height;
        let rows = worst_rows.min(u64::from(self.height_px).next_multiple_of(block_height));
        let stored_bytes = u64::from(self.bits_per_sample.div_ceil(8));
        let bands = if self.is_planar { bands } else { self.bands.len() } as u64;
        rows.saturating_mul(u64::from(self.width_px)).saturating_mul(bands).saturating_mul(stored_bytes)
    }
}

/// A band.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BandProfile {
    /// What it shows.
    pub colour: Colour,
    /// What its maker calls it.
    pub description: Option<String>,
    /// GDAL's scale: the physical value is `scale * sample + offset`. Samples are given as they are stored.
    pub scale: Option<f64>,
    /// GDAL's offset.
    pub offset: Option<f64>,
}

/// What a band shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Colour {
    /// Shades of grey, or the only band.
    Grey,
    /// Red.
    Red,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Opacity that is multiplied into the colours (`true`) or not (`false`).
    Alpha {
        /// Whether the colours are multiplied with it already.
        premultiplied: bool,
    },
    /// What the file's own metadata says (`nir`, `coastal`, ...), in lower case.
    Named(String),
    /// The file does not say.
    Undefined,
}

/// A value that means no data.
#[derive(Clone, Debug, PartialEq)]
pub struct NoData {
    /// As the file has it.
    pub text: String,
    /// As a number.
    pub value: f64,
}

/// What decides which pixels are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskKind {
    /// Nothing: all are.
    AllValid,
    /// The mask in the file.
    Internal,
    /// The no-data value.
    NoData,
    /// The alpha band, counted from 0: pixels above 0.
    Alpha {
        /// Which band.
        band: usize,
    },
    /// What each file of a [`crate::Stack`] says; valid is what is valid in all of them.
    EachFile,
}

/// How colours are stored; what is given is never YCbCr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Photometric {
    /// Grey, 0 is black; also any bands without colour.
    MinIsBlack,
    /// Grey, 0 is white. Samples are given as they are stored, as GDAL does.
    MinIsWhite,
    /// Red, green, blue.
    Rgb,
    /// Places in a table of colours, which is not read: classes, most often.
    Palette,
    /// JPEG's YCbCr, given as red, green, blue.
    YCbCr,
    /// A mask.
    Mask,
}

/// How a raster is cut into pieces that are compressed by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// Whether these are tiles; else strips over the whole width.
    pub is_tiled: bool,
    /// Columns of a block.
    pub width_px: u32,
    /// Rows of a block.
    pub height_px: u32,
}

/// Where a raster lies on the Earth.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Georeference {
    /// On the grid of a known reference system.
    Located {
        /// Pixels to coordinates.
        transform: AffineTransform,
        /// The reference system.
        crs: CrsDefinition,
    },
    /// On a grid whose reference system is described in a way that is not understood here.
    UnknownCrs {
        /// Pixels to coordinates.
        transform: AffineTransform,
        /// Why not.
        reason: String,
    },
    /// On a grid of unnamed coordinates.
    WithoutCrs {
        /// Pixels to coordinates.
        transform: AffineTransform,
    },
    /// Ground control points alone.
    ControlPoints {
        /// How many.
        count: usize,
    },
    /// Rational polynomial coefficients alone.
    RationalPolynomials,
    /// Nothing: a plain picture.
    None,
}

impl Georeference {
    /// Pixels to coordinates, if it is that simple.
    pub fn transform(&self) -> Option<&AffineTransform> {
        match self {
            Self::Located { transform, .. } | Self::UnknownCrs { transform, .. } | Self::WithoutCrs { transform } => {
                Some(transform)
            }
            _ => None,
        }
    }

    /// The same ground with pixels that are `columns` times as wide and `rows` times as high.
    pub(crate) fn with_pixels_scaled_by(&self, columns: f64, rows: f64) -> Self {
        let mut scaled = self.clone();
        if let Self::Located { transform, .. } | Self::UnknownCrs { transform, .. } | Self::WithoutCrs { transform } =
            &mut scaled
        {
            *transform = transform.with_pixels_scaled_by(columns, rows);
        }
        scaled
    }

    /// The reference system, if it is understood.
    pub fn crs(&self) -> Option<&CrsDefinition> {
        match self {
            Self::Located { crs, .. } => Some(crs),
            _ => None,
        }
    }

    /// What is missing and what helps, as the end of a sentence that begins with the file's name; `None` if nothing is.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Located { .. } => None,
            Self::UnknownCrs { reason, .. } => {
                Some(format!("has a reference system that is not understood ({reason}): name it with --crs"))
            }
            Self::WithoutCrs { .. } => Some("names no reference system: name it with --crs".to_string()),
            Self::ControlPoints { count } => Some(format!(
                "is located by {count} ground control points only: warp it first (gdalwarp -of COG IN OUT)"
            )),
            Self::RationalPolynomials => Some(
                "is located by rational polynomials (RPC) only: orthorectify it first (gdalwarp -rpc -of COG IN OUT)"
                    .to_string(),
            ),
            Self::None => Some("has no georeference".to_string()),
        }
    }
}

/// How a file describes its reference system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrsDefinition {
    /// A code of the EPSG registry.
    Epsg(u32),
    /// A proj string, built from the parameters in the file.
    Proj(String),
}

impl std::fmt::Display for CrsDefinition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Epsg(code) => write!(formatter, "EPSG:{code}"),
            Self::Proj(text) => formatter.write_str(text),
        }
    }
}
