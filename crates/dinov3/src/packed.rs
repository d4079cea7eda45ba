//! Packed files: weights as the kernels take them, mapped instead of read.
//!
//! Packing reorders every matrix for one family of instruction sets and one precision; that takes a second or a minute,
//! and the result fills memory. A packed file holds the result: opening it takes milliseconds, its pages are shared with
//! other processes and given back when memory is short, and a model that is larger than the memory is read block by block
//! while it runs. The numbers are the same, bit for bit.
//!
//! ```
//! use dinov3::{Options, Precision, Weights, find_model, packed};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("vits16.dinov3");
//! let spec = find_model("vit_small_patch16_dinov3")?;
//! let weights = Weights::parse("synthetic:7")?; // or a file, a folder, a repository
//! packed::pack(&spec, &weights, &Options::new().precision(Precision::Bf16), &path)?;
//!
//! // From now on the file alone: it knows its model and its precision.
//! let model = packed::open_packed(&path, &Options::new())?;
//! assert_eq!(model.model.options().precision, Precision::Bf16);
//! let embedding = model.embed(&model.preprocess_rgb(30, 40, &[90; 30 * 40 * 3])?)?;
//! assert_eq!(embedding.len(), 384);
//! # Ok(())
//! # }
//! ```

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use dinov3_cpu::{
    Model, Options, PackError as ModelPackError, layout, packed_description, packed_precision, packed_spec,
};
use dinov3_kernels::Isa;
use dinov3_model::description;
use dinov3_model::spec::ModelSpec;
use dinov3_packed::PackedWriter;
use dinov3_sink::{AtomicFile, OutputError};
use dinov3_weights::hash::sha256;
use serde_json::{Value, json};

pub use dinov3_cpu::{packed_precision as precision_of, packed_spec as spec_of};
pub use dinov3_packed::{Description, PackedError, PackedFile, PackedSummary, Part, is_packed};

use crate::open::{FoundWeights, OpenError, Opened, Weights, WeightsIdentity};
use crate::opened::Sessions;

/// The folder of the cache that packed files are kept in.
const CACHE_FOLDER: &str = "packed";

/// Why a model cannot be packed, or not be opened through the cache of packed files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Weights that cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file that cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A model that cannot be described, or weights that cannot be read to the end.
    #[error(transparent)]
    Model(ModelPackError),
    /// Weights that are packed already.
    #[error("{path}: is packed already; pack the weights that it was made of", path = path.display())]
    PackedAlready {
        /// The file.
        path: PathBuf,
    },
    /// A source without a hash, so that the cache could not tell it from another one.
    #[error("the weights cannot be hashed, so they cannot be cached: {reason}")]
    NotHashed {
        /// Why.
        reason: String,
    },
    /// No place for a cache.
    #[error("no folder for caches is known; DINOV3_CACHE names one")]
    NoCacheFolder,
}

/// Packs weights of `spec` into a file at `output`, which appears when it is complete, for the instruction set and the
/// precision of the options. Takes memory for the largest matrix only: below 1 GB for the 7B.
///
/// # Errors
/// If the weights cannot be had or do not fit the model, or if the file cannot be written.
pub fn pack(spec: &ModelSpec, weights: &Weights, options: &Options, output: &Path) -> Result<PackedSummary, PackError> {
    if let Some(path) = packed_path(weights) {
        return Err(PackError::PackedAlready { path: path.to_path_buf() });
    }
    pack_found(&FoundWeights::find(spec, weights)?, options, output)
}

fn pack_found(found: &FoundWeights, options: &Options, output: &Path) -> Result<PackedSummary, PackError> {
    // Beside the packing, which reads the same bytes.
    let identity = found.identity.start_hashing();
    let mut file = AtomicFile::create(output)?;
    let description = packed_description(&found.spec, options, Value::Null).map_err(PackError::Model)?;
    let written = |source| OutputError::Write { path: output.to_path_buf(), source };
    let mut writer = PackedWriter::new(&mut file, description).map_err(written)?;
    Model::pack(&found.spec, &*found.source, options, &mut writer).map_err(|error| match error {
        ModelPackError::Write(source) => written(source).into(),
        ModelPackError::Weights(error) => PackError::Open(error.into()),
        other => PackError::Model(other),
    })?;
    writer.set_source(identity.wait());
    let (_, summary) = writer.finish().map_err(written)?;
    file.commit()?;
    Ok(summary)
}

/// Opens a packed file with the model and the precision that it holds; those of the options are not looked at.
///
/// # Errors
/// If it is no packed file, is damaged as far as its head and its table tell, or was packed for other instruction sets.
pub fn open_packed(path: impl AsRef<Path>, options: &Options) -> Result<Opened, OpenError> {
    let file = PackedFile::open(path.as_ref())?;
    let options = options.clone().precision(packed_precision(&file)?);
    open_file(&packed_spec(&file)?, &file, &options)
}

/// A packed file as the weights of `spec`, which may have another name or another preprocessing than the file says.
pub(crate) fn open_file(spec: &ModelSpec, file: &PackedFile, options: &Options) -> Result<Opened, OpenError> {
    let spec = with_packed_head(spec.clone(), file)?;
    Ok(Opened {
        model: Model::open_packed(&spec, file, options)?,
        weights: WeightsIdentity::Packed {
            path: file.path().to_path_buf(),
            digest: file.digest().to_string(),
            source: file.description().source.clone(),
        },
        sessions: Sessions::default(),
    })
}

/// The model with the head that its packed file has, if it has none itself.
pub(crate) fn with_packed_head(spec: ModelSpec, file: &PackedFile) -> Result<ModelSpec, OpenError> {
    Ok(match spec.num_classes() {
        0 => spec.with_num_classes(packed_spec(file)?.num_classes()),
        _ => spec,
    })
}

/// The names of the instruction sets of this CPU that take a layout, from the plainest to the best.
pub fn instruction_sets_of(wanted: &str) -> Vec<&'static str> {
    Isa::all_supported().into_iter().filter(|&isa| layout(isa) == wanted).map(Isa::name).collect()
}

/// The layout that an instruction set takes.
pub fn layout_of(isa: Isa) -> String {
    layout(isa)
}

/// The packed file that these weights are, if they are one.
pub fn packed_path(weights: &Weights) -> Option<&Path> {
    match weights {
        Weights::Path(path) if is_packed(path) => Some(path),
        _ => None,
    }
}

/// A model from the cache of packed files.
pub struct Cached {
    /// Ready to run.
    pub opened: Opened,
    /// The file in the cache; `None` if the weights were packed already and the cache was not asked.
    pub path: Option<PathBuf>,
    /// Whether the file was not there yet.
    pub is_new: bool,
}

/// Opens weights through the cache of packed files: packs them into it if they are not there, then maps them.
///
/// Files are found by the content of the weights (SHA-256 of their files, from the records that provenance keeps too),
/// the architecture, the precision and the layout. Two processes may do so at once: one packs, the other waits. Files that
/// are damaged, as far as their head and table tell, are packed anew.
///
/// # Errors
/// As [`Opened::from_spec`], and if the cache cannot be written to.
pub fn open_cached(spec: &ModelSpec, weights: &Weights, options: &Options) -> Result<Cached, PackError> {
    if packed_path(weights).is_some() {
        return Ok(Cached { opened: Opened::from_spec(spec, weights, options)?, path: None, is_new: false });
    }
    let folder = dinov3_system::cache_directory().ok_or(PackError::NoCacheFolder)?.join(CACHE_FOLDER);
    let found = FoundWeights::find(spec, weights)?;
    let path = folder.join(format!("{}.dinov3", cache_key(&found, options)?));
    // Its name is the weights' hash: provenance names the files that were packed, as without a cache.
    let open = || -> Result<Opened, PackedError> {
        let model = Model::open_packed(&found.spec, &PackedFile::open(&path)?, options)?;
        Ok(Opened { model, weights: found.identity.clone(), sessions: Sessions::default() })
    };
    let cached = |opened, is_new| Ok(Cached { opened, path: Some(path.clone()), is_new });
    if let Ok(opened) = open() {
        return cached(opened, false);
    }
    let _lock = lock(&folder, &path)?;
    // Another process may have packed it meanwhile.
    if let Ok(opened) = open() {
        return cached(opened, false);
    }
    pack_found(&found, options, &path)?;
    cached(open().map_err(OpenError::from)?, true)
}

/// What decides the bytes of the parts.
fn cache_key(found: &FoundWeights, options: &Options) -> Result<String, PackError> {
    let identity = found.identity.start_hashing().wait();
    let content = match identity.get("files").and_then(Value::as_array) {
        None => identity,
        Some(files) => {
            let hash = |file: &Value| match file["sha256"].as_str() {
                Some(sha256) => Ok(json!(sha256)),
                None => Err(PackError::NotHashed { reason: file["error"].as_str().unwrap_or("no reason").to_string() }),
            };
            files.iter().map(hash).collect::<Result<Value, _>>()?
        }
    };
    let key = json!({
        "content": content,
        "architecture": description::describe(&found.spec)["architecture"],
        "precision": options.precision.name(),
        "layout": layout(options.isa.unwrap_or_else(Isa::detect)),
    });
    Ok(sha256(key.to_string().as_bytes()))
}

/// Keeps other processes from packing the same; `None` where the file system has no locks: then both pack, and the second
/// file replaces the first, which is the same.
fn lock(folder: &Path, path: &Path) -> Result<Option<File>, OutputError> {
    let failed = |source| OutputError::Create { path: path.to_path_buf(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = OpenOptions::new().create(true).append(true).open(path.with_extension("lock")).map_err(failed)?;
    Ok(file.lock().is_ok().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinov3_model::config_json;
    use dinov3_testing::checkpoints::{self, Type};
    use dinov3_testing::dialect::Dialect;

    #[test]
    fn the_key_is_of_the_content_and_not_of_the_place() {
        let text = r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 1, "num_heads": 1}}"#;
        let spec = config_json::parse(text, "tiny").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str, seed: u64, options: &Options| {
            let path = folder.path().join(name);
            if !path.exists() {
                let weights = checkpoints::synthetic_weights(&spec, seed, Dialect::Timm);
                checkpoints::write(&path, &weights, Type::F32);
            }
            cache_key(&FoundWeights::find(&spec, &Weights::Path(path)).unwrap(), options).unwrap()
        };
        let f32 = Options::new();
        let first = key("a.safetensors", 1, &f32);
        assert_eq!(first, key("b.safetensors", 1, &f32));
        assert_ne!(first, key("c.safetensors", 2, &f32));
        assert_ne!(first, key("a.safetensors", 1, &Options::new().precision(dinov3_cpu::Precision::Bf16)));
    }
}
