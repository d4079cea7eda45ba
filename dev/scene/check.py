#!/usr/bin/env python3
"""Is `dinov3 scene embed` right? Chips are cut once more with GDAL and numpy and embedded as arrays: the same bits.
Footprints are taken back to pixels by PROJ. Runs are killed, files broken, servers late. Called by run.sh."""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyproj
import pyarrow.parquet as pq
import rasterio
import shapely
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from common import (MEAN, MODEL, NORTH_UP, STD, Checks, add_arguments, embed, embed_command, land, parse_only, run,
                    vectors_of, write_scene)
from cut import check_cut
from dense import check_dense, check_seams
from dense_folder import check_dense_folder
from radiometry import check_radiometry
from server import SceneServer
from sources import check_sources
from stores import check_stores
from zarr_jobs import check_zarr_jobs

HERE = pathlib.Path(__file__).resolve().parent
CHIP_PX = 256
FOOTPRINT_PX = 0.1  # what a footprint may be off, in pixels


# Pixels

def starts(length, stride, edges):
    """Where chips start along a side."""
    if edges == "drop":
        return [start for start in range(0, length, stride) if start + CHIP_PX <= length]
    found = []
    for start in range(0, length, stride):
        found.append(start)
        if start + CHIP_PX >= length:
            break
    return [max(0, min(start, length - CHIP_PX)) for start in found] if edges == "shift" else found


def normalised(samples, scale):
    """timm's arithmetic: 32-bit floats, one operation after the other."""
    if scale is None:
        unit = samples.astype(np.float32) / np.float32(255)
    else:
        low, high = scale
        unit = np.clip((samples.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
    return (unit - mean) / std


class Truth:
    """The chips of a scene as GDAL and numpy see them."""

    def __init__(self, path, bands, scale):
        with rasterio.open(path) as scene:
            self.width, self.height = scene.width, scene.height
            self.samples = scene.read(bands)
            # Of the bands that are used: the others cost reading, and may be in other files.
            self.valid = scene.read_masks(bands).any(0)
        if len(self.samples) == 1:
            self.samples = self.samples.repeat(3, 0)
        self.scale = scale

    def chip(self, x, y):
        """The window that lies in the scene, the share of its pixels that is valid, and the encoder's pixels."""
        width, height = min(CHIP_PX, self.width - x), min(CHIP_PX, self.height - y)
        inside = (slice(y, y + height), slice(x, x + width))
        padding = ((0, CHIP_PX - height), (0, CHIP_PX - width))
        pixels = normalised(np.pad(self.samples[:, *inside], ((0, 0), *padding), mode="reflect"), self.scale)
        valid = self.valid[inside]
        pixels[:, ~np.pad(valid, padding, mode="reflect")] = 0
        return (x, y, width, height), np.float32(valid.mean()), pixels

    def windows(self, stride, edges):
        return [(x, y) for y in starts(self.height, stride, edges) for x in starts(self.width, stride, edges)]


def pixel_scenes(folder, sample):
    """Name, path, bands, scale, options."""
    odd = dict(height=513, width=700)
    y, x = np.mgrid[0:513, 0:700]
    circle = (x - 350) ** 2 + (y - 250) ** 2 < 280**2
    yield "sample", shutil.copy(sample, folder / "sample.tif"), [1, 2, 3], None, []
    yield "odd", write_scene(folder / "odd.tif", land(3, **odd, seed=1)), [1, 2, 3], None, []
    masked = write_scene(folder / "masked.tif", land(3, **odd, seed=2), mask=circle)
    yield "masked", masked, [1, 2, 3], None, []
    alpha = np.where(circle, np.where(x < 300, 255, 7), 0).astype("uint8")
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with_alpha = np.concatenate([land(3, **odd, seed=3), alpha[None]])
    yield "alpha", write_scene(folder / "alpha.tif", with_alpha, colours=colours), [1, 2, 3], None, []
    holes = np.maximum(land(3, **odd, seed=4), 1)
    holes[:, ~circle] = 0
    holes[0, 100:200, 300:400] = 0  # in one band alone: data
    yield "no-data", write_scene(folder / "no-data.tif", holes, nodata=0), [1, 2, 3], None, []
    yield "grey", write_scene(folder / "grey.tif", land(1, **odd, seed=5)), [1], None, []
    deep = land(4, **odd, seed=6, levels=6000, dtype="uint16")
    deep[:, ~circle] = 0
    options = ["--scale", "range 1000,4000", "--bands", "3,2,1"]
    yield "u16", write_scene(folder / "u16.tif", deep, nodata=0), [3, 2, 1], (1000, 4000), options
    strips = write_scene(folder / "strips.tif", land(3, **odd, seed=7), tiled=False, blockysize=5, interleave="band")
    yield "strips", strips, [1, 2, 3], None, []


def check_pixels(binary, folder, sample, check, outputs):
    rows, files = 0, 0
    for name, path, bands, scale, options in pixel_scenes(folder, sample):
        truth = Truth(path, bands, scale)
        cuts = [(stride, edges) for stride in (256, 100) for edges in ("pad", "drop", "shift")]
        # Every window once, whoever asks for it.
        windows = sorted({window for cut in cuts for window in truth.windows(*cut)})
        chips = {window: truth.chip(*window) for window in windows}
        array, expected = folder / f"{name}.npy", folder / f"{name}-expected.npy"
        np.save(array, np.stack([pixels for _, _, pixels in chips.values()]))
        run([binary, "embed", array, "--preprocess", "none", *MODEL, "-o", expected])
        array.unlink()
        expected = dict(zip(chips, np.load(expected)))
        for stride, edges in cuts:
            what = f"{name}, stride {stride}, {edges}"
            output = folder / f"{name}-{stride}-{edges}.parquet"
            _, table = embed(binary, [path], output, *options, "--stride", stride, "--edges", edges)
            outputs.append(output)
            wanted = {f"{path}#xywh={x},{y},{CHIP_PX},{CHIP_PX}": (x, y) for x, y in truth.windows(stride, edges)}
            wanted = {key: window for key, window in wanted.items() if chips[window][1] >= 0.5}
            ids = table["id"].to_pylist()
            if not check(sorted(ids) == sorted(wanted), f"{what}: {len(ids)} rows, {len(wanted)} expected"):
                continue
            places = list(zip(*(table[column].to_pylist() for column in ("x_px", "y_px", "width_px", "height_px"))))
            check(places == [chips[wanted[key]][0] for key in ids], f"{what}: x_px, y_px, width_px, height_px")
            shares = np.array([chips[wanted[key]][1] for key in ids])
            check((table["valid_fraction"].to_numpy() == shares).all(), f"{what}: valid_fraction")
            theirs = np.stack([expected[wanted[key]] for key in ids])
            same = (vectors_of(table).view(np.uint32) == theirs.view(np.uint32)).all(1)
            check(same.all(), f"{what}: {np.sum(~same)} of {len(ids)} embeddings have other bits")
            rows += len(ids)
            files += 1
        print(f"pixels: {name}: {len(windows)} chips, {len(cuts)} cuts", flush=True)
    return f"{rows} rows in {files} files have the bits of arrays cut by GDAL and numpy"


# Footprints

def footprint_scenes(folder):
    """Name, path, reference system, options: small ones, so that models cost little."""
    systems = {
        "utm-south": ("EPSG:32735", Affine(10, 0, 500000, 0, -10, 7000000)),
        "arctic": ("EPSG:3413", Affine(500, 0, -350000, 0, -500, 90000)),
        "antarctic": ("EPSG:3031", Affine(500, 0, -40000, 0, -500, 1200000)),
        "web-mercator": ("EPSG:3857", Affine(38.2, 0, 1489000, 0, -38.2, 6894000)),
        "degrees": ("EPSG:4326", Affine(0.00025, 0, 13.1, 0, -0.00025, 52.5)),
        "laea": ("EPSG:3035", Affine(100, 0, 4321000, 0, -100, 3210000)),
        "lambert": ("EPSG:2154", Affine(20, 0, 652000, 0, -20, 6862000)),
        "albers": ("EPSG:5070", Affine(30, 0, -1950000, 0, -30, 2000000)),
        "ease": ("EPSG:6933", Affine(3000, 0, 9000000, 0, -3000, 5100000)),
        "proj-string": ("+proj=laea +lat_0=-23.5 +lon_0=133.8 +datum=WGS84 +units=m", Affine(250, 0, -1e5, 0, -250, 2e5)),
        # Written into the file, with the shift of its datum.
        "own-datum": ("+proj=utm +zone=33 +ellps=GRS80 +towgs84=500,600,700 +units=m", NORTH_UP),
        "rotated": ("EPSG:32633", NORTH_UP * Affine.rotation(27)),
        "sheared": ("EPSG:3035", Affine(20, 3, 4321000, 4, -25, 3210000)),
        "south-up": ("EPSG:32633", Affine(10, 0, 399960, 0, 10, 4200000)),
        "antimeridian": ("EPSG:32760", Affine(30, 0, 812000, 0, -30, 8110000)),
    }
    for seed, (name, (crs, transform)) in enumerate(systems.items()):
        is_own = crs.startswith("+") and name != "own-datum"
        path = folder / f"{name}.tif"
        write_scene(path, land(3, 200, 330, seed), crs=None if is_own else crs, transform=transform)
        yield name, path, crs, transform, ["--crs", crs] if is_own else []


def outline_points(geometry):
    """Points along a polygon's edges, 16 each, without those at the antimeridian, which are not the chip's."""
    for part in shapely.get_parts(geometry):
        ring = shapely.get_coordinates(shapely.get_exterior_ring(part))
        for one, other in zip(ring, ring[1:]):
            if abs(one[0]) == 180 and abs(other[0]) == 180:
                continue
            yield from one + (other - one) * np.linspace(0, 1, 16)[:, None]


def check_footprints(binary, folder, check, outputs):
    rows, worst_corner, worst_edge = 0, 0.0, 0.0
    for name, path, crs, transform, options in footprint_scenes(folder):
        output = folder / f"{name}.parquet"
        _, table = embed(binary, [path], output, "--chip", 64, *options)
        outputs.append(output)
        if not check(table.num_rows == 24, f"{name}: {table.num_rows} rows, 24 expected"):
            continue
        to_scene = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)

        def to_pixels(points):
            x, y = to_scene.transform(*np.asarray(points).T, errcheck=True)
            return np.stack(~transform * (np.asarray(x), np.asarray(y)), 1)

        epsg = pyproj.CRS(crs).to_epsg() if not options else None
        check(table["epsg"].to_pylist() == [epsg] * 24, f"{name}: epsg {table['epsg'][0]}")
        geometries = shapely.from_wkb(table["geometry"].to_pylist())
        check(bool(shapely.is_valid(geometries).all()), f"{name}: a polygon is not valid")
        for row, geometry in zip(table.select(["x_px", "y_px", "width_px", "height_px"]).to_pylist(), geometries):
            left, top = row["x_px"], row["y_px"]
            right, bottom = left + row["width_px"], top + row["height_px"]
            vertices = to_pixels(shapely.get_coordinates(geometry))
            corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
            far = np.linalg.norm(vertices[None] - corners[:, None], axis=2).min(1).max()
            window = shapely.LinearRing(corners)
            outline = to_pixels(list(outline_points(geometry)))
            off = shapely.distance(window, shapely.points(outline)).max()
            # And the outline is whole: no part of the window is missing.
            area = shapely.Polygon(vertices).area if geometry.geom_type == "Polygon" else None
            check(far <= FOOTPRINT_PX, f"{name}: {row}: a corner is off by {far:.3f} px")
            check(off <= FOOTPRINT_PX, f"{name}: {row}: an edge is off by {off:.3f} px")
            size = row["width_px"] * row["height_px"]
            check(area is None or abs(area - size) < FOOTPRINT_PX * 4 * 64, f"{name}: {row}: {area} of {size} px²")
            worst_corner, worst_edge = max(worst_corner, far), max(worst_edge, off)
            rows += 1
        multi = sum(geometry.geom_type == "MultiPolygon" for geometry in geometries)
        check((multi > 0) == (name == "antimeridian"), f"{name}: {multi} MultiPolygons")
    print(f"footprints: {rows} rows, corners within {worst_corner:.4f} px, edges within {worst_edge:.4f} px", flush=True)
    return f"{rows} footprints lie on their pixels to {max(worst_corner, worst_edge):.3f} px"


# Validators

def check_validators(outputs, check):
    """Those of dev/geoparquet."""
    chosen = [output for output in outputs if "-100-" not in output.name]
    result = subprocess.run([HERE.parent / "geoparquet" / "run.sh", *chosen], capture_output=True, text=True, timeout=3000)
    lines = result.stdout.splitlines()
    for line in lines:
        if "FAILED" in line or result.returncode:
            print(f"  {line.strip()}")
    if not check(result.returncode == 0, f"validators: exit code {result.returncode}"):
        print(result.stderr[-2000:])
    return f"validators: {lines[-1] if lines else 'nothing said'}"


# Interruptions and damage

def check_resume(binary, folder, check):
    scenes = [write_scene(folder / f"run-{index}.tif", land(3, 800, 1000, 20 + index)) for index in range(3)]
    output = folder / "resumed.parquet"
    command = embed_command(binary, scenes, output, "--chip", 128, "--stride", 100, "--datetime", "2026-05-17")
    start = time.monotonic()
    run(command)
    took = time.monotonic() - start
    expected = output.read_bytes()
    output.unlink()
    kills = 0
    for share in (0.15, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(share * took)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            check(not output.exists(), f"killed after {share} of a run: an output is there already")
            if share >= 0.6:
                # A second time, while it continues.
                process = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(0.05 * took)
                process.kill()
                process.wait()
            if not output.exists():
                run([*command, "--resume"])
        check(output.read_bytes() == expected, f"killed after {share} of a run: the output differs")
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        check(not left, f"killed after {share} of a run: {left} is left")
        output.unlink()
    print(f"resume: {kills} kills in runs of {took:.1f} s", flush=True)
    check(kills >= 4, f"only {kills} runs could be killed")

    # One tile of three scenes is broken.
    whole = pq.read_table(pathlib.Path(write_bytes(folder / "whole.parquet", expected)))
    sound = scenes[1].read_bytes()
    with rasterio.open(scenes[1]) as scene:
        offset, size = (int(scene.get_tag_item(f"BLOCK_{fact}_2_3", "TIFF", 1)) for fact in ("OFFSET", "SIZE"))
        blocks = scene.block_shapes[0]
    broken = bytearray(sound)
    broken[offset + size // 3 : offset + size // 2] = b"\xff" * (size // 2 - size // 3)
    scenes[1].write_bytes(broken)
    result, table = embed(binary, scenes, output, "--chip", 128, "--stride", 100, "--datetime", "2026-05-17", codes=(0, 1, 3))
    check(result.returncode == 3, f"a broken tile: exit code {result.returncode}, {result.stderr}")
    left, top = 2 * blocks[1], 3 * blocks[0]  # BLOCK_OFFSET_X_Y

    def meets(row):
        return (row["source"] == str(scenes[1]) and row["x_px"] < left + blocks[1] and row["x_px"] + row["width_px"] > left
                and row["y_px"] < top + blocks[0] and row["y_px"] + row["height_px"] > top)

    lost = [meets(row) for row in whole.select(["source", "x_px", "y_px", "width_px", "height_px"]).to_pylist()]
    there = whole.filter([not gone for gone in lost])
    check(sum(lost) > 0 and table.equals(there), f"a broken tile: {table.num_rows} rows, {len(there)} of {len(whole)} expected")
    print(f"damage: {sum(lost)} chips lost, exit code {result.returncode}: {result.stderr.strip().splitlines()[-1]}", flush=True)
    # Repaired. What a second run does.
    scenes[1].write_bytes(sound)
    result, table = embed(binary, scenes, output, "--chip", 128, "--stride", 100, "--datetime", "2026-05-17", "--resume")
    check(output.read_bytes() == expected, "the second run after the repair: the output differs")
    print(f"damage: second run: {' / '.join(result.stderr.strip().splitlines()[-2:])}", flush=True)
    return f"{kills} killed runs continued to the same bytes"


def write_bytes(path, data):
    path.write_bytes(data)
    return path


# Servers

def same_but_for_names(local, remote, url):
    """Whether two tables are the same, but for the names of their scenes."""
    if local.num_rows != remote.num_rows or local.schema.names != remote.schema.names:
        return False
    names = [name for name in local.schema.names if name not in ("id", "source")]
    fragments = [[text.rsplit("#", 1)[1] for text in table["id"].to_pylist()] for table in (local, remote)]
    return (local.select(names).equals(remote.select(names)) and fragments[0] == fragments[1]
            and set(remote["source"].to_pylist()) == {url})


def check_server(binary, folder, sample, check):
    webroot = folder / "web"
    webroot.mkdir(exist_ok=True)
    small = write_scene(webroot / "small.tif", land(3, 700, 900, 30))
    cog = pathlib.Path(shutil.copy(sample, webroot / "sample.tif"))
    lines = []
    for path in (small, cog):
        with rasterio.open(path) as scene:
            tiles = sum(1 for _ in scene.block_windows(1))
        budget = 1.1 * tiles + 2
        _, local = embed(binary, [path], folder / "local.parquet")
        # Few requests fetch a whole scene: every other one fails.
        for latency_s, fault_every in ((0.05, None), (0.05, 2)):
            with SceneServer(webroot, latency_s=latency_s, fault_every=fault_every) as server:
                url = f"{server.url}/{path.name}"
                output = folder / "remote.parquet"
                _, remote = embed(binary, [url], output)
                asked, sent = len(server.requests) - server.faults, server.sent_bytes
                what = f"{path.name} over HTTP, {'faults' if fault_every else 'no faults'}"
                check(same_but_for_names(local, remote, url), f"{what}: other rows than those of the file")
                check(asked <= budget, f"{what}: {asked} requests for {tiles} tiles")
                check(sent <= 1.05 * path.stat().st_size + 65536, f"{what}: {sent} bytes of {path.stat().st_size}")
                check((server.faults > 0) == bool(fault_every) or tiles < 7, f"{what}: {server.faults} faults")
                lines.append(f"{asked} requests for {tiles} tiles")
                print(f"server: {what}: {asked} requests answered and {server.faults} refused, {tiles} tiles, "
                      f"{sent} of {path.stat().st_size} bytes", flush=True)
    with SceneServer(webroot, latency_s=0, ranges=False) as server:
        url = f"{server.url}/{small.name}"
        result = run(embed_command(binary, [url], folder / "ranges.parquet"), codes=(0, 1, 3))
        said = result.stderr.strip().splitlines()[-1]
        print(f"server: without ranges: exit code {result.returncode}, {len(server.requests)} requests, "
              f"{server.sent_bytes} bytes: {said}", flush=True)
        if result.returncode == 0:
            _, local = embed(binary, [small], folder / "local.parquet")
            check(same_but_for_names(local, pq.read_table(folder / "ranges.parquet"), url), "without ranges: other rows")
        else:
            check("whole files only" in said, f"without ranges: the message does not say so: {said}")
            check(not (folder / "ranges.parquet").exists(), "without ranges: an output is there")
    # One that is too large to be taken whole.
    large = write_bytes(webroot / "large.tif", small.read_bytes() + bytes(17 << 20))
    with SceneServer(webroot, latency_s=0, ranges=False) as server:
        result = run(embed_command(binary, [f"{server.url}/{large.name}"], folder / "large.parquet"), codes=(1,))
        said = result.stderr.strip().splitlines()[-1]
        check("whole files only" in said and len(server.requests) == 1, f"large, without ranges: {said}")
        check(not (folder / "large.parquet").exists(), "large, without ranges: an output is there")
    return f"over HTTP: {'; '.join(dict.fromkeys(lines))}"


def main():
    known = ("pixels", "radiometry", "footprints", "validators", "resume", "server", "sources", "cut", "dense", "seams",
             "dense-folder", "zarr", "zarr-jobs")
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, known)
    arguments = parser.parse_args()
    chosen = parse_only(arguments.only, known)
    binary = arguments.binary.resolve()
    check, outputs, told = Checks(), [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if "pixels" in chosen:
            told.append(check_pixels(binary, folder, arguments.sample, check, outputs))
        if "radiometry" in chosen:
            told.append(check_radiometry(binary, folder, check))
        if "footprints" in chosen or "validators" in chosen:
            told.append(check_footprints(binary, folder, check, outputs))
        if "validators" in chosen:
            told.append(check_validators(outputs, check))
        if "resume" in chosen:
            told.append(check_resume(binary, folder, check))
        if "server" in chosen:
            told.append(check_server(binary, folder, arguments.sample, check))
        if "sources" in chosen:
            told.append(check_sources(binary, folder, check))
        if "cut" in chosen:
            told.append(check_cut(binary, folder, check))
        if "dense" in chosen:
            told.append(check_dense(binary, folder, arguments.sample, check))
        if "dense-folder" in chosen:
            told.append(check_dense_folder(binary, folder, check))
        if "seams" in chosen:
            told.append(check_seams(binary, folder, check))
        if "zarr" in chosen:
            told.append(check_stores(binary, folder, arguments.sample, check))
        if "zarr-jobs" in chosen:
            told.append(check_zarr_jobs(binary, folder, check))
    print("\n".join(told))
    print(f"{check.passed} of {check.passed + check.failed} checks passed; {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
