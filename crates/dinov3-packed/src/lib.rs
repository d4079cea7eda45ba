//! Packed files: named parts of a model as the kernels take them, mapped and never copied.
//!
//! This room knows the container and nothing of what is in it: a head, parts at aligned places in the order in which they
//! are used, and a table with their places and the checksums of everything. What layout, precision and model are is for
//! those who write and read the parts.
//!
//! ```text
//! 0    head, 128 bytes: magic, format version, file size, place and SHA-256 of the table, SHA-256 of the head itself
//! 128  parts, each at a multiple of 64 bytes, of 4096 from 64 KiB on, of 2 MiB from 64 MiB on; zeros between them
//!      table, JSON: layout, precision, model, source, parts, SHA-256 of each 16 MiB from byte 128 on
//! ```
//!
//! Opening checks head and table, that the file is as long as they say, and that parts lie within it; that takes no
//! longer for a large file. [`PackedFile::verify`] reads everything.
//!
//! ```
//! use dinov3_packed::{Description, PackedFile, PackedWriter, PartData};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("two.dinov3");
//! let description = Description { layout: "any".into(), precision: "f32".into(), ..Description::default() };
//! let mut writer = PackedWriter::new(std::fs::File::create(&path)?, description)?;
//! writer.part("norm.weight", "f32", &[2], PartData::F32(&[1.0, 2.0]))?;
//! writer.finish()?;
//!
//! let file = PackedFile::open(&path)?;
//! assert_eq!(*file.values::<f32>("norm.weight", "f32", &[2])?, [1.0, 2.0]);
//! # Ok(())
//! # }
//! ```

mod error;
mod format;
mod read;
mod write;

pub use error::PackedError;
pub use format::{Description, Part};
pub use read::{PackedFile, is_packed};
pub use write::{PackedSummary, PackedWriter, PartData};
