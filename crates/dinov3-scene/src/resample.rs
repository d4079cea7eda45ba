//! A raster at another ground sample distance.

use dinov3_geo::{AffineTransform, Crs, PixelWindow};
use dinov3_raster::{BlockLayout, Georeference, Raster, RasterError, RasterProfile, RasterWindow, Samples};

use crate::{Remark, SceneError};

/// What is done, in provenance.
const FILTER: &str = "bilinear, antialiased";
/// Pixels whose sizes differ by less than this share are the same.
const SAME_SIZE: f64 = 1e-3;
/// More than this many pixels per pixel of the scene is told: it adds no detail.
const MUCH_UPSAMPLED: f64 = 2.0;
/// Pixels of the source in one pixel, at most, along a side: what one needs is then read at once.
const LARGEST_FACTOR: f64 = 1024.0;
/// Pixels of the source that are read at once, unless a single pixel needs more.
const PIXELS_AT_ONCE: u64 = 2 << 20;
/// What a window may take, as in a file.
const LARGEST_WINDOW_BYTES: u64 = 1 << 30;
/// Columns of tables are 32-bit integers.
const LONGEST_SIDE_PX: f64 = i32::MAX as f64;
/// Weights sum up to 1 but for this.
const ROUNDING: f64 = 1e-9;
/// The share of the weight that must be valid.
const LEAST_VALID: f64 = 0.5;

/// How a scene came to the ground sample distance at which it is cut.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Resampling {
    /// The distance that was asked for, in metres, along both axes.
    pub gsd_m: f64,
    /// Width and height of the scene's own pixels in metres: in the middle of the scene, on the ground.
    pub source_gsd_m: (f64, f64),
    /// Pixels of the scene in one pixel of the grid that is cut, across and down; 1 where the scene has this distance.
    pub factor: (f64, f64),
    /// What is stored: the raster before.
    pub stored: RasterProfile,
}

impl Resampling {
    /// Whether anything was done at all.
    pub fn is_resampled(&self) -> bool {
        self.factor != (1.0, 1.0)
    }

    /// For the provenance of a scene.
    pub fn described(&self) -> serde_json::Value {
        serde_json::json!({
            "filter": FILTER, "gsd_m": self.gsd_m, "source_gsd_m": self.source_gsd_m, "factor": self.factor,
        })
    }

    pub(crate) fn remark(&self) -> Option<Remark> {
        let (gsd_m, source_gsd_m) = (self.gsd_m, self.source_gsd_m);
        if !self.is_resampled() {
            return Some(Remark::HasGsd { gsd_m });
        }
        let finest = self.factor.0.min(self.factor.1);
        (finest * MUCH_UPSAMPLED < 1.0).then_some(Remark::Upsampled { gsd_m, source_gsd_m, times: 1.0 / finest })
    }
}

/// The raster at a ground sample distance, its transform, and what was done. Whatever its grid is, the new one begins at
/// the same corner and has the same axes.
pub(crate) fn at_gsd(
    raster: Box<dyn Raster>,
    transform: AffineTransform,
    crs: &Crs,
    gsd_m: f64,
) -> Result<(Box<dyn Raster>, AffineTransform, Resampling), SceneError> {
    let stored = raster.profile().clone();
    let scene = stored.location.clone();
    let middle = (f64::from(stored.width_px) / 2.0, f64::from(stored.height_px) / 2.0);
    let source_gsd_m = crs
        .pixel_size_m(&transform, middle.0, middle.1)
        .map_err(|source| SceneError::Coordinates { scene: scene.clone(), source })?;
    let factor = (gsd_m / source_gsd_m.0, gsd_m / source_gsd_m.1);
    let resampling = Resampling { gsd_m, source_gsd_m, factor, stored };
    let is_same = |factor: f64| (factor - 1.0).abs() <= SAME_SIZE;
    if is_same(factor.0) && is_same(factor.1) {
        return Ok((raster, transform, Resampling { factor: (1.0, 1.0), ..resampling }));
    }
    let refused = |problem: String| SceneError::Cut { scene: scene.clone(), problem };
    let (width_m, height_m) = source_gsd_m;
    if factor.0.max(factor.1) > LARGEST_FACTOR {
        return Err(refused(format!(
            "has pixels of {width_m:.3} x {height_m:.3} m: --gsd {gsd_m} would take more than {LARGEST_FACTOR} of them for one"
        )));
    }
    let resampled = Resampled::new(raster, factor).ok_or_else(|| {
        refused(format!("has pixels of {width_m:.3} x {height_m:.3} m: --gsd {gsd_m} makes too many of them"))
    })?;
    Ok((Box::new(resampled), transform.with_pixels_scaled_by(factor.0, factor.1), resampling))
}

/// A raster whose pixels are another's, resampled: antialiased bilinear, as Pillow's `BILINEAR` and `gdalwarp -r bilinear`.
///
/// A triangle around each pixel's centre, as wide as two pixels of the coarser of both grids, weighs the pixels of the
/// source. Weights are never negative, so that no value lies beyond those that it is made of: no halo around clouds, no
/// negative reflectance. Pixels without data have no weight, and the rest is divided by the weight that is left; a pixel
/// is valid where that is at least half. Sums are in f64 and rounded once, to the source's own type.
///
/// Weights depend on the place in the whole grid alone, and sums have one order: a pixel is the same in every window.
/// The full resolution is read, not the overviews: they were made with a filter that the file does not tell.
pub(crate) struct Resampled {
    source: Box<dyn Raster>,
    profile: RasterProfile,
    columns: Axis,
    rows: Axis,
}

impl Resampled {
    /// `factor` pixels of the source, across and down, become one. `None` where it would have too many.
    fn new(source: Box<dyn Raster>, factor: (f64, f64)) -> Option<Self> {
        let mut profile = source.profile().clone();
        let columns = Axis { source_px: profile.width_px, factor: factor.0 };
        let rows = Axis { source_px: profile.height_px, factor: factor.1 };
        (profile.width_px, profile.height_px) = (columns.length_px()?, rows.length_px()?);
        let shrunk = |length_px: u32, factor: f64| (f64::from(length_px) / factor).floor().max(1.0) as u32;
        profile.blocks = BlockLayout {
            width_px: shrunk(profile.blocks.width_px, factor.0),
            height_px: shrunk(profile.blocks.height_px, factor.1),
            ..profile.blocks
        };
        if let Georeference::Located { transform, .. }
        | Georeference::UnknownCrs { transform, .. }
        | Georeference::WithoutCrs { transform } = &mut profile.georeference
        {
            *transform = transform.with_pixels_scaled_by(factor.0, factor.1);
        }
        Some(Self { source, profile, columns, rows })
    }

    /// What of the source the pixels of a window are made of; nothing where the window lies beside the raster.
    fn source_window(&self, window: PixelWindow) -> Option<PixelWindow> {
        let inside = self.profile.window().intersection(&window)?;
        let columns = self.columns.source_span(inside.x_px, inside.right_px());
        let rows = self.rows.source_span(inside.y_px, inside.bottom_px());
        Some(PixelWindow::new(columns.0, rows.0, (columns.1 - columns.0) as u32, (rows.1 - rows.0) as u32))
    }

    /// Windows that make up this one, each of a few pixels of the source.
    fn parts(&self, inside: PixelWindow) -> Vec<PixelWindow> {
        let needed = self.source_window(inside).map_or(0, |window| window.pixels());
        if needed <= PIXELS_AT_ONCE || inside.pixels() == 1 {
            return vec![inside];
        }
        // Across as long as possible: rows of blocks are decoded together.
        let halves = match inside.height_px {
            1 => {
                let left = inside.width_px / 2;
                [
                    PixelWindow { width_px: left, ..inside },
                    PixelWindow { x_px: inside.x_px + i64::from(left), width_px: inside.width_px - left, ..inside },
                ]
            }
            height_px => {
                let upper = height_px / 2;
                [
                    PixelWindow { height_px: upper, ..inside },
                    PixelWindow { y_px: inside.y_px + i64::from(upper), height_px: height_px - upper, ..inside },
                ]
            }
        };
        halves.into_iter().flat_map(|half| self.parts(half)).collect()
    }

    /// Fills in a part of `window` that lies in the raster.
    fn fill(
        &self,
        part: PixelWindow,
        bands: &[usize],
        window: PixelWindow,
        samples: &mut Samples,
        valid: &mut [bool],
    ) -> Result<(), RasterError> {
        let Some(source_window) = self.source_window(part) else { return Ok(()) };
        if self.source.is_empty(source_window) {
            return Ok(());
        }
        let mut read = self.source.read(source_window, bands)?;
        crate::pixels::without_nan(&mut read);
        let place = Place { part, window, source: source_window, bands: bands.len() };
        macro_rules! resampled {
            ($($kind:ident)+) => {
                match (&read.samples, samples) {
                    $((Samples::$kind(source), Samples::$kind(target)) => {
                        self.resample(&place, source, &read.valid, target, valid);
                        Ok(())
                    })+
                    _ => Err(RasterError::Window {
                        location: self.profile.location.clone(),
                        window: source_window,
                        reason: "has samples of a type that cannot be resampled".to_owned(),
                    }),
                }
            };
        }
        resampled!(U8 I8 U16 I16 U32 I32 F32 F64)
    }

    /// The sums, row by row: down first, over all columns that are read, then across.
    fn resample<T: Level>(
        &self,
        place: &Place,
        source: &[T],
        source_valid: &[bool],
        target: &mut [T],
        target_valid: &mut [bool],
    ) {
        let Place { part, window, source: read, bands } = *place;
        let (read_width, read_pixels) = (read.width_px as usize, read.pixels() as usize);
        let target_pixels = window.pixels() as usize;
        let columns: Vec<Taps> = (part.x_px..part.right_px()).map(|column| self.columns.taps(column)).collect();
        let is_whole = !source_valid.contains(&false);
        let mut sums = vec![vec![0.0; read_width]; bands + 1];
        for row in part.y_px..part.bottom_px() {
            let taps = self.rows.taps(row);
            sums.iter_mut().for_each(|sums| sums.fill(0.0));
            for (tap, &weight) in taps.weights.iter().enumerate() {
                let start = (taps.start - read.y_px) as usize + tap;
                let range = start * read_width..(start + 1) * read_width;
                let row_valid = &source_valid[range.clone()];
                for (band, sums) in sums.iter_mut().take(bands).enumerate() {
                    let samples = &source[band * read_pixels..][range.clone()];
                    if is_whole {
                        samples.iter().zip(sums).for_each(|(sample, sum)| *sum += weight * sample.value());
                    } else {
                        for ((sample, sum), &valid) in samples.iter().zip(sums).zip(row_valid) {
                            // Not a product with 0: what is not valid may be infinite.
                            *sum += if valid { weight * sample.value() } else { 0.0 };
                        }
                    }
                }
                if !is_whole {
                    let weighed = |valid: bool| if valid { weight } else { 0.0 };
                    sums[bands].iter_mut().zip(row_valid).for_each(|(sum, &valid)| *sum += weighed(valid));
                }
            }
            let across = |sums: &[f64], taps: &Taps| {
                let start = (taps.start - read.x_px) as usize;
                let products = sums[start..].iter().zip(&taps.weights).map(|(sum, weight)| sum * weight);
                products.fold(0.0, |sum, product| sum + product)
            };
            let first = (row - window.y_px) as usize * window.width_px as usize + (part.x_px - window.x_px) as usize;
            for (at, taps) in (first..).zip(&columns) {
                // Where all is valid it is 1 but for rounding, and is taken for 1 also beside pixels that are not: a
                // window that does not see those gives the same bits.
                let weight = if is_whole { 1.0 } else { across(&sums[bands], taps) };
                let weight = if weight >= 1.0 - ROUNDING { 1.0 } else { weight };
                if weight < LEAST_VALID - ROUNDING {
                    continue;
                }
                target_valid[at] = true;
                for band in 0..bands {
                    target[band * target_pixels + at] = T::of(across(&sums[band], taps) / weight);
                }
            }
        }
    }
}

/// Where what is resampled lies.
#[derive(Clone, Copy)]
struct Place {
    /// Of the new grid: what is filled in,
    part: PixelWindow,
    /// and what is to be filled in altogether.
    window: PixelWindow,
    /// Of the source: what was read.
    source: PixelWindow,
    bands: usize,
}

impl Raster for Resampled {
    fn profile(&self) -> &RasterProfile {
        &self.profile
    }

    fn version(&self) -> Option<(u64, &str)> {
        self.source.version()
    }

    fn read(&self, window: PixelWindow, bands: &[usize]) -> Result<RasterWindow, RasterError> {
        let refused = |reason: String| RasterError::Window { location: self.profile.location.clone(), window, reason };
        if window.is_empty() || bands.is_empty() {
            return Err(refused("has no pixel or no band".to_owned()));
        }
        let sample_bytes = (self.profile.sample_type.size_bytes() as u64).saturating_mul(bands.len() as u64);
        let window_bytes = window.pixels().saturating_mul(sample_bytes.saturating_add(1));
        if window_bytes > LARGEST_WINDOW_BYTES || usize::try_from(window_bytes).is_err() {
            let limit = LARGEST_WINDOW_BYTES;
            return Err(refused(format!("takes {window_bytes} bytes, and {limit} are allowed: read it in parts")));
        }
        let pixels = window.pixels() as usize;
        let fill = self.profile.no_data.as_ref().map_or(0.0, |no_data| no_data.value);
        let mut samples = Samples::filled(self.profile.sample_type, fill, pixels * bands.len());
        let mut valid = vec![false; pixels];
        if let Some(inside) = self.profile.window().intersection(&window) {
            for part in self.parts(inside) {
                self.fill(part, bands, window, &mut samples, &mut valid)?;
            }
        }
        Ok(RasterWindow { window, bands: bands.len(), samples, valid })
    }

    fn is_empty(&self, window: PixelWindow) -> bool {
        self.source_window(window).is_none_or(|window| self.source.is_empty(window))
    }

    fn prefetch(&self, windows: &[PixelWindow], bands: &[usize]) {
        let windows: Vec<PixelWindow> = windows.iter().filter_map(|window| self.source_window(*window)).collect();
        self.source.prefetch(&windows, bands);
    }

    fn overview(&self, level: usize) -> Result<Box<dyn Raster>, RasterError> {
        self.source.overview(level)
    }

    fn row_of_windows_bytes(&self, height_px: u32, bands: usize) -> u64 {
        let rows = (f64::from(height_px) * self.rows.factor + 2.0 * self.rows.support()).ceil();
        self.source.row_of_windows_bytes(rows.min(f64::from(self.rows.source_px)) as u32, bands)
    }
}

/// One direction of a grid: `factor` pixels of the source become one.
#[derive(Clone, Copy, Debug)]
struct Axis {
    source_px: u32,
    factor: f64,
}

/// The pixels of the source that a pixel is made of.
#[derive(Debug, PartialEq)]
struct Taps {
    start: i64,
    /// They sum up to 1.
    weights: Vec<f64>,
}

impl Axis {
    /// As many pixels as have their middle in the source: the last may reach beyond it by less than half.
    fn length_px(&self) -> Option<u32> {
        let length_px = (f64::from(self.source_px) / self.factor).round().max(1.0);
        (length_px <= LONGEST_SIDE_PX).then_some(length_px as u32)
    }

    /// Half of the triangle's base.
    fn support(&self) -> f64 {
        self.factor.max(1.0)
    }

    /// First and last + 1 of the source's pixels that weigh in a pixel: Pillow's rule.
    fn span(&self, pixel: i64) -> (i64, i64) {
        let centre = (pixel as f64 + 0.5) * self.factor;
        let (start, end) = ((centre - self.support() + 0.5).floor(), (centre + self.support() + 0.5).floor());
        let last = i64::from(self.source_px) - 1;
        let start = (start as i64).clamp(0, last);
        (start, (end as i64).clamp(start + 1, last + 1))
    }

    /// What a row of pixels is made of, the last one excluded.
    fn source_span(&self, first: i64, end: i64) -> (i64, i64) {
        (self.span(first).0, self.span(end - 1).1)
    }

    fn taps(&self, pixel: i64) -> Taps {
        let (start, end) = self.span(pixel);
        let centre = (pixel as f64 + 0.5) * self.factor;
        let weight = |at: i64| (1.0 - ((at as f64 + 0.5 - centre) / self.support()).abs()).max(0.0);
        let mut weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        match sum > 0.0 {
            true => weights.iter_mut().for_each(|weight| *weight /= sum),
            // A single pixel whose middle is as far away as the triangle reaches.
            false => weights.iter_mut().for_each(|weight| *weight = 1.0 / (end - start) as f64),
        }
        Taps { start, weights }
    }
}

/// A type of samples.
trait Level: Copy {
    fn value(self) -> f64;
    /// Rounded half up, as GDAL and Pillow do it, and clamped.
    fn of(value: f64) -> Self;
}

macro_rules! whole_levels {
    ($($type:ty)+) => {$(
        impl Level for $type {
            fn value(self) -> f64 {
                self.into()
            }

            fn of(value: f64) -> Self {
                // `as` saturates.
                (value + 0.5).floor() as $type
            }
        }
    )+};
}
whole_levels!(u8 i8 u16 i16 u32 i32);

impl Level for f32 {
    fn value(self) -> f64 {
        self.into()
    }

    fn of(value: f64) -> Self {
        value as f32
    }
}

impl Level for f64 {
    fn value(self) -> f64 {
        self
    }

    fn of(value: f64) -> Self {
        value
    }
}

#[cfg(test)]
mod tests {
    use dinov3_raster::{Opener, Options};
    use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, pattern, utm_tags};

    use super::*;

    /// 100 x 70 pixels of 10 m, three bands of bytes in tiles of 32 x 16.
    fn raster(image: TiffImage) -> Box<dyn Raster> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scene.tif");
        std::fs::write(&path, TiffFile::of(image).to_bytes()).unwrap();
        Opener::new(Options::default()).open(path.to_str().unwrap()).unwrap()
    }

    /// With a hole in the middle, and bytes that mean nothing there.
    fn holed() -> TiffImage {
        let sample =
            |band, x, y| if (30..60).contains(&x) && (20..50).contains(&y) { 0 } else { pattern(band, x, y).max(1) };
        let no_data = (42113, TiffValue::Ascii("0"));
        TiffImage { sample, tags: utm_tags().into_iter().chain([no_data]).collect(), ..TiffImage::default() }
    }

    fn resampled(image: TiffImage, factor: (f64, f64)) -> Resampled {
        Resampled::new(raster(image), factor).unwrap()
    }

    fn levels(read: &RasterWindow) -> Vec<u8> {
        let Samples::U8(levels) = &read.samples else { panic!("{:?}", read.samples.sample_type()) };
        levels.clone()
    }

    /// The definition, in two dimensions at once.
    fn by_definition(raster: &Resampled, band: usize, column: i64, row: i64) -> Option<f64> {
        let source = &*raster.source;
        let whole = source.read(source.profile().window(), &[0, 1, 2]).unwrap();
        let (width, height) = (whole.window.width_px as usize, whole.window.height_px as usize);
        let triangle = |at: usize, pixel: i64, axis: &Axis| {
            let away = at as f64 + 0.5 - (pixel as f64 + 0.5) * axis.factor;
            (1.0 - (away / axis.factor.max(1.0)).abs()).max(0.0)
        };
        let (mut sum, mut valid, mut all) = (0.0, 0.0, 0.0);
        for y in 0..height {
            for x in 0..width {
                let weight = triangle(x, column, &raster.columns) * triangle(y, row, &raster.rows);
                all += weight;
                if whole.valid[y * width + x] {
                    valid += weight;
                    sum += weight * whole.samples.get((band * height + y) * width + x);
                }
            }
        }
        (valid / all >= 0.5 - 1e-9).then_some(sum / valid)
    }

    #[test]
    fn pixels_are_what_the_definition_says() {
        for factor in [(2.0, 2.0), (3.3, 2.7), (0.4, 0.75), (1.5, 0.8), (100.0, 70.0)] {
            let raster = resampled(holed(), factor);
            let window = raster.profile().window();
            let read = raster.read(window, &[2, 0]).unwrap();
            let (width, pixels) = (window.width_px as usize, window.pixels() as usize);
            for at in (0..pixels).step_by(7) {
                let (column, row) = ((at % width) as i64, (at / width) as i64);
                let expected = by_definition(&raster, 2, column, row);
                assert_eq!(read.valid[at], expected.is_some(), "{factor:?}: {column}, {row}");
                if let Some(expected) = expected {
                    let found = f64::from(levels(&read)[at]);
                    assert!((found - expected).abs() <= 0.5 + 1e-9, "{factor:?}: {column}, {row}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_pixel_is_the_same_in_every_window() {
        for factor in [(2.0, 2.0), (3.3, 2.7), (0.4, 0.75)] {
            let raster = resampled(holed(), factor);
            let whole = raster.read(raster.profile().window(), &[0, 1, 2]).unwrap();
            let (width, pixels) = (whole.window.width_px as usize, whole.window.pixels() as usize);
            for window in [(0, 0, 1, 1), (9, 7, 11, 3), (5, 0, 1, 20), (-3, -2, 20, 9), (20, 15, 300, 200)] {
                let (x, y, window_width, window_height) = window;
                let window = PixelWindow::new(x, y, window_width, window_height);
                let read = raster.read(window, &[0, 1, 2]).unwrap();
                for at in 0..window.pixels() as usize {
                    let column = window.x_px + (at % window_width as usize) as i64;
                    let row = window.y_px + (at / window_width as usize) as i64;
                    if !whole.window.contains(&PixelWindow::new(column, row, 1, 1)) {
                        assert!(!read.valid[at]);
                        continue;
                    }
                    let there = row as usize * width + column as usize;
                    assert_eq!(read.valid[at], whole.valid[there]);
                    for band in 0..3 {
                        let here = levels(&read)[band * window.pixels() as usize + at];
                        assert_eq!(here, levels(&whole)[band * pixels + there], "{factor:?} {column} {row}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_large_window_is_made_of_parts() {
        let raster = resampled(TiffImage { width_px: 3000, height_px: 2000, ..holed() }, (2.0, 2.0));
        let window = PixelWindow::new(3, 1, 1400, 900);
        let parts = raster.parts(window);
        assert!(parts.len() > 2, "{parts:?}");
        let pixels: u64 = parts.iter().map(PixelWindow::pixels).sum();
        assert_eq!(pixels, window.pixels());
        assert!(parts.iter().all(|part| raster.source_window(*part).unwrap().pixels() <= PIXELS_AT_ONCE));
        let read = raster.read(window, &[0]).unwrap();
        let part = raster.read(PixelWindow::new(700, 440, 40, 40), &[0]).unwrap();
        for row in 0..40 {
            let start = (440 - 1 + row) * 1400 + 700 - 3;
            assert_eq!(levels(&read)[start..start + 40], levels(&part)[row * 40..][..40]);
        }
    }

    #[test]
    fn the_new_grid_has_the_same_corner_and_as_many_pixels_as_have_their_middle_in_it() {
        let raster = resampled(holed(), (3.0, 4.0));
        let profile = raster.profile();
        // 33.3 and 17.5
        assert_eq!((profile.width_px, profile.height_px), (33, 18));
        assert_eq!((profile.blocks.width_px, profile.blocks.height_px), (10, 4));
        let transform = profile.georeference.transform().unwrap();
        assert_eq!(*transform, AffineTransform::unrotated(399_960.0, 4_200_000.0, 30.0, -40.0));
        let tiny = resampled(holed(), (500.0, 500.0));
        assert_eq!((tiny.profile().width_px, tiny.profile().height_px), (1, 1));
        assert!(Resampled::new(super::tests::raster(holed()), (1e-9, 1.0)).is_none());
    }

    #[test]
    fn floats_keep_their_digits_and_nan_has_no_weight() {
        let sample = |_, x: u32, _| {
            let value = if x == 3 { f32::NAN } else { x as f32 / 8.0 };
            u64::from(value.to_bits())
        };
        let image = TiffImage { bits: 32, sample_format: 3, sample, ..holed() };
        let raster = resampled(image, (2.0, 2.0));
        let read = raster.read(PixelWindow::new(0, 4, 4, 1), &[0]).unwrap();
        let Samples::F32(values) = &read.samples else { panic!() };
        // Weights 1, 3, 3, 1 of the pixels around a middle, but for pixel 3.
        assert_eq!(read.valid, [true; 4]);
        assert!((f64::from(values[1]) - weighed(&[(1, 1.0), (2, 3.0), (4, 1.0)])).abs() < 1e-6, "{values:?}");
        assert!((f64::from(values[2]) - weighed(&[(4, 3.0), (5, 3.0), (6, 1.0)])).abs() < 1e-6, "{values:?}");
        assert!((f64::from(values[3]) - 6.5 / 8.0).abs() < 1e-6, "{values:?}");
    }

    fn weighed(pixels: &[(u32, f64)]) -> f64 {
        let sum: f64 = pixels.iter().map(|(at, weight)| f64::from(*at) / 8.0 * weight).sum();
        sum / pixels.iter().map(|(_, weight)| weight).sum::<f64>()
    }

    #[test]
    fn a_scene_that_has_the_distance_is_left_alone() {
        let utm = Crs::from_epsg(32633).unwrap();
        let at = |gsd_m: f64| {
            let source = raster(holed());
            let transform = *source.profile().georeference.transform().unwrap();
            at_gsd(source, transform, &utm, gsd_m)
        };
        let (same, transform, resampling) = at(10.005).unwrap();
        assert_eq!((same.profile().width_px, transform.a, resampling.is_resampled()), (100, 10.0, false));
        assert_eq!(resampling.remark(), Some(Remark::HasGsd { gsd_m: 10.005 }));
        let (coarse, transform, resampling) = at(25.0).unwrap();
        assert_eq!((coarse.profile().width_px, transform.a, resampling.factor), (40, 25.0, (2.5, 2.5)));
        assert_eq!((resampling.source_gsd_m, resampling.remark()), ((10.0, 10.0), None));
        let (_, _, fine) = at(4.0).unwrap();
        assert!(matches!(fine.remark(), Some(Remark::Upsampled { times, .. }) if times == 2.5));
        assert!(at(5.0).unwrap().2.remark().is_none());
        let Err(error) = at(11_000.0) else { panic!() };
        assert!(error.to_string().contains("10.000 x 10.000 m: --gsd 11000 would take more than 1024"), "{error}");
    }

    #[test]
    fn what_is_empty_is_empty_at_any_distance() {
        let image = TiffImage { is_absent: |block| block != 0, ..holed() };
        let raster = resampled(image, (2.0, 2.0));
        // One tile, of 32 x 16.
        assert!(!raster.is_empty(PixelWindow::new(0, 0, 4, 4)));
        assert!(!raster.is_empty(PixelWindow::new(16, 0, 4, 4)), "its first pixel is made of the tile's last one too");
        assert!(raster.is_empty(PixelWindow::new(18, 0, 4, 4)) && raster.is_empty(PixelWindow::new(0, 12, 4, 4)));
        assert!(raster.is_empty(PixelWindow::new(-9, 0, 4, 4)));
        raster.prefetch(&[PixelWindow::new(-9, 0, 4, 4), PixelWindow::new(0, 0, 4, 4)], &[0]);
        assert_eq!(raster.row_of_windows_bytes(16, 3), raster.source.row_of_windows_bytes(36, 3));
    }
}
