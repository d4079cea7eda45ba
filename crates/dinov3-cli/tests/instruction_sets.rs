//! Scenes of instruction sets and of what follows from them: the self-test, `dinov3 info`, `--precision auto`.

mod common;

use common::*;
use serde_json::Value;
use snapbox::str;

#[test]
fn the_self_test_passes_and_says_what_it_skipped() {
    let scene = Scene::new();
    let text = stdout(&scene.dinov3("selftest").assert().code(0).stderr_eq(""));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("kernel           instructions     outputs error / bound"), "{text}");
    for kernel in ["linear f32", "linear int8", "attention bf16", "layer_norm int8", "depthwise f32", "convert bf16"] {
        let line = lines.iter().find(|line| line.starts_with(kernel) && line.contains(" scalar "));
        assert!(line.is_some_and(|line| line.ends_with("  ok")), "{kernel}: {text}");
    }
    assert!(lines.iter().any(|line| line.starts_with("linear bf16") && line.contains("amx-emulated")), "{text}");
    assert!(lines.last().unwrap().contains(" ok, 0 failed, "), "{text}");
}

#[test]
fn the_self_test_keeps_to_a_forced_instruction_set() {
    let scene = Scene::new();
    let output = scene.dinov3("selftest --json").env("DINOV3_ISA", "amx-emulated").assert().code(0).stderr_eq("");
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["failed"], 0);
    let run: Vec<(&str, &str)> = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["verdict"] == "ok")
        .map(|check| (check["kernel"].as_str().unwrap(), check["instruction_set"].as_str().unwrap()))
        .collect();
    assert_eq!(run, [("linear bf16", "amx-emulated"), ("linear int8", "amx-emulated")]);
    scene.dinov3("selftest").env("DINOV3_ISA", "nonsense").assert().code(1).stdout_eq("");
}

#[test]
fn info_says_what_was_chosen_and_what_stands_in_the_way_of_the_others() {
    let scene = Scene::new();
    let output = scene.dinov3("info --json").env("DINOV3_ISA", "scalar").assert().code(0).stderr_eq("");
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&json["instruction_set"], &json["reason"]), (&"scalar".into(), &"forced by DINOV3_ISA".into()));
    assert_eq!(json["precision_auto"]["precision"], "f32");
    let candidates = json["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 7);
    for candidate in candidates {
        let (supported, obstacle) = (candidate["supported"].as_bool().unwrap(), &candidate["obstacle"]);
        assert!(supported || obstacle.as_str().unwrap().starts_with("this machine lacks "), "{candidate}");
        // Whatever this machine lacks cannot be forced either, for the same reason.
        if !supported {
            let name = candidate["name"].as_str().unwrap();
            let refused = scene.dinov3("info").env("DINOV3_ISA", name).assert().code(1).stdout_eq("");
            let text = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
            assert!(text.starts_with(&format!("error: DINOV3_ISA={name}: {}; ", obstacle.as_str().unwrap())), "{text}");
        }
    }
}

#[test]
fn automatic_precision_explains_itself() {
    let scene = Scene::new();
    let run = |isa: &str, output: &str| {
        scene.tiny(&format!("embed photos --precision auto -o {output}")).env("DINOV3_ISA", isa).assert().code(0)
    };
    run("scalar", "plain.npy").stderr_eq(str![[r#"
note: precision f32: scalar has no instruction that multiplies bf16 numbers
...
"#]]);
    let provenance = &scene.json("plain.npy.json")["provenance"];
    assert_eq!(provenance["precision"], "f32");
    assert_eq!(provenance["precision_reason"], "scalar has no instruction that multiplies bf16 numbers");
    scene.tiny("embed photos -o default.npy").assert().code(0);
    assert!(scene.json("default.npy.json")["provenance"].get("precision_reason").is_none());

    let info = scene.dinov3("info --json").assert().code(0);
    let info: Value = serde_json::from_str(&stdout(&info)).unwrap();
    let bench = scene.dinov3("bench -m tiny.json --weights synthetic:1 --size 32 --runs 1 --precision auto --json");
    let bench: Value = serde_json::from_str(&stdout(&bench.assert().code(0))).unwrap();
    assert_eq!(bench["precision"], info["precision_auto"]["precision"]);
    assert_eq!(bench["precision_reason"], info["precision_auto"]["reason"]);
}

#[test]
fn emulated_tiles_give_embeddings_near_those_of_the_portable_code() {
    let scene = Scene::new();
    for precision in ["bf16", "int8"] {
        let rows = |isa: &str| {
            let line = format!("embed photos --normalize --precision {precision} -o -");
            let output = scene.tiny(&line).env("DINOV3_ISA", isa).assert().code(0);
            let rows: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            rows.iter().filter_map(|row| row["embedding"].as_array().cloned()).collect::<Vec<_>>()
        };
        let (tiles, plain) = (rows("amx-emulated"), rows("scalar"));
        assert_eq!(tiles.len(), 3);
        for (tiles, plain) in tiles.iter().zip(&plain) {
            let products = tiles.iter().zip(plain).map(|(a, b)| a.as_f64().unwrap() * b.as_f64().unwrap());
            let cosine: f64 = products.sum();
            assert!(cosine > 0.9999, "{precision}: {cosine}");
        }
    }
}
