//! STAC documents (SpatioTemporal Asset Catalogs): items and collections of embeddings. No I/O.
#![forbid(unsafe_code)]

mod write;

pub use write::{CollectionFacts, ItemFacts, Link, collection, href, item, rfc3339};
