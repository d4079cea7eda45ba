//! Where a window lies on the Earth: its outline as polygons in longitude and latitude.

use crate::crs::wrap_longitude;
use crate::{AffineTransform, Crs, GeoError, PixelWindow, wkb};

/// A closed line of longitudes and latitudes in degrees; the last point repeats the first.
pub type Ring = Vec<(f64, f64)>;

/// The outline of a window on the Earth, in OGC:CRS84 with straight edges between the points.
///
/// Corners are exact, and edges have points between until the straight line is within the tolerance of the true edge.
/// Rings run counter-clockwise. Where the outline crosses the antimeridian it is cut there, as RFC 7946 demands; where it
/// goes around a pole, it continues along the antimeridian to the pole and back.
#[derive(Debug, Clone, PartialEq)]
pub struct Footprint {
    polygons: Vec<Ring>,
    bbox: [f64; 4],
    centre: (f64, f64),
}

/// Edges are halved at most this often…
const MAXIMUM_DEPTH: u32 = 20;
/// …and an outline has at most this many points. A quarter of a turn around a pole takes some dozens.
const MAXIMUM_VERTICES: usize = 16_384;
/// By how much a point of the straight line may be ahead of its place along the edge, as a share of the edge. Above that
/// the line goes elsewhere, such as the other way around the globe.
const AHEAD: f64 = 0.2;
/// A pole this close to the outline, in pixels, is on it.
const ON_OUTLINE_PX: f64 = 1e-6;
/// How far from a pole on the outline its surroundings are looked at, in pixels.
const BESIDE_POLE_PX: f64 = 0.5;
/// Longitudes this close to the antimeridian are on it: 0.01 mm.
const ON_ANTIMERIDIAN_DEGREES: f64 = 1e-10;
/// Pieces of less area than this are what rounding left: 1 mm².
const NO_AREA_DEGREES2: f64 = 1e-16;

impl Footprint {
    /// The footprint of a window of the grid that `transform` places in `crs`. `tolerance_px` is the largest distance
    /// between the polygon and the true outline, in pixels of the grid; 0.05 is invisible.
    ///
    /// # Errors
    /// [`GeoError::EmptyWindow`]; [`GeoError::SingularTransform`]; [`GeoError::OutsideDomain`] where a part of the outline
    /// has no longitude and latitude; [`GeoError::NoOutline`] where it is no polygon, such as more than the whole Earth;
    /// [`GeoError::OutOfRange`] for a tolerance that is not positive.
    pub fn of_window(
        window: &PixelWindow,
        transform: &AffineTransform,
        crs: &Crs,
        tolerance_px: f64,
    ) -> Result<Self, GeoError> {
        if window.is_empty() {
            return Err(GeoError::EmptyWindow { window: *window });
        }
        if !(tolerance_px.is_finite() && tolerance_px > 0.0) {
            let expected = "more than 0 and finite";
            return Err(GeoError::OutOfRange {
                name: "the footprint's tolerance in pixels",
                value: tolerance_px,
                expected,
            });
        }
        // Counted from the window's own corner, pixels lose no digits to a distant origin.
        let transform = transform.with_origin_at(window.x_px as f64, window.y_px as f64);
        let to_pixels = transform.inverse()?;
        Outline { window, transform, to_pixels, crs, tolerance_px }.footprint()
    }

    /// The polygons' outer rings; they have no holes. One, but for windows that the antimeridian cuts.
    pub fn polygons(&self) -> &[Ring] {
        &self.polygons
    }

    /// Whether it is a MultiPolygon.
    pub fn is_multi(&self) -> bool {
        self.polygons.len() > 1
    }

    /// West, south, east, north. Where the antimeridian cuts the footprint, west is greater than east (RFC 7946, 5.2).
    pub fn bbox(&self) -> [f64; 4] {
        self.bbox
    }

    /// The middle of the box, by which GeoParquet rows are sorted.
    pub fn bbox_centre(&self) -> (f64, f64) {
        let [west, south, east, north] = self.bbox;
        let east = if west > east { east + 360.0 } else { east };
        (wrap_longitude((west + east) / 2.0), (south + north) / 2.0)
    }

    /// Longitude and latitude of the window's middle pixel.
    pub fn centre(&self) -> (f64, f64) {
        self.centre
    }

    /// Well-known binary, little endian: a Polygon, or a MultiPolygon where [`Self::is_multi`].
    pub fn to_wkb(&self) -> Vec<u8> {
        wkb::write(&self.polygons)
    }
}

/// A point of the outline.
#[derive(Clone, Copy)]
struct Vertex {
    /// Column and row, from the window's corner.
    pixel: (f64, f64),
    /// Continued from the point before, so that it may leave ±180.
    lon: f64,
    lat: f64,
    /// `pixel`, after the way to `lon`, `lat` and back.
    round_trip: (f64, f64),
}

struct Outline<'a> {
    window: &'a PixelWindow,
    transform: AffineTransform,
    to_pixels: AffineTransform,
    crs: &'a Crs,
    tolerance_px: f64,
}

/// A point that the outline has to pass.
#[derive(Clone, Copy)]
enum Station {
    Pixel(f64, f64),
    /// A pole, at these pixel coordinates, of this latitude.
    Pole(f64, f64, f64),
}

impl Station {
    fn pixel(&self) -> (f64, f64) {
        match *self {
            Self::Pixel(col, row) | Self::Pole(col, row, _) => (col, row),
        }
    }
}

impl Outline<'_> {
    fn footprint(&self) -> Result<Footprint, GeoError> {
        let (width, height) = (f64::from(self.window.width_px), f64::from(self.window.height_px));
        let centre = self.lon_lat((width / 2.0, height / 2.0))?;
        let (stations, inside) = self.stations(width, height);
        let ring = self.densified(&stations)?;
        let (polygons, bbox) = self.cut(ring, inside)?;
        Ok(Footprint { polygons, bbox, centre })
    }

    fn no_outline(&self, reason: &'static str) -> GeoError {
        GeoError::NoOutline { window: *self.window, crs: self.crs.to_string(), reason }
    }

    /// The four corners, counter-clockwise where north is up, with the poles that lie on the edges; and the latitude of a
    /// pole that lies inside.
    fn stations(&self, width: f64, height: f64) -> (Vec<Station>, Option<f64>) {
        let corners = [(0.0, 0.0), (0.0, height), (width, height), (width, 0.0)];
        let mut stations: Vec<Station> = corners.iter().map(|&(col, row)| Station::Pixel(col, row)).collect();
        let mut inside = None;
        for latitude in [90.0, -90.0] {
            let Some((col, row)) = self.pole(latitude) else { continue };
            if col < -ON_OUTLINE_PX
                || col > width + ON_OUTLINE_PX
                || row < -ON_OUTLINE_PX
                || row > height + ON_OUTLINE_PX
            {
                continue;
            }
            let pole = Station::Pole(col, row, latitude);
            let near = |a: (f64, f64)| (a.0 - col).hypot(a.1 - row) <= ON_OUTLINE_PX;
            if let Some(corner) = stations.iter_mut().find(|station| near(station.pixel())) {
                *corner = pole;
            } else if let Some(edge) = (0..stations.len()).find(|&edge| {
                let (from, to) = (stations[edge].pixel(), stations[(edge + 1) % stations.len()].pixel());
                near(nearest_on_segment(from, to, (col, row)))
            }) {
                stations.insert(edge + 1, pole);
            } else {
                inside = Some(latitude);
            }
        }
        (stations, inside)
    }

    /// The pixel coordinates of a pole; `None` where it has none or is drawn as a line.
    fn pole(&self, latitude: f64) -> Option<(f64, f64)> {
        if self.crs.is_geographic() {
            return None;
        }
        let at = |lon: f64| {
            let (x, y) = self.crs.from_lon_lat(lon, latitude).ok()?;
            let (col, row) = self.to_pixels.apply(x, y);
            (col.is_finite() && row.is_finite()).then_some((col, row))
        };
        let (here, there) = (at(0.0)?, at(90.0)?);
        ((here.0 - there.0).hypot(here.1 - there.1) <= self.tolerance_px).then_some(here)
    }

    fn lon_lat(&self, (col, row): (f64, f64)) -> Result<(f64, f64), GeoError> {
        let (x, y) = self.transform.apply(col, row);
        self.crs.to_lon_lat(x, y)
    }

    /// Pixel coordinates of a longitude and latitude; the nearest to `expected` where the projection repeats itself.
    fn pixel_near(&self, lon: f64, lat: f64, expected: (f64, f64)) -> Option<(f64, f64)> {
        let (expected_x, _) = self.transform.apply(expected.0, expected.1);
        let (x, y) = self.crs.forward_near(lon, lat, expected_x)?;
        Some(self.to_pixels.apply(x, y))
    }

    /// A point of the outline, its longitude continued from `previous_lon`.
    fn vertex(&self, pixel: (f64, f64), previous_lon: Option<f64>) -> Result<Vertex, GeoError> {
        let (lon, lat) = self.lon_lat(pixel)?;
        let round_trip = self.pixel_near(lon, lat, pixel).unwrap_or(pixel);
        Ok(Vertex { pixel, lon: continued(lon, previous_lon), lat, round_trip })
    }

    /// All points in order, with continued longitudes. The last is the first again, by whole turns further.
    fn densified(&self, stations: &[Station]) -> Result<Vec<(f64, f64)>, GeoError> {
        let mut vertices: Vec<Vertex> = Vec::new();
        for (index, station) in stations.iter().enumerate() {
            let previous = stations[(index + stations.len() - 1) % stations.len()].pixel();
            let next = stations[(index + 1) % stations.len()].pixel();
            self.pass(*station, previous, next, &mut vertices)?;
        }
        let previous = *vertices.last().ok_or_else(|| self.no_outline("it has no points"))?;
        let first = vertices[0];
        let end = Vertex { lon: continued(first.lon, Some(previous.lon)), ..first };
        self.connect(previous, end, 0, &mut vertices)?;
        Ok(vertices.iter().map(|vertex| (vertex.lon, vertex.lat)).collect())
    }

    /// Adds the points up to and with a station.
    fn pass(
        &self,
        station: Station,
        previous: (f64, f64),
        next: (f64, f64),
        vertices: &mut Vec<Vertex>,
    ) -> Result<(), GeoError> {
        let last = vertices.last().copied();
        let last_lon = last.map(|vertex| vertex.lon);
        let Station::Pole(col, row, latitude) = station else {
            let vertex = self.vertex(station.pixel(), last_lon)?;
            return match last {
                Some(last) => self.connect(last, vertex, 0, vertices),
                None => {
                    vertices.push(vertex);
                    Ok(())
                }
            };
        };
        // At a pole every longitude is right. The outline comes along one meridian, turns over the inside of the window
        // and leaves along another.
        let middle = (f64::from(self.window.width_px) / 2.0, f64::from(self.window.height_px) / 2.0);
        let mut lon = last_lon;
        for (turn, towards) in [previous, middle, next].into_iter().enumerate() {
            let distance = (towards.0 - col).hypot(towards.1 - row);
            let step = (BESIDE_POLE_PX / distance).min(0.5);
            let beside = (col + (towards.0 - col) * step, row + (towards.1 - row) * step);
            let (beside_lon, _) = self.lon_lat(beside)?;
            let vertex_lon = continued(beside_lon, lon);
            lon = Some(vertex_lon);
            let pole = Vertex { pixel: (col, row), lon: vertex_lon, lat: latitude, round_trip: (col, row) };
            match last {
                Some(last) if turn == 0 => self.connect(last, pole, 0, vertices)?,
                _ => vertices.push(pole),
            }
        }
        Ok(())
    }

    /// Adds the points after `from` up to and with `to`, so many that straight lines between them keep the tolerance.
    fn connect(&self, from: Vertex, to: Vertex, depth: u32, vertices: &mut Vec<Vertex>) -> Result<(), GeoError> {
        // The longitude at the far end may have been continued from a point a long way off: it is taken again from here.
        let to = Vertex { lon: continued(to.lon, Some(from.lon)), ..to };
        if self.is_straight(&from, &to) {
            vertices.push(to);
            return Ok(());
        }
        if depth >= MAXIMUM_DEPTH || vertices.len() >= MAXIMUM_VERTICES {
            return Err(self.no_outline("it bends too sharply"));
        }
        let middle = ((from.pixel.0 + to.pixel.0) / 2.0, (from.pixel.1 + to.pixel.1) / 2.0);
        let middle = self.vertex(middle, Some(from.lon))?;
        self.connect(from, middle, depth + 1, vertices)?;
        let middle = *vertices.last().unwrap_or(&middle);
        self.connect(middle, to, depth + 1, vertices)
    }

    /// Whether the straight line in degrees stays within the tolerance of the straight line in pixels.
    fn is_straight(&self, from: &Vertex, to: &Vertex) -> bool {
        // Closer together than the tolerance there is nothing to see; at a pole there is no length at all.
        if (to.pixel.0 - from.pixel.0).hypot(to.pixel.1 - from.pixel.1) <= self.tolerance_px {
            return true;
        }
        let (start, end) = (from.round_trip, to.round_trip);
        let (along_col, along_row) = (end.0 - start.0, end.1 - start.1);
        let length = along_col.hypot(along_row);
        [0.25, 0.5, 0.75].into_iter().all(|share| {
            let lon = from.lon + (to.lon - from.lon) * share;
            let lat = from.lat + (to.lat - from.lat) * share;
            let expected = (start.0 + along_col * share, start.1 + along_row * share);
            let Some((col, row)) = self.pixel_near(lon, lat, expected) else { return false };
            let (col, row) = (col - start.0, row - start.1);
            let along = (col * along_col + row * along_row) / (length * length);
            let across_px = (col * along_row - row * along_col).abs() / length;
            // A little under the tolerance, for what lies between the three points.
            (along - share).abs() <= AHEAD && across_px <= 0.9 * self.tolerance_px
        })
    }

    /// Polygons within ±180 from a line of continued longitudes, and their box.
    fn cut(&self, mut ring: Vec<(f64, f64)>, inside: Option<f64>) -> Result<(Vec<Ring>, [f64; 4]), GeoError> {
        for (lon, _) in &mut ring {
            let nearest = ((*lon - 180.0) / 360.0).round() * 360.0 + 180.0;
            if (*lon - nearest).abs() <= ON_ANTIMERIDIAN_DEGREES {
                *lon = nearest;
            }
        }
        let (first, last) = (ring[0], ring[ring.len() - 1]);
        let turns = ((last.0 - first.0) / 360.0).round();
        match (turns, inside) {
            (0.0, None) => {
                ring.pop();
                self.cut_at_antimeridian(ring)
            }
            (1.0 | -1.0, Some(pole)) => {
                if turns < 0.0 {
                    ring.reverse();
                }
                self.extend_to_pole(&ring, pole)
            }
            _ => Err(self.no_outline("it winds around the Earth")),
        }
    }

    fn cut_at_antimeridian(&self, mut ring: Vec<(f64, f64)>) -> Result<(Vec<Ring>, [f64; 4]), GeoError> {
        ring.dedup();
        if signed_area(&ring) < 0.0 {
            ring.reverse();
        }
        let (west, east) = extent(ring.iter().map(|point| point.0));
        let (south, north) = extent(ring.iter().map(|point| point.1));
        if east - west > 360.0 + ON_ANTIMERIDIAN_DEGREES {
            return Err(self.no_outline("it covers some longitudes twice"));
        }
        if east - west >= 360.0 - ON_ANTIMERIDIAN_DEGREES {
            return self.around_the_globe(&ring, south, north);
        }
        let turns = ((west + 180.0) / 360.0).floor() * 360.0;
        if turns != 0.0 {
            ring.iter_mut().for_each(|point| point.0 -= turns);
        }
        let (west, east) = (west - turns, east - turns);
        let mut polygons = if east <= 180.0 { vec![ring] } else { split_at_antimeridian(&ring) };
        polygons.retain(|polygon| signed_area(polygon) > NO_AREA_DEGREES2);
        if polygons.is_empty() {
            return Err(self.no_outline("it has no area"));
        }
        let bbox = if polygons.len() > 1 {
            [west, south, east - 360.0, north]
        } else {
            let (west, east) = extent(polygons[0].iter().map(|point| point.0));
            [west, south, east, north]
        };
        polygons.iter_mut().for_each(close);
        Ok((polygons, bbox))
    }

    /// All longitudes between two parallels, wherever the grid begins: two polygons that share a meridian would be no
    /// valid MultiPolygon.
    fn around_the_globe(&self, ring: &[(f64, f64)], south: f64, north: f64) -> Result<(Vec<Ring>, [f64; 4]), GeoError> {
        if ring.iter().any(|&(_, lat)| lat != south && lat != north) {
            return Err(self.no_outline("it covers all longitudes, but not between two parallels"));
        }
        let polygon = vec![(-180.0, south), (180.0, south), (180.0, north), (-180.0, north), (-180.0, south)];
        Ok((vec![polygon], [-180.0, south, 180.0, north]))
    }

    /// `ring` goes once around the pole, to the east; its last point is its first, 360 further.
    fn extend_to_pole(&self, ring: &[(f64, f64)], pole: f64) -> Result<(Vec<Ring>, [f64; 4]), GeoError> {
        let start = ring[0].0;
        let antimeridian = ((start - 180.0) / 360.0).ceil() * 360.0 + 180.0;
        let crossing = ring.windows(2).position(|edge| edge[0].0 <= antimeridian && antimeridian < edge[1].0);
        // The last point may lie on the antimeridian itself, and with it the first.
        let crossing = crossing.unwrap_or(0);
        let latitude = latitude_at(ring[crossing], ring[crossing + 1], antimeridian.min(ring[crossing + 1].0));
        let mut polygon = vec![(-180.0, latitude)];
        polygon.extend(ring[crossing + 1..].iter().map(|&(lon, lat)| (lon - antimeridian - 180.0, lat)));
        polygon.extend(ring[1..=crossing].iter().map(|&(lon, lat)| (lon - antimeridian + 180.0, lat)));
        polygon.extend([(180.0, latitude), (180.0, pole), (-180.0, pole)]);
        polygon.dedup();
        if polygon.iter().any(|point| point.0.abs() > 180.0) {
            return Err(self.no_outline("it crosses the antimeridian more than once on its way around the pole"));
        }
        if signed_area(&polygon) < 0.0 {
            polygon.reverse();
        }
        let (south, north) = extent(polygon.iter().map(|point| point.1));
        close(&mut polygon);
        Ok((vec![polygon], [-180.0, south, 180.0, north]))
    }
}

/// The longitude, by whole turns the nearest to the one before.
fn continued(lon: f64, previous: Option<f64>) -> f64 {
    match previous {
        Some(previous) => lon + ((previous - lon) / 360.0).round() * 360.0,
        None => lon,
    }
}

fn nearest_on_segment(from: (f64, f64), to: (f64, f64), point: (f64, f64)) -> (f64, f64) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length2 = dx * dx + dy * dy;
    if length2 == 0.0 {
        return from;
    }
    let share = (((point.0 - from.0) * dx + (point.1 - from.1) * dy) / length2).clamp(0.0, 1.0);
    (from.0 + dx * share, from.1 + dy * share)
}

fn extent(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), number| (low.min(number), high.max(number)))
}

/// Positive where the ring, closed or not, runs counter-clockwise.
fn signed_area(ring: &[(f64, f64)]) -> f64 {
    let Some(&(origin_lon, origin_lat)) = ring.first() else { return 0.0 };
    let from_origin = |point: &(f64, f64)| (point.0 - origin_lon, point.1 - origin_lat);
    let sum: f64 = ring
        .windows(2)
        .map(|edge| {
            let (from, to) = (from_origin(&edge[0]), from_origin(&edge[1]));
            from.0 * to.1 - to.0 * from.1
        })
        .sum();
    // The edge that closes the ring ends in the origin and adds nothing.
    sum / 2.0
}

fn close(ring: &mut Ring) {
    ring.dedup();
    if let (Some(&first), Some(&last)) = (ring.first(), ring.last())
        && first != last
    {
        ring.push(first);
    }
}

/// The latitude at which an edge crosses a longitude between its ends.
fn latitude_at(from: (f64, f64), to: (f64, f64), lon: f64) -> f64 {
    if to.0 == from.0 { from.1 } else { from.1 + (to.1 - from.1) * (lon - from.0) / (to.0 - from.0) }
}

/// A part of a ring on one side of the antimeridian, between two of its crossings.
struct Chain {
    is_east: bool,
    points: Vec<(f64, f64)>,
    first_crossing: usize,
    last_crossing: usize,
}

/// The parts of a counter-clockwise ring (not closed) on both sides of longitude 180; those beyond it moved to -180.
fn split_at_antimeridian(ring: &[(f64, f64)]) -> Vec<Ring> {
    const LINE: f64 = 180.0;
    let is_east = |point: &(f64, f64)| point.0 > LINE;
    let count = ring.len();
    let crossings: Vec<usize> =
        (0..count).filter(|&index| is_east(&ring[index]) != is_east(&ring[(index + 1) % count])).collect();
    if crossings.is_empty() {
        return vec![ring.to_vec()];
    }
    let latitudes: Vec<f64> =
        crossings.iter().map(|&index| latitude_at(ring[index], ring[(index + 1) % count], LINE)).collect();
    let chains: Vec<Chain> = (0..crossings.len())
        .map(|first_crossing| {
            let last_crossing = (first_crossing + 1) % crossings.len();
            let first = crossings[first_crossing] + 1;
            let length = (crossings[last_crossing] + count - crossings[first_crossing]) % count;
            let is_east = is_east(&ring[first % count]);
            let shift = if is_east { 360.0 } else { 0.0 };
            let mut points = vec![(LINE - shift, latitudes[first_crossing])];
            points
                .extend((first..first + length).map(|index| ring[index % count]).map(|(lon, lat)| (lon - shift, lat)));
            points.push((LINE - shift, latitudes[last_crossing]));
            Chain { is_east, points, first_crossing, last_crossing }
        })
        .collect();
    // From south to north, the line is inside the ring between the first and the second crossing, the third and the
    // fourth, …: those pairs are joined on either side.
    let mut by_latitude: Vec<usize> = (0..crossings.len()).collect();
    by_latitude.sort_by(|&a, &b| latitudes[a].total_cmp(&latitudes[b]));
    let partner = |crossing: usize| {
        let rank = by_latitude.iter().position(|&other| other == crossing).unwrap_or(0);
        by_latitude[rank ^ 1]
    };
    let mut used = vec![false; chains.len()];
    let mut polygons = Vec::new();
    for start in 0..chains.len() {
        let mut polygon = Ring::new();
        let mut next = Some(start);
        while let Some(chain) = next.filter(|&chain| !used[chain]) {
            used[chain] = true;
            polygon.extend(&chains[chain].points);
            let joined = partner(chains[chain].last_crossing);
            next = chains
                .iter()
                .position(|other| other.is_east == chains[chain].is_east && other.first_crossing == joined);
        }
        polygon.dedup();
        if !polygon.is_empty() {
            polygons.push(polygon);
        }
    }
    // From west to east, as the box has them.
    polygons.sort_by_key(|polygon| polygon[0].0 < 0.0);
    polygons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_wkb_polygons;

    const TOLERANCE_PX: f64 = 0.05;

    fn footprint(code: u32, (x, y): (f64, f64), size: f64, window: PixelWindow) -> Result<Footprint, GeoError> {
        let transform = AffineTransform::unrotated(x, y, size, -size);
        Footprint::of_window(&window, &transform, &Crs::from_epsg(code).unwrap(), TOLERANCE_PX)
    }

    #[test]
    fn a_chip_in_utm_is_four_exact_corners_counter_clockwise() {
        let window = PixelWindow::new(256, 512, 256, 256);
        let chip = footprint(32633, (399_960.0, 5_900_040.0), 10.0, window).unwrap();
        let utm = Crs::from_epsg(32633).unwrap();
        let corner = |col: f64, row: f64| utm.to_lon_lat(399_960.0 + 10.0 * col, 5_900_040.0 - 10.0 * row).unwrap();
        let corners =
            [corner(256., 512.), corner(256., 768.), corner(512., 768.), corner(512., 512.), corner(256., 512.)];
        assert_eq!(chip.polygons(), [corners.to_vec()]);
        assert_eq!(chip.centre(), corner(384.0, 640.0));
        let [west, south, east, north] = chip.bbox();
        assert!(corners.iter().all(|&(lon, lat)| west <= lon && lon <= east && south <= lat && lat <= north));
        assert_eq!(read_wkb_polygons(&chip.to_wkb()).unwrap(), [chip.polygons()]);
    }

    #[test]
    fn south_up_and_rotated_grids_run_counter_clockwise_too() {
        let utm = Crs::from_epsg(32733).unwrap();
        for (a, b, d, e) in [(10., 0., 0., 10.), (0., 10., 10., 0.), (-6., 8., 8., 6.), (6., -8., 8., 6.)] {
            let transform = AffineTransform::new(a, b, 5e5, d, e, 6e6);
            let window = PixelWindow::new(-20, 30, 100, 50);
            let chip = Footprint::of_window(&window, &transform, &utm, TOLERANCE_PX).unwrap();
            assert!(signed_area(&chip.polygons()[0]) > 0.0);
        }
    }

    #[test]
    fn edges_that_bend_get_points_between() {
        let scene = footprint(3413, (-2_000_000.0, -600_000.0), 250.0, PixelWindow::of_grid(4096, 4096)).unwrap();
        let points = scene.polygons()[0].len();
        assert!((100..1000).contains(&points), "{points}");
        let coarse = Footprint::of_window(
            &PixelWindow::of_grid(4096, 4096),
            &AffineTransform::unrotated(-2_000_000.0, -600_000.0, 250.0, -250.0),
            &Crs::from_epsg(3413).unwrap(),
            1.0,
        );
        assert!(coarse.unwrap().polygons()[0].len() < points);
    }

    #[test]
    fn the_antimeridian_cuts_a_window_in_two() {
        let window = PixelWindow::of_grid(200, 100);
        let fiji = footprint(4326, (179.0, -16.0), 0.01, window).unwrap();
        assert!(fiji.is_multi());
        assert_eq!(fiji.bbox(), [179.0, -17.0, -179.0, -16.0]);
        assert_eq!(fiji.bbox_centre(), (180.0, -16.5));
        let [west, east] = fiji.polygons() else { panic!("{fiji:?}") };
        assert_eq!(extent(west.iter().map(|point| point.0)), (179.0, 180.0));
        assert_eq!(extent(east.iter().map(|point| point.0)), (-180.0, -179.0));
        assert!(signed_area(west) > 0.0 && signed_area(east) > 0.0);
        let up_to = footprint(4326, (178.0, -16.0), 0.01, window).unwrap();
        let from = footprint(4326, (180.0, -16.0), 0.01, window).unwrap();
        assert_eq!((up_to.bbox(), up_to.is_multi()), ([178.0, -17.0, 180.0, -16.0], false));
        assert_eq!((from.bbox(), from.is_multi()), ([-180.0, -17.0, -178.0, -16.0], false));
    }

    #[test]
    fn a_window_around_a_pole_reaches_it_along_the_antimeridian() {
        for (code, pole) in [(3413, 90.0), (3031, -90.0), (3995, 90.0)] {
            let cap = footprint(code, (-512_000.0, 512_000.0), 1000.0, PixelWindow::of_grid(1024, 1024)).unwrap();
            let [ring] = cap.polygons() else { panic!("{code}: {cap:?}") };
            assert!(signed_area(ring) > 0.0);
            assert!(ring.contains(&(180.0, pole)) && ring.contains(&(-180.0, pole)));
            assert_eq!((cap.bbox()[0], cap.bbox()[2], cap.centre().1), (-180.0, 180.0, pole), "{code}");
        }
    }

    #[test]
    fn a_pole_on_a_corner_or_an_edge_is_a_part_of_the_outline() {
        for (window, degrees) in
            [(PixelWindow::new(0, 0, 256, 256), 90.0), (PixelWindow::new(0, -128, 256, 256), 180.0)]
        {
            let chip = footprint(3995, (0.0, 0.0), 100.0, window).unwrap();
            let [west, _, east, north] = chip.bbox();
            assert_eq!(north, 90.0);
            assert!((east - west - degrees).abs() < 1e-9, "{window:?}: {west} to {east}");
        }
    }

    #[test]
    fn the_whole_earth_is_one_rectangle() {
        for (west, size, width) in [(-180.0, 0.1, 3600), (0.0, 0.1, 3600)] {
            let earth = footprint(4326, (west, 90.0), size, PixelWindow::of_grid(width, 1800)).unwrap();
            assert_eq!(earth.bbox(), [-180.0, -90.0, 180.0, 90.0]);
            assert_eq!(earth.polygons().len(), 1);
        }
    }

    #[test]
    fn refuses_what_has_no_outline() {
        let window = PixelWindow::of_grid(256, 256);
        assert!(matches!(
            footprint(4326, (0.0, 0.0), 1.0, PixelWindow::of_grid(0, 9)),
            Err(GeoError::EmptyWindow { .. })
        ));
        assert!(matches!(footprint(4326, (0.0, 0.0), 0.0, window), Err(GeoError::SingularTransform { .. })));
        assert!(matches!(footprint(4326, (0.0, 100.0), 0.1, window), Err(GeoError::OutsideDomain { .. })));
        let wide = PixelWindow::of_grid(370, 10);
        assert!(matches!(footprint(4326, (0.0, 10.0), 1.0, wide), Err(GeoError::NoOutline { .. })));
        let (transform, crs) = (AffineTransform::unrotated(0.0, 0.0, 1e-3, -1e-3), Crs::crs84().unwrap());
        for tolerance_px in [0.0, -1.0, f64::NAN] {
            let error = Footprint::of_window(&window, &transform, &crs, tolerance_px).unwrap_err();
            assert!(matches!(error, GeoError::OutOfRange { .. }));
        }
    }

    #[test]
    fn a_bay_in_the_antimeridian_makes_three_pieces() {
        let ring = [(178.0, 0.0), (182.0, 0.0), (182.0, 1.0), (179.0, 2.0), (182.0, 3.0), (182.0, 4.0), (178.0, 4.0)];
        let mut areas: Vec<f64> = split_at_antimeridian(&ring)
            .iter_mut()
            .map(|ring| {
                close(ring);
                signed_area(ring)
            })
            .collect();
        areas.sort_by(f64::total_cmp);
        let mut whole = ring.to_vec();
        close(&mut whole);
        assert_eq!(areas.len(), 3);
        assert!(areas[0] > 0.0 && (areas.iter().sum::<f64>() - signed_area(&whole)).abs() < 1e-12, "{areas:?}");
    }
}
