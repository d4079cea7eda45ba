//! Packed files give the bits that unpacked weights give, and nothing that was not packed for this model.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use dinov3_cpu::{Model, Options, PackError, Precision, layout, packed_description, packed_precision, packed_spec};
use dinov3_kernels::Isa;
use dinov3_model::encoder::{Encoder, Features, ImageBatch, Pooling, Request};
use dinov3_model::spec::ModelSpec;
use dinov3_model::synthetic::{SyntheticSpec, SyntheticWeights};
use dinov3_packed::{PackedError, PackedFile, PackedWriter};
use dinov3_testing::tiny_models;

fn weights(spec: &ModelSpec) -> SyntheticWeights {
    SyntheticWeights::new(spec, SyntheticSpec { seed: 3, outliers: true })
}

fn pack(path: &Path, spec: &ModelSpec, options: &Options) {
    let description = packed_description(spec, options, "test".into()).unwrap();
    let mut writer = PackedWriter::new(File::create(path).unwrap(), description).unwrap();
    Model::pack(spec, &weights(spec), options, &mut writer).unwrap();
    writer.finish().unwrap();
}

/// Everything that two images give.
fn features(model: &Model) -> Features {
    let (height_px, width_px, spec) = (64, 96, model.spec());
    let mut pixels = vec![0.0; 2 * 3 * height_px * width_px];
    dinov3_model::synthetic::fill("test.weight", &[pixels.len(), 1], 1, false, 0, &mut pixels);
    let mut request = Request::new().tokens().poolings([Pooling::Average]).taps(0..spec.depth());
    if spec.num_classes() > 0 {
        request = request.logits(Pooling::Average);
    }
    let mut features = Features::default();
    let batch = ImageBatch { pixels: &pixels, count: 2, height_px, width_px };
    let mut session = model.session();
    // Twice: a streamed model lets go of what it used.
    for _ in 0..2 {
        session.encode(&batch, &request, &mut features).unwrap();
    }
    features
}

fn assert_same_bits(a: &Features, b: &Features) {
    let bits = |features: &Features| {
        let maps = features.maps.iter().map(|map| &map.map);
        let arrays =
            features.tokens.iter().chain(&features.logits).chain(features.pooled.iter().map(|(_, array)| array));
        maps.chain(arrays).flat_map(|array| array.data.iter().map(|value| value.to_bits())).collect::<Vec<_>>()
    };
    assert!(bits(a) == bits(b) && !bits(a).is_empty());
}

#[test]
fn packed_models_give_the_same_bits_streamed_or_not() {
    let folder = tempfile::tempdir().unwrap();
    for isa in Isa::all_supported() {
        for precision in Precision::ALL {
            for (index, spec) in tiny_models().into_iter().enumerate() {
                // A head on some; the tiny models have both families, gated networks and q/v biases.
                let spec = if index % 2 == 0 { spec.with_num_classes(70) } else { spec };
                let options = Options::new().precision(precision).isa(isa).threads(2);
                let path = folder.path().join(format!("{}-{}-{index}", isa.name(), precision.name()));
                pack(&path, &spec, &options);
                let file = PackedFile::open(&path).unwrap();
                assert_eq!(packed_spec(&file).unwrap(), spec);
                assert_eq!(packed_precision(&file).unwrap(), precision);
                let packed = Model::open_packed(&spec, &file, &options).unwrap();
                assert_eq!(packed.streaming(), None);
                let expected = features(&Model::load(&spec, &weights(&spec), &options).unwrap());
                assert_same_bits(&features(&packed), &expected);

                let little = options.memory_limit_bytes(1000);
                let streamed = Model::open_packed(&spec, &file, &little).unwrap();
                let streaming = streamed.streaming();
                assert_eq!(streaming.map(|streaming| streaming.resident_blocks), spec.vit().map(|_| 0));
                assert_same_bits(&features(&streamed), &expected);
            }
        }
    }
}

#[test]
fn as_many_blocks_stay_in_memory_as_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep");
    let text =
        r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 20, "num_heads": 1}}"#;
    let spec = dinov3_model::config_json::parse(text, "deep").unwrap();
    let options = Options::new().threads(2);
    pack(&path, &spec, &options);
    let file = PackedFile::open(&path).unwrap();
    let expected = features(&Model::load(&spec, &weights(&spec), &options).unwrap());
    let size = file.map().len() as u64;
    let limited = options.memory_limit_bytes(size);
    let model = Model::open_packed(&spec, &file, &limited).unwrap();
    let streaming = model.streaming().unwrap();
    assert_eq!((streaming.blocks, streaming.file_bytes, streaming.memory_bytes), (20, size, size));
    // 70 % of what is a twentieth each, patch embedding apart, less three.
    assert!((8..=13).contains(&streaming.resident_blocks), "{streaming:?}");
    assert_same_bits(&features(&model), &expected);
    let enough = Options::new().memory_limit_bytes(2 * size);
    assert_eq!(Model::open_packed(&spec, &file, &enough).unwrap().streaming(), None);
}

#[test]
fn other_precisions_layouts_and_models_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.dinov3");
    let spec = tiny_models().into_iter().next().unwrap();
    let options = Options::new().precision(Precision::Bf16).isa(Isa::SCALAR).threads(1);
    pack(&path, &spec, &options);
    let file = PackedFile::open(&path).unwrap();
    let open = |spec: &ModelSpec, options: Options| Model::open_packed(spec, &file, &options).err();

    let error = open(&spec, options.clone().precision(Precision::F32)).unwrap();
    assert!(matches!(&error, PackedError::OtherPrecision { found, .. } if found == "bf16"), "{error}");
    let error = open(&spec.clone().with_num_classes(3), options.clone()).unwrap();
    assert!(matches!(&error, PackedError::OtherModel { .. }), "{error}");
    for isa in Isa::all_supported() {
        match open(&spec, options.clone().isa(isa)) {
            None => assert_eq!(layout(isa), layout(Isa::SCALAR)),
            Some(error) => {
                assert!(matches!(error, PackedError::OtherLayout { .. }), "{error}");
                let text = error.to_string();
                assert!(text.contains(&layout(isa)) && text.contains(&layout(Isa::SCALAR)), "{text}");
            }
        }
    }
}

#[test]
fn a_file_without_a_part_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.dinov3");
    let spec = tiny_models().into_iter().next().unwrap();
    let options = Options::new().threads(1);
    let description = packed_description(&spec, &options, "test".into()).unwrap();
    PackedWriter::new(File::create(&path).unwrap(), description).unwrap().finish().unwrap();
    let file = PackedFile::open(&path).unwrap();
    let error = Model::open_packed(&spec, &file, &options).err().unwrap().to_string();
    assert!(error.contains("empty.dinov3") && error.contains("prefix_tokens is missing"), "{error}");
}

#[test]
fn packing_ends_when_it_is_cancelled_and_when_the_file_takes_no_more() {
    let spec = tiny_models().into_iter().next().unwrap();
    let options = Options::new().threads(1);
    let description = packed_description(&spec, &options, "test".into()).unwrap();
    let mut asked = Cursor::new(Vec::new());
    let mut writer = PackedWriter::new(&mut asked, description.clone()).unwrap();
    let cancelled = options.clone().cancelled(std::sync::Arc::new(|| true));
    let error = Model::pack(&spec, &weights(&spec), &cancelled, &mut writer).unwrap_err();
    assert!(matches!(error, PackError::Interrupted), "{error}");

    let mut full = [0; 5000];
    let mut writer = PackedWriter::new(Cursor::new(&mut full[..]), description).unwrap();
    let error = Model::pack(&spec, &weights(&spec), &options, &mut writer).unwrap_err();
    assert!(matches!(error, PackError::Write(_)), "{error}");
}
