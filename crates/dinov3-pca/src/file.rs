//! safetensors files of bases, which say whose features they are for.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::error::PcaError;

/// Whose features a basis is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Which weights: a hash, or any text that tells them from others.
    pub weights: &'a str,
    /// The block or stage, `blocks.11`.
    pub tap: &'a str,
}

/// A tensor to be written: as many values as its shape says.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its name; tensors come in the order of their names.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Row-major.
    pub values: &'a [f32],
}

/// A file that was read and checked against an origin.
#[derive(Debug)]
pub struct BasisFile<'a>(SafeTensors<'a>);

impl<'a> BasisFile<'a> {
    /// The bytes of a file of this `kind`. Equal tensors give equal bytes.
    pub fn write(kind: &str, origin: &Origin<'_>, tensors: &[Tensor<'_>]) -> Vec<u8> {
        // By hand, because the safetensors crate writes the metadata in random order.
        let mut header = Map::new();
        let Origin { model, weights, tap } = origin;
        header.insert("__metadata__".into(), json!({"kind": kind, "model": model, "tap": tap, "weights": weights}));
        let mut start = 0;
        for Tensor { name, shape, values } in tensors {
            let end = start + 4 * values.len();
            header.insert((*name).into(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
            start = end;
        }
        let mut header = Value::Object(header).to_string();
        // So that the values are aligned where the file is mapped.
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(tensors.iter().flat_map(|tensor| tensor.values).flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// Reads a file of this `kind`, for features of this origin.
    ///
    /// # Errors
    /// If the bytes are no such file, or the basis is for other features.
    pub fn read(bytes: &'a [u8], kind: &str, origin: &Origin<'_>) -> Result<Self, PcaError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
        if metadata.get("kind").map(String::as_str) != Some(kind) {
            return Err(not_a_basis(format!("its metadata do not say kind {kind}")));
        }
        for (what, expected) in [("model", origin.model), ("tap", origin.tap), ("weights", origin.weights)] {
            match metadata.get(what) {
                Some(found) if found == expected => {}
                Some(found) => {
                    let (found, expected) = (found.clone(), expected.to_owned());
                    return Err(PcaError::Origin { what, found, expected });
                }
                None => return Err(not_a_basis(format!("its metadata do not say which {what} it is for"))),
            }
        }
        Ok(Self(SafeTensors::deserialize(bytes)?))
    }

    /// The finite values of a tensor of this shape.
    ///
    /// # Errors
    /// [`PcaError::NotABasis`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, PcaError> {
        self.values(name, Some(shape))
    }

    /// The finite values of a vector of any length but 0.
    ///
    /// # Errors
    /// [`PcaError::NotABasis`].
    pub fn vector(&self, name: &str) -> Result<Vec<f32>, PcaError> {
        self.values(name, None)
    }

    fn values(&self, name: &str, shape: Option<&[usize]>) -> Result<Vec<f32>, PcaError> {
        let Ok(view) = self.0.tensor(name) else { return Err(not_a_basis(format!("tensor {name} is missing"))) };
        let fits = match shape {
            Some(shape) => view.shape() == shape,
            None => matches!(view.shape(), [length] if *length > 0),
        };
        if !fits || view.dtype() != Dtype::F32 {
            let expected = shape.map_or_else(|| "[D]".to_owned(), |shape| format!("{shape:?}"));
            let (dtype, found) = (view.dtype(), view.shape());
            return Err(not_a_basis(format!("tensor {name} should be F32 {expected}, it is {dtype:?} {found:?}")));
        }
        let (values, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(not_a_basis(format!("tensor {name} holds values that are not finite")));
        }
        Ok(values)
    }
}

fn not_a_basis(reason: String) -> PcaError {
    PcaError::NotABasis { reason }
}
