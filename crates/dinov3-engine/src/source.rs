//! The seam on the way in: ordered keys, and one pure function from key to pixels.

/// One image, ready for the encoder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// Height in pixels.
    pub height_px: usize,
    /// Width in pixels.
    pub width_px: usize,
    /// [3, height_px, width_px], normalised with the model's mean and standard deviation.
    pub pixels: Vec<f32>,
}

/// At which step an image failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ItemErrorKind {
    /// Its bytes could not be read.
    Read,
    /// Its bytes are not an image that we can decode.
    Decode,
    /// It exceeds a limit that was set for this run.
    Limit,
    /// The encoder refused its size.
    Encode,
    /// The code that loaded it panicked.
    Panicked,
    /// Anything else.
    Other,
}

/// Why one image has no features. A value, not an end: it goes to the sink and the run continues.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct ItemError {
    /// The step that failed.
    pub kind: ItemErrorKind,
    /// What happened, for a person; without the key, which the receiver has.
    pub message: String,
}

impl ItemError {
    /// An error of that kind.
    pub fn new(kind: ItemErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }
}

/// Where images come from.
pub trait Source: Sync {
    /// Names an image. Never looked into here; comes back with the image's features.
    type Key: Send + Sync;

    /// The keys in the order in which rows shall appear. Cheap: no image is opened here. The iterator is used by
    /// one thread at a time, and only as far ahead as the run has room for.
    fn keys(&self) -> Box<dyn Iterator<Item = Self::Key> + Send + '_>;

    /// How many keys there will be, if known; only used to report progress.
    fn len_hint(&self) -> Option<usize> {
        None
    }

    /// Whether the sink has this image's row already, from an earlier run: then the image is neither loaded nor
    /// encoded, and [`Sink::known`](crate::Sink::known) is called in its place. Asked once per key, before it would
    /// be loaded, from many threads at once.
    fn is_known(&self, key: &Self::Key) -> bool {
        let _ = key;
        false
    }

    /// Loads one image, or finds that it shall have no row, which is no failure: a chip that is mostly no data. Pure (the
    /// same key gives the same pixels) and called from many threads at once. A panic becomes a failure of this image
    /// alone.
    ///
    /// # Errors
    /// If this image cannot be had.
    fn load(&self, key: &Self::Key) -> Result<Option<Item>, ItemError>;
}
