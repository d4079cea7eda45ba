//! The register tile and the loop over it that the matrix product and attention share.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use crate::element::Operand;
use crate::simd::{Kernel, LANES, Lanes, Part, Simd};

/// Columns of a packed panel.
pub(crate) const PANEL: usize = 64;

/// Words of k that are summed in registers before the sum goes to memory. A rounding error grows with the square root
/// of this length: at 512 the f32 encoder was a little less exact than timm's, at 128 it is more exact, for 1 % of time.
pub(crate) const BLOCK_WORDS: usize = 128;
const _: () = assert!(BLOCK_WORDS.is_multiple_of(LANES));

/// How a panel of `width` columns over `k` numbers lies in memory: sub-panels of `sub_width` columns, each
/// `[words][sub_width]`.
#[derive(Clone, Copy)]
pub(crate) struct PanelLayout {
    pub(crate) width: usize,
    pub(crate) sub_width: usize,
    /// Words along k, the last one perhaps half used.
    pub(crate) words: usize,
}

impl PanelLayout {
    /// For panels over `k` numbers of type `E` whose first of at most [`PANEL`] columns are used.
    pub(crate) fn new<E: Operand>(tile_vectors: usize, columns: usize, k: usize) -> PanelLayout {
        let width = columns.min(PANEL).next_multiple_of(LANES);
        PanelLayout { width, sub_width: width.min(tile_vectors * LANES), words: k.div_ceil(E::GROUP) }
    }

    /// For tiles of sixteen words by sixteen columns: whole tiles, zeros where `k` ends before.
    pub(crate) fn of_tiles<E: Operand>(columns: usize, k: usize) -> PanelLayout {
        let layout = PanelLayout::new::<E>(1, columns, k);
        PanelLayout { words: layout.words.next_multiple_of(LANES), ..layout }
    }

    /// Where the word `word` of column `column` lies.
    #[inline(always)]
    pub(crate) fn offset(self, column: usize, word: usize) -> usize {
        let (sub, column) = (column / self.sub_width, column % self.sub_width);
        (sub * self.words + word) * self.sub_width + column
    }

    /// Of a later panel of the same matrix, of which so many columns are left.
    fn of_rest(self, columns: usize) -> PanelLayout {
        let width = columns.min(PANEL).next_multiple_of(LANES);
        PanelLayout { width, sub_width: width.min(self.sub_width), ..self }
    }

    /// Words of the whole panel.
    pub(crate) fn len(self) -> usize {
        self.width * self.words
    }
}

/// What a register tile reads and writes.
#[derive(Clone, Copy)]
struct Block<E> {
    rows: Rows<E>,
    b: *const u32,
    words: usize,
    /// One more word follows, of which only the first number is used.
    half: bool,
    c: *mut f32,
    c_stride: usize,
    /// Add to `c` instead of replacing it.
    add: bool,
    /// What will be read next of the panel; only narrow tiles ask for it.
    ahead: *const u32,
}

/// Where a register tile finds its rows.
#[derive(Clone, Copy)]
enum Rows<E> {
    /// As they are, so many numbers apart.
    Whole(*const E, usize),
    /// Taken apart, see [`take_apart`].
    Apart(*const ApartRow),
}

/// One register tile: `ROWS` rows times `VECTORS * 16` columns.
///
/// # Safety
/// Row r of whole rows is valid for `words` words (and one number if `half`) from `start + r * stride`, rows that are apart
/// for `words` words each, `b` for `(words + half) * VECTORS * 16` words, row r of `c` for `VECTORS * 16` floats from
/// `c + r * c_stride`.
#[inline(always)]
unsafe fn tile<S: Simd, E: Operand, const ROWS: usize, const VECTORS: usize>(simd: S, block: Block<E>) {
    let Block { rows, b, words, half, c, c_stride, add, ahead } = block;
    let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
    match rows {
        // SAFETY: inside rows and panel by this function's contract.
        Rows::Whole(a, stride) => unsafe {
            let whole = WholeRows { a, stride, is_half: false };
            add_words::<S, E, _, ROWS, VECTORS>(simd, &mut sums, whole, words, Part::Even, b, ahead);
            if half {
                let last = WholeRows { a: a.add(words * E::GROUP), stride, is_half: true };
                add_words::<S, E, _, ROWS, VECTORS>(
                    simd,
                    &mut sums,
                    last,
                    1,
                    Part::Even,
                    b.add(words * VECTORS * LANES),
                    ahead,
                );
            }
        },
        Rows::Apart(a) => {
            // One part of all words after the other: both at once would take registers from the sums.
            for part in [Part::Even, Part::Odd] {
                // SAFETY: inside rows and panel by this function's contract.
                unsafe {
                    let rows = PartOfRows { a: a.cast::<u32>().add(part as usize * BLOCK_WORDS) };
                    add_words::<S, E, _, ROWS, VECTORS>(simd, &mut sums, rows, words, part, b, ahead);
                }
            }
        }
    }
    for row in 0..ROWS {
        for vector in 0..VECTORS {
            // SAFETY: inside row `row` of `c` by this function's contract; no one else uses it meanwhile.
            let target = unsafe { &mut *c.add(row * c_stride + vector * LANES).cast() };
            let mut value = sums[row][vector];
            if add {
                value = E::add(simd, simd.load(target), value);
            }
            simd.store(value, target);
        }
    }
}

/// Words by row and number. Not a closure, which might not be inlined.
trait WordsOfRows: Copy {
    /// # Safety
    /// There is such a word.
    unsafe fn word(self, row: usize, word: usize) -> u32;
}

#[derive(Clone, Copy)]
struct WholeRows<E> {
    a: *const E,
    stride: usize,
    /// Of one word, only the first number.
    is_half: bool,
}

impl<E: Operand> WordsOfRows for WholeRows<E> {
    #[inline(always)]
    unsafe fn word(self, row: usize, word: usize) -> u32 {
        // SAFETY: there is such a word, or its first number, by this function's contract.
        unsafe {
            let source = self.a.add(row * self.stride + word * E::GROUP);
            if self.is_half { (*source).half_word() } else { E::read_word(source) }
        }
    }
}

/// One part of rows that are apart.
#[derive(Clone, Copy)]
struct PartOfRows {
    a: *const u32,
}

impl WordsOfRows for PartOfRows {
    #[inline(always)]
    unsafe fn word(self, row: usize, word: usize) -> u32 {
        // SAFETY: there is such a word by this function's contract.
        unsafe { *self.a.add(row * 2 * BLOCK_WORDS + word) }
    }
}

/// Adds the products of one part of `words` words of some rows to the sums of a tile.
///
/// # Safety
/// `rows` has `ROWS` rows of `words` words, and `b` is valid for `words * VECTORS * 16` words.
#[inline(always)]
unsafe fn add_words<S: Simd, E: Operand, R: WordsOfRows, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    sums: &mut [[S::V; VECTORS]; ROWS],
    rows: R,
    words: usize,
    part: Part,
    b: *const u32,
    ahead: *const u32,
) {
    let mut word = 0;
    // With few vectors the loop's own instructions count. The compiler does not unroll a loop with so many registers.
    let unrolled = if S::TILE_VECTORS == 1 { 4 } else { 1 };
    while word + unrolled <= words {
        if unrolled > 1 {
            // A line for each four words: the tiles of a group bring what the next ones read.
            simd.prefetch(ahead.wrapping_add(word / unrolled * LANES).cast());
        }
        for next in 0..unrolled {
            // SAFETY: inside the panel by this function's contract.
            unsafe { add_word::<S, E, R, ROWS, VECTORS>(simd, sums, rows, word + next, part, b) };
        }
        word += unrolled;
    }
    while word < words {
        // SAFETY: as above.
        unsafe { add_word::<S, E, R, ROWS, VECTORS>(simd, sums, rows, word, part, b) };
        word += 1;
    }
}

/// The same for one word.
///
/// # Safety
/// `rows` has `ROWS` rows with such a word, and `b` is valid for `(word + 1) * VECTORS * 16` words.
#[inline(always)]
unsafe fn add_word<S: Simd, E: Operand, R: WordsOfRows, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    sums: &mut [[S::V; VECTORS]; ROWS],
    rows: R,
    word: usize,
    part: Part,
    b: *const u32,
) {
    let mut columns = [simd.splat(0.0); VECTORS];
    for (vector, columns) in columns.iter_mut().enumerate() {
        // SAFETY: inside the panel by this function's contract.
        let words = unsafe { simd.load_words(b.add((word * VECTORS + vector) * LANES)) };
        *columns = E::part_of_columns(simd, words, part);
    }
    for row in 0..ROWS {
        // SAFETY: there is such a word by this function's contract.
        let broadcast = simd.splat_word(unsafe { rows.word(row, word) });
        for vector in 0..VECTORS {
            sums[row][vector] = E::accumulate(simd, sums[row][vector], broadcast, columns[vector]);
        }
    }
}

/// Rows that are taken apart at once: few enough to stay in L1.
const APART_ROWS: usize = 12;

/// The even and the odd parts of a row's words, over one block of k.
type ApartRow = [[u32; BLOCK_WORDS]; 2];

/// Takes rows apart into what [`SealedOperand::accumulate`](crate::element::SealedOperand::accumulate) multiplies: once for
/// all columns, instead of in each tile, where it would take registers from the sums.
///
/// # Safety
/// Row r of `a` is valid for `words` words, and one number if `half`, from `a + r * a_stride`; `words + half` is at most
/// [`BLOCK_WORDS`].
#[inline(always)]
unsafe fn take_apart<S: Simd, E: Operand>(
    simd: S,
    a: *const E,
    a_stride: usize,
    words: usize,
    half: bool,
    apart: &mut [MaybeUninit<ApartRow>],
) {
    for (row, target) in apart.iter_mut().enumerate() {
        for first in (0..words + usize::from(half)).step_by(LANES) {
            // SAFETY: inside the row by this function's contract.
            let source = unsafe { a.add(row * a_stride + first * E::GROUP) };
            let whole = if cfg!(target_endian = "little") && first + LANES <= words {
                // SAFETY: sixteen words of the row; their first number is in the low bits here.
                unsafe { simd.load_words(source.cast()) }
            } else {
                let mut some = [0; LANES];
                for (index, word) in some.iter_mut().enumerate().take(words - first) {
                    // SAFETY: inside the row by this function's contract.
                    *word = unsafe { E::read_word(source.add(index * E::GROUP)) };
                }
                if half && words - first < LANES {
                    // SAFETY: the last number of the row by this function's contract.
                    some[words - first] = unsafe { *source.add((words - first) * E::GROUP) }.half_word();
                }
                // SAFETY: sixteen words.
                unsafe { simd.load_words(some.as_ptr()) }
            };
            for part in [Part::Even, Part::Odd] {
                let mut lanes = [0.0; LANES];
                simd.store(E::part_of_row(simd, whole, part), &mut lanes);
                let at = part as usize * BLOCK_WORDS + first;
                // SAFETY: blocks are made of whole vectors, so this one lies in the row; both are aligned to 4 bytes.
                unsafe { target.as_mut_ptr().cast::<f32>().add(at).cast::<Lanes>().write(lanes) };
            }
        }
    }
}

/// `c = a × panels` for any number of rows, and `columns` columns in panels that follow each other in memory. Each element is
/// summed over k in blocks of [`BLOCK_WORDS`], each block from zero and in order (where rows are apart, one part of all words
/// after the other), whatever the number of rows.
///
/// # Safety
/// Row r of `a` is valid for k numbers from `a + r * a_stride`, row r of `c` for `columns`, rounded up to whole vectors,
/// floats from `c + r * c_stride`. `panel` is valid for what the first `k` numbers of each column take in the panels, the
/// first of which has this layout.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn panel_product<S: Simd, E: Operand>(
    simd: S,
    a: *const E,
    a_stride: usize,
    rows: usize,
    k: usize,
    panel: *const u32,
    layout: PanelLayout,
    columns: usize,
    c: *mut f32,
    c_stride: usize,
) {
    simd.call(PanelProduct { a, a_stride, rows, k, panel, layout, columns, c, c_stride });
}

/// The arguments of [`panel_product`], whose contract they fulfil.
struct PanelProduct<E> {
    a: *const E,
    a_stride: usize,
    rows: usize,
    k: usize,
    panel: *const u32,
    layout: PanelLayout,
    columns: usize,
    c: *mut f32,
    c_stride: usize,
}

impl<E: Operand> Kernel for PanelProduct<E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PanelProduct { a, a_stride, layout: first_layout, columns, c_stride, .. } = self;
        let is_apart = E::is_apart::<S>();
        let mut apart = [const { MaybeUninit::<ApartRow>::uninit() }; APART_ROWS];
        let most_rows = if is_apart { APART_ROWS } else { self.rows };
        // `k` of zero still runs one block of no words, which stores zeros.
        let mut word = 0;
        loop {
            let numbers = (self.k - word * E::GROUP).min(BLOCK_WORDS * E::GROUP);
            let (words, half) = (numbers / E::GROUP, !numbers.is_multiple_of(E::GROUP));
            for first_row in (0..self.rows).step_by(most_rows.max(1)) {
                let rows = most_rows.min(self.rows - first_row);
                // SAFETY: all inside what the contract of `panel_product` grants.
                unsafe {
                    let a = a.add(first_row * a_stride + word * E::GROUP);
                    let (source, words, half) = if is_apart {
                        take_apart(simd, a, a_stride, words, half, &mut apart[..rows]);
                        (Rows::Apart(apart.as_ptr().cast()), words + usize::from(half), false)
                    } else {
                        (Rows::Whole(a, a_stride), words, half)
                    };
                    for first in (0..columns).step_by(PANEL) {
                        let layout = first_layout.of_rest(columns - first);
                        for column in (0..layout.width).step_by(layout.sub_width) {
                            let b = self.panel.add(first * layout.words + layout.offset(column, word));
                            let c = self.c.add(first_row * c_stride + first + column);
                            // What the loops come to next.
                            let next = if column + layout.sub_width < layout.width {
                                first * layout.words + layout.offset(column + layout.sub_width, word)
                            } else if first + PANEL < columns {
                                let next = layout.of_rest(columns - first - PANEL);
                                (first + PANEL) * layout.words + next.offset(0, word)
                            } else if first_row + rows < self.rows {
                                first_layout.offset(0, word)
                            } else if (word + BLOCK_WORDS) * E::GROUP < self.k {
                                first_layout.offset(0, word + BLOCK_WORDS)
                            } else {
                                first * layout.words + layout.len()
                            };
                            let ahead = self.panel.wrapping_add(next);
                            let block = Block { rows: source, b, words, half, c, c_stride, add: word > 0, ahead };
                            match layout.sub_width / LANES {
                                1 => rows_of_tiles::<S, E, 1>(simd, block, rows),
                                2 => rows_of_tiles::<S, E, 2>(simd, block, rows),
                                3 => rows_of_tiles::<S, E, 3>(simd, block, rows),
                                _ => rows_of_tiles::<S, E, 4>(simd, block, rows),
                            }
                        }
                    }
                }
            }
            word += BLOCK_WORDS;
            if word * E::GROUP >= self.k {
                break;
            }
        }
    }
}

/// All rows of one sub-panel and one block of k.
///
/// # Safety
/// As for [`tile`], with `rows` rows.
#[inline(always)]
unsafe fn rows_of_tiles<S: Simd, E: Operand, const VECTORS: usize>(simd: S, block: Block<E>, rows: usize) {
    // Other instruction sets never have such a panel; without this their code would be compiled all the same.
    if VECTORS > S::TILE_VECTORS {
        return;
    }
    let mut row = 0;
    while row < rows {
        let height = (rows - row).min(S::TILE_ROWS);
        // SAFETY: rows `row..row + height` of what this function's contract grants.
        unsafe {
            let rows = if E::is_apart::<S>() {
                let Rows::Apart(start) = block.rows else { unreachable!("rows are taken apart") };
                Rows::Apart(start.add(row))
            } else {
                let Rows::Whole(start, stride) = block.rows else { unreachable!("rows stay whole") };
                Rows::Whole(start.add(row * stride), stride)
            };
            // Four tiles ask for all lines of a block, a quarter each.
            let ahead = block.ahead.wrapping_add(row / S::TILE_ROWS % 4 * block.words.div_ceil(4) * LANES);
            let block = Block { rows, c: block.c.add(row * block.c_stride), ahead, ..block };
            match height {
                1 => tile::<S, E, 1, VECTORS>(simd, block),
                2 => tile::<S, E, 2, VECTORS>(simd, block),
                3 if S::TILE_ROWS >= 3 => tile::<S, E, 3, VECTORS>(simd, block),
                4 if S::TILE_ROWS >= 4 => tile::<S, E, 4, VECTORS>(simd, block),
                5 if S::TILE_ROWS >= 5 => tile::<S, E, 5, VECTORS>(simd, block),
                6 if S::TILE_ROWS >= 6 => tile::<S, E, 6, VECTORS>(simd, block),
                _ => unreachable!(),
            }
        }
        row += height;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use dinov3_system::guarded::{Edge, Guarded};

    use super::*;
    use crate::amx::Tiles;
    use crate::bf16::Bf16;
    use crate::gemm::tile_vectors;
    use crate::int8::Int8;
    use crate::isa::Isa;
    use crate::simd::dispatch_integers;

    /// Between pages that nobody may touch. For vectors several panels, for tiles one.
    struct Operands<E> {
        a: Guarded<E>,
        rows: usize,
        k: usize,
        panel: Guarded<u32>,
        layout: PanelLayout,
        columns: usize,
        c: Guarded<f32>,
    }

    impl<E: Operand> Operands<E> {
        fn new(rows: usize, c_rows: usize, k: usize, layout: PanelLayout, columns: usize, edge: Edge) -> Operands<E> {
            let a = Guarded::new(&vec![E::default(); rows * k], edge).unwrap();
            let width = columns.next_multiple_of(LANES);
            let panel = Guarded::new(&vec![0; width * layout.words], edge).unwrap();
            let c = Guarded::new(&vec![7.0; c_rows * width], edge).unwrap();
            Operands { a, rows, k, panel, layout, columns, c }
        }
    }

    impl<E: Operand> Kernel for &mut Operands<E> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let (a, panel, c) = (self.a.as_ptr(), self.panel.as_ptr(), self.c.as_mut_ptr());
            let Operands { rows, k, layout, columns, .. } = *self;
            let width = columns.next_multiple_of(LANES);
            // SAFETY: the slices are as long as rows, k and the layout say.
            unsafe { panel_product::<S, E>(simd, a, k, rows, k, panel, layout, columns, c, width) };
        }
    }

    fn stays_inside<E: Operand>() {
        for isa in Isa::all_supported().into_iter().chain([Isa::AMX_EMULATED]) {
            for (rows, columns, k) in [
                (1, 1, 1),
                (2, 16, 3),
                (5, 17, 8),
                (13, 33, 150),
                (7, 64, 519),
                (33, 50, 64),
                (25, 100, 33),
                (3, 130, 255),
            ] {
                for edge in [Edge::Start, Edge::End] {
                    let k = E::product_length(k);
                    let layout = PanelLayout::new::<E>(tile_vectors(isa), columns, k);
                    let mut vectors = Operands::<E>::new(rows, rows, k, layout, columns, edge);
                    dispatch_integers(isa, &mut vectors);
                    assert!(vectors.c.iter().all(|&sum| sum == 0.0));

                    let Some(mut tiles) = Tiles::configure::<E>(isa) else { continue };
                    let columns = columns.min(PANEL);
                    let layout = PanelLayout::of_tiles::<E>(columns, k);
                    let mut on_tiles = Operands::<E>::new(rows, rows.next_multiple_of(LANES), k, layout, columns, edge);
                    let (a, panel, c) = (on_tiles.a.as_ptr(), on_tiles.panel.as_ptr(), on_tiles.c.as_mut_ptr());
                    // SAFETY: as above; `c` has as many rows as fill tiles.
                    unsafe { tiles.product::<E>(a, k, rows, k, panel, layout, c, layout.width) };
                    assert!(on_tiles.c.iter().all(|&sum| sum == 0.0));
                }
            }
        }
    }

    #[test]
    fn a_product_touches_nothing_beside_its_operands() {
        stays_inside::<f32>();
        stays_inside::<Bf16>();
        stays_inside::<Int8>();
    }
}
