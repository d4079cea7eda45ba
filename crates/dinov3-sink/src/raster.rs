//! The seam between what makes rasters of features and the files that they become.
//!
//! A raster of features is asked for blocks, in whatever order its file needs them: tiles, shards, rows. Who writes files
//! asks from top to bottom, and for each cell once per pass; a raster may be read in several passes, so that a basis can be
//! fitted before it is used.

use dinov3_geo::{AffineTransform, Crs, PixelWindow};
use dinov3_pca::Pca;

use crate::error::OutputError;

/// Where the cells of a raster lie. Its pixels are its cells.
#[derive(Clone, Debug)]
pub struct FeatureGrid {
    /// Columns of cells.
    pub width_px: u32,
    /// Rows of cells.
    pub height_px: u32,
    /// From cells to coordinates; (0, 0) is the outer corner of the first cell.
    pub transform: AffineTransform,
    /// The reference system of these coordinates.
    pub crs: Crs,
}

impl FeatureGrid {
    /// The whole raster as a window.
    pub fn window(&self) -> PixelWindow {
        PixelWindow::of_grid(self.width_px, self.height_px)
    }

    /// Blocks of this size that cover the raster, row by row from the top; those at the right and lower edge are smaller.
    pub fn blocks(&self, width_px: u32, height_px: u32) -> impl Iterator<Item = PixelWindow> + use<> {
        blocks_of(self.window(), width_px, height_px)
    }

    /// The same cells from the north, and whether that turns them over: those that are stored from the south. Rotated ones
    /// stay as they are.
    pub fn north_up(&self) -> (Self, bool) {
        let transform = self.transform;
        let is_turned = !transform.is_rotated() && transform.e > 0.0;
        let mut grid = self.clone();
        if is_turned {
            let (_, top) = transform.apply(0.0, f64::from(self.height_px));
            grid.transform = AffineTransform { e: -transform.e, f: top, ..transform };
        }
        (grid, is_turned)
    }

    /// Blocks that cover the raster, from the top, of as many cells as are well read at once if each has so many values.
    pub fn pieces(&self, dims: usize) -> impl Iterator<Item = PixelWindow> + use<> {
        pieces_of(self.window(), dims)
    }
}

fn blocks_of(whole: PixelWindow, width_px: u32, height_px: u32) -> impl Iterator<Item = PixelWindow> {
    let (width_px, height_px) = (width_px.max(1), height_px.max(1));
    let starts =
        |start: i64, length: u32, step: u32| (0..length).step_by(step as usize).map(move |at| start + i64::from(at));
    starts(whole.y_px, whole.height_px, height_px).flat_map(move |y_px| {
        starts(whole.x_px, whole.width_px, width_px)
            .filter_map(move |x_px| PixelWindow::new(x_px, y_px, width_px, height_px).intersection(&whole))
    })
}

/// Not lower than a window of patches, where it can be avoided: a window is read again for each piece that it meets.
fn pieces_of(whole: PixelWindow, dims: usize) -> impl Iterator<Item = PixelWindow> {
    const LEAST_ROWS: usize = 32;
    let cells = (PIECE_VALUES / dims.max(1)).max(1);
    let width = (whole.width_px as usize).min((cells / LEAST_ROWS).max(1));
    blocks_of(whole, width as u32, (cells / width.max(1)).clamp(1, u32::MAX as usize) as u32)
}

/// Values that are read at once: 16 MB, and as much again where they are made.
const PIECE_VALUES: usize = 4 << 20;

/// The vectors of a window of cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureBlock {
    /// Columns of cells.
    pub width_px: u32,
    /// Rows of cells.
    pub height_px: u32,
    /// `[height_px, width_px, D]`: one vector per cell, NaN where there is no data.
    pub values: Vec<f32>,
    /// `[height_px, width_px]`: which cells hold data.
    pub valid: Vec<bool>,
}

impl FeatureBlock {
    /// Makes it a block of this window in which no cell holds data, and keeps its memory.
    pub fn clear(&mut self, window: PixelWindow, dims: usize) {
        (self.width_px, self.height_px) = (window.width_px, window.height_px);
        let cells = window.width_px as usize * window.height_px as usize;
        self.values.clear();
        self.values.resize(cells * dims, f32::NAN);
        self.valid.clear();
        self.valid.resize(cells, false);
    }
}

/// A raster with a vector in each of its cells.
pub trait FeatureRaster {
    /// Where its cells lie.
    fn grid(&self) -> &FeatureGrid;

    /// D, the values per cell.
    fn dims(&self) -> usize;

    /// Reads a window that lies in the grid into `block`, whatever was in there. Always gives the same values.
    ///
    /// # Errors
    /// If they cannot be had: what they are made of cannot be read.
    fn read(&mut self, window: PixelWindow, block: &mut FeatureBlock) -> Result<(), OutputError>;
}

/// A raster's vectors along the directions of a basis.
pub struct ReducedRaster<'a> {
    raster: &'a mut dyn FeatureRaster,
    pca: &'a Pca,
    threads: usize,
    whole: FeatureBlock,
}

impl<'a> ReducedRaster<'a> {
    /// `pca` is a basis for vectors of the raster's length. The number of threads changes no value.
    pub fn new(raster: &'a mut dyn FeatureRaster, pca: &'a Pca, threads: usize) -> Self {
        Self { raster, pca, threads: threads.max(1), whole: FeatureBlock::default() }
    }
}

impl FeatureRaster for ReducedRaster<'_> {
    fn grid(&self) -> &FeatureGrid {
        self.raster.grid()
    }

    fn dims(&self) -> usize {
        self.pca.count()
    }

    fn read(&mut self, window: PixelWindow, block: &mut FeatureBlock) -> Result<(), OutputError> {
        let (dims, count, width) = (self.raster.dims(), self.pca.count(), window.width_px as usize);
        block.clear(window, count);
        // A block of few values per cell is one of many before it is reduced.
        for piece in pieces_of(window, dims) {
            self.raster.read(piece, &mut self.whole)?;
            let cells = self.whole.valid.len();
            let share = cells.div_ceil(self.threads).max(1);
            let mut projected = vec![0.0; cells * count];
            std::thread::scope(|scope| {
                let shares = self.whole.values.chunks(share * dims).zip(projected.chunks_mut(share * count));
                for (vectors, to) in shares {
                    let pca = self.pca;
                    scope.spawn(move || to.copy_from_slice(&pca.project(vectors)));
                }
            });
            let (first_column, first_row) = ((piece.x_px - window.x_px) as usize, (piece.y_px - window.y_px) as usize);
            let columns = piece.width_px as usize;
            for row in 0..piece.height_px as usize {
                let (from, to) = (row * columns, (first_row + row) * width + first_column);
                block.values[to * count..][..columns * count]
                    .copy_from_slice(&projected[from * count..][..columns * count]);
                block.valid[to..][..columns].copy_from_slice(&self.whole.valid[from..][..columns]);
            }
        }
        Ok(())
    }
}

/// A raster whose first row is the northernmost one: see [`FeatureGrid::north_up`].
pub struct NorthUpRaster<'a> {
    raster: &'a mut dyn FeatureRaster,
    grid: FeatureGrid,
    is_turned: bool,
}

impl<'a> NorthUpRaster<'a> {
    /// The same cells, from the north.
    pub fn new(raster: &'a mut dyn FeatureRaster) -> Self {
        let (grid, is_turned) = raster.grid().north_up();
        Self { raster, grid, is_turned }
    }
}

impl FeatureRaster for NorthUpRaster<'_> {
    fn grid(&self) -> &FeatureGrid {
        &self.grid
    }

    fn dims(&self) -> usize {
        self.raster.dims()
    }

    fn read(&mut self, window: PixelWindow, block: &mut FeatureBlock) -> Result<(), OutputError> {
        if !self.is_turned {
            return self.raster.read(window, block);
        }
        let y_px = i64::from(self.grid.height_px) - window.bottom_px();
        self.raster.read(PixelWindow { y_px, ..window }, block)?;
        let columns = window.width_px as usize;
        turn_over(&mut block.values, columns * self.raster.dims());
        turn_over(&mut block.valid, columns);
        Ok(())
    }
}

/// The last row first.
fn turn_over<T>(values: &mut [T], row: usize) {
    let rows = values.len() / row.max(1);
    for index in 0..rows / 2 {
        let (above, below) = values.split_at_mut((rows - 1 - index) * row);
        above[index * row..(index + 1) * row].swap_with_slice(&mut below[..row]);
    }
}

/// A raster in memory, for small ones and for tests.
#[derive(Clone, Debug)]
pub struct ArrayRaster {
    grid: FeatureGrid,
    dims: usize,
    values: Vec<f32>,
}

impl ArrayRaster {
    /// `values` is `[height_px, width_px, D]`; missing ones are NaN, and cells that begin with NaN hold no data.
    pub fn new(grid: FeatureGrid, dims: usize, mut values: Vec<f32>) -> Self {
        values.resize(grid.width_px as usize * grid.height_px as usize * dims, f32::NAN);
        Self { grid, dims, values }
    }
}

impl FeatureRaster for ArrayRaster {
    fn grid(&self) -> &FeatureGrid {
        &self.grid
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn read(&mut self, window: PixelWindow, block: &mut FeatureBlock) -> Result<(), OutputError> {
        block.clear(window, self.dims);
        let row_values = window.width_px as usize * self.dims;
        for (row, to) in block.values.chunks_exact_mut(row_values.max(1)).enumerate() {
            let first_cell = (window.y_px as usize + row) * self.grid.width_px as usize + window.x_px as usize;
            to.copy_from_slice(&self.values[first_cell * self.dims..][..row_values]);
        }
        for (valid, vector) in block.valid.iter_mut().zip(block.values.chunks_exact(self.dims.max(1))) {
            *valid = !vector[0].is_nan();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raster(e: f64) -> ArrayRaster {
        let transform = AffineTransform::unrotated(100.0, 1000.0, 10.0, e);
        let grid = FeatureGrid { width_px: 3, height_px: 5, transform, crs: Crs::from_epsg(32633).unwrap() };
        ArrayRaster::new(grid, 2, (0..30).map(|value| value as f32).collect())
    }

    #[test]
    fn south_up_is_turned_over() {
        let mut raster = raster(10.0);
        let mut turned = NorthUpRaster::new(&mut raster);
        assert_eq!(turned.grid().transform, AffineTransform::unrotated(100.0, 1050.0, 10.0, -10.0));
        let mut block = FeatureBlock::default();
        turned.read(PixelWindow::new(1, 0, 2, 3), &mut block).unwrap();
        assert_eq!(block.values, [26.0, 27.0, 28.0, 29.0, 20.0, 21.0, 22.0, 23.0, 14.0, 15.0, 16.0, 17.0]);
    }

    #[test]
    fn blocks_cover_the_grid() {
        let windows: Vec<_> = raster(-10.0).grid().blocks(2, 4).collect();
        let window = PixelWindow::new;
        assert_eq!(windows, [window(0, 0, 2, 4), window(2, 0, 1, 4), window(0, 4, 2, 1), window(2, 4, 1, 1)]);
    }

    #[test]
    fn a_basis_reduces_cells_and_leaves_holes() {
        let mut raster = raster(-10.0);
        raster.values[2] = f32::NAN;
        let pca = Pca::of_directions(vec![1.0, 0.0], vec![0.0, 1.0]);
        let mut reduced = ReducedRaster::new(&mut raster, &pca, 2);
        assert_eq!(reduced.dims(), 1);
        let mut block = FeatureBlock::default();
        reduced.read(PixelWindow::new(0, 0, 3, 1), &mut block).unwrap();
        assert_eq!(block.valid, [true, false, true]);
        assert_eq!((block.values[0], block.values[2]), (1.0, 5.0));
        assert!(block.values[1].is_nan());
    }
}
