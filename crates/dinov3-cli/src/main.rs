//! The `dinov3` command: a table of modes. Parsing is in `arguments`, each mode in a file of its own.

mod accuracy;
mod arguments;
mod batch;
mod bench;
mod classify;
mod embed;
mod failure;
mod features;
mod fetch;
mod info;
mod models;
mod pack;
mod progress;
#[cfg(test)]
mod reference;
mod resume;
mod scene;
mod selftest;
mod setup;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::failure::{Outcome, exit_code};

fn main() -> ExitCode {
    dinov3::system::fail_beyond_file_size_limit();
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Embed(arguments) => embed::run(arguments),
        Command::Scene(command) => scene::run(command),
        Command::Features(arguments) => features::run(arguments),
        Command::Fetch(arguments) => fetch::run(arguments),
        Command::Classify(arguments) => classify::run(arguments),
        Command::Models(arguments) => models::run(arguments),
        Command::Info(arguments) => info::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Selftest(arguments) => selftest::run(arguments),
        Command::Pack(arguments) => pack::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Accuracy(arguments) => accuracy::run(arguments),
        Command::Completions { shell } => arguments::print_completions(*shell).map(|()| Outcome::Done),
        Command::Man { output } => arguments::write_man_pages(output).map(|()| Outcome::Done),
    };
    exit_code(result)
}
