//! Units of a Zarr store: a shard of each array of a scene. A unit is made as a small store of its own in a hidden folder,
//! by the code that makes whole ones; then its objects are moved to their places, each at once, and the marker follows.
//!
//! ```text
//! OUT.zarr/GROUP/embeddings/c/0/0/ROW/COLUMN    objects of one unit alone
//!          GROUP/zarr.json, GROUP/x/c/0, ...    objects of several units, all of which write the same bytes
//!          .dinov3/parts/UNIT.zarr/             a unit before its objects are moved
//!          .dinov3/parts/UNIT.json              its metadata and provenance, from which `merge` makes those of the store
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};

use anyhow::{Context, Result};
use dinov3::sink::{EmbeddingLayout, MergedStore, ShardPlace, WorkUnit, move_file, remove_journal};

use crate::scene::store::{FileFacts, PARTS, Store, files_below, remove_file_or_folder};

/// Where a unit is made.
pub fn part_of(unit: &str) -> String {
    format!("{PARTS}/{unit}.zarr")
}

/// The metadata and the provenance of a unit's part.
pub fn metadata_of(unit: &str) -> String {
    format!("{PARTS}/{unit}.json")
}

/// Makes room for a unit. A part that a killed process left is replaced later, unless its removal had begun.
pub fn prepare(store: &Store, unit: &str) -> Result<()> {
    let part = store.workplace(&part_of(unit));
    if let Some(folder) = part.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    match part.join(MergedStore::METADATA).exists() {
        true => Ok(()),
        false => remove_file_or_folder(&part).with_context(|| part.display().to_string()),
    }
}

/// Removes what is left of a unit that is there.
pub fn forget(store: &Store, unit: &str) {
    let part = store.workplace(&part_of(unit));
    // Only room on the disk, and maybe someone else's by now.
    let _ = remove_file_or_folder(&part);
    let _ = remove_journal(&part);
}

/// Brings the objects of a unit to their places, and says what is there of it now.
pub fn deliver(
    store: &Store,
    unit: &WorkUnit,
    shard: &ShardPlace,
    layout: &EmbeddingLayout,
) -> Result<BTreeMap<String, FileFacts>> {
    let part = store.workplace(&part_of(&unit.unit));
    let names = files_below(&part, "")?;
    // Of a version of the scene that had data there.
    for gone in shard.objects(layout).iter().filter(|object| names.binary_search(object).is_err()) {
        store.remove(gone)?;
    }
    let mut files = BTreeMap::new();
    for name in names.into_iter().filter(|name| name != MergedStore::METADATA) {
        let path = part.join(&name);
        let facts = FileFacts::of(&path)?;
        match store {
            Store::Folder(folder) => move_file(&path, &folder.join(&name))?,
            Store::Objects { objects, .. } => {
                let file = File::open(&path).with_context(|| path.display().to_string())?;
                objects.put_from(&name, file)?;
            }
        }
        files.insert(name, facts);
    }
    let path = part.join(MergedStore::METADATA);
    let metadata = fs::read(&path).with_context(|| path.display().to_string())?;
    let name = metadata_of(&unit.unit);
    store.put(&name, &metadata)?;
    files.insert(name, FileFacts::of_content(&metadata));
    remove_file_or_folder(&part).with_context(|| part.display().to_string())?;
    Ok(files)
}
