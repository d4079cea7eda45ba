//! Scenes of `dinov3 classify`.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.

mod common;

use common::*;
use dinov3_testing::checkpoints::{self, Type};
use dinov3_testing::dialect::Dialect;
use serde_json::Value;
use snapbox::str;

/// A file with a linear layer of these extents.
fn head(scene: &Scene, file: &str, prefix: &str, classes: usize, inputs: usize) {
    let weight = (0..classes * inputs).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5).collect();
    let bias = (0..classes).map(|class| class as f32 / 100.0).collect();
    let layer =
        [(format!("{prefix}weight"), vec![classes, inputs], weight), (format!("{prefix}bias"), vec![classes], bias)];
    checkpoints::write(&scene.path(file), &layer, Type::F32);
}

/// A checkpoint of the tiny model, or of a tiny ConvNeXt, with a head of five classes.
fn checkpoint_with_head(scene: &Scene, model: &str, file: &str) {
    let spec = dinov3::find_model(scene.path(model).to_str().unwrap()).unwrap().with_num_classes(5);
    checkpoints::write(&scene.path(file), &checkpoints::synthetic_weights(&spec, 7, Dialect::Timm), Type::F32);
}

/// The logits of all classes by index, for each picture.
fn logits(lines: &[Value]) -> Vec<Vec<f32>> {
    let of_line = |line: &Value| {
        let mut classes: Vec<(u64, f32)> = line["top"]
            .as_array()
            .unwrap()
            .iter()
            .map(|class| (class["index"].as_u64().unwrap(), class["logit"].as_f64().unwrap() as f32))
            .collect();
        classes.sort_by_key(|class| class.0);
        classes.into_iter().map(|class| class.1).collect()
    };
    lines.iter().map(of_line).collect()
}

#[test]
fn the_head_of_a_checkpoint_is_found_by_its_shape() {
    let scene = Scene::new();
    checkpoint_with_head(&scene, "tiny.json", "finetuned.safetensors");
    let line = "classify photos -m tiny.json --weights finetuned.safetensors --size 32";
    scene
        .dinov3(&format!("{line} --top 3"))
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
photos/a.bmp
   63.65 %  class 2
   11.12 %  class 4
   10.50 %  class 3
photos/b.bmp
   28.60 %  class 2
   25.12 %  class 4
   20.45 %  class 1
photos/more/c.bmp
   31.85 %  class 3
   25.63 %  class 1
   21.29 %  class 2

"#]])
        .stderr_eq(str![[r#"
3 images in [..] s, [..] images/s, 0 failed -> standard output

"#]]);
    // The same numbers as `embed --logits`, and as the same head from a seed.
    scene.tiny("embed photos --num-classes 5 --logits -o embedded.jsonl").assert().code(0);
    let expected: Vec<Vec<f32>> =
        scene.json_lines("embedded.jsonl").iter().map(|line| vector(&line["logits"])).collect();
    scene.dinov3(&format!("{line} -o out.jsonl")).assert().code(0);
    assert_eq!(logits(&scene.json_lines("out.jsonl")), expected);
    scene.tiny("classify photos --num-classes 5 -o seed.jsonl").assert().code(0);
    assert_eq!(logits(&scene.json_lines("seed.jsonl")), expected);
}

#[test]
fn a_convnext_has_its_head_too() {
    let scene = Scene::new();
    scene.file("convnext.json", TINY_CONVNEXT);
    checkpoint_with_head(&scene, "convnext.json", "finetuned.safetensors");
    let line = "classify photos/a.bmp -m convnext.json --weights finetuned.safetensors --size 32";
    let output = scene.dinov3(&format!("{line} --json")).assert().code(0);
    let within = logits(&streamed(&output));
    assert_eq!(within[0].len(), 5);
    // The same layer in a file of its own gives the same bits.
    let spec = dinov3::find_model(scene.path("convnext.json").to_str().unwrap()).unwrap().with_num_classes(5);
    let mut stored = checkpoints::synthetic_weights(&spec, 7, Dialect::Timm);
    let layer: Vec<_> = stored.extract_if(.., |tensor| tensor.0.starts_with("head.fc.")).collect();
    checkpoints::write(&scene.path("head.safetensors"), &layer, Type::F32);
    checkpoints::write(&scene.path("encoder.safetensors"), &stored, Type::F32);
    let line = "classify photos/a.bmp -m convnext.json --weights encoder.safetensors --size 32 --head head.safetensors";
    assert_eq!(logits(&streamed(&scene.dinov3(&format!("{line} --json")).assert().code(0))), within);
    scene.dinov3(&format!("{line} --head-pool cls+mean")).assert().code(2).stderr_eq(str![[r#"
error: head input 'cls+mean' does not exist for convnext_tiny.dinov3_lvd1689m (convnext.json): ConvNeXts have no class token

"#]]);
}

#[test]
fn the_input_of_a_head_follows_from_its_width() {
    let scene = Scene::new();
    scene.tiny("embed photos --pool avg,token -o embedded.jsonl").assert().code(0);
    let embedded = scene.json_lines("embedded.jsonl");
    let (average, token) = (|line: &Value| vector(&line["embedding"]), |line: &Value| vector(&line["embedding_token"]));
    for (prefix, inputs, option, expected) in
        [("head.", 64, "", "avg"), ("linear.", 64, "--head-pool token", "token"), ("", 128, "", "cls+mean")]
    {
        head(&scene, "head.safetensors", prefix, 4, inputs);
        scene.tiny(&format!("classify photos --head head.safetensors {option} -o out.jsonl")).assert().code(0);
        assert_eq!(scene.json("out.jsonl.json")["scores"]["input"], expected);
        for (found, line) in logits(&scene.json_lines("out.jsonl")).iter().zip(&embedded) {
            let input = match expected {
                "avg" => average(line),
                "token" => token(line),
                _ => [token(line), average(line)].concat(),
            };
            for (class, found) in found.iter().enumerate() {
                let weight = |i: usize| f64::from(((class * inputs + i) * 7919 % 1009) as f32 / 1009.0 - 0.5);
                let product: f64 = input.iter().enumerate().map(|(i, &value)| f64::from(value) * weight(i)).sum();
                let truth = product + class as f64 / 100.0;
                assert!((f64::from(*found) - truth).abs() < 1e-5, "{expected}, class {class}: {found}, {truth}");
            }
        }
    }
}

#[test]
fn every_command_takes_a_checkpoint_with_a_head() {
    let scene = Scene::new();
    let spec = dinov3::find_model(scene.path("tiny.json").to_str().unwrap()).unwrap().with_num_classes(5);
    let mut stored = checkpoints::synthetic_weights(&spec, 7, Dialect::Timm);
    checkpoints::write(&scene.path("finetuned.safetensors"), &stored, Type::F32);
    let bare: Vec<_> = stored.iter().filter(|(name, ..)| !name.starts_with("head.")).cloned().collect();
    checkpoints::write(&scene.path("bare.safetensors"), &bare, Type::F32);
    let run = |line: &str| scene.dinov3(line).assert().code(0);
    for weights in ["finetuned", "bare"] {
        let model = format!("-m tiny.json --weights {weights}.safetensors");
        run(&format!("embed photos/a.bmp {model} --size 32 -o {weights}.npy"));
        run(&format!("features photos/a.bmp {model} --size 32 -o {weights}-maps.npy --last 1"));
        run(&format!("bench {model} --size 32 --batch-size 1 --runs 1"));
        run(&format!("info {weights}.safetensors -m tiny.json"));
        run(&format!("verify {weights}.safetensors -m tiny.json"));
    }
    assert_eq!(scene.npy("finetuned.npy"), scene.npy("bare.npy"), "timm drops the head too");
    assert_eq!(scene.npy("finetuned-maps.npy"), scene.npy("bare-maps.npy"));
    run("embed photos/a.bmp -m tiny.json --weights finetuned.safetensors --size 32 --logits -o both.jsonl");
    assert_eq!(scene.json_lines("both.jsonl")[0]["logits"].as_array().unwrap().len(), 5);

    // Behind the wrappers of training scripts, and without a bias.
    stored.retain(|(name, ..)| name != "head.bias");
    stored.iter_mut().for_each(|(name, ..)| *name = format!("module._orig_mod.{name}"));
    checkpoints::write(&scene.path("wrapped.safetensors"), &stored, Type::F32);
    run("embed photos/a.bmp -m tiny.json --weights wrapped.safetensors --size 32 -o wrapped.npy");
    assert_eq!(scene.npy("wrapped.npy"), scene.npy("bare.npy"));
    let line = "-m tiny.json --size 32 --top 5 --json";
    let inside = run(&format!("classify photos/a.bmp {line} --weights wrapped.safetensors"));
    let outside = format!("classify photos/a.bmp {line} --weights bare.safetensors --head wrapped.safetensors");
    assert_eq!(logits(&streamed(&inside)), logits(&streamed(&run(&outside))));
}

#[test]
fn heads_that_do_not_fit_are_refused_with_what_would() {
    let scene = Scene::new();
    head(&scene, "wide.safetensors", "", 4, 100);
    scene.tiny("classify photos --head wide.safetensors").assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: wide.safetensors: weight has shape [4, 100], but vit_small_patch16_dinov3 (tiny.json) gives [4, 64] (avg) or [4, 128] (cls+mean)

"#]]);
    head(&scene, "head.safetensors", "", 4, 128);
    scene.tiny("classify photos --head head.safetensors --head-pool avg").assert().code(1).stderr_eq(str![[r#"
error: head.safetensors: weight has shape [4, 128], but vit_small_patch16_dinov3 (tiny.json) gives [4, 64] (avg)

"#]]);
    scene.weights("encoder.safetensors", Dialect::Timm);
    scene.tiny("classify photos --head encoder.safetensors").assert().code(1).stderr_eq(str![[r#"
error: encoder.safetensors: no linear head in it: expected one of head.weight, head.fc.weight, linear.weight, fc.weight, classifier.weight, weight; first keys: blocks.0.attn.proj.bias, blocks.0.attn.proj.weight, blocks.0.attn.qkv.weight, blocks.0.gamma_1, blocks.0.gamma_2

"#]]);
    scene.tiny("classify photos --head missing.safetensors").assert().code(1).stderr_eq(str![[r#"
error: missing.safetensors: No such file or directory (os error 2)

"#]]);
    scene.tiny("classify photos --head head.safetensors --num-classes 4").assert().code(2);
    scene.tiny("classify photos --num-classes 4 --head-pool cls+mean").assert().code(2).stderr_eq(str![[r#"
error: --head-pool cls+mean: only a head in a file of its own, --head, can take it

"#]]);
    scene.tiny("classify photos --head-pool none").assert().code(2);
}

#[test]
fn without_a_head_the_features_are_ranked_with_a_warning() {
    let scene = Scene::new();
    let output = scene.tiny("classify photos/a.bmp --top 2").assert().code(0).stdout_eq(str![[r#"
photos/a.bmp
    3.73 %  feature 25
    3.54 %  feature 59

"#]]);
    assert!(
        stderr(&output).starts_with("warning: vit_small_patch16_dinov3 (tiny.json) has no head"),
        "{}",
        stderr(&output)
    );
    scene.tiny("embed photos/a.bmp -o embedded.npy").assert().code(0);
    let output = scene.tiny("classify photos/a.bmp --top 64 --json").assert().code(0);
    assert_eq!(logits(&streamed(&output))[0], scene.npy("embedded.npy").data);
    let probabilities = streamed(&output)[0]["top"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["probability"].as_f64().unwrap())
        .sum::<f64>();
    assert!((probabilities - 1.0).abs() < 1e-12);
    scene.tiny("classify photos --labels imagenet").assert().code(2).stderr_eq(str![[r#"
error: --labels imagenet: there is no head whose classes these could be

"#]]);
}

#[test]
fn labels_come_from_lines_lists_and_the_built_in_names() {
    let scene = Scene::new();
    head(&scene, "head.safetensors", "", 3, 64);
    scene.file("lines.txt", "cat\ndog\nhorse\n");
    scene.file("list.json", r#"["cat", "dog", "horse"]"#);
    scene.file("mapping.json", r#"{"0": "cat", "1": "dog", "2": "horse"}"#);
    for labels in ["lines.txt", "list.json", "mapping.json"] {
        let line = format!("classify photos/a.bmp --head head.safetensors --labels {labels}");
        scene.tiny(&line).assert().code(0).stdout_eq(str![[r#"
photos/a.bmp
   50.46 %  0  cat
   28.13 %  2  horse
   21.41 %  1  dog

"#]]);
    }
    let line = "classify photos/a.bmp --head head.safetensors --labels imagenet";
    scene.tiny(line).assert().code(1).stderr_eq(str![[r#"
error: imagenet: 1000 labels, but the head has 3 classes

"#]]);
    scene.file("two.txt", "cat\ndog\n");
    scene.tiny("classify photos --head head.safetensors --labels two.txt").assert().code(1).stderr_eq(str![[r#"
error: two.txt: 2 labels, but the head has 3 classes

"#]]);

    // A thousand classes are not ImageNet's unless someone says so.
    head(&scene, "thousand.safetensors", "", 1000, 128);
    scene.tiny("classify photos/a.bmp --head thousand.safetensors --top 2").assert().code(0).stdout_eq(str![[r#"
photos/a.bmp
    5.92 %  class 949
    5.21 %  class 971

"#]]);
    let line = "classify photos/a.bmp --head thousand.safetensors --top 2 --labels imagenet";
    scene.tiny(line).assert().code(0).stdout_eq(str![[r#"
photos/a.bmp
    5.92 %  949  strawberry
    5.21 %  971  bubble

"#]]);
    let line = streamed(&scene.tiny(&format!("{line} --json")).assert().code(0)).remove(0);
    let index = line["top"][0]["index"].as_u64().unwrap() as usize;
    assert_eq!(line["top"][0]["label"], dinov3::Labels::imagenet().get(index).unwrap());
    assert!(line["top"][0]["synset"].as_str().unwrap().starts_with('n'));
}

#[test]
fn a_bad_picture_is_reported_and_the_run_goes_on() {
    let scene = Scene::new();
    scene.file("photos/broken.jpg", "no picture");
    let line = "classify photos --num-classes 3 --top 1";
    let output = scene.tiny(line).assert().code(3);
    assert_eq!(stdout(&output).lines().count(), 6);
    assert!(stderr(&output).contains("failed: photos/broken.jpg: not a JPEG"), "{}", stderr(&output));
    scene.tiny(&format!("{line} -o out.jsonl")).assert().code(3);
    let lines = scene.json_lines("out.jsonl");
    assert_eq!(paths(&lines), ["photos/a.bmp", "photos/b.bmp", "photos/broken.jpg", "photos/more/c.bmp"]);
    assert!(lines[2]["error"].is_string());
    assert_eq!(scene.json("out.jsonl.json")["counts"], serde_json::json!({"done": 3, "failed": 1}));
    scene.tiny(&format!("{line} -o strict.jsonl --strict")).assert().code(1);
    assert!(!scene.path("strict.jsonl").exists());
    scene.tiny(&format!("{line} -o out.parquet")).assert().code(2).stderr_eq(str![[r#"
error: out.parquet: classes are written as .jsonl, or - for standard output

"#]]);
}

#[test]
fn batches_and_threads_do_not_change_a_bit_and_provenance_names_the_head() {
    let scene = Scene::new();
    head(&scene, "head.safetensors", "", 4, 128);
    let line = "classify photos --head head.safetensors";
    scene.tiny(&format!("{line} -o one.jsonl --batch-size 1 --threads 1")).assert().code(0);
    scene.tiny(&format!("{line} -o two.jsonl --batch-size 3 --threads 2")).assert().code(0);
    let read = |file: &str| std::fs::read_to_string(scene.path(file)).unwrap();
    assert_eq!(read("one.jsonl"), read("two.jsonl"));
    let provenance = scene.json("one.jsonl.json");
    assert_eq!(provenance["head"][0]["name"], "head.safetensors");
    assert_eq!(provenance["head"][0]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(provenance["scores"], serde_json::json!({"of": "classes", "count": 4, "input": "cls+mean"}));
    assert_eq!(provenance["weights"], serde_json::json!({"synthetic": "synthetic:7"}));
}
