//! A large job in units: which there are, what they are called, and which of several machines makes which.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dinov3_geo::{PixelWindow, read_wkb_polygons};
use dinov3_raster::Opener;
use dinov3_sink::{EmbeddingLayout, ShardPlace, WorkUnit, group_names, safe_stem};

use crate::input::FileVersion;
use crate::source::Demand;
use crate::{DenseCut, DenseSource, Scene, SceneError, SceneInput, SceneOptions};

/// Characters of a scene's name in the names of its units.
const LONGEST_STEM: usize = 80;

/// How scenes are divided into units.
#[derive(Clone, Copy, Debug)]
pub enum Division<'a> {
    /// Not at all.
    Scenes,
    /// Not at all, and windows of patches are counted instead of chips.
    Windows(DenseCut),
    /// A scene of more chips than this is several units, at rows of chips, of about so many each.
    Chips(NonZero<u64>),
    /// By the shards of a Zarr store with vectors of this layout.
    Shards(&'a EmbeddingLayout),
}

/// The units of these scenes, in their order. A scene that cannot be used, or fails the demand, is one, with the reason.
/// Scenes are opened on `threads` threads, each once.
pub fn plan_units(
    opener: &Opener,
    inputs: &[SceneInput],
    options: &SceneOptions,
    division: Division<'_>,
    demand: Demand,
    threads: usize,
) -> Vec<WorkUnit> {
    let groups = match division {
        Division::Shards(_) => group_names(&inputs.iter().map(|input| input.name.clone()).collect::<Vec<_>>()),
        _ => BTreeMap::new(),
    };
    let next = AtomicUsize::new(0);
    let found: Mutex<BTreeMap<usize, Vec<WorkUnit>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, inputs.len().max(1)) {
            scope.spawn(|| {
                while let Some((index, input)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    inputs.get(index).map(|input| (index, input))
                } {
                    let group = groups.get(&input.name).map_or("", String::as_str);
                    let units = units_of(opener, input, options, division, demand, group);
                    found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(index, units);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().flatten().collect()
}

fn units_of(
    opener: &Opener,
    input: &SceneInput,
    options: &SceneOptions,
    division: Division<'_>,
    demand: Demand,
    group: &str,
) -> Vec<WorkUnit> {
    let text = serde_json::to_string(input);
    let whole = WorkUnit {
        unit: unit_name(&input.name, None),
        scene: input.name.clone(),
        input: text.as_deref().unwrap_or_default().to_owned(),
        datetime_us: options.datetime_us.or(input.datetime_us),
        ..WorkUnit::default()
    };
    if text.is_err() {
        let problem = "its name is not UTF-8, and a plan is: rename it, or embed it into one file";
        return vec![WorkUnit { error: Some(format!("{} {problem}", input.name)), ..whole }];
    }
    let scene = match Scene::open(opener, input, options) {
        Ok(scene) => scene,
        Err(error) => return vec![WorkUnit { error: Some(error.to_string()), ..whole }],
    };
    let profile = scene.profile();
    let whole = WorkUnit {
        stamp: Some(scene_version(&scene)),
        size_px: Some((profile.width_px, profile.height_px)),
        epsg: scene.epsg(),
        datetime_us: scene.datetime_us(),
        ..whole
    };
    if let Err(problem) = demand(&scene) {
        return vec![WorkUnit { error: Some(format!("{} {problem}", input.name)), ..whole }];
    }
    if let Division::Windows(cut) = division {
        return vec![WorkUnit { chips: DenseSource::new(scene, cut).window_count(), ..whole }];
    }
    let rows = scene.chips_by_row();
    let chips = rows.values().sum();
    let part = |(first, end): (i64, i64), chips: u64| WorkUnit {
        unit: unit_name(&input.name, Some(first)),
        chips,
        rows_px: Some((first, end)),
        ..whole.clone()
    };
    match division {
        Division::Shards(layout) => match scene.chips_by_shard(layout) {
            Ok(shards) => units_of_shards(&WorkUnit { chips, ..whole }, group, &shards),
            Err(problem) => vec![WorkUnit { error: Some(format!("{} {problem}", input.name)), ..whole }],
        },
        Division::Chips(most) if chips > most.get() => {
            split(&rows, most.get()).into_iter().map(|(rows, chips)| part(rows, chips)).collect()
        }
        _ => vec![WorkUnit { chips, ..whole }],
    }
}

/// A unit per shard, also for those without chips: which have data is known when they were read.
fn units_of_shards(whole: &WorkUnit, group: &str, shards: &BTreeMap<(u32, u32), u64>) -> Vec<WorkUnit> {
    let unit = |(&(row, column), &chips): (&(u32, u32), &u64)| WorkUnit {
        unit: match shards.len() {
            1 => whole.unit.clone(),
            _ => format!("{}-s{row}.{column}", whole.unit),
        },
        chips,
        shard: Some(ShardPlace { group: group.to_owned(), row, column }),
        ..whole.clone()
    };
    shards.iter().map(unit).collect()
}

/// Ranges of rows with about equal numbers of chips, of which as few as possible hold more than `most`: a row is not
/// divided. The ranges cover all rows.
fn split(rows: &BTreeMap<i64, u64>, most: u64) -> Vec<((i64, i64), u64)> {
    let total: u64 = rows.values().sum();
    let target = total.div_ceil(total.div_ceil(most.max(1)).max(1)).max(1);
    let mut parts: Vec<((i64, i64), u64)> = Vec::new();
    for (&row, &chips) in rows {
        match parts.last_mut() {
            Some(((_, end), held)) if *held + chips <= target || *held == 0 => {
                *end = row + 1;
                *held += chips;
            }
            last => {
                if let Some(((_, end), _)) = last {
                    *end = row;
                }
                parts.push(((row, row + 1), chips));
            }
        }
    }
    parts
}

/// What a scene's unit is called, and its files: the scene's own name as far as it is safe everywhere, a hash of the whole
/// name, which tells apart scenes of different folders, and the first row of a part. It depends on nothing else, so
/// that other scenes in the same job change no name.
pub fn unit_name(scene: &str, first_row_px: Option<i64>) -> String {
    let stem = safe_stem(scene, LONGEST_STEM);
    let hash = fnv1a(scene.as_bytes()) & 0xff_ffff_ffff;
    match first_row_px {
        None => format!("{stem}-{hash:010x}"),
        Some(row) => format!("{stem}-{hash:010x}-y{row}"),
    }
}

/// The 64-bit hash of Fowler, Noll and Vo: names differ by accident, never by design, and the plan is checked for doubles.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What tells the version of a scene, for plans and markers: of each file the size, and the version where a server names
/// one; and what was decided about its samples, by metadata beside it or by its STAC item. The times of files come last,
/// after `ELSEWHERE`, in whole seconds: a copy may have another one, and not every disk keeps fractions.
pub fn scene_version(scene: &Scene) -> String {
    let (mut files, mut times) = (Vec::new(), Vec::new());
    for FileVersion { stamp, is_local } in scene.versions() {
        let Some(stamp) = stamp else {
            files.push("a file of unknown version".to_owned());
            continue;
        };
        let bytes = stamp.size_bytes();
        match is_local {
            true => {
                files.push(format!("{bytes} bytes"));
                times.push(stamp.modified_ns().div_euclid(1_000_000_000).to_string());
            }
            false => files.push(format!("{bytes} bytes of version {:016x}", stamp.version_hash())),
        }
    }
    let reading = fnv1a(scene.reading().as_bytes()) & 0xff_ffff_ffff;
    let text = format!("{}{READING}{reading:010x}", files.join(" + "));
    if times.is_empty() { text } else { format!("{text}{ELSEWHERE}{}", times.join(" ")) }
}

/// What follows was decided about the samples.
const READING: &str = ", read as ";
/// What follows is not the same on every machine.
const ELSEWHERE: &str = ", modified ";

/// Whether an opened scene is the one that was planned, maybe on another machine, as far as that can be told.
///
/// # Errors
/// What differs.
pub fn check_unchanged(scene: &Scene, unit: &WorkUnit) -> Result<(), String> {
    let found = Some(scene_version(scene));
    let everywhere = |text: &Option<String>| text.as_ref().map(|text| text.split(ELSEWHERE).next().map(str::to_owned));
    let profile = scene.profile();
    let size_px = (profile.width_px, profile.height_px);
    let has_changed = "it has changed since it was planned";
    match (everywhere(&unit.stamp), everywhere(&found)) {
        (Some(planned), Some(found)) if planned != found => {
            let files = |text: &str| text.split(READING).next().unwrap_or_default().to_owned();
            match (files(&planned.unwrap_or_default()), files(&found.unwrap_or_default())) {
                (planned, found) if planned != found => {
                    Err(format!("{has_changed}: it had {planned}, and has {found}"))
                }
                _ => Err(format!(
                    "{has_changed}: the metadata beside it, or its STAC item, says otherwise now what samples are"
                )),
            }
        }
        _ if unit.size_px.is_some_and(|planned| planned != size_px) => {
            Err(format!("{has_changed}: it is of another size"))
        }
        _ => Ok(()),
    }
}

/// Which of `shards` machines makes each unit: the largest units first, each goes to whoever has least to do. The same
/// for the same list, and nobody has more than a unit above the average.
pub fn assign(units: &[WorkUnit], shards: NonZero<u32>) -> Vec<u32> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by(|&a, &b| {
        units[b].chips.cmp(&units[a].chips).then_with(|| units[a].unit.cmp(&units[b].unit)).then(a.cmp(&b))
    });
    let mut loads: BinaryHeap<Reverse<(u64, u32)>> = (0..shards.get()).map(|shard| Reverse((0, shard))).collect();
    let mut assigned = vec![0; units.len()];
    for index in order {
        let Some(Reverse((load, shard))) = loads.pop() else { break };
        assigned[index] = shard;
        // One that may turn out to have chips, or none, is not for nothing.
        loads.push(Reverse((load + units[index].chips.max(1), shard)));
    }
    assigned
}

/// The part of the scene that a unit's chips take their pixels from.
pub(crate) fn rows_window(scene: &Scene, rows_px: Option<(i64, i64)>) -> PixelWindow {
    let whole = scene.profile().window();
    let Some((first, end)) = rows_px else { return whole };
    let chips = (0..scene.chips().len()).map(|index| scene.chips().window(index));
    let of_unit = chips.filter(|window| (first..end).contains(&window.y_px));
    let bottom = of_unit.map(|window| window.bottom_px()).max().unwrap_or(end);
    let height_px = u32::try_from(bottom.saturating_sub(first)).unwrap_or(u32::MAX);
    PixelWindow::new(whole.x_px, first, whole.width_px, height_px).intersection(&whole).unwrap_or(whole)
}

/// Where on the Hilbert curve a chip's footprint lies that was read from a file.
pub fn place_on_curve(wkb: &[u8]) -> Result<u32, SceneError> {
    let scene = "a chip's footprint".to_owned();
    let polygons = read_wkb_polygons(wkb).map_err(|source| SceneError::Coordinates { scene, source })?;
    let is_split = polygons.len() > 1;
    let (mut west, mut south, mut east, mut north) = (f64::MAX, f64::MAX, f64::MIN, f64::MIN);
    for (lon, lat) in polygons.into_iter().flatten().flatten() {
        // Beyond the antimeridian longitudes go on.
        let lon = if is_split && lon < 0.0 { lon + 360.0 } else { lon };
        (west, east) = (west.min(lon), east.max(lon));
        (south, north) = (south.min(lat), north.max(lat));
    }
    let lon = (west + east) / 2.0;
    let lon = if lon > 180.0 { lon - 360.0 } else { lon };
    Ok(dinov3_geo::HilbertCurve::EARTH.index(lon, (south + north) / 2.0))
}

#[cfg(test)]
mod tests {
    use dinov3_pixels::Statistics;
    use dinov3_raster::Options;
    use dinov3_testing::geotiff::{TiffFile, TiffImage, utm_tags};

    use super::*;

    #[test]
    fn a_copy_on_another_machine_is_the_scene_that_was_planned() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let write = |name: &str, seconds: u64| {
            let image = TiffImage { bands: 1, tags: utm_tags(), ..TiffImage::default() };
            // Another file, as a copy is: with another inode.
            let _ = std::fs::remove_file(file(name));
            std::fs::write(file(name), TiffFile::of(image).to_bytes()).unwrap();
            let written = std::fs::File::options().write(true).open(file(name)).unwrap();
            written.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        let names = ["r.tif", "g.tif", "b.tif", "mask.tif"];
        let opened = |masked: bool| {
            let mut options = SceneOptions::new(Statistics::SATELLITE);
            options.mask_values = crate::MaskValues::parse("250").ok();
            let mut input = SceneInput::of_files(names[..3].iter().map(|name| file(name)).collect());
            input.mask = masked.then(|| file("mask.tif"));
            Scene::open(&Opener::new(Options::default()), &input, &options).unwrap()
        };
        // A time of 0 is what archives give that shall be the same every time.
        names.iter().for_each(|name| write(name, 0));
        let planned = |scene: &Scene| WorkUnit { stamp: Some(scene_version(scene)), ..WorkUnit::default() };
        let (unit, with_mask) = (planned(&opened(false)), planned(&opened(true)));
        names.iter().for_each(|name| write(name, 1_700_000_000));
        check_unchanged(&opened(false), &unit).unwrap();
        check_unchanged(&opened(true), &with_mask).unwrap();
        assert_ne!(planned(&opened(false)).stamp, unit.stamp, "a new plan sees that a file was written since");
        let mut longer = std::fs::read(file("mask.tif")).unwrap();
        longer.extend([0; 8]);
        std::fs::write(file("mask.tif"), longer).unwrap();
        check_unchanged(&opened(false), &unit).unwrap();
        check_unchanged(&opened(true), &with_mask).unwrap_err();
    }

    #[test]
    fn names_are_safe_and_tell_scenes_apart() {
        assert!(unit_name("scenes/a b.tif", None).starts_with("a_b-"));
        assert!(unit_name("scenes/a b.tif", Some(-512)).ends_with("-y-512"));
        assert_ne!(unit_name("one/a.tif", None), unit_name("two/a.tif", None));
        assert_ne!(unit_name("a.tif", None), unit_name("a.tiff", None));
        for wild in
            ["", "/", "..", "../..", ".hidden", "-rf", "con.tif", "s3://b/k?x=1#y", "ä/松.tif", "a\0b", "C:\\a.tif"]
        {
            let name = unit_name(wild, None);
            let first = name.chars().next().unwrap();
            assert!(first.is_ascii_alphanumeric() || first == '_', "{wild}: {name}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{wild}: {name}");
        }
        assert!(unit_name(&"x".repeat(5000), None).len() < 100);
    }

    #[test]
    fn large_scenes_are_split_between_rows_of_chips() {
        let rows: BTreeMap<i64, u64> = (0..10).map(|row| (row * 256, 10)).collect();
        let parts = split(&rows, 40);
        assert_eq!(parts, [((0, 768), 30), ((768, 1536), 30), ((1536, 2304), 30), ((2304, 2305), 10)]);
        assert_eq!(split(&rows, 1).len(), 10);
        assert_eq!(split(&rows, 100), [((0, 2305), 100)]);
        // Rows without data belong to somebody.
        let sparse = BTreeMap::from([(0, 0), (10, 5), (20, 0), (30, 5)]);
        assert_eq!(split(&sparse, 5), [((0, 30), 5), ((30, 31), 5)]);
    }

    #[test]
    fn shards_share_the_chips_alike_and_in_the_same_way_every_time() {
        let chips = [900, 10, 500, 400, 300, 0, 0, 250];
        let units: Vec<WorkUnit> = (0..).zip(chips).map(|(index, chips)| unit(index, chips)).collect();
        let shards = NonZero::new(3).unwrap();
        let assigned = assign(&units, shards);
        let mut loads = [0; 3];
        for (unit, shard) in units.iter().zip(&assigned) {
            loads[*shard as usize] += unit.chips;
        }
        assert_eq!(loads.iter().sum::<u64>(), 2360);
        assert!(loads.iter().all(|load| (700..=910).contains(load)), "{loads:?}");
        assert_eq!(assign(&units, shards), assigned);
        // Whatever their order in the list.
        let mut reversed = units.clone();
        reversed.reverse();
        let mut back = assign(&reversed, shards);
        back.reverse();
        assert_eq!(back, assigned);
        assert!(assign(&[], shards).is_empty());
    }

    fn unit(index: u32, chips: u64) -> WorkUnit {
        WorkUnit { unit: format!("unit-{index}"), chips, ..WorkUnit::default() }
    }
}
