"""Is `dinov3 scene embed --dense` right? Windows are cut once more with GDAL and numpy, encoded by `dinov3 features`, and
blended in numpy; principal components come from numpy.linalg. Files go through rio-cogeo, rasterio, xarray. Part of check.py."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pyproj
import rasterio
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rio_cogeo.cogeo import cog_validate

import seams
from common import MEAN, MODEL, NORTH_UP, STD, land, run, write_scene
from stores import WITHOUT_CODE

PATCH_PX = 16
WINDOW_PX, OVERLAP_PX = 256, 64
WINDOWS = ["--window", WINDOW_PX, "--overlap", OVERLAP_PX]
SOUTH_UP = Affine(10, 0, 399960, 0, 10, 4194870)
ROTATED = Affine(9, 3, 399960, 3, -9, 4200000)


def dense_command(binary, scene, output, *options):
    command = [binary, "scene", "embed", scene, "--dense", *MODEL[:-2], *WINDOWS, *options, "-o", output]
    return [str(part) for part in command]


def reflected(index, length):
    """numpy.pad(mode="reflect"), as an index."""
    period = max(2 * length - 2, 1)
    index = np.mod(index, period)
    return np.minimum(np.minimum(index, period - index), length - 1)


def starts(cells, passes):
    """Per pass, the first patches of windows; and the patches of a window."""
    counts = [-(-(cells - shift) // passes) for shift in range(min(passes, cells))]
    window = min(WINDOW_PX // PATCH_PX, counts[0])
    stride = window - OVERLAP_PX // PATCH_PX
    found = []
    for shift, count in enumerate(counts):
        last = max(count - window, 0)
        found += [shift + passes * start for start in [*range(0, last, stride), last]]
    return window, sorted(found)


def truth(binary, path, folder, step=PATCH_PX, scale=None, bands=(1, 2, 3)):
    """[rows, columns, D] of the whole scene, NaN where there is no data."""
    with rasterio.open(path) as scene:
        samples, valid = scene.read(bands), scene.read_masks(bands).any(0)
    if scale is None:
        unit = samples.astype(np.float32) / np.float32(255)
    else:
        unit = np.clip((samples.astype(np.float64) - scale[0]) / (scale[1] - scale[0]), 0, 1).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
    pixels = (unit - mean) / std
    pixels[:, ~valid] = 0
    _, height, width = pixels.shape
    rows, columns, passes = -(-height // step), -(-width // step), PATCH_PX // step
    (window_rows, row_starts), (window_columns, column_starts) = starts(rows, passes), starts(columns, passes)
    before = (PATCH_PX - step) // 2
    places = [(row, column) for row in row_starts for column in column_starts]
    arrays, masks = [], []
    for row, column in places:
        y = row * step - before + np.arange(window_rows * PATCH_PX)
        x = column * step - before + np.arange(window_columns * PATCH_PX)
        # The part of the window that lies in the scene is what is mirrored.
        (y0, y1), (x0, x1) = (max(y[0], 0), min(y[-1] + 1, height)), (max(x[0], 0), min(x[-1] + 1, width))
        y_in, x_in = y0 + reflected(y - y0, y1 - y0), x0 + reflected(x - x0, x1 - x0)
        arrays.append(pixels[:, y_in[:, None], x_in[None]])
        inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None]
        data = inside & valid[np.clip(y, 0, height - 1)[:, None], np.clip(x, 0, width - 1)[None]]
        of_patches = lambda field: field.reshape(window_rows, PATCH_PX, window_columns, PATCH_PX).sum((1, 3))
        count = of_patches(data)
        masks.append((count > 0) & (count >= 0.5 * of_patches(inside)))
    np.save(folder / "windows.npy", np.stack(arrays))
    run([binary, "features", folder / "windows.npy", "--preprocess", "none", *MODEL[:-2], "--blocks", "-1", "--norm",
         "--layout", "nlc", "-o", folder / "features.npy"])
    features = np.load(folder / "features.npy").astype(np.float64)
    features = features.reshape(len(places), window_rows, window_columns, -1)
    tent = lambda count: np.minimum(2 * np.arange(count) + 1, 2 * (count - np.arange(count)) - 1)
    weight = np.outer(tent(window_rows), tent(window_columns)).astype(np.float64)
    # Room for windows that reach beyond the scene.
    shape = (rows + PATCH_PX * passes, columns + PATCH_PX * passes)
    sums, weights = np.zeros((*shape, features.shape[-1])), np.zeros(shape)
    for (row, column), found, mask in zip(places, features, masks):
        here = (slice(row, row + passes * window_rows, passes), slice(column, column + passes * window_columns, passes))
        sums[here] += np.where(mask, weight, 0)[..., None] * found
        weights[here] += np.where(mask, weight, 0)
    with np.errstate(invalid="ignore"):
        return (sums / weights[..., None])[:rows, :columns].astype(np.float32)


def read(path):
    with rasterio.open(path) as raster:
        return raster.read().transpose(1, 2, 0), raster.profile, raster.descriptions, raster.tags()


def same(left, right, tolerance):
    """Whether both have data in the same places, and the largest difference there."""
    holes = (np.isnan(left) == np.isnan(right)).all()
    return bool(holes and (np.nan_to_num(np.abs(left - right)) <= tolerance * (1 + np.nan_to_num(np.abs(right)))).all())


def scenes(folder, sample):
    """Name, path, step, options, scale, bands."""
    odd = dict(height=513, width=700)
    y, x = np.mgrid[0:513, 0:700]
    circle = (x - 350) ** 2 + (y - 250) ** 2 < 280**2
    rgb = dict(photometric="RGB", interleave="pixel")
    yield "odd", write_scene(folder / "odd.tif", land(3, **odd, seed=1), **rgb), 16, [], None
    yield "masked", write_scene(folder / "masked.tif", land(3, **odd, seed=2), mask=circle, **rgb), 16, [], None
    deep = land(3, **odd, seed=6, levels=6000, dtype="uint16")
    deep[:, ~circle] = 0
    deep = write_scene(folder / "u16.tif", deep, nodata=0)
    yield "u16", deep, 16, ["--scale", "range 1000,4000"], (1000, 4000)
    yield "small", write_scene(folder / "small.tif", land(3, height=70, width=330, seed=3), **rgb), 16, [], None
    yield "step 8", write_scene(folder / "eight.tif", land(3, height=301, width=333, seed=4), **rgb), 8, [], None
    yield "step 4", write_scene(folder / "four.tif", land(3, height=100, width=90, seed=5), **rgb), 4, [], None


def check_dense(binary, folder, sample, check):
    cells = 0
    written = []
    for name, path, step, options, scale in scenes(folder, sample):
        output = folder / f"{path.stem}-dense.tif"
        written += [output, folder / f"{path.stem}-dense-pca.tif"]
        run(dense_command(binary, path, output, "--dims", "all", "--dense-step", step, *options))
        expected = truth(binary, path, folder, step, scale)
        found, profile, names, _ = read(output)
        check(found.shape == expected.shape, f"{name}: {found.shape}, {expected.shape} expected")
        check(same(found, expected, 2e-7), f"{name}: values of numpy's blending")
        with rasterio.open(path) as scene:
            check(profile["transform"].almost_equals(scene.transform @ Affine.scale(step), 1e-9) and
                  profile["crs"] == scene.crs, f"{name}: {profile['transform']} {profile['crs']}")
        check(names[0] == "feature 0" and np.isnan(profile["nodata"]), f"{name}: {names[0]}, {profile['nodata']}")
        cells += expected[..., 0].size
        print(f"dense: {name}: {expected.shape[1]} x {expected.shape[0]} cells", flush=True)
    check_components(binary, folder, check, written)
    check_georeference(binary, folder, check, written)
    check_halves(binary, folder, check, written)
    check_runs(binary, folder, check)
    for path in written:
        good, errors, warnings = cog_validate(path, strict=True, quiet=True)
        check(good and not errors and not warnings, f"{path.name}: rio-cogeo: {errors + warnings}")
        with rasterio.open(path) as raster:
            check(raster.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG", f"{path.name}: GDAL's layout")
            tile = raster.block_shapes[0][0] * raster.block_shapes[0][1] * raster.count
            # GDAL before 3.11 calls half floats floats of 16 bits.
            bits = int(raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(raster.dtypes[0]).itemsize))
            check(tile * bits / 8 <= 16e6, f"{path.name}: bytes of a tile")
    check_readers(folder, check)
    return f"dense: {cells} cells as numpy blends them, {len(written)} COGs"


def tensors(path):
    """What a safetensors file of 32-bit floats holds."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__")
    values = np.frombuffer(content[start:], "<f4")
    return {name: values[slice(*(at // 4 for at in about["data_offsets"]))].reshape(about["shape"])
            for name, about in header.items()}


def check_components(binary, folder, check, written):
    scene = folder / "masked.tif"
    whole, *_ = read(folder / "masked-dense.tif")
    output, count = folder / "components.tif", 48
    run(dense_command(binary, scene, output, "--dims", count))
    written += [output, folder / "components-pca.tif"]
    found, _, names, tags = read(output)
    valid = ~np.isnan(whole[..., 0])
    vectors = whole[valid].astype(np.float64)
    mean = vectors.mean(0)
    values, directions = np.linalg.eigh((vectors - mean).T @ (vectors - mean) / len(vectors))
    values, directions = values[::-1][:count], directions[:, ::-1][:, :count]
    directions *= np.sign(directions[np.abs(directions).argmax(0), range(count)])
    expected = (vectors - mean) @ directions
    theirs = found[valid].astype(np.float64)
    check((np.isnan(found[..., 0]) == ~valid).all(), "components: holes")
    check(found.shape[2] == count and names[0] == "component 1", f"components: {found.shape}, {names[0]}")
    # The sine of the largest angle between both spaces, and each value against the deviation of its component.
    basis = tensors(folder / "components-pca.safetensors")["components"].T.astype(np.float64)
    angle = np.linalg.norm(basis - directions @ (directions.T @ basis), 2)
    far = np.abs(theirs - expected).max(0) / np.sqrt(values)
    print(f"dense: {count} components: angle {angle:.1e}, values differ by {far.max():.1e} deviations", flush=True)
    check(angle < 1e-3, f"components: the space differs by an angle of {angle}")
    check(far.max() < 1e-2, f"components: values differ by {far.max()} deviations")
    about = json.loads(tags["dinov3"])
    total = vectors.var(0).sum()
    check(abs(about["pca"]["explained_variance"] - values.sum() / total) < 1e-3, f"components: {about['pca']}")
    # A basis that is there is used, and gives the same.
    again = folder / "again.tif"
    basis_file = folder / "components-pca.safetensors"
    run(dense_command(binary, scene, again, "--dims", 20, "--pca-basis", basis_file, "--no-picture"))
    check((np.nan_to_num(read(again)[0]) == np.nan_to_num(found[..., :20])).all(), "components: a basis that was saved")
    picture, profile, *_ = read(folder / "components-pca.tif")
    check(((picture == 0).all(2) == ~valid).all() and profile["dtype"] == "uint8", "the picture's holes")
    spread = [np.percentile(picture[valid][:, band], (1, 99)) for band in range(3)]
    check(all(low <= 3 and high >= 253 for low, high in spread), f"the picture's range: {spread}")


def check_georeference(binary, folder, check, written):
    data = land(3, height=300, width=400, seed=9)
    north = write_scene(folder / "north.tif", data, photometric="RGB", interleave="pixel")
    run(dense_command(binary, north, folder / "north-dense.tif", "--dims", 8))
    expected = read(folder / "north-dense.tif")[0]
    # North is up, or nothing is written; the line that helps is told, and what it makes is taken.
    rotated = write_scene(folder / "rotated.tif", data, photometric="RGB", interleave="pixel", transform=ROTATED)
    result = run(dense_command(binary, rotated, folder / "rotated-dense.tif", "--dims", 8), (1,))
    check("turn it with gdalwarp -t_srs EPSG:32633" in result.stderr and not (folder / "rotated-dense.tif").exists(),
          f"rotated: {result.stderr}")
    with rasterio.open(rotated) as source, WarpedVRT(source, crs=source.crs, nodata=0) as turned:
        write_scene(folder / "turned.tif", turned.read(), photometric="RGB", interleave="pixel", nodata=0,
                    transform=turned.transform)
    output = folder / "turned-dense.tif"
    written.append(output)
    run(dense_command(binary, folder / "turned.tif", output, "--dims", 8, "--no-picture"))
    check(np.isnan(read(output)[0]).any(), "turned: cells beyond the scene")
    for name, transform, crs in [("albers", NORTH_UP, "+proj=aea +lat_0=23 "
                                 "+lon_0=-96 +lat_1=29.5 +lat_2=45.5 +datum=NAD83 +units=m"),
                                 ("degrees", Affine(1e-4, 0, 13, 0, -1e-4, 52), "EPSG:4326")]:
        scene = write_scene(folder / f"{name}.tif", data, photometric="RGB", interleave="pixel", transform=transform,
                            crs=crs)
        output = folder / f"{name}-dense.tif"
        written.append(output)
        run(dense_command(binary, scene, output, "--dims", 8, "--no-picture"))
        found, profile, *_ = read(output)
        check((found == expected).all(), f"{name}: values")
        check(profile["transform"].almost_equals(transform @ Affine.scale(16), 1e-9), f"{name}: {profile['transform']}")
        with rasterio.open(scene) as source:
            check(profile["crs"] == source.crs or profile["crs"].to_dict() == source.crs.to_dict(),
                  f"{name}: {profile['crs']} {source.crs}")
    check_systems(binary, scene, folder, check)
    scene = write_scene(folder / "south.tif", data, photometric="RGB", interleave="pixel",
                        transform=Affine(10, 0, 399960, 0, 10, 4000000))
    output = folder / "south-dense.tif"
    run(dense_command(binary, scene, output, "--dims", 8, "--no-picture"))
    found, profile, *_ = read(output)
    wanted = Affine(160, 0, 399960, 0, -160, 4000000 + 160 * len(expected))
    check(profile["transform"] == wanted and (found[::-1] == expected).all(), f"south up: {profile['transform']}")


# Beside those whose Zarr stores have WKT 2: a cone whose origin is not its parallel, the string of Web Mercator, a shift.
SYSTEMS = WITHOUT_CODE + (
    "+proj=lcc +lat_1=45 +lat_0=40 +lon_0=15 +x_0=500000 +y_0=4000000 +datum=WGS84 +units=m",
    "+proj=lcc +lat_1=45 +lat_0=45 +lon_0=15 +k_0=0.999 +datum=WGS84 +units=m", "+proj=merc +lat_ts=30 +k=1 +datum=WGS84",
    "+proj=merc +a=6378137 +b=6378137 +lat_ts=0 +lon_0=0 +x_0=0 +y_0=0 +k=1 +units=m +nadgrids=@null +wktext +no_defs",
    "+proj=merc +lat_ts=30 +lon_0=100 +ellps=WGS84", "+proj=aeqd +lat_0=47 +lon_0=10 +datum=WGS84",
    "+proj=tmerc +lon_0=15 +x_0=500000 +ellps=bessel +towgs84=598,73,418,0.2,0.04,-2.4,6.7 +units=m",
    "+proj=sterea +lat_0=52 +lon_0=5 +k=0.9999 +x_0=155000 +y_0=463000 +ellps=bessel +towgs84=565,50,465", "+proj=eqc +lat_ts=20 +datum=WGS84",
)


def check_systems(binary, scene, folder, check):
    """Where GDAL and PROJ find the cells of a raster whose reference system has no code, against where PROJ has them."""
    output, worst = folder / "system.tif", 0.0
    for system in SYSTEMS:
        is_degrees = "longlat" in system
        transform = Affine(1e-3, 0, 13, 0, -1e-3, 42) if is_degrees else Affine(10, 0, 510000, 0, -10, 460000)
        with rasterio.open(scene) as raster:
            write_scene(folder / "system-in.tif", raster.read(), photometric="RGB", interleave="pixel", crs=None,
                        transform=transform)
        run(dense_command(binary, folder / "system-in.tif", output, "--dims", 8, "--no-picture", "--crs", system))
        profile = read(output)[1]
        x, y = zip(*(transform * corner for corner in ((0, 0), (700, 0), (0, 500), (700, 500))))
        places = []
        for crs in (system, profile["crs"].to_wkt()):
            to_wgs84 = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
            places.append(np.array(to_wgs84.transform(x, y, errcheck=True)))
        off = np.abs(places[0] - places[1]).max()
        worst = max(worst, off)
        check(off < 1e-8 and profile["transform"].almost_equals(transform @ Affine.scale(16), 1e-9),
              f"{system}: {off} degrees off: {profile['crs']}")
    print(f"dense: {len(SYSTEMS)} reference systems without a code, within {worst:.1g} degrees of PROJ", flush=True)


def check_halves(binary, folder, check, written):
    """Half floats as GDAL reads them: from 3.11 on as a type of their own, before as floats."""
    for name, options in (("masked", ["--dims", 8]), ("eight", ["--dims", "all", "--dense-step", 8])):
        found = {}
        for kind in ("f32", "f16"):
            output = folder / f"{name}-{kind}.tif"
            run(dense_command(binary, folder / f"{name}.tif", output, *options, "--no-picture", "--embedding-type", kind))
            found[kind], profile, *_ = read(output)
        written.append(folder / f"{name}-f16.tif")
        expected = found["f32"].astype(np.float16).astype(np.float32)
        check(np.array_equal(found["f16"].astype(np.float32), expected, equal_nan=True), f"{name}: half floats")
        small, large = ((folder / f"{name}-{kind}.tif").stat().st_size for kind in ("f16", "f32"))
        check(small < 0.7 * large, f"{name}: {small} and {large} bytes")
        print(f"dense: {name}: half floats as GDAL {rasterio.__gdal_version__} reads them ({profile['dtype']}), "
              f"{small / large:.2f} of the size", flush=True)
    result = run(dense_command(binary, folder / "masked.tif", folder / "bytes.tif", "--embedding-type", "int8"), (2,))
    check("--embedding-type int8: a GeoTIFF has no scale per cell" in result.stderr, f"int8: {result.stderr}")


def bytes_of(path):
    """Of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.read_bytes()
    return {file.relative_to(path): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def check_runs(binary, folder, check):
    """The same bytes however it ran; what fails is told, and the rest is there."""
    scene, total = folder / "odd.tif", 0
    for name in ("runs.tif", "runs.zarr"):
        stem = name.removesuffix(".tif")
        outputs = [folder / name, folder / f"{stem}-pca.tif", folder / f"{stem}-pca.safetensors"]
        def made(*options, codes=(0,)):
            run(dense_command(binary, scene, outputs[0], "--dims", 16, *options), codes)
            return [bytes_of(output) for output in outputs]
        started = time.monotonic()
        first = made("--batch-size", 1)
        took = time.monotonic() - started
        check(made("--batch-size", 3, "--threads", 1) == first, f"{name}: other batches and threads give other bytes")
        for output in outputs:
            shutil.rmtree(output) if output.is_dir() else output.unlink()
        # All over a run, and most of them at its end, where files are written.
        kills = 0
        for share in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
            process = subprocess.Popen(dense_command(binary, scene, outputs[0], "--dims", 16, "--resume", "--batch-size", 1),
                                       stderr=subprocess.DEVNULL)
            # What was done already is not done again.
            time.sleep(share * took / (1 + kills))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
            if process.returncode == 0:
                break
            check(not outputs[0].exists(), f"{name}: a killed run left an output")
        check(made("--resume") == first, f"{name}: after {kills} kills, --resume gives other bytes")
        check(kills > 0, f"{name}: no run was killed")
        left = [path.name for path in folder.iterdir() if path.name.startswith(".runs")]
        check(not left, f"hidden files are left: {left}")
        total += kills
    print(f"dense: the same bytes after {total} kills", flush=True)
    # A tile that cannot be decoded fails the windows that need it; others cover part of their cells.
    broken = bytearray(scene.read_bytes())
    with rasterio.open(scene) as raster:
        offset = int(raster.get_tag_item("BLOCK_OFFSET_4_0", "TIFF", bidx=1))
    broken[offset:offset + 64] = bytes(64)
    path = folder / "broken.tif"
    path.write_bytes(broken)
    result = run(dense_command(binary, path, folder / "broken-dense.tif", "--dims", "all", "--no-picture"), (3,))
    found, whole = read(folder / "broken-dense.tif")[0], read(folder / "odd-dense.tif")[0]
    holes = np.isnan(found[..., 0])
    check(0 < holes.sum() < holes.size / 2, f"{holes.sum()} of {holes.size} cells without data")
    check("failed: " in result.stderr and (found[-4:, :4] == whole[-4:, :4]).all(), "cells of whole windows")
    about = json.loads(read(folder / "broken-dense.tif")[3]["dinov3"])
    check(about["counts"]["failed"] == len(about["failures"]) > 0, f"counts: {about['counts']}")


def check_readers(folder, check):
    import rioxarray
    raster = rioxarray.open_rasterio(folder / "masked-dense.tif", masked=True)
    expected = read(folder / "masked-dense.tif")[0]
    check(raster.dims == ("band", "y", "x") and raster.rio.crs.to_epsg() == 32633, "rioxarray")
    check(raster.attrs["long_name"][0] == "feature 0", "rioxarray: names of bands")
    check((np.nan_to_num(raster.values.transpose(1, 2, 0)) == np.nan_to_num(expected)).all(), "rioxarray: values")


def check_seams(binary, folder, check, side=2048):
    blended, bare = seams.figures(binary, folder, side, 512, 128)
    check(abs(blended - 1) <= seams.SEAMLESS, f"seams: {blended} with overlap")
    check(bare > seams.SEAM, f"seams: {bare} without")
    return f"seams: excess jump {blended:.4f}; without overlap {bare:.4f}"
