//! WebP, lossy and lossless. Alpha is dropped; the hidden colours below it are kept, as Pillow keeps them.

use std::io::{Cursor, ErrorKind};

use image_webp::{DecodingError, WebPDecoder};

use super::{DecodeOptions, ImageFormat, drop_extra_channels};
use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::{Limits, zeroed_bytes};

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
    check_frames(bytes.get(12..).unwrap_or(&[]), &options.limits)?;
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

/// Name and contents of each chunk, the last of which may be cut short.
pub(crate) fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, body) = rest.split_at_checked(8)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let payload = &body[..length.min(body.len())];
        rest = body.get(length.saturating_add(length % 2)..).unwrap_or(&[]);
        Some((&head[..4], payload))
    })
}

/// Refuses frames beyond the limits: they state their own size, and the WebP crate makes room for that before it
/// compares it with the picture's.
fn check_frames(bytes: &[u8], limits: &Limits) -> Result<(), PixelError> {
    for (name, payload) in chunks(bytes) {
        match name {
            // A frame of an animation: 16 bytes about it, then chunks.
            b"ANMF" => chunks(payload.get(16..).unwrap_or(&[])).try_for_each(|chunk| check_frame(chunk, limits))?,
            _ => check_frame((name, payload), limits)?,
        }
    }
    Ok(())
}

fn check_frame(chunk: (&[u8], &[u8]), limits: &Limits) -> Result<(), PixelError> {
    match chunk {
        (b"VP8 ", &[_, _, _, _, _, _, a, b, c, d, ..]) => {
            let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            limits.check_size(side(a, b), side(c, d))
        }
        (b"VP8L", &[_, a, b, c, d, ..]) => {
            let bits = u32::from_le_bytes([a, b, c, d]);
            limits.check_size((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
        }
        _ => Ok(()),
    }
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
