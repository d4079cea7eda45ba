//! The leading eigenvectors of a covariance.
//!
//! Subspace iteration: a block of vectors is multiplied by the covariance again and again, and made orthonormal each
//! time; it turns towards the leading eigenvectors.

use crate::covariance::Operator;

/// Passes after which vectors without structure are left as they are: their eigenvalues almost coincide, and any choice is
/// as good.
const PASS_LIMIT: usize = 100;

/// The iteration ends when no leading vector turns by more than this (sine of the angle) in one pass.
const TURN_LIMIT: f64 = 1e-6;

/// Directions whose variance is below this part of the largest are rounding noise.
const NOISE: f64 = 1e-13;

/// Vectors in the block for so many wanted ones. Convergence is ruled by the ratio of the last wanted eigenvalue to the
/// first one beyond the block.
fn block_size(wanted: usize, dims: usize) -> usize {
    (wanted + wanted / 2 + 4).min(dims)
}

/// The `wanted` directions of largest variance and these variances, in falling order. A direction that there is not (fewer
/// distinct vectors or dimensions) is zero.
pub(crate) fn leading_directions(operator: &impl Operator, wanted: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let dims = operator.dims();
    let mut block: Vec<Vec<f64>> = (0..block_size(wanted, dims)).map(|vector| scattered(vector, dims)).collect();
    orthonormalise(&mut block, 0.0);
    let mut values = vec![0.0; block.len()];
    for _ in 0..PASS_LIMIT {
        // Rayleigh-Ritz: rotate the block onto the eigenvectors of the covariance within its span.
        let product = operator.multiply(&block);
        let (rotation, found) = symmetric_eigen(symmetric_products(&block, &product));
        let ritz = rotate(&block, &rotation);
        let mut next = rotate(&product, &rotation);
        let largest = found.first().copied().unwrap_or(0.0);
        if largest <= 0.0 {
            values = vec![0.0; block.len()];
            break;
        }
        // How far the product of a Ritz vector is from being a multiple of it: the sine of its angle to the old one.
        let turn = (0..next.len().min(wanted))
            .filter(|&index| found[index] > NOISE * largest)
            .map(|index| {
                let length = dot(&next[index], &next[index]).sqrt();
                let along = dot(&next[index], &ritz[index]);
                if length > 0.0 { (1.0 - (along / length).powi(2)).max(0.0).sqrt() } else { 0.0 }
            })
            .fold(0.0, f64::max);
        block = ritz;
        values = found;
        if turn <= TURN_LIMIT {
            break;
        }
        orthonormalise(&mut next, NOISE);
        block = next;
    }
    let largest = values.first().copied().unwrap_or(0.0);
    let direction = |index: usize| match block.get(index) {
        Some(vector) if values[index] > NOISE * largest => (vector.clone(), values[index]),
        _ => (vec![0.0; dims], 0.0),
    };
    (0..wanted).map(direction).unzip()
}

/// In sixteen partial sums, so that the compiler may use vectors; the order is fixed, the result is too.
pub(crate) fn dot(left: &[f64], right: &[f64]) -> f64 {
    let mut sums = [0.0; 16];
    let (left_blocks, left_rest) = left.as_chunks::<16>();
    let (right_blocks, right_rest) = right.as_chunks::<16>();
    for (a, b) in left_blocks.iter().zip(right_blocks) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + left_rest.iter().zip(right_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// The products of each vector with each, which are symmetric but for rounding.
fn symmetric_products(left: &[Vec<f64>], right: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut products = vec![vec![0.0; left.len()]; left.len()];
    for row in 0..left.len() {
        for column in row..left.len() {
            let product = 0.5 * (dot(&left[row], &right[column]) + dot(&left[column], &right[row]));
            (products[row][column], products[column][row]) = (product, product);
        }
    }
    products
}

/// Gram-Schmidt, twice for accuracy. Vectors that the others already span (to `tolerance` of the longest, squared) are
/// dropped.
fn orthonormalise(vectors: &mut Vec<Vec<f64>>, tolerance: f64) {
    let longest = vectors.iter().map(|vector| dot(vector, vector)).fold(0.0, f64::max);
    let mut kept: Vec<Vec<f64>> = Vec::with_capacity(vectors.len());
    for mut vector in vectors.drain(..) {
        let before = dot(&vector, &vector);
        for _ in 0..2 {
            for other in &kept {
                let along = dot(&vector, other);
                for (value, &part) in vector.iter_mut().zip(other) {
                    *value -= along * part;
                }
            }
        }
        let square = dot(&vector, &vector);
        // What is left of a vector that lay in the span is rounding, some 1e-16 of it.
        if square > (tolerance * tolerance * longest).max(1e-24 * before) {
            let scale = 1.0 / square.sqrt();
            vector.iter_mut().for_each(|value| *value *= scale);
            kept.push(vector);
        }
    }
    *vectors = kept;
}

/// The vectors combined by the columns of a rotation.
fn rotate(vectors: &[Vec<f64>], rotation: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..vectors.len())
        .map(|column| {
            let mut out = vec![0.0; vectors[0].len()];
            for (vector, row) in vectors.iter().zip(rotation) {
                out.iter_mut().zip(vector).for_each(|(sum, &value)| *sum += row[column] * value);
            }
            out
        })
        .collect()
}

/// Eigenvectors (columns) and eigenvalues of a small symmetric matrix, largest first, by Jacobi's rotations.
fn symmetric_eigen(mut matrix: Vec<Vec<f64>>) -> (Vec<Vec<f64>>, Vec<f64>) {
    let size = matrix.len();
    // By rows, which are the columns of what is given back: a rotation then works on two contiguous rows.
    let mut vectors: Vec<Vec<f64>> =
        (0..size).map(|row| (0..size).map(|column| f64::from(u8::from(row == column))).collect()).collect();
    // Jacobi converges quadratically: a handful of sweeps suffices.
    for _ in 0..30 {
        let mut rotated = false;
        for p in 0..size {
            for q in p + 1..size {
                let off = matrix[p][q];
                if off == 0.0 || off.abs() <= 1e-17 * (matrix[p][p] * matrix[q][q]).abs().sqrt() {
                    continue;
                }
                rotated = true;
                let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * off);
                let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
                let sine = tangent * cosine;
                for row in matrix.iter_mut() {
                    (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
                }
                for rows in [&mut matrix, &mut vectors] {
                    let (above, below) = rows.split_at_mut(q);
                    for (upper, lower) in above[p].iter_mut().zip(&mut below[0]) {
                        (*upper, *lower) = (cosine * *upper - sine * *lower, sine * *upper + cosine * *lower);
                    }
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&left, &right| matrix[right][right].total_cmp(&matrix[left][left]));
    let sorted = (0..size).map(|row| order.iter().map(|&column| vectors[column][row]).collect()).collect();
    (sorted, order.iter().map(|&index| matrix[index][index]).collect())
}

/// A start without pattern, the same on every run: multiples of an odd constant, mixed.
fn scattered(vector: usize, dims: usize) -> Vec<f64> {
    (0..dims)
        .map(|dim| {
            let mut state = (((dim as u64) << 16) + vector as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jacobi_finds_known_eigenvalues() {
        // [[2, 1], [1, 2]] beside a 5: eigenvalues 5, 3, 1.
        let (vectors, values) = symmetric_eigen(vec![vec![2.0, 1.0, 0.0], vec![1.0, 2.0, 0.0], vec![0.0, 0.0, 5.0]]);
        for (found, expected) in values.iter().zip([5.0, 3.0, 1.0]) {
            assert!((found - expected).abs() < 1e-12);
        }
        assert!((vectors[0][1].abs() - 0.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(vectors[2][0].abs(), 1.0);
    }
}
