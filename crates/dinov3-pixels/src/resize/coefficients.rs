//! The weights of an 8-bit resampler for one axis.

use super::{Arithmetic, Filter};

/// Fractional bits of Pillow's weights: 32 less 8 for the pixel and 2 for the overshoot of a cubic.
const PILLOW_BITS: u32 = 32 - 8 - 2;

/// Where each output pixel looks, and with what weights.
///
/// `taps` is the same for all outputs and a multiple of 8; weights beyond an output's own are zero, so a kernel may
/// run over them but must not depend on the pixels there.
pub(super) struct Coefficients {
    /// The first input pixel of each output.
    pub(super) starts: Vec<usize>,
    /// How many inputs each output really uses.
    pub(super) lengths: Vec<usize>,
    /// Weights per output, padded.
    pub(super) taps: usize,
    /// `taps` weights for each output.
    pub(super) weights: Vec<i32>,
    /// Fractional bits of the weights.
    pub(super) bits: u32,
}

/// One axis of a resize, in exact weights.
struct Axis {
    input: usize,
    scale: f64,
    support: f64,
    inverse: f64,
    filter: Filter,
}

impl Axis {
    fn new(input: usize, output: usize, filter: Filter) -> Self {
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        Self { input, scale, support: filter.support() * filter_scale, inverse: 1.0 / filter_scale, filter }
    }

    /// The first input of an output, and its weights, of sum 1.
    ///
    /// The arithmetic and its order are Pillow's (`precompute_coeffs`), which torch shares: a different order rounds
    /// differently.
    fn weights_of(&self, index: usize, weights: &mut Vec<f64>) -> usize {
        let centre = (index as f64 + 0.5) * self.scale;
        // Casts truncate toward zero and saturate at zero, as the C code does by hand.
        let start = (centre - self.support + 0.5) as usize;
        let end = ((centre + self.support + 0.5) as usize).min(self.input);
        weights.clear();
        weights.extend((start..end).map(|at| self.filter.weight(((at as f64) - centre + 0.5) * self.inverse)));
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        start
    }

    /// torch's number of fractional bits: the most with which the largest weight of the axis still fits 16 bits.
    fn torch_bits(&self, output: usize) -> u32 {
        let mut weights = Vec::new();
        let mut largest = 0.0_f64;
        for index in 0..output {
            self.weights_of(index, &mut weights);
            largest = weights.iter().fold(largest, |largest, &weight| largest.max(weight));
        }
        let fits = |bits: u32| (0.5 + largest * f64::from(1_u32 << (bits + 1))) < f64::from(1_u32 << 15);
        (0..22).find(|&bits| !fits(bits)).unwrap_or(22)
    }
}

impl Coefficients {
    /// Weights for the outputs `first..first + count` of an axis resized from `input` to `output` pixels.
    pub(super) fn new(
        (input, output): (usize, usize),
        (first, count): (usize, usize),
        filter: Filter,
        arithmetic: Arithmetic,
    ) -> Self {
        let axis = Axis::new(input, output, filter);
        let bits = match arithmetic {
            Arithmetic::Pillow => PILLOW_BITS,
            Arithmetic::Torch => axis.torch_bits(output),
        };
        let widest = (axis.support.ceil() as usize * 2 + 1).min(input);
        let taps = widest.next_multiple_of(8);

        let mut starts = Vec::with_capacity(count);
        let mut lengths = Vec::with_capacity(count);
        let mut weights = vec![0; count * taps];
        let mut exact = Vec::with_capacity(taps);
        for (index, target) in (first..first + count).zip(weights.chunks_exact_mut(taps)) {
            starts.push(axis.weights_of(index, &mut exact));
            lengths.push(exact.len());
            for (weight, &value) in target.iter_mut().zip(&exact) {
                let scaled = value * f64::from(1_u32 << bits);
                *weight = (if value < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
            }
        }
        Self { starts, lengths, taps, weights, bits }
    }

    /// Half a level, added before the shift so that it rounds.
    pub(super) fn rounding(&self) -> i32 {
        1 << (self.bits - 1)
    }

    /// The inputs that the outputs look at, as a half-open range.
    pub(super) fn input_range(&self) -> (usize, usize) {
        let first = self.starts.iter().copied().min().unwrap_or(0);
        let last = self.starts.iter().zip(&self.lengths).map(|(start, length)| start + length).max().unwrap_or(0);
        (first, last)
    }

    /// The same weights for a picture that lacks the first `count` inputs; none of them may be looked at.
    pub(super) fn shifted(mut self, count: usize) -> Self {
        self.starts.iter_mut().for_each(|start| *start -= count);
        self
    }

    /// The weights that output `index` uses.
    pub(super) fn of(&self, index: usize) -> &[i32] {
        &self.weights[index * self.taps..][..self.lengths[index]]
    }
}
