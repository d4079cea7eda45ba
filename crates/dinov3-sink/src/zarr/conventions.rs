//! What a store says of itself: the conventions `geoemb:` v1, `spatial` v0.1 and `proj` v0.1.

use dinov3_geo::{AffineTransform, Crs};
use serde_json::{Value, json};

use super::RasterFacts;
use crate::element::ElementType;
use crate::raster::FeatureGrid;

/// What a cell of a raster of features is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cells {
    /// A patch of the encoder, whose vector knows what lies around it.
    Patches,
    /// A chip that was encoded on its own, in pixels of the grid that was cut.
    Chips {
        /// Its side.
        chip_px: u32,
        /// From chip to chip.
        stride_px: u32,
    },
}

/// The conventions' own entries, word for word: validators compare them.
fn geoemb() -> Value {
    json!({
        "schema_url": "https://raw.githubusercontent.com/geo-embeddings/embeddings-zarr-convention/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/geo-embeddings/embeddings-zarr-convention/blob/v1/README.md",
        "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
        "name": "geoemb:",
        "description": "Geoembeddings convention for geospatial embedding arrays with model provenance",
    })
}

fn proj() -> Value {
    json!({
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
        "name": "proj",
        "description": "Coordinate reference system information for geospatial data",
    })
}

fn spatial() -> Value {
    json!({
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
        "name": "spatial",
        "description": "Spatial coordinate information",
    })
}

/// Whether a raster can stand in a store.
///
/// # Errors
/// If it is rotated, or if its reference system has no code and cannot be written out.
pub fn check_grid(grid: &FeatureGrid) -> Result<(), String> {
    reference_system(grid).map(|_| ())
}

/// The attribute that names a raster's reference system, and its value.
fn reference_system(grid: &FeatureGrid) -> Result<(&'static str, String), String> {
    // Coordinates along an axis exist only where the axes of the raster are those of the reference system.
    if grid.transform.is_rotated() || grid.transform.a <= 0.0 {
        return Err(
            "is rotated or mirrored, and a Zarr store has coordinates along its axes: write .parquet, or turn it with \
                    gdalwarp"
                .to_owned(),
        );
    }
    // The convention prefers WKT 2. A code says the same, and GDAL and pyproj know it.
    if let Some(code) = grid.crs.epsg() {
        return Ok(("proj:code", format!("EPSG:{code}")));
    }
    let text = grid.crs.wkt2().ok_or(
        "has a reference system without an EPSG code, by which a Zarr store names it: write .parquet, or give its code \
         with --crs EPSG:CODE",
    )?;
    Ok(("proj:wkt2", text))
}

/// Attributes of an array over the grid; a sentence if there are none.
pub(super) fn array_attributes(grid: &FeatureGrid) -> Result<Value, String> {
    let (name, system) = reference_system(grid)?;
    let AffineTransform { a, b, c, d, e, f } = grid.transform;
    let (right, bottom) = grid.transform.apply(f64::from(grid.width_px), f64::from(grid.height_px));
    Ok(json!({
        "zarr_conventions": [proj(), spatial()],
        name: system,
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": [a, b, c, d, e, f],
        "spatial:bbox": [c.min(right), bottom.min(f), right.max(c), f.max(bottom)],
        "spatial:shape": [grid.height_px, grid.width_px],
        "spatial:registration": "pixel",
    }))
}

/// Attributes of the group of a raster.
pub(super) fn group_attributes(grid: &FeatureGrid, facts: &RasterFacts<'_>) -> Result<Value, String> {
    let mut attributes = array_attributes(grid)?;
    attributes["zarr_conventions"] = json!([geoemb(), proj(), spatial()]);
    attributes["geoemb:type"] = match facts.cells {
        Cells::Patches => json!("pixel"),
        Cells::Chips { .. } => json!("chip"),
    };
    attributes["geoemb:dimensions"] = json!(facts.dims);
    attributes["geoemb:model"] = json!(facts.model);
    attributes["geoemb:source_data"] = json!(facts.sources);
    attributes["geoemb:data_type"] = json!(facts.element.numpy_name());
    attributes["geoemb:build_version"] = json!(concat!("dinov3 ", env!("CARGO_PKG_VERSION")));
    if let Some(metres) = facts.pixel_m {
        attributes["geoemb:gsd"] = json!(metres);
    }
    if let Cells::Chips { chip_px, stride_px } = facts.cells {
        attributes["geoemb:chip_layout"] = json!({
            "layout_type": "regular_grid", "chip_size": [chip_px, chip_px], "stride": [stride_px, stride_px],
        });
    }
    if let Some(mut quantization) = facts.element.quantization() {
        if facts.element == ElementType::Int8 {
            // The convention's word.
            quantization["method"] = json!("per_pixel_scale");
            quantization["scale"] = json!({"type": "array", "array_name": "scales", "nodata": "nan"});
        }
        attributes["geoemb:quantization"] = quantization;
    }
    Ok(attributes)
}

/// Attributes of the coordinates x and y, in CF's words.
pub(super) fn axes(crs: &Crs) -> [Value; 2] {
    let axis = |axis: &str, name: &str, units: Option<&str>| {
        let mut attributes = json!({"axis": axis, "standard_name": name});
        if let Some(units) = units {
            attributes["units"] = json!(units);
        }
        attributes
    };
    match crs.metres_per_unit() {
        None => [axis("X", "longitude", Some("degrees_east")), axis("Y", "latitude", Some("degrees_north"))],
        Some(metres) => {
            let units = (metres == 1.0).then_some("m");
            [axis("X", "projection_x_coordinate", units), axis("Y", "projection_y_coordinate", units)]
        }
    }
}
