//! The places of a map: windows of a scene, each with a vector.

use dinov3_geo::PixelWindow;

use crate::error::MapError;

/// Starts this close to each other are one column (or row): a grid that was snapped to pixels may be off by one.
const SAME_START_PX: i64 = 1;

/// A grid may have so many times more places than there are cells, and is still one: parts of a scene without data.
const SPARSEST_GRID: usize = 64;

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Names it, among all places of the map.
    pub id: String,
    /// The part of it that lies in the scene, in pixels.
    pub window: PixelWindow,
}

/// The places of a map and their vectors, whatever they are: chips or patches.
#[derive(Clone, Debug)]
pub struct MapCells {
    cells: Vec<Cell>,
    dims: usize,
    vectors: Vec<f32>,
}

impl MapCells {
    /// Places with vectors `[cells, dims]`, row after row.
    ///
    /// # Errors
    /// If there is none, the numbers do not fit, or a vector is not finite.
    pub fn new(cells: Vec<Cell>, dims: usize, vectors: Vec<f32>) -> Result<Self, MapError> {
        if cells.is_empty() || dims == 0 {
            return Err(MapError::NoCells);
        }
        if cells.len().checked_mul(dims) != Some(vectors.len()) {
            return Err(MapError::Count { cells: cells.len(), dims, values: vectors.len() });
        }
        if let Some(at) = vectors.iter().position(|value| !value.is_finite()) {
            let id = cells[at / dims].id.clone();
            return Err(MapError::NotFinite { id, value: vectors[at], dimension: at % dims });
        }
        for Cell { id, window } in &cells {
            let ends = [window.x_px, window.y_px, window.right_px(), window.bottom_px()];
            if ends.iter().any(|&end| i32::try_from(end).is_err()) {
                return Err(MapError::Window { id: id.clone(), x_px: window.x_px, y_px: window.y_px });
            }
        }
        Ok(Self { cells, dims, vectors })
    }

    /// The places.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Dimensions of a vector.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// `[cells, dims]`.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// The part of each place that is painted: all of it, or, where places overlap on a grid, what is nearest to it.
    pub(crate) fn shown(&self) -> Vec<PixelWindow> {
        let columns = Axis::new(self.cells.iter().map(|cell| (cell.window.x_px, cell.window.right_px())));
        let rows = Axis::new(self.cells.iter().map(|cell| (cell.window.y_px, cell.window.bottom_px())));
        let own = |cell: &Cell| cell.window;
        if columns.len().saturating_mul(rows.len()) > SPARSEST_GRID.saturating_mul(self.cells.len()) {
            return self.cells.iter().map(own).collect();
        }
        let part = |cell: &Cell| {
            let (left, right) = columns.part(cell.window.x_px, cell.window.right_px());
            let (top, bottom) = rows.part(cell.window.y_px, cell.window.bottom_px());
            PixelWindow::new(left, top, (right - left) as u32, (bottom - top) as u32)
        };
        self.cells.iter().map(part).collect()
    }
}

/// The columns (or rows) of a grid: where each starts and ends.
struct Axis(Vec<(i64, i64)>);

impl Axis {
    fn new(spans: impl Iterator<Item = (i64, i64)>) -> Self {
        let mut all: Vec<_> = spans.collect();
        all.sort_unstable();
        let mut axis: Vec<(i64, i64)> = Vec::new();
        for (start, end) in all {
            match axis.last_mut() {
                Some(last) if start - last.0 <= SAME_START_PX => last.1 = last.1.max(end),
                _ => axis.push((start, end)),
            }
        }
        Self(axis)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// What a place that covers this shows: neighbours that overlap share the overlap by halves.
    fn part(&self, start: i64, end: i64) -> (i64, i64) {
        let at = self.0.partition_point(|&(other, _)| other + SAME_START_PX < start).min(self.0.len() - 1);
        let border = |left: (i64, i64), right: (i64, i64)| (left.1 > right.0).then_some((left.1 + right.0) / 2);
        let before = at.checked_sub(1).and_then(|left| border(self.0[left], self.0[at]));
        let after = self.0.get(at + 1).and_then(|&right| border(self.0[at], right));
        let left = before.map_or(start, |border| border.clamp(start, end - 1));
        (left, after.map_or(end, |border| border.clamp(left + 1, end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(windows: &[(i64, i64, u32, u32)]) -> MapCells {
        let cell = |&(x, y, width, height): &(i64, i64, u32, u32)| Cell {
            id: format!("s#xywh={x},{y},{width},{height}"),
            window: PixelWindow::new(x, y, width, height),
        };
        MapCells::new(windows.iter().map(cell).collect(), 1, vec![1.0; windows.len()]).unwrap()
    }

    fn shown(windows: &[(i64, i64, u32, u32)]) -> Vec<(i64, i64, u32, u32)> {
        let tuple = |window: &PixelWindow| (window.x_px, window.y_px, window.width_px, window.height_px);
        cells(windows).shown().iter().map(tuple).collect()
    }

    #[test]
    fn chips_side_by_side_are_shown_whole() {
        let windows = [(0, 0, 256, 256), (256, 0, 100, 256), (0, 256, 256, 30), (256, 256, 100, 30)];
        assert_eq!(shown(&windows), windows);
    }

    #[test]
    fn overlaps_are_shared_by_halves() {
        assert_eq!(
            shown(&[(0, 0, 64, 64), (32, 0, 64, 64), (64, 0, 64, 64), (96, 0, 32, 64)]),
            [(0, 0, 48, 64), (48, 0, 32, 64), (80, 0, 32, 64), (112, 0, 16, 64)]
        );
    }

    #[test]
    fn a_grid_that_was_snapped_to_pixels_is_a_grid() {
        let found = shown(&[(0, 0, 50, 50), (50, 0, 50, 50), (0, 51, 50, 50), (51, 50, 50, 50)]);
        assert!(found.iter().all(|&(.., width, height)| width >= 48 && height >= 48), "{found:?}");
    }

    #[test]
    fn gaps_stay_gaps() {
        let windows = [(0, 0, 16, 16), (64, 0, 16, 16), (0, 128, 16, 16)];
        assert_eq!(shown(&windows), windows);
    }

    #[test]
    fn wrong_vectors_are_errors() {
        let cell = Cell { id: "a".to_owned(), window: PixelWindow::new(0, 0, 1, 1) };
        assert!(matches!(MapCells::new(vec![], 3, vec![]), Err(MapError::NoCells)));
        assert!(matches!(MapCells::new(vec![cell.clone()], 3, vec![0.0; 2]), Err(MapError::Count { values: 2, .. })));
        let nan = MapCells::new(vec![cell.clone()], 2, vec![0.0, f32::NAN]);
        assert!(matches!(nan, Err(MapError::NotFinite { dimension: 1, .. })));
        let far = Cell { window: PixelWindow::new(1 << 31, 0, 1, 1), ..cell };
        assert!(matches!(MapCells::new(vec![far], 1, vec![1.0]), Err(MapError::Window { .. })));
    }
}
