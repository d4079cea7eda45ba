//! The rotary position table: computed once per patch grid, shared by all blocks and heads.

use crate::spec::Vit;

/// Where the RoPE periods come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RopePeriods {
    /// Computed in f32, as timm does.
    #[default]
    F32,
    /// Rounded to bf16 and back: Meta's files store them so, and the outputs then match the original code.
    Bf16,
}

impl RopePeriods {
    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            RopePeriods::F32 => "f32",
            RopePeriods::Bf16 => "bf16",
        }
    }
}

/// Rounds to bf16, nearest even, and back.
fn round_to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000)
}

/// The d/4 periods, base^(4 i / d).
pub fn periods(vit: &Vit, kind: RopePeriods) -> Vec<f32> {
    let quarter = vit.head_dim() / 4;
    (0..quarter)
        .map(|i| {
            // timm: base ** (2 * arange(d/4) / (d/2)), in f32. The power is taken in f64 and rounded once.
            let exponent = (2.0 * i as f32) / (vit.head_dim() / 2) as f32;
            let period = vit.rope_base.powf(f64::from(exponent)) as f32;
            match kind {
                RopePeriods::F32 => period,
                RopePeriods::Bf16 => round_to_bf16(period),
            }
        })
        .collect()
}

/// Sine and cosine of every patch's angles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RopeTable {
    /// [patches, head_dim / 2]; the second half of a head repeats the first.
    pub sin: Vec<f32>,
    /// Likewise.
    pub cos: Vec<f32>,
    /// Angles per patch, head_dim / 2.
    pub width: usize,
}

/// The table of a grid. Each axis is normalised by its own size, so the field is [-1, 1]² at any size and
/// aspect ratio; the first half of the angles comes from the row, the second from the column.
pub fn table(vit: &Vit, kind: RopePeriods, rows: usize, columns: usize) -> RopeTable {
    let periods = periods(vit, kind);
    let width = vit.head_dim() / 2;
    // Every step in f32 and in timm's order: the coordinate grid is part of what must agree.
    let coordinate = |index: usize, size: usize| ((index as f32 + 0.5) / size as f32) * 2.0 - 1.0;
    let angles = |at: f32| -> Vec<(f32, f32)> {
        periods
            .iter()
            .map(|period| {
                let angle = f64::from(std::f32::consts::TAU * at / period);
                (angle.sin() as f32, angle.cos() as f32)
            })
            .collect()
    };
    let by_row: Vec<_> = (0..rows).map(|row| angles(coordinate(row, rows))).collect();
    let by_column: Vec<_> = (0..columns).map(|column| angles(coordinate(column, columns))).collect();
    let mut table = RopeTable { sin: Vec::new(), cos: Vec::new(), width };
    for row in &by_row {
        for column in &by_column {
            for &(sin, cos) in row.iter().chain(column) {
                table.sin.push(sin);
                table.cos.push(cos);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    #[test]
    fn the_published_fixture_holds() {
        let small = spec::find("vit_small_patch16_dinov3").unwrap();
        let table = table(small.vit().unwrap(), RopePeriods::F32, 2, 3);
        let near = |found: &[f32], expected: &[f32]| {
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 2e-6, "{found:?} {expected:?}");
            }
        };
        near(&table.sin[0..4], &[8.7423e-08, -0.7073417, -0.9808824, -0.9698949]);
        near(&table.sin[16..20], &[0.866_025, -0.00044361, -0.7075768, -0.9809309]);
        near(&table.cos[0..4], &[-1.0, -0.7068717, -0.1946015, 0.243_524]);
    }

    #[test]
    fn rounded_periods_are_those_of_the_released_files() {
        let small = spec::find("vit_small_patch16_dinov3").unwrap();
        let expected = [
            1.0, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5, 10.0, 13.3125, 17.75, 23.75, 31.625, 42.25,
            56.25, 75.0,
        ];
        assert_eq!(periods(small.vit().unwrap(), RopePeriods::Bf16), expected);
        let huge = spec::find("vit_7b_patch16_dinov3").unwrap();
        let expected = [1.0, 1.15625, 1.3359375, 1.5390625, 1.78125, 2.046875, 2.375, 2.734375, 3.15625, 3.65625];
        assert_eq!(periods(huge.vit().unwrap(), RopePeriods::Bf16)[..10], expected);
    }
}
