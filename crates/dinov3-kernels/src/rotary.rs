//! Rotary positions: q and k of a token turned by the angles of its place.
#![allow(unsafe_code)]

use dinov3_system::threads::Pool;

use crate::attention::AttentionShape;
use crate::element::{Element, Work, store_part};
use crate::isa::Isa;
use crate::memory::SharedOutput;
use crate::simd::{Kernel, LANES, Simd};

/// The angles of an image's tokens. The second half of a head is paired with the first.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// Tokens of an image: rows of several images follow each other.
    pub tokens: usize,
    /// Leading tokens without a position: they are not rotated.
    pub prefix_tokens: usize,
    /// Numbers of a head, an even number.
    pub head_dim: usize,
    /// `[tokens - prefix_tokens, head_dim]`.
    pub sin: &'a [f32],
    /// `[tokens - prefix_tokens, head_dim]`.
    pub cos: &'a [f32],
}

impl Rotary<'_> {
    /// # Panics
    /// If a table does not have the length that the sizes say.
    pub(crate) fn check(&self) {
        let positions = self.tokens.checked_sub(self.prefix_tokens);
        let positions = positions.expect("more prefix tokens than tokens");
        assert_eq!(self.sin.len(), positions * self.head_dim, "sines");
        assert_eq!(self.cos.len(), positions * self.head_dim, "cosines");
    }

    /// Sines and cosines for a row, if it is rotated.
    #[inline(always)]
    pub(crate) fn angles(&self, row: usize) -> Option<(&[f32], &[f32])> {
        let position = (row % self.tokens).checked_sub(self.prefix_tokens)?;
        let start = position * self.head_dim;
        Some((&self.sin[start..][..self.head_dim], &self.cos[start..][..self.head_dim]))
    }
}

/// A number of the first half and its partner of the second, turned. Sines and cosines belong to the same two places.
#[inline(always)]
pub(crate) fn turn<S: Simd>(simd: S, [low, high]: [S::V; 2], sin: [S::V; 2], cos: [S::V; 2]) -> [S::V; 2] {
    let minus_high = simd.subtract(simd.splat(0.0), high);
    let first = simd.fused(low, cos[0], simd.multiply(minus_high, sin[0]));
    let second = simd.fused(high, cos[1], simd.multiply(low, sin[1]));
    [first, second]
}

/// Rows that one task turns.
const TASK_ROWS: usize = 16;

/// Turns the heads of q and k and rounds all three, for [`attention`](crate::attention()): what
/// [`Epilogue::Rotary`](crate::Epilogue) does without another pass, for heads of any size.
///
/// `qkv` and `out` are `[rows, 3 * heads * head_dim]`, `rows` a multiple of the image's tokens.
///
/// # Panics
/// If a slice does not have the length that the shape and the tables say.
pub fn rotate_heads<E: Element>(
    pool: &Pool,
    isa: Isa,
    shape: &AttentionShape,
    qkv: &[f32],
    rotary: Rotary<'_>,
    out: &mut [E],
) {
    let width = 3 * shape.dim();
    let rows = shape.images * shape.tokens;
    assert_eq!((shape.tokens, shape.head_dim), (rotary.tokens, rotary.head_dim), "tokens and size of a head");
    assert_eq!((qkv.len(), out.len()), (rows * width, rows * width), "qkv and out");
    rotary.check();
    let output = SharedOutput::new(out);
    pool.run(rows.div_ceil(TASK_ROWS), &|task| {
        let (first, last) = (task * TASK_ROWS, rows.min((task + 1) * TASK_ROWS));
        // SAFETY: each task writes the rows of its own number.
        let out = unsafe { output.part(first * width, (last - first) * width) };
        E::run(isa, Work::Rotate(RotateRows { qkv: &qkv[first * width..last * width], width, rotary, first, out }));
    });
}

pub struct RotateRows<'a, E> {
    qkv: &'a [f32],
    width: usize,
    rotary: Rotary<'a>,
    /// The number of the first row.
    first: usize,
    out: &'a mut [E],
}

impl<E: Element> Kernel for RotateRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.width == 0 {
            return;
        }
        let (head_dim, half) = (self.rotary.head_dim, self.rotary.head_dim / 2);
        let rows = self.qkv.chunks_exact(self.width).zip(self.out.chunks_exact_mut(self.width));
        for (row, (from, to)) in rows.enumerate() {
            let angles = self.rotary.angles(self.first + row);
            // q and k, then v, which stays.
            let turned = if angles.is_some() { self.width / 3 * 2 } else { 0 };
            for (from, to) in from[turned..].chunks(LANES).zip(to[turned..].chunks_mut(LANES)) {
                store_part(simd, simd.load_part(from, 0.0), to);
            }
            let Some((sin, cos)) = angles else { continue };
            let heads = from[..turned].chunks_exact(head_dim).zip(to[..turned].chunks_exact_mut(head_dim));
            for (from, to) in heads {
                let (to_low, to_high) = to.split_at_mut(half);
                for first in (0..half).step_by(LANES) {
                    let part = first..half.min(first + LANES);
                    let pairs = [from, sin, cos].map(|numbers| {
                        let (low, high) = numbers.split_at(half);
                        [&low[part.clone()], &high[part.clone()]]
                    });
                    let [from, sin, cos] = pairs;
                    let from = [simd.load_part(from[0], 0.0), simd.load_part(from[1], 0.0)];
                    let sin = [simd.load_part(sin[0], 0.0), simd.load_part(sin[1], 0.0)];
                    let cos = [simd.load_part(cos[0], 0.0), simd.load_part(cos[1], 0.0)];
                    let [low, high] = turn(simd, from, sin, cos);
                    store_part(simd, low, &mut to_low[part.clone()]);
                    store_part(simd, high, &mut to_high[part.clone()]);
                }
            }
        }
    }
}
