//! Scenes of `dinov3 accuracy`, and of int8 in the other commands.

use std::fs;

use serde_json::Value;
use snapbox::cmd::Command;
use snapbox::str;
use tempfile::TempDir;

/// A model small enough that a scene takes no time.
const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;
const TINY_CONVNEXT: &str = r#"{"architecture": "convnext_tiny.dinov3_lvd1689m",
    "model_args": {"depths": [1, 1, 1, 1], "dims": [16, 16, 32, 32]}}"#;

/// A folder with two models and the pictures `a.npy` and `broken.png`.
fn scene() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("tiny.json", TINY), ("convnext.json", TINY_CONVNEXT), ("broken.png", "no picture")] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn dinov3(folder: &TempDir, line: &str) -> Command {
    Command::new(snapbox::cmd::cargo_bin!("dinov3")).current_dir(folder.path()).args(line.split_whitespace())
}

fn json(folder: &TempDir, line: &str) -> Value {
    let output = dinov3(folder, line).assert().code(0).get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn accuracy_prints_cosines_to_f32() {
    let scene = scene();
    let line = "accuracy -m tiny.json --weights synthetic:7 --size 64 --precision int8 --threads 1";
    dinov3(&scene, line).assert().code(0).stderr_eq("").stdout_eq(str![[r#"
vit_small_patch16_dinov3 (tiny.json) in int8 against f32, cosines over 4 images

output                    worst image  mean of images
  class token                 0.99[..]
  mean of patch tokens        0.99[..]
  patch tokens, mean          0.99[..]
  worst token                 0.9[..]

"#]]);
    let report = json(&scene, &format!("{line} --blocks --json"));
    assert_eq!(report["images"].as_array().unwrap().len(), 4);
    // The last block's tokens are the output's.
    for field in ["class_token", "patch_tokens_mean", "worst_token"] {
        assert_eq!(report["images"][3]["output"][field], report["images"][3]["blocks"][1][field]);
    }
    // bf16 is nearer.
    let half = json(&scene, &format!("{} --json", line.replace("int8", "bf16")));
    let cosine = |report: &Value| report["patch_tokens_mean"]["mean"].as_f64().unwrap();
    assert!(cosine(&half) > cosine(&report) && cosine(&half) < 1.0, "{half}");
}

#[test]
fn accuracy_of_a_convnext_has_no_class_token() {
    let scene = scene();
    let line = "accuracy -m convnext.json --weights synthetic:7 --size 64 --precision int8 --blocks --json";
    let report = json(&scene, line);
    assert!(report["class_token"].is_null() && report["mean"]["worst_image"].as_f64().unwrap() > 0.99, "{report}");
    assert_eq!(report["images"][0]["blocks"].as_array().unwrap().len(), 4);
}

#[test]
fn accuracy_fails_below_the_bound_and_without_a_precision() {
    let scene = scene();
    let line = "accuracy -m tiny.json --weights synthetic:7 --size 32";
    dinov3(&scene, line).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: accuracy compares a precision with f32: add --precision int8 or --precision bf16

"#]]);
    dinov3(&scene, &format!("{line} --precision bf16 --at-least 0.99")).assert().code(0);
    dinov3(&scene, &format!("{line} --precision int8 --at-least 0.99999999")).assert().code(1).stderr_eq(str![[r#"
error: noise 1: the cosine of the class token is 0.9[..], below --at-least 0.99999999

"#]]);
    dinov3(&scene, &format!("{line} --precision int8 broken.png")).assert().code(1).stderr_eq(str![[r#"
error: broken.png: [..]

"#]]);
}

#[test]
fn the_precision_is_written_beside_the_results() {
    let scene = scene();
    let pixels = [0.25_f32; 3 * 32 * 32];
    let mut array = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    array.extend(format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 32, 32), }").bytes());
    array.extend(pixels.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(scene.path().join("a.npy"), array).unwrap();
    let line = "embed a.npy --preprocess none -m tiny.json --weights synthetic:7 --precision int8 -o out.npy";
    dinov3(&scene, line).assert().code(0);
    let sidecar: Value = serde_json::from_slice(&fs::read(scene.path().join("out.npy.json")).unwrap()).unwrap();
    assert_eq!(sidecar["provenance"]["precision"], "int8");
}
