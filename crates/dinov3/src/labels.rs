//! Names of classes.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Largest file of labels that is read.
const LARGEST_FILE_BYTES: u64 = 64 << 20;

/// Synset ids and names in class order; comments name source and licence.
const IMAGENET_1K: &str = include_str!("../data/imagenet1k.txt");

/// Why there are no labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// A file that cannot be read, or that is no list of labels.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// More or fewer labels than classes.
    #[error("{labels_name}: {labels} labels, but the head has {classes} classes")]
    Count {
        /// The file, or `imagenet`.
        labels_name: String,
        /// Labels found.
        labels: usize,
        /// Classes of the head.
        classes: usize,
    },
}

/// One name per class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    name: String,
    labels: Vec<String>,
    /// WordNet ids, of the built-in labels only.
    synsets: Vec<&'static str>,
}

impl Labels {
    /// The 1000 classes of ImageNet-1k: their WordNet names, separated by commas.
    pub fn imagenet() -> Self {
        let lines = IMAGENET_1K.lines().filter(|line| !line.starts_with('#'));
        let (synsets, labels) =
            lines.filter_map(|line| line.split_once('\t')).map(|(id, name)| (id, name.to_string())).unzip();
        Self { name: "imagenet".to_string(), labels, synsets }
    }

    /// Reads a file: one label per line, a JSON list of texts, or a JSON object from `"0"`, `"1"`, ... to texts.
    ///
    /// # Errors
    /// If the file cannot be read, is too large, or is none of these.
    pub fn from_file(path: &Path) -> Result<Self, LabelsError> {
        let failed = |reason: String| LabelsError::File { path: path.to_path_buf(), reason };
        let information = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
        // Reading a pipe would wait for ever.
        if !information.is_file() {
            return Err(failed("not a regular file".to_string()));
        }
        let size = information.len();
        if size > LARGEST_FILE_BYTES {
            return Err(failed(format!("{size} bytes, above the limit of {LARGEST_FILE_BYTES}")));
        }
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| failed("the labels are not UTF-8 text".to_string()))?;
        let labels = parse(&text).map_err(failed)?;
        Ok(Self { name: path.display().to_string(), labels, synsets: Vec::new() })
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The label of a class.
    pub fn get(&self, class: usize) -> Option<&str> {
        self.labels.get(class).map(String::as_str)
    }

    /// The WordNet synset of a class, `n01440764` and the like; the built-in labels alone know it. Two of their classes
    /// may have the same name: a crane is a bird or a machine.
    pub fn synset(&self, class: usize) -> Option<&'static str> {
        self.synsets.get(class).copied()
    }

    /// Where they come from: the file, or `imagenet`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Refuses labels for another number of classes.
    ///
    /// # Errors
    /// If there are more or fewer than `classes`.
    pub fn check(&self, classes: usize) -> Result<(), LabelsError> {
        if self.len() == classes {
            return Ok(());
        }
        Err(LabelsError::Count { labels_name: self.name.clone(), labels: self.len(), classes })
    }
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with(['[', '{']) {
        let mut labels: Vec<String> = text.lines().map(|line| line.trim_end().to_string()).collect();
        // An empty line at the end is an editor's, and no class.
        if labels.last().is_some_and(String::is_empty) {
            labels.pop();
        }
        return Ok(labels);
    }
    match serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))? {
        Value::Array(labels) => labels.into_iter().enumerate().map(|(class, label)| label_text(class, label)).collect(),
        Value::Object(mut labels) => (0..labels.len())
            .map(|class| {
                let label = labels.remove(&class.to_string());
                label_text(class, label.ok_or_else(|| format!("no label \"{class}\"; expected \"0\", \"1\", ..."))?)
            })
            .collect(),
        _ => Err("neither a list nor an object".to_string()),
    }
}

fn label_text(class: usize, label: Value) -> Result<String, String> {
    match label {
        Value::String(label) => Ok(label),
        other => Err(format!("label {class} is not a text but {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenet_has_its_thousand_classes_in_order() {
        let labels = Labels::imagenet();
        assert_eq!(labels.len(), 1000);
        for (class, synset, label) in [
            (0, "n01440764", "tench, Tinca tinca"),
            (134, "n02012849", "crane"),
            (517, "n03126707", "crane"),
            (999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
        ] {
            assert_eq!((labels.get(class), labels.synset(class)), (Some(label), Some(synset)));
        }
        assert_eq!((labels.get(1000), labels.synset(1000)), (None, None));
        // The order of the ids is the order of the classes.
        assert!(labels.synsets.is_sorted());
    }

    #[test]
    fn lines_lists_and_objects_are_read() {
        let expected = ["cat", "dog, hound", "Bäume"];
        for text in [
            "cat\ndog, hound\nBäume\n",
            "cat\ndog, hound\nBäume\n\n",
            "\u{feff}cat\r\ndog, hound\r\nBäume",
            r#" ["cat", "dog, hound", "Bäume"]"#,
            r#"{"2": "Bäume", "0": "cat", "1": "dog, hound"}"#,
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        assert_eq!(parse("a\n\nb\n").unwrap(), ["a", "", "b"], "an empty line is a class without a name");
        for (text, expected) in [
            ("[1]", "label 0 is not a text but 1"),
            (r#"{"0": "a", "2": "b"}"#, "no label \"1\""),
            (r#"{"0": "a", "00": "b"}"#, "no label \"1\""),
            ("[", "not JSON"),
        ] {
            assert!(parse(text).unwrap_err().contains(expected), "{text}");
        }
    }

    #[test]
    fn another_number_of_labels_than_classes_is_refused() {
        let error = Labels::imagenet().check(10).unwrap_err().to_string();
        assert_eq!(error, "imagenet: 1000 labels, but the head has 10 classes");
    }
}
