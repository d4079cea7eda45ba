//! Which windows of a scene are its chips.

use dinov3_geo::PixelWindow;

/// What becomes of chips that reach beyond the scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Edges {
    /// They are filled up with the scene's mirror image, as `numpy.pad(mode="reflect")` does.
    Pad,
    /// They are left out.
    Drop,
    /// They are moved inwards until they fit; a scene smaller than a chip is filled up.
    Shift,
}

impl Edges {
    /// The name on the command line and in provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pad => "pad",
            Self::Drop => "drop",
            Self::Shift => "shift",
        }
    }
}

/// How a scene is cut into square chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Side of a chip in pixels of the scene; 0 counts as 1.
    pub chip_px: u32,
    /// From the start of one chip to that of the next, in pixels; less than `chip_px` makes chips overlap, more leaves
    /// gaps. 0 counts as 1.
    pub stride_px: u32,
    /// What becomes of chips that reach beyond the scene.
    pub edges: Edges,
}

impl Cut {
    fn stride(&self) -> u64 {
        u64::from(self.stride_px.max(1))
    }

    fn chip(&self) -> u64 {
        u64::from(self.chip_px.max(1))
    }

    /// Chips along a side of `length_px`.
    fn count(&self, length_px: u32) -> u64 {
        let length = u64::from(length_px);
        let Some(beyond) = length.checked_sub(self.chip()) else {
            return u64::from(self.edges != Edges::Drop && length > 0);
        };
        match self.edges {
            Edges::Drop => beyond / self.stride() + 1,
            // Not where a chip would start beyond the end: after a gap.
            _ => (beyond.div_ceil(self.stride()) + 1).min(length.div_ceil(self.stride())),
        }
    }

    /// First pixel of chip `index` along a side of `length_px`.
    fn start(&self, index: u64, length_px: u32) -> i64 {
        let start = index * self.stride();
        let last = u64::from(length_px).saturating_sub(self.chip());
        (if self.edges == Edges::Shift { start.min(last) } else { start }) as i64
    }
}

/// The chips of a scene, numbered in the order in which they are read: row by row, in vertical strips where the blocks of a
/// whole row would not stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChipGrid {
    cut: Cut,
    width_px: u32,
    height_px: u32,
    columns: u64,
    rows: u64,
    strip_columns: u64,
}

impl ChipGrid {
    /// The chips of a scene of this size, in strips of `strip_px` columns.
    pub fn new(cut: Cut, width_px: u32, height_px: u32, strip_px: u32) -> Self {
        let (columns, rows) = (cut.count(width_px), cut.count(height_px));
        let strip_columns = (u64::from(strip_px) / cut.stride()).clamp(1, columns.max(1));
        Self { cut, width_px, height_px, columns, rows, strip_columns }
    }

    /// The number of chips.
    pub fn len(&self) -> u64 {
        self.columns * self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Columns and rows of chips.
    pub fn size(&self) -> (u64, u64) {
        (self.columns, self.rows)
    }

    /// How chips were cut.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// Whether all chips are one stride apart: none was moved inwards.
    pub fn is_regular(&self) -> bool {
        let last = |count: u64, length_px: u32| {
            let last = count.saturating_sub(1);
            self.cut.start(last, length_px) == (last * self.cut.stride()) as i64
        };
        last(self.columns, self.width_px) && last(self.rows, self.height_px)
    }

    /// Chip `index`; it may reach beyond the scene at the right and at the bottom.
    pub fn window(&self, index: u64) -> PixelWindow {
        let per_strip = self.strip_columns * self.rows.max(1);
        let strip = index / per_strip;
        let first_column = strip * self.strip_columns;
        let columns = self.strip_columns.min(self.columns.saturating_sub(first_column)).max(1);
        let inside = index % per_strip;
        let (row, column) = (inside / columns, first_column + inside % columns);
        let side = self.cut.chip() as u32;
        PixelWindow::new(self.cut.start(column, self.width_px), self.cut.start(row, self.height_px), side, side)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn starts(chip_px: u32, stride_px: u32, edges: Edges, length_px: u32) -> Vec<i64> {
        let cut = Cut { chip_px, stride_px, edges };
        (0..cut.count(length_px)).map(|index| cut.start(index, length_px)).collect()
    }

    #[test]
    fn edges_are_padded_dropped_or_shifted() {
        assert_eq!(starts(256, 256, Edges::Pad, 600), [0, 256, 512]);
        assert_eq!(starts(256, 256, Edges::Drop, 600), [0, 256]);
        assert_eq!(starts(256, 256, Edges::Shift, 600), [0, 256, 344]);
        for edges in [Edges::Pad, Edges::Drop, Edges::Shift] {
            assert_eq!(starts(256, 256, edges, 512), [0, 256], "{edges:?}");
            assert_eq!(starts(256, 128, edges, 512), [0, 128, 256], "{edges:?}");
        }
        assert_eq!(starts(256, 128, Edges::Pad, 520), [0, 128, 256, 384]);
    }

    #[test]
    fn a_scene_smaller_than_a_chip_is_one_padded_chip() {
        assert_eq!(starts(256, 256, Edges::Pad, 100), [0]);
        assert_eq!(starts(256, 256, Edges::Shift, 100), [0]);
        assert!(starts(256, 256, Edges::Drop, 100).is_empty());
        assert!(starts(256, 256, Edges::Pad, 0).is_empty());
    }

    #[test]
    fn no_chip_starts_beyond_the_scene_where_the_stride_leaves_gaps() {
        assert_eq!(starts(100, 300, Edges::Pad, 590), [0, 300]);
        assert_eq!(starts(100, 300, Edges::Pad, 601), [0, 300, 600]);
        assert_eq!(starts(1, u32::MAX, Edges::Pad, u32::MAX), [0]);
    }

    #[test]
    fn strips_change_the_order_and_not_the_chips() {
        let cut = Cut { chip_px: 64, stride_px: 48, edges: Edges::Pad };
        let windows = |strip_px: u32| -> Vec<PixelWindow> {
            let grid = ChipGrid::new(cut, 1000, 333, strip_px);
            (0..grid.len()).map(|index| grid.window(index)).collect()
        };
        let whole = windows(u32::MAX);
        assert_eq!(whole[1], PixelWindow::new(48, 0, 64, 64));
        let all: BTreeSet<_> = whole.iter().copied().collect();
        assert_eq!(all.len(), whole.len());
        for strip_px in [0, 48, 100, 480, 999] {
            let strips = windows(strip_px);
            assert_eq!(strips.len(), whole.len());
            assert_eq!(strips.into_iter().collect::<BTreeSet<_>>(), all, "{strip_px}");
        }
        assert_eq!(windows(96)[2], PixelWindow::new(0, 48, 64, 64));
    }

    #[test]
    fn the_largest_scene_has_numbers_that_fit() {
        let cut = Cut { chip_px: 1, stride_px: 1, edges: Edges::Pad };
        let grid = ChipGrid::new(cut, u32::MAX, u32::MAX, u32::MAX);
        let last = grid.window(grid.len() - 1);
        assert_eq!((last.x_px, last.y_px), (i64::from(u32::MAX) - 1, i64::from(u32::MAX) - 1));
    }
}
