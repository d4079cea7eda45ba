//! What DINOv3 *is*: the model table, the tensor table, the checkpoint dialects, the seams, and a slow, safe,
//! obvious forward pass that everything faster is compared with.
#![forbid(unsafe_code)]

pub mod array;
pub mod config_json;
pub mod cost;
pub mod description;
pub mod dialect;
pub mod encoder;
pub mod reference;
pub mod rope;
pub mod spec;
pub mod synthetic;
pub mod tensors;
pub mod weights;
