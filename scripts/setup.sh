#!/usr/bin/env bash
# Finds what the build needs beside Rust: a C compiler and the assembler nasm (for libjpeg's SIMD code).
# Installs them with apt where that is possible, and says what is missing where it is not.
#   scripts/setup.sh --checks    also what some checks need, and only where it can be installed: valgrind, objdump
set -euo pipefail

# Whether packages can be installed, and that.
as_root=()
if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null; then as_root=(sudo); fi
installable() { command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || [ ${#as_root[@]} -gt 0 ]; }; }
install() {
    { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq "$@"; } >&2
}

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v nasm >/dev/null || missing+=(nasm)
if [ ${#missing[@]} -gt 0 ]; then
    if ! installable; then
        echo "please install: ${missing[*]}" >&2
        exit 1
    fi
    install "${missing[@]}"
fi
if [ "${1:-}" = --checks ]; then
    optional=()
    command -v valgrind >/dev/null || optional+=(valgrind)
    command -v objdump >/dev/null || optional+=(binutils)
    if [ ${#optional[@]} -gt 0 ] && installable; then
        install "${optional[@]}" || echo "not installed: ${optional[*]}" >&2
    fi
fi
command -v cargo >/dev/null || { echo "please install Rust (rustup.rs), 1.89 or newer" >&2; exit 1; }
