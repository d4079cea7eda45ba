//! The public crate as a stranger would use it.

use std::path::Path;

use dinov3::{Array, Encoder, Features, Options, Pooling, Request, Weights};
use dinov3_testing::checkpoints::{self, Type};
use dinov3_testing::dialect::Dialect;
use tempfile::TempDir;

const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;
const TINY_SWIGLU_QKVB: &str = r#"{"architecture": "vit_small_plus_patch16_dinov3_qkvb",
    "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 2}}"#;
const TINY_CONVNEXT: &str = r#"{"architecture": "convnext_tiny.dinov3_lvd1689m",
    "model_args": {"depths": [1, 2, 1, 1], "dims": [8, 16, 24, 32]}}"#;
const ALL: [(&str, &str); 3] = [("plain", TINY), ("swiglu_qkvb", TINY_SWIGLU_QKVB), ("convnext", TINY_CONVNEXT)];

fn folder_with(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    folder
}

fn picture(width_px: u32, height_px: u32) -> dinov3::pixels::RgbImage {
    let data = (0..width_px * height_px * 3).map(|i| (i * i % 251) as u8).collect();
    dinov3::pixels::RgbImage::from_raw(width_px, height_px, data).unwrap()
}

/// What weights from `path` make of a picture.
fn embedding(config: &Path, path: &Path) -> Array {
    let opened = dinov3::open(config.to_str().unwrap(), &Weights::Path(path.to_path_buf()), &Options::new()).unwrap();
    let input = dinov3::image::recipe(opened.model.spec()).with_size(64, 96).apply(&picture(90, 70)).unwrap();
    let mut features = Features::default();
    let request = Request::new().poolings([Pooling::Average]);
    opened.model.session().encode(&dinov3::image::batch_of_one(&input), &request, &mut features).unwrap();
    features.pooled.remove(0).1
}

fn bits(array: &Array) -> Vec<u32> {
    array.data.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn ten_lines_lead_from_a_picture_to_features() -> Result<(), Box<dyn std::error::Error>> {
    let folder = folder_with(TINY);
    let config = folder.path().to_str().ok_or("a temporary folder has a plain name")?;

    let opened = dinov3::open(config, &Weights::parse("synthetic:7")?, &Options::new().threads(2))?;
    let input = dinov3::image::recipe(opened.model.spec()).apply(&picture(90, 70))?;
    let mut session = opened.model.session();
    let mut features = Features::default();
    let request = Request::new().poolings([Pooling::Average, Pooling::Token]).taps([0, 1]).tokens();
    session.encode(&dinov3::image::batch_of_one(&input), &request, &mut features)?;

    assert_eq!(features.pooled[0].1.shape, [1, 64]);
    assert_eq!(features.pooled[1].0, Pooling::Token);
    assert_eq!(features.maps[1].map.shape, [1, 64, 16, 16]);
    assert_eq!(features.tokens.ok_or("asked for")?.shape, [1, 5 + 256, 64]);
    Ok(())
}

#[test]
fn weights_give_the_same_bits_whoever_named_them_and_however_they_are_stored() {
    for (name, config) in ALL {
        let folder = folder_with(config);
        let spec = dinov3::find_model(folder.path().to_str().unwrap()).unwrap();
        for kind in [Type::F32, Type::F16, Type::Bf16] {
            let mut expected = checkpoints::synthetic_weights(&spec, 3, Dialect::Timm);
            // What is left of the values in this type, stored in full: the truth for all others.
            expected.iter_mut().for_each(|(_, _, values)| *values = kind.rounded(values));
            let whole = folder.path().join("expected.safetensors");
            checkpoints::write(&whole, &expected, Type::F32);
            let expected = bits(&embedding(folder.path(), &whole));
            for dialect in [Dialect::Timm, Dialect::Transformers, Dialect::Meta] {
                let weights = checkpoints::synthetic_weights(&spec, 3, dialect);
                let whole = folder.path().join(format!("{dialect}.safetensors"));
                checkpoints::write(&whole, &weights, kind);
                assert_eq!(bits(&embedding(folder.path(), &whole)), expected, "{name} {dialect} {kind:?}");
                let shards = folder.path().join(format!("{dialect} {kind:?}"));
                std::fs::create_dir(&shards).unwrap();
                checkpoints::write_shards(&shards, &weights, kind, 3);
                assert_eq!(bits(&embedding(folder.path(), &shards)), expected, "{name} {dialect} {kind:?} in shards");
            }
        }
    }
}

#[test]
fn weights_from_a_file_give_the_same_bits_as_the_seed_they_came_from() {
    let folder = folder_with(TINY);
    let config = folder.path().to_str().unwrap();
    let spec = dinov3::find_model(config).unwrap();
    let file = folder.path().join("model.safetensors");
    checkpoints::write(&file, &checkpoints::synthetic_weights(&spec, 7, Dialect::Timm), Type::F32);
    let opened = dinov3::open(config, &Weights::parse("synthetic:7").unwrap(), &Options::new()).unwrap();
    let input = dinov3::image::recipe(&spec).with_size(64, 96).apply(&picture(90, 70)).unwrap();
    let mut features = Features::default();
    let request = Request::new().poolings([Pooling::Average]);
    opened.model.session().encode(&dinov3::image::batch_of_one(&input), &request, &mut features).unwrap();
    // The folder holds config.json and model.safetensors, as a repository does: it is model and weights.
    assert_eq!(bits(&features.pooled[0].1), bits(&embedding(folder.path(), folder.path())));
}

#[test]
fn weights_that_do_not_fit_are_listed_tensor_by_tensor() {
    let folder = folder_with(TINY);
    let spec = dinov3::find_model(folder.path().to_str().unwrap()).unwrap();
    let mut weights = checkpoints::synthetic_weights(&spec, 3, Dialect::Timm);
    weights.retain(|(name, _, _)| name != "norm.bias");
    weights.push(("pooler.weight".to_string(), vec![2], vec![0.0; 2]));
    let gamma = weights.iter_mut().find(|(name, _, _)| name == "blocks.1.gamma_2").unwrap();
    (gamma.1, gamma.2) = (vec![63], vec![0.0; 63]);
    let file = folder.path().join("model.safetensors");
    checkpoints::write(&file, &weights, Type::F32);
    let error = dinov3::open(folder.path().to_str().unwrap(), &Weights::Path(file), &Options::new()).err().unwrap();
    let error = error.to_string();
    for line in [
        "3 tensors",
        "missing norm.bias, expected shape [64]",
        "unexpected pooler.weight in ",
        "misshaped blocks.1.gamma_2 in ",
        "expected [64], found [63]",
        "model.safetensors",
    ] {
        assert!(error.contains(line), "{error}\nshould say: {line}");
    }
}

#[test]
fn a_weight_that_is_not_a_number_is_refused() {
    let folder = folder_with(TINY);
    let spec = dinov3::find_model(folder.path().to_str().unwrap()).unwrap();
    for (value, kind) in [(f32::NAN, Type::F32), (f32::INFINITY, Type::Bf16), (1e6, Type::F16)] {
        let mut weights = checkpoints::synthetic_weights(&spec, 3, Dialect::Timm);
        let place = weights.iter_mut().find(|(name, _, _)| name == "blocks.1.mlp.fc2.weight").unwrap();
        place.2[77] = value;
        let file = folder.path().join("model.safetensors");
        checkpoints::write(&file, &weights, kind);
        let error = dinov3::open(folder.path().to_str().unwrap(), &Weights::Path(file), &Options::new());
        let error = error.err().unwrap().to_string();
        assert!(error.contains("blocks.1.mlp.fc2.weight") && error.contains("77"), "{error}");
    }
}

#[test]
fn a_model_is_shared_by_threads_and_every_session_gives_the_same_bits() {
    fn shared<T: Clone + Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<dinov3::Model>();
    moved::<dinov3::Session>();
    moved::<Box<dyn Encoder>>();

    let folder = folder_with(TINY);
    let weights = Weights::parse("synthetic:7").unwrap();
    let opened = dinov3::open(folder.path().to_str().unwrap(), &weights, &Options::new().threads(1)).unwrap();
    let input = dinov3::image::recipe(opened.model.spec()).with_size(64, 96).apply(&picture(90, 70)).unwrap();
    let encode = |model: dinov3::Model| {
        let mut session = model.session();
        let request = Request::new().poolings([Pooling::Average]).tokens();
        let mut features = Features::default();
        for _ in 0..5 {
            session.encode(&dinov3::image::batch_of_one(&input), &request, &mut features).unwrap();
        }
        features
    };
    let alone = encode(opened.model.clone());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| encode(opened.model.clone()))).collect();
        for thread in threads {
            let features = thread.join().unwrap();
            assert_eq!(bits(features.tokens.as_ref().unwrap()), bits(alone.tokens.as_ref().unwrap()));
            assert_eq!(bits(&features.pooled[0].1), bits(&alone.pooled[0].1));
        }
    });
}
