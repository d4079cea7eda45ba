//! Weights from the Hugging Face Hub, in the cache that `huggingface_hub` keeps: it finds what this crate downloads,
//! and this crate finds what it downloaded.
//!
//! [`Hub::fetch`] gives a [`Snapshot`]: a folder with `model.safetensors`, or its index and shards, at one commit.
//! An interrupted download is continued, a hash is checked before a file counts as there, and of several processes
//! one downloads while the others wait. Without a network, what the cache holds is used.

mod cache;
mod download;
mod error;
mod fetch;
mod reference;
mod settings;

pub use error::HubError;
pub use fetch::{CachedBecause, Event, FetchedFile, Hub, Snapshot};
pub use reference::HubReference;
pub use settings::Settings;
