//! `dinov3 scene info`: what a scene is, and how it would be cut.

use anyhow::Result;
use dinov3::pixels::Statistics;
use dinov3_scene::geo::DatumShift;
use dinov3_scene::raster::{MaskKind, RasterProfile};
use dinov3_scene::{Scene, SceneError};
use serde_json::json;

use crate::arguments::SceneInfoArguments;
use crate::failure::Outcome;
use crate::scene::{opener, scene_options};

/// Runs the command.
pub fn run(arguments: &SceneInfoArguments) -> Result<Outcome> {
    let options = scene_options(&arguments.cut, Statistics::SATELLITE, None)?;
    let opener = opener(&arguments.cut, &arguments.remote);
    let scene = match Scene::open(&opener, &arguments.scene.clone().into(), &options) {
        Ok(scene) => scene,
        // What it is can be told even so, and helps to find the option that is missing.
        Err(error @ SceneError::Raster(_)) => return Err(error.into()),
        Err(error) => {
            if let Some(text) = arguments.scene.to_str()
                && !arguments.json
            {
                print!("{}", lines(&of_raster(opener.open(text).map_err(SceneError::from)?.profile())));
            }
            return Err(error.into());
        }
    };
    let (profile, transform, crs) = (scene.profile(), scene.transform(), scene.crs());
    let footprint = scene.footprint()?;
    let (pixel_width, pixel_height) = transform.pixel_size();
    let unit = if crs.is_geographic() { "degrees" } else { "units" };
    let crs_name = match (crs.epsg(), crs.name()) {
        (Some(code), Some(name)) => format!("EPSG:{code} ({name})"),
        _ => crs.to_string(),
    };
    let chips = scene.chips().len();
    let cut = options.cut;
    if arguments.json {
        let json = json!({
            "scene": scene.name(),
            "width_px": profile.width_px, "height_px": profile.height_px,
            "bands": profile.bands.len(), "sample_type": profile.sample_type.name(),
            "compression": profile.compression, "predictor": profile.predictor, "is_planar": profile.is_planar,
            "block_px": [profile.blocks.width_px, profile.blocks.height_px], "is_tiled": profile.blocks.is_tiled,
            "overviews": profile.overviews,
            "no_data": profile.no_data.as_ref().map(|no_data| &no_data.text), "mask": mask(profile),
            "epsg": crs.epsg(), "crs": crs.to_string(),
            "transform": [transform.a, transform.b, transform.c, transform.d, transform.e, transform.f],
            "bbox": footprint.bbox(),
            "rgb_bands": scene.rgb_bands(), "scale": scene.scale().to_string(),
            "chip_px": cut.chip_px, "stride_px": cut.stride_px, "edges": cut.edges.name(), "chips": chips,
        });
        println!("{json}");
        return Ok(Outcome::Done);
    }
    let mut rows = of_raster(profile);
    let [west, south, east, north] = footprint.bbox();
    let [red, green, blue] = scene.rgb_bands();
    rows.extend([
        ("reference system", crs_name),
        ("datum", datum(crs.datum_shift()).to_owned()),
        ("pixel", format!("{pixel_width} x {pixel_height} {unit}")),
        ("corner", format!("{}, {}", transform.c, transform.f)),
        ("longitude", format!("{west:.6} to {east:.6}")),
        ("latitude", format!("{south:.6} to {north:.6}")),
        ("red, green, blue", format!("bands {red}, {green}, {blue}; scale {}", scene.scale())),
        (
            "chips",
            format!("{chips} of {0} x {0} px every {1} px, edges {2}", cut.chip_px, cut.stride_px, cut.edges.name()),
        ),
    ]);
    print!("{}", lines(&rows));
    Ok(Outcome::Done)
}

fn of_raster(profile: &RasterProfile) -> Vec<(&'static str, String)> {
    let layout = match (profile.blocks.is_tiled, profile.is_planar) {
        (true, false) => "tiles",
        (true, true) => "tiles per band",
        (false, false) => "strips",
        (false, true) => "strips per band",
    };
    let (block_width, block_height) = (profile.blocks.width_px, profile.blocks.height_px);
    let overviews: Vec<String> =
        profile.overviews.iter().map(|(width, height)| format!("{width} x {height}")).collect();
    let mut rows = vec![
        ("scene", profile.location.clone()),
        ("size", format!("{} x {} px", profile.width_px, profile.height_px)),
        ("samples", format!("{} bands of {}", profile.bands.len(), profile.sample_type.name())),
        ("stored", format!("{layout} of {block_width} x {block_height} px, {}", profile.compression)),
        ("overviews", if overviews.is_empty() { "none".to_owned() } else { overviews.join(", ") }),
        ("valid pixels", mask(profile)),
    ];
    if !profile.ignored_files.is_empty() {
        rows.push(("ignored", profile.ignored_files.join(", ")));
    }
    rows
}

/// How longitudes and latitudes come about.
fn datum(shift: DatumShift) -> &'static str {
    match shift {
        DatumShift::None => "WGS 84",
        DatumShift::Ignored => "counts as WGS 84, which is within about 2 m",
        _ => "shifted to WGS 84 by three or seven parameters",
    }
}

/// What decides which pixels are valid.
fn mask(profile: &RasterProfile) -> String {
    match (profile.mask, &profile.no_data) {
        (MaskKind::Internal, _) => "those of the mask in the file".to_owned(),
        (MaskKind::NoData, Some(no_data)) => format!("where a band that is used is not {}", no_data.text),
        (MaskKind::Alpha { band }, _) => format!("above 0 in the alpha band {}", band + 1),
        _ => "all".to_owned(),
    }
}

fn lines(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name:<18}{value}\n")).collect()
}
