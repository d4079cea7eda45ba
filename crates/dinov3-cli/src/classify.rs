//! `dinov3 classify`: the best classes of each picture.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use dinov3::checkpoint::hash::PendingHashes;
use dinov3::engine::{ImageFeatures, ItemError, Sink, SinkError, Summary};
use dinov3::inputs::{Kind, expand};
use dinov3::sink::{AtomicFile, OutputError, RecordSink, RowName};
use dinov3::{ClassScore, Encoder, Head, HeadInput, Labels, ModelSpec, Request, WithHead, top_k};
use serde::Serialize;
use serde_json::{Value, json};

use crate::arguments::ClassifyArguments;
use crate::batch::Batch;
use crate::failure::{Outcome, printable_line, usage};
use crate::progress::Reporter;
use crate::setup::{
    InputKey, Inputs, Provenance, chosen_recipe, extension, model_spec, open_weights, refuse_overwriting,
    refuse_overwriting_inputs, report_weights, weight_files, weights,
};

/// Runs the command.
pub fn run(arguments: &ClassifyArguments) -> Result<Outcome> {
    // Everything that can be wrong with the command line and the head is found before the weights are read.
    let spec = model_spec(&arguments.model)?;
    let recipe = chosen_recipe(&spec, &arguments.model, &arguments.pixels)?;
    let files = expand(&arguments.inputs, Kind::Pictures, &mut std::io::stdin().lock())?;
    let json_output = json_output(arguments)?;
    let target = json_output.as_deref().unwrap_or(Path::new("-"));
    refuse_overwriting_inputs(target, &files)?;
    if target != Path::new("-") {
        // Finds out whether it can be written, before the long part.
        drop(AtomicFile::create(target)?);
    }
    let head_and_labels = arguments.head.iter().chain(&arguments.labels).cloned().collect::<Vec<_>>();
    refuse_overwriting(target, &head_and_labels)?;
    let given_labels = given_labels(arguments)?;
    let source = Inputs::new(files, &arguments.inputs, recipe, &arguments.model, &arguments.pixels)?;
    let isa = dinov3::Isa::try_from_env()?;
    let head = arguments.head.as_deref().map(|path| Head::open(path, &spec, isa, arguments.head_pool)).transpose()?;
    if let (Some(labels), Some(head)) = (&given_labels, &head) {
        labels.check(head.classes())?;
    }
    let weights = weights(&spec, &arguments.model)?;
    // The model, with the head that its checkpoint holds.
    let spec = dinov3::with_stored_head(spec, &weights)?;
    refuse_overwriting(target, head.as_ref().map(Head::paths).unwrap_or_default())?;
    let scores = Scores::new(&spec, head.as_ref(), arguments.head_pool)?;
    let labels = match given_labels {
        None if head.as_ref().is_some_and(Head::is_meta_imagenet) => Some(Labels::imagenet()),
        other => other,
    };
    if let Some(labels) = &labels {
        if scores.of_features {
            return Err(usage(format!("--labels {}: there is no head whose classes these could be", labels.name())));
        }
        labels.check(scores.count)?;
    }
    if scores.of_features {
        eprintln!(
            "warning: {} has no head, so these are dimensions of its features and not classes; --head gives one",
            spec.name
        );
    }

    let opened = open_weights(&spec, &weights, &arguments.model)?;
    refuse_overwriting(target, weight_files(&opened))?;
    report_weights(&opened);
    let batch = Batch::begin(&arguments.batch, target);
    let mut encoder: Box<dyn Encoder> = match &head {
        Some(head) => Box::new(WithHead::new(opened.model.session(), head.clone())),
        None => Box::new(opened.model.session()),
    };
    let request = scores.request().pad(arguments.pixels.pad);
    let top = arguments.top as usize;
    let sink: Box<dyn Sink<InputKey>> = match &json_output {
        Some(path) => {
            let provenance = Provenance::start(&opened, recipe.as_ref(), arguments.model.precision)
                .with_pixels(&arguments.pixels)
                .with("scores", json!({"of": scores.kind(), "count": scores.count, "input": scores.input.name()}))
                .with("labels", json!(labels.as_ref().map(Labels::name)));
            let head_hashes = head.as_ref().map(|head| PendingHashes::start(head.paths()));
            let describe = move |_: &Summary| {
                let hashes = head_hashes.map(dinov3::hashed_files);
                provenance.with("head", hashes.unwrap_or(Value::Null)).finish()
            };
            let record = move |features: ImageFeatures<'_>| -> Result<Classes, SinkError> {
                Ok(Classes::new(&scores.top(features, top)?, labels.as_ref()))
            };
            Box::new(RecordSink::open(path, record, Box::new(describe))?)
        }
        None => Box::new(Table { scores, top, labels, reporter: Arc::clone(&batch.reporter) }),
    };
    batch.run(&source, encoder.as_mut(), sink, &request, |_| "nothing was written".to_string())
}

/// Where JSON lines go; nowhere for a table.
fn json_output(arguments: &ClassifyArguments) -> Result<Option<PathBuf>> {
    match &arguments.output {
        Some(path) if path != Path::new("-") && extension(path) != "jsonl" => {
            Err(usage(format!("{}: classes are written as .jsonl, or - for standard output", path.display())))
        }
        Some(path) => Ok(Some(path.clone())),
        None => Ok(arguments.json.then(|| PathBuf::from("-"))),
    }
}

fn given_labels(arguments: &ClassifyArguments) -> Result<Option<Labels>> {
    Ok(match &arguments.labels {
        Some(name) if name == Path::new("imagenet") => Some(Labels::imagenet()),
        Some(path) => Some(Labels::from_file(path)?),
        None => None,
    })
}

/// What is ranked: the scores of a head or, for want of one, the features themselves as in the model card's example.
#[derive(Clone, Copy)]
struct Scores {
    of_features: bool,
    input: HeadInput,
    count: usize,
}

impl Scores {
    fn new(spec: &ModelSpec, head: Option<&Head>, input: Option<HeadInput>) -> Result<Self> {
        if let Some(head) = head {
            return Ok(Self { of_features: false, input: head.input(), count: head.classes() });
        }
        let of_features = spec.num_classes() == 0;
        let input = input.unwrap_or(HeadInput::Pooled(spec.pooling));
        if let (HeadInput::Pooled(dinov3::Pooling::Token) | HeadInput::ClassAndMean, None) = (input, spec.vit()) {
            return Err(usage(format!("--head-pool {}: {} has no class token", input.name(), spec.name)));
        }
        if input == HeadInput::ClassAndMean {
            return Err(usage("--head-pool cls+mean: only a head in a file of its own, --head, can take it"));
        }
        let count = if of_features { spec.embed_dim() } else { spec.num_classes() };
        Ok(Self { of_features, input, count })
    }

    fn kind(&self) -> &'static str {
        if self.of_features { "features" } else { "classes" }
    }

    fn request(&self) -> Request {
        match self.input {
            HeadInput::Pooled(pooling) if self.of_features => Request::new().poolings([pooling]),
            HeadInput::Pooled(pooling) => Request::new().logits(pooling),
            // The head beside the model does not look at this.
            _ => Request::new().logits(dinov3::Pooling::Average),
        }
    }

    fn top(&self, features: ImageFeatures<'_>, count: usize) -> Result<Vec<ClassScore>, SinkError> {
        let scores = match self.of_features {
            true => features.pooled(0).map(|(_, view)| view),
            false => features.logits(),
        };
        Ok(top_k(scores.ok_or_else(|| SinkError::new("the encoder gave no scores"))?.data, count))
    }
}

/// A line of JSON, without the path.
#[derive(Serialize)]
struct Classes {
    top: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    index: usize,
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    synset: Option<&'static str>,
    probability: f64,
    logit: f32,
}

impl Classes {
    fn new(scores: &[ClassScore], labels: Option<&Labels>) -> Self {
        let class = |score: &ClassScore| Class {
            index: score.index,
            label: labels.and_then(|labels| labels.get(score.index)).map(str::to_string),
            synset: labels.and_then(|labels| labels.synset(score.index)),
            probability: score.probability,
            logit: score.logit,
        };
        Self { top: scores.iter().map(class).collect() }
    }
}

/// For people: the path, then a line per class.
struct Table {
    scores: Scores,
    top: usize,
    labels: Option<Labels>,
    reporter: Arc<Reporter>,
}

impl<K: RowName> Sink<K> for Table {
    fn write(&mut self, key: &K, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        let mut text = format!("{}\n", printable_line(&key.row_name()));
        // Indices stand under each other, through all pictures.
        let width = (self.scores.count - 1).to_string().len();
        let kind = if self.scores.of_features { "feature" } else { "class" };
        for ClassScore { index, probability, .. } in self.scores.top(features, self.top)? {
            let percent = 100.0 * probability;
            match self.labels.as_ref().and_then(|labels| labels.get(index)) {
                Some(label) => {
                    let label = printable_line(label);
                    text.push_str(&format!("  {percent:6.2} %  {index:width$}  {label}\n"));
                }
                None => text.push_str(&format!("  {percent:6.2} %  {kind} {index:width$}\n")),
            }
        }
        let print = || {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        let written = self.reporter.aside(print);
        Ok(written.map_err(|source| OutputError::Write { path: PathBuf::from("-"), source })?)
    }

    fn failed(&mut self, _: &K, _: &ItemError) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self, _: &Summary) -> Result<(), SinkError> {
        Ok(())
    }
}
