//! What the user means by INPUT: files, folders, patterns, URLs, a list.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// Endings of the pictures that a folder is searched for. A file that is named is opened whatever its ending.
const PICTURE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "jpe", "png", "webp", "tif", "tiff", "bmp"];

/// Why inputs cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A folder that cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A pattern that is none.
    #[error("'{pattern}' is not a pattern: {reason}")]
    Pattern {
        /// The text.
        pattern: String,
        /// The reason.
        reason: String,
    },
    /// Standard input cannot be read.
    #[error("standard input: {0}")]
    List(std::io::Error),
    /// There is nothing to do.
    #[error("no {} found in {inputs} (looked for {})", if *kind == Kind::Scenes { "scenes" } else { "pictures" }, kind.extensions().join(", "))]
    Nothing {
        /// What was searched.
        inputs: String,
        /// What for.
        kind: Kind,
    },
}

/// Whether an input is an `http` or `https` URL.
#[cfg(feature = "hub")]
pub fn is_url(input: &Path) -> bool {
    input.to_str().is_some_and(dinov3_http::Url::looks_like_one)
}

#[cfg(not(feature = "hub"))]
fn is_url(_: &Path) -> bool {
    false
}

/// What a folder is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Files that are named like pictures.
    Pictures,
    /// Files that are named like GeoTIFFs.
    Scenes,
}

impl Kind {
    /// Whether a file of this name is one, going by its ending.
    fn is_named_so(self, name: &Path) -> bool {
        let extension = name.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| self.extensions().iter().any(|known| known.eq_ignore_ascii_case(extension)))
    }

    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Pictures => &PICTURE_EXTENSIONS,
            Self::Scenes => &["tif", "tiff"],
        }
    }
}

/// Lists the files that `inputs` mean, in their order: a folder is searched recursively and sorted by name, hidden
/// files left out; a pattern (`*`, `?`, `[...]`, `**`) is expanded and sorted, unless a file has that very name; `-`
/// is a list on `standard_input`, one path or URL a line. A file that does not exist is listed, and so is a URL (of
/// scenes, of any kind): the run reports it.
///
/// # Errors
/// If a folder, a pattern or the list cannot be read, or if nothing is found.
pub fn expand(inputs: &[PathBuf], kind: Kind, standard_input: &mut dyn BufRead) -> Result<Vec<PathBuf>, InputError> {
    let mut files = Vec::new();
    for input in inputs {
        if input == Path::new("-") {
            for line in standard_input.split(b'\n') {
                let mut line = line.map_err(InputError::List)?;
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                if !line.is_empty() {
                    files.push(path_from(line));
                }
            }
        } else if is_url(input) || kind == Kind::Scenes && input.to_string_lossy().contains("://") {
            files.push(input.clone());
        } else if input.is_dir() {
            search(input, kind, &mut files)?;
        } else if !input.exists() && input.to_str().is_some_and(|text| text.contains(['*', '?', '['])) {
            let pattern = input.to_str().unwrap_or_default();
            let bad = |reason: String| InputError::Pattern { pattern: pattern.to_string(), reason };
            let before = files.len();
            for path in glob::glob(pattern).map_err(|error| bad(error.to_string()))? {
                let path = path.map_err(|error| bad(error.to_string()))?;
                if path.is_dir() { search(&path, kind, &mut files)? } else { files.push(path) }
            }
            if files.len() == before {
                return Err(InputError::Nothing { inputs: pattern.to_string(), kind });
            }
        } else {
            files.push(input.clone());
        }
    }
    if files.is_empty() {
        let names: Vec<String> = inputs.iter().map(|input| input.display().to_string()).collect();
        return Err(InputError::Nothing { inputs: names.join(", "), kind });
    }
    Ok(files)
}

/// What an input means below a folder that is not on this machine, where names have `/` between their parts: what [`expand`]
/// would find there.
#[derive(Debug)]
pub struct Below {
    kind: Kind,
    pattern: Option<(glob::Pattern, Vec<glob::Pattern>)>,
}

impl Below {
    /// By a pattern, or everything of this kind.
    ///
    /// # Errors
    /// If the pattern is none.
    pub fn new(pattern: Option<&str>, kind: Kind) -> Result<Self, InputError> {
        let of = |text: &str| {
            let text = text.trim_end_matches('/');
            let parts = text.split('/').map(glob::Pattern::new).collect::<Result<Vec<_>, _>>()?;
            Ok((glob::Pattern::new(text)?, parts))
        };
        let bad = |error: glob::PatternError| InputError::Pattern {
            pattern: pattern.unwrap_or_default().to_string(),
            reason: error.to_string(),
        };
        Ok(Self { kind, pattern: pattern.map(of).transpose().map_err(bad)? })
    }

    /// Whether something in this folder may be meant.
    pub fn may_hold(&self, folder: &str) -> bool {
        let parts: Vec<&str> = folder.split('/').collect();
        match &self.pattern {
            None => !is_hidden(&parts),
            Some((_, patterns)) => {
                let any = patterns.iter().position(|pattern| pattern.as_str() == "**").unwrap_or(patterns.len());
                patterns.iter().take(any).zip(&parts).all(|(pattern, part)| pattern.matches(part))
                    && (any < patterns.len() || parts.get(patterns.len()..).is_none_or(|rest| !is_hidden(rest)))
            }
        }
    }

    /// Whether this file is meant: by itself, or with a folder that the pattern names.
    pub fn is_meant(&self, name: &str) -> bool {
        let is_of_kind =
            |rest: &str| self.kind.is_named_so(Path::new(name)) && !is_hidden(&rest.split('/').collect::<Vec<_>>());
        let Some((pattern, _)) = &self.pattern else { return is_of_kind(name) };
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let mut folders = name.match_indices('/').map(|(at, _)| name.split_at(at));
        pattern.matches_with(name, options)
            || folders.any(|(folder, rest)| pattern.matches_with(folder, options) && is_of_kind(&rest[1..]))
    }
}

fn is_hidden(parts: &[&str]) -> bool {
    parts.iter().any(|part| part.starts_with('.'))
}

fn search(folder: &Path, kind: Kind, files: &mut Vec<PathBuf>) -> Result<(), InputError> {
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().first() == Some(&b'.');
    let entries = WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name()));
    for entry in entries {
        let entry = entry.map_err(|error| InputError::Folder {
            path: error.path().unwrap_or(folder).to_path_buf(),
            reason: error.to_string(),
        })?;
        // A link to a file counts as the file; one that leads nowhere is told when it is read, not passed over.
        let is_file = || match std::fs::metadata(entry.path()) {
            Ok(found) => found.is_file(),
            Err(_) => entry.path_is_symlink(),
        };
        if kind.is_named_so(entry.path()) && is_file() {
            files.push(entry.into_path());
        }
    }
    Ok(())
}

#[cfg(unix)]
fn path_from(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path_from(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_a_folder_elsewhere_a_pattern_means_what_it_means_here() {
        let names =
            ["a.tif", "b.txt", "s/a.TIF", "s/.h/a.tif", "s/t/b.tif", "2024-01/c.tif", "2024-02/x/d.tif", "2024.tif"];
        let meant = |pattern: Option<&str>| -> Vec<&str> {
            let below = Below::new(pattern, Kind::Scenes).unwrap();
            let is_reached = |name: &str| name.match_indices('/').all(|(at, _)| below.may_hold(&name[..at]));
            names.into_iter().filter(|name| is_reached(name) && below.is_meant(name)).collect()
        };
        assert_eq!(meant(None), ["a.tif", "s/a.TIF", "s/t/b.tif", "2024-01/c.tif", "2024-02/x/d.tif", "2024.tif"]);
        assert_eq!(meant(Some("*.tif")), ["a.tif", "2024.tif"]);
        assert_eq!(meant(Some("*.txt")), ["b.txt"]);
        assert_eq!(meant(Some("2024*")), ["2024-01/c.tif", "2024-02/x/d.tif", "2024.tif"]);
        assert_eq!(meant(Some("2024-0?/")), ["2024-01/c.tif", "2024-02/x/d.tif"]);
        assert_eq!(meant(Some("*/*.tif")), ["2024-01/c.tif"]);
        assert_eq!(
            meant(Some("**/*.tif")),
            ["a.tif", "s/.h/a.tif", "s/t/b.tif", "2024-01/c.tif", "2024-02/x/d.tif", "2024.tif"]
        );
        assert_eq!(meant(Some("s/**/b.tif")), ["s/t/b.tif"]);
        assert!(Below::new(Some("[a"), Kind::Scenes).is_err());
        // What cannot hold anything is not asked for.
        let below = Below::new(Some("s?/x/*.tif"), Kind::Scenes).unwrap();
        let held = ["s1", "t1", "s1/x", "s1/y", "s1/x/z"].map(|folder| below.may_hold(folder));
        assert_eq!(held, [true, false, true, false, false]);
    }

    #[test]
    fn folders_patterns_lists_and_files_are_expanded_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("b/.hidden")).unwrap();
        for name in ["b/2.JPG", "b/1.png", "b/notes.txt", "b/.x.png", "b/.hidden/3.png", "a.webp", "c.tif"] {
            std::fs::write(at(name), b"").unwrap();
        }
        let list = format!("{}\r\n\n{}\n", at("c.tif").display(), at("missing.png").display());
        let inputs = [at("b"), at("*.webp"), PathBuf::from("-"), at("b/notes.txt")];
        let files = expand(&inputs, Kind::Pictures, &mut list.as_bytes()).unwrap();
        let expected = ["b/1.png", "b/2.JPG", "a.webp", "c.tif", "missing.png", "b/notes.txt"];
        assert_eq!(files, expected.map(at));
    }

    #[cfg(feature = "hub")]
    #[test]
    fn urls_are_no_patterns() {
        let urls = ["https://example.org/a.png?size=[1]&x=*", "HTTP://example.org/b.png"].map(PathBuf::from);
        assert_eq!(expand(&urls, Kind::Pictures, &mut "".as_bytes()).unwrap(), urls);
        let inputs = [PathBuf::from("-")];
        assert_eq!(expand(&inputs, Kind::Pictures, &mut "https://example.org/c.png\n".as_bytes()).unwrap().len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("folder.tif")).unwrap();
        for (target, link) in [("nowhere.tif", "a.tif"), ("folder.tif", "b.tif"), ("c.png", "c.txt")] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        let files = expand(&[folder.path().to_path_buf()], Kind::Scenes, &mut "".as_bytes()).unwrap();
        assert_eq!(files, [at("a.tif")]);
    }

    #[test]
    fn nothing_found_is_an_error_that_says_where() {
        let folder = tempfile::tempdir().unwrap();
        for input in [folder.path().to_path_buf(), folder.path().join("*.png")] {
            let error =
                expand(std::slice::from_ref(&input), Kind::Pictures, &mut "".as_bytes()).unwrap_err().to_string();
            assert!(error.contains(input.to_str().unwrap()), "{error}");
        }
        assert!(matches!(
            expand(&[PathBuf::from("a[")], Kind::Pictures, &mut "".as_bytes()),
            Err(InputError::Pattern { .. })
        ));
    }

    #[test]
    fn a_file_whose_name_looks_like_a_pattern_is_that_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scene[1].png");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(expand(std::slice::from_ref(&file), Kind::Pictures, &mut "".as_bytes()).unwrap(), [file]);
    }
}
