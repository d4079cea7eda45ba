//! Chips on a regular grid as cells of a raster.

use dinov3_geo::{AffineTransform, Crs, PixelWindow};
use dinov3_sink::FeatureGrid;

use crate::ChipGrid;
use crate::cut::EvenLattice;

/// The raster whose cells are a scene's chips. Its cells are as large as the way from chip to chip, and each lies around
/// the centre of its chip: it is the chip's own ground where chips lie side by side.
#[derive(Clone, Debug)]
pub(crate) struct ChipCells {
    pub(crate) grid: FeatureGrid,
    first: PixelWindow,
    stride_px: i64,
}

impl ChipCells {
    /// Nothing where chips are not all one stride apart, or are too many.
    pub(crate) fn new(chips: &ChipGrid, transform: &AffineTransform, crs: &Crs) -> Option<Self> {
        let EvenLattice { columns, rows, first, stride_px } = chips.even_lattice()?;
        let (width_px, height_px) = (u32::try_from(columns).ok()?, u32::try_from(rows).ok()?);
        let margin_px = (f64::from(first.width_px) - f64::from(stride_px)) / 2.0;
        let origin = transform.with_origin_at(first.x_px as f64 + margin_px, first.y_px as f64 + margin_px);
        let transform = origin.with_pixels_scaled_by(stride_px.into(), stride_px.into());
        let grid = FeatureGrid { width_px, height_px, transform, crs: crs.clone() };
        Some(Self { grid, first, stride_px: stride_px.into() })
    }

    /// Column and row of a chip.
    pub(crate) fn place(&self, chip: &PixelWindow) -> Option<(u32, u32)> {
        let place = |start: i64, first: i64| u32::try_from((start - first) / self.stride_px).ok();
        place(chip.x_px, self.first.x_px).zip(place(chip.y_px, self.first.y_px))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cut, Edges};

    fn cells(cut: Cut, width_px: u32, height_px: u32) -> (ChipGrid, Option<ChipCells>) {
        let chips = ChipGrid::new(cut, width_px, height_px, 100);
        let transform = AffineTransform::unrotated(500_000.0, 4_000_000.0, 10.0, -10.0);
        let cells = ChipCells::new(&chips, &transform, &Crs::from_epsg(32633).unwrap());
        (chips, cells)
    }

    #[test]
    fn a_cell_lies_around_the_centre_of_its_chip() {
        for (chip_px, stride_px) in [(64, 64), (64, 16), (64, 100)] {
            let (chips, cells) = cells(Cut { chip_px, stride_px, edges: Edges::Pad }, 300, 200);
            let cells = cells.unwrap();
            let mut seen = std::collections::BTreeSet::new();
            for index in 0..chips.len() {
                let window = chips.window(index);
                let (column, row) = cells.place(&window).unwrap();
                assert!(column < cells.grid.width_px && row < cells.grid.height_px && seen.insert((column, row)));
                let half = f64::from(chip_px) / 2.0;
                let expected =
                    (500_000.0 + 10.0 * (window.x_px as f64 + half), 4_000_000.0 - 10.0 * (window.y_px as f64 + half));
                assert_eq!(cells.grid.transform.apply(f64::from(column) + 0.5, f64::from(row) + 0.5), expected);
            }
        }
    }

    #[test]
    fn chips_that_were_moved_are_no_cells() {
        let shifted = Cut { chip_px: 64, stride_px: 64, edges: Edges::Shift };
        assert!(cells(shifted, 300, 200).1.is_none());
        // Nothing had to be moved.
        assert!(cells(shifted, 320, 192).1.is_some());
        assert!(cells(Cut { edges: Edges::Drop, ..shifted }, 50, 50).1.is_none());
    }
}
