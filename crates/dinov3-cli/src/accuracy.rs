//! `dinov3 accuracy`: what a precision costs, as cosines to the same model in f32.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, bail};
use dinov3::engine::{Item, Source};
use dinov3::inputs::{Kind, expand};
use dinov3::sink::RowName;
use dinov3::{Array, Encoder, FeatureMap, Features, ImageBatch, Isa, ModelSpec, Pooling, Request, Session};
use serde_json::{Value, json};

use crate::arguments::{AccuracyArguments, ModelArguments, PixelArguments, Precision};
use crate::failure::{Outcome, usage};
use crate::setup::{Inputs, check_size, chosen_precision, chosen_recipe, model_spec, open_model, report_weights};

/// Runs the command.
pub fn run(arguments: &AccuracyArguments) -> Result<Outcome> {
    let asked = arguments.model.precision.unwrap_or_default();
    if chosen_precision(asked, Isa::try_from_env()?).0 == dinov3::Precision::F32 {
        return Err(usage("accuracy compares a precision with f32: add --precision int8 or --precision bf16"));
    }
    let spec = model_spec(&arguments.model)?;
    let images = Images::new(&spec, arguments)?;
    let opened = open_model(&spec, &arguments.model)?;
    report_weights(&opened);
    let exact = ModelArguments { precision: Some(Precision::F32), ..arguments.model.clone() };
    let exact = open_model(&spec, &exact)?;
    let precision = opened.model.options().precision.name();
    let isa = opened.model.isa().name();
    let (mut session, mut exact) = (opened.model.session(), exact.model.session());

    let poolings = [Pooling::None, Pooling::Average];
    let mut request = Request::new().poolings(poolings).pad(arguments.pixels.pad);
    if arguments.blocks {
        request = request.taps(0..spec.depth()).tap_norm(spec.vit().is_some()).tap_prefix_tokens(true);
    }
    let mut measured = Vec::new();
    let mut expected = Features::default();
    let mut found = Features::default();
    images.for_each(|name, item| {
        let batch = ImageBatch { pixels: &item.pixels, count: 1, height_px: item.height_px, width_px: item.width_px };
        let encode = |session: &mut Session, features: &mut Features| {
            session.encode(&batch, &request, features).with_context(|| name.to_string())
        };
        encode(&mut exact, &mut expected)?;
        encode(&mut session, &mut found)?;
        measured.push(Measured::new(name, &spec, &expected, &found));
        Ok(())
    })?;

    let report = Report { spec: &spec, weights: arguments.model.weights.as_deref(), precision, isa, images: &measured };
    let text = if arguments.json { serde_json::to_string_pretty(&report.json())? + "\n" } else { report.text() };
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(bound) = arguments.at_least {
        for image in &measured {
            for (what, cosine) in image.end.gated() {
                if cosine < bound || cosine.is_nan() {
                    bail!("{}: the cosine of the {what} is {cosine:.5}, below --at-least {bound}", image.name);
                }
            }
        }
    }
    Ok(Outcome::Done)
}

/// What is encoded.
enum Images {
    Files(Inputs),
    BuiltIn { height_px: usize, width_px: usize },
}

impl Images {
    fn new(spec: &ModelSpec, arguments: &AccuracyArguments) -> Result<Self> {
        let PixelArguments { size, pad, .. } = arguments.pixels;
        if arguments.inputs.is_empty() {
            let (height_px, width_px) = size.unwrap_or((spec.data.input_px.0 as u32, spec.data.input_px.1 as u32));
            check_size(spec, height_px, width_px, pad, arguments.model.max_tokens)?;
            return Ok(Self::BuiltIn { height_px: height_px as usize, width_px: width_px as usize });
        }
        let recipe = chosen_recipe(spec, &arguments.model, &arguments.pixels)?;
        let files = expand(&arguments.inputs, Kind::Pictures, &mut std::io::stdin().lock())?;
        Ok(Self::Files(Inputs::new(files, &arguments.inputs, recipe, &arguments.model, &arguments.pixels)?))
    }

    /// One image after the other, with its name. The first that cannot be had ends it: figures over what is left would
    /// be figures of something else.
    fn for_each(&self, mut each: impl FnMut(&str, &Item) -> Result<()>) -> Result<()> {
        match self {
            Self::Files(inputs) => {
                for key in inputs.keys() {
                    let name = key.row_name();
                    // A picture is never skipped.
                    if let Some(item) = inputs.load(&key).with_context(|| name.to_string())? {
                        each(&name, &item)?;
                    }
                }
            }
            &Self::BuiltIn { height_px, width_px } => {
                for (seed, name) in ["noise 1", "noise 2", "clouds 1", "clouds 2"].into_iter().enumerate() {
                    let pixels = match seed {
                        0 | 1 => noise(seed as u64, 3 * height_px * width_px),
                        _ => clouds(seed as u64, height_px, width_px),
                    };
                    each(name, &Item { height_px, width_px, pixels })?;
                }
            }
        }
        Ok(())
    }
}

/// Even noise of about the deviation of normalised pixels.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    dinov3::synthetic::fill("accuracy.weight", &[count, 1], seed, false, 0, &mut values);
    values
}

/// Noise at scales from the whole image to four pixels, each half as strong as the one above: like a photograph, most of
/// it lies in large shapes, and neighbouring patches are alike.
fn clouds(seed: u64, height_px: usize, width_px: usize) -> Vec<f32> {
    let mut pixels = vec![0.0; 3 * height_px * width_px];
    let mut cell_px = height_px.max(width_px);
    let mut strength = 0.8;
    for octave in 0.. {
        let (rows, columns) = (height_px / cell_px + 2, width_px / cell_px + 2);
        let corners = noise(seed * 64 + octave, 3 * rows * columns);
        for (channel, plane) in pixels.chunks_exact_mut(height_px * width_px).enumerate() {
            let corner = |row: usize, column: usize| corners[(channel * rows + row) * columns + column];
            for (index, pixel) in plane.iter_mut().enumerate() {
                let (y, x) = (index / width_px, index % width_px);
                let (row, column) = (y / cell_px, x / cell_px);
                let part = |position: usize| (position % cell_px) as f32 / cell_px as f32;
                let mix = |a: f32, b: f32, part: f32| a + (b - a) * part;
                let top = mix(corner(row, column), corner(row, column + 1), part(x));
                let bottom = mix(corner(row + 1, column), corner(row + 1, column + 1), part(x));
                *pixel += strength * mix(top, bottom, part(y));
            }
        }
        cell_px /= 2;
        strength /= 1.5;
        if cell_px < 4 {
            break;
        }
    }
    pixels
}

/// The cosines of one image at one place of the model.
struct Cosines {
    /// ViT only.
    class_token: Option<f64>,
    /// The mean of the patch tokens, where it was asked for.
    average: Option<f64>,
    /// The mean over the patch tokens' cosines.
    patch_tokens: f64,
    /// The lowest of all tokens, class and register tokens included.
    worst_token: f64,
}

impl Cosines {
    /// From two lists of tokens of which the first `prefix` are no patches.
    fn new(expected: &[Vec<f32>], found: &[Vec<f32>], prefix: usize) -> Self {
        let all: Vec<f64> = expected.iter().zip(found).map(|(a, b)| cosine(a, b)).collect();
        let patches = &all[prefix..];
        Self {
            class_token: (prefix > 0).then(|| all[0]),
            average: None,
            patch_tokens: patches.iter().sum::<f64>() / patches.len() as f64,
            worst_token: lowest(all.iter().copied()),
        }
    }

    /// What `--at-least` looks at.
    fn gated(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let named =
            [("class token", self.class_token), ("mean", self.average), ("patch tokens", Some(self.patch_tokens))];
        named.into_iter().filter_map(|(name, cosine)| Some((name, cosine?)))
    }

    fn json(&self) -> Value {
        json!({
            "class_token": self.class_token, "mean": self.average, "patch_tokens_mean": self.patch_tokens,
            "worst_token": self.worst_token,
        })
    }
}

/// The lowest; NaN if there is one.
fn lowest(cosines: impl Iterator<Item = f64>) -> f64 {
    cosines.fold(f64::INFINITY, |lowest, cosine| if cosine < lowest || cosine.is_nan() { cosine } else { lowest })
}

/// Between two vectors, in f64.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// [1, T, D] tokens, or a [1, C, h, w] map.
fn tokens(array: &Array) -> Vec<Vec<f32>> {
    match array.shape[..] {
        [_, _, width] => array.data.chunks_exact(width).map(<[f32]>::to_vec).collect(),
        _ => {
            let (channels, pixels) = (array.shape[1], array.shape[2] * array.shape[3]);
            (0..pixels).map(|pixel| (0..channels).map(|c| array.data[c * pixels + pixel]).collect()).collect()
        }
    }
}

/// Prefix tokens and patches of a tap.
fn tap_tokens(map: &FeatureMap) -> Vec<Vec<f32>> {
    let prefix = map.prefix_tokens.iter().flat_map(tokens);
    prefix.chain(tokens(&map.map)).collect()
}

/// One image's figures.
struct Measured {
    name: String,
    end: Cosines,
    blocks: Vec<Cosines>,
}

impl Measured {
    fn new(name: &str, spec: &ModelSpec, expected: &Features, found: &Features) -> Self {
        let prefix = spec.vit().map_or(0, |vit| vit.prefix_tokens());
        let (all, average) = (&expected.pooled[0].1, &expected.pooled[1].1);
        let mut end = Cosines::new(&tokens(all), &tokens(&found.pooled[0].1), prefix);
        end.average = Some(cosine(&average.data, &found.pooled[1].1.data));
        let blocks = expected.maps.iter().zip(&found.maps);
        let blocks = blocks.map(|(a, b)| Cosines::new(&tap_tokens(a), &tap_tokens(b), prefix)).collect();
        Self { name: name.to_string(), end, blocks }
    }
}

struct Report<'a> {
    spec: &'a ModelSpec,
    weights: Option<&'a str>,
    precision: &'a str,
    isa: &'a str,
    images: &'a [Measured],
}

impl Report<'_> {
    /// Lowest and mean over the images.
    fn over_images(&self, of: impl Fn(&Measured) -> Option<f64>) -> Option<(f64, f64)> {
        let cosines: Option<Vec<f64>> = self.images.iter().map(of).collect();
        let cosines = cosines?;
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        Some((lowest(cosines.into_iter()), mean))
    }

    fn text(&self) -> String {
        let images = self.images.len();
        let mut text = format!("{} in {} against f32, cosines over {images} images\n", self.spec.name, self.precision);
        let mut table = |title: &str, cosines: &dyn Fn(&Measured) -> &Cosines| {
            let _ = writeln!(text, "\n{title:<24}  worst image  mean of images");
            let mut row = |name: &str, cosine: fn(&Cosines) -> Option<f64>| {
                if let Some((worst, mean)) = self.over_images(|image| cosine(cosines(image))) {
                    let _ = writeln!(text, "  {name:<22}  {worst:11.5}  {mean:14.5}");
                }
            };
            row("class token", |cosines| cosines.class_token);
            row("mean of patch tokens", |cosines| cosines.average);
            row("patch tokens, mean", |cosines| Some(cosines.patch_tokens));
            row("worst token", |cosines| Some(cosines.worst_token));
        };
        table("output", &|image| &image.end);
        let place = if self.spec.vit().is_some() { "block" } else { "stage" };
        for block in 0..self.images.first().map_or(0, |image| image.blocks.len()) {
            table(&format!("after {place} {block}"), &|image| &image.blocks[block]);
        }
        text
    }

    fn json(&self) -> Value {
        let summary = |of: &dyn Fn(&Measured) -> Option<f64>| {
            self.over_images(of).map(|(worst, mean)| json!({"worst_image": worst, "mean": mean}))
        };
        json!({
            "model": self.spec.name, "weights": self.weights, "precision": self.precision, "instruction_set": self.isa,
            "class_token": summary(&|image| image.end.class_token),
            "mean": summary(&|image| image.end.average),
            "patch_tokens_mean": summary(&|image| Some(image.end.patch_tokens)),
            "worst_token": summary(&|image| Some(image.end.worst_token)),
            "images": self.images.iter().map(|image| json!({
                "name": image.name, "output": image.end.json(),
                "blocks": image.blocks.iter().map(Cosines::json).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_of_known_vectors() {
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5_f64.sqrt()).abs() < 1e-12);
        assert!(lowest([0.5, f64::NAN, 0.9].into_iter()).is_nan());
        let (expected, found) = ([vec![1.0, 0.0], vec![0.0, 2.0]], [vec![2.0, 0.0], vec![2.0, 0.0]]);
        let cosines = Cosines::new(&expected, &found, 1);
        assert_eq!((cosines.class_token, cosines.patch_tokens, cosines.worst_token), (Some(1.0), 0.0, 0.0));
    }

    #[test]
    fn clouds_are_of_the_size_of_normalised_pixels_and_smooth() {
        let pixels = clouds(3, 64, 96);
        let deviation = (pixels.iter().map(|x| x * x).sum::<f32>() / pixels.len() as f32).sqrt();
        assert!((0.3..3.0).contains(&deviation), "{deviation}");
        let step = pixels.windows(2).map(|pair| (pair[0] - pair[1]).abs()).sum::<f32>() / pixels.len() as f32;
        assert!(step < 0.5 * deviation, "{step} of {deviation}");
        assert_eq!(pixels, clouds(3, 64, 96));
    }
}
