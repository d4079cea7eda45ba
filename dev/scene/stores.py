"""Zarr stores and smaller vectors, as zarr-python, xarray, zarr-cm, jsonschema, pyarrow, DuckDB and GeoPandas see them. The
truth is the GeoParquet file of the same command, and rasterio's transform. Called by check.py (`--only zarr`)."""

import hashlib
import json
import pathlib
import signal
import subprocess
import time

import duckdb
import geopandas
import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pyproj
import rasterio
import xarray
import zarr
import zarr_cm
from rasterio.transform import Affine

from common import embed_command, land, run, vectors_of, write_scene

ROOT = pathlib.Path(__file__).resolve().parents[2]
GEOEMB = json.loads((pathlib.Path(__file__).resolve().parent / "zarr-geoemb-v1.json").read_text())
CHUNK_BYTES, SHARD_BYTES = 4 << 20, 128 << 20


def digest(store):
    """Of every name and byte of a folder."""
    found = hashlib.sha256()
    for path in sorted(store.rglob("*")):
        found.update(str(path.relative_to(store)).encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


def quantized(vectors):
    """Bytes and scales as docs/scenes.md says."""
    largest = np.abs(vectors).max(1)
    scales = (largest.astype(np.float64) / 127).astype(np.float32)
    return np.rint(vectors.astype(np.float64) / scales.astype(np.float64)[:, None]).astype(np.int8), scales


def same_bits(ours, theirs):
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def stored(array, place):
    """Vectors of cells, [rows, dimensions]."""
    return np.ascontiguousarray(np.moveaxis(array[0][:, place[0], place[1]], 0, -1))


def check_geoemb(check, what, node):
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    errors = list(jsonschema.Draft202012Validator(GEOEMB, format_checker=checker).iter_errors(node))
    check(not errors, f"{what}: geoemb: {[error.message for error in errors]}")


def check_metadata(check, what, root, group, chip, stride):
    """The conventions' own validators."""
    node = json.loads((root / group / "zarr.json").read_text())
    check_geoemb(check, what, node)
    layout = node["attributes"]["geoemb:chip_layout"]
    check(layout["chip_size"] == [chip] * 2 and layout["stride"] == [stride] * 2, f"{what}: {layout}")
    nodes = [node] + [json.loads(path.read_text()) for path in sorted((root / group).glob("*/zarr.json"))
                      if path.parent.name not in ("x", "y", "time")]
    for document in nodes:
        for convention in (zarr_cm.proj, zarr_cm.spatial):
            try:
                held = convention.detect(document["attributes"]) == "r3"
                convention.validate_node_metadata(document)
            except (ValueError, TypeError) as error:
                held = False
                print(f"  {error}")
            check(held, f"{what}: {convention.__name__} of {document.get('shape', 'the group')}")
    return node["attributes"]


def check_one(check, what, store, group, scene, table, chip, stride, columns=("embedding",)):
    """A store of floats against the rows of the same scene."""
    attributes = check_metadata(check, what, store, group, chip, stride)
    opened = zarr.open_group(store, mode="r", path=group, use_consolidated=True)
    dataset = xarray.open_zarr(store, group=group or None, consolidated=True)
    with rasterio.open(scene) as source:
        transform, crs, height, width = source.transform, source.crs, source.height, source.width
    south_up = transform.e > 0
    rows, cells = opened["embeddings"].shape[2:]
    expected = [min(max(-(-(side - chip) // stride), 0) + 1, -(-side // stride)) for side in (height, width)]
    check([rows, cells] == expected, f"{what}: {rows} x {cells} cells")
    y, x = (table[name].to_numpy() // stride for name in ("y_px", "x_px"))
    place = (rows - 1 - y if south_up else y, x)
    missing = np.ones((rows, cells), bool)
    missing[place] = False
    for column in columns:
        name = column.replace("embedding", "embeddings", 1)
        array = opened[name]
        wanted = table[column].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
        values = array[:]
        check(same_bits(stored(values, place), wanted), f"{what}: {name} has other bits than the GeoParquet file")
        check(np.isnan(values[0][:, missing]).all(), f"{what}: {name} is NaN where there is no chip")
        check(array.metadata.dimension_names == ("time", "embedding", "y", "x"), f"{what}: dimensions of {name}")
        item = array.dtype.itemsize
        check(np.prod(array.chunks) * item <= CHUNK_BYTES and np.prod(array.shards) * item <= SHARD_BYTES,
              f"{what}: chunks of {array.chunks}, shards of {array.shards}")
        check(dataset[name].dims == ("time", "embedding", "y", "x"), f"{what}: dimensions in xarray")
        check(same_bits(dataset[name].values, values), f"{what}: xarray reads other values")
    shares = opened["valid_fraction"][0]
    check(same_bits(shares[place], table["valid_fraction"].to_numpy()), f"{what}: valid_fraction")
    check(np.isnan(shares[missing]).all(), f"{what}: valid_fraction is NaN where there is no chip")
    # Centres of chips, by rasterio.
    columns_px, rows_px = np.arange(cells) * stride + chip / 2, np.arange(rows) * stride + chip / 2
    centres_x = np.array([(transform * (column, 0))[0] for column in columns_px])
    centres_y = np.array([(transform * (0, row))[1] for row in rows_px])
    centres_y = centres_y[::-1] if south_up else centres_y
    size = max(abs(transform.a), abs(transform.e))
    for axis, centres in (("x", centres_x), ("y", centres_y)):
        off = np.abs(dataset[axis].values - centres).max() / size
        check(off < 1e-6, f"{what}: {axis} is off by {off} pixels")
    of_cells = Affine(*attributes["spatial:transform"])
    off = np.abs(np.array(of_cells * (0.5, 0.5)) - (centres_x[0], centres_y[0])).max() / size
    check(off < 1e-6 and of_cells.e < 0, f"{what}: spatial:transform is off by {off} pixels")
    check(np.isclose(of_cells.a, transform.a * stride) and np.isclose(-of_cells.e, abs(transform.e) * stride),
          f"{what}: cells of {of_cells.a} x {of_cells.e}")
    west, south, east, north = attributes["spatial:bbox"]
    right, bottom = of_cells * (cells, rows)
    check(np.allclose((west, north, east, south), (of_cells.c, of_cells.f, right, bottom)), f"{what}: spatial:bbox")
    check(attributes["spatial:shape"] == [rows, cells], f"{what}: spatial:shape")
    code = attributes.get("proj:code") or attributes["proj:wkt2"]
    check(pyproj.CRS(code).equals(pyproj.CRS(crs.to_wkt()), ignore_axis_order=True), f"{what}: proj:code {code}")
    check(np.issubdtype(dataset["time"].dtype, np.datetime64)
          and dataset["time"].values[0] == np.datetime64("2026-05-17"), f"{what}: time is {dataset['time'].values}")
    dataset.close()
    return rows * cells


# Systems without a code, whose stores have WKT 2.
WITHOUT_CODE = (
    "+proj=utm +zone=33 +south +datum=WGS84", "+proj=tmerc +lat_0=40.5 +lon_0=9 +k_0=0.9999 +x_0=1500000 +y_0=5 +datum=WGS84",
    "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80 +units=m", "+proj=laea +lat_0=5 +lon_0=20 +R=6371228",
    "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +x_0=0 +y_0=0 +datum=NAD83 +units=m",
    "+proj=lcc +lat_1=33 +lat_2=45 +lat_0=39 +lon_0=-96 +datum=NAD83 +units=us-ft", "+proj=longlat +datum=WGS84",
    "+proj=stere +lat_0=90 +lat_ts=70 +lon_0=-45 +datum=WGS84", "+proj=stere +lat_0=-90 +lon_0=0 +k_0=0.97 +x_0=2e6 +datum=WGS84",
    "+proj=cea +lat_ts=30 +lon_0=0 +datum=WGS84", "+proj=cea +lat_ts=30 +R=6371228", "+proj=sinu +lon_0=0 +R=6371007.181",
)


def check_without_code(binary, folder, check):
    """What PROJ makes of the WKT 2 in a store, against what it makes of the string."""
    for number, system in enumerate(WITHOUT_CODE):
        crs = pyproj.CRS(system)
        to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
        lon, lat = next((place for part, place in (("-96", (-96, 40)), ("lat_0=-90", (10, -80)), ("lat_0=90", (10, 80)))
                         if part in system), (14, 41))
        x, y = to_degrees.transform(lon, lat, direction="INVERSE")
        size = 1e-3 if crs.is_geographic else 100
        scene = write_scene(folder / f"zarr-crs-{number}.tif", land(3, 64, 64, seed=40), crs=None,
                            transform=Affine(size, 0, x, 0, -size, y))
        store = folder / f"zarr-crs-{number}.zarr"
        run(embed_command(binary, [scene], store, "--crs", system, "--chip", 32))
        attributes = json.loads((store / "zarr.json").read_text())["attributes"]
        document = json.loads((store / "embeddings" / "zarr.json").read_text())
        zarr_cm.proj.validate_node_metadata(document)
        written = pyproj.CRS.from_wkt(attributes["proj:wkt2"])
        again = pyproj.Transformer.from_crs(written, written.geodetic_crs, always_xy=True)
        points = x + size * np.arange(0, 64, 7), y - size * np.arange(0, 64, 7)
        off = np.abs(np.array(again.transform(*points)) - np.array(to_degrees.transform(*points))).max()
        check(off < 1e-9, f"zarr: {system}: its WKT 2 is off by {off} degrees")
        ellipsoids = [(found.ellipsoid.semi_major_metre, found.ellipsoid.inverse_flattening) for found in (crs, written)]
        check(np.allclose(*ellipsoids, rtol=1e-12), f"zarr: {system}: ellipsoids {ellipsoids}")
        check(np.isclose(crs.axis_info[0].unit_conversion_factor, written.axis_info[0].unit_conversion_factor, rtol=1e-9),
              f"zarr: {system}: units")
    return len(WITHOUT_CODE)


def store_scenes(folder):
    """Name, path."""
    odd = dict(height=513, width=700)
    yield "odd", write_scene(folder / "zarr-odd.tif", land(3, **odd, seed=21))
    holes = np.maximum(land(3, **odd, seed=22), 1)
    holes[:, 100:420, 200:600] = 0
    yield "no-data", write_scene(folder / "zarr-no-data.tif", holes, nodata=0)
    degrees = Affine(1e-4, 0, 12.5, 0, -1e-4, -33.25)
    yield "degrees", write_scene(folder / "zarr-degrees.tif", land(3, **odd, seed=23), crs="EPSG:4326", transform=degrees)
    up = Affine(10, 0, 399960, 0, 10, 4200000)
    yield "south-up", write_scene(folder / "zarr-south-up.tif", land(3, **odd, seed=24), transform=up)
    yield "one", write_scene(folder / "zarr-one.tif", land(3, 60, 60, seed=25))


def check_stores(binary, folder, sample, check):
    binary, cells, stores = pathlib.Path(binary), 0, 0

    def make(scenes, name, *options, codes=(0,)):
        output = folder / name
        run(embed_command(binary, scenes, output, "--datetime", "2026-05-17", *options), codes)
        return output

    scenes = dict(store_scenes(folder))
    for name, scene in scenes.items():
        for chip, stride in ((64, 64), (64, 48), (128, 32), (32, 100)):
            what = f"zarr: {name}, chip {chip}, stride {stride}"
            options = ("--chip", chip, "--stride", stride, "--pool", "avg,token")
            table = pq.read_table(make([scene], "zarr.parquet", *options))
            store = make([scene], f"zarr-{name}.zarr", *options)
            cells += check_one(check, what, store, "", scene, table, chip, stride, ("embedding", "embedding_token"))
            stores += 1
        print(f"zarr: {name}", flush=True)

    # Several scenes: a group each.
    both = [scenes["odd"], scenes["degrees"]]
    options = ("--chip", 64, "--embedding-type")
    table = pq.read_table(make(both, "zarr.parquet", *options, "f32"))
    store = make(both, "zarr-several.zarr", *options, "f32")
    for scene in both:
        rows = table.filter(np.array(table["source"].to_pylist()) == str(scene))
        cells += check_one(check, f"zarr: several, {scene.stem}", store, scene.stem, scene, rows, 64, 64)
    check(sorted(zarr.open_group(store, mode="r").group_keys()) == sorted(scene.stem for scene in both),
          "zarr: groups of several scenes")
    tree = xarray.open_datatree(store, engine="zarr")
    check(sorted(tree.children) == sorted(scene.stem for scene in both), "zarr: groups in xarray's tree")
    tree.close()

    # Smaller vectors.
    scene = scenes["no-data"]
    floats = pq.read_table(make([scene], "f32.parquet", *options, "f32"))
    vectors = vectors_of(floats)
    halves = vectors.astype(np.float16)
    bytes_, scales = quantized(vectors)
    place = floats["y_px"].to_numpy() // 64, floats["x_px"].to_numpy() // 64
    for kind in ("f16", "int8"):
        parquet, store = (make([scene], f"{kind}.{ending}", *options, kind) for ending in ("parquet", "zarr"))
        attributes = check_metadata(check, f"zarr: {kind}", store, "", 64, 64)
        opened, table = zarr.open_group(store, mode="r"), pq.read_table(parquet)
        check(table["id"].equals(floats["id"]), f"zarr: {kind}: rows")
        found = stored(opened["embeddings"][:], place)
        missing = np.ones(opened["embeddings"].shape[2:], bool)
        missing[place] = False
        database = duckdb.connect().sql(f"SELECT * FROM '{parquet}'")
        frame = geopandas.read_parquet(parquet)
        if kind == "f16":
            check(same_bits(vectors_of(table), halves), "parquet: f16 in pyarrow")
            check(same_bits(np.stack(frame.embedding).astype(np.float16), halves), "parquet: f16 in GeoPandas")
            theirs = database.fetchnumpy()["embedding"]
            check(np.array_equal(np.stack(theirs).astype(np.float32), halves.astype(np.float32)), "parquet: f16 in DuckDB")
            check(same_bits(found, halves), "zarr: f16")
            check(np.isnan(opened["embeddings"][0][:, missing]).all(), "zarr: f16 is NaN where there is no chip")
            check(attributes["geoemb:data_type"] == "float16", "zarr: f16: data_type")
            continue
        rows = {"pyarrow": table["embedding"].to_pylist(), "GeoPandas": list(frame.embedding),
                "DuckDB": [bytes(value) for value in database.fetchnumpy()["embedding"]]}
        for reader, column in rows.items():
            check(same_bits(np.stack([np.frombuffer(row, np.int8) for row in column]), bytes_), f"parquet: int8 in {reader}")
        check(same_bits(table["embedding_scale"].to_numpy(), scales), "parquet: embedding_scale")
        check(same_bits(found, bytes_), "zarr: int8")
        check(same_bits(opened["scales"][0][place], scales), "zarr: scales")
        check(np.isnan(opened["scales"][0][missing]).all(), "zarr: scales are NaN where there is no chip")
        check(attributes["geoemb:quantization"]["scale"]["array_name"] == "scales", "zarr: int8: quantization")
        dataset = xarray.open_zarr(store)
        restored = (dataset.embeddings * dataset.scales).values[0][:, place[0], place[1]].T
        check(np.abs(restored - vectors).max() <= scales.max() * 0.5001, "zarr: int8 comes back within half a step")
        dataset.close()

    # Many chunks and shards: an invented raster.
    for kind in ("f32", "f16", "int8"):
        store = folder / f"invented-{kind}.zarr"
        run(["cargo", "run", "--quiet", "--manifest-path", ROOT / "Cargo.toml", "-p", "dinov3-sink", "--example",
             "write_zarr", "--", store, 700, 650, 64, kind])
        opened = zarr.open_group(store, mode="r")
        array = opened["embeddings"]
        row, column = np.mgrid[0:650, 0:700]
        hole = ((row // 130 + column // 130) % 3 == 0) | (row * column % 11 == 10)
        wanted = ((row * 7 + column * 13 + np.arange(64)[:, None, None] * 29) % 251 - 125).astype(np.float32)
        found = array[0].astype(np.float32)
        if kind == "int8":
            found *= opened["scales"][0]
            held = np.allclose(found[:, ~hole], wanted[:, ~hole], rtol=0, atol=0.5) and np.isnan(opened["scales"][0][hole]).all()
        else:
            held = (found[:, ~hole] == wanted[:, ~hole]).all() and np.isnan(found[:, hole]).all()
        files = [path for path in store.glob("embeddings/c/**/*") if path.is_file()]
        check(held and len(files) == np.prod([-(-side // shard) for side, shard in zip(array.shape, array.shards)]),
              f"zarr: invented, {kind}: {len(files)} shards")
        check(np.prod(array.chunks) * array.dtype.itemsize <= CHUNK_BYTES
              and np.prod(array.shards) * array.dtype.itemsize <= SHARD_BYTES, f"zarr: invented, {kind}: sizes")
        for convention in (zarr_cm.proj, zarr_cm.spatial):
            convention.validate_node_metadata(json.loads((store / "embeddings" / "zarr.json").read_text()))
        check_geoemb(check, f"zarr: invented, {kind}", json.loads((store / "zarr.json").read_text()))
        print(f"zarr: invented, {kind}: chunks of {array.chunks[2:]}, shards of {array.shards[2:]}, "
              f"{sum(path.stat().st_size for path in files) / (np.prod(array.shape) * array.dtype.itemsize):.3f} of the size")

    # The same bytes whatever the run.
    reference = digest(make([scene], "same.zarr", *options, "int8"))
    for number, more in enumerate([()] + [("--threads", threads) for threads in (1, 2, 3, 4)]):
        store = make([scene], "same.zarr", *options, "int8", *more)
        check(digest(store) == reference, f"zarr: run {number} gave other bytes")

    # Killed runs leave the old store, and are continued.
    small = ("--chip", 64, "--stride", 32)
    wanted = digest(make([scenes["odd"]], "killed.zarr", *small))
    killed = folder / "killed.zarr"
    old = digest(make([scene], "killed.zarr", "--chip", 64))
    kills = 0
    for moment in np.linspace(0.3, 6, 12):
        command = embed_command(binary, [scenes["odd"]], killed, "--datetime", "2026-05-17", *small, "--resume")
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            time.sleep(0.05)
        now = digest(killed)
        check(now in (old, wanted), f"zarr: killed after {moment:.1f} s, neither the old store nor the new one is there")
        if now == wanted:
            break
    run(embed_command(binary, [scenes["odd"]], killed, "--datetime", "2026-05-17", *small, "--resume"))
    check(digest(killed) == wanted, "zarr: a run that was killed gave other bytes")
    left = [path.name for path in folder.iterdir() if path.name.startswith(".killed")]
    check(not left, f"zarr: left over: {left}")

    systems = check_without_code(binary, folder, check)

    # What cannot be is refused with what helps.
    rotated = write_scene(folder / "zarr-rotated.tif", land(3, 128, 128, seed=26),
                          transform=Affine(10, 2, 399960, 2, -10, 4200000))
    other = folder / "other.zarr"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for scene, name, options, code, word in (
        (scenes["odd"], "refused.zarr", ("--edges", "shift"), 2, "--edges pad"),
        (rotated, "refused.zarr", (), 1, "gdalwarp"),
        (scenes["odd"], "refused.zarr", ("--crs", "+proj=tmerc +lon_0=15 +ellps=bessel +towgs84=598,73,418"), 1, "--crs EPSG"),
        (scenes["odd"], "other.zarr", (), 1, "is not a Zarr store that dinov3 wrote"),
    ):
        said = run(embed_command(binary, [scene], folder / name, "--chip", 64, *options), codes=(code,)).stderr
        check(word in said and not (folder / "refused.zarr").exists(), f"zarr: refused, but said {said!r}")
    check((other / "notes.txt").read_text() == "mine", "zarr: somebody's folder stays")
    return (f"zarr: {cells} cells of {stores + 2} rasters equal the rows of GeoParquet; {systems} systems as "
            f"WKT 2; {kills} kills; "
            f"zarr {zarr.__version__}, xarray {xarray.__version__}, zarr-cm {zarr_cm.__version__}")
