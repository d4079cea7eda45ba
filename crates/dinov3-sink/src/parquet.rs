//! Embeddings of images as Parquet: a name and vectors per row.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use arrow_schema::{DataType, Field};

use crate::atomic::AtomicFile;
use crate::embedding::{Report, Rows};
use crate::error::OutputError;
use crate::layout::EmbeddingLayout;
use crate::table::{PROVENANCE_KEY, Table};

pub(crate) struct Parquet {
    table: Table,
    /// Of rows that the table has not written yet.
    names: Vec<String>,
}

impl Parquet {
    pub(crate) fn create(path: &Path, layout: &EmbeddingLayout) -> Result<Self, OutputError> {
        let name = Field::new("path", DataType::Utf8, false);
        let table = Table::create(AtomicFile::create(path)?, vec![name], layout, |properties| properties)?;
        Ok(Self { table, names: Vec::new() })
    }

    fn flush(&mut self) -> Result<(), OutputError> {
        let names: ArrayRef = Arc::new(StringArray::from(std::mem::take(&mut self.names)));
        self.table.write(vec![names])
    }
}

impl Rows for Parquet {
    fn row(&mut self, name: &str, vectors: &[&[f32]]) -> Result<(), OutputError> {
        self.names.push(name.to_owned());
        match self.table.row(vectors) {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>, report: Report) -> Result<(), OutputError> {
        self.flush()?;
        self.table.finish(vec![(PROVENANCE_KEY, report.complete().to_string())])
    }
}
