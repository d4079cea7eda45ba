#!/usr/bin/env bash
# Finds what the build needs beside Rust: a C compiler and the assembler nasm (for libjpeg's SIMD code).
# Installs them with apt where that is possible, and says what is missing where it is not.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v nasm >/dev/null || missing+=(nasm)
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null && as_root=(sudo)
    fi
    if ! command -v apt-get >/dev/null || { [ "$(id -u)" -ne 0 ] && [ ${#as_root[@]} -eq 0 ]; }; then
        echo "please install: ${missing[*]}" >&2
        exit 1
    fi
    { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq "${missing[@]}"; } >&2
fi
command -v cargo >/dev/null || { echo "please install Rust (rustup.rs), 1.89 or newer" >&2; exit 1; }
