//! The targets, by the room whose door they knock at.

mod basis;
mod config;
mod geotiff;
mod npy;
mod packed;
mod pictures;
mod scenes;
mod torch;
mod weights;

use crate::Target;

/// All targets.
pub(crate) const ALL: &[Target] = &[
    weights::SAFETENSORS,
    weights::SHARD_INDEX,
    torch::PICKLE,
    torch::ZIP,
    config::CONFIG,
    npy::NPY,
    basis::BASIS,
    scenes::DENSE_BASIS,
    scenes::AREA,
    scenes::STAC,
    scenes::WORK_LIST,
    pictures::ORIENTATION,
    weights::CHECKPOINT,
    packed::PACKED,
    pictures::JPEG,
    pictures::PNG,
    pictures::WEBP,
    pictures::TIFF,
    pictures::BMP,
    geotiff::GEOTIFF,
];

/// What is refused, is refused with a reason that can be shown.
fn has_a_reason(error: &dyn std::fmt::Display) {
    assert!(!error.to_string().trim().is_empty(), "an error without a message");
}

/// A safetensors file with this header and `data_bytes` bytes of values: 1.0 as f32, again and again.
fn safetensors_file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(1.0_f32.to_le_bytes().into_iter().cycle().take(data_bytes));
    bytes
}
