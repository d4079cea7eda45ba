//! `dinov3 scene merge`: whether all units are there and whole, and the catalogue of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use dinov3::engine::{Sink, Summary};
use dinov3::sink::{
    ChipColumns, ChipFile, ChipRow, ChipSink, Journal, JournalKey, WorkUnit, is_store_name, remove_journal,
};
use dinov3_scene::place_on_curve;
use dinov3_scene::raster::Options;
use dinov3_stac::{CollectionFacts, Link, uri_of};
use serde_json::{Map, Value, json};

use crate::arguments::SceneMergeArguments;
use crate::failure::{Outcome, printable_line, usage};
use crate::scene::form::Form;
use crate::scene::item::way;
use crate::scene::marker::{Counts, Marker};
use crate::scene::merged::MergedProvenance;
use crate::scene::plan::Plan;
use crate::scene::store::{COLLECTION, PLAN, Store, check_on_disk, check_place, is_store, item_of};
use crate::scene::{opener_with, zarr_merge};
use crate::setup::{extension, place_of};

/// Sources that the collection links to; with more, it links to their folders.
const MOST_SOURCES: usize = 16;

/// Runs the command.
pub fn run(arguments: &SceneMergeArguments) -> Result<Outcome> {
    if !is_store(&arguments.output) {
        return Err(usage(format!("{}: is no folder", arguments.output.display())));
    }
    if !is_store_name(&arguments.output) {
        check_place(&arguments.output)?;
    }
    if let Some(output) = &arguments.parquet {
        check_merged(output, &arguments.output)?;
    }
    let opener = opener_with(Options::default().block_cache_bytes, &arguments.remote);
    let store = Store::open(&arguments.output, &opener, arguments.scratch.as_deref())?;
    let plan = match &arguments.plan {
        Some(path) => Plan::read(path)?,
        None => Plan::of_store(&store)?
            .ok_or_else(|| usage(format!("{}/{PLAN} does not exist: name the plan with --plan", store.shown())))?,
    };
    let options = Catalogue {
        license: &arguments.license,
        sizes_only: arguments.sizes_only,
        parquet: arguments.parquet.as_deref(),
        partial: arguments.partial,
    };
    catalogue(&plan, &store, &options)
}

/// How the catalogue is made.
pub struct Catalogue<'a> {
    pub license: &'a str,
    /// Files were written just now: their checksums are not computed once more.
    pub sizes_only: bool,
    /// Also one file of all rows.
    pub parquet: Option<&'a Path>,
    /// That file also where something is missing.
    pub partial: bool,
}

/// Refuses a place for all rows where they would be in the way: in the folder of the units, over which people glob, or over
/// something that was not merged.
fn check_merged(output: &Path, units: &Path) -> Result<()> {
    check_on_disk(output, "a merged file")?;
    let shown = output.display();
    if extension(output) != "parquet" {
        return Err(usage(format!("--parquet {shown}: is no name of a GeoParquet file, which ends in .parquet")));
    }
    let folder = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if place_of(output).parent().is_some_and(|parent| parent == folder(units)) {
        return Err(usage(format!(
            "--parquet {shown}: lies among the units, and whoever reads {} would find every row twice; give another folder",
            units.join("*.parquet").display()
        )));
    }
    let is_merged = || ChipFile::open(output).is_ok_and(|file| file.provenance()["units"].is_u64());
    if output.exists() && !is_merged() {
        return Err(usage(format!(
            "--parquet {shown}: is there, and is no merged file; move it away or give another name"
        )));
    }
    Ok(())
}

/// Checks every unit, says what is missing, and writes the collection of those that are there.
pub fn catalogue(plan: &Plan, store: &Store, options: &Catalogue<'_>) -> Result<Outcome> {
    let form = plan.form;
    let items = form.items();
    if options.parquet.is_some() && form != Form::ChipTable {
        let shown = store.shown();
        return Err(usage(format!(
            "--parquet: {shown} holds cells of rasters, without rows: only chips as parquet have them"
        )));
    }
    let mut problems = 0;
    let mut tell = |unit: &WorkUnit, problem: &str| {
        problems += 1;
        eprintln!("{}", printable_line(&format!("missing: unit {} of {}: {problem}", unit.unit, unit.scene)));
    };
    let mut there: Vec<(&WorkUnit, Marker)> = Vec::new();
    for unit in &plan.units {
        match checked(plan, unit, store, options.sizes_only)? {
            Ok(marker) => {
                if let Some(first) = there
                    .first()
                    .map(|(unit, marker)| (unit, marker))
                    .and_then(|(unit, first)| Some((unit, first.made_by.difference(&marker.made_by)?)))
                {
                    let (first, difference) = first;
                    tell(unit, &format!("unlike unit {}, it was made with {difference}", first.unit));
                    continue;
                }
                if marker.counts.failed > 0 {
                    tell(unit, &format!("{} of its {items} failed", marker.counts.failed));
                }
                there.push((unit, marker));
            }
            Err(problem) => tell(unit, &problem),
        }
    }
    let mut sets: Vec<&str> = there.iter().filter_map(|(_, marker)| marker.instruction_set.as_str()).collect();
    sets.sort_unstable();
    sets.dedup();
    if sets.len() > 1 {
        let sets = sets.join(", ");
        eprintln!(
            "note: units were made with different instruction sets ({sets}): bits of equal chips differ between them"
        );
    }
    if form == Form::ChipShard {
        return zarr_merge::finish(plan, store, &there, problems);
    }
    let mut documents = Vec::new();
    for (unit, _) in &there {
        let name = item_of(&unit.unit);
        let text = store.get(&name)?.with_context(|| format!("{name} has gone"))?;
        let item: Value = serde_json::from_slice(&text).with_context(|| name.clone())?;
        documents.push((name, item));
    }
    let done: usize = there.iter().map(|(_, marker)| marker.counts.done).sum();
    // First: where it fails, nothing has changed.
    match options.parquet {
        Some(output) if problems > 0 && !options.partial => {
            eprintln!(
                "note: {} is not written: something is missing; --partial writes what is there",
                output.display()
            );
        }
        Some(output) if there.is_empty() => {
            return Err(anyhow!("{}: there are no units to make it of", output.display()));
        }
        Some(output) => {
            let missing = plan.units.len() - there.len();
            one_file(&there, missing, store, output)?;
            eprintln!("{done} rows -> {}", output.display());
        }
        None => {}
    }
    let place = match documents.is_empty() {
        true => "no collection".to_owned(),
        false => {
            let collection = collection(&documents, form, store, options.license);
            store.put(COLLECTION, format!("{collection:#}\n").as_bytes())?;
            format!("{}/{COLLECTION}", store.shown())
        }
    };
    eprintln!("{} of {} units, {done} {items}, {problems} problems -> {place}", there.len(), plan.units.len());
    Ok(if problems > 0 { Outcome::SomeFailed } else { Outcome::Done })
}

/// The marker of a unit that is whole; else what is wrong with it.
fn checked(plan: &Plan, unit: &WorkUnit, store: &Store, sizes_only: bool) -> Result<Result<Marker, String>> {
    let Some(marker) = Marker::read(store, &unit.unit)? else {
        return Ok(Err(match &unit.error {
            Some(error) => format!("it could not be planned: {error}"),
            None => "it was not finished".to_owned(),
        }));
    };
    if let Err(problem) = marker.check_plan(&plan.options) {
        return Ok(Err(format!("it {problem}")));
    }
    if !marker.is_of(unit) {
        return Ok(Err("its scene has changed since it was made".to_owned()));
    }
    // Of a scene that could not be opened nothing was planned.
    let Counts { done, skipped, failed } = marker.counts;
    let found = (done + skipped + failed) as u64;
    if unit.error.is_none() && found != unit.chips {
        let items = plan.form.items();
        return Ok(Err(format!("it has {found} {items}, and {} were planned", unit.chips)));
    }
    for (name, facts) in &marker.files {
        match store.size_bytes(name)? {
            None => return Ok(Err(format!("{name} has gone"))),
            Some(found) if found != facts.size_bytes => {
                return Ok(Err(format!("{name} has {found} bytes, and had {}", facts.size_bytes)));
            }
            Some(_) if !sizes_only && store.sha256(name)? != facts.sha256 => {
                return Ok(Err(format!("{name} is damaged: its checksum is another")));
            }
            Some(_) => {}
        }
    }
    Ok(Ok(marker))
}

/// The collection of these items, one at least.
fn collection(items: &[(String, Value)], form: Form, store: &Store, license: &str) -> Value {
    let first = &items[0].1;
    let properties = &first["properties"];
    let scene = &properties["dinov3:scene"];
    let model = properties["dinov3:model"].as_str().unwrap_or_default();
    let links_of = |item: &Value, rel: &str| -> Vec<String> {
        let links = item["links"].as_array().into_iter().flatten();
        links.filter(|link| link["rel"] == rel).filter_map(|link| Some(link["href"].as_str()?.to_owned())).collect()
    };
    let mut sources: Vec<String> = items.iter().flat_map(|(_, item)| links_of(item, "emb:source-data")).collect();
    sources.sort();
    sources.dedup();
    if sources.len() > MOST_SOURCES {
        let folder =
            |source: &String| source.rsplit_once('/').map_or("./".to_owned(), |(folder, _)| format!("{folder}/"));
        sources = sources.iter().map(folder).collect();
        sources.dedup();
    }
    let mut links: Vec<Link> =
        links_of(first, "emb:model").into_iter().map(|href| Link::new("emb:model", href).titled(model)).collect();
    links.extend(sources.into_iter().map(|href| Link::new("emb:source-data", href)));
    let license_name = dinov3::spec::license(properties["dinov3:weights_license"].as_str().unwrap_or_default()).0;
    let licenses = links_of(first, "license").into_iter();
    links.extend(licenses.map(|href| Link::new("license", href).titled(format!("{license_name}, of the weights"))));
    let own = ["model", "weights", "plan"].map(|name| (name.to_owned(), properties[format!("dinov3:{name}")].clone()));
    dinov3_stac::collection(
        &CollectionFacts {
            id: store.name(),
            description: match form.is_patches() {
                true => {
                    format!("Embeddings of patches of satellite scenes, {}, by {model}", cells_in_words(properties))
                }
                false => format!("Embeddings of chips of satellite scenes, {}, by {model}", cut_in_words(scene)),
            },
            license: license.to_owned(),
            dimensions: properties["dinov3:dimensions"].as_u64().unwrap_or_default(),
            data_type: properties["dinov3:data_type"].as_str().unwrap_or("float32").to_owned(),
            chip_layout: (!form.is_patches()).then(|| chip_layout(scene)),
            links,
            own: Map::from_iter(own),
        },
        items,
    )
}

/// How chips lie, as the extension says it: side by side at equal distances, on the cells of a grid that has a name, or
/// otherwise: chips at the edges that were moved inwards.
fn chip_layout(scene: &Value) -> Value {
    let (chip, stride) = (&scene["chip_px"], &scene["stride_px"]);
    let layout = |name: &str| json!({"layout_type": name, "chip_size": [chip, chip]});
    match (scene["grid"].as_str(), scene["edges"].as_str()) {
        (Some(grid), _) => {
            let mut layout = layout("named_grid");
            layout["grid_id"] = json!(grid);
            layout
        }
        (None, Some("shift")) => layout("variable_grid"),
        _ => {
            let mut layout = layout("regular_grid");
            layout["stride"] = json!([stride, stride]);
            layout
        }
    }
}

fn cells_in_words(properties: &Value) -> String {
    let dimensions = &properties["dinov3:dimensions"];
    let step = &properties["emb:runtime_parameters"]["dense"]["step_px"];
    let along = if properties["emb:postprocessing"].is_object() { "principal components" } else { "dimensions" };
    format!("a cell of {step} x {step} pixels with {dimensions} {along} each")
}

fn cut_in_words(scene: &Value) -> String {
    let (chip, stride) = (&scene["chip_px"], &scene["stride_px"]);
    match (scene["grid"].as_str(), scene["edges"].as_str()) {
        (Some(grid), _) => format!("{chip} x {chip} pixels on the cells of the grid {grid}"),
        (None, Some("shift")) => {
            format!("{chip} x {chip} pixels every {stride} pixels, those at the edges moved inwards")
        }
        _ => format!("{chip} x {chip} pixels every {stride} pixels"),
    }
}

/// All rows of these units in one file, in the order of the Hilbert curve; each has a link to its unit's item.
fn one_file(units: &[(&WorkUnit, Marker)], missing: usize, store: &Store, output: &Path) -> Result<()> {
    let open = |unit: &WorkUnit| -> Result<(ChipFile, PathBuf)> {
        let path = store.fetched(&Form::ChipTable.data_of(&unit.unit))?;
        Ok((ChipFile::open(&path)?, path))
    };
    let first = units[0].0;
    let (layout, has_grid_cell) = {
        let (file, _) = open(first)?;
        (file.layout().clone(), file.has_grid_cell())
    };
    let columns = ChipColumns { grid_cell: has_grid_cell, stac_item: true, emb: None };
    let mut journal = Journal::open(output)?;
    if journal.known_rows() > 0 {
        let shown = output.display();
        return Err(usage(format!(
            "{shown}: an interrupted run of another command has finished rows of it; give another name"
        )));
    }
    // Rows without stamps are good for one run only.
    journal.discard();
    journal.agree(Map::new(), &layout)?;
    let provenance = Arc::new(Mutex::new(MergedProvenance::default()));
    let told = Arc::clone(&provenance);
    let finish = move |_: &Summary| told.lock().unwrap_or_else(PoisonError::into_inner).finish(missing);
    let mut sink = ChipSink::geoparquet(journal, layout.clone(), columns, Box::new(finish))?;
    let mut merge = || -> Result<()> {
        let mut summary = Summary::default();
        for (unit, marker) in units {
            let (file, path) = open(unit)?;
            if *file.layout() != layout {
                return Err(anyhow!(
                    "{}: has other columns than {}",
                    path.display(),
                    Form::ChipTable.data_of(&first.unit)
                ));
            }
            provenance.lock().unwrap_or_else(PoisonError::into_inner).add(file.provenance());
            let link = item_link(store, &unit.unit, output);
            let mut rows = 0;
            file.each(|mut row, vectors| -> Result<()> {
                row.hilbert = place_on_curve(&row.footprint.wkb)?;
                row.stac_item = Some(link.clone());
                rows += 1;
                Ok(sink.row(&row, vectors)?)
            })?;
            if rows != marker.counts.done {
                return Err(anyhow!("{}: has {rows} rows, and {} were written", path.display(), marker.counts.done));
            }
            summary.done += rows;
            store.clear_workplace(&Form::ChipTable.data_of(&unit.unit));
        }
        Ok(Sink::<JournalKey<ChipRow>>::finish(&mut sink, &summary)?)
    };
    let merged = merge();
    drop(sink);
    // A journal whose rows nobody will ask for.
    let _ = remove_journal(output);
    merged
}

/// The way from a merged file to the item of a unit.
fn item_link(store: &Store, unit: &str, merged: &Path) -> String {
    let name = item_of(unit);
    match store.folder() {
        Some(folder) => {
            let item = folder.join(&name);
            let way = place_of(merged).parent().and_then(|folder| way(folder, &item));
            way.unwrap_or_else(|| uri_of(&item.to_string_lossy()))
        }
        None => format!("{}/{name}", store.shown()),
    }
}
