//! Names of the cells that places lie in, of any of the grids that are known here.

use std::fmt;
use std::str::FromStr;

use crate::grid::check_place;
use crate::{Crs, GeoError, MajorTomGrid, UtmZone, WebMercatorTile};

/// A grid of cells that cover the Earth, each with a name.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CellScheme {
    /// Squares of each UTM zone of WGS 84; see [`utm_block`].
    Utm {
        /// Their side in metres.
        side_m: f64,
    },
    /// Cells of Major TOM: `198U_1016L`.
    MajorTom(MajorTomGrid),
    /// Tiles of the usual web maps: `14/8800/5373`, zoom, column and row.
    WebMercator {
        /// 0 to 30.
        zoom: u8,
    },
    /// Cells of H3, as its library writes them: `8a1f1d489017fff`.
    H3 {
        /// 0 to 15.
        resolution: u8,
    },
}

impl CellScheme {
    /// The name of the cell that a place lies in; `None` where the grid has none.
    ///
    /// # Errors
    /// [`GeoError::NotFinite`], [`GeoError::OutOfRange`] for a latitude beyond a pole.
    pub fn cell(&self, lon: f64, lat: f64) -> Result<Option<String>, GeoError> {
        check_place(lon, lat)?;
        match *self {
            Self::Utm { side_m } => {
                let zone = UtmZone::of(lon, lat)?.epsg();
                let (x, y) = Crs::from_epsg(zone)?.from_lon_lat(lon, lat)?;
                Ok(Some(utm_block(zone, side_m, x, y)))
            }
            Self::MajorTom(grid) => Ok(grid.cell(lon, lat)?.map(|cell| cell.to_string())),
            Self::WebMercator { zoom } => Ok(Some(WebMercatorTile::of(lon, lat, zoom)?.to_string())),
            Self::H3 { resolution } => {
                let place = h3o::LatLng::new(lat, lon).ok();
                let resolution = h3o::Resolution::try_from(resolution).ok();
                Ok(place.zip(resolution).map(|(place, resolution)| place.to_cell(resolution).to_string()))
            }
        }
    }
}

/// The name of the square of `side_m` of a zone (by its EPSG code) that a point of it lies in:
/// `32633_2560m_156_1640` is the square from (156 × 2560 m, 1640 × 2560 m) on.
pub fn utm_block(epsg: u32, side_m: f64, x: f64, y: f64) -> String {
    // In 64 bits whatever the coordinates: `as` saturates.
    let index = |coordinate: f64| (coordinate / side_m).floor() as i64;
    format!("{epsg}_{side_m}m_{}_{}", index(x), index(y))
}

/// The distance that Major TOM's own data sets have.
const MAJOR_TOM_KM: f64 = 10.0;

/// Reads `major-tom` or `major-tom:KM`.
fn parse_major_tom(text: &str) -> Option<Result<MajorTomGrid, GeoError>> {
    match text.strip_prefix("major-tom")? {
        "" => Some(MajorTomGrid::new(MAJOR_TOM_KM)),
        rest => Some(MajorTomGrid::new(rest.strip_prefix(':')?.parse().ok()?)),
    }
}

impl FromStr for CellScheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(grid) = parse_major_tom(text) {
            return grid.map(Self::MajorTom).map_err(|error| error.to_string());
        }
        let (name, number) = text.split_once(':').unwrap_or((text, ""));
        let whole = |last: u8| number.parse::<u8>().ok().filter(|number| *number <= last);
        match name {
            "utm" => {
                let side_m = number.parse::<f64>().ok().filter(|side_m| (1.0..=1e6).contains(side_m));
                side_m.map(|side_m| Self::Utm { side_m }).ok_or("utm:METRES is a side from 1 to 1000000".to_owned())
            }
            "web-mercator" => {
                let zoom = whole(WebMercatorTile::LAST_ZOOM);
                zoom.map(|zoom| Self::WebMercator { zoom }).ok_or("web-mercator:ZOOM is from 0 to 30".to_owned())
            }
            "h3" => {
                let resolution = whole(15);
                resolution.map(|resolution| Self::H3 { resolution }).ok_or("h3:RESOLUTION is from 0 to 15".to_owned())
            }
            _ => Err("expected major-tom, major-tom:KM, h3:RESOLUTION, web-mercator:ZOOM or utm:METRES".to_owned()),
        }
    }
}

/// As it is parsed.
impl fmt::Display for CellScheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utm { side_m } => write!(formatter, "utm:{side_m}"),
            Self::MajorTom(grid) => grid.fmt(formatter),
            Self::WebMercator { zoom } => write!(formatter, "web-mercator:{zoom}"),
            Self::H3 { resolution } => write!(formatter, "h3:{resolution}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(scheme: &str, lon: f64, lat: f64) -> Option<String> {
        scheme.parse::<CellScheme>().unwrap().cell(lon, lat).unwrap()
    }

    #[test]
    fn every_scheme_names_its_cells() {
        // As h3-py 4, mercantile and pyproj have them: dev/scene/cut.py.
        assert_eq!(cell("h3:0", 13.377, 52.516).as_deref(), Some("801ffffffffffff"));
        assert_eq!(cell("web-mercator:14", 13.377, 52.516).as_deref(), Some("14/8800/5373"));
        assert_eq!(cell("major-tom", 0.0, 0.0).as_deref(), Some("0U_0R"));
        assert_eq!(cell("major-tom:100", 0.0, 88.0), None);
        assert_eq!(cell("utm:1000", 15.0, 0.0).as_deref(), Some("32633_1000m_500_0"));
        // A tenth of a metre south of the equator, in the southern zone.
        assert_eq!(cell("utm:1000", 15.0, -1e-6).as_deref(), Some("32733_1000m_500_9999"));
    }

    #[test]
    fn schemes_are_read_and_written_alike() {
        for text in ["major-tom:10", "major-tom:0.5", "h3:9", "web-mercator:30", "utm:2560", "utm:153.6"] {
            assert_eq!(text.parse::<CellScheme>().unwrap().to_string(), text);
        }
        assert_eq!("major-tom".parse::<CellScheme>().unwrap().to_string(), "major-tom:10");
        for wrong in ["", "h3", "h3:16", "h3:-1", "web-mercator:31", "utm", "utm:0", "utm:nan", "major-tom:x", "s2:3"] {
            assert!(wrong.parse::<CellScheme>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_beyond_the_poles_are_refused() {
        for scheme in ["major-tom", "h3:5", "web-mercator:3", "utm:100"] {
            assert!(scheme.parse::<CellScheme>().unwrap().cell(0.0, 91.0).is_err(), "{scheme}");
            assert!(scheme.parse::<CellScheme>().unwrap().cell(f64::NAN, 1.0).is_err(), "{scheme}");
        }
    }
}
