//! What every encoder must do, whatever it runs on.

use dinov3_model::array::Array;
use dinov3_model::encoder::{EncodeError, Encoder, Features, MapLayout, Pooling, Request};
use dinov3_model::reference::Reference;
use dinov3_model::rope::RopePeriods;
use dinov3_model::spec::ModelSpec;
use dinov3_model::synthetic::{SyntheticSpec, SyntheticWeights};

use crate::{batch, images, relative_error};

/// Makes the encoder under test, with this model, these weights, these periods and this number of threads.
pub type Factory<'a> = &'a dyn Fn(&ModelSpec, &SyntheticWeights, RopePeriods, usize) -> Box<dyn Encoder>;

fn weights(spec: &ModelSpec) -> SyntheticWeights {
    SyntheticWeights::new(spec, SyntheticSpec { seed: 11, outliers: false })
}

/// Everything that a model can be asked for in one pass.
pub fn everything(spec: &ModelSpec) -> Request {
    let poolings = Pooling::ALL.into_iter().filter(|&pooling| spec.vit().is_some() || pooling != Pooling::Token);
    Request::new().poolings(poolings).tokens().taps(0..spec.depth()).tap_prefix_tokens(true).logits(Pooling::Average)
}

fn encode(encoder: &mut dyn Encoder, pixels: &[f32], size: (usize, usize, usize), request: &Request) -> Features {
    let mut features = Features::default();
    encoder.encode(&batch(pixels, size.0, size.1, size.2), request, &mut features).expect("the request is sound");
    features
}

/// Every array of the features with a name.
pub fn arrays(features: &Features) -> Vec<(String, &Array)> {
    let mut all: Vec<(String, &Array)> =
        features.pooled.iter().map(|(pooling, array)| (format!("pool {pooling}"), array)).collect();
    all.extend(features.tokens.iter().map(|array| ("tokens".to_string(), array)));
    all.extend(features.logits.iter().map(|array| ("logits".to_string(), array)));
    for map in &features.maps {
        all.push((format!("map {}", map.index), &map.map));
        all.extend(map.prefix_tokens.iter().map(|array| (format!("prefix {}", map.index), array)));
    }
    all
}

/// Every output equals the reference's within `tolerance` (relative, worst image), at sizes that no tile divides.
pub fn equals_the_reference(spec: &ModelSpec, make: Factory<'_>, tolerance: f64) {
    let step = spec.vit().map_or(1, |vit| vit.patch_px);
    let sizes = if spec.vit().is_some() { [(1, 1), (2, 3), (5, 4)] } else { [(32, 32), (70, 45), (33, 101)] };
    let cases = [(RopePeriods::F32, false, MapLayout::ChannelsFirst), (RopePeriods::Bf16, true, MapLayout::Rows)];
    for (periods, normed, layout) in cases {
        let mut reference = Reference::load(spec, &weights(spec), periods).expect("synthetic weights are sound");
        let mut encoder = make(spec, &weights(spec), periods, 2);
        for (rows, columns) in sizes {
            let (height_px, width_px) = (rows * step, columns * step);
            let pixels = images(rows as u64, 2, height_px, width_px);
            let request = everything(spec).tap_norm(normed).tap_layout(layout);
            let size = (2, height_px, width_px);
            let expected = encode(&mut reference, &pixels, size, &request);
            let found = encode(encoder.as_mut(), &pixels, size, &request);
            let (expected, found) = (arrays(&expected), arrays(&found));
            assert_eq!(expected.len(), found.len());
            for ((name, expected), (_, found)) in expected.iter().zip(&found) {
                assert_eq!(expected.shape, found.shape, "{} {name} at {height_px}x{width_px}", spec.name);
                for image in 0..2 {
                    let error = relative_error(found.item(image), expected.item(image));
                    assert!(
                        error <= tolerance,
                        "{} {name} at {height_px}x{width_px}, image {image}: {error:.2e} > {tolerance:.1e}",
                        spec.name
                    );
                }
            }
        }
    }
}

/// The same image gives the same bits alone, in any batch, at any position, with any number of threads.
pub fn is_deterministic(spec: &ModelSpec, make: Factory<'_>) {
    gives_the_same_bits(spec, make, (3, 5), &[(0, 1), (4, 1), (1, 2), (0, 5), (2, 3)]);
}

/// The same for images that are large enough for each thread to take its own.
pub fn is_deterministic_with_large_images(spec: &ModelSpec, make: Factory<'_>) {
    gives_the_same_bits(spec, make, (17, 16), &[(0, 7), (2, 4)]);
}

fn gives_the_same_bits(spec: &ModelSpec, make: Factory<'_>, (rows, columns): (usize, usize), parts: &[(usize, usize)]) {
    let step = spec.vit().map_or(20, |vit| vit.patch_px);
    let (height_px, width_px) = (rows * step, columns * step);
    let count = parts.iter().map(|(start, length)| start + length).max().unwrap_or(0);
    let pixels = images(3, count, height_px, width_px);
    let last = Request::new().poolings([Pooling::Average]).tokens();
    for request in [everything(spec), last] {
        let whole = encode(
            make(spec, &weights(spec), RopePeriods::F32, 1).as_mut(),
            &pixels,
            (count, height_px, width_px),
            &request,
        );
        for threads in [1, 2, 3] {
            let mut encoder = make(spec, &weights(spec), RopePeriods::F32, threads);
            // An encoder that was used at another size keeps nothing of it.
            let other = images(9, 3, 2 * step.max(16), 2 * step.max(16));
            encode(encoder.as_mut(), &other, (3, 2 * step.max(16), 2 * step.max(16)), &request);
            for &(start, length) in parts {
                let size = 3 * height_px * width_px;
                let part = &pixels[start * size..(start + length) * size];
                let found = encode(encoder.as_mut(), part, (length, height_px, width_px), &request);
                for ((name, whole), (_, found)) in arrays(&whole).iter().zip(arrays(&found)) {
                    for image in 0..length {
                        let (whole, found) = (whole.item(start + image), found.item(image));
                        let same = whole.iter().zip(found).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(
                            same,
                            "{} {name}: image {} differs in a batch of {length} with {threads} threads",
                            spec.name,
                            start + image
                        );
                    }
                }
            }
        }
    }
}

/// What does not fit is refused with the facts; padding equals explicit zero padding.
pub fn refuses_and_pads(spec: &ModelSpec, make: Factory<'_>) {
    let mut encoder = make(spec, &weights(spec), RopePeriods::F32, 2);
    let mut features = Features::default();
    let request = Request::new().poolings([Pooling::Average]).tokens();
    let mut refuse = |pixels: &[f32], size: (usize, usize, usize), request: &Request| {
        encoder.encode(&batch(pixels, size.0, size.1, size.2), request, &mut features).expect_err("must be refused")
    };
    assert!(matches!(refuse(&[0.0; 7], (1, 32, 32), &request), EncodeError::WrongLength { found: 7, .. }));
    let depth = spec.depth();
    let tap = refuse(&images(0, 1, 64, 64), (1, 64, 64), &Request::new().taps([depth]));
    assert!(matches!(tap, EncodeError::TapOutOfRange { .. }), "{tap}");
    match spec.vit() {
        None => {
            let error = refuse(&images(0, 1, 31, 64), (1, 31, 64), &request);
            assert!(matches!(error, EncodeError::TooSmall { minimum_px: 32, .. }), "{error}");
            let token = Request::new().poolings([Pooling::Token]);
            let error = refuse(&images(0, 1, 64, 64), (1, 64, 64), &token);
            assert!(matches!(error, EncodeError::UnsupportedPooling { .. }), "{error}");
        }
        Some(vit) => {
            let (height_px, width_px) = (2 * vit.patch_px + 3, vit.patch_px - 1);
            let pixels = images(5, 2, height_px, width_px);
            let error = refuse(&pixels, (2, height_px, width_px), &request);
            let works = format!("{}x{}", 3 * vit.patch_px, vit.patch_px);
            assert!(error.to_string().contains(&works), "{error} should name {works}");
            let padded_px = (3 * vit.patch_px, vit.patch_px);
            let mut padded = vec![0.0; 2 * 3 * padded_px.0 * padded_px.1];
            for (line, values) in pixels.chunks_exact(width_px).enumerate() {
                let (plane, y) = (line / height_px, line % height_px);
                padded[(plane * padded_px.0 + y) * padded_px.1..][..width_px].copy_from_slice(values);
            }
            let request = request.pad(true);
            let found = encode(encoder.as_mut(), &pixels, (2, height_px, width_px), &request);
            let expected = encode(encoder.as_mut(), &padded, (2, padded_px.0, padded_px.1), &request);
            assert_eq!(found, expected, "{}", spec.name);
        }
    }
}
