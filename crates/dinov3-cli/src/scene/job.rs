//! What all commands that embed scenes make of their options: before the weights are read, and after.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use dinov3::checkpoint::hash::sha256;
use dinov3::image::statistics;
use dinov3::pixels::Recipe;
use dinov3::sink::{ChipColumns, ElementType, EmbeddingLayout};
use dinov3::{Encoder, MapLayout, ModelSpec, Normalized, Opened, Request};
use dinov3_scene::raster::{Opener, redacted};
use dinov3_scene::{AreaOfInterest, Cut, DenseCut, Edges, Preset, SceneInput, SceneOptions};
use serde_json::{Map, Value, json};

use crate::arguments::{Dims, SceneArguments, SceneEmbedArguments};
use crate::failure::usage;
use crate::scene::dense::{Bases, shared_basis};
use crate::scene::embed::hint_at_weights;
use crate::scene::{opener, scene_options};
use crate::setup::{
    Provenance, check_chip, check_window, chosen_poolings, model_definition, model_spec, open_model,
    refuse_overwriting, report_weights, weight_files,
};

/// The option that names a basis, by which plans know what is in it.
const BASIS: &str = "pca-basis";

/// What is encoded of a scene.
pub enum Task {
    /// Its chips, into vectors of this layout.
    Chips(EmbeddingLayout),
    /// Its patches, in windows that lie like this.
    Patches(DenseCut),
}

/// What is known without weights.
pub struct Job<'a> {
    pub arguments: &'a SceneEmbedArguments,
    pub spec: ModelSpec,
    pub request: Request,
    pub task: Task,
    pub options: SceneOptions,
    pub opener: Opener,
    /// The hash of the basis that scenes share, once it was read.
    basis: OnceLock<String>,
}

impl<'a> Job<'a> {
    /// Everything that can be wrong with the command line is found here.
    pub fn new(arguments: &'a SceneEmbedArguments) -> Result<Self> {
        let spec = model_spec(&arguments.model)?;
        let mut options;
        let (request, task) = match arguments.dense.dense {
            true => {
                let cut = dense_cut(&spec, arguments)?;
                options = scene_options(&arguments.scene, statistics(&spec), arguments.datetime)?;
                // Blocks are kept for windows, as they would be for chips.
                let stride_px = cut.window_px - cut.overlap_px;
                options.cut = Cut { chip_px: cut.window_px, stride_px, edges: Edges::Pad };
                let request = Request::new().taps([last_block(&spec)]).tap_norm(true).tap_layout(MapLayout::Rows);
                (request, Task::Patches(cut))
            }
            false => {
                check_chip(&spec, arguments.scene.chip, arguments.model.max_tokens)?;
                let request = Request::new().poolings(chosen_poolings(&spec, &arguments.vectors.pool)?);
                let layout = EmbeddingLayout::for_request(&spec, &request)?;
                options = scene_options(&arguments.scene, statistics(&spec), arguments.datetime)?;
                (request, Task::Chips(layout.with_element(arguments.vectors.embedding_type.into())))
            }
        };
        let opener = opener(&arguments.scene, &arguments.remote);
        Ok(Self { arguments, spec, request, task, options, opener, basis: OnceLock::new() })
    }

    /// How values are stored.
    pub fn element(&self) -> ElementType {
        self.arguments.vectors.embedding_type.into()
    }

    /// What is in the files that options name, for plans and markers; `planned` says what a plan that is run knows of them.
    /// Weights are known when they are read.
    pub fn contents(&self, planned: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        let mut contents = BTreeMap::from([("model".to_owned(), model_definition(&self.spec))]);
        if let Some(area) = &self.options.area {
            contents.insert("aoi".to_owned(), area.sha256().to_owned());
        }
        if let Some(basis) = &self.arguments.dense.pca_basis {
            let hash = sha256(&shared_basis(basis, planned.get(BASIS).map(String::as_str))?);
            let _ = self.basis.set(hash.clone());
            contents.insert(BASIS.to_owned(), hash);
        }
        Ok(contents)
    }

    /// The columns of a file with the chips of these scenes.
    pub fn columns(&self, inputs: &[SceneInput]) -> ChipColumns {
        ChipColumns {
            grid_cell: self.options.grid.is_some() || self.options.cell_ids.is_some(),
            stac_item: inputs.iter().any(|input| input.stac_item.is_some()),
            ..ChipColumns::default()
        }
    }

    /// Reads the weights.
    pub fn open(&self) -> Result<Machine> {
        hint_at_weights(&self.spec);
        let arguments = self.arguments;
        let opened = open_model(&self.spec, &arguments.model)?;
        refuse_overwriting(&arguments.output, weight_files(&opened))?;
        report_weights(&opened);
        let recipe = Recipe::Native { statistics: self.options.statistics };
        let mut scene = described(&self.options, &arguments.scene);
        let mut provenance = Provenance::start(&opened, Some(&recipe), arguments.model.precision)
            .with("normalized", json!(arguments.vectors.normalize));
        provenance = match &self.task {
            Task::Chips(_) => {
                let poolings = self.request.poolings.iter().map(|pooling| pooling.name());
                provenance.with("pooling", poolings.collect())
            }
            Task::Patches(cut) => {
                // Of chips, which there are not.
                for of_chips in ["chip_px", "stride_px", "edges"] {
                    scene.as_object_mut().map(|fields| fields.remove(of_chips));
                }
                provenance
                    .with("taps", json!([format!("blocks.{}", last_block(&self.spec))]))
                    .with("norm", json!(true))
                    .with(
                        "dense",
                        json!({
                            "window_px": cut.window_px,
                            "overlap_px": cut.overlap_px,
                            "step_px": cut.step_px,
                            "blending": "tent",
                        }),
                    )
            }
        };
        let provenance = provenance.with("scene", scene);
        let mut fingerprint = provenance.fingerprint(&opened);
        fingerprint.insert("limits".to_owned(), json!({"max_tokens": arguments.model.max_tokens}));
        // Known rows keep what they say of their scene.
        fingerprint.insert("datetime_us".to_owned(), json!(arguments.datetime));
        // Patches are scaled after they were blended.
        let encoder: Box<dyn Encoder> = match arguments.vectors.normalize && matches!(self.task, Task::Chips(_)) {
            true => Box::new(Normalized(opened.model.session())),
            false => Box::new(opened.model.session()),
        };
        let provenance = Pending(Mutex::new(Some(provenance)), OnceLock::new());
        let bases = match &self.task {
            Task::Chips(_) => None,
            Task::Patches(_) => {
                Some(Bases::new(&self.spec, &provenance.value(), arguments, self.basis.get().map(String::as_str))?)
            }
        };
        Ok(Machine { opened, fingerprint, encoder, provenance, bases })
    }
}

/// The block whose patches are the cells.
pub fn last_block(spec: &ModelSpec) -> usize {
    spec.depth() - 1
}

/// How windows lie that patches are encoded in, if the model has any.
fn dense_cut(spec: &ModelSpec, arguments: &SceneEmbedArguments) -> Result<DenseCut> {
    let dense = &arguments.dense;
    let Some(vit) = spec.vit() else {
        return Err(usage(format!("--dense: {} has no patches; name a ViT", spec.name)));
    };
    check_window(spec, dense.window, arguments.model.max_tokens)?;
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
    Ok(cut)
}

/// What makes vectors of pixels, and what is said about it.
pub struct Machine {
    pub opened: Opened,
    /// What decides the values of a row, beside its scene.
    pub fingerprint: Map<String, Value>,
    pub encoder: Box<dyn Encoder>,
    pub provenance: Pending,
    /// For patches, whose components they are along.
    pub bases: Option<Bases>,
}

/// A machine whose weights are read when it is first needed, if ever.
pub struct LazyMachine<'j, 'a> {
    pub job: &'j Job<'a>,
    opened: Option<Machine>,
}

impl<'j, 'a> LazyMachine<'j, 'a> {
    pub fn of(job: &'j Job<'a>) -> Self {
        Self { job, opened: None }
    }

    /// It, opened now or before.
    pub fn open(&mut self) -> Result<&mut Machine> {
        match &mut self.opened {
            Some(machine) => Ok(machine),
            none => Ok(none.insert(self.job.open()?)),
        }
    }
}

/// A provenance whose weights are still being hashed.
pub struct Pending(Mutex<Option<Provenance>>, OnceLock<Value>);

impl Pending {
    /// Waits for the hashes, the first time.
    pub fn value(&self) -> Value {
        let finish = || {
            let provenance = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            provenance.map_or(Value::Null, Provenance::finish)
        };
        self.1.get_or_init(finish).clone()
    }
}

/// What was made of the scenes, for provenance.
fn described(options: &SceneOptions, arguments: &SceneArguments) -> Value {
    let names =
        |names: &[String]| (!names.is_empty()).then(|| names.iter().map(|name| redacted(name)).collect::<Vec<_>>());
    json!({
        "assets": names(&arguments.assets),
        "band_files": names(&arguments.band_files),
        "chip_px": options.cut.chip_px,
        "stride_px": options.cut.stride_px,
        "edges": options.cut.edges.name(),
        "gsd_m": options.gsd_m,
        "grid": options.grid.map(|grid| grid.to_string()),
        "grid_id": options.cell_ids.map(|scheme| scheme.to_string()),
        "aoi_sha256": options.area.as_ref().map(AreaOfInterest::sha256),
        "min_valid": dinov3::image::decimal(options.min_valid),
        "preset": options.preset.map(Preset::name),
        "overrides": overrides(options),
        "baseline": options.baseline.map(|baseline| baseline.to_string()),
        "bands": options.bands,
        "scale": options.scale.map(|scale| scale.to_string()),
        "mask_values": options.mask_values.as_ref().map(ToString::to_string),
        "crs": options.crs.as_ref().map(ToString::to_string),
        "no_data": "mean",
    })
}

/// What was declared otherwise than the preset says.
fn overrides(options: &SceneOptions) -> Vec<&'static str> {
    let Some(preset) = options.preset else { return Vec::new() };
    let declared = [
        ("bands", options.bands.is_some()),
        ("scale", options.scale.is_some_and(|scale| scale != preset.scale())),
        ("mask_values", options.mask_values.is_some() && options.mask_values != preset.mask_values()),
    ];
    declared.into_iter().filter(|(_, is_declared)| *is_declared).map(|(name, _)| name).collect()
}
