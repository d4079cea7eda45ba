//! The committed pictures against what Pillow, torchvision and Transformers made of them.

use std::path::PathBuf;

use dinov3_pixels::{
    DecodeOptions, DeepGrey, Filter, Orientation, PixelError, Recipe, RgbImage, Statistics, decode, image_size, resize,
};
use sha2::{Digest, Sha256};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn digest(image: &RgbImage) -> String {
    hexadecimal(&Sha256::digest(image.data()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_case_equals_the_python_stack() {
    let expected = std::fs::read_to_string(folder().join("expected.tsv")).unwrap();
    let mut cases = 0;
    let mut faults = Vec::new();
    for line in expected.lines().filter(|line| !line.starts_with('#')) {
        cases += 1;
        let fields: Vec<&str> = line.split('\t').collect();
        let (result, width, height, sha) = match fields.as_slice() {
            ["decode", name, deep_grey, orientation, width, height, sha] => {
                let deep_grey = match *deep_grey {
                    "clip" => DeepGrey::Clip,
                    "high-byte" => DeepGrey::HighByte,
                    _ => DeepGrey::Refuse,
                };
                let orientation = if *orientation == "apply" { Orientation::Apply } else { Orientation::Ignore };
                let options = DecodeOptions::default().with_deep_grey(deep_grey).with_orientation(orientation);
                (decode(&read(name), &options), width, height, sha)
            }
            ["recipe", name, recipe, height, width, statistics, sha] => {
                let statistics = match *statistics {
                    "satellite" => Statistics::SATELLITE,
                    _ => Statistics::IMAGENET,
                };
                let recipe = match *recipe {
                    "hf" => Recipe::hf(statistics),
                    "meta" => Recipe::meta(statistics),
                    _ => Recipe::meta_eval(statistics),
                };
                let recipe = recipe.with_size(height.parse().unwrap(), width.parse().unwrap());
                let input = recipe.apply(&decode(&read(name), &DecodeOptions::default()).unwrap()).unwrap();
                let bytes: Vec<u8> = input.data.iter().flat_map(|value| value.to_le_bytes()).collect();
                if hexadecimal(&Sha256::digest(bytes)) != *sha {
                    faults.push(format!("other values: {line}"));
                }
                continue;
            }
            ["resize", name, width, height, filter, sha] => {
                let filter = if *filter == "bicubic" { Filter::Bicubic } else { Filter::Bilinear };
                let image = decode(&read(name), &DecodeOptions::default()).unwrap();
                (resize(&image, width.parse().unwrap(), height.parse().unwrap(), filter), width, height, sha)
            }
            _ => panic!("unreadable line: {line}"),
        };
        match result {
            Ok(image)
                if (image.width_px().to_string(), image.height_px().to_string())
                    != (width.to_string(), height.to_string()) =>
            {
                faults.push(format!("{} x {}: {line}", image.width_px(), image.height_px()));
            }
            Ok(image) if digest(&image) != *sha => faults.push(format!("other pixels: {line}")),
            Ok(_) => {}
            Err(error) => faults.push(format!("{error}: {line}")),
        }
    }
    assert!(faults.is_empty(), "{} of {cases} cases:\n{}", faults.len(), faults.join("\n"));
    assert!(cases > 100, "only {cases} cases");
}

#[test]
fn headers_give_the_size_without_decoding() {
    for name in ["rgb_420.jpg", "rgb.png", "lossy.webp", "rgb_raw.tif", "rgb.bmp"] {
        let (format, width, height) = image_size(&read(name)).unwrap();
        assert_eq!((width, height), (45, 31), "{name} ({format})");
    }
}

#[test]
fn deep_grey_is_refused_unless_told_how() {
    for (name, policies) in [
        ("grey_16_bits.png", vec![DeepGrey::Refuse]),
        ("grey_16_bits.tif", vec![DeepGrey::Refuse]),
        ("float.tif", vec![DeepGrey::Refuse, DeepGrey::HighByte]),
    ] {
        for policy in policies {
            let result = decode(&read(name), &DecodeOptions::default().with_deep_grey(policy));
            assert!(matches!(result, Err(PixelError::DeepGrey { .. })), "{name} {policy:?}: {result:?}");
        }
    }
}

#[test]
fn truncated_files_are_refused() {
    for name in
        ["rgb_420.jpg", "rgb_420_progressive.jpg", "rgb.png", "lossless.webp", "lossy.webp", "rgb_raw.tif", "rgb.bmp"]
    {
        let bytes = read(name);
        let result = decode(&bytes[..bytes.len() / 2], &DecodeOptions::default());
        assert!(result.is_err(), "{name}");
    }
    let bytes = read("rgb_420.jpg");
    assert!(matches!(decode(&bytes[..bytes.len() / 2], &DecodeOptions::default()), Err(PixelError::Truncated { .. })));
}
