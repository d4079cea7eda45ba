//! Plans for Zarr stores: their units are shards of the arrays of scenes.

use std::path::Path;

use anyhow::Result;
use dinov3::sink::{MergedStore, WorkUnit, is_store_name};
use dinov3_scene::{AlignedGrid, Edges, SceneOptions};

use crate::failure::usage;
use crate::scene::form::Form;
use crate::scene::plan::Plan;
use crate::scene::store::{PLAN, Store, is_store};

/// Whether chips that are cut like this can be cells.
///
/// # Errors
/// If some are moved off the lattice, or lie on cells that are no columns and rows.
pub fn check_cut(options: &SceneOptions) -> Result<()> {
    match (options.cut.edges, options.grid) {
        (Edges::Shift, _) => Err(usage(
            "--edges shift moves chips off the grid whose cells a Zarr store holds: use --edges pad or drop, or write \
             .parquet",
        )),
        (_, Some(grid @ AlignedGrid::MajorTom(_))) => Err(usage(format!(
            "--grid {grid}: its cells are no columns and rows, as those of a Zarr store are: use --grid utm, or write \
             .parquet"
        ))),
        _ => Ok(()),
    }
}

/// Refuses to replace, by a store that one process makes at once, one that was made unit by unit.
pub fn refuse_store_of_plan(output: &Path, fresh: bool) -> Result<()> {
    match !fresh && output.join(PLAN).exists() {
        true => Err(usage(format!(
            "{}: was made by 'dinov3 scene plan' and 'run', and all of it would be replaced; give another output, or --fresh",
            output.display()
        ))),
        false => Ok(()),
    }
}

/// Whether results of this plan can go there.
///
/// # Errors
/// If it is a name of something else.
pub fn check_output(plan: &Plan, output: &Path) -> Result<()> {
    let shown = output.display();
    match (plan.form == Form::ChipShard, is_store_name(output)) {
        (true, false) => Err(usage(format!("{shown}: the plan is for a Zarr store, whose name ends in .zarr"))),
        (false, true) if plan.form.is_patches() => Err(usage(format!(
            "{shown}: the plan is of patches, of which every scene has a raster of its own: name a folder"
        ))),
        (false, true) => Err(usage(format!(
            "{shown}: the plan is for files in a folder; a plan for a Zarr store is made with --format zarr"
        ))),
        (false, false) if !is_store(output) => Err(usage(format!("{shown}: the output of a plan is a folder"))),
        _ => Ok(()),
    }
}

/// Whether a plan is of the same arrays as the one whose results are there: a store cannot grow.
///
/// # Errors
/// If it is not, or if there is a store without a plan.
pub fn check_join(plan: &Plan, earlier: Option<&Plan>, store: &Store) -> Result<()> {
    let Some(earlier) = earlier else {
        return match store.size_bytes(MergedStore::METADATA)? {
            Some(_) => Err(usage(format!("{}: is a store already, and of no plan; give another OUT", store.shown()))),
            None => Ok(()),
        };
    };
    if let Some(scene) = first_difference(&earlier.units, &plan.units) {
        return Err(usage(format!(
            "{}: was begun for another list of scenes, which first differs at {scene}, and the arrays of a store are made once: \
             give another OUT",
            store.shown()
        )));
    }
    Ok(())
}

/// The first scene that is not in both lists in the same place, or would have other arrays. What could not be used may have
/// any now.
fn first_difference<'a>(earlier: &'a [WorkUnit], units: &'a [WorkUnit]) -> Option<&'a str> {
    let (earlier, units) = (by_scene(earlier), by_scene(units));
    let arrays = |units: &[&WorkUnit]| -> Vec<_> {
        units.iter().map(|unit| (unit.unit.clone(), unit.shard.clone(), unit.size_px)).collect()
    };
    let is_unusable = |units: &[&WorkUnit]| units.iter().all(|unit| unit.error.is_some());
    for (before, now) in earlier.iter().zip(&units) {
        let is_same =
            before.0 == now.0 && (is_unusable(&before.1) || is_unusable(&now.1) || arrays(&before.1) == arrays(&now.1));
        if !is_same {
            return Some(now.0);
        }
    }
    let longer = if earlier.len() > units.len() { &earlier } else { &units };
    longer.get(earlier.len().min(units.len())).map(|(scene, _)| *scene)
}

/// The units of each scene, which lie beside each other.
pub fn by_scene(units: &[WorkUnit]) -> Vec<(&str, Vec<&WorkUnit>)> {
    let mut scenes: Vec<(&str, Vec<&WorkUnit>)> = Vec::new();
    for unit in units {
        match scenes.last_mut() {
            Some((scene, units)) if *scene == unit.scene => units.push(unit),
            _ => scenes.push((&unit.scene, vec![unit])),
        }
    }
    scenes
}

#[cfg(test)]
mod tests {
    use dinov3::sink::ShardPlace;

    use super::*;

    fn unit(scene: &str, column: u32, error: Option<&str>) -> WorkUnit {
        let shard = error.is_none().then(|| ShardPlace { group: scene.to_owned(), row: 0, column });
        let unit = format!("{scene}-{column}");
        WorkUnit { unit, scene: scene.to_owned(), shard, error: error.map(str::to_owned), ..WorkUnit::default() }
    }

    #[test]
    fn a_store_holds_the_scenes_that_it_was_begun_for() {
        let begun = [unit("a", 0, None), unit("a", 1, None), unit("b", 0, None)];
        let difference = |units: &[WorkUnit]| first_difference(&begun, units).map(str::to_owned);
        assert_eq!(difference(&begun), None);
        let newer = begun.clone().map(|unit| WorkUnit { stamp: Some("newer".to_owned()), chips: 7, ..unit });
        assert_eq!(difference(&newer), None);
        assert_eq!(difference(&begun[..2]).as_deref(), Some("b"));
        assert_eq!(difference(&[begun[0].clone(), begun[2].clone()]).as_deref(), Some("a"));
        let [a, b, c] = begun.clone();
        assert_eq!(difference(&[c, a, b]).as_deref(), Some("b"));
        let further: Vec<_> = begun.iter().cloned().chain([unit("c", 0, None)]).collect();
        assert_eq!(difference(&further).as_deref(), Some("c"));
        // Gone for now.
        assert_eq!(difference(&[unit("a", 0, Some("no TIFF")), unit("b", 0, None)]), None);
    }
}
