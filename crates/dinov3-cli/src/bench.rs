//! `dinov3 bench`: speed of the encoder alone.

use std::io::Write as _;
use std::time::Instant;

use anyhow::Result;
use dinov3::{Encoder, Features, ImageBatch, ModelSpec, Request};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::arguments::BenchArguments;
use crate::failure::{Outcome, usage};
use crate::setup::{check_size, model_spec, open_model};

/// 4 GB of pixels.
const LARGEST_BATCH_VALUES: u64 = 1_000_000_000;

/// Runs the command.
pub fn run(arguments: &BenchArguments) -> Result<Outcome> {
    let spec = model_spec(&arguments.model)?;
    check_size(&spec, arguments.size.0, arguments.size.1, false, arguments.model.max_tokens)?;
    let values = u64::from(arguments.batch_size) * 3 * u64::from(arguments.size.0) * u64::from(arguments.size.1);
    if values > LARGEST_BATCH_VALUES {
        return Err(usage(format!("a batch of {values} values is above the limit of {LARGEST_BATCH_VALUES}")));
    }
    let opened = open_model(&spec, &arguments.model)?;
    let (height_px, width_px) = (arguments.size.0 as usize, arguments.size.1 as usize);
    let count = usize::from(arguments.batch_size);
    let mut pixels = vec![0.0; count * 3 * height_px * width_px];
    let shape = [pixels.len(), 1];
    dinov3::synthetic::fill("bench.weight", &shape, 0, false, 0, &mut pixels);
    let batch = ImageBatch { pixels: &pixels, count, height_px, width_px };
    let request = Request::new().poolings([spec.pooling]);
    let mut session = opened.model.session();
    let mut features = Features::default();

    session.encode(&batch, &request, &mut features)?;
    let mut seconds = Vec::new();
    for _ in 0..arguments.runs {
        let start = Instant::now();
        session.encode(&batch, &request, &mut features)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let rate = count as f64 / median;
    let gflops = rate * flops(&spec, height_px, width_px) / 1e9;
    // A rate cannot come from work left out: the hash is that of the outputs.
    let embeddings = &features.pooled[0].1.data;
    let hash = Sha256::digest(embeddings.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();

    let text = if arguments.json {
        let json = json!({
            "model": spec.name, "precision": opened.model.options().precision.name(),
            "instruction_set": opened.model.isa().name(), "threads": session.threads(), "batch_size": count,
            "height_px": height_px, "width_px": width_px, "seconds": seconds, "images_per_second": rate,
            "gflops": gflops, "output_sha256": hash,
        });
        serde_json::to_string_pretty(&json)? + "\n"
    } else {
        format!(
            "{} {} on {}, {} threads, batch {count}, {height_px}x{width_px}\n{rate:.2} images/s, {gflops:.0} GFLOP/s \
             (median of {} runs; fastest {:.2} images/s)\n",
            spec.name,
            opened.model.options().precision.name(),
            opened.model.isa().name(),
            session.threads(),
            seconds.len(),
            count as f64 / seconds[0],
        )
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

/// Floating-point operations of one image, a multiplication and an addition counted as two.
fn flops(spec: &ModelSpec, height_px: usize, width_px: usize) -> f64 {
    let product = |rows: usize, n: usize, k: usize| 2.0 * rows as f64 * n as f64 * k as f64;
    if let Some(vit) = spec.vit() {
        let patches = height_px.div_ceil(vit.patch_px) * width_px.div_ceil(vit.patch_px);
        let (tokens, d) = (patches + vit.prefix_tokens(), vit.embed_dim);
        let branches = if vit.mlp == dinov3::spec::Mlp::SwiGlu { 3 } else { 2 };
        let block =
            product(tokens, 4 * d, d) + product(tokens, 2 * tokens, d) + product(tokens, branches * vit.mlp_hidden, d);
        return product(patches, d, 3 * vit.patch_px * vit.patch_px) + vit.depth as f64 * block;
    }
    let Some(convnext) = spec.convnext() else { return 0.0 };
    let (mut h, mut w) = (height_px / 4, width_px / 4);
    let mut total = product(h * w, convnext.dims[0], 48);
    for stage in 0..4 {
        let c = convnext.dims[stage];
        if stage > 0 {
            (h, w) = (h / 2, w / 2);
            total += product(h * w, c, 4 * convnext.dims[stage - 1]);
        }
        total += convnext.depths[stage] as f64 * (product(h * w, 8 * c, c) + product(h * w, c, 49));
    }
    total
}
