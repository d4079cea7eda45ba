//! Rasters of features as cloud optimized GeoTIFFs.
//!
//! ```text
//! header | GDAL's note on the layout | directories: the raster, its overviews, the largest first | tiles of the smallest
//! overview | ... | tiles of the raster
//! ```
//!
//! Where the first tile lies is known when the last one is compressed, so the tiles of each level wait in a temporary file.
//! Each level is made of the one before: a cell of an overview is the mean of up to four cells that hold data.
//!
//! Written here and not by a library: `geotiff-writer` compressed 7 MB/s, `tiff` cannot put directories first.

mod encode;
mod geokeys;
mod tiff;

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use dinov3_geo::AffineTransform;

use crate::atomic::{AtomicFile, Temporary};
use crate::error::OutputError;
use crate::raster::{FeatureBlock, FeatureGrid, FeatureRaster, NorthUpRaster};
use tiff::Entry;

/// A tile has at most so many bytes before it is compressed: what a reader must hold for one cell.
const MOST_TILE_BYTES: usize = 16_000_000;
/// The largest side of a tile, of which few bands make use.
const LARGEST_TILE_PX: u32 = 512;
/// GeoTIFF asks for multiples of it.
const SMALLEST_TILE_PX: u32 = 16;
/// Overviews end with one that is no larger.
const SMALLEST_OVERVIEW_PX: u32 = 128;
/// Values that are read at once, 16 MB.
const READ_VALUES: usize = 4 << 20;
/// Files beyond it have 64-bit offsets.
const LARGEST_CLASSIC_BYTES: u64 = 4_000_000_000;
/// Bytes around a tile, by which GDAL reads it with one request: its size before it, its last four bytes once more after it.
const LEADER_BYTES: u64 = 4;
const TRAILER_BYTES: u64 = 4;

/// What a band's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CogSample {
    /// IEEE 754 binary32; NaN is no data.
    F32,
    /// IEEE 754 binary16; NaN is no data. GDAL reads it as a type of its own from 3.11 on, as binary32 before. Values beyond
    /// ±65504 are an error.
    F16,
    /// 1 to 255; 0 is no data.
    U8,
}

/// Whether GeoTIFF has keys for the reference system of a grid. Without them it is written as text, and programs do not know
/// where the raster lies.
///
/// # Errors
/// The end of a sentence about the grid, with what can be done instead.
pub fn check_reference_system(grid: &FeatureGrid) -> Result<(), String> {
    match geokeys::has_keys(&grid.crs) {
        true => Ok(()),
        false => Err(format!(
            "has the reference system '{}', for which GeoTIFF has no keys: write a Zarr store (.zarr), or give an EPSG code with \
             --crs",
            grid.crs
        )),
    }
}

impl CogSample {
    fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }

    /// TIFF's number of the kind, and the value that is no data.
    fn format(self) -> (u16, &'static str) {
        match self {
            Self::F32 | Self::F16 => (3, "nan"),
            Self::U8 => (1, "0"),
        }
    }
}

/// How a raster is written.
#[derive(Clone, Debug)]
pub struct CogOptions {
    /// What its numbers are.
    pub sample: CogSample,
    /// Whether its three bands are red, green and blue.
    pub is_rgb: bool,
    /// A name for each band, or none.
    pub band_names: Vec<String>,
    /// GDAL's metadata of the whole file.
    pub metadata: Vec<(String, String)>,
}

/// A COG that appears when it is whole.
#[derive(Debug)]
pub struct CogFile {
    file: AtomicFile,
}

impl CogFile {
    /// Starts a file. What can be known to go wrong at the end goes wrong here.
    ///
    /// # Errors
    /// As [`AtomicFile::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, OutputError> {
        Ok(Self { file: AtomicFile::create(path)? })
    }

    /// Writes the raster, north up unless it is rotated, and makes the file appear.
    ///
    /// # Errors
    /// If the raster cannot be read, or the file not be written.
    pub fn write(self, raster: &mut dyn FeatureRaster, options: &CogOptions) -> Result<(), OutputError> {
        let Self { mut file } = self;
        let mut raster = NorthUpRaster::new(raster);
        let (grid, bands) = (raster.grid().clone(), raster.dims());
        let writer = LevelWriter { file: &file, options, tile_px: tile_px(bands, options.sample), bands };
        let (first, mut next) = writer.write(&mut raster)?;
        let mut levels = vec![first];
        while let Some(mut smaller) = next {
            let (level, after) = writer.write(&mut smaller)?;
            levels.push(level);
            next = after;
        }
        let tile_px = writer.tile_px;
        assemble(&mut file, levels, &grid, bands, tile_px, options).map_err(OutputError::write(file.path()))?;
        file.commit()
    }
}

fn tile_px(bands: usize, sample: CogSample) -> u32 {
    let fits = |side: u32| (side * side) as usize * bands * sample.size_bytes() <= MOST_TILE_BYTES;
    let mut side = LARGEST_TILE_PX;
    while side > SMALLEST_TILE_PX && !fits(side) {
        side /= 2;
    }
    side
}

/// The raster or an overview, compressed.
struct Level {
    width_px: u32,
    height_px: u32,
    /// Of each tile, without leader and trailer.
    sizes: Vec<u32>,
    tiles: Temporary,
}

struct LevelWriter<'a> {
    file: &'a AtomicFile,
    options: &'a CogOptions,
    tile_px: u32,
    bands: usize,
}

impl LevelWriter<'_> {
    /// Compresses a raster, and keeps the next smaller one, if there shall be one.
    fn write(&self, raster: &mut dyn FeatureRaster) -> Result<(Level, Option<StoredRaster>), OutputError> {
        let Self { file, options, tile_px, bands } = *self;
        let failed = |error: io::Error| OutputError::write(file.path())(error);
        let grid = raster.grid().clone();
        let mut level =
            Level { width_px: grid.width_px, height_px: grid.height_px, sizes: Vec::new(), tiles: file.another()? };
        let mut half = match grid.width_px.max(grid.height_px) > SMALLEST_OVERVIEW_PX {
            true => Some(StoredRaster::halved(&grid, bands, file.another()?)),
            false => None,
        };
        let side = tile_px as usize;
        let (mut block, mut tile) = (FeatureBlock::default(), vec![f32::NAN; side * side * bands]);
        let columns = (READ_VALUES / tile.len()).max(1) as u32;
        for window in grid.blocks(columns.saturating_mul(tile_px), tile_px) {
            raster.read(window, &mut block)?;
            if options.sample == CogSample::F16
                && let Some(value) = block.values.iter().find(|value| value.abs() > half::f16::MAX.to_f32())
            {
                let problem = format!("{value} is beyond the range of 16-bit floats, -65504 to 65504");
                return Err(failed(io::Error::other(problem)));
            }
            if let Some(half) = &mut half {
                half.put(window.x_px as usize / 2, window.y_px as usize / 2, &block).map_err(failed)?;
            }
            let row_values = block.width_px as usize * bands;
            for first in (0..block.width_px as usize).step_by(side) {
                let width = side.min(block.width_px as usize - first) * bands;
                tile.fill(f32::NAN);
                for (to, row) in tile.chunks_exact_mut(side * bands).zip(block.values.chunks_exact(row_values)) {
                    to[..width].copy_from_slice(&row[first * bands..][..width]);
                }
                let bytes = encode::tile(&tile, side * bands, bands, options.sample).map_err(failed)?;
                level.put(&bytes).map_err(failed)?;
            }
        }
        Ok((level, half))
    }
}

impl Level {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let trailer = &bytes[bytes.len().saturating_sub(TRAILER_BYTES as usize)..];
        self.sizes.push(size);
        self.tiles.write_all(&size.to_le_bytes())?;
        self.tiles.write_all(bytes)?;
        self.tiles.write_all(trailer)
    }

    /// Where its tiles lie if what is in its file begins at `start`, and where that ends.
    fn offsets(&self, start: u64) -> (Vec<u64>, u64) {
        let mut end = start;
        let offsets = self.sizes.iter().map(|&size| {
            let offset = end + LEADER_BYTES;
            end = offset + u64::from(size) + TRAILER_BYTES;
            offset
        });
        (offsets.collect(), end)
    }
}

/// A raster in a temporary file: `[height_px, width_px, D]`.
struct StoredRaster {
    grid: FeatureGrid,
    dims: usize,
    values: Temporary,
    bytes: Vec<u8>,
}

impl StoredRaster {
    /// Half of the columns and rows of `grid`, rounded up; nothing is in it yet.
    fn halved(grid: &FeatureGrid, dims: usize, values: Temporary) -> Self {
        let mut grid = grid.clone();
        (grid.width_px, grid.height_px) = (grid.width_px.div_ceil(2), grid.height_px.div_ceil(2));
        Self { grid, dims, values, bytes: Vec::new() }
    }

    fn start(&self, column: usize, row: usize) -> u64 {
        4 * self.dims as u64 * (row as u64 * u64::from(self.grid.width_px) + column as u64)
    }

    /// Puts the means of a block there, whose first column and row are even.
    fn put(&mut self, column: usize, row: usize, block: &FeatureBlock) -> io::Result<()> {
        let (dims, width, height) = (self.dims, block.width_px as usize, block.height_px as usize);
        for half_row in 0..height.div_ceil(2) {
            self.bytes.clear();
            for half_column in 0..width.div_ceil(2) {
                let rows = 2 * half_row..(2 * half_row + 2).min(height);
                let columns = 2 * half_column..(2 * half_column + 2).min(width);
                let cells = rows.flat_map(|row| columns.clone().map(move |column| row * width + column));
                let cells: Vec<usize> = cells.filter(|&cell| block.valid[cell]).collect();
                for dim in 0..dims {
                    let sum: f64 = cells.iter().map(|&cell| f64::from(block.values[cell * dims + dim])).sum();
                    // 0 / 0 is NaN: no data.
                    self.bytes.extend(((sum / cells.len() as f64) as f32).to_le_bytes());
                }
            }
            let start = self.start(column, row + half_row);
            self.values.seek(SeekFrom::Start(start))?;
            self.values.write_all(&self.bytes)?;
        }
        Ok(())
    }
}

impl FeatureRaster for StoredRaster {
    fn grid(&self) -> &FeatureGrid {
        &self.grid
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn read(&mut self, window: dinov3_geo::PixelWindow, block: &mut FeatureBlock) -> Result<(), OutputError> {
        block.clear(window, self.dims);
        let row_values = window.width_px as usize * self.dims;
        self.bytes.resize(4 * row_values, 0);
        for (row, to) in block.values.chunks_exact_mut(row_values.max(1)).enumerate() {
            let start = self.start(window.x_px as usize, window.y_px as usize + row);
            self.values.read_at(start, &mut self.bytes).map_err(|error| OutputError::Features(error.into()))?;
            let values = self.bytes.as_chunks::<4>().0;
            to.iter_mut().zip(values).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
        }
        for (valid, vector) in block.valid.iter_mut().zip(block.values.chunks_exact(self.dims.max(1))) {
            *valid = !vector[0].is_nan();
        }
        Ok(())
    }
}

/// Puts everything in its place.
fn assemble(
    file: &mut AtomicFile,
    mut levels: Vec<Level>,
    grid: &FeatureGrid,
    bands: usize,
    tile_px: u32,
    options: &CogOptions,
) -> io::Result<()> {
    let tile_bytes: u64 = levels.iter().map(|level| level.offsets(0).1).sum();
    let entries = |starts: &[u64], is_big: bool| -> Vec<Vec<Entry>> {
        let of = |(index, level): (usize, &Level)| {
            let mut entries = entries_of(level, starts[index], index > 0, bands, tile_px, options, is_big);
            if index == 0 {
                entries.extend(georeference(&grid.transform));
                entries.extend(geokeys::tags(&grid.crs));
                entries.extend(metadata(options));
            }
            entries
        };
        levels.iter().enumerate().map(of).collect()
    };
    let sizes = |is_big: bool| -> Vec<u64> {
        let all = entries(&vec![0; levels.len()], is_big);
        all.iter().map(|entries| tiff::directory_bytes(entries, is_big)).collect()
    };
    let index_bytes = |is_big: bool| tiff::preamble(is_big).len() as u64 + sizes(is_big).iter().sum::<u64>();
    let is_big = tile_bytes + index_bytes(true) > LARGEST_CLASSIC_BYTES;
    // The smallest level comes first.
    let mut starts = vec![0; levels.len()];
    let mut end = index_bytes(is_big);
    for (start, level) in starts.iter_mut().zip(&levels).rev() {
        *start = end;
        end = level.offsets(end).1;
    }
    let preamble = tiff::preamble(is_big);
    let mut place = preamble.len() as u64;
    let mut index = preamble;
    let all = entries(&starts, is_big);
    let last = all.len() - 1;
    for (number, (entries, size)) in all.into_iter().zip(sizes(is_big)).enumerate() {
        index.extend(tiff::directory(entries, place, number == last, is_big));
        place += size;
    }
    file.write_all(&index)?;
    for level in levels.iter_mut().rev() {
        io::copy(level.tiles.rewind()?, file)?;
    }
    Ok(())
}

fn entries_of(
    level: &Level,
    start: u64,
    is_overview: bool,
    bands: usize,
    tile_px: u32,
    options: &CogOptions,
    is_big: bool,
) -> Vec<Entry> {
    let sample = options.sample;
    let (compression, predictor) = encode::codes(sample);
    let (format, no_data) = sample.format();
    let colours = if options.is_rgb { 3 } else { 1 };
    let mut entries = vec![
        Entry::long(254, &[is_overview.into()]),
        Entry::long(256, &[level.width_px]),
        Entry::long(257, &[level.height_px]),
        Entry::short(258, &vec![8 * sample.size_bytes() as u16; bands]),
        Entry::short(259, &[compression]),
        // RGB; else 0 is black.
        Entry::short(262, &[if options.is_rgb { 2 } else { 1 }]),
        // At most 65535: a longer vector is refused when its model is opened.
        Entry::short(277, &[bands as u16]),
        Entry::short(284, &[1]),
        Entry::short(317, &[predictor]),
        Entry::long(322, &[tile_px]),
        Entry::long(323, &[tile_px]),
        Entry::offsets(324, &level.offsets(start).0, is_big),
        Entry::long(325, &level.sizes),
        Entry::short(339, &vec![format; bands]),
        Entry::text(42113, no_data),
    ];
    if bands > colours {
        entries.push(Entry::short(338, &vec![0; bands - colours]));
    }
    entries
}

fn georeference(transform: &AffineTransform) -> Vec<Entry> {
    let AffineTransform { a, b, c, d, e, f } = *transform;
    if transform.is_north_up() {
        return vec![Entry::double(33550, &[a, -e, 0.0]), Entry::double(33922, &[0.0, 0.0, 0.0, c, f, 0.0])];
    }
    let matrix = [a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    vec![Entry::double(34264, &matrix)]
}

fn metadata(options: &CogOptions) -> Vec<Entry> {
    let mut xml = String::from("<GDALMetadata>\n");
    for (name, value) in &options.metadata {
        xml.push_str(&format!("  <Item name=\"{}\">{}</Item>\n", escaped(name), escaped(value)));
    }
    for (band, name) in options.band_names.iter().enumerate() {
        let name = escaped(name);
        xml.push_str(&format!("  <Item name=\"DESCRIPTION\" sample=\"{band}\" role=\"description\">{name}</Item>\n"));
    }
    xml.push_str("</GDALMetadata>\n");
    let software = concat!("dinov3 ", env!("CARGO_PKG_VERSION"));
    vec![Entry::text(42112, &xml), Entry::text(305, software)]
}

/// As text or as an attribute. Beyond ASCII as numbers, since the tag is ASCII.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            ' '..='~' | '\n' => out.push(character),
            other => out.push_str(&format!("&#{};", u32::from(other))),
        }
        out
    })
}

#[cfg(test)]
mod tests;
