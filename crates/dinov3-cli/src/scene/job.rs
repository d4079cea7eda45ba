//! What all commands that embed scenes make of their options: before the weights are read, and after.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use dinov3::image::statistics;
use dinov3::pixels::Recipe;
use dinov3::sink::{ChipColumns, EmbeddingLayout};
use dinov3::{Encoder, ModelSpec, Normalized, Opened, Request};
use dinov3_scene::raster::{Opener, redacted};
use dinov3_scene::{AreaOfInterest, Preset, SceneInput, SceneOptions};
use serde_json::{Map, Value, json};

use crate::arguments::{SceneArguments, SceneEmbedArguments};
use crate::scene::embed::hint_at_weights;
use crate::scene::{opener, scene_options};
use crate::setup::{
    Provenance, check_chip, chosen_poolings, model_definition, model_spec, open_model, refuse_overwriting,
    report_weights, weight_files,
};

/// What is known without weights.
pub struct Job<'a> {
    pub arguments: &'a SceneEmbedArguments,
    pub spec: ModelSpec,
    pub request: Request,
    pub layout: EmbeddingLayout,
    pub options: SceneOptions,
    pub opener: Opener,
}

impl<'a> Job<'a> {
    /// Everything that can be wrong with the command line is found here.
    pub fn new(arguments: &'a SceneEmbedArguments) -> Result<Self> {
        let spec = model_spec(&arguments.model)?;
        check_chip(&spec, arguments.scene.chip, arguments.model.max_tokens)?;
        let request = Request::new().poolings(chosen_poolings(&spec, &arguments.vectors.pool)?);
        let layout =
            EmbeddingLayout::for_request(&spec, &request)?.with_element(arguments.vectors.embedding_type.into());
        let options = scene_options(&arguments.scene, statistics(&spec), arguments.datetime)?;
        let opener = opener(&arguments.scene, &arguments.remote);
        Ok(Self { arguments, spec, request, layout, options, opener })
    }

    /// What is in the files that options name, for plans and markers. Weights are known when they are read.
    pub fn contents(&self) -> BTreeMap<String, String> {
        let area = self.options.area.as_ref().map(|area| ("aoi".to_owned(), area.sha256().to_owned()));
        std::iter::once(("model".to_owned(), model_definition(&self.spec))).chain(area).collect()
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
        let provenance = Provenance::start(&opened, Some(&recipe), arguments.model.precision)
            .with("pooling", json!(self.request.poolings.iter().map(|pooling| pooling.name()).collect::<Vec<_>>()))
            .with("normalized", json!(arguments.vectors.normalize))
            .with("scene", described(&self.options, &arguments.scene));
        let mut fingerprint = provenance.fingerprint(&opened);
        fingerprint.insert("limits".to_owned(), json!({"max_tokens": arguments.model.max_tokens}));
        // Known rows keep what they say of their scene.
        fingerprint.insert("datetime_us".to_owned(), json!(arguments.datetime));
        let encoder: Box<dyn Encoder> = match arguments.vectors.normalize {
            true => Box::new(Normalized(opened.model.session())),
            false => Box::new(opened.model.session()),
        };
        Ok(Machine { opened, fingerprint, encoder, provenance: Pending(Mutex::new(Some(provenance)), OnceLock::new()) })
    }
}

/// What makes vectors of pixels, and what is said about it.
pub struct Machine {
    pub opened: Opened,
    /// What decides the values of a row, beside its scene.
    pub fingerprint: Map<String, Value>,
    pub encoder: Box<dyn Encoder>,
    pub provenance: Pending,
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
pub fn described(options: &SceneOptions, arguments: &SceneArguments) -> Value {
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
