//! Multi-head attention with rotary positions, over the output of the qkv projection.
//!
//! Keys and values of a head are packed into the same panels as weights, so that scores and weighted sums run on the
//! register tile of the matrix product. The scores of a block of queries lie in one buffer of bounded size.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use dinov3_system::threads::Pool;

use crate::element::{Element, Work, store_part};
use crate::gemm::tile::{PANEL, PanelLayout, panel_product};
use crate::gemm::tile_vectors;
use crate::isa::Isa;
use crate::math;
use crate::memory::{AlignedWords, SharedOutput};
use crate::simd::{Kernel, LANES, Lanes, Simd};

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Images; tokens of different images do not see each other.
    pub images: usize,
    /// Tokens of an image, the prefix included.
    pub tokens: usize,
    /// Leading tokens without a position: they are not rotated.
    pub prefix_tokens: usize,
    /// Attention heads.
    pub heads: usize,
    /// Numbers of a head, a multiple of 4.
    pub head_dim: usize,
}

impl AttentionShape {
    fn dim(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// Buffers that [`attention`] keeps from call to call. They only grow.
#[derive(Default)]
pub struct AttentionScratch {
    /// Packed keys and values of all heads, when several tasks share a head.
    packed: AlignedWords,
    workers: Vec<Mutex<Worker>>,
}

impl std::fmt::Debug for AttentionScratch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AttentionScratch")
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Worker {
    /// Packed keys and values of the head at work.
    packed: AlignedWords,
    /// Query rows of type E; before that, key rows on their way into a panel.
    rows: AlignedWords,
    scores: AlignedWords,
    /// Weighted sums of values.
    sums: AlignedWords,
}

/// Floats of the score buffer that are aimed at: half of a small L2. A long row takes what it needs.
const SCORE_FLOATS: usize = 32 * 1024;
const MOST_ROWS: usize = 96;
const FEWEST_ROWS: usize = 12;
/// Tokens by which reading from `qkv` is announced ahead.
const PREFETCH: usize = 12;

/// How packed heads and score rows lie in memory.
#[derive(Clone, Copy)]
struct Plan {
    tile_vectors: usize,
    key_words: usize,
    value_words: usize,
    /// Query rows of a block.
    rows: usize,
    score_stride: usize,
    sum_stride: usize,
}

impl Plan {
    fn new<E: Element>(isa: Isa, shape: &AttentionShape) -> Plan {
        let padded_tokens = shape.tokens.next_multiple_of(LANES);
        let padded_dim = shape.head_dim.next_multiple_of(LANES);
        // One more vector, so that rows do not fall on the same cache sets.
        let score_stride = padded_tokens + LANES;
        let most = (SCORE_FLOATS / score_stride).clamp(FEWEST_ROWS, MOST_ROWS);
        let rows = shape.tokens.div_ceil(shape.tokens.div_ceil(most)).next_multiple_of(6);
        Plan {
            tile_vectors: tile_vectors(isa),
            key_words: padded_tokens * shape.head_dim.div_ceil(E::GROUP),
            value_words: padded_dim * shape.tokens.div_ceil(E::GROUP),
            rows,
            score_stride,
            sum_stride: padded_dim,
        }
    }

    fn packed_words(&self) -> usize {
        // Values start on a cache line as well.
        self.key_words.next_multiple_of(LANES) + self.value_words.next_multiple_of(LANES)
    }

    fn key_layout<E: Element>(&self, shape: &AttentionShape, first: usize) -> PanelLayout {
        PanelLayout::new::<E>(self.tile_vectors, shape.tokens - first, shape.head_dim)
    }

    fn value_layout<E: Element>(&self, shape: &AttentionShape, first: usize) -> PanelLayout {
        PanelLayout::new::<E>(self.tile_vectors, shape.head_dim - first, shape.tokens)
    }

    fn blocks(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.rows)
    }
}

/// Attention of each image's tokens to each other: softmax(q kᵀ / √head_dim) v per head.
///
/// `qkv` is `[images * tokens, 3 * heads * head_dim]`: q, k and v side by side, each with its heads side by side. Tokens
/// after the prefix are rotated by `rope_sin` and `rope_cos`, `[tokens - prefix_tokens, head_dim]` each: the second half
/// of a head is paired with the first. `out` is `[images * tokens, heads * head_dim]`. Factors of the two products are
/// rounded to `E`; everything else is f32.
///
/// # Panics
/// If a slice does not have the length that the shape says, or `head_dim` is no multiple of 4.
#[allow(clippy::too_many_arguments)]
pub fn attention<E: Element>(
    pool: &Pool,
    isa: Isa,
    shape: &AttentionShape,
    qkv: &[f32],
    rope_sin: &[f32],
    rope_cos: &[f32],
    scratch: &mut AttentionScratch,
    out: &mut [E],
) {
    let rows = shape.images * shape.tokens;
    let dim = shape.dim();
    let positions = shape.tokens.checked_sub(shape.prefix_tokens);
    let positions = positions.expect("more prefix tokens than tokens");
    assert_eq!(qkv.len(), rows * 3 * dim, "qkv");
    assert_eq!(out.len(), rows * dim, "out");
    assert_eq!(rope_sin.len(), positions * shape.head_dim, "sines");
    assert_eq!(rope_cos.len(), positions * shape.head_dim, "cosines");
    assert_eq!(shape.head_dim % 4, 0, "head_dim");
    if out.is_empty() {
        return;
    }

    let plan = Plan::new::<E>(isa, shape);
    while scratch.workers.len() < pool.threads() {
        scratch.workers.push(Mutex::default());
    }
    let workers = &scratch.workers;
    let heads = shape.images * shape.heads;
    let output = SharedOutput::new(out);
    let run = |head: usize, part: Part<'_>, worker: usize| {
        let mut worker = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
        E::run(
            isa,
            Work::Attention(AttentionTask {
                shape,
                plan,
                qkv,
                rope_sin,
                rope_cos,
                image: head / shape.heads,
                head: head % shape.heads,
                output: &output,
                part,
                worker: &mut worker,
            }),
        );
    };
    // With many heads a task is a whole head, whose panels stay in the thread's cache. With few, a head is split.
    if heads >= 4 * pool.threads() || pool.threads() == 1 {
        pool.run_with_worker(heads, &|head, worker| run(head, Part::Head, worker));
        return;
    }
    let packed_words = plan.packed_words();
    scratch.packed.grow(heads * packed_words);
    let packed = SharedOutput::new(scratch.packed.as_mut_slice());
    pool.run_with_worker(heads, &|head, worker| {
        // SAFETY: each task packs the head of its own number.
        let target = unsafe { packed.part(head * packed_words, packed_words) };
        run(head, Part::Pack(target), worker);
    });
    let packed = scratch.packed.as_slice();
    let blocks = plan.blocks(shape.tokens);
    pool.run_with_worker(heads * blocks, &|task, worker| {
        let (head, block) = (task / blocks, task % blocks);
        let source = &packed[head * packed_words..(head + 1) * packed_words];
        run(head, Part::Block(source, block), worker);
    });
}

enum Part<'a> {
    /// Pack keys and values, then all queries.
    Head,
    /// Pack keys and values only.
    Pack(&'a mut [u32]),
    /// One block of queries against packed keys and values.
    Block(&'a [u32], usize),
}

pub struct AttentionTask<'a, E> {
    shape: &'a AttentionShape,
    plan: Plan,
    qkv: &'a [f32],
    rope_sin: &'a [f32],
    rope_cos: &'a [f32],
    image: usize,
    head: usize,
    output: &'a SharedOutput<'a, E>,
    part: Part<'a>,
    worker: &'a mut Worker,
}

impl<E: Element> Kernel for AttentionTask<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Plan { rows, score_stride, sum_stride, .. } = self.plan;
        let dim_words = self.shape.head_dim.div_ceil(E::GROUP);
        let worker = &mut *self.worker;
        worker.rows.grow(rows.max(LANES) * dim_words);
        worker.scores.grow(rows * score_stride);
        worker.sums.grow(rows * sum_stride);
        let mut packed = std::mem::take(&mut worker.packed);
        match std::mem::replace(&mut self.part, Part::Head) {
            Part::Head => {
                packed.grow(self.plan.packed_words());
                self.pack(simd, packed.as_mut_slice());
                for block in 0..self.plan.blocks(self.shape.tokens) {
                    self.attend(simd, packed.as_slice(), block);
                }
            }
            Part::Pack(target) => self.pack(simd, target),
            Part::Block(source, block) => self.attend(simd, source, block),
        }
        self.worker.packed = packed;
    }
}

impl<E: Element> AttentionTask<'_, E> {
    /// The head's part of a token's q (0), k (1) or v (2).
    #[inline(always)]
    fn source(&self, token: usize, which: usize) -> &[f32] {
        let dim = self.shape.dim();
        let row = (self.image * self.shape.tokens + token) * 3 * dim;
        &self.qkv[row + which * dim + self.head * self.shape.head_dim..][..self.shape.head_dim]
    }

    /// Asks for the head's part of a token, if there is such a token.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, simd: S, token: usize, which: usize) {
        if token < self.shape.tokens {
            let source = self.source(token, which);
            for line in source.chunks(LANES) {
                simd.prefetch(line.as_ptr());
            }
            simd.prefetch(&source[source.len() - 1]);
        }
    }

    /// Rotates a token's q or k and puts it, rounded, into row `row` of the worker's rows.
    #[inline(always)]
    fn rotate<S: Simd>(&mut self, simd: S, token: usize, which: usize, row: usize) {
        let head_dim = self.shape.head_dim;
        let mut rows = std::mem::take(&mut self.worker.rows);
        // Rows of one head lie a page or more apart, which hardware does not foresee.
        self.prefetch(simd, token + PREFETCH, which);
        let source = self.source(token, which);
        let words = rows.as_mut_slice();
        assert!(words.len() * E::GROUP >= (row + 1) * head_dim);
        // SAFETY: E is made of plain bits, and the row lies in the buffer (asserted).
        let target = unsafe {
            let start = words.as_mut_ptr().cast::<E>();
            std::slice::from_raw_parts_mut(start.add(row * head_dim), head_dim)
        };
        match token.checked_sub(self.shape.prefix_tokens) {
            None => {
                for (source, target) in source.chunks(LANES).zip(target.chunks_mut(LANES)) {
                    store_part(simd, simd.load_part(source, 0.0), target);
                }
            }
            Some(position) => {
                let range = position * head_dim..(position + 1) * head_dim;
                let half = head_dim / 2;
                let (sin_low, sin_high) = self.rope_sin[range.clone()].split_at(half);
                let (cos_low, cos_high) = self.rope_cos[range].split_at(half);
                let (low, high) = source.split_at(half);
                let (to_low, to_high) = target.split_at_mut(half);
                for first in (0..half).step_by(LANES) {
                    let part = first..half.min(first + LANES);
                    let load = |numbers: &[f32]| simd.load_part(&numbers[part.clone()], 0.0);
                    let (a, b) = (load(low), load(high));
                    let minus_b = simd.subtract(simd.splat(0.0), b);
                    let first = simd.multiply(minus_b, load(sin_low));
                    let first = simd.fused(a, load(cos_low), first);
                    let second = simd.multiply(a, load(sin_high));
                    let second = simd.fused(b, load(cos_high), second);
                    store_part(simd, first, &mut to_low[part.clone()]);
                    store_part(simd, second, &mut to_high[part.clone()]);
                }
            }
        }
        self.worker.rows = rows;
    }

    /// Packs the rotated keys as panels of tokens over the head's numbers, and the values as panels of the head's
    /// numbers over tokens.
    #[inline(always)]
    fn pack<S: Simd>(&mut self, simd: S, target: &mut [u32]) {
        let (plan, shape) = (self.plan, *self.shape);
        let AttentionShape { tokens, head_dim, .. } = shape;
        let (keys, values) = target.split_at_mut(self.plan.key_words.next_multiple_of(LANES));
        let words = head_dim.div_ceil(E::GROUP);
        for first in (0..tokens).step_by(LANES) {
            let columns = (tokens - first).min(LANES);
            for column in 0..columns {
                self.rotate(simd, first + column, 1, column);
            }
            let source = &mut self.worker.rows.as_mut_slice()[..LANES * words];
            source[columns * words..].fill(0);
            let panel = first / PANEL * PANEL;
            let layout = plan.key_layout::<E>(&shape, panel);
            let start = panel * words + layout.offset(first - panel, 0);
            for word in 0..words {
                let at = start + word * layout.sub_width;
                let target: &mut [u32; LANES] = keys[at..at + LANES].first_chunk_mut().unwrap();
                for column in 0..LANES {
                    target[column] = source[column * words + word];
                }
            }
        }

        let value_words = tokens.div_ceil(E::GROUP);
        for first in (0..head_dim).step_by(PANEL) {
            let layout = plan.value_layout::<E>(&shape, first);
            let panel = &mut values[first * value_words..][..layout.len()];
            let columns = (head_dim - first).min(PANEL);
            for word in 0..value_words {
                let token = word * E::GROUP;
                for ahead in 0..E::GROUP {
                    self.prefetch(simd, token + PREFETCH + ahead, 2);
                }
                let even = &self.source(token, 2)[first..first + columns];
                let odd = if token + 1 < tokens && E::GROUP == 2 {
                    &self.source(token + 1, 2)[first..first + columns]
                } else {
                    &[0.0; PANEL][..columns]
                };
                for column in (0..layout.width).step_by(LANES) {
                    let at = layout.offset(column, word);
                    let target = panel[at..at + LANES].first_chunk_mut().unwrap();
                    let used = column.min(columns)..columns.min(column + LANES);
                    let first = simd.load_part(&even[used.clone()], 0.0);
                    let second = simd.load_part(&odd[used], 0.0);
                    E::store_words(simd, first, second, target);
                }
            }
        }
    }

    /// One block of queries.
    #[inline(always)]
    fn attend<S: Simd>(&mut self, simd: S, packed: &[u32], block: usize) {
        let (plan, shape) = (self.plan, *self.shape);
        let AttentionShape { tokens, head_dim, .. } = shape;
        let Plan { score_stride, sum_stride, .. } = self.plan;
        let queries: Range<usize> = block * self.plan.rows..tokens.min((block + 1) * self.plan.rows);
        let rows = queries.len();
        for (row, token) in queries.clone().enumerate() {
            self.rotate(simd, token, 0, row);
        }
        let (keys, values) = packed.split_at(self.plan.key_words.next_multiple_of(LANES));
        let query_rows = self.worker.rows.as_slice().as_ptr().cast::<E>();
        let scores = &mut self.worker.scores.as_floats_mut()[..rows * score_stride];
        for first in (0..tokens).step_by(PANEL) {
            let layout = plan.key_layout::<E>(&shape, first);
            let panel = &keys[first * layout.words..][..layout.len()];
            // SAFETY: the worker's rows hold `rows` rows of head_dim numbers, the panel is as long as its layout, and a
            // score row has room for all tokens rounded up to whole vectors, which is where the last panel ends.
            unsafe {
                panel_product::<S, E>(
                    simd,
                    query_rows,
                    head_dim,
                    rows,
                    head_dim,
                    panel.as_ptr(),
                    layout,
                    scores.as_mut_ptr().add(first),
                    score_stride,
                );
            }
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut totals = [0.0; MOST_ROWS + 6];
        for (row, scores) in scores.chunks_exact_mut(score_stride).enumerate() {
            totals[row] = softmax_row::<S, E>(simd, scores, tokens, scale);
        }
        let sums = &mut self.worker.sums.as_floats_mut()[..rows * sum_stride];
        for first in (0..head_dim).step_by(PANEL) {
            let layout = plan.value_layout::<E>(&shape, first);
            let panel = &values[first * layout.words..][..layout.len()];
            // SAFETY: each score row now starts with `tokens` numbers of type E; the panel is as long as its layout, and
            // a row of sums has room for head_dim rounded up to whole vectors.
            unsafe {
                panel_product::<S, E>(
                    simd,
                    scores.as_ptr().cast::<E>(),
                    score_stride * E::GROUP,
                    rows,
                    tokens,
                    panel.as_ptr(),
                    layout,
                    sums.as_mut_ptr().add(first),
                    sum_stride,
                );
            }
        }
        for (row, sums) in sums.chunks_exact(sum_stride).enumerate() {
            let token = self.image * tokens + queries.start + row;
            let start = token * self.shape.dim() + self.head * head_dim;
            // SAFETY: tasks differ in the image, the head or the block of queries, so their parts do not overlap.
            let out = unsafe { self.output.part(start, head_dim) };
            let inverse = simd.splat(1.0 / totals[row]);
            for (sums, out) in sums[..head_dim].chunks(LANES).zip(out.chunks_mut(LANES)) {
                let value = simd.multiply(simd.load_part(sums, 0.0), inverse);
                store_part(simd, value, out);
            }
        }
    }
}

/// Replaces the scores of a row by e^((score - largest) * scale) as numbers of type E, packed from the row's start on.
/// Gives their sum before rounding. What lies between `tokens` and the next whole vector becomes zero.
#[inline(always)]
fn softmax_row<S: Simd, E: Element>(simd: S, row: &mut [f32], tokens: usize, scale: f32) -> f32 {
    let (chunks, tail) = row[..tokens].as_chunks::<LANES>();
    let lowest = f32::NEG_INFINITY;
    let mut largest = [simd.splat(lowest); 2];
    for (index, chunk) in chunks.iter().enumerate() {
        // The second operand wins over NaN: the largest stays a number, and NaN comes back through the subtraction.
        largest[index % 2] = simd.max(simd.load(chunk), largest[index % 2]);
    }
    let last = simd.load_part(tail, lowest);
    let largest = simd.largest(simd.max(last, simd.max(largest[0], largest[1])));

    let largest = simd.splat(largest);
    let scale = simd.splat(scale);
    let mut sum = simd.splat(0.0);
    let whole = chunks.len();
    let vectors = tokens.div_ceil(LANES);
    assert!(vectors * LANES <= row.len());
    let start = row.as_mut_ptr();
    for index in 0..vectors {
        // SAFETY: vector `index` lies in the row (asserted); E is at most as wide as f32, so what is written ends before
        // the next vector that is read.
        let scores = unsafe { *start.add(index * LANES).cast::<Lanes>() };
        let score = if index < whole { simd.load(&scores) } else { last };
        let power = math::exp(simd, simd.multiply(simd.subtract(score, largest), scale));
        sum = simd.add(sum, power);
        // SAFETY: as above; this vector has been read.
        let target = unsafe { &mut *start.cast::<E>().add(index * LANES).cast::<[E; LANES]>() };
        // e^x is zero or above the subnormal numbers.
        E::store_normal(simd, power, target);
    }
    simd.sum(sum)
}
