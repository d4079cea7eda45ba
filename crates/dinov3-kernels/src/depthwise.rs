//! The depthwise 7x7 convolution of a ConvNeXt block together with the LayerNorm that follows it.
#![allow(unsafe_code)]

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
        let channels = self.channels;
        let used = (channels - first).min(LANES);
        let bias = simd.load_part(&self.bias[first..first + used], 0.0);
        // The rows of the window that lie in the image.
        let top = PADDING.saturating_sub(self.y);
        let bottom = TAPS.min(self.height + PADDING - self.y);
        let mut weights = [[0.0; LANES]; TAPS * TAPS];
        for (tap, weights) in weights.iter_mut().enumerate() {
            let start = tap * channels + first;
            weights[..used].copy_from_slice(&self.weight[start..start + used]);
        }
        for x in (0..self.width).step_by(PIXELS) {
            let inside = x >= PADDING && x + PIXELS + PADDING <= self.width && used == LANES;
            let weights = weights[top * TAPS..bottom * TAPS].as_chunks::<TAPS>().0;
            let sums = [bias; PIXELS];
            // Two loops over the rows, not one with two bodies: in that one the sums would live on the stack.
            let sums = if inside {
                self.add_rows(simd, sums, weights, top, x, first)
            } else {
                self.add_rows_at_edge(simd, sums, weights, top, x, first)
            };
            for (pixel, sum) in sums.into_iter().enumerate() {
                if x + pixel < self.width {
                    let start = (x + pixel) * channels + first;
                    store_part(simd, sum, &mut convolved[start..start + used]);
                }
            }
        }
    }

    /// Adds the products with rows of the window, from its row `top` on, where the window lies inside the image row.
    #[inline(always)]
    fn add_rows<S: Simd, const PIXELS: usize>(
        &self,
        simd: S,
        mut sums: [S::V; PIXELS],
        weights: &[[[f32; LANES]; TAPS]],
        top: usize,
        x: usize,
        first: usize,
    ) -> [S::V; PIXELS] {
        let channels = self.channels;
        let stride = self.width * channels;
        let start = (self.y + top - PADDING) * stride + (x - PADDING) * channels + first;
        let end = start + (weights.len() - 1) * stride + (PIXELS + TAPS - 2) * channels + LANES;
        let mut line = self.image[start..end].as_ptr();
        for weights in weights {
            // Written out for each column: then the compiler loads a value once for all taps that use it.
            macro_rules! columns {
                ($($column:literal)+) => {$({
                    let weight = simd.load(&weights[$column]);
                    for pixel in 0..PIXELS {
                        // SAFETY: pixel + column is at most PIXELS + TAPS - 2, and so the sixteen channels of the last row
                        // end with the slice. The alignment of f32 is that of an array of it.
                        let value = unsafe { simd.load(&*line.add((pixel + $column) * channels).cast()) };
                        sums[pixel] = simd.fused(value, weight, sums[pixel]);
                    }
                })+};
            }
            columns!(0 1 2 3 4 5 6);
            line = line.wrapping_add(stride);
        }
        sums
    }

    /// The same where the window reaches beyond the image row, or fewer than sixteen channels are left.
    #[inline(always)]
    fn add_rows_at_edge<S: Simd, const PIXELS: usize>(
        &self,
        simd: S,
        mut sums: [S::V; PIXELS],
        weights: &[[[f32; LANES]; TAPS]],
        top: usize,
        x: usize,
        first: usize,
    ) -> [S::V; PIXELS] {
        let channels = self.channels;
        let used = (channels - first).min(LANES);
        let lines = self.image[(self.y + top - PADDING) * self.width * channels..].chunks_exact(self.width * channels);
        for (weights, line) in weights.iter().zip(lines) {
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
                    let weight = simd.load(&weights[$column]);
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
