//! Matrix products with packed weights and what is done to their results before they are written.
#![allow(unsafe_code)]

mod epilogue;
mod pack;
pub(crate) mod tile;

use dinov3_system::threads::Pool;

pub use epilogue::Epilogue;
use epilogue::PanelRows;
pub(crate) use pack::tile_vectors;
pub use pack::{ColumnScales, PackedMatrix};

use crate::amx::{SIDE, Tiles, runs_on_tiles};
use crate::element::{Element, Operand};
use crate::isa::Isa;
use crate::memory::SharedOutput;
use crate::simd::{Kernel, LANES, Lanes, Simd};
use tile::{PANEL, panel_product};

/// Rows that one task multiplies: with k up to a few thousand they stay in L2 while panels stream past. A multiple of
/// the tile's rows.
pub(crate) const ROW_BLOCK: usize = 96;
/// Rows of a group where tiles are wide, see [`LinearTask::group_rows`], and the largest panel for which there are groups.
const GROUP_ROWS: usize = 12;
const GROUP_PANEL_BYTES: usize = 256 * 1024;
/// Rows of a group where tiles are narrow: what they read of rows is four times as much, and has to stay in a small L2.
const NARROW_GROUP_ROWS: usize = 24;
/// Panels of one task, at most.
const MOST_PANELS: usize = 8;
/// Tasks per thread: a thread that is held up by another process costs only its current task.
const TASKS_PER_THREAD: usize = 8;

/// Multiplies rows with W: `out = epilogue(a × Wᵀ)`.
///
/// `a` holds `m` rows of `w.k()` numbers, each [`Operand::row_length`] long and `a_stride` apart; `out` holds `m` rows of
/// `w.n()` numbers (half as many for [`Epilogue::SwiGlu`]), `out_stride` apart. The bits of a row depend on nothing but
/// that row, W and the epilogue.
///
/// # Panics
/// If a slice is too short, a stride shorter than its row, an epilogue's vector not as long as `w.n()`,
/// [`Epilogue::Residual`] is used with an output other than f32, or SwiGLU with an `n` that is no multiple of 32.
#[allow(clippy::too_many_arguments)]
pub fn linear<E: Operand, O: Element>(
    pool: &Pool,
    a: &[E],
    m: usize,
    a_stride: usize,
    w: &PackedMatrix<E>,
    epilogue: Epilogue<'_>,
    out: &mut [O],
    out_stride: usize,
) {
    let (n, k) = (w.n(), w.k());
    let out_columns = epilogue.check::<O>(n);
    if m == 0 || n == 0 {
        return;
    }
    let row_length = E::row_length(k);
    assert!(a_stride >= row_length && a.len() >= (m - 1) * a_stride + row_length, "rows of a");
    assert!(out_stride >= out_columns && out.len() >= (m - 1) * out_stride + out_columns, "rows of out");

    let rows_per_task = row_block::<E>(w.isa(), m);
    let row_blocks = m.div_ceil(rows_per_task);
    let panels = n.div_ceil(PANEL);
    let wanted = TASKS_PER_THREAD * pool.threads();
    let group = (panels * row_blocks / wanted).clamp(1, MOST_PANELS);
    let output = SharedOutput::new(out);
    // Row blocks vary fastest: a group of panels comes from memory once and then from L3.
    pool.run(row_blocks * panels.div_ceil(group), &|task| {
        let (group_index, block) = (task / row_blocks, task % row_blocks);
        let first_row = block * rows_per_task;
        let first_panel = group_index * group;
        E::run_linear(
            w.isa(),
            LinearTask {
                a: &a[first_row * a_stride..],
                a_stride,
                w,
                epilogue,
                output: &output,
                out_stride,
                first_row,
                rows: rows_per_task.min(m - first_row),
                first_panel,
                panels: group.min(panels - first_panel),
            },
        );
    });
}

/// Rows of a task, at most [`ROW_BLOCK`]: blocks of equal size, so that 261 rows are 90 + 90 + 81, not 96 + 96 + 69.
pub(crate) fn row_block<E: Operand>(isa: Isa, m: usize) -> usize {
    let tile_rows = if runs_on_tiles::<E>(isa) { 2 * SIDE } else { 6 };
    m.div_ceil(m.div_ceil(ROW_BLOCK).max(1)).next_multiple_of(tile_rows).min(ROW_BLOCK)
}

pub struct LinearTask<'a, E, O> {
    /// From the task's first row on.
    a: &'a [E],
    a_stride: usize,
    w: &'a PackedMatrix<E>,
    epilogue: Epilogue<'a>,
    output: &'a SharedOutput<'a, O>,
    out_stride: usize,
    first_row: usize,
    rows: usize,
    first_panel: usize,
    panels: usize,
}

/// Sums on their way from the register tile to the epilogue.
#[repr(align(64))]
struct Scratch([[Lanes; PANEL / LANES]; ROW_BLOCK]);

impl<'a, E: Operand, O: Element> LinearTask<'a, E, O> {
    /// Some rows times all of W, for an output without gaps; `a` starts with the first row.
    pub(crate) fn rows(
        a: &'a [E],
        a_stride: usize,
        w: &'a PackedMatrix<E>,
        epilogue: Epilogue<'a>,
        output: &'a SharedOutput<'a, O>,
        first_row: usize,
        rows: usize,
    ) -> Self {
        let (out_stride, panels) = (epilogue.check::<O>(w.n()), w.n().div_ceil(PANEL));
        LinearTask { a, a_stride, w, epilogue, output, out_stride, first_row, rows, first_panel: 0, panels }
    }

    /// Rows whose sums are finished before the next ones are begun. The fewer, the closer their sums are when they are
    /// taken up again; but the panel is read once for each such group, and must stay in cache for that.
    fn group_rows<S: Simd>(&self) -> usize {
        if S::TILE_VECTORS == 1 {
            return NARROW_GROUP_ROWS;
        }
        let panel_bytes = PANEL * E::product_length(self.w.k()) * size_of::<E>();
        if panel_bytes <= GROUP_PANEL_BYTES { GROUP_ROWS } else { ROW_BLOCK }
    }

    /// Where the results of a task's row and the panel from column `first` on go, and how many they are.
    fn span(&self, row: usize, first: usize) -> (usize, usize) {
        self.epilogue.span((self.first_row + row) * self.out_stride, first, PANEL.min(self.w.n() - first))
    }
}

impl<E: Operand, O: Element> Kernel for LinearTask<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let k = E::product_length(self.w.k());
        let row_length = E::row_length(self.w.k());
        assert!(row_length >= k && self.a.len() >= (self.rows - 1) * self.a_stride + row_length);
        // Tiles store whole rows of tiles.
        const { assert!(ROW_BLOCK.is_multiple_of(SIDE)) };
        let mut tiles = Tiles::configure::<E>(self.w.isa());
        let group = if tiles.is_some() { ROW_BLOCK } else { self.group_rows::<S>() };
        let mut scratch = Scratch([[[0.0; LANES]; PANEL / LANES]; ROW_BLOCK]);
        for index in self.first_panel..self.first_panel + self.panels {
            let (panel, layout) = self.w.panel(index);
            let first = index * PANEL;
            for start in (0..self.rows).step_by(group) {
                let rows = group.min(self.rows - start).min(ROW_BLOCK);
                let a = &self.a[start * self.a_stride..];
                for row in 0..rows {
                    let (start, length) = self.span(start + row, first);
                    self.output.prefetch(simd, start, length);
                }
                // SAFETY: `a` holds the rows (asserted), the panel is as long as its layout says, and the scratch tile
                // has ROW_BLOCK rows of PANEL floats.
                unsafe {
                    let (a, stride, panel) = (a.as_ptr(), self.a_stride, panel.as_ptr());
                    let sums = scratch.0.as_mut_ptr().cast();
                    match &mut tiles {
                        Some(tiles) => tiles.product::<E>(a, stride, rows, k, panel, layout, sums, PANEL),
                        None => {
                            let columns = layout.width;
                            panel_product::<S, E>(simd, a, stride, rows, k, panel, layout, columns, sums, PANEL);
                        }
                    }
                }
                let rows = PanelRows {
                    sums: &scratch.0[..rows],
                    a,
                    a_stride: self.a_stride,
                    row_length,
                    columns: self.w.columns(),
                    first,
                    columns_of_product: self.w.n(),
                    first_row: self.first_row + start,
                    output: self.output,
                    span: self.span(start, first),
                    out_stride: self.out_stride,
                };
                // SAFETY: rows and panels of different tasks, and so these parts, do not overlap.
                unsafe { self.epilogue.apply(simd, rows) };
            }
        }
    }
}
