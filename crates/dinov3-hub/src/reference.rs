//! What a user writes for a repository: `hf-hub:org/name@revision`.

use std::fmt;

use crate::HubError;

/// The revision that is meant where none is named.
const DEFAULT_REVISION: &str = "main";

/// A repository at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubReference {
    repository: String,
    revision: String,
}

impl HubReference {
    /// A repository `org/name` at a branch, tag or commit; `main` by default.
    ///
    /// # Errors
    /// [`HubError::BadReference`]: both become parts of paths and URLs, so only plain names are taken.
    pub fn new(repository: &str, revision: Option<&str>) -> Result<Self, HubError> {
        let revision = revision.unwrap_or(DEFAULT_REVISION);
        let bad = |text: &str, reason: &str| HubError::BadReference { text: text.into(), reason: reason.into() };
        let name = |part: &str| {
            let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            // The hub forbids these too: `--` separates the parts in the cache.
            let forbidden = part.contains("--") || part.contains("..");
            plain
                && !forbidden
                && (1..=96).contains(&part.len())
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-'])
        };
        if !repository.split_once('/').is_some_and(|(owner, model)| name(owner) && name(model)) {
            return Err(bad(repository, "a repository is called org/name"));
        }
        let part = |part: &str| {
            let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
            plain && !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock")
        };
        if revision.len() > 200 || !revision.split('/').all(part) {
            return Err(bad(revision, "a revision is a branch, a tag or a commit"));
        }
        Ok(Self { repository: repository.to_string(), revision: revision.to_string() })
    }

    /// Reads `hf-hub:org/name` or `hf-hub:org/name@revision`; `None` for any other text.
    pub fn parse(text: &str) -> Option<Result<Self, HubError>> {
        let name = text.strip_prefix("hf-hub:")?;
        Some(match name.split_once('@') {
            Some((repository, revision)) => Self::new(repository, Some(revision)),
            None => Self::new(name, None),
        })
    }

    /// `org/name`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The branch, tag or commit that was asked for.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl fmt::Display for HubReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            DEFAULT_REVISION => write!(f, "hf-hub:{}", self.repository),
            revision => write!(f, "hf-hub:{}@{revision}", self.repository),
        }
    }
}

/// A commit's full name.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let reference = HubReference::parse("hf-hub:timm/vit_large_patch16_dinov3.sat493m").unwrap().unwrap();
        assert_eq!((reference.repository(), reference.revision()), ("timm/vit_large_patch16_dinov3.sat493m", "main"));
        for text in ["hf-hub:o/n", "hf-hub:o/n@v1.0", "hf-hub:o/n@refs/pr/3"] {
            assert_eq!(HubReference::parse(text).unwrap().unwrap().to_string(), text);
        }
        assert!(HubReference::parse("model.safetensors").is_none());
        for wrong in [
            "", "n", "o/", "/n", "o/n/m", "../n", "o/..", "o/.n", "o/a--b", "o/n@", "o/n@../x", "o/n@a//b", "o/n@a b",
            "o n/m", "o/n@/x",
        ] {
            assert!(HubReference::parse(&format!("hf-hub:{wrong}")).unwrap().is_err(), "{wrong}");
        }
    }
}
