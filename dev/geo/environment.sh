#!/usr/bin/env bash
# Makes the Python environment of dev/geo, dev/raster, dev/geoparquet and dev/scene in target/geo-venv, or finds it made, and
# prints its Python. Later runs need no network.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$here/../../target/geo-venv
python=$("$here/../parity/environment.sh" "$venv" "$here/requirements.txt")
# geoparquet-io asks for a later DuckDB than the spatial extension from PyPI is for.
if ! cmp -s "$here/duckdb.txt" "$venv/duckdb.txt"; then
    "$python" -m pip install --no-deps --requirement "$here/duckdb.txt" >&2
    cp "$here/duckdb.txt" "$venv/duckdb.txt"
fi
echo "$python"
