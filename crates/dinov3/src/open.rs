//! From what a user writes to a model.

use std::path::{Path, PathBuf};

use dinov3_cpu::{Model, Options};
use dinov3_model::config_json::{self, ConfigError};
use dinov3_model::spec::{self, ModelSpec, UnknownModel};
use dinov3_model::synthetic::{SyntheticSpec, SyntheticWeights};
use dinov3_model::weights::WeightsError;
use dinov3_weights::hash::{FileHash, PendingHashes};
use dinov3_weights::{Checkpoint, Report};
use serde_json::{Value, json};

use crate::opened::Sessions;

/// Largest `config.json` that is read.
const LARGEST_CONFIG_BYTES: u64 = 1 << 20;

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No such model.
    #[error(transparent)]
    UnknownModel(#[from] UnknownModel),
    /// A `config.json` that is no model.
    #[error("{path}: {source}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A `config.json` that cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Weights that cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Where weights come from, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weights {
    /// Computed from a seed.
    Synthetic(SyntheticSpec),
    /// A file, an index or a folder.
    Path(PathBuf),
}

impl Weights {
    /// `synthetic:SEED`, `synthetic-outliers:SEED`, or a path.
    ///
    /// # Errors
    /// If the text starts like a synthetic spec but is none.
    pub fn parse(text: &str) -> Result<Self, WeightsError> {
        match SyntheticSpec::parse(text) {
            Some(spec) => Ok(Self::Synthetic(spec?)),
            None => Ok(Self::Path(PathBuf::from(text))),
        }
    }
}

/// A model with what is known of its weights.
pub struct Opened {
    /// Ready to run.
    pub model: Model,
    /// For provenance.
    pub weights: WeightsIdentity,
    /// For [`Opened::encode`] and its relatives.
    pub(crate) sessions: Sessions,
}

/// Which weights these are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WeightsIdentity {
    /// Computed from a seed.
    Synthetic(SyntheticSpec),
    /// Files, and what they held beside the model's tensors.
    Files {
        /// The files, shards in order.
        paths: Vec<PathBuf>,
        /// Dialect, types, ignored tensors.
        report: Report,
    },
}

/// An identity whose hashes may still be computed.
pub struct PendingIdentity {
    identity: WeightsIdentity,
    hashes: Option<PendingHashes>,
}

impl WeightsIdentity {
    /// Starts hashing the files beside whatever comes next.
    pub fn start_hashing(&self) -> PendingIdentity {
        let hashes = match self {
            Self::Synthetic(_) => None,
            Self::Files { paths, .. } => Some(PendingHashes::start(paths)),
        };
        PendingIdentity { identity: self.clone(), hashes }
    }
}

impl PendingIdentity {
    /// Waits for the hashes: `{"synthetic": "synthetic:7"}` or `{"dialect": ..., "files": [{name, bytes, sha256}]}`.
    pub fn wait(self) -> Value {
        match (self.identity, self.hashes) {
            (WeightsIdentity::Files { report, .. }, Some(hashes)) => {
                json!({"dialect": report.dialect.to_string(), "dtypes": report.dtypes, "files": hashed_files(hashes)})
            }
            (WeightsIdentity::Synthetic(spec), _) => json!({"synthetic": spec.to_string()}),
            (WeightsIdentity::Files { .. }, None) => Value::Null,
        }
    }
}

/// Waits for the hashes: `[{name, bytes, sha256}]`, for provenance.
pub fn hashed_files(hashes: PendingHashes) -> Value {
    let file = |hash: std::io::Result<FileHash>| match hash {
        Ok(hash) => json!(hash),
        Err(error) => json!({"error": error.to_string()}),
    };
    hashes.wait().into_iter().map(file).collect()
}

/// A model by name, alias, or path of a `config.json`. A folder with a `config.json` is a path too.
///
/// # Errors
/// If there is no such model, with the closest names; if the file is no model, with the field.
pub fn find_model(text: &str) -> Result<ModelSpec, OpenError> {
    let path = Path::new(text);
    let file = if path.join("config.json").is_file() { path.join("config.json") } else { path.to_path_buf() };
    if file.extension().is_none_or(|extension| extension != "json") {
        return Ok(spec::find(text)?);
    }
    let failed = |reason: String| OpenError::ConfigFile { path: file.clone(), reason };
    let information = std::fs::metadata(&file).map_err(|error| failed(error.to_string()))?;
    // Reading a pipe would wait for ever.
    if !information.is_file() {
        return Err(failed("not a regular file".to_string()));
    }
    let size = information.len();
    if size > LARGEST_CONFIG_BYTES {
        return Err(failed(format!("{size} bytes, above the limit of {LARGEST_CONFIG_BYTES}")));
    }
    let config = std::fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
    config_json::parse(&config, text).map_err(|source| OpenError::Config { path: file, source })
}

/// Opens a model: [`find_model`], then its weights, packed for this CPU.
///
/// # Errors
/// If the model is unknown or the weights do not fit it.
pub fn open(model: &str, weights: &Weights, options: &Options) -> Result<Opened, OpenError> {
    open_spec(&find_model(model)?, weights, options)
}

impl Opened {
    /// Opens a model that is described already.
    ///
    /// # Errors
    /// If the weights do not fit it.
    pub fn from_spec(spec: &ModelSpec, weights: &Weights, options: &Options) -> Result<Self, OpenError> {
        open_spec(spec, weights, options)
    }
}

fn open_spec(spec: &ModelSpec, weights: &Weights, options: &Options) -> Result<Opened, OpenError> {
    Ok(match weights {
        Weights::Synthetic(seed) => Opened {
            model: Model::load(spec, &SyntheticWeights::new(spec, *seed), options)?,
            weights: WeightsIdentity::Synthetic(*seed),
            sessions: Sessions::default(),
        },
        Weights::Path(path) => {
            let checkpoint = Checkpoint::open(path, spec)?;
            Opened {
                model: Model::load(spec, &checkpoint, options)?,
                weights: WeightsIdentity::Files {
                    paths: checkpoint.paths().to_vec(),
                    report: checkpoint.report.clone(),
                },
                sessions: Sessions::default(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_name_file_and_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, r#"{"architecture": "vit_base_patch16_dinov3"}"#).unwrap();
        for text in ["vit_base_patch16_dinov3", file.to_str().unwrap(), folder.path().to_str().unwrap()] {
            assert_eq!(find_model(text).unwrap().embed_dim(), 768, "{text}");
        }
        std::fs::write(&file, r#"{"architecture": "resnet50"}"#).unwrap();
        let error = find_model(file.to_str().unwrap()).err().unwrap().to_string();
        assert!(error.contains("config.json") && error.contains("resnet50"), "{error}");
        assert!(find_model("missing.json").err().unwrap().to_string().contains("missing.json"));
        assert!(find_model("vit_base").err().unwrap().to_string().contains("did you mean"));
    }
}
