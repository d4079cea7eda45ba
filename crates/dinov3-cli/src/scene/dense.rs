//! `dinov3 scene embed --dense`: one vector per patch, as one raster.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use dinov3::image::statistics;
use dinov3::pca::{Origin, Pca};
use dinov3::pixels::Recipe;
use dinov3::sink::{
    CogFile, CogOptions, CogSample, DenseStoreOptions, ElementType, FeatureRaster, JournaledSource, OutputError,
    PatchSink, ReducedRaster, check_grid, fit_components, is_store_name, write_components_picture, write_dense_store,
};
use dinov3::{Encoder, MapLayout, Request};
use dinov3_scene::{Cut, DenseCut, DenseSource, Edges, Scene, SceneSource};
use serde_json::{Value, json};

use crate::arguments::{DenseArguments, Dims, SceneEmbedArguments};
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::features::{weights_name, write_whole};
use crate::resume::{agree, note_missing, open_journal};
use crate::scene::embed::{hint_at_weights, model_uri, refuse_folder_options};
use crate::scene::inputs::{as_paths, named_scenes};
use crate::scene::job::described;
use crate::scene::reports::SceneReports;
use crate::scene::{opener, scene_options, zarr_plan};
use crate::setup::{
    Provenance, check_window, extension, model_spec, open_model, place_of, refuse_overwriting,
    refuse_overwriting_inputs, report_weights, weight_files,
};

/// The picture needs as many.
const PICTURE_COMPONENTS: usize = 3;

/// Runs the command.
pub fn run(arguments: &SceneEmbedArguments) -> Result<Outcome> {
    refuse_folder_options()?;
    run_for(arguments, &arguments.output)
}

/// The same as a part of something else: `shown` is what a person knows as the output.
pub fn run_for(arguments: &SceneEmbedArguments, shown: &Path) -> Result<Outcome> {
    let dense = &arguments.dense;
    // Everything that can be wrong with the command line is found before the weights are read.
    let spec = model_spec(&arguments.model)?;
    let Some(vit) = spec.vit() else {
        return Err(usage(format!("--dense: {} has no patches; name a ViT", spec.name)));
    };
    check_window(&spec, dense.window, arguments.model.max_tokens)?;
    let cut = DenseCut {
        patch_px: vit.patch_px as u32,
        window_px: dense.window,
        overlap_px: dense.overlap,
        step_px: dense.dense_step,
    };
    if let Some(problem) = cut.problem() {
        return Err(usage(format!("--dense: {problem}")));
    }
    let dims = spec.embed_dim();
    if let Dims::Components(count) = dense.dims
        && count > dims
    {
        return Err(usage(format!("--dims {count}: {} has {dims} dimensions", spec.name)));
    }
    let element = arguments.vectors.embedding_type.into();
    let outputs = Outputs::named(&arguments.output, dense, element)?;
    let opener = opener(&arguments.scene, &arguments.remote);
    let inputs = as_paths(arguments.inputs.clone());
    outputs.written().try_for_each(|output| refuse_overwriting_inputs(output, &inputs))?;
    let named = named_scenes(&opener, &arguments.inputs, &arguments.scene)?;
    outputs.written().try_for_each(|output| refuse_overwriting_inputs(output, &named.files()))?;
    if named.scenes.len() != 1 {
        let found = named.scenes.len();
        return Err(usage(format!("--dense makes one raster of one scene, and there are {found}")));
    }
    let mut options = scene_options(&arguments.scene, statistics(&spec), arguments.datetime)?;
    // Blocks are kept for windows, as they would be for chips.
    options.cut = Cut { chip_px: cut.window_px, stride_px: cut.window_px - cut.overlap_px, edges: Edges::Pad };
    zarr_plan::refuse_store_of_plan(&arguments.output, arguments.journal.fresh)?;
    let mut journal = open_journal(&arguments.output, &arguments.journal)?;
    let mut scenes = SceneSource::new(named.scenes, opener, options.clone());
    let reports = SceneReports::of(&mut scenes);
    scenes.survey();
    let scene = scenes.scene(0)?;
    scene.measured()?;
    let source = DenseSource::new(scene.clone(), cut);
    match is_store_name(&arguments.output) {
        true => check_grid(&source.grid()).map(drop),
        false => check_north_up(&scene, "a raster of its patches"),
    }
    .map_err(|problem| anyhow!("{} {problem}", scene.name()))?;
    hint_at_weights(&spec);

    let opened = open_model(&spec, &arguments.model)?;
    outputs.written().try_for_each(|output| refuse_overwriting(output, weight_files(&opened)))?;
    report_weights(&opened);
    let last = spec.depth() - 1;
    let request = Request::new().taps([last]).tap_norm(true).tap_layout(MapLayout::Rows);
    let recipe = Recipe::Native { statistics: options.statistics };
    let mut about_scene = described(&options, &arguments.scene);
    // Of chips, which there are not.
    for of_chips in ["chip_px", "stride_px", "edges"] {
        about_scene.as_object_mut().map(|fields| fields.remove(of_chips));
    }
    let provenance = Provenance::start(&opened, Some(&recipe), arguments.model.precision)
        .with("taps", json!([format!("blocks.{last}")]))
        .with("norm", json!(true))
        .with("normalized", json!(arguments.vectors.normalize))
        .with("scene", about_scene)
        .with(
            "dense",
            json!({
                "source": scene.name(),
                "datetime": scene.datetime_us().and_then(dinov3_scene::stac::format_datetime),
                "window_px": cut.window_px,
                "overlap_px": cut.overlap_px,
                "step_px": cut.step_px,
                "blending": "tent",
            }),
        );
    let windows = source.windows(dims, arguments.vectors.normalize);
    let mut fingerprint = provenance.fingerprint(&opened);
    fingerprint.insert("limits".to_owned(), json!({"max_tokens": arguments.model.max_tokens}));
    agree(&mut journal, &arguments.journal, fingerprint, &windows.layout())?;

    // Features of length one have other directions.
    let tap = format!("blocks.{last}{}", if arguments.vectors.normalize { " normalized" } else { "" });
    let provenance = reports.added_to(provenance.finish());
    let weights = weights_name(&provenance["weights"]);
    let origin = Origin { model: &spec.name, weights: &weights, tap: &tap };
    let known = outputs.known_basis(&origin, dense.dims)?;
    let threads = arguments.model.threads.map_or_else(available_threads, usize::from);
    let store = DenseStoreOptions {
        model: model_uri(&opened),
        source: scene.name().to_owned(),
        cell_px: cut.step_px.into(),
        datetime_us: scene.datetime_us(),
        element,
    };

    // Before the outputs exist, so that an interruption always removes them.
    let batch = Batch::begin(&arguments.batch, shown).of("windows").knowing(journal.known_rows());
    let kept = journal.path().to_owned();
    let files = outputs.create()?;
    let write = Box::new(|raster: &mut dyn FeatureRaster, report: Value| {
        outputs.write(files, raster, report, dense, known, &origin, &store, threads)
    });
    let sink = PatchSink::new(journal, windows, source.grid(), Box::new(move |_| provenance), write);
    let batch = batch.telling_safe_rows(Some(sink.safe_rows()));
    reports.through(&batch.reporter);
    let mut encoder: Box<dyn Encoder> = Box::new(opened.model.session());
    let source = JournaledSource::new(&source, Some(sink.journal()));
    let outcome = batch.run(&source, encoder.as_mut(), sink, &request, |sink| match sink.keep() {
        Ok(0) => "nothing was written".to_string(),
        Ok(rows) => format!("{rows} finished windows are kept, --resume continues"),
        Err(error) => format!("{error}; --resume continues with what was kept"),
    })?;
    note_missing(outcome, &kept);
    Ok(outcome)
}

/// Whether what is made of a scene can have north up; the end of a sentence if not.
pub fn check_north_up(scene: &Scene, made: &str) -> Result<(), String> {
    let transform = scene.transform();
    if !transform.is_rotated() && transform.a > 0.0 {
        return Ok(());
    }
    Err(format!(
        "is rotated or mirrored, and {made} has north up: turn it with gdalwarp{} {} turned.tif",
        scene.epsg().map_or_else(String::new, |code| format!(" -t_srs EPSG:{code}")),
        scene.profile().location
    ))
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The files that come of a run.
struct Outputs {
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
                "--output {path}: a dense output is a GeoTIFF that ends in .tif, or a Zarr store that ends in .zarr"
            )));
        }
        if element == ElementType::Int8 && !is_store_name(output) {
            return Err(usage(
                "--embedding-type int8: a GeoTIFF has no scale per cell; use f16, or write a Zarr store, .zarr",
            ));
        }
        if let Some(path) = dense.picture.as_deref().filter(|path| !is_tiff(path)) {
            let path = path.display();
            return Err(usage(format!("--picture {path}: the picture is a GeoTIFF, a file that ends in .tif")));
        }
        let beside = |ending: &str| {
            // Of a store with its ending: a GeoTIFF of the same name may lie beside it.
            let own = if is_store_name(output) { output.file_name() } else { output.file_stem() };
            let mut name = OsString::from(own.unwrap_or_default());
            name.push(ending);
            output.with_file_name(name)
        };
        let picture = (!dense.no_picture).then(|| dense.picture.clone().unwrap_or_else(|| beside("-pca.tif")));
        let needs_basis = picture.is_some() || dense.dims != Dims::All;
        let basis = dense.pca_basis.clone().or_else(|| needs_basis.then(|| beside("-pca.safetensors")));
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

    /// Files that will be replaced.
    fn written(&self) -> impl Iterator<Item = &PathBuf> {
        let is_read = self.is_basis_kept && self.basis.as_ref().is_some_and(|basis| basis.exists());
        [Some(&self.raster), self.picture.as_ref(), self.basis.as_ref().filter(|_| !is_read)].into_iter().flatten()
    }

    /// The basis that is there and shall be used.
    fn known_basis(&self, origin: &Origin<'_>, dims: Dims) -> Result<Option<Pca>> {
        let Some(path) = self.basis.as_ref().filter(|path| self.is_basis_kept && path.exists()) else {
            return Ok(None);
        };
        let shown = || path.display().to_string();
        let bytes = std::fs::read(path).with_context(shown)?;
        let pca = Pca::from_safetensors(&bytes, origin).with_context(shown)?;
        if let Dims::Components(count) = dims
            && pca.count() < count
        {
            let found = pca.count();
            return Err(usage(format!("{}: it has {found} components, --dims {count} asks for more", shown())));
        }
        Ok(Some(pca))
    }

    fn create(&self) -> Result<Files, OutputError> {
        let picture = self.picture.as_ref().map(CogFile::create).transpose()?;
        let raster = match is_store_name(&self.raster) {
            true => RasterOutput::Store,
            false => RasterOutput::Cog(CogFile::create(&self.raster)?),
        };
        Ok(Files { raster, picture })
    }

    /// Writes everything that is made of the raster; the raster itself last.
    #[allow(clippy::too_many_arguments)]
    fn write(
        &self,
        files: Files,
        raster: &mut dyn FeatureRaster,
        mut report: Value,
        dense: &DenseArguments,
        known: Option<Pca>,
        origin: &Origin<'_>,
        store: &DenseStoreOptions,
        threads: usize,
    ) -> Result<(), OutputError> {
        let wanted = match dense.dims {
            Dims::Components(count) => count.max(PICTURE_COMPONENTS),
            Dims::All => PICTURE_COMPONENTS,
        };
        let is_known = known.is_some();
        let pca = match (known, &self.basis) {
            (Some(pca), _) => Some(pca),
            (None, Some(_)) => Some(fit_components(raster, wanted)?),
            (None, None) => None,
        };
        if let (Some(pca), Some(path), false) = (&pca, &self.basis, is_known) {
            write_whole(path, &pca.to_safetensors(origin)).map_err(|error| OutputError::Features(error.into()))?;
        }
        if let (Some(_), Some(path)) = (&pca, &self.basis) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            report["pca"] = json!({"basis": name});
        }
        if let (Some(file), Some(pca)) = (files.picture, &pca) {
            let metadata = vec![("dinov3".to_owned(), report.to_string())];
            write_components_picture(file, raster, pca, threads, metadata)?;
        }
        let pca = match (pca, dense.dims) {
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
            RasterOutput::Cog(file) => file.write(raster, &options),
            RasterOutput::Store => write_dense_store(&self.raster, raster, store, report),
        }
    }
}
