//! Patches of a scene as one raster: `dinov3 scene embed --dense`, and the units of jobs that are made so.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use dinov3::ModelSpec;
use dinov3::checkpoint::hash::sha256;
use dinov3::pca::{Origin, Pca};
use dinov3::sink::{
    CogFile, CogOptions, CogSample, DenseStoreOptions, ElementType, FeatureRaster, Journal, JournaledSource,
    OutputError, PatchSink, PatchWindows, ReducedRaster, fit_components, is_store_name, write_components_picture,
    write_dense_store,
};
use dinov3_scene::{DenseCut, DenseSource, Scene, SceneSource};
use serde_json::{Value, json};

use crate::arguments::{DenseArguments, Dims, SceneEmbedArguments};
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::features::{weights_name, write_whole};
use crate::resume::{agree, note_missing, open_journal};
use crate::scene::embed::model_uri;
use crate::scene::form::{BesidePatches, Form};
use crate::scene::inputs::{as_paths, named_scenes};
use crate::scene::job::{Job, Machine, Task, last_block};
use crate::scene::reports::SceneReports;
use crate::scene::store::Store;
use crate::scene::zarr_plan;
use crate::setup::{extension, place_of, refuse_overwriting, refuse_overwriting_inputs, weight_files};

/// The picture needs as many.
const PICTURE_COMPONENTS: usize = 3;
const NO_SCALES: &str = "--embedding-type int8: a GeoTIFF has no scale per cell; use f16, or write a Zarr store, .zarr";

/// One raster of one scene: `shown` is what a person knows as the output.
pub fn run_for(arguments: &SceneEmbedArguments, shown: &Path) -> Result<Outcome> {
    let job = Job::new(arguments)?;
    match &job.task {
        Task::Patches(cut) => run(&job, *cut, shown),
        Task::Chips(_) => Err(anyhow!("chips are no patches")),
    }
}

/// The same of a command that is known.
pub fn run(job: &Job<'_>, cut: DenseCut, shown: &Path) -> Result<Outcome> {
    let arguments = job.arguments;
    // Everything that can be wrong with the command line is found before the weights are read.
    let outputs = Outputs::named(&arguments.output, &arguments.dense, job.element())?;
    let inputs = as_paths(arguments.inputs.clone());
    outputs.written().try_for_each(|output| refuse_overwriting_inputs(output, &inputs))?;
    let named = named_scenes(&job.opener, &arguments.inputs, &arguments.scene)?;
    outputs.written().try_for_each(|output| refuse_overwriting_inputs(output, &named.files()))?;
    if named.scenes.len() != 1 {
        return Err(usage(format!(
            "--dense makes one raster of one scene, and there are {}: name a folder, OUT/, for a raster of each",
            named.scenes.len()
        )));
    }
    zarr_plan::refuse_store_of_plan(&arguments.output, arguments.journal.fresh)?;
    let mut journal = open_journal(&arguments.output, &arguments.journal)?;
    let mut scenes = SceneSource::new(named.scenes, job.opener.clone(), job.options.clone());
    let reports = SceneReports::of(&mut scenes);
    scenes.survey();
    let scene = scenes.scene(0)?;
    scene.measured()?;
    let form = if is_store_name(&arguments.output) { Form::PatchStore } else { Form::PatchRaster };
    form.demand()(&scene).map_err(|problem| anyhow!("{} {problem}", scene.name()))?;

    let mut machine = job.open()?;
    outputs.written().try_for_each(|output| refuse_overwriting(output, weight_files(&machine.opened)))?;
    let windows = PatchesOfScene::new(job, scene, cut);
    agree(&mut journal, &arguments.journal, machine.fingerprint.clone(), &windows.common.layout())?;
    let provenance = reports.added_to(about(machine.provenance.value(), &windows.scene));

    // Before the outputs exist, so that an interruption always removes them.
    let batch = Batch::begin(&arguments.batch, shown).of("windows").knowing(journal.known_rows());
    let kept = journal.path().to_owned();
    let Machine { opened, bases, encoder, .. } = &mut machine;
    let raster_of = RasterOf { job, outputs: &outputs, model: model_uri(opened), bases: bases.as_ref() };
    let sink = windows.sink(journal, &raster_of, provenance, |_| ())?;
    let batch = batch.telling_safe_rows(Some(sink.safe_rows()));
    reports.through(&batch.reporter);
    let source = JournaledSource::new(&windows.source, Some(sink.journal()));
    let outcome = batch.run(&source, encoder.as_mut(), sink, &job.request, |sink| match sink.keep() {
        Ok(0) => "nothing was written".to_string(),
        Ok(rows) => format!("{rows} finished windows are kept, --resume continues"),
        Err(error) => format!("{error}; --resume continues with what was kept"),
    })?;
    note_missing(outcome, &kept);
    Ok(outcome)
}

/// Refuses options that do not go with a raster for each of several scenes.
pub fn check_units(job: &Job<'_>, form: Form) -> Result<()> {
    if job.arguments.dense.picture.is_some() {
        return Err(usage(
            "--picture names one file, and every scene of a folder or a plan has a picture of its own beside its raster",
        ));
    }
    match form == Form::PatchRaster && job.element() == ElementType::Int8 {
        true => Err(usage(NO_SCALES)),
        false => Ok(()),
    }
}

/// The windows of a scene that was opened.
pub struct PatchesOfScene {
    pub scene: Arc<Scene>,
    pub source: DenseSource,
    /// What they have in common.
    pub common: PatchWindows,
}

impl PatchesOfScene {
    pub fn new(job: &Job<'_>, scene: Arc<Scene>, cut: DenseCut) -> Self {
        let source = DenseSource::new(Arc::clone(&scene), cut);
        let common = source.windows(job.spec.embed_dim(), job.arguments.vectors.normalize);
        Self { scene, source, common }
    }

    /// The sink of them, which writes at the end what is made of them. `told` hears what the files say of their making.
    pub fn sink<'a>(
        &self,
        journal: Journal,
        raster_of: &'a RasterOf<'_>,
        provenance: Value,
        told: impl FnOnce(Value) + 'a,
    ) -> Result<PatchSink<'a>> {
        let files = raster_of.outputs.create()?;
        let store = DenseStoreOptions {
            model: raster_of.model.clone(),
            source: self.scene.name().to_owned(),
            cell_px: raster_of.job.arguments.dense.dense_step.into(),
            datetime_us: self.scene.datetime_us(),
            element: raster_of.job.element(),
        };
        let write = Box::new(move |raster: &mut dyn FeatureRaster, report: Value| {
            told(raster_of.write(files, raster, report, &store)?);
            Ok(())
        });
        Ok(PatchSink::new(journal, self.common, self.source.grid(), Box::new(move |_| provenance), write))
    }
}

/// What is said of the making of one scene's raster.
pub fn about(mut provenance: Value, scene: &Scene) -> Value {
    provenance["dense"]["source"] = json!(scene.name());
    provenance["dense"]["datetime"] = json!(scene.datetime_us().and_then(dinov3_scene::stac::format_datetime));
    provenance
}

/// What tells bases of other features, and the basis that was named and is there.
pub struct Bases {
    model: String,
    weights: String,
    tap: String,
    known: Option<KnownBasis>,
}

struct KnownBasis {
    path: PathBuf,
    bytes: Vec<u8>,
    pca: Pca,
}

impl Bases {
    /// Of the features of these weights.
    ///
    /// # Errors
    /// If the basis is of other features, or not the one that was read when the job began.
    pub fn new(
        spec: &ModelSpec,
        provenance: &Value,
        arguments: &SceneEmbedArguments,
        planned: Option<&str>,
    ) -> Result<Self> {
        // Features of length one have other directions.
        let normalized = if arguments.vectors.normalize { " normalized" } else { "" };
        let mut bases = Self {
            model: spec.name.clone(),
            weights: weights_name(&provenance["weights"]),
            tap: format!("blocks.{}{normalized}", last_block(spec)),
            known: None,
        };
        let DenseArguments { pca_basis, dims, .. } = &arguments.dense;
        if let Some(path) = pca_basis.as_ref().filter(|path| planned.is_some() || path.exists()) {
            let shown = || path.display().to_string();
            let bytes = std::fs::read(path).with_context(shown)?;
            if planned.is_some_and(|planned| planned != sha256(&bytes)) {
                return Err(anyhow!("{}: the basis was replaced by another one since this command began", shown()));
            }
            let pca = Pca::from_safetensors(&bytes, &bases.origin()).with_context(shown)?;
            if let Dims::Components(count) = dims
                && pca.count() < *count
            {
                let found = pca.count();
                return Err(usage(format!("{}: it has {found} components, --dims {count} asks for more", shown())));
            }
            bases.known = Some(KnownBasis { path: path.clone(), bytes, pca });
        }
        Ok(bases)
    }

    fn origin(&self) -> Origin<'_> {
        Origin { model: &self.model, weights: &self.weights, tap: &self.tap }
    }
}

/// A basis that several scenes share, `planned` its hash where a plan was made with it. Were it fitted to one of them, that
/// would have to be made before the others, wherever they are made.
pub fn shared_basis(path: &Path, planned: Option<&str>) -> Result<Vec<u8>> {
    let shown = path.display();
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(usage(match planned {
            Some(hash) => format!(
                "--pca-basis {shown}: is not there: copy the file with which the plan was made to this place, SHA-256 {hash}"
            ),
            None => format!(
                "--pca-basis {shown}: is not there, and scenes in a folder or a plan are made in any order: fit it to one of \
                 them first, 'dinov3 scene embed --dense SCENE.tif -o first.tif --pca-basis {shown}'"
            ),
        })),
        found => found.with_context(|| shown.to_string()),
    }
}

/// Refuses a basis that is a file of a unit, or may become one: it would be replaced, or removed with the unit.
pub fn refuse_basis_among_units(arguments: &SceneEmbedArguments, store: &Store) -> Result<()> {
    let Some((basis, folder)) = arguments.dense.pca_basis.as_ref().zip(store.folder()) else { return Ok(()) };
    let folder_of = |path: &Path| path.canonicalize().ok();
    let is_within =
        folder_of(basis).zip(folder_of(folder)).is_some_and(|(basis, folder)| basis.parent() == Some(&*folder));
    match is_within {
        true => Err(usage(format!(
            "--pca-basis {}: it lies among the units of {}, which are replaced and removed: copy it to another folder",
            basis.display(),
            folder.display()
        ))),
        false => Ok(()),
    }
}

/// The files that come of a scene.
pub struct Outputs {
    raster: PathBuf,
    picture: Option<PathBuf>,
    /// Where the basis lies or will lie; nothing where none is needed.
    basis: Option<PathBuf>,
    /// Whether a basis that lies there is used.
    is_basis_kept: bool,
}

/// Those that were begun.
struct Files {
    raster: RasterOutput,
    picture: Option<CogFile>,
}

enum RasterOutput {
    Cog(CogFile),
    /// A Zarr store, which is begun when everything is known.
    Store,
}

impl Outputs {
    fn named(output: &Path, dense: &DenseArguments, element: ElementType) -> Result<Self> {
        let is_tiff = |path: &Path| matches!(extension(path).as_str(), "tif" | "tiff");
        if !is_tiff(output) && !is_store_name(output) {
            let path = output.display();
            return Err(usage(format!(
                "--output {path}: a dense output is a GeoTIFF that ends in .tif, a Zarr store that ends in .zarr, or a folder"
            )));
        }
        if element == ElementType::Int8 && !is_store_name(output) {
            return Err(usage(NO_SCALES));
        }
        if let Some(path) = dense.picture.as_deref().filter(|path| !is_tiff(path)) {
            let path = path.display();
            return Err(usage(format!("--picture {path}: the picture is a GeoTIFF, a file that ends in .tif")));
        }
        let beside = BesidePatches::ENDINGS.map(|ending| {
            // Of a store with its ending: a GeoTIFF of the same name may lie beside it.
            let own = if is_store_name(output) { output.file_name() } else { output.file_stem() };
            let mut name = OsString::from(own.unwrap_or_default());
            name.push(ending);
            output.with_file_name(name)
        });
        let picture = (!dense.no_picture).then(|| dense.picture.clone().unwrap_or(beside.picture));
        let basis = dense.pca_basis.clone().or_else(|| needs_basis(dense).then_some(beside.basis));
        let outputs = Self { raster: output.to_path_buf(), picture, basis, is_basis_kept: dense.pca_basis.is_some() };
        let named: Vec<_> =
            [Some(&outputs.raster), outputs.picture.as_ref(), outputs.basis.as_ref()].into_iter().flatten().collect();
        for (index, path) in named.iter().enumerate() {
            if named[..index].iter().any(|other| place_of(other) == place_of(path)) {
                return Err(usage(format!("{} is named twice among the outputs", path.display())));
            }
        }
        Ok(outputs)
    }

    /// Those of a unit. A basis that units share has a copy beside each, so that whoever has a unit has all of it.
    pub fn of_unit(raster: PathBuf, beside: BesidePatches<PathBuf>, dense: &DenseArguments) -> Self {
        let picture = (!dense.no_picture).then_some(beside.picture);
        let basis = needs_basis(dense).then_some(beside.basis);
        Self { raster, picture, basis, is_basis_kept: false }
    }

    /// Whether there is a picture, and a basis.
    pub fn beside(&self) -> BesidePatches<bool> {
        BesidePatches { picture: self.picture.is_some(), basis: self.basis.is_some() }
    }

    /// Files that will be replaced.
    fn written(&self) -> impl Iterator<Item = &PathBuf> {
        let is_read = self.is_basis_kept && self.basis.as_ref().is_some_and(|basis| basis.exists());
        [Some(&self.raster), self.picture.as_ref(), self.basis.as_ref().filter(|_| !is_read)].into_iter().flatten()
    }

    fn create(&self) -> Result<Files, OutputError> {
        let picture = self.picture.as_ref().map(CogFile::create).transpose()?;
        let raster = match is_store_name(&self.raster) {
            true => RasterOutput::Store,
            false => RasterOutput::Cog(CogFile::create(&self.raster)?),
        };
        Ok(Files { raster, picture })
    }
}

fn needs_basis(dense: &DenseArguments) -> bool {
    !dense.no_picture || dense.dims != Dims::All
}

/// What is made of a scene's patches.
pub struct RasterOf<'a> {
    pub job: &'a Job<'a>,
    pub outputs: &'a Outputs,
    /// A URI of the model.
    pub model: String,
    pub bases: Option<&'a Bases>,
}

impl RasterOf<'_> {
    /// Writes all of it, the raster last. Gives the report as it stands in the raster.
    fn write(
        &self,
        files: Files,
        raster: &mut dyn FeatureRaster,
        mut report: Value,
        store: &DenseStoreOptions,
    ) -> Result<Value, OutputError> {
        let (dims, outputs) = (self.job.arguments.dense.dims, self.outputs);
        let model = &self.job.arguments.model;
        let threads = model.threads.map_or_else(available_threads, usize::from);
        let pca = match (&outputs.basis, self.bases) {
            (Some(path), Some(bases)) => Some(basis_of(raster, path, bases, dims)?),
            _ => None,
        };
        if let (Some(_), Some(path)) = (&pca, &outputs.basis) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            report["pca"] = json!({"basis": name});
        }
        if let (Some(file), Some(pca)) = (files.picture, &pca) {
            let metadata = vec![("dinov3".to_owned(), report.to_string())];
            write_components_picture(file, raster, pca, threads, metadata)?;
        }
        let pca = match (pca, dims) {
            (Some(pca), Dims::Components(count)) => Some(pca.truncated(count)),
            _ => None,
        };
        let name = |index: usize| match &pca {
            Some(_) => format!("component {}", index + 1),
            None => format!("feature {index}"),
        };
        if let Some(pca) = &pca {
            report["pca"]["components"] = json!(pca.count());
            report["pca"]["explained_variance"] = json!((pca.explained() * 1e4).round() / 1e4);
        }
        let count = pca.as_ref().map_or(raster.dims(), Pca::count);
        let options = CogOptions {
            sample: if store.element == ElementType::F16 { CogSample::F16 } else { CogSample::F32 },
            is_rgb: false,
            band_names: (0..count).map(name).collect(),
            metadata: vec![("dinov3".to_owned(), report.to_string())],
        };
        let mut reduced;
        let raster: &mut dyn FeatureRaster = match &pca {
            Some(pca) => {
                reduced = ReducedRaster::new(raster, pca, threads);
                &mut reduced
            }
            None => raster,
        };
        match files.raster {
            RasterOutput::Cog(file) => file.write(raster, &options)?,
            RasterOutput::Store => write_dense_store(&outputs.raster, raster, store, report.clone())?,
        }
        Ok(report)
    }
}

/// The basis that was named, or one of this raster; `path` has it then.
fn basis_of(raster: &mut dyn FeatureRaster, path: &Path, bases: &Bases, dims: Dims) -> Result<Pca, OutputError> {
    let write = |bytes: &[u8]| write_whole(path, bytes).map_err(|error| OutputError::Features(error.into()));
    if let Some(known) = &bases.known {
        if known.path != path {
            write(&known.bytes)?;
        }
        return Ok(known.pca.clone());
    }
    let wanted = match dims {
        Dims::Components(count) => count.max(PICTURE_COMPONENTS),
        Dims::All => PICTURE_COMPONENTS,
    };
    let pca = fit_components(raster, wanted)?;
    write(&pca.to_safetensors(&bases.origin()))?;
    Ok(pca)
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
