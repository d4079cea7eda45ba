//! The orientation that cameras note in a file, and turning a picture by it.

use crate::decode::{ImageFormat, webp_chunks};
use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;
use crate::tiff_directory::tiff_entry;

const ORIENTATION_TAG: u16 = 0x0112;
const XMP_TAG: u16 = 700;

/// The orientation, 1 to 8; 1 where the file says nothing usable.
///
/// Looks where Pillow looks: EXIF first, then XMP.
pub(crate) fn find(bytes: &[u8], format: ImageFormat) -> u16 {
    let found = match format {
        ImageFormat::Jpeg => in_jpeg(bytes),
        ImageFormat::Png => in_png(bytes),
        ImageFormat::WebP => in_webp(bytes),
        ImageFormat::Tiff => in_tiff_directory(bytes).or_else(|| {
            let xmp = tiff_entry(bytes, XMP_TAG)?;
            in_xmp(xmp.bytes)
        }),
        ImageFormat::Bmp => None,
    };
    found.unwrap_or(1)
}

fn in_jpeg(bytes: &[u8]) -> Option<u16> {
    let mut exif = None;
    let mut xmp = None;
    let mut at = 2;
    while let Some(&[marker_start, marker]) = bytes.get(at..at + 2).and_then(|pair| pair.first_chunk::<2>()) {
        if marker_start != 0xff {
            at += 1;
            continue;
        }
        match marker {
            0xff => {
                at += 1;
                continue;
            }
            0x00 | 0x01 | 0xd0..=0xd8 => {
                at += 2;
                continue;
            }
            0xd9 | 0xda => break,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
        let Some(payload) = bytes.get(at + 4..at + 2 + length) else { break };
        if marker == 0xe1 {
            if let Some(block) = payload.strip_prefix(b"Exif\0\0") {
                exif = exif.or(Some(block));
            } else if let Some(block) = payload.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
                xmp = Some(block);
            }
        }
        at += 2 + length;
    }
    exif.and_then(in_tiff_directory).or_else(|| xmp.and_then(in_xmp))
}

fn in_png(bytes: &[u8]) -> Option<u16> {
    let mut exif = None;
    let mut xmp = None;
    let mut at = 8_usize;
    while let Some(head) = bytes.get(at..at.saturating_add(8)) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(payload) = bytes.get(at + 8..(at + 8).saturating_add(length)) else { break };
        match &head[4..8] {
            b"eXIf" => exif = Some(payload),
            b"iTXt" if payload.starts_with(b"XML:com.adobe.xmp\0\0") => xmp = Some(payload),
            b"IEND" => break,
            _ => {}
        }
        at += 12 + length;
    }
    exif.and_then(in_exif_block).or_else(|| xmp.and_then(in_xmp))
}

fn in_webp(bytes: &[u8]) -> Option<u16> {
    let mut exif = None;
    let mut xmp = None;
    for (name, payload) in webp_chunks(bytes.get(12..)?) {
        match name {
            b"EXIF" => exif = Some(payload),
            b"XMP " => xmp = Some(payload),
            _ => {}
        }
    }
    exif.and_then(in_exif_block).or_else(|| xmp.and_then(in_xmp))
}

/// Some writers put JPEG's prefix in front of the block, others do not.
fn in_exif_block(block: &[u8]) -> Option<u16> {
    in_tiff_directory(block.strip_prefix(b"Exif\0\0").unwrap_or(block))
}

fn in_tiff_directory(block: &[u8]) -> Option<u16> {
    let entry = tiff_entry(block, ORIENTATION_TAG)?;
    match (entry.kind, entry.bytes) {
        (3, [first, second, ..]) if entry.big_endian => Some(u16::from_be_bytes([*first, *second])),
        (3, [first, second, ..]) => Some(u16::from_le_bytes([*first, *second])),
        (1, [value, ..]) => Some(u16::from(*value)),
        (4, [a, b, c, d, ..]) => {
            let quad = [*a, *b, *c, *d];
            let value = if entry.big_endian { u32::from_be_bytes(quad) } else { u32::from_le_bytes(quad) };
            u16::try_from(value).ok()
        }
        _ => None,
    }
}

/// The digit after `tiff:Orientation="` or `tiff:Orientation>`.
fn in_xmp(block: &[u8]) -> Option<u16> {
    const NAME: &[u8] = b"tiff:Orientation";
    for (start, window) in block.windows(NAME.len()).enumerate() {
        if window != NAME {
            continue;
        }
        let rest = &block[start + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">")).and_then(|rest| rest.first());
        if let Some(digit @ b'0'..=b'9') = digit {
            return Some(u16::from(digit - b'0'));
        }
    }
    None
}

/// Turns a picture upright. Values other than 2 to 8 leave it as it is.
pub(crate) fn transpose(image: RgbImage, orientation: u16) -> Result<RgbImage, PixelError> {
    if !(2..=8).contains(&orientation) {
        return Ok(image);
    }
    let (width, height) = (image.width_px() as usize, image.height_px() as usize);
    let sides_swap = orientation >= 5;
    let (new_width, new_height) = if sides_swap { (height, width) } else { (width, height) };
    let source = image.data();
    let mut data = zeroed_bytes(source.len() as u64)?;
    for (y, row) in data.chunks_exact_mut(new_width * 3).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let (from_x, from_y) = match orientation {
                2 => (width - 1 - x, y),
                3 => (width - 1 - x, height - 1 - y),
                4 => (x, height - 1 - y),
                5 => (y, x),
                6 => (y, height - 1 - x),
                7 => (width - 1 - y, height - 1 - x),
                _ => (width - 1 - y, x),
            };
            let at = (from_y * width + from_x) * 3;
            pixel.copy_from_slice(&source[at..at + 3]);
        }
    }
    RgbImage::from_raw(new_width as u32, new_height as u32, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: u32, height: u32) -> RgbImage {
        let data = (0..width * height).flat_map(|index| [index as u8; 3]).collect();
        RgbImage::from_raw(width, height, data).unwrap()
    }

    #[test]
    fn all_orientations() {
        // 0 1 2
        // 3 4 5
        let expected: [(u16, u32, [u8; 6]); 8] = [
            (1, 3, [0, 1, 2, 3, 4, 5]),
            (2, 3, [2, 1, 0, 5, 4, 3]),
            (3, 3, [5, 4, 3, 2, 1, 0]),
            (4, 3, [3, 4, 5, 0, 1, 2]),
            (5, 2, [0, 3, 1, 4, 2, 5]),
            (6, 2, [3, 0, 4, 1, 5, 2]),
            (7, 2, [5, 2, 4, 1, 3, 0]),
            (8, 2, [2, 5, 1, 4, 0, 3]),
        ];
        for (orientation, width, pixels) in expected {
            let turned = transpose(numbered(3, 2), orientation).unwrap();
            let reds: Vec<u8> = turned.data().iter().step_by(3).copied().collect();
            assert_eq!((turned.width_px(), reds.as_slice()), (width, &pixels[..]), "orientation {orientation}");
        }
    }

    #[test]
    fn unknown_values_change_nothing() {
        for orientation in [0, 9, 0xffff] {
            assert_eq!(transpose(numbered(3, 2), orientation).unwrap(), numbered(3, 2));
        }
    }
}
