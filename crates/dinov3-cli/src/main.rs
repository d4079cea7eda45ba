//! The `dinov3` command: a table of modes. Parsing is in `arguments`, each mode in a file of its own.

mod accuracy;
mod arguments;
mod bench;
mod embed;
mod failure;
mod features;
mod info;
mod models;
mod progress;
mod setup;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::failure::{Outcome, exit_code};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Embed(arguments) => embed::run(arguments),
        Command::Features(arguments) => features::run(arguments),
        Command::Models(arguments) => models::run(arguments),
        Command::Info(arguments) => info::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Accuracy(arguments) => accuracy::run(arguments),
        Command::Completions { shell } => arguments::print_completions(*shell).map(|()| Outcome::Done),
    };
    exit_code(result)
}
