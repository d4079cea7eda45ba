//! The chips of many scenes as the source of a run.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dinov3_engine::{Item, ItemError, ItemErrorKind, Source};
use dinov3_geo::PixelWindow;
use dinov3_raster::Opener;
use dinov3_sink::{Chip, ChipFootprint, ChipRow, RowName, Stamp, Stamped};

use crate::{Scene, SceneError, SceneInput, SceneOptions};

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
}

impl SceneSource {
    /// The chips of these scenes.
    pub fn new(scenes: Vec<SceneInput>, opener: Opener, options: SceneOptions) -> Self {
        Self { scenes, opener, options, open: Mutex::default(), chips: None }
    }

    /// Opens all scenes once, so that the number of chips is known, if that costs little: files, or few scenes. Nothing is
    /// known of others.
    pub fn survey(&mut self) -> Option<Survey> {
        if self.scenes.len() > OPEN_SCENES && self.scenes.iter().any(SceneInput::is_remote) {
            return None;
        }
        let mut survey = Survey::default();
        for index in 0..self.scenes.len() {
            match self.scene(index) {
                Ok(scene) => survey.chips += scene.chips().len(),
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
        let mut open = open();
        if open.len() == OPEN_SCENES {
            open.pop_front();
        }
        open.push_back((index, Arc::clone(&scene)));
        Ok(scene)
    }

    fn keys_of(&self, index: usize) -> Box<dyn Iterator<Item = ChipKey> + Send + '_> {
        match self.scene(index) {
            Ok(scene) => Box::new(chips(scene)),
            Err(error) => {
                let name = self.scenes[index].name.clone();
                let error = ItemError::new(ItemErrorKind::Read, error.to_string());
                Box::new(std::iter::once(ChipKey(Kind::Unusable { name, error })))
            }
        }
    }
}

/// The chips that may have data.
fn chips(scene: Arc<Scene>) -> impl Iterator<Item = ChipKey> + Send {
    let count = scene.chips().len();
    (0..count).filter_map(move |index| {
        if index.is_multiple_of(ANNOUNCED) {
            // Those before were announced earlier.
            let first = if index == 0 { 0 } else { index + AHEAD - ANNOUNCED };
            scene.prefetch(first.min(count)..(index + AHEAD).min(count));
        }
        let window = scene.chips().window(index);
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
