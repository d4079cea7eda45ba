//! A `config.json` of timm or Transformers style as a model.

use serde_json::Value;

use crate::encoder::Pooling;
use crate::spec::{self, Architecture, ConvNext, CropMode, DataConfig, Interpolation, Mlp, ModelSpec, Vit};

/// Why a `config.json` is not a model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON, or not an object.
    #[error("not a JSON object: {reason}")]
    NotJson {
        /// The parser's reason.
        reason: String,
    },
    /// Neither style.
    #[error(
        "neither a timm config (\"architecture\") nor a Transformers one (\"model_type\": dinov3_vit or dinov3_convnext)"
    )]
    UnknownStyle,
    /// A model of another family.
    #[error("\"{field}\" is \"{found}\", which is not a DINOv3 encoder")]
    OtherModel {
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// A field is missing or has a value that cannot be.
    #[error("field \"{field}\" {reason}")]
    BadField {
        /// The field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

fn bad(field: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::BadField { field: field.to_string(), reason: reason.into() }
}

/// The largest value that any size field may have: far above every model, far below what could overflow.
const LARGEST: u64 = 1 << 20;

struct Fields<'a> {
    object: &'a serde_json::Map<String, Value>,
    prefix: &'static str,
}

impl Fields<'_> {
    fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    fn size(&self, field: &str) -> Result<Option<usize>, ConfigError> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if number <= LARGEST => Ok(Some(number as usize)),
                _ => Err(bad(&self.name(field), format!("must be a whole number from 0 to {LARGEST}"))),
            },
        }
    }

    fn float(&self, field: &str) -> Result<Option<f64>, ConfigError> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number.is_finite() => Ok(Some(number)),
                _ => Err(bad(&self.name(field), "must be a number")),
            },
        }
    }

    fn flag(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(bad(&self.name(field), "must be true or false")),
        }
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.object.get(field).and_then(Value::as_str)
    }

    fn sizes<const N: usize>(&self, field: &str) -> Result<Option<[usize; N]>, ConfigError> {
        let Some(value) = self.object.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
        let wrong = || bad(&self.name(field), format!("must be a list of {N} whole numbers"));
        let list = value.as_array().filter(|list| list.len() == N).ok_or_else(wrong)?;
        let mut sizes = [0; N];
        for (size, value) in sizes.iter_mut().zip(list) {
            *size = value.as_u64().filter(|&number| number <= LARGEST).ok_or_else(wrong)? as usize;
        }
        Ok(Some(sizes))
    }

    fn channels(&self, field: &str) -> Result<Option<[f32; 3]>, ConfigError> {
        let Some(value) = self.object.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
        let wrong = || bad(&self.name(field), "must be a list of 3 numbers");
        let list = value.as_array().filter(|list| list.len() == 3).ok_or_else(wrong)?;
        let mut channels = [0.0; 3];
        for (channel, value) in channels.iter_mut().zip(list) {
            *channel = value.as_f64().filter(|number| number.is_finite()).ok_or_else(wrong)? as f32;
        }
        Ok(Some(channels))
    }
}

impl Fields<'_> {
    /// Refuses timm arguments that would change the computation in a way that is not known here.
    fn understood(&self, architecture: &Architecture) -> Result<(), ConfigError> {
        // Read elsewhere, or without effect on inference.
        const COMMON: [&str; 5] = ["num_classes", "global_pool", "drop_rate", "drop_path_rate", "head_init_scale"];
        const VIT: [&str; 17] = [
            "embed_dim",
            "depth",
            "num_heads",
            "patch_size",
            "num_reg_tokens",
            "qkv_bias",
            "mlp_ratio",
            "swiglu_align_to",
            "rope_temperature",
            "img_size",
            "dynamic_img_size",
            "init_values",
            "pos_drop_rate",
            "patch_drop_rate",
            "proj_drop_rate",
            "attn_drop_rate",
            "qkv_fused",
        ];
        const CONVNEXT: [&str; 4] = ["depths", "dims", "norm_eps", "ls_init_value"];
        let own: &[&str] = if matches!(architecture, Architecture::Vit(_)) { &VIT } else { &CONVNEXT };
        let swiglu = matches!(architecture, Architecture::Vit(vit) if vit.mlp == Mlp::SwiGlu);
        for (field, value) in self.object {
            let field = field.as_str();
            if COMMON.contains(&field) || own.contains(&field) || value.is_null() {
                continue;
            }
            // The values that every DINOv3 model has anyway.
            let expected = match field {
                "in_chans" => Value::from(3),
                "swiglu_mlp" => Value::from(swiglu),
                "use_rot_pos_emb" | "rope_rotate_half" | "class_token" => Value::from(true),
                "use_abs_pos_emb" | "use_fc_norm" | "qk_norm" | "dynamic_img_pad" | "scale_mlp" => Value::from(false),
                "rope_type" => Value::from("dinov3"),
                _ => return Err(bad(&self.name(field), "is not known here: it may change what the model computes")),
            };
            if *value != expected {
                return Err(bad(&self.name(field), format!("is {value}, but DINOv3 encoders have {expected}")));
            }
        }
        Ok(())
    }
}

/// Reads a `config.json`; `name` is what the model is called if the file does not say (its path, say).
///
/// # Errors
/// The first field that is missing or impossible, by name.
pub fn parse(text: &str, name: &str) -> Result<ModelSpec, ConfigError> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| ConfigError::NotJson { reason: error.to_string() })?;
    let object = value.as_object().ok_or(ConfigError::NotJson { reason: "the top level is not an object".into() })?;
    let fields = Fields { object, prefix: "" };
    let spec = if let Some(architecture) = fields.text("architecture") {
        timm(&fields, architecture, name)?
    } else {
        match fields.text("model_type") {
            Some("dinov3_vit") => transformers_vit(&fields, name)?,
            Some("dinov3_convnext") => transformers_convnext(&fields, name)?,
            Some(other) => return Err(ConfigError::OtherModel { field: "model_type", found: other.to_string() }),
            None => return Err(ConfigError::UnknownStyle),
        }
    };
    validate(&spec)?;
    Ok(spec)
}

fn timm(fields: &Fields<'_>, architecture: &str, name: &str) -> Result<ModelSpec, ConfigError> {
    let other = || ConfigError::OtherModel { field: "architecture", found: architecture.to_string() };
    let empty = serde_json::Map::new();
    let object = |field: &str| fields.object.get(field).and_then(Value::as_object).unwrap_or(&empty);
    let data = Fields { object: object("pretrained_cfg"), prefix: "pretrained_cfg." };
    let args = Fields { object: object("model_args"), prefix: "model_args." };

    // A tag in the file picks the row with its statistics; without one the architecture's first row serves.
    let tag = data.text("tag").unwrap_or("");
    let base = [format!("{architecture}.{tag}"), architecture.to_string(), format!("{architecture}.dinov3_lvd1689m")]
        .iter()
        .find_map(|candidate| spec::find(candidate).ok())
        .ok_or_else(other)?;

    args.understood(&base.architecture)?;
    let mut model = base.clone();
    model.name = match tag {
        "" => format!("{architecture} ({name})"),
        tag => format!("{architecture}.{tag}"),
    };
    match &mut model.architecture {
        Architecture::Vit(vit) => vit_args(vit, &args)?,
        Architecture::ConvNext(convnext) => {
            convnext.depths = args.sizes("depths")?.unwrap_or(convnext.depths);
            convnext.dims = args.sizes("dims")?.unwrap_or(convnext.dims);
            convnext.norm_eps = args.float("norm_eps")?.unwrap_or(convnext.norm_eps);
        }
    }
    if model.architecture != base.architecture {
        model.name = format!("{architecture} ({name})");
    }
    let classes = args.size("num_classes")?.or(fields.size("num_classes")?).unwrap_or(0);
    model = model.with_num_classes(classes);
    if let Some(pooling) = args.text("global_pool").or(fields.text("global_pool")) {
        model.pooling = Pooling::from_name(pooling)
            .ok_or_else(|| bad("global_pool", format!("is '{pooling}', which is unknown")))?;
    }
    timm_data(&mut model.data, &data)?;
    if let Some(license) = data.text("license") {
        model.license = license.to_string();
    }
    Ok(model)
}

fn vit_args(vit: &mut Vit, args: &Fields<'_>) -> Result<(), ConfigError> {
    // The row's own ratio (2 for the 7B, 4 for all others) and alignment hold unless the arguments replace them.
    let row_ratio = vit.mlp_hidden as f64 / vit.embed_dim as f64;
    let row_align = match vit.mlp {
        Mlp::Gelu => 1,
        Mlp::SwiGlu if vit.embed_dim == 4096 => 64,
        Mlp::SwiGlu => 8,
    };
    vit.embed_dim = args.size("embed_dim")?.unwrap_or(vit.embed_dim);
    vit.depth = args.size("depth")?.unwrap_or(vit.depth);
    vit.heads = args.size("num_heads")?.unwrap_or(vit.heads);
    vit.patch_px = args.size("patch_size")?.unwrap_or(vit.patch_px);
    vit.registers = args.size("num_reg_tokens")?.unwrap_or(vit.registers);
    vit.qv_bias = args.flag("qkv_bias")?.unwrap_or(vit.qv_bias);
    vit.rope_base = args.float("rope_temperature")?.unwrap_or(vit.rope_base);
    let ratio = match args.float("mlp_ratio")? {
        Some(ratio) if ratio > 0.0 && ratio <= 64.0 => ratio,
        Some(_) => return Err(bad("model_args.mlp_ratio", "must be above 0 and at most 64")),
        None => row_ratio,
    };
    let align = match (args.size("swiglu_align_to")?, vit.mlp) {
        (_, Mlp::Gelu) => 1,
        (Some(align), Mlp::SwiGlu) => align.max(1),
        (None, Mlp::SwiGlu) => row_align,
    };
    vit.mlp_hidden = ((vit.embed_dim as f64 * ratio) as usize).div_ceil(align) * align;
    Ok(())
}

fn timm_data(data: &mut DataConfig, fields: &Fields<'_>) -> Result<(), ConfigError> {
    if let Some([channels, height, width]) = fields.sizes("input_size")? {
        if channels != 3 {
            return Err(bad("pretrained_cfg.input_size", "must have 3 channels"));
        }
        data.input_px = (height, width);
    }
    data.mean = fields.channels("mean")?.unwrap_or(data.mean);
    data.std = fields.channels("std")?.unwrap_or(data.std);
    data.crop_pct = fields.float("crop_pct")?.unwrap_or(data.crop_pct);
    if let Some(mode) = fields.text("crop_mode") {
        data.crop_mode = match mode {
            "center" => CropMode::Center,
            "squash" => CropMode::Squash,
            "border" => CropMode::Border,
            other => return Err(bad("pretrained_cfg.crop_mode", format!("is '{other}', which is unknown"))),
        };
    }
    if let Some(interpolation) = fields.text("interpolation") {
        data.interpolation = match interpolation {
            "bicubic" => Interpolation::Bicubic,
            "bilinear" => Interpolation::Bilinear,
            other => {
                return Err(bad(
                    "pretrained_cfg.interpolation",
                    format!("is '{other}'; bicubic and bilinear are known"),
                ));
            }
        };
    }
    Ok(())
}

/// A published config carries the name of its repository: the table row of that name gives statistics and licence,
/// if it is the same architecture. Transformers' configs announce q and v biases that the released weights have as
/// zeros; such a config means the row's `_qkvb` twin.
fn named(architecture: Architecture, fields: &Fields<'_>, name: &str, side_px: usize) -> ModelSpec {
    let repository = fields.text("_name_or_path").unwrap_or("");
    let row = [repository, name].into_iter().find_map(|text| spec::find(text).ok());
    let twin = row.as_ref().and_then(|row| spec::find(&row.name.replacen("_dinov3", "_dinov3_qkvb", 1)).ok());
    if let Some(row) = row.into_iter().chain(twin).find(|row| row.architecture == architecture) {
        return row;
    }
    let satellite = repository.contains("sat493m") || name.contains("sat493m");
    ModelSpec {
        name: name.to_string(),
        architecture,
        data: spec::data_config(side_px, satellite),
        pooling: Pooling::Average,
        license: "dinov3-license".to_string(),
        hub_ids: Vec::new(),
    }
}

fn transformers_vit(fields: &Fields<'_>, name: &str) -> Result<ModelSpec, ConfigError> {
    let need = |field: &str| fields.size(field)?.ok_or_else(|| bad(field, "is missing"));
    if fields.flag("key_bias")? == Some(true) {
        return Err(bad("key_bias", "is true; DINOv3 encoders have no k bias"));
    }
    if fields.size("num_channels")?.is_some_and(|channels| channels != 3) {
        return Err(bad("num_channels", "must be 3"));
    }
    let gated = fields.flag("use_gated_mlp")?.unwrap_or(false);
    match (fields.text("hidden_act").unwrap_or("gelu"), gated) {
        ("gelu", false) | ("silu", true) => {}
        (other, _) => {
            return Err(bad("hidden_act", format!("is '{other}'; gelu, or silu with use_gated_mlp, is known")));
        }
    }
    for field in ["proj_bias", "mlp_bias"] {
        if fields.flag(field)? == Some(false) {
            return Err(bad(field, "is false; DINOv3 encoders have this bias"));
        }
    }
    let (query, value) = (fields.flag("query_bias")?.unwrap_or(true), fields.flag("value_bias")?.unwrap_or(true));
    if query != value {
        return Err(bad("value_bias", "must equal query_bias"));
    }
    let architecture = Architecture::Vit(Vit {
        embed_dim: need("hidden_size")?,
        depth: need("num_hidden_layers")?,
        heads: need("num_attention_heads")?,
        mlp_hidden: need("intermediate_size")?,
        mlp: if gated { Mlp::SwiGlu } else { Mlp::Gelu },
        qv_bias: query,
        patch_px: fields.size("patch_size")?.unwrap_or(16),
        registers: fields.size("num_register_tokens")?.unwrap_or(0),
        norm_eps: fields.float("layer_norm_eps")?.unwrap_or(1e-5),
        rope_base: fields.float("rope_theta")?.unwrap_or(100.0),
        num_classes: 0,
    });
    Ok(named(architecture, fields, name, 256))
}

fn transformers_convnext(fields: &Fields<'_>, name: &str) -> Result<ModelSpec, ConfigError> {
    if fields.size("num_channels")?.is_some_and(|channels| channels != 3) {
        return Err(bad("num_channels", "must be 3"));
    }
    if fields.text("hidden_act").is_some_and(|act| act != "gelu") {
        return Err(bad("hidden_act", "must be gelu"));
    }
    let architecture = Architecture::ConvNext(ConvNext {
        depths: fields.sizes("depths")?.ok_or_else(|| bad("depths", "is missing"))?,
        dims: fields.sizes("hidden_sizes")?.ok_or_else(|| bad("hidden_sizes", "is missing"))?,
        norm_eps: fields.float("layer_norm_eps")?.unwrap_or(1e-6),
        num_classes: 0,
    });
    Ok(named(architecture, fields, name, 224))
}

/// Refuses numbers that no computation could use, before anything is allocated from them.
pub(crate) fn validate(spec: &ModelSpec) -> Result<(), ConfigError> {
    let eps = match &spec.architecture {
        Architecture::Vit(vit) => {
            let positive = [
                ("embed_dim", vit.embed_dim),
                ("depth", vit.depth),
                ("num_heads", vit.heads),
                ("mlp hidden size", vit.mlp_hidden),
                ("patch_size", vit.patch_px),
            ];
            for (field, value) in positive {
                if value == 0 {
                    return Err(bad(field, "must be at least 1"));
                }
            }
            if vit.embed_dim % vit.heads != 0 || vit.head_dim() % 4 != 0 {
                return Err(bad(
                    "num_heads",
                    format!(
                        "{} must divide the width {} into heads whose size is a multiple of 4",
                        vit.heads, vit.embed_dim
                    ),
                ));
            }
            for (field, value, largest) in [
                ("depth", vit.depth, 1024),
                ("embed_dim", vit.embed_dim, 65_536),
                ("mlp hidden size", vit.mlp_hidden, 1 << 20),
                ("patch_size", vit.patch_px, 512),
                ("num_reg_tokens", vit.registers, 4096),
            ] {
                if value > largest {
                    return Err(bad(field, format!("is {value}, above the limit of {largest}")));
                }
            }
            if !(vit.rope_base > 1.0 && vit.rope_base < 1e12) {
                return Err(bad("rope base", "must be above 1 and below 1e12"));
            }
            vit.norm_eps
        }
        Architecture::ConvNext(convnext) => {
            for (&depth, &dim) in convnext.depths.iter().zip(&convnext.dims) {
                if dim == 0 || dim > 65_536 || depth > 1024 {
                    return Err(bad("depths and dims", "must be at most 1024 blocks and 1 to 65536 channels"));
                }
            }
            convnext.norm_eps
        }
    };
    let parameters = spec.parameter_count();
    if parameters > spec::MOST_PARAMETERS {
        return Err(bad(
            "model size",
            format!("{parameters} parameters, above the limit of {}", spec::MOST_PARAMETERS),
        ));
    }
    if !(1e-20..1.0).contains(&eps) {
        return Err(bad("norm epsilon", "must be at least 1e-20 and below 1"));
    }
    let data = &spec.data;
    if data.input_px.0 == 0 || data.input_px.1 == 0 || data.input_px.0 > 65_535 || data.input_px.1 > 65_535 {
        return Err(bad("input_size", "must be 1 to 65535 pixels"));
    }
    if !(data.crop_pct > 0.01 && data.crop_pct <= 1.0) {
        return Err(bad("crop_pct", "must be above 0.01 and at most 1"));
    }
    // Finite in the file is not finite as f32, and a pixel divided by next to nothing is not finite either.
    if data.mean.iter().any(|mean| !(-1e6..=1e6).contains(mean)) {
        return Err(bad("mean", "must be from -1e6 to 1e6"));
    }
    if data.std.iter().any(|std| !(1e-6..=1e6).contains(std)) {
        return Err(bad("std", "must be from 1e-6 to 1e6"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timm_config_gives_its_row() {
        let text = r#"{"architecture": "vit_large_patch16_dinov3", "num_classes": 0, "global_pool": "avg",
            "pretrained_cfg": {"tag": "sat493m", "input_size": [3, 256, 256], "interpolation": "bicubic",
            "crop_pct": 1.0, "crop_mode": "center", "mean": [0.43, 0.411, 0.296], "std": [0.213, 0.156, 0.143]}}"#;
        let row = spec::find("vit_large_patch16_dinov3.sat493m").unwrap();
        let parsed = parse(text, "config.json").unwrap();
        assert_eq!((&parsed.name, &parsed.architecture, &parsed.data), (&row.name, &row.architecture, &row.data));
    }

    #[test]
    fn model_args_change_the_architecture() {
        let text = r#"{"architecture": "vit_small_plus_patch16_dinov3_qkvb", "num_classes": 7, "global_pool": "token",
            "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 2, "mlp_ratio": 3}}"#;
        let parsed = parse(text, "x.json").unwrap();
        let vit = parsed.vit().unwrap();
        assert_eq!((vit.embed_dim, vit.depth, vit.heads, vit.mlp_hidden, vit.num_classes), (64, 2, 2, 192, 7));
        assert!(vit.qv_bias && parsed.pooling == Pooling::Token && parsed.name.contains("x.json"));
    }

    #[test]
    fn a_transformers_config_gives_its_architecture() {
        let text = r#"{"model_type": "dinov3_vit", "_name_or_path": "facebook/dinov3-vit7b16-pretrain-sat493m",
            "hidden_size": 4096, "intermediate_size": 8192, "num_hidden_layers": 40, "num_attention_heads": 32,
            "hidden_act": "silu", "use_gated_mlp": true, "num_register_tokens": 4, "patch_size": 16,
            "layer_norm_eps": 1e-05, "rope_theta": 100.0, "query_bias": false, "key_bias": false, "value_bias": false}"#;
        assert_eq!(parse(text, "c").unwrap().name, "vit_7b_patch16_dinov3.sat493m");
        let text = r#"{"model_type": "dinov3_convnext", "hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]}"#;
        let tiny = spec::find("convnext_tiny.dinov3_lvd1689m").unwrap();
        assert_eq!(parse(text, "c").unwrap().architecture, tiny.architecture);
    }

    #[test]
    fn a_satellite_config_of_transformers_keeps_its_statistics() {
        let text = r#"{"model_type": "dinov3_vit", "_name_or_path": "facebook/dinov3-vitl16-pretrain-sat493m",
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
            "num_register_tokens": 4, "query_bias": true, "value_bias": true}"#;
        let parsed = parse(text, "config.json").unwrap();
        assert_eq!(parsed.name, "vit_large_patch16_dinov3_qkvb.sat493m");
        assert_eq!(parsed.data.mean, spec::SAT493M_MEAN);
    }

    #[test]
    fn the_hidden_width_follows_the_architecture_not_the_width() {
        let hidden = |architecture: &str, dim: usize| {
            let text =
                format!(r#"{{"architecture": "{architecture}", "model_args": {{"embed_dim": {dim}, "depth": 1}}}}"#);
            parse(&text, "c").unwrap().vit().unwrap().mlp_hidden
        };
        // timm 1.0.31 gives the same.
        assert_eq!(hidden("vit_7b_patch16_dinov3", 128), 256);
        assert_eq!(hidden("vit_small_plus_patch16_dinov3", 72), 288);
        assert_eq!(hidden("vit_small_patch16_dinov3", 72), 288);
    }

    #[test]
    fn impossible_configs_are_refused_by_field() {
        for (text, expected) in [
            ("[]", "not a JSON object"),
            ("{", "not a JSON object"),
            ("{}", "neither a timm config"),
            (r#"{"architecture": "resnet50"}"#, "not a DINOv3 encoder"),
            (r#"{"model_type": "bert"}"#, "not a DINOv3 encoder"),
            (r#"{"model_type": "dinov3_vit", "hidden_size": 64}"#, "num_hidden_layers"),
            (r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": -1}}"#, "embed_dim"),
            (r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"depth": 1e30}}"#, "depth"),
            (r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"num_heads": 7}}"#, "num_heads"),
            (r#"{"architecture": "convnext_tiny", "pretrained_cfg": {"mean": [0, 1e300, 0]}}"#, "mean"),
            (r#"{"architecture": "convnext_tiny", "pretrained_cfg": {"std": [1, 1e-40, 1]}}"#, "std"),
            (r#"{"architecture": "convnext_tiny", "model_args": {"norm_eps": 1e-60}}"#, "norm epsilon"),
            (r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"use_fc_norm": true}}"#, "use_fc_norm"),
            (r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"rope_type": "mixed"}}"#, "rope_type"),
            (r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"fancy": 1}}"#, "fancy"),
            (
                r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 65536, "depth": 1024, "num_heads": 512}}"#,
                "parameters",
            ),
            (r#"{"architecture": "vit_small_patch16_dinov3", "pretrained_cfg": {"std": [0, 1, 1]}}"#, "std"),
            (r#"{"architecture": "vit_small_patch16_dinov3", "pretrained_cfg": {"crop_pct": 0}}"#, "crop_pct"),
        ] {
            let error = parse(text, "c").unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
