//! Scenes whose bands are files of their own, found by patterns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::{SceneError, SceneInput};

/// Patterns of the files of one scene, in the order of its bands: `*_B04.tif`, `*_B03.tif`, `*_B02.tif`. Files belong
/// together that lie in the same folder and in whose names the wildcards (`*`, `?`) stand for the same text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BandFiles {
    patterns: Vec<String>,
}

/// What the wildcards stood for, and for each pattern its file.
type Group = BTreeMap<Vec<String>, Vec<Option<PathBuf>>>;

impl BandFiles {
    /// Patterns or plain names, which may begin with folders.
    ///
    /// # Errors
    /// If one is empty, or if they differ in their number of wildcards.
    pub fn new(patterns: Vec<String>) -> Result<Self, SceneError> {
        let problem = |problem: String| Err(SceneError::BandFiles { problem });
        if patterns.is_empty() || patterns.iter().any(String::is_empty) {
            return problem("name a file for each band, as R.tif,G.tif,B.tif".to_owned());
        }
        let wildcards = |pattern: &String| pattern.chars().filter(|&character| is_wildcard(character)).count();
        if let Some(other) = patterns.iter().find(|pattern| wildcards(pattern) != wildcards(&patterns[0])) {
            return problem(format!(
                "'{}' and '{other}' differ in their number of * and ?: what these stand for tells which files belong \
                 together",
                patterns[0]
            ));
        }
        Ok(Self { patterns })
    }

    fn has_wildcards(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.contains(is_wildcard))
    }

    /// The scenes that the patterns name by themselves: paths or URLs.
    ///
    /// # Errors
    /// If nothing is found, or if a pattern is of files on a server, which cannot be listed.
    pub fn scenes(&self) -> Result<Vec<SceneInput>, SceneError> {
        if !self.has_wildcards() {
            return Ok(vec![SceneInput::of_files(self.patterns.iter().map(PathBuf::from).collect())]);
        }
        self.refuse_remote(&self.patterns)?;
        let scenes = self.scenes_of(Path::new(""))?;
        self.some(scenes, "")
    }

    /// The scenes in a folder and those below it, hidden ones left out, in the order of their names; or the one whose files
    /// have these names behind a URL.
    ///
    /// # Errors
    /// If nothing is found, or if the folder cannot be read.
    pub fn scenes_in(&self, source: &Path) -> Result<Vec<SceneInput>, SceneError> {
        let shown = source.display().to_string();
        if let Some(url) = source.to_str().filter(|text| text.contains("://")) {
            if self.has_wildcards() {
                self.refuse_remote(&[url.to_owned()])?;
            }
            let (place, query) = url.split_at(url.find('?').unwrap_or(url.len()));
            let file = |name: &String| PathBuf::from(format!("{}/{name}{query}", place.trim_end_matches('/')));
            return Ok(vec![SceneInput::of_files(self.patterns.iter().map(file).collect())]);
        }
        if !source.is_dir() {
            let problem = format!("{shown} is no folder, in which files of these names could be");
            return Err(SceneError::BandFiles { problem });
        }
        let mut scenes = Vec::new();
        let mut folders = vec![source.to_path_buf()];
        while let Some(folder) = folders.pop() {
            scenes.extend(self.scenes_of(&folder)?);
            // A link to a folder may lead in a circle.
            let below =
                names_in(&folder)?.into_iter().filter(|name| !name.starts_with('.')).map(|name| folder.join(name));
            let mut below: Vec<_> =
                below.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_dir())).collect();
            below.reverse();
            folders.extend(below);
        }
        // A folder may be reached twice: `A/x.tif` from its parent, `x.tif` never, but patterns may begin with `*/`.
        let mut seen = BTreeSet::new();
        scenes.retain(|scene| seen.insert((scene.name.clone(), scene.files.clone())));
        self.some(scenes, &format!(" in {shown}"))
    }

    fn some(&self, scenes: Vec<SceneInput>, place: &str) -> Result<Vec<SceneInput>, SceneError> {
        match scenes.is_empty() {
            true => Err(SceneError::BandFiles { problem: format!("no files {}{place}", self.patterns.join(", ")) }),
            false => Ok(scenes),
        }
    }

    fn refuse_remote(&self, texts: &[String]) -> Result<(), SceneError> {
        match texts.iter().any(|text| text.contains("://")) {
            true => Err(SceneError::BandFiles {
                problem: "files on a server cannot be listed: give their names without * and ?".to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// The scenes of one folder.
    fn scenes_of(&self, folder: &Path) -> Result<Vec<SceneInput>, SceneError> {
        let mut groups = Group::new();
        for (band, pattern) in self.patterns.iter().enumerate() {
            for (texts, file) in files_like(folder, pattern)? {
                groups.entry(texts).or_insert_with(|| vec![None; self.patterns.len()])[band] = Some(file);
            }
        }
        Ok(groups.into_values().map(|files| self.scene(files)).collect())
    }

    /// A scene; or, where a file is missing, what is missing.
    fn scene(&self, files: Vec<Option<PathBuf>>) -> SceneInput {
        let missing = files.iter().position(Option::is_none).map(|band| self.patterns[band].clone());
        let mut scene = SceneInput::of_files(files.into_iter().flatten().collect());
        if let Some(missing) = missing {
            scene.problem = Some(format!("there is no '{missing}' beside {}", scene.name));
            scene.files.clear();
        }
        scene
    }
}

/// The files that a pattern means in a folder, in the order of their names, each with what the wildcards stand for.
pub(crate) fn files_like(folder: &Path, pattern: &str) -> Result<Vec<(Vec<String>, PathBuf)>, SceneError> {
    let (start, pattern) = match pattern.strip_prefix('/') {
        Some(rest) => (Path::new("/"), rest),
        None => (folder, pattern),
    };
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut found = Vec::new();
    collect(start, &parts, &mut Vec::new(), &mut found)?;
    Ok(found)
}

pub(crate) fn is_wildcard(character: char) -> bool {
    matches!(character, '*' | '?')
}

/// The files that match the rest of a pattern, with what its wildcards stand for.
fn collect(
    folder: &Path,
    parts: &[&str],
    texts: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, PathBuf)>,
) -> Result<(), SceneError> {
    let [part, rest @ ..] = parts else { return Ok(()) };
    let mut go = |path: PathBuf, texts: &mut Vec<String>| match rest {
        // A link that leads nowhere is a file that cannot be opened, and is told so.
        [] if !path.is_dir() && path.symlink_metadata().is_ok() => {
            found.push((texts.clone(), path));
            Ok(())
        }
        [] => Ok(()),
        rest if path.is_dir() => collect(&path, rest, texts, found),
        _ => Ok(()),
    };
    if !part.contains(is_wildcard) {
        return go(folder.join(part), texts);
    }
    for name in names_in(folder)? {
        // As in a shell: hidden files want to be named.
        if name.starts_with('.') && !part.starts_with('.') {
            continue;
        }
        let pattern: Vec<char> = part.chars().collect();
        let characters: Vec<char> = name.chars().collect();
        let known = texts.len();
        if matches(&pattern, &characters, texts) {
            go(folder.join(&name), texts)?;
        }
        texts.truncate(known);
    }
    Ok(())
}

/// Whether a name matches; if so, what each wildcard stands for, the first ones for as little as possible.
fn matches(pattern: &[char], name: &[char], texts: &mut Vec<String>) -> bool {
    // For each wildcard that was met: where it stands, how many texts there were, and what it stood for last.
    let (mut at, mut place, mut star): (usize, usize, Option<(usize, usize, usize)>) = (0, 0, None);
    let known = texts.len();
    loop {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, place, texts.len()));
                texts.push(String::new());
                at += 1;
                continue;
            }
            Some('?') if place < name.len() => {
                texts.push(name[place].to_string());
                (at, place) = (at + 1, place + 1);
                continue;
            }
            Some(expected) if name.get(place) == Some(expected) => {
                (at, place) = (at + 1, place + 1);
                continue;
            }
            None if place == name.len() => return true,
            _ => {}
        }
        // The last star takes one character more.
        match star {
            Some((star_at, from, count)) if texts_end(texts, count, from) < name.len() => {
                let end = texts_end(texts, count, from) + 1;
                texts.truncate(count);
                texts.push(name[from..end].iter().collect());
                (at, place) = (star_at + 1, end);
            }
            _ => {
                texts.truncate(known);
                return false;
            }
        }
    }
}

/// Where the text of a star that begins at `from` ends.
fn texts_end(texts: &[String], star: usize, from: usize) -> usize {
    from + texts[star].chars().count()
}

/// The names in a folder, sorted; those that are no text are left out, and cannot be named by a pattern.
fn names_in(folder: &Path) -> Result<Vec<String>, SceneError> {
    let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let failed = |error: std::io::Error| SceneError::BandFiles { problem: format!("{}: {error}", shown.display()) };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(shown).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, name: &str) -> Option<Vec<String>> {
        let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
        let mut texts = Vec::new();
        matches(&pattern, &name, &mut texts).then_some(texts)
    }

    fn texts(texts: &[&str]) -> Option<Vec<String>> {
        Some(texts.iter().map(|text| text.to_string()).collect())
    }

    #[test]
    fn wildcards_stand_for_what_they_match() {
        assert_eq!(found("*_B04.tif", "T33_1_B04.tif"), texts(&["T33_1"]));
        assert_eq!(found("*_B04.tif", "T33_B04_B04.tif"), texts(&["T33_B04"]));
        assert_eq!(found("*_B04.tif", "T33_B03.tif"), None);
        assert_eq!(found("L*_SR_B?.TIF", "LC08_x_SR_B4.TIF"), texts(&["C08_x", "4"]));
        assert_eq!(found("*a*", "bab"), texts(&["b", "b"]));
        assert_eq!(found("*", ""), texts(&[""]));
        assert_eq!(found("?", ""), None);
        assert_eq!(found("a", "ab"), None);
        assert_eq!(found("*?*b", "aab"), texts(&["", "a", "a"]));
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn scenes(patterns: &str, files: &[&str]) -> Vec<(Vec<String>, Option<String>)> {
        let folder = folder(files);
        let bands = BandFiles::new(patterns.split(',').map(str::to_owned).collect()).unwrap();
        let start = format!("{}/", folder.path().display());
        let relative = |text: String| text.replace(&start, "");
        let scenes = bands.scenes_in(folder.path()).unwrap();
        let files = |scene: &SceneInput| scene.files.iter().map(|file| relative(file.display().to_string())).collect();
        scenes.iter().map(|scene| (files(scene), scene.problem.clone().map(relative))).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn files_of_one_scene_have_the_same_text_for_the_wildcards() {
        let flat = ["a_B04.tif", "b_B04.tif", "a_B03.tif", "b_B03.tif", "a_B02.tif", ".c_B04.tif"];
        let found = scenes("*_B04.tif,*_B03.tif", &flat);
        assert_eq!(found[0], (names(&["a_B04.tif", "a_B03.tif"]), None));
        assert_eq!(found[1].0, names(&["b_B04.tif", "b_B03.tif"]));
        assert_eq!(found.len(), 2);
        // One of them is not complete.
        let found = scenes("*_B04.tif,*_B02.tif", &flat);
        assert_eq!(found[1], (vec![], Some("there is no '*_B02.tif' beside b_B04.tif".to_owned())));
    }

    #[test]
    fn each_folder_has_its_scenes() {
        let nested = ["p1/r.tif", "p1/g.tif", "p2/more/r.tif", "p2/more/g.tif", ".hidden/r.tif", "p3/notes.txt"];
        let found = scenes("r.tif,g.tif", &nested);
        assert_eq!(found[0].0, names(&["p1/r.tif", "p1/g.tif"]));
        assert_eq!(found[1].0, names(&["p2/more/r.tif", "p2/more/g.tif"]));
        assert_eq!(found.len(), 2);
        let safe = ["s/R10m/T_B04_10m.tif", "s/R20m/T_B11_20m.tif"];
        let found = scenes("R10m/*_B04_10m.tif,R20m/*_B11_20m.tif", &safe);
        assert_eq!(found, [(names(&safe), None)]);
    }

    #[test]
    fn patterns_by_themselves_and_urls_are_scenes() {
        let folder = folder(&["x/1_r.tif", "x/1_g.tif", "x/2_r.tif", "x/2_g.tif"]);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let bands = BandFiles::new(vec![at("x/*_r.tif"), at("x/*_g.tif")]).unwrap();
        assert_eq!(bands.scenes().unwrap().len(), 2);
        let plain = BandFiles::new(names(&["r.tif", "g.tif", "b.tif"])).unwrap();
        assert_eq!(plain.scenes().unwrap()[0].name, "{r,g,b}.tif");
        let [scene] = &plain.scenes_in(Path::new("https://h/item/?sig=secret")).unwrap()[..] else { panic!("one") };
        assert_eq!(scene.files[0], Path::new("https://h/item/r.tif?sig=secret"));
        assert_eq!(scene.name, "https://h/item/{r,g,b}.tif");
    }

    #[test]
    fn what_cannot_be_found_is_said() {
        let told = |patterns: &[&str], source: &Path| {
            let bands = BandFiles::new(names(patterns));
            bands.and_then(|bands| bands.scenes_in(source)).unwrap_err().to_string()
        };
        let folder = folder(&["a.tif"]);
        assert!(told(&["*a.tif", "b.tif"], folder.path()).contains("differ in their number of * and ?"));
        assert!(told(&["", "b.tif"], folder.path()).contains("name a file for each band"));
        assert!(told(&["x.tif"], folder.path()).starts_with("no files x.tif in "));
        assert!(told(&["*.tif"], Path::new("s3://b/p")).contains("cannot be listed"));
        assert!(told(&["*.tif"], &folder.path().join("a.tif")).contains("is no folder"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_a_file_of_the_scene() {
        let folder = folder(&["r.tif"]);
        std::os::unix::fs::symlink("nowhere", folder.path().join("g.tif")).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("circle")).unwrap();
        let bands = BandFiles::new(names(&["r.tif", "g.tif"])).unwrap();
        let scenes = bands.scenes_in(folder.path()).unwrap();
        assert_eq!((scenes.len(), scenes[0].files.len()), (1, 2));
    }
}
