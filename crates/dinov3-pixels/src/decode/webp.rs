//! WebP, lossy and lossless. Alpha is dropped; the hidden colours below it are kept, as Pillow keeps them.

use std::io::{Cursor, ErrorKind};

use image_webp::{DecodingError, WebPDecoder};

use super::{DecodeOptions, ImageFormat, drop_extra_channels};
use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;

const FORMAT: ImageFormat = ImageFormat::WebP;

fn open(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, PixelError> {
    WebPDecoder::new(Cursor::new(bytes)).map_err(convert_error)
}

pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), PixelError> {
    Ok(open(bytes)?.dimensions())
}

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, PixelError> {
    let mut decoder = open(bytes)?;
    let (width_px, height_px) = decoder.dimensions();
    options.limits.check_size(width_px, height_px)?;
    // Metadata is read on request only; this bounds the chunks that hold pixels.
    decoder.set_memory_limit(usize::try_from(options.limits.max_file_bytes).unwrap_or(usize::MAX));

    let channels: u64 = if decoder.has_alpha() { 4 } else { 3 };
    let expected = u64::from(width_px) * u64::from(height_px) * channels;
    if decoder.output_buffer_size().map(|size| size as u64) != Some(expected) {
        return Err(PixelError::Broken { format: FORMAT, reason: "the size does not fit memory".into() });
    }
    let mut pixels = zeroed_bytes(expected)?;
    if decoder.is_animated() {
        decoder.read_frame(&mut pixels).map_err(convert_error)?;
    } else {
        decoder.read_image(&mut pixels).map_err(convert_error)?;
    }
    let data = if channels == 4 { drop_extra_channels(&pixels, 4)? } else { pixels };
    RgbImage::from_raw(width_px, height_px, data)
}

fn convert_error(error: DecodingError) -> PixelError {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            PixelError::Truncated { format: FORMAT }
        }
        DecodingError::BitStreamError => PixelError::Truncated { format: FORMAT },
        other => PixelError::Broken { format: FORMAT, reason: other.to_string() },
    }
}
