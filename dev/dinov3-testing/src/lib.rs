//! The contract of an encoder as a suite that every implementation calls, with small models and pictures.
//!
//! Panics are this crate's way to fail a test.

pub mod checkpoints;
pub mod conformance;
pub mod geotiff;
pub mod golden;
pub mod http_server;
pub mod hub;
pub mod kills;
pub mod pth;

pub use dinov3_model::dialect;

use dinov3_model::config_json;
use dinov3_model::encoder::ImageBatch;
use dinov3_model::spec::ModelSpec;

/// A colourful picture as a BMP file.
pub fn bmp(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut bytes = b"BM".to_vec();
    for value in [54 + row * height, 0, 54, 40, width, height, 1 | 24 << 16, 0, row * height, 2835, 2835, 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend((0..row * height).map(|i| (i * (seed + 3) % 251 + i / row * 5) as u8));
    bytes
}

/// Small models that between them take every path: both feed-forward networks, both bias kinds, head sizes 32 to
/// 128, no registers, other patch sizes, widths that no tile divides, both families, all with a head.
pub fn tiny_models() -> Vec<ModelSpec> {
    [
        (
            "gelu",
            r#"{"architecture": "vit_small_patch16_dinov3", "num_classes": 5,
            "model_args": {"embed_dim": 64, "depth": 3, "num_heads": 2}}"#,
        ),
        (
            "swiglu qkvb",
            r#"{"architecture": "vit_small_plus_patch16_dinov3_qkvb", "num_classes": 3,
            "model_args": {"embed_dim": 72, "depth": 2, "num_heads": 3, "mlp_ratio": 2.5}}"#,
        ),
        (
            "head 128",
            r#"{"architecture": "vit_7b_patch16_dinov3", "num_classes": 4,
            "model_args": {"embed_dim": 256, "depth": 2, "num_heads": 2}}"#,
        ),
        (
            "patch 8, no registers",
            r#"{"model_type": "dinov3_vit", "hidden_size": 64, "intermediate_size": 100,
            "num_hidden_layers": 2, "num_attention_heads": 1, "patch_size": 8, "layer_norm_eps": 1e-6,
            "query_bias": true, "value_bias": true}"#,
        ),
        (
            "convnext",
            r#"{"architecture": "convnext_tiny.dinov3_lvd1689m", "num_classes": 6,
            "model_args": {"depths": [1, 2, 1, 1], "dims": [8, 20, 33, 48]}}"#,
        ),
    ]
    .into_iter()
    .map(|(name, text)| {
        let mut spec = config_json::parse(text, name).expect("the texts above are sound");
        if spec.num_classes() == 0 {
            spec = spec.with_num_classes(2);
        }
        spec.name = name.to_string();
        spec
    })
    .collect()
}

/// Values in about [-2, 2), the same for the same seed.
pub fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    dinov3_model::synthetic::fill("noise.weight", &[count, 1], seed, false, 0, &mut values);
    values
}

/// `count` noise images.
pub fn images(seed: u64, count: usize, height_px: usize, width_px: usize) -> Vec<f32> {
    noise(seed, count * 3 * height_px * width_px)
}

/// A batch over `pixels`.
pub fn batch(pixels: &[f32], count: usize, height_px: usize, width_px: usize) -> ImageBatch<'_> {
    ImageBatch { pixels, count, height_px, width_px }
}

/// ‖found − expected‖ / ‖expected‖, sums in f64.
///
/// # Panics
/// If the lengths differ.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let size: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
    (difference / size.max(f64::MIN_POSITIVE)).sqrt()
}
