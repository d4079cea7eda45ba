//! The published values of the real checkpoints, and the comparison of a model with them.
//!
//! Whoever has the weights can so prove that file, decoder, recipe and encoder are right together, without Python.
//!
//! The values are those that the conversion scripts of Transformers check the converted models by
//! (`convert_dinov3_vit_to_hf.py`, `convert_dinov3_convnext_to_hf.py`), there to a tolerance of 1e-3: for the picture
//! 000000039769 of COCO val2017, resized to 224 x 224 by the `hf` recipe with ImageNet's statistics (for the satellite
//! weights too), the first five numbers of the normed CLS token and of the first normed patch token.
//!
//! A ConvNeXt has no CLS token. As in Meta's code its place is taken by the LayerNorm of the mean over all pixels of
//! the last map, which is also timm's pooled output; its first patch token is the same LayerNorm of the first pixel.

use dinov3_model::encoder::{EncodeError, Encoder, Features, Pooling, Request};
use dinov3_model::spec::ModelSpec;
use dinov3_pixels::{PixelError, Recipe, RgbImage, Statistics};

use crate::image::batch_of_one;

/// The picture that the values belong to.
pub const PICTURE: &str = "COCO val2017 000000039769.jpg";
/// Its width and height.
pub const PICTURE_SIZE_PX: (u32, u32) = (640, 480);
/// The largest difference that the conversion scripts allow.
pub const TOLERANCE: f64 = 1e-3;
/// How many numbers of a token are published.
pub const PUBLISHED_VALUES: usize = 5;

/// The first numbers of two tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GoldenValues {
    /// Of the normed CLS token; of a ConvNeXt, of the normed mean.
    pub cls: [f32; PUBLISHED_VALUES],
    /// Of the first normed patch token.
    pub patch_0: [f32; PUBLISHED_VALUES],
}

/// One published number beside the one found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GoldenRow {
    /// `CLS` or `patch 0`.
    pub token: &'static str,
    /// Which number of the token.
    pub index: usize,
    /// As published.
    pub expected: f32,
    /// As computed.
    pub found: f32,
}

impl GoldenRow {
    /// found - expected.
    pub fn difference(&self) -> f64 {
        f64::from(self.found) - f64::from(self.expected)
    }

    /// Whether the difference is within [`TOLERANCE`]. Not-a-number never is.
    pub fn agrees(&self) -> bool {
        self.difference().abs() <= TOLERANCE
    }
}

/// Why a model could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// The picture cannot be prepared.
    #[error(transparent)]
    Pixels(#[from] PixelError),
    /// The model cannot encode it.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The model gives fewer numbers than are published.
    #[error("{model} gives {found} numbers per token; {PUBLISHED_VALUES} are needed")]
    TooNarrow {
        /// The model.
        model: String,
        /// Numbers per token.
        found: usize,
    },
}

/// The published values of a model, if there are any. A `_qkvb` model has those of the plain one: its biases are zero.
pub fn published(spec: &ModelSpec) -> Option<&'static GoldenValues> {
    let name = spec.name.replace("_qkvb", "");
    TABLE.iter().find(|row| row.0 == name).map(|row| &row.1)
}

/// The models with published values.
pub fn published_models() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.0)
}

/// What a model makes of the picture.
///
/// # Errors
/// If the picture cannot be prepared or encoded.
pub fn values_of(encoder: &mut dyn Encoder, picture: &RgbImage) -> Result<GoldenValues, GoldenError> {
    let input = Recipe::hf(Statistics::IMAGENET).apply(picture)?;
    let is_vit = encoder.spec().vit().is_some();
    let model = encoder.spec().name.clone();
    let patch_0 = encoder.spec().vit().map_or(0, |vit| vit.prefix_tokens());
    let mut features = Features::default();
    let request = Request::new().poolings([Pooling::Average, Pooling::None]);
    encoder.encode(&batch_of_one(&input), &request, &mut features)?;
    let of = |pooling| features.pooled.iter().find(|pooled| pooled.0 == pooling).map(|pooled| &pooled.1);
    // [1, D], and [1, T, D] (ViT) or [1, C, h, w] (ConvNeXt).
    let (mean, all) = (of(Pooling::Average), of(Pooling::None));
    let width = mean.map_or(0, |mean| mean.data.len());
    let too_narrow = || GoldenError::TooNarrow { model: model.clone(), found: width };
    let (Some(mean), Some(all)) = (mean, all) else { return Err(too_narrow()) };
    let first = |values: &mut dyn Iterator<Item = f32>| -> Result<[f32; PUBLISHED_VALUES], GoldenError> {
        values.take(PUBLISHED_VALUES).collect::<Vec<_>>().try_into().map_err(|_| too_narrow())
    };
    if width < PUBLISHED_VALUES {
        return Err(too_narrow());
    }
    if is_vit {
        let token = |index: usize| all.data.chunks(width).nth(index).unwrap_or_default().iter().copied();
        return Ok(GoldenValues { cls: first(&mut token(0))?, patch_0: first(&mut token(patch_0))? });
    }
    // The first pixel of each channel.
    let pixels = all.data.len() / width;
    let pixel_0 = &mut all.data.iter().step_by(pixels.max(1)).copied();
    Ok(GoldenValues { cls: first(&mut mean.data.iter().copied())?, patch_0: first(pixel_0)? })
}

/// Each published number beside the one found.
pub fn compare(expected: &GoldenValues, found: &GoldenValues) -> Vec<GoldenRow> {
    let rows = |token, expected: [f32; PUBLISHED_VALUES], found: [f32; PUBLISHED_VALUES]| {
        let pairs = expected.into_iter().zip(found).enumerate();
        pairs.map(move |(index, (expected, found))| GoldenRow { token, index, expected, found })
    };
    rows("CLS", expected.cls, found.cls).chain(rows("patch 0", expected.patch_0, found.patch_0)).collect()
}

const fn row(name: &'static str, cls: [f32; 5], patch_0: [f32; 5]) -> (&'static str, GoldenValues) {
    (name, GoldenValues { cls, patch_0 })
}

#[rustfmt::skip]
static TABLE: [(&str, GoldenValues); 12] = [
    row("vit_small_patch16_dinov3.lvd1689m", [0.463561, -0.415609, 0.408236, -0.126613, -0.286636], [-0.038754, -0.250895, -0.016392, -0.455473, 0.571582]),
    row("vit_small_plus_patch16_dinov3.lvd1689m", [-0.471349, -1.365778, -0.317983, 0.377219, -0.769085], [0.144551, -0.388117, -0.393433, -0.157695, -0.600380]),
    row("vit_base_patch16_dinov3.lvd1689m", [1.034643, -0.180609, -0.341018, -0.066376, -0.011383], [-0.082523, -0.456272, -0.728029, -0.430680, -0.152880]),
    row("vit_large_patch16_dinov3.lvd1689m", [0.484527, -0.582214, 0.480636, 0.592040, 0.945166], [-0.211367, -0.490863, -0.257131, 0.101763, 0.154511]),
    row("vit_huge_plus_patch16_dinov3.lvd1689m", [-0.064575, -0.148866, -0.621524, 0.634878, 0.152695], [-0.093817, 0.287407, -0.050036, 0.428043, 0.094561]),
    row("vit_7b_patch16_dinov3.lvd1689m", [0.275439, -0.261353, 0.067772, 0.049936, -0.158747], [0.044442, -0.052542, 0.070777, -0.065111, -0.026546]),
    row("vit_large_patch16_dinov3.sat493m", [-0.33235, 0.34052, -0.22087, 0.21434, 0.09003], [0.18488, 0.30309, -0.20689, 0.12848, 0.06207]),
    row("vit_7b_patch16_dinov3.sat493m", [-0.19779, 0.11819, -0.00581, -0.21055, -0.03971], [-0.12423, 0.07879, -0.10057, 0.02835, -0.11727]),
    row("convnext_tiny.dinov3_lvd1689m", [-6.372119, 1.300791, 2.074303, -0.079975, 0.607205], [0.490530, -3.713466, 1.848513, -1.040319, -1.090818]),
    row("convnext_small.dinov3_lvd1689m", [-0.903914, 1.412183, 0.287465, 0.175296, -2.39794], [-1.081114, 0.637362, 3.748765, 0.170179, 1.445153]),
    row("convnext_base.dinov3_lvd1689m", [0.155366, -0.378771, -0.735157, -2.818718, 0.015095], [3.039118, 0.778155, -1.961322, -1.607147, -2.411941]),
    row("convnext_large.dinov3_lvd1689m", [-2.219094, -0.594451, -2.300294, -0.957415, -0.520473], [-1.477349, -0.217038, -3.128137, 0.418962, 0.334949]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dinov3_checkpoint_has_published_values() {
        for name in published_models() {
            let spec = dinov3_model::spec::find(name).unwrap();
            assert_eq!(spec.name, name);
            assert!(published(&spec).is_some());
        }
        let qkvb = dinov3_model::spec::find("vit_small_patch16_dinov3_qkvb").unwrap();
        assert_eq!(published(&qkvb), published(&dinov3_model::spec::find("vit_small_patch16_dinov3").unwrap()));
    }

    #[test]
    fn a_difference_beyond_the_tolerance_disagrees() {
        let expected = TABLE[0].1;
        let mut found = expected;
        assert!(compare(&expected, &found).iter().all(GoldenRow::agrees));
        found.cls[2] += 9e-4;
        found.patch_0[4] -= 2e-3;
        found.patch_0[0] = f32::NAN;
        let wrong: Vec<_> = compare(&expected, &found).into_iter().filter(|row| !row.agrees()).collect();
        assert_eq!(
            wrong.iter().map(|row| (row.token, row.index)).collect::<Vec<_>>(),
            [("patch 0", 0), ("patch 0", 4)]
        );
    }
}
