//! The covariance of vectors, as something that vectors can be multiplied with.

use crate::subspace::dot;

/// A covariance matrix, formed or not. Its scale does not matter to its eigenvectors.
pub(crate) trait Operator {
    /// D.
    fn dims(&self) -> usize;

    /// The product with each vector of `[vectors][D]`.
    fn multiply(&self, vectors: &[Vec<f64>]) -> Vec<Vec<f64>>;
}

/// Vectors taken in together before they are added to the matrix, so that the matrix passes through the caches once for
/// all of them.
const GROUP: usize = 64;
/// Columns of the matrix that are worked on at once: with a group's vectors they fit into the first cache.
const STRIP: usize = 64;

/// Sums over vectors, from which their mean and covariance follow: D² numbers in f64, 134 MB for D = 4096.
///
/// Vectors count relative to the first one, so that a mean far from zero costs no digits. Every sum runs in the order in
/// which vectors are added.
#[derive(Clone, Debug)]
pub struct Covariance {
    dims: usize,
    count: u64,
    /// `[D]`: the first vector.
    shift: Vec<f64>,
    /// `[D]`: of the shifted vectors.
    sums: Vec<f64>,
    /// `[D, D]`: of their products; the lower triangle is empty until the end.
    products: Vec<f64>,
    /// Vectors that wait, `[GROUP, D]` at most.
    group: Vec<f64>,
}

impl Covariance {
    /// Of no vector yet. 0 dimensions count as 1.
    pub fn new(dims: usize) -> Self {
        let dims = dims.max(1);
        Self {
            dims,
            count: 0,
            shift: Vec::new(),
            sums: vec![0.0; dims],
            products: vec![0.0; dims * dims],
            group: Vec::with_capacity(GROUP * dims),
        }
    }

    /// D.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// The number of vectors.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds vectors, `[n, D]`. Those with a value that is not finite are left out, and so is what is no whole vector.
    pub fn add(&mut self, vectors: &[f32]) {
        for vector in vectors.chunks_exact(self.dims) {
            if vector.iter().any(|value| !value.is_finite()) {
                continue;
            }
            if self.count == 0 {
                self.shift = vector.iter().map(|&value| f64::from(value)).collect();
            }
            self.count += 1;
            let shifted = vector.iter().zip(&self.shift).map(|(&value, shift)| f64::from(value) - shift);
            self.group.extend(shifted);
            if self.group.len() == GROUP * self.dims {
                self.take_group();
            }
        }
    }

    fn take_group(&mut self) {
        let Self { dims, sums, products, group, .. } = self;
        let dims = *dims;
        for vector in group.chunks_exact(dims) {
            sums.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
        }
        for start in (0..dims).step_by(STRIP) {
            let end = (start + STRIP).min(dims);
            for row in 0..end {
                let first = start.max(row);
                let sums = &mut products[row * dims + first..row * dims + end];
                let mut local = [0.0; STRIP];
                let local = &mut local[..sums.len()];
                for vector in group.chunks_exact(dims) {
                    let factor = vector[row];
                    for (sum, value) in local.iter_mut().zip(&vector[first..end]) {
                        *sum += factor * value;
                    }
                }
                sums.iter_mut().zip(local).for_each(|(sum, value)| *sum += *value);
            }
        }
        group.clear();
    }

    /// The mean and the matrix of variances and covariances (over n), which is all that is left.
    pub(crate) fn finish(mut self) -> (Vec<f64>, Matrix) {
        self.take_group();
        let Self { dims, count, shift, sums, mut products, .. } = self;
        let count = count.max(1) as f64;
        let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        for row in 0..dims {
            for column in row..dims {
                let value = products[row * dims + column] / count - means[row] * means[column];
                products[row * dims + column] = value;
                products[column * dims + row] = value;
            }
        }
        let shift = if shift.is_empty() { vec![0.0; dims] } else { shift };
        let mean = means.iter().zip(&shift).map(|(mean, shift)| mean + shift).collect();
        (mean, Matrix { dims, values: products })
    }
}

/// A symmetric matrix, `[D, D]`.
pub(crate) struct Matrix {
    dims: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// The sum of the diagonal.
    pub(crate) fn trace(&self) -> f64 {
        (0..self.dims).map(|at| self.values[at * (self.dims + 1)]).sum()
    }
}

impl Operator for Matrix {
    fn dims(&self) -> usize {
        self.dims
    }

    fn multiply(&self, vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; self.dims]; vectors.len()];
        for (index, row) in self.values.chunks_exact(self.dims).enumerate() {
            for (vector, out) in vectors.iter().zip(&mut out) {
                out[index] = dot(row, vector);
            }
        }
        out
    }
}

/// Vectors in memory by channel, `[D, n]`: the covariance is never formed. For n vectors a product costs 2 · n · D per
/// vector, where the matrix would cost n · D² once.
pub(crate) struct Channels<'a> {
    values: &'a [f32],
    count: usize,
    pub(crate) means: Vec<f64>,
}

impl<'a> Channels<'a> {
    /// `values` holds at least one channel of `count` values, at least one.
    pub(crate) fn new(values: &'a [f32], count: usize) -> Self {
        let count = count.clamp(1, values.len().max(1));
        let mean = |channel: &[f32]| channel.iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64;
        let means = values.chunks_exact(count).map(mean).collect();
        Self { values, count, means }
    }

    /// `[vectors][n]`: the centred vectors along each direction.
    pub(crate) fn project(&self, means: &[f64], directions: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; self.count]; directions.len()];
        for (index, channel) in self.values.chunks_exact(self.count).enumerate() {
            for (direction, projection) in directions.iter().zip(&mut out) {
                let factor = direction[index];
                for (sum, &value) in projection.iter_mut().zip(channel) {
                    *sum += factor * (f64::from(value) - means[index]);
                }
            }
        }
        out
    }

    /// The sum of the channels' variances.
    pub(crate) fn trace(&self) -> f64 {
        let square = |(channel, mean): (&[f32], &f64)| {
            channel.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / self.count as f64
        };
        self.values.chunks_exact(self.count).zip(&self.means).map(square).sum()
    }
}

impl Operator for Channels<'_> {
    fn dims(&self) -> usize {
        self.means.len()
    }

    fn multiply(&self, vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let projections = self.project(&self.means, vectors);
        let mut out = vec![Vec::with_capacity(self.means.len()); vectors.len()];
        let mut centred = vec![0.0; self.count];
        for (channel, mean) in self.values.chunks_exact(self.count).zip(&self.means) {
            for (to, &value) in centred.iter_mut().zip(channel) {
                *to = f64::from(value) - mean;
            }
            for (vector, projection) in out.iter_mut().zip(&projections) {
                vector.push(dot(projection, &centred) / self.count as f64);
            }
        }
        out
    }
}
