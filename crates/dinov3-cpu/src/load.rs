//! From named tensors to packed matrices.

use std::sync::atomic::{AtomicUsize, Ordering};

use dinov3_kernels::{Element, Isa, PackedMatrix};
use dinov3_model::spec::ModelSpec;
use dinov3_model::weights::{WeightSource, WeightsError};
use dinov3_system::threads::Pool;

use crate::model::Options;

/// Reads tensors for one model and reports progress.
pub(crate) struct Loader<'a> {
    source: &'a dyn WeightSource,
    options: &'a Options,
    isa: Isa,
    pool: &'a Pool,
    done: AtomicUsize,
    total: usize,
}

/// LayerNorm weight and bias.
pub(crate) struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub eps: f32,
}

/// A matrix with its bias.
pub(crate) struct Linear<E> {
    pub matrix: PackedMatrix<E>,
    pub bias: Vec<f32>,
}

impl<'a> Loader<'a> {
    pub fn new(spec: &ModelSpec, source: &'a dyn WeightSource, options: &'a Options, isa: Isa, pool: &'a Pool) -> Self {
        Self { source, options, isa, pool, done: AtomicUsize::new(0), total: spec.parameter_count() }
    }

    fn advance(&self, values: usize) {
        let done = self.done.fetch_add(values, Ordering::Relaxed) + values;
        if let Some(progress) = &self.options.progress {
            progress(done, self.total);
        }
    }

    /// A whole tensor of `length` values.
    pub fn vector(&self, tensor: &str, length: usize) -> Result<Vec<f32>, WeightsError> {
        let mut values = vec![0.0; length];
        self.source.read(tensor, 0, &mut values)?;
        self.advance(length);
        Ok(values)
    }

    /// `{name}.weight` and `{name}.bias` of a LayerNorm.
    pub fn norm(&self, name: &str, length: usize, eps: f64) -> Result<Norm, WeightsError> {
        Ok(Norm {
            weight: self.vector(&format!("{name}.weight"), length)?,
            bias: self.vector(&format!("{name}.bias"), length)?,
            eps: eps as f32,
        })
    }

    /// An [n, k] tensor, as it is stored.
    pub fn matrix<E: Element>(&self, tensor: &str, n: usize, k: usize) -> Result<PackedMatrix<E>, WeightsError> {
        self.pack(n, k, &|row, out| self.source.read(tensor, row * k, out))
    }

    /// `{name}.weight`, n × k, and `{name}.bias`.
    pub fn linear<E: Element>(&self, name: &str, n: usize, k: usize) -> Result<Linear<E>, WeightsError> {
        Ok(Linear {
            matrix: self.matrix(&format!("{name}.weight"), n, k)?,
            bias: self.vector(&format!("{name}.bias"), n)?,
        })
    }

    /// [n, stored_k] rows whose last columns up to `k` are zero.
    pub fn matrix_padded<E: Element>(
        &self,
        tensor: &str,
        n: usize,
        stored_k: usize,
        k: usize,
    ) -> Result<PackedMatrix<E>, WeightsError> {
        self.pack(n, k, &|start, out| {
            for (row, out) in out.chunks_exact_mut(k).enumerate() {
                self.source.read(tensor, (start + row) * stored_k, &mut out[..stored_k])?;
                out[stored_k..].fill(0.0);
            }
            Ok(())
        })
    }

    /// A convolution [n, channels, size, size] whose columns are reordered from (channel, y, x) to (y, x, channel),
    /// the order in which channels-last pixels lie in memory.
    pub fn convolution_channels_last<E: Element>(
        &self,
        name: &str,
        n: usize,
        channels: usize,
        size: usize,
    ) -> Result<Linear<E>, WeightsError> {
        let (tensor, area) = (format!("{name}.weight"), size * size);
        let k = channels * area;
        let matrix = self.pack(n, k, &|start, out| {
            let mut stored = vec![0.0; k];
            for (row, out) in out.chunks_exact_mut(k).enumerate() {
                self.source.read(&tensor, (start + row) * k, &mut stored)?;
                for (i, value) in out.iter_mut().enumerate() {
                    *value = stored[i % channels * area + i / channels];
                }
            }
            Ok(())
        })?;
        Ok(Linear { matrix, bias: self.vector(&format!("{name}.bias"), n)? })
    }

    /// A depthwise kernel `[channels, 1, 7, 7]` as `[49][channels]`.
    pub fn depthwise(&self, tensor: &str, channels: usize) -> Result<Vec<f32>, WeightsError> {
        let stored = self.vector(tensor, channels * 49)?;
        Ok((0..stored.len()).map(|i| stored[i % channels * 49 + i / channels]).collect())
    }

    /// Two [m, k] matrices as one whose rows alternate in groups of sixteen, gate first, each branch filled up with
    /// zero rows to a multiple of sixteen: the layout of the SwiGLU epilogue.
    pub fn gated<E: Element>(&self, gate: &str, value: &str, m: usize, k: usize) -> Result<Linear<E>, WeightsError> {
        let padded = m.next_multiple_of(GROUP);
        let stored_row = |row: usize| {
            let branch = if (row / GROUP).is_multiple_of(2) { gate } else { value };
            (branch, row / (2 * GROUP) * GROUP + row % GROUP)
        };
        let matrix = self.pack(2 * padded, k, &|start, out| {
            for (row, out) in out.chunks_exact_mut(k).enumerate() {
                let (branch, stored) = stored_row(start + row);
                if stored < m {
                    self.source.read(&format!("{branch}.weight"), stored * k, out)?;
                } else {
                    out.fill(0.0);
                }
            }
            Ok(())
        })?;
        let biases = (self.vector(&format!("{gate}.bias"), m)?, self.vector(&format!("{value}.bias"), m)?);
        let bias = (0..2 * padded).map(|row| {
            let (branch, stored) = stored_row(row);
            let values = if branch == gate { &biases.0 } else { &biases.1 };
            values.get(stored).copied().unwrap_or(0.0)
        });
        Ok(Linear { matrix, bias: bias.collect() })
    }

    fn pack<E: Element>(&self, n: usize, k: usize, rows: &ReadRows<'_>) -> Result<PackedMatrix<E>, WeightsError> {
        PackedMatrix::pack(self.isa, self.pool, n, k, &|start, out: &mut [f32]| {
            rows(start, out)?;
            self.advance(out.len());
            Ok(())
        })
    }
}

/// Fills its second argument with whole rows from the first one on.
type ReadRows<'a> = dyn Fn(usize, &mut [f32]) -> Result<(), WeightsError> + Sync + 'a;

/// Rows of one branch before the other's in a gated matrix.
const GROUP: usize = 16;

/// Width of the hidden layer as computed: padded for gated networks.
pub(crate) fn gated_width(m: usize) -> usize {
    m.next_multiple_of(GROUP)
}
