//! STAC documents (SpatioTemporal Asset Catalogs): items and collections of embeddings. No I/O.
#![forbid(unsafe_code)]

mod href;
mod json;
mod read;
mod write;

pub use href::{href, path_of_uri, relative_href, uri_of};
pub use json::parse_json;
pub use read::{Asset, Document, Item, StacError, format_datetime, parse_datetime, parse_document, resolve};
pub use write::{AssetFacts, CollectionFacts, EMBEDDINGS_ASSET, GridFacts, ItemFacts, Link, collection, item};
