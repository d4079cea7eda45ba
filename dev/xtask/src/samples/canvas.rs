//! What the painters paint with: colours, noise, shapes, and a canvas.
//!
//! Only operations that IEEE 754 defines exactly are used (no sine or power of the platform), so that a picture comes
//! out the same on every machine.

use dinov3_picture::RgbPicture;

/// Red, green and blue from 0 to 1, as the screen takes them.
pub type Colour = [f32; 3];

/// A point or a direction in pixels: right and down.
pub type Point = [f32; 2];

/// Samples per pixel and axis of a small picture. Edges are smoothed by averaging.
const SAMPLES: usize = 2;

/// A colour as the web writes it: `0xRRGGBB`.
pub const fn web(code: u32) -> Colour {
    [(code >> 16) as f32 / 255.0, ((code >> 8) & 255) as f32 / 255.0, (code & 255) as f32 / 255.0]
}

/// From one colour (0) to another (1).
pub fn mix(from: Colour, to: Colour, part: f32) -> Colour {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * part)
}

/// A colour in more or less light.
pub fn lit(colour: Colour, light: f32) -> Colour {
    colour.map(|value| value * light)
}

/// 0 up to `from`, 1 after `to`, smooth between. With `from` larger than `to` it falls.
pub fn smooth(from: f32, to: f32, value: f32) -> f32 {
    let t = ((value - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// How far inside an edge a sample lies, as coverage: 1 where the distance is negative.
pub fn inside(distance: f32) -> f32 {
    smooth(0.4, -0.4, distance)
}

/// A wave like a sine, with period 1: parabolas, which are exact everywhere.
pub fn wave(turns: f32) -> f32 {
    let t = turns - turns.floor();
    if t < 0.5 { 16.0 * t * (0.5 - t) } else { -16.0 * (t - 0.5) * (1.0 - t) }
}

/// A number from 0 to 1 for a place on a grid.
pub fn scatter(x: i32, y: i32, seed: u32) -> f32 {
    let mut state =
        (x as u32).wrapping_mul(0x85eb_ca6b) ^ (y as u32).wrapping_mul(0xc2b2_ae35) ^ seed.wrapping_mul(0x27d4_eb2f);
    state = (state ^ (state >> 15)).wrapping_mul(0x2c1b_3c6d);
    state = (state ^ (state >> 12)).wrapping_mul(0x297a_2d39);
    (state ^ (state >> 15)) as f32 / u32::MAX as f32
}

/// Smooth noise from -1 to 1 with bumps about 1 wide.
pub fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let ease = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
    let (u, v) = (ease(x - column), ease(y - row));
    let (column, row) = (column as i32, row as i32);
    let corner = |right: i32, down: i32| scatter(column + right, row + down, seed);
    let top = corner(0, 0) + (corner(1, 0) - corner(0, 0)) * u;
    let bottom = corner(0, 1) + (corner(1, 1) - corner(0, 1)) * u;
    2.0 * (top + (bottom - top) * v) - 1.0
}

/// Noise with detail at every scale: each octave is half as wide and half as strong.
pub fn clouds(x: f32, y: f32, octaves: u32, seed: u32) -> f32 {
    let (mut sum, mut strength, mut scale) = (0.0, 0.5, 1.0);
    for octave in 0..octaves {
        sum += strength * noise(x * scale, y * scale, seed + 101 * octave);
        strength *= 0.5;
        scale *= 2.03;
    }
    sum
}

/// Length of a vector.
pub fn length([x, y]: Point) -> f32 {
    (x * x + y * y).sqrt()
}

/// From one point to another.
pub fn between(from: Point, to: Point) -> Point {
    [to[0] - from[0], to[1] - from[1]]
}

/// Coordinates along and across a direction of length 1, seen from `origin`.
pub fn turned(point: Point, origin: Point, along: Point) -> Point {
    let [x, y] = between(origin, point);
    [x * along[0] + y * along[1], y * along[0] - x * along[1]]
}

/// A direction of length 1.
pub fn direction(towards: Point) -> Point {
    let length = length(towards);
    [towards[0] / length, towards[1] / length]
}

/// Distance to a rectangle around the origin, negative inside; corners rounded by `radius`.
pub fn to_rectangle([x, y]: Point, half_width: f32, half_height: f32, radius: f32) -> f32 {
    let (dx, dy) = (x.abs() - half_width + radius, y.abs() - half_height + radius);
    length([dx.max(0.0), dy.max(0.0)]) + dx.max(dy).min(0.0) - radius
}

/// About the distance to an ellipse around the origin, negative inside.
pub fn to_ellipse([x, y]: Point, half_width: f32, half_height: f32) -> f32 {
    (length([x / half_width, y / half_height]) - 1.0) * half_width.min(half_height)
}

/// Distance to a polygon, negative inside.
pub fn to_polygon(point: Point, corners: &[Point]) -> f32 {
    let (mut nearest, mut within) = (f32::MAX, false);
    for (index, &to) in corners.iter().enumerate() {
        let from = corners[(index + corners.len() - 1) % corners.len()];
        nearest = nearest.min(to_line(point, from, to).0);
        if (from[1] > point[1]) != (to[1] > point[1]) {
            let crossing = from[0] + (to[0] - from[0]) * (point[1] - from[1]) / (to[1] - from[1]);
            within ^= point[0] < crossing;
        }
    }
    if within { -nearest } else { nearest }
}

/// Distance to a line between two points, and where along it (0 to 1) the nearest place is.
pub fn to_line(point: Point, from: Point, to: Point) -> (f32, f32) {
    let (line, reach) = (between(from, to), between(from, point));
    let square = (line[0] * line[0] + line[1] * line[1]).max(1e-9);
    let part = ((line[0] * reach[0] + line[1] * reach[1]) / square).clamp(0.0, 1.0);
    (length([reach[0] - line[0] * part, reach[1] - line[1] * part]), part)
}

/// A curve through points, as short lines.
pub struct Path(pub Vec<Point>);

impl Path {
    /// A smooth curve through all points.
    pub fn through(points: &[Point]) -> Self {
        let at = |index: isize| points[index.clamp(0, points.len() as isize - 1) as usize];
        let mut fine = Vec::new();
        for start in 0..points.len() as isize - 1 {
            for step in 0..12 {
                let t = step as f32 / 12.0;
                fine.push(std::array::from_fn(|axis| {
                    let [a, b, c, d] = [-1, 0, 1, 2].map(|offset| at(start + offset)[axis]);
                    b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
                }));
            }
        }
        fine.push(points[points.len() - 1]);
        Self(fine)
    }

    /// Distance to the curve, and how far along it (in pixels) the nearest place is.
    pub fn distance(&self, point: Point) -> (f32, f32) {
        let (mut nearest, mut place, mut travelled) = (f32::MAX, 0.0, 0.0);
        for pair in self.0.windows(2) {
            let (distance, part) = to_line(point, pair[0], pair[1]);
            let step = length(between(pair[0], pair[1]));
            if distance < nearest {
                (nearest, place) = (distance, travelled + part * step);
            }
            travelled += step;
        }
        (nearest, place)
    }

    /// Points every `step` pixels along the curve, with the direction there.
    pub fn walk(&self, step: f32) -> Vec<(Point, Point)> {
        let (mut found, mut wait) = (Vec::new(), 0.0);
        for pair in self.0.windows(2) {
            let line = between(pair[0], pair[1]);
            let (whole, along) = (length(line), direction(line));
            while wait < whole {
                found.push(([pair[0][0] + along[0] * wait, pair[0][1] + along[1] * wait], along));
                wait += step;
            }
            wait -= whole;
        }
        found
    }
}

/// Numbers without pattern, the same in every run.
pub struct Dice(u32);

impl Dice {
    /// A sequence of its own for each seed.
    pub fn new(seed: u32) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9) | 1)
    }

    /// The next number from 0 to 1.
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(1);
        scatter(self.0 as i32, (self.0 >> 7) as i32, 77)
    }

    /// The next number between two others.
    pub fn between(&mut self, from: f32, to: f32) -> f32 {
        from + (to - from) * self.next()
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[((self.next() * choices.len() as f32) as usize).min(choices.len() - 1)]
    }
}

/// A picture in the making.
pub struct Canvas {
    /// In samples.
    width: usize,
    height: usize,
    samples: usize,
    data: Vec<Colour>,
}

impl Canvas {
    /// A black canvas.
    pub fn new(width_px: usize, height_px: usize) -> Self {
        Self::with_samples(width_px, height_px, SAMPLES)
    }

    /// A black canvas with so many samples per pixel and axis. One is enough where the painter softens all edges.
    pub fn with_samples(width_px: usize, height_px: usize, samples: usize) -> Self {
        let (width, height) = (width_px * samples, height_px * samples);
        Self { width, height, samples, data: vec![[0.0; 3]; width * height] }
    }

    /// Paints everywhere, on all cores: `layer` tells the new colour at a point from the one below.
    pub fn fill(&mut self, layer: impl Fn(Point, Colour) -> Colour + Sync) {
        let (width, samples, layer) = (self.width, self.samples as f32, &layer);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let rows = self.height.div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for (part, data) in self.data.chunks_mut(rows * width).enumerate() {
                scope.spawn(move || {
                    for (index, below) in data.iter_mut().enumerate() {
                        let (x, y) = (index % width, part * rows + index / width);
                        let point = [(x as f32 + 0.5) / samples, (y as f32 + 0.5) / samples];
                        *below = layer(point, *below);
                    }
                });
            }
        });
    }

    /// Paints within `reach` pixels of `centre`: `layer` tells colour and coverage at a point, or leaves it.
    pub fn paint(&mut self, centre: Point, reach: f32, layer: impl Fn(Point, Colour) -> Option<(Colour, f32)>) {
        let samples = self.samples as f32;
        let range = |centre: f32, size: usize| {
            let start = ((centre - reach) * samples).floor().clamp(0.0, size as f32) as usize;
            start..((centre + reach) * samples).ceil().clamp(0.0, size as f32) as usize
        };
        for y in range(centre[1], self.height) {
            for x in range(centre[0], self.width) {
                let below = &mut self.data[y * self.width + x];
                let point = [(x as f32 + 0.5) / samples, (y as f32 + 0.5) / samples];
                if let Some((colour, coverage)) = layer(point, *below) {
                    *below = mix(*below, colour, coverage.clamp(0.0, 1.0));
                }
            }
        }
    }

    /// Paints one colour where `distance` is negative.
    pub fn shape(&mut self, centre: Point, reach: f32, colour: Colour, distance: impl Fn(Point) -> f32) {
        self.paint(centre, reach, |point, _| Some((colour, inside(distance(point)))));
    }

    /// Darkens softly where `distance` is negative; the edge is `softness` wide.
    pub fn shadow(&mut self, centre: Point, reach: f32, depth: f32, softness: f32, distance: impl Fn(Point) -> f32) {
        self.paint(centre, reach, |point, below| {
            // Shadows out of doors are lit by the sky: a little bluer than what they fall on.
            let dark = [below[0] * 0.30, below[1] * 0.34, below[2] * 0.42];
            Some((dark, depth * smooth(softness, -softness, distance(point))))
        });
    }

    /// The picture, with levels rounded.
    pub fn finish(&self) -> RgbPicture {
        let samples = self.samples;
        let (width_px, height_px) = (self.width / samples, self.height / samples);
        let mut data = Vec::with_capacity(3 * width_px * height_px);
        for y in 0..height_px {
            for x in 0..width_px {
                let mut sum = [0.0; 3];
                for sample in 0..samples * samples {
                    let (down, right) = (y * samples + sample / samples, x * samples + sample % samples);
                    let colour = self.data[down * self.width + right];
                    sum.iter_mut().zip(colour).for_each(|(total, value)| *total += value.clamp(0.0, 1.0));
                }
                data.extend(sum.map(|total| (total / (samples * samples) as f32 * 255.0).round() as u8));
            }
        }
        RgbPicture::new(width_px, height_px, data).expect("the canvas is as large as its data")
    }
}
