//! Why a packed file cannot be used.

use std::path::PathBuf;

/// Why a packed file cannot be used. Files are named as the caller did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// A file that cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error("{path}: not a packed file", path = path.display())]
    NotPacked {
        /// The file.
        path: PathBuf,
    },
    /// Written in a newer or older format.
    #[error("{path}: packed in format {found}, this program reads format {expected}; pack the weights again", path = path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is read here.
        expected: u32,
    },
    /// Shorter or longer than it says.
    #[error("{path}: {}: it has {found_bytes} bytes and should have {expected_bytes}",
        if found_bytes < expected_bytes { "cut short" } else { "longer than it says" }, path = path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Size that its head tells.
        expected_bytes: u64,
        /// Size that it has.
        found_bytes: u64,
    },
    /// Head or table are not what was written.
    #[error("{path}: damaged or altered: {reason}; pack the weights again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Bytes of parts that are not what was written.
    #[error("{path}: damaged or altered: the checksum of bytes {start} to {end} is wrong ({parts}); pack the weights again", path = path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// First byte of the chunk.
        start: u64,
        /// End of the chunk.
        end: u64,
        /// The parts that lie in it.
        parts: String,
    },
    /// A part that the model needs.
    #[error("{path}: {part} is missing, or is not {expected}", path = path.display())]
    Part {
        /// The file.
        path: PathBuf,
        /// The part's name.
        part: String,
        /// Type and shape that were looked for.
        expected: String,
    },
    /// Packed for other kernels.
    #[error("{path}: packed in layout {found}, but {instruction_set} takes {expected}; pack the weights again on this machine", path = path.display())]
    OtherLayout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: String,
        /// The layout that is needed.
        expected: String,
        /// The instruction set that needs it.
        instruction_set: String,
    },
    /// Packed in another precision than the one asked for.
    #[error("{path}: packed in {found}, not in {expected}", path = path.display())]
    OtherPrecision {
        /// The file.
        path: PathBuf,
        /// Its precision.
        found: String,
        /// The precision asked for.
        expected: String,
    },
    /// The weights of another model than the one asked for.
    #[error("{path}: holds {found}, which is not {expected}", path = path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The model in it.
        found: String,
        /// The model asked for.
        expected: String,
    },
}
