//! `dinov3 scene plan`: a large job in units.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, anyhow};
use dinov3::sink::{WorkUnit, read_work_list, write_work_list};
use dinov3_scene::{Division, SceneInput, plan_units};
use serde_json::{Value, json};

use crate::arguments::ScenePlanArguments;
use crate::failure::{Outcome, in_words_of_the_command, printable_line, usage};
use crate::scene::embed::scenes_of;
use crate::scene::form::{Form, is_plain_name};
use crate::scene::inputs::place_of_scene;
use crate::scene::item::source_href;
use crate::scene::job::{Job, LazyMachine};
use crate::scene::marker::Marker;
use crate::scene::options::{self, DecidingOptions};
use crate::scene::store::{COLLECTION, PLAN, Store, check_on_disk, is_remote, item_of, marker_of};
use crate::scene::units::forget_journal;
use crate::scene::zarr_plan;

/// Scenes that are opened at once, at most.
const MOST_THREADS: usize = 16;

/// Runs the command.
pub fn run(arguments: &ScenePlanArguments) -> Result<Outcome> {
    let output = &arguments.embed.output;
    if output.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("parquet")) {
        return Err(usage(format!("{}: a plan is a file that ends in .parquet", output.display())));
    }
    check_on_disk(output, "a plan")?;
    match arguments.embed.dense.dense {
        true => options::refuse_given("plan", &["unit_chips"], "with --dense a scene is one unit")?,
        false => options::refuse_given("plan", &options::of_dense(), "it goes with --dense")?,
    }
    let form = Form::of_plan(&arguments.embed)?;
    let job = Job::new(&arguments.embed)?;
    form.check_job(&job)?;
    let options = options::of_this_process("plan", &job, form)?;
    let inputs = scenes_of(&job)?;
    let division = match form {
        Form::ChipTable => Division::Chips(arguments.unit_chips),
        _ => form.division(&job),
    };
    let plan = Plan::new(&job, form, division, &inputs, options)?;
    plan.write(output)?;
    let chips: u64 = plan.units.iter().map(|unit| unit.chips).sum();
    let failed = plan.tell_unusable();
    if plan.has_secrets() {
        let path = output.display();
        eprintln!("note: {path} holds URLs as they were given, with what signs them: keep it from others");
    }
    eprintln!(
        "{} units of {} scenes, {chips} {}, {failed} scenes cannot be used -> {}",
        plan.units.len() - failed,
        inputs.len() - failed,
        form.items(),
        output.display()
    );
    Ok(if failed > 0 { Outcome::SomeFailed } else { Outcome::Done })
}

/// A job: what is made of which units.
pub struct Plan {
    pub units: Vec<WorkUnit>,
    pub options: DecidingOptions,
    pub form: Form,
}

impl Plan {
    /// Opens every scene once.
    pub fn new(
        job: &Job<'_>,
        form: Form,
        division: Division<'_>,
        inputs: &[SceneInput],
        options: DecidingOptions,
    ) -> Result<Self> {
        let threads = usize::from(job.arguments.remote.requests).min(MOST_THREADS);
        let units = plan_units(&job.opener, inputs, &job.options, division, form.demand(), threads);
        let usable = || units.iter().filter(|unit| unit.error.is_none());
        if usable().next().is_none()
            && let Some(first) = units.iter().find_map(|unit| unit.error.as_deref())
        {
            // Most likely an option is missing.
            return Err(match inputs.len() {
                1 => anyhow!("{first}"),
                scenes => anyhow!("none of {scenes} scenes can be used; the first one: {first}"),
            });
        }
        // A store of undated chips has no axis of time.
        let needs_time = |unit: &&WorkUnit| unit.datetime_us.is_none() && form != Form::ChipShard;
        let mut undated = usable().filter(needs_time).map(|unit| unit.scene.as_str());
        if let Some(first) = undated.next() {
            return Err(usage(format!(
                "{first}{}: no time of acquisition is known, and a STAC item needs one: say it with --datetime",
                match undated.count() {
                    0 => String::new(),
                    others => format!(" and {others} more"),
                }
            )));
        }
        let mut names = HashSet::new();
        if let Some(unit) = units.iter().find(|unit| !names.insert(unit.unit.to_lowercase())) {
            return Err(usage(format!("{}: another scene has the same unit, {}: rename it", unit.scene, unit.unit)));
        }
        if usable().all(|unit| unit.chips == 0) {
            eprintln!("note: no scene has a {}", form.items().trim_end_matches('s'));
        }
        Ok(Self { units, options, form })
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let (units, about) = read_work_list(path)?;
        let none = |problem: &str| anyhow!("{}: not a plan of 'dinov3 scene plan': {problem}", path.display());
        let options: DecidingOptions =
            serde_json::from_value(about["job"].clone()).map_err(|_| none("it has no options"))?;
        if let Some(unit) = units.iter().find(|unit| unit.unit.is_empty() || !is_plain_name(&unit.unit)) {
            return Err(none(&format!("'{}' is no name of a unit", unit.unit)));
        }
        let form = Form::of_read(&options, &units).map_err(|problem| none(&problem))?;
        Ok(Self { units, options, form })
    }

    /// Writes it, as it is.
    pub fn write(&self, path: &Path) -> Result<()> {
        let about = json!({
            "schema": 1,
            "program": "dinov3",
            "version": self.options.version,
            "hash": self.options.hash(),
            "job": self.options,
            "units": self.units.len(),
            "chips": self.units.iter().map(|unit| unit.chips).sum::<u64>(),
        });
        Ok(write_work_list(path, &self.units, &about)?)
    }

    /// Says which scenes cannot be used; gives their number.
    pub fn tell_unusable(&self) -> usize {
        let mut count = 0;
        for unit in &self.units {
            if let Some(error) = &unit.error {
                let error = in_words_of_the_command(error);
                eprintln!("{}", printable_line(&format!("failed: {}: {error}", unit.scene)));
                count += 1;
            }
        }
        count
    }

    /// The same without what may be secret in URLs: for whoever reads results.
    fn redacted(&self) -> Self {
        let unit = |unit: &WorkUnit| WorkUnit { input: redacted_input(unit), ..unit.clone() };
        Self { units: self.units.iter().map(unit).collect(), options: self.options.redacted(), form: self.form }
    }

    /// Whether a URL has something that is not for everyone.
    fn has_secrets(&self) -> bool {
        self.options != self.options.redacted() || self.units.iter().any(|unit| unit.input != redacted_input(unit))
    }

    /// Puts a copy where results go, without secrets. Units of an earlier plan that made the same of other scenes stay in it;
    /// those that this plan replaces go, once the weights of what replaces them are open.
    ///
    /// # Errors
    /// If something else is there: other options, scenes that were divided otherwise, or the same scenes by other names. With
    /// `fresh`, what is there goes, but for a Zarr store, whose arrays are made once.
    pub fn join(mut self, store: &Store, machine: &mut LazyMachine<'_, '_>, fresh: bool) -> Result<Self> {
        let own = self.redacted();
        let shown = store.shown();
        let is_zarr = self.form == Form::ChipShard;
        let earlier = match Self::of_store(store) {
            Err(error) if error.is::<Damaged>() && fresh && !is_zarr => {
                eprintln!("note: {error:#}; whatever is there and is not named now is in no list any more");
                machine.open()?;
                own.put(store)?;
                return Ok(self);
            }
            Err(error) if error.is::<Damaged>() && !is_zarr => {
                return Err(usage(format!("{error:#}; --fresh makes the units anew, and their list")));
            }
            found => found?,
        };
        if is_zarr {
            zarr_plan::check_join(&own, earlier.as_ref(), store)?;
        }
        let Some(earlier) = earlier else {
            if !is_zarr {
                self.refuse_strangers(store)?;
            }
            own.put(store)?;
            return Ok(self);
        };
        let difference = self.options.difference(&earlier.options);
        if let Some(difference) = difference.as_ref().filter(|_| !fresh || is_zarr) {
            let advice = if is_zarr { "" } else { ", or make all of it anew with --fresh" };
            return Err(usage(format!(
                "{shown}: holds results of another plan, made with {difference}; give another OUT{advice}"
            )));
        }
        if difference.is_none() && earlier.units == own.units {
            return Ok(self);
        }
        if is_zarr {
            // The same arrays, of scenes that have changed since.
            own.put(store)?;
            return Ok(self);
        }
        let scenes: HashMap<&str, &WorkUnit> = self.units.iter().map(|unit| (unit.scene.as_str(), unit)).collect();
        let names: HashSet<&str> = self.units.iter().map(|unit| unit.unit.as_str()).collect();
        let form = earlier.form;
        let is_replaced = |unit: &WorkUnit| difference.is_some() || scenes.contains_key(unit.scene.as_str());
        let (replaced, others): (Vec<_>, Vec<_>) = earlier.units.into_iter().partition(is_replaced);
        let mut gone = Vec::new();
        // Of another form, its files would not be replaced by those of the same unit.
        let is_left = |unit: &&WorkUnit| form != self.form || !names.contains(unit.unit.as_str());
        for unit in replaced.iter().filter(is_left) {
            let mut is_begun = store.size_bytes(&marker_of(&unit.unit))?.is_some();
            for name in form.files_of(&unit.unit) {
                is_begun = is_begun || store.has_data(&name)?;
            }
            if !is_begun {
                // Of a unit that was interrupted there may be a journal, which nothing would find again.
                if form != self.form {
                    forget_journal(form, unit, store);
                }
                continue;
            }
            let is_same_scene =
                scenes.get(unit.scene.as_str()).is_some_and(|new| new.stamp == unit.stamp && new.error == unit.error);
            if is_same_scene && !fresh {
                return Err(usage(format!(
                    "{shown}: {} is divided into other units there, and its chips would be there twice (--unit-chips); give \
                     another OUT, or make it anew with --fresh",
                    unit.scene
                )));
            }
            gone.push(unit);
        }
        let (mut kept, mut never_made) = (Vec::new(), 0);
        for unit in others {
            // A scene that failed or has gone, and is named no more, would be missing for ever.
            let can_be_made = unit.error.is_none() && !has_gone(&unit);
            match can_be_made || store.size_bytes(&marker_of(&unit.unit))?.is_some() {
                true => kept.push(unit),
                false => never_made += 1,
            }
        }
        if let Some(unit) = kept.iter().find(|unit| names.contains(unit.unit.as_str())) {
            return Err(usage(format!("{}: another scene has the same unit in {shown}, {}", unit.scene, unit.unit)));
        }
        self.refuse_other_names(&kept, store)?;
        if !gone.is_empty() {
            machine.open()?;
            for unit in &gone {
                self.remove_earlier(form, unit, store)?;
            }
            eprintln!("note: {} units of an earlier plan are removed from {shown}", gone.len());
        } else if fresh {
            machine.open()?;
        }
        if never_made > 0 {
            eprintln!(
                "note: {never_made} units of scenes that failed or are not there, and are not named now, are left out of {shown}"
            );
        }
        tell_kept(form, &kept, &shown);
        drop((scenes, names));
        self.units.extend(kept);
        self.redacted().put(store)?;
        Ok(self)
    }

    /// Removes a unit of an earlier plan, unless another process with this plan has made it anew meanwhile: then what the
    /// earlier form had beside that.
    fn remove_earlier(&self, form: Form, unit: &WorkUnit, store: &Store) -> Result<()> {
        let marker = Marker::read(store, &unit.unit)?;
        if form != self.form && marker.is_some_and(|marker| marker.plan == self.options.hash()) {
            let own = self.form.files_of(&unit.unit);
            let earlier = form.files_of(&unit.unit).into_iter().filter(|name| !own.contains(name));
            return earlier.into_iter().try_for_each(|name| store.remove_data(&name));
        }
        forget_journal(form, unit, store);
        store.remove_unit(form, &unit.unit)
    }

    /// Refuses scenes that are there by another spelling of their names: every row would be there twice.
    fn refuse_other_names(&self, kept: &[WorkUnit], store: &Store) -> Result<()> {
        if kept.is_empty() {
            return Ok(());
        }
        let (mut places, mut links) = (HashMap::new(), HashMap::new());
        for unit in &self.units {
            let Ok(input) = serde_json::from_str::<SceneInput>(&unit.input) else { continue };
            let sources: Vec<String> = input.files.iter().map(|file| source_href(store, file)).collect();
            if !sources.is_empty() {
                links.insert(sources, unit);
            }
            if let Some(place) = place_of_scene(&input) {
                places.insert(place, unit);
            }
        }
        for unit in kept {
            let Ok(input) = serde_json::from_str::<SceneInput>(&unit.input) else { continue };
            let same = match place_of_scene(&input) {
                Some(place) => places.get(&place),
                None if !has_gone(unit) => None,
                // It may have been named from another folder; its item says where it is.
                None => sources_of_item(store, &unit.unit)?.and_then(|sources| links.get(&sources)),
            };
            if let Some(new) = same {
                return Err(usage(format!(
                    "{} is in {} as {}, and its rows would be there twice: name it like that, or give another OUT",
                    new.scene,
                    store.shown(),
                    unit.scene
                )));
            }
        }
        Ok(())
    }

    /// Refuses a folder in which something of the same name lies that is of no plan.
    fn refuse_strangers(&self, store: &Store) -> Result<()> {
        let shown = store.shown();
        let not_ours = |name: &str| {
            usage(format!("{shown}/{name} is there, and is not of this program; give another OUT, or move it away"))
        };
        if let Some(text) = store.get(COLLECTION)? {
            let collection: Value = serde_json::from_slice(&text).unwrap_or_default();
            if collection["dinov3:plan"].is_null() {
                return Err(not_ours(COLLECTION));
            }
        }
        // Asking for each object of a store would take its time, and names with hashes are nobody else's.
        if store.folder().is_some() {
            let names = |unit: &WorkUnit| [vec![item_of(&unit.unit)], self.form.files_of(&unit.unit)].concat();
            for name in self.units.iter().flat_map(names) {
                if store.size_bytes(&name)?.is_some() {
                    return Err(not_ours(&name));
                }
            }
        }
        Ok(())
    }

    fn put(&self, store: &Store) -> Result<()> {
        store.put_written(PLAN, |path| self.write(path))
    }

    /// The copy where results go, if there is one.
    pub fn of_store(store: &Store) -> Result<Option<Self>> {
        match store.size_bytes(PLAN)? {
            Some(_) => {
                let found = store.read_with(PLAN, Self::read)?;
                found.map(Some).map_err(|error| error.context(Damaged(format!("{}/{PLAN}", store.shown()))))
            }
            None => Ok(None),
        }
    }
}

/// The list of a folder of results cannot be read.
#[derive(Debug)]
struct Damaged(String);

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cannot be read", self.0)
    }
}

/// Scenes that one line names.
const MOST_TOLD: usize = 3;

/// Whoever renamed or deleted a scene may not expect that its rows are still there.
fn tell_kept(form: Form, kept: &[WorkUnit], shown: &str) {
    if kept.is_empty() {
        return;
    }
    let mut scenes: Vec<&str> = kept.iter().map(|unit| unit.scene.as_str()).collect();
    scenes.dedup();
    let more = if scenes.len() > MOST_TOLD { ", ..." } else { "" };
    scenes.truncate(MOST_TOLD);
    let advice = match kept.iter().find(|unit| has_gone(unit)) {
        Some(gone) => {
            let files = form.files_of(&gone.unit).into_iter().chain([item_of(&gone.unit)]);
            let files: Vec<String> = files.map(|name| format!("{shown}/{name}")).collect();
            format!(
                "; {} is not there any more: to remove what was made of it, delete {} and {shown}/{}",
                gone.scene,
                files.join(", "),
                marker_of(&gone.unit)
            )
        }
        None => String::new(),
    };
    let line = format!(
        "note: {} units of scenes that are not named now stay in {shown}: {}{more}{advice}",
        kept.len(),
        scenes.join(", ")
    );
    eprintln!("{}", printable_line(&line));
}

/// Whether a unit's scene is of files of this machine that are not where they were, seen from this folder.
fn has_gone(unit: &WorkUnit) -> bool {
    let input = serde_json::from_str::<SceneInput>(&unit.input);
    input.is_ok_and(|input| !input.files.iter().any(|file| is_remote(file)) && place_of_scene(&input).is_none())
}

/// What the item of a unit links to as its sources, if there is one.
fn sources_of_item(store: &Store, unit: &str) -> Result<Option<Vec<String>>> {
    let Some(text) = store.get(&item_of(unit))? else { return Ok(None) };
    let item: Value = serde_json::from_slice(&text).unwrap_or_default();
    let links = item["links"].as_array().into_iter().flatten();
    let sources = links.filter(|link| link["rel"] == "emb:source-data");
    Ok(Some(sources.filter_map(|link| Some(link["href"].as_str()?.to_owned())).collect()))
}

/// What opens a unit's scene, without secrets.
pub fn redacted_input(unit: &WorkUnit) -> String {
    let input = serde_json::from_str::<SceneInput>(&unit.input);
    input.ok().and_then(|input| serde_json::to_string(&input.redacted()).ok()).unwrap_or_default()
}
