//! Chips as GeoParquet 1.1.
//!
//! Every row goes into the [`Journal`] as soon as it is there. At the end, rows are written in the order of (Hilbert
//! index, id), their vectors taken from the journal one by one. So the file is the same whatever order chips came in,
//! and however often the run was interrupted; and memory holds the keys alone: about 60 bytes and the id per chip,
//! beside what a [`Table`] takes. The disk holds every row twice until the journal goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arrow_array::{
    ArrayRef, BinaryArray, Float32Array, Float64Array, Int32Array, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Fields, TimeUnit};
use dinov3_engine::{ImageFeatures, ItemError, Sink, SinkError, Summary};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde_json::{Value, json};

use crate::atomic::AtomicFile;
use crate::chip::{Chip, ChipRow, GeometryType};
use crate::embedding::{Failure, Provenance, Report};
use crate::error::OutputError;
use crate::journal::{Journal, JournalError, Stamp};
use crate::journaled::JournalKey;
use crate::layout::EmbeddingLayout;
use crate::table::{PROVENANCE_KEY, Table};

const GEOMETRY: &str = "geometry";
const BBOX: &str = "bbox";
/// In the order that the specification demands.
const CORNERS: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];
const UTC: &str = "UTC";

/// Before a row's details in the journal: raised when [`ChipRow`] changes.
const DETAILS_VERSION: u8 = 1;

/// As the format's best practices say: 14 bytes and 10 µs per row, nothing beside its vectors.
const SMALL_COLUMNS_ZSTD_LEVEL: i32 = 15;

/// Rows per page, and so per entry of the page index, of the small columns. A reader that filters by box skips pages.
const PAGE_ROWS: usize = 2048;

/// Columns with the same values again and again.
const REPEATED: [&str; 6] = ["datetime", "source", "epsg", "width_px", "height_px", "stac_item"];

/// What a file has beside the columns that every one has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChipColumns {
    /// A column for [`ChipRow::grid_cell`].
    pub grid_cell: bool,
    /// A column for [`ChipRow::stac_item`].
    pub stac_item: bool,
    /// The STAC asset of the embeddings, for the file metadata `emb`: where all rows are of one item, and only there.
    pub emb: Option<Value>,
}

/// Writes one row per chip into a GeoParquet file.
#[derive(Debug)]
pub struct GeoParquetSink {
    layout: EmbeddingLayout,
    columns: ChipColumns,
    journal: Journal,
    /// The rows of this run in the order of the file, and their places in the journal.
    rows: BTreeMap<(u32, Box<str>), u64>,
    geometry_types: BTreeSet<GeometryType>,
    /// Of all rows; none without rows.
    bbox: Option<[f64; 4]>,
    failures: Vec<Failure>,
    keeps_journal: bool,
    /// `None` after the end and after an error.
    open: Option<Open>,
}

struct Open {
    file: AtomicFile,
    provenance: Provenance,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Open").field(&self.file).finish()
    }
}

impl GeoParquetSink {
    /// Starts the output of this journal, which was [agreed on](Journal::agree) with the same layout. Values that a row
    /// takes from elsewhere than its pixels (datetime, ids of items) belong into the fingerprint: known rows keep them.
    ///
    /// # Errors
    /// If the file could not be put there at the end.
    pub fn create(
        journal: Journal,
        layout: EmbeddingLayout,
        columns: ChipColumns,
        provenance: Provenance,
    ) -> Result<Self, OutputError> {
        let file = AtomicFile::create(journal.output())?;
        Ok(Self {
            layout,
            columns,
            journal,
            rows: BTreeMap::new(),
            geometry_types: BTreeSet::new(),
            bbox: None,
            failures: Vec::new(),
            keeps_journal: false,
            open: Some(Open { file, provenance }),
        })
    }

    /// Leaves the journal where it is when the file is there: whoever still has something to do with the file removes it
    /// then, with [`remove_journal`](crate::remove_journal). It also stays where chips have failed, for a run that makes
    /// just those.
    pub fn keeping_the_journal(self) -> Self {
        Self { keeps_journal: true, ..self }
    }

    /// Writes a row that comes from no encoder.
    ///
    /// # Errors
    /// If it cannot stand in the file, or cannot be stored.
    pub fn row(&mut self, row: &ChipRow, vectors: &[&[f32]]) -> Result<(), SinkError> {
        self.with_open(|sink| sink.append_row(&row.id, row, None, vectors))
    }

    /// The journal, for [`JournaledSource`](crate::JournaledSource).
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The number of rows of this run that neither a killed process nor a power failure can take away, and of those
    /// without a [stamp](crate::Stamped), kept up to date.
    pub fn safe_rows(&self) -> Arc<AtomicUsize> {
        self.journal.safe_rows()
    }

    /// Ends a run that failed and says how many rows the next one will find.
    ///
    /// # Errors
    /// If the journal cannot be brought to disk.
    pub fn keep(mut self) -> Result<usize, JournalError> {
        // First, so that its temporary file goes.
        self.open = None;
        self.journal.sync()?;
        Ok(self.journal.rows())
    }

    /// Writes a row into the journal.
    fn append<K: Chip>(&mut self, key: &JournalKey<K>, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        let name = key.key.row_name();
        let row = key.key.chip_row();
        let vectors = self.layout.vectors(&name, features)?;
        self.append_row(&name, &row, key.stamp(), &vectors)
    }

    fn append_row(
        &mut self,
        name: &str,
        row: &ChipRow,
        stamp: Option<Stamp>,
        vectors: &[&[f32]],
    ) -> Result<(), SinkError> {
        let details = details_of(row).map_err(|problem| OutputError::Chip { row: name.to_owned(), problem })?;
        // Before it is on the disk, where it would spoil every later run.
        let geometry_type = self.check(name, row)?;
        let place = self.journal.append_row(name, stamp, &details, vectors)?;
        self.note(row, geometry_type, place)
    }

    /// Takes a row that is in the journal.
    fn take_known<K: Chip>(&mut self, key: &JournalKey<K>) -> Result<(), SinkError> {
        let name = key.key.row_name();
        let (place, found) = self.journal.known_row(&name)?;
        let row = parse_details(&found.details, &name).ok_or_else(|| self.journal.damaged(&name))?;
        let geometry_type = self.check(&name, &row)?;
        self.note(&row, geometry_type, place)
    }

    /// Whether a row can stand in the file.
    fn check(&self, name: &str, row: &ChipRow) -> Result<GeometryType, OutputError> {
        let refuse = |problem: String| OutputError::Chip { row: name.to_owned(), problem };
        if row.id != name {
            return Err(refuse(format!("its row is called {}", row.id)));
        }
        for (column, announced, value) in [
            ("grid_cell", self.columns.grid_cell, &row.grid_cell),
            ("stac_item", self.columns.stac_item, &row.stac_item),
        ] {
            if value.is_some() && !announced {
                return Err(refuse(format!("it has a {column}, and the file has no such column")));
            }
        }
        row.footprint.geometry_type().map_err(refuse)
    }

    fn note(&mut self, row: &ChipRow, geometry_type: GeometryType, place: u64) -> Result<(), SinkError> {
        if self.rows.insert((row.hilbert, row.id.as_str().into()), place).is_some() {
            let problem = "it comes twice".to_owned();
            return Err(OutputError::Chip { row: row.id.clone(), problem }.into());
        }
        self.geometry_types.insert(geometry_type);
        let [west, south, east, north] = row.footprint.covering();
        let all = self.bbox.get_or_insert([west, south, east, north]);
        *all = [all[0].min(west), all[1].min(south), all[2].max(east), all[3].max(north)];
        Ok(())
    }

    /// After an error the output is closed.
    fn with_open<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, SinkError>) -> Result<T, SinkError> {
        if self.open.is_none() {
            return Err(OutputError::Closed.into());
        }
        act(self).inspect_err(|_| self.open = None)
    }

    /// The file metadata `geo`.
    fn geo(&self) -> Value {
        let paths = CORNERS.map(|corner| (corner.to_owned(), json!([BBOX, corner])));
        let mut column = json!({
            "encoding": "WKB",
            "geometry_types": self.geometry_types.iter().map(|found| found.name()).collect::<Vec<_>>(),
            // No `crs`: the default is OGC:CRS84, longitude and latitude.
            "orientation": "counterclockwise",
            "covering": {"bbox": Value::Object(paths.into_iter().collect())},
        });
        if let Some(bbox) = self.bbox {
            column["bbox"] = json!(bbox);
        }
        json!({"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}})
    }
}

impl<K: Chip> Sink<JournalKey<K>> for GeoParquetSink {
    fn write(&mut self, key: &JournalKey<K>, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        self.with_open(|sink| sink.append(key, features))
    }

    fn known(&mut self, key: &JournalKey<K>) -> Result<(), SinkError> {
        self.with_open(|sink| sink.take_known(key))
    }

    fn failed(&mut self, key: &JournalKey<K>, error: &ItemError) -> Result<(), SinkError> {
        self.with_open(|sink| {
            sink.failures.push(Failure { path: key.key.row_name().into_owned(), error: error.to_string() });
            Ok(())
        })
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        let Open { file, provenance } = self.open.take().ok_or(OutputError::Closed)?;
        self.journal.sync()?;
        let mut table = Table::create(file, own_fields(&self.columns), &self.layout, own_properties)?;
        let mut slice = Vec::new();
        for ((_, id), &place) in &self.rows {
            let found = self.journal.row_at(place, id)?;
            slice.push(parse_details(&found.details, id).ok_or_else(|| self.journal.damaged(id))?);
            if table.row(&self.layout.split(&found.values)) {
                write_slice(&mut table, &self.columns, &mut slice)?;
            }
        }
        write_slice(&mut table, &self.columns, &mut slice)?;
        let mut failures = std::mem::take(&mut self.failures);
        failures.sort_by(|a, b| a.path.cmp(&b.path));
        let report = Report::new(provenance(summary), summary, Some(&self.layout), failures);
        let mut metadata = vec![("geo", self.geo().to_string())];
        metadata.extend(self.columns.emb.as_ref().map(|emb| ("emb", emb.to_string())));
        metadata.push((PROVENANCE_KEY, report.complete().to_string()));
        table.finish(metadata)?;
        match self.keeps_journal || !summary.failed.is_empty() {
            true => Ok(()),
            false => Ok(self.journal.remove()?),
        }
    }
}

/// A row, as it stands in the journal.
fn details_of(row: &ChipRow) -> Result<Vec<u8>, String> {
    postcard::to_extend(row, vec![DETAILS_VERSION]).map_err(|error| error.to_string())
}

fn parse_details(details: &[u8], name: &str) -> Option<ChipRow> {
    let row: ChipRow = postcard::from_bytes(details.strip_prefix(&[DETAILS_VERSION])?).ok()?;
    (row.id == name).then_some(row)
}

fn own_fields(columns: &ChipColumns) -> Vec<Field> {
    let required = |name: &str, kind| Some(Field::new(name, kind, false));
    let optional = |name: &str, kind| Some(Field::new(name, kind, true));
    let datetime = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    let fields = [
        required("id", DataType::Utf8),
        required(GEOMETRY, DataType::Binary),
        required(BBOX, DataType::Struct(corner_fields())),
        optional("datetime", datetime),
        required("source", DataType::Utf8),
        optional("epsg", DataType::Int32),
        required("x_px", DataType::Int32),
        required("y_px", DataType::Int32),
        required("width_px", DataType::Int32),
        required("height_px", DataType::Int32),
        optional("grid_cell", DataType::Utf8).filter(|_| columns.grid_cell),
        required("valid_fraction", DataType::Float32),
        optional("stac_item", DataType::Utf8).filter(|_| columns.stac_item),
    ];
    fields.into_iter().flatten().collect()
}

fn corner_fields() -> Fields {
    CORNERS.iter().map(|corner| Field::new(*corner, DataType::Float64, false)).collect()
}

/// How the small columns are stored.
fn own_properties(mut properties: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
    if let Ok(level) = ZstdLevel::try_new(SMALL_COLUMNS_ZSTD_LEVEL) {
        properties = properties.set_compression(Compression::ZSTD(level));
    }
    for column in REPEATED {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), true);
    }
    properties
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        // Bytes of geometries have no order that means anything.
        .set_column_statistics_enabled(ColumnPath::from(GEOMETRY), EnabledStatistics::None)
}

fn write_slice(table: &mut Table, columns: &ChipColumns, rows: &mut Vec<ChipRow>) -> Result<(), SinkError> {
    let arrays = own_arrays(columns, rows).map_err(SinkError::new)?;
    rows.clear();
    Ok(table.write(arrays)?)
}

/// The values of the columns of [`own_fields`].
fn own_arrays(columns: &ChipColumns, rows: &[ChipRow]) -> Result<Vec<ArrayRef>, ParquetError> {
    let texts =
        |text: fn(&ChipRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(text))) };
    let links =
        |text: fn(&ChipRow) -> &Option<String>| -> ArrayRef { Arc::new(StringArray::from_iter(rows.iter().map(text))) };
    let pixels =
        |value: fn(&ChipRow) -> i32| -> ArrayRef { Arc::new(Int32Array::from_iter_values(rows.iter().map(value))) };
    let corners = (0..CORNERS.len()).map(|corner| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.footprint.covering()[corner])))
    });
    let datetimes: TimestampMicrosecondArray = rows.iter().map(|row| row.datetime_us).collect();
    let arrays: [Option<ArrayRef>; 13] = [
        Some(texts(|row| &row.id)),
        Some(Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.footprint.wkb)))),
        Some(Arc::new(StructArray::try_new(corner_fields(), corners.collect(), None)?)),
        Some(Arc::new(datetimes.with_timezone(UTC))),
        Some(texts(|row| &row.source)),
        Some(Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.epsg)))),
        Some(pixels(|row| row.x_px)),
        Some(pixels(|row| row.y_px)),
        Some(pixels(|row| row.width_px)),
        Some(pixels(|row| row.height_px)),
        columns.grid_cell.then(|| links(|row| &row.grid_cell)),
        Some(Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row.valid_fraction)))),
        columns.stac_item.then(|| links(|row| &row.stac_item)),
    ];
    Ok(arrays.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
