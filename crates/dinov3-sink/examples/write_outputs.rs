//! Writes the same rows in every format, for `dev/parity/check_outputs.py`:
//! `cargo run -p dinov3-sink --example write_outputs -- FOLDER [ROWS]`

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use dinov3_engine::{ImageFeatures, ItemError, ItemErrorKind, Sink, Summary};
use dinov3_model::array::Array;
use dinov3_model::encoder::{Features, Pooling};
use dinov3_sink::{EmbeddingLayout, EmbeddingSink, write_features_safetensors, write_npy};
use serde_json::json;

const WIDTH: usize = 384;
const CLASSES: usize = 10;

fn array(row: usize, column: usize, width: usize) -> Array {
    let value = |index: usize| match (row, index) {
        // What JSON cannot say.
        (3, 0) => f32::NAN,
        (3, 1) => f32::INFINITY,
        _ => ((row * 31 + column * 17 + index) as f32 * 0.37).sin() * 1.5,
    };
    Array { shape: vec![1, width], data: (0..width).map(value).collect() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("which folder?")?);
    let rows = match arguments.next() {
        Some(rows) => rows.to_str().ok_or("how many rows?")?.parse()?,
        None => 1000,
    };
    std::fs::create_dir_all(&folder)?;

    let several = EmbeddingLayout::new(&[Pooling::Average, Pooling::Token], WIDTH, Some((Pooling::Average, CLASSES)))?;
    let single = EmbeddingLayout::new(&[Pooling::Average], WIDTH, None)?;
    for (name, layout) in [
        ("embeddings.parquet", &several),
        ("embeddings.safetensors", &several),
        ("embeddings.jsonl", &several),
        ("embeddings.npy", &single),
    ] {
        let provenance = |_: &Summary| json!({"schema": 1, "model": "vit_small_patch16_dinov3.lvd1689m"});
        let mut sink = EmbeddingSink::open(folder.join(name), layout.clone(), Box::new(provenance))?;
        for row in 0..rows {
            let key = match row {
                1 => "Bäume/松 \"quoted\".png".to_owned(),
                2 => "back\\slash.jpg".to_owned(),
                _ => format!("folder/{row:06}.jpg"),
            };
            if row % 100 == 50 {
                sink.failed(&format!("broken/{row}.jpg"), &ItemError::new(ItemErrorKind::Decode, "truncated"))?;
            }
            let mut features = Features::default();
            features.count = 1;
            features.pooled = vec![(Pooling::Average, array(row, 0, WIDTH)), (Pooling::Token, array(row, 1, WIDTH))];
            features.logits = Some(array(row, 2, CLASSES));
            sink.write(&key, ImageFeatures::new(&features, 0).ok_or("no image 0")?)?;
        }
        Sink::<String>::finish(&mut sink, &Summary::default())?;
    }

    let map = Array { shape: vec![1, 6, 4, 5], data: (0..120).map(|index| index as f32 / 8.0).collect() };
    let metadata = BTreeMap::from([("dinov3".to_owned(), json!({"schema": 1}).to_string())]);
    write_npy(folder.join("map.npy"), &map, Some(&json!({"schema": 1})))?;
    write_features_safetensors(folder.join("maps.safetensors"), &[("blocks.9".to_owned(), map)], &metadata)?;
    Ok(())
}
