//! The tensor table: every tensor of a model, under timm's name, with its shape.

use crate::spec::{Architecture, ConvNext, Mlp, ModelSpec, Vit};

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// timm's name.
    pub name: String,
    /// Shape as timm stores it; linear weights are [out, in].
    pub shape: Vec<usize>,
}

impl TensorSpec {
    fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec() }
    }

    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Every tensor of the model, in the order in which the forward pass uses them.
pub fn tensors(spec: &ModelSpec) -> Vec<TensorSpec> {
    match &spec.architecture {
        Architecture::Vit(vit) => vit_tensors(vit),
        Architecture::ConvNext(convnext) => convnext_tensors(convnext),
    }
}

fn vit_tensors(vit: &Vit) -> Vec<TensorSpec> {
    let (d, m, patch) = (vit.embed_dim, vit.mlp_hidden, vit.patch_px);
    let mut all = vec![
        TensorSpec::new("cls_token", &[1, 1, d]),
        TensorSpec::new("patch_embed.proj.weight", &[d, 3, patch, patch]),
        TensorSpec::new("patch_embed.proj.bias", &[d]),
    ];
    if vit.registers > 0 {
        all.insert(1, TensorSpec::new("reg_token", &[1, vit.registers, d]));
    }
    for block in 0..vit.depth {
        let mut add = |name: &str, shape: &[usize]| all.push(TensorSpec::new(format!("blocks.{block}.{name}"), shape));
        add("norm1.weight", &[d]);
        add("norm1.bias", &[d]);
        add("attn.qkv.weight", &[3 * d, d]);
        if vit.qv_bias {
            add("attn.q_bias", &[d]);
            add("attn.v_bias", &[d]);
        }
        add("attn.proj.weight", &[d, d]);
        add("attn.proj.bias", &[d]);
        add("gamma_1", &[d]);
        add("norm2.weight", &[d]);
        add("norm2.bias", &[d]);
        match vit.mlp {
            Mlp::Gelu => {
                add("mlp.fc1.weight", &[m, d]);
                add("mlp.fc1.bias", &[m]);
            }
            Mlp::SwiGlu => {
                for branch in ["fc1_g", "fc1_x"] {
                    add(&format!("mlp.{branch}.weight"), &[m, d]);
                    add(&format!("mlp.{branch}.bias"), &[m]);
                }
            }
        }
        add("mlp.fc2.weight", &[d, m]);
        add("mlp.fc2.bias", &[d]);
        add("gamma_2", &[d]);
    }
    all.push(TensorSpec::new("norm.weight", &[d]));
    all.push(TensorSpec::new("norm.bias", &[d]));
    if vit.num_classes > 0 {
        all.push(TensorSpec::new("head.weight", &[vit.num_classes, d]));
        all.push(TensorSpec::new("head.bias", &[vit.num_classes]));
    }
    all
}

fn convnext_tensors(convnext: &ConvNext) -> Vec<TensorSpec> {
    let dims = convnext.dims;
    let mut all = vec![
        TensorSpec::new("stem.0.weight", &[dims[0], 3, 4, 4]),
        TensorSpec::new("stem.0.bias", &[dims[0]]),
        TensorSpec::new("stem.1.weight", &[dims[0]]),
        TensorSpec::new("stem.1.bias", &[dims[0]]),
    ];
    for stage in 0..4 {
        let c = dims[stage];
        let mut add = |name: &str, shape: &[usize]| all.push(TensorSpec::new(format!("stages.{stage}.{name}"), shape));
        if stage > 0 {
            let before = dims[stage - 1];
            add("downsample.0.weight", &[before]);
            add("downsample.0.bias", &[before]);
            add("downsample.1.weight", &[c, before, 2, 2]);
            add("downsample.1.bias", &[c]);
        }
        for block in 0..convnext.depths[stage] {
            let mut add = |name: &str, shape: &[usize]| add(&format!("blocks.{block}.{name}"), shape);
            add("conv_dw.weight", &[c, 1, 7, 7]);
            add("conv_dw.bias", &[c]);
            add("norm.weight", &[c]);
            add("norm.bias", &[c]);
            add("mlp.fc1.weight", &[4 * c, c]);
            add("mlp.fc1.bias", &[4 * c]);
            add("mlp.fc2.weight", &[c, 4 * c]);
            add("mlp.fc2.bias", &[c]);
            add("gamma", &[c]);
        }
    }
    all.push(TensorSpec::new("head.norm.weight", &[dims[3]]));
    all.push(TensorSpec::new("head.norm.bias", &[dims[3]]));
    if convnext.num_classes > 0 {
        all.push(TensorSpec::new("head.fc.weight", &[convnext.num_classes, dims[3]]));
        all.push(TensorSpec::new("head.fc.bias", &[convnext.num_classes]));
    }
    all
}
