#!/usr/bin/env bash
# Opens GeoParquet files with GeoPandas, pyarrow, DuckDB and geoparquet-io, and asks what they see.
#
#   run.sh [FILE...]        without files: invented chips across the antimeridian, and an empty file
#
# The environment is made in target/geo-venv; later runs need no network.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$("$here/../geo/environment.sh")
venv=$root/target/geo-venv

if [ $# -eq 0 ]; then
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    write=(cargo run --quiet --manifest-path "$root/Cargo.toml" -p dinov3-sink --example write_geoparquet --)
    "${write[@]}" "$folder/fiji.parquet"
    "${write[@]}" "$folder/large.parquet" 40000 512 # two row groups
    "${write[@]}" "$folder/empty.parquet" 0
    set -- "$folder"/*.parquet
fi
# DuckDB keeps its extensions in the home folder: this one, not the user's.
HOME=$venv/home "$python" "$here/check.py" "$@"
