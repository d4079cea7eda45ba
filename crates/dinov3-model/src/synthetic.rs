//! Weights computed from a seed and a tensor's name, the same bits in every implementation.
//!
//! Pretrained checkpoints are not needed for parity, benchmarks and demonstrations: both sides compute
//! these. The stream is SplitMix64 started from FNV-1a of the name; see `docs/synthetic-weights.md`.

use std::collections::HashMap;

use crate::spec::ModelSpec;
use crate::tensors::tensors;
use crate::weights::{WeightSource, WeightsError};

/// FNV-1a, 64 bits.
fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Element `index` of a tensor's stream: f32 in [-1, 1), exact.
#[inline]
fn unit(state: u64, index: u64) -> f32 {
    let mut z = state.wrapping_add((index.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f32 * (1.0 / 8_388_608.0) - 1.0
}

fn state(name: &str, seed: u64) -> u64 {
    fnv1a64(name).wrapping_add(seed.wrapping_mul(0xD134_2543_DE82_EF95))
}

/// (offset, scale) of a tensor: element = offset + scale * unit, product and sum each rounded to f32.
fn affine(name: &str, shape: &[usize]) -> (f32, f32) {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    if name.ends_with("cls_token") || name.ends_with("reg_token") {
        (0.0, 1.0)
    } else if leaf.starts_with("gamma") {
        (0.25, 0.125)
    } else if leaf.ends_with("bias") {
        (0.0, 0.125)
    } else if shape.len() == 1 {
        (1.0, 0.25)
    } else {
        let fan_in: usize = shape[1..].iter().product();
        (0.0, (3.0 / fan_in as f64).sqrt() as f32)
    }
}

/// What the outliers flavour multiplies a tensor's hot rows by, if it has any.
fn outlier_factor(name: &str) -> Option<f32> {
    let rest = name.strip_prefix("blocks.")?.split_once('.')?.1;
    match rest {
        "norm1.weight" | "norm2.weight" => Some(16.0),
        "mlp.fc1.weight" | "mlp.fc1_x.weight" => Some(8.0),
        _ => None,
    }
}

/// Writes elements `start ..` of a synthetic tensor into `out`.
pub fn fill(name: &str, shape: &[usize], seed: u64, outliers: bool, start: usize, out: &mut [f32]) {
    let (offset, scale) = affine(name, shape);
    let stream = state(name, seed);
    for (i, value) in out.iter_mut().enumerate() {
        *value = offset + scale * unit(stream, (start + i) as u64);
    }
    let Some(factor) = outlier_factor(name).filter(|_| outliers) else { return };
    // A few hot channels dominate, as in trained models: one in 128 elements of a norm or rows of a linear layer.
    let row_length: usize = shape[1..].iter().product();
    let hot_stream = state(&format!("{name}#outliers"), seed);
    let mut position = 0;
    while position < out.len() {
        let row = (start + position) / row_length;
        let end = ((row + 1) * row_length - start).min(out.len());
        if unit(hot_stream, row as u64) >= 1.0 - 1.0 / 64.0 {
            out[position..end].iter_mut().for_each(|value| *value *= factor);
        }
        position = end;
    }
}

/// `synthetic:SEED` or `synthetic-outliers:SEED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticSpec {
    /// The seed.
    pub seed: u64,
    /// Whether a few channels are made to dominate.
    pub outliers: bool,
}

impl SyntheticSpec {
    /// Reads a `--weights` text; `None` if it does not start like a synthetic spec.
    ///
    /// # Errors
    /// If it does, but the seed is not a whole number.
    pub fn parse(text: &str) -> Option<Result<Self, WeightsError>> {
        let (seed, outliers) = match (text.strip_prefix("synthetic:"), text.strip_prefix("synthetic-outliers:")) {
            (Some(seed), _) => (seed, false),
            (_, Some(seed)) => (seed, true),
            _ => return None,
        };
        let bad = || WeightsError::BadSyntheticSpec { text: text.to_string() };
        Some(seed.parse().map(|seed| Self { seed, outliers }).map_err(|_| bad()))
    }
}

impl std::fmt::Display for SyntheticSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "synthetic{}:{}", if self.outliers { "-outliers" } else { "" }, self.seed)
    }
}

/// A model's synthetic weights; nothing is stored.
#[derive(Clone, Debug)]
pub struct SyntheticWeights {
    spec: SyntheticSpec,
    shapes: HashMap<String, Vec<usize>>,
}

impl SyntheticWeights {
    /// The synthetic weights of `model`.
    pub fn new(model: &ModelSpec, spec: SyntheticSpec) -> Self {
        let shapes = tensors(model).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        Self { spec, shapes }
    }
}

impl WeightSource for SyntheticWeights {
    fn name(&self) -> String {
        self.spec.to_string()
    }

    fn read(&self, tensor: &str, start: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        fill(tensor, &self.shapes[tensor], self.spec.seed, self.spec.outliers, start, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits_sum(name: &str, shape: &[usize]) -> u64 {
        let mut values = vec![0.0; shape.iter().product()];
        fill(name, shape, 7, false, 0, &mut values);
        values.iter().fold(0u64, |sum, value| sum.wrapping_add(u64::from(value.to_bits())))
    }

    #[test]
    fn the_published_checks_hold() {
        assert_eq!(bits_sum("cls_token", &[1, 1, 384]), 0xbc_9f18_4180);
        assert_eq!(bits_sum("blocks.0.attn.qkv.weight", &[1152, 384]), 0x3_4ca9_40a1_840d);
        let mut first = [0.0];
        fill("patch_embed.proj.weight", &[384, 3, 16, 16], 7, false, 0, &mut first);
        assert_eq!(first[0], 0.061508544);
    }

    #[test]
    fn any_range_equals_the_whole() {
        for name in ["blocks.3.norm1.weight", "blocks.3.mlp.fc1.weight", "gamma_1"] {
            let shape: &[usize] = if name.contains("fc1") { &[600, 7] } else { &[4200] };
            let mut whole = vec![0.0; 4200];
            fill(name, shape, 3, true, 0, &mut whole);
            for (start, length) in [(0, 1), (6, 9), (699, 2), (1000, 3200)] {
                let mut part = vec![0.0; length];
                fill(name, shape, 3, true, start, &mut part);
                assert_eq!(part, whole[start..start + length], "{name} {start}+{length}");
            }
        }
    }

    #[test]
    fn outliers_touch_about_one_channel_in_128() {
        let mut plain = vec![0.0; 4096];
        let mut hot = vec![0.0; 4096];
        fill("blocks.0.norm2.weight", &[4096], 1, false, 0, &mut plain);
        fill("blocks.0.norm2.weight", &[4096], 1, true, 0, &mut hot);
        let touched = plain.iter().zip(&hot).filter(|(a, b)| a != b).count();
        assert!((16..64).contains(&touched), "{touched}");
        assert!(plain.iter().zip(&hot).all(|(a, b)| a == b || a * 16.0 == *b));
    }

    #[test]
    fn specs_are_read_and_refused() {
        assert_eq!(SyntheticSpec::parse("synthetic:7").unwrap().unwrap(), SyntheticSpec { seed: 7, outliers: false });
        assert!(SyntheticSpec::parse("synthetic-outliers:0").unwrap().unwrap().outliers);
        assert!(SyntheticSpec::parse("synthetic:x").unwrap().is_err());
        assert!(SyntheticSpec::parse("model.safetensors").is_none());
    }
}
