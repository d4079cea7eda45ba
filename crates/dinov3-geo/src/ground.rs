//! How large a pixel is on the ground.

use crate::{AffineTransform, Crs, GeoError};

/// Semi-major axis of WGS 84 and its flattening.
const SEMI_MAJOR_M: f64 = 6_378_137.0;
const FLATTENING: f64 = 1.0 / 298.257_223_563;

/// Where lengths on the projected plane are within this share of those on the ground, they are taken for them: a pixel of
/// 10 m of a UTM zone is 10 m, though the ground below is 9.996 to 10.01 m. National grids are within it; Web Mercator
/// (40 % at Berlin) is not.
const SAME_LENGTH: f64 = 0.02;

impl Crs {
    /// Width and height in metres of the pixel of which (`col`, `row`) is a point, along the pixel's own sides.
    ///
    /// On the ground, that is on the ellipsoid of WGS 84; as the projected plane has it where that is within 2 %.
    ///
    /// # Errors
    /// [`GeoError::NotFinite`], [`GeoError::OutsideDomain`] where the pixel lies nowhere on the Earth.
    pub fn pixel_size_m(&self, transform: &AffineTransform, col: f64, row: f64) -> Result<(f64, f64), GeoError> {
        let place = |col: f64, row: f64| {
            let (x, y) = transform.apply(col, row);
            self.to_lon_lat(x, y).map(geocentric)
        };
        let length = |from: [f64; 3], to: [f64; 3]| {
            let square: f64 = from.iter().zip(to).map(|(from, to)| (from - to).powi(2)).sum();
            square.sqrt()
        };
        let width_m = length(place(col - 0.5, row)?, place(col + 0.5, row)?);
        let height_m = length(place(col, row - 0.5)?, place(col, row + 0.5)?);
        let (width, height) = transform.pixel_size();
        let nominal = |ground_m: f64, size: f64| match self.metres_per_unit() {
            Some(metres) if (size * metres / ground_m - 1.0).abs() <= SAME_LENGTH => size * metres,
            _ => ground_m,
        };
        Ok((nominal(width_m, width), nominal(height_m, height)))
    }
}

/// Longitude and latitude, in degrees, on the ellipsoid as a point in space, in metres. Between two of them a metre apart
/// the straight line is the way on the ground.
fn geocentric((lon, lat): (f64, f64)) -> [f64; 3] {
    let (lon, lat) = (lon.to_radians(), lat.to_radians());
    let eccentricity2 = FLATTENING * (2.0 - FLATTENING);
    let normal_m = SEMI_MAJOR_M / (1.0 - eccentricity2 * lat.sin().powi(2)).sqrt();
    [normal_m * lat.cos() * lon.cos(), normal_m * lat.cos() * lon.sin(), normal_m * (1.0 - eccentricity2) * lat.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_m(crs: &str, transform: AffineTransform) -> (f64, f64) {
        crs.parse::<Crs>().unwrap().pixel_size_m(&transform, 0.0, 0.0).unwrap()
    }

    #[test]
    fn metres_of_the_plane_count_where_they_are_those_of_the_ground() {
        assert_eq!(size_m("EPSG:32633", AffineTransform::unrotated(399_960.0, 4_200_000.0, 10.0, -10.0)), (10.0, 10.0));
        assert_eq!(size_m("EPSG:2154", AffineTransform::unrotated(652_000.0, 6_862_000.0, 0.5, -0.2)), (0.5, 0.2));
        let rotated = AffineTransform::new(6.0, 8.0, 500_000.0, 8.0, -6.0, 4_100_000.0);
        assert_eq!(size_m("EPSG:32633", rotated), (10.0, 10.0));
        // US survey feet.
        let (width_m, _) = size_m("EPSG:2263", AffineTransform::unrotated(980_000.0, 200_000.0, 1.0, -1.0));
        assert!((width_m - 0.304_800_6).abs() < 1e-6, "{width_m}");
    }

    #[test]
    fn degrees_and_web_mercator_are_measured_on_the_ground() {
        // A degree at 60° North: 55.800 km and 111.412 km on WGS 84.
        let (width_m, height_m) = size_m("EPSG:4326", AffineTransform::unrotated(10.0, 60.0, 1e-5, -1e-5));
        assert!((width_m - 0.558_00).abs() < 1e-4 && (height_m - 1.114_12).abs() < 1e-4, "{width_m} {height_m}");
        let (_, y) = Crs::from_epsg(3857).unwrap().from_lon_lat(10.0, 60.0).unwrap();
        let (width_m, height_m) = size_m("EPSG:3857", AffineTransform::unrotated(1e6, y, 2.0, -2.0));
        assert!((width_m - 1.002).abs() < 2e-3 && (height_m - 1.0).abs() < 6e-3, "{width_m} {height_m}");
    }
}
