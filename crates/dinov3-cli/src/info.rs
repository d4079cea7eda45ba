//! `dinov3 info`: what this machine offers, or what a checkpoint holds.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use dinov3::checkpoint::{Checkpoint, FileSet, Report, StoredHead, open_files};
use dinov3::packed::{self, PackedFile, is_packed};
use dinov3::weights::WeightsError;
use dinov3::{Isa, ModelSpec, Precision, find_model, measure_peak, spec, system, with_head_in};
use serde_json::{Value, json};

use crate::arguments::InfoArguments;
use crate::failure::{Outcome, printable_line};
use crate::fetch::weights_path;

/// Runs the command.
pub fn run(arguments: &InfoArguments) -> Result<Outcome> {
    let (json, text) = match &arguments.weights {
        None => machine(arguments.peak)?,
        Some(path) => weights(path, arguments.model.as_deref())?,
    };
    let text = if arguments.json { serde_json::to_string_pretty(&json)? + "\n" } else { text };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

fn machine(peak: bool) -> Result<(Value, String)> {
    let isa = Isa::try_from_env()?;
    let supported: Vec<&str> = Isa::all_supported().iter().map(|isa| isa.name()).collect();
    let forced = std::env::var_os("DINOV3_ISA").is_some_and(|forced| !forced.is_empty());
    let reason = if forced { "forced by DINOV3_ISA" } else { "the best one of this CPU" };
    let candidates = Isa::candidates();
    let (precision, precision_reason) = Precision::auto(isa);
    let threads = system::threads::available_threads();
    let cache = system::cache_directory().map(|path| path.display().to_string());
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "dinov3            {version}\ninstruction set   {} ({reason}; it has {})\n",
        isa.name(),
        supported.join(", ")
    );
    let mut title = "passed over";
    for candidate in &candidates {
        if let Some(obstacle) = &candidate.obstacle {
            text += &format!("{title:<18}{}: {obstacle}\n", candidate.name);
            title = "";
        }
    }
    text += &format!("precision auto    {}: {precision_reason}\n", precision.name());
    text += &format!("threads           {threads}\ncache             {}\n", cache.as_deref().unwrap_or("none"));
    let mut json = json!({
        "version": version, "instruction_set": isa.name(), "reason": reason, "supported": supported,
        "candidates": candidates.iter().map(|candidate| json!({
            "name": candidate.name, "supported": candidate.isa.is_some(), "obstacle": candidate.obstacle,
        })).collect::<Vec<_>>(),
        "precision_auto": {"precision": precision.name(), "reason": precision_reason},
        "threads": threads, "cache": cache,
    });
    if peak {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let peak = measure_peak(precision, isa, threads);
            let (gflops, share) = (peak.flops / 1e9, peak.undisturbed_share);
            let name = format!("peak {}", precision.name());
            text += &format!("{name:<18}{gflops:.0} GFLOP/s, {:.0} % of it all the time\n", 100.0 * share);
            json["peak_gflops"][precision.name()] = json!(gflops);
            json["undisturbed_share"][precision.name()] = json!(share);
        }
    }
    Ok((json, text))
}

fn weights(path: &Path, model: Option<&str>) -> Result<(Value, String)> {
    let path = &weights_path(path)?;
    if is_packed(path) {
        let file = PackedFile::open(path)?;
        if let Some(model) = model {
            check_packed_model(&file, &find_model(model)?)?;
        }
        return told_of_packed(&file);
    }
    let files = open_files(path)?;
    if model.is_none()
        && let Some(head) = head_alone(path, &files)
    {
        let text = format!("head              {}\n", described(&head));
        let json = json!({"head": {"classes": head.classes(), "features": head.inputs()}, "files": head.paths()});
        return Ok((json, text));
    }
    let (spec, report) = match model {
        Some(model) => {
            let spec = with_head_in(find_model(model)?, &files)?;
            let report = Checkpoint::from_files(files.clone(), &spec)?.report;
            (spec, report)
        }
        None => matching_model(&files)?,
    };
    let bytes: u64 = files.paths.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
    let names: Vec<String> = files.paths.iter().map(|path| path.display().to_string()).collect();
    // Models that differ only in their tag or their all-zero biases have the same tensors.
    let others: Vec<String> = spec::all()
        .into_iter()
        .filter(|other| other.architecture == spec.architecture && other.name != spec.name)
        .map(|other| other.name)
        .collect();
    let mut ignored: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, reason) in &report.ignored {
        ignored.entry(reason).or_default().push(tensor);
    }

    let mut text = format!("names             {}\n", report.dialect);
    text += &format!("files             {} ({:.1} MB)\n", names.join(", "), bytes as f64 / 1e6);
    let types: Vec<String> = report.dtypes.iter().map(|(dtype, count)| format!("{count} x {dtype}")).collect();
    text += &format!("tensors           {} ({})\n", files.tensors.len(), types.join(", "));
    text += &format!("fits              {} ({:.1} M parameters)\n", spec.name, spec.parameter_count() as f64 / 1e6);
    if !others.is_empty() {
        text += &format!("fits as well      {}\n", others.join(", "));
    }
    if !report.dropped_zero_biases.is_empty() {
        text += &format!("dropped           {} all-zero q/v biases\n", report.dropped_zero_biases.len());
    }
    for (reason, tensors) in &ignored {
        let more = if tensors.len() > 1 { format!(" and {} more", tensors.len() - 1) } else { String::new() };
        text += &format!("ignored           {}{more}: {reason}\n", tensors[0]);
    }
    let json = json!({
        "dialect": report.dialect.to_string(), "files": names, "bytes": bytes, "tensors": files.tensors.len(),
        "dtypes": report.dtypes, "model": spec.name, "other_models": others,
        "ignored": report.ignored.iter().map(|(tensor, reason)| json!({"tensor": tensor, "reason": reason})).collect::<Vec<_>>(),
        "dropped_zero_biases": report.dropped_zero_biases,
    });
    Ok((json, text))
}

/// What a packed file says of itself, in JSON and for people.
pub fn told_of_packed(file: &PackedFile) -> Result<(Value, String)> {
    let (spec, precision) = (packed::spec_of(file)?, packed::precision_of(file)?);
    let description = file.description();
    let (name, bytes) = (file.path().display().to_string(), file.map().len());
    let readers = packed::instruction_sets_of(&description.layout);
    let isa = Isa::try_from_env()?;
    let for_whom = match readers.as_slice() {
        [] => format!("for another machine: {} takes {}", isa.name(), packed::layout_of(isa)),
        readers => format!("for {}", readers.join(", ")),
    };
    let heads = match spec.num_classes() {
        0 => String::new(),
        classes => format!(", head of {classes} classes"),
    };
    // Texts are the file's own: one line each, and no longer than one.
    let line = |name: &str, value: &str| {
        let value: String = value.chars().take(400).collect();
        format!("{name:<18}{}\n", printable_line(&value))
    };
    let mut text = line("packed", &format!("{name} ({:.1} MB, by {})", bytes as f64 / 1e6, description.program));
    text += &line("model", &format!("{} ({:.1} M parameters{heads})", spec.name, spec.parameter_count() as f64 / 1e6));
    text += &line("precision", precision.name());
    text += &line("layout", &format!("{} ({for_whom})", description.layout));
    text += &line("parts", &file.parts().len().to_string());
    text += &line("source", &source_in_words(&description.source));
    text += &line("digest", file.digest());
    let json = json!({
        "packed": name, "bytes": bytes, "program": description.program, "model": spec.name,
        "precision": precision.name(), "layout": description.layout, "instruction_sets": readers,
        "parts": file.parts().len(), "source": description.source, "digest": file.digest(),
    });
    Ok((json, text))
}

/// Refuses a packed file of another architecture than `model`'s.
pub fn check_packed_model(file: &PackedFile, model: &ModelSpec) -> Result<()> {
    let found = packed::spec_of(file)?;
    let model =
        if model.num_classes() == 0 { model.clone().with_num_classes(found.num_classes()) } else { model.clone() };
    if found.architecture != model.architecture {
        bail!("{}: holds {}, which is not {}", file.path().display(), found.name, model.name);
    }
    Ok(())
}

/// The weights that were packed: their files and hashes, or their seed.
fn source_in_words(source: &Value) -> String {
    if let Some(synthetic) = source["synthetic"].as_str() {
        return synthetic.to_string();
    }
    let files = source["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words = |file: &Value| {
        let text = |field: &str| file[field].as_str().unwrap_or("?").to_string();
        format!("{}, sha256 {}", text("name"), text("sha256"))
    };
    match files {
        [] => source.to_string(),
        [file] => words(file),
        [first, rest @ ..] => format!("{} and {} more files", words(first), rest.len()),
    }
}

/// The linear head in a file of its own; `None` if an encoder or anything else lies in it.
pub fn head_alone(path: &Path, files: &FileSet) -> Option<StoredHead> {
    // A weight and perhaps a bias.
    if files.tensors.len() > 2 {
        return None;
    }
    StoredHead::open(path).ok()
}

/// A head in a few words.
pub fn described(head: &StoredHead) -> String {
    format!("{} [{}, {}]: {} classes", head.weight_name(), head.classes(), head.inputs(), head.classes())
}

/// The first model of the table that the files fit. A file name that names a model goes first.
pub fn matching_model(files: &FileSet) -> Result<(ModelSpec, Report)> {
    let named = files.name.display().to_string();
    let mut specs = spec::all();
    specs.sort_by_key(|spec| {
        let tag = spec.name.rsplit('.').next().unwrap_or_default();
        !named.contains(tag)
    });
    let mut closest: Option<(usize, WeightsError)> = None;
    for spec in specs {
        let spec = with_head_in(spec, files)?;
        match Checkpoint::from_files(files.clone(), &spec) {
            Ok(checkpoint) => return Ok((spec, checkpoint.report)),
            Err(error) => {
                let problems = match &error {
                    WeightsError::Mismatch { problems, .. } => problems.len(),
                    WeightsError::BiasNotZero { .. } => usize::MAX,
                    _ => return Err(error.into()),
                };
                if closest.as_ref().is_none_or(|(fewest, _)| problems < *fewest) {
                    closest = Some((problems, error));
                }
            }
        }
    }
    let (_, error) = closest.context("the model table is empty")?;
    Err(anyhow::Error::new(error).context("these tensors fit no model of the table; the closest one differs so"))
}
