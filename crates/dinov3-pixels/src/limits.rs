//! How large a picture may be before it is refused.

use crate::error::PixelError;

/// Bounds that are checked on the header, before memory for the pixels is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The most pixels (width times height). Default: 100 000 000.
    pub max_pixels: u64,
    /// The most bytes of an encoded file. Default: 1 GiB.
    pub max_file_bytes: u64,
    /// The most pixels along one side. Default: 65 535.
    pub max_side_px: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 100_000_000, max_file_bytes: 1 << 30, max_side_px: 65_535 }
    }
}

impl Limits {
    /// Sets the most pixels (width times height).
    #[must_use]
    pub fn with_max_pixels(mut self, max_pixels: u64) -> Self {
        self.max_pixels = max_pixels;
        self
    }

    /// Sets the most bytes of an encoded file.
    #[must_use]
    pub fn with_max_file_bytes(mut self, max_file_bytes: u64) -> Self {
        self.max_file_bytes = max_file_bytes;
        self
    }

    /// Sets the most pixels along one side.
    #[must_use]
    pub fn with_max_side_px(mut self, max_side_px: u32) -> Self {
        self.max_side_px = max_side_px;
        self
    }

    /// Refuses a picture of this size if it is empty or larger than allowed.
    ///
    /// # Errors
    ///
    /// [`PixelError::Empty`] or [`PixelError::LimitExceeded`].
    pub fn check_size(&self, width_px: u32, height_px: u32) -> Result<(), PixelError> {
        if width_px == 0 || height_px == 0 {
            return Err(PixelError::Empty { width_px: width_px.into(), height_px: height_px.into() });
        }
        for (quantity, value, limit) in [
            ("the width in pixels", u64::from(width_px), u64::from(self.max_side_px)),
            ("the height in pixels", u64::from(height_px), u64::from(self.max_side_px)),
            ("the number of pixels", u64::from(width_px) * u64::from(height_px), self.max_pixels),
        ] {
            if value > limit {
                return Err(PixelError::LimitExceeded { quantity, value, limit });
            }
        }
        Ok(())
    }

    /// Refuses a file of this many bytes if it is larger than allowed.
    ///
    /// # Errors
    ///
    /// [`PixelError::LimitExceeded`].
    pub fn check_file(&self, bytes: u64) -> Result<(), PixelError> {
        if bytes > self.max_file_bytes {
            return Err(PixelError::LimitExceeded {
                quantity: "the size of the file in bytes",
                value: bytes,
                limit: self.max_file_bytes,
            });
        }
        Ok(())
    }
}

/// A zeroed buffer, or an error instead of an abort when the machine has no room for it.
pub(crate) fn zeroed_bytes(count: u64) -> Result<Vec<u8>, PixelError> {
    let refused = || PixelError::OutOfMemory { bytes: count };
    let length = usize::try_from(count).map_err(|_| refused())?;
    // Asks first: `vec!` aborts if there is no room. But only `vec!` leaves the zeroing to the system, which does it as
    // pages are written: a header that promises much before a file that ends costs nothing.
    Vec::<u8>::new().try_reserve_exact(length).map_err(|_| refused())?;
    Ok(vec![0; length])
}
