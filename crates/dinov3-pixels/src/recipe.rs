//! Recipes: which size, which part and which scale a picture gets before it enters a model.

use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;
use crate::resize::float::resize_bilinear;
use crate::resize::{Arithmetic, Filter, Kernel, Window, resize_window};

/// What a resized picture of the wrong shape is made to fit with; the names are timm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CropMode {
    /// The shorter side is resized to the target and the middle is kept.
    Center,
    /// Both sides are resized to the target; the proportions are not kept.
    Squash,
    /// The longer side is resized to the target and the rest is filled with the mean colour.
    Border,
}

/// The mean and standard deviation of each channel, on the scale where white is 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// The means of red, green and blue.
    pub mean: [f32; 3],
    /// The standard deviations of red, green and blue.
    pub std: [f32; 3],
}

impl Statistics {
    /// ImageNet's, which the models trained on web pictures expect.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// Those of the models trained on satellite pictures.
    pub const SATELLITE: Self = Self { mean: [0.430, 0.411, 0.296], std: [0.213, 0.156, 0.143] };

    fn check(&self) -> Result<(), PixelError> {
        for mean in self.mean {
            if !mean.is_finite() {
                return Err(PixelError::InvalidRecipe {
                    field: "mean",
                    value: mean.into(),
                    reason: "it must be finite",
                });
            }
        }
        for std in self.std {
            if !(std.is_finite() && std > 0.0) {
                return Err(PixelError::InvalidRecipe {
                    field: "std",
                    value: std.into(),
                    reason: "it must be finite and above 0",
                });
            }
        }
        Ok(())
    }
}

/// timm's evaluation transform, from the entries of a model's data config.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimmRecipe {
    /// The height that the model gets, in pixels.
    pub height_px: u32,
    /// The width that the model gets, in pixels.
    pub width_px: u32,
    /// The interpolation.
    pub filter: Filter,
    /// The part of the resized picture that is kept, above 0.
    pub crop_pct: f64,
    /// How the picture is made to fit.
    pub crop_mode: CropMode,
    /// The statistics to normalise by.
    pub statistics: Statistics,
}

/// A resize to exactly one size; the proportions are not kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SquashRecipe {
    /// The height that the model gets, in pixels.
    pub height_px: u32,
    /// The width that the model gets, in pixels.
    pub width_px: u32,
    /// The statistics to normalise by.
    pub statistics: Statistics,
}

/// A resize of the shorter side, and the middle of the result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShorterSideRecipe {
    /// The length that the shorter side is resized to, in pixels.
    pub shorter_side_px: u32,
    /// The height that the model gets, in pixels.
    pub height_px: u32,
    /// The width that the model gets, in pixels.
    pub width_px: u32,
    /// The statistics to normalise by.
    pub statistics: Statistics,
}

impl ShorterSideRecipe {
    /// Meta's proportion of 256 to 224; of a crop that is not square the longer side counts, so that the crop fits.
    fn shorter_side_for(height_px: u32, width_px: u32) -> u32 {
        u32::try_from(256 * u64::from(height_px.max(width_px)) / 224).unwrap_or(u32::MAX)
    }
}

/// How a picture becomes the input of a model.
///
/// The recipes of different projects give different pixels for one picture, so a model's numbers are comparable only
/// within one of them.
///
/// ```
/// use dinov3_pixels::{CropMode, Filter, Recipe, RgbImage, Statistics, TimmRecipe};
///
/// let recipe = Recipe::Timm(TimmRecipe {
///     height_px: 256,
///     width_px: 256,
///     filter: Filter::Bicubic,
///     crop_pct: 1.0,
///     crop_mode: CropMode::Center,
///     statistics: Statistics::IMAGENET,
/// });
/// let image = RgbImage::from_raw(640, 480, vec![128; 640 * 480 * 3])?;
/// let input = recipe.apply(&image)?;
/// assert_eq!((input.height_px, input.width_px), (256, 256));
/// # Ok::<(), dinov3_pixels::PixelError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Recipe {
    /// timm's evaluation transform, on Pillow pictures.
    Timm(TimmRecipe),
    /// The defaults of Transformers' `DINOv3ViTImageProcessor`: levels to 0..1 first, then a bilinear antialiased
    /// resize in f32.
    Hf(SquashRecipe),
    /// The transform in the README of Meta's repository: torchvision's bilinear antialiased resize of an 8-bit tensor.
    Meta(SquashRecipe),
    /// `make_classification_eval_transform` of Meta's repository: torchvision's bicubic antialiased resize of the
    /// shorter side of an 8-bit tensor, then the middle.
    MetaEval(ShorterSideRecipe),
    /// The picture in its own size.
    Native {
        /// The statistics to normalise by.
        statistics: Statistics,
    },
}

/// Normalised pixels: three planes (red, green, blue) of `height_px` rows of `width_px` values.
#[derive(Debug, Clone, PartialEq)]
pub struct NormalizedImage {
    /// The height in pixels.
    pub height_px: usize,
    /// The width in pixels.
    pub width_px: usize,
    /// `3 * height_px * width_px` values.
    pub data: Vec<f32>,
}

/// The largest side that a recipe may resize to; a very long and thin picture would else need any amount of memory.
const MAX_RESIZED_SIDE_PX: u64 = 1 << 24;

/// The most pixels of the window that is computed.
const MAX_RESULT_PIXELS: u64 = 1 << 30;

/// How levels become values between 0 and 1. The two ways differ in the last bit of half of the levels.
#[derive(Clone, Copy)]
enum Unit {
    /// `x / 255`, as the `ToTensor` of timm's transform.
    Divide,
    /// `x * (1 / 255)`, as torchvision's `ToDtype` and Transformers' `rescale`.
    Multiply,
}

impl Unit {
    fn of(self, level: usize) -> f32 {
        match self {
            Self::Divide => level as f32 / 255.0,
            Self::Multiply => level as f32 * (1.0_f64 / 255.0) as f32,
        }
    }
}

impl Recipe {
    /// Transformers' recipe with its default size, 224 x 224.
    #[must_use]
    pub fn hf(statistics: Statistics) -> Self {
        Self::Hf(SquashRecipe { height_px: 224, width_px: 224, statistics })
    }

    /// The recipe of Meta's README with its default size, 256 x 256.
    #[must_use]
    pub fn meta(statistics: Statistics) -> Self {
        Self::Meta(SquashRecipe { height_px: 256, width_px: 256, statistics })
    }

    /// Meta's evaluation recipe with its defaults: the shorter side to 256, of which the middle 224 x 224.
    #[must_use]
    pub fn meta_eval(statistics: Statistics) -> Self {
        Self::MetaEval(ShorterSideRecipe { shorter_side_px: 256, height_px: 224, width_px: 224, statistics })
    }

    /// The recipe's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Timm(_) => "timm",
            Self::Hf(_) => "hf",
            Self::Meta(_) => "meta",
            Self::MetaEval(_) => "meta-eval",
            Self::Native { .. } => "native",
        }
    }

    /// The statistics that the recipe normalises by.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        match self {
            Self::Timm(recipe) => recipe.statistics,
            Self::Hf(recipe) | Self::Meta(recipe) => recipe.statistics,
            Self::MetaEval(recipe) => recipe.statistics,
            Self::Native { statistics } => *statistics,
        }
    }

    /// The same recipe with other statistics.
    #[must_use]
    pub fn with_statistics(mut self, other: Statistics) -> Self {
        match &mut self {
            Self::Timm(recipe) => recipe.statistics = other,
            Self::Hf(recipe) | Self::Meta(recipe) => recipe.statistics = other,
            Self::MetaEval(recipe) => recipe.statistics = other,
            Self::Native { statistics } => *statistics = other,
        }
        self
    }

    /// The same recipe for another input size. Meta's evaluation recipe resizes in proportion, to 256/224 of the
    /// crop's longer side, rounded down. A native recipe has no size and stays as it is.
    #[must_use]
    pub fn with_size(mut self, height_px: u32, width_px: u32) -> Self {
        match &mut self {
            Self::Timm(recipe) => (recipe.height_px, recipe.width_px) = (height_px, width_px),
            Self::Hf(recipe) | Self::Meta(recipe) => (recipe.height_px, recipe.width_px) = (height_px, width_px),
            Self::MetaEval(recipe) => {
                (recipe.height_px, recipe.width_px) = (height_px, width_px);
                recipe.shorter_side_px = ShorterSideRecipe::shorter_side_for(height_px, width_px);
            }
            Self::Native { .. } => {}
        }
        self
    }

    /// Resizes, crops and normalises.
    ///
    /// # Errors
    ///
    /// [`PixelError::InvalidRecipe`], [`PixelError::LimitExceeded`] or [`PixelError::OutOfMemory`].
    pub fn apply(&self, image: &RgbImage) -> Result<NormalizedImage, PixelError> {
        let statistics = self.statistics();
        statistics.check()?;
        match self {
            Self::Timm(recipe) => normalize(&recipe.apply_to_rgb(image)?, &statistics, Unit::Divide),
            Self::Hf(recipe) => recipe.apply_in_f32(image),
            Self::Meta(recipe) => normalize(&recipe.apply_to_rgb(image)?, &statistics, Unit::Multiply),
            Self::MetaEval(recipe) => normalize(&recipe.apply_to_rgb(image)?, &statistics, Unit::Multiply),
            Self::Native { .. } => normalize(image, &statistics, Unit::Divide),
        }
    }
}

impl SquashRecipe {
    fn size(&self) -> (u32, u32) {
        (self.height_px, self.width_px)
    }

    fn apply_to_rgb(&self, image: &RgbImage) -> Result<RgbImage, PixelError> {
        check_target(self.size())?;
        resize_and_crop(image, self.size(), self.size(), Filter::Bilinear, Arithmetic::Torch, [0; 3])
    }

    fn apply_in_f32(&self, image: &RgbImage) -> Result<NormalizedImage, PixelError> {
        check_target(self.size())?;
        let (height, width) = (self.height_px as usize, self.width_px as usize);
        let levels: [f32; 256] = std::array::from_fn(|level| Unit::Multiply.of(level));
        let pixels = resize_bilinear(image, width, height, &levels)?;
        let mut data = Vec::new();
        let bytes = pixels.len() as u64 * 4;
        data.try_reserve_exact(pixels.len()).map_err(|_| PixelError::OutOfMemory { bytes })?;
        for (channel, (mean, std)) in self.statistics.mean.into_iter().zip(self.statistics.std).enumerate() {
            data.extend(pixels.chunks_exact(3).map(|pixel| (pixel[channel] - mean) / std));
        }
        Ok(NormalizedImage { height_px: height, width_px: width, data })
    }
}

impl ShorterSideRecipe {
    fn apply_to_rgb(&self, image: &RgbImage) -> Result<RgbImage, PixelError> {
        let target = (self.height_px, self.width_px);
        check_target(target)?;
        let shorter = f64::from(self.shorter_side_px);
        let (height, width) = shorter_side_to(shorter, f64::from(image.height_px()), f64::from(image.width_px()));
        let resized = checked_size(height, width)?;
        // torchvision pads with black where the crop is larger than the picture.
        resize_and_crop(image, resized, target, Filter::Bicubic, Arithmetic::Torch, [0; 3])
    }
}

/// Refuses a target without pixels or with absurdly many.
fn check_target((height_px, width_px): (u32, u32)) -> Result<(), PixelError> {
    if height_px == 0 || width_px == 0 {
        return Err(PixelError::Empty { width_px: width_px.into(), height_px: height_px.into() });
    }
    let pixels = u64::from(height_px) * u64::from(width_px);
    if pixels > MAX_RESULT_PIXELS {
        return Err(PixelError::LimitExceeded {
            quantity: "the number of pixels of the recipe's result",
            value: pixels,
            limit: MAX_RESULT_PIXELS,
        });
    }
    Ok(())
}

/// torchvision's rule for one number: the shorter side gets it, the other is cut to an integer. Height, then width.
fn shorter_side_to(shorter: f64, height: f64, width: f64) -> (f64, f64) {
    let (short, long) = if width <= height { (width, height) } else { (height, width) };
    // Python multiplies the integers exactly before it divides; below 2^53 so does f64.
    let new_long = (shorter * long / short).trunc();
    if width <= height { (new_long, shorter) } else { (shorter, new_long) }
}

/// A resized size as integers, if it is usable.
fn checked_size(height: f64, width: f64) -> Result<(u32, u32), PixelError> {
    let side = |value: f64| -> Result<u32, PixelError> {
        // A cast from f64 saturates, so a huge or undefined value still meets the comparison.
        let value = value as u64;
        if value > MAX_RESIZED_SIDE_PX {
            return Err(PixelError::LimitExceeded {
                quantity: "a side of the resized picture in pixels",
                value,
                limit: MAX_RESIZED_SIDE_PX,
            });
        }
        Ok(value as u32)
    };
    let (height, width) = (side(height)?, side(width)?);
    if height == 0 || width == 0 {
        return Err(PixelError::Empty { width_px: width.into(), height_px: height.into() });
    }
    Ok((height, width))
}

/// Resizes to `resized` and keeps the middle of size `target`, on a background of `fill`. Sizes are height, width.
fn resize_and_crop(
    image: &RgbImage,
    resized: (u32, u32),
    target: (u32, u32),
    filter: Filter,
    arithmetic: Arithmetic,
    fill: [u8; 3],
) -> Result<RgbImage, PixelError> {
    let rows = Placement::new(resized.0 as usize, target.0 as usize);
    let columns = Placement::new(resized.1 as usize, target.1 as usize);
    let (target_height, target_width) = (target.0 as usize, target.1 as usize);
    // Only what survives the crop is computed.
    let window = Window { left: columns.skipped, top: rows.skipped, width: columns.kept, height: rows.kept };
    let kept = resize_window(image, (resized.1, resized.0), filter, arithmetic, window, Kernel::best())?;
    if (columns.kept, rows.kept) == (target_width, target_height) {
        return Ok(kept);
    }
    let mut data = zeroed_bytes(target_width as u64 * target_height as u64 * 3)?;
    if fill != [0; 3] {
        data.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&fill));
    }
    let middle = data.chunks_exact_mut(target_width * 3).skip(rows.padding).take(rows.kept);
    for (y, row) in middle.enumerate() {
        row[columns.padding * 3..][..columns.kept * 3].copy_from_slice(kept.row(y));
    }
    RgbImage::from_raw(target.1, target.0, data)
}

impl TimmRecipe {
    fn apply_to_rgb(&self, image: &RgbImage) -> Result<RgbImage, PixelError> {
        let resized = self.resized_size(image.height_px().into(), image.width_px().into())?;
        let fill = match self.crop_mode {
            CropMode::Border => self.statistics.mean.map(fill_level),
            CropMode::Center | CropMode::Squash => [0; 3],
        };
        resize_and_crop(image, resized, (self.height_px, self.width_px), self.filter, Arithmetic::Pillow, fill)
    }

    /// The height and width of the whole resized picture, before the crop.
    fn resized_size(&self, height: u64, width: u64) -> Result<(u32, u32), PixelError> {
        let (target_height, target_width) = (self.height_px, self.width_px);
        check_target((target_height, target_width))?;
        if !(self.crop_pct.is_finite() && self.crop_pct > 0.0) {
            return Err(PixelError::InvalidRecipe {
                field: "crop_pct",
                value: self.crop_pct,
                reason: "it must be finite and above 0",
            });
        }
        let scale_height = (f64::from(target_height) / self.crop_pct).floor();
        let scale_width = (f64::from(target_width) / self.crop_pct).floor();
        let (height, width) = (height as f64, width as f64);
        let (resized_height, resized_width) = match self.crop_mode {
            CropMode::Squash => (scale_height, scale_width),
            CropMode::Center if scale_height == scale_width => shorter_side_to(scale_height, height, width),
            CropMode::Center | CropMode::Border => {
                let ratios = (height / scale_height, width / scale_width);
                let ratio = match self.crop_mode {
                    CropMode::Border => ratios.0.max(ratios.1),
                    _ => ratios.0.min(ratios.1),
                };
                ((height / ratio).round_ties_even(), (width / ratio).round_ties_even())
            }
        };
        checked_size(resized_height, resized_width)
    }
}

/// Where one axis of a resized picture lands in the target.
#[derive(Debug, PartialEq, Eq)]
struct Placement {
    /// Resized pixels cut off in front.
    skipped: usize,
    /// Resized pixels kept.
    kept: usize,
    /// Target pixels filled in front.
    padding: usize,
}

impl Placement {
    /// torchvision's centre crop, which pads first where the picture is smaller than the target.
    fn new(size: usize, target: usize) -> Self {
        if size < target {
            return Self { skipped: 0, kept: size, padding: (target - size) / 2 };
        }
        // Python rounds halves to the even neighbour.
        let skipped = ((size - target) as f64 / 2.0).round_ties_even() as usize;
        Self { skipped, kept: target, padding: 0 }
    }
}

/// timm's fill colour, `round(255 * mean)` on Python's f64.
fn fill_level(mean: f32) -> u8 {
    // 0.3 read as f32 is not 0.3 read as f64, and 255 * 0.3 is a half: go back to the decimal that was written.
    let written: f64 = mean.to_string().parse().unwrap_or_else(|_| f64::from(mean));
    (255.0 * written).round_ties_even() as u8
}

/// `(x - mean) / std` in f32, with x between 0 and 1, in the order in which torch does it.
fn normalize(image: &RgbImage, statistics: &Statistics, unit: Unit) -> Result<NormalizedImage, PixelError> {
    let pixel_count = image.width_px() as usize * image.height_px() as usize;
    let bytes = pixel_count as u64 * 12;
    let mut data = Vec::new();
    data.try_reserve_exact(pixel_count * 3).map_err(|_| PixelError::OutOfMemory { bytes })?;
    for channel in 0..3 {
        // A byte has 256 values: each is computed once.
        let table: [f32; 256] =
            std::array::from_fn(|level| (unit.of(level) - statistics.mean[channel]) / statistics.std[channel]);
        data.extend(image.data().chunks_exact(3).map(|pixel| table[usize::from(pixel[channel])]));
    }
    Ok(NormalizedImage { height_px: image.height_px() as usize, width_px: image.width_px() as usize, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(height_px: u32, width_px: u32, crop_pct: f64, crop_mode: CropMode) -> TimmRecipe {
        TimmRecipe {
            height_px,
            width_px,
            filter: Filter::Bicubic,
            crop_pct,
            crop_mode,
            statistics: Statistics::IMAGENET,
        }
    }

    #[test]
    fn sizes_before_the_crop() {
        let square = recipe(256, 256, 1.0, CropMode::Center);
        for (width, height, resized_width, resized_height) in
            [(640, 480, 341, 256), (333, 500, 256, 384), (100, 37, 691, 256), (1000, 667, 383, 256)]
        {
            assert_eq!(square.resized_size(height, width), Ok((resized_height, resized_width)));
        }
        assert_eq!(recipe(256, 256, 0.875, CropMode::Center).resized_size(480, 480), Ok((292, 292)));
        // Not square: the sides are rounded, not cut.
        assert_eq!(recipe(256, 384, 1.0, CropMode::Center).resized_size(480, 640), Ok((288, 384)));
        assert_eq!(recipe(256, 384, 1.0, CropMode::Squash).resized_size(480, 640), Ok((256, 384)));
        assert_eq!(recipe(256, 256, 1.0, CropMode::Border).resized_size(480, 640), Ok((192, 256)));
    }

    #[test]
    fn crops_round_halves_to_even() {
        assert_eq!(Placement::new(341, 256), Placement { skipped: 42, kept: 256, padding: 0 });
        assert_eq!(Placement::new(383, 256), Placement { skipped: 64, kept: 256, padding: 0 });
        assert_eq!(Placement::new(256, 256), Placement { skipped: 0, kept: 256, padding: 0 });
        assert_eq!(Placement::new(251, 256), Placement { skipped: 0, kept: 251, padding: 2 });
    }

    #[test]
    fn a_border_is_filled_with_the_mean() {
        let image = RgbImage::from_raw(20, 10, vec![9; 600]).unwrap();
        let result = recipe(16, 16, 1.0, CropMode::Border).apply_to_rgb(&image).unwrap();
        assert_eq!(&result.data()[..3], [124, 116, 104]);
        assert_eq!(result.row(8)[..3], [9, 9, 9]);
        assert_eq!(fill_level(0.3), 76);
        assert_eq!(fill_level(0.5), 128);
    }

    #[test]
    fn unusable_recipes_are_refused() {
        let image = RgbImage::from_raw(2, 2, vec![0; 12]).unwrap();
        for crop_pct in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let result = Recipe::Timm(recipe(8, 8, crop_pct, CropMode::Center)).apply(&image);
            assert!(matches!(result, Err(PixelError::InvalidRecipe { field: "crop_pct", .. })));
        }
        let mut zero_std = recipe(8, 8, 1.0, CropMode::Center);
        zero_std.statistics.std[1] = 0.0;
        assert!(matches!(Recipe::Timm(zero_std).apply(&image), Err(PixelError::InvalidRecipe { field: "std", .. })));
        assert!(matches!(
            Recipe::Timm(recipe(0, 8, 1.0, CropMode::Center)).apply(&image),
            Err(PixelError::Empty { .. })
        ));
        // All of a square crop's tiny remainder would need a resize to 0 pixels.
        assert!(Recipe::Timm(recipe(8, 8, 100.0, CropMode::Center)).apply(&image).is_err());
        let thin = RgbImage::from_raw(100_000, 1, vec![0; 300_000]).unwrap();
        assert!(matches!(
            Recipe::Timm(recipe(256, 256, 1.0, CropMode::Center)).apply(&thin),
            Err(PixelError::LimitExceeded { .. })
        ));
    }

    #[test]
    fn planes_are_red_green_blue() {
        let image = RgbImage::from_raw(1, 2, vec![255, 0, 128, 0, 255, 128]).unwrap();
        let statistics = Statistics { mean: [0.5, 0.25, 0.0], std: [0.5, 0.25, 1.0] };
        let input = Recipe::Native { statistics }.apply(&image).unwrap();
        assert_eq!((input.height_px, input.width_px), (2, 1));
        assert_eq!(input.data, [1.0, -1.0, -1.0, 3.0, 128.0 / 255.0, 128.0 / 255.0]);
    }

    #[test]
    fn the_recipes_of_other_projects_have_their_own_sizes() {
        let picture = RgbImage::from_raw(30, 20, vec![7; 1800]).unwrap();
        for (recipe, side) in [
            (Recipe::hf(Statistics::IMAGENET), 224),
            (Recipe::meta(Statistics::IMAGENET), 256),
            (Recipe::meta_eval(Statistics::SATELLITE), 224),
        ] {
            let input = recipe.apply(&picture).unwrap();
            assert_eq!((input.height_px, input.width_px), (side, side), "{}", recipe.name());
            let input = recipe.with_size(32, 48).apply(&picture).unwrap();
            assert_eq!((input.height_px, input.width_px, input.data.len()), (32, 48, 3 * 32 * 48), "{}", recipe.name());
            assert!(matches!(recipe.with_size(0, 5).apply(&picture), Err(PixelError::Empty { .. })));
            let huge = recipe.with_size(65_535, 65_535).apply(&picture);
            assert!(matches!(huge, Err(PixelError::LimitExceeded { .. })));
        }
    }

    #[test]
    fn the_evaluation_recipe_resizes_in_proportion_to_the_crop() {
        for (height, width, shorter) in [(224, 224, 256), (256, 256, 292), (512, 512, 585), (224, 448, 512)] {
            let recipe = Recipe::meta_eval(Statistics::IMAGENET).with_size(height, width);
            assert!(matches!(recipe, Recipe::MetaEval(eval) if eval.shorter_side_px == shorter), "{recipe:?}");
        }
    }

    #[test]
    fn statistics_can_be_replaced_in_every_recipe() {
        for recipe in [
            Recipe::Timm(recipe(8, 8, 1.0, CropMode::Center)),
            Recipe::hf(Statistics::IMAGENET),
            Recipe::meta(Statistics::IMAGENET),
            Recipe::meta_eval(Statistics::IMAGENET),
            Recipe::Native { statistics: Statistics::IMAGENET },
        ] {
            assert_eq!(recipe.with_statistics(Statistics::SATELLITE).statistics(), Statistics::SATELLITE);
        }
    }

    #[test]
    fn another_size() {
        let changed = Recipe::Timm(recipe(256, 256, 1.0, CropMode::Center)).with_size(320, 512);
        assert!(matches!(changed, Recipe::Timm(TimmRecipe { height_px: 320, width_px: 512, .. })));
        assert_eq!(changed.name(), "timm");
    }
}
