//! Files of `torch.save`: the same values as in safetensors, and a clear word where they are not read.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use dinov3_model::config_json;
use dinov3_model::dialect::Dialect;
use dinov3_model::spec::ModelSpec;
use dinov3_model::tensors::tensors;
use dinov3_model::weights::{WeightSource, WeightsError};
use dinov3_testing::checkpoints::{Stored, Type, synthetic_weights, write, write_pth};
use dinov3_testing::pth::{Layout, PickleWriter, ZipWriter, contiguous};
use dinov3_weights::{Checkpoint, open_files, verify_files};
use tempfile::TempDir;

fn tiny() -> ModelSpec {
    let text = r#"{"architecture": "vit_small_patch16_dinov3",
        "model_args": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4}}"#;
    config_json::parse(text, "tiny").unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn verify(path: &Path) -> Result<dinov3_weights::VerifyReport, WeightsError> {
    verify_files(path, &mut |_, _| ControlFlow::Continue(()))
}

/// Writes a zip of one pickle and storages.
fn zip(path: &Path, pickle: &[u8], storages: &[(&str, &[u8])]) {
    let mut zip = ZipWriter::new(Vec::new());
    zip.entry("archive/data.pkl", pickle).unwrap();
    for (key, bytes) in storages {
        zip.entry(&format!("archive/{key}"), bytes).unwrap();
    }
    std::fs::write(path, zip.finish().unwrap()).unwrap();
}

#[test]
fn every_layout_of_torch_save_gives_the_values_of_safetensors() {
    let (folder, model) = (folder(), tiny());
    let renamed = |stored: &[Stored], prefix: &str| -> Vec<Stored> {
        stored.iter().map(|(name, shape, values)| (format!("{prefix}{name}"), shape.clone(), values.clone())).collect()
    };
    for dialect in [Dialect::Meta, Dialect::Timm] {
        let stored = synthetic_weights(&model, 3, dialect);
        let mut training = renamed(&stored, "module.backbone.");
        training.push(("dino_head.last_layer.weight".into(), vec![3, 2], vec![1.0; 6]));
        for kind in [Type::F32, Type::Bf16, Type::F16] {
            let file = folder.path().join("plain.safetensors");
            write(&file, &stored, kind);
            let plain = Checkpoint::open(&file, &model).unwrap();
            let layout = |protocol, wrapper, parameters| Layout { protocol, wrapper, parameters };
            for (name, stored, layout) in [
                ("flat.pth", &stored, layout(2, None, false)),
                ("protocol4.pt", &stored, layout(4, None, true)),
                ("training.pth", &training, layout(2, Some("teacher"), true)),
                ("model.bin", &stored, layout(5, Some("model"), false)),
                ("state.pth", &stored, layout(2, Some("state_dict"), false)),
            ] {
                let file = folder.path().join(name);
                write_pth(&file, stored, kind, &layout);
                let checkpoint = Checkpoint::open(&file, &model).unwrap();
                assert_eq!(checkpoint.report.dialect, dialect, "{name}");
                for tensor in tensors(&model) {
                    let [mut found, mut expected] = [(); 2].map(|()| vec![0.0; tensor.elements()]);
                    checkpoint.read(&tensor.name, 0, &mut found).unwrap();
                    plain.read(&tensor.name, 0, &mut expected).unwrap();
                    assert_eq!(found, expected, "{name} {kind:?} {}", tensor.name);
                }
                let ignored = format!("{:?}", checkpoint.report.ignored);
                let beside = layout.wrapper.is_none_or(|wrapper| {
                    ignored.contains("optimizer") && ignored.contains("iteration") && ignored.contains(wrapper)
                });
                assert!(beside && ignored.contains("dino_head") == (name == "training.pth"), "{name}: {ignored}");
                let report = verify(&file).unwrap();
                assert_eq!((report.tensors, report.files[0].checksums), (stored.len(), stored.len() + 3), "{name}");
                assert_eq!(report.files[0].container, "PyTorch zip");
            }
        }
    }
}

#[test]
fn a_folder_and_an_index_may_hold_pytorch_files() {
    let (folder, model) = (folder(), tiny());
    let stored = synthetic_weights(&model, 3, Dialect::Timm);
    let only = folder.path().join("dinov3_vits16_pretrain.pth");
    write_pth(&only, &stored, Type::F32, &Layout::default());
    assert_eq!(Checkpoint::open(folder.path(), &model).unwrap().paths(), [only]);
    write_pth(&folder.path().join("pytorch_model.bin"), &stored, Type::F32, &Layout::default());
    assert!(Checkpoint::open(folder.path(), &model).unwrap().paths()[0].ends_with("pytorch_model.bin"));
    let (first, second) = stored.split_at(9);
    let mut map = Vec::new();
    for (file, part) in [("a.bin", first), ("b.bin", second)] {
        write_pth(&folder.path().join(file), part, Type::F32, &Layout::default());
        map.extend(part.iter().map(|(name, _, _)| format!("\"{name}\": \"{file}\"")));
    }
    let index = folder.path().join("pytorch_model.bin.index.json");
    std::fs::write(&index, format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", map.join(", "))).unwrap();
    assert_eq!(Checkpoint::open(folder.path(), &model).unwrap().paths().len(), 2);
    assert_eq!(verify(&index).unwrap().files.len(), 2);
    // What a file is decides its content, not its name.
    write(&folder.path().join("renamed.pth"), &stored, Type::F32);
    Checkpoint::open(&folder.path().join("renamed.pth"), &model).unwrap();
}

/// A state dict of one tensor "w" of storage "0", which has six elements.
fn one_tensor(first: i64, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let mut pickle = PickleWriter::new(2);
    pickle.op(b"}");
    pickle.text("w");
    pickle.tensor(Type::F32, "0", first, shape, strides, 6);
    pickle.op(b"s");
    pickle.finish()
}

#[test]
fn offsets_and_shared_storages_are_respected_and_strange_strides_refused() {
    let folder = folder();
    let path = folder.path().join("w.pth");
    let bytes: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let open = |first, shape: &[usize], strides: &[usize]| {
        zip(&path, &one_tensor(first, shape, strides), &[("data/0", &bytes)]);
        open_files(&path).map(|set| set.tensors["w"].clone())
    };
    let start = open(0, &[2, 3], &[3, 1]).unwrap().offset_bytes;
    assert_eq!(start % 64, 0, "torch.save aligns data");
    assert_eq!(open(2, &[2, 1, 2], &[2, 77, 1]).unwrap().offset_bytes, start + 8, "the stride of one row is free");
    for (first, shape, strides, expected) in [
        (0, &[2, 3][..], &[1, 2][..], "not contiguous"),
        (1, &[2, 3], &[3, 1], "its storage has 6"),
        (-1, &[2, 3], &[3, 1], "negative storage offset"),
        (0, &[2, 3], &[1], "2 dimensions, but 1 strides"),
        (0, &[usize::MAX >> 1, 8, 8], &[64, 8, 1], "overflows"),
    ] {
        let error = open(first, shape, strides).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("tensor w"), "{error}");
    }

    let mut shared = PickleWriter::new(2);
    shared.op(b"}(");
    for (name, first) in [("a", 0), ("b", 3)] {
        shared.text(name);
        shared.tensor(Type::F32, "0", first, &[3], &contiguous(&[3]), 6);
    }
    shared.text("step");
    shared.integer(7);
    shared.op(b"u");
    zip(&path, &shared.finish(), &[("data/0", &bytes)]);
    let set = open_files(&path).unwrap();
    assert_eq!(set.tensors["b"].offset_bytes, set.tensors["a"].offset_bytes + 12);
    assert_eq!(set.left_out, [("step".to_string(), "not a tensor")]);
}

#[test]
fn globals_and_opcodes_that_weights_do_not_need_are_refused_by_name() {
    let folder = folder();
    let path = folder.path().join("evil.pth");
    let call = |module: &str, name: &str, protocol| {
        let mut pickle = PickleWriter::new(protocol);
        pickle.global(module, name);
        pickle.text("echo owned");
        pickle.op(b"\x85R");
        pickle.finish()
    };
    for (pickle, construct) in [
        (call("posix", "system", 2), "the global posix.system"),
        (call("builtins", "eval", 4), "the global builtins.eval"),
        (call("torch", "load", 2), "the global torch.load"),
        (call("argparse", "Namespace", 2), "the global argparse.Namespace"),
        (call("torch._utils", "_rebuild_tensor_v2\u{1b}[2J", 2), "v2\\u{1b}[2J"),
        (b"\x80\x02}(X\x01\x00\x00\x00aI1\n".to_vec(), "the opcode INT"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.".to_vec(), "the opcode NEWOBJ"),
        (b"\x80\x02(S'x'\niposix\nsystem\n.".to_vec(), "the opcode STRING"),
        (b"\x80\x02\x82\x01.".to_vec(), "the opcode EXT1"),
    ] {
        zip(&path, &pickle, &[]);
        let error = open_files(&path).err().unwrap();
        assert!(matches!(&error, WeightsError::RefusedPickle { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(construct) && error.contains("evil.pth"), "{construct}: {error}");
    }
}

#[test]
fn other_files_of_pytorch_are_refused_with_what_to_do() {
    let folder = folder();
    let mut path: PathBuf = folder.path().join("other.pth");
    let refused = |path: &Path, expected: &str| {
        let error = open_files(path).err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("other."), "{error}");
    };
    let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
    std::fs::write(&path, legacy).unwrap();
    refused(&path, "before PyTorch 1.6");
    std::fs::write(&path, b"\x80\x04}.").unwrap();
    refused(&path, "torch.save writes a zip archive");
    zip(&path, b"\x80\x02].", &[]);
    refused(&path, "no dictionary of tensors");
    zip(&path, b"\x80\x02}.", &[("constants.pkl", b"")]);
    refused(&path, "TorchScript");
    zip(&path, b"\x80\x02}.", &[("byteorder", b"big")]);
    refused(&path, "its byte order is 'big'");
    zip(&path, b"\x80\x02}X\x05\x00\x00\x00epochK\x07s.", &[]);
    refused(&path, "first keys: epoch");
    path.set_extension("zip");
    std::fs::write(&path, ZipWriter::new(Vec::new()).finish().unwrap()).unwrap();
    refused(&path, "not a safetensors file");
}

#[test]
fn verify_finds_damage_and_stops_when_told() {
    let (folder, model) = (folder(), tiny());
    let mut stored = synthetic_weights(&model, 3, Dialect::Meta);
    let path = folder.path().join("weights.pth");
    write_pth(&path, &stored, Type::Bf16, &Layout::default());
    let report = verify(&path).unwrap();
    assert_eq!((report.dialect.as_deref(), report.dtypes["BF16"].tensors), (Some("Meta"), stored.len()));
    let stopped = verify_files(&path, &mut |_, _| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(stopped, WeightsError::Interrupted { .. }));

    let place = open_files(&path).unwrap().tensors["norm.weight"].offset_bytes;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    open_files(&path).unwrap();
    let error = verify(&path).unwrap_err().to_string();
    assert!(error.contains("CRC-32") && error.contains("archive/data/") && error.contains("weights.pth"), "{error}");

    // The mask token may hold anything: inference does not read it.
    for (name, element, found) in [("mask_token", 3, false), ("blocks.1.norm2.bias", 5, true)] {
        stored.iter_mut().find(|(stored, ..)| stored == name).unwrap().2[element] = f32::INFINITY;
        for kind in [Type::F32, Type::F16, Type::Bf16] {
            write_pth(&path, &stored, kind, &Layout::default());
            match verify(&path) {
                Ok(_) => assert!(!found),
                Err(error) => {
                    let text = error.to_string();
                    assert!(found && text.contains(name) && text.contains("element 5"), "{text}");
                }
            }
        }
    }
}
