//! Half-width floats: the upper 16 bits of an f32.

use std::fmt;

/// A bfloat16 number.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Bf16 {
    /// Rounds to the nearest, ties to even. NaN stays NaN.
    #[inline(always)]
    pub const fn from_f32(value: f32) -> Bf16 {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // The quiet bit keeps a NaN whose payload lies in the lost bits from turning into an infinity.
        let quiet = bits | 0x0040_0000;
        let kept = if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded };
        Bf16((kept >> 16) as u16)
    }

    /// The same value as f32.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }

    /// The number with these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Bf16 {
        Bf16(bits)
    }

    /// The bits of the number.
    #[inline(always)]
    pub const fn to_bits(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Bf16 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_f32().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        // Every bf16 comes back; the midpoint above it goes to the even neighbour, its f32 neighbours to the nearer.
        for bits in 0..=u16::MAX {
            let number = Bf16::from_bits(bits);
            let value = number.to_f32();
            if value.is_nan() {
                assert!(Bf16::from_f32(value).to_f32().is_nan());
                continue;
            }
            assert_eq!(Bf16::from_f32(value), number);
            if value.is_infinite() {
                continue;
            }
            let wide = u32::from(bits) << 16;
            let even = bits + (bits & 1);
            assert_eq!(Bf16::from_f32(f32::from_bits(wide | 0x7fff)).0, bits);
            assert_eq!(Bf16::from_f32(f32::from_bits(wide | 0x8000)).0, even);
            assert_eq!(Bf16::from_f32(f32::from_bits(wide | 0x8001)).0, bits + 1);
        }
        // A NaN whose payload would be cut off.
        assert!(Bf16::from_f32(f32::from_bits(0x7f80_0001)).to_f32().is_nan());
        assert!(Bf16::from_f32(f32::from_bits(0xffff_ffff)).to_f32().is_nan());
    }
}
