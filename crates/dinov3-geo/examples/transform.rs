//! Runs the crate over lines of standard input, for `dev/geo/check_geo.py`. Fields are separated by tabs; each line is
//! answered by one line of JSON, `{"error": …}` where there is no answer.
//!
//! ```text
//! to_lon_lat    CRS  x y [x y …]
//! from_lon_lat  CRS  lon lat [lon lat …]
//! ```

use std::io::{BufRead, Write};

use dinov3_geo::{Crs, GeoError};

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
    let [command, crs, numbers] = fields[..] else { return Ok("{\"error\": \"three fields expected\"}".into()) };
    let numbers: Vec<f64> = numbers.split(' ').map(|number| number.parse().unwrap_or(f64::NAN)).collect();
    let points: Vec<(f64, f64)> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    match command {
        "to_lon_lat" => Ok(point_list(&crs.parse::<Crs>()?, &points, Crs::to_lon_lat)),
        "from_lon_lat" => Ok(point_list(&crs.parse::<Crs>()?, &points, Crs::from_lon_lat)),
        _ => Ok("{\"error\": \"no such command\"}".into()),
    }
}

type Transformation = fn(&Crs, f64, f64) -> Result<(f64, f64), GeoError>;

/// `null` for points without an answer.
fn point_list(crs: &Crs, points: &[(f64, f64)], transformation: Transformation) -> String {
    let points = points.iter().map(|&(x, y)| match transformation(crs, x, y) {
        Ok((x, y)) => format!("[{x},{y}]"),
        Err(_) => "null".to_owned(),
    });
    format!("{{\"points\": [{}]}}", points.collect::<Vec<_>>().join(","))
}
