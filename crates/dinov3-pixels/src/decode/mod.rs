//! Encoded bytes to RGB, as Pillow's `Image.open(...).convert("RGB")` gives it.

mod bmp;
mod jpeg;
mod png;
mod tiff;
mod webp;

use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::{Limits, zeroed_bytes};
use crate::orientation;

pub(crate) use webp::chunks as webp_chunks;

/// The picture formats that this crate reads, told apart by content, never by file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageFormat {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG; of an animation the first picture.
    Png,
    /// WebP; of an animation the first picture.
    WebP,
    /// TIFF; of several pages the first.
    Tiff,
    /// Windows bitmap.
    Bmp,
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
        })
    }
}

/// Whether the orientation that a camera noted in the file is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Orientation {
    /// The pixels stay as Pillow's `Image.open` and `convert` leave them: EXIF notes change nothing, while the
    /// orientation tag of a TIFF, which is part of the format, is followed.
    #[default]
    Ignore,
    /// The picture is turned upright, as `PIL.ImageOps.exif_transpose` does.
    Apply,
}

/// How grey values deeper than eight bits become eight.
///
/// There is no right answer without knowing what the values mean, so the default is to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeepGrey {
    /// Refuse with [`PixelError::DeepGrey`].
    #[default]
    Refuse,
    /// Keep the high byte of 16-bit values; other depths are still refused.
    HighByte,
    /// Values above 255 become 255 and values below 0 become 0, as Pillow's `convert("RGB")` does.
    Clip,
}

/// How bytes are decoded.
///
/// ```
/// use dinov3_pixels::{DecodeOptions, Limits, Orientation};
///
/// let options = DecodeOptions::default()
///     .with_orientation(Orientation::Apply)
///     .with_limits(Limits::default().with_max_pixels(20_000_000));
/// assert_eq!(options.orientation, Orientation::Apply);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// What is refused before memory is asked for.
    pub limits: Limits,
    /// Whether the noted orientation is applied.
    pub orientation: Orientation,
    /// How deep grey values become eight bits.
    pub deep_grey: DeepGrey,
}

impl DecodeOptions {
    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether the noted orientation is applied.
    #[must_use]
    pub fn with_orientation(mut self, orientation: Orientation) -> Self {
        self.orientation = orientation;
        self
    }

    /// Sets how deep grey values become eight bits.
    #[must_use]
    pub fn with_deep_grey(mut self, deep_grey: DeepGrey) -> Self {
        self.deep_grey = deep_grey;
        self
    }
}

/// Decodes the first picture of a file to RGB.
///
/// # Errors
///
/// Every [`PixelError`] about formats, contents and limits. No input makes it panic.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, PixelError> {
    options.limits.check_file(bytes.len() as u64)?;
    let format = detect(bytes)?;
    let image = match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, options),
        ImageFormat::Png => png::decode(bytes, options),
        ImageFormat::WebP => webp::decode(bytes, options),
        ImageFormat::Tiff => tiff::decode(bytes, options),
        ImageFormat::Bmp => bmp::decode(bytes, options),
    }?;
    match options.orientation {
        // Pillow turns a TIFF while it loads it.
        Orientation::Ignore if format != ImageFormat::Tiff => Ok(image),
        _ => orientation::transpose(image, orientation::find(bytes, format)),
    }
}

/// The format, width and height that the header declares, before any turning; no pixel is decoded and no limit applies.
///
/// # Errors
///
/// [`PixelError::UnknownFormat`], [`PixelError::Truncated`] or [`PixelError::Broken`].
pub fn image_size(bytes: &[u8]) -> Result<(ImageFormat, u32, u32), PixelError> {
    let format = detect(bytes)?;
    let (width_px, height_px) = match format {
        ImageFormat::Jpeg => jpeg::read_header(bytes).map(|header| (header.width_px, header.height_px)),
        ImageFormat::Png => png::size(bytes),
        ImageFormat::WebP => webp::size(bytes),
        ImageFormat::Tiff => tiff::size(bytes),
        ImageFormat::Bmp => bmp::size(bytes),
    }?;
    Ok((format, width_px, height_px))
}

fn detect(bytes: &[u8]) -> Result<ImageFormat, PixelError> {
    const TIFF_STARTS: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
    if bytes.starts_with(b"\xff\xd8\xff") {
        Ok(ImageFormat::Jpeg)
    } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Ok(ImageFormat::Png)
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Ok(ImageFormat::WebP)
    } else if TIFF_STARTS.iter().any(|start| bytes.starts_with(start)) {
        Ok(ImageFormat::Tiff)
    } else if bytes.starts_with(b"BM") {
        Ok(ImageFormat::Bmp)
    } else {
        let first_bytes = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Err(PixelError::UnknownFormat { first_bytes })
    }
}

/// Decides about a grey picture whose values are deeper than eight bits; `kind` names the values.
fn refuse_deep_grey(format: ImageFormat, kind: &'static str) -> PixelError {
    PixelError::DeepGrey { format, kind }
}

/// One 16-bit grey value to eight bits, or `None` where the caller has to refuse.
fn deep_grey_to_byte(value: u16, deep_grey: DeepGrey) -> Option<u8> {
    match deep_grey {
        DeepGrey::Refuse => None,
        DeepGrey::HighByte => Some((value >> 8) as u8),
        DeepGrey::Clip => Some(value.min(255) as u8),
    }
}

fn rgb_buffer(pixel_count: usize) -> Result<Vec<u8>, PixelError> {
    zeroed_bytes(pixel_count as u64 * 3)
}

fn grey_to_rgb(grey: &[u8]) -> Result<Vec<u8>, PixelError> {
    let mut rgb = rgb_buffer(grey.len())?;
    for (target, &value) in rgb.chunks_exact_mut(3).zip(grey) {
        target.fill(value);
    }
    Ok(rgb)
}

/// Keeps the first three of `channels` bytes per pixel.
fn drop_extra_channels(pixels: &[u8], channels: usize) -> Result<Vec<u8>, PixelError> {
    let mut rgb = rgb_buffer(pixels.len() / channels)?;
    for (target, source) in rgb.chunks_exact_mut(3).zip(pixels.chunks_exact(channels)) {
        target.copy_from_slice(&source[..3]);
    }
    Ok(rgb)
}

/// Pillow's naive ink model: colour = (255 - ink) * (255 - black) / 255, with its way of rounding.
fn cmyk_to_rgb(pixels: &[u8], inverted: bool) -> Result<Vec<u8>, PixelError> {
    let flip = if inverted { 255 } else { 0 };
    let mut rgb = rgb_buffer(pixels.len() / 4)?;
    for (target, source) in rgb.chunks_exact_mut(3).zip(pixels.chunks_exact(4)) {
        let not_black = i32::from(255 - (source[3] ^ flip));
        for (value, &ink) in target.iter_mut().zip(source) {
            let product = i32::from(ink ^ flip) * not_black + 128;
            let rounded = ((product >> 8) + product) >> 8;
            *value = (not_black - rounded).clamp(0, 255) as u8;
        }
    }
    Ok(rgb)
}

/// Spreads packed samples of 1, 2, 4 or 8 bits, most significant bit first, over one byte each.
///
/// Each row starts on a byte boundary; `bytes` must hold `height * ceil(width * bits / 8)` bytes, missing ones read as 0.
fn unpack_samples(bytes: &[u8], width: usize, height: usize, bits: u8) -> Result<Vec<u8>, PixelError> {
    let mut samples = zeroed_bytes(width as u64 * height as u64)?;
    let stride = (width * usize::from(bits)).div_ceil(8);
    let per_byte = usize::from(8 / bits);
    let mask = (0xff_u16 >> (8 - bits)) as u8;
    for (row, target) in samples.chunks_exact_mut(width.max(1)).enumerate() {
        for (x, sample) in target.iter_mut().enumerate() {
            let byte = bytes.get(row * stride + x / per_byte).copied().unwrap_or(0);
            let shift = 8 - bits as usize * (x % per_byte + 1);
            *sample = (byte >> shift) & mask;
        }
    }
    Ok(samples)
}

/// Colour table lookup. Pillow starts from a grey ramp, so an index beyond the table is its own grey.
fn palette_to_rgb(indices: &[u8], palette: &[u8]) -> Result<Vec<u8>, PixelError> {
    let mut table: [[u8; 3]; 256] = std::array::from_fn(|index| [index as u8; 3]);
    for (entry, colour) in table.iter_mut().zip(palette.chunks_exact(3)) {
        entry.copy_from_slice(colour);
    }
    let mut rgb = rgb_buffer(indices.len())?;
    for (target, &index) in rgb.chunks_exact_mut(3).zip(indices) {
        target.copy_from_slice(&table[usize::from(index)]);
    }
    Ok(rgb)
}
