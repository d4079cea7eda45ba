//! Cutting pixels and maps into the rows of a matrix product.

use dinov3_kernels::Element;
use dinov3_model::encoder::ImageBatch;
use dinov3_system::threads::Pool;

use crate::output::SharedRows;

/// Normalised images [count, 3, H, W] -> one row per patch, flattened (channel, y, x). Row and column by row and
/// column; what lies outside the image is zero, the mean colour.
pub(crate) fn image_patches<E: Element>(
    pool: &Pool,
    batch: &ImageBatch<'_>,
    size_px: usize,
    rows: usize,
    columns: usize,
    out: &mut Vec<E>,
) {
    let length = 3 * size_px * size_px;
    out.resize(batch.count * rows * columns * length, E::default());
    let plane = batch.height_px * batch.width_px;
    let shared = SharedRows::new(out, columns * length);
    pool.run(batch.count * rows, &|index| {
        let (image, row) = (index / rows, index % rows);
        let pixels = &batch.pixels[image * 3 * plane..][..3 * plane];
        let band = shared.take(index);
        for (column, patch) in band.chunks_exact_mut(length).enumerate() {
            for (line, out) in patch.chunks_exact_mut(size_px).enumerate() {
                let (channel, y) = (line / size_px, row * size_px + line % size_px);
                let x = column * size_px;
                let inside = if y < batch.height_px { size_px.min(batch.width_px.saturating_sub(x)) } else { 0 };
                if inside > 0 {
                    let source = &pixels[channel * plane + y * batch.width_px + x..][..inside];
                    out[..inside].iter_mut().zip(source).for_each(|(out, &value)| *out = E::from_f32(value));
                }
                out[inside..].fill(E::default());
            }
        }
    });
}

/// Maps [count, h, w, c] -> one row per 2×2 block, flattened (y, x, channel). An odd last row or column is dropped.
pub(crate) fn map_blocks<E: Element>(
    pool: &Pool,
    map: &[E],
    count: usize,
    (h, w, c): (usize, usize, usize),
    out: &mut Vec<E>,
) {
    let (rows, columns) = (h / 2, w / 2);
    out.resize(count * rows * columns * 4 * c, E::default());
    let shared = SharedRows::new(out, columns * 4 * c);
    pool.run(count * rows, &|index| {
        let (image, row) = (index / rows, index % rows);
        let band = shared.take(index);
        for (column, block) in band.chunks_exact_mut(4 * c).enumerate() {
            for y in 0..2 {
                let from = ((image * h + 2 * row + y) * w + 2 * column) * c;
                block[y * 2 * c..][..2 * c].copy_from_slice(&map[from..from + 2 * c]);
            }
        }
    });
}
