//! Runs jobs from standard input, one per line, and writes NumPy files; `dev/parity/preprocess.py` drives it.
//!
//! Fields are separated by tabs:
//!
//! ```text
//! decode   IN OUT DEEP_GREY ORIENTATION
//! resize   IN OUT WIDTH HEIGHT FILTER
//! timm     IN OUT HEIGHT WIDTH FILTER CROP_PCT CROP_MODE MEAN STD
//! native   IN OUT MEAN STD
//! hf, meta or meta-eval   IN OUT HEIGHT WIDTH MEAN STD
//! time     IN WIDTH HEIGHT FILTER
//! ```
//!
//! For each job one line comes back: `ok`, the time for `time`, or `error` and the message.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use dinov3_pixels::{
    CropMode, DecodeOptions, DeepGrey, Filter, Orientation, Recipe, RgbImage, Statistics, TimmRecipe, decode, resize,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        match run(&fields) {
            Ok(message) => writeln!(output, "{message}")?,
            Err(error) => writeln!(output, "error {error}")?,
        }
    }
    Ok(())
}

fn run(fields: &[&str]) -> Outcome<String> {
    match fields {
        ["decode", input, output, deep_grey, orientation] => {
            let deep_grey = match *deep_grey {
                "refuse" => DeepGrey::Refuse,
                "high-byte" => DeepGrey::HighByte,
                "clip" => DeepGrey::Clip,
                other => return Err(format!("deep grey {other}").into()),
            };
            let orientation = if *orientation == "apply" { Orientation::Apply } else { Orientation::Ignore };
            let options = DecodeOptions::default().with_deep_grey(deep_grey).with_orientation(orientation);
            write_rgb(output, &decode(&std::fs::read(input)?, &options)?)?;
        }
        ["resize", input, output, width, height, filter] => {
            write_rgb(output, &resize(&read(input)?, width.parse()?, height.parse()?, parse_filter(filter)?)?)?;
        }
        ["timm", input, output, height, width, filter, crop_pct, crop_mode, mean, std] => {
            let recipe = Recipe::Timm(TimmRecipe {
                height_px: height.parse()?,
                width_px: width.parse()?,
                filter: parse_filter(filter)?,
                crop_pct: crop_pct.parse()?,
                crop_mode: match *crop_mode {
                    "center" => CropMode::Center,
                    "squash" => CropMode::Squash,
                    "border" => CropMode::Border,
                    other => return Err(format!("crop mode {other}").into()),
                },
                statistics: parse_statistics(mean, std)?,
            });
            write_normalized(output, &recipe, &read(input)?)?;
        }
        ["native", input, output, mean, std] => {
            let recipe = Recipe::Native { statistics: parse_statistics(mean, std)? };
            write_normalized(output, &recipe, &read(input)?)?;
        }
        [name @ ("hf" | "meta" | "meta-eval"), input, output, height, width, mean, std] => {
            let statistics = parse_statistics(mean, std)?;
            let recipe = match *name {
                "hf" => Recipe::hf(statistics),
                "meta" => Recipe::meta(statistics),
                _ => Recipe::meta_eval(statistics),
            };
            write_normalized(output, &recipe.with_size(height.parse()?, width.parse()?), &read(input)?)?;
        }
        ["time", input, width, height, filter] => return time(input, width.parse()?, height.parse()?, filter),
        _ => return Err("unknown job".into()),
    }
    Ok("ok".into())
}

/// Median times of decoding and of resizing.
fn time(input: &str, width: u32, height: u32, filter: &str) -> Outcome<String> {
    let filter = parse_filter(filter)?;
    let bytes = std::fs::read(input)?;
    let image = decode(&bytes, &DecodeOptions::default())?;
    let median = |run: &mut dyn FnMut() -> Outcome<()>| -> Outcome<f64> {
        let mut times = Vec::new();
        for _ in 0..31 {
            let start = Instant::now();
            run()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    };
    let decode_ms = median(&mut || {
        decode(&bytes, &DecodeOptions::default())?;
        Ok(())
    })?;
    let resize_ms = median(&mut || {
        resize(&image, width, height, filter)?;
        Ok(())
    })?;
    Ok(format!("decode {decode_ms:.3} ms, resize {resize_ms:.3} ms"))
}

fn read(path: &str) -> Outcome<RgbImage> {
    Ok(decode(&std::fs::read(path)?, &DecodeOptions::default())?)
}

fn parse_filter(name: &str) -> Outcome<Filter> {
    match name {
        "bilinear" => Ok(Filter::Bilinear),
        "bicubic" => Ok(Filter::Bicubic),
        other => Err(format!("filter {other}").into()),
    }
}

fn parse_statistics(mean: &str, std: &str) -> Outcome<Statistics> {
    let three = |list: &str| -> Outcome<[f32; 3]> {
        let values = list.split(',').map(str::parse).collect::<Result<Vec<f32>, _>>()?;
        values.try_into().map_err(|_| "three values are needed".into())
    };
    Ok(Statistics { mean: three(mean)?, std: three(std)? })
}

fn write_rgb(path: &str, image: &RgbImage) -> Outcome<()> {
    let shape = format!("({}, {}, 3)", image.height_px(), image.width_px());
    write_npy(path, "|u1", &shape, image.data())
}

fn write_normalized(path: &str, recipe: &Recipe, image: &RgbImage) -> Outcome<()> {
    let input = recipe.apply(image)?;
    let bytes: Vec<u8> = input.data.iter().flat_map(|value| value.to_le_bytes()).collect();
    write_npy(path, "<f4", &format!("(3, {}, {})", input.height_px, input.width_px), &bytes)
}

fn write_npy(path: &str, kind: &str, shape: &str, bytes: &[u8]) -> Outcome<()> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    // The format wants 10 bytes of preamble and the header to fill a multiple of 64.
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    file.write_all(bytes)?;
    Ok(file.flush()?)
}
