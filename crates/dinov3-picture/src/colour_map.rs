//! A colour for every number between 0 and 1, computed, not copied.
//!
//! The path runs through the Oklab space from a dark violet over teal to a light yellow: lightness rises steadily, the
//! hue turns steadily, and saturation is what sRGB can show at each place. Then the path is cut into steps of equal
//! length, so that equal differences of the number look equally large.

use std::sync::OnceLock;

/// 256 sRGB colours, from the lowest value to the highest.
pub type ColourMap = [[u8; 3]; 256];

/// Points along the path before it is cut into equal steps: enough that the cut is exact to a fraction of a level.
const PATH_POINTS: usize = 4096;

/// Lightness at both ends. Pure black and white are left to the marker.
const LIGHTNESS: [f64; 2] = [0.24, 0.92];

/// Hue in degrees at both ends: violet (down through blue, teal and green) to yellow.
const HUE_DEGREES: [f64; 2] = [300.0, 105.0];

/// Chroma nowhere exceeds this: beyond it the greens glare.
const CHROMA_LIMIT: f64 = 0.16;

/// The colours, computed on first use.
pub fn colour_map() -> &'static ColourMap {
    static TABLE: OnceLock<ColourMap> = OnceLock::new();
    TABLE.get_or_init(|| path().map(|colour| linear_rgb(colour).map(gamma_encoded)))
}

/// 256 Oklab colours at equal distances.
fn path() -> [[f64; 3]; 256] {
    let points: Vec<[f64; 3]> = (0..=PATH_POINTS).map(|index| point(index as f64 / PATH_POINTS as f64)).collect();
    let mut travelled = vec![0.0];
    for pair in points.windows(2) {
        travelled.push(travelled[travelled.len() - 1] + distance(pair[0], pair[1]));
    }
    let whole = travelled[PATH_POINTS];
    std::array::from_fn(|index| {
        let goal = whole * index as f64 / 255.0;
        let after = travelled.partition_point(|&length| length < goal).clamp(1, PATH_POINTS);
        let (from, to) = (travelled[after - 1], travelled[after]);
        let part = (goal - from) / (to - from);
        std::array::from_fn(|axis| points[after - 1][axis] * (1.0 - part) + points[after][axis] * part)
    })
}

/// The path at `t` of its parameter, as lightness, green-red, blue-yellow.
fn point(t: f64) -> [f64; 3] {
    let lightness = LIGHTNESS[0] + t * (LIGHTNESS[1] - LIGHTNESS[0]);
    let (sine, cosine) = (HUE_DEGREES[0] + t * (HUE_DEGREES[1] - HUE_DEGREES[0])).to_radians().sin_cos();
    let colour = |chroma: f64| [lightness, chroma * cosine, chroma * sine];
    let shown = |chroma: f64| linear_rgb(colour(chroma)).iter().all(|value| (0.0..=1.0).contains(value));
    let (mut inside, mut outside) = (0.0, CHROMA_LIMIT);
    if shown(CHROMA_LIMIT) {
        return colour(CHROMA_LIMIT);
    }
    for _ in 0..40 {
        let middle = (inside + outside) / 2.0;
        if shown(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    colour(inside)
}

fn distance(from: [f64; 3], to: [f64; 3]) -> f64 {
    (0..3).map(|axis| (from[axis] - to[axis]).powi(2)).sum::<f64>().sqrt()
}

/// Oklab to linear sRGB (Björn Ottosson, "A perceptual color space for image processing", 2020).
fn linear_rgb([lightness, a, b]: [f64; 3]) -> [f64; 3] {
    let long = (lightness + 0.3963377774 * a + 0.2158037573 * b).powi(3);
    let medium = (lightness - 0.1055613458 * a - 0.0638541728 * b).powi(3);
    let short = (lightness - 0.0894841775 * a - 1.2914855480 * b).powi(3);
    [
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    ]
}

/// Linear light to an sRGB level.
fn gamma_encoded(linear: f64) -> u8 {
    let linear = linear.clamp(0.0, 1.0);
    let encoded = if linear <= 0.0031308 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
    (255.0 * encoded).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_equal_and_lightness_rises() {
        let path = path();
        let steps: Vec<f64> = path.windows(2).map(|pair| distance(pair[0], pair[1])).collect();
        let mean = steps.iter().sum::<f64>() / steps.len() as f64;
        // A step across a corner of the gamut is a little shorter than the way along the path.
        assert!(steps.iter().all(|step| (step / mean - 1.0).abs() < 0.08), "{steps:?}");
        assert!(path.windows(2).all(|pair| pair[0][0] < pair[1][0]));
    }

    #[test]
    fn every_colour_can_be_shown() {
        for colour in path() {
            assert!(linear_rgb(colour).iter().all(|value| (-1e-3..=1.001).contains(value)), "{colour:?}");
        }
    }

    #[test]
    fn it_goes_from_dark_violet_to_light_yellow() {
        let table = colour_map();
        let [first, middle, last] = [table[0], table[128], table[255]];
        assert!(first[2] > first[1] && first.iter().all(|&level| level < 110), "{first:?}");
        assert!(middle[1] > middle[0], "{middle:?}");
        assert!(last[0] > 200 && last[1] > 200 && last[2] < 150, "{last:?}");
    }
}
