//! `dinov3 features`: feature maps and tokens of one picture, and pictures of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dinov3::checkpoint::hash::sha256;
use dinov3::engine::ItemError;
use dinov3::npy::NpySource;
use dinov3::picture::{BasisOrigin, PcaBasis, RgbPicture, pca_picture, similarity_picture};
use dinov3::pixels::{NormalizedImage, Recipe};
use dinov3::sink::{AtomicFile, RowName, write_features_safetensors, write_npy};
use dinov3::{Array, Encoder, Features, ImageBatch, MapLayout, ModelSpec, Request};
use serde_json::{Value, json};

use crate::arguments::{FeaturesArguments, Layout};
use crate::failure::{Outcome, usage};
use crate::setup::{
    Provenance, chosen_recipe, extension, model_spec, open_model, picture_reader, place_of, refuse_overwriting,
    report_weights, weight_files,
};

/// What is written to `--output`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Safetensors,
    Npy,
    SimilarityPicture,
    Nothing,
}

/// Runs the command.
pub fn run(arguments: &FeaturesArguments) -> Result<Outcome> {
    let spec = model_spec(&arguments.model)?;
    let output = output_kind(arguments)?;
    let request = request(arguments, &spec, output)?;
    let arrays = request.taps.len() * (1 + usize::from(request.tap_prefix_tokens)) + usize::from(request.tokens);
    if output == Output::Npy && arrays != 1 {
        return Err(usage(format!("{arrays} arrays do not fit into one .npy; write .safetensors")));
    }
    if arguments.layout == Layout::Nlc && (arguments.pca.is_some() || arguments.similarity.is_some()) {
        return Err(usage("--layout nlc: pictures are painted from nchw maps"));
    }
    if request.taps.is_empty() && arguments.pca.is_some() {
        return Err(usage("--pca needs a feature map: add --blocks or --last to --all-tokens"));
    }
    let recipe = chosen_recipe(&spec, &arguments.model, &arguments.pixels)?;
    let named = [("--output", &arguments.output), ("--pca", &arguments.pca), ("--pca-basis", &arguments.pca_basis)];
    let named: Vec<(&str, &PathBuf)> =
        named.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?))).collect();
    for (index, (option, path)) in named.iter().enumerate() {
        if let Some((first, _)) = named[..index].iter().find(|(_, other)| place_of(other) == place_of(path)) {
            return Err(usage(format!("{first} and {option} name the same file")));
        }
    }
    let outputs = || named.iter().map(|(_, path)| *path);
    for path in outputs() {
        refuse_overwriting(path, std::slice::from_ref(&arguments.input))?;
        // Finds out whether it can be written, before the long part. A basis that is there is only read.
        if arguments.pca_basis.as_ref() != Some(path) || !path.exists() {
            drop(AtomicFile::create(path)?);
        }
    }
    let input = PreparedInput::open(arguments, recipe.as_ref())?;
    let (count, (height_px, width_px)) = (input.count(), input.size_px());
    if count != 1 && (arguments.pca.is_some() || output == Output::SimilarityPicture) {
        return Err(usage(format!("pictures are made of one image; this array has {count}")));
    }

    let opened = open_model(&spec, &arguments.model)?;
    outputs().try_for_each(|path| refuse_overwriting(path, weight_files(&opened)))?;
    report_weights(&opened);
    let provenance = Provenance::start(&opened, recipe.as_ref(), arguments.model.precision)
        .with_pixels(&arguments.pixels)
        .with("input", json!(arguments.input.row_name()))
        .with("taps", json!(request.taps.iter().map(|tap| format!("{}.{tap}", unit(&spec))).collect::<Vec<_>>()))
        .with("norm", json!(request.tap_norm))
        .with("layout", json!(request.tap_layout.name()))
        .with("pooling", json!([]));
    let mut session = opened.model.session();
    let mut features = Features::default();
    let mut arrays: Vec<(String, Array)> = Vec::new();
    // One image at a time: what is kept is the output alone, however long an array is.
    for index in 0..count {
        let pixels = input.pixels(index)?;
        let batch = ImageBatch { pixels: &pixels, count: 1, height_px, width_px };
        let result = session.encode(&batch, &request, &mut features);
        result.with_context(|| arguments.input.display().to_string())?;
        append(&mut arrays, named_arrays(&spec, &features));
    }

    // A basis is for the very weights: finding out which they are may take a while.
    let provenance = match arguments.output.is_some() || arguments.pca_basis.is_some() {
        true => provenance.finish(),
        false => Value::Null,
    };
    if let Some(last) = features.maps.last() {
        // What the encoder saw: the picture with its padding.
        let patch_px = spec.vit().map_or(1, |vit| vit.patch_px);
        let seen_px = (width_px.next_multiple_of(patch_px), height_px.next_multiple_of(patch_px));
        let tap = format!("{}.{}", unit(&spec), last.index);
        if let Some(path) = &arguments.pca {
            // Pictures show normed features, whatever is written beside them: the same colours mean the same.
            let mut painted = Features::default();
            let map = match spec.vit().is_none() || request.tap_norm {
                true => &last.map,
                false => {
                    let pixels = input.pixels(0)?;
                    let batch = ImageBatch { pixels: &pixels, count: 1, height_px, width_px };
                    let normed = Request::new().taps([last.index]).tap_norm(true).pad(arguments.pixels.pad);
                    session.encode(&batch, &normed, &mut painted)?;
                    painted.maps.first().map_or(&last.map, |tap| &tap.map)
                }
            };
            let origin = BasisOrigin { model: &spec.name, weights: &weights_name(&provenance["weights"]), tap: &tap };
            paint_pca(path, arguments.pca_basis.as_deref(), map, seen_px, &origin)?;
        }
        if let (Some((x, y)), Some(path)) = (arguments.similarity, &arguments.output) {
            let picture = similarity_picture(&last.map, x, y, seen_px.0, seen_px.1)?;
            write_picture(path, &picture)?;
        }
    }
    let Some(path) = &arguments.output else { return Ok(Outcome::Done) };
    match output {
        Output::Npy => {
            let (name, array) = arrays.swap_remove(0);
            let mut about = provenance;
            about["array"] = json!(name);
            write_npy(path, &array, Some(&about))?;
        }
        Output::Safetensors => {
            let metadata = BTreeMap::from([("dinov3".to_string(), provenance.to_string())]);
            write_features_safetensors(path, &arrays, &metadata)?;
        }
        Output::SimilarityPicture | Output::Nothing => {}
    }
    Ok(Outcome::Done)
}

fn output_kind(arguments: &FeaturesArguments) -> Result<Output> {
    if let Some(pca) = &arguments.pca
        && extension(pca) != "png"
    {
        return Err(usage(format!("--pca {}: the picture must be a .png", pca.display())));
    }
    let Some(path) = &arguments.output else {
        return match arguments.similarity {
            Some(_) => Err(usage("--similarity needs an output, -o OUT.png")),
            None => Ok(Output::Nothing),
        };
    };
    match (extension(path).as_str(), arguments.similarity.is_some()) {
        ("png", true) => Ok(Output::SimilarityPicture),
        (_, true) => Err(usage("--similarity paints a picture: the output must be a .png")),
        ("png", false) => Err(usage("a .png output needs --similarity X,Y; --pca OUT.png paints components")),
        ("safetensors", _) => Ok(Output::Safetensors),
        ("npy", _) => Ok(Output::Npy),
        _ => Err(usage(format!("{}: write .safetensors, or .npy for a single array", path.display()))),
    }
}

/// A picture made ready, or an array of them.
enum PreparedInput {
    Picture(NormalizedImage),
    Array(NpySource),
}

impl PreparedInput {
    fn open(arguments: &FeaturesArguments, recipe: Option<&Recipe>) -> Result<Self> {
        let input = &arguments.input;
        if input.is_dir() {
            return Err(usage(format!("{} is a folder; features takes one picture", input.display())));
        }
        let Some(recipe) = recipe else { return Ok(Self::Array(NpySource::open(input)?)) };
        if extension(input) == "npy" {
            return Err(usage(format!("{}: arrays need --preprocess none", input.display())));
        }
        let named = |error: ItemError| anyhow::anyhow!("{}: {error}", input.display());
        let typed = std::slice::from_ref(input);
        let reader = picture_reader(&arguments.pixels, arguments.model.max_tokens, typed, typed)?;
        let picture = reader.read(input).map_err(named)?;
        Ok(Self::Picture(recipe.apply(&picture).with_context(|| input.display().to_string())?))
    }

    fn count(&self) -> usize {
        match self {
            Self::Picture(_) => 1,
            Self::Array(array) => array.count(),
        }
    }

    /// Height and width.
    fn size_px(&self) -> (usize, usize) {
        match self {
            Self::Picture(picture) => (picture.height_px, picture.width_px),
            Self::Array(array) => array.size_px(),
        }
    }

    /// [1, 3, H, W] of one image.
    fn pixels(&self, index: usize) -> Result<Cow<'_, [f32]>> {
        match self {
            Self::Picture(picture) => Ok(Cow::Borrowed(&picture.data)),
            Self::Array(array) => Ok(Cow::Owned(array.pixels(index, 1)?)),
        }
    }
}

/// Paints the principal components; a basis file is used if it is there, and made if not.
fn paint_pca(
    path: &Path,
    basis_path: Option<&Path>,
    map: &Array,
    (width_px, height_px): (usize, usize),
    origin: &BasisOrigin<'_>,
) -> Result<()> {
    let known = match basis_path {
        Some(basis_path) if basis_path.exists() => {
            let bytes = std::fs::read(basis_path).with_context(|| basis_path.display().to_string())?;
            let basis = PcaBasis::from_safetensors(&bytes, origin);
            Some(basis.with_context(|| basis_path.display().to_string())?)
        }
        _ => None,
    };
    let (picture, basis) = pca_picture(map, width_px, height_px, known.as_ref())?;
    write_picture(path, &picture)?;
    if let Some(basis_path) = basis_path.filter(|_| known.is_none()) {
        write_whole(basis_path, &basis.to_safetensors(origin))?;
    }
    Ok(())
}

fn write_picture(path: &Path, picture: &RgbPicture) -> Result<()> {
    let mut png = Vec::new();
    picture.write_png(&mut png)?;
    write_whole(path, &png)
}

pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).with_context(|| path.display().to_string())?;
    Ok(file.commit()?)
}

/// One text for weights: where they are computed from, or the hash of their files' hashes.
pub(crate) fn weights_name(weights: &Value) -> String {
    match (&weights["synthetic"], &weights["files"]) {
        (Value::String(seed), _) => seed.clone(),
        (_, Value::Array(files)) => match &files[..] {
            [only] => only["sha256"].as_str().unwrap_or_default().to_string(),
            several => {
                let hashes: Vec<&str> = several.iter().filter_map(|file| file["sha256"].as_str()).collect();
                sha256(hashes.join("\n").as_bytes())
            }
        },
        _ => String::new(),
    }
}

/// What the model calls its taps.
fn unit(spec: &ModelSpec) -> &'static str {
    if spec.vit().is_some() { "blocks" } else { "stages" }
}

fn request(arguments: &FeaturesArguments, spec: &ModelSpec, output: Output) -> Result<Request> {
    let depth = spec.depth() as isize;
    let unit = unit(spec);
    // Pictures show the last map with the final norm, unless maps are written too and say otherwise.
    let pictures_only = matches!(output, Output::SimilarityPicture | Output::Nothing);
    let mut taps = Vec::new();
    for &index in &arguments.blocks {
        let from_start = if index < 0 { index + depth } else { index };
        if !(0..depth).contains(&from_start) {
            return Err(usage(format!(
                "--blocks {index}: {} has {unit} 0 to {} (-{depth} to -1)",
                spec.name,
                depth - 1
            )));
        }
        taps.push(from_start as usize);
    }
    match arguments.last {
        Some(last) if last == 0 || last > depth as usize => {
            return Err(usage(format!("--last {last}: {} has {depth} {unit}", spec.name)));
        }
        Some(last) => taps.extend(depth as usize - last..depth as usize),
        None if arguments.blocks.is_empty() && pictures_only => taps.push(depth as usize - 1),
        None if arguments.blocks.is_empty() && !arguments.all_tokens => taps = spec.default_taps(),
        None => {}
    }
    if spec.vit().is_none() && arguments.prefix_tokens {
        return Err(usage(format!("--prefix-tokens: {} has no prefix tokens", spec.name)));
    }
    let mut request = Request::new()
        .taps(taps)
        .tap_norm(arguments.norm || pictures_only)
        .tap_prefix_tokens(arguments.prefix_tokens)
        .tap_layout(match arguments.layout {
            Layout::Nchw => MapLayout::ChannelsFirst,
            Layout::Nlc => MapLayout::Rows,
        })
        .pad(arguments.pixels.pad);
    if arguments.all_tokens {
        request = request.tokens();
    }
    Ok(request)
}

/// `blocks.N`, `blocks.N.prefix_tokens` or `stages.N`, and `tokens`, of one image.
fn named_arrays<'a>(spec: &ModelSpec, features: &'a Features) -> Vec<(String, &'a Array)> {
    let unit = unit(spec);
    let mut arrays = Vec::new();
    for map in &features.maps {
        let name = format!("{unit}.{}", map.index);
        if let Some(prefix) = &map.prefix_tokens {
            arrays.push((format!("{name}.prefix_tokens"), prefix));
        }
        arrays.push((name, &map.map));
    }
    arrays.extend(features.tokens.as_ref().map(|tokens| ("tokens".to_string(), tokens)));
    arrays
}

/// Adds one image's arrays to those of the images before it.
fn append(all: &mut Vec<(String, Array)>, image: Vec<(String, &Array)>) {
    if all.is_empty() {
        all.extend(image.into_iter().map(|(name, array)| (name, array.clone())));
        return;
    }
    for ((_, all), (_, array)) in all.iter_mut().zip(image) {
        all.shape[0] += 1;
        all.data.extend_from_slice(&array.data);
    }
}
