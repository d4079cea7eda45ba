//! Tables of STAC items, and scenes that other pieces name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dinov3_raster::{Addresses, Opener, Options};
use dinov3_scene::{AssetChoice, SceneInput, is_catalogue, read_items, tell_apart};
use dinov3_testing::http_server::{HttpReply, HttpServer};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

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
fn what_assets_say_of_their_samples_goes_with_the_scene() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("item.json");
    let asset =
        |name: &str| json!({"href": format!("{name}.tif"), "raster:bands": [{"scale": 0.0001, "offset": -0.1}]});
    let item = json!({
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": {"datetime": "2026-05-17T10:30:31Z"},
        "assets": {"red": asset("red"), "green": asset("green"), "blue": asset("blue"), "nir": {"href": "nir.tif"}},
    });
    std::fs::write(&path, item.to_string()).unwrap();
    let said = |assets: [&str; 3]| {
        let choice = AssetChoice { assets: assets.map(str::to_owned).to_vec(), ..AssetChoice::default() };
        let listed = read_items(&Opener::new(Options::default()), &path, &choice).unwrap();
        listed.scenes[0].properties.get("raster:bands").cloned()
    };
    let band = json!({"scale": 0.0001, "offset": -0.1});
    assert_eq!(said(["red", "green", "blue"]), Some(json!([band, band, band])));
    assert_eq!(said(["nir", "green", "blue"]), Some(json!([{}, band, band])));
    assert_eq!(said(["nir", "nir", "nir"]), None);
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
fn a_document_of_a_server_names_no_files_of_this_machine() {
    let item = |[id, href]: [&str; 2]| {
        json!({"type": "Feature", "stac_version": "1.0.0", "id": id, "properties": {}, "links": [],
               "assets": {"visual": {"href": href, "type": "image/tiff"}}})
    };
    let hrefs = [
        ["a", "file:///etc/passwd"],
        ["b", "FILE://localhost/etc/passwd"],
        ["c", "/data/x.tif"],
        ["d", "http://elsewhere.example/x.tif"],
    ];
    let mut document = json!({"type": "FeatureCollection", "features": hrefs.map(item)});
    let mut sly = document["features"][0].clone();
    (sly["id"], sly["links"]) = (json!("e"), json!([{"rel": "self", "href": "file:///etc/item.json"}]));
    sly["assets"]["visual"]["href"] = json!("passwd");
    document["features"].as_array_mut().unwrap().push(sly);
    let text = document.to_string();
    let server = HttpServer::start(move |_| HttpReply::new(200, text.clone()));
    let url = PathBuf::from(format!("{}/search.json", server.url()));
    let opener = Opener::new(Options::default());
    let scenes = read_items(&opener, &url, &AssetChoice::default()).unwrap().scenes;
    for (index, href) in [(0, "file:///etc/passwd"), (1, "FILE://localhost/etc/passwd"), (4, "passwd")] {
        let problem = scenes[index].problem.as_deref().unwrap_or_default();
        assert!(problem.contains(&format!("is {href}, a file of this machine")), "{problem}");
        assert!(scenes[index].files.is_empty());
    }
    // What begins at the root begins at the root of the server.
    assert_eq!(scenes[2].files, [PathBuf::from(format!("{}/data/x.tif", server.url()))]);
    assert_eq!((scenes[3].problem.clone(), scenes[3].named_by_host.as_deref()), (None, Some("127.0.0.1")));
    // A document of this machine names what it likes.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("search.json");
    std::fs::write(&path, document.to_string()).unwrap();
    let scenes = read_items(&opener, &path, &AssetChoice::default()).unwrap().scenes;
    assert_eq!((scenes[0].files[0].to_str(), scenes[0].named_by_host.clone()), (Some("/etc/passwd"), None));
}

#[test]
fn what_a_document_of_a_server_names_elsewhere_is_at_public_addresses() {
    let secret = HttpServer::start(|_| HttpReply::new(200, "II*\0"));
    let port = secret.url().rsplit(':').next().unwrap().to_owned();
    // The same server by another name.
    let [own, other] = ["127.0.0.1", "127.0.0.2"].map(|host| PathBuf::from(format!("http://{host}:{port}/a.tif")));
    let open = |file: PathBuf, by: Option<&str>, addresses: Addresses| {
        let mut options = Options::default();
        options.addresses = addresses;
        let scene = SceneInput { named_by_host: by.map(str::to_owned), ..SceneInput::from(file) };
        scene.open(&Opener::new(options)).err().unwrap().to_string()
    };
    let refused = open(other.clone(), Some("127.0.0.1"), Addresses::PublicAfterRedirect);
    assert!(refused.contains("127.0.0.2") && refused.contains("only public addresses are allowed"), "{refused}");
    assert_eq!(secret.requests().len(), 0);
    let before = |told: String| assert!(!told.contains("public"), "{told}");
    before(open(own, Some("127.0.0.1"), Addresses::PublicAfterRedirect));
    assert_eq!(secret.requests().len(), 1);
    open(other.clone(), None, Addresses::PublicAfterRedirect);
    open(other, Some("127.0.0.1"), Addresses::Any);
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
    let found = named(&urls);
    assert!(found[0].starts_with("https://h/a?[") && found[0].len() == "https://h/a?[".len() + 9, "{found:?}");
    assert!(found[0] == found[3] && found[0] != found[2] && found[1] == "https://h/b", "{found:?}");
    // Whatever their order.
    assert_eq!(named(&[urls[2], urls[0]]), [found[2].clone(), found[0].clone()]);
    assert_eq!(
        named(&["https://h/a?k=1", "https://h/a?k=1", "a.tif", "a.tif"]),
        ["https://h/a", "https://h/a", "a.tif", "a.tif"]
    );
}
