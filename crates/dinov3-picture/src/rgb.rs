//! An 8-bit picture, and its PNG or JPEG.

use std::io::Write;

use crate::error::PictureError;

/// The largest picture: far beyond what an encoder takes, small enough to be allocated.
const PIXEL_LIMIT: usize = 1 << 28;

/// An sRGB picture with eight bits per channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbPicture {
    width_px: usize,
    height_px: usize,
    data: Vec<u8>,
}

impl RgbPicture {
    /// A picture of pixels given in rows, red, green and blue in turn.
    ///
    /// # Errors
    /// If the size is zero or beyond 2^28 pixels, or does not fit the number of bytes.
    pub fn new(width_px: usize, height_px: usize, data: Vec<u8>) -> Result<Self, PictureError> {
        let pixels = checked_pixels(width_px, height_px)?;
        if data.len() != 3 * pixels {
            return Err(PictureError::PixelCount { width_px, height_px, bytes: data.len() });
        }
        Ok(Self { width_px, height_px, data })
    }

    /// Pixels in a row.
    pub fn width_px(&self) -> usize {
        self.width_px
    }

    /// Number of rows.
    pub fn height_px(&self) -> usize {
        self.height_px
    }

    /// `[height, width, 3]`: rows from the top, red, green and blue in turn.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn put(&mut self, x_px: usize, y_px: usize, colour: [u8; 3]) {
        let start = 3 * (y_px * self.width_px + x_px);
        self.data[start..start + 3].copy_from_slice(&colour);
    }

    /// Writes the picture as a PNG.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn write_png(&self, out: impl Write) -> Result<(), PictureError> {
        // Neither side exceeds PIXEL_LIMIT, which fits in 32 bits.
        let mut encoder = png::Encoder::new(out, self.width_px as u32, self.height_px as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.data)?;
        Ok(writer.finish()?)
    }

    /// Writes the picture as a JPEG of this quality, 1 to 100. The same picture gives the same bytes on every machine.
    ///
    /// # Errors
    /// If a side is longer than 65535 pixels, the most that a JPEG has, or if `out` fails.
    pub fn write_jpeg(&self, out: impl Write, quality: u8) -> Result<(), PictureError> {
        let too_large = |_| PictureError::PictureSize {
            width_px: self.width_px,
            height_px: self.height_px,
            limit: PIXEL_LIMIT.min(usize::from(u16::MAX) * usize::from(u16::MAX)),
        };
        let width = u16::try_from(self.width_px).map_err(too_large)?;
        let height = u16::try_from(self.height_px).map_err(too_large)?;
        let encoder = jpeg_encoder::Encoder::new(out, quality.clamp(1, 100));
        Ok(encoder.encode(&self.data, width, height, jpeg_encoder::ColorType::Rgb)?)
    }
}

/// The number of pixels of a picture that can be allocated.
pub(crate) fn checked_pixels(width_px: usize, height_px: usize) -> Result<usize, PictureError> {
    match width_px.checked_mul(height_px) {
        Some(pixels) if (1..=PIXEL_LIMIT).contains(&pixels) => Ok(pixels),
        _ => Err(PictureError::PictureSize { width_px, height_px, limit: PIXEL_LIMIT }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_holds_the_pixels() {
        let data: Vec<u8> = (0..5 * 3 * 3).map(|value| value * 5).collect();
        let picture = RgbPicture::new(5, 3, data.clone()).unwrap();
        let mut bytes = Vec::new();
        picture.write_png(&mut bytes).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut read = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut read).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (5, 3, png::ColorType::Rgb));
        assert_eq!(read, data);
    }

    #[test]
    fn a_jpeg_is_small_and_the_same_every_time() {
        let picture = RgbPicture::new(64, 48, vec![120; 3 * 64 * 48]).unwrap();
        let write = || {
            let mut bytes = Vec::new();
            picture.write_jpeg(&mut bytes, 85).unwrap();
            bytes
        };
        assert_eq!(write(), write());
        assert!(write().starts_with(b"\xff\xd8") && write().len() < 1500);
        let long = RgbPicture::new(65_536, 1, vec![0; 3 * 65_536]).unwrap();
        assert!(matches!(long.write_jpeg(Vec::new(), 85), Err(PictureError::PictureSize { .. })));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(matches!(RgbPicture::new(0, 3, vec![]), Err(PictureError::PictureSize { .. })));
        assert!(matches!(RgbPicture::new(usize::MAX, 3, vec![]), Err(PictureError::PictureSize { .. })));
        assert!(matches!(RgbPicture::new(2, 2, vec![0; 11]), Err(PictureError::PixelCount { bytes: 11, .. })));
    }
}
