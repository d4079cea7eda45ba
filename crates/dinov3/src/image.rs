//! Pictures from files and URLs: decode, apply the recipe, hand over.

use std::path::{Path, PathBuf};

use dinov3_engine::{Item, ItemError, ItemErrorKind, Source};
use dinov3_model::encoder::ImageBatch;
use dinov3_model::spec::{self, ModelSpec};
use dinov3_pixels::{
    CropMode, DecodeOptions, Filter, NormalizedImage, PixelError, Recipe, RgbImage, Statistics, TimmRecipe, decode,
};
use serde_json::{Value, json};

/// The recipe of a model's own data config: what timm's `create_transform` does for it.
pub fn recipe(spec: &ModelSpec) -> Recipe {
    let data = &spec.data;
    Recipe::Timm(TimmRecipe {
        height_px: data.input_px.0 as u32,
        width_px: data.input_px.1 as u32,
        filter: match data.interpolation {
            spec::Interpolation::Bilinear => Filter::Bilinear,
            _ => Filter::Bicubic,
        },
        crop_pct: data.crop_pct,
        crop_mode: match data.crop_mode {
            spec::CropMode::Squash => CropMode::Squash,
            spec::CropMode::Border => CropMode::Border,
            _ => CropMode::Center,
        },
        statistics: statistics(spec),
    })
}

/// Mean and standard deviation that the model's weights expect.
pub fn statistics(spec: &ModelSpec) -> Statistics {
    Statistics { mean: spec.data.mean, std: spec.data.std }
}

/// A number as people write it: 0.485, and not the f64 nearest to that f32. For JSON; what is not finite is null there.
pub fn decimal(value: f32) -> Option<f64> {
    value.to_string().parse().ok().filter(|value: &f64| value.is_finite())
}

/// A recipe with its numbers, for provenance.
pub fn describe(recipe: &Recipe) -> Value {
    let statistics = recipe.statistics();
    let mut text =
        json!({"name": recipe.name(), "mean": statistics.mean.map(decimal), "std": statistics.std.map(decimal)});
    let mut add = |fields: Value| {
        if let (Value::Object(text), Value::Object(fields)) = (&mut text, fields) {
            text.extend(fields);
        }
    };
    match recipe {
        Recipe::Timm(timm) => add(json!({
            "height_px": timm.height_px,
            "width_px": timm.width_px,
            "interpolation": match timm.filter {
                Filter::Bilinear => "bilinear",
                _ => "bicubic",
            },
            "crop_pct": timm.crop_pct,
            "crop_mode": match timm.crop_mode {
                CropMode::Squash => "squash",
                CropMode::Border => "border",
                _ => "center",
            },
        })),
        Recipe::Hf(squash) | Recipe::Meta(squash) => add(json!({
            "height_px": squash.height_px,
            "width_px": squash.width_px,
            "interpolation": "bilinear",
            "crop_mode": "squash",
            "resized_as": if matches!(recipe, Recipe::Hf(_)) { "f32" } else { "u8" },
        })),
        Recipe::MetaEval(eval) => add(json!({
            "height_px": eval.height_px,
            "width_px": eval.width_px,
            "interpolation": "bicubic",
            "crop_mode": "center",
            "shorter_side_px": eval.shorter_side_px,
            "resized_as": "u8",
        })),
        _ => {}
    }
    text
}

/// One prepared picture as a batch.
pub fn batch_of_one(image: &NormalizedImage) -> ImageBatch<'_> {
    ImageBatch { pixels: &image.data, count: 1, height_px: image.height_px, width_px: image.width_px }
}

/// Reads and decodes a file. Its size is checked before it is read.
///
/// # Errors
/// If it cannot be read, exceeds a limit, or is no picture.
pub fn read_rgb(path: &Path, options: &DecodeOptions) -> Result<RgbImage, ItemError> {
    let read = |error: std::io::Error| ItemError::new(ItemErrorKind::Read, error.to_string());
    let information = std::fs::metadata(path).map_err(read)?;
    if !information.is_file() {
        return Err(ItemError::new(ItemErrorKind::Read, "not a regular file"));
    }
    options.limits.check_file(information.len()).map_err(pixel_error)?;
    decode_whole(&std::fs::read(path).map_err(read)?, options)
}

fn decode_whole(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, ItemError> {
    if bytes.is_empty() {
        return Err(ItemError::new(ItemErrorKind::Decode, "the file is empty"));
    }
    decode(bytes, options).map_err(pixel_error)
}

fn pixel_error(error: PixelError) -> ItemError {
    let kind = match error {
        PixelError::LimitExceeded { .. } => ItemErrorKind::Limit,
        _ => ItemErrorKind::Decode,
    };
    ItemError::new(kind, error.to_string())
}

/// Reads pictures, from files and, if it was given the means, from URLs.
#[derive(Clone, Debug, Default)]
pub struct PictureReader {
    options: DecodeOptions,
    #[cfg(feature = "hub")]
    urls: Option<crate::url::UrlReader>,
}

impl PictureReader {
    /// A reader of files.
    pub fn new(options: DecodeOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// That reads URLs too.
    #[cfg(feature = "hub")]
    #[must_use]
    pub fn with_urls(mut self, urls: crate::url::UrlReader) -> Self {
        self.urls = Some(urls);
        self
    }

    /// Reads and decodes a file or a URL.
    ///
    /// # Errors
    /// If it cannot be read, exceeds a limit, or is no picture.
    pub fn read(&self, input: &Path) -> Result<RgbImage, ItemError> {
        #[cfg(feature = "hub")]
        if let (Some(urls), true) = (&self.urls, crate::inputs::is_url(input)) {
            let bytes = urls.read(&input.to_string_lossy(), self.options.limits.max_file_bytes)?;
            return decode_whole(&bytes, &self.options);
        }
        read_rgb(input, &self.options)
    }
}

/// Files and URLs in a given order, decoded and prepared by a recipe.
pub struct FileSource {
    paths: Vec<PathBuf>,
    reader: PictureReader,
    recipe: Recipe,
}

impl FileSource {
    /// A source of these files.
    pub fn new(paths: Vec<PathBuf>, reader: PictureReader, recipe: Recipe) -> Self {
        Self { paths, reader, recipe }
    }
}

impl Source for FileSource {
    type Key = PathBuf;

    fn keys(&self) -> Box<dyn Iterator<Item = PathBuf> + Send + '_> {
        Box::new(self.paths.iter().cloned())
    }

    fn len_hint(&self) -> Option<usize> {
        Some(self.paths.len())
    }

    fn load(&self, path: &PathBuf) -> Result<Option<Item>, ItemError> {
        let picture = self.reader.read(path)?;
        let prepared = self.recipe.apply(&picture).map_err(pixel_error)?;
        Ok(Some(Item { height_px: prepared.height_px, width_px: prepared.width_px, pixels: prepared.data }))
    }
}
