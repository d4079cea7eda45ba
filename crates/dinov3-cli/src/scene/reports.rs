//! What is told of the scenes of a run: warnings while it goes on, and a list for provenance.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dinov3_scene::{Measured, Remark, Scene, SceneSource};
use serde_json::Value;

use crate::failure::printable_line;
use crate::progress::Reporter;

/// Scenes whose warnings are told; those of others are in the provenance.
const MOST_WARNED: usize = 10;
/// Scenes that the provenance lists: about 500 bytes each, in the output's footer.
pub const MOST_LISTED: usize = 1000;

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
    pub fn add(&self, index: usize, scene: &Scene, measured: &Measured) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// The list for provenance, in the order of the scenes.
    pub fn list(&self) -> Value {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.scenes.sort_by_key(|(index, _)| *index);
        found.scenes.iter().map(|(_, scene)| scene.clone()).collect()
    }

    fn line(&self, text: &str) {
        match self.reporter.get() {
            Some(reporter) => reporter.line(text),
            None => eprintln!("{}", printable_line(text)),
        }
    }
}
