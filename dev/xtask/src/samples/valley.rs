//! A road through a valley: mountains, woods, a farmhouse, an evening sky.

use super::canvas::{
    Canvas, Colour, Point, between, clouds, inside, length, lit, mix, noise, scatter, smooth, to_polygon, to_rectangle,
    web,
};
use dinov3_picture::RgbPicture;

const WIDTH_PX: usize = 512;
const HEIGHT_PX: usize = 384;

/// Where level ground would end.
const HORIZON_PX: f32 = 206.0;

/// The scene.
pub fn paint() -> RgbPicture {
    let mut canvas = Canvas::new(WIDTH_PX, HEIGHT_PX);
    sky(&mut canvas);
    mountains(&mut canvas);
    woods(&mut canvas);
    meadow(&mut canvas);
    road(&mut canvas);
    fence(&mut canvas);
    farmhouse(&mut canvas);
    for (at, height, seed) in [
        ([38.0, 292.0], 92.0, 1),
        ([72.0, 276.0], 68.0, 2),
        ([12.0, 272.0], 74.0, 3),
        ([246.0, 240.0], 30.0, 4),
        ([262.0, 238.0], 24.0, 5),
        ([420.0, 250.0], 46.0, 6),
        ([446.0, 254.0], 58.0, 7),
        ([476.0, 250.0], 44.0, 8),
    ] {
        conifer(&mut canvas, at, height, seed);
    }
    broadleaf(&mut canvas, [478.0, 330.0], 74.0, 9);
    broadleaf(&mut canvas, [218.0, 252.0], 22.0, 10);
    canvas.finish()
}

fn sky(canvas: &mut Canvas) {
    canvas.fill(|[x, y], _| {
        let high = mix(web(0xf3dcb4), web(0x8fb7d6), smooth(HORIZON_PX - 20.0, 90.0, y));
        let blue = mix(high, web(0x3f78b5), smooth(130.0, -40.0, y));
        // Clouds shrink towards the horizon.
        let far = 60.0 / (250.0 - y);
        let at = |dx: f32, dy: f32| clouds((x + dx - 256.0) * far / 26.0 + 9.0, (dy + 900.0 * far) / 46.0, 5, 3);
        let cover = smooth(-0.02, 0.34, at(0.0, 0.0));
        let edge = (at(0.0, 0.0) - at(-14.0, -8.0)) * 1.6;
        let cloud = mix(web(0xb9bfcc), web(0xfff4e0), (0.62 - edge).clamp(0.0, 1.0));
        mix(blue, cloud, 0.92 * cover * smooth(205.0, 150.0, y))
    });
}

/// Height of a ridge: like noise, but with sharp tops.
fn ridge(x: f32, width: f32, seed: u32) -> f32 {
    let (mut sum, mut strength, mut scale) = (0.0, 0.5, 1.0 / width);
    for octave in 0..6 {
        sum += strength * (1.0 - noise(x * scale, 0.5, seed + octave).abs() * 2.0);
        strength *= 0.48;
        scale *= 2.07;
    }
    sum
}

fn mountains(canvas: &mut Canvas) {
    for (base, height, width, rock, snow_line, haze, seed) in
        [(176.0, 92.0, 150.0, web(0x66788f), 112.0, 0.42, 20_u32), (196.0, 74.0, 118.0, web(0x55616a), 120.0, 0.18, 40)]
    {
        canvas.fill(|[x, y], below| {
            let top = base - height * (0.42 + 0.62 * ridge(x, width, seed));
            // Gullies run down the slope; light comes from the left.
            let face = |dx: f32| {
                let down = y - top;
                clouds(
                    (x + dx) / 24.0 + down / 54.0 + 0.2 * noise(x / 12.0, down / 9.0, seed + 9),
                    down / 24.0,
                    5,
                    seed + 10,
                )
            };
            let light = 0.80 + 1.5 * (face(-2.5) - face(2.5));
            let snow = smooth(
                snow_line + 16.0,
                snow_line - 14.0,
                y + 26.0 * face(0.0) + 12.0 * noise(x / 7.0, y / 6.0, seed + 11),
            );
            let stone = mix(rock, web(0x8a7f74), 0.35 + 0.35 * noise(x / 30.0, y / 14.0, seed + 12));
            let colour = lit(mix(stone, web(0xf7f3ee), snow), light.clamp(0.45, 1.12));
            let colour = mix(colour, web(0xc9d5df), haze + 0.30 * smooth(top, base + 20.0, y));
            mix(below, colour, inside(top - y))
        });
    }
}

fn woods(canvas: &mut Canvas) {
    for (base, rise, width, colour, haze, spacing, seed) in [
        (196.0, 26.0, 110.0, web(0x4f7060), 0.42, 3.2, 60_u32),
        (211.0, 24.0, 90.0, web(0x3f6146), 0.22, 4.4, 70),
        (226.0, 18.0, 130.0, web(0x335239), 0.06, 6.2, 80),
    ] {
        canvas.fill(|[x, y], below| {
            // Rows of tree tops: each a small triangle of its own height.
            let mut cover: f32 = 0.0;
            let mut shade = 0.0;
            for row in 0..6 {
                let shift = row as f32 * spacing * 0.9;
                for step in -1..=1 {
                    let index = ((x / spacing).floor() as i32) + step;
                    let foot = (index as f32 + 0.5 + 0.6 * scatter(index, row, seed)) * spacing;
                    let hill = base
                        - rise * (0.5 + 0.9 * noise(foot / width, 0.5, seed) + 0.25 * noise(foot / 30.0, 1.5, seed));
                    let top = hill + shift - spacing * (1.2 + 1.3 * scatter(index, row, seed + 1));
                    let tip = inside((x - foot).abs() - (y - top) * 0.30).min(inside(top - y));
                    if tip > 0.5 {
                        shade = 0.84 + 0.30 * scatter(index, row, seed + 2) - 0.09 * (x - foot) - 0.006 * (y - top);
                    }
                    cover = cover.max(tip);
                }
            }
            let hill = base - rise * (0.5 + 0.9 * noise(x / width, 0.5, seed) + 0.25 * noise(x / 30.0, 1.5, seed));
            let cover = cover.max(inside(hill + spacing - y));
            let tone = if shade > 0.0 { shade } else { 0.9 };
            let colour = mix(lit(colour, tone.clamp(0.6, 1.3)), web(0xc4d2d6), haze);
            mix(below, colour, cover)
        });
    }
}

/// Upper edge of the meadow.
fn rise(x: f32) -> f32 {
    236.0 + 7.0 * noise(x / 130.0, 0.5, 90) - 0.010 * (x - 250.0)
}

fn meadow(canvas: &mut Canvas) {
    canvas.fill(|[x, y], below| {
        let near = ((y - HORIZON_PX) / (HEIGHT_PX as f32 - HORIZON_PX)).max(0.02);
        let (u, v) = ((x - 256.0) / near, 60.0 / near);
        let blades = noise(x / (0.8 + 1.2 * near), y / (1.2 + 4.0 * near), 91)
            + 0.6 * noise(x / (1.5 + 3.0 * near), y / (2.0 + 9.0 * near), 92);
        let patches = clouds(u / 160.0, v / 26.0, 3, 93);
        let grass = mix(web(0x6f9244), web(0xa6ad55), smooth(-0.35, 0.4, patches));
        let grass = lit(grass, 0.94 + (0.04 + 0.10 * near) * blades + 0.10 * smooth(420.0, 40.0, x));
        // Shadows of clouds, and the dark foot of the wood.
        let cloudy = smooth(0.02, 0.25, clouds(u / 420.0 + 3.0, v / 60.0, 2, 94));
        let grass = lit(grass, 1.0 - 0.20 * cloudy - 0.30 * smooth(12.0, 0.0, y - rise(x)));
        mix(below, grass, inside(rise(x) - y))
    });
    // Flowers: bigger towards the eye.
    for index in 0..620 {
        let near = scatter(index, 1, 95) * scatter(index, 2, 95);
        let at = [WIDTH_PX as f32 * scatter(index, 3, 95), 256.0 + 128.0 * (0.08 + 0.92 * near)];
        let clustered = noise(at[0] / 60.0, at[1] / 26.0, 96) > -0.12;
        if !clustered || (road_at(at).0).abs() < 1.35 {
            continue;
        }
        let size = 0.5 + 1.9 * near;
        let petal =
            [web(0xf5f1e2), web(0xf2cf4a), web(0xd65a4c), web(0xb487c8)][(scatter(index, 4, 95) * 3.99) as usize];
        canvas.shape(at, size + 2.0, petal, |p| length([p[0] - at[0], (p[1] - at[1]) * 1.35]) - size);
        canvas.shape(at, size + 1.0, lit(petal, 0.72), |p| length([p[0] - at[0], p[1] - at[1]]) - size * 0.35);
    }
}

/// Where a point lies across the road (-1 to 1 on it) and how near the eye (0 to 1).
fn road_at([x, y]: Point) -> (f32, f32) {
    let near = ((y - 238.0) / (HEIGHT_PX as f32 - 238.0)).max(0.0);
    let bend =
        |t: f32| 304.0 + 60.0 * (1.0 - t) * (1.0 - t) * (1.0 - t) - 128.0 * t * (1.0 - t) * (1.0 - t) * 2.2 + 10.0 * t;
    let half = 1.6 + 84.0 * near * near * (0.55 + 0.45 * near) + 8.0 * near;
    ((x - bend(near)) / half, near)
}

fn road(canvas: &mut Canvas) {
    canvas.fill(|point, below| {
        let (across, near) = road_at(point);
        if point[1] < rise(point[0]) + 1.0 || across.abs() > 1.5 {
            return below;
        }
        let pixel = 0.7 / (1.6 + 84.0 * near * near + 8.0 * near);
        let on = |edge: f32| smooth(pixel, -pixel, across.abs() - edge);
        let gravel = lit(web(0xb7a888), 1.0 + 0.10 * noise(point[0] / 2.0, point[1] / 1.6, 101));
        let colour = mix(below, gravel, 0.85 * on(1.18 + 0.07 * noise(point[1] / 5.0, across.signum(), 102)));
        let grain = 0.035 * noise(point[0] / 1.7, point[1] / 1.3, 103)
            + 0.04 * clouds(point[0] / 40.0, point[1] / 14.0, 2, 104);
        let worn = 0.06 * smooth(0.16, 0.02, (across.abs() - 0.45).abs());
        let asphalt = lit(web(0x7b7a7c), 0.98 + grain - worn + 0.10 * smooth(0.5, 0.0, near));
        let colour = mix(colour, asphalt, on(1.0));
        let line = smooth(pixel, -pixel, (across.abs() - 0.90).abs() - 0.022);
        // Equal lengths on the ground shrink with the square of the distance.
        let ahead = 16.0 / (near + 0.055);
        let dash = f32::from(u8::from(ahead / 14.0 - (ahead / 14.0).floor() < 0.5));
        let middle = smooth(pixel, -pixel, across.abs() - 0.026) * dash;
        mix(colour, web(0xf0ece0), 0.85 * line.max(middle))
    });
}

fn fence(canvas: &mut Canvas) {
    let post = |index: usize| {
        let t = index as f32 / 9.0;
        let near = t * t;
        [16.0 + 196.0 * (1.0 - near), 262.0 + 112.0 * near, 6.0 + 40.0 * near]
    };
    let wood = web(0x8a6f52);
    for index in 0..9 {
        let ([x0, y0, h0], [x1, y1, h1]) = (post(index), post(index + 1));
        for level in [0.42, 0.80] {
            let rail = [
                [x0, y0 - h0 * level],
                [x1, y1 - h1 * level],
                [x1, y1 - h1 * (level - 0.10)],
                [x0, y0 - h0 * (level - 0.10)],
            ];
            let middle = [(x0 + x1) / 2.0, (y0 + y1) / 2.0 - h1 / 2.0];
            canvas.paint(middle, 60.0, |point, _| {
                let light = 0.95 + 0.15 * noise(point[0] / 9.0, point[1] / 1.4, 111);
                Some((lit(wood, light), inside(to_polygon(point, &rail))))
            });
        }
    }
    for index in 0..10 {
        let [x, y, height] = post(index);
        let half = 0.09 * height;
        canvas.shadow([x + height * 0.35, y], height, 0.4, 1.2, |p| {
            to_rectangle([p[0] - x - height * 0.4, (p[1] - y) * 3.0], height * 0.42, half * 2.0, 0.5)
        });
        canvas.paint([x, y - height / 2.0], height, |point, _| {
            let across = (point[0] - x) / half;
            let light = 0.92 - 0.26 * across + 0.12 * noise(point[0] / 1.2, point[1] / 9.0, 112);
            Some((
                lit(wood, light),
                inside(to_rectangle([point[0] - x, point[1] - y + height / 2.0], half, height / 2.0, half * 0.4)),
            ))
        });
    }
}

fn farmhouse(canvas: &mut Canvas) {
    let boards = |ground: Colour, [x, y]: Point, light: f32| lit(ground, light + 0.03 * noise(x / 3.0, y / 1.2, 121));
    canvas.shadow([170.0, 262.0], 90.0, 0.45, 4.0, |p| {
        to_polygon(p, &[[96.0, 262.0], [190.0, 258.0], [226.0, 264.0], [150.0, 270.0]])
    });
    let piece = |canvas: &mut Canvas, corners: &[Point], ground: Colour, light: f32| {
        canvas.paint([140.0, 225.0], 90.0, |point, _| {
            Some((boards(ground, point, light), inside(to_polygon(point, corners))))
        });
    };
    // The gable looks to the left, into the light; the long wall towards the eye.
    piece(canvas, &[[92.0, 262.0], [92.0, 228.0], [109.0, 207.0], [126.0, 228.0], [126.0, 265.0]], web(0xf4e6cb), 1.0);
    piece(canvas, &[[126.0, 265.0], [126.0, 228.0], [186.0, 229.0], [186.0, 260.0]], web(0xe2cfae), 0.82);
    let roof = [[106.0, 203.0], [168.0, 207.0], [192.0, 232.0], [129.0, 232.0]];
    canvas.paint([150.0, 218.0], 60.0, |point, _| {
        let row = (point[1] / 3.2 - (point[1] / 3.2).floor()) * 0.12;
        let tile = 0.07 * noise(point[0] / 2.2, (point[1] / 3.2).floor(), 122);
        Some((lit(web(0xb5523a), 0.98 - row + tile), inside(to_polygon(point, &roof))))
    });
    piece(canvas, &[[106.0, 203.0], [110.0, 203.0], [92.0, 230.0], [87.0, 232.0]], web(0x8f3f2e), 1.0);
    piece(canvas, &[[106.0, 203.0], [109.0, 203.0], [132.0, 232.0], [126.0, 232.0]], web(0x8f3f2e), 0.9);
    piece(canvas, &[[146.0, 213.0], [146.0, 196.0], [154.0, 196.0], [154.0, 214.0]], web(0x9b6a55), 0.95);
    piece(canvas, &[[144.5, 197.0], [144.5, 194.0], [155.5, 194.0], [155.5, 197.0]], web(0x6d5148), 1.0);
    for (corner, size, glass) in [
        ([104.0, 226.0], [9.0, 10.0], web(0x4c6374)),
        ([98.0, 243.0], [9.0, 11.0], web(0x5b7486)),
        ([112.0, 244.0], [8.0, 11.0], web(0x4c6374)),
        ([134.0, 238.0], [9.0, 10.0], web(0x3d5160)),
        ([170.0, 237.0], [9.0, 10.0], web(0x3d5160)),
    ] {
        let centre = [corner[0] + size[0] / 2.0, corner[1] + size[1] / 2.0];
        canvas.shape(centre, 12.0, web(0xf6f1e4), |p| {
            to_rectangle(between(centre, p), size[0] / 2.0 + 1.0, size[1] / 2.0 + 1.0, 0.2)
        });
        canvas.paint(centre, 10.0, |point, _| {
            let [x, y] = between(centre, point);
            let bars = x.abs().min(y.abs()) < 0.5;
            let pane = lit(glass, 1.0 - 0.05 * (x + y));
            Some((
                if bars { web(0xf6f1e4) } else { pane },
                inside(to_rectangle([x, y], size[0] / 2.0, size[1] / 2.0, 0.1)),
            ))
        });
    }
    piece(canvas, &[[151.0, 263.0], [151.0, 241.0], [162.0, 241.0], [162.0, 262.5]], web(0x3f6b52), 0.9);
}

fn conifer(canvas: &mut Canvas, at: Point, height: f32, seed: u32) {
    canvas.shadow([at[0] + height * 0.28, at[1]], height, 0.5, 3.0, |p| {
        to_rectangle([p[0] - at[0] - height * 0.30, (p[1] - at[1]) * 3.2], height * 0.36, height * 0.13, height * 0.1)
    });
    canvas.shape([at[0], at[1] - 4.0], height, web(0x4d3a2b), |p| {
        to_rectangle([p[0] - at[0], p[1] - at[1] + 5.0], height * 0.03, 6.0, 0.2)
    });
    canvas.paint([at[0], at[1] - height / 2.0], height * 0.65, |point, _| {
        let down = (point[1] - at[1] + height) / (height * 0.95);
        if !(0.0..=1.02).contains(&down) {
            return None;
        }
        // Branches hang in tiers, wider towards the ground.
        let tiers = 4.0 + height / 16.0;
        let within = down * tiers - (down * tiers).floor();
        let needles = noise(point[0] / 2.2, point[1] / 2.6, 130 + seed);
        let half = height * 0.235 * (down * 0.80 + 0.20 * down * within) + height * 0.012 * needles + 0.5;
        let x = point[0] - at[0];
        let ragged = 1.0 - 0.26 * within * smooth(0.3, 1.0, x.abs() / half) - 0.05 * needles;
        let light = 0.86 - 0.34 * (x / half) - 0.36 * smooth(0.6, 0.0, within) + 0.26 * needles;
        let green = mix(web(0x2d5135), web(0x557a42), smooth(0.3, -0.8, x / half) * 0.75);
        Some((lit(green, light), inside(x.abs() - half * ragged)))
    });
}

fn broadleaf(canvas: &mut Canvas, at: Point, height: f32, seed: u32) {
    let crown = [at[0], at[1] - height * 0.66];
    canvas.shadow([at[0] + height * 0.2, at[1]], height, 0.5, 4.0, |p| {
        length([p[0] - at[0] - height * 0.22, (p[1] - at[1]) * 3.4]) - height * 0.44
    });
    let trunk = [
        [at[0] - height * 0.05, at[1]],
        [at[0] - height * 0.03, crown[1]],
        [at[0] + height * 0.03, crown[1]],
        [at[0] + height * 0.06, at[1]],
    ];
    canvas.paint([at[0], at[1] - height * 0.3], height, |point, _| {
        let light = 0.9 - 5.0 * (point[0] - at[0]) / height + 0.2 * noise(point[0] / 1.5, point[1] / 7.0, 140);
        Some((lit(web(0x6b5039), light), inside(to_polygon(point, &trunk))))
    });
    // Tufts of leaves, those in the back and below first.
    for index in 0..46 {
        let turn = scatter(index, 1, 150 + seed) * 2.0 - 1.0;
        let up = 1.0 - 2.0 * (index as f32 + 0.5) / 46.0;
        let width = (1.0 - up * up).max(0.05).sqrt();
        let centre = [crown[0] + turn * width * height * 0.36, crown[1] + up * height * 0.30];
        let radius = height * (0.10 + 0.05 * scatter(index, 2, 150 + seed));
        canvas.paint(centre, radius * 1.5 + 2.0, |point, _| {
            let [x, y] = between(centre, point);
            let leaves = noise(point[0] / 2.0, point[1] / 2.0, 160 + seed)
                + 0.6 * noise(point[0] / 4.5, point[1] / 4.5, 161 + seed);
            let light = 0.80 - 0.26 * x / radius - 0.30 * y / radius - 0.20 * turn - 0.26 * up + 0.20 * leaves;
            let green = mix(web(0x3f6a35), web(0x85a04a), smooth(0.7, 1.3, light) * 0.8);
            Some((lit(green, light.clamp(0.45, 1.35)), inside(length([x, y]) - radius * (1.0 + 0.22 * leaves))))
        });
    }
}
