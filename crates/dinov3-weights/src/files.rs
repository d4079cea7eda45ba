//! From a path to mapped files and the table of what they store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dinov3_model::weights::WeightsError;
use dinov3_system::memory_map::MappedFile;
use safetensors::tensor::{Dtype, SafeTensors};

use crate::torch;

/// Largest safetensors header or index that is parsed. The 7B's is below 0.1 MB; parsed, a hostile one takes up to
/// fifty times its size.
const MOST_HEADER_BYTES: usize = 1 << 20;
/// Largest number of tensors in one checkpoint; the 7B has about 600.
pub(crate) const MOST_TENSORS: usize = 10_000;
/// Largest number of files of one checkpoint: each is an open mapping.
const MOST_SHARDS: usize = 1000;

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
    /// The files, shards in order.
    pub paths: Vec<PathBuf>,
    /// Every tensor by its stored name.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// What a PyTorch checkpoint holds beside these tensors (an optimizer, a step count), and why it is not used.
    pub left_out: Vec<(String, &'static str)>,
    pub(crate) maps: Vec<MappedFile>,
}

impl FileSet {
    /// The bytes of a file.
    pub(crate) fn bytes(&self, file: usize) -> &[u8] {
        &self.maps[file]
    }

    /// Lets go of the mapped pages of a large range that was read. They stay in the system's page cache, but the
    /// process does not seem to hold a checkpoint that it only passes through.
    pub(crate) fn release(&self, file: usize, range: std::ops::Range<usize>) {
        const WORTH_A_CALL_BYTES: usize = 128 << 10;
        if range.len() >= WORTH_A_CALL_BYTES {
            self.maps[file].release(range);
        }
    }

    /// A file's name for messages.
    pub(crate) fn file_name(&self, file: usize) -> String {
        self.paths[file].display().to_string()
    }
}

/// What one file stores.
#[derive(Default)]
pub(crate) struct Contents {
    pub tensors: BTreeMap<String, StoredTensor>,
    pub left_out: Vec<(String, &'static str)>,
}

/// A refusal. Parsers quote what they met, which may be a text as long as the file: the reason stays a line.
pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> WeightsError {
    const LONGEST: usize = 400;
    let mut reason = reason.into();
    if let Some((end, _)) = reason.char_indices().nth(LONGEST) {
        reason.truncate(end);
        reason.push_str(" ...");
    }
    WeightsError::Malformed { file: path.display().to_string(), reason }
}

fn io_error(path: &Path, source: std::io::Error) -> WeightsError {
    WeightsError::Io { file: path.display().to_string(), source }
}

/// Opens a safetensors or PyTorch file, an index of shards, or a folder with either.
///
/// What a file is decides its content; only an index is told by its name (`.json`).
///
/// # Errors
/// If nothing usable is there, or a file is malformed; the file is named.
pub fn open_files(path: &Path) -> Result<FileSet, WeightsError> {
    let information = std::fs::metadata(path).map_err(|error| io_error(path, error))?;
    let target = if information.is_dir() { file_in_folder(path)? } else { path.to_path_buf() };
    let mut set = FileSet {
        name: path.to_path_buf(),
        paths: Vec::new(),
        tensors: BTreeMap::new(),
        left_out: Vec::new(),
        maps: Vec::new(),
    };
    if target.extension().is_some_and(|extension| extension == "json") {
        open_shards(&target, &mut set)?;
    } else {
        let contents = read_file(&target, &mut set)?;
        set.tensors = contents.tensors;
        set.left_out = contents.left_out;
    }
    Ok(set)
}

/// The file of a folder: safetensors before PyTorch's, the names that Hugging Face uses before any other.
fn file_in_folder(folder: &Path) -> Result<PathBuf, WeightsError> {
    const KNOWN: [&str; 4] =
        ["model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"];
    if let Some(file) = KNOWN.iter().map(|name| folder.join(name)).find(|file| file.is_file()) {
        return Ok(file);
    }
    let entries = std::fs::read_dir(folder).map_err(|error| io_error(folder, error))?;
    let files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    for extensions in [&["safetensors"][..], &["pth", "pt", "bin"]] {
        let of_kind =
            |file: &&PathBuf| file.extension().is_some_and(|found| extensions.iter().any(|name| found == *name));
        let found: Vec<&PathBuf> = files.iter().filter(of_kind).collect();
        match found.as_slice() {
            [] => {}
            [only] => return Ok((*only).clone()),
            several => {
                let (count, kind) = (several.len(), extensions.join(", "));
                return Err(malformed(
                    folder,
                    format!("the folder holds {count} files ({kind}) and no index; name one"),
                ));
            }
        }
    }
    Err(malformed(
        folder,
        "the folder holds no weights: no model.safetensors, no index and no .safetensors, .pth, .pt or .bin file",
    ))
}

/// What is needed of an index of shards.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Tensor to file, with the limit kept while reading.
struct WeightMap(BTreeMap<String, String>);

impl<'de> serde::Deserialize<'de> for WeightMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = WeightMap;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of tensors and their files")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, mut entries: M) -> Result<WeightMap, M::Error> {
                let mut map = BTreeMap::new();
                while let Some((tensor, file)) = entries.next_entry::<String, String>()? {
                    if map.len() == MOST_TENSORS {
                        return Err(serde::de::Error::custom(format!("more than {MOST_TENSORS} tensors")));
                    }
                    if let Some(_first) = map.insert(tensor.clone(), file) {
                        return Err(serde::de::Error::custom(format!("{tensor} is in it twice")));
                    }
                }
                Ok(WeightMap(map))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn open_shards(index: &Path, set: &mut FileSet) -> Result<(), WeightsError> {
    let text = MappedFile::open(index).map_err(|error| io_error(index, error))?;
    if text.len() > MOST_HEADER_BYTES {
        let reason = format!("the index is {} bytes, above the limit of {MOST_HEADER_BYTES}", text.len());
        return Err(malformed(index, reason));
    }
    let parsed: Index =
        serde_json::from_slice(&text).map_err(|error| malformed(index, format!("not an index: {error}")))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, file) in parsed.weight_map.0 {
        // A shard lies beside its index: no way out of the folder. A colon is a drive or a stream on Windows.
        let plain = !file.is_empty() && !file.contains(['/', '\\', ':', '\0']) && file != "." && file != "..";
        if !plain || index.file_name().is_some_and(|name| name == file.as_str()) {
            let file = file.escape_debug();
            return Err(malformed(index, format!("\"{file}\" is not the name of a weight file beside the index")));
        }
        shards.entry(file).or_default().push(tensor);
    }
    if shards.is_empty() {
        return Err(malformed(index, "the weight map is empty"));
    }
    if shards.len() > MOST_SHARDS {
        return Err(malformed(index, format!("{} shards, above the limit of {MOST_SHARDS}", shards.len())));
    }
    for (file, expected) in shards {
        let path = folder.join(file);
        let mut found = read_file(&path, set)?;
        for tensor in expected {
            let stored = found
                .tensors
                .remove(&tensor)
                .ok_or_else(|| malformed(&path, format!("{tensor} is not in it, though the index says so")))?;
            set.tensors.insert(tensor, stored);
        }
        if let Some(tensor) = found.tensors.keys().next() {
            return Err(malformed(&path, format!("{tensor} is in it, but not in {}", index.display())));
        }
        set.left_out.append(&mut found.left_out);
    }
    Ok(())
}

/// Maps one file and finds its tensors.
fn read_file(path: &Path, set: &mut FileSet) -> Result<Contents, WeightsError> {
    let map = MappedFile::open(path).map_err(|error| io_error(path, error))?;
    if map.starts_with(b"version https://git-lfs") {
        return Err(malformed(path, "this is a Git LFS pointer, not the file itself; run 'git lfs pull'"));
    }
    let number = set.paths.len();
    let contents = match torch::is_torch_file(path, &map) {
        true => torch::read(path, &map, number)?,
        false => read_safetensors(path, &map, number)?,
    };
    // A size of zero hides what the other sizes would overflow to, and a later product may meet them first.
    let countable =
        |stored: &&StoredTensor| stored.shape.iter().try_fold(1, |n: usize, &size| n.checked_mul(size.max(1)));
    if let Some((name, stored)) = contents.tensors.iter().find(|(_, stored)| countable(stored).is_none()) {
        let name = name.escape_debug().take(200).collect::<String>();
        return Err(malformed(path, format!("tensor {name}: the shape {:?} overflows", stored.shape)));
    }
    set.paths.push(path.to_path_buf());
    set.maps.push(map);
    Ok(contents)
}

fn read_safetensors(path: &Path, bytes: &[u8], file: usize) -> Result<Contents, WeightsError> {
    let announced = bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if announced > MOST_HEADER_BYTES as u64 {
        let reason = format!(
            "not a safetensors file, or a damaged one: its header would be {announced} bytes, above the limit of \
             {MOST_HEADER_BYTES}"
        );
        return Err(malformed(path, reason));
    }
    let (header_bytes, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| {
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
        (name, StoredTensor { file, dtype: info.dtype, shape: info.shape.clone(), offset_bytes })
    });
    Ok(Contents { tensors: stored.collect(), left_out: Vec::new() })
}
