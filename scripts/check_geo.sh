#!/usr/bin/env bash
# Geometry, GeoTIFFs, GeoParquet and scenes against programs that nobody here wrote: PROJ, GEOS, GDAL, GeoPandas, pyarrow,
# DuckDB, geoparquet-io. They come from PyPI, in wheels.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
dev/geo/run.sh --quick
dev/raster/run.sh
dev/geoparquet/run.sh
cargo build --quiet -p dinov3-cli
dev/scene/run.sh --binary "${CARGO_TARGET_DIR:-target}/debug/dinov3"
dev/scene/run.sh --binary "${CARGO_TARGET_DIR:-target}/debug/dinov3" --only plan
dev/scene/run.sh --binary "${CARGO_TARGET_DIR:-target}/debug/dinov3" --map
