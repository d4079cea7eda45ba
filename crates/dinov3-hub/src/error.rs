//! Why a repository's weights are not there.

use std::io;
use std::path::PathBuf;

use dinov3_http::HttpError;

const TRY_LATER: &str = ": try again later";

/// Why weights cannot be had. Every message fits on a line and says what can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text that names no repository or revision.
    #[error("'{text}': {reason}; write hf-hub:org/name or hf-hub:org/name@revision")]
    BadReference {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An environment variable that cannot be meant.
    #[error("{name}={value}: expected {expected}")]
    BadSetting {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it could be.
        expected: &'static str,
    },
    /// No place for a cache.
    #[error("no folder for downloads is known: set HF_HOME")]
    NoHome,
    /// Nothing in the cache, and the network is switched off or away.
    #[error("{repository}@{revision} is not in the cache {cache}, and {reason}", cache = cache.display())]
    NotCached {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// Where was looked.
        cache: PathBuf,
        /// Why it is not downloaded, and what can be done.
        reason: String,
    },
    /// 401.
    #[error(
        "{page} is not open to {who} (401): check the name; if it is private, set HF_TOKEN or run 'hf auth login'{}",
        or_open_copy(open_copy)
    )]
    Unauthorized {
        /// The repository's page.
        page: String,
        /// With which token.
        who: &'static str,
        /// The same weights elsewhere.
        open_copy: Option<String>,
    },
    /// A repository whose terms must be accepted first.
    #[error(
        "{page} is gated ({status}): accept its terms on that page, then set HF_TOKEN or run 'hf auth login'{}",
        or_open_copy(open_copy)
    )]
    Gated {
        /// The repository's page.
        page: String,
        /// The status.
        status: u16,
        /// The same weights elsewhere.
        open_copy: Option<String>,
    },
    /// 403 for another reason.
    #[error(
        "{page} may not be read (403){}: check the rights of the token in HF_TOKEN{}",
        said(message),
        or_open_copy(open_copy)
    )]
    Forbidden {
        /// The repository's page.
        page: String,
        /// What the hub said.
        message: String,
        /// The same weights elsewhere.
        open_copy: Option<String>,
    },
    /// 404 for the repository.
    #[error("{page} does not exist (404): check the name of the repository")]
    NoRepository {
        /// Where its page would be.
        page: String,
    },
    /// 404 for the revision.
    #[error("{repository} has no revision '{revision}' (404){}", exist("revisions", known))]
    NoRevision {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// Its branches and tags, as far as they could be learned.
        known: Vec<String>,
    },
    /// 404 for everything that weights are kept in.
    #[error(
        "{repository}@{revision} has neither model.safetensors nor model.safetensors.index.json{}",
        exist("files", known)
    )]
    NoWeights {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// Its files, as far as they could be learned.
        known: Vec<String>,
    },
    /// A file that another one names is not there.
    #[error("{repository} has no {file} (404), though its index names it")]
    NoFile {
        /// The repository.
        repository: String,
        /// The file.
        file: String,
    },
    /// Any other status.
    #[error("{url} answers with status {status}{}{TRY_LATER}", said(message))]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
        /// What the hub said.
        message: String,
    },
    /// An answer that a hub does not give.
    #[error("{url} does not answer as a Hugging Face Hub does ({reason}): check HF_ENDPOINT and the proxy")]
    NotAHub {
        /// The URL.
        url: String,
        /// What is amiss.
        reason: String,
    },
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// An index that names no sound files.
    #[error("{file} of {repository}: {reason}")]
    BadIndex {
        /// The repository.
        repository: String,
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A file beyond any model of this family.
    #[error("{file} is {size_bytes} bytes, above the limit of {limit_bytes}")]
    TooLarge {
        /// The file.
        file: String,
        /// What was announced.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The file would not fit.
    #[error(
        "{file} needs {needed_bytes} more bytes and {folder} has {free_bytes} free: make room, or set HF_HOME to another disk",
        folder = folder.display()
    )]
    NoSpace {
        /// The file.
        file: String,
        /// Where it would go.
        folder: PathBuf,
        /// What is still to come.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// The disk filled up on the way.
    #[error(
        "the disk is full: {path} could not be written; make room and run again (it continues), or set HF_HOME to another disk",
        path = path.display()
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The answer ended early, each time.
    #[error("{file} came cut short: {found_bytes} of {expected_bytes} bytes; run again, it continues where it stopped")]
    CutShort {
        /// The file.
        file: String,
        /// The whole.
        expected_bytes: u64,
        /// What came.
        found_bytes: u64,
    },
    /// The bytes are not those that the hub promises.
    #[error(
        "{file} has the wrong hash: {found} instead of {expected}; it was thrown away, run again or check the proxy"
    )]
    WrongHash {
        /// The file.
        file: String,
        /// What the hub announced.
        expected: String,
        /// What the bytes give.
        found: String,
    },
    /// The caller had enough.
    #[error("the download was cancelled")]
    Cancelled,
}

impl HubError {
    /// What happened, without the advice for when it is the end.
    pub fn without_advice(&self) -> String {
        let text = self.to_string();
        match self {
            Self::Status { .. } => text.strip_suffix(TRY_LATER).map_or(text.clone(), str::to_owned),
            _ => text,
        }
    }

    /// Names a repository with the same weights that is open to everyone, for the messages of closed ones.
    #[must_use]
    pub fn with_open_copy(mut self, repository: &str) -> Self {
        if let Self::Unauthorized { open_copy, .. }
        | Self::Gated { open_copy, .. }
        | Self::Forbidden { open_copy, .. } = &mut self
        {
            *open_copy = Some(repository.to_string());
        }
        self
    }

    /// An error of the file system; a full disk is told apart.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, source },
        }
    }

    /// Whether another attempt may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Http(error) => error.is_transient(),
            Self::Status { status, .. } => dinov3_http::is_transient_status(*status),
            Self::CutShort { .. } => true,
            _ => false,
        }
    }

    /// Whether the hub could not be asked, or would not tell: then what the cache holds will do. A revision or a file
    /// that does not exist is an answer.
    pub(crate) fn leaves_the_cache(&self) -> bool {
        matches!(
            self,
            Self::Http(_)
                | Self::Status { .. }
                | Self::NotAHub { .. }
                | Self::Unauthorized { .. }
                | Self::Gated { .. }
                | Self::Forbidden { .. }
        )
    }
}

fn or_open_copy(repository: &Option<String>) -> String {
    match repository {
        Some(repository) => format!("; {repository} has the same weights for everyone: --weights hf-hub:{repository}"),
        None => String::new(),
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn exist(what: &str, known: &[String]) -> String {
    match known.is_empty() {
        true => String::new(),
        false => format!("; {what} that exist: {}", known.join(", ")),
    }
}
