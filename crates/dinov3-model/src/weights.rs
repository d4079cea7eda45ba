//! The seam between stored weights and the machines: f32 values of a tensor, by timm name.

/// Why weights cannot be used. The text names file, tensor and reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// Tensors are missing, unexpected or have another shape; all of them are listed.
    #[error("{}", mismatch_text(.source_name, .model, .problems))]
    Mismatch {
        /// File or folder.
        source_name: String,
        /// The model whose tensors were expected.
        model: String,
        /// One entry per tensor.
        problems: Vec<TensorProblem>,
    },
    /// q and v biases that are not zero, under a model that has none.
    #[error("{source_name}: {tensor} is not zero, but {model} has no q and v bias; use {qkvb_model}")]
    BiasNotZero {
        /// File or folder.
        source_name: String,
        /// The first such tensor.
        tensor: String,
        /// The model asked for.
        model: String,
        /// The model that has these biases, or what to set in a config.
        qkvb_model: String,
    },
    /// A weight that is NaN or infinite.
    #[error("{source_name}: tensor {tensor} holds a non-finite value ({value}) at element {element}")]
    NotFinite {
        /// File or synthetic spec.
        source_name: String,
        /// timm's name of the tensor.
        tensor: String,
        /// Row-major index.
        element: usize,
        /// The value.
        value: f32,
    },
    /// A dtype that is not f32, f16 or bf16.
    #[error("{file}: tensor {tensor} has dtype {dtype}; f32, f16 and bf16 are supported")]
    UnsupportedDtype {
        /// The file.
        file: String,
        /// Name in the file.
        tensor: String,
        /// The dtype found.
        dtype: String,
    },
    /// A file that is not a well-formed checkpoint.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A pickle that asks for more than tensors and plain data. Nothing of it was executed.
    #[error(
        "{file}: its pickle holds {construct} (at byte {position}), which weights do not need and which is never \
         executed here; save the state dict alone, or convert it to safetensors, where you trust the file"
    )]
    RefusedPickle {
        /// The file.
        file: String,
        /// The global or the opcode.
        construct: String,
        /// Where in the pickle.
        position: usize,
    },
    /// A check that its caller stopped.
    #[error("{file}: the check was interrupted")]
    Interrupted {
        /// The file that was being read.
        file: String,
    },
    /// A file that cannot be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Names of no dialect, or of two.
    #[error("{file}: these are not DINOv3 weights under timm's, Transformers' or Meta's names (first keys: {keys})")]
    UnknownDialect {
        /// The file.
        file: String,
        /// A few names found.
        keys: String,
    },
    /// A `--weights` text that is neither a path nor a synthetic spec.
    #[error("'{text}' is not a synthetic spec: expected synthetic:SEED or synthetic-outliers:SEED with a whole number")]
    BadSyntheticSpec {
        /// The text as given.
        text: String,
    },
}

/// One tensor that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorProblem {
    /// The model needs it, the checkpoint lacks it.
    Missing {
        /// timm's name.
        tensor: String,
        /// Shape that the model needs.
        expected: Vec<usize>,
    },
    /// The checkpoint has it, the model does not.
    Unexpected {
        /// The file.
        file: String,
        /// Name in the file.
        tensor: String,
        /// Shape found.
        found: Vec<usize>,
    },
    /// Both have it, with other shapes.
    Misshaped {
        /// The file.
        file: String,
        /// Name in the file.
        tensor: String,
        /// Shape that the model needs.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },
    /// A bias of k that is not zero: DINOv3 has none, and leaving it out would change the result.
    KeyBiasNotZero {
        /// The file.
        file: String,
        /// Name in the file.
        tensor: String,
    },
    /// Two tensors of the checkpoint stand for the same one.
    Duplicate {
        /// The file of the second.
        file: String,
        /// Name in the file.
        tensor: String,
    },
}

impl std::fmt::Display for TensorProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { tensor, expected } => write!(f, "missing {tensor}, expected shape {expected:?}"),
            Self::Unexpected { file, tensor, found } => {
                write!(f, "unexpected {tensor} in {file}, found shape {found:?}")
            }
            Self::Misshaped { file, tensor, expected, found } => {
                write!(f, "misshaped {tensor} in {file}, expected {expected:?}, found {found:?}")
            }
            Self::KeyBiasNotZero { file, tensor } => {
                write!(f, "{tensor} in {file} is not zero, but DINOv3 encoders have no k bias")
            }
            Self::Duplicate { file, tensor } => write!(f, "duplicate {tensor} in {file}"),
        }
    }
}

fn mismatch_text(source_name: &str, model: &str, problems: &[TensorProblem]) -> String {
    let mut text = format!("{source_name} does not fit {model}: {} tensors", problems.len());
    for problem in problems {
        text.push_str(&format!("\n  {problem}"));
    }
    text
}

/// Where the values of a model's tensors come from: a checkpoint, or a seed.
pub trait WeightSource: Send + Sync {
    /// File, folder or synthetic spec, for messages and provenance.
    fn name(&self) -> String;

    /// Copies `out.len()` values of the tensor, row-major, from element `start` on. Called from many threads.
    ///
    /// # Errors
    /// If the tensor or one of its values cannot be had, or is not finite.
    ///
    /// # Panics
    /// May panic if the model has no such tensor or the range leaves it: the caller reads the tensor table.
    fn read(&self, tensor: &str, start: usize, out: &mut [f32]) -> Result<(), WeightsError>;
}

/// Refuses NaN and infinities.
///
/// # Errors
/// [`WeightsError::NotFinite`] for the first one; `start` is the row-major index of `values[0]`.
pub fn check_finite(source_name: &str, tensor: &str, start: usize, values: &[f32]) -> Result<(), WeightsError> {
    // One pass without branches, and the search only if needed: exponents of all ones are what is not finite.
    let largest = values.iter().fold(0u32, |largest, value| largest.max(value.to_bits() & 0x7FFF_FFFF));
    if largest < f32::INFINITY.to_bits() {
        return Ok(());
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(WeightsError::NotFinite {
            source_name: source_name.to_string(),
            tensor: tensor.to_string(),
            element: start + index,
            value: values[index],
        }),
    }
}
