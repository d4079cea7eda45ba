//! What the directories of a TIFF say about its images, and which of it is not read here.

use tiff_reader::{ColorModel, ExtraSample, Ifd, TiffFile};

use super::grid::Grid;
use super::metadata::GdalMetadata;
use super::{Errors, georeference};
use crate::RasterError;
use crate::location::Location;
use crate::profile::{BandProfile, BlockLayout, Colour, Georeference, MaskKind, NoData, Photometric, RasterProfile};
use crate::samples::SampleType;

const TAG_NEW_SUBFILE_TYPE: u16 = 254;
const TAG_DATETIME: u16 = 306;
const TAG_COLOR_MAP: u16 = 320;
const TAG_GDAL_METADATA: u16 = 42112;
const TAG_GDAL_NODATA: u16 = 42113;
/// Bits of `NewSubfileType`.
const REDUCED: u32 = 1;
const MASK: u32 = 4;
/// More are not listed.
const MOST_OVERVIEWS: usize = 64;

/// How a sample lies in a decoded block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F16,
    F32,
    F64,
}

impl StoredType {
    fn given(self) -> SampleType {
        match self {
            Self::U8 => SampleType::U8,
            Self::I8 => SampleType::I8,
            Self::U16 => SampleType::U16,
            Self::I16 => SampleType::I16,
            Self::U32 => SampleType::U32,
            Self::I32 => SampleType::I32,
            Self::F16 | Self::F32 => SampleType::F32,
            Self::F64 => SampleType::F64,
        }
    }
}

/// An image of the file.
pub(super) struct Image {
    pub grid: Grid,
    pub stored: StoredType,
    /// The blocks of the internal mask.
    pub mask: Option<Grid>,
    pub profile: RasterProfile,
}

impl Image {
    /// The planes of blocks that reading these bands touches, the alpha band's included where it is the mask.
    pub fn planes(&self, bands: &[usize]) -> Vec<usize> {
        match self.profile.mask {
            MaskKind::Alpha { band } => self.grid.planes_of(&[bands, &[band]].concat()),
            _ => self.grid.planes_of(bands),
        }
    }
}

/// The raster and its overviews, the largest first.
pub(super) fn images(
    tiff: &TiffFile,
    location: &Location,
    largest_block_bytes: u64,
) -> Result<Vec<Image>, RasterError> {
    let describe = Describe { tiff, location, largest_block_bytes };
    let kind =
        |ifd: &Ifd| ifd.tag(TAG_NEW_SUBFILE_TYPE).and_then(|tag| tag.value.as_u32()).unwrap_or(0) & (REDUCED | MASK);
    // As for GDAL, the first directory is the raster, whatever it calls itself.
    let mut raster = describe.image(0)?;
    let same_size =
        |ifd: &Ifd, image: &Image| (ifd.width(), ifd.height()) == (image.grid.width_px, image.grid.height_px);
    let others = || tiff.ifds().iter().enumerate().skip(1);
    let mask_of = |image: &Image, kinds: u32| {
        let found = others().find(|(_, ifd)| kind(ifd) == kinds && same_size(ifd, image));
        found.map(|(directory, _)| describe.mask(directory)).transpose()
    };
    raster.take_mask(mask_of(&raster, MASK)?);
    raster.profile.further_images = others().filter(|(_, ifd)| kind(ifd) == 0).count();

    let mut overviews: Vec<Image> = Vec::new();
    for (directory, ifd) in others().filter(|(_, ifd)| kind(ifd) == REDUCED).take(MOST_OVERVIEWS) {
        if (ifd.width(), ifd.height()) >= (raster.grid.width_px, raster.grid.height_px) {
            continue;
        }
        // What is no picture of the raster, or cannot be read, is not offered.
        let Ok(mut overview) = describe.image(directory) else { continue };
        if overview.stored != raster.stored || overview.profile.bands.len() != raster.profile.bands.len() {
            continue;
        }
        let mask = mask_of(&overview, REDUCED | MASK).unwrap_or_default();
        if raster.mask.is_some() && mask.is_none() {
            continue;
        }
        let columns = f64::from(raster.grid.width_px) / f64::from(overview.grid.width_px);
        let rows = f64::from(raster.grid.height_px) / f64::from(overview.grid.height_px);
        let (grid, photometric) = (overview.profile.clone(), overview.profile.photometric);
        overview.profile = RasterProfile {
            width_px: grid.width_px,
            height_px: grid.height_px,
            blocks: grid.blocks,
            compression: grid.compression,
            predictor: grid.predictor,
            is_planar: grid.is_planar,
            photometric,
            georeference: raster.profile.georeference.with_pixels_scaled_by(columns, rows),
            further_images: 0,
            ..raster.profile.clone()
        };
        overview.take_mask(mask);
        overviews.push(overview);
    }
    overviews.sort_by_key(|overview| std::cmp::Reverse((overview.grid.width_px, overview.grid.height_px)));
    raster.profile.overviews =
        overviews.iter().map(|overview| (overview.grid.width_px, overview.grid.height_px)).collect();
    Ok(std::iter::once(raster).chain(overviews).collect())
}

impl Image {
    fn take_mask(&mut self, mask: Option<Grid>) {
        if mask.is_some() {
            self.profile.mask = MaskKind::Internal;
        }
        self.mask = mask;
    }
}

struct Describe<'a> {
    tiff: &'a TiffFile,
    location: &'a Location,
    largest_block_bytes: u64,
}

impl Describe<'_> {
    fn damaged(&self, reason: impl Into<String>) -> RasterError {
        RasterError::Damaged { location: self.location.shown(), reason: reason.into() }
    }

    fn unsupported(&self, feature: impl Into<String>, options: &str) -> RasterError {
        let (location, remedy) = (self.location.shown(), self.location.translate(options));
        RasterError::Unsupported { location, feature: feature.into(), remedy }
    }

    fn image(&self, directory: usize) -> Result<Image, RasterError> {
        let tell = |error| Errors { location: self.location }.tell(error);
        let ifd = self.tiff.ifd(directory).map_err(|_| self.damaged("it has no image"))?;
        let stored = self.stored_type(ifd)?;
        let compression = self.compression(ifd)?;
        let photometric = self.photometric(ifd)?;
        let layout = ifd.raster_layout().map_err(tell)?;
        let color_model = ifd.color_model().map_err(tell)?;
        let grid = self.grid(
            directory,
            ifd,
            layout.planar_configuration == 2,
            layout.samples_per_pixel,
            layout.bytes_per_sample,
        )?;
        let text = |tag: u16| ifd.tag(tag).and_then(|tag| tag.value.as_str());
        let metadata = GdalMetadata::parse(text(TAG_GDAL_METADATA).unwrap_or_default());
        let mut bands = bands(&color_model, &metadata, layout.samples_per_pixel);
        if photometric == Photometric::Palette
            && let Some(first) = bands.first_mut()
        {
            // As GDAL calls it.
            first.colour = Colour::Named("palette".to_string());
        }
        let no_data = match text(TAG_GDAL_NODATA).map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => {
                let value = number(text)
                    .ok_or_else(|| self.unsupported("a no-data value that is no number", "-a_nodata none"))?;
                Some(NoData { text: text.to_string(), value })
            }
            None => None,
        };
        let sample_type = stored.given();
        let alpha = bands.iter().position(|band| matches!(band.colour, Colour::Alpha { .. }));
        let mask = match (&no_data, alpha) {
            (Some(no_data), _) if can_hold(sample_type, no_data.value) => MaskKind::NoData,
            // A value that no sample can have says nothing. A picture of nothing but opacity is a picture.
            (_, Some(band)) if bands.len() > 1 => MaskKind::Alpha { band },
            _ => MaskKind::AllValid,
        };
        let (georeference, is_pixel_point) = georeference::of(ifd);
        let profile = RasterProfile {
            location: self.location.shown(),
            width_px: grid.width_px,
            height_px: grid.height_px,
            bands,
            sample_type,
            bits_per_sample: layout.bits_per_sample,
            no_data,
            ignored_files: ignored_files(self.location, &georeference),
            georeference,
            mask,
            photometric,
            compression,
            predictor: layout.predictor,
            is_planar: grid.is_planar,
            blocks: BlockLayout {
                is_tiled: grid.is_tiled,
                width_px: grid.block_width_px,
                height_px: grid.block_height_px,
            },
            overviews: Vec::new(),
            further_images: 0,
            datetime: text(TAG_DATETIME).map(str::to_string),
            metadata: metadata.items,
            is_pixel_point,
            files: Vec::new(),
        };
        Ok(Image { grid, stored, mask: None, profile })
    }

    /// The blocks of a mask.
    fn mask(&self, directory: usize) -> Result<Grid, RasterError> {
        let image = self.image(directory)?;
        match (image.stored, image.profile.bands.len()) {
            (StoredType::U8, 1) => Ok(image.grid),
            _ => Err(self.unsupported("a mask of several bands or of more than 8 bits", "")),
        }
    }

    fn stored_type(&self, ifd: &Ifd) -> Result<StoredType, RasterError> {
        let tell = |error| Errors { location: self.location }.tell(error);
        let one = |values: Vec<u16>, what: &str| match values.as_slice() {
            [] => Err(self.damaged(format!("its {what} is empty"))),
            [first, rest @ ..] if rest.iter().all(|value| value == first) => Ok(*first),
            _ => Err(self.unsupported("bands of different types", "-ot Float32")),
        };
        let bits = one(ifd.bits_per_sample().map_err(tell)?, "number of bits")?;
        let format = one(ifd.sample_format().map_err(tell)?, "sample format")?;
        if bits == 12 && ifd.compression() == 7 {
            return Err(self.unsupported("JPEG with 12 bits", ""));
        }
        if !matches!(bits, 8 | 16 | 32 | 64) && ifd.predictor() != 1 {
            return Err(self.unsupported(format!("a predictor for samples of {bits} bits"), ""));
        }
        Ok(match (format, bits) {
            (1 | 4, 1..=8) => StoredType::U8,
            (1 | 4, 9..=16) => StoredType::U16,
            (1 | 4, 32) => StoredType::U32,
            (2, 8) => StoredType::I8,
            (2, 16) => StoredType::I16,
            (2, 32) => StoredType::I32,
            (3, 16) => StoredType::F16,
            (3, 32) => StoredType::F32,
            (3, 64) => StoredType::F64,
            (1 | 2 | 4, 64) => return Err(self.unsupported("integers of 64 bits", "-ot Float64")),
            (5 | 6, _) => return Err(self.unsupported("complex samples", "-ot Float32")),
            (3, _) => return Err(self.unsupported(format!("floats of {bits} bits"), "-ot Float32")),
            (1 | 2 | 4, _) => return Err(self.unsupported(format!("integers of {bits} bits"), "-ot Int32")),
            _ => return Err(self.unsupported(format!("sample format {format}"), "")),
        })
    }

    fn compression(&self, ifd: &Ifd) -> Result<&'static str, RasterError> {
        let name = match ifd.compression() {
            1 => "NONE",
            5 => "LZW",
            7 => "JPEG",
            8 | 32946 => "DEFLATE",
            32773 => "PACKBITS",
            34887 => match ifd.lerc_parameters() {
                Ok(parameters) => {
                    match parameters.map_or(0, |parameters| parameters.additional_compression.to_code()) {
                        1 => "LERC_DEFLATE",
                        2 => "LERC_ZSTD",
                        _ => "LERC",
                    }
                }
                Err(error) => return Err(Errors { location: self.location }.tell(error)),
            },
            50000 => "ZSTD",
            50001 => "WEBP",
            other => {
                let name = match other {
                    2 => "CCITT RLE",
                    3 => "CCITT fax 3",
                    4 => "CCITT fax 4",
                    6 => "old-style JPEG",
                    32809 => "ThunderScan",
                    34661 => "JBIG",
                    34676 | 34677 => "SGI LogLuv",
                    34712 => "JPEG 2000",
                    34925 => "LZMA",
                    50002 | 52546 => "JPEG XL",
                    _ => return Err(self.unsupported(format!("compression {other}"), "")),
                };
                return Err(self.unsupported(format!("{name} compression"), ""));
            }
        };
        Ok(name)
    }

    fn photometric(&self, ifd: &Ifd) -> Result<Photometric, RasterError> {
        Ok(match ifd.photometric_interpretation().unwrap_or(1) {
            // GDAL adds a table to a grey file without another word, and heeds it.
            0 | 1 if ifd.tag(TAG_COLOR_MAP).is_some() => Photometric::Palette,
            0 => Photometric::MinIsWhite,
            1 => Photometric::MinIsBlack,
            2 => Photometric::Rgb,
            3 => Photometric::Palette,
            4 => Photometric::Mask,
            // GDAL reads four bands of ink and has no conversion either.
            5 => {
                let remedy = "export it as RGB from the program that made it, then gdal_translate -of COG".to_string();
                let feature = "inks (CMYK) instead of red, green and blue".to_string();
                return Err(RasterError::Unsupported { location: self.location.shown(), feature, remedy });
            }
            6 if ifd.compression() == 7 => Photometric::YCbCr,
            6 => return Err(self.unsupported("YCbCr without JPEG", "")),
            8..=10 => return Err(self.unsupported("CIE L*a*b* colours", "")),
            other => return Err(self.unsupported(format!("photometric interpretation {other}"), "")),
        })
    }

    fn grid(
        &self,
        directory: usize,
        ifd: &Ifd,
        is_planar: bool,
        samples: usize,
        sample_bytes: usize,
    ) -> Result<Grid, RasterError> {
        let is_tiled = ifd.is_tiled();
        let (block_width_px, block_height_px) = match is_tiled {
            true => (ifd.tile_width().unwrap_or(0), ifd.tile_height().unwrap_or(0)),
            false => (ifd.width(), ifd.rows_per_strip().min(ifd.height())),
        };
        if block_width_px == 0 || block_height_px == 0 {
            return Err(self.damaged("its blocks have no pixel"));
        }
        // One band of planar pixels is one plane of plain ones.
        let is_planar = is_planar && samples > 1;
        let (planes, samples_per_pixel) = if is_planar { (samples, 1) } else { (1, samples) };
        let block_bytes = (u64::from(block_width_px) * u64::from(block_height_px))
            .saturating_mul(samples_per_pixel as u64)
            .saturating_mul(sample_bytes as u64);
        if block_bytes > self.largest_block_bytes {
            return Err(RasterError::TooLarge {
                location: self.location.shown(),
                what: format!(
                    "a {} of {block_width_px}x{block_height_px} pixels",
                    if is_tiled { "tile" } else { "strip" }
                ),
                needed_bytes: block_bytes,
                limit_bytes: self.largest_block_bytes,
                remedy: self.location.translate(""),
            });
        }
        let grid = Grid {
            directory,
            directory_offset: ifd.offset(),
            width_px: ifd.width(),
            height_px: ifd.height(),
            is_tiled,
            block_width_px,
            block_height_px,
            is_planar,
            planes,
            samples_per_pixel,
        };
        let expected = grid.count().ok_or_else(|| self.damaged("it has more blocks than can be counted"))?;
        for tag in grid.tables() {
            let found = ifd.tag(tag).map(|tag| tag.count);
            if found != Some(expected as u64) {
                let found = found.map_or("is missing".to_string(), |count| format!("has {count} entries"));
                return Err(
                    self.damaged(format!("its table of blocks (tag {tag}) {found}, and there are {expected} blocks"))
                );
            }
        }
        Ok(grid)
    }
}

/// The colours of the bands: by the photometric interpretation, extra samples, and GDAL's notes, which decide.
fn bands(model: &ColorModel, metadata: &GdalMetadata, count: usize) -> Vec<BandProfile> {
    let (base, extra): (&[Colour], &[ExtraSample]) = match model {
        ColorModel::Rgb { extra_samples } | ColorModel::YCbCr { extra_samples, .. } => {
            (&[Colour::Red, Colour::Green, Colour::Blue], extra_samples)
        }
        ColorModel::Grayscale { extra_samples, .. } => (&[Colour::Grey], extra_samples),
        _ => (&[], &[]),
    };
    let by_file = base.iter().cloned().chain(extra.iter().map(|extra| match extra {
        ExtraSample::AssociatedAlpha => Colour::Alpha { premultiplied: true },
        ExtraSample::UnassociatedAlpha => Colour::Alpha { premultiplied: false },
        _ => Colour::Undefined,
    }));
    let by_file = by_file.chain(std::iter::repeat(Colour::Undefined)).take(count);
    let band = |(band, colour): (usize, Colour)| {
        let note = |role: &str| metadata.of_band(band, role);
        let colour = match note("colorinterp").map(str::to_ascii_lowercase).as_deref() {
            None => colour,
            Some("gray" | "grey") => Colour::Grey,
            Some("red") => Colour::Red,
            Some("green") => Colour::Green,
            Some("blue") => Colour::Blue,
            Some("alpha") => match colour {
                Colour::Alpha { .. } => colour,
                _ => Colour::Alpha { premultiplied: false },
            },
            Some("undefined") => Colour::Undefined,
            Some(other) => Colour::Named(other.to_string()),
        };
        let number = |role: &str| note(role).and_then(number);
        let (scale, offset) = (number("scale"), number("offset"));
        BandProfile { colour, description: note("description").map(str::to_string), scale, offset }
    };
    by_file.enumerate().map(band).collect()
}

/// A number as GDAL writes it.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "nan" | "-nan" | "1.#qnan" | "-1.#ind" => Some(f64::NAN),
        "1.#inf" => Some(f64::INFINITY),
        "-1.#inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

/// Whether a sample of the type can have the value.
fn can_hold(sample_type: SampleType, value: f64) -> bool {
    let whole = |least: f64, most: f64| value.fract() == 0.0 && (least..=most).contains(&value);
    match sample_type {
        SampleType::U8 => whole(0.0, u8::MAX.into()),
        SampleType::I8 => whole(i8::MIN.into(), i8::MAX.into()),
        SampleType::U16 => whole(0.0, u16::MAX.into()),
        SampleType::I16 => whole(i16::MIN.into(), i16::MAX.into()),
        SampleType::U32 => whole(0.0, u32::MAX.into()),
        SampleType::I32 => whole(i32::MIN.into(), i32::MAX.into()),
        // Texts of the largest float are often rounded upwards.
        SampleType::F32 => !value.is_finite() || value.abs() <= f64::from(f32::MAX) * 1.000_000_1,
        SampleType::F64 => true,
    }
}

/// What GDAL would read beside the file.
fn ignored_files(location: &Location, georeference: &Georeference) -> Vec<String> {
    let Location::File(path) = location else { return Vec::new() };
    let beside = |suffix: &str| {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(suffix);
        path.with_file_name(name)
    };
    let mut found = Vec::new();
    let mask = beside(".msk");
    if mask.is_file() {
        found.push(mask.display().to_string());
    }
    let notes = beside(".aux.xml");
    if std::fs::metadata(&notes).is_ok_and(|file| file.is_file() && file.len() < 1 << 20)
        && std::fs::read_to_string(&notes).is_ok_and(|text| changes_reading(&text))
    {
        found.push(notes.display().to_string());
    }
    if georeference.transform().is_none() {
        let worlds = ["tfw", "tifw", "wld"].map(|extension| path.with_extension(extension));
        found.extend(worlds.iter().filter(|file| file.is_file()).map(|file| file.display().to_string()));
    }
    found
}

/// Whether such notes say anything that GDAL reads a file by: statistics do not, nor does what changes no value.
fn changes_reading(notes: &str) -> bool {
    let weighty =
        ["<SRS", "<GeoTransform", "<GCPList", "<NoDataValue", "<MaskBand", "<ColorTable", ">Alpha<", ">Palette<"];
    let beyond = |word: &str, plain: &str| notes.matches(word).count() > notes.matches(plain).count();
    weighty.iter().any(|word| notes.contains(word))
        || beyond("<Scale>", "<Scale>1</Scale>")
        || beyond("<Offset>", "<Offset>0</Offset>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_change_no_value_are_not_missed() {
        let band =
            |inside: &str| format!("<PAMDataset><PAMRasterBand band=\"1\">{inside}</PAMRasterBand></PAMDataset>");
        for plain in ["<ColorInterp>Gray</ColorInterp>", "<Offset>0</Offset><Scale>1</Scale>", "<Metadata/>"] {
            assert!(!changes_reading(&band(plain)), "{plain}");
        }
        for weighty in ["<ColorInterp>Alpha</ColorInterp>", "<Offset>-0.1</Offset><Scale>1</Scale>", "<NoDataValue>0<"]
        {
            assert!(changes_reading(&band(weighty)), "{weighty}");
        }
    }

    #[test]
    fn numbers_are_read_as_gdal_writes_them() {
        assert_eq!(number(" -9999 "), Some(-9999.0));
        assert_eq!(number("-3.4028234663852886e+38"), Some(f64::from(f32::MIN)));
        assert!(number("nan").unwrap().is_nan() && number("none").is_none() && number("").is_none());
    }

    #[test]
    fn a_no_data_value_that_no_sample_can_have_masks_nothing() {
        assert!(can_hold(SampleType::U8, 255.0) && !can_hold(SampleType::U8, -9999.0));
        assert!(!can_hold(SampleType::I16, f64::NAN) && can_hold(SampleType::F32, f64::NAN));
        assert!(can_hold(SampleType::F32, -3.402823466e+38) && !can_hold(SampleType::F32, f64::MIN));
    }
}
