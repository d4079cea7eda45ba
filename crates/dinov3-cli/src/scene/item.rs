//! The STAC item of a unit: from what a run knows to what `dinov3-stac` writes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use dinov3::ModelSpec;
use dinov3::sink::{ElementType, WorkUnit};
use dinov3_scene::{Scene, SceneInput, scene_name};
use dinov3_stac::{ItemFacts, Link, href, relative_href, uri_of};
use serde_json::{Map, Value, json};

use crate::scene::store::{Store, data_of, without_file_scheme};
use crate::scene::units::{Chips, FileFacts};

/// What an item is made of.
pub struct Made<'a> {
    pub store: &'a Store,
    pub unit: &'a WorkUnit,
    pub input: &'a SceneInput,
    pub scene: &'a Scene,
    pub spec: &'a ModelSpec,
    /// Where the model is described.
    pub model_uri: String,
    /// numpy's name of the type of stored values.
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
    add("data_type", json!(made.element.numpy_name()));
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
    links.push(Link::new("emb:model", made.model_uri.clone()).titled(made.spec.name.clone()));
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
        preprocessing: of_provenance(&["preprocess", "scene", "scenes", "resampled"]),
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

/// A link from a document in the store to a source: relative where both are on this machine, so that they can be moved
/// together; without secrets.
pub fn source_href(store: &Store, source: &Path) -> String {
    let path = without_file_scheme(source.to_path_buf());
    match path.to_string_lossy() {
        text if text.contains("://") => scene_name(&path),
        _ => store
            .folder()
            .and_then(|folder| way(folder, &path))
            .unwrap_or_else(|| uri_of(&real(&path).to_string_lossy())),
    }
}

/// A link from a document in a folder to a file of this machine; nothing where they have no folder in common but the root.
pub fn way(folder: &Path, file: &Path) -> Option<String> {
    relative_href(&real(folder), &real(file))
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_path_buf())
}
