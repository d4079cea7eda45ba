//! Reference systems as GeoKeys (OGC 19-008r4): an EPSG code, or the parameters of a PROJ string.

use std::collections::{BTreeMap, HashMap};

use dinov3_geo::Crs;

use super::tiff::Entry;

const USER_DEFINED: u16 = 32767;

/// The largest code that a key can hold.
const LAST_CODE: u32 = 32766;

#[derive(Default)]
struct Keys {
    shorts: BTreeMap<u16, u16>,
    doubles: BTreeMap<u16, Vec<f64>>,
    texts: BTreeMap<u16, String>,
}

/// The tags of a reference system; pixels are areas. What no key can say stands there as text only, which programs show.
pub(super) fn tags(crs: &Crs) -> Vec<Entry> {
    let mut keys = match crs.epsg().filter(|code| *code <= LAST_CODE) {
        Some(code) => of_code(crs, code as u16),
        None => of_parameters(&crs.to_string()).unwrap_or_else(|| {
            let mut keys = Keys::default();
            keys.shorts.insert(1024, USER_DEFINED);
            keys
        }),
    };
    keys.shorts.insert(1025, 1);
    keys.texts.insert(1026, crs.name().map_or_else(|| crs.to_string(), str::to_owned));
    keys.into_tags()
}

fn of_code(crs: &Crs, code: u16) -> Keys {
    let mut keys = Keys::default();
    let (model, key) = if crs.is_geographic() { (2, 2048) } else { (1, 3072) };
    keys.shorts.insert(1024, model);
    keys.shorts.insert(key, code);
    keys
}

impl Keys {
    fn into_tags(self) -> Vec<Entry> {
        let (mut doubles, mut texts) = (Vec::new(), String::new());
        let mut rows: BTreeMap<u16, [u16; 4]> =
            self.shorts.into_iter().map(|(key, value)| (key, [key, 0, 1, value])).collect();
        for (key, values) in self.doubles {
            rows.insert(key, [key, 34736, values.len() as u16, doubles.len() as u16]);
            doubles.extend(values);
        }
        for (key, text) in self.texts {
            // A bar ends each text.
            let text: String = text.chars().filter(char::is_ascii).map(|c| if c == '|' { '/' } else { c }).collect();
            rows.insert(key, [key, 34737, text.len() as u16 + 1, texts.len() as u16]);
            texts.push_str(&text);
            texts.push('|');
        }
        let mut directory = vec![1, 1, 0, rows.len() as u16];
        directory.extend(rows.into_values().flatten());
        let mut tags = vec![Entry::short(34735, &directory)];
        if !doubles.is_empty() {
            tags.push(Entry::double(34736, &doubles));
        }
        if !texts.is_empty() {
            tags.push(Entry::text(34737, &texts));
        }
        tags
    }
}

/// The keys of a PROJ string; nothing where one of its parameters has no key.
fn of_parameters(text: &str) -> Option<Keys> {
    let parameters: HashMap<&str, &str> = text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix('+'))
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .collect();
    let number = |name: &str| parameters.get(name).and_then(|value| value.parse::<f64>().ok());
    let mut keys = Keys::default();
    earth(&parameters, &mut keys)?;
    keys.shorts.insert(2054, 9102);
    let projection = *parameters.get("proj")?;
    if matches!(projection, "longlat" | "latlong") {
        keys.shorts.insert(1024, 2);
        return Some(keys);
    }
    keys.shorts.insert(1024, 1);
    keys.shorts.insert(3072, USER_DEFINED);
    let metres = match (number("to_meter"), parameters.get("units").copied()) {
        (Some(metres), _) => metres,
        (None, None | Some("m")) => 1.0,
        (None, Some("us-ft")) => 1200.0 / 3937.0,
        (None, Some("ft")) => 0.3048,
        (None, Some("km")) => 1000.0,
        _ => return None,
    };
    match metres {
        1.0 => _ = keys.shorts.insert(3076, 9001),
        metres => {
            keys.shorts.insert(3076, USER_DEFINED);
            keys.doubles.insert(3077, vec![metres]);
        }
    }
    if projection == "utm" {
        let south = if parameters.contains_key("south") { 100 } else { 0 };
        keys.shorts.insert(3074, 16000 + south + number("zone")? as u16);
        return Some(keys);
    }
    keys.shorts.insert(3074, USER_DEFINED);
    let (lat_0, lon_0) = (number("lat_0").unwrap_or(0.0), number("lon_0").unwrap_or(0.0));
    let scale = number("k").or(number("k_0"));
    // GeoTIFF's method, the keys of the origin's longitude and latitude and of false easting and northing; and what else.
    let natural = [3080, 3081, 3082, 3083];
    let centre = [3088, 3089, 3082, 3083];
    let (method, [longitude, latitude, easting, northing], lat, more) = match projection {
        "tmerc" => (1, natural, lat_0, vec![(3092, scale.unwrap_or(1.0))]),
        "merc" => match number("lat_ts") {
            Some(lat_ts) if scale.is_none() => (7, natural, 0.0, vec![(3078, lat_ts)]),
            _ => (7, natural, 0.0, vec![(3092, scale.unwrap_or(1.0))]),
        },
        "lcc" => match number("lat_2") {
            Some(lat_2) => (8, [3084, 3085, 3086, 3087], lat_0, vec![(3078, number("lat_1")?), (3079, lat_2)]),
            None => (9, natural, number("lat_1").unwrap_or(lat_0), vec![(3092, scale.unwrap_or(1.0))]),
        },
        "laea" => (10, centre, lat_0, vec![]),
        "aea" => (11, natural, lat_0, vec![(3078, number("lat_1")?), (3079, number("lat_2")?)]),
        "aeqd" => (12, centre, lat_0, vec![]),
        "stere" if lat_0.abs() == 90.0 => match number("lat_ts") {
            Some(lat_ts) => (15, [3095, 3081, 3082, 3083], lat_ts, vec![(3092, 1.0)]),
            None => (15, [3095, 3081, 3082, 3083], lat_0, vec![(3092, scale.unwrap_or(1.0))]),
        },
        "stere" => (14, centre, lat_0, vec![(3092, scale.unwrap_or(1.0))]),
        "sterea" => (16, natural, lat_0, vec![(3092, scale.unwrap_or(1.0))]),
        "eqc" => (17, centre, lat_0, vec![(3078, number("lat_ts").unwrap_or(0.0))]),
        "sinu" => (24, centre, 0.0, vec![]),
        "cea" => (28, natural, 0.0, vec![(3078, number("lat_ts").unwrap_or(0.0))]),
        _ => return None,
    };
    keys.shorts.insert(3075, method);
    // PROJ's are metres, GeoTIFF's are in the unit of the coordinates.
    let offset = |name: &str| number(name).unwrap_or(0.0) / metres;
    let origin = [(longitude, lon_0), (latitude, lat), (easting, offset("x_0")), (northing, offset("y_0"))];
    keys.doubles.extend(origin.into_iter().chain(more).map(|(key, value)| (key, vec![value])));
    Some(keys)
}

/// The geographic system below: its code, or the figure of the Earth.
fn earth(parameters: &HashMap<&str, &str>, keys: &mut Keys) -> Option<()> {
    let number = |name: &str| parameters.get(name).and_then(|value| value.parse::<f64>().ok());
    if parameters.contains_key("pm") || parameters.contains_key("nadgrids") {
        return None;
    }
    match parameters.get("datum").copied() {
        Some("WGS84") => {
            keys.shorts.insert(2048, 4326);
            return Some(());
        }
        Some("NAD83") => {
            keys.shorts.insert(2048, 4269);
            return Some(());
        }
        Some(_) => return None,
        None => {}
    }
    keys.shorts.insert(2048, USER_DEFINED);
    keys.shorts.insert(2050, USER_DEFINED);
    let shift: Option<Vec<f64>> =
        parameters.get("towgs84").map(|values| values.split(',').filter_map(|value| value.parse().ok()).collect());
    if let Some(shift) = shift.filter(|shift| shift.iter().any(|value| *value != 0.0)) {
        keys.doubles.insert(2062, shift);
    }
    let ellipsoid = match parameters.get("ellps").copied() {
        Some("WGS84") => 7030,
        Some("GRS80") => 7019,
        Some("airy") => 7001,
        Some("bessel") => 7004,
        Some("clrk66") => 7008,
        Some("intl") => 7022,
        Some("krass") => 7024,
        Some("GRS67") => 7036,
        Some(_) => return None,
        None => USER_DEFINED,
    };
    keys.shorts.insert(2056, ellipsoid);
    if ellipsoid == USER_DEFINED {
        let semi_major = number("a").or(number("R"))?;
        keys.doubles.insert(2057, vec![semi_major]);
        match (number("rf"), number("b")) {
            (Some(flattening), _) => keys.doubles.insert(2059, vec![flattening]),
            (None, semi_minor) => keys.doubles.insert(2058, vec![semi_minor.unwrap_or(semi_major)]),
        };
    }
    Some(())
}
