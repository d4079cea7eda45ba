//! `dinov3 embed --resume` under fire: killed at random moments, continued, compared.

use std::path::Path;

use anyhow::{Context, Result};
use dinov3_testing::kills::{Plan, Tally};

/// Kills `program` that many times, for every output format, at least a quarter of them while finishing.
pub fn run(program: &Path, kills: &str) -> Result<()> {
    let kills: usize = kills.parse().context("KILLS is a number")?;
    let program = program.canonicalize().with_context(|| program.display().to_string())?;
    let scratch = std::env::temp_dir().join(format!("dinov3-kills-{}", std::process::id()));
    let mut all = Tally::default();
    for (index, extension) in ["parquet", "npy", "safetensors", "jsonl"].into_iter().enumerate() {
        let folder = scratch.join(extension);
        std::fs::create_dir_all(&folder)?;
        let plan = Plan {
            program: &program,
            folder: &folder,
            extension,
            pictures: 400,
            kills,
            finishing: kills.div_ceil(4),
            seed: index as u64,
        };
        let tally = plan.run(&mut |line| println!("{line}"));
        all.kills += tally.kills;
        all.finishing += tally.finishing;
        all.outputs += tally.outputs;
        all.too_late += tally.too_late;
    }
    std::fs::remove_dir_all(&scratch)?;
    println!(
        "{} kills, {} of them while finishing; {} outputs compared, all byte-identical; {} runs ended before their kill",
        all.kills, all.finishing, all.outputs, all.too_late
    );
    Ok(())
}
