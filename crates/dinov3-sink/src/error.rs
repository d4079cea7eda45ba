//! Why an output could not be written.

use std::io;
use std::path::{Path, PathBuf};

use dinov3_engine::SinkError;
use dinov3_model::encoder::Pooling;

use crate::disk::folder_of;
use crate::element::ElementType;
use crate::embedding::Format;

/// Why an output could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The output is a folder.
    #[error("{}: is a folder, not a file", path.display())]
    IsFolder {
        /// The output.
        path: PathBuf,
    },
    /// The output exists and is none of our Zarr stores, which are folders: it would be removed as a whole.
    #[error("{}: exists and is not a Zarr store that dinov3 wrote; remove it, or choose another name", path.display())]
    NotAStore {
        /// The output.
        path: PathBuf,
    },
    /// A cell of a grid of features that is none: a bug in the caller.
    #[error("{}: {problem}", path.display())]
    Grid {
        /// The output.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The output exists and is a device, a pipe or the like, which cannot be replaced as a whole.
    #[error("{}: exists and is not a regular file", path.display())]
    NotAFile {
        /// The output.
        path: PathBuf,
    },
    /// The folder that shall hold the output does not exist.
    #[error("{}: the folder {} does not exist", path.display(), folder.display())]
    MissingFolder {
        /// The output.
        path: PathBuf,
        /// Where it should be.
        folder: PathBuf,
    },
    /// The output cannot be created.
    #[error("{}: cannot be created: {source}", path.display())]
    Create {
        /// The output.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed, for example because the disk is full.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The output; `-` for a stream.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The finished output could not be put in place.
    #[error("{}: cannot be put in place: {source}", path.display())]
    Commit {
        /// The output.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What a raster of features is made of cannot be read.
    #[error(transparent)]
    Features(Box<dyn std::error::Error + Send + Sync>),
    /// The file name does not say which format is wanted.
    #[error("{}: the format is not known by this name; known are {}", path.display(), Format::known())]
    UnknownFormat {
        /// The output.
        path: PathBuf,
    },
    /// Without pooling, an image gives a matrix or a map, which is no row of a table.
    #[error("pooling '{pooling}' gives one matrix per image, not one vector; `features --all-tokens` writes it")]
    NotAVector {
        /// The pooling.
        pooling: Pooling,
    },
    /// A pooling was asked for twice.
    #[error("pooling '{pooling}' was asked for twice")]
    DuplicatePooling {
        /// The pooling.
        pooling: Pooling,
    },
    /// Neither a pooling nor class scores were asked for.
    #[error("no pooling and no class scores were asked for, so rows would be empty")]
    NoColumns,
    /// A vector of that length cannot be a column.
    #[error("column {column} would have {width} values per row")]
    ColumnWidth {
        /// The column.
        column: String,
        /// Its values per row.
        width: usize,
    },
    /// An npy file holds one array.
    #[error(
        "{}: a npy file holds exactly one pooling, and not {}; Parquet, safetensors and JSON lines hold several",
        path.display(), columns.join(", ")
    )]
    OneColumnOnly {
        /// The output.
        path: PathBuf,
        /// The columns asked for.
        columns: Vec<String>,
    },
    /// The features of an image are not what the layout announced: a bug in the caller.
    #[error("{row}: column {column} needs {expected} values, and the features have {found}")]
    RowMismatch {
        /// The image.
        row: String,
        /// The column.
        column: String,
        /// Values announced.
        expected: usize,
        /// Values delivered; 0 if there are none of that pooling.
        found: usize,
    },
    /// A chip whose row cannot stand in the file: a bug in the caller.
    #[error("{row}: {problem}")]
    Chip {
        /// The chip.
        row: String,
        /// What is wrong with its row.
        problem: String,
    },
    /// The format has floats only.
    #[error("{}: {} are stored in Parquet and Zarr only", path.display(), element.name())]
    ElementType {
        /// The output.
        path: PathBuf,
        /// What was asked for.
        element: ElementType,
    },
    /// Rows of the run cannot be read any more.
    #[error("{source}")]
    Journal {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// More names than a safetensors header can hold: readers refuse headers above the limit.
    #[error("{}: the names of {rows} images exceed the {limit} bytes of a safetensors header; use Parquet", path.display())]
    HeaderTooLarge {
        /// The output.
        path: PathBuf,
        /// Rows so far.
        rows: usize,
        /// Largest header that readers accept.
        limit: usize,
    },
    /// A tensor's shape and length do not agree, or its name cannot be used.
    #[error("{}: tensor '{name}' {problem}", path.display())]
    Tensor {
        /// The output.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The Parquet writer refused.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The output.
        path: PathBuf,
        /// Its own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file cannot be opened.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that should be a work list is none.
    #[error("{}: not a plan of 'dinov3 scene plan': {problem}", path.display())]
    NotAWorkList {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The sink was used after its end, or after an error.
    #[error("the output is closed")]
    Closed,
}

impl OutputError {
    /// For `map_err` after writing to `path`.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    /// After trying to create something beside `target`, which is where the output `path` will be.
    pub(crate) fn create(path: &Path, target: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::MissingFolder { path, folder: folder_of(target) },
            _ => Self::Create { path, source },
        }
    }

    /// Whether the reader of our standard output has gone, which is no reason to complain.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<OutputError> for SinkError {
    fn from(error: OutputError) -> Self {
        SinkError::new(error)
    }
}
