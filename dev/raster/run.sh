#!/usr/bin/env bash
# Writes GeoTIFFs of all kinds with GDAL and compares our reading of them with GDAL's, value for value. All arguments go to
# matrix.py; --help lists them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
python=$(dev/geo/environment.sh)
cargo build --quiet -p dinov3-raster --example read_window
exec "$python" "$here/matrix.py" --binary "${CARGO_TARGET_DIR:-target}/debug/examples/read_window" "$@"
