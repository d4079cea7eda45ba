//! A scene as a small picture for people.

use dinov3_geo::PixelWindow;
use dinov3_pixels::RgbImage;
use dinov3_raster::Raster;

use crate::pixels::without_nan;
use crate::{Scene, SceneError};

/// What is read at once, at most, unless a single row of the picture needs more.
const READ_BYTES: u64 = 32 << 20;

/// Where there is no data: as dark as space.
const NO_DATA: [u8; 3] = [22, 24, 28];

impl Scene {
    /// The scene's red, green and blue as the encoder gets them before normalisation, on at most `longest_px` pixels along
    /// the longer side: each pixel the mean of the valid ones that it stands for. Read from the smallest overview in the
    /// file with at least two pixels for each, or just as many. Costs a few blocks and the picture.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn picture(&self, longest_px: u32) -> Result<RgbImage, SceneError> {
        let profile = self.profile();
        let longest = profile.width_px.max(profile.height_px).max(1);
        let side = |side_px: u32| {
            let shown = u64::from(side_px) * u64::from(longest_px.clamp(1, longest)) / u64::from(longest);
            (shown as u32).max(1)
        };
        let (width, height) = (side(profile.width_px), side(profile.height_px));
        // Means of one or two pixels would be ragged.
        let enough =
            |&(wide, high): &(u32, u32)| (wide, high) == (width, height) || wide / 2 >= width && high / 2 >= height;
        let level = profile.overviews.iter().rposition(enough);
        let overview = level.map(|level| self.raster().overview(level)).transpose()?;
        let levels = self.averaged(overview.as_deref().unwrap_or(self.raster()), width, height)?;
        RgbImage::from_raw(width, height, levels)
            .map_err(|error| SceneError::Picture { scene: self.name().to_owned(), problem: error.to_string() })
    }

    /// `raster`, averaged to `height` rows of `width` pixels.
    fn averaged(&self, raster: &dyn Raster, width: u32, height: u32) -> Result<Vec<u8>, SceneError> {
        let (from_width, from_height) = (raster.profile().width_px, raster.profile().height_px);
        // Every place has at least one pixel, since the picture is never larger.
        let edges = |from: u32, to: u32| -> Vec<u32> {
            (0..=u64::from(to)).map(|place| (place * u64::from(from) / u64::from(to)) as u32).collect()
        };
        let (columns, rows) = (edges(from_width, width), edges(from_height, height));
        let transfer = &self.measured()?.transfer;
        let bands = self.distinct_bands();
        // Which of the bands that were read each colour is.
        let colours = if bands.len() == 1 { [0, 0, 0] } else { [0, 1, 2] };
        let row_bytes = u64::from(from_width)
            * u64::from(from_height.div_ceil(height))
            * (raster.profile().sample_type.size_bytes() * bands.len()) as u64;
        let at_once = usize::try_from(READ_BYTES / row_bytes.max(1)).unwrap_or(1).max(1);
        let mut levels = Vec::with_capacity(3 * width as usize * height as usize);
        for first in (0..height as usize).step_by(at_once) {
            let last = (first + at_once).min(height as usize);
            let (top, bottom) = (rows[first], rows[last]);
            let window = PixelWindow::new(0, top.into(), from_width, bottom - top);
            if raster.is_empty(window) {
                levels.extend(std::iter::repeat_n(NO_DATA, (last - first) * width as usize).flatten());
                continue;
            }
            let mut read = raster.read(window, &bands)?;
            without_nan(&mut read);
            let (stride, band) = (from_width as usize, read.valid.len());
            for row in first..last {
                let inner_rows = (rows[row] - top) as usize..(rows[row + 1] - top) as usize;
                for column in columns.windows(2) {
                    let inner_columns = column[0] as usize..column[1] as usize;
                    let pixels = inner_rows.clone().flat_map(|y| inner_columns.clone().map(move |x| y * stride + x));
                    let (mut sums, mut valid) = ([0.0_f64; 3], 0_u32);
                    for at in pixels.filter(|&at| read.valid[at]) {
                        valid += 1;
                        for (channel, (sum, colour)) in sums.iter_mut().zip(colours).enumerate() {
                            *sum += f64::from(transfer.unit(channel, read.samples.get(colour * band + at)));
                        }
                    }
                    levels.extend(match valid {
                        0 => NO_DATA,
                        _ => sums.map(|sum| (255.0 * sum / f64::from(valid)).round().clamp(0.0, 255.0) as u8),
                    });
                }
            }
        }
        Ok(levels)
    }
}
