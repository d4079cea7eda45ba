//! Compiles the C side of the JPEG decoder against the headers of the libjpeg that Cargo built.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=src/shim.c");
    let Some(include) = env::var_os("DEP_TURBOJPEG_INCLUDE").or_else(|| env::var_os("DEP_JPEG_INCLUDE")) else {
        println!("cargo:warning=the libjpeg crate gave no include directory");
        return;
    };
    let mut build = cc::Build::new();
    // The C code reads untrusted bytes: whatever the compiler can check for us, it should.
    build
        .file("src/shim.c")
        .includes(env::split_paths(&include))
        .warnings(true)
        .flag_if_supported("-fstack-protector-strong")
        .flag_if_supported("-D_FORTIFY_SOURCE=2")
        .flag_if_supported("-Wno-clobbered")
        .compile("dinov3_jpeg_shim");
}
