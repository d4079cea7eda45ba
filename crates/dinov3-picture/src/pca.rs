//! The first three principal components of the patches, as red, green and blue.

use dinov3_model::array::Array;
use dinov3_pca::{BasisFile, Origin, Pca, Tensor, percentile_range, place_in};

use crate::enlarge::enlarge;
use crate::error::PictureError;
use crate::map::Map;
use crate::rgb::{RgbPicture, checked_pixels};

/// What the colours mean: three directions in the space of features, and which values along them are dark and bright.
///
/// Fitted to one map ([`PcaBasis::fit`]) and applied to others, it gives the same colour to the same features.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PcaBasis {
    /// Three directions; zero where the map that it was fitted to has no further one. Their variances are not saved.
    pub pca: Pca,
    /// The value along each direction that is shown as 0: the 1st percentile.
    pub low: [f32; 3],
    /// The value along each direction that is shown as 255: the 99th percentile.
    pub high: [f32; 3],
}

/// The picture of a map in the colours of `basis`, or of a basis fitted to the map itself, and that basis. `width_px`
/// and `height_px` are the size of the picture that was encoded (after padding, if it was padded), or any other.
///
/// # Errors
/// If `map` is not `[1, D, h, w]` of finite values, the basis is for another number of channels, or the size is
/// impossible.
pub fn pca_picture(
    map: &Array,
    width_px: usize,
    height_px: usize,
    basis: Option<&PcaBasis>,
) -> Result<(RgbPicture, PcaBasis), PictureError> {
    checked_pixels(width_px, height_px)?;
    let basis = match basis {
        Some(basis) => basis.clone(),
        None => PcaBasis::fit(map)?,
    };
    Ok((basis.apply_enlarged(map, width_px, height_px)?, basis))
}

impl PcaBasis {
    /// The basis of one map, `[1, D, h, w]`.
    ///
    /// # Errors
    /// If the map has another shape or is not finite.
    pub fn fit(map: &Array) -> Result<Self, PictureError> {
        let map = Map::new(map)?;
        let pca = three_directions(Pca::of_channels(map.values, map.patches(), 3));
        let mut basis = Self { pca, low: [0.0; 3], high: [0.0; 3] };
        for (index, plane) in basis.pca.project_channels(map.values, map.patches()).iter().enumerate() {
            (basis.low[index], basis.high[index]) = percentile_range(plane);
        }
        Ok(basis)
    }

    /// The colours of the patches: a picture with one pixel per patch.
    ///
    /// # Errors
    /// If the map is not `[1, D, h, w]` of finite values, or the basis is for another D.
    pub fn apply(&self, map: &Array) -> Result<RgbPicture, PictureError> {
        let Map { rows, columns, .. } = Map::new(map)?;
        self.apply_enlarged(map, columns, rows)
    }

    /// [`PcaBasis::apply`], smoothly enlarged.
    ///
    /// # Errors
    /// As [`PcaBasis::apply`], and if the size is impossible.
    fn apply_enlarged(&self, map: &Array, width_px: usize, height_px: usize) -> Result<RgbPicture, PictureError> {
        let pixels = checked_pixels(width_px, height_px)?;
        let map = Map::new(map)?;
        if self.pca.dims() != map.channels {
            return Err(PictureError::BasisChannels { basis: self.pca.dims(), map: map.channels });
        }
        let mut data = vec![0; 3 * pixels];
        for (index, mut plane) in self.pca.project_channels(map.values, map.patches()).into_iter().enumerate() {
            let range = (self.low[index], self.high[index]);
            // A direction without extent is shown as middle grey.
            plane.iter_mut().for_each(|value| *value = place_in(range, *value).unwrap_or(0.5));
            let enlarged = enlarge(&plane, map.rows, map.columns, height_px, width_px);
            for (pixel, value) in data.chunks_exact_mut(3).zip(enlarged) {
                pixel[index] = (value.clamp(0.0, 1.0) * 255.0).round() as u8;
            }
        }
        RgbPicture::new(width_px, height_px, data)
    }

    /// The basis as a safetensors file: `mean` `[D]`, `components` `[3, D]`, `range` `[2, 3]` (low, high), and in the
    /// metadata whose features it is for. Equal bases give equal bytes.
    pub fn to_safetensors(&self, origin: &Origin<'_>) -> Vec<u8> {
        let dims = self.pca.dims();
        let range: Vec<f32> = self.low.iter().chain(&self.high).copied().collect();
        BasisFile::write(
            KIND,
            origin,
            &[
                Tensor { name: "mean", shape: &[dims], values: &self.pca.mean },
                Tensor { name: "components", shape: &[3, dims], values: &self.pca.components },
                Tensor { name: "range", shape: &[2, 3], values: &range },
            ],
        )
    }

    /// Reads what [`PcaBasis::to_safetensors`] wrote, for features of the same origin.
    ///
    /// # Errors
    /// If the bytes are no such file, or the basis is for other features.
    pub fn from_safetensors(bytes: &[u8], origin: &Origin<'_>) -> Result<Self, PictureError> {
        let file = BasisFile::read(bytes, KIND, origin)?;
        let mean = file.vector("mean")?;
        let components = file.tensor("components", &[3, mean.len()])?;
        let range = file.tensor("range", &[2, 3])?;
        Ok(Self {
            pca: Pca::of_directions(mean, components),
            low: std::array::from_fn(|index| range[index]),
            high: std::array::from_fn(|index| range[3 + index]),
        })
    }
}

/// What the file says it is; to be changed with its layout.
const KIND: &str = "dinov3-pca-basis-1";

/// A map of fewer than three channels has fewer directions; the picture has three colours.
fn three_directions(pca: Pca) -> Pca {
    let Pca { mean, mut components, .. } = pca;
    components.resize(3 * mean.len(), 0.0);
    Pca::of_directions(mean, components)
}

#[cfg(test)]
mod tests {
    use dinov3_pca::PcaError;

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

    /// Orthonormal directions in `channels` dimensions.
    fn directions(count: usize, channels: usize) -> Vec<Vec<f64>> {
        let mut found: Vec<Vec<f64>> = Vec::new();
        for index in 0..count {
            let mut vector: Vec<f64> = noise(channels, 77 + index as u64).collect();
            for other in &found {
                let along: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector.iter_mut().zip(other).for_each(|(value, part)| *value -= along * part);
            }
            let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
            found.push(vector.iter().map(|value| value / length).collect());
        }
        found
    }

    /// A map that varies along planted directions with the given deviations, on top of a large mean and some noise.
    fn planted(channels: usize, rows: usize, columns: usize, deviations: &[f64]) -> (Array, Vec<Vec<f64>>) {
        let patches = rows * columns;
        let planted = directions(deviations.len(), channels);
        let mut data: Vec<f64> = noise(channels * patches, 5).map(|value| 1e-3 * value).collect();
        for channel in 0..channels {
            for patch in 0..patches {
                data[channel * patches + patch] += 50.0 * (channel % 3) as f64;
            }
        }
        for (index, (direction, deviation)) in planted.iter().zip(deviations).enumerate() {
            for (patch, strength) in noise(patches, 900 + index as u64).enumerate() {
                for channel in 0..channels {
                    data[channel * patches + patch] += strength * deviation * direction[channel];
                }
            }
        }
        let data = data.into_iter().map(|value| value as f32).collect();
        (Array { shape: vec![1, channels, rows, columns], data }, planted)
    }

    #[test]
    fn planted_directions_are_found() {
        // More patches than channels, and fewer.
        for (channels, rows, columns) in [(24, 30, 31), (384, 8, 9)] {
            let (map, planted) = planted(channels, rows, columns, &[9.0, 3.0, 1.0, 0.1]);
            let basis = PcaBasis::fit(&map).unwrap();
            for (component, direction) in basis.pca.components.chunks_exact(channels).zip(&planted) {
                let along: f64 = component.iter().zip(direction).map(|(&a, b)| f64::from(a) * b).sum();
                // The sample's own correlations turn the directions a little.
                assert!(along.abs() > 0.97, "{along}");
                let largest = component.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
                assert!(largest > 0.0);
            }
        }
    }

    #[test]
    fn components_are_eigenvectors_of_the_covariance() {
        let (map, _) = planted(40, 12, 13, &[2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1]);
        let basis = PcaBasis::fit(&map).unwrap();
        let patches = 12 * 13;
        let value = |channel: usize, patch: usize| f64::from(map.data[channel * patches + patch]);
        let means: Vec<f64> =
            (0..40).map(|c| (0..patches).map(|p| value(c, p)).sum::<f64>() / patches as f64).collect();
        let mut variances = Vec::new();
        for component in basis.pca.components.chunks_exact(40) {
            let scores: Vec<f64> = (0..patches)
                .map(|p| (0..40).map(|c| f64::from(component[c]) * (value(c, p) - means[c])).sum())
                .collect();
            let product: Vec<f64> =
                (0..40).map(|c| (0..patches).map(|p| scores[p] * (value(c, p) - means[c])).sum()).collect();
            let variance: f64 = scores.iter().map(|score| score * score).sum();
            let off: f64 = (0..40).map(|c| (product[c] - variance * f64::from(component[c])).powi(2)).sum();
            assert!(off.sqrt() < 1e-5 * variance, "{} {variance}", off.sqrt());
            variances.push(variance);
        }
        assert!(variances[0] > variances[1] && variances[1] > variances[2]);
    }

    #[test]
    fn a_saved_basis_gives_the_same_picture() {
        let (map, _) = planted(32, 6, 7, &[4.0, 2.0, 1.0]);
        let (picture, basis) = pca_picture(&map, 112, 96, None).unwrap();
        let bytes = basis.to_safetensors(&ORIGIN);
        let read = PcaBasis::from_safetensors(&bytes, &ORIGIN).unwrap();
        assert_eq!(read, basis);
        assert_eq!(pca_picture(&map, 112, 96, Some(&read)).unwrap().0, picture);
        assert_eq!(read.to_safetensors(&ORIGIN), bytes);
    }

    #[test]
    fn a_foreign_basis_is_refused() {
        let (map, _) = planted(32, 6, 7, &[4.0, 2.0, 1.0]);
        let basis = PcaBasis::fit(&map).unwrap();
        let bytes = basis.to_safetensors(&Origin { model: "one", ..ORIGIN });
        let read =
            |bytes: &[u8], model, tap| PcaBasis::from_safetensors(bytes, &Origin { model, tap, ..ORIGIN }).unwrap_err();
        assert!(matches!(
            read(&bytes, "other", "blocks.11"),
            PictureError::Basis(PcaError::Origin { what: "model", .. })
        ));
        assert!(matches!(read(&bytes, "one", "blocks.10"), PictureError::Basis(PcaError::Origin { what: "tap", .. })));
        let other = Origin { model: "one", weights: "synthetic:8", ..ORIGIN };
        let error = PcaBasis::from_safetensors(&bytes, &other).unwrap_err();
        assert!(matches!(error, PictureError::Basis(PcaError::Origin { what: "weights", .. })));
        assert!(matches!(
            read(&bytes[..bytes.len() - 4], "one", "blocks.11"),
            PictureError::Basis(PcaError::Safetensors(_))
        ));
        assert!(matches!(read(b"not safetensors", "one", "blocks.11"), PictureError::Basis(PcaError::Safetensors(_))));
        let mut broken = basis.clone();
        broken.low[1] = f32::INFINITY;
        let broken = broken.to_safetensors(&Origin { model: "one", ..ORIGIN });
        assert!(matches!(read(&broken, "one", "blocks.11"), PictureError::Basis(PcaError::NotABasis { .. })));
        let (narrow, _) = planted(31, 6, 7, &[1.0]);
        assert!(matches!(basis.apply(&narrow), Err(PictureError::BasisChannels { basis: 32, map: 31 })));
    }

    #[test]
    fn poor_maps_are_no_error() {
        // One patch; one channel; all equal; two distinct patches; all zero.
        for (shape, data) in [
            (vec![1, 5, 1, 1], vec![1.0, 2.0, 3.0, 4.0, 5.0]),
            (vec![1, 1, 2, 2], vec![1.0, 2.0, 3.0, 5.0]),
            (vec![1, 3, 2, 2], vec![0.1; 12]),
            (vec![1, 4, 1, 2], vec![1.0, 2.0, 1.0, 3.0, 0.0, 0.0, 5.0, -1.0]),
            (vec![1, 2, 2, 2], vec![0.0; 8]),
            (vec![1, 2, 1, 3], vec![f32::MAX, f32::MIN, 0.0, 1.0, f32::MAX, f32::MIN]),
        ] {
            let map = Array { shape, data };
            let basis = PcaBasis::fit(&map).unwrap();
            assert!(basis.pca.components.iter().all(|value| value.is_finite()));
            basis.apply_enlarged(&map, 9, 5).unwrap();
            let bytes = basis.to_safetensors(&ORIGIN);
            assert_eq!(PcaBasis::from_safetensors(&bytes, &ORIGIN).unwrap(), basis);
        }
        let empty = Array { shape: vec![1, 0, 2, 2], data: vec![] };
        assert!(matches!(PcaBasis::fit(&empty), Err(PictureError::MapShape { .. })));
    }
}
