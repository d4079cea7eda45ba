//! Weights by name, from the Hugging Face Hub.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec = dinov3::find_model("vit_large_patch16_dinov3.sat493m")?;
//! let reference = dinov3::hub::default_reference(&spec, None)?;
//! let snapshot = dinov3::hub::Hub::from_environment()?.fetch(&reference, &mut |event| {
//!     println!("{event:?}");
//!     ControlFlow::Continue(()) // Break ends the download; the next one continues it.
//! })?;
//! let opened = dinov3::open(&spec.name, &dinov3::Weights::Snapshot(snapshot), &dinov3::Options::new())?;
//! # Ok(())
//! # }
//! ```

use dinov3_model::spec::{self, ModelSpec};

pub use dinov3_hub::{CachedBecause, Event, FetchedFile, Hub, HubError, HubReference, Settings, Snapshot};

/// Where a model's weights are downloaded from: timm's repository, which is open to everyone, while Meta's own are
/// gated.
///
/// # Errors
/// If the model is described by a file, so that no repository is known, or the revision is none.
pub fn default_reference(spec: &ModelSpec, revision: Option<&str>) -> Result<HubReference, HubError> {
    // A config may have a name of its own and tell of a table row's repository, whose weights need not fit.
    let row = spec::all().into_iter().find(|row| row.name == spec.name);
    match row.as_ref().and_then(|row| row.hub_ids.first()) {
        Some(repository) => HubReference::new(repository, revision),
        None => Err(HubError::BadReference {
            text: spec.name.clone(),
            reason: "no repository is known for this model".to_string(),
        }),
    }
}

/// The repository with the same weights that is open to everyone, if this one is not it.
pub fn open_copy(reference: &HubReference) -> Option<String> {
    let all = spec::all();
    let row = all.iter().find(|row| row.hub_ids.iter().any(|id| id == reference.repository()))?;
    row.hub_ids.first().filter(|open| *open != reference.repository()).cloned()
}
