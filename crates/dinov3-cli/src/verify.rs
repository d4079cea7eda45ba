//! `dinov3 verify`: whether weights are whole, and whether a model gives the values published for it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use dinov3::checkpoint::hash::{CheckedFile, check_file};
use dinov3::checkpoint::{Checkpoint, FileSet, StoredHead, VerifyReport, open_files, verify_files};
use dinov3::golden::{self, GoldenRow};
use dinov3::image::decimal;
use dinov3::packed::{PackedFile, is_packed};
use dinov3::pixels::DecodeOptions;
use dinov3::system::threads::{Pool, available_threads};
use dinov3::{find_model, tensors, with_head_in};
use serde_json::{Value, json};

use crate::arguments::{ModelArguments, VerifyArguments};
use crate::failure::{Outcome, usage};
use crate::fetch::weights_path;
use crate::info::{check_packed_model, described, head_alone, matching_model, told_of_packed};
use crate::progress::reading;
use crate::setup::open_model;

/// Runs the command.
pub fn run(arguments: &VerifyArguments) -> Result<Outcome> {
    match &arguments.golden {
        Some(picture) => verify_values(arguments, picture),
        None => verify_weights(arguments),
    }
}

fn print(arguments: &VerifyArguments, json: &Value, text: &str) -> Result<()> {
    let text = if arguments.json { serde_json::to_string_pretty(json)? + "\n" } else { text.to_string() };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Checks the files, then that their tensors are a model's, then every value.
fn verify_weights(arguments: &VerifyArguments) -> Result<Outcome> {
    let target = weights_path(Path::new(&arguments.target))?;
    if is_packed(&target) {
        return verify_packed(arguments, &target);
    }
    let files = open_files(&target)?;
    if arguments.model.is_none()
        && let Some(head) = head_alone(&target, &files)
    {
        return verify_head(arguments, &target, &files, &head);
    }
    // What takes no time first: whether the tensors are a model's.
    let spec = match &arguments.model {
        Some(model) => with_head_in(find_model(model)?, &files)?,
        None => matching_model(&files)?.0,
    };
    let checkpoint = Checkpoint::from_files(files.clone(), &spec)?;
    let checked = checked_files(&files)?;
    let read = read_everything(&target)?;
    let tensor_count = read.tensors;
    let values: usize = tensors::tensors(&spec).iter().map(|tensor| tensor.elements()).sum();
    let report = &checkpoint.report;
    let types: Vec<String> = report.dtypes.iter().map(|(dtype, count)| format!("{count} x {dtype}")).collect();
    let (mut text, mut json) = told_of_files(&checked, &read);
    text += &format!("names             {}\n", report.dialect);
    text += &format!("tensors           {tensor_count} ({}), all accounted for\n", types.join(", "));
    text += &format!("values            {values}, all finite\n");
    text += &format!("fits              {}\n", spec.name);
    json["dialect"] = json!(report.dialect.to_string());
    json["tensors"] = json!(tensor_count);
    json["dtypes"] = json!(report.dtypes);
    json["values"] = json!(values);
    json["model"] = json!(spec.name);
    print(arguments, &json, &text)?;
    Ok(Outcome::Done)
}

/// The same for a packed file: every byte against the checksums, then whether every part of the model is there.
fn verify_packed(arguments: &VerifyArguments, target: &Path) -> Result<Outcome> {
    let file = PackedFile::open(target)?;
    if let Some(model) = &arguments.model {
        check_packed_model(&file, &find_model(model)?)?;
    }
    let bar = reading(format!("reading {}", target.display()));
    let result = file.verify(&Pool::new(available_threads()), &|done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result?;
    let (mut json, mut text) = told_of_packed(&file)?;
    text += "checksums         all right\n";
    json["verified"] = json!(true);
    print(arguments, &json, &text)?;
    Ok(Outcome::Done)
}

/// The same for a linear head in a file of its own.
fn verify_head(arguments: &VerifyArguments, target: &Path, files: &FileSet, head: &StoredHead) -> Result<Outcome> {
    let checked = checked_files(files)?;
    let read = read_everything(target)?;
    let (weight, bias) = head.read()?;
    let (mut text, mut json) = told_of_files(&checked, &read);
    text += &format!("head              {}\n", described(head));
    text += &format!("values            {}, all finite\n", weight.len() + bias.len());
    json["head"] = json!({"classes": head.classes(), "features": head.inputs()});
    print(arguments, &json, &text)?;
    Ok(Outcome::Done)
}

/// Names, hashes and checksums.
fn told_of_files(checked: &[CheckedFile], read: &VerifyReport) -> (String, Value) {
    let checksums: usize = read.files.iter().map(|file| file.checksums).sum();
    let mut text = String::new();
    for file in checked {
        text += &format!("file              {} ({} bytes)\n", file.hash.name, file.hash.bytes);
        let record = match &file.recorded {
            Some(_) => "as its name in the Hugging Face cache says",
            None => "nothing on record to compare with",
        };
        text += &format!("sha256            {} ({record})\n", file.hash.sha256);
    }
    if checksums > 0 {
        text += &format!("crc32             {checksums} entries, all right\n");
    }
    let json = json!({
        "verified": true,
        "files": checked.iter().map(|file| json!({
            "name": file.hash.name, "bytes": file.hash.bytes, "sha256": file.hash.sha256, "recorded": file.recorded,
        })).collect::<Vec<_>>(),
        "crc32": checksums,
    });
    (text, json)
}

/// Hashes the files. One that is not what its cache filed is an error.
fn checked_files(files: &FileSet) -> Result<Vec<CheckedFile>> {
    let mut checked = Vec::new();
    for path in &files.paths {
        let bar = reading(format!("hashing {}", path.display()));
        if let Some(bar) = &bar {
            bar.set_length(std::fs::metadata(path).map_or(0, |information| information.len()));
        }
        let file = check_file(path, &mut |bytes| {
            if let Some(bar) = &bar {
                bar.inc(bytes as u64);
            }
        });
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let file = file.with_context(|| path.display().to_string())?;
        if let (false, Some(recorded)) = (file.is_intact(), &file.recorded) {
            bail!(
                "{}: damaged: its SHA-256 is {}, but the Hugging Face cache filed it under {recorded}; delete it and \
                 fetch it again",
                path.display(),
                file.hash.sha256
            );
        }
        checked.push(file);
    }
    Ok(checked)
}

/// Reads every byte: CRC-32 of PyTorch files, and whether every value in use is finite.
fn read_everything(path: &Path) -> Result<VerifyReport> {
    let bar = reading(format!("reading {}", path.display()));
    let report = verify_files(path, &mut |done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
        std::ops::ControlFlow::Continue(())
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(report?)
}

/// Compares what a model makes of the picture with what is published.
fn verify_values(arguments: &VerifyArguments, path: &Path) -> Result<Outcome> {
    let spec = find_model(&arguments.target)?;
    let expected = golden::published(&spec).ok_or_else(|| {
        let models: Vec<&str> = golden::published_models().collect();
        usage(format!("{}: no published values; there are some for {}", spec.name, models.join(", ")))
    })?;
    let picture = dinov3::image::read_rgb(path, &DecodeOptions::default())
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let size = (picture.width_px(), picture.height_px());
    let right_size = size == golden::PICTURE_SIZE_PX;
    if !right_size {
        let (width, height) = golden::PICTURE_SIZE_PX;
        eprintln!(
            "warning: {} is {} x {} pixels; {}, which the values are published for, is {width} x {height}",
            path.display(),
            size.0,
            size.1,
            golden::PICTURE
        );
    }
    let opened = open_model(&spec, &model_arguments(arguments))?;
    let found = golden::values_of(&mut opened.model.session(), &picture)?;
    let rows = golden::compare(expected, &found);
    let differing = rows.iter().filter(|row| !row.agrees()).count();
    let json = json!({
        "verified": differing == 0,
        "model": spec.name,
        "weights": opened.weights.start_hashing().wait(),
        "picture": golden::PICTURE,
        "picture_size_is_right": right_size,
        "tolerance": golden::TOLERANCE,
        "values": rows.iter().map(row_json).collect::<Vec<_>>(),
    });
    print(arguments, &json, &table(&rows))?;
    if differing > 0 {
        bail!(
            "{differing} of {} values are more than {} away from those published for {} and {}: other weights, another \
             picture, or a fault",
            rows.len(),
            golden::TOLERANCE,
            spec.name,
            golden::PICTURE
        );
    }
    Ok(Outcome::Done)
}

/// The rest of a model's options at their defaults.
fn model_arguments(arguments: &VerifyArguments) -> ModelArguments {
    ModelArguments {
        model: arguments.target.clone(),
        weights: arguments.weights.clone(),
        precision: arguments.precision,
        rope_periods: arguments.rope_periods,
        ..ModelArguments::default()
    }
}

fn row_json(row: &GoldenRow) -> Value {
    let mut fields = BTreeMap::from([("token", json!(row.token)), ("index", json!(row.index))]);
    fields.insert("expected", json!(decimal(row.expected)));
    fields.insert("found", json!(decimal(row.found)));
    fields.insert("difference", json!(row.difference()));
    fields.insert("agrees", json!(row.agrees()));
    json!(fields)
}

fn table(rows: &[GoldenRow]) -> String {
    let mut text = format!("{:<8} {:>5} {:>11} {:>11} {:>11}\n", "token", "index", "expected", "found", "difference");
    for row in rows {
        let verdict = if row.agrees() { "" } else { "  differs" };
        text += &format!(
            "{:<8} {:>5} {:>11.6} {:>11.6} {:>11.6}{verdict}\n",
            row.token,
            row.index,
            row.expected,
            row.found,
            row.difference()
        );
    }
    text
}
