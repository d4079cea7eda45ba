//! Writes invented chips around Fiji, where the antimeridian runs through, for `dev/geoparquet`.
//!
//!     cargo run -p dinov3-sink --example write_geoparquet -- OUT.parquet [CHIPS] [DIMENSIONS]

use dinov3_engine::{ImageFeatures, Sink, Summary};
use dinov3_model::array::Array;
use dinov3_model::encoder::{Features, Pooling};
use dinov3_sink::{ChipColumns, ChipFootprint, ChipRow, ChipSink, EmbeddingLayout, Journal, JournalKey};
use serde_json::json;

const CHIP_DEGREES: f64 = 0.02;
/// South-west corner of the first chip. The middle column crosses the antimeridian.
const ORIGIN: [f64; 2] = [179.37, -17.6];
/// Chips per row: a power of two for the curve.
const COLUMNS: u32 = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let output = arguments.next().ok_or("usage: write_geoparquet OUT.parquet [CHIPS] [DIMENSIONS]")?;
    let chips: u32 = arguments.next().map_or(Ok(4096), |text| text.parse())?;
    let dimensions: usize = arguments.next().map_or(Ok(384), |text| text.parse())?;

    let layout = EmbeddingLayout::new(&[Pooling::Token, Pooling::Average], dimensions, None)?;
    let mut journal = Journal::open(&output)?;
    journal.discard();
    journal.agree(serde_json::Map::new(), &layout)?;
    let columns = ChipColumns { grid_cell: true, ..ChipColumns::default() };
    let provenance = Box::new(|_: &Summary| json!({"model": "invented"}));
    let mut sink = ChipSink::geoparquet(journal, layout, columns, provenance)?;
    let mut noise = Noise(1);
    let mut features = Features::default();
    features.count = 1;
    for number in 0..chips {
        let mut vector = || Array { shape: vec![1, dimensions], data: (0..dimensions).map(|_| noise.next()).collect() };
        features.pooled = vec![(Pooling::Token, vector()), (Pooling::Average, vector())];
        let key = JournalKey::unstamped(chip(number % COLUMNS, number / COLUMNS));
        sink.write(&key, ImageFeatures::new(&features, 0).ok_or("no such image")?)?;
    }
    let mut summary = Summary::default();
    summary.done = chips as usize;
    Ok(Sink::<JournalKey<ChipRow>>::finish(&mut sink, &summary)?)
}

fn chip(column: u32, row: u32) -> ChipRow {
    let west = ORIGIN[0] + CHIP_DEGREES * f64::from(column);
    let south = ORIGIN[1] - CHIP_DEGREES * f64::from(row);
    ChipRow {
        id: format!("fiji/{column}_{row}"),
        footprint: footprint(west, south),
        datetime_us: (row > 0).then_some(1_600_000_000_123_456 + i64::from(row) * 1_000_000),
        source: "s3://invented/fiji.tif".to_owned(),
        epsg: Some(3460),
        x_px: (256 * column) as i32,
        y_px: (256 * row) as i32,
        width_px: 256,
        height_px: 256,
        grid_cell: (column > 0).then(|| format!("{row}D_{column}R")),
        valid_fraction: if row == 0 { 0.5 } else { 1.0 },
        stac_item: None,
        hilbert: hilbert(column, row),
    }
}

/// A square of longitude and latitude, counterclockwise, in two parts where the antimeridian cuts it.
fn footprint(west: f64, south: f64) -> ChipFootprint {
    let (east, north) = (west + CHIP_DEGREES, south + CHIP_DEGREES);
    let polygon = |west: f64, east: f64| {
        let corners = [[west, south], [east, south], [east, north], [west, north], [west, south]];
        let mut wkb = vec![1, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0];
        wkb.extend(corners.iter().flatten().flat_map(|degrees| degrees.to_le_bytes()));
        wkb
    };
    if west >= 180.0 {
        let [west, east] = [west - 360.0, east - 360.0];
        return ChipFootprint { wkb: polygon(west, east), bbox: [west, south, east, north] };
    }
    if east <= 180.0 {
        return ChipFootprint { wkb: polygon(west, east), bbox: [west, south, east, north] };
    }
    let east = east - 360.0;
    let wkb = [&[1, 6, 0, 0, 0, 2, 0, 0, 0][..], &polygon(west, 180.0), &polygon(-180.0, east)].concat();
    ChipFootprint { wkb, bbox: [west, south, east, north] }
}

/// The place of a cell on the Hilbert curve through a grid of 65536 × 65536.
fn hilbert(mut x: u32, mut y: u32) -> u32 {
    let (side, mut place) = (1u32 << 16, 0u32);
    let mut step = side / 2;
    while step > 0 {
        let (right, up) = (u32::from(x & step > 0), u32::from(y & step > 0));
        place = place.wrapping_add(step.wrapping_mul(step).wrapping_mul((3 * right) ^ up));
        if up == 0 {
            if right == 1 {
                (x, y) = (side - 1 - x, side - 1 - y);
            }
            (x, y) = (y, x);
        }
        step /= 2;
    }
    place
}

/// Numbers that look like features: a sum of four, roughly normal.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..4 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (self.0 >> 40) as f32 / (1u32 << 24) as f32 - 0.5;
        }
        sum
    }
}
