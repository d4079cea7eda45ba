//! `dinov3 selftest`: whether the kernels compute on this CPU what they should.

use std::io::Write as _;

use anyhow::{Result, bail};
use dinov3::Isa;
use dinov3::selftest::{self, Check, Outcome as Found};
use serde_json::{Value, json};

use crate::arguments::SelftestArguments;
use crate::failure::Outcome;

/// Runs the command.
pub fn run(arguments: &SelftestArguments) -> Result<Outcome> {
    let forced = std::env::var_os("DINOV3_ISA").is_some_and(|forced| !forced.is_empty());
    let only = if forced { Some(Isa::try_from_env()?) } else { None };
    let checks = selftest::run(only);
    let failed = checks.iter().filter(|check| verdict(check) == "failed").count();
    let text = if arguments.json {
        let checks: Vec<Value> = checks.iter().map(json_of).collect();
        serde_json::to_string_pretty(&json!({
            "version": env!("CARGO_PKG_VERSION"), "checks": checks, "failed": failed,
        }))? + "\n"
    } else {
        table(&checks)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if failed > 0 {
        let run = checks.iter().filter(|check| verdict(check) != "skipped").count();
        bail!("{failed} of {run} comparisons failed on this machine; DINOV3_ISA can force another instruction set");
    }
    Ok(Outcome::Done)
}

fn verdict(check: &Check) -> &'static str {
    match &check.outcome {
        Found::Compared(comparison) if comparison.passed() => "ok",
        Found::Compared(_) => "failed",
        _ => "skipped",
    }
}

fn json_of(check: &Check) -> Value {
    let mut json = json!({
        "kernel": check.kernel, "instruction_set": check.instruction_set, "verdict": verdict(check),
    });
    match &check.outcome {
        Found::Compared(comparison) => {
            json["outputs"] = json!(comparison.outputs);
            // Infinite where no error is allowed, which JSON has no number for.
            json["error_in_bounds"] = json!(comparison.worst);
            json["worst"] = json!(comparison.place);
        }
        Found::Skipped(reason) => json["reason"] = json!(reason),
        _ => {}
    }
    json
}

fn table(checks: &[Check]) -> String {
    let mut text = format!("{:<16} {:<15} {:>8} {:>13}\n", "kernel", "instructions", "outputs", "error / bound");
    let mut skipped: Option<&str> = None;
    for check in checks {
        let (kernel, set) = (check.kernel, check.instruction_set);
        match &check.outcome {
            Found::Compared(comparison) => {
                let (outputs, worst) = (comparison.outputs, comparison.worst);
                text += &format!("{kernel:<16} {set:<15} {outputs:>8} {worst:>13.3}  {}\n", verdict(check));
                if !comparison.passed() {
                    text += &format!("    {}\n", comparison.place);
                }
            }
            // One line for all kernels of a set: they are skipped for the same reason.
            Found::Skipped(reason) if skipped != Some(set) => {
                text += &format!("{:<16} {set:<15} {:>8} {:>13}  skipped: {reason}\n", "all", "", "");
                skipped = Some(set);
            }
            _ => {}
        }
    }
    let count = |wanted: &str| checks.iter().filter(|check| verdict(check) == wanted).count();
    text + &format!("{} ok, {} failed, {} skipped\n", count("ok"), count("failed"), count("skipped"))
}
