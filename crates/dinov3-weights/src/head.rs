//! Linear classification heads: in files of their own, or beside the encoder in a checkpoint.

use std::path::{Path, PathBuf};

use dinov3_model::dialect::{self, plain};
use dinov3_model::weights::{WeightsError, check_finite};

use crate::checkpoint::{convert, element_bytes};
use crate::files::{FileSet, malformed, open_files};

/// What a linear layer is called: timm's ViTs, timm's ConvNeXts, then what people write; the last is a bare
/// `nn.Linear`, as Meta stores its ImageNet head.
const NAMES: [&str; 6] = ["head.", "head.fc.", "linear.", "fc.", "classifier.", ""];
/// Largest head that is read: 22,000 classes over 8192 features are 180 million.
const MOST_WEIGHTS: usize = 1 << 28;
/// Largest number of classes of a model's own head.
pub const MOST_CLASSES: usize = 1 << 20;

/// A head whose shape is known and whose values are not read yet.
pub struct StoredHead {
    files: FileSet,
    weight: String,
    bias: Option<String>,
    classes: usize,
    inputs: usize,
}

impl StoredHead {
    /// Opens the head in `path`: a file with one linear layer, or a checkpoint with one beside its encoder.
    ///
    /// # Errors
    /// If there is no head or more than one, if the file holds anything else, or if the shapes are no head's.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let files = open_files(path)?;
        let name = files.name.display().to_string();
        let malformed = |reason: String| Err(WeightsError::Malformed { file: name.clone(), reason });
        let keys = || files.tensors.keys().map(String::as_str);
        let find = |name: String| keys().find(|key| plain(key) == name).map(str::to_string);
        let found: Vec<(&str, String)> =
            NAMES.iter().filter_map(|prefix| Some((*prefix, find(format!("{prefix}weight"))?))).collect();
        let (prefix, weight) = match &found[..] {
            [(prefix, weight)] => (*prefix, weight.clone()),
            [] => {
                let expected = NAMES.map(|prefix| format!("{prefix}weight")).join(", ");
                let first: Vec<&str> = keys().take(5).collect();
                return malformed(format!(
                    "no linear head in it: expected one of {expected}; first keys: {}",
                    first.join(", ")
                ));
            }
            [(_, first), (_, second), ..] => return malformed(format!("two heads in it, {first} and {second}")),
        };
        let bias = find(format!("{prefix}bias"));
        let encoder = dialect::detect(keys()).is_some();
        if let Some(key) = keys().find(|key| !encoder && *key != weight && Some(*key) != bias.as_deref()) {
            return malformed(format!("{key} is neither part of the head {weight} nor of an encoder"));
        }
        let shape = &files.tensors[&weight].shape;
        let &[classes, inputs] = &shape[..] else {
            return malformed(format!("{weight} has shape {shape:?}, expected [classes, features]"));
        };
        match classes.checked_mul(inputs) {
            Some(1..=MOST_WEIGHTS) => {}
            _ => return malformed(format!("{weight} has shape {shape:?}, expected 1 to {MOST_WEIGHTS} values")),
        }
        if let Some(bias) = &bias
            && files.tensors[bias].shape != [classes]
        {
            let found = &files.tensors[bias].shape;
            return malformed(format!(
                "{bias} has shape {found:?}, expected [{classes}] as {weight} has {classes} rows"
            ));
        }
        Ok(Self { files, weight, bias, classes, inputs })
    }

    /// Number of classes, at least 1.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Features per vector, at least 1.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The weight's name in the file.
    pub fn weight_name(&self) -> &str {
        &self.weight
    }

    /// The files that it is in.
    pub fn paths(&self) -> &[PathBuf] {
        &self.files.paths
    }

    /// Weight `[classes, features]` and bias `[classes]`; a layer without a bias has zeros.
    ///
    /// # Errors
    /// If a value is not finite or of a type that is not read.
    pub fn read(&self) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
        let bias = match &self.bias {
            Some(bias) => self.values(bias, self.classes)?,
            None => vec![0.0; self.classes],
        };
        Ok((self.values(&self.weight, self.classes * self.inputs)?, bias))
    }

    fn values(&self, key: &str, count: usize) -> Result<Vec<f32>, WeightsError> {
        let stored = &self.files.tensors[key];
        element_bytes(&self.files, key, stored)?;
        let mut values = vec![0.0; count];
        convert(self.files.bytes(stored.file), stored.dtype, stored.offset_bytes, &mut values);
        check_finite(&self.files.file_name(stored.file), key, 0, &values)?;
        Ok(values)
    }
}

/// Classes of the head that timm stored in a checkpoint, told by the shape of its weight; 0 if there is none.
///
/// # Errors
/// If there are more than [`MOST_CLASSES`].
pub fn stored_classes(files: &FileSet) -> Result<usize, WeightsError> {
    let head = files.tensors.iter().find(|(key, _)| matches!(plain(key), "head.weight" | "head.fc.weight"));
    match head.map(|(_, stored)| &stored.shape[..]) {
        Some(&[classes, _]) if classes > MOST_CLASSES => {
            let reason = format!("a head of {classes} classes, above the limit of {MOST_CLASSES}");
            Err(malformed(&files.name, reason))
        }
        Some(&[classes, _]) => Ok(classes),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

    /// Name, shape, and the value of every element.
    type Filled<'a> = (&'a str, &'a [usize], f32);

    fn opened(tensors: &[Filled<'_>]) -> Result<StoredHead, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head.safetensors");
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, shape, value)| value.to_le_bytes().repeat(shape.iter().product())).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            (name.to_string(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        serialize_to_file(views, None, &path).unwrap();
        StoredHead::open(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn every_usual_name_of_a_linear_layer_is_a_head() {
        for prefix in
            ["head.", "head.fc.", "linear.", "fc.", "classifier.", "", "model.head.", "module._orig_mod.head."]
        {
            let (weight, bias) = (format!("{prefix}weight"), format!("{prefix}bias"));
            let head = opened(&[(&weight, &[3, 4], 0.5), (&bias, &[3], 2.0)]).unwrap();
            assert_eq!((head.classes(), head.inputs(), head.weight_name()), (3, 4, &weight[..]));
            assert_eq!(head.read().unwrap(), (vec![0.5; 12], vec![2.0; 3]));
            assert_eq!(opened(&[(&weight, &[3, 4], 0.5)]).unwrap().read().unwrap().1, [0.0; 3], "without a bias");
        }
    }

    #[test]
    fn a_head_may_lie_beside_its_encoder() {
        let head = opened(&[("reg_token", &[1, 4, 8], 0.0), ("head.weight", &[3, 8], 0.5), ("head.bias", &[3], 2.0)]);
        assert_eq!(head.unwrap().classes(), 3);
    }

    #[test]
    fn what_is_no_head_is_refused_with_the_reason() {
        let cases: [(&[Filled<'_>], &str); 6] = [
            (&[("norm.bias", &[3], 0.0)], "no linear head in it: expected one of head.weight, head.fc.weight"),
            (&[("weight", &[3, 4], 0.0), ("fc.weight", &[3, 4], 0.0)], "two heads in it, fc.weight and weight"),
            (&[("weight", &[3, 4], 0.0), ("scale", &[1], 0.0)], "scale is neither part of the head weight nor"),
            (&[("weight", &[3, 4, 1, 1], 0.0)], "shape [3, 4, 1, 1], expected [classes, features]"),
            (&[("weight", &[0, 4], 0.0)], "shape [0, 4], expected 1 to"),
            (&[("weight", &[3, 4], 0.0), ("bias", &[4], 0.0)], "bias has shape [4], expected [3]"),
        ];
        for (tensors, expected) in cases {
            let error = opened(tensors).err().unwrap();
            assert!(error.contains(expected) && error.contains("head.safetensors"), "{error}\nshould say: {expected}");
        }
        let error = opened(&[("weight", &[3, 4], f32::NAN)]).unwrap().read().unwrap_err().to_string();
        assert!(error.contains("tensor weight holds a non-finite value"), "{error}");
    }
}
