//! The short way: one picture in, one array out. Everything here is a line or two over the seams.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dinov3_cpu::Session;
use dinov3_engine::ItemError;
use dinov3_model::array::Array;
use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Request};
use dinov3_model::spec::ModelSpec;
use dinov3_pixels::{DecodeOptions, NormalizedImage, PixelError, Recipe, RgbImage, decode};

use crate::image::{batch_of_one, read_rgb, recipe, statistics};
use crate::open::Opened;

/// Enough to keep the matrix products busy, little enough for memory.
const IMAGES_PER_BATCH: usize = 8;

/// Why there are no pixels for the encoder.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file that cannot be read or is no picture.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: ItemError,
    },
    /// Bytes that are no picture, or pixels that are none.
    #[error(transparent)]
    Pixels(#[from] PixelError),
    /// An array of another length than its shape.
    #[error("an array of {height_px} x {width_px} x 3 does not have {found} values")]
    Length {
        /// Height announced.
        height_px: usize,
        /// Width announced.
        width_px: usize,
        /// Values given.
        found: usize,
    },
    /// A value that is NaN or infinite.
    #[error("value {index} is {value}, not a finite number")]
    NotFinite {
        /// Its place, row-major.
        index: usize,
        /// The value.
        value: f32,
    },
}

/// Sessions that wait for the next call, one per thread that ever called at the same time as another.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Vec<Session>>);

impl Sessions {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// What the model is.
    pub fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    /// The model's own preprocessing: resize, crop and statistics as timm's `create_transform` has them.
    pub fn recipe(&self) -> Recipe {
        recipe(self.spec())
    }

    /// A picture file, prepared by the model's own recipe: [3, 256, 256] for a ViT, [3, 224, 224] for a ConvNeXt.
    ///
    /// # Errors
    /// If the file cannot be read, is no picture, or exceeds a limit ([`Limits`](crate::pixels::Limits)).
    pub fn preprocess_path(&self, path: impl AsRef<Path>) -> Result<NormalizedImage, ImageError> {
        let path = path.as_ref();
        let read = read_rgb(path, &DecodeOptions::default());
        let picture = read.map_err(|error| ImageError::File { path: path.to_path_buf(), error })?;
        Ok(self.recipe().apply(&picture)?)
    }

    /// The same for the bytes of a JPEG, PNG, WebP, TIFF or BMP file.
    ///
    /// # Errors
    /// If the bytes are no picture, or exceed a limit.
    pub fn preprocess_bytes(&self, bytes: &[u8]) -> Result<NormalizedImage, ImageError> {
        Ok(self.recipe().apply(&decode(bytes, &DecodeOptions::default())?)?)
    }

    /// The same for pixels: `height_px` rows of `width_px` times red, green, blue.
    ///
    /// # Errors
    /// If there are no pixels, or not as many bytes as they need.
    pub fn preprocess_rgb(&self, height_px: u32, width_px: u32, rgb: &[u8]) -> Result<NormalizedImage, ImageError> {
        // The length first: nothing is copied that would be refused.
        if u64::from(height_px).checked_mul(3 * u64::from(width_px)) != Some(rgb.len() as u64) {
            let (height_px, width_px) = (height_px as usize, width_px as usize);
            return Err(ImageError::Length { height_px, width_px, found: rgb.len() });
        }
        Ok(self.recipe().apply(&RgbImage::from_raw(width_px, height_px, rgb.to_vec())?)?)
    }

    /// Pixels from 0 to 1 as an array [height_px, width_px, 3], normalised by the model's statistics and otherwise as
    /// they are: nothing is resized, since resizing is defined for eight bits.
    ///
    /// # Errors
    /// If the array is empty or has another length, or if a value is not finite.
    pub fn preprocess_f32(
        &self,
        height_px: usize,
        width_px: usize,
        rgb: &[f32],
    ) -> Result<NormalizedImage, ImageError> {
        let values = height_px.checked_mul(width_px).and_then(|pixels| pixels.checked_mul(3));
        if rgb.is_empty() || values != Some(rgb.len()) {
            return Err(ImageError::Length { height_px, width_px, found: rgb.len() });
        }
        if let Some(index) = rgb.iter().position(|value| !value.is_finite()) {
            return Err(ImageError::NotFinite { index, value: rgb[index] });
        }
        let statistics = statistics(self.spec());
        let plane = |channel: usize| {
            let (mean, std) = (statistics.mean[channel], statistics.std[channel]);
            rgb.chunks_exact(3).map(move |pixel| (pixel[channel] - mean) / std)
        };
        Ok(NormalizedImage { height_px, width_px, data: (0..3).flat_map(plane).collect() })
    }

    /// The embedding `[D]` of an image: the model's own pooling, which is the mean of the normed patch tokens.
    ///
    /// # Errors
    /// If the model cannot take an image of that size.
    pub fn embed(&self, image: &NormalizedImage) -> Result<Vec<f32>, EncodeError> {
        let features = self.encode(image, &Request::new().poolings([self.spec().pooling]))?;
        Ok(features.pooled.into_iter().next().map(|(_, array)| array.data).unwrap_or_default())
    }

    /// The embeddings [N, D] of several images. Neighbours of equal size go through the encoder together; the values
    /// are those of [`Opened::embed`], bit for bit.
    ///
    /// # Errors
    /// If the model cannot take an image of such a size.
    pub fn embed_all(&self, images: &[NormalizedImage]) -> Result<Array, EncodeError> {
        let request = Request::new().poolings([self.spec().pooling]);
        let mut embeddings = Array { shape: vec![images.len(), self.spec().embed_dim()], data: Vec::new() };
        // One by one: in a batch, what one image lacks another could have too many.
        for image in images {
            check_length(image)?;
        }
        let same_size =
            |a: &NormalizedImage, b: &NormalizedImage| (a.height_px, a.width_px) == (b.height_px, b.width_px);
        for batch in images.chunk_by(same_size).flat_map(|run| run.chunks(IMAGES_PER_BATCH)) {
            let pixels: Vec<f32> = batch.iter().flat_map(|image| &image.data).copied().collect();
            let (height_px, width_px) = (batch[0].height_px, batch[0].width_px);
            let batch = ImageBatch { pixels: &pixels, count: batch.len(), height_px, width_px };
            let features = self.encode_batch(&batch, &request)?;
            features.pooled.iter().for_each(|(_, array)| embeddings.data.extend_from_slice(&array.data));
        }
        Ok(embeddings)
    }

    /// timm's `forward_features` of an image: the normed tokens [T, D] of a ViT (class token, registers, patches row by
    /// row), or the last map [C, h, w] of a ConvNeXt, which is not normed.
    ///
    /// # Errors
    /// If the model cannot take an image of that size.
    pub fn tokens(&self, image: &NormalizedImage) -> Result<Array, EncodeError> {
        Ok(single(self.encode(image, &Request::new().tokens())?.tokens.unwrap_or_default()))
    }

    /// The outputs of blocks (ViT, [D, h, w] each) or stages (ConvNeXt) of an image, without the final norm as timm's
    /// `features_only` gives them, in ascending order, each once.
    ///
    /// # Errors
    /// If the model has no such block or stage, or cannot take an image of that size.
    pub fn feature_maps(&self, image: &NormalizedImage, blocks: &[usize]) -> Result<Vec<Array>, EncodeError> {
        let features = self.encode(image, &Request::new().taps(blocks.iter().copied()))?;
        Ok(features.maps.into_iter().map(|tap| single(tap.map)).collect())
    }

    /// The class scores `[K]` of an image, if the model has a head; [`Head`](crate::Head) is for heads in files of their
    /// own, and [`top_k`](crate::top_k) for what people want to see.
    ///
    /// # Errors
    /// If the model has no head, or cannot take an image of that size.
    pub fn logits(&self, image: &NormalizedImage) -> Result<Vec<f32>, EncodeError> {
        let features = self.encode(image, &Request::new().logits(self.spec().pooling))?;
        Ok(features.logits.map(|array| array.data).unwrap_or_default())
    }

    /// Everything that `request` asks for, of one image: arrays begin with an extent of 1.
    ///
    /// # Errors
    /// If the request or the size does not fit the model.
    pub fn encode(&self, image: &NormalizedImage, request: &Request) -> Result<Features, EncodeError> {
        self.encode_batch(&batch_of_one(image), request)
    }

    /// Everything that `request` asks for, of a batch. Callable from several threads: each call has a session of its
    /// own, whose scratch memory is kept for the next one. A service that wants to rule over memory and threads makes
    /// its sessions itself, [`Model::session`](crate::Model::session).
    ///
    /// # Errors
    /// If the request or the batch does not fit the model.
    pub fn encode_batch(&self, batch: &ImageBatch<'_>, request: &Request) -> Result<Features, EncodeError> {
        let waiting = self.sessions.waiting().pop();
        let mut session = waiting.unwrap_or_else(|| self.model.session());
        let mut features = Features::default();
        let result = session.encode(batch, request, &mut features);
        self.sessions.waiting().push(session);
        result.map(|()| features)
    }
}

/// Refuses an image whose values are not 3 × height × width.
fn check_length(image: &NormalizedImage) -> Result<(), EncodeError> {
    let (height_px, width_px, found) = (image.height_px, image.width_px, image.data.len());
    let expected = height_px.checked_mul(width_px).and_then(|pixels| pixels.checked_mul(3)).unwrap_or(usize::MAX);
    match expected == found {
        true => Ok(()),
        false => Err(EncodeError::WrongLength { count: 1, height_px, width_px, expected, found }),
    }
}

/// The array of the only image of a batch.
fn single(mut array: Array) -> Array {
    if !array.shape.is_empty() {
        array.shape.remove(0);
    }
    array
}
