//! `dinov3 embed --resume` and `dinov3 scene embed --resume` under fire: killed at random moments, continued, compared.

use std::path::Path;

use anyhow::{Context, Result, bail};
use dinov3_testing::kills::{Input, Plan, Tally};

/// Kills PROGRAM 50 or KILLS times, for every output format, at least a quarter of them while finishing.
pub fn run(arguments: &[&str], input: Input) -> Result<()> {
    let (program, kills) = match *arguments {
        [program] => (Path::new(program), 50),
        [program, kills] => (Path::new(program), kills.parse().context("KILLS is a number")?),
        _ => bail!("name PROGRAM, and KILLS if not 50"),
    };
    let program = program.canonicalize().with_context(|| program.display().to_string())?;
    let scratch = std::env::temp_dir().join(format!("dinov3-kills-{}", std::process::id()));
    match input {
        Input::Pictures => single(&program, &scratch, kills, input, (&["parquet", "npy", "safetensors", "jsonl"], 400)),
        Input::Scenes => single(&program, &scratch, kills, input, (&["parquet"], 3)),
        Input::Dense => single(&program, &scratch, kills, input, (&["tif", "zarr"], 1)),
        Input::Folder => units(&program, &scratch, kills, input),
        // Half of them in one process, and half in units.
        Input::Shards => {
            single(&program, &scratch, kills / 2, Input::Scenes, (&["zarr"], 3))?;
            units(&program, &scratch, kills - kills / 2, input)
        }
    }
}

fn single(
    program: &Path,
    scratch: &Path,
    kills: usize,
    input: Input,
    (extensions, pictures): (&[&str], usize),
) -> Result<()> {
    let mut all = Tally::default();
    for (index, &extension) in extensions.iter().enumerate() {
        let folder = scratch.join(extension);
        std::fs::create_dir_all(&folder)?;
        let plan = Plan {
            program,
            folder: &folder,
            extension,
            pictures,
            kills,
            finishing: kills.div_ceil(4),
            seed: index as u64,
        };
        let tally = plan.run_on(input, &mut |line| println!("{line}"));
        all.kills += tally.kills;
        all.finishing += tally.finishing;
        all.outputs += tally.outputs;
        all.too_late += tally.too_late;
        all.repeated += tally.repeated;
    }
    std::fs::remove_dir_all(scratch)?;
    println!(
        "{} kills, {} of them while finishing; {} outputs compared, all byte-identical; {} rows that were on the disk were made \
         again; {} runs ended before their kill",
        all.kills, all.finishing, all.outputs, all.repeated, all.too_late
    );
    match all.repeated {
        0 => Ok(()),
        repeated => bail!("{repeated} rows were made again"),
    }
}

fn units(program: &Path, scratch: &Path, kills: usize, input: Input) -> Result<()> {
    std::fs::create_dir_all(scratch)?;
    let finishing = kills.div_ceil(4).max(10).min(kills);
    let plan = Plan { program, folder: scratch, extension: "zarr", pictures: 4, kills, finishing, seed: 7 };
    let mut say = |line| println!("{line}");
    let tally = match input {
        Input::Shards => plan.run_on_shards(&mut say),
        _ => plan.run_on_folder(&mut say),
    };
    std::fs::remove_dir_all(scratch)?;
    println!(
        "{} kills, {} of them while finishing; {} outputs compared: data files byte-identical, items equal but for time and \
         energy, nothing twice; of {} chips {} that were on the disk were encoded again; a kill costs at most the {} chips \
         of the batches under way",
        tally.kills, tally.finishing, tally.folders, tally.chips, tally.repeated, tally.interval
    );
    match tally.repeated {
        0 => Ok(()),
        repeated => bail!("{repeated} chips were encoded again"),
    }
}
