//! Models into packed files and out of them.

use std::io::{Seek, Write};
use std::sync::{Mutex, PoisonError};

use dinov3_kernels::{Isa, Operand};
use dinov3_model::description;
use dinov3_model::spec::ModelSpec;
use dinov3_model::weights::{WeightSource, WeightsError};
use dinov3_packed::{Description, PackedError, PackedFile, PackedWriter, PartData};
use dinov3_system::{RangeStream, memory_limit};
use serde_json::Value;

use crate::load::Origin;
use crate::model::{AnyNet, Model, Net, Options, Precision, load};

/// To be raised when parts get other names, or other numbers from the same tensors.
const PACKING_VERSION: u32 = 1;

/// Why a model cannot be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Weights that cannot be had.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file that does not take them.
    #[error("the packed file cannot be written: {0}")]
    Write(std::io::Error),
    /// [`Options::cancelled`] said so.
    #[error("interrupted")]
    Interrupted,
    /// A model whose description would not lead back to it.
    #[error("{model}: its description cannot be stored exactly")]
    Description {
        /// The model.
        model: String,
    },
}

/// How the blocks of a model come into memory that are too large to stay there: while one is computed the next one is
/// read, and the one before is let go. What is computed is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Streaming {
    /// Blocks of the model.
    pub blocks: usize,
    /// The first blocks, which stay in memory.
    pub resident_blocks: usize,
    /// Size of the packed file.
    pub file_bytes: u64,
    /// The memory that this process may take.
    pub memory_bytes: u64,
}

/// The layout of packed files for an instruction set.
pub fn layout(isa: Isa) -> String {
    format!("{}-v{PACKING_VERSION}", isa.layout())
}

/// What a packed file of this model says of itself; `source` tells which weights they are.
///
/// # Errors
/// If the model cannot be described exactly.
pub fn packed_description(spec: &ModelSpec, options: &Options, source: Value) -> Result<Description, PackError> {
    let model = description::describe(spec);
    // Numbers go through text: what comes back must be what went in.
    let again = serde_json::from_str(&model.to_string()).ok().and_then(|model| description::parse(&model).ok());
    if again.as_ref() != Some(spec) {
        return Err(PackError::Description { model: spec.name.clone() });
    }
    Ok(Description {
        program: format!("dinov3 {}", env!("CARGO_PKG_VERSION")),
        layout: layout(options.isa.unwrap_or_else(Isa::detect)),
        precision: options.precision.name().to_string(),
        model,
        source,
    })
}

/// The model whose weights a packed file holds.
///
/// # Errors
/// If its description is none.
pub fn packed_spec(file: &PackedFile) -> Result<ModelSpec, PackedError> {
    description::parse(&file.description().model).map_err(|error| PackedError::Damaged {
        path: file.path().to_path_buf(),
        reason: format!("its model: {error}"),
    })
}

/// The precision that a packed file is in.
///
/// # Errors
/// If this program does not know it.
pub fn packed_precision(file: &PackedFile) -> Result<Precision, PackedError> {
    let name = &file.description().precision;
    Precision::from_name(name).ok_or_else(|| PackedError::Damaged {
        path: file.path().to_path_buf(),
        reason: format!("its precision is '{}'", name.escape_debug().take(40).collect::<String>()),
    })
}

impl Model {
    /// Packs every tensor into a file whose writer was made with [`packed_description`] of the same model and options.
    /// Memory: the largest matrix as packed, and what the source takes.
    ///
    /// # Errors
    /// If a tensor cannot be had, or the file does not take it.
    pub fn pack<W: Write + Seek + Send>(
        spec: &ModelSpec,
        source: &dyn WeightSource,
        options: &Options,
        writer: &mut PackedWriter<W>,
    ) -> Result<(), PackError> {
        let isa = options.isa.unwrap_or_else(Isa::detect);
        // Parts come one after the other, from one thread: the lock is never waited for.
        let output = Mutex::new((writer, None));
        let record = |name: &str, kind: &str, shape: &[usize], data: PartData<'_>| {
            let (writer, failure) = &mut *output.lock().unwrap_or_else(PoisonError::into_inner);
            let written = match options.cancelled.as_ref().is_some_and(|cancelled| cancelled()) {
                true => Err(PackError::Interrupted),
                false => writer.part(name, kind, shape, data).map_err(PackError::Write),
            };
            written.map_err(|error| {
                let reason = error.to_string();
                *failure = Some(error);
                WeightsError::Malformed { file: name.to_string(), reason }
            })
        };
        let result = load(spec, Origin::Recorded(source, &record), options, isa);
        let (_, failure) = output.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (result, failure) {
            (_, Some(error)) => Err(error),
            (Err(error), None) => Err(error.into()),
            (Ok(_), None) => Ok(()),
        }
    }

    /// The model in a packed file: its parts stay in the mapping, and nothing is read before it is used. `spec` is
    /// [`packed_spec`]'s, perhaps under another name or with another preprocessing.
    ///
    /// # Errors
    /// If the file is of another model, precision or layout, or lacks a part.
    pub fn open_packed(spec: &ModelSpec, file: &PackedFile, options: &Options) -> Result<Self, PackedError> {
        let (path, description) = (|| file.path().to_path_buf(), file.description());
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let (found, expected) = (description.layout.clone(), layout(isa));
        if found != expected {
            let instruction_set = isa.name().to_string();
            return Err(PackedError::OtherLayout { path: path(), found, expected, instruction_set });
        }
        let found = packed_precision(file)?;
        if found != options.precision {
            let (found, expected) = (found.name().to_string(), options.precision.name().to_string());
            return Err(PackedError::OtherPrecision { path: path(), found, expected });
        }
        let found = packed_spec(file)?;
        if found.architecture != spec.architecture {
            return Err(PackedError::OtherModel { path: path(), found: found.name, expected: spec.name.clone() });
        }
        let mut net = load(spec, Origin::Packed(file), options, isa).map_err(|error| {
            let reason = match error {
                WeightsError::Malformed { reason, .. } => reason,
                other => other.to_string(),
            };
            PackedError::Damaged { path: path(), reason }
        })?;
        let streaming = match &mut net {
            AnyNet::F32(net) => stream(net, spec, file, options),
            AnyNet::Bf16(net) => stream(net, spec, file, options),
            AnyNet::Int8(net) => stream(net, spec, file, options),
        };
        Ok(Self::new(spec, options, isa, net, streaming))
    }
}

/// Lets a ViT stream its blocks if they would fill the memory. A ConvNeXt has less than a GB, which the system pages in
/// and out as it likes.
fn stream<E: Operand>(net: &mut Net<E>, spec: &ModelSpec, file: &PackedFile, options: &Options) -> Option<Streaming> {
    let Net::Vit(net) = net else { return None };
    let memory_bytes = options.memory_limit_bytes.or_else(memory_limit)?;
    let (blocks, file_bytes) = (spec.depth(), file.map().len() as u64);
    // The rest is for activations, and for everybody else.
    let budget_bytes = memory_bytes / 10 * 7;
    if file_bytes <= budget_bytes {
        return None;
    }
    let ranges: Vec<_> = (0..blocks).map(|block| file.range_of(&format!("blocks.{block}."))).collect();
    let largest_bytes = ranges.iter().map(|range| range.len() as u64).max().unwrap_or(0).max(1);
    // The block that is computed, the one that is read, the one that is let go.
    let left_bytes = budget_bytes.saturating_sub(3 * largest_bytes);
    let resident_blocks = usize::try_from(left_bytes / largest_bytes).unwrap_or(blocks).min(blocks);
    net.stream_blocks(RangeStream::new(file.map().clone(), ranges, resident_blocks));
    Some(Streaming { blocks, resident_blocks, file_bytes, memory_bytes })
}
