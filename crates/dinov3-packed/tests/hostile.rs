//! Files that are cut, altered or made up: refused with a reason, without a panic.

use std::path::{Path, PathBuf};

use dinov3_packed::{Description, PackedError, PackedFile, PackedWriter, PartData, is_packed};
use dinov3_system::threads::Pool;
use sha2::{Digest, Sha256};

const HEAD_BYTES: usize = 128;

/// A file with three parts, and its bytes.
fn packed() -> Vec<u8> {
    let description = Description {
        program: "test".into(),
        layout: "any".into(),
        precision: "f32".into(),
        model: serde_json::json!({"a": 1}),
        source: serde_json::json!("here"),
    };
    let mut writer = PackedWriter::new(std::io::Cursor::new(Vec::new()), description).unwrap();
    writer.part("a", "f32", &[3], PartData::F32(&[1.0, 2.0, 3.0])).unwrap();
    writer.part("b", "i32", &[1], PartData::I32(&[-1])).unwrap();
    writer.part("c", "panels", &[5, 5], PartData::Words(&[7; 20_000])).unwrap();
    let (out, summary) = writer.finish().unwrap();
    let bytes = out.into_inner();
    assert_eq!((summary.file_bytes, summary.parts), (bytes.len() as u64, 3));
    bytes
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("file.dinov3");
        // Removed, not rewritten: a mapping of the old one may live.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, bytes: &[u8]) -> Result<PackedFile, PackedError> {
        PackedFile::open(&self.write(bytes))
    }
}

fn verify(file: &PackedFile) -> Result<(), PackedError> {
    file.verify(&Pool::new(2), &|_, _| ())
}

/// The file with another table, whose checksums fit again.
fn with_table(bytes: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let offset = u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize;
    let mut table = serde_json::from_slice(&bytes[offset..]).unwrap();
    change(&mut table);
    with_table_text(&bytes[..offset], &serde_json::to_vec(&table).unwrap())
}

fn with_table_text(parts: &[u8], table: &[u8]) -> Vec<u8> {
    let mut bytes = [parts, table].concat();
    let length = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    bytes[24..32].copy_from_slice(&(parts.len() as u64).to_le_bytes());
    bytes[32..40].copy_from_slice(&(table.len() as u64).to_le_bytes());
    bytes[40..72].copy_from_slice(&Sha256::digest(table));
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    let checksum = Sha256::digest(&bytes[..72]);
    bytes[72..104].copy_from_slice(&checksum);
}

#[test]
fn what_was_written_comes_back_in_place() {
    let folder = Folder::new();
    let file = folder.open(&packed()).unwrap();
    assert!(is_packed(file.path()) && !is_packed(folder.0.path()) && !is_packed(Path::new("missing")));
    assert_eq!(*file.values::<f32>("a", "f32", &[3]).unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(*file.values::<i32>("b", "i32", &[1]).unwrap(), [-1]);
    let panels = file.values::<u32>("c", "panels", &[5, 5]).unwrap();
    assert_eq!(*panels, [7; 20_000]);
    assert_eq!(panels.as_ptr().addr() % 4096, 0, "a large part begins on a page");
    assert_eq!(file.range_of("b"), 192..196);
    assert_eq!(file.range_of(""), 128..4096 + 80_000);
    assert!(file.range_of("z").is_empty());
    for (name, kind, shape) in [("z", "f32", vec![3]), ("a", "i32", vec![3]), ("a", "f32", vec![4])] {
        let error = file.values::<f32>(name, kind, &shape).err().unwrap();
        assert!(matches!(error, PackedError::Part { .. }), "{error}");
    }
    assert_eq!((file.description().layout.as_str(), file.digest().len()), ("any", 64));
    verify(&file).unwrap();
}

#[test]
fn every_flipped_byte_is_noticed() {
    let folder = Folder::new();
    let good = packed();
    let table_offset = u64::from_le_bytes(good[24..32].try_into().unwrap()) as usize;
    // Every byte of head, table and small parts; some of the large part.
    let places = (0..300).chain((300..table_offset).step_by(997)).chain(table_offset..good.len());
    for place in places {
        let mut bytes = good.clone();
        bytes[place] ^= 0x10;
        let result = folder.open(&bytes);
        if (HEAD_BYTES..table_offset).contains(&place) {
            let error = verify(&result.unwrap()).unwrap_err();
            assert!(matches!(error, PackedError::Checksum { start: 128, .. }), "byte {place}: {error}");
        } else {
            let error = result.err().unwrap_or_else(|| panic!("byte {place} may be anything"));
            assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn every_truncation_and_every_tail_is_refused() {
    let folder = Folder::new();
    let good = packed();
    for length in (0..200).chain((200..good.len()).step_by(499)).chain(good.len() - 100..good.len()) {
        let error = folder.open(&good[..length]).err().unwrap();
        match length {
            0..8 => assert!(matches!(error, PackedError::NotPacked { .. }), "{length}: {error}"),
            _ => assert!(error.to_string().contains("cut short"), "{length}: {error}"),
        }
    }
    let longer = [&good[..], b"x"].concat();
    assert!(folder.open(&longer).err().unwrap().to_string().contains("longer than it says"));
}

#[test]
fn other_files_and_other_versions_are_told_apart() {
    let folder = Folder::new();
    for bytes in [&b""[..], b"{}", b"PK\x03\x04", &[0; 4096]] {
        assert!(matches!(folder.open(bytes), Err(PackedError::NotPacked { .. })));
    }
    let mut newer = packed();
    newer[8] = 2;
    seal(&mut newer);
    let error = folder.open(&newer).err().unwrap().to_string();
    assert!(error.contains("packed in format 2, this program reads format 1"), "{error}");
    assert!(PackedFile::open(&folder.0.path().join("missing")).err().unwrap().to_string().contains("missing"));
    assert!(PackedFile::open(folder.0.path()).is_err());
}

#[test]
fn absurd_tables_are_refused() {
    let folder = Folder::new();
    let good = packed();
    let refused = |bytes: &[u8], reason: &str| {
        let error = folder.open(bytes).err().unwrap_or_else(|| panic!("{reason}")).to_string();
        assert!(error.contains(reason), "{error}, expected {reason}");
    };
    type Change = fn(&mut serde_json::Value);
    let changes: [(Change, &str); 12] = [
        (|table| table["parts"][0]["offset"] = 64.into(), "no place"),
        (|table| table["parts"][1]["offset"] = 128.into(), "no place"),
        (|table| table["parts"][1]["offset"] = u64::MAX.into(), "no place"),
        (|table| table["parts"][2]["bytes"] = (u64::MAX - 4).into(), "no place"),
        (|table| table["parts"][1]["offset"] = 196.into(), "not aligned"),
        (|table| table["parts"][2]["bytes"] = 7.into(), "not aligned"),
        (|table| table["parts"][0]["shape"] = serde_json::json!([4]), "shape"),
        (|table| table["parts"][0]["shape"] = serde_json::json!([u64::MAX, u64::MAX]), "shape"),
        (|table| table["parts"][1]["name"] = "a".into(), "two parts"),
        (|table| table["parts"][1]["name"] = "n".repeat(300).into(), "300 bytes"),
        (|table| table["chunk_bytes"] = 1.into(), "checksums of 1 bytes"),
        (|table| table["chunk_sha256"] = serde_json::json!([]), "0 checksums"),
    ];
    for (change, reason) in changes {
        refused(&with_table(&good, change), reason);
    }
    let parts = &good[..u64::from_le_bytes(good[24..32].try_into().unwrap()) as usize];
    refused(&with_table_text(parts, b"{}"), "its table");
    refused(&with_table_text(parts, b"[1,"), "its table");
    refused(&with_table_text(parts, &vec![b' '; 2 << 20]), "cannot be");
    let mut beyond = good.clone();
    beyond[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    seal(&mut beyond);
    refused(&beyond, "cannot be");
}
