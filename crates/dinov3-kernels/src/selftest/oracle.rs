//! Exact values, and random operands to compute them from.

use dinov3_system::threads::Pool;

use crate::element::{Element, Operand};
use crate::gemm::PackedMatrix;
use crate::isa::Isa;

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

    /// So many of them, times `scale`.
    pub fn normals(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.normal() * scale).collect()
    }
}

/// The rounding unit of a number type.
pub fn unit<E: Element>() -> f64 {
    if E::NAME == "f32" { EPS } else { BF16_EPS }
}

/// Packs the matrix `w`, `[n, k]`.
///
/// # Panics
/// If `w` is not that long.
pub fn pack<E: Operand>(isa: Isa, pool: &Pool, w: &[f32], n: usize, k: usize) -> PackedMatrix<E> {
    assert_eq!(w.len(), n * k);
    let packed = PackedMatrix::pack(isa, pool, n, k, &|start, rows: &mut [f32]| {
        assert!(rows.len() <= 64 * k);
        rows.copy_from_slice(&w[start * k..start * k + rows.len()]);
        Ok::<(), std::convert::Infallible>(())
    });
    packed.unwrap_or_else(|never| match never {})
}

/// Exact values and how far an output may be from each.
#[derive(Clone, Debug, Default)]
pub struct Exact {
    /// The values.
    pub values: Vec<f64>,
    /// Largest errors.
    pub bounds: Vec<f64>,
}

impl Exact {
    /// `a × Wᵀ` for `m` rows of `k` numbers and `n` of W.
    pub fn product(a: &[f32], m: usize, w: &[f32], n: usize, k: usize) -> Exact {
        let mut exact = Exact::default();
        for row in 0..m {
            let row = &a[row * k..(row + 1) * k];
            for column in 0..n {
                let terms = row.iter().zip(&w[column * k..]).map(|(&a, &w)| f64::from(a) * f64::from(w));
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                exact.values.push(sum);
                exact.bounds.push(product_bound(size, k));
            }
        }
        exact
    }
}

/// Largest error of a sum of `k` products whose absolute values add up to `size`; see the module.
pub fn product_bound(size: f64, k: usize) -> f64 {
    size * EPS * (4.0 * (k.min(1024) as f64).sqrt() + 4.0) + k as f64 * f64::from(f32::MIN_POSITIVE)
}

/// erf by its Taylor series and, far out, its continued fraction: about 1e-15.
fn erf(x: f64) -> f64 {
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

/// x (1 + erf(x / √2)) / 2.
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt()))
}

/// x / (1 + e^-x).
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}
