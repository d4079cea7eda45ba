#!/usr/bin/env bash
# Compares dinov3-geo with PROJ, GEOS, GeoPandas, utm and mercantile. All arguments go to check_geo.py; --help lists them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
python=$(dev/geo/environment.sh)
cargo build --quiet -p dinov3-geo --example transform
exec "$python" "$here/check_geo.py" --binary "${CARGO_TARGET_DIR:-target}/debug/examples/transform" "$@"
