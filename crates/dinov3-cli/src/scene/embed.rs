//! `dinov3 scene embed`: one vector per chip.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use dinov3::ModelSpec;
use dinov3::engine::Summary;
use dinov3::inputs::{Kind, expand};
use dinov3::sink::{GeoParquetSink, JournaledSource};
use dinov3_scene::{SceneInput, SceneSource, scene_name};

use crate::arguments::SceneEmbedArguments;
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::resume::{agree, open_journal};
use crate::scene::job::{Job, Machine};
use crate::scene::store::is_store;
use crate::scene::{folder, is_for_satellites};
use crate::setup::refuse_overwriting_inputs;

/// Runs the command.
pub fn run(arguments: &SceneEmbedArguments) -> Result<Outcome> {
    let job = Job::new(arguments)?;
    if is_store(&arguments.output) {
        return folder::run(&job);
    }
    check_output(&arguments.output)?;
    let inputs = scenes_of(arguments)?;
    let mut journal = open_journal(&arguments.output, &arguments.journal)?;
    let columns = job.columns(&inputs);
    let scenes = inputs.len();
    let mut source = SceneSource::new(inputs, job.opener.clone(), job.options.clone());
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
    hint_at_weights(&job.spec);

    let Machine { opened: _opened, fingerprint, mut encoder, provenance } = job.open()?;
    agree(&mut journal, &arguments.journal, fingerprint, &job.layout)?;

    // Before the output exists, so that an interruption always removes it.
    let batch = Batch::begin(&arguments.batch, &arguments.output).of("chips").knowing(journal.known_rows());
    let kept = journal.path().to_owned();
    let finish = Box::new(move |_: &Summary| provenance.value());
    let sink = GeoParquetSink::create(journal, job.layout.clone(), columns, finish)?;
    let batch = batch.telling_safe_rows(Some(sink.safe_rows()));
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

/// The scenes that the command line names.
pub fn scenes_of(arguments: &SceneEmbedArguments) -> Result<Vec<SceneInput>> {
    let files = as_paths(expand(&arguments.inputs, Kind::Scenes, &mut std::io::stdin().lock())?);
    refuse_twice(&files)?;
    refuse_overwriting_inputs(&arguments.output, &files)?;
    Ok(files.into_iter().map(SceneInput::from).collect())
}

/// Scenes deserve the weights that know them.
pub fn hint_at_weights(spec: &ModelSpec) {
    if !is_for_satellites(spec) {
        let sat = "vit_large_patch16_dinov3.sat493m";
        eprintln!("note: {} was trained on pictures of the web; {sat} was trained on satellite scenes", spec.name);
    }
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

/// A name without the format's ending is a mistake.
fn check_output(output: &Path) -> Result<()> {
    let is_parquet = output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    match is_parquet {
        true => Ok(()),
        false => Err(usage(format!(
            "{}: the output of scenes is GeoParquet, a file that ends in .parquet, or a folder",
            output.display()
        ))),
    }
}
