//! The encoder's contract, on every instruction set that this CPU has and on emulated tiles.

use dinov3_cpu::{Model, Options, Precision};
use dinov3_kernels::Isa;
use dinov3_model::encoder::Encoder;
use dinov3_model::rope::RopePeriods;
use dinov3_model::spec::ModelSpec;
use dinov3_model::synthetic::{SyntheticSpec, SyntheticWeights};
use dinov3_testing::{conformance, tiny_models};

fn for_each(precision: Precision, check: impl Fn(&ModelSpec, conformance::Factory<'_>)) {
    // Products of f32 are not on tiles.
    let emulated = (precision != Precision::F32).then_some(Isa::AMX_EMULATED);
    Isa::all_supported().into_iter().chain(emulated).for_each(|isa| for_each_model(precision, isa, &check));
}

fn for_each_model(precision: Precision, isa: Isa, check: impl Fn(&ModelSpec, conformance::Factory<'_>)) {
    let make = |spec: &ModelSpec, weights: &SyntheticWeights, periods: RopePeriods, threads: usize| {
        let options = Options::new().precision(precision).rope_periods(periods).threads(threads).isa(isa);
        let model = Model::load(spec, weights, &options).expect("synthetic weights load");
        Box::new(model.session()) as Box<dyn Encoder>
    };
    for spec in tiny_models() {
        eprintln!("{} on {}", spec.name, isa.name());
        check(&spec, &make);
    }
}

#[test]
fn f32_equals_the_reference() {
    for_each(Precision::F32, |spec, make| conformance::equals_the_reference(spec, make, 2e-6));
}

#[test]
fn bf16_is_near_the_reference() {
    // bf16 keeps 8 bits: 2^-9 per operand, and a few layers of it; class scores of a few values cancel once more.
    for_each(Precision::Bf16, |spec, make| conformance::equals_the_reference(spec, make, 3e-2));
}

#[test]
fn int8_is_near_the_reference() {
    // Eight bits with a scale per token and per channel: about 1 % per product; narrow models average little of it out.
    for_each(Precision::Int8, |spec, make| conformance::equals_the_reference(spec, make, 8e-2));
}

#[test]
fn f32_is_deterministic() {
    for_each(Precision::F32, conformance::is_deterministic);
}

#[test]
fn bf16_is_deterministic() {
    for_each(Precision::Bf16, conformance::is_deterministic);
}

#[test]
fn int8_is_deterministic() {
    for_each(Precision::Int8, conformance::is_deterministic);
}

#[test]
fn images_of_which_each_thread_takes_its_own_have_the_same_bits() {
    let isa = Isa::detect();
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        for_each_model(precision, isa, conformance::is_deterministic_with_large_images);
    }
}

#[test]
fn int8_refuses_rows_beyond_its_sums() {
    let text = r#"{"model_type": "dinov3_vit", "hidden_size": 64, "intermediate_size": 66400,
        "num_hidden_layers": 1, "num_attention_heads": 1, "patch_size": 16}"#;
    let spec = dinov3_model::config_json::parse(text, "wide").unwrap();
    let weights = SyntheticWeights::new(&spec, SyntheticSpec { seed: 1, outliers: false });
    let error = Model::load(&spec, &weights, &Options::new().precision(Precision::Int8)).err().unwrap().to_string();
    assert!(error.contains("66400") && error.contains("bf16"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_and_padding_is_zero_padding() {
    for_each(Precision::F32, conformance::refuses_and_pads);
}

#[test]
fn a_model_is_shared_and_a_session_moves() {
    fn shared<T: Clone + Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<Model>();
    moved::<dinov3_cpu::Session>();
}
