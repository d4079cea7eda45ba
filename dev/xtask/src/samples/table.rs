//! A table by a window: a plant, books, a mug, an orange.

use super::canvas::{
    Canvas, Colour, Dice, Path, Point, between, clouds, inside, length, lit, mix, noise, smooth, to_ellipse, to_line,
    to_polygon, to_rectangle, wave, web,
};
use dinov3_picture::RgbPicture;

const WIDTH_PX: usize = 512;
const HEIGHT_PX: usize = 384;

/// Where the wall ends and the table begins.
const EDGE_PX: f32 = 238.0;

/// The scene.
pub fn paint() -> RgbPicture {
    let mut canvas = Canvas::new(WIDTH_PX, HEIGHT_PX);
    wall(&mut canvas);
    framed_picture(&mut canvas);
    table(&mut canvas);
    shadows(&mut canvas);
    plant(&mut canvas);
    books(&mut canvas);
    mug(&mut canvas);
    orange(&mut canvas, [318.0, 326.0], 24.0);
    // The corners of a photograph are darker.
    canvas.fill(|point, below| {
        let away = length([(point[0] - 256.0) / 256.0, (point[1] - 192.0) / 192.0]);
        lit(below, 1.0 - 0.16 * smooth(0.75, 1.45, away))
    });
    canvas.finish()
}

/// Light from a window with two by three panes, thrown on the wall.
fn window_light(point: Point) -> f32 {
    let (x, y) = (point[0] - 0.42 * (point[1] - 40.0), point[1] + 0.10 * point[0]);
    let soft = 5.0;
    let panes = |value: f32, from: f32, size: f32, count: f32| {
        let place = (value - from) / size;
        if !(-0.5..count + 0.5).contains(&place) {
            return 0.0;
        }
        let cell = place.clamp(0.0, count - 1e-3);
        let within = (place - cell.floor()) * size;
        smooth(-soft, soft, within - 4.0) * smooth(-soft, soft, size - 4.0 - within)
    };
    panes(x, 176.0, 66.0, 3.0) * panes(y, 34.0, 92.0, 2.0)
}

fn wall(canvas: &mut Canvas) {
    canvas.fill(|point, _| {
        let daylight = smooth(520.0, -60.0, point[0]);
        let plaster =
            0.014 * noise(point[0] / 3.0, point[1] / 3.0, 3) + 0.02 * clouds(point[0] / 90.0, point[1] / 90.0, 2, 4);
        let ground = mix(web(0x8d9a98), web(0xb9c2bb), daylight);
        // A branch outside dapples the light.
        let branch = smooth(0.10, 0.56, clouds(point[0] / 34.0, point[1] / 30.0, 3, 5) + 0.14);
        let sun = window_light(point) * (1.0 - 0.40 * branch);
        let ground = lit(ground, 1.0 + plaster);
        mix(ground, web(0xf6e4bd), 0.62 * sun)
    });
    // A skirting rail just above the table.
    canvas.paint([256.0, EDGE_PX - 8.0], 300.0, |point, below| {
        let shade = smooth(30.0, 0.0, EDGE_PX - point[1]);
        Some((lit(below, 0.72), 0.55 * shade))
    });
}

fn framed_picture(canvas: &mut Canvas) {
    let centre = [432.0, 84.0];
    canvas.shadow([438.0, 93.0], 90.0, 0.45, 7.0, |p| to_rectangle(between([438.0, 93.0], p), 50.0, 60.0, 2.0));
    let frame = |p: Point| to_rectangle(between(centre, p), 50.0, 60.0, 1.0);
    canvas.paint(centre, 70.0, |point, _| {
        let [x, y] = between(centre, point);
        let bevel = if (x + y) < 0.0 { 1.1 } else { 0.84 };
        Some((lit(web(0x6d4b30), bevel + 0.06 * noise(x / 2.0 + y / 9.0, y / 14.0, 7)), inside(frame(point))))
    });
    canvas.shape(centre, 60.0, web(0xeee8da), |p| to_rectangle(between(centre, p), 44.5, 54.5, 0.5));
    canvas.paint(centre, 50.0, |point, _| {
        let [x, y] = between(centre, point);
        let sky = mix(web(0xe9b27a), web(0x6f9bb3), smooth(8.0, -40.0, y));
        let sun = mix(sky, web(0xf7e3a8), inside(length([x - 10.0, y + 8.0]) - 9.0));
        let far = mix(sun, web(0x54748a), inside(2.0 - y + 9.0 * noise(x / 17.0, 0.0, 8)));
        let near = mix(far, web(0x2f4d4a), inside(15.0 - y + 7.0 * noise(x / 12.0, 3.0, 9)));
        let lake =
            mix(near, web(0xc99d74), inside(25.0 - y) * (0.75 + 0.25 * wave(y / 3.5 + 0.4 * noise(x / 6.0, y, 10))));
        Some((lake, inside(to_rectangle([x, y], 32.0, 42.0, 0.5))))
    });
}

fn table(canvas: &mut Canvas) {
    canvas.fill(|point, below| {
        let [x, y] = point;
        // Boards run away from the eye towards a point above the picture.
        let depth = y - 60.0;
        let across = (x - 250.0) / depth * 2.6;
        let away = 9000.0 / depth;
        let board = across.floor();
        let within = across - board;
        let tone = 0.92 + 0.16 * super::canvas::scatter(board as i32, 1, 13);
        let warp = 0.35 * noise(across * 2.0, away / 24.0, 14);
        let rings = wave(within * 5.0 + warp * 2.4 + 0.8 * noise(across * 1.5, away / 30.0, 15));
        let fibre = noise(across * 46.0, away / 6.0, 16);
        let wood = mix(web(0x9a6a40), web(0xb98652), 0.5 + 0.32 * rings + 0.22 * fibre);
        let wood = lit(wood, tone);
        let groove = smooth(0.022, 0.006, within.min(1.0 - within));
        let wood = mix(wood, web(0x4f3220), 0.75 * groove);
        // The window shines in the varnish.
        let gleam = smooth(210.0, 10.0, length([x - 150.0, (y - 250.0) * 1.3]));
        let wood = mix(wood, web(0xf1e2c6), 0.30 * gleam);
        let light = 1.08 - 0.30 * smooth(80.0, 520.0, x) + 0.08 * smooth(250.0, 384.0, y);
        mix(below, lit(wood, light), inside(EDGE_PX - y))
    });
    canvas.paint([256.0, EDGE_PX], 300.0, |point, _| {
        Some((web(0xe0c39a), 0.55 * smooth(1.4, 0.3, (point[1] - EDGE_PX - 0.8).abs())))
    });
}

/// What the things throw on the table: to the right and towards the eye, as the window is behind on the left.
fn shadows(canvas: &mut Canvas) {
    let shades: [(Point, Point, f32); 4] = [
        ([92.0, 300.0], [190.0, 318.0], 26.0),
        ([222.0, 312.0], [330.0, 322.0], 20.0),
        ([416.0, 312.0], [500.0, 326.0], 25.0),
        ([316.0, 348.0], [362.0, 356.0], 12.0),
    ];
    for (from, to, half) in shades {
        canvas.paint([(from[0] + to[0]) / 2.0, from[1]], 150.0, |point, below| {
            let flat = |[x, y]: Point| [x, y * 2.4];
            let (distance, part) = to_line(flat(point), flat(from), flat(to));
            let soft = 6.0 + 16.0 * part;
            let dark = [below[0] * 0.36, below[1] * 0.34, below[2] * 0.38];
            Some((
                dark,
                (0.8 - 0.45 * part)
                    * smooth(soft, -soft, distance - half * (1.0 - 0.25 * part))
                    * inside(EDGE_PX - point[1]),
            ))
        });
    }
}

/// Light on an upright cylinder, from -1 at the left rim to 1 at the right one.
fn round(across: f32) -> f32 {
    let height = (1.0 - across * across).max(0.0).sqrt();
    0.40 + 0.62 * (height * 0.62 - across * 0.72).max(0.0) + 0.10 * smooth(0.75, 1.0, across)
}

/// A vessel: upright, with a round foot and rim.
struct Vessel {
    x: f32,
    top: f32,
    foot: f32,
    half_top: f32,
    half_foot: f32,
}

impl Vessel {
    fn half(&self, y: f32) -> f32 {
        let part = ((y - self.top) / (self.foot - self.top)).clamp(0.0, 1.0);
        self.half_top + (self.half_foot - self.half_top) * part
    }

    fn paint(&self, canvas: &mut Canvas, ground: impl Fn(Point, f32) -> Colour) {
        let middle = [self.x, (self.top + self.foot) / 2.0];
        canvas.paint(middle, (self.foot - self.top) / 2.0 + self.half_top + 10.0, |point, _| {
            let [x, y] = [point[0] - self.x, point[1]];
            let half = self.half(y);
            let bow = 0.24 * (half * half - x * x).max(0.0).sqrt();
            let distance = (x.abs() - half).max(y - self.foot - bow).max(self.top - y);
            let across = (x / half).clamp(-1.0, 1.0);
            Some((lit(ground(point, across), round(across)), inside(distance)))
        });
    }
}

fn plant(canvas: &mut Canvas) {
    let pot = Vessel { x: 92.0, top: 212.0, foot: 296.0, half_top: 44.0, half_foot: 30.0 };
    let rim = Vessel { x: 92.0, top: 202.0, foot: 220.0, half_top: 49.0, half_foot: 48.0 };
    let clay = |point: Point, _: f32| {
        lit(
            web(0xcf7a50),
            1.0 + 0.05 * noise(point[0] / 7.0, point[1] / 2.0, 21)
                + 0.05 * clouds(point[0] / 20.0, point[1] / 20.0, 2, 22),
        )
    };
    let mut dice = Dice::new(5);
    let mut leaves = Vec::new();
    for index in 0..30 {
        let turn = index as f32 / 29.0;
        let spread = -1.0 + 2.0 * ((index * 7) % 30) as f32 / 29.0;
        let reach = dice.between(88.0, 132.0) * (1.0 - 0.28 * spread * spread);
        let lift = 1.0 - 0.62 * spread * spread + dice.between(-0.08, 0.12);
        let root = [92.0 + 16.0 * spread, 206.0];
        let tip = [92.0 + spread * reach * 0.86, 206.0 - reach * lift];
        let bend = [92.0 + 0.30 * spread * reach, 206.0 - reach * (0.62 * lift + 0.22)];
        leaves.push((Path::through(&[root, bend, tip]), dice.between(7.5, 11.5), turn, spread));
    }
    let leaf = |canvas: &mut Canvas, (path, half, turn, spread): &(Path, f32, f32, f32)| {
        let whole: f32 = path.0.windows(2).map(|pair| length(between(pair[0], pair[1]))).sum();
        let middle = path.0[path.0.len() / 2];
        canvas.paint(middle, whole * 0.75, |point, _| {
            let (distance, place) = path.distance(point);
            let part = place / whole;
            let width = half * smooth(0.18, 0.60, part) * smooth(1.02, 0.72, part) + 1.1;
            let vein = smooth(1.3, 0.4, distance);
            let ribs = 0.06 * wave((place - distance * 1.2) / 7.0);
            let ahead = path.distance([point[0] + 0.8, point[1] + 1.0]).0 - distance;
            let light = 0.60 + 0.40 * turn + 0.16 * ahead - 0.16 * spread + ribs + 0.20 * part;
            let green = mix(web(0x2f6038), web(0x6c9a48), 0.35 + 0.5 * turn * part);
            Some((mix(lit(green, light), web(0xb9cf8c), 0.55 * vein), inside(distance - width)))
        });
    };
    for blade in leaves.iter().take(18) {
        leaf(canvas, blade);
    }
    canvas.shape([92.0, 204.0], 60.0, web(0x3d2a20), |p| to_ellipse(between([92.0, 203.0], p), 45.0, 10.0));
    pot.paint(canvas, clay);
    canvas.paint([92.0, 224.0], 60.0, |point, below| {
        let fade = smooth(234.0, 218.0, point[1]) * f32::from(u8::from(point[1] > 214.0));
        Some((lit(below, 0.6), 0.7 * fade * inside((point[0] - 92.0).abs() - pot.half(point[1]))))
    });
    rim.paint(canvas, clay);
    canvas.paint([92.0, 202.0], 56.0, |point, _| {
        let ring = to_ellipse(between([92.0, 202.0], point), 49.0, 11.5);
        let hole = to_ellipse(between([92.0, 202.0], point), 44.0, 9.0);
        let edge = lit(web(0xd98a60), 0.95 - 0.20 * (point[0] - 92.0) / 49.0);
        let soil = lit(web(0x3a2a20), 0.9 + 0.4 * noise(point[0] / 3.0, point[1] / 2.0, 23));
        Some((mix(edge, soil, inside(hole)), inside(ring)))
    });
    for blade in leaves.iter().skip(18) {
        leaf(canvas, blade);
    }
}

fn books(canvas: &mut Canvas) {
    // From the bottom: left and right end of the spine, its lower edge, thickness, cover, shift of the far edge.
    let stack = [
        ([168.0, 300.0], 314.0, 21.0, web(0x2f4f6f), 10.0),
        ([178.0, 292.0], 293.0, 17.0, web(0xb4483a), 14.0),
        ([172.0, 280.0], 276.0, 23.0, web(0xd8c9a0), 6.0),
    ];
    for (number, ([left, right], foot, thick, cover, shift)) in stack.into_iter().enumerate() {
        let (top, back) = (foot - thick, foot - thick - 25.0);
        let far = [left + shift + 8.0, right + shift - 10.0];
        let lid = [[left, top], [right, top], [far[1], back], [far[0], back]];
        let centre = [(left + right) / 2.0, foot - 20.0];
        canvas.paint(centre, 100.0, |point, _| {
            let gleam = 1.12 - 0.28 * smooth(left, right, point[0]);
            let cloth = 0.03 * noise(point[0] / 1.5, point[1] / 1.5, 31 + number as u32);
            Some((lit(cover, gleam + cloth), inside(to_polygon(point, &lid))))
        });
        // The spine: rounded, with a label and two bands.
        canvas.paint(centre, 100.0, |point, _| {
            let (u, v) = ((point[0] - left) / (right - left), (point[1] - top) / thick);
            let swell = 0.66 + 0.34 * (1.0 - (2.0 * v - 0.75) * (2.0 * v - 0.75)).max(0.0);
            let band = smooth(0.012, 0.006, (u - 0.12).abs()) + smooth(0.012, 0.006, (u - 0.88).abs());
            let title = inside(to_rectangle([(u - 0.44) * 120.0, (v - 0.5) * thick], 26.0, thick * 0.2, 0.5));
            let letters = title * smooth(-0.1, 0.2, noise(point[0] / 2.4, 5.0 * number as f32, 35));
            let gold = [web(0xe2c98c), web(0xf0dfb4), web(0x6b4a34)][number];
            let colour = mix(cover, gold, (0.85 * band + 0.8 * letters).min(1.0));
            let fall = 1.0 - 0.26 * u;
            let distance = to_rectangle(
                [point[0] - (left + right) / 2.0, point[1] - (top + foot) / 2.0],
                (right - left) / 2.0,
                thick / 2.0,
                3.5,
            );
            Some((lit(colour, swell * fall), inside(distance)))
        });
        // What lies on it, or the table below it, gets a line of shade.
        canvas.paint(centre, 100.0, |point, below| {
            let line = smooth(2.4, 0.2, (point[1] - foot + 0.4).abs())
                * inside((point[0] - (left + right) / 2.0).abs() - (right - left) / 2.0 + 2.0);
            Some((lit(below, 0.45), 0.7 * line))
        });
    }
    // Reading glasses would be too small; a pencil is not.
    let (from, to) = ([196.0, 246.0], [262.0, 236.0]);
    canvas.shadow([230.0, 243.0], 44.0, 0.5, 1.6, |p| {
        to_line(p, [from[0] + 3.0, from[1] + 3.5], [to[0] + 3.0, to[1] + 3.5]).0 - 1.6
    });
    canvas.paint([230.0, 241.0], 44.0, |point, _| {
        let (distance, part) = to_line(point, from, to);
        let wood = if part > 0.94 {
            web(0x3a3430)
        } else if part > 0.87 {
            web(0xe3c79a)
        } else {
            web(0xe2a62f)
        };
        let taper = 2.3 - 2.0 * smooth(0.87, 1.0, part);
        let above = if part > 0.0 && part < 1.0 { (point[1] - from[1] - (to[1] - from[1]) * part) * 0.10 } else { 0.0 };
        Some((lit(wood, 1.0 - above), inside(distance - taper)))
    });
}

fn mug(canvas: &mut Canvas) {
    let body = Vessel { x: 414.0, top: 226.0, foot: 310.0, half_top: 40.0, half_foot: 36.0 };
    let handle = [456.0, 264.0];
    canvas.paint(handle, 40.0, |point, _| {
        let [x, y] = between(handle, point);
        let ring = length([x, y * 0.86]) - 20.0;
        let light = 0.52 - 0.22 * (ring / 5.0) * if x + y > 0.0 { 1.0 } else { -1.0 } - 0.006 * y;
        Some((lit(web(0x3f83a0), light + 0.12), inside(ring.abs() - 5.6)))
    });
    body.paint(canvas, |point, across| {
        let glaze = mix(web(0x4593b0), web(0x5aa7c0), 0.5 + 0.5 * noise(point[0] / 30.0, point[1] / 30.0, 41));
        let bend = 5.5 * (1.0 - across * across).max(0.0).sqrt();
        let stripe = inside((point[1] - bend - 288.0).abs() - 5.5).max(inside((point[1] - bend - 272.0).abs() - 1.4));
        let gloss =
            smooth(0.16, 0.0, (across + 0.52).abs()) * smooth(226.0, 250.0, point[1]) * smooth(306.0, 262.0, point[1]);
        mix(mix(glaze, web(0xf0e9d8), stripe), [1.6, 1.6, 1.55], 0.55 * gloss)
    });
    canvas.paint([414.0, 226.0], 50.0, |point, _| {
        let from_rim = between([414.0, 226.0], point);
        let coffee = between([414.0, 230.0], point);
        let wall = lit(web(0x6fb3c8), 0.62 + 0.30 * smooth(-36.0, 36.0, from_rim[0]));
        let crema = smooth(-6.0, -1.0, to_ellipse(coffee, 34.0, 7.0));
        let liquid = mix(web(0x3a2117), web(0x8a5a34), 0.8 * crema);
        let shine = smooth(9.0, 2.0, length([coffee[0] + 12.0, (coffee[1] + 1.0) * 3.0]));
        let liquid = mix(liquid, web(0xe6d8c4), 0.5 * shine);
        let inner = mix(wall, liquid, inside(to_ellipse(coffee, 34.0, 7.0)));
        let rim = lit(web(0x8cc6d6), 1.05 - 0.22 * smooth(-40.0, 40.0, from_rim[0]));
        Some((mix(rim, inner, inside(to_ellipse(from_rim, 37.0, 9.0))), inside(to_ellipse(from_rim, 40.0, 11.0))))
    });
    // Steam.
    canvas.paint([414.0, 176.0], 70.0, |point, _| {
        let rise = (224.0 - point[1]) / 92.0;
        if !(0.0..1.0).contains(&rise) {
            return None;
        }
        let sway = 13.0 * rise * noise(point[1] / 24.0, 1.0, 43) + 5.0 * rise;
        let veil = [-9.0, 8.0]
            .iter()
            .map(|&x| smooth(3.0 + 11.0 * rise, 0.0, (point[0] - 414.0 - x - sway * (1.0 + 0.04 * x)).abs()))
            .sum::<f32>();
        Some((web(0xffffff), 0.26 * veil * smooth(0.0, 0.15, rise) * smooth(1.0, 0.35, rise)))
    });
}

fn orange(canvas: &mut Canvas, centre: Point, radius: f32) {
    canvas.paint(centre, radius + 3.0, |point, _| {
        let [x, y] = between(centre, point);
        let (u, v) = (x / radius, y / radius);
        let height = (1.0 - u * u - v * v).max(0.0).sqrt();
        let pores = 0.10 * noise(point[0] / 1.9, point[1] / 1.9, 51);
        let facing = (-0.55 * u - 0.55 * v + 0.63 * height).max(0.0);
        let bounce = 0.16 * smooth(0.4, 1.0, v);
        let skin = mix(web(0xd9641e), web(0xf59a33), facing);
        let gloss = smooth(0.955, 0.995, -0.42 * u - 0.50 * v + 0.76 * height);
        let colour = mix(lit(skin, 0.42 + 0.66 * facing + bounce + pores * (0.3 + facing)), web(0xfff3d8), 0.6 * gloss);
        let stalk = mix(colour, web(0x5f6a34), inside(length([x - 3.0, (y + 16.0) * 1.6]) - 2.4));
        Some((stalk, inside((length([u, v]) - 1.0) * radius)))
    });
}
