//! What a forward pass costs at least: the arithmetic that every implementation has to do.

use crate::spec::{ConvNext, Mlp, ModelSpec, Vit};

/// Floating-point operations of one image of `height_px` × `width_px` (padded up to whole patches), a multiplication and an
/// addition counted as two. Matrix products and convolutions only: norms, softmax and activations are below a
/// hundredth.
pub fn flops_per_image(spec: &ModelSpec, height_px: usize, width_px: usize) -> f64 {
    match (spec.vit(), spec.convnext()) {
        (Some(vit), _) => vit_flops(vit, height_px, width_px),
        (_, Some(convnext)) => convnext_flops(convnext, height_px, width_px),
        _ => 0.0,
    }
}

/// Of `rows` rows, each of length `k`, with a matrix of `n` columns.
fn product(rows: usize, n: usize, k: usize) -> f64 {
    2.0 * rows as f64 * n as f64 * k as f64
}

fn vit_flops(vit: &Vit, height_px: usize, width_px: usize) -> f64 {
    let patches = height_px.div_ceil(vit.patch_px) * width_px.div_ceil(vit.patch_px);
    let (tokens, d) = (patches + vit.prefix_tokens(), vit.embed_dim);
    let branches = if vit.mlp == Mlp::SwiGlu { 3 } else { 2 };
    let projections = product(tokens, 4 * d, d);
    let attention = product(tokens, 2 * tokens, d);
    let mlp = product(tokens, branches * vit.mlp_hidden, d);
    product(patches, d, 3 * vit.patch_px * vit.patch_px) + vit.depth as f64 * (projections + attention + mlp)
}

fn convnext_flops(convnext: &ConvNext, height_px: usize, width_px: usize) -> f64 {
    let (mut height, mut width) = (height_px / 4, width_px / 4);
    let mut total = product(height * width, convnext.dims[0], 48);
    for stage in 0..4 {
        let c = convnext.dims[stage];
        if stage > 0 {
            (height, width) = (height / 2, width / 2);
            total += product(height * width, c, 4 * convnext.dims[stage - 1]);
        }
        let block = product(height * width, 8 * c, c) + product(height * width, c, 49);
        total += convnext.depths[stage] as f64 * block;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    #[test]
    fn an_image_of_256_px_costs_what_counting_by_hand_gives() {
        for (name, expected) in [
            ("vit_small_patch16_dinov3.lvd1689m", 12.5e9),
            ("vit_base_patch16_dinov3.lvd1689m", 47.2e9),
            ("vit_large_patch16_dinov3.lvd1689m", 164.7e9),
            ("vit_7b_patch16_dinov3.sat493m", 3.55e12),
            ("convnext_tiny.dinov3_lvd1689m", 11.7e9),
            ("convnext_base.dinov3_lvd1689m", 40.2e9),
        ] {
            let spec = spec::all().into_iter().find(|spec| spec.name == name).unwrap();
            let flops = flops_per_image(&spec, 256, 256);
            assert!((flops / expected - 1.0).abs() < 0.01, "{name}: {flops:e}");
        }
    }
}
