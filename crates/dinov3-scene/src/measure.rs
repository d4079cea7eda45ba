//! What a whole scene is like: percentiles, and statistics on the scale that the encoder sees.
//!
//! All of it is measured in a sample of at most about a million pixels: all pixels of a scene that has no more; else those
//! of the smallest overview that has a quarter of that; else of up to 16 blocks, one in the middle of each field of a 4 × 4
//! grid, and where few of their pixels are valid, of others all over the scene until there are enough or no more (or, where
//! only warnings depend on it, some). Which these are depends on the scene alone, so that every machine and every continued
//! run finds the same bits.

use dinov3_geo::PixelWindow;
use dinov3_pixels::Statistics;
use dinov3_raster::{Raster, RasterError, RasterProfile};

use crate::pixels::without_nan;
use crate::scale::Transfer;

/// Pixels of a sample: 6 MB of three 16-bit bands. One block is read even where it has more.
const SAMPLE_PIXELS: u64 = 1 << 20;
/// Blocks of a sample along a side.
const GRID: i64 = 4;
/// Blocks of a sample all have together at most this many pixels, as long as that leaves four.
const BLOCKS_PIXELS: u64 = 4 << 20;
/// Further blocks are read as long as fewer pixels are valid, and less than a quarter of those of the first blocks.
const LEAST_VALID_PIXELS: u64 = 1 << 16;
/// Further blocks where only warnings depend on the sample.
const MOST_FURTHER_BLOCKS: usize = 64;
/// Smaller overviews tell too little; larger ones cost more requests.
const LEAST_OVERVIEW_PIXELS: u64 = 1 << 18;
/// Means further away, in deviations of what the weights were trained on, in all channels, are told.
const LARGEST_Z: f64 = 1.5;
/// So are deviations of a smaller share of those.
const LEAST_DEVIATION: f64 = 0.25;

/// Where the pixels of a sample come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SampleKind {
    /// All of the scene.
    Whole,
    /// An overview, counted from 0.
    Overview {
        /// Which.
        level: usize,
    },
    /// Blocks spread over the scene.
    Blocks {
        /// How many.
        count: usize,
    },
}

impl std::fmt::Display for SampleKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole => formatter.write_str("all pixels"),
            Self::Overview { level } => write!(formatter, "overview {level}"),
            Self::Blocks { count } => write!(formatter, "{count} blocks"),
        }
    }
}

/// The valid pixels of a sample.
pub(crate) struct Sample {
    pub kind: SampleKind,
    /// Of red, green and blue, as stored.
    pub channels: [Vec<f64>; 3],
}

impl Sample {
    /// Reads it. Overviews are used if they are the scene's pixels, without masks elsewhere. If pixels depend on it, or
    /// whether the scene is refused, it `decides`, and valid pixels are looked for until there is no block left.
    ///
    /// # Errors
    /// If blocks cannot be had. One that is damaged is left out: its chips fail by themselves.
    pub fn read(raster: &dyn Raster, bands: [usize; 3], has_mask: bool, decides: bool) -> Result<Self, RasterError> {
        let profile = raster.profile();
        if profile.window().pixels() <= SAMPLE_PIXELS {
            let channels = gather(raster, &pieces(profile), bands)?;
            return Ok(Self { kind: SampleKind::Whole, channels });
        }
        let pixels = |(width, height): &(u32, u32)| u64::from(*width) * u64::from(*height);
        // The largest comes first.
        let level = profile.overviews.iter().rposition(|size| pixels(size) >= LEAST_OVERVIEW_PIXELS);
        if let Some(level) = level.filter(|level| !has_mask && pixels(&profile.overviews[*level]) <= SAMPLE_PIXELS)
            && let Ok(overview) = raster.overview(level)
        {
            let channels = gather(&*overview, &pieces(overview.profile()), bands)?;
            if !channels[0].is_empty() {
                return Ok(Self { kind: SampleKind::Overview { level }, channels });
            }
        }
        let first = blocks(raster);
        let mut channels = gather(raster, &first, bands)?;
        let mut count = first.len();
        let block_pixels = u64::from(profile.blocks.width_px) * u64::from(profile.blocks.height_px);
        let at_once = (SAMPLE_PIXELS / block_pixels.max(1)).clamp(1, (GRID * GRID) as u64) as usize;
        let most = if decides { usize::MAX } else { MOST_FURTHER_BLOCKS };
        let mut others = spread(profile).filter(|block| !first.contains(block) && !raster.is_empty(*block)).take(most);
        let enough = (first.iter().map(PixelWindow::pixels).sum::<u64>() / 4).clamp(1, LEAST_VALID_PIXELS);
        while (channels[0].len() as u64) < enough {
            let some: Vec<PixelWindow> = others.by_ref().take(at_once).collect();
            if some.is_empty() {
                break;
            }
            count += some.len();
            let more = gather(raster, &some, bands)?;
            channels.iter_mut().zip(more).for_each(|(channel, more)| channel.extend(more));
        }
        Ok(Self { kind: SampleKind::Blocks { count }, channels })
    }

    pub fn pixels(&self) -> usize {
        self.channels[0].len()
    }

    /// The percentile of a channel, as `numpy.percentile` interpolates it; nothing without pixels.
    pub fn percentiles(&self, channel: usize, percents: [f64; 2]) -> Option<[f64; 2]> {
        let mut sorted = self.channels[channel].clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        Some(percents.map(|percent| {
            let place = percent / 100.0 * last as f64;
            let below = place.floor() as usize;
            let (a, b) = (sorted[below.min(last)], sorted[(below + 1).min(last)]);
            let share = place - place.floor();
            // numpy's order of operations, for its bits.
            if share >= 0.5 { b - (b - a) * (1.0 - share) } else { a + (b - a) * share }
        }))
    }

    /// The share of pixels of which a channel is below 0 after `quantity`.
    pub fn negative_share(&self, quantity: impl Fn(usize, f64) -> f64) -> f64 {
        let is_negative = |at: &usize| (0..3).any(|channel| quantity(channel, self.channels[channel][*at]) < 0.0);
        (0..self.pixels()).filter(is_negative).count() as f64 / self.pixels().max(1) as f64
    }

    /// The lowest sample of all channels.
    pub fn lowest(&self) -> Option<f64> {
        self.channels.iter().flatten().copied().min_by(f64::total_cmp)
    }

    /// What the encoder would see.
    pub fn statistics(&self, transfer: &Transfer, expected: &Statistics) -> Option<SceneStatistics> {
        let count = self.pixels();
        if count == 0 {
            return None;
        }
        let mut found = SceneStatistics {
            sample: self.kind,
            pixels: count as u64,
            mean: [0.0; 3],
            std: [0.0; 3],
            z: [0.0; 3],
            std_ratio: [0.0; 3],
        };
        for channel in 0..3 {
            let units = || self.channels[channel].iter().map(|sample| f64::from(transfer.unit(channel, *sample)));
            let mean = units().sum::<f64>() / count as f64;
            let variance = units().map(|unit| (unit - mean) * (unit - mean)).sum::<f64>() / count as f64;
            let (expected_mean, expected_std) = (f64::from(expected.mean[channel]), f64::from(expected.std[channel]));
            found.mean[channel] = mean;
            found.std[channel] = variance.sqrt();
            found.z[channel] = (mean - expected_mean) / expected_std;
            found.std_ratio[channel] = variance.sqrt() / expected_std;
        }
        Some(found)
    }
}

/// A scene on the scale of 0 to 1, beside what the weights expect.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SceneStatistics {
    /// Where they were measured.
    pub sample: SampleKind,
    /// Valid pixels of the sample.
    pub pixels: u64,
    /// Mean of red, green and blue.
    pub mean: [f64; 3],
    /// Deviation of red, green and blue.
    pub std: [f64; 3],
    /// How far the means are from those of the weights, in their deviations.
    pub z: [f64; 3],
    /// The deviations as a share of those of the weights.
    pub std_ratio: [f64; 3],
}

impl SceneStatistics {
    /// What is wrong with the scale, in all likelihood; nothing if it looks like what the weights were trained on.
    pub fn mismatch(&self) -> Option<String> {
        let [red, green, blue] = self.z;
        if self.z.iter().all(|z| z.abs() > LARGEST_Z) {
            let tone = match self.z.iter().all(|z| *z < 0.0) {
                true => "darker than",
                false if self.z.iter().all(|z| *z > 0.0) => "brighter than",
                false => "other than",
            };
            return Some(format!(
                "far {tone} what the weights were trained on (z = {red:.1}, {green:.1}, {blue:.1} in red, green and blue)"
            ));
        }
        if self.std_ratio.iter().any(|ratio| *ratio < LEAST_DEVIATION) {
            let [red, green, blue] = self.std_ratio;
            return Some(format!(
                "far flatter than what the weights were trained on (deviations {red:.2}, {green:.2} and {blue:.2} times \
                 theirs in red, green and blue)"
            ));
        }
        None
    }
}

/// The whole raster, in pieces of whole blocks.
fn pieces(profile: &RasterProfile) -> Vec<PixelWindow> {
    let side = |block: u32| block.max(1).saturating_mul(256_u32.div_ceil(block.max(1)));
    let (width, height) = (side(profile.blocks.width_px), side(profile.blocks.height_px));
    let whole = profile.window();
    let rows = (0..i64::from(profile.height_px)).step_by(height as usize);
    rows.flat_map(|y_px| {
        let columns = (0..i64::from(profile.width_px)).step_by(width as usize);
        columns.filter_map(move |x_px| whole.intersection(&PixelWindow::new(x_px, y_px, width, height)))
    })
    .collect()
}

/// Blocks spread over the raster, none of which is empty.
fn blocks(raster: &dyn Raster) -> Vec<PixelWindow> {
    let profile = raster.profile();
    let (width, height) = (i64::from(profile.width_px), i64::from(profile.height_px));
    let block_pixels = u64::from(profile.blocks.width_px) * u64::from(profile.blocks.height_px);
    let is_grid_dear = block_pixels.saturating_mul((GRID * GRID) as u64) > BLOCKS_PIXELS;
    let fields = if is_grid_dear { 2 } else { GRID };
    let mut found: Vec<PixelWindow> = Vec::new();
    for row in 0..fields {
        for column in 0..fields {
            let (left, top) = (column * width / fields, row * height / fields);
            let (right, bottom) = ((column + 1) * width / fields, (row + 1) * height / fields);
            let field = PixelWindow::new(left, top, (right - left) as u32, (bottom - top) as u32);
            if let Some(block) = block_of(raster, field).filter(|block| !found.contains(block)) {
                found.push(block);
            }
        }
    }
    found
}

/// All blocks of a raster, in an order of which any beginning lies all over it: steps of about the golden ratio of their
/// number, without a common divisor.
fn spread(profile: &RasterProfile) -> impl Iterator<Item = PixelWindow> {
    let (width, height) = (profile.blocks.width_px.max(1), profile.blocks.height_px.max(1));
    let columns = u64::from(profile.width_px.div_ceil(width));
    let count = columns * u64::from(profile.height_px.div_ceil(height));
    let divisor = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut step = (count as f64 * 0.618_033_988_749_895) as u64;
    while divisor(step, count) > 1 {
        step += 1;
    }
    let whole = profile.window();
    (0..count).filter_map(move |index| {
        let place = (u128::from(index) * u128::from(step) % u128::from(count)) as u64;
        let (x, y) = (place % columns, place / columns);
        let block = PixelWindow::new(x as i64 * i64::from(width), y as i64 * i64::from(height), width, height);
        whole.intersection(&block)
    })
}

/// The block in the middle of a field, or where nothing is stored there, another one of it.
fn block_of(raster: &dyn Raster, mut field: PixelWindow) -> Option<PixelWindow> {
    let blocks = raster.profile().blocks;
    let (width, height) = (i64::from(blocks.width_px.max(1)), i64::from(blocks.height_px.max(1)));
    loop {
        if field.is_empty() || raster.is_empty(field) {
            return None;
        }
        let middle = (field.x_px + i64::from(field.width_px) / 2, field.y_px + i64::from(field.height_px) / 2);
        let block = PixelWindow::new(
            middle.0 / width * width,
            middle.1 / height * height,
            blocks.width_px.max(1),
            blocks.height_px.max(1),
        );
        let block = raster.profile().window().intersection(&block)?;
        if !raster.is_empty(block) {
            return Some(block);
        }
        // The quarter that is not empty: each has a smaller part of the index to look at.
        let (half_width, half_height) = (field.width_px.div_ceil(2), field.height_px.div_ceil(2));
        let quarters = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(x, y)| {
            let quarter = PixelWindow::new(
                field.x_px + x * i64::from(half_width),
                field.y_px + y * i64::from(half_height),
                half_width,
                half_height,
            );
            field.intersection(&quarter)
        });
        let smaller = quarters.into_iter().flatten().find(|quarter| *quarter != field && !raster.is_empty(*quarter))?;
        field = smaller;
    }
}

/// The valid samples of these windows.
fn gather(raster: &dyn Raster, windows: &[PixelWindow], bands: [usize; 3]) -> Result<[Vec<f64>; 3], RasterError> {
    let mut distinct: Vec<usize> = Vec::new();
    for band in bands {
        if !distinct.contains(&band) {
            distinct.push(band);
        }
    }
    let places = bands.map(|band| distinct.iter().position(|found| *found == band).unwrap_or(0));
    let windows: Vec<PixelWindow> = windows.iter().copied().filter(|window| !raster.is_empty(*window)).collect();
    raster.prefetch(&windows, &distinct);
    let mut channels: [Vec<f64>; 3] = Default::default();
    for window in windows {
        let mut read = match raster.read(window, &distinct) {
            Err(RasterError::Damaged { .. }) => continue,
            read => read?,
        };
        without_nan(&mut read);
        let pixels = read.valid.len();
        for (channel, place) in channels.iter_mut().zip(places) {
            let valid = (0..pixels).filter(|at| read.valid[*at]);
            channel.extend(valid.map(|at| read.samples.get(place * pixels + at)));
        }
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use dinov3_raster::{Opener, Options};
    use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, pattern, utm_tags};

    use super::*;

    fn raster(image: TiffImage) -> Box<dyn Raster> {
        Opener::new(Options::default()).open_bytes("test.tif", TiffFile::of(image).to_bytes()).unwrap()
    }

    #[test]
    fn what_lies_between_the_first_blocks_is_found() {
        // 5 x 5 blocks, of which the grid has all but those in the middle row and column; data are there alone.
        fn is_data(x: u32, y: u32) -> bool {
            (512..768).contains(&x) && (512..768).contains(&y)
        }
        let image = TiffImage {
            width_px: 1280,
            height_px: 1280,
            bands: 1,
            bits: 16,
            block_px: (256, 256),
            sample: |_, x, y| if is_data(x, y) { 1000 + u64::from(x) } else { 0 },
            tags: [utm_tags(), vec![(42113, TiffValue::Ascii("0"))]].concat(),
            ..TiffImage::default()
        };
        let raster = raster(image);
        let found = Sample::read(&*raster, [0; 3], false, true).unwrap();
        assert_eq!(found.pixels(), (0..1280 * 1280).filter(|at| is_data(at % 1280, at / 1280)).count());
        assert_eq!(found.percentiles(0, [0.0, 100.0]), Some([1512.0, 1767.0]));
        assert!(matches!(found.kind, SampleKind::Blocks { count: 17..=25 }), "{}", found.kind);
    }

    #[test]
    fn blocks_are_spread_and_each_comes_once() {
        for (width_px, height_px) in [(1280, 1280), (256, 256), (257, 4000), (3000, 700)] {
            let image = TiffImage { width_px, height_px, bands: 1, block_px: (256, 256), ..TiffImage::default() };
            let raster = raster(image);
            let blocks: Vec<_> = spread(raster.profile()).collect();
            let pixels: u64 = blocks.iter().map(PixelWindow::pixels).sum();
            assert_eq!(pixels, u64::from(width_px) * u64::from(height_px));
            assert!((1..blocks.len()).all(|index| !blocks[..index].contains(&blocks[index])));
        }
    }

    fn sample(values: &[f64]) -> Sample {
        Sample { kind: SampleKind::Whole, channels: [values.to_vec(), values.to_vec(), values.to_vec()] }
    }

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([7, 1, 3, 10], [0, 2, 50, 98, 100])
        let sample = sample(&[7.0, 1.0, 3.0, 10.0]);
        assert_eq!(sample.percentiles(0, [0.0, 100.0]), Some([1.0, 10.0]));
        assert_eq!(sample.percentiles(1, [2.0, 98.0]), Some([1.12, 9.82]));
        assert_eq!(sample.percentiles(2, [50.0, 50.0]), Some([5.0, 5.0]));
        assert_eq!(self::sample(&[]).percentiles(0, [2.0, 98.0]), None);
    }

    #[test]
    fn statistics_are_told_beside_those_of_the_weights() {
        let expected = Statistics { mean: [0.5, 0.25, 0.1], std: [0.25, 0.25, 0.1] };
        let found = sample(&[0.0, 255.0]).statistics(&Transfer::Levels, &expected).unwrap();
        assert_eq!((found.mean, found.std, found.pixels), ([0.5; 3], [0.5; 3], 2));
        assert_eq!((found.z[0], found.z[1], found.std_ratio[0]), (0.0, 1.0, 2.0));
        assert_eq!(found.mismatch(), None);
    }

    #[test]
    fn dark_and_flat_scenes_are_told() {
        let found = |levels: &[f64]| sample(levels).statistics(&Transfer::Levels, &Statistics::SATELLITE).unwrap();
        let dark = found(&[0.0, 20.0, 10.0]).mismatch().unwrap();
        assert!(dark.starts_with("far darker"), "{dark}");
        let flat = found(&[90.0, 95.0]).mismatch().unwrap();
        assert!(flat.starts_with("far flatter"), "{flat}");
        assert!(found(&[255.0, 250.0]).mismatch().unwrap().starts_with("far brighter"));
    }

    #[test]
    fn a_small_scene_is_measured_whole() {
        let raster = raster(TiffImage { tags: utm_tags(), ..TiffImage::default() });
        let found = Sample::read(&*raster, [0, 1, 2], false, true).unwrap();
        assert_eq!((found.kind, found.pixels()), (SampleKind::Whole, 7000));
        let sum: f64 = found.channels[1].iter().sum();
        let expected: u64 = (0..70).flat_map(|y| (0..100).map(move |x| pattern(1, x, y))).sum();
        assert_eq!(sum, expected as f64);
    }

    #[test]
    fn a_large_scene_is_measured_in_16_blocks_of_what_is_stored() {
        let large = TiffImage {
            width_px: 2048,
            height_px: 1024,
            bands: 1,
            block_px: (64, 64),
            sample: |_, x, y| u64::from(x / 64 + y / 64),
            tags: utm_tags(),
            ..TiffImage::default()
        };
        let found = Sample::read(&*raster(large.clone()), [0, 0, 0], false, true).unwrap();
        assert_eq!((found.kind, found.pixels()), (SampleKind::Blocks { count: 16 }, 16 * 64 * 64));
        // All that is stored is one block, in a corner of its field.
        let mut sparse = TiffImage { is_absent: |block| block != 32 * 2 + 7, ..large };
        sparse.tags.push((42113, TiffValue::Ascii("0")));
        let found = Sample::read(&*raster(sparse), [0, 0, 0], false, true).unwrap();
        assert_eq!((found.kind, found.pixels()), (SampleKind::Blocks { count: 1 }, 64 * 64));
        assert_eq!(found.channels[2][0], 9.0);
    }

    #[test]
    fn an_overview_is_measured_where_there_is_one() {
        let whole = TiffImage {
            width_px: 2048,
            height_px: 1024,
            sample: |_, _, _| 1,
            tags: utm_tags(),
            ..TiffImage::default()
        };
        let reduced = vec![(254, TiffValue::Long(vec![1]))];
        let overview =
            TiffImage { width_px: 1024, height_px: 512, sample: |_, _, _| 2, tags: reduced, ..whole.clone() };
        let file = TiffFile { images: vec![whole, overview], ..TiffFile::default() };
        let raster = Opener::new(Options::default()).open_bytes("test.tif", file.to_bytes()).unwrap();
        let found = Sample::read(&*raster, [0, 1, 2], false, true).unwrap();
        assert_eq!((found.kind, found.channels[0][0]), (SampleKind::Overview { level: 0 }, 2.0));
        // Not where a mask says more than the overview does.
        let found = Sample::read(&*raster, [0, 1, 2], true, true).unwrap();
        assert_eq!((found.kind, found.channels[0][0]), (SampleKind::Blocks { count: 16 }, 1.0));
    }
}
