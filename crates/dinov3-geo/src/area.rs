//! Areas of interest: polygons in longitude and latitude, and which footprints meet them.

use robust::{Coord, orient2d};
use rstar::{AABB, RTree, RTreeObject};

use crate::footprint::{Footprint, Ring};
use crate::{Crs, GeoError};

/// Polygons with holes, as a set of points: what lies in any of them.
///
/// Edges are straight lines in degrees and borders belong to the area, as RFC 7946 and the usual predicates have it.
/// Polygons may overlap. The edges lie in an R-tree, so that a question costs about as much as it has edges nearby.
#[derive(Clone, Debug)]
pub struct Area {
    edges: RTree<Edge>,
    polygons: usize,
}

/// How much of a footprint lies in an [`Area`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// No point of it.
    Outside,
    /// A border of the area meets it, or parts of it lie in the area.
    Partly,
    /// All of it, and no border of the area meets it.
    Inside,
}

/// An edge of one of the polygons.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Edge {
    from: [f64; 2],
    to: [f64; 2],
    polygon: u32,
}

impl RTreeObject for Edge {
    type Envelope = AABB<[f64; 2]>;

    fn envelope(&self) -> Self::Envelope {
        AABB::from_corners(self.from, self.to)
    }
}

/// Longitudes of areas may run on beyond ±180, by half a turn.
const LAST_LONGITUDE: f64 = 540.0;
/// A straight line on the map of another reference system is followed in degrees to within this: 1 cm.
const STRAIGHT_DEGREES: f64 = 1e-7;
/// Edges are halved at most this often.
const MAXIMUM_DEPTH: u32 = 12;

impl Area {
    /// The area of these polygons, each its rings: the outer one and holes, closed or not, in any direction. Coordinates
    /// are those of `crs`, x first; lines that are straight there are followed to a centimetre.
    ///
    /// # Errors
    /// [`GeoError::NotFinite`], [`GeoError::OutOfRange`], [`GeoError::OutsideDomain`] for points that lie nowhere.
    pub fn new(polygons: &[Vec<Ring>], crs: &Crs) -> Result<Self, GeoError> {
        let mut edges = Vec::new();
        for (polygon, rings) in (0..).zip(polygons) {
            let start = edges.len();
            for ring in rings {
                for (at, &from) in ring.iter().enumerate() {
                    // A ring that is closed already gets an edge without length, which is none.
                    let to = ring[(at + 1) % ring.len()];
                    if from != to || ring.len() == 1 {
                        add(&mut edges, polygon, crs, from, to)?;
                    }
                }
            }
            // What runs beyond the antimeridian lies on its other side.
            let longitudes = || edges[start..].iter().flat_map(|edge| [edge.from[0], edge.to[0]]);
            let turns = [(longitudes().any(|lon| lon > 180.0), -360.0), (longitudes().any(|lon| lon < -180.0), 360.0)];
            let own = edges[start..].to_vec();
            for (_, turn) in turns.into_iter().filter(|(is_beyond, _)| *is_beyond) {
                let turned = |[lon, lat]: [f64; 2]| [lon + turn, lat];
                edges.extend(own.iter().map(|edge| Edge { from: turned(edge.from), to: turned(edge.to), ..*edge }));
            }
        }
        Ok(Self { edges: RTree::bulk_load(edges), polygons: polygons.len() })
    }

    /// The number of polygons.
    pub fn polygons(&self) -> usize {
        self.polygons
    }

    /// The number of edges that are longer than half a turn: of polygons that were not cut at the antimeridian, and go the
    /// long way around.
    pub fn long_edges(&self) -> usize {
        let is_long = |edge: &&Edge| {
            let width = (edge.from[0] - edge.to[0]).abs();
            // The whole width of the map is what a box around the Earth has.
            width > 180.0 && width < 360.0
        };
        self.edges.iter().filter(is_long).count()
    }

    /// How much of a footprint lies in the area.
    pub fn coverage(&self, footprint: &Footprint) -> Coverage {
        let (mut inside, mut outside) = (false, false);
        for ring in footprint.polygons() {
            let mut nearby = self.edges.locate_in_envelope_intersecting(envelope(ring));
            if nearby.any(|edge| meets(edge, ring)) {
                return Coverage::Partly;
            }
            // No border is in it, so that one of its points speaks for all.
            match ring.first().is_some_and(|&(lon, lat)| self.contains(lon, lat)) {
                true => inside = true,
                false => outside = true,
            }
        }
        match (inside, outside) {
            (true, true) => Coverage::Partly,
            (true, false) => Coverage::Inside,
            _ => Coverage::Outside,
        }
    }

    /// Whether a point that is on no border lies in one of the polygons.
    fn contains(&self, lon: f64, lat: f64) -> bool {
        // Borders that a line to the east crosses, by polygon: an odd number around a point inside.
        let line = AABB::from_corners([lon, lat], [f64::MAX, lat]);
        let crossed = self.edges.locate_in_envelope_intersecting(line);
        let crossed = crossed.filter(|edge| is_crossed(edge.from, edge.to, [lon, lat]));
        let mut polygons: Vec<u32> = crossed.map(|edge| edge.polygon).collect();
        polygons.sort_unstable();
        polygons.chunk_by(|one, other| one == other).any(|edges| edges.len() % 2 == 1)
    }
}

/// Adds an edge, in degrees.
fn add(edges: &mut Vec<Edge>, polygon: u32, crs: &Crs, from: (f64, f64), to: (f64, f64)) -> Result<(), GeoError> {
    if crs.is_geographic() {
        let (from, to) = (checked(crs, from)?, checked(crs, to)?);
        edges.push(Edge { from, to, polygon });
        return Ok(());
    }
    let degrees = |(x, y): (f64, f64)| crs.to_lon_lat(x, y).map(|(lon, lat)| [lon, lat]);
    follow(edges, polygon, &degrees, (from, degrees(from)?), (to, degrees(to)?), 0)
}

/// Longitudes keep their turns: a polygon across the antimeridian may be written with them.
fn checked(crs: &Crs, (lon, lat): (f64, f64)) -> Result<[f64; 2], GeoError> {
    let out_of_range = |name, value, expected| Err(GeoError::OutOfRange { name, value, expected });
    if lon.abs() > LAST_LONGITUDE {
        return out_of_range("a longitude of the area", lon, "-180 to 180");
    }
    if lat.abs() > 90.0 {
        return out_of_range("a latitude of the area", lat, "-90 to 90");
    }
    let (shifted_lon, shifted_lat) = crs.to_lon_lat(lon, lat)?;
    Ok([shifted_lon + ((lon - shifted_lon) / 360.0).round() * 360.0, shifted_lat])
}

type Point = ((f64, f64), [f64; 2]);

/// Adds the pieces of an edge that is straight in another reference system.
fn follow(
    edges: &mut Vec<Edge>,
    polygon: u32,
    degrees: &impl Fn((f64, f64)) -> Result<[f64; 2], GeoError>,
    from: Point,
    to: Point,
    depth: u32,
) -> Result<(), GeoError> {
    // Across the antimeridian, by the shorter way.
    let turn = ((from.1[0] - to.1[0]) / 360.0).round() * 360.0;
    let to = (to.0, [to.1[0] + turn, to.1[1]]);
    let middle = ((from.0.0 + to.0.0) / 2.0, (from.0.1 + to.0.1) / 2.0);
    let [mut lon, lat] = degrees(middle)?;
    let straight = [(from.1[0] + to.1[0]) / 2.0, (from.1[1] + to.1[1]) / 2.0];
    lon += ((straight[0] - lon) / 360.0).round() * 360.0;
    if depth == MAXIMUM_DEPTH || (lon - straight[0]).hypot(lat - straight[1]) <= STRAIGHT_DEGREES {
        edges.push(Edge { from: from.1, to: to.1, polygon });
        return Ok(());
    }
    let middle = (middle, [lon, lat]);
    follow(edges, polygon, degrees, from, middle, depth + 1)?;
    follow(edges, polygon, degrees, middle, to, depth + 1)
}

fn envelope(ring: &Ring) -> AABB<[f64; 2]> {
    let points: Vec<[f64; 2]> = ring.iter().map(|&(lon, lat)| [lon, lat]).collect();
    AABB::from_points(&points)
}

/// Whether a point of the edge is in the ring or on it.
fn meets(edge: &Edge, ring: &Ring) -> bool {
    let sides = || ring.windows(2).map(|side| ([side[0].0, side[0].1], [side[1].0, side[1].1]));
    let crossed = || sides().filter(|&(from, to)| is_crossed(from, to, edge.from)).count();
    sides().any(|(from, to)| segments_meet(edge.from, edge.to, from, to)) || crossed() % 2 == 1
}

/// Whether a line from the point to the east crosses the edge; of its ends the lower one counts.
fn is_crossed(from: [f64; 2], to: [f64; 2], point: [f64; 2]) -> bool {
    if (from[1] > point[1]) == (to[1] > point[1]) {
        return false;
    }
    let (lower, upper) = if from[1] < to[1] { (from, to) } else { (to, from) };
    turn(lower, upper, point) > 0.0
}

/// Whether two segments have a point in common.
fn segments_meet(a: [f64; 2], b: [f64; 2], c: [f64; 2], d: [f64; 2]) -> bool {
    let (abc, abd, cda, cdb) = (turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b));
    let opposite = |one: f64, other: f64| (one > 0.0 && other < 0.0) || (one < 0.0 && other > 0.0);
    let between = |from: [f64; 2], to: [f64; 2], point: [f64; 2]| {
        (0..2).all(|axis| from[axis].min(to[axis]) <= point[axis] && point[axis] <= from[axis].max(to[axis]))
    };
    (opposite(abc, abd) && opposite(cda, cdb))
        || (abc == 0.0 && between(a, b, c))
        || (abd == 0.0 && between(a, b, d))
        || (cda == 0.0 && between(c, d, a))
        || (cdb == 0.0 && between(c, d, b))
}

/// Positive where `c` lies to the left of the way from `a` to `b`, 0 where on its line: exact.
fn turn(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> f64 {
    let [a, b, c] = [a, b, c].map(|[x, y]| Coord { x, y });
    orient2d(a, b, c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AffineTransform, PixelWindow};

    fn square(west: f64, south: f64, side: f64) -> Ring {
        let (east, north) = (west + side, south + side);
        vec![(west, south), (east, south), (east, north), (west, north), (west, south)]
    }

    fn area(polygons: &[Vec<Ring>]) -> Area {
        Area::new(polygons, &Crs::crs84().unwrap()).unwrap()
    }

    /// A pixel of a degree.
    fn footprint(west: i64, south: i64) -> Footprint {
        let transform = AffineTransform::unrotated(0.0, 0.0, 1.0, 1.0);
        let window = PixelWindow::new(west, south, 1, 1);
        Footprint::of_window(&window, &transform, &Crs::crs84().unwrap(), 0.05).unwrap()
    }

    #[test]
    fn footprints_are_outside_inside_or_cut_by_a_border() {
        let area = area(&[vec![square(0.5, 0.5, 9.0), square(3.0, 3.0, 3.0)], vec![square(20.25, 20.25, 0.5)]]);
        for ((west, south), expected) in [
            ((1, 1), Coverage::Inside),
            ((0, 0), Coverage::Partly),
            ((12, 5), Coverage::Outside),
            // In the hole, and at its border.
            ((4, 4), Coverage::Outside),
            ((3, 3), Coverage::Partly),
            ((2, 4), Coverage::Partly),
            // A polygon inside of the footprint; beside it.
            ((20, 20), Coverage::Partly),
            ((21, 20), Coverage::Outside),
        ] {
            assert_eq!(area.coverage(&footprint(west, south)), expected, "{west} {south}");
        }
        assert_eq!(area.polygons(), 2);
    }

    #[test]
    fn a_touch_is_a_meeting_and_overlaps_do_not_cancel() {
        let area = area(&[vec![square(1.0, 1.0, 4.0)], vec![square(2.0, 2.0, 9.0)]]);
        assert_eq!(area.coverage(&footprint(0, 0)), Coverage::Partly, "a corner");
        assert_eq!(area.coverage(&footprint(-1, 0)), Coverage::Outside);
        assert_eq!(area.coverage(&footprint(3, 3)), Coverage::Inside, "in both");
    }

    #[test]
    fn rings_need_not_be_closed_and_may_turn_either_way() {
        let mut ring = square(0.0, 0.0, 9.0);
        ring.pop();
        ring.reverse();
        assert_eq!(area(&[vec![ring]]).coverage(&footprint(4, 4)), Coverage::Inside);
        assert_eq!(area(&[]).coverage(&footprint(4, 4)), Coverage::Outside);
        assert_eq!(area(&[vec![vec![(4.5, 4.5)]]]).coverage(&footprint(4, 4)), Coverage::Partly);
    }

    #[test]
    fn longitudes_may_run_on_beyond_the_antimeridian() {
        let area = area(&[vec![square(175.5, 0.5, 9.0)], vec![square(-190.0, 40.0, 20.0)]]);
        for (west, south, expected) in [
            (177, 5, Coverage::Inside),
            (-178, 5, Coverage::Inside),
            (-174, 5, Coverage::Outside),
            (172, 45, Coverage::Inside),
            (-175, 45, Coverage::Inside),
        ] {
            assert_eq!(area.coverage(&footprint(west, south)), expected, "{west}");
        }
        assert_eq!(area.long_edges(), 0);
    }

    #[test]
    fn other_reference_systems_are_followed() {
        let utm = Crs::from_epsg(32633).unwrap();
        let area = Area::new(&[vec![square(400_000.0, 4_000_000.0, 300_000.0)]], &utm).unwrap();
        // 36.14° to 38.85° at 13.9° to 17.3° East; its borders bend.
        assert_eq!(area.coverage(&footprint(15, 37)), Coverage::Inside);
        assert_eq!(area.coverage(&footprint(13, 37)), Coverage::Partly);
        assert_eq!(area.coverage(&footprint(15, 40)), Coverage::Outside);
        assert!(area.edges.size() > 16, "{}", area.edges.size());
    }

    #[test]
    fn what_lies_nowhere_is_refused() {
        let crs = Crs::crs84().unwrap();
        for point in [(400_000.0, 4_000_000.0), (0.0, 91.0), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert!(Area::new(&[vec![vec![(0.0, 0.0), point, (1.0, 1.0)]]], &crs).is_err(), "{point:?}");
        }
    }

    #[test]
    fn many_polygons_and_many_footprints_are_quick() {
        let polygons: Vec<Vec<Ring>> = (0..10_000)
            .map(|at| vec![square(f64::from(at % 100) * 3.0 - 150.0, f64::from(at / 100) * 1.5 - 75.0, 0.7)])
            .collect();
        let area = area(&polygons);
        let start = std::time::Instant::now();
        let met =
            (0..30_000).filter(|at| area.coverage(&footprint(at % 300 - 150, at / 300 - 50)) != Coverage::Outside);
        assert!(met.count() > 5_000);
        assert!(start.elapsed().as_secs_f64() < 5.0, "{:?}", start.elapsed());
    }
}
