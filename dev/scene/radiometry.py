"""From bands to colours: products in the shape of each sensor, written by GDAL; their chips are cut and scaled once more by
rasterio and numpy, each as its maker's documents have it, and must have the same bits. Called by check.py."""

import json
import subprocess

import numpy as np
import pyarrow.parquet as pq
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine

from common import MEAN, MODEL, NORTH_UP, STD, embed, embed_command, land, run, vectors_of, write_scene

CHIP_PX = 256
HEIGHT, WIDTH = 300, 512  # even, for masks of half the resolution
TILE = "T33UUP_20240618T095031"


def unit(quantity, low, high):
    """A quantity on the scale of 0 to 1: in 64 bits until the end."""
    return np.clip((quantity - low) / (high - low), 0, 1).astype(np.float32)


def sentinel(numbers, offset=-1000, low=0.0, high=0.3):
    """ESA: (L2A_DN + BOA_ADD_OFFSET) / QUANTIFICATION_VALUE."""
    return unit((numbers.astype(np.float64) + offset) / 10000, low, high)


def landsat(numbers):
    """USGS: the scale factor of Collection 2, Level 2 surface reflectance, and its offset."""
    return unit(numbers.astype(np.float64) * 0.0000275 + -0.2, 0.0, 0.3)


def planet(numbers):
    """Planet: analytic surface reflectance is scaled by 10,000."""
    return unit(numbers.astype(np.float64) / 10000, 0.0, 0.3)


def levels(numbers):
    return numbers.astype(np.float32) / np.float32(255)


def half(mask):
    """A mask of half the resolution on the whole grid, by the nearest."""
    return mask.repeat(2, 0).repeat(2, 1)


class Case:
    """A scene, the options that it is read with, and what must come of it: red, green and blue from 0 to 1, and which
    pixels are valid."""

    def __init__(self, name, path, options, pixels, valid, bands=None):
        self.name, self.path, self.options, self.pixels, self.valid, self.bands = name, path, options, pixels, valid, bands

    def chips(self):
        """Window, share of valid pixels, and what the encoder takes, of each chip that has a row."""
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
        _, height, width = self.pixels.shape
        for y in range(0, height, CHIP_PX):
            for x in range(0, width, CHIP_PX):
                inside = (slice(y, min(y + CHIP_PX, height)), slice(x, min(x + CHIP_PX, width)))
                share = np.float32(self.valid[inside].mean())
                if share < 0.5:
                    continue
                padding = [(0, CHIP_PX - size) for size in self.valid[inside].shape]
                found = (np.pad(self.pixels[:, *inside], [(0, 0), *padding], mode="reflect") - mean) / std
                found[:, ~np.pad(self.valid[inside], padding, mode="reflect")] = 0
                yield (x, y), share, found


def numbers(bands, seed, low, high, dtype="uint16"):
    """Land from `low` to `high`, with a corner without data."""
    data = land(bands, HEIGHT, WIDTH, seed, levels=high - low, dtype=dtype) + np.array(low, dtype)
    data[:, :40, :200] = 0
    return data


def one_band(path, band, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_scene(path, band[None], **options)


def safe(folder, name, baseline, data, offset=None, bands=("B02", "B03", "B04", "B08")):
    """A product of Sentinel-2: one file per band, the classification at 20 m, and the metadata on top."""
    root = folder / name
    images = root / "GRANULE" / "L2A_T33UUP_A046953_20240618T095721" / "IMG_DATA"
    for band, plane in zip(bands, data):
        one_band(images / "R10m" / f"{TILE}_{band}_10m.tif", plane)
    classes = np.full((HEIGHT // 2, WIDTH // 2), 4, "uint8")
    classes[20:60, 30:90] = 9
    classes[100:110, :] = 3
    classes[:20, :100] = 0
    one_band(images / "R20m" / f"{TILE}_SCL_20m.tif", classes, transform=NORTH_UP @ Affine.scale(2))
    stack = write_scene(images / "R10m" / f"{TILE}_stack.tif", data[[2, 1, 0]])
    if baseline:
        tags = "".join(f'<BOA_ADD_OFFSET band_id="{band}">{offset}</BOA_ADD_OFFSET>' for band in range(13))
        tags = f"<BOA_ADD_OFFSET_VALUES_LIST>{tags}</BOA_ADD_OFFSET_VALUES_LIST>" if offset is not None else ""
        (root / "MTD_MSIL2A.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8"?><n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int">'
            f"<n1:General_Info><Product_Info><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>"
            f"<Product_Image_Characteristics>{tags}</Product_Image_Characteristics></n1:General_Info>"
            "</n1:Level-2A_User_Product>")
    return stack, half(classes)


def sentinel_cases(folder):
    data = numbers(4, 1, 1050, 4900)
    rgb, valid = data[[2, 1, 0]], (data[[2, 1, 0]] != 0).all(0)
    preset = ["--preset", "sentinel-2-l2a"]
    stack, classes = safe(folder, "new.SAFE", "05.10", data, -1000)
    yield Case("sentinel-2 baseline 05.10", stack, preset, sentinel(rgb), valid)
    wider = sentinel(rgb, high=0.4)
    yield Case("sentinel-2 up to 0.4", stack, [*preset, "--scale", "reflectance 0,0.4"], wider, valid)
    clear = valid & ~np.isin(classes, [0, 1, 3, 8, 9, 10])
    mask = ["--mask", "../R20m/*_SCL_20m.tif"]
    yield Case("sentinel-2 without clouds", stack, [*preset, *mask], sentinel(rgb), clear)
    some = valid & (classes != 9)
    yield Case("sentinel-2 without class 9", stack, [*preset, *mask, "--mask-values", "9"], sentinel(rgb), some)
    stack, _ = safe(folder, "first.SAFE", "04.00", data, -1000)
    yield Case("sentinel-2 baseline 04.00", stack, preset, sentinel(rgb), valid)
    stack, _ = safe(folder, "old.SAFE", "03.01", data)
    yield Case("sentinel-2 baseline 03.01", stack, preset, sentinel(rgb, offset=0), valid)
    named = folder / f"S2B_MSIL2A_20240618T095031_N0400_R079_{TILE}.SAFE"
    stack, _ = safe(folder, named.name, None, data)
    yield Case("sentinel-2 named N0400", stack, preset, sentinel(rgb), valid)
    stack, _ = safe(folder, "unknown", None, data)
    yield Case("sentinel-2 declared 05.00", stack, [*preset, "--baseline", "05.00"], sentinel(rgb), valid)
    harmonized = [*preset, "--baseline", "harmonized"]
    # Without samples below 1000 there would be a warning.
    dark = np.where(data > 0, data - 900, 0).astype(data.dtype)
    stack, _ = safe(folder, "added", None, dark)
    dark_rgb = dark[[2, 1, 0]]
    yield Case("sentinel-2 harmonized", stack, harmonized, sentinel(dark_rgb, offset=0), valid)
    picture = land(3, HEIGHT, WIDTH, 2)
    picture[:, :50] = 0
    picture[1, 60:90] = 0  # dark water in one band
    written = write_scene(folder / f"{TILE}_TCI_10m.tif", picture)
    yield Case("sentinel-2 true colour", written, ["--preset", "sentinel-2-tci"], levels(picture), (picture != 0).any(0))


def band_file_cases(folder):
    """Several files per scene: bands as their files are called."""
    data = numbers(4, 1, 1050, 4900)
    rgb, valid = data[[2, 1, 0]], (data[[2, 1, 0]] != 0).all(0)
    bands = sorted((folder / "new.SAFE").rglob("*_B0[234]_10m.tif"), reverse=True)
    scene = ["--band-files", ",".join(map(str, bands))]
    yield Case("sentinel-2, a file per band", None, [*scene, "--preset", "sentinel-2-l2a"], sentinel(rgb), valid, bands)
    data = numbers(7, 3, 8000, 19000)
    for name, order in (("LC08_L2SP_014041_20200503_20200820_02_T1", (4, 3, 2)),
                        ("LE07_L2SP_014041_20020503_20200820_02_T1", (3, 2, 1))):
        files = [one_band(folder / "landsat" / f"{name}_SR_B{band}.TIF", data[band - 1]) for band in order]
        rgb = data[[band - 1 for band in order]]
        scene = ["--band-files", ",".join(map(str, files)), "--preset", "landsat-c2-l2"]
        yield Case(f"{name[:4]}, a file per band", None, scene, landsat(rgb), (rgb != 0).all(0), files)


def landsat_cases(folder):
    data = numbers(7, 3, 8000, 19000)
    products = (
        ("LC08_L2SP_014041_20200503_20200820_02_T1", "LANDSAT_8", [3, 2, 1], "json"),
        ("LT05_L2SP_014041_20000503_20200820_02_T1", "LANDSAT_5", [2, 1, 0], "txt"),
    )
    for product, spacecraft, order, kind in products:
        home = folder / product
        home.mkdir()
        groups = {"PRODUCT_CONTENTS": {"PROCESSING_LEVEL": "L2SP", "COLLECTION_NUMBER": "02"},
                  "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": spacecraft},
                  "LEVEL1_PROCESSING_RECORD": {"PROCESSING_LEVEL": "L1TP"}}
        lines = [line for group, items in groups.items() for line in
                 (f"GROUP = {group}", *(f'    {key} = "{value}"' for key, value in items.items()), f"END_GROUP = {group}")]
        text = json.dumps({"LANDSAT_METADATA_FILE": groups}) if kind == "json" else "\n".join(lines)
        (home / f"{product}_MTL.{kind}").write_text(text)
        # Called otherwise, so that the metadata decide.
        path = write_scene(home / "stack.tif", data)
        with rasterio.open(path, "r+") as scene:
            scene.descriptions = [f"SR_B{band}" for band in range(1, 8)]
        quality = np.full((HEIGHT, WIDTH), 1 << 6, "uint16")
        quality[100:140, 50:200] = 1 << 3  # cloud
        quality[150:160, 50:200] = 1 << 4  # its shadow
        quality[170:200, 50:200] = 1 << 5  # snow, which is land
        one_band(home / f"{product}_QA_PIXEL.TIF", quality)
        rgb = data[order]
        valid = (rgb != 0).all(0)
        yield Case(f"{spacecraft}", path, ["--preset", "landsat-c2-l2"], landsat(rgb), valid)
        clear = valid & (quality & 0b11111 == 0)
        options = ["--preset", "landsat-c2-l2", "--mask", f"{product}_QA_PIXEL.TIF"]
        yield Case(f"{spacecraft} without clouds", path, options, landsat(rgb), clear)


def planet_cases(folder):
    data = numbers(4, 4, 200, 3400)
    rgb, valid = data[[2, 1, 0]], (data[[2, 1, 0]] != 0).all(0)
    path = write_scene(folder / "20240618_095031_01_24c4_3B_AnalyticMS_SR.tif", data, nodata=0)
    yield Case("planetscope, four bands", path, ["--preset", "planetscope-sr-4b"], planet(rgb), valid)
    udm = np.zeros((8, HEIGHT, WIDTH), "uint8")
    udm[0, :, 150:] = 1
    write_scene(folder / "20240618_095031_01_24c4_3B_udm2.tif", udm)
    options = ["--preset", "planetscope-sr-4b", "--mask", "*_01_24c4_3B_udm2.tif"]
    yield Case("planetscope without clouds", path, options, planet(rgb), valid & (udm[0] == 1))
    data = numbers(8, 5, 200, 3400)
    rgb, valid = data[[5, 3, 1]], (data[[5, 3, 1]] != 0).all(0)
    path = write_scene(folder / "20240618_095031_02_24c4_3B_AnalyticMS_SR_8b.tif", data)
    yield Case("planetscope, eight bands", path, ["--preset", "planetscope-sr-8b"], planet(rgb), valid)
    picture = land(4, HEIGHT, WIDTH, 6)
    picture[3] = 255
    picture[3, :70, :90] = 0
    path = write_scene(folder / "20240618_095031_03_24c4_3B_Visual.tif", picture, photometric="RGB", alpha="NO")
    options = ["--preset", "planetscope-visual"]
    yield Case("planetscope, picture", path, options, levels(picture[:3]), picture[3] > 0)


def picture_cases(folder):
    picture = land(4, HEIGHT, WIDTH, 7)
    picture[3, :200] = 0  # infrared of water
    path = write_scene(folder / "m_3807708_ne_18_060_20180906.tif", picture, photometric="RGB", alpha="YES")
    every = np.ones((HEIGHT, WIDTH), bool)
    yield Case("naip", path, ["--preset", "naip"], levels(picture[:3]), every)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    inside = x + y > 130
    path = write_scene(folder / "10300100AABB-visual.tif", land(3, HEIGHT, WIDTH, 8), mask=inside)
    yield Case("maxar, picture", path, ["--preset", "maxar-visual"], levels(land(3, HEIGHT, WIDTH, 8)), inside)


def scale_cases(folder):
    every = np.ones((HEIGHT, WIDTH), bool)
    floats = (land(3, HEIGHT, WIDTH, 9) / 400).astype("float32")
    floats[0, 10:20, 10:20] = np.nan
    path = write_scene(folder / "floats.tif", floats, predictor=3)
    valid = ~np.isnan(floats).any(0)
    pixels = unit(floats.astype(np.float64), 0.05, 0.5)
    yield Case("floats as reflectance", path, ["--scale", "reflectance 0.05,0.5"], pixels, valid)
    data = land(3, HEIGHT, WIDTH, 10, levels=6000, dtype="uint16")
    path = write_scene(folder / "tagged.tif", data)
    with rasterio.open(path, "r+") as scene:
        scene.scales, scene.offsets = [0.0001] * 3, [-0.05] * 3
    pixels = unit(data.astype(np.float64) * 0.0001 + -0.05, 0.0, 0.3)
    yield Case("scale and offset in the file", path, ["--scale", "reflectance"], pixels, every)


def stretched(data, valid, sample, percents):
    """Each band between its percentiles in a sample."""
    pixels = []
    for band, seen in zip(data, sample):
        low, high = np.percentile(seen.astype(np.float64), percents)
        pixels.append(unit(band.astype(np.float64), low, high))
    return np.stack(pixels)


def percentile_cases(folder):
    data = numbers(3, 11, 300, 9000)
    valid = (data != 0).any(0)
    path = write_scene(folder / "percentiles.tif", data, nodata=0)
    options = ["--scale", "percentile 2,98"]
    yield Case("percentiles, all pixels", path, options, stretched(data, valid, data[:, valid], (2, 98)), valid)

    height, width = 1100, 1300
    data = land(3, height, width, 12, levels=9000, dtype="uint16")
    every = np.ones((height, width), bool)
    path = write_scene(folder / "blocks.tif", data)
    # A block in the middle of each field of a 4 x 4 grid, in the order of the fields.
    sample = []
    for row in range(4):
        for column in range(4):
            (top, bottom), (left, right) = ((at * size // 4, (at + 1) * size // 4)
                                            for at, size in ((row, height), (column, width)))
            y, x = (top + (bottom - top) // 2) // 128 * 128, (left + (right - left) // 2) // 128 * 128
            sample.append(data[:, y:y + 128, x:x + 128].reshape(3, -1))
    sample = np.concatenate(sample, axis=1)
    options = ["--scale", "percentile 1,99.5"]
    yield Case("percentiles, blocks", path, options, stretched(data, every, sample, (1, 99.5)), every)

    path = write_scene(folder / "overviews.tif", data)
    with rasterio.open(path, "r+") as scene:
        scene.build_overviews([2, 4], Resampling.average)
    with rasterio.open(path, overview_level=0) as scene:
        sample = scene.read().reshape(3, -1)
    yield Case("percentiles, overview", path, options, stretched(data, every, sample, (1, 99.5)), every)


def check_case(binary, folder, case, check, number):
    """Its rows have the bits of arrays; its provenance, numpy's statistics."""
    output, array = folder / f"rows-{number}.parquet", folder / f"chips-{number}.npy"
    _, table = embed(binary, [case.path] if case.path else [], output, *case.options)
    chips = {window: (share, pixels) for window, share, pixels in case.chips()}
    places = list(zip(table["x_px"].to_pylist(), table["y_px"].to_pylist()))
    if not check(sorted(places) == sorted(chips), f"{case.name}: rows at {sorted(places)}, expected at {sorted(chips)}"):
        return 0
    shares = np.array([chips[place][0] for place in places])
    check((table["valid_fraction"].to_numpy() == shares).all(), f"{case.name}: valid_fraction")
    np.save(array, np.stack([chips[place][1] for place in places]))
    run([binary, "embed", array, "--preprocess", "none", *MODEL, "-o", array.with_suffix(".out.npy")])
    expected = np.load(array.with_suffix(".out.npy"))
    same = (vectors_of(table).view(np.uint32) == expected.view(np.uint32)).all(1)
    check(same.all(), f"{case.name}: {np.sum(~same)} of {len(places)} embeddings have other bits")
    array.unlink()

    found = json.loads(pq.read_schema(output).metadata[b"dinov3"])["scenes"][0]
    statistics = found["statistics"]
    if statistics["sample"] == "all pixels":
        seen = case.pixels[:, case.valid].astype(np.float64)
        mean, std = seen.mean(1), seen.std(1)
        close = lambda name, values: np.abs(np.array(statistics[name]) - values).max() < 1e-4
        check(statistics["pixels"] == seen.shape[1], f"{case.name}: {statistics['pixels']} pixels measured")
        check(close("mean", mean) and close("std", std), f"{case.name}: statistics {statistics}")
        check(close("z", (mean - MEAN) / np.array(STD)), f"{case.name}: z {statistics['z']}")
        far = (np.abs((mean - MEAN) / np.array(STD)) > 1.5).all() or (std / np.array(STD) < 0.25).any()
        check(far == ("warnings" in found), f"{case.name}: warnings {found.get('warnings')}")
    return len(places)


def refusals(folder):
    """Name, scene, options, what the message has."""
    data = numbers(4, 13, 300, 3900)
    l2a = ["--preset", "sentinel-2-l2a"]
    unknown = folder / "unknown" / "GRANULE"
    yield "unknown baseline", next(unknown.rglob("*_stack.tif")), l2a, "--baseline 05.09"
    safe(folder, "added.SAFE", "05.10", data, -1000)
    yield "offset added already", next((folder / "added.SAFE").rglob("*_stack.tif")), l2a, "--baseline harmonized"
    radiance = write_scene(folder / "20240618_095031_04_24c4_3B_AnalyticMS.tif", data)
    yield "radiance", radiance, ["--preset", "planetscope-sr-4b"], "radiance"
    spectral = write_scene(folder / "10300100AABB-ms.tif", land(4, HEIGHT, WIDTH, 14))
    yield "multispectral", spectral, ["--preset", "maxar-visual"], "-visual.tif"
    level1 = write_scene(folder / "LC09_L1TP_014041_20220503_20220820_02_T1.tif", data[:3])
    yield "level 1", level1, ["--preset", "landsat-c2-l2"], "L1TP"
    for name, preset in (("20240618_095031_01_24c4_3B_AnalyticMS_SR.tif", "planetscope-sr-4b"),
                         (next((folder / "new.SAFE").rglob("*_stack.tif")), "sentinel-2-l2a")):
        yield "no declaration", folder / name, [], f"--preset {preset} fits"
    other = one_band(folder / "other-zone.tif", np.ones((HEIGHT, WIDTH), "uint8"), crs="EPSG:32634")
    yield "mask elsewhere", folder / "percentiles.tif", ["--scale", "range 0,9000", "--mask", other, "--mask-values", "0"], \
        "gdalwarp -t_srs EPSG:32633"


def check_radiometry(binary, folder, check):
    folder = folder / "radiometry"
    folder.mkdir()
    makers = [sentinel_cases, landsat_cases, planet_cases, picture_cases, scale_cases, percentile_cases]
    has_band_files = "--band-files" in subprocess.run([binary, "scene", "embed", "--help"], capture_output=True, text=True).stdout
    if has_band_files:
        makers.append(band_file_cases)
    rows, cases = 0, 0
    for make in makers:
        for case in make(folder):
            rows += check_case(binary, folder, case, check, cases)
            cases += 1
        print(f"radiometry: {make.__name__.replace('_cases', '').replace('_', ' ')}", flush=True)
    refused = 0
    for name, path, options, part in refusals(folder):
        output = folder / "refused.parquet"
        said = run(embed_command(binary, [path], output, *options), codes=(1,)).stderr
        check(part in said and not output.exists(), f"{name}: '{part}' is not in: {said}")
        refused += 1
    several = "" if has_band_files else " (several files per scene are left out: this program has no --band-files)"
    return f"radiometry: {rows} rows of {cases} products have the bits of rasterio and numpy; {refused} refused as they must be{several}"
