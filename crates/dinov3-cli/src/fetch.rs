//! `dinov3 fetch`, and the downloads of other commands: weights by name.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dinov3::hub::{CachedBecause, Hub, HubError, HubReference, Settings, Snapshot, default_reference, open_copy};
use dinov3::{ModelSpec, find_model, spec};
use serde_json::{Value, json};

use crate::arguments::{FetchArguments, ModelArguments};
use crate::failure::{Outcome, usage};
use crate::progress::DownloadReporter;

/// Runs the command.
pub fn run(arguments: &FetchArguments) -> Result<Outcome> {
    // All names first: a typing mistake in the last one shall not come after an hour.
    let references: Vec<HubReference> =
        arguments.models.iter().map(|text| reference(text, arguments.revision.as_deref())).collect::<Result<_>>()?;
    let mut all = Vec::new();
    let mut out = std::io::stdout();
    let mut result = Ok(Outcome::Done);
    for reference in &references {
        match download(reference) {
            Ok(snapshot) if arguments.json => all.push(describe(&snapshot)),
            Ok(snapshot) => writeln!(out, "{}", snapshot.weights.display())?,
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    // Also of those before a failure: they are there.
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
    }
    result
}

/// `hf-hub:` means that very repository; any other text a model, whose repository is timm's.
fn reference(text: &str, revision: Option<&str>) -> Result<HubReference> {
    let Some(reference) = HubReference::parse(text) else {
        let spec = find_model(text).map_err(|error| match HubReference::new(text, None) {
            Ok(_) if !Path::new(text).exists() => {
                usage(format!("{error}; a repository that is no model of the table is named in full: hf-hub:{text}"))
            }
            _ => error.into(),
        })?;
        return default_reference(&spec, revision).map_err(|error| usage(error.to_string()));
    };
    at_revision(reference.map_err(|error| usage(error.to_string()))?, text, revision)
}

fn at_revision(reference: HubReference, text: &str, revision: Option<&str>) -> Result<HubReference> {
    match revision {
        Some(_) if text.contains('@') => Err(usage(format!("{text} and --revision both name a revision"))),
        Some(_) => HubReference::new(reference.repository(), revision).map_err(|error| usage(error.to_string())),
        None => Ok(reference),
    }
}

/// The repository that a command's weights come from; `None` if they come from elsewhere.
pub fn weights_reference(spec: &ModelSpec, arguments: &ModelArguments) -> Result<Option<HubReference>> {
    let revision = arguments.revision.as_deref();
    let Some(weights) = arguments.weights.as_deref() else {
        let reference = default_reference(spec, revision).map_err(|_| {
            usage(format!(
                "no weights given for {}, and no repository is known for it: pass --weights FILE or --weights \
                 hf-hub:org/name, or try --weights synthetic:7",
                spec.name
            ))
        });
        return reference.map(Some);
    };
    match HubReference::parse(weights) {
        Some(reference) => {
            let reference = reference.map_err(|error| usage(format!("--weights {error}")))?;
            at_revision(reference, weights, revision).map(Some)
        }
        None if revision.is_some() => Err(usage("--revision is for weights that are downloaded")),
        None => Ok(None),
    }
}

/// The weights that a command only looks at: a path, or what the cache holds of a repository.
pub fn weights_path(named: &Path) -> Result<PathBuf> {
    let text = named.to_str().unwrap_or_default();
    let Some(reference) = HubReference::parse(text) else {
        return match find_model(text) {
            Ok(spec) if !named.exists() => Err(usage(match spec.hub_ids.first() {
                Some(repository) => format!("{text} is a model; its weights are a file, or hf-hub:{repository}"),
                None => format!("{text} is a model; name the file of its weights"),
            })),
            _ => Ok(named.to_path_buf()),
        };
    };
    let reference = reference.map_err(|error| usage(error.to_string()))?;
    let mut settings = Settings::from_environment()?;
    settings.offline = Some("this command");
    match Hub::new(settings).fetch(&reference, &mut |_| ControlFlow::Continue(())) {
        Ok(snapshot) => Ok(snapshot.weights),
        Err(HubError::NotCached { .. }) => bail!("{text} is not in the cache; 'dinov3 fetch {text}' downloads it"),
        Err(error) => Err(error.into()),
    }
}

/// Fetches with progress on standard error.
pub fn download(reference: &HubReference) -> Result<Snapshot> {
    let mut reporter = DownloadReporter::new(license_of(reference));
    let result = Hub::from_environment()?.fetch(reference, &mut |event| reporter.tell(&event));
    reporter.finish();
    result.map_err(|error| match open_copy(reference) {
        Some(open) => error.with_open_copy(&open).into(),
        None => error.into(),
    })
}

/// The licence of a repository of the table, with the link where one is known.
fn license_of(reference: &HubReference) -> Option<String> {
    let all = spec::all();
    let row = all.iter().find(|row| row.hub_ids.iter().any(|id| id == reference.repository()))?;
    Some(match spec::license(&row.license) {
        (name, Some(link)) => format!("{name}, {link}"),
        (name, None) => name.to_string(),
    })
}

fn describe(snapshot: &Snapshot) -> Value {
    let files = snapshot.files.iter().map(|file| {
        json!({
            "name": file.name, "bytes": file.size_bytes, "sha256": file.sha256, "downloaded": file.downloaded,
        })
    });
    json!({
        "repository": snapshot.reference.repository(),
        "revision": snapshot.reference.revision(),
        "commit": snapshot.commit,
        "folder": snapshot.folder,
        "weights": snapshot.weights,
        "files": files.collect::<Vec<_>>(),
        "cached": match &snapshot.cached {
            None => Value::Null,
            Some(CachedBecause::Commit) => json!("the commit is in the cache"),
            Some(CachedBecause::Offline) => json!("offline"),
            Some(CachedBecause::NoAnswer(error)) => json!(error),
            Some(_) => json!("in the cache"),
        },
    })
}
