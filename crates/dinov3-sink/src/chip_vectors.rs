//! Files of chips, read again: where each chip lies in its scene, and one of its vectors.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use serde_json::Value;

use crate::table::PROVENANCE_KEY;

const ID: &str = "id";
const SOURCE: &str = "source";
const WINDOW: [&str; 4] = ["x_px", "y_px", "width_px", "height_px"];

/// Most numbers of vectors that are read: 4 GiB.
const MOST_VALUES: usize = 1 << 30;

/// Rows decoded at once.
const BATCH_ROWS: usize = 1024;

/// Why a file of chips cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorFileError {
    /// It cannot be opened.
    #[error("{}: cannot be read: {source}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no Parquet file, or a damaged one.
    #[error("{}: not a readable Parquet file: {source}", path.display())]
    Parquet {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// It is no file of chips.
    #[error("{} is no file of chips: it has no column {column} of {expected}", path.display())]
    Column {
        /// Which file.
        path: PathBuf,
        /// The column that is missing, or has another type.
        column: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It has no such vectors.
    #[error("{} has no vectors {column}: {}", path.display(), known(found))]
    NoSuchVectors {
        /// Which file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// Those that there are.
        found: Vec<String>,
    },
    /// More vectors than are held.
    #[error("{}: {rows} vectors of {width} numbers are more than can be held", path.display())]
    TooMany {
        /// Which file.
        path: PathBuf,
        /// Rows.
        rows: usize,
        /// Numbers in each.
        width: usize,
    },
}

fn known(found: &[String]) -> String {
    match found {
        [] => "it has none of 32-bit floats".to_owned(),
        _ => format!("it has {}", found.join(", ")),
    }
}

/// Where a chip lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChipPlace {
    /// The row's id.
    pub id: String,
    /// The valid window in pixels of the grid that was cut: first column, first row, columns, rows.
    pub window_px: [i32; 4],
}

/// Chips of one scene.
#[derive(Clone, Debug, PartialEq)]
pub struct ChipVectors {
    /// In the file's order.
    pub places: Vec<ChipPlace>,
    /// Numbers in a vector.
    pub width: usize,
    /// `[places, width]`.
    pub values: Vec<f32>,
}

/// A file of chips, as [`ChipSink`](crate::ChipSink) writes it, opened.
#[derive(Debug)]
pub struct VectorFile {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
}

impl VectorFile {
    /// Opens it; only its metadata are read.
    ///
    /// # Errors
    /// If it is no Parquet file with the columns of chips.
    pub fn open(path: &Path) -> Result<Self, VectorFileError> {
        let file = File::open(path).map_err(|source| VectorFileError::Open { path: path.to_owned(), source })?;
        let metadata = ArrowReaderMetadata::load(&file, Default::default())
            .map_err(|source| VectorFileError::Parquet { path: path.to_owned(), source })?;
        let opened = Self { path: path.to_owned(), file, metadata };
        for column in [ID, SOURCE] {
            opened.require(column, &DataType::Utf8, "text")?;
        }
        for column in WINDOW {
            opened.require(column, &DataType::Int32, "32-bit numbers")?;
        }
        Ok(opened)
    }

    fn require(&self, column: &str, kind: &DataType, expected: &'static str) -> Result<(), VectorFileError> {
        match self.metadata.schema().field_with_name(column) {
            Ok(field) if field.data_type() == kind => Ok(()),
            _ => Err(VectorFileError::Column { path: self.path.clone(), column: column.to_owned(), expected }),
        }
    }

    /// The number of chips.
    pub fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    /// What the file says of its making; null where it says nothing that is understood.
    pub fn provenance(&self) -> Value {
        let entries = self.metadata.metadata().file_metadata().key_value_metadata();
        let text = entries
            .into_iter()
            .flatten()
            .find(|entry| entry.key == PROVENANCE_KEY)
            .and_then(|entry| entry.value.as_deref());
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The columns of vectors and their widths.
    pub fn vectors(&self) -> Vec<(String, usize)> {
        let width = |kind: &DataType| match kind {
            DataType::FixedSizeList(child, width) if *child.data_type() == DataType::Float32 => {
                usize::try_from(*width).ok().filter(|&width| width > 0)
            }
            _ => None,
        };
        let fields = self.metadata.schema().fields().iter();
        fields.filter_map(|field| Some((field.name().clone(), width(field.data_type())?))).collect()
    }

    /// The width of these vectors.
    ///
    /// # Errors
    /// [`VectorFileError::NoSuchVectors`].
    pub fn width(&self, column: &str) -> Result<usize, VectorFileError> {
        let found = self.vectors();
        match found.iter().find(|(name, _)| name == column) {
            Some((_, width)) => Ok(*width),
            None => Err(VectorFileError::NoSuchVectors {
                path: self.path.clone(),
                column: column.to_owned(),
                found: found.into_iter().map(|(name, _)| name).collect(),
            }),
        }
    }

    /// The scenes and how many chips each has.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn sources(&self) -> Result<BTreeMap<String, usize>, VectorFileError> {
        let mut sources = BTreeMap::new();
        self.each_batch(&[SOURCE], |batch| {
            for source in batch.column(0).as_string::<i32>().iter().flatten() {
                match sources.get_mut(source) {
                    Some(count) => *count += 1,
                    None => _ = sources.insert(source.to_owned(), 1),
                }
            }
        })?;
        Ok(sources)
    }

    /// The chips of one scene, or all, with the vectors of a column.
    ///
    /// # Errors
    /// If there is no such column, there are too many, or the file is damaged.
    pub fn read(&self, source: Option<&str>, column: &str) -> Result<ChipVectors, VectorFileError> {
        let (rows, width) = (self.rows(), self.width(column)?);
        if rows.checked_mul(width).is_none_or(|values| values > MOST_VALUES) {
            return Err(VectorFileError::TooMany { path: self.path.clone(), rows, width });
        }
        let mut chips = ChipVectors { places: Vec::new(), width, values: Vec::new() };
        let mut names = vec![ID, SOURCE];
        names.extend(WINDOW);
        names.push(column);
        self.each_batch(&names, |batch| {
            // In the file's order, whatever order was asked for.
            let Some(columns) = names.iter().map(|name| batch.column_by_name(name)).collect::<Option<Vec<_>>>() else {
                return;
            };
            let (ids, sources) = (columns[0].as_string::<i32>(), columns[1].as_string::<i32>());
            let windows = [2, 3, 4, 5].map(|index| columns[index].as_primitive::<Int32Type>());
            let vectors = columns[6].as_fixed_size_list();
            for row in 0..batch.num_rows() {
                if source.is_some_and(|source| sources.value(row) != source) || vectors.is_null(row) {
                    continue;
                }
                let window_px = windows.map(|window| window.value(row));
                chips.places.push(ChipPlace { id: ids.value(row).to_owned(), window_px });
                chips.values.extend_from_slice(vectors.value(row).as_primitive::<Float32Type>().values());
            }
        })?;
        Ok(chips)
    }

    fn each_batch(&self, columns: &[&str], mut act: impl FnMut(&RecordBatch)) -> Result<(), VectorFileError> {
        let failed = |source: ParquetError| VectorFileError::Parquet { path: self.path.clone(), source };
        let file = self.file.try_clone().map_err(|source| VectorFileError::Open { path: self.path.clone(), source })?;
        let schema = self.metadata.schema();
        let roots: Vec<usize> = columns.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        for batch in reader {
            act(&batch.map_err(|error| failed(ParquetError::from(error)))?);
        }
        Ok(())
    }
}
