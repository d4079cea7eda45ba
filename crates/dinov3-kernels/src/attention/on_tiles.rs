//! Attention on tiles. A unit of work is a block of queries and a block of keys; while the scores of one unit and the weighted
//! values of the one before the last are multiplied on tiles, vectors make weights of the scores in between.
#![allow(unsafe_code)]

use std::ops::Range;

use super::{AttentionTask, Plan, Softmax, add_block};
use crate::amx::{Meanwhile, SIDE, TileBlock, Tiles};
use crate::element::Element;
use crate::simd::{Kernel, LANES, Simd};

/// Queries of a block.
pub(super) const ROWS: usize = 2 * SIDE;
/// Buffers of scores: of the unit whose scores are multiplied, of the one that is weighed, and of the one that is summed.
pub(super) const SLOTS: usize = 3;
/// Most tokens whose scores are held at once.
pub(super) const MOST_AT_ONCE: usize = 768;

/// A block of queries and a block of keys.
struct Unit {
    /// The queries' number in the pipeline.
    block: usize,
    /// The first row on the tiles: the last rows of an image are multiplied together with some before them again, since a
    /// tile that is not full would have to be filled first.
    first_row: usize,
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Unit {
    fn is_first(&self) -> bool {
        self.keys.start == 0
    }

    /// Rows on the tiles.
    fn rows(&self) -> usize {
        self.queries.end - self.first_row
    }

    /// The place of the first query in the rows.
    fn skipped(&self) -> usize {
        self.queries.start - self.first_row
    }
}

impl<E: Element> AttentionTask<'_, E> {
    /// # Panics
    /// Never: the buffers have grown.
    #[inline(always)]
    pub(super) fn attend_on_tiles<S: Simd>(
        &mut self,
        simd: S,
        tiles: &mut Tiles,
        packed: &[u32],
        blocks: Range<usize>,
    ) {
        let Plan { score_stride, sum_stride, .. } = self.plan;
        let mut scores = std::mem::take(&mut self.worker.scores);
        let mut sums = std::mem::take(&mut self.worker.sums);
        let mut sums_of_block = std::mem::take(&mut self.worker.sums_of_block);
        let slot_length = ROWS * score_stride;
        let slots = scores.as_floats_mut()[..SLOTS * slot_length].as_mut_ptr();
        let slot = |unit: usize| slots.wrapping_add(unit % SLOTS * slot_length);
        // Of the block of queries that is weighed, and of the one before, which may still be summed.
        let mut softmax = [[Softmax::START; ROWS]; 2];
        let mut kept = [[0.0; ROWS]; 2];
        let units = blocks.len() * self.shape.tokens.div_ceil(self.plan.keys);
        for stage in 0..units + SLOTS - 1 {
            let scored = (stage < units).then(|| self.unit(&blocks, stage));
            let weighed = stage.checked_sub(1).filter(|unit| *unit < units);
            let summed = stage.checked_sub(2).map(|number| (number, self.unit(&blocks, number)));
            let steps = scored.as_ref().map_or(0, |unit| self.score_steps(unit))
                + summed.as_ref().map_or(0, |(_, unit)| self.sum_steps(unit));
            let mut weigh = Weigh::<S, E>::nothing(simd, self.scale());
            if let Some(number) = weighed {
                let unit = self.unit(&blocks, number);
                let rows = unit.skipped()..unit.rows();
                // SAFETY: a slot that nothing else uses in this stage.
                let scores = unsafe { std::slice::from_raw_parts_mut(slot(number), slot_length) };
                weigh.scores = &mut scores[rows.start * score_stride..rows.end * score_stride];
                weigh.score_stride = score_stride;
                weigh.softmax = &mut softmax[unit.block % 2][rows.clone()];
                weigh.kept = &mut kept[number % 2][rows.clone()];
                weigh.keys = unit.keys.len();
                weigh.is_first = unit.is_first();
                weigh.rows_per_step = rows.len().div_ceil(steps.max(1));
            }
            if let Some(unit) = &scored {
                self.score_on_tiles(tiles, packed, unit, slot(stage), &mut weigh);
            }
            let Some((number, unit)) = summed else {
                weigh.finish();
                continue;
            };
            let target = if unit.is_first() { &mut sums } else { &mut sums_of_block };
            let target = target.as_floats_mut()[..ROWS * sum_stride].as_mut_ptr();
            self.sum_on_tiles(tiles, packed, &unit, slot(number), target, &mut weigh);
            weigh.finish();
            let is_last = unit.keys.end == self.shape.tokens;
            for (row, query) in (unit.skipped()..unit.rows()).zip(unit.queries.clone()) {
                let part = row * sum_stride..(row + 1) * sum_stride;
                let sums = &mut sums.as_floats_mut()[part.clone()];
                if !unit.is_first() {
                    add_block(simd, sums, kept[number % 2][row], &sums_of_block.as_floats_mut()[part]);
                }
                if is_last {
                    self.divide(simd, query, sums, &softmax[unit.block % 2][row]);
                }
            }
        }
        self.worker.scores = scores;
        self.worker.sums = sums;
        self.worker.sums_of_block = sums_of_block;
    }

    fn unit(&self, blocks: &Range<usize>, number: usize) -> Unit {
        let (tokens, keys) = (self.shape.tokens, self.plan.keys);
        let key_blocks = tokens.div_ceil(keys);
        let (block, first_key) = (number / key_blocks, number % key_blocks * keys);
        let first = (blocks.start + block) * ROWS;
        let queries = first..tokens.min(first + ROWS);
        let whole = queries.len().next_multiple_of(SIDE);
        let first_row = queries.end.saturating_sub(whole);
        Unit { block, first_row, queries, keys: first_key..tokens.min(first_key + keys) }
    }

    fn score_steps(&self, unit: &Unit) -> usize {
        unit.keys.len().div_ceil(2 * SIDE) * (self.shape.head_dim * size_of::<E>()).div_ceil(64)
    }

    fn sum_steps(&self, unit: &Unit) -> usize {
        self.shape.head_dim.div_ceil(2 * SIDE) * (unit.keys.len() * size_of::<E>()).div_ceil(64)
    }

    /// Products of queries with keys.
    #[inline(always)]
    fn score_on_tiles<S: Simd>(
        &self,
        tiles: &mut Tiles,
        packed: &[u32],
        unit: &Unit,
        scores: *mut f32,
        weigh: &mut Weigh<'_, S, E>,
    ) {
        let words = self.plan.key_layout::<E>(self.shape, 0).words;
        let columns = unit.keys.len().div_ceil(LANES);
        let keys = &packed[unit.keys.start * words..][..columns * LANES * words];
        let queries = &self.qkv[self.start_of(unit.first_row, 0)..];
        let (stride, head_dim) = (3 * self.shape.dim(), self.shape.head_dim);
        assert!(queries.len() >= (unit.rows() - 1) * stride + head_dim && unit.rows() <= ROWS);
        let queries = queries.as_ptr();
        // SAFETY: the rows of the queries and the columns of the keys are there (checked); a slot has as many rows as fill
        // tiles, with room for the keys rounded up to whole vectors.
        unsafe {
            self.product(
                tiles,
                (queries, stride),
                unit.rows(),
                head_dim,
                keys,
                words,
                (scores, self.plan.score_stride),
                weigh,
            );
        }
    }

    /// Sums of values, weighted by what became of the scores.
    #[inline(always)]
    fn sum_on_tiles<S: Simd>(
        &self,
        tiles: &mut Tiles,
        packed: &[u32],
        unit: &Unit,
        weights: *const f32,
        sums: *mut f32,
        weigh: &mut Weigh<'_, S, E>,
    ) {
        let Plan { score_stride, sum_stride, key_words, value_words, .. } = self.plan;
        let words = self.plan.value_layout::<E>(self.shape, 0).words;
        let values = &packed[key_words.next_multiple_of(LANES)..][..value_words];
        // Blocks of keys are whole tiles.
        let values = &values[unit.keys.start / E::GROUP * LANES..];
        // Weights fill whole steps: those of keys that are not there are zero, as are the values.
        let k = unit.keys.len().next_multiple_of(SIDE * E::GROUP);
        let columns = self.shape.head_dim.div_ceil(LANES);
        assert!(values.len() >= ((columns - 1) * words + k / E::GROUP) * LANES && k <= score_stride * E::GROUP);
        // SAFETY: a slot has so many rows of weights, the columns of the values are there (checked), and the buffer of sums
        // has as many rows as fill tiles.
        unsafe {
            let weights = (weights.cast::<E>(), score_stride * E::GROUP);
            self.product(tiles, weights, unit.rows(), k, values, words, (sums, sum_stride), weigh);
        }
    }

    /// `c = a × b` for up to [`ROWS`] rows and all columns of tiles in `b`, each of `words` words.
    ///
    /// # Safety
    /// As for [`TileBlock`].
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn product<S: Simd>(
        &self,
        tiles: &mut Tiles,
        (a, a_stride): (*const E, usize),
        rows: usize,
        k: usize,
        b: &[u32],
        words: usize,
        (c, c_stride): (*mut f32, usize),
        weigh: &mut Weigh<'_, S, E>,
    ) {
        let column_length = words * LANES;
        let columns = b.len().div_ceil(column_length);
        for column in (0..columns).step_by(2) {
            let left = b.as_ptr().wrapping_add(column * column_length);
            let has_right = column + 1 < columns;
            let block = TileBlock {
                a: a.cast(),
                a_stride_bytes: a_stride * size_of::<E>(),
                rows,
                k_bytes: k * size_of::<E>(),
                b: [left, if has_right { left.wrapping_add(column_length) } else { std::ptr::null() }],
                c: [column, column + 1].map(|column| c.wrapping_add(column * LANES)),
                c_stride_bytes: c_stride * size_of::<f32>(),
                add: false,
            };
            // SAFETY: by this function's contract.
            unsafe { tiles.run::<E, _>(&block, weigh) };
        }
    }
}

/// Makes weights of the scores of a unit, some rows at each step of the tiles.
struct Weigh<'a, S, E> {
    simd: S,
    scores: &'a mut [f32],
    score_stride: usize,
    softmax: &'a mut [Softmax],
    kept: &'a mut [f32],
    keys: usize,
    scale: f64,
    is_first: bool,
    rows_per_step: usize,
    element: std::marker::PhantomData<E>,
}

impl<S: Simd, E: Element> Weigh<'_, S, E> {
    fn nothing(simd: S, scale: f64) -> Self {
        Weigh {
            simd,
            scores: &mut [],
            score_stride: 1,
            softmax: &mut [],
            kept: &mut [],
            keys: 0,
            scale,
            is_first: true,
            rows_per_step: 0,
            element: std::marker::PhantomData,
        }
    }

    #[inline(always)]
    fn make(&mut self, rows: usize) {
        let rows = rows.min(self.softmax.len());
        if rows == 0 {
            return;
        }
        let (scores, softmax, kept) =
            (std::mem::take(&mut self.scores), std::mem::take(&mut self.softmax), std::mem::take(&mut self.kept));
        let (scores, later_scores) = scores.split_at_mut(rows * self.score_stride);
        let (softmax, later_softmax) = softmax.split_at_mut(rows);
        let (kept, later_kept) = kept.split_at_mut(rows);
        (self.scores, self.softmax, self.kept) = (later_scores, later_softmax, later_kept);
        let (score_stride, keys, scale, is_first) = (self.score_stride, self.keys, self.scale, self.is_first);
        let element = self.element;
        self.simd.call(WeighRows { scores, score_stride, softmax, kept, keys, scale, is_first, element });
    }

    /// Makes what is left.
    #[inline(always)]
    fn finish(&mut self) {
        self.make(usize::MAX);
    }
}

impl<S: Simd, E: Element> Meanwhile for Weigh<'_, S, E> {
    #[inline(always)]
    fn step(&mut self) {
        self.make(self.rows_per_step);
    }
}

struct WeighRows<'a, E> {
    scores: &'a mut [f32],
    score_stride: usize,
    softmax: &'a mut [Softmax],
    kept: &'a mut [f32],
    keys: usize,
    scale: f64,
    is_first: bool,
    element: std::marker::PhantomData<E>,
}

impl<E: Element> Kernel for WeighRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.scores.chunks_exact_mut(self.score_stride).zip(self.softmax).zip(self.kept);
        for ((scores, softmax), kept) in rows {
            if self.is_first {
                *softmax = Softmax::START;
            }
            softmax.weigh::<S, E>(simd, scores, self.keys, self.scale, self.is_first);
            *kept = softmax.kept;
        }
    }
}
