//! From the grid of patches to the size of the picture.

/// Enlarges (or shrinks) a plane `[rows, columns]` to `[height, width]` by cubic interpolation (Catmull-Rom: the values
/// at the centres of the patches stay what they are). Between patches it may overshoot; colours are clamped later.
pub(crate) fn enlarge(plane: &[f32], rows: usize, columns: usize, height_px: usize, width_px: usize) -> Vec<f32> {
    let across = taps(columns, width_px);
    let down = taps(rows, height_px);
    let mut wide = Vec::with_capacity(rows * width_px);
    for row in plane.chunks_exact(columns) {
        wide.extend(across.iter().map(|tap| tap.iter().map(|&(index, weight)| weight * row[index]).sum::<f32>()));
    }
    let mut out = Vec::with_capacity(height_px * width_px);
    for tap in &down {
        out.extend((0..width_px).map(|x| tap.iter().map(|&(y, weight)| weight * wide[y * width_px + x]).sum::<f32>()));
    }
    out
}

/// For each of `to` positions the four of `from` values that it is made of, with their weights. Both grids cover the
/// same length; beyond the edge the outermost value continues.
fn taps(from: usize, to: usize) -> Vec<[(usize, f32); 4]> {
    (0..to)
        .map(|position| {
            let at = (position as f64 + 0.5) * from as f64 / to as f64 - 0.5;
            let t = at - at.floor();
            let weights = [
                t * (-0.5 + t * (1.0 - 0.5 * t)),
                1.0 + t * t * (-2.5 + 1.5 * t),
                t * (0.5 + t * (2.0 - 1.5 * t)),
                t * t * (-0.5 + 0.5 * t),
            ];
            std::array::from_fn(|tap| {
                let index = (at.floor() + tap as f64 - 1.0).clamp(0.0, from as f64 - 1.0);
                (index as usize, weights[tap] as f32)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_changes_nothing() {
        let plane = [1.0, -2.0, 3.0, 0.5, 7.0, -1.0];
        assert_eq!(enlarge(&plane, 2, 3, 2, 3), plane);
    }

    #[test]
    fn centres_keep_their_values_and_ramps_stay_straight() {
        let plane = [0.0, 1.0, 2.0, 3.0, 4.0];
        let wide = enlarge(&plane, 1, 5, 1, 15);
        for (index, value) in plane.iter().enumerate() {
            assert!((wide[3 * index + 1] - value).abs() < 1e-6);
        }
        // Away from the edges, cubic interpolation of a ramp is the ramp.
        for (x, value) in wide.iter().enumerate().take(10).skip(5) {
            assert!((value - (x as f32 - 1.0) / 3.0).abs() < 1e-6, "{x}: {value}");
        }
    }

    #[test]
    fn one_value_fills_everything() {
        assert!(enlarge(&[0.25], 1, 1, 7, 3).iter().all(|value| (value - 0.25).abs() < 1e-6));
    }
}
