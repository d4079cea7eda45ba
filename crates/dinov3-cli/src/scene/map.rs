//! `dinov3 scene map`: one page that shows which places of a scene are alike.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use dinov3::picture::RgbPicture;
use dinov3::pixels::Statistics;
use dinov3::sink::{AtomicFile, ChipFile};
use dinov3_map::{Cell, MapCells, MapFacts, MapOptions, MapPage};
use dinov3_scene::geo::PixelWindow;
use dinov3_scene::{Scale, Scene, SceneInput, SceneOptions};
use serde_json::Value;

use crate::arguments::SceneMapArguments;
use crate::failure::{Outcome, usage};
use crate::scene::{opener, scene_options};
use crate::setup::{extension, refuse_overwriting};

/// Runs the command.
pub fn run(arguments: &SceneMapArguments) -> Result<Outcome> {
    if extension(&arguments.output) != "html" {
        return Err(usage(format!("{}: a map is a page, a file that ends in .html", arguments.output.display())));
    }
    let mut options = MapOptions::default();
    options.dims = arguments.dims;
    options.page_limit_bytes = arguments.max_page;
    let Some(embeddings) = &arguments.embeddings else {
        return Err(usage("--embeddings: name a file of chips that 'dinov3 scene embed' wrote"));
    };
    let read: Vec<PathBuf> = arguments.scene.iter().chain([embeddings]).cloned().collect();
    refuse_overwriting(&arguments.output, &read)?;
    // Finds out whether it can be written, before the long part.
    let mut file = AtomicFile::create(&arguments.output)?;
    let Mapped { cells, scene, facts } = of_chips(arguments, embeddings, &options)?;
    let picture = scene.picture(arguments.overview)?;
    let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
    let overview = RgbPicture::new(width, height, picture.data().to_vec())?;
    let grid = dinov3_map::Scene {
        width_px: scene.profile().width_px,
        height_px: scene.profile().height_px,
        transform: *scene.transform(),
        crs: scene.crs().clone(),
    };
    let places = format!("{} {}", cells.cells().len(), plural(&facts.place, cells.cells().len()));
    let page = MapPage::new(&cells, &grid, &overview, facts, &options)?;
    let failed = || arguments.output.display().to_string();
    file.write_all(page.html().as_bytes()).with_context(failed)?;
    file.commit()?;
    eprintln!(
        "{places} of {} in {} dimensions, recall@{} {:.3}, {:.1} MB -> {}",
        scene.name(),
        page.dims,
        page.recall.at,
        page.recall.mean,
        page.html().len() as f64 / 1e6,
        arguments.output.display()
    );
    Ok(Outcome::Done)
}

/// What a page is made of.
struct Mapped {
    cells: MapCells,
    scene: std::sync::Arc<Scene>,
    facts: MapFacts,
}

/// Chips of one scene in a file.
fn of_chips(arguments: &SceneMapArguments, path: &Path, options: &MapOptions) -> Result<Mapped> {
    let file = ChipFile::open(path)?;
    let width = file.width(&arguments.column)?;
    let sources = file.sources()?;
    let named = arguments.scene.as_ref().map(|scene| SceneInput::from(scene.clone()).name);
    let source = match (&named, sources.len()) {
        (_, 0) => return Err(anyhow!("{} has no chips", path.display())),
        (_, 1) => sources.keys().next().cloned().unwrap_or_default(),
        (Some(name), _) if sources.contains_key(name) => name.clone(),
        _ => {
            let some: Vec<&str> = sources.keys().map(String::as_str).take(3).collect();
            return Err(usage(format!(
                "{} has chips of {} scenes: name the one to map, as {}",
                path.display(),
                sources.len(),
                some.join(" or "),
            )));
        }
    };
    options.check(sources.get(&source).copied().unwrap_or_default(), width)?;
    let provenance = file.provenance();
    let location = arguments.scene.clone().unwrap_or_else(|| found_beside(&source, path));
    let scene_options = recorded_options(arguments, &provenance["scene"])?;
    let opener = opener(&arguments.cut, &arguments.remote);
    let scene = Scene::open(&opener, &SceneInput::from(location), &scene_options)?;

    let chips = file.read(Some(&source), &arguments.column)?;
    let whole = scene.profile().window();
    let mut cells = Vec::with_capacity(chips.places.len());
    for place in chips.places {
        let [x_px, y_px, width_px, height_px] = place.window_px;
        let side = |side: i32| u32::try_from(side).unwrap_or_default();
        let window = PixelWindow::new(x_px.into(), y_px.into(), side(width_px), side(height_px));
        if window.is_empty() || !whole.contains(&window) {
            return Err(anyhow!(
                "{} does not lie in {}, which has {} x {} pixels: is it another scene, or at another resolution?",
                place.id,
                scene.name(),
                whole.width_px,
                whole.height_px
            ));
        }
        cells.push(Cell { id: place.id, window });
    }
    let facts = facts_of(&scene, &provenance, &arguments.column);
    Ok(Mapped { cells: MapCells::new(cells, chips.width, chips.values)?, scene, facts })
}

/// Where a scene is that a file of chips names: there, or beside the file.
fn found_beside(source: &str, chips: &Path) -> PathBuf {
    let named = PathBuf::from(source);
    if named.exists() || source.contains("://") {
        return named;
    }
    let beside = named.file_name().zip(chips.parent()).map(|(name, folder)| folder.join(name));
    beside.filter(|path| path.exists()).unwrap_or(named)
}

/// How the scene was read for the chips, where the command line does not say otherwise.
fn recorded_options(arguments: &SceneMapArguments, recorded: &Value) -> Result<SceneOptions> {
    let mut options = scene_options(&arguments.cut, Statistics::SATELLITE, None)?;
    if options.bands.is_none() {
        options.bands = serde_json::from_value(recorded["bands"].clone()).ok().flatten();
    }
    if options.scale.is_none() {
        options.scale = recorded["scale"].as_str().and_then(|text| Scale::parse(text).ok());
    }
    if options.crs.is_none() {
        options.crs = recorded["crs"].as_str().and_then(|text| text.parse().ok());
    }
    Ok(options)
}

/// What the page tells.
fn facts_of(scene: &Scene, provenance: &Value, column: &str) -> MapFacts {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let crs = scene.crs();
    let [red, green, blue] = scene.rgb_bands();
    let made_by = match (provenance["program"].as_str(), provenance["version"].as_str()) {
        (Some(program), Some(version)) => format!("{program} {version}"),
        _ => String::new(),
    };
    MapFacts {
        scene: scene.name().to_owned(),
        place: "chip".to_owned(),
        model: text(&provenance["model"]),
        weights: weights_text(&provenance["weights"]),
        precision: text(&provenance["precision"]),
        pooling: text(&provenance["columns"][column]["pooling"]),
        bands: format!("{red}, {green}, {blue}"),
        scale: scene.scale().to_string(),
        crs: match (crs.epsg(), crs.name()) {
            (Some(code), Some(name)) => format!("EPSG:{code} ({name})"),
            _ => crs.to_string(),
        },
        datetime: String::new(),
        made_by,
    }
}

/// Which weights, for people: their SHA-256, or what made them.
fn weights_text(weights: &Value) -> String {
    match (&weights["synthetic"], &weights["files"]) {
        (Value::String(seed), _) => seed.clone(),
        (_, Value::Array(files)) => {
            let hashes: Vec<String> =
                files.iter().filter_map(|file| Some(format!("sha256 {}", file["sha256"].as_str()?))).collect();
            hashes.join(", ")
        }
        _ => String::new(),
    }
}

fn plural(place: &str, count: usize) -> String {
    match (place, count) {
        (_, 1) => place.to_owned(),
        ("patch", _) => "patches".to_owned(),
        _ => format!("{place}s"),
    }
}
