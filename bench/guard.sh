#!/usr/bin/env bash
# Has a kernel become slower? Two answers that do not depend on how busy the machine is: instructions per round of each
# kernel (AVX2, which valgrind can run) and spills in the main loops of the release build. Options go to guard.py.
#
#   bench/guard.sh              compare with guard.json
#   bench/guard.sh --update     after a change that is meant
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --quiet -p dinov3-kernels --example kernel_guard
exec python3 bench/guard.py --program "${CARGO_TARGET_DIR:-target}/release/examples/kernel_guard" "$@"
