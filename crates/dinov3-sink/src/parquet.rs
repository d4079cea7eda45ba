//! Parquet with one FixedSizeList column per vector.
//!
//! The list's child is called `element`, as the Parquet specification has it, and is not nullable. Floats are
//! byte-stream-split and compressed with ZSTD: 0.85 of their raw size, where the default (dictionary, Snappy) gives
//! 1.01. Dictionaries and statistics of floats are off: they cost and help nobody.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::atomic::AtomicFile;
use crate::embedding::{Report, Rows};
use crate::error::OutputError;
use crate::layout::EmbeddingLayout;

/// Raw size of a row group: large enough to scan fast, small enough to be held by writer and readers.
const ROW_GROUP_BYTES: usize = 128 << 20;

/// Raw size of what is handed to the writer at once.
const SLICE_BYTES: usize = 4 << 20;

/// The caller's key of the provenance in the file's metadata.
const PROVENANCE_KEY: &str = "dinov3";

const CHILD: &str = "element";

struct VectorColumn {
    child: FieldRef,
    width: i32,
    values: Vec<f32>,
}

pub(crate) struct Parquet {
    writer: ArrowWriter<AtomicFile>,
    schema: SchemaRef,
    /// Rows that the writer has not got yet.
    names: Vec<String>,
    columns: Vec<VectorColumn>,
    slice_rows: usize,
}

impl Parquet {
    pub(crate) fn create(path: &Path, layout: &EmbeddingLayout) -> Result<Self, OutputError> {
        let file = AtomicFile::create(path)?;
        let child: FieldRef = Arc::new(Field::new(CHILD, DataType::Float32, false));
        let mut fields = vec![Field::new("path", DataType::Utf8, false)];
        let mut columns = Vec::new();
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::Chunk);
        // A name takes some bytes, too.
        let mut row_bytes = 64usize;
        for column in layout.columns() {
            let width = i32::try_from(column.width)
                .map_err(|_| OutputError::ColumnWidth { column: column.name.clone(), width: column.width })?;
            let list = DataType::FixedSizeList(child.clone(), width);
            fields.push(Field::new(&column.name, list, false));
            let values = ["list", CHILD].map(str::to_owned);
            let leaf = ColumnPath::new([vec![column.name.clone()], values.to_vec()].concat());
            properties = properties
                .set_column_encoding(leaf.clone(), Encoding::BYTE_STREAM_SPLIT)
                .set_column_statistics_enabled(leaf, EnabledStatistics::None);
            columns.push(VectorColumn { child: child.clone(), width, values: Vec::new() });
            row_bytes = row_bytes.saturating_add(column.width.saturating_mul(4));
        }
        let properties = properties.set_max_row_group_row_count(Some((ROW_GROUP_BYTES / row_bytes).max(1))).build();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        // The Arrow schema is added at the end, with the provenance.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, schema.clone(), options)
            .map_err(|error| parquet_error(path, error))?;
        Ok(Self { writer, schema, names: Vec::new(), columns, slice_rows: (SLICE_BYTES / row_bytes).max(1) })
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        if self.names.is_empty() {
            return Ok(());
        }
        let names = std::mem::take(&mut self.names);
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(StringArray::from(names))];
        for column in &mut self.columns {
            let values = Float32Array::from(std::mem::take(&mut column.values));
            let child = column.child.clone();
            let list = FixedSizeListArray::try_new(child, column.width, Arc::new(values), None)?;
            arrays.push(Arc::new(list));
        }
        self.writer.write(&RecordBatch::try_new(self.schema.clone(), arrays)?)
    }
}

impl Rows for Parquet {
    fn row(&mut self, name: &str, vectors: &[&[f32]]) -> Result<(), OutputError> {
        self.names.push(name.to_owned());
        for (column, vector) in self.columns.iter_mut().zip(vectors) {
            column.values.extend_from_slice(vector);
        }
        if self.names.len() >= self.slice_rows {
            self.flush().map_err(|error| parquet_error(self.writer.inner().path(), error))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, report: Report) -> Result<(), OutputError> {
        let path = self.writer.inner().path().to_owned();
        let error = |error| parquet_error(&path, error);
        self.flush().map_err(error)?;
        let provenance = report.complete().to_string();
        // In the Arrow schema, too: where a file has one, pyarrow's `schema.metadata` shows nothing else.
        let metadata = HashMap::from([(PROVENANCE_KEY.to_owned(), provenance.clone())]);
        let schema = encode_arrow_schema(&self.schema.as_ref().clone().with_metadata(metadata));
        for (key, value) in [(PROVENANCE_KEY, provenance), (ARROW_SCHEMA_META_KEY, schema)] {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.writer.into_inner().map_err(error)?.commit()
    }
}

/// A full disk is a full disk, whoever noticed.
fn parquet_error(path: &Path, error: ParquetError) -> OutputError {
    let path = path.to_owned();
    let source: Box<dyn std::error::Error + Send + Sync> = match error {
        ParquetError::External(source) => source,
        other => Box::new(other),
    };
    match source.downcast::<std::io::Error>() {
        Ok(source) => OutputError::Write { path, source: *source },
        Err(source) => OutputError::Parquet { path, source },
    }
}
