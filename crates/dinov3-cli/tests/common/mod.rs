//! What scenes are made of: a folder with a small model and some pictures, and readers of what commands leave there.

// Each test file uses a part of it.
#![allow(dead_code)]

pub mod chips;
pub mod jobs;
pub mod objects;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dinov3_testing::bmp;
use dinov3_testing::checkpoints::{self, Type};
use dinov3_testing::dialect::Dialect;
use serde_json::Value;
use snapbox::cmd::{Command, OutputAssert};
use tempfile::TempDir;

/// A model small enough that a scene takes no time.
pub const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;
pub const TINY_CONVNEXT: &str = r#"{"architecture": "convnext_tiny.dinov3_lvd1689m",
    "model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}}"#;

/// A folder in which commands run.
pub struct Scene(pub TempDir);

impl Scene {
    /// With `tiny.json`, a model, and the folder `photos` with three pictures and a text.
    pub fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        scene.file("tiny.json", TINY);
        for (seed, name) in ["photos/b.bmp", "photos/a.bmp", "photos/more/c.bmp"].into_iter().enumerate() {
            scene.picture(name, 40, 30, seed as u32);
        }
        scene.file("photos/notes.txt", "not a picture");
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn picture(&self, name: &str, width: u32, height: u32, seed: u32) {
        self.file(name, bmp(width, height, seed));
    }

    /// A file of the decoder's test pictures.
    pub fn fixture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dinov3-pixels/tests/fixtures");
        self.file(name, fs::read(folder.join(name)).unwrap());
    }

    /// Random weights of the tiny model under someone's names.
    pub fn weights(&self, name: &str, dialect: Dialect) {
        let spec = dinov3::find_model(self.path("tiny.json").to_str().unwrap()).unwrap();
        checkpoints::write(&self.path(name), &checkpoints::synthetic_weights(&spec, 7, dialect), Type::F32);
    }

    /// The command line, split at spaces.
    pub fn dinov3(&self, line: &str) -> Command {
        Command::new(snapbox::cmd::cargo_bin!("dinov3"))
            .current_dir(self.0.path())
            .env("DINOV3_CACHE", self.path(".cache"))
            .env_remove("DINOV3_ISA")
            .env_remove("COLUMNS")
            .args(line.split_whitespace())
    }

    /// The same with the tiny model at a small size.
    pub fn tiny(&self, line: &str) -> Command {
        self.dinov3(&format!("{line} -m tiny.json --weights synthetic:7 --size 32"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    pub fn json_lines(&self, name: &str) -> Vec<Value> {
        json_lines(&fs::read_to_string(self.path(name)).unwrap())
    }

    pub fn npy(&self, name: &str) -> Tensor {
        let bytes = fs::read(self.path(name)).unwrap();
        let header = dinov3::npy::parse_header(&bytes).unwrap();
        assert_eq!((header.descr.as_str(), header.fortran_order), ("<f4", false));
        Tensor { data: floats(&bytes[header.data_offset..]), shape: header.shape }
    }

    /// Tensors and metadata.
    pub fn safetensors(&self, name: &str) -> (BTreeMap<String, Tensor>, Value) {
        let bytes = fs::read(self.path(name)).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let (header, data) = bytes[8..].split_at(length);
        let mut header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
        let metadata = header.remove("__metadata__").unwrap_or_default();
        let number = |value: &Value| value.as_u64().unwrap() as usize;
        let tensors = header.into_iter().map(|(name, info)| {
            assert_eq!(info["dtype"], "F32");
            let offsets = number(&info["data_offsets"][0])..number(&info["data_offsets"][1]);
            let shape = info["shape"].as_array().unwrap().iter().map(number).collect();
            (name, Tensor { shape, data: floats(&data[offsets]) })
        });
        (tensors.collect(), metadata)
    }

    /// What lies in the folder beside what the scene began with.
    pub fn new_files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !["photos", "tiny.json", ".cache"].contains(&name.as_str()));
        names.sort();
        names
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Tensor {
    pub fn rows(&self) -> Vec<&[f32]> {
        self.data.chunks(self.data.len() / self.shape[0]).collect()
    }
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// The lines of `-o -`, without the last one, which is the provenance.
pub fn streamed(output: &OutputAssert) -> Vec<Value> {
    let mut lines = json_lines(&stdout(output));
    let last = lines.pop().unwrap();
    assert_eq!(last["provenance"]["schema"], 1);
    lines
}

pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The `path` of every line.
pub fn paths(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["path"].as_str().unwrap()).collect()
}

pub fn vector(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

pub fn stdout(output: &OutputAssert) -> String {
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

pub fn stderr(output: &OutputAssert) -> String {
    String::from_utf8(output.get_output().stderr.clone()).unwrap()
}

/// ‖a − b‖ / ‖b‖.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = square(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    (difference / square(&mut b.iter().map(|&b| f64::from(b)))).sqrt()
}

/// An `.npy` file of f32.
pub fn npy(shape: &str, values: impl Iterator<Item = f32>) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    values.for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}
