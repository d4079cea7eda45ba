//! The ConvNeXt, channels last throughout.

use std::sync::Mutex;

use dinov3_kernels::{
    Epilogue, FeedForwardScratch, Isa, Operand, depthwise7x7_layer_norm, feed_forward, layer_norm, linear,
};
use dinov3_model::encoder::{FeatureMap, Features, Pooling};
use dinov3_model::spec::ConvNext;
use dinov3_model::weights::WeightsError;
use dinov3_system::memory_map::Values;
use dinov3_system::threads::Pool;

use crate::division::Division;
use crate::load::{Linear, Loader, Norm};
use crate::model::Run;
use crate::output::{channels_first, classify, pool_rows, wanted, write_map};
use crate::patches::{image_patches, map_blocks};

/// Packed weights.
pub(crate) struct ConvNextNet<E: Operand> {
    convnext: ConvNext,
    stem: Linear<E::Element>,
    stem_norm: Norm,
    stages: Vec<Stage<E>>,
    head_norm: Norm,
    head: Option<Linear<f32>>,
}

struct Stage<E: Operand> {
    downsample: Option<(Norm, Linear<E::Element>)>,
    blocks: Vec<Block<E>>,
}

struct Block<E> {
    /// `[49][C]`.
    depthwise: Values<f32>,
    depthwise_bias: Values<f32>,
    norm: Norm,
    fc1: Linear<E>,
    fc2: Linear<E>,
    gamma: Values<f32>,
}

impl<E: Operand> ConvNextNet<E> {
    pub fn load(convnext: &ConvNext, loader: &Loader<'_>) -> Result<Self, WeightsError> {
        let (dims, eps) = (convnext.dims, convnext.norm_eps);
        // In the order of execution, which is that of packed files.
        let stem = loader.linear("stem.0", dims[0], 48)?;
        let stem_norm = loader.norm("stem.1", dims[0], eps)?;
        let mut stages = Vec::new();
        for stage in 0..4 {
            let name = format!("stages.{stage}");
            let downsample = match stage {
                0 => None,
                _ => {
                    let norm = loader.norm(&format!("{name}.downsample.0"), dims[stage - 1], eps)?;
                    let convolution = format!("{name}.downsample.1");
                    Some((norm, loader.convolution_channels_last(&convolution, dims[stage], dims[stage - 1], 2)?))
                }
            };
            let blocks = (0..convnext.depths[stage])
                .map(|block| Block::load(&format!("{name}.blocks.{block}"), dims[stage], eps, loader))
                .collect::<Result<_, _>>()?;
            stages.push(Stage { downsample, blocks });
        }
        let classes = convnext.num_classes;
        Ok(Self {
            convnext: convnext.clone(),
            stem,
            stem_norm,
            stages,
            head_norm: loader.norm("head.norm", dims[3], eps)?,
            head: (classes > 0).then(|| loader.linear("head.fc", classes, dims[3])).transpose()?,
        })
    }
}

impl<E: Operand> Block<E> {
    fn load(name: &str, c: usize, eps: f64, loader: &Loader<'_>) -> Result<Self, WeightsError> {
        let depthwise = loader.depthwise(&format!("{name}.conv_dw.weight"), c)?;
        let depthwise_bias = loader.vector(&format!("{name}.conv_dw.bias"), c)?;
        let (norm, scale) = loader.evened_norm::<E>(&format!("{name}.norm"), c, eps)?;
        Ok(Self {
            depthwise,
            depthwise_bias,
            norm,
            fc1: loader.linear_scaled(&format!("{name}.mlp.fc1"), 4 * c, c, &scale)?,
            fc2: loader.linear(&format!("{name}.mlp.fc2"), c, 4 * c)?,
            gamma: loader.vector(&format!("{name}.gamma"), c)?,
        })
    }

    /// x + gamma · fc2(gelu(fc1(norm(depthwise(x))))), in place, for some images.
    fn run(
        &self,
        pool: &Pool,
        isa: Isa,
        map: &mut [f32],
        (h, w, c): (usize, usize, usize),
        scratch: &mut BlockScratch<E>,
    ) {
        let BlockScratch { normed, hidden } = scratch;
        let rows = map.len() / c;
        let operands = rows * E::row_length(c);
        normed.resize(normed.len().max(operands), E::default());
        let normed = &mut normed[..operands];
        let (images, norm) = (rows / (h * w), &self.norm);
        depthwise7x7_layer_norm(
            pool,
            isa,
            map,
            images,
            h,
            w,
            c,
            &self.depthwise,
            &self.depthwise_bias,
            &norm.weight,
            &norm.bias,
            norm.eps,
            normed,
        );
        let gelu = Epilogue::Gelu { bias: &self.fc1.bias };
        let residual = Epilogue::Residual { bias: Some(&self.fc2.bias), gamma: &self.gamma };
        feed_forward(pool, normed, rows, &self.fc1.matrix, gelu, &self.fc2.matrix, residual, hidden, map);
    }
}

/// Activations, kept from batch to batch. Rows are images × pixels of the stage.
#[derive(Default)]
pub(crate) struct ConvNextScratch<E: Operand> {
    /// Rows for the stem and the downsampling products.
    patches: Vec<E::Element>,
    /// The residual stream [rows, C].
    map: Vec<f32>,
    /// Stem output before its norm; normed map for output.
    output: Vec<f32>,
    /// What a downsampling product takes [rows, C].
    normed_map: Vec<E::Element>,
    /// Of each thread that takes images through a block on its own, else one.
    blocks: Vec<Mutex<BlockScratch<E>>>,
}

/// Activations between the steps of a block, of the images that go through it together.
#[derive(Default)]
struct BlockScratch<E: Operand> {
    /// What the first product takes [rows, C].
    normed: Vec<E>,
    hidden: FeedForwardScratch<E>,
}

impl<E: Operand> ConvNextNet<E> {
    /// Runs a checked batch.
    pub fn encode(&self, run: &Run<'_>, scratch: &mut ConvNextScratch<E>, features: &mut Features) {
        let (count, dims) = (run.batch.count, self.convnext.dims);
        let (mut h, mut w) = (run.batch.height_px / 4, run.batch.width_px / 4);
        let request = run.request;
        features.maps.resize_with(request.taps.len(), FeatureMap::default);
        let mut taps = request.taps.iter().copied().zip(&mut features.maps).peekable();
        let last = request.last_needed(4);

        self.embed(run, scratch, h, w);
        for (index, stage) in self.stages.iter().enumerate().take_while(|(index, _)| Some(*index) <= last) {
            let c = dims[index];
            if let Some((norm, convolution)) = &stage.downsample {
                self.downsample(norm, convolution, run, scratch, (h, w, dims[index - 1]));
                (h, w) = (h / 2, w / 2);
            }
            let ConvNextScratch { map, blocks, .. } = scratch;
            let division = Division::new(count, h * w, run.pool.threads());
            let map = &mut map[..count * h * w * c];
            division.run(run.pool, 0..stage.blocks.len(), map, h * w * c, blocks, |index, pool, scratch, map| {
                stage.blocks[index].run(pool, run.isa, map, (h, w, c), scratch);
            });
            if let Some((_, map)) = taps.next_if(|(tap, _)| *tap == index) {
                map.index = index;
                map.prefix_tokens = None;
                write_map(run.pool, &scratch.map, 0, (count, c, h, w), request.tap_layout, &mut map.map);
            }
        }
        self.outputs(run, scratch, features, (h, w));
    }

    /// pixels -> normed stem map [B, h, w, C0].
    fn embed(&self, run: &Run<'_>, scratch: &mut ConvNextScratch<E>, h: usize, w: usize) {
        let (rows, c) = (run.batch.count * h * w, self.convnext.dims[0]);
        image_patches(run.pool, run.batch, 4, h, w, &mut scratch.patches);
        scratch.output.resize(rows * c, 0.0);
        scratch.map.resize(rows * c, 0.0);
        let bias = Some(&self.stem.bias[..]);
        let store = Epilogue::Store { bias };
        linear(run.pool, &scratch.patches, rows, 48, &self.stem.matrix, store, &mut scratch.output, c);
        let norm = &self.stem_norm;
        let (from, to) = (&scratch.output, &mut scratch.map);
        layer_norm(run.pool, run.isa, from, rows, c, &norm.weight, &norm.bias, norm.eps, to);
    }

    /// Norm, then a 2×2 convolution of stride 2: [B, h, w, before] -> [B, h/2, w/2, C].
    fn downsample(
        &self,
        norm: &Norm,
        convolution: &Linear<E::Element>,
        run: &Run<'_>,
        scratch: &mut ConvNextScratch<E>,
        (h, w, before): (usize, usize, usize),
    ) {
        let (count, c) = (run.batch.count, convolution.matrix.n());
        let rows = count * h * w;
        let normed = &mut scratch.normed_map;
        normed.resize(rows * before, E::Element::default());
        layer_norm(run.pool, run.isa, &scratch.map, rows, before, &norm.weight, &norm.bias, norm.eps, normed);
        map_blocks(run.pool, normed, count, (h, w, before), &mut scratch.patches);
        let rows = count * (h / 2) * (w / 2);
        scratch.map.resize(rows * c, 0.0);
        let bias = Some(&convolution.bias[..]);
        let store = Epilogue::Store { bias };
        linear(run.pool, &scratch.patches, rows, 4 * before, &convolution.matrix, store, &mut scratch.map, c);
    }

    /// Un-normed map, poolings (pooled first, normed then), class scores.
    fn outputs(
        &self,
        run: &Run<'_>,
        scratch: &mut ConvNextScratch<E>,
        features: &mut Features,
        (h, w): (usize, usize),
    ) {
        let (count, c, request) = (run.batch.count, self.convnext.dims[3], run.request);
        features.pooled.resize_with(request.poolings.len(), || (Pooling::Average, Default::default()));
        features.tokens = features.tokens.take().filter(|_| request.tokens);
        features.logits = features.logits.take().filter(|_| request.logits.is_some());
        if request.tokens {
            let out = wanted(&mut features.tokens, &[count, c, h, w]);
            channels_first(run.pool, &scratch.map, h * w, 0, c, out);
        }
        for (slot, &pooling) in features.pooled.iter_mut().zip(&request.poolings) {
            slot.0 = pooling;
            let vectors = self.pool(pooling, run, &scratch.map, h * w);
            if pooling == Pooling::None {
                slot.1.reshape(&[count, c, h, w]);
                channels_first(run.pool, &vectors, h * w, 0, c, &mut slot.1.data);
            } else {
                slot.1.reshape(&[count, c]);
                slot.1.data.copy_from_slice(&vectors);
            }
        }
        if let (Some(pooling), Some(head)) = (request.logits, &self.head) {
            let classes = self.convnext.num_classes;
            let vectors = self.pool(pooling, run, &scratch.map, h * w);
            if pooling == Pooling::None {
                let mut scores = vec![0.0; count * h * w * classes];
                classify(run.pool, head, &vectors, &mut scores);
                let out = wanted(&mut features.logits, &[count, classes, h, w]);
                channels_first(run.pool, &scores, h * w, 0, classes, out);
            } else {
                classify(run.pool, head, &vectors, wanted(&mut features.logits, &[count, classes]));
            }
        }
    }

    /// map [B, n, C] -> normed vectors [B, C], or [B, n, C] without pooling.
    fn pool(&self, pooling: Pooling, run: &Run<'_>, map: &[f32], n: usize) -> Vec<f32> {
        let c = self.convnext.dims[3];
        let map = &map[..run.batch.count * n * c];
        let mut pooled = vec![0.0; run.batch.count * c];
        let vectors = match pooling {
            Pooling::None => map,
            _ => {
                for (image, out) in map.chunks_exact(n * c).zip(pooled.chunks_exact_mut(c)) {
                    pool_rows(pooling, image, c, out);
                }
                &pooled
            }
        };
        let norm = &self.head_norm;
        let mut normed = vec![0.0; vectors.len()];
        let rows = vectors.len() / c;
        layer_norm(run.pool, run.isa, vectors, rows, c, &norm.weight, &norm.bias, norm.eps, &mut normed);
        normed
    }
}
