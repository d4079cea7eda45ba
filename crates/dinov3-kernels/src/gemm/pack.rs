//! Weights, reordered once into the panels that the register tile streams.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::sync::Mutex;

use dinov3_system::memory_map::{MappedValues, Values};
use dinov3_system::threads::Pool;

use super::tile::{PANEL, PanelLayout};
use crate::amx;
use crate::element::Operand;
use crate::isa::{Isa, Level};
use crate::memory::{AlignedWords, SharedOutput};
use crate::simd::LANES;

/// Vectors in a tile of the instruction set; fixes the layout of the panels.
pub(crate) fn tile_vectors(isa: Isa) -> usize {
    match isa.level() {
        Level::Scalar | Level::AmxEmulated | Level::Avx2 | Level::AvxVnni => 1,
        Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 | Level::Amx => 4,
    }
}

impl Isa {
    /// The name of the layout that weights are packed into for this instruction set. Instruction sets with the same one
    /// read each other's packed matrices.
    pub fn layout(self) -> String {
        let order = if cfg!(target_endian = "little") { "le" } else { "be" };
        // There, panels of bf16 and of bytes are made of whole tiles.
        let tiles = if amx::has_tiles(self) { "-amx" } else { "" };
        format!("panels{PANEL}-tiles{}{tiles}-{order}", tile_vectors(self) * LANES)
    }
}

/// The panel of `columns` weight columns of `k` numbers.
fn panel_layout<E: Operand>(isa: Isa, columns: usize, k: usize) -> PanelLayout {
    if amx::runs_on_tiles::<E>(isa) {
        PanelLayout::of_tiles::<E>(columns, k)
    } else {
        PanelLayout::new::<E>(tile_vectors(isa), columns, k)
    }
}

/// A weight matrix W `[n, k]`, packed for one instruction set.
pub struct PackedMatrix<E> {
    isa: Isa,
    n: usize,
    k: usize,
    panels: Panels,
    columns: ColumnScales,
    element: PhantomData<E>,
}

/// The words of all panels, in memory or in a packed file.
enum Panels {
    Owned(AlignedWords),
    Mapped(MappedValues<u32>),
}

impl Panels {
    fn as_slice(&self) -> &[u32] {
        match self {
            Panels::Owned(words) => words.as_slice(),
            Panels::Mapped(words) => words,
        }
    }
}

/// What turns integer sums into numbers, a value per column and as many as fill the panels. Empty for floating point.
#[derive(Default)]
pub struct ColumnScales {
    /// The number that one step of a column's weights stands for.
    pub(crate) scales: Values<f32>,
    /// Sums of the columns' integers.
    pub(crate) sums: Values<i32>,
}

impl<E: Operand> PackedMatrix<E> {
    /// Packs the matrix whose rows `rows(start_row, out)` delivers.
    ///
    /// `rows` fills `out` with whole rows from `start_row` on; `out.len()` is a multiple of `k`, at most 64 rows. It is
    /// called from several threads. After an error the matrix is given up and one of the errors comes back.
    #[allow(clippy::type_complexity)]
    pub fn pack<Err: Send>(
        isa: Isa,
        pool: &Pool,
        n: usize,
        k: usize,
        rows: &(dyn Fn(usize, &mut [f32]) -> Result<(), Err> + Sync),
    ) -> Result<Self, Err> {
        let stride = panel_layout::<E>(isa, PANEL, k).len();
        let panels = n.div_ceil(PANEL);
        let mut words = AlignedWords::zeroed(Self::panel_words(isa, n, k));
        let error = Mutex::new(None);
        let output = SharedOutput::new(words.as_mut_slice());
        let scaled = Self::scaled_columns(n);
        let (mut scales, mut sums) = (vec![0.0; scaled], vec![0; scaled]);
        let (column_scales, column_sums) = (SharedOutput::new(&mut scales), SharedOutput::new(&mut sums));
        pool.run(panels, &|panel| {
            let first = panel * PANEL;
            let columns = (n - first).min(PANEL);
            let layout = panel_layout::<E>(isa, columns, k);
            let mut source = vec![0.0; columns * k];
            if let Err(reason) = rows(first, &mut source) {
                let mut error = error.lock().unwrap_or_else(|lock| lock.into_inner());
                error.get_or_insert(reason);
                return;
            }
            if E::SCALED {
                // SAFETY: each task writes the columns of its own panel.
                let (scales, sums) = unsafe { (column_scales.part(first, columns), column_sums.part(first, columns)) };
                E::prepare_columns(isa, &mut source, k, scales, sums);
            }
            // SAFETY: each task writes the panel of its own number.
            let target = unsafe { output.part(panel * stride, layout.len()) };
            pack_columns::<E>(&source, columns, k, layout, target);
        });
        match error.into_inner().unwrap_or_else(|lock| lock.into_inner()) {
            Some(error) => Err(error),
            None => {
                let columns = ColumnScales { scales: scales.into(), sums: sums.into() };
                Ok(PackedMatrix { isa, n, k, panels: Panels::Owned(words), columns, element: PhantomData })
            }
        }
    }

    /// A matrix whose parts lie in a file, as [`PackedMatrix::panel_values`] and its relatives gave them under the same
    /// [`Isa::layout`]. `None` if a part does not have the length that `n` and `k` ask for, or if the panels do not
    /// start on a cache line.
    pub fn from_parts(
        isa: Isa,
        n: usize,
        k: usize,
        panels: MappedValues<u32>,
        scales: Values<f32>,
        sums: Values<i32>,
    ) -> Option<Self> {
        let scaled = Self::scaled_columns(n);
        let fits = panels.len() == Self::panel_words(isa, n, k) && scales.len() == scaled && sums.len() == scaled;
        (fits && panels.as_ptr().addr().is_multiple_of(64)).then(|| PackedMatrix {
            isa,
            n,
            k,
            panels: Panels::Mapped(panels),
            columns: ColumnScales { scales, sums },
            element: PhantomData,
        })
    }

    /// A matrix without rows.
    pub fn empty(isa: Isa) -> Self {
        let panels = Panels::Owned(AlignedWords::default());
        PackedMatrix { isa, n: 0, k: 0, panels, columns: ColumnScales::default(), element: PhantomData }
    }

    /// 32-bit words that the panels of an n × k matrix take.
    pub fn panel_words(isa: Isa, n: usize, k: usize) -> usize {
        if n == 0 {
            return 0;
        }
        let last = panel_layout::<E>(isa, (n - 1) % PANEL + 1, k);
        (n.div_ceil(PANEL) - 1) * panel_layout::<E>(isa, PANEL, k).len() + last.len()
    }

    /// Columns that have a scale: as many as fill the panels of `n`, or none for floating point.
    pub fn scaled_columns(n: usize) -> usize {
        if E::SCALED { n.next_multiple_of(PANEL) } else { 0 }
    }

    /// The words of all panels.
    pub fn panel_values(&self) -> &[u32] {
        self.panels.as_slice()
    }

    /// The number that one step of each column stands for; empty for floating point.
    pub fn column_scales(&self) -> &[f32] {
        &self.columns.scales
    }

    /// The sum of each column's integers; empty for floating point.
    pub fn column_sums(&self) -> &[i32] {
        &self.columns.sums
    }

    /// Rows of W: columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of W: the length of a row that is multiplied with it.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Memory that the panels take.
    pub fn bytes(&self) -> usize {
        (self.panels.as_slice().len() + 2 * self.columns.scales.len()) * 4
    }

    /// The instruction set that the panels are laid out for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn columns(&self) -> &ColumnScales {
        &self.columns
    }

    /// Panel number `panel` and its layout.
    pub(crate) fn panel(&self, panel: usize) -> (&[u32], PanelLayout) {
        let layout = panel_layout::<E>(self.isa, self.n - panel * PANEL, self.k);
        let start = panel * PANEL * layout.words;
        (&self.panels.as_slice()[start..start + layout.len()], layout)
    }
}

/// Lays out `columns` columns, each a run of `k` numbers in `source`. Unused columns stay as they are: zero.
fn pack_columns<E: Operand>(source: &[f32], columns: usize, k: usize, layout: PanelLayout, target: &mut [u32]) {
    if k == 0 {
        return;
    }
    for column in 0..columns {
        let numbers = &source[column * k..(column + 1) * k];
        let (sub, lane) = (column / layout.sub_width, column % layout.sub_width);
        let start = sub * layout.words * layout.sub_width + lane;
        let words = target[start..].iter_mut().step_by(layout.sub_width);
        for (numbers, word) in numbers.chunks(E::GROUP).zip(words) {
            *word = E::word_of(numbers);
        }
    }
}

impl<E: Operand> fmt::Debug for PackedMatrix<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PackedMatrix<{}>({} x {}, {})", E::NAME, self.n, self.k, self.isa.name())
    }
}
