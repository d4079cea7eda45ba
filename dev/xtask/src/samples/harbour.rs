//! A coast from above: open sea, a beach, a harbour with ships, a town.

use super::aerial::{Tree, house, paint_trees, vehicle};
use super::canvas::{
    Canvas, Colour, Dice, Path, Point, between, clouds, direction, inside, length, lit, mix, noise, scatter, smooth,
    to_polygon, to_rectangle, turned, wave, web,
};
use dinov3_picture::RgbPicture;

const SIDE_PX: usize = 512;

/// What containers are painted.
const CONTAINERS: [Colour; 7] =
    [web(0xa8433a), web(0x3c6a9a), web(0xd08a3c), web(0x5a7d58), web(0xb9bcb8), web(0x8a3f5a), web(0x2f8085)];

/// The map of the place: `u` runs along the coast to the upper right, `v` inland.
struct Place {
    along: Point,
    west_mole: Path,
    east_mole: Path,
}

impl Place {
    fn new() -> Self {
        let mut place =
            Self { along: direction([0.86, -0.51]), west_mole: Path(Vec::new()), east_mole: Path(Vec::new()) };
        let mole =
            |corners: &[Point]| Path::through(&corners.iter().map(|&corner| place.at(corner)).collect::<Vec<Point>>());
        let west = mole(&[[-52.0, 30.0], [-60.0, -10.0], [-52.0, -58.0], [-18.0, -96.0], [38.0, -108.0]]);
        let east = mole(&[[286.0, 30.0], [284.0, -30.0], [262.0, -86.0], [206.0, -124.0], [120.0, -138.0]]);
        (place.west_mole, place.east_mole) = (west, east);
        place
    }

    fn map(&self, point: Point) -> Point {
        turned(point, [256.0, 256.0], self.along)
    }

    fn at(&self, [u, v]: Point) -> Point {
        [256.0 + self.along[0] * u - self.along[1] * v, 256.0 + self.along[1] * u + self.along[0] * v]
    }

    fn inland(&self) -> Point {
        [-self.along[1], self.along[0]]
    }

    /// Pixels from the waterline: positive on land.
    fn shore(&self, point: Point) -> f32 {
        let [u, v] = self.map(point);
        let natural = smooth(-20.0, -75.0, u);
        let bays = 26.0 * noise(u / 105.0, 0.3, 5) + 5.0 * noise(u / 24.0, 0.7, 6) + 14.0;
        let shore = v - 15.0 + natural * bays;
        let basin = to_rectangle([u - 38.0, v - 38.0], 56.0, 38.0, 3.0);
        let pier = -to_rectangle([u - 172.0, v + 32.0], 30.0, 62.0, 1.0);
        shore.min(basin).max(pier)
    }
}

/// The scene.
pub fn paint() -> RgbPicture {
    let place = Place::new();
    let mut canvas = Canvas::new(SIDE_PX, SIDE_PX);
    let mut dice = Dice::new(23);
    sea(&mut canvas, &place);
    land(&mut canvas, &place);
    moles(&mut canvas, &place);
    port(&mut canvas, &place, &mut dice);
    marina(&mut canvas, &place, &mut dice);
    town(&mut canvas, &place, &mut dice);
    traffic(&mut canvas, &place, &mut dice);
    canvas.finish()
}

fn sea(canvas: &mut Canvas, place: &Place) {
    let harbour: Vec<Point> =
        [place.west_mole.0.as_slice(), &place.east_mole.0.iter().rev().copied().collect::<Vec<Point>>()].concat();
    canvas.fill(|point, _| {
        let [u, v] = place.map(point);
        let out = -place.shore(point);
        let banks = 26.0 * clouds(u / 70.0, v / 34.0, 3, 11);
        let depth = (out + banks * smooth(4.0, 60.0, out)).max(0.0);
        let shallow = mix(web(0x9fd0bd), web(0x4fa3a8), smooth(0.0, 38.0, depth));
        let deep = mix(shallow, web(0x22647f), smooth(24.0, 105.0, depth));
        let open = mix(deep, web(0x184d6c), smooth(90.0, 240.0, depth));
        // Within the moles the water is calm and rather green.
        let basin = inside(to_rectangle([u - 38.0, v - 38.0], 60.0, 44.0, 3.0) - 8.0);
        let sheltered = (smooth(4.0, -8.0, to_polygon(point, &harbour)) * smooth(-60.0, -45.0, u)).max(basin);
        let colour = mix(open, web(0x2c6670), 0.86 * sheltered);
        let swell = noise(u / 24.0 + 0.6 * noise(u / 40.0, v / 40.0, 12), v / 4.6, 13);
        let chop = noise(u / 5.0, v / 2.4, 14);
        let waves = (1.0 - 0.75 * sheltered) * (0.055 * swell + 0.035 * chop);
        let crest = smooth(0.66, 0.9, swell) * smooth(0.25, 0.6, noise(u / 9.0, v / 3.0, 15)) * (1.0 - sheltered);
        let colour = mix(lit(colour, 1.0 + waves), web(0xe4efee), 0.42 * crest * smooth(20.0, 60.0, out));
        // Lines of surf where there is a beach.
        let beach = smooth(-50.0, -80.0, u);
        let surf: f32 = [3.0, 10.0, 19.0]
            .iter()
            .enumerate()
            .map(|(line, &distance)| {
                let bent = out + 2.6 * noise(u / 17.0, line as f32, 16) + 1.2 * noise(u / 5.0, v / 5.0, 17);
                let broken = smooth(-0.45 + 0.3 * line as f32, 0.3, noise(u / 26.0, 3.0 * line as f32, 18));
                smooth(2.4, 0.4, (bent - distance).abs()) * broken
            })
            .sum();
        mix(colour, web(0xf4f7f3), 0.85 * beach * surf.min(1.0))
    });
}

fn land(canvas: &mut Canvas, place: &Place) {
    canvas.fill(|point, below| {
        let [u, v] = place.map(point);
        let shore = place.shore(point);
        let grain = noise(point[0] / 2.5, point[1] / 2.5, 21);
        let natural = smooth(-48.0, -62.0, u);
        // The built-up shore: a quay of concrete slabs, its wall in shadow.
        let joints = (wave(u / 14.0).abs().min(wave(v / 14.0).abs()) < 0.12) as u8 as f32;
        let concrete =
            lit(web(0xb4b1a8), 1.0 + 0.03 * grain - 0.05 * joints + 0.06 * clouds(u / 50.0, v / 50.0, 2, 22));
        let sand = lit(mix(web(0xc4ac80), web(0xe6d6ae), smooth(0.0, 7.0, shore)), 1.0 + 0.04 * grain);
        let ragged = shore + 4.5 * noise(point[0] / 9.0, point[1] / 9.0, 23);
        let grass = lit(
            mix(web(0x8f9c60), web(0x74904f), 0.5 + 0.9 * clouds(point[0] / 30.0, point[1] / 30.0, 3, 24)),
            1.0 + 0.05 * grain,
        );
        let dunes = mix(sand, grass, smooth(20.0, 27.0, ragged));
        // Behind the harbour the quay gives way to gardens and, further up, hills.
        let behind = smooth(70.0, 78.0, v) * smooth(3.0, 9.0, shore - 8.0);
        let ground = mix(mix(concrete, grass, behind), dunes, natural);
        let hills = smooth(225.0, 262.0, v + 40.0 * clouds(u / 60.0, v / 60.0, 2, 25));
        let slope = clouds(point[0] / 60.0, point[1] / 60.0, 3, 26)
            - clouds(point[0] / 60.0 + 0.08, point[1] / 60.0 + 0.08, 3, 26);
        let hill = lit(
            mix(web(0x5f7f42), web(0x86994f), 0.5 + clouds(point[0] / 80.0, point[1] / 80.0, 2, 27)),
            1.0 - 2.2 * slope,
        );
        let ground = mix(ground, hill, hills);
        // The shadow of the quay's edge on the water would fall to the lower right: there the quay itself stands.
        mix(below, ground, inside(-shore))
    });
    canvas.fill(|point, below| {
        let wall = smooth(1.6, 0.6, place.shore(point).abs()) * smooth(-62.0, -48.0, place.map(point)[0]);
        mix(below, web(0x6a6a66), 0.8 * wall)
    });
}

fn moles(canvas: &mut Canvas, place: &Place) {
    for (number, mole) in [&place.west_mole, &place.east_mole].into_iter().enumerate() {
        canvas.fill(|point, below| {
            let shade = mole.distance([point[0] - 3.0, point[1] - 3.0]).0;
            mix(below, lit(below, 0.6), 0.8 * inside(shade - 6.5))
        });
        canvas.fill(|point, below| {
            let distance = mole.distance(point).0;
            if distance > 14.0 {
                return below;
            }
            let stones = noise(point[0] / 2.2, point[1] / 2.2, 31);
            let surf = mix(below, web(0xe8f0ec), 0.7 * smooth(12.0, 8.0, distance + 3.0 * stones));
            let rock = lit(web(0x8b8578), 0.85 + 0.3 * stones);
            let colour = mix(surf, rock, inside(distance - 7.0 - 0.9 * stones));
            mix(colour, web(0xc2beb2), inside(distance - 2.8))
        });
        let head = mole.0[mole.0.len() - 1];
        canvas.shadow([head[0] + 4.0, head[1] + 4.0], 8.0, 0.8, 0.7, |p| {
            length(between([head[0] + 4.0, head[1] + 4.0], p)) - 4.0
        });
        canvas.shape(head, 9.0, web(0xb7b3a8), |p| length(between(head, p)) - 7.5);
        canvas.shape(head, 6.0, [web(0xb5392f), web(0x2f7d4b)][number], |p| length(between(head, p)) - 4.2);
        canvas.shape(head, 4.0, web(0xf2f0ea), |p| length(between(head, p)) - 2.2);
    }
}

/// A hull, pointed at the front: distance in its own coordinates.
fn to_hull([u, v]: Point, half_long: f32, half_wide: f32) -> f32 {
    let taper = ((u / half_long - 0.35).max(0.0) / 0.65).min(1.2);
    (v.abs() - half_wide * (1.0 - taper * taper)).max(u.abs() - half_long) * 0.9
}

fn boat(canvas: &mut Canvas, at: Point, facing: Point, half_long: f32, hull: Colour, deck: Colour) {
    let half_wide = half_long * 0.34;
    let body = |point: Point| to_hull(turned(point, at, facing), half_long, half_wide);
    canvas.shadow(at, half_long + 4.0, 0.6, 0.7, |[x, y]| body([x - 1.2, y - 1.2]));
    canvas.shape(at, half_long + 2.0, hull, body);
    canvas.shape(at, half_long + 2.0, deck, |point| {
        to_hull(turned(point, at, facing), half_long * 0.78, half_wide * 0.55)
    });
    let cabin = [at[0] - facing[0] * half_long * 0.2, at[1] - facing[1] * half_long * 0.2];
    canvas.shape(cabin, half_long, lit(hull, 0.86), |point| {
        to_rectangle(turned(point, cabin, facing), half_long * 0.26, half_wide * 0.45, 0.3)
    });
}

/// A box seen from above, with its shadow.
fn container(
    canvas: &mut Canvas,
    at: Point,
    facing: Point,
    half_long: f32,
    half_wide: f32,
    height: f32,
    paint: Colour,
) {
    let body = |point: Point| to_rectangle(turned(point, at, facing), half_long, half_wide, 0.2);
    canvas.shadow(at, half_long + 6.0, 0.7, 0.5, |[x, y]| body([x - height, y - height]));
    canvas.paint(at, half_long + 2.0, |point, _| {
        let [u, v] = turned(point, at, facing);
        let ribs = 0.05 * wave(u / 1.6);
        let rim = 0.10 * smooth(0.7, 0.2, half_wide - v.abs());
        Some((lit(paint, 1.0 + ribs + rim), inside(to_rectangle([u, v], half_long, half_wide, 0.2))))
    });
}

fn container_ship(canvas: &mut Canvas, at: Point, facing: Point, half_long: f32, hull: Colour, dice: &mut Dice) {
    let half_wide = 9.5;
    let body = |point: Point| to_hull(turned(point, at, facing), half_long, half_wide);
    canvas.shadow(at, half_long + 8.0, 0.7, 1.0, |[x, y]| body([x - 3.0, y - 3.0]));
    canvas.shape(at, half_long + 3.0, hull, body);
    canvas.shape(at, half_long + 3.0, web(0x8d5646), |point| {
        to_hull(turned(point, at, facing), half_long - 1.8, half_wide - 1.3)
    });
    let on_board = |u: f32, v: f32| [at[0] + facing[0] * u - facing[1] * v, at[1] + facing[1] * u + facing[0] * v];
    let bays = ((half_long * 1.25) / 8.6) as i32;
    for bay in 0..bays {
        for row in -3..=3 {
            let u = -half_long * 0.62 + 8.6 * bay as f32;
            let taper = ((u / half_long - 0.2).max(0.0)) / 0.9;
            let fits = (row as f32 * 2.35).abs() + 1.0 < half_wide * (1.0 - taper * taper) - 0.8;
            if fits && dice.next() < 0.93 {
                let height = dice.pick(&[0.4, 0.8, 1.2]);
                container(canvas, on_board(u, 2.35 * row as f32), facing, 3.8, 1.0, height, dice.pick(&CONTAINERS));
            }
        }
    }
    let bridge = on_board(-half_long * 0.8, 0.0);
    container(canvas, bridge, facing, 4.0, half_wide - 1.0, 4.0, web(0xe9e8e2));
    container(canvas, on_board(-half_long * 0.84, 0.0), facing, 1.6, 2.0, 1.5, web(0xb0443a));
}

fn port(canvas: &mut Canvas, place: &Place, dice: &mut Dice) {
    let inland = place.inland();
    // Stacks of containers on the pier and the quay, in blocks with lanes between.
    for (block_u, block_v, columns, rows) in [
        (150.0, -84.0, 2, 9),
        (182.0, -84.0, 2, 9),
        (150.0, -46.0, 2, 9),
        (182.0, -46.0, 2, 9),
        (150.0, -8.0, 2, 7),
        (182.0, -8.0, 2, 7),
        (122.0, 26.0, 4, 6),
        (166.0, 26.0, 4, 6),
        (210.0, 26.0, 4, 6),
        (254.0, 26.0, 4, 6),
    ] {
        for row in 0..rows {
            for column in 0..columns {
                if dice.next() < 0.84 {
                    let [u, v] = [block_u + 9.4 * column as f32, block_v + 3.5 * row as f32];
                    let height = dice.pick(&[0.8, 1.6, 2.4]);
                    container(canvas, place.at([u, v]), place.along, 4.4, 1.45, height, dice.pick(&CONTAINERS));
                }
            }
        }
    }
    // The road behind, and warehouses.
    for (half, colour) in [(6.0, web(0x9a978e)), (4.4, web(0x7f7f7e))] {
        canvas.fill(|point, below| {
            let [u, v] = place.map(point);
            mix(below, colour, inside((v - 84.0).abs() - half) * smooth(-66.0, -60.0, u))
        });
    }
    for (u, half_long, roof) in [
        (132.0, 19.0, web(0xa9b3b8)),
        (180.0, 22.0, web(0x7d93a6)),
        (232.0, 23.0, web(0xc4bfae)),
        (286.0, 22.0, web(0x9c6b58)),
    ] {
        let at = place.at([u, 61.0]);
        house(canvas, at, place.along, half_long, 10.0, roof);
        for step in -2..=2 {
            let skylight = [
                at[0] + place.along[0] * step as f32 * 8.0 + inland[0] * 4.5,
                at[1] + place.along[1] * step as f32 * 8.0 + inland[1] * 4.5,
            ];
            canvas
                .shape(skylight, 6.0, web(0xd3e2e8), |p| to_rectangle(turned(p, skylight, place.along), 2.0, 1.6, 0.2));
        }
    }
    // Ships: one at the pier, one at the quay, both with gantry cranes above.
    let pier_side = [-inland[0], -inland[1]];
    container_ship(canvas, place.at([130.5, -34.0]), pier_side, 50.0, web(0x27364f), dice);
    container_ship(canvas, place.at([244.0, 4.0]), place.along, 38.0, web(0x3d5a48), dice);
    let cranes = [
        ([143.0, -66.0], pier_side),
        ([143.0, -34.0], pier_side),
        ([143.0, -4.0], pier_side),
        ([230.0, 17.0], place.along),
        ([258.0, 17.0], place.along),
    ];
    for (foot, along) in cranes {
        let at = place.at(foot);
        let out = [along[1], -along[0]];
        let out = if along == pier_side { [-place.along[0], -place.along[1]] } else { out };
        let arm = [at[0] + out[0] * 6.0, at[1] + out[1] * 6.0];
        canvas.shadow([at[0] + 6.0, at[1] + 6.0], 26.0, 0.55, 0.6, |p| {
            to_rectangle(turned([p[0] - 6.0, p[1] - 6.0], arm, out), 17.0, 1.2, 0.2)
        });
        for side in [-3.2, 3.2] {
            let beam = [at[0] + along[0] * side, at[1] + along[1] * side];
            canvas.shape(beam, 9.0, web(0xd9a23a), |p| to_rectangle(turned(p, beam, out), 6.0, 0.7, 0.2));
        }
        canvas.shape(arm, 20.0, web(0xe3b24a), |p| to_rectangle(turned(p, arm, out), 17.0, 1.1, 0.2));
        canvas.shape(at, 5.0, web(0xf0ece0), |p| to_rectangle(turned(p, at, out), 2.2, 1.8, 0.3));
    }
}

fn marina(canvas: &mut Canvas, place: &Place, dice: &mut Dice) {
    let inland = place.inland();
    for pier in 0..4 {
        let u = 0.5 + 25.0 * pier as f32;
        let middle = place.at([u, 47.0]);
        let deck = |p: Point| to_rectangle(turned(p, middle, inland), 27.0, 1.3, 0.2);
        canvas.shadow(middle, 34.0, 0.5, 0.6, |[x, y]| deck([x - 1.5, y - 1.5]));
        canvas.shape(middle, 30.0, web(0xc8b48f), deck);
        for berth in 0..8 {
            for side in [-1.0, 1.0] {
                if dice.next() < 0.86 {
                    let at = place.at([u + side * 6.6, 23.5 + 6.4 * berth as f32]);
                    let facing = [place.along[0] * side, place.along[1] * side];
                    let hull = dice.pick(&[web(0xf4f3ee), web(0xf4f3ee), web(0xe6e9ea), web(0x2f4a6b), web(0xa23c38)]);
                    let deck = dice.pick(&[web(0xc9a877), web(0xd8d2c4), web(0x8fb0bf)]);
                    boat(canvas, at, facing, dice.between(4.0, 5.2), hull, deck);
                }
            }
        }
    }
}

fn town(canvas: &mut Canvas, place: &Place, dice: &mut Dice) {
    // Streets: a promenade along the shore, and a grid behind the harbour road.
    let (pitch_u, pitch_v) = (46.0, 38.0);
    let built = |u: f32, v: f32| {
        let from_shore = place.shore(place.at([u, v]));
        let start = if u < -55.0 { from_shore - 40.0 } else { v - 88.0 };
        start.min(215.0 - v + 14.0 * noise(u / 50.0, 1.0, 41)).min(u + 330.0)
    };
    canvas.fill(|point, below| {
        let [u, v] = place.map(point);
        let amount = smooth(-4.0, 0.0, built(u, v));
        let street_u = ((u / pitch_u).round() * pitch_u - u).abs();
        let street_v = (((v - 84.0) / pitch_v).round() * pitch_v + 84.0 - v).abs();
        let distance = street_u.min(street_v);
        let pavement = mix(below, web(0xc3bdb0), amount * inside(distance - 4.6));
        let street = mix(pavement, web(0x86868a), amount * inside(distance - 3.0));
        // The promenade follows the beach.
        let walk = (place.shore(point) - 36.0 + 3.0 * noise(u / 40.0, 0.0, 42)).abs();
        let beach = smooth(-58.0, -64.0, u);
        let street = mix(street, web(0xcfc4ab), beach * inside(walk - 3.6));
        mix(street, web(0x93938f), beach * inside(walk - 2.0))
    });
    let mut houses: Vec<(Point, f32)> = Vec::new();
    let mut trees = Vec::new();
    let inland = place.inland();
    for block_v in 0..5 {
        for block_u in -9..9 {
            let (left, near) = (
                pitch_u * block_u as f32,
                84.0 + pitch_v * block_v as f32 - if block_u < -1 { 2.0 * pitch_v } else { 0.0 },
            );
            let park = scatter(block_u, block_v, 43) < 0.10;
            for row in 0..2 {
                for lot in 0..3 {
                    let u = left + 9.5 + 13.4 * lot as f32 + dice.between(-0.8, 0.8);
                    let v = near + if row == 0 { 10.5 } else { pitch_v - 10.5 } + dice.between(-0.8, 0.8);
                    let at = place.at([u, v]);
                    if built(u, v) < 8.0 {
                        continue;
                    }
                    if park || dice.next() < 0.13 {
                        for _ in 0..4 {
                            let at = place.at([u + dice.between(-6.0, 6.0), v + dice.between(-5.0, 5.0)]);
                            trees.push(Tree {
                                at,
                                radius: dice.between(2.6, 4.6),
                                dry: dice.between(0.0, 0.3),
                                seed: trees.len() as u32,
                            });
                        }
                        continue;
                    }
                    let facing = if dice.next() < 0.25 { inland } else { place.along };
                    let roof = dice.pick(&[
                        web(0xb9583d),
                        web(0xc46a48),
                        web(0xa64c38),
                        web(0xcc7b55),
                        web(0x7a7370),
                        web(0xd9d2c2),
                    ]);
                    let (half_long, half_short) = (dice.between(5.0, 6.2), dice.between(4.2, 5.2));
                    house(canvas, at, facing, half_long, half_short, roof);
                    houses.push((at, half_long));
                    if dice.next() < 0.7 {
                        let yard =
                            place.at([u + dice.between(-6.0, 6.0), near + pitch_v / 2.0 + dice.between(-3.0, 3.0)]);
                        trees.push(Tree {
                            at: yard,
                            radius: dice.between(1.8, 3.4),
                            dry: dice.between(0.0, 0.3),
                            seed: trees.len() as u32,
                        });
                    }
                }
            }
        }
    }
    // Woods on the hills, bushes in the dunes, a row of palms or pines along the promenade.
    for row in -1..74 {
        for column in -1..74 {
            let at = [
                7.2 * column as f32 + 6.0 * scatter(column, row, 45),
                7.2 * row as f32 + 6.0 * scatter(column, row, 46),
            ];
            let [u, v] = place.map(at);
            let radius = 2.6 + 3.8 * scatter(column, row, 47);
            let wood = v > 224.0 && clouds(at[0] / 55.0, at[1] / 55.0, 3, 48) > -0.06;
            let shore = place.shore(at);
            let dune = u < -66.0 && (24.0..32.0).contains(&shore) && scatter(column, row, 49) < 0.35;
            let free = houses.iter().all(|(other, reach)| length(between(*other, at)) > reach + radius);
            if (wood || dune) && free {
                let radius = if dune { radius * 0.5 } else { radius };
                trees.push(Tree {
                    at,
                    radius,
                    dry: 0.4 * scatter(column, row, 50),
                    seed: (row * 80 + column + 100) as u32,
                });
            }
        }
    }
    paint_trees(canvas, &trees);
    // Parasols on the beach.
    for index in 0..46 {
        let u = -70.0 - 6.2 * index as f32 + dice.between(-2.0, 2.0);
        let mut v = -40.0;
        while place.shore(place.at([u, v])) < 8.0 + 9.0 * scatter(index, 1, 51) && v < 120.0 {
            v += 1.0;
        }
        let at = place.at([u, v]);
        let paint = dice.pick(&[web(0xd9483b), web(0xf2f0e8), web(0x2f78a8), web(0xe8b93c)]);
        canvas.shadow([at[0] + 1.4, at[1] + 1.4], 5.0, 0.5, 0.6, |p| {
            length(between([at[0] + 1.4, at[1] + 1.4], p)) - 1.9
        });
        canvas.shape(at, 4.0, paint, |p| length(between(at, p)) - 1.9);
    }
}

fn traffic(canvas: &mut Canvas, place: &Place, dice: &mut Dice) {
    for index in 0..16 {
        let lane = if index % 2 == 0 { -2.0 } else { 2.0 };
        let at = place.at([-40.0 + 24.0 * index as f32 + dice.between(-8.0, 8.0), 84.0 + lane]);
        let paint = dice.pick(&[web(0xf2f2ee), web(0xb03a33), web(0x31435c), web(0xd8d9da), web(0x3a3a3c)]);
        vehicle(canvas, at, place.along, dice.pick(&[2.4, 2.4, 4.6]), paint);
    }
    // Boats under way, with their wakes.
    for (at, heading, half_long, hull) in [
        ([92.0, 96.0], [0.8, 0.6], 7.0, web(0xf4f3ee)),
        ([228.0, 52.0], [0.3, 0.95], 9.5, web(0xb5463c)),
        ([330.0, 36.0], [-0.9, 0.42], 5.5, web(0xf4f3ee)),
        ([52.0, 236.0], [0.75, -0.66], 5.0, web(0xf4f3ee)),
        ([262.0, 196.0], [-0.72, -0.7], 6.5, web(0xf0d060)),
        ([150.0, 30.0], [-0.95, 0.3], 5.0, web(0xf4f3ee)),
    ] {
        let facing = direction(heading);
        canvas.paint(at, 75.0, |point, _| {
            let [u, v] = turned(point, at, facing);
            let behind = -u - half_long * 0.3;
            if behind < 0.0 {
                return None;
            }
            let fading = smooth(62.0, 6.0, behind);
            let wake = smooth(1.2 + behind * 0.05, 0.3, v.abs());
            let bow = smooth(1.6, 0.2, (v.abs() - half_long * 0.34 - behind * 0.24).abs());
            let foam = 0.7 + 0.3 * noise(point[0] / 2.0, point[1] / 2.0, 61);
            Some((web(0xe9f2f0), fading * foam * (0.75 * wake + 0.5 * bow).min(0.9)))
        });
        boat(canvas, at, facing, half_long, hull, web(0xcbb083));
    }
}
