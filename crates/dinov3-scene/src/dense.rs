//! Windows whose patches cover a scene without a seam: the source of a dense run.
//!
//! A cell is `step_px` pixels on a side, and its vector is that of the patch around its centre. With a step of a whole
//! patch, cells are patches. With a smaller one, several passes over the scene, each shifted by a step, give every
//! `patch_px / step_px`-th cell; windows overlap within their pass. Patches at the scene's edges reach beyond it, by less
//! than a patch, and are filled up with its mirror image.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use dinov3_engine::{Item, ItemError, Source};
use dinov3_geo::PixelWindow;
use dinov3_raster::RasterWindow;
use dinov3_sink::{FeatureGrid, PatchWindow, PatchWindows, RowName, Stamp, Stamped};

use crate::Scene;

/// Windows that are fetched ahead, and how many are announced at once.
const AHEAD: usize = 16;
const ANNOUNCED: usize = 4;

/// How a scene is covered by windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseCut {
    /// Side of a patch in pixels: the model's.
    pub patch_px: u32,
    /// Side of a window in pixels, a multiple of the patch. A smaller scene is one smaller window.
    pub window_px: u32,
    /// How far neighbouring windows overlap at least, a multiple of the patch; less than a window.
    pub overlap_px: u32,
    /// Side of a cell: the patch divided by a power of two, and even unless it is the patch.
    pub step_px: u32,
}

impl DenseCut {
    /// What is wrong with it, if something is, as a sentence.
    pub fn problem(&self) -> Option<String> {
        let Self { patch_px, window_px, overlap_px, step_px } = *self;
        let passes = patch_px.checked_div(step_px).unwrap_or(0);
        let halves = |px: u32| (1..px.ilog2()).map(|power| px >> power).map(|px| px.to_string()).collect::<Vec<_>>();
        if !passes.is_power_of_two() || passes * step_px != patch_px || !(patch_px - step_px).is_multiple_of(2) {
            let known = halves(patch_px).join(", ");
            return Some(format!("a cell can be {patch_px} pixels on a side, or {known}, and not {step_px}"));
        }
        if window_px == 0 || !window_px.is_multiple_of(patch_px) || !overlap_px.is_multiple_of(patch_px) {
            return Some(format!("windows and their overlap must be multiples of {patch_px} pixels"));
        }
        (overlap_px >= window_px).then(|| format!("an overlap of {overlap_px} pixels leaves nothing of {window_px}"))
    }

    fn passes(&self) -> u32 {
        (self.patch_px / self.step_px.max(1)).max(1)
    }

    /// How far the first patch begins before the scene.
    fn before_px(&self) -> u32 {
        (self.patch_px - self.step_px) / 2
    }

    /// Along a side of so many pixels: the patches of a window, and the first cells of the windows of all passes, rising.
    fn along(&self, length_px: u32) -> (u32, Vec<u32>) {
        let (cells, passes) = (length_px.div_ceil(self.step_px), self.passes());
        let patches_of = |pass: u32| cells.saturating_sub(pass).div_ceil(passes);
        let window = (self.window_px / self.patch_px).min(patches_of(0)).max(1);
        let stride = (window.saturating_sub(self.overlap_px / self.patch_px)).max(1);
        let mut starts = Vec::new();
        for pass in 0..passes.min(cells) {
            // The last window is moved inwards, so that it sees as much of the scene as the others.
            let last = patches_of(pass).saturating_sub(window);
            let regular = (0..last).step_by(stride as usize).chain([last]);
            starts.extend(regular.map(|patch| pass + passes * patch));
        }
        starts.sort_unstable();
        (window, starts)
    }
}

/// A window of a scene, and which of its patches hold data.
pub struct DenseKey {
    scene: Arc<Scene>,
    window: PixelWindow,
    first_cell: (u32, u32),
    /// Known once the window was loaded.
    valid: OnceLock<Vec<bool>>,
}

impl RowName for DenseKey {
    fn row_name(&self) -> Cow<'_, str> {
        self.scene.chip_id(&self.window).into()
    }
}

impl Stamped for DenseKey {
    fn stamp(&self) -> Option<Stamp> {
        self.scene.stamp()
    }
}

impl PatchWindow for DenseKey {
    fn first_cell(&self) -> (u32, u32) {
        self.first_cell
    }

    fn valid(&self) -> &[bool] {
        self.valid.get().map(Vec::as_slice).unwrap_or_default()
    }
}

/// The windows of one scene, from top to bottom.
pub struct DenseSource {
    scene: Arc<Scene>,
    cut: DenseCut,
    columns: u32,
    rows: u32,
    column_starts: Vec<u32>,
    row_starts: Vec<u32>,
}

impl DenseSource {
    /// The windows of an opened scene. The cut has no [problem](DenseCut::problem).
    pub fn new(scene: Arc<Scene>, cut: DenseCut) -> Self {
        let (columns, column_starts) = cut.along(scene.profile().width_px);
        let (rows, row_starts) = cut.along(scene.profile().height_px);
        Self { scene, cut, columns, rows, column_starts, row_starts }
    }

    /// What its windows have in common, for vectors of `dims` values.
    pub fn windows(&self, dims: usize, normalize: bool) -> PatchWindows {
        PatchWindows { columns: self.columns, rows: self.rows, step: self.cut.passes(), dims, normalize }
    }

    /// Where its cells lie.
    pub fn grid(&self) -> FeatureGrid {
        let (pixels, step_px) = (self.scene.pixel_grid(), self.cut.step_px);
        FeatureGrid {
            width_px: pixels.width_px.div_ceil(step_px),
            height_px: pixels.height_px.div_ceil(step_px),
            transform: pixels.transform.with_pixels_scaled_by(step_px.into(), step_px.into()),
            crs: pixels.crs,
        }
    }

    /// Windows that may have data.
    pub fn window_count(&self) -> u64 {
        self.cells().filter(|cell| self.scene.inside(&self.window(*cell)).is_some()).count() as u64
    }

    fn window(&self, (column, row): (u32, u32)) -> PixelWindow {
        let start = |cell: u32| i64::from(cell) * i64::from(self.cut.step_px) - i64::from(self.cut.before_px());
        let (width_px, height_px) = (self.columns * self.cut.patch_px, self.rows * self.cut.patch_px);
        PixelWindow::new(start(column), start(row), width_px, height_px)
    }

    /// Which patches of a window hold data: those with a sufficient share of valid pixels in the scene.
    fn valid_patches(&self, window: PixelWindow, read: &RasterWindow) -> Vec<bool> {
        let (inside, patch_px) = (read.window, i64::from(self.cut.patch_px));
        let (left, top) = (inside.x_px - window.x_px, inside.y_px - window.y_px);
        let width = inside.width_px as usize;
        let mut valid = Vec::with_capacity((self.columns * self.rows) as usize);
        // The part of a patch that lies in the scene, in its pixels.
        let part = |patch: u32, before: i64, length: u32| -> std::ops::Range<usize> {
            let start = i64::from(patch) * patch_px - before;
            let within = |at: i64| at.clamp(0, length.into()) as usize;
            within(start)..within(start + patch_px)
        };
        for patch_row in 0..self.rows {
            let rows = part(patch_row, top, inside.height_px);
            for patch_column in 0..self.columns {
                let columns = part(patch_column, left, inside.width_px);
                let pixels = rows.len() * columns.len();
                let of_row =
                    |row: usize| read.valid[row * width..][columns.clone()].iter().filter(|valid| **valid).count();
                let data: usize = rows.clone().map(of_row).sum();
                valid.push(data > 0 && data as f32 / pixels as f32 >= self.scene.min_valid());
            }
        }
        valid
    }

    fn prefetch(&self, first: usize, windows: usize) {
        let ahead = self.cells().skip(first).take(windows).map(|cell| self.window(cell));
        self.scene.prefetch_windows(ahead);
    }

    fn cells(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.row_starts.iter().flat_map(|&row| self.column_starts.iter().map(move |&column| (column, row)))
    }
}

impl Source for DenseSource {
    type Key = DenseKey;

    fn keys(&self) -> Box<dyn Iterator<Item = DenseKey> + Send + '_> {
        let count = self.column_starts.len() * self.row_starts.len();
        Box::new((0..count).filter_map(move |index| {
            if index.is_multiple_of(ANNOUNCED) {
                // Those before were announced earlier.
                match index {
                    0 => self.prefetch(0, AHEAD),
                    _ => self.prefetch(index + AHEAD - ANNOUNCED, ANNOUNCED),
                }
            }
            let (row, column) = (index / self.column_starts.len(), index % self.column_starts.len());
            let first_cell = (self.column_starts[column], self.row_starts[row]);
            let window = self.window(first_cell);
            self.scene.inside(&window)?;
            Some(DenseKey { scene: Arc::clone(&self.scene), window, first_cell, valid: OnceLock::new() })
        }))
    }

    fn len_hint(&self) -> Option<usize> {
        Some(self.column_starts.len() * self.row_starts.len())
    }

    fn load(&self, key: &DenseKey) -> Result<Option<Item>, ItemError> {
        let Some(read) = self.scene.read(&key.window)? else { return Ok(None) };
        let valid = self.valid_patches(key.window, &read);
        if !valid.contains(&true) {
            return Ok(None);
        }
        let item = self.scene.item(&read, key.window)?;
        let _ = key.valid.set(valid);
        Ok(Some(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(window_px: u32, overlap_px: u32, step_px: u32) -> DenseCut {
        DenseCut { patch_px: 16, window_px, overlap_px, step_px }
    }

    #[test]
    fn windows_overlap_and_the_last_one_is_moved_inwards() {
        assert_eq!(cut(512, 128, 16).along(2048), (32, vec![0, 24, 48, 72, 96]));
        assert_eq!(cut(512, 0, 16).along(2048), (32, vec![0, 32, 64, 96]));
        assert_eq!(cut(512, 128, 16).along(1000), (32, vec![0, 24, 31]));
        assert_eq!(cut(512, 128, 16).along(512), (32, vec![0]));
    }

    #[test]
    fn a_scene_smaller_than_a_window_is_one_window() {
        assert_eq!(cut(512, 128, 16).along(100), (7, vec![0]));
        assert_eq!(cut(512, 128, 16).along(1), (1, vec![0]));
        assert_eq!(cut(512, 128, 8).along(100), (7, vec![0, 1]));
    }

    #[test]
    fn passes_give_every_cell() {
        for (length_px, step_px) in [(100, 8), (1000, 8), (777, 4), (640, 2), (5, 8), (2048, 16)] {
            let cut = cut(128, 32, step_px);
            let (window, starts) = cut.along(length_px);
            let passes = cut.passes();
            let mut cells: Vec<u32> =
                starts.iter().flat_map(|start| (0..window).map(move |patch| start + patch * passes)).collect();
            cells.sort_unstable();
            cells.dedup();
            let wanted = length_px.div_ceil(step_px);
            assert!((0..wanted).all(|cell| cells.contains(&cell)), "{length_px} {step_px}");
            // Beyond the scene there is at most one patch per pass.
            assert!(cells.iter().all(|&cell| cell < wanted + passes), "{length_px} {step_px}");
        }
    }

    #[test]
    fn cuts_that_cannot_be_are_told() {
        assert_eq!(cut(512, 128, 8).problem(), None);
        assert_eq!(cut(16, 0, 16).problem(), None);
        assert_eq!(cut(512, 128, 1).problem().unwrap(), "a cell can be 16 pixels on a side, or 8, 4, 2, and not 1");
        for wrong in [cut(512, 128, 0), cut(512, 128, 32), cut(512, 128, 5), cut(500, 128, 8), cut(512, 100, 8)] {
            assert!(wrong.problem().is_some(), "{wrong:?}");
        }
        assert!(cut(128, 128, 16).problem().unwrap().contains("leaves nothing"));
    }
}
