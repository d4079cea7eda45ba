//! The sample scene: invented land as a satellite sees it, 2048 × 2048 pixels of 0.6 m in UTM zone 33N.
//!
//! Two Cloud Optimized GeoTIFFs of the same picture (deflate, predictor 2, tiles of 512, overviews):
//!
//! - `sample-scene-rgb.tif`: 8-bit red, green, blue, for display, as aerial pictures and visual products have them.
//!   Mean and deviation are near those of the pictures that the SAT weights were trained on.
//! - `sample-scene-reflectance.tif`: 16-bit blue, green, red, near infrared, as Sentinel-2's level 2A has them since
//!   processing baseline 04.00: `reflectance × 10000 + 1000`, 0 is no data. Level 255 of the picture is reflectance
//!   0.3, so `(DN - 1000) / 10000` scaled from 0..0.3 gives it back, to half a level. The near infrared is invented
//!   from how green a pixel is.
//!
//! The land lies where the Weinviertel is, 48.5° N, 16.6° E: fields and villages there, but not these.

mod land;

use std::path::Path;

use anyhow::{Context, Result};
use dinov3_picture::RgbPicture;
use geotiff_writer::{
    CogBuilder, Compression, ExtraSample, GeoTiffBuilder, NumericSample, PhotometricInterpretation, Predictor,
    Resampling,
};
use ndarray::Array3;

const SIDE_PX: usize = 2048;
const PIXEL_METRES: f64 = 0.6;
/// WGS 84 / UTM zone 33N.
const EPSG: u16 = 32633;
/// Easting and northing of the upper left corner, in metres.
const ORIGIN: [f64; 2] = [618_240.0, 5_374_500.0];

/// Reflectance of level 255.
const WHITE_REFLECTANCE: f32 = 0.3;

/// Draws both files into a folder.
pub fn draw(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let picture = land::paint();
    let rgb = |(row, column, band): (usize, usize, usize)| picture.data()[(row * SIDE_PX + column) * 3 + band];
    write(&folder.join("sample-scene-rgb.tif"), Array3::from_shape_fn((SIDE_PX, SIDE_PX, 3), rgb), |builder| {
        builder.photometric(PhotometricInterpretation::Rgb)
    })?;
    let reflectance = |(row, column, band)| numbers(rgb_at(&picture, row, column))[band];
    let bands = Array3::from_shape_fn((SIDE_PX, SIDE_PX, 4), reflectance);
    write(&folder.join("sample-scene-reflectance.tif"), bands, |builder| {
        builder.nodata("0").extra_samples(vec![ExtraSample::Unspecified; 3])
    })?;
    for (channel, (mean, deviation)) in ["red", "green", "blue"].iter().zip(statistics(&picture)) {
        println!("{channel}: mean {mean:.3}, deviation {deviation:.3}");
    }
    Ok(())
}

fn rgb_at(picture: &RgbPicture, row: usize, column: usize) -> [f32; 3] {
    let at = (row * SIDE_PX + column) * 3;
    std::array::from_fn(|channel| f32::from(picture.data()[at + channel]) / 255.0)
}

/// Blue, green, red and near infrared, as 16-bit numbers.
fn numbers([red, green, blue]: [f32; 3]) -> [u16; 4] {
    // Leaves reflect what lies beyond red, water swallows it, and soil gives a little more than of red.
    let leaves = ((green - red) * 4.0 + (green - blue)).clamp(0.0, 1.0);
    let water = ((blue - red) * 6.0).clamp(0.0, 1.0);
    let near_infrared = (1.15 * red * (1.0 - water) + 0.02 + leaves * (0.25 + green)).clamp(0.0, 1.5);
    [blue, green, red, near_infrared].map(|level| (level * WHITE_REFLECTANCE * 10_000.0).round() as u16 + 1000)
}

fn write<T: NumericSample>(
    path: &Path,
    data: Array3<T>,
    describe: impl FnOnce(GeoTiffBuilder) -> GeoTiffBuilder,
) -> Result<()> {
    let builder = GeoTiffBuilder::new(SIDE_PX as u32, SIDE_PX as u32)
        .bands(data.dim().2 as u32)
        .projected_epsg(EPSG)
        .pixel_scale(PIXEL_METRES, PIXEL_METRES)
        .origin(ORIGIN[0], ORIGIN[1])
        .compression(Compression::Deflate)
        .predictor(Predictor::Horizontal)
        .tile_size(512, 512);
    let cog = CogBuilder::new(describe(builder)).overview_levels(vec![2, 4]).resampling(Resampling::Average);
    cog.write_3d(path, data.view()).with_context(|| path.display().to_string())?;
    println!("{}: {SIDE_PX} × {SIDE_PX}, {} bytes", path.display(), path.metadata()?.len());
    Ok(())
}

/// Mean and standard deviation per channel, levels from 0 to 1.
fn statistics(picture: &RgbPicture) -> [(f64, f64); 3] {
    std::array::from_fn(|channel| {
        let levels = || picture.data().iter().skip(channel).step_by(3).map(|&level| f64::from(level) / 255.0);
        let count = (SIDE_PX * SIDE_PX) as f64;
        let mean = levels().sum::<f64>() / count;
        let variance = levels().map(|level| (level - mean) * (level - mean)).sum::<f64>() / count;
        (mean, variance.sqrt())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the SAT weights subtract and divide by: mean and deviation of their training pictures.
    const SAT: [(f64, f64); 3] = [(0.430, 0.213), (0.411, 0.156), (0.296, 0.143)];

    #[test]
    fn the_scene_looks_like_what_the_sat_weights_saw() {
        for ((mean, deviation), (expected, spread)) in statistics(&land::paint()).into_iter().zip(SAT) {
            assert!((mean - expected).abs() < 0.25 * spread, "mean {mean}, {expected} expected");
            assert!((deviation / spread - 1.0).abs() < 0.25, "deviation {deviation}, {spread} expected");
        }
    }

    #[test]
    fn reflectance_gives_the_picture_back() {
        for level in 0..=255u8 {
            let colour = [f32::from(level) / 255.0; 3];
            let [blue, ..] = numbers(colour);
            let back = (f32::from(blue) - 1000.0) / 10_000.0 / WHITE_REFLECTANCE * 255.0;
            assert_eq!(back.round() as u8, level);
        }
    }
}
