//! What the environment says: where the cache is, which hub, whose token. The variables are huggingface_hub's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dinov3_http::{Retries, Url, without_user};

use crate::HubError;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// huggingface_hub's DEFAULT_ETAG_TIMEOUT and DEFAULT_DOWNLOAD_TIMEOUT.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest token that is read from a file.
const LONGEST_TOKEN_BYTES: u64 = 64 << 10;

/// Where things are and how to ask.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The cache, `models--org--name` folders in it.
    pub cache: PathBuf,
    /// The hub, without a slash at the end.
    pub endpoint: String,
    /// For the hub alone; never told to where it redirects.
    pub token: Option<String>,
    /// The variable that says to leave the network alone, if one does.
    pub offline: Option<&'static str>,
    /// Longest silence when asking about a file.
    pub metadata_timeout: Duration,
    /// Longest silence while a file comes.
    pub download_timeout: Duration,
    /// How often a failed request is repeated.
    pub retries: Retries,
    /// Whether a snapshot's files are links to blobs; they are copies where links cannot be made.
    pub links: bool,
    /// Whether HTTPS_PROXY and its kin are read.
    pub proxy_from_environment: bool,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Debug output ends in logs: no token, no password.
        let Self { cache, endpoint, offline, .. } = self;
        f.debug_struct("Settings")
            .field("cache", cache)
            .field("endpoint", &without_user(endpoint))
            .field("offline", offline)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// The environment's: `HF_HUB_CACHE` (`HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `XDG_CACHE_HOME`; `HF_TOKEN`
    /// (`HUGGING_FACE_HUB_TOKEN`), the file at `HF_TOKEN_PATH` or `$HF_HOME/token` unless
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`; `HF_ENDPOINT`; `HF_HUB_OFFLINE` (`TRANSFORMERS_OFFLINE`);
    /// `HF_HUB_ETAG_TIMEOUT`, `HF_HUB_DOWNLOAD_TIMEOUT`; `HF_HUB_DISABLE_SYMLINKS`.
    ///
    /// # Errors
    /// If one of them cannot be meant, or there is no place for a cache.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// This cache and this hub, and nothing from the environment: no token, no proxy.
    ///
    /// # Errors
    /// If the hub is no URL.
    pub fn at(cache: &Path, endpoint: &str) -> Result<Self, HubError> {
        let cache = cache.to_string_lossy();
        let mut settings = Self::from_lookup(&|name| match name {
            "HF_HUB_CACHE" => Some(cache.to_string()),
            "HF_ENDPOINT" => Some(endpoint.to_string()),
            _ => None,
        })?;
        settings.proxy_from_environment = false;
        Ok(settings)
    }

    fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let home = || set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
        let path = |text: String| match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with(['/', '\\']) => match home() {
                Some(home) => home.join(rest.trim_start_matches(['/', '\\'])),
                None => PathBuf::from(text),
            },
            _ => PathBuf::from(text),
        };
        let is_true = |name: &str| {
            set(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let hf_home = set("HF_HOME").map(path).or_else(|| {
            let caches = set("XDG_CACHE_HOME").map(path).or_else(|| home().map(|home| home.join(".cache")));
            caches.map(|folder| folder.join("huggingface"))
        });
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).map(path);
        let cache = cache.or_else(|| hf_home.as_ref().map(|home| home.join("hub"))).ok_or(HubError::NoHome)?;
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_string());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        if Url::parse(&endpoint).is_err() {
            let expected = "a URL such as https://huggingface.co";
            let value = without_user(&endpoint);
            return Err(HubError::BadSetting { name: "HF_ENDPOINT", value, expected });
        }
        let token_file = set("HF_TOKEN_PATH").map(path).or_else(|| hf_home.map(|home| home.join("token")));
        let stored = || match is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => token_file.as_deref().and_then(read_token),
        };
        let token = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN"));
        let token = token.and_then(|token| clean_token(&token)).or_else(stored);
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            // The value is not repeated: it may be a token with a typing mistake.
            let expected = "a token such as hf_..., without spaces inside";
            return Err(HubError::BadSetting { name: "HF_TOKEN", value: "(hidden)".to_string(), expected });
        }
        let seconds = |name: &'static str| match set(name) {
            None => Ok(DEFAULT_TIMEOUT),
            Some(value) => match value.trim().parse::<u64>() {
                Ok(0) => Ok(DEFAULT_TIMEOUT),
                Ok(seconds) if seconds <= 86_400 => Ok(Duration::from_secs(seconds)),
                _ => Err(HubError::BadSetting { name, value, expected: "whole seconds" }),
            },
        };
        Ok(Self {
            cache,
            endpoint,
            token,
            offline: {
                let name = match set("HF_HUB_OFFLINE") {
                    Some(_) => "HF_HUB_OFFLINE",
                    None => "TRANSFORMERS_OFFLINE",
                };
                is_true(name).then_some(name)
            },
            metadata_timeout: seconds("HF_HUB_ETAG_TIMEOUT")?,
            download_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT")?,
            retries: Retries::default(),
            links: !is_true("HF_HUB_DISABLE_SYMLINKS"),
            proxy_from_environment: true,
        })
    }
}

fn clean_token(text: &str) -> Option<String> {
    let token: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_string())
}

fn read_token(path: &Path) -> Option<String> {
    let information = std::fs::metadata(path).ok()?;
    if !information.is_file() || information.len() > LONGEST_TOKEN_BYTES {
        return None;
    }
    clean_token(&std::fs::read_to_string(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Settings::from_lookup(&|name| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
        let home = ("HOME", "/home/ada");
        assert_eq!(cache(&[home]), Path::new("/home/ada/.cache/huggingface/hub"));
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]), Path::new("/home/ada/hf/hub"));
        assert_eq!(cache(&[home, ("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        assert_eq!(cache(&[home, ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), Path::new("/new"));
        assert!(matches!(settings(&[]), Err(HubError::NoHome)));
    }

    #[test]
    fn tokens_come_from_the_environment_or_the_stored_login() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_stored\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        let token = |variables: &[(&str, &str)]| settings(variables).unwrap().token;
        assert_eq!(token(&[home]).as_deref(), Some("hf_stored"));
        assert_eq!(token(&[home, ("HF_TOKEN", " hf_set\n")]).as_deref(), Some("hf_set"));
        assert_eq!(token(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[home, ("HF_TOKEN_PATH", "/nowhere")]), None);
        let error = settings(&[home, ("HF_TOKEN", "hf secret")]).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("secret"), "{error}");
        assert!(!format!("{:?}", settings(&[home]).unwrap()).contains("stored"));
    }

    #[test]
    fn other_variables_are_read_and_nonsense_is_refused() {
        let home = ("HOME", "/h");
        let all = settings(&[
            home,
            ("HF_ENDPOINT", "http://mirror/x/"),
            ("HF_HUB_OFFLINE", "yes"),
            ("HF_HUB_ETAG_TIMEOUT", "3"),
        ]);
        let all = all.unwrap();
        assert_eq!(
            (all.endpoint.as_str(), all.offline.is_some(), all.metadata_timeout.as_secs()),
            ("http://mirror/x", true, 3)
        );
        assert_eq!(settings(&[home, ("HF_HUB_OFFLINE", "0")]).unwrap().offline, None);
        let other = settings(&[home, ("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline;
        assert_eq!(other, Some("TRANSFORMERS_OFFLINE"));
        for wrong in [("HF_ENDPOINT", "mirror"), ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"), ("HF_HUB_ETAG_TIMEOUT", "-1")] {
            assert!(settings(&[home, wrong]).unwrap_err().to_string().contains(wrong.0));
        }
    }
}
