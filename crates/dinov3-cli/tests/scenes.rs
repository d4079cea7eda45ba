//! Scenes at the command line: files, a command, and then its exit code, what it said and what it left.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::*;
use dinov3_testing::bmp;
use dinov3_testing::checkpoints::{self, Type};
use dinov3_testing::dialect::Dialect;
use dinov3_testing::pth::{Layout, PickleWriter, ZipWriter};
use serde_json::Value;
use sha2::{Digest, Sha256};
use snapbox::str;

// ---------------------------------------------------------------------------------------------------------------
// What it says of itself

#[test]
fn help_lists_the_modes_and_the_exit_codes() {
    Scene::new().dinov3("--help").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
DINOv3 image encoders: feature maps and embeddings with the numbers of timm, from one binary

Usage: dinov3 <COMMAND>

Commands:
  embed        One vector per picture, for files, folders, patterns or lists
  scene        Satellite scenes of any size: embeddings of chips and patches, maps
  features     Feature maps and tokens of one picture
  fetch        Download the weights of models into the Hugging Face cache
  classify     The best classes of each picture
  models       The models that are known
  info         What this machine offers, or what a checkpoint holds
  verify       Whether weights are whole, and whether a model gives its published values
  selftest     Whether every kernel computes on this CPU what it should
  pack         Weights as the kernels take them, in a file that opens in milliseconds
  bench        Speed of the encoder alone
  accuracy     What a precision costs: cosines to the same model in f32
  completions  Completions for a shell, on standard output
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help
  -V, --version  Print version

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished with failed items

"#]]);
}

#[test]
fn help_of_a_mode_shows_examples() {
    for mode in ["embed", "features", "classify", "fetch", "info", "verify", "selftest", "bench"] {
        let output = Scene::new().dinov3(&format!("{mode} --help")).assert().code(0).stderr_eq("");
        let text = stdout(&output);
        assert!(text.contains(&format!("Examples:\n  dinov3 {mode}")), "{text}");
    }
}

#[test]
fn no_arguments_are_wrong_usage() {
    Scene::new().dinov3("").assert().code(2).stdout_eq("");
    Scene::new().dinov3("embed").assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: the following required arguments were not provided:
  --model <MODEL>
  --output <OUT>
  <INPUT>...

Usage: dinov3 embed --model <MODEL> --output <OUT> <INPUT>...

For more information, try '--help'.

"#]]);
}

#[test]
fn models_are_listed_as_a_table_and_as_json() {
    let scene = Scene::new();
    let table = scene.dinov3("models").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
MODEL                                                PARAMETERS WIDTH  DEPTH   INPUT
vit_small_patch16_dinov3.lvd1689m                        21.6 M   384     12 256x256
vit_small_patch16_dinov3_qkvb.lvd1689m                   21.6 M   384     12 256x256
vit_small_plus_patch16_dinov3.lvd1689m                   28.7 M   384     12 256x256
vit_small_plus_patch16_dinov3_qkvb.lvd1689m              28.7 M   384     12 256x256
vit_base_patch16_dinov3.lvd1689m                         85.6 M   768     12 256x256
vit_base_patch16_dinov3_qkvb.lvd1689m                    85.7 M   768     12 256x256
vit_large_patch16_dinov3.lvd1689m                       303.1 M  1024     24 256x256
vit_large_patch16_dinov3_qkvb.lvd1689m                  303.1 M  1024     24 256x256
vit_large_patch16_dinov3.sat493m                        303.1 M  1024     24 256x256
vit_large_patch16_dinov3_qkvb.sat493m                   303.1 M  1024     24 256x256
vit_huge_plus_patch16_dinov3.lvd1689m                   840.5 M  1280     32 256x256
vit_huge_plus_patch16_dinov3_qkvb.lvd1689m              840.6 M  1280     32 256x256
vit_7b_patch16_dinov3.lvd1689m                         6716.0 M  4096     40 256x256
vit_7b_patch16_dinov3.sat493m                          6716.0 M  4096     40 256x256
convnext_tiny.dinov3_lvd1689m                            27.8 M   768     18 224x224
convnext_small.dinov3_lvd1689m                           49.5 M   768     36 224x224
convnext_base.dinov3_lvd1689m                            87.6 M  1024     36 224x224
convnext_large.dinov3_lvd1689m                          196.2 M  1536     36 224x224
vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m                5.5 M   192     12 256x256
vit_small_patch16_dinov3_qkvb.eupe_lvd1689m              21.6 M   384     12 256x256
vit_base_patch16_dinov3_qkvb.eupe_lvd1689m               85.7 M   768     12 256x256
convnext_tiny.eupe_lvd1689m                              27.8 M   768     18 256x256
convnext_small.eupe_lvd1689m                             49.5 M   768     36 256x256
convnext_base.eupe_lvd1689m                              87.6 M  1024     36 256x256

"#]]);
    let json = scene.dinov3("models --json").assert().code(0).stderr_eq("");
    let models: Vec<Value> = serde_json::from_str(&stdout(&json)).unwrap();
    let table = stdout(&table);
    let names: Vec<&str> = table.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(models.iter().map(|model| model["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    let small = &models[0];
    assert_eq!(small["mean"].to_string(), "[0.485,0.456,0.406]");
    assert!(small["aliases"].as_array().unwrap().contains(&"facebook/dinov3-vits16-pretrain-lvd1689m".into()));
}

#[test]
fn info_tells_of_this_machine() {
    Scene::new().dinov3("info").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
dinov3            [..]
instruction set   [..] (the best one of this CPU; it has scalar[..])
...
precision auto    [..]
threads           [..]
cache             [..]

"#]]);
}

#[test]
fn completions_are_for_bash() {
    let output = Scene::new().dinov3("completions bash").assert().code(0).stderr_eq("");
    assert!(stdout(&output).contains("complete -F _dinov3"));
}

#[test]
fn an_unknown_instruction_set_is_refused_with_the_ones_of_this_cpu() {
    let scene = Scene::new();
    for line in ["info", "embed photos -m tiny.json --weights synthetic:7 -o out.npy"] {
        scene.dinov3(line).env("DINOV3_ISA", "nonsense").assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: DINOV3_ISA=nonsense: no such instruction set; there are scalar avx2 avxvnni avx512 avx512vnni avx512bf16 amx; supported here: scalar[..]

"#]]);
    }
    scene.tiny("embed photos -o out.npy").env("DINOV3_ISA", "scalar").assert().code(0);
    assert_eq!(scene.json("out.npy.json")["provenance"]["instruction_set"], "scalar");
}

#[test]
fn bench_tells_rates_and_what_was_computed() {
    let scene = Scene::new();
    let run = |threads: u32| {
        let line = format!("bench --json --runs 1 --batch-size 2 --threads {threads}");
        let output = scene.tiny(&line).assert().code(0).stderr_eq("");
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()
    };
    let (one, two) = (run(1), run(2));
    assert!(one["images_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(one["output_sha256"], two["output_sha256"]);
    for field in ["before", "after"] {
        assert!(one["peak_gflops"][field].as_f64().unwrap() > 0.0);
    }
    assert!(one["share_of_peak"].as_f64().unwrap() > 0.0);
    assert_eq!(one["latency_seconds"]["p50"], one["seconds"][0]);
    assert!(one["open_seconds"].as_f64().unwrap() > 0.0);
    let line = "bench -m tiny.json --weights synthetic:7 --batch-size 4096 --size 2048";
    scene.dinov3(line).assert().code(2).stderr_eq(str![[r#"
error: a batch of 51539607552 values is above the limit of 1000000000

"#]]);
}

#[test]
fn bench_hashes_what_embed_writes_for_the_same_images() {
    let scene = Scene::new();
    for precision in ["f32", "bf16"] {
        let line = format!("bench --json --runs 1 --batch-size 3 --precision {precision} --write-inputs images.npy");
        let output = scene.tiny(&line).assert().code(0).stderr_eq("");
        let bench: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(scene.npy("images.npy").shape, [3, 3, 32, 32]);
        let line = format!(
            "embed images.npy --preprocess none --batch-size 2 --precision {precision} -m tiny.json --weights synthetic:7 \
             -o rows.npy"
        );
        scene.dinov3(&line).assert().code(0);
        let bytes: Vec<u8> = scene.npy("rows.npy").data.iter().flat_map(|value| value.to_le_bytes()).collect();
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bench["output_sha256"], hash);
    }
}

#[test]
fn bench_says_in_words_what_share_of_the_peak_it_reached() {
    let scene = Scene::new();
    scene.tiny("bench --runs 3 --batch-size 1 --threads 1").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
vit_small_patch16_dinov3 (tiny.json) f32 on [..], 1 threads, batch 1, 32x32
[..] images/s (median of 3; fastest [..])
[..] GFLOP/s, [..] % of the peak of [..] ([..] before, [..] after)
[..] % of the peak all the time: the rest goes to others
latency p50 [..] ms, p90 [..] ms, p99 [..] ms
weights opened in [..] ms
memory [..] MB at most, [..] MB of it not backed by files at the end

"#]]);
    let output = scene.dinov3("info --peak --json").assert().code(0).stderr_eq("");
    let machine: Value = serde_json::from_str(&stdout(&output)).unwrap();
    for precision in ["f32", "bf16"] {
        assert!(machine["peak_gflops"][precision].as_f64().unwrap() > 0.0);
    }
    scene.dinov3("info x.safetensors --peak").assert().code(2);
}

// ---------------------------------------------------------------------------------------------------------------
// Weights

#[test]
fn info_tells_what_a_checkpoint_holds() {
    let scene = Scene::new();
    scene.weights("timm.safetensors", Dialect::Timm);
    scene.dinov3("info timm.safetensors -m tiny.json").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
names             timm
files             timm.safetensors (0.6 MB)
tensors           32 (32 x F32)
fits              vit_small_patch16_dinov3 (tiny.json) (0.1 M parameters)

"#]]);
    scene.weights("meta.safetensors", Dialect::Meta);
    scene.dinov3("info meta.safetensors -m tiny.json").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
names             Meta
files             meta.safetensors (0.6 MB)
tensors           36 (36 x F32)
fits              vit_small_patch16_dinov3 (tiny.json) (0.1 M parameters)
dropped           2 all-zero q/v biases
ignored           rope_embed.periods: RoPE periods are computed, not loaded
ignored           mask_token: the mask token is used in training only

"#]]);
    scene.weights("hf.safetensors", Dialect::Transformers);
    scene.dinov3("info hf.safetensors -m tiny.json").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
names             Transformers
files             hf.safetensors (0.6 MB)
tensors           37 (37 x F32)
fits              vit_small_patch16_dinov3 (tiny.json) (0.1 M parameters)
ignored           embeddings.mask_token: the mask token is used in training only

"#]]);
    let json = scene.dinov3("info hf.safetensors -m tiny.json --json").assert().code(0);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!((json["dialect"].as_str(), json["tensors"].as_u64()), (Some("Transformers"), Some(37)));
}

#[test]
fn info_and_embed_read_what_torch_save_writes() {
    let scene = Scene::new();
    let spec = dinov3::find_model(scene.path("tiny.json").to_str().unwrap()).unwrap();
    let weights = checkpoints::synthetic_weights(&spec, 7, Dialect::Meta);
    let training = Layout { wrapper: Some("teacher"), ..Layout::default() };
    checkpoints::write_pth(&scene.path("training.pth"), &weights, Type::F32, &training);
    scene.dinov3("info training.pth -m tiny.json").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
names             Meta
files             training.pth (0.6 MB)
tensors           36 (36 x F32)
fits              vit_small_patch16_dinov3 (tiny.json) (0.1 M parameters)
dropped           2 all-zero q/v biases
ignored           rope_embed.periods: RoPE periods are computed, not loaded
ignored           optimizer and 1 more: lies beside "teacher", whose weights are read
ignored           mask_token: the mask token is used in training only

"#]]);
    scene.tiny("embed photos -o synthetic.npy").assert().code(0);
    scene.dinov3("embed photos -m tiny.json --size 32 --weights training.pth -o pth.npy").assert().code(0);
    assert_eq!(scene.npy("pth.npy"), scene.npy("synthetic.npy"));
}

#[test]
fn a_pickle_that_wants_more_than_tensors_is_refused_by_name() {
    let scene = Scene::new();
    let mut pickle = PickleWriter::new(2);
    pickle.global("posix", "system");
    pickle.text("touch owned");
    pickle.op(b"\x85R");
    let mut zip = ZipWriter::new(Vec::new());
    zip.entry("archive/data.pkl", &pickle.finish()).unwrap();
    scene.file("evil.pth", zip.finish().unwrap());
    scene.dinov3("info evil.pth").assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: evil.pth: its pickle holds the global posix.system (at byte 2), which weights do not need and which is never executed here; save the state dict alone, or convert it to safetensors, where you trust the file

"#]]);
    assert_eq!(scene.new_files(), ["evil.pth"]);
}

#[test]
fn info_says_how_the_closest_model_differs_if_none_fits() {
    let scene = Scene::new();
    scene.weights("timm.safetensors", Dialect::Timm);
    let output = scene.dinov3("info timm.safetensors").assert().code(1).stdout_eq("");
    let text = stderr(&output);
    assert!(text.starts_with("error: these tensors fit no model of the table; the closest one differs so"), "{text}");
    assert!(text.contains("misshaped blocks.0.attn.qkv.weight in timm.safetensors, expected [1152, 384]"), "{text}");
}

#[test]
fn the_same_weights_under_three_names_give_the_same_embeddings() {
    let scene = Scene::new();
    scene.tiny("embed photos -o synthetic.npy").assert().code(0);
    let dialects = [("timm", Dialect::Timm), ("meta", Dialect::Meta), ("hf", Dialect::Transformers)];
    for (name, dialect) in dialects {
        scene.weights(&format!("{name}.safetensors"), dialect);
        let line = format!("embed photos -m tiny.json --size 32 --weights {name}.safetensors -o {name}.npy");
        let output = scene.dinov3(&line).assert().code(0);
        assert_eq!(stderr(&output).contains("note: 2 all-zero q/v biases dropped"), name == "meta");
        assert_eq!(scene.npy(&format!("{name}.npy")), scene.npy("synthetic.npy"));
    }
}

#[test]
fn provenance_names_the_weights_by_their_hash() {
    let scene = Scene::new();
    scene.weights("model.safetensors", Dialect::Timm);
    // The second run finds the hash in the cache.
    for _ in 0..2 {
        let line = "embed photos -m tiny.json --size 32 --weights model.safetensors -o out.npy";
        scene.dinov3(line).assert().code(0);
        let provenance = &scene.json("out.npy.json")["provenance"];
        let bytes = fs::read(scene.path("model.safetensors")).unwrap();
        let hash: String = <sha2::Sha256 as sha2::Digest>::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let file = &provenance["weights"]["files"][0];
        assert_eq!(file["sha256"].as_str(), Some(hash.as_str()));
        assert_eq!(file["name"], "model.safetensors");
        assert_eq!(provenance["weights"]["dialect"], "timm");
    }
}

#[test]
fn no_weights_are_an_error_that_says_where_to_get_them() {
    Scene::new().dinov3("embed photos -m tiny.json -o out.npy").assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: no weights given for vit_small_patch16_dinov3 (tiny.json), and no repository is known for it: pass --weights FILE or --weights hf-hub:org/name, or try --weights synthetic:7

"#]]);
}

#[test]
fn a_seed_that_is_no_number_is_wrong_usage() {
    let line = "embed photos -m tiny.json --weights synthetic:seven -o out.npy";
    Scene::new().dinov3(line).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: 'synthetic:seven' is not a synthetic spec: expected synthetic:SEED or synthetic-outliers:SEED with a whole number

"#]]);
}

#[test]
fn weights_that_cannot_be_read_are_refused_with_the_file_and_the_reason() {
    let scene = Scene::new();
    scene.weights("cut.safetensors", Dialect::Timm);
    let bytes = fs::read(scene.path("cut.safetensors")).unwrap();
    scene.file("cut.safetensors", &bytes[..bytes.len() - 1000]);
    scene.file("empty.safetensors", "");
    fs::create_dir(scene.path("folder")).unwrap();
    scene.file("shards/model.safetensors.index.json", r#"{"weight_map": {"norm.bias": "model-1.safetensors"}}"#);
    for (weights, said) in [
        ("cut.safetensors", "cut.safetensors: not a well-formed safetensors file: [..] (is the file cut short?)"),
        ("empty.safetensors", "empty.safetensors: not a well-formed safetensors file: header too small"),
        ("missing.safetensors", "missing.safetensors: No such file or directory (os error 2)"),
        ("folder", "folder: the folder holds no weights: no model.safetensors, [..]"),
        ("shards", "shards/model-1.safetensors: No such file or directory (os error 2)"),
        ("photos/a.bmp", "photos/a.bmp: not a safetensors file, or a damaged one: [..]"),
    ] {
        let line = format!("embed photos -m tiny.json --size 32 --weights {weights} -o out.npy");
        scene.dinov3(&line).assert().code(1).stdout_eq("").stderr_eq(format!("error: {said}\n"));
    }
    assert!(!scene.path("out.npy").exists());
}

#[test]
fn an_unknown_model_is_an_error_with_suggestions() {
    let scene = Scene::new();
    let line = "embed photos -m vit_smal_patch16_dinov3 --weights synthetic:7 -o out.npy";
    scene.dinov3(line).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: no model is called 'vit_smal_patch16_dinov3'; did you mean vit_small_patch16_dinov3.lvd1689m, vit_7b_patch16_dinov3.lvd1689m, vit_7b_patch16_dinov3.sat493m? ('dinov3 models' lists all)

"#]]);
    scene.file("broken.json", "{");
    let line = "embed photos -m broken.json --weights synthetic:7 -o out.npy";
    scene.dinov3(line).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: broken.json: not a JSON object: EOF while parsing an object at line 1 column 1

"#]]);
}

// ---------------------------------------------------------------------------------------------------------------
// embed: what goes in

#[test]
fn a_folder_is_searched_and_its_pictures_are_sorted() {
    let scene = Scene::new();
    scene.picture("photos/.hidden.bmp", 8, 8, 0);
    let output = scene.tiny("embed photos -o -").assert().code(0);
    assert_eq!(paths(&streamed(&output)), ["photos/a.bmp", "photos/b.bmp", "photos/more/c.bmp"]);
}

#[test]
fn inputs_keep_the_order_of_the_command_line() {
    let scene = Scene::new();
    let output = scene.tiny("embed photos/more photos/b.bmp photos/a.bmp photos/b.bmp -o -").assert().code(0);
    let expected = ["photos/more/c.bmp", "photos/b.bmp", "photos/a.bmp", "photos/b.bmp"];
    assert_eq!(paths(&streamed(&output)), expected);
}

#[test]
fn a_pattern_in_quotes_is_expanded() {
    let scene = Scene::new();
    let output = scene.tiny("embed photos/**/[bc].bmp -o -").assert().code(0);
    assert_eq!(paths(&streamed(&output)), ["photos/b.bmp", "photos/more/c.bmp"]);
}

#[test]
fn a_dash_is_a_list_on_standard_input() {
    let scene = Scene::new();
    let list = "photos/more/c.bmp\r\n\nphotos/a.bmp\n";
    let output = scene.tiny("embed - -o -").stdin(list).assert().code(0);
    assert_eq!(paths(&streamed(&output)), ["photos/more/c.bmp", "photos/a.bmp"]);
}

#[test]
fn no_pictures_at_all_are_an_error() {
    let scene = Scene::new();
    fs::create_dir(scene.path("empty")).unwrap();
    scene.tiny("embed empty -o out.npy").assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: no pictures found in empty (looked for jpg, jpeg, jpe, png, webp, tif, tiff, bmp)

"#]]);
    scene.tiny("embed *.jpg -o out.npy").assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: no pictures found in *.jpg (looked for jpg, jpeg, jpe, png, webp, tif, tiff, bmp)

"#]]);
}

#[test]
fn a_bad_picture_is_reported_and_the_run_goes_on() {
    let scene = Scene::new();
    scene.file("photos/broken.png", "\x08PNG");
    scene.file("photos/empty.jpg", "");
    let line = "embed photos/a.bmp photos/broken.png photos/missing.png photos/empty.jpg photos/b.bmp -o out.npy";
    scene.tiny(line).assert().code(3).stdout_eq("").stderr_eq(str![[r#"
failed: photos/broken.png: not a JPEG, PNG, WebP, TIFF or BMP picture (first bytes: 08504e47)
failed: photos/missing.png: No such file or directory (os error 2)
failed: photos/empty.jpg: the file is empty
2 images in [..] s, [..] images/s, 3 failed -> out.npy

"#]]);
    assert_eq!(scene.npy("out.npy").shape, [2, 64]);
    let about = scene.json("out.npy.json");
    assert_eq!(about["paths"].to_string(), r#"["photos/a.bmp","photos/b.bmp"]"#);
    let failures: Vec<&str> =
        about["failures"].as_array().unwrap().iter().map(|failure| failure["path"].as_str().unwrap()).collect();
    assert_eq!(failures, ["photos/broken.png", "photos/missing.png", "photos/empty.jpg"]);
    assert_eq!(about["provenance"]["counts"].to_string(), r#"{"done":2,"failed":3}"#);
}

#[test]
fn strict_stops_at_a_bad_picture_and_leaves_everything_as_it_was() {
    let scene = Scene::new();
    scene.file("photos/broken.png", "\x08PNG");
    scene.file("out.npy", "yesterday's");
    scene.tiny("embed photos -o out.npy --strict").assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: photos/broken.png: not a JPEG, PNG, WebP, TIFF or BMP picture (first bytes: 08504e47)
stopped at the first failure (--strict); nothing was written

"#]]);
    assert_eq!(scene.new_files(), ["out.npy"]);
    assert_eq!(fs::read(scene.path("out.npy")).unwrap(), b"yesterday's");
}

#[test]
fn deep_grey_pictures_are_refused_with_the_options_that_take_them() {
    let scene = Scene::new();
    scene.fixture("grey_16_bits.png");
    scene.tiny("embed grey_16_bits.png -o out.jsonl").assert().code(3).stderr_eq(str![[r#"
failed: grey_16_bits.png: [..] choose --deep-grey high-byte (value / 256, 16 bits only) or --deep-grey clip [..]
0 images in [..] s, 0.0 images/s, 1 failed -> out.jsonl

"#]]);
    assert!(scene.json_lines("out.jsonl")[0]["error"].as_str().unwrap().contains("--deep-grey clip"));
    scene.tiny("embed grey_16_bits.png -o out.jsonl --deep-grey high-byte").assert().code(0);
}

#[test]
fn limits_are_set_per_run() {
    let scene = Scene::new();
    let output = scene.tiny("embed photos/a.bmp -o - --max-pixels 1199").assert().code(3);
    let lines = streamed(&output);
    assert_eq!(lines[0]["error"], "the number of pixels is 1200, more than the limit of 1199");
    scene.tiny("embed photos/a.bmp -o - --max-pixels 1200").assert().code(0);
    scene.tiny("embed photos/a.bmp -o - --max-file-bytes 100").assert().code(3);
    scene.tiny("embed photos/a.bmp -o - --max-side 39").assert().code(3);
}

#[test]
fn exif_orientation_is_applied_on_request() {
    let scene = Scene::new();
    scene.fixture("turned_6.jpg");
    let embedding = |more: &str| {
        scene.tiny(&format!("embed turned_6.jpg -o out.npy {more}")).assert().code(0);
        assert_eq!(scene.json("out.npy.json")["provenance"]["exif_orientation"], !more.is_empty());
        scene.npy("out.npy").data
    };
    assert_ne!(embedding(""), embedding("--exif-orientation"));
}

#[test]
fn the_native_recipe_takes_every_picture_at_its_own_size() {
    let scene = Scene::new();
    scene.picture("n/1.bmp", 32, 48, 1);
    scene.picture("n/2.bmp", 64, 16, 2);
    scene.picture("n/3.bmp", 32, 48, 3);
    let native = "-m tiny.json --weights synthetic:7 --preprocess native";
    scene.dinov3(&format!("embed n {native} -o out.npy")).assert().code(0);
    let together = scene.npy("out.npy");
    for (name, row) in ["n/1.bmp", "n/2.bmp", "n/3.bmp"].into_iter().zip(together.rows()) {
        scene.dinov3(&format!("embed {name} {native} -o one.npy")).assert().code(0);
        assert_eq!(scene.npy("one.npy").data, row, "{name}");
    }
}

#[test]
fn sizes_that_the_patch_does_not_divide_are_refused_or_padded() {
    let scene = Scene::new();
    let native = "embed photos -m tiny.json --weights synthetic:7 --preprocess native";
    let output = scene.dinov3(&format!("{native} -o -")).assert().code(3);
    assert_eq!(
        streamed(&output)[0]["error"],
        "image height 30 and width 40 must be divisible by 16; sizes that work: 16x32 or 32x48 (height x width), or \
         --pad"
    );
    scene.dinov3(&format!("{native} --pad -o out.npy")).assert().code(0);
    assert_eq!(scene.npy("out.npy").shape, [3, 64]);
    assert_eq!(scene.json("out.npy.json")["provenance"]["pad"], true);
}

#[test]
fn arrays_need_no_preprocessing_and_are_named_by_their_rows() {
    let scene = Scene::new();
    scene.file("x.npy", npy("(2, 3, 32, 48)", (0..2 * 3 * 32 * 48).map(|i| (i % 17) as f32 / 8.0 - 1.0)));
    let tiny = "-m tiny.json --weights synthetic:7";
    let output = scene.dinov3(&format!("embed x.npy {tiny} --preprocess none -o -")).assert().code(0);
    assert_eq!(paths(&streamed(&output)), ["x.npy#0", "x.npy#1"]);

    let error = |line: &str| {
        let output = scene.dinov3(&format!("{line} {tiny} -o out.npy")).assert().stdout_eq("");
        (output.get_output().status.code().unwrap(), stderr(&output))
    };
    let (usage, failed) = (2, 1);
    assert_eq!(error("embed x.npy"), (usage, "error: x.npy: arrays need --preprocess none\n".into()));
    let told = "error: --size, --mean and --std have no meaning with --preprocess none\n";
    assert_eq!(error("embed x.npy --preprocess none --size 32"), (usage, told.into()));
    assert_eq!(
        error("embed photos/a.bmp --preprocess none"),
        (failed, "error: photos/a.bmp: not an .npy file\n".into())
    );
    scene.file("flat.npy", npy("(6,)", (0..6).map(|i| i as f32)));
    let told = "error: flat.npy: the shape is [6], expected [N, 3, H, W]\n";
    assert_eq!(error("embed flat.npy --preprocess none"), (failed, told.into()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf8_is_escaped() {
    use std::os::unix::ffi::OsStrExt;
    let scene = Scene::new();
    let name = std::ffi::OsStr::from_bytes(b"photos/\xE4.bmp");
    fs::write(scene.0.path().join(name), bmp(40, 30, 1)).unwrap();
    let output = scene.tiny("embed photos -o -").assert().code(0);
    assert_eq!(paths(&streamed(&output)).last(), Some(&r"photos/\xE4.bmp"));
    let output = scene.tiny("embed - -o -").stdin(&b"photos/\xE4.bmp\n"[..]).assert().code(0);
    assert_eq!(paths(&streamed(&output)), [r"photos/\xE4.bmp"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_and_a_folder_are_no_pictures() {
    let scene = Scene::new();
    assert!(std::process::Command::new("mkfifo").arg(scene.path("pipe.png")).status().unwrap().success());
    let list = "pipe.png\nphotos\nphotos/a.bmp\n";
    let output = scene.tiny("embed - -o -").stdin(list).timeout(std::time::Duration::from_secs(60)).assert().code(3);
    let lines = streamed(&output);
    assert_eq!((&lines[0]["error"], &lines[1]["error"]), (&"not a regular file".into(), &"not a regular file".into()));
    assert_eq!(vector(&lines[2]["embedding"]).len(), 64);
    fs::rename(scene.path("pipe.png"), scene.path("pipe.json")).unwrap();
    let line = "embed photos -m pipe.json --weights synthetic:7 -o -";
    let output = scene.dinov3(line).timeout(std::time::Duration::from_secs(60)).assert().code(1);
    output.stderr_eq("error: pipe.json: not a regular file\n");
}

// ---------------------------------------------------------------------------------------------------------------
// embed: what is computed

#[test]
fn wrong_sizes_are_wrong_usage_with_sizes_that_work() {
    let scene = Scene::new();
    scene.file("convnext.json", TINY_CONVNEXT);
    for (options, said) in [
        ("-m tiny.json --size 65", "--size 65x65 is not divisible by 16; sizes that work: 64x64 or 80x80, or --pad"),
        ("-m tiny.json --size 7x40", "--size 7x40 is not divisible by 16; sizes that work: 16x32 or 16x48, or --pad"),
        (
            "-m tiny.json --size 65520",
            "--size 65520x65520 gives 16769030 tokens, more than the limit of 66000 (--max-tokens)",
        ),
        ("-m tiny.json --size 32 --preprocess native", "--size has no meaning with --preprocess native"),
        ("-m tiny.json --std 0,1,1", "--std must be above 0"),
        ("-m tiny.json --std 1e-45,1,1", "--mean and --std give pixels beyond 1e6"),
        ("-m convnext.json --size 31x64", "--size 31x64: convnext_tiny[..] ([..]) needs at least 32 pixels"),
        (
            "-m convnext.json --pool token",
            "--pool token: convnext_tiny[..] ([..]) has no class token; avg, max and avgmax work",
        ),
        ("-m tiny.json --pool avg,avg", "--pool names 'avg' twice"),
        ("-m tiny.json --logits", "--logits: neither the model nor its weights have a head"),
    ] {
        let line = format!("embed photos --weights synthetic:7 -o out.npy {options}");
        scene.dinov3(&line).assert().code(2).stdout_eq("").stderr_eq(format!("error: {said}\n"));
    }
    let bad_size = "embed photos -m tiny.json --size 0 --weights synthetic:7 -o out.npy";
    scene.dinov3(bad_size).assert().code(2).stderr_eq(str![[r#"
error: invalid value '0' for '--size <N|HxW>': expected N or HxW in pixels, 1 to 65535

For more information, try '--help'.

"#]]);
    assert_eq!(scene.new_files(), ["convnext.json"]);
}

#[test]
fn batches_and_threads_do_not_change_a_bit() {
    let scene = Scene::new();
    (0..5).for_each(|seed| scene.picture(&format!("photos/more/{seed}.bmp"), 20 + seed * 3, 33, seed));
    let mut files = Vec::new();
    for (threads, batch) in [(1, 1), (1, 8), (2, 3), (3, 4096)] {
        let line = format!("embed photos -o out.npy --pool token --threads {threads} --batch-size {batch}");
        scene.tiny(&line).assert().code(0);
        files.push(scene.npy("out.npy"));
    }
    assert_eq!(files[0].shape, [8, 64]);
    assert!(files.iter().all(|file| *file == files[0]));
    assert_ne!(files[0].rows()[0], files[0].rows()[1]);
}

#[test]
fn several_poolings_come_from_one_pass() {
    let scene = Scene::new();
    scene.tiny("embed photos -o all.safetensors --pool token,avg,max,avgmax").assert().code(0);
    let (all, metadata) = scene.safetensors("all.safetensors");
    let columns =
        [("embedding", "token"), ("embedding_avg", "avg"), ("embedding_max", "max"), ("embedding_avgmax", "avgmax")];
    assert_eq!(all.len(), columns.len());
    for (column, pooling) in columns {
        scene.tiny(&format!("embed photos -o one.npy --pool {pooling}")).assert().code(0);
        assert_eq!(all[column], scene.npy("one.npy"), "{column}");
    }
    let provenance: Value = serde_json::from_str(metadata["dinov3"].as_str().unwrap()).unwrap();
    assert_eq!(provenance["pooling"].to_string(), r#"["token","avg","max","avgmax"]"#);
}

#[test]
fn normalised_embeddings_have_length_one_and_the_same_direction() {
    let scene = Scene::new();
    scene.tiny("embed photos -o plain.npy").assert().code(0);
    scene.tiny("embed photos -o unit.npy --normalize").assert().code(0);
    for (plain, unit) in scene.npy("plain.npy").rows().into_iter().zip(scene.npy("unit.npy").rows()) {
        let length = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        assert!((length(unit) - 1.0).abs() < 1e-6);
        let scaled: Vec<f32> = plain.iter().map(|&value| (f64::from(value) / length(plain)) as f32).collect();
        assert!(distance(unit, &scaled) < 1e-6);
    }
    assert_eq!(scene.json("unit.npy.json")["provenance"]["normalized"], true);
}

#[test]
fn precision_and_rope_periods_change_a_little_and_are_recorded() {
    let scene = Scene::new();
    scene.tiny("embed photos -o f32.npy").assert().code(0);
    let about = &scene.json("f32.npy.json")["provenance"];
    assert_eq!((&about["precision"], &about["rope_periods"]), (&"f32".into(), &"f32".into()));
    for (option, field) in [("--precision bf16", "precision"), ("--rope-periods bf16", "rope_periods")] {
        scene.tiny(&format!("embed photos -o bf16.npy {option}")).assert().code(0);
        let distance = distance(&scene.npy("bf16.npy").data, &scene.npy("f32.npy").data);
        assert!(distance > 1e-7 && distance < 2e-2, "{option}: {distance}");
        assert_eq!(scene.json("bf16.npy.json")["provenance"][field], "bf16");
    }
}

#[test]
fn a_head_gives_class_scores() {
    let scene = Scene::new();
    scene.tiny("embed photos -o out.safetensors --num-classes 5 --logits").assert().code(0);
    let (tensors, _) = scene.safetensors("out.safetensors");
    assert_eq!((&tensors["embedding"].shape[..], &tensors["logits"].shape[..]), (&[3, 64][..], &[3, 5][..]));
    // Without --num-classes the head is found in the weights.
    let spec = dinov3::find_model(scene.path("tiny.json").to_str().unwrap()).unwrap().with_num_classes(5);
    let stored = checkpoints::synthetic_weights(&spec, 7, Dialect::Timm);
    checkpoints::write(&scene.path("head.safetensors"), &stored, Type::F32);
    let line = "embed photos -m tiny.json --size 32 --weights head.safetensors -o out.npy";
    scene.dinov3(line).assert().code(0);
    scene.dinov3(&format!("{line} --num-classes 4")).assert().code(1);
    scene.dinov3(&format!("{line} --num-classes 5")).assert().code(0);
}

#[test]
fn provenance_says_everything_that_the_numbers_depend_on() {
    let scene = Scene::new();
    scene.tiny("embed photos -o out.npy --mean 0.5,0.25,0 --std 1,2,4 --exif-orientation").assert().code(0);
    let provenance = serde_json::to_string_pretty(&scene.json("out.npy.json")["provenance"]).unwrap();
    snapbox::assert_data_eq!(
        provenance,
        str![[r#"
{
  "columns": {
    "embedding": {
      "content": "embedding",
      "pooling": "avg",
      "width": 64
    }
  },
  "counts": {
    "done": 3,
    "failed": 0
  },
  "deep_grey": "refuse",
  "exif_orientation": true,
  "instruction_set": "[..]",
  "license": "dinov3-license",
  "model": "vit_small_patch16_dinov3 (tiny.json)",
  "normalized": false,
  "pad": false,
  "pooling": [
    "avg"
  ],
  "precision": "f32",
  "preprocess": {
    "crop_mode": "center",
    "crop_pct": 1.0,
    "height_px": 32,
    "interpolation": "bicubic",
    "mean": [
      0.5,
      0.25,
      0.0
    ],
    "name": "timm",
    "std": [
      1.0,
      2.0,
      4.0
    ],
    "width_px": 32
  },
  "program": "dinov3",
  "rope_periods": "f32",
  "schema": 1,
  "version": "[..]",
  "weights": {
    "synthetic": "synthetic:7"
  }
}
"#]]
    );
}

// ---------------------------------------------------------------------------------------------------------------
// embed: what comes out

#[test]
fn every_kind_of_output_holds_the_same_rows_in_input_order() {
    let scene = Scene::new();
    let inputs = "embed photos/more/c.bmp photos/b.bmp photos/a.bmp";
    let expected = ["photos/more/c.bmp", "photos/b.bmp", "photos/a.bmp"];
    for output in ["out.parquet", "out.npy", "out.safetensors", "out.jsonl"] {
        let said = format!("3 images in [..] s, [..] images/s, 0 failed -> {output}\n");
        scene.tiny(&format!("{inputs} -o {output}")).assert().code(0).stdout_eq("").stderr_eq(said);
    }
    let stream = scene.tiny(&format!("{inputs} -o -")).assert().code(0);
    let array = scene.npy("out.npy");
    assert_eq!(array.shape, [3, 64]);
    assert_eq!(scene.json("out.npy.json")["paths"], serde_json::json!(expected));

    let (tensors, metadata) = scene.safetensors("out.safetensors");
    assert_eq!(tensors["embedding"], array);
    let names: Value = serde_json::from_str(metadata["paths"].as_str().unwrap()).unwrap();
    assert_eq!(names, serde_json::json!(expected));

    let lines = scene.json_lines("out.jsonl");
    assert_eq!(streamed(&stream), lines);
    assert_eq!(paths(&lines), expected);
    lines.iter().zip(array.rows()).for_each(|(line, row)| assert_eq!(vector(&line["embedding"]), row));
    assert_eq!(scene.json("out.jsonl.json")["counts"]["done"], 3);

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let parquet = SerializedFileReader::new(fs::File::open(scene.path("out.parquet")).unwrap()).unwrap();
    let rows: Vec<_> = parquet.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|row| row.get_string(0).unwrap().as_str()).collect::<Vec<_>>(), expected);
    for (row, values) in rows.iter().zip(array.rows()) {
        let list = row.get_list(1).unwrap();
        use parquet::record::ListAccessor;
        assert_eq!((0..list.len()).map(|i| list.get_float(i).unwrap()).collect::<Vec<_>>(), values);
    }
    assert_eq!(
        scene.new_files(),
        ["out.jsonl", "out.jsonl.json", "out.npy", "out.npy.json", "out.parquet", "out.safetensors"]
    );
}

#[test]
fn standard_output_is_nothing_but_data() {
    let scene = Scene::new();
    scene.file("photos/broken.png", "\x08PNG");
    let output = scene.tiny("embed photos -o -").assert().code(3);
    assert_eq!(streamed(&output).len(), 4);
    output.stderr_eq(str![[r#"
failed: photos/broken.png: not a JPEG, PNG, WebP, TIFF or BMP picture (first bytes: 08504e47)
3 images in [..] s, [..] images/s, 1 failed -> standard output

"#]]);
}

#[test]
fn outputs_that_cannot_be_are_found_before_the_work() {
    let scene = Scene::new();
    fs::create_dir(scene.path("folder.npy")).unwrap();
    let (failed, usage) = (1, 2);
    // The weights are missing, too: that would be said if the output were looked at later.
    for (output, code, said) in [
        ("out.csv", usage, "out.csv: the format is not known by this name; known are .parquet, .npy, [..]"),
        ("out", usage, "out: the format is not known by this name; [..]"),
        ("nowhere/out.npy", failed, "nowhere/out.npy: the folder nowhere does not exist"),
        ("folder.npy", failed, "folder.npy: is a folder, not a file"),
        ("out.npy --pool avg,token", usage, "out.npy: a npy file holds exactly one pooling, and not [..]"),
        (
            "out.npy --pool none",
            usage,
            "pooling 'none' gives one matrix per image, not one vector; `features --all-tokens` writes it",
        ),
    ] {
        let line = format!("embed photos -m tiny.json --weights missing -o {output}");
        scene.dinov3(&line).assert().code(code).stdout_eq("").stderr_eq(format!("error: {said}\n"));
    }
    assert_eq!(scene.new_files(), ["folder.npy"]);
}

#[test]
fn what_is_read_is_never_overwritten() {
    let scene = Scene::new();
    let array = npy("(1, 3, 32, 32)", (0..3 * 32 * 32).map(|i| (i % 17) as f32));
    scene.file("x.npy", &array);
    scene.weights("model.safetensors", Dialect::Timm);
    let weights = fs::read(scene.path("model.safetensors")).unwrap();
    let arrays = "-m tiny.json --weights synthetic:7 --preprocess none";
    for line in [
        format!("embed x.npy {arrays} -o x.npy"),
        format!("embed x.npy {arrays} -o photos/../x.npy"),
        format!("features x.npy {arrays} --last 1 -o x.npy"),
        "embed photos -m tiny.json --weights model.safetensors -o model.safetensors".to_string(),
        "features photos/a.bmp -m tiny.json --weights model.safetensors -o model.safetensors".to_string(),
    ] {
        let output = scene.dinov3(&line).assert().code(2).stdout_eq("");
        let text = stderr(&output);
        assert!(text.contains("is read by this command; give another output"), "{line}\n{text}");
    }
    assert_eq!(fs::read(scene.path("x.npy")).unwrap(), array);
    assert_eq!(fs::read(scene.path("model.safetensors")).unwrap(), weights);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_once() {
    let scene = Scene::new();
    let mut command = std::process::Command::new(snapbox::cmd::cargo_bin!("dinov3"));
    command
        .current_dir(scene.0.path())
        .args("embed photos --size 32 -m tiny.json --weights synthetic:7 -o -".split(' '));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "error: -: cannot be written: No space left on device (os error 28)\n");
}

/// A run that takes long enough to be disturbed.
#[cfg(unix)]
fn long_run(scene: &Scene, output: &str) -> std::process::Child {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = std::process::Command::new(snapbox::cmd::cargo_bin!("dinov3"));
    command.current_dir(scene.0.path()).args([
        "embed",
        "-",
        "-m",
        "tiny.json",
        "--weights",
        "synthetic:7",
        "-o",
        output,
    ]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let list = "photos/a.bmp\n".repeat(100_000);
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    child
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_its_rows_and_nothing_else() {
    let scene = Scene::new();
    let child = long_run(&scene, "out.npy");
    // Until it is under way, which its hidden file shows.
    let start = std::time::Instant::now();
    while scene.new_files().is_empty() {
        assert!(start.elapsed().as_secs() < 60, "the run does not begin");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    match scene.new_files().as_slice() {
        [] => assert_eq!(text, "error: interrupted; nothing was written\n"),
        files => {
            assert!(text.ends_with(" finished rows are kept, --resume continues\n"), "{text}");
            assert_eq!(files, [".out.npy.dinov3-journal"]);
        }
    }
    assert_eq!(output.status.code(), Some(1));
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    use std::io::{BufRead, BufReader, Read};
    let scene = Scene::new();
    let mut child = long_run(&scene, "-");
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    assert_eq!(paths(&json_lines(&line)), ["photos/a.bmp"]);
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((child.wait().unwrap().code(), text.as_str()), (Some(0), ""));
}

// ---------------------------------------------------------------------------------------------------------------
// features

impl Scene {
    /// Shapes of the tensors that a features command writes.
    fn shapes(&self, options: &str) -> BTreeMap<String, Vec<usize>> {
        let line = format!("features photos/a.bmp -m tiny.json --weights synthetic:7 --size 32x48 {options}");
        self.dinov3(&format!("{line} -o out.safetensors")).assert().code(0).stdout_eq("").stderr_eq("");
        let (tensors, metadata) = self.safetensors("out.safetensors");
        let provenance: Value = serde_json::from_str(metadata["dinov3"].as_str().unwrap()).unwrap();
        assert_eq!((&provenance["schema"], &provenance["input"]), (&1.into(), &"photos/a.bmp".into()));
        tensors.into_iter().map(|(name, tensor)| (name, tensor.shape)).collect()
    }
}

fn table(rows: &[(&str, &[usize])]) -> BTreeMap<String, Vec<usize>> {
    rows.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect()
}

#[test]
fn features_are_the_blocks_that_were_asked_for() {
    let scene = Scene::new();
    let map: &[usize] = &[1, 64, 2, 3];
    let prefix: &[usize] = &[1, 5, 64];
    assert_eq!(scene.shapes(""), table(&[("blocks.0", map), ("blocks.1", map)]));
    assert_eq!(scene.shapes("--last 1"), table(&[("blocks.1", map)]));
    assert_eq!(scene.shapes("--blocks 0"), table(&[("blocks.0", map)]));
    assert_eq!(scene.shapes("--blocks -1,-2,1"), table(&[("blocks.0", map), ("blocks.1", map)]));
    assert_eq!(
        scene.shapes("--last 1 --prefix-tokens"),
        table(&[("blocks.1", map), ("blocks.1.prefix_tokens", prefix)])
    );
    assert_eq!(scene.shapes("--last 1 --layout nlc"), table(&[("blocks.1", &[1, 6, 64])]));
    assert_eq!(scene.shapes("--all-tokens"), table(&[("tokens", &[1, 11, 64])]));
    assert_eq!(scene.shapes("--all-tokens --blocks 0"), table(&[("blocks.0", map), ("tokens", &[1, 11, 64])]));
}

#[test]
fn the_last_map_normed_is_the_patch_tokens_and_their_mean_is_the_embedding() {
    let scene = Scene::new();
    let write = |options: &str, output: &str| {
        scene.tiny(&format!("features photos/a.bmp {options} -o {output}")).assert().code(0);
        scene.npy(output)
    };
    let map = write("--last 1 --norm", "map.npy");
    let tokens = write("--all-tokens", "tokens.npy");
    assert_ne!(write("--last 1", "raw.npy"), map);
    assert_eq!(scene.json("map.npy.json")["array"], "blocks.1");
    assert_eq!(write("--last 1 --norm --layout nlc", "rows.npy").data, tokens.data[5 * 64..]);
    for patch in 0..4 {
        let column: Vec<f32> = map.data.chunks(4).map(|channel| channel[patch]).collect();
        assert_eq!(column, tokens.data[(5 + patch) * 64..][..64]);
    }
    scene.tiny("embed photos/a.bmp -o mean.npy").assert().code(0);
    let mean: Vec<f32> = map.data.chunks(4).map(|channel| channel.iter().sum::<f32>() / 4.0).collect();
    assert!(distance(&mean, &scene.npy("mean.npy").data) < 1e-6);
}

#[test]
fn a_convnext_has_stages() {
    let scene = Scene::new();
    scene.file("convnext.json", TINY_CONVNEXT);
    let line = "features photos/a.bmp -m convnext.json --weights synthetic:7 --size 70x45";
    scene.dinov3(&format!("{line} -o out.safetensors")).assert().code(0);
    let shapes: Vec<Vec<usize>> =
        scene.safetensors("out.safetensors").0.into_values().map(|tensor| tensor.shape).collect();
    assert_eq!(shapes, [[1, 8, 17, 11], [1, 16, 8, 5], [1, 24, 4, 2], [1, 32, 2, 1]]);
    scene.dinov3(&format!("{line} --prefix-tokens -o out.safetensors")).assert().code(2).stderr_eq(str![[r#"
error: --prefix-tokens: convnext_tiny.dinov3_lvd1689m (convnext.json) has no prefix tokens

"#]]);
}

#[test]
fn features_of_an_array_keep_its_images() {
    let scene = Scene::new();
    scene.file("x.npy", npy("(2, 3, 32, 48)", (0..2 * 3 * 32 * 48).map(|i| (i % 17) as f32 / 8.0 - 1.0)));
    let line = "features x.npy -m tiny.json --weights synthetic:7 --preprocess none --last 1 -o out.npy";
    scene.dinov3(line).assert().code(0);
    assert_eq!(scene.npy("out.npy").shape, [2, 64, 2, 3]);
}

#[test]
fn features_that_cannot_be_are_wrong_usage() {
    let scene = Scene::new();
    let tiny = "vit_small_patch16_dinov3 (tiny.json)";
    for (options, said) in [
        ("--blocks 99 -o out.npy", format!("--blocks 99: {tiny} has blocks 0 to 1 (-2 to -1)")),
        ("--blocks -3 -o out.npy", format!("--blocks -3: {tiny} has blocks 0 to 1 (-2 to -1)")),
        ("--last 3 -o out.npy", format!("--last 3: {tiny} has 2 blocks")),
        ("--last 0 -o out.npy", format!("--last 0: {tiny} has 2 blocks")),
        ("-o out.npy", "2 arrays do not fit into one .npy; write .safetensors".to_string()),
        ("-o out.parquet", "out.parquet: write .safetensors, or .npy for a single array".to_string()),
        ("-o -", "-: write .safetensors, or .npy for a single array".to_string()),
    ] {
        let line = format!("features photos/a.bmp {options}");
        scene.tiny(&line).assert().code(2).stdout_eq("").stderr_eq(format!("error: {said}\n"));
    }
    scene.tiny("features photos/a.bmp --last -1 -o out.npy").assert().code(2).stderr_eq(str![[r#"
error: invalid value '-1' for '--last <N>': invalid digit found in string

For more information, try '--help'.

"#]]);
    scene.tiny("features photos -o out.safetensors").assert().code(2).stderr_eq(str![[r#"
error: photos is a folder; features takes one picture

"#]]);
    scene.tiny("features photos/notes.txt -o out.safetensors").assert().code(1).stderr_eq(str![[r#"
error: photos/notes.txt: not a JPEG, PNG, WebP, TIFF or BMP picture (first bytes: 6e6f7420612070696374757265)

"#]]);
    // Found before the weights are looked at.
    let line = "features photos/a.bmp -m tiny.json --weights missing -o nowhere/out.safetensors";
    scene.dinov3(line).assert().code(1).stderr_eq(str![[r#"
error: nowhere/out.safetensors: the folder nowhere does not exist

"#]]);
    assert_eq!(scene.new_files(), Vec::<String>::new());
}

#[test]
fn features_can_be_painted() {
    let scene = Scene::new();
    scene.tiny("features photos/a.bmp --pca pca.png --pca-basis basis.safetensors").assert().code(0);
    scene.tiny("features photos/a.bmp --similarity 8,8 -o like.png").assert().code(0);
    for name in ["pca.png", "like.png"] {
        assert!(fs::read(scene.path(name)).unwrap().starts_with(b"\x89PNG"));
    }
    let first = fs::read(scene.path("pca.png")).unwrap();
    // With the basis that was kept, the picture is the same.
    scene.tiny("features photos/a.bmp --pca pca.png --pca-basis basis.safetensors").assert().code(0);
    assert_eq!(fs::read(scene.path("pca.png")).unwrap(), first);
    assert_eq!(scene.new_files(), ["basis.safetensors", "like.png", "pca.png"]);
    scene.tiny("features photos/a.bmp --pca pca.jpg").assert().code(2).stderr_eq(str![[r#"
error: --pca pca.jpg: the picture must be a .png

"#]]);
    let same = "features photos/a.bmp --similarity 8,8 --pca both.png -o both.png";
    scene.tiny(same).assert().code(2).stderr_eq(str![[r#"
error: --output and --pca name the same file

"#]]);
}
