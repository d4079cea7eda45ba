//! What can go wrong between a feature map and its picture.

/// Why a picture could not be made, or a basis not be read.
///
/// The facts are fields, so that a caller can decide without reading the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The array is not one feature map.
    #[error("a feature map has shape [1, D, h, w] with no empty dimension, this one has {shape:?} and {values} values")]
    MapShape {
        /// The shape found.
        shape: Vec<usize>,
        /// The number of values found.
        values: usize,
    },
    /// The map holds NaN or an infinity, for which there is no colour.
    #[error("the feature map holds {value} in channel {channel}")]
    NotFinite {
        /// The first such value.
        value: f32,
        /// Its channel.
        channel: usize,
    },
    /// The chosen point lies outside the picture.
    #[error("({x_px}, {y_px}) lies outside the picture of {width_px} × {height_px} pixels")]
    OutsidePicture {
        /// Pixels from the left.
        x_px: usize,
        /// Pixels from the top.
        y_px: usize,
        /// Width of the picture.
        width_px: usize,
        /// Height of the picture.
        height_px: usize,
    },
    /// No picture has this size.
    #[error("a picture of {width_px} × {height_px} pixels is not possible (from 1 to {limit} pixels in all)")]
    PictureSize {
        /// Width asked for.
        width_px: usize,
        /// Height asked for.
        height_px: usize,
        /// The largest number of pixels.
        limit: usize,
    },
    /// Width, height and number of values do not belong together.
    #[error("{width_px} × {height_px} pixels need three bytes each, found {bytes} bytes in all")]
    PixelCount {
        /// Width given.
        width_px: usize,
        /// Height given.
        height_px: usize,
        /// Bytes given.
        bytes: usize,
    },
    /// The basis was made from features of another length.
    #[error("the basis is for features with {basis} channels, the map has {map}")]
    BasisChannels {
        /// Channels of the basis.
        basis: usize,
        /// Channels of the map.
        map: usize,
    },
    /// The basis cannot be used.
    #[error(transparent)]
    Basis(#[from] dinov3_pca::PcaError),
    /// The PNG could not be written.
    #[error("the PNG could not be written")]
    Png(#[from] png::EncodingError),
    /// The JPEG could not be written.
    #[error("the JPEG could not be written")]
    Jpeg(#[from] jpeg_encoder::EncodingError),
}
