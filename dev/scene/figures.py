#!/usr/bin/env python3
"""What `dinov3 scene embed` costs: memory with the size of the scene, time for what is empty, and speed beside the
encoder's own. Called by run.sh --figures, with a release build on a machine that has nothing else to do. Linux only."""

import argparse
import contextlib
import functools
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import rasterio
from rasterio.windows import Window

from common import DEFLATE, NORTH_UP, Checks, add_arguments, embed_command, land, parse_only, run
from server import SceneServer

TURNS = 5
# What is encoded, the side of the scene, the batches that `bench` times, and the share of its rate that must be kept.
SPEEDS = {
    "speed-s-bf16": ("vit_small_patch16_dinov3", "bf16", 4096, 20, 0.93),
    "speed-s-int8": ("vit_small_patch16_dinov3", "int8", 4096, 30, 0.90),
    "speed-b-bf16": ("vit_base_patch16_dinov3", "bf16", 3072, 8, 0.97),
    "speed-l-bf16": ("vit_large_patch16_dinov3", "bf16", 2048, 3, 0.97),
}


def write_large(path, side, **options):
    """A deflated RGB scene, row of tiles by row of tiles, from one strip of land shifted along: no two rows are alike."""
    block = 512
    strip = np.concatenate([land(3, block, 4096, 0)] * (side // 4096 + 2), 2)
    profile = dict(driver="GTiff", width=side, height=side, count=3, dtype="uint8", tiled=True, blockxsize=block,
                   blockysize=block, crs="EPSG:32633", transform=NORTH_UP, BIGTIFF="IF_SAFER", NUM_THREADS="ALL_CPUS",
                   ZLEVEL=1, **(DEFLATE | options))
    with rasterio.open(path, "w", **profile) as target:
        for top in range(0, side, block):
            rows = min(block, side - top)
            shift = top * 7 % 4096
            target.write(strip[:, :rows, shift : shift + side], window=Window(0, top, side, rows))
    return path


def write_sparse(path, side, patches):
    """An empty BigTIFF in which a few tiles are stored."""
    profile = dict(driver="GTiff", width=side, height=side, count=3, dtype="uint8", tiled=True, blockxsize=512,
                   blockysize=512, crs="EPSG:32633", transform=NORTH_UP, BIGTIFF="YES", SPARSE_OK="TRUE", nodata=0)
    data = np.maximum(land(3, 512, 512, 1), 1)
    random = np.random.default_rng(2)
    with rasterio.open(path, "w", **(profile | DEFLATE)) as target:
        for column, row in random.integers(0, side // 512, (patches, 2)):
            target.write(data, window=Window(512 * int(column), 512 * int(row), 512, 512))
    return path


def measured(command, seconds=None):
    """Runs it, at most so long; gives the peak of anonymous memory, the seconds, and what it said."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak, stopped = 0, False
    while process.poll() is None:
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            found = re.search(r"RssAnon:\s+(\d+) kB", text)
            peak = max(peak, int(found[1]) * 1024 if found else 0)
        if seconds and not stopped and time.monotonic() - start > seconds:
            process.send_signal(signal.SIGINT)
            stopped = True
        time.sleep(0.003)
    said = process.stderr.read()
    if process.returncode and not stopped:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{said}")
    return peak, time.monotonic() - start, said.strip().splitlines()[-1]


def memory(binary, folder, check):
    small = write_large(folder / "small.tif", 4096)
    large = write_large(folder / "large.tif", 30000)
    print(f"memory: the large scene has {large.stat().st_size / 1e9:.2f} GB", flush=True)

    def peak(path, stride, seconds=None):
        command = embed_command(binary, [path], folder / "memory.parquet", "--stride", stride, "--fresh")
        size_bytes, took, said = measured(command, seconds)
        print(f"memory: {path.stem}, stride {stride}: {size_bytes / 2**20:.1f} MiB anonymous, {took:.1f} s: {said}",
              flush=True)
        return size_bytes

    # Few chips, all over the scene; then every chip, for a minute.
    for strides, seconds in (((512, 4096), None), ((256, 256), 60)):
        one, other = peak(small, strides[0]), peak(large, strides[1], seconds)
        more = (other - one) / 2**20
        check(more <= 64, f"memory: {more:.1f} MiB more")
        yield f"30,000² takes {more:+.1f} MiB against 4,096² (stride {strides[1]})"
    large.unlink()


# As wide as ViT-S, and one block deep: memory and disk are the same, and it takes a twelfth of the time.
SHALLOW = """{"architecture": "vit_small_patch16_dinov3", "model_args": {"depth": 1}}"""


def dense(binary, folder, check, sides=(2048, 4096, 10000)):
    """`--dense` holds windows and pieces, and never the raster."""
    model = folder / "shallow.json"
    model.write_text(SHALLOW)
    options = ["-m", model, "--weights", "synthetic:1", "--precision", "bf16", "--fresh", "--window", "512", "--overlap", "128"]
    for output in ("dense.tif", "dense.zarr"):
        peaks = {}
        for side in sides:
            scene = folder / f"scene-{side}.tif"
            if not scene.exists():
                write_large(scene, side)
            command = [binary, "scene", "embed", "--dense", scene, *options, "-o", folder / output]
            peaks[side], took, said = measured([str(part) for part in command])
            print(f"dense: {side}², {output}: {peaks[side] / 2**20:.1f} MiB anonymous, {took:.1f} s: {said}", flush=True)
        small, large = peaks[sides[1]], peaks[sides[-1]]
        more = (large - small) / 2**20
        # Four times the cells, and the whole raster of 64 components is 100 MB, of all dimensions 600.
        check(more <= 64, f"dense: {output}: {more:.1f} MiB more")
        yield f"--dense of {sides[-1]:,}² takes {more:+.1f} MiB against {sides[1]:,}² ({output}, {large / 2**20:.0f} MiB)"


def sparse(binary, folder, check):
    path = write_sparse(folder / "sparse.tif", 100_000, 40)
    size_bytes, took, said = measured(embed_command(binary, [path], folder / "sparse.parquet"))
    print(f"sparse: {said}")
    check(size_bytes < 10**9 and took < 60, f"sparse: {size_bytes} bytes, {took:.1f} s")
    yield f"100,000² sparse: {size_bytes / 1e6:.0f} MB anonymous, {took:.1f} s"


def speed(model, precision, side, runs, bound, turns, binary, folder, check):
    """Chips per second from a file and from a server that takes 50 ms for each answer, beside `bench`, in turns."""
    webroot = folder / "web"
    webroot.mkdir()
    with SceneServer(webroot, latency_s=0.05) as server:
        options = ["-m", model, "--weights", "synthetic:7", "--precision", precision, "--batch-size", "8"]
        path = webroot / f"scene-{side}.tif"
        if not path.exists():
            write_large(path, side)
        scenes = {"file": path, "server": f"{server.url}/{path.name}"}
        rates = {"bench": [], "file": [], "server": []}
        for _ in range(turns):
            bench = run([binary, "bench", *options, "--size", 256, "--runs", runs, "--json"])
            rates["bench"].append(json.loads(bench.stdout)["images_per_second"])
            for name, scene in scenes.items():
                said = run([binary, "scene", "embed", scene, *options, "-o", folder / "speed.parquet"]).stderr
                chips, seconds = re.search(r"(\d+) chips in ([\d.]+) s", said).groups()
                rates[name].append(int(chips) / float(seconds))
        what = f"speed: {model} {precision}"
        for name, values in rates.items():
            listed = " ".join(f"{value:.2f}" for value in values)
            print(f"{what}: {name}: {listed} per second, median {statistics.median(values):.2f}", flush=True)
        for name in scenes:
            # Turn by turn: the machine's own speed comes and goes in minutes.
            ratio = statistics.median(one / other for one, other in zip(rates[name], rates["bench"]))
            check(ratio >= bound, f"{what}: from a {name} {ratio:.3f} of bench, {bound} wanted")
            yield f"{model} {precision} from a {name}: {ratio:.3f} of bench"


def main():
    known = {"memory": memory, "dense": dense, "sparse": sparse, **SPEEDS}
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, known)
    parser.add_argument("--turns", type=int, default=TURNS, help="of each side, for speed; default %(default)s")
    arguments = parser.parse_args()
    known |= {name: functools.partial(speed, *case, arguments.turns) for name, case in SPEEDS.items()}
    check, told = Checks(), []
    with tempfile.TemporaryDirectory(dir=arguments.keep) as scratch:
        for name in parse_only(arguments.only, known):
            folder = pathlib.Path(scratch) / name
            folder.mkdir()
            told.extend(known[name](arguments.binary.resolve(), folder, check))
    print("; ".join(told))
    print(f"{check.passed} of {check.passed + check.failed} bounds held; {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
