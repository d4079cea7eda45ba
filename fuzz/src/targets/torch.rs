//! PyTorch checkpoints: the pickle inside, and the zip around it.

use std::ops::ControlFlow;
use std::path::Path;

use dinov3_testing::checkpoints::Type;
use dinov3_testing::pth::{Layout, PickleWriter, ZipWriter, contiguous, state_dict};
use dinov3_weights::{open_files, verify_files};

use super::has_a_reason;
use super::weights::{lies_within, with_file};
use crate::Target;

/// Bytes of each storage that the pickle may name: "0" and "1".
const STORAGE_BYTES: usize = 64;

/// The pickle: the bytes lie in a well-formed zip, beside two storages.
pub(super) const PICKLE: Target = Target {
    name: "torch_pickle",
    run: |pickle| check(&archive(pickle)),
    seeds: || {
        let tensors = [("w".to_string(), vec![2, 3]), ("b".to_string(), vec![16])];
        let mut seeds = Vec::new();
        for (kind, protocol, wrapper, parameters) in [
            (Type::F32, 2, None, false),
            (Type::Bf16, 4, Some("teacher"), true),
            (Type::F16, 5, Some("model"), false),
            (Type::F32, 2, Some("state_dict"), true),
        ] {
            seeds.push(state_dict(&tensors, kind, &Layout { protocol, wrapper, parameters }));
        }
        // As the first, with storages of the size that the archive has.
        for (first, shape) in [(0, vec![4, 4]), (3, vec![2, 3]), (16, vec![0])] {
            let mut pickle = PickleWriter::new(2);
            pickle.op(b"}");
            pickle.text("w");
            pickle.tensor(Type::F32, "1", first, &shape, &contiguous(&shape), STORAGE_BYTES / 4);
            pickle.op(b"s");
            seeds.push(pickle.finish());
        }
        seeds
    },
    longest_bytes: 2048,
    words: &[
        b"\x80\x02",
        b"\x80\x04\x95",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        b"ctorch\nBoolStorage\n",
        b"cos\nsystem\n",
        b"X\x07\0\0\0storage",
        b"X\x01\0\0\x001",
        b"X\x03\0\0\0cpu",
        b"Q",
        b"R",
        b"(",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"}",
        b"]",
        b"u",
        b"s",
        b"e",
        b"b",
        b"0",
        b"2",
        b"h\0",
        b"q\0",
        b"\x94",
        b"\x93",
        b"K\x10",
        b"J\xff\xff\xff\x7f",
        b"J\0\0\0\x80",
        b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x89",
        b"\x88",
        b"N",
        b".",
    ],
};

/// The whole file.
pub(super) const ZIP: Target = Target {
    name: "torch_zip",
    run: check,
    seeds: || {
        let shape = [4, 4];
        let mut pickle = PickleWriter::new(2);
        pickle.op(b"}");
        pickle.text("w");
        pickle.tensor(Type::F32, "0", 0, &shape, &contiguous(&shape), STORAGE_BYTES / 4);
        pickle.op(b"s");
        let pickle = pickle.finish();
        vec![archive(&pickle), archive(b""), b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19".to_vec()]
    },
    longest_bytes: 2048,
    words: &[
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b"PK\x06\x07",
        b"PK\x07\x08",
        b"archive/data.pkl",
        b"archive/data/0",
        b"archive/byteorder",
        b"archive/constants.pkl",
        b"big",
        b"\x01\0",
        b"\xff\xff\xff\xff",
        b"\xff\xff",
        b"FB",
    ],
};

fn check(bytes: &[u8]) {
    with_file("weights.pth", bytes, |path| {
        match open_files(path) {
            Ok(files) => lies_within(&files, bytes.len(), true),
            Err(error) => has_a_reason(&error),
        }
        verify(path);
    });
}

/// The reader that looks at every byte comes to an end too.
fn verify(path: &Path) {
    if let Err(error) = verify_files(path, &mut |_, _| ControlFlow::Continue(())) {
        has_a_reason(&error);
    }
}

fn archive(pickle: &[u8]) -> Vec<u8> {
    let storage = [0, 0, 0x80, 0x3f].repeat(STORAGE_BYTES / 4);
    let mut zip = ZipWriter::new(Vec::new());
    let entries = [
        ("data.pkl", pickle),
        ("byteorder", b"little"),
        ("data/0", &storage),
        ("data/1", &storage),
        ("version", b"3\n"),
    ];
    for (name, bytes) in entries {
        zip.entry(&format!("archive/{name}"), bytes).expect("memory can be written to");
    }
    zip.finish().expect("memory can be written to")
}
