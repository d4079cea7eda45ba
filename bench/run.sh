#!/usr/bin/env bash
# Runs rows of the speed table against OpenVINO, ONNX Runtime and timm: makes the peers' Python environment and a release
# build, then passes all arguments to run.py.
#
#   bench/run.sh --list
#   bench/run.sh s-bf16-b8-openvino 'l-*'
#   BENCH_PYTHON=python BENCH_BINARY=dinov3 bench/run.sh ...      with an environment and a build that are there already
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
python=${BENCH_PYTHON:-}
if [ -z "$python" ]; then
    python=$(dev/parity/environment.sh target/bench-venv bench/requirements.txt)
    # torch.compile needs a C++ compiler.
    command -v c++ >/dev/null || echo "note: no C++ compiler, so timm is not measured compiled (apt install g++)" >&2
fi
binary=${BENCH_BINARY:-}
if [ -z "$binary" ]; then
    cargo build --release -p dinov3-cli
    binary=${CARGO_TARGET_DIR:-target}/release/dinov3
fi
exec "$python" bench/run.py --binary "$binary" "$@"
