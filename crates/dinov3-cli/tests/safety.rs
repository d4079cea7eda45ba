//! Scenes of what must not happen: a file that is read gets overwritten, two outputs share a file, colours change their
//! meaning, a stranger's name commands the terminal.

mod common;

use std::fs;

use common::*;
use dinov3_testing::checkpoints::{self, Type};
use dinov3_testing::dialect::Dialect;
use snapbox::str;

/// A head for the tiny model with `bias` for its first class.
fn head(scene: &Scene, file: &str, weight: f32, bias: f32) {
    let layer = [
        ("weight".to_string(), vec![3, 64], vec![weight; 3 * 64]),
        ("bias".to_string(), vec![3], vec![bias, 0.0, 0.0]),
    ];
    checkpoints::write(&scene.path(file), &layer, Type::F32);
}

#[test]
fn files_that_are_read_are_never_overwritten() {
    let scene = Scene::new();
    scene.file("labels.jsonl", "cat\ndog\nhorse\n");
    head(&scene, "head.safetensors", 0.1, 0.0);
    scene.weights("weights.safetensors", Dialect::Timm);
    let refused = |line: &str, file: &str, code: i32| {
        let before = fs::read(scene.path(file)).unwrap();
        let output = scene.dinov3(line).assert().code(code);
        assert!(stderr(&output).contains("read by this command") || code == 2, "{line}: {}", stderr(&output));
        assert_eq!(fs::read(scene.path(file)).unwrap(), before, "{line}");
    };
    let model = "-m tiny.json --weights synthetic:7 --size 32";
    refused(
        &format!("classify photos/a.bmp {model} --head head.safetensors --labels labels.jsonl -o labels.jsonl"),
        "labels.jsonl",
        2,
    );
    refused(
        "bench -m tiny.json --weights weights.safetensors --size 32 --write-inputs weights.safetensors",
        "weights.safetensors",
        2,
    );
    fs::copy(scene.path("weights.safetensors"), scene.path("weights.npy")).unwrap();
    refused("bench -m tiny.json --weights weights.npy --size 32 --write-inputs ./weights.npy", "weights.npy", 2);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("weights.safetensors", scene.path("link")).unwrap();
        refused(
            "embed photos/a.bmp -m tiny.json --weights link --size 32 -o weights.safetensors",
            "weights.safetensors",
            2,
        );
    }
}

#[test]
fn outputs_of_features_do_not_share_a_file() {
    let scene = Scene::new();
    for (line, said) in [
        ("--pca p.png --pca-basis p.png", "--pca and --pca-basis"),
        ("--pca p.png --pca-basis x.safetensors -o ./x.safetensors", "--output and --pca-basis"),
        ("--pca ./p.png -o p.png --similarity 1,1", "--output and --pca"),
        ("--pca photos/../p.png -o p.png --similarity 1,1", "--output and --pca"),
    ] {
        let output = scene.tiny(&format!("features photos/a.bmp {line}")).assert().code(2);
        assert_eq!(stderr(&output), format!("error: {said} name the same file\n"));
    }
    let output = scene.tiny("features photos/a.bmp --pca p.png --pca-basis nowhere/basis").assert().code(1);
    assert!(stderr(&output).contains("nowhere"), "{}", stderr(&output));
    assert_eq!(scene.new_files(), [""; 0]);
}

#[test]
fn the_colours_of_a_basis_mean_the_same_whatever_else_is_written() {
    let scene = Scene::new();
    let picture = |line: &str| {
        scene.tiny(&format!("features photos/a.bmp --pca p.png {line}")).assert().code(0);
        fs::read(scene.path("p.png")).unwrap()
    };
    let alone = picture("--pca-basis basis");
    assert_eq!(picture("--pca-basis basis -o maps.safetensors"), alone);
    assert_eq!(picture("-o maps.safetensors"), alone);
    assert_eq!(picture("-o maps.safetensors --norm"), alone);
    // Beside them lie the maps that were asked for, without the norm.
    scene.tiny("features photos/a.bmp -o only.safetensors").assert().code(0);
    picture("-o maps.safetensors");
    assert_eq!(scene.safetensors("maps.safetensors").0, scene.safetensors("only.safetensors").0);
    let line = "features photos/a.bmp --pca p.png --pca-basis basis -m tiny.json --weights synthetic:8 --size 32";
    scene.dinov3(line).assert().code(1).stderr_eq(str![[r#"
error: basis: the basis was made with weights synthetic:7, not synthetic:8

"#]]);
}

#[cfg(unix)]
#[test]
fn names_and_labels_of_strangers_cannot_command_the_terminal() {
    let scene = Scene::new();
    scene.picture("odd/a\u{1b}[2J\n.bmp", 40, 30, 1);
    scene.file("odd/b\u{1b}[2J\n.bmp", "no picture");
    scene.file("labels.json", r#"["cat\u001b[31m\n", "dog", "horse"]"#);
    head(&scene, "head.safetensors", 0.0, 9.0);
    let line = "classify odd --head head.safetensors --labels labels.json --top 1";
    let output = scene.tiny(line).assert().code(3);
    assert_eq!(stdout(&output), "odd/a\\u{1b}[2J\\n.bmp\n   99.98 %  0  cat\\u{1b}[31m\\n\n");
    let said = stderr(&output);
    assert!(said.contains("failed: odd/b\\u{1b}[2J\\n.bmp: ") && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn scores_that_overflow_fail_their_picture() {
    let scene = Scene::new();
    head(&scene, "head.safetensors", f32::MAX, f32::MAX);
    let output = scene.tiny("classify photos/a.bmp --head head.safetensors").assert().code(3).stdout_eq("");
    assert!(stderr(&output).contains("a class score is not finite"), "{}", stderr(&output));
}

#[test]
fn names_that_only_look_like_models_get_a_hint() {
    let scene = Scene::new();
    let output = scene.dinov3("fetch someone/something").assert().code(2);
    assert!(stderr(&output).contains("hf-hub:someone/something"), "{}", stderr(&output));
    let output = scene.dinov3("verify vit_small_patch16_dinov3").assert().code(2);
    assert!(stderr(&output).contains("hf-hub:timm/vit_small_patch16_dinov3.lvd1689m"), "{}", stderr(&output));
    for command in ["verify", "info"] {
        let line = format!("{command} hf-hub:someone/something");
        let output = scene.dinov3(&line).env("HF_HUB_CACHE", scene.path("hub")).assert().code(1);
        assert!(stderr(&output).contains("'dinov3 fetch hf-hub:someone/something'"), "{}", stderr(&output));
    }
}

#[test]
fn heads_are_known_for_what_they_are() {
    let scene = Scene::new();
    head(&scene, "head.safetensors", 0.5, 1.0);
    scene.dinov3("info head.safetensors").assert().code(0).stdout_eq(str![[r#"
head              weight [3, 64]: 3 classes

"#]]);
    scene.dinov3("verify head.safetensors").assert().code(0).stdout_eq(str![[r#"
file              head.safetensors ([..] bytes)
sha256            [..] (nothing on record to compare with)
head              weight [3, 64]: 3 classes
values            195, all finite

"#]]);
}
