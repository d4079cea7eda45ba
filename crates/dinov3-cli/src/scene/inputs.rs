//! Which scenes a command line names: files, STAC items, or files of bands.

use std::collections::HashSet;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::Result;
use dinov3::inputs::{Below, InputError, Kind, expand};
use dinov3_scene::raster::{Opener, redacted};
use dinov3_scene::{
    AssetChoice, BandFiles, SceneInput, find_masks, is_catalogue, read_items, tell_apart, without_name,
};

use crate::arguments::SceneArguments;
use crate::failure::usage;
use crate::scene::store::without_file_scheme;

/// What a command line names.
#[derive(Debug, Default)]
pub struct Named {
    /// The scenes, in their order, with names that tell them apart.
    pub scenes: Vec<SceneInput>,
    /// The documents that name some of them.
    pub documents: Vec<PathBuf>,
}

impl Named {
    /// All files that are read.
    pub fn files(&self) -> Vec<PathBuf> {
        let of_scene = |scene: &SceneInput| scene.files.iter().chain(&scene.mask).cloned().collect::<Vec<_>>();
        self.scenes.iter().flat_map(of_scene).chain(self.documents.iter().cloned()).collect()
    }
}

/// The scenes that these inputs mean. What cannot be used is a scene that says why, so that the others are not lost.
pub fn named_scenes(opener: &Opener, inputs: &[PathBuf], arguments: &SceneArguments) -> Result<Named> {
    let knows_values = arguments.preset.is_some_and(|preset| preset.mask_values().is_some());
    if arguments.mask.is_some() && arguments.mask_values.is_none() && !knows_values {
        return Err(usage("--mask needs --mask-values: which of its values are invalid, as 3,8-10 or bits:1,3"));
    }
    let mut named = match arguments.band_files.is_empty() {
        true => of_inputs(opener, inputs, arguments)?,
        false => Named { scenes: of_band_files(inputs, &arguments.band_files)?, documents: Vec::new() },
    };
    if let Some(mask) = &arguments.mask {
        find_masks(&mut named.scenes, mask);
    }
    tell_apart(&mut named.scenes);
    Ok(named)
}

/// Files of bands, in these folders or by themselves.
fn of_band_files(inputs: &[PathBuf], patterns: &[String]) -> Result<Vec<SceneInput>> {
    let wrong = |error| usage(format!("--band-files: {error}"));
    let bands = BandFiles::new(patterns.to_vec()).map_err(wrong)?;
    if inputs.is_empty() {
        return Ok(bands.scenes()?);
    }
    let mut scenes = Vec::new();
    for input in inputs {
        if input == Path::new("-") {
            for line in std::io::stdin().lock().lines() {
                let line = line?;
                if !line.is_empty() {
                    scenes.extend(bands.scenes_in(Path::new(&line))?);
                }
            }
        } else {
            scenes.extend(bands.scenes_in(input)?);
        }
    }
    Ok(scenes)
}

fn of_inputs(opener: &Opener, inputs: &[PathBuf], arguments: &SceneArguments) -> Result<Named> {
    let assets = &arguments.assets;
    let mask = arguments.mask.as_ref().and_then(|mask| mask.to_str()).map(str::to_owned);
    let choice = AssetChoice { assets: assets.clone(), preset: arguments.preset, mask };
    let mut named = Named::default();
    let mut listed = Vec::new();
    for input in as_paths(inputs.to_vec()) {
        match objects_of(opener, &input)? {
            Some(objects) => listed.extend(objects),
            None => listed.push(input),
        }
    }
    let expanded = as_paths(expand(&listed, Kind::Scenes, &mut std::io::stdin().lock())?);
    let is_only = expanded.len() == 1;
    for input in expanded {
        if !is_document(&input, assets) {
            if !assets.is_empty() {
                return Err(usage(format!(
                    "{} is no document of STAC items, whose assets --assets chooses from; for files there is --band-files",
                    dinov3_scene::scene_name(&input)
                )));
            }
            named.scenes.push(input.into());
            continue;
        }
        match read_items(opener, &input, &choice) {
            Ok(listed) => {
                let shown = dinov3_scene::scene_name(&input);
                if listed.has_next_page {
                    eprintln!(
                        "note: {shown} has further pages, which are not read: save the whole search, or name them"
                    );
                }
                if listed.scenes.is_empty() {
                    eprintln!("note: {shown} has no items");
                }
                named.scenes.extend(listed.scenes);
            }
            Err(error) if is_only => return Err(error.into()),
            Err(error) => {
                let mut scene = SceneInput::from(input.clone());
                scene.problem = Some(without_name(&error.to_string(), &scene.name));
                scene.files.clear();
                named.scenes.push(scene);
            }
        }
        named.documents.push(input);
    }
    Ok(named)
}

/// The objects of a store that a prefix with a slash at its end means, or a pattern, as in folders of this machine: sorted by
/// name, hidden ones left out. Nothing for any other input, and for an object of that very name.
fn objects_of(opener: &Opener, input: &Path) -> Result<Option<Vec<PathBuf>>> {
    let Some(text) = input.to_str().filter(|text| is_in_store(text)) else { return Ok(None) };
    // A `?` behind a file's name, and not in the names of folders by which archives are ordered (`year=202?`).
    let has_query = text.split_once('?').is_some_and(|(path, query)| {
        query.contains('=') && path.rsplit('/').next().is_some_and(|name| name.contains('.'))
    });
    let pattern_at = text.find(['*', '?', '[']).filter(|_| !has_query);
    if pattern_at.is_none() && !text.ends_with('/') {
        return Ok(None);
    }
    // What does not change by the pattern, up to a slash.
    let known = text[..pattern_at.unwrap_or(text.len())].rfind('/').map_or(text, |slash| &text[..=slash]);
    let folder = opener.store_folder(known)?;
    let pattern = pattern_at.map(|_| &text[known.len()..]);
    if pattern.is_some_and(|name| folder.size_bytes(name).is_ok_and(|size| size.is_some())) {
        return Ok(None);
    }
    let below = Below::new(pattern, Kind::Scenes)?;
    let mut names = folder.names(|folder| below.may_hold(folder))?;
    names.retain(|name| below.is_meant(name));
    names.sort();
    if names.is_empty() {
        return Err(InputError::Nothing { inputs: redacted(text), kind: Kind::Scenes }.into());
    }
    Ok(Some(names.into_iter().map(|name| PathBuf::from(format!("{known}{name}"))).collect()))
}

/// Whether it is of an object store: a URL that no web server answers.
fn is_in_store(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| !["http", "https", "file"].contains(&scheme.as_str()))
}

/// Named like one; or a URL without the ending of a picture, of which assets are wanted, as servers name items.
fn is_document(input: &Path, assets: &[String]) -> bool {
    let text = input.to_string_lossy();
    let name = text.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let is_picture = name.ends_with(".tif") || name.ends_with(".tiff");
    is_catalogue(input) || (!assets.is_empty() && text.contains("://") && !is_picture)
}

/// `file://` URLs as the paths that they are.
pub fn as_paths(scenes: Vec<PathBuf>) -> Vec<PathBuf> {
    scenes.into_iter().map(without_file_scheme).collect()
}

/// Where the files of a scene are, however they are spelled; nothing if one is not there. What a URL that has something
/// secret leads to is not known to whoever sees it without that.
pub fn place_of_scene(scene: &SceneInput) -> Option<Vec<PathBuf>> {
    let place = |file: &PathBuf| match file.to_str().filter(|text| text.contains("://")) {
        Some(url) => (redacted(url) == url).then(|| file.clone()),
        None => file.canonicalize().ok(),
    };
    scene.files.iter().map(place).collect::<Option<Vec<_>>>().filter(|place| !place.is_empty())
}

/// The chips of a scene are named by it: twice the same name would be twice the same rows.
pub fn refuse_twice(scenes: &[SceneInput]) -> Result<()> {
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    for scene in scenes {
        // The same files under two spellings.
        let is_new = place_of_scene(scene).is_none_or(|place| places.insert(place));
        if !names.insert(&scene.name) || !is_new {
            return Err(usage(format!("{} is named twice, and would give the same rows twice", scene.name)));
        }
    }
    Ok(())
}
