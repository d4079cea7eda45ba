//! Pixels that are in memory already: bytes, and floats that nobody shall resize.
//!
//!     cargo run --release --example raw_array

use std::error::Error;

use dinov3::{Options, Weights};

fn main() -> Result<(), Box<dyn Error>> {
    let model = dinov3::open("vit_small_patch16_dinov3", &Weights::parse("synthetic:7")?, &Options::new())?;

    // [480, 640, 3] bytes, resized and cropped by the model's own recipe to 256 x 256.
    let (height_px, width_px) = (480, 640);
    let bytes: Vec<u8> = (0..height_px * width_px * 3).map(|i| (i % 251) as u8).collect();
    let image = model.preprocess_rgb(height_px, width_px, &bytes)?;
    println!("{} x {} pixels -> {} features", image.height_px, image.width_px, model.embed(&image)?.len());

    // [32, 48, 3] floats from 0 to 1, normalised and nothing else. Sides must be multiples of 16.
    let floats: Vec<f32> = (0..32 * 48 * 3).map(|i| (i % 100) as f32 / 100.0).collect();
    let image = model.preprocess_f32(32, 48, &floats)?;
    println!("{} x {} pixels -> tokens {:?}", image.height_px, image.width_px, model.tokens(&image)?.shape);
    Ok(())
}
