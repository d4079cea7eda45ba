//! The options of a command line as a plan holds them: those that decide results, by their long names. What an option
//! means is known to the command line alone, so that an option which is new travels in plans without being named here.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Result, anyhow};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, ValueEnum};
use dinov3::checkpoint::hash::sha256;
use dinov3_scene::raster::redacted;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::arguments::{Arguments, Command as Commands, DENSE_HEADING, SceneCommand, SceneEmbedArguments};
use crate::failure::usage;
use crate::scene::form::Form;
use crate::scene::job::Job;

/// Options by which one machine makes the same in another way. They are given to whoever runs a plan.
const OF_MACHINES: [&str; 8] = ["batch_size", "strict", "resume", "fresh", "threads", "cache", "max_memory", "scratch"];
/// Those that planning needs, too.
const OF_READING: [&str; 4] = ["requests", "url_timeout", "allow_local_addresses", "block_cache"];
/// What is embedded, where to, and in which pieces: a plan has it in its rows.
const OF_PLANS: [&str; 3] = ["inputs", "output", "unit_chips"];

/// The option that says what units are made into.
pub const FORMAT: &str = "format";
/// The option that makes patches of scenes.
pub const DENSE: &str = "dense";

/// Values by an option's long name; several where it was given several times, and `true` for one without a value.
pub type Values = BTreeMap<String, Vec<String>>;

/// What decides the results of a job, beside its scenes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidingOptions {
    /// Whose defaults and bits they are.
    pub version: String,
    /// As they were given.
    pub options: Values,
    /// All others that have a default.
    pub defaults: Values,
    /// Of the files that options name: what is in them.
    #[serde(default)]
    pub contents: BTreeMap<String, String>,
}

impl DecidingOptions {
    /// Names them, and what they decide.
    pub fn hash(&self) -> String {
        sha256(json!(["dinov3 options 2", self.version, self.all(), self.contents]).to_string().as_bytes())
    }

    /// Every option that has a value, without secrets: a URL that was signed anew is the same.
    fn all(&self) -> Values {
        let mut all = self.defaults.clone();
        all.extend(self.options.clone());
        redacted_values(all)
    }

    /// What an option was given, or is by default: the last value, where there are several.
    pub fn value(&self, long: &str) -> Option<&str> {
        let values = self.options.get(long).or_else(|| self.defaults.get(long))?;
        values.last().map(String::as_str)
    }

    /// The same without secrets, for outputs and markers.
    pub fn redacted(&self) -> Self {
        Self { options: redacted_values(self.options.clone()), ..self.clone() }
    }

    /// The first difference, for a person.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.version != other.version {
            return Some(format!("dinov3 {} and not {}", other.version, self.version));
        }
        let (own, others) = (self.all(), other.all());
        let mut names: Vec<&String> = own.keys().chain(others.keys()).collect();
        names.sort();
        if let Some(name) = names.into_iter().find(|name| own.get(*name) != others.get(*name)) {
            let told = |values: &Values| values.get(name).map_or("none".to_owned(), |values| values.join(" "));
            return Some(format!("--{name} {} and not {}", told(&others), told(&own)));
        }
        let mut files = self.contents.keys().chain(other.contents.keys());
        let name = files.find(|name| self.contents.get(*name) != other.contents.get(*name))?;
        Some(format!("a file of other content as --{name}"))
    }
}

fn redacted_values(values: Values) -> Values {
    let one = |name: &str, value: &str| match name {
        // Lists of files.
        "band-files" => value.split(',').map(redacted).collect::<Vec<_>>().join(","),
        _ => redacted(value),
    };
    values.into_iter().map(|(name, all)| (name.clone(), all.iter().map(|value| one(&name, value)).collect())).collect()
}

/// Those of this process's command line, which is `dinov3 scene NAME` and gave this job, whose units have this form. Options
/// of machines are refused for a plan.
pub fn of_this_process(name: &str, job: &Job<'_>, form: Form) -> Result<DecidingOptions> {
    let mut command = Arguments::command();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    let (command, matches) = of_scene(&command, &matches, name).ok_or_else(|| anyhow!("not a command of scenes"))?;
    if name == "plan"
        && let Some(option) = OF_MACHINES.iter().find(|id| is_given(matches, id))
    {
        let option = option.replace('_', "-");
        return Err(usage(format!("--{option} decides no result: give it to 'dinov3 scene run'")));
    }
    let mut options = DecidingOptions { contents: job.contents(&BTreeMap::new())?, ..deciding(command, matches) };
    // Also where it was left to the name of the output, or to the kind of what is made.
    let format = form.format().to_possible_value().map(|value| value.get_name().to_owned());
    options.options.insert(FORMAT.to_owned(), format.into_iter().collect());
    Ok(options)
}

/// The options of dense output, but the one that asks for it: whoever adds one need not name it here.
pub fn of_dense() -> Vec<String> {
    let command = Arguments::command();
    let embed = command.find_subcommand("scene").and_then(|scene| scene.find_subcommand("embed"));
    let options = embed.into_iter().flat_map(Command::get_arguments);
    let dense = options.filter(|option| option.get_help_heading() == Some(DENSE_HEADING) && option.get_id() != "dense");
    dense.map(|option| option.get_id().to_string()).collect()
}

/// Refuses these options if this process, which is `dinov3 scene NAME`, was given one of them.
pub fn refuse_given(name: &str, ids: &[impl AsRef<str>], reason: &str) -> Result<()> {
    let mut command = Arguments::command();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    let Some((command, matches)) = of_scene(&command, &matches, name) else { return Ok(()) };
    let Some(id) = ids.iter().map(AsRef::as_ref).find(|id| is_given(matches, id)) else { return Ok(()) };
    let option = command.get_arguments().find(|option| option.get_id() == id).and_then(|option| option.get_long());
    Err(usage(format!("--{}: {reason}", option.unwrap_or(id))))
}

fn of_scene<'c>(command: &'c Command, matches: &'c ArgMatches, name: &str) -> Option<(&'c Command, &'c ArgMatches)> {
    let command = command.find_subcommand("scene")?.find_subcommand(name)?;
    Some((command, matches.subcommand_matches("scene")?.subcommand_matches(name)?))
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).is_ok_and(|is_there| is_there)
        && matches.value_source(id) == Some(ValueSource::CommandLine)
}

fn deciding(command: &Command, matches: &ArgMatches) -> DecidingOptions {
    let skipped = |id: &str| OF_MACHINES.contains(&id) || OF_READING.contains(&id) || OF_PLANS.contains(&id);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mut found =
        DecidingOptions { version, options: Values::new(), defaults: Values::new(), contents: BTreeMap::new() };
    for argument in command.get_arguments().filter(|argument| !skipped(argument.get_id().as_str())) {
        let id = argument.get_id().as_str();
        let (Some(long), Some(source)) = (argument.get_long(), matches.value_source(id)) else { continue };
        let values = match argument.get_action() {
            ArgAction::SetTrue => match matches.get_flag(id) {
                true => vec!["true".to_owned()],
                false => continue,
            },
            _ => {
                let delimiter = argument.get_value_delimiter().map_or(" ".to_owned(), String::from);
                let occurrences = matches.get_raw_occurrences(id).into_iter().flatten();
                match source {
                    ValueSource::CommandLine => occurrences
                        .map(|values| values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(&delimiter))
                        .collect(),
                    _ => matches
                        .get_raw(id)
                        .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect())
                        .unwrap_or_default(),
                }
            }
        };
        match source {
            ValueSource::CommandLine => found.options.insert(long.to_owned(), values),
            _ => found.defaults.insert(long.to_owned(), values),
        };
    }
    found
}

/// The command `scene embed` with these options and those of this machine, which this process was given as
/// `dinov3 scene NAME`.
///
/// # Errors
/// If these are not options of this version, or mean something else in it.
pub fn replayed(planned: &DecidingOptions, name: &str, output: &std::path::Path) -> Result<SceneEmbedArguments> {
    let mut own = Arguments::command();
    let matches = own.try_get_matches_from_mut(std::env::args_os())?;
    let (own, matches) = of_scene(&own, &matches, name).ok_or_else(|| anyhow!("not a command of scenes"))?;
    let mut words: Vec<OsString> = ["dinov3", "scene", "embed"].map(OsString::from).to_vec();
    let mut add = |long: &str, value: &str, is_flag: bool| match is_flag {
        true => words.push(format!("--{long}").into()),
        false => words.push(format!("--{long}={value}").into()),
    };
    let embed = Arguments::command();
    let embed = embed.find_subcommand("scene").and_then(|scene| scene.find_subcommand("embed"));
    let is_flag = |long: &str| {
        embed.is_some_and(|embed| {
            let mut arguments = embed.get_arguments();
            arguments.any(|argument| {
                argument.get_long() == Some(long) && matches!(argument.get_action(), ArgAction::SetTrue)
            })
        })
    };
    for (long, values) in &planned.options {
        values.iter().for_each(|value| add(long, value, is_flag(long)));
    }
    for argument in own.get_arguments() {
        let id = argument.get_id().as_str();
        let Some(long) = argument.get_long() else { continue };
        if !(OF_MACHINES.contains(&id) || OF_READING.contains(&id)) || !is_given(matches, id) {
            continue;
        }
        match argument.get_action() {
            ArgAction::SetTrue => add(long, "", true),
            _ => matches.get_raw(id).into_iter().flatten().for_each(|value| add(long, &value.to_string_lossy(), false)),
        }
    }
    words.extend(["-o".into(), output.into(), "--".into(), "planned".into()]);
    let version = env!("CARGO_PKG_VERSION");
    let unknown = |error: clap::Error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        usage(format!("the plan was made by dinov3 {}, and this is {version}: {line}", planned.version))
    };
    let mut command = Arguments::command();
    let matches = command.try_get_matches_from_mut(words).map_err(unknown)?;
    let contents = planned.contents.clone();
    let again = of_scene(&command, &matches, "embed")
        .map(|(command, matches)| DecidingOptions { contents, ..deciding(command, matches) });
    if let Some(difference) = again.as_ref().and_then(|again| again.difference(planned)) {
        return Err(usage(format!("the plan was made with {difference}, which this program would use")));
    }
    match Arguments::from_arg_matches(&matches).map_err(unknown)?.command {
        Commands::Scene(SceneCommand::Embed(arguments)) => Ok(*arguments),
        _ => Err(anyhow!("the plan's options are not those of a command")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> DecidingOptions {
        let mut command = Arguments::command();
        let matches = command.try_get_matches_from_mut(line.split(' ')).unwrap();
        let (command, matches) = of_scene(&command, &matches, "embed").unwrap();
        deciding(command, matches)
    }

    #[test]
    fn only_what_decides_results_is_kept() {
        let plain = of("dinov3 scene embed a.tif -m tiny.json -o out/");
        let other =
            of("dinov3 scene embed b.tif -m tiny.json -o other/ --threads 3 --resume --batch-size 2 --requests 4");
        assert_eq!((&plain, plain.hash()), (&other, other.hash()));
        assert_eq!(plain.options, Values::from([("model".to_owned(), vec!["tiny.json".to_owned()])]));
        assert_eq!(plain.defaults["chip"], ["256"]);
        // What is the default may be said.
        assert_eq!(of("dinov3 scene embed a.tif -m tiny.json -o out/ --chip 256").hash(), plain.hash());
        let chip = of("dinov3 scene embed a.tif -m tiny.json -o out/ --chip=512");
        assert_ne!(chip.hash(), plain.hash());
        assert_eq!(plain.difference(&chip).unwrap(), "--chip 512 and not 256");
        assert_eq!(plain.difference(&plain), None);
        let flag = of("dinov3 scene embed a.tif -m tiny.json -o out/ --normalize --bands 4,3,2");
        assert_eq!(flag.options["normalize"], ["true"]);
        assert_eq!(flag.options["bands"], ["4,3,2"]);
    }

    #[test]
    fn what_signs_a_url_decides_nothing_and_is_told_to_nobody() {
        let signed = |secret: &str| {
            let files = format!("https://h/r.tif?sig={secret},https://u:{secret}@h/g.tif,b.tif");
            of(&format!(
                "dinov3 scene embed a -m tiny.json -o out/ --band-files {files} --mask https://h/m.tif?s={secret}"
            ))
        };
        let (one, two) = (signed("secret-1"), signed("secret-2"));
        assert_eq!((one.hash(), one.difference(&two)), (two.hash(), None));
        assert_eq!(one.redacted(), two.redacted());
        assert_eq!(one.redacted().options["band-files"], ["https://h/r.tif,https://h/g.tif,b.tif"]);
        assert!(one.options["mask"][0].contains("secret"), "whoever runs the plan opens it");
        let other = of("dinov3 scene embed a -m tiny.json -o out/ --mask https://h/n.tif?s=secret");
        assert!(!one.difference(&other).unwrap().contains("secret"));
        let of_file = |hash: &str| DecidingOptions {
            contents: BTreeMap::from([("aoi".to_owned(), hash.to_owned())]),
            ..of("dinov3 scene embed a.tif -m tiny.json -o out/ --aoi a.json")
        };
        assert_ne!(of_file("1").hash(), of_file("2").hash());
        assert_eq!(of_file("1").difference(&of_file("2")).unwrap(), "a file of other content as --aoi");
    }

    #[test]
    fn options_of_dense_output_are_known_by_their_heading() {
        let options = of_dense();
        assert!(["window", "overlap", "dims", "pca_basis"].iter().all(|id| options.iter().any(|option| option == id)));
        assert!(!options.iter().any(|option| option == "dense" || option == "chip"), "{options:?}");
    }

    #[test]
    fn every_option_of_machines_is_an_option() {
        let command = Arguments::command();
        let embed = command.find_subcommand("scene").unwrap().find_subcommand("embed").unwrap();
        for id in OF_MACHINES.iter().chain(&OF_READING) {
            assert!(embed.get_arguments().any(|argument| argument.get_id() == *id), "{id}");
        }
    }
}
