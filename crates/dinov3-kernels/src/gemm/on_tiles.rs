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
use crate::amx::{Idle, Meanwhile, SIDE, TileBlock, Tiles};
use crate::element::{Element, Operand};
use crate::memory::AlignedWords;
use crate::simd::{LANES, Simd};

/// Rows of a block.
const BLOCK_ROWS: usize = 2 * SIDE;
/// Words of k in a slab: two columns of tiles take 32 KB.
const SLAB_WORDS: usize = 256;
/// Bytes that the rows of a task take, half of L2 on the CPUs that have tiles.
const ROW_BYTES: usize = 1024 * 1024;
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
        let k = E::product_length(self.w.k());
        let k_bytes = k * size_of::<E>();
        let mut buffer = SUMS.take();
        buffer.grow(self.rows.next_multiple_of(BLOCK_ROWS).max(2 * BLOCK_ROWS) * PANEL);
        let sums = buffer.as_floats_mut().as_mut_ptr();
        // Of a single slab only the sums of two blocks are alive.
        let has_slabs = k_bytes > SLAB_WORDS * 4;
        let mut block_number = 0;
        let (tail, apart) = (self.epilogue.tail(self.w.n()), self.epilogue.tiles_apart());
        let mut pending: Option<Pending<'_, '_, S, E, O>> = None;
        for index in self.first_panel..self.first_panel + self.panels {
            let (panel, layout) = self.w.panel(index);
            let first = index * PANEL;
            for pair in 0..2 {
                let columns = TwoColumns { first: pair * (2 / apart), apart };
                let [left, right] = [columns.at(0), columns.at(1)];
                if left * SIDE >= layout.width {
                    break;
                }
                let has_right = right * SIDE < layout.width;
                for word in (0..layout.words.max(1)).step_by(SLAB_WORDS) {
                    let slab_bytes = (k_bytes - word * 4).min(SLAB_WORDS * 4);
                    let is_last = word + SLAB_WORDS >= layout.words;
                    let steps = slab_bytes.div_ceil(64).max(1);
                    for row in (0..self.rows).step_by(BLOCK_ROWS) {
                        let rows = BLOCK_ROWS.min(self.rows - row);
                        let sum_row = if has_slabs { row } else { block_number % 2 * BLOCK_ROWS };
                        block_number += 1;
                        let column = |tile: usize| panel.as_ptr().wrapping_add(layout.offset(tile * SIDE, word));
                        let c = sums.wrapping_add(sum_row * PANEL);
                        let block = TileBlock {
                            a: self.a[row * self.a_stride..].as_ptr().cast::<u8>().wrapping_add(word * 4),
                            a_stride_bytes: self.a_stride * size_of::<E>(),
                            rows,
                            k_bytes: slab_bytes,
                            b: [column(left), if has_right { column(right) } else { std::ptr::null() }],
                            c: [c.wrapping_add(left * LANES), c.wrapping_add(right * LANES)],
                            c_stride_bytes: PANEL * 4,
                            add: word > 0,
                        };
                        if false {
                            for row in row..row + rows {
                                for at in 0..2 {
                                    let (start, length) = self.span(row, first);
                                    let at = columns.at(at) * LANES;
                                    self.output.prefetch(simd, start + at.min(length), LANES.min(length));
                                }
                            }
                        }
                        // SAFETY: `a` holds the rows (asserted), the panel is as long as its layout says, and the sums of
                        // another block are those that are pending.
                        unsafe {
                            match &mut pending {
                                Some(pending) => {
                                    pending.rows_per_step = pending.rows.sums.len().div_ceil(steps);
                                    tiles.run::<E, _>(&block, pending);
                                    pending.finish();
                                }
                                None => tiles.run::<E, _>(&block, &mut Idle),
                            }
                        }
                        pending = None;
                        if is_last {
                            // SAFETY: these rows of the buffer are not written before this value is gone; what the tiles
                            // have not written of them was zero from the start.
                            let sums = unsafe { std::slice::from_raw_parts(c.cast::<PanelPart>(), rows) };
                            pending = Some(Pending {
                                simd,
                                epilogue: self.epilogue.at_panel(&tail, first, self.w.n()),
                                rows: self.panel_rows(sums, row, first),
                                columns,
                                next: 0,
                                rows_per_step: rows,
                            });
                        }
                    }
                }
            }
        }
        if let Some(mut pending) = pending {
            pending.finish();
        }
        SUMS.set(buffer);
    }
}

/// A block whose sums are complete, and how far its results have been made.
struct Pending<'p, 'a, S, E, O> {
    simd: S,
    epilogue: PanelEpilogue<'p>,
    rows: PanelRows<'a, E, O>,
    columns: TwoColumns,
    next: usize,
    rows_per_step: usize,
}

impl<S: Simd, E: Operand, O: Element> Pending<'_, '_, S, E, O> {
    #[inline(always)]
    fn make(&mut self, rows: usize) {
        let rows = rows.min(self.rows.sums.len() - self.next);
        if rows == 0 {
            return;
        }
        let part = self.rows.part(self.next, self.next + rows);
        self.next += rows;
        // SAFETY: rows and panels of different tasks, and so these parts, do not overlap.
        unsafe { self.epilogue.apply(self.simd, part, self.columns) };
    }

    /// Makes what is left.
    #[inline(always)]
    fn finish(&mut self) {
        self.make(usize::MAX);
    }
}

impl<S: Simd, E: Operand, O: Element> Meanwhile for Pending<'_, '_, S, E, O> {
    #[inline(always)]
    fn step(&mut self) {
        self.make(self.rows_per_step);
    }
}
