//! Multi-head attention over the output of the qkv projection.
//!
//! Keys and values of a head are packed into the same panels as weights, so that scores and weighted sums run on the
//! register tile of the matrix product. The scores of a block of queries lie in one buffer of bounded size. Where a row of
//! scores would leave too few queries in it, keys are taken in blocks, with the largest score, the total and the weighted
//! sums carried on from block to block (Milakov and Gimelshein 2018, arXiv 1805.02867).
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use dinov3_system::threads::Pool;

use crate::element::{Element, SealedElement, Work, store_part};
use crate::gemm::tile::{PANEL, PanelLayout, panel_product};
use crate::gemm::tile_vectors;
use crate::isa::Isa;
use crate::memory::{AlignedWords, SharedOutput};
use crate::simd::{Kernel, LANES, Lanes, Simd};

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Images; tokens of different images do not see each other.
    pub images: usize,
    /// Tokens of an image, the prefix included.
    pub tokens: usize,
    /// Attention heads.
    pub heads: usize,
    /// Numbers of a head, a multiple of 4.
    pub head_dim: usize,
}

impl AttentionShape {
    pub(crate) fn dim(&self) -> usize {
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
    scores: AlignedWords,
    /// Weighted sums of values.
    sums: AlignedWords,
    /// Those of one block of keys, where there are several.
    sums_of_block: AlignedWords,
}

/// Floats of the score buffer that are aimed at: half of a small L2.
const SCORE_FLOATS: usize = 32 * 1024;
const MOST_ROWS: usize = 96;
/// Keys of a block, whole panels: keys, values and scores of a block take 400 KB in f32, 270 KB in bf16.
const KEY_BLOCK: usize = 512;
const _: () = assert!(KEY_BLOCK.is_multiple_of(PANEL));
/// Most tokens whose scores are held at once: those of 24 queries about fill the buffer. Beyond it, keys and values would be
/// read from beyond L2 for ever fewer queries.
const MOST_AT_ONCE: usize = SCORE_FLOATS / 24 - LANES;

/// How packed heads and score rows lie in memory.
#[derive(Clone, Copy)]
struct Plan {
    tile_vectors: usize,
    key_words: usize,
    value_words: usize,
    /// Query rows of a block.
    rows: usize,
    /// Keys whose scores are held at once.
    keys: usize,
    score_stride: usize,
    sum_stride: usize,
}

impl Plan {
    fn new<E: Element>(isa: Isa, shape: &AttentionShape) -> Plan {
        let padded_tokens = shape.tokens.next_multiple_of(LANES);
        let padded_dim = shape.head_dim.next_multiple_of(LANES);
        let keys = if shape.tokens <= MOST_AT_ONCE { shape.tokens } else { KEY_BLOCK };
        // One more vector, so that rows do not fall on the same cache sets.
        let score_stride = keys.next_multiple_of(LANES) + LANES;
        let most = (SCORE_FLOATS / score_stride).min(MOST_ROWS);
        let rows = shape.tokens.div_ceil(shape.tokens.div_ceil(most)).next_multiple_of(6);
        Plan {
            tile_vectors: tile_vectors(isa),
            key_words: padded_tokens * shape.head_dim.div_ceil(E::GROUP),
            value_words: padded_dim * shape.tokens.div_ceil(E::GROUP),
            rows,
            keys,
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
/// `qkv` is `[images * tokens, 3 * heads * head_dim]`: q, k and v side by side, each with its heads side by side, q and k
/// already turned by their positions. `out` is `[images * tokens, heads * head_dim]`. The powers that weigh the values are
/// rounded to `E`; everything else is f32.
///
/// # Panics
/// If a slice does not have the length that the shape says, or `head_dim` is no multiple of 4.
#[allow(clippy::too_many_arguments)]
pub fn attention<E: Element>(
    pool: &Pool,
    isa: Isa,
    shape: &AttentionShape,
    qkv: &[E],
    scratch: &mut AttentionScratch,
    out: &mut [E],
) {
    let rows = shape.images * shape.tokens;
    let dim = shape.dim();
    assert_eq!(qkv.len(), rows * 3 * dim, "qkv");
    assert_eq!(out.len(), rows * dim, "out");
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
    qkv: &'a [E],
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
        let worker = &mut *self.worker;
        worker.scores.grow(rows * score_stride);
        worker.sums.grow(rows * sum_stride);
        if self.plan.keys < self.shape.tokens {
            worker.sums_of_block.grow(rows * sum_stride);
        }
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
    fn source(&self, token: usize, which: usize) -> &[E] {
        &self.qkv[self.start_of(token, which)..][..self.shape.head_dim]
    }

    /// Where that part starts.
    #[inline(always)]
    fn start_of(&self, token: usize, which: usize) -> usize {
        let dim = self.shape.dim();
        let row = (self.image * self.shape.tokens + token) * 3 * dim;
        row + which * dim + self.head * self.shape.head_dim
    }

    /// Asks for the head's part of sixteen tokens, as far as there are such. They lie a page or more apart, which hardware
    /// does not foresee.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, simd: S, first: usize, which: usize) {
        for token in first..self.shape.tokens.min(first + LANES) {
            let source = self.source(token, which);
            for line in source.chunks(64 / size_of::<E>()) {
                simd.prefetch(line.as_ptr().cast());
            }
        }
    }

    /// Packs the keys as panels of tokens over the head's numbers, and the values as panels of the head's numbers over
    /// tokens.
    #[inline(always)]
    fn pack<S: Simd>(&self, simd: S, target: &mut [u32]) {
        let (keys, values) = target.split_at_mut(self.plan.key_words.next_multiple_of(LANES));
        self.pack_keys(simd, keys);
        self.pack_values(simd, values);
    }

    #[inline(always)]
    fn pack_keys<S: Simd>(&self, simd: S, keys: &mut [u32]) {
        let AttentionShape { tokens, head_dim, .. } = *self.shape;
        let words = head_dim.div_ceil(E::GROUP);
        for first in (0..tokens).step_by(LANES) {
            self.prefetch(simd, first + LANES, 1);
            let panel = first / PANEL * PANEL;
            let layout = self.plan.key_layout::<E>(self.shape, panel);
            let start = panel * words + layout.offset(first - panel, 0);
            for first_word in (0..words).step_by(LANES) {
                let mut rows = [simd.splat(0.0); LANES];
                for (row, token) in rows.iter_mut().zip(first..tokens.min(first + LANES)) {
                    let numbers = &self.source(token, 1)[first_word * E::GROUP..];
                    if numbers.len() >= LANES * E::GROUP {
                        // SAFETY: sixteen words of numbers (checked), which are plain bits.
                        *row = unsafe { simd.load_words(numbers.as_ptr().cast()) };
                    } else {
                        let mut part = [E::default(); 2 * LANES];
                        part[..numbers.len()].copy_from_slice(numbers);
                        // SAFETY: at least sixteen words of numbers, which are plain bits.
                        *row = unsafe { simd.load_words(part.as_ptr().cast()) };
                    }
                }
                let columns = simd.transpose(rows);
                for (word, column) in (first_word..words.min(first_word + LANES)).zip(columns) {
                    let at = start + word * layout.sub_width;
                    // SAFETY: sixteen words; u32 and f32 have the same size and alignment, and all bits are a value.
                    simd.store(column, unsafe { &mut *keys[at..at + LANES].as_mut_ptr().cast() });
                }
            }
        }
    }

    #[inline(always)]
    fn pack_values<S: Simd>(&self, simd: S, values: &mut [u32]) {
        let AttentionShape { tokens, head_dim, .. } = *self.shape;
        let value_words = tokens.div_ceil(E::GROUP);
        for word in 0..value_words {
            let token = word * E::GROUP;
            if token.is_multiple_of(LANES) {
                self.prefetch(simd, token + LANES, 2);
            }
            let first = self.source(token, 2);
            // A token that is not there weighs nothing.
            let second = if token + 1 < tokens { Some(self.source(token + 1, 2)) } else { None };
            for column in (0..head_dim).step_by(LANES) {
                let panel = column / PANEL * PANEL;
                let layout = self.plan.value_layout::<E>(self.shape, panel);
                let at = panel * value_words + layout.offset(column - panel, word);
                let target: &mut [u32; LANES] = values[at..at + LANES].first_chunk_mut().expect("sixteen");
                let sixteen = |numbers: Option<&[E]>| {
                    let mut lanes = [E::default(); LANES];
                    let Some(numbers) = numbers.map(|numbers| &numbers[column..]) else { return lanes };
                    if let Some(whole) = numbers.first_chunk() {
                        return *whole;
                    }
                    lanes[..numbers.len()].copy_from_slice(numbers);
                    lanes
                };
                *target = E::pairs(&sixteen(Some(first)), &sixteen(second));
            }
        }
    }

    /// One block of queries.
    #[inline(always)]
    fn attend<S: Simd>(&mut self, simd: S, packed: &[u32], block: usize) {
        let AttentionShape { tokens, head_dim, .. } = *self.shape;
        let Plan { score_stride, sum_stride, .. } = self.plan;
        let queries: Range<usize> = block * self.plan.rows..tokens.min((block + 1) * self.plan.rows);
        let mut scores = std::mem::take(&mut self.worker.scores);
        let mut sums = std::mem::take(&mut self.worker.sums);
        let mut sums_of_block = std::mem::take(&mut self.worker.sums_of_block);
        let score_rows = &mut scores.as_floats_mut()[..queries.len() * score_stride];
        let sum_rows = &mut sums.as_floats_mut()[..queries.len() * sum_stride];
        let mut softmax = [Softmax::START; MOST_ROWS + 6];
        for first_key in (0..tokens).step_by(self.plan.keys) {
            let keys = first_key..tokens.min(first_key + self.plan.keys);
            self.score(simd, packed, &queries, &keys, score_rows);
            let is_first = first_key == 0;
            for (scores, softmax) in score_rows.chunks_exact_mut(score_stride).zip(&mut softmax) {
                softmax.weigh::<S, E>(simd, scores, keys.len(), self.scale(), is_first);
            }
            if is_first {
                self.sum_values(simd, packed, queries.len(), &keys, score_rows, sum_rows);
                continue;
            }
            let block = &mut sums_of_block.as_floats_mut()[..queries.len() * sum_stride];
            self.sum_values(simd, packed, queries.len(), &keys, score_rows, block);
            let rows = sum_rows.chunks_exact_mut(sum_stride).zip(block.chunks_exact(sum_stride));
            for ((sums, block), softmax) in rows.zip(&softmax) {
                let kept = simd.splat(softmax.kept);
                for (sum, block) in sums.as_chunks_mut::<LANES>().0.iter_mut().zip(block.as_chunks::<LANES>().0) {
                    simd.store(simd.fused(simd.load(sum), kept, simd.load(block)), sum);
                }
            }
        }
        for ((row, sums), softmax) in sum_rows.chunks_exact(sum_stride).enumerate().zip(&softmax) {
            let token = self.image * tokens + queries.start + row;
            let start = token * self.shape.dim() + self.head * head_dim;
            // SAFETY: tasks differ in the image, the head or the block of queries, so their parts do not overlap.
            let out = unsafe { self.output.part(start, head_dim) };
            // A row of nothing but minus infinity has no weights.
            let total = if softmax.largest == f32::NEG_INFINITY { f32::NAN } else { softmax.total };
            let inverse = simd.splat(1.0 / total);
            for (sums, out) in sums[..head_dim].chunks(LANES).zip(out.chunks_mut(LANES)) {
                let value = simd.multiply(simd.load_part(sums, 0.0), inverse);
                store_part(simd, value, out);
            }
        }
        self.worker.scores = scores;
        self.worker.sums = sums;
        self.worker.sums_of_block = sums_of_block;
    }

    /// Scores are exponents of e over the root; powers of two are cheaper.
    fn scale(&self) -> f64 {
        std::f64::consts::LOG2_E / (self.shape.head_dim as f64).sqrt()
    }

    /// Products of queries with keys, a row of scores for each query.
    #[inline(always)]
    fn score<S: Simd>(&self, simd: S, packed: &[u32], queries: &Range<usize>, keys: &Range<usize>, scores: &mut [f32]) {
        let Plan { score_stride, .. } = self.plan;
        let head_dim = self.shape.head_dim;
        assert!(keys.len() + LANES <= score_stride && scores.len() == queries.len() * score_stride, "scores");
        // Blocks of keys are whole panels.
        let layout = self.plan.key_layout::<E>(self.shape, keys.start);
        let panels = &packed[keys.start * layout.words..][..keys.len().next_multiple_of(LANES) * layout.words];
        let queries_from = self.qkv[self.start_of(queries.start, 0)..].as_ptr();
        // SAFETY: `qkv` holds the queries' rows (its length was checked), `packed` the panels of all keys, and a score row
        // has room for the keys rounded up to whole vectors.
        unsafe {
            panel_product::<S, E>(
                simd,
                queries_from,
                3 * self.shape.dim(),
                queries.len(),
                head_dim,
                panels.as_ptr(),
                layout,
                keys.len(),
                scores.as_mut_ptr(),
                score_stride,
            );
        }
    }

    /// Sums of values, weighted by what [`Softmax::weigh`] made of each row of scores.
    #[inline(always)]
    fn sum_values<S: Simd>(
        &self,
        simd: S,
        packed: &[u32],
        rows: usize,
        keys: &Range<usize>,
        scores: &[f32],
        sums: &mut [f32],
    ) {
        let Plan { score_stride, sum_stride, .. } = self.plan;
        let values = &packed[self.plan.key_words.next_multiple_of(LANES)..];
        assert!(scores.len() == rows * score_stride && sums.len() == rows * sum_stride, "rows");
        for first in (0..self.shape.head_dim).step_by(PANEL) {
            let layout = self.plan.value_layout::<E>(self.shape, first);
            // Blocks of keys are whole words; from there on the panel is laid out as from its start.
            let panel = &values[first * layout.words..][..layout.len()][layout.offset(0, keys.start / E::GROUP)..];
            // SAFETY: each score row starts with as many numbers of type E as there are keys; the panel holds the words of
            // the keys for each of its columns, and a row of sums has room for head_dim rounded up to whole vectors.
            unsafe {
                panel_product::<S, E>(
                    simd,
                    scores.as_ptr().cast::<E>(),
                    score_stride * E::GROUP,
                    rows,
                    keys.len(),
                    panel.as_ptr(),
                    layout,
                    layout.width,
                    sums.as_mut_ptr().add(first),
                    sum_stride,
                );
            }
        }
    }
}

/// What softmax carries on from one block of a row's scores to the next.
#[derive(Clone, Copy)]
struct Softmax {
    largest: f32,
    /// Of the powers before rounding.
    total: f32,
    /// What sums of earlier blocks have to be multiplied with, since a larger score was found.
    kept: f32,
}

impl Softmax {
    const START: Softmax = Softmax { largest: f32::NEG_INFINITY, total: 0.0, kept: 0.0 };

    /// Replaces the scores of a block of keys by 2^((score - largest) * scale) as numbers of type E, packed from the row's
    /// start on. What lies between `keys` and the next whole vector becomes too small to count.
    #[inline(always)]
    fn weigh<S: Simd, E: Element>(&mut self, simd: S, row: &mut [f32], keys: usize, scale: f64, is_first: bool) {
        let (chunks, tail) = row[..keys].as_chunks::<LANES>();
        let mut largest = [simd.splat(self.largest); 2];
        for (index, chunk) in chunks.iter().enumerate() {
            // The second operand wins over NaN: the largest stays a number, and NaN comes back through the subtraction.
            largest[index % 2] = simd.max(simd.load(chunk), largest[index % 2]);
        }
        let last = simd.load_part(tail, f32::NEG_INFINITY);
        // Scores of minus infinity weigh nothing beside others, in whatever block those are.
        let before = self.largest.max(f32::MIN);
        self.largest = simd.largest(simd.max(last, simd.max(largest[0], largest[1])));

        let largest = simd.splat(self.largest.max(f32::MIN));
        let lowest = simd.splat((-125.0 / scale) as f32);
        // What f32 cannot hold of the scale.
        let scale = [simd.splat(scale as f32), simd.splat((scale - f64::from(scale as f32)) as f32)];
        let mut sum = simd.splat(0.0);
        let whole = chunks.len();
        let vectors = keys.div_ceil(LANES);
        assert!(vectors * LANES <= row.len());
        let start = row.as_mut_ptr();
        for index in 0..vectors {
            // SAFETY: vector `index` lies in the row (asserted); E is at most as wide as f32, so what is written ends before
            // the next vector that is read.
            let scores = unsafe { *start.add(index * LANES).cast::<Lanes>() };
            let score = if index < whole { simd.load(&scores) } else { last };
            // Bounded, so that no power is below the normal numbers. NaN takes the second operand of the larger.
            let power = E::exp2(simd, simd.max(lowest, simd.subtract(score, largest)), scale);
            sum = simd.add(sum, power);
            // SAFETY: as above; this vector has been read.
            let target = unsafe { &mut *start.cast::<E>().add(index * LANES).cast::<[E; LANES]>() };
            // No power is subnormal.
            E::store_normal(simd, power, target);
        }
        if is_first {
            self.total = simd.sum(sum);
            return;
        }
        let fall = simd.max(lowest, simd.subtract(simd.splat(before), largest));
        let mut kept = [0.0; LANES];
        simd.store(<f32 as SealedElement>::exp2(simd, fall, scale), &mut kept);
        self.kept = kept[0];
        self.total = self.total * self.kept + simd.sum(sum);
    }
}
