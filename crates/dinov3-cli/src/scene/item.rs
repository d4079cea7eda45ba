//! The STAC item of a unit: from what a run knows to what `dinov3-stac` writes.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use dinov3::ModelSpec;
use dinov3::sink::{ElementType, WorkUnit};
use dinov3_scene::{Scene, SceneInput, scene_name};
use dinov3_stac::{ItemFacts, Link, href};
use serde_json::{Map, Value, json};

use crate::scene::store::{Store, data_of};
use crate::scene::units::{Chips, FileFacts};

/// What an item is made of.
pub struct Made<'a> {
    pub store: &'a Store,
    pub unit: &'a WorkUnit,
    pub input: &'a SceneInput,
    pub scene: &'a Scene,
    pub spec: &'a ModelSpec,
    pub provenance: &'a Value,
    pub plan: String,
    pub chips: Chips,
    pub dimensions: usize,
    pub element: ElementType,
    pub asset: Value,
    pub data: &'a FileFacts,
    pub energy: Option<Value>,
    pub datetime_us: i64,
    pub processed_us: i64,
}

/// The asset of the embeddings, as it also stands in the data file's metadata.
pub fn asset(unit: &WorkUnit) -> Value {
    json!({
        "href": format!("./{}", href(&data_of(&unit.unit))),
        "type": "application/vnd.apache.parquet",
        "roles": ["data"],
        "title": format!("Embeddings of {}", unit.scene),
    })
}

/// The item.
///
/// # Errors
/// If a part of the scene lies nowhere on the Earth.
pub fn item(made: &Made<'_>) -> Result<Value> {
    let Made { scene, unit, input, provenance, .. } = made;
    let footprint = scene.footprint_of_rows(unit.rows_px)?;
    let profile = scene.profile();
    let transform = scene.transform();
    let of_provenance = |names: &[&str]| -> Value {
        let fields = names.iter().map(|name| ((*name).to_owned(), provenance[*name].clone()));
        Value::Object(fields.filter(|(_, value)| !value.is_null()).collect())
    };
    let mut own = Map::new();
    let mut add = |name: &str, value: Value| _ = own.insert(name.to_owned(), value);
    add("model", provenance["model"].clone());
    add("weights", provenance["weights"].clone());
    add("weights_license", provenance["license"].clone());
    add("dimensions", json!(made.dimensions));
    add("scene", provenance["scene"].clone());
    add("source", json!(input.name));
    add("plan", json!(made.plan));
    add("unit", json!(unit.unit));
    if let Some((first, end)) = unit.rows_px {
        add("rows_px", json!([first, end]));
    }
    add("chips", json!(made.chips));

    let source = |file: &PathBuf| source_href(made.store, file);
    let mut links = Vec::new();
    if let Some(item) = &input.stac_item {
        let is_address = item.contains('/') || item.ends_with(".json");
        if is_address {
            links.push(Link::new("derived_from", source(&PathBuf::from(item))).of_type("application/geo+json"));
        }
    }
    if links.is_empty() {
        links.extend(input.files.iter().map(|file| Link::new("derived_from", source(file)).titled(input.name.clone())));
    }
    links.extend(input.files.iter().map(|file| Link::new("emb:source-data", source(file))));
    links.push(Link::new("emb:model", model_href(made.spec)).titled(made.spec.name.clone()));
    let (license, text) = dinov3::spec::license(&made.spec.license);
    if let Some(text) = text {
        links.push(Link::new("license", text).titled(format!("{license}, of the weights")));
    }
    let text = |name: &str| provenance[name].as_str().unwrap_or_default().to_owned();
    Ok(dinov3_stac::item(&ItemFacts {
        id: unit.unit.clone(),
        collection: made.store.name(),
        polygons: footprint.polygons().to_vec(),
        bbox: footprint.bbox(),
        datetime_us: made.datetime_us,
        processed_us: made.processed_us,
        asset: made.asset.clone(),
        size_bytes: made.data.size_bytes,
        sha256: made.data.sha256.clone(),
        software: (text("program"), text("version")),
        projection: scene.epsg().map(|code| format!("EPSG:{code}")),
        shape: [profile.height_px.into(), profile.width_px.into()],
        transform: [transform.a, transform.b, transform.c, transform.d, transform.e, transform.f],
        gsd_m: scene.ground_distance_m().map(rounded),
        runtime_parameters: of_provenance(&[
            "precision",
            "precision_reason",
            "instruction_set",
            "rope_periods",
            "pooling",
            "normalized",
        ]),
        preprocessing: of_provenance(&["preprocess", "scene"]),
        quantization: made.element.quantization(),
        energy: made.energy.clone(),
        own,
        links,
    }))
}

/// To four digits: the pixel's size differs by more over a scene.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// Where a model is described.
fn model_href(spec: &ModelSpec) -> String {
    match spec.hub_ids.first() {
        Some(repository) => format!("https://huggingface.co/{repository}"),
        None => "https://github.com/facebookresearch/dinov3".to_owned(),
    }
}

/// A link from a document in the store to a source: relative where both are on this machine, so that they can be moved
/// together; without secrets.
fn source_href(store: &Store, source: &Path) -> String {
    let text = source.to_string_lossy();
    let path = match text.strip_prefix("file://") {
        Some(path) => PathBuf::from(path),
        None if text.contains("://") => return scene_name(source),
        None => source.to_path_buf(),
    };
    let absolute =
        |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_path_buf());
    let path = absolute(&path);
    store.folder().and_then(|folder| relative(&absolute(folder), &path)).unwrap_or_else(|| {
        let slash = if path.to_string_lossy().starts_with('/') { "" } else { "/" };
        format!("file://{slash}{}", href(&path.to_string_lossy().replace('\\', "/")))
    })
}

/// The way from a folder to a file; nothing where they have no folder in common but the root.
fn relative(folder: &Path, file: &Path) -> Option<String> {
    let parts = |path: &Path| -> Vec<String> {
        let named = path.components().filter(|part| !matches!(part, Component::CurDir));
        named.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let (from, to) = (parts(folder), parts(file));
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if common < 2 {
        return None;
    }
    let up = "../".repeat(from.len() - common);
    let start = if up.is_empty() { "./" } else { "" };
    Some(format!("{start}{up}{}", href(&to[common..].join("/"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_linked_so_that_folders_can_be_moved() {
        let link = |folder: &str, file: &str| relative(Path::new(folder), Path::new(file));
        assert_eq!(link("/data/out", "/data/scenes/a b.tif").unwrap(), "../scenes/a%20b.tif");
        assert_eq!(link("/data", "/data/a.tif").unwrap(), "./a.tif");
        assert_eq!(link("/out", "/data/a.tif"), None);
    }
}
