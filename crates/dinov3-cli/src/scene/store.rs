//! Where a job's results go: a folder of this machine, or the objects of a store whose keys begin alike.
//!
//! ```text
//! OUT/UNIT.parquet                  the data of a unit; or UNIT.tif, UNIT.zarr/: see `form`
//! OUT/UNIT.json                     its STAC item
//! OUT/collection.json               the STAC collection
//! OUT/.dinov3/plan.parquet          the work list
//! OUT/.dinov3/units/UNIT.json       what is there of a unit: written last
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dinov3::checkpoint::hash::{StreamHash, sha256};
use dinov3::sink::{AtomicFile, MergedStore, is_store_name};
use dinov3_scene::raster::{Opener, RasterError, StoreFolder, redacted};
use dinov3_stac::path_of_uri;
use serde::{Deserialize, Serialize};

use crate::failure::usage;
use crate::scene::form::Form;
use crate::setup::extension;

/// The STAC collection.
pub const COLLECTION: &str = "collection.json";
/// The copy of the work list.
pub const PLAN: &str = ".dinov3/plan.parquet";
const HIDDEN: &str = ".dinov3/units";
/// Parts of a Zarr store that units are made as.
pub const PARTS: &str = ".dinov3/parts";
/// A document that is longer is none of ours.
const LONGEST_DOCUMENT_BYTES: u64 = 64 << 20;

/// Where results go.
pub enum Store {
    Folder(PathBuf),
    Objects {
        objects: StoreFolder,
        /// For what is unfinished.
        scratch: PathBuf,
    },
}

/// Whether results of this name go into a folder or a store, and not into one file.
pub fn is_store(output: &Path) -> bool {
    let text = output.to_string_lossy();
    is_remote(output)
        || text.ends_with(std::path::is_separator)
        || output.is_dir()
        || (output.extension().is_none() && !output.exists())
}

pub fn is_remote(output: &Path) -> bool {
    output.to_string_lossy().contains("://")
}

/// A `file://` URL as the path that it is.
pub fn without_file_scheme(path: PathBuf) -> PathBuf {
    path.to_str().and_then(path_of_uri).map_or(path, PathBuf::from)
}

/// Refuses the name of one file, or of one Zarr store, that is not on a disk of this machine; `what` is written.
pub fn check_on_disk(output: &Path, what: &str) -> Result<()> {
    let remote = is_remote(output).then(|| redacted(&output.to_string_lossy()));
    remote.map_or(Ok(()), |shown| Err(usage(format!("{shown}: {what} is written to a disk of this machine"))))
}

/// Refuses what looks like one, and is in an object store, where results have a prefix.
pub fn check_place(output: &Path) -> Result<()> {
    let is_one = ["parquet", "zarr", "tif", "tiff"].contains(&extension(output).as_str());
    if is_remote(output) && is_one && !output.to_string_lossy().ends_with('/') {
        let shown = redacted(&output.to_string_lossy());
        return Err(usage(format!(
            "{shown}: one file is written to a disk of this machine; in an object store, name a prefix, s3://BUCKET/PREFIX/, \
             under which every scene gets files of its own"
        )));
    }
    Ok(())
}

impl Store {
    /// Prepares a place for results.
    pub fn create(output: &Path, opener: &Opener, scratch: Option<&Path>) -> Result<Self> {
        let store = Self::open(output, opener, scratch)?;
        if let Self::Folder(folder) = &store {
            let hidden = folder.join(HIDDEN);
            fs::create_dir_all(&hidden).with_context(|| hidden.display().to_string())?;
        }
        Ok(store)
    }

    /// The same for one that is there.
    pub fn open(output: &Path, opener: &Opener, scratch: Option<&Path>) -> Result<Self> {
        if !is_remote(output) {
            // Without a slash at its end, or two in it.
            let folder: PathBuf = output.components().collect();
            if let Some(file) = folder.ancestors().find(|place| place.is_file()) {
                return Err(usage(format!("{} is a file, and results go into a folder", file.display())));
            }
            return Ok(Self::Folder(folder));
        }
        let text = output.to_string_lossy();
        let (scheme, place) = text.split_once("://").unwrap_or_default();
        let parts: Vec<&str> = place.split('/').filter(|part| !part.is_empty()).collect();
        let objects = opener
            .store_folder(&format!("{scheme}://{}", parts.join("/")))
            .map_err(|error| usage(error.to_string()))?;
        let scratch = match scratch {
            Some(folder) => folder.to_path_buf(),
            None => {
                // Found again by the next run; and nobody else can put a link there, as into the folder for temporary files.
                let name = &sha256(objects.shown().as_bytes())[..16];
                let Some(cache) = own_scratch() else {
                    return Err(usage(
                        "--scratch: name a folder for what is unfinished; this user has no folder for caches",
                    ));
                };
                let folder = cache.join(name);
                eprintln!("note: what is unfinished is kept in {} (--scratch)", folder.display());
                folder
            }
        };
        fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
        Ok(Self::Objects { objects, scratch })
    }

    /// For messages.
    pub fn shown(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Objects { objects, .. } => objects.shown().to_owned(),
        }
    }

    /// The last part of its name.
    pub fn name(&self) -> String {
        let path = match self {
            Self::Folder(folder) => folder.canonicalize().unwrap_or_else(|_| folder.clone()),
            Self::Objects { objects, .. } => PathBuf::from(objects.shown()),
        };
        path.file_name().map_or_else(|| "embeddings".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// The folder, if it is one of this machine.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Objects { .. } => None,
        }
    }

    /// Where a file of this name is made, with its journal beside it: in its place, or on the way there.
    pub fn workplace(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(name),
            Self::Objects { scratch, .. } => scratch.join(name),
        }
    }

    /// Brings what was made in its workplace, a file or a Zarr store, to its place, and says which files are there now.
    pub fn deliver(&self, name: &str) -> Result<BTreeMap<String, FileFacts>> {
        let made = self.workplace(name);
        let mut names = match made.is_dir() {
            true => files_below(&made, name)?,
            false => vec![name.to_owned()],
        };
        if let Self::Objects { objects, .. } = self {
            if made.is_dir() {
                // What an earlier version had and this one has not would be read with it. Without its root it is no store.
                let root = format!("{name}/{}", MergedStore::METADATA);
                let earlier = objects.names_below(name)?;
                if earlier.contains(&root) {
                    objects.remove(&root)?;
                }
                let is_gone = |earlier: &&String| **earlier != root && !names.contains(earlier);
                earlier.iter().filter(is_gone).try_for_each(|gone| objects.remove(gone))?;
                names.sort_by_key(|name| *name == root);
            }
            for name in &names {
                let path = self.workplace(name);
                let file = File::open(&path).with_context(|| path.display().to_string())?;
                objects.put_from(name, file)?;
            }
        }
        let facts = |name: String| FileFacts::of(&self.workplace(&name)).map(|facts| (name, facts));
        names.into_iter().map(facts).collect()
    }

    /// Removes what is in the workplace and was delivered elsewhere.
    pub fn clear_workplace(&self, name: &str) {
        if let Self::Objects { .. } = self {
            // Only room on the disk.
            let _ = remove_file_or_folder(&self.workplace(name));
        }
    }

    /// Writes a document, whole or not at all.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let mut file = AtomicFile::create(&path)?;
                file.write_all(content).with_context(|| path.display().to_string())?;
                Ok(file.commit()?)
            }
            Self::Objects { objects, .. } => Ok(objects.put(name, content.to_vec())?),
        }
    }

    /// A document; nothing if there is none.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let read = || -> io::Result<Vec<u8>> {
                    let mut content = Vec::new();
                    File::open(&path)?.take(LONGEST_DOCUMENT_BYTES).read_to_end(&mut content)?;
                    Ok(content)
                };
                match read() {
                    Ok(content) => Ok(Some(content)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error).with_context(|| path.display().to_string()),
                }
            }
            Self::Objects { objects, .. } => Ok(objects.get(name, LONGEST_DOCUMENT_BYTES)?),
        }
    }

    /// The length of a file; nothing if there is none.
    pub fn size_bytes(&self, name: &str) -> Result<Option<u64>> {
        match self {
            Self::Folder(folder) => match fs::metadata(folder.join(name)) {
                Ok(found) => Ok(Some(found.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| folder.join(name).display().to_string()),
            },
            Self::Objects { objects, .. } => Ok(objects.size_bytes(name)?),
        }
    }

    /// The SHA-256 of a file that is there, all of which is read.
    pub fn sha256(&self, name: &str) -> Result<String> {
        match self {
            Self::Folder(folder) => sha256_of(&folder.join(name)),
            Self::Objects { objects, .. } => {
                let mut hash = StreamHash::default();
                objects.read(name, |part| -> Result<(), RasterError> {
                    hash.update(part);
                    Ok(())
                })?;
                Ok(hash.finish())
            }
        }
    }

    /// Writes a file with `write`, which is given a path of this machine, and brings it to its place. Several processes may do
    /// so at once: the last one wins.
    pub fn put_written(&self, name: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.with_own_file(name, |path| {
            write(path)?;
            if let Self::Objects { objects, .. } = self {
                objects.put_from(name, File::open(path).with_context(|| path.display().to_string())?)?;
            }
            Ok(())
        })
    }

    /// Reads a file that is there with `read`, which is given a path of this machine.
    pub fn read_with<T>(&self, name: &str, read: impl FnOnce(&Path) -> T) -> Result<T> {
        self.with_own_file(name, |path| {
            if let Self::Objects { objects, .. } = self {
                copy(objects, name, path)?;
            }
            Ok(read(path))
        })
    }

    /// The place of a file in a folder; else a path in the scratch folder that is this process's alone, and removed afterwards.
    fn with_own_file<T>(&self, name: &str, run: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let path = match self {
            Self::Folder(folder) => folder.join(name),
            Self::Objects { scratch, .. } => scratch.join(format!("{name}.{}", std::process::id())),
        };
        create_folder_of(&path)?;
        let result = run(&path);
        if let Self::Objects { .. } = self {
            // Only room on the disk.
            let _ = fs::remove_file(&path);
        }
        result
    }

    /// A file of this machine with this content: itself, or a copy in the scratch folder.
    pub fn fetched(&self, name: &str) -> Result<PathBuf> {
        let path = self.workplace(name);
        if let Self::Objects { objects, .. } = self {
            create_folder_of(&path)?;
            copy(objects, name, &path)?;
        }
        Ok(path)
    }

    /// Removes all of a unit that is in it: first what says that it is there, last the data, by which it is found if this is
    /// interrupted.
    pub fn remove_unit(&self, form: Form, unit: &str) -> Result<()> {
        self.remove_documents(unit)?;
        form.files_of(unit).iter().rev().try_for_each(|name| self.remove_data(name))
    }

    /// Removes what says that a unit is there: its marker and its STAC item.
    pub fn remove_documents(&self, unit: &str) -> Result<()> {
        [marker_of(unit), item_of(unit)].iter().try_for_each(|name| self.remove(name))
    }

    /// Removes a file or a Zarr store, if it is there.
    pub fn remove_data(&self, name: &str) -> Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                remove_file_or_folder(&path).with_context(|| path.display().to_string())
            }
            Self::Objects { objects, .. } if is_store_name(Path::new(name)) => {
                objects.names_below(name)?.iter().try_for_each(|name| Ok(objects.remove(name)?))
            }
            Self::Objects { objects, .. } => Ok(objects.remove(name)?),
        }
    }

    /// Whether a file or a Zarr store is there.
    pub fn has_data(&self, name: &str) -> Result<bool> {
        match is_store_name(Path::new(name)) {
            true => Ok(self.size_bytes(&format!("{name}/{}", MergedStore::METADATA))?.is_some()),
            false => Ok(self.size_bytes(name)?.is_some()),
        }
    }

    /// Removes a document, if it is there.
    pub fn remove(&self, name: &str) -> Result<()> {
        match self {
            Self::Folder(folder) => match fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| folder.join(name).display().to_string())
                }
                _ => Ok(()),
            },
            Self::Objects { objects, .. } => Ok(objects.remove(name)?),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Self::Objects { scratch, .. } = self
            && own_scratch().is_some_and(|own| scratch.starts_with(own))
        {
            // Unless something in it is unfinished.
            for folder in [&scratch.join(PARTS), &scratch.join(PLAN).with_file_name(""), scratch] {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

/// Where the scratch folders are that nobody named.
fn own_scratch() -> Option<PathBuf> {
    dinov3::system::cache_directory().map(|cache| cache.join("scratch"))
}

fn create_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Copies an object to a file of this machine, whole or not at all.
fn copy(objects: &StoreFolder, name: &str, path: &Path) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    objects.read(name, |part| -> Result<()> { file.write_all(part).with_context(|| path.display().to_string()) })?;
    Ok(file.commit()?)
}

/// What a file is when it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    pub size_bytes: u64,
    pub sha256: String,
}

impl FileFacts {
    /// Of a file of this machine, which is read.
    pub fn of(path: &Path) -> Result<Self> {
        let size_bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
        Ok(Self { size_bytes, sha256: sha256_of(path)? })
    }

    /// Of what was just written.
    pub fn of_content(content: &[u8]) -> Self {
        Self { size_bytes: content.len() as u64, sha256: sha256(content) }
    }
}

/// All files below a folder in their order, by names with `/` that begin with this one, if it is not empty.
pub fn files_below(folder: &Path, name: &str) -> Result<Vec<String>> {
    fn add(folder: &Path, name: &str, names: &mut Vec<String>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let slash = if name.is_empty() { "" } else { "/" };
            let name = format!("{name}{slash}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => add(&entry.path(), &name, names)?,
                false => names.push(name),
            }
        }
        Ok(())
    }
    let mut names = Vec::new();
    add(folder, name, &mut names).with_context(|| folder.display().to_string())?;
    names.sort();
    Ok(names)
}

/// Removes a file, or a folder with all that is in it, if it is there.
pub fn remove_file_or_folder(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The SHA-256 of a file of this machine.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = StreamHash::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(|| path.display().to_string())? {
            0 => return Ok(hash.finish()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Where the marker of a unit is.
pub fn marker_of(unit: &str) -> String {
    format!("{HIDDEN}/{unit}.json")
}

/// The STAC item of a unit.
pub fn item_of(unit: &str) -> String {
    format!("{unit}.json")
}
