//! `dinov3 scene embed`: one vector per chip.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use dinov3::engine::{Source, Summary};
use dinov3::image::statistics;
use dinov3::inputs::{Kind, expand};
use dinov3::pixels::Recipe;
use dinov3::sink::{
    ChipColumns, ChipSink, ChipStoreOptions, EmbeddingLayout, JournaledSource, check_grid, group_names, is_store_name,
};
use dinov3::{Encoder, Normalized, Opened, Request, WeightsIdentity};
use dinov3_scene::{Cut, Edges, SceneInput, SceneOptions, SceneSource, scene_name};
use serde_json::{Value, json};

use crate::arguments::SceneEmbedArguments;
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::resume::{agree, open_journal};
use crate::scene::{is_for_satellites, opener, scene_options};
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
    let files = as_paths(expand(&arguments.inputs, Kind::Scenes, &mut std::io::stdin().lock())?);
    refuse_twice(&files)?;
    refuse_overwriting_inputs(&arguments.output, &files)?;
    let mut journal = open_journal(&arguments.output, &arguments.journal)?;
    let scenes = files.len();
    let inputs: Vec<SceneInput> = files.into_iter().map(SceneInput::from).collect();
    let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    let mut source = SceneSource::new(inputs, opener(&arguments.scene, &arguments.remote), options.clone());
    if let Some(survey) = source.survey()
        && survey.chips == 0
    {
        match survey.unusable.first() {
            // None can be used: most likely an option is missing, and the weights need not be read to say so.
            Some(error) if scenes == 1 => return Err(error.clone().into()),
            Some(error) if survey.unusable.len() == scenes => {
                return Err(anyhow!("none of {scenes} scenes can be used; the first one: {error}"));
            }
            _ => eprintln!("note: no scene is as large as a chip, and --edges drop leaves out what is smaller"),
        }
    }
    let is_store = is_store_name(&arguments.output);
    if is_store {
        check_cells(&source, scenes)?;
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
        .with("scene", described(&options));
    let mut fingerprint = provenance.fingerprint(&opened);
    fingerprint.insert("limits".to_owned(), json!({"max_tokens": arguments.model.max_tokens}));
    // Known rows keep what they say of their scene.
    fingerprint.insert("datetime_us".to_owned(), json!(arguments.datetime));
    agree(&mut journal, &arguments.journal, fingerprint, &layout)?;

    // Before the output exists, so that an interruption always removes it.
    let batch = Batch::begin(&arguments.batch, &arguments.output).of("chips");
    let finish = Box::new(move |_: &Summary| provenance.finish());
    let sink = match is_store {
        true => ChipSink::zarr(journal, layout, store_options(&opened, options.cut, &names), finish)?,
        false => ChipSink::geoparquet(journal, layout, ChipColumns::default(), finish)?,
    };
    let batch = batch.telling_safe_rows(Some(sink.safe_rows()));
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
fn described(options: &SceneOptions) -> Value {
    json!({
        "chip_px": options.cut.chip_px,
        "stride_px": options.cut.stride_px,
        "edges": options.cut.edges.name(),
        "min_valid": dinov3::image::decimal(options.min_valid),
        "bands": options.bands,
        "scale": options.scale.map(|scale| scale.to_string()),
        "crs": options.crs.as_ref().map(ToString::to_string),
        "no_data": "mean",
    })
}

/// `file://` URLs as the paths that they are.
fn as_paths(scenes: Vec<PathBuf>) -> Vec<PathBuf> {
    let path = |scene: &PathBuf| scene.to_str()?.strip_prefix("file://").map(PathBuf::from);
    scenes.into_iter().map(|scene| path(&scene).unwrap_or(scene)).collect()
}

/// The chips of a scene are named by it: twice the same name would be twice the same rows.
fn refuse_twice(scenes: &[PathBuf]) -> Result<()> {
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    for scene in scenes {
        let name = scene_name(scene);
        // The same file under two spellings.
        let is_new = scene.canonicalize().map_or(true, |place| places.insert(place));
        if !names.insert(name.clone()) || !is_new {
            let remote = if name.contains("://") { "; URLs are told apart without their query" } else { "" };
            return Err(usage(format!("{name} is named twice, and would give the same rows twice{remote}")));
        }
    }
    Ok(())
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
