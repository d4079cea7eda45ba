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

/// Whether keys say what it is.
pub(super) fn has_keys(crs: &Crs) -> bool {
    of(crs).is_some()
}

fn of(crs: &Crs) -> Option<Keys> {
    match crs.epsg().filter(|code| *code <= LAST_CODE) {
        Some(code) => Some(of_code(crs.is_geographic(), code as u16)),
        None => of_parameters(&crs.to_string()),
    }
}

/// The tags of a reference system; pixels are areas. What no key can say stands there as text only, which programs show.
pub(super) fn tags(crs: &Crs) -> Vec<Entry> {
    let mut keys = of(crs).unwrap_or_else(|| {
        let mut keys = Keys::default();
        keys.shorts.insert(1024, USER_DEFINED);
        keys
    });
    keys.shorts.insert(1025, 1);
    keys.texts.insert(1026, crs.name().map_or_else(|| crs.to_string(), str::to_owned));
    keys.into_tags()
}

fn of_code(is_geographic: bool, code: u16) -> Keys {
    let mut keys = Keys::default();
    let (model, key) = if is_geographic { (2, 2048) } else { (1, 3072) };
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

/// Parameters of the Earth and of coordinates, and those without effect on them.
const OF_EVERY_PROJECTION: [&str; 19] = [
    "proj",
    "datum",
    "ellps",
    "a",
    "b",
    "rf",
    "R",
    "towgs84",
    "units",
    "to_meter",
    "x_0",
    "y_0",
    "geoidgrids",
    "no_defs",
    "over",
    "title",
    "type",
    "vunits",
    "wktext",
];

/// Whether all parameters are of these names and have values, where numbers are wanted.
fn are_known(parameters: &HashMap<&str, &str>, of_projection: &[&str]) -> bool {
    let is_number = |name: &str| of_projection.contains(&name) && name != "south";
    parameters.iter().all(|(name, value)| {
        (OF_EVERY_PROJECTION.contains(name) || of_projection.contains(name))
            && (!is_number(name) || value.parse::<f64>().is_ok_and(f64::is_finite))
    })
}

/// The keys of a PROJ string; nothing where one of its parameters has no key.
fn of_parameters(text: &str) -> Option<Keys> {
    let parameters: HashMap<&str, &str> = text
        .split_whitespace()
        .map(|word| word.strip_prefix('+').unwrap_or(word))
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .collect();
    let number = |name: &str| parameters.get(name).and_then(|value| value.parse::<f64>().ok());
    if is_web_mercator(&parameters) {
        return Some(of_code(false, 3857));
    }
    let mut keys = Keys::default();
    earth(&parameters, &mut keys)?;
    keys.shorts.insert(2054, 9102);
    let projection = *parameters.get("proj")?;
    if matches!(projection, "longlat" | "latlong") {
        keys.shorts.insert(1024, 2);
        return are_known(&parameters, &[]).then_some(keys);
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
        let zone = number("zone").filter(|zone| (1.0..=60.0).contains(zone) && zone.fract() == 0.0)?;
        keys.shorts.insert(3074, 16000 + south + zone as u16);
        return are_known(&parameters, &["zone", "south"]).then_some(keys);
    }
    keys.shorts.insert(3074, USER_DEFINED);
    let (lat_0, lon_0) = (number("lat_0").unwrap_or(0.0), number("lon_0").unwrap_or(0.0));
    let scale = number("k").or(number("k_0"));
    let is_unscaled = scale.is_none_or(|scale| scale == 1.0);
    let (lat_1, lat_2, lat_ts) = (number("lat_1"), number("lat_2"), number("lat_ts"));
    let scaled = (3092, scale.unwrap_or(1.0));
    // GeoTIFF's method, the keys of the origin's longitude and latitude and of false easting and northing; what else; and
    // the parameters that are heeded so.
    let natural = [3080, 3081, 3082, 3083];
    let centre = [3088, 3089, 3082, 3083];
    let pole = [3095, 3081, 3082, 3083];
    let (method, [longitude, latitude, easting, northing], lat, more, heeded): (u16, _, f64, _, &[&str]) =
        match projection {
            "tmerc" => (1, natural, lat_0, vec![scaled], &["lat_0", "lon_0", "k", "k_0"]),
            "merc" => match lat_ts {
                Some(lat_ts) if is_unscaled => {
                    (7, natural, 0.0, vec![(3078, lat_ts)], &["lon_0", "lat_ts", "k", "k_0"])
                }
                _ => (7, natural, 0.0, vec![scaled], &["lon_0", "k", "k_0"]),
            },
            "lcc" => match (lat_1?, lat_2) {
                (lat_1, None) if lat_1 == lat_0 => {
                    (9, natural, lat_0, vec![scaled], &["lat_0", "lon_0", "lat_1", "k", "k_0"])
                }
                // The method of one parallel has its origin there. That of two has no scale.
                (lat_1, lat_2) if is_unscaled => (
                    8,
                    [3084, 3085, 3086, 3087],
                    lat_0,
                    vec![(3078, lat_1), (3079, lat_2.unwrap_or(lat_1))],
                    &["lat_0", "lon_0", "lat_1", "lat_2", "k", "k_0"],
                ),
                _ => return None,
            },
            "laea" => (10, centre, lat_0, vec![], &["lat_0", "lon_0"]),
            "aea" => (11, natural, lat_0, vec![(3078, lat_1?), (3079, lat_2?)], &["lat_0", "lon_0", "lat_1", "lat_2"]),
            "aeqd" => (12, centre, lat_0, vec![], &["lat_0", "lon_0"]),
            "stere" if lat_0.abs() == 90.0 => match lat_ts {
                Some(lat_ts) if is_unscaled && lat_ts * lat_0 > 0.0 => {
                    (15, pole, lat_ts, vec![(3092, 1.0)], &["lat_0", "lon_0", "lat_ts", "k", "k_0"])
                }
                _ => (15, pole, lat_0, vec![scaled], &["lat_0", "lon_0", "k", "k_0"]),
            },
            "stere" => (14, centre, lat_0, vec![scaled], &["lat_0", "lon_0", "k", "k_0"]),
            "sterea" => (16, natural, lat_0, vec![scaled], &["lat_0", "lon_0", "k", "k_0"]),
            "eqc" => (17, centre, lat_0, vec![(3078, lat_ts.unwrap_or(0.0))], &["lat_0", "lon_0", "lat_ts"]),
            "sinu" => (24, centre, 0.0, vec![], &["lon_0"]),
            "cea" => (28, natural, 0.0, vec![(3078, lat_ts.unwrap_or(0.0))], &["lon_0", "lat_ts"]),
            _ => return None,
        };
    if !are_known(&parameters, heeded) {
        return None;
    }
    keys.shorts.insert(3075, method);
    // PROJ's are metres, GeoTIFF's are in the unit of the coordinates.
    let offset = |name: &str| number(name).unwrap_or(0.0) / metres;
    let origin = [(longitude, lon_0), (latitude, lat), (easting, offset("x_0")), (northing, offset("y_0"))];
    keys.doubles.extend(origin.into_iter().chain(more).map(|(key, value)| (key, vec![value])));
    Some(keys)
}

/// The PROJ string by which EPSG:3857 was known before it had a code: a sphere that `nadgrids` says to be no other datum.
fn is_web_mercator(parameters: &HashMap<&str, &str>) -> bool {
    let is = |name: &str, wanted: f64, default: f64| {
        parameters.get(name).map_or(default == wanted, |value| value.parse() == Ok(wanted))
    };
    parameters.get("proj") == Some(&"merc")
        && parameters.get("nadgrids") == Some(&"@null")
        && ["a", "b"].iter().all(|axis| is(axis, 6_378_137.0, 0.0))
        && ["lat_ts", "lon_0", "x_0", "y_0"].iter().all(|name| is(name, 0.0, 0.0))
        && ["k", "k_0"].iter().all(|name| is(name, 1.0, 1.0))
        && parameters.get("units").is_none_or(|unit| *unit == "m")
        && parameters.keys().all(|name| {
            let others = ["nadgrids", "lat_ts", "lon_0", "k", "k_0"];
            !["rf", "R", "ellps", "datum", "towgs84", "to_meter"].contains(name)
                && (OF_EVERY_PROJECTION.contains(name) || others.contains(name))
        })
}

/// The geographic system below: its code, or the figure of the Earth.
fn earth(parameters: &HashMap<&str, &str>, keys: &mut Keys) -> Option<()> {
    let number = |name: &str| parameters.get(name).and_then(|value| value.parse::<f64>().ok());
    let is_named = ["datum", "ellps"].iter().filter(|name| parameters.contains_key(**name)).count();
    let is_measured = ["a", "b", "rf", "R"].iter().any(|name| parameters.contains_key(name));
    // Said twice, one of them wins, and which one is PROJ's business.
    if is_named + usize::from(is_measured) > 1 || parameters.contains_key("R") && parameters.contains_key("a") {
        return None;
    }
    let shift = match parameters.get("towgs84") {
        None => vec![0.0; 3],
        Some(values) => values.split(',').map(|value| value.trim().parse().ok()).collect::<Option<Vec<f64>>>()?,
    };
    let is_shifted = shift.iter().any(|value| *value != 0.0);
    if ![3, 7].contains(&shift.len()) || is_shifted && parameters.contains_key("datum") {
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
    if is_shifted {
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
        let semi_major = number("a").or(number("R")).filter(|axis| *axis > 0.0)?;
        keys.doubles.insert(2057, vec![semi_major]);
        match (number("rf"), number("b")) {
            (Some(flattening), _) => keys.doubles.insert(2059, vec![flattening]),
            (None, semi_minor) => keys.doubles.insert(2058, vec![semi_minor.unwrap_or(semi_major)]),
        };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str, key: u16) -> Option<u16> {
        of_parameters(text)?.shorts.get(&key).copied()
    }

    fn double(text: &str, key: u16) -> Option<f64> {
        of_parameters(text)?.doubles.get(&key)?.first().copied()
    }

    #[test]
    fn a_cone_with_its_origin_elsewhere_has_two_equal_parallels() {
        let of = |lat_0: u32| format!("+proj=lcc +lat_1=45 +lat_0={lat_0} +lon_0=15 +datum=WGS84 +units=m");
        assert_eq!((short(&of(45), 3075), double(&of(45), 3081)), (Some(9), Some(45.0)));
        let elsewhere = of(40);
        assert_eq!(short(&elsewhere, 3075), Some(8));
        let found = [3078, 3079, 3085].map(|key| double(&elsewhere, key));
        assert_eq!(found, [Some(45.0), Some(45.0), Some(40.0)]);
        assert!(of_parameters(&format!("{elsewhere} +k=0.9")).is_none());
        assert_eq!(double("+proj=merc +lat_ts=30 +k=1 +datum=WGS84", 3078), Some(30.0));
        assert!(of_parameters(&format!("{} +k=0.9", of(45))).is_some());
    }

    #[test]
    fn what_has_no_key_is_not_left_out() {
        for text in [
            "+proj=tmerc +ellps=WGS84 +R_A",
            "+proj=tmerc +ellps=WGS84 +axis=wsu",
            "+proj=tmerc +datum=WGS84 +ellps=bessel",
            "+proj=tmerc +a=6378137 +rf=298 +R=6371000",
            "+proj=tmerc +ellps=bessel +towgs84=1,2",
            "+proj=tmerc +ellps=bessel +pm=paris",
            "+proj=tmerc +ellps=bessel +lat_0=north",
            "+proj=omerc +lat_0=4 +lonc=102 +alpha=323 +datum=WGS84",
            "+proj=utm +zone=61 +datum=WGS84",
            "+proj=stere +lat_0=50 +lat_ts=60 +datum=WGS84",
            "+proj=stere +lat_0=-90 +lat_ts=71 +datum=WGS84",
            "+proj=lcc +datum=WGS84",
            "+proj=longlat +ellps=WGS84 +lon_wrap=180",
        ] {
            assert!(of_parameters(text).is_none(), "{text}");
        }
        let text =
            "+proj=tmerc +lat_0=0 +lon_0=9 +k=0.9996 +x_0=500000 +y_0=0 +ellps=bessel +towgs84=1,2,3 +units=m +no_defs";
        assert_eq!(double(text, 2062), Some(1.0));
        // With or without plus signs, as PROJ takes it.
        assert_eq!(short("proj=utm zone=33 south datum=WGS84", 3074), Some(16133));
    }

    #[test]
    fn web_mercator_is_known_by_its_old_string() {
        let text = "+proj=merc +a=6378137 +b=6378137 +lat_ts=0.0 +lon_0=0.0 +x_0=0.0 +y_0=0 +k=1.0 +units=m +nadgrids=@null \
                    +wktext +no_defs";
        assert_eq!(short(text, 3072), Some(3857));
        assert!(of_parameters(&text.replace("+lon_0=0.0", "+lon_0=10")).is_none());
    }
}
