//! The basis: a mean and directions.

use crate::covariance::{Channels, Covariance};
use crate::error::PcaError;
use crate::file::{BasisFile, Origin, Tensor};
use crate::subspace::leading_directions;

/// What the file says it is; to be changed with its layout.
const KIND: &str = "dinov3-pca-1";

/// The directions of largest variance of vectors. Saved values are f32, and projections use them: a basis from a file does
/// the same as the one that was saved.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pca {
    /// `[D]`: mean of the vectors.
    pub mean: Vec<f32>,
    /// `[K, D]`: directions of length 1, by falling variance, the loading that is largest by magnitude positive. Zero where
    /// there is no further direction.
    pub components: Vec<f32>,
    /// `[K]`: variance (over n) along each.
    pub variances: Vec<f32>,
    /// Variance in all D dimensions.
    pub total_variance: f32,
}

impl Pca {
    /// The `count` leading components of vectors that were accumulated; at most D.
    pub fn of_covariance(covariance: Covariance, count: usize) -> Self {
        let count = count.min(covariance.dims());
        let (mean, matrix) = covariance.finish();
        let (directions, variances) = leading_directions(&matrix, count);
        Self::new(&mean, directions, &variances, matrix.trace())
    }

    /// The `count` leading components of finite vectors that lie in memory by channel, `[D, n]`; at most D. Costs
    /// 32 · count · n · D or so, where accumulating them would cost n · D².
    pub fn of_channels(values: &[f32], n: usize, count: usize) -> Self {
        let channels = Channels::new(values, n);
        let (directions, variances) = leading_directions(&channels, count.min(channels.means.len()));
        Self::new(&channels.means, directions, &variances, channels.trace())
    }

    /// A basis of these directions, `[K, D]`, whose variances are not known: they are given as 0.
    pub fn of_directions(mean: Vec<f32>, components: Vec<f32>) -> Self {
        let count = components.len() / mean.len().max(1);
        Self { mean, components, variances: vec![0.0; count], total_variance: 0.0 }
    }

    fn new(mean: &[f64], directions: Vec<Vec<f64>>, variances: &[f64], total: f64) -> Self {
        // Sums of squares of values near the end of f32 lie beyond it.
        let narrow = |value: f64| value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        let mut components = Vec::with_capacity(directions.len() * mean.len());
        for direction in directions {
            // An eigenvector has no sign of its own; without a rule values would flip from fit to fit.
            let largest = direction.iter().fold(0.0_f64, |best, &v| if v.abs() > best.abs() { v } else { best });
            let sign = if largest < 0.0 { -1.0 } else { 1.0 };
            components.extend(direction.iter().map(|value| (sign * value) as f32));
        }
        Self {
            mean: mean.iter().map(|&mean| mean as f32).collect(),
            components,
            variances: variances.iter().map(|&variance| narrow(variance)).collect(),
            total_variance: narrow(total),
        }
    }

    /// D.
    pub fn dims(&self) -> usize {
        self.mean.len()
    }

    /// K.
    pub fn count(&self) -> usize {
        self.variances.len()
    }

    /// `[D]`: one direction.
    pub fn component(&self, index: usize) -> &[f32] {
        &self.components[index * self.dims()..(index + 1) * self.dims()]
    }

    /// The part of the variance that all K directions hold together, 0 to 1.
    pub fn explained(&self) -> f64 {
        let kept: f64 = self.variances.iter().map(|&variance| f64::from(variance)).sum();
        let total = f64::from(self.total_variance);
        if total > 0.0 { (kept / total).min(1.0) } else { 1.0 }
    }

    /// The same with the first `count` directions alone.
    pub fn truncated(&self, count: usize) -> Self {
        let count = count.min(self.count());
        Self {
            components: self.components[..count * self.dims()].to_vec(),
            variances: self.variances[..count].to_vec(),
            ..self.clone()
        }
    }

    /// `[n, D]` to `[n, K]`: where vectors lie along the directions, counted from the mean. NaN where a vector has one.
    pub fn project(&self, vectors: &[f32]) -> Vec<f32> {
        let dims = self.dims().max(1);
        let mut out = Vec::with_capacity(vectors.len() / dims * self.count());
        let mut centred = vec![0.0; dims];
        for vector in vectors.chunks_exact(dims) {
            for ((to, &value), &mean) in centred.iter_mut().zip(vector).zip(&self.mean) {
                *to = f64::from(value) - f64::from(mean);
            }
            out.extend(self.components.chunks_exact(dims).map(|direction| dot_wide(direction, &centred) as f32));
        }
        out
    }

    /// `[K][n]`: the same for vectors that lie by channel, `[D, n]`, of as many dimensions.
    pub fn project_channels(&self, values: &[f32], n: usize) -> Vec<Vec<f32>> {
        let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
        let directions: Vec<Vec<f64>> = self.components.chunks_exact(self.dims().max(1)).map(wide).collect();
        let planes = Channels::new(values, n).project(&wide(&self.mean), &directions);
        // Sums of values near the end of f32 may lie beyond it.
        let narrow = |value: f64| value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        planes.into_iter().map(|plane| plane.into_iter().map(narrow).collect()).collect()
    }

    /// The basis as a safetensors file: `mean` `[D]`, `components` `[K, D]`, `variances` `[K]`, `total_variance` `[1]`, and
    /// in the metadata whose features it is for. Equal bases give equal bytes.
    pub fn to_safetensors(&self, origin: &Origin<'_>) -> Vec<u8> {
        let (count, dims) = (self.count(), self.dims());
        BasisFile::write(
            KIND,
            origin,
            &[
                Tensor { name: "components", shape: &[count, dims], values: &self.components },
                Tensor { name: "mean", shape: &[dims], values: &self.mean },
                Tensor { name: "total_variance", shape: &[1], values: &[self.total_variance] },
                Tensor { name: "variances", shape: &[count], values: &self.variances },
            ],
        )
    }

    /// Reads what [`Pca::to_safetensors`] wrote, for features of the same origin.
    ///
    /// # Errors
    /// If the bytes are no such file, or the basis is for other features.
    pub fn from_safetensors(bytes: &[u8], origin: &Origin<'_>) -> Result<Self, PcaError> {
        let file = BasisFile::read(bytes, KIND, origin)?;
        let mean = file.vector("mean")?;
        let variances = file.vector("variances")?;
        let components = file.tensor("components", &[variances.len(), mean.len()])?;
        let total_variance = file.tensor("total_variance", &[1])?[0];
        Ok(Self { mean, components, variances, total_variance })
    }
}

/// In sixteen partial sums of fixed order.
fn dot_wide(narrow: &[f32], wide: &[f64]) -> f64 {
    let mut sums = [0.0; 16];
    let (narrow_blocks, narrow_rest) = narrow.as_chunks::<16>();
    let (wide_blocks, wide_rest) = wide.as_chunks::<16>();
    for (a, b) in narrow_blocks.iter().zip(wide_blocks) {
        for lane in 0..16 {
            sums[lane] += f64::from(a[lane]) * b[lane];
        }
    }
    sums.iter().sum::<f64>() + narrow_rest.iter().zip(wide_rest).map(|(&a, b)| f64::from(a) * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'_> = Origin { model: "vit_small_patch16_dinov3", weights: "synthetic:7", tap: "blocks.11" };

    /// Numbers without pattern between -1 and 1.
    fn noise(count: usize, seed: u64) -> impl Iterator<Item = f64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .take(count)
    }

    /// `[n, D]` that vary along mixed directions, the k-th with a deviation of `decay^k`, far from zero.
    fn vectors(n: usize, dims: usize, decay: f64) -> Vec<f32> {
        let mix: Vec<f64> = noise(dims * dims, 3).collect();
        let mut out = Vec::new();
        for vector in 0..n {
            let strengths: Vec<f64> = noise(dims, 1000 + vector as u64).collect();
            for dim in 0..dims {
                let sum: f64 = (0..dims).map(|k| strengths[k] * decay.powi(k as i32) * mix[k * dims + dim]).sum();
                out.push((sum + 30.0 * (dim % 3) as f64) as f32);
            }
        }
        out
    }

    fn by_channel(vectors: &[f32], dims: usize) -> Vec<f32> {
        (0..dims).flat_map(|dim| vectors.iter().skip(dim).step_by(dims).copied()).collect()
    }

    #[test]
    fn accumulated_and_in_memory_agree() {
        let (n, dims, count) = (301, 70, 12);
        let vectors = vectors(n, dims, 0.85);
        let mut covariance = Covariance::new(dims);
        vectors.chunks(dims * 7).for_each(|part| covariance.add(part));
        assert_eq!(covariance.count(), 301);
        let accumulated = Pca::of_covariance(covariance, count);
        let in_memory = Pca::of_channels(&by_channel(&vectors, dims), n, count);
        let far = |left: &[f32], right: &[f32]| left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far(&accumulated.mean, &in_memory.mean) < 1e-5);
        assert!(far(&accumulated.components, &in_memory.components) < 1e-4);
        assert!((accumulated.total_variance / in_memory.total_variance - 1.0).abs() < 1e-5);
        let planes = in_memory.project_channels(&by_channel(&vectors, dims), n).concat();
        assert!(far(&by_channel(&accumulated.project(&vectors), count), &planes) < 1e-3);
    }

    #[test]
    fn components_are_orthonormal_eigenvectors_with_their_variances() {
        let (n, dims, count) = (500, 48, 20);
        let vectors = vectors(n, dims, 0.9);
        let mut covariance = Covariance::new(dims);
        covariance.add(&vectors);
        let pca = Pca::of_covariance(covariance, count);
        let projected = pca.project(&vectors);
        for i in 0..count {
            let along = |j: usize| projected.iter().skip(j).step_by(count).map(|&value| f64::from(value));
            let variance: f64 = along(i).map(|value| value * value).sum::<f64>() / n as f64;
            assert!((variance / f64::from(pca.variances[i]) - 1.0).abs() < 1e-4);
            for j in 0..i {
                let product: f64 = along(i).zip(along(j)).map(|(a, b)| a * b).sum::<f64>() / n as f64;
                assert!(product.abs() < 1e-4 * f64::from(pca.variances[0]), "{i} {j} {product}");
            }
        }
        assert!(pca.variances.is_sorted_by(|a, b| a >= b));
        assert!(pca.explained() > 0.9 && pca.explained() < 1.0);
        assert_eq!(pca.truncated(3).components, pca.components[..3 * dims]);
    }

    #[test]
    fn vectors_that_are_no_numbers_are_left_out() {
        let mut covariance = Covariance::new(2);
        covariance.add(&[f32::NAN, 1.0, 1.0, 1.0, 3.0, f32::INFINITY, 3.0, 1.0]);
        assert_eq!(covariance.count(), 2);
        let pca = Pca::of_covariance(covariance, 5);
        assert_eq!((pca.mean.as_slice(), pca.count()), ([2.0, 1.0].as_slice(), 2));
        assert!(pca.component(0)[0] == 1.0 && pca.component(0)[1].abs() < 1e-15, "{:?}", pca.components);
        assert_eq!(pca.component(1), [0.0, 0.0]);
        assert_eq!(pca.variances, [1.0, 0.0]);
        assert!(pca.project(&[f32::NAN, 1.0])[0].is_nan());
    }

    #[test]
    fn nothing_has_no_directions() {
        let pca = Pca::of_covariance(Covariance::new(3), 2);
        assert_eq!((pca.components.iter().sum::<f32>(), pca.explained()), (0.0, 1.0));
    }

    #[test]
    fn a_saved_basis_is_the_same_and_for_its_own_features_only() {
        let mut covariance = Covariance::new(16);
        covariance.add(&vectors(40, 16, 0.7));
        let pca = Pca::of_covariance(covariance, 5);
        let bytes = pca.to_safetensors(&ORIGIN);
        assert_eq!(Pca::from_safetensors(&bytes, &ORIGIN).unwrap(), pca);
        let other = Origin { weights: "synthetic:8", ..ORIGIN };
        assert!(matches!(Pca::from_safetensors(&bytes, &other), Err(PcaError::Origin { what: "weights", .. })));
        assert!(matches!(Pca::from_safetensors(&bytes[..99], &ORIGIN), Err(PcaError::Safetensors(_))));
        let mut broken = pca;
        broken.mean[3] = f32::NAN;
        let bytes = broken.to_safetensors(&ORIGIN);
        assert!(matches!(Pca::from_safetensors(&bytes, &ORIGIN), Err(PcaError::NotABasis { .. })));
    }
}
