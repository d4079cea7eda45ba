//! Mutations by the million, without instrumentation: what a search with coverage has found is changed blindly, in the
//! configuration that is released (with libjpeg's assembler code), but with overflow checks and debug assertions.
//!
//!     cargo run --profile fuzz -p dinov3-fuzz --bin mutate -- TARGET --runs N [--seed N] [--inputs FOLDER]
//!
//! The same seed and inputs give the same mutations, so a crash is found again. Prints executions, time and the slowest
//! one; exits with 1 if a promise was broken, with the input saved in the temporary folder.

use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dinov3_fuzz::mutate::{Random, mutate};

const USAGE: &str = "usage: mutate TARGET --runs N [--seed N] [--inputs FOLDER]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).map(String::as_str)
    };
    let number = |name: &str| option(name).and_then(|text| text.parse::<u64>().ok());
    let target = arguments.first().and_then(|name| dinov3_fuzz::find(name));
    let (Some(target), Some(runs)) = (target, number("--runs")) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut inputs = (target.seeds)();
    for folder in [Some(target.corpus_folder().as_path()), option("--inputs").map(Path::new)].into_iter().flatten() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        inputs.extend(paths.iter().filter_map(|path| std::fs::read(path).ok()));
    }
    let seed = number("--seed").unwrap_or(1);
    let mut random = Random::new(seed);
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    for round in 0..runs {
        let input = &inputs[random.below(inputs.len())];
        let changed = mutate(input, target.words, target.longest_bytes, &mut random);
        let began = Instant::now();
        let survived = catch_unwind(|| (target.run)(&changed)).is_ok();
        slowest = slowest.max(began.elapsed());
        if !survived {
            let path = std::env::temp_dir().join(format!("dinov3-fuzz-{}", target.name));
            let saved = std::fs::write(&path, &changed);
            println!("{}: execution {round} breaks a promise: {} ({saved:?})", target.name, path.display());
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{}\t{runs} executions\t{} inputs\tseed {seed}\t{:.0} s\tslowest {} ms",
        target.name,
        inputs.len(),
        start.elapsed().as_secs_f64(),
        slowest.as_millis()
    );
    ExitCode::SUCCESS
}
