//! JSON lines of whatever is said of an image: its classes, say.

use std::io;
use std::path::Path;

use dinov3_engine::{ImageFeatures, ItemError, Sink, SinkError, Summary};
use serde::Serialize;

use crate::embedding::{Failure, Provenance, Report, Rows};
use crate::error::OutputError;
use crate::json_lines::JsonLines;
use crate::name::RowName;

/// Writes one JSON object per image: `path`, then the fields of what `record` makes of its features. Files, failures
/// and provenance are those of an embedding file of JSON lines.
pub struct RecordSink<F> {
    record: F,
    failures: Vec<Failure>,
    /// `None` after the end and after an error.
    open: Option<(JsonLines, Provenance)>,
}

#[derive(Serialize)]
struct Line<'a, R> {
    path: &'a str,
    #[serde(flatten)]
    record: R,
}

impl<F> RecordSink<F> {
    /// Starts the file `path`, which appears when it is complete, or standard output for `-`, line by line.
    ///
    /// # Errors
    /// If the file could not be put there at the end.
    pub fn open(path: impl AsRef<Path>, record: F, provenance: Provenance) -> Result<Self, OutputError> {
        let path = path.as_ref();
        let lines = match path == Path::new("-") {
            true => JsonLines::stream(Box::new(io::stdout()), Vec::new()),
            false => JsonLines::create(path, Vec::new())?,
        };
        Ok(Self { record, failures: Vec::new(), open: Some((lines, provenance)) })
    }

    /// Writes a line; after an error the output is closed, since it may hold half of one.
    fn line(&mut self, object: &impl Serialize) -> Result<(), OutputError> {
        let (mut lines, provenance) = self.open.take().ok_or(OutputError::Closed)?;
        lines.object(object)?;
        self.open = Some((lines, provenance));
        Ok(())
    }
}

impl<K, R, F> Sink<K> for RecordSink<F>
where
    K: RowName,
    R: Serialize,
    F: FnMut(ImageFeatures<'_>) -> Result<R, SinkError>,
{
    fn write(&mut self, key: &K, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        let record = (self.record)(features)?;
        Ok(self.line(&Line { path: &key.row_name(), record })?)
    }

    fn failed(&mut self, key: &K, error: &ItemError) -> Result<(), SinkError> {
        let failure = Failure { path: key.row_name().into_owned(), error: error.to_string() };
        self.line(&failure)?;
        self.failures.push(failure);
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        let (lines, provenance) = self.open.take().ok_or(OutputError::Closed)?;
        let report = Report::new(provenance(summary), summary, None, std::mem::take(&mut self.failures));
        Ok(Box::new(lines).finish(report)?)
    }
}
