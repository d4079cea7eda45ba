//! `dinov3 scene merge OUT.zarr`: the root of a store of which all units are there, as `scene embed -o OUT.zarr` writes it.

use std::collections::HashSet;

use anyhow::{Context, Result};
use dinov3::sink::{MergedStore, WorkUnit};
use dinov3_scene::without_name;
use serde_json::{Value, json};

use crate::failure::{Outcome, usage};
use crate::scene::merge::Catalogue;
use crate::scene::plan::Plan;
use crate::scene::reports::MOST_LISTED;
use crate::scene::store::Store;
use crate::scene::units::Marker;
use crate::scene::zarr_units::metadata_of;

/// Writes the metadata of the root from those of the units that are there.
pub fn finish(
    plan: &Plan,
    store: &Store,
    there: &[(&WorkUnit, Marker)],
    problems: usize,
    options: &Catalogue<'_>,
) -> Result<Outcome> {
    if options.parquet.is_some() {
        return Err(usage(format!("--parquet: {} is a Zarr store, without rows", store.shown())));
    }
    let mut root = MergedStore::default();
    let mut provenance = None;
    let mut scenes = HashSet::new();
    for (unit, _) in there {
        let name = metadata_of(&unit.unit);
        let text = store.get(&name)?.with_context(|| format!("{name} has gone"))?;
        let of_unit = root.add(&text).with_context(|| format!("{}/{name}: is damaged", store.shown()))?;
        let is_new = scenes.insert(&unit.scene);
        match &mut provenance {
            None => provenance = Some(of_unit),
            Some(whole) => add(whole, of_unit, is_new),
        }
    }
    let place = match provenance {
        None => "no store".to_owned(),
        Some(mut provenance) => {
            for unit in &plan.units {
                if let Some(error) = &unit.error {
                    add_unusable(&mut provenance, unit, error);
                }
            }
            by_path(&mut provenance);
            store.put(MergedStore::METADATA, &root.finish(provenance))?;
            store.shown()
        }
    };
    let chips: usize = there.iter().map(|(_, marker)| marker.chips.done).sum();
    eprintln!("{} of {} units, {chips} chips, {problems} problems -> {place}", there.len(), plan.units.len());
    Ok(if problems > 0 { Outcome::SomeFailed } else { Outcome::Done })
}

/// Adds what another unit says: all say the same of the model and of the options, and those of a scene the same of it.
fn add(whole: &mut Value, mut of_unit: Value, is_new_scene: bool) {
    for count in ["done", "failed"] {
        let sum = [&*whole, &of_unit].map(|value| value["counts"][count].as_u64().unwrap_or(0)).iter().sum::<u64>();
        whole["counts"][count] = json!(sum);
    }
    append(&mut whole["failures"], of_unit["failures"].take());
    if !is_new_scene {
        return;
    }
    append(&mut whole["scenes"], of_unit["scenes"].take());
    if let Value::Array(scenes) = &mut whole["scenes"] {
        scenes.truncate(MOST_LISTED);
    }
    for mut kind in of_unit.get_mut("resampled").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default() {
        let scenes = kind["scenes"].take();
        let mut known = whole["resampled"].as_array_mut().map(|kinds| kinds.iter_mut()).into_iter().flatten();
        let same = known.find(|known| {
            kind.as_object()
                .is_some_and(|kind| kind.iter().all(|(name, value)| name == "scenes" || known[name] == *value))
        });
        match same {
            Some(known) => {
                known["scenes"] = json!(known["scenes"].as_u64().unwrap_or(0) + scenes.as_u64().unwrap_or(0))
            }
            None => {
                kind["scenes"] = scenes;
                append(&mut whole["resampled"], json!([kind]));
            }
        }
    }
}

/// A scene without units is a failure.
fn add_unusable(provenance: &mut Value, unit: &WorkUnit, error: &str) {
    let failed = provenance["counts"]["failed"].as_u64().unwrap_or(0);
    provenance["counts"]["failed"] = json!(failed + 1);
    append(&mut provenance["failures"], json!([{"path": unit.scene, "error": without_name(error, &unit.scene)}]));
}

fn by_path(provenance: &mut Value) {
    if let Some(failures) = provenance["failures"].as_array_mut() {
        failures.sort_by(|a, b| a["path"].as_str().cmp(&b["path"].as_str()));
    }
}

fn append(list: &mut Value, further: Value) {
    match (&mut *list, further) {
        (Value::Array(list), Value::Array(mut further)) => list.append(&mut further),
        (Value::Null, further @ Value::Array(_)) => *list = further,
        _ => {}
    }
}
