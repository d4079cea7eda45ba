//! Whatever is given to the public constructors and calls, they answer with a value or an error.

use dinov3::pixels::{NormalizedImage, RgbImage};
use dinov3::{
    Array, Encoder, Features, Head, HeadInput, ImageBatch, LinearHead, Opened, Options, Pooling, Request, Weights,
};

const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 1, "num_heads": 1}}"#;
const TINY_CONVNEXT: &str = r#"{"architecture": "convnext_tiny.dinov3_lvd1689m",
    "model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}}"#;

fn open(config: &str) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let weights = Weights::parse("synthetic:7").unwrap();
    dinov3::open(folder.path().to_str().unwrap(), &weights, &Options::new().threads(1)).unwrap()
}

/// SplitMix64: a case that fails can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// An extent as people and attackers write them: small, the size of a patch, or beyond any memory.
    fn extent(&mut self) -> usize {
        const FAR: [u64; 6] = [u64::MAX, u64::MAX / 2 + 1, 1 << 32, (1 << 32) - 1, 0x5555_5555_5555_5556, 1 << 62];
        (match self.next() % 8 {
            0 => FAR[(self.next() % 6) as usize],
            1 => 0,
            2 => 16 * (self.next() % 4),
            _ => self.next() % 70,
        }) as usize
    }

    /// The length that the extents need, or one that lies.
    fn length(&mut self, extents: &[usize]) -> usize {
        let needed = extents.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        match (needed.filter(|&needed| needed < 50_000), self.next() % 4) {
            (Some(needed), 0) => needed.saturating_sub(1),
            (Some(needed), 1) => needed + 1,
            (Some(needed), _) => needed,
            (None, _) => (self.next() % 100) as usize,
        }
    }

    fn float(&mut self) -> f32 {
        match self.next() % 200 {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => -f32::MAX,
            _ => (self.next() % 1000) as f32 / 500.0 - 1.0,
        }
    }
}

#[test]
fn arrays_of_any_shape_and_length_become_pixels_or_errors() {
    let random = &mut Random(1);
    for model in [open(TINY), open(TINY_CONVNEXT)] {
        for _ in 0..400 {
            let (height, width) = (random.extent(), random.extent());
            let length = random.length(&[height, width, 3]);
            let fits = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(3)) == Some(length) && length > 0;

            let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            if let (Ok(height), Ok(width)) = (u32::try_from(height), u32::try_from(width)) {
                assert_eq!(
                    RgbImage::from_raw(width, height, bytes.clone()).is_ok(),
                    fits,
                    "{height} x {width}: {length}"
                );
                assert_eq!(model.preprocess_rgb(height, width, &bytes).is_ok(), fits, "{height} x {width}: {length}");
            }
            assert!(model.preprocess_bytes(&bytes[..length.min(200)]).is_err(), "random bytes are no picture");

            let floats: Vec<f32> = (0..length).map(|_| random.float()).collect();
            let image = model.preprocess_f32(height, width, &floats);
            let finite = floats.iter().all(|value| value.is_finite());
            assert_eq!(image.is_ok(), fits && finite, "{height} x {width}: {length}");
            if let Ok(image) = image {
                assert_eq!(image.data.len(), length);
                let minimum = model.spec().minimum_side_px();
                let divides = model.spec().vit().is_none() || (height % 16 == 0 && width % 16 == 0);
                assert_eq!(model.embed(&image).is_ok(), divides && height.min(width) >= minimum, "{height} x {width}");
            }
        }
    }
}

#[test]
fn batches_that_lie_and_requests_of_any_kind_are_encoded_or_refused() {
    let random = &mut Random(2);
    for model in [open(TINY), open(TINY_CONVNEXT)] {
        let mut session = model.model.session();
        let mut features = Features::default();
        for _ in 0..400 {
            let (count, height_px, width_px) = (random.extent() % 5, random.extent(), random.extent());
            let length = random.length(&[count, 3, height_px, width_px]);
            let pixels: Vec<f32> = (0..length).map(|_| random.float()).collect();
            let mut request = Request::new()
                .poolings(
                    (0..random.next() % 4).map(|_| Pooling::ALL[(random.next() % 5) as usize]).collect::<Vec<_>>(),
                )
                .pad(random.next().is_multiple_of(2))
                .tap_norm(random.next().is_multiple_of(2))
                .tap_prefix_tokens(random.next().is_multiple_of(2));
            request.taps = (0..random.next() % 3).map(|_| random.extent() % 6).collect();
            request.tokens = random.next().is_multiple_of(2);
            request.logits = random.next().is_multiple_of(4).then_some(Pooling::Average);
            let batch = ImageBatch { pixels: &pixels, count, height_px, width_px };
            if session.encode(&batch, &request, &mut features).is_ok() {
                assert_eq!((features.count, features.pooled.len()), (count, request.poolings.len()));
                assert!(features.logits.is_none(), "there is no head");
            }
        }
    }
}

#[test]
fn images_whose_lengths_lie_do_not_make_up_for_each_other() {
    let model = open(TINY);
    let image = |values: usize| NormalizedImage { height_px: 16, width_px: 16, data: vec![0.5; values] };
    assert_eq!(model.embed_all(&[]).unwrap(), Array { shape: vec![0, 64], data: vec![] });
    assert_eq!(model.embed_all(&[image(768), image(768)]).unwrap().shape, [2, 64]);
    assert!(model.embed_all(&[image(767), image(769)]).is_err());
    let far = NormalizedImage { height_px: usize::MAX, width_px: usize::MAX, data: vec![] };
    assert!(model.embed_all(std::slice::from_ref(&far)).is_err() && model.embed(&far).is_err());
    assert!(model.feature_maps(&image(768), &[1]).is_err() && model.logits(&image(768)).is_err());
    assert!(model.feature_maps(&image(768), &[]).unwrap().is_empty());
}

#[test]
fn heads_of_any_shape_are_made_or_refused() {
    let random = &mut Random(3);
    let model = open(TINY);
    for _ in 0..2000 {
        let (classes, inputs) = (random.extent(), random.extent());
        let length = random.length(&[classes, inputs]);
        let weight: Vec<f32> = (0..length).map(|_| random.float()).collect();
        let biases = random.length(&[classes.min(100)]);
        let bias: Vec<f32> = (0..biases).map(|_| random.float()).collect();
        let Ok(head) = LinearHead::new(model.model.isa(), (classes, inputs), &weight, &bias) else { continue };
        assert_eq!((head.classes() * head.inputs(), head.classes()), (weight.len(), bias.len()));
        let values = random.length(&[inputs, 3]);
        let mut logits = Array::default();
        assert_eq!(head.logits(&vec![1.0; values], &mut logits).is_ok(), values.is_multiple_of(inputs));
        let fits = Head::new(head, model.spec(), HeadInput::Pooled(Pooling::Average)).is_ok();
        assert_eq!(fits, inputs == 64);
    }
}
