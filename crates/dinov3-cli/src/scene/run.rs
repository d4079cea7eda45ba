//! `dinov3 scene run`: the units of a plan, or the part of them that is this process's.

use anyhow::Result;
use dinov3::sink::is_store_name;
use dinov3_scene::assign;

use crate::arguments::SceneRunArguments;
use crate::failure::{Outcome, usage};
use crate::scene::dense::refuse_basis_among_units;
use crate::scene::job::{Job, LazyMachine};
use crate::scene::options::DecidingOptions;
use crate::scene::plan::Plan;
use crate::scene::shard;
use crate::scene::store::{Store, check_place, is_store};
use crate::scene::{opener_with, options, units, zarr_plan};

/// Runs the command.
pub fn run(arguments: &SceneRunArguments) -> Result<Outcome> {
    if !is_store(&arguments.output) && !is_store_name(&arguments.output) {
        return Err(usage(format!("{}: the output of a plan is a folder", arguments.output.display())));
    }
    if !is_store_name(&arguments.output) {
        check_place(&arguments.output)?;
    }
    let plan = Plan::read(&arguments.plan)?;
    zarr_plan::check_output(&plan, &arguments.output)?;
    let variable = |name: &str| std::env::var(name).ok();
    let (shard, source) = shard::chosen(arguments.shard, arguments.shards, &variable).map_err(usage)?;
    let embed = options::replayed(&plan.options, "run", &arguments.output)?;
    let job = Job::new(&embed)?;
    plan.form.check_job(&job)?;
    let found = DecidingOptions { contents: job.contents(&plan.options.contents)?, ..plan.options.clone() };
    if let Some(difference) = found.difference(&plan.options) {
        return Err(usage(format!("{}: was made with {difference}; plan anew", arguments.plan.display())));
    }
    let opener = opener_with(arguments.block_cache, &arguments.remote);
    let store = Store::create(&arguments.output, &opener, arguments.scratch.as_deref())?;
    refuse_basis_among_units(&embed, &store)?;
    let assigned = assign(&plan.units, shard.count);
    let own: Vec<_> = (plan.units.iter().zip(&assigned)).filter(|(_, owner)| **owner == shard.index).collect();
    let own: Vec<_> = own.into_iter().map(|(unit, _)| unit.clone()).collect();
    if !source.is_empty() {
        let chips: u64 = own.iter().map(|unit| unit.chips).sum();
        eprintln!(
            "shard {} of {}, from 0 ({source}): {} of {} units, {chips} {}",
            shard.index,
            shard.count,
            own.len(),
            plan.units.len(),
            plan.form.items()
        );
    }
    let mut machine = LazyMachine::of(&job);
    let plan = plan.join(&store, &mut machine, arguments.fresh)?;
    units::run(&mut machine, &plan, &own, &store, arguments.fresh).map(|tally| tally.tell(plan.form, &store))
}
