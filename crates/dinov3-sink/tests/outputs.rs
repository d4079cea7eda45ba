//! What the sinks write, read back; and what they leave behind when a run does not end well.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_schema::DataType;
use dinov3_engine::{ImageFeatures, ItemError, ItemErrorKind, Sink, Summary};
use dinov3_model::array::Array;
use dinov3_model::encoder::{Features, Pooling, Request};
use dinov3_model::spec;
use dinov3_sink::{
    AtomicFile, EmbeddingLayout, EmbeddingSink, Format, OutputError, Provenance, RowName, write_features_safetensors,
    write_npy,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding};
use serde_json::{Value, json};

/// A folder of its own for each test; removed at the end, when it must hold no temporary file.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dinov3-sink-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn files(&self) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = fs::read_dir(&self.0).unwrap().map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.files().iter().all(|name| !name.ends_with(".tmp")), "{:?}", self.files());
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WIDTH: usize = 5;
const CLASSES: usize = 3;

fn value(row: usize, column: usize, index: usize) -> f32 {
    match (row, index) {
        (2, 0) => f32::NAN,
        (2, 1) => f32::NEG_INFINITY,
        (3, 0) => f32::MIN_POSITIVE / 8.0,
        (3, 1) => 0.1 + 0.2,
        _ => ((row * 7 + column * 3 + index) as f32).sin(),
    }
}

fn features(row: usize) -> Features {
    let array = |column: usize, width: usize| Array {
        shape: vec![1, width],
        data: (0..width).map(|index| value(row, column, index)).collect(),
    };
    let mut features = Features::default();
    features.count = 1;
    features.pooled = vec![(Pooling::Average, array(0, WIDTH)), (Pooling::Token, array(1, WIDTH))];
    features.logits = Some(array(2, CLASSES));
    features
}

fn layout() -> EmbeddingLayout {
    let poolings = [Pooling::Average, Pooling::Token];
    EmbeddingLayout::new(&poolings, WIDTH, Some((Pooling::Average, CLASSES))).unwrap()
}

fn one_column() -> EmbeddingLayout {
    EmbeddingLayout::new(&[Pooling::Average], WIDTH, None).unwrap()
}

fn provenance() -> Provenance {
    Box::new(|summary| json!({"schema": 1, "model": "toy \"quoted\"", "batches": summary.batches}))
}

const NAMES: [&str; 5] = ["a.jpg", "b \"c\".jpg", "Bäume/松.png", "back\\slash.jpg", ""];
const FAILED: &str = "broken, \\x.jpg";

/// Five rows, with a failure between the second and the third.
fn fill(sink: &mut EmbeddingSink) {
    for (row, name) in NAMES.iter().enumerate() {
        if row == 2 {
            let error = ItemError::new(ItemErrorKind::Decode, "truncated \"file\"");
            sink.failed(&FAILED, &error).unwrap();
        }
        sink.write(name, ImageFeatures::new(&features(row), 0).unwrap()).unwrap();
    }
}

fn finish(sink: &mut EmbeddingSink) {
    let mut summary = Summary::default();
    summary.done = 5;
    Sink::<&str>::finish(sink, &summary).unwrap();
}

fn written(path: &Path, layout: EmbeddingLayout) {
    let mut sink = EmbeddingSink::open(path, layout, provenance()).unwrap();
    fill(&mut sink);
    assert!(!path.exists());
    finish(&mut sink);
    let late = sink.write(&"late", ImageFeatures::new(&features(0), 0).unwrap()).unwrap_err();
    assert!(matches!(late.downcast_ref(), Some(OutputError::Closed)));
}

fn check_provenance(found: &Value, with_failures: bool) {
    assert_eq!(found["schema"], 1);
    assert_eq!(found["model"], "toy \"quoted\"");
    assert_eq!(found["counts"]["done"], 5);
    assert_eq!(found["columns"]["embedding"], json!({"content": "embedding", "pooling": "avg", "width": WIDTH}));
    if with_failures {
        assert_eq!(found["failures"], json!([{"path": FAILED, "error": "truncated \"file\""}]));
    }
}

fn same(found: &[f32], row: usize, column: usize) {
    let bits = |value: f32| value.to_bits();
    let expected: Vec<u32> = (0..found.len()).map(|index| bits(value(row, column, index))).collect();
    assert_eq!(found.iter().copied().map(bits).collect::<Vec<_>>(), expected, "row {row} column {column}");
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn parquet() {
    let folder = Folder::new("parquet");
    let path = folder.join("out.parquet");
    written(&path, layout());
    assert_eq!(folder.files(), ["out.parquet"]);

    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
    let file = reader.metadata().file_metadata();
    let entries = file.key_value_metadata().unwrap();
    let entry = entries.iter().find(|entry| entry.key == "dinov3").unwrap();
    check_provenance(&serde_json::from_str(entry.value.as_ref().unwrap()).unwrap(), true);
    for column in reader.metadata().row_group(0).columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)));
        let split = column.encodings().any(|encoding| encoding == Encoding::BYTE_STREAM_SPLIT);
        assert_eq!(split, column.column_path().string() != "path");
        assert_eq!(column.dictionary_page_offset(), None);
    }
    let columns = reader.schema().fields();
    let names: Vec<&String> = columns.iter().map(|field| field.name()).collect();
    assert_eq!(names, ["path", "embedding", "embedding_token", "logits"]);
    let DataType::FixedSizeList(child, width) = columns[1].data_type() else { panic!("{columns:?}") };
    assert_eq!((child.name().as_str(), child.is_nullable(), *width), ("element", false, WIDTH as i32));
    assert!(columns.iter().all(|field| !field.is_nullable()));

    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.len(), 1);
    let paths: Vec<_> = batches[0].column(0).as_string::<i32>().iter().map(Option::unwrap).collect();
    assert_eq!(paths, NAMES);
    for column in 0..3 {
        let lists = batches[0].column(column + 1).as_fixed_size_list();
        for row in 0..5 {
            same(lists.value(row).as_primitive::<Float32Type>().values(), row, column);
        }
    }
}

#[test]
fn parquet_in_several_row_groups() {
    // 128 MiB of 4 KiB rows are 32,263 rows with their names.
    let folder = Folder::new("groups");
    let path = folder.join("out.parquet");
    let layout = EmbeddingLayout::new(&[Pooling::Max], 1024, None).unwrap();
    let mut sink = EmbeddingSink::open(&path, layout, provenance()).unwrap();
    let mut features = Features::default();
    features.count = 1;
    features.pooled = vec![(Pooling::Max, Array::zeros(&[1, 1024]))];
    for row in 0..33_000 {
        features.pooled[0].1.data[0] = row as f32;
        sink.write(&row.to_string(), ImageFeatures::new(&features, 0).unwrap()).unwrap();
    }
    Sink::<String>::finish(&mut sink, &Summary::default()).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [32_263, 33_000 - 32_263]);
    let mut row = 0;
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let lists = batch.column(1).as_fixed_size_list();
        for index in 0..batch.num_rows() {
            assert_eq!(lists.value(index).as_primitive::<Float32Type>().value(0), row as f32);
            row += 1;
        }
    }
    assert_eq!(row, 33_000);
}

#[test]
fn npy() {
    let folder = Folder::new("npy");
    let path = folder.join("out.npy");
    written(&path, one_column());
    assert_eq!(folder.files(), ["out.npy", "out.npy.json"]);

    let bytes = fs::read(&path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0);
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.ends_with('\n'));
    assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 5), }");
    let values = floats(&bytes[10 + length..]);
    assert_eq!(values.len(), 5 * WIDTH);
    for (row, values) in values.chunks(WIDTH).enumerate() {
        same(values, row, 0);
    }
    let sidecar = json_file(&folder.join("out.npy.json"));
    assert_eq!(sidecar["paths"], json!(NAMES));
    assert_eq!(sidecar["failures"], json!([{"path": FAILED, "error": "truncated \"file\""}]));
    check_provenance(&sidecar["provenance"], false);
}

#[test]
fn npy_holds_one_pooling() {
    let folder = Folder::new("npy-columns");
    let logits = EmbeddingLayout::new(&[], 1, Some((Pooling::Average, 2))).unwrap();
    for layout in [layout(), logits] {
        let result = EmbeddingSink::open(folder.join("out.npy"), layout, provenance());
        assert!(matches!(result, Err(OutputError::OneColumnOnly { .. })));
    }
    assert!(folder.files().is_empty());
}

#[test]
fn safetensors() {
    let folder = Folder::new("safetensors");
    let path = folder.join("out.safetensors");
    written(&path, layout());
    assert_eq!(folder.files(), ["out.safetensors"]);

    let bytes = fs::read(&path).unwrap();
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header % 8, 0);
    let about = metadata.metadata().as_ref().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&about["paths"]).unwrap(), json!(NAMES));
    check_provenance(&serde_json::from_str(&about["dinov3"]).unwrap(), true);
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (column, (name, width)) in
        [("embedding", WIDTH), ("embedding_token", WIDTH), ("logits", CLASSES)].into_iter().enumerate()
    {
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.shape(), [5, width]);
        for (row, values) in floats(tensor.data()).chunks(width).enumerate() {
            same(values, row, column);
        }
    }
}

fn check_lines(text: &str) {
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[2], json!({"path": FAILED, "error": "truncated \"file\""}));
    let rows = lines.iter().filter(|line| line.get("error").is_none());
    for (row, line) in rows.enumerate() {
        assert_eq!(line["path"], NAMES[row]);
        for (column, name) in ["embedding", "embedding_token", "logits"].into_iter().enumerate() {
            let values = line[name].as_array().unwrap();
            assert_eq!(values.len(), if column == 2 { CLASSES } else { WIDTH });
            for (index, found) in values.iter().enumerate() {
                let expected = value(row, column, index);
                match found.as_f64() {
                    Some(found) => assert_eq!(found as f32, expected),
                    None => assert!(found.is_null() && !expected.is_finite()),
                }
            }
        }
    }
}

#[test]
fn json_lines() {
    let folder = Folder::new("jsonl");
    let path = folder.join("out.JSONL");
    written(&path, layout());
    assert_eq!(folder.files(), ["out.JSONL", "out.JSONL.json"]);
    let text = fs::read_to_string(&path).unwrap();
    check_lines(&text);
    // Shortest digits that give the f32 back.
    assert!(text.contains(&format!(",{},", 0.1f32 + 0.2)), "{text}");
    check_provenance(&json_file(&folder.join("out.JSONL.json")), true);
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stream_gets_each_line_at_once() {
    let shared = Shared::default();
    let mut sink = EmbeddingSink::stream(Box::new(shared.clone()), layout(), provenance());
    sink.write(&NAMES[0], ImageFeatures::new(&features(0), 0).unwrap()).unwrap();
    assert!(shared.0.lock().unwrap().ends_with(b"}\n"));
    shared.0.lock().unwrap().clear();

    let mut sink = EmbeddingSink::stream(Box::new(shared.clone()), layout(), provenance());
    fill(&mut sink);
    finish(&mut sink);
    let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
    let (rows, last) = text.trim_end().rsplit_once('\n').unwrap();
    check_lines(&format!("{rows}\n"));
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["provenance"]["schema"], 1);
}

#[test]
fn a_closed_pipe_is_recognised() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = EmbeddingSink::stream(Box::new(Closed), layout(), provenance());
    let mut write = || sink.write(&"a", ImageFeatures::new(&features(0), 0).unwrap()).unwrap_err();
    assert!(write().downcast_ref::<OutputError>().is_some_and(OutputError::is_broken_pipe));
    assert!(matches!(write().downcast_ref(), Some(OutputError::Closed)));
}

#[test]
fn nothing_in_gives_readable_empty_files() {
    let folder = Folder::new("empty");
    for format in Format::ALL {
        let path = folder.join(&format!("out.{}", format.extension()));
        let mut sink = EmbeddingSink::open(&path, one_column(), provenance()).unwrap();
        Sink::<&str>::finish(&mut sink, &Summary::default()).unwrap();
    }
    let file = fs::File::open(folder.join("out.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    assert_eq!(reader.schema().fields().len(), 2);
    assert_eq!(reader.build().unwrap().count(), 0);
    let bytes = fs::read(folder.join("out.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("embedding").unwrap().shape(), [0, WIDTH]);
    let bytes = fs::read(folder.join("out.npy")).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("(0, 5)"));
    assert_eq!(bytes.len(), 128);
    assert_eq!(json_file(&folder.join("out.npy.json"))["paths"], json!([]));
    assert_eq!(fs::read(folder.join("out.jsonl")).unwrap(), b"");
}

#[test]
fn an_unfinished_sink_leaves_nothing_and_changes_nothing() {
    let folder = Folder::new("unfinished");
    for format in Format::ALL {
        let path = folder.join(&format!("new.{}", format.extension()));
        let mut sink = EmbeddingSink::open(&path, one_column(), provenance()).unwrap();
        sink.write(&"a", ImageFeatures::new(&features(0), 0).unwrap()).unwrap();
        drop(sink);
        assert!(folder.files().is_empty());
    }
    let path = folder.join("old.npy");
    fs::write(&path, "old").unwrap();
    drop(EmbeddingSink::open(&path, one_column(), provenance()).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    written_over(&path);
}

fn written_over(path: &Path) {
    let mut sink = EmbeddingSink::open(path, one_column(), provenance()).unwrap();
    fill(&mut sink);
    assert_eq!(fs::read(path).unwrap(), b"old");
    finish(&mut sink);
    assert_eq!(&fs::read(path).unwrap()[1..6], b"NUMPY");
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let folder = Folder::new("refused");
    let open = |name: &str| EmbeddingSink::open(folder.join(name), one_column(), provenance()).map(|_| ());
    fs::create_dir(folder.join("folder.npy")).unwrap();
    fs::create_dir(folder.join("taken.npy.json")).unwrap();
    assert!(matches!(open("folder.npy"), Err(OutputError::IsFolder { .. })));
    assert!(matches!(open("taken.npy"), Err(OutputError::IsFolder { .. })));
    assert!(matches!(open("missing/out.npy"), Err(OutputError::MissingFolder { .. })));
    for name in ["out.csv", "out", "parquet", ".npy"] {
        let error = open(name).unwrap_err();
        assert!(matches!(error, OutputError::UnknownFormat { .. }));
        assert!(error.to_string().contains(".parquet, .npy, .safetensors, .jsonl"), "{error}");
    }
    assert!(matches!(AtomicFile::create(folder.join("new/")), Err(OutputError::IsFolder { .. })));
    assert!(AtomicFile::create("").is_err());
    #[cfg(unix)]
    assert!(matches!(AtomicFile::create("/dev/null"), Err(OutputError::NotAFile { .. })));
    assert_eq!(folder.files(), ["folder.npy", "taken.npy.json"]);
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_followed() {
    let folder = Folder::new("link");
    fs::create_dir(folder.join("data")).unwrap();
    fs::write(folder.join("data/real.bin"), "old").unwrap();
    let link = folder.join("link.bin");
    std::os::unix::fs::symlink(folder.join("data/real.bin"), &link).unwrap();
    let mut file = AtomicFile::create(&link).unwrap();
    file.write_all(b"new").unwrap();
    file.commit().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(folder.join("data/real.bin")).unwrap(), b"new");
    // Also to where nothing is yet, over two links.
    std::os::unix::fs::symlink("data/first.bin", folder.join("second.bin")).unwrap();
    std::os::unix::fs::symlink("later.bin", folder.join("data/first.bin")).unwrap();
    let file = AtomicFile::create(folder.join("second.bin")).unwrap();
    file.commit().unwrap();
    assert!(fs::symlink_metadata(folder.join("second.bin")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(folder.join("data/later.bin")).unwrap().is_file());
    std::os::unix::fs::symlink("loop.bin", folder.join("loop.bin")).unwrap();
    assert!(AtomicFile::create(folder.join("loop.bin")).is_err());
}

#[test]
fn layouts_that_make_no_table_are_refused() {
    let new = EmbeddingLayout::new;
    assert!(matches!(new(&[], 4, None), Err(OutputError::NoColumns)));
    assert!(matches!(new(&[Pooling::None], 4, None), Err(OutputError::NotAVector { .. })));
    let logits = Some((Pooling::None, 4));
    assert!(matches!(new(&[Pooling::Max], 4, logits), Err(OutputError::NotAVector { .. })));
    let twice = [Pooling::Max, Pooling::Token, Pooling::Max];
    assert!(matches!(new(&twice, 4, None), Err(OutputError::DuplicatePooling { pooling: Pooling::Max })));
    for width in [0, 1 << 31] {
        assert!(matches!(new(&[Pooling::Max], width, None), Err(OutputError::ColumnWidth { .. })));
    }
    let model = spec::all().swap_remove(0).with_num_classes(7);
    let request = Request::new().poolings([Pooling::Token, Pooling::Max]).logits(Pooling::Token);
    let layout = EmbeddingLayout::for_request(&model, &request).unwrap();
    let columns: Vec<_> = layout.columns().iter().map(|column| (column.name.as_str(), column.width)).collect();
    assert_eq!(columns, [("embedding", 384), ("embedding_max", 384), ("logits", 7)]);
}

#[test]
fn features_that_do_not_fit_the_layout_are_an_error() {
    let mut wrong_pooling = features(0);
    wrong_pooling.pooled.swap(0, 1);
    let mut wrong_width = features(0);
    wrong_width.pooled[1].1 = Array::zeros(&[1, 4]);
    let mut missing = features(0);
    missing.logits = None;
    for features in [wrong_pooling, wrong_width, missing] {
        let mut sink = EmbeddingSink::stream(Box::new(io::sink()), layout(), provenance());
        let error = sink.write(&"a", ImageFeatures::new(&features, 0).unwrap()).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(OutputError::RowMismatch { .. })));
    }
}

#[test]
fn feature_files() {
    let folder = Folder::new("features");
    let array = |shape: &[usize]| {
        let count = shape.iter().product::<usize>();
        Array { shape: shape.to_vec(), data: (0..count).map(|index| index as f32).collect() }
    };
    let tensors = [("stages.2".to_owned(), array(&[1, 2, 3, 4])), ("tokens".to_owned(), array(&[5]))];
    let path = folder.join("maps.safetensors");
    let about = BTreeMap::from([("dinov3".to_owned(), "{\"schema\":1}".to_owned())]);
    write_features_safetensors(&path, &tensors, &about).unwrap();
    let bytes = fs::read(&path).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, array) in &tensors {
        let tensor = read.tensor(name).unwrap();
        assert_eq!((tensor.shape(), floats(tensor.data())), (&array.shape[..], array.data.clone()));
    }

    write_npy(folder.join("map.npy"), &array(&[2, 3, 4]), Some(&json!({"schema": 1}))).unwrap();
    write_npy(folder.join("scalar.npy"), &array(&[]), None).unwrap();
    write_npy(folder.join("row.npy"), &array(&[3]), None).unwrap();
    let text = |name: &str| String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap()).into_owned();
    assert!(text("map.npy").contains("'shape': (2, 3, 4), }"));
    assert!(text("scalar.npy").contains("'shape': (), }"));
    assert!(text("row.npy").contains("'shape': (3,), }"));
    assert_eq!(json_file(&folder.join("map.npy.json"))["schema"], 1);

    let files = folder.files();
    let bad = Array { shape: vec![2, 2], data: vec![0.0; 3] };
    assert!(matches!(write_npy(folder.join("bad.npy"), &bad, Some(&json!({}))), Err(OutputError::Tensor { .. })));
    let deep = Array { shape: vec![1; 40_000], data: vec![0.0] };
    assert!(matches!(write_npy(folder.join("bad.npy"), &deep, None), Err(OutputError::Tensor { .. })));
    let twice = [tensors[0].clone(), tensors[0].clone()];
    for tensors in [&[("bad".to_owned(), bad)][..], &twice] {
        let result = write_features_safetensors(folder.join("bad.safetensors"), tensors, &about);
        assert!(matches!(result, Err(OutputError::Tensor { .. })));
    }
    assert_eq!(folder.files(), files);
}

#[cfg(unix)]
#[test]
fn any_path_can_name_a_row() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let name = |bytes: &[u8]| Path::new(OsStr::from_bytes(bytes)).row_name().into_owned();
    assert_eq!(name("Bäume\\松.jpg".as_bytes()), "Bäume\\松.jpg");
    assert_eq!(name(b"caf\xE9.jpg"), r"caf\xE9.jpg");
    assert_eq!(name(br"caf\xE9.jpg"), r"caf\\xE9.jpg");
    assert_eq!(dinov3_sink::row_name_bytes(r"caf\xE9.jpg"), b"caf\xE9.jpg");
}

#[test]
fn provenance_is_asked_for_at_the_end() {
    let folder = Folder::new("late");
    let path = folder.join("out.jsonl");
    let late = Arc::new(Mutex::new(String::from("not yet")));
    let shared = late.clone();
    let provenance: Provenance = Box::new(move |_| json!(*shared.lock().unwrap()));
    let mut sink = EmbeddingSink::open(&path, one_column(), provenance).unwrap();
    *late.lock().unwrap() = "sha256".to_owned();
    Sink::<&str>::finish(&mut sink, &Summary::default()).unwrap();
    let about = json_file(&folder.join("out.jsonl.json"));
    assert_eq!((&about["provenance"], &about["schema"]), (&json!("sha256"), &json!(1)));
}
