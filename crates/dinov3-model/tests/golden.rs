//! The reference against timm: this is what ties every other test of numbers to the original.

use std::collections::BTreeSet;

use dinov3_model::encoder::Request;
use dinov3_model::reference::Reference;
use dinov3_model::rope::RopePeriods;
use dinov3_testing::golden;

/// Both sides compute in f64 with a RoPE table in f32; timm's results are rounded to f32 once.
const TOLERANCE: f64 = 3e-7;

#[test]
fn every_stage_of_the_reference_equals_timm() {
    for golden in golden::all() {
        let reference = Reference::load(&golden.spec, &golden.weights, RopePeriods::F32).unwrap();
        for index in 0..golden.batch().count {
            let mut seen = BTreeSet::new();
            let compare = &mut |stage: &str, shape: &[usize], values: &[f64]| {
                let name = if stage.starts_with("stage.") { stage.to_string() } else { format!("stage.{stage}") };
                let mut found: Vec<f32> = values.iter().map(|&value| value as f32).collect();
                if let [height, width, c] = *shape {
                    // The reference's maps have channels last, timm's first.
                    let n = height * width;
                    found = (0..found.len()).map(|i| found[i % n * c + i / n]).collect();
                }
                golden.assert_near(&name, index, &found, TOLERANCE);
                seen.insert(name);
            };
            reference.trace(&golden.image(index), &Request::new(), compare).unwrap();
            let expected: BTreeSet<String> = golden.stages().map(str::to_string).collect();
            assert_eq!(seen, expected, "{}", golden.name);
        }
    }
}

#[test]
fn every_output_of_the_reference_equals_timm() {
    for golden in golden::all() {
        for periods in [RopePeriods::F32, RopePeriods::Bf16] {
            let mut reference = Reference::load(&golden.spec, &golden.weights, periods).unwrap();
            golden.assert_encoder_equals(&mut reference, periods, TOLERANCE);
        }
    }
}
