//! `dinov3 scene merge OUT.zarr`: the root of a store of which all units are there, as `scene embed -o OUT.zarr` writes it.

use anyhow::{Context, Result};
use dinov3::sink::{MergedStore, WorkUnit};
use dinov3_scene::without_name;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::scene::marker::Marker;
use crate::scene::merged::MergedProvenance;
use crate::scene::plan::Plan;
use crate::scene::store::Store;
use crate::scene::zarr_units::metadata_of;

/// Writes the metadata of the root from those of the units that are there.
pub fn finish(plan: &Plan, store: &Store, there: &[(&WorkUnit, Marker)], problems: usize) -> Result<Outcome> {
    let mut root = MergedStore::default();
    let mut merged = MergedProvenance::default();
    let (mut columns, mut done, mut failed) = (Value::Null, 0, 0);
    for (unit, _) in there {
        let name = metadata_of(&unit.unit);
        let text = store.get(&name)?.with_context(|| format!("{name} has gone"))?;
        let of_unit = root.add(&text).with_context(|| format!("{}/{name}: is damaged", store.shown()))?;
        merged.add(&of_unit);
        done += of_unit["counts"]["done"].as_u64().unwrap_or(0);
        failed += of_unit["counts"]["failed"].as_u64().unwrap_or(0);
        columns = of_unit["columns"].clone();
    }
    let place = match there {
        [] => "no store".to_owned(),
        _ => {
            let mut provenance = merged.finish(0);
            let mut failures = provenance["missing"]["chips"].as_array().cloned().unwrap_or_default();
            for unit in &plan.units {
                if let Some(error) = &unit.error {
                    failures.push(json!({"path": unit.scene, "error": without_name(error, &unit.scene)}));
                    failed += 1;
                }
            }
            failures.sort_by(|a, b| a["path"].as_str().cmp(&b["path"].as_str()));
            // As one process says it.
            if let Some(fields) = provenance.as_object_mut() {
                ["units", "missing"].iter().for_each(|name| _ = fields.remove(*name));
            }
            provenance["counts"] = json!({"done": done, "failed": failed});
            provenance["columns"] = columns;
            provenance["failures"] = json!(failures);
            store.put(MergedStore::METADATA, &root.finish(provenance))?;
            store.shown()
        }
    };
    let chips: usize = there.iter().map(|(_, marker)| marker.counts.done).sum();
    eprintln!("{} of {} units, {chips} chips, {problems} problems -> {place}", there.len(), plan.units.len());
    Ok(if problems > 0 { Outcome::SomeFailed } else { Outcome::Done })
}
