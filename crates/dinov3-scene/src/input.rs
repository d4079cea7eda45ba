//! What one scene is made of, before it is opened.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use dinov3_raster::{Location, Opener, Raster, RasterError, named_together, redacted};
use dinov3_sink::Stamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::scene::parse;
use crate::{SceneError, scene_name};

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
    /// What the STAC item says of it; its collection's id is `collection`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub properties: serde_json::Map<String, serde_json::Value>,
    /// The host of the server whose document named the files, if one did: files elsewhere must be at public addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_by_host: Option<String>,
    /// Why it is no scene: it is reported in the place of its chips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl SceneInput {
    /// Files of one scene.
    pub fn of_files(files: Vec<PathBuf>) -> Self {
        let names: Vec<String> = files.iter().map(|file| scene_name(file)).collect();
        Self { name: named_together(&names), files, ..Self::default() }
    }

    /// Opens its files as one raster.
    ///
    /// # Errors
    /// If one cannot be opened, or if they do not fit together.
    pub fn open(&self, opener: &Opener) -> Result<Box<dyn Raster>, SceneError> {
        Ok(open_stamped(opener, self)?.raster)
    }

    /// The same without what may be secret, for outputs and markers: it opens the same files as long as their URLs need no
    /// signature. Twice is the same as once, and the same for a URL that was signed anew.
    pub fn redacted(&self) -> Self {
        // What is no URL stays as it is, whatever its bytes.
        let shown = |file: &PathBuf| match file.to_str() {
            Some(text) => PathBuf::from(redacted(text)),
            None => file.clone(),
        };
        Self {
            files: self.files.iter().map(shown).collect(),
            mask: self.mask.as_ref().map(shown),
            stac_item: self.stac_item.as_deref().map(redacted),
            properties: self.properties.iter().map(|(name, value)| (name.clone(), redacted_values(value))).collect(),
            ..self.clone()
        }
    }

    /// What cannot be used, with the reason.
    pub(crate) fn unusable(name: String, problem: String) -> Self {
        Self { name, problem: Some(problem), ..Self::default() }
    }

    /// What opens one of its files, or its mask.
    pub(crate) fn opener_of<'a>(&self, opener: &'a Opener, location: &Location) -> Cow<'a, Opener> {
        match (&self.named_by_host, location) {
            (Some(host), Location::Web(url)) if url.host() != host => Cow::Owned(opener.for_strangers()),
            _ => Cow::Borrowed(opener),
        }
    }

    /// Whether one of its files is not on this machine.
    pub fn is_remote(&self) -> bool {
        let is_url = |file: &Path| file.to_str().is_some_and(|text| text.contains("://"));
        self.files.iter().chain(&self.mask).any(|file| is_url(file))
    }
}

impl From<PathBuf> for SceneInput {
    fn from(file: PathBuf) -> Self {
        Self::of_files(vec![file])
    }
}

fn redacted_values(value: &Value) -> Value {
    match value {
        Value::String(text) => redacted(text).into(),
        Value::Array(values) => values.iter().map(redacted_values).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), redacted_values(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// What tells the version of one file of a scene.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileVersion {
    /// Nothing where that cannot be told.
    pub stamp: Option<Stamp>,
    /// Whether it is of this machine: its time and inode are others where it was copied to.
    pub is_local: bool,
}

impl FileVersion {
    /// Of what was found at this place.
    pub fn new(file: &Path, stamp: Option<Stamp>) -> Self {
        Self { stamp, is_local: matches!(parse(file), Ok(Location::File(_))) }
    }
}

/// Gives names to scenes that have the same one and are other files: URLs that differ in their query, which may be a
/// secret. It is told by eight digits of its hash, whatever the order of the scenes: `https://h/a.tif?[3f2a91c0]`.
pub fn tell_apart(scenes: &mut [SceneInput]) {
    let mut files_of: HashMap<String, HashSet<Vec<PathBuf>>> = HashMap::new();
    for scene in scenes.iter() {
        files_of.entry(scene.name.clone()).or_default().insert(scene.files.clone());
    }
    for scene in scenes {
        if files_of[&scene.name].len() > 1 && scene.name.contains("://") {
            let urls: Vec<_> = scene.files.iter().map(|file| file.to_string_lossy()).collect();
            let queries: Vec<&str> =
                urls.iter().map(|url| url.split_once('?').map_or("", |(_, query)| query)).collect();
            let hash = Sha256::digest(queries.join("\n"));
            let digits: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            scene.name = format!("{}?[{digits}]", scene.name);
        }
    }
}

/// The files of a scene, opened.
pub(crate) struct OpenedFiles {
    /// As one raster.
    pub raster: Box<dyn Raster>,
    /// What tells whether one of them has changed, or what is said of them; nothing where that cannot be told.
    pub stamp: Option<Stamp>,
    /// The version of each of them.
    pub versions: Vec<FileVersion>,
}

/// Opens the files of a scene, at the same time where they are elsewhere.
pub(crate) fn open_stamped(opener: &Opener, input: &SceneInput) -> Result<OpenedFiles, SceneError> {
    if let Some(problem) = &input.problem {
        return Err(SceneError::Input { scene: input.name.clone(), problem: problem.clone() });
    }
    let open = |file: &PathBuf| -> Result<(Box<dyn Raster>, Option<Stamp>), RasterError> {
        let location = parse(file)?;
        // Before it is read: what changes later is found by the next run.
        let stamp = match &location {
            Location::File(path) => Stamp::of_file(path),
            _ => None,
        };
        let raster = input.opener_of(opener, &location).open_location(&location)?;
        let stamp = stamp.or_else(|| raster.version().map(|(bytes, version)| Stamp::of_version(bytes, version)));
        Ok((raster, stamp))
    };
    let opened: Vec<_> = match &input.files[..] {
        [file] => vec![open(file)],
        files => std::thread::scope(|scope| {
            let threads: Vec<_> = files.iter().map(|file| scope.spawn(|| open(file))).collect();
            let panicked = |_| Err(RasterError::Settings { reason: "a thread that opens a file panicked".to_owned() });
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        }),
    };
    let (rasters, stamps): (Vec<_>, Vec<_>) = opened.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let versions = input.files.iter().zip(&stamps).map(|(file, stamp)| FileVersion::new(file, *stamp)).collect();
    // What rows say of an item belongs to what they were made of.
    let item = input.stac_item.as_ref().map(|item| format!("{item} {:?}", input.datetime_us));
    let stamp = match (&stamps[..], item) {
        ([stamp], None) => *stamp,
        (stamps, item) => {
            let stamps: Option<Vec<Stamp>> = stamps.iter().copied().collect();
            stamps.map(|stamps| Stamp::of_several(&stamps, item.as_deref().unwrap_or_default()))
        }
    };
    Ok(OpenedFiles { raster: opener.stack(rasters)?, stamp, versions })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_url_that_was_signed_anew_is_the_same_input() {
        let signed = |secret: &str| SceneInput {
            mask: Some(format!("https://user:{secret}@h/mask.tif").into()),
            stac_item: Some(format!("https://h/item.json?token={secret}")),
            properties: Map::from_iter([("links".to_owned(), json!([{"href": format!("https://h/x?s={secret}")}, 1]))]),
            ..SceneInput::of_files(vec![format!("https://h/a.tif?sig={secret}").into(), "b c.tif".into()])
        };
        let input = signed("secret-1").redacted();
        assert!(!json!(input).to_string().contains("secret"), "{}", json!(input));
        assert_eq!(input, signed("secret-2").redacted());
        assert_eq!(input, input.redacted());
        assert_eq!(input.files[1], PathBuf::from("b c.tif"));
    }
}
