#!/usr/bin/env bash
# Checks `dinov3 scene embed` against GDAL, numpy, PROJ and the programs that read GeoParquet.
#
#   run.sh --binary DINOV3 [--only pixels,radiometry,footprints,validators,resume,server,sources,cut,dense,seams,
#          dense-folder,zarr,zarr-jobs] [--keep FOLDER]
#   run.sh --binary DINOV3 --only plan                     plans, folders, STAC documents, an S3 double
#   run.sh --binary DINOV3 --recall [--chip PX] [--stride PX]            nearest neighbours with f16 and int8
#   run.sh --binary DINOV3 --map [--only chips,patches,...] [--screenshots FOLDER]    the page, in Chromium
#   run.sh --binary DINOV3 --figures [--only memory,dense,sparse,speed-s-bf16,...]    memory and speed, a release build
#
# The last line counts what held; the exit code is 1 if anything did not. The environment is made in target/geo-venv;
# later runs need no network.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$("$here/../geo/environment.sh")
samples=$root/target/sample-scene
if [ ! -f "$samples/sample-scene-rgb.tif" ]; then
    mkdir -p "$samples"
    (cd "$root" && cargo xtask sample-scene "$samples" >&2)
fi

program=check.py
arguments=()
for argument in "$@"; do
    case $argument in
        plan)
            program=plan.py
            arguments+=("$argument")
            ;;
        --figures) program=figures.py ;;
        --recall) program=recall.py ;;
        --map)
            program=map.py
            # Debian's package; Playwright from PyPI brings no browser then.
            if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
                if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
                    echo "please install: chromium" >&2
                    exit 1
                fi
                { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >&2
            fi
            ;;
        *) arguments+=("$argument") ;;
    esac
done
exec "$python" "$here/$program" --sample "$samples/sample-scene-rgb.tif" "${arguments[@]}"
