//! The seam between the hall and the machines: whole batches in, whole features out, plain arrays.

use crate::array::Array;
use crate::spec::ModelSpec;

/// How tokens become one vector per image (timm's `global_pool`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pooling {
    /// Mean of the normed patch tokens; CLS and registers are excluded. timm's default.
    Average,
    /// The normed CLS token (ViT only).
    Token,
    /// Maximum over the normed patch tokens.
    Max,
    /// 0.5 · (maximum + mean).
    AverageMax,
    /// No pooling: all normed tokens [T, D] (ViT), or the normed map [C, h, w] (ConvNeXt).
    None,
}

impl Pooling {
    /// All poolings, in the order in which they are documented.
    pub const ALL: [Pooling; 5] = [Pooling::Average, Pooling::Token, Pooling::Max, Pooling::AverageMax, Pooling::None];

    /// timm's name of the pooling (`none` stands for timm's empty string).
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Average => "avg",
            Pooling::Token => "token",
            Pooling::Max => "max",
            Pooling::AverageMax => "avgmax",
            Pooling::None => "none",
        }
    }

    /// The pooling of that name, if there is one. Also takes timm's `fast` and the empty string.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "avg" | "fast" => Pooling::Average,
            "token" => Pooling::Token,
            "max" => Pooling::Max,
            "avgmax" => Pooling::AverageMax,
            "none" | "" => Pooling::None,
            _ => return Option::None,
        })
    }
}

impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a feature map lies in memory (`output_fmt` of timm's `forward_intermediates`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MapLayout {
    /// `NCHW`: [count, D, h, w]. timm's default.
    #[default]
    ChannelsFirst,
    /// `NLC`: one row per patch, [count, h · w, D]. timm has it for ViTs only.
    Rows,
}

impl MapLayout {
    /// Both layouts.
    pub const ALL: [MapLayout; 2] = [MapLayout::ChannelsFirst, MapLayout::Rows];

    /// timm's name of the layout.
    pub fn name(self) -> &'static str {
        match self {
            MapLayout::ChannelsFirst => "NCHW",
            MapLayout::Rows => "NLC",
        }
    }

    /// Shape of a batch of maps.
    pub fn shape(self, count: usize, d: usize, h: usize, w: usize) -> Vec<usize> {
        match self {
            MapLayout::ChannelsFirst => vec![count, d, h, w],
            MapLayout::Rows => vec![count, h * w, d],
        }
    }
}

/// Normalised images of one size.
#[derive(Clone, Copy, Debug)]
pub struct ImageBatch<'a> {
    /// [count, 3, height_px, width_px], normalised with the model's mean and standard deviation.
    pub pixels: &'a [f32],
    /// Number of images.
    pub count: usize,
    /// Height of every image.
    pub height_px: usize,
    /// Width of every image.
    pub width_px: usize,
}

/// What one forward pass shall deliver. Everything asked for comes from the same pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Poolings to compute.
    pub poolings: Vec<Pooling>,
    /// Deliver `forward_features`.
    pub tokens: bool,
    /// Blocks (ViT) or stages (ConvNeXt) whose output is wanted; ascending, without duplicates.
    pub taps: Vec<usize>,
    /// Apply the final norm to each tap (ViT; ConvNeXt maps are never normed, as in timm).
    pub tap_norm: bool,
    /// Deliver CLS and register tokens of each tap as well (ViT).
    pub tap_prefix_tokens: bool,
    /// How the map of each tap lies in memory.
    pub tap_layout: MapLayout,
    /// Deliver class scores (`forward_head`) of this pooling; the model needs `num_classes > 0`.
    pub logits: Option<Pooling>,
    /// Zero-pad images at the right and bottom to the next multiple of the patch size
    /// (timm's `dynamic_img_pad`) where they are refused otherwise.
    pub pad: bool,
}

impl Request {
    /// Asks for nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for one vector per image and pooling.
    pub fn poolings(mut self, poolings: impl IntoIterator<Item = Pooling>) -> Self {
        self.poolings = poolings.into_iter().collect();
        self
    }

    /// Asks for `forward_features`.
    pub fn tokens(mut self) -> Self {
        self.tokens = true;
        self
    }

    /// Asks for the feature maps of these blocks or stages. Sorted and deduplicated here, as timm does.
    pub fn taps(mut self, taps: impl IntoIterator<Item = usize>) -> Self {
        self.taps = taps.into_iter().collect();
        self.taps.sort_unstable();
        self.taps.dedup();
        self
    }

    /// Whether the final norm is applied to the taps.
    pub fn tap_norm(mut self, norm: bool) -> Self {
        self.tap_norm = norm;
        self
    }

    /// Whether each tap also delivers its prefix tokens.
    pub fn tap_prefix_tokens(mut self, prefix: bool) -> Self {
        self.tap_prefix_tokens = prefix;
        self
    }

    /// How the map of each tap lies in memory.
    pub fn tap_layout(mut self, layout: MapLayout) -> Self {
        self.tap_layout = layout;
        self
    }

    /// Asks for class scores of a pooling.
    pub fn logits(mut self, pooling: Pooling) -> Self {
        self.logits = Some(pooling);
        self
    }

    /// Whether sizes that the patch size does not divide are padded instead of refused.
    pub fn pad(mut self, pad: bool) -> Self {
        self.pad = pad;
        self
    }

    /// Index of the last block or stage whose output matters, given the model's number of them.
    pub fn last_needed(&self, depth: usize) -> Option<usize> {
        if self.tokens || self.logits.is_some() || !self.poolings.is_empty() {
            return depth.checked_sub(1);
        }
        self.taps.last().copied()
    }
}

/// The output of one block or stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureMap {
    /// Block (ViT) or stage (ConvNeXt) index.
    pub index: usize,
    /// [count, D, h, w], or [count, h · w, D] if rows were asked for.
    pub map: Array,
    /// [count, P, D]: CLS and registers, if asked for.
    pub prefix_tokens: Option<Array>,
}

/// What a forward pass delivered for a batch. Reused from batch to batch.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Features {
    /// Number of images.
    pub count: usize,
    /// One array per requested pooling, in request order: [count, D]
    /// (pooling `none`: [count, T, D] or [count, C, h, w]).
    pub pooled: Vec<(Pooling, Array)>,
    /// `forward_features`: [count, T, D] normed tokens (ViT), [count, C, h, w] un-normed map (ConvNeXt).
    pub tokens: Option<Array>,
    /// Requested taps, ascending.
    pub maps: Vec<FeatureMap>,
    /// [count, num_classes] (pooling `none`: [count, T, num_classes] or [count, num_classes, h, w]).
    pub logits: Option<Array>,
}

/// Why a batch could not be encoded. Every case is the caller's to mend; the model stays usable.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The patch size does not divide the image size.
    #[error(
        "image height {height_px} and width {width_px} must be divisible by {patch_px}; sizes that work: \
         {}x{} or {}x{} (height x width), or pad on request",
        (height_px / patch_px).max(1) * patch_px, (width_px / patch_px).max(1) * patch_px,
        height_px.div_ceil(*patch_px).max(1) * patch_px, width_px.div_ceil(*patch_px).max(1) * patch_px
    )]
    NotDivisible {
        /// Height of the refused image.
        height_px: usize,
        /// Width of the refused image.
        width_px: usize,
        /// Patch size of the model.
        patch_px: usize,
    },
    /// The image is smaller than the model can take.
    #[error("image height {height_px} and width {width_px} must be at least {minimum_px}")]
    TooSmall {
        /// Height of the refused image.
        height_px: usize,
        /// Width of the refused image.
        width_px: usize,
        /// Smallest side that works.
        minimum_px: usize,
    },
    /// The image has more tokens than the session accepts.
    #[error(
        "image height {height_px} and width {width_px} give {tokens} tokens, more than the limit of {limit} \
         (Options::most_tokens, --max-tokens)"
    )]
    TooLarge {
        /// Height of the refused image.
        height_px: usize,
        /// Width of the refused image.
        width_px: usize,
        /// Tokens that the image would have.
        tokens: usize,
        /// The limit in force.
        limit: usize,
    },
    /// `pixels` does not hold count · 3 · height · width values.
    #[error("the batch holds {found} values, but {count} images of 3x{height_px}x{width_px} need {expected}")]
    WrongLength {
        /// Images announced.
        count: usize,
        /// Height announced.
        height_px: usize,
        /// Width announced.
        width_px: usize,
        /// Values that these need.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// A pooling that this family does not have.
    #[error("pooling '{pooling}' does not exist for {model}: ConvNeXts have no class token")]
    UnsupportedPooling {
        /// The pooling asked for.
        pooling: Pooling,
        /// The model's name.
        model: String,
    },
    /// A tap beyond the last block or stage.
    #[error("block or stage {index} was asked for, but {model} has 0 to {}", depth - 1)]
    TapOutOfRange {
        /// The index asked for.
        index: usize,
        /// Number of blocks or stages.
        depth: usize,
        /// The model's name.
        model: String,
    },
    /// Taps that are not ascending, or that repeat; [`Request::taps`] sorts them.
    #[error("the taps {taps:?} must be ascending, each once")]
    UnsortedTaps {
        /// The taps as given.
        taps: Vec<usize>,
    },
    /// Class scores were asked of a model without a head.
    #[error("{model} has no classification head (num_classes is 0)")]
    NoHead {
        /// The model's name.
        model: String,
    },
}

/// Anything that turns batches of images into features: the reference, the CPU encoder, later a GPU.
///
/// Contract, checked by the conformance suite: the features of an image do not depend on the other images of
/// the batch, on its position in it, or on the number of threads, bit for bit.
pub trait Encoder: Send {
    /// The model that this encoder runs.
    fn spec(&self) -> &ModelSpec;

    /// Runs one batch and fills `features`, reusing its allocations.
    ///
    /// # Errors
    /// If the batch or the request does not fit the model; `features` is unspecified then.
    fn encode(&mut self, batch: &ImageBatch<'_>, request: &Request, features: &mut Features)
    -> Result<(), EncodeError>;
}

/// Image geometry after the checks that all encoders share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Height in pixels after padding.
    pub padded_height_px: usize,
    /// Width in pixels after padding.
    pub padded_width_px: usize,
    /// Rows of the patch grid (ViT) or of the last stage's map (ConvNeXt).
    pub grid_rows: usize,
    /// Columns likewise.
    pub grid_columns: usize,
}

/// Checks a batch and a request against a model. Every encoder calls this first.
///
/// # Errors
/// The first thing that does not fit.
pub fn check(spec: &ModelSpec, batch: &ImageBatch<'_>, request: &Request) -> Result<Geometry, EncodeError> {
    let (height_px, width_px) = (batch.height_px, batch.width_px);
    // One image first: a batch of none may not claim sizes beyond any memory.
    let expected = height_px
        .checked_mul(width_px)
        .and_then(|n| n.checked_mul(3))
        .and_then(|n| n.checked_mul(batch.count))
        .unwrap_or(usize::MAX);
    if expected != batch.pixels.len() {
        let (count, found) = (batch.count, batch.pixels.len());
        return Err(EncodeError::WrongLength { count, height_px, width_px, expected, found });
    }
    let model = || spec.name.clone();
    let depth = spec.depth();
    if let Some(&index) = request.taps.iter().find(|&&index| index >= depth) {
        return Err(EncodeError::TapOutOfRange { index, depth, model: model() });
    }
    if !request.taps.is_sorted_by(|a, b| a < b) {
        return Err(EncodeError::UnsortedTaps { taps: request.taps.clone() });
    }
    if request.logits.is_some() && spec.num_classes() == 0 {
        return Err(EncodeError::NoHead { model: model() });
    }
    let convnext = spec.vit().is_none();
    for &pooling in request.poolings.iter().chain(&request.logits) {
        if convnext && pooling == Pooling::Token {
            return Err(EncodeError::UnsupportedPooling { pooling, model: model() });
        }
    }
    let minimum_px = spec.minimum_side_px();
    match spec.vit() {
        Some(vit) => {
            let patch_px = vit.patch_px;
            let divisible = height_px % patch_px == 0 && width_px % patch_px == 0;
            if height_px == 0 || width_px == 0 || (!divisible && !request.pad) {
                return Err(EncodeError::NotDivisible { height_px, width_px, patch_px });
            }
            let (grid_rows, grid_columns) = (height_px.div_ceil(patch_px), width_px.div_ceil(patch_px));
            Ok(Geometry {
                padded_height_px: grid_rows * patch_px,
                padded_width_px: grid_columns * patch_px,
                grid_rows,
                grid_columns,
            })
        }
        None => {
            if height_px < minimum_px || width_px < minimum_px {
                return Err(EncodeError::TooSmall { height_px, width_px, minimum_px });
            }
            // Each strided convolution drops what is left over: 250 -> 62, 31, 15, 7.
            let floor = |side: usize| side / 4 / 2 / 2 / 2;
            Ok(Geometry {
                padded_height_px: height_px,
                padded_width_px: width_px,
                grid_rows: floor(height_px),
                grid_columns: floor(width_px),
            })
        }
    }
}
