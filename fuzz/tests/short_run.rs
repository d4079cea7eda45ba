//! The short run: every target over its seeds, its committed corpus and mutations of both, the same in every run.

use std::panic::catch_unwind;

use dinov3_fuzz::mutate::{Random, mutate};
use dinov3_fuzz::{TARGETS, Target};

/// Mutations per target. The search with coverage (`run.sh`) makes millions.
const MUTATIONS: usize = 20_000;

fn run_all(target: &Target) {
    let inputs = [(target.seeds)(), target.corpus().expect("the corpus can be read")].concat();
    let survives = |bytes: &[u8], what: &str| {
        if catch_unwind(|| (target.run)(bytes)).is_err() {
            let path = std::env::temp_dir().join(format!("dinov3-fuzz-{}", target.name));
            std::fs::write(&path, bytes).expect("the input can be saved");
            panic!("{}: {what} breaks a promise; the input is {}", target.name, path.display());
        }
    };
    survives(b"", "the empty input");
    for (index, input) in inputs.iter().enumerate() {
        survives(input, &format!("input {index}"));
    }
    let mut random = Random::new(target.longest_bytes as u64);
    for round in 0..MUTATIONS {
        let input = &inputs[round % inputs.len()];
        survives(&mutate(input, target.words, target.longest_bytes, &mut random), &format!("mutation {round}"));
    }
    println!("{}: {} inputs, {MUTATIONS} mutations", target.name, inputs.len());
}

macro_rules! short_runs {
    ($($name:ident),+) => {
        $(#[test]
        fn $name() {
            run_all(dinov3_fuzz::find(stringify!($name)).unwrap());
        })+

        #[test]
        fn no_target_is_left_out() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($name)),+]);
        }
    };
}

short_runs!(
    safetensors,
    shard_index,
    torch_pickle,
    torch_zip,
    config_json,
    npy,
    pca_basis,
    dense_basis,
    area,
    stac,
    work_list,
    orientation,
    checkpoint,
    packed,
    jpeg,
    png,
    webp,
    tiff,
    bmp,
    geotiff
);

#[test]
fn corpora_are_small() {
    let mut total_bytes = 0;
    for target in TARGETS {
        for input in target.corpus().unwrap() {
            assert!(input.len() <= target.longest_bytes, "{}: {} bytes", target.name, input.len());
            total_bytes += input.len();
        }
    }
    assert!(total_bytes <= 300 << 10, "{total_bytes} bytes of corpora");
}
