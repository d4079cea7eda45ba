//! One JSON object per line.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::atomic::{AtomicFile, sidecar};
use crate::embedding::{Failure, Report, Rows};
use crate::error::OutputError;

pub(crate) struct JsonLines {
    target: Target,
    path: PathBuf,
    columns: Vec<String>,
    /// One line, so that a stream gets whole lines.
    line: Vec<u8>,
}

#[expect(clippy::large_enum_variant, reason = "there is one per run")]
enum Target {
    File { rows: AtomicFile, sidecar: AtomicFile },
    Stream(Box<dyn Write + Send>),
}

impl JsonLines {
    /// `columns` are the names of the vectors of [`Rows::row`].
    pub(crate) fn create(path: &Path, columns: Vec<String>) -> Result<Self, OutputError> {
        let rows = AtomicFile::create(path)?;
        let sidecar = AtomicFile::create(sidecar(path))?;
        Ok(Self { target: Target::File { rows, sidecar }, path: path.to_owned(), columns, line: Vec::new() })
    }

    pub(crate) fn stream(writer: Box<dyn Write + Send>, columns: Vec<String>) -> Self {
        Self { target: Target::Stream(writer), path: PathBuf::from("-"), columns, line: Vec::new() }
    }

    /// One line that is not of vectors.
    pub(crate) fn object(&mut self, object: &impl serde::Serialize) -> Result<(), OutputError> {
        serde_json::to_writer(&mut self.line, object).map_err(|error| OutputError::write(&self.path)(error.into()))?;
        self.write_line()
    }

    fn write_line(&mut self) -> Result<(), OutputError> {
        self.line.push(b'\n');
        let written = match &mut self.target {
            Target::File { rows, .. } => rows.write_all(&self.line),
            Target::Stream(stream) => stream.write_all(&self.line).and_then(|()| stream.flush()),
        };
        self.line.clear();
        written.map_err(OutputError::write(&self.path))
    }
}

impl Rows for JsonLines {
    fn row(&mut self, name: &str, vectors: &[&[f32]]) -> Result<(), OutputError> {
        let line = &mut self.line;
        let mut write = || {
            line.extend_from_slice(b"{\"path\":");
            serde_json::to_writer(&mut *line, name)?;
            for (column, vector) in self.columns.iter().zip(vectors) {
                line.push(b',');
                serde_json::to_writer(&mut *line, column)?;
                line.push(b':');
                // As f32 and not through `Value`, whose f64 would print more digits than there are.
                serde_json::to_writer(&mut *line, vector)?;
            }
            line.push(b'}');
            Ok(())
        };
        write().map_err(|error: serde_json::Error| OutputError::write(&self.path)(error.into()))?;
        self.write_line()
    }

    fn failure(&mut self, failure: &Failure) -> Result<(), OutputError> {
        self.object(failure)
    }

    /// A stream ends with one line `{"provenance": ...}`; a file has a sidecar.
    fn finish(mut self: Box<Self>, report: Report) -> Result<(), OutputError> {
        match self.target {
            Target::Stream(_) => self.object(&serde_json::json!({"provenance": report.complete()})),
            Target::File { mut rows, mut sidecar } => {
                let write = OutputError::write(sidecar.path());
                serde_json::to_writer_pretty(&mut sidecar, &report.complete()).map_err(|error| write(error.into()))?;
                rows.sync()?;
                sidecar.commit()?;
                rows.commit()
            }
        }
    }
}
