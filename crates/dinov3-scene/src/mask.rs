//! Which pixels count, beyond what a file says of itself: by the values of a second raster, and by rules of a product.

use std::sync::Arc;

use dinov3_geo::{AffineTransform, PixelWindow};
use dinov3_raster::{MaskKind, Raster, RasterError, RasterProfile, RasterWindow, Samples};

/// Which values of a mask make a pixel invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskValues {
    /// The band of the mask, counted from 1.
    band: usize,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// One of these classes, first and last.
    Classes(Vec<(u32, u32)>),
    /// Any of these bits is set.
    Bits(u32),
}

impl MaskValues {
    /// Reads `3,8-10` (classes), `bits:0-4` (any of these bits is set), each also of another band than the first:
    /// `band2:1`.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "expected the values that are invalid, as 3,8-10, or their bits, as bits:1,3".to_string();
        let (band, rest) = match text.strip_prefix("band").and_then(|rest| rest.split_once(':')) {
            Some((band, rest)) => (band.parse().ok().filter(|band| *band > 0).ok_or_else(wrong)?, rest),
            None => (1, text),
        };
        let list = rest.strip_prefix("bits:");
        let mut ranges = Vec::new();
        for part in list.unwrap_or(rest).split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u32>().ok();
            let (first, last) =
                number(first).zip(number(last)).filter(|(first, last)| first <= last).ok_or_else(wrong)?;
            ranges.push((first, last));
        }
        let test = match list {
            None => Test::Classes(ranges),
            Some(_) if ranges.iter().any(|(_, last)| *last > 31) => return Err("bits are counted from 0 to 31".into()),
            Some(_) => {
                Test::Bits(ranges.iter().flat_map(|(first, last)| *first..=*last).fold(0, |bits, bit| bits | 1 << bit))
            }
        };
        Ok(Self { band, test })
    }

    /// Values of the first band.
    pub(crate) fn of_classes(classes: &[u32]) -> Self {
        Self { band: 1, test: Test::Classes(classes.iter().map(|class| (*class, *class)).collect()) }
    }

    /// Bits of the first band.
    pub(crate) fn of_bits(bits: &[u32]) -> Self {
        Self { band: 1, test: Test::Bits(bits.iter().fold(0, |mask, bit| mask | 1 << bit)) }
    }

    /// Whether a pixel of this value counts. What is no whole number from 0 on is no class, and does not.
    fn is_valid(&self, value: f64) -> bool {
        if value.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&value) {
            return false;
        }
        let value = value as u32;
        match &self.test {
            Test::Classes(ranges) => !ranges.iter().any(|(first, last)| (*first..=*last).contains(&value)),
            Test::Bits(bits) => value & bits == 0,
        }
    }
}

impl std::fmt::Display for MaskValues {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.band != 1 {
            write!(formatter, "band{}:", self.band)?;
        }
        let parts: Vec<String> = match &self.test {
            Test::Bits(bits) => {
                formatter.write_str("bits:")?;
                (0..32).filter(|bit| bits & (1 << bit) != 0).map(|bit| bit.to_string()).collect()
            }
            Test::Classes(ranges) => ranges
                .iter()
                .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
                .collect(),
        };
        formatter.write_str(&parts.join(","))
    }
}

/// What a product's zeros mean, whatever the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zeros {
    /// Nothing.
    AreSamples,
    /// A pixel of which one band that is read is 0 holds no data.
    AnyIsNoData,
    /// A pixel of which all bands that are read are 0 holds no data.
    AllAreNoData,
}

/// What a product's fourth band means, whatever the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpha {
    /// What the file says.
    AsInFile,
    /// There is none: the band is infrared.
    None,
    /// Band 4, where there is one.
    Fourth,
}

/// The rules of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PixelRules {
    pub zeros: Zeros,
    pub alpha: Alpha,
}

impl PixelRules {
    /// What files say.
    pub const NONE: Self = Self { zeros: Zeros::AreSamples, alpha: Alpha::AsInFile };
}

/// A raster of which fewer (or, where an opacity is none, more) pixels are valid than its file says.
pub(crate) struct Masked {
    inner: Box<dyn Raster>,
    rules: PixelRules,
    mask: Option<MaskRaster>,
}

/// A raster of classes or bits.
pub(crate) struct MaskRaster {
    raster: Arc<dyn Raster>,
    values: MaskValues,
    columns: Line,
    rows: Line,
}

/// From the pixels of a scene to those of its mask along one side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    step: f64,
    start: f64,
}

impl Line {
    /// The pixel of the mask in which the middle of a pixel of the scene lies.
    fn at(self, pixel: i64) -> i64 {
        (self.step * (pixel as f64 + 0.5) + self.start).floor() as i64
    }
}

impl MaskRaster {
    /// The mask of a scene on the grid of `scene`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with its name.
    pub fn new(raster: Box<dyn Raster>, values: MaskValues, scene: &RasterProfile) -> Result<Self, String> {
        let profile = raster.profile();
        if values.band > profile.bands.len() {
            return Err(format!("has {} bands, and no band {}", profile.bands.len(), values.band));
        }
        let grid = |profile: &RasterProfile| profile.georeference.transform().copied();
        let (Some(ours), Some(its)) = (grid(scene), grid(profile)) else {
            return Err("lies nowhere: a mask needs the georeference of its scene".to_owned());
        };
        match (scene.georeference.crs(), profile.georeference.crs()) {
            (Some(ours), Some(its)) if ours != its => {
                return Err(format!(
                    "is on {its}, the scene on {ours}: bring it there first (gdalwarp -t_srs {ours} -r near)"
                ));
            }
            _ => {}
        }
        let (columns, rows) = lines(&ours, &its, scene)?;
        Ok(Self { raster: Arc::from(raster), values, columns, rows })
    }

    /// The part of the mask that a window of the scene needs, if any of it lies in the mask.
    fn window(&self, window: PixelWindow) -> Option<PixelWindow> {
        let side = |line: Line, first: i64, length: u32| {
            let (a, b) = (line.at(first), line.at(first + i64::from(length) - 1));
            (a.min(b), a.abs_diff(b) + 1)
        };
        let (x_px, width) = side(self.columns, window.x_px, window.width_px);
        let (y_px, height) = side(self.rows, window.y_px, window.height_px);
        let size = |length: u64| u32::try_from(length).ok();
        let needed = PixelWindow::new(x_px, y_px, size(width)?, size(height)?);
        self.raster.profile().window().intersection(&needed)
    }

    /// Clears what is not valid. Beyond the mask nothing is.
    fn apply(&self, window: PixelWindow, valid: &mut [bool]) -> Result<(), RasterError> {
        let Some(part) = self.window(window) else {
            valid.fill(false);
            return Ok(());
        };
        let read = self.raster.read(part, &[self.values.band - 1])?;
        // What the mask's own no-data value is does not matter: its values are classes.
        let is_valid: Vec<bool> =
            (0..read.samples.len()).map(|at| self.values.is_valid(read.samples.get(at))).collect();
        let place = |line: Line, pixel: i64, start: i64, length: u32| {
            usize::try_from(line.at(pixel) - start).ok().filter(|place| *place < length as usize)
        };
        let columns: Vec<Option<usize>> =
            (window.x_px..window.right_px()).map(|x_px| place(self.columns, x_px, part.x_px, part.width_px)).collect();
        for (y_px, row) in (window.y_px..).zip(valid.chunks_exact_mut(window.width_px.max(1) as usize)) {
            let from = place(self.rows, y_px, part.y_px, part.height_px);
            for (valid, column) in row.iter_mut().zip(&columns) {
                *valid &=
                    from.zip(*column).is_some_and(|(row, column)| is_valid[row * part.width_px as usize + column]);
            }
        }
        Ok(())
    }
}

fn lines(scene: &AffineTransform, mask: &AffineTransform, profile: &RasterProfile) -> Result<(Line, Line), String> {
    let to_mask = mask.inverse().map_err(|error| error.to_string())?.compose(scene);
    let (width, height) = (f64::from(profile.width_px), f64::from(profile.height_px));
    // A hundredth of a pixel over the whole scene.
    if (to_mask.b * height).abs() > 0.01 || (to_mask.d * width).abs() > 0.01 {
        return Err("is turned against its scene".to_owned());
    }
    Ok((Line { step: to_mask.a, start: to_mask.c }, Line { step: to_mask.e, start: to_mask.f }))
}

impl Masked {
    pub fn new(inner: Box<dyn Raster>, rules: PixelRules, mask: Option<MaskRaster>) -> Self {
        Self { inner, rules, mask }
    }

    /// The band that says which pixels are opaque although the file does not call it so.
    fn opacity(&self) -> Option<usize> {
        let profile = self.inner.profile();
        let is_fourth = self.rules.alpha == Alpha::Fourth && profile.mask == MaskKind::AllValid;
        (is_fourth && profile.bands.len() == 4).then_some(3)
    }

    /// Whether the file takes a band for opacity that is none.
    fn has_false_alpha(&self) -> bool {
        self.rules.alpha == Alpha::None && matches!(self.inner.profile().mask, MaskKind::Alpha { .. })
    }
}

impl Raster for Masked {
    fn profile(&self) -> &RasterProfile {
        self.inner.profile()
    }

    fn version(&self) -> Option<(u64, &str)> {
        self.inner.version()
    }

    fn read(&self, window: PixelWindow, bands: &[usize]) -> Result<RasterWindow, RasterError> {
        let mut read = self.inner.read(window, bands)?;
        if self.has_false_alpha() {
            let inside = self.profile().window();
            let columns: Vec<bool> =
                (window.x_px..window.right_px()).map(|x_px| (0..inside.right_px()).contains(&x_px)).collect();
            for (y_px, row) in (window.y_px..).zip(read.valid.chunks_exact_mut(columns.len().max(1))) {
                let is_inside = (0..inside.bottom_px()).contains(&y_px);
                row.iter_mut().zip(&columns).for_each(|(valid, column)| *valid = is_inside && *column);
            }
        }
        if let Some(band) = self.opacity() {
            let opacity = self.inner.read(window, &[band])?;
            let samples = (0..opacity.samples.len()).map(|at| opacity.samples.get(at) > 0.0);
            read.valid.iter_mut().zip(samples).for_each(|(valid, is_opaque)| *valid &= is_opaque);
        }
        without_zeros(&mut read, self.rules.zeros);
        if let Some(mask) = &self.mask
            && read.valid.contains(&true)
        {
            mask.apply(window, &mut read.valid)?;
        }
        Ok(read)
    }

    fn is_empty(&self, window: PixelWindow) -> bool {
        let is_outside = self.profile().window().intersection(&window).is_none();
        let is_beyond_mask = self.mask.as_ref().is_some_and(|mask| mask.window(window).is_none());
        is_outside || is_beyond_mask || !self.has_false_alpha() && self.inner.is_empty(window)
    }

    fn row_of_windows_bytes(&self, height_px: u32, bands: usize) -> u64 {
        self.inner.row_of_windows_bytes(height_px, bands)
    }

    fn prefetch(&self, windows: &[PixelWindow], bands: &[usize]) {
        match self.opacity() {
            Some(band) => self.inner.prefetch(windows, &[bands, &[band]].concat()),
            None => self.inner.prefetch(windows, bands),
        }
        if let Some(mask) = &self.mask {
            let windows: Vec<PixelWindow> = windows.iter().filter_map(|window| mask.window(*window)).collect();
            mask.raster.prefetch(&windows, &[mask.values.band - 1]);
        }
    }

    /// Without the mask, which has classes that cannot be resampled: for pictures.
    fn overview(&self, level: usize) -> Result<Box<dyn Raster>, RasterError> {
        Ok(Box::new(Self { inner: self.inner.overview(level)?, rules: self.rules, mask: None }))
    }
}

fn without_zeros(read: &mut RasterWindow, zeros: Zeros) {
    if zeros == Zeros::AreSamples {
        return;
    }
    let (pixels, bands) = (read.valid.len(), read.bands);
    macro_rules! clear {
        ($($kind:ident)+) => {
            match &read.samples {
                $(Samples::$kind(values) => for (at, valid) in read.valid.iter_mut().enumerate().filter(|(_, valid)| **valid) {
                    let zeros_found = (0..bands).filter(|band| f64::from(values[band * pixels + at]) == 0.0).count();
                    *valid = match zeros {
                        Zeros::AnyIsNoData => zeros_found == 0,
                        _ => zeros_found < bands,
                    };
                },)+
                _ => {}
            }
        };
    }
    clear!(U8 I8 U16 I16 U32 I32 F32 F64);
}

#[cfg(test)]
mod tests {
    use dinov3_raster::{Opener, Options};
    use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};

    use super::*;

    fn raster(image: TiffImage) -> Box<dyn Raster> {
        Opener::new(Options::default()).open_bytes("test.tif", TiffFile::of(image).to_bytes()).unwrap()
    }

    fn rgb(sample: fn(u32, u32, u32) -> u64) -> TiffImage {
        let tags = utm_tags().into_iter().chain([(262, TiffValue::Short(vec![2]))]).collect();
        TiffImage { width_px: 8, height_px: 4, sample, tags, ..TiffImage::default() }
    }

    /// Classes on pixels of `size_m`, whose corner is that of the scene.
    fn classes(size_m: f64, width_px: u32, height_px: u32, sample: fn(u32, u32, u32) -> u64) -> TiffImage {
        let mut tags = utm_tags();
        tags[0].1 = TiffValue::Double(vec![size_m, size_m, 0.0]);
        TiffImage { width_px, height_px, bands: 1, sample, tags, ..TiffImage::default() }
    }

    fn valid(raster: &dyn Raster, window: PixelWindow) -> Vec<bool> {
        raster.read(window, &[0, 1, 2]).unwrap().valid
    }

    #[test]
    fn values_are_read_and_written_alike() {
        for text in ["3,8-10", "0", "bits:0,1,4", "band8:bits:0", "band2:1"] {
            assert_eq!(MaskValues::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(MaskValues::parse("bits:1-3").unwrap().to_string(), "bits:1,2,3");
        for wrong in ["", "a", "3,", "9-8", "bits:32", "bits:", "band0:1", "band:1", "-1", "3;8"] {
            assert!(MaskValues::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn classes_and_bits_make_pixels_invalid() {
        let classes = MaskValues::parse("3,8-10").unwrap();
        let found: Vec<u32> = (0..12).filter(|class| !classes.is_valid(f64::from(*class))).collect();
        assert_eq!(found, [3, 8, 9, 10]);
        let bits = MaskValues::parse("bits:1,3").unwrap();
        assert!(bits.is_valid(0.0) && bits.is_valid(5.0) && !bits.is_valid(2.0) && !bits.is_valid(9.0));
        assert!(!bits.is_valid(f64::NAN) && !bits.is_valid(-1.0) && !bits.is_valid(0.5));
    }

    #[test]
    fn a_coarser_mask_is_taken_by_the_nearest_pixel() {
        let scene = raster(rgb(|_, _, _| 7));
        // 20 m over 10 m: the class is the column of the mask.
        let mask = raster(classes(20.0, 4, 2, |_, x, _| u64::from(x)));
        let values = MaskValues::parse("1,3").unwrap();
        let mask = MaskRaster::new(mask, values, scene.profile()).unwrap();
        let masked = Masked::new(scene, PixelRules::NONE, Some(mask));
        let row = [true, true, false, false, true, true, false, false];
        assert_eq!(valid(&masked, PixelWindow::new(0, 0, 8, 1)), row);
        assert_eq!(valid(&masked, PixelWindow::new(3, 2, 3, 2)), [row[3..6].to_vec(), row[3..6].to_vec()].concat());
    }

    #[test]
    fn beyond_the_mask_nothing_is_valid() {
        let scene = raster(rgb(|_, _, _| 7));
        let mask = raster(classes(10.0, 3, 2, |_, _, _| 4));
        let mask = MaskRaster::new(mask, MaskValues::of_classes(&[0]), scene.profile()).unwrap();
        let masked = Masked::new(scene, PixelRules::NONE, Some(mask));
        let found = valid(&masked, PixelWindow::new(0, 0, 8, 4));
        let expected: Vec<bool> = (0..32).map(|at| at % 8 < 3 && at / 8 < 2).collect();
        assert_eq!(found, expected);
        assert!(masked.is_empty(PixelWindow::new(4, 0, 2, 2)) && !masked.is_empty(PixelWindow::new(2, 0, 2, 2)));
    }

    #[test]
    fn a_mask_in_another_reference_system_is_refused() {
        let scene = raster(rgb(|_, _, _| 7));
        let mut image = classes(10.0, 8, 4, |_, _, _| 4);
        image.tags[2].1 = TiffValue::Short(vec![1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32634]);
        let refused = MaskRaster::new(raster(image), MaskValues::of_classes(&[0]), scene.profile()).err().unwrap();
        assert!(refused.contains("EPSG:32634") && refused.contains("gdalwarp -t_srs EPSG:32633"), "{refused}");
        let one_band = raster(classes(10.0, 8, 4, |_, _, _| 4));
        let values = MaskValues::parse("band2:1").unwrap();
        assert_eq!(MaskRaster::new(one_band, values, scene.profile()).err().unwrap(), "has 1 bands, and no band 2");
    }

    #[test]
    fn zeros_are_no_data_by_the_rule_of_the_product() {
        // Column 0 is 0 in all bands, column 1 in one of them.
        let image = || raster(rgb(|band, x, _| u64::from(x > 1 || x == 1 && band != 1)));
        let row = PixelWindow::new(0, 0, 4, 1);
        let with = |zeros| valid(&Masked::new(image(), PixelRules { zeros, ..PixelRules::NONE }, None), row);
        assert_eq!(with(Zeros::AreSamples), [true; 4]);
        assert_eq!(with(Zeros::AllAreNoData), [false, true, true, true]);
        assert_eq!(with(Zeros::AnyIsNoData), [false, false, true, true]);
    }

    #[test]
    fn a_fourth_band_is_opacity_or_not_as_the_product_says() {
        let four = |extra: u16| {
            let mut image = rgb(|band, x, _| if band == 3 { u64::from(x % 2) } else { 9 });
            image.bands = 4;
            image.tags.push((338, TiffValue::Short(vec![extra])));
            raster(image)
        };
        let row = PixelWindow::new(-1, 0, 4, 1);
        let with = |extra, alpha| valid(&Masked::new(four(extra), PixelRules { alpha, ..PixelRules::NONE }, None), row);
        assert_eq!(with(2, Alpha::AsInFile), [false, false, true, false]);
        assert_eq!(with(2, Alpha::None), [false, true, true, true]);
        assert_eq!(with(0, Alpha::AsInFile), [false, true, true, true]);
        assert_eq!(with(0, Alpha::Fourth), [false, false, true, false]);
    }
}
