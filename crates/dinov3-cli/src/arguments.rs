//! The command line: what can be said, and nothing else.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::TypedValueParser as _;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

/// DINOv3 image encoders: feature maps and embeddings with the numbers of timm, from one binary.
#[derive(Parser)]
#[command(name = "dinov3", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished with failed items";

#[derive(Subcommand)]
pub enum Command {
    /// One vector per picture, for files, folders, patterns or lists
    #[command(after_help = EMBED_EXAMPLES)]
    Embed(EmbedArguments),
    /// Satellite scenes of any size: embeddings of chips and patches, maps
    #[command(subcommand)]
    Scene(SceneCommand),
    /// Feature maps and tokens of one picture
    #[command(after_help = FEATURES_EXAMPLES)]
    Features(FeaturesArguments),
    /// Download the weights of models into the Hugging Face cache
    #[command(after_help = FETCH_EXAMPLES)]
    Fetch(FetchArguments),
    /// The best classes of each picture
    #[command(after_help = CLASSIFY_EXAMPLES)]
    Classify(ClassifyArguments),
    /// The models that are known
    #[command(after_help = MODELS_EXAMPLES)]
    Models(ModelsArguments),
    /// What this machine offers, or what a checkpoint holds
    #[command(after_help = INFO_EXAMPLES)]
    Info(InfoArguments),
    /// Whether weights are whole, and whether a model gives its published values
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArguments),
    /// Whether every kernel computes on this CPU what it should
    #[command(after_help = SELFTEST_EXAMPLES)]
    Selftest(SelftestArguments),
    /// Weights as the kernels take them, in a file that opens in milliseconds
    #[command(after_help = PACK_EXAMPLES)]
    Pack(PackArguments),
    /// Speed of the encoder alone
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArguments),
    /// What a precision costs: cosines to the same model in f32
    #[command(after_help = ACCURACY_EXAMPLES)]
    Accuracy(AccuracyArguments),
    /// Completions for a shell, on standard output
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Man pages, one per command, for packagers
    #[command(hide = true, after_help = MAN_EXAMPLES)]
    Man {
        /// The folder to write them to
        #[arg(short, long, value_name = "FOLDER", default_value = ".")]
        output: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum SceneCommand {
    /// One vector per chip of each scene, as GeoParquet or Zarr; with --dense one per patch, as a GeoTIFF or Zarr
    #[command(after_help = SCENE_EMBED_EXAMPLES)]
    Embed(Box<SceneEmbedArguments>),
    /// A large job in units, for several machines: the work list that `run` takes
    #[command(after_help = SCENE_PLAN_EXAMPLES)]
    Plan(Box<ScenePlanArguments>),
    /// The units of a plan, or the part of them that an array job gives to this machine
    #[command(after_help = SCENE_RUN_EXAMPLES)]
    Run(Box<SceneRunArguments>),
    /// Whether all units of a folder are there and whole, and the STAC collection of them
    #[command(after_help = SCENE_MERGE_EXAMPLES)]
    Merge(Box<SceneMergeArguments>),
    /// What a scene is: its grid, its bands, how it is stored, and how it would be cut
    #[command(after_help = SCENE_INFO_EXAMPLES)]
    Info(Box<SceneInfoArguments>),
    /// One page, without network, that shows which places of a scene look alike
    #[command(after_help = SCENE_MAP_EXAMPLES)]
    Map(Box<SceneMapArguments>),
}

const SCENE_EMBED_EXAMPLES: &str = "\
A scene is a GeoTIFF, BigTIFF or COG, on disk, at an http(s) URL, or an object of a store (s3://, gs://, az://). It is read
in windows; nothing is ever held whole. Chips are cut on the scene's own grid, or on a grid of --grid. 8-bit RGB needs no
option. The files of a scene may also be named by STAC items, which then give it its time.

Examples:
  dinov3 scene embed scene.tif -m vit_large_patch16_dinov3.sat493m -o chips.parquet
  dinov3 scene embed scenes/ -m vit_large_patch16_dinov3.sat493m --precision bf16 --stride 128 -o chips.parquet --resume
  dinov3 scene embed https://example.org/naip.tif -m vit_small_patch16_dinov3 --weights synthetic:7 -o chips.parquet
  dinov3 scene embed items.json --assets red,green,blue --scale 'range 0,3000' -m vit_large_patch16_dinov3.sat493m \
    -o chips.parquet
  dinov3 scene embed products/ --band-files '*_B04.tif,*_B03.tif,*_B02.tif' --scale 'range 1000,4000' \
    -m vit_large_patch16_dinov3.sat493m -o chips.parquet
  dinov3 scene embed s2/ --gsd 10 --grid utm --aoi forest.geojson -m vit_large_patch16_dinov3.sat493m -o chips.parquet
  dinov3 scene embed scenes/ -m vit_large_patch16_dinov3.sat493m --datetime 2026-05-17 -o embeddings/
  dinov3 scene embed b432.tif --bands 3,2,1 --scale 'range 0,3000' -m vit_large_patch16_dinov3.sat493m -o chips.parquet
  dinov3 scene embed psscene_sr.tif --preset planetscope-sr-4b -m vit_large_patch16_dinov3.sat493m -o chips.parquet
  dinov3 scene embed scene.tif --dense -m vit_large_patch16_dinov3.sat493m --precision bf16 -o patches.tif
  dinov3 scene embed scenes/ --dense -m vit_large_patch16_dinov3.sat493m --datetime 2026-05-17 -o patches/

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished with failed items";

const SCENE_PLAN_EXAMPLES: &str = "\
The options are those of 'scene embed' and travel in the plan; paths in them mean the same on every machine. A plan is a
Parquet file with a row per unit: a scene, or a range of rows of chips of a large one; with --format zarr, a shard; with
--dense, a scene.

Examples:
  dinov3 scene plan scenes/ -m vit_large_patch16_dinov3.sat493m --datetime 2026-05-17 -o plan.parquet
  dinov3 scene plan scenes/ --format zarr -m vit_large_patch16_dinov3.sat493m -o plan.parquet
  dinov3 scene plan scenes/ --dense -m vit_large_patch16_dinov3.sat493m --datetime 2026-05-17 -o plan.parquet
  dinov3 scene plan - --unit-chips 4096 -m vit_large_patch16_dinov3.sat493m -o plan.parquet < scenes.txt
  duckdb -c \"SELECT unit, chips, error FROM 'plan.parquet'\"

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some scenes cannot be used: they are rows with an error";

const SCENE_RUN_EXAMPLES: &str = "\
Without --shard, the variables of array jobs say which part is meant: SLURM_ARRAY_TASK_ID (with _COUNT, _MIN, _STEP),
AWS_BATCH_JOB_ARRAY_INDEX and _SIZE, or JOB_COMPLETION_INDEX of Kubernetes with --shards; without these, all of it. Units
that are done are skipped: what failed or was interrupted is made by the same command.

Examples:
  dinov3 scene run --plan plan.parquet --shard 0/8 -o out/
  dinov3 scene run --plan plan.parquet -o s3://bucket/embeddings --scratch /local/scratch

Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage, 3 some units failed or have failed chips or windows";

const SCENE_MERGE_EXAMPLES: &str = "\
Examples:
  dinov3 scene merge out/
  dinov3 scene merge out/ --plan plan.parquet --parquet all.parquet

Exit codes: 0 all is there, 1 failed, 2 wrong usage, 3 units are missing or damaged: they are named";

const SCENE_INFO_EXAMPLES: &str = "Examples:
  dinov3 scene info scene.tif
  dinov3 scene info https://example.org/naip.tif --chip 512 --json
  dinov3 scene info LC08_SR_stack.tif --preset landsat-c2-l2 --scale 'reflectance 0,0.4'

Exit codes: 0 done, 1 failed or cannot be used as it is, 2 wrong usage";

const SCENE_MAP_EXAMPLES: &str = "\
The page holds the scene's picture, its features as colours with a slider between them, and the vectors: click a place, and
those most like it light up. It opens from the disk, in any browser, and asks nobody for anything. Places are chips, or patches:
those of 'dinov3 scene embed --dense', or of the model that is named.

Examples:
  dinov3 scene map map.html --embeddings chips.parquet
  dinov3 scene map map.html moved/scene.tif --embeddings chips.parquet --dims 256 --max-page 60MB
  dinov3 scene map map.html --embeddings patches.tif
  dinov3 scene map map.html scene.tif -m vit_large_patch16_dinov3.sat493m --precision bf16

Exit codes: 0 done, 1 failed or cannot be used as it is, 2 wrong usage";

const EMBED_EXAMPLES: &str = "Examples:
  dinov3 embed photos/ -m vit_large_patch16_dinov3 --weights model.safetensors -o photos.parquet
  dinov3 embed *.jpg -m facebook/dinov3-vits16-pretrain-lvd1689m --weights vits16/ --pool token --normalize -o out.npy
  dinov3 embed https://example.org/a.jpg -m vit_small_patch16_dinov3 -o -
  find . -name '*.png' | dinov3 embed - -m vit_base_patch16_dinov3 --weights synthetic:7 -o - | jq -r '.path // empty'
  dinov3 embed tiles/ -m vit_7b_patch16_dinov3.sat493m --weights 7b/ --precision bf16 --preprocess native -o tiles.parquet
  dinov3 embed archive/ -m vit_large_patch16_dinov3 --weights model.safetensors -o archive.parquet --resume

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished with failed items";

const FEATURES_EXAMPLES: &str = "Examples:
  dinov3 features scene.png -m vit_small_patch16_dinov3 --weights synthetic:7 -o maps.safetensors
  dinov3 features scene.png -m vit_7b_patch16_dinov3 --weights 7b/ --precision bf16 --blocks 9,19,29,39 --norm -o maps.safetensors
  dinov3 features scene.png -m vit_small_patch16_dinov3 --weights synthetic:7 --all-tokens -o tokens.npy
  dinov3 features scene.png -m vit_small_patch16_dinov3 --weights synthetic:7 --preprocess native --pca scene-pca.png
  dinov3 features scene.png -m vit_small_patch16_dinov3 --weights synthetic:7 --similarity 120,80 -o alike.png

Exit codes: 0 done, 1 failed, 2 wrong usage";

const FETCH_EXAMPLES: &str = "\
A model is downloaded from timm's repository of it, which is open to everyone; Meta's own need an accepted licence and
HF_TOKEN, and are named in full. The cache and its variables are those of huggingface_hub: HF_HOME, HF_HUB_CACHE,
HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.

Examples:
  dinov3 fetch vit_small_patch16_dinov3 vit_large_patch16_dinov3.sat493m
  dinov3 fetch hf-hub:facebook/dinov3-vits16-pretrain-lvd1689m --revision main --json

Prints where the weights are, for --weights. Exit codes: 0 done, 1 failed, 2 wrong usage";

const CLASSIFY_EXAMPLES: &str = "Examples:
  dinov3 classify photos/ -m dinov3_vit7b16 --weights 7b/ --precision bf16 --head imagenet1k_linear_head.pth
  dinov3 classify *.jpg -m vit_base_patch16_dinov3 --weights finetuned.safetensors --labels classes.txt --json
  dinov3 classify cat.jpg -m vit_small_patch16_dinov3 --weights synthetic:7 --head probe.safetensors --head-pool token

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished with failed items";

const MODELS_EXAMPLES: &str = "Examples:
  dinov3 models
  dinov3 models --json | jq -r '.[] | select(.embed_dim <= 768) | .name'";

const COMPLETIONS_EXAMPLES: &str = "Examples:
  dinov3 completions bash > ~/.local/share/bash-completion/completions/dinov3
  dinov3 completions fish > ~/.config/fish/completions/dinov3.fish";

const MAN_EXAMPLES: &str = "Examples:
  dinov3 man -o /usr/local/share/man/man1";

const INFO_EXAMPLES: &str = "Examples:
  dinov3 info
  dinov3 info model.safetensors
  dinov3 info folder-with-shards/ -m vit_7b_patch16_dinov3.sat493m
  dinov3 info vits16.dinov3";

const ACCURACY_EXAMPLES: &str = "Examples:
  dinov3 accuracy -m vit_large_patch16_dinov3 --precision int8 photos/
  dinov3 accuracy -m vit_small_patch16_dinov3 --weights synthetic-outliers:1 --precision int8 --blocks
  dinov3 accuracy -m vit_base_patch16_dinov3 --weights model.safetensors --precision bf16 --at-least 0.999 --json

Exit codes: 0 done, 1 failed or below --at-least, 2 wrong usage";

const VERIFY_EXAMPLES: &str = "Examples:
  dinov3 verify model.safetensors
  dinov3 verify vits16.dinov3
  dinov3 verify hf-hub:timm/vit_small_patch16_dinov3.lvd1689m
  dinov3 verify 7b/ -m vit_7b_patch16_dinov3.sat493m --json
  dinov3 verify vit_small_patch16_dinov3 --golden 000000039769.jpg

Exit codes: 0 all is well, 1 something is not, or failed, 2 wrong usage";

const SELFTEST_EXAMPLES: &str = "\
An error is told as a share of the bound that follows from the arithmetic. With DINOV3_ISA only that instruction set is
run; amx-emulated is what AMX adds, on any CPU.

Examples:
  dinov3 selftest
  DINOV3_ISA=avx2 dinov3 selftest --json

Exit codes: 0 all is well, 1 a kernel is wrong, 2 wrong usage";

const PACK_EXAMPLES: &str = "\
A packed file is for one precision and one family of instruction sets, which it names: it is made where it is used. It
knows its model, so that -m FILE alone opens it; its pages are shared by processes, and a model larger than the memory is
read while it runs. Results are the same, bit for bit. The other way to have packed files is --cache, which keeps them
in the folder that 'dinov3 info' names.

Examples:
  dinov3 pack vit_small_patch16_dinov3 -o vits16.dinov3
  dinov3 pack model.safetensors --precision bf16 -o model.dinov3
  dinov3 pack -m vit_7b_patch16_dinov3.sat493m --weights 7b/ --precision int8 -o 7b.dinov3
  dinov3 embed photos/ -m vits16.dinov3 -o photos.parquet
  dinov3 verify vits16.dinov3

Exit codes: 0 done, 1 failed, 2 wrong usage";

const BENCH_EXAMPLES: &str = "Examples:
  dinov3 bench -m vit_large_patch16_dinov3 --weights synthetic:1 --precision bf16
  dinov3 bench -m vit_small_patch16_dinov3 --weights synthetic:1 --batch-size 1 --size 512x768 --runs 50 --json";

/// Model and weights.
#[derive(Args, Clone, Default)]
pub struct ModelArguments {
    /// Model name, alias (Hugging Face id, Meta's name), a config.json, or a packed file, which has its weights
    #[arg(short, long)]
    pub model: String,
    /// safetensors or .pth file, its folder or index, a packed file, hf-hub:org/name@revision, or synthetic:SEED /
    /// synthetic-outliers:SEED.
    /// By default the model's weights are downloaded from timm's repository, which is open to everyone
    #[arg(long, value_name = "W")]
    pub weights: Option<String>,
    /// Branch, tag or commit of downloaded weights
    #[arg(long, value_name = "REV")]
    pub revision: Option<String>,
    /// Operands of matrix products; everything else stays f32. By default f32, or what a packed file is in
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// RoPE periods: f32 as timm, or rounded to bf16 as in Meta's files
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    pub rope_periods: Periods,
    /// Classes of the head: its weights must be in the checkpoint
    #[arg(long, value_name = "N")]
    pub num_classes: Option<usize>,
    /// Threads of the encoder; by default all that this process may use
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Refuse images with more tokens; a token is 16 x 16 pixels, and the default 66000
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub max_tokens: Option<usize>,
    /// Keep the weights packed in the user's cache, and map them from there the next time; DINOV3_PACKED_CACHE=1 does so
    /// always
    #[arg(long)]
    pub cache: bool,
    /// Memory that may be used, 8G for instance; by default the machine's or the container's. Packed weights that fill
    /// more than 70 % of it are read while they are needed
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub max_memory: Option<u64>,
}

/// From files to pixels.
#[derive(Args)]
#[command(next_help_heading = "Pixels")]
pub struct PixelArguments {
    /// timm: resize and crop as the model's data config says; hf, meta, meta-eval: as Transformers' processor, Meta's
    /// README or Meta's evaluation; native: the picture as it is; none: the input is an .npy of normalised f32
    /// [N, 3, H, W]
    #[arg(long, value_enum, default_value_t)]
    pub preprocess: Preprocess,
    /// Input size of the recipe: N, or height x width; by default 256 or the model's own (timm), 256 (meta), 224 (hf,
    /// meta-eval)
    #[arg(long, value_name = "N|HxW", value_parser = parse_size)]
    pub size: Option<(u32, u32)>,
    /// Zero-pad at the right and bottom where the patch size does not divide the picture
    #[arg(long)]
    pub pad: bool,
    /// Mean per channel instead of the weights' own
    #[arg(long, value_name = "R,G,B", value_parser = parse_channels, allow_hyphen_values = true)]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation per channel instead of the weights' own
    #[arg(long, value_name = "R,G,B", value_parser = parse_channels)]
    pub std: Option<[f32; 3]>,
    /// Turn pictures as their EXIF orientation says (Pillow and timm do not)
    #[arg(long)]
    pub exif_orientation: bool,
    /// What to do with 16-bit grey pictures
    #[arg(long, value_enum, default_value_t)]
    pub deep_grey: DeepGrey,
    /// Refuse pictures with more pixels
    #[arg(long, value_name = "N")]
    pub max_pixels: Option<u64>,
    /// Refuse larger files
    #[arg(long, value_name = "BYTES")]
    pub max_file_bytes: Option<u64>,
    /// Refuse pictures with a longer side
    #[arg(long, value_name = "PX")]
    pub max_side: Option<u32>,
    /// Longest time for a picture from a URL
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub url_timeout: u32,
    /// Let redirects, and URLs of a list, lead to private and loopback addresses too
    #[arg(long)]
    pub allow_local_addresses: bool,
}

/// A run over many pictures.
#[derive(Args, Clone)]
pub struct BatchArguments {
    /// Pictures per forward pass; results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub batch_size: u16,
    /// Stop at the first picture that fails
    #[arg(long)]
    pub strict: bool,
}

/// Which vectors.
#[derive(Args)]
pub struct VectorArguments {
    /// Poolings, several from one pass: avg, token, max, avgmax. By default the model's own, avg
    #[arg(long, value_name = "POOL", value_delimiter = ',', value_parser = parse_pooling)]
    pub pool: Vec<dinov3::Pooling>,
    /// Scale embeddings to length one
    #[arg(long)]
    pub normalize: bool,
    /// How values are stored: half floats (Parquet, Zarr and GeoTIFF), or bytes with a scale per vector (Parquet and Zarr)
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    pub embedding_type: EmbeddingType,
}

/// See [`dinov3::sink::ElementType`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EmbeddingType {
    #[default]
    F32,
    F16,
    Int8,
}

impl From<EmbeddingType> for dinov3::sink::ElementType {
    fn from(chosen: EmbeddingType) -> Self {
        match chosen {
            EmbeddingType::F32 => Self::F32,
            EmbeddingType::F16 => Self::F16,
            EmbeddingType::Int8 => Self::Int8,
        }
    }
}

/// What to do with an interrupted run.
#[derive(Args, Clone)]
pub struct JournalArguments {
    /// Continue an interrupted run of the same command; without one, just start
    #[arg(long)]
    pub resume: bool,
    /// Start anew and forget what an interrupted run has done
    #[arg(long, conflicts_with = "resume")]
    pub fresh: bool,
}

#[derive(Args)]
pub struct EmbedArguments {
    /// Pictures, folders (searched recursively), patterns, URLs, or - for a list of paths and URLs on standard input
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten)]
    pub vectors: VectorArguments,
    /// Also write the class scores of the head, as `logits`
    #[arg(long)]
    pub logits: bool,
    #[command(flatten)]
    pub batch: BatchArguments,
    #[command(flatten)]
    pub journal: JournalArguments,
    /// Output: .parquet, .npy, .safetensors, .jsonl, or - for JSON lines on standard output
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    // Last: its heading holds for everything after it.
    #[command(flatten)]
    pub pixels: PixelArguments,
}

/// See [`dinov3_scene::Edges`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Edges {
    #[default]
    Pad,
    Drop,
    Shift,
}

#[derive(Args)]
pub struct SceneEmbedArguments {
    /// GeoTIFFs: files, folders (searched recursively; s3://BUCKET/FOLDER/ with a slash at its end), patterns, URLs, or - for
    /// a list of them on standard input. Or documents of STAC items: .json, .geojson, .parquet
    #[arg(required_unless_present = "band_files", value_name = "SCENE")]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten)]
    pub vectors: VectorArguments,
    #[command(flatten)]
    pub batch: BatchArguments,
    #[command(flatten)]
    pub journal: JournalArguments,
    /// Acquisition, for the column `datetime`: 2026-05-17 or 2026-05-17T10:30:00Z. By default what a STAC item says
    #[arg(long, value_name = "TIME", value_parser = parse_datetime)]
    pub datetime: Option<i64>,
    /// Output: .parquet for one file; .zarr for a store, chips as cells of a raster; with --dense .tif, or a .zarr store; a
    /// folder, s3://..., gs://... or az://... for a file or store and a STAC item per scene, and their collection
    #[arg(short, long, value_name = "OUT", value_parser = output_path())]
    pub output: PathBuf,
    /// What a folder gets for each scene: by default parquet, and tif with --dense
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<SceneFormat>,
    /// Folder for what is unfinished, where OUT is in an object store; by default one in the user's cache
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    #[command(flatten)]
    pub remote: RemoteArguments,
    // Last: their headings hold for everything after them.
    #[command(flatten)]
    pub scene: SceneArguments,
    #[command(flatten)]
    pub dense: DenseArguments,
}

/// A path, also as a `file://` URL.
fn output_path() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    clap::builder::PathBufValueParser::new().map(crate::scene::without_file_scheme)
}

/// How many values a cell has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dims {
    /// As many principal components.
    Components(usize),
    /// The model's own vector.
    All,
}

fn parse_dims(text: &str) -> Result<Dims, String> {
    match text {
        "all" => Ok(Dims::All),
        number => parse_positive(number).map(Dims::Components),
    }
}

/// The options under it go with --dense alone, which [`crate::scene`] sees to.
pub const DENSE_HEADING: &str = "Dense output";

/// One vector per patch instead of one per chip.
#[derive(Args)]
#[command(next_help_heading = DENSE_HEADING)]
pub struct DenseArguments {
    /// The patches of the whole scene as one seamless raster, a GeoTIFF (COG), instead of one vector per chip
    #[arg(long, conflicts_with_all = ["chip", "stride", "edges", "pool", "aoi", "grid", "grid_id"])]
    pub dense: bool,
    /// Side of a cell in pixels of the scene: 16, the patch, or 8, 4, 2, by as many shifted passes
    #[arg(long, value_name = "PX", default_value_t = 16)]
    pub dense_step: u32,
    /// Side of the windows that are encoded
    #[arg(long, value_name = "PX", default_value_t = 512)]
    pub window: u32,
    /// How far windows overlap; 0 shows their borders
    #[arg(long, value_name = "PX", default_value_t = 128)]
    pub overlap: u32,
    /// Values per cell: so many principal components of the scene, or all for the model's own vector
    #[arg(long, value_name = "N|all", default_value = "64", value_parser = parse_dims)]
    pub dims: Dims,
    /// The basis of the components: used if the file exists, else fitted and saved there, so that scenes can be compared.
    /// For a folder or a plan it must exist. By default OUT-pca.safetensors, always fitted anew
    #[arg(long, value_name = "FILE")]
    pub pca_basis: Option<PathBuf>,
    /// Picture of the first three components, a COG too. By default OUT-pca.tif
    #[arg(long, value_name = "OUT.tif")]
    pub picture: Option<PathBuf>,
    /// No picture
    #[arg(long, conflicts_with = "picture")]
    pub no_picture: bool,
}

/// What a folder of results holds for each scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SceneFormat {
    /// GeoParquet, a row per chip
    Parquet,
    /// A Zarr store. Of chips, plans and -o OUT.zarr have one store for all, a group per scene
    Zarr,
    /// A cloud optimized GeoTIFF of patches, with --dense
    Tif,
}

#[derive(Args)]
pub struct ScenePlanArguments {
    /// Chips above which a scene becomes several units, at rows of chips; each has files of its own
    #[arg(long, value_name = "N", default_value = "16384")]
    pub unit_chips: std::num::NonZero<u64>,
    #[command(flatten)]
    pub embed: SceneEmbedArguments,
}

#[derive(Args)]
pub struct SceneRunArguments {
    /// The work list of `scene plan`
    #[arg(long, value_name = "PLAN")]
    pub plan: PathBuf,
    /// Part I of N, I from 0: units are given out so that all parts have about as many chips
    #[arg(long, value_name = "I/N", value_parser = crate::scene::Shard::parse)]
    pub shard: Option<crate::scene::Shard>,
    /// How many parts there are, where the environment says only which one this is
    #[arg(long, value_name = "N")]
    pub shards: Option<std::num::NonZero<u32>>,
    /// Output: a folder, s3://..., gs://... or az://...; the same for all parts
    #[arg(short, long, value_name = "OUT", value_parser = output_path())]
    pub output: PathBuf,
    /// Folder for what is unfinished, where OUT is in an object store; by default one in the user's cache
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Make the units of this part anew, also those that are done
    #[arg(long)]
    pub fresh: bool,
    #[command(flatten)]
    pub batch: BatchArguments,
    /// Threads of the encoder; by default all that this process may use
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Keep the weights packed in the user's cache
    #[arg(long)]
    pub cache: bool,
    /// Memory that may be used, 8G for instance; by default the machine's or the container's
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub max_memory: Option<u64>,
    /// Memory for decoded blocks, 64M for instance
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_memory)]
    pub block_cache: u64,
    #[command(flatten)]
    pub remote: RemoteArguments,
}

#[derive(Args)]
pub struct SceneMergeArguments {
    /// What `scene run` has written to
    #[arg(value_name = "OUT", value_parser = output_path())]
    pub output: PathBuf,
    /// The work list; by default the copy of it in OUT
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<PathBuf>,
    /// Also write the rows of all units into one GeoParquet file
    #[arg(long, value_name = "FILE.parquet", value_parser = output_path())]
    pub parquet: Option<PathBuf>,
    /// Write that file also where units or chips are missing, without them
    #[arg(long, requires = "parquet")]
    pub partial: bool,
    /// Licence of the collection: an SPDX identifier, various, or proprietary
    #[arg(long, value_name = "SPDX", default_value = "various")]
    pub license: String,
    /// Compare sizes alone, and not checksums, for which every file is read
    #[arg(long)]
    pub sizes_only: bool,
    /// Folder for what is fetched from an object store; by default one in the user's cache
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    #[command(flatten)]
    pub remote: RemoteArguments,
}

/// From scenes to chips.
#[derive(Args, Clone)]
#[command(next_help_heading = "Scene")]
pub struct SceneArguments {
    /// Resample to this ground sample distance first; 0.6 is what the satellite weights saw
    #[arg(long, value_name = "METRES", value_parser = parse_gsd)]
    pub gsd: Option<f64>,
    /// Side of a chip in pixels: of the scene, or of --gsd
    #[arg(long, value_name = "PX", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub chip: u32,
    /// From chip to chip; by default the side of a chip. Less makes them overlap
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub stride: Option<u32>,
    /// Only chips that meet these polygons: GeoJSON or GeoParquet
    #[arg(long, value_name = "FILE")]
    pub aoi: Option<PathBuf>,
    /// Chips on the cells of a grid, so that two dates fall on the same ones: utm, major-tom or major-tom:KM
    #[arg(long, conflicts_with_all = ["stride", "grid_id"])]
    pub grid: Option<dinov3_scene::AlignedGrid>,
    /// Name the cell of each chip's middle: major-tom or major-tom:KM, h3:RES, web-mercator:ZOOM, or utm:METRES
    #[arg(long, value_name = "GRID")]
    pub grid_id: Option<dinov3_scene::geo::CellScheme>,
    /// Chips that reach beyond the scene: filled up with its mirror image, left out, or moved inwards
    #[arg(long, value_enum, default_value_t)]
    pub edges: Edges,
    /// Leave out chips with a smaller share of valid pixels: mask, no-data value and alpha band count
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = parse_share)]
    pub min_valid: f32,
    /// Files of a scene's bands, for red, green and blue: names or patterns, by themselves or in each folder SCENE and
    /// those below it. Files belong together where * stands for the same text: '*_B04.tif,*_B03.tif,*_B02.tif'. Coarser
    /// ones are resampled bilinearly
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', conflicts_with = "assets")]
    pub band_files: Vec<String>,
    /// Assets of STAC items, for red, green and blue, or one: keys, names of bands (red), or role:NAME. By default the one
    /// that is a picture, visual
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    pub assets: Vec<String>,
    /// Bands of red, green and blue, counted from 1, or one for all three; by default what the file says
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', value_parser = parse_positive)]
    pub bands: Vec<usize>,
    /// What samples mean: u8 (255 is white), 'range LOW,HIGH' (samples that are black and white), 'reflectance LOW,HIGH'
    /// (0,0.3 by default), or 'percentile P,Q' of each band over the scene, never per chip. Bytes need none
    #[arg(long, value_parser = dinov3_scene::Scale::parse)]
    pub scale: Option<dinov3_scene::Scale>,
    /// Bands, scale and no-data of a product: sentinel-2-l2a, sentinel-2-tci, landsat-c2-l2, naip, planetscope-sr-4b,
    /// planetscope-sr-8b, planetscope-visual or maxar-visual. --bands and --scale win over it
    #[arg(long, value_name = "NAME", value_parser = dinov3_scene::Preset::parse)]
    pub preset: Option<dinov3_scene::Preset>,
    /// Processing baseline of Sentinel-2, where nothing says it, as 05.09; harmonized where the offset was added already
    #[arg(long, value_name = "BASELINE", value_parser = dinov3_scene::DeclaredBaseline::parse, requires = "preset")]
    pub baseline: Option<dinov3_scene::DeclaredBaseline>,
    /// Raster whose values say which pixels are valid: a STAC asset, a file, or a name or pattern in the scene's folder
    #[arg(long, value_name = "ASSET_OR_FILE")]
    pub mask: Option<PathBuf>,
    /// Values of --mask that are invalid, as 3,8-10, or bits, as bits:1,3; of its band 2 as band2:1. Presets know their own
    #[arg(long, value_name = "VALUES", value_parser = dinov3_scene::MaskValues::parse, requires = "mask")]
    pub mask_values: Option<dinov3_scene::MaskValues>,
    /// Reference system of the scenes, whatever they say: EPSG:32633, or a PROJ string
    #[arg(long, allow_hyphen_values = true, value_parser = parse_crs)]
    pub crs: Option<dinov3_scene::geo::Crs>,
    /// Mean per channel instead of the weights' own
    #[arg(long, value_name = "R,G,B", value_parser = parse_channels, allow_hyphen_values = true)]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation per channel instead of the weights' own
    #[arg(long, value_name = "R,G,B", value_parser = parse_channels)]
    pub std: Option<[f32; 3]>,
    /// Memory for decoded blocks, 64M for instance
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_memory)]
    pub block_cache: u64,
}

/// Scenes that are elsewhere.
#[derive(Args, Clone)]
#[command(next_help_heading = "Network")]
pub struct RemoteArguments {
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub requests: u16,
    /// Longest silence of a server
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub url_timeout: u32,
    /// Let redirects lead to private and loopback addresses too
    #[arg(long)]
    pub allow_local_addresses: bool,
}

#[derive(Args)]
pub struct SceneInfoArguments {
    /// A GeoTIFF or a STAC item: a path or a URL
    #[arg(required_unless_present = "band_files")]
    pub scene: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub remote: RemoteArguments,
    // Last: its heading holds for everything after it.
    #[command(flatten)]
    pub cut: SceneArguments,
}

#[derive(Args)]
pub struct SceneMapArguments {
    /// Output: .html
    #[arg(value_name = "OUT.html")]
    pub output: PathBuf,
    /// The scene: a path or a URL. By default the one that the embeddings name; needed with -m, where they name several, or
    /// where it has moved
    pub scene: Option<PathBuf>,
    /// What 'dinov3 scene embed' made of the scene: chips (.parquet), or patches (--dense, .tif), best with --dims all
    #[arg(long, value_name = "FILE", required_unless_present = "model", conflicts_with = "model")]
    pub embeddings: Option<PathBuf>,
    /// Which vectors of a file of chips
    #[arg(long, value_name = "NAME", default_value = "embedding")]
    pub column: String,
    /// Most dimensions of a vector in the page; longer ones are reduced to their principal components, and the page says
    /// what that costs
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = parse_positive)]
    pub dims: usize,
    /// Refuse to make a larger page
    #[arg(long, value_name = "SIZE", default_value = "30MB", value_parser = parse_memory)]
    pub max_page: u64,
    /// Longer side of the scene's picture
    #[arg(long, value_name = "PX", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(16..=16384))]
    pub overview: u32,
    #[command(flatten)]
    pub model: Option<ModelArguments>,
    #[command(flatten)]
    pub batch: BatchArguments,
    #[command(flatten)]
    pub journal: JournalArguments,
    #[command(flatten)]
    pub remote: RemoteArguments,
    // Last: its heading holds for everything after it.
    #[command(flatten)]
    pub cut: SceneArguments,
}

#[derive(Args)]
pub struct FeaturesArguments {
    /// A picture or its URL, or an .npy with --preprocess none
    pub input: PathBuf,
    #[command(flatten)]
    pub model: ModelArguments,
    /// Blocks or stages, negative ones from the end; by default the last three blocks or all stages
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "N,...", conflicts_with = "last")]
    pub blocks: Vec<isize>,
    /// The last N blocks or stages
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub last: Option<usize>,
    /// Apply the final norm to each map (ViT)
    #[arg(long)]
    pub norm: bool,
    /// Also write CLS and registers of each map, as blocks.N.prefix_tokens
    #[arg(long)]
    pub prefix_tokens: bool,
    /// Layout of the maps: nchw is [1, D, h, w], nlc one row per patch, [1, h * w, D]
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub layout: Layout,
    /// Write all normed tokens, as `tokens`: timm's forward_features
    #[arg(long)]
    pub all_tokens: bool,
    /// Also paint the last map's three principal components, at the size of the prepared picture
    #[arg(long, value_name = "OUT.png")]
    pub pca: Option<PathBuf>,
    /// Basis of --pca: used if the file exists, else fitted and saved there, so that a series has the same colours
    #[arg(long, value_name = "FILE", requires = "pca")]
    pub pca_basis: Option<PathBuf>,
    /// Paint the cosine similarity of all patches to the one at this pixel of the prepared picture; OUT is a .png
    #[arg(long, value_name = "X,Y", value_parser = parse_pixel, conflicts_with_all = ["all_tokens", "prefix_tokens"])]
    pub similarity: Option<(usize, usize)>,
    /// Output: .safetensors, or .npy for a single array, or .png with --similarity
    #[arg(short, long, value_name = "OUT", required_unless_present = "pca")]
    pub output: Option<PathBuf>,
    // Last: its heading holds for everything after it.
    #[command(flatten)]
    pub pixels: PixelArguments,
}

#[derive(Args)]
pub struct FetchArguments {
    /// Model names or aliases, or repositories as hf-hub:org/name@revision
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
    /// Branch, tag or commit
    #[arg(long, value_name = "REV")]
    pub revision: Option<String>,
    /// One JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ClassifyArguments {
    /// Pictures, folders (searched recursively), patterns, URLs, or - for a list of paths and URLs on standard input
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub model: ModelArguments,
    /// Linear head in a file of its own; by default the one that the checkpoint holds
    #[arg(long, value_name = "HEAD", conflicts_with = "num_classes")]
    pub head: Option<PathBuf>,
    /// What the head is fed with: avg, token, max, avgmax, or cls+mean, the class token and the mean patch token. By
    /// default what its width says: the model's own pooling, or cls+mean for twice as many features
    #[arg(long, value_name = "POOL", value_parser = parse_head_input)]
    pub head_pool: Option<dinov3::HeadInput>,
    /// Names of the classes: a file with one per line, a JSON list or object, or imagenet. Meta's ImageNet head has its
    /// names without being asked
    #[arg(long, value_name = "FILE|imagenet")]
    pub labels: Option<PathBuf>,
    /// Classes to show
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// JSON lines instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub batch: BatchArguments,
    /// Output as JSON lines: .jsonl, or - for standard output. By default a table on standard output
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    // Last: its heading holds for everything after it.
    #[command(flatten)]
    pub pixels: PixelArguments,
}

#[derive(Args)]
pub struct ModelsArguments {
    /// One JSON array, with aliases and preprocessing
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct InfoArguments {
    /// A safetensors or .pth file, its folder or its index, hf-hub:org/name in the cache, a head, or a packed file
    pub weights: Option<PathBuf>,
    /// Check the weights against this model
    #[arg(short, long, requires = "weights")]
    pub model: Option<String>,
    /// Measure what all threads reach with multiply-adds alone: the peak that `bench` gives shares of
    #[arg(long, conflicts_with = "weights")]
    pub peak: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct VerifyArguments {
    /// A safetensors or .pth file, its folder or its index, hf-hub:org/name in the cache, a head, or a packed file; with
    /// --golden a model
    #[arg(value_name = "WEIGHTS|MODEL")]
    pub target: String,
    /// The model that the weights are of; by default the first that they fit
    #[arg(short, long, conflicts_with = "golden")]
    pub model: Option<String>,
    /// Compare what the model makes of this picture, COCO val2017 000000039769.jpg, with the published values
    #[arg(long, value_name = "IMAGE")]
    pub golden: Option<PathBuf>,
    /// The weights of the model; by default they are downloaded
    #[arg(long, value_name = "W", requires = "golden")]
    pub weights: Option<String>,
    /// Operands of matrix products, by default f32; bf16 is not expected to agree to 1e-3
    #[arg(long, value_enum, requires = "golden")]
    pub precision: Option<Precision>,
    /// RoPE periods: f32 as timm, or rounded to bf16 as in Meta's files
    #[arg(long, value_enum, default_value_t, value_name = "TYPE", requires = "golden")]
    pub rope_periods: Periods,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct SelftestArguments {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct PackArguments {
    /// Model name or alias, or the weights: a file, its folder or its index, or hf-hub:org/name
    #[arg(value_name = "MODEL|WEIGHTS", required_unless_present = "model")]
    pub target: Option<String>,
    /// The model that the weights are of; by default the first that they fit
    #[arg(short, long)]
    pub model: Option<String>,
    /// Weights of a model that is named otherwise, as for other commands
    #[arg(long, value_name = "W")]
    pub weights: Option<String>,
    /// Branch, tag or commit of downloaded weights
    #[arg(long, value_name = "REV")]
    pub revision: Option<String>,
    /// Operands of matrix products
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Classes of the head: its weights must be in the checkpoint
    #[arg(long, value_name = "N")]
    pub num_classes: Option<usize>,
    /// Threads; by default all that this process may use
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// The packed file; .dinov3 is its usual extension
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct BenchArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    /// Images per forward pass
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub batch_size: u16,
    /// Image size: N, or height x width
    #[arg(long, value_name = "N|HxW", value_parser = parse_size, default_value = "256")]
    pub size: (u32, u32),
    /// Timed passes, after one that is not timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// Also write the images, [N, 3, H, W]: `embed FILE.npy --preprocess none` gives rows with the same hash
    #[arg(long, value_name = "FILE.npy")]
    pub write_inputs: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct AccuracyArguments {
    /// Pictures, folders (searched recursively) or patterns; by default four built-in images, noise and clouds
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub model: ModelArguments,
    /// Also after each block or stage (ViT: with the final norm)
    #[arg(long)]
    pub blocks: bool,
    /// Fail unless the cosines of class token, mean and patch tokens (their mean) are at least this for every image
    #[arg(long, value_name = "COSINE")]
    pub at_least: Option<f64>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    // Last: its heading holds for everything after it.
    #[command(flatten)]
    pub pixels: PixelArguments,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// f32 throughout
    #[default]
    F32,
    /// bf16 operands, f32 sums
    Bf16,
    /// 8-bit integers in the products of blocks, bf16 elsewhere; `dinov3 accuracy` says what it costs
    Int8,
    /// bf16 where this CPU multiplies such numbers, else f32; says which
    Auto,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Periods {
    /// Computed in f32, as timm does
    #[default]
    F32,
    /// Rounded to bf16, as in Meta's files
    Bf16,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// [1, D, h, w]
    #[default]
    Nchw,
    /// [1, h * w, D]
    Nlc,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Preprocess {
    /// The model's data config
    #[default]
    Timm,
    /// Transformers' DINOv3ViTImageProcessor: bilinear in f32, squashed to 224
    Hf,
    /// Meta's README: bilinear in 8 bits, squashed to 256
    Meta,
    /// Meta's evaluation: bicubic in 8 bits, shorter side to 256, of which the middle 224
    MetaEval,
    /// No resize
    Native,
    /// Input is an .npy of normalised pixels
    None,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum DeepGrey {
    /// Refuse them: Pillow would clip silently
    #[default]
    Refuse,
    /// Keep the high byte
    HighByte,
    /// Clip to 255, as Pillow does
    Clip,
}

fn parse_pooling(text: &str) -> Result<dinov3::Pooling, String> {
    dinov3::Pooling::from_name(text).ok_or_else(|| "expected avg, token, max or avgmax".to_string())
}

fn parse_positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "expected a whole number above 0".to_string())
}

/// `8G`, `800M` or a number of bytes; powers of 1000.
fn parse_memory(text: &str) -> Result<u64, String> {
    let text = text.trim_end_matches(['B', 'b']);
    let (number, unit) = match text.char_indices().next_back() {
        Some((last, 'k' | 'K')) => (&text[..last], 1e3),
        Some((last, 'm' | 'M')) => (&text[..last], 1e6),
        Some((last, 'g' | 'G')) => (&text[..last], 1e9),
        Some((last, 't' | 'T')) => (&text[..last], 1e12),
        _ => (text, 1.0),
    };
    let bytes = number.parse::<f64>().ok().map(|number| number * unit);
    let bytes = bytes.filter(|bytes| (1.0..1e18).contains(bytes));
    bytes.map(|bytes| bytes as u64).ok_or_else(|| "expected a size as 8G, 800M or in bytes".to_string())
}

fn parse_head_input(text: &str) -> Result<dinov3::HeadInput, String> {
    dinov3::HeadInput::from_name(text).ok_or_else(|| "expected avg, token, max, avgmax or cls+mean".to_string())
}

/// `256` or `256x384`, height first.
fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let side = |text: &str| text.parse::<u32>().ok().filter(|side| (1..=65_535).contains(side));
    let size = match text.split_once(['x', 'X']) {
        Some((height, width)) => side(height).zip(side(width)),
        None => side(text).map(|side| (side, side)),
    };
    size.ok_or_else(|| "expected N or HxW in pixels, 1 to 65535".to_string())
}

/// Microseconds since 1970 of `2026-05-17` (midnight UTC) or an RFC 3339 time.
fn parse_datetime(text: &str) -> Result<i64, String> {
    dinov3_scene::stac::parse_datetime(text)
        .ok_or_else(|| "expected a time as 2026-05-17T10:30:00Z, or a date".to_string())
}

fn parse_share(text: &str) -> Result<f32, String> {
    let share = text.parse::<f32>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1".to_string())
}

/// The library's errors advise this very option.
fn parse_crs(text: &str) -> Result<dinov3_scene::geo::Crs, String> {
    use dinov3_scene::geo::GeoError;
    text.parse().map_err(|error| match error {
        GeoError::UnknownEpsg { .. } => "it is not in the built-in table: give the PROJ string, '+proj=...'".to_owned(),
        GeoError::UnsupportedCrs { reason, .. } => reason,
        other => other.to_string(),
    })
}

/// A length between a millimetre and a thousand kilometres.
fn parse_gsd(text: &str) -> Result<f64, String> {
    let gsd_m = text.parse::<f64>().ok().filter(|gsd_m| (0.001..=1e6).contains(gsd_m));
    gsd_m.ok_or_else(|| "expected metres, such as 0.6".to_string())
}

/// `120,80`, from the top left.
fn parse_pixel(text: &str) -> Result<(usize, usize), String> {
    let pixel = text.split_once(',').and_then(|(x, y)| Some((x.trim().parse().ok()?, y.trim().parse().ok()?)));
    pixel.ok_or_else(|| "expected X,Y in pixels".to_string())
}

fn parse_channels(text: &str) -> Result<[f32; 3], String> {
    let values: Result<Vec<f32>, _> = text.split(',').map(|value| value.trim().parse::<f32>()).collect();
    let values = values.ok().filter(|values| values.iter().all(|value| value.is_finite()));
    values.and_then(|values| values.try_into().ok()).ok_or_else(|| "expected three numbers, R,G,B".to_string())
}

/// Writes completions to standard output.
pub fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "dinov3", &mut text);
    std::io::Write::write_all(&mut std::io::stdout(), &text)?;
    Ok(())
}

/// Writes `dinov3.1` and one page per command.
pub fn write_man_pages(folder: &Path) -> anyhow::Result<()> {
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Arguments::command(), folder));
    written.with_context(|| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn memory_sizes_are_read() {
        for (text, bytes) in [("8G", 8_000_000_000), ("1.5GB", 1_500_000_000), ("800m", 800_000_000), ("4096", 4096)] {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "G", "0", "-1G", "nan", "1e99", "8 apples"] {
            assert!(parse_memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_channels_are_read() {
        assert_eq!(parse_size("256"), Ok((256, 256)));
        assert_eq!(parse_size("256x384"), Ok((256, 384)));
        for wrong in ["", "0", "x", "256x", "-1", "1x2x3", "70000"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_channels("0.5, 0.25,1"), Ok([0.5, 0.25, 1.0]));
        for wrong in ["", "1,2", "1,2,3,4", "a,b,c", "nan,1,1"] {
            assert!(parse_channels(wrong).is_err(), "{wrong}");
        }
    }
}
