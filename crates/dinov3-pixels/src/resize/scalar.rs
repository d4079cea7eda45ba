//! The portable passes, which define what the vector versions must give.

use super::coefficients::{Coefficients, ROUNDING, WEIGHT_BITS};

fn to_level(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// One row: `source` holds RGB pixels, `target` receives one RGB pixel per output.
pub(super) fn horizontal(source: &[u8], target: &mut [u8], coefficients: &Coefficients) {
    for (index, pixel) in target.chunks_exact_mut(3).enumerate() {
        let weights = coefficients.of(index);
        let pixels = &source[coefficients.starts[index] * 3..];
        let mut sums = [ROUNDING; 3];
        for (&weight, values) in weights.iter().zip(pixels.chunks_exact(3)) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(value)));
            }
        }
        for (value, sum) in pixel.iter_mut().zip(sums) {
            *value = to_level(sum);
        }
    }
}

/// One output row as a weighted sum of rows that lie `row_bytes` apart; `rows` starts at the first of them.
pub(super) fn vertical(rows: &[u8], row_bytes: usize, target: &mut [u8], weights: &[i32]) {
    for (x, value) in target.iter_mut().enumerate() {
        let mut sum = ROUNDING;
        for (index, &weight) in weights.iter().enumerate() {
            sum = sum.wrapping_add(weight.wrapping_mul(i32::from(rows[index * row_bytes + x])));
        }
        *value = to_level(sum);
    }
}
