//! `dinov3 embed`: one vector per picture.

use anyhow::Result;
use dinov3::engine::Summary;
use dinov3::sink::{EmbeddingLayout, EmbeddingSink};
use dinov3::{Encoder, Normalized, Pooling, Request};
use serde_json::json;

use crate::arguments::EmbedArguments;
use crate::batch::Batch;
use crate::failure::{Outcome, usage};
use crate::setup::{
    Inputs, Provenance, chosen_recipe, model_spec, open_model, refuse_overwriting, report_weights, weight_files,
};

/// Runs the command.
pub fn run(arguments: &EmbedArguments) -> Result<Outcome> {
    // Everything that can be wrong with the command line is found before the weights are read.
    let spec = model_spec(&arguments.model)?;
    let request = request(arguments, &spec)?;
    let layout = EmbeddingLayout::for_request(&spec, &request)?;
    let recipe = chosen_recipe(&spec, &arguments.model, &arguments.pixels)?;
    let files = dinov3::inputs::expand(&arguments.inputs, &mut std::io::stdin().lock())?;
    check_output(arguments, &layout)?;
    refuse_overwriting(&arguments.output, &files)?;
    let source = Inputs::new(files, recipe, &arguments.model, &arguments.pixels)?;

    let opened = open_model(&spec, &arguments.model)?;
    refuse_overwriting(&arguments.output, weight_files(&opened))?;
    report_weights(&opened);
    let provenance = Provenance::start(&opened, recipe.as_ref(), &arguments.pixels)
        .with("pooling", json!(request.poolings.iter().map(|pooling| pooling.name()).collect::<Vec<_>>()))
        .with("normalized", json!(arguments.normalize));
    let batch = Batch::begin(&arguments.batch, &arguments.output);
    let mut sink = EmbeddingSink::open(&arguments.output, layout, Box::new(move |_: &Summary| provenance.finish()))?;
    let mut encoder: Box<dyn Encoder> = match arguments.normalize {
        true => Box::new(Normalized(opened.model.session())),
        false => Box::new(opened.model.session()),
    };
    batch.run(&source, encoder.as_mut(), &mut sink, &request)
}

fn request(arguments: &EmbedArguments, spec: &dinov3::ModelSpec) -> Result<Request> {
    let poolings = match arguments.pool.is_empty() {
        true => vec![spec.pooling],
        false => arguments.pool.clone(),
    };
    for (index, pooling) in poolings.iter().enumerate() {
        if poolings[..index].contains(pooling) {
            return Err(usage(format!("--pool names '{pooling}' twice")));
        }
        if spec.vit().is_none() && *pooling == Pooling::Token {
            return Err(usage(format!("--pool token: {} has no class token; avg, max and avgmax work", spec.name)));
        }
    }
    let mut request = Request::new().poolings(poolings).pad(arguments.pixels.pad);
    if arguments.logits {
        if spec.num_classes() == 0 {
            return Err(usage("--logits: the model has no head; give --num-classes and weights with a head"));
        }
        request = request.logits(spec.pooling);
    }
    Ok(request)
}

/// Finds out whether the output can be written, before the long part.
fn check_output(arguments: &EmbedArguments, layout: &EmbeddingLayout) -> Result<()> {
    let nothing = Box::new(|_: &Summary| serde_json::Value::Null);
    drop(EmbeddingSink::open(&arguments.output, layout.clone(), nothing)?);
    Ok(())
}
