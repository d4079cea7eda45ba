//! From named tensors to packed matrices.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dinov3_kernels::{Isa, Operand, PackedMatrix};
use dinov3_model::spec::ModelSpec;
use dinov3_model::weights::{WeightSource, WeightsError};
use dinov3_system::threads::Pool;

use crate::model::{Options, Precision};
use crate::output::SharedRows;

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

    /// An [n, k] tensor whose columns are multiplied by `scale`.
    pub fn matrix_scaled<E: Operand>(
        &self,
        tensor: &str,
        n: usize,
        k: usize,
        scale: &Scale,
    ) -> Result<PackedMatrix<E>, WeightsError> {
        self.pack(n, k, &|row, out| {
            self.source.read(tensor, row * k, out)?;
            scale.multiply_columns(out);
            Ok(())
        })
    }

    /// `{name}.weight`, n × k, and `{name}.bias`.
    pub fn linear<E: Operand>(&self, name: &str, n: usize, k: usize) -> Result<Linear<E>, WeightsError> {
        self.linear_scaled(name, n, k, &Scale::default())
    }

    /// `{name}.weight`, n × k, with its columns multiplied by `scale`, and `{name}.bias`.
    pub fn linear_scaled<E: Operand>(
        &self,
        name: &str,
        n: usize,
        k: usize,
        scale: &Scale,
    ) -> Result<Linear<E>, WeightsError> {
        Ok(Linear {
            matrix: self.matrix_scaled(&format!("{name}.weight"), n, k, scale)?,
            bias: self.vector(&format!("{name}.bias"), n)?,
        })
    }

    /// [n, stored_k] rows whose columns are multiplied by `scale` and whose last columns up to `k` are zero.
    pub fn matrix_padded<E: Operand>(
        &self,
        tensor: &str,
        n: usize,
        stored_k: usize,
        k: usize,
        scale: &Scale,
    ) -> Result<PackedMatrix<E>, WeightsError> {
        self.pack(n, k, &|start, out| {
            for (row, out) in out.chunks_exact_mut(k).enumerate() {
                self.source.read(tensor, (start + row) * stored_k, &mut out[..stored_k])?;
                scale.multiply_columns(&mut out[..stored_k]);
                out[stored_k..].fill(0.0);
            }
            Ok(())
        })
    }

    /// For int8: evens out the channels that a norm delivers, dividing its weight and bias by the factors that come
    /// back, with which the columns of the next matrix are to be multiplied.
    ///
    /// A channel's size is known from the norm alone: normalised numbers have deviation one. Half of its excess, in the
    /// logarithm, goes into the weights, so that neither side's steps grow by more than the square root of it.
    pub fn equalize(&self, norm: &mut Norm) -> Scale {
        if self.options.precision != Precision::Int8 {
            return Scale::default();
        }
        let sizes: Vec<f64> = norm.weight.iter().zip(&norm.bias).map(|(w, b)| f64::from(w.hypot(*b))).collect();
        let scale = Scale::square_roots(&sizes);
        scale.divide(&mut norm.weight);
        scale.divide(&mut norm.bias);
        scale
    }

    /// For int8: factors that even out the hidden channels of a gated network, by the sizes that its two branches have
    /// when their input is `norm`'s, which was divided by `scale`.
    pub fn hidden_scale(
        &self,
        gate: &str,
        value: &str,
        m: usize,
        k: usize,
        norm: &Norm,
        scale: &Scale,
    ) -> Result<Scale, WeightsError> {
        if self.options.precision != Precision::Int8 {
            return Ok(Scale::default());
        }
        let mut channels: Vec<f32> = norm.weight.iter().zip(&norm.bias).map(|(w, b)| w.hypot(*b)).collect();
        scale.multiply_columns(&mut channels);
        let branch = |name: &str| -> Result<Vec<f64>, WeightsError> {
            let (weight, mut bias, mut sizes) = (format!("{name}.weight"), vec![0.0; m], vec![0.0; m]);
            self.source.read(&format!("{name}.bias"), 0, &mut bias)?;
            const ROWS: usize = 64;
            let (parts, error) = (SharedRows::new(&mut sizes, ROWS), Mutex::new(None));
            self.pool.run(m.div_ceil(ROWS), &|part| {
                let (sizes, first) = (parts.take(part), part * ROWS);
                let mut rows = vec![0.0; sizes.len() * k];
                if let Err(reason) = self.source.read(&weight, first * k, &mut rows) {
                    error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
                    return;
                }
                for ((size, row), bias) in sizes.iter_mut().zip(rows.chunks_exact(k)).zip(&bias[first..]) {
                    let square = |x: f64| x * x;
                    let sum: f64 = row.iter().zip(&channels).map(|(w, c)| square(f64::from(*w) * f64::from(*c))).sum();
                    *size = (sum + square(f64::from(*bias))).sqrt();
                }
            });
            match error.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(error) => Err(error),
                None => Ok(sizes),
            }
        };
        let sizes: Vec<f64> = branch(gate)?.into_iter().zip(branch(value)?).map(|(g, v)| g * v).collect();
        Ok(Scale::square_roots(&sizes))
    }

    /// A convolution [n, channels, size, size] whose columns are reordered from (channel, y, x) to (y, x, channel),
    /// the order in which channels-last pixels lie in memory.
    pub fn convolution_channels_last<E: Operand>(
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

    /// Two [m, k] matrices, their columns multiplied by `columns` and the value's rows and bias divided by `values`, as
    /// one whose rows alternate in groups of sixteen, gate first, each branch filled up with zero rows to a multiple of
    /// sixteen: the layout of the SwiGLU epilogue.
    pub fn gated<E: Operand>(
        &self,
        gate: &str,
        value: &str,
        m: usize,
        k: usize,
        columns: &Scale,
        values: &Scale,
    ) -> Result<Linear<E>, WeightsError> {
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
                    columns.multiply_columns(out);
                    if branch == value {
                        values.divide_row(stored, out);
                    }
                } else {
                    out.fill(0.0);
                }
            }
            Ok(())
        })?;
        let mut biases = (self.vector(&format!("{gate}.bias"), m)?, self.vector(&format!("{value}.bias"), m)?);
        values.divide(&mut biases.1);
        let bias = (0..2 * padded).map(|row| {
            let (branch, stored) = stored_row(row);
            let values = if branch == gate { &biases.0 } else { &biases.1 };
            values.get(stored).copied().unwrap_or(0.0)
        });
        Ok(Linear { matrix, bias: bias.collect() })
    }

    fn pack<E: Operand>(&self, n: usize, k: usize, rows: &ReadRows<'_>) -> Result<PackedMatrix<E>, WeightsError> {
        PackedMatrix::pack(self.isa, self.pool, n, k, &|start, out: &mut [f32]| {
            rows(start, out)?;
            self.advance(out.len());
            Ok(())
        })
    }
}

/// Factors of channels: what delivers the channels is divided by them, and what takes the channels multiplied. None by
/// default.
#[derive(Default)]
pub(crate) struct Scale(Option<Vec<f32>>);

impl Scale {
    /// The square roots of the channels' sizes, apart from a common factor.
    fn square_roots(sizes: &[f64]) -> Self {
        let largest = sizes.iter().copied().fold(0.0, f64::max);
        if largest == 0.0 {
            return Self::default();
        }
        // A channel that delivers next to nothing may keep its size: no factor is beyond f32.
        Self(Some(sizes.iter().map(|size| (size / largest).max(1e-6).sqrt() as f32).collect()))
    }

    /// Multiplies rows of as many numbers as there are channels.
    fn multiply_columns(&self, rows: &mut [f32]) {
        let Some(factors) = &self.0 else { return };
        for row in rows.chunks_exact_mut(factors.len()) {
            row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
        }
    }

    /// Divides a number per channel.
    fn divide(&self, values: &mut [f32]) {
        let Some(factors) = &self.0 else { return };
        values.iter_mut().zip(factors).for_each(|(value, factor)| *value /= factor);
    }

    /// Divides the row that delivers channel `channel`.
    fn divide_row(&self, channel: usize, row: &mut [f32]) {
        let Some(factors) = &self.0 else { return };
        row.iter_mut().for_each(|value| *value /= factors[channel]);
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
