//! Where a GeoTIFF lies on the Earth: its transform and its reference system, by GDAL's rules.

use dinov3_geo::{AffineTransform, Crs};
use geotiff_core::geokeys::{self, GeoKeyDirectory};
use tiff_reader::Ifd;

use crate::profile::{CrsDefinition, Georeference};

const TAG_MODEL_PIXEL_SCALE: u16 = 33550;
const TAG_MODEL_TIEPOINT: u16 = 33922;
const TAG_MODEL_TRANSFORMATION: u16 = 34264;
const TAG_GEO_KEY_DIRECTORY: u16 = 34735;
const TAG_GEO_DOUBLE_PARAMS: u16 = 34736;
const TAG_GEO_ASCII_PARAMS: u16 = 34737;
const TAG_RPC_COEFFICIENTS: u16 = 50844;
const KEY_PRIME_MERIDIAN: u16 = 2051;
const KEY_ANGULAR_UNIT_SIZE: u16 = 2055;
const KEY_PRIME_MERIDIAN_LONGITUDE: u16 = 2061;
const KEY_TO_WGS84: u16 = 2062;
/// Lengths that differ by a smaller share are one, as writers round them: the foot of the survey is longer by 2e-6.
const SAME_UNIT: f64 = 5e-7;
/// EPSG's code of Greenwich.
const GREENWICH: u16 = 8901;

/// A GeoKey's value for "described by parameters".
const USER_DEFINED: u16 = 32767;
const MODEL_PROJECTED: u16 = 1;
const MODEL_GEOGRAPHIC: u16 = 2;
const RASTER_PIXEL_IS_POINT: u16 = 2;

/// The georeference, and whether the file calls its points pixel centres.
pub(super) fn of(ifd: &Ifd) -> (Georeference, bool) {
    let keys = geo_keys(ifd);
    let is_pixel_point =
        keys.as_ref().and_then(|keys| keys.get_short(geokeys::GT_RASTER_TYPE)) == Some(RASTER_PIXEL_IS_POINT);
    let georeference = match transform(ifd, is_pixel_point) {
        Some(transform) => match keys.as_ref().map_or(Ok(None), crs) {
            Ok(Some(crs)) => Georeference::Located { transform, crs },
            Ok(None) => Georeference::WithoutCrs { transform },
            Err(reason) => Georeference::UnknownCrs { transform, reason },
        },
        None => match numbers(ifd, TAG_MODEL_TIEPOINT).map_or(0, |points| points.len() / 6) {
            0 if ifd.tag(TAG_RPC_COEFFICIENTS).is_some() => Georeference::RationalPolynomials,
            0 => Georeference::None,
            count => Georeference::ControlPoints { count },
        },
    };
    (georeference, is_pixel_point)
}

/// The numbers of a tag.
fn numbers(ifd: &Ifd, tag: u16) -> Option<Vec<f64>> {
    ifd.tag(tag)?.value.as_f64_vec()
}

/// The transform of pixel corners.
fn transform(ifd: &Ifd, is_pixel_point: bool) -> Option<AffineTransform> {
    let scale =
        numbers(ifd, TAG_MODEL_PIXEL_SCALE).filter(|scale| scale.len() >= 2 && scale[0] != 0.0 && scale[1] != 0.0);
    let points = numbers(ifd, TAG_MODEL_TIEPOINT).filter(|points| points.len() >= 6);
    let transform = match (scale, points) {
        (Some(scale), Some(point)) => {
            // A negative height means north up as well: GDAL's reading of files that exist.
            let (width, height) = (scale[0], -scale[1].abs());
            AffineTransform::unrotated(point[3] - point[0] * width, point[4] - point[1] * height, width, height)
        }
        (_, _) => {
            let matrix = numbers(ifd, TAG_MODEL_TRANSFORMATION).filter(|matrix| matrix.len() >= 16)?;
            AffineTransform::new(matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7])
        }
    };
    let transform = if is_pixel_point { transform.with_origin_at(-0.5, -0.5) } else { transform };
    (transform.is_finite() && transform.determinant() != 0.0).then_some(transform)
}

fn geo_keys(ifd: &Ifd) -> Option<GeoKeyDirectory> {
    let directory = ifd.tag(TAG_GEO_KEY_DIRECTORY)?.value.as_u16_slice()?;
    let doubles = numbers(ifd, TAG_GEO_DOUBLE_PARAMS).unwrap_or_default();
    let text = ifd.tag(TAG_GEO_ASCII_PARAMS).and_then(|tag| tag.value.as_str()).unwrap_or_default();
    GeoKeyDirectory::parse(directory, &doubles, text)
}

/// The reference system; `None` where the file names none.
fn crs(keys: &GeoKeyDirectory) -> Result<Option<CrsDefinition>, String> {
    let code = |key: u16| keys.get_short(key).filter(|code| *code != 0);
    let projected = code(geokeys::PROJECTED_CRS_TYPE);
    let geographic = code(geokeys::GEODETIC_CRS_TYPE);
    let model = code(geokeys::GT_MODEL_TYPE);
    match (model, projected) {
        (Some(MODEL_GEOGRAPHIC), _) => match geographic {
            Some(USER_DEFINED) | None => match (angular_unit_degrees(keys)? - 1.0).abs() < SAME_UNIT {
                true => Ok(Some(CrsDefinition::Proj(format!("+proj=longlat {} +no_defs", earth(keys)?)))),
                false => Err("its longitudes and latitudes are not in degrees".to_string()),
            },
            Some(code) => Ok(Some(CrsDefinition::Epsg(code.into()))),
        },
        (Some(MODEL_PROJECTED) | None, Some(code)) if code != USER_DEFINED => {
            check_unit(keys, code)?;
            Ok(Some(CrsDefinition::Epsg(code.into())))
        }
        (Some(MODEL_PROJECTED), _) => projection(keys).map(Some),
        (None | Some(USER_DEFINED), None) => match geographic {
            Some(code) if code != USER_DEFINED => Ok(Some(CrsDefinition::Epsg(code.into()))),
            _ => Ok(None),
        },
        (Some(3), _) => Err("it is geocentric".to_string()),
        (Some(model), _) => Err(format!("its model type is {model}")),
        (None, Some(_)) => projection(keys).map(Some),
    }
}

/// Refuses coordinates in another unit than that of the code beside them: feet with a code of metres, in State Planes. GDAL
/// takes the unit, others the code.
fn check_unit(keys: &GeoKeyDirectory, code: u16) -> Result<(), String> {
    let Some(unit) = keys.get_short(geokeys::PROJ_LINEAR_UNITS).filter(|unit| *unit != 0) else { return Ok(()) };
    let own = Crs::from_epsg(code.into()).ok().and_then(|crs| crs.metres_per_unit());
    // A unit that is not known here is most likely that of the code.
    match (linear_unit_metres(keys), own) {
        (Ok(stated), Some(own)) if (stated / own - 1.0).abs() > SAME_UNIT => {
            let whose = if unit == USER_DEFINED { "its own".to_owned() } else { format!("EPSG's {unit}") };
            Err(format!("its unit of length is {whose}, {stated} m, and that of EPSG:{code} has {own} m"))
        }
        _ => Ok(()),
    }
}

/// A user-defined projected system as a proj string, or as the EPSG code that its projection and datum stand for.
fn projection(keys: &GeoKeyDirectory) -> Result<CrsDefinition, String> {
    let short = |key: u16| keys.get_short(key).filter(|code| *code != 0);
    if let Some(code) = short(geokeys::PROJECTION).filter(|code| *code != USER_DEFINED) {
        return utm(keys, code);
    }
    let method = short(geokeys::PROJ_COORD_TRANS).ok_or("it names no projection")?;
    let degrees = angular_unit_degrees(keys)?;
    let metres = linear_unit_metres(keys)?;
    let number = |key: u16| keys.get_double(key).and_then(|values| values.first().copied());
    // Writers differ in which of several keys they use for the same parameter.
    let first = |candidates: &[u16]| candidates.iter().find_map(|&key| number(key));
    let parallel1 = number(3078).map(|value| value * degrees);
    let parallel2 = number(3079).map(|value| value * degrees);
    let longitude = first(&[3080, 3084, 3088, 3095]).unwrap_or(0.0) * degrees;
    let latitude = first(&[3081, 3085, 3089]).unwrap_or(0.0) * degrees;
    let easting = first(&[3082, 3086, 3090]).unwrap_or(0.0) * metres;
    let northing = first(&[3083, 3087, 3091]).unwrap_or(0.0) * metres;
    let scale = first(&[3092, 3093]);
    let k = scale.unwrap_or(1.0);
    let missing = |what: &str| format!("its {what} is missing");
    let parameters = match method {
        1 => format!("+proj=tmerc +lat_0={latitude} +lon_0={longitude} +k={k}"),
        7 => match parallel1 {
            Some(parallel) if scale.is_none() => format!("+proj=merc +lon_0={longitude} +lat_ts={parallel}"),
            _ => format!("+proj=merc +lon_0={longitude} +k={k}"),
        },
        8 => {
            let parallel1 = parallel1.ok_or_else(|| missing("first standard parallel"))?;
            let parallel2 = parallel2.ok_or_else(|| missing("second standard parallel"))?;
            format!("+proj=lcc +lat_0={latitude} +lon_0={longitude} +lat_1={parallel1} +lat_2={parallel2}")
        }
        9 => format!("+proj=lcc +lat_1={latitude} +lat_0={latitude} +lon_0={longitude} +k_0={k}"),
        10 => format!("+proj=laea +lat_0={latitude} +lon_0={longitude}"),
        11 => {
            let parallel1 = parallel1.ok_or_else(|| missing("first standard parallel"))?;
            let parallel2 = parallel2.ok_or_else(|| missing("second standard parallel"))?;
            format!("+proj=aea +lat_0={latitude} +lon_0={longitude} +lat_1={parallel1} +lat_2={parallel2}")
        }
        12 => format!("+proj=aeqd +lat_0={latitude} +lon_0={longitude}"),
        14 => format!("+proj=stere +lat_0={latitude} +lon_0={longitude} +k={k}"),
        // Here the origin's latitude is that of true scale; a scale factor makes it the pole's own.
        15 => {
            let pole = if latitude < 0.0 { -90 } else { 90 };
            match scale {
                Some(k) if k != 1.0 => format!("+proj=stere +lat_0={pole} +lon_0={longitude} +k={k}"),
                _ => format!("+proj=stere +lat_0={pole} +lat_ts={latitude} +lon_0={longitude}"),
            }
        }
        16 => format!("+proj=sterea +lat_0={latitude} +lon_0={longitude} +k={k}"),
        17 => format!("+proj=eqc +lat_ts={} +lat_0={latitude} +lon_0={longitude}", parallel1.unwrap_or(0.0)),
        24 => format!("+proj=sinu +lon_0={longitude}"),
        28 => format!("+proj=cea +lat_ts={} +lon_0={longitude}", parallel1.unwrap_or(0.0)),
        other => return Err(format!("its projection, GeoTIFF's method {other}, has no proj string here")),
    };
    let unit = if metres == 1.0 { "+units=m".to_string() } else { format!("+to_meter={metres}") };
    let earth = earth(keys)?;
    Ok(CrsDefinition::Proj(format!("{parameters} +x_0={easting} +y_0={northing} {earth} {unit} +no_defs")))
}

/// EPSG's projections 16001 to 16060 and 16101 to 16160 are the zones of UTM.
fn utm(keys: &GeoKeyDirectory, projection: u16) -> Result<CrsDefinition, String> {
    let (zone, is_south) = match projection {
        16001..=16060 => (projection - 16000, false),
        16101..=16160 => (projection - 16100, true),
        other => return Err(format!("its projection is EPSG's {other}, which is no zone of UTM")),
    };
    if linear_unit_metres(keys)? != 1.0 {
        return Err("it is UTM in another unit than metres".to_string());
    }
    Ok(match (keys.get_short(geokeys::GEODETIC_CRS_TYPE), is_south) {
        (Some(4326), false) => CrsDefinition::Epsg(32600 + u32::from(zone)),
        (Some(4326), true) => CrsDefinition::Epsg(32700 + u32::from(zone)),
        (Some(4269), false) if (1..=23).contains(&zone) => CrsDefinition::Epsg(26900 + u32::from(zone)),
        _ => {
            let south = if is_south { " +south" } else { "" };
            CrsDefinition::Proj(format!("+proj=utm +zone={zone}{south} {} +units=m +no_defs", earth(keys)?))
        }
    })
}

/// The figure of the Earth, and its datum as far as a proj string can name it.
fn earth(keys: &GeoKeyDirectory) -> Result<String, String> {
    // Known datums count from Greenwich; what is described by parameters may count from elsewhere. GDAL writes the longitude
    // alone.
    let longitude = keys.get_double(KEY_PRIME_MERIDIAN_LONGITUDE).and_then(|values| values.first().copied());
    let code = keys.get_short(KEY_PRIME_MERIDIAN).filter(|code| ![0, GREENWICH].contains(code));
    match (longitude, code) {
        (Some(0.0), _) | (None, None) => {}
        (Some(longitude), _) => return Err(format!("its longitudes count from {longitude}, not from Greenwich")),
        (None, Some(code)) => {
            return Err(format!("its longitudes count from EPSG's meridian {code}, not from Greenwich"));
        }
    }
    /// Geographic systems whose datum is WGS 84 to a metre or two: axes of GRS 80, no shift.
    const LIKE_WGS84: [u16; 17] =
        [4258, 4283, 7844, 4167, 4674, 4617, 4612, 6668, 4490, 4171, 4619, 6318, 4759, 4152, 4148, 4176, 4189];
    match keys.get_short(geokeys::GEODETIC_CRS_TYPE) {
        Some(4326) => return Ok("+datum=WGS84".to_string()),
        Some(4269) => return Ok("+datum=NAD83".to_string()),
        Some(code) if LIKE_WGS84.contains(&code) => return Ok("+ellps=GRS80 +towgs84=0,0,0".to_string()),
        Some(code) if code != 0 && code != USER_DEFINED => {
            return Err(format!("its datum is that of EPSG:{code}, whose shift is not known here"));
        }
        _ => {}
    }
    match keys.get_short(geokeys::GEODETIC_DATUM) {
        Some(6326) => return Ok("+datum=WGS84".to_string()),
        Some(6269) => return Ok("+datum=NAD83".to_string()),
        _ => {}
    }
    let shift = shift_to_wgs84(keys)?;
    match keys.get_short(2056) {
        Some(7030) => return Ok(format!("+ellps=WGS84{shift}")),
        Some(7019) => return Ok(format!("+ellps=GRS80{shift}")),
        _ => {}
    }
    let number =
        |key: u16| keys.get_double(key).and_then(|values| values.first().copied()).filter(|value| *value > 0.0);
    match (number(2057), number(2059), number(2058)) {
        (Some(a), Some(rf), _) => Ok(format!("+a={a} +rf={rf}{shift}")),
        (Some(a), None, Some(b)) => Ok(format!("+a={a} +b={b}{shift}")),
        (Some(a), None, None) => Ok(format!("+a={a} +b={a}{shift}")),
        _ => Err("its ellipsoid is missing".to_string()),
    }
}

/// The parameters that lead from the file's own datum to WGS 84, where it has some: three, or seven in PROJ's order and units
/// (GeoTIFF's `GeogTOWGS84GeoKey`).
fn shift_to_wgs84(keys: &GeoKeyDirectory) -> Result<String, String> {
    let Some(values) = keys.get_double(KEY_TO_WGS84) else { return Ok(String::new()) };
    if ![3, 7].contains(&values.len()) || values.iter().any(|value| !value.is_finite()) {
        return Err(format!("its shift to WGS 84 is {values:?}, and three or seven numbers are known"));
    }
    let values: Vec<String> = values.iter().map(f64::to_string).collect();
    Ok(format!(" +towgs84={}", values.join(",")))
}

fn linear_unit_metres(keys: &GeoKeyDirectory) -> Result<f64, String> {
    match keys.get_short(geokeys::PROJ_LINEAR_UNITS).unwrap_or(9001) {
        0 | 9001 => Ok(1.0),
        9002 => Ok(0.3048),
        9003 => Ok(1200.0 / 3937.0),
        9036 => Ok(1000.0),
        USER_DEFINED => {
            let size = keys.get_double(3077).and_then(|values| values.first().copied());
            size.filter(|size| *size > 0.0 && size.is_finite()).ok_or("its unit of length is missing".to_string())
        }
        other => Err(format!("its unit of length is EPSG's {other}, which is not known here")),
    }
}

fn angular_unit_degrees(keys: &GeoKeyDirectory) -> Result<f64, String> {
    match keys.get_short(geokeys::GEOG_ANGULAR_UNITS).unwrap_or(9102) {
        0 | 9102 | 9122 => Ok(1.0),
        9101 => Ok(1f64.to_degrees()),
        9105 | 9106 => Ok(0.9),
        USER_DEFINED => {
            let radians = keys.get_double(KEY_ANGULAR_UNIT_SIZE).and_then(|values| values.first().copied());
            let degrees = radians.filter(|size| *size > 0.0 && size.is_finite()).map(f64::to_degrees);
            degrees.ok_or("its unit of angles is missing".to_string())
        }
        other => Err(format!("its unit of angles is EPSG's {other}, which is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use geotiff_core::geokeys::GeoKeyValue;

    use super::*;

    fn keys(shorts: &[(u16, u16)], doubles: &[(u16, f64)]) -> GeoKeyDirectory {
        let mut keys = GeoKeyDirectory::new();
        shorts.iter().for_each(|&(id, value)| keys.set(id, GeoKeyValue::Short(value)));
        doubles.iter().for_each(|&(id, value)| keys.set(id, GeoKeyValue::Double(vec![value])));
        keys
    }

    #[test]
    fn units_may_be_given_by_their_size() {
        // Degrees, as radians; of a geographic system by parameters.
        let degrees = keys(&[(1024, 2), (2048, 32767), (2054, 32767), (2050, 6326)], &[(2055, 0.0174532925199433)]);
        assert!(matches!(crs(&degrees), Ok(Some(CrsDefinition::Proj(_)))), "{:?}", crs(&degrees));
        let grads = keys(&[(1024, 2), (2048, 32767), (2054, 32767), (2050, 6326)], &[(2055, 0.0157079632679)]);
        assert!(crs(&grads).is_err());
        // The foot of the survey as writers round it, and the other foot.
        let feet = |size| crs(&keys(&[(1024, 1), (3072, 2263), (3076, 32767)], &[(3077, size)]));
        for size in [0.3048006, 0.30480061, 0.3048006096012192] {
            assert_eq!(feet(size), Ok(Some(CrsDefinition::Epsg(2263))));
        }
        assert!(feet(0.3048).unwrap_err().contains("its own, 0.3048 m"));
    }

    #[test]
    fn a_datum_of_its_own_has_the_shift_that_the_file_says() {
        let of = |shift: Option<Vec<f64>>| {
            let mut keys = keys(&[(1024, 2), (2048, 32767), (2054, 9102), (2050, 32767), (2056, 7019)], &[]);
            if let Some(shift) = shift {
                keys.set(KEY_TO_WGS84, GeoKeyValue::Double(shift));
            }
            crs(&keys)
        };
        let text = |definition| match definition {
            Ok(Some(CrsDefinition::Proj(text))) => text,
            other => panic!("{other:?}"),
        };
        assert!(!text(of(None)).contains("towgs84"));
        assert!(text(of(Some(vec![500.0, 600.0, 700.5]))).contains("+ellps=GRS80 +towgs84=500,600,700.5 "));
        assert!(text(of(Some(vec![1.0, 2.0, 3.0, 0.1, 0.2, 0.3, -4.0]))).contains("+towgs84=1,2,3,0.1,0.2,0.3,-4 "));
        assert!(of(Some(vec![1.0, 2.0])).unwrap_err().contains("is [1.0, 2.0], and three"));
    }

    #[test]
    fn codes_are_taken_as_they_are() {
        let code = |shorts: &[(u16, u16)]| crs(&keys(shorts, &[])).unwrap();
        assert_eq!(code(&[(1024, 1), (3072, 32633)]), Some(CrsDefinition::Epsg(32633)));
        assert_eq!(code(&[(1024, 2), (2048, 4326)]), Some(CrsDefinition::Epsg(4326)));
        assert_eq!(code(&[(1024, 1), (3072, 5070), (2048, 4269), (4096, 5703)]), Some(CrsDefinition::Epsg(5070)));
        // In feet of the survey, as it is; and a unit that nobody here knows.
        assert_eq!(code(&[(1024, 1), (3072, 2263), (3076, 9003)]), Some(CrsDefinition::Epsg(2263)));
        assert_eq!(code(&[(1024, 1), (3072, 32633), (3076, 9999)]), Some(CrsDefinition::Epsg(32633)));
        assert_eq!(code(&[(1025, 1)]), None);
        assert_eq!(code(&[(1024, 32767)]), None);
    }

    #[test]
    fn zones_of_utm_are_recognised() {
        let crs = |projection: u16, datum: u16| {
            crs(&keys(&[(1024, 1), (3072, 32767), (3074, projection), (2048, datum)], &[])).unwrap().unwrap()
        };
        assert_eq!(crs(16033, 4326), CrsDefinition::Epsg(32633));
        assert_eq!(crs(16119, 4326), CrsDefinition::Epsg(32719));
        assert_eq!(crs(16017, 4269), CrsDefinition::Epsg(26917));
        let text = "+proj=utm +zone=19 +south +ellps=GRS80 +towgs84=0,0,0 +units=m +no_defs";
        assert_eq!(crs(16119, 4674), CrsDefinition::Proj(text.to_string()));
    }

    #[test]
    fn albers_of_parameters_becomes_a_proj_string() {
        let keys = keys(
            &[(1024, 1), (3072, 32767), (3074, 32767), (3075, 11), (2048, 4269), (3076, 9001)],
            &[(3078, 29.5), (3079, 45.5), (3080, -96.0), (3081, 23.0), (3082, 0.0), (3083, 0.0)],
        );
        let text =
            "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +x_0=0 +y_0=0 +datum=NAD83 +units=m +no_defs";
        assert_eq!(crs(&keys), Ok(Some(CrsDefinition::Proj(text.to_string()))));
    }

    #[test]
    fn longitudes_count_from_greenwich() {
        let geographic = [(1024, 2), (2048, 32767), (2056, 7019)];
        let projected = [(1024, 1), (3072, 32767), (3075, 1), (2048, 32767), (2056, 7019)];
        for shorts in [&geographic[..], &projected] {
            // As GDAL writes Paris.
            let reason = crs(&keys(shorts, &[(2061, 2.337_229_17)])).unwrap_err();
            assert!(reason.contains("count from 2.33722917"), "{reason}");
            assert!(crs(&keys(shorts, &[(2061, 0.0)])).is_ok());
            assert!(crs(&keys(&[shorts, &[(2051, 8901)]].concat(), &[])).is_ok());
        }
    }

    #[test]
    fn what_cannot_be_said_in_proj_is_told() {
        for (shorts, expected) in [
            (vec![(1024, 1), (3072, 32767), (3075, 11), (2048, 4326)], "standard parallel"),
            (vec![(1024, 1), (3072, 32767), (3075, 26), (2048, 4326)], "method 26"),
            (vec![(1024, 1), (3072, 32767), (3075, 1), (2048, 4267)], "EPSG:4267"),
            (vec![(1024, 1), (3072, 32767)], "no projection"),
            (vec![(1024, 3), (2048, 4978)], "geocentric"),
            (vec![(1024, 1), (3072, 26985), (3076, 9003)], "EPSG's 9003, 0.3048006096"),
            (vec![(1024, 1), (3072, 2263), (3076, 9002)], "that of EPSG:2263 has 0.3048006096"),
            (vec![(1024, 2), (2048, 32767), (2056, 7019), (2051, 8903)], "meridian 8903"),
            (vec![(1024, 1), (3072, 32767), (3075, 1), (2048, 32767), (2056, 7019), (2051, 8903)], "meridian 8903"),
            (vec![(1024, 2), (2048, 32767), (2056, 7019), (2054, 9105)], "not in degrees"),
            (vec![(1024, 1), (3072, 32767), (3075, 1), (2048, 4326), (3076, 9999)], "unit of length"),
        ] {
            let reason = crs(&keys(&shorts, &[])).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
