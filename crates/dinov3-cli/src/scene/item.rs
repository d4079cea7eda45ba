//! The STAC item of a unit: from what a run knows to what `dinov3-stac` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use dinov3::ModelSpec;
use dinov3::sink::{ElementType, FeatureGrid, WorkUnit};
use dinov3_scene::geo::AffineTransform;
use dinov3_scene::{Scene, SceneInput, scene_name};
use dinov3_stac::{AssetFacts, EMBEDDINGS_ASSET, GridFacts, ItemFacts, Link, href, relative_href, uri_of};
use serde_json::{Map, Value, json};

use crate::scene::form::{COG, Form};
use crate::scene::marker::Counts;
use crate::scene::store::{FileFacts, Store, without_file_scheme};

/// What an item is made of.
pub struct Made<'a> {
    pub store: &'a Store,
    pub unit: &'a WorkUnit,
    pub input: &'a SceneInput,
    pub scene: &'a Scene,
    pub spec: &'a ModelSpec,
    pub form: Form,
    /// Where the model is described.
    pub model_uri: String,
    pub provenance: &'a Value,
    pub plan: String,
    pub counts: Counts,
    pub element: ElementType,
    pub assets: Vec<AssetFacts>,
    pub energy: Option<Value>,
    pub processed_us: i64,
}

/// The asset of the embeddings, as it also stands in the metadata of a table of chips.
pub fn embeddings_asset(form: Form, unit: &WorkUnit) -> Value {
    let title = format!("Embeddings of {}", unit.scene);
    content(&form.data_of(&unit.unit), form.media_type(), json!(["data"]), &title)
}

fn content(name: &str, media_type: &str, roles: Value, title: &str) -> Value {
    json!({"href": format!("./{}", href(name)), "type": media_type, "roles": roles, "title": title})
}

/// What a unit's item leads to: those of these files that are there. `cells` is the grid of a raster of embeddings.
pub fn assets(
    form: Form,
    unit: &WorkUnit,
    files: &BTreeMap<String, FileFacts>,
    cells: Option<&FeatureGrid>,
) -> Vec<AssetFacts> {
    let grid = cells.map(|cells| grid_facts(&cells.north_up().0));
    let data = form.data_of(&unit.unit);
    let within = format!("{data}/");
    let of_data = || files.iter().filter(|(name, _)| **name == data || name.starts_with(&within));
    let mut assets = vec![AssetFacts {
        key: EMBEDDINGS_ASSET,
        content: embeddings_asset(form, unit),
        size_bytes: of_data().map(|(_, facts)| facts.size_bytes).sum(),
        sha256: files.get(&data).map(|facts| facts.sha256.clone()),
        grid: grid.clone(),
    }];
    let Some(beside) = form.beside_data_of(&unit.unit) else { return assets };
    let mut add = |key: &'static str, name: &str, content: Value, grid: Option<GridFacts>| {
        if let Some(FileFacts { size_bytes, sha256 }) = files.get(name) {
            assets.push(AssetFacts { key, content, size_bytes: *size_bytes, sha256: Some(sha256.clone()), grid });
        }
    };
    let roles = json!(["overview", "visual"]);
    let title = format!("The first three principal components of {}, as colours", unit.scene);
    add("picture", &beside.picture, content(&beside.picture, COG, roles, &title), grid);
    let title = "Mean and directions of the principal components, as safetensors";
    add("basis", &beside.basis, content(&beside.basis, "application/octet-stream", json!(["metadata"]), title), None);
    assets
}

fn grid_facts(grid: &FeatureGrid) -> GridFacts {
    let AffineTransform { a, b, c, d, e, f } = grid.transform;
    GridFacts {
        code: grid.crs.epsg().map(|code| format!("EPSG:{code}")),
        shape: [grid.height_px.into(), grid.width_px.into()],
        transform: [a, b, c, d, e, f],
    }
}

/// The item.
///
/// # Errors
/// If a part of the scene lies nowhere on the Earth.
pub fn item(made: &Made<'_>) -> Result<Value> {
    let Made { scene, unit, input, provenance, .. } = made;
    let footprint = scene.footprint_of_rows(unit.rows_px)?;
    let of_provenance = |names: &[&str]| -> Value {
        let fields = names.iter().map(|name| ((*name).to_owned(), provenance[*name].clone()));
        Value::Object(fields.filter(|(_, value)| !value.is_null()).collect())
    };
    let mut own = Map::new();
    let mut add = |name: &str, value: Value| _ = own.insert(name.to_owned(), value);
    add("model", provenance["model"].clone());
    add("weights", provenance["weights"].clone());
    add("weights_license", provenance["license"].clone());
    // Along components there are as many values as these.
    let components = provenance["pca"]["components"].as_u64();
    add("dimensions", json!(components.unwrap_or(made.spec.embed_dim() as u64)));
    add("data_type", json!(made.element.numpy_name()));
    add("scene", provenance["scene"].clone());
    add("source", json!(input.name));
    add("plan", json!(made.plan));
    add("unit", json!(unit.unit));
    if let Some((first, end)) = unit.rows_px {
        add("rows_px", json!([first, end]));
    }
    add(made.form.items(), json!(made.counts));

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
        // Without a time no unit is made that has an item.
        datetime_us: scene.datetime_us().unwrap_or_default(),
        processed_us: made.processed_us,
        assets: made.assets.clone(),
        software: (text("program"), text("version")),
        grid: grid_facts(&scene.pixel_grid()),
        gsd_m: scene.ground_distance_m().map(rounded),
        runtime_parameters: of_provenance(&[
            "precision",
            "precision_reason",
            "instruction_set",
            "rope_periods",
            "pooling",
            "taps",
            "norm",
            "dense",
            "normalized",
        ]),
        preprocessing: of_provenance(&["preprocess", "scene", "scenes", "resampled"]),
        postprocessing: components.map(|_| of_provenance(&["pca"])),
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
