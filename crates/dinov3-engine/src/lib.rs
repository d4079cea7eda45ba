//! The hall: images from a [`Source`], in batches through an [`Encoder`](dinov3_model::encoder::Encoder), in the
//! source's order to a [`Sink`].
//!
//! What this room does: it loads on several threads within a memory limit, gathers images of equal size into
//! batches, keeps the order, turns a bad image into a value instead of an end, reports progress and can be
//! cancelled. What it does not know: files, formats, networks, models. Keys are opaque: a path, a request id or a
//! window rides along unopened. The number of threads and the time that a load takes decide neither which images
//! share a batch nor what is delivered.
//!
//! ```
//! use dinov3_engine::{ImageFeatures, Item, ItemError, RunOptions, Sink, SinkError, Source, Summary, run};
//! use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Pooling, Request};
//! use dinov3_model::spec::{self, ModelSpec};
//!
//! struct Grey; // three images of one colour each
//! impl Source for Grey {
//!     type Key = u8;
//!     fn keys(&self) -> Box<dyn Iterator<Item = u8> + Send + '_> {
//!         Box::new(0..3)
//!     }
//!     fn load(&self, &key: &u8) -> Result<Option<Item>, ItemError> {
//!         Ok(Some(Item { height_px: 16, width_px: 16, pixels: vec![f32::from(key); 3 * 16 * 16] }))
//!     }
//! }
//!
//! struct First(ModelSpec); // "encodes" an image as its first value
//! impl Encoder for First {
//!     fn spec(&self) -> &ModelSpec {
//!         &self.0
//!     }
//!     fn encode(&mut self, batch: &ImageBatch<'_>, _: &Request, out: &mut Features) -> Result<(), EncodeError> {
//!         out.count = batch.count;
//!         out.pooled.resize_with(1, || (Pooling::Average, Default::default()));
//!         let array = &mut out.pooled[0].1;
//!         array.reshape(&[batch.count, 1]);
//!         let size = batch.pixels.len() / batch.count;
//!         array.data = batch.pixels.iter().step_by(size).copied().collect();
//!         Ok(())
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Rows(Vec<(u8, f32)>);
//! impl Sink<u8> for Rows {
//!     fn write(&mut self, &key: &u8, features: ImageFeatures<'_>) -> Result<(), SinkError> {
//!         let (_, embedding) = features.pooled(0).ok_or_else(|| SinkError::new("no embedding"))?;
//!         self.0.push((key, embedding.data[0]));
//!         Ok(())
//!     }
//!     fn failed(&mut self, _: &u8, _: &ItemError) -> Result<(), SinkError> {
//!         Ok(())
//!     }
//!     fn finish(&mut self, _: &Summary) -> Result<(), SinkError> {
//!         Ok(())
//!     }
//! }
//!
//! let mut encoder = First(spec::all().swap_remove(0));
//! let mut rows = Rows::default();
//! let request = Request::new().poolings([Pooling::Average]);
//! let summary = run(&Grey, &mut encoder, &mut rows, &request, &RunOptions::new())?;
//! assert_eq!(summary.done, 3);
//! assert_eq!(rows.0, [(0, 0.0), (1, 1.0), (2, 2.0)]);
//! # Ok::<(), dinov3_engine::RunError>(())
//! ```
#![forbid(unsafe_code)]

mod loader;
mod options;
mod run;
mod sink;
mod source;

pub use options::{CancelToken, Progress, RunOptions};
pub use run::{FailedItem, RunError, Summary, run};
pub use sink::{ArrayView, ImageFeatures, MapView, Sink, SinkError};
pub use source::{Item, ItemError, ItemErrorKind, Source};
