//! How alike each patch is to a chosen one.

use dinov3_model::array::Array;
use dinov3_pca::{percentile_range, place_in};

use crate::colour_map::colour_map;
use crate::enlarge::enlarge;
use crate::error::PictureError;
use crate::map::Map;
use crate::rgb::{RgbPicture, checked_pixels};

/// Cosine similarity of one patch with all, as `[rows, columns]`. Patch (`column`, `row`) itself gets 1; a patch whose
/// features are all zero points nowhere and gets 0.
///
/// # Errors
/// If `map` is not `[1, D, h, w]` of finite values, or has no such patch.
pub fn similarity(map: &Array, column: usize, row: usize) -> Result<Array, PictureError> {
    let map = Map::new(map)?;
    if column >= map.columns || row >= map.rows {
        let (width_px, height_px) = (map.columns, map.rows);
        return Err(PictureError::OutsidePicture { x_px: column, y_px: row, width_px, height_px });
    }
    let chosen = row * map.columns + column;
    let mut products = vec![0.0_f64; map.patches()];
    let mut squares = vec![0.0_f64; map.patches()];
    for channel in map.by_channel() {
        let factor = f64::from(channel[chosen]);
        for ((product, square), &value) in products.iter_mut().zip(&mut squares).zip(channel) {
            *product += factor * f64::from(value);
            *square += f64::from(value) * f64::from(value);
        }
    }
    let own_length = squares[chosen].sqrt();
    let cosine = |(product, square): (&f64, &f64)| {
        let lengths = own_length * square.sqrt();
        if lengths > 0.0 { (product / lengths).clamp(-1.0, 1.0) as f32 } else { 0.0 }
    };
    let data = products.iter().zip(&squares).map(cosine).collect();
    Ok(Array { shape: vec![map.rows, map.columns], data })
}

/// The similarity of every patch to the one that holds pixel (`x_px`, `y_px`), in colours from dark violet (unlike) to
/// yellow (alike), with a frame around the chosen patch. `width_px` and `height_px` are the size of the picture that
/// was encoded (after padding, if it was padded).
///
/// The colours cover the 1st to the 99th percentile of the similarities: what they mean as numbers is in
/// [`similarity`].
///
/// # Errors
/// If `map` is not `[1, D, h, w]` of finite values, or the pixel or the size is impossible.
pub fn similarity_picture(
    map: &Array,
    x_px: usize,
    y_px: usize,
    width_px: usize,
    height_px: usize,
) -> Result<RgbPicture, PictureError> {
    let pixels = checked_pixels(width_px, height_px)?;
    let Map { rows, columns, .. } = Map::new(map)?;
    if x_px >= width_px || y_px >= height_px {
        return Err(PictureError::OutsidePicture { x_px, y_px, width_px, height_px });
    }
    let (column, row) = (x_px * columns / width_px, y_px * rows / height_px);
    let mut plane = similarity(map, column, row)?.data;
    let range = percentile_range(&plane);
    plane.iter_mut().for_each(|value| *value = place_in(range, *value).unwrap_or(1.0));
    let table = colour_map();
    let mut data = Vec::with_capacity(3 * pixels);
    for value in enlarge(&plane, rows, columns, height_px, width_px) {
        data.extend_from_slice(&table[(value.clamp(0.0, 1.0) * 255.0).round() as usize]);
    }
    let mut picture = RgbPicture::new(width_px, height_px, data)?;
    let left_to_right = column * width_px / columns..(column + 1) * width_px / columns;
    let top_to_bottom = row * height_px / rows..(row + 1) * height_px / rows;
    mark(&mut picture, left_to_right, top_to_bottom);
    Ok(picture)
}

/// A white frame just inside a rectangle with a black one around it: one of the two is seen on any colour.
fn mark(picture: &mut RgbPicture, across: std::ops::Range<usize>, down: std::ops::Range<usize>) {
    let stroke = (across.len().min(down.len()) / 8).max(1);
    let outer_x = across.start.saturating_sub(stroke)..(across.end + stroke).min(picture.width_px());
    let outer_y = down.start.saturating_sub(stroke)..(down.end + stroke).min(picture.height_px());
    for y in outer_y {
        for x in outer_x.clone() {
            let inside = across.contains(&x) && down.contains(&y);
            let from_edge = || (x - across.start).min(across.end - 1 - x).min(y - down.start).min(down.end - 1 - y);
            if !inside {
                picture.put(x, y, [0, 0, 0]);
            } else if from_edge() < stroke {
                picture.put(x, y, [255, 255, 255]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Array {
        let data = (0..7 * 4 * 5).map(|index| (index * index % 23) as f32 - 9.0).collect();
        Array { shape: vec![1, 7, 4, 5], data }
    }

    #[test]
    fn a_patch_is_most_like_itself() {
        for (column, row) in [(0, 0), (4, 3), (2, 1)] {
            let found = similarity(&map(), column, row).unwrap();
            assert_eq!(found.shape, [4, 5]);
            assert_eq!(found.data[row * 5 + column], 1.0);
            assert!(found.data.iter().all(|&value| (-1.0..=1.0).contains(&value)));
        }
    }

    #[test]
    fn known_angles() {
        // (1, 0), (0, 2), (-3, 0), (1, 1), and one without direction.
        let map = Array { shape: vec![1, 2, 1, 5], data: vec![1.0, 0.0, -3.0, 1.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0] };
        let found = similarity(&map, 0, 0).unwrap().data;
        assert_eq!(found, [1.0, 0.0, -1.0, 0.5_f32.sqrt(), 0.0]);
    }

    #[test]
    fn the_chosen_patch_is_marked() {
        let picture = similarity_picture(&map(), 33, 20, 80, 64).unwrap();
        let pixel = |x: usize, y: usize| &picture.data()[3 * (y * 80 + x)..][..3];
        // Pixel (33, 20) lies in column 2 (32 to 47) and row 1 (16 to 31).
        assert_eq!(pixel(32, 16), [255, 255, 255]);
        assert_eq!(pixel(47, 31), [255, 255, 255]);
        assert_eq!(pixel(31, 16), [0, 0, 0]);
        // Just beside the middle of the patch.
        assert!(colour_map()[250..].iter().any(|colour| colour == pixel(40, 24)));
    }

    #[test]
    fn impossible_requests_are_errors() {
        let flat = Array { shape: vec![2, 2], data: vec![0.0; 4] };
        assert!(matches!(similarity_picture(&flat, 0, 0, 8, 8), Err(PictureError::MapShape { .. })));
        assert!(matches!(similarity_picture(&map(), 80, 0, 80, 64), Err(PictureError::OutsidePicture { .. })));
        assert!(matches!(similarity_picture(&map(), 0, 0, 0, 64), Err(PictureError::PictureSize { .. })));
        let mut broken = map();
        broken.data[40] = f32::NAN;
        assert!(matches!(similarity(&broken, 0, 0), Err(PictureError::NotFinite { channel: 2, .. })));
    }

    #[test]
    fn a_map_without_contrast_is_no_error() {
        let map = Array { shape: vec![1, 3, 2, 2], data: vec![0.5; 12] };
        similarity_picture(&map, 1, 1, 9, 9).unwrap();
        // Fewer pixels than patches: the marker still has somewhere to be, or nothing to mark.
        similarity_picture(&map, 0, 0, 1, 1).unwrap();
    }
}
