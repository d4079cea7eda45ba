//! What one scene is made of, before it is opened.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::scene_name;

/// One scene, as a user or a STAC item names it; a plan can hold it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SceneInput {
    /// What rows and messages call it, without secrets.
    pub name: String,
    /// The file with its bands, or several files of the same grid, whose bands are counted through: paths or URLs.
    pub files: Vec<PathBuf>,
    /// A raster whose values say which pixels are valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<PathBuf>,
    /// Acquisition, in microseconds since 1970-01-01T00:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datetime_us: Option<i64>,
    /// The STAC item that it is from: its address where it has one, else its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stac_item: Option<String>,
    /// What the STAC item says of it.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub properties: serde_json::Map<String, serde_json::Value>,
}

impl SceneInput {
    /// Whether one of its files is not on this machine.
    pub fn is_remote(&self) -> bool {
        let is_url = |file: &Path| file.to_str().is_some_and(|text| text.contains("://"));
        self.files.iter().chain(&self.mask).any(|file| is_url(file))
    }
}

impl From<PathBuf> for SceneInput {
    fn from(file: PathBuf) -> Self {
        Self { name: scene_name(&file), files: vec![file], ..Self::default() }
    }
}
