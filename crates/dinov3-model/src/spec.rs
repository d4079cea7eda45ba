//! The model table: adding a model is one row of data.
//!
//! Sources: timm's registry (1.0.31), Meta's hub code and the Hugging Face repositories of the DINOv3 release.

use serde::{Deserialize, Serialize};

/// Models with more parameters are refused before anything is allocated for them: more than twice the largest one.
pub const MOST_PARAMETERS: usize = 1 << 34;

/// Feed-forward network of a ViT block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mlp {
    /// fc2(gelu(fc1(x))), exact erf.
    Gelu,
    /// fc2(silu(fc1_g(x)) * fc1_x(x)).
    SwiGlu,
}

/// Everything that determines a ViT's computation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Vit {
    /// Embedding width D.
    pub embed_dim: usize,
    /// Number of blocks L.
    pub depth: usize,
    /// Attention heads; each has `embed_dim / heads` dimensions.
    pub heads: usize,
    /// Hidden width M of the feed-forward network.
    pub mlp_hidden: usize,
    /// Kind of feed-forward network.
    pub mlp: Mlp,
    /// Whether q and v have a bias (`_qkvb`); k never has one.
    pub qv_bias: bool,
    /// Side of a square patch.
    pub patch_px: usize,
    /// Register tokens between CLS and patches.
    pub registers: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Base of the RoPE periods.
    pub rope_base: f64,
    /// Classes of the head; 0 for no head.
    pub num_classes: usize,
}

impl Vit {
    /// CLS and registers.
    pub fn prefix_tokens(&self) -> usize {
        1 + self.registers
    }

    /// Dimensions of one attention head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim / self.heads
    }
}

/// Everything that determines a ConvNeXt's computation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ConvNext {
    /// Blocks per stage.
    pub depths: [usize; 4],
    /// Channels per stage.
    pub dims: [usize; 4],
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Classes of the head; 0 for no head.
    pub num_classes: usize,
}

/// One of the two families.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Architecture {
    /// Vision transformer with RoPE and registers.
    Vit(Vit),
    /// ConvNeXt.
    ConvNext(ConvNext),
}

/// Interpolation of the resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Keys' cubic, a = -0.5.
    Bicubic,
}

/// How a picture that does not fit the input is made to fit (timm's `crop_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CropMode {
    /// Short side to the size, centre crop.
    Center,
    /// Both sides to the size, aspect ratio ignored.
    Squash,
    /// Long side to the size, borders filled with the mean.
    Border,
}

/// timm's data config: what `resolve_model_data_config` returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DataConfig {
    /// Input height and width in pixels.
    pub input_px: (usize, usize),
    /// Filter of the resize.
    pub interpolation: Interpolation,
    /// Share of the resized picture that the crop keeps.
    pub crop_pct: f64,
    /// How the picture is made to fit.
    pub crop_mode: CropMode,
    /// Mean per channel, RGB, for pixels in [0, 1].
    pub mean: [f32; 3],
    /// Standard deviation per channel.
    pub std: [f32; 3],
}

/// ImageNet statistics, used with the web weights.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// See [`IMAGENET_MEAN`].
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Statistics of SAT-493M, used with the satellite weights.
pub const SAT493M_MEAN: [f32; 3] = [0.430, 0.411, 0.296];
/// See [`SAT493M_MEAN`].
pub const SAT493M_STD: [f32; 3] = [0.213, 0.156, 0.143];

/// A model: architecture, data config and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelSpec {
    /// timm's name with tag, `vit_large_patch16_dinov3.sat493m`; for a `config.json`, what it calls itself.
    pub name: String,
    /// The computation.
    pub architecture: Architecture,
    /// The preprocessing that timm would use.
    pub data: DataConfig,
    /// timm's default pooling.
    pub pooling: crate::encoder::Pooling,
    /// Licence of the published weights.
    pub license: String,
    /// Hugging Face repositories with these weights, ungated first.
    pub hub_ids: Vec<String>,
}

/// Name of a licence by its key, and where its text stands; `None` for the link where only the repository has it.
pub fn license(key: &str) -> (&str, Option<&'static str>) {
    match key {
        "dinov3-license" => {
            let link = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/";
            ("DINOv3 License", Some(link))
        }
        "fair-noncommercial-research-license" => ("FAIR Noncommercial Research License", None),
        other => (other, None),
    }
}

impl ModelSpec {
    /// The ViT, if it is one.
    pub fn vit(&self) -> Option<&Vit> {
        match &self.architecture {
            Architecture::Vit(vit) => Some(vit),
            Architecture::ConvNext(_) => None,
        }
    }

    /// The ConvNeXt, if it is one.
    pub fn convnext(&self) -> Option<&ConvNext> {
        match &self.architecture {
            Architecture::ConvNext(convnext) => Some(convnext),
            Architecture::Vit(_) => None,
        }
    }

    /// Blocks (ViT) or stages (ConvNeXt).
    pub fn depth(&self) -> usize {
        match &self.architecture {
            Architecture::Vit(vit) => vit.depth,
            Architecture::ConvNext(_) => 4,
        }
    }

    /// Width of an embedding.
    pub fn embed_dim(&self) -> usize {
        match &self.architecture {
            Architecture::Vit(vit) => vit.embed_dim,
            Architecture::ConvNext(convnext) => convnext.dims[3],
        }
    }

    /// Classes of the head; 0 for no head.
    pub fn num_classes(&self) -> usize {
        match &self.architecture {
            Architecture::Vit(vit) => vit.num_classes,
            Architecture::ConvNext(convnext) => convnext.num_classes,
        }
    }

    /// The same model with a head of `num_classes` classes (0 for none), as timm's `num_classes` argument gives.
    pub fn with_num_classes(mut self, num_classes: usize) -> Self {
        match &mut self.architecture {
            Architecture::Vit(vit) => vit.num_classes = num_classes,
            Architecture::ConvNext(convnext) => convnext.num_classes = num_classes,
        }
        self
    }

    /// Smallest side that the model can take: one patch, or 32 pixels for a ConvNeXt.
    pub fn minimum_side_px(&self) -> usize {
        self.vit().map_or(32, |vit| vit.patch_px)
    }

    /// Taps of timm's `features_only`: the last three blocks, or all four stages.
    pub fn default_taps(&self) -> Vec<usize> {
        match &self.architecture {
            Architecture::Vit(vit) => (vit.depth.saturating_sub(3)..vit.depth).collect(),
            Architecture::ConvNext(_) => (0..4).collect(),
        }
    }

    /// Parameters, as timm counts them.
    pub fn parameter_count(&self) -> usize {
        crate::tensors::tensors(self).iter().map(|tensor| tensor.elements()).sum()
    }
}

const GELU: Mlp = Mlp::Gelu;
const SWIGLU: Mlp = Mlp::SwiGlu;

/// One ViT architecture: timm's name, Meta's short name, D, L, heads, M, feed-forward network, has a `_qkvb` twin.
struct VitRow(&'static str, &'static str, usize, usize, usize, usize, Mlp, bool);

#[rustfmt::skip]
const VITS: [VitRow; 6] = [
    VitRow("small",      "vits16",     384,  12, 6,  1536, GELU,   true),
    VitRow("small_plus", "vits16plus", 384,  12, 6,  1536, SWIGLU, true),
    VitRow("base",       "vitb16",     768,  12, 12, 3072, GELU,   true),
    VitRow("large",      "vitl16",     1024, 24, 16, 4096, GELU,   true),
    VitRow("huge_plus",  "vith16plus", 1280, 32, 20, 5120, SWIGLU, true),
    VitRow("7b",         "vit7b16",    4096, 40, 32, 8192, SWIGLU, false),
];

/// One ConvNeXt architecture: name, depths, dims.
struct ConvNextRow(&'static str, [usize; 4], [usize; 4]);

#[rustfmt::skip]
const CONVNEXTS: [ConvNextRow; 4] = [
    ConvNextRow("tiny",  [3, 3, 9, 3],  [96, 192, 384, 768]),
    ConvNextRow("small", [3, 3, 27, 3], [96, 192, 384, 768]),
    ConvNextRow("base",  [3, 3, 27, 3], [128, 256, 512, 1024]),
    ConvNextRow("large", [3, 3, 27, 3], [192, 384, 768, 1536]),
];

/// A set of published weights: family, size, tag, hash at the end of Meta's file name. The first tag of a
/// size is its default.
struct WeightsRow(&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const WEIGHTS: [WeightsRow; 12] = [
    WeightsRow("vit",      "small",      "lvd1689m", "08c60483"),
    WeightsRow("vit",      "small_plus", "lvd1689m", "4057cbaa"),
    WeightsRow("vit",      "base",       "lvd1689m", "73cec8be"),
    WeightsRow("vit",      "large",      "lvd1689m", "8aa4cbdd"),
    WeightsRow("vit",      "large",      "sat493m",  "eadcf0ff"),
    WeightsRow("vit",      "huge_plus",  "lvd1689m", "7c1da9a5"),
    WeightsRow("vit",      "7b",         "lvd1689m", "a955f4ea"),
    WeightsRow("vit",      "7b",         "sat493m",  "a6675841"),
    WeightsRow("convnext", "tiny",       "lvd1689m", "21b726bb"),
    WeightsRow("convnext", "small",      "lvd1689m", "296db49d"),
    WeightsRow("convnext", "base",       "lvd1689m", "801f2ba9"),
    WeightsRow("convnext", "large",      "lvd1689m", "61fa432d"),
];

/// The EUPE encoders, which share the code path: timm's name and, for the one size of its own, its row.
#[rustfmt::skip]
const EUPE: [&str; 6] = [
    "vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m",
    "vit_small_patch16_dinov3_qkvb.eupe_lvd1689m",
    "vit_base_patch16_dinov3_qkvb.eupe_lvd1689m",
    "convnext_tiny.eupe_lvd1689m",
    "convnext_small.eupe_lvd1689m",
    "convnext_base.eupe_lvd1689m",
];

fn vit_architecture(row: &VitRow, qv_bias: bool) -> Architecture {
    let &VitRow(_, _, embed_dim, depth, heads, mlp_hidden, mlp, _) = row;
    Architecture::Vit(Vit {
        embed_dim,
        depth,
        heads,
        mlp_hidden,
        mlp,
        qv_bias,
        patch_px: 16,
        registers: 4,
        norm_eps: 1e-5,
        rope_base: 100.0,
        num_classes: 0,
    })
}

fn convnext_architecture(row: &ConvNextRow) -> Architecture {
    Architecture::ConvNext(ConvNext { depths: row.1, dims: row.2, norm_eps: 1e-6, num_classes: 0 })
}

pub(crate) fn data_config(side_px: usize, satellite: bool) -> DataConfig {
    DataConfig {
        input_px: (side_px, side_px),
        interpolation: Interpolation::Bicubic,
        crop_pct: 1.0,
        crop_mode: CropMode::Center,
        mean: if satellite { SAT493M_MEAN } else { IMAGENET_MEAN },
        std: if satellite { SAT493M_STD } else { IMAGENET_STD },
    }
}

/// Every model of the table, in the order of the release: ViTs by size, ConvNeXts by size, EUPE.
pub fn all() -> Vec<ModelSpec> {
    let mut specs = Vec::new();
    for &WeightsRow(family, size, tag, _) in &WEIGHTS {
        if family == "vit" {
            let row = VITS.iter().find(|row| row.0 == size).expect("every weights row names a size of the table");
            for qv_bias in [false, true] {
                if qv_bias && !row.7 {
                    continue;
                }
                let suffix = if qv_bias { "_qkvb" } else { "" };
                let name = format!("vit_{size}_patch16_dinov3{suffix}.{tag}");
                let facebook = format!("facebook/dinov3-{}-pretrain-{tag}", row.1);
                specs.push(spec(name, vit_architecture(row, qv_bias), data_config(256, tag == "sat493m"), facebook));
            }
        } else {
            let row = CONVNEXTS.iter().find(|row| row.0 == size).expect("every weights row names a size of the table");
            let name = format!("convnext_{size}.dinov3_{tag}");
            let facebook = format!("facebook/dinov3-convnext-{size}-pretrain-{tag}");
            specs.push(spec(name, convnext_architecture(row), data_config(224, false), facebook));
        }
    }
    for name in EUPE {
        let (family, rest) = name.split_once('_').expect("names have a family");
        let size = rest.split(['_', '.']).next().expect("names have a size");
        let architecture = match (family, size) {
            ("vit", "tiny") => vit_architecture(&VitRow("tiny", "", 192, 12, 3, 768, GELU, true), true),
            ("vit", _) => vit_architecture(VITS.iter().find(|row| row.0 == size).expect("a size of the table"), true),
            _ => convnext_architecture(CONVNEXTS.iter().find(|row| row.0 == size).expect("a size of the table")),
        };
        specs.push(ModelSpec {
            name: name.to_string(),
            architecture,
            data: data_config(256, false),
            pooling: crate::encoder::Pooling::Average,
            license: "fair-noncommercial-research-license".to_string(),
            hub_ids: vec![format!("timm/{name}")],
        });
    }
    specs
}

fn spec(name: String, architecture: Architecture, data: DataConfig, facebook: String) -> ModelSpec {
    let hub_ids = vec![format!("timm/{name}"), facebook];
    ModelSpec {
        name,
        architecture,
        data,
        pooling: crate::encoder::Pooling::Average,
        license: "dinov3-license".to_string(),
        hub_ids,
    }
}

/// Other names of a table row: hub ids, Meta's hub entry and file name. Without the tag too, where that is
/// unambiguous. `_qkvb` rows are reached by timm names only: the aliases mean the plain model.
pub fn aliases(name: &str) -> Vec<String> {
    let mut names = vec![format!("timm/{name}"), format!("hf-hub:timm/{name}")];
    if name.contains("eupe") || name.contains("_qkvb") {
        return names;
    }
    for &WeightsRow(family, size, tag, hash) in &WEIGHTS {
        let (this, short) = if family == "vit" {
            let row = VITS.iter().find(|row| row.0 == size).expect("every weights row names a size of the table");
            (format!("vit_{size}_patch16_dinov3.{tag}"), row.1.to_string())
        } else {
            (format!("convnext_{size}.dinov3_{tag}"), format!("convnext-{size}"))
        };
        if this == name {
            let meta = short.replace('-', "_");
            names.push(format!("facebook/dinov3-{short}-pretrain-{tag}"));
            names.push(format!("hf-hub:facebook/dinov3-{short}-pretrain-{tag}"));
            if tag == "lvd1689m" {
                names.push(format!("dinov3_{meta}"));
            }
            names.push(format!("dinov3_{meta}_{tag}"));
            names.push(format!("dinov3_{meta}_pretrain_{tag}-{hash}.pth"));
            names.push(format!("dinov3_{meta}_pretrain_{tag}-{hash}"));
        }
    }
    names
}

/// A model name that is not in the table.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("no model is called '{name}'; did you mean {}? ('dinov3 models' lists all)", .suggestions.join(", "))]
pub struct UnknownModel {
    /// The name as given.
    pub name: String,
    /// The closest names of the table.
    pub suggestions: Vec<String>,
}

/// Finds a model by timm name (with or without tag) or alias.
///
/// # Errors
/// [`UnknownModel`] with the closest names.
pub fn find(name: &str) -> Result<ModelSpec, UnknownModel> {
    let wanted = name.trim();
    let bare = wanted.strip_prefix("hf-hub:").unwrap_or(wanted);
    let bare = bare.strip_prefix("timm/").unwrap_or(bare);
    let specs = all();
    let exact = specs.iter().find(|spec| spec.name == wanted);
    // Without a tag, timm takes the first: lvd1689m. `convnext_tiny` alone is another model of timm's.
    let untagged =
        || specs.iter().find(|spec| spec.name.contains("_dinov3") && spec.name.split('.').next() == Some(bare));
    let alias = || specs.iter().find(|spec| aliases(&spec.name).iter().any(|alias| alias == wanted));
    if let Some(spec) = exact.or_else(untagged).or_else(alias) {
        return Ok(spec.clone());
    }
    // DINOv3 before EUPE, whose licence is another; then the closest.
    let mut scored: Vec<(bool, usize, String)> = specs
        .iter()
        .map(|spec| {
            // A name without a tag is compared with names without tags.
            let untagged = spec.name.split('.').next().unwrap_or_default();
            let distance = edit_distance(bare, if bare.contains('.') { &spec.name } else { untagged });
            (spec.name.contains("eupe") && !bare.contains("eupe"), distance, spec.name.clone())
        })
        .collect();
    scored.sort();
    let suggestions = scored.into_iter().take(3).map(|(_, _, name)| name).collect();
    Err(UnknownModel { name: name.chars().take(200).collect(), suggestions })
}

/// Levenshtein distance, for suggestions. Long input is cut: it cannot be a name.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(100).collect();
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_those_of_timm() {
        for (name, parameters, tensors) in [
            ("vit_small_patch16_dinov3", 21_586_944, 162),
            ("vit_small_patch16_dinov3_qkvb", 21_596_160, 186),
            ("vit_small_plus_patch16_dinov3", 28_683_264, 186),
            ("vit_small_plus_patch16_dinov3_qkvb", 28_692_480, 210),
            ("vit_base_patch16_dinov3", 85_641_216, 162),
            ("vit_base_patch16_dinov3_qkvb", 85_659_648, 186),
            ("vit_large_patch16_dinov3", 303_079_424, 318),
            ("vit_large_patch16_dinov3_qkvb", 303_128_576, 366),
            ("vit_huge_plus_patch16_dinov3", 840_509_440, 486),
            ("vit_huge_plus_patch16_dinov3_qkvb", 840_591_360, 550),
            ("vit_7b_patch16_dinov3", 6_716_030_976, 606),
            ("vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", 5_489_664, 186),
            ("convnext_tiny.dinov3_lvd1689m", 27_820_128, 180),
            ("convnext_small.dinov3_lvd1689m", 49_454_688, 342),
            ("convnext_base.dinov3_lvd1689m", 87_566_464, 342),
            ("convnext_large.dinov3_lvd1689m", 196_230_336, 342),
        ] {
            let spec = find(name).unwrap();
            assert_eq!(spec.parameter_count(), parameters, "{name}");
            assert_eq!(crate::tensors::tensors(&spec).len(), tensors, "{name}");
        }
    }

    #[test]
    fn names_tags_and_aliases_lead_to_the_same_row() {
        for (alias, name) in [
            ("vit_7b_patch16_dinov3", "vit_7b_patch16_dinov3.lvd1689m"),
            ("facebook/dinov3-vit7b16-pretrain-sat493m", "vit_7b_patch16_dinov3.sat493m"),
            ("dinov3_vit7b16_pretrain_sat493m-a6675841.pth", "vit_7b_patch16_dinov3.sat493m"),
            ("timm/vit_large_patch16_dinov3.sat493m", "vit_large_patch16_dinov3.sat493m"),
            ("hf-hub:timm/convnext_base.dinov3_lvd1689m", "convnext_base.dinov3_lvd1689m"),
            ("timm/vit_small_patch16_dinov3", "vit_small_patch16_dinov3.lvd1689m"),
            ("hf-hub:timm/vit_small_patch16_dinov3", "vit_small_patch16_dinov3.lvd1689m"),
            ("dinov3_convnext_tiny", "convnext_tiny.dinov3_lvd1689m"),
            ("dinov3_vits16plus", "vit_small_plus_patch16_dinov3.lvd1689m"),
            ("vit_small_patch16_dinov3_qkvb", "vit_small_patch16_dinov3_qkvb.lvd1689m"),
        ] {
            assert_eq!(find(alias).unwrap().name, name);
        }
        let names: Vec<String> = all().into_iter().map(|spec| spec.name).collect();
        let mut every: Vec<String> = names.iter().flat_map(|name| aliases(name)).chain(names.clone()).collect();
        let count = every.len();
        every.sort();
        every.dedup();
        assert_eq!(every.len(), count, "an alias stands for two models");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_closest() {
        let error = find("vit_larg_patch16_dinov3.sat493m").unwrap_err();
        assert_eq!(error.suggestions[0], "vit_large_patch16_dinov3.sat493m");
        assert!(find("convnext_tiny").is_err(), "timm gives this name to another model");
    }

    #[test]
    fn satellite_weights_have_their_own_statistics() {
        assert_eq!(find("vit_large_patch16_dinov3.sat493m").unwrap().data.mean, SAT493M_MEAN);
        assert_eq!(find("vit_large_patch16_dinov3.lvd1689m").unwrap().data.mean, IMAGENET_MEAN);
        assert_eq!(find("convnext_tiny.dinov3_lvd1689m").unwrap().data.input_px, (224, 224));
    }
}
