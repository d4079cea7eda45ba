//! Reading a file of chips that [`ChipSink`](crate::ChipSink) wrote, to make a larger one of several.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use dinov3_model::encoder::Pooling;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use crate::chip::{ChipFootprint, ChipRow};
use crate::error::OutputError;
use crate::layout::EmbeddingLayout;
use crate::table::PROVENANCE_KEY;

/// Rows that are read at once.
const BATCH_ROWS: usize = 512;

/// An opened file of chips.
pub struct ChipFile {
    path: PathBuf,
    layout: EmbeddingLayout,
    has_grid_cell: bool,
    provenance: Value,
    reader: ParquetRecordBatchReader,
}

impl ChipFile {
    /// Opens one.
    ///
    /// # Errors
    /// If it cannot be read, or is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OutputError> {
        let path = path.as_ref().to_owned();
        let none = |problem: String| OutputError::NotAChipFile { path: path.clone(), problem };
        let file = File::open(&path).map_err(|source| OutputError::Read { path: path.clone(), source })?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| none(error.to_string()))?;
        let metadata = builder.metadata().file_metadata().key_value_metadata();
        let entry = metadata.and_then(|entries| entries.iter().find(|entry| entry.key == PROVENANCE_KEY));
        let provenance = entry.and_then(|entry| serde_json::from_str::<Value>(entry.value.as_deref()?).ok());
        let provenance = provenance.ok_or_else(|| none("it has no provenance".to_owned()))?;
        let schema = builder.schema();
        let mut poolings = Vec::new();
        let mut dimensions = None;
        for field in schema.fields() {
            let DataType::FixedSizeList(_, width) = field.data_type() else { continue };
            let pooling = provenance["columns"][field.name()]["pooling"].as_str().and_then(Pooling::from_name);
            poolings
                .push(pooling.ok_or_else(|| none(format!("its provenance does not tell what {} is", field.name())))?);
            if *dimensions.get_or_insert(*width) != *width {
                return Err(none("its vectors are of several lengths".to_owned()));
            }
        }
        let dimensions = usize::try_from(dimensions.unwrap_or_default()).unwrap_or_default();
        let layout = EmbeddingLayout::new(&poolings, dimensions, None)?;
        let has_grid_cell = schema.field_with_name("grid_cell").is_ok();
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| none(error.to_string()))?;
        Ok(Self { path, layout, has_grid_cell, provenance, reader })
    }

    /// Its columns of vectors.
    pub fn layout(&self) -> &EmbeddingLayout {
        &self.layout
    }

    /// Whether it has the column `grid_cell`.
    pub fn has_grid_cell(&self) -> bool {
        self.has_grid_cell
    }

    /// What it says of its making.
    pub fn provenance(&self) -> &Value {
        &self.provenance
    }

    /// Hands out every row: what is said of the chip, without its place on the Hilbert curve, which a file does not hold,
    /// and its vectors.
    ///
    /// # Errors
    /// If the file is damaged, or what `take` fails with.
    pub fn each<E: From<OutputError>>(
        self,
        mut take: impl FnMut(ChipRow, &[&[f32]]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { path, layout, reader, .. } = self;
        for batch in reader {
            let damaged = |problem: String| OutputError::NotAChipFile { path: path.clone(), problem };
            let batch = batch.map_err(|error| damaged(error.to_string()))?;
            let rows = Rows::new(&batch, &layout)
                .ok_or_else(|| damaged("a column is missing or of another type".to_owned()))?;
            for row in 0..batch.num_rows() {
                let vectors: Vec<&[f32]> =
                    rows.vectors.iter().map(|(values, width)| &values[row * width..][..*width]).collect();
                take(rows.row(row), &vectors)?;
            }
        }
        Ok(())
    }
}

/// The columns of some rows.
struct Rows<'b> {
    batch: &'b RecordBatch,
    /// Values of all rows, and how many a row has.
    vectors: Vec<(&'b [f32], usize)>,
}

impl<'b> Rows<'b> {
    /// Nothing if a column is not what it should be.
    fn new(batch: &'b RecordBatch, layout: &EmbeddingLayout) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name);
        for name in ["id", "source"] {
            column(name)?.as_string_opt::<i32>()?;
        }
        for name in ["epsg", "x_px", "y_px", "width_px", "height_px"] {
            column(name)?.as_primitive_opt::<Int32Type>()?;
        }
        column("geometry")?.as_binary_opt::<i32>()?;
        column("datetime")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        column("valid_fraction")?.as_primitive_opt::<Float32Type>()?;
        let bbox = column("bbox")?.as_struct_opt()?;
        (bbox.num_columns() == 4).then_some(())?;
        for corner in bbox.columns() {
            corner.as_primitive_opt::<Float64Type>()?;
        }
        let mut vectors = Vec::new();
        for vector in layout.columns() {
            let list = column(&vector.name)?.as_fixed_size_list_opt()?;
            let values = list.values().as_primitive_opt::<Float32Type>()?.values();
            let start = list.value_offset(0) as usize;
            vectors.push((values.get(start..start + list.len() * vector.width)?, vector.width));
        }
        Some(Self { batch, vectors })
    }

    fn row(&self, row: usize) -> ChipRow {
        let column = |name: &str| &self.batch[name];
        let text = |name: &str| column(name).as_string::<i32>().value(row).to_owned();
        let optional = |name: &str| {
            let array = self.batch.column_by_name(name)?.as_string_opt::<i32>()?;
            array.is_valid(row).then(|| array.value(row).to_owned())
        };
        let pixels = |name: &str| column(name).as_primitive::<Int32Type>().value(row);
        let datetime = column("datetime").as_primitive::<TimestampMicrosecondType>();
        let epsg = column("epsg").as_primitive::<Int32Type>();
        let bbox = column("bbox").as_struct();
        let corner = |at: usize| bbox.column(at).as_primitive::<Float64Type>().value(row);
        ChipRow {
            id: text("id"),
            footprint: ChipFootprint {
                wkb: column("geometry").as_binary::<i32>().value(row).to_vec(),
                bbox: std::array::from_fn(corner),
            },
            datetime_us: datetime.is_valid(row).then(|| datetime.value(row)),
            source: text("source"),
            epsg: epsg.is_valid(row).then(|| epsg.value(row)),
            x_px: pixels("x_px"),
            y_px: pixels("y_px"),
            width_px: pixels("width_px"),
            height_px: pixels("height_px"),
            grid_cell: optional("grid_cell"),
            valid_fraction: column("valid_fraction").as_primitive::<Float32Type>().value(row),
            stac_item: optional("stac_item"),
            hilbert: 0,
        }
    }
}
