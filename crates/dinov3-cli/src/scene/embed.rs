//! `dinov3 scene embed`: one vector per chip.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use dinov3::engine::{Source, Summary};
use dinov3::sink::{ChipSink, ChipStoreOptions, JournaledSource, check_grid, group_names, is_store_name};
use dinov3::{ModelSpec, Opened, WeightsIdentity};
use dinov3_scene::{Cut, Edges, ResampledFiles, SceneInput, SceneSource};
use serde_json::{Value, json};

use crate::arguments::SceneEmbedArguments;
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::resume::{agree, open_journal};
use crate::scene::inputs::{as_paths, named_scenes, refuse_twice};
use crate::scene::job::{Job, Machine};
use crate::scene::reports::SceneReports;
use crate::scene::store::is_store;
use crate::scene::{folder, is_for_satellites, resampling_told};
use crate::setup::refuse_overwriting_inputs;

/// Runs the command.
pub fn run(arguments: &SceneEmbedArguments) -> Result<Outcome> {
    let job = Job::new(arguments)?;
    let is_zarr = is_store_name(&arguments.output);
    if !is_zarr && is_store(&arguments.output) {
        return folder::run(&job);
    }
    check_output(&arguments.output, job.options.cut)?;
    let scenes = scenes_of(&job)?;
    let mut journal = open_journal(&arguments.output, &arguments.journal)?;
    let columns = job.columns(&scenes);
    let count = scenes.len();
    let has_several_files = scenes.iter().any(|scene| scene.files.len() > 1);
    let names: Vec<String> = scenes.iter().map(|scene| scene.name.clone()).collect();
    let mut source = SceneSource::new(scenes, job.opener.clone(), job.options.clone());
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
            _ => eprintln!("note: no scene is as large as a chip, and --edges drop leaves out what is smaller"),
        }
    }
    if has_several_files {
        note_resampling(&source);
    }
    if is_zarr {
        check_cells(&source, count)?;
    }
    hint_at_weights(&job.spec);

    let Machine { opened, fingerprint, mut encoder, provenance } = job.open()?;
    agree(&mut journal, &arguments.journal, fingerprint, &job.layout)?;

    // Before the output exists, so that an interruption always removes it.
    let batch = Batch::begin(&arguments.batch, &arguments.output).of("chips").knowing(journal.known_rows());
    let kept = journal.path().to_owned();
    let resampled = source.resampled_files();
    let listed = Arc::clone(&reports);
    let finish = Box::new(move |_: &Summary| with_scenes(provenance.value(), &listed, &resampled));
    let layout = job.layout.clone();
    let sink = match is_zarr {
        true => ChipSink::zarr(journal, layout, store_options(&opened, job.options.cut, &names), finish)?,
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
    if outcome == Outcome::SomeFailed && kept.exists() {
        eprintln!("note: the rows are kept beside it, too: the same command with --resume makes just what is missing");
    }
    Ok(outcome)
}

/// A provenance with what is known of the scenes at the end of a run.
pub fn with_scenes(mut provenance: Value, reports: &SceneReports, resampled: &ResampledFiles) -> Value {
    provenance["scenes"] = reports.list();
    let told = resampled_told(resampled);
    if told.as_array().is_some_and(|files| !files.is_empty()) {
        provenance["resampled"] = told;
    }
    provenance
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
            "{}: the output of scenes is GeoParquet, a file that ends in .parquet, a Zarr store that ends in .zarr, or a folder; a .tif is \
             one of --dense",
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
