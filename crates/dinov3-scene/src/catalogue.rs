//! Scenes that STAC items name: JSON files, pages of a server, and tables of stac-geoparquet.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use dinov3_raster::{Location, Opener};
use dinov3_sink::read_untrusted_parquet;
use dinov3_stac::{Asset, Document, Item, StacError, format_datetime, parse_document, parse_json, resolve};
use parquet::basic::{LogicalType, TimeUnit};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value, json};

use crate::product::RASTER_BANDS;
use crate::scene::parse;
use crate::{Preset, SceneError, SceneInput};

/// A longer document is none that was meant for this.
const LONGEST_DOCUMENT_BYTES: u64 = 256 << 20;
/// What the rows of a table may take in memory.
const MOST_ITEM_BYTES: usize = 2 << 30;

/// Which files of an item are its scene.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssetChoice {
    /// Keys, `role:NAME`, or names of bands, in the order of the scene's files; none for those of the preset, or for the
    /// one that is a picture.
    pub assets: Vec<String>,
    /// The product, which knows its assets.
    pub preset: Option<Preset>,
    /// The asset whose values say which pixels are valid.
    pub mask: Option<String>,
}

/// What a document holds.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Listed {
    /// The scenes; for an item that cannot be used, one that says why.
    pub scenes: Vec<SceneInput>,
    /// Whether a server has more of them on a further page, which was not asked for.
    pub has_next_page: bool,
}

/// Whether a file or URL is named like a document of STAC items: `.json`, `.geojson`, `.parquet`, `.geoparquet`.
pub fn is_catalogue(document: &Path) -> bool {
    let text = document.to_string_lossy();
    let path = if text.contains("://") { text.split(['?', '#']).next().unwrap_or_default() } else { &text };
    let ending = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending);
    ending.is_some_and(|ending| {
        ["json", "geojson", "parquet", "geoparquet"].iter().any(|known| known.eq_ignore_ascii_case(ending))
    })
}

/// The scenes of a STAC item, an item collection, or a table of items: a path or a URL.
///
/// # Errors
/// If it cannot be read, or holds no items.
pub fn read_items(opener: &Opener, document: &Path, choice: &AssetChoice) -> Result<Listed, SceneError> {
    let location = parse(document)?;
    let shown = location.shown();
    let bytes = opener.read_whole(&location, LONGEST_DOCUMENT_BYTES)?;
    if bytes.starts_with(b"PAR1") {
        // The reader of rows gives up on types that it does not know, too.
        let items = read_untrusted_parquet(bytes.into(), read_table);
        let items = items.map_err(|problem| SceneError::Table { document: shown.clone(), problem })?;
        let scenes = items.into_iter().map(|item| scene_of(item, document, &location, choice)).collect();
        return Ok(Listed { scenes, has_next_page: false });
    }
    let parsed = parse_document(&bytes);
    match parsed.map_err(|source| SceneError::Catalogue { document: shown.clone(), source })? {
        Document::Item(mut item) => {
            // Where it was read from counts, as for every program that follows its links.
            item.self_href.get_or_insert_with(|| shown.clone());
            let base = document.to_string_lossy();
            Ok(Listed { scenes: vec![scene(&item, &base, &location, choice)], has_next_page: false })
        }
        Document::Items { items, has_next_page } => {
            let scenes = items.into_iter().map(|item| scene_of(item, document, &location, choice)).collect();
            Ok(Listed { scenes, has_next_page })
        }
        _ => Err(SceneError::Catalogue { document: shown, source: StacError::NotItems { found: "else".to_owned() } }),
    }
}

/// The scene of an item that stands among others, whose links are relative to the place that it says it has.
fn scene_of(item: Result<Item, StacError>, document: &Path, location: &Location, choice: &AssetChoice) -> SceneInput {
    match item {
        Ok(item) => {
            let base = item.self_href.clone().unwrap_or_else(|| document.to_string_lossy().into_owned());
            scene(&item, &base, location, choice)
        }
        Err(error) => SceneInput::unusable(location.shown(), error.to_string()),
    }
}

/// Where an asset is. What a server tells must not lead to files of this machine, whose owner did not name them.
fn place(asset: &Asset, base: &str, document: &Location) -> Result<PathBuf, String> {
    let path = PathBuf::from(resolve(base, &asset.href));
    if matches!(document, Location::File(_)) || !matches!(parse(&path), Ok(Location::File(_))) {
        return Ok(path);
    }
    Err(format!(
        "the asset '{}' is {}, a file of this machine, which a document of a server cannot name: save the document and name \
         the copy",
        asset.key, asset.href
    ))
}

/// Who named the files of a document, if it was not the owner of this machine.
fn host_of(document: &Location) -> Option<String> {
    match document {
        Location::File(_) => None,
        Location::Web(url) => Some(url.host().to_owned()),
        // No host is called so.
        remote => Some(remote.shown()),
    }
}

fn scene(item: &Item, base: &str, document: &Location, choice: &AssetChoice) -> SceneInput {
    let place = |asset: &Asset| place(asset, base, document);
    let of_preset = choice.preset.filter(|_| choice.assets.is_empty()).and_then(|preset| {
        let lists = preset.asset_keys().iter();
        lists.copied().find(|keys| keys.iter().all(|key| item.asset(key).is_ok()))
    });
    let keys: Option<Vec<String>> = of_preset.map(|keys| keys.iter().map(|&key| key.to_owned()).collect());
    let chosen = item.choose(keys.as_ref().unwrap_or(&choice.assets)).map_err(|error| error.to_string());
    let chosen = chosen.and_then(|assets| {
        // What is no asset may be a file beside the scene's.
        let mask = choice.mask.as_ref().and_then(|mask| item.asset(mask).ok());
        let scales = scales(&assets);
        Ok((assets.into_iter().map(place).collect::<Result<Vec<_>, _>>()?, mask.map(place).transpose()?, scales))
    });
    // Without the secrets that an address may hold.
    let link = item.self_href.as_ref().map(|href| crate::scene_name(Path::new(href)));
    let stac_item = link.unwrap_or_else(|| item.id.clone());
    let mut properties = item.properties.clone();
    if let Some(collection) = &item.collection {
        properties.entry("collection").or_insert_with(|| json!(collection));
    }
    match chosen {
        Ok((files, mask, scales)) => {
            if let Some(scales) = scales {
                properties.insert(RASTER_BANDS.to_owned(), scales);
            }
            SceneInput {
                mask,
                named_by_host: host_of(document),
                datetime_us: item.datetime_us,
                stac_item: Some(stac_item),
                properties,
                ..SceneInput::of_files(files)
            }
        }
        Err(error) => SceneInput { stac_item: Some(stac_item.clone()), ..SceneInput::unusable(stac_item, error) },
    }
}

/// Scale and offset of all bands of these files, as one list of [`RASTER_BANDS`], with one empty entry for a file of which
/// they are not said; nothing where they are said of none.
fn scales(assets: &[&Asset]) -> Option<Value> {
    let of_band = |said: &Option<(f64, f64)>| {
        said.map_or_else(|| json!({}), |(scale, offset)| json!({"scale": scale, "offset": offset}))
    };
    let of_asset = |asset: &&Asset| -> Vec<Value> {
        match asset.scales.is_empty() {
            true => vec![json!({})],
            false => asset.scales.iter().map(of_band).collect(),
        }
    };
    let is_said = assets.iter().any(|asset| !asset.scales.is_empty());
    is_said.then(|| assets.iter().flat_map(of_asset).collect())
}

/// The rows of a table of items (stac-geoparquet 1.0 and 1.1).
fn read_table(bytes: Bytes) -> Result<Vec<Result<Item, StacError>>, String> {
    let told = |error: parquet::errors::ParquetError| error.to_string();
    let file = SerializedFileReader::new(bytes).map_err(told)?;
    let schema = file.metadata().file_metadata().schema_descr();
    if !["id", "assets"].iter().all(|name| schema.root_schema().get_fields().iter().any(|field| field.name() == *name))
    {
        return Err("it has no columns 'id' and 'assets'".to_owned());
    }
    // The reader of rows knows milliseconds and microseconds; pandas writes nanoseconds.
    let is_nanoseconds = |name: &str| {
        schema.columns().iter().any(|column| {
            column.path().parts().len() == 1
                && column.name() == name
                && matches!(column.logical_type_ref(), Some(LogicalType::Timestamp(time)) if matches!(time.unit, TimeUnit::NANOS))
        })
    };
    let nanoseconds: Vec<&str> =
        ["datetime", "start_datetime", "end_datetime"].into_iter().filter(|name| is_nanoseconds(name)).collect();
    let mut items = Vec::new();
    // Where a scene lies is in its file.
    let root = schema.root_schema();
    let is_read = |field: &&TypePtr| !["geometry", "bbox"].contains(&field.name());
    let fields = root.get_fields().iter().filter(is_read).cloned().collect();
    let projection = Type::group_type_builder(root.name()).with_fields(fields).build().map_err(told)?;
    let mut memory_bytes = 0;
    for row in file.get_row_iter(Some(projection)).map_err(told)? {
        let mut row = json_of_row(&row.map_err(told)?);
        // A text that stands in the file once may be that of a million rows.
        memory_bytes += memory_of(&row);
        if memory_bytes > MOST_ITEM_BYTES {
            return Err(format!("its items take more than {} MiB of memory: divide it", MOST_ITEM_BYTES >> 20));
        }
        for name in &nanoseconds {
            if let Some(value) = row[*name].as_i64() {
                row[*name] = json!(format_datetime(value.div_euclid(1000)));
            }
        }
        // Some writers keep nested values as text.
        for name in ["assets", "links"] {
            if let Some(text) = row[name].as_str() {
                row[name] = parse_json(text.as_bytes()).unwrap_or_default();
            }
        }
        items.push(Item::from_json(&row));
    }
    Ok(items)
}

fn json_of_row(row: &Row) -> Value {
    row.get_column_iter().map(|(name, field)| (name.clone(), json_of(field))).collect::<Map<_, _>>().into()
}

/// About how much memory a value takes.
fn memory_of(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(memory_of).sum(),
            Value::Object(members) => members.iter().map(|(name, value)| name.len() + 64 + memory_of(value)).sum(),
            _ => 0,
        }
}

/// Bytes, which are geometries, are left out.
fn json_of(field: &Field) -> Value {
    match field {
        Field::Bool(value) => json!(value),
        Field::Byte(value) => json!(value),
        Field::Short(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::Long(value) => json!(value),
        Field::UByte(value) => json!(value),
        Field::UShort(value) => json!(value),
        Field::UInt(value) => json!(value),
        Field::ULong(value) => json!(value),
        Field::Float16(value) => json!(value.to_f32()),
        Field::Float(value) => json!(value),
        Field::Double(value) => json!(value),
        Field::Str(value) => json!(value),
        Field::TimestampMillis(value) => json!(format_datetime(value.saturating_mul(1000))),
        Field::TimestampMicros(value) => json!(format_datetime(*value)),
        Field::Group(row) => json_of_row(row),
        Field::ListInternal(list) => list.elements().iter().map(json_of).collect(),
        Field::MapInternal(map) => {
            let text = |key: &Field| match key {
                Field::Str(key) => Some(key.clone()),
                _ => None,
            };
            let entries = map.entries().iter().filter_map(|(key, value)| Some((text(key)?, json_of(value))));
            entries.collect::<Map<_, _>>().into()
        }
        _ => Value::Null,
    }
}
