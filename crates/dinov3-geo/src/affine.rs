//! The affine transform between the pixels of a grid and the coordinates of its reference system.

use crate::GeoError;

/// The map from pixel coordinates to the coordinates of a reference system, in rasterio's order of the coefficients
/// (GDAL's geotransform is `[c, a, b, f, d, e]`):
///
/// ```text
/// x = a * col + b * row + c
/// y = d * col + e * row + f
/// ```
///
/// `(0, 0)` is the outer corner of the first pixel and `(0.5, 0.5)` its centre, whatever the file calls its points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffineTransform {
    /// Change of x from a column to the next.
    pub a: f64,
    /// Change of x from a row to the next; zero unless rotated or sheared.
    pub b: f64,
    /// x of the outer corner of the first pixel.
    pub c: f64,
    /// Change of y from a column to the next; zero unless rotated or sheared.
    pub d: f64,
    /// Change of y from a row to the next; negative where north is up.
    pub e: f64,
    /// y of the outer corner of the first pixel.
    pub f: f64,
}

impl AffineTransform {
    /// Pixel coordinates as they are.
    pub const IDENTITY: Self = Self { a: 1.0, b: 0.0, c: 0.0, d: 0.0, e: 1.0, f: 0.0 };

    /// A transform from its coefficients in rasterio's order.
    pub const fn new(a: f64, b: f64, c: f64, d: f64, e: f64, f: f64) -> Self {
        Self { a, b, c, d, e, f }
    }

    /// A transform without rotation: north up where `pixel_height` is negative.
    pub const fn unrotated(x: f64, y: f64, pixel_width: f64, pixel_height: f64) -> Self {
        Self { a: pixel_width, b: 0.0, c: x, d: 0.0, e: pixel_height, f: y }
    }

    /// The coordinates of a point given in pixels.
    pub fn apply(&self, col: f64, row: f64) -> (f64, f64) {
        (self.a * col + self.b * row + self.c, self.d * col + self.e * row + self.f)
    }

    /// The signed area of a pixel in square units of the reference system: negative where north is up.
    pub fn determinant(&self) -> f64 {
        self.a * self.e - self.b * self.d
    }

    /// The map from coordinates back to pixels.
    ///
    /// # Errors
    /// [`GeoError::SingularTransform`] where all pixels lie on a line or a point (to within rounding), or a coefficient
    /// is NaN or infinite.
    pub fn inverse(&self) -> Result<Self, GeoError> {
        let singular = GeoError::SingularTransform { transform: *self };
        let determinant = self.determinant();
        // Below this bound the determinant is what rounding left of two equal products.
        let rounding = 4.0 * f64::EPSILON * ((self.a * self.e).abs() + (self.b * self.d).abs());
        if !self.is_finite() || !determinant.is_finite() || determinant.abs() <= rounding {
            return Err(singular);
        }
        let (a, b) = (self.e / determinant, -self.b / determinant);
        let (d, e) = (-self.d / determinant, self.a / determinant);
        let inverse = Self { a, b, c: -(a * self.c + b * self.f), d, e, f: -(d * self.c + e * self.f) };
        if inverse.is_finite() { Ok(inverse) } else { Err(singular) }
    }

    /// The transform that applies `inner` first and `self` to its result.
    pub fn compose(&self, inner: &Self) -> Self {
        let (c, f) = self.apply(inner.c, inner.f);
        Self {
            a: self.a * inner.a + self.b * inner.d,
            b: self.a * inner.b + self.b * inner.e,
            c,
            d: self.d * inner.a + self.e * inner.d,
            e: self.d * inner.b + self.e * inner.e,
            f,
        }
    }

    /// The transform of the same grid counted from the pixel (`col`, `row`): of a window that starts there.
    pub fn with_origin_at(&self, col: f64, row: f64) -> Self {
        let (c, f) = self.apply(col, row);
        Self { c, f, ..*self }
    }

    /// The transform of a grid over the same ground whose pixels are `columns` times as wide and `rows` times as high: of
    /// an overview, or of a resampled window.
    pub fn with_pixels_scaled_by(&self, columns: f64, rows: f64) -> Self {
        Self { a: self.a * columns, b: self.b * rows, c: self.c, d: self.d * columns, e: self.e * rows, f: self.f }
    }

    /// Whether every coefficient is a finite number.
    pub fn is_finite(&self) -> bool {
        [self.a, self.b, self.c, self.d, self.e, self.f].iter().all(|coefficient| coefficient.is_finite())
    }

    /// Whether columns run east and rows run south, with no rotation: the usual case.
    pub fn is_north_up(&self) -> bool {
        !self.is_rotated() && self.a > 0.0 && self.e < 0.0
    }

    /// Whether rows or columns are not parallel to the axes (rotated or sheared).
    pub fn is_rotated(&self) -> bool {
        self.b != 0.0 || self.d != 0.0
    }

    /// Width and height of a pixel along its own sides, both positive, in units of the reference system.
    pub fn pixel_size(&self) -> (f64, f64) {
        (self.a.hypot(self.d), self.b.hypot(self.e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTM: AffineTransform = AffineTransform::unrotated(399_960.0, 4_200_000.0, 10.0, -10.0);

    #[test]
    fn applies_in_rasterios_order() {
        let transform = AffineTransform::new(2.0, 3.0, 5.0, 7.0, 11.0, 13.0);
        assert_eq!(transform.apply(1.0, 0.0), (7.0, 20.0));
        assert_eq!(transform.apply(0.0, 1.0), (8.0, 24.0));
    }

    #[test]
    fn tells_north_up_from_the_others() {
        assert!(UTM.is_north_up() && !UTM.is_rotated());
        assert!(!AffineTransform::unrotated(0.0, 0.0, 10.0, 10.0).is_north_up());
        let rotated = AffineTransform::new(6.0, 8.0, 0.0, 8.0, -6.0, 0.0);
        assert!(rotated.is_rotated() && !rotated.is_north_up());
        assert_eq!(rotated.pixel_size(), (10.0, 10.0));
        assert_eq!(UTM.pixel_size(), (10.0, 10.0));
    }

    #[test]
    fn a_windows_transform_agrees_with_the_grids() {
        let window = UTM.with_origin_at(256.0, -128.0);
        assert_eq!(window.apply(3.0, 4.0), UTM.apply(259.0, -124.0));
        let overview = UTM.with_pixels_scaled_by(2.0, 4.0);
        assert_eq!(overview.apply(3.0, 4.0), UTM.apply(6.0, 16.0));
        let scaling = AffineTransform::new(2.0, 0.0, 0.0, 0.0, 4.0, 0.0);
        assert_eq!(UTM.compose(&scaling), overview);
        assert_eq!(UTM.compose(&AffineTransform::IDENTITY), UTM);
    }

    #[test]
    fn inverts_rotated_transforms() {
        let transform = AffineTransform::new(0.6, 0.2, 500_000.0, 0.3, -0.6, 4_100_000.0);
        let inverse = transform.inverse().unwrap();
        let (x, y) = transform.apply(10_980.0, 123.5);
        let (col, row) = inverse.apply(x, y);
        assert!((col - 10_980.0).abs() < 1e-8 && (row - 123.5).abs() < 1e-8, "{col} {row}");
    }

    #[test]
    fn refuses_to_invert_what_has_no_area() {
        let line = AffineTransform::new(0.1, 0.3, 0.0, 0.2, 0.6, 0.0);
        let point = AffineTransform::unrotated(1.0, 2.0, 0.0, 0.0);
        let unbounded = AffineTransform::unrotated(f64::NAN, 0.0, 1.0, -1.0);
        let tiny = AffineTransform::unrotated(0.0, 0.0, 1e-200, 1e-200);
        for transform in [line, point, unbounded, tiny] {
            assert!(matches!(transform.inverse(), Err(GeoError::SingularTransform { .. })), "{transform:?}");
        }
    }
}
