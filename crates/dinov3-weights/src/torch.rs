//! PyTorch checkpoints (`.pth`, `.pt`, `.bin`): a zip whose `data.pkl` describes tensors that lie beside it as
//! stored entries, so that they are read from the mapping where they are.

use std::collections::BTreeMap;
use std::path::Path;

use dinov3_model::weights::WeightsError;
use safetensors::tensor::Dtype;

use crate::files::{Contents, MOST_TENSORS, StoredTensor, malformed};
use crate::pickle::{self, Global, Pickle, PickleError, Value};
use crate::zip::{self, Entry};

/// How a zip begins.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// How `torch.save` began before PyTorch 1.6: the pickled number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// Under these keys training scripts keep the weights; the first one that is there is read.
const WRAPPERS: [(&str, &str); 3] = [
    ("teacher", "lies beside \"teacher\", whose weights are read"),
    ("model", "lies beside \"model\", whose weights are read"),
    ("state_dict", "lies beside \"state_dict\", whose weights are read"),
];
/// Largest pickle that is read. With student, teacher and optimizer the 7B's has about half a megabyte.
const MOST_PICKLE_BYTES: usize = 4 << 20;
/// Most dictionaries around the weights.
const MOST_WRAPPERS: usize = 3;
/// Most dimensions of a tensor; a convolution has four.
const MOST_DIMENSIONS: usize = 8;

/// Whether a file is (or pretends by its name to be) one of PyTorch's.
pub(crate) fn is_torch_file(path: &Path, bytes: &[u8]) -> bool {
    let named = path.extension().is_some_and(|extension| ["pth", "pt", "bin"].iter().any(|name| extension == *name));
    bytes.starts_with(ZIP_MAGIC) || bytes.starts_with(LEGACY_MAGIC) || (named && !looks_like_safetensors(bytes))
}

/// A header length that fits into the file, then JSON.
fn looks_like_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}

/// Reads the directory and the pickle, and finds every tensor's place. No tensor is touched.
pub(crate) fn read(path: &Path, bytes: &[u8], file: usize) -> Result<Contents, WeightsError> {
    if bytes.starts_with(LEGACY_MAGIC) || bytes.get(257..262) == Some(b"ustar") {
        let reason = "a checkpoint in the format from before PyTorch 1.6, which is not read; save it again: \
                      torch.save(torch.load(FILE, map_location=\"cpu\", weights_only=True), FILE)";
        return Err(malformed(path, reason));
    }
    if !bytes.starts_with(ZIP_MAGIC) {
        return Err(malformed(path, "not a PyTorch checkpoint, or a damaged one: torch.save writes a zip archive"));
    }
    let entries = zip::read_directory(bytes).map_err(|reason| malformed(path, reason))?;
    let mut pickles =
        entries.keys().filter_map(|name| name.strip_suffix("/data.pkl").filter(|root| !root.contains('/')));
    let (Some(root), None) = (pickles.next(), pickles.next()) else {
        return Err(malformed(path, "a zip, but not of torch.save, which has one data.pkl"));
    };
    if entries.contains_key(&format!("{root}/constants.pkl")) {
        return Err(malformed(path, "a TorchScript program, not weights; save the module's state_dict() instead"));
    }
    let order = entries.get(&format!("{root}/byteorder")).map(|entry| &bytes[entry.range.clone()]);
    if let Some(order) = order.filter(|order| *order != b"little") {
        let order = String::from_utf8_lossy(&order[..order.len().min(16)]).escape_debug().to_string();
        return Err(malformed(path, format!("its byte order is '{order}'; little-endian files are read")));
    }
    let pickled = &bytes[entries[&format!("{root}/data.pkl")].range.clone()];
    if pickled.len() > MOST_PICKLE_BYTES {
        return Err(malformed(
            path,
            format!("a pickle of {} bytes, above the limit of {MOST_PICKLE_BYTES}", pickled.len()),
        ));
    }
    let pickle = pickle::read(pickled).map_err(|error| match error {
        PickleError::Refused { construct, position } => {
            WeightsError::RefusedPickle { file: path.display().to_string(), construct, position }
        }
        error => malformed(path, error.to_string()),
    })?;
    Reader { path, pickle, root, entries: &entries, file }.state_dict()
}

struct Reader<'a> {
    path: &'a Path,
    pickle: Pickle<'a>,
    /// The folder of every entry.
    root: &'a str,
    entries: &'a BTreeMap<String, Entry>,
    file: usize,
}

impl<'a> Reader<'a> {
    /// The tensors of the state dict, wherever it is, and what lies beside them.
    fn state_dict(&self) -> Result<Contents, WeightsError> {
        let mut contents = Contents::default();
        let mut entries = self.pickle.dict(self.pickle.root).ok_or_else(|| {
            malformed(self.path, "what was saved is no dictionary of tensors; save the module's state_dict()")
        })?;
        for level in 0.. {
            if entries.iter().any(|(_, value)| matches!(value, Value::Call(_))) {
                break;
            }
            let found = WRAPPERS.iter().find_map(|(wrapper, reason)| {
                let inner = entries.iter().find(|(key, _)| *key == Value::Text(wrapper))?;
                Some((self.pickle.dict(inner.1)?, *wrapper, *reason))
            });
            // A dictionary may contain itself.
            let Some((inner, wrapper, reason)) = found.filter(|_| level < MOST_WRAPPERS) else {
                let keys: Vec<String> = entries.iter().take(5).map(|(key, _)| shown(*key)).collect();
                return Err(malformed(self.path, format!("no tensors in it (first keys: {})", keys.join(", "))));
            };
            let beside = entries.iter().filter(|(key, _)| *key != Value::Text(wrapper));
            contents.left_out.extend(beside.map(|(key, _)| (shown(*key), reason)));
            if contents.left_out.len() > MOST_TENSORS {
                return Err(malformed(self.path, format!("more than {MOST_TENSORS} entries")));
            }
            entries = inner;
        }
        if entries.len() > MOST_TENSORS {
            return Err(malformed(self.path, format!("{} tensors, above the limit of {MOST_TENSORS}", entries.len())));
        }
        for (key, value) in entries {
            let Value::Text(name) = *key else {
                return Err(malformed(self.path, format!("the key {} is not a text", shown(*key))));
            };
            if !matches!(value, Value::Call(_)) {
                contents.left_out.push((name.to_string(), "not a tensor"));
                continue;
            }
            let stored = self.tensor(*value).map_err(|reason| {
                malformed(self.path, format!("tensor {}: {reason}", name.escape_debug().take(200).collect::<String>()))
            })?;
            if contents.tensors.insert(name.to_string(), stored).is_some() {
                return Err(malformed(self.path, format!("two tensors are called {}", name.escape_debug())));
            }
        }
        Ok(contents)
    }

    fn tensor(&self, value: Value<'a>) -> Result<StoredTensor, String> {
        let (function, arguments) = self.pickle.call(value).ok_or("not a tensor")?;
        match (function, arguments) {
            // data, requires_grad, backward_hooks
            (Global::RebuildParameter, [data, _, _]) => match self.pickle.call(*data) {
                Some((Global::RebuildTensor, arguments)) => self.rebuilt(arguments),
                _ => Err("a parameter of what is no tensor".to_string()),
            },
            (Global::RebuildTensor, arguments) => self.rebuilt(arguments),
            _ => Err("rebuilt from unknown arguments".to_string()),
        }
    }

    /// storage, storage_offset, size, stride, requires_grad, backward_hooks and perhaps metadata.
    fn rebuilt(&self, arguments: &[Value<'a>]) -> Result<StoredTensor, String> {
        let [storage, Value::Integer(first), size, stride, _, _, ..] = arguments else {
            return Err("rebuilt from unknown arguments".to_string());
        };
        let (dtype, entry, elements) = self.storage(*storage)?;
        let (shape, strides) = (self.sizes(*size)?, self.sizes(*stride)?);
        if shape.len() != strides.len() {
            return Err(format!("{} dimensions, but {} strides", shape.len(), strides.len()));
        }
        let mut count = 1usize;
        for (&size, &stride) in shape.iter().zip(&strides).rev() {
            if size > 1 && stride != count {
                return Err(format!("not contiguous (shape {shape:?}, strides {strides:?}); save tensor.contiguous()"));
            }
            count = count.checked_mul(size).ok_or_else(|| format!("the shape {shape:?} overflows"))?;
        }
        let first = usize::try_from(*first).map_err(|_| "a negative storage offset".to_string())?;
        let end = first.checked_add(count).filter(|end| *end <= elements);
        end.ok_or_else(|| format!("{count} elements from element {first} on, but its storage has {elements}"))?;
        let offset_bytes = entry.range.start + first * (dtype.bitsize() / 8);
        Ok(StoredTensor { file: self.file, dtype, shape, offset_bytes })
    }

    /// Type, place and number of elements of a storage: ('storage', type, key, device, elements).
    fn storage(&self, value: Value<'a>) -> Result<(Dtype, &Entry, usize), String> {
        let identity = self.pickle.persistent(value).and_then(|identity| self.pickle.sequence(identity));
        let Some(
            [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                _,
                Value::Integer(elements),
            ],
        ) = identity
        else {
            return Err("its storage is not described as torch.save does".to_string());
        };
        let shown = key.chars().take(40).flat_map(char::escape_debug).collect::<String>();
        let entry = self.entries.get(&format!("{}/data/{key}", self.root));
        let entry = entry.ok_or_else(|| format!("its storage data/{shown} is missing"))?;
        let expected = usize::try_from(*elements).ok().and_then(|elements| elements.checked_mul(dtype.bitsize() / 8));
        if expected != Some(entry.range.len()) {
            let found = entry.range.len();
            return Err(format!("its storage data/{shown} has {found} bytes, not {elements} elements of {dtype:?}"));
        }
        Ok((*dtype, entry, *elements as usize))
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<usize>, String> {
        let values = self.pickle.sequence(value).filter(|values| values.len() <= MOST_DIMENSIONS);
        let values = values.ok_or_else(|| format!("its shape is not a tuple of at most {MOST_DIMENSIONS} numbers"))?;
        let size = |value: &Value<'_>| match value {
            Value::Integer(size) => usize::try_from(*size).map_err(|_| format!("a size or stride of {size}")),
            _ => Err("a size or stride that is not a number".to_string()),
        };
        values.iter().map(size).collect()
    }
}

/// A key for a message.
fn shown(key: Value<'_>) -> String {
    match key {
        Value::Text(text) => text.chars().take(60).flat_map(char::escape_debug).collect(),
        Value::Integer(number) => number.to_string(),
        _ => "something that is not a text".to_string(),
    }
}
