//! Which file is the mask of which scene.

use std::path::{Path, PathBuf};

use crate::SceneInput;
use crate::band_files::{files_like, is_wildcard};

/// Gives each scene its mask: the asset of its STAC item, where it has one by now; else the file of this name, from here
/// or from the folder of the scene's first file; else, of the files that a pattern finds there, the one that is called as
/// the scene. What has no mask cannot be used, and says so.
pub fn find_masks(scenes: &mut [SceneInput], mask: &Path) {
    let usable = |scene: &SceneInput| scene.problem.is_none() && scene.mask.is_none();
    let found: Vec<Option<Found>> = scenes.iter().map(|scene| usable(scene).then(|| found_for(scene, mask))).collect();
    // A mask of another name is taken where nobody else could mean it.
    let wanted: Vec<PathBuf> = found
        .iter()
        .filter_map(|found| match found {
            Some(Found::Named(file) | Found::Only(file)) => Some(file.clone()),
            _ => None,
        })
        .collect();
    for (scene, found) in scenes.iter_mut().zip(found) {
        let problem = match found {
            None => continue,
            Some(Found::Only(file)) if wanted.iter().filter(|other| **other == file).count() > 1 => {
                format!("{} is the only such file for several scenes, and is not called as this one", file.display())
            }
            Some(Found::Named(file) | Found::Only(file)) => {
                scene.mask = Some(file);
                continue;
            }
            Some(Found::Nothing(problem)) => problem,
        };
        scene.problem = Some(format!("--mask {}: {problem}", mask.display()));
        scene.files.clear();
    }
}

enum Found {
    /// The mask that was named, or is called as the scene.
    Named(PathBuf),
    /// The only one there is.
    Only(PathBuf),
    /// Why there is none.
    Nothing(String),
}

fn found_for(scene: &SceneInput, mask: &Path) -> Found {
    let text = mask.to_string_lossy();
    let is_url = text.contains("://");
    let is_pattern = text.contains(is_wildcard) && !mask.exists();
    let first = scene.files.first().map_or(Path::new(""), PathBuf::as_path);
    if let Some(url) = first.to_str().filter(|text| text.contains("://") && !is_url && !mask.is_absolute()) {
        if is_pattern {
            return Found::Nothing(
                "files on a server cannot be listed: give the mask's name without * and ?".to_owned(),
            );
        }
        if mask.exists() {
            return Found::Named(mask.to_path_buf());
        }
        let (place, query) = url.split_at(url.find('?').unwrap_or(url.len()));
        let folder = place.rfind('/').map_or(place, |end| &place[..end]);
        return Found::Named(format!("{folder}/{text}{query}").into());
    }
    if !is_pattern && (is_url || mask.is_absolute() || mask.exists()) {
        return Found::Named(mask.to_path_buf());
    }
    let folder = if mask.is_absolute() { Path::new("") } else { first.parent().unwrap_or(Path::new("")) };
    let beside = folder.join(mask);
    if !is_pattern {
        return match beside.exists() {
            true => Found::Named(beside),
            false => Found::Nothing(format!("there is neither such an asset nor {}", beside.display())),
        };
    }
    let files = match files_like(folder, &text) {
        Ok(files) => files,
        Err(error) => return Found::Nothing(error.to_string()),
    };
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    let mut called: Vec<(usize, &PathBuf)> =
        files.iter().filter_map(|(texts, file)| Some((shared_word(texts, &name)?, file))).collect();
    called.sort();
    match (&called[..], &files[..]) {
        ([.., (before, _), (longest, _)], _) if before == longest => {
            Found::Nothing(format!("several files {} are called as the scene", beside.display()))
        }
        ([.., (_, file)], _) => Found::Named((*file).clone()),
        ([], [(_, file)]) => Found::Only(file.clone()),
        ([], []) => Found::Nothing(format!("there is neither such an asset nor {}", beside.display())),
        ([], files) => {
            Found::Nothing(format!("none of {} files {} is called as the scene", files.len(), beside.display()))
        }
    }
}

/// The length of the longest text that wildcards stand for, if it is a part of the scene's name between `_`, `-`, `.` and
/// the like: `T33UUP_20240618` of `T33UUP_20240618_TCI.tif`.
fn shared_word(texts: &[String], name: &str) -> Option<usize> {
    let text = texts.iter().max_by_key(|text| text.len()).filter(|text| !text.is_empty())?;
    let ends = |before: Option<char>| !before.is_some_and(char::is_alphanumeric);
    let is_word = |(start, _): (usize, &str)| {
        ends(name[..start].chars().next_back()) && ends(name[start + text.len()..].chars().next())
    };
    name.match_indices(text.as_str()).any(is_word).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scenes' masks, or what is wrong, by the names of files in one folder.
    fn masks(files: &[&str], scenes: &[&str], mask: &str) -> Vec<Result<String, String>> {
        let folder = tempfile::tempdir().unwrap();
        for file in files.iter().chain(scenes) {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let mut scenes: Vec<SceneInput> = scenes.iter().map(|name| folder.path().join(name).into()).collect();
        find_masks(&mut scenes, Path::new(mask));
        let relative = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
        let told = scenes.into_iter().map(|scene| match scene.problem {
            Some(problem) => Err(relative(problem)),
            None => Ok(relative(scene.mask.unwrap().display().to_string())),
        });
        told.collect()
    }

    #[test]
    fn products_in_one_folder_have_their_own_masks() {
        let files = ["T33_1_SCL_20m.tif", "T33_10_SCL_20m.tif"];
        let found = masks(&files, &["T33_1_TCI.tif", "T33_10_TCI.tif"], "*_SCL_20m.tif");
        assert_eq!(found, files.map(|file| Ok(file.to_owned())));
        // Also where a mask is missing: never another one's.
        let found = masks(&files[1..], &["T33_1_TCI.tif", "T33_10_TCI.tif"], "*_SCL_20m.tif");
        assert_eq!(found[1], Ok(files[1].to_owned()));
        let problem = "--mask *_SCL_20m.tif: T33_10_SCL_20m.tif is the only such file for several scenes, and is not called \
                       as this one";
        assert_eq!(found[0], Err(problem.to_owned()));
        let found = masks(&["2_3B_udm2.tif", "2_3C_udm2.tif"], &["2_3B_AnalyticMS_SR.tif"], "*_udm2.tif");
        assert_eq!(found, [Ok("2_3B_udm2.tif".to_owned())]);
        let found = masks(&["a_b_SCL.tif", "b_SCL.tif"], &["a_b_TCI.tif"], "*_SCL.tif");
        assert_eq!(found, [Ok("a_b_SCL.tif".to_owned())]);
    }

    #[test]
    fn the_only_mask_of_a_folder_may_be_called_anything() {
        let scenes = ["one/visual.tif", "two/visual.tif", "three/visual.tif"];
        let files = ["one/x_SCL.tif", "two/y_SCL.tif"];
        let found = masks(&files, &scenes, "*_SCL.tif");
        assert_eq!(found[..2], files.map(|file| Ok(file.to_owned())));
        let missing = "--mask *_SCL.tif: there is neither such an asset nor three/*_SCL.tif";
        assert_eq!(found[2], Err(missing.to_owned()));
        let found = masks(&["R20m/T_SCL.tif"], &["R10m/T_TCI.tif"], "../R20m/*_SCL.tif");
        assert_eq!(found, [Ok("R10m/../R20m/T_SCL.tif".to_owned())]);
        let several = masks(&["x_SCL.tif", "y_SCL.tif"], &["visual.tif"], "*_SCL.tif");
        let problem = "--mask *_SCL.tif: none of 2 files *_SCL.tif is called as the scene";
        assert_eq!(several, [Err(problem.to_owned())]);
    }

    #[test]
    fn a_mask_behind_a_url_is_named_beside_its_scene() {
        let of = |mask: &str| {
            let mut scenes = [SceneInput::from(PathBuf::from("https://h/p/a.tif?path=x/y"))];
            find_masks(&mut scenes, Path::new(mask));
            let [scene] = scenes;
            scene.mask.ok_or(scene.problem.unwrap_or_default())
        };
        assert_eq!(of("scl.tif"), Ok(PathBuf::from("https://h/p/scl.tif?path=x/y")));
        assert_eq!(of("https://g/scl.tif"), Ok(PathBuf::from("https://g/scl.tif")));
        assert!(of("*_scl.tif").unwrap_err().contains("cannot be listed"));
    }
}
