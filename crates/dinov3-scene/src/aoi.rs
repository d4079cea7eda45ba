//! Files with areas of interest: GeoJSON and GeoParquet.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use bytes::Bytes;
use dinov3_geo::{Area, Crs, Ring, read_wkb_areas};
use dinov3_sink::read_untrusted_parquet;
use dinov3_stac::parse_json;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::SceneError;

/// Files are read whole.
const LARGEST_FILE_BYTES: u64 = 1 << 30;
/// Of all polygons together: half a gigabyte, with what is searched in them.
const MOST_VERTICES: usize = 10_000_000;
/// Geometries that are unpacked together: one that stands in the file once may be that of many rows.
const GEOMETRIES_AT_ONCE: usize = 16;
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// The polygons of a file, and what names them.
#[derive(Clone, Debug)]
pub struct AreaOfInterest {
    area: Arc<Area>,
    sha256: String,
}

impl AreaOfInterest {
    /// Reads GeoJSON (RFC 7946: longitude and latitude; with the older member `crs`, that system) or GeoParquet with WKB.
    ///
    /// # Errors
    /// [`SceneError::Area`]: not readable, neither of both, in an unknown reference system, or with anything but polygons.
    pub fn read(path: &Path) -> Result<Self, SceneError> {
        Self::parse(path).map_err(|problem| SceneError::Area { path: path.to_path_buf(), problem })
    }

    fn parse(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot be read: {error}");
        let found = fs::metadata(path).map_err(failed)?;
        if found.is_dir() {
            return Err("is a folder: name the file with the polygons".to_owned());
        }
        if found.len() > LARGEST_FILE_BYTES {
            return Err(format!("has {} bytes, and {LARGEST_FILE_BYTES} are allowed", found.len()));
        }
        let mut bytes = Vec::new();
        // What grows meanwhile, or has no length, has the same limit.
        let file = fs::File::open(path).map_err(failed)?;
        file.take(LARGEST_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Self::from_bytes(bytes.into())
    }

    /// What a file with these bytes says.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, String> {
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let (polygons, crs) = match bytes.starts_with(PARQUET_MAGIC) {
            true => read_untrusted_parquet(bytes, |bytes| Ok(of_parquet(bytes)))
                .map_err(|problem| format!("cannot be read as GeoParquet: {problem}"))??,
            false => of_json(&bytes)?,
        };
        let area = Area::new(&polygons, &crs).map_err(|error| error.to_string())?;
        Ok(Self { area: Arc::new(area), sha256 })
    }

    /// The area.
    pub fn area(&self) -> &Arc<Area> {
        &self.area
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

fn crs84() -> Result<Crs, String> {
    Crs::crs84().map_err(|error| error.to_string())
}

type Polygons = Vec<Vec<Ring>>;

// GeoJSON

fn of_json(bytes: &[u8]) -> Result<(Polygons, Crs), String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let json = parse_json(bytes).map_err(|error| format!("is neither GeoJSON ({error}) nor GeoParquet"))?;
    // GeoJSON of 2008, which GDAL and QGIS still write where it is not WGS 84, and sometimes where it is.
    let crs = match json.pointer("/crs/properties/name").and_then(Value::as_str) {
        Some(name) => known_crs(name)?,
        None if json.get("crs").is_some_and(|crs| !crs.is_null()) => {
            return Err("has a reference system without a name".to_owned());
        }
        None => crs84()?,
    };
    let mut polygons = Vec::new();
    collect(&json, &mut polygons)?;
    check_vertices(&polygons, 0)?;
    Ok((polygons, crs))
}

/// The polygons of a GeoJSON object. serde_json limits how deep they may be nested.
fn collect(json: &Value, polygons: &mut Polygons) -> Result<(), String> {
    let member = |name: &str| json.get(name).unwrap_or(&Value::Null);
    let list = |name: &str| member(name).as_array().ok_or_else(|| format!("is no GeoJSON: {name} is missing"));
    match member("type").as_str() {
        Some("FeatureCollection") => list("features")?.iter().try_for_each(|feature| collect(feature, polygons)),
        Some("GeometryCollection") => list("geometries")?.iter().try_for_each(|part| collect(part, polygons)),
        // A feature may lie nowhere.
        Some("Feature") if member("geometry").is_null() => Ok(()),
        Some("Feature") => collect(member("geometry"), polygons),
        Some("Polygon") => {
            polygons.push(rings(member("coordinates"))?);
            Ok(())
        }
        Some("MultiPolygon") => {
            for polygon in list("coordinates")? {
                polygons.push(rings(polygon)?);
            }
            Ok(())
        }
        Some(other @ ("Point" | "MultiPoint" | "LineString" | "MultiLineString")) => {
            Err(format!("holds a {other}, and areas are polygons"))
        }
        Some(other) => Err(format!("is no GeoJSON: it has the type {other}")),
        None => Err("is no GeoJSON: it has no type".to_owned()),
    }
}

fn rings(coordinates: &Value) -> Result<Vec<Ring>, String> {
    let broken = || "is no GeoJSON: the coordinates of a polygon are not lists of positions".to_owned();
    let point = |position: &Value| match position.as_array()?.as_slice() {
        [x, y, ..] => Some((x.as_f64()?, y.as_f64()?)),
        _ => None,
    };
    let ring = |positions: &Value| positions.as_array()?.iter().map(point).collect::<Option<Ring>>();
    coordinates.as_array().ok_or_else(broken)?.iter().map(|positions| ring(positions).ok_or_else(broken)).collect()
}

// GeoParquet

fn of_parquet(bytes: Bytes) -> Result<(Polygons, Crs), String> {
    let damaged = |error: &dyn std::fmt::Display| format!("cannot be read: {error}");
    // The columns' own types will do.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options);
    let builder = builder.map_err(|error| damaged(&error))?.with_batch_size(GEOMETRIES_AT_ONCE);
    let entries = builder.metadata().file_metadata().key_value_metadata();
    let geo = entries.into_iter().flatten().find(|entry| entry.key == "geo").and_then(|entry| entry.value.as_deref());
    let geo = geo.ok_or("is Parquet without the metadata of GeoParquet")?;
    let geo: Value = serde_json::from_str(geo).map_err(|error| damaged(&error))?;
    let name = geo["primary_column"].as_str().unwrap_or("geometry").to_owned();
    let column = &geo["columns"][&name];
    match column["encoding"].as_str() {
        Some("WKB") => {}
        Some(other) => return Err(format!("has geometries in the encoding {other}: write them as WKB")),
        None => return Err(format!("does not say how its column {name} is encoded")),
    }
    let crs = named_crs(column.get("crs"))?;
    let schema = builder.schema();
    let index = schema.index_of(&name).map_err(|error| damaged(&error))?;
    let projection = ProjectionMask::roots(builder.parquet_schema(), [index]);
    let reader = builder.with_projection(projection).build().map_err(|error| damaged(&error))?;
    let (mut polygons, mut vertices) = (Vec::new(), 0);
    for batch in reader {
        let batch = batch.map_err(|error| damaged(&error))?;
        for wkb in values(batch.column(0))?.into_iter().flatten() {
            let areas = read_wkb_areas(wkb).map_err(|error| format!("has a geometry that cannot be read: {error}"))?;
            vertices = check_vertices(&areas, vertices)?;
            polygons.extend(areas);
        }
    }
    Ok((polygons, crs))
}

/// How many vertices there are with those before, if they are not too many.
fn check_vertices(polygons: &[Vec<Ring>], before: usize) -> Result<usize, String> {
    let vertices = before + polygons.iter().flatten().map(Vec::len).sum::<usize>();
    match vertices > MOST_VERTICES {
        true => Err(format!("has more than {MOST_VERTICES} vertices: simplify the polygons, or leave some out")),
        false => Ok(vertices),
    }
}

/// What GeoParquet says of the reference system: nothing means OGC:CRS84, null means unknown.
fn named_crs(crs: Option<&Value>) -> Result<Crs, String> {
    let Some(crs) = crs else { return crs84() };
    if crs.is_null() {
        return Err("says that its reference system is not known".to_owned());
    }
    let id = &crs["id"];
    let authority = id["authority"].as_str().unwrap_or_default();
    let code = id["code"].as_str().map(str::to_owned).or_else(|| id["code"].as_u64().map(|code| code.to_string()));
    let Some(code) = code else {
        let name = crs["name"].as_str().unwrap_or("without a name");
        return Err(format!("is in a reference system without a code ({name}): write it in EPSG:4326"));
    };
    known_crs(&format!("{authority}:{code}"))
}

fn known_crs(name: &str) -> Result<Crs, String> {
    name.parse()
        .map_err(|_| format!("is in the reference system {name}, which is not known here: write it in EPSG:4326"))
}

fn values(column: &ArrayRef) -> Result<Vec<Option<&[u8]>>, String> {
    match column.data_type() {
        DataType::Binary => Ok(column.as_binary::<i32>().iter().collect()),
        DataType::LargeBinary => Ok(column.as_binary::<i64>().iter().collect()),
        DataType::BinaryView => Ok(column.as_binary_view().iter().collect()),
        other => Err(format!("has geometries of the type {other}, not bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polygons(json: &str) -> Result<usize, String> {
        of_json(json.as_bytes()).map(|(polygons, _)| polygons.len())
    }

    #[test]
    fn geojson_is_read_in_all_its_shapes() {
        let polygon = r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]],[[0.1,0.1],[0.2,0.1],[0.2,0.2]]]}"#;
        let multi = r#"{"type":"MultiPolygon","coordinates":[[[[0,0,9],[1,0,9],[1,1,9]]],[[[5,5],[6,5],[6,6]]]]}"#;
        let feature = format!(r#"{{"type":"Feature","properties":null,"geometry":{multi}}}"#);
        assert_eq!(polygons(polygon), Ok(1));
        assert_eq!(polygons(&format!("\u{feff}{feature}")), Ok(2));
        let collection = format!(r#"{{"type":"GeometryCollection","geometries":[{polygon},{multi}]}}"#);
        assert_eq!(polygons(&collection), Ok(3));
        let empty = r#"{"type":"Feature","properties":{},"geometry":null}"#;
        let features = format!(r#"{{"type":"FeatureCollection","features":[{feature},{empty}]}}"#);
        assert_eq!(polygons(&features), Ok(2));
        assert_eq!(polygons(r#"{"type":"FeatureCollection","features":[]}"#), Ok(0));
    }

    #[test]
    fn the_older_geojson_names_its_reference_system() {
        let with =
            |crs: &str| of_json(format!(r#"{{"type":"FeatureCollection","features":[],"crs":{crs}}}"#).as_bytes());
        let named = |name: &str| with(&format!(r#"{{"type":"name","properties":{{"name":"{name}"}}}}"#));
        assert_eq!(named("urn:ogc:def:crs:OGC:1.3:CRS84").unwrap().1, Crs::crs84().unwrap());
        assert_eq!(named("urn:ogc:def:crs:EPSG::32633").unwrap().1.epsg(), Some(32633));
        assert!(with("null").is_ok());
        assert!(with(r#"{"type":"link"}"#).is_err() && named("EPSG:1").is_err());
    }

    #[test]
    fn what_is_no_area_is_refused() {
        for (json, said) in [
            (r#"{"type":"Point","coordinates":[1,2]}"#, "holds a Point"),
            (r#"{"type":"Polygon","coordinates":[[["a",0]]]}"#, "positions"),
            (r#"{"type":"Polygon"}"#, "positions"),
            (r#"{"type":"FeatureCollection"}"#, "features is missing"),
            ("[1,2]", "no type"),
            ("name,wkt", "neither GeoJSON"),
        ] {
            assert!(polygons(json).unwrap_err().contains(said), "{json}");
        }
    }
}
