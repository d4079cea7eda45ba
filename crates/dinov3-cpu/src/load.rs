//! From named tensors to packed matrices, and into packed files and out of them again.

use std::any::TypeId;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dinov3_kernels::{Isa, Operand, PackedMatrix};
use dinov3_model::spec::ModelSpec;
use dinov3_model::weights::{WeightSource, WeightsError};
use dinov3_packed::{PackedFile, PartData};
use dinov3_system::memory_map::{MappedValues, Plain, Values};
use dinov3_system::threads::Pool;

use crate::model::{LoadProgress, Options};
use crate::output::SharedRows;

/// Where the parts of a model come from.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// Tensors, packed now.
    Tensors(&'a dyn WeightSource),
    /// The same; each part is handed to the recorder when it is ready, and matrices are not kept.
    Recorded(&'a dyn WeightSource, &'a Record<'a>),
    /// Parts that were packed before: nothing is read, nothing computed.
    Packed(&'a PackedFile),
}

/// Takes name, type, shape and numbers of each part, in the order of [`Loader`]'s calls.
pub(crate) type Record<'a> = dyn Fn(&str, &str, &[usize], PartData<'_>) -> Result<(), WeightsError> + Sync + 'a;

/// Makes the parts of one model and reports progress.
///
/// Who calls it describes the model once, in the order of execution: that is also the order in which parts lie in packed
/// files, and their names there are the ones given here.
pub(crate) struct Loader<'a> {
    origin: Origin<'a>,
    progress: Option<LoadProgress>,
    isa: Isa,
    pool: &'a Pool,
    done: AtomicUsize,
    total: usize,
}

/// LayerNorm weight and bias.
pub(crate) struct Norm {
    pub weight: Values<f32>,
    pub bias: Values<f32>,
    pub eps: f32,
}

/// A matrix with its bias.
pub(crate) struct Linear<E> {
    pub matrix: PackedMatrix<E>,
    pub bias: Values<f32>,
}

impl<'a> Loader<'a> {
    pub fn new(spec: &ModelSpec, origin: Origin<'a>, options: &Options, isa: Isa, pool: &'a Pool) -> Self {
        let progress = options.progress.clone();
        Self { origin, progress, isa, pool, done: AtomicUsize::new(0), total: spec.parameter_count() }
    }

    fn advance(&self, values: usize) {
        let done = self.done.fetch_add(values, Ordering::Relaxed) + values;
        if let Some(progress) = &self.progress {
            progress(done, self.total);
        }
    }

    /// The tensors, unless everything was packed before.
    fn tensors(&self) -> Option<&'a dyn WeightSource> {
        match self.origin {
            Origin::Tensors(source) | Origin::Recorded(source, _) => Some(source),
            Origin::Packed(_) => None,
        }
    }

    fn record(&self, name: &str, kind: &str, shape: &[usize], data: PartData<'_>) -> Result<(), WeightsError> {
        match self.origin {
            Origin::Recorded(_, record) => record(name, kind, shape, data),
            _ => Ok(()),
        }
    }

    /// A part of `length` numbers, which `make` makes of tensors.
    pub fn values(
        &self,
        name: &str,
        length: usize,
        make: impl FnOnce(&dyn WeightSource) -> Result<Vec<f32>, WeightsError>,
    ) -> Result<Values<f32>, WeightsError> {
        let Some(source) = self.tensors() else {
            return self.mapped(name, F32, &[length]).map(Values::Mapped);
        };
        let values = make(source)?;
        debug_assert_eq!(values.len(), length, "{name}");
        self.record(name, F32, &[length], PartData::F32(&values))?;
        Ok(values.into())
    }

    /// A part of a packed file.
    fn mapped<T: Plain>(&self, name: &str, kind: &str, shape: &[usize]) -> Result<MappedValues<T>, WeightsError> {
        let Origin::Packed(file) = self.origin else { unreachable!("asked for parts of a packed file only") };
        file.values(name, kind, shape)
            .map_err(|_| malformed(file, format!("{name} is missing, or is not {kind} {shape:?}")))
    }

    /// The values of a whole tensor.
    pub fn read(&self, source: &dyn WeightSource, tensor: &str, length: usize) -> Result<Vec<f32>, WeightsError> {
        let mut values = vec![0.0; length];
        source.read(tensor, 0, &mut values)?;
        self.advance(length);
        Ok(values)
    }

    /// A whole tensor of `length` values.
    pub fn vector(&self, tensor: &str, length: usize) -> Result<Values<f32>, WeightsError> {
        self.values(tensor, length, |source| self.read(source, tensor, length))
    }

    /// `{name}.weight` and `{name}.bias` of a LayerNorm.
    pub fn norm(&self, name: &str, length: usize, eps: f64) -> Result<Norm, WeightsError> {
        Ok(Norm {
            weight: self.vector(&format!("{name}.weight"), length)?,
            bias: self.vector(&format!("{name}.bias"), length)?,
            eps: eps as f32,
        })
    }

    /// The same for a matrix of `E`; before int8 with channels evened out: weight and bias are divided by the factors that come back, with
    /// which the columns of the next matrix are to be multiplied.
    ///
    /// A channel's size is known from the norm alone: normalised numbers have deviation one. Half of its excess, in the
    /// logarithm, goes into the weights, so that neither side's steps grow by more than the square root of it.
    pub fn evened_norm<E: Operand>(&self, name: &str, length: usize, eps: f64) -> Result<(Norm, Scale), WeightsError> {
        let Some(source) = self.tensors().filter(|_| is_quantized::<E>()) else {
            return Ok((self.norm(name, length, eps)?, Scale::default()));
        };
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let mut weight = self.read(source, &weight_name, length)?;
        let mut bias = self.read(source, &bias_name, length)?;
        let sizes: Vec<f64> = weight.iter().zip(&bias).map(|(w, b)| f64::from(w.hypot(*b))).collect();
        let scale = Scale::square_roots(&sizes);
        scale.divide(&mut weight);
        scale.divide(&mut bias);
        let weight = self.values(&weight_name, length, |_| Ok(weight))?;
        let bias = self.values(&bias_name, length, |_| Ok(bias))?;
        Ok((Norm { weight, bias, eps: eps as f32 }, scale))
    }

    /// An [n, k] tensor whose columns are multiplied by `scale`.
    pub fn matrix_scaled<E: Operand>(
        &self,
        tensor: &str,
        n: usize,
        k: usize,
        scale: &Scale,
    ) -> Result<PackedMatrix<E>, WeightsError> {
        self.matrix(tensor, n, k, &|source, row, out| {
            source.read(tensor, row * k, out)?;
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
        self.matrix(tensor, n, k, &|source, start, out| {
            for (row, out) in out.chunks_exact_mut(k).enumerate() {
                source.read(tensor, (start + row) * stored_k, &mut out[..stored_k])?;
                scale.multiply_columns(&mut out[..stored_k]);
                out[stored_k..].fill(0.0);
            }
            Ok(())
        })
    }

    /// For int8: factors that even out the hidden channels of a gated network, by the sizes that its two branches have
    /// when their input is `norm`'s, which was divided by `scale`.
    pub fn hidden_scale<E: Operand>(
        &self,
        gate: &str,
        value: &str,
        m: usize,
        k: usize,
        norm: &Norm,
        scale: &Scale,
    ) -> Result<Scale, WeightsError> {
        let Some(source) = self.tensors().filter(|_| is_quantized::<E>()) else {
            return Ok(Scale::default());
        };
        let mut channels: Vec<f32> = norm.weight.iter().zip(norm.bias.iter()).map(|(w, b)| w.hypot(*b)).collect();
        scale.multiply_columns(&mut channels);
        let branch = |name: &str| -> Result<Vec<f64>, WeightsError> {
            let (weight, mut bias, mut sizes) = (format!("{name}.weight"), vec![0.0; m], vec![0.0; m]);
            source.read(&format!("{name}.bias"), 0, &mut bias)?;
            const ROWS: usize = 64;
            let (parts, error) = (SharedRows::new(&mut sizes, ROWS), Mutex::new(None));
            self.pool.run(m.div_ceil(ROWS), &|part| {
                let (sizes, first) = (parts.take(part), part * ROWS);
                let mut rows = vec![0.0; sizes.len() * k];
                if let Err(reason) = source.read(&weight, first * k, &mut rows) {
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
        let matrix = self.matrix(&tensor, n, k, &|source, start, out| {
            let mut stored = vec![0.0; k];
            for (row, out) in out.chunks_exact_mut(k).enumerate() {
                source.read(&tensor, (start + row) * k, &mut stored)?;
                for (i, value) in out.iter_mut().enumerate() {
                    *value = stored[i % channels * area + i / channels];
                }
            }
            Ok(())
        })?;
        Ok(Linear { matrix, bias: self.vector(&format!("{name}.bias"), n)? })
    }

    /// A depthwise kernel `[channels, 1, 7, 7]` as `[49][channels]`.
    pub fn depthwise(&self, tensor: &str, channels: usize) -> Result<Values<f32>, WeightsError> {
        self.values(tensor, channels * 49, |source| {
            let stored = self.read(source, tensor, channels * 49)?;
            Ok((0..stored.len()).map(|i| stored[i % channels * 49 + i / channels]).collect())
        })
    }

    /// Two [m, k] matrices, called `name` together, their columns multiplied by `columns` and the value's rows and bias
    /// divided by `values`, as one whose rows alternate in groups of sixteen, gate first, each branch filled up with zero
    /// rows to a multiple of sixteen: the layout of the SwiGLU epilogue.
    #[allow(clippy::too_many_arguments)]
    pub fn gated<E: Operand>(
        &self,
        name: &str,
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
        let matrix = self.matrix(&format!("{name}.weight"), 2 * padded, k, &|source, start, out| {
            for (row, out) in out.chunks_exact_mut(k).enumerate() {
                let (branch, stored) = stored_row(start + row);
                if stored < m {
                    source.read(&format!("{branch}.weight"), stored * k, out)?;
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
        let bias = self.values(&format!("{name}.bias"), 2 * padded, |source| {
            let read = |branch: &str| self.read(source, &format!("{branch}.bias"), m);
            let mut biases = (read(gate)?, read(value)?);
            values.divide(&mut biases.1);
            let bias = (0..2 * padded).map(|row| {
                let (branch, stored) = stored_row(row);
                let values = if branch == gate { &biases.0 } else { &biases.1 };
                values.get(stored).copied().unwrap_or(0.0)
            });
            Ok(bias.collect())
        })?;
        Ok(Linear { matrix, bias })
    }

    /// The n × k matrix `name`, whose rows `rows` makes of tensors.
    fn matrix<E: Operand>(
        &self,
        name: &str,
        n: usize,
        k: usize,
        rows: &ReadRows<'_>,
    ) -> Result<PackedMatrix<E>, WeightsError> {
        let (panels, scales, sums) = (format!("{} panels", E::NAME), format!("{name}#scales"), format!("{name}#sums"));
        let (shape, scaled) = ([n, k], [PackedMatrix::<E>::scaled_columns(n)]);
        let (source, recorded) = match self.origin {
            Origin::Tensors(source) => (source, false),
            Origin::Recorded(source, _) => (source, true),
            Origin::Packed(file) => {
                let words = self.mapped(name, &panels, &shape)?;
                let (scales, sums) = match scaled {
                    [0] => (Values::default(), Values::default()),
                    _ => {
                        let (scales, sums) = (self.mapped(&scales, F32, &scaled)?, self.mapped(&sums, I32, &scaled)?);
                        (Values::Mapped(scales), Values::Mapped(sums))
                    }
                };
                let matrix = PackedMatrix::from_parts(self.isa, n, k, words, scales, sums);
                let reason = || format!("{name} is not the panels of a {n} x {k} matrix");
                return matrix.ok_or_else(|| malformed(file, reason()));
            }
        };
        let matrix = PackedMatrix::<E>::pack(self.isa, self.pool, n, k, &|start, out: &mut [f32]| {
            rows(source, start, out)?;
            self.advance(out.len());
            Ok::<(), WeightsError>(())
        })?;
        if !recorded {
            return Ok(matrix);
        }
        self.record(name, &panels, &shape, PartData::Words(matrix.panel_values()))?;
        if scaled != [0] {
            self.record(&scales, F32, &scaled, PartData::F32(matrix.column_scales()))?;
            self.record(&sums, I32, &scaled, PartData::I32(matrix.column_sums()))?;
        }
        // Written: the next one can have its memory.
        Ok(PackedMatrix::empty(self.isa))
    }
}

fn malformed(file: &PackedFile, reason: String) -> WeightsError {
    WeightsError::Malformed { file: file.path().display().to_string(), reason }
}

/// Types of parts in packed files, beside panels.
const F32: &str = "f32";
const I32: &str = "i32";

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

/// Fills its last argument with whole rows, from that number on, of what the tensors say.
type ReadRows<'a> = dyn Fn(&dyn WeightSource, usize, &mut [f32]) -> Result<(), WeightsError> + Sync + 'a;

/// Whether the operands `E` are fewer digits than the elements that are made of them: int8.
pub(crate) fn is_quantized<E: Operand>() -> bool {
    TypeId::of::<E>() != TypeId::of::<E::Element>()
}

/// Rows of one branch before the other's in a gated matrix.
const GROUP: usize = 16;

/// Width of the hidden layer as computed: padded for gated networks.
pub(crate) fn gated_width(m: usize) -> usize {
    m.next_multiple_of(GROUP)
}
