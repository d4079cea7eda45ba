//! Runs the crate over lines of standard input, for `dev/geo/check_geo.py`. A line has a command, its subject and its
//! numbers, between tabs; it is answered by one line of JSON, `{"error": …}` where there is no answer.
//!
//! ```text
//! to_lon_lat     CRS          x y …                             points, null where there is none
//! from_lon_lat   CRS          lon lat …                         points, null where there is none
//! footprint      CRS          a b c d e f x y width height tolerance    wkb, bbox, centre
//! hilbert        -            xmin ymin xmax ymax x y …         indices
//! major_tom      DISTANCE_KM  lon lat …                         [cell, lon, lat, EPSG of its zone], or null
//! utm            -            lon lat …                         EPSG codes
//! tile           ZOOM         lon lat …                         z/x/y
//! ```

use std::fmt::Display;
use std::io::{BufRead, Write};

use dinov3_geo::{
    AffineTransform, Crs, Footprint, GeoError, HilbertCurve, MajorTomGrid, PixelWindow, UtmZone, WebMercatorTile,
};

fn main() -> std::io::Result<()> {
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = answer(&line).unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()));
        writeln!(output, "{answer}")?;
    }
    output.flush()
}

fn answer(line: &str) -> Result<String, GeoError> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [command, subject, numbers] = fields[..] else { return Ok("{\"error\": \"three fields expected\"}".into()) };
    let numbers: Vec<f64> = numbers.split(' ').map(|number| number.parse().unwrap_or(f64::NAN)).collect();
    let points: Vec<(f64, f64)> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let subject_number: f64 = subject.parse().unwrap_or(f64::NAN);
    let point = |(x, y): (f64, f64)| format!("[{x},{y}]");
    Ok(match (command, &numbers[..]) {
        ("to_lon_lat", _) => {
            let crs: Crs = subject.parse()?;
            list("points", points.iter().map(|&(x, y)| crs.to_lon_lat(x, y).map_or("null".into(), point)))
        }
        ("from_lon_lat", _) => {
            let crs: Crs = subject.parse()?;
            list("points", points.iter().map(|&(lon, lat)| crs.from_lon_lat(lon, lat).map_or("null".into(), point)))
        }
        ("footprint", &[a, b, c, d, e, f, x, y, width, height, tolerance]) => {
            let window = PixelWindow::new(x as i64, y as i64, width as u32, height as u32);
            let transform = AffineTransform::new(a, b, c, d, e, f);
            let footprint = Footprint::of_window(&window, &transform, &subject.parse()?, tolerance)?;
            let wkb: String = footprint.to_wkb().iter().map(|byte| format!("{byte:02x}")).collect();
            let (bbox, centre) = (footprint.bbox(), point(footprint.centre()));
            format!("{{\"wkb\": \"{wkb}\", \"bbox\": {bbox:?}, \"centre\": {centre}}}")
        }
        ("hilbert", &[west, south, east, north, ..]) => {
            let curve = HilbertCurve::new([west, south, east, north]);
            list("indices", points[2..].iter().map(|&(x, y)| curve.index(x, y)))
        }
        ("major_tom", _) => {
            let grid = MajorTomGrid::new(subject_number)?;
            let cells = points.iter().map(|&(lon, lat)| {
                let Some(cell) = grid.cell(lon, lat)? else { return Ok("null".to_owned()) };
                let (west, south) = grid.bottom_left(cell);
                Ok(format!("[\"{cell}\",{west},{south},{}]", grid.utm_zone(cell)?.epsg()))
            });
            list("cells", cells.collect::<Result<Vec<_>, GeoError>>()?)
        }
        ("utm", _) => {
            let codes = points.iter().map(|&(lon, lat)| Ok(UtmZone::of(lon, lat)?.epsg()));
            list("codes", codes.collect::<Result<Vec<_>, GeoError>>()?)
        }
        ("tile", _) => {
            let tiles = points
                .iter()
                .map(|&(lon, lat)| Ok(format!("\"{}\"", WebMercatorTile::of(lon, lat, subject_number as u8)?)));
            list("tiles", tiles.collect::<Result<Vec<_>, GeoError>>()?)
        }
        _ => "{\"error\": \"no such command, or not its numbers\"}".into(),
    })
}

fn list(name: &str, items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("{{\"{name}\": [{}]}}", items.join(","))
}
