//! What is told of the scenes of a run: warnings while it goes on, and a list for provenance.

use std::collections::{BTreeMap, HashMap};
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dinov3_scene::raster::{RasterProfile, Resampling};
use dinov3_scene::{Measured, Remark, Scene, SceneSource};
use serde_json::{Value, json};

use crate::failure::printable_line;
use crate::progress::Reporter;
use crate::scene::resampling_told;

/// Scenes whose warnings are told; those of others are in the provenance.
const MOST_WARNED: usize = 10;
/// Scenes that the provenance lists: about 500 bytes each, in the output's footer.
pub const MOST_LISTED: usize = 1000;

/// A file that was coarser than another one of its scene.
#[derive(PartialEq)]
struct ResampledFile {
    /// Which file of its scene, counted from 1.
    number: usize,
    /// Its own columns and rows.
    from_px: (u32, u32),
    /// Columns and rows of the scene.
    to_px: (u32, u32),
    method: Resampling,
}

/// Hears of every scene once.
#[derive(Default)]
pub struct SceneReports {
    found: Mutex<Found>,
    /// Once the run has begun.
    reporter: OnceLock<Arc<Reporter>>,
}

#[derive(Default)]
struct Found {
    scenes: Vec<(usize, Value)>,
    /// Of each scene, the files that came onto the grid of its finest one.
    resampled: BTreeMap<usize, Vec<ResampledFile>>,
    warned: usize,
    /// Of each kind of remark the first scene, and whether a second one was named.
    remarked: HashMap<Discriminant<Remark>, (String, bool)>,
}

impl SceneReports {
    /// Those of a source.
    pub fn of(source: &mut SceneSource) -> Arc<Self> {
        let reports = Arc::new(Self::default());
        let heard = Arc::clone(&reports);
        source.listen(move |index, scene, measured| heard.add(index, scene, measured));
        reports
    }

    /// Lets lines go past a progress bar from now on.
    pub fn through(&self, reporter: &Arc<Reporter>) {
        let _ = self.reporter.set(Arc::clone(reporter));
    }

    /// Notes a scene, and tells its warnings.
    fn add(&self, index: usize, scene: &Scene, measured: &Measured) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        self.note_resampling(&mut found, index, scene.profile());
        if index < MOST_LISTED
            && let Ok(described) = scene.described()
        {
            found.scenes.push((index, described));
        }
        self.tell_remarks(&mut found, scene);
        if measured.warnings.is_empty() {
            return;
        }
        found.warned += 1;
        match found.warned {
            ..=MOST_WARNED => {
                for warning in &measured.warnings {
                    self.line(&format!("warning: {}: {warning}", scene.name()));
                }
            }
            more if more == MOST_WARNED + 1 => {
                self.line("warning: further scenes have warnings too: the output's provenance lists them");
            }
            _ => {}
        }
    }

    /// Of each kind of remark the first scene, and that there are more.
    fn tell_remarks(&self, found: &mut Found, scene: &Scene) {
        for remark in scene.remarks() {
            let kind = if remark.is_warning() { "warning" } else { "note" };
            match found.remarked.get_mut(&discriminant(remark)) {
                None => {
                    self.line(&format!("{kind}: {} {remark}", scene.name()));
                    found.remarked.insert(discriminant(remark), (scene.name().to_owned(), false));
                }
                Some((first, is_told)) if first != scene.name() && !*is_told => {
                    let name = scene.name();
                    self.line(&format!(
                        "{kind}: {name} too, and so it may be with further scenes, which are not named"
                    ));
                    *is_told = true;
                }
                Some(_) => {}
            }
        }
    }

    /// Says of the first scene which files are resampled; of all scenes, provenance says it.
    fn note_resampling(&self, found: &mut Found, index: usize, profile: &RasterProfile) {
        let to_px = (profile.width_px, profile.height_px);
        let mut resampled = Vec::new();
        for (number, file) in (1..).zip(&profile.files) {
            let Some(method) = file.resampling else { continue };
            if index == 0 {
                self.line(&format!("note: {}", resampling_told(file, method, profile)));
            }
            resampled.push(ResampledFile { number, from_px: (file.width_px, file.height_px), to_px, method });
        }
        if !resampled.is_empty() {
            found.resampled.insert(index, resampled);
        }
    }

    /// A provenance with what is known of the scenes at the end of a run.
    pub fn added_to(&self, mut provenance: Value) -> Value {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.scenes.sort_by_key(|(index, _)| *index);
        provenance["scenes"] = found.scenes.iter().map(|(_, scene)| scene.clone()).collect();
        if !found.resampled.is_empty() {
            provenance["resampled"] = found.resampled_files();
        }
        provenance
    }

    fn line(&self, text: &str) {
        match self.reporter.get() {
            Some(reporter) => reporter.line(text),
            None => eprintln!("{}", printable_line(text)),
        }
    }
}

impl Found {
    /// Files that came onto the grid of their scene's finest one, each kind once, with the number of its scenes.
    fn resampled_files(&self) -> Value {
        let mut kinds: Vec<(&ResampledFile, usize)> = Vec::new();
        for file in self.resampled.values().flatten() {
            match kinds.iter_mut().find(|(known, _)| *known == file) {
                Some((_, scenes)) => *scenes += 1,
                None => kinds.push((file, 1)),
            }
        }
        let told = kinds.into_iter().map(|(file, scenes)| {
            json!({
                "file": file.number, "from_px": [file.from_px.0, file.from_px.1], "to_px": [file.to_px.0, file.to_px.1],
                "method": file.method.name(), "scenes": scenes,
            })
        });
        told.collect()
    }
}
