//! What every Parquet output has: columns of its own, and one FixedSizeList column per vector; of bytes a column of fixed
//! length and one of scales.
//!
//! The list's child is called `element`, as the Parquet specification has it, and is not nullable. Floats are
//! byte-stream-split and compressed with ZSTD: 0.845 of their raw size, where the default (dictionary, Snappy) gives
//! 1.01. Level 1, since higher ones are slower and no smaller: 0.855 at level 3, 0.849 at level 15, which takes twenty
//! times as long. Dictionaries and statistics of floats are off: they cost and help nobody.
//!
//! Memory: a slice of 4 MiB, up to 4 MiB of finished pages per column, and the page of each column that is being filled;
//! the rest of a row group waits on the disk.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, Float16Array, Float32Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::atomic::AtomicFile;
use crate::element::{ElementType, quantized};
use crate::error::OutputError;
use crate::layout::EmbeddingLayout;
use crate::spill::Spill;

/// The caller's key of the provenance in a file's metadata.
pub(crate) const PROVENANCE_KEY: &str = "dinov3";

/// Who wrote the file: neither a time nor a library's version, so that the same rows make the same bytes.
pub(crate) const CREATED_BY: &str = concat!("dinov3 version ", env!("CARGO_PKG_VERSION"));

/// Raw size of a row group: large enough to scan fast, small enough to be held by readers.
const ROW_GROUP_BYTES: usize = 128 << 20;

/// Raw size of what is handed to the writer at once.
const SLICE_BYTES: usize = 4 << 20;

/// What a row takes beside its vectors, roughly.
const OWN_ROW_BYTES: usize = 64;

const CHILD: &str = "element";

/// The column of scales of a column of bytes.
pub(crate) fn scale_column(vectors: &str) -> String {
    format!("{vectors}_scale")
}

struct VectorColumn {
    width: i32,
    /// Of rows that the writer has not got yet.
    values: Values,
}

enum Values {
    Floats(FieldRef, Vec<f32>),
    Halves(FieldRef, Vec<half::f16>),
    /// Of fixed length, and the scale of each vector in a column of its own.
    Bytes(Vec<i8>, Vec<f32>),
}

impl Values {
    fn new(element: ElementType) -> Self {
        let child = |kind| FieldRef::new(Field::new(CHILD, kind, false));
        match element {
            ElementType::F32 => Self::Floats(child(DataType::Float32), Vec::new()),
            ElementType::F16 => Self::Halves(child(DataType::Float16), Vec::new()),
            ElementType::Int8 => Self::Bytes(Vec::new(), Vec::new()),
        }
    }

    /// The columns that they are stored in.
    fn fields(&self, name: &str, width: i32) -> Vec<Field> {
        match self {
            Self::Floats(child, _) | Self::Halves(child, _) => {
                vec![Field::new(name, DataType::FixedSizeList(child.clone(), width), false)]
            }
            Self::Bytes(..) => vec![
                Field::new(name, DataType::FixedSizeBinary(width), false),
                Field::new(scale_column(name), DataType::Float32, false),
            ],
        }
    }

    fn push(&mut self, vector: &[f32]) {
        match self {
            Self::Floats(_, values) => values.extend_from_slice(vector),
            Self::Halves(_, values) => values.extend(vector.iter().map(|value| half::f16::from_f32(*value))),
            Self::Bytes(bytes, scales) => scales.push(quantized(vector, bytes)),
        }
    }

    /// The values of the columns since the last call.
    fn take(&mut self, width: i32) -> Result<Vec<ArrayRef>, ArrowError> {
        let list = |child: &FieldRef, values: ArrayRef| -> Result<Vec<ArrayRef>, ArrowError> {
            Ok(vec![Arc::new(FixedSizeListArray::try_new(child.clone(), width, values, None)?)])
        };
        match self {
            Self::Floats(child, values) => list(child, Arc::new(Float32Array::from(std::mem::take(values)))),
            Self::Halves(child, values) => list(child, Arc::new(Float16Array::from(std::mem::take(values)))),
            Self::Bytes(bytes, scales) => {
                let bytes = Buffer::from_vec(std::mem::take(bytes));
                let vectors = FixedSizeBinaryArray::try_new(width, bytes, None)?;
                Ok(vec![Arc::new(vectors), Arc::new(Float32Array::from(std::mem::take(scales)))])
            }
        }
    }
}

/// A Parquet file in the making.
pub(crate) struct Table {
    writer: ArrowWriter<AtomicFile>,
    schema: SchemaRef,
    vectors: Vec<VectorColumn>,
    /// Rows that the writer has not got yet.
    waiting: usize,
    slice_rows: usize,
}

impl Table {
    /// A table with columns of its own, and after them the vectors of the layout. `adjust` may say how the former are
    /// stored.
    pub(crate) fn create(
        file: AtomicFile,
        own: Vec<Field>,
        layout: &EmbeddingLayout,
        adjust: impl FnOnce(WriterPropertiesBuilder) -> WriterPropertiesBuilder,
    ) -> Result<Self, OutputError> {
        let path = file.path().to_owned();
        let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default());
        let mut fields = own;
        let mut vectors = Vec::new();
        let mut properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::Chunk);
        properties = adjust(properties);
        let mut row_bytes = OWN_ROW_BYTES;
        for column in layout.columns() {
            let width = i32::try_from(column.width)
                .map_err(|_| OutputError::ColumnWidth { column: column.name.clone(), width: column.width })?;
            let values = Values::new(layout.element());
            fields.extend(values.fields(&column.name, width));
            let path = match layout.element() {
                ElementType::Int8 => vec![column.name.clone()],
                _ => [&column.name, "list", CHILD].map(str::to_owned).to_vec(),
            };
            let leaf = ColumnPath::new(path);
            let encoding = match layout.element() {
                ElementType::F32 => Encoding::BYTE_STREAM_SPLIT,
                // Of halves DuckDB 1.5 reads no other one.
                _ => Encoding::PLAIN,
            };
            properties = properties
                .set_column_compression(leaf.clone(), zstd)
                .set_column_encoding(leaf.clone(), encoding)
                .set_column_statistics_enabled(leaf, EnabledStatistics::None);
            vectors.push(VectorColumn { width, values });
            row_bytes = row_bytes.saturating_add(column.width.saturating_mul(layout.element().size_bytes()));
        }
        let properties = properties.set_max_row_group_row_count(Some((ROW_GROUP_BYTES / row_bytes).max(1))).build();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        // The Arrow schema is added at the end, with the metadata.
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_page_store_factory(Arc::new(Spill { target: file.target().to_owned() }))
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, schema.clone(), options)
            .map_err(|error| parquet_error(&path, error))?;
        Ok(Self { writer, schema, vectors, waiting: 0, slice_rows: (SLICE_BYTES / row_bytes).max(1) })
    }

    /// Takes the vectors of a row, and says whether [`Table::write`] shall be called now.
    pub(crate) fn row(&mut self, vectors: &[&[f32]]) -> bool {
        for (column, vector) in self.vectors.iter_mut().zip(vectors) {
            column.values.push(vector);
        }
        self.waiting += 1;
        self.waiting >= self.slice_rows
    }

    /// Writes the rows since the last call; `own` are their values in the table's own columns.
    pub(crate) fn write(&mut self, own: Vec<ArrayRef>) -> Result<(), OutputError> {
        if std::mem::take(&mut self.waiting) == 0 {
            return Ok(());
        }
        let write = || -> Result<(), ParquetError> {
            let mut arrays = own;
            for column in &mut self.vectors {
                arrays.extend(column.values.take(column.width)?);
            }
            self.writer.write(&RecordBatch::try_new(self.schema.clone(), arrays)?)
        };
        write().map_err(|error| parquet_error(self.writer.inner().path(), error))
    }

    /// Completes the file, with this in its metadata, and makes it appear.
    pub(crate) fn finish(mut self, metadata: Vec<(&str, String)>) -> Result<(), OutputError> {
        let path = self.writer.inner().path().to_owned();
        for (key, value) in &metadata {
            self.writer.append_key_value_metadata(KeyValue::new((*key).to_owned(), value.clone()));
        }
        // In the Arrow schema, too: where a file has one, pyarrow's `schema.metadata` shows nothing else.
        let metadata: HashMap<String, String> =
            metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let schema = encode_arrow_schema(&self.schema.as_ref().clone().with_metadata(metadata));
        self.writer.append_key_value_metadata(KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), schema));
        self.writer.into_inner().map_err(|error| parquet_error(&path, error))?.commit()
    }
}

/// A full disk is a full disk, whoever noticed.
pub(crate) fn parquet_error(path: &Path, error: ParquetError) -> OutputError {
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
