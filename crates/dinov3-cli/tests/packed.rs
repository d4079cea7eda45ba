//! Packed files: made, looked at, checked, and used wherever weights are.

mod common;

use std::fs;

use common::{Scene, TINY, TINY_CONVNEXT, stderr, stdout};
use dinov3_testing::dialect::Dialect;
use serde_json::{Value, json};

/// Layouts and paths differ from machine to machine: the plainest instruction set is everywhere.
fn plain(scene: &Scene, line: &str) -> snapbox::cmd::Command {
    scene.dinov3(line).env("DINOV3_ISA", "scalar")
}

fn provenance(scene: &Scene, output: &str) -> Value {
    scene.json(&format!("{output}.json"))["provenance"].take()
}

#[test]
fn a_packed_file_tells_what_it_is_and_gives_the_same_bits() {
    let scene = Scene::new();
    scene.weights("model.safetensors", Dialect::Timm);
    let embed = |line: &str, output: &str| {
        plain(&scene, &format!("embed photos --size 32 -o {output} {line}")).assert().success();
        (scene.npy(output), provenance(&scene, output))
    };
    for precision in ["f32", "bf16", "int8"] {
        let output = plain(
            &scene,
            &format!("pack -m tiny.json --weights model.safetensors --precision {precision} -o t.dinov3"),
        )
        .assert()
        .success();
        if precision == "bf16" {
            output.stdout_eq(snapbox::str![[r#"
packed            t.dinov3 (0.3 MB, by dinov3 0.1.0)
model             vit_small_patch16_dinov3 (tiny.json) (0.1 M parameters)
precision         bf16
layout            panels64-tiles16-le-v1 (for scalar[..])
parts             31
source            model.safetensors, sha256 [..]
digest            [..]

"#]]);
        }
        let line = format!("-m tiny.json --weights model.safetensors --precision {precision}");
        let (expected, told) = embed(&line, "expected.npy");
        let (found, packed_told) = embed("-m t.dinov3", "found.npy");
        assert_eq!(found, expected, "{precision}");
        // Nothing more to say, precision given or not.
        assert_eq!(embed(&format!("-m t.dinov3 --precision {precision}"), "found.npy").0, expected);
        assert_eq!(embed("-m tiny.json --weights t.dinov3", "found.npy").0, expected);
        // Provenance: the same weights, and the file that they came in.
        assert_eq!(packed_told["precision"], precision);
        assert_eq!(packed_told["model"], told["model"]);
        assert_eq!(packed_told["weights"]["files"], told["weights"]["files"]);
        assert_eq!(packed_told["weights"]["packed"]["name"], "t.dinov3");
    }
}

#[test]
fn info_and_verify_read_packed_files() {
    let scene = Scene::new();
    scene.file("convnext.json", TINY_CONVNEXT);
    plain(&scene, "pack convnext.json --weights synthetic:7 -o t.dinov3").assert().success();
    plain(&scene, "info t.dinov3").assert().success().stdout_eq(snapbox::str![[r#"
packed            t.dinov3 (0.1 MB, by dinov3 0.1.0)
model             convnext_tiny.dinov3_lvd1689m (convnext.json) (0.0 M parameters)
precision         f32
layout            panels64-tiles16-le-v1 (for scalar[..])
parts             54
source            synthetic:7
digest            [..]

"#]]);
    let json: Value = serde_json::from_str(&stdout(&plain(&scene, "info t.dinov3 --json").assert().success())).unwrap();
    assert_eq!(json["source"], json!({"synthetic": "synthetic:7"}));
    let verified = plain(&scene, "verify t.dinov3").assert().success();
    assert!(stdout(&verified).ends_with("checksums         all right\n"));
    let json: Value =
        serde_json::from_str(&stdout(&plain(&scene, "verify t.dinov3 --json").assert().success())).unwrap();
    assert_eq!((&json["verified"], &json["precision"]), (&json!(true), &json!("f32")));
    plain(&scene, "verify t.dinov3 -m convnext.json").assert().success();
    plain(&scene, "info t.dinov3 -m tiny.json").assert().code(1).stderr_eq(snapbox::str![[r#"
error: t.dinov3: holds convnext_tiny.dinov3_lvd1689m (convnext.json), which is not vit_small_patch16_dinov3 (tiny.json)

"#]]);
}

#[test]
fn damaged_cut_and_foreign_files_are_refused_with_the_reason() {
    let scene = Scene::new();
    plain(&scene, "pack tiny.json --weights synthetic:7 -o t.dinov3").assert().success();
    let good = fs::read(scene.path("t.dinov3")).unwrap();

    scene.file("cut.dinov3", &good[..good.len() - 1000]);
    for command in ["info", "verify"] {
        plain(&scene, &format!("{command} cut.dinov3")).assert().code(1).stderr_eq(snapbox::str![[r#"
error: cut.dinov3: cut short: it has [..] bytes and should have [..]

"#]]);
    }
    let mut altered = good.clone();
    altered[40_000] ^= 1;
    scene.file("altered.dinov3", &altered);
    // Not seen by opening, which reads no weights.
    plain(&scene, "info altered.dinov3").assert().success();
    plain(&scene, "verify altered.dinov3").assert().code(1).stderr_eq(snapbox::str![[r#"
error: altered.dinov3: damaged or altered: the checksum of bytes 128 to 611328 is wrong (prefix_tokens to norm.bias); pack the weights again

"#]]);
    let mut altered = good.clone();
    let last = altered.len() - 5;
    altered[last] ^= 1;
    scene.file("table.dinov3", &altered);
    plain(&scene, "embed photos -m table.dinov3 -o e.npy").assert().code(1).stderr_eq(snapbox::str![[r#"
error: table.dinov3: damaged or altered: the table's checksum is wrong; pack the weights again

"#]]);
    assert!(!scene.path("e.npy").exists());

    // Another precision, model or head than the file's.
    for (line, reason) in [
        ("-m t.dinov3 --precision int8", "packed in f32, not in int8"),
        ("-m vit_small_patch16_dinov3 --weights t.dinov3", "which is not vit_small_patch16_dinov3"),
        ("-m t.dinov3 --num-classes 5", "holds vit_small_patch16_dinov3 (tiny.json), which is not"),
    ] {
        let output = plain(&scene, &format!("embed photos --size 32 -o e.npy {line}")).assert().code(1);
        assert!(stderr(&output).contains(reason), "{line}: {}", stderr(&output));
    }
    // Another layout, where this CPU has one.
    if dinov3::Isa::from_name("avx512").is_ok() {
        let output = scene.dinov3("embed photos -m t.dinov3 -o e.npy").env("DINOV3_ISA", "avx512").assert().code(1);
        output.stderr_eq(snapbox::str![[r#"
error: t.dinov3: packed in layout panels64-tiles16-le-v1, but avx512 takes panels64-tiles64-le-v1; pack the weights again on this machine

"#]]);
    }
}

#[test]
fn what_cannot_be_packed_is_refused_and_nothing_is_left() {
    let scene = Scene::new();
    scene.weights("model.safetensors", Dialect::Meta);
    plain(&scene, "pack tiny.json --weights model.safetensors -o t.dinov3").assert().success();
    for (line, code, reason) in [
        ("pack t.dinov3 -o u.dinov3", 1, "t.dinov3: is packed already; pack the weights that it was made of"),
        ("pack -m tiny.json --weights t.dinov3 -o u.dinov3", 1, "is packed already"),
        ("pack -m tiny.json --weights model.safetensors -o model.safetensors", 2, "is read by this command"),
        ("pack tiny.json -m tiny.json --weights model.safetensors -o u.dinov3", 2, "the third contradicts"),
        ("pack -m tiny.json --weights model.safetensors -o no/u.dinov3", 1, "the folder no does not exist"),
        ("pack vit_smal -o u.dinov3", 2, "did you mean"),
        ("pack model.safetensors -o u.dinov3", 1, "fit no model of the table"),
        ("accuracy -m t.dinov3 --size 32 --precision int8", 1, "packed in f32, not in int8"),
        ("embed photos -m t.dinov3 --revision main -o e.npy", 2, "--revision is for weights that are downloaded"),
    ] {
        let output = plain(&scene, line).assert().code(code);
        assert!(stderr(&output).contains(reason), "{line}: {}", stderr(&output));
    }
    assert_eq!(scene.new_files(), ["model.safetensors", "t.dinov3"]);
    // The weights that a packed file is made of are read; the packed file is what an output would replace.
    let output = plain(&scene, "features photos/a.bmp -m t.dinov3 --size 32 -o t.dinov3").assert().code(2);
    assert!(!stderr(&output).is_empty());
}

#[test]
fn a_folder_or_a_head_is_packed_with_its_model() {
    let scene = Scene::new();
    let spec = dinov3::find_model(scene.path("tiny.json").to_str().unwrap()).unwrap().with_num_classes(5);
    let weights = dinov3_testing::checkpoints::synthetic_weights(&spec, 7, Dialect::Timm);
    scene.file("repository/config.json", TINY);
    let file = scene.path("repository/model.safetensors");
    dinov3_testing::checkpoints::write(&file, &weights, dinov3_testing::checkpoints::Type::F32);
    plain(&scene, "pack repository -o t.dinov3").assert().success();
    let info = plain(&scene, "info t.dinov3").assert().success();
    assert!(stdout(&info).contains("head of 5 classes"), "{}", stdout(&info));
    let classes = |line: &str| {
        stdout(&plain(&scene, &format!("classify photos/a.bmp --json --size 32 {line}")).assert().success())
    };
    let expected = classes("-m repository --weights repository");
    assert_eq!(classes("-m t.dinov3").lines().next(), expected.lines().next());
    let embed = |line: &str, output: &str| {
        plain(&scene, &format!("embed photos --logits --size 32 -o {output} {line}")).assert().success();
        scene.safetensors(output).0
    };
    assert_eq!(embed("-m t.dinov3", "a.safetensors"), embed("-m repository --weights repository", "b.safetensors"));
}

#[test]
fn the_cache_is_filled_once_and_then_used() {
    let scene = Scene::new();
    scene.weights("model.safetensors", Dialect::Timm);
    let line = |output: &str, more: &str| {
        format!("embed photos --size 32 -m tiny.json --weights model.safetensors -o {output} {more}")
    };
    plain(&scene, &line("expected.npy", "")).assert().success();
    assert!(!scene.path(".cache/packed").exists());

    let first = plain(&scene, &line("first.npy", "--cache")).assert().success();
    assert!(stderr(&first).contains("note: packed into the cache: "), "{}", stderr(&first));
    let second = plain(&scene, &line("second.npy", "")).env("DINOV3_PACKED_CACHE", "1").assert().success();
    assert!(!stderr(&second).contains("note:"), "{}", stderr(&second));
    for output in ["first.npy", "second.npy"] {
        assert_eq!(scene.npy(output), scene.npy("expected.npy"));
        assert_eq!(provenance(&scene, output)["weights"], provenance(&scene, "expected.npy")["weights"]);
    }
    let packed = || {
        let files = fs::read_dir(scene.path(".cache/packed")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "dinov3")).collect::<Vec<_>>()
    };
    // Another precision, another file; a copy of the weights, the same.
    fs::copy(scene.path("model.safetensors"), scene.path("copy.safetensors")).unwrap();
    plain(&scene, &line("c.npy", "--cache").replace("model.safetensors", "copy.safetensors")).assert().success();
    assert_eq!(packed().len(), 1);
    plain(&scene, &line("d.npy", "--cache --precision bf16")).assert().success();
    assert_eq!(packed().len(), 2);

    // A file that was cut is made anew.
    for path in packed() {
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let again = plain(&scene, &line("e.npy", "--cache")).assert().success();
    assert!(stderr(&again).contains("packed into the cache"), "{}", stderr(&again));
    assert_eq!(scene.npy("e.npy"), scene.npy("expected.npy"));
    // Off by the environment's 0.
    plain(&scene, &line("f.npy", "")).env("DINOV3_PACKED_CACHE", "0").assert().success();
}

#[test]
fn two_processes_fill_the_cache_at_once() {
    let scene = Scene::new();
    let run = |index: usize| {
        let line = format!("embed photos --size 32 -m tiny.json --weights synthetic:7 --cache -o {index}.npy");
        plain(&scene, &line).assert().success();
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|index| {
            scope.spawn(move || run(index));
        });
    });
    for index in 1..4 {
        assert_eq!(scene.npy(&format!("{index}.npy")), scene.npy("0.npy"));
    }
    let files: Vec<_> = fs::read_dir(scene.path(".cache/packed")).unwrap().collect();
    assert_eq!(files.len(), 2, "one packed file and its lock: {files:?}");
}

#[test]
fn a_model_larger_than_the_memory_streams_and_says_so() {
    let scene = Scene::new();
    plain(&scene, "pack tiny.json --weights synthetic:7 -o t.dinov3").assert().success();
    plain(&scene, "embed photos --size 32 -m t.dinov3 -o a.npy").assert().success();
    let output = plain(&scene, "embed photos --size 32 -m t.dinov3 --max-memory 700K -o b.npy").assert().success();
    assert!(
        stderr(&output).contains("in memory of 0.7 MB (--max-memory): 2 of 2 blocks are read from disk in every pass"),
        "{}",
        stderr(&output)
    );
    assert_eq!(scene.npy("a.npy"), scene.npy("b.npy"));
    // Without a packed file it would not fit at all.
    let line = "embed photos --size 32 -m tiny.json --weights synthetic:7 --max-memory 500K -o c.npy";
    plain(&scene, line).assert().code(1).stderr_eq(snapbox::str![[r#"
error: the weights of vit_small_patch16_dinov3 (tiny.json) take 0.6 MB in f32, and there are 0.5 MB of memory: from a packed file they are read while they are needed ('dinov3 pack -m tiny.json --precision f32 -o FILE', then -m FILE; or --cache), or choose another --precision

"#]]);
    let cached = plain(&scene, &format!("{line} --cache")).assert().success();
    assert!(stderr(&cached).contains("2 of 2 blocks are read from disk"), "{}", stderr(&cached));
    assert_eq!(scene.npy("a.npy"), scene.npy("c.npy"));
}
