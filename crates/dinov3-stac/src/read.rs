//! Items as others write them: STAC 1.0 and 1.1, alone, in item collections, or as rows of stac-geoparquet.

use serde_json::{Map, Value};

use crate::href::path_of_uri;
use crate::json::parse_json;

/// Assets that an error lists.
const LISTED_ASSETS: usize = 40;

/// Why a document, an item or an asset cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StacError {
    /// Not JSON.
    #[error("cannot be read as JSON: {reason}")]
    NotJson {
        /// What is wrong with it.
        reason: String,
    },
    /// JSON of another kind.
    #[error("is no STAC item or item collection, but {found}")]
    NotItems {
        /// What it is.
        found: String,
    },
    /// A catalogue's page, which links to items.
    #[error(
        "is a STAC {kind}, which links to items and has none: name items, or an item collection as a search gives it"
    )]
    Catalogue {
        /// `Catalog` or `Collection`.
        kind: String,
    },
    /// Another version.
    #[error("item {item} is of STAC {version}: 1.0 and 1.1 are read")]
    Version {
        /// Its id.
        item: String,
        /// The version.
        version: String,
    },
    /// Something that every item has is missing, or is of another type.
    #[error("item {item} has no sound '{field}'")]
    Field {
        /// Its id.
        item: String,
        /// The field's name.
        field: &'static str,
    },
    /// No such asset.
    #[error("item {item} has no asset '{asset}'; it has {known}")]
    NoSuchAsset {
        /// Its id.
        item: String,
        /// What was asked for.
        asset: String,
        /// The keys of its assets.
        known: String,
    },
    /// Several assets are meant.
    #[error("item {item} has several assets '{asset}': {found}; name one by its key")]
    SeveralAssets {
        /// Its id.
        item: String,
        /// What was asked for.
        asset: String,
        /// The keys of those.
        found: String,
    },
    /// No asset was named, and none is the obvious one.
    #[error(
        "item {item} has no asset that is a picture by itself; name one, or three for red, green and blue, as --assets \
         red,green,blue; it has {known}"
    )]
    NoVisual {
        /// Its id.
        item: String,
        /// The keys of its assets.
        known: String,
    },
}

/// What a JSON file holds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Document {
    /// One item.
    Item(Item),
    /// An item collection.
    Items {
        /// The items, or why one cannot be used.
        items: Vec<Result<Item, StacError>>,
        /// Whether a server has more of them on a further page.
        has_next_page: bool,
    },
}

/// A STAC item: a scene, as far as a reader of its pixels is concerned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Item {
    /// Unique in its collection.
    pub id: String,
    /// Its collection's id.
    pub collection: Option<String>,
    /// Where the item itself is, if it says so with an absolute link.
    pub self_href: Option<String>,
    /// Acquisition, or where only start and end are given, the start, in microseconds since 1970-01-01T00:00:00Z.
    pub datetime_us: Option<i64>,
    /// What it says of itself.
    pub properties: Map<String, Value>,
    /// Its files, ordered by their keys.
    pub assets: Vec<Asset>,
}

/// A file of an item.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Asset {
    /// Its name in the item.
    pub key: String,
    /// Where it is; relative to the item, unless it is absolute.
    pub href: String,
    /// Its media type.
    pub media_type: Option<String>,
    /// What it is for: `visual`, `data`, `thumbnail`, ...
    pub roles: Vec<String>,
    /// For each band, what it is called: its name and its common name (`red`).
    pub bands: Vec<Vec<String>>,
    /// For each band, scale and offset of its samples, where they are said; empty where they are said of none.
    pub scales: Vec<Option<(f64, f64)>>,
}

/// Reads a JSON file.
///
/// # Errors
/// [`StacError`] for the whole; a single unusable item of a collection does not spoil the others.
pub fn parse_document(bytes: &[u8]) -> Result<Document, StacError> {
    let value = parse_json(bytes).map_err(|reason| StacError::NotJson { reason })?;
    let kind = value["type"].as_str().unwrap_or_default();
    match kind {
        "Feature" => Item::from_json(&value).map(Document::Item),
        "FeatureCollection" => {
            let features = value["features"].as_array().map_or(&[][..], Vec::as_slice);
            let has_next_page = links(&value).any(|(relation, _)| relation == "next");
            Ok(Document::Items { items: features.iter().map(Item::from_json).collect(), has_next_page })
        }
        "Catalog" | "Collection" => Err(StacError::Catalogue { kind: kind.to_owned() }),
        "" => Err(StacError::NotItems { found: "JSON without a 'type'".to_owned() }),
        other => Err(StacError::NotItems { found: format!("of type '{other}'") }),
    }
}

/// Relations and addresses of the links.
fn links(value: &Value) -> impl Iterator<Item = (&str, &str)> {
    let links = value["links"].as_array().map_or(&[][..], Vec::as_slice);
    links.iter().filter_map(|link| Some((link["rel"].as_str()?, link["href"].as_str()?)))
}

impl Item {
    /// An item from its JSON, or from a row of stac-geoparquet as JSON, whose properties stand beside its other fields.
    ///
    /// # Errors
    /// [`StacError`].
    pub fn from_json(value: &Value) -> Result<Self, StacError> {
        let id = value["id"].as_str().unwrap_or_default().to_owned();
        if id.is_empty() && value.get("assets").is_none() {
            return Err(StacError::NotItems { found: "a GeoJSON feature without assets".to_owned() });
        }
        let missing = |field: &'static str| StacError::Field { item: id.clone(), field };
        if id.is_empty() {
            return Err(missing("id"));
        }
        // Rows of stac-geoparquet may have none.
        if let Some(version) = value["stac_version"].as_str()
            && !version.starts_with("1.")
        {
            return Err(StacError::Version { item: id.clone(), version: version.to_owned() });
        }
        let properties = match value.get("properties") {
            Some(properties) => properties.as_object().ok_or_else(|| missing("properties"))?.clone(),
            None => flat_properties(value.as_object().ok_or_else(|| missing("properties"))?),
        };
        let mut assets = Vec::new();
        for (key, asset) in value["assets"].as_object().ok_or_else(|| missing("assets"))? {
            // Rows of a table have all columns: assets of other items are null.
            if asset.is_null() || asset["href"].is_null() {
                continue;
            }
            assets.push(Asset {
                key: key.clone(),
                href: asset["href"].as_str().ok_or_else(|| missing("assets"))?.to_owned(),
                media_type: asset["type"].as_str().map(str::to_owned),
                roles: texts(&asset["roles"]),
                bands: bands(asset),
                scales: scales(asset),
            });
        }
        let datetime_us =
            ["datetime", "start_datetime"].iter().find_map(|name| parse_datetime(properties.get(*name)?.as_str()?));
        Ok(Self {
            collection: value["collection"].as_str().map(str::to_owned),
            self_href: links(value)
                .find(|(relation, href)| *relation == "self" && href.contains("://"))
                .map(|(_, href)| href.to_owned()),
            datetime_us,
            properties,
            assets,
            id,
        })
    }

    /// The files of a scene: those that were asked for, in their order; or, where nothing was asked for, the one that is a
    /// picture by itself.
    ///
    /// # Errors
    /// If there are none, or several where one was asked for.
    pub fn choose(&self, asked: &[String]) -> Result<Vec<&Asset>, StacError> {
        match asked {
            [] => Ok(vec![self.visual()?]),
            asked => asked.iter().map(|name| self.asset(name)).collect(),
        }
    }

    /// The asset of this key; else `role:NAME`, the one with this role; else the one that has a single band of this name or
    /// common name. Where several have it, GeoTIFFs count alone.
    ///
    /// # Errors
    /// [`StacError::NoSuchAsset`], [`StacError::SeveralAssets`].
    pub fn asset(&self, name: &str) -> Result<&Asset, StacError> {
        if let Some(asset) = self.assets.iter().find(|asset| asset.key == name) {
            return Ok(asset);
        }
        let is_meant = |asset: &&Asset| match name.strip_prefix("role:") {
            Some(role) => asset.roles.iter().any(|own| own == role),
            None => matches!(&asset.bands[..], [names] if names.iter().any(|own| own == name)),
        };
        let mut found: Vec<&Asset> = self.assets.iter().filter(is_meant).collect();
        if found.len() > 1 && found.iter().any(|asset| asset.is_tiff()) {
            found.retain(|asset| asset.is_tiff());
        }
        match found[..] {
            [asset] => Ok(asset),
            [] => {
                let (item, known) = (self.id.clone(), self.known());
                Err(StacError::NoSuchAsset { item, asset: name.to_owned(), known })
            }
            _ => Err(StacError::SeveralAssets {
                item: self.id.clone(),
                asset: name.to_owned(),
                found: found.iter().map(|asset| asset.key.as_str()).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// The asset `visual`; else the GeoTIFF with this role; else the only GeoTIFF that is data; else the only one at all.
    fn visual(&self) -> Result<&Asset, StacError> {
        if let Some(asset) = self.assets.iter().find(|asset| asset.key == "visual") {
            return Ok(asset);
        }
        let tiffs: Vec<&Asset> = self.assets.iter().filter(|asset| asset.is_tiff()).collect();
        for role in [Some("visual"), Some("data"), None] {
            let of_role = |asset: &&&Asset| role.is_none_or(|role| asset.roles.iter().any(|own| own == role));
            match tiffs.iter().filter(of_role).collect::<Vec<_>>()[..] {
                [asset] => return Ok(asset),
                [] => {}
                // Several bands are for the user to choose from.
                _ => break,
            }
        }
        Err(StacError::NoVisual { item: self.id.clone(), known: self.known() })
    }

    /// The keys of its assets, GeoTIFFs first.
    fn known(&self) -> String {
        let (tiffs, others): (Vec<_>, Vec<_>) = self.assets.iter().partition(|asset| asset.is_tiff());
        let shown = if tiffs.is_empty() { &others } else { &tiffs };
        let mut text = shown.iter().take(LISTED_ASSETS).map(|asset| asset.key.as_str()).collect::<Vec<_>>().join(", ");
        let more = self.assets.len() - shown.len().min(LISTED_ASSETS);
        if more > 0 {
            text += &format!(" and {more} others");
        }
        if text.is_empty() { "none".to_owned() } else { text }
    }
}

impl Asset {
    /// Whether it says or looks as if it were a GeoTIFF.
    fn is_tiff(&self) -> bool {
        match &self.media_type {
            Some(kind) => kind.to_ascii_lowercase().starts_with("image/tiff"),
            None => {
                let path = self.href.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
                path.ends_with(".tif") || path.ends_with(".tiff")
            }
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().map_or(&[][..], Vec::as_slice);
    texts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `eo:bands` of STAC 1.0, `bands` of 1.1.
fn bands(asset: &Value) -> Vec<Vec<String>> {
    let of_field = |field: &str| asset[field].as_array().filter(|bands| !bands.is_empty());
    let bands = of_field("eo:bands").or_else(|| of_field("bands")).map_or(&[][..], Vec::as_slice);
    let names = |band: &Value| {
        let names = ["name", "common_name", "eo:common_name"].iter().filter_map(|field| band[*field].as_str());
        names.map(str::to_owned).collect()
    };
    bands.iter().map(names).collect()
}

/// `raster:bands` of STAC 1.0; `raster:scale` and `raster:offset` of 1.1, of each band or of the asset.
fn scales(asset: &Value) -> Vec<Option<(f64, f64)>> {
    let said = |of: &Value, scale: &str, offset: &str| match (of[scale].as_f64(), of[offset].as_f64()) {
        (None, None) => None,
        (scale, offset) => Some((scale.unwrap_or(1.0), offset.unwrap_or(0.0))),
    };
    let list = |field: &str| asset[field].as_array().filter(|bands| !bands.is_empty());
    let of_asset = said(asset, "raster:scale", "raster:offset");
    let mut found: Vec<_> = match (list("raster:bands"), list("bands")) {
        (Some(bands), _) => bands.iter().map(|band| said(band, "scale", "offset")).collect(),
        (None, Some(bands)) => {
            bands.iter().map(|band| said(band, "raster:scale", "raster:offset").or(of_asset)).collect()
        }
        (None, None) => vec![of_asset],
    };
    if found.iter().all(Option::is_none) {
        found.clear();
    }
    found
}

/// The properties of a row of stac-geoparquet: what is no field of an item.
fn flat_properties(row: &Map<String, Value>) -> Map<String, Value> {
    const FIELDS: [&str; 9] =
        ["type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection"];
    let is_property = |(name, value): &(&String, &Value)| !FIELDS.contains(&name.as_str()) && !value.is_null();
    row.iter().filter(is_property).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A time in microseconds since 1970-01-01T00:00:00Z: RFC 3339, or without a zone, which counts as UTC, or a date.
pub fn parse_datetime(text: &str) -> Option<i64> {
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    let local = text.parse::<chrono::NaiveDateTime>().ok();
    let midnight = || text.parse::<chrono::NaiveDate>().ok().map(|date| date.and_time(chrono::NaiveTime::MIN));
    local.or_else(midnight).map(|time| time.and_utc().timestamp_micros())
}

/// A time as items write it: `2026-05-17T10:30:31.024Z`. Nothing for times that a calendar does not have.
pub fn format_datetime(datetime_us: i64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_micros(datetime_us)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
}

/// Where a link leads that stands in the document at `base`: both are paths or URLs. GDAL's names of what is elsewhere
/// (`/vsicurl/`, `/vsis3/`, `/vsigs/`, `/vsiaz/`) count as the URLs that they stand for.
pub fn resolve(base: &str, href: &str) -> String {
    for (gdal, scheme) in [("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://"), ("/vsiaz/", "az://")] {
        if let Some(rest) = href.strip_prefix(gdal) {
            return format!("{scheme}{rest}");
        }
    }
    if let Some(path) = path_of_uri(href) {
        return path;
    }
    if href.contains("://") {
        return href.to_owned();
    }
    let (root, path) = match base.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (format!("{scheme}://{host}"), path)
        }
        None => (String::new(), base),
    };
    if href.starts_with("//") && !root.is_empty() {
        return format!("{}:{href}", root.split("://").next().unwrap_or_default());
    }
    let joined = match href.starts_with('/') {
        true => href.to_owned(),
        false => {
            format!("{}{href}", path.rfind('/').map_or(if root.is_empty() { "" } else { "/" }, |end| &path[..=end]))
        }
    };
    // A query is no path.
    let (joined, query) = joined.split_at(joined.find('?').unwrap_or(joined.len()));
    format!("{root}{}{query}", without_dots(joined))
}

/// A path without `.` and, as far as it goes, `..`.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        match *segment {
            "." if index + 1 < segments.len() => {}
            ".." => match parts.last() {
                // Before the root there is nothing.
                Some(&"") if parts.len() == 1 => {}
                Some(last) if *last != ".." => {
                    parts.pop();
                }
                _ => parts.push(".."),
            },
            segment => parts.push(segment),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item() -> Value {
        json!({
            "type": "Feature", "stac_version": "1.0.0", "id": "S2A", "collection": "sentinel-2-l2a",
            "properties": {"datetime": "2026-05-17T10:30:31.024Z", "s2:processing_baseline": "05.11"},
            "geometry": null, "bbox": [],
            "links": [{"rel": "self", "href": "https://h/items/S2A"}],
            "assets": {
                "visual": {"href": "./TCI.tif", "type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["visual"]},
                "B04": {"href": "B04.tif", "type": "image/tiff; application=geotiff", "roles": ["data"],
                        "eo:bands": [{"name": "B04", "common_name": "red"}]},
                "B04-jp2": {"href": "B04.jp2", "type": "image/jp2", "roles": ["data"],
                        "eo:bands": [{"name": "B04", "common_name": "red"}]},
                "B03": {"href": "B03.tif", "roles": ["data"], "bands": [{"name": "B03", "eo:common_name": "green"}]},
                "thumbnail": {"href": "t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
            }
        })
    }

    fn keys(item: &Item, asked: &[&str]) -> Result<Vec<String>, StacError> {
        let asked: Vec<String> = asked.iter().map(|name| name.to_string()).collect();
        Ok(item.choose(&asked)?.iter().map(|asset| asset.key.clone()).collect())
    }

    #[test]
    fn an_item_says_what_a_scene_needs() {
        let Document::Item(item) = parse_document(item().to_string().as_bytes()).unwrap() else { panic!("no item") };
        assert_eq!((item.id.as_str(), item.collection.as_deref()), ("S2A", Some("sentinel-2-l2a")));
        assert_eq!(item.self_href.as_deref(), Some("https://h/items/S2A"));
        assert_eq!(item.datetime_us, Some(1_779_013_831_024_000));
        assert_eq!(item.properties["s2:processing_baseline"], "05.11");
    }

    #[test]
    fn assets_are_chosen_by_key_by_role_and_by_common_name() {
        let item = Item::from_json(&item()).unwrap();
        assert_eq!(keys(&item, &["B04", "thumbnail"]).unwrap(), ["B04", "thumbnail"]);
        assert_eq!(keys(&item, &["role:thumbnail"]).unwrap(), ["thumbnail"]);
        assert_eq!(keys(&item, &["red", "green"]).unwrap(), ["B04", "B03"]);
        assert_eq!(keys(&item, &[]).unwrap(), ["visual"]);
        let error = keys(&item, &["nir"]).unwrap_err().to_string();
        assert_eq!(error, "item S2A has no asset 'nir'; it has B03, B04, visual and 2 others");
        let error = keys(&item, &["role:data"]).unwrap_err().to_string();
        assert_eq!(error, "item S2A has several assets 'role:data': B03, B04; name one by its key");
    }

    #[test]
    fn without_a_choice_only_the_obvious_one_is_taken() {
        let mut value = item();
        value["assets"].as_object_mut().unwrap().remove("visual");
        let error = keys(&Item::from_json(&value).unwrap(), &[]).unwrap_err().to_string();
        assert!(error.contains("--assets red,green,blue; it has B03, B04 and 2 others"), "{error}");
        // One picture of data, as NAIP's.
        value["assets"].as_object_mut().unwrap().retain(|key, _| key == "B03" || key == "thumbnail");
        assert_eq!(keys(&Item::from_json(&value).unwrap(), &[]).unwrap(), ["B03"]);
        value["assets"]["B03"]["roles"] = json!(null);
        assert_eq!(keys(&Item::from_json(&value).unwrap(), &[]).unwrap(), ["B03"]);
        value["assets"] = json!({});
        let error = keys(&Item::from_json(&value).unwrap(), &[]).unwrap_err().to_string();
        assert!(error.ends_with("it has none"), "{error}");
    }

    #[test]
    fn collections_of_items_are_read_and_bad_items_are_told() {
        let mut old = item();
        old["stac_version"] = json!("0.9.0");
        let mut interval = item();
        interval["properties"] =
            json!({"datetime": null, "start_datetime": "2026-01-01T00:00:00Z", "end_datetime": "2026-02-01T00:00:00Z"});
        interval["stac_version"] = json!("1.1.0");
        let features = [item(), old, interval, json!({"type": "Feature"}), json!({"id": "x", "properties": {}})];
        let document =
            json!({"type": "FeatureCollection", "features": features, "links": [{"rel": "next", "href": "x"}]});
        let Document::Items { items, has_next_page } = parse_document(document.to_string().as_bytes()).unwrap() else {
            panic!("no items")
        };
        assert!(has_next_page && items[0].is_ok());
        assert_eq!(items[1].as_ref().unwrap_err().to_string(), "item S2A is of STAC 0.9.0: 1.0 and 1.1 are read");
        assert_eq!(items[2].as_ref().unwrap().datetime_us, Some(1_767_225_600_000_000));
        let error = items[3].as_ref().unwrap_err().to_string();
        assert_eq!(error, "is no STAC item or item collection, but a GeoJSON feature without assets");
        assert_eq!(items[4].as_ref().unwrap_err().to_string(), "item x has no sound 'assets'");
    }

    #[test]
    fn scale_and_offset_of_samples_are_those_of_the_assets() {
        let scales = |fields: Value| {
            let mut value = item();
            value["assets"] = json!({"a": fields});
            value["assets"]["a"]["href"] = json!("a.tif");
            Item::from_json(&value).unwrap().assets[0].scales.clone()
        };
        // Earth Search; with a band that says nothing.
        assert_eq!(scales(json!({"raster:bands": [{"scale": 0.0001, "offset": -0.1}]})), [Some((0.0001, -0.1))]);
        assert_eq!(
            scales(json!({"raster:bands": [{"scale": 0.5}, {"offset": 3}]})),
            [Some((0.5, 0.0)), Some((1.0, 3.0))]
        );
        assert_eq!(scales(json!({"raster:bands": [{"scale": 0.5}, {"nodata": 0}]})), [Some((0.5, 0.0)), None]);
        // STAC 1.1.
        assert_eq!(scales(json!({"bands": [{"raster:scale": 2, "raster:offset": 1}]})), [Some((2.0, 1.0))]);
        assert_eq!(
            scales(json!({"raster:scale": 2, "bands": [{"name": "a"}, {"raster:scale": 3}]})),
            [Some((2.0, 0.0)), Some((3.0, 0.0))]
        );
        assert_eq!(scales(json!({"raster:scale": 2})), [Some((2.0, 0.0))]);
        assert_eq!(scales(json!({"bands": [{"name": "a"}]})), []);
    }

    #[test]
    fn rows_of_a_table_are_items() {
        let mut row = item();
        let properties = row.as_object_mut().unwrap().remove("properties").unwrap();
        row.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
        row["assets"]["B05"] = json!(null);
        row["eo:cloud_cover"] = json!(null);
        row.as_object_mut().unwrap().remove("stac_version");
        let item = Item::from_json(&row).unwrap();
        assert_eq!(item.properties.keys().collect::<Vec<_>>(), ["datetime", "s2:processing_baseline"]);
        assert_eq!((item.datetime_us.is_some(), item.assets.len()), (true, 5));
    }

    #[test]
    fn what_is_no_item_is_said() {
        let told = |text: &str| parse_document(text.as_bytes()).unwrap_err().to_string();
        assert!(told("{").starts_with("cannot be read as JSON: "));
        assert!(told(r#"{"type": "Collection"}"#).starts_with("is a STAC Collection, which links to items"));
        assert_eq!(told("[1]"), "is no STAC item or item collection, but JSON without a 'type'");
        assert_eq!(told(r#"{"type": "Topology"}"#), "is no STAC item or item collection, but of type 'Topology'");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse_datetime("1970-01-01T00:00:01+01:00"), Some(-3_599_000_000));
        assert_eq!(parse_datetime("1970-01-01T00:00:01"), Some(1_000_000));
        assert_eq!(parse_datetime("1970-01-02"), Some(86_400_000_000));
        assert_eq!(parse_datetime("yesterday"), None);
        assert_eq!(format_datetime(1_779_013_831_024_000).as_deref(), Some("2026-05-17T10:30:31.024Z"));
    }

    #[test]
    fn links_lead_where_a_browser_goes() {
        let url = "https://h:1/a/b/item.json?sig=x";
        for (base, href, expected) in [
            (url, "./c.tif", "https://h:1/a/b/c.tif"),
            (url, "../c.tif?y=../", "https://h:1/a/c.tif?y=../"),
            (url, "../../../c.tif", "https://h:1/c.tif"),
            (url, "/c.tif", "https://h:1/c.tif"),
            (url, "//g/c.tif", "https://g/c.tif"),
            (url, "s3://b/c.tif", "s3://b/c.tif"),
            ("s3://b/p/item.json", "c.tif", "s3://b/p/c.tif"),
            ("https://h", "c.tif", "https://h/c.tif"),
            ("item.json", "./c.tif", "c.tif"),
            ("d/item.json", "../c.tif", "c.tif"),
            ("../item.json", "../c.tif", "../../c.tif"),
            ("/d/item.json", "../../c.tif", "/c.tif"),
            ("d/item.json", "/data/c.tif", "/data/c.tif"),
            ("d/item.json", "file:///data/c.tif", "/data/c.tif"),
            ("d/item.json", "file:///data/a%20b.tif", "/data/a b.tif"),
            ("d/item.json", "/vsicurl/https://h/c.tif", "https://h/c.tif"),
            ("d/item.json", "/vsis3/b/c.tif", "s3://b/c.tif"),
        ] {
            assert_eq!(resolve(base, href), expected, "{base} {href}");
        }
    }
}
