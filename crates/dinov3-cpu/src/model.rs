//! The model, its options, and the session that runs it.

use std::sync::Arc;

use dinov3_kernels::{Bf16, Int8, Isa, Operand};
use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Request, check};
use dinov3_model::rope::RopePeriods;
use dinov3_model::spec::{Architecture, ModelSpec};
use dinov3_model::weights::{WeightSource, WeightsError};
use dinov3_system::threads::{Pool, available_threads};

use crate::convnext::{ConvNextNet, ConvNextScratch};
use crate::load::{Loader, Origin};
use crate::packed::Streaming;
use crate::vit::{VitNet, VitScratch};

/// The type of the operands of matrix products.
///
/// The residual stream, norms, softmax, RoPE, biases, LayerScale and tokens are f32 in every precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// bf16 operands, f32 sums.
    Bf16,
    /// Bytes in the matrix products of blocks: weights with a scale per output channel, activations with one per token,
    /// exact integer sums. The patch embedding, attention and its projection are bf16. See `docs/precision.md`.
    Int8,
}

impl Precision {
    /// All of them, the most exact first.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

    /// The precision of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }

    /// `f32`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    /// What `--precision auto` stands for on an instruction set, and why: bf16 where there are instructions for it, else
    /// f32. Never int8: its error depends on the weights, and nobody has looked at it.
    pub fn auto(isa: Isa) -> (Precision, String) {
        if isa.multiplies_bf16() {
            (Precision::Bf16, format!("{} multiplies bf16 numbers, faster than f32", isa.name()))
        } else {
            (Precision::F32, format!("{} has no instruction that multiplies bf16 numbers", isa.name()))
        }
    }
}

/// Told while weights are packed: values done, values in all.
pub type LoadProgress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Asked between two matrices while a model is packed into a file: whether to give up.
pub type Cancelled = Arc<dyn Fn() -> bool + Send + Sync>;

/// How a model is loaded and run.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Operand type.
    pub precision: Precision,
    /// RoPE periods of a ViT.
    pub rope_periods: RopePeriods,
    /// Threads; 0 for as many as the process may use.
    pub threads: usize,
    /// Images with more tokens than this are refused before memory is allocated for them.
    pub most_tokens: usize,
    /// Instruction set; the best one of this CPU by default.
    pub isa: Option<Isa>,
    /// Told while weights are packed.
    pub progress: Option<LoadProgress>,
    /// Memory that this process may take, in bytes; by default what the system says. A packed file that fills more than
    /// 70 % of it is read as it is needed, see [`Model::streaming`].
    pub memory_limit_bytes: Option<u64>,
    /// Asked while a model is packed into a file.
    pub cancelled: Option<Cancelled>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            precision: Precision::default(),
            rope_periods: RopePeriods::default(),
            threads: 0,
            // 4096 x 4096 pixels and a little: the activations of one such image already need gigabytes.
            most_tokens: 66_000,
            isa: None,
            progress: None,
            memory_limit_bytes: None,
            cancelled: None,
        }
    }
}

impl Options {
    /// f32, all threads.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the operand type.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets the RoPE periods.
    pub fn rope_periods(mut self, periods: RopePeriods) -> Self {
        self.rope_periods = periods;
        self
    }

    /// Sets the number of threads; 0 for as many as the process may use.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets the largest number of tokens of an image.
    pub fn most_tokens(mut self, tokens: usize) -> Self {
        self.most_tokens = tokens;
        self
    }

    /// Sets the instruction set.
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// Sets the memory that this process may take, in bytes.
    pub fn memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.memory_limit_bytes = Some(bytes);
        self
    }

    /// Sets the callback that may end the packing of a model into a file.
    pub fn cancelled(mut self, cancelled: Cancelled) -> Self {
        self.cancelled = Some(cancelled);
        self
    }

    /// Sets the callback that is told while weights are packed.
    pub fn progress(mut self, progress: LoadProgress) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// The packed weights of one operand type.
pub(crate) enum Net<E: Operand> {
    Vit(VitNet<E>),
    ConvNext(ConvNextNet<E>),
}

pub(crate) enum AnyNet {
    F32(Net<f32>),
    Bf16(Net<Bf16>),
    Int8(Net<Int8>),
}

struct Inner {
    spec: ModelSpec,
    options: Options,
    isa: Isa,
    net: AnyNet,
    streaming: Option<Streaming>,
}

/// A model ready to run: immutable, `Send + Sync`, cheap to clone.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

impl Model {
    /// Reads and packs every tensor, on all threads.
    ///
    /// # Errors
    /// Whatever the source answers; a non-finite weight is an error.
    pub fn load(spec: &ModelSpec, source: &dyn WeightSource, options: &Options) -> Result<Self, WeightsError> {
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let net = load(spec, Origin::Tensors(source), options, isa)?;
        Ok(Self::new(spec, options, isa, net, None))
    }

    pub(crate) fn new(
        spec: &ModelSpec,
        options: &Options,
        isa: Isa,
        net: AnyNet,
        streaming: Option<Streaming>,
    ) -> Self {
        Self(Arc::new(Inner { spec: spec.clone(), options: options.clone(), isa, net, streaming }))
    }

    /// What this model is.
    pub fn spec(&self) -> &ModelSpec {
        &self.0.spec
    }

    /// The options it was loaded with.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The instruction set that its weights are packed for.
    pub fn isa(&self) -> Isa {
        self.0.isa
    }

    /// How the weights come into memory, if they are too large to stay there. Results are the same.
    pub fn streaming(&self) -> Option<Streaming> {
        self.0.streaming
    }

    /// A session with threads and scratch memory of its own.
    pub fn session(&self) -> Session {
        Session {
            pool: Pool::new(threads(&self.0.options)),
            model: self.clone(),
            scratch_f32: Scratch::default(),
            scratch_bf16: Scratch::default(),
            scratch_int8: Scratch::default(),
        }
    }
}

/// Refuses models whose longest rows would overflow the sums of int8; no released model comes near.
fn check_integer_sums(spec: &ModelSpec) -> Result<(), WeightsError> {
    let longest = match &spec.architecture {
        Architecture::Vit(vit) => vit.embed_dim.max(vit.mlp_hidden),
        Architecture::ConvNext(convnext) => 4 * convnext.dims.into_iter().max().unwrap_or(0),
        _ => unreachable!("the model table has two families"),
    };
    if longest <= Int8::MOST_NUMBERS {
        return Ok(());
    }
    let most = Int8::MOST_NUMBERS;
    let reason = format!("rows of {longest} numbers are too long for int8, which takes up to {most}; use bf16");
    Err(WeightsError::Malformed { file: spec.name.clone(), reason })
}

fn threads(options: &Options) -> usize {
    if options.threads == 0 { available_threads() } else { options.threads }
}

/// Makes or maps all parts, on all threads.
pub(crate) fn load(spec: &ModelSpec, origin: Origin<'_>, options: &Options, isa: Isa) -> Result<AnyNet, WeightsError> {
    if options.precision == Precision::Int8 {
        check_integer_sums(spec)?;
    }
    let pool = Pool::new(threads(options));
    let loader = Loader::new(spec, origin, options, isa, &pool);
    Ok(match options.precision {
        Precision::F32 => AnyNet::F32(Net::load(spec, options, &loader)?),
        Precision::Bf16 => AnyNet::Bf16(Net::load(spec, options, &loader)?),
        Precision::Int8 => AnyNet::Int8(Net::load(spec, options, &loader)?),
    })
}

impl<E: Operand> Net<E> {
    fn load(spec: &ModelSpec, options: &Options, loader: &Loader<'_>) -> Result<Self, WeightsError> {
        Ok(match &spec.architecture {
            Architecture::Vit(vit) => Net::Vit(VitNet::load(vit, options.rope_periods, loader)?),
            Architecture::ConvNext(convnext) => Net::ConvNext(ConvNextNet::load(convnext, loader)?),
            _ => unreachable!("the model table has two families"),
        })
    }
}

#[derive(Default)]
struct Scratch<E: Operand> {
    vit: VitScratch<E>,
    convnext: ConvNextScratch<E>,
}

/// What runs: scratch memory, allocated at the first batch of a size and kept, and threads.
pub struct Session {
    model: Model,
    pool: Pool,
    scratch_f32: Scratch<f32>,
    scratch_bf16: Scratch<Bf16>,
    scratch_int8: Scratch<Int8>,
}

impl Session {
    /// The model that this session runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Encoder for Session {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn encode(
        &mut self,
        batch: &ImageBatch<'_>,
        request: &Request,
        features: &mut Features,
    ) -> Result<(), EncodeError> {
        let inner = &*self.model.0;
        let geometry = check(&inner.spec, batch, request)?;
        // A ConvNeXt's first map is its largest: count that.
        let tokens = match inner.spec.vit() {
            Some(vit) => vit.prefix_tokens() + geometry.grid_rows * geometry.grid_columns,
            None => (batch.height_px / 4) * (batch.width_px / 4),
        };
        let limit = if inner.spec.vit().is_some() { inner.options.most_tokens } else { 16 * inner.options.most_tokens };
        if tokens > limit {
            let (height_px, width_px) = (batch.height_px, batch.width_px);
            return Err(EncodeError::TooLarge { height_px, width_px, tokens, limit });
        }
        let run = Run { isa: inner.isa, pool: &self.pool, batch, request, geometry };
        match &inner.net {
            AnyNet::F32(net) => encode(net, &run, &mut self.scratch_f32, features),
            AnyNet::Bf16(net) => encode(net, &run, &mut self.scratch_bf16, features),
            AnyNet::Int8(net) => encode(net, &run, &mut self.scratch_int8, features),
        }
        Ok(())
    }
}

/// What every step of one batch needs to know.
pub(crate) struct Run<'a> {
    pub isa: Isa,
    pub pool: &'a Pool,
    pub batch: &'a ImageBatch<'a>,
    pub request: &'a Request,
    pub geometry: dinov3_model::encoder::Geometry,
}

fn encode<E: Operand>(net: &Net<E>, run: &Run<'_>, scratch: &mut Scratch<E>, features: &mut Features) {
    features.count = run.batch.count;
    match net {
        Net::Vit(net) => net.encode(run, &mut scratch.vit, features),
        Net::ConvNext(net) => net.encode(run, &mut scratch.convnext, features),
    }
}
