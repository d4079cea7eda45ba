//! Pictures side by side.

use std::path::Path;

use anyhow::Result;
use dinov3_picture::RgbPicture;

use crate::png_file;

/// White between two pictures.
const GAP_PX: usize = 8;

/// Reads the pictures, scales them to the height of the lowest and writes them beside each other.
pub fn run(out: &Path, pictures: &[&str]) -> Result<()> {
    let pictures = pictures.iter().map(|path| png_file::read(Path::new(path))).collect::<Result<Vec<_>>>()?;
    png_file::write(out, &side_by_side(&pictures)?)
}

fn side_by_side(pictures: &[RgbPicture]) -> Result<RgbPicture> {
    let height_px = pictures.iter().map(RgbPicture::height_px).min().unwrap_or(0);
    let scaled: Vec<RgbPicture> =
        pictures.iter().map(|picture| shrink(picture, height_px)).collect::<Result<Vec<_>>>()?;
    let width_px = scaled.iter().map(|picture| picture.width_px() + GAP_PX).sum::<usize>().saturating_sub(GAP_PX);
    let mut data = Vec::with_capacity(3 * width_px * height_px);
    for y in 0..height_px {
        for (index, picture) in scaled.iter().enumerate() {
            if index > 0 {
                data.extend([255; 3 * GAP_PX]);
            }
            data.extend_from_slice(&picture.data()[3 * y * picture.width_px()..][..3 * picture.width_px()]);
        }
    }
    Ok(RgbPicture::new(width_px, height_px, data)?)
}

/// A picture at a height no larger than its own, in proportion: each pixel is the mean of the area it covers.
fn shrink(picture: &RgbPicture, height_px: usize) -> Result<RgbPicture> {
    if picture.height_px() == height_px {
        return Ok(picture.clone());
    }
    let scale = picture.height_px() as f64 / height_px as f64;
    let width_px = ((picture.width_px() as f64 / scale).round() as usize).max(1);
    let across = shares(picture.width_px(), width_px);
    let down = shares(picture.height_px(), height_px);
    let mut data = Vec::with_capacity(3 * width_px * height_px);
    for row_shares in &down {
        for column_shares in &across {
            let mut sum = [0.0; 3];
            for &(y, row_share) in row_shares {
                for &(x, column_share) in column_shares {
                    let pixel = &picture.data()[3 * (y * picture.width_px() + x)..][..3];
                    for (total, &level) in sum.iter_mut().zip(pixel) {
                        *total += row_share * column_share * f64::from(level);
                    }
                }
            }
            data.extend(sum.map(|level| level.round().clamp(0.0, 255.0) as u8));
        }
    }
    Ok(RgbPicture::new(width_px, height_px, data)?)
}

/// For each of `to` places the ones of `from` that it covers and their shares of it, which sum to 1.
fn shares(from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|place| {
            let (start, end) = (place as f64 * scale, (place + 1) as f64 * scale);
            (start as usize..(end.ceil() as usize).min(from))
                .map(|index| (index, (end.min(index as f64 + 1.0) - start.max(index as f64)) / scale))
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width_px: usize, height_px: usize, level: u8) -> RgbPicture {
        RgbPicture::new(width_px, height_px, vec![level; 3 * width_px * height_px]).unwrap()
    }

    #[test]
    fn heights_become_equal_with_a_gap_between() {
        let together = side_by_side(&[plain(10, 6, 40), plain(20, 12, 80), plain(7, 7, 120)]).unwrap();
        assert_eq!((together.width_px(), together.height_px()), (10 + 8 + 10 + 8 + 6, 6));
        let row: Vec<u8> = together.data().chunks_exact(3).take(together.width_px()).map(|pixel| pixel[0]).collect();
        assert_eq!(&row[8..20], [40, 40, 255, 255, 255, 255, 255, 255, 255, 255, 80, 80]);
        assert_eq!(row[41], 120);
    }

    #[test]
    fn shares_cover_everything_once() {
        for (from, to) in [(512, 384), (7, 6), (100, 1), (5, 5)] {
            let mut covered = vec![0.0; from];
            for place in shares(from, to) {
                place.iter().for_each(|&(index, share)| covered[index] += share * from as f64 / to as f64);
            }
            assert!(covered.iter().all(|total| (total - 1.0_f64).abs() < 1e-9));
        }
    }
}
