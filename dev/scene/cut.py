"""Are chips cut where they shall be? Resampling against its definition in numpy, against Pillow and GDAL; areas of interest
against shapely; cells of grids against pyproj, h3 and mercantile. Called by check.py (`run.sh --only cut`)."""

import json
import math
import time

import geopandas
import h3
import mercantile
import numpy as np
import pyproj
import rasterio
import shapely
import utm
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from common import MEAN, MODEL, NORTH_UP, STD, embed, land, run, vectors_of, write_scene

CHIP_PX = 64
# Levels of 255 by which Pillow (two roundings) and GDAL (weights of its own, at the border too) may differ from us.
PILLOW_LEVELS, GDAL_LEVELS = 1, 1


# Resampling

def weights(source_px, factor, target_px):
    """[target, source]: an antialiased triangle, normalised."""
    centres = (np.arange(target_px) + 0.5) * factor
    away = np.abs((np.arange(source_px)[None] + 0.5 - centres[:, None]) / max(factor, 1))
    table = np.maximum(1 - away, 0)
    return table / table.cumsum(1)[:, -1:]


def summed(table, rows):
    """`table @ rows`, from the first row to the last: many levels lie just between two, and any order rounds them its way."""
    sums = np.zeros((len(table), *rows.shape[1:]))
    for at, row in enumerate(rows):
        used = np.flatnonzero(table[:, at])
        sums[used] += table[used, at][:, None] * row
    return sums


def resampled(samples, valid, gsd, pixel):
    """The definition, down and then across: samples as they would be, and which are valid."""
    factors = gsd / pixel[1], gsd / pixel[0]
    down, across = (weights(length, factor, max(1, math.floor(length / factor + 0.5)))
                    for length, factor in zip(valid.shape, factors))

    def both(plane):
        return summed(across, summed(down, plane).T).T

    share = both(valid.astype(float))
    sums = np.stack([both(np.where(valid, band.astype(float), 0)) for band in samples])
    keep = share >= 0.5 - 1e-9
    values = sums / np.where(share >= 1 - 1e-9, 1, np.where(keep, share, 1))
    if np.issubdtype(samples.dtype, np.integer):
        values = np.floor(values + 0.5)
    return np.where(keep, values, 0).astype(samples.dtype), keep


def normalised(samples, valid, scale):
    if scale is None:
        unit = samples.astype(np.float32) / np.float32(255)
    else:
        unit = np.clip((samples.astype(np.float64) - scale[0]) / (scale[1] - scale[0]), 0, 1).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
    pixels = (unit - mean) / std
    pixels[:, ~valid] = 0
    return pixels


def resampling_scenes(folder):
    """Name, path, ground sample distances, size of a pixel in metres, scale, options."""
    y, x = np.mgrid[0:413, 0:500]
    circle = (x - 250) ** 2 + (y - 200) ** 2 < 190**2
    size = dict(height=413, width=500)
    yield "bytes", write_scene(folder / "gsd-bytes.tif", land(3, **size, seed=40)), (15, 20, 33, 6), (10, 10), None, []
    masked = write_scene(folder / "gsd-mask.tif", land(3, **size, seed=41), mask=circle)
    yield "mask", masked, (20, 27.5, 8), (10, 10), None, []
    deep = land(3, **size, seed=42, levels=6000, dtype="uint16")
    deep[:, ~circle] = 0
    path = write_scene(folder / "gsd-u16.tif", deep, nodata=0)
    yield "u16", path, (20, 41), (10, 10), (0, 4000), ["--scale", "range 0,4000"]
    floats = (land(3, **size, seed=43, levels=6000, dtype="uint16") / 10000).astype("float32")
    floats[0, 50:60, 70:90] = np.nan
    path = write_scene(folder / "gsd-f32.tif", floats, predictor=3)
    yield "f32", path, (25,), (10, 10), (0, 0.5), ["--scale", "range 0,0.5"]
    oblong = write_scene(folder / "gsd-oblong.tif", land(3, **size, seed=44), transform=Affine(10, 0, 399960, 0, -5, 4200000))
    yield "oblong", oblong, (12,), (10, 5), None, []


def check_resampling(binary, folder, check):
    rows, worst = 0, {}
    for name, path, distances, pixel, scale, options in resampling_scenes(folder):
        with rasterio.open(path) as scene:
            source, transform, crs = scene.read(), scene.transform, scene.crs
            valid = scene.read_masks().any(0) & ~np.isnan(source.astype(float)).any(0)
        for gsd in distances:
            what = f"{name} at {gsd} m"
            levels, keep = resampled(np.nan_to_num(source), valid, gsd, pixel)
            output = folder / f"gsd-{name}-{gsd}.parquet"
            _, table = embed(binary, [path], output, "--gsd", gsd, "--chip", CHIP_PX, "--edges", "drop", *options)
            pixels = normalised(levels, keep, scale)
            windows = [(x, y) for y in range(0, keep.shape[0] - CHIP_PX + 1, CHIP_PX)
                       for x in range(0, keep.shape[1] - CHIP_PX + 1, CHIP_PX)]
            cut = {(x, y): (slice(y, y + CHIP_PX), slice(x, x + CHIP_PX)) for x, y in windows}
            shares = {window: keep[at].mean() for window, at in cut.items()}
            wanted = [window for window in windows if shares[window] >= 0.5]
            places = list(zip(table["x_px"].to_pylist(), table["y_px"].to_pylist()))
            if not check(sorted(places) == sorted(wanted), f"{what}: {len(places)} rows, {len(wanted)} expected"):
                continue
            ids = [f"{path}#xywh={x},{y},{CHIP_PX},{CHIP_PX}&gsd={gsd:g}" for x, y in places]
            check(table["id"].to_pylist() == ids, f"{what}: ids")
            same = np.isclose(table["valid_fraction"].to_numpy(), [shares[place] for place in places], atol=1e-7)
            check(same.all(), f"{what}: valid_fraction")
            array, expected = folder / "gsd.npy", folder / "gsd-expected.npy"
            np.save(array, np.stack([pixels[:, *cut[place]] for place in places]))
            run([binary, "embed", array, "--preprocess", "none", *MODEL, "-o", expected])
            same = (vectors_of(table).view(np.uint32) == np.load(expected).view(np.uint32)).all(1)
            check(same.all(), f"{what}: {np.sum(~same)} of {len(same)} embeddings have other bits")
            rows += len(same)
            check_footprint_corner(table, places, transform, gsd, pixel, crs, what, check)
            if source.dtype == np.uint8:
                compare_with_others(source, valid, levels, keep, gsd, transform, crs, what, worst, check)
    told = ", ".join(f"{name} within {level} levels (mean {mean:.4f})" for name, (level, mean) in sorted(worst.items()))
    print(f"resampling: {rows} rows have the bits of the definition in numpy; {told}", flush=True)
    return f"{rows} resampled chips have the bits of the definition; {told}"


def check_footprint_corner(table, places, transform, gsd, pixel, crs, what, check):
    """The upper left corner of each chip, by PROJ."""
    to_lon_lat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    grid = transform * Affine.scale(gsd / pixel[0], gsd / pixel[1])
    corners = np.array([to_lon_lat.transform(*(grid * place)) for place in places])
    for geometry, corner in zip(shapely.from_wkb(table["geometry"].to_pylist()), corners):
        near = np.abs(shapely.get_coordinates(geometry) - corner).max(1).min()
        check(near < 1e-8, f"{what}: a corner is {near} degrees off")


def compare_with_others(source, valid, levels, keep, gsd, transform, crs, what, worst, check):
    def note(name, difference, limit):
        level, mean = worst.get(name, (0, 0.0))
        worst[name] = (max(level, int(difference.max())), max(mean, float(difference.mean())))
        check(difference.max() <= limit, f"{what}: {difference.max()} levels beside {name}")

    height, width = keep.shape
    pixel = transform.a, -transform.e
    box = (0, 0, width * gsd / pixel[0], height * gsd / pixel[1])
    # Pillow knows no mask, and no box beyond the picture.
    if valid.all() and box[2] <= source.shape[2] and box[3] <= source.shape[1]:
        pillow = Image.fromarray(source.transpose(1, 2, 0)).resize((width, height), Image.Resampling.BILINEAR, box=box)
        note("Pillow", np.abs(np.asarray(pillow).transpose(2, 0, 1).astype(int) - levels), PILLOW_LEVELS)
    grid = transform * Affine.scale(gsd / pixel[0], gsd / pixel[1])
    gdal = np.zeros(levels.shape, np.uint8)
    if valid.all():
        reproject(source, gdal, src_transform=transform, dst_transform=grid, src_crs=crs, dst_crs=crs,
                  resampling=Resampling.bilinear, XSCALE=None, num_threads=1)
        # Beyond the source's border GDAL weighs otherwise.
        edge = math.ceil(max(1, pixel[0] / gsd)) + 1
        inside = np.s_[:, edge:-edge, edge:-edge]
        note("GDAL", np.abs(gdal.astype(int) - levels)[inside], GDAL_LEVELS)


# Areas of interest

def blobs(random, count, west, south, east, north, size):
    """Polygons that need not be convex, some with holes."""
    polygons = []
    for _ in range(count):
        middle = random.uniform((west, south), (east, north))
        angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 14)))
        radii = size * random.uniform(0.2, 1, len(angles))
        ring = middle + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        polygon = shapely.make_valid(shapely.Polygon(ring))
        if random.random() < 0.5:
            polygon = polygon.difference(polygon.centroid.buffer(size * 0.2))
        parts = [part for part in shapely.get_parts(polygon) if part.geom_type == "Polygon"]
        polygons.extend(parts)
    clipped = shapely.intersection(polygons, shapely.box(-180, -90, 180, 90))
    return [part for part in shapely.get_parts(clipped) if part.geom_type == "Polygon" and part.area > 0]


def check_areas(binary, folder, check):
    random = np.random.default_rng(50)
    rows, kept = 0, 0
    systems = {
        "utm": ("EPSG:32633", NORTH_UP), "polar": ("EPSG:3413", Affine(500, 0, -250000, 0, -500, 250000)),
        "antimeridian": ("EPSG:32760", Affine(30, 0, 812000, 0, -30, 8110000)),
    }
    for seed, (name, (crs, transform)) in enumerate(systems.items()):
        path = write_scene(folder / f"aoi-{name}.tif", land(3, 500, 700, 60 + seed), crs=crs, transform=transform)
        options = ["--chip", 32, "--stride", 25]
        _, whole = embed(binary, [path], folder / "aoi-all.parquet", *options)
        footprints = shapely.from_wkb(whole["geometry"].to_pylist())
        west, south, east, north = shapely.total_bounds(footprints)
        if name == "antimeridian":
            west, east = 179.7, 180.0
        for kind, count, size in (("few", 5, 0.08), ("many", 300, 0.004), ("one", 1, 0.5)):
            polygons = blobs(random, count, west, south, east, north, size * (east - west))
            frame = geopandas.GeoDataFrame(geometry=polygons, crs="OGC:CRS84")
            expected = shapely.intersects(footprints, frame.union_all())
            files = {"geojson": folder / "aoi.geojson", "parquet": folder / "aoi.parquet"}
            files["geojson"].write_text(frame.to_json(drop_id=True))
            frame.to_parquet(files["parquet"])
            for suffix, file in files.items():
                _, table = embed(binary, [path], folder / "aoi-some.parquet", *options, "--aoi", file)
                what = f"area {name}, {kind}, {suffix}"
                same = table.equals(whole.filter(list(expected)))
                check(same, f"{what}: {table.num_rows} rows, {expected.sum()} of {len(expected)} expected")
                rows, kept = rows + len(expected), kept + table.num_rows
            print(f"areas: {name}, {kind}: {expected.sum()} of {len(expected)} chips", flush=True)
    # In another reference system; and one that is none.
    frame = geopandas.GeoDataFrame(geometry=[shapely.box(402000, 4196000, 404500, 4198000)], crs="EPSG:32633")
    path = folder / "aoi-utm.tif"
    _, whole = embed(binary, [path], folder / "aoi-all.parquet", "--chip", 32)
    frame.to_parquet(folder / "aoi-utm.parquet")
    (folder / "aoi-utm.geojson").write_text(frame.to_json(drop_id=True, to_wgs84=False))
    left, right, top, bottom = (402000 - 399960) / 10, (404500 - 399960) / 10, (4200000 - 4198000) / 10, (4200000 - 4196000) / 10
    inside = [row["x_px"] <= right and row["x_px"] + row["width_px"] >= left and row["y_px"] <= bottom
              and row["y_px"] + row["height_px"] >= top for row in whole.select(["x_px", "y_px", "width_px", "height_px"]).to_pylist()]
    for file in ("aoi-utm.parquet", "aoi-utm.geojson"):
        _, table = embed(binary, [path], folder / "aoi-some.parquet", "--chip", 32, "--aoi", folder / file)
        check(table.equals(whole.filter(inside)), f"{file}: {table.num_rows} rows, {sum(inside)} expected")
    return f"{rows} decisions about areas of interest as shapely has them ({kept} chips kept)"


def check_speed(binary, folder, check):
    """10,000 polygons and 100,000 chips."""
    path = folder / "large.tif"
    with rasterio.open(path, "w", driver="GTiff", width=81000, height=81000, count=3, dtype="uint8", crs="EPSG:32633",
                       transform=Affine(10, 0, 300000, 0, -10, 5000000), tiled=True, sparse_ok=True, bigtiff="yes"):
        pass
    polygons = blobs(np.random.default_rng(51), 10000, 12.6, 38.0, 22.0, 45.0, 0.02)
    file = folder / "large.geojson"
    file.write_text(json.dumps(shapely.geometry.mapping(shapely.GeometryCollection(polygons))))
    start = time.monotonic()
    result = run([binary, "scene", "info", path, "--aoi", file, "--json"])
    took = time.monotonic() - start
    found = json.loads(result.stdout)["chips"]
    check(0 < found < 100489 and took < 20, f"10,000 polygons, 100,489 chips: {found} in {took:.1f} s")
    path.unlink()
    print(f"areas: {len(polygons)} polygons, 100489 chips: {found} kept, {took:.1f} s", flush=True)
    return f"{len(polygons)} polygons and 100489 chips: {took:.1f} s"


# Grids

def snapped(at):
    return math.ceil(at - 0.5 - 1e-6)


def major_tom_point(cell, km):
    """Longitude and latitude of a cell's point (ESA-PhiLab's formulas)."""
    row, column = cell.split("_")
    row = int(row[:-1]) * (1 if row[-1] == "U" else -1)
    column = int(column[:-1]) * (1 if column[-1] == "R" else -1)
    rows = math.ceil(math.pi * 6378.137 / km)
    lat = 180 * row / rows
    columns = math.ceil(2 * math.pi * 6378.137 * math.cos(math.radians(lat)) / km)
    return 360 * column / columns, lat


def major_tom_cell(lon, lat, km):
    rows = math.ceil(math.pi * 6378.137 / km)
    row = math.floor(lat * rows / 180)
    columns = math.ceil(2 * math.pi * 6378.137 * math.cos(math.radians(180 * row / rows)) / km)
    column = math.floor(lon * columns / 360)
    column = (column + columns // 2) % columns - columns // 2
    return f"{abs(row)}{'U' if row >= 0 else 'D'}_{abs(column)}{'R' if column >= 0 else 'L'}"


def windows_of(table):
    """Cell, and the window that was cut, from the id."""
    names = table["id"].to_pylist()
    return dict(zip(table["grid_cell"].to_pylist(), (tuple(map(int, name.split("xywh=")[1].split("&")[0].split(","))) for name in names)))


def check_grids(binary, folder, check):
    cells, worst = 0, 0.0
    # Two dates and more of a place: origins moved by parts of a pixel.
    for place, (crs, x, y, pixel, epsg) in {
        "north": ("EPSG:32633", 399960, 4200000, 10.0, 32633),
        "south": ("EPSG:32735", 512340, 7000020, 0.6, 32735),
        "naip": ("EPSG:26913", 480123.4, 4400321.6, 0.6, 26913),
    }.items():
        dates = {}
        for date, (dx, dy) in enumerate([(0, 0), (0.31, -0.44), (-0.27, 0.12), (0.49, 0.49)]):
            transform = Affine(pixel, 0, x + dx * pixel, 0, -pixel, y + dy * pixel)
            path = write_scene(folder / f"grid-{place}-{date}.tif", land(3, 700, 900, 70), crs=crs, transform=transform)
            side = round(CHIP_PX * pixel, 9)
            _, table = embed(binary, [path], folder / "grid.parquet", "--grid", "utm", "--chip", CHIP_PX)
            dates["utm", date] = windows_of(table)
            for cell, (left, top, width, height) in dates["utm", date].items():
                zone, length, column, row = cell.split("_")
                expected = (snapped((int(column) * side - transform.c) / pixel),
                            snapped((transform.f - (int(row) + 1) * side) / pixel))
                check((int(zone), length) == (epsg, f"{side:g}m") and (left, top) == expected and width == height == CHIP_PX,
                      f"{place}, date {date}: {cell} at {left}, {top}, {expected} expected")
            # Every block with at least half of it in the scene, and no other.
            first, last = math.floor(transform.c / side), math.floor((transform.c + 900 * pixel) / side)
            low, high = math.floor((transform.f - 700 * pixel) / side), math.floor(transform.f / side)
            wanted = set()
            for column in range(first - 1, last + 2):
                for row in range(low - 1, high + 2):
                    left, top = snapped((column * side - transform.c) / pixel), snapped((transform.f - (row + 1) * side) / pixel)
                    width, height = (max(0, min(at + CHIP_PX, length) - max(at, 0)) for at, length in ((left, 900), (top, 700)))
                    if width * height >= CHIP_PX**2 / 2:
                        wanted.add(f"{epsg}_{side:g}m_{column}_{row}")
            check(set(dates["utm", date]) == wanted, f"{place}, date {date}: {len(dates['utm', date])} blocks, {len(wanted)} expected")
            km = CHIP_PX * pixel / 1000
            _, table = embed(binary, [path], folder / "grid.parquet", "--grid", f"major-tom:{km:g}", "--chip", CHIP_PX)
            dates["major-tom", date] = windows_of(table)
            to_scene = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
            for cell, (left, top, _, _) in dates["major-tom", date].items():
                # NAD83 is taken for WGS 84, by us and by PROJ without grids.
                point_x, point_y = to_scene.transform(*major_tom_point(cell, km))
                column, row = ~transform * (point_x, point_y)
                off = max(abs(left - column), abs(top + CHIP_PX - row))
                worst = max(worst, off)
                check(off <= 0.5 + 1e-3, f"{place}, date {date}: {cell} is {off:.3f} px off its point")
            cells += len(dates["utm", date]) + len(dates["major-tom", date])
        for grid in ("utm", "major-tom"):
            sets = [set(dates[grid, date]) for date in range(4)]
            check(len(sets[0]) > 20, f"{place}: only {len(sets[0])} cells of {grid}")
            shared = set.intersection(*sets)
            check(len(set.union(*sets) - shared) <= 0.03 * len(shared), f"{place}: {grid}: dates have other cells: {[len(one) for one in sets]}")
            for date in range(1, 4):
                near = all(abs(one - other) <= 1 for cell in shared for one, other in zip(dates[grid, 0][cell], dates[grid, date][cell]))
                check(near, f"{place}: {grid}: a cell of date {date} is elsewhere")
    return f"{cells} cells of grids where pyproj has them, within {worst:.3f} px"


def check_ids(binary, folder, check):
    cells = 0
    for name, crs, transform in [
        ("degrees", "EPSG:4326", Affine(0.00025, 0, 13.1, 0, -0.00025, 52.5)), ("utm", "EPSG:32633", NORTH_UP),
        ("arctic", "EPSG:3413", Affine(500, 0, -350000, 0, -500, 90000)),
        ("antimeridian", "EPSG:32760", Affine(30, 0, 812000, 0, -30, 8110000)),
        ("web-mercator", "EPSG:3857", Affine(38.2, 0, 1489000, 0, -38.2, 6894000)),
    ]:
        path = write_scene(folder / f"ids-{name}.tif", land(3, 200, 330, 80), crs=crs, transform=transform)
        to_lon_lat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
        for grid in ("h3:4", "h3:9", "web-mercator:14", "major-tom:1", "major-tom", "utm:1000"):
            _, table = embed(binary, [path], folder / "ids.parquet", "--chip", 64, "--grid-id", grid)
            for row in table.select(["x_px", "y_px", "width_px", "height_px", "grid_cell"]).to_pylist():
                middle = row["x_px"] + row["width_px"] / 2, row["y_px"] + row["height_px"] / 2
                lon, lat = to_lon_lat.transform(*(transform * middle))
                kind, _, number = grid.partition(":")
                if kind == "h3":
                    expected = h3.latlng_to_cell(lat, lon, int(number))
                elif kind == "web-mercator":
                    tile = mercantile.tile(lon, lat, int(number))
                    expected = f"{tile.z}/{tile.x}/{tile.y}"
                elif kind == "major-tom":
                    expected = major_tom_cell(lon, lat, float(number or 10)) if abs(lat) < 85 else None
                else:
                    zone = (32600 if lat >= 0 else 32700) + utm.latlon_to_zone_number(lat, lon)
                    easting, northing = pyproj.Transformer.from_crs("OGC:CRS84", zone, always_xy=True).transform(lon, lat)
                    expected = f"{zone}_1000m_{math.floor(easting / 1000)}_{math.floor(northing / 1000)}"
                check(row["grid_cell"] == expected, f"{name}, {grid}: {row}, {expected} expected")
                cells += 1
    return f"{cells} names of cells as h3, mercantile, utm and pyproj have them"


def check_cut(binary, folder, check):
    told = [part(binary, folder, check) for part in (check_resampling, check_areas, check_speed, check_grids, check_ids)]
    for path in folder.glob("*.tif"):
        if path.name.startswith(("gsd-", "aoi-", "grid-", "ids-")):
            path.unlink()
    return "\n".join(told)
