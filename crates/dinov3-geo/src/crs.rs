//! Coordinate reference systems: an EPSG code or a PROJ string, to longitude and latitude and back.
//!
//! proj4rs does the projections and crs-definitions has the codes. What stands between them and a wrong footprint is
//! here: proj4rs skips parameters and datums that it does not know, takes grids of shifts from whatever lies in the
//! working directory, and answers far outside a projection's domain. `dev/geo` compares every code of the table with
//! PROJ.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use proj4rs::Proj;
use proj4rs::transform::transform;

use crate::GeoError;

/// A coordinate reference system, with the way to WGS 84.
///
/// Coordinates are in the order x, y: easting and northing (or what a GeoTIFF of that system has for columns and rows),
/// longitude and latitude in degrees. Heights play no part. A clone costs a reference count.
#[derive(Clone)]
pub struct Crs(Arc<Definition>);

struct Definition {
    /// `EPSG:32633`, or the PROJ string.
    text: String,
    epsg: Option<u32>,
    name: Option<&'static str>,
    /// Of one unit of x and y; `None` where they are degrees.
    metres_per_unit: Option<f64>,
    shift: DatumShift,
    proj: Proj,
    wgs84: Proj,
    /// Where x comes around: the circumference in units, of a cylindrical projection.
    period_x: Option<f64>,
}

/// What is done between the datum of a reference system and WGS 84.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatumShift {
    /// Nothing: the datum is WGS 84, or a sphere whose longitudes and latitudes are WGS 84's (Web Mercator, MODIS).
    None,
    /// Nothing, as PROJ does without its grids: a datum on the ellipsoid of GRS 80 (NAD83, ETRS89, GDA94, …) that plate
    /// motion and realisation leave within about two metres of WGS 84.
    Ignored,
    /// Three or seven parameters in geocentric space, the same as PROJ's without its grids. Against a national grid of
    /// shifts the error is metres: 2 m for OSGB36 by EPSG's own estimate, up to 10 m for others.
    Helmert,
}

/// Where a projection answers with a point, the point must come back to within this distance. It tells answers from
/// nonsense, which is kilometres off; LAEA beside its pole comes back to 0.2 m, and so does the largest Helmert rotation.
const ROUND_TRIP_M: f64 = 1.0;
/// The same as an angle, in degrees of a great circle.
const ROUND_TRIP_DEGREES: f64 = 1e-5;
/// By how much a latitude may exceed the pole: rounding of `origin + rows * size`, 0.1 m.
const BEYOND_POLE_DEGREES: f64 = 1e-6;

/// The largest geocentric distance between points of the same longitude and latitude on two ellipsoids at which one
/// passes for the other: GRS 80 and WGS 84 differ by 0.1 mm, WGS 72 and WGS 84 by 2 m.
const SAME_ELLIPSOID_M: f64 = 0.01;
const WGS84_SEMI_MAJOR_M: f64 = 6_378_137.0;
const WGS84_SEMI_MINOR_M: f64 = 6_356_752.314_245_179;

/// Datums that mean the same in PROJ and in proj4rs. proj4rs knows more, from proj4js, some with the opposite sign.
const HELMERT_DATUMS: [&str; 7] = ["carthage", "ggrs87", "hermannskogel", "ire65", "nzgd49", "osgb36", "potsdam"];

/// Parameters without effect on x and y as they are used here: what the file is called, how far longitudes may run
/// (they are brought back to ±180), and everything vertical.
const WITHOUT_EFFECT: [&str; 8] = ["geoidgrids", "no_defs", "over", "title", "type", "vto_meter", "vunits", "wktext"];

/// Parameters that proj4rs reads as PROJ does, except datums.
const PARAMETERS: [&str; 49] = [
    "R",
    "R_A",
    "R_V",
    "R_a",
    "R_g",
    "R_h",
    "a",
    "algo",
    "alpha",
    "approx",
    "axis",
    "azi",
    "b",
    "czech",
    "e",
    "ellps",
    "es",
    "f",
    "gamma",
    "guam",
    "h",
    "hyperbolic",
    "k",
    "k_0",
    "lat_0",
    "lat_1",
    "lat_2",
    "lat_ts",
    "lon_0",
    "lon_1",
    "lon_2",
    "lonc",
    "no_off",
    "no_rot",
    "no_uoff",
    "pm",
    "proj",
    "rf",
    "south",
    "sweep",
    "tilt",
    "to_meter",
    "towgs84",
    "units",
    "x_0",
    "y_0",
    "zone",
    "datum",
    "nadgrids",
];

/// Projections on which x comes around after a full circle.
const CYLINDRICAL: [&str; 5] = ["cea", "eqc", "merc", "mill", "webmerc"];

/// Codes whose PROJ string in crs-definitions leads more than 25 m away from PROJ's own answer: axes to the south and
/// west (5513), degrees for grads (4807), ellipsoid for sphere (3975, 6871), a height's scale (6200), Ferro's meridian,
/// wrong shifts. Found by `dev/geo`, which fails if the list is not exact.
const UNLIKE_EPSG: [u16; 39] = [
    2065, 2082, 3303, 3844, 3973, 3974, 3975, 4055, 4161, 4688, 4805, 4807, 4810, 4811, 4816, 4819, 5513, 6200, 6871,
    6989, 6990, 6991, 7400, 24305, 24306, 24375, 24882, 26591, 26592, 27038, 31281, 31282, 31283, 31288, 31289, 31290,
    31291, 31292, 31293,
];

impl Crs {
    /// Longitude and latitude of WGS 84 in degrees, OGC:CRS84. Its code is given as 4326, as GeoTIFF has it; the order
    /// is x, y all the same.
    pub fn crs84() -> Result<Self, GeoError> {
        Self::from_epsg(4326)
    }

    /// The reference system of an EPSG code: projected or geographic, compound ones without their height.
    ///
    /// # Errors
    /// [`GeoError::UnknownEpsg`], [`GeoError::DatumShift`], [`GeoError::UnsupportedCrs`].
    pub fn from_epsg(code: u32) -> Result<Self, GeoError> {
        let known = u16::try_from(code).ok().and_then(crs_definitions::from_code);
        let known = known.ok_or(GeoError::UnknownEpsg { code })?;
        let text = format!("EPSG:{code}");
        if UNLIKE_EPSG.contains(&known.code) {
            let reason = "its built-in PROJ string is not what EPSG defines".into();
            return Err(GeoError::UnsupportedCrs { crs: text, reason });
        }
        Self::new(text, known.proj4, Some(code), name_in_wkt(known.wkt))
    }

    /// The reference system of a PROJ string, such as `+proj=utm +zone=33 +datum=WGS84`.
    ///
    /// # Errors
    /// [`GeoError::DatumShift`]; [`GeoError::UnsupportedCrs`] for unknown projections and for parameters that would have
    /// no effect here.
    pub fn from_proj(definition: &str) -> Result<Self, GeoError> {
        let definition = definition.trim();
        Self::new(definition.to_owned(), definition, None, None)
    }

    fn new(text: String, proj_string: &str, epsg: Option<u32>, name: Option<&'static str>) -> Result<Self, GeoError> {
        let unsupported = |reason: String| GeoError::UnsupportedCrs { crs: text.clone(), reason };
        let parameters = Parameters::parse(proj_string).map_err(unsupported)?;
        let given_shift =
            parameters.given_shift().map_err(|reason| GeoError::DatumShift { crs: text.clone(), reason })?;

        let proj = Proj::from_proj_string(&parameters.for_proj4rs())
            .map_err(|error| unsupported(format!("not a projection that is known here ({error})")))?;
        if proj.is_geocent() {
            return Err(unsupported("it is geocentric, an image has no place in it".into()));
        }
        if !proj.has_inverse() || !proj.has_forward() {
            return Err(unsupported("its projection has no inverse here".into()));
        }
        let shift = match given_shift {
            Some(shift) => shift,
            None => shift_of_ellipsoid(proj.ellipse_parameters())
                .ok_or_else(|| "no datum is named, and its ellipsoid is not WGS 84's".to_owned())
                .map_err(|reason| GeoError::DatumShift { crs: text.clone(), reason })?,
        };
        let metres_per_unit = if proj.is_latlong() { None } else { Some(proj.to_meter()) };
        if metres_per_unit.is_some_and(|metres| !(metres.is_finite() && metres > 0.0)) {
            return Err(unsupported("its unit is no length".into()));
        }
        let wgs84 = Proj::from_proj_string("+proj=longlat +datum=WGS84")
            .map_err(|error| unsupported(format!("WGS 84 itself is not available ({error})")))?;
        let mut definition = Definition { text, epsg, name, metres_per_unit, shift, proj, wgs84, period_x: None };
        if CYLINDRICAL.contains(&definition.proj.projname()) {
            let centre = definition.proj.longitude_of_origin().to_degrees();
            let quarter = |offset: f64| definition.forward(centre + offset, 0.0);
            if let (Some((west, _)), Some((east, _))) = (quarter(-90.0), quarter(90.0)) {
                definition.period_x = Some(2.0 * (east - west).abs());
            }
        }
        Ok(Self(Arc::new(definition)))
    }

    /// The EPSG code, where it was made of one.
    pub fn epsg(&self) -> Option<u32> {
        self.0.epsg
    }

    /// EPSG's name, such as `WGS 84 / UTM zone 33N`, where it was made of a code.
    pub fn name(&self) -> Option<&'static str> {
        self.0.name
    }

    /// Whether x and y are longitude and latitude in degrees.
    pub fn is_geographic(&self) -> bool {
        self.0.metres_per_unit.is_none()
    }

    /// The length of one unit of x and y on the projected plane; `None` where they are degrees. The length on the ground
    /// is another matter: by the scale of the projection, in Web Mercator by the cosine of the latitude.
    pub fn metres_per_unit(&self) -> Option<f64> {
        self.0.metres_per_unit
    }

    /// What lies between the datum and WGS 84, and how well it is known.
    pub fn datum_shift(&self) -> DatumShift {
        self.0.shift
    }

    /// Longitude and latitude of a point, in degrees of WGS 84: longitude within ±180, latitude within ±90.
    ///
    /// # Errors
    /// [`GeoError::NotFinite`]; [`GeoError::OutsideDomain`] where the projection has no answer, or one that does not lead
    /// back to the point.
    pub fn to_lon_lat(&self, x: f64, y: f64) -> Result<(f64, f64), GeoError> {
        if !x.is_finite() || !y.is_finite() {
            return Err(GeoError::NotFinite { x, y });
        }
        self.0.checked_inverse(x, y).ok_or_else(|| self.outside_domain(x, y))
    }

    /// The point of a longitude and latitude, in degrees of WGS 84. Longitudes are taken modulo 360.
    ///
    /// # Errors
    /// As for [`Self::to_lon_lat`].
    pub fn from_lon_lat(&self, lon: f64, lat: f64) -> Result<(f64, f64), GeoError> {
        if !lon.is_finite() || !lat.is_finite() {
            return Err(GeoError::NotFinite { x: lon, y: lat });
        }
        self.0.checked_forward(lon, lat).ok_or_else(|| self.outside_domain(lon, lat))
    }

    /// [`Self::to_lon_lat`] of every point; the first error ends it.
    ///
    /// # Errors
    /// As for one point.
    pub fn to_lon_lats(&self, points: &[(f64, f64)]) -> Result<Vec<(f64, f64)>, GeoError> {
        points.iter().map(|&(x, y)| self.to_lon_lat(x, y)).collect()
    }

    /// [`Self::from_lon_lat`] of every point; the first error ends it.
    ///
    /// # Errors
    /// As for one point.
    pub fn from_lon_lats(&self, points: &[(f64, f64)]) -> Result<Vec<(f64, f64)>, GeoError> {
        points.iter().map(|&(lon, lat)| self.from_lon_lat(lon, lat)).collect()
    }

    /// The point of a longitude and latitude without checks; of all points where x comes around, the nearest to `near_x`.
    pub(crate) fn forward_near(&self, lon: f64, lat: f64, near_x: f64) -> Option<(f64, f64)> {
        let definition = &*self.0;
        let (x, y) = if definition.is_wgs84_in_degrees() { (lon, lat) } else { definition.forward(lon, lat)? };
        let period = if self.is_geographic() { Some(360.0) } else { definition.period_x };
        Some((period.map_or(x, |period| x + ((near_x - x) / period).round() * period), y))
    }

    fn outside_domain(&self, x: f64, y: f64) -> GeoError {
        GeoError::OutsideDomain { crs: self.to_string(), x, y }
    }
}

impl Definition {
    /// Without the way back; `None` where the projection refuses or answers with no number.
    fn inverse(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let mut point = match self.metres_per_unit {
            Some(_) => (x, y, 0.0),
            None => (x.to_radians(), y.to_radians(), 0.0),
        };
        transform(&self.proj, &self.wgs84, &mut point).ok()?;
        let (lon, lat) = (wrap_longitude(point.0.to_degrees()), point.1.to_degrees());
        let lat = if lat.abs() <= 90.0 + BEYOND_POLE_DEGREES { lat.clamp(-90.0, 90.0) } else { return None };
        lon.is_finite().then_some((lon, lat))
    }

    /// Without the way back; `None` where the projection refuses or answers with no number.
    fn forward(&self, lon: f64, lat: f64) -> Option<(f64, f64)> {
        let mut point = (wrap_longitude(lon).to_radians(), lat.to_radians(), 0.0);
        transform(&self.wgs84, &self.proj, &mut point).ok()?;
        let (x, y) = match self.metres_per_unit {
            Some(_) => (point.0, point.1),
            None => (wrap_longitude(point.0.to_degrees()), point.1.to_degrees()),
        };
        (x.is_finite() && y.is_finite()).then_some((x, y))
    }

    /// Whether degrees are degrees of WGS 84, so that nothing is to be computed and no digit to be lost.
    fn is_wgs84_in_degrees(&self) -> bool {
        self.metres_per_unit.is_none() && self.shift != DatumShift::Helmert && self.proj.from_greenwich() == 0.0
    }

    fn checked_inverse(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let Some(metres_per_unit) = self.metres_per_unit else {
            if y.abs() > 90.0 + BEYOND_POLE_DEGREES || x.abs() > 720.0 {
                return None;
            }
            let y = y.clamp(-90.0, 90.0);
            return if self.is_wgs84_in_degrees() { Some((wrap_longitude(x), y)) } else { self.inverse(x, y) };
        };
        let (lon, lat) = self.inverse(x, y)?;
        let (back_x, back_y) = self.forward(lon, lat)?;
        let tolerance = ROUND_TRIP_M / metres_per_unit;
        let comes_around = || self.period_x.is_some_and(|period| ((back_x - x).abs() - period).abs() <= 1e-6 * period);
        ((back_y - y).abs() <= tolerance && ((back_x - x).abs() <= tolerance || comes_around())).then_some((lon, lat))
    }

    fn checked_forward(&self, lon: f64, lat: f64) -> Option<(f64, f64)> {
        if lat.abs() > 90.0 || lon.abs() > 720.0 {
            return None;
        }
        let lon = wrap_longitude(lon);
        if self.is_wgs84_in_degrees() {
            return Some((lon, lat));
        }
        let (x, y) = self.forward(lon, lat)?;
        let (back_lon, back_lat) = self.inverse(x, y)?;
        let apart = wrap_longitude(back_lon - lon).abs() * lat.to_radians().cos();
        ((back_lat - lat).abs() <= ROUND_TRIP_DEGREES && apart <= ROUND_TRIP_DEGREES).then_some((x, y))
    }
}

impl fmt::Display for Crs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.text)
    }
}

impl fmt::Debug for Crs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Crs({})", self.0.text)
    }
}

/// Two are equal when they were made of the same text.
impl PartialEq for Crs {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

/// What a user writes: `EPSG:32633`, `urn:ogc:def:crs:EPSG::32633`, `OGC:CRS84`, a bare code, or a PROJ string.
impl FromStr for Crs {
    type Err = GeoError;

    fn from_str(text: &str) -> Result<Self, GeoError> {
        let text = text.trim();
        if text.contains("proj=") {
            return Self::from_proj(text);
        }
        let unsupported = |reason: &str| GeoError::UnsupportedCrs { crs: text.to_owned(), reason: reason.into() };
        let short = text.rsplit(['/', ':']).next().unwrap_or(text);
        if short.eq_ignore_ascii_case("CRS84") {
            return Self::crs84();
        }
        let upper = text.to_ascii_uppercase();
        if short.len() != text.len() && !upper.contains("EPSG") {
            return Err(unsupported("only codes of EPSG, OGC:CRS84 and PROJ strings are understood"));
        }
        match short.parse() {
            Ok(code) => Self::from_epsg(code),
            Err(_) => Err(unsupported("it is neither a code such as EPSG:32633 nor a PROJ string")),
        }
    }
}

/// The parameters of a PROJ string.
struct Parameters<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Parameters<'a> {
    /// All of them known, each once, every number finite.
    fn parse(proj_string: &'a str) -> Result<Self, String> {
        let mut parameters: Vec<(&str, Option<&str>)> = Vec::new();
        for word in proj_string.split_whitespace() {
            let word = word.strip_prefix('+').unwrap_or(word);
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            if WITHOUT_EFFECT.contains(&key) {
                continue;
            }
            if !PARAMETERS.contains(&key) {
                return Err(format!("its parameter +{key} is not understood"));
            }
            if parameters.iter().any(|&(earlier, _)| earlier == key) {
                return Err(format!("its parameter +{key} is there twice"));
            }
            let finite = |number: &str| number.parse::<f64>().is_ok_and(|number| !number.is_finite());
            if value.is_some_and(|value| value.is_empty() || value.split(',').any(finite)) {
                return Err(format!("its parameter +{key} has no value"));
            }
            parameters.push((key, value));
        }
        let parameters = Self(parameters);
        match parameters.get("proj") {
            Some(_) => Ok(parameters),
            None => Err("it has no +proj".into()),
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| *key == name).and_then(|(_, value)| *value)
    }

    /// The shift that the string states; `None` where it names neither datum nor shift. The error is what is missing.
    fn given_shift(&self) -> Result<Option<DatumShift>, String> {
        match (self.get("nadgrids"), self.get("towgs84"), self.get("datum")) {
            (Some("@null"), _, _) => Ok(Some(DatumShift::None)),
            (Some(grids), _, _) => Err(format!("the grid {grids}")),
            (None, Some(towgs84), _) => {
                let zero = towgs84.split(',').all(|number| number.trim().parse() == Ok(0.0));
                let on_grs80 = matches!(self.get("ellps"), Some("GRS80" | "WGS84"));
                Ok(Some(if zero && on_grs80 { DatumShift::Ignored } else { DatumShift::Helmert }))
            }
            (None, None, Some(datum)) if datum.eq_ignore_ascii_case("WGS84") => Ok(Some(DatumShift::None)),
            (None, None, Some(datum)) if datum.eq_ignore_ascii_case("NAD83") => Ok(Some(DatumShift::Ignored)),
            (None, None, Some(datum)) if HELMERT_DATUMS.contains(&datum.to_ascii_lowercase().as_str()) => {
                Ok(Some(DatumShift::Helmert))
            }
            (None, None, Some(datum)) if datum.eq_ignore_ascii_case("NAD27") => {
                Err("NAD27's grids conus, alaska, ntv2_0".into())
            }
            (None, None, Some(datum)) => Err(format!("the datum {datum} is unknown")),
            (None, None, None) => Ok(None),
        }
    }

    /// The string as proj4rs shall see it. Without `+nadgrids=@null`, which says that longitudes and latitudes are WGS
    /// 84's as they stand: so they stay, to the last digit, if no datum is named.
    fn for_proj4rs(&self) -> String {
        let null_grid = self.get("nadgrids").is_some();
        let kept = self.0.iter().filter(|(key, _)| !(null_grid && matches!(*key, "nadgrids" | "towgs84")));
        let words = kept.map(|(key, value)| match value {
            Some(value) => format!("+{key}={value}"),
            None => format!("+{key}"),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// What to do where only an ellipsoid (semi-axes in metres) is known: nothing on GRS 80's and on spheres, as PROJ does;
/// on others longitudes and latitudes are a datum's of which nothing is known.
fn shift_of_ellipsoid((semi_major_m, semi_minor_m): (f64, f64)) -> Option<DatumShift> {
    let same = |found: f64, expected: f64| (found - expected).abs() <= SAME_ELLIPSOID_M;
    if semi_major_m == semi_minor_m {
        Some(DatumShift::None)
    } else if same(semi_major_m, WGS84_SEMI_MAJOR_M) && same(semi_minor_m, WGS84_SEMI_MINOR_M) {
        Some(DatumShift::Ignored)
    } else {
        None
    }
}

/// `WGS 84 / UTM zone 33N` of `PROJCS["WGS 84 / UTM zone 33N",…`.
fn name_in_wkt(wkt: &'static str) -> Option<&'static str> {
    let (_, rest) = wkt.split_once('"')?;
    let (name, _) = rest.split_once('"')?;
    (!name.is_empty()).then_some(name)
}

/// A longitude within ±180; ±180 themselves stay as they are.
pub(crate) fn wrap_longitude(lon: f64) -> f64 {
    if lon.abs() <= 180.0 { lon } else { (lon + 180.0).rem_euclid(360.0) - 180.0 }
}
