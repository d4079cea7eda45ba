//! Scenes of `dinov3 verify` and of the recipes of other projects.

use std::fs;
use std::path::Path;

use dinov3_testing::checkpoints::{self, Type};
use dinov3_testing::dialect::Dialect;
use serde_json::Value;
use snapbox::cmd::{Command, OutputAssert};
use snapbox::str;
use tempfile::TempDir;

const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;

/// A folder with `tiny.json`, a model; its weights `tiny.safetensors`; and a picture, `photo.bmp`.
fn scene() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tiny.json"), TINY).unwrap();
    let spec = dinov3::find_model(folder.path().join("tiny.json").to_str().unwrap()).unwrap();
    let weights = checkpoints::synthetic_weights(&spec, 7, Dialect::Timm);
    checkpoints::write(&folder.path().join("tiny.safetensors"), &weights, Type::F32);
    fs::write(folder.path().join("photo.bmp"), bmp(40, 30)).unwrap();
    folder
}

fn dinov3(folder: &Path, line: &str) -> Command {
    Command::new(snapbox::cmd::cargo_bin!("dinov3"))
        .current_dir(folder)
        .env("DINOV3_CACHE", folder.join(".cache"))
        .args(line.split_whitespace())
}

fn bmp(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    for value in [54 + width * 3 * height, 0, 54, 40, width, height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend((0..width * 3 * height).map(|at| (at * 7 % 251) as u8));
    bytes
}

fn json(output: &OutputAssert) -> Value {
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

#[test]
fn whole_weights_are_verified() {
    let folder = scene();
    let output = dinov3(folder.path(), "verify tiny.safetensors -m tiny.json").assert().code(0).stderr_eq("");
    output.stdout_eq(str![[r#"
file              tiny.safetensors ([..] bytes)
sha256            [..] (nothing on record to compare with)
names             timm
tensors           32 (32 x F32), all accounted for
values            [..], all finite
fits              vit_small_patch16_dinov3 (tiny.json)

"#]]);
    let output = dinov3(folder.path(), "verify tiny.safetensors -m tiny.json --json").assert().code(0);
    assert_eq!(json(&output)["verified"], true);
}

#[test]
fn damaged_weights_are_told_from_whole_ones() {
    let folder = scene();
    let bytes = fs::read(folder.path().join("tiny.safetensors")).unwrap();
    let mut infinite = bytes.clone();
    let end = infinite.len();
    infinite[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(folder.path().join("infinite.safetensors"), infinite).unwrap();
    fs::write(folder.path().join("cut.safetensors"), &bytes[..end - 4]).unwrap();
    for (line, said) in [
        (
            "verify infinite.safetensors -m tiny.json",
            "error: infinite.safetensors: tensor [..] holds a non-finite value (inf) at element [..]\n",
        ),
        ("verify cut.safetensors -m tiny.json", "error: cut.safetensors: not a well-formed safetensors file: [..]\n"),
        ("verify missing.safetensors", "error: missing.safetensors: No such file or directory (os error 2)\n"),
    ] {
        dinov3(folder.path(), line).assert().code(1).stdout_eq("").stderr_eq(said);
    }
    let output = dinov3(folder.path(), "verify tiny.safetensors -m vit_base_patch16_dinov3").assert().code(1);
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("does not fit vit_base_patch16_dinov3"));
}

#[cfg(unix)]
#[test]
fn a_file_of_a_hub_cache_is_compared_with_its_name() {
    let folder = scene();
    let (blobs, snapshot) = (folder.path().join("hub/blobs"), folder.path().join("hub/snapshots/1"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    let output = dinov3(folder.path(), "verify tiny.safetensors -m tiny.json --json").assert().code(0);
    let sha256 = json(&output)["files"][0]["sha256"].as_str().unwrap().to_string();
    let link = snapshot.join("model.safetensors");
    for (name, code) in [(sha256.as_str(), 0), ("0123456789abcdef".repeat(4).as_str(), 1)] {
        fs::copy(folder.path().join("tiny.safetensors"), blobs.join(name)).unwrap();
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), &link).unwrap();
        let output = dinov3(folder.path(), "verify hub/snapshots/1 -m tiny.json").assert().code(code);
        let (said, told) = if code == 0 {
            (&output.get_output().stdout, "as its name in the Hugging Face cache says")
        } else {
            (&output.get_output().stderr, "damaged: its SHA-256 is")
        };
        assert!(String::from_utf8_lossy(said).contains(told), "{}", String::from_utf8_lossy(said));
    }
}

#[test]
fn other_weights_do_not_give_the_published_values() {
    let folder = scene();
    fs::write(folder.path().join("cats.bmp"), bmp(640, 480)).unwrap();
    let line = "verify vit_small_patch16_dinov3 --weights synthetic:7 --golden cats.bmp";
    let output = dinov3(folder.path(), line).assert().code(1).stderr_eq(str![[r#"
error: [..] of 10 values are more than 0.001 away from those published for vit_small_patch16_dinov3.lvd1689m and COCO val2017 000000039769.jpg: other weights, another picture, or a fault

"#]]);
    output.stdout_eq(str![[r#"
token    index    expected       found  difference
CLS          0    0.463561 [..]  differs
...
patch 0      4    0.571582 [..]  differs

"#]]);
    let line = "verify vit_small_patch16_dinov3 --weights synthetic:7 --golden photo.bmp --json";
    let output = dinov3(folder.path(), line).assert().code(1);
    let found = json(&output);
    assert_eq!((&found["verified"], &found["picture_size_is_right"]), (&Value::from(false), &Value::from(false)));
    assert_eq!(found["values"].as_array().unwrap().len(), 10);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.starts_with("warning: photo.bmp is 40 x 30 pixels; COCO val2017 000000039769.jpg"), "{said}");
}

#[test]
fn values_are_published_for_some_models_only() {
    let folder = scene();
    let line = "verify tiny.json --weights synthetic:7 --golden photo.bmp";
    let output = dinov3(folder.path(), line).assert().code(2).stdout_eq("");
    assert!(
        String::from_utf8_lossy(&output.get_output().stderr).contains("no published values; there are some for vit_")
    );
}

#[test]
fn recipes_of_other_projects_are_recorded_with_their_numbers() {
    let folder = scene();
    for (options, expected) in [
        (
            "hf",
            r#"{"name":"hf","height_px":224,"width_px":224,"interpolation":"bilinear","crop_mode":"squash","resized_as":"f32"}"#,
        ),
        (
            "meta",
            r#"{"name":"meta","height_px":256,"width_px":256,"interpolation":"bilinear","crop_mode":"squash","resized_as":"u8"}"#,
        ),
        (
            "meta-eval --size 448",
            r#"{"name":"meta-eval","height_px":448,"width_px":448,"interpolation":"bicubic","crop_mode":"center","shorter_side_px":512,"resized_as":"u8"}"#,
        ),
    ] {
        let line = format!("embed photo.bmp -m tiny.json --weights synthetic:7 --preprocess {options} -o out.npy");
        dinov3(folder.path(), &line).assert().code(0);
        let text = fs::read(folder.path().join("out.npy.json")).unwrap();
        let mut recipe = serde_json::from_slice::<Value>(&text).unwrap()["provenance"]["preprocess"].take();
        let fields = recipe.as_object_mut().unwrap();
        assert_eq!(fields.remove("mean").unwrap(), serde_json::json!([0.485, 0.456, 0.406]), "{options}");
        assert_eq!(fields.remove("std").unwrap(), serde_json::json!([0.229, 0.224, 0.225]), "{options}");
        assert_eq!(recipe, serde_json::from_str::<Value>(expected).unwrap(), "{options}");
    }
}
