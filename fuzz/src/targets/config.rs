//! `config.json`: what a stranger says a model is.

use dinov3_model::config_json;
use dinov3_model::spec::MOST_PARAMETERS;
use serde_json::json;

use super::has_a_reason;
use crate::Target;

/// A `config.json` of timm or Transformers.
pub(super) const CONFIG: Target = Target {
    name: "config_json",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        match config_json::parse(text, "fuzz") {
            Ok(model) => {
                assert!(!model.name.is_empty());
                assert!(model.parameter_count() <= MOST_PARAMETERS);
                for (mean, std) in model.data.mean.iter().zip(&model.data.std) {
                    let normalised = [0.0, 1.0].map(|value| (value - mean) / std);
                    assert!(normalised.iter().all(|value| value.is_finite()), "pixels become {normalised:?}");
                }
                if let Some(vit) = model.vit() {
                    assert_eq!(vit.head_dim() * vit.heads, vit.embed_dim);
                }
                assert_eq!(config_json::parse(text, "fuzz").as_ref(), Ok(&model));
            }
            Err(error) => has_a_reason(&error),
        }
    },
    seeds: || {
        [
            json!({"architecture": "vit_small_patch16_dinov3", "num_classes": 0, "num_features": 384,
                "pretrained_cfg": {"tag": "lvd1689m", "input_size": [3, 256, 256], "mean": [0.485, 0.456, 0.406],
                    "std": [0.229, 0.224, 0.225], "crop_pct": 1.0, "crop_mode": "center", "interpolation": "bicubic",
                    "license": "dinov3-license"}}),
            json!({"architecture": "vit_7b_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 4,
                "mlp_ratio": 2.5, "swiglu_align_to": 64, "qkv_bias": false, "rope_temperature": 100.0}}),
            json!({"architecture": "convnext_tiny", "model_args": {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64],
                "norm_eps": 1e-6}, "global_pool": "avg"}),
            json!({"model_type": "dinov3_vit", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
                "intermediate_size": 1536, "patch_size": 16, "num_register_tokens": 4, "hidden_act": "gelu",
                "key_bias": false, "query_bias": true, "value_bias": true, "layer_norm_eps": 1e-5, "rope_theta": 100.0}),
            json!({"model_type": "dinov3_convnext", "depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768],
                "layer_norm_eps": 1e-6, "_name_or_path": "facebook/dinov3-convnext-tiny-pretrain-lvd1689m"}),
        ]
        .map(|config| config.to_string().into_bytes())
        .to_vec()
    },
    longest_bytes: 4096,
    words: &[
        b"\"architecture\":\"vit_small_patch16_dinov3\"",
        b"\"architecture\":\"convnext_tiny\"",
        b"\"model_type\":\"dinov3_vit\"",
        b"\"model_type\":\"dinov3_convnext\"",
        b"\"model_args\":{",
        b"\"pretrained_cfg\":{",
        b"\"embed_dim\":",
        b"\"depth\":",
        b"\"num_heads\":",
        b"\"num_classes\":",
        b"\"mlp_ratio\":",
        b"\"swiglu_align_to\":",
        b"\"num_reg_tokens\":",
        b"\"input_size\":[3,",
        b"\"std\":[",
        b"\"mean\":[",
        b"\"crop_pct\":",
        b"\"norm_eps\":",
        b"\"layer_norm_eps\":",
        b"\"use_gated_mlp\":true",
        b"\"hidden_act\":\"silu\"",
        b"null",
        b"1048576",
        b"1e308",
        b"1e-320",
        b"1e-46",
        b"-1",
        b"\\ud800",
    ],
};
