//! Where the places of a map lie on Earth.

use dinov3_geo::{AffineTransform, Crs, PixelWindow};

/// Radii of the ellipsoid WGS 84, in metres: half the major axis, and the eccentricity squared.
const WGS84_A_METRES: f64 = 6_378_137.0;
const WGS84_E2: f64 = 0.006_694_379_990_14;

/// The grid of a scene.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// From pixels to coordinates.
    pub transform: AffineTransform,
    /// What the coordinates are.
    pub crs: Crs,
}

impl Scene {
    /// Longitude and latitude of a point in pixels; nothing where it lies nowhere.
    fn lon_lat(&self, column: f64, row: f64) -> Option<(f64, f64)> {
        let (x, y) = self.transform.apply(column, row);
        self.crs.to_lon_lat(x, y).ok()
    }

    /// Longitudes and latitudes of the corners of a window: upper left, lower left, lower right, upper right as the grid
    /// has them. NaN for what lies nowhere.
    pub(crate) fn corners(&self, window: &PixelWindow) -> [f64; 8] {
        let (left, right) = (window.x_px as f64, window.right_px() as f64);
        let (top, bottom) = (window.y_px as f64, window.bottom_px() as f64);
        let corners = [(left, top), (left, bottom), (right, bottom), (right, top)];
        let mut found = [f64::NAN; 8];
        for (place, (column, row)) in found.chunks_exact_mut(2).zip(corners) {
            if let Some((lon, lat)) = self.lon_lat(column, row) {
                place.copy_from_slice(&[lon, lat]);
            }
        }
        found
    }

    /// The side of a pixel on the ground in the scene's middle, in metres: the square root of its area.
    pub fn ground_sample_distance_metres(&self) -> Option<f64> {
        let (column, row) = (f64::from(self.width_px) / 2.0, f64::from(self.height_px) / 2.0);
        let (lon, lat) = self.lon_lat(column, row)?;
        let sine = lat.to_radians().sin();
        let root = (1.0 - WGS84_E2 * sine * sine).sqrt();
        let north = WGS84_A_METRES * (1.0 - WGS84_E2) / root.powi(3);
        let east = WGS84_A_METRES / root * lat.to_radians().cos();
        // Metres from the middle to a point a step away.
        let step = |columns: f64, rows: f64| {
            let (other_lon, other_lat) = self.lon_lat(column + columns, row + rows)?;
            let turn = (other_lon - lon + 540.0).rem_euclid(360.0) - 180.0;
            Some((turn.to_radians() * east, (other_lat - lat).to_radians() * north))
        };
        let (across, down) = (step(1.0, 0.0)?, step(0.0, 1.0)?);
        let area = (across.0 * down.1 - across.1 * down.0).abs();
        (area > 0.0).then(|| area.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_of_utm_have_the_size_on_the_ground_that_the_projection_says() {
        let transform = AffineTransform::unrotated(500_000.0, 5_374_500.0, 0.6, -0.6);
        let crs = Crs::from_epsg(32633).unwrap();
        let scene = Scene { width_px: 100, height_px: 100, transform, crs };
        // On the central meridian the scale is 0.9996.
        let found = scene.ground_sample_distance_metres().unwrap();
        assert!((found - 0.6 / 0.9996).abs() < 1e-4, "{found}");
        let [lon, lat, ..] = scene.corners(&PixelWindow::new(0, 0, 10, 10));
        assert!((lon - 15.0).abs() < 1e-9 && (48.0..49.0).contains(&lat), "{lon} {lat}");
    }

    #[test]
    fn pixels_of_degrees_have_a_size_on_the_ground_too() {
        let transform = AffineTransform::unrotated(10.0, 60.0, 1e-4, -1e-4);
        let scene = Scene { width_px: 2, height_px: 2, transform, crs: Crs::from_epsg(4326).unwrap() };
        let found = scene.ground_sample_distance_metres().unwrap();
        // 11.14 m north, 5.58 m east.
        assert!((7.8..8.0).contains(&found), "{found}");
    }
}
