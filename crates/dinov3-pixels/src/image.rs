//! A picture in memory: eight bits per channel, red green blue.

use crate::error::PixelError;

/// RGB pixels, row by row, three interleaved bytes per pixel, without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width_px: u32,
    height_px: u32,
    data: Vec<u8>,
}

impl RgbImage {
    /// Takes over a buffer of `width_px * height_px * 3` bytes.
    ///
    /// # Errors
    ///
    /// [`PixelError::Empty`] if a side is zero, [`PixelError::BufferSize`] if the buffer has another length.
    pub fn from_raw(width_px: u32, height_px: u32, data: Vec<u8>) -> Result<Self, PixelError> {
        if width_px == 0 || height_px == 0 {
            return Err(PixelError::Empty { width_px: width_px.into(), height_px: height_px.into() });
        }
        // Two u32 multiplied fit u64, times three may not: count in u128.
        let expected = u128::from(width_px) * u128::from(height_px) * 3;
        if expected != data.len() as u128 {
            return Err(PixelError::BufferSize {
                width_px,
                height_px,
                expected_bytes: u64::try_from(expected).unwrap_or(u64::MAX),
                actual_bytes: data.len() as u64,
            });
        }
        Ok(Self { width_px, height_px, data })
    }

    /// The width in pixels, at least 1.
    #[must_use]
    pub fn width_px(&self) -> u32 {
        self.width_px
    }

    /// The height in pixels, at least 1.
    #[must_use]
    pub fn height_px(&self) -> u32 {
        self.height_px
    }

    /// The bytes: `height_px` rows of `width_px * 3`.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes of one row.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        let stride = self.width_px as usize * 3;
        &self.data[y * stride..(y + 1) * stride]
    }
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The pixels would drown the message.
        formatter
            .debug_struct("RgbImage")
            .field("width_px", &self.width_px)
            .field("height_px", &self.height_px)
            .finish_non_exhaustive()
    }
}
