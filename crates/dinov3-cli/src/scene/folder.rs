//! `dinov3 scene embed -o OUT/`: plan, run and merge in one process.

use anyhow::Result;

use crate::failure::Outcome;
use crate::scene::dense::refuse_basis_among_units;
use crate::scene::embed::scenes_of;
use crate::scene::form::Form;
use crate::scene::job::{Job, LazyMachine};
use crate::scene::merge::{Catalogue, catalogue};
use crate::scene::plan::Plan;
use crate::scene::store::Store;
use crate::scene::{options, units};

/// Runs the command with an output that is a folder or in an object store.
pub fn run(job: &Job<'_>) -> Result<Outcome> {
    let arguments = job.arguments;
    let form = Form::of_output(arguments, &arguments.output)?;
    form.check_job(job)?;
    let inputs = scenes_of(job)?;
    let options = options::of_this_process("embed", job, form)?;
    let plan = Plan::new(job, form, form.division(job), &inputs, options)?;
    let store = Store::create(&arguments.output, &job.opener, arguments.scratch.as_deref())?;
    refuse_basis_among_units(arguments, &store)?;
    let own = plan.units.clone();
    let mut machine = LazyMachine::of(job);
    let plan = plan.join(&store, &mut machine, arguments.journal.fresh)?;
    let tally = units::run(&mut machine, &plan, &own, &store, arguments.journal.fresh)?;
    let made = tally.tell(form, &store);
    let options = Catalogue { license: "various", sizes_only: true, parquet: None, partial: false };
    let merged = catalogue(&plan, &store, &options)?;
    Ok(if made == Outcome::Done { merged } else { made })
}
