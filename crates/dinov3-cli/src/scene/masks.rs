//! `--mask`: where the mask of each scene is.

use std::path::{Path, PathBuf};

use anyhow::Result;
use dinov3::inputs::{Kind, expand, is_url};
use dinov3_scene::SceneInput;

use crate::failure::usage;

/// The scene with its mask: the asset of its STAC item if it has one by now, else the file of this name, else what the
/// name or pattern means in the folder of the scene's first file.
pub fn with_mask(mut input: SceneInput, mask: Option<&Path>) -> Result<SceneInput> {
    let Some(mask) = mask.filter(|_| input.mask.is_none()) else { return Ok(input) };
    if is_url(mask) || mask.is_absolute() || mask.exists() {
        input.mask = Some(mask.to_path_buf());
        return Ok(input);
    }
    let first = input.files.first().map_or(Path::new(""), PathBuf::as_path);
    let missing = |what: &str| usage(format!("--mask {}: {what} for {}", mask.display(), input.name));
    let beside = match first.to_str().and_then(|text| text.rsplit_once('/')).filter(|_| is_url(first)) {
        Some((folder, _)) => {
            input.mask = Some(format!("{folder}/{}", mask.display()).into());
            return Ok(input);
        }
        None => first.parent().unwrap_or(Path::new("")).join(mask),
    };
    let is_pattern = mask.to_string_lossy().contains(['*', '?', '[']);
    let found = match is_pattern {
        true => expand(std::slice::from_ref(&beside), Kind::Scenes, &mut std::io::empty()).unwrap_or_default(),
        false => vec![beside.clone()].into_iter().filter(|path| path.exists()).collect(),
    };
    match found.as_slice() {
        [one] => input.mask = Some(one.clone()),
        [] => return Err(missing(&format!("there is neither such an asset nor {}", beside.display()))),
        _ => return Err(missing(&format!("{} files are meant by {}", found.len(), beside.display()))),
    }
    Ok(input)
}
