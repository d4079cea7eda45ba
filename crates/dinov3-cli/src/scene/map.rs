//! `dinov3 scene map`: one page that shows which places of a scene are alike.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use dinov3::picture::RgbPicture;
use dinov3::pixels::Statistics;
use dinov3::sink::{AtomicFile, VectorFile};
use dinov3_map::{Cell, MapCells, MapFacts, MapOptions, MapPage};
use dinov3_scene::geo::{AffineTransform, PixelWindow};
use dinov3_scene::raster::Opener;
use dinov3_scene::{DeclaredBaseline, MaskValues, Preset, Scale, Scene, SceneInput, SceneOptions};
use serde_json::Value;

use crate::arguments::{DenseArguments, Dims, ModelArguments, SceneEmbedArguments, SceneMapArguments, VectorArguments};
use crate::failure::{Outcome, usage};
use crate::scene::inputs::named_scenes;
use crate::scene::{dense, opener, scene_options};
use crate::setup::{extension, refuse_overwriting};

/// Runs the command.
pub fn run(arguments: &SceneMapArguments) -> Result<Outcome> {
    if extension(&arguments.output) != "html" {
        return Err(usage(format!("{}: a map is a page, a file that ends in .html", arguments.output.display())));
    }
    let mut options = MapOptions::default();
    options.dims = arguments.dims;
    options.page_limit_bytes = arguments.max_page;
    let read: Vec<PathBuf> = arguments.scene.iter().chain(&arguments.embeddings).cloned().collect();
    refuse_overwriting(&arguments.output, &read)?;
    // Finds out whether it can be written, before the long part.
    drop(AtomicFile::create(&arguments.output)?);
    let Mapped { cells, scene, facts } = match (&arguments.embeddings, &arguments.model) {
        (Some(file), _) => match extension(file).as_str() {
            "parquet" => of_chips(arguments, file, &options)?,
            "tif" | "tiff" => of_patches(arguments, file, &options)?,
            _ => {
                return Err(usage(format!(
                    "{}: --embeddings is a .parquet of chips or a .tif of patches",
                    file.display()
                )));
            }
        },
        (None, Some(model)) => {
            let encoded = Encoded::new(arguments, model)?;
            of_patches(arguments, &encoded.raster, &options)?
        }
        (None, None) => return Err(usage("name the --embeddings of a scene, or a scene and a model, -m")),
    };
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
    let mut file = AtomicFile::create(&arguments.output)?;
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
    let file = VectorFile::open(path)?;
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
    let scene_options = recorded_options(arguments, &provenance["scene"])?;
    let opener = opener(&arguments.cut, &arguments.remote);
    let input = scene_input(arguments, &opener, Some(&source), path)?;
    let scene = Scene::open(&opener, &input, &scene_options)?;

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
    let pooling = provenance["columns"][&arguments.column]["pooling"].as_str().unwrap_or_default();
    let facts = facts_of(&scene, &provenance, "chip", pooling.to_owned());
    Ok(Mapped { cells: MapCells::new(cells, chips.width, chips.values)?, scene, facts })
}

/// Values of patches that are read at once.
const READ_VALUES: usize = 16 << 20;
/// Most values of patches that are held: 4 GiB.
const MOST_VALUES: usize = 1 << 30;

/// Patches of a scene in a raster.
fn of_patches(arguments: &SceneMapArguments, path: &Path, options: &MapOptions) -> Result<Mapped> {
    let opener = opener(&arguments.cut, &arguments.remote);
    let shown = path.display();
    let raster = opener.open(&path.to_string_lossy()).map_err(dinov3_scene::SceneError::from)?;
    let profile = raster.profile();
    let (columns, rows, dims) = (profile.width_px as usize, profile.height_px as usize, profile.bands.len());
    if !profile.sample_type.is_float() {
        return Err(anyhow!("{shown} has {} samples, as pictures have, and no features", profile.sample_type.name()));
    }
    let count = columns.saturating_mul(rows);
    options.check(count, dims)?;
    if count.saturating_mul(dims) > MOST_VALUES {
        return Err(anyhow!("{shown}: {count} vectors of {dims} values are more than can be held"));
    }
    let text = profile.metadata.get("dinov3");
    let provenance: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let scene_options = recorded_options(arguments, &provenance["scene"])?;
    let input = scene_input(arguments, &opener, provenance["dense"]["source"].as_str(), path)?;
    let scene = Scene::open(&opener, &input, &scene_options)?;
    let transform = profile.georeference.transform().ok_or_else(|| anyhow!("{shown} does not say where it lies"))?;
    let to_scene = scene.transform().inverse()?.compose(transform);
    let whole = scene.profile().window();

    let mut cells = Vec::with_capacity(count);
    let mut values = Vec::with_capacity(count * dims);
    let bands: Vec<usize> = (0..dims).collect();
    let at_once = (READ_VALUES / (columns * dims).max(1)).max(1);
    for top in (0..rows).step_by(at_once) {
        let window = PixelWindow::new(0, top as i64, columns as u32, at_once.min(rows - top) as u32);
        let read = raster.read(window, &bands).map_err(dinov3_scene::SceneError::from)?;
        let band = read.valid.len();
        for (at, _) in read.valid.iter().enumerate().filter(|(_, valid)| **valid) {
            let vector = bands.iter().map(|&index| read.samples.get(index * band + at) as f32);
            let start = values.len();
            values.extend(vector);
            if values[start..].iter().any(|value| !value.is_finite()) {
                values.truncate(start);
                continue;
            }
            let window =
                scene_window(&to_scene, at % columns, top + at / columns).and_then(|cell| cell.intersection(&whole));
            let Some(window) = window else {
                return Err(anyhow!("{shown} is not on the grid of {}", scene.name()));
            };
            let PixelWindow { x_px, y_px, width_px, height_px } = window;
            cells.push(Cell { id: format!("{}#xywh={x_px},{y_px},{width_px},{height_px}", scene.name()), window });
        }
    }
    let tap = provenance["taps"][0].as_str().unwrap_or_default();
    let made_of = match provenance["pca"]["components"].as_u64() {
        Some(count) => format!("patch tokens of {tap}, {count} principal components, about their mean"),
        None => format!("patch tokens of {tap}"),
    };
    let facts = facts_of(&scene, &provenance, "patch", made_of);
    Ok(Mapped { cells: MapCells::new(cells, dims, values)?, scene, facts })
}

/// The pixels of the scene that a cell covers; nothing if it is turned against them, or covers none.
fn scene_window(to_scene: &AffineTransform, column: usize, row: usize) -> Option<PixelWindow> {
    let (column, row) = (column as f64, row as f64);
    let (a, b) = (to_scene.apply(column, row), to_scene.apply(column + 1.0, row + 1.0));
    let across = to_scene.apply(column + 1.0, row);
    let is_turned = (across.1 - a.1).abs() > 0.01 || (across.0 - b.0).abs() > 0.01;
    let (left, right) = (a.0.min(b.0).round(), a.0.max(b.0).round());
    let (top, bottom) = (a.1.min(b.1).round(), a.1.max(b.1).round());
    let is_some = right > left && bottom > top && [left, top].iter().all(|edge| edge.abs() < 1e9);
    (is_some && !is_turned)
        .then(|| PixelWindow::new(left as i64, top as i64, (right - left) as u32, (bottom - top) as u32))
}

/// The patches of a scene, encoded into a hidden file that goes with this.
struct Encoded {
    raster: PathBuf,
}

impl Encoded {
    fn new(arguments: &SceneMapArguments, model: &ModelArguments) -> Result<Self> {
        let Some(scene) = &arguments.scene else {
            return Err(usage("name the scene that the model shall encode"));
        };
        let name = arguments.output.file_name().unwrap_or_default().to_string_lossy();
        let encoded = Self { raster: arguments.output.with_file_name(format!(".{name}.patches.tif")) };
        let outcome = dense::run(&SceneEmbedArguments {
            inputs: vec![scene.clone()],
            model: model.clone(),
            vectors: VectorArguments { pool: Vec::new(), normalize: false, embedding_type: Default::default() },
            batch: arguments.batch.clone(),
            journal: arguments.journal.clone(),
            datetime: None,
            format: Default::default(),
            scratch: None,
            output: encoded.raster.clone(),
            remote: arguments.remote.clone(),
            scene: arguments.cut.clone(),
            dense: DenseArguments {
                dense: true,
                dense_step: 16,
                window: 512,
                overlap: 128,
                // The page has its own components, which keep cosines about zero.
                dims: Dims::All,
                f16: false,
                pca_basis: None,
                picture: None,
                no_picture: true,
            },
        })?;
        match outcome {
            Outcome::Done => Ok(encoded),
            Outcome::SomeFailed => Err(anyhow!("parts of {} could not be encoded", scene.display())),
        }
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = std::fs::remove_file(&self.raster);
    }
}

/// The scene that is named, or else the one that a file of embeddings says that it is of.
fn scene_input(
    arguments: &SceneMapArguments,
    opener: &Opener,
    source: Option<&str>,
    embeddings: &Path,
) -> Result<SceneInput> {
    let location = match (&arguments.scene, source) {
        (Some(scene), _) => Some(scene.clone()),
        (None, _) if !arguments.cut.band_files.is_empty() => None,
        (None, Some(source)) => Some(found_beside(source, embeddings)?),
        (None, None) => {
            return Err(usage(format!("{} does not say which scene it is of: name it", embeddings.display())));
        }
    };
    let inputs: Vec<PathBuf> = location.into_iter().collect();
    let mut scenes = named_scenes(opener, &inputs, &arguments.cut)?.scenes;
    match scenes.len() {
        1 => Ok(scenes.remove(0)),
        count => Err(usage(format!("these are {count} scenes: name one"))),
    }
}

/// Where a scene is that a file of embeddings names: there, or beside the file.
fn found_beside(source: &str, embeddings: &Path) -> Result<PathBuf> {
    let named = PathBuf::from(source);
    if source.contains("://") || named.exists() {
        return Ok(named);
    }
    let beside = named.file_name().zip(embeddings.parent()).map(|(name, folder)| folder.join(name));
    beside.filter(|path| path.exists()).ok_or_else(|| {
        let embeddings = embeddings.display();
        usage(format!("{embeddings} is of {source}, which is not there: name the scene where it is now"))
    })
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
    let text = |name: &str| recorded[name].as_str();
    if options.preset.is_none() {
        options.preset = text("preset").and_then(|name| Preset::parse(name).ok());
    }
    if options.baseline.is_none() {
        options.baseline = text("baseline").and_then(|baseline| DeclaredBaseline::parse(baseline).ok());
    }
    if options.mask_values.is_none() {
        options.mask_values = text("mask_values").and_then(|values| MaskValues::parse(values).ok());
    }
    if options.gsd_m.is_none() {
        options.gsd_m = recorded["gsd_m"].as_f64();
    }
    if options.crs.is_none() {
        options.crs = recorded["crs"].as_str().and_then(|text| text.parse().ok());
    }
    Ok(options)
}

/// What the page tells.
fn facts_of(scene: &Scene, provenance: &Value, place: &str, pooling: String) -> MapFacts {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let crs = scene.crs();
    let [red, green, blue] = scene.rgb_bands();
    let made_by = match (provenance["program"].as_str(), provenance["version"].as_str()) {
        (Some(program), Some(version)) => format!("{program} {version}"),
        _ => String::new(),
    };
    MapFacts {
        scene: scene.name().to_owned(),
        place: place.to_owned(),
        model: text(&provenance["model"]),
        weights: weights_text(&provenance["weights"]),
        precision: text(&provenance["precision"]),
        pooling,
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
