//! A folder of pictures into a Parquet file: source, encoder, sink. Bad pictures are reported, the others go on.
//!
//!     cargo run --release --example whole_folder -- vit_small_patch16_dinov3 synthetic:7 photos out.parquet

use std::error::Error;

use dinov3::engine::{RunOptions, run};
use dinov3::image::{FileSource, recipe};
use dinov3::sink::{EmbeddingLayout, EmbeddingSink};
use dinov3::{Options, Pooling, Request, Weights};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, weights, folder, output] = &arguments[..] else {
        return Err("expected MODEL WEIGHTS FOLDER OUTPUT".into());
    };

    let opened = dinov3::open(model, &Weights::parse(weights)?, &Options::new())?;
    let files = dinov3::inputs::expand(&[folder.into()], dinov3::inputs::Kind::Pictures, &mut std::io::empty())?;
    let source = FileSource::new(files, Default::default(), recipe(opened.spec()));
    let request = Request::new().poolings([Pooling::Average]);
    let layout = EmbeddingLayout::for_request(opened.spec(), &request)?;
    let name = opened.spec().name.clone();
    let provenance = move |_: &dinov3::engine::Summary| serde_json::json!({"model": name});
    let mut sink = EmbeddingSink::open(output, layout, Box::new(provenance))?;

    let options = RunOptions::new().batch_size(8).progress(|progress| eprintln!("{} done", progress.done));
    let summary = run(&source, &mut opened.model.session(), &mut sink, &request, &options)?;
    println!("{} pictures, {} failed", summary.done, summary.failed.len());
    Ok(())
}
