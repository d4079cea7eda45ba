//! Tables of STAC items, and scenes that other pieces name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dinov3_raster::{Opener, Options};
use dinov3_scene::{AssetChoice, SceneInput, is_catalogue, read_items, tell_apart};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// Two items; the second one has no `visual`. `time` is the column's type.
fn table(time: &str, datetimes: &[i64], compression: parquet::basic::Compression) -> Vec<u8> {
    let schema = format!(
        "message table {{
            required binary id (UTF8);
            optional group assets {{
                optional group visual {{ optional binary href (UTF8); optional binary type (UTF8); }}
                optional group B04 {{ optional binary href (UTF8); }}
            }}
            optional int64 datetime ({time});
            optional binary platform (UTF8);
        }}"
    );
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    let columns = [
        (texts(&["one", "two"]), None),
        (texts(&["https://h/one.tif?sig=secret"]), Some([3, 1])),
        (texts(&["image/tiff"]), Some([3, 1])),
        (texts(&["s3://b/B04.tif", "s3://b/B04.tif"]), Some([3, 3])),
    ];
    for (values, levels) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let levels = levels.as_ref().map(|levels| &levels[..]);
        column.typed::<ByteArrayType>().write_batch(&values, levels, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(datetimes, Some(&[1, 1]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&texts(&["sentinel-2a"]), Some(&[1, 0]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn rows_of_stac_geoparquet_are_scenes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("items.parquet");
    let second = 1_779_013_831;
    for (time, unit) in [
        ("TIMESTAMP(MILLIS,true)", 1000),
        ("TIMESTAMP(MICROS,true)", 1_000_000),
        ("TIMESTAMP(NANOS,true)", 1_000_000_000),
    ] {
        for compression in [parquet::basic::Compression::SNAPPY, parquet::basic::Compression::UNCOMPRESSED] {
            std::fs::write(&path, table(time, &[second * unit, 0], compression)).unwrap();
            let opener = Opener::new(Options::default());
            let listed = read_items(&opener, &path, &AssetChoice::default()).unwrap();
            let [one, two] = &listed.scenes[..] else { panic!("{listed:?}") };
            assert_eq!(one.files, [PathBuf::from("https://h/one.tif?sig=secret")]);
            assert_eq!((one.name.as_str(), one.stac_item.as_deref()), ("https://h/one.tif", Some("one")));
            assert_eq!(one.datetime_us, Some(second * 1_000_000), "{time}");
            assert_eq!(one.properties["platform"], "sentinel-2a");
            // The only asset that it has.
            assert_eq!((two.files[0].to_str(), two.problem.as_ref()), (Some("s3://b/B04.tif"), None));
            assert!(two.properties.get("platform").is_none());
            let red = AssetChoice {
                assets: vec!["visual".to_owned()],
                mask: Some("B04".to_owned()),
                ..AssetChoice::default()
            };
            let listed = read_items(&opener, &path, &red).unwrap();
            assert_eq!(listed.scenes[0].mask, Some(PathBuf::from("s3://b/B04.tif")));
            assert_eq!(listed.scenes[1].problem.as_deref(), Some("item two has no asset 'visual'; it has B04"));
        }
    }
}

#[test]
fn documents_are_known_by_their_names() {
    for name in ["a.json", "d/a.GeoJSON", "a.parquet", "https://h/a.json?sig=x.tif", "s3://b/items.parquet"] {
        assert!(is_catalogue(Path::new(name)), "{name}");
    }
    for name in ["a.tif", "json", "d.json/a.tif", "https://h/a.tif?x=a.json", "https://h/items/a"] {
        assert!(!is_catalogue(Path::new(name)), "{name}");
    }
}

#[test]
fn a_scene_can_be_kept_in_a_plan() {
    let scene = SceneInput {
        datetime_us: Some(5),
        stac_item: Some("x".to_owned()),
        ..SceneInput::of_files(vec!["https://u:p@h/r.tif?k=v".into(), "https://h/g.tif".into()])
    };
    assert_eq!(scene.name, "https://h/{r,g}.tif");
    let text = serde_json::to_string(&scene).unwrap();
    assert_eq!(serde_json::from_str::<SceneInput>(&text).unwrap(), scene);
    let plain = SceneInput::from(PathBuf::from("a.tif"));
    assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"name":"a.tif","files":["a.tif"]}"#);
}

#[test]
fn scenes_of_the_same_name_are_told_apart_where_their_addresses_differ() {
    let named = |files: &[&str]| {
        let mut scenes: Vec<SceneInput> = files.iter().map(|file| PathBuf::from(file).into()).collect();
        tell_apart(&mut scenes);
        scenes.into_iter().map(|scene| scene.name).collect::<Vec<_>>()
    };
    let urls = ["https://h/a?k=1", "https://h/b?k=1", "https://h/a?k=2", "https://h/a?k=1"];
    assert_eq!(named(&urls), ["https://h/a?[1]", "https://h/b", "https://h/a?[2]", "https://h/a?[1]"]);
    assert_eq!(
        named(&["https://h/a?k=1", "https://h/a?k=1", "a.tif", "a.tif"]),
        ["https://h/a", "https://h/a", "a.tif", "a.tif"]
    );
}
