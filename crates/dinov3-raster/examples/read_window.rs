//! Reads a window and writes it raw: what `dev/raster/matrix.py` compares with GDAL.
//!
//! `read_window PATH` writes the profile as a line of JSON. `read_window PATH OUT X Y WIDTH HEIGHT BANDS [LEVEL]` writes
//! the samples in the machine's byte order, then a byte 0 or 1 for each pixel. BANDS are counted from 1, as
//! `1,2,3`. Several windows may follow each other on the standard input, one per line, if PATH is `-`.

use std::error::Error;
use std::io::{BufRead, Write};

use dinov3_geo::PixelWindow;
use dinov3_raster::{CrsDefinition, Georeference, Opener, Options, Raster};
use serde_json::json;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let opener = Opener::new(Options::default());
    if arguments.first().is_some_and(|path| path == "-") {
        for line in std::io::stdin().lock().lines() {
            let words: Vec<String> = line.unwrap_or_default().split('\t').map(str::to_string).collect();
            answer(&opener, &words);
        }
    } else if !answer(&opener, &arguments) {
        std::process::exit(1);
    }
}

fn answer(opener: &Opener, words: &[String]) -> bool {
    let (line, worked) = match run(opener, words) {
        Ok(line) => (line, true),
        Err(error) => (json!({"error": error.to_string()}), false),
    };
    println!("{line}");
    let _ = std::io::stdout().flush();
    worked
}

fn run(opener: &Opener, words: &[String]) -> Result<serde_json::Value, Box<dyn Error>> {
    let (path, rest) = words.split_first().ok_or("usage: read_window PATH [OUT X Y WIDTH HEIGHT BANDS [LEVEL]]")?;
    let mut raster = opener.open(path)?;
    if let Some(level) = rest.get(6) {
        raster = raster.overview(level.parse()?)?;
    }
    if let [out, x, y, width, height, bands, ..] = rest {
        let window = PixelWindow::new(x.parse()?, y.parse()?, width.parse()?, height.parse()?);
        let bands =
            bands.split(',').map(|band| Ok(band.parse::<usize>()? - 1)).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let read = raster.read(window, &bands)?;
        let mut bytes = read.samples.to_ne_bytes();
        bytes.extend(read.valid.iter().map(|&valid| u8::from(valid)));
        std::fs::write(out, bytes)?;
        let empty = raster.is_empty(window);
        return Ok(json!({"type": read.samples.sample_type().name(), "empty": empty}));
    }
    Ok(profile(raster.as_ref()))
}

fn profile(raster: &dyn Raster) -> serde_json::Value {
    let profile = raster.profile();
    let georeference = match &profile.georeference {
        Georeference::Located { .. } => "located",
        Georeference::UnknownCrs { .. } => "unknown CRS",
        Georeference::WithoutCrs { .. } => "without CRS",
        Georeference::ControlPoints { .. } => "control points",
        Georeference::RationalPolynomials => "rational polynomials",
        _ => "none",
    };
    let transform = profile.georeference.transform().map(|t| [t.a, t.b, t.c, t.d, t.e, t.f]);
    let (epsg, proj) = match profile.georeference.crs() {
        Some(CrsDefinition::Epsg(code)) => (Some(*code), None),
        Some(CrsDefinition::Proj(text)) => (None, Some(text.clone())),
        _ => (None, None),
    };
    json!({
        "width": profile.width_px, "height": profile.height_px, "count": profile.bands.len(),
        "type": profile.sample_type.name(), "bits": profile.bits_per_sample,
        "nodata": profile.no_data.as_ref().map(|no_data| no_data.text.clone()),
        "georeference": georeference, "problem": profile.georeference.problem(),
        "transform": transform, "epsg": epsg, "proj": proj,
        "colours": profile.bands.iter().map(|band| format!("{:?}", band.colour)).collect::<Vec<_>>(),
        "descriptions": profile.bands.iter().map(|band| band.description.clone()).collect::<Vec<_>>(),
        "mask": format!("{:?}", profile.mask), "photometric": format!("{:?}", profile.photometric),
        "compression": profile.compression, "predictor": profile.predictor, "planar": profile.is_planar,
        "block": [profile.blocks.width_px, profile.blocks.height_px], "tiled": profile.blocks.is_tiled,
        "overviews": profile.overviews, "datetime": profile.datetime, "metadata": profile.metadata,
        "ignored": profile.ignored_files,
    })
}
