//! The Hilbert curve: an order of places in which neighbours in the file are neighbours on the ground.

/// Coordinates per side: the curve of order 16, whose index fills 32 bits.
const LAST: u32 = (1 << 16) - 1;

/// The Hilbert curve of order 16 through a rectangle, the one of GeoPandas' `hilbert_distance`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HilbertCurve {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

impl HilbertCurve {
    /// The whole Earth in degrees: an order that does not depend on which other places there are.
    pub const EARTH: Self = Self { west: -180.0, south: -90.0, east: 180.0, north: 90.0 };

    /// A curve through the rectangle `[xmin, ymin, xmax, ymax]`. A side without length, or that is no number, counts as a
    /// single place.
    pub const fn new([west, south, east, north]: [f64; 4]) -> Self {
        Self { west, south, east, north }
    }

    /// The place of a point on the curve. Points outside count as the nearest on the rectangle's border; what is no number
    /// comes last.
    pub fn index(&self, x: f64, y: f64) -> u32 {
        if x.is_nan() || y.is_nan() {
            return u32::MAX;
        }
        hilbert_index(step(x, self.west, self.east), step(y, self.south, self.north))
    }
}

/// Which of the 65536 steps of a side.
fn step(value: f64, low: f64, high: f64) -> u32 {
    let width = high - low;
    if !(width.is_finite() && width > 0.0) {
        return 0;
    }
    // `as` takes infinities to the ends.
    (((value - low) * (f64::from(LAST) / width)).clamp(0.0, f64::from(LAST))) as u32
}

/// The classic walk from the largest quadrant to the smallest: each adds two bits and turns the ones inside it.
fn hilbert_index(mut x: u32, mut y: u32) -> u32 {
    let mut index = 0;
    let mut side = 1 << 15;
    while side > 0 {
        let (right, upper) = (u32::from(x & side != 0), u32::from(y & side != 0));
        index = (index << 2) | ((3 * right) ^ upper);
        if upper == 0 {
            if right == 1 {
                (x, y) = (LAST - x, LAST - y);
            }
            (x, y) = (y, x);
        }
        side >>= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_indices_are_neighbouring_cells() {
        // A corner of the curve's grid, 64 cells wide: its indices are the first 4096.
        let mut cells: Vec<(u32, (u32, u32))> =
            (0..64).flat_map(|x| (0..64).map(move |y| (hilbert_index(x, y), (x, y)))).collect();
        cells.sort();
        for (expected, pair) in cells.windows(2).enumerate() {
            let ((index, (x, y)), (_, (next_x, next_y))) = (pair[0], pair[1]);
            assert_eq!(index as usize, expected);
            assert_eq!(x.abs_diff(next_x) + y.abs_diff(next_y), 1);
        }
    }

    #[test]
    fn starts_in_the_south_west_and_ends_in_the_south_east() {
        let curve = HilbertCurve::EARTH;
        assert_eq!(curve.index(-180.0, -90.0), 0);
        assert_eq!(curve.index(180.0, -90.0), u32::MAX);
        assert_eq!(curve.index(-180.0, 90.0), 0x5555_5555);
        assert_eq!(curve.index(f64::NEG_INFINITY, -1e300), 0);
    }

    #[test]
    fn what_is_no_number_comes_last_and_what_has_no_width_first() {
        assert_eq!(HilbertCurve::EARTH.index(f64::NAN, 0.0), u32::MAX);
        assert_eq!(HilbertCurve::new([1.0, 2.0, 1.0, 2.0]).index(1.0, 2.0), 0);
        assert_eq!(HilbertCurve::new([f64::NAN, 0.0, f64::INFINITY, 0.0]).index(5.0, 5.0), 0);
    }
}
