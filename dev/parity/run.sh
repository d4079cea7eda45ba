#!/usr/bin/env bash
# Compares a fresh release build of the binary with timm. All arguments go to parity.py; --help lists them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$here/environment.sh")
cd "$here/../.."
cargo build --release -p dinov3-cli
exec "$python" "$here/parity.py" --binary "${CARGO_TARGET_DIR:-target}/release/dinov3" "$@"
