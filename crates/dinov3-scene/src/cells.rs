//! Chips on a regular grid as cells of a raster.

use dinov3_geo::{AffineTransform, Crs, PixelWindow};
use dinov3_sink::FeatureGrid;

use crate::ChipGrid;
use crate::cut::RegularAxis;

/// The raster whose cells are a scene's chips. Its cells are as large as the way from chip to chip, and each lies around
/// the centre of its chip: it is the chip's own ground where chips lie side by side. On blocks of the ground its cells are
/// these, from which chips differ by up to half a pixel: so the cells of two dates are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct ChipCells {
    pub(crate) grid: FeatureGrid,
    axes: [RegularAxis; 2],
    chip_px: u32,
}

impl ChipCells {
    /// Nothing where chips are no regular grid, or are too many.
    pub(crate) fn new(chips: &ChipGrid, transform: &AffineTransform, crs: &Crs) -> Option<Self> {
        let (axes, chip_px) = (chips.regular_axes()?, chips.chip_px()?);
        let count = |axis: &RegularAxis| u32::try_from(axis.count()).ok();
        let (width_px, height_px) = (count(&axes[0])?, count(&axes[1])?);
        let transform = match axes {
            [RegularAxis::Blocks(columns), RegularAxis::Blocks(rows)] => {
                let ((x, width), (y, height)) = (columns.borders(), rows.borders());
                AffineTransform::unrotated(x, y, width, height)
            }
            [
                RegularAxis::Pixels { first_px: x_px, stride_px, .. },
                RegularAxis::Pixels { first_px: y_px, stride_px: down_px, .. },
            ] => {
                let before =
                    |start_px: i64, stride_px: u32| start_px as f64 + (f64::from(chip_px) - f64::from(stride_px)) / 2.0;
                let origin = transform.with_origin_at(before(x_px, stride_px), before(y_px, down_px));
                origin.with_pixels_scaled_by(stride_px.into(), down_px.into())
            }
            _ => return None,
        };
        let grid = FeatureGrid { width_px, height_px, transform, crs: crs.clone() };
        Some(Self { grid, axes, chip_px })
    }

    /// Column and row of a chip.
    pub(crate) fn place(&self, chip: &PixelWindow) -> Option<(u32, u32)> {
        let place = |axis: &RegularAxis, start_px: i64| u32::try_from(axis.place(start_px, self.chip_px)?).ok();
        place(&self.axes[0], chip.x_px).zip(place(&self.axes[1], chip.y_px))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::SnappedAxis;
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
    fn blocks_of_the_ground_are_cells_that_every_scene_shares() {
        let crs = Crs::from_epsg(32633).unwrap();
        // A later date, moved by some pixels and a part of one; and one that is stored from the south.
        for (x, y, down) in
            [(399_960.0, 4_200_000.0, -10.0), (399_903.7, 4_199_888.1, -10.0), (399_960.0, 4_195_000.0, 10.0)]
        {
            let axis = |origin: f64, pixel: f64| SnappedAxis::new(origin, pixel, 640.0, 64, 500, true);
            let chips = ChipGrid::of_blocks(axis(x, 10.0), axis(y, down), 64, 200);
            let transform = AffineTransform::unrotated(x, y, 10.0, down);
            let cells = ChipCells::new(&chips, &transform, &crs).unwrap();
            let grid = cells.grid.transform;
            assert_eq!((grid.a, grid.e, grid.c % 640.0, grid.f % 640.0), (640.0, 64.0 * down, 0.0, 0.0));
            let mut seen = std::collections::BTreeSet::new();
            for index in 0..chips.len() {
                let window = chips.window(index);
                let (column, row) = cells.place(&window).unwrap();
                assert!(column < cells.grid.width_px && row < cells.grid.height_px && seen.insert((column, row)));
                let (left, top) = transform.apply(window.x_px as f64, window.y_px as f64);
                let (own_left, own_top) = grid.apply(column.into(), row.into());
                assert!((left - own_left).abs() <= 5.01 && (top - own_top).abs() <= 5.01, "{window:?} {column} {row}");
            }
            assert_eq!(seen.len() as u32, cells.grid.width_px * cells.grid.height_px);
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
