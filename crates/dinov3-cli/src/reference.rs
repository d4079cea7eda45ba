//! `docs/reference.md`, from clap's own definitions. The test rewrites it:
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli the_reference`.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use crate::arguments::Arguments;

fn reference() -> String {
    let mut root = Arguments::command();
    root.build();
    let mut text = "# Command reference\n\nWritten by `SNAPSHOTS=overwrite cargo test -p dinov3-cli the_reference`; \
                    `dinov3 COMMAND --help` says the same.\n"
        .to_string();
    sections(&mut text, &root, "dinov3");
    text
}

/// Those of the commands in a command.
fn sections(text: &mut String, parent: &Command, name: &str) {
    for command in parent.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let name = format!("{name} {}", command.get_name());
        section(text, command, &name);
        sections(text, command, &name);
    }
}

fn section(text: &mut String, command: &Command, title: &str) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let _ = write!(text, "\n## {title}\n\n{about}.\n\n    {usage}\n");
    let told = |argument: &&Arg| !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str());
    let arguments: Vec<&Arg> = command.get_arguments().filter(told).collect();
    if !arguments.is_empty() {
        text.push_str("\n| Argument | Meaning |\n| --- | --- |\n");
    }
    for argument in arguments {
        let _ = writeln!(text, "| `{}` | {} |", cell(&name(argument)), cell(&meaning(argument)));
    }
    if let Some(after) = command.get_after_help() {
        text.push('\n');
        for line in after.to_string().lines() {
            let _ = writeln!(text, "{}", format!("    {line}").trim_end());
        }
    }
}

/// `-m, --model <MODEL>`
fn name(argument: &Arg) -> String {
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let mut name = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
    if argument.get_action().takes_values() {
        let values = argument.get_value_names().unwrap_or_default();
        let values: Vec<String> = values.iter().map(|value| format!("<{value}>")).collect();
        name = format!("{name} {}", values.join(" "));
    }
    name.trim().to_string()
}

fn meaning(argument: &Arg) -> String {
    let mut text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let list = |values: Vec<String>| values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    if argument.get_action().takes_values() {
        let possible = argument.get_possible_values();
        let possible = possible.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name().to_string());
        let possible: Vec<String> = possible.collect();
        if !possible.is_empty() {
            let _ = write!(text, ". One of {}", list(possible));
        }
        let defaults = argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
        let defaults: Vec<String> = defaults.collect();
        if !defaults.is_empty() {
            let _ = write!(text, ". Default: {}", list(defaults));
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', " or ").replace('\n', " ")
}

#[test]
fn the_reference_says_what_the_command_line_says() {
    snapbox::assert_data_eq!(reference(), snapbox::file!["../../../docs/reference.md"]);
}
