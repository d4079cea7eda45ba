//! What the test files share: random numbers and the instruction sets to test.
#![allow(dead_code)]

use dinov3_kernels::{Bf16, Element, Isa, Operand, PackedMatrix};
use dinov3_system::threads::Pool;

/// Rounding unit of f32.
pub const EPS: f64 = f32::EPSILON as f64 / 2.0;
/// Rounding unit of bf16.
pub const BF16_EPS: f64 = 1.0 / 256.0;

/// A small random number generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About normal, deviation 1.
    pub fn normal(&mut self) -> f32 {
        let sum: f64 = (0..4).map(|_| (self.next() >> 11) as f64 / (1_u64 << 53) as f64).sum();
        ((sum - 2.0) * 3.0_f64.sqrt()) as f32
    }

    pub fn normals(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.normal() * scale).collect()
    }
}

pub fn to_elements<E: Element>(values: &[f32]) -> Vec<E> {
    values.iter().map(|&value| E::from_f32(value)).collect()
}

/// The rounding unit of a number type.
pub fn unit<E: Element>() -> f64 {
    if E::NAME == "f32" { EPS } else { BF16_EPS }
}

pub fn pack<E: Operand>(isa: Isa, pool: &Pool, w: &[f32], n: usize, k: usize) -> PackedMatrix<E> {
    assert_eq!(w.len(), n * k);
    PackedMatrix::pack(isa, pool, n, k, &|start, rows: &mut [f32]| {
        assert!(rows.len() <= 64 * k);
        rows.copy_from_slice(&w[start * k..start * k + rows.len()]);
        Ok::<(), ()>(())
    })
    .unwrap()
}

/// erf by its Taylor series and, far out, its continued fraction: about 1e-15.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 2.5 {
        let mut term = x;
        let mut sum = x;
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = 0.0;
        for n in (1..80).rev() {
            fraction = f64::from(n) / 2.0 / (x.abs() + fraction);
        }
        let tail = (-x * x).exp() / (x.abs() + fraction) / std::f64::consts::PI.sqrt();
        x.signum() * (1.0 - tail)
    }
}

pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt()))
}

pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub fn bits<E: Element>(values: &[E]) -> Vec<u32> {
    values.iter().map(|value| value.to_f32().to_bits()).collect()
}

#[allow(unused)]
pub type Half = Bf16;
