//! Checkpoints on disk, as the values of timm's tensors.
//!
//! This room opens what a user names (a safetensors or PyTorch file, a folder, an index of shards), finds out whose
//! names it uses, and accounts for every tensor in it. It does not know what the tensors compute, and it never
//! copies a checkpoint: files are memory-mapped and values converted as they are asked for.
//!
//! ```
//! use dinov3_model::{spec, synthetic::{SyntheticSpec, SyntheticWeights}, weights::WeightSource};
//! let model = spec::find("vit_small_patch16_dinov3")?;
//! let source: Box<dyn WeightSource> = Box::new(SyntheticWeights::new(&model, SyntheticSpec { seed: 7, outliers: false }));
//! let mut first = [0.0];
//! source.read("patch_embed.proj.weight", 0, &mut first)?;
//! assert_eq!(first[0], 0.061508544);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoint;
mod files;
pub mod hash;
mod head;
mod pickle;
mod torch;
mod verify;
mod zip;

pub use checkpoint::{Checkpoint, Report};
pub use files::{FileSet, StoredTensor, open_files};
pub use head::{MOST_CLASSES, StoredHead, stored_classes};
pub use verify::{TypeTotal, VerifiedFile, VerifyReport, verify_files};
