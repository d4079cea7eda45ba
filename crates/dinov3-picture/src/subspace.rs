//! The leading eigenvectors of a covariance matrix that is never formed.
//!
//! Subspace iteration: a block of vectors is multiplied by the covariance again and again, and made orthonormal each
//! time; it turns towards the leading eigenvectors. The product is taken as two passes over the map, `projections =
//! block × map` and `block = projections × mapᵀ`: for n patches of D channels that is n × D per vector and pass, where
//! the matrix itself would cost n × D² (D is 4096 for the largest model).

use crate::map::Map;

/// Vectors in the block. Five more than wanted: convergence is ruled by the ratio of the third eigenvalue to the ninth.
const BLOCK: usize = 8;

/// Passes after which a map without structure is left as it is: its eigenvalues almost coincide, any picture is as good.
const PASS_LIMIT: usize = 100;

/// The iteration ends when no leading vector turns by more than this (sine of the angle) in one pass.
const TURN_LIMIT: f64 = 1e-6;

/// Directions whose variance is below this part of the largest are rounding noise.
const NOISE: f64 = 1e-14;

/// Means of the channels.
pub(crate) fn channel_means(map: &Map<'_>) -> Vec<f64> {
    map.by_channel().map(|channel| channel.iter().map(|&v| f64::from(v)).sum::<f64>() / channel.len() as f64).collect()
}

/// The three directions of largest variance, `[3][D]`, in falling order. A direction that the map does not have
/// (fewer than four distinct patches, fewer than three channels) is zero.
pub(crate) fn leading_directions(map: &Map<'_>, means: &[f64]) -> [Vec<f64>; 3] {
    let mut block: Vec<Vec<f64>> = (0..BLOCK).map(|vector| scattered(vector, map.channels)).collect();
    orthonormalise(&mut block, 0.0);
    let mut values = vec![0.0; block.len()];
    for _ in 0..PASS_LIMIT {
        let projections = project(map, means, &block);
        // Rayleigh-Ritz: rotate the block onto the eigenvectors of the covariance within its span.
        let gram = gram(&projections);
        let (rotation, found) = symmetric_eigen(gram);
        let rotated_projections = rotate(&projections, &rotation);
        let ritz = rotate(&block, &rotation);
        let mut next = back_project(map, means, &rotated_projections);
        let largest = found.first().copied().unwrap_or(0.0);
        if largest <= 0.0 {
            values = vec![0.0; block.len()];
            break;
        }
        // How far the product of a Ritz vector is from being a multiple of it: the sine of its angle to the old one.
        let turn = (0..next.len().min(3))
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
    std::array::from_fn(|index| match block.get(index) {
        Some(vector) if values[index] > NOISE * largest => vector.clone(),
        _ => vec![0.0; map.channels],
    })
}

/// `[vectors][patches]`: the patches, mean-centred, along each vector.
pub(crate) fn project(map: &Map<'_>, means: &[f64], vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut out = vec![vec![0.0; map.patches()]; vectors.len()];
    for (index, channel) in map.by_channel().enumerate() {
        for (vector, projection) in vectors.iter().zip(&mut out) {
            let factor = vector[index];
            for (sum, &value) in projection.iter_mut().zip(channel) {
                *sum += factor * (f64::from(value) - means[index]);
            }
        }
    }
    out
}

/// `[vectors][D]`: the patches, mean-centred, summed with the projections as weights.
fn back_project(map: &Map<'_>, means: &[f64], projections: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut out = vec![Vec::with_capacity(map.channels); projections.len()];
    let mut centred = vec![0.0; map.patches()];
    for (index, channel) in map.by_channel().enumerate() {
        for (to, &value) in centred.iter_mut().zip(channel) {
            *to = f64::from(value) - means[index];
        }
        for (vector, projection) in out.iter_mut().zip(projections) {
            vector.push(dot(projection, &centred));
        }
    }
    out
}

/// In sixteen partial sums, so that the compiler may use vectors; the order is fixed, the result is too.
fn dot(left: &[f64], right: &[f64]) -> f64 {
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

fn gram(vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    vectors.iter().map(|left| vectors.iter().map(|right| dot(left, right)).collect()).collect()
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
    let mut vectors: Vec<Vec<f64>> =
        (0..size).map(|row| (0..size).map(|column| f64::from(u8::from(row == column))).collect()).collect();
    // Jacobi converges quadratically: a handful of sweeps suffices for eight rows.
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
                let (above, below) = matrix.split_at_mut(q);
                for (upper, lower) in above[p].iter_mut().zip(&mut below[0]) {
                    (*upper, *lower) = (cosine * *upper - sine * *lower, sine * *upper + cosine * *lower);
                }
                for row in vectors.iter_mut() {
                    (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&left, &right| matrix[right][right].total_cmp(&matrix[left][left]));
    let sorted = vectors.iter().map(|row| order.iter().map(|&column| row[column]).collect()).collect();
    (sorted, order.iter().map(|&index| matrix[index][index]).collect())
}

/// A start without pattern, the same on every run: multiples of an odd constant, mixed.
fn scattered(vector: usize, channels: usize) -> Vec<f64> {
    (0..channels)
        .map(|channel| {
            let mut state = (channel as u64 * 8 + vector as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
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
