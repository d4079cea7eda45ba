//! JPEG through libjpeg, with the settings of Pillow and of GDAL, which are the same.
//!
//! Rust decoders differ from libjpeg-turbo by a few levels (inverse DCT and chroma upsampling round differently), and
//! embeddings move with them. This file is the Rust side of `shim.c`.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

// Linked for its C library only; the symbols are used by the shim.
use mozjpeg_sys as _;

/// What a JPEG says about itself.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// Values per pixel.
    pub components: u32,
    /// Bits per value.
    pub bits: u32,
}

impl Header {
    /// Length of the decoded values.
    pub fn decoded_bytes(&self) -> u64 {
        u64::from(self.width_px) * u64::from(self.height_px) * u64::from(self.components)
    }
}

/// Why a JPEG cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JpegError {
    /// The bytes end before the picture does.
    #[error("it is truncated")]
    Truncated,
    /// The bytes contradict the format.
    #[error("{reason}")]
    Broken {
        /// What libjpeg found.
        reason: String,
    },
    /// Room for other values than those of the header.
    #[error("{found_bytes} bytes of room for {expected_bytes} values")]
    Room {
        /// How many there are.
        expected_bytes: u64,
        /// How many there is room for.
        found_bytes: u64,
    },
}

/// What becomes of the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// Grey stays grey, three components become red, green and blue, and four ink, by the markers of the file.
    OfPicture,
    /// As they are stored, whatever they mean.
    AsStored,
    /// Luminance and chrominance become red, green and blue.
    OfYCbCr,
}

unsafe extern "C" {
    fn dinov3_jpeg_read_header(
        data: *const u8,
        size: usize,
        header: *mut Header,
        message: *mut c_char,
        message_size: usize,
    ) -> c_int;
    fn dinov3_jpeg_decode(
        tables: *const u8,
        tables_size: usize,
        data: *const u8,
        size: usize,
        expected: *const Header,
        colours: c_int,
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

fn check(code: c_int, message: &Message) -> Result<(), JpegError> {
    match code {
        0 => Ok(()),
        1 => Err(JpegError::Truncated),
        2 | 3 => Err(JpegError::Broken { reason: message.text() }),
        _ => Err(JpegError::Broken { reason: "the header contradicts itself".into() }),
    }
}

/// Reads the header.
///
/// # Errors
/// [`JpegError`].
pub fn read_header(bytes: &[u8]) -> Result<Header, JpegError> {
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

/// Decodes into `values`: row by row, the components of a pixel side by side. `header` is what [`read_header`] gave;
/// `tables` are those of other streams (the tag `JPEGTables` of a TIFF), or nothing.
///
/// # Errors
/// [`JpegError`]; also for a header of other values than 8 bits.
pub fn decode(
    tables: &[u8],
    bytes: &[u8],
    header: &Header,
    colours: Colours,
    values: &mut [u8],
) -> Result<(), JpegError> {
    let (expected_bytes, found_bytes) = (header.decoded_bytes(), values.len() as u64);
    if expected_bytes != found_bytes {
        return Err(JpegError::Room { expected_bytes, found_bytes });
    }
    let mut message = Message([0; 256]);
    let colours = match colours {
        Colours::OfPicture => 0,
        Colours::AsStored => 1,
        Colours::OfYCbCr => 2,
    };
    // SAFETY: values holds width * height * components bytes, and the shim refuses to write if a second look at the
    // header gives other numbers; the remaining pointers and lengths describe live buffers and are not kept.
    let code = unsafe {
        dinov3_jpeg_decode(
            tables.as_ptr(),
            tables.len(),
            bytes.as_ptr(),
            bytes.len(),
            &raw const *header,
            colours,
            values.as_mut_ptr(),
            message.0.as_mut_ptr().cast(),
            message.0.len(),
        )
    };
    check(code, &message)
}

#[cfg(test)]
mod tests {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    use super::*;

    fn encoded(colours: ColorType, sampling: SamplingFactor) -> Vec<u8> {
        let channels = if colours == ColorType::Luma { 1 } else { 3 };
        let values: Vec<u8> = (0..48 * 32 * channels).map(|at: u32| (at * at / 37 % 251) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 80);
        encoder.set_sampling_factor(sampling);
        encoder.encode(&values, 48, 32, colours).unwrap();
        bytes
    }

    fn decoded(tables: &[u8], bytes: &[u8], colours: Colours) -> Result<Vec<u8>, JpegError> {
        let header = read_header(bytes)?;
        let mut values = vec![0; header.decoded_bytes() as usize];
        decode(tables, bytes, &header, colours, &mut values).map(|()| values)
    }

    /// The stream without its tables, and these by themselves, as TIFFs store them.
    fn divided(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut tables, mut rest, mut at) = (bytes[..2].to_vec(), bytes[..2].to_vec(), 2);
        loop {
            let (marker, length) = (bytes[at + 1], usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])));
            let segment = &bytes[at..at + 2 + length];
            match marker {
                0xda => break,
                0xc4 | 0xdb => tables.extend(segment),
                _ => rest.extend(segment),
            }
            at += 2 + length;
        }
        tables.extend([0xff, 0xd9]);
        rest.extend(&bytes[at..]);
        (tables, rest)
    }

    #[test]
    fn tables_may_come_from_elsewhere() {
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_2] {
            let whole = encoded(ColorType::Rgb, sampling);
            let expected = decoded(&[], &whole, Colours::OfPicture).unwrap();
            let (tables, rest) = divided(&whole);
            assert_eq!(decoded(&tables, &rest, Colours::OfYCbCr), Ok(expected));
            assert!(matches!(decoded(&[], &rest, Colours::OfYCbCr), Err(JpegError::Broken { .. })));
            // A stream with a picture is no table.
            assert!(decoded(&whole, &rest, Colours::OfYCbCr).is_err());
            assert!(decoded(&tables[..tables.len() / 2], &rest, Colours::OfYCbCr).is_err());
        }
    }

    #[test]
    fn components_can_stay_as_they_are() {
        let grey = encoded(ColorType::Luma, SamplingFactor::F_1_1);
        assert_eq!(decoded(&[], &grey, Colours::AsStored), decoded(&[], &grey, Colours::OfPicture));
        let colours = encoded(ColorType::Rgb, SamplingFactor::F_1_1);
        assert_ne!(decoded(&[], &colours, Colours::AsStored), decoded(&[], &colours, Colours::OfPicture));
        assert!(matches!(decoded(&[], &grey, Colours::OfYCbCr), Err(JpegError::Broken { .. })));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let bytes = encoded(ColorType::Rgb, SamplingFactor::F_1_1);
        assert_eq!(decoded(&[], &bytes[..bytes.len() / 2], Colours::OfPicture), Err(JpegError::Truncated));
        assert!(matches!(read_header(b"no JPEG"), Err(JpegError::Broken { .. })));
        let header = read_header(&bytes).unwrap();
        let little = decode(&[], &bytes, &header, Colours::OfPicture, &mut [0; 10]);
        assert_eq!(little, Err(JpegError::Room { expected_bytes: 48 * 32 * 3, found_bytes: 10 }));
    }
}
