//! The 8-bit resampling of Pillow and of torch, bit for bit; [`float`] is torch's in f32.
//!
//! Two passes with an 8-bit picture in between. A pass is skipped where the side does not change.
//!
//! The picture in between is rounded to whole levels, so the order of the passes shows in the result. In Pillow 13 it
//! is horizontal first, unless the height shrinks by more than twice what the width does. Older Pillows always went
//! horizontally first (but for pictures more than 100 times as high as wide), and so does torch.

mod coefficients;
pub(crate) mod float;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::error::PixelError;
use crate::image::RgbImage;
use crate::limits::zeroed_bytes;
use coefficients::Coefficients;

/// The interpolation between pixels; both are widened when shrinking, so that no input pixel is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Filter {
    /// A triangle two pixels wide.
    Bilinear,
    /// Keys' cubic with a = -0.5, four pixels wide.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// Whose fixed-point arithmetic is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// Pillow 13: 22 fractional bits.
    Pillow,
    /// torch's antialiased `interpolate` of an 8-bit tensor on a CPU with AVX2: as many fractional bits as 16-bit
    /// weights allow, horizontal pass first.
    Torch,
}

/// Resizes to exactly this size, as Pillow's `Image.resize` does.
///
/// # Errors
///
/// [`PixelError::Empty`] for a target without pixels, [`PixelError::OutOfMemory`].
///
/// ```
/// use dinov3_pixels::{Filter, RgbImage, resize};
///
/// let image = RgbImage::from_raw(2, 1, vec![0, 0, 0, 200, 100, 50])?;
/// let wider = resize(&image, 4, 1, Filter::Bilinear)?;
/// assert_eq!(wider.data(), [0, 0, 0, 50, 25, 13, 150, 75, 38, 200, 100, 50]);
/// # Ok::<(), dinov3_pixels::PixelError>(())
/// ```
pub fn resize(image: &RgbImage, width_px: u32, height_px: u32, filter: Filter) -> Result<RgbImage, PixelError> {
    let whole = Window { left: 0, top: 0, width: width_px as usize, height: height_px as usize };
    resize_window(image, (width_px, height_px), filter, Arithmetic::Pillow, whole, Kernel::best())
}

/// The part of a resized picture that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Which implementation runs; all give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    #[cfg_attr(target_arch = "x86_64", allow(dead_code))]
    Scalar,
    #[cfg(target_arch = "x86_64")]
    X86(x86::Level),
}

impl Kernel {
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(level) = x86::best_level() {
            return Self::X86(level);
        }
        Self::Scalar
    }
}

/// The pixels of `window` in the picture resized to `width_px` x `height_px`; nothing outside it is computed.
///
/// The window must lie within the resized picture.
pub(crate) fn resize_window(
    image: &RgbImage,
    (width_px, height_px): (u32, u32),
    filter: Filter,
    arithmetic: Arithmetic,
    window: Window,
    kernel: Kernel,
) -> Result<RgbImage, PixelError> {
    if window.width == 0 || window.height == 0 || width_px == 0 || height_px == 0 {
        return Err(PixelError::Empty { width_px: window.width as u64, height_px: window.height as u64 });
    }
    let (input_width, input_height) = (image.width_px() as usize, image.height_px() as usize);
    let (output_width, output_height) = (width_px as usize, height_px as usize);
    let horizontal = (input_width != output_width)
        .then(|| Coefficients::new((input_width, output_width), (window.left, window.width), filter, arithmetic));
    let vertical = (input_height != output_height)
        .then(|| Coefficients::new((input_height, output_height), (window.top, window.height), filter, arithmetic));

    let source = Plane { data: image.data(), row_bytes: input_width * 3 };
    let data = match (horizontal, vertical) {
        (None, None) => {
            let mut data = zeroed_bytes(window.width as u64 * 3 * window.height as u64)?;
            for (index, target) in data.chunks_exact_mut(window.width * 3).enumerate() {
                target.copy_from_slice(&image.row(window.top + index)[window.left * 3..][..window.width * 3]);
            }
            data
        }
        (Some(horizontal), None) => horizontal_pass(source, window.top, window.height, &horizontal, kernel)?,
        (None, Some(vertical)) => vertical_pass(source, window.left * 3, window.width * 3, &vertical, kernel)?,
        (Some(horizontal), Some(vertical))
            if arithmetic == Arithmetic::Pillow && vertical_first(image, output_width, output_height) =>
        {
            // Only the columns that the second pass will look at.
            let (first, end) = horizontal.input_range();
            let between = vertical_pass(source, first * 3, (end - first) * 3, &vertical, kernel)?;
            let between = Plane { data: &between, row_bytes: (end - first) * 3 };
            horizontal_pass(between, 0, window.height, &horizontal.shifted(first), kernel)?
        }
        (Some(horizontal), Some(vertical)) => {
            // Only the rows that the second pass will look at.
            let (first, end) = vertical.input_range();
            let between = horizontal_pass(source, first, end - first, &horizontal, kernel)?;
            let between = Plane { data: &between, row_bytes: window.width * 3 };
            vertical_pass(between, 0, window.width * 3, &vertical.shifted(first), kernel)?
        }
    };
    RgbImage::from_raw(window.width as u32, window.height as u32, data)
}

/// Pillow 13's choice of the first pass.
fn vertical_first(image: &RgbImage, output_width: usize, output_height: usize) -> bool {
    let rows_lost = i64::from(image.height_px()) - output_height as i64;
    let columns_lost = i64::from(image.width_px()) - output_width as i64;
    rows_lost > 0 && rows_lost > columns_lost * 2
}

/// Rows of interleaved RGB, one after the other.
#[derive(Clone, Copy)]
struct Plane<'a> {
    data: &'a [u8],
    row_bytes: usize,
}

impl<'a> Plane<'a> {
    fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.row_bytes..][..self.row_bytes]
    }
}

/// Resamples each of `row_count` rows from `first_row` on.
fn horizontal_pass(
    source: Plane<'_>,
    first_row: usize,
    row_count: usize,
    coefficients: &Coefficients,
    kernel: Kernel,
) -> Result<Vec<u8>, PixelError> {
    let stride = coefficients.starts.len() * 3;
    let mut result = zeroed_bytes(stride as u64 * row_count as u64)?;
    match kernel {
        Kernel::Scalar => {
            for (index, target) in result.chunks_exact_mut(stride).enumerate() {
                scalar::horizontal(source.row(first_row + index), target, coefficients);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::X86(level) => x86::horizontal_rows(level, source, first_row, &mut result, coefficients),
    }
    Ok(result)
}

/// Mixes rows, of which the bytes `first_byte..first_byte + byte_count` are wanted.
fn vertical_pass(
    source: Plane<'_>,
    first_byte: usize,
    byte_count: usize,
    coefficients: &Coefficients,
    kernel: Kernel,
) -> Result<Vec<u8>, PixelError> {
    let mut result = zeroed_bytes(byte_count as u64 * coefficients.starts.len() as u64)?;
    match kernel {
        Kernel::Scalar => {
            for (index, target) in result.chunks_exact_mut(byte_count).enumerate() {
                let rows = &source.data[coefficients.starts[index] * source.row_bytes + first_byte..];
                scalar::vertical(rows, source.row_bytes, target, coefficients, index);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::X86(level) => x86::vertical_rows(level, source, first_byte, byte_count, &mut result, coefficients),
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: u32, height: u32, seed: u64) -> RgbImage {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let data = (0..width as usize * height as usize * 3)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Extremes are where a cubic overshoots.
                match state >> 62 {
                    0 => 0,
                    1 => 255,
                    _ => (state >> 40) as u8,
                }
            })
            .collect();
        RgbImage::from_raw(width, height, data).unwrap()
    }

    fn kernels() -> Vec<Kernel> {
        #[cfg(target_arch = "x86_64")]
        {
            let mut kernels = Vec::new();
            if let Some(best) = x86::best_level() {
                kernels.push(Kernel::X86(x86::Level::Avx2));
                if best == x86::Level::Avx512 {
                    kernels.push(Kernel::X86(best));
                }
            }
            kernels
        }
        #[cfg(not(target_arch = "x86_64"))]
        Vec::new()
    }

    #[test]
    fn vector_kernels_equal_scalar() {
        let sizes = [1_u32, 2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 31, 32, 33, 37, 64, 65, 97, 130];
        let mut seed = 0;
        for (position, &width) in sizes.iter().enumerate() {
            for &height in &[sizes[(position * 7 + 3) % sizes.len()], sizes[(position * 3 + 1) % sizes.len()]] {
                for &(to_width, to_height) in &[
                    (1, 1),
                    (2, 3),
                    (5, 4),
                    (11, 10),
                    (17, 29),
                    (33, 32),
                    (64, 7),
                    (99, 130),
                    (width, 50),
                    (21, height),
                ] {
                    for (filter, arithmetic) in [
                        (Filter::Bilinear, Arithmetic::Pillow),
                        (Filter::Bicubic, Arithmetic::Pillow),
                        (Filter::Bilinear, Arithmetic::Torch),
                        (Filter::Bicubic, Arithmetic::Torch),
                    ] {
                        seed += 1;
                        let image = noise(width, height, seed);
                        let whole = Window { left: 0, top: 0, width: to_width as usize, height: to_height as usize };
                        let size = (to_width, to_height);
                        let expected = resize_window(&image, size, filter, arithmetic, whole, Kernel::Scalar).unwrap();
                        for kernel in kernels() {
                            let actual = resize_window(&image, size, filter, arithmetic, whole, kernel).unwrap();
                            assert!(
                                actual == expected,
                                "{kernel:?} {width}x{height} to {to_width}x{to_height} {filter:?} {arithmetic:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_equals_the_same_part_of_the_whole() {
        let image = noise(53, 41, 5);
        for (width, height) in [(29, 31), (70, 90), (53, 80), (20, 41)] {
            for arithmetic in [Arithmetic::Pillow, Arithmetic::Torch] {
                let resized = |window| {
                    let size = (width, height);
                    resize_window(&image, size, Filter::Bicubic, arithmetic, window, Kernel::best()).unwrap()
                };
                let whole = resized(Window { left: 0, top: 0, width: width as usize, height: height as usize });
                let window = Window { left: 3, top: 5, width: 15, height: 22 };
                let part = resized(window);
                for y in 0..window.height {
                    let expected = &whole.row(window.top + y)[window.left * 3..][..window.width * 3];
                    assert_eq!(part.row(y), expected);
                }
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let image = noise(19, 23, 1);
        assert_eq!(resize(&image, 19, 23, Filter::Bicubic).unwrap(), image);
    }

    #[test]
    fn an_empty_target_is_refused() {
        assert!(matches!(
            resize(&noise(3, 3, 1), 0, 5, Filter::Bilinear),
            Err(PixelError::Empty { width_px: 0, height_px: 5 })
        ));
    }

    /// `cargo test --release -p dinov3-pixels -- --ignored --nocapture`
    #[test]
    #[ignore = "prints times"]
    fn times() {
        let image = noise(1411, 1411, 1);
        let window = Window { left: 0, top: 0, width: 256, height: 256 };
        for kernel in kernels().into_iter().chain([Kernel::Scalar]) {
            for filter in [Filter::Bicubic, Filter::Bilinear] {
                let mut times: Vec<f64> = (0..41)
                    .map(|_| {
                        let start = std::time::Instant::now();
                        resize_window(&image, (256, 256), filter, Arithmetic::Pillow, window, kernel).unwrap();
                        start.elapsed().as_secs_f64() * 1e3
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                println!(
                    "1411x1411 to 256x256 {filter:?} {kernel:?}: median {:.3} ms, best {:.3} ms",
                    times[20], times[0]
                );
            }
        }
    }
}
