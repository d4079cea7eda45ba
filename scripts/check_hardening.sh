#!/usr/bin/env bash
# Whether the C code that reads untrusted bytes was compiled with the options of .cargo/config.toml and of dinov3-jpeg's
# build script: their traces are calls of the checking functions of glibc. Linux only; elsewhere there is nothing to say.
#   scripts/check_hardening.sh [FOLDER OF CARGO'S BUILD SCRIPTS' OUTPUT, default target/debug/build]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ "$(uname -s)" = Linux ] || exit 0
build=${1:-${CARGO_TARGET_DIR:-target}/debug/build}

# newest LIBRARY: the archive that was built last.
newest() { find "$build" -path "*/out/$1" -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-; }

failed=0
# expect LIBRARY FUNCTION LEAST: at least so many of the archive's objects call the function.
expect() {
    local library count
    library=$(newest "$1")
    [ -n "$library" ] || { echo "no $1 below $build: build first" >&2; exit 2; }
    count=$(nm "$library" | grep -c " U $2\$" || true)
    echo "$1: $count objects call $2"
    [ "$count" -ge "$3" ] || { echo "too few: it was compiled without its hardening options" >&2; failed=1; }
}
expect 'libmozjpeg*.a' __stack_chk_fail 20
expect 'libmozjpeg*.a' __snprintf_chk 1
expect libdinov3_jpeg_shim.a __stack_chk_fail 1
expect libdinov3_jpeg_shim.a __longjmp_chk 1
exit "$failed"
