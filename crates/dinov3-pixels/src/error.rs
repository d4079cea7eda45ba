//! What can go wrong between bytes and pixels.

use crate::decode::ImageFormat;

/// Why a picture could not be decoded, resized or normalised.
///
/// The facts are fields, so that a caller can decide without reading the message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PixelError {
    /// The first bytes belong to no picture format that this crate reads.
    #[error("not a JPEG, PNG, WebP, TIFF or BMP picture (first bytes: {first_bytes})")]
    UnknownFormat {
        /// The first bytes in hexadecimal, at most 16 of them.
        first_bytes: String,
    },
    /// The bytes end before the picture does.
    #[error("the {format} picture is truncated")]
    Truncated {
        /// The format of the picture.
        format: ImageFormat,
    },
    /// The bytes contradict their own format.
    #[error("the {format} picture is broken: {reason}")]
    Broken {
        /// The format of the picture.
        format: ImageFormat,
        /// What the decoder found.
        reason: String,
    },
    /// The picture is of a kind that this crate does not read.
    #[error("{format} pictures with {what} are not supported: {hint}")]
    Unsupported {
        /// The format of the picture.
        format: ImageFormat,
        /// The unsupported property.
        what: String,
        /// What the caller can do instead.
        hint: &'static str,
    },
    /// The picture holds grey values deeper than eight bits and nobody said how they become eight.
    #[error(
        "the {format} picture holds {kind} grey values, whose scale is unknown: choose DeepGrey::HighByte (value / 256, \
         16 bits only) or DeepGrey::Clip (values above 255 become 255, as Pillow does), or convert it to 8 bits first"
    )]
    DeepGrey {
        /// The format of the picture.
        format: ImageFormat,
        /// What kind of values they are, for example `16-bit`.
        kind: &'static str,
    },
    /// A limit would be exceeded. Nothing was allocated for the pixels.
    #[error("{quantity} is {value}, more than the limit of {limit}")]
    LimitExceeded {
        /// What was measured.
        quantity: &'static str,
        /// Its value.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A picture or a target without pixels.
    #[error("a picture of {width_px} x {height_px} pixels has no content")]
    Empty {
        /// The width in pixels.
        width_px: u64,
        /// The height in pixels.
        height_px: u64,
    },
    /// A pixel buffer does not fit its declared size.
    #[error("{width_px} x {height_px} RGB pixels need {expected_bytes} bytes, got {actual_bytes}")]
    BufferSize {
        /// The declared width in pixels.
        width_px: u32,
        /// The declared height in pixels.
        height_px: u32,
        /// The bytes that the size asks for.
        expected_bytes: u64,
        /// The bytes given.
        actual_bytes: u64,
    },
    /// A recipe that cannot be followed.
    #[error("the recipe's {field} is {value}: {reason}")]
    InvalidRecipe {
        /// The field at fault.
        field: &'static str,
        /// Its value.
        value: f64,
        /// Why it cannot be used.
        reason: &'static str,
    },
    /// The memory for the pixels could not be had.
    #[error("no memory for {bytes} bytes of pixels")]
    OutOfMemory {
        /// The bytes asked for.
        bytes: u64,
    },
}
