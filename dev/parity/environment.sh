#!/usr/bin/env bash
# Makes a Python environment, or finds it made, and prints its Python: that of the parity command, or of the bench.
#
#   environment.sh [FOLDER [REQUIREMENTS]]     default: target/parity-venv and the requirements.txt beside this file
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${1:-$here/../../target/parity-venv}
requirements=${2:-$here/requirements.txt}

if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "python3 with venv is missing: install python3 and python3-venv" >&2
        exit 1
    fi
    { apt-get update && apt-get install -y python3 python3-venv; } >&2
fi

mkdir -p "$venv"
venv=$(cd "$venv" && pwd)
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --requirement "$requirements"; } >&2
    cp "$requirements" "$venv/requirements.txt" # the last step: a broken installation is tried again
fi
echo "$venv/bin/python"
