//! `dinov3 scene embed`: one vector per chip.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use dinov3::engine::Summary;
use dinov3::image::statistics;
use dinov3::inputs::{Kind, expand};
use dinov3::pixels::Recipe;
use dinov3::sink::{ChipColumns, EmbeddingLayout, GeoParquetSink, JournaledSource};
use dinov3::{Encoder, Normalized, Request};
use dinov3_scene::{SceneInput, SceneOptions, SceneSource, scene_name};
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
    let layout = EmbeddingLayout::for_request(&spec, &request)?;
    let options = scene_options(&arguments.scene, statistics(&spec), arguments.datetime)?;
    check_output(&arguments.output)?;
    let files = as_paths(expand(&arguments.inputs, Kind::Scenes, &mut std::io::stdin().lock())?);
    refuse_twice(&files)?;
    refuse_overwriting_inputs(&arguments.output, &files)?;
    let mut journal = open_journal(&arguments.output, &arguments.journal)?;
    let scenes = files.len();
    let mut source = SceneSource::new(
        files.into_iter().map(SceneInput::from).collect(),
        opener(&arguments.scene, &arguments.remote),
        options.clone(),
    );
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
    let sink = GeoParquetSink::create(journal, layout, ChipColumns::default(), finish)?;
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

/// What was made of the scenes, for provenance.
pub(super) fn described(options: &SceneOptions) -> Value {
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
pub(super) fn as_paths(scenes: Vec<PathBuf>) -> Vec<PathBuf> {
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
            "{}: the output of scenes is GeoParquet, a file that ends in .parquet",
            output.display()
        ))),
    }
}
