//! What was seen of the scenes of a run: told once, and kept for the provenance.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, PoisonError};

use dinov3_scene::{Remark, Resampling, Scene, Watcher};
use serde_json::{Value, json};

/// Shared by the source of a run, which opens scenes, and by what is written at its end.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Of each kind of remark the first scene, and whether a second one was named.
    told: HashMap<Discriminant<Remark>, (String, bool)>,
    source_gsd_m: Range,
    factor: Range,
}

/// The least and the largest of some numbers.
#[derive(Default)]
struct Range(Option<[f64; 2]>);

impl Range {
    fn add(&mut self, (one, other): (f64, f64)) {
        let [least, most] = self.0.get_or_insert([one, one]);
        (*least, *most) = (least.min(one).min(other), most.max(one).max(other));
    }
}

impl Seen {
    /// For [`SceneSource::watched_by`](dinov3_scene::SceneSource::watched_by). A scene that is opened twice is seen once.
    pub fn watcher(&self) -> Watcher {
        let seen = self.clone();
        Box::new(move |scene| {
            let mut state = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.tell(scene.name(), scene.remarks());
            if let Some(resampling) = scene.resampling() {
                state.note(resampling);
            }
        })
    }

    /// From which distances on the ground scenes were resampled, by which factors: least and most; nothing where none was
    /// asked for.
    pub fn resampled(&self) -> Option<Value> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source_gsd_m = state.source_gsd_m.0?;
        Some(json!({"filter": "bilinear, antialiased", "source_gsd_m": source_gsd_m, "factor": state.factor.0}))
    }
}

impl State {
    fn tell(&mut self, scene: &str, remarks: &[Remark]) {
        for remark in remarks {
            let kind = if remark.is_warning() { "warning" } else { "note" };
            match self.told.get_mut(&discriminant(remark)) {
                None => {
                    eprintln!("{kind}: {scene} {remark}");
                    self.told.insert(discriminant(remark), (scene.to_owned(), false));
                }
                Some((first, is_told)) if first != scene && !*is_told => {
                    eprintln!("{kind}: {scene} too, and so it may be with further scenes, which are not named");
                    *is_told = true;
                }
                Some(_) => {}
            }
        }
    }

    fn note(&mut self, resampling: &Resampling) {
        self.source_gsd_m.add(resampling.source_gsd_m);
        self.factor.add(resampling.factor);
    }
}

/// Prints what is worth telling of one scene.
pub fn tell(scene: &Scene) {
    State::default().tell(scene.name(), scene.remarks());
}
