//! Chips on the cells of a grid, so that two dates of a place fall on the same ones.

use std::fmt;
use std::str::FromStr;

use dinov3_geo::{AffineTransform, CellScheme, Crs, Footprint, MajorTomGrid, PixelWindow, utm_block};

use crate::cut::{Cell, SnappedAxis, snapped};
use crate::{ChipGrid, Cut, Edges, Remark};

/// A grid whose cells are cut in its own coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum AlignedGrid {
    /// Squares of the scene's UTM zone, as large as a chip and counted from the zone's origin: the block
    /// `32633_2560m_156_1640` begins at 156 × 2560 m East and 1640 × 2560 m North. Chips tile the ground.
    Utm,
    /// Cells of Major TOM in their own UTM zone: one chip per cell, its lower left corner at the cell's point.
    MajorTom(MajorTomGrid),
}

impl FromStr for AlignedGrid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "utm" {
            return Ok(Self::Utm);
        }
        match text.parse() {
            Ok(CellScheme::MajorTom(grid)) => Ok(Self::MajorTom(grid)),
            Ok(_) => Err(format!("chips cannot be cut on it; --grid-id {text} names the cell of each chip")),
            Err(_) => Err("expected utm, major-tom or major-tom:KM".to_owned()),
        }
    }
}

/// As it is parsed.
impl fmt::Display for AlignedGrid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utm => formatter.write_str("utm"),
            Self::MajorTom(grid) => grid.fmt(formatter),
        }
    }
}

/// Which cells a scene's chips are named by.
#[derive(Clone, Debug, Default)]
pub(crate) enum CellNames {
    /// None.
    #[default]
    None,
    /// Those that the middle of a chip's valid part lies in.
    Containing(CellScheme),
    /// The block of the zone (its EPSG code) that the chip was cut on.
    Utm { epsg: u32, side_m: f64 },
    /// The cell that the chip was cut on.
    MajorTom,
}

/// Cells of one scene.
const MOST_CELLS: u64 = 4_000_000;
/// Cells are told apart by their pixels.
const SMALLEST_CELL_PX: f64 = 4.0;
/// Digits of a pixel's size that count: files of the same product may differ in the tenth.
const SIZE_DIGITS: usize = 6;
/// Largest share by which the width of a pixel may differ from its height.
const SQUARE: f64 = 1e-5;
/// As for footprints that are written.
const TOLERANCE_PX: f64 = 0.05;

/// The scene that is cut.
pub(crate) struct Ground<'a> {
    pub transform: &'a AffineTransform,
    pub crs: &'a Crs,
    pub width_px: u32,
    pub height_px: u32,
    /// Columns that are read together.
    pub strip_px: u32,
}

impl AlignedGrid {
    /// The chips of a scene, how they are named, and what is to be told. The error is why not, as the end of a sentence.
    pub(crate) fn chips(&self, ground: &Ground<'_>, cut: Cut) -> Result<(ChipGrid, CellNames, Vec<Remark>), String> {
        let unfit = |reason: &str| match self {
            Self::Utm => format!(
                "{reason}: the blocks of --grid utm are not in its coordinates; --grid-id utm:METRES names them"
            ),
            Self::MajorTom(_) => {
                format!("{reason}: cells of Major TOM are not in its coordinates; --grid-id {self} names them")
            }
        };
        let zone = utm_zone(ground.crs).ok_or_else(|| unfit(&format!("is in {}, which is no UTM zone", ground.crs)))?;
        if ground.transform.is_rotated() {
            return Err(unfit("is rotated"));
        }
        match self {
            Self::Utm => blocks(ground, cut),
            Self::MajorTom(grid) => cells(grid, zone, ground, cut),
        }
    }
}

/// The number of the zone, whatever its datum and hemisphere: Landsat's scenes south of the equator are in northern zones.
fn utm_zone(crs: &Crs) -> Option<u8> {
    let (_, zone) = crs.name()?.split_once("UTM zone ")?;
    let digits: String = zone.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|_| crs.metres_per_unit() == Some(1.0))
}

fn blocks(ground: &Ground<'_>, cut: Cut) -> Result<(ChipGrid, CellNames, Vec<Remark>), String> {
    let AffineTransform { a, c, e, f, .. } = *ground.transform;
    let epsg = ground.crs.epsg().ok_or("has no EPSG code, by which blocks are named")?;
    let (width_m, height_m) = (a.abs(), e.abs());
    if (width_m / height_m - 1.0).abs() > SQUARE {
        return Err(format!("has pixels of {width_m} x {height_m} m, which make no squares: give --gsd"));
    }
    let side_m = rounded(rounded(width_m, SIZE_DIGITS) * f64::from(cut.chip_px), 12);
    let keeps_partial = cut.edges != Edges::Drop;
    let axis = |origin: f64, pixel: f64, length_px: u32| {
        SnappedAxis::new(origin, pixel, side_m, cut.chip_px, length_px, keeps_partial)
    };
    let (columns, rows) = (axis(c, a, ground.width_px), axis(f, e, ground.height_px));
    let grid = ChipGrid::of_blocks(columns, rows, cut.chip_px, ground.strip_px);
    Ok((grid, CellNames::Utm { epsg, side_m }, Vec::new()))
}

/// To so many digits, through text: multiples of a power of ten are no round numbers.
fn rounded(value: f64, digits: usize) -> f64 {
    format!("{value:.*e}", digits - 1).parse().unwrap_or(value)
}

fn cells(
    grid: &MajorTomGrid,
    zone: u8,
    ground: &Ground<'_>,
    cut: Cut,
) -> Result<(ChipGrid, CellNames, Vec<Remark>), String> {
    let (chip_px, scene) = (cut.chip_px, PixelWindow::of_grid(ground.width_px, ground.height_px));
    let (width_m, height_m) = ground.transform.pixel_size();
    let pixel_m = width_m.max(height_m);
    if grid.distance_m() < SMALLEST_CELL_PX * pixel_m {
        return Err(format!("has pixels of {pixel_m} m, too large for cells of {} m", grid.distance_m()));
    }
    // All places that a chip in the scene can begin at.
    let margin = i64::from(chip_px);
    let grown = |length_px: u32| length_px.saturating_add(2 * chip_px);
    let around = PixelWindow::new(-margin, -margin, grown(ground.width_px), grown(ground.height_px));
    let around = Footprint::of_window(&around, ground.transform, ground.crs, TOLERANCE_PX);
    let bbox = around.map_err(|error| error.to_string())?.bbox();
    let count = grid.count_in(bbox);
    if count > MOST_CELLS {
        return Err(format!("has about {count} cells of {} m, and {MOST_CELLS} are allowed", grid.distance_m()));
    }
    let to_pixels = ground.transform.inverse().map_err(|error| error.to_string())?;
    // From the cell's point a chip reaches east and north.
    let is_flipped = (ground.transform.a < 0.0, ground.transform.e < 0.0);
    let first = |at: f64, is_flipped: bool| snapped(if is_flipped { at - f64::from(chip_px) } else { at });
    let (mut found, mut foreign) = (Vec::new(), 0);
    for cell in grid.cells_in(bbox) {
        let (lon, lat) = grid.bottom_left(cell);
        // Beyond the zone's domain there is no scene.
        let Ok((x, y)) = ground.crs.from_lon_lat(lon, lat) else { continue };
        let (col, row) = to_pixels.apply(x, y);
        let window = PixelWindow::new(first(col, is_flipped.0), first(row, is_flipped.1), chip_px, chip_px);
        let is_in_scene = match cut.edges {
            Edges::Drop => scene.contains(&window),
            _ => scene.intersection(&window).is_some(),
        };
        match grid.utm_zone(cell) {
            Ok(own) if is_in_scene && own.number == zone => found.push(Cell { window, cell }),
            Ok(_) if is_in_scene => foreign += 1,
            _ => {}
        }
    }
    let mut remarks = Vec::new();
    if foreign > 0 {
        remarks.push(Remark::OtherZones { cells: foreign });
    }
    let (chip_m, cell_m) = (f64::from(chip_px) * width_m.min(height_m), grid.distance_m());
    if chip_m < 0.9 * cell_m {
        remarks.push(Remark::SmallChips { chip_m, cell_m });
    }
    Ok((ChipGrid::of_cells(found, ground.strip_px), CellNames::MajorTom, remarks))
}

impl CellNames {
    /// The cell of a chip of this grid.
    pub(crate) fn of(
        &self,
        chip: &PixelWindow,
        grid: &ChipGrid,
        transform: &AffineTransform,
        footprint: &Footprint,
    ) -> Option<String> {
        match *self {
            Self::None => None,
            Self::Containing(scheme) => {
                let (lon, lat) = footprint.centre();
                scheme.cell(lon, lat).ok().flatten()
            }
            Self::Utm { epsg, side_m } => {
                // Snapping moves a chip by half a pixel: its middle stays in its block.
                let half = |side_px: u32| f64::from(side_px) / 2.0;
                let (col, row) = (chip.x_px as f64 + half(chip.width_px), chip.y_px as f64 + half(chip.height_px));
                let (x, y) = transform.apply(col, row);
                Some(utm_block(epsg, side_m, x, y))
            }
            Self::MajorTom => grid.cell_of(chip).map(|cell| cell.to_string()),
        }
    }
}
