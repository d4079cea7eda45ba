//! `dinov3 scene plan`: a large job in units.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use dinov3::sink::{WorkUnit, read_work_list, write_work_list};
use dinov3_scene::{Division, SceneInput, plan_units};
use serde_json::json;

use crate::arguments::ScenePlanArguments;
use crate::failure::{Outcome, in_words_of_the_command, printable_line, usage};
use crate::scene::embed::scenes_of;
use crate::scene::job::Job;
use crate::scene::options::{self, DecidingOptions};
use crate::scene::store::{PLAN, Store};
use crate::scene::zarr_plan;

/// Scenes that are opened at once, at most.
const MOST_THREADS: usize = 16;

/// Runs the command.
pub fn run(arguments: &ScenePlanArguments) -> Result<Outcome> {
    let output = &arguments.embed.output;
    if output.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("parquet")) {
        return Err(usage(format!("{}: a plan is a file that ends in .parquet", output.display())));
    }
    let job = Job::new(&arguments.embed)?;
    let options = options::of_this_process("plan")?;
    let inputs = scenes_of(&job)?;
    let division = zarr_plan::division(&job)?.unwrap_or(Division::Chips(arguments.unit_chips));
    let plan = Plan::new(&job, &inputs, division, options)?;
    plan.write(output)?;
    let chips: u64 = plan.units.iter().map(|unit| unit.chips).sum();
    let failed = plan.tell_unusable();
    eprintln!(
        "{} units of {} scenes, {chips} chips, {failed} scenes cannot be used -> {}",
        plan.units.len() - failed,
        inputs.len() - failed,
        output.display()
    );
    Ok(if failed > 0 { Outcome::SomeFailed } else { Outcome::Done })
}

/// A job: what is made of which units.
pub struct Plan {
    pub units: Vec<WorkUnit>,
    pub options: DecidingOptions,
}

impl Plan {
    /// Opens every scene once.
    pub fn new(job: &Job<'_>, inputs: &[SceneInput], division: Division<'_>, options: DecidingOptions) -> Result<Self> {
        let threads = usize::from(job.arguments.remote.requests).min(MOST_THREADS);
        let units = plan_units(&job.opener, inputs, &job.options, division, threads);
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
        let needs_time = |unit: &&WorkUnit| unit.datetime_us.is_none() && !matches!(division, Division::Shards(_));
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
            eprintln!("note: no scene has a chip");
        }
        Ok(Self { units, options })
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let (units, about) = read_work_list(path)?;
        let none = |problem: &str| anyhow!("{}: not a plan of 'dinov3 scene plan': {problem}", path.display());
        let options: DecidingOptions =
            serde_json::from_value(about["job"].clone()).map_err(|_| none("it has no options"))?;
        let is_safe = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if let Some(unit) = units
            .iter()
            .find(|unit| unit.unit.starts_with('.') || unit.unit.is_empty() || !unit.unit.chars().all(is_safe))
        {
            return Err(none(&format!("'{}' is no name of a unit", unit.unit)));
        }
        zarr_plan::check_units(&units, &options).map_err(|problem| none(&problem))?;
        Ok(Self { units, options })
    }

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

    /// Puts a copy where results go. Units of an earlier plan that made the same of other scenes stay in it.
    ///
    /// # Errors
    /// If the earlier plan had other options.
    pub fn join(mut self, store: &Store) -> Result<Self> {
        let earlier = Self::of_store(store)?;
        let is_zarr = zarr_plan::is_zarr(&self.options);
        if is_zarr {
            zarr_plan::check_join(&self, earlier.as_ref(), store)?;
        }
        if let Some(earlier) = earlier {
            if let Some(difference) = self.options.difference(&earlier.options) {
                return Err(usage(format!(
                    "{}: holds results of another plan, made with {difference}; give another OUT",
                    store.shown()
                )));
            }
            if earlier.units == self.units {
                return Ok(self);
            }
            let scenes: HashSet<String> = self.units.iter().map(|unit| unit.scene.clone()).collect();
            // None of a store, which has the same scenes.
            self.units.extend(earlier.units.into_iter().filter(|unit| !scenes.contains(&unit.scene)));
        }
        let path = store.workplace(PLAN);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        self.write(&path)?;
        store.deliver(PLAN)?;
        Ok(self)
    }

    /// The copy where results go, if there is one.
    pub fn of_store(store: &Store) -> Result<Option<Self>> {
        match store.size_bytes(PLAN)? {
            Some(_) => Self::read(&store.fetched(PLAN)?).map(Some),
            None => Ok(None),
        }
    }
}
