//! TIFF: strips or tiles, interleaved or planar; deflate, LZW, PackBits and fax. The first page only.

use std::io::{Cursor, ErrorKind};

use tiff::decoder::{ChunkType, Decoder, DecodingSampleType, Limits as TiffLimits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::{
    DecodeOptions, DeepGrey, ImageFormat, cmyk_to_rgb, deep_grey_to_byte, drop_extra_channels, grey_to_rgb,
    palette_to_rgb, refuse_deep_grey, unpack_samples,
};
use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;
use crate::tiff_directory::{most_values, tiff_entry};

const FORMAT: ImageFormat = ImageFormat::Tiff;

fn unsupported(what: String) -> PixelError {
    PixelError::Unsupported { format: FORMAT, what, hint: "convert it to 8-bit RGB with deflate or no compression" }
}

fn broken(reason: &str) -> PixelError {
    PixelError::Broken { format: FORMAT, reason: reason.into() }
}

struct WithoutPalette {
    bytes: Vec<u8>,
    palette: Vec<u8>,
}

/// The file with a palette declared as grey, and its palette, if it has one.
///
/// The TIFF crate unpacks samples well but refuses palettes. Seen as grey, the samples are the indices.
fn without_palette(bytes: &[u8]) -> Result<Option<WithoutPalette>, PixelError> {
    const PHOTOMETRIC_TAG: u16 = 262;
    const COLOUR_MAP_TAG: u16 = 320;
    const PALETTE: u16 = 3;
    const BLACK_IS_ZERO: u16 = 1;
    let number = |pair: &[u8], big_endian: bool| {
        let pair = [pair[0], pair[1]];
        if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
    };
    let Some(photometric) = tiff_entry(bytes, PHOTOMETRIC_TAG) else { return Ok(None) };
    if photometric.bytes.len() < 2 || number(photometric.bytes, photometric.big_endian) != PALETTE {
        return Ok(None);
    }
    let map = tiff_entry(bytes, COLOUR_MAP_TAG).ok_or_else(|| broken("a palette picture without a palette"))?;
    let entries = map.bytes.len() / 6;
    // Three tables of 16-bit values, of which Pillow takes the high bytes.
    let high_byte = |table: usize, index: usize| {
        let at = (table * entries + index) * 2;
        (number(&map.bytes[at..at + 2], map.big_endian) >> 8) as u8
    };
    let palette = (0..entries).flat_map(|index| [0, 1, 2].map(|table| high_byte(table, index))).collect();
    let mut patched = bytes.to_vec();
    let value = if photometric.big_endian { BLACK_IS_ZERO.to_be_bytes() } else { BLACK_IS_ZERO.to_le_bytes() };
    patched[photometric.at..photometric.at + 2].copy_from_slice(&value);
    Ok(Some(WithoutPalette { bytes: patched, palette }))
}

/// Reads the first directory.
fn open(bytes: &[u8]) -> Result<Decoder<Cursor<&[u8]>>, PixelError> {
    // The tags that the TIFF crate reads. It makes room for as many values as an entry announces, up to 256 MiB, before
    // limits can be set; but values lie in the file.
    const READ: [u16; 20] =
        [256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 347, 530];
    let (value, limit) = (most_values(bytes, &READ), bytes.len() as u64);
    if value > limit {
        return Err(PixelError::LimitExceeded { quantity: "the number of values of a TIFF tag", value, limit });
    }
    // The TIFF crate multiplies the number of strips, at most one per row, with that of planes, in 32 bits.
    const HEIGHT_TAG: u16 = 257;
    const SAMPLES_TAG: u16 = 277;
    let number = |tag| tiff_entry(bytes, tag).map_or(1, |entry| entry.first_number());
    let (value, limit) = (number(HEIGHT_TAG).saturating_mul(number(SAMPLES_TAG)), u64::from(u32::MAX));
    if value > limit {
        return Err(PixelError::LimitExceeded { quantity: "the number of rows in all planes", value, limit });
    }
    Decoder::new(Cursor::new(bytes)).map_err(convert_error)
}

pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), PixelError> {
    let mut decoder = open(bytes)?;
    decoder.dimensions().map_err(convert_error)
}

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, PixelError> {
    let patched = without_palette(bytes)?;
    let bytes = patched.as_ref().map_or(bytes, |patched| &patched.bytes);
    let mut decoder = open(bytes)?;
    let (width_px, height_px) = decoder.dimensions().map_err(convert_error)?;
    options.limits.check_size(width_px, height_px)?;
    let (width, height) = (width_px as usize, height_px as usize);
    let pixel_count = width * height;

    let colour = decoder.colortype().map_err(convert_error)?;
    let layout = decoder.image_buffer_layout().map_err(convert_error)?;
    // A file may claim hundreds of channels per pixel: the pixels are within the limits, their bytes must be too.
    let most_bytes = pixel_count as u64 * 32;
    if layout.complete_len as u64 > most_bytes {
        return Err(PixelError::LimitExceeded {
            quantity: "the number of bytes of the stored pixels",
            value: layout.complete_len as u64,
            limit: most_bytes,
        });
    }
    if decoder.find_tag_unsigned::<u16>(Tag::FillOrder).map_err(convert_error)? == Some(2) && colour.bit_depth() < 8 {
        // The TIFF crate would take the bits in the wrong order.
        return Err(unsupported("fill order 2".into()));
    }
    if layout.planes > 1 && decoder.get_chunk_type() == ChunkType::Tile {
        // The TIFF crate loses count of the padding in all planes but the first, and panics.
        let (tile_width_px, tile_height_px) = decoder.chunk_dimensions();
        if !width_px.is_multiple_of(tile_width_px) || !height_px.is_multiple_of(tile_height_px) {
            return Err(unsupported("planes of tiles that reach beyond the picture".into()));
        }
    }
    let depth_kind = depth_kind(colour, layout.sample_type);
    if let Some(kind) = depth_kind {
        let is_16_bit = layout.sample_type == Some(DecodingSampleType::U16);
        let possible = match options.deep_grey {
            DeepGrey::Refuse => false,
            DeepGrey::HighByte => is_16_bit,
            DeepGrey::Clip => true,
        };
        if !possible {
            return Err(refuse_deep_grey(FORMAT, kind));
        }
    }
    let mut limits = TiffLimits::default();
    limits.ifd_value_size = 64 << 20;
    limits.decoding_buffer_size = layout.complete_len;
    limits.intermediate_buffer_size = layout.complete_len.max(1 << 20).saturating_mul(2);
    let mut decoder = decoder.with_limits(limits);
    let mut stored = zeroed_bytes(layout.complete_len as u64)?;
    decoder.read_image_bytes(&mut stored).map_err(convert_error)?;

    if layout.planes > 1 {
        let plane_bytes = layout.plane_stride.map_or(layout.len, std::num::NonZeroUsize::get);
        let sample_bytes = plane_bytes / pixel_count.max(1);
        if sample_bytes * pixel_count != plane_bytes || sample_bytes == 0 {
            return Err(unsupported("planes of packed samples".into()));
        }
        stored = interleave(&stored, layout.planes, plane_bytes, sample_bytes)?;
    }

    let channels = |sample_bytes: usize| stored.len() / pixel_count / sample_bytes;
    let palette: &[u8] = patched.as_ref().map_or(&[], |patched| &patched.palette);
    let data = match (colour, layout.sample_type) {
        (ColorType::Gray(bits @ (1 | 2 | 4 | 8)), _) if patched.is_some() => {
            palette_to_rgb(&unpack_samples(&stored, width, height, bits)?, palette)?
        }
        (ColorType::Gray(bits @ (1 | 2 | 4)), _) => {
            let step = 255 / ((1_u16 << bits) - 1) as u8;
            let mut grey = unpack_samples(&stored, width, height, bits)?;
            grey.iter_mut().for_each(|sample| *sample *= step);
            grey_to_rgb(&grey)?
        }
        (ColorType::Gray(8), Some(DecodingSampleType::U8 | DecodingSampleType::I8)) => grey_to_rgb(&stored)?,
        (ColorType::GrayA(8), _) | (ColorType::Multiband { bit_depth: 8, num_samples: 2 }, _) => {
            let grey: Vec<u8> = stored.iter().step_by(2).copied().collect();
            grey_to_rgb(&grey)?
        }
        (ColorType::RGB(8) | ColorType::RGBA(8), Some(DecodingSampleType::U8)) if channels(1) >= 3 => {
            drop_extra_channels(&stored, channels(1))?
        }
        (ColorType::RGB(16) | ColorType::RGBA(16), Some(DecodingSampleType::U16)) if channels(2) >= 3 => {
            let channels = channels(2);
            drop_extra_channels(&u16_samples(&stored).map(|sample| (sample >> 8) as u8).collect::<Vec<_>>(), channels)?
        }
        (ColorType::CMYK(8), Some(DecodingSampleType::U8)) if channels(1) == 4 => cmyk_to_rgb(&stored, false)?,
        (ColorType::Gray(16), Some(DecodingSampleType::U16)) => {
            let grey: Vec<u8> =
                u16_samples(&stored).filter_map(|sample| deep_grey_to_byte(sample, options.deep_grey)).collect();
            grey_to_rgb(&grey)?
        }
        (ColorType::Gray(_), Some(kind)) => {
            let grey =
                clip_samples(&stored, kind).ok_or_else(|| unsupported(format!("grey samples of type {kind:?}")))?;
            grey_to_rgb(&grey)?
        }
        (colour, _) => return Err(unsupported(format!("colour type {colour:?}"))),
    };
    if data.len() != pixel_count * 3 {
        return Err(broken("the pixels do not fill the picture"));
    }
    RgbImage::from_raw(width_px, height_px, data)
}

/// What to call the values of a grey picture that eight bits cannot hold.
fn depth_kind(colour: ColorType, sample_type: Option<DecodingSampleType>) -> Option<&'static str> {
    let ColorType::Gray(_) = colour else { return None };
    match sample_type? {
        DecodingSampleType::U16 => Some("16-bit"),
        DecodingSampleType::I16 => Some("signed 16-bit"),
        DecodingSampleType::U32 | DecodingSampleType::I32 => Some("32-bit"),
        DecodingSampleType::U64 | DecodingSampleType::I64 => Some("64-bit"),
        DecodingSampleType::F16 | DecodingSampleType::F32 | DecodingSampleType::F64 => Some("floating-point"),
        _ => None,
    }
}

fn u16_samples(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))
}

/// Clips values of other depths to 0..=255, fractions cut off. `None` for a type that Pillow does not read.
fn clip_samples(bytes: &[u8], kind: DecodingSampleType) -> Option<Vec<u8>> {
    fn quads(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
        bytes.chunks_exact(4).map(|quad| [quad[0], quad[1], quad[2], quad[3]])
    }
    Some(match kind {
        DecodingSampleType::I16 => u16_samples(bytes).map(|value| (value as i16).clamp(0, 255) as u8).collect(),
        // Pillow reads unsigned 32-bit values as signed ones; the large ones are no darker for that here.
        DecodingSampleType::U32 => quads(bytes).map(|quad| u32::from_ne_bytes(quad).min(255) as u8).collect(),
        DecodingSampleType::I32 => quads(bytes).map(|quad| i32::from_ne_bytes(quad).clamp(0, 255) as u8).collect(),
        // The cast saturates and takes not-a-number for 0.
        DecodingSampleType::F32 => quads(bytes).map(|quad| f32::from_ne_bytes(quad) as u8).collect(),
        _ => return None,
    })
}

/// Planes one after the other to samples side by side.
fn interleave(stored: &[u8], planes: usize, plane_bytes: usize, sample_bytes: usize) -> Result<Vec<u8>, PixelError> {
    let mut pixels = zeroed_bytes((plane_bytes * planes) as u64)?;
    for (index, plane) in stored.chunks_exact(plane_bytes).take(planes).enumerate() {
        let targets = pixels.chunks_exact_mut(sample_bytes * planes);
        for (pixel, sample) in targets.zip(plane.chunks_exact(sample_bytes)) {
            pixel[index * sample_bytes..][..sample_bytes].copy_from_slice(sample);
        }
    }
    Ok(pixels)
}

fn convert_error(error: TiffError) -> PixelError {
    match error {
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            PixelError::Truncated { format: FORMAT }
        }
        TiffError::UnsupportedError(what) => unsupported(what.to_string()),
        other => PixelError::Broken { format: FORMAT, reason: other.to_string() },
    }
}
