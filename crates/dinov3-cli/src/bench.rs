//! `dinov3 bench`: speed of the encoder alone.

use std::io::Write as _;
use std::time::Instant;

use anyhow::Result;
use dinov3::checkpoint::hash::sha256;
use dinov3::sink::write_npy;
use dinov3::{Array, Encoder, Features, ImageBatch, Request, cost, measure_peak};
use serde_json::json;

use crate::arguments::BenchArguments;
use crate::failure::{Outcome, usage};
use crate::setup::{check_size, extension, model_spec, open_model, precision_reason, refuse_overwriting, weight_files};

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
    if let Some(path) = &arguments.write_inputs
        && extension(path) != "npy"
    {
        return Err(usage(format!("--write-inputs {}: images are written as .npy", path.display())));
    }
    let start = Instant::now();
    let opened = open_model(&spec, &arguments.model)?;
    let open_seconds = start.elapsed().as_secs_f64();
    if let Some(path) = &arguments.write_inputs {
        refuse_overwriting(path, weight_files(&opened))?;
    }
    let (height_px, width_px) = (arguments.size.0 as usize, arguments.size.1 as usize);
    let count = usize::from(arguments.batch_size);
    let mut pixels = vec![0.0; count * 3 * height_px * width_px];
    let shape = [pixels.len(), 1];
    dinov3::synthetic::fill("bench.weight", &shape, 0, false, 0, &mut pixels);
    let batch = ImageBatch { pixels: &pixels, count, height_px, width_px };
    let request = Request::new().poolings([spec.pooling]);
    let mut session = opened.model.session();
    let mut features = Features::default();

    if let Some(path) = &arguments.write_inputs {
        let shape = vec![count, 3, height_px, width_px];
        write_npy(path, &Array { shape, data: pixels.clone() }, None)?;
    }

    let precision = opened.model.options().precision;
    let threads = session.threads();
    let probe = || measure_peak(precision, opened.model.isa(), threads);
    session.encode(&batch, &request, &mut features)?;
    // Before and after: on a machine that others use the peak moves.
    let before = probe();
    let mut seconds = Vec::new();
    for _ in 0..arguments.runs {
        let start = Instant::now();
        session.encode(&batch, &request, &mut features)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let after = probe();
    let undisturbed_share = before.undisturbed_share.min(after.undisturbed_share);
    let [before, after] = [before, after].map(|peak| peak.flops / 1e9);
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let [median, p90, p99] = [50, 90, 99].map(|percent| percentile(&sorted, percent));
    let rate = count as f64 / median;
    let gflops = rate * cost::flops_per_image(&spec, height_px, width_px) / 1e9;
    let peak = (before + after) / 2.0;
    let memory = dinov3::system::memory_use();
    // A rate cannot come from work left out: the hash is that of the outputs.
    let embeddings = &features.pooled[0].1.data;
    let hash = sha256(&embeddings.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());

    let text = if arguments.json {
        let mut json = json!({
            "version": env!("CARGO_PKG_VERSION"), "model": spec.name, "precision": precision.name(),
            "instruction_set": opened.model.isa().name(), "threads": threads, "batch_size": count,
            "height_px": height_px, "width_px": width_px, "pooling": spec.pooling.name(),
            "open_seconds": open_seconds, "seconds": seconds, "latency_seconds": {"p50": median, "p90": p90, "p99": p99},
            "images_per_second": rate, "gflops": gflops,
            "peak_gflops": {"before": before, "after": after}, "share_of_peak": gflops / peak,
            "undisturbed_share": undisturbed_share,
            "peak_resident_bytes": memory.map(|memory| memory.peak_resident_bytes),
            "anonymous_bytes": memory.map(|memory| memory.anonymous_bytes),
            "output_sha256": hash,
        });
        if let Some(reason) = precision_reason(arguments.model.precision, precision, opened.model.isa()) {
            json["precision_reason"] = json!(reason);
        }
        serde_json::to_string_pretty(&json)? + "\n"
    } else {
        let milliseconds = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
        let mut text = format!(
            "{} {} on {}, {} threads, batch {count}, {height_px}x{width_px}\n",
            spec.name,
            precision.name(),
            opened.model.isa().name(),
            threads,
        );
        text += &format!("{rate:.2} images/s (median of {}; fastest {:.2})\n", seconds.len(), count as f64 / sorted[0]);
        text += &format!(
            "{gflops:.0} GFLOP/s, {:.1} % of the peak of {peak:.0} ({before:.0} before, {after:.0} after)\n",
            100.0 * gflops / peak
        );
        text += &format!("{:.0} % of the peak all the time: the rest goes to others\n", 100.0 * undisturbed_share);
        text +=
            &format!("latency p50 {}, p90 {}, p99 {}\n", milliseconds(median), milliseconds(p90), milliseconds(p99));
        text += &format!("weights opened in {}\n", milliseconds(open_seconds));
        if let Some(memory) = memory {
            text += &format!(
                "memory {:.0} MB at most, {:.0} MB of it not backed by files at the end\n",
                memory.peak_resident_bytes as f64 / 1e6,
                memory.anonymous_bytes as f64 / 1e6
            );
        }
        text
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

/// The smallest value that at least `percent` percent of the values, in ascending order, do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([50, 90, 99].map(|percent| percentile(&hundred, percent)), [50.0, 90.0, 99.0]);
        assert_eq!([50, 90, 99].map(|percent| percentile(&hundred[..3], percent)), [2.0, 3.0, 3.0]);
        assert_eq!(percentile(&hundred[..1], 50), 1.0);
    }
}
