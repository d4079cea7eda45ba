//! The three dialects of checkpoint keys, and which tensor (or part of one) each key stands for.
//!
//! timm, Transformers and Meta store the same numbers under other names; linear weights are [out, in] in all
//! three, so nothing is transposed. Transformers splits qkv; Meta fuses the q, k and v biases.

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// timm's safetensors.
    Timm,
    /// Hugging Face Transformers.
    Transformers,
    /// Meta's release.
    Meta,
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dialect::Timm => "timm",
            Dialect::Transformers => "Transformers",
            Dialect::Meta => "Meta",
        })
    }
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meaning {
    /// The whole of a timm tensor.
    Whole(String),
    /// Rows `third * D .. (third + 1) * D` of a timm tensor with 3·D rows.
    Third {
        /// timm's name.
        tensor: String,
        /// 0 for q, 1 for k, 2 for v.
        third: usize,
    },
    /// Meta's fused [3·D] bias: its first third is `q_bias`, its last `v_bias`; the k third is ignored.
    FusedBias {
        /// `blocks.N.attn`.
        attention: String,
    },
    /// A bias of k, which DINOv3 has not: it must be zero.
    KeyBias {
        /// `blocks.N.attn`.
        attention: String,
    },
    /// Not used at inference.
    Ignored(&'static str),
    /// No tensor of a DINOv3 encoder.
    Unexpected,
}

/// A key without what wrappers put before it: Transformers' `model.`, the `backbone.` of Meta's training checkpoints,
/// and the prefixes of PyTorch's data parallelism and compiler.
pub fn plain(mut key: &str) -> &str {
    while let Some(rest) =
        ["model.", "backbone.", "module.", "_orig_mod."].iter().find_map(|prefix| key.strip_prefix(prefix))
    {
        key = rest;
    }
    key
}

/// Finds the dialect from the keys. A few telling names decide.
pub fn detect<'a>(keys: impl Iterator<Item = &'a str>) -> Option<Dialect> {
    for key in keys {
        let plain = plain(key);
        if plain == "storage_tokens" || plain.starts_with("downsample_layers.") {
            return Some(Dialect::Meta);
        }
        if plain.starts_with("embeddings.") || plain.starts_with("stages.0.downsample_layers.") {
            return Some(Dialect::Transformers);
        }
        if plain == "reg_token" || plain.starts_with("stem.") || plain.starts_with("stem_") {
            return Some(Dialect::Timm);
        }
        // Models without registers are told by their LayerScale.
        if plain.starts_with("blocks.0.ls1.") {
            return Some(Dialect::Meta);
        }
        if plain == "blocks.0.gamma_1" {
            return Some(Dialect::Timm);
        }
    }
    None
}

/// What `key` stands for in `dialect`.
pub fn meaning(dialect: Dialect, key: &str) -> Meaning {
    let key = plain(key);
    if key.split('.').any(|part| matches!(part, "rope" | "rope_embed" | "rope_embeddings")) {
        return Meaning::Ignored("RoPE periods are computed, not loaded");
    }
    if key == "mask_token" || key == "embeddings.mask_token" {
        return Meaning::Ignored("the mask token is used in training only");
    }
    if key.ends_with(".bias_mask") {
        return Meaning::Ignored("the bias mask only blanks the k third, which is dropped");
    }
    if key.starts_with("local_cls_norm.") {
        return Meaning::Ignored("the norm of local crops is used in training only");
    }
    if key.starts_with("dino_head.") || key.starts_with("ibot_head.") {
        return Meaning::Ignored("the DINO and iBOT heads are used in training only");
    }
    if key.starts_with("projectors.") {
        return Meaning::Ignored("projectors are used in training only");
    }
    match dialect {
        Dialect::Timm => timm(key),
        Dialect::Transformers => transformers(key),
        Dialect::Meta => meta(key),
    }
}

fn timm(key: &str) -> Meaning {
    // `features_only` ConvNeXts flatten the first level of names.
    for (flat, nested) in [("stem_", "stem."), ("stages_", "stages.")] {
        if let Some(rest) = key.strip_prefix(flat) {
            return Meaning::Whole(format!("{nested}{rest}"));
        }
    }
    if let Some(attention) = key.strip_suffix(".k_bias").filter(|attention| attention.ends_with(".attn")) {
        return Meaning::KeyBias { attention: attention.to_string() };
    }
    Meaning::Whole(key.to_string())
}

fn transformers(key: &str) -> Meaning {
    let whole = |name: String| Meaning::Whole(name);
    match key {
        "embeddings.cls_token" => return whole("cls_token".into()),
        "embeddings.register_tokens" => return whole("reg_token".into()),
        _ => {}
    }
    if let Some(leaf) = key.strip_prefix("embeddings.patch_embeddings.") {
        return whole(format!("patch_embed.proj.{leaf}"));
    }
    if let Some(leaf) = key.strip_prefix("layer_norm.") {
        return whole(format!("head.norm.{leaf}"));
    }
    if key.starts_with("norm.") {
        return whole(key.to_string());
    }
    if let Some((block, rest)) = indexed(key, "layer.") {
        let block = format!("blocks.{block}");
        let Some((module, leaf)) = rest.rsplit_once('.') else { return Meaning::Unexpected };
        let third = |third| Meaning::Third { tensor: format!("{block}.attn.qkv.weight"), third };
        return match (module, leaf) {
            ("norm1" | "norm2", _) => whole(format!("{block}.{rest}")),
            ("attention.q_proj", "weight") => third(0),
            ("attention.k_proj", "weight") => third(1),
            ("attention.v_proj", "weight") => third(2),
            ("attention.q_proj", "bias") => whole(format!("{block}.attn.q_bias")),
            ("attention.k_proj", "bias") => Meaning::KeyBias { attention: format!("{block}.attn") },
            ("attention.v_proj", "bias") => whole(format!("{block}.attn.v_bias")),
            ("attention.o_proj", _) => whole(format!("{block}.attn.proj.{leaf}")),
            ("layer_scale1", "lambda1") => whole(format!("{block}.gamma_1")),
            ("layer_scale2", "lambda1") => whole(format!("{block}.gamma_2")),
            // up_proj is fc1 in plain models and the value branch in gated ones: see `resolve`.
            ("mlp.up_proj", _) => whole(format!("{block}.mlp.up_proj.{leaf}")),
            ("mlp.gate_proj", _) => whole(format!("{block}.mlp.fc1_g.{leaf}")),
            ("mlp.down_proj", _) => whole(format!("{block}.mlp.fc2.{leaf}")),
            _ => Meaning::Unexpected,
        };
    }
    if let Some((stage, rest)) = indexed(key, "stages.") {
        if let Some((layer, leaf)) = indexed(rest, "downsample_layers.") {
            return whole(match stage {
                0 => format!("stem.{layer}.{leaf}"),
                _ => format!("stages.{stage}.downsample.{layer}.{leaf}"),
            });
        }
        if let Some((block, rest)) = indexed(rest, "layers.") {
            return convnext_block(
                stage,
                block,
                rest,
                ["depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2"],
            );
        }
    }
    Meaning::Unexpected
}

fn meta(key: &str) -> Meaning {
    let whole = |name: String| Meaning::Whole(name);
    if key == "storage_tokens" {
        return whole("reg_token".into());
    }
    if key == "cls_token" || key.starts_with("patch_embed.") {
        return whole(key.to_string());
    }
    if key == "norms.3.weight" || key == "norms.3.bias" {
        return Meaning::Ignored("a duplicate of norm");
    }
    if let Some(leaf) = key.strip_prefix("norm.") {
        // The family decides which norm this is; see `resolve`.
        return whole(format!("norm.{leaf}"));
    }
    if let Some((block, rest)) = indexed(key, "blocks.") {
        let block = format!("blocks.{block}");
        let Some((module, leaf)) = rest.rsplit_once('.') else { return Meaning::Unexpected };
        return match (module, leaf) {
            ("attn.qkv", "bias") => Meaning::FusedBias { attention: format!("{block}.attn") },
            ("ls1", "gamma") => whole(format!("{block}.gamma_1")),
            ("ls2", "gamma") => whole(format!("{block}.gamma_2")),
            ("mlp.w1", _) => whole(format!("{block}.mlp.fc1_g.{leaf}")),
            ("mlp.w2", _) => whole(format!("{block}.mlp.fc1_x.{leaf}")),
            ("mlp.w3", _) => whole(format!("{block}.mlp.fc2.{leaf}")),
            _ => whole(format!("{block}.{rest}")),
        };
    }
    if let Some((stage, rest)) = indexed(key, "downsample_layers.") {
        return whole(match stage {
            0 => format!("stem.{rest}"),
            _ => format!("stages.{stage}.downsample.{rest}"),
        });
    }
    if let Some((stage, rest)) = indexed(key, "stages.")
        && let Some((block, rest)) = indexed(rest, "")
    {
        return convnext_block(stage, block, rest, ["dwconv", "norm", "pwconv1", "pwconv2"]);
    }
    if key.starts_with("head.") {
        return whole(key.to_string());
    }
    Meaning::Unexpected
}

fn convnext_block(stage: usize, block: usize, rest: &str, names: [&str; 4]) -> Meaning {
    let block = format!("stages.{stage}.blocks.{block}");
    if rest == "gamma" {
        return Meaning::Whole(format!("{block}.gamma"));
    }
    let timm = ["conv_dw", "norm", "mlp.fc1", "mlp.fc2"];
    match rest.rsplit_once('.') {
        Some((module, leaf)) => match names.iter().position(|name| *name == module) {
            Some(index) => Meaning::Whole(format!("{block}.{}.{leaf}", timm[index])),
            None => Meaning::Unexpected,
        },
        None => Meaning::Unexpected,
    }
}

/// Splits `prefix` + number + `.` + rest.
fn indexed<'a>(key: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = key.strip_prefix(prefix)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// Names whose meaning depends on the model: Transformers' `up_proj` and Meta's `norm`.
pub fn resolve(name: String, gated: bool, convnext: bool) -> String {
    if let Some((block, leaf)) = name.split_once(".mlp.up_proj.") {
        return format!("{block}.mlp.{}.{leaf}", if gated { "fc1_x" } else { "fc1" });
    }
    match name.strip_prefix("norm.") {
        Some(leaf) if convnext => format!("head.norm.{leaf}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telling_keys_decide_the_dialect() {
        for (key, dialect) in [
            ("storage_tokens", Some(Dialect::Meta)),
            ("downsample_layers.0.0.weight", Some(Dialect::Meta)),
            ("embeddings.register_tokens", Some(Dialect::Transformers)),
            ("model.stages.0.downsample_layers.0.weight", Some(Dialect::Transformers)),
            ("model.embeddings.cls_token", Some(Dialect::Transformers)),
            ("reg_token", Some(Dialect::Timm)),
            ("model.reg_token", Some(Dialect::Timm)),
            ("module.backbone.storage_tokens", Some(Dialect::Meta)),
            ("stem.0.weight", Some(Dialect::Timm)),
            ("stem_0.weight", Some(Dialect::Timm)),
            ("conv1.weight", None),
        ] {
            assert_eq!(detect([key].into_iter()), dialect, "{key}");
        }
    }

    #[test]
    fn names_are_translated() {
        let whole = |name: &str| Meaning::Whole(name.into());
        for (dialect, key, expected) in [
            (
                Dialect::Transformers,
                "layer.3.attention.k_proj.weight",
                Meaning::Third { tensor: "blocks.3.attn.qkv.weight".into(), third: 1 },
            ),
            (Dialect::Transformers, "model.layer.3.attention.q_proj.bias", whole("blocks.3.attn.q_bias")),
            (Dialect::Transformers, "layer.0.layer_scale2.lambda1", whole("blocks.0.gamma_2")),
            (Dialect::Transformers, "stages.0.downsample_layers.1.bias", whole("stem.1.bias")),
            (
                Dialect::Transformers,
                "stages.2.layers.8.pointwise_conv1.weight",
                whole("stages.2.blocks.8.mlp.fc1.weight"),
            ),
            (Dialect::Meta, "blocks.1.attn.qkv.bias", Meaning::FusedBias { attention: "blocks.1.attn".into() }),
            (Dialect::Meta, "blocks.1.mlp.w2.bias", whole("blocks.1.mlp.fc1_x.bias")),
            (Dialect::Meta, "backbone.module.norm.bias", whole("norm.bias")),
            (Dialect::Meta, "stages.1.2.dwconv.weight", whole("stages.1.blocks.2.conv_dw.weight")),
            (Dialect::Meta, "downsample_layers.2.1.weight", whole("stages.2.downsample.1.weight")),
            (Dialect::Timm, "model.blocks.0.norm1.weight", whole("blocks.0.norm1.weight")),
            (Dialect::Timm, "stages_0.blocks.0.gamma", whole("stages.0.blocks.0.gamma")),
            (Dialect::Transformers, "pooler.dense.weight", Meaning::Unexpected),
        ] {
            assert_eq!(meaning(dialect, key), expected, "{key}");
        }
        for key in [
            "mask_token",
            "embeddings.mask_token",
            "rope_embed.periods",
            "blocks.0.attn.qkv.bias_mask",
            "local_cls_norm.bias",
            "norms.3.weight",
            "module.dino_head.mlp.0.weight",
        ] {
            assert!(matches!(meaning(Dialect::Meta, key), Meaning::Ignored(_)), "{key}");
        }
        assert_eq!(resolve("blocks.0.mlp.up_proj.bias".into(), true, false), "blocks.0.mlp.fc1_x.bias");
        assert_eq!(resolve("blocks.0.mlp.up_proj.bias".into(), false, false), "blocks.0.mlp.fc1.bias");
        assert_eq!(resolve("norm.bias".into(), false, true), "head.norm.bias");
    }
}
