//! From a path to mapped safetensors files and the table of what they store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dinov3_model::weights::WeightsError;
use dinov3_system::memory_map::MappedFile;
use safetensors::tensor::{Dtype, SafeTensors};

/// Largest header or index that is parsed. The 7B's header is below 0.1 MB.
const LARGEST_HEADER_BYTES: u64 = 16 << 20;
/// Largest number of tensors in one file; the 7B has about 600.
const MOST_TENSORS: usize = 20_000;

/// One tensor as stored.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Index of its file in [`FileSet::paths`].
    pub file: usize,
    /// Stored type.
    pub dtype: Dtype,
    /// Stored shape.
    pub shape: Vec<usize>,
    /// Position of its first byte in the file.
    pub offset_bytes: usize,
}

/// The files of a checkpoint and what they store. Clones share the mappings.
#[derive(Clone)]
pub struct FileSet {
    /// What the user named.
    pub name: PathBuf,
    /// The safetensors files.
    pub paths: Vec<PathBuf>,
    /// Every tensor by its stored name.
    pub tensors: BTreeMap<String, StoredTensor>,
    pub(crate) maps: Vec<MappedFile>,
}

impl FileSet {
    /// The bytes of a file.
    pub(crate) fn bytes(&self, file: usize) -> &[u8] {
        &self.maps[file]
    }

    /// A file's name for messages.
    pub(crate) fn file_name(&self, file: usize) -> String {
        self.paths[file].display().to_string()
    }
}

fn malformed(path: &Path, reason: impl Into<String>) -> WeightsError {
    WeightsError::Malformed { file: path.display().to_string(), reason: reason.into() }
}

fn io_error(path: &Path, source: std::io::Error) -> WeightsError {
    WeightsError::Io { file: path.display().to_string(), source }
}

/// Opens a safetensors file, a `model.safetensors.index.json`, or a folder with either.
///
/// # Errors
/// If nothing usable is there, or a file is malformed; the file is named.
pub fn open_files(path: &Path) -> Result<FileSet, WeightsError> {
    let information = std::fs::metadata(path).map_err(|error| io_error(path, error))?;
    let target = if information.is_dir() { file_in_folder(path)? } else { path.to_path_buf() };
    let mut set = FileSet { name: path.to_path_buf(), paths: Vec::new(), tensors: BTreeMap::new(), maps: Vec::new() };
    if target.extension().is_some_and(|extension| extension == "json") {
        open_shards(&target, &mut set)?;
    } else if target.extension().is_some_and(|extension| extension == "pth" || extension == "pt" || extension == "bin")
    {
        return Err(malformed(
            &target,
            "PyTorch pickles are not read yet; convert with safetensors.torch.save_file, or use the safetensors \
             file of the timm or facebook repository",
        ));
    } else {
        for (name, tensor) in read_file(&target, 0, &mut set)? {
            set.tensors.insert(name, tensor);
        }
    }
    Ok(set)
}

/// `model.safetensors.index.json`, `model.safetensors`, or the folder's only safetensors file.
fn file_in_folder(folder: &Path) -> Result<PathBuf, WeightsError> {
    for name in ["model.safetensors.index.json", "model.safetensors"] {
        let candidate = folder.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    let entries = std::fs::read_dir(folder).map_err(|error| io_error(folder, error))?;
    let found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([only]) => Ok(only),
        Err(found) if found.is_empty() => Err(malformed(
            folder,
            "the folder holds no model.safetensors, no model.safetensors.index.json and no other safetensors file",
        )),
        Err(found) => {
            Err(malformed(folder, format!("the folder holds {} safetensors files and no index; name one", found.len())))
        }
    }
}

fn open_shards(index: &Path, set: &mut FileSet) -> Result<(), WeightsError> {
    let size = std::fs::metadata(index).map_err(|error| io_error(index, error))?.len();
    if size > LARGEST_HEADER_BYTES {
        return Err(malformed(index, format!("the index is {size} bytes, above the limit of {LARGEST_HEADER_BYTES}")));
    }
    let text = std::fs::read_to_string(index).map_err(|error| io_error(index, error))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| malformed(index, format!("not JSON: {error}")))?;
    let weight_map =
        json.get("weight_map").and_then(|map| map.as_object()).ok_or_else(|| malformed(index, "no \"weight_map\""))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, file) in weight_map {
        let file = file.as_str().ok_or_else(|| malformed(index, format!("the file of {tensor} is not a text")))?;
        // A shard lies beside its index: no way out of the folder.
        if file.is_empty() || file.contains(['/', '\\']) || file == ".." {
            return Err(malformed(index, format!("\"{file}\" is not the name of a file beside the index")));
        }
        shards.entry(file).or_default().push(tensor);
    }
    for (number, (file, expected)) in shards.into_iter().enumerate() {
        let path = folder.join(file);
        let mut found = read_file(&path, number, set)?;
        for tensor in expected {
            let stored = found
                .remove(tensor)
                .ok_or_else(|| malformed(&path, format!("{tensor} is not in it, though the index says so")))?;
            set.tensors.insert(tensor.to_string(), stored);
        }
        if let Some(tensor) = found.keys().next() {
            return Err(malformed(&path, format!("{tensor} is in it, but not in {}", index.display())));
        }
    }
    if set.paths.is_empty() {
        return Err(malformed(index, "the weight map is empty"));
    }
    Ok(())
}

/// Maps one file and reads its header.
fn read_file(path: &Path, number: usize, set: &mut FileSet) -> Result<BTreeMap<String, StoredTensor>, WeightsError> {
    let map = MappedFile::open(path).map_err(|error| io_error(path, error))?;
    if map.starts_with(b"version https://git-lfs") {
        return Err(malformed(path, "this is a Git LFS pointer, not the file itself; run 'git lfs pull'"));
    }
    let announced = map.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if announced > LARGEST_HEADER_BYTES {
        let reason = format!(
            "not a safetensors file, or a damaged one: its header would be {announced} bytes, above the limit of \
             {LARGEST_HEADER_BYTES}"
        );
        return Err(malformed(path, reason));
    }
    let (header_bytes, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
        let hint = match error {
            safetensors::SafeTensorError::MetadataIncompleteBuffer => " (is the file cut short?)",
            _ => "",
        };
        malformed(path, format!("not a well-formed safetensors file: {error}{hint}"))
    })?;
    let tensors = metadata.tensors();
    if tensors.len() > MOST_TENSORS {
        return Err(malformed(path, format!("{} tensors, above the limit of {MOST_TENSORS}", tensors.len())));
    }
    let stored = tensors.into_iter().map(|(name, info)| {
        let offset_bytes = 8 + header_bytes + info.data_offsets.0;
        (name, StoredTensor { file: number, dtype: info.dtype, shape: info.shape.clone(), offset_bytes })
    });
    let stored = stored.collect();
    set.paths.push(path.to_path_buf());
    set.maps.push(map);
    Ok(stored)
}
