//! The feature maps of the last three blocks (or of all stages), and tokens, of one picture.
//!
//!     cargo run --release --example feature_maps -- vit_small_patch16_dinov3 synthetic:7 a.jpg

use std::error::Error;

use dinov3::{Options, Request, Weights};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, weights, picture] = &arguments[..] else { return Err("expected MODEL WEIGHTS PICTURE".into()) };

    let model = dinov3::open(model, &Weights::parse(weights)?, &Options::new())?;
    let image = model.preprocess_path(picture)?;
    let blocks = model.spec().default_taps();
    for (block, map) in blocks.iter().zip(model.feature_maps(&image, &blocks)?) {
        println!("block {block}: {:?}", map.shape); // [D, h, w], without the final norm
    }

    // Everything from one pass: a request.
    let request = Request::new().tokens().taps(blocks).tap_norm(true);
    let features = model.encode(&image, &request)?;
    println!("tokens: {:?}", features.tokens.ok_or("asked for")?.shape); // [1, T, D]
    println!("last map, normed: {:?}", features.maps.last().ok_or("asked for")?.map.shape); // [1, D, h, w]
    Ok(())
}
