//! exp and the activations, on sixteen lanes.

use crate::simd::Simd;

/// e^x, about one unit in the last place; 0 below -87.3, where f32 leaves its normal range; held at e^88 above 88.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    let s = |value| simd.splat(value);
    const LOWEST: f32 = -87.3;
    // The bound comes first so that a NaN passes both.
    let bounded = simd.min(s(88.0), simd.max(s(LOWEST), x));
    // x = n ln 2 + r; ln 2 in two parts so that r keeps all its digits.
    let n = simd.round(simd.multiply(bounded, s(std::f32::consts::LOG2_E)));
    let r = simd.fused(n, s(-0.693_359_4), bounded);
    let r = simd.fused(n, s(2.121_944_4e-4), r);
    // (e^r - 1 - r) / r² fitted for |r| ≤ ln 2 / 2: relative error 3e-9.
    let mut p = s(1.381_461_2e-3);
    p = simd.fused(p, r, s(8.368_71e-3));
    p = simd.fused(p, r, s(4.166_838_7e-2));
    p = simd.fused(p, r, s(1.666_652_1e-1));
    p = simd.fused(p, r, s(4.999_999_3e-1));
    p = simd.fused(simd.multiply(r, r), p, simd.add(r, s(1.0)));
    simd.select_less(x, s(LOWEST), s(0.0), simd.scale(p, n))
}

/// erfc(a / √2) for a ≥ 0: twice the normal distribution's tail beyond a. Absolute error below 1e-7, and relative error
/// below 2e-4 far out, so that no cancellation shows in [`gelu`] (tested). 0 beyond 8, where it is 1e-15.
///
/// Computed as 2^(-a q(a)) with a polynomial q, fitted for the smallest error of gelu on [0, 8].
#[inline(always)]
fn complement<S: Simd>(simd: S, a: S::V) -> S::V {
    let s = |value| simd.splat(value);
    const END: f32 = 8.0;
    let bounded = simd.min(s(END), a);
    let mut q = s(1.520_583_1e-8);
    q = simd.fused(q, bounded, s(-5.347_704e-7));
    q = simd.fused(q, bounded, s(7.832_828_5e-6));
    q = simd.fused(q, bounded, s(-6.047_574_4e-5));
    q = simd.fused(q, bounded, s(2.328_693_4e-4));
    q = simd.fused(q, bounded, s(8.075_785e-5));
    q = simd.fused(q, bounded, s(-7.027_892e-3));
    q = simd.fused(q, bounded, s(5.248_577e-2));
    q = simd.fused(q, bounded, s(4.592_091_4e-1));
    q = simd.fused(q, bounded, s(1.151_105_3));
    let exponent = simd.multiply(q, simd.subtract(s(0.0), bounded));
    let n = simd.round(exponent);
    let r = simd.subtract(exponent, n);
    // 2^r fitted for |r| ≤ 1/2: relative error 2e-9.
    let mut p = s(1.534_581e-4);
    p = simd.fused(p, r, s(1.339_993_2e-3));
    p = simd.fused(p, r, s(9.618_489e-3));
    p = simd.fused(p, r, s(5.550_328_8e-2));
    p = simd.fused(p, r, s(2.402_264_7e-1));
    p = simd.fused(p, r, s(6.931_472e-1));
    p = simd.fused(p, r, s(1.0));
    simd.select_less(s(END), a, s(0.0), simd.scale(p, n))
}

/// x (1 + erf(x / √2)) / 2.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    let zero = simd.splat(0.0);
    // NaN takes the second operand of the larger and so stays.
    let a = simd.max(simd.subtract(zero, x), x);
    // Below zero x times the tail; above, x minus that. Bounded, because infinity times a tail of zero is NaN.
    let bounded = simd.min(simd.splat(1e30), a);
    let part = simd.multiply(bounded, simd.multiply(simd.splat(0.5), complement(simd, a)));
    simd.subtract(simd.max(zero, x), part)
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
