//! The forward pass, slow and obvious, in f64: the definition that everything faster is compared with.
//!
//! No cleverness on purpose: no threads, no blocking, no fusion. Weights and pixels are f32, everything in
//! between is f64, except the RoPE table, which is f32 in every implementation. Shapes stand above each function.

use std::collections::HashMap;

use crate::array::Array;
use crate::encoder::{
    EncodeError, Encoder, FeatureMap, Features, Geometry, ImageBatch, MapLayout, Pooling, Request, check,
};
use crate::rope::{self, RopePeriods};
use crate::spec::{Architecture, ConvNext, Mlp, ModelSpec, Vit};
use crate::tensors::tensors;
use crate::weights::{WeightSource, WeightsError};

/// Receives each stage's name, shape and values, for one image.
pub type Trace<'a> = &'a mut dyn FnMut(&str, &[usize], &[f64]);

/// A model with its weights as f64.
pub struct Reference {
    spec: ModelSpec,
    periods: RopePeriods,
    weights: HashMap<String, Vec<f64>>,
}

impl Reference {
    /// Reads every tensor.
    ///
    /// # Errors
    /// Whatever the source answers.
    pub fn load(spec: &ModelSpec, source: &dyn WeightSource, periods: RopePeriods) -> Result<Self, WeightsError> {
        let mut weights = HashMap::new();
        for tensor in tensors(spec) {
            let mut values = vec![0.0; tensor.elements()];
            source.read(&tensor.name, 0, &mut values)?;
            weights.insert(tensor.name, values.iter().map(|&value| f64::from(value)).collect());
        }
        Ok(Self { spec: spec.clone(), periods, weights })
    }

    fn weight(&self, name: &str) -> &[f64] {
        &self.weights[name]
    }

    /// Runs one image and hands every stage to `trace`: `patch_embed` (with prefix tokens), `block.N`, `norm`
    /// for a ViT; `stem`, `stage.N` for a ConvNeXt.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn trace(&self, image: &ImageBatch<'_>, request: &Request, trace: Trace<'_>) -> Result<(), EncodeError> {
        let geometry = check(&self.spec, image, request)?;
        let pixels: Vec<f64> = image.pixels.iter().map(|&value| f64::from(value)).collect();
        match &self.spec.architecture {
            Architecture::Vit(vit) => self.vit(vit, &pixels, image, geometry, trace),
            Architecture::ConvNext(convnext) => self.convnext(convnext, &pixels, image, trace),
        }
        Ok(())
    }

    /// pixels [3, H, W] -> tokens [T, D], one stage after the other.
    fn vit(&self, vit: &Vit, pixels: &[f64], image: &ImageBatch<'_>, geometry: Geometry, trace: Trace<'_>) {
        let (d, patch) = (vit.embed_dim, vit.patch_px);
        let (rows, columns) = (geometry.grid_rows, geometry.grid_columns);
        let count = vit.prefix_tokens() + rows * columns;
        let mut tokens = Vec::with_capacity(count * d);
        tokens.extend_from_slice(self.weight("cls_token"));
        if vit.registers > 0 {
            tokens.extend_from_slice(self.weight("reg_token"));
        }
        let mut flat = vec![0.0; 3 * patch * patch];
        for row in 0..rows {
            for column in 0..columns {
                for (i, value) in flat.iter_mut().enumerate() {
                    let (channel, y, x) = (i / (patch * patch), i / patch % patch, i % patch);
                    let (y, x) = (row * patch + y, column * patch + x);
                    // Outside the picture lies padding, zero after normalisation.
                    let inside = y < image.height_px && x < image.width_px;
                    *value = if inside { pixels[(channel * image.height_px + y) * image.width_px + x] } else { 0.0 };
                }
                tokens.extend(self.linear(&flat, "patch_embed.proj.weight", Some("patch_embed.proj.bias"), d));
            }
        }
        let shape = [count, d];
        trace("patch_embed", &shape, &tokens);
        let rope = rope::table(vit, self.periods, rows, columns);
        for block in 0..vit.depth {
            self.vit_block(vit, block, &rope, &mut tokens);
            trace(&format!("block.{block}"), &shape, &tokens);
        }
        trace("norm", &shape, &self.norm_rows(&tokens, d, "norm", vit.norm_eps));
    }

    /// tokens [T, D], in place.
    fn vit_block(&self, vit: &Vit, block: usize, rope: &rope::RopeTable, tokens: &mut [f64]) {
        let d = vit.embed_dim;
        let name = |part: &str| format!("blocks.{block}.{part}");
        let normed = self.norm_rows(tokens, d, &name("norm1"), vit.norm_eps);
        let attended = self.attention(vit, block, rope, &normed);
        let gamma = self.weight(&name("gamma_1"));
        for (row, input) in tokens.chunks_exact_mut(d).zip(attended.chunks_exact(d)) {
            let output = self.linear(input, &name("attn.proj.weight"), Some(&name("attn.proj.bias")), d);
            for i in 0..d {
                row[i] += gamma[i] * output[i];
            }
        }
        let normed = self.norm_rows(tokens, d, &name("norm2"), vit.norm_eps);
        let gamma = self.weight(&name("gamma_2"));
        let m = vit.mlp_hidden;
        for (row, input) in tokens.chunks_exact_mut(d).zip(normed.chunks_exact(d)) {
            let branch = |part: &str| {
                self.linear(input, &name(&format!("mlp.{part}.weight")), Some(&name(&format!("mlp.{part}.bias"))), m)
            };
            let hidden: Vec<f64> = match vit.mlp {
                Mlp::Gelu => branch("fc1").into_iter().map(gelu).collect(),
                Mlp::SwiGlu => {
                    branch("fc1_g").into_iter().zip(branch("fc1_x")).map(|(gate, value)| silu(gate) * value).collect()
                }
            };
            let output = self.linear(&hidden, &name("mlp.fc2.weight"), Some(&name("mlp.fc2.bias")), d);
            for i in 0..d {
                row[i] += gamma[i] * output[i];
            }
        }
    }

    /// normed [T, D] -> heads concatenated [T, D], before the output projection.
    fn attention(&self, vit: &Vit, block: usize, rope: &rope::RopeTable, normed: &[f64]) -> Vec<f64> {
        let (d, heads, head_dim, prefix) = (vit.embed_dim, vit.heads, vit.head_dim(), vit.prefix_tokens());
        let name = |part: &str| format!("blocks.{block}.attn.{part}");
        let count = normed.len() / d;
        let mut qkv: Vec<Vec<f64>> =
            normed.chunks_exact(d).map(|row| self.linear(row, &name("qkv.weight"), None, 3 * d)).collect();
        if vit.qv_bias {
            let (q_bias, v_bias) = (self.weight(&name("q_bias")), self.weight(&name("v_bias")));
            for row in &mut qkv {
                for i in 0..d {
                    row[i] += q_bias[i];
                    row[2 * d + i] += v_bias[i];
                }
            }
        }
        // q and k of patch tokens are rotated: element j is paired with j + head_dim / 2.
        let half = head_dim / 2;
        for (patch, row) in qkv.iter_mut().skip(prefix).enumerate() {
            let angles = patch * half..(patch + 1) * half;
            for vector in row[..2 * d].chunks_exact_mut(head_dim) {
                for (j, (&sin, &cos)) in rope.sin[angles.clone()].iter().zip(&rope.cos[angles.clone()]).enumerate() {
                    let (sin, cos) = (f64::from(sin), f64::from(cos));
                    let (a, b) = (vector[j], vector[j + half]);
                    vector[j] = a * cos - b * sin;
                    vector[j + half] = b * cos + a * sin;
                }
            }
        }
        let scale = 1.0 / (head_dim as f64).sqrt();
        let mut output = vec![0.0; count * d];
        for head in 0..heads {
            let at = |row: usize, part: usize| &qkv[row][part * d + head * head_dim..][..head_dim];
            for query in 0..count {
                let scores: Vec<f64> = (0..count).map(|key| dot(at(query, 0), at(key, 1)) * scale).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let out = &mut output[query * d + head * head_dim..][..head_dim];
                for (key, weight) in weights.iter().enumerate() {
                    for (o, v) in out.iter_mut().zip(at(key, 2)) {
                        *o += weight / sum * v;
                    }
                }
            }
        }
        output
    }

    /// pixels [3, H, W] -> map [h·w, C] per stage, channels last.
    fn convnext(&self, convnext: &ConvNext, pixels: &[f64], image: &ImageBatch<'_>, trace: Trace<'_>) {
        let (mut height, mut width) = (image.height_px, image.width_px);
        // Channels last from the start: [H·W, 3].
        let plane = height * width;
        let mut map: Vec<f64> = (0..plane * 3).map(|i| pixels[i % 3 * plane + i / 3]).collect();
        for stage in 0..4 {
            let (c, before) = (convnext.dims[stage], if stage == 0 { 3 } else { convnext.dims[stage - 1] });
            let eps = convnext.norm_eps;
            if stage == 0 {
                map = self.patch_conv(&map, height, width, before, c, 4, "stem.0");
                (height, width) = (height / 4, width / 4);
                map = self.norm_rows(&map, c, "stem.1", eps);
                trace("stem", &[height, width, c], &map);
            } else {
                map = self.norm_rows(&map, before, &format!("stages.{stage}.downsample.0"), eps);
                map = self.patch_conv(&map, height, width, before, c, 2, &format!("stages.{stage}.downsample.1"));
                (height, width) = (height / 2, width / 2);
            }
            for block in 0..convnext.depths[stage] {
                let name = |part: &str| format!("stages.{stage}.blocks.{block}.{part}");
                let spatial = self.depthwise(&map, height, width, c, &name("conv_dw"));
                let normed = self.norm_rows(&spatial, c, &name("norm"), eps);
                let gamma = self.weight(&name("gamma"));
                for (row, input) in map.chunks_exact_mut(c).zip(normed.chunks_exact(c)) {
                    let hidden = self.linear(input, &name("mlp.fc1.weight"), Some(&name("mlp.fc1.bias")), 4 * c);
                    let hidden: Vec<f64> = hidden.into_iter().map(gelu).collect();
                    let output = self.linear(&hidden, &name("mlp.fc2.weight"), Some(&name("mlp.fc2.bias")), c);
                    for i in 0..c {
                        row[i] += gamma[i] * output[i];
                    }
                }
            }
            trace(&format!("stage.{stage}"), &[height, width, c], &map);
        }
    }

    /// Convolution whose stride is its kernel size; what is left over at the right and bottom is dropped.
    /// [h·w, before] -> [(h/size)·(w/size), c].
    #[allow(clippy::too_many_arguments)]
    fn patch_conv(
        &self,
        map: &[f64],
        h: usize,
        w: usize,
        before: usize,
        c: usize,
        size: usize,
        name: &str,
    ) -> Vec<f64> {
        let mut output = Vec::new();
        let mut flat = vec![0.0; before * size * size];
        for row in 0..h / size {
            for column in 0..w / size {
                for (i, value) in flat.iter_mut().enumerate() {
                    let (channel, y, x) = (i / (size * size), i / size % size, i % size);
                    *value = map[((row * size + y) * w + column * size + x) * before + channel];
                }
                output.extend(self.linear(&flat, &format!("{name}.weight"), Some(&format!("{name}.bias")), c));
            }
        }
        output
    }

    /// 7×7 depthwise convolution, zero padding 3: [h·w, c] -> [h·w, c].
    fn depthwise(&self, map: &[f64], h: usize, w: usize, c: usize, name: &str) -> Vec<f64> {
        let (weight, bias) = (self.weight(&format!("{name}.weight")), self.weight(&format!("{name}.bias")));
        let mut output = Vec::with_capacity(map.len());
        for y in 0..h {
            for x in 0..w {
                for channel in 0..c {
                    let mut sum = bias[channel];
                    for tap in 0..49 {
                        let (row, column) = (y + tap / 7, x + tap % 7);
                        if (3..h + 3).contains(&row) && (3..w + 3).contains(&column) {
                            sum += weight[channel * 49 + tap] * map[((row - 3) * w + column - 3) * c + channel];
                        }
                    }
                    output.push(sum);
                }
            }
        }
        output
    }

    /// `x [in]` -> `[out]`.
    fn linear(&self, x: &[f64], weight: &str, bias: Option<&str>, out: usize) -> Vec<f64> {
        let weight = self.weight(weight);
        let mut y: Vec<f64> = (0..out).map(|row| dot(&weight[row * x.len()..][..x.len()], x)).collect();
        if let Some(bias) = bias {
            y.iter_mut().zip(self.weight(bias)).for_each(|(y, b)| *y += b);
        }
        y
    }

    /// LayerNorm of every row of [rows, d].
    fn norm_rows(&self, x: &[f64], d: usize, name: &str, eps: f64) -> Vec<f64> {
        let (weight, bias) = (self.weight(&format!("{name}.weight")), self.weight(&format!("{name}.bias")));
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(d) {
            let mean = row.iter().sum::<f64>() / d as f64;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / d as f64;
            let scale = 1.0 / (variance + eps).sqrt();
            y.extend(row.iter().zip(weight).zip(bias).map(|((value, w), b)| (value - mean) * scale * w + b));
        }
        y
    }

    /// normed tokens [T, D] (ViT) or un-normed map [n, C] (ConvNeXt) -> one vector, or all of them normed.
    fn pool(&self, pooling: Pooling, tokens: &[f64]) -> Vec<f64> {
        let d = self.spec.embed_dim();
        let prefix = self.spec.vit().map_or(0, Vit::prefix_tokens);
        let patches: Vec<&[f64]> = tokens.chunks_exact(d).skip(prefix).collect();
        let mean = |i: usize| patches.iter().map(|patch| patch[i]).sum::<f64>() / patches.len() as f64;
        let maximum = |i: usize| patches.iter().map(|patch| patch[i]).fold(f64::NEG_INFINITY, f64::max);
        let pooled: Vec<f64> = match pooling {
            Pooling::Average => (0..d).map(mean).collect(),
            Pooling::Max => (0..d).map(maximum).collect(),
            Pooling::AverageMax => (0..d).map(|i| 0.5 * (maximum(i) + mean(i))).collect(),
            Pooling::Token => tokens[..d].to_vec(),
            Pooling::None => tokens.to_vec(),
        };
        match self.spec.convnext() {
            // A ConvNeXt pools first and norms then.
            Some(convnext) => self.norm_rows(&pooled, d, "head.norm", convnext.norm_eps),
            None => pooled,
        }
    }
}

impl Encoder for Reference {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn encode(
        &mut self,
        batch: &ImageBatch<'_>,
        request: &Request,
        features: &mut Features,
    ) -> Result<(), EncodeError> {
        let geometry = check(&self.spec, batch, request)?;
        *features = Features { count: batch.count, ..Features::default() };
        let convnext = self.spec.vit().is_none();
        let d = self.spec.embed_dim();
        let size = 3 * batch.height_px * batch.width_px;
        for index in 0..batch.count {
            let image = ImageBatch { pixels: &batch.pixels[index * size..][..size], count: 1, ..*batch };
            let mut taps: Vec<(usize, Vec<usize>, Vec<f64>)> = Vec::new();
            let mut last = Vec::new();
            self.trace(&image, request, &mut |stage, shape, values| {
                let number = stage.rsplit('.').next().and_then(|number| number.parse::<usize>().ok());
                if let Some(number) = number.filter(|number| request.taps.contains(number)) {
                    taps.push((number, shape.to_vec(), values.to_vec()));
                }
                if stage == "norm" || stage == "stage.3" {
                    last = values.to_vec();
                }
            })?;
            let grid = (geometry.grid_rows, geometry.grid_columns);
            let tokens = last.len() / d;
            let last_shape = if convnext { vec![d, grid.0, grid.1] } else { vec![tokens, d] };
            for (slot, &pooling) in request.poolings.iter().enumerate() {
                let pooled = self.pool(pooling, &last);
                let (shape, values) = match pooling {
                    Pooling::None if convnext => (last_shape.clone(), channels_first(&pooled, d)),
                    Pooling::None => (last_shape.clone(), pooled),
                    _ => (vec![d], pooled),
                };
                if index == 0 {
                    features.pooled.push((pooling, Array::default()));
                }
                append(&mut features.pooled[slot].1, &shape, &values);
            }
            if let Some(pooling) = request.logits {
                let (weight, bias) =
                    if convnext { ("head.fc.weight", "head.fc.bias") } else { ("head.weight", "head.bias") };
                let classes = self.spec.num_classes();
                let pooled = self.pool(pooling, &last);
                let scores: Vec<f64> =
                    pooled.chunks_exact(d).flat_map(|row| self.linear(row, weight, Some(bias), classes)).collect();
                let (shape, scores) = match pooling {
                    Pooling::None if convnext => (vec![classes, grid.0, grid.1], channels_first(&scores, classes)),
                    Pooling::None => (vec![tokens, classes], scores),
                    _ => (vec![classes], scores),
                };
                append(features.logits.get_or_insert_default(), &shape, &scores);
            }
            if request.tokens {
                let values = if convnext { channels_first(&last, d) } else { last.clone() };
                append(features.tokens.get_or_insert_default(), &last_shape, &values);
            }
            for (slot, (number, shape, mut values)) in taps.into_iter().enumerate() {
                if index == 0 {
                    features.maps.push(FeatureMap { index: number, ..FeatureMap::default() });
                }
                let map = &mut features.maps[slot];
                if let Some(vit) = self.spec.vit() {
                    if request.tap_norm {
                        values = self.norm_rows(&values, d, "norm", vit.norm_eps);
                    }
                    let patches = values.split_off(vit.prefix_tokens() * d);
                    if request.tap_prefix_tokens {
                        append(map.prefix_tokens.get_or_insert_default(), &[vit.prefix_tokens(), d], &values);
                    }
                    append_map(&mut map.map, (d, grid.0, grid.1), patches, request.tap_layout);
                } else {
                    append_map(&mut map.map, (shape[2], shape[0], shape[1]), values, request.tap_layout);
                }
            }
        }
        Ok(())
    }
}

/// Adds one image's values to a batch array.
fn append(array: &mut Array, shape: &[usize], values: &[f64]) {
    array.data.extend(values.iter().map(|&value| value as f32));
    let count = array.shape.first().map_or(0, |&count| count);
    array.shape = [&[count + 1], shape].concat();
}

/// Adds one image's map, given as rows [h · w, c].
fn append_map(array: &mut Array, (c, h, w): (usize, usize, usize), rows: Vec<f64>, layout: MapLayout) {
    let values = match layout {
        MapLayout::Rows => rows,
        MapLayout::ChannelsFirst => channels_first(&rows, c),
    };
    append(array, &layout.shape(1, c, h, w)[1..], &values);
}

/// `[n, c]` -> `[c, n]`.
fn channels_first(values: &[f64], c: usize) -> Vec<f64> {
    let n = values.len() / c;
    (0..values.len()).map(|i| values[i % n * c + i / n]).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// Error function to about 1e-15: the Maclaurin series for small arguments, the continued fraction of erfc
/// for large ones (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn erf(x: f64) -> f64 {
    let size = x.abs();
    let value = if size < 2.5 {
        let (mut term, mut sum) = (size, size);
        for n in 1..80 {
            term *= 2.0 * size * size / (2 * n + 1) as f64;
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-size * size).exp() * sum
    } else if size < 6.5 {
        let mut fraction = size;
        for n in (1..100).rev() {
            fraction = size + 0.5 * n as f64 / fraction;
        }
        1.0 - (-size * size).exp() / (std::f64::consts::PI.sqrt() * fraction)
    } else {
        1.0
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_equals_tabulated_values() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (2.5, 0.999_593_047_982_555),
            (3.0, 0.999_977_909_503_001_4),
            (-1.0, -0.842_700_792_949_714_9),
            (9.0, 1.0),
        ] {
            assert!((erf(x) - expected).abs() < 2e-15, "{x}: {}", erf(x));
        }
        let step = erf(2.5) - erf(2.5 - 1e-9);
        assert!((step - 2.178_4e-12).abs() < 1e-14, "the two formulas meet: {step:e}");
    }
}
