//! The page: its parts from `page/`, the facts as JSON, everything else as one block of numbers.
//!
//! Whatever comes from files (names, ids, models) stands in the JSON alone, where `<`, `>` and `&` are written as escapes,
//! and in the title, escaped; the program in the page makes text of it and never markup. The policy in the page's head
//! lets that one program and that one style sheet run, by their hashes, and nothing be loaded.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dinov3_model::array::Array;
use dinov3_picture::{PcaBasis, RgbPicture, colour_map};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cells::MapCells;
use crate::error::MapError;
use crate::scene::Scene;
use crate::vectors::{Quantised, UnitVectors};

const HTML: &str = include_str!("../page/page.html");
const CSS: &str = include_str!("../page/page.css");
const JS: &str = include_str!("../page/page.js");

/// Numbers of a place beside its levels: eight f64 (corners), an f32 (scale), eight i32 (windows), three bytes (colour).
const PLACE_BYTES: u64 = 64 + 4 + 32 + 3;

/// The recall that the page tells is among so many.
const RECALL_AT: usize = 10;

/// Fewer dimensions are not worth a map.
const FEWEST_DIMS: u64 = 8;

/// What a page may take, and what is made of its parts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MapOptions {
    /// Most dimensions of a vector in the page.
    pub dims: usize,
    /// Most bytes of the page.
    pub page_limit_bytes: u64,
    /// Of the scene's picture, 1 to 100.
    pub jpeg_quality: u8,
}

impl Default for MapOptions {
    /// 128 dimensions, 30 MB, JPEG of quality 85.
    fn default() -> Self {
        Self { dims: 128, page_limit_bytes: 30_000_000, jpeg_quality: 85 }
    }
}

impl MapOptions {
    /// Refuses what cannot fit, before anything is read: so many places with vectors of `dims` dimensions.
    ///
    /// # Errors
    /// [`MapError::TooLarge`].
    pub fn check(&self, cells: usize, dims: usize) -> Result<(), MapError> {
        self.check_with(cells, dims, (HTML.len() + CSS.len() + JS.len()) as u64)
    }

    /// `other_bytes` is what the page has beside the numbers of its places.
    fn check_with(&self, cells: usize, dims: usize, other_bytes: u64) -> Result<(), MapError> {
        let dims = dims.min(self.dims.max(1));
        let numbers = |dims: u64| (cells as u64).saturating_mul(PLACE_BYTES.saturating_add(dims));
        let page_bytes = numbers(dims as u64).div_ceil(3).saturating_mul(4).saturating_add(other_bytes);
        if page_bytes <= self.page_limit_bytes {
            return Ok(());
        }
        let left = self.page_limit_bytes.saturating_sub(other_bytes) / 4 * 3 / (cells as u64).max(1);
        let fitting = left.saturating_sub(PLACE_BYTES) / 8 * 8;
        Err(MapError::TooLarge {
            cells,
            dims,
            page_bytes,
            limit_bytes: self.page_limit_bytes,
            fitting_dims: (fitting >= FEWEST_DIMS).then_some(fitting as usize),
        })
    }
}

/// What the page tells of its making. Empty texts are not shown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MapFacts {
    /// The scene's name.
    pub scene: String,
    /// What a place is: `chip` or `patch`.
    pub place: String,
    /// The model's name.
    pub model: String,
    /// Which weights: their hash, or what made them.
    pub weights: String,
    /// Precision of the encoder.
    pub precision: String,
    /// How a place's vector was made of its tokens.
    pub pooling: String,
    /// Which bands are red, green and blue.
    pub bands: String,
    /// What samples mean.
    pub scale: String,
    /// The reference system.
    pub crs: String,
    /// Acquisition.
    pub datetime: String,
    /// What wrote the vectors.
    pub made_by: String,
}

/// How many of the places most alike by f32 vectors the page finds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recall {
    /// Mean share found, 0 to 1.
    pub mean: f64,
    /// Among so many.
    pub at: usize,
    /// Over so many places.
    pub places: usize,
}

/// What the program in the page reads first.
#[derive(Serialize)]
struct Head<'a> {
    #[serde(flatten)]
    facts: &'a MapFacts,
    count: usize,
    dims: usize,
    /// Of the vectors that the page's were made of.
    full_dims: usize,
    recall: Recall,
    width_px: u32,
    height_px: u32,
    gsd_metres: Option<f64>,
    /// Of every id; `ids` are the rest.
    id_prefix: &'a str,
    ids: Vec<&'a str>,
    /// 256 colours, three bytes each.
    heat: String,
    version: &'a str,
}

/// A page, ready to be written.
#[derive(Debug)]
pub struct MapPage {
    html: String,
    /// What reducing and rounding the vectors cost.
    pub recall: Recall,
    /// Dimensions of the vectors in the page.
    pub dims: usize,
}

impl MapPage {
    /// The page of these places of a scene, of which `overview` is the picture, of any size. The same places give the same
    /// bytes.
    ///
    /// # Errors
    /// If the page would be too large, or the pictures cannot be made.
    pub fn new(
        cells: &MapCells,
        scene: &Scene,
        overview: &RgbPicture,
        facts: MapFacts,
        options: &MapOptions,
    ) -> Result<Self, MapError> {
        let count = cells.cells().len();
        options.check(count, cells.dims())?;
        let mut jpeg = Vec::new();
        overview.write_jpeg(&mut jpeg, options.jpeg_quality)?;
        let picture = BASE64.encode(jpeg);
        let id_prefix = common_prefix(cells);
        let ids: Vec<&str> = cells.cells().iter().map(|cell| &cell.id[id_prefix.len()..]).collect();
        let id_bytes: usize = ids.iter().map(|id| id.len() + 3).sum();
        let other_bytes = picture.len() + id_bytes + HTML.len() + CSS.len() + JS.len();
        options.check_with(count, cells.dims(), other_bytes as u64)?;

        let exact = UnitVectors::of(cells);
        let reduced = exact.reduced(options.dims);
        let quantised = Quantised::of(&reduced);
        let (mean, places) = quantised.recall(&exact, RECALL_AT);
        let recall = Recall { mean, at: RECALL_AT.min(count.saturating_sub(1)), places };
        let head = Head {
            facts: &facts,
            count,
            dims: quantised.dims(),
            full_dims: cells.dims(),
            recall,
            width_px: scene.width_px,
            height_px: scene.height_px,
            gsd_metres: scene.ground_sample_distance_metres(),
            id_prefix,
            ids,
            heat: BASE64.encode(colour_map().as_flattened()),
            version: env!("CARGO_PKG_VERSION"),
        };
        let numbers = BASE64.encode(numbers(cells, scene, &colours(&reduced)?, &quantised));
        let head = escaped_json(&serde_json::to_string(&head).unwrap_or_default());
        let parts: BTreeMap<&str, String> = BTreeMap::from([
            ("title", escaped_html(&facts.scene)),
            ("policy", policy()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("css", CSS.to_owned()),
            ("overview", picture),
            ("head", head),
            ("numbers", numbers),
            ("js", JS.to_owned()),
        ]);
        Ok(Self { html: filled(HTML, &parts), recall, dims: quantised.dims() })
    }

    /// The whole file.
    pub fn html(&self) -> &str {
        &self.html
    }
}

/// The block of numbers, little endian, array after array: corners, scales, windows, painted parts, colours, levels.
fn numbers(cells: &MapCells, scene: &Scene, colours: &[u8], quantised: &Quantised) -> Vec<u8> {
    let cells_of = cells.cells();
    let mut bytes = Vec::with_capacity(cells_of.len() * (PLACE_BYTES as usize + quantised.dims()));
    for cell in cells_of {
        bytes.extend(scene.corners(&cell.window).iter().flat_map(|degrees| degrees.to_le_bytes()));
    }
    bytes.extend(quantised.scales().iter().flat_map(|scale| scale.to_le_bytes()));
    let shown = cells.shown();
    for window in cells_of.iter().map(|cell| &cell.window).chain(&shown) {
        let sides = [i64::from(window.width_px), i64::from(window.height_px)];
        for value in [window.x_px, window.y_px].into_iter().chain(sides) {
            // Checked when the places were taken.
            bytes.extend(i32::try_from(value).unwrap_or_default().to_le_bytes());
        }
    }
    bytes.extend_from_slice(colours);
    bytes.extend(quantised.levels().iter().map(|level| level.to_le_bytes()[0]));
    bytes
}

/// Three bytes per place: its three principal components.
fn colours(vectors: &UnitVectors) -> Result<Vec<u8>, MapError> {
    let (count, dims) = (vectors.count(), vectors.dims());
    let mut data = vec![0.0; count * dims];
    for (index, vector) in vectors.values().chunks_exact(dims).enumerate() {
        for (dimension, &value) in vector.iter().enumerate() {
            data[dimension * count + index] = value;
        }
    }
    let map = Array { shape: vec![1, dims, 1, count], data };
    Ok(PcaBasis::fit(&map)?.apply(&map)?.data().to_vec())
}

/// What all ids begin with.
fn common_prefix(cells: &MapCells) -> &str {
    let mut ids = cells.cells().iter().map(|cell| cell.id.as_str());
    let first = ids.next().unwrap_or_default();
    let shared = |prefix: &str, id: &str| {
        let same = prefix.char_indices().zip(id.chars()).take_while(|((_, a), b)| a == b);
        same.last().map_or(0, |((at, last), _)| at + last.len_utf8())
    };
    let length = ids.fold(first.len(), |length, id| shared(&first[..length], id));
    &first[..length]
}

/// JSON in which nothing can end the element that it stands in.
fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // Only in strings do these occur.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

fn escaped_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Would be read as something else, or not at all.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Nothing is loaded; one style sheet and one program run.
fn policy() -> String {
    let hash = |text: &str| BASE64.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; img-src data: blob:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        hash(CSS),
        hash(JS)
    )
}

/// The template with `{{name}}` replaced, once from the left: what is put in is not looked at again.
fn filled(template: &str, parts: &BTreeMap<&str, String>) -> String {
    let mut page = String::with_capacity(template.len() + parts.values().map(String::len).sum::<usize>());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(parts.get(name).map_or("", String::as_str));
        rest = after;
    }
    page.push_str(rest);
    page
}

#[cfg(test)]
mod tests {
    use dinov3_geo::{AffineTransform, Crs, PixelWindow};

    use super::*;
    use crate::cells::Cell;

    fn scene() -> Scene {
        Scene {
            width_px: 128,
            height_px: 64,
            transform: AffineTransform::unrotated(618_240.0, 5_374_500.0, 0.6, -0.6),
            crs: Crs::from_epsg(32633).unwrap(),
        }
    }

    fn cells(name: &str) -> MapCells {
        let windows = (0..8).map(|index| PixelWindow::new(index % 4 * 32, index / 4 * 32, 32, 32));
        let cells: Vec<Cell> = windows
            .map(|window| Cell { id: format!("{name}#xywh={},{},32,32", window.x_px, window.y_px), window })
            .collect();
        let vectors = (0..8 * 6).map(|index| ((index * index * 7) % 13) as f32 - 4.0).collect();
        MapCells::new(cells, 6, vectors).unwrap()
    }

    fn page_of(name: &str, options: &MapOptions) -> Result<MapPage, MapError> {
        let overview = RgbPicture::new(128, 64, vec![77; 3 * 128 * 64]).unwrap();
        let facts = MapFacts { scene: name.to_owned(), model: name.to_owned(), ..MapFacts::default() };
        MapPage::new(&cells(name), &scene(), &overview, facts, options)
    }

    fn block<'a>(html: &'a str, id: &str) -> &'a str {
        let (_, after) = html.split_once(&format!("id=\"{id}\">")).unwrap();
        after.split_once("</script>").unwrap().0.trim()
    }

    #[test]
    fn the_page_holds_what_was_given() {
        let page = page_of("scene.tif", &MapOptions::default()).unwrap();
        let head: serde_json::Value = serde_json::from_str(block(page.html(), "head")).unwrap();
        assert_eq!((head["count"].as_u64(), head["dims"].as_u64()), (Some(8), Some(6)));
        let (prefix, ids) = (head["id_prefix"].as_str().unwrap(), head["ids"].as_array().unwrap());
        assert_eq!(format!("{prefix}{}", ids[5].as_str().unwrap()), "scene.tif#xywh=32,32,32,32");
        let numbers = BASE64.decode(block(page.html(), "numbers")).unwrap();
        assert_eq!(numbers.len(), 8 * (PLACE_BYTES as usize + 6));
        // The window of place 5, after all corners and scales.
        let window = &numbers[8 * 68 + 5 * 16..][..16];
        assert_eq!(window, [32, 32, 32, 32].map(i32::to_le_bytes).concat());
        assert!(page.recall.mean > 0.9 && page.recall.at == 7 && page.recall.places == 8);
        assert!(!page.html().contains("{{"));
    }

    #[test]
    fn the_same_places_give_the_same_bytes() {
        let make = || page_of("scene.tif", &MapOptions::default()).unwrap();
        assert_eq!(make().html(), make().html());
    }

    #[test]
    fn names_cannot_break_out() {
        let name = "</script><script>alert(1)</script>\"'<!--<img src=x onerror=alert(1)>&amp;{{js}}\u{2028}.tif";
        let page = page_of(name, &MapOptions::default()).unwrap();
        let plain = page_of("scene.tif", &MapOptions::default()).unwrap();
        for tag in ["<script", "</script", "<!--", "<img", "alert(1)</", "<svg"] {
            assert_eq!(page.html().matches(tag).count(), plain.html().matches(tag).count(), "{tag}");
        }
        let head: serde_json::Value = serde_json::from_str(block(page.html(), "head")).unwrap();
        assert_eq!(head["scene"], name);
        assert!(page.html().contains("<title>&lt;/script&gt;"));
    }

    #[test]
    fn a_page_that_would_be_too_large_is_refused_before_it_is_made() {
        let mut options = MapOptions::default();
        options.check(16_384, 1024).unwrap();
        let error = options.check(400_000, 1024).unwrap_err().to_string();
        assert_eq!(
            error,
            "a page of 400000 places in 128 dimensions would have 123.2 MB, more than the 30.0 MB that it may: allow it \
             with --max-page 124MB, or map chips instead of patches, or larger ones"
        );
        let error = options.check(120_000, 1024).unwrap_err().to_string();
        assert!(error.contains("--dims 80 makes it fit"), "{error}");
        options.dims = 80;
        options.check(120_000, 1024).unwrap();
        options.page_limit_bytes = 1000;
        assert!(matches!(page_of("s", &options), Err(MapError::TooLarge { .. })));
    }

    #[test]
    fn the_program_and_the_style_stay_in_their_elements() {
        // Their hashes are in the policy: a line end that a parser changes would forbid them.
        for part in [HTML, CSS, JS] {
            assert!(!part.contains('\r'));
        }
        assert!(!CSS.contains("</") && !JS.contains("</script") && !JS.contains("<!--"));
        for loading in ["http:", "https:", "src=\"/", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML"] {
            assert!(!CSS.contains(loading) && !JS.contains(loading) && !HTML.contains(loading), "{loading}");
        }
    }
}
