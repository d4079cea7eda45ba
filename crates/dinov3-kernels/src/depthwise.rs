//! The depthwise 7x7 convolution of a ConvNeXt block together with the LayerNorm that follows it.
#![allow(unsafe_code)]

use std::ops::Range;

use dinov3_system::threads::Pool;

use crate::element::{Operand, RowWork, store_part};
use crate::isa::Isa;
use crate::memory::SharedOutput;
use crate::norm::Norm;
use crate::simd::{Kernel, LANES, Simd};

/// Taps along one axis.
const TAPS: usize = 7;
/// Zeros around the image.
const PADDING: usize = 3;

/// Convolves each channel of `x`, `[images, h, w, c]`, with its own 7x7 taps (3 zeros around the image), adds `bias`, and
/// normalises each pixel over its channels as [`layer_norm`](crate::layer_norm) does. `weight` is `[49][c]`, row by row
/// of the window; `out` is `[images * h * w, c]`, its rows [`Operand::row_length`] long.
///
/// # Panics
/// If a slice does not have the length that the sizes say.
#[allow(clippy::too_many_arguments)]
pub fn depthwise7x7_layer_norm<O: Operand>(
    pool: &Pool,
    isa: Isa,
    x: &[f32],
    images: usize,
    h: usize,
    w: usize,
    c: usize,
    weight: &[f32],
    bias: &[f32],
    norm_weight: &[f32],
    norm_bias: &[f32],
    eps: f32,
    out: &mut [O],
) {
    assert_eq!(x.len(), images * h * w * c);
    let out_length = O::row_length(c);
    assert_eq!(out.len(), images * h * w * out_length);
    assert_eq!(weight.len(), TAPS * TAPS * c);
    assert_eq!((bias.len(), norm_weight.len(), norm_bias.len()), (c, c, c));
    if out.is_empty() {
        return;
    }
    let output = SharedOutput::new(out);
    pool.run(images * h, &|task| {
        let (image, y) = (task / h, task % h);
        // SAFETY: each task writes the image row of its own number.
        let out = unsafe { output.part(task * w * out_length, w * out_length) };
        O::run_rows(
            isa,
            RowWork::Depthwise(DepthwiseRow {
                image: &x[image * h * w * c..(image + 1) * h * w * c],
                y,
                height: h,
                width: w,
                channels: c,
                weight,
                bias,
                norm: Norm { weight: norm_weight, bias: norm_bias, eps },
                out,
            }),
        );
    });
}

pub struct DepthwiseRow<'a, O> {
    image: &'a [f32],
    y: usize,
    height: usize,
    width: usize,
    channels: usize,
    weight: &'a [f32],
    bias: &'a [f32],
    norm: Norm<'a>,
    out: &'a mut [O],
}

impl<O: Operand> Kernel for DepthwiseRow<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.channels;
        let mut convolved = vec![0.0; self.width * channels];
        for first in (0..channels).step_by(LANES) {
            // Sums of a block of pixels stay in registers: as many as the registers hold.
            if S::TILE_VECTORS > 1 {
                self.convolve::<S, 8>(simd, first, &mut convolved);
            } else {
                self.convolve::<S, 4>(simd, first, &mut convolved);
            }
        }
        let pixels = convolved.chunks_exact(channels);
        let mut buffer = Vec::new();
        for (pixel, out) in pixels.zip(self.out.chunks_exact_mut(O::row_length(channels))) {
            O::normalize(simd, pixel, self.norm, &mut buffer, out);
        }
    }
}

impl<O: Operand> DepthwiseRow<'_, O> {
    /// The convolution of one row for up to sixteen channels from `first` on, `PIXELS` pixels at a time.
    #[inline(always)]
    fn convolve<S: Simd, const PIXELS: usize>(&self, simd: S, first: usize, convolved: &mut [f32]) {
        let (channels, width) = (self.channels, self.width);
        let used = (channels - first).min(LANES);
        let bias = simd.load_part(&self.bias[first..first + used], 0.0);
        // The rows of the window that lie in the image.
        let rows = PADDING.saturating_sub(self.y)..TAPS.min(self.height + PADDING - self.y);
        for x in (0..width).step_by(PIXELS) {
            // The last block moves inwards: what it computes once more is the same.
            let x = x.min(width.saturating_sub(PIXELS));
            let end = x + PIXELS;
            let known_left = x == 0 || x >= PADDING;
            let known_right = end == width || end + PADDING <= width;
            let sums = [bias; PIXELS];
            // A loop for each case, not one with four bodies: in that one the sums would live on the stack.
            let sums = if used < LANES || end > width || !known_left || !known_right {
                self.add_rows_of_strips(simd, sums, rows.clone(), x, first)
            } else {
                match (x == 0, end == width) {
                    (false, false) => self.add_rows::<S, PIXELS, false, false>(simd, sums, rows.clone(), x, first),
                    (true, false) => self.add_rows::<S, PIXELS, true, false>(simd, sums, rows.clone(), x, first),
                    (false, true) => self.add_rows::<S, PIXELS, false, true>(simd, sums, rows.clone(), x, first),
                    (true, true) => self.add_rows::<S, PIXELS, true, true>(simd, sums, rows.clone(), x, first),
                }
            };
            for (pixel, sum) in sums.into_iter().enumerate() {
                if x + pixel < width {
                    let start = (x + pixel) * channels + first;
                    store_part(simd, sum, &mut convolved[start..start + used]);
                }
            }
        }
    }

    /// Adds the products with `rows` of the window. Its columns may reach beyond the image row where the first of `PIXELS`
    /// pixels is the row's first (`LEFT`), or the last one its last (`RIGHT`).
    #[inline(always)]
    fn add_rows<S: Simd, const PIXELS: usize, const LEFT: bool, const RIGHT: bool>(
        &self,
        simd: S,
        mut sums: [S::V; PIXELS],
        rows: Range<usize>,
        x: usize,
        first: usize,
    ) -> [S::V; PIXELS] {
        let channels = self.channels;
        let stride = self.width * channels;
        let (left, right) = (if LEFT { 0 } else { PADDING }, if RIGHT { 0 } else { PADDING });
        assert!(x >= left && x + PIXELS + right <= self.width && first + LANES <= channels);
        assert!(self.image.len() >= (self.y + rows.end - PADDING) * stride);
        let weights = &self.weight[rows.start * TAPS * channels..rows.end * TAPS * channels];
        // Where the window's first column would be.
        let start = ((self.y + rows.start - PADDING) * self.width + x) * channels + first;
        let mut line = self.image.as_ptr().wrapping_add(start).wrapping_sub(PADDING * channels);
        for weights in weights.chunks_exact(TAPS * channels) {
            let weights = weights[first..].as_ptr();
            // Written out for each column: then the compiler loads a value once for all taps that use it.
            macro_rules! columns {
                ($($column:literal)+) => {$({
                    // SAFETY: sixteen weights of a column of `channels`, by the assertion and the chunk's length.
                    let weight = unsafe { simd.load(&*weights.add($column * channels).cast()) };
                    for pixel in 0..PIXELS {
                        let outside = LEFT && pixel + $column < PADDING || RIGHT && pixel + $column >= PIXELS + PADDING;
                        if !outside {
                            // SAFETY: column x + pixel + $column - PADDING of a row of the image, by the assertions. The
                            // alignment of f32 is that of an array of it.
                            let value = unsafe { simd.load(&*line.wrapping_add((pixel + $column) * channels).cast()) };
                            sums[pixel] = simd.fused(value, weight, sums[pixel]);
                        }
                    }
                })+};
            }
            columns!(0 1 2 3 4 5 6);
            line = line.wrapping_add(stride);
        }
        sums
    }

    /// The same where fewer than sixteen channels are left, or the window reaches beyond a narrow row on both sides.
    #[inline(always)]
    fn add_rows_of_strips<S: Simd, const PIXELS: usize>(
        &self,
        simd: S,
        mut sums: [S::V; PIXELS],
        rows: Range<usize>,
        x: usize,
        first: usize,
    ) -> [S::V; PIXELS] {
        let channels = self.channels;
        let used = (channels - first).min(LANES);
        let top = self.y + rows.start - PADDING;
        let lines = self.image[top * self.width * channels..].chunks_exact(self.width * channels);
        let weights =
            self.weight[rows.start * TAPS * channels..rows.end * TAPS * channels].chunks_exact(TAPS * channels);
        for (weights, line) in weights.zip(lines) {
            // A strip of the row with its zeros.
            let mut strip = [[0.0; LANES]; 8 + TAPS - 1];
            for (at, target) in strip[..PIXELS + TAPS - 1].iter_mut().enumerate() {
                // Left of the image this wraps to a huge number.
                let source_x = (x + at).wrapping_sub(PADDING);
                if source_x < self.width {
                    let start = source_x * channels + first;
                    if let Some(whole) = line[start..start + used].first_chunk() {
                        *target = *whole;
                    } else {
                        target[..used].copy_from_slice(&line[start..start + used]);
                    }
                }
            }
            macro_rules! columns {
                ($($column:literal)+) => {$({
                    let start = $column * channels + first;
                    let weight = simd.load_part(&weights[start..start + used], 0.0);
                    for pixel in 0..PIXELS {
                        let value = simd.load(&strip[pixel + $column]);
                        sums[pixel] = simd.fused(value, weight, sums[pixel]);
                    }
                })+};
            }
            columns!(0 1 2 3 4 5 6);
        }
        sums
    }
}
