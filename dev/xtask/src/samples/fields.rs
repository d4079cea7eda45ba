//! Farmland from above: fields, a river, roads, a village, woods.

use super::aerial::{Tree, house, paint_trees, vehicle};
use super::canvas::{
    Canvas, Colour, Dice, Path, Point, between, clouds, direction, inside, length, lit, mix, noise, scatter, smooth,
    to_rectangle, turned, wave, web,
};
use dinov3_picture::RgbPicture;

const SIDE_PX: usize = 512;

/// How a field looks: colour, colour of its rows, distance of the rows in pixels, how strongly they show.
struct Crop(Colour, Colour, f32, f32);

const CROPS: [Crop; 8] = [
    Crop(web(0xc9b06a), web(0xa88f4e), 5.0, 0.45),  // ripe wheat
    Crop(web(0x7d9c46), web(0x5f8038), 4.5, 0.55),  // young green
    Crop(web(0x44662f), web(0x2f4d24), 5.5, 0.55),  // maize
    Crop(web(0x8a6a4c), web(0x6d523b), 4.0, 0.60),  // ploughed
    Crop(web(0xcdbd52), web(0xaaa043), 7.0, 0.30),  // rapeseed
    Crop(web(0x6d8b49), web(0x64803f), 11.0, 0.25), // meadow
    Crop(web(0xdccb96), web(0xbfae7a), 6.0, 0.40),  // stubble
    Crop(web(0x5b7d3c), web(0x7c9150), 8.0, 0.45),  // beet
];

/// The buildings of the farm: middle, half length and half width, roof.
const FARM: [(Point, f32, f32, Colour); 3] = [
    ([446.0, 224.0], 17.0, 7.0, web(0x9aa3a8)),
    ([470.0, 252.0], 13.0, 6.5, web(0x8f5a48)),
    ([428.0, 250.0], 8.0, 5.0, web(0xb4573c)),
];

/// A rectangle of land: in the turned coordinates, from, to.
#[derive(Clone, Copy)]
struct Parcel {
    from: Point,
    to: Point,
    number: usize,
}

/// Divides land until the parcels are of the size of fields.
fn divide(from: Point, to: Point, depth: u32, dice: &mut Dice, parcels: &mut Vec<Parcel>) {
    let size = between(from, to);
    let small = size[0] * size[1] < dice.between(6500.0, 17000.0);
    if depth > 7 || (small && size[0].max(size[1]) < 210.0) {
        parcels.push(Parcel { from, to, number: parcels.len() });
        return;
    }
    let axis = usize::from(size[1] > size[0] * dice.between(0.8, 1.25));
    let cut = from[axis] + size[axis] * dice.between(0.33, 0.67);
    let (mut first_to, mut second_from) = (to, from);
    (first_to[axis], second_from[axis]) = (cut, cut);
    divide(from, first_to, depth + 1, dice, parcels);
    divide(second_from, to, depth + 1, dice, parcels);
}

/// The scene.
pub fn paint() -> RgbPicture {
    let mut canvas = Canvas::new(SIDE_PX, SIDE_PX);
    let mut dice = Dice::new(11);
    let along = direction([0.94, 0.34]);
    let mut parcels = Vec::new();
    divide([-420.0, -420.0], [420.0, 420.0], 0, &mut dice, &mut parcels);
    let crops: Vec<usize> = parcels.iter().map(|_| (dice.next() * 7.99) as usize).collect();

    // Boundaries bend a little; hedges stand on some of them.
    let survey = |point: Point| {
        let bent = [
            point[0] + 9.0 * noise(point[0] / 120.0, point[1] / 120.0, 1),
            point[1] + 9.0 * noise(point[0] / 120.0, point[1] / 120.0, 2),
        ];
        turned(bent, [256.0, 256.0], along)
    };
    let find = |place: Point| {
        parcels.iter().find(|parcel| (0..2).all(|axis| (parcel.from[axis]..parcel.to[axis]).contains(&place[axis])))
    };
    let to_edge = |parcel: &Parcel, place: Point| {
        (0..2).map(|axis| (place[axis] - parcel.from[axis]).min(parcel.to[axis] - place[axis])).fold(f32::MAX, f32::min)
    };

    canvas.fill(|point, _| {
        let place = survey(point);
        let Some(parcel) = find(place) else { return CROPS[5].0 };
        let Crop(ground, row_colour, spacing, strength) = CROPS[crops[parcel.number]];
        let size = between(parcel.from, parcel.to);
        let seed = parcel.number as u32;
        // Rows run along the longer side; the headland at both ends is worked across.
        let long = usize::from(size[1] > size[0]);
        let ends = (place[long] - parcel.from[long]).min(parcel.to[long] - place[long]);
        let across = if ends < 9.0 { place[long] } else { place[1 - long] };
        let drift = 0.6 * noise(point[0] / 40.0, point[1] / 40.0, seed + 40);
        let rows = 0.5 + 0.5 * wave((across + drift) / spacing);
        let mut colour = mix(ground, row_colour, strength * rows);
        // Tramlines: pairs of wheel tracks.
        let track = (across / 34.0 - (across / 34.0).floor()) * 34.0;
        if crops[parcel.number] != 5 && ends >= 9.0 {
            let wheel = smooth(1.3, 0.5, (track - 15.0).abs()) + smooth(1.3, 0.5, (track - 19.5).abs());
            colour = mix(colour, mix(row_colour, web(0x8f7a55), 0.5), 0.55 * wheel);
        }
        // Damp and dry patches, and the tone of this field.
        let patches = clouds(point[0] / 70.0, point[1] / 70.0, 3, seed);
        let tone = 0.93 + 0.14 * scatter(parcel.number as i32, 3, 8);
        colour = lit(mix(colour, lit(colour, 0.72), smooth(0.05, 0.55, patches) * 0.7), tone);
        // The margin: rough grass, here and there bare earth.
        let edge = to_edge(parcel, place);
        let margin = mix(web(0x6f8048), web(0xa89b6a), smooth(-0.1, 0.3, noise(place[0] / 60.0, place[1] / 60.0, 5)));
        mix(colour, margin, smooth(3.4, 1.8, edge))
    });

    let river = Path::through(&[
        [400.0, -40.0],
        [384.0, 20.0],
        [330.0, 70.0],
        [318.0, 130.0],
        [352.0, 190.0],
        [340.0, 250.0],
        [276.0, 292.0],
        [212.0, 318.0],
        [172.0, 372.0],
        [182.0, 432.0],
        [140.0, 490.0],
        [96.0, 550.0],
    ]);
    let half_width = |place: f32| 12.5 + 3.0 * noise(place / 45.0, 0.0, 31) + place / 220.0;
    canvas.fill(|point, below| {
        let (distance, place) = river.distance(point);
        let ragged = distance + 2.2 * noise(point[0] / 7.0, point[1] / 7.0, 33);
        let width = half_width(place);
        let meadow = mix(web(0x5c7a40), web(0x7c8f52), 0.5 + 0.5 * noise(point[0] / 14.0, point[1] / 14.0, 35));
        let colour =
            mix(below, meadow, smooth(width + 22.0, width + 15.0, ragged + 5.0 * noise(place / 30.0, 1.0, 36)));
        let colour = mix(colour, web(0xb5a67c), smooth(width + 4.0, width + 1.5, ragged));
        let depth = smooth(width, 2.0, distance);
        let ripple = 0.03 * noise(point[0] / 9.0, point[1] / 4.0, 38);
        let water = lit(mix(web(0x6e8878), web(0x2f5560), depth), 1.0 + ripple);
        mix(colour, water, inside(ragged - width))
    });

    let main_road =
        Path::through(&[[-30.0, 182.0], [90.0, 208.0], [200.0, 238.0], [300.0, 264.0], [410.0, 312.0], [545.0, 352.0]]);
    let north_road = Path::through(&[[196.0, -30.0], [186.0, 70.0], [180.0, 150.0], [158.0, 226.0]]);
    let south_road = Path::through(&[[420.0, 316.0], [404.0, 390.0], [372.0, 450.0], [366.0, 545.0]]);
    let lane = Path::through(&[[158.0, 226.0], [120.0, 290.0], [60.0, 330.0], [-30.0, 350.0]]);
    for (path, half, surface) in [
        (&lane, 2.2, web(0xc0ab83)),
        (&south_road, 2.8, web(0xa9a59b)),
        (&north_road, 2.8, web(0xa9a59b)),
        (&main_road, 4.6, web(0x9c9b98)),
    ] {
        canvas.fill(|point, below| {
            let (distance, place) = path.distance(point);
            if distance > 12.0 {
                return below;
            }
            let verge = mix(below, web(0x8d9160), smooth(half + 3.0, half + 1.0, distance));
            let worn = lit(surface, 1.0 + 0.05 * noise(point[0] / 6.0, point[1] / 6.0, 44));
            let road = mix(verge, worn, inside(distance - half));
            let dashes = if half > 4.0 && wave(place / 9.0) > 0.0 { smooth(0.75, 0.35, distance) } else { 0.0 };
            mix(road, web(0xe9e7dd), 0.8 * dashes)
        });
    }
    // The bridge: railings beside the road where the river passes below, and their shadow on the water.
    for (point, along) in main_road.walk(1.0) {
        if river.distance(point).0 < 19.0 {
            for side in [-1.0, 1.0] {
                let rail = [point[0] - along[1] * side * 5.6, point[1] + along[0] * side * 5.6];
                if side > 0.0 {
                    canvas.shadow([rail[0] + 1.0, rail[1] + 2.4], 4.0, 0.25, 1.0, |p| {
                        length(between([rail[0] + 1.0, rail[1] + 2.4], p)) - 1.8
                    });
                }
                canvas.shape(rail, 2.0, web(0xd9d5ca), |p| length(between(rail, p)) - 0.9);
            }
        }
    }

    // The village stands along the roads near their meeting.
    let mut built: Vec<(Point, f32)> = Vec::new();
    let mut houses = Vec::new();
    for (path, from, to) in [(&main_road, 90.0, 270.0), (&north_road, 150.0, 262.0), (&lane, 20.0, 125.0)] {
        for (index, (point, along)) in path.walk(17.0).into_iter().enumerate() {
            let place = index as f32 * 17.0;
            if !(from..to).contains(&place) {
                continue;
            }
            for side in [-1.0, 1.0] {
                for back in [18.0, 40.0] {
                    if dice.next() < if back > 20.0 { 0.55 } else { 0.12 } {
                        continue;
                    }
                    let off = side * (back + dice.between(-2.0, 3.0));
                    let slide = dice.between(-3.0, 3.0);
                    let at =
                        [point[0] - along[1] * off + along[0] * slide, point[1] + along[0] * off + along[1] * slide];
                    let (half_long, half_short) = (dice.between(5.6, 8.6), dice.between(4.2, 5.4));
                    let clear = [&main_road, &north_road, &lane].iter().all(|road| road.distance(at).0 > 11.5);
                    let free = built.iter().all(|(other, reach)| length(between(*other, at)) > reach + half_long + 1.5);
                    if clear && free && river.distance(at).0 > 40.0 {
                        built.push((at, half_long));
                        let facing = if dice.next() < 0.3 { [-along[1], along[0]] } else { along };
                        houses.push((at, facing, half_long, half_short));
                    }
                }
            }
        }
    }
    for &(at, facing, ..) in &houses {
        let lawn = dice.pick(&[web(0x78995a), web(0x87a35f), web(0x6b8c52), web(0x9aa871)]);
        canvas.paint(at, 20.0, |point, _| {
            let ragged = 1.6 * noise(point[0] / 4.0, point[1] / 4.0, 51);
            let light = 1.0 + 0.06 * noise(point[0] / 3.0, point[1] / 3.0, 52);
            let distance = to_rectangle(turned(point, at, facing), 12.5, 12.0, 3.0) + ragged;
            Some((lit(lawn, light), 0.85 * inside(distance)))
        });
    }
    for &(at, facing, half_long, half_short) in &houses {
        let roof = dice.pick(&[web(0xb4573c), web(0xa34d38), web(0xc06a48), web(0x8e4a3a), web(0x6f6a68)]);
        house(&mut canvas, at, facing, half_long, half_short, roof);
    }
    // A farm across the river.
    for (at, half_long, half_short, _) in FARM {
        canvas.paint(at, 34.0, |point, _| {
            let ragged = 3.0 * noise(point[0] / 6.0, point[1] / 6.0, 55);
            Some((
                web(0xb3a27c),
                inside(to_rectangle(turned(point, at, along), half_long + 7.0, half_short + 8.0, 5.0) + ragged),
            ))
        });
    }
    for (at, half_long, half_short, roof) in FARM {
        house(&mut canvas, at, along, half_long, half_short, roof);
    }

    // Trees: a wood, the banks, hedges on some boundaries, gardens.
    let mut trees: Vec<Tree> = Vec::new();
    let roads = [&main_road, &north_road, &south_road, &lane];
    let open = |at: Point, radius: f32| {
        roads.iter().all(|road| road.distance(at).0 > radius + 4.0)
            && built.iter().all(|(other, reach)| length(between(*other, at)) > reach + radius)
            && length(between([450.0, 240.0], at)) > 42.0
    };
    let wooded = |at: Point| {
        let first = length([(at[0] - 70.0) / 1.25, at[1] - 62.0]) + 24.0 * clouds(at[0] / 40.0, at[1] / 40.0, 3, 61);
        let second = length([at[0] - 470.0, (at[1] - 470.0) / 0.8]) + 24.0 * clouds(at[0] / 40.0, at[1] / 40.0, 3, 62);
        first < 62.0 || second < 58.0
    };
    for row in -2..60 {
        for column in -2..60 {
            let at = [
                9.0 * column as f32 + 8.0 * scatter(column, row, 63),
                9.0 * row as f32 + 8.0 * scatter(column, row, 64),
            ];
            let radius = 4.6 + 3.4 * scatter(column, row, 65);
            if wooded(at) && open(at, radius) && river.distance(at).0 > 22.0 {
                trees.push(Tree {
                    at,
                    radius,
                    dry: 0.25 * scatter(column, row, 66),
                    seed: (row * 64 + column + 200) as u32,
                });
            }
        }
    }
    for (point, along) in river.walk(5.0) {
        for side in [-1.0, 1.0] {
            if dice.next() < 0.55 {
                let place = river.distance(point).1;
                let off = side * (half_width(place) + dice.between(4.0, 13.0));
                let at = [point[0] - along[1] * off, point[1] + along[0] * off];
                let radius = dice.between(2.8, 6.2);
                if open(at, radius) {
                    trees.push(Tree { at, radius, dry: dice.between(0.0, 0.45), seed: trees.len() as u32 });
                }
            }
        }
    }
    for row in 0..128 {
        for column in 0..128 {
            let at = [
                4.0 * column as f32 + 2.0 * scatter(column, row, 71),
                4.0 * row as f32 + 2.0 * scatter(column, row, 72),
            ];
            let place = survey(at);
            let Some(parcel) = find(place) else { continue };
            let hedged = noise(place[0] / 150.0, place[1] / 150.0, 73) > 0.08;
            let radius = 2.0 + 2.6 * scatter(column, row, 74) * scatter(row, column, 75);
            if hedged
                && to_edge(parcel, place) < 1.8
                && scatter(column, row, 76) < 0.85
                && open(at, radius)
                && river.distance(at).0 > 26.0
            {
                trees.push(Tree { at, radius, dry: 0.3 * scatter(column, row, 77), seed: (row * 128 + column) as u32 });
            }
        }
    }
    for &(house, facing, half_long, _) in &houses {
        for _ in 0..2 {
            let (u, v) = (dice.pick(&[-1.0, 1.0]) * (half_long + 4.0), dice.between(-9.0, 9.0));
            let at = [house[0] + facing[0] * u - facing[1] * v, house[1] + facing[1] * u + facing[0] * v];
            let radius = dice.between(1.8, 3.6);
            if open(at, radius) {
                trees.push(Tree { at, radius, dry: dice.between(0.0, 0.3), seed: trees.len() as u32 });
            }
        }
    }
    paint_trees(&mut canvas, &trees);

    for (index, (point, along)) in main_road.walk(41.0).into_iter().enumerate() {
        let lane_px = if index % 2 == 0 { 2.3 } else { -2.3 };
        let at = [point[0] - along[1] * lane_px, point[1] + along[0] * lane_px];
        let paint = [web(0xf2f2ee), web(0xb03a33), web(0x31435c), web(0xd8d9da), web(0x3a3a3c)][index % 5];
        vehicle(&mut canvas, at, along, if index % 6 == 3 { 5.4 } else { 2.8 }, paint);
    }
    canvas.finish()
}
