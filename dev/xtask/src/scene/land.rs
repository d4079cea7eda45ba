//! The land of the sample scene: a river with meadows and gravel, fields, vineyards and orchards, woods, a village, a
//! farm, a gravel pit and a field of solar panels. The sun stands in the north-west.
//!
//! Sizes are in pixels of 0.6 m.

use dinov3_picture::RgbPicture;

use super::SIDE_PX;
use crate::samples::aerial::{Tree, house, paint_trees, vehicle};
use crate::samples::canvas::{
    Canvas, Colour, Dice, Path, Point, between, clouds, direction, inside, length, lit, mix, noise, scatter, smooth,
    to_ellipse, to_line, to_rectangle, turned, wave, web,
};

const SIDE: f32 = SIDE_PX as f32;

/// How a field looks from above.
struct Crop {
    ground: Colour,
    rows: Colour,
    /// Distance of the rows; what is sown closer than two pixels shows as its swaths.
    spacing: f32,
    strength: f32,
    /// How much damp and dry, thin and dense patches show.
    patches: f32,
    /// Whether a tractor drives through it on tracks of its own.
    tramlines: bool,
}

const fn crop(ground: u32, rows: u32, spacing: f32, strength: f32, patches: f32, tramlines: bool) -> Crop {
    Crop { ground: web(ground), rows: web(rows), spacing, strength, patches, tramlines }
}

const STUBBLE: usize = 0;
const VINEYARD: usize = 10;
const ORCHARD: usize = 11;
const PANELS: usize = 12;

const CROPS: [Crop; 13] = [
    crop(0xd9c69a, 0xbfa878, 13.0, 0.45, 0.35, false), // stubble, in swaths
    crop(0xcbb176, 0xb59a5f, 7.0, 0.20, 0.45, true),   // ripe wheat
    crop(0xb99c78, 0xa78a66, 5.0, 0.35, 0.90, false),  // bare loess, harrowed
    crop(0x84664b, 0x6c523b, 6.0, 0.55, 0.80, false),  // ploughed
    crop(0x7d9149, 0x6c8440, 5.0, 0.25, 0.60, true),   // winter crop, young
    crop(0x4a6330, 0x3a4f26, 3.5, 0.50, 0.40, false),  // maize
    crop(0x87925a, 0x7a8750, 18.0, 0.22, 0.55, false), // meadow, mown
    crop(0xa99b69, 0x978a59, 22.0, 0.15, 0.80, false), // dry pasture
    crop(0x5d7a3b, 0x4c6931, 4.0, 0.35, 0.50, true),   // beet
    crop(0xe0d2ad, 0xcfbd92, 15.0, 0.35, 0.40, false), // straw left lying
    crop(0xa48f68, 0x55683a, 4.4, 0.85, 0.40, false),  // vines
    crop(0x8f945f, 0x838a56, 9.0, 0.25, 0.50, false),  // grass below fruit trees
    crop(0x8b9060, 0x7c8455, 12.0, 0.20, 0.50, false), // grass below panels
];

/// How often each crop is sown, of the first ten and vineyards.
const SOWN: [usize; 20] = [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 8, 9, 9, 10];

/// A rectangle of land, in the coordinates of the land survey.
struct Parcel {
    from: Point,
    to: Point,
    crop: usize,
    seed: u32,
}

/// Divides land until the parcels are of the size of fields.
fn divide(from: Point, to: Point, depth: u32, dice: &mut Dice, parcels: &mut Vec<Parcel>) {
    let size = between(from, to);
    let small = size[0] * size[1] < dice.between(32_000.0, 110_000.0);
    if depth > 10 || (small && size[0].max(size[1]) < 520.0) {
        let crop = dice.pick(&SOWN);
        parcels.push(Parcel { from, to, crop, seed: parcels.len() as u32 });
        return;
    }
    let axis = usize::from(size[1] > size[0] * dice.between(0.65, 1.5));
    let cut = from[axis] + size[axis] * dice.between(0.3, 0.7);
    let (mut first_to, mut second_from) = (to, from);
    (first_to[axis], second_from[axis]) = (cut, cut);
    divide(from, first_to, depth + 1, dice, parcels);
    divide(second_from, to, depth + 1, dice, parcels);
}

/// The nearest of some paths.
#[derive(Clone, Copy)]
struct Place {
    /// Distance to the path's edge; negative on it.
    to_edge: f32,
    /// How far along the path.
    along: f32,
    path: usize,
    /// On which side.
    left: bool,
}

const NOWHERE: Place = Place { to_edge: f32::MAX, along: 0.0, path: 0, left: false };

/// Paths of some width, and the nearest of them for every pixel that is near.
struct Paths {
    paths: Vec<(Path, f32)>,
    places: Vec<Place>,
}

impl Paths {
    /// Pixels up to `reach` from a path know it.
    fn new(paths: Vec<(Path, f32)>, reach: f32) -> Self {
        let mut places = vec![NOWHERE; SIDE_PX * SIDE_PX];
        for (number, (path, half_width)) in paths.iter().enumerate() {
            let mut travelled = 0.0;
            for pair in path.0.windows(2) {
                let line = between(pair[0], pair[1]);
                let range = |axis: usize| {
                    let (low, high) = (pair[0][axis].min(pair[1][axis]), pair[0][axis].max(pair[1][axis]));
                    ((low - reach).clamp(0.0, SIDE) as usize)..((high + reach).ceil().clamp(0.0, SIDE) as usize)
                };
                for y in range(1) {
                    for x in range(0) {
                        let point = [x as f32 + 0.5, y as f32 + 0.5];
                        let (distance, part) = to_line(point, pair[0], pair[1]);
                        let place = &mut places[y * SIDE_PX + x];
                        if distance - half_width < place.to_edge {
                            let [u, v] = between(pair[0], point);
                            *place = Place {
                                to_edge: distance - half_width,
                                along: travelled + part * length(line),
                                path: number,
                                left: line[0] * v - line[1] * u < 0.0,
                            };
                        }
                    }
                }
                travelled += length(line);
            }
        }
        Self { paths, places }
    }

    /// Nowhere where no path is near, and outside of the scene.
    fn at(&self, point: Point) -> Place {
        match point.iter().all(|value| (0.0..SIDE).contains(value)) {
            true => self.places[point[1] as usize * SIDE_PX + point[0] as usize],
            false => NOWHERE,
        }
    }
}

struct Land {
    along: Point,
    parcels: Vec<Parcel>,
    /// Parcels that reach into each square of the land survey, row by row.
    squares: Vec<Vec<usize>>,
    /// One path, of no width.
    river: Paths,
    roads: Paths,
    /// Of each road.
    surfaces: Vec<Colour>,
}

/// The land survey goes from -REACH to REACH, in squares.
const REACH: f32 = 1600.0;
const SQUARE: f32 = 100.0;
const SQUARES: usize = 32;

/// Middle of the village.
const VILLAGE: Point = [1330.0, 690.0];
const PIT: Point = [1835.0, 1440.0];
const FARM: Point = [420.0, 1480.0];

impl Land {
    fn survey() -> Self {
        let mut dice = Dice::new(7);
        let mut parcels = Vec::new();
        divide([-REACH, -REACH], [REACH, REACH], 0, &mut dice, &mut parcels);
        let squares = (0..SQUARES * SQUARES).map(|square| {
            let from = [square % SQUARES, square / SQUARES].map(|index| index as f32 * SQUARE - REACH);
            let meets = |parcel: &Parcel| {
                (0..2).all(|axis| parcel.from[axis] < from[axis] + SQUARE && parcel.to[axis] > from[axis])
            };
            (0..parcels.len()).filter(|&index| meets(&parcels[index])).collect()
        });
        let squares = squares.collect();
        let river = Path::through(&[
            [690.0, -160.0],
            [720.0, 40.0],
            [640.0, 230.0],
            [760.0, 410.0],
            [905.0, 560.0],
            [860.0, 760.0],
            [700.0, 890.0],
            [690.0, 1080.0],
            [860.0, 1210.0],
            [1080.0, 1260.0],
            [1210.0, 1420.0],
            [1160.0, 1620.0],
            [1230.0, 1830.0],
            [1400.0, 1960.0],
            [1500.0, 2200.0],
        ]);
        let road = |points: &[Point], half_width: f32, surface: u32| (Path::through(points), half_width, web(surface));
        let roads = vec![
            // The main road first: it has the bridge and the cars.
            road(
                &[
                    [-80.0, 905.0],
                    [220.0, 860.0],
                    [520.0, 760.0],
                    [870.0, 690.0],
                    [1180.0, 700.0],
                    [1460.0, 640.0],
                    [1760.0, 480.0],
                    [2140.0, 400.0],
                ],
                6.2,
                0x9a9894,
            ),
            road(&[[1270.0, -60.0], [1250.0, 160.0], [1300.0, 380.0], [1295.0, 560.0], [1310.0, 690.0]], 4.6, 0xa5a29c),
            road(
                &[
                    [1310.0, 690.0],
                    [1350.0, 860.0],
                    [1480.0, 1060.0],
                    [1540.0, 1300.0],
                    [1640.0, 1480.0],
                    [1800.0, 1760.0],
                    [1830.0, 2120.0],
                ],
                4.6,
                0xa5a29c,
            ),
            // Streets of the village.
            road(&[[1150.0, 560.0], [1300.0, 550.0], [1440.0, 530.0], [1570.0, 560.0], [1625.0, 548.0]], 3.6, 0xaaa69e),
            road(&[[1110.0, 800.0], [1220.0, 815.0], [1340.0, 830.0], [1470.0, 800.0], [1580.0, 740.0]], 3.6, 0xaaa69e),
            road(&[[1185.0, 470.0], [1170.0, 580.0], [1182.0, 700.0], [1160.0, 806.0]], 3.4, 0xaaa69e),
            road(&[[1445.0, 400.0], [1440.0, 530.0], [1458.0, 640.0], [1470.0, 800.0], [1450.0, 930.0]], 3.4, 0xaaa69e),
            // Tracks of earth.
            road(&[[220.0, 860.0], [290.0, 1090.0], [400.0, 1330.0], [430.0, 1500.0], [380.0, 2110.0]], 3.0, 0xc3ae86),
            road(&[[-40.0, 330.0], [180.0, 380.0], [400.0, 330.0], [560.0, 420.0], [520.0, 760.0]], 2.6, 0xc7b48f),
            road(&[[1540.0, 1300.0], [1760.0, 1240.0], [2120.0, 1290.0]], 2.6, 0xc7b48f),
            road(&[[430.0, 1500.0], [700.0, 1560.0], [960.0, 1690.0], [1010.0, 2110.0]], 2.6, 0xc7b48f),
            road(&[[1250.0, 160.0], [1560.0, 210.0], [1810.0, 130.0], [2110.0, 170.0]], 2.6, 0xc7b48f),
        ];
        let surfaces = roads.iter().map(|&(_, _, surface)| surface).collect();
        let roads = roads.into_iter().map(|(path, half_width, _)| (path, half_width)).collect();
        let mut land = Self {
            along: direction([0.93, 0.37]),
            parcels,
            squares,
            river: Paths::new(vec![(river, 0.0)], 190.0),
            roads: Paths::new(roads, 36.0),
            surfaces,
        };
        land.give(ORCHARD, [[1000.0, 330.0], [1660.0, 900.0], [300.0, 1640.0]]);
        land.give(VINEYARD, [[1790.0, 740.0], [1940.0, 860.0], [1560.0, 1120.0]]);
        land.give(PANELS, [[150.0, 1700.0], [1680.0, 330.0], [1900.0, 1120.0]]);
        land
    }

    /// What is grown on the parcels at these places.
    fn give<const N: usize>(&mut self, crop: usize, places: [Point; N]) {
        for at in places {
            let place = self.place(at);
            if let Some(index) = self.parcels.iter().position(|parcel| holds(parcel, place)) {
                self.parcels[index].crop = crop;
            }
        }
    }

    /// Coordinates of the land survey. Boundaries bend a little, and turn with the valley.
    fn place(&self, point: Point) -> Point {
        let bent = [0, 1].map(|axis| {
            point[axis]
                + 60.0 * noise(point[0] / 700.0, point[1] / 700.0, 3 + axis as u32)
                + 9.0 * noise(point[0] / 150.0, point[1] / 150.0, 1 + axis as u32)
        });
        turned(bent, [SIDE / 2.0, SIDE / 2.0], self.along)
    }

    fn parcel(&self, place: Point) -> Option<&Parcel> {
        let [column, row] = place.map(|value| ((value + REACH) / SQUARE).floor());
        let inside = [column, row].iter().all(|index| (0.0..SQUARES as f32).contains(index));
        let square = self.squares.get(inside.then(|| row as usize * SQUARES + column as usize)?)?;
        square.iter().map(|&index| &self.parcels[index]).find(|parcel| holds(parcel, place))
    }

    fn half_river(&self, along: f32) -> f32 {
        33.0 + 9.0 * noise(along / 130.0, 0.5, 31) + along / 400.0
    }

    /// Distance to the nearest road's edge.
    fn to_road(&self, point: Point) -> f32 {
        self.roads.at(point).to_edge
    }

    /// Distance to the middle of the river.
    fn to_river(&self, point: Point) -> f32 {
        self.river.at(point).to_edge
    }

    /// Below 0 in the woods.
    fn to_wood(&self, point: Point) -> f32 {
        let ragged = 95.0 * clouds(point[0] / 210.0, point[1] / 210.0, 4, 61);
        let wood =
            |at: Point, half_width: f32, half_height: f32| to_ellipse(between(at, point), half_width, half_height);
        let woods = [
            wood([215.0, 130.0], 350.0, 190.0),
            wood([1985.0, 1880.0], 300.0, 260.0),
            wood([60.0, 1230.0], 170.0, 230.0),
            wood([690.0, 1930.0], 250.0, 150.0),
            wood([1990.0, 40.0], 190.0, 130.0),
        ];
        woods.into_iter().fold(f32::MAX, f32::min) + ragged
    }

    /// Below 0 in the gravel pit.
    fn to_pit(&self, point: Point) -> f32 {
        let bent = 22.0 * noise(point[0] / 60.0, point[1] / 60.0, 81);
        to_ellipse(turned(point, PIT, direction([0.9, -0.43])), 150.0, 92.0) + bent
    }

    /// Below 0 between the houses.
    fn to_village(&self, point: Point) -> f32 {
        let bent = 40.0 * noise(point[0] / 110.0, point[1] / 110.0, 83);
        to_ellipse(between(VILLAGE, point), 285.0, 245.0) + bent
    }
}

fn holds(parcel: &Parcel, place: Point) -> bool {
    (0..2).all(|axis| (parcel.from[axis]..parcel.to[axis]).contains(&place[axis]))
}

fn to_edge(parcel: &Parcel, place: Point) -> f32 {
    (0..2).map(|axis| (place[axis] - parcel.from[axis]).min(parcel.to[axis] - place[axis])).fold(f32::MAX, f32::min)
}

/// A number along a parcel's rows, one across them, and the distance to the nearer end of the rows.
fn rows_of(parcel: &Parcel, place: Point) -> (f32, f32, f32) {
    let size = between(parcel.from, parcel.to);
    let long = usize::from(size[1] > size[0]);
    let ends = (place[long] - parcel.from[long]).min(parcel.to[long] - place[long]);
    (place[long], place[1 - long], ends)
}

/// Fine noise from about -1 to 1. Two lattices, turned against the pixels, so that neither is seen.
fn grain([x, y]: Point, size: f32, seed: u32) -> f32 {
    let one = noise((0.80 * x + 0.60 * y) / size, (0.80 * y - 0.60 * x) / size, seed);
    let other = noise((0.39 * x - 0.92 * y) / (0.7 * size), (0.39 * y + 0.92 * x) / (0.7 * size), seed + 1000);
    0.75 * one + 0.6 * other
}

fn field(parcel: &Parcel, place: Point, point: Point) -> Colour {
    let crop = &CROPS[parcel.crop];
    let seed = parcel.seed;
    let (along, across, ends) = rows_of(parcel, place);
    // The headland at both ends is worked across.
    let headland = ends < 20.0 && !matches!(parcel.crop, VINEYARD | ORCHARD | PANELS);
    let across = if headland { along } else { across };
    let drift = 0.9 * noise(point[0] / 55.0, point[1] / 55.0, seed + 40);
    let line = (across + drift) / crop.spacing;
    // No two rows are alike, and no row is the same all along.
    let row = line.floor() as i32;
    let uneven = scatter(row, seed as i32, 45) - 0.5 + 0.8 * noise(along / 60.0, row as f32 * 3.7, seed + 46);
    let gap = if ends < 9.0 && matches!(parcel.crop, VINEYARD) { 0.0 } else { 1.0 };
    let rows = (0.5 + 0.5 * wave(line) + 0.30 * uneven).clamp(0.0, 1.2) * gap;
    let mut colour = mix(crop.ground, crop.rows, crop.strength * rows);
    if crop.tramlines && !headland {
        let track = across - (across / 40.0).floor() * 40.0;
        let wheel = smooth(1.6, 0.6, (track - 18.0).abs()) + smooth(1.6, 0.6, (track - 21.4).abs());
        colour = mix(colour, mix(crop.rows, web(0xa58c65), 0.6), 0.6 * wheel);
    }
    // Soil shows through: ridges dry and bright, hollows damp and dense.
    let soil = clouds(point[0] / 230.0, point[1] / 230.0, 5, 21);
    let own = clouds(point[0] / 95.0, point[1] / 95.0, 4, seed + 300);
    let patch = (0.65 * soil + 0.75 * own) * crop.patches;
    colour = lit(colour, 1.0 + 0.42 * patch);
    colour = mix(colour, web(0xc9b48c), (0.35 * smooth(0.12, 0.5, patch)).min(0.3));
    // The tone of this field, and the grain of what grows.
    let tone = 0.90 + 0.20 * scatter(seed as i32, 3, 8);
    let grain = 0.045 * grain(point, 2.3, seed + 9) + 0.035 * grain(point, 6.1, 10);
    lit(colour, tone + grain)
}

/// Ground between the houses: what one family has.
struct Plot {
    middle: Point,
    /// Distance to the neighbour's.
    border: f32,
    kind: f32,
}

impl Plot {
    /// The plot whose middle is nearest.
    fn at(point: Point) -> Self {
        const SIZE: f32 = 31.0;
        let [column, row] = point.map(|value| (value / SIZE).floor() as i32);
        let (mut nearest, mut second) = (f32::MAX, f32::MAX);
        let mut plot = Self { middle: point, border: 0.0, kind: 0.0 };
        for (x, y) in (-2..=2).flat_map(|y| (-2..=2).map(move |x| (column + x, row + y))) {
            let middle =
                [x as f32 + 0.9 * scatter(x, y, 51), y as f32 + 0.9 * scatter(x, y, 52)].map(|cell| cell * SIZE);
            let distance = length(between(middle, point));
            if distance < nearest {
                (nearest, second) = (distance, nearest);
                plot = Self { middle, border: 0.0, kind: scatter(x, y, 53) };
            } else {
                second = second.min(distance);
            }
        }
        plot.border = (second - nearest) / 2.0;
        plot
    }

    /// Lawns, beds, yards, and a hedge or fence around.
    fn paint(&self, point: Point) -> Colour {
        const LAWNS: [Colour; 6] =
            [web(0x7b8f53), web(0x8d9a61), web(0x6b7f49), web(0x97986a), web(0xaaa184), web(0x83935a)];
        let lawn = LAWNS[((self.kind * 6.0) as usize).min(5)];
        let bed = smooth(0.25, 0.45, noise(point[0] / 13.0, point[1] / 13.0, 54));
        let ground = mix(lawn, web(0x8f7c5c), 0.55 * bed);
        let uneven = 0.09 * grain(point, 4.0, 52) + 0.12 * clouds(point[0] / 17.0, point[1] / 17.0, 3, 53);
        let hedge = smooth(1.9, 0.9, self.border) * smooth(0.2, 0.4, (self.kind * 7.0).fract());
        mix(lit(ground, 0.98 + uneven), lit(web(0x566a3a), 1.0 + 2.0 * uneven), 0.8 * hedge)
    }
}

/// The scene.
pub fn paint() -> RgbPicture {
    let land = Land::survey();
    let mut canvas = Canvas::with_samples(SIDE_PX, SIDE_PX, 1);
    paint_ground(&mut canvas, &land);
    paint_roads(&mut canvas, &land);
    let mut dice = Dice::new(23);
    let built = paint_buildings(&mut canvas, &land, &mut dice);
    let trees = trees(&land, &built, &mut dice);
    paint_trees(&mut canvas, &trees);
    paint_traffic(&mut canvas, &land);
    finish(&mut canvas);
    canvas.finish()
}

fn paint_ground(canvas: &mut Canvas, land: &Land) {
    canvas.fill(|point, _| {
        let place = land.place(point);
        let Some(parcel) = land.parcel(place) else { return CROPS[STUBBLE].ground };
        let edge = to_edge(parcel, place);
        // Margins: grass, or the track on which one drives along.
        let rough = mix(web(0x7c8650), web(0xaea070), smooth(-0.3, 0.5, noise(place[0] / 90.0, place[1] / 90.0, 5)));
        let rough = lit(rough, 1.0 + 0.12 * grain(point, 3.0, 6));
        let driven = smooth(0.0, 0.15, noise(place[0] / 420.0, place[1] / 420.0, 7));
        let wheels = smooth(1.7, 0.7, (edge - 1.9).abs()) * driven;
        let margin = mix(rough, web(0xcdbb95), 0.85 * wheels);
        let ragged = edge + 0.8 * grain(point, 5.0, 4);
        let mut colour = mix(field(parcel, place, point), margin, smooth(5.0, 3.6, ragged));
        if parcel.crop == PANELS {
            colour = panels(land, parcel, place, point, colour);
        }
        if land.to_village(point) < 60.0 {
            let plot = Plot::at(point);
            if land.to_village(plot.middle) < 0.0 {
                colour = plot.paint(point);
            }
        }
        let pit = land.to_pit(point);
        if pit < 24.0 {
            colour = mix(colour, gravel(point, pit), smooth(3.0, -2.0, pit));
        }

        let wood = land.to_wood(point);
        let floor = lit(web(0x4c5430), 1.0 + 0.25 * grain(point, 5.0, 12));
        let fringe = lit(web(0x77804c), 1.0 + 0.15 * grain(point, 4.0, 13));
        colour = mix(colour, fringe, smooth(16.0, 8.0, wood));
        colour = mix(colour, floor, smooth(4.0, -4.0, wood));
        river(land, point, colour)
    });
}

/// Steps of gravel down to a pond.
fn gravel(point: Point, pit: f32) -> Colour {
    let depth = -pit + 9.0 * noise(point[0] / 34.0, point[1] / 34.0, 85);
    let step = (depth / 15.0).floor();
    let ramp = depth / 15.0 - step;
    let shade = 0.94 + 0.10 * scatter(step as i32, 4, 86) - 0.28 * smooth(0.16, 0.02, ramp);
    let stones = 0.10 * grain(point, 3.2, 87) + 0.12 * clouds(point[0] / 40.0, point[1] / 40.0, 3, 88);
    let ground =
        lit(mix(web(0xd8c7a6), web(0xbfa682), 0.5 + 0.5 * noise(point[0] / 50.0, point[1] / 50.0, 89)), shade + stones);
    let pond = mix(web(0x7fa39a), web(0x3f6f72), smooth(0.0, 26.0, depth - 52.0));
    mix(mix(ground, web(0xa38f6d), smooth(-5.0, 0.0, depth - 52.0)), pond, smooth(-1.0, 1.0, depth - 52.0))
}

fn river(land: &Land, point: Point, below: Colour) -> Colour {
    let Place { to_edge: distance, along, left, .. } = land.river.at(point);
    if distance > 180.0 {
        return below;
    }
    let width = land.half_river(along);
    let ragged = distance
        + 3.0 * noise(point[0] / 13.0, point[1] / 13.0, 33)
        + 7.0 * noise(point[0] / 50.0, point[1] / 50.0, 34);
    let meadow = mix(web(0x65793f), web(0x8b935a), 0.5 + 0.5 * clouds(point[0] / 30.0, point[1] / 30.0, 3, 35));
    let meadow = lit(meadow, 1.0 + 0.10 * grain(point, 3.0, 37));
    let flood = width + 46.0 + 30.0 * noise(along / 110.0, 1.0, 36);
    let mut colour = mix(below, meadow, smooth(flood + 8.0, flood - 8.0, ragged));
    // Gravel banks where the water is slow.
    let bank = width + 20.0 * smooth(0.05, 0.7, noise(along / 95.0, if left { 3.0 } else { 9.0 }, 39)) + 2.5;
    let stones = lit(web(0xcbbc98), 1.0 + 0.12 * grain(point, 2.7, 40));
    colour = mix(colour, stones, smooth(bank + 2.0, bank - 1.5, ragged));
    let depth = smooth(width, width * 0.25, distance);
    let ripple =
        0.05 * noise(point[0] / 9.0, point[1] / 5.0, 38) + 0.05 * clouds(point[0] / 40.0, point[1] / 40.0, 3, 42);
    let water = lit(mix(web(0x77836a), web(0x36504e), depth), 1.0 + ripple);
    mix(colour, water, smooth(1.2, -1.2, ragged - width))
}

fn paint_roads(canvas: &mut Canvas, land: &Land) {
    canvas.fill(|point, below| {
        let Place { to_edge, along, path, .. } = land.roads.at(point);
        if to_edge > 7.0 {
            return below;
        }
        let half = land.roads.paths[path].1;
        let distance = to_edge + half;
        let verge = mix(below, web(0x9a9a68), 0.8 * smooth(5.0, 1.5, to_edge));
        let worn = 0.06 * grain(point, 5.0, 44) + 0.05 * noise(along / 30.0, 2.0, 43);
        let mut surface = lit(land.surfaces[path], 1.0 + worn);
        if half < 3.2 {
            // A track of earth: grass between the wheels.
            let middle = smooth(1.1, 0.4, distance) * smooth(-0.3, 0.3, noise(along / 50.0, half, 45));
            surface = mix(surface, web(0x8c9160), 0.75 * middle);
        }
        let edge = if half > 4.0 { 0.5 * smooth(0.7, 0.3, (to_edge + 1.0).abs()) } else { 0.0 };
        let dashes = if half > 6.0 && wave(along / 20.0) > 0.0 { 0.8 * smooth(0.75, 0.3, distance) } else { 0.0 };
        let marked = mix(surface, web(0xe9e7dd), edge.max(dashes));
        mix(verge, marked, inside(to_edge))
    });
    paint_bridge(canvas, land);
}

/// Railings beside the road where the river passes below, and their shadow on the water.
fn paint_bridge(canvas: &mut Canvas, land: &Land) {
    for (point, along) in land.roads.paths[0].0.walk(1.0) {
        let Place { to_edge: distance, along: place, .. } = land.river.at(point);
        if distance > land.half_river(place) + 14.0 {
            continue;
        }
        for side in [-1.0, 1.0] {
            let rail = [point[0] - along[1] * side * 8.0, point[1] + along[0] * side * 8.0];
            if side > 0.0 {
                let fall = [rail[0] + 2.0, rail[1] + 4.5];
                canvas.shadow(fall, 6.0, 0.30, 1.0, |p| length(between(fall, p)) - 3.4);
            }
            canvas.shape(rail, 3.0, web(0xd3cec0), |p| length(between(rail, p)) - 1.3);
        }
    }
}

/// A building: middle, direction of the ridge, half length, half width.
type Building = (Point, Point, f32, f32);

fn paint_buildings(canvas: &mut Canvas, land: &Land, dice: &mut Dice) -> Vec<Building> {
    let mut built: Vec<Building> = Vec::new();
    let mut homes = Vec::new();
    for (path, half_width) in land.roads.paths.iter().take(7) {
        for (point, along) in path.walk(29.0) {
            for side in [-1.0, 1.0] {
                for back in [24.0, 58.0] {
                    if land.to_village(point) > -8.0 || dice.next() < if back > 30.0 { 0.62 } else { 0.10 } {
                        continue;
                    }
                    let off = side * (back + half_width + dice.between(-4.0, 5.0));
                    let slide = dice.between(-5.0, 5.0);
                    let at =
                        [point[0] - along[1] * off + along[0] * slide, point[1] + along[0] * off + along[1] * slide];
                    let (half_long, half_short) = (dice.between(8.5, 13.5), dice.between(6.2, 8.0));
                    let facing = if dice.next() < 0.35 { [-along[1], along[0]] } else { along };
                    let free =
                        built.iter().all(|(other, _, reach, _)| length(between(*other, at)) > reach + half_long + 5.0);
                    if free
                        && land.to_road(at) > half_long + 3.0
                        && land.to_river(at) > 120.0
                        && land.to_wood(at) > 30.0
                    {
                        built.push((at, facing, half_long, half_short));
                        homes.push(built.len() - 1);
                    }
                }
            }
        }
    }
    // Yards, drives and sheds first, so that shadows fall on them.
    for &index in &homes {
        let (at, facing, half_long, half_short) = built[index];
        let yard = dice.pick(&[web(0xc2b8a2), web(0xaea79a), web(0x93a065), web(0xb5a98c)]);
        let to = [at[0] + facing[0] * half_long * 0.4, at[1] + facing[1] * half_long * 0.4];
        canvas.paint(to, 34.0, |point, _| {
            let ragged = 2.0 * grain(point, 5.0, 56);
            let distance = to_rectangle(turned(point, to, facing), half_long + 4.0, half_short + 5.5, 2.0) + ragged;
            Some((lit(yard, 1.0 + 0.06 * grain(point, 3.0, 57)), 0.85 * inside(distance)))
        });
        if dice.next() < 0.14 {
            let pool = [at[0] - facing[1] * (half_short + 11.0), at[1] + facing[0] * (half_short + 11.0)];
            if land.to_road(pool) > 9.0 {
                canvas.shape(pool, 12.0, web(0xdcd8cc), |p| to_rectangle(turned(p, pool, facing), 6.4, 4.0, 1.0));
                canvas.shape(pool, 10.0, web(0x56b4c4), |p| to_rectangle(turned(p, pool, facing), 5.0, 2.8, 1.0));
            }
        }
    }
    for &index in &homes {
        let (at, facing, half_long, half_short) = built[index];
        let roof = dice.pick(&[
            web(0xb0604a),
            web(0x9c5241),
            web(0xbd7458),
            web(0x8a5446),
            web(0x77706c),
            web(0x5f5c5d),
            web(0xa8684f),
        ]);
        tall_house(canvas, at, facing, half_long, half_short, roof);
        if dice.next() < 0.45 {
            let side = dice.pick(&[-1.0, 1.0]);
            let shed = [
                at[0] + facing[0] * side * (half_long + 6.0) - facing[1] * 4.0,
                at[1] + facing[1] * side * (half_long + 6.0) + facing[0] * 4.0,
            ];
            if land.to_road(shed) > 8.0 {
                house(
                    canvas,
                    shed,
                    [-facing[1], facing[0]],
                    4.6,
                    3.4,
                    dice.pick(&[web(0x9b9791), web(0xa4634f), web(0x857c74)]),
                );
            }
        }
    }
    // The church: a nave and a tower with its long shadow.
    let nave = [1262.0, 636.0];
    let east = direction([0.98, 0.18]);
    canvas.shape(nave, 60.0, web(0xb9b09a), |p| to_rectangle(turned(p, nave, east), 36.0, 26.0, 10.0));
    tall_house(canvas, nave, east, 24.0, 9.5, web(0x7d4a3f));
    let tower = [nave[0] - 28.0 * east[0], nave[1] - 28.0 * east[1]];
    canvas.shadow(tower, 60.0, 0.75, 1.0, |p| to_line(p, tower, [tower[0] + 30.0, tower[1] + 30.0]).0 - 5.0);
    canvas.shape(tower, 12.0, web(0xd8cfbb), |p| to_rectangle(turned(p, tower, east), 6.5, 6.5, 0.5));
    canvas.shape(tower, 9.0, web(0x5d7f73), |p| to_rectangle(turned(p, tower, east), 4.4, 4.4, 2.0));
    built.push((nave, east, 36.0, 26.0));

    // The farm and its halls.
    canvas.paint(FARM, 130.0, |point, _| {
        let ragged = 6.0 * noise(point[0] / 14.0, point[1] / 14.0, 55);
        let ground = lit(web(0xb9ab8c), 1.0 + 0.09 * grain(point, 4.0, 58));
        Some((ground, smooth(2.0, -2.0, to_rectangle(turned(point, FARM, land.along), 92.0, 62.0, 12.0) + ragged)))
    });
    for (u, v, half_long, half_short, roof, across) in [
        (-44.0, -28.0, 40.0, 14.0, web(0xa3a7a8), false),
        (-40.0, 24.0, 36.0, 13.0, web(0x8f6a5a), false),
        (52.0, -22.0, 24.0, 12.0, web(0xbcbab4), true),
        (50.0, 34.0, 15.0, 9.0, web(0xa85a45), false),
    ] {
        let [a, b] = land.along;
        let at = [FARM[0] + a * u - b * v, FARM[1] + b * u + a * v];
        let facing = if across { [-b, a] } else { land.along };
        tall_house(canvas, at, facing, half_long, half_short, roof);
        built.push((at, facing, half_long + 14.0, half_short + 14.0));
    }
    built
}

/// A house with the shadow of its height: six metres.
fn tall_house(canvas: &mut Canvas, at: Point, facing: Point, half_long: f32, half_short: f32, roof: Colour) {
    canvas.shadow(at, half_long + half_short + 12.0, 0.7, 0.8, |point| {
        (0..8)
            .map(|step| {
                let moved = [point[0] - step as f32, point[1] - step as f32];
                to_rectangle(turned(moved, at, facing), half_long - 0.5, half_short - 0.5, 0.5)
            })
            .fold(f32::MAX, f32::min)
    });
    house(canvas, at, facing, half_long, half_short, roof);
}

/// Rows of solar panels, on their grass and behind their fence.
fn panels(land: &Land, parcel: &Parcel, place: Point, point: Point, below: Colour) -> Colour {
    const PITCH: f32 = 12.0;
    let edge = to_edge(parcel, place);
    let (along, across, ends) = rows_of(parcel, place);
    let below = mix(below, web(0xb9b39a), 0.6 * smooth(0.9, 0.3, (edge - 9.0).abs()));
    let lane = along - (along / 160.0).floor() * 160.0;
    let taken = land.to_road(point) < 14.0 || land.to_wood(point) < 10.0 || land.to_river(point) < 150.0;
    if edge < 17.0 || ends < 20.0 || lane < 11.0 || taken {
        return below;
    }
    let within = across - (across / PITCH).floor() * PITCH;
    let shade = mix(below, lit(below, 0.42), smooth(0.6, -0.6, (within - 8.2).abs() - 1.6));
    let frame = 0.25 * smooth(0.5, 0.1, (along / 9.0 - (along / 9.0).floor() - 0.5).abs() * 9.0 - 4.1);
    let glass = mix(web(0x35435c), web(0x586a88), 0.3 * within / 7.0 + frame);
    let glass = lit(glass, 1.0 + 0.12 * (scatter((along / 9.0) as i32, (across / PITCH) as i32, 97) - 0.5));
    mix(shade, glass, smooth(0.5, -0.5, (within - 3.6).abs() - 3.2))
}

fn trees(land: &Land, built: &[Building], dice: &mut Dice) -> Vec<Tree> {
    let mut trees: Vec<Tree> = Vec::new();
    let open = |at: Point, radius: f32| {
        land.to_road(at) > radius + 1.5
            && built.iter().all(|(other, _, reach, short)| length(between(*other, at)) > 0.7 * (reach + short) + radius)
            && land.to_pit(at) > 4.0
    };
    // Woods: a grid that nobody sees, old and young stands, conifers among them.
    for row in 0..200 {
        for column in 0..200 {
            let at = [
                10.4 * column as f32 + 9.0 * scatter(column, row, 63),
                10.4 * row as f32 + 9.0 * scatter(column, row, 64),
            ];
            let stand = noise(at[0] / 130.0, at[1] / 130.0, 66);
            let radius = 5.2 + 3.6 * scatter(column, row, 65) + 1.4 * stand;
            let Place { to_edge: river, along, .. } = land.river.at(at);
            if land.to_wood(at) < -2.0 && river > land.half_river(along) + radius + 4.0 && open(at, radius) {
                let dry =
                    0.16 * scatter(column, row, 67) + 0.26 * smooth(0.0, 0.6, noise(at[0] / 90.0, at[1] / 90.0, 68));
                trees.push(Tree { at, radius, dry, seed: (row * 256 + column) as u32 });
            }
        }
    }
    // The river's gallery.
    for (point, along) in land.river.paths[0].0.walk(6.0) {
        for side in [-1.0, 1.0] {
            let place = land.river.at(point).along;
            let dense = 0.45 + 0.45 * noise(place / 80.0, side, 78);
            for _ in 0..3 {
                let off = side * (land.half_river(place) + dice.between(8.0, 52.0));
                let at = [point[0] - along[1] * off, point[1] + along[0] * off];
                let radius = dice.between(3.2, 8.2);
                let Place { to_edge: distance, along: near, .. } = land.river.at(at);
                if dice.next() < dense && open(at, radius) && distance > land.half_river(near) + radius + 3.0 {
                    trees.push(Tree { at, radius, dry: dice.between(0.0, 0.35), seed: trees.len() as u32 });
                }
            }
        }
    }
    // Hedges on some boundaries, and orchards.
    for row in 0..410 {
        for column in 0..410 {
            let jitter = [scatter(column, row, 71), scatter(column, row, 72)];
            let at = [5.0 * column as f32 + 3.0 * jitter[0], 5.0 * row as f32 + 3.0 * jitter[1]];
            let place = land.place(at);
            let Some(parcel) = land.parcel(place) else { continue };
            let hedged = noise(place[0] / 260.0, place[1] / 260.0, 73) > 0.22;
            let radius = 2.4 + 3.6 * scatter(column, row, 74) * scatter(row, column, 75);
            let clear = land.to_village(at) > 10.0 && land.to_wood(at) > 8.0 && land.to_river(at) > 130.0;
            if hedged && to_edge(parcel, place) < 2.6 && scatter(column, row, 76) < 0.8 && clear && open(at, radius) {
                trees.push(Tree {
                    at,
                    radius,
                    dry: 0.35 * scatter(column, row, 77),
                    seed: (row * 512 + column) as u32,
                });
            }
        }
    }
    for parcel in land.parcels.iter().filter(|parcel| parcel.crop == ORCHARD) {
        let size = between(parcel.from, parcel.to).map(|side| (side / 11.0) as i32);
        for row in 1..size[1] {
            for column in 1..size[0] {
                let place = [parcel.from[0] + 11.0 * column as f32, parcel.from[1] + 11.0 * row as f32];
                let Some(at) = unplaced(land, place) else { continue };
                let radius = 3.0 + 1.1 * scatter(column, row, 80);
                let clear = land.to_village(at) > 6.0 && land.to_wood(at) > 8.0 && land.to_river(at) > 120.0;
                if scatter(column, row, 79) < 0.93 && clear && open(at, radius) {
                    trees.push(Tree {
                        at,
                        radius,
                        dry: 0.2 * scatter(row, column, 82),
                        seed: (row * 97 + column) as u32,
                    });
                }
            }
        }
    }
    // Gardens.
    for (middle, facing, half_long, half_short) in built.iter().copied() {
        for _ in 0..4 {
            let (u, v) = (
                dice.between(-1.0, 1.0) * (half_long + 14.0),
                dice.pick(&[-1.0, 1.0]) * (half_short + dice.between(4.0, 18.0)),
            );
            let at = [middle[0] + facing[0] * u - facing[1] * v, middle[1] + facing[1] * u + facing[0] * v];
            let radius = dice.between(2.2, 5.4);
            if open(at, radius) {
                trees.push(Tree { at, radius, dry: dice.between(0.0, 0.35), seed: trees.len() as u32 });
            }
        }
    }
    trees
}

/// The pixel at a place of the land survey, if it is in the scene.
fn unplaced(land: &Land, place: Point) -> Option<Point> {
    let [a, b] = land.along;
    let mut at = [SIDE / 2.0 + a * place[0] - b * place[1], SIDE / 2.0 + b * place[0] + a * place[1]];
    for _ in 0..8 {
        let [u, v] = between(land.place(at), place);
        at = [at[0] + a * u - b * v, at[1] + b * u + a * v];
    }
    at.iter().all(|value| (0.0..SIDE).contains(value)).then_some(at)
}

fn paint_traffic(canvas: &mut Canvas, land: &Land) {
    for (number, (path, half_width)) in land.roads.paths.iter().take(3).enumerate() {
        for (index, (point, along)) in path.walk(if number == 0 { 67.0 } else { 173.0 }).into_iter().enumerate() {
            let index = index + number;
            let off = if index % 2 == 0 { 0.5 } else { -0.5 } * half_width;
            let slide = 40.0 * (scatter(index as i32, number as i32, 99) - 0.5);
            let at = [point[0] - along[1] * off + along[0] * slide, point[1] + along[0] * off + along[1] * slide];
            // Where the road bends, one would leave it.
            if land.to_road(at) > -0.2 * half_width {
                continue;
            }
            let paint = [web(0xf2f2ee), web(0xa83a33), web(0x31435c), web(0xd8d9da), web(0x3a3a3c)][index % 5];
            vehicle(canvas, at, along, if index % 7 == 3 { 9.0 } else { 3.7 }, paint);
        }
    }
}

/// The air between, the lie of the land, and the sensor: haze, relief, grain, tone.
fn finish(canvas: &mut Canvas) {
    /// Brings the scene to the mean and deviation of the SAT weights' pictures.
    const TONE: [(f32, f32); 3] = [(1.118, -0.185), (1.054, -0.163), (1.04, -0.131)];
    canvas.fill(|point, below| {
        let height = |x: f32, y: f32| clouds(x / 520.0, y / 520.0, 3, 15);
        let slope = height(point[0] + 24.0, point[1] + 24.0) - height(point[0] - 24.0, point[1] - 24.0);
        let relief = 1.0 + 0.55 * slope;
        let [column, row] = point.map(|value| value as i32);
        let grain = 0.022 * (scatter(column, row, 17) + scatter(column, row, 18) - 1.0);
        let hazy = mix(lit(below, relief + grain), [0.60, 0.63, 0.66], 0.05);
        let grey = 0.3 * hazy[0] + 0.6 * hazy[1] + 0.1 * hazy[2];
        let mut toned = mix(hazy, [grey; 3], 0.16);
        for (value, (gain, lift)) in toned.iter_mut().zip(TONE) {
            *value = gain * *value + lift;
        }
        toned
    });
}
