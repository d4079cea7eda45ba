//! Folders that appear whole or not at all.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::atomic::{Temporary, clear_folder_once, content_of, target_of};
use crate::disk::{self, DiskFile, folder_of};
use crate::error::OutputError;

/// A folder that appears under its name, whole and on disk, when [`AtomicFolder::commit`] is called, in the place of the
/// output that was there. Dropped before that, it leaves nothing behind, and what was there stays.
///
/// Until then its content is in a hidden folder beside it, named after a hidden locked file as [`AtomicFile`] has one;
/// what a killed process leaves of both is removed by the next one.
///
/// Where the system can exchange two names (Linux), the old output is there until the new one is. Elsewhere the old
/// one is moved aside first: a process that is killed just then leaves it as `.NAME.dinov3-PID-N.tmp.old`, and the next one
/// puts it back.
///
/// [`AtomicFile`]: crate::AtomicFile
pub(crate) struct AtomicFolder {
    /// As the user said it.
    path: PathBuf,
    target: PathBuf,
    /// What it is made in.
    content: PathBuf,
    /// Folders that were made, `content` among them.
    folders: BTreeSet<PathBuf>,
    /// Removed after the folder.
    lock: Temporary,
}

impl std::fmt::Debug for AtomicFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AtomicFolder").field("path", &self.path).field("content", &self.content).finish()
    }
}

impl AtomicFolder {
    /// Starts a folder. What can be known to go wrong at the end goes wrong here.
    pub(crate) fn create(path: &Path) -> Result<Self, OutputError> {
        let path = path.to_owned();
        let target = target_of(&path)?;
        clear_folder_once(&folder_of(&target));
        let failed = |source| OutputError::create(&path, &target, source);
        let lock = Temporary::beside(&target).map_err(failed)?;
        let content = content_of(lock.path());
        // Left by a killed process that had the same id.
        remove_folder(&content).map_err(failed)?;
        disk::create_folder(&content).map_err(failed)?;
        let folders = BTreeSet::from([content.clone()]);
        Ok(Self { path, target, content, folders, lock })
    }

    /// The output, as the user said it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A new file in it, by a relative path with `/`.
    pub(crate) fn create_file(&mut self, name: &str) -> Result<DiskFile, OutputError> {
        let mut place = self.content.clone();
        let mut create = || {
            let mut parts = name.split('/').peekable();
            while let Some(part) = parts.next() {
                place.push(part);
                if parts.peek().is_some() && !self.folders.contains(&place) {
                    disk::create_folder(&place)?;
                    self.folders.insert(place.clone());
                }
            }
            DiskFile::create_new(&place)
        };
        create().map_err(OutputError::write(&self.path))
    }

    /// Makes it appear. Its files are on disk already.
    pub(crate) fn commit(self) -> Result<(), OutputError> {
        for folder in &self.folders {
            disk::sync_folder(folder);
        }
        let result = match fs::symlink_metadata(&self.target) {
            Ok(_) => self.replace(),
            Err(_) => disk::rename(&self.content, &self.target),
        };
        result.map_err(|source| OutputError::Commit { path: self.path.clone(), source })?;
        disk::sync_folder(&folder_of(&self.target));
        // The old one goes with `self`.
        Ok(())
    }

    fn replace(&self) -> io::Result<()> {
        match disk::exchange(&self.content, &self.target) {
            // Not every file system can.
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) => {}
            done => return done,
        }
        let old = old_of(&self.content);
        disk::rename(&self.target, &old)?;
        if let Err(error) = disk::rename(&self.content, &self.target) {
            disk::rename(&old, &self.target)?;
            return Err(error);
        }
        Ok(())
    }
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        // The old output too, wherever it is. What cannot be removed now, a later run finds by the file.
        if remove_abandoned_folder(&self.content, Some(&self.target)).is_err() {
            self.lock.leave();
        }
    }
}

/// Moves a finished file within a file system, over what is there, and makes folders on the way. Afterwards a power failure
/// cannot undo it.
///
/// # Errors
/// If a folder cannot be made, or the file cannot be moved.
pub fn move_file(from: &Path, to: &Path) -> Result<(), OutputError> {
    let folder = folder_of(to);
    let result = create_folders(&folder).and_then(|()| disk::rename(from, to));
    result.map_err(|source| OutputError::Commit { path: to.to_owned(), source })?;
    disk::sync_folder(&folder);
    Ok(())
}

/// Others may make the same at the same time.
fn create_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder_of(folder);
    create_folders(&parent)?;
    match disk::create_folder(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => {
            disk::sync_folder(&parent);
            Ok(())
        }
    }
}

/// Where the old output waits while the new one is put in its place.
fn old_of(content: &Path) -> PathBuf {
    content.with_extension("old")
}

/// Removes what a killed process left of the folder `content`, or puts back the old output that it had moved aside.
pub(crate) fn remove_abandoned_folder(content: &Path, target: Option<&Path>) -> io::Result<()> {
    let old = old_of(content);
    if fs::symlink_metadata(&old).is_ok() {
        match target {
            Some(target) if fs::symlink_metadata(target).is_err() => disk::rename(&old, target)?,
            Some(_) => remove_folder(&old)?,
            // The only copy, perhaps.
            None => return Err(io::ErrorKind::NotFound.into()),
        }
    }
    remove_folder(content)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match disk::remove_folder(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
