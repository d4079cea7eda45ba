//! What is known of the product that a scene is: from its STAC item, from the files beside it, from its name, and from the
//! file itself. Nothing is guessed from dates.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dinov3_raster::RasterProfile;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::{Map, Value};

use crate::SceneInput;

/// Scale and offset of the samples of each band, in order: the assets' own, among what an item says.
pub(crate) const RASTER_BANDS: &str = "raster:bands";
/// Larger metadata files are none.
const LARGEST_SIDECAR_BYTES: u64 = 16 << 20;
/// Folders above a band that are searched: those of a SAFE product, `X.SAFE/GRANULE/L2A_X/IMG_DATA/R10m`.
const MOST_PARENTS: usize = 4;
/// Samples carry an offset from this processing baseline on (ESA, "Copernicus Sentinel-2 Major Products Upgrade
/// Upcoming", 2021; in force since 2022-01-25).
const FIRST_BASELINE_WITH_OFFSET: u16 = 400;

/// A processing baseline of Sentinel-2, `05.09`: what decides about the offset, not the date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Baseline(u16);

impl Baseline {
    /// Reads `05.09`, `5.09`, `0509` or `N0509`.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no processing baseline: expected one as 05.09");
        let digits = text.strip_prefix(['N', 'n']).unwrap_or(text);
        let (major, minor) = match digits.split_once('.') {
            Some(parts) => parts,
            // Not a year.
            None if digits.len() == 4 && digits.is_ascii() && (digits != text || digits.starts_with('0')) => {
                digits.split_at(2)
            }
            None => return Err(wrong()),
        };
        let is_number = |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(major) || !is_number(minor) {
            return Err(wrong());
        }
        // Catalogues that made a number of it write 5.1 for 05.10.
        let minor: u16 = format!("{minor:0<2}").parse().map_err(|_| wrong())?;
        Ok(Self(major.parse::<u16>().map_err(|_| wrong())? * 100 + minor))
    }

    /// What users who run ESA's processor themselves get: it says nothing.
    const OF_USERS: Self = Self(9999);

    /// Whether samples of this baseline carry an offset.
    pub fn has_offset(self) -> bool {
        self.0 >= FIRST_BASELINE_WITH_OFFSET
    }
}

impl std::fmt::Display for Baseline {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:02}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Something, and what says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence<T> {
    /// What is said.
    pub value: T,
    /// By whom, for a person.
    pub source: String,
}

/// Which instrument a scene of Landsat is from: bands are numbered differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LandsatInstrument {
    /// TM and ETM+ of Landsat 4, 5 and 7: red is band 3.
    Tm,
    /// OLI of Landsat 8 and 9: red is band 4.
    Oli,
}

impl LandsatInstrument {
    /// The bands of red, green and blue.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Tm => [3, 2, 1],
            Self::Oli => [4, 3, 2],
        }
    }
}

/// `scale` and `offset` of each band; nothing for a band that is left out.
pub type LinearOfBands = Vec<Option<(f64, f64)>>;

/// What is known of the product that a scene is.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ProductFacts {
    /// Names that may tell of it: of its files and the folders that hold them, of the product itself.
    pub names: Vec<String>,
    /// Sentinel-2's processing baseline.
    pub baseline: Option<Evidence<Baseline>>,
    /// The `BOA_ADD_OFFSET` of red, green and blue (B04, B03, B02).
    pub offsets: Option<Evidence<[i32; 3]>>,
    /// Whether whoever made the files has added Sentinel-2's offset already.
    pub is_offset_applied: Option<Evidence<bool>>,
    /// Landsat's instrument.
    pub landsat: Option<Evidence<LandsatInstrument>>,
    /// Landsat's processing level, `L2SP`.
    pub landsat_level: Option<Evidence<String>>,
    /// What the item or the file gives for the samples of each band.
    pub linear: Option<Evidence<LinearOfBands>>,
    /// What the STAC item calls the satellite or constellation, in lower case.
    pub platform: Option<String>,
}

impl ProductFacts {
    /// What is known of a scene. Files beside it are looked for where it is on this machine.
    pub fn gather(input: &SceneInput, profile: &RasterProfile) -> Self {
        let mut facts = Self { names: names(input, profile), ..Self::default() };
        facts.take_item(&input.properties);
        for file in &input.files {
            if let Some(path) = local(file) {
                facts.take_sentinel_sidecar(&path);
                facts.take_landsat_sidecar(&path);
                break;
            }
        }
        facts.take_metadata(profile);
        facts.take_names();
        facts
    }

    /// Whether one of the names has this word, a part between `_`, `-`, `.` and the like, whatever its case.
    pub fn has_word(&self, word: &str) -> bool {
        self.names.iter().any(|name| words(name).any(|found| found.eq_ignore_ascii_case(word)))
    }

    fn take_item(&mut self, properties: &Map<String, Value>) {
        let text = |key: &str| match properties.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        self.platform = ["constellation", "platform"].iter().find_map(|key| text(key)).map(|text| text.to_lowercase());
        let is_sentinel = self.platform.as_ref().is_none_or(|platform| platform.contains("sentinel-2"));
        // `processing:version` of others is the version of something else.
        let keys = ["s2:processing_baseline", "sentinel:processing_baseline", "processing:version"];
        self.baseline = keys.iter().filter(|_| is_sentinel).find_map(|key| {
            let value = Baseline::parse(&text(key)?).ok()?;
            Some(Evidence { value, source: format!("the item's {key}") })
        });
        self.is_offset_applied =
            ["earthsearch:boa_offset_applied", "sentinel:boa_offset_applied"].iter().find_map(|key| {
                let value = properties.get(*key)?.as_bool()?;
                Some(Evidence { value, source: format!("the item's {key}") })
            });
        if let Some(platform) = text("platform").as_deref().map(str::to_lowercase)
            && let Some(number) = platform.strip_prefix("landsat").map(|rest| rest.trim_start_matches(['-', '_', ' ']))
        {
            self.landsat = instrument(number).map(|value| Evidence { value, source: "the item's platform".to_owned() });
        }
        let bands = properties.get(RASTER_BANDS).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let number = |band: &Value, field: &str| band.get(field).and_then(Value::as_f64);
        let value: Vec<_> =
            bands.iter().map(|band| declared_linear(number(band, "scale"), number(band, "offset"))).collect();
        if value.iter().any(Option::is_some) {
            self.linear = Some(Evidence { value, source: format!("the item's {RASTER_BANDS}") });
        }
    }

    /// `MTD_MSIL2A.xml` in the scene's folder or above it, unless it is that of another tile.
    fn take_sentinel_sidecar(&mut self, scene: &Path) {
        const NAME: &str = "MTD_MSIL2A.xml";
        let folder = scene.parent().unwrap_or(Path::new(""));
        // A relative path has parents too.
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() };
        let folder = folder.canonicalize().unwrap_or(folder);
        let Some(text) = folder.ancestors().take(MOST_PARENTS + 1).find_map(|folder| read(&folder.join(NAME))) else {
            return;
        };
        let found = SentinelMetadata::parse(&text);
        let tile_of = |names: &[String]| names.iter().find_map(|name| tile(name));
        if let (Some(its), Some(ours)) = (found.product.as_ref().and_then(|name| tile(name)), tile_of(&self.names))
            && its != ours
        {
            return;
        }
        self.names.extend(found.product);
        if let Some(baseline) = found.baseline.and_then(|text| Baseline::parse(&text).ok()) {
            let evidence = |value| Some(Evidence { value, source: NAME.to_owned() });
            let offset = |band: u8| found.offsets.get(&band).copied();
            // The bands' places in the list: 0 is B01.
            if let (Some(red), Some(green), Some(blue)) = (offset(3), offset(2), offset(1)) {
                self.offsets = evidence([red, green, blue]);
            } else if baseline == Baseline::OF_USERS && found.offsets.is_empty() {
                self.offsets = evidence([0; 3]);
            }
            if baseline != Baseline::OF_USERS {
                self.baseline.get_or_insert(Evidence { value: baseline, source: NAME.to_owned() });
            }
        }
    }

    /// `*_MTL.json` or `*_MTL.txt` in the scene's folder: that of the same product, or the only one.
    fn take_landsat_sidecar(&mut self, scene: &Path) {
        let folder = scene.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut found: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with("_MTL.json") || name.ends_with("_MTL.txt"))
            .collect();
        found.sort();
        let product = |name: &str| name.rfind("_MTL.").map(|end| name[..end].to_owned());
        let scene_name = scene.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let products: Vec<String> = {
            let mut products: Vec<String> = found.iter().filter_map(|name| product(name)).collect();
            products.dedup();
            products
        };
        let Some(name) = found.iter().find(|name| {
            product(name).is_some_and(|product| scene_name.starts_with(&product))
                || products.len() == 1 && landsat_word(&scene_name).is_none()
        }) else {
            return;
        };
        let Some(text) = read(&folder.join(name)) else { return };
        let found = if name.ends_with(".json") { landsat_json(&text) } else { landsat_text(&text) };
        let source = |key: &str| format!("{key} of {name}");
        if let Some(value) = found.get("SPACECRAFT_ID").and_then(|text| instrument(text.strip_prefix("LANDSAT_")?)) {
            self.landsat = Some(Evidence { value, source: source("SPACECRAFT_ID") });
        }
        if let Some(value) = found.get("PROCESSING_LEVEL") {
            self.landsat_level = Some(Evidence { value: value.clone(), source: source("PROCESSING_LEVEL") });
        }
        self.names.extend(found.get("LANDSAT_PRODUCT_ID").cloned());
    }

    /// What GDAL notes in the file: also of the product from which it was converted.
    fn take_metadata(&mut self, profile: &RasterProfile) {
        if let Some(value) = profile.metadata.get("PROCESSING_BASELINE").and_then(|text| Baseline::parse(text).ok()) {
            self.baseline.get_or_insert(Evidence { value, source: "PROCESSING_BASELINE in the file".to_owned() });
        }
        self.names.extend(profile.metadata.get("PRODUCT_URI").cloned());
        let value: Vec<_> = profile.bands.iter().map(|band| declared_linear(band.scale, band.offset)).collect();
        // Some writers note 1 and 0 where nothing is known.
        let is_said = value.iter().flatten().any(|linear| *linear != (1.0, 0.0));
        // An item that leaves bands out says less than a file that does not.
        let leaves_some_out = self.linear.as_ref().is_none_or(|linear| linear.value.iter().any(Option::is_none));
        if is_said && leaves_some_out {
            self.linear = Some(Evidence { value, source: "scale and offset in the file".to_owned() });
        }
    }

    fn take_names(&mut self) {
        for name in &self.names {
            if self.baseline.is_none() && name.contains("MSIL2A") {
                // S2A_MSIL2A_20240618T095031_N0510_R079_T33UUP_20240618T140000
                let of_word = |word: &str| {
                    let found = word.starts_with('N').then(|| Baseline::parse(word).ok()).flatten();
                    found.filter(|baseline| *baseline != Baseline::OF_USERS)
                };
                self.baseline = words(name)
                    .find_map(of_word)
                    .map(|value| Evidence { value, source: format!("N{:04} in the product's name", value.0) });
            }
            if let Some((instrument, level)) = landsat_word(name) {
                let source = || format!("the name {name}");
                self.landsat.get_or_insert_with(|| Evidence { value: instrument, source: source() });
                if let Some(value) = level {
                    self.landsat_level.get_or_insert_with(|| Evidence { value, source: source() });
                }
            }
        }
    }
}

/// Scale and offset where at least one of them is declared, the other one by its default.
fn declared_linear(scale: Option<f64>, offset: Option<f64>) -> Option<(f64, f64)> {
    scale.or(offset).map(|_| (scale.unwrap_or(1.0), offset.unwrap_or(0.0)))
}

/// The names of a scene's files, each with those of the folders above it, and what their maker calls the product.
fn names(input: &SceneInput, profile: &RasterProfile) -> Vec<String> {
    let mut names = Vec::new();
    for file in &input.files {
        let text = file.to_string_lossy();
        let text = text.split(['?', '#']).next().filter(|_| text.contains("://")).unwrap_or(&text);
        let parts = text.rsplit(['/', '\\']).filter(|part| !part.is_empty()).take(MOST_PARENTS + 2);
        for part in parts {
            if !names.iter().any(|name| name == part) {
                names.push(part.to_owned());
            }
        }
    }
    if let Some(item) = &input.stac_item {
        names.extend(item.rsplit('/').next().map(str::to_owned));
    }
    // A relative path hides the folder that it is in.
    if let Some(path) = input.files.first().and_then(|file| local(file))
        && path.is_relative()
        && let Ok(path) = path.canonicalize()
    {
        let parts = path.ancestors().skip(1).filter_map(Path::file_name).take(MOST_PARENTS + 1);
        names.extend(parts.map(|part| part.to_string_lossy().into_owned()));
    }
    names.extend(profile.metadata.get("TIFFTAG_DOCUMENTNAME").cloned());
    names
}

/// The path of what is on this machine.
fn local(file: &Path) -> Option<PathBuf> {
    match file.to_str().and_then(|text| text.split_once("://")) {
        None => Some(file.to_path_buf()),
        Some(("file", rest)) => Some(PathBuf::from(rest)),
        Some(_) => None,
    }
}

fn read(path: &Path) -> Option<String> {
    let information = fs::metadata(path).ok()?;
    (information.is_file() && information.len() <= LARGEST_SIDECAR_BYTES).then(|| fs::read_to_string(path).ok())?
}

/// The parts of a product's name.
pub(crate) fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// `T33UUP`: the tile that a product of Sentinel-2 is of.
fn tile(name: &str) -> Option<String> {
    let is_tile = |word: &&str| {
        let bytes = word.as_bytes();
        bytes.len() == 6
            && bytes[0] == b'T'
            && bytes[1..3].iter().all(u8::is_ascii_digit)
            && bytes[3..].is_ascii()
            && bytes[3..].iter().all(u8::is_ascii_uppercase)
    };
    words(name).find(is_tile).map(str::to_owned)
}

/// By the number of the satellite, as `8` or `08`.
fn instrument(number: &str) -> Option<LandsatInstrument> {
    match number.trim_start_matches('0') {
        "4" | "5" | "7" => Some(LandsatInstrument::Tm),
        "8" | "9" => Some(LandsatInstrument::Oli),
        _ => None,
    }
}

/// What `LC08_L2SP_...` says: the instrument, and the level if it follows.
fn landsat_word(name: &str) -> Option<(LandsatInstrument, Option<String>)> {
    let mut words = words(name);
    let instrument = words.find_map(|word| {
        let rest = word.strip_prefix('L')?;
        let number = rest.strip_prefix(['C', 'O', 'E', 'T']).filter(|number| number.len() == 2)?;
        instrument(number)
    })?;
    let level = words.next().filter(|word| word.len() == 4 && word.starts_with('L'));
    Some((instrument, level.map(str::to_owned)))
}

/// What `MTD_MSIL2A.xml` says.
#[derive(Debug, Default)]
struct SentinelMetadata {
    baseline: Option<String>,
    product: Option<String>,
    /// By the number of the band, 0 is B01.
    offsets: BTreeMap<u8, i32>,
}

impl SentinelMetadata {
    /// What can be understood of it.
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        let mut reader = Reader::from_str(text);
        let mut element = (Vec::new(), None);
        loop {
            match reader.read_event() {
                Ok(Event::Start(start)) => {
                    let band = start.attributes().flatten().find(|attribute| attribute.key.as_ref() == b"band_id");
                    let band = band.and_then(|band| std::str::from_utf8(&band.value).ok()?.parse().ok());
                    element = (start.local_name().as_ref().to_vec(), band);
                }
                Ok(Event::Text(text)) => {
                    let Ok(text) = text.decode() else { continue };
                    let text = text.trim();
                    match (element.0.as_slice(), element.1) {
                        (b"PROCESSING_BASELINE", _) if found.baseline.is_none() => {
                            found.baseline = Some(text.to_owned());
                        }
                        (b"PRODUCT_URI", _) if found.product.is_none() => found.product = Some(text.to_owned()),
                        (b"BOA_ADD_OFFSET", Some(band)) => {
                            found.offsets.extend(text.parse().ok().map(|offset: i32| (band, offset)));
                        }
                        _ => {}
                    }
                }
                Ok(Event::End(_)) => element = (Vec::new(), None),
                Ok(Event::Eof) | Err(_) => return found,
                Ok(_) => {}
            }
        }
    }
}

/// The groups of Landsat's metadata that tell of the product itself: further ones tell of what it was made from.
const LANDSAT_GROUPS: [&str; 2] = ["PRODUCT_CONTENTS", "IMAGE_ATTRIBUTES"];

fn landsat_json(text: &str) -> BTreeMap<String, String> {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let root = json.get("LANDSAT_METADATA_FILE").unwrap_or(&json);
    let groups = LANDSAT_GROUPS.iter().filter_map(|group| root.get(group)?.as_object());
    groups.flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn landsat_text(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut group = "";
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        match (key.trim(), value.trim()) {
            ("GROUP", name) => group = name,
            ("END_GROUP", _) => group = "",
            (key, value) if LANDSAT_GROUPS.contains(&group) => {
                found.entry(key.to_owned()).or_insert_with(|| value.trim_matches('"').to_owned());
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use dinov3_raster::{Opener, Options};
    use dinov3_testing::geotiff::{TiffFile, TiffImage, utm_tags};
    use serde_json::json;

    use super::*;

    fn profile() -> RasterProfile {
        let file = TiffFile::of(TiffImage { tags: utm_tags(), ..TiffImage::default() }).to_bytes();
        Opener::new(Options::default()).open_bytes("scene.tif", file).unwrap().profile().clone()
    }

    fn of_item(properties: Value) -> ProductFacts {
        let properties = properties.as_object().unwrap().clone();
        let input = SceneInput { files: vec!["s3://bucket/B04.tif".into()], properties, ..SceneInput::default() };
        ProductFacts::gather(&input, &profile())
    }

    fn of_file(path: PathBuf) -> ProductFacts {
        ProductFacts::gather(&SceneInput::from(path), &profile())
    }

    fn text<T: std::fmt::Display>(evidence: Option<Evidence<T>>) -> Option<String> {
        evidence.map(|evidence| format!("{} ({})", evidence.value, evidence.source))
    }

    #[test]
    fn baselines_are_read_in_all_their_spellings() {
        for (given, expected) in
            [("05.09", "05.09"), ("5.10", "05.10"), ("5.1", "05.10"), ("N0400", "04.00"), ("0301", "03.01")]
        {
            assert_eq!(Baseline::parse(given).unwrap().to_string(), expected, "{given}");
        }
        for wrong in ["", "5", "05.", "N04", "20220125", "a.b", "05.123", "-1.00", "é.00"] {
            assert!(Baseline::parse(wrong).is_err(), "{wrong}");
        }
        let has_offset = |text| Baseline::parse(text).unwrap().has_offset();
        assert!(has_offset("04.00") && has_offset("05.00") && !has_offset("03.01") && !has_offset("02.14"));
    }

    #[test]
    fn an_item_says_its_baseline_and_whether_the_offset_was_applied() {
        let facts = of_item(json!({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": true}));
        assert_eq!(text(facts.baseline).unwrap(), "05.11 (the item's s2:processing_baseline)");
        assert!(facts.is_offset_applied.unwrap().value);
        let facts = of_item(json!({"constellation": "Sentinel-2", "processing:version": "05.09"}));
        assert_eq!(text(facts.baseline).unwrap(), "05.09 (the item's processing:version)");
        let facts = of_item(json!({"platform": "landsat-8", "processing:version": "05.09"}));
        assert_eq!((facts.baseline, facts.landsat.unwrap().value), (None, LandsatInstrument::Oli));
        let facts = of_item(json!({"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}));
        assert_eq!(facts.linear.unwrap().value, [Some((0.0001, -0.1))]);
        let facts =
            of_item(json!({"raster:bands": [{"scale": 0.0001}, {"scale": 0.0001, "offset": -0.1}, {"nodata": 0}]}));
        assert_eq!(facts.linear.unwrap().value, [Some((0.0001, 0.0)), Some((0.0001, -0.1)), None]);
        let facts = of_item(json!({"raster:bands": [{"nodata": 0}, {"data_type": "uint16"}]}));
        assert_eq!(facts.linear, None);
    }

    #[test]
    fn a_product_of_sentinel_2_says_its_offsets_beside_or_above_the_bands() {
        let folder = tempfile::tempdir().unwrap();
        let xml = r#"<?xml version="1.0"?><n1:Level-2A_User_Product xmlns:n1="x"><n1:General_Info><Product_Info>
            <PROCESSING_BASELINE>05.10</PROCESSING_BASELINE>
            <PRODUCT_URI>S2A_MSIL2A_20240618T095031_N0510_R079_T33UUP_20240618T140000.SAFE</PRODUCT_URI></Product_Info>
            <BOA_ADD_OFFSET_VALUES_LIST><BOA_ADD_OFFSET band_id="1">-1000</BOA_ADD_OFFSET>
            <BOA_ADD_OFFSET band_id="2">-1001</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="3">-1002</BOA_ADD_OFFSET>
            </BOA_ADD_OFFSET_VALUES_LIST></n1:General_Info></n1:Level-2A_User_Product>"#;
        fs::write(folder.path().join("MTD_MSIL2A.xml"), xml).unwrap();
        let bands = folder.path().join("GRANULE/L2A_X/IMG_DATA/R10m");
        fs::create_dir_all(&bands).unwrap();
        let facts = of_file(bands.join("T33UUP_20240618T095031_B04_10m.tif"));
        assert_eq!(text(facts.baseline).unwrap(), "05.10 (MTD_MSIL2A.xml)");
        assert_eq!(facts.offsets.unwrap().value, [-1002, -1001, -1000]);
        assert_eq!(of_file(bands.join("T33UUQ_20240618T095031_B04_10m.tif")).baseline, None);
        assert_eq!(text(of_file(folder.path().join("B04.tif")).baseline).unwrap(), "05.10 (MTD_MSIL2A.xml)");
    }

    #[test]
    fn names_of_products_say_their_baseline() {
        let facts = of_file("S2B_MSIL2A_20220126T000000_N0400_R1_T52SFA_20220126T000000.SAFE/B04.tif".into());
        assert_eq!(text(facts.baseline).unwrap(), "04.00 (N0400 in the product's name)");
        let of_users = "S2B_MSIL2A_20220126T000000_N9999_R1_T52SFA_20220126T000000.SAFE/B04.tif";
        assert_eq!(of_file(of_users.into()).baseline, None);
        // A date says nothing, nor does a tile.
        assert_eq!(of_file("S2B_52SFA_20220126_0_L2A/B04.tif".into()).baseline, None);
    }

    #[test]
    fn landsat_says_its_instrument_by_name_or_by_the_file_beside() {
        let name = |name: &str| {
            let facts = of_file(name.into());
            (facts.landsat.map(|found| found.value), facts.landsat_level.map(|found| found.value))
        };
        use LandsatInstrument::{Oli, Tm};
        let level = |level: &str| Some(level.to_owned());
        assert_eq!(name("LC08_L2SP_014041_20200503_20200820_02_T1_SR_B4.TIF"), (Some(Oli), level("L2SP")));
        assert_eq!(name("LE07_L2SP_014041_20200503_20200820_02_T1/red.tif"), (Some(Tm), level("L2SP")));
        assert_eq!(name("LT05_L1TP_014041_20000503_20200820_02_T1_B3.TIF"), (Some(Tm), level("L1TP")));
        assert_eq!(name("LONDON_2020.tif"), (None, None));

        let folder = tempfile::tempdir().unwrap();
        let txt = "GROUP = LANDSAT_METADATA_FILE\n  GROUP = PRODUCT_CONTENTS\n    PROCESSING_LEVEL = \"L2SP\"\n  END_GROUP = \
                   PRODUCT_CONTENTS\n  GROUP = IMAGE_ATTRIBUTES\n    SPACECRAFT_ID = \"LANDSAT_7\"\n  END_GROUP = \
                   IMAGE_ATTRIBUTES\n  GROUP = LEVEL1_PROCESSING_RECORD\n    PROCESSING_LEVEL = \"L1TP\"\n";
        fs::write(folder.path().join("a_MTL.txt"), txt).unwrap();
        let facts = of_file(folder.path().join("red.tif"));
        assert_eq!((facts.landsat.unwrap().value, facts.landsat_level.unwrap().value), (Tm, "L2SP".to_owned()));
        let json = json!({"LANDSAT_METADATA_FILE": {"PRODUCT_CONTENTS": {"PROCESSING_LEVEL": "L2SR"},
            "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": "LANDSAT_9"}, "LEVEL1_PROCESSING_RECORD": {"PROCESSING_LEVEL": "L1TP"}}});
        fs::write(folder.path().join("b_MTL.json"), json.to_string()).unwrap();
        let facts = of_file(folder.path().join("b_SR_B4.tif"));
        assert_eq!((facts.landsat.unwrap().value, facts.landsat_level.unwrap().value), (Oli, "L2SR".to_owned()));
        // Two products, and nothing says which.
        assert_eq!(of_file(folder.path().join("red.tif")).landsat, None);
    }
}
