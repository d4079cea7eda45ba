//! The units of a job, one after the other, with one model: each is data, a STAC item and, last, a marker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use dinov3::checkpoint::hash::sha256;
use dinov3::engine::{ImageFeatures, ItemError, Sink, SinkError, Summary};
use dinov3::packed::is_packed;
use dinov3::sink::{ChipSink, Journal, JournaledSource, RowName, WorkUnit, remove_journal};
use dinov3_scene::{SceneInput, SceneSource, check_unchanged, scene_version};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::arguments::ModelArguments;
use crate::batch::{Batch, interruption};
use crate::failure::{Outcome, in_words_of_the_command, printable_line, usage};
use crate::scene::embed::{model_uri, store_options};
use crate::scene::energy::EnergyMeter;
use crate::scene::item::{Made, asset, item};
use crate::scene::job::{Job, LazyMachine, Machine};
use crate::scene::options::DecidingOptions;
use crate::scene::plan::redacted_input;
use crate::scene::reports::SceneReports;
use crate::scene::store::{Store, data_of, item_of, marker_of, sha256_of};
use crate::scene::{zarr_plan, zarr_units};

/// Failed chips that a marker names; it says how many there are.
const MOST_FAILURES: usize = 100;

/// What is there of a unit: one small object, written last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marker {
    pub schema: u32,
    pub unit: String,
    /// The hash of the options.
    pub plan: String,
    pub options: DecidingOptions,
    /// The hash of the unit's scene and rows.
    pub work: String,
    /// The scene's version, as it was planned, or as it was found.
    pub stamp: Option<String>,
    pub chips: Chips,
    pub failures: Vec<FailedChip>,
    pub files: BTreeMap<String, FileFacts>,
    #[serde(flatten)]
    pub made_by: MadeBy,
    pub instruction_set: Value,
}

/// What decides about a unit's vectors and is known when the weights are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    pub weights: Value,
    pub precision: Value,
}

impl MadeBy {
    fn of(provenance: &Value) -> Self {
        Self { weights: provenance["weights"].clone(), precision: provenance["precision"].clone() }
    }

    /// What differs, for a person. Files of weights are the same by any name, and packed or not.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let content = |weights: &Value| -> Value {
            let files = weights["files"].as_array().filter(|files| !files.is_empty());
            files.map_or_else(|| weights.clone(), |files| files.iter().map(|file| file["sha256"].clone()).collect())
        };
        if content(&self.weights) != content(&other.weights) {
            let told = |weights: &Value| {
                let first = &weights["files"][0];
                let hash = first["sha256"].as_str().and_then(|hash| hash.get(..12)).unwrap_or_default();
                match (first["name"].as_str(), weights["synthetic"].as_str()) {
                    (Some(name), _) => format!("{name} of SHA-256 {hash}..."),
                    (None, Some(synthetic)) => synthetic.to_owned(),
                    (None, None) => "others".to_owned(),
                }
            };
            return Some(format!("other weights, {} and not {}", told(&other.weights), told(&self.weights)));
        }
        (self.precision != other.precision).then(|| format!("precision {} and not {}", other.precision, self.precision))
    }
}

/// What became of a unit's chips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chips {
    pub done: usize,
    /// Without enough data.
    pub skipped: usize,
    pub failed: usize,
}

/// A chip without a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedChip {
    pub chip: String,
    pub error: String,
}

/// What a file is when it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    pub size_bytes: u64,
    pub sha256: String,
}

impl Marker {
    /// The marker of a unit, if there is one that can be read.
    pub fn read(store: &Store, unit: &str) -> Result<Option<Self>> {
        Ok(store.get(&marker_of(unit))?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Whether it says what was planned; a sentence if it is of another plan.
    pub fn check_plan(&self, plan: &DecidingOptions) -> Result<(), String> {
        match plan.difference(&self.options) {
            None if self.plan == plan.hash() => Ok(()),
            None => Err("is of another plan".to_owned()),
            Some(difference) => Err(format!("is of another plan: it was made with {difference}")),
        }
    }

    /// Whether it is of this scene, in this version.
    pub fn is_of(&self, unit: &WorkUnit) -> bool {
        let is_same_version = match (&self.stamp, &unit.stamp) {
            (Some(own), Some(planned)) => own == planned,
            _ => true,
        };
        self.work == work_hash(unit) && is_same_version
    }
}

/// Without secrets: a URL that was signed anew is the same work.
fn work_hash(unit: &WorkUnit) -> String {
    sha256(json!([redacted_input(unit), unit.rows_px]).to_string().as_bytes())
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    made: usize,
    from_before: usize,
    incomplete: usize,
    failed: usize,
}

impl Tally {
    /// The closing line.
    pub fn tell(self, store: &Store) -> Outcome {
        let Self { made, from_before, incomplete, failed } = self;
        let told = |count: usize, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
        eprintln!(
            "{} units: {made} made{}{}{} -> {}",
            made + from_before + incomplete + failed,
            told(from_before, "from before"),
            told(incomplete, "with failed chips"),
            told(failed, "failed"),
            store.shown()
        );
        if incomplete + failed == 0 {
            return Outcome::Done;
        }
        eprintln!("note: the same command makes just what is missing");
        Outcome::SomeFailed
    }
}

/// Makes the units that are not there yet. What fails is told, and the rest goes on.
///
/// # Errors
/// If the weights cannot be read, if a unit of another plan is in the way, or if the run is interrupted.
pub fn run(
    machine: &mut LazyMachine<'_, '_>,
    plan: &DecidingOptions,
    units: &[WorkUnit],
    store: &Store,
    fresh: bool,
) -> Result<Tally> {
    let job = machine.job;
    if fresh && !units.is_empty() {
        // What is there stays as long as nothing can be made.
        machine.open()?;
    }
    let mut tally = Tally::default();
    let (mut waiting, mut finished) = (Vec::new(), Vec::<(&WorkUnit, MadeBy)>::new());
    let failed = |tally: &mut Tally, unit: &WorkUnit, error: &anyhow::Error| {
        let told = in_words_of_the_command(&format!("{error:#}"));
        // The scene's name is in most errors.
        let name = if told.contains(&unit.scene) { String::new() } else { format!("{}: ", unit.scene) };
        eprintln!("{}", printable_line(&format!("failed: unit {}: {name}{told}", unit.unit)));
        tally.failed += 1;
    };
    for unit in units {
        let found = match fresh {
            true => forget(store, unit).map(|()| Found::Nothing),
            false => found(plan, unit, store),
        };
        match found {
            Ok(Found::Whole(made_by)) => {
                tally.from_before += 1;
                if finished.iter().all(|(_, known)| *known != made_by) {
                    finished.push((unit, made_by));
                }
            }
            Ok(Found::Nothing) => waiting.push(unit),
            Ok(Found::OfAnotherPlan(problem)) => return Err(in_the_way(store, unit, &problem)),
            Err(error) => failed(&mut tally, unit, &error),
        }
    }
    // Weights that are a file here may be other ones today.
    let ModelArguments { model, weights, .. } = &job.arguments.model;
    let is_file = weights.as_ref().map_or_else(|| is_packed(Path::new(model)), |weights| Path::new(weights).exists());
    if waiting.is_empty() && (finished.is_empty() || !is_file) {
        return Ok(tally);
    }
    let machine = machine.open()?;
    if !finished.is_empty() {
        let own = MadeBy::of(&machine.provenance.value());
        for (unit, made_by) in &finished {
            if let Some(difference) = own.difference(made_by) {
                return Err(in_the_way(store, unit, &format!("was made with {difference}")));
            }
        }
    }
    let count = waiting.len();
    for (index, unit) in waiting.into_iter().enumerate() {
        if count > 1 {
            eprintln!("unit {} of {count}: {}, {} chips", index + 1, unit.unit, unit.chips);
        }
        match make(job, plan, unit, store, machine) {
            Ok(chips) if chips.failed == 0 => tally.made += 1,
            Ok(_) => tally.incomplete += 1,
            Err(error) if interruption().is_cancelled() => return Err(error),
            Err(error) if job.arguments.batch.strict => {
                return Err(error.context(format!("{}: stopped at the first failure (--strict)", unit.scene)));
            }
            Err(error) => failed(&mut tally, unit, &error),
        }
    }
    Ok(tally)
}

fn in_the_way(store: &Store, unit: &WorkUnit, problem: &str) -> anyhow::Error {
    usage(format!("{}/{} {problem}; give another OUT, or make it anew with --fresh", store.shown(), unit.unit))
}

/// What is there of a unit.
enum Found {
    /// Not all of it, or nothing.
    Nothing,
    Whole(MadeBy),
    /// As a sentence.
    OfAnotherPlan(String),
}

/// What is there of a unit. A marker of a version of the scene that is no more goes.
fn found(plan: &DecidingOptions, unit: &WorkUnit, store: &Store) -> Result<Found> {
    let Some(marker) = Marker::read(store, &unit.unit)? else { return Ok(Found::Nothing) };
    if let Err(problem) = marker.check_plan(plan) {
        return Ok(Found::OfAnotherPlan(problem));
    }
    let mut is_whole = marker.is_of(unit);
    if !is_whole {
        eprintln!("note: {} has changed since unit {} was made: it is made anew", unit.scene, unit.unit);
    } else {
        for (name, facts) in &marker.files {
            let found = store.size_bytes(name)?;
            if found != Some(facts.size_bytes) {
                eprintln!("note: {name} is not as it was written: unit {} is made anew", unit.unit);
                is_whole = false;
            }
        }
    }
    if !is_whole {
        store.remove(&marker_of(&unit.unit))?;
        return Ok(Found::Nothing);
    }
    if marker.chips.failed > 0 {
        return Ok(Found::Nothing);
    }
    // Left by a process that was killed after its last step but one.
    forget_journal(store, unit);
    Ok(Found::Whole(marker.made_by))
}

/// Makes a unit one that was never begun; its files are replaced when they are there anew.
fn forget(store: &Store, unit: &WorkUnit) -> Result<()> {
    store.remove(&marker_of(&unit.unit))?;
    forget_journal(store, unit);
    Ok(())
}

fn forget_journal(store: &Store, unit: &WorkUnit) {
    if unit.shard.is_some() {
        return zarr_units::forget(store, &unit.unit);
    }
    let data = data_of(&unit.unit);
    // Only room on the disk, and maybe someone else's by now.
    let _ = remove_journal(store.workplace(&data));
    store.clear_workplace(&data);
}

fn make(job: &Job<'_>, plan: &DecidingOptions, unit: &WorkUnit, store: &Store, machine: &mut Machine) -> Result<Chips> {
    if zarr_plan::is_zarr(plan) && unit.shard.is_none() {
        bail!("{}; plan anew when it can be used", unit.error.as_deref().unwrap_or("it has no shards"));
    }
    let unusable = || unit.error.clone().unwrap_or_else(|| "its row in the plan is damaged".to_owned());
    let input: SceneInput = serde_json::from_str(&unit.input).map_err(|_| anyhow!("{}", unusable()))?;
    let source = SceneSource::new(vec![input.clone()], job.opener.clone(), job.options.clone());
    let mut source = match &unit.shard {
        Some(shard) => source.within_shard(job.layout.clone(), shard.row, shard.column),
        None => source.within_rows(unit.rows_px),
    };
    let reports = SceneReports::of(&mut source);
    let scene = source.scene(0)?;
    check_unchanged(&scene, unit).map_err(|problem| anyhow!("{problem}; plan anew"))?;
    if scene.datetime_us().is_none() && unit.shard.is_none() {
        bail!("no time of acquisition is known, and a STAC item needs one: plan with --datetime");
    }
    // A scene whose pixels contradict what was declared has no chip that could be made.
    if let Some(error) = source.survey().and_then(|survey| survey.unusable.into_iter().next()) {
        return Err(error.into());
    }

    let data = match &unit.shard {
        Some(_) => {
            zarr_units::prepare(store, &unit.unit)?;
            zarr_units::part_of(&unit.unit)
        }
        None => data_of(&unit.unit),
    };
    let path = store.workplace(&data);
    let mut journal = Journal::open(&path)?;
    if journal.check().is_err() {
        eprintln!("note: {}: the journal was damaged; its chips are encoded anew", path.display());
        journal.discard();
    }
    journal
        .agree(machine.fingerprint.clone(), &job.layout)
        .map_err(|error| anyhow!("{error}; repeat its command, or start anew with --fresh"))?;
    if journal.rows() > 0 {
        eprintln!("continuing: {} rows are there", journal.rows());
    }
    let shown = PathBuf::from(match &unit.shard {
        Some(_) => store.shown(),
        None => format!("{}/{data}", store.shown()),
    });
    let batch = Batch::begin(&job.arguments.batch, &shown).of("chips").knowing(journal.known_rows());
    let asset = asset(unit);
    let mut columns = job.columns(std::slice::from_ref(&input));
    columns.emb = Some(asset.clone());
    let provenance = machine.provenance.value();
    let (said, listed) = (provenance.clone(), Arc::clone(&reports));
    let finished: Arc<OnceLock<Value>> = Arc::default();
    let told = Arc::clone(&finished);
    let finish = Box::new(move |_: &Summary| told.get_or_init(|| listed.added_to(said)).clone());
    let sink = match &unit.shard {
        Some(shard) => {
            let groups = BTreeMap::from([(input.name.clone(), shard.group.clone())]);
            let mut options = store_options(&machine.opened, job.options.cut, groups);
            options.only_shard = Some((shard.row, shard.column));
            ChipSink::zarr(journal, job.layout.clone(), options, finish)?
        }
        None => ChipSink::geoparquet(journal, job.layout.clone(), columns, finish)?,
    };
    source.continue_from(sink.journal().known());
    let batch = batch.telling_safe_rows(Some(sink.safe_rows()));
    reports.through(&batch.reporter);
    let sink = sink.keeping_the_journal();
    let journaled = JournaledSource::new(&source, Some(sink.journal()));
    let report: Arc<Mutex<Report>> = Arc::default();
    let told = Told { sink, report: Arc::clone(&report) };
    let meter = EnergyMeter::start();
    batch.run(&journaled, machine.encoder.as_mut(), told, &job.request, |told| match told.sink.keep() {
        Ok(0) => "nothing was written of this unit; the same command continues".to_owned(),
        Ok(rows) => format!("{rows} finished rows of this unit are kept, the same command continues"),
        Err(error) => format!("{error}; the same command continues with what was kept"),
    })?;
    let energy = meter.stop();
    let Report { chips, failures } = std::mem::take(&mut *report.lock().unwrap_or_else(PoisonError::into_inner));

    let provenance = finished.get().cloned().unwrap_or(provenance);

    // From here on all rows are in the journal, and the next run has nothing to encode, whatever happens.
    let files = match (&unit.shard, scene.datetime_us()) {
        (Some(shard), _) => zarr_units::deliver(store, unit, shard, &job.layout)?,
        (None, datetime_us) => {
            let facts = FileFacts {
                size_bytes: std::fs::metadata(&path).with_context(|| path.display().to_string())?.len(),
                sha256: sha256_of(&path)?,
            };
            store.deliver(&data)?;
            let made = Made {
                store,
                unit,
                input: &input,
                scene: &scene,
                spec: &job.spec,
                model_uri: model_uri(&machine.opened),
                element: job.layout.element(),
                provenance: &provenance,
                plan: plan.hash(),
                chips,
                dimensions: job.spec.embed_dim(),
                asset,
                data: &facts,
                energy,
                datetime_us: datetime_us.unwrap_or_default(),
                processed_us: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as i64),
            };
            let document = format!("{:#}\n", item(&made)?).into_bytes();
            store.put(&item_of(&unit.unit), &document)?;
            let item_facts = FileFacts { size_bytes: document.len() as u64, sha256: sha256(&document) };
            BTreeMap::from([(data, facts), (item_of(&unit.unit), item_facts)])
        }
    };
    let marker = Marker {
        schema: 2,
        unit: unit.unit.clone(),
        plan: plan.hash(),
        options: plan.redacted(),
        work: work_hash(unit),
        stamp: unit.stamp.clone().or_else(|| Some(scene_version(&scene))),
        chips,
        failures,
        files,
        made_by: MadeBy::of(&provenance),
        instruction_set: provenance["instruction_set"].clone(),
    };
    store.put(&marker_of(&unit.unit), format!("{:#}\n", json!(marker)).as_bytes())?;
    if chips.failed == 0 {
        forget_journal(store, unit);
    } else if unit.shard.is_none() {
        // The journal stays, so that the next run makes just the failed chips.
        store.clear_workplace(&data_of(&unit.unit));
    }
    Ok(chips)
}

/// What a unit's run did.
#[derive(Debug, Default)]
struct Report {
    chips: Chips,
    failures: Vec<FailedChip>,
}

/// Takes down what a marker says.
struct Told {
    sink: ChipSink,
    report: Arc<Mutex<Report>>,
}

impl<K: RowName> Sink<K> for Told
where
    ChipSink: Sink<K>,
{
    fn write(&mut self, key: &K, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        self.sink.write(key, features)
    }

    fn known(&mut self, key: &K) -> Result<(), SinkError> {
        self.sink.known(key)
    }

    fn failed(&mut self, key: &K, error: &ItemError) -> Result<(), SinkError> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if report.failures.len() < MOST_FAILURES {
            report.failures.push(FailedChip { chip: key.row_name().into_owned(), error: error.to_string() });
        }
        drop(report);
        self.sink.failed(key, error)
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        let chips = Chips { done: summary.done, skipped: summary.skipped, failed: summary.failed.len() };
        self.report.lock().unwrap_or_else(PoisonError::into_inner).chips = chips;
        Sink::<K>::finish(&mut self.sink, summary)
    }
}
