//! GeoTIFFs and COGs, decoded by the `tiff-reader` crate, block by block.
//!
//! Which blocks a window needs, what a block that is not stored holds, masks, no-data values and the georeference are
//! decided here; that crate parses directories and decodes blocks, except those of JPEG, which libjpeg decodes as GDAL's
//! does.

mod describe;
mod georeference;
mod grid;
mod jpeg;
mod metadata;

use std::ops::Range;
use std::sync::Arc;

use dinov3_geo::PixelWindow;
use tiff_reader::{ByteOrder, Ifd, OpenOptions, ParseBudgets, TiffError, TiffFile};

use crate::RasterError;
use crate::cache::{BlockCache, BlockKey};
use crate::location::Location;
use crate::opener::Options;
use crate::profile::{MaskKind, RasterProfile};
use crate::raster::{Raster, RasterWindow, check_request};
use crate::samples::{Samples, Stored, for_samples};
use crate::source::{AsTiffSource, ByteSource};

use describe::{Image, StoredType};
use grid::{Block, Grid};

/// How much is fetched before it is decoded: a bound for windows of many blocks.
const FETCHED_AT_ONCE_BYTES: u64 = 32 << 20;
const COMPRESSION_JPEG: u16 = 7;
const COMPRESSION_LERC: u16 = 34887;
/// Directories in a file.
const MOST_DIRECTORIES: usize = 1024;
/// Tags in a directory.
const MOST_TAGS: usize = 4096;
/// A table of 16 million blocks.
const LARGEST_TAG_BYTES: usize = 128 << 20;
const LARGEST_INDEX_BYTES: usize = 512 << 20;

/// An open file; its images share it.
struct File {
    location: Location,
    tiff: TiffFile,
    source: Arc<dyn ByteSource>,
    cache: Arc<BlockCache>,
    number: u64,
    options: Options,
    /// The raster, then its overviews, the largest first.
    images: Vec<Image>,
}

impl Drop for File {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

/// The raster of a file, or one of its overviews.
pub(crate) struct GeoTiff {
    file: Arc<File>,
    image: usize,
}

impl GeoTiff {
    /// Reads the file's index.
    pub fn open(
        location: Location,
        source: Arc<dyn ByteSource>,
        cache: Arc<BlockCache>,
        options: &Options,
    ) -> Result<Self, RasterError> {
        let errors = Errors { location: &location };
        if source.length_bytes() == 0 {
            return Err(RasterError::NotTiff {
                location: location.shown(),
                reason: "it is empty".to_string(),
                remedy: location.translate(""),
            });
        }
        let tiff_options = OpenOptions {
            // Blocks are cached here, over all files.
            block_cache_bytes: 0,
            block_cache_slots: 0,
            parse_budgets: ParseBudgets {
                max_ifds: MOST_DIRECTORIES,
                max_ifd_entries: MOST_TAGS,
                max_tag_value_bytes: LARGEST_TAG_BYTES,
                max_metadata_value_bytes: LARGEST_INDEX_BYTES,
            },
            decode_output_bytes: usize::try_from(options.largest_block_bytes).unwrap_or(usize::MAX),
        };
        let adapter = Arc::new(AsTiffSource { source: Arc::clone(&source), location: location.shown() });
        let tiff = TiffFile::from_source_with_options(adapter, tiff_options).map_err(|error| errors.tell(error))?;
        source.index_is_read();
        let images = describe::images(&tiff, &location, options.largest_block_bytes)?;
        let number = cache.new_file();
        let file = File { location, tiff, source, cache, number, options: options.clone(), images };
        Ok(Self { file: Arc::new(file), image: 0 })
    }

    fn image(&self) -> &Image {
        &self.file.images[self.image]
    }

    /// The blocks of one grid that a window inside of the raster touches, in the order of the file's tables.
    fn blocks<'a>(
        &'a self,
        grid: &'a Grid,
        inside: PixelWindow,
        planes: &'a [usize],
    ) -> impl Iterator<Item = Block> + 'a {
        planes.iter().flat_map(move |&plane| grid.blocks(inside, plane))
    }

    fn directory(&self, grid: &Grid) -> Result<&Ifd, RasterError> {
        self.file.tiff.ifd(grid.directory).map_err(|error| self.file.tell(error))
    }

    /// Which parts of the file the window needs that are neither decoded, nor being decoded, nor absent.
    fn needed(&self, window: PixelWindow, bands: &[usize]) -> Result<Vec<Range<u64>>, RasterError> {
        let image = self.image();
        let Some(inside) = image.profile.window().intersection(&window) else { return Ok(Vec::new()) };
        let mut ranges = Vec::new();
        let mut add = |grid: &Grid, planes: &[usize]| -> Result<(), RasterError> {
            let directory = self.directory(grid)?;
            for block in self.blocks(grid, inside, planes) {
                if let Some(stored) = grid.stored(directory, block.index)
                    && !self.file.cache.is_coming(&self.file.key(grid, block.index))
                {
                    // COGs repeat a block's length before it and its last bytes behind it.
                    let range = stored.start.saturating_sub(4)
                        ..stored.end.saturating_add(4).min(self.file.source.length_bytes());
                    // What lies beyond the file's end is an error when it is decoded.
                    if range.start < range.end {
                        ranges.push(range);
                    }
                }
            }
            Ok(())
        };
        add(&image.grid, &image.planes(bands))?;
        if let Some(mask) = &image.mask {
            add(mask, &[0])?;
        }
        Ok(ranges)
    }

    /// Copies what is stored of `bands` (samples of `grid`) into `samples`, which is a window of `inside` and its
    /// surroundings.
    fn gather(
        &self,
        grid: &Grid,
        stored: StoredType,
        window: PixelWindow,
        inside: PixelWindow,
        bands: &[usize],
        samples: &mut Samples,
    ) -> Result<(), RasterError> {
        let directory = self.directory(grid)?;
        for plane in grid.planes_of(bands) {
            let picks = grid.picks(plane, bands);
            for block in grid.blocks(inside, plane) {
                if grid.stored(directory, block.index).is_none() {
                    continue;
                }
                let bytes = self.file.decode(grid, directory, &block)?;
                let copy = Copy {
                    block: &block,
                    bytes: &bytes,
                    samples_per_pixel: grid.samples_per_pixel,
                    picks: &picks,
                    window,
                    inside,
                };
                copy.run(stored, samples).ok_or_else(|| RasterError::Damaged {
                    location: self.file.location.shown(),
                    reason: format!("block {} holds {} bytes only", block.index, bytes.len()),
                })?;
            }
        }
        Ok(())
    }

    /// Which pixels of the window hold data.
    fn validity(
        &self,
        window: PixelWindow,
        inside: PixelWindow,
        samples: &Samples,
        bands: usize,
    ) -> Result<Vec<bool>, RasterError> {
        let image = self.image();
        let pixels = window.pixels() as usize;
        let mut valid = match (image.profile.mask, &image.mask) {
            (MaskKind::Internal, Some(mask)) => {
                let mut values = Samples::U8(vec![0; pixels]);
                self.gather(mask, StoredType::U8, window, inside, &[0], &mut values)?;
                return Ok(above_zero(&values));
            }
            (MaskKind::Alpha { band }, _) => {
                let mut values = Samples::filled(image.profile.sample_type, 0.0, pixels);
                self.gather(&image.grid, image.stored, window, inside, &[band], &mut values)?;
                return Ok(above_zero(&values));
            }
            (MaskKind::NoData, _) => {
                let no_data = image.profile.no_data.as_ref().map_or(0.0, |no_data| no_data.value);
                let mut valid = vec![false; pixels];
                for_samples!(samples, values => for band in values.chunks_exact(pixels).take(bands) {
                    for (valid, value) in valid.iter_mut().zip(band) {
                        *valid |= !value.means_no_data(no_data);
                    }
                });
                valid
            }
            _ => vec![true; pixels],
        };
        if inside != window {
            let width = window.width_px as usize;
            for (row, valid) in valid.chunks_exact_mut(width).enumerate() {
                let y_px = window.y_px.saturating_add(row as i64);
                let is_inside = (inside.y_px..inside.bottom_px()).contains(&y_px);
                let left = (inside.x_px - window.x_px) as usize;
                for (column, valid) in valid.iter_mut().enumerate() {
                    *valid &= is_inside && (left..left + inside.width_px as usize).contains(&column);
                }
            }
        }
        Ok(valid)
    }
}

impl Raster for GeoTiff {
    fn profile(&self) -> &RasterProfile {
        &self.image().profile
    }

    fn version(&self) -> Option<(u64, &str)> {
        let source = &self.file.source;
        Some((source.length_bytes(), source.version()?))
    }

    fn read(&self, window: PixelWindow, bands: &[usize]) -> Result<RasterWindow, RasterError> {
        let image = self.image();
        let profile = &image.profile;
        check_request(profile, window, bands, self.file.options.largest_window_bytes)?;
        let pixels = window.pixels() as usize;
        let fill = profile.no_data.as_ref().map_or(0.0, |no_data| no_data.value);
        let mut samples = Samples::filled(profile.sample_type, fill, pixels * bands.len());
        let Some(inside) = profile.window().intersection(&window) else {
            return Ok(RasterWindow { window, bands: bands.len(), samples, valid: vec![false; pixels] });
        };
        let needed = self.needed(window, bands)?;
        let total_bytes: u64 = needed.iter().map(|range| range.end - range.start).sum();
        if total_bytes <= FETCHED_AT_ONCE_BYTES {
            self.file.source.fetch(&needed)?;
            self.gather(&image.grid, image.stored, window, inside, bands, &mut samples)?;
        } else {
            // Row of blocks by row of blocks: what is fetched is held until it is decoded.
            for strip in image.grid.rows_of_blocks(inside) {
                self.file.source.fetch(&self.needed(strip, bands)?)?;
                self.gather(&image.grid, image.stored, window, strip, bands, &mut samples)?;
            }
        }
        let valid = self.validity(window, inside, &samples, bands.len())?;
        Ok(RasterWindow { window, bands: bands.len(), samples, valid })
    }

    fn is_empty(&self, window: PixelWindow) -> bool {
        let image = self.image();
        let Some(inside) = image.profile.window().intersection(&window) else { return true };
        let (grid, plane) = match (image.profile.mask, &image.mask) {
            (MaskKind::Internal, Some(mask)) => (mask, Some(0)),
            (MaskKind::Alpha { band }, _) => (&image.grid, Some(image.grid.plane_of(band))),
            (MaskKind::NoData, _) => (&image.grid, None),
            _ => return false,
        };
        let Ok(directory) = self.directory(grid) else { return false };
        let planes = plane.map_or(0..grid.planes, |plane| plane..plane + 1);
        planes
            .into_iter()
            .all(|plane| grid.blocks(inside, plane).all(|block| grid.stored(directory, block.index).is_none()))
    }

    fn prefetch(&self, windows: &[PixelWindow], bands: &[usize]) {
        if bands.iter().any(|&band| band >= self.profile().bands.len()) {
            return;
        }
        // All at once: what lies side by side in the file is one request, whatever windows it is for.
        let ranges: Vec<_> = windows.iter().filter_map(|window| self.needed(*window, bands).ok()).flatten().collect();
        self.file.source.prefetch(&ranges);
    }

    fn overview(&self, level: usize) -> Result<Box<dyn Raster>, RasterError> {
        let image = self.image.saturating_add(level).saturating_add(1);
        // An overview has no overviews of its own: the others are the raster's.
        if self.image != 0 || image >= self.file.images.len() {
            let location = self.file.location.shown();
            return Err(RasterError::NoSuchOverview { location, level, overviews: self.profile().overviews.len() });
        }
        Ok(Box::new(Self { file: Arc::clone(&self.file), image }))
    }
}

impl File {
    fn key(&self, grid: &Grid, index: usize) -> BlockKey {
        BlockKey { file: self.number, directory_offset: grid.directory_offset, index }
    }

    fn tell(&self, error: TiffError) -> RasterError {
        Errors { location: &self.location }.tell(error)
    }

    /// The samples of a block, cut to the raster.
    fn decode(&self, grid: &Grid, directory: &Ifd, block: &Block) -> Result<Arc<Vec<u8>>, RasterError> {
        self.cache.get_or_decode(self.key(grid, block.index), || {
            if directory.compression() == COMPRESSION_JPEG {
                return jpeg::decode(&*self.source, &self.location, grid, directory, block);
            }
            let [row, column] = [block.window.y_px as usize, block.window.x_px as usize];
            let [rows, columns] = [block.window.height_px as usize, block.window.width_px as usize];
            let bytes = match grid.is_planar {
                false => self.tiff.read_window_bytes_from_ifd(directory, row, column, rows, columns),
                true => self.tiff.read_band_window_bytes_from_ifd(directory, block.plane, row, column, rows, columns),
            };
            let mut bytes = bytes.map_err(|error| self.tell(error))?;
            // libtiff swaps the bytes of big-endian samples before LERC sees them, and after; `tiff-reader` does not.
            if self.tiff.byte_order() == ByteOrder::BigEndian && directory.compression() == COMPRESSION_LERC {
                let pixels = rows * columns * if grid.is_planar { 1 } else { grid.samples_per_pixel };
                let sample_bytes = (bytes.len() / pixels.max(1)).max(1);
                bytes.chunks_exact_mut(sample_bytes).for_each(<[u8]>::reverse);
            }
            Ok(bytes)
        })
    }
}

/// One block, copied into a window.
struct Copy<'a> {
    block: &'a Block,
    bytes: &'a [u8],
    samples_per_pixel: usize,
    /// The sample within a stored pixel, and the band of the window that it becomes.
    picks: &'a [(usize, usize)],
    window: PixelWindow,
    inside: PixelWindow,
}

impl Copy<'_> {
    fn run(&self, stored: StoredType, samples: &mut Samples) -> Option<()> {
        match (stored, samples) {
            (StoredType::U8, Samples::U8(target)) => self.copy::<u8>(target),
            (StoredType::I8, Samples::I8(target)) => self.copy::<i8>(target),
            (StoredType::U16, Samples::U16(target)) => self.copy::<u16>(target),
            (StoredType::I16, Samples::I16(target)) => self.copy::<i16>(target),
            (StoredType::U32, Samples::U32(target)) => self.copy::<u32>(target),
            (StoredType::I32, Samples::I32(target)) => self.copy::<i32>(target),
            (StoredType::F16, Samples::F32(target)) => self.copy::<half::f16>(target),
            (StoredType::F32, Samples::F32(target)) => self.copy::<f32>(target),
            (StoredType::F64, Samples::F64(target)) => self.copy::<f64>(target),
            _ => None,
        }
    }

    fn copy<S: Stored>(&self, target: &mut [S::Given]) -> Option<()> {
        let part = self.block.window.intersection(&self.inside)?;
        let pixel_bytes = self.samples_per_pixel * S::SIZE_BYTES;
        let block_width = self.block.window.width_px as usize;
        let (width, pixels) = (self.window.width_px as usize, self.window.pixels() as usize);
        let count = part.width_px as usize;
        for row in part.y_px..part.bottom_px() {
            let from_row = (row - self.block.window.y_px) as usize;
            let from = (from_row * block_width + (part.x_px - self.block.window.x_px) as usize) * pixel_bytes;
            let line = self.bytes.get(from..from + count * pixel_bytes)?;
            let to = (row - self.window.y_px) as usize * width + (part.x_px - self.window.x_px) as usize;
            for &(sample, band) in self.picks {
                let target = target.get_mut(band * pixels + to..band * pixels + to + count)?;
                let at = sample * S::SIZE_BYTES;
                for (value, pixel) in target.iter_mut().zip(line.chunks_exact(pixel_bytes)) {
                    *value = S::read(&pixel[at..at + S::SIZE_BYTES]);
                }
            }
        }
        Some(())
    }
}

fn above_zero(samples: &Samples) -> Vec<bool> {
    for_samples!(samples, values => values.iter().map(|&value| value > Default::default()).collect())
}

/// Whether a value is the one that means no data: GDAL's comparison, which gives floats a few units in the last place.
trait MeansNoData {
    fn means_no_data(&self, no_data: f64) -> bool;
}

macro_rules! means_no_data_exactly {
    ($($type:ty),+) => {$(
        impl MeansNoData for $type {
            fn means_no_data(&self, no_data: f64) -> bool {
                f64::from(*self) == no_data
            }
        }
    )+};
}
means_no_data_exactly!(u8, i8, u16, i16, u32, i32);

impl MeansNoData for f32 {
    fn means_no_data(&self, no_data: f64) -> bool {
        let no_data = crate::samples::narrowed(no_data);
        if no_data.is_nan() {
            return self.is_nan();
        }
        *self == no_data || (*self - no_data).abs() < f32::EPSILON * (*self + no_data).abs() * 2.0
    }
}

impl MeansNoData for f64 {
    fn means_no_data(&self, no_data: f64) -> bool {
        if no_data.is_nan() {
            return self.is_nan();
        }
        *self == no_data || (*self - no_data).abs() < f64::EPSILON * (*self + no_data).abs() * 2.0
    }
}

/// The TIFF reader's errors in our words.
struct Errors<'a> {
    location: &'a Location,
}

impl Errors<'_> {
    fn tell(&self, error: TiffError) -> RasterError {
        let location = self.location.shown();
        let remedy = || self.location.translate("");
        match error {
            TiffError::Io(error, _) => {
                let reason = error.to_string();
                match error.into_inner().map(|inner| inner.downcast::<RasterError>()) {
                    Some(Ok(ours)) => *ours,
                    _ => RasterError::Io { location, reason },
                }
            }
            error @ (TiffError::InvalidMagic
            | TiffError::UnsupportedVersion(_)
            | TiffError::InvalidBigTiffHeader(_)) => {
                RasterError::NotTiff { location, reason: error.to_string(), remedy: remedy() }
            }
            TiffError::UnsupportedCompression(code) => {
                RasterError::Unsupported { location, feature: format!("compression {code}"), remedy: remedy() }
            }
            error @ (TiffError::UnsupportedPredictor(_)
            | TiffError::UnsupportedPlanarConfiguration(_)
            | TiffError::UnsupportedBitsPerSample(_)
            | TiffError::UnsupportedSampleFormat(_)) => {
                let feature = format!("an {error}");
                RasterError::Unsupported { location, feature, remedy: remedy() }
            }
            TiffError::DecodeOutputTooLarge { requested, limit } => RasterError::TooLarge {
                location,
                what: "a block".to_string(),
                needed_bytes: requested as u64,
                limit_bytes: limit as u64,
                remedy: remedy(),
            },
            other => {
                // Texts of the file may be quoted in it.
                let reason: String = other.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                RasterError::Damaged { location, reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_is_compared_as_gdal_does() {
        assert!((-9999f32).means_no_data(-9999.0) && !(-9998f32).means_no_data(-9999.0));
        assert!(f32::MIN.means_no_data(-3.402823466e+38) && f32::MIN.means_no_data(-3.4028234663852886e+38));
        assert!(f32::NAN.means_no_data(f64::NAN) && !0f32.means_no_data(f64::NAN) && !f32::NAN.means_no_data(0.0));
        assert!(0.1f32.means_no_data(0.1), "0.1 as text is another number as f32");
        assert!(!255u8.means_no_data(255.5));
    }
}
