//! JPEG through libjpeg, with Pillow's settings.
//!
//! Rust decoders differ from libjpeg-turbo by a few levels (inverse DCT and chroma upsampling round differently), and
//! embeddings move with them. This file is the Rust side of `jpeg_shim.c`.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

// Linked for its C library only; the symbols are used by the shim.
use mozjpeg_sys as _;

use super::{DecodeOptions, ImageFormat, cmyk_to_rgb, grey_to_rgb};
use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;

/// What the file says about itself.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Header {
    pub(super) width_px: u32,
    pub(super) height_px: u32,
    pub(super) components: u32,
    pub(super) bits: u32,
}

/// Pictures with more pixels must be plausible: their memory is worth a look at the size of the file.
const LARGE_PIXELS: u64 = 16_000_000;

unsafe extern "C" {
    fn dinov3_jpeg_read_header(
        data: *const u8,
        size: usize,
        header: *mut Header,
        message: *mut c_char,
        message_size: usize,
    ) -> c_int;
    fn dinov3_jpeg_decode(
        data: *const u8,
        size: usize,
        expected: *const Header,
        pixels: *mut u8,
        message: *mut c_char,
        message_size: usize,
    ) -> c_int;
}

/// Room for libjpeg's messages (JMSG_LENGTH_MAX is 200).
struct Message([u8; 256]);

impl Message {
    fn text(&self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }
}

fn check(code: c_int, message: &Message) -> Result<(), PixelError> {
    let format = ImageFormat::Jpeg;
    match code {
        0 => Ok(()),
        1 => Err(PixelError::Truncated { format }),
        2 | 3 => Err(PixelError::Broken { format, reason: message.text() }),
        _ => Err(PixelError::Broken { format, reason: "the header contradicts itself".into() }),
    }
}

pub(super) fn read_header(bytes: &[u8]) -> Result<Header, PixelError> {
    let mut header = Header::default();
    let mut message = Message([0; 256]);
    // SAFETY: the pointers and lengths describe live buffers; the shim writes one header and at most 256 message bytes
    // and keeps no pointer.
    let code = unsafe {
        dinov3_jpeg_read_header(
            bytes.as_ptr(),
            bytes.len(),
            &raw mut header,
            message.0.as_mut_ptr().cast(),
            message.0.len(),
        )
    };
    check(code, &message)?;
    Ok(header)
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
    let mut message = Message([0; 256]);
    // SAFETY: pixels holds width * height * components bytes, and the shim refuses to write if a second look at the
    // header gives other numbers; the remaining pointers and lengths describe live buffers and are not kept.
    let code = unsafe {
        dinov3_jpeg_decode(
            bytes.as_ptr(),
            bytes.len(),
            &raw const header,
            pixels.as_mut_ptr(),
            message.0.as_mut_ptr().cast(),
            message.0.len(),
        )
    };
    check(code, &message)?;
    let data = match header.components {
        1 => grey_to_rgb(&pixels)?,
        3 => pixels,
        // Pillow takes every four-component JPEG for Adobe's, which stores inverted ink.
        _ => cmyk_to_rgb(&pixels, true)?,
    };
    RgbImage::from_raw(header.width_px, header.height_px, data)
}
