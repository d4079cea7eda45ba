//! libFuzzer's program: the target is named by the variable DINOV3_FUZZ_TARGET. Built and called by `run.sh`.
#![no_main]
#![allow(missing_docs, unsafe_code, reason = "the macro writes the functions that libFuzzer calls")]

use std::sync::LazyLock;

static TARGET: LazyLock<&dinov3_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("DINOV3_FUZZ_TARGET").unwrap_or_default();
    dinov3_fuzz::find(&name).unwrap_or_else(|| panic!("DINOV3_FUZZ_TARGET is '{name}', which is no target"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
