//! Classification heads that are stored apart from their model, and what they are fed with.

use std::path::{Path, PathBuf};

use dinov3_cpu::{LinearHead, LinearHeadError};
use dinov3_kernels::Isa;
use dinov3_model::array::Array;
use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Pooling, Request};
use dinov3_model::spec::ModelSpec;
use dinov3_model::weights::WeightsError;
use dinov3_packed::PackedFile;
use dinov3_weights::{FileSet, StoredHead, open_files, stored_classes};

use crate::open::{OpenError, Weights};
use crate::packed::{packed_path, with_packed_head};

/// Classes and width of Meta's ImageNet-1k head, which exists for the ViT-7B alone.
const META_IMAGENET_HEAD: (usize, usize) = (1000, 8192);

/// What a head takes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeadInput {
    /// The vector of one pooling, D features, as timm's heads.
    Pooled(Pooling),
    /// The class token, then the mean of the patch tokens, 2·D features, as Meta's heads.
    ClassAndMean,
}

impl HeadInput {
    /// `cls+mean`, or the pooling's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pooled(pooling) => pooling.name(),
            Self::ClassAndMean => "cls+mean",
        }
    }

    /// The input of that name. Poolings that give no vector are none.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "cls+mean" => Some(Self::ClassAndMean),
            _ => Pooling::from_name(name).filter(|pooling| *pooling != Pooling::None).map(Self::Pooled),
        }
    }

    /// The poolings whose vectors are put side by side.
    fn poolings(&self) -> &[Pooling] {
        match self {
            Self::Pooled(pooling) => std::slice::from_ref(pooling),
            Self::ClassAndMean => &[Pooling::Token, Pooling::Average],
        }
    }

    fn width(self, spec: &ModelSpec) -> usize {
        self.poolings().len() * spec.embed_dim()
    }

    fn exists_for(self, spec: &ModelSpec) -> bool {
        spec.vit().is_some() || !self.poolings().contains(&Pooling::Token)
    }
}

/// Why a head cannot be used with a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// A file that holds no head, or values that are none.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A head for vectors of another length.
    #[error("{file}: {tensor} has shape {found:?}, but {model} gives {expected}")]
    Width {
        /// The file.
        file: PathBuf,
        /// The weight's name in it.
        tensor: String,
        /// Its shape: classes, features.
        found: [usize; 2],
        /// The model.
        model: String,
        /// The widths that would do, with the inputs that have them.
        expected: String,
    },
    /// An input that needs a class token, of a model without one.
    #[error("head input '{}' does not exist for {model}: ConvNeXts have no class token", input.name())]
    NoClassToken {
        /// The input asked for.
        input: HeadInput,
        /// The model.
        model: String,
    },
    /// Values that do not make a head.
    #[error(transparent)]
    Linear(#[from] LinearHeadError),
}

/// A linear head with what it is fed with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Head {
    linear: LinearHead,
    input: HeadInput,
    paths: Vec<PathBuf>,
    meta_imagenet: bool,
}

impl Head {
    /// Opens the head in `path` for the model `spec`, packed for `isa` ([`Model::isa`](crate::Model::isa)). Its input is
    /// the one asked for or, by its width, the model's own pooling (D features) or the class token and the mean patch
    /// token (2·D).
    ///
    /// # Errors
    /// If the file holds no head, if the head has another width, or if a value is not finite.
    pub fn open(path: &Path, spec: &ModelSpec, isa: Isa, input: Option<HeadInput>) -> Result<Self, HeadError> {
        let stored = StoredHead::open(path)?;
        let candidates = match input {
            Some(input) if !input.exists_for(spec) => {
                return Err(HeadError::NoClassToken { input, model: spec.name.clone() });
            }
            Some(input) => vec![input],
            None => vec![HeadInput::Pooled(spec.pooling), HeadInput::ClassAndMean],
        };
        let mut candidates = candidates.into_iter().filter(|input| input.exists_for(spec));
        let Some(input) = candidates.clone().find(|input| input.width(spec) == stored.inputs()) else {
            let shape = |input: HeadInput| format!("[{}, {}] ({})", stored.classes(), input.width(spec), input.name());
            let first = candidates.next().map(shape).unwrap_or_default();
            return Err(HeadError::Width {
                file: path.to_path_buf(),
                tensor: stored.weight_name().to_string(),
                found: [stored.classes(), stored.inputs()],
                model: spec.name.clone(),
                expected: candidates.map(shape).fold(first, |text, shape| format!("{text} or {shape}")),
            });
        };
        let shape = (stored.classes(), stored.inputs());
        let meta_imagenet =
            shape == META_IMAGENET_HEAD && stored.weight_name() == "weight" && input == HeadInput::ClassAndMean;
        let (weight, bias) = stored.read()?;
        let linear = LinearHead::new(isa, shape, &weight, &bias)?;
        Ok(Self { linear, input, paths: stored.paths().to_vec(), meta_imagenet })
    }

    /// A head made of values: a linear probe trained elsewhere, say.
    ///
    /// # Errors
    /// If the head has another width than the input.
    pub fn new(linear: LinearHead, spec: &ModelSpec, input: HeadInput) -> Result<Self, HeadError> {
        if !input.exists_for(spec) {
            return Err(HeadError::NoClassToken { input, model: spec.name.clone() });
        }
        if input.width(spec) != linear.inputs() {
            return Err(LinearHeadError::Vectors { inputs: linear.inputs(), found: input.width(spec) }.into());
        }
        Ok(Self { linear, input, paths: Vec::new(), meta_imagenet: false })
    }

    /// Class scores [N, classes] of vectors [N, inputs], as the head's input puts them side by side.
    ///
    /// # Errors
    /// If `vectors` are no whole number of vectors.
    pub fn logits(&self, vectors: &[f32]) -> Result<Array, LinearHeadError> {
        let mut logits = Array::default();
        self.linear.logits(vectors, &mut logits)?;
        Ok(logits)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.linear.classes()
    }

    /// What it is fed with.
    pub fn input(&self) -> HeadInput {
        self.input
    }

    /// The files that it came from.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether this is Meta's ImageNet-1k head by name and shape, so that its classes are known.
    pub fn is_meta_imagenet(&self) -> bool {
        self.meta_imagenet
    }
}

/// The model with the head that its checkpoint holds, told by the shape of `head.weight` or `head.fc.weight`. A model
/// that has a head already stays as it is.
///
/// # Errors
/// If the checkpoint cannot be opened, or if the head is larger than any.
pub fn with_stored_head(spec: ModelSpec, weights: &Weights) -> Result<ModelSpec, OpenError> {
    if let Some(path) = packed_path(weights) {
        return with_packed_head(spec, &PackedFile::open(path)?);
    }
    let path = match weights {
        Weights::Path(path) => path,
        #[cfg(feature = "hub")]
        Weights::Snapshot(snapshot) => &snapshot.weights,
        _ => return Ok(spec),
    };
    match spec.num_classes() {
        0 => Ok(with_head_in(spec, &open_files(path)?)?),
        _ => Ok(spec),
    }
}

/// The same for files that are open already.
///
/// # Errors
/// If the head is larger than any.
pub fn with_head_in(spec: ModelSpec, files: &FileSet) -> Result<ModelSpec, WeightsError> {
    match (spec.num_classes(), stored_classes(files)?) {
        (0, classes @ 1..) => Ok(spec.with_num_classes(classes)),
        _ => Ok(spec),
    }
}

/// An encoder whose class scores come from a head beside it. The pooling of [`Request::logits`] is not looked at: the
/// head knows its input.
pub struct WithHead<E> {
    encoder: E,
    head: Head,
    spec: ModelSpec,
    vectors: Vec<f32>,
}

impl<E: Encoder> WithHead<E> {
    /// Puts `head` on `encoder`.
    pub fn new(encoder: E, head: Head) -> Self {
        let spec = encoder.spec().clone().with_num_classes(head.classes());
        Self { encoder, head, spec, vectors: Vec::new() }
    }
}

impl<E: Encoder> Encoder for WithHead<E> {
    /// The model with this head's number of classes.
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn encode(
        &mut self,
        batch: &ImageBatch<'_>,
        request: &Request,
        features: &mut Features,
    ) -> Result<(), EncodeError> {
        if request.logits.is_none() {
            return self.encoder.encode(batch, request, features);
        }
        let mut wider = request.clone();
        wider.logits = None;
        let needed = self.head.input.poolings();
        wider.poolings.extend(needed.iter().filter(|pooling| !request.poolings.contains(pooling)));
        let mut logits = features.logits.take().unwrap_or_default();
        self.encoder.encode(batch, &wider, features)?;
        self.vectors.clear();
        for image in 0..features.count {
            for pooling in needed {
                let of_kind = features.pooled.iter().find(|(kind, _)| kind == pooling);
                let vector = of_kind.map(|(_, array)| array.item(image)).unwrap_or_default();
                self.vectors.extend_from_slice(vector);
            }
        }
        features.pooled.truncate(request.poolings.len());
        // An encoder that left a pooling out broke its contract; the engine notices that no scores are there.
        if self.head.linear.logits(&self.vectors, &mut logits).is_ok() && logits.shape[0] == features.count {
            features.logits = Some(logits);
        }
        Ok(())
    }
}
