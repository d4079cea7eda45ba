//! What the values of a stored vector are: floats, halves of them, or bytes with a scale.

use serde_json::{Value, json};

/// What the values of the vectors in a file are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit floats, as the encoder gave them.
    #[default]
    F32,
    /// 16-bit floats (IEEE 754 binary16): the nearest one, ties to even. Beyond 65,504 they are infinite.
    F16,
    /// Signed bytes and a scale per vector, see `quantized`.
    Int8,
}

/// The largest byte; -128 is not used, so that a vector and its negative are alike.
const LARGEST: f64 = 127.0;

impl ElementType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The name on the command line and in provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// numpy's name, which is also that of Zarr.
    pub fn numpy_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a value.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    /// What was done to the values, in the words that STAC and Zarr share: `method`, `original_dtype`, `quantized_dtype`;
    /// nothing for the encoder's own floats.
    pub fn quantization(self) -> Option<Value> {
        let method = match self {
            Self::F32 => return None,
            Self::F16 => "round_to_nearest_even",
            Self::Int8 => "per_vector_scale",
        };
        Some(json!({"method": method, "original_dtype": "float32", "quantized_dtype": self.numpy_name()}))
    }

    /// How a value comes from what is stored, for provenance; nothing for floats.
    pub fn formula(self) -> Option<&'static str> {
        match self {
            Self::Int8 => Some("value = int8 * scale; scale = largest absolute value of the vector / 127"),
            _ => None,
        }
    }
}

/// The scale of a vector, and its values divided by it as bytes, appended to `bytes`.
///
/// The scale is the largest absolute value / 127 in f32; a byte is value / scale in f64, rounded to the nearest integer,
/// ties to even. So the largest error of a value is half of the scale. A vector of zeros has the scale 0. One that is not
/// finite, which no byte can say, has the scale NaN, so that none of its values comes back as a number.
pub fn quantized(vector: &[f32], bytes: &mut Vec<i8>) -> f32 {
    let largest = vector.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let is_finite = vector.iter().all(|value| value.is_finite());
    let scale = if is_finite { (f64::from(largest) / LARGEST) as f32 } else { f32::NAN };
    // Where the scale is subnormal or nothing, the quotient may be anything.
    let byte = |value: &f32| {
        let quotient = f64::from(*value) / f64::from(scale);
        // NaN becomes 0.
        quotient.round_ties_even().clamp(-LARGEST, LARGEST) as i8
    };
    match scale > 0.0 {
        true => bytes.extend(vector.iter().map(byte)),
        false => bytes.extend(std::iter::repeat_n(0, vector.len())),
    }
    scale
}

/// Appends the values that bytes and their scale stand for, each rounded once. [`quantized`], they are the same bytes with the
/// same scale again: the largest value is the float nearest to 127 scales, the one that the scale was made of is no nearer,
/// and what a 127th of the nearer one rounds to is the scale, too.
pub(crate) fn dequantized(bytes: &[u8], scale: f32, values: &mut Vec<f32>) {
    values.extend(bytes.iter().map(|&byte| f32::from(byte as i8) * scale));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vector: &[f32]) -> (f32, Vec<i8>) {
        let mut bytes = Vec::new();
        (quantized(vector, &mut bytes), bytes)
    }

    #[test]
    fn the_largest_value_is_127_and_none_is_off_by_more_than_half_a_step() {
        assert_eq!(of(&[254.0, -254.0, 3.0, 5.0, -1.0]), (2.0, vec![127, -127, 2, 2, 0]));
        let vector: Vec<f32> = (0..1000).map(|number| ((number * 7919) % 1013) as f32 / 37.0 - 11.0).collect();
        let (scale, bytes) = of(&vector);
        for (value, byte) in vector.iter().zip(&bytes) {
            assert!((f64::from(*value) - f64::from(*byte) * f64::from(scale)).abs() <= f64::from(scale) * 0.500_001);
        }
        assert_eq!(bytes.iter().map(|byte| byte.unsigned_abs()).max(), Some(127));
    }

    #[test]
    fn bytes_that_become_floats_become_the_same_bytes_again() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for round in 0..20_000 {
            // Of all sizes, the smallest ones among them.
            let size = 2f32.powi((random() % 250) as i32 - 146);
            let vector: Vec<f32> = (0..8).map(|_| (random() as f32 / 2f32.powi(31) - 0.5) * size).collect();
            let (scale, bytes) = of(&vector);
            let stored: Vec<u8> = bytes.iter().map(|byte| *byte as u8).collect();
            let mut again = Vec::new();
            dequantized(&stored, scale, &mut again);
            assert_eq!(of(&again), (scale, bytes), "{round}: {vector:?}");
        }
        let mut nothing = Vec::new();
        dequantized(&[0, 0], f32::NAN, &mut nothing);
        assert!(nothing.iter().all(|value| value.is_nan()) && of(&nothing).0.is_nan());
    }

    #[test]
    fn vectors_without_a_scale_are_told_apart() {
        assert_eq!(of(&[0.0, -0.0]), (0.0, vec![0, 0]));
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (scale, bytes) = of(&[1.0, odd]);
            assert!(scale.is_nan());
            assert_eq!(bytes, [0, 0]);
        }
        // So small that a 127th of it is nothing.
        assert_eq!(of(&[1e-45, 0.0]), (0.0, vec![0, 0]));
        assert_eq!(of(&[f32::MAX, -f32::MAX]).1, [127, -127]);
        let (scale, bytes) = of(&[1e-43, -1e-43]);
        assert!(scale > 0.0);
        assert_eq!(bytes[0], -bytes[1]);
        assert_eq!(of(&[]), (0.0, vec![]));
    }
}
