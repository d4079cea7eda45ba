//! The cache's layout, which is huggingface_hub's:
//!
//! ```text
//! .locks/models--org--name/<etag>.lock
//! models--org--name/blobs/<etag>              the bytes; the etag of a large file is its SHA-256
//! models--org--name/blobs/<etag>.incomplete   what has come of them
//! models--org--name/refs/<revision>           the commit that a branch or tag meant last
//! models--org--name/snapshots/<commit>/<file> -> ../../blobs/<etag>
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::HubError;
use crate::reference::{HubReference, is_commit};

/// Longest content of a `refs` file that is looked at.
const LONGEST_REF_BYTES: u64 = 256;
/// Time between two looks at a lock that another process holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// One repository's part of the cache.
pub(crate) struct RepositoryCache {
    root: PathBuf,
    folder_name: String,
}

impl RepositoryCache {
    pub(crate) fn new(cache: &Path, reference: &HubReference) -> Self {
        let folder_name = format!("models--{}", reference.repository().replace('/', "--"));
        Self { root: cache.to_path_buf(), folder_name }
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.folder_name)
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(etag)
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// The commit that a revision meant when it was last asked for.
    pub(crate) fn known_commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_string());
        }
        let path = self.folder().join("refs").join(revision);
        let information = fs::metadata(&path).ok()?;
        if !information.is_file() || information.len() > LONGEST_REF_BYTES {
            return None;
        }
        let commit = fs::read_to_string(path).ok()?.trim().to_string();
        is_commit(&commit).then_some(commit)
    }

    /// A file of a snapshot, if its bytes are there.
    pub(crate) fn file(&self, commit: &str, name: &str) -> Option<(PathBuf, u64)> {
        let path = self.snapshot(commit).join(name);
        let information = fs::metadata(&path).ok()?;
        information.is_file().then_some((path, information.len()))
    }

    /// Makes the folders.
    pub(crate) fn create(&self, commit: &str) -> Result<(), HubError> {
        let locks = self.root.join(".locks").join(&self.folder_name);
        for folder in [self.folder().join("blobs"), self.snapshot(commit), locks] {
            fs::create_dir_all(&folder).map_err(|error| HubError::io(&folder, error))?;
        }
        // https://bford.info/cachedir/: backups leave the folder out. Not having it is no failure.
        if let Ok(mut tag) = File::create_new(self.root.join("CACHEDIR.TAG")) {
            let _ = tag.write_all(b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of the Hugging Face Hub.\n");
        }
        Ok(())
    }

    /// Records what a revision meant. It is only written where it changes: a cache may be read-only.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit || self.known_commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder().join("refs").join(revision);
        let failed = |error| HubError::io(&path, error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let temporary = beside(&path, "tmp");
        fs::write(&temporary, commit).map_err(failed)?;
        fs::rename(&temporary, &path).map_err(failed)
    }

    /// Takes the lock of a blob, asking `wait` each time that another process has it.
    pub(crate) fn lock(&self, etag: &str, wait: &mut dyn FnMut() -> Result<(), HubError>) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder_name).join(format!("{etag}.lock"));
        let failed = |error| HubError::io(&path, error);
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
            match file.try_lock() {
                // Whoever had it may have removed the file: then this one locks nothing.
                Ok(()) if is_still(&file, &path) => return Ok(file),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    wait()?;
                    std::thread::sleep(LOCK_INTERVAL);
                }
                // File systems without locks: the download is then merely not shared.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// Puts a blob into a snapshot: as a link, or where there are none, by moving it there if it is new and copying
    /// it if it is not. So does huggingface_hub.
    pub(crate) fn link(&self, etag: &str, commit: &str, name: &str, links: bool, new: bool) -> Result<(), HubError> {
        let (blob, pointer) = (self.blob(etag), self.snapshot(commit).join(name));
        let failed = |error| HubError::io(&pointer, error);
        if links {
            let temporary = beside(&pointer, "link");
            match symlink(&Path::new("../../blobs").join(etag), &temporary) {
                Ok(()) => return fs::rename(&temporary, &pointer).map_err(failed),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(failed(error)),
                // No links on this file system, or no right to make them.
                Err(_) => {}
            }
        }
        if new {
            return fs::rename(&blob, &pointer).map_err(failed);
        }
        let temporary = beside(&pointer, "copy");
        let copied = fs::copy(&blob, &temporary).and_then(|_| fs::rename(&temporary, &pointer));
        copied.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(error)
        })
    }
}

/// A name of this process beside `path`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{}.{ending}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(held), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
fn is_still(_: &File, _: &Path) -> bool {
    // An open file cannot be removed.
    true
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    let target: PathBuf = target.components().collect();
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
