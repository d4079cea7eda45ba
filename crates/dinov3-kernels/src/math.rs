//! exp and the activations, on sixteen lanes.

use crate::simd::Simd;

/// e^x, about one unit in the last place; 0 below -87.3, where f32 leaves its normal range; held at e^88 above 88.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    const LOWEST: f32 = -87.3;
    // The bound comes first so that a NaN passes both.
    let bounded = simd.min(simd.splat(88.0), simd.max(simd.splat(LOWEST), x));
    // x = n ln 2 + r; ln 2 in two parts so that r keeps all its digits.
    let n = simd.round(simd.multiply(bounded, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.fused(n, simd.splat(-0.693_359_4), bounded);
    let r = simd.fused(n, simd.splat(2.121_944_4e-4), r);
    // (e^r - 1 - r) / r² fitted for |r| ≤ ln 2 / 2: relative error 3e-9.
    let mut p = simd.splat(1.381_461_2e-3);
    p = simd.fused(p, r, simd.splat(8.368_71e-3));
    p = simd.fused(p, r, simd.splat(4.166_838_7e-2));
    p = simd.fused(p, r, simd.splat(1.666_652_1e-1));
    p = simd.fused(p, r, simd.splat(4.999_999_3e-1));
    p = simd.fused(simd.multiply(r, r), p, simd.add(r, simd.splat(1.0)));
    simd.select_less(x, simd.splat(LOWEST), simd.splat(0.0), simd.scale(p, n))
}

/// 2^x for -126.4 < x < 127, by a polynomial for 2^r with |r| ≤ 1/2, its highest coefficient first.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(simd: S, x: S::V, polynomial: &[f32]) -> S::V {
    let n = simd.round(x);
    simd.scale(horner(simd, simd.subtract(x, n), polynomial), n)
}

/// 2^(x factor) for -126.4 < x factor < 127, where the factor is the sum of two numbers, a large and a small one: no digit
/// is lost in the product.
#[inline(always)]
pub(crate) fn exp2_of_product<S: Simd>(simd: S, x: S::V, factor: [S::V; 2], polynomial: &[f32]) -> S::V {
    let n = simd.round(simd.multiply(x, factor[0]));
    let r = simd.fused(x, factor[0], simd.subtract(simd.splat(0.0), n));
    simd.scale(horner(simd, simd.fused(x, factor[1], r), polynomial), n)
}

#[inline(always)]
fn horner<S: Simd>(simd: S, x: S::V, coefficients: &[f32]) -> S::V {
    let mut sum = simd.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = simd.fused(sum, x, simd.splat(coefficient));
    }
    sum
}

/// For [`exp2`]: relative error 2e-9.
pub(crate) const EXP2: [f32; 7] =
    [1.534_581e-4, 1.339_993_2e-3, 9.618_489e-3, 5.550_328_8e-2, 2.402_264_7e-1, 6.931_472e-1, 1.0];
/// For [`exp2`]: relative error 2.6e-6, a thousandth of what rounding to bf16 costs.
pub(crate) const EXP2_SHORT: [f32; 5] = [9.570_058e-3, 5.591_778e-2, 2.402_474_5e-1, 6.931_218e-1, 9.999_993e-1];

/// A gelu: the polynomial q, its highest coefficient first, and the one for [`exp2`].
///
/// erfc(a / √2) = 2^(-a q(a)), so that no cancellation shows below zero. With a ≤ 8, where it is 1e-15.
pub(crate) struct Gelu {
    q: &'static [f32],
    exp2: &'static [f32],
}

/// Absolute error of erfc below 1e-7, and relative error below 2e-4 far out (tested). Fitted for the smallest error of
/// gelu on [0, 8].
pub(crate) const GELU: Gelu = Gelu {
    q: &[
        1.520_583_1e-8,
        -5.347_704e-7,
        7.832_828_5e-6,
        -6.047_574_4e-5,
        2.328_693_4e-4,
        8.075_785e-5,
        -7.027_892e-3,
        5.248_577e-2,
        4.592_091_4e-1,
        1.151_105_3,
    ],
    exp2: &EXP2,
};
/// Relative error of gelu below 1e-4, where rounding to bf16 costs 2e-3, until it is 1e-5 in size.
pub(crate) const GELU_SHORT: Gelu = Gelu {
    q: &[-3.079_029_4e-5, 7.277_181e-4, -7.847_326e-3, 5.285_942e-2, 4.593_292e-1, 1.151_008_2],
    exp2: &[5.517_120_8e-2, 2.426_102_7e-1, 6.932_61e-1, 9.999_281e-1],
};

/// x (1 + erf(x / √2)) / 2.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::V, gelu: &Gelu) -> S::V {
    let zero = simd.splat(0.0);
    // NaN takes the second operand of the larger and of the smaller and so stays.
    let a = simd.min(simd.splat(8.0), simd.max(simd.subtract(zero, x), x));
    let minus = simd.subtract(zero, a);
    // Half of the power is the normal distribution's tail beyond a.
    let power = exp2(simd, simd.multiply(horner(simd, a, gelu.q), minus), gelu.exp2);
    // Below zero x times the tail; above, x minus that.
    simd.fused(simd.multiply(minus, simd.splat(0.5)), power, simd.max(zero, x))
}

/// x / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu<S: Simd>(simd: S, x: S::V) -> S::V {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    // The power of minus the absolute value cannot overflow; NaN takes the second operand.
    let power = exp(simd, simd.min(simd.subtract(zero, x), x));
    let numerator = simd.select_less(x, zero, power, one);
    simd.divide(simd.multiply(x, numerator), simd.add(one, power))
}
