//! The chips of many scenes as the source of a run.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dinov3_engine::{Item, ItemError, ItemErrorKind, Source};
use dinov3_geo::PixelWindow;
use dinov3_raster::Opener;
use dinov3_sink::{
    Chip, ChipCell, ChipFootprint, ChipRow, ChipShards, EmbeddingLayout, KnownRows, RowName, Stamp, Stamped,
};

use crate::{Measured, Scene, SceneError, SceneInput, SceneOptions};

/// Scenes that stay open: the one that is read, the next one, and what the start of a run looked at.
const OPEN_SCENES: usize = 4;
/// Chips that are fetched ahead, and how many are announced at once.
const AHEAD: u64 = 64;
const ANNOUNCED: u64 = 16;

/// A chip of a scene; or a scene that cannot be used, which is reported in the place of its chips.
pub struct ChipKey(Kind);

enum Kind {
    Chip {
        scene: Arc<Scene>,
        window: PixelWindow,
        /// Known once the chip was loaded.
        row: OnceLock<ChipRow>,
    },
    Unusable {
        name: String,
        error: ItemError,
    },
}

impl RowName for ChipKey {
    fn row_name(&self) -> Cow<'_, str> {
        match &self.0 {
            Kind::Chip { scene, window, .. } => scene.chip_id(window).into(),
            Kind::Unusable { name, .. } => name.into(),
        }
    }
}

impl Stamped for ChipKey {
    fn stamp(&self) -> Option<Stamp> {
        match &self.0 {
            Kind::Chip { scene, .. } => scene.stamp(),
            Kind::Unusable { .. } => None,
        }
    }
}

impl Chip for ChipKey {
    fn cell(&self) -> Option<ChipCell<'_>> {
        match &self.0 {
            Kind::Chip { scene, window, .. } => scene.cell(window),
            Kind::Unusable { .. } => None,
        }
    }

    fn chip_row(&self) -> Cow<'_, ChipRow> {
        if let Kind::Chip { row, .. } = &self.0
            && let Some(row) = row.get()
        {
            return Cow::Borrowed(row);
        }
        // Never asked for: only chips that were loaded are written. An empty footprint is refused by the sink.
        Cow::Owned(ChipRow {
            id: self.row_name().into_owned(),
            footprint: ChipFootprint { wkb: Vec::new(), bbox: [f64::NAN; 4] },
            datetime_us: None,
            source: String::new(),
            epsg: None,
            x_px: 0,
            y_px: 0,
            width_px: 0,
            height_px: 0,
            grid_cell: None,
            valid_fraction: 0.0,
            stac_item: None,
            hilbert: 0,
        })
    }
}

/// What the scenes of a run are, before it starts.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// Chips of the scenes that can be used.
    pub chips: u64,
    /// Scenes that cannot, with their reasons.
    pub unusable: Vec<SceneError>,
}

/// The chips of scenes, scene after scene. A scene that cannot be used is one failed item.
pub struct SceneSource {
    scenes: Vec<SceneInput>,
    opener: Opener,
    options: SceneOptions,
    open: Mutex<VecDeque<(usize, Arc<Scene>)>>,
    chips: Option<u64>,
    known: Option<Arc<KnownRows>>,
    /// What else a scene must be.
    demand: Option<Demand>,
    listener: Option<Box<SceneListener>>,
    /// Scenes that the listener knows.
    told: Mutex<BTreeSet<usize>>,
    /// First row of pixels in which a chip starts, and the row after the last.
    rows_px: Option<(i64, i64)>,
    /// The shard of a Zarr store of vectors of this layout.
    shard: Option<(EmbeddingLayout, (u32, u32))>,
}

/// Says why a scene does not fit, as the end of a sentence.
pub type Demand = fn(&Scene) -> Result<(), String>;

/// Hears of every scene whose pixels were looked at, with its place among the scenes.
type SceneListener = dyn Fn(usize, &Scene, &Measured) + Send + Sync;

impl SceneSource {
    /// The chips of these scenes.
    pub fn new(scenes: Vec<SceneInput>, opener: Opener, options: SceneOptions) -> Self {
        Self {
            scenes,
            opener,
            options,
            open: Mutex::default(),
            chips: None,
            known: None,
            demand: None,
            listener: None,
            told: Mutex::default(),
            rows_px: None,
            shard: None,
        }
    }

    /// Only the chips that start in these rows of pixels: from the first to that before the second.
    pub fn within_rows(self, rows_px: Option<(i64, i64)>) -> Self {
        Self { rows_px, ..self }
    }

    /// Only the chips whose cells are in this shard of a Zarr store: its row and column, for vectors of this layout.
    pub fn within_shard(self, layout: EmbeddingLayout, row: u32, column: u32) -> Self {
        Self { shard: Some((layout, (row, column))), ..self }
    }

    /// Tells which rows there are from an earlier run: nothing is fetched for their chips.
    pub fn continue_from(&mut self, known: Arc<KnownRows>) {
        self.known = Some(known);
    }

    /// Scenes of which this fails cannot be used; the error is why not, as the end of a sentence.
    pub fn demanding(self, demand: Demand) -> Self {
        Self { demand: Some(demand), ..self }
    }

    /// Lets somebody hear of every scene once, in their order, before its chips are read.
    pub fn listen(&mut self, listener: impl Fn(usize, &Scene, &Measured) + Send + Sync + 'static) {
        self.listener = Some(Box::new(listener));
    }

    /// Opens all scenes once, so that the number of chips is known, if that costs little: files, or few scenes. Nothing is
    /// known of others.
    pub fn survey(&mut self) -> Option<Survey> {
        if self.scenes.len() > OPEN_SCENES && self.scenes.iter().any(SceneInput::is_remote) {
            return None;
        }
        let mut survey = Survey::default();
        for index in 0..self.scenes.len() {
            // What stays open is looked at now: the pixels of others would be read twice.
            let scene = match self.scenes.len() <= OPEN_SCENES {
                true => self.measured_scene(index),
                false => self.scene(index),
            };
            match scene {
                Ok(scene) => survey.chips += self.numbers(&scene).len(),
                Err(error) => survey.unusable.push(error),
            }
        }
        self.chips = Some(survey.chips + survey.unusable.len() as u64);
        Some(survey)
    }

    /// Scene `index`, opened.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn scene(&self, index: usize) -> Result<Arc<Scene>, SceneError> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, scene)) = open().iter().find(|(number, _)| *number == index) {
            return Ok(Arc::clone(scene));
        }
        let scene = Scene::open(&self.opener, &self.scenes[index], &self.options)?;
        if let Some(Err(problem)) = self.demand.map(|fits| fits(&scene)) {
            return Err(SceneError::Cut { scene: scene.name().to_owned(), problem });
        }
        let mut open = open();
        if open.len() == OPEN_SCENES {
            open.pop_front();
        }
        open.push_back((index, Arc::clone(&scene)));
        Ok(scene)
    }

    /// Scene `index`, of which the pixels were looked at.
    fn measured_scene(&self, index: usize) -> Result<Arc<Scene>, SceneError> {
        let scene = self.scene(index)?;
        let measured = scene.measured()?;
        let is_new = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
        if let Some(listener) = self.listener.as_ref().filter(|_| is_new) {
            listener(index, &scene, measured);
        }
        Ok(scene)
    }

    /// Of this scene's chips, those that are wanted.
    fn numbers(&self, scene: &Scene) -> Numbers {
        let grid = scene.chips();
        if self.rows_px.is_none() && self.shard.is_none() {
            return Numbers::All(grid.len());
        }
        let shard = self.shard.as_ref().zip(scene.cells());
        let shard = shard.map(|((layout, shard), cells)| (ChipShards::new(cells, layout), *shard));
        let is_wanted = |window: &PixelWindow| {
            self.rows_px.is_none_or(|(first, end)| (first..end).contains(&window.y_px))
                && shard.is_none_or(|(shards, shard)| {
                    scene.cell(window).is_some_and(|cell| shards.of_cell(cell.column, cell.row) == shard)
                })
        };
        Numbers::Some((0..grid.len()).filter(|&number| is_wanted(&grid.window(number))).collect())
    }

    fn keys_of(&self, index: usize) -> Box<dyn Iterator<Item = ChipKey> + Send + '_> {
        match self.measured_scene(index) {
            Ok(scene) => {
                let numbers = self.numbers(&scene);
                Box::new(chips(scene, numbers, self.known.clone()))
            }
            Err(error) => {
                let name = self.scenes[index].name.clone();
                let error = ItemError::new(ItemErrorKind::Read, without_name(&error.to_string(), &name));
                Box::new(std::iter::once(ChipKey(Kind::Unusable { name, error })))
            }
        }
    }
}

/// What is wrong, where it is said of a scene whose name stands before it already.
pub fn without_name(error: &str, name: &str) -> String {
    let rest = error.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ").or_else(|| rest.strip_prefix(' ')));
    rest.unwrap_or(error).to_owned()
}

/// Chips of a scene, by their numbers.
enum Numbers {
    All(u64),
    Some(Vec<u64>),
}

impl Numbers {
    fn len(&self) -> u64 {
        match self {
            Self::All(count) => *count,
            Self::Some(numbers) => numbers.len() as u64,
        }
    }

    fn at(&self, index: u64) -> u64 {
        match self {
            Self::All(_) => index,
            Self::Some(numbers) => numbers[index as usize],
        }
    }
}

/// The chips that may have data. What `known` has is not fetched.
fn chips(scene: Arc<Scene>, numbers: Numbers, known: Option<Arc<KnownRows>>) -> impl Iterator<Item = ChipKey> + Send {
    let count = numbers.len();
    (0..count).filter_map(move |index| {
        if index.is_multiple_of(ANNOUNCED) {
            // Those before were announced earlier.
            let first = if index == 0 { 0 } else { index + AHEAD - ANNOUNCED };
            let is_known = |number: &u64| match (&known, scene.stamp()) {
                (Some(known), Some(stamp)) => known.has(&scene.chip_id(&scene.chips().window(*number)), stamp),
                _ => false,
            };
            let ahead = (first.min(count)..(index + AHEAD).min(count)).map(|index| numbers.at(index));
            scene.prefetch(ahead.filter(|number| !is_known(number)));
        }
        let window = scene.chips().window(numbers.at(index));
        scene.inside(&window)?;
        Some(ChipKey(Kind::Chip { scene: Arc::clone(&scene), window, row: OnceLock::new() }))
    })
}

impl Source for SceneSource {
    type Key = ChipKey;

    fn keys(&self) -> Box<dyn Iterator<Item = ChipKey> + Send + '_> {
        Box::new((0..self.scenes.len()).flat_map(|index| self.keys_of(index)))
    }

    fn len_hint(&self) -> Option<usize> {
        self.chips.and_then(|chips| usize::try_from(chips).ok())
    }

    fn load(&self, key: &ChipKey) -> Result<Option<Item>, ItemError> {
        match &key.0 {
            Kind::Unusable { error, .. } => Err(error.clone()),
            Kind::Chip { scene, window, row } => Ok(scene.chip(*window)?.map(|(item, described)| {
                let _ = row.set(described);
                item
            })),
        }
    }
}
