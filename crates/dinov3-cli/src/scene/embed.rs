//! `dinov3 scene embed`: which of its outputs is meant, and one vector per chip into one of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use dinov3::engine::Summary;
use dinov3::sink::{ChipSink, ChipStoreOptions, EmbeddingLayout, JournaledSource, group_names, is_store_name};
use dinov3::{ModelSpec, Opened, WeightsIdentity};
use dinov3_scene::{Cut, SceneInput, SceneOptions, SceneSource};

use crate::arguments::{SceneEmbedArguments, SceneFormat};
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::resume::{agree, note_missing, open_journal};
use crate::scene::form::Form;
use crate::scene::inputs::{as_paths, named_scenes, refuse_twice};
use crate::scene::job::{Job, Machine, Task};
use crate::scene::reports::SceneReports;
use crate::scene::store::{is_remote, is_store};
use crate::scene::{dense, folder, is_for_satellites, options, zarr_plan};
use crate::setup::refuse_overwriting_inputs;

/// Runs the command.
pub fn run(arguments: &SceneEmbedArguments) -> Result<Outcome> {
    refuse_out_of_place(arguments)?;
    let job = Job::new(arguments)?;
    if goes_into_units(arguments) {
        return folder::run(&job);
    }
    match &job.task {
        Task::Patches(cut) => dense::run(&job, *cut, &arguments.output),
        Task::Chips(layout) => run_chips(&job, layout),
    }
}

/// Chips of all scenes in one file or store.
fn run_chips(job: &Job<'_>, layout: &EmbeddingLayout) -> Result<Outcome> {
    let arguments = job.arguments;
    let is_zarr = is_store_name(&arguments.output);
    check_output(&arguments.output, &job.options)?;
    zarr_plan::refuse_store_of_plan(&arguments.output, arguments.journal.fresh)?;
    let scenes = scenes_of(job)?;
    let mut journal = open_journal(&arguments.output, &arguments.journal)?;
    let columns = job.columns(&scenes);
    let count = scenes.len();
    let names: Vec<String> = scenes.iter().map(|scene| scene.name.clone()).collect();
    let mut source = SceneSource::new(scenes, job.opener.clone(), job.options.clone());
    if is_zarr {
        source = source.demanding(Form::ChipStore.demand());
    }
    let reports = SceneReports::of(&mut source);
    if let Some(survey) = source.survey()
        && survey.chips == 0
    {
        match survey.unusable.first() {
            // None can be used: most likely an option is missing, and the weights need not be read to say so.
            Some(error) if count == 1 => return Err(error.clone().into()),
            Some(error) if survey.unusable.len() == count => {
                return Err(anyhow!("none of {count} scenes can be used; the first one: {error}"));
            }
            _ if job.options.area.is_some() => {
                eprintln!("note: no chip of any scene lies in the area of interest: the output has no rows");
            }
            _ if job.options.grid.is_some() => {
                eprintln!(
                    "note: no cell of --grid begins in any scene with enough of its ground: the output has no rows"
                );
            }
            _ => eprintln!("note: no scene is as large as a chip, and --edges drop leaves out what is smaller"),
        }
    }
    let Machine { opened, fingerprint, mut encoder, provenance, .. } = job.open()?;
    agree(&mut journal, &arguments.journal, fingerprint, layout)?;

    // Before the output exists, so that an interruption always removes it.
    let batch = Batch::begin(&arguments.batch, &arguments.output).of("chips").knowing(journal.known_rows());
    let kept = journal.path().to_owned();
    let listed = Arc::clone(&reports);
    let finish = Box::new(move |_: &Summary| listed.added_to(provenance.value()));
    let layout = layout.clone();
    let sink = match is_zarr {
        true => ChipSink::zarr(journal, layout, store_options(&opened, job.options.cut, group_names(&names)), finish)?,
        false => ChipSink::geoparquet(journal, layout, columns, finish)?,
    };
    source.continue_from(sink.journal().known());
    let batch = batch.telling_safe_rows(Some(sink.safe_rows()));
    reports.through(&batch.reporter);
    let source = JournaledSource::new(&source, Some(sink.journal()));
    let outcome = batch.run(&source, encoder.as_mut(), sink, &job.request, |sink| match sink.keep() {
        Ok(0) => "nothing was written".to_string(),
        Ok(rows) => format!("{rows} finished rows are kept, --resume continues"),
        Err(error) => format!("{error}; --resume continues with what was kept"),
    })?;
    note_missing(outcome, &kept);
    Ok(outcome)
}

/// Whether the output is made unit by unit: a folder or in an object store, and no store that one process writes at once.
fn goes_into_units(arguments: &SceneEmbedArguments) -> bool {
    let output = &arguments.output;
    is_store(output) && (!is_store_name(output) || is_remote(output))
}

/// Options that mean nothing for this output. The parser lets some of them pass, where they contradict each other.
fn refuse_out_of_place(arguments: &SceneEmbedArguments) -> Result<()> {
    if !arguments.dense.dense {
        options::refuse_given("embed", &options::of_dense(), "it goes with --dense")?;
    }
    if goes_into_units(arguments) {
        return Ok(());
    }
    let says_its_name = arguments.format == Some(SceneFormat::Zarr) && is_store_name(&arguments.output);
    let options: &[&str] = if says_its_name { &["scratch"] } else { &["format", "scratch"] };
    options::refuse_given("embed", options, "it is of outputs that are folders or in object stores")
}

/// The scenes that the command line names.
pub fn scenes_of(job: &Job<'_>) -> Result<Vec<SceneInput>> {
    let arguments = job.arguments;
    // Before a document among them is read.
    refuse_overwriting_inputs(&arguments.output, &as_paths(arguments.inputs.clone()))?;
    let named = named_scenes(&job.opener, &arguments.inputs, &arguments.scene)?;
    refuse_twice(&named.scenes)?;
    refuse_overwriting_inputs(&arguments.output, &named.files())?;
    Ok(named.scenes)
}

/// Scenes deserve the weights that know them.
pub fn hint_at_weights(spec: &ModelSpec) {
    if !is_for_satellites(spec) {
        let sat = "vit_large_patch16_dinov3.sat493m";
        eprintln!("note: {} was trained on pictures of the web; {sat} was trained on satellite scenes", spec.name);
    }
}

/// What a store says beside the chips.
pub fn store_options(opened: &Opened, cut: Cut, groups: BTreeMap<String, String>) -> ChipStoreOptions {
    ChipStoreOptions {
        chip_px: cut.chip_px,
        stride_px: cut.stride_px,
        model: model_uri(opened),
        groups,
        only_shard: None,
    }
}

/// A URI of the model: its repository, or a name for synthetic weights and for models without one. The hash of the weights
/// is in the provenance.
pub fn model_uri(opened: &Opened) -> String {
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

/// A name without a format's ending is a mistake.
fn check_output(output: &Path, options: &SceneOptions) -> Result<()> {
    if is_store_name(output) {
        return zarr_plan::check_cut(options);
    }
    let is_parquet = output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    match is_parquet {
        true => Ok(()),
        false => Err(usage(format!(
            "{}: the output of scenes is GeoParquet, a file that ends in .parquet, a Zarr store that ends in .zarr, or a folder; a .tif is \
             one of --dense",
            output.display()
        ))),
    }
}
