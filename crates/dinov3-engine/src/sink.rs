//! The seam on the way out: one row per image, in the source's order, and an end that makes the output appear.

use dinov3_model::array::Array;
use dinov3_model::encoder::{Features, Pooling};

use crate::run::Summary;
use crate::source::ItemError;

/// Where rows go: a file, an array in memory, an HTTP answer.
///
/// `write`, `known` or `failed` is called once per key, in the order of the source's keys. `finish` is called once, after
/// the last row, and makes the output appear. A sink that is dropped unfinished leaves nothing behind.
pub trait Sink<K> {
    /// Takes the features of one image.
    ///
    /// # Errors
    /// If they cannot be stored; the run ends.
    fn write(&mut self, key: &K, features: ImageFeatures<'_>) -> Result<(), SinkError>;

    /// Puts the row of an image here that [`Source::is_known`](crate::Source::is_known) said it has already. Only
    /// sinks whose source ever says so need this.
    ///
    /// # Errors
    /// If it has none, or if it cannot be stored; the run ends.
    fn known(&mut self, key: &K) -> Result<(), SinkError> {
        let _ = key;
        Err(SinkError::new("the source said that a row is known, and this sink keeps none"))
    }

    /// Learns that an image has no features.
    ///
    /// # Errors
    /// If this cannot be stored; the run ends.
    fn failed(&mut self, key: &K, error: &ItemError) -> Result<(), SinkError>;

    /// Completes the output.
    ///
    /// # Errors
    /// If it cannot be completed; then it does not appear.
    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError>;
}

impl<K, T: Sink<K> + ?Sized> Sink<K> for Box<T> {
    fn write(&mut self, key: &K, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        (**self).write(key, features)
    }

    fn known(&mut self, key: &K) -> Result<(), SinkError> {
        (**self).known(key)
    }

    fn failed(&mut self, key: &K, error: &ItemError) -> Result<(), SinkError> {
        (**self).failed(key, error)
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        (**self).finish(summary)
    }
}

/// Why a sink could not go on. Carries the sink's own error; use [`SinkError::downcast_ref`] to see which.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SinkError(Box<dyn std::error::Error + Send + Sync>);

impl SinkError {
    /// Wraps any error, or a message.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The sink's own error, if it is of this type.
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }

    /// The sink's own error.
    pub fn get_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

/// One image's part of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArrayView<'a> {
    /// Extent of each dimension, without that of the batch.
    pub shape: &'a [usize],
    /// `shape.iter().product()` values, row-major.
    pub data: &'a [f32],
}

/// One image's output of a block or stage.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct MapView<'a> {
    /// Block (ViT) or stage (ConvNeXt) index.
    pub index: usize,
    /// [D, h, w], or [h · w, D] if rows were asked for.
    pub map: ArrayView<'a>,
    /// [P, D]: CLS and registers, if asked for.
    pub prefix_tokens: Option<ArrayView<'a>>,
}

/// One image's part of the features of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ImageFeatures<'a> {
    features: &'a Features,
    index: usize,
}

impl<'a> ImageFeatures<'a> {
    /// The features of image `index`; nothing if there is no such image, or if an array's shape, its length and
    /// the number of images do not agree. After this check no accessor can fail.
    pub fn new(features: &'a Features, index: usize) -> Option<Self> {
        (index < features.count && inconsistency(features).is_none()).then_some(Self { features, index })
    }

    /// For the engine, which checks a batch once and not per image.
    pub(crate) fn new_checked(features: &'a Features, index: usize) -> Self {
        Self { features, index }
    }

    fn view(&self, array: &'a Array) -> ArrayView<'a> {
        ArrayView { shape: array.shape.get(1..).unwrap_or_default(), data: array.item(self.index) }
    }

    /// Pooling `position` in request order and its values: `[D]`, or a matrix or map for pooling `none`.
    pub fn pooled(&self, position: usize) -> Option<(Pooling, ArrayView<'a>)> {
        let (pooling, array) = self.features.pooled.get(position)?;
        Some((*pooling, self.view(array)))
    }

    /// `forward_features`: [T, D] or [C, h, w].
    pub fn tokens(&self) -> Option<ArrayView<'a>> {
        self.features.tokens.as_ref().map(|array| self.view(array))
    }

    /// The requested taps, ascending.
    pub fn maps(&self) -> impl ExactSizeIterator<Item = MapView<'a>> {
        let this = *self;
        this.features.maps.iter().map(move |tap| MapView {
            index: tap.index,
            map: this.view(&tap.map),
            prefix_tokens: tap.prefix_tokens.as_ref().map(|array| this.view(array)),
        })
    }

    /// Class scores: `[num_classes]`, or one such vector per position for pooling `none`.
    pub fn logits(&self) -> Option<ArrayView<'a>> {
        self.features.logits.as_ref().map(|array| self.view(array))
    }
}

/// Every array of a batch's features.
pub(crate) fn arrays(features: &Features) -> impl Iterator<Item = &Array> {
    let maps = features.maps.iter().flat_map(|tap| std::iter::once(&tap.map).chain(&tap.prefix_tokens));
    let pooled = features.pooled.iter().map(|(_, array)| array);
    pooled.chain(&features.tokens).chain(maps).chain(&features.logits)
}

/// The first array whose shape, length and number of images do not agree, as a sentence.
pub(crate) fn inconsistency(features: &Features) -> Option<String> {
    let count = features.count;
    arrays(features).find_map(|Array { shape, data }| {
        let values = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        let agrees = shape.first() == Some(&count) && values == Some(data.len());
        let found = data.len();
        (!agrees).then(|| format!("an array of shape {shape:?} with {found} values for {count} images"))
    })
}
