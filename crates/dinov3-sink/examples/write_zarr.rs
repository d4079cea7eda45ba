//! Writes an invented raster as a Zarr store, for `dev/scene`, which reads it with zarr-python and compares.
//!
//!     cargo run -p dinov3-sink --example write_zarr -- OUT.zarr [WIDTH HEIGHT DIMS] [f32|f16|int8]

use dinov3_geo::{AffineTransform, Crs};
use dinov3_sink::{ArrayRaster, DenseStoreOptions, ElementType, FeatureGrid, write_dense_store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: u32| arguments.get(place).map_or(Ok(default), |text| text.parse());
    let (width_px, height_px, dims) = (number(1, 700)?, number(2, 650)?, number(3, 64)? as usize);
    let named = |kind: &ElementType| arguments.get(4).is_some_and(|name| name == kind.name());
    let element = ElementType::ALL.into_iter().find(named).unwrap_or_default();
    let transform = AffineTransform::unrotated(399_960.0, 4_200_000.0, 160.0, -160.0);
    let grid = FeatureGrid { width_px, height_px, transform, crs: Crs::from_epsg(32633)? };
    let mut values = Vec::with_capacity(width_px as usize * height_px as usize * dims);
    for row in 0..height_px as usize {
        for column in 0..width_px as usize {
            // Holes as large as a chunk, and small ones.
            let is_hole = (row / 130 + column / 130) % 3 == 0 || (row * column) % 11 == 10;
            let value = |dim: usize| ((row * 7 + column * 13 + dim * 29) % 251) as f32 - 125.0;
            values.extend((0..dims).map(|dim| if is_hole { f32::NAN } else { value(dim) }));
        }
    }
    let options = DenseStoreOptions {
        model: "urn:example:model".to_owned(),
        source: "https://example.org/scene.tif".to_owned(),
        cell_px: 16.0,
        datetime_us: None,
        element,
    };
    let output = arguments.first().map_or("out.zarr", String::as_str);
    let provenance = serde_json::json!({"model": "invented"});
    write_dense_store(output.as_ref(), &mut ArrayRaster::new(grid, dims, values), &options, provenance)?;
    Ok(())
}
