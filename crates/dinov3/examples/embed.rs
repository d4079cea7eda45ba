//! One vector per picture, and how alike two pictures are.
//!
//!     cargo run --release --example embed -- vit_small_patch16_dinov3 synthetic:7 a.jpg b.jpg

use std::error::Error;

use dinov3::{Options, Weights};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, weights, first, second] = &arguments[..] else {
        return Err("expected MODEL WEIGHTS PICTURE PICTURE".into());
    };

    let model = dinov3::open(model, &Weights::parse(weights)?, &Options::new())?;
    let images = [model.preprocess_path(first)?, model.preprocess_path(second)?];
    let embeddings = model.embed_all(&images)?; // [2, D]

    let (a, b) = (embeddings.item(0), embeddings.item(1));
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    println!("{} numbers per picture", a.len());
    println!("cosine similarity {:.4}", product(a, b) / (product(a, a) * product(b, b)).sqrt());
    Ok(())
}
