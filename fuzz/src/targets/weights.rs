//! Checkpoints: what a safetensors file says it stores, the index of shards, the account of tensors.
//!
//! The reader maps files into memory, so these targets write each input to a file (`run.sh` puts it into a file system
//! in memory) and knock at the same door as a user does.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use dinov3_model::config_json;
use dinov3_model::spec::ModelSpec;
use dinov3_model::tensors::tensors;
use dinov3_model::weights::WeightSource;
use dinov3_weights::{Checkpoint, FileSet, open_files};
use serde_json::{Map, Value, json};

use super::{has_a_reason, safetensors_file};
use crate::Target;

/// Writes a file whose name ends like this, different for each call, and removes it afterwards. Mapped files that
/// another thread shortens would raise a bus error.
pub(super) fn with_file<T>(name: &str, bytes: &[u8], use_it: impl FnOnce(&Path) -> T) -> T {
    let path = own_path(name);
    std::fs::write(&path, bytes).expect("the temporary folder can be written to");
    let result = use_it(&path);
    let _ = std::fs::remove_file(&path);
    result
}

fn own_path(name: &str) -> PathBuf {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("dinov3-fuzz-{}-{number}-{name}", std::process::id()))
}

const HEADER_WORDS: &[&[u8]] = &[
    b"\"dtype\":\"F32\"",
    b"\"dtype\":\"BF16\"",
    b"\"dtype\":\"F16\"",
    b"\"dtype\":\"I64\"",
    b"\"dtype\":\"F4\"",
    b"\"shape\":[",
    b"\"data_offsets\":[0,4]",
    b"\"__metadata__\":{",
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967296",
    b"[],",
    b"{}",
    b"\\u0000",
    b"version https://git-lfs",
];

/// The header of a safetensors file.
pub(super) const SAFETENSORS: Target = Target {
    name: "safetensors",
    run: |bytes| {
        with_file("model.safetensors", bytes, |path| match open_files(path) {
            Ok(files) => lies_within(&files, bytes.len(), false),
            Err(error) => has_a_reason(&error),
        });
    },
    seeds: || {
        [
            (r#"{}"#, 0),
            (r#"{"__metadata__":{"format":"pt"}}"#, 0),
            (r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#, 24),
            (r#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   "#, 4),
            (
                r#"{"b":{"dtype":"BF16","shape":[4],"data_offsets":[4,12]},"a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}}"#,
                12,
            ),
            (r#"{"e":{"dtype":"I64","shape":[0,7],"data_offsets":[0,0]}}"#, 0),
        ]
        .map(|(header, data)| safetensors_file(header, data))
        .to_vec()
    },
    longest_bytes: 4096,
    words: HEADER_WORDS,
};

/// Every tensor lies within the file, and no two share a byte unless they may.
pub(super) fn lies_within(files: &FileSet, file_bytes: usize, may_overlap: bool) {
    let ends = |stored: &dinov3_weights::StoredTensor| {
        let bits = stored.shape.iter().try_fold(stored.dtype.bitsize(), |bits, &extent| bits.checked_mul(extent));
        let bits = bits.expect("the size of a tensor overflows");
        assert!(bits % 8 == 0, "a tensor of {bits} bits");
        (stored.offset_bytes, stored.offset_bytes + bits / 8)
    };
    let mut places: Vec<(usize, usize)> = files.tensors.values().map(ends).collect();
    places.sort_unstable();
    assert!(places.iter().all(|&(_, end)| end <= file_bytes), "a tensor beyond the end of the file");
    // PyTorch's tensors may share a storage, as tied weights do.
    assert!(may_overlap || places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two tensors overlap");
}

/// The index of a checkpoint in shards; `SHARD` in it stands for a shard that exists and stores `a` and `b`.
pub(super) const SHARD_INDEX: Target = Target {
    name: "shard_index",
    run: |bytes| {
        const SHARD: &str = "SHARD";
        let shard = safetensors_file(
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8,
        );
        with_file("shard", &shard, |shard| {
            let shard_name = shard.file_name().unwrap_or_default().to_string_lossy();
            let index = match std::str::from_utf8(bytes) {
                Ok(text) => text.replace(SHARD, &shard_name).into_bytes(),
                Err(_) => bytes.to_vec(),
            };
            with_file("index.json", &index, |path| match open_files(path) {
                Ok(files) => {
                    assert_eq!(files.paths, [shard]);
                    assert_eq!(files.tensors.keys().collect::<Vec<_>>(), ["a", "b"]);
                }
                Err(error) => has_a_reason(&error),
            });
        });
    },
    seeds: || {
        [
            r#"{"weight_map":{}}"#,
            r#"{"metadata":{"total_size":8},"weight_map":{"a":"SHARD","b":"SHARD"}}"#,
            r#"{"weight_map":{"a":"SHARD","b":"model-00002-of-00002.safetensors"}}"#,
            r#"{"weight_map":{"a":"SHARD","b":"SHARD","c":"../x.safetensors"}}"#,
            r#"{"weight_map":{"a":5}}"#,
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    longest_bytes: 4096,
    words: &[
        b"\"weight_map\":{",
        b"\"a\":\"SHARD\"",
        b"SHARD",
        b"..",
        b".",
        b"/",
        b"\\\\",
        b"C:",
        b"\\u002e",
        b"\\u0000",
        b".safetensors",
    ],
};

/// The models that the account is drawn up for, with as few numbers as the table of tensors allows.
static SMALL_MODELS: LazyLock<[ModelSpec; 3]> = LazyLock::new(|| {
    let vit = |name: &str| {
        json!({"architecture": name, "model_args":
            {"embed_dim": 4, "depth": 1, "num_heads": 1, "patch_size": 1, "mlp_ratio": 1, "num_reg_tokens": 1}})
    };
    let convnext = json!({"architecture": "convnext_tiny.dinov3_lvd1689m",
        "model_args": {"depths": [1, 0, 0, 0], "dims": [1, 1, 1, 1]}});
    [vit("vit_small_patch16_dinov3"), vit("vit_small_patch16_dinov3_qkvb"), convnext]
        .map(|config| config_json::parse(&config.to_string(), "small").expect("a small model is a model"))
});

/// The account of a checkpoint: the first byte chooses the model, the rest is the file.
pub(super) const CHECKPOINT: Target = Target {
    name: "checkpoint",
    run: |bytes| {
        let Some((&choice, file)) = bytes.split_first() else { return };
        let model = &SMALL_MODELS[usize::from(choice) % SMALL_MODELS.len()];
        with_file("checkpoint.safetensors", file, |path| match Checkpoint::open(path, model) {
            Ok(checkpoint) => {
                for tensor in tensors(model) {
                    let mut values = vec![f32::NAN; tensor.elements()];
                    match checkpoint.read(&tensor.name, 0, &mut values) {
                        Ok(()) => assert!(values.iter().all(|value| value.is_finite()), "{} has gaps", tensor.name),
                        Err(error) => has_a_reason(&error),
                    }
                }
            }
            Err(error) => has_a_reason(&error),
        });
    },
    seeds: || {
        let mut seeds = Vec::new();
        for (choice, model) in SMALL_MODELS.iter().enumerate() {
            let stored: Vec<(String, Vec<usize>)> =
                tensors(model).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
            seeds.push(checkpoint_file(choice, &stored, "F32"));
            seeds.push(checkpoint_file(choice, &stored, "BF16"));
            let meta = stored.iter().map(|(name, shape)| (in_meta_names(name), shape.clone()));
            let bias = ("blocks.0.attn.qkv.bias".to_string(), vec![12]);
            seeds.push(checkpoint_file(choice, &meta.chain([bias]).collect::<Vec<_>>(), "F16"));
        }
        seeds
    },
    longest_bytes: 8192,
    words: &[
        b"blocks.0.",
        b"attn.qkv.bias",
        b"attn.q_bias",
        b"attn.k_bias",
        b"attn.v_bias",
        b"storage_tokens",
        b"reg_token",
        b"embeddings.",
        b"layer.0.attention.q_proj.weight",
        b"stages.0.downsample_layers.",
        b"model.",
        b"\"dtype\":\"BF16\"",
        b"\"dtype\":\"I8\"",
        b"\"shape\":[4]",
    ],
};

fn in_meta_names(name: &str) -> String {
    name.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
}

fn checkpoint_file(choice: usize, stored: &[(String, Vec<usize>)], dtype: &str) -> Vec<u8> {
    let element_bytes = if dtype == "F32" { 4 } else { 2 };
    let mut header = Map::new();
    let mut at = 0;
    for (name, shape) in stored {
        let end = at + element_bytes * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut seed = vec![choice as u8];
    seed.extend(safetensors_file(&Value::Object(header).to_string(), at));
    seed
}
