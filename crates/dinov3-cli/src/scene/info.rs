//! `dinov3 scene info`: what a scene is, and how it would be cut.

use std::path::PathBuf;

use anyhow::Result;
use dinov3::pixels::Statistics;
use dinov3_scene::geo::DatumShift;
use dinov3_scene::raster::{self, MaskKind, RasterProfile, StackedFile};
use dinov3_scene::{Preset, ProductFacts, Scene, SceneError, SceneOptions};
use serde_json::{Value, json};

use crate::arguments::SceneInfoArguments;
use crate::failure::{Outcome, usage};
use crate::scene::inputs::named_scenes;
use crate::scene::{opener, resampling_told, scene_options};

/// Runs the command.
pub fn run(arguments: &SceneInfoArguments) -> Result<Outcome> {
    let options = scene_options(&arguments.cut, Statistics::SATELLITE, None)?;
    let opener = opener(&arguments.cut, &arguments.remote);
    let inputs: Vec<PathBuf> = arguments.scene.clone().into_iter().collect();
    let mut named = named_scenes(&opener, &inputs, &arguments.cut)?.scenes;
    let input = match named.len() {
        1 => named.remove(0),
        count => return Err(usage(format!("these are {count} scenes: name one"))),
    };
    let opened = Scene::open(&opener, &input, &options).and_then(|scene| scene.measured().cloned().map(|_| scene));
    let scene = match opened {
        Ok(scene) => scene,
        // What it is can be told even so, and helps to find the option that is missing.
        Err(error @ (SceneError::Raster(_) | SceneError::Input { .. })) => return Err(error.into()),
        Err(error) => {
            let raster = input.open(&opener)?;
            let profile = raster.profile();
            let fit = Preset::fitting(&ProductFacts::gather(&input, profile), profile, None);
            match arguments.json {
                true => {
                    let mut json = json_of_raster(&input.name, profile);
                    json["preset_that_fits"] = json!(fit.as_ref().map(|fit| fit.preset.name()));
                    json["problem"] = json!(error.to_string());
                    println!("{json}");
                }
                false => {
                    let mut rows = of_raster(profile);
                    rows.extend(fit.map(|fit| ("product", fit.to_string())));
                    print!("{}", lines(&rows));
                }
            }
            return Err(error.into());
        }
    };
    let measured = scene.measured()?;
    let fit = scene.fitting().filter(|fit| options.preset != Some(fit.preset));
    let (profile, transform, crs) = (scene.profile(), scene.transform(), scene.crs());
    let footprint = scene.footprint()?;
    let (pixel_width, pixel_height) = transform.pixel_size();
    let unit = match crs.metres_per_unit() {
        None => "degrees",
        Some(1.0) => "metres",
        Some(_) => "units",
    };
    let crs_name = match (crs.epsg(), crs.name()) {
        (Some(code), Some(name)) => format!("EPSG:{code} ({name})"),
        _ => crs.to_string(),
    };
    let chips = scene.chips().len();
    let cut = options.cut;
    if arguments.json {
        let mut json = json_of_raster(scene.name(), profile);
        let further = json!({
            "stac_item": input.stac_item,
            "datetime": input.datetime_us.and_then(dinov3_scene::stac::format_datetime),
            "files": profile.files.iter().map(of_file).collect::<Vec<_>>(),
            "epsg": crs.epsg(), "crs": crs.to_string(),
            "transform": [transform.a, transform.b, transform.c, transform.d, transform.e, transform.f],
            "bbox": footprint.bbox(),
            "rgb_bands": scene.rgb_bands(),
            "preset": options.preset.map(Preset::name),
            "preset_that_fits": scene.fitting().map(|fit| fit.preset.name()),
            "resampled": scene.resampling().map(|resampling| json!({
                "gsd_m": resampling.gsd_m, "source_gsd_m": resampling.source_gsd_m, "factor": resampling.factor,
                "source_width_px": resampling.stored.width_px, "source_height_px": resampling.stored.height_px,
            })),
            "grid": options.grid.map(|grid| grid.to_string()), "block_side_m": scene.block_side_m(),
            "remarks": scene.remarks().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "chip_px": cut.chip_px, "stride_px": cut.stride_px, "edges": cut.edges.name(), "chips": chips,
        });
        for part in [further, scene.described()?] {
            for (key, value) in part.as_object().into_iter().flatten().filter(|(key, _)| *key != "bands") {
                json[key] = value.clone();
            }
        }
        println!("{json}");
        return Ok(Outcome::Done);
    }
    let mut rows = of_raster(scene.resampling().map_or(profile, |resampling| &resampling.stored));
    rows.extend(input.stac_item.map(|item| ("STAC item", item)));
    rows.extend(input.datetime_us.and_then(dinov3_scene::stac::format_datetime).map(|time| ("datetime", time)));
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
    ]);
    rows.extend(scene.reflectance().map(|text| ("reflectance", text)));
    rows.extend(options.preset.and_then(Preset::validity).map(|text| ("product's rule", text.to_owned())));
    rows.extend(scene.mask().map(|text| ("mask", text)));
    if let Some(found) = &measured.statistics {
        rows.push(("mean", format!("{} of {}", three(found.mean), found.sample)));
        rows.push(("deviation", three(found.std)));
        rows.push(("z", format!("{} against the weights for satellites", three(found.z))));
    }
    for remark in scene.remarks() {
        rows.push((if remark.is_warning() { "warning" } else { "note" }, remark.to_string()));
    }
    rows.extend(measured.warnings.iter().map(|warning| ("warning", warning.clone())));
    rows.extend(fit.map(|fit| ("product", fit.to_string())));
    rows.push(("chips", chips_of(&scene, &options)));
    if let Some(resampling) = scene.resampling().filter(|resampling| resampling.is_resampled()) {
        let (width_m, height_m) = resampling.source_gsd_m;
        let size = format!("{} x {} px of {} m", profile.width_px, profile.height_px, resampling.gsd_m);
        rows.push(("resampled", format!("to {size}, from {width_m:.3} x {height_m:.3} m")));
    }
    print!("{}", lines(&rows));
    Ok(Outcome::Done)
}

fn of_file(file: &StackedFile) -> Value {
    json!({
        "file": file.location, "width_px": file.width_px, "height_px": file.height_px,
        "resampling": file.resampling.map(raster::Resampling::name),
    })
}

/// Of red, green and blue.
fn three([red, green, blue]: [f64; 3]) -> String {
    format!("{red:.3}, {green:.3}, {blue:.3}")
}

fn json_of_raster(name: &str, profile: &RasterProfile) -> Value {
    json!({
        "scene": name,
        "width_px": profile.width_px, "height_px": profile.height_px,
        "bands": profile.bands.len(), "sample_type": profile.sample_type.name(),
        "compression": profile.compression, "predictor": profile.predictor, "is_planar": profile.is_planar,
        "block_px": [profile.blocks.width_px, profile.blocks.height_px], "is_tiled": profile.blocks.is_tiled,
        "overviews": profile.overviews,
        "no_data": profile.no_data.as_ref().map(|no_data| &no_data.text), "mask": mask(profile),
    })
}

/// How many chips there are, and where.
fn chips_of(scene: &Scene, options: &SceneOptions) -> String {
    let (chips, cut) = (scene.chips().len(), options.cut);
    let place = match (options.grid, scene.block_side_m()) {
        (Some(grid), Some(side_m)) => format!("on the blocks of {grid}, {side_m} m"),
        (Some(grid), None) => format!("on the cells of {grid}"),
        (None, _) => format!("every {} px", cut.stride_px),
    };
    let area = if options.area.is_some() { ", in the area of interest" } else { "" };
    format!("{chips} of {0} x {0} px {place}, edges {1}{area}", cut.chip_px, cut.edges.name())
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
    for file in &profile.files {
        rows.push(match file.resampling {
            Some(method) => ("file", resampling_told(file, method, profile)),
            None => ("file", file.location.clone()),
        });
    }
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
        (MaskKind::EachFile, _) => "where every file that is used says so".to_owned(),
        (MaskKind::Alpha { band }, _) => format!("above 0 in the alpha band {}", band + 1),
        _ if profile.sample_type.is_float() => "all but NaN".to_owned(),
        _ => "all".to_owned(),
    }
}

fn lines(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name:<18}{value}\n")).collect()
}
