//! What a merged file says of its making: what its units say, each scene once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::scene::reports::MOST_LISTED;

/// The provenance of a file that is made of several.
#[derive(Default)]
pub struct MergedProvenance {
    /// What all of them say.
    common: Map<String, Value>,
    units: usize,
    instruction_sets: BTreeSet<String>,
    /// In the order of the units, each by its name.
    scenes: Vec<Value>,
    named: BTreeSet<String>,
    /// What was resampled in how many scenes: a scene of several units is one.
    resampled: BTreeMap<String, (Value, BTreeSet<String>)>,
    failures: Vec<Value>,
}

/// What is of one file, or is collected from all.
const OF_FILES: [&str; 6] = ["failures", "counts", "columns", "scenes", "resampled", "instruction_set"];

impl MergedProvenance {
    /// Adds what a unit says.
    pub fn add(&mut self, provenance: &Value) {
        let Some(fields) = provenance.as_object() else { return };
        if self.units == 0 {
            self.common = fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            OF_FILES.iter().for_each(|name| _ = self.common.remove(*name));
        }
        self.units += 1;
        self.instruction_sets.extend(fields.get("instruction_set").and_then(Value::as_str).map(str::to_owned));
        let list = |name: &str| fields.get(name).and_then(Value::as_array).into_iter().flatten();
        let mut scene_name = format!("unit {}", self.units);
        for scene in list("scenes") {
            scene_name = scene["scene"].as_str().unwrap_or(&scene_name).to_owned();
            if self.named.insert(scene_name.clone()) && self.scenes.len() < MOST_LISTED {
                self.scenes.push(scene.clone());
            }
        }
        for file in list("resampled") {
            let mut kind = file.clone();
            kind["scenes"] = Value::Null;
            let (_, scenes) = self.resampled.entry(kind.to_string()).or_insert_with(|| (file.clone(), BTreeSet::new()));
            scenes.insert(scene_name.clone());
        }
        self.failures.extend(list("failures").cloned());
    }

    /// All of it; `missing` units are not in the file.
    pub fn finish(&mut self, missing: usize) -> Value {
        let mut fields = std::mem::take(&mut self.common);
        let sets: Vec<&String> = self.instruction_sets.iter().collect();
        fields.insert("instruction_set".to_owned(), if let [one] = &sets[..] { json!(one) } else { json!(sets) });
        fields.insert("units".to_owned(), json!(self.units));
        fields.insert("scenes".to_owned(), json!(self.scenes));
        if !self.resampled.is_empty() {
            let told = self.resampled.values().map(|(file, scenes)| {
                let mut told = file.clone();
                told["scenes"] = json!(scenes.len());
                told
            });
            fields.insert("resampled".to_owned(), told.collect());
        }
        if missing + self.failures.len() > 0 {
            fields.insert("missing".to_owned(), json!({"units": missing, "chips": self.failures}));
        }
        Value::Object(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_is_told_once() {
        let unit = |scene: &str, set: &str, failures: Value| {
            json!({
                "model": "tiny", "instruction_set": set, "counts": {"done": 1}, "failures": failures,
                "scenes": [{"scene": scene, "scale": "u8"}],
                "resampled": [{"file": 2, "from_px": [5, 5], "to_px": [10, 10], "method": "bilinear", "scenes": 1}],
            })
        };
        let mut merged = MergedProvenance::default();
        merged.add(&unit("a", "avx2", json!([])));
        merged.add(&unit("a", "avx2", json!([{"path": "a#1", "error": "no"}])));
        merged.add(&unit("b", "amx", json!([])));
        let told = merged.finish(1);
        assert_eq!(told["scenes"], json!([{"scene": "a", "scale": "u8"}, {"scene": "b", "scale": "u8"}]));
        assert_eq!((&told["resampled"][0]["scenes"], &told["resampled"][1]), (&json!(2), &Value::Null));
        assert_eq!((&told["units"], &told["model"]), (&json!(3), &json!("tiny")));
        assert_eq!(told["instruction_set"], json!(["amx", "avx2"]));
        assert_eq!(told["missing"], json!({"units": 1, "chips": [{"path": "a#1", "error": "no"}]}));
        assert_eq!(told["counts"], Value::Null);
    }
}
