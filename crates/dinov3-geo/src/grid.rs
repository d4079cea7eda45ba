//! The cells of grids that cover the Earth, by longitude and latitude: UTM zones, Major TOM cells, web-mercator tiles.

use std::f64::consts::PI;
use std::fmt;

use crate::GeoError;
use crate::crs::wrap_longitude;

/// A zone of the universal transverse Mercator system of WGS 84.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UtmZone {
    /// 1 to 60, from 180° West to the east.
    pub number: u8,
    /// North of the equator, which counts as north itself.
    pub is_north: bool,
}

impl UtmZone {
    /// The zone of a place, with the wider ones of Norway (32V) and Svalbard (31X to 37X). Beyond 80° South and 84° North,
    /// where UTM ends, it is the zone of the longitude.
    ///
    /// # Errors
    /// [`GeoError::NotFinite`], [`GeoError::OutOfRange`] for a latitude beyond a pole.
    pub fn of(lon: f64, lat: f64) -> Result<Self, GeoError> {
        check_place(lon, lat)?;
        let lon = wrap_longitude(lon);
        // 180° East is 180° West: zone 1.
        let regular = ((lon + 180.0) / 6.0).floor() as u8 % 60 + 1;
        let number = if (56.0..64.0).contains(&lat) && (3.0..12.0).contains(&lon) {
            32
        } else if (72.0..=84.0).contains(&lat) && (0.0..42.0).contains(&lon) {
            match lon {
                ..9.0 => 31,
                ..21.0 => 33,
                ..33.0 => 35,
                _ => 37,
            }
        } else {
            regular
        };
        Ok(Self { number, is_north: lat >= 0.0 })
    }

    /// `WGS 84 / UTM zone …`: 32601 to 32660 and 32701 to 32760.
    pub fn epsg(&self) -> u32 {
        (if self.is_north { 32_600 } else { 32_700 }) + u32::from(self.number)
    }
}

/// The grid of Major TOM: rows of equal height, each divided into cells of about the same width. Francis and Czerkawski,
/// "Major TOM: expandable datasets for Earth observation", 2024; the formulas are those of ESA-PhiLab/Major-TOM's grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MajorTomGrid {
    distance_km: f64,
    rows: i64,
}

/// A cell of the Major TOM grid: the ground between its bottom left point and the next rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MajorTomCell {
    /// From the equator: `0U`, `1U`, … to the north, `1D` (-1), … to the south.
    pub row: i32,
    /// From Greenwich: `0R`, `1R`, … to the east, `1L` (-1), … to the west.
    pub column: i32,
}

impl MajorTomGrid {
    /// The radius of the equator that the grid is defined with.
    const RADIUS_KM: f64 = 6378.137;
    /// Rows begin within these latitudes, north and south.
    const LAST_LATITUDE: f64 = 85.0;

    /// The grid of cells `distance_km` apart; 10 in Major TOM's core datasets.
    ///
    /// # Errors
    /// [`GeoError::OutOfRange`] for less than a metre or more than a quarter of the globe.
    pub fn new(distance_km: f64) -> Result<Self, GeoError> {
        if !(0.001..=10_000.0).contains(&distance_km) {
            let name = "the distance of Major TOM cells in kilometres";
            return Err(GeoError::OutOfRange { name, value: distance_km, expected: "0.001 to 10000" });
        }
        Ok(Self { distance_km, rows: (PI * Self::RADIUS_KM / distance_km).ceil() as i64 })
    }

    /// The distance of rows and, about, of columns, in metres.
    pub fn distance_m(&self) -> f64 {
        self.distance_km * 1000.0
    }

    /// The cell of a place, by the point to its south west; `None` in the caps beyond 85°, which the grid leaves out.
    ///
    /// # Errors
    /// [`GeoError::NotFinite`], [`GeoError::OutOfRange`] for a latitude beyond a pole.
    pub fn cell(&self, lon: f64, lat: f64) -> Result<Option<MajorTomCell>, GeoError> {
        check_place(lon, lat)?;
        let row = floor_step(lat, self.rows, |row| self.latitude(row), 180.0);
        if self.latitude(row).abs() > Self::LAST_LATITUDE {
            return Ok(None);
        }
        let columns = self.columns(row);
        let column = floor_step(wrap_longitude(lon), columns, |column| 360.0 * column as f64 / columns as f64, 360.0);
        // 180° East is 180° West; and where no column begins there, the last one reaches across.
        let column = (column + columns / 2).rem_euclid(columns) - columns / 2;
        // A metre is the smallest distance: at most 40 million columns.
        Ok(Some(MajorTomCell { row: row as i32, column: column as i32 }))
    }

    /// Longitude and latitude of a cell's bottom left point.
    pub fn bottom_left(&self, cell: MajorTomCell) -> (f64, f64) {
        let columns = self.columns(i64::from(cell.row));
        (360.0 * f64::from(cell.column) / columns as f64, self.latitude(i64::from(cell.row)))
    }

    /// The zone of a cell's bottom left point, in whose coordinates its images are kept.
    ///
    /// # Errors
    /// [`GeoError::OutOfRange`] for a cell beyond a pole, which [`Self::cell`] does not make.
    pub fn utm_zone(&self, cell: MajorTomCell) -> Result<UtmZone, GeoError> {
        let (lon, lat) = self.bottom_left(cell);
        UtmZone::of(lon, lat)
    }

    /// How many cells [`Self::cells_in`] gives.
    pub fn count_in(&self, bbox: [f64; 4]) -> u64 {
        self.rows_in(bbox)
            .map(|row| {
                let columns = self.columns_in(row, bbox);
                (columns.end - columns.start) as u64
            })
            .sum()
    }

    /// The cells that a box of west, south, east, north meets, row by row from the south. West may be greater than east,
    /// where it crosses the antimeridian.
    pub fn cells_in(&self, bbox: [f64; 4]) -> impl Iterator<Item = MajorTomCell> + '_ {
        self.rows_in(bbox).flat_map(move |row| {
            let columns = self.columns(row);
            self.columns_in(row, bbox).map(move |column| MajorTomCell {
                row: row as i32,
                column: ((column + columns / 2).rem_euclid(columns) - columns / 2) as i32,
            })
        })
    }

    fn rows_in(&self, [_, south, _, north]: [f64; 4]) -> impl Iterator<Item = i64> + '_ {
        let row = |lat: f64| floor_step(lat.clamp(-90.0, 90.0), self.rows, |row| self.latitude(row), 180.0);
        (row(south)..=row(north)).filter(|&row| self.latitude(row).abs() <= Self::LAST_LATITUDE)
    }

    /// Counted on beyond 180°, each once.
    fn columns_in(&self, row: i64, [west, _, east, _]: [f64; 4]) -> std::ops::Range<i64> {
        let columns = self.columns(row);
        let column = |lon: f64| floor_step(lon, columns, |column| 360.0 * column as f64 / columns as f64, 360.0);
        let (first, last) = (column(west), column(if west > east { east + 360.0 } else { east }));
        first..first + (last - first + 1).clamp(0, columns)
    }

    fn latitude(&self, row: i64) -> f64 {
        180.0 * row as f64 / self.rows as f64
    }

    fn columns(&self, row: i64) -> i64 {
        let circumference_km = 2.0 * PI * Self::RADIUS_KM * self.latitude(row).to_radians().cos();
        ((circumference_km / self.distance_km).ceil() as i64).max(1)
    }
}

/// As it is named on the command line.
impl fmt::Display for MajorTomGrid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "major-tom:{}", self.distance_km)
    }
}

/// `198U_1016L`.
impl fmt::Display for MajorTomCell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (up, right) = (if self.row < 0 { 'D' } else { 'U' }, if self.column < 0 { 'L' } else { 'R' });
        write!(formatter, "{}{up}_{}{right}", self.row.unsigned_abs(), self.column.unsigned_abs())
    }
}

/// The step of a circle of `steps` in which an angle lies. The point at which a step begins belongs to it, though the
/// quotient may come out a digit below.
fn floor_step(angle: f64, steps: i64, start: impl Fn(i64) -> f64, circle: f64) -> i64 {
    let step = (angle * steps as f64 / circle).floor() as i64;
    if start(step + 1) <= angle {
        step + 1
    } else if start(step) > angle {
        step - 1
    } else {
        step
    }
}

/// A tile of the usual web maps (OGC WebMercatorQuad).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebMercatorTile {
    /// The zoom: 2^z tiles per side.
    pub z: u8,
    /// From 180° West to the east.
    pub x: u32,
    /// From the north to the south.
    pub y: u32,
}

impl WebMercatorTile {
    /// The largest zoom whose coordinates fit.
    pub const LAST_ZOOM: u8 = 30;

    /// The tile of a place. The first and last rows reach to the poles, which the map itself leaves out.
    ///
    /// # Errors
    /// [`GeoError::NotFinite`]; [`GeoError::OutOfRange`] for a zoom above 30 or a latitude beyond a pole.
    pub fn of(lon: f64, lat: f64, zoom: u8) -> Result<Self, GeoError> {
        if zoom > Self::LAST_ZOOM {
            return Err(GeoError::OutOfRange { name: "the zoom", value: f64::from(zoom), expected: "0 to 30" });
        }
        check_place(lon, lat)?;
        let tiles = f64::from(1u32 << zoom);
        let sine = lat.to_radians().sin();
        let across = (wrap_longitude(lon) + 180.0) / 360.0;
        let down = 0.5 - ((1.0 + sine) / (1.0 - sine)).ln() / (4.0 * PI);
        // 180° East is 180° West; at the poles `down` is infinite and `as` takes it to the end.
        let x = (across * tiles).floor() as u32 % (1u32 << zoom);
        let y = ((down * tiles).floor().clamp(0.0, tiles - 1.0)) as u32;
        Ok(Self { z: zoom, x, y })
    }
}

/// `12/2200/1343`.
impl fmt::Display for WebMercatorTile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.z, self.x, self.y)
    }
}

pub(crate) fn check_place(lon: f64, lat: f64) -> Result<(), GeoError> {
    if !lon.is_finite() || !lat.is_finite() {
        return Err(GeoError::NotFinite { x: lon, y: lat });
    }
    if lat.abs() > 90.0 {
        return Err(GeoError::OutOfRange { name: "the latitude", value: lat, expected: "-90 to 90" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utm_zones_with_norway_and_svalbard() {
        let epsg = |lon: f64, lat: f64| UtmZone::of(lon, lat).unwrap().epsg();
        assert_eq!(epsg(13.4, 52.5), 32633);
        assert_eq!(epsg(13.4, -0.1), 32733);
        assert_eq!(epsg(-180.0, 0.0), 32601);
        assert_eq!(epsg(180.0, 0.0), 32601);
        assert_eq!(epsg(179.999, -10.0), 32760);
        assert_eq!((epsg(2.9, 60.0), epsg(3.0, 60.0), epsg(5.3, 60.4), epsg(12.0, 60.0)), (32631, 32632, 32632, 32633));
        assert_eq!((epsg(3.0, 64.0), epsg(5.3, 55.9)), (32631, 32631));
        let svalbard = [(8.9, 31), (9.0, 33), (20.9, 33), (21.0, 35), (33.0, 37), (41.9, 37), (42.0, 38)];
        for (lon, zone) in svalbard {
            assert_eq!(epsg(lon, 78.0), 32600 + zone, "{lon}");
        }
        assert!(matches!(UtmZone::of(0.0, 90.1), Err(GeoError::OutOfRange { .. })));
        assert!(matches!(UtmZone::of(f64::INFINITY, 0.0), Err(GeoError::NotFinite { .. })));
    }

    #[test]
    fn a_major_tom_cells_point_is_in_the_cell() {
        for distance_km in [0.5, 1.0, 7.3, 10.0, 100.0, 1000.0] {
            let grid = MajorTomGrid::new(distance_km).unwrap();
            for step in 0..2000 {
                let (lon, lat) = (-180.0 + f64::from(step) * 0.18, -84.9 + f64::from(step * 7919 % 2000) * 0.0849);
                let Some(cell) = grid.cell(lon, lat).unwrap() else { continue };
                let (west, south) = grid.bottom_left(cell);
                assert!(south <= lat, "{distance_km} {cell}");
                assert!(west <= lon + 1e-12 || (west > 179.0 - distance_km && lon < -179.0 + distance_km), "{cell}");
                assert_eq!(grid.cell(west, south).unwrap(), Some(cell), "{distance_km} km, {lon} {lat}");
            }
        }
    }

    #[test]
    fn major_tom_names_and_edges() {
        let grid = MajorTomGrid::new(10.0).unwrap();
        let name = |lon: f64, lat: f64| grid.cell(lon, lat).unwrap().map(|cell| cell.to_string());
        assert_eq!(name(0.0, 0.0).as_deref(), Some("0U_0R"));
        assert_eq!(name(-1e-9, -1e-9).as_deref(), Some("1D_1L"));
        assert_eq!(name(180.0, 0.0), name(-180.0, 0.0));
        assert_eq!(name(0.0, 86.0), None);
        assert_eq!(name(0.0, -85.1), None);
        assert!(MajorTomGrid::new(0.0).is_err() && MajorTomGrid::new(f64::NAN).is_err());
    }

    #[test]
    fn a_box_meets_the_cells_of_its_places() {
        for (distance_km, bbox) in [
            (10.0, [12.9, 52.1, 13.4, 52.6]),
            (100.0, [179.0, -20.0, -178.5, -18.0]),
            (50.0, [-180.0, 60.0, -179.0, 61.0]),
            (500.0, [-180.0, -90.0, 180.0, 90.0]),
        ] {
            let grid = MajorTomGrid::new(distance_km).unwrap();
            let found: Vec<MajorTomCell> = grid.cells_in(bbox).collect();
            let cells: std::collections::BTreeSet<_> = found.iter().copied().collect();
            assert_eq!((cells.len(), found.len() as u64), (found.len(), grid.count_in(bbox)), "each once");
            let [west, south, east, north] = bbox;
            let width = if west > east { east + 360.0 - west } else { east - west };
            for step in 0..40_000 {
                let (across, up) = (f64::from(step % 200) / 199.0, f64::from(step / 200) / 199.0);
                let (lon, lat) = (wrap_longitude(west + across * width), south + up * (north - south));
                if let Some(cell) = grid.cell(lon, lat).unwrap() {
                    assert!(cells.contains(&cell), "{distance_km} km: {cell} at {lon}, {lat}");
                }
            }
        }
    }

    #[test]
    fn web_mercator_tiles() {
        let tile = |lon, lat, zoom| WebMercatorTile::of(lon, lat, zoom).unwrap().to_string();
        assert_eq!(tile(0.0, 0.0, 0), "0/0/0");
        assert_eq!(tile(13.377, 52.516, 14), "14/8800/5373");
        assert_eq!(tile(180.0, 0.0, 3), "3/0/4");
        assert_eq!((tile(0.0, 90.0, 2), tile(0.0, -90.0, 2)), ("2/2/0".to_owned(), "2/2/3".to_owned()));
        assert_eq!(tile(-180.0, 85.06, 30), "30/0/0");
        assert!(WebMercatorTile::of(0.0, 0.0, 31).is_err());
    }
}
