//! safetensors: eight bytes of length, a JSON header, raw little-endian values.
//!
//! Written by hand because the header comes first and is known last: the `safetensors` crate wants every tensor in
//! memory. Values wait in one temporary file per tensor instead.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::atomic::{AtomicFile, Temporary, write_f32};
use crate::embedding::{Report, Rows};
use crate::error::OutputError;
use crate::layout::EmbeddingLayout;

/// What readers accept (`MAX_HEADER_SIZE` of the `safetensors` crate).
pub(crate) const HEADER_LIMIT_BYTES: usize = 100_000_000;

/// Left for the provenance when rows are counted against the limit.
const HEADER_RESERVE_BYTES: usize = 1 << 20;

/// The header with its length; nothing if readers would refuse it. `metadata` and `tensors` (names and shapes, in
/// the order of their values) are as many as fit in memory.
pub(crate) fn header(
    metadata: impl IntoIterator<Item = (String, String)>,
    tensors: impl IntoIterator<Item = (String, Vec<usize>)>,
) -> Option<Vec<u8>> {
    let metadata: Map<String, Value> = metadata.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), Value::Object(metadata));
    }
    let mut start = 0usize;
    for (name, shape) in tensors {
        let bytes = shape.iter().try_fold(4usize, |bytes, &extent| bytes.checked_mul(extent))?;
        let end = start.checked_add(bytes)?;
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, entry);
        start = end;
    }
    let mut bytes = vec![0; 8];
    serde_json::to_writer(&mut bytes, &header).ok()?;
    // So that the values are aligned where the file is mapped.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    let length = bytes.len() - 8;
    bytes[..8].copy_from_slice(&(length as u64).to_le_bytes());
    (length <= HEADER_LIMIT_BYTES).then_some(bytes)
}

struct Tensor {
    name: String,
    width: usize,
    values: Temporary,
}

pub(crate) struct Safetensors {
    file: AtomicFile,
    tensors: Vec<Tensor>,
    count: usize,
    /// JSON of the names, without the closing bracket.
    paths: String,
    /// What `paths` takes as a string inside the header's JSON.
    header_bytes: usize,
}

impl Safetensors {
    pub(crate) fn create(path: &Path, layout: &EmbeddingLayout) -> Result<Self, OutputError> {
        let file = AtomicFile::create(path)?;
        let mut tensors = Vec::new();
        for column in layout.columns() {
            let (name, width) = (column.name.clone(), column.width);
            tensors.push(Tensor { name, width, values: file.another()? });
        }
        Ok(Self { file, tensors, count: 0, paths: "[".to_owned(), header_bytes: 0 })
    }

    fn header_too_large(&self) -> OutputError {
        OutputError::HeaderTooLarge { path: self.file.path().to_owned(), rows: self.count, limit: HEADER_LIMIT_BYTES }
    }
}

impl Rows for Safetensors {
    fn row(&mut self, name: &str, vectors: &[&[f32]]) -> Result<(), OutputError> {
        let write = |error| OutputError::write(self.file.path())(error);
        for (tensor, vector) in self.tensors.iter_mut().zip(vectors) {
            write_f32(&mut tensor.values, vector).map_err(write)?;
        }
        let name = serde_json::to_string(name).map_err(|error| write(error.into()))?;
        if self.count > 0 {
            self.paths.push(',');
        }
        self.paths.push_str(&name);
        self.count += 1;
        // Quotes and backslashes are escaped once more.
        let escapes = name.bytes().filter(|byte| matches!(byte, b'"' | b'\\'));
        self.header_bytes += name.len() + escapes.count() + 1;
        if self.header_bytes + HEADER_RESERVE_BYTES > HEADER_LIMIT_BYTES {
            return Err(self.header_too_large());
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, report: Report) -> Result<(), OutputError> {
        let mut paths = std::mem::take(&mut self.paths);
        paths.push(']');
        let metadata = [("paths".to_owned(), paths), ("dinov3".to_owned(), report.complete().to_string())];
        let tensors = self.tensors.iter();
        let shapes = tensors.map(|tensor| (tensor.name.clone(), vec![self.count, tensor.width]));
        let header = header(metadata, shapes).ok_or_else(|| self.header_too_large())?;
        let Self { mut file, mut tensors, .. } = *self;
        let mut assemble = || {
            file.write_all(&header)?;
            for tensor in &mut tensors {
                io::copy(tensor.values.rewind()?, &mut file)?;
            }
            Ok(())
        };
        assemble().map_err(OutputError::write(file.path()))?;
        file.commit()
    }
}
