//! Every operation on the disk fails once, in every format, and a second run continues.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use dinov3_engine::{Item, ItemError, ItemErrorKind, RunOptions, Source, Summary, run};
use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Pooling, Request};
use dinov3_model::spec::{self, ModelSpec};
use serde_json::{Map, Value, json};

use crate::disk::faults::{self, Fault};
use crate::*;

const ROWS: usize = 7;
const WIDTH: usize = 3;

/// A folder of its own, removed at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dinov3-journal-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names and contents, the pictures left out.
    pub(crate) fn outputs(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<(String, Vec<u8>)> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .filter(|(name, _)| !name.ends_with(".picture"))
            .collect();
        files.sort();
        files
    }

    pub(crate) fn empty(&self) {
        self.outputs().iter().for_each(|(name, _)| fs::remove_file(self.at(name)).unwrap());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Pictures whose colour is the length of their file; the fourth cannot be read.
struct Pictures(Vec<PathBuf>);

impl Pictures {
    fn in_folder(folder: &Folder) -> Self {
        let paths: Vec<PathBuf> = (0..ROWS).map(|index| folder.at(&format!("{index}.picture"))).collect();
        paths.iter().enumerate().for_each(|(index, path)| fs::write(path, vec![1; index + 1]).unwrap());
        Self(paths)
    }
}

impl Source for Pictures {
    type Key = PathBuf;

    fn keys(&self) -> Box<dyn Iterator<Item = PathBuf> + Send + '_> {
        Box::new(self.0.iter().cloned())
    }

    fn load(&self, path: &PathBuf) -> Result<Option<Item>, ItemError> {
        let bytes = fs::read(path).unwrap().len();
        if bytes == 4 {
            return Err(ItemError::new(ItemErrorKind::Decode, "truncated"));
        }
        Ok(Some(Item { height_px: 16, width_px: 16, pixels: vec![bytes as f32 / 3.0; 3 * 256] }))
    }
}

struct Colour(ModelSpec);

impl Encoder for Colour {
    fn spec(&self) -> &ModelSpec {
        &self.0
    }

    fn encode(&mut self, batch: &ImageBatch<'_>, _: &Request, features: &mut Features) -> Result<(), EncodeError> {
        features.count = batch.count;
        features.pooled.resize_with(1, || (Pooling::Average, Default::default()));
        let array = &mut features.pooled[0].1;
        array.reshape(&[batch.count, WIDTH]);
        for (row, pixels) in array.data.chunks_mut(WIDTH).zip(batch.pixels.chunks(3 * 256)) {
            row.copy_from_slice(&[pixels[0], -0.1, f32::from_bits(0x7fc0_1234)]);
        }
        Ok(())
    }
}

fn layout() -> EmbeddingLayout {
    EmbeddingLayout::new(&[Pooling::Average], WIDTH, None).unwrap()
}

fn fingerprint(precision: &str) -> Map<String, Value> {
    Map::from_iter([("precision".to_owned(), json!(precision)), ("mean".to_owned(), json!([0.485, 0.1]))])
}

/// What a run that could be continued reported: rows that are safe.
struct Report {
    result: Result<Summary, String>,
    safe: usize,
}

fn embed(output: &Path, pictures: &Pictures) -> Report {
    let opened = Journal::open(output).and_then(|mut journal| {
        journal.agree(fingerprint("f32"), &layout())?;
        Ok((journal, EmbeddingSink::open(output, layout(), Box::new(|_| json!({})))?))
    });
    let (journal, sink) = match opened {
        Ok(opened) => opened,
        Err(error) => return Report { result: Err(error.to_string()), safe: 0 },
    };
    let source = JournaledSource::new(pictures, Some(&journal));
    let mut sink = JournaledSink::new(sink, Some(journal));
    let safe = sink.safe_rows().unwrap();
    let request = Request::new().poolings([Pooling::Average]);
    let options = RunOptions::new().batch_size(2);
    let result = run(&source, &mut Colour(spec::all().swap_remove(0)), &mut sink, &request, &options);
    if result.is_err() {
        let _ = sink.keep();
    }
    Report { result: result.map_err(|error| error.to_string()), safe: safe.load(Ordering::Relaxed) }
}

#[test]
fn whatever_operation_fails_the_next_run_continues_and_gives_the_same_bytes() {
    let folder = Folder::new("faults");
    let pictures = Pictures::in_folder(&folder);
    for format in Format::ALL {
        let output = folder.at(&format!("out.{}", format.extension()));
        assert_eq!(embed(&output, &pictures).result.unwrap().done, ROWS - 1);
        let expected = folder.outputs();
        folder.empty();
        for fault in [Fault::Once, Fault::FullDisk, Fault::ShortWrite, Fault::Dead] {
            let mut known_in_all = 0;
            let mut operations = 0;
            loop {
                let mut safe = 0;
                let mut reached = false;
                let mut finished = false;
                // Sometimes the runs that continue are interrupted, too.
                for _ in 0..=operations % 3 {
                    faults::plan(fault, operations);
                    let report = embed(&output, &pictures);
                    reached |= faults::end();
                    safe = safe.max(report.safe);
                    finished = report.result.is_ok();
                    if finished {
                        break;
                    }
                }
                if !finished {
                    let last = embed(&output, &pictures);
                    let summary = last.result.unwrap_or_else(|error| panic!("{fault:?} at {operations}: {error}"));
                    let known = summary.known;
                    assert!(known >= safe, "{fault:?} at {operations}: {safe} rows were safe, {known} known");
                    known_in_all += known;
                }
                assert!(folder.outputs() == expected, "{format:?}, {fault:?} at {operations}");
                folder.empty();
                if !reached {
                    break;
                }
                operations += 1;
            }
            // At least: opening, the start, seven rows, temporary files, writing them, renaming, removing.
            assert!(operations > 14 && known_in_all > 20, "{format:?}: {operations} operations, {known_in_all} rows");
            println!("{format:?} {fault:?}: {operations} operations, {known_in_all} rows continued");
        }
    }
}

/// Leaves a journal of three rows.
fn interrupted(output: &Path, pictures: &Pictures) {
    for operations in 0.. {
        faults::plan(Fault::Dead, operations);
        embed(output, pictures).result.unwrap_err();
        faults::end();
        if Journal::open(output).unwrap().rows() == 3 {
            return;
        }
        fs::remove_file(Journal::open(output).unwrap().path()).unwrap_or_default();
    }
}

#[test]
fn changed_pictures_are_encoded_again() {
    let folder = Folder::new("changed");
    let pictures = Pictures::in_folder(&folder);
    let output = folder.at("out.jsonl");
    interrupted(&output, &pictures);
    fs::write(&pictures.0[1], vec![1; 30]).unwrap();
    assert_eq!(embed(&output, &pictures).result.unwrap().known, 2);
    let text = fs::read_to_string(&output).unwrap();
    assert!(text.lines().nth(1).unwrap().contains("[10.0,-0.1,null]"), "{text}");
    assert_eq!(text.lines().count(), ROWS);
}

#[test]
fn another_fingerprint_is_refused_with_the_field() {
    let folder = Folder::new("fingerprint");
    let pictures = Pictures::in_folder(&folder);
    let output = folder.at("out.npy");
    interrupted(&output, &pictures);
    let mut journal = Journal::open(&output).unwrap();
    let error = journal.agree(fingerprint("bf16"), &layout()).unwrap_err();
    let JournalError::Differs { field, expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!((field.as_str(), expected.as_str(), found.as_str()), ("precision", "\"bf16\"", "\"f32\""));
    let wider = EmbeddingLayout::new(&[Pooling::Average], WIDTH + 1, None).unwrap();
    let error = journal.agree(fingerprint("f32"), &wider).unwrap_err();
    assert!(matches!(error, JournalError::Differs { field, .. } if field == "columns"));
    // A refusal takes nothing away.
    drop(journal);
    let mut journal = Journal::open(&output).unwrap();
    assert_eq!(journal.rows(), 3);
    journal.discard();
    journal.agree(fingerprint("bf16"), &wider).unwrap();
    drop(journal);
    assert_eq!(folder.outputs(), []);
}

#[test]
fn other_weights_are_told_by_name() {
    let folder = Folder::new("weights");
    let weights = |name: &str, size: u64| {
        Map::from_iter([("weights".to_owned(), json!([[name, {"size_bytes": size, "modified_ns": 5}]]))])
    };
    let mut journal = Journal::open(folder.at("out.npy")).unwrap();
    journal.agree(weights("w.safetensors", 1), &layout()).unwrap();
    let stamp = Stamp::of_file(&folder.0);
    journal.row("a", stamp, &[&[0.0; WIDTH]]).unwrap();
    for (now, told) in [
        (weights("w.safetensors", 2), "other weights (w.safetensors changed)"),
        (weights("v.safetensors", 1), "other weights: w.safetensors, and not v.safetensors"),
    ] {
        let error = journal.agree(now, &layout()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("out.npy: the interrupted run had {told}")), "{error}");
    }
}

#[test]
fn a_second_run_on_the_same_output_is_refused() {
    let folder = Folder::new("lock");
    let output = folder.at("out.parquet");
    let first = Journal::open(&output).unwrap();
    assert!(matches!(Journal::open(&output), Err(JournalError::InUse { output: found }) if found == output));
    drop(first);
    Journal::open(&output).unwrap();
}

#[test]
fn a_torn_or_damaged_journal_gives_the_rows_before_the_damage() {
    let folder = Folder::new("damage");
    let pictures = Pictures::in_folder(&folder);
    let output = folder.at("out.npy");
    interrupted(&output, &pictures);
    let path = Journal::open(&output).unwrap().path().to_owned();
    let whole = fs::read(&path).unwrap();
    let rows = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Journal::open(&output).map(|journal| journal.rows())
    };
    let mut before = 0;
    for length in 0..whole.len() {
        let found = rows(&whole[..length]).unwrap();
        assert!(found >= before && found < 3);
        before = found;
    }
    assert_eq!(before, 2);
    for position in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x41;
        match rows(&bytes) {
            Ok(found) => {
                assert!(found < 3, "byte {position}");
                // Nothing goes that could not be read.
                let mut journal = Journal::open(&output).unwrap();
                let unreadable = matches!(journal.check(), Err(JournalError::Unreadable { .. }));
                assert_eq!(unreadable, found == 0, "byte {position}");
                assert_eq!(journal.agree(fingerprint("f32"), &layout()).is_err(), unreadable);
            }
            Err(error) => assert!(matches!(error, JournalError::NotAJournal { .. }) && position < 16),
        }
        assert!(path.exists(), "byte {position}");
    }
    // What a power failure leaves where a file had grown.
    assert_eq!(rows(&[whole.as_slice(), &[0; 100]].concat()).unwrap(), 3);
    assert_eq!(embed(&output, &pictures).result.unwrap().known, 3);
    fs::create_dir(&path).unwrap();
    assert!(matches!(Journal::open(&output), Err(JournalError::NotAJournal { .. })));
    fs::remove_dir(&path).unwrap();
}

#[test]
fn an_unreadable_journal_stays_until_it_is_discarded() {
    let folder = Folder::new("unreadable");
    let pictures = Pictures::in_folder(&folder);
    let output = folder.at("out.npy");
    interrupted(&output, &pictures);
    let path = Journal::open(&output).unwrap().path().to_owned();
    let whole = fs::read(&path).unwrap();
    // In the first row: the two behind it are not to be found.
    let mut damaged = whole.clone();
    let first = whole.windows(9).position(|bytes| bytes == b"0.picture").unwrap();
    damaged[first] ^= 1;
    for bytes in [&damaged[..], b"dinov3 journal 3 from tomorrow"] {
        fs::write(&path, bytes).unwrap();
        embed(&output, &pictures).result.unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    faults::plan(Fault::Once, 1);
    Journal::open(&output).unwrap_err();
    faults::end();
    assert!(path.exists());
    fs::write(&path, &damaged).unwrap();
    let mut journal = Journal::open(&output).unwrap();
    journal.discard();
    journal.agree(fingerprint("f32"), &layout()).unwrap();
    drop(journal);
    assert!(!path.exists());

    // Rows behind the damage are lost, which is told.
    let mut damaged = whole.clone();
    let second = whole.windows(9).position(|bytes| bytes == b"1.picture").unwrap();
    damaged[second] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let journal = Journal::open(&output).unwrap();
    assert_eq!((journal.rows(), journal.damaged_bytes() > 100), (1, true));
}

#[cfg(unix)]
#[test]
fn a_link_is_no_journal_and_stays() {
    let folder = Folder::new("journal-link");
    let output = folder.at("out.npy");
    let path = Journal::open(&output).unwrap().path().to_owned();
    std::os::unix::fs::symlink(folder.at("elsewhere"), &path).unwrap();
    assert!(matches!(Journal::open(&output), Err(JournalError::NotAJournal { .. })));
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn leftovers_of_killed_runs_are_removed_and_nothing_else() {
    let folder = Folder::new("leftovers");
    let pictures = Pictures::in_folder(&folder);
    let output = folder.at("out.npy");
    interrupted(&output, &pictures);
    let others =
        [".out.npy.dinov3-x-1.tmp", ".out.npy.dinov3-1-2-3.tmp", ".out.npyx.dinov3-1-2.tmp", ".dinov3-1-2.tmp"];
    let leftovers = [".out.npy.dinov3-1-2.tmp", ".out.npy.json.dinov3-1-2.tmp"];
    // Of a process that is at work.
    let live = crate::atomic::Temporary::beside(&output).unwrap();
    others.iter().chain(&leftovers).for_each(|name| fs::write(folder.at(name), "").unwrap());
    embed(&output, &pictures).result.unwrap();
    let found: Vec<String> = folder.outputs().into_iter().map(|(name, _)| name).collect();
    let live_name = live.path().file_name().unwrap().to_str().unwrap();
    let mut expected = [&others[..], &["out.npy", "out.npy.json", live_name]].concat();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn every_output_removes_the_leftovers_of_killed_processes_in_its_folder_once() {
    let folder = Folder::new("any-leftovers");
    let kept = [".a.dinov3-1.tmp", ".dinov3-1-2.tmp", "b.dinov3-1-2.tmp", ".c.dinov3-1-2.tmpx", ".d.dinov3-journal"];
    let leftovers = [".a.safetensors.dinov3-1-2.tmp", ".x.dinov3-y.npy.dinov3-77-0.tmp"];
    kept.iter().chain(&leftovers).for_each(|name| fs::write(folder.at(name), "").unwrap());
    drop(AtomicFile::create(folder.at("a.safetensors")).unwrap());
    let found: Vec<String> = folder.outputs().into_iter().map(|(name, _)| name).collect();
    let mut expected = kept.to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn names_as_long_as_names_can_be_have_a_journal() {
    let folder = Folder::new("long");
    let pictures = Pictures::in_folder(&folder);
    let output = folder.at(&format!("{}.parquet", "n".repeat(240)));
    interrupted(&output, &pictures);
    assert_eq!(embed(&output, &pictures).result.unwrap().known, 3);
}
