//! From the patches of overlapping windows to one raster of features.
//!
//! Every window goes into the [`Journal`] as soon as it is encoded: one row, all its patches. At the end the windows are
//! blended into a [`FeatureRaster`] that reads them from there, so memory holds a few windows whatever the size of the
//! scene, and an interrupted run has lost at most the windows under way. The disk holds every patch once per window that it
//! is in: `D * 4` bytes, 1.8 times with windows of 512 pixels that overlap by 128.
//!
//! Windows are blended by a tent: a patch counts by its distance to the nearest edge of its window, in x times in y. Sums
//! are taken in f64, over windows from top to bottom and left to right: where there is one window only, its very values
//! come out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use dinov3_engine::{ImageFeatures, ItemError, Sink, SinkError, Summary};
use dinov3_geo::PixelWindow;
use serde_json::Value;

use crate::embedding::{Failure, Provenance, Report};
use crate::error::OutputError;
use crate::journal::{Journal, JournalError};
use crate::journaled::JournalKey;
use crate::layout::EmbeddingLayout;
use crate::name::RowName;
use crate::raster::{FeatureBlock, FeatureGrid, FeatureRaster};

/// A key that knows which cells its window's patches are. Asked after the window was loaded.
pub trait PatchWindow: RowName {
    /// Column and row of the cell that is its first patch.
    fn first_cell(&self) -> (u32, u32);

    /// Which of its patches hold data, row by row; all of them if it says nothing.
    fn valid(&self) -> &[bool];
}

/// What all windows of a raster have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchWindows {
    /// Patches per row.
    pub columns: u32,
    /// Rows of patches.
    pub rows: u32,
    /// From patch to patch, in cells: more than 1 where several passes, shifted by a cell, are interleaved.
    pub step: u32,
    /// D.
    pub dims: usize,
    /// Whether vectors are scaled to length one, after they are blended.
    pub normalize: bool,
}

impl PatchWindows {
    /// Values of a window.
    pub fn values(&self) -> usize {
        self.columns as usize * self.rows as usize * self.dims
    }

    /// What a journal of such windows holds.
    pub fn layout(&self) -> EmbeddingLayout {
        EmbeddingLayout::patches(self.values())
    }

    /// How far a window reaches, in cells: from its first to its last cell.
    fn reach(&self, patches: u32) -> u32 {
        (patches.max(1) - 1) * self.step.max(1)
    }
}

/// Writes the finished raster; gets the provenance with counts and failures.
pub type WriteRaster<'a> = Box<dyn FnOnce(&mut dyn FeatureRaster, Value) -> Result<(), OutputError> + 'a>;

/// Collects the patches of windows and has a raster made of them. Ask for one tap in rows ([`MapLayout::Rows`]).
///
/// [`MapLayout::Rows`]: dinov3_model::encoder::MapLayout::Rows
pub struct PatchSink<'a> {
    journal: Journal,
    windows: PatchWindows,
    grid: FeatureGrid,
    /// Row and column of the first cell, and where in the journal a window is.
    places: BTreeMap<(u32, u32), (Box<str>, u64)>,
    failures: Vec<Failure>,
    values: Vec<f32>,
    keeps_journal: bool,
    /// `None` after the end.
    open: Option<(Provenance, WriteRaster<'a>)>,
}

impl<'a> PatchSink<'a> {
    /// A sink over a journal that was [agreed on](Journal::agree) with [`PatchWindows::layout`]. At the end the raster goes
    /// to `write`.
    pub fn new(
        journal: Journal,
        windows: PatchWindows,
        grid: FeatureGrid,
        provenance: Provenance,
        write: WriteRaster<'a>,
    ) -> Self {
        let open = Some((provenance, write));
        let (places, failures, values) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { journal, windows, grid, places, failures, values, keeps_journal: false, open }
    }

    /// Leaves the journal where it is when the raster is there: as
    /// [`ChipSink::keeping_the_journal`](crate::ChipSink::keeping_the_journal).
    pub fn keeping_the_journal(self) -> Self {
        Self { keeps_journal: true, ..self }
    }

    /// The journal, for [`JournaledSource`](crate::JournaledSource).
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The number of windows that neither a killed process nor a power failure can take away, kept up to date.
    pub fn safe_rows(&self) -> Arc<AtomicUsize> {
        self.journal.safe_rows()
    }

    /// Ends a run that failed and says how many windows the next one will find.
    ///
    /// # Errors
    /// If the journal cannot be brought to disk.
    pub fn keep(mut self) -> Result<usize, JournalError> {
        // First, so that temporary files go.
        self.open = None;
        self.journal.sync()?;
        Ok(self.journal.rows())
    }

    fn note<K: PatchWindow>(&mut self, key: &K, place: u64) {
        let (column, row) = key.first_cell();
        self.places.insert((row, column), (key.row_name().into(), place));
    }
}

impl<K: PatchWindow> Sink<JournalKey<K>> for PatchSink<'_> {
    fn write(&mut self, key: &JournalKey<K>, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        let (name, dims) = (key.key.row_name(), self.windows.dims);
        let map = features.maps().next().map(|found| found.map.data).unwrap_or_default();
        if map.len() != self.windows.values() {
            let (row, column) = (name.into_owned(), "patches".to_owned());
            let (expected, found) = (self.windows.values(), map.len());
            return Err(OutputError::RowMismatch { row, column, expected, found }.into());
        }
        self.values.clear();
        self.values.extend_from_slice(map);
        for (vector, valid) in self.values.chunks_exact_mut(dims).zip(key.key.valid()) {
            if !valid {
                vector.fill(f32::NAN);
            }
        }
        let place = self.journal.append_row(&name, key.stamp(), &[], &[&self.values])?;
        self.note(&key.key, place);
        Ok(())
    }

    fn known(&mut self, key: &JournalKey<K>) -> Result<(), SinkError> {
        let (place, _) = self.journal.known_row(&key.key.row_name())?;
        self.note(&key.key, place);
        Ok(())
    }

    fn failed(&mut self, key: &JournalKey<K>, error: &ItemError) -> Result<(), SinkError> {
        self.failures.push(Failure { path: key.key.row_name().into_owned(), error: error.to_string() });
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        let (provenance, write) = self.open.take().ok_or(OutputError::Closed)?;
        self.journal.sync()?;
        let failures = std::mem::take(&mut self.failures);
        let report = Report::new(provenance(summary), summary, None, failures).complete();
        let mut raster = BlendedRaster {
            journal: &mut self.journal,
            windows: self.windows,
            grid: &self.grid,
            places: &self.places,
            sums: Vec::new(),
            weights: Vec::new(),
        };
        write(&mut raster, report)?;
        match summary.failed.is_empty() && !self.keeps_journal {
            true => Ok(self.journal.remove()?),
            // For a run that makes just those.
            false => Ok(()),
        }
    }
}

/// The windows of a journal as one raster.
struct BlendedRaster<'j> {
    journal: &'j mut Journal,
    windows: PatchWindows,
    grid: &'j FeatureGrid,
    places: &'j BTreeMap<(u32, u32), (Box<str>, u64)>,
    /// `[cells, D]`: vectors times weights.
    sums: Vec<f64>,
    /// `[cells]`.
    weights: Vec<f64>,
}

impl FeatureRaster for BlendedRaster<'_> {
    fn grid(&self) -> &FeatureGrid {
        self.grid
    }

    fn dims(&self) -> usize {
        self.windows.dims
    }

    fn read(&mut self, window: PixelWindow, block: &mut FeatureBlock) -> Result<(), OutputError> {
        let PatchWindows { columns, rows, step, dims, normalize } = self.windows;
        block.clear(window, dims);
        let cells = block.valid.len();
        self.sums.clear();
        self.sums.resize(cells * dims, 0.0);
        self.weights.clear();
        self.weights.resize(cells, 0.0);
        // Cells are counted in u32.
        let (left, top) = (window.x_px as u32, window.y_px as u32);
        let (right, bottom) = (left + window.width_px, top + window.height_px);
        let first_row = top.saturating_sub(self.windows.reach(rows));
        for (&(row, column), (name, place)) in self.places.range((first_row, 0)..(bottom, 0)) {
            if column >= right || column + self.windows.reach(columns) < left {
                continue;
            }
            let found = self.journal.row_at(*place, name).map_err(|error| OutputError::Features(error.into()))?;
            for (patch_row, vectors) in found.values.chunks_exact(columns as usize * dims).enumerate() {
                let y = row + patch_row as u32 * step;
                if y < top || y >= bottom {
                    continue;
                }
                for (patch_column, vector) in vectors.chunks_exact(dims).enumerate() {
                    let x = column + patch_column as u32 * step;
                    if x < left || x >= right || vector[0].is_nan() {
                        continue;
                    }
                    let weight = tent(patch_row as u32, rows) * tent(patch_column as u32, columns);
                    let cell = ((y - top) * window.width_px + (x - left)) as usize;
                    self.weights[cell] += weight;
                    for (sum, &value) in self.sums[cell * dims..][..dims].iter_mut().zip(vector) {
                        *sum += weight * f64::from(value);
                    }
                }
            }
        }
        let vectors = block.values.chunks_exact_mut(dims).zip(self.sums.chunks_exact(dims));
        for ((vector, sums), (&weight, valid)) in vectors.zip(self.weights.iter().zip(&mut block.valid)) {
            *valid = weight > 0.0;
            if !*valid {
                continue;
            }
            let length = match normalize {
                true => sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt(),
                false => weight,
            };
            // A vector of zeros has no length to be divided by.
            let divisor = if length > 0.0 { length } else { weight };
            vector.iter_mut().zip(sums).for_each(|(value, sum)| *value = (sum / divisor) as f32);
        }
        Ok(())
    }
}

/// The weight of patch `index` of `count`: its distance to the nearer edge, in half patches. Small whole numbers.
fn tent(index: u32, count: u32) -> f64 {
    f64::from((2 * index + 1).min(2 * (count - index) - 1))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use dinov3_geo::{AffineTransform, Crs};
    use dinov3_model::array::Array;
    use dinov3_model::encoder::{FeatureMap, Features};
    use serde_json::{Map, json};

    use super::*;

    struct Window {
        first_cell: (u32, u32),
        valid: Vec<bool>,
    }

    impl RowName for Window {
        fn row_name(&self) -> Cow<'_, str> {
            format!("{:?}", self.first_cell).into()
        }
    }

    impl PatchWindow for Window {
        fn first_cell(&self) -> (u32, u32) {
            self.first_cell
        }

        fn valid(&self) -> &[bool] {
            &self.valid
        }
    }

    fn grid(width_px: u32, height_px: u32) -> FeatureGrid {
        let transform = AffineTransform::unrotated(0.0, 0.0, 1.0, -1.0);
        FeatureGrid { width_px, height_px, transform, crs: Crs::from_epsg(32633).unwrap() }
    }

    /// The raster of windows of one value each.
    fn blended(windows: PatchWindows, grid: FeatureGrid, of: &[((u32, u32), f32, &[bool])]) -> FeatureBlock {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path().join("out.tif")).unwrap();
        journal.agree(Map::new(), &windows.layout()).unwrap();
        let mut block = FeatureBlock::default();
        let read: WriteRaster<'_> = Box::new(|raster, report| {
            assert_eq!(report["counts"]["done"], json!(of.len()));
            let mut whole = FeatureBlock::default();
            raster.read(raster.grid().window(), &mut whole)?;
            // Read in pieces it is the same.
            for window in raster.grid().window_pieces() {
                raster.read(window, &mut block)?;
                for row in 0..window.height_px as usize {
                    let width = window.width_px as usize * windows.dims;
                    let at = (window.y_px as usize + row) * whole.width_px as usize + window.x_px as usize;
                    let there = &whole.values[at * windows.dims..][..width];
                    let here = &block.values[row * width..][..width];
                    assert!(here.iter().zip(there).all(|(a, b)| a.to_bits() == b.to_bits()));
                }
            }
            block = whole;
            Ok(())
        });
        let mut sink = PatchSink::new(journal, windows, grid, Box::new(|_| json!({})), read);
        let mut summary = Summary::default();
        for &(first_cell, value, valid) in of {
            let key = JournalKey::unstamped(Window { first_cell, valid: valid.to_vec() });
            let shape = vec![1, (windows.columns * windows.rows) as usize, windows.dims];
            let map = Array { shape, data: vec![value; windows.values()] };
            let mut features = Features::default();
            features.count = 1;
            features.maps = vec![FeatureMap { index: 0, map, prefix_tokens: None }];
            sink.write(&key, ImageFeatures::new(&features, 0).unwrap()).unwrap();
            summary.done += 1;
        }
        Sink::<JournalKey<Window>>::finish(&mut sink, &summary).unwrap();
        drop(sink);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the journal goes");
        block
    }

    impl FeatureGrid {
        fn window_pieces(&self) -> Vec<PixelWindow> {
            self.blocks(3, 2).collect()
        }
    }

    #[test]
    fn windows_fade_into_each_other() {
        let windows = PatchWindows { columns: 4, rows: 1, step: 1, dims: 2, normalize: false };
        let block = blended(windows, grid(6, 1), &[((0, 0), 1.0, &[]), ((2, 0), 3.0, &[])]);
        // Weights 1, 3, 3, 1 of the first window and of the second one.
        let expected = [1.0, 1.0, 1.5, 2.5, 3.0, 3.0];
        assert_eq!(block.values, expected.map(|value| [value; 2]).concat());
        assert!(!block.valid.contains(&false));
    }

    #[test]
    fn one_window_gives_its_very_values() {
        let windows = PatchWindows { columns: 5, rows: 3, step: 1, dims: 1, normalize: false };
        let block = blended(windows, grid(5, 3), &[((0, 0), 0.1, &[])]);
        assert_eq!(block.values, [0.1; 15]);
    }

    #[test]
    fn passes_are_interleaved_and_not_mixed() {
        let windows = PatchWindows { columns: 2, rows: 1, step: 2, dims: 1, normalize: false };
        let block = blended(windows, grid(4, 1), &[((0, 0), 1.0, &[]), ((1, 0), 2.0, &[])]);
        assert_eq!(block.values, [1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn what_no_window_covers_is_no_data() {
        let windows = PatchWindows { columns: 2, rows: 1, step: 1, dims: 2, normalize: true };
        let block = blended(windows, grid(5, 1), &[((0, 0), 3.0, &[true, false]), ((3, 0), -1.0, &[])]);
        assert_eq!(block.valid, [true, false, false, true, true]);
        assert_eq!(block.values[0], 0.5f32.sqrt());
        assert_eq!(block.values[6], -0.5f32.sqrt());
        assert!(block.values[2..6].iter().all(|value| value.is_nan()));
    }
}
