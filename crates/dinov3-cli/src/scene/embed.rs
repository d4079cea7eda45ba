//! `dinov3 scene embed`: one vector per chip.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use dinov3::engine::{Source, Summary};
use dinov3::image::statistics;
use dinov3::pixels::Recipe;
use dinov3::sink::{
    ChipColumns, ChipSink, ChipStoreOptions, EmbeddingLayout, JournaledSource, check_grid, group_names, is_store_name,
};
use dinov3::{Encoder, Normalized, Opened, Request, WeightsIdentity};
use dinov3_scene::{AreaOfInterest, Cut, Edges, Preset, ResampledFiles, SceneOptions, SceneSource};
use serde_json::{Value, json};

use crate::arguments::{SceneArguments, SceneEmbedArguments};
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::resume::{agree, open_journal};
use crate::scene::inputs::{as_paths, named_scenes, refuse_twice};
use crate::scene::reports::SceneReports;
use crate::scene::{is_for_satellites, opener, resampling_told, scene_options};
use crate::setup::{
    Provenance, check_chip, chosen_poolings, model_spec, open_model, refuse_overwriting, refuse_overwriting_inputs,
    report_weights, weight_files,
};

/// Runs the command.
pub fn run(arguments: &SceneEmbedArguments) -> Result<Outcome> {
    // Everything that can be wrong with the command line is found before the weights are read.
    let spec = model_spec(&arguments.model)?;
    check_chip(&spec, arguments.scene.chip, arguments.model.max_tokens)?;
    let poolings = chosen_poolings(&spec, &arguments.vectors.pool)?;
    let request = Request::new().poolings(poolings);
    let layout = EmbeddingLayout::for_request(&spec, &request)?.with_element(arguments.vectors.embedding_type.into());
    let options = scene_options(&arguments.scene, statistics(&spec), arguments.datetime)?;
    check_output(&arguments.output, options.cut)?;
    let opener = opener(&arguments.scene, &arguments.remote);
    // Before a document among them is read.
    refuse_overwriting_inputs(&arguments.output, &as_paths(arguments.inputs.clone()))?;
    let named = named_scenes(&opener, &arguments.inputs, &arguments.scene)?;
    refuse_twice(&named.scenes)?;
    refuse_overwriting_inputs(&arguments.output, &named.files())?;
    let scenes = named.scenes;
    let has_items = scenes.iter().any(|scene| scene.stac_item.is_some());
    let grid_cell = options.grid.is_some() || options.cell_ids.is_some();
    let columns = ChipColumns { grid_cell, stac_item: has_items, ..ChipColumns::default() };
    let mut journal = open_journal(&arguments.output, &arguments.journal)?;
    let count = scenes.len();
    let has_several_files = scenes.iter().any(|scene| scene.files.len() > 1);
    let names: Vec<String> = scenes.iter().map(|scene| scene.name.clone()).collect();
    let mut source = SceneSource::new(scenes, opener, options.clone());
    let reports = Arc::new(SceneReports::default());
    let heard = Arc::clone(&reports);
    source.listen(move |index, scene, measured| heard.add(index, scene, measured));
    if let Some(survey) = source.survey()
        && survey.chips == 0
    {
        match survey.unusable.first() {
            // None can be used: most likely an option is missing, and the weights need not be read to say so.
            Some(error) if count == 1 => return Err(error.clone().into()),
            Some(error) if survey.unusable.len() == count => {
                return Err(anyhow!("none of {count} scenes can be used; the first one: {error}"));
            }
            _ if options.area.is_some() => {
                eprintln!("note: no chip of any scene lies in the area of interest: the output has no rows");
            }
            _ => eprintln!("note: no scene is as large as a chip, and --edges drop leaves out what is smaller"),
        }
    }
    if has_several_files {
        note_resampling(&source);
    }
    let is_store = is_store_name(&arguments.output);
    if is_store {
        check_cells(&source, count)?;
    }
    if !is_for_satellites(&spec) {
        let sat = "vit_large_patch16_dinov3.sat493m";
        eprintln!("note: {} was trained on pictures of the web; {sat} was trained on satellite scenes", spec.name);
    }

    let opened = open_model(&spec, &arguments.model)?;
    refuse_overwriting(&arguments.output, weight_files(&opened))?;
    report_weights(&opened);
    let recipe = Recipe::Native { statistics: options.statistics };
    let provenance = Provenance::start(&opened, Some(&recipe), arguments.model.precision)
        .with("pooling", json!(request.poolings.iter().map(|pooling| pooling.name()).collect::<Vec<_>>()))
        .with("normalized", json!(arguments.vectors.normalize))
        .with("scene", described(&options, &arguments.scene));
    let mut fingerprint = provenance.fingerprint(&opened);
    fingerprint.insert("limits".to_owned(), json!({"max_tokens": arguments.model.max_tokens}));
    // Known rows keep what they say of their scene.
    fingerprint.insert("datetime_us".to_owned(), json!(arguments.datetime));
    agree(&mut journal, &arguments.journal, fingerprint, &layout)?;

    // Before the output exists, so that an interruption always removes it.
    let batch = Batch::begin(&arguments.batch, &arguments.output).of("chips");
    let resampled = source.resampled_files();
    let listed = Arc::clone(&reports);
    let finish = Box::new(move |_: &Summary| {
        let told = resampled_told(&resampled);
        let provenance = provenance.with("scenes", listed.list());
        match told.as_array().is_some_and(|files| !files.is_empty()) {
            true => provenance.with("resampled", told).finish(),
            false => provenance.finish(),
        }
    });
    let sink = match is_store {
        true => ChipSink::zarr(journal, layout, store_options(&opened, options.cut, &names), finish)?,
        false => ChipSink::geoparquet(journal, layout, columns, finish)?,
    };
    source.continue_from(sink.journal().known());
    let batch = batch.telling_safe_rows(Some(sink.safe_rows()));
    reports.through(&batch.reporter);
    let mut encoder: Box<dyn Encoder> = match arguments.vectors.normalize {
        true => Box::new(Normalized(opened.model.session())),
        false => Box::new(opened.model.session()),
    };
    let source = JournaledSource::new(&source, Some(sink.journal()));
    batch.run(&source, encoder.as_mut(), sink, &request, |sink| match sink.keep() {
        Ok(0) => "nothing was written".to_string(),
        Ok(rows) => format!("{rows} finished rows are kept, --resume continues"),
        Err(error) => format!("{error}; --resume continues with what was kept"),
    })
}

/// What a store says beside the chips.
fn store_options(opened: &Opened, cut: Cut, scenes: &[String]) -> ChipStoreOptions {
    ChipStoreOptions {
        chip_px: cut.chip_px,
        stride_px: cut.stride_px,
        model: model_uri(opened),
        groups: group_names(scenes),
    }
}

/// A URI of the model: its repository, or a name for synthetic weights and for models without one. The hash of the weights
/// is in the provenance.
fn model_uri(opened: &Opened) -> String {
    let spec = opened.model.spec();
    let is_synthetic = matches!(opened.weights, WeightsIdentity::Synthetic { .. });
    match spec.hub_ids.first().filter(|_| !is_synthetic) {
        Some(repository) => format!("https://huggingface.co/{repository}"),
        None => {
            let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
            let name: String = spec.name.chars().map(plain).collect();
            format!("urn:dinov3:{}{}", name, if is_synthetic { ":synthetic" } else { "" })
        }
    }
}

/// What was made of the scenes, for provenance.
pub(super) fn described(options: &SceneOptions, arguments: &SceneArguments) -> Value {
    let names = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
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

/// Says of the first scene which files are resampled; of all scenes, provenance says it.
fn note_resampling(source: &SceneSource) {
    // Whatever is wrong with it is told in its turn.
    let Ok(scene) = source.scene(0) else { return };
    for file in scene.profile().files.iter() {
        if let Some(method) = file.resampling {
            eprintln!("note: {}", resampling_told(file, method, scene.profile()));
        }
    }
}

/// Files that came onto the grid of their scene's finest one, each kind once, with the number of its scenes.
fn resampled_told(files: &ResampledFiles) -> Value {
    let told = files.counted().into_iter().map(|(file, scenes)| {
        json!({
            "file": file.number, "from_px": [file.from_px.0, file.from_px.1], "to_px": [file.to_px.0, file.to_px.1],
            "method": file.method.name(), "scenes": scenes,
        })
    });
    told.collect()
}

/// A name without a format's ending is a mistake.
fn check_output(output: &Path, cut: Cut) -> Result<()> {
    if is_store_name(output) {
        return match cut.edges {
            Edges::Shift => Err(usage(
                "--edges shift moves chips off the grid whose cells a Zarr store holds: use --edges pad or drop, or write \
                 .parquet",
            )),
            _ => Ok(()),
        };
    }
    let is_parquet = output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    match is_parquet {
        true => Ok(()),
        false => Err(usage(format!(
            "{}: the output of scenes is GeoParquet, a file that ends in .parquet, or a Zarr store, a folder that ends in .zarr",
            output.display()
        ))),
    }
}

/// Finds scenes whose chips cannot be cells of a store before the weights are read.
fn check_cells(source: &SceneSource, scenes: usize) -> Result<()> {
    if source.len_hint().is_none() {
        // Too many to open; each is checked when its turn comes.
        return Ok(());
    }
    for scene in (0..scenes).filter_map(|index| source.scene(index).ok()) {
        if let Some(grid) = scene.cells() {
            check_grid(grid).map_err(|problem| anyhow!("{} {problem}", scene.name()))?;
        }
    }
    Ok(())
}
