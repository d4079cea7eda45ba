//! The units of a job, one after the other, with one model: which are there, and which are to be made.

use std::path::Path;

use anyhow::Result;
use dinov3::packed::is_packed;
use dinov3::sink::{WorkUnit, remove_journal};

use crate::arguments::ModelArguments;
use crate::batch::interruption;
use crate::failure::{Outcome, in_words_of_the_command, printable_line, usage};
use crate::scene::form::Form;
use crate::scene::job::LazyMachine;
use crate::scene::make::make;
use crate::scene::marker::{MadeBy, Marker};
use crate::scene::plan::Plan;
use crate::scene::store::Store;
use crate::scene::zarr_units;

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
    pub fn tell(self, form: Form, store: &Store) -> Outcome {
        let Self { made, from_before, incomplete, failed } = self;
        let told = |count: usize, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
        eprintln!(
            "{} units: {made} made{}{}{} -> {}",
            made + from_before + incomplete + failed,
            told(from_before, "from before"),
            told(incomplete, &format!("with failed {}", form.items())),
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
    plan: &Plan,
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
            true => forget(plan.form, unit, store).map(|()| Found::Nothing),
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
            eprintln!("unit {} of {count}: {}, {} {}", index + 1, unit.unit, unit.chips, plan.form.items());
        }
        match make(job, plan, unit, store, machine) {
            Ok(counts) if counts.failed == 0 => tally.made += 1,
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
fn found(plan: &Plan, unit: &WorkUnit, store: &Store) -> Result<Found> {
    let Some(marker) = Marker::read(store, &unit.unit)? else { return Ok(Found::Nothing) };
    if let Err(problem) = marker.check_plan(&plan.options) {
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
        // With the item: its files are exchanged one by one.
        store.remove_documents(&unit.unit)?;
        return Ok(Found::Nothing);
    }
    if marker.counts.failed > 0 {
        return Ok(Found::Nothing);
    }
    // Left by a process that was killed after its last step but one.
    forget_journal(plan.form, unit, store);
    Ok(Found::Whole(marker.made_by))
}

/// Makes a unit one that was never begun; its files are replaced when they are there anew.
fn forget(form: Form, unit: &WorkUnit, store: &Store) -> Result<()> {
    store.remove_documents(&unit.unit)?;
    forget_journal(form, unit, store);
    Ok(())
}

/// Removes what only an unfinished unit needs.
pub fn forget_journal(form: Form, unit: &WorkUnit, store: &Store) {
    if form == Form::ChipShard {
        return zarr_units::forget(store, &unit.unit);
    }
    // Only room on the disk, and maybe someone else's by now.
    let _ = remove_journal(store.workplace(&form.data_of(&unit.unit)));
    form.files_of(&unit.unit).iter().for_each(|name| store.clear_workplace(name));
}
