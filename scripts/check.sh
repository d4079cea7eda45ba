#!/usr/bin/env bash
# Everything that must hold before a change lands: format, lints, documents, floors, generated files, tests.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh --checks
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
cargo xtask floors
cargo xtask draw-samples --check
# The documents show the committed bench runs. Optional: nothing else here needs Python.
if python3 -c 'import tomllib' 2>/dev/null; then python3 bench/report.py --check; fi
# Instructions and spills of the kernels: about a minute. The tools that it needs are optional for the same reason.
if command -v valgrind >/dev/null && command -v objdump >/dev/null && command -v python3 >/dev/null; then
    bench/guard.sh
else
    echo "skipped: bench/guard.sh needs valgrind, objdump and python3; scripts/setup.sh --checks installs them"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --workspace --no-fail-fast 2>&1 | tee "$log" || status=$?
scripts/check_hardening.sh || status=1
# One closing line for all test programs.
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$status"
