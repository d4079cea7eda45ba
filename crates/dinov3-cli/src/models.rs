//! `dinov3 models`: the table.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;
use dinov3::image::decimal;
use dinov3::{ModelSpec, cost, spec};
use serde_json::{Value, json};

use crate::arguments::ModelsArguments;
use crate::failure::Outcome;

/// Runs the command.
pub fn run(arguments: &ModelsArguments) -> Result<Outcome> {
    let text = if arguments.json {
        let models: Vec<Value> = spec::all().iter().map(describe).collect();
        serde_json::to_string_pretty(&models)? + "\n"
    } else {
        table()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

fn table() -> String {
    let mut text = format!("{:<52} {:>10} {:>5} {:>6} {:>7}\n", "MODEL", "PARAMETERS", "WIDTH", "DEPTH", "INPUT");
    for spec in spec::all() {
        let millions = format!("{:.1} M", spec.parameter_count() as f64 / 1e6);
        let depth = match spec.convnext() {
            Some(convnext) => convnext.depths.iter().sum(),
            None => spec.depth(),
        };
        let input = format!("{}x{}", spec.data.input_px.0, spec.data.input_px.1);
        let _ = writeln!(text, "{:<52} {millions:>10} {:>5} {depth:>6} {input:>7}", spec.name, spec.embed_dim());
    }
    text
}

/// Everything that the table knows of a model.
pub fn describe(spec: &ModelSpec) -> Value {
    let data = &spec.data;
    let mut text = json!({
        "name": spec.name,
        "aliases": spec::aliases(&spec.name),
        "hub_ids": spec.hub_ids,
        "license": spec.license,
        "parameters": spec.parameter_count(),
        "flops_at_256_px": cost::flops_per_image(spec, 256, 256),
        "embed_dim": spec.embed_dim(),
        "pooling": spec.pooling.name(),
        "input_px": [data.input_px.0, data.input_px.1],
        "mean": data.mean.map(decimal),
        "std": data.std.map(decimal),
        "crop_pct": data.crop_pct,
    });
    if let Some(vit) = spec.vit() {
        text["family"] = json!("vit");
        text["depth"] = json!(vit.depth);
        text["heads"] = json!(vit.heads);
        text["mlp_hidden"] = json!(vit.mlp_hidden);
        text["patch_px"] = json!(vit.patch_px);
        text["qv_bias"] = json!(vit.qv_bias);
    }
    if let Some(convnext) = spec.convnext() {
        text["family"] = json!("convnext");
        text["depths"] = json!(convnext.depths);
        text["dims"] = json!(convnext.dims);
    }
    text
}
