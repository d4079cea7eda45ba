//! Reference systems without a code as WKT 2 (ISO 19162:2019), for files that name them by it.
//!
//! Only what can be said exactly: projections whose parameters EPSG names (the numbers behind `ID` are EPSG's codes of methods
//! and parameters), on WGS 84, on GRS 80 without a shift, and on spheres. `dev/geo` compares the texts with PROJ.

use crate::DatumShift;

const DEGREE: &str = r#"ANGLEUNIT["degree",0.0174532925199433]"#;
const METRE: &str = r#"LENGTHUNIT["metre",1]"#;
const UNITY: &str = r#"SCALEUNIT["unity",1]"#;

/// What a parameter of a method is given in.
#[derive(Clone, Copy)]
enum Unit {
    Degree,
    Metre,
    One,
}

/// A parameter of EPSG: its name, code and unit.
type Parameter = (&'static str, u16, Unit);

const LAT_NATURAL: Parameter = ("Latitude of natural origin", 8801, Unit::Degree);
const LON_NATURAL: Parameter = ("Longitude of natural origin", 8802, Unit::Degree);
const SCALE: Parameter = ("Scale factor at natural origin", 8805, Unit::One);
const FALSE_EASTING: Parameter = ("False easting", 8806, Unit::Metre);
const FALSE_NORTHING: Parameter = ("False northing", 8807, Unit::Metre);
const LAT_FALSE: Parameter = ("Latitude of false origin", 8821, Unit::Degree);
const LON_FALSE: Parameter = ("Longitude of false origin", 8822, Unit::Degree);
const FIRST_PARALLEL: Parameter = ("Latitude of 1st standard parallel", 8823, Unit::Degree);
const SECOND_PARALLEL: Parameter = ("Latitude of 2nd standard parallel", 8824, Unit::Degree);
const EASTING_FALSE: Parameter = ("Easting at false origin", 8826, Unit::Metre);
const NORTHING_FALSE: Parameter = ("Northing at false origin", 8827, Unit::Metre);
const STANDARD_PARALLEL: Parameter = ("Latitude of standard parallel", 8832, Unit::Degree);
const LON_ORIGIN: Parameter = ("Longitude of origin", 8833, Unit::Degree);

/// Parameters that say nothing about the projection itself.
const OF_ANY: [&str; 9] = ["proj", "datum", "ellps", "R", "a", "b", "units", "to_meter", "towgs84"];

/// A method, and its parameters with their values.
struct Conversion {
    method: &'static str,
    code: Option<u16>,
    parameters: Vec<(Parameter, f64)>,
}

/// A reference system of these parameters of a PROJ string as WKT 2; nothing where it cannot be said exactly.
pub(crate) fn wkt2(
    parameters: &[(&str, Option<&str>)],
    shift: DatumShift,
    metres_per_unit: Option<f64>,
) -> Option<String> {
    let given = Given(parameters);
    let base = datum(&given, shift)?;
    let Some(metres) = metres_per_unit else {
        given.only(&["longlat", "latlong"], &[])?;
        return Some(format!(
            r#"GEOGCRS["unknown",{base},CS[ellipsoidal,2],AXIS["longitude",east,ORDER[1],{DEGREE}],AXIS["latitude",north,ORDER[2],{DEGREE}]]"#
        ));
    };
    let Conversion { method, code, parameters } = conversion(&given)?;
    let id = code.map_or(String::new(), |code| format!(r#",ID["EPSG",{code}]"#));
    let mut text =
        format!(r#"PROJCRS["unknown",BASEGEOGCRS["unknown",{base}],CONVERSION["unknown",METHOD["{method}"{id}]"#);
    for ((name, code, unit), value) in parameters {
        let unit = match unit {
            Unit::Degree => DEGREE,
            Unit::Metre => METRE,
            Unit::One => UNITY,
        };
        text.push_str(&format!(r#",PARAMETER["{name}",{value},{unit},ID["EPSG",{code}]]"#));
    }
    let unit = if metres == 1.0 { METRE.to_owned() } else { format!(r#"LENGTHUNIT["unknown",{metres}]"#) };
    text.push_str(&format!(r#"],CS[Cartesian,2],AXIS["(E)",east,ORDER[1],{unit}],AXIS["(N)",north,ORDER[2],{unit}]]"#));
    Some(text)
}

/// The datum and its prime meridian.
fn datum(given: &Given<'_>, shift: DatumShift) -> Option<String> {
    let is_unshifted =
        given.text("towgs84").is_none_or(|shift| shift.split(',').all(|part| part.trim().parse() == Ok(0.0)));
    if shift == DatumShift::Helmert || !is_unshifted {
        return None;
    }
    let ellipsoid = |name: &str, semi_major_m: f64, inverse_flattening: f64| {
        format!(r#"ELLIPSOID["{name}",{semi_major_m},{inverse_flattening},{METRE}]"#)
    };
    let wgs84 = || ellipsoid("WGS 84", 6_378_137.0, 298.257_223_563);
    let grs80 = || ellipsoid("GRS 1980", 6_378_137.0, 298.257_222_101);
    let radius = given.text("R").map(str::parse).or(match (given.text("a"), given.text("b")) {
        (Some(a), Some(b)) if a == b => Some(a.parse()),
        _ => None,
    });
    let (name, ellipsoid) = match (given.text("datum"), given.text("ellps"), radius) {
        (Some(datum), None, None) if datum.eq_ignore_ascii_case("WGS84") => ("World Geodetic System 1984", wgs84()),
        (Some(datum), None, None) if datum.eq_ignore_ascii_case("NAD83") => ("North American Datum 1983", grs80()),
        (None, Some("WGS84"), None) => ("Unknown based on WGS 84 ellipsoid", wgs84()),
        (None, Some("GRS80"), None) => ("Unknown based on GRS 1980 ellipsoid", grs80()),
        (None, None, Some(radius)) => ("Unknown based on a sphere", ellipsoid("unknown", radius.ok()?, 0.0)),
        _ => return None,
    };
    Some(format!(r#"DATUM["{name}",{ellipsoid}],PRIMEM["Greenwich",0,{DEGREE}]"#))
}

fn conversion(given: &Given<'_>) -> Option<Conversion> {
    let lon = given.number("lon_0", 0.0)?;
    let (lat, scale) = (given.number("lat_0", 0.0)?, given.number("k_0", 1.0)?);
    let easting = (FALSE_EASTING, given.number("x_0", 0.0)?);
    let northing = (FALSE_NORTHING, given.number("y_0", 0.0)?);
    let natural = [(LAT_NATURAL, lat), (LON_NATURAL, lon)];
    let conversion = |method, code: u16, parameters: Vec<(Parameter, f64)>| {
        Some(Conversion { method, code: Some(code), parameters })
    };
    match given.text("proj")? {
        "utm" => {
            given.only(&["utm"], &["zone", "south"])?;
            let zone = given.number("zone", 0.0).filter(|zone| (1.0..=60.0).contains(zone) && zone.fract() == 0.0)?;
            let northing = if given.has("south") { 10_000_000.0 } else { 0.0 };
            conversion(
                "Transverse Mercator",
                9807,
                vec![
                    (LAT_NATURAL, 0.0),
                    (LON_NATURAL, 6.0 * zone - 183.0),
                    (SCALE, 0.9996),
                    (FALSE_EASTING, 500_000.0),
                    (FALSE_NORTHING, northing),
                ],
            )
        }
        "tmerc" => {
            given.only(&["tmerc"], &["lat_0", "lon_0", "k_0", "x_0", "y_0"])?;
            let [lat, lon] = natural;
            conversion("Transverse Mercator", 9807, vec![lat, lon, (SCALE, scale), easting, northing])
        }
        "laea" => {
            given.only(&["laea"], &["lat_0", "lon_0", "x_0", "y_0"])?;
            let [lat, lon] = natural;
            // The one of spheres is another method.
            let is_sphere = given.has("R") || given.has("a");
            let (method, code) = match is_sphere {
                true => ("Lambert Azimuthal Equal Area (Spherical)", 1027),
                false => ("Lambert Azimuthal Equal Area", 9820),
            };
            conversion(method, code, vec![lat, lon, easting, northing])
        }
        projection @ ("aea" | "lcc") => {
            given.only(&["aea", "lcc"], &["lat_0", "lon_0", "lat_1", "lat_2", "x_0", "y_0"])?;
            let (method, code) = match projection {
                "aea" => ("Albers Equal Area", 9822),
                _ => ("Lambert Conic Conformal (2SP)", 9802),
            };
            // Of a single parallel PROJ makes more than its string says.
            let parallels = given.text("lat_1").zip(given.text("lat_2")).zip(given.text("lat_0"));
            let ((first, second), _) = parallels?;
            conversion(
                method,
                code,
                vec![
                    (LAT_FALSE, lat),
                    (LON_FALSE, lon),
                    (FIRST_PARALLEL, first.parse().ok()?),
                    (SECOND_PARALLEL, second.parse().ok()?),
                    (EASTING_FALSE, easting.1),
                    (NORTHING_FALSE, northing.1),
                ],
            )
        }
        "stere" if lat.abs() == 90.0 => match given.text("lat_ts") {
            Some(parallel) => {
                given.only(&["stere"], &["lat_0", "lon_0", "lat_ts", "x_0", "y_0"])?;
                let parallel: f64 = parallel.parse().ok().filter(|parallel: &f64| parallel.signum() == lat.signum())?;
                let parameters = vec![(STANDARD_PARALLEL, parallel), (LON_ORIGIN, lon), easting, northing];
                conversion("Polar Stereographic (variant B)", 9829, parameters)
            }
            None => {
                given.only(&["stere"], &["lat_0", "lon_0", "k_0", "x_0", "y_0"])?;
                let [lat, lon] = natural;
                let parameters = vec![lat, lon, (SCALE, scale), easting, northing];
                conversion("Polar Stereographic (variant A)", 9810, parameters)
            }
        },
        "cea" => {
            given.only(&["cea"], &["lon_0", "lat_ts", "x_0", "y_0"])?;
            let parallel = (FIRST_PARALLEL, given.number("lat_ts", 0.0)?);
            let is_sphere = given.has("R") || given.has("a");
            let (method, code) = match is_sphere {
                true => ("Lambert Cylindrical Equal Area (Spherical)", 9834),
                false => ("Lambert Cylindrical Equal Area", 9835),
            };
            conversion(method, code, vec![parallel, natural[1], easting, northing])
        }
        "sinu" => {
            given.only(&["sinu"], &["lon_0", "x_0", "y_0"])?;
            // EPSG has no code for it; PROJ and GDAL know the name.
            let parameters = vec![natural[1], easting, northing];
            Some(Conversion { method: "Sinusoidal", code: None, parameters })
        }
        _ => None,
    }
}

/// The parameters of a PROJ string.
struct Given<'a>(&'a [(&'a str, Option<&'a str>)]);

impl Given<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value)
    }

    /// Nothing if it is there and is no number, as degrees and minutes are not.
    fn number(&self, name: &str, default: f64) -> Option<f64> {
        self.text(name).map_or(Some(default), |text| text.parse().ok())
    }

    /// Nothing if there is another projection, or a parameter beside those that say where things lie and these.
    fn only(&self, projections: &[&str], known: &[&str]) -> Option<()> {
        let is_known = |(name, _): &(&str, Option<&str>)| OF_ANY.contains(name) || known.contains(name);
        (projections.contains(&self.text("proj")?) && self.0.iter().all(is_known)).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Crs;

    fn wkt2(definition: &str) -> Option<String> {
        Crs::from_proj(definition).unwrap().wkt2()
    }

    #[test]
    fn a_system_without_a_code_is_written_out() {
        let text =
            wkt2("+proj=laea +lat_0=52 +lon_0=10.5 +x_0=4321000 +y_0=3210000 +ellps=GRS80 +units=m +no_defs").unwrap();
        assert!(
            text.starts_with(r#"PROJCRS["unknown",BASEGEOGCRS["unknown",DATUM["Unknown based on GRS 1980 ellipsoid","#)
        );
        assert!(text.contains(r#"METHOD["Lambert Azimuthal Equal Area",ID["EPSG",9820]]"#));
        assert!(text.contains(r#"PARAMETER["Longitude of natural origin",10.5,ANGLEUNIT"#));
        assert_eq!(text.matches('[').count(), text.matches(']').count());
        assert!(wkt2("+proj=longlat +datum=WGS84").unwrap().starts_with("GEOGCRS["));
        assert!(wkt2("+proj=sinu +lon_0=0 +R=6371007.181 +units=m").unwrap().contains(r#"["unknown",6371007.181,0,"#));
        assert!(wkt2("+proj=utm +zone=19 +south +datum=WGS84").unwrap().contains(r#""False northing",10000000,"#));
    }

    #[test]
    fn what_cannot_be_said_exactly_is_not_said() {
        for definition in [
            "+proj=tmerc +lon_0=15 +ellps=bessel +towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7",
            "+proj=lcc +lat_1=45 +lat_0=45 +datum=WGS84",
            "+proj=tmerc +lon_0=15 +approx +datum=WGS84",
            "+proj=stere +lat_0=50 +datum=WGS84",
        ] {
            assert_eq!(wkt2(definition), None, "{definition}");
        }
        assert_eq!(Crs::from_epsg(32633).unwrap().wkt2(), None);
    }
}
