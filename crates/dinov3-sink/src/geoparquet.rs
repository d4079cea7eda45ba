//! Chips as GeoParquet 1.1, in the order of (Hilbert index, id).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, Float32Array, Float64Array, Int32Array, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Fields, TimeUnit};
use dinov3_engine::SinkError;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde_json::{Value, json};

use crate::atomic::AtomicFile;
use crate::chip::{ChipCell, ChipRow, GeometryType};
use crate::chips::{ChipFormat, ChipRows};
use crate::error::OutputError;
use crate::table::{PROVENANCE_KEY, Table};

const GEOMETRY: &str = "geometry";
const BBOX: &str = "bbox";
/// In the order that the specification demands.
const CORNERS: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];
const UTC: &str = "UTC";

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

/// A GeoParquet file in the making.
pub(crate) struct GeoParquet {
    file: AtomicFile,
    columns: ChipColumns,
    geometry_types: BTreeSet<GeometryType>,
    /// Of all rows; none without rows.
    bbox: Option<[f64; 4]>,
}

impl GeoParquet {
    pub(crate) fn create(path: &Path, columns: ChipColumns) -> Result<Self, OutputError> {
        Ok(Self { file: AtomicFile::create(path)?, columns, geometry_types: BTreeSet::new(), bbox: None })
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

impl ChipFormat for GeoParquet {
    fn admit(&mut self, row: &ChipRow, _: Option<ChipCell<'_>>) -> Result<u128, String> {
        for (column, announced, value) in [
            ("grid_cell", self.columns.grid_cell, &row.grid_cell),
            ("stac_item", self.columns.stac_item, &row.stac_item),
        ] {
            if value.is_some() && !announced {
                return Err(format!("it has a {column}, and the file has no such column"));
            }
        }
        self.geometry_types.insert(row.footprint.geometry_type()?);
        let [west, south, east, north] = row.footprint.covering();
        let all = self.bbox.get_or_insert([west, south, east, north]);
        *all = [all[0].min(west), all[1].min(south), all[2].max(east), all[3].max(north)];
        Ok(row.hilbert.into())
    }

    fn finish(self: Box<Self>, mut rows: ChipRows<'_>, provenance: Value) -> Result<(), SinkError> {
        let geo = self.geo().to_string();
        let Self { file, columns, .. } = *self;
        let layout = rows.layout().clone();
        let mut table = Table::create(file, own_fields(&columns), &layout, own_properties)?;
        let mut slice = Vec::new();
        rows.for_each(|row, values| {
            slice.push(row);
            match table.row(&layout.split(values)) {
                true => write_slice(&mut table, &columns, &mut slice),
                false => Ok(()),
            }
        })?;
        write_slice(&mut table, &columns, &mut slice)?;
        let mut metadata = vec![("geo", geo)];
        metadata.extend(columns.emb.as_ref().map(|emb| ("emb", emb.to_string())));
        metadata.push((PROVENANCE_KEY, provenance.to_string()));
        Ok(table.finish(metadata)?)
    }
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
