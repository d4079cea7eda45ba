//! From what a user writes to a model.

use std::path::{Path, PathBuf};

use dinov3_cpu::{Model, Options, packed_spec};
use dinov3_model::config_json::{self, ConfigError};
use dinov3_model::spec::{self, ModelSpec, UnknownModel};
use dinov3_model::synthetic::{SyntheticSpec, SyntheticWeights};
use dinov3_model::weights::{WeightSource, WeightsError};
use dinov3_packed::{PackedError, PackedFile, is_packed};
use dinov3_weights::hash::{FileHash, PendingHashes};
use dinov3_weights::{Checkpoint, Report};
use serde_json::{Value, json};

use crate::head::with_head_in;
use crate::opened::Sessions;
use crate::packed::{open_file, packed_path};

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
    /// A packed file that cannot be used.
    #[error(transparent)]
    Packed(#[from] PackedError),
    /// Weights that cannot be had.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] dinov3_hub::HubError),
    /// Weights from a hub, in a build that cannot download.
    #[error("{0}: this build does not download (its feature 'hub' is off); name a file")]
    WithoutHub(String),
}

/// Where weights come from, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weights {
    /// Computed from a seed.
    Synthetic(SyntheticSpec),
    /// A file, an index or a folder; also a packed file, see [`packed`](crate::packed).
    Path(PathBuf),
    /// A repository of a hub, downloaded if the cache lacks it. To show progress or to cancel, fetch a
    /// [`Weights::Snapshot`].
    #[cfg(feature = "hub")]
    Hub(dinov3_hub::HubReference),
    /// What was fetched from a hub.
    #[cfg(feature = "hub")]
    Snapshot(dinov3_hub::Snapshot),
}

impl Weights {
    /// The published weights of a model of the table, from timm's repository, which is open to everyone. They are
    /// downloaded when the model is opened, if the Hugging Face cache lacks them.
    ///
    /// # Errors
    /// If the model is described by a file, so that no repository is known.
    #[cfg(feature = "hub")]
    pub fn default_for(spec: &ModelSpec) -> Result<Self, OpenError> {
        Ok(Self::Hub(crate::hub::default_reference(spec, None)?))
    }

    /// `synthetic:SEED`, `synthetic-outliers:SEED`, `hf-hub:org/name`, `hf-hub:org/name@revision`, or a path.
    ///
    /// # Errors
    /// If the text starts like one of the first four but is none.
    pub fn parse(text: &str) -> Result<Self, OpenError> {
        #[cfg(feature = "hub")]
        if let Some(reference) = dinov3_hub::HubReference::parse(text) {
            return Ok(Self::Hub(reference?));
        }
        #[cfg(not(feature = "hub"))]
        if text.starts_with("hf-hub:") {
            return Err(OpenError::WithoutHub(text.to_string()));
        }
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
        /// The repository that they were downloaded from, if they were.
        origin: Option<HubOrigin>,
    },
    /// A packed file.
    Packed {
        /// The file.
        path: PathBuf,
        /// Its [`PackedFile::digest`].
        digest: String,
        /// What [`PendingIdentity::wait`] said of the weights when they were packed.
        source: Value,
    },
}

/// A repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct HubOrigin {
    /// `org/name`.
    pub repository: String,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit that it meant.
    pub commit: String,
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
            Self::Synthetic(_) | Self::Packed { .. } => None,
            Self::Files { paths, .. } => Some(PendingHashes::start(paths)),
        };
        PendingIdentity { identity: self.clone(), hashes }
    }
}

impl PendingIdentity {
    /// Waits for the hashes: `{"synthetic": "synthetic:7"}` or `{"dialect": ..., "files": [{name, bytes, sha256}]}`,
    /// with `"hub": {repository, revision, commit}` if they were downloaded and `"packed": {name, digest}` if they come
    /// from a packed file.
    pub fn wait(self) -> Value {
        match (self.identity, self.hashes) {
            (WeightsIdentity::Files { report, origin, .. }, Some(hashes)) => {
                let files = hashed_files(hashes);
                let mut told = json!({"dialect": report.dialect.to_string(), "dtypes": report.dtypes, "files": files});
                if let Some(origin) = origin {
                    told["hub"] = json!(origin);
                }
                told
            }
            (WeightsIdentity::Synthetic(spec), _) => json!({"synthetic": spec.to_string()}),
            (WeightsIdentity::Packed { path, digest, source }, _) => {
                let mut told = if source.is_object() { source } else { json!({"source": source}) };
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                told["packed"] = json!({"name": name, "digest": digest});
                told
            }
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

/// A model by name, alias, or path of a `config.json` or of a packed file. A folder with a `config.json` is a path too.
///
/// # Errors
/// If there is no such model, with the closest names; if the file is no model, with the field.
pub fn find_model(text: &str) -> Result<ModelSpec, OpenError> {
    let path = Path::new(text);
    if is_packed(path) {
        return Ok(packed_spec(&PackedFile::open(path)?)?);
    }
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
/// If the model is unknown, or the weights cannot be had or do not fit it.
pub fn open(model: &str, weights: &Weights, options: &Options) -> Result<Opened, OpenError> {
    open_spec(&find_model(model)?, weights, options)
}

impl Opened {
    /// Opens a model that is described already. If its checkpoint holds a head, the model has it too
    /// ([`with_stored_head`](crate::with_stored_head)).
    ///
    /// # Errors
    /// If the weights do not fit it.
    pub fn from_spec(spec: &ModelSpec, weights: &Weights, options: &Options) -> Result<Self, OpenError> {
        open_spec(spec, weights, options)
    }
}

fn open_spec(spec: &ModelSpec, weights: &Weights, options: &Options) -> Result<Opened, OpenError> {
    if let Some(path) = packed_path(weights) {
        return open_file(spec, &PackedFile::open(path)?, options);
    }
    let found = FoundWeights::find(spec, weights)?;
    Ok(Opened {
        model: Model::load(&found.spec, &*found.source, options)?,
        weights: found.identity,
        sessions: Sessions::default(),
    })
}

/// Weights that are known to fit their model, before they are read.
pub(crate) struct FoundWeights {
    /// With the head that was found.
    pub spec: ModelSpec,
    pub source: Box<dyn WeightSource>,
    pub identity: WeightsIdentity,
}

impl FoundWeights {
    /// Opens files, after downloading them if need be.
    pub fn find(spec: &ModelSpec, weights: &Weights) -> Result<Self, OpenError> {
        Ok(match weights {
            Weights::Synthetic(seed) => Self {
                spec: spec.clone(),
                source: Box::new(SyntheticWeights::new(spec, *seed)),
                identity: WeightsIdentity::Synthetic(*seed),
            },
            Weights::Path(path) => Self::in_files(spec, path, None)?,
            #[cfg(feature = "hub")]
            Weights::Hub(reference) => {
                let fetched =
                    dinov3_hub::Hub::from_environment()?.fetch(reference, &mut |_| std::ops::ControlFlow::Continue(()));
                let snapshot = fetched.map_err(|error| match crate::hub::open_copy(reference) {
                    Some(open) => error.with_open_copy(&open),
                    None => error,
                })?;
                Self::in_snapshot(spec, &snapshot)?
            }
            #[cfg(feature = "hub")]
            Weights::Snapshot(snapshot) => Self::in_snapshot(spec, snapshot)?,
        })
    }

    #[cfg(feature = "hub")]
    fn in_snapshot(spec: &ModelSpec, snapshot: &dinov3_hub::Snapshot) -> Result<Self, OpenError> {
        let origin = HubOrigin {
            repository: snapshot.reference.repository().to_string(),
            revision: snapshot.reference.revision().to_string(),
            commit: snapshot.commit.clone(),
        };
        Self::in_files(spec, &snapshot.weights, Some(origin))
    }

    fn in_files(spec: &ModelSpec, path: &Path, origin: Option<HubOrigin>) -> Result<Self, OpenError> {
        let files = dinov3_weights::open_files(path)?;
        // A fine-tuned checkpoint has a head, whether it is asked for or not.
        let spec = with_head_in(spec.clone(), &files)?;
        let checkpoint = Checkpoint::from_files(files, &spec)?;
        let (paths, report) = (checkpoint.paths().to_vec(), checkpoint.report.clone());
        let identity = WeightsIdentity::Files { paths, report, origin };
        Ok(Self { spec, source: Box::new(checkpoint), identity })
    }
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
