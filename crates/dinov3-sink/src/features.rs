//! Files of one image's features.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;

use dinov3_model::array::Array;
use serde_json::Value;

use crate::atomic::{AtomicFile, sidecar, write_f32};
use crate::error::OutputError;
use crate::{npy, safetensors};

/// Writes tensors (`blocks.9`, `stages.2`, `blocks.9.prefix_tokens`, `tokens`, ...) and text about them.
///
/// # Errors
/// If a tensor is inconsistent or its name is taken, or if the file cannot be written.
pub fn write_features_safetensors(
    path: impl AsRef<Path>,
    tensors: &[(String, Array)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), OutputError> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    let mut names = HashSet::new();
    for (name, array) in tensors {
        check(path, name, array)?;
        if name == "__metadata__" || !names.insert(name) {
            return Err(problem(path, name, "has a name that is taken".to_owned()));
        }
    }
    let metadata = metadata.iter().map(|(key, value)| (key.clone(), value.clone()));
    let shapes = tensors.iter().map(|(name, array)| (name.clone(), array.shape.clone()));
    let header = safetensors::header(metadata, shapes).ok_or_else(|| OutputError::HeaderTooLarge {
        path: path.to_owned(),
        rows: tensors.len(),
        limit: safetensors::HEADER_LIMIT_BYTES,
    })?;
    let mut write = || {
        file.write_all(&header)?;
        for (_, array) in tensors {
            write_f32(&mut file, &array.data)?;
        }
        Ok(())
    };
    write().map_err(OutputError::write(path))?;
    file.commit()
}

/// Writes one array and, if there is something to say about it, `NAME.npy.json`.
///
/// # Errors
/// If the array is inconsistent, or if the files cannot be written.
pub fn write_npy(path: impl AsRef<Path>, array: &Array, metadata: Option<&Value>) -> Result<(), OutputError> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    let about = match metadata {
        Some(metadata) => {
            let mut about = AtomicFile::create(sidecar(path))?;
            serde_json::to_writer_pretty(&mut about, metadata)
                .map_err(|error| OutputError::write(about.path())(error.into()))?;
            Some(about)
        }
        None => None,
    };
    check(path, "array", array)?;
    let header = npy::header(&array.shape, 0).ok_or_else(|| {
        let dimensions = array.shape.len();
        problem(path, "array", format!("has too many dimensions ({dimensions})"))
    })?;
    file.write_all(&header).and_then(|()| write_f32(&mut file, &array.data)).map_err(OutputError::write(path))?;
    file.sync()?;
    if let Some(about) = about {
        about.commit()?;
    }
    file.commit()
}

fn check(path: &Path, name: &str, array: &Array) -> Result<(), OutputError> {
    let Array { shape, data } = array;
    let values = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    if values == Some(data.len()) {
        return Ok(());
    }
    let found = data.len();
    Err(problem(path, name, format!("has shape {shape:?} and {found} values")))
}

fn problem(path: &Path, name: &str, problem: String) -> OutputError {
    OutputError::Tensor { path: path.to_owned(), name: name.to_owned(), problem }
}
