//! Windows bitmaps: 1, 4, 8, 16, 24 and 32 bits, run-length coded or not.
//!
//! Own code, because the format is small and its corners (5-bit samples, palette gaps, unfinished runs) are where
//! decoders differ from Pillow.

use super::{DecodeOptions, ImageFormat, palette_to_rgb, rgb_buffer, unpack_samples};
use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;

const FORMAT: ImageFormat = ImageFormat::Bmp;

struct Header {
    width_px: u32,
    height_px: u32,
    top_down: bool,
    bits: u16,
    compression: u32,
    palette_at: usize,
    palette_entry_bytes: usize,
    palette_entries: usize,
    pixels_at: usize,
    masks: [u32; 4],
}

fn truncated() -> PixelError {
    PixelError::Truncated { format: FORMAT }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, PixelError> {
    let pair = bytes.get(at..at.saturating_add(2)).ok_or_else(truncated)?;
    Ok(u16::from_le_bytes([pair[0], pair[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, PixelError> {
    let quad = bytes.get(at..at.saturating_add(4)).ok_or_else(truncated)?;
    Ok(u32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]))
}

fn unsupported(what: String) -> PixelError {
    PixelError::Unsupported { format: FORMAT, what, hint: "convert it to a 24-bit bitmap or to PNG" }
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, PixelError> {
        let pixels_at = u32_at(bytes, 10)? as usize;
        let header_bytes = u32_at(bytes, 14)? as usize;
        let mut palette_at = 14 + header_bytes.min(bytes.len());
        let mut header = if header_bytes == 12 {
            Self {
                width_px: u16_at(bytes, 18)?.into(),
                height_px: u16_at(bytes, 20)?.into(),
                top_down: false,
                bits: u16_at(bytes, 24)?,
                compression: 0,
                palette_at,
                palette_entry_bytes: 3,
                palette_entries: 0,
                pixels_at,
                masks: [0; 4],
            }
        } else if matches!(header_bytes, 40 | 52 | 56 | 64 | 108 | 124) {
            let height = u32_at(bytes, 22)?;
            // Pillow's test: a height between -1 and -2^24 means that rows run from the top.
            let top_down = height >> 24 == 0xff;
            let compression = u32_at(bytes, 30)?;
            let mut masks = [0; 4];
            if compression == 3 {
                let stored = if header_bytes >= 56 { 4 } else { 3 };
                for (index, mask) in masks.iter_mut().take(stored).enumerate() {
                    *mask = u32_at(bytes, 54 + index * 4)?;
                }
                if header_bytes == 40 {
                    palette_at += 12;
                }
            }
            Self {
                width_px: u32_at(bytes, 18)?,
                height_px: if top_down { height.wrapping_neg() } else { height },
                top_down,
                bits: u16_at(bytes, 28)?,
                compression,
                palette_at,
                palette_entry_bytes: 4,
                palette_entries: u32_at(bytes, 46)? as usize,
                pixels_at,
                masks,
            }
        } else {
            return Err(unsupported(format!("a header of {header_bytes} bytes")));
        };
        if header.bits <= 8 {
            if header.palette_entries == 0 {
                header.palette_entries = 1 << header.bits;
            }
            if header.palette_entries > 65_536 {
                return Err(unsupported(format!("a palette of {} colours", header.palette_entries)));
            }
        }
        Ok(header)
    }

    /// The palette as RGB. Entries that the file lacks are left to the caller's default.
    fn palette(&self, bytes: &[u8]) -> Vec<u8> {
        let size = self.palette_entries * self.palette_entry_bytes;
        let end = self.palette_at.saturating_add(size).min(bytes.len());
        bytes
            .get(self.palette_at..end)
            .unwrap_or(&[])
            .chunks_exact(self.palette_entry_bytes)
            .flat_map(|entry| [entry[2], entry[1], entry[0]])
            .collect()
    }
}

pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), PixelError> {
    Header::read(bytes).map(|header| (header.width_px, header.height_px))
}

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, PixelError> {
    let header = Header::read(bytes)?;
    options.limits.check_size(header.width_px, header.height_px)?;
    let (width, height) = (header.width_px as usize, header.height_px as usize);
    // Files of unpatched writers say 0; the pixels then follow the palette.
    let pixels_at =
        if header.pixels_at == 0 { header.palette_at + header.palette(bytes).len() } else { header.pixels_at };
    let coded = bytes.get(pixels_at..).ok_or_else(truncated)?;

    let stored_order = match (header.compression, header.bits) {
        (0, 1 | 4 | 8) => {
            let stride = row_bytes(width, header.bits);
            let rows = coded.get(..stride * height).ok_or_else(truncated)?;
            let samples_per_row = stride * 8 / usize::from(header.bits);
            let wide = unpack_samples(rows, samples_per_row, height, header.bits as u8)?;
            let mut indices = zeroed_bytes(width as u64 * height as u64)?;
            for (target, source) in indices.chunks_exact_mut(width).zip(wide.chunks_exact(samples_per_row)) {
                target.copy_from_slice(&source[..width]);
            }
            palette_to_rgb(&indices, &header.palette(bytes))?
        }
        (1, 8) => palette_to_rgb(&run_lengths(coded, pixels_at, width, height, false)?, &header.palette(bytes))?,
        (2, 4) => palette_to_rgb(&run_lengths(coded, pixels_at, width, height, true)?, &header.palette(bytes))?,
        (0 | 3, 16 | 24 | 32) => {
            let layout = Layout::of(&header)?;
            let stride = row_bytes(width, header.bits);
            let rows = coded.get(..stride * height).ok_or_else(truncated)?;
            let mut rgb = rgb_buffer(width * height)?;
            for (target, source) in rgb.chunks_exact_mut(width * 3).zip(rows.chunks_exact(stride)) {
                layout.unpack(source, target);
            }
            rgb
        }
        (compression, bits) => return Err(unsupported(format!("compression {compression} at {bits} bits"))),
    };
    let data = if header.top_down {
        stored_order
    } else {
        let mut flipped = rgb_buffer(width * height)?;
        for (target, source) in flipped.chunks_exact_mut(width * 3).zip(stored_order.rchunks_exact(width * 3)) {
            target.copy_from_slice(source);
        }
        flipped
    };
    RgbImage::from_raw(header.width_px, header.height_px, data)
}

fn row_bytes(width: usize, bits: u16) -> usize {
    (width * usize::from(bits)).div_ceil(32) * 4
}

/// Where the three colours lie in a pixel.
enum Layout {
    /// Byte offsets of red, green and blue, and the bytes per pixel.
    Bytes([usize; 3], usize),
    /// 5 bits each.
    Bits555,
    /// 5, 6 and 5 bits.
    Bits565,
}

impl Layout {
    /// The layouts that Pillow knows, and no others.
    fn of(header: &Header) -> Result<Self, PixelError> {
        let [red, green, blue, alpha] = header.masks;
        let layout = match (header.bits, header.compression) {
            (16, 0) => Self::Bits555,
            (24, 0) => Self::Bytes([2, 1, 0], 3),
            (32, 0) => Self::Bytes([2, 1, 0], 4),
            (16, _) if (red, green, blue) == (0xf800, 0x7e0, 0x1f) => Self::Bits565,
            (16, _) if (red, green, blue) == (0x7c00, 0x3e0, 0x1f) => Self::Bits555,
            (24, _) if (red, green, blue) == (0xff_0000, 0xff00, 0xff) => Self::Bytes([2, 1, 0], 3),
            (32, _) => match (red, green, blue, alpha) {
                (0xff_0000, 0xff00, 0xff, 0 | 0xff00_0000) | (0, 0, 0, 0) => Self::Bytes([2, 1, 0], 4),
                (0xff00_0000, 0xff_0000, 0xff00, 0 | 0xff) => Self::Bytes([3, 2, 1], 4),
                (0xff00_0000, 0xff00, 0xff, 0 | 0xff_0000) => Self::Bytes([3, 1, 0], 4),
                (0xff, 0xff00, 0xff_0000, 0xff00_0000) => Self::Bytes([0, 1, 2], 4),
                _ => return Err(unsupported(format!("bit fields {red:x}/{green:x}/{blue:x}/{alpha:x}"))),
            },
            _ => return Err(unsupported(format!("bit fields {red:x}/{green:x}/{blue:x}"))),
        };
        Ok(layout)
    }

    fn unpack(&self, row: &[u8], target: &mut [u8]) {
        match self {
            Self::Bytes(offsets, size) => {
                for (colour, pixel) in target.chunks_exact_mut(3).zip(row.chunks_exact(*size)) {
                    for (value, &offset) in colour.iter_mut().zip(offsets) {
                        *value = pixel[offset];
                    }
                }
            }
            Self::Bits555 => unpack_16_bits(row, target, 10, 31),
            Self::Bits565 => unpack_16_bits(row, target, 11, 63),
        }
    }
}

fn unpack_16_bits(row: &[u8], target: &mut [u8], red_shift: u32, green_max: u32) {
    for (colour, pair) in target.chunks_exact_mut(3).zip(row.chunks_exact(2)) {
        let pixel = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
        colour[0] = (((pixel >> red_shift) & 31) * 255 / 31) as u8;
        colour[1] = (((pixel >> 5) & green_max) * 255 / green_max) as u8;
        colour[2] = ((pixel & 31) * 255 / 31) as u8;
    }
}

/// Expands run-length coded indices. Gaps are index 0, and a file that stops early is an error, as in Pillow.
fn run_lengths(
    coded: &[u8],
    starts_at: usize,
    width: usize,
    height: usize,
    four_bits: bool,
) -> Result<Vec<u8>, PixelError> {
    let total = width * height;
    let mut indices = Vec::new();
    indices.try_reserve_exact(total).map_err(|_| PixelError::OutOfMemory { bytes: total as u64 })?;
    let mut at = 0;
    let mut x = 0;
    while indices.len() < total {
        let (Some(&count), Some(&value)) = (coded.get(at), coded.get(at + 1)) else { break };
        at += 2;
        let room = total - indices.len();
        if count > 0 {
            let count = usize::from(count).min(width.saturating_sub(x));
            for index in 0..count.min(room) {
                indices.push(match (four_bits, index % 2) {
                    (false, _) => value,
                    (true, 0) => value >> 4,
                    (true, _) => value & 15,
                });
            }
            x += count;
            continue;
        }
        match value {
            0 => {
                indices.resize(indices.len().next_multiple_of(width), 0);
                x = 0;
            }
            1 => break,
            2 => {
                let (Some(&right), Some(&up)) = (coded.get(at), coded.get(at + 1)) else { break };
                at += 2;
                let skipped = usize::from(right) + usize::from(up) * width;
                indices.resize(indices.len() + skipped.min(room), 0);
                x = indices.len() % width;
            }
            _ => {
                let count = usize::from(value).min(room);
                let byte_count = if four_bits { count.div_ceil(2) } else { count };
                let literal = &coded[at.min(coded.len())..(at + byte_count).min(coded.len())];
                if four_bits {
                    let pairs = literal.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                    indices.extend(pairs.take(count));
                } else {
                    indices.extend_from_slice(literal);
                }
                if literal.len() < byte_count {
                    break;
                }
                at += byte_count;
                x += usize::from(value);
                // Literal runs are padded to an even position in the file.
                at += (starts_at + at) % 2;
            }
        }
    }
    if indices.len() < total { Err(truncated()) } else { Ok(indices) }
}
