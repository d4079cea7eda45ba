//! Packed files: the container, and the model that is made of its parts.

use std::io::Cursor;
use std::path::Path;
use std::sync::LazyLock;

use dinov3_cpu::{Model, Options, Precision, packed_description, packed_precision, packed_spec};
use dinov3_kernels::Isa;
use dinov3_model::config_json;
use dinov3_model::encoder::{Encoder, Features, ImageBatch, Request};
use dinov3_model::synthetic::{SyntheticSpec, SyntheticWeights};
use dinov3_packed::{PackedFile, PackedWriter};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::has_a_reason;
use super::weights::with_file;
use crate::Target;

const HEAD_BYTES: usize = 128;

/// A packed file. After a first byte of 0 the rest is the file as it is. Otherwise it is parts and table, the place of the
/// table in the next two bytes, and head and checksums are put right: a search cannot guess SHA-256.
pub(super) const PACKED: Target = Target {
    name: "packed",
    run: |bytes| {
        let Some((&first, rest)) = bytes.split_first() else { return };
        let file = if first == 0 { Some(rest.to_vec()) } else { sealed(rest) };
        let Some(file) = file else { return };
        with_file("model.dinov3", &file, |path| look_at(path, file.len()));
    },
    seeds: || SEEDS.clone(),
    longest_bytes: 16384,
    words: &[
        b"\"offset\":128",
        b"\"offset\":18446744073709551552",
        b"\"bytes\":",
        b"\"bytes\":0",
        b"\"shape\":[1,1]",
        b"\"shape\":[0]",
        b"\"type\":\"f32\"",
        b"\"type\":\"i32\"",
        b"\"type\":\"int8 panels\"",
        b"\"precision\":\"int8\"",
        b"\"layout\":\"panels64-tiles64-le-v1\"",
        b"\"chunk_sha256\":[]",
        b"#scales",
        b"\"embed_dim\":8",
        b"\"depth\":2",
        b"\"num_classes\":1",
        b"\"swi_glu\"",
    ],
};

/// Head, parts and table of which the first two bytes tell the place.
fn sealed(rest: &[u8]) -> Option<Vec<u8>> {
    let (place, rest) = rest.split_first_chunk::<2>()?;
    let (parts, table) = rest.split_at_checked(usize::from(u16::from_le_bytes(*place)))?;
    let mut file = [&[0; HEAD_BYTES][..], parts, table].concat();
    let length = file.len() as u64;
    file[..8].copy_from_slice(b"\x89D3P\r\n\x1a\n");
    file[8] = 1;
    file[16..24].copy_from_slice(&length.to_le_bytes());
    file[24..32].copy_from_slice(&((HEAD_BYTES + parts.len()) as u64).to_le_bytes());
    file[32..40].copy_from_slice(&(table.len() as u64).to_le_bytes());
    file[40..72].copy_from_slice(&Sha256::digest(table));
    let checksum = Sha256::digest(&file[..72]);
    file[72..104].copy_from_slice(&checksum);
    Some(file)
}

fn look_at(path: &Path, file_bytes: usize) {
    let file = match PackedFile::open(path) {
        Ok(file) => file,
        Err(error) => return has_a_reason(&error),
    };
    let mut behind = HEAD_BYTES as u64;
    for part in file.parts() {
        assert!(part.offset >= behind && part.offset + part.bytes <= file_bytes as u64, "{} lies elsewhere", part.name);
        behind = part.offset + part.bytes;
        match file.values::<f32>(&part.name, &part.kind, &part.shape) {
            Ok(values) => assert_eq!(values.len() as u64 * 4, part.bytes),
            Err(error) => panic!("{error}"),
        }
    }
    if let Err(error) = file.verify(&dinov3_system::threads::Pool::new(1), &|_, _| ()) {
        has_a_reason(&error);
    }
    let (spec, precision) = match (packed_spec(&file), packed_precision(&file)) {
        (Ok(spec), Ok(precision)) => (spec, precision),
        (Err(error), _) | (_, Err(error)) => return has_a_reason(&error),
    };
    match Model::open_packed(&spec, &file, &options(precision)) {
        Err(error) => has_a_reason(&error),
        Ok(model) => {
            // Whatever numbers the parts hold. One patch: time is for the search.
            let side_px = spec.minimum_side_px();
            let pixels = vec![0.5; 3 * side_px * side_px];
            let batch = ImageBatch { pixels: &pixels, count: 1, height_px: side_px, width_px: side_px };
            if let Err(error) = model.session().encode(&batch, &Request::new().tokens(), &mut Features::default()) {
                has_a_reason(&error);
            }
        }
    }
}

fn options(precision: Precision) -> Options {
    Options::new().precision(precision).isa(Isa::SCALAR).threads(1).memory_limit_bytes(1 << 30)
}

/// Files of models with as few numbers as possible.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let vit = |name: &str| {
        json!({"architecture": name, "model_args":
            {"embed_dim": 4, "depth": 1, "num_heads": 1, "patch_size": 1, "mlp_ratio": 1, "num_reg_tokens": 1}})
    };
    let convnext = json!({"architecture": "convnext_tiny.dinov3_lvd1689m",
        "model_args": {"depths": [1, 0, 0, 0], "dims": [1, 1, 1, 1]}});
    let models = [
        (vit("vit_small_patch16_dinov3"), Precision::F32),
        (vit("vit_small_plus_patch16_dinov3_qkvb"), Precision::Int8),
        (convnext, Precision::Bf16),
    ];
    let mut seeds = Vec::new();
    for (config, precision) in models {
        let spec = config_json::parse(&config.to_string(), "small").expect("a small model is a model");
        let weights = SyntheticWeights::new(&spec, SyntheticSpec { seed: 1, outliers: false });
        let description = packed_description(&spec, &options(precision), "seed".into()).expect("it can be described");
        let mut writer = PackedWriter::new(Cursor::new(Vec::new()), description).expect("memory takes it");
        Model::pack(&spec, &weights, &options(precision), &mut writer).expect("memory takes it");
        let (file, summary) = writer.finish().expect("memory takes it");
        let file = file.into_inner();
        assert_eq!(file.len() as u64, summary.file_bytes);
        let place = |index: usize| file[24 + index];
        let parts_bytes = u64::from_le_bytes(std::array::from_fn(place)) as usize - HEAD_BYTES;
        let place = u16::try_from(parts_bytes).expect("a small model is small");
        seeds.push([&[1][..], &place.to_le_bytes(), &file[HEAD_BYTES..]].concat());
        seeds.push([&[0][..], &file].concat());
    }
    seeds
});
