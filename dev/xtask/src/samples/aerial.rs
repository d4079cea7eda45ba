//! What both scenes from above have: trees, houses, vehicles. The sun stands in the north-west.

use super::canvas::{
    Canvas, Colour, Point, between, inside, length, lit, mix, noise, smooth, to_rectangle, turned, web,
};

/// Towards the light: left, up, and out of the picture.
const SUN: [f32; 3] = [-0.50, -0.50, 0.71];

/// The crown of a tree.
pub struct Tree {
    pub at: Point,
    pub radius: f32,
    /// From fresh green (0) to dry (1).
    pub dry: f32,
    pub seed: u32,
}

/// All shadows first, so that none falls on a neighbour's crown.
pub fn paint_trees(canvas: &mut Canvas, trees: &[Tree]) {
    for tree in trees {
        let fall = [tree.at[0] + 0.75 * tree.radius, tree.at[1] + 0.75 * tree.radius];
        canvas.shadow(fall, tree.radius + 3.0, 0.62, 1.2, |point| length(between(fall, point)) - tree.radius);
    }
    for tree in trees {
        let tone = noise(tree.seed as f32 * 0.37, 0.5, 91);
        let fresh = mix(web(0x3f6130), web(0x57793a), 0.5 + 0.5 * tone);
        let leaves = mix(fresh, web(0x8a8a45), tree.dry);
        canvas.paint(tree.at, tree.radius + 2.0, |point, _| {
            let [x, y] = between(tree.at, point);
            let bumps = noise(point[0] / 2.1, point[1] / 2.1, tree.seed);
            let reach = length([x, y]) / tree.radius + 0.14 * bumps;
            let height = (1.0 - reach * reach).max(0.0).sqrt();
            let towards_sun = (x * SUN[0] + y * SUN[1]) / tree.radius + height * SUN[2];
            let light = 0.62 + 0.55 * towards_sun + 0.13 * bumps;
            Some((lit(leaves, light), inside((reach - 1.0) * tree.radius)))
        });
    }
}

/// A house with a gabled roof: `facing` is the direction of the ridge.
pub fn house(canvas: &mut Canvas, at: Point, facing: Point, half_long: f32, half_short: f32, roof: Colour) {
    let reach = half_long + half_short + 6.0;
    // A body casts the union of its shadows at all heights.
    canvas.shadow(at, reach, 0.8, 0.7, |point| {
        (0..5)
            .map(|step| {
                let shift = step as f32 * 1.1;
                let moved = turned([point[0] - shift, point[1] - shift], at, facing);
                to_rectangle(moved, half_long, half_short, 0.5)
            })
            .fold(f32::MAX, f32::min)
    });
    canvas.paint(at, reach, |point, _| {
        let [u, v] = turned(point, at, facing);
        // The two slopes look to either side of the ridge.
        let side = if v < 0.0 { -1.0 } else { 1.0 };
        let normal = [-facing[1] * side * 0.5, facing[0] * side * 0.5];
        let light = 0.78 + 0.55 * (normal[0] * SUN[0] + normal[1] * SUN[1]) + 0.16;
        let ridge = 0.25 * smooth(0.9, 0.3, v.abs());
        let tiles = 0.03 * noise(u / 1.5, v / 1.2, 93);
        Some((lit(roof, light + ridge + tiles), inside(to_rectangle([u, v], half_long, half_short, 0.4))))
    });
    let chimney = [at[0] + facing[0] * half_long * 0.5, at[1] + facing[1] * half_long * 0.5];
    canvas.shape(chimney, 3.0, web(0x5f4c45), |point| to_rectangle(turned(point, chimney, facing), 0.9, 0.9, 0.2));
}

/// A car or, if long, a lorry.
pub fn vehicle(canvas: &mut Canvas, at: Point, facing: Point, half_long: f32, paint: Colour) {
    let body = |point: Point| to_rectangle(turned(point, at, facing), half_long, 1.35, 0.6);
    canvas.shadow(at, half_long + 4.0, 0.6, 0.6, |[x, y]| body([x - 1.0, y - 1.0]));
    canvas.shape(at, half_long + 3.0, paint, body);
    if half_long < 4.0 {
        let glass = [at[0] + facing[0] * 0.6, at[1] + facing[1] * 0.6];
        canvas.shape(glass, 3.0, web(0x2c353d), |point| to_rectangle(turned(point, glass, facing), 0.6, 1.0, 0.2));
    }
}
