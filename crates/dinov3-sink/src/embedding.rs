//! One sink for all embedding files; the formats differ only in how a row becomes bytes.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;

use dinov3_engine::{ImageFeatures, ItemError, Sink, SinkError, Summary};
use serde_json::{Value, json};

use crate::error::OutputError;
use crate::json_lines::JsonLines;
use crate::layout::{ColumnContent, EmbeddingLayout};
use crate::name::RowName;
use crate::npy::Npy;
use crate::parquet::Parquet;
use crate::safetensors::Safetensors;

/// Says where the rows come from. Called when the last row is written, so that it may contain what is known only
/// then. Should be a JSON object; anything else ends up under `provenance` in one.
pub type Provenance = Box<dyn FnOnce(&Summary) -> Value + Send>;

/// Formats of embedding files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `.parquet`
    Parquet,
    /// `.npy` and `.npy.json`
    Npy,
    /// `.safetensors`
    Safetensors,
    /// `.jsonl` and `.jsonl.json`
    JsonLines,
}

impl Format {
    /// All formats, in the order in which they are documented.
    pub const ALL: [Format; 4] = [Format::Parquet, Format::Npy, Format::Safetensors, Format::JsonLines];

    /// File name extension, without dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Npy => "npy",
            Format::Safetensors => "safetensors",
            Format::JsonLines => "jsonl",
        }
    }

    /// The format that a file name's extension says, in upper or lower case.
    ///
    /// # Errors
    /// If it says none of ours.
    pub fn from_path(path: &Path) -> Result<Self, OutputError> {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        Self::ALL
            .into_iter()
            .find(|format| format.extension().eq_ignore_ascii_case(extension))
            .ok_or_else(|| OutputError::UnknownFormat { path: path.to_owned() })
    }

    /// For messages.
    pub(crate) fn known() -> String {
        let extensions = Self::ALL.map(|format| format!(".{}", format.extension()));
        format!("{} and - (JSON lines to standard output)", extensions.join(", "))
    }
}

/// An image without a row.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Failure {
    pub(crate) path: String,
    pub(crate) error: String,
}

/// What a format has to know at the end.
pub(crate) struct Report {
    provenance: serde_json::Map<String, Value>,
    pub(crate) failures: Vec<Failure>,
}

impl Report {
    /// `layout` is none for rows that are no columns of vectors.
    pub(crate) fn new(
        provenance: Value,
        summary: &Summary,
        layout: Option<&EmbeddingLayout>,
        failures: Vec<Failure>,
    ) -> Self {
        let mut provenance = match provenance {
            Value::Object(provenance) => provenance,
            other => serde_json::Map::from_iter([("provenance".to_owned(), other)]),
        };
        provenance.entry("schema").or_insert(json!(1));
        let columns = layout.map(EmbeddingLayout::columns).unwrap_or_default().iter().map(|column| {
            let width = column.width;
            let content = match column.content {
                ColumnContent::Embedding(pooling) => {
                    json!({"content": "embedding", "pooling": pooling.name(), "width": width})
                }
                ColumnContent::Logits(pooling) => {
                    json!({"content": "logits", "pooling": pooling.name(), "width": width})
                }
                ColumnContent::Patches => json!({"content": "patches", "width": width}),
            };
            (column.name.clone(), content)
        });
        if layout.is_some() {
            provenance.insert("columns".to_owned(), Value::Object(columns.collect()));
        }
        let counts = json!({"done": summary.done, "failed": summary.failed.len()});
        provenance.insert("counts".to_owned(), counts);
        Self { provenance, failures }
    }

    /// The provenance without the failures.
    pub(crate) fn provenance(&self) -> &serde_json::Map<String, Value> {
        &self.provenance
    }

    /// The provenance with the failures in it, for formats that have one place for both.
    pub(crate) fn complete(self) -> Value {
        let failure = |Failure { path, error }| json!({"path": path, "error": error});
        let failures = self.failures.into_iter().map(failure).collect();
        let mut provenance = self.provenance;
        provenance.insert("failures".to_owned(), failures);
        Value::Object(provenance)
    }
}

/// How a format writes rows. Dropped before `finish`, it leaves nothing behind.
pub(crate) trait Rows: Send {
    /// `vectors` are as many and as long as the layout says.
    fn row(&mut self, name: &str, vectors: &[&[f32]]) -> Result<(), OutputError>;

    /// Failures are collected elsewhere too; this is for formats that tell them at once.
    fn failure(&mut self, failure: &Failure) -> Result<(), OutputError> {
        let _ = failure;
        Ok(())
    }

    /// Makes the output appear.
    fn finish(self: Box<Self>, report: Report) -> Result<(), OutputError>;
}

/// Writes one row per image into an embedding file.
pub struct EmbeddingSink {
    layout: EmbeddingLayout,
    failures: Vec<Failure>,
    /// `None` after the end and after an error.
    open: Option<Open>,
}

struct Open {
    rows: Box<dyn Rows>,
    provenance: Provenance,
}

impl std::fmt::Debug for EmbeddingSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddingSink")
            .field("layout", &self.layout)
            .field("failures", &self.failures.len())
            .field("open", &self.open.is_some())
            .finish()
    }
}

impl EmbeddingSink {
    /// Starts the output that `path` names, in the format that its extension says; `-` is standard output.
    ///
    /// # Errors
    /// If the format is unknown or cannot hold the layout, or if the file could not be put there at the end.
    pub fn open(path: impl AsRef<Path>, layout: EmbeddingLayout, provenance: Provenance) -> Result<Self, OutputError> {
        let path = path.as_ref();
        if path == Path::new("-") {
            return Ok(Self::stream(Box::new(io::stdout()), layout, provenance));
        }
        Self::create(path, Format::from_path(path)?, layout, provenance)
    }

    /// Starts a file in this format, whatever its name.
    ///
    /// # Errors
    /// If the format cannot hold the layout, or if the file could not be put there at the end.
    pub fn create(
        path: impl AsRef<Path>,
        format: Format,
        layout: EmbeddingLayout,
        provenance: Provenance,
    ) -> Result<Self, OutputError> {
        let path = path.as_ref();
        let rows: Box<dyn Rows> = match format {
            Format::Parquet => Box::new(Parquet::create(path, &layout)?),
            Format::Npy => Box::new(Npy::create(path, &layout)?),
            Format::Safetensors => Box::new(Safetensors::create(path, &layout)?),
            Format::JsonLines => Box::new(JsonLines::create(path, layout.names())?),
        };
        Ok(Self::new(rows, layout, provenance))
    }

    /// Writes JSON lines to a stream, each line at once; the last line is `{"provenance": ...}`. What is written stays,
    /// also if the run ends early.
    pub fn stream(writer: Box<dyn Write + Send>, layout: EmbeddingLayout, provenance: Provenance) -> Self {
        let rows = Box::new(JsonLines::stream(writer, layout.names()));
        Self::new(rows, layout, provenance)
    }

    fn new(rows: Box<dyn Rows>, layout: EmbeddingLayout, provenance: Provenance) -> Self {
        Self { layout, failures: Vec::new(), open: Some(Open { rows, provenance }) }
    }

    /// What the rows look like.
    pub fn layout(&self) -> &EmbeddingLayout {
        &self.layout
    }

    /// Writes one row: vectors as many and as long as the layout's columns.
    ///
    /// # Errors
    /// If they are not, or if they cannot be stored.
    pub(crate) fn row(&mut self, name: &str, vectors: &[&[f32]]) -> Result<(), SinkError> {
        self.with_rows(|rows| rows.row(name, vectors))
    }

    /// Writes; after an error the output is closed, since it may hold half a row.
    fn with_rows(&mut self, write: impl FnOnce(&mut dyn Rows) -> Result<(), OutputError>) -> Result<(), SinkError> {
        let mut open = self.open.take().ok_or(OutputError::Closed)?;
        write(&mut *open.rows)?;
        self.open = Some(open);
        Ok(())
    }
}

impl<K: RowName> Sink<K> for EmbeddingSink {
    fn write(&mut self, key: &K, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        let name = key.row_name();
        let vectors = self.layout.vectors(&name, features)?;
        self.row(&name, &vectors)
    }

    fn failed(&mut self, key: &K, error: &ItemError) -> Result<(), SinkError> {
        let failure = Failure { path: key.row_name().into_owned(), error: error.to_string() };
        self.with_rows(|rows| rows.failure(&failure))?;
        self.failures.push(failure);
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        let Open { rows, provenance } = self.open.take().ok_or(OutputError::Closed)?;
        let failures = std::mem::take(&mut self.failures);
        let provenance = provenance(summary);
        let report = Report::new(provenance, summary, Some(&self.layout), failures);
        Ok(rows.finish(report)?)
    }
}
