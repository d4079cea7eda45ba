//! Matrix products on the tile registers of AMX, for bf16 and bytes.
//!
//! A tile is sixteen rows of 64 bytes: sixteen words of a row of A, or sixteen words of sixteen columns of a panel, or
//! 16 x 16 sums. The kernel is written over [`TileOps`]; on the CPU these are the instructions, and in tests an emulator
//! that is exact, so that the kernel, the layout of the panels and the way through [`linear`](crate::linear) are tested
//! on machines without AMX. Only the instructions themselves are not: they are trusted where the self-test has passed.
//!
//! All of k is summed in the tiles. An instruction adds the products of sixteen words from zero and then adds that to
//! the sum, so the rounding error is that of a sum in blocks, and the order depends on k alone.
#![allow(unsafe_code)]

mod emulator;
#[cfg(target_arch = "x86_64")]
mod hardware;

use crate::element::Operand;
use crate::gemm::tile::PanelLayout;
use crate::isa::{Isa, Level};
pub(crate) use emulator::Emulator;
#[cfg(target_arch = "x86_64")]
pub(crate) use hardware::{Hardware, cpu_lacks};

/// Rows of a tile, and 32-bit words of its rows.
pub(crate) const SIDE: usize = 16;
const ROW_BYTES: usize = 64;
const TILE_BYTES: usize = SIDE * ROW_BYTES;

/// Eight tiles of sixteen rows of 64 bytes, which belong to the thread that configured them.
///
/// A and B below are tiles of words: row i of C gets, for each column j, the sum over w of A's word w of row i times word
/// j of B's row w.
pub trait TileOps {
    /// Sets all bytes to zero.
    fn zero<const TILE: usize>(&mut self);
    /// Sixteen rows, `stride_bytes` apart.
    ///
    /// # Safety
    /// Each row is valid for reading 64 bytes.
    unsafe fn load<const TILE: usize>(&mut self, source: *const u8, stride_bytes: usize);
    /// Sixteen rows, `stride_bytes` apart.
    ///
    /// # Safety
    /// Each row is valid for writing 64 bytes.
    unsafe fn store<const TILE: usize>(&mut self, target: *mut u8, stride_bytes: usize);
    /// Adds A × B to C: words of two bf16 numbers, sums of f32 (TDPBF16PS).
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self);
    /// Adds A × B to C: words of four bytes, unsigned in A and signed in B, sums of 32-bit integers (TDPBUSD).
    fn dot_u8s8<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// Whether there are tiles, of either kind.
pub(crate) fn has_tiles(isa: Isa) -> bool {
    matches!(isa.level(), Level::Amx | Level::AmxEmulated)
}

/// Whether products of rows of type `E` run on tiles.
pub(crate) fn runs_on_tiles<E: Operand>(isa: Isa) -> bool {
    E::TILES && has_tiles(isa)
}

/// The tiles of this thread, from a task's begin to its end: an idle thread keeps none, or each switch would save them.
pub(crate) enum Tiles {
    #[cfg(target_arch = "x86_64")]
    Hardware(Hardware),
    Emulated(Box<Emulator>),
}

impl Tiles {
    /// `None` where rows of type `E` are not multiplied on tiles.
    pub(crate) fn configure<E: Operand>(isa: Isa) -> Option<Tiles> {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an Isa of this level is only made after the CPU reported AMX and the kernel permitted it.
            Level::Amx if E::TILES => Some(Tiles::Hardware(unsafe { Hardware::configure() })),
            Level::AmxEmulated if E::TILES => Some(Tiles::Emulated(Box::default())),
            _ => None,
        }
    }

    /// `c = a × panel` for any number of rows.
    ///
    /// # Safety
    /// Row r of `a` is valid for k numbers from `a + r * a_stride`, `panel` for `layout.len()` words in the layout of
    /// tiles. Row r of `c` is valid for `layout.width` floats from `c + r * c_stride`, for as many rows as fill tiles.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    pub(crate) unsafe fn product<E: Operand>(
        &mut self,
        a: *const E,
        a_stride: usize,
        rows: usize,
        k: usize,
        panel: *const u32,
        layout: PanelLayout,
        c: *mut f32,
        c_stride: usize,
    ) {
        let a_stride_bytes = a_stride * size_of::<E>();
        let product = Product { a: a.cast(), a_stride_bytes, k_bytes: k * size_of::<E>(), panel, layout, c, c_stride };
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: by this function's contract.
            Tiles::Hardware(tiles) => unsafe { product.run::<_, E>(tiles, rows) },
            // SAFETY: by this function's contract.
            Tiles::Emulated(tiles) => unsafe { product.run::<_, E>(&mut **tiles, rows) },
        }
    }
}

struct Product {
    a: *const u8,
    a_stride_bytes: usize,
    /// Bytes of a row that are multiplied.
    k_bytes: usize,
    panel: *const u32,
    layout: PanelLayout,
    c: *mut f32,
    c_stride: usize,
}

impl Product {
    /// # Safety
    /// The contract of [`Tiles::product`].
    unsafe fn run<T: TileOps, E: Operand>(&self, tiles: &mut T, rows: usize) {
        // Two columns of tiles stay in the cache while all rows meet them.
        for column in (0..self.layout.width).step_by(2 * SIDE) {
            for row in (0..rows).step_by(2 * SIDE) {
                let used = rows - row;
                // SAFETY: inside the rows and columns of this function's contract.
                unsafe {
                    match (used > SIDE, self.layout.width - column > SIDE) {
                        (true, true) => self.block::<T, E, true, true>(tiles, row, used, column),
                        (true, false) => self.block::<T, E, true, false>(tiles, row, used, column),
                        (false, true) => self.block::<T, E, false, true>(tiles, row, used, column),
                        (false, false) => self.block::<T, E, false, false>(tiles, row, used, column),
                    }
                }
            }
        }
    }

    /// Up to 2 x 2 tiles of C, whose numbers are 0 to 3; A's are 4 and 5, the panel's 6 and 7. `used` rows are left.
    ///
    /// # Safety
    /// The contract of [`Tiles::product`]; `LOWER` only if more than sixteen rows are left, `RIGHT` likewise for columns.
    #[inline(always)]
    unsafe fn block<T: TileOps, E: Operand, const LOWER: bool, const RIGHT: bool>(
        &self,
        tiles: &mut T,
        row: usize,
        used: usize,
        column: usize,
    ) {
        tiles.zero::<0>();
        if RIGHT {
            tiles.zero::<1>();
        }
        if LOWER {
            tiles.zero::<2>();
        }
        if LOWER && RIGHT {
            tiles.zero::<3>();
        }
        for word in (0..self.layout.words).step_by(SIDE) {
            let bytes = ROW_BYTES.min(self.k_bytes - word * 4);
            // SAFETY: `used` rows of `k_bytes` bytes lie from row `row` on, and a column of tiles has `words` rows of
            // sixteen words.
            unsafe {
                self.load_rows::<T, 4>(tiles, row, used, word, bytes);
                tiles.load::<6>(self.panel.add(self.layout.offset(column, word)).cast(), ROW_BYTES);
                E::tile_dot::<T, 0, 4, 6>(tiles);
                if RIGHT {
                    tiles.load::<7>(self.panel.add(self.layout.offset(column + SIDE, word)).cast(), ROW_BYTES);
                    E::tile_dot::<T, 1, 4, 7>(tiles);
                }
                if LOWER {
                    self.load_rows::<T, 5>(tiles, row + SIDE, used - SIDE, word, bytes);
                    E::tile_dot::<T, 2, 5, 6>(tiles);
                    if RIGHT {
                        E::tile_dot::<T, 3, 5, 7>(tiles);
                    }
                }
            }
        }
        let stride_bytes = self.c_stride * size_of::<f32>();
        // SAFETY: C has as many rows and columns as fill tiles.
        unsafe {
            let c = self.c.add(row * self.c_stride + column);
            tiles.store::<0>(c.cast(), stride_bytes);
            if RIGHT {
                tiles.store::<1>(c.add(SIDE).cast(), stride_bytes);
            }
            let c = c.wrapping_add(SIDE * self.c_stride);
            if LOWER {
                tiles.store::<2>(c.cast(), stride_bytes);
            }
            if LOWER && RIGHT {
                tiles.store::<3>(c.add(SIDE).cast(), stride_bytes);
            }
        }
    }

    /// `bytes` bytes of up to sixteen rows from `row` and word `word` on; zeros fill the tile.
    ///
    /// # Safety
    /// So many bytes of `used` rows, or of sixteen if there are more, are valid.
    #[inline(always)]
    unsafe fn load_rows<T: TileOps, const TILE: usize>(
        &self,
        tiles: &mut T,
        row: usize,
        used: usize,
        word: usize,
        bytes: usize,
    ) {
        // SAFETY: where the tile begins, by this function's contract; then sixteen whole rows, or as many bytes and rows as
        // are valid.
        unsafe {
            let source = self.a.add(row * self.a_stride_bytes + word * 4);
            if used >= SIDE && bytes == ROW_BYTES {
                tiles.load::<TILE>(source, self.a_stride_bytes);
            } else {
                self.load_part::<T, TILE>(tiles, source, used, bytes);
            }
        }
    }

    /// `bytes` bytes of up to sixteen rows from `source` on.
    ///
    /// # Safety
    /// As for [`Product::load_rows`].
    #[inline(never)]
    unsafe fn load_part<T: TileOps, const TILE: usize>(
        &self,
        tiles: &mut T,
        source: *const u8,
        used: usize,
        bytes: usize,
    ) {
        let mut part = Part([0; TILE_BYTES]);
        for (row, target) in part.0.chunks_exact_mut(ROW_BYTES).take(used).enumerate() {
            // SAFETY: `bytes` bytes of a row that is used.
            let source = unsafe { std::slice::from_raw_parts(source.add(row * self.a_stride_bytes), bytes) };
            target[..bytes].copy_from_slice(source);
        }
        // SAFETY: sixteen rows of 64 bytes.
        unsafe { tiles.load::<TILE>(part.0.as_ptr(), ROW_BYTES) };
    }
}

/// A tile that the rows of A do not fill.
#[repr(align(64))]
struct Part([u8; TILE_BYTES]);

/// Keeps the multipliers of tiles busy for `rounds` rounds and gives the number of words that each multiplied, for
/// [`measure_peak`](crate::measure_peak). `None` where `E` is not multiplied on tiles.
pub(crate) fn burst<E: Operand>(isa: Isa, rounds: usize) -> Option<usize> {
    fn busy<T: TileOps, E: Operand>(tiles: &mut T, rounds: usize) {
        tiles.zero::<0>();
        tiles.zero::<1>();
        tiles.zero::<2>();
        tiles.zero::<3>();
        tiles.zero::<4>();
        tiles.zero::<6>();
        for _ in 0..rounds {
            E::tile_dot::<T, 0, 4, 6>(tiles);
            E::tile_dot::<T, 1, 4, 6>(tiles);
            E::tile_dot::<T, 2, 4, 6>(tiles);
            E::tile_dot::<T, 3, 4, 6>(tiles);
        }
    }
    match &mut Tiles::configure::<E>(isa)? {
        #[cfg(target_arch = "x86_64")]
        Tiles::Hardware(tiles) => busy::<_, E>(tiles, rounds),
        Tiles::Emulated(tiles) => busy::<_, E>(&mut **tiles, rounds),
    }
    Some(4 * SIDE * SIDE * SIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the tile instructions of any implementation must do with the same bytes, in all tile numbers of the kernel.
    fn products<T: TileOps>(tiles: &mut T, a: &[u8; TILE_BYTES], b: &[u8; TILE_BYTES]) -> Vec<u8> {
        let mut out = vec![0; 2 * TILE_BYTES];
        // SAFETY: all are sixteen rows of 64 bytes.
        unsafe {
            tiles.zero::<0>();
            tiles.zero::<3>();
            tiles.load::<4>(a.as_ptr(), ROW_BYTES);
            tiles.load::<7>(b.as_ptr(), ROW_BYTES);
            tiles.dot_bf16::<0, 4, 7>();
            tiles.dot_bf16::<0, 4, 7>();
            tiles.dot_u8s8::<3, 4, 7>();
            tiles.dot_u8s8::<3, 4, 7>();
            tiles.store::<0>(out.as_mut_ptr(), ROW_BYTES);
            tiles.store::<3>(out.as_mut_ptr().add(TILE_BYTES), ROW_BYTES);
        }
        out
    }

    /// Finite bf16 numbers of ordinary size that are also arbitrary bytes.
    fn bytes(seed: u32) -> [u8; TILE_BYTES] {
        let mut state = seed;
        let mut bytes = [0; TILE_BYTES];
        for number in bytes.as_chunks_mut::<2>().0 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *number = ((state >> 16) as u16 & 0x83ff | 0x3c00).to_le_bytes();
        }
        bytes
    }

    #[test]
    fn the_emulator_multiplies_words() {
        let (a, b) = (bytes(1), bytes(2));
        let out = products(&mut Emulator::default(), &a, &b);
        let word = |tile: &[u8], row: usize, word: usize| -> [u8; 4] {
            tile[row * ROW_BYTES + word * 4..][..4].try_into().unwrap()
        };
        let number = |low: u8, high: u8| f64::from(f32::from_bits(u32::from_le_bytes([0, 0, low, high])));
        for row in 0..SIDE {
            for column in 0..SIDE {
                let (mut sum, mut size, mut integer) = (0.0, 0.0, 0);
                for at in 0..SIDE {
                    let (a, b) = (word(&a, row, at), word(&b, at, column));
                    for half in 0..2 {
                        let term = number(a[half * 2], a[half * 2 + 1]) * number(b[half * 2], b[half * 2 + 1]);
                        sum += 2.0 * term;
                        size += 2.0 * term.abs();
                    }
                    integer += (0..4).map(|byte| 2 * i32::from(a[byte]) * i32::from(b[byte] as i8)).sum::<i32>();
                }
                let got = f64::from(f32::from_le_bytes(word(&out, row, column)));
                assert!((got - sum).abs() <= 20.0 * f64::from(f32::EPSILON) * size, "{got} for {sum}");
                assert_eq!(i32::from_le_bytes(word(&out[TILE_BYTES..], row, column)), integer);
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_instructions_equal_the_emulator() {
        let Ok(_isa) = Isa::from_name("amx") else {
            println!("skipped: {}", Isa::from_name("amx").unwrap_err());
            return;
        };
        let (a, b) = (bytes(3), bytes(4));
        // SAFETY: the CPU has AMX and the kernel permits it, or there would be no such Isa.
        let real = products(&mut unsafe { Hardware::configure() }, &a, &b);
        assert!(real == products(&mut Emulator::default(), &a, &b));
    }
}
