//! The one array type of the public API: a shape and its values, row-major.

/// Row-major f32 values with their shape. Plain data on purpose: no third-party array type crosses the seams.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values, last dimension contiguous.
    pub data: Vec<f32>,
}

impl Array {
    /// An array of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }

    /// Gives the array a new shape, keeping its allocation. The values are unspecified afterwards.
    pub fn reshape(&mut self, shape: &[usize]) {
        self.shape.clear();
        self.shape.extend_from_slice(shape);
        self.data.resize(shape.iter().product(), 0.0);
    }

    /// The values of item `index` along the first dimension.
    ///
    /// # Panics
    /// If the array has no dimension or `index` is out of range.
    pub fn item(&self, index: usize) -> &[f32] {
        let size: usize = self.shape[1..].iter().product();
        &self.data[index * size..(index + 1) * size]
    }
}
