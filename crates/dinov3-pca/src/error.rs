//! Why a basis cannot be read.

/// Why a basis cannot be read. The facts are fields, so that a caller can decide without reading the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PcaError {
    /// The basis was made from another model, other weights or another layer: its values would mean nothing here.
    #[error("the basis was made with {what} {found}, not {expected}")]
    Origin {
        /// `model`, `tap` or `weights`.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What the caller works with.
        expected: String,
    },
    /// The file holds no basis that this crate reads.
    #[error("not a PCA basis: {reason}")]
    NotABasis {
        /// What is missing or wrong.
        reason: String,
    },
    /// The file is not in the safetensors format.
    #[error("not a readable safetensors file")]
    Safetensors(#[from] safetensors::SafeTensorError),
}
