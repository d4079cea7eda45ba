//! From tokens and maps to the arrays that are delivered.

use std::sync::Mutex;

use dinov3_kernels::{Epilogue, PackedMatrix, linear, max_rows, mean_rows};
use dinov3_model::array::Array;
use dinov3_model::encoder::{MapLayout, Pooling};
use dinov3_system::threads::Pool;

use crate::load::Linear;

/// Equal disjoint parts of a buffer, handed out to threads.
pub(crate) struct SharedRows<'a, T>(Vec<Mutex<Option<&'a mut [T]>>>);

impl<'a, T> SharedRows<'a, T> {
    pub fn new(buffer: &'a mut [T], length: usize) -> Self {
        Self(buffer.chunks_mut(length.max(1)).map(|part| Mutex::new(Some(part))).collect())
    }

    /// Part `index`; each is taken once.
    pub fn take(&self, index: usize) -> &'a mut [T] {
        let mut slot = self.0[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.take().expect("every task takes its own part")
    }
}

/// [count, n, c] of which rows `skip ..` are wanted, h · w of them -> a batch of maps in the layout asked for.
pub(crate) fn write_map(
    pool: &Pool,
    rows: &[f32],
    skip: usize,
    (count, c, h, w): (usize, usize, usize, usize),
    layout: MapLayout,
    out: &mut Array,
) {
    out.reshape(&layout.shape(count, c, h, w));
    let n = skip + h * w;
    match layout {
        MapLayout::Rows => {
            for (image, out) in rows.chunks_exact(n * c).zip(out.data.chunks_exact_mut(h * w * c)) {
                out.copy_from_slice(&image[skip * c..]);
            }
        }
        _ => channels_first(pool, rows, n, skip, c, &mut out.data),
    }
}

/// [count, n, c] of which rows `skip ..` are wanted -> [count, c, n - skip].
pub(crate) fn channels_first(pool: &Pool, rows: &[f32], n: usize, skip: usize, c: usize, out: &mut [f32]) {
    let kept = n - skip;
    // Blocks of channels: each task writes whole lines of the output and reads a narrow band of every row.
    const BLOCK: usize = 16;
    let blocks = c.div_ceil(BLOCK);
    let parts: Vec<&mut [f32]> =
        out.chunks_exact_mut(c * kept).flat_map(|image| image.chunks_mut(BLOCK * kept)).collect();
    let parts: Vec<Mutex<&mut [f32]>> = parts.into_iter().map(Mutex::new).collect();
    pool.run(parts.len(), &|index| {
        let (image, block) = (index / blocks, index % blocks);
        let mut part = parts[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (position, row) in rows[(image * n + skip) * c..][..kept * c].chunks_exact(c).enumerate() {
            for (line, &value) in row[block * BLOCK..c.min((block + 1) * BLOCK)].iter().enumerate() {
                part[line * kept + position] = value;
            }
        }
    });
}

/// Rows [n, d] of one image -> one vector.
///
/// # Panics
/// For the poolings that are no mean or maximum over rows.
pub(crate) fn pool_rows(pooling: Pooling, rows: &[f32], d: usize, out: &mut [f32]) {
    let count = rows.len() / d;
    match pooling {
        Pooling::Average => mean_rows(rows, count, d, out),
        Pooling::Max => max_rows(rows, count, d, out),
        Pooling::AverageMax => {
            let mut mean = vec![0.0; d];
            mean_rows(rows, count, d, &mut mean);
            max_rows(rows, count, d, out);
            out.iter_mut().zip(mean).for_each(|(value, mean)| *value = 0.5 * (*value + mean));
        }
        other => unreachable!("'{other}' is handled by the families"),
    }
}

/// Class scores of `rows` vectors.
pub(crate) fn classify(pool: &Pool, head: &Linear<f32>, vectors: &[f32], out: &mut [f32]) {
    let matrix: &PackedMatrix<f32> = &head.matrix;
    let (n, k) = (matrix.n(), matrix.k());
    linear(pool, vectors, vectors.len() / k, k, matrix, Epilogue::Store { bias: Some(&head.bias) }, out, n);
}

/// Gives an optional array its shape.
pub(crate) fn wanted<'a>(slot: &'a mut Option<Array>, shape: &[usize]) -> &'a mut [f32] {
    let array = slot.get_or_insert_default();
    array.reshape(shape);
    &mut array.data
}
