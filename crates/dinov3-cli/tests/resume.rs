//! Interrupted runs and how they go on.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.
#![cfg(unix)]

use std::fs;
use std::path::Path;

use dinov3_testing::bmp;
use dinov3_testing::kills::Plan;
use snapbox::cmd::Command;
use snapbox::str;
use tempfile::TempDir;

const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;

/// With `tiny.json`, a model, and the folder `photos` with forty pictures.
fn scene() -> TempDir {
    let scene = tempfile::tempdir().unwrap();
    fs::write(scene.path().join("tiny.json"), TINY).unwrap();
    fs::create_dir(scene.path().join("photos")).unwrap();
    for index in 0..40 {
        fs::write(scene.path().join(format!("photos/{index:02}.bmp")), bmp(40, 30, index)).unwrap();
    }
    scene
}

fn embed(scene: &Path, options: &str) -> Command {
    Command::new("bash")
        .current_dir(scene)
        .env("DINOV3_CACHE", scene.join(".cache"))
        .env_remove("DINOV3_ISA")
        .env("dinov3", snapbox::cmd::cargo_bin!("dinov3"))
        .arg("-c")
        .arg(format!(
            "$before; exec \"$dinov3\" embed photos -m tiny.json ${{@:---weights synthetic:7}} --size 32 {options}"
        ))
        .env("before", ":")
}

/// A run whose journal does not get beyond eight KiB.
fn interrupted(scene: &Path, options: &str) -> Command {
    embed(scene, options).env("before", "ulimit -f 8")
}

fn files(scene: &Path) -> Vec<String> {
    let entries = fs::read_dir(scene).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !["photos", "tiny.json", ".cache"].contains(&name.as_str()));
    names.sort();
    names
}

#[test]
fn a_run_that_hits_the_limit_is_told_and_continued() {
    let scene = scene();
    let scene = scene.path();
    embed(scene, "-o whole.parquet").assert().code(0);
    interrupted(scene, "-o out.parquet").assert().code(1).stdout_eq("").stderr_eq(str![[r#"
[..] finished rows are kept, --resume continues
error: [..]the journal cannot be written: File too large (os error 27)

"#]]);
    assert_eq!(files(scene), [".out.parquet.dinov3-journal", "whole.parquet"]);
    embed(scene, "-o out.parquet").assert().code(2).stderr_eq(str![[r#"
error: out.parquet: an interrupted run has finished [..] rows; continue it with --resume, or start anew with --fresh

"#]]);
    embed(scene, "-o out.parquet --resume --normalize").assert().code(2).stderr_eq(str![[r#"
error: out.parquet: the interrupted run had another normalized: it was false, and is true now; repeat its command, or start anew with --fresh

"#]]);
    embed(scene, "-o out.parquet --resume").assert().code(0).stderr_eq(str![[r#"
continuing: 23 rows are there, those of unchanged inputs are taken
40 images in [..] s, [..] images/s, 0 failed, [..] from before -> out.parquet

"#]]);
    assert_eq!(files(scene), ["out.parquet", "whole.parquet"]);
    assert!(fs::read(scene.join("out.parquet")).unwrap() == fs::read(scene.join("whole.parquet")).unwrap());
}

#[test]
fn fresh_forgets_what_was_done() {
    let scene = scene();
    let scene = scene.path();
    interrupted(scene, "-o out.npy").assert().code(1);
    // Not before the new run can start.
    let journal = fs::read(scene.join(".out.npy.dinov3-journal")).unwrap();
    embed(scene, "-o out.npy --fresh").env("before", "set -- --weights missing.safetensors").assert().code(1);
    assert!(fs::read(scene.join(".out.npy.dinov3-journal")).unwrap() == journal);
    embed(scene, "-o out.npy --fresh --pool token").assert().code(0).stderr_eq(str![[r#"
forgetting [..] rows of an interrupted run
40 images in [..] s, [..] images/s, 0 failed -> out.npy

"#]]);
    assert_eq!(files(scene), ["out.npy", "out.npy.json"]);
}

#[test]
fn a_damaged_journal_is_told_and_not_removed() {
    let scene = scene();
    let scene = scene.path();
    interrupted(scene, "-o out.npy").assert().code(1);
    let path = scene.join(".out.npy.dinov3-journal");
    let whole = fs::read(&path).unwrap();
    let with_flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    with_flipped(100);
    for options in ["", " --resume"] {
        embed(scene, &format!("-o out.npy{options}")).assert().code(2).stderr_eq(str![[r#"
error: out.npy: the journal of an interrupted run is damaged, none of its rows can be read; start anew with --fresh

"#]]);
    }
    with_flipped(whole.len() * 2 / 3);
    embed(scene, "-o out.npy --resume").assert().code(0).stderr_eq(str![[r#"
continuing: 15 rows are there, those of unchanged inputs are taken
note: the journal was damaged; its last [..] bytes are lost and what they held is encoded anew
40 images in [..] s, [..] images/s, 0 failed, [..] from before -> out.npy

"#]]);
}

#[test]
fn resume_without_an_interrupted_run_just_starts() {
    let scene = scene();
    embed(scene.path(), "-o out.jsonl --resume").assert().code(0).stderr_eq(str![[r#"
40 images in [..] s, [..] images/s, 0 failed -> out.jsonl

"#]]);
}

#[test]
fn standard_output_cannot_be_continued() {
    let scene = scene();
    embed(scene.path(), "-o - --resume").assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: --resume and --fresh need a file; standard output cannot be continued

"#]]);
}

#[test]
fn killed_runs_are_continued_to_the_same_bytes() {
    for (seed, extension) in ["parquet", "npy"].into_iter().enumerate() {
        let scene = tempfile::tempdir().unwrap();
        let plan = Plan {
            program: snapbox::cmd::cargo_bin!("dinov3"),
            folder: scene.path(),
            extension,
            pictures: 40,
            kills: 5,
            finishing: 0,
            seed: seed as u64,
        };
        let tally = plan.run(&mut |line| println!("{line}"));
        assert!(tally.kills >= 5);
    }
}
