//! Items and collections of embeddings, as the embeddings extension v0.0.1 has them.
//!
//! Its schema refers to STAC core 1.0.0, where `stac_version` is a constant: a 1.1.0 document is not valid. It allows no
//! `emb:` field that it does not know, so our own facts are called `dinov3:`.

use serde_json::{Map, Value, json};

use crate::href::href;
use crate::read::format_datetime;

const STAC_VERSION: &str = "1.0.0";
const EMBEDDINGS: &str = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json";
const PROCESSING: &str = "https://stac-extensions.github.io/processing/v1.2.0/schema.json";
const PROJECTION: &str = "https://stac-extensions.github.io/projection/v2.0.0/schema.json";
const FILE: &str = "https://stac-extensions.github.io/file/v2.1.0/schema.json";

/// The key of the asset that the extension demands.
pub const EMBEDDINGS_ASSET: &str = "embeddings";
/// Of the multihash prefix of `file:checksum`: SHA-256, 32 bytes.
const SHA256_MULTIHASH: &str = "1220";

/// A link to another document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// How it relates: `derived_from`, `emb:model`, ...
    pub rel: &'static str,
    /// Where it is: a URL, or a path relative to the document.
    pub href: String,
    /// Its media type.
    pub media_type: Option<&'static str>,
    /// For people.
    pub title: Option<String>,
}

impl Link {
    /// A link without type and title.
    pub fn new(rel: &'static str, href: impl Into<String>) -> Self {
        Self { rel, href: href.into(), media_type: None, title: None }
    }

    /// With a title for people.
    pub fn titled(self, title: impl Into<String>) -> Self {
        Self { title: Some(title.into()), ..self }
    }

    /// With a media type.
    pub fn of_type(self, media_type: &'static str) -> Self {
        Self { media_type: Some(media_type), ..self }
    }

    fn to_json(&self) -> Value {
        let mut link = json!({"rel": self.rel, "href": self.href});
        if let Some(media_type) = self.media_type {
            link["type"] = json!(media_type);
        }
        if let Some(title) = &self.title {
            link["title"] = json!(title);
        }
        link
    }
}

/// Where a raster lies.
#[derive(Clone, Debug, PartialEq)]
pub struct GridFacts {
    /// `EPSG:CODE` of its reference system, if it has one.
    pub code: Option<String>,
    /// Rows and columns.
    pub shape: [u64; 2],
    /// From its columns and rows to coordinates: `a b c d e f`, the first two rows of the matrix.
    pub transform: [f64; 6],
}

impl GridFacts {
    fn write_into(&self, fields: &mut Value) {
        fields["proj:code"] = json!(self.code);
        fields["proj:shape"] = json!(self.shape);
        fields["proj:transform"] = json!(self.transform);
    }
}

/// What an item leads to.
#[derive(Clone, Debug)]
pub struct AssetFacts {
    /// What its item calls it; one must be called [`EMBEDDINGS_ASSET`].
    pub key: &'static str,
    /// `href`, `type`, `roles`, `title`.
    pub content: Value,
    /// Its length; of a folder, that of all files in it.
    pub size_bytes: u64,
    /// SHA-256 in hexadecimal digits; a folder has none.
    pub sha256: Option<String>,
    /// Where it lies, if it is a raster on another grid than the item's.
    pub grid: Option<GridFacts>,
}

impl AssetFacts {
    fn to_json(&self) -> Value {
        let mut asset = self.content.clone();
        asset["file:size"] = json!(self.size_bytes);
        if let Some(sha256) = &self.sha256 {
            asset["file:checksum"] = json!(format!("{SHA256_MULTIHASH}{sha256}"));
        }
        if let Some(grid) = &self.grid {
            grid.write_into(&mut asset);
        }
        asset
    }
}

/// What an item of embeddings says.
#[derive(Clone, Debug)]
pub struct ItemFacts {
    /// Unique in its collection.
    pub id: String,
    /// The collection's id; its document lies beside the item's, as `collection.json`.
    pub collection: String,
    /// The outline: for each polygon its outer ring of longitudes and latitudes, counter-clockwise, closed.
    pub polygons: Vec<Vec<(f64, f64)>>,
    /// West, south, east, north, in degrees.
    pub bbox: [f64; 4],
    /// Acquisition, in microseconds since 1970-01-01T00:00:00Z.
    pub datetime_us: i64,
    /// When it was computed, likewise.
    pub processed_us: i64,
    /// What it leads to.
    pub assets: Vec<AssetFacts>,
    /// Program and version.
    pub software: (String, String),
    /// The grid that was cut.
    pub grid: GridFacts,
    /// Metres on the ground per pixel of the grid that was cut.
    pub gsd_m: Option<f64>,
    /// What the numbers depend on beside the pixels: `emb:runtime_parameters`.
    pub runtime_parameters: Value,
    /// From samples to the encoder's pixels: `emb:preprocessing`.
    pub preprocessing: Value,
    /// From the encoder's vectors to those that are stored: `emb:postprocessing`, if something was done to them.
    pub postprocessing: Option<Value>,
    /// What was done to the values before they were stored: `emb:quantization`; nothing for the encoder's own.
    pub quantization: Option<Value>,
    /// `emb:energy`, where it could be measured.
    pub energy: Option<Value>,
    /// Further facts, without their prefix `dinov3:`.
    pub own: Map<String, Value>,
    /// Links beside those to the collection.
    pub links: Vec<Link>,
}

/// The item, a GeoJSON Feature.
pub fn item(facts: &ItemFacts) -> Value {
    let ring = |ring: &Vec<(f64, f64)>| json!([ring.iter().map(|(lon, lat)| json!([lon, lat])).collect::<Vec<_>>()]);
    let geometry = match facts.polygons.as_slice() {
        [one] => json!({"type": "Polygon", "coordinates": ring(one)}),
        several => json!({"type": "MultiPolygon", "coordinates": several.iter().map(ring).collect::<Vec<_>>()}),
    };
    let (program, version) = &facts.software;
    let mut properties = json!({
        "datetime": rfc3339(facts.datetime_us),
        "processing:datetime": rfc3339(facts.processed_us),
        "processing:software": {program.as_str(): version},
        "emb:runtime_parameters": facts.runtime_parameters,
        "emb:preprocessing": expression(&facts.preprocessing),
    });
    facts.grid.write_into(&mut properties);
    if let Some(postprocessing) = &facts.postprocessing {
        properties["emb:postprocessing"] = expression(postprocessing);
    }
    if let Some(gsd) = facts.gsd_m {
        properties["gsd"] = json!(gsd);
    }
    if let Some(quantization) = &facts.quantization {
        properties["emb:quantization"] = quantization.clone();
    }
    if let Some(energy) = &facts.energy {
        properties["emb:energy"] = energy.clone();
    }
    for (name, value) in &facts.own {
        properties[format!("dinov3:{name}")] = value.clone();
    }
    let assets = facts.assets.iter().map(|asset| (asset.key.to_owned(), asset.to_json()));
    let catalogue = ["root", "parent", "collection"].map(|rel| Link::new(rel, "./collection.json").of_type(JSON));
    json!({
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EMBEDDINGS, PROCESSING, PROJECTION, FILE],
        "id": facts.id,
        "collection": facts.collection,
        "geometry": geometry,
        "bbox": facts.bbox,
        "properties": properties,
        "links": catalogue.iter().chain(&facts.links).map(Link::to_json).collect::<Vec<_>>(),
        "assets": assets.collect::<Map<_, _>>(),
    })
}

/// As the processing extension has expressions.
fn expression(content: &Value) -> Value {
    json!({"format": "dinov3", "expression": content})
}

const JSON: &str = "application/json";
const GEO_JSON: &str = "application/geo+json";

/// What a collection of embeddings says, beside what its items say.
#[derive(Clone, Debug)]
pub struct CollectionFacts {
    /// Its id.
    pub id: String,
    /// For people.
    pub description: String,
    /// An SPDX identifier, `various` or `proprietary`.
    pub license: String,
    /// Values of a vector.
    pub dimensions: u64,
    /// numpy's name of their type.
    pub data_type: String,
    /// `emb:chip_layout`; nothing where a vector is that of a cell of a raster.
    pub chip_layout: Option<Value>,
    /// Links beside those to the items: `emb:model` and `emb:source-data` are demanded.
    pub links: Vec<Link>,
    /// Further facts, without their prefix `dinov3:`.
    pub own: Map<String, Value>,
}

/// The collection of these items, each with the name of its document beside `collection.json`.
pub fn collection(facts: &CollectionFacts, items: &[(String, Value)]) -> Value {
    let mut links = vec![json!({"rel": "root", "href": "./collection.json", "type": JSON})];
    links.extend(facts.links.iter().map(Link::to_json));
    links.extend(items.iter().map(|(name, item)| {
        json!({"rel": "item", "href": format!("./{}", href(name)), "type": GEO_JSON, "title": item["id"]})
    }));
    let gsd: Vec<f64> = items.iter().filter_map(|(_, item)| item["properties"]["gsd"].as_f64()).collect();
    let mut collection = json!({
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EMBEDDINGS],
        "id": facts.id,
        "description": facts.description,
        "license": facts.license,
        "extent": extent(items),
        "emb:type": if facts.chip_layout.is_some() { "chip" } else { "pixel" },
        "emb:dimensions": facts.dimensions,
        "data_type": facts.data_type,
        "links": links,
    });
    if let Some(layout) = &facts.chip_layout {
        collection["emb:chip_layout"] = layout.clone();
    }
    if let Some(first) = gsd.first()
        && gsd.len() == items.len()
        && gsd.iter().all(|other| other == first)
    {
        collection["gsd"] = json!(first);
    }
    for (name, value) in &facts.own {
        collection[format!("dinov3:{name}")] = value.clone();
    }
    collection
}

/// The whole Earth, and no time, where there are no items: the specification demands both.
fn extent(items: &[(String, Value)]) -> Value {
    let number = |item: &Value, at: usize| item["bbox"][at].as_f64();
    let mut boxes: Vec<[f64; 4]> = Vec::new();
    for (_, item) in items {
        let corners: Option<Vec<f64>> = (0..4).map(|at| number(item, at)).collect();
        boxes.extend(corners.and_then(|corners| <[f64; 4]>::try_from(corners).ok()));
    }
    let (west, east) = longitudes(&boxes);
    let bbox = boxes.into_iter().reduce(|a, b| [west, a[1].min(b[1]), east, a[3].max(b[3])]);
    let bbox = bbox.map(|[_, south, _, north]| [west, south, east, north]);
    let mut times: Vec<&str> = items.iter().filter_map(|(_, item)| item["properties"]["datetime"].as_str()).collect();
    // All are in UTC and of one length, up to a fraction that sorts after none.
    times.sort_by_key(|time| time.trim_end_matches('Z').to_owned());
    json!({
        "spatial": {"bbox": [bbox.unwrap_or([-180.0, -90.0, 180.0, 90.0])]},
        "temporal": {"interval": [[times.first(), times.last()]]},
    })
}

/// The range of longitudes of boxes; where one of them crosses the antimeridian, the shortest range around all, which then
/// may cross it too.
fn longitudes(boxes: &[[f64; 4]]) -> (f64, f64) {
    let mut spans: Vec<(f64, f64)> = boxes.iter().map(|[west, _, east, _]| (*west, *east)).collect();
    if spans.iter().all(|(west, east)| west <= east) {
        return spans.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |a, b| (a.0.min(b.0), a.1.max(b.1)));
    }
    spans.iter_mut().filter(|(west, east)| west > east).for_each(|(_, east)| *east += 360.0);
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let first = spans[0].0;
    let (mut reach, mut gap, mut west) = (spans[0].1, 0.0, first);
    for (start, end) in spans.into_iter().skip(1).chain([(first + 360.0, first + 360.0)]) {
        if start - reach > gap {
            (gap, west) = (start - reach, start);
        }
        reach = reach.max(end);
    }
    let around = |longitude: f64| (longitude + 180.0).rem_euclid(360.0) - 180.0;
    if gap > 0.0 { (around(west), around(west - gap)) } else { (-180.0, 180.0) }
}

/// `2026-05-17T10:30:00Z`, with microseconds where there are any, from microseconds since 1970.
fn rfc3339(time_us: i64) -> String {
    // Years that the calendar does not reach are as good as its last.
    format_datetime(time_us).unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(cell_px: u64) -> GridFacts {
        let side = 10.0 * cell_px as f64;
        let code = Some("EPSG:32633".to_owned());
        GridFacts { code, shape: [160 / cell_px, 320 / cell_px], transform: [side, 0.0, 0.0, 0.0, -side, 0.0] }
    }

    fn facts(id: &str, bbox: [f64; 4], datetime_us: i64) -> ItemFacts {
        let [west, south, east, north] = bbox;
        ItemFacts {
            id: id.to_owned(),
            collection: "all".to_owned(),
            polygons: vec![vec![(west, south), (east, south), (east, north), (west, north), (west, south)]],
            bbox,
            datetime_us,
            processed_us: 0,
            assets: vec![AssetFacts {
                key: EMBEDDINGS_ASSET,
                content: json!({"href": "./a.parquet"}),
                size_bytes: 12,
                sha256: Some("ab".repeat(32)),
                grid: None,
            }],
            software: ("dinov3".to_owned(), "1".to_owned()),
            grid: grid(1),
            gsd_m: Some(10.0),
            runtime_parameters: json!({"precision": "f32"}),
            preprocessing: json!({"scale": "u8"}),
            postprocessing: None,
            quantization: Some(json!({"method": "rounding", "original_dtype": "float32"})),
            energy: None,
            own: Map::from_iter([("model".to_owned(), json!("tiny"))]),
            links: vec![Link::new("derived_from", "../a.tif").titled("a.tif")],
        }
    }

    #[test]
    fn an_item_has_what_the_schema_demands_and_no_other_field_of_the_extension() {
        let item = item(&facts("a", [1.0, 2.0, 3.0, 4.0], 0));
        assert_eq!((&item["stac_version"], &item["type"]), (&json!("1.0.0"), &json!("Feature")));
        assert_eq!(item["properties"]["datetime"], "1970-01-01T00:00:00Z");
        assert_eq!(item["properties"]["dinov3:model"], "tiny");
        assert_eq!(item["properties"]["processing:software"]["dinov3"], "1");
        assert_eq!(item["assets"]["embeddings"]["file:checksum"], format!("1220{}", "ab".repeat(32)));
        assert_eq!(item["geometry"]["coordinates"][0][0], json!([1.0, 2.0]));
        let properties = item["properties"].as_object().unwrap();
        let of_extension: Vec<_> = properties.keys().filter(|name| name.starts_with("emb:")).collect();
        assert_eq!(of_extension, ["emb:preprocessing", "emb:quantization", "emb:runtime_parameters"]);
        let links: Vec<_> = item["links"].as_array().unwrap().iter().map(|link| link["rel"].clone()).collect();
        assert_eq!(links, ["root", "parent", "collection", "derived_from"]);
    }

    #[test]
    fn a_raster_says_where_its_own_cells_lie() {
        let mut facts = facts("a", [1.0, 2.0, 3.0, 4.0], 0);
        facts.assets[0].grid = Some(grid(16));
        facts.assets[0].sha256 = None;
        let picture = AssetFacts { key: "picture", content: json!({"href": "./a-pca.tif"}), ..facts.assets[0].clone() };
        facts.assets.push(picture);
        facts.postprocessing = Some(json!({"components": 64}));
        let item = item(&facts);
        let embeddings = &item["assets"]["embeddings"];
        assert_eq!(
            (&embeddings["proj:shape"], &item["properties"]["proj:shape"]),
            (&json!([10, 20]), &json!([160, 320]))
        );
        assert_eq!(embeddings["proj:transform"], json!([160.0, 0.0, 0.0, 0.0, -160.0, 0.0]));
        assert_eq!((&embeddings["file:size"], &embeddings["file:checksum"]), (&json!(12), &Value::Null));
        assert_eq!(item["assets"]["picture"]["href"], "./a-pca.tif");
        assert_eq!(item["properties"]["emb:postprocessing"]["expression"]["components"], 64);
    }

    #[test]
    fn a_collection_spans_its_items() {
        let of = |bbox, time| item(&facts("i", bbox, time));
        let collection_of = |items: Vec<Value>| {
            let facts = CollectionFacts {
                id: "all".to_owned(),
                description: "text".to_owned(),
                license: "various".to_owned(),
                dimensions: 4,
                data_type: "float32".to_owned(),
                chip_layout: Some(json!({"layout_type": "regular_grid"})),
                links: Vec::new(),
                own: Map::new(),
            };
            let named: Vec<_> = items.into_iter().map(|item| ("a b.json".to_owned(), item)).collect();
            collection(&facts, &named)
        };
        let kind = &collection_of(vec![of([1.0, 2.0, 3.0, 4.0], 0)])["emb:type"];
        assert_eq!(kind, "chip");
        let found = collection_of(vec![of([1.0, 2.0, 3.0, 4.0], 86_400_000_000), of([0.0, 3.0, 2.0, 5.0], 500_000)]);
        assert_eq!(found["extent"]["spatial"]["bbox"], json!([[0.0, 2.0, 3.0, 5.0]]));
        let times = json!([["1970-01-01T00:00:00.500Z", "1970-01-02T00:00:00Z"]]);
        assert_eq!((&found["extent"]["temporal"]["interval"], &found["gsd"]), (&times, &json!(10.0)));
        assert_eq!(found["links"][1]["href"], "./a%20b.json");
        let across = collection_of(vec![of([179.0, 0.0, -179.0, 1.0], 0), of([178.0, 0.0, -178.0, 1.0], 0)]);
        assert_eq!(across["extent"]["spatial"]["bbox"], json!([[178.0, 0.0, -178.0, 1.0]]));
        let mixed = collection_of(vec![of([179.0, 0.0, -179.0, 1.0], 0), of([1.0, 0.0, 2.0, 1.0], 0)]);
        assert_eq!(mixed["extent"]["spatial"]["bbox"], json!([[1.0, 0.0, -179.0, 1.0]]));
        let sides = collection_of(vec![of([179.0, 0.0, -179.0, 1.0], 0), of([-178.5, 0.0, -178.0, 1.0], 0)]);
        assert_eq!(sides["extent"]["spatial"]["bbox"], json!([[179.0, 0.0, -178.0, 1.0]]));
        assert_eq!(collection_of(Vec::new())["extent"]["temporal"]["interval"], json!([[null, null]]));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (1_779_013_800, "2026-05-17T10:30:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000), text);
        }
        assert_eq!(rfc3339(1_779_013_800_000_250), "2026-05-17T10:30:00.000250Z");
    }
}
