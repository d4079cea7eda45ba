//! `goldens/`: timm's results for tiny models, stage by stage, and the comparison with an encoder's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dinov3_model::array::Array;
use dinov3_model::config_json;
use dinov3_model::encoder::{Encoder, Features, ImageBatch, Pooling, Request};
use dinov3_model::rope::RopePeriods;
use dinov3_model::spec::ModelSpec;
use dinov3_model::synthetic::{SyntheticSpec, SyntheticWeights};
use safetensors::tensor::{Dtype, SafeTensors};

use crate::{conformance, relative_error};

/// A tiny model and what timm makes of two images.
pub struct Golden {
    /// Name of its files.
    pub name: String,
    /// The model.
    pub spec: ModelSpec,
    /// Its weights.
    pub weights: SyntheticWeights,
    tensors: BTreeMap<String, Array>,
}

/// Every golden of the repository.
pub fn all() -> Vec<Golden> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../goldens");
    let entries = std::fs::read_dir(&folder).expect("goldens/ is part of the repository");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(files.len() >= 4, "goldens/ lost files: {files:?}");
    files.iter().map(|file| Golden::read(file)).collect()
}

impl Golden {
    fn read(config: &Path) -> Self {
        let text = std::fs::read_to_string(config).expect("a golden's config is text");
        let json: serde_json::Value = serde_json::from_str(&text).expect("a golden's config is JSON");
        let name = config.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let spec = config_json::parse(&text, &name).expect("a golden's config is a model");
        let seed = json["seed"].as_u64().expect("a golden has a seed");
        let weights = SyntheticWeights::new(&spec, SyntheticSpec { seed, outliers: false });
        let bytes = std::fs::read(config.with_extension("safetensors")).expect("a golden has tensors");
        let file = SafeTensors::deserialize(&bytes).expect("a golden's tensors are well-formed");
        let tensors = file.iter().map(|(name, tensor)| {
            assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
            let (values, _) = tensor.data().as_chunks::<4>();
            let data = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            (name.to_string(), Array { shape: tensor.shape().to_vec(), data })
        });
        Self { name, spec, weights, tensors: tensors.collect() }
    }

    /// A tensor of the file.
    pub fn tensor(&self, name: &str) -> &Array {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}.safetensors has no {name}", self.name))
    }

    /// Names of the tensors of stages, `stage.` included, with RoPE periods in f32.
    pub fn stages(&self) -> impl Iterator<Item = &str> {
        let names = self.tensors.keys().map(String::as_str);
        names.filter(|name| name.starts_with("stage.") && !name.ends_with(".rope_bf16"))
    }

    /// Both input images.
    pub fn batch(&self) -> ImageBatch<'_> {
        let input = self.tensor("input");
        let [count, 3, height_px, width_px] = input.shape[..] else { panic!("{}: odd input", self.name) };
        ImageBatch { pixels: &input.data, count, height_px, width_px }
    }

    /// Input image `index` alone.
    pub fn image(&self, index: usize) -> ImageBatch<'_> {
        ImageBatch { pixels: self.tensor("input").item(index), count: 1, ..self.batch() }
    }

    /// Fails unless image `index` of `found` is timm's within `tolerance` (relative).
    pub fn assert_near(&self, name: &str, index: usize, found: &[f32], tolerance: f64) {
        let expected = self.tensor(name).item(index);
        assert_eq!(found.len(), expected.len(), "{} {name}", self.name);
        let error = relative_error(found, expected);
        assert!(error <= tolerance, "{} {name}, image {index}: {error:.2e} > {tolerance:.1e}", self.name);
    }

    /// Fails unless everything that `encoder` delivers is timm's within `tolerance`: poolings, class scores, tokens
    /// and, with periods in f32, the map of every block or stage.
    pub fn assert_encoder_equals(&self, encoder: &mut dyn Encoder, periods: RopePeriods, tolerance: f64) {
        // A ConvNeXt has no RoPE.
        let suffix = if periods == RopePeriods::Bf16 && self.spec.vit().is_some() { ".rope_bf16" } else { "" };
        let mut features = Features::default();
        let request: Request = conformance::everything(&self.spec);
        encoder.encode(&self.batch(), &request, &mut features).expect("the goldens' input fits");
        let near = |name: &str, array: &Array| {
            assert_eq!(array.shape, self.tensor(name).shape, "{} {name}", self.name);
            (0..features.count).for_each(|index| self.assert_near(name, index, array.item(index), tolerance));
        };
        for (pooling, array) in &features.pooled {
            near(&format!("pool.{pooling}{suffix}"), array);
        }
        assert!(features.pooled.iter().any(|(pooling, _)| *pooling == Pooling::None));
        near(&format!("logits{suffix}"), features.logits.as_ref().expect("asked for"));
        let tokens = features.tokens.as_ref().expect("asked for");
        match self.spec.vit() {
            Some(_) => near(&format!("stage.norm{suffix}"), tokens),
            None => near("stage.3", tokens),
        }
        if !suffix.is_empty() {
            return;
        }
        assert_eq!(features.maps.len(), self.spec.depth());
        for map in &features.maps {
            match &map.prefix_tokens {
                None => near(&format!("stage.{}", map.index), &map.map),
                Some(prefix) => {
                    for index in 0..features.count {
                        // [D, h·w] behind the prefix tokens as [h·w, D].
                        let (d, patches) = (map.map.shape[1], map.map.shape[2] * map.map.shape[3]);
                        let values = map.map.item(index);
                        let mut tokens = prefix.item(index).to_vec();
                        tokens.extend((0..patches * d).map(|i| values[i % d * patches + i / d]));
                        self.assert_near(&format!("stage.block.{}", map.index), index, &tokens, tolerance);
                    }
                }
            }
        }
    }
}
