//! From a reference to a folder with weights.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::RepositoryCache;
use crate::download::{Downloader, FileFacts, Listener, NoFacts, tell};
use crate::reference::{HubReference, is_commit};
use crate::{HubError, Settings};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Not needed here; timm and Transformers look for it beside the weights.
const CONFIG: &str = "config.json";
/// Largest index that is parsed; the 7B's is below 0.1 MB.
const LARGEST_INDEX_BYTES: u64 = 16 << 20;
/// Most shards of an index.
const MOST_SHARDS: usize = 1000;

/// What a listener is told while a repository is fetched. Its answer may end the download, which a later one then
/// continues.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something will be downloaded: the first event of a fetch that does.
    FirstDownload {
        /// The repository's page.
        page: &'a str,
    },
    /// A file begins to come.
    Download {
        /// Its name.
        name: &'a str,
        /// Its size, if known.
        size_bytes: Option<u64>,
        /// What an earlier attempt left, and is not downloaded again.
        from_bytes: u64,
    },
    /// More of it has come.
    Bytes {
        /// Its name.
        name: &'a str,
        /// What is there.
        done_bytes: u64,
        /// Its size, if known.
        size_bytes: Option<u64>,
    },
    /// It is there, and its hash is right.
    Done {
        /// Its name.
        name: &'a str,
    },
    /// Another process downloads the same file; told again and again.
    Waiting {
        /// The file.
        name: &'a str,
    },
    /// An attempt failed, another follows.
    Retry {
        /// Why it failed.
        error: &'a HubError,
        /// The time until the next.
        wait: Duration,
    },
    /// The hub could not be asked; an earlier download is used.
    UsingCache {
        /// Why.
        error: &'a HubError,
        /// The commit that the cache holds.
        commit: &'a str,
    },
}

/// Why a snapshot was taken from the cache without asking the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CachedBecause {
    /// A commit never changes.
    Commit,
    /// The network is switched off.
    Offline,
    /// The hub could not be asked, or would not tell.
    NoAnswer(String),
}

/// A repository's weights at one commit, on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What was asked for.
    pub reference: HubReference,
    /// What its revision meant.
    pub commit: String,
    /// The folder.
    pub folder: PathBuf,
    /// `model.safetensors`, or its index, in the folder.
    pub weights: PathBuf,
    /// The files, weights first.
    pub files: Vec<FetchedFile>,
    /// Set if the hub was not asked.
    pub cached: Option<CachedBecause>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedFile {
    /// Its name in the repository.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Whether it was downloaded just now.
    pub downloaded: bool,
    /// Its SHA-256, if the cache's own name for it says so.
    pub sha256: Option<String>,
}

/// The hub with its cache.
pub struct Hub {
    settings: Settings,
}

impl Hub {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// With those of the environment.
    ///
    /// # Errors
    /// Those of [`Settings::from_environment`].
    pub fn from_environment() -> Result<Self, HubError> {
        Ok(Self::new(Settings::from_environment()?))
    }

    /// Finds a repository's weights in the cache or downloads them.
    ///
    /// The hub is asked what the revision means, unless that is a commit which is there. If it cannot be asked, what
    /// the cache holds for the revision is used, and the listener is told. Hashes are checked before a file gets its
    /// name in the cache.
    ///
    /// # Errors
    /// [`HubError`]; a cancelled or broken download leaves what has come, and the next one continues it.
    pub fn fetch(
        &self,
        reference: &HubReference,
        listener: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Snapshot, HubError> {
        let cache = RepositoryCache::new(&self.settings.cache, reference);
        let cached = from_cache(&cache, reference);
        if is_commit(reference.revision())
            && let Some(snapshot) = cached
        {
            return Ok(Snapshot { cached: Some(CachedBecause::Commit), ..snapshot });
        }
        let not_cached = |reason: String| HubError::NotCached {
            repository: reference.repository().to_string(),
            revision: reference.revision().to_string(),
            cache: self.settings.cache.clone(),
            reason,
        };
        if let Some(variable) = self.settings.offline {
            let missing = || not_cached(format!("{variable} forbids to download: unset it once"));
            let snapshot = cached.ok_or_else(missing)?;
            return Ok(Snapshot { cached: Some(CachedBecause::Offline), ..snapshot });
        }
        let fetching = Fetching {
            downloader: Downloader::new(&self.settings)?,
            settings: &self.settings,
            cache,
            reference,
            announced: false,
        };
        match (fetching.main_file(cached.is_none(), listener), cached) {
            (Ok((name, facts)), _) => fetching.files(name, &facts, listener),
            (Err(error), Some(snapshot)) if error.leaves_the_cache() => {
                tell(listener, Event::UsingCache { error: &error, commit: &snapshot.commit })?;
                Ok(Snapshot { cached: Some(CachedBecause::NoAnswer(error.to_string())), ..snapshot })
            }
            (Err(HubError::Http(error)), None) if error.is_transient() => {
                Err(not_cached(format!("{error}: check the network and HTTPS_PROXY, or pass weights from a file")))
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// A fetch on its way.
struct Fetching<'a> {
    downloader: Downloader,
    settings: &'a Settings,
    cache: RepositoryCache,
    reference: &'a HubReference,
    announced: bool,
}

impl Fetching<'_> {
    /// Which of the two kinds of weights the repository has.
    fn main_file(&self, patient: bool, listener: Listener<'_>) -> Result<(&'static str, FileFacts), HubError> {
        let revision = self.reference.revision();
        for name in [WEIGHTS, INDEX] {
            let ask = || match self.downloader.facts(self.reference, revision, name) {
                Ok(facts) => Ok(Some(facts)),
                Err(NoFacts::NoFile) => Ok(None),
                Err(NoFacts::Failed(error)) => Err(error),
            };
            // With something in the cache, one attempt is enough.
            let facts = if patient { self.downloader.with_retries(listener, ask)? } else { ask()? };
            if let Some(facts) = facts {
                return Ok((name, facts));
            }
        }
        Err(HubError::NoWeights {
            repository: self.reference.repository().to_string(),
            revision: revision.to_string(),
            known: self.downloader.known_files(self.reference),
        })
    }

    /// Everything, at the commit of the main file.
    fn files(mut self, main: &'static str, facts: &FileFacts, listener: Listener<'_>) -> Result<Snapshot, HubError> {
        let commit = facts.commit.as_str();
        let mut files = vec![self.file(main, facts, listener)?];
        let weights = self.cache.snapshot(commit).join(main);
        if main == INDEX {
            let shards = shards(&weights).map_err(|reason| HubError::BadIndex {
                repository: self.reference.repository().to_string(),
                file: INDEX.to_string(),
                reason,
            })?;
            for shard in shards {
                // What a commit holds does not change: what is there need not be asked for.
                if self.cache.file(commit, &shard).is_some() {
                    files.push(self.found(commit, &shard, false)?);
                    continue;
                }
                let facts = self.later_file(commit, &shard, listener)?;
                files.push(self.file(&shard, &facts, listener)?);
            }
        }
        if self.cache.file(commit, CONFIG).is_some() {
            files.push(self.found(commit, CONFIG, false)?);
        } else if let Ok(facts) = self.downloader.facts(self.reference, commit, CONFIG) {
            match self.file(CONFIG, &facts, listener) {
                Ok(file) => files.push(file),
                Err(HubError::Cancelled) => return Err(HubError::Cancelled),
                // A convenience for others: that it cannot be had is no failure here.
                Err(_) => {}
            }
        }
        // Last: until now an interrupted update leaves the revision where it was.
        self.cache.remember(self.reference.revision(), commit)?;
        let folder = self.cache.snapshot(commit);
        let (reference, commit) = (self.reference.clone(), commit.to_string());
        Ok(Snapshot { reference, commit, folder, weights, files, cached: None })
    }

    fn later_file(&self, commit: &str, name: &str, listener: Listener<'_>) -> Result<FileFacts, HubError> {
        self.downloader.with_retries(listener, || {
            self.downloader.facts(self.reference, commit, name).map_err(|error| match error {
                NoFacts::Failed(error) => error,
                NoFacts::NoFile => {
                    let (repository, file) = (self.reference.repository().to_string(), name.to_string());
                    HubError::NoFile { repository, file }
                }
            })
        })
    }

    /// One file, if it is not there already in its full size.
    fn file(&mut self, name: &str, facts: &FileFacts, listener: Listener<'_>) -> Result<FetchedFile, HubError> {
        let FileFacts { etag, commit, size_bytes } = facts;
        let is_whole = |found: u64| size_bytes.is_none_or(|size| size == found);
        let is_there = |cache: &RepositoryCache| cache.file(commit, name).is_some_and(|(_, found)| is_whole(found));
        let blob_is_there = |cache: &RepositoryCache| {
            std::fs::metadata(cache.blob(etag)).is_ok_and(|blob| blob.is_file() && is_whole(blob.len()))
        };
        if is_there(&self.cache) {
            return self.found(commit, name, false);
        }
        self.cache.create(commit)?;
        let lock = self.cache.lock(etag, &mut || tell(listener, Event::Waiting { name }))?;
        let mut downloaded = false;
        if !is_there(&self.cache) {
            if !blob_is_there(&self.cache) {
                if !self.announced {
                    self.announced = true;
                    tell(listener, Event::FirstDownload { page: &self.downloader.page(self.reference) })?;
                }
                self.downloader.blob(self.reference, name, facts, &self.cache, listener)?;
                downloaded = true;
            }
            self.cache.link(etag, commit, name, self.settings.links, downloaded)?;
        }
        drop(lock);
        if downloaded {
            tell(listener, Event::Done { name })?;
        }
        self.found(commit, name, downloaded)
    }

    fn found(&self, commit: &str, name: &str, downloaded: bool) -> Result<FetchedFile, HubError> {
        let missing = || HubError::io(self.cache.snapshot(commit).join(name), std::io::ErrorKind::NotFound.into());
        let mut file = fetched(&self.cache, commit, name).ok_or_else(missing)?;
        file.downloaded = downloaded;
        Ok(file)
    }
}

/// What the cache holds for a reference, if that is complete.
fn from_cache(cache: &RepositoryCache, reference: &HubReference) -> Option<Snapshot> {
    let commit = cache.known_commit(reference.revision())?;
    let folder = cache.snapshot(&commit);
    let (main, mut names) = match cache.file(&commit, WEIGHTS) {
        Some(_) => (WEIGHTS, Vec::new()),
        None => (INDEX, shards(&cache.file(&commit, INDEX)?.0).ok()?),
    };
    names.insert(0, main.to_string());
    if cache.file(&commit, CONFIG).is_some() {
        names.push(CONFIG.to_string());
    }
    let files: Option<Vec<FetchedFile>> = names.iter().map(|name| fetched(cache, &commit, name)).collect();
    let weights = folder.join(main);
    Some(Snapshot { reference: reference.clone(), weights, folder, files: files?, commit, cached: None })
}

fn fetched(cache: &RepositoryCache, commit: &str, name: &str) -> Option<FetchedFile> {
    let (path, size_bytes) = cache.file(commit, name)?;
    let blob = std::fs::read_link(path).ok();
    let etag = blob.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).map(str::to_string);
    let sha256 = etag.filter(|etag| etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit()));
    Some(FetchedFile { name: name.to_string(), size_bytes, downloaded: false, sha256 })
}

/// The files that an index names, each once, in order.
fn shards(index: &Path) -> Result<Vec<String>, String> {
    let size = std::fs::metadata(index).map_err(|error| error.to_string())?.len();
    if size > LARGEST_INDEX_BYTES {
        return Err(format!("{size} bytes, above the limit of {LARGEST_INDEX_BYTES}"));
    }
    let text = std::fs::read_to_string(index).map_err(|error| error.to_string())?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))?;
    let map = json["weight_map"].as_object().ok_or("no \"weight_map\"")?;
    let mut names = BTreeSet::new();
    for file in map.values() {
        let name = file.as_str().unwrap_or_default();
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain || !name.ends_with(".safetensors") || name.starts_with('.') || name.len() > 200 {
            return Err(format!("\"{}\" is no name of a shard", name.chars().take(100).collect::<String>()));
        }
        names.insert(name.to_string());
    }
    match names.len() {
        0 => Err("it names no file".to_string()),
        count if count > MOST_SHARDS => Err(format!("{count} shards, above the limit of {MOST_SHARDS}")),
        _ => Ok(names.into_iter().collect()),
    }
}
