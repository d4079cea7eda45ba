//! torch's antialiased bilinear resize of an f32 tensor.
//!
//! Weights, like sums, are f32, and their arithmetic is torch's in its order: with a picture of a thousand pixels the
//! positions alone would else differ by 1e-4 of a pixel. Sums are fused multiply-adds or not as in torch's build with
//! AVX2 (see [`fused_from`]), which makes the results equal bit for bit.
#![allow(unsafe_code)]

use crate::error::PixelError;
use crate::image::RgbImage;

/// Where each output looks, and with what weights.
struct Axis {
    starts: Vec<usize>,
    /// Where the weights of each output end; they begin where those of the output before end.
    ends: Vec<usize>,
    weights: Vec<f32>,
}

impl Axis {
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f32 / output as f32;
        let support = scale.max(1.0);
        let inverse = 1.0 / support;
        let mut axis =
            Self { starts: Vec::with_capacity(output), ends: Vec::with_capacity(output), weights: Vec::new() };
        for index in 0..output {
            let centre = scale * (index as f32 + 0.5);
            // Casts saturate at zero.
            let start = ((centre - support + 0.5) as usize).min(input);
            let end = ((centre + support + 0.5) as usize).clamp(start, input);
            let first = axis.weights.len();
            axis.weights.extend((start..end).map(|at| {
                let x = ((at as f32 - centre + 0.5) * inverse).abs();
                if x < 1.0 { 1.0 - x } else { 0.0 }
            }));
            let sum: f32 = axis.weights[first..].iter().sum();
            if sum != 0.0 {
                axis.weights[first..].iter_mut().for_each(|weight| *weight /= sum);
            }
            axis.starts.push(start);
            axis.ends.push(axis.weights.len());
        }
        axis
    }

    /// The first input and the weights of an output.
    fn of(&self, index: usize) -> (usize, &[f32]) {
        let first = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        (self.starts[index], &self.weights[first..self.ends[index]])
    }
}

/// A picture resized to `height` rows of `width` pixels, as interleaved f32; `levels` maps a byte to its value.
///
/// A side that keeps its length is not resampled, as in torch. Works row by row: beside the result only the rows that
/// one output row needs are held.
pub(crate) fn resize_bilinear(
    image: &RgbImage,
    width: usize,
    height: usize,
    levels: &[f32; 256],
) -> Result<Vec<f32>, PixelError> {
    let (input_width, input_height) = (image.width_px() as usize, image.height_px() as usize);
    let stride = width * 3;
    let columns = (width != input_width).then(|| Axis::new(input_width, width));
    let kernel = Kernel::best();
    let mut wide = vec![0.0_f32; if columns.is_some() { input_width * 3 } else { 0 }];
    let mut horizontal = |y: usize, row: &mut [f32]| {
        let to_values = |target: &mut [f32]| {
            for (value, &byte) in target.iter_mut().zip(image.row(y)) {
                *value = levels[usize::from(byte)];
            }
        };
        match &columns {
            None => to_values(row),
            Some(columns) => {
                to_values(&mut wide);
                kernel.mix_pixels(&wide, row, columns);
            }
        }
    };
    let count = stride as u64 * height as u64;
    let mut result = Vec::new();
    let refused = |bytes| PixelError::OutOfMemory { bytes };
    result.try_reserve_exact(stride * height).map_err(|_| refused(count * 4))?;
    result.resize(stride * height, 0.0);
    if height == input_height {
        result.chunks_exact_mut(stride).enumerate().for_each(|(y, row)| horizontal(y, row));
        return Ok(result);
    }
    let rows = Axis::new(input_height, height);
    // A ring of resampled input rows, as many as any output row looks at.
    let held = (0..height).map(|y| rows.of(y).1.len()).max().unwrap_or(0).max(1);
    let mut ring = Vec::new();
    ring.try_reserve_exact(held * stride).map_err(|_| refused(held as u64 * stride as u64 * 4))?;
    ring.resize(held * stride, 0.0_f32);
    let mut ready = 0;
    for (y, target) in result.chunks_exact_mut(stride).enumerate() {
        let (start, weights) = rows.of(y);
        ready = ready.max(start);
        while ready < start + weights.len() {
            horizontal(ready, &mut ring[ready % held * stride..][..stride]);
            ready += 1;
        }
        let fused_from = fused_from(weights.len());
        for (row, &weight) in weights.iter().enumerate() {
            let source = &ring[(start + row) % held * stride..][..stride];
            kernel.add_row(weight, source, target, row >= fused_from);
        }
    }
    Ok(result)
}

/// The first of `taps` products that is added to the sum in one rounding.
///
/// The compiler of torch's loop takes the products after the first in blocks of four, which are rounded before they
/// are added; what is left of a block is fused multiply-adds.
fn fused_from(taps: usize) -> usize {
    1 + taps.saturating_sub(1) / 4 * 4
}

/// Which implementation runs; both give the same values.
#[derive(Clone, Copy)]
enum Kernel {
    #[cfg_attr(target_arch = "x86_64", allow(dead_code))]
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Kernel {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Self::Avx2;
        }
        Self::Scalar
    }

    /// Resamples a row of RGB values.
    fn mix_pixels(self, source: &[f32], target: &mut [f32], columns: &Axis) {
        match self {
            Self::Scalar => mix_pixels(source, target, columns),
            // SAFETY: `best` saw that the machine has the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { mix_pixels_avx2(source, target, columns) },
        }
    }

    /// Adds `weight * source` to `target`, with one rounding if `fused`.
    fn add_row(self, weight: f32, source: &[f32], target: &mut [f32], fused: bool) {
        match self {
            Self::Scalar => add_row(weight, source, target, fused),
            // SAFETY: `best` saw that the machine has the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { add_row_avx2(weight, source, target, fused) },
        }
    }
}

#[inline(always)]
fn mix_pixels(source: &[f32], target: &mut [f32], columns: &Axis) {
    for (x, pixel) in target.chunks_exact_mut(3).enumerate() {
        let (start, weights) = columns.of(x);
        let values = source[start * 3..].chunks_exact(3);
        let fused_from = fused_from(weights.len());
        let mut sums = [0.0_f32; 3];
        for (tap, (&weight, value)) in weights.iter().zip(values).enumerate() {
            for (sum, &value) in sums.iter_mut().zip(value) {
                *sum = if tap >= fused_from { weight.mul_add(value, *sum) } else { weight * value + *sum };
            }
        }
        pixel.copy_from_slice(&sums);
    }
}

#[inline(always)]
fn add_row(weight: f32, source: &[f32], target: &mut [f32], fused: bool) {
    let pairs = target.iter_mut().zip(source);
    if fused {
        pairs.for_each(|(sum, &value)| *sum = weight.mul_add(value, *sum));
    } else {
        pairs.for_each(|(sum, &value)| *sum += weight * value);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn mix_pixels_avx2(source: &[f32], target: &mut [f32], columns: &Axis) {
    mix_pixels(source, target, columns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_row_avx2(weight: f32, source: &[f32], target: &mut [f32], fused: bool) {
    add_row(weight, source, target, fused);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_kernels_equal_scalar() {
        let source: Vec<f32> = (0..97 * 3).map(|at| (at * 7919 % 256) as f32 / 255.0).collect();
        for output in [1, 2, 13, 40, 96, 98, 200] {
            let columns = Axis::new(97, output);
            let (mut expected, mut actual) = (vec![0.0; output * 3], vec![0.0; output * 3]);
            mix_pixels(&source, &mut expected, &columns);
            Kernel::best().mix_pixels(&source, &mut actual, &columns);
            assert_eq!(actual, expected, "{output}");
            for fused in [true, false] {
                let (mut expected, mut actual) = (source.clone(), source.clone());
                add_row(0.3, &source, &mut expected, fused);
                Kernel::best().add_row(0.3, &source, &mut actual, fused);
                assert_eq!(actual, expected);
            }
        }
    }

    #[test]
    fn blocks_of_four_products_are_not_fused() {
        assert_eq!([1, 2, 4, 5, 6, 9, 10].map(fused_from), [1, 1, 1, 5, 5, 9, 9]);
    }
}
