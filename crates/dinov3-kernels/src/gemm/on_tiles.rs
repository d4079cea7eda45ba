//! Matrix products on tiles: what is read is arranged for the caches, and the results of one block are made of their sums while
//! the next block is multiplied.
//!
//! A step of 2 x 2 tiles multiplies for 64 cycles and reads 4 KB, twice as much as L2 delivers in that time without a pause.
//! So a slab of two columns of tiles stays in L1 while the rows of a task stream past from L2.
#![allow(unsafe_code)]

use std::cell::Cell;

use super::epilogue::{PanelEpilogue, PanelPart, TwoColumns, Vectors};
use super::tile::PANEL;
use super::{LinearTask, PanelRows};
use crate::amx::{Meanwhile, SIDE, TileBlock, Tiles};
use crate::element::{Element, Operand};
use crate::memory::AlignedWords;
use crate::simd::{LANES, Simd};

/// Rows of a block.
const BLOCK_ROWS: usize = 2 * SIDE;
/// Words of k in a slab: two columns of tiles take 32 KB.
const SLAB_WORDS: usize = 256;
/// Bytes that the rows of a task take, somewhat more than half of L2 on the CPUs that have tiles.
const ROW_BYTES: usize = 1152 * 1024;
/// Rows of a task at most: then reading weights from L3 takes a third of the time of multiplying them.
const MOST_ROWS: usize = 288;

/// Rows of a task, at most.
pub(super) fn most_rows<E: Operand>(k: usize) -> usize {
    let row_bytes = (E::product_length(k) * size_of::<E>()).max(1);
    (ROW_BYTES / row_bytes / SIDE * SIDE).clamp(BLOCK_ROWS, MOST_ROWS)
}

thread_local! {
    /// Sums of the rows of a task over a panel.
    static SUMS: Cell<AlignedWords> = Cell::default();
}

impl<E: Operand, O: Element> LinearTask<'_, E, O> {
    #[inline(always)]
    pub(super) fn on_tiles<S: Simd>(&self, simd: S, tiles: &mut Tiles) {
        let k_bytes = E::product_length(self.w.k()) * size_of::<E>();
        let mut buffer = SUMS.take();
        buffer.grow(self.rows.next_multiple_of(BLOCK_ROWS).max(2 * BLOCK_ROWS) * PANEL);
        let sums = buffer.as_floats_mut().as_mut_ptr();
        // Of a single slab only the sums of two blocks are alive.
        let has_slabs = k_bytes > SLAB_WORDS * 4;
        let tail = self.epilogue.tail(self.w.n());
        let mut between = Between { simd, pending: None, rows_per_step: 0, ahead: Ahead::default() };
        let mut block_number = 0;
        let mut slab = Some(self.first_slab());
        while let Some(Slab { panel: index, columns, word }) = slab {
            let (panel, layout) = self.w.panel(index);
            let first = index * PANEL;
            let slab_bytes = (k_bytes - word * 4).min(SLAB_WORDS * 4);
            let is_last = word + SLAB_WORDS >= layout.words;
            let steps = slab_bytes.div_ceil(64).max(1);
            let tiles_of_columns = [0, 1].map(|side| {
                let column = columns.at(side) * SIDE;
                let tiles = panel.as_ptr().wrapping_add(layout.offset(column, word));
                if column < layout.width { tiles } else { std::ptr::null() }
            });
            slab = self.next_slab(slab.expect("the slab at work"));
            between.ahead = slab.map_or(Ahead::default(), |next| {
                let (panel, layout) = self.w.panel(next.panel);
                let tiles = |side: usize| layout.offset(next.columns.at(side) * SIDE, next.word);
                let lines = (layout.words - next.word).min(SLAB_WORDS);
                let steps = steps * self.rows.div_ceil(BLOCK_ROWS);
                Ahead {
                    columns: [0, 1].map(|side| panel.as_ptr().wrapping_add(tiles(side))),
                    next: 0,
                    lines,
                    lines_per_step: lines.div_ceil(steps),
                }
            });
            for row in (0..self.rows).step_by(BLOCK_ROWS) {
                let rows = BLOCK_ROWS.min(self.rows - row);
                // The last rows are multiplied together with some before them again: a tile that is not full would have to
                // be filled first.
                let first_row = (row + rows).saturating_sub(rows.next_multiple_of(SIDE));
                let skipped = row - first_row;
                let sum_row = if has_slabs { row } else { block_number % 2 * BLOCK_ROWS };
                block_number += 1;
                let c = sums.wrapping_add(sum_row * PANEL);
                let block = TileBlock {
                    a: self.a[first_row * self.a_stride..].as_ptr().cast::<u8>().wrapping_add(word * 4),
                    a_stride_bytes: self.a_stride * size_of::<E>(),
                    rows: skipped + rows,
                    k_bytes: slab_bytes,
                    b: tiles_of_columns,
                    c: [0, 1].map(|side| c.wrapping_add(columns.at(side) * LANES)),
                    c_stride_bytes: PANEL * 4,
                    add: word > 0,
                };
                between.pace(steps);
                // SAFETY: `a` holds the rows (asserted), the panel is as long as its layout says, and the sums of another
                // block are those that are pending.
                unsafe { tiles.run::<E, _>(&block, &mut between) };
                between.finish();
                if is_last {
                    // SAFETY: these rows of the buffer are not written before what is pending is done; what the tiles have
                    // not written of them was zero from the start.
                    let sums = unsafe { std::slice::from_raw_parts(c.cast::<PanelPart>().add(skipped), rows) };
                    between.pending = Some(Pending {
                        epilogue: self.epilogue.at_panel(&tail, first, self.w.n()),
                        rows: self.panel_rows(sums, row, first),
                        columns,
                        next: 0,
                    });
                }
            }
        }
        between.finish();
        SUMS.set(buffer);
    }

    fn first_slab(&self) -> Slab {
        Slab { panel: self.first_panel, columns: TwoColumns { first: 0, apart: self.epilogue.tiles_apart() }, word: 0 }
    }

    /// The same columns further on, else the next columns.
    fn next_slab(&self, Slab { panel, columns, word }: Slab) -> Option<Slab> {
        let (_, layout) = self.w.panel(panel);
        if word + SLAB_WORDS < layout.words {
            return Some(Slab { panel, columns, word: word + SLAB_WORDS });
        }
        let second = TwoColumns { first: 2 / columns.apart, ..columns };
        if columns.first == 0 && second.first * SIDE < layout.width {
            return Some(Slab { panel, columns: second, word: 0 });
        }
        let is_last = panel + 1 == self.first_panel + self.panels;
        (!is_last).then(|| Slab { panel: panel + 1, ..self.first_slab() })
    }
}

/// Up to [`SLAB_WORDS`] words of two columns of tiles.
#[derive(Clone, Copy)]
struct Slab {
    panel: usize,
    columns: TwoColumns,
    word: usize,
}

/// What is done between the steps of a block: the results of the block before, and asking for the next slab.
struct Between<'p, 'a, S, E, O> {
    simd: S,
    pending: Option<Pending<'p, 'a, E, O>>,
    rows_per_step: usize,
    ahead: Ahead,
}

/// A block whose sums are complete, and how far its results have been made.
struct Pending<'p, 'a, E, O> {
    epilogue: PanelEpilogue<'p>,
    rows: PanelRows<'a, E, O>,
    columns: TwoColumns,
    next: usize,
}

/// The next slab, line by line.
#[derive(Clone, Copy)]
struct Ahead {
    columns: [*const u32; 2],
    next: usize,
    lines: usize,
    lines_per_step: usize,
}

impl Default for Ahead {
    fn default() -> Ahead {
        Ahead { columns: [std::ptr::null(); 2], next: 0, lines: 0, lines_per_step: 0 }
    }
}

impl<S: Simd, E: Operand, O: Element> Between<'_, '_, S, E, O> {
    /// Spreads what is pending over so many steps.
    #[inline(always)]
    fn pace(&mut self, steps: usize) {
        self.rows_per_step = self.pending.as_ref().map_or(0, |pending| pending.rows.sums.len().div_ceil(steps));
    }

    #[inline(always)]
    fn make(&mut self, rows: usize) {
        let Some(pending) = &mut self.pending else { return };
        let rows = rows.min(pending.rows.sums.len() - pending.next);
        if rows == 0 {
            return;
        }
        let part = pending.rows.part(pending.next, pending.next + rows);
        pending.next += rows;
        // SAFETY: rows and panels of different tasks, and so these parts, do not overlap.
        unsafe { pending.epilogue.apply(self.simd, part, pending.columns) };
    }

    /// Makes what is left.
    #[inline(always)]
    fn finish(&mut self) {
        self.make(usize::MAX);
        self.pending = None;
    }
}

impl<S: Simd, E: Operand, O: Element> Meanwhile for Between<'_, '_, S, E, O> {
    #[inline(always)]
    fn step(&mut self) {
        let Ahead { columns, next, lines, lines_per_step } = self.ahead;
        let end = (next + lines_per_step).min(lines);
        for line in next..end {
            for column in columns {
                self.simd.prefetch_far(column.wrapping_add(line * LANES).cast());
            }
        }
        self.ahead.next = end;
        self.make(self.rows_per_step);
    }
}
