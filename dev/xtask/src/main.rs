//! Chores of this repository.
//!
//! - `cargo xtask floors` checks that every crate depends on lower floors only.
//! - `cargo xtask draw-samples [FOLDER]` draws the sample pictures into `samples/`; with `--check` it compares.
//! - `cargo xtask sample-scene FOLDER` draws a georeferenced scene of 2048 × 2048 pixels: 8-bit RGB and 16-bit reflectance.
//! - `cargo xtask kill-and-resume [--scenes [--folder | --dense | --zarr]] PROGRAM [KILLS]` kills `dinov3 embed`, or
//!   `dinov3 scene embed`, at random moments and continues it.
//! - `cargo xtask make-checkpoint --model M [--weights synthetic:1] [--shards N | --pth] -o FOLDER` writes synthetic
//!   weights as files, for `dev/parity/load_memory.py`.
//! - `cargo xtask montage OUT.png A.png B.png ...` puts pictures side by side, for the README.

mod floors;
mod kill_and_resume;
mod make_checkpoint;
mod montage;
mod png_file;
mod samples;
mod scene;

use std::path::Path;
use std::process::ExitCode;

use dinov3_testing::kills::Input;

const USAGE: &str = "usage: cargo xtask floors
       cargo xtask draw-samples [--check] [FOLDER]
       cargo xtask sample-scene FOLDER
       cargo xtask kill-and-resume [--scenes [--folder | --dense | --zarr]] PROGRAM [KILLS]
       cargo xtask make-checkpoint --model M [--weights synthetic:1] [--shards N | --pth] -o FOLDER
       cargo xtask montage OUT.png A.png B.png ...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["floors"] => floors::run(),
        ["draw-samples"] => samples::draw(Path::new(samples::FOLDER)),
        ["draw-samples", "--check"] => samples::check(Path::new(samples::FOLDER)),
        ["draw-samples", "--check", folder] => samples::check(Path::new(folder)),
        ["draw-samples", folder] if !folder.starts_with('-') => samples::draw(Path::new(folder)),
        ["sample-scene", folder] if !folder.starts_with('-') => scene::draw(Path::new(folder)),
        ["kill-and-resume", "--scenes", "--folder", arguments @ ..] => kill_and_resume::run(arguments, Input::Folder),
        ["kill-and-resume", "--scenes", "--dense", arguments @ ..] => kill_and_resume::run(arguments, Input::Dense),
        ["kill-and-resume", "--scenes", "--zarr", arguments @ ..] => kill_and_resume::run(arguments, Input::Shards),
        ["kill-and-resume", "--scenes", arguments @ ..] => kill_and_resume::run(arguments, Input::Scenes),
        ["kill-and-resume", arguments @ ..] => kill_and_resume::run(arguments, Input::Pictures),
        ["make-checkpoint", arguments @ ..] => make_checkpoint::run(arguments),
        ["montage", out, pictures @ ..] if !pictures.is_empty() => montage::run(Path::new(out), pictures),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
