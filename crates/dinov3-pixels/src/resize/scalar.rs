//! The portable passes, which define what the vector versions must give.

use super::coefficients::Coefficients;

fn to_level(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}

/// One row: `source` holds RGB pixels, `target` receives one RGB pixel per output.
pub(super) fn horizontal(source: &[u8], target: &mut [u8], coefficients: &Coefficients) {
    for (index, pixel) in target.chunks_exact_mut(3).enumerate() {
        let weights = coefficients.of(index);
        let pixels = &source[coefficients.starts[index] * 3..];
        let mut sums = [coefficients.rounding(); 3];
        for (&weight, values) in weights.iter().zip(pixels.chunks_exact(3)) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(value)));
            }
        }
        for (value, sum) in pixel.iter_mut().zip(sums) {
            *value = to_level(sum, coefficients.bits);
        }
    }
}

/// Output row `index` as a weighted sum of rows that lie `row_bytes` apart; `rows` starts at the first of them.
pub(super) fn vertical(rows: &[u8], row_bytes: usize, target: &mut [u8], coefficients: &Coefficients, index: usize) {
    let weights = coefficients.of(index);
    for (x, value) in target.iter_mut().enumerate() {
        let mut sum = coefficients.rounding();
        for (row, &weight) in weights.iter().enumerate() {
            sum = sum.wrapping_add(weight.wrapping_mul(i32::from(rows[row * row_bytes + x])));
        }
        *value = to_level(sum, coefficients.bits);
    }
}
