//! Which windows of a scene are its chips.

use std::ops::Range;

use dinov3_geo::{MajorTomCell, PixelWindow};

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
#[derive(Clone, Debug, PartialEq)]
pub struct ChipGrid {
    layout: Layout,
    /// Those of the layout that are chips; all, where there is none.
    selected: Option<Selection>,
}

#[derive(Clone, Debug, PartialEq)]
enum Layout {
    /// Columns and rows.
    Lattice { columns: Axis, rows: Axis, chip_px: u32, strip_columns: u64 },
    /// Anywhere, in the order of [`reading_order`].
    Cells { cells: Vec<Cell>, strip_px: i64 },
}

/// Where chips start along a side.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Axis {
    Even { cut: Cut, length_px: u32 },
    Snapped(SnappedAxis),
}

/// A chip on a cell of a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub window: PixelWindow,
    pub cell: MajorTomCell,
}

/// Chips along a side that start at the pixels nearest to the borders of blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SnappedAxis {
    /// Coordinate of the scene's first border, and from pixel to pixel.
    origin: f64,
    pixel: f64,
    /// Block `i` reaches from `i * side` to `(i + 1) * side`.
    side: f64,
    /// The first block in the order of pixels, and how many.
    first: i64,
    count: u64,
}

impl SnappedAxis {
    /// The blocks that a side of `length_px` meets, or only those that it holds.
    pub(crate) fn new(origin: f64, pixel: f64, side: f64, chip_px: u32, length_px: u32, keeps_partial: bool) -> Self {
        let length = i64::from(length_px);
        let is_met = |axis: &Self, at: i64| {
            let (start, end) = (axis.start_of(at), axis.start_of(at) + i64::from(chip_px));
            if keeps_partial { start < length && end > 0 } else { start >= 0 && end <= length }
        };
        let block = |at: f64| ((origin + pixel * at) / side).floor() as i64;
        let mut axis = Self { origin, pixel, side, first: block(0.0), count: 0 };
        // One more at either end, because borders move to pixels.
        let step = axis.step();
        axis.first -= step;
        let last = block(f64::from(length_px)) + step;
        while axis.first != last && !is_met(&axis, axis.first) {
            axis.first += step;
        }
        let mut end = last;
        while end != axis.first && !is_met(&axis, end) {
            end -= step;
        }
        if is_met(&axis, axis.first) {
            axis.count = end.abs_diff(axis.first) + 1;
        }
        axis
    }

    /// From block to block in the order of pixels.
    fn step(&self) -> i64 {
        if self.pixel < 0.0 { -1 } else { 1 }
    }

    /// Coordinate of the first border in the order of pixels, and from border to border: exact multiples of the side, so
    /// that they are the same for every scene.
    pub(crate) fn borders(&self) -> (f64, f64) {
        let first = if self.pixel < 0.0 { self.first.saturating_add(1) } else { self.first };
        (first as f64 * self.side, self.side * self.step() as f64)
    }

    /// The first pixel of a block.
    fn start_of(&self, block: i64) -> i64 {
        let border = if self.pixel < 0.0 { block.saturating_add(1) } else { block };
        snapped((border as f64 * self.side - self.origin) / self.pixel)
    }

    fn start(&self, index: u64) -> i64 {
        self.start_of(self.first + index as i64 * self.step())
    }
}

/// The border of pixels nearest to a place; of two the earlier one, also where rounding puts it a little beyond the middle.
pub(crate) fn snapped(at: f64) -> i64 {
    (at - 0.5 - 1e-6).ceil() as i64
}

impl RegularAxis {
    /// How many chips.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Pixels { count, .. } => *count,
            Self::Blocks(axis) => axis.count,
        }
    }

    /// Which of them a chip of so many pixels is that starts here.
    pub(crate) fn place(&self, start_px: i64, chip_px: u32) -> Option<u64> {
        match self {
            Self::Pixels { first_px, stride_px, .. } => {
                u64::try_from((start_px - first_px) / i64::from(*stride_px)).ok()
            }
            Self::Blocks(axis) => {
                // Moved by half a pixel, its middle stays in its block.
                let middle = start_px as f64 + f64::from(chip_px) / 2.0;
                let block = ((axis.origin + axis.pixel * middle) / axis.side).floor() as i64;
                u64::try_from((block - axis.first) * axis.step()).ok()
            }
        }
    }
}

impl Axis {
    /// Nothing if there are none, or if they do not lie one step apart.
    fn regular(&self) -> Option<RegularAxis> {
        let regular = match self {
            Self::Even { cut, length_px } => {
                let count = cut.count(*length_px);
                let last = count.saturating_sub(1);
                if cut.start(last, *length_px) != (last * cut.stride()) as i64 {
                    return None;
                }
                RegularAxis::Pixels { first_px: 0, stride_px: cut.stride_px.max(1), count }
            }
            Self::Snapped(axis) => RegularAxis::Blocks(*axis),
        };
        (regular.count() > 0).then_some(regular)
    }

    fn count(&self) -> u64 {
        match self {
            Self::Even { cut, length_px } => cut.count(*length_px),
            Self::Snapped(axis) => axis.count,
        }
    }

    fn start(&self, index: u64) -> i64 {
        match self {
            Self::Even { cut, length_px } => cut.start(index, *length_px),
            Self::Snapped(axis) => axis.start(index),
        }
    }
}

/// Where chips lie along a side of a scene, all of them one step apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RegularAxis {
    /// In pixels: where the first one starts, the way to the next, and how many there are.
    Pixels { first_px: i64, stride_px: u32, count: u64 },
    /// On the ground: each starts at the pixel nearest to its block.
    Blocks(SnappedAxis),
}

/// How much is known of the chips in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    None,
    Some,
    All,
}

/// Runs of numbers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Selection {
    /// Where each run starts, and how many numbers there are before it.
    runs: Vec<(u64, u64)>,
    length: u64,
}

impl Selection {
    fn push(&mut self, range: Range<u64>) {
        let continues = self.runs.last().is_some_and(|(start, before)| start + (self.length - before) == range.start);
        if !continues {
            self.runs.push((range.start, self.length));
        }
        self.length += range.end - range.start;
    }

    fn get(&self, index: u64) -> u64 {
        let run = self.runs.partition_point(|(_, before)| *before <= index).saturating_sub(1);
        self.runs.get(run).map_or(index, |(start, before)| start + (index - before))
    }
}

impl ChipGrid {
    /// The chips of a scene of this size, in strips of `strip_px` columns.
    pub fn new(cut: Cut, width_px: u32, height_px: u32, strip_px: u32) -> Self {
        let axis = |length_px: u32| Axis::Even { cut, length_px };
        Self::lattice(axis(width_px), axis(height_px), cut.chip() as u32, u64::from(strip_px) / cut.stride())
    }

    /// Chips on blocks.
    pub(crate) fn of_blocks(columns: SnappedAxis, rows: SnappedAxis, chip_px: u32, strip_px: u32) -> Self {
        let strip_columns = u64::from(strip_px / chip_px.max(1));
        Self::lattice(Axis::Snapped(columns), Axis::Snapped(rows), chip_px, strip_columns)
    }

    fn lattice(columns: Axis, rows: Axis, chip_px: u32, strip_columns: u64) -> Self {
        let strip_columns = strip_columns.clamp(1, columns.count().max(1));
        Self { layout: Layout::Lattice { columns, rows, chip_px, strip_columns }, selected: None }
    }

    /// Chips on cells.
    pub(crate) fn of_cells(mut cells: Vec<Cell>, strip_px: u32) -> Self {
        let strip_px = i64::from(strip_px.max(1));
        cells.sort_by_key(|cell| reading_order(&cell.window, strip_px));
        Self { layout: Layout::Cells { cells, strip_px }, selected: None }
    }

    /// The number of chips.
    pub fn len(&self) -> u64 {
        self.selected.as_ref().map_or_else(|| self.layout.len(), |selected| selected.length)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns and rows of chips, chosen or not, where they make a regular grid; nothing where they do not, as on the
    /// cells of Major TOM, or where some were moved inwards.
    pub(crate) fn regular_axes(&self) -> Option<[RegularAxis; 2]> {
        let Layout::Lattice { columns, rows, .. } = &self.layout else { return None };
        columns.regular().zip(rows.regular()).map(|(columns, rows)| [columns, rows])
    }

    /// Side of a chip in pixels, where all are alike.
    pub(crate) fn chip_px(&self) -> Option<u32> {
        match &self.layout {
            Layout::Lattice { chip_px, .. } => Some(*chip_px),
            Layout::Cells { .. } => None,
        }
    }

    /// Chip `index`; it may reach beyond the scene at the right and at the bottom, on the cells of a grid at any side.
    pub fn window(&self, index: u64) -> PixelWindow {
        self.layout.window(self.selected.as_ref().map_or(index, |selected| selected.get(index)))
    }

    /// The cell that a chip was cut on, where chips are cut on cells.
    pub(crate) fn cell_of(&self, chip: &PixelWindow) -> Option<MajorTomCell> {
        let Layout::Cells { cells, strip_px } = &self.layout else { return None };
        let order = |window: &PixelWindow| reading_order(window, *strip_px);
        let at = cells.binary_search_by_key(&order(chip), |cell| order(&cell.window)).ok()?;
        Some(cells[at].cell)
    }

    /// Keeps the chips that `choose` takes. It is asked of windows around many chips first, and of those of which it takes
    /// some, of ever smaller ones; `true` says that the window is a single chip.
    pub(crate) fn select(mut self, choose: &mut dyn FnMut(PixelWindow, bool) -> Choice) -> Self {
        let mut selection = Selection::default();
        self.layout.select(0..self.layout.len(), choose, &mut selection);
        self.selected = Some(selection);
        self
    }
}

/// By strips, then rows: the order of a lattice.
fn reading_order(window: &PixelWindow, strip_px: i64) -> (i64, i64, i64) {
    (window.x_px.div_euclid(strip_px), window.y_px, window.x_px)
}

impl Layout {
    fn len(&self) -> u64 {
        match self {
            Self::Lattice { columns, rows, .. } => columns.count() * rows.count(),
            Self::Cells { cells, .. } => cells.len() as u64,
        }
    }

    fn window(&self, index: u64) -> PixelWindow {
        match self {
            Self::Lattice { columns, rows, chip_px, .. } => {
                let place = self.place(index);
                PixelWindow::new(columns.start(place.column), rows.start(place.row), *chip_px, *chip_px)
            }
            Self::Cells { cells, .. } => {
                cells.get(index as usize).map_or(PixelWindow::new(0, 0, 0, 0), |cell| cell.window)
            }
        }
    }

    /// Where in a lattice a chip is.
    fn place(&self, index: u64) -> Place {
        let Self::Lattice { columns, rows, strip_columns, .. } = self else { return Place::default() };
        let per_strip = strip_columns * rows.count().max(1);
        let strip = index / per_strip;
        let first_column = strip * strip_columns;
        let strip_columns = (*strip_columns).min(columns.count().saturating_sub(first_column)).max(1);
        let inside = index % per_strip;
        let (row, column) = (inside / strip_columns, first_column + inside % strip_columns);
        Place { strip, row, column, strip_start: strip * per_strip, first_column, strip_columns }
    }

    /// A window around some chips.
    fn around(&self, range: &Range<u64>) -> PixelWindow {
        let corners = |windows: &mut dyn Iterator<Item = PixelWindow>| {
            let ends = (i64::MAX, i64::MAX, i64::MIN, i64::MIN);
            let (left, top, right, bottom) = windows.fold(ends, |(left, top, right, bottom), window| {
                let (right, bottom) = (right.max(window.right_px()), bottom.max(window.bottom_px()));
                (left.min(window.x_px), top.min(window.y_px), right, bottom)
            });
            let length = |from: i64, to: i64| u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
            PixelWindow::new(left, top, length(left, right), length(top, bottom))
        };
        let Self::Lattice { columns, rows, chip_px, .. } = self else {
            return corners(&mut range.clone().map(|index| self.window(index)));
        };
        let (first, last) = (self.place(range.start), self.place(range.end - 1));
        let (top, bottom) = match first.strip == last.strip {
            true => (first.row, last.row),
            false => (0, rows.count() - 1),
        };
        let (left, right) = match first.strip == last.strip && first.row == last.row {
            true => (first.column, last.column),
            false => (first.first_column, last.first_column + last.strip_columns - 1),
        };
        let window =
            |column: u64, row: u64| PixelWindow::new(columns.start(column), rows.start(row), *chip_px, *chip_px);
        corners(&mut [window(left, top), window(right, bottom)].into_iter())
    }

    /// Where to divide a run, so that its halves lie in small windows: between strips, else between rows.
    fn middle(&self, range: &Range<u64>) -> u64 {
        let middle = range.start + (range.end - range.start) / 2;
        let Self::Lattice { .. } = self else { return middle };
        let (first, last, place) = (self.place(range.start), self.place(range.end - 1), self.place(middle));
        let row = place.strip_start + place.row * place.strip_columns;
        let border = match (first.strip == last.strip, first.row == last.row) {
            (false, _) if place.strip_start > range.start => place.strip_start,
            // The first strip is the longer part: up to the next one.
            (false, _) => self.place(range.end - 1).strip_start,
            (true, false) if row > range.start => row,
            (true, false) => row + place.strip_columns,
            (true, true) => middle,
        };
        border.clamp(range.start + 1, range.end - 1)
    }

    fn select(
        &self,
        range: Range<u64>,
        choose: &mut dyn FnMut(PixelWindow, bool) -> Choice,
        selection: &mut Selection,
    ) {
        if range.is_empty() {
            return;
        }
        let is_single = range.end - range.start == 1;
        match choose(self.around(&range), is_single) {
            Choice::None => {}
            Choice::Some if !is_single => {
                // The depth is that of a balanced tree, but for the strips.
                let middle = self.middle(&range);
                self.select(range.start..middle, choose, selection);
                self.select(middle..range.end, choose, selection);
            }
            _ => selection.push(range),
        }
    }
}

/// A chip of a lattice.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    strip: u64,
    row: u64,
    column: u64,
    /// The number of the strip's first chip, its first column, and how many it has.
    strip_start: u64,
    first_column: u64,
    strip_columns: u64,
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

    #[test]
    fn blocks_start_at_the_pixel_nearest_to_their_border() {
        // Pixels of 10 m, northing downwards, blocks of 2560 m.
        let starts = |axis: SnappedAxis| -> Vec<i64> { (0..axis.count).map(|index| axis.start(index)).collect() };
        let columns = SnappedAxis::new(399_960.0, 10.0, 2560.0, 256, 600, true);
        // 156 * 2560 is 399360: 60 pixels before the scene.
        assert_eq!((columns.first, starts(columns)), (156, vec![-60, 196, 452]));
        let rows = SnappedAxis::new(4_200_000.0, -10.0, 2560.0, 256, 600, true);
        // 1641 * 2560 is 4200960: 96 pixels above.
        assert_eq!((rows.first, starts(rows)), (1640, vec![-96, 160, 416]));
        assert_eq!(starts(SnappedAxis::new(399_960.0, 10.0, 2560.0, 256, 600, false)), [196]);
        assert_eq!(starts(SnappedAxis::new(399_360.0, 10.0, 2560.0, 256, 512, true)), [0, 256]);
        assert_eq!(starts(SnappedAxis::new(399_370.0, 10.0, 2560.0, 256, 100, false)), [0_i64; 0]);
        // A second date, moved by less than half a pixel, has the same windows; by more, the next pixel.
        assert_eq!(starts(SnappedAxis::new(399_964.9, 10.0, 2560.0, 256, 600, true)), [-60, 196, 452]);
        assert_eq!(starts(SnappedAxis::new(399_965.1, 10.0, 2560.0, 256, 600, true)), [-61, 195, 451]);
        assert_eq!((snapped(2.5), snapped(2.5 + 1e-9), snapped(2.51), snapped(-0.5)), (2, 2, 3, -1));
    }

    #[test]
    fn a_selection_keeps_order_and_random_access() {
        let cut = Cut { chip_px: 64, stride_px: 48, edges: Edges::Pad };
        let wanted = PixelWindow::new(300, 70, 333, 90);
        for strip_px in [1, 48, 100, 480, 5000] {
            let grid = ChipGrid::new(cut, 1000, 333, strip_px);
            let all = (0..grid.len()).map(|index| grid.window(index));
            let expected: Vec<PixelWindow> = all.filter(|chip| chip.intersection(&wanted).is_some()).collect();
            let mut questions = 0;
            let selected = grid.clone().select(&mut |window, _| {
                questions += 1;
                match window.intersection(&wanted) {
                    None => Choice::None,
                    Some(common) if common == window => Choice::All,
                    Some(_) => Choice::Some,
                }
            });
            let found: Vec<PixelWindow> = (0..selected.len()).map(|index| selected.window(index)).collect();
            assert_eq!(found, expected, "{strip_px}");
            assert!(questions < 2 * grid.len(), "{strip_px}: {questions} of {}", grid.len());
            assert!(grid.select(&mut |_, _| Choice::None).is_empty());
        }
    }

    #[test]
    fn a_selection_in_a_large_grid_asks_few_questions() {
        let cut = Cut { chip_px: 256, stride_px: 256, edges: Edges::Pad };
        let grid = ChipGrid::new(cut, 100_000, 100_000, 20_000);
        let wanted = PixelWindow::new(50_000, 50_000, 3000, 3000);
        let mut questions = 0;
        let selected = grid.select(&mut |window, _| {
            questions += 1;
            if window.intersection(&wanted).is_some() { Choice::Some } else { Choice::None }
        });
        assert_eq!(selected.len(), 13 * 13);
        assert!(questions < 2000, "{questions}");
    }

    #[test]
    fn cells_are_read_in_strips_and_found_again() {
        let at = |x_px: i64, y_px: i64| PixelWindow::new(x_px, y_px, 64, 64);
        let cells: Vec<Cell> = [(500, 5), (-10, 90), (40, 3), (470, 2), (0, 3)]
            .into_iter()
            .zip(0..)
            .map(|((x, y), row)| Cell { window: at(x, y), cell: MajorTomCell { row, column: 1 } })
            .collect();
        let grid = ChipGrid::of_cells(cells.clone(), 400);
        let windows: Vec<PixelWindow> = (0..grid.len()).map(|index| grid.window(index)).collect();
        assert_eq!(windows, [at(-10, 90), at(0, 3), at(40, 3), at(470, 2), at(500, 5)]);
        for cell in &cells {
            assert_eq!(grid.cell_of(&cell.window), Some(cell.cell));
        }
        assert_eq!(grid.cell_of(&at(1, 1)), None);
        let right = PixelWindow::new(450, 0, 100, 100);
        let selected = grid.select(&mut |window, is_single| match window.intersection(&right) {
            Some(_) if is_single => Choice::All,
            Some(_) => Choice::Some,
            None => Choice::None,
        });
        assert_eq!((selected.len(), selected.window(0)), (2, at(470, 2)));
    }
}
