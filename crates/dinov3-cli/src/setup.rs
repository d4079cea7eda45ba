//! From arguments to a model, a recipe and a source: what several modes share.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use dinov3::checkpoint::hash::sha256;
use dinov3::engine::{Item, ItemError, Source};
use dinov3::image::{FileSource, PictureReader, describe, recipe, statistics};
use dinov3::npy::NpySource;
use dinov3::packed::{self, PackedFile, is_packed, open_cached, packed_path};
use dinov3::pixels::{DecodeOptions, Limits, Orientation, Recipe, Statistics};
use dinov3::sink::{RowName, Stamp, Stamped};
use dinov3::url::{UrlOptions, UrlReader, without_user};
use dinov3::{Isa, ModelSpec, Opened, Options, PendingIdentity, Pooling, Weights, WeightsIdentity, find_model};
use serde_json::{Value, json};

use crate::arguments::{DeepGrey, ModelArguments, Periods, PixelArguments, Precision, Preprocess};
use crate::batch::interruption;
use crate::failure::usage;
use crate::fetch::{download, weights_reference};
use crate::progress;

/// The model that the arguments name, without its weights.
pub fn model_spec(arguments: &ModelArguments) -> Result<ModelSpec> {
    with_classes(find_model(&arguments.model)?, arguments.num_classes)
}

/// The model with a head of so many classes, if a number is given.
pub fn with_classes(spec: ModelSpec, classes: Option<usize>) -> Result<ModelSpec> {
    Ok(match classes {
        Some(classes) if classes > dinov3::MOST_CLASSES => return Err(usage("--num-classes: at most 1048576")),
        Some(classes) => {
            let spec = spec.with_num_classes(classes);
            if spec.parameter_count() > dinov3::spec::MOST_PARAMETERS {
                return Err(usage("--num-classes: the head would be larger than any model"));
            }
            spec
        }
        None => spec,
    })
}

/// The weights that the arguments name; downloads them if they come from a hub.
pub fn weights(spec: &ModelSpec, arguments: &ModelArguments) -> Result<Weights> {
    let model = Path::new(&arguments.model);
    if arguments.weights.is_none() && is_packed(model) {
        return match arguments.revision {
            Some(_) => Err(usage("--revision is for weights that are downloaded")),
            None => Ok(Weights::Path(model.to_path_buf())),
        };
    }
    Ok(match weights_reference(spec, arguments)? {
        Some(reference) => Weights::Snapshot(download(&reference)?),
        None => Weights::parse(arguments.weights.as_deref().unwrap_or_default())?,
    })
}

/// What `--precision` comes to; and why, if that was left to the program.
pub fn chosen_precision(asked: Precision, isa: Isa) -> (dinov3::Precision, Option<String>) {
    match asked {
        Precision::F32 => (dinov3::Precision::F32, None),
        Precision::Bf16 => (dinov3::Precision::Bf16, None),
        Precision::Int8 => (dinov3::Precision::Int8, None),
        Precision::Auto => {
            let (precision, reason) = dinov3::Precision::auto(isa);
            (precision, Some(reason))
        }
    }
}

/// The same for weights that are known: a packed file is in one precision, which is taken unless another is asked for.
fn precision_for(weights: &Weights, asked: Option<Precision>, isa: Isa) -> Result<(dinov3::Precision, Option<String>)> {
    Ok(match (asked, packed_path(weights)) {
        (None | Some(Precision::Auto), Some(path)) => {
            let precision = packed::precision_of(&PackedFile::open(path)?)?;
            (precision, precision_reason(asked, precision, isa))
        }
        (asked, _) => chosen_precision(asked.unwrap_or_default(), isa),
    })
}

/// Why the program chose `precision`, if it did.
pub fn precision_reason(asked: Option<Precision>, precision: dinov3::Precision, isa: Isa) -> Option<String> {
    if asked != Some(Precision::Auto) {
        return None;
    }
    let (own, reason) = dinov3::Precision::auto(isa);
    Some(if own == precision { reason } else { "that of the packed file".into() })
}

/// Says why, and gives the precision.
pub fn told((precision, reason): (dinov3::Precision, Option<String>)) -> dinov3::Precision {
    if let Some(reason) = reason {
        eprintln!("note: precision {}: {reason}", precision.name());
    }
    precision
}

/// Opens the model with the weights that the arguments name, with progress on a terminal.
pub fn open_model(spec: &ModelSpec, arguments: &ModelArguments) -> Result<Opened> {
    open_weights(spec, &weights(spec, arguments)?, arguments)
}

/// The same with weights that were found before.
pub fn open_weights(spec: &ModelSpec, weights: &Weights, arguments: &ModelArguments) -> Result<Opened> {
    let isa = Isa::try_from_env()?;
    let precision = told(precision_for(weights, arguments.precision, isa)?);
    let mut options = Options::new()
        .precision(precision)
        .rope_periods(match arguments.rope_periods {
            Periods::F32 => dinov3::RopePeriods::F32,
            Periods::Bf16 => dinov3::RopePeriods::Bf16,
        })
        .threads(arguments.threads.map_or(0, usize::from))
        .most_tokens(most_tokens(arguments.max_tokens))
        .isa(isa);
    if let Some(bytes) = arguments.max_memory {
        options = options.memory_limit_bytes(bytes);
    }
    let is_cached = arguments.cache || cache_is_set();
    if !is_cached && packed_path(weights).is_none() {
        check_memory(spec, &options, arguments)?;
    }
    let bar = progress::loading(format!("loading {}", spec.name), &mut options);
    let opened = match is_cached {
        false => Opened::from_spec(spec, weights, &options).map_err(anyhow::Error::from),
        true => open_cached(spec, weights, &options).map_err(anyhow::Error::from).map(|cached| {
            if let (Some(path), true) = (&cached.path, cached.is_new) {
                progress::aside(bar.as_ref(), &format!("note: packed into the cache: {}", path.display()));
            }
            cached.opened
        }),
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let opened = opened?;
    if let Some(streaming) = opened.model.streaming() {
        eprintln!(
            "note: weights of {} in memory of {} (--max-memory): {} of {} blocks are read from disk in every pass; larger \
             batches need fewer passes",
            gigabytes(streaming.file_bytes),
            gigabytes(streaming.memory_bytes),
            streaming.blocks - streaming.resident_blocks,
            streaming.blocks,
        );
    }
    Ok(opened)
}

/// Whether the environment asks for the cache of packed files.
fn cache_is_set() -> bool {
    std::env::var_os("DINOV3_PACKED_CACHE").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Refuses weights that would not fit once they are packed: the process would be killed. From a packed file they run.
fn check_memory(spec: &ModelSpec, options: &Options, arguments: &ModelArguments) -> Result<()> {
    let Some(memory_bytes) = options.memory_limit_bytes.or_else(dinov3::system::memory_limit) else { return Ok(()) };
    let bytes_per_value = match options.precision {
        dinov3::Precision::F32 => 4,
        dinov3::Precision::Bf16 => 2,
        // What stays in bf16 is not counted: a tenth more, in gated networks a quarter.
        _ => 1,
    };
    let weight_bytes = spec.parameter_count() as u64 * bytes_per_value;
    if weight_bytes <= memory_bytes {
        return Ok(());
    }
    let (model, precision) = (&arguments.model, options.precision.name());
    bail!(
        "the weights of {} take {} in {precision}, and there are {} of memory: from a packed file they are read while they \
         are needed ('dinov3 pack -m {model} --precision {precision} -o FILE', then -m FILE; or --cache), or choose \
         another --precision",
        spec.name,
        gigabytes(weight_bytes),
        gigabytes(memory_bytes),
    );
}

fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// The largest number of tokens of an image.
fn most_tokens(chosen: Option<usize>) -> usize {
    chosen.unwrap_or(Options::new().most_tokens)
}

/// The poolings that were asked for, or the model's own.
pub fn chosen_poolings(spec: &ModelSpec, asked: &[Pooling]) -> Result<Vec<Pooling>> {
    if asked.is_empty() {
        return Ok(vec![spec.pooling]);
    }
    for (index, pooling) in asked.iter().enumerate() {
        if asked[..index].contains(pooling) {
            return Err(usage(format!("--pool names '{pooling}' twice")));
        }
        if spec.vit().is_none() && *pooling == Pooling::Token {
            return Err(usage(format!("--pool token: {} has no class token; avg, max and avgmax work", spec.name)));
        }
    }
    Ok(asked.to_vec())
}

/// The recipe, or none for arrays.
pub fn chosen_recipe(spec: &ModelSpec, model: &ModelArguments, arguments: &PixelArguments) -> Result<Option<Recipe>> {
    let mut chosen = match arguments.preprocess {
        Preprocess::Timm => recipe(spec),
        Preprocess::Hf => Recipe::hf(statistics(spec)),
        Preprocess::Meta => Recipe::meta(statistics(spec)),
        Preprocess::MetaEval => Recipe::meta_eval(statistics(spec)),
        Preprocess::Native => Recipe::Native { statistics: statistics(spec) },
        Preprocess::None => {
            if arguments.size.is_some() || arguments.mean.is_some() || arguments.std.is_some() {
                return Err(usage("--size, --mean and --std have no meaning with --preprocess none"));
            }
            return Ok(None);
        }
    };
    match (&chosen, arguments.size) {
        (Recipe::Native { .. }, Some(_)) => return Err(usage("--size has no meaning with --preprocess native")),
        (_, Some((height_px, width_px))) => {
            check_size(spec, height_px, width_px, arguments.pad, model.max_tokens)?;
            chosen = chosen.with_size(height_px, width_px);
        }
        _ => {}
    }
    let statistics = chosen_statistics(chosen.statistics(), arguments.mean, arguments.std)?;
    Ok(Some(chosen.with_statistics(statistics)))
}

/// The model's statistics, or those that were asked for.
pub fn chosen_statistics(
    mut statistics: Statistics,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
) -> Result<Statistics> {
    statistics.mean = mean.unwrap_or(statistics.mean);
    statistics.std = std.unwrap_or(statistics.std);
    if statistics.std.iter().any(|&std| std <= 0.0) {
        return Err(usage("--std must be above 0"));
    }
    // Pixels are 0 to 1 before. Far below f32's range and far above any use: norms square values.
    let normalised =
        statistics.mean.iter().zip(statistics.std).flat_map(|(mean, std)| [-mean / std, (1.0 - mean) / std]);
    if normalised.into_iter().any(|value| !value.is_finite() || value.abs() > 1e6) {
        return Err(usage("--mean and --std give pixels beyond 1e6"));
    }
    Ok(statistics)
}

/// A size that no picture could be encoded at is wrong usage, not a failure per picture.
pub fn check_size(spec: &ModelSpec, height_px: u32, width_px: u32, pad: bool, max_tokens: Option<usize>) -> Result<()> {
    let sides = |height_px: u32, width_px: u32| format!("{height_px}x{width_px}");
    check_sides(spec, ("--size", &sides, ", or --pad"), (height_px, width_px), pad, max_tokens)
}

/// The same for the side of a chip.
pub fn check_chip(spec: &ModelSpec, chip_px: u32, max_tokens: Option<usize>) -> Result<()> {
    let side = |chip_px: u32, _: u32| chip_px.to_string();
    check_sides(spec, ("--chip", &side, ""), (chip_px, chip_px), false, max_tokens)
}

/// The same for the side of a window.
pub fn check_window(spec: &ModelSpec, window_px: u32, max_tokens: Option<usize>) -> Result<()> {
    let side = |window_px: u32, _: u32| window_px.to_string();
    check_sides(spec, ("--window", &side, ""), (window_px, window_px), false, max_tokens)
}

/// `said` is how the option is called, how its value is written, and what helps beside another value.
fn check_sides(
    spec: &ModelSpec,
    said: (&str, &dyn Fn(u32, u32) -> String, &str),
    (height_px, width_px): (u32, u32),
    pad: bool,
    max_tokens: Option<usize>,
) -> Result<()> {
    let (option, sides, otherwise) = said;
    let size = format!("{option} {}", sides(height_px, width_px));
    let (height, width) = (height_px as usize, width_px as usize);
    // The encoder's own limit; pictures of such a size would be made only to be refused by it.
    let most = most_tokens(max_tokens);
    let Some(vit) = spec.vit() else {
        let minimum_px = spec.minimum_side_px();
        if height.min(width) < minimum_px {
            return Err(usage(format!("{size}: {} needs at least {minimum_px} pixels", spec.name)));
        }
        if (height / 4) * (width / 4) > 16 * most {
            return Err(usage(format!("{size}: at most {} pixels are encoded at once (--max-tokens)", 256 * most)));
        }
        return Ok(());
    };
    let patch_px = vit.patch_px as u32;
    if !pad && (!height_px.is_multiple_of(patch_px) || !width_px.is_multiple_of(patch_px)) {
        let up = |side: u32| side.div_ceil(patch_px) * patch_px;
        let down = |side: u32| (side / patch_px).max(1) * patch_px;
        return Err(usage(format!(
            "{size} is not divisible by {patch_px}; sizes that work: {} or {}{otherwise}",
            sides(down(height_px), down(width_px)),
            sides(up(height_px), up(width_px)),
        )));
    }
    let tokens = vit.prefix_tokens() + height.div_ceil(vit.patch_px) * width.div_ceil(vit.patch_px);
    if tokens > most {
        return Err(usage(format!("{size} gives {tokens} tokens, more than the limit of {most} (--max-tokens)")));
    }
    Ok(())
}

/// How pictures are decoded.
fn decode_options(arguments: &PixelArguments, max_tokens: Option<usize>) -> DecodeOptions {
    let mut limits = Limits::default();
    if arguments.preprocess == Preprocess::Native {
        // No larger picture could be encoded in its own size: it is refused before it is decoded. A token of a ViT
        // is 256 pixels, and a ConvNeXt is limited alike.
        limits = limits.with_max_pixels(limits.max_pixels.min(256 * most_tokens(max_tokens) as u64));
    }
    if let Some(pixels) = arguments.max_pixels {
        limits = limits.with_max_pixels(pixels);
    }
    if let Some(bytes) = arguments.max_file_bytes {
        limits = limits.with_max_file_bytes(bytes);
    }
    if let Some(side) = arguments.max_side {
        limits = limits.with_max_side_px(side);
    }
    DecodeOptions::default()
        .with_limits(limits)
        .with_orientation(if arguments.exif_orientation { Orientation::Apply } else { Orientation::Ignore })
        .with_deep_grey(match arguments.deep_grey {
            DeepGrey::Refuse => dinov3::pixels::DeepGrey::Refuse,
            DeepGrey::HighByte => dinov3::pixels::DeepGrey::HighByte,
            DeepGrey::Clip => dinov3::pixels::DeepGrey::Clip,
        })
}

/// Reads pictures from these inputs, files or URLs; `typed` is what stands on the command line.
pub fn picture_reader(
    arguments: &PixelArguments,
    max_tokens: Option<usize>,
    inputs: &[PathBuf],
    typed: &[PathBuf],
) -> Result<PictureReader> {
    let reader = PictureReader::new(decode_options(arguments, max_tokens));
    if !inputs.iter().any(|input| dinov3::inputs::is_url(input)) {
        return Ok(reader);
    }
    let mut options = UrlOptions::default();
    options.total_timeout = Duration::from_secs(arguments.url_timeout.into());
    options.allow_local_addresses = arguments.allow_local_addresses;
    options.cancel = interruption();
    options.trusted = typed.iter().filter_map(|input| input.to_str().map(str::to_string)).collect();
    Ok(reader.with_urls(UrlReader::new(options)?))
}

/// Pictures, or rows of arrays.
pub enum Inputs {
    Files(Box<FileSource>),
    Arrays(Vec<NpySource>),
}

impl Inputs {
    /// A source of these files, which `typed` on the command line meant.
    pub fn new(
        files: Vec<PathBuf>,
        typed: &[PathBuf],
        recipe: Option<Recipe>,
        model: &ModelArguments,
        arguments: &PixelArguments,
    ) -> Result<Self> {
        match recipe {
            Some(recipe) => {
                if let Some(array) = files.iter().find(|path| path.extension().is_some_and(|e| e == "npy")) {
                    return Err(usage(format!("{}: arrays need --preprocess none", array.display())));
                }
                let reader = picture_reader(arguments, model.max_tokens, &files, typed)?;
                Ok(Self::Files(Box::new(FileSource::new(files, reader, recipe))))
            }
            None => {
                if let Some(url) = files.iter().find(|input| dinov3::inputs::is_url(input)) {
                    return Err(usage(format!(
                        "{}: arrays are read from files only",
                        without_user(&url.to_string_lossy())
                    )));
                }
                let arrays: Result<Vec<NpySource>, _> = files.iter().map(|path| NpySource::open(path)).collect();
                Ok(Self::Arrays(arrays?))
            }
        }
    }
}

/// An input.
pub struct InputKey {
    /// Which of the arrays it lies in.
    array: usize,
    /// Its name: a path, or `FILE#INDEX`.
    pub path: PathBuf,
    /// The file that decides its pixels.
    file: PathBuf,
}

impl RowName for InputKey {
    fn row_name(&self) -> Cow<'_, str> {
        self.path.row_name()
    }
}

impl Stamped for InputKey {
    fn stamp(&self) -> Option<Stamp> {
        Stamp::of_file(&self.file)
    }
}

impl Source for Inputs {
    type Key = InputKey;

    fn keys(&self) -> Box<dyn Iterator<Item = Self::Key> + Send + '_> {
        match self {
            Self::Files(files) => Box::new(files.keys().map(|path| InputKey { array: 0, file: path.clone(), path })),
            Self::Arrays(arrays) => Box::new(arrays.iter().enumerate().flat_map(|(array, rows)| {
                rows.keys().map(move |path| InputKey { array, path, file: rows.path().to_owned() })
            })),
        }
    }

    fn len_hint(&self) -> Option<usize> {
        match self {
            Self::Files(files) => files.len_hint(),
            Self::Arrays(arrays) => Some(arrays.iter().map(NpySource::count).sum()),
        }
    }

    fn load(&self, key: &Self::Key) -> Result<Option<Item>, ItemError> {
        match self {
            Self::Files(files) => files.load(&key.path),
            Self::Arrays(arrays) => arrays[key.array].load(&key.path),
        }
    }
}

/// What every output says of its making; `weights` once they are hashed.
pub struct Provenance {
    fields: Value,
    weights: PendingIdentity,
}

impl Provenance {
    /// Starts hashing the weights.
    pub fn start(opened: &Opened, recipe: Option<&Recipe>, asked: Option<Precision>) -> Self {
        let model = &opened.model;
        let recipe = match recipe {
            Some(recipe) => describe(recipe),
            None => json!({"name": "none"}),
        };
        let mut fields = json!({
            "schema": 1,
            "program": "dinov3",
            "version": env!("CARGO_PKG_VERSION"),
            "model": model.spec().name,
            "license": model.spec().license,
            "precision": model.options().precision.name(),
            "rope_periods": model.options().rope_periods.name(),
            "instruction_set": model.isa().name(),
            "preprocess": recipe,
        });
        if let Some(reason) = precision_reason(asked, model.options().precision, model.isa()) {
            fields["precision_reason"] = json!(reason);
        }
        Self { fields, weights: opened.weights.start_hashing() }
    }

    /// Adds how pictures were read.
    pub fn with_pixels(self, arguments: &PixelArguments) -> Self {
        let deep_grey = match arguments.deep_grey {
            DeepGrey::Refuse => "refuse",
            DeepGrey::HighByte => "high-byte",
            DeepGrey::Clip => "clip",
        };
        self.with("pad", json!(arguments.pad))
            .with("exif_orientation", json!(arguments.exif_orientation))
            .with("deep_grey", json!(deep_grey))
    }

    /// Adds a field.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.fields[name] = value;
        self
    }

    /// What decides the values of a row, beside its image. The weights are told by name, size and time: hashing
    /// them may take longer than the run.
    pub fn fingerprint(&self, opened: &Opened) -> serde_json::Map<String, Value> {
        let mut fields = self.fields.as_object().cloned().unwrap_or_default();
        let weights = match &opened.weights {
            WeightsIdentity::Files { paths, .. } => {
                let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
                paths.iter().map(|path| json!([name(path), Stamp::of_file(path)])).collect()
            }
            WeightsIdentity::Packed { digest, .. } => json!(digest),
            other => json!(format!("{other:?}")),
        };
        fields.insert("weights".to_owned(), weights);
        fields.insert("model_definition".to_owned(), json!(model_definition(opened.model.spec())));
        fields
    }

    /// Waits for the hashes.
    pub fn finish(mut self) -> Value {
        self.fields["weights"] = self.weights.wait();
        self.fields
    }
}

/// What tells a model's definition: a config.json may say something else tomorrow under the same name.
pub fn model_definition(spec: &ModelSpec) -> String {
    sha256(format!("{spec:?}").as_bytes())
}

/// What was found beside the tensors of the model, for people.
pub fn report_weights(opened: &Opened) {
    if let dinov3::WeightsIdentity::Files { report, .. } = &opened.weights
        && !report.dropped_zero_biases.is_empty()
    {
        eprintln!(
            "note: {} all-zero q/v biases dropped: {} has none",
            report.dropped_zero_biases.len(),
            opened.model.spec().name
        );
    }
}

/// Refuses an output that is one of the inputs.
pub fn refuse_overwriting_inputs(output: &Path, files: &[PathBuf]) -> Result<()> {
    // The extensions first: a folder of a million pictures needs no million questions to the disk. Where the output is a
    // link, it is the file behind it that would be replaced.
    let behind = output.canonicalize().ok();
    let extensions = [output.extension(), behind.as_deref().and_then(Path::extension)];
    refuse(output, files.iter().filter(|file| extensions.contains(&file.extension())))
}

/// Refuses an output that is one of the files that are read: weights, a head, labels. Links lead to files of any name.
pub fn refuse_overwriting(output: &Path, files: &[PathBuf]) -> Result<()> {
    refuse(output, files.iter())
}

fn refuse<'a>(output: &Path, mut files: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    let Ok(target) = output.canonicalize() else { return Ok(()) };
    match files.find(|file| file.canonicalize().is_ok_and(|file| file == target)) {
        Some(file) => Err(usage(format!("{} is read by this command; give another output", file.display()))),
        None => Ok(()),
    }
}

/// Where a file that is to be written will lie, however its folder is spelled.
pub fn place_of(output: &Path) -> PathBuf {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), output.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => output.to_path_buf(),
    }
}

/// The files that the weights came from.
pub fn weight_files(opened: &Opened) -> &[PathBuf] {
    match &opened.weights {
        WeightsIdentity::Files { paths, .. } => paths,
        WeightsIdentity::Packed { path, .. } => std::slice::from_ref(path),
        _ => &[],
    }
}

/// The extension in lower case.
pub fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}
