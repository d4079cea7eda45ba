//! `dinov3 scene map`: one page that shows which places of a scene are alike.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use dinov3::picture::RgbPicture;
use dinov3::pixels::Statistics;
use dinov3::sink::{AtomicFile, ChipFile, ChipFootprint, ChipRow, is_store_name};
use dinov3_map::{Cell, MapCells, MapFacts, MapOptions, MapPage};
use dinov3_scene::geo::{AffineTransform, PixelWindow};
use dinov3_scene::raster::{CrsDefinition, Georeference, Opener, RasterProfile, named_apart};
use dinov3_scene::stac::format_datetime;
use dinov3_scene::{DeclaredBaseline, MaskValues, Preset, Scale, Scene, SceneInput, SceneOptions, is_catalogue};
use serde_json::Value;

use crate::arguments::{DenseArguments, Dims, ModelArguments, SceneEmbedArguments, SceneMapArguments, VectorArguments};
use crate::failure::{Outcome, usage};
use crate::scene::inputs::named_scenes;
use crate::scene::options::refuse_given;
use crate::scene::{dense, opener, scene_options};
use crate::setup::{extension, refuse_overwriting};

/// Runs the command.
pub fn run(arguments: &SceneMapArguments) -> Result<Outcome> {
    if extension(&arguments.output) != "html" {
        return Err(usage(format!("{}: a map is a page, a file that ends in .html", arguments.output.display())));
    }
    refuse_out_of_place(arguments)?;
    let mut options = MapOptions::default();
    options.dims = arguments.dims;
    options.page_limit_bytes = arguments.max_page;
    let read: Vec<PathBuf> = arguments.scene.iter().chain(&arguments.embeddings).cloned().collect();
    refuse_overwriting(&arguments.output, &read)?;
    // Finds out whether it can be written, before the long part.
    drop(AtomicFile::create(&arguments.output)?);
    let Mapped { places, dims, values, scene, facts } = match (&arguments.embeddings, &arguments.model) {
        (Some(file), _) => match extension(file).as_str() {
            "parquet" => of_chips(arguments, file, &options)?,
            "tif" | "tiff" => of_patches(arguments, file, &options)?,
            _ => return Err(no_embeddings(file)),
        },
        (None, Some(model)) => {
            let encoded = Encoded::new(arguments, model)?;
            of_patches(arguments, &encoded.raster, &options)?
        }
        (None, None) => return Err(usage("name the --embeddings of a scene, or a scene and a model, -m")),
    };
    let picture = scene.picture(arguments.overview)?;
    let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
    let north = NorthUp::of(&scene)?;
    let overview = RgbPicture::new(width, height, north.rows(picture.data(), 3 * width))?;
    let cells = places.into_iter().map(|cell| Cell { window: north.window(cell.window), ..cell }).collect();
    let cells = MapCells::new(cells, dims, values)?;
    let told = format!("{} {}", cells.cells().len(), plural(&facts.place, cells.cells().len()));
    let page = MapPage::new(&cells, &north.grid(&scene), &overview, facts, &options)?;
    let recall = match page.recall.at {
        0 => String::new(),
        at => format!(", recall@{at} {:.3}", page.recall.mean),
    };
    let mut file = AtomicFile::create(&arguments.output)?;
    let failed = || arguments.output.display().to_string();
    file.write_all(page.html().as_bytes()).with_context(failed)?;
    file.commit()?;
    eprintln!(
        "{told} of {} in {} dimensions{recall}, {:.1} MB -> {}",
        scene.name(),
        page.dims,
        page.html().len() as f64 / 1e6,
        arguments.output.display()
    );
    Ok(Outcome::Done)
}

/// Options that mean nothing for what is asked for.
fn refuse_out_of_place(arguments: &SceneMapArguments) -> Result<()> {
    let cutting = ["chip", "stride", "edges", "aoi", "grid", "grid_id"];
    refuse_given("map", &cutting, "a map shows chips as 'dinov3 scene embed' has cut them, or patches")?;
    match arguments.embeddings {
        Some(_) => {
            let encoding = ["min_valid", "mean", "std", "batch_size", "strict", "resume", "fresh"];
            refuse_given("map", &encoding, "it goes with a model, -m; what is in --embeddings is made already")
        }
        None => refuse_given("map", &["column"], "it goes with --embeddings"),
    }
}

/// What is said of a file that no map is made of.
fn no_embeddings(path: &Path) -> anyhow::Error {
    let shown = path.display();
    usage(if is_store_name(path) {
        format!("{shown}: a map is not made of Zarr stores: write the vectors as chips, .parquet, or --dense, .tif")
    } else if path.is_dir() || path.to_string_lossy().ends_with('/') {
        format!(
            "{shown} is a folder: name one of its .parquet files, or make one of all with 'dinov3 scene merge --parquet'"
        )
    } else {
        format!("{shown}: --embeddings is a .parquet of chips or a .tif of patches")
    })
}

/// A scene whose first row is the northernmost one, whichever it is stored in.
struct NorthUp {
    height_px: u32,
    is_turned: bool,
}

impl NorthUp {
    fn of(scene: &Scene) -> Result<Self> {
        scene.check_north_up("a map").map_err(|problem| anyhow!("{} {problem}", scene.name()))?;
        Ok(Self { height_px: scene.profile().height_px, is_turned: scene.transform().e > 0.0 })
    }

    fn window(&self, window: PixelWindow) -> PixelWindow {
        match self.is_turned {
            true => PixelWindow { y_px: i64::from(self.height_px) - window.bottom_px(), ..window },
            false => window,
        }
    }

    fn rows(&self, samples: &[u8], row: usize) -> Vec<u8> {
        match self.is_turned {
            true => samples.rchunks(row).flatten().copied().collect(),
            false => samples.to_vec(),
        }
    }

    fn grid(&self, scene: &Scene) -> dinov3_map::Scene {
        let transform = *scene.transform();
        let (_, top) = transform.apply(0.0, f64::from(self.height_px));
        dinov3_map::Scene {
            width_px: scene.profile().width_px,
            height_px: self.height_px,
            transform: match self.is_turned {
                true => AffineTransform { e: -transform.e, f: top, ..transform },
                false => transform,
            },
            crs: scene.crs().clone(),
        }
    }
}

/// What a page is made of.
struct Mapped {
    /// In pixels of the scene as it is stored.
    places: Vec<Cell>,
    dims: usize,
    /// `[places, dims]`.
    values: Vec<f32>,
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
    let scene_options = recorded_options(arguments, provenance, Some(&source))?;
    let opener = opener(&arguments.cut, &arguments.remote);
    let input = scene_input(arguments, &opener, Some(&source), &provenance["scene"], path)?;
    let scene = Scene::open(&opener, &input, &scene_options)?;
    note_other_name(&scene, &source, path);

    let chips = file.read(&source, &arguments.column)?;
    let whole = scene.profile().window();
    let chip_px = provenance["scene"]["chip_px"].as_u64().and_then(|side| u32::try_from(side).ok()).unwrap_or_default();
    let looked_at = chips.rows.len().div_ceil(MOST_COMPARED).max(1);
    let datetime_us = chips.rows.first().and_then(|row| row.datetime_us);
    let mut places = Vec::with_capacity(chips.rows.len());
    for (number, row) in chips.rows.into_iter().enumerate() {
        let side = |side: i32| u32::try_from(side).unwrap_or_default();
        let window = PixelWindow::new(row.x_px.into(), row.y_px.into(), side(row.width_px), side(row.height_px));
        let place = &row;
        if window.is_empty() || !whole.contains(&window) {
            return Err(anyhow!(
                "{} does not lie in {}, which has {} x {} pixels: is it another scene, or at another resolution?",
                place.id,
                scene.name(),
                whole.width_px,
                whole.height_px
            ));
        }
        // Chips end early where the scene does.
        let ends = |start: i64, side_px: u32, end: i64, scene_px: u32| {
            side_px >= chip_px || start == 0 || end == i64::from(scene_px)
        };
        let fits = ends(window.x_px, window.width_px, window.right_px(), whole.width_px)
            && ends(window.y_px, window.height_px, window.bottom_px(), whole.height_px);
        if !fits || number % looked_at == 0 && !lies_there(&row, &scene, &window) {
            return Err(anyhow!(
                "{} does not lie where its pixels lie in {}: is it another scene, or at another resolution?",
                row.id,
                scene.name()
            ));
        }
        places.push(Cell { id: row.id, window });
    }
    let pooling = provenance["columns"][&arguments.column]["pooling"].as_str().unwrap_or_default();
    let datetime = datetime_us.and_then(format_datetime).unwrap_or_default();
    let facts = facts_of(&scene, provenance, "chip", pooling.to_owned(), datetime);
    Ok(Mapped { places, dims: chips.width, values: chips.values, scene, facts })
}

/// Chips whose footprints are computed again, about.
const MOST_COMPARED: usize = 256;

/// Whether a chip's footprint in the file is that of its pixels in the scene, to a quarter of a pixel.
fn lies_there(row: &ChipRow, scene: &Scene, window: &PixelWindow) -> bool {
    let Ok(footprint) = scene.footprint_of_window(window) else { return false };
    let expected = ChipFootprint { wkb: Vec::new(), bbox: footprint.bbox() }.covering();
    let found = row.footprint.covering();
    let pixel = [
        (expected[2] - expected[0]) / f64::from(window.width_px),
        (expected[3] - expected[1]) / f64::from(window.height_px),
    ];
    row.epsg == scene.epsg()
        && (0..4).all(|side| (found[side] - expected[side]).abs() <= pixel[side % 2].abs() / 4.0 + 1e-12)
}

/// Another name may be another date, which nothing else tells.
fn note_other_name(scene: &Scene, source: &str, embeddings: &Path) {
    let last = |name: &str| name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    if last(scene.name()) != last(source) {
        eprintln!("note: {} is of {source}; the picture is that of {}", embeddings.display(), scene.name());
    }
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
    let source = provenance["dense"]["source"].as_str();
    let scene_options = recorded_options(arguments, &provenance, source)?;
    let input = scene_input(arguments, &opener, source, &provenance["scene"], path)?;
    let scene = Scene::open(&opener, &input, &scene_options)?;
    if let Some(source) = source {
        note_other_name(&scene, source, path);
    }
    let to_scene = cells_to_scene(profile, &scene)?;
    let whole = scene.profile().window();

    let mut places = Vec::with_capacity(count);
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
            places.push(Cell { id: format!("{}#xywh={x_px},{y_px},{width_px},{height_px}", scene.name()), window });
        }
    }
    let tap = provenance["taps"][0].as_str().unwrap_or_default();
    let made_of = match provenance["pca"]["components"].as_u64() {
        Some(count) => format!("patch tokens of {tap}, {count} principal components, about their mean"),
        None => format!("patch tokens of {tap}"),
    };
    let datetime = provenance["dense"]["datetime"].as_str().unwrap_or_default().to_owned();
    let facts = facts_of(&scene, &provenance, "patch", made_of, datetime);
    Ok(Mapped { places, dims, values, scene, facts })
}

/// From the cells of a raster of patches to the pixels of its scene, which it covers in the same reference system.
fn cells_to_scene(profile: &RasterProfile, scene: &Scene) -> Result<AffineTransform> {
    let shown = &profile.location;
    let transform = profile.georeference.transform().ok_or_else(|| anyhow!("{shown} does not say where it lies"))?;
    let to_scene = scene.transform().inverse()?.compose(transform);
    let (scene_width, scene_height) = (scene.profile().width_px, scene.profile().height_px);
    // The same pixels of cells along both axes, from a corner of the scene to the last one with a part in it.
    let cell_px = to_scene.a;
    let covers = |cells: u32, pixels: u32| f64::from(cells) == (f64::from(pixels) / cell_px - 1e-3).ceil();
    let is_near = |found: f64, expected: f64| (found - expected).abs() <= 0.01 * cell_px;
    let top_px = if to_scene.e < 0.0 { f64::from(profile.height_px) * cell_px } else { 0.0 };
    let fits = cell_px >= 1.0
        && is_near(to_scene.e.abs(), cell_px)
        && [to_scene.b, to_scene.d, to_scene.c].iter().all(|&rest| is_near(rest, 0.0))
        && is_near(to_scene.f, top_px)
        && covers(profile.width_px, scene_width)
        && covers(profile.height_px, scene_height);
    let code = match &profile.georeference {
        Georeference::Located { crs: CrsDefinition::Epsg(code), .. } => i32::try_from(*code).ok(),
        _ => None,
    };
    let is_same_system = code.zip(scene.epsg()).is_none_or(|(code, own)| code == own);
    match fits && is_same_system {
        true => Ok(to_scene),
        false => Err(anyhow!(
            "{shown} has {} x {} cells that do not cover {}, of {scene_width} x {scene_height} pixels: is it of another \
             scene, or of another resolution?",
            profile.width_px,
            profile.height_px,
            scene.name()
        )),
    }
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
        // Somebody else's: what it leads to would be replaced.
        if std::fs::symlink_metadata(&encoded.raster).is_ok_and(|found| !found.is_file()) {
            let path = encoded.raster.display().to_string();
            // It stays.
            std::mem::forget(encoded);
            return Err(anyhow!("{path}: exists and is no file, where the patches are kept for a while: remove it"));
        }
        let arguments_of_dense = SceneEmbedArguments {
            inputs: vec![scene.clone()],
            model: model.clone(),
            vectors: VectorArguments { pool: Vec::new(), normalize: false, embedding_type: Default::default() },
            batch: arguments.batch.clone(),
            journal: arguments.journal.clone(),
            datetime: None,
            format: None,
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
                pca_basis: None,
                picture: None,
                no_picture: true,
            },
        };
        match dense::run_for(&arguments_of_dense, &arguments.output)? {
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
    recorded: &Value,
    embeddings: &Path,
) -> Result<SceneInput> {
    let mut cut = arguments.cut.clone();
    let inputs: Vec<PathBuf> = match (&arguments.scene, source) {
        (Some(scene), _) => vec![scene.clone()],
        (None, _) if !cut.band_files.is_empty() => Vec::new(),
        (None, Some(source)) => {
            let files = found_beside(source, embeddings)?;
            if files.len() > 1 {
                return Ok(SceneInput { name: source.to_owned(), ..SceneInput::of_files(files) });
            }
            files
        }
        (None, None) => {
            return Err(usage(format!("{} does not say which scene it is of: name it", embeddings.display())));
        }
    };
    // As the scene was named for the embeddings.
    if cut.assets.is_empty() && inputs.first().is_some_and(|input| is_catalogue(input)) {
        cut.assets = serde_json::from_value(recorded["assets"].clone()).unwrap_or_default();
    }
    let mut scenes = named_scenes(opener, &inputs, &cut)?.scenes;
    if scenes.len() > 1
        && let Some(source) = source
    {
        scenes.retain(|scene| scene.name == source);
    }
    match scenes.len() {
        1 => Ok(scenes.remove(0)),
        0 => Err(usage(format!("none of these scenes is {}", source.unwrap_or_default()))),
        count => Err(usage(format!("these are {count} scenes: name one"))),
    }
}

/// Where the files of a scene are that a file of embeddings names: there, or beside the embeddings.
fn found_beside(source: &str, embeddings: &Path) -> Result<Vec<PathBuf>> {
    let names = match Path::new(source).exists() {
        // Braces are a part of its name.
        true => vec![source.to_owned()],
        false => named_apart(source),
    };
    let found = |name: &String| {
        let named = PathBuf::from(name);
        if name.contains("://") || named.exists() {
            return Some(named);
        }
        let beside = embeddings.parent()?.join(named.file_name()?);
        beside.exists().then_some(beside)
    };
    names.iter().map(found).collect::<Option<_>>().ok_or_else(|| {
        let embeddings = embeddings.display();
        usage(match names.len() {
            1 => format!("{embeddings} is of {source}, which is not there: name the scene where it is now"),
            _ => format!(
                "{embeddings} is of {source}, which are not all there: name the files of its bands where they are now, \
                 --band-files R,G,B"
            ),
        })
    })
}

/// How the scene was read for the chips, where the command line does not say otherwise.
fn recorded_options(arguments: &SceneMapArguments, provenance: &Value, source: Option<&str>) -> Result<SceneOptions> {
    let recorded = &provenance["scene"];
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
    if options.baseline.is_none() && options.preset == Some(Preset::Sentinel2L2a) {
        options.baseline = recorded_offset(&provenance["scenes"], source);
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

/// What was found of Sentinel-2's offset when the chips were made: by an item, maybe, or a file that is not here.
fn recorded_offset(scenes: &Value, source: Option<&str>) -> Option<DeclaredBaseline> {
    let scene = scenes.as_array()?.iter().find(|scene| scene["scene"].as_str() == source)?;
    let baseline = if scene["reflectance"].as_str()?.starts_with("(DN - 1000)") { "04.00" } else { "harmonized" };
    DeclaredBaseline::parse(baseline).ok()
}

/// What the page tells.
fn facts_of(scene: &Scene, provenance: &Value, place: &str, pooling: String, datetime: String) -> MapFacts {
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
        datetime,
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
