//! The comparison with published values, on models whose values are known otherwise.

use dinov3::golden::{self, GoldenRow};
use dinov3::pixels::{Recipe, RgbImage, Statistics};
use dinov3::{Encoder, Features, Options, Pooling, Request, Weights};

const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;
const TINY_CONVNEXT: &str = r#"{"architecture": "convnext_tiny.dinov3_lvd1689m",
    "model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}}"#;

#[test]
fn the_values_are_those_of_the_normed_class_and_first_patch_tokens() {
    let data = (0..90 * 70 * 3).map(|at| (at * at % 251) as u8).collect();
    let picture = RgbImage::from_raw(90, 70, data).unwrap();
    for config in [TINY, TINY_CONVNEXT] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let model = folder.path().to_str().unwrap();
        let opened = dinov3::open(model, &Weights::parse("synthetic:7").unwrap(), &Options::new()).unwrap();
        let mut session = opened.model.session();
        let found = golden::values_of(&mut session, &picture).unwrap();

        let input = Recipe::hf(Statistics::IMAGENET).apply(&picture).unwrap();
        let mut features = Features::default();
        let is_vit = opened.model.spec().vit().is_some();
        let pooling = if is_vit { Pooling::Token } else { Pooling::Average };
        let request = Request::new().poolings([pooling]).tokens();
        session.encode(&dinov3::image::batch_of_one(&input), &request, &mut features).unwrap();
        assert_eq!(found.cls, features.pooled[0].1.data[..5]);
        if is_vit {
            // After CLS and four registers.
            assert_eq!(found.patch_0, features.tokens.unwrap().data[5 * 64..][..5]);
        } else {
            assert_ne!(found.patch_0, found.cls);
        }
        assert!(golden::compare(&found, &found).iter().all(GoldenRow::agrees));
    }
}
