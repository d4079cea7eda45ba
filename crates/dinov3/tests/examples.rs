//! The example programs run. `cargo test` builds them beside the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use dinov3_testing::checkpoints::{self, Type};

const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;

/// What an example says, run in `folder`.
fn run(folder: &Path, name: &str, arguments: &[&str]) -> String {
    let tests = std::env::current_exe().unwrap();
    let program: PathBuf = tests.parent().unwrap().with_file_name("examples").join(name);
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    // A run of this test alone does not build them.
    if !program.exists() {
        let cargo = Command::new(env!("CARGO")).args(["build", "-p", "dinov3", "--example", name]).status().unwrap();
        assert!(cargo.success());
    }
    let output = Command::new(program).current_dir(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_example_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("tiny.json"), TINY).unwrap();
    std::fs::create_dir(folder.join("photos")).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let pictures: Vec<PathBuf> = std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut pictures = pictures.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "png"));
    std::fs::copy(pictures.next().unwrap(), folder.join("photos/a.png")).unwrap();
    std::fs::copy(pictures.next().unwrap(), folder.join("photos/b.png")).unwrap();
    let head = [
        ("weight".to_string(), vec![3, 128], (0..384).map(|i| (i % 7) as f32).collect()),
        ("bias".to_string(), vec![3], vec![0.0; 3]),
    ];
    checkpoints::write(&folder.join("head.safetensors"), &head, Type::F32);

    let tiny = ["tiny.json", "synthetic:7"];
    let with = |more: &[&'static str]| [&tiny[..], more].concat();
    let text = run(folder, "embed", &with(&["photos/a.png", "photos/b.png"]));
    assert!(text.starts_with("64 numbers per picture\ncosine similarity 0."), "{text}");
    let text = run(folder, "feature_maps", &with(&["photos/a.png"]));
    assert!(text.contains("block 1: [64, 16, 16]\ntokens: [1, 261, 64]\n"), "{text}");
    let text = run(folder, "classify", &with(&["head.safetensors", "photos/a.png"]));
    assert!(text.starts_with("3 classes of cls+mean features\n") && text.lines().count() == 4, "{text}");
    let text = run(folder, "whole_folder", &with(&["photos", "out.parquet"]));
    assert_eq!(text, "2 pictures, 0 failed\n");
    assert!(folder.join("out.parquet").exists());
    let text = run(folder, "raw_array", &[]);
    assert_eq!(text, "256 x 256 pixels -> 384 features\n32 x 48 pixels -> tokens [11, 384]\n");
}
