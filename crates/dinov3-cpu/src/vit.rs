//! The vision transformer. `encode` reads from top to bottom like the definition in `dinov3_model::reference`.

use std::ops::Range;
use std::sync::Mutex;

use dinov3_kernels::{
    AttentionScratch, AttentionShape, Element, Epilogue, FeedForwardScratch, Isa, Operand, PackedMatrix, Rotary,
    attention, feed_forward, layer_norm, linear, rotate_heads,
};
use dinov3_model::encoder::{FeatureMap, Features, Pooling};
use dinov3_model::rope::{self, RopePeriods};
use dinov3_model::spec::{Mlp, Vit};
use dinov3_model::weights::WeightsError;
use dinov3_system::RangeStream;
use dinov3_system::memory_map::Values;
use dinov3_system::threads::Pool;

use crate::division::Division;
use crate::load::{Linear, Loader, Norm, gated_width, is_quantized};
use crate::model::Run;
use crate::output::{classify, pool_rows, wanted, write_map};
use crate::patches::image_patches;

/// Packed weights.
pub(crate) struct VitNet<E: Operand> {
    vit: Vit,
    periods: RopePeriods,
    /// CLS, then registers: [P, D].
    prefix: Values<f32>,
    patch_embed: Linear<E::Element>,
    /// See [`first_blocks`].
    first_blocks: Vec<Block<E::Element>>,
    /// The blocks after these.
    blocks: Vec<Block<E>>,
    norm: Norm,
    head: Option<Linear<f32>>,
    /// Told which block comes, if the blocks are too large to stay in memory.
    stream: Option<RangeStream>,
}

struct Block<E: Operand> {
    norm1: Norm,
    qkv: PackedMatrix<E>,
    /// [3 D]: q, zero, v; none for models without these biases.
    qkv_bias: Option<Values<f32>>,
    /// A twelfth of the work, and the step whose rounding shows most: never in bytes.
    proj: Linear<E::Element>,
    gamma_1: Values<f32>,
    norm2: Norm,
    fc1: Linear<E>,
    fc2: Linear<E>,
    gamma_2: Values<f32>,
}

/// Blocks at the start that stay in elements where the rest is int8: a sixth of a gated network.
///
/// What an early block is off by grows in all that follow, and most where the hidden numbers are products: two thirds of
/// the H+ model's error in int8 came from this sixth (`docs/precision.md`).
fn first_blocks<E: Operand>(vit: &Vit) -> usize {
    match vit.mlp {
        Mlp::SwiGlu if is_quantized::<E>() => vit.depth.div_ceil(6),
        _ => 0,
    }
}

impl<E: Operand> VitNet<E> {
    pub fn load(vit: &Vit, periods: RopePeriods, loader: &Loader<'_>) -> Result<Self, WeightsError> {
        let d = vit.embed_dim;
        let prefix = loader.values("prefix_tokens", vit.prefix_tokens() * d, |source| {
            let mut prefix = loader.read(source, "cls_token", d)?;
            if vit.registers > 0 {
                prefix.extend(loader.read(source, "reg_token", vit.registers * d)?);
            }
            Ok(prefix)
        })?;
        let patch_embed = loader.linear("patch_embed.proj", d, 3 * vit.patch_px * vit.patch_px)?;
        let first = first_blocks::<E>(vit);
        let first_blocks = (0..first).map(|index| Block::load(vit, index, loader)).collect::<Result<_, _>>()?;
        let blocks = (first..vit.depth).map(|index| Block::load(vit, index, loader)).collect::<Result<_, _>>()?;
        let norm = loader.norm("norm", d, vit.norm_eps)?;
        let head = (vit.num_classes > 0).then(|| loader.linear("head", vit.num_classes, d)).transpose()?;
        Ok(Self { vit: vit.clone(), periods, prefix, patch_embed, first_blocks, blocks, norm, head, stream: None })
    }

    /// Reads the blocks from a packed file as they are needed.
    pub fn stream_blocks(&mut self, stream: RangeStream) {
        self.stream = Some(stream);
    }
}

impl<E: Operand> Block<E> {
    fn load(vit: &Vit, index: usize, loader: &Loader<'_>) -> Result<Self, WeightsError> {
        let (d, m) = (vit.embed_dim, vit.mlp_hidden);
        let name = |part: &str| format!("blocks.{index}.{part}");
        // In the order of execution, which is that of packed files.
        let (norm1, attention_scale) = loader.evened_norm::<E>(&name("norm1"), d, vit.norm_eps)?;
        let qkv = loader.matrix_scaled(&name("attn.qkv.weight"), 3 * d, d, &attention_scale)?;
        let qkv_bias = || {
            loader.values(&name("attn.qkv.bias"), 3 * d, |source| {
                let mut bias = loader.read(source, &name("attn.q_bias"), d)?;
                bias.resize(2 * d, 0.0);
                bias.extend(loader.read(source, &name("attn.v_bias"), d)?);
                Ok(bias)
            })
        };
        let qkv_bias = vit.qv_bias.then(qkv_bias).transpose()?;
        let proj = loader.linear(&name("attn.proj"), d, d)?;
        let gamma_1 = loader.vector(&name("gamma_1"), d)?;
        let (norm2, mlp_scale) = loader.evened_norm::<E>(&name("norm2"), d, vit.norm_eps)?;
        let (fc1, fc2) = match vit.mlp {
            Mlp::Gelu => {
                (loader.linear_scaled(&name("mlp.fc1"), m, d, &mlp_scale)?, loader.linear(&name("mlp.fc2"), d, m)?)
            }
            Mlp::SwiGlu => {
                let (gate, value) = (name("mlp.fc1_g"), name("mlp.fc1_x"));
                let hidden_scale = loader.hidden_scale::<E>(&gate, &value, m, d, &norm2, &mlp_scale)?;
                let fc1 = loader.gated(&name("mlp.fc1"), &gate, &value, m, d, &mlp_scale, &hidden_scale)?;
                let fc2 = &name("mlp.fc2.weight");
                let matrix = loader.matrix_padded(fc2, d, m, gated_width(m), &hidden_scale)?;
                (fc1, Linear { matrix, bias: loader.vector(&name("mlp.fc2.bias"), d)? })
            }
        };
        let gamma_2 = loader.vector(&name("gamma_2"), d)?;
        Ok(Self { norm1, qkv, qkv_bias, proj, gamma_1, norm2, fc1, fc2, gamma_2 })
    }
}

/// Memory that is kept from batch to batch.
#[derive(Default)]
pub(crate) struct VitScratch<E: Operand> {
    activations: Activations<E::Element>,
    /// Of each thread that takes images through a block on its own, else one.
    blocks: Vec<Mutex<BlockScratch<E>>>,
}

/// Activations of the whole batch, named for what they hold. Rows are images × tokens.
#[derive(Default)]
struct Activations<O: Element> {
    /// [rows, 3 · patch²].
    patches: Vec<O>,
    /// The residual stream [rows, D].
    tokens: Vec<f32>,
    /// Normed tokens for output [rows, D].
    output: Vec<f32>,
    rope: Option<CachedRope>,
}

/// Activations between the steps of a block, of the images that go through it together.
#[derive(Default)]
struct BlockScratch<E: Operand> {
    /// q, k and v before the turning, where that is a step of its own [rows, 3 D].
    unturned: Vec<f32>,
    /// [rows, 3 D].
    qkv: Vec<E::Element>,
    /// [rows, D].
    attended: Vec<E::Element>,
    attention: AttentionScratch,
    first_operands: Operands<E::Element>,
    operands: Operands<E>,
}

/// Activations as operands of the blocks' matrices.
#[derive(Default)]
struct Operands<F: Operand> {
    /// [rows, D].
    normed: Vec<F>,
    hidden: FeedForwardScratch<F>,
}

/// What the steps of a block hand on, beside operands.
struct Between<'a, O: Element> {
    unturned: &'a mut Vec<f32>,
    qkv: &'a mut Vec<O>,
    attended: &'a mut Vec<O>,
    attention: &'a mut AttentionScratch,
}

/// The table of the last grid, at full head width as the kernel takes it.
struct CachedRope {
    grid: (usize, usize),
    sin: Vec<f32>,
    cos: Vec<f32>,
}

impl<E: Operand> VitNet<E> {
    /// Runs a checked batch. Shapes in the comments: B images, T tokens, D width.
    pub fn encode(&self, run: &Run<'_>, scratch: &mut VitScratch<E>, features: &mut Features) {
        let (grid_rows, grid_columns) = (run.geometry.grid_rows, run.geometry.grid_columns);
        let prefix = self.vit.prefix_tokens();
        let tokens_per_image = prefix + grid_rows * grid_columns;

        let VitScratch { activations: scratch, blocks } = scratch;
        self.embed(run, scratch, tokens_per_image);
        self.prepare_rope(scratch, (grid_rows, grid_columns));

        let request = run.request;
        features.maps.resize_with(request.taps.len(), FeatureMap::default);
        let mut taps = request.taps.iter().copied().zip(&mut features.maps).peekable();
        let last = request.last_needed(self.vit.depth);
        let depth = last.map_or(0, |last| last + 1);
        let mut first = 0;
        while first < depth {
            let end = taps.peek().map_or(depth, |(tap, _)| tap + 1);
            self.run_blocks(first..end, run, scratch, blocks, tokens_per_image);
            if let Some((tap, map)) = taps.next() {
                self.tap(run, scratch, tap, map, tokens_per_image);
            }
            first = end;
        }

        self.outputs(run, scratch, features, tokens_per_image);
    }

    /// Takes all images through some blocks, one after the other.
    fn run_blocks(
        &self,
        blocks: Range<usize>,
        run: &Run<'_>,
        activations: &mut Activations<E::Element>,
        scratch: &mut Vec<Mutex<BlockScratch<E>>>,
        tokens_per_image: usize,
    ) {
        let Activations { tokens, rope, .. } = activations;
        let rope = rope.as_ref().expect("prepared before the blocks");
        let (count, threads) = (run.batch.count, run.pool.threads());
        let image = tokens_per_image * self.vit.embed_dim;
        let mut through = |division: Division, blocks: Range<usize>| {
            division.run(run.pool, blocks, tokens, image, scratch, |index, pool, scratch, tokens| {
                self.block(index, pool, run.isa, rope, scratch, tokens, tokens_per_image);
            });
        };
        match &self.stream {
            None => through(Division::new(count, tokens_per_image, threads), blocks),
            // A block is fetched once for all images.
            Some(stream) => blocks.for_each(|index| {
                stream.enter(index);
                through(Division::new(count, tokens_per_image, threads), index..index + 1);
            }),
        }
    }

    /// pixels -> residual stream [B, T, D]: CLS, registers, patches row by row.
    fn embed(&self, run: &Run<'_>, scratch: &mut Activations<E::Element>, tokens_per_image: usize) {
        let (count, d, patch_px) = (run.batch.count, self.vit.embed_dim, self.vit.patch_px);
        let (rows, columns) = (run.geometry.grid_rows, run.geometry.grid_columns);
        image_patches(run.pool, run.batch, patch_px, rows, columns, &mut scratch.patches);
        scratch.tokens.resize(count * tokens_per_image * d, 0.0);
        let k = 3 * patch_px * patch_px;
        let patches = rows * columns;
        for (image, out) in scratch.tokens.chunks_exact_mut(tokens_per_image * d).enumerate() {
            let (prefix, out) = out.split_at_mut(self.prefix.len());
            prefix.copy_from_slice(&self.prefix);
            let input = &scratch.patches[image * patches * k..][..patches * k];
            let bias = Some(&self.patch_embed.bias[..]);
            linear(run.pool, input, patches, k, &self.patch_embed.matrix, Epilogue::Store { bias }, out, d);
        }
    }

    fn prepare_rope(&self, scratch: &mut Activations<E::Element>, grid: (usize, usize)) {
        if scratch.rope.as_ref().is_some_and(|rope| rope.grid == grid) {
            return;
        }
        let table = rope::table(&self.vit, self.periods, grid.0, grid.1);
        // The angles of a head's second half repeat those of its first.
        let repeat = |values: &[f32]| -> Vec<f32> {
            values.chunks_exact(table.width).flat_map(|angles| [angles, angles].concat()).collect()
        };
        scratch.rope = Some(CachedRope { grid, sin: repeat(&table.sin), cos: repeat(&table.cos) });
    }

    /// Takes some images through block `index`.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        index: usize,
        pool: &Pool,
        isa: Isa,
        rope: &CachedRope,
        scratch: &mut BlockScratch<E>,
        tokens: &mut [f32],
        tokens_per_image: usize,
    ) {
        let BlockScratch { unturned, qkv, attended, attention, first_operands, operands } = scratch;
        let between = Between { unturned, qkv, attended, attention };
        match index.checked_sub(self.first_blocks.len()) {
            None => {
                let block = &self.first_blocks[index];
                self.steps(block, pool, isa, rope, between, first_operands, tokens, tokens_per_image);
            }
            Some(index) => {
                self.steps(&self.blocks[index], pool, isa, rope, between, operands, tokens, tokens_per_image);
            }
        }
    }

    /// For some images: x + gamma_1 · attention(norm1(x)), then x + gamma_2 · mlp(norm2(x)), in place.
    #[allow(clippy::too_many_arguments)]
    fn steps<F: Operand<Element = E::Element>>(
        &self,
        block: &Block<F>,
        pool: &Pool,
        isa: Isa,
        rope: &CachedRope,
        between: Between<'_, E::Element>,
        operands: &mut Operands<F>,
        tokens: &mut [f32],
        tokens_per_image: usize,
    ) {
        let d = self.vit.embed_dim;
        let Between { unturned, qkv, attended, attention: attention_scratch } = between;
        let Operands { normed, hidden } = operands;
        let rows = tokens.len() / d;
        let row_length = F::row_length(d);
        let operands = rows * row_length;
        normed.resize(normed.len().max(operands), F::default());
        let normed = &mut normed[..operands];
        qkv.resize(qkv.len().max(rows * 3 * d), E::Element::default());
        attended.resize(attended.len().max(rows * d), E::Element::default());
        let (qkv, attended) = (&mut qkv[..rows * 3 * d], &mut attended[..rows * d]);

        let norm = &block.norm1;
        layer_norm(pool, isa, tokens, rows, d, &norm.weight, &norm.bias, norm.eps, normed);
        let bias = block.qkv_bias.as_deref();
        let shape = AttentionShape {
            images: rows / tokens_per_image,
            tokens: tokens_per_image,
            heads: self.vit.heads,
            head_dim: self.vit.head_dim(),
        };
        let rotary = Rotary {
            tokens: tokens_per_image,
            prefix_tokens: self.vit.prefix_tokens(),
            head_dim: shape.head_dim,
            sin: &rope.sin,
            cos: &rope.cos,
        };
        if shape.head_dim == Epilogue::ROTARY_HEAD {
            linear(pool, normed, rows, row_length, &block.qkv, Epilogue::Rotary { bias, rotary }, qkv, 3 * d);
        } else {
            unturned.resize(qkv.len(), 0.0);
            linear(pool, normed, rows, row_length, &block.qkv, Epilogue::Store { bias }, unturned, 3 * d);
            rotate_heads(pool, isa, &shape, unturned, rotary, qkv);
        }
        attention(pool, isa, &shape, qkv, attention_scratch, attended);
        let residual = Epilogue::Residual { bias: Some(&block.proj.bias), gamma: &block.gamma_1 };
        linear(pool, attended, rows, d, &block.proj.matrix, residual, tokens, d);

        let norm = &block.norm2;
        layer_norm(pool, isa, tokens, rows, d, &norm.weight, &norm.bias, norm.eps, normed);
        let bias = &block.fc1.bias;
        let activation = match self.vit.mlp {
            Mlp::Gelu => Epilogue::Gelu { bias },
            Mlp::SwiGlu => Epilogue::SwiGlu { bias },
        };
        let residual = Epilogue::Residual { bias: Some(&block.fc2.bias), gamma: &block.gamma_2 };
        let (fc1, fc2) = (&block.fc1.matrix, &block.fc2.matrix);
        feed_forward(pool, normed, rows, fc1, activation, fc2, residual, hidden, tokens);
    }

    /// The residual stream after block `index` as a feature map [B, D, h, w].
    fn tap(
        &self,
        run: &Run<'_>,
        scratch: &mut Activations<E::Element>,
        index: usize,
        map: &mut FeatureMap,
        tokens_per_image: usize,
    ) {
        let (count, d, prefix) = (run.batch.count, self.vit.embed_dim, self.vit.prefix_tokens());
        let rows = match run.request.tap_norm {
            true => self.final_norm(run, &scratch.tokens, &mut scratch.output),
            false => &scratch.tokens[..],
        };
        map.index = index;
        let size = (count, d, run.geometry.grid_rows, run.geometry.grid_columns);
        write_map(run.pool, rows, prefix, size, run.request.tap_layout, &mut map.map);
        if run.request.tap_prefix_tokens {
            let out = wanted(&mut map.prefix_tokens, &[count, prefix, d]);
            for (out, image) in out.chunks_exact_mut(prefix * d).zip(rows.chunks_exact(tokens_per_image * d)) {
                out.copy_from_slice(&image[..prefix * d]);
            }
        } else {
            map.prefix_tokens = None;
        }
    }

    fn final_norm<'a>(&self, run: &Run<'_>, tokens: &[f32], output: &'a mut Vec<f32>) -> &'a [f32] {
        let (d, norm) = (self.vit.embed_dim, &self.norm);
        output.resize(tokens.len(), 0.0);
        layer_norm(run.pool, run.isa, tokens, tokens.len() / d, d, &norm.weight, &norm.bias, norm.eps, output);
        output
    }

    /// Final norm, then whatever was asked for: tokens, poolings, class scores.
    fn outputs(
        &self,
        run: &Run<'_>,
        scratch: &mut Activations<E::Element>,
        features: &mut Features,
        tokens_per_image: usize,
    ) {
        let (count, d, request) = (run.batch.count, self.vit.embed_dim, run.request);
        let needed = request.tokens || request.logits.is_some() || !request.poolings.is_empty();
        features.pooled.resize_with(request.poolings.len(), || (Pooling::Average, Default::default()));
        if !request.tokens {
            features.tokens = None;
        }
        if request.logits.is_none() {
            features.logits = None;
        }
        if !needed {
            return;
        }
        let normed = self.final_norm(run, &scratch.tokens, &mut scratch.output);
        let all = [count, tokens_per_image, d];
        if request.tokens {
            wanted(&mut features.tokens, &all).copy_from_slice(normed);
        }
        for (slot, &pooling) in features.pooled.iter_mut().zip(&request.poolings) {
            slot.0 = pooling;
            slot.1.reshape(&if pooling == Pooling::None { all.to_vec() } else { vec![count, d] });
            self.pool(pooling, normed, tokens_per_image, &mut slot.1.data);
        }
        if let (Some(pooling), Some(head)) = (request.logits, &self.head) {
            let classes = self.vit.num_classes;
            let (vectors, shape) = match pooling {
                Pooling::None => (normed.to_vec(), vec![count, tokens_per_image, classes]),
                _ => {
                    let mut vectors = vec![0.0; count * d];
                    self.pool(pooling, normed, tokens_per_image, &mut vectors);
                    (vectors, vec![count, classes])
                }
            };
            classify(run.pool, head, &vectors, wanted(&mut features.logits, &shape));
        }
    }

    /// normed [B, T, D] -> [B, D], or a copy of all tokens.
    fn pool(&self, pooling: Pooling, normed: &[f32], tokens_per_image: usize, out: &mut [f32]) {
        let (d, prefix) = (self.vit.embed_dim, self.vit.prefix_tokens());
        if pooling == Pooling::None {
            out.copy_from_slice(normed);
            return;
        }
        for (image, out) in normed.chunks_exact(tokens_per_image * d).zip(out.chunks_exact_mut(d)) {
            match pooling {
                Pooling::Token => out.copy_from_slice(&image[..d]),
                _ => pool_rows(pooling, &image[prefix * d..], d, out),
            }
        }
    }
}
