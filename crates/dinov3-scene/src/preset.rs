//! Products whose bands, scale and no-data are known, so that nobody has to look them up. The evidence for each number is in
//! `docs/scenes.md`.

use dinov3_raster::{RasterProfile, SampleType};

use crate::mask::{Alpha, MaskValues, PixelRules, Zeros};
use crate::product::{ProductFacts, words};
use crate::scale::Calibration;
use crate::{Baseline, Scale, SceneInput};

/// A product, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// Surface reflectance of Sentinel-2, one file per band or a stack.
    Sentinel2L2a,
    /// The true-colour image of Sentinel-2.
    Sentinel2Tci,
    /// Surface reflectance of Landsat 4 to 9, Collection 2, one file per band or a stack.
    LandsatC2L2,
    /// Aerial photographs of the United States: red, green, blue and often infrared.
    Naip,
    /// Surface reflectance of PlanetScope in four bands.
    PlanetscopeSr4b,
    /// Surface reflectance of PlanetScope in eight bands.
    PlanetscopeSr8b,
    /// The picture of PlanetScope.
    PlanetscopeVisual,
    /// The picture of Maxar's (Vantor's) analysis-ready data.
    MaxarVisual,
}

/// What `--baseline` declares of Sentinel-2's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeclaredBaseline {
    /// The processing baseline, as ESA delivered the samples.
    Baseline(Baseline),
    /// Whoever made the files has added the offset already.
    Harmonized,
}

impl DeclaredBaseline {
    /// Reads `05.09`, or `harmonized`.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "harmonized" => Ok(Self::Harmonized),
            _ => Baseline::parse(text)
                .map(Self::Baseline)
                .map_err(|error| format!("{error}, or harmonized: the offset was added already")),
        }
    }
}

impl std::fmt::Display for DeclaredBaseline {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Baseline(baseline) => baseline.fmt(formatter),
            Self::Harmonized => formatter.write_str("harmonized"),
        }
    }
}

/// How samples become reflectance, for red, green and blue, and what says so.
pub(crate) type Calibrated = ([Calibration; 3], String);

impl Preset {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Sentinel2L2a,
        Self::Sentinel2Tci,
        Self::LandsatC2L2,
        Self::Naip,
        Self::PlanetscopeSr4b,
        Self::PlanetscopeSr8b,
        Self::PlanetscopeVisual,
        Self::MaxarVisual,
    ];

    /// The name on the command line and in provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sentinel2L2a => "sentinel-2-l2a",
            Self::Sentinel2Tci => "sentinel-2-tci",
            Self::LandsatC2L2 => "landsat-c2-l2",
            Self::Naip => "naip",
            Self::PlanetscopeSr4b => "planetscope-sr-4b",
            Self::PlanetscopeSr8b => "planetscope-sr-8b",
            Self::PlanetscopeVisual => "planetscope-visual",
            Self::MaxarVisual => "maxar-visual",
        }
    }

    /// Reads a name.
    ///
    /// # Errors
    /// The names that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|preset| preset.name() == text).ok_or_else(|| format!("expected one of {names}"))
    }

    /// The keys of the assets of a STAC item that hold red, green and blue, or all three: the first list of which an item
    /// has all.
    pub fn asset_keys(self) -> &'static [&'static [&'static str]] {
        match self {
            // Earth Search; Planetary Computer; Copernicus Data Space.
            Self::Sentinel2L2a => {
                &[&["red", "green", "blue"], &["B04", "B03", "B02"], &["B04_10m", "B03_10m", "B02_10m"]]
            }
            Self::Sentinel2Tci => &[&["visual"], &["TCI_10m"]],
            Self::LandsatC2L2 => &[&["red", "green", "blue"]],
            Self::Naip => &[&["image"]],
            Self::PlanetscopeSr4b => &[&["ortho_analytic_4b_sr"]],
            Self::PlanetscopeSr8b => &[&["ortho_analytic_8b_sr"]],
            Self::PlanetscopeVisual => &[&["ortho_visual"]],
            Self::MaxarVisual => &[&["visual"]],
        }
    }

    /// Which values of the product's own mask are invalid, where a mask is named without saying so.
    pub fn mask_values(self) -> Option<MaskValues> {
        match self {
            // The scene classification: no data, defective, cloud shadow, clouds of medium and high probability, cirrus.
            Self::Sentinel2L2a | Self::Sentinel2Tci => Some(MaskValues::of_classes(&[0, 1, 3, 8, 9, 10])),
            // QA_PIXEL: fill, dilated cloud, cirrus, cloud, cloud shadow.
            Self::LandsatC2L2 => Some(MaskValues::of_bits(&[0, 1, 2, 3, 4])),
            // UDM2's first band: 1 is clear.
            Self::PlanetscopeSr4b | Self::PlanetscopeSr8b | Self::PlanetscopeVisual => {
                Some(MaskValues::of_classes(&[0]))
            }
            Self::Naip | Self::MaxarVisual => None,
        }
    }

    /// What samples mean, where no other scale is asked for.
    pub fn scale(self) -> Scale {
        match self.is_reflectance() {
            true => Scale::REFLECTANCE,
            false => Scale::U8,
        }
    }

    /// Which pixels count beside what the file says, for a person.
    pub fn validity(self) -> Option<&'static str> {
        match self.rules() {
            PixelRules { zeros: Zeros::AnyIsNoData, .. } => Some("invalid where one of the bands is 0"),
            PixelRules { zeros: Zeros::AllAreNoData, .. } => Some("invalid where all three bands are 0"),
            PixelRules { alpha: Alpha::None, .. } => Some("band 4 is infrared, never opacity"),
            PixelRules { alpha: Alpha::Fourth, .. } => Some("invalid where band 4 is 0, if there is one"),
            _ => None,
        }
    }

    fn is_reflectance(self) -> bool {
        matches!(self, Self::Sentinel2L2a | Self::LandsatC2L2 | Self::PlanetscopeSr4b | Self::PlanetscopeSr8b)
    }

    pub(crate) fn rules(self) -> PixelRules {
        let (zeros, alpha) = match self {
            // Bands end at different pixels at the rim of a swath.
            _ if self.is_reflectance() => (Zeros::AnyIsNoData, Alpha::AsInFile),
            // Single bands are 0 in dark water.
            Self::Sentinel2Tci => (Zeros::AllAreNoData, Alpha::AsInFile),
            Self::Naip => (Zeros::AreSamples, Alpha::None),
            Self::PlanetscopeVisual => (Zeros::AreSamples, Alpha::Fourth),
            _ => (Zeros::AreSamples, Alpha::AsInFile),
        };
        PixelRules { zeros, alpha }
    }

    /// Refuses what is not this product.
    ///
    /// # Errors
    /// Why, as the end of a sentence.
    pub(crate) fn check(self, facts: &ProductFacts, profile: &RasterProfile) -> Result<(), String> {
        let (bands, sample_type) = (profile.bands.len(), profile.sample_type);
        if self.is_reflectance() && sample_type.is_float() {
            return Err(format!(
                "the product has integers, and this file {}: if they are reflectance, --scale reflectance takes them",
                sample_type.name()
            ));
        }
        let is_bytes = matches!(sample_type, SampleType::U8 | SampleType::I8);
        if self.is_reflectance() && is_bytes {
            return Err("the product has 16 bits, and this file 8: a picture needs no preset".to_owned());
        }
        if !self.is_reflectance() && sample_type != SampleType::U8 {
            return Err(format!("the product has 8 bits, and this file {}", sample_type.name()));
        }
        let is_at_least = |least: usize| match bands < least {
            true => Err(format!("the product has {least} bands, and this file {bands}")),
            false => Ok(()),
        };
        match self {
            Self::Sentinel2L2a if facts.has_word("MSIL1C") => {
                Err("this is Level-1C, reflectance above the atmosphere: --scale 'range LOW,HIGH' takes it".to_owned())
            }
            Self::LandsatC2L2 => match &facts.landsat_level {
                Some(level) if !level.value.starts_with("L2") => {
                    Err(format!("this is {} ({}), not surface reflectance", level.value, level.source))
                }
                _ => Ok(()),
            },
            Self::PlanetscopeSr4b | Self::PlanetscopeSr8b => {
                if is_radiance(facts) {
                    return Err(
                        "this is radiance (analytic, not analytic_sr), whose factor depends on the scene: order \
                                the surface reflectance"
                            .to_owned(),
                    );
                }
                let expected = if self == Self::PlanetscopeSr4b { 4 } else { 8 };
                match bands == expected {
                    true => Ok(()),
                    false => Err(format!("the product has {expected} bands, and this file {bands}")),
                }
            }
            Self::MaxarVisual if maxar_other(facts).is_some() => Err(format!(
                "this is '{}', whose bands are no picture: use the file that ends in -visual.tif",
                maxar_other(facts).unwrap_or_default()
            )),
            Self::Sentinel2Tci | Self::Naip | Self::PlanetscopeVisual | Self::MaxarVisual => is_at_least(3),
            _ => Ok(()),
        }
    }

    /// The bands of red, green and blue, counted from 0.
    ///
    /// # Errors
    /// Why they are not known, as the end of a sentence.
    pub(crate) fn bands(
        self,
        input: &SceneInput,
        profile: &RasterProfile,
        facts: &ProductFacts,
    ) -> Result<[usize; 3], String> {
        let rgb = match self {
            Self::PlanetscopeSr4b => return Ok([2, 1, 0]),
            Self::PlanetscopeSr8b => return Ok([5, 3, 1]),
            Self::Sentinel2L2a => [4, 3, 2],
            Self::LandsatC2L2 => match &facts.landsat {
                Some(found) => found.value.rgb(),
                // What the item calls red is red, whatever its number.
                None if input.files.len() == 3
                    && !labels(input, profile).iter().any(|label| number(label).is_some()) =>
                {
                    return Ok([0, 1, 2]);
                }
                None => {
                    return Err(
                        "whether it is from Landsat 4 to 7 or 8 to 9 is not known (no LC08 or the like in its \
                                name, no *_MTL.json or *_MTL.txt beside it): name the bands with --bands"
                            .to_owned(),
                    );
                }
            },
            _ => return Ok([0, 1, 2]),
        };
        let labels = labels(input, profile);
        let found = rgb.map(|band| labels.iter().position(|label| number(label) == Some(band)));
        if let [Some(red), Some(green), Some(blue)] = found {
            return Ok([red, green, blue]);
        }
        let others: Vec<&str> = labels.iter().filter(|label| number(label).is_some()).map(String::as_str).collect();
        let [red, green, blue] = rgb;
        match (labels.len(), others.as_slice()) {
            (3, []) => Ok(profile.rgb().unwrap_or([0, 1, 2])),
            (_, []) => Err(format!(
                "it has {} bands and does not say which are B{red}, B{green} and B{blue}: name them with --bands",
                labels.len()
            )),
            _ => Err(format!(
                "red, green and blue are B{red}, B{green} and B{blue}, and these are {}: --bands takes others",
                others.join(", ")
            )),
        }
    }

    /// How samples become reflectance; nothing for pictures.
    ///
    /// # Errors
    /// What is not known, as the end of a sentence, with the option that declares it.
    pub(crate) fn calibrated(
        self,
        facts: &ProductFacts,
        declared: Option<DeclaredBaseline>,
    ) -> Result<Option<Calibrated>, String> {
        let all = |calibration: Calibration, source: &str| Ok(Some(([calibration; 3], source.to_owned())));
        match self {
            Self::Sentinel2L2a => {
                let (offsets, source) = sentinel_offsets(facts, declared)?;
                let calibrations =
                    offsets.map(|offset| Calibration { factor: 1.0, addend: offset.into(), divisor: 10_000.0 });
                Ok(Some((calibrations, source)))
            }
            Self::LandsatC2L2 => {
                all(Calibration { factor: 0.000_027_5, addend: -0.2, divisor: 1.0 }, "Collection 2, Level 2")
            }
            Self::PlanetscopeSr4b | Self::PlanetscopeSr8b => {
                all(Calibration { factor: 1.0, addend: 0.0, divisor: 10_000.0 }, "surface reflectance of PlanetScope")
            }
            _ => Ok(None),
        }
    }

    /// The product that a scene seems to be, whatever its options say: by metadata and names, or, where the lowest and
    /// the highest of its samples are given, by these and the number of its bands.
    pub fn fitting(facts: &ProductFacts, profile: &RasterProfile, range: Option<(f64, f64)>) -> Option<Fit> {
        let sure = |preset, reason: &str| Some(Fit { preset, reason: Some(reason.to_owned()) });
        let has = |word: &str| facts.has_word(word);
        let platform = facts.platform.as_deref().unwrap_or_default();
        let (bands, is_float) = (profile.bands.len(), profile.sample_type.is_float());
        let is_bytes = profile.sample_type == SampleType::U8;
        let is_deep = !is_float && !matches!(profile.sample_type, SampleType::U8 | SampleType::I8);
        if is_bytes && bands >= 3 {
            return match () {
                () if has("TCI") => sure(Self::Sentinel2Tci, "TCI in its name"),
                () if platform.contains("sentinel-2") => sure(Self::Sentinel2Tci, "the item's platform"),
                () if facts.names.iter().any(|name| is_naip(name)) => sure(Self::Naip, "its name"),
                () if platform.contains("naip") => sure(Self::Naip, "the item's platform"),
                () if has("Visual") && has("3B") => sure(Self::PlanetscopeVisual, "its name"),
                () if facts.names.iter().any(|name| stem(name).ends_with("-visual")) => {
                    sure(Self::MaxarVisual, "its name")
                }
                () => None,
            };
        }
        if !is_deep {
            return None;
        }
        if has("MSIL2A") || has("L2A") && ["S2A", "S2B", "S2C", "S2D"].iter().any(|satellite| has(satellite)) {
            return sure(Self::Sentinel2L2a, "its name");
        }
        if let Some(baseline) = &facts.baseline {
            return sure(Self::Sentinel2L2a, &baseline.source);
        }
        if platform.contains("sentinel-2") {
            return sure(Self::Sentinel2L2a, "the item's platform");
        }
        let is_level_2 = facts.landsat_level.as_ref().is_none_or(|level| level.value.starts_with("L2"));
        if let Some(landsat) = facts.landsat.as_ref().filter(|_| is_level_2) {
            return sure(Self::LandsatC2L2, &landsat.source);
        }
        let is_planet = facts.names.iter().any(|name| words(name).any(is_analytic)) && has("SR");
        match bands {
            4 if is_planet => return sure(Self::PlanetscopeSr4b, "its name"),
            8 if is_planet => return sure(Self::PlanetscopeSr8b, "its name"),
            _ => {}
        }
        if is_radiance(facts) || facts.landsat.is_some() || has("MSIL1C") {
            return None;
        }
        // By its numbers alone.
        let (low, high) = range?;
        let perhaps = |preset| Some(Fit { preset, reason: None });
        match bands {
            _ if low >= 7000.0 && high <= 43_636.0 => perhaps(Self::LandsatC2L2),
            _ if !(1000.0..=20_000.0).contains(&high) => None,
            8 => perhaps(Self::PlanetscopeSr8b),
            4 if low < 1000.0 => perhaps(Self::PlanetscopeSr4b),
            _ => perhaps(Self::Sentinel2L2a),
        }
    }
}

impl std::fmt::Display for Preset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The preset that a scene seems to need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Which.
    pub preset: Preset,
    /// What says so; nothing where it is only the range of the samples and the number of bands.
    pub reason: Option<String>,
}

impl std::fmt::Display for Fit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            Some(reason) => write!(formatter, "--preset {} fits ({reason})", self.preset),
            None => write!(formatter, "--preset {} would fit such numbers", self.preset),
        }
    }
}

/// What is added to the samples of red, green and blue, and what says so.
fn sentinel_offsets(facts: &ProductFacts, declared: Option<DeclaredBaseline>) -> Result<([i32; 3], String), String> {
    let of = |baseline: Baseline| [if baseline.has_offset() { -1000 } else { 0 }; 3];
    match declared {
        Some(DeclaredBaseline::Baseline(baseline)) => return Ok((of(baseline), format!("--baseline {baseline}"))),
        Some(DeclaredBaseline::Harmonized) => return Ok(([0; 3], "--baseline harmonized".to_owned())),
        None => {}
    }
    if let Some(applied) = facts.is_offset_applied.as_ref().filter(|applied| applied.value) {
        return Ok(([0; 3], applied.source.clone()));
    }
    if let Some(offsets) = &facts.offsets {
        return Ok((offsets.value, offsets.source.clone()));
    }
    match &facts.baseline {
        Some(baseline) => Ok((of(baseline.value), format!("baseline {} ({})", baseline.value, baseline.source))),
        None => Err("its processing baseline, which decides about the offset, is not known (neither a STAC item, nor \
                     MTD_MSIL2A.xml in its folder or above, nor N0509 or the like in its name): declare it as \
                     --baseline 05.09, or --baseline harmonized where the offset was added already"
            .to_owned()),
    }
}

/// What bands are called: by their files, if each has its own, else by the file.
fn labels(input: &SceneInput, profile: &RasterProfile) -> Vec<String> {
    let bands = profile.bands.len();
    if input.files.len() > 1 && input.files.len() == bands {
        let last = |file: &std::path::PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return input.files.iter().map(last).collect();
    }
    profile.bands.iter().map(|band| band.description.clone().unwrap_or_default()).collect()
}

/// The band that a label names: `B04`, `B4`, `SR_B4`. Bands with a letter behind (`B8A`) are none of red, green and blue.
fn number(label: &str) -> Option<u8> {
    let of_word = |word: &str| {
        let digits = word.strip_prefix(['B', 'b']).filter(|digits| (1..=3).contains(&digits.len()))?;
        match digits.parse() {
            Ok(number) => Some(number),
            Err(_) => (digits.eq_ignore_ascii_case("8a")).then_some(u8::MAX),
        }
    };
    // A stem: an ending is no band, and a date none either.
    words(label).filter_map(of_word).last()
}

fn is_analytic(word: &str) -> bool {
    word.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("analytic"))
}

/// `..._3B_AnalyticMS.tif`, where surface reflectance is `..._3B_AnalyticMS_SR.tif`.
fn is_radiance(facts: &ProductFacts) -> bool {
    facts
        .names
        .iter()
        .any(|name| words(name).any(is_analytic) && !words(name).any(|word| word.eq_ignore_ascii_case("sr")))
        && !facts.has_word("SR")
}

fn stem(name: &str) -> String {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_ascii_lowercase()
}

/// `-ms` and `-pan` of Maxar's analysis-ready data.
fn maxar_other(facts: &ProductFacts) -> Option<&str> {
    facts.names.first().map(String::as_str).filter(|name| stem(name).ends_with("-ms") || stem(name).ends_with("-pan"))
}

/// `m_3807708_ne_18_060_20180906.tif`.
fn is_naip(name: &str) -> bool {
    let mut words = words(name);
    let is_quadrangle = |word: &str| word.len() == 7 && word.bytes().all(|byte| byte.is_ascii_digit());
    words.next() == Some("m")
        && words.next().is_some_and(is_quadrangle)
        && matches!(words.next(), Some("ne" | "nw" | "se" | "sw"))
}

#[cfg(test)]
mod tests {
    use dinov3_raster::{Opener, Options};
    use dinov3_testing::geotiff::{TiffFile, TiffImage, utm_tags};

    use super::*;

    fn profile(bands: u32, bits: u32) -> RasterProfile {
        let image = TiffImage { bands, bits, tags: utm_tags(), ..TiffImage::default() };
        Opener::new(Options::default()).open_bytes("a.tif", TiffFile::of(image).to_bytes()).unwrap().profile().clone()
    }

    fn input(files: &[&str]) -> SceneInput {
        SceneInput { files: files.iter().map(Into::into).collect(), ..SceneInput::default() }
    }

    fn bands(preset: Preset, files: &[&str], count: u32) -> Result<[usize; 3], String> {
        let (input, profile) = (input(files), profile(count, 16));
        preset.bands(&input, &profile, &ProductFacts::gather(&input, &profile))
    }

    #[test]
    fn presets_are_read_and_written_alike() {
        for preset in Preset::ALL {
            assert_eq!(Preset::parse(preset.name()), Ok(preset));
        }
        assert!(Preset::parse("sentinel-2").unwrap_err().contains("sentinel-2-l2a, sentinel-2-tci"));
        assert_eq!(DeclaredBaseline::parse("5.09").unwrap().to_string(), "05.09");
        assert!(DeclaredBaseline::parse("2022").unwrap_err().contains("harmonized"));
    }

    #[test]
    fn files_of_single_bands_are_told_apart_by_their_names() {
        let sentinel = |files: &[&str], count| bands(Preset::Sentinel2L2a, files, count);
        assert_eq!(
            sentinel(&["T33UUP_X_B04_10m.tif", "T33UUP_X_B03_10m.tif", "T33UUP_X_B02_10m.tif"], 3),
            Ok([0, 1, 2])
        );
        // As a folder lists them.
        assert_eq!(sentinel(&["B02.tif", "B03.tif", "B04.tif", "B08.tif"], 4), Ok([2, 1, 0]));
        assert!(sentinel(&["B08.tif", "B04.tif", "B03.tif"], 3).unwrap_err().contains("B08.tif, B04.tif, B03.tif"));
        assert_eq!(sentinel(&["stack.tif"], 3), Ok([0, 1, 2]));
        assert!(sentinel(&["stack.tif"], 4).unwrap_err().contains("--bands"));
        let oli = ["LC08_L2SP_X_SR_B4.TIF", "LC08_L2SP_X_SR_B3.TIF", "LC08_L2SP_X_SR_B2.TIF"];
        assert_eq!(bands(Preset::LandsatC2L2, &oli, 3), Ok([0, 1, 2]));
        // Infrared, red and green of the older instruments.
        let tm = ["LT05_L2SP_X_SR_B4.TIF", "LT05_L2SP_X_SR_B3.TIF", "LT05_L2SP_X_SR_B2.TIF"];
        assert!(bands(Preset::LandsatC2L2, &tm, 3).unwrap_err().contains("are B3, B2 and B1"));
        assert_eq!(bands(Preset::LandsatC2L2, &["red.tif", "green.tif", "blue.tif"], 3), Ok([0, 1, 2]));
        assert_eq!(bands(Preset::PlanetscopeSr4b, &["a.tif"], 4), Ok([2, 1, 0]));
        assert_eq!(bands(Preset::PlanetscopeSr8b, &["a.tif"], 8), Ok([5, 3, 1]));
    }

    #[test]
    fn an_offset_that_was_applied_is_not_applied_again() {
        let offsets = |properties: serde_json::Value, declared| {
            let mut input = input(&["s3://a/B04.tif"]);
            input.properties = properties.as_object().unwrap().clone();
            let facts = ProductFacts::gather(&input, &profile(3, 16));
            sentinel_offsets(&facts, declared).map(|(offsets, source)| (offsets[0], source))
        };
        let item = |applied: bool| serde_json::json!({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": applied});
        assert_eq!(offsets(item(true), None).unwrap(), (0, "the item's earthsearch:boa_offset_applied".to_owned()));
        assert_eq!(offsets(item(false), None).unwrap().0, -1000);
        // Who declares it knows better.
        let declared = |text| Some(DeclaredBaseline::parse(text).unwrap());
        assert_eq!(offsets(item(true), declared("05.11")).unwrap(), (-1000, "--baseline 05.11".to_owned()));
        assert_eq!(offsets(item(false), declared("harmonized")).unwrap().0, 0);
        assert_eq!(offsets(serde_json::json!({"s2:processing_baseline": "02.14"}), None).unwrap().0, 0);
        assert!(offsets(serde_json::json!({}), None).unwrap_err().contains("--baseline 05.09"));
    }

    #[test]
    fn products_are_recognised() {
        let fit = |name: &str, count, bits, range| {
            let (input, profile) = (input(&[name]), profile(count, bits));
            Preset::fitting(&ProductFacts::gather(&input, &profile), &profile, range).map(|fit| fit.preset)
        };
        assert_eq!(fit("T33UUP_20240618T095031_TCI_10m.tif", 3, 8, None), Some(Preset::Sentinel2Tci));
        assert_eq!(fit("m_3807708_ne_18_060_20180906.tif", 4, 8, None), Some(Preset::Naip));
        assert_eq!(fit("20240618_095031_3B_Visual.tif", 4, 8, None), Some(Preset::PlanetscopeVisual));
        assert_eq!(fit("10300100AABB-visual.tif", 3, 8, None), Some(Preset::MaxarVisual));
        assert_eq!(fit("holiday.tif", 3, 8, None), None);
        assert_eq!(fit("x_3B_AnalyticMS_SR_8b.tif", 8, 16, None), Some(Preset::PlanetscopeSr8b));
        assert_eq!(fit("x_3B_AnalyticMS_8b.tif", 8, 16, Some((100.0, 9000.0))), None);
        assert_eq!(fit("LC08_L1TP_X.tif", 3, 16, Some((8000.0, 30_000.0))), None);
        assert_eq!(fit("a.tif", 3, 16, Some((7300.0, 30_000.0))), Some(Preset::LandsatC2L2));
        assert_eq!(fit("a.tif", 4, 16, Some((100.0, 9000.0))), Some(Preset::PlanetscopeSr4b));
        assert_eq!(fit("a.tif", 3, 16, Some((0.0, 65_535.0))), None);
    }
}
