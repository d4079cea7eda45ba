//! One row out of many: means and maxima of columns.

/// The mean of each column of `[rows, d]`, summed in f64. With no rows the means are NaN.
///
/// # Panics
/// If a slice does not have the length that `rows` and `d` say.
pub fn mean_rows(x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    assert_eq!((x.len(), out.len()), (rows * d, d));
    // A block of columns at a time, so that the sums need no allocation.
    for (block, out) in out.chunks_mut(64).enumerate() {
        let mut sums = [0.0_f64; 64];
        for row in 0..rows {
            let start = row * d + block * 64;
            for (sum, &value) in sums.iter_mut().zip(&x[start..start + out.len()]) {
                *sum += f64::from(value);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = (sum / rows as f64) as f32;
        }
    }
}

/// The largest value of each column of `[rows, d]`; NaN if the column has one. With no rows, minus infinity.
///
/// # Panics
/// If a slice does not have the length that `rows` and `d` say.
pub fn max_rows(x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    assert_eq!((x.len(), out.len()), (rows * d, d));
    out.fill(f32::NEG_INFINITY);
    for row in 0..rows {
        for (out, &value) in out.iter_mut().zip(&x[row * d..]) {
            // Written so that a NaN on either side wins.
            if value > *out || value.is_nan() {
                *out = value;
            }
        }
    }
}
