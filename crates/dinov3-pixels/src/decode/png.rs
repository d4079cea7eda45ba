//! PNG. Samples are taken as stored (no gamma, no background, no colour profile), as Pillow does.

use std::io::{Cursor, ErrorKind};

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits as PngLimits, Transformations};

use super::{
    DecodeOptions, ImageFormat, deep_grey_to_byte, drop_extra_channels, grey_to_rgb, palette_to_rgb, refuse_deep_grey,
    unpack_samples,
};
use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;

const FORMAT: ImageFormat = ImageFormat::Png;

pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), PixelError> {
    let header = bytes.get(..24).ok_or(PixelError::Truncated { format: FORMAT })?;
    if &header[12..16] != b"IHDR" {
        return Err(PixelError::Broken { format: FORMAT, reason: "the first chunk is not IHDR".into() });
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Ok((number(16), number(20)))
}

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, PixelError> {
    let (width_px, height_px) = size(bytes)?;
    options.limits.check_size(width_px, height_px)?;

    // What the decoder may take beside the pixels: chunks it has to hold, such as the palette.
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), PngLimits { bytes: 64 << 20 });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(convert_error)?;
    let (colour, depth) = reader.output_color_type();
    if colour == ColorType::Grayscale && depth == BitDepth::Sixteen && deep_grey_to_byte(0, options.deep_grey).is_none()
    {
        return Err(refuse_deep_grey(FORMAT, "16-bit"));
    }
    let buffer_size = reader
        .output_buffer_size()
        .ok_or_else(|| PixelError::Broken { format: FORMAT, reason: "the size does not fit memory".into() })?;
    let mut stored = zeroed_bytes(buffer_size as u64)?;
    let frame = reader.next_frame(&mut stored).map_err(convert_error)?;
    if (frame.width, frame.height) != (width_px, height_px) {
        // Only a later frame of an animation may be smaller than the picture.
        return Err(PixelError::Broken { format: FORMAT, reason: "the first frame does not fill the picture".into() });
    }
    stored.truncate(frame.buffer_size());
    let palette = reader.info().palette.as_deref().unwrap_or(&[]);
    let (width, height) = (width_px as usize, height_px as usize);

    let data = match (colour, depth) {
        (ColorType::Rgb, BitDepth::Eight) => stored,
        (ColorType::Rgba, BitDepth::Eight) => drop_extra_channels(&stored, 4)?,
        (ColorType::Rgb, BitDepth::Sixteen) => high_bytes(&stored),
        (ColorType::Rgba, BitDepth::Sixteen) => drop_extra_channels(&high_bytes(&stored), 4)?,
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => grey_to_rgb(&every_second(&stored))?,
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => grey_to_rgb(&every_second(&high_bytes(&stored)))?,
        (ColorType::Grayscale, BitDepth::Eight) => grey_to_rgb(&stored)?,
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            let grey: Vec<u8> = stored
                .chunks_exact(2)
                .filter_map(|pair| deep_grey_to_byte(u16::from_be_bytes([pair[0], pair[1]]), options.deep_grey))
                .collect();
            grey_to_rgb(&grey)?
        }
        (ColorType::Grayscale, shallow) => {
            let bits = shallow as u8;
            // 1, 2 and 4 bits spread evenly over 0..=255: the largest sample times this is 255.
            let step = 255 / ((1_u16 << bits) - 1) as u8;
            let mut grey = unpack_samples(&stored, width, height, bits)?;
            grey.iter_mut().for_each(|sample| *sample *= step);
            grey_to_rgb(&grey)?
        }
        (ColorType::Indexed, BitDepth::Eight) => palette_to_rgb(&stored, palette)?,
        (ColorType::Indexed, shallow) => {
            palette_to_rgb(&unpack_samples(&stored, width, height, shallow as u8)?, palette)?
        }
        (colour, depth) => {
            return Err(PixelError::Unsupported {
                format: FORMAT,
                what: format!("colour type {colour:?} of depth {depth:?}"),
                hint: "convert it to 8-bit RGB",
            });
        }
    };
    RgbImage::from_raw(width_px, height_px, data)
}

/// The high byte of each big-endian 16-bit sample.
fn high_bytes(samples: &[u8]) -> Vec<u8> {
    samples.iter().step_by(2).copied().collect()
}

/// The grey of grey-alpha pairs.
fn every_second(samples: &[u8]) -> Vec<u8> {
    samples.iter().step_by(2).copied().collect()
}

fn convert_error(error: DecodingError) -> PixelError {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            PixelError::Truncated { format: FORMAT }
        }
        DecodingError::LimitsExceeded => {
            PixelError::Broken { format: FORMAT, reason: "a chunk is larger than 64 MiB".into() }
        }
        other => PixelError::Broken { format: FORMAT, reason: other.to_string() },
    }
}
