//! From the bands of a scene to red, green and blue: which bands, what their samples mean, which pixels count. What is
//! declared wins over the product, which wins over the file.

use dinov3_geo::PixelWindow;
use dinov3_pixels::Statistics;
use dinov3_raster::{Colour, Location, Opener, Photometric, Raster, RasterError, RasterProfile, SampleType};
use dinov3_sink::Stamp;
use serde_json::{Value, json};

use crate::mask::{MaskRaster, Masked, PixelRules};
use crate::measure::{Sample, SceneStatistics};
use crate::preset::{Calibrated, Fit, Preset};
use crate::product::{LinearOfBands, ProductFacts};
use crate::scale::{Calibration, Stretch, Transfer};
use crate::source::without_name;
use crate::{MaskValues, Scale, SceneError, SceneInput, SceneOptions};

/// Side of the window in the middle of a scene whose samples are looked at for a message.
const SEEN_PX: u32 = 512;
/// Bands that are looked at for a message.
const MOST_BANDS_SEEN: usize = 16;
/// More of the valid pixels must not turn negative by Sentinel-2's offset: it was subtracted already.
const LARGEST_NEGATIVE_SHARE: f64 = 0.01;
/// A scene of so many pixels has some below a reflectance of 0.1.
const LEAST_PIXELS_WITH_DARK_ONES: usize = 10_000;
/// Sentinel-2's offset, without sign.
const SENTINEL_OFFSET: f64 = 1000.0;

/// What is made of a scene's samples.
#[derive(Debug)]
pub(crate) struct Radiometry {
    /// Of red, green and blue, counted from 0.
    pub bands: [usize; 3],
    pub scale: Scale,
    /// How samples become reflectance, and what says so; where the scale is of reflectance.
    calibrated: Option<Calibrated>,
    /// Whether the offset is one that may have been added already.
    has_doubtful_offset: bool,
    /// Whether somebody says that the offset was added already, without being asked.
    claims_harmonized: bool,
    /// What the metadata say of Sentinel-2's offset where an option says something else.
    contradicted: Option<String>,
    /// What the product's zeros and its fourth band mean.
    rules: PixelRules,
    pub mask: Option<MaskInUse>,
}

/// Another raster whose values say which pixels count.
#[derive(Clone, Debug)]
pub(crate) struct MaskInUse {
    /// Which of its values are invalid.
    pub values: MaskValues,
    /// Without secrets.
    pub name: String,
    /// What tells whether it has changed; nothing where that cannot be told.
    pub stamp: Option<Stamp>,
}

/// What was found in a scene's pixels before the first chip.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Measured {
    pub(crate) transfer: Transfer,
    /// Of red, green and blue: what [`Transfer::unit`] makes of each sample, where there are few.
    pub(crate) tables: Option<[Vec<f32>; 3]>,
    /// The scene on the scale that the encoder sees; nothing for one without valid pixels.
    pub statistics: Option<SceneStatistics>,
    /// What a person should look at.
    pub warnings: Vec<String>,
}

/// A raster of which those pixels count that do by the rules of the product and by the mask.
pub(crate) fn masked(
    opener: &Opener,
    raster: Box<dyn Raster>,
    input: &SceneInput,
    options: &SceneOptions,
) -> Result<(Box<dyn Raster>, Option<MaskInUse>), SceneError> {
    let rules = options.preset.map_or(PixelRules::NONE, Preset::rules);
    let Some(file) = &input.mask else {
        return Ok(match rules == PixelRules::NONE {
            true => (raster, None),
            false => (Box::new(Masked::new(raster, rules, None)), None),
        });
    };
    let name = crate::scene_name(file);
    let refused = |problem: String| SceneError::Mask { scene: input.name.clone(), mask: name.clone(), problem };
    let values = options.mask_values.clone().or_else(|| options.preset.and_then(Preset::mask_values));
    let values = values.ok_or_else(|| {
        refused("needs --mask-values: which of its values are invalid, as 3,8-10 or bits:1,3".to_owned())
    })?;
    let location = crate::scene::parse(file)?;
    let stamp = match &location {
        Location::File(path) => Stamp::of_file(path),
        _ => None,
    };
    let mask = input.opener_of(opener, &location).open_location(&location);
    let mask = mask.map_err(|error| refused(without_name(&error.to_string(), &name)))?;
    let stamp = stamp.or_else(|| mask.version().map(|(bytes, version)| Stamp::of_version(bytes, version)));
    let mask = MaskRaster::new(mask, values.clone(), raster.profile()).map_err(refused)?;
    Ok((Box::new(Masked::new(raster, rules, Some(mask))), Some(MaskInUse { values, name, stamp })))
}

impl Radiometry {
    /// What options, product and file say together.
    ///
    /// # Errors
    /// What is not said, or contradicts itself.
    pub fn of(
        raster: &dyn Raster,
        mask: Option<MaskInUse>,
        input: &SceneInput,
        facts: &ProductFacts,
        options: &SceneOptions,
    ) -> Result<Self, SceneError> {
        let profile = raster.profile();
        let scene = || input.name.clone();
        let with_preset = |preset: Preset| move |problem| SceneError::Preset { scene: scene(), preset, problem };
        if let Some(preset) = options.preset {
            preset.check(facts, profile).map_err(with_preset(preset))?;
        }
        // The scale before the bands: who has to look up the one learns the preset that says both.
        let scale = chosen_scale(raster, input, facts, options)?;
        refuse_coded(input, profile, scale)?;
        let bands = match (&options.bands, options.preset) {
            (None, Some(preset)) => preset.bands(input, profile, facts).map_err(with_preset(preset))?,
            (asked, _) => chosen_bands(profile, asked.as_deref())?,
        };
        let mut has_doubtful_offset = options.preset == Some(Preset::Sentinel2L2a);
        let calibrated = match (scale, options.preset) {
            (Scale::Reflectance { .. }, Some(preset)) if preset.scale() == Scale::REFLECTANCE => {
                preset.calibrated(facts, options.baseline).map_err(with_preset(preset))?
            }
            (Scale::Reflectance { .. }, _) => {
                let linear = facts.linear.as_ref();
                has_doubtful_offset = linear.is_some() && facts.baseline.is_some();
                Some(linear_calibration(profile, facts, bands).ok_or_else(|| {
                    let fits = Preset::fitting(facts, profile, None).map_or(String::new(), |fit| format!(" ({fit})"));
                    match linear {
                        Some(linear) => SceneError::PartlyKnownReflectance {
                            scene: scene(),
                            source_of_it: linear.source.clone(),
                            bands: bands.map(|band| (band + 1).to_string()).join(", "),
                            fits,
                        },
                        None => SceneError::UnknownReflectance {
                            scene: scene(),
                            sample_type: profile.sample_type.name(),
                            fits,
                        },
                    }
                })?)
            }
            _ => None,
        };
        let has_offset = calibrated.as_ref().is_some_and(|(all, _)| all.iter().any(|one| one.addend < 0.0));
        let is_said = facts.is_offset_applied.as_ref().is_some_and(|applied| applied.value);
        let had_one = facts.baseline.as_ref().is_none_or(|baseline| baseline.value.has_offset());
        let is_declared = options.baseline.is_some() && options.preset == Some(Preset::Sentinel2L2a);
        let claims_harmonized =
            calibrated.is_some() && !has_offset && (is_declared || options.baseline.is_none() && is_said && had_one);
        let by_metadata =
            options.preset.filter(|_| is_declared).and_then(|preset| preset.calibrated(facts, None).ok()?);
        let contradicted = by_metadata
            .zip(calibrated.as_ref())
            .and_then(|((found, source), (declared, _))| (found[0].addend != declared[0].addend).then_some(source));
        has_doubtful_offset &= has_offset;
        let rules = options.preset.map_or(PixelRules::NONE, Preset::rules);
        Ok(Self { bands, scale, calibrated, has_doubtful_offset, claims_harmonized, contradicted, rules, mask })
    }

    /// Looks at the pixels.
    ///
    /// # Errors
    /// If they cannot be read, or contradict what was declared.
    pub fn measure(&self, raster: &dyn Raster, scene: &str, expected: &Statistics) -> Result<Measured, SceneError> {
        let decides = self.has_doubtful_offset || matches!(self.scale, Scale::Percentile { .. });
        let sample = Sample::read(raster, self.bands, self.mask.is_some(), decides)?;
        let mut warnings = Vec::new();
        if let Some((calibrations, source)) = &self.calibrated {
            if self.has_doubtful_offset {
                let share = sample.negative_share(|channel, value| calibrations[channel].apply(value));
                if share > LARGEST_NEGATIVE_SHARE {
                    let percent = (share * 1000.0).round() / 10.0;
                    return Err(SceneError::NegativeReflectance {
                        scene: scene.to_owned(),
                        percent,
                        calibration: distinct(calibrations).join("; "),
                        source_of_it: source.clone(),
                    });
                }
            }
            let has_dark_ones = sample.lowest().is_none_or(|lowest| lowest < SENTINEL_OFFSET);
            if self.claims_harmonized && !has_dark_ones && sample.pixels() >= LEAST_PIXELS_WITH_DARK_ONES {
                warnings.push(format!(
                    "{source} says that Sentinel-2's offset was added already, and yet no sample is below 1000: if it was \
                     not, --baseline 05.09 adds it"
                ));
            }
            if let Some(found) = &self.contradicted {
                warnings.push(format!("{source} contradicts {found}, by which Sentinel-2's offset is another one"));
            }
        }
        let transfer = self.transfer(&sample, scene)?;
        let statistics = sample.statistics(&transfer, expected);
        if let Some(mismatch) = statistics.and_then(|statistics| statistics.mismatch()) {
            warnings.push(format!("on the scale '{}' it is {mismatch}: is the scale right?", self.scale));
        }
        let tables = transfer.tables(raster.profile().sample_type);
        Ok(Measured { transfer, tables, statistics, warnings })
    }

    fn transfer(&self, sample: &Sample, scene: &str) -> Result<Transfer, SceneError> {
        let same = |low: f64, high: f64, calibrations: [Calibration; 3]| {
            Transfer::Linear(calibrations.map(|calibration| Stretch { calibration, low, high }))
        };
        Ok(match self.scale {
            Scale::U8 => Transfer::Levels,
            Scale::Range { low, high } => same(low, high, [Calibration::NONE; 3]),
            Scale::Reflectance { low, high } => {
                same(low, high, self.calibrated.as_ref().map_or([Calibration::NONE; 3], |(all, _)| *all))
            }
            Scale::Percentile { low, high } => {
                let mut stretches = [Stretch { calibration: Calibration::NONE, low: 0.0, high: 1.0 }; 3];
                for (channel, stretch) in stretches.iter_mut().enumerate() {
                    // A scene without valid pixels has no chip.
                    let Some([black, white]) = sample.percentiles(channel, [low, high]) else { continue };
                    if black >= white {
                        let (scene, band) = (scene.to_owned(), self.bands[channel] + 1);
                        return Err(SceneError::NoContrast {
                            scene,
                            band,
                            scale: self.scale.to_string(),
                            value: black,
                        });
                    }
                    (stretch.low, stretch.high) = (black, white);
                }
                Transfer::Linear(stretches)
            }
        })
    }

    /// For provenance: what was made of this scene, and what it looks like then.
    pub fn described(&self, measured: &Measured) -> Value {
        let mut found = json!({
            "bands": self.bands.map(|band| band + 1),
            "scale": self.scale.to_string(),
        });
        if let Some((calibrations, source)) = &self.calibrated {
            let texts = distinct(calibrations);
            found["reflectance"] = if let [text] = &texts[..] { json!(text) } else { json!(texts) };
            found["reflectance_source"] = json!(source);
        }
        if let (Scale::Percentile { .. }, Transfer::Linear(stretches)) = (self.scale, &measured.transfer) {
            found["black"] = json!(stretches.map(|stretch| stretch.low));
            found["white"] = json!(stretches.map(|stretch| stretch.high));
        }
        if let Some(mask) = &self.mask {
            found["mask"] = json!(mask.name);
            found["mask_values"] = json!(mask.values.to_string());
        }
        if let Some(statistics) = &measured.statistics {
            let rounded = |values: [f64; 3]| values.map(|value| (value * 1e4).round() / 1e4);
            found["statistics"] = json!({
                "sample": statistics.sample.to_string(),
                "pixels": statistics.pixels,
                "mean": rounded(statistics.mean),
                "std": rounded(statistics.std),
                "z": rounded(statistics.z),
                "std_ratio": rounded(statistics.std_ratio),
            });
        }
        if !measured.warnings.is_empty() {
            found["warnings"] = json!(measured.warnings);
        }
        found
    }

    /// What tells whether these samples would still become the same pixels: the files' `stamp`, with what came from
    /// elsewhere. Nothing where that cannot be told.
    pub fn stamp(&self, stamp: Stamp, measured: &Measured) -> Option<Stamp> {
        let samples = format!("{:?} {:?} {:?}", self.bands, self.rules, measured.transfer);
        match &self.mask {
            None => Some(Stamp::of_several(&[stamp], &samples)),
            Some(mask) => Some(Stamp::of_several(&[stamp, mask.stamp?], &format!("{samples} {}", mask.values))),
        }
    }

    /// What was decided before any pixel was looked at: by options, by the item, by the file and by what lies beside it. The
    /// same on every machine.
    pub fn reading(&self) -> String {
        let mask = self.mask.as_ref().map(|mask| mask.values.to_string());
        format!("{:?} {:?} {:?} {mask:?}", self.bands, self.scale, self.calibrated)
    }

    /// How samples become reflectance, for a person.
    pub fn reflectance(&self) -> Option<String> {
        let (calibrations, source) = self.calibrated.as_ref()?;
        Some(format!("{} ({source})", distinct(calibrations).join("; ")))
    }
}

/// One text where all channels have the same, else one each.
fn distinct(calibrations: &[Calibration; 3]) -> Vec<String> {
    let mut texts = calibrations.map(|calibration| calibration.to_string()).to_vec();
    if texts.iter().all(|text| *text == texts[0]) {
        texts.truncate(1);
    }
    texts
}

/// Refuses samples that are no colours by themselves. Of a mask they may be that: its values are classes.
fn refuse_coded(input: &SceneInput, profile: &RasterProfile, scale: Scale) -> Result<(), SceneError> {
    let (feature, options) = match (profile.photometric, scale) {
        (Photometric::Palette, _) => ("a colour table", "-expand rgb"),
        (Photometric::MinIsWhite, Scale::U8 | Scale::Percentile { .. }) => {
            ("levels of which 0 is white", "-expand gray")
        }
        _ => return Ok(()),
    };
    let location = input.files.first().and_then(|file| crate::scene::parse(file).ok());
    let remedy = location.map_or_else(String::new, |location| location.translate(options));
    let (location, feature) = (profile.location.clone(), feature.to_owned());
    Err(SceneError::Raster(RasterError::Unsupported { location, feature, remedy }))
}

/// What the file or the item says of its own samples; floats are reflectance as they are.
fn linear_calibration(profile: &RasterProfile, facts: &ProductFacts, bands: [usize; 3]) -> Option<Calibrated> {
    let is_float = profile.sample_type.is_float();
    let said = match &facts.linear {
        Some(linear) => Some((of_channels(&linear.value, profile.bands.len(), bands)?, &linear.source)),
        None => None,
    };
    let Some((channels, source)) = said.filter(|(channels, _)| !is_float || channels.iter().any(Option::is_some))
    else {
        return is_float.then(|| ([Calibration::NONE; 3], "floats are taken as reflectance".to_owned()));
    };
    // Catalogues keep telling the offset where it was added already.
    let applied = facts.is_offset_applied.as_ref().filter(|applied| applied.value);
    let mut calibrations = [Calibration::NONE; 3];
    for (calibration, channel) in calibrations.iter_mut().zip(channels) {
        let (factor, offset) = channel?;
        *calibration = Calibration { factor, addend: if applied.is_some() { 0.0 } else { offset }, divisor: 1.0 };
    }
    let source = applied.map_or_else(|| source.clone(), |applied| format!("{source}, {}", applied.source));
    Some((calibrations, source))
}

/// What a list says of red, green and blue. It has one entry for each band of the file, or for all the same; nothing if it has
/// neither, as of assets whose bands nobody counted.
fn of_channels(linear: &LinearOfBands, count: usize, bands: [usize; 3]) -> Option<[Option<(f64, f64)>; 3]> {
    let first = linear.first()?;
    match linear.len() == count {
        true => Some(bands.map(|band| linear[band])),
        false => linear.iter().all(|other| other == first).then_some([*first; 3]),
    }
}

fn chosen_bands(profile: &RasterProfile, asked: Option<&[usize]>) -> Result<[usize; 3], SceneError> {
    let (scene, found) = (&profile.location, profile.bands.len());
    let Some(asked) = asked else {
        let is_colour = |band: &usize| !matches!(profile.bands[*band].colour, Colour::Alpha { .. });
        let colours: Vec<usize> = (0..found).filter(is_colour).collect();
        return match (profile.rgb(), colours.as_slice()) {
            (Some(bands), _) => Ok(bands),
            (None, [band]) => Ok([*band; 3]),
            (None, [red, green, blue]) => Ok([*red, *green, *blue]),
            _ => Err(SceneError::UnknownBands { scene: scene.clone(), found }),
        };
    };
    if let Some(&band) = asked.iter().find(|&&band| band == 0 || band > found) {
        return Err(SceneError::NoSuchBand { scene: scene.clone(), band, found });
    }
    match *asked {
        [band] => Ok([band - 1; 3]),
        [red, green, blue] => Ok([red - 1, green - 1, blue - 1]),
        _ => Err(SceneError::UnknownBands { scene: scene.clone(), found }),
    }
}

fn chosen_scale(
    raster: &dyn Raster,
    input: &SceneInput,
    facts: &ProductFacts,
    options: &SceneOptions,
) -> Result<Scale, SceneError> {
    let profile = raster.profile();
    let (scene, sample_type) = (input.name.clone(), profile.sample_type.name());
    // Fewer bits are bytes too, but 255 is not their white.
    let is_bytes = profile.sample_type == SampleType::U8 && profile.bits_per_sample == 8;
    match options.scale.or(options.preset.map(Preset::scale)) {
        Some(Scale::U8) if !is_bytes => Err(SceneError::WrongScale { scene, sample_type }),
        Some(scale) => Ok(scale),
        None if is_bytes => Ok(Scale::U8),
        None => {
            // All bands where it is not said which are colours.
            let bands = chosen_bands(profile, options.bands.as_deref())
                .map_or_else(|_| (0..profile.bands.len().min(MOST_BANDS_SEEN)).collect(), |bands| bands.to_vec());
            let seen = seen_range(raster, &bands)?;
            let (low, high) = rounded_outwards(seen);
            let fits = match Preset::fitting(facts, profile, Some(seen)) {
                Some(Fit { preset, reason: Some(reason) }) => format!("--preset {preset} fits ({reason}); otherwise "),
                Some(Fit { preset, reason: None }) => {
                    format!("--preset {preset} fits such numbers, if that is the product; otherwise ")
                }
                None if profile.sample_type.is_float() && low >= -1.0 && high <= 2.0 => {
                    "--scale reflectance fits such numbers, if they are reflectance; otherwise ".to_owned()
                }
                None => String::new(),
            };
            Err(SceneError::UnknownScale { scene, sample_type, low, high, fits })
        }
    }
}

/// The lowest and the highest sample of valid pixels in the middle of a scene.
fn seen_range(raster: &dyn Raster, bands: &[usize]) -> Result<(f64, f64), SceneError> {
    let profile = raster.profile();
    let start = |length_px: u32| i64::from(length_px.saturating_sub(SEEN_PX) / 2);
    let size = |length_px: u32| length_px.min(SEEN_PX);
    let (width_px, height_px) = (profile.width_px, profile.height_px);
    let window = PixelWindow::new(start(width_px), start(height_px), size(width_px), size(height_px));
    let read = raster.read(window, bands)?;
    let valid = (0..read.samples.len()).filter(|at| read.valid[at % read.valid.len()]);
    let values = valid.map(|at| read.samples.get(at)).filter(|value| value.is_finite());
    let range = values.fold(None, |range: Option<(f64, f64)>, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    });
    Ok(range.unwrap_or_default())
}

/// To three digits of their difference; a range without extent becomes one that `--scale` takes.
fn rounded_outwards((low, high): (f64, f64)) -> (f64, f64) {
    if low >= high {
        return (low.min(0.0), high.max(low.min(0.0) + 1.0));
    }
    let digits = 2 - (high - low).log10().floor() as i32;
    let step = 10_f64.powi(-digits);
    // Through text: multiples of a step are no round numbers.
    let round = |value: f64| format!("{:.*}", usize::try_from(digits).unwrap_or(0), value).parse().unwrap_or(value);
    (round((low / step).floor() * step), round((high / step).ceil() * step))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, pattern, utm_tags};

    use super::*;
    use crate::Scene;
    use crate::product::RASTER_BANDS;

    #[test]
    fn what_changes_the_pixels_changes_the_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let image = TiffImage {
            bits: 16,
            sample: |band, x, y| 2000 + pattern(band, x, y),
            tags: utm_tags(),
            ..TiffImage::default()
        };
        let file = folder.path().join("stack.tif");
        fs::write(&file, TiffFile::of(image).to_bytes()).unwrap();
        let mask = TiffImage { bands: 1, sample: |_, _, _| 4, tags: utm_tags(), ..TiffImage::default() };
        let mask_file = folder.path().join("scl.tif");
        fs::write(&mask_file, TiffFile::of(mask).to_bytes()).unwrap();
        let stamp = |baseline: &str, scale: Option<Scale>, has_mask: bool| {
            let xml = format!("<a><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></a>");
            fs::write(folder.path().join("MTD_MSIL2A.xml"), xml).unwrap();
            let mut options = SceneOptions::new(Statistics::SATELLITE);
            (options.preset, options.scale) = (Some(Preset::Sentinel2L2a), scale);
            let mut input = SceneInput::from(file.clone());
            input.mask = has_mask.then(|| mask_file.clone());
            Scene::open(&Opener::new(dinov3_raster::Options::default()), &input, &options).unwrap().stamp().unwrap()
        };
        let first = stamp("05.09", None, false);
        assert_eq!(first, stamp("05.09", None, false));
        assert_eq!(first, stamp("05.10", None, false));
        assert_ne!(first, stamp("03.01", None, false));
        assert_ne!(first, stamp("05.09", Scale::parse("percentile 2,98").ok(), false));
        assert_ne!(first, stamp("05.09", None, true));
    }

    #[test]
    fn bands_have_scales_of_their_own_and_one_that_has_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("floats.tif");
        let image = TiffImage {
            bits: 32,
            sample_format: 3,
            sample: |_, _, _| u64::from(0.25_f32.to_bits()),
            tags: utm_tags(),
            ..TiffImage::default()
        };
        fs::write(&file, TiffFile::of(image).to_bytes()).unwrap();
        let open = |bands: Value| {
            let mut options = SceneOptions::new(Statistics::SATELLITE);
            options.scale = Some(Scale::REFLECTANCE);
            let mut input = SceneInput::from(file.clone());
            input.properties.insert(RASTER_BANDS.to_owned(), bands);
            Scene::open(&Opener::new(dinov3_raster::Options::default()), &input, &options)
        };
        let reflectance = |bands: Value| open(bands).unwrap().reflectance().unwrap();
        assert_eq!(
            reflectance(json!([{"scale": 2}, {"scale": 3, "offset": -1}, {"scale": 4}])),
            "DN * 2; DN * 3 - 1; DN * 4 (the item's raster:bands)"
        );
        // One entry for all, as catalogues have it for an asset of three bands; and none at all.
        assert_eq!(reflectance(json!([{"scale": 2}])), "DN * 2 (the item's raster:bands)");
        assert_eq!(reflectance(json!([{"nodata": 0}])), "DN (floats are taken as reflectance)");
        assert!(open(json!([{}, {}, {}, {"scale": 2}])).is_err(), "of four bands, and there are three");
        for uneven in [json!([{"scale": 2}, {}, {"scale": 4}]), json!([{"scale": 2}, {"scale": 3}])] {
            let refusal = open(uneven).err().unwrap().to_string();
            assert!(refusal.contains("raster:bands does not say of each of the bands 1, 2, 3"), "{refusal}");
        }
    }

    #[test]
    fn samples_that_are_no_colours_are_refused_and_are_classes_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bands: u32, photometric: u16, has_table: bool| {
            let mut tags = utm_tags();
            tags.push((262, TiffValue::Short(vec![photometric])));
            tags.extend(has_table.then(|| (320, TiffValue::Short(vec![0; 3 << 8]))));
            let image = TiffImage { bands, sample: |_, x, _| u64::from(x % 4), tags, ..TiffImage::default() };
            let file = folder.path().join(name);
            fs::write(&file, TiffFile::of(image).to_bytes()).unwrap();
            file
        };
        let (table, white, picture) =
            (write("t.tif", 1, 1, true), write("w.tif", 1, 0, false), write("p.tif", 3, 2, false));
        let open = |file: &std::path::PathBuf, mask: Option<std::path::PathBuf>, scale: Option<Scale>| {
            let mut options = SceneOptions::new(Statistics::SATELLITE);
            (options.scale, options.mask_values) = (scale, MaskValues::parse("3").ok());
            let input = SceneInput { mask, ..SceneInput::from(file.clone()) };
            Scene::open(&Opener::new(dinov3_raster::Options::default()), &input, &options)
        };
        let refusal = |file| open(file, None, None).err().unwrap().to_string();
        assert!(
            refusal(&table).contains("a colour table") && refusal(&table).contains("-expand rgb"),
            "{}",
            refusal(&table)
        );
        assert!(
            refusal(&white).contains("0 is white") && refusal(&white).contains("-expand gray"),
            "{}",
            refusal(&white)
        );
        // Who says what is black says it of samples.
        open(&white, None, Scale::parse("range 0,3").ok()).unwrap();
        let masked = open(&picture, Some(table.clone()), None).unwrap();
        let valid = masked.raster().read(PixelWindow::new(0, 0, 5, 1), &[0]).unwrap().valid;
        assert_eq!(valid, [true, true, true, false, true]);
    }

    #[test]
    fn whatever_decides_about_pixels_is_in_the_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let four = TiffImage { bands: 4, sample: pattern, tags: utm_tags(), ..TiffImage::default() };
        let file = folder.path().join("four.tif");
        fs::write(&file, TiffFile::of(four).to_bytes()).unwrap();
        let mask = TiffImage { bands: 1, sample: |_, x, _| u64::from(x % 4), tags: utm_tags(), ..TiffImage::default() };
        let mask_file = folder.path().join("classes.tif");
        fs::write(&mask_file, TiffFile::of(mask).to_bytes()).unwrap();
        let stamp = |bands: &[usize], preset: Option<Preset>, mask_values: Option<&str>| {
            let mut options = SceneOptions::new(Statistics::SATELLITE);
            (options.bands, options.preset) = (Some(bands.to_vec()), preset);
            options.mask_values = mask_values.map(|text| MaskValues::parse(text).unwrap());
            let mut input = SceneInput::from(file.clone());
            input.mask = mask_values.is_some().then(|| mask_file.clone());
            Scene::open(&Opener::new(dinov3_raster::Options::default()), &input, &options).unwrap().stamp().unwrap()
        };
        let stamps = [
            stamp(&[1, 2, 3], None, None),
            stamp(&[3, 2, 1], None, None),
            stamp(&[4, 2, 1], None, None),
            stamp(&[1, 2, 3], Some(Preset::Naip), None),
            stamp(&[1, 2, 3], None, Some("1")),
            stamp(&[1, 2, 3], None, Some("2")),
            stamp(&[1, 2, 3], None, Some("bits:1")),
        ];
        for (index, stamp) in stamps.iter().enumerate() {
            assert!(!stamps[..index].contains(stamp), "{index} is an earlier one");
        }
    }
}
