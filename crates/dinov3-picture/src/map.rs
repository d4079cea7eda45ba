//! One feature map, checked once.

use dinov3_model::array::Array;

use crate::error::PictureError;

/// Channels of finite values, each with one value per patch.
#[derive(Clone, Copy)]
pub(crate) struct Map<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) channels: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl<'a> Map<'a> {
    pub(crate) fn new(array: &'a Array) -> Result<Self, PictureError> {
        let wrong = || PictureError::MapShape { shape: array.shape.clone(), values: array.data.len() };
        let &[1, channels, rows, columns] = array.shape.as_slice() else { return Err(wrong()) };
        let expected = rows.checked_mul(columns).and_then(|patches| patches.checked_mul(channels));
        if expected != Some(array.data.len()) || array.data.is_empty() {
            return Err(wrong());
        }
        if let Some(index) = array.data.iter().position(|value| !value.is_finite()) {
            return Err(PictureError::NotFinite { value: array.data[index], channel: index / (rows * columns) });
        }
        Ok(Self { values: &array.data, channels, rows, columns })
    }

    pub(crate) fn patches(&self) -> usize {
        self.rows * self.columns
    }

    /// The channels, each as a slice of patches in rows.
    pub(crate) fn by_channel(&self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.patches())
    }
}
