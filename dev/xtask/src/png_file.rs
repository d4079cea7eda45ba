//! PNG files of pictures.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use dinov3_picture::RgbPicture;

/// Reads a PNG of any kind; transparency is left out.
pub fn read(path: &Path) -> Result<RgbPicture> {
    let named = || path.display().to_string();
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path).with_context(named)?));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().with_context(named)?;
    let mut bytes = vec![0; reader.output_buffer_size().with_context(named)?];
    let info = reader.next_frame(&mut bytes).with_context(named)?;
    bytes.truncate(info.buffer_size());
    let data = match info.color_type {
        png::ColorType::Grayscale => bytes.iter().flat_map(|&grey| [grey; 3]).collect(),
        png::ColorType::GrayscaleAlpha => bytes.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        png::ColorType::Rgba => bytes.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        png::ColorType::Rgb | png::ColorType::Indexed => bytes,
    };
    RgbPicture::new(info.width as usize, info.height as usize, data).with_context(named)
}

/// Writes a PNG as small as it gets: with a palette if 256 colours suffice.
pub fn write(path: &Path, picture: &RgbPicture) -> Result<()> {
    let named = || path.display().to_string();
    let pixels = picture.data().as_chunks::<3>().0;
    let mut colours = pixels.to_vec();
    colours.sort();
    colours.dedup();
    let mut file = BufWriter::new(File::create(path).with_context(named)?);
    let mut encoder = png::Encoder::new(&mut file, picture.width_px() as u32, picture.height_px() as u32);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let indices: Option<Vec<u8>> = (colours.len() <= 256)
        .then(|| pixels.iter().map(|pixel| colours.partition_point(|colour| colour < pixel) as u8).collect());
    if indices.is_some() {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(colours.concat());
        // Neighbours in a palette are not neighbours in colour: differences between them say nothing.
        encoder.set_filter(png::Filter::NoFilter);
    } else {
        encoder.set_color(png::ColorType::Rgb);
    }
    let mut writer = encoder.write_header().with_context(named)?;
    writer.write_image_data(indices.as_deref().unwrap_or(picture.data())).with_context(named)?;
    writer.finish().with_context(named)?;
    file.flush().with_context(named)
}
