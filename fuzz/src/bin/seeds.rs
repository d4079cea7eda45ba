//! Writes what a search starts from: `seeds` lists the targets, `seeds TARGET FOLDER` writes the target's seeds into the
//! folder and its words as libFuzzer's dictionary into `FOLDER.words`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [] => {
            dinov3_fuzz::TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.longest_bytes));
            Ok(())
        }
        [name, folder] => match dinov3_fuzz::find(name) {
            Some(target) => write(target, Path::new(folder)),
            None => Err(std::io::Error::other(format!("{name} is no target"))),
        },
        _ => Err(std::io::Error::other("usage: seeds [TARGET FOLDER]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(target: &dinov3_fuzz::Target, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (index, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{index:02}")), seed)?;
    }
    let mut words = String::new();
    for word in target.words {
        let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        words += &format!("\"{escaped}\"\n");
    }
    std::fs::write(folder.with_extension("words"), words)
}
