//! A window of samples as the pixels that an encoder takes.

use dinov3_engine::{Item, ItemError, ItemErrorKind};
use dinov3_geo::PixelWindow;
use dinov3_pixels::{Recipe, RgbImage, Statistics};
use dinov3_raster::{RasterWindow, Samples};

use crate::scale::Transfer;

/// The chip `chip` of which `read` is what lies in the scene, three bands. Beyond that it is mirrored; where there is no
/// data, and where a sample is NaN, it has the colour that the model takes for the mean: zero. `tables`
/// are those of [`Transfer::tables`]: the same bits in less time.
pub(crate) fn chip_pixels(
    read: &RasterWindow,
    chip: PixelWindow,
    transfer: &Transfer,
    tables: Option<&[Vec<f32>; 3]>,
    statistics: &Statistics,
) -> Result<Item, ItemError> {
    let (width, height) = (chip.width_px as usize, chip.height_px as usize);
    let (inner_width, inner_height) = (read.window.width_px as usize, read.window.height_px as usize);
    let columns = mirrored(read.window.x_px - chip.x_px, inner_width, width);
    let rows = mirrored(read.window.y_px - chip.y_px, inner_height, height);
    // Where in a band the pixel of the chip comes from.
    let sources = || rows.iter().flat_map(|row| columns.iter().map(move |column| row * inner_width + column));
    let band = inner_width * inner_height;

    let mut data = match (&read.samples, transfer) {
        (Samples::U8(samples), Transfer::Levels) => {
            let levels = sources().flat_map(|at| [samples[at], samples[band + at], samples[2 * band + at]]).collect();
            let picture = RgbImage::from_raw(chip.width_px, chip.height_px, levels).map_err(pixel_error)?;
            Recipe::Native { statistics: *statistics }.apply(&picture).map_err(pixel_error)?.data
        }
        (samples, transfer) => {
            let mut data = Vec::with_capacity(3 * width * height);
            for channel in 0..3 {
                let (mean, std) = (statistics.mean[channel], statistics.std[channel]);
                let table = tables.map(|tables| tables[channel].as_slice());
                match (samples, table) {
                    (Samples::U8(samples), Some(table)) => {
                        data.extend(
                            sources().map(|at| (table[usize::from(samples[channel * band + at])] - mean) / std),
                        );
                    }
                    (Samples::U16(samples), Some(table)) => {
                        data.extend(
                            sources().map(|at| (table[usize::from(samples[channel * band + at])] - mean) / std),
                        );
                    }
                    _ => data.extend(sources().map(|at| {
                        let value = (transfer.unit(channel, samples.get(channel * band + at)) - mean) / std;
                        if value.is_nan() { 0.0 } else { value }
                    })),
                }
            }
            data
        }
    };
    if read.valid.contains(&false) {
        for (pixel, at) in sources().enumerate() {
            if !read.valid[at] {
                for channel in 0..3 {
                    data[channel * width * height + pixel] = 0.0;
                }
            }
        }
    }
    Ok(Item { height_px: height, width_px: width, pixels: data })
}

/// What is no number is no data, whatever the file says.
pub(crate) fn without_nan(read: &mut RasterWindow) {
    if !read.samples.sample_type().is_float() {
        return;
    }
    let pixels = read.valid.len();
    for at in 0..read.samples.len() {
        if read.samples.get(at).is_nan() {
            read.valid[at % pixels] = false;
        }
    }
}

fn pixel_error(error: dinov3_pixels::PixelError) -> ItemError {
    ItemError::new(ItemErrorKind::Decode, error.to_string())
}

/// For `length` places along a side of which the known part starts at `offset`: which of its `known` places each is, as
/// `numpy.pad(mode="reflect")` goes forth and back. The ends are not repeated; a single place is.
fn mirrored(offset: i64, known: usize, length: usize) -> Vec<usize> {
    let period = (2 * known as i64 - 2).max(1);
    (0..length as i64)
        .map(|place| {
            let at = (place - offset).rem_euclid(period);
            at.min(period - at).clamp(0, known as i64 - 1) as usize
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Statistics = Statistics { mean: [0.0; 3], std: [1.0; 3] };

    fn window(width_px: u32, height_px: u32, samples: Samples) -> RasterWindow {
        let valid = vec![true; (width_px * height_px) as usize];
        RasterWindow { window: PixelWindow::new(0, 0, width_px, height_px), bands: 3, samples, valid }
    }

    #[test]
    fn padding_is_that_of_numpy() {
        // numpy.pad([0, 1, 2], (2, 6), "reflect")
        assert_eq!(mirrored(2, 3, 11), [2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0]);
        assert_eq!(mirrored(0, 1, 4), [0, 0, 0, 0]);
        assert_eq!(mirrored(0, 2, 5), [0, 1, 0, 1, 0]);
        assert_eq!(mirrored(0, 5, 5), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn levels_become_what_timm_makes_of_them() {
        let read = window(2, 1, Samples::U8(vec![0, 255, 51, 102, 153, 204]));
        let item =
            chip_pixels(&read, PixelWindow::new(0, 0, 2, 2), &Transfer::Levels, None, &Statistics::SATELLITE).unwrap();
        assert_eq!((item.height_px, item.width_px), (2, 2));
        let expected = |level: f32, channel: usize| {
            (level / 255.0 - Statistics::SATELLITE.mean[channel]) / Statistics::SATELLITE.std[channel]
        };
        for (channel, levels) in [[0.0, 255.0], [51.0, 102.0], [153.0, 204.0]].into_iter().enumerate() {
            let [a, b] = levels.map(|level| expected(level, channel));
            assert_eq!(item.pixels[4 * channel..][..4], [a, b, a, b]);
        }
    }

    #[test]
    fn what_is_no_data_is_zero_also_in_its_mirror_image() {
        let mut read = window(2, 2, Samples::U8(vec![200; 12]));
        read.valid[1] = false;
        let item =
            chip_pixels(&read, PixelWindow::new(0, 0, 3, 3), &Transfer::Levels, None, &Statistics::SATELLITE).unwrap();
        let zeros: Vec<usize> = (0..9).filter(|&pixel| item.pixels[pixel] == 0.0).collect();
        // Row 0 and its mirror image, row 2; column 1 is not repeated.
        assert_eq!(zeros, [1, 7]);
    }

    #[test]
    fn other_samples_are_scaled_and_nan_is_no_data() {
        let read = window(1, 1, Samples::U16(vec![0, 500, 4000]));
        let scale = Transfer::range(0.0, 1000.0);
        let item = chip_pixels(&read, PixelWindow::new(0, 0, 1, 1), &scale, None, &PLAIN).unwrap();
        assert_eq!(item.pixels, [0.0, 0.5, 1.0]);
        let tables = scale.tables(read.samples.sample_type());
        let by_table = chip_pixels(&read, PixelWindow::new(0, 0, 1, 1), &scale, tables.as_ref(), &PLAIN).unwrap();
        assert_eq!(by_table.pixels, item.pixels);
        let read = window(1, 1, Samples::F32(vec![f32::NAN, 1000.0, 0.0]));
        let item = chip_pixels(&read, PixelWindow::new(0, 0, 1, 1), &scale, None, &PLAIN).unwrap();
        assert_eq!(item.pixels, [0.0, 1.0, 0.0]);
    }
}
