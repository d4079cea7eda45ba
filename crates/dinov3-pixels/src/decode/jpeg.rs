//! JPEG, decoded by libjpeg ([`dinov3_jpeg`]).

use dinov3_jpeg::{Colours, Header, JpegError};

use super::{DecodeOptions, ImageFormat, cmyk_to_rgb, grey_to_rgb};
use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;

/// Pictures with more pixels must be plausible: their memory is worth a look at the size of the file.
const LARGE_PIXELS: u64 = 16_000_000;

fn told(error: JpegError) -> PixelError {
    let format = ImageFormat::Jpeg;
    match error {
        JpegError::Truncated => PixelError::Truncated { format },
        other => PixelError::Broken { format, reason: other.to_string() },
    }
}

pub(super) fn read_header(bytes: &[u8]) -> Result<Header, PixelError> {
    dinov3_jpeg::read_header(bytes).map_err(told)
}

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, PixelError> {
    let header = read_header(bytes)?;
    options.limits.check_size(header.width_px, header.height_px)?;
    if header.bits != 8 || !matches!(header.components, 1 | 3 | 4) {
        return Err(PixelError::Unsupported {
            format: ImageFormat::Jpeg,
            what: format!("{} components of {} bits", header.components, header.bits),
            hint: "convert it to 8-bit grey, RGB or CMYK",
        });
    }
    let pixel_count = u64::from(header.width_px) * u64::from(header.height_px);
    // libjpeg paints what an early end marker leaves open in grey, as Pillow shows it. A large picture that cannot be
    // there, since each block of a component takes a bit and there is a block for 4 x 64 pixels or fewer, is refused.
    if pixel_count > LARGE_PIXELS && bytes.len() as u64 * 8 < pixel_count / 256 {
        return Err(PixelError::Truncated { format: ImageFormat::Jpeg });
    }
    let mut pixels = zeroed_bytes(pixel_count * u64::from(header.components))?;
    dinov3_jpeg::decode(&[], bytes, &header, Colours::OfPicture, &mut pixels).map_err(told)?;
    let data = match header.components {
        1 => grey_to_rgb(&pixels)?,
        3 => pixels,
        // Pillow takes every four-component JPEG for Adobe's, which stores inverted ink.
        _ => cmyk_to_rgb(&pixels, true)?,
    };
    RgbImage::from_raw(header.width_px, header.height_px, data)
}
