//! The CPU encoder against timm, on every instruction set that this CPU has.

use dinov3_cpu::{Model, Options};
use dinov3_kernels::Isa;
use dinov3_model::rope::RopePeriods;
use dinov3_testing::golden;

#[test]
fn every_output_equals_timm_on_every_instruction_set() {
    for golden in golden::all() {
        for isa in Isa::all_supported() {
            for periods in [RopePeriods::F32, RopePeriods::Bf16] {
                eprintln!("{} on {}, periods {}", golden.name, isa.name(), periods.name());
                let options = Options::new().threads(2).isa(isa).rope_periods(periods);
                let model = Model::load(&golden.spec, &golden.weights, &options).unwrap();
                golden.assert_encoder_equals(&mut model.session(), periods, 2e-6);
            }
        }
    }
}
