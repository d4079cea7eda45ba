//! `dinov3 scene merge`: whether all units are there and whole, and the catalogue of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use dinov3::engine::{Sink, Summary};
use dinov3::sink::{ChipColumns, ChipFile, ChipRow, ChipSink, Journal, JournalKey, WorkUnit};
use dinov3_scene::place_on_curve;
use dinov3_scene::raster::Options;
use dinov3_stac::{CollectionFacts, Link};
use serde_json::{Map, Value, json};

use crate::arguments::SceneMergeArguments;
use crate::failure::{Outcome, printable_line, usage};
use crate::scene::opener_with;
use crate::scene::plan::Plan;
use crate::scene::store::{PLAN, Store, data_of, is_store, item_of};
use crate::scene::units::Marker;

/// The STAC collection.
const COLLECTION: &str = "collection.json";
/// Sources that the collection links to; with more, it links to their folders.
const MOST_SOURCES: usize = 16;

/// Runs the command.
pub fn run(arguments: &SceneMergeArguments) -> Result<Outcome> {
    if !is_store(&arguments.output) {
        return Err(usage(format!("{}: is no folder", arguments.output.display())));
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
}

/// Checks every unit, says what is missing, and writes the collection of those that are there.
pub fn catalogue(plan: &Plan, store: &Store, options: &Catalogue<'_>) -> Result<Outcome> {
    let mut problems = 0;
    let mut tell = |unit: &WorkUnit, problem: &str| {
        problems += 1;
        eprintln!("{}", printable_line(&format!("missing: unit {} of {}: {problem}", unit.unit, unit.scene)));
    };
    let mut there: Vec<(&WorkUnit, Marker)> = Vec::new();
    for unit in &plan.units {
        match checked(plan, unit, store, options.sizes_only)? {
            Ok(marker) => {
                if let Some((first, _)) = there
                    .first()
                    .map(|(unit, marker)| (unit, marker))
                    .filter(|(_, first)| first.weights != marker.weights)
                {
                    tell(unit, &format!("it was made with other weights than unit {}", first.unit));
                    continue;
                }
                if marker.chips.failed > 0 {
                    tell(unit, &format!("{} of its chips failed", marker.chips.failed));
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
    let mut items = Vec::new();
    for (unit, _) in &there {
        let name = item_of(&unit.unit);
        let text = store.get(&name)?.with_context(|| format!("{name} has gone"))?;
        let item: Value = serde_json::from_slice(&text).with_context(|| name.clone())?;
        items.push((name, item));
    }
    let rows: usize = there.iter().map(|(_, marker)| marker.chips.done).sum();
    let place = match items.is_empty() {
        true => "no collection".to_owned(),
        false => {
            let collection = collection(&items, store, options.license);
            store.put(COLLECTION, format!("{collection:#}\n").as_bytes())?;
            format!("{}/{COLLECTION}", store.shown())
        }
    };
    if let Some(output) = options.parquet {
        if there.is_empty() {
            return Err(anyhow!("{}: there are no units to make it of", output.display()));
        }
        let units: Vec<&WorkUnit> = there.iter().map(|(unit, _)| *unit).collect();
        let rows = one_file(&units, store, output)?;
        eprintln!("{rows} rows -> {}", output.display());
    }
    eprintln!("{} of {} units, {rows} chips, {problems} problems -> {place}", there.len(), plan.units.len());
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
fn collection(items: &[(String, Value)], store: &Store, license: &str) -> Value {
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
    let chip = scene["chip_px"].as_u64().unwrap_or_default();
    let stride = scene["stride_px"].as_u64().unwrap_or_default();
    let own = ["model", "weights", "plan"].map(|name| (name.to_owned(), properties[format!("dinov3:{name}")].clone()));
    dinov3_stac::collection(
        &CollectionFacts {
            id: store.name(),
            description: format!(
                "Embeddings of chips of {chip} x {chip} pixels every {stride} pixels of satellite scenes, by {model}"
            ),
            license: license.to_owned(),
            dimensions: properties["dinov3:dimensions"].as_u64().unwrap_or_default(),
            data_type: properties["emb:quantization"]["quantized_dtype"].as_str().unwrap_or("float32").to_owned(),
            chip_layout: json!({
                "layout_type": "regular_grid", "chip_size": [chip, chip], "stride": [stride, stride],
            }),
            links,
            own: Map::from_iter(own),
        },
        items,
    )
}

/// All rows of these units in one file, in the order of the Hilbert curve; each has a link to its unit's item.
fn one_file(units: &[&WorkUnit], store: &Store, output: &Path) -> Result<usize> {
    let open = |unit: &WorkUnit| -> Result<(ChipFile, PathBuf)> {
        let path = store.fetched(&data_of(&unit.unit))?;
        Ok((ChipFile::open(&path)?, path))
    };
    let (first, _) = open(units[0])?;
    let layout = first.layout().clone();
    let columns = ChipColumns { grid_cell: first.has_grid_cell(), stac_item: true, emb: None };
    let mut provenance = first.provenance().clone();
    if let Some(fields) = provenance.as_object_mut() {
        for of_file in ["failures", "counts", "columns"] {
            fields.remove(of_file);
        }
        fields.insert("units".to_owned(), json!(units.len()));
    }
    drop(first);
    let mut journal = Journal::open(output)?;
    // Rows without stamps are good for one run only.
    journal.discard();
    journal.agree(Map::new(), &layout)?;
    let mut sink = ChipSink::geoparquet(journal, layout.clone(), columns, Box::new(move |_: &Summary| provenance))?;
    let mut rows = 0;
    for unit in units {
        let (file, path) = open(unit)?;
        if *file.layout() != layout {
            return Err(anyhow!("{}: has other columns than {}", path.display(), data_of(&units[0].unit)));
        }
        let link = format!("./{}", item_of(&unit.unit));
        file.each(|mut row, vectors| -> Result<()> {
            row.hilbert = place_on_curve(&row.footprint.wkb)?;
            row.stac_item = Some(link.clone());
            rows += 1;
            Ok(sink.row(&row, vectors)?)
        })?;
        store.clear_workplace(&data_of(&unit.unit));
    }
    let mut summary = Summary::default();
    summary.done = rows;
    Sink::<JournalKey<ChipRow>>::finish(&mut sink, &summary)?;
    Ok(rows)
}
