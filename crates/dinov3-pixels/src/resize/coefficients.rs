//! The weights of Pillow's resampler for one axis.

use super::Filter;

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for the overshoot of a cubic.
pub(super) const WEIGHT_BITS: u32 = 32 - 8 - 2;

/// Half a level, added before the shift so that it rounds.
pub(super) const ROUNDING: i32 = 1 << (WEIGHT_BITS - 1);

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
}

impl Coefficients {
    /// Weights for the outputs `first..first + count` of an axis resized from `input` to `output` pixels.
    ///
    /// The arithmetic and its order are Pillow's (`precompute_coeffs`, `normalize_coeffs_8bpc`): a different order
    /// rounds differently.
    pub(super) fn new(input: usize, output: usize, first: usize, count: usize, filter: Filter) -> Self {
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let widest = (support.ceil() as usize * 2 + 1).min(input);
        let taps = widest.next_multiple_of(8);

        let mut starts = Vec::with_capacity(count);
        let mut lengths = Vec::with_capacity(count);
        let mut weights = vec![0; count * taps];
        let mut exact = Vec::with_capacity(taps);
        for (index, target) in (first..first + count).zip(weights.chunks_exact_mut(taps)) {
            let centre = (index as f64 + 0.5) * scale;
            // Casts truncate toward zero and saturate at zero, as the C code does by hand.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            exact.clear();
            exact.extend((start..end).map(|at| filter.weight(((at as f64) - centre + 0.5) * inverse)));
            let sum: f64 = exact.iter().sum();
            for (weight, &value) in target.iter_mut().zip(&exact) {
                let normalised = if sum == 0.0 { value } else { value / sum };
                let scaled = normalised * f64::from(1_u32 << WEIGHT_BITS);
                *weight = (if normalised < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
            }
            starts.push(start);
            lengths.push(exact.len());
        }
        Self { starts, lengths, taps, weights }
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
