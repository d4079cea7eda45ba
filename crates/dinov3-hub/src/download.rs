//! One file: what the hub says of it, and its bytes, continued where they stopped and checked before they count.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use dinov3_http::{Addresses, Client, HttpError, Redirects, Request, Response, Retries, Url, without_user};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::cache::RepositoryCache;
use crate::fetch::Event;
use crate::reference::{HubReference, is_commit};
use crate::{HubError, Settings};

/// Largest file: twice the 7B in f32. The hub itself gives no larger ones over plain HTTP than 50 GB.
const LARGEST_FILE_BYTES: u64 = 64 << 30;
/// The hub redirects renamed repositories once, files to its storage once or twice.
const MOST_REDIRECTS: u32 = 10;
/// Bytes between two reads.
const BUFFER_BYTES: usize = 256 << 10;
/// Longest text of the hub's that is repeated in a message.
const LONGEST_MESSAGE: usize = 200;

/// Who is told, and may stop the download.
pub(crate) type Listener<'a> = &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>;

/// Tells the listener.
pub(crate) fn tell(listener: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>, event: Event<'_>) -> Result<(), HubError> {
    match listener(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(HubError::Cancelled),
    }
}

/// What the hub says of a file.
#[derive(Clone, Debug)]
pub(crate) struct FileFacts {
    /// Its name in the cache: the SHA-256 of a large file, git's hash of a small one.
    pub etag: String,
    /// The commit that the revision means now.
    pub commit: String,
    /// Its size, if told.
    pub size_bytes: Option<u64>,
}

/// Why there are no facts.
pub(crate) enum NoFacts {
    /// The repository and the revision are there, the file is not.
    NoFile,
    /// Anything else.
    Failed(HubError),
}

/// The network's side.
pub(crate) struct Downloader {
    metadata: Client,
    content: Client,
    endpoint: String,
    token: Option<String>,
    retries: Retries,
}

impl Downloader {
    pub(crate) fn new(settings: &Settings) -> Result<Self, HubError> {
        let mut options = dinov3_http::ClientOptions::default();
        options.proxy_from_environment = settings.proxy_from_environment;
        options.connect_timeout = settings.metadata_timeout;
        options.silence_timeout = settings.metadata_timeout;
        let metadata = Client::new(options.clone())?;
        options.connect_timeout = settings.download_timeout;
        options.silence_timeout = settings.download_timeout;
        let content = Client::new(options)?;
        let Settings { endpoint, token, retries, .. } = settings;
        Ok(Self { metadata, content, endpoint: endpoint.clone(), token: token.clone(), retries: *retries })
    }

    /// The page of a repository, for people.
    pub(crate) fn page(&self, reference: &HubReference) -> String {
        without_user(&format!("{}/{}", self.endpoint, reference.repository()))
    }

    fn url(&self, reference: &HubReference, revision: &str, file: &str) -> Result<Url, HubError> {
        let revision = revision.replace('/', "%2F");
        Ok(Url::parse(&format!("{}/{}/resolve/{revision}/{file}", self.endpoint, reference.repository()))?)
    }

    fn request<'a>(&self, url: &'a Url) -> Request<'a> {
        let mut request = Request::get(url);
        request.most_redirects = MOST_REDIRECTS;
        // A mirror may stand in the user's own network.
        request.addresses = Addresses::Any;
        request.secret_headers.extend(self.token.as_ref().map(|token| ("authorization", format!("Bearer {token}"))));
        request
    }

    /// Calls `attempt` until it succeeds, fails for good, or has failed too often.
    pub(crate) fn with_retries<T>(
        &self,
        listener: Listener<'_>,
        mut attempt: impl FnMut() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut failures = 0;
        loop {
            match attempt() {
                Err(error) if error.is_transient() => {
                    failures += 1;
                    self.pause(failures, error, listener)?;
                }
                other => return other,
            }
        }
    }

    /// Waits before the next attempt, or gives the error back.
    fn pause(&self, failures: u32, error: HubError, listener: Listener<'_>) -> Result<(), HubError> {
        let Some(wait) = self.retries.wait_after(failures) else { return Err(error) };
        tell(listener, Event::Retry { error: &error, wait })?;
        std::thread::sleep(wait);
        Ok(())
    }

    /// Asks about a file, without following redirects to other hosts: the answer before them has the facts.
    pub(crate) fn facts(&self, reference: &HubReference, revision: &str, file: &str) -> Result<FileFacts, NoFacts> {
        let failed = |error: HubError| NoFacts::Failed(error);
        let url = self.url(reference, revision, file).map_err(failed)?;
        let mut request = self.request(&url);
        request.head_only = true;
        request.redirects = Redirects::SameOrigin;
        let response = self.metadata.send(&request).map_err(|error| failed(error.into()))?;
        let redirected = (300..400).contains(&response.status);
        if response.status != 200 && !redirected {
            return Err(match self.refused(reference, revision, &response) {
                Some(error) => NoFacts::Failed(error),
                None => NoFacts::NoFile,
            });
        }
        let no_hub = |reason: &str| failed(HubError::NotAHub { url: url.shown(), reason: reason.to_string() });
        let commit = response.header("x-repo-commit").ok_or_else(|| no_hub("no X-Repo-Commit"))?.to_string();
        if !is_commit(&commit) {
            return Err(no_hub("X-Repo-Commit is no commit"));
        }
        let etag = response.header("x-linked-etag").or_else(|| response.header("etag"));
        let etag = etag.ok_or_else(|| no_hub("no ETag"))?.trim_start_matches("W/").trim_matches('"').to_string();
        let plain = etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !plain || etag.is_empty() || etag.len() > 128 {
            return Err(no_hub("the ETag cannot be the name of a file"));
        }
        let linked = response.header("x-linked-size").and_then(|size| size.trim().parse().ok());
        let size_bytes = linked.or_else(|| if redirected { None } else { response.length_bytes() });
        if let Some(size_bytes) = size_bytes.filter(|size| *size > LARGEST_FILE_BYTES) {
            let limit_bytes = LARGEST_FILE_BYTES;
            return Err(failed(HubError::TooLarge { file: file.to_string(), size_bytes, limit_bytes }));
        }
        Ok(FileFacts { etag, commit, size_bytes })
    }

    /// What a status means; `None` for a file that does not exist.
    fn refused(&self, reference: &HubReference, revision: &str, response: &Response) -> Option<HubError> {
        let page = self.page(reference);
        let repository = reference.repository().to_string();
        let message = || {
            let text = response.header("x-error-message").unwrap_or_default();
            text.chars()
                .filter(|c| !c.is_control())
                .take(LONGEST_MESSAGE)
                .collect::<String>()
                .trim_end_matches('.')
                .to_string()
        };
        let open_copy = None;
        Some(match (response.status, response.header("x-error-code").unwrap_or_default()) {
            (status @ (401 | 403), "GatedRepo") => HubError::Gated { page, status, open_copy },
            (404, "RevisionNotFound") => {
                let known = self.known_revisions(reference);
                HubError::NoRevision { repository, revision: revision.to_string(), known }
            }
            (404, "RepoNotFound") => HubError::NoRepository { page },
            (404, _) => return None,
            (401, _) => {
                let who = if self.token.is_some() { "this token" } else { "everyone" };
                HubError::Unauthorized { page, who, open_copy }
            }
            (403, _) => HubError::Forbidden { page, message: message(), open_copy },
            (status, _) => HubError::Status { url: response.url.shown(), status, message: message() },
        })
    }

    /// Branches and tags, for a message; none if they cannot be learned.
    fn known_revisions(&self, reference: &HubReference) -> Vec<String> {
        let refs = self.json(&format!("{}/api/models/{}/refs", self.endpoint, reference.repository()));
        let names = |kind: &str| -> Vec<String> {
            let list = refs.as_ref().and_then(|refs| refs[kind].as_array()).into_iter().flatten();
            list.filter_map(|entry| Some(entry["name"].as_str()?.to_string())).collect()
        };
        let mut all = names("branches");
        all.extend(names("tags"));
        all.truncate(12);
        all
    }

    /// Files of a repository, for a message; none if they cannot be learned.
    pub(crate) fn known_files(&self, reference: &HubReference) -> Vec<String> {
        let revision = reference.revision().replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint, reference.repository());
        let info = self.json(&url);
        let files = info.as_ref().and_then(|info| info["siblings"].as_array()).into_iter().flatten();
        files.filter_map(|file| Some(file["rfilename"].as_str()?.to_string())).take(12).collect()
    }

    fn json(&self, url: &str) -> Option<serde_json::Value> {
        let url = Url::parse(url).ok()?;
        let response = self.metadata.send(&self.request(&url)).ok()?;
        if response.status != 200 {
            return None;
        }
        serde_json::from_slice(&response.into_bytes(4 << 20).ok()?).ok()
    }

    /// Downloads a blob whose lock is held; afterwards it lies in the cache, checked.
    pub(crate) fn blob(
        &self,
        reference: &HubReference,
        name: &str,
        facts: &FileFacts,
        cache: &RepositoryCache,
        listener: Listener<'_>,
    ) -> Result<(), HubError> {
        let blob = cache.blob(&facts.etag);
        let mut partial = Partial::open(cache.blob(&format!("{}.incomplete", facts.etag)), facts)?;
        partial.refuse_without_space(name)?;
        let size_bytes = facts.size_bytes;
        tell(listener, Event::Download { name, size_bytes, from_bytes: partial.position })?;
        let url = self.url(reference, &facts.commit, name)?;
        let mut failures = 0;
        let mut continued = partial.position > 0;
        loop {
            let before = partial.position;
            match self.continue_partial(reference, &url, name, &mut partial, listener) {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    // An attempt that brought something is no failure of the hub's.
                    failures = if partial.position > before { 1 } else { failures + 1 };
                    let error = match (error, size_bytes) {
                        (HubError::Http(HttpError::BrokenOff { .. }), Some(expected_bytes)) => {
                            let found_bytes = partial.position;
                            HubError::CutShort { file: name.to_string(), expected_bytes, found_bytes }
                        }
                        (error, _) => error,
                    };
                    self.pause(failures, error, listener)?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            match partial.wrong_hash(facts) {
                None => return partial.finish(&blob),
                // What lay there was of other bytes: from the start, once.
                Some(_) if continued => {
                    continued = false;
                    partial.restart()?;
                }
                Some(found) => {
                    partial.discard();
                    let (file, expected) = (name.to_string(), facts.etag.clone());
                    return Err(HubError::WrongHash { file, expected, found });
                }
            }
        }
    }

    /// One request for the bytes that are missing.
    fn continue_partial(
        &self,
        reference: &HubReference,
        url: &Url,
        name: &str,
        partial: &mut Partial,
        listener: Listener<'_>,
    ) -> Result<(), HubError> {
        if partial.size_bytes == Some(partial.position) {
            return Ok(());
        }
        let mut request = self.request(url);
        if partial.position > 0 {
            request.headers.push(("range", format!("bytes={}-", partial.position)));
        }
        let mut response = self.content.send(&request)?;
        match response.status {
            206 if partial.position > 0 && starts_at(&response, partial.position) => {}
            // The whole file, whatever was asked for.
            200 => partial.restart()?,
            206 | 416 if partial.position > 0 => {
                partial.restart()?;
                let reason = "it sent another part than was asked for".to_string();
                return Err(HttpError::BrokenOff { url: url.shown(), reason }.into());
            }
            _ => {
                let refused = self.refused(reference, reference.revision(), &response);
                let (repository, file) = (reference.repository().to_string(), name.to_string());
                return Err(refused.unwrap_or(HubError::NoFile { repository, file }));
            }
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = response.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            partial.append(&buffer[..count], name)?;
            let (done_bytes, size_bytes) = (partial.position, partial.size_bytes);
            tell(listener, Event::Bytes { name, done_bytes, size_bytes })?;
        }
        match partial.size_bytes {
            Some(expected_bytes) if partial.position < expected_bytes => {
                Err(HubError::CutShort { file: name.to_string(), expected_bytes, found_bytes: partial.position })
            }
            _ => Ok(()),
        }
    }
}

/// Whether a part begins where it was asked to: `Content-Range: bytes 5-9/10`.
fn starts_at(response: &Response, position: u64) -> bool {
    let start = response.header("content-range").and_then(|range| range.trim().strip_prefix("bytes "));
    start.and_then(|range| range.split('-').next()?.trim().parse().ok()) == Some(position)
}

/// A file on its way, with the hash of what is there.
///
/// It is never made shorter while it grows: should a file system's locks not work and two processes write it at once,
/// both write the same bytes to the same places.
struct Partial {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    position: u64,
    size_bytes: Option<u64>,
}

impl Partial {
    fn open(path: PathBuf, facts: &FileFacts) -> Result<Self, HubError> {
        let failed = |error| HubError::io(&path, error);
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open().map_err(failed)?;
        let mut there = file.metadata().map_err(failed)?.len();
        if facts.size_bytes.is_some_and(|size| there > size) {
            fs::remove_file(&path).map_err(failed)?;
            file = open().map_err(failed)?;
            there = 0;
        }
        let mut hasher = Hasher::new(facts);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut position = 0;
        while position < there {
            let wanted = buffer.len().min((there - position) as usize);
            let count = file.read(&mut buffer[..wanted]).map_err(failed)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            position += count as u64;
        }
        Ok(Self { size_bytes: facts.size_bytes, path, file, hasher, position })
    }

    /// An error if the rest does not fit; no error where free space cannot be known.
    fn refuse_without_space(&self, name: &str) -> Result<(), HubError> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        let free_bytes = fs4::available_space(folder).ok();
        let needed_bytes = self.size_bytes.unwrap_or(0) - self.position.min(self.size_bytes.unwrap_or(0));
        match free_bytes.filter(|free| *free < needed_bytes) {
            Some(free_bytes) => {
                let (file, folder) = (name.to_string(), folder.to_path_buf());
                Err(HubError::NoSpace { file, folder, needed_bytes, free_bytes })
            }
            None => Ok(()),
        }
    }

    fn append(&mut self, bytes: &[u8], name: &str) -> Result<(), HubError> {
        let limit_bytes = self.size_bytes.unwrap_or(LARGEST_FILE_BYTES);
        let size_bytes = self.position + bytes.len() as u64;
        if size_bytes > limit_bytes {
            return Err(HubError::TooLarge { file: name.to_string(), size_bytes, limit_bytes });
        }
        self.file.write_all(bytes).map_err(|error| HubError::io(&self.path, error))?;
        self.hasher.update(bytes);
        self.position = size_bytes;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.file.seek(SeekFrom::Start(0)).map_err(|error| HubError::io(&self.path, error))?;
        self.hasher.reset();
        self.position = 0;
        Ok(())
    }

    /// The hash, if it is not the one that was promised.
    fn wrong_hash(&self, facts: &FileFacts) -> Option<String> {
        self.hasher.clone().finish().filter(|found| *found != facts.etag)
    }

    fn discard(self) {
        // The next run would continue it otherwise; if it cannot be removed, that run finds the wrong hash again.
        let _ = fs::remove_file(&self.path);
    }

    /// Gives the file its place, once its bytes are on the disk.
    fn finish(self, blob: &std::path::Path) -> Result<(), HubError> {
        let failed = |error| HubError::io(&self.path, error);
        self.file.set_len(self.position).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.path, blob).map_err(failed)
    }
}

/// The hash that an etag is.
#[derive(Clone)]
enum Hasher {
    /// Of large files.
    Sha256(Sha256),
    /// git's, of small ones: over `blob SIZE\0` and the bytes.
    Git(Sha1, u64),
    /// An etag that says nothing about the bytes, or a size that is not known.
    Nothing,
}

impl Hasher {
    fn new(facts: &FileFacts) -> Self {
        let hexadecimal = facts.etag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match (facts.etag.len(), facts.size_bytes) {
            (64, _) if hexadecimal => Self::Sha256(Sha256::new()),
            (40, Some(size_bytes)) if hexadecimal => {
                let mut hasher = Self::Git(Sha1::new(), size_bytes);
                hasher.reset();
                hasher
            }
            _ => Self::Nothing,
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Sha256(hasher) => *hasher = Sha256::new(),
            Self::Git(hasher, size_bytes) => *hasher = Sha1::new_with_prefix(format!("blob {size_bytes}\0")),
            Self::Nothing => {}
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher, _) => hasher.update(bytes),
            Self::Nothing => {}
        }
    }

    fn finish(self) -> Option<String> {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => Some(hexadecimal(&hasher.finalize())),
            Self::Git(hasher, _) => Some(hexadecimal(&hasher.finalize())),
            Self::Nothing => None,
        }
    }
}
