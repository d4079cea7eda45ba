//! The first three principal components of the patches, as red, green and blue.

use dinov3_model::array::Array;
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::json;

use crate::enlarge::enlarge;
use crate::error::PictureError;
use crate::map::Map;
use crate::rgb::{RgbPicture, checked_pixels};
use crate::subspace::{channel_means, leading_directions, project};

/// Part of the patches that may lie beyond the colours at each end, so that one odd patch does not grey out the rest.
const BEYOND: f64 = 0.01;

/// What the colours mean: three directions in the space of features, and which values along them are dark and bright.
///
/// Fitted to one map ([`PcaBasis::fit`]) and applied to others, it gives the same colour to the same features.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PcaBasis {
    /// `[D]`: mean of the patches.
    pub mean: Vec<f32>,
    /// `[3][D]`: the directions of largest variance, of length 1, the largest loading positive. Zero where the
    /// map it was fitted to has no further direction.
    pub components: [Vec<f32>; 3],
    /// The value along each direction that is shown as 0: the 1st percentile.
    pub low: [f32; 3],
    /// The value along each direction that is shown as 255: the 99th percentile.
    pub high: [f32; 3],
}

/// Whose features a basis is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasisOrigin<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Which weights: a hash, or any text that tells them from others.
    pub weights: &'a str,
    /// The block or stage, `blocks.11`.
    pub tap: &'a str,
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
        let means = channel_means(&map);
        let components = leading_directions(&map, &means).map(|mut direction| {
            // An eigenvector has no sign of its own; without a rule colours would flip from map to map.
            let largest = direction.iter().fold(0.0_f64, |best, &v| if v.abs() > best.abs() { v } else { best });
            if largest < 0.0 {
                direction.iter_mut().for_each(|value| *value = -*value);
            }
            direction.iter().map(|&value| value as f32).collect()
        });
        let mean = means.iter().map(|&mean| mean as f32).collect();
        let mut basis = Self { mean, components, low: [0.0; 3], high: [0.0; 3] };
        for (index, plane) in basis.projections(&map).iter().enumerate() {
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
        let channels = self.mean.len();
        if let Some(wrong) = self.components.iter().map(Vec::len).chain([channels]).find(|&len| len != map.channels) {
            return Err(PictureError::BasisChannels { basis: wrong, map: map.channels });
        }
        let mut data = vec![0; 3 * pixels];
        for (index, mut plane) in self.projections(&map).into_iter().enumerate() {
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

    /// `[3][patches]`. Uses the rounded values that are saved, so that a basis from a file does the same.
    fn projections(&self, map: &Map<'_>) -> Vec<Vec<f32>> {
        let wide = |values: &Vec<f32>| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
        let vectors: Vec<Vec<f64>> = self.components.iter().map(wide).collect();
        let planes = project(map, &wide(&self.mean), &vectors);
        // Sums of values near the end of f32 may lie beyond it.
        let narrow = |value: f64| value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        planes.into_iter().map(|plane| plane.into_iter().map(narrow).collect()).collect()
    }

    /// The basis as a safetensors file: `mean` `[D]`, `components` `[3, D]`, `range` `[2, 3]` (low, high), and in the
    /// metadata whose features it is for. Equal bases give equal bytes.
    pub fn to_safetensors(&self, origin: &BasisOrigin<'_>) -> Vec<u8> {
        // By hand, because the safetensors crate writes the metadata in random order.
        let channels = self.mean.len();
        let (mean_end, components_end) = (4 * channels, 16 * channels);
        let mut header = json!({
            "__metadata__": {
                "kind": KIND, "model": origin.model, "tap": origin.tap, "weights": origin.weights,
            },
            "components": {"dtype": "F32", "shape": [3, channels], "data_offsets": [mean_end, components_end]},
            "mean": {"dtype": "F32", "shape": [channels], "data_offsets": [0, mean_end]},
            "range": {"dtype": "F32", "shape": [2, 3], "data_offsets": [components_end, components_end + 24]},
        })
        .to_string();
        // So that the values are aligned where the file is mapped.
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        let values = self.mean.iter().chain(self.components.iter().flatten()).chain(&self.low).chain(&self.high);
        bytes.extend(values.flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// Reads what [`PcaBasis::to_safetensors`] wrote, for features of the same origin.
    ///
    /// # Errors
    /// If the bytes are no such file, or the basis is for other features.
    pub fn from_safetensors(bytes: &[u8], origin: &BasisOrigin<'_>) -> Result<Self, PictureError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if metadata.get("kind").map(String::as_str) != Some(KIND) {
            return Err(not_a_basis(format!("its metadata do not say kind {KIND}")));
        }
        for (what, expected) in [("model", origin.model), ("tap", origin.tap), ("weights", origin.weights)] {
            match metadata.get(what) {
                Some(found) if found == expected => {}
                Some(found) => {
                    let (found, expected) = (found.clone(), expected.to_owned());
                    return Err(PictureError::BasisOrigin { what, found, expected });
                }
                None => return Err(not_a_basis(format!("its metadata do not say which {what} it is for"))),
            }
        }
        let tensors = SafeTensors::deserialize(bytes)?;
        let mean = tensor(&tensors, "mean", None)?;
        let channels = mean.len();
        let components = tensor(&tensors, "components", Some(&[3, channels]))?;
        let range = tensor(&tensors, "range", Some(&[2, 3]))?;
        let component = |index: usize| components[index * channels..(index + 1) * channels].to_vec();
        Ok(Self {
            components: std::array::from_fn(component),
            low: std::array::from_fn(|index| range[index]),
            high: std::array::from_fn(|index| range[3 + index]),
            mean,
        })
    }
}

/// What the file says it is; to be changed with its layout.
const KIND: &str = "dinov3-pca-basis-1";

fn not_a_basis(reason: String) -> PictureError {
    PictureError::NotABasis { reason }
}

/// Finite values of one tensor; without a shape, of a vector of any length but 0.
fn tensor(tensors: &SafeTensors<'_>, name: &str, shape: Option<&[usize]>) -> Result<Vec<f32>, PictureError> {
    let Ok(view) = tensors.tensor(name) else { return Err(not_a_basis(format!("tensor {name} is missing"))) };
    let fits = match shape {
        Some(shape) => view.shape() == shape,
        None => matches!(view.shape(), [length] if *length > 0),
    };
    if !fits || view.dtype() != Dtype::F32 {
        let expected = shape.map_or_else(|| "[D]".to_owned(), |shape| format!("{shape:?}"));
        let (dtype, found) = (view.dtype(), view.shape());
        return Err(not_a_basis(format!("tensor {name} should be F32 {expected}, it is {dtype:?} {found:?}")));
    }
    let (values, _) = view.data().as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    if values.iter().any(|value| !value.is_finite()) {
        return Err(not_a_basis(format!("tensor {name} holds values that are not finite")));
    }
    Ok(values)
}

/// The 1st and the 99th percentile, interpolated between neighbours as NumPy does.
pub(crate) fn percentile_range(values: &[f32]) -> (f32, f32) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = |part: f64| {
        let place = part * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        (f64::from(below) + (f64::from(above) - f64::from(below)) * place.fract()) as f32
    };
    (at(BEYOND), at(1.0 - BEYOND))
}

/// Where a value lies in a range, from 0 to 1; nowhere if the range is empty.
pub(crate) fn place_in((low, high): (f32, f32), value: f32) -> Option<f32> {
    let (low, high) = (f64::from(low), f64::from(high));
    (high > low).then(|| ((f64::from(value) - low) / (high - low)).clamp(0.0, 1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: BasisOrigin<'_> =
        BasisOrigin { model: "vit_small_patch16_dinov3", weights: "synthetic:7", tap: "blocks.11" };

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
            for (component, direction) in basis.components.iter().zip(&planted) {
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
        for component in &basis.components {
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
        let bytes = basis.to_safetensors(&BasisOrigin { model: "one", ..ORIGIN });
        let read = |bytes: &[u8], model, tap| {
            PcaBasis::from_safetensors(bytes, &BasisOrigin { model, tap, ..ORIGIN }).unwrap_err()
        };
        assert!(matches!(read(&bytes, "other", "blocks.11"), PictureError::BasisOrigin { what: "model", .. }));
        assert!(matches!(read(&bytes, "one", "blocks.10"), PictureError::BasisOrigin { what: "tap", .. }));
        let other = BasisOrigin { model: "one", weights: "synthetic:8", ..ORIGIN };
        let error = PcaBasis::from_safetensors(&bytes, &other).unwrap_err();
        assert!(matches!(error, PictureError::BasisOrigin { what: "weights", .. }));
        assert!(matches!(read(&bytes[..bytes.len() - 4], "one", "blocks.11"), PictureError::Safetensors(_)));
        assert!(matches!(read(b"not safetensors", "one", "blocks.11"), PictureError::Safetensors(_)));
        let mut broken = basis.clone();
        broken.low[1] = f32::INFINITY;
        let broken = broken.to_safetensors(&BasisOrigin { model: "one", ..ORIGIN });
        assert!(matches!(read(&broken, "one", "blocks.11"), PictureError::NotABasis { .. }));
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
            assert!(basis.components.iter().flatten().all(|value| value.is_finite()));
            basis.apply_enlarged(&map, 9, 5).unwrap();
            let bytes = basis.to_safetensors(&ORIGIN);
            assert_eq!(PcaBasis::from_safetensors(&bytes, &ORIGIN).unwrap(), basis);
        }
        let empty = Array { shape: vec![1, 0, 2, 2], data: vec![] };
        assert!(matches!(PcaBasis::fit(&empty), Err(PictureError::MapShape { .. })));
    }

    #[test]
    fn percentiles_are_interpolated() {
        let values: Vec<f32> = (0..=200).rev().map(|value| value as f32).collect();
        assert_eq!(percentile_range(&values), (2.0, 198.0));
        assert_eq!(percentile_range(&[3.0]), (3.0, 3.0));
        assert_eq!(percentile_range(&[0.0, 1.0]), (0.01, 0.99));
    }
}
