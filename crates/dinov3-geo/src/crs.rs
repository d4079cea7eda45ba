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
    /// Three or seven parameters in geocentric space. For codes they are within 25 m of one of PROJ's transformations
    /// without grids, most within 0.1 m; some two hundred old codes have a shift that PROJ does not know. A national grid
    /// of shifts is better by metres: EPSG gives 2 m as the accuracy of OSGB36's parameters.
    Helmert,
}

/// Where a projection answers with a point, the point must come back to within this distance. It tells answers from
/// nonsense, which is kilometres off; LAEA beside its pole comes back to 0.2 m, and so does the largest Helmert rotation.
const ROUND_TRIP_M: f64 = 1.0;
/// The same as an angle, in degrees of a great circle.
const ROUND_TRIP_DEGREES: f64 = 1e-5;
/// By how much a latitude may exceed the pole: rounding of `origin + rows * size`, 0.1 m.
const BEYOND_POLE_DEGREES: f64 = 1e-6;

/// Longitudes beyond two turns are no longitudes.
const LAST_LONGITUDE: f64 = 720.0;

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
const UNLIKE_EPSG: [u16; 45] = [
    2065, 2082, 3303, 3844, 3973, 3974, 3975, 4055, 4161, 4688, 4805, 4807, 4810, 4811, 4816, 4819, 4969, 5513, 6200,
    6871, 6989, 6990, 6991, 7400, 24305, 24306, 24375, 24882, 26591, 26592, 27038, 31267, 31268, 31277, 31278, 31279,
    31281, 31282, 31283, 31288, 31289, 31290, 31291, 31292, 31293,
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
        if epsg.is_none() && parameters.has_no_origin() {
            return Err(unsupported(
                "of a cone of one parallel, +lat_0 has to be said: without it PROJ has the origin at the parallel, and GDAL and \
                 pyproj have it at the equator"
                    .into(),
            ));
        }
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

    /// A system that was made of a PROJ string as WKT 2; nothing where it has a code, or where WKT 2 as it is written here
    /// cannot say exactly what the string does.
    pub fn wkt2(&self) -> Option<String> {
        let parameters = Parameters::parse(&self.0.text).ok().filter(|_| self.0.epsg.is_none())?;
        crate::wkt::wkt2(&parameters.0, self.0.shift, self.0.metres_per_unit)
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

    /// The point of a longitude and latitude, in degrees of WGS 84. Longitudes up to two turns off are brought back.
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
            if y.abs() > 90.0 + BEYOND_POLE_DEGREES || x.abs() > LAST_LONGITUDE {
                return None;
            }
            let y = y.clamp(-90.0, 90.0);
            if self.is_wgs84_in_degrees() {
                return Some((wrap_longitude(x), y));
            }
            let place = self.inverse(x, y)?;
            let back = self.forward(place.0, place.1)?;
            return is_same_place(back, (x, y)).then_some(place);
        };
        let (lon, lat) = self.inverse(x, y)?;
        let (back_x, back_y) = self.forward(lon, lat)?;
        let tolerance = ROUND_TRIP_M / metres_per_unit;
        let comes_around = || self.period_x.is_some_and(|period| ((back_x - x).abs() - period).abs() <= 1e-6 * period);
        ((back_y - y).abs() <= tolerance && ((back_x - x).abs() <= tolerance || comes_around())).then_some((lon, lat))
    }

    fn checked_forward(&self, lon: f64, lat: f64) -> Option<(f64, f64)> {
        if lat.abs() > 90.0 || lon.abs() > LAST_LONGITUDE {
            return None;
        }
        let lon = wrap_longitude(lon);
        if self.is_wgs84_in_degrees() {
            return Some((lon, lat));
        }
        let (x, y) = self.forward(lon, lat)?;
        let back = self.inverse(x, y)?;
        is_same_place(back, (lon, lat)).then_some((x, y))
    }
}

/// Whether two longitudes and latitudes are one place, to within what a way there and back may lose.
fn is_same_place((lon, lat): (f64, f64), (other_lon, other_lat): (f64, f64)) -> bool {
    let east = wrap_longitude(lon - other_lon).abs() * lat.to_radians().cos();
    (lat - other_lat).abs() <= ROUND_TRIP_DEGREES && east <= ROUND_TRIP_DEGREES
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

    /// Whether it is a Lambert cone of one parallel whose origin is not said.
    fn has_no_origin(&self) -> bool {
        self.get("proj") == Some("lcc") && self.get("lat_0").is_none() && self.get("lat_2").is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn epsg(code: u32) -> Crs {
        Crs::from_epsg(code).unwrap()
    }

    fn reason(result: Result<Crs, GeoError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn every_spelling_of_a_code() {
        for text in ["EPSG:32633", " epsg:32633 ", "32633", "urn:ogc:def:crs:EPSG::32633", "+init=EPSG:32633"] {
            match text.parse::<Crs>() {
                Ok(crs) => assert_eq!((crs.epsg(), crs.to_string()), (Some(32633), "EPSG:32633".into())),
                Err(error) => assert_eq!(text, "+init=EPSG:32633", "{error}"),
            }
        }
        let address = "http://www.opengis.net/def/crs/EPSG/0/3857";
        assert_eq!(address.parse::<Crs>().unwrap(), epsg(3857));
        for text in ["OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326"] {
            assert_eq!(text.parse::<Crs>().unwrap(), Crs::crs84().unwrap());
        }
        for text in ["", "WGS84", "ESRI:102008", "EPSG:", "EPSG:-1", "EPSG:99999999999"] {
            assert!(reason(text.parse()).contains("--crs"), "{text}");
        }
    }

    #[test]
    fn knows_names_and_units() {
        assert_eq!(epsg(32733).name(), Some("WGS 84 / UTM zone 33S"));
        assert_eq!(epsg(32733).metres_per_unit(), Some(1.0));
        assert_eq!(epsg(2263).metres_per_unit(), Some(1200.0 / 3937.0));
        assert!(epsg(4326).is_geographic() && epsg(4326).metres_per_unit().is_none());
        assert!(!epsg(3857).is_geographic());
    }

    #[test]
    fn says_what_is_done_between_the_datums() {
        let shift = |code| epsg(code).datum_shift();
        assert_eq!((shift(4326), shift(32633), shift(3857)), (DatumShift::None, DatumShift::None, DatumShift::None));
        assert_eq!(
            (shift(26910), shift(3035), shift(6339)),
            (DatumShift::Ignored, DatumShift::Ignored, DatumShift::Ignored)
        );
        assert_eq!((shift(27700), shift(28992)), (DatumShift::Helmert, DatumShift::Helmert));
    }

    #[test]
    fn refuses_a_cone_whose_origin_is_not_said() {
        let of = |text: &str| Crs::from_proj(text);
        let told = of("+proj=lcc +lat_1=45 +lon_0=15 +datum=WGS84").unwrap_err().to_string();
        assert!(told.contains("+lat_0 has to be said"), "{told}");
        assert!(of("+proj=lcc +lat_1=45 +lat_0=45 +lon_0=15 +datum=WGS84").is_ok());
        assert!(of("+proj=lcc +lat_1=45 +lat_2=50 +lon_0=15 +datum=WGS84").is_ok());
    }

    #[test]
    fn refuses_what_it_would_get_wrong() {
        assert!(matches!(Crs::from_epsg(32767), Err(GeoError::UnknownEpsg { code: 32767 })));
        assert!(matches!(Crs::from_epsg(102_008), Err(GeoError::UnknownEpsg { .. })));
        for code in [4267, 26710, 27200, 2327] {
            assert!(matches!(Crs::from_epsg(code), Err(GeoError::DatumShift { .. })), "{code}");
        }
        for code in [4978, 5513, 4807, 3975] {
            assert!(matches!(Crs::from_epsg(code), Err(GeoError::UnsupportedCrs { .. })), "{code}");
        }
        let shift =
            ["+proj=utm +zone=10 +datum=NAD27", "+proj=longlat +ellps=bessel", "+proj=longlat +nadgrids=@conus"];
        for definition in shift.into_iter().chain(["+proj=longlat +datum=rnb72", "+proj=longlat +nadgrids=@a,@null"]) {
            assert!(matches!(Crs::from_proj(definition), Err(GeoError::DatumShift { .. })), "{definition}");
        }
        let unsupported = [
            "",
            "+zone=33",
            "+proj=nonsense",
            "+proj=utm +zone=61",
            "+proj=utm +zone=33 +lon_wrap=180",
            "+proj=pipeline +step +proj=utm +zone=33",
            "+proj=utm +zone=33 +zone=34",
            "+proj=tmerc +lon_0=nan",
            "+proj=tmerc +k=1e999",
            "+proj=merc +to_meter=0",
            "+proj=geocent +datum=WGS84",
        ];
        for definition in unsupported {
            assert!(matches!(Crs::from_proj(definition), Err(GeoError::UnsupportedCrs { .. })), "{definition}");
        }
    }

    #[test]
    fn proj_strings_mean_what_codes_mean() {
        let utm = Crs::from_proj("+proj=utm +zone=33 +south +datum=WGS84 +units=m +no_defs +type=crs").unwrap();
        assert_eq!(utm.epsg(), None);
        assert_eq!(utm.to_lon_lat(4e5, 6e6).unwrap(), epsg(32733).to_lon_lat(4e5, 6e6).unwrap());
        // Without plus signs, as PROJ takes them too.
        assert_eq!("proj=utm zone=33 datum=WGS84".parse::<Crs>().unwrap().datum_shift(), DatumShift::None);
    }

    #[test]
    fn longitudes_come_within_180_and_degrees_keep_their_digits() {
        let degrees = epsg(4326);
        assert_eq!(degrees.to_lon_lat(359.75, 12.5), Ok((-0.25, 12.5)));
        assert_eq!(degrees.to_lon_lat(180.0, 90.0), Ok((180.0, 90.0)));
        assert_eq!(degrees.to_lon_lat(-180.0, -90.0 - 1e-9), Ok((-180.0, -90.0)));
        assert_eq!(degrees.to_lon_lat(0.1, 0.2), Ok((0.1, 0.2)));
    }

    #[test]
    fn answers_no_nonsense_outside_a_projections_domain() {
        let outside = |code: u32, x: f64, y: f64| {
            let error = epsg(code).to_lon_lat(x, y).unwrap_err();
            assert!(matches!(error, GeoError::OutsideDomain { .. }), "{code}: {error}");
        };
        outside(4326, 0.0, 90.1);
        outside(32633, 5e7, 0.0);
        outside(32633, 5e5, 3e7);
        outside(2154, 7e5, 3e7);
        outside(3035, 4e6, 4e7);
        outside(3857, 1e9, 0.0);
        for (lon, lat) in [(f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert!(matches!(epsg(3857).to_lon_lat(lon, lat), Err(GeoError::NotFinite { .. })));
            assert!(matches!(epsg(3857).from_lon_lat(lon, lat), Err(GeoError::NotFinite { .. })));
        }
        assert!(matches!(epsg(3857).from_lon_lat(0.0, 90.0), Err(GeoError::OutsideDomain { .. })));
        assert!(matches!(epsg(32633).from_lon_lat(0.0, 90.5), Err(GeoError::OutsideDomain { .. })));
    }

    #[test]
    fn web_mercator_goes_on_beyond_the_antimeridian() {
        let (lon, lat) = epsg(3857).to_lon_lat(20_037_508.342789244 + 111_319.490_793, 0.0).unwrap();
        assert!((lon + 179.0).abs() < 1e-9 && lat.abs() < 1e-9, "{lon} {lat}");
    }

    #[test]
    fn is_shared_between_threads() {
        fn shared<T: Send + Sync + Clone>() {}
        shared::<Crs>();
    }
}
