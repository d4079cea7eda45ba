//! Checkpoints of random weights under the names of timm, Transformers and Meta, whole and in shards, as safetensors
//! and as PyTorch files.

use std::collections::BTreeMap;
use std::path::Path;

use dinov3_model::dialect::Dialect;
use dinov3_model::spec::{Mlp, ModelSpec};
use dinov3_model::synthetic;
use dinov3_model::tensors::tensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::pth;

/// A tensor to be stored: name, shape, values.
pub type Stored = (String, Vec<usize>, Vec<f32>);

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Four bytes.
    F32,
    /// Two bytes, IEEE.
    F16,
    /// Two bytes, the upper half of an f32.
    Bf16,
}

impl Type {
    /// The values that remain when they are stored so.
    pub fn rounded(self, values: &[f32]) -> Vec<f32> {
        let round = |&value: &f32| match self {
            Type::F32 => value,
            Type::F16 => half::f16::from_f32(value).to_f32(),
            Type::Bf16 => half::bf16::from_f32(value).to_f32(),
        };
        values.iter().map(round).collect()
    }

    /// The values as stored.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Type::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Type::F16 => values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect(),
            Type::Bf16 => values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        }
    }

    /// safetensors' name of the type.
    pub fn dtype(self) -> Dtype {
        match self {
            Type::F32 => Dtype::F32,
            Type::F16 => Dtype::F16,
            Type::Bf16 => Dtype::BF16,
        }
    }
}

/// The weights of `synthetic:SEED` under the names of `dialect`, with what its files hold besides. Classification
/// heads are stored by timm alone.
pub fn synthetic_weights(spec: &ModelSpec, seed: u64, dialect: Dialect) -> Vec<Stored> {
    let timm: Vec<Stored> = tensors(spec)
        .into_iter()
        .map(|tensor| {
            let mut values = vec![0.0; tensor.elements()];
            synthetic::fill(&tensor.name, &tensor.shape, seed, false, 0, &mut values);
            (tensor.name, tensor.shape, values)
        })
        .collect();
    match dialect {
        Dialect::Transformers => transformers(spec, timm),
        Dialect::Meta => meta(spec, timm),
        _ => timm,
    }
}

fn transformers(spec: &ModelSpec, timm: Vec<Stored>) -> Vec<Stored> {
    let Some(vit) = spec.vit() else { return timm.into_iter().map(transformers_convnext).collect() };
    let (d, gated) = (vit.embed_dim, vit.mlp == Mlp::SwiGlu);
    let mut all = vec![("embeddings.mask_token".to_string(), vec![1, 1, d], vec![0.5; d])];
    for (name, shape, values) in timm {
        if let Some(block) = name.strip_suffix(".attn.qkv.weight") {
            let block = block.replace("blocks.", "layer.");
            for (third, part) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
                let values = values[third * d * d..][..d * d].to_vec();
                all.push((format!("{block}.attention.{part}.weight"), vec![d, d], values));
            }
            continue;
        }
        let up = if gated { "mlp.fc1_x" } else { "mlp.fc1" };
        let name = renamed(
            name,
            &[
                ("cls_token", "embeddings.cls_token"),
                ("reg_token", "embeddings.register_tokens"),
                ("patch_embed.proj", "embeddings.patch_embeddings"),
                ("blocks.", "layer."),
                ("attn.q_bias", "attention.q_proj.bias"),
                ("attn.v_bias", "attention.v_proj.bias"),
                ("attn.proj", "attention.o_proj"),
                ("gamma_1", "layer_scale1.lambda1"),
                ("gamma_2", "layer_scale2.lambda1"),
                ("mlp.fc1_g", "mlp.gate_proj"),
                (up, "mlp.up_proj"),
                ("mlp.fc2", "mlp.down_proj"),
            ],
        );
        all.push((name, shape, values));
    }
    all
}

fn transformers_convnext((name, shape, values): Stored) -> Stored {
    let renames = [
        ("head.norm", "layer_norm"),
        ("stem.", "stages.0.downsample_layers."),
        (".downsample.", ".downsample_layers."),
        (".blocks.", ".layers."),
        (".norm.", ".layer_norm."),
        ("conv_dw", "depthwise_conv"),
        ("mlp.fc1", "pointwise_conv1"),
        ("mlp.fc2", "pointwise_conv2"),
    ];
    (renamed(name, &renames), shape, values)
}

fn meta(spec: &ModelSpec, timm: Vec<Stored>) -> Vec<Stored> {
    let Some(vit) = spec.vit() else { return timm.into_iter().map(meta_convnext).collect() };
    let d = vit.embed_dim;
    let mut all = vec![
        ("mask_token".to_string(), vec![1, d], vec![0.5; d]),
        ("rope_embed.periods".to_string(), vec![4], vec![1.0; 4]),
    ];
    let mut fused: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for block in 0..vit.depth {
        // Meta stores this bias for every model. Its k third is masked out, so it may hold anything.
        let bias = fused.entry(format!("blocks.{block}.attn.qkv.bias")).or_insert(vec![0.0; 3 * d]);
        bias[d..2 * d].fill(9.0);
    }
    for (name, shape, values) in timm {
        if let Some(attention) = name.strip_suffix("q_bias") {
            fused.entry(format!("{attention}qkv.bias")).or_default()[..d].copy_from_slice(&values);
            continue;
        }
        if let Some(attention) = name.strip_suffix("v_bias") {
            fused.entry(format!("{attention}qkv.bias")).or_default()[2 * d..].copy_from_slice(&values);
            continue;
        }
        let mut renames = vec![("reg_token", "storage_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")];
        if vit.mlp == Mlp::SwiGlu {
            renames.extend([("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3")]);
        }
        all.push((renamed(name, &renames), shape, values));
    }
    all.extend(fused.into_iter().map(|(name, values)| (name, vec![3 * d], values)));
    all
}

fn meta_convnext((name, shape, values): Stored) -> Stored {
    let mut name = renamed(
        name,
        &[
            ("head.norm", "norm"),
            ("stem.", "downsample_layers.0."),
            ("conv_dw", "dwconv"),
            ("mlp.fc1", "pwconv1"),
            ("mlp.fc2", "pwconv2"),
            (".blocks.", "."),
        ],
    );
    for stage in 1..4 {
        name = name.replace(&format!("stages.{stage}.downsample."), &format!("downsample_layers.{stage}."));
    }
    (name, shape, values)
}

fn renamed(name: String, renames: &[(&str, &str)]) -> String {
    // A name is renamed from the left to the right: what was put in is not looked at again.
    let (mut done, mut rest) = (String::new(), name.as_str());
    while let Some((at, from, to)) = renames
        .iter()
        .filter_map(|(from, to)| Some((rest.find(from)?, *from, *to)))
        .min_by_key(|(at, from, _)| (*at, std::cmp::Reverse(from.len())))
    {
        done.push_str(&rest[..at]);
        done.push_str(to);
        rest = &rest[at + from.len()..];
    }
    done + rest
}

/// Writes one safetensors file.
pub fn write(path: &Path, stored: &[Stored], kind: Type) {
    let bytes: Vec<Vec<u8>> = stored.iter().map(|(_, _, values)| kind.bytes(values)).collect();
    let views = stored.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name, TensorView::new(kind.dtype(), shape.clone(), bytes).expect("shape and bytes agree"))
    });
    serialize_to_file(views, None, path).expect("the file can be written");
}

/// Writes one PyTorch file as `torch.save` does.
pub fn write_pth(path: &Path, stored: &[Stored], kind: Type, layout: &pth::Layout) {
    let tensors: Vec<(String, Vec<usize>)> =
        stored.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    let values = |index: usize, start: usize, out: &mut [f32]| {
        out.copy_from_slice(&stored[index].2[start..start + out.len()]);
    };
    pth::write(path, &tensors, kind, layout, &values).expect("the file can be written");
}

/// Writes `shards` safetensors files and their index into a folder, as Transformers does.
pub fn write_shards(folder: &Path, stored: &[Stored], kind: Type, shards: usize) {
    let mut weight_map = serde_json::Map::new();
    for (number, part) in stored.chunks(stored.len().div_ceil(shards)).enumerate() {
        let name = format!("model-{:05}-of-{shards:05}.safetensors", number + 1);
        write(&folder.join(&name), part, kind);
        weight_map.extend(part.iter().map(|(tensor, _, _)| (tensor.clone(), name.clone().into())));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": weight_map});
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).expect("the index can be written");
}
