//! What says which scenes and chips are meant: areas of interest, STAC documents, work lists, and bases of dense rasters.

use std::sync::Arc;

use bytes::Bytes;
use dinov3_pca::{Origin, Pca};
use dinov3_scene::AreaOfInterest;
use dinov3_sink::{WorkUnit, parse_work_list, write_work_list};
use dinov3_stac::{Document, parse_document, resolve};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::has_a_reason;
use crate::Target;

const ORIGIN: Origin<'_> = Origin { model: "m", weights: "w", tap: "t" };

/// GeoJSON or GeoParquet: polygons whose box is one, or a reason.
pub(super) const AREA: Target = Target {
    name: "area",
    run: |bytes| match AreaOfInterest::from_bytes(Bytes::copy_from_slice(bytes)) {
        Ok(area) => {
            assert_eq!(area.sha256().len(), 64);
            assert!(area.area().polygons() <= bytes.len() * 1000, "more polygons than bytes can name");
        }
        Err(error) => has_a_reason(&error),
    },
    seeds: || {
        let ring = "[[0,0],[1,0],[1,1],[0,0]]";
        let json = format!(
            r#"{{"type":"FeatureCollection","crs":{{"type":"name","properties":{{"name":"urn:ogc:def:crs:EPSG::32633"}}}},"features":[{{"type":"Feature","properties":{{}},"geometry":{{"type":"MultiPolygon","coordinates":[[{ring}]]}}}}]}}"#
        );
        let polygon = format!(r#"{{"type":"Polygon","coordinates":[{ring}]}}"#);
        [json.into_bytes(), polygon.into_bytes()].into_iter().chain(geoparquet()).collect()
    },
    longest_bytes: 4096,
    words: &[
        b"\"type\":\"Polygon\"",
        b"\"type\":\"GeometryCollection\",\"geometries\":[",
        b"\"coordinates\":[[[",
        b"[[179,0],[-179,0],[0,89],[179,0]]",
        b"1e308",
        b"PAR1",
        b"{\"columns\":{\"geometry\":{\"encoding\":\"WKB\"}}}",
        b"\x01\x03\0\0\0\x01\0\0\0",
    ],
};

/// A triangle as GeoParquet.
fn geoparquet() -> Option<Vec<u8>> {
    let points: [[f64; 2]; 4] = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]];
    let head = [&[1_u8][..], &3_u32.to_le_bytes(), &1_u32.to_le_bytes(), &4_u32.to_le_bytes()].concat();
    let wkb: Vec<u8> =
        head.into_iter().chain(points.as_flattened().iter().flat_map(|value| value.to_le_bytes())).collect();
    let geo = r#"{"version":"1.1.0","primary_column":"geometry","columns":{"geometry":{"encoding":"WKB"}}}"#;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![KeyValue::new("geo".to_owned(), geo.to_owned())]))
        .build();
    let schema = parse_message_type("message m { optional binary geometry; }").ok()?;
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties)).ok()?;
    let mut group = writer.next_row_group().ok()?;
    let mut column = group.next_column().ok()??;
    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(wkb)], Some(&[1, 0]), None).ok()?;
    column.close().ok()?;
    group.close().ok()?;
    writer.close().ok()?;
    Some(bytes)
}

/// A STAC document: items with assets that resolve, or a reason.
pub(super) const STAC: Target = Target {
    name: "stac",
    run: |bytes| {
        let items = match parse_document(bytes) {
            Ok(Document::Item(item)) => vec![Ok(item)],
            Ok(Document::Items { items, .. }) => items,
            Ok(_) => return,
            Err(error) => return has_a_reason(&error),
        };
        for item in items {
            match item {
                Ok(item) => {
                    assert!(!item.id.is_empty());
                    for asset in &item.assets {
                        for base in ["https://h/a/item.json?sig=x", "d/item.json", "/item.json"] {
                            let _ = resolve(base, &asset.href);
                        }
                        assert!(item.asset(&asset.key).is_ok());
                    }
                    if let Err(error) = item.choose(&[]) {
                        has_a_reason(&error);
                    }
                }
                Err(error) => has_a_reason(&error),
            }
        }
    },
    seeds: || {
        let item = json!({
            "type": "Feature", "stac_version": "1.0.0", "id": "i", "collection": "c", "links": [{"rel": "self", "href": "https://h/i"}],
            "properties": {"datetime": "2026-05-17T10:30:31Z", "raster:bands": [{"scale": 0.1, "offset": -1}]},
            "assets": {"B04": {"href": "./r.tif", "type": "image/tiff", "roles": ["data"], "eo:bands": [{"common_name": "red"}]}},
        });
        let collection =
            json!({"type": "FeatureCollection", "features": [item], "links": [{"rel": "next", "href": "x"}]});
        vec![item.to_string().into_bytes(), collection.to_string().into_bytes()]
    },
    longest_bytes: 4096,
    words: &[
        b"\"assets\":{",
        b"\"href\":\"/vsicurl/https://h/../a.tif\"",
        b"\"href\":\"file:///etc\"",
        b"\"href\":\"//h/..\"",
        b"\"start_datetime\":\"9999-12-31T23:59:60Z\"",
        b"\"type\":\"Collection\"",
        b"\"roles\":[\"visual\"]",
    ],
};

/// A work list: its units, or a reason.
pub(super) const WORK_LIST: Target = Target {
    name: "work_list",
    run: |bytes| {
        if let Err(error) = parse_work_list(Bytes::copy_from_slice(bytes)) {
            has_a_reason(&error);
        }
    },
    seeds: || {
        let unit = |unit: &str| WorkUnit {
            unit: unit.to_owned(),
            scene: "a.tif".to_owned(),
            input: r#"{"name":"a.tif","files":["a.tif"]}"#.to_owned(),
            stamp: Some("1".to_owned()),
            chips: 7,
            rows_px: Some((-3, 40)),
            size_px: Some((100, 70)),
            epsg: Some(32633),
            datetime_us: Some(5),
            ..WorkUnit::default()
        };
        let path = std::env::temp_dir().join(format!("dinov3-fuzz-{}.parquet", std::process::id()));
        let written = write_work_list(&path, &[unit("a-1"), unit("a-2")], &json!({"job": {}}));
        let bytes = written.ok().and_then(|()| std::fs::read(&path).ok());
        let _ = std::fs::remove_file(&path);
        bytes.into_iter().collect()
    },
    longest_bytes: 16 << 10,
    words: &[b"PAR1", b"\x15\xfe\xff\xff\xff\x0f", b"\x19\xfc\xff\xff\xff\xff\x07", b"\x28\xb5\x2f\xfd"],
};

/// The file of the components of a dense raster: for a model, weights and a place of one letter.
pub(super) const DENSE_BASIS: Target = Target {
    name: "dense_basis",
    run: |bytes| match Pca::from_safetensors(bytes, &ORIGIN) {
        Ok(pca) => {
            let channels = pca.mean.len();
            assert!(channels > 0 && pca.components.len().is_multiple_of(channels));
            let written = pca.to_safetensors(&ORIGIN);
            assert_eq!(Pca::from_safetensors(&written, &ORIGIN).ok(), Some(pca));
        }
        Err(error) => has_a_reason(&error),
    },
    seeds: || {
        let rows: Vec<f32> = (0..40).map(|at| ((at * at) % 17) as f32).collect();
        let basis = Pca::of_channels(&rows, 10, 2);
        vec![basis.to_safetensors(&ORIGIN)]
    },
    longest_bytes: 4096,
    words: &[b"\"__metadata__\":{", b"\"dtype\":\"F32\"", b"\"shape\":[", b"\"data_offsets\":[", b"\"kind\":\"k\""],
};
