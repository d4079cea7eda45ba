//! Blocks that are JPEGs, whose tables may stand in the directory.

use dinov3_jpeg::{Colours, Header};
use tiff_reader::Ifd;

use super::grid::{Block, Grid};
use crate::RasterError;
use crate::location::Location;
use crate::source::ByteSource;

const TAG_JPEG_TABLES: u16 = 347;
const PHOTOMETRIC_YCBCR: u16 = 6;

/// The samples of a block, cut to the raster.
pub(super) fn decode(
    source: &dyn ByteSource,
    location: &Location,
    grid: &Grid,
    directory: &Ifd,
    block: &Block,
) -> Result<Vec<u8>, RasterError> {
    let damaged = |reason: String| {
        let reason = format!("block {}: JPEG: {reason}", block.index);
        RasterError::Damaged { location: location.shown(), reason }
    };
    let Some(stored) = grid.stored(directory, block.index) else { return Err(damaged("it is not stored".to_owned())) };
    let bytes = source.read(stored)?;
    let tables = directory.tag(TAG_JPEG_TABLES).and_then(|tag| tag.value.as_bytes()).unwrap_or_default();
    let header = dinov3_jpeg::read_header(&bytes).map_err(|error| damaged(error.to_string()))?;
    let Header { width_px, height_px, components, bits } = header;
    // The last strip may end with the raster. So the values are within the limit for blocks.
    let is_whole = width_px == grid.block_width_px
        && (block.window.height_px..=grid.block_height_px).contains(&height_px)
        && components as usize == grid.samples_per_pixel
        && bits == 8;
    if !is_whole {
        return Err(damaged(format!(
            "{width_px} x {height_px} px of {components} samples of {bits} bits instead of {} x {} px of {} samples of 8 bits",
            grid.block_width_px, grid.block_height_px, grid.samples_per_pixel
        )));
    }
    // What components mean says the TIFF, whatever markers the stream has.
    let is_ycbcr = directory.photometric_interpretation() == Some(PHOTOMETRIC_YCBCR) && components == 3;
    let colours = if is_ycbcr { Colours::OfYCbCr } else { Colours::AsStored };
    let mut values = vec![0; header.decoded_bytes() as usize];
    dinov3_jpeg::decode(tables, &bytes, &header, colours, &mut values).map_err(|error| damaged(error.to_string()))?;
    let (row, kept) = (width_px as usize * components as usize, block.window.width_px as usize * components as usize);
    if row == kept {
        values.truncate(row * block.window.height_px as usize);
        return Ok(values);
    }
    Ok(values.chunks_exact(row).take(block.window.height_px as usize).flat_map(|row| &row[..kept]).copied().collect())
}
