//! One unit: its data are made in a workplace, brought to their place, described by a STAC item and, last, by a marker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail};
use dinov3::Encoder;
use dinov3::engine::{ImageFeatures, ItemError, Sink, SinkError, Source, Summary};
use dinov3::sink::{ChipSink, EmbeddingLayout, FeatureGrid, Journal, JournalError, JournaledSource, RowName, WorkUnit};
use dinov3_scene::{DenseCut, Scene, SceneInput, SceneSource, check_unchanged, scene_version};
use serde_json::{Value, json};

use crate::batch::Batch;
use crate::scene::dense::{Outputs, PatchesOfScene, RasterOf, about};
use crate::scene::embed::{model_uri, store_options};
use crate::scene::energy::EnergyMeter;
use crate::scene::form::{BesidePatches, Form};
use crate::scene::item::{Made, assets, embeddings_asset, item};
use crate::scene::job::{Job, Machine, Task};
use crate::scene::marker::{Counts, FailedItem, MOST_FAILURES, MadeBy, Marker, SCHEMA, work_hash};
use crate::scene::plan::Plan;
use crate::scene::reports::SceneReports;
use crate::scene::store::{FileFacts, Store, item_of, marker_of};
use crate::scene::units::forget_journal;
use crate::scene::zarr_units;

/// Makes a unit, or what is missing of it.
///
/// # Errors
/// Why it could not be made. What was encoded is kept, and the next run continues from it.
pub fn make(job: &Job<'_>, plan: &Plan, unit: &WorkUnit, store: &Store, machine: &mut Machine) -> Result<Counts> {
    let form = plan.form;
    if form == Form::ChipShard && unit.shard.is_none() {
        bail!("{}; plan anew when it can be used", unit.error.as_deref().unwrap_or("it has no shards"));
    }
    let unusable = || unit.error.clone().unwrap_or_else(|| "its row in the plan is damaged".to_owned());
    let input: SceneInput = serde_json::from_str(&unit.input).map_err(|_| anyhow!("{}", unusable()))?;
    let source = SceneSource::new(vec![input.clone()], job.opener.clone(), job.options.clone());
    let source = source.demanding(form.demand());
    let mut source = match (&unit.shard, &job.task) {
        (Some(shard), Task::Chips(layout)) => source.within_shard(layout.clone(), shard.row, shard.column),
        _ => source.within_rows(unit.rows_px),
    };
    let reports = SceneReports::of(&mut source);
    let scene = source.scene(0)?;
    check_unchanged(&scene, unit).map_err(|problem| anyhow!("{problem}; plan anew"))?;
    if scene.datetime_us().is_none() && form != Form::ChipShard {
        bail!("no time of acquisition is known, and a STAC item needs one: plan with --datetime");
    }
    // A scene whose pixels contradict what was declared has no chip that could be made.
    if let Some(error) = source.survey().and_then(|survey| survey.unusable.into_iter().next()) {
        return Err(error.into());
    }

    let work = Work { job, form, unit, store, input: &input, scene: &scene };
    let encoded = match &job.task {
        Task::Chips(layout) => work.chips(source, &reports, layout, machine)?,
        Task::Patches(cut) => work.patches(&reports, *cut, machine)?,
    };

    // From here on all rows are in the journal, and the next run has nothing to encode, whatever happens.
    let counts = encoded.report.counts;
    let files = match (&unit.shard, &job.task) {
        (Some(shard), Task::Chips(layout)) => zarr_units::deliver(store, unit, shard, layout)?,
        _ => work.deliver(plan, &encoded, machine)?,
    };
    let marker = Marker {
        schema: SCHEMA,
        unit: unit.unit.clone(),
        plan: plan.options.hash(),
        options: plan.options.redacted(),
        work: work_hash(unit),
        stamp: unit.stamp.clone().or_else(|| Some(scene_version(&scene))),
        counts,
        failures: encoded.report.failures,
        files,
        made_by: MadeBy::of(&encoded.provenance),
        instruction_set: encoded.provenance["instruction_set"].clone(),
    };
    store.put(&marker_of(&unit.unit), format!("{:#}\n", json!(marker)).as_bytes())?;
    if counts.failed == 0 {
        forget_journal(form, unit, store);
    } else if form != Form::ChipShard {
        // The journal stays, so that the next run makes just what failed.
        form.files_of(&unit.unit).iter().for_each(|name| store.clear_workplace(name));
    }
    Ok(counts)
}

/// A unit whose scene was opened.
struct Work<'a> {
    job: &'a Job<'a>,
    form: Form,
    unit: &'a WorkUnit,
    store: &'a Store,
    input: &'a SceneInput,
    scene: &'a Arc<Scene>,
}

/// What was made of a unit in its workplace.
struct Encoded {
    report: Report,
    /// As it stands in the data.
    provenance: Value,
    energy: Option<Value>,
    /// The grid of the cells, where the data are a raster.
    cells: Option<FeatureGrid>,
    beside: Option<BesidePatches<bool>>,
}

impl Work<'_> {
    fn chips(
        &self,
        mut source: SceneSource,
        reports: &Arc<SceneReports>,
        layout: &EmbeddingLayout,
        machine: &mut Machine,
    ) -> Result<Encoded> {
        let Self { job, form, unit, store, input, scene } = self;
        if *form == Form::ChipShard {
            zarr_units::prepare(store, &unit.unit)?;
        }
        let journal = self.journal(machine, layout)?;
        let provenance = machine.provenance.value();
        let (said, listed) = (provenance.clone(), Arc::clone(reports));
        let finished: Arc<OnceLock<Value>> = Arc::default();
        let told = Arc::clone(&finished);
        let finish = Box::new(move |_: &Summary| told.get_or_init(|| listed.added_to(said)).clone());
        let known = journal.known_rows();
        let store_of = |group: &str, only_shard| {
            let groups = BTreeMap::from([(input.name.clone(), group.to_owned())]);
            let mut options = store_options(&machine.opened, job.options.cut, groups);
            options.only_shard = only_shard;
            options
        };
        let run = Run::begin(self, known);
        let sink = match (form, &unit.shard) {
            (Form::ChipStore, _) => ChipSink::zarr(journal, layout.clone(), store_of("", None), finish)?,
            (_, Some(shard)) => {
                let options = store_of(&shard.group, Some((shard.row, shard.column)));
                ChipSink::zarr(journal, layout.clone(), options, finish)?
            }
            _ => {
                let mut columns = job.columns(std::slice::from_ref(*input));
                columns.emb = Some(embeddings_asset(*form, unit));
                ChipSink::geoparquet(journal, layout.clone(), columns, finish)?
            }
        };
        source.continue_from(sink.journal().known());
        let safe_rows = sink.safe_rows();
        let sink = sink.keeping_the_journal();
        let journaled = JournaledSource::new(&source, Some(sink.journal()));
        let (report, energy) =
            run.run(&journaled, machine.encoder.as_mut(), sink, safe_rows, reports, ChipSink::keep)?;
        let provenance = finished.get().cloned().unwrap_or(provenance);
        let cells = if *form == Form::ChipTable { None } else { scene.cells().cloned() };
        Ok(Encoded { report, provenance, energy, cells, beside: None })
    }

    fn patches(&self, reports: &Arc<SceneReports>, cut: DenseCut, machine: &mut Machine) -> Result<Encoded> {
        let Self { job, form, unit, store, scene, .. } = self;
        let windows = PatchesOfScene::new(job, Arc::clone(scene), cut);
        let journal = self.journal(machine, &windows.common.layout())?;
        let Some(beside) = form.beside_data_of(&unit.unit) else { bail!("patches are no chips") };
        let beside = beside.map(|name| store.workplace(&name));
        let outputs = Outputs::of_unit(store.workplace(&form.data_of(&unit.unit)), beside, &job.arguments.dense);
        let provenance = reports.added_to(about(machine.provenance.value(), scene));
        let finished: OnceLock<Value> = OnceLock::new();
        let run = Run::begin(self, journal.known_rows());
        let Machine { opened, bases, encoder, .. } = machine;
        let raster_of = RasterOf { job, outputs: &outputs, model: model_uri(opened), bases: bases.as_ref() };
        let sink = windows.sink(journal, &raster_of, provenance.clone(), |told| _ = finished.set(told))?;
        let safe_rows = sink.safe_rows();
        let sink = sink.keeping_the_journal();
        let journaled = JournaledSource::new(&windows.source, Some(sink.journal()));
        let (report, energy) = run.run(&journaled, encoder.as_mut(), sink, safe_rows, reports, |sink| sink.keep())?;
        let provenance = finished.into_inner().unwrap_or(provenance);
        let (cells, beside) = (Some(windows.source.grid()), Some(outputs.beside()));
        Ok(Encoded { report, provenance, energy, cells, beside })
    }

    /// What an interrupted run has left of it.
    fn journal(&self, machine: &Machine, layout: &EmbeddingLayout) -> Result<Journal> {
        let path = self.store.workplace(&self.form.data_of(&self.unit.unit));
        let mut journal = Journal::open(&path)?;
        if journal.check().is_err() {
            let (path, items) = (path.display(), self.form.items());
            eprintln!("note: {path}: the journal was damaged; its {items} are encoded anew");
            journal.discard();
        }
        let mut agreed = journal.agree(machine.fingerprint.clone(), layout);
        if let Err(JournalError::Differs { field, .. }) = &agreed
            && self.form.is_patches()
            && field == "columns"
        {
            // The size of a small scene is that of its windows.
            eprintln!("note: {} had another size when unit {} was begun", self.unit.scene, self.unit.unit);
            journal.discard();
            agreed = journal.agree(machine.fingerprint.clone(), layout);
        }
        agreed.map_err(|error| match error {
            JournalError::Differs { .. } => anyhow!("{error}; repeat its command, or start anew with --fresh"),
            other => other.into(),
        })?;
        if journal.rows() > 0 {
            eprintln!("continuing: {} rows are there", journal.rows());
        }
        Ok(journal)
    }

    /// Brings the data to their place, what lies beside them first, and describes them.
    fn deliver(&self, plan: &Plan, encoded: &Encoded, machine: &Machine) -> Result<BTreeMap<String, FileFacts>> {
        let Self { job, form, unit, store, input, scene } = self;
        let mut names = vec![form.data_of(&unit.unit)];
        if let (Some(beside), Some(is_there)) = (form.beside_data_of(&unit.unit), encoded.beside) {
            for (name, is_there) in [(beside.picture, is_there.picture), (beside.basis, is_there.basis)] {
                match is_there {
                    true => names.push(name),
                    // Of an earlier version with other options.
                    false => store.remove_data(&name)?,
                }
            }
        }
        let mut files = BTreeMap::new();
        for name in names.iter().rev() {
            files.extend(store.deliver(name)?);
        }
        let Encoded { provenance, report, energy, cells, .. } = encoded;
        let made = Made {
            store,
            unit,
            input,
            scene,
            spec: &job.spec,
            form: *form,
            model_uri: model_uri(&machine.opened),
            element: job.element(),
            provenance,
            plan: plan.options.hash(),
            counts: report.counts,
            assets: assets(*form, unit, &files, cells.as_ref()),
            energy: energy.clone(),
            processed_us: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as i64),
        };
        let document = format!("{:#}\n", item(&made)?).into_bytes();
        store.put(&item_of(&unit.unit), &document)?;
        files.insert(item_of(&unit.unit), FileFacts::of_content(&document));
        Ok(files)
    }

    /// Where the data will be, for messages.
    fn shown(&self) -> PathBuf {
        PathBuf::from(match self.form {
            Form::ChipShard => self.store.shown(),
            _ => format!("{}/{}", self.store.shown(), self.form.data_of(&self.unit.unit)),
        })
    }
}

/// The run over a unit's chips or windows.
struct Run<'a> {
    job: &'a Job<'a>,
    form: Form,
    shown: PathBuf,
    known: usize,
}

impl<'a> Run<'a> {
    /// To be called before there are outputs, so that an interruption always removes them.
    fn begin(work: &Work<'a>, known: usize) -> Self {
        crate::batch::catch_interruptions();
        Self { job: work.job, form: work.form, shown: work.shown(), known }
    }

    /// Encodes what is missing, and says what became of it and what it took.
    fn run<S: Source<Key: RowName>, T: Sink<S::Key>>(
        self,
        source: &S,
        encoder: &mut dyn Encoder,
        sink: T,
        safe_rows: Arc<AtomicUsize>,
        reports: &Arc<SceneReports>,
        keep: impl FnOnce(T) -> Result<usize, JournalError>,
    ) -> Result<(Report, Option<Value>)> {
        let Self { job, form, shown, known } = self;
        let items = form.items();
        let batch = Batch::begin(&job.arguments.batch, Path::new(&shown)).of(items).knowing(known);
        let batch = batch.telling_safe_rows(Some(safe_rows));
        reports.through(&batch.reporter);
        let report: Arc<Mutex<Report>> = Arc::default();
        let told = Told { sink, report: Arc::clone(&report) };
        let meter = EnergyMeter::start();
        batch.run(source, encoder, told, &job.request, |told| match keep(told.sink) {
            Ok(0) => "nothing was written of this unit; the same command continues".to_owned(),
            Ok(rows) => format!("{rows} finished {} of this unit are kept, the same command continues", rows_of(form)),
            Err(error) => format!("{error}; the same command continues with what was kept"),
        })?;
        let energy = meter.stop();
        let report = std::mem::take(&mut *report.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((report, energy))
    }
}

fn rows_of(form: Form) -> &'static str {
    if form.is_patches() { "windows" } else { "rows" }
}

/// What a unit's run did.
#[derive(Debug, Default)]
struct Report {
    counts: Counts,
    failures: Vec<FailedItem>,
}

/// Takes down what a marker says.
struct Told<T> {
    sink: T,
    report: Arc<Mutex<Report>>,
}

impl<K: RowName, T: Sink<K>> Sink<K> for Told<T> {
    fn write(&mut self, key: &K, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        self.sink.write(key, features)
    }

    fn known(&mut self, key: &K) -> Result<(), SinkError> {
        self.sink.known(key)
    }

    fn failed(&mut self, key: &K, error: &ItemError) -> Result<(), SinkError> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if report.failures.len() < MOST_FAILURES {
            report.failures.push(FailedItem { item: key.row_name().into_owned(), error: error.to_string() });
        }
        drop(report);
        self.sink.failed(key, error)
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        let counts = Counts { done: summary.done, skipped: summary.skipped, failed: summary.failed.len() };
        self.report.lock().unwrap_or_else(PoisonError::into_inner).counts = counts;
        self.sink.finish(summary)
    }
}
