//! What says that a unit is there, and of what it was made.

use std::collections::BTreeMap;

use anyhow::Result;
use dinov3::checkpoint::hash::sha256;
use dinov3::sink::WorkUnit;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::scene::options::DecidingOptions;
use crate::scene::plan::redacted_input;
use crate::scene::store::{FileFacts, Store, marker_of};

/// Raised when a marker says something that earlier versions would not understand.
pub const SCHEMA: u32 = 3;
/// Failures that a marker names; it says how many there are.
pub const MOST_FAILURES: usize = 100;

/// What is there of a unit: one small object, written last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marker {
    pub schema: u32,
    pub unit: String,
    /// The hash of the options.
    pub plan: String,
    pub options: DecidingOptions,
    /// The hash of the unit's scene and rows.
    pub work: String,
    /// The scene's version, as it was planned, or as it was found.
    pub stamp: Option<String>,
    #[serde(alias = "chips")]
    pub counts: Counts,
    pub failures: Vec<FailedItem>,
    pub files: BTreeMap<String, FileFacts>,
    #[serde(flatten)]
    pub made_by: MadeBy,
    pub instruction_set: Value,
}

/// What decides about a unit's vectors and is known when the weights are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    pub weights: Value,
    pub precision: Value,
}

impl MadeBy {
    pub fn of(provenance: &Value) -> Self {
        Self { weights: provenance["weights"].clone(), precision: provenance["precision"].clone() }
    }

    /// What differs, for a person. Files of weights are the same by any name, and packed or not.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let content = |weights: &Value| -> Value {
            let files = weights["files"].as_array().filter(|files| !files.is_empty());
            files.map_or_else(|| weights.clone(), |files| files.iter().map(|file| file["sha256"].clone()).collect())
        };
        if content(&self.weights) != content(&other.weights) {
            let told = |weights: &Value| {
                let first = &weights["files"][0];
                let hash = first["sha256"].as_str().and_then(|hash| hash.get(..12)).unwrap_or_default();
                match (first["name"].as_str(), weights["synthetic"].as_str()) {
                    (Some(name), _) => format!("{name} of SHA-256 {hash}..."),
                    (None, Some(synthetic)) => synthetic.to_owned(),
                    (None, None) => "others".to_owned(),
                }
            };
            return Some(format!("other weights, {} and not {}", told(&other.weights), told(&self.weights)));
        }
        (self.precision != other.precision).then(|| format!("precision {} and not {}", other.precision, self.precision))
    }
}

/// What became of a unit's chips, or windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub done: usize,
    /// Without enough data.
    pub skipped: usize,
    pub failed: usize,
}

/// A chip without a row, or a window whose patches others have to cover.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedItem {
    #[serde(alias = "chip")]
    pub item: String,
    pub error: String,
}

impl Marker {
    /// The marker of a unit, if there is one that can be read.
    pub fn read(store: &Store, unit: &str) -> Result<Option<Self>> {
        Ok(store.get(&marker_of(unit))?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Whether it says what was planned; a sentence if it is of another plan.
    pub fn check_plan(&self, plan: &DecidingOptions) -> Result<(), String> {
        if self.schema > SCHEMA {
            return Err(format!("is of dinov3 {}, a later version", self.options.version));
        }
        match plan.difference(&self.options) {
            None if self.plan == plan.hash() => Ok(()),
            None => Err("is of another plan".to_owned()),
            Some(difference) => Err(format!("is of another plan: it was made with {difference}")),
        }
    }

    /// Whether it is of this scene, in this version.
    pub fn is_of(&self, unit: &WorkUnit) -> bool {
        let is_same_version = match (&self.stamp, &unit.stamp) {
            (Some(own), Some(planned)) => own == planned,
            _ => true,
        };
        self.work == work_hash(unit) && is_same_version
    }
}

/// Without secrets: a URL that was signed anew is the same work.
pub fn work_hash(unit: &WorkUnit) -> String {
    sha256(json!([redacted_input(unit), unit.rows_px]).to_string().as_bytes())
}
