//! Principal components of a raster: the basis of its cells, and a picture of the first three.

use dinov3_geo::PixelWindow;
use dinov3_pca::{Covariance, Pca, percentile_range, place_in};

use crate::cog::{CogFile, CogOptions, CogSample};
use crate::error::OutputError;
use crate::raster::{FeatureBlock, FeatureGrid, FeatureRaster, ReducedRaster};

/// Cells that a basis is fitted to, about: sixteen for each of 4096 dimensions.
const BASIS_CELLS: u64 = 1 << 16;
/// Cells that tell which values are dark and bright, about.
const STRETCH_CELLS: u64 = 1 << 20;
/// Picture values from black to white; 0 is no data.
const DARKEST: f32 = 1.0;
const BRIGHTEST: f32 = 255.0;

/// A sample of cells that depends on their places alone: all of them where there are no more than `wanted`.
struct Sample {
    columns: u64,
    /// A cell is taken if its hash is below.
    bound: u64,
}

impl Sample {
    fn new(grid: &FeatureGrid, wanted: u64) -> Self {
        let cells = u64::from(grid.width_px) * u64::from(grid.height_px);
        let bound = match cells > wanted {
            true => ((u128::from(wanted) << 32) / u128::from(cells)) as u64,
            false => 1 << 32,
        };
        Self { columns: grid.width_px.into(), bound }
    }

    /// The cells of a block that are in the sample and hold data, as places in the block.
    fn of<'b>(&self, window: PixelWindow, block: &'b FeatureBlock) -> impl Iterator<Item = usize> + use<'b> {
        let (columns, bound, width) = (self.columns, self.bound, block.width_px as usize);
        (0..block.valid.len()).filter(move |&at| {
            let (x, y) = (window.x_px as u64 + (at % width) as u64, window.y_px as u64 + (at / width) as u64);
            // Multiples of 2^64 over the golden ratio, whose upper half is spread evenly.
            let hash = (y * columns + x).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            block.valid[at] && hash < bound
        })
    }
}

/// The basis of a raster's cells: the `count` directions of largest variance. Fitted to about 65,536 cells that are spread
/// over the whole raster, always the same ones.
///
/// # Errors
/// If the raster cannot be read.
pub fn fit_components(raster: &mut dyn FeatureRaster, count: usize) -> Result<Pca, OutputError> {
    let dims = raster.dims();
    let mut covariance = Covariance::new(dims);
    let sample = Sample::new(raster.grid(), BASIS_CELLS);
    let mut block = FeatureBlock::default();
    for window in raster.grid().pieces(dims) {
        raster.read(window, &mut block)?;
        for at in sample.of(window, &block) {
            covariance.add(&block.values[at * dims..][..dims]);
        }
    }
    Ok(Pca::of_covariance(covariance, count))
}

/// Writes a picture of a raster: its first three components as red, green and blue, 8 bits, with 0 for no data. The 1st and
/// the 99th percentile of the whole raster are black and white.
///
/// # Errors
/// If the raster cannot be read, or the file not be written.
pub fn write_components_picture(
    file: CogFile,
    raster: &mut dyn FeatureRaster,
    pca: &Pca,
    threads: usize,
    metadata: Vec<(String, String)>,
) -> Result<(), OutputError> {
    let pca = pca.truncated(3);
    let mut reduced = ReducedRaster::new(raster, &pca, threads);
    let (grid, sample) = (reduced.grid().clone(), Sample::new(reduced.grid(), STRETCH_CELLS));
    let mut planes = vec![Vec::new(); pca.count()];
    let mut block = FeatureBlock::default();
    for window in grid.pieces(pca.count()) {
        reduced.read(window, &mut block)?;
        for at in sample.of(window, &block) {
            planes.iter_mut().zip(&block.values[at * pca.count()..]).for_each(|(plane, &value)| plane.push(value));
        }
    }
    let mut ranges = [(0.0, 0.0); 3];
    ranges.iter_mut().zip(&planes).for_each(|(range, plane)| *range = percentile_range(plane));
    let names = ["component 1", "component 2", "component 3"];
    let options =
        CogOptions { sample: CogSample::U8, is_rgb: true, band_names: names.map(str::to_owned).to_vec(), metadata };
    file.write(&mut Levels { raster: reduced, ranges, narrow: FeatureBlock::default() }, &options)
}

/// Components as levels of red, green and blue.
struct Levels<'a> {
    raster: ReducedRaster<'a>,
    ranges: [(f32, f32); 3],
    narrow: FeatureBlock,
}

impl FeatureRaster for Levels<'_> {
    fn grid(&self) -> &FeatureGrid {
        self.raster.grid()
    }

    fn dims(&self) -> usize {
        3
    }

    fn read(&mut self, window: PixelWindow, block: &mut FeatureBlock) -> Result<(), OutputError> {
        self.raster.read(window, &mut self.narrow)?;
        block.clear(window, 3);
        block.valid.clone_from(&self.narrow.valid);
        let dims = self.raster.dims();
        for (at, to) in block.values.chunks_exact_mut(3).enumerate().filter(|(at, _)| self.narrow.valid[*at]) {
            for (band, level) in to.iter_mut().enumerate() {
                let value = self.narrow.values[at * dims..][..dims].get(band);
                // A direction that there is not, or without extent, is middle grey.
                let place = value.and_then(|&value| place_in(self.ranges[band], value)).unwrap_or(0.5);
                *level = (DARKEST + place * (BRIGHTEST - DARKEST)).round();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dinov3_geo::{AffineTransform, Crs};

    use super::*;
    use crate::raster::ArrayRaster;

    fn grid(width_px: u32, height_px: u32) -> FeatureGrid {
        let transform = AffineTransform::unrotated(0.0, 0.0, 1.0, -1.0);
        FeatureGrid { width_px, height_px, transform, crs: Crs::from_epsg(32633).unwrap() }
    }

    #[test]
    fn a_sample_is_spread_and_about_as_large_as_asked() {
        for (width, height) in [(640, 640), (1024, 1024), (1000, 3)] {
            let sample = Sample::new(&grid(width, height), 2000);
            let cells = (width * height) as usize;
            let block = FeatureBlock { width_px: width, height_px: height, values: vec![], valid: vec![true; cells] };
            let taken: Vec<_> = sample.of(PixelWindow::of_grid(width, height), &block).collect();
            assert!((1900..2100).contains(&taken.len()), "{}", taken.len());
            let left = taken.iter().filter(|&&at| at % (width as usize) < width as usize / 2).count();
            assert!((900..1100).contains(&left), "{left}");
        }
        let sample = Sample::new(&grid(9, 9), 2000);
        let block = FeatureBlock { width_px: 9, height_px: 9, values: vec![], valid: vec![true; 81] };
        assert_eq!(sample.of(PixelWindow::of_grid(9, 9), &block).count(), 81);
    }

    #[test]
    fn a_picture_shows_the_first_components() {
        // Along one direction from left to right, with a hole.
        let mut values: Vec<f32> = (0..40 * 20).flat_map(|at| [(at % 40) as f32, 0.0, 1.0]).collect();
        values[3] = f32::NAN;
        let mut raster = ArrayRaster::new(grid(40, 20), 3, values);
        let pca = fit_components(&mut raster, 3).unwrap();
        assert!((pca.component(0)[0] - 1.0).abs() < 1e-6);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.tif");
        write_components_picture(CogFile::create(&path).unwrap(), &mut raster, &pca, 1, vec![]).unwrap();
        let opener = dinov3_raster::Opener::new(dinov3_raster::Options::default());
        let read = opener.open(path.to_str().unwrap()).unwrap();
        assert_eq!(read.profile().rgb(), Some([0, 1, 2]));
        let window = read.read(PixelWindow::of_grid(40, 1), &[0, 1]).unwrap();
        let level = |at: usize| window.samples.get(at);
        assert_eq!((level(0), level(1), level(39), level(45)), (1.0, 0.0, 255.0, 128.0));
        assert!(level(20) > 120.0 && level(20) < 136.0);
        assert_eq!(window.valid.iter().position(|valid| !valid), Some(1));
    }
}
