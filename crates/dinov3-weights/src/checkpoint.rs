//! Every tensor accounted for: what a checkpoint stores against what a model needs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use dinov3_model::dialect::{self, Dialect, Meaning};
use dinov3_model::spec::{Mlp, ModelSpec};
use dinov3_model::tensors::tensors;
use dinov3_model::weights::{TensorProblem, WeightSource, WeightsError, check_finite};
use safetensors::tensor::Dtype;

use crate::files::{FileSet, StoredTensor, open_files};

/// A run of stored values that is a run of a timm tensor's values.
#[derive(Clone, Debug)]
struct Segment {
    file: usize,
    dtype: Dtype,
    offset_bytes: usize,
    /// First element in the timm tensor.
    start: usize,
    length: usize,
}

/// What a checkpoint holds beside the model's tensors.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose names it uses.
    pub dialect: Dialect,
    /// Stored types with their number of tensors.
    pub dtypes: BTreeMap<String, usize>,
    /// Tensors that are not used, with the reason.
    pub ignored: Vec<(String, &'static str)>,
    /// All-zero q and v biases that the plain model does without.
    pub dropped_zero_biases: Vec<String>,
}

/// A checkpoint that fits a model.
pub struct Checkpoint {
    files: FileSet,
    segments: HashMap<String, Vec<Segment>>,
    /// What else was found.
    pub report: Report,
}

impl Checkpoint {
    /// Opens `path` (a file, an index, a folder) as the weights of `model`.
    ///
    /// # Errors
    /// All missing, unexpected and misshaped tensors in one error; non-zero q and v biases under a model
    /// without them; malformed files.
    pub fn open(path: &Path, model: &ModelSpec) -> Result<Self, WeightsError> {
        Self::from_files(open_files(path)?, model)
    }

    /// The same for files that are open already.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_files(files: FileSet, model: &ModelSpec) -> Result<Self, WeightsError> {
        let source_name = files.name.display().to_string();
        let dialect = detect(&files)?;
        let gated = model.vit().is_some_and(|vit| vit.mlp == Mlp::SwiGlu);
        let expected: HashMap<String, Vec<usize>> =
            tensors(model).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        let mut plan = Plan::new(&files, model, &expected);
        for (key, stored) in &files.tensors {
            *plan.dtypes.entry(format!("{:?}", stored.dtype)).or_default() += 1;
            match dialect::meaning(dialect, key) {
                Meaning::Ignored(reason) => plan.ignored.push((key.clone(), reason)),
                Meaning::KeyBias { attention } => plan.key_bias(key, stored, &attention)?,
                Meaning::Whole(name) => {
                    let name = dialect::resolve(name, gated, model.vit().is_none());
                    plan.whole(key, stored, name)?;
                }
                Meaning::Third { tensor, third } => plan.third(key, stored, tensor, third)?,
                Meaning::FusedBias { attention } => plan.fused_bias(key, stored, &attention)?,
                _ => plan.unexpected(key, stored),
            }
        }
        let Plan { mut segments, mut problems, ignored, dropped, dtypes, .. } = plan;
        for tensor in tensors(model) {
            // A linear layer may be without a bias.
            if is_head_bias_left_out(&tensor.name, &segments) {
                segments.insert(tensor.name, Vec::new());
                continue;
            }
            let found: usize =
                segments.get(&tensor.name).map_or(0, |list| list.iter().map(|segment| segment.length).sum());
            if found < tensor.elements() && !misshaped(&problems, &tensor.name, dialect, gated, model) {
                problems.push(TensorProblem::Missing { tensor: tensor.name.clone(), expected: tensor.shape.clone() });
            }
        }
        if !problems.is_empty() {
            return Err(WeightsError::Mismatch { source_name, model: model.name.clone(), problems });
        }
        segments.values_mut().for_each(|list| list.sort_by_key(|segment| segment.start));
        let ignored = ignored.into_iter().chain(files.left_out.iter().cloned()).collect();
        let report = Report { dialect, dtypes, ignored, dropped_zero_biases: dropped };
        Ok(Self { files, segments, report })
    }

    /// The files behind the weights.
    pub fn paths(&self) -> &[std::path::PathBuf] {
        &self.files.paths
    }
}

/// Whether this is the bias of a head that is stored without one.
fn is_head_bias_left_out(name: &str, segments: &HashMap<String, Vec<Segment>>) -> bool {
    let stored = |name: &str| segments.contains_key(name);
    matches!(name, "head.bias" | "head.fc.bias") && !stored(name) && stored(&name.replace(".bias", ".weight"))
}

/// Whether a misshaped stored tensor already stands for this timm tensor: one line per trouble is enough.
fn misshaped(problems: &[TensorProblem], name: &str, dialect: Dialect, gated: bool, model: &ModelSpec) -> bool {
    problems.iter().any(|problem| match problem {
        TensorProblem::Misshaped { tensor, .. } => match dialect::meaning(dialect, tensor) {
            Meaning::Whole(whole) => dialect::resolve(whole, gated, model.vit().is_none()) == name,
            Meaning::Third { tensor, .. } => tensor == name,
            Meaning::FusedBias { attention } => name.starts_with(&attention) && name.ends_with("_bias"),
            _ => false,
        },
        _ => false,
    })
}

/// The dialect of a checkpoint.
///
/// # Errors
/// If its keys are those of no DINOv3 encoder.
pub(crate) fn detect(files: &FileSet) -> Result<Dialect, WeightsError> {
    dialect::detect(files.tensors.keys().map(String::as_str)).ok_or_else(|| {
        let keys: Vec<&str> = files.tensors.keys().take(5).map(String::as_str).collect();
        WeightsError::UnknownDialect { file: files.name.display().to_string(), keys: keys.join(", ") }
    })
}

/// The account while it is drawn up.
struct Plan<'a> {
    files: &'a FileSet,
    model: &'a ModelSpec,
    expected: &'a HashMap<String, Vec<usize>>,
    segments: HashMap<String, Vec<Segment>>,
    problems: Vec<TensorProblem>,
    ignored: Vec<(String, &'static str)>,
    dropped: Vec<String>,
    dtypes: BTreeMap<String, usize>,
}

impl<'a> Plan<'a> {
    fn new(files: &'a FileSet, model: &'a ModelSpec, expected: &'a HashMap<String, Vec<usize>>) -> Self {
        Self {
            files,
            model,
            expected,
            segments: HashMap::new(),
            problems: Vec::new(),
            ignored: Vec::new(),
            dropped: Vec::new(),
            dtypes: BTreeMap::new(),
        }
    }

    fn unexpected(&mut self, key: &str, stored: &StoredTensor) {
        self.problems.push(TensorProblem::Unexpected {
            file: self.files.file_name(stored.file),
            tensor: key.to_string(),
            found: stored.shape.clone(),
        });
    }

    /// Notes a problem and answers false if the stored shape is not the expected one.
    fn shape_fits(&mut self, key: &str, stored: &StoredTensor, expected: &[usize]) -> bool {
        if stored.shape == expected {
            return true;
        }
        self.problems.push(TensorProblem::Misshaped {
            file: self.files.file_name(stored.file),
            tensor: key.to_string(),
            expected: expected.to_vec(),
            found: stored.shape.clone(),
        });
        false
    }

    /// Adds `length` stored elements from `skip` on as elements `start ..` of timm tensor `name`.
    fn add(
        &mut self,
        key: &str,
        stored: &StoredTensor,
        name: String,
        start: usize,
        skip: usize,
        length: usize,
    ) -> Result<(), WeightsError> {
        let element_bytes = element_bytes(self.files, key, stored)?;
        let offset_bytes = stored.offset_bytes + skip * element_bytes;
        let list = self.segments.entry(name).or_default();
        if list.iter().any(|segment| segment.start < start + length && start < segment.start + segment.length) {
            self.problems
                .push(TensorProblem::Duplicate { file: self.files.file_name(stored.file), tensor: key.to_string() });
        } else {
            list.push(Segment { file: stored.file, dtype: stored.dtype, offset_bytes, start, length });
        }
        Ok(())
    }

    fn whole(&mut self, key: &str, stored: &StoredTensor, name: String) -> Result<(), WeightsError> {
        let Some(expected) = self.expected.get(&name) else {
            let attention = name.strip_suffix(".q_bias").or(name.strip_suffix(".v_bias"));
            return match attention.and_then(|attention| self.attention_width(attention)) {
                Some(d) if self.shape_fits(key, stored, &[d]) => self.drop_zero_bias(key, stored),
                Some(_) => Ok(()),
                None => {
                    self.unexpected(key, stored);
                    Ok(())
                }
            };
        };
        let expected = expected.clone();
        if self.shape_fits(key, stored, &expected) {
            self.add(key, stored, name, 0, 0, expected.iter().product())?;
        }
        Ok(())
    }

    /// The width of a block's attention, if the model has that block.
    fn attention_width(&self, attention: &str) -> Option<usize> {
        self.expected.get(&format!("{attention}.qkv.weight")).map(|shape| shape[1])
    }

    /// The stored values of a small tensor.
    fn values(&self, key: &str, stored: &StoredTensor) -> Result<Vec<f32>, WeightsError> {
        element_bytes(self.files, key, stored)?;
        let mut values = vec![0.0; stored.shape.iter().product()];
        convert(self.files.bytes(stored.file), stored.dtype, stored.offset_bytes, &mut values);
        Ok(values)
    }

    /// A k bias under timm's or Transformers' name: of no effect if zero, an error otherwise.
    fn key_bias(&mut self, key: &str, stored: &StoredTensor, attention: &str) -> Result<(), WeightsError> {
        // The shape first: values are read of nothing larger than what the model has.
        let Some(d) = self.attention_width(attention) else {
            self.unexpected(key, stored);
            return Ok(());
        };
        if !self.shape_fits(key, stored, &[d]) {
            return Ok(());
        }
        if self.values(key, stored)?.iter().all(|&value| value == 0.0) {
            self.ignored.push((key.to_string(), "an all-zero k bias"));
        } else {
            let file = self.files.file_name(stored.file);
            self.problems.push(TensorProblem::KeyBiasNotZero { file, tensor: key.to_string() });
        }
        Ok(())
    }

    fn third(&mut self, key: &str, stored: &StoredTensor, name: String, third: usize) -> Result<(), WeightsError> {
        let Some(expected) = self.expected.get(&name) else {
            self.unexpected(key, stored);
            return Ok(());
        };
        let part = [expected[0] / 3, expected[1]];
        if self.shape_fits(key, stored, &part) {
            let length = part[0] * part[1];
            self.add(key, stored, name, third * length, 0, length)?;
        }
        Ok(())
    }

    fn fused_bias(&mut self, key: &str, stored: &StoredTensor, attention: &str) -> Result<(), WeightsError> {
        let (Some(vit), Some(d)) = (self.model.vit(), self.attention_width(attention)) else {
            self.unexpected(key, stored);
            return Ok(());
        };
        if !self.shape_fits(key, stored, &[3 * d]) {
            return Ok(());
        }
        if !vit.qv_bias {
            return self.drop_zero_bias(key, stored);
        }
        self.ignored.push((format!("{key}[{d}..{}]", 2 * d), "the k third of a fused bias is always zero"));
        self.add(key, stored, format!("{attention}.q_bias"), 0, 0, d)?;
        self.add(key, stored, format!("{attention}.v_bias"), 0, 2 * d, d)
    }

    /// q and v biases of a model without them: dropped if zero, an error otherwise. The k third never counts.
    fn drop_zero_bias(&mut self, key: &str, stored: &StoredTensor) -> Result<(), WeightsError> {
        let mut values = self.values(key, stored)?;
        if key.ends_with("qkv.bias") {
            let third = values.len() / 3;
            values[third..2 * third].fill(0.0);
        }
        if values.iter().any(|&value| value != 0.0) {
            let plain = &self.model.name;
            let twin = plain.replacen("_dinov3", "_dinov3_qkvb", 1);
            let qkvb_model = match dinov3_model::spec::find(&twin) {
                Ok(twin) => format!("the model {}", twin.name),
                Err(_) => "a config.json with \"model_args\": {\"qkv_bias\": true}".to_string(),
            };
            return Err(WeightsError::BiasNotZero {
                source_name: self.files.name.display().to_string(),
                tensor: key.to_string(),
                model: plain.clone(),
                qkvb_model,
            });
        }
        self.dropped.push(key.to_string());
        Ok(())
    }
}

pub(crate) fn element_bytes(files: &FileSet, key: &str, stored: &StoredTensor) -> Result<usize, WeightsError> {
    match stored.dtype {
        Dtype::F32 => Ok(4),
        Dtype::F16 | Dtype::BF16 => Ok(2),
        other => Err(WeightsError::UnsupportedDtype {
            file: files.file_name(stored.file),
            tensor: key.to_string(),
            dtype: format!("{other:?}"),
        }),
    }
}

/// Little-endian bytes from `offset_bytes` on to f32.
pub(crate) fn convert(bytes: &[u8], dtype: Dtype, offset_bytes: usize, out: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            let (chunks, _) = bytes[offset_bytes..][..out.len() * 4].as_chunks::<4>();
            out.iter_mut().zip(chunks).for_each(|(value, chunk)| *value = f32::from_le_bytes(*chunk));
        }
        dtype => {
            let (chunks, _) = bytes[offset_bytes..][..out.len() * 2].as_chunks::<2>();
            for (value, chunk) in out.iter_mut().zip(chunks) {
                let bits = u16::from_le_bytes(*chunk);
                *value = match dtype {
                    Dtype::BF16 => f32::from_bits(u32::from(bits) << 16),
                    _ => half::f16::from_bits(bits).to_f32(),
                };
            }
        }
    }
}

impl WeightSource for Checkpoint {
    fn name(&self) -> String {
        self.files.name.display().to_string()
    }

    fn read(&self, tensor: &str, start: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        let end = start + out.len();
        if self.segments[tensor].is_empty() {
            out.fill(0.0);
        }
        for segment in &self.segments[tensor] {
            let from = start.max(segment.start);
            let to = end.min(segment.start + segment.length);
            if from >= to {
                continue;
            }
            let width = if segment.dtype == Dtype::F32 { 4 } else { 2 };
            let offset = segment.offset_bytes + (from - segment.start) * width;
            convert(self.files.bytes(segment.file), segment.dtype, offset, &mut out[from - start..to - start]);
            self.files.release(segment.file, offset..offset + (to - from) * width);
        }
        // Only a bad value pays for finding out which shard holds it.
        check_finite("", tensor, start, out).map_err(|error| match error {
            WeightsError::NotFinite { tensor, element, value, .. } => {
                let holds = |segment: &&Segment| (segment.start..segment.start + segment.length).contains(&element);
                let segment = self.segments[&tensor].iter().find(holds);
                let source_name = segment.map_or_else(|| self.name(), |segment| self.files.file_name(segment.file));
                WeightsError::NotFinite { source_name, tensor, element, value }
            }
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinov3_model::config_json;
    use dinov3_model::synthetic::fill;
    use safetensors::tensor::{TensorView, serialize_to_file};

    const TINY: &str =
        r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 16, "depth": 2, "num_heads": 2}}"#;
    const TINY_QKVB: &str = r#"{"architecture": "vit_small_patch16_dinov3_qkvb", "model_args": {"embed_dim": 16, "depth": 2, "num_heads": 2}}"#;

    type Stored = Vec<(String, Vec<usize>, Vec<f32>)>;

    fn model(text: &str) -> ModelSpec {
        config_json::parse(text, "tiny").unwrap()
    }

    fn synthetic(model: &ModelSpec) -> Stored {
        let mut all = Vec::new();
        for tensor in tensors(model) {
            let mut values = vec![0.0; tensor.elements()];
            fill(&tensor.name, &tensor.shape, 1, false, 0, &mut values);
            all.push((tensor.name, tensor.shape, values));
        }
        all
    }

    fn save(stored: &Stored, path: &Path) {
        let bytes: Vec<Vec<u8>> =
            stored.iter().map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
        let views: Vec<(String, TensorView<'_>)> = stored
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()))
            .collect();
        serialize_to_file(views, None, path).unwrap();
    }

    fn meta_names(stored: &Stored, d: usize, fused: Option<f32>) -> Stored {
        let mut renamed: Stored = stored
            .iter()
            .map(|(name, shape, values)| {
                let name = name
                    .replace("reg_token", "storage_tokens")
                    .replace("gamma_1", "ls1.gamma")
                    .replace("gamma_2", "ls2.gamma");
                (name, shape.clone(), values.clone())
            })
            .collect();
        renamed.push(("mask_token".into(), vec![1, d], vec![0.5; d]));
        renamed.push(("rope_embed.periods".into(), vec![2], vec![1.0; 2]));
        if let Some(value) = fused {
            for block in 0..2 {
                let mut bias = vec![value; 3 * d];
                bias[d..2 * d].fill(9.0);
                renamed.push((format!("blocks.{block}.attn.qkv.bias"), vec![3 * d], bias));
                renamed.push((format!("blocks.{block}.attn.qkv.bias_mask"), vec![3 * d], vec![1.0; 3 * d]));
            }
        }
        renamed
    }

    fn read(checkpoint: &Checkpoint, tensor: &str, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        checkpoint.read(tensor, 0, &mut values).unwrap();
        values
    }

    #[test]
    fn the_three_dialects_give_the_same_values() {
        let folder = tempfile::tempdir().unwrap();
        let model = model(TINY);
        let timm = synthetic(&model);
        save(&timm, &folder.path().join("timm.safetensors"));
        save(&meta_names(&timm, 16, Some(0.0)), &folder.path().join("meta.safetensors"));
        let mut hf: Stored = Vec::new();
        for (name, shape, values) in &timm {
            let name = name
                .replace("blocks.", "layer.")
                .replace("attn.proj", "attention.o_proj")
                .replace("gamma_1", "layer_scale1.lambda1")
                .replace("gamma_2", "layer_scale2.lambda1")
                .replace("mlp.fc1", "mlp.up_proj")
                .replace("mlp.fc2", "mlp.down_proj")
                .replace("patch_embed.proj", "embeddings.patch_embeddings")
                .replace("cls_token", "embeddings.cls_token")
                .replace("reg_token", "embeddings.register_tokens");
            if let Some(prefix) = name.strip_suffix("attn.qkv.weight") {
                for (third, part) in ["q", "k", "v"].iter().enumerate() {
                    let values = values[third * 256..(third + 1) * 256].to_vec();
                    hf.push((format!("{prefix}attention.{part}_proj.weight"), vec![16, 16], values));
                }
                hf.push((format!("{prefix}attention.q_proj.bias"), vec![16], vec![0.0; 16]));
            } else {
                hf.push((name, shape.clone(), values.clone()));
            }
        }
        save(&hf, &folder.path().join("hf.safetensors"));
        for (file, dialect, dropped) in
            [("timm", Dialect::Timm, 0), ("meta", Dialect::Meta, 2), ("hf", Dialect::Transformers, 2)]
        {
            let checkpoint = Checkpoint::open(&folder.path().join(format!("{file}.safetensors")), &model).unwrap();
            assert_eq!(checkpoint.report.dialect, dialect);
            assert_eq!(checkpoint.report.dropped_zero_biases.len(), dropped, "{file}");
            for (name, _, values) in &timm {
                assert_eq!(&read(&checkpoint, name, values.len()), values, "{file} {name}");
            }
            let mut part = [0.0; 20];
            checkpoint.read("blocks.1.attn.qkv.weight", 250, &mut part).unwrap();
            let whole = read(&checkpoint, "blocks.1.attn.qkv.weight", 768);
            assert_eq!(part, whole[250..270], "a range across the seam of q and k");
        }
    }

    #[test]
    fn biases_that_are_not_zero_name_the_model_that_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta.safetensors");
        let plain = model(TINY);
        save(&meta_names(&synthetic(&plain), 16, Some(0.25)), &path);
        let error = Checkpoint::open(&path, &plain).err().unwrap();
        assert!(
            matches!(&error, WeightsError::BiasNotZero { qkvb_model, .. } if qkvb_model.contains("qkv_bias")),
            "{error}"
        );
        let checkpoint = Checkpoint::open(&path, &model(TINY_QKVB)).unwrap();
        assert_eq!(read(&checkpoint, "blocks.0.attn.v_bias", 16), [0.25; 16]);
    }

    #[test]
    fn a_bias_of_k_must_be_zero() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timm.safetensors");
        let model = model(TINY);
        for (value, accepted) in [(0.0, true), (5.0, false)] {
            let mut stored = synthetic(&model);
            stored.push(("blocks.0.attn.k_bias".into(), vec![16], vec![value; 16]));
            save(&stored, &path);
            assert_eq!(Checkpoint::open(&path, &model).is_ok(), accepted);
        }
    }

    #[test]
    fn a_head_without_a_bias_has_one_of_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timm.safetensors");
        let model = model(TINY).with_num_classes(3);
        let mut stored = synthetic(&model);
        stored.retain(|(name, _, _)| name != "head.bias");
        save(&stored, &path);
        let mut bias = [7.0; 3];
        Checkpoint::open(&path, &model).unwrap().read("head.bias", 0, &mut bias).unwrap();
        assert_eq!(bias, [0.0; 3]);
        stored.retain(|(name, _, _)| name != "head.weight");
        save(&stored, &path);
        assert!(Checkpoint::open(&path, &model).err().unwrap().to_string().contains("head.bias"));
    }

    #[test]
    fn a_dropped_bias_belongs_to_a_block_and_has_its_shape() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timm.safetensors");
        let model = model(TINY);
        for (name, length) in [("blocks.0.attn.q_bias", 7), ("blocks.77.attn.v_bias", 16)] {
            let mut stored = synthetic(&model);
            stored.push((name.into(), vec![length], vec![0.0; length]));
            save(&stored, &path);
            let error = Checkpoint::open(&path, &model).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn missing_unexpected_and_misshaped_tensors_are_listed_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.safetensors");
        let model = model(TINY);
        let mut stored = synthetic(&model);
        stored.retain(|(name, _, _)| name != "blocks.1.norm2.bias");
        stored.push(("blocks.7.norm2.bias".into(), vec![16], vec![0.0; 16]));
        for (name, shape, values) in &mut stored {
            if name == "norm.weight" {
                *shape = vec![8];
                values.truncate(8);
            }
        }
        save(&stored, &path);
        let Err(WeightsError::Mismatch { problems, .. }) = Checkpoint::open(&path, &model) else { panic!("accepted") };
        assert_eq!(problems.len(), 3, "{problems:?}");
        let text = format!("{:?}", problems);
        for part in [
            "Missing { tensor: \"blocks.1.norm2.bias\"",
            "Unexpected",
            "blocks.7.norm2.bias",
            "Misshaped",
            "expected: [16], found: [8]",
            "bad.safetensors",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn non_finite_weights_are_refused_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nan.safetensors");
        let model = model(TINY);
        let mut stored = synthetic(&model);
        let norm = stored.iter_mut().find(|(name, _, _)| name == "norm.bias").unwrap();
        norm.2[5] = f32::NAN;
        save(&stored, &path);
        let checkpoint = Checkpoint::open(&path, &model).unwrap();
        let error = checkpoint.read("norm.bias", 4, &mut [0.0; 4]).unwrap_err().to_string();
        assert!(
            error.contains("norm.bias") && error.contains("element 5") && error.contains("nan.safetensors"),
            "{error}"
        );
    }

    #[test]
    fn shards_are_read_by_their_index_and_folders_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        let model = model(TINY);
        let stored = synthetic(&model);
        let (first, second) = stored.split_at(10);
        save(&first.to_vec(), &folder.path().join("a.safetensors"));
        save(&second.to_vec(), &folder.path().join("b.safetensors"));
        assert!(Checkpoint::open(folder.path(), &model).err().unwrap().to_string().contains("no index"));
        let mut map = serde_json::Map::new();
        for (i, (name, _, _)) in stored.iter().enumerate() {
            map.insert(name.clone(), if i < 10 { "a.safetensors" } else { "b.safetensors" }.into());
        }
        let index = folder.path().join("model.safetensors.index.json");
        std::fs::write(&index, serde_json::json!({"weight_map": map}).to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path(), &model).unwrap();
        assert_eq!(read(&checkpoint, "norm.weight", 16), stored.iter().find(|t| t.0 == "norm.weight").unwrap().2);
        std::fs::write(&index, r#"{"weight_map": {"x": "../a.safetensors"}}"#).unwrap();
        assert!(Checkpoint::open(folder.path(), &model).err().unwrap().to_string().contains("beside the index"));
    }

    #[test]
    fn damaged_files_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let model = model(TINY);
        save(&synthetic(&model), &path);
        let good = std::fs::read(&path).unwrap();
        for (bytes, expected) in [
            (Vec::new(), "not a well-formed"),
            (good[..good.len() - 1].to_vec(), "cut short"),
            (good[..100].to_vec(), "not a well-formed"),
            (vec![0xFF; 64], "above the limit"),
            (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "Git LFS pointer"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Checkpoint::open(&path, &model).err().unwrap().to_string();
            assert!(error.contains(expected) && error.contains("model.safetensors"), "{error}");
        }
    }
}
