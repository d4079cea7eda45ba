"""Writes GeoTIFFs of all kinds with GDAL and compares our reading with GDAL's: whole images, random windows, masks,
transforms, reference systems, overviews. Exact; JPEG with reduced colour is
exact beside Pillow, whose libjpeg is ours, and to COLOUR_LEVELS beside rasterio's.

    dev/raster/run.sh [--only TEXT] [--windows N] [--keep FOLDER]

Closing line: files, comparisons, failures. Exit code 1 on any failure.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import rasterio
import rasterio.crs
import rasterio.enums
import rasterio.env
import rasterio.shutil
import rasterio.warp
import rasterio.windows
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

NORTH_UP = Affine(10, 0, 399960, 0, -10, 4200000)
WIDTH, HEIGHT = 301, 203  # no multiple of any block
# JPEG with reduced colour: rasterio's wheel has the libjpeg of the Independent JPEG Group (9), which enlarges colour by its
# cosine transform; we, Pillow and the GDAL of most distributions have libjpeg-turbo, which interpolates. So these files are
# compared with Pillow's decoding of each block, exactly, and with GDAL's to so many levels.
COLOUR_LEVELS, COLOUR_MEAN = 8, 0.7


def pixels(dtype, bands, seed, noisy=True):
    """Values that use the type's range, in patches with noise, so that every codec has something to do."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = []
    for band in range(bands):
        smooth = (np.sin(x / (23 + 5 * band)) + np.cos(y / (31 + 3 * band))) / 4 + 0.5
        if noisy:
            smooth = np.clip(smooth + random.normal(0, 0.02, smooth.shape), 0, 1)
        planes.append(smooth)
    unit = np.stack(planes)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return ((unit - 0.3) * 1000).astype(dtype)
    info = np.iinfo(dtype)
    span = min(float(info.max) - float(info.min), 2.0**32 - 1)
    return (float(info.min) + np.floor(unit * span)).astype(dtype)


class Case:
    """A file to write, and how exactly it must be read."""

    def __init__(self, name, data, *, tolerance=0, mean=None, mask=None, driver="GTiff", finish=None, transform=NORTH_UP,
                 crs="EPSG:32633", sparse=None, env=None, refused=None, overviews=None, check=None, **options):
        self.name, self.data, self.tolerance, self.mean, self.mask = name, data, tolerance, mean, mask
        self.driver, self.finish, self.transform, self.crs = driver, finish, transform, crs
        self.sparse, self.env, self.refused, self.overviews = sparse, env or {}, refused, overviews
        self.check, self.options = check, options

    def write(self, path):
        data = self.data
        options = dict(width=data.shape[2], height=data.shape[1], count=data.shape[0], dtype=data.dtype, **self.options)
        if self.transform is not None:
            options["transform"] = self.transform
        if self.crs is not None:
            options["crs"] = self.crs
        plain = path if self.driver == "GTiff" else path.with_suffix(".plain.tif")
        if self.driver != "GTiff":
            creation = {key: options.pop(key) for key in list(options) if key.isupper()}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, **self.env):
            with rasterio.open(plain, "w", driver="GTiff", **options) as target:
                if self.finish:
                    self.finish(target)
                if self.sparse:
                    for window in self.sparse:
                        target.write(data[(slice(None), *window.toslices())], window=window)
                else:
                    target.write(data)
                if self.mask is not None:
                    target.write_mask(self.mask)
            if self.overviews:
                with rasterio.open(plain, "r+") as target:
                    target.build_overviews(self.overviews, rasterio.enums.Resampling.average)
            if self.driver != "GTiff":
                rasterio.shutil.copy(plain, path, driver=self.driver, **creation)
                plain.unlink()


def cases():
    tiled = dict(tiled=True, blockxsize=64, blockysize=48)
    layouts = {
        "tiled-pixel": dict(tiled, interleave="pixel"),
        "tiled-band": dict(tiled, interleave="band"),
        "strips-pixel": dict(interleave="pixel", blockysize=7),
        "strips-band": dict(interleave="band", blockysize=7),
    }
    codecs = {"none": {}, "lzw": dict(compress="LZW"), "deflate": dict(compress="DEFLATE"), "zstd": dict(compress="ZSTD"),
              "packbits": dict(compress="PACKBITS"), "lerc": dict(compress="LERC"),
              "lerc-deflate": dict(compress="LERC_DEFLATE"), "lerc-zstd": dict(compress="LERC_ZSTD")}
    types = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]

    # Every codec with every type, layout in turn; predictors where the codec has them; both byte orders in turn.
    turn = itertools.cycle(layouts.items())
    order = itertools.cycle(["LITTLE", "LITTLE", "BIG"])
    for (codec, codec_options), dtype in itertools.product(codecs.items(), types):
        predictors = [1]
        if codec in ("lzw", "deflate", "zstd"):
            predictors = [1, 3] if np.dtype(dtype).kind == "f" else [1, 2]
            if dtype == "float32":
                predictors = [1, 2, 3]
        for predictor in predictors:
            layout, layout_options = next(turn)
            endian = next(order)
            options = dict(codec_options, **layout_options)
            if predictor != 1:
                options["predictor"] = predictor
            bands = 1 + len(codec + dtype + str(predictor)) % 4
            yield Case(f"{codec}-{dtype}-p{predictor}-{layout}-{endian.lower()}-{bands}", pixels(dtype, bands, 1),
                       ENDIANNESS=endian, **options)
    # The dangerous combination of the survey, in full.
    for (layout, layout_options), dtype, endian in itertools.product(
            layouts.items(), ["uint8", "uint16", "float32", "float64"], ["LITTLE", "BIG"]):
        for predictor in [2, 3] if dtype.startswith("float") and dtype == "float32" else [3 if dtype == "float64" else 2]:
            yield Case(f"predictor{predictor}-{layout}-{dtype}-{endian.lower()}", pixels(dtype, 3, 2), compress="DEFLATE",
                       predictor=predictor, ENDIANNESS=endian, **layout_options)
    # Half floats and odd numbers of bits.
    for layout, layout_options in layouts.items():
        half = pixels("float32", 2, 3).astype(np.float16).astype(np.float32)
        yield Case(f"half-{layout}", half, NBITS=16, compress="DEFLATE", **layout_options)
        yield Case(f"half-p3-{layout}", half, NBITS=16, compress="DEFLATE", predictor=3, **layout_options)
        yield Case(f"bits12-{layout}", pixels("uint16", 2, 4) >> 4, NBITS=12, compress="DEFLATE", **layout_options)
        for bits in (1, 2, 4, 7):
            yield Case(f"bits{bits}-{layout}", pixels("uint8", 2, 4) >> (8 - bits), NBITS=bits, **layout_options)

    # JPEG and WebP.
    reduced = dict(tolerance=COLOUR_LEVELS, mean=COLOUR_MEAN)
    for layout in ("tiled", "strips"):
        place = dict(tiled=True, blockxsize=64, blockysize=48) if layout == "tiled" else dict(blockysize=16)
        yield Case(f"jpeg-gray-{layout}", pixels("uint8", 1, 5), compress="JPEG", **place)
        yield Case(f"jpeg-rgb-{layout}", pixels("uint8", 3, 5), compress="JPEG", photometric="RGB", **place)
        yield Case(f"jpeg-ycbcr-{layout}", pixels("uint8", 3, 5), compress="JPEG", photometric="YCBCR", **reduced, **place)
        yield Case(f"jpeg-rgba-{layout}", pixels("uint8", 4, 5), compress="JPEG", photometric="RGB", ALPHA="YES", **place)
        yield Case(f"jpeg-band-{layout}", pixels("uint8", 3, 5), compress="JPEG", interleave="band", **place)
        webp = dict(compress="WEBP", interleave="pixel", **place)
        yield Case(f"webp-lossless-rgb-{layout}", pixels("uint8", 3, 6), WEBP_LOSSLESS=True, **webp)
        yield Case(f"webp-lossless-rgba-{layout}", pixels("uint8", 4, 6), WEBP_LOSSLESS=True, ALPHA="YES", **webp)
        yield Case(f"webp-lossy-{layout}", pixels("uint8", 3, 6), WEBP_LEVEL=75, **webp)
    yield Case("jpeg-q30-ycbcr", pixels("uint8", 3, 7), compress="JPEG", photometric="YCBCR", JPEG_QUALITY=30, **reduced, tiled=True,
               blockxsize=128, blockysize=128)
    # The tables may stand in each block instead of in the directory.
    for mode in (0, 1, 2, 3):
        yield Case(f"jpeg-tables-{mode}", pixels("uint8", 3, 7), compress="JPEG", photometric="YCBCR", JPEGTABLESMODE=mode, **reduced,
                   tiled=True, blockxsize=64, blockysize=64)

    # LERC with loss, with NaN, with alpha.
    yield Case("lerc-lossy", pixels("float32", 2, 8), compress="LERC", MAX_Z_ERROR=0.5, **tiled)
    holes = pixels("float32", 2, 8)
    holes[:, 20:90, 30:100] = np.nan
    for nodata in (None, np.nan):
        yield Case(f"lerc-nan-{nodata}", holes, compress="LERC_ZSTD", nodata=nodata, **tiled)
        yield Case(f"zstd-nan-{nodata}", holes, compress="ZSTD", predictor=3, nodata=nodata, **tiled)
    yield Case("lerc-rgba", pixels("uint8", 4, 8), compress="LERC_DEFLATE", photometric="RGB", ALPHA="YES", **tiled)

    # No-data values, representable and not, in bands that disagree.
    for dtype, nodata in [("uint8", 0), ("uint8", 255), ("uint8", -9999), ("uint16", 0), ("int16", -32768), ("int8", -128),
                          ("uint32", 4294967295), ("int32", -2147483648), ("float32", -9999), ("float32", 0.1),
                          ("float32", float(np.finfo(np.float32).min)), ("float64", -1.7976931348623157e308),
                          ("float64", 1e-9), ("float32", float("-inf"))]:
        data = pixels(dtype, 3, 9)
        if -1e300 < nodata < 1e300 or dtype == "float64" or np.isinf(nodata):
            try:
                value = np.array(nodata).astype(data.dtype) if np.dtype(dtype).kind == "f" else np.dtype(dtype).type(nodata)
                data[:, 40:120, 50:150] = value
                data[0, 100:160, 100:200] = value
            except OverflowError:
                pass
        yield Case(f"nodata-{dtype}-{nodata:g}", data, nodata=nodata, compress="DEFLATE", **tiled)
    near = pixels("float32", 1, 9)
    near[0, :50, :50] = np.nextafter(np.float32(-9999), np.float32(0))
    near[0, 50:100, :50] = np.float32(-9999.01)
    yield Case("nodata-neighbours", near, nodata=-9999, **tiled)

    # Alpha and what is none.
    for bands, photometric, alpha in [(2, "MINISBLACK", "YES"), (4, "RGB", "YES"), (4, "RGB", "PREMULTIPLIED"),
                                      (4, "RGB", "NON-PREMULTIPLIED"), (4, "RGB", "NO")]:
        for dtype in ("uint8", "uint16"):
            data = pixels(dtype, bands, 10)
            data[-1, 30:90, 20:160] = 0
            for interleave in ("pixel", "band"):
                yield Case(f"alpha-{bands}-{alpha}-{dtype}-{interleave}", data, photometric=photometric, ALPHA=alpha,
                           compress="LZW", interleave=interleave, tiled=True, blockxsize=64, blockysize=64)
    yield Case("naip-four-bands", pixels("uint8", 4, 10), photometric="RGB", ALPHA="NO", compress="DEFLATE", **tiled)
    yield Case("thirteen-bands", pixels("uint16", 13, 10), compress="ZSTD", **tiled)
    yield Case("min-is-white", pixels("uint8", 1, 10), photometric="MINISWHITE", compress="LZW", **tiled)

    # Internal masks.
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[60:140, 100:250] = 0
    for compress in ("DEFLATE", "JPEG"):
        photometric = dict(photometric="YCBCR", **reduced) if compress == "JPEG" else {}
        yield Case(f"mask-{compress}", pixels("uint8", 3, 11), mask=mask, compress=compress, **photometric, tiled=True, blockxsize=64, blockysize=64)
    yield Case("mask-strips", pixels("uint16", 2, 11), mask=mask, compress="LZW", blockysize=5)
    yield Case("mask-and-nodata", pixels("uint8", 1, 11), mask=mask, nodata=7, **tiled)
    yield Case("mask-overviews", pixels("uint8", 3, 11), mask=mask, compress="DEFLATE", overviews=[2, 4], **tiled)

    # Sparse files.
    some = [rasterio.windows.Window(64, 48, 64, 48), rasterio.windows.Window(256, 144, 45, 48)]
    for nodata, dtype, interleave in itertools.product([None, 0, 77, -9999], ["uint8", "int16", "float32"], ["pixel", "band"]):
        if nodata == -9999 and dtype == "uint8":
            continue
        yield Case(f"sparse-{dtype}-{nodata}-{interleave}", pixels(dtype, 3, 12), sparse=some, nodata=nodata, SPARSE_OK=True,
                   compress="DEFLATE", interleave=interleave, **tiled)
    yield Case("sparse-strips", pixels("uint8", 1, 12), sparse=[rasterio.windows.Window(0, 21, WIDTH, 7)], nodata=5,
               SPARSE_OK=True, blockysize=7)
    yield Case("sparse-alpha", pixels("uint8", 4, 12), sparse=some, SPARSE_OK=True, photometric="RGB", ALPHA="YES",
               compress="DEFLATE", **tiled)

    # COG, overviews, BigTIFF.
    for compress in ("DEFLATE", "LZW", "ZSTD", "LERC", "NONE"):
        yield Case(f"cog-{compress}", pixels("uint8", 3, 13), driver="COG", COMPRESS=compress, BLOCKSIZE=128,
                   OVERVIEW_COUNT=2, **({} if compress in ("LERC", "NONE") else {"PREDICTOR": "YES"}))
    yield Case("cog-jpeg", pixels("uint8", 3, 13), **reduced, driver="COG", COMPRESS="JPEG", BLOCKSIZE=128, OVERVIEW_COUNT=1)
    yield Case("cog-jpeg-mask", pixels("uint8", 4, 13), **reduced, driver="COG", COMPRESS="JPEG", BLOCKSIZE=128, OVERVIEW_COUNT=1,
               photometric="RGB", ALPHA="YES")
    yield Case("cog-webp", pixels("uint8", 3, 13), driver="COG", COMPRESS="WEBP", QUALITY=100, BLOCKSIZE=128)
    yield Case("cog-float-nodata", holes, driver="COG", COMPRESS="DEFLATE", PREDICTOR="YES", BLOCKSIZE=128, nodata=np.nan,
               OVERVIEW_COUNT=2)
    yield Case("cog-sparse", pixels("uint8", 3, 13), sparse=some, driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=128, nodata=0,
               OVERVIEW_COUNT=1, SPARSE_OK=True)
    yield Case("cog-bigtiff", pixels("uint16", 3, 13), driver="COG", COMPRESS="DEFLATE", BIGTIFF="YES", BLOCKSIZE=128)
    for endian in ("LITTLE", "BIG"):
        yield Case(f"bigtiff-{endian}", pixels("uint16", 3, 13), BIGTIFF="YES", ENDIANNESS=endian, compress="DEFLATE",
                   predictor=2, **tiled)
        yield Case(f"overviews-{endian}", pixels("uint16", 3, 13), ENDIANNESS=endian, compress="LZW", overviews=[2, 4, 8],
                   **tiled)

    # Where it lies.
    small = dict(compress="DEFLATE", **tiled)
    one = pixels("uint8", 1, 14)
    yield Case("point", one, finish=lambda target: target.update_tags(AREA_OR_POINT="Point"), **small)
    rotated = Affine.translation(500000, 4100000) * Affine.rotation(30) * Affine.scale(10, -10)
    yield Case("rotated", one, transform=rotated, **small)
    yield Case("rotated-point", one, transform=rotated, finish=lambda target: target.update_tags(AREA_OR_POINT="Point"), **small)
    yield Case("south-up", one, transform=Affine(10, 0, 399960, 0, 10, 4100000), **small)
    yield Case("south-up-point", one, transform=Affine(10, 0, 399960, 0, 10, 4100000),
               finish=lambda target: target.update_tags(AREA_OR_POINT="Point"), **small)
    yield Case("west-up", one, transform=Affine(-10, 0, 399960, 0, -10, 4100000), **small)
    for epsg in (4326, 3857, 32719, 3413, 3031, 5070, 27700, 2154, 3035, 26917, 2193, 6933, 2263, 31370, 28355, 3577, 4269):
        transform = Affine(1e-4, 0, 12.5, 0, -1e-4, 41.5) if epsg in (4326, 4269) else NORTH_UP
        yield Case(f"epsg-{epsg}", one, crs=f"EPSG:{epsg}", transform=transform, **small)
    for name, proj in {
        "albers": "+proj=aea +lat_0=23 +lon_0=-95 +lat_1=29.5 +lat_2=45.5 +x_0=10 +y_0=20 +datum=NAD83 +units=m",
        "albers-feet": "+proj=aea +lat_0=34 +lon_0=-120 +lat_1=34 +lat_2=40.5 +x_0=0 +y_0=-4000000 +ellps=GRS80 +units=us-ft",
        "tmerc": "+proj=tmerc +lat_0=10 +lon_0=13.5 +k=0.9998 +x_0=300000 +y_0=100 +datum=WGS84 +units=m",
        "lcc2": "+proj=lcc +lat_0=40 +lon_0=-96 +lat_1=20 +lat_2=60 +x_0=5 +y_0=6 +datum=NAD83 +units=m",
        "lcc1": "+proj=lcc +lat_1=46.5 +lat_0=46.5 +lon_0=2 +k_0=0.999 +x_0=600000 +y_0=200000 +ellps=GRS80 +units=m",
        "laea": "+proj=laea +lat_0=-12 +lon_0=33 +x_0=1 +y_0=2 +datum=WGS84 +units=m",
        "stere-north": "+proj=stere +lat_0=90 +lat_ts=71 +lon_0=-40 +x_0=0 +y_0=0 +datum=WGS84 +units=m",
        "stere-south": "+proj=stere +lat_0=-90 +lat_ts=-65 +lon_0=20 +x_0=0 +y_0=0 +datum=WGS84 +units=m",
        "stere-pole-scale": "+proj=stere +lat_0=90 +lon_0=10 +k=0.99 +x_0=2000000 +y_0=2000000 +datum=WGS84 +units=m",
        "sterea": "+proj=sterea +lat_0=52 +lon_0=5.4 +k=0.9999 +x_0=155000 +y_0=463000 +ellps=GRS80 +units=m",
        "merc": "+proj=merc +lon_0=110 +k=0.997 +x_0=3900000 +y_0=900000 +ellps=WGS84 +units=m",
        "merc-lat-ts": "+proj=merc +lon_0=10 +lat_ts=40 +x_0=0 +y_0=0 +ellps=WGS84 +units=m",
        "sphere": "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m",
        "aeqd": "+proj=aeqd +lat_0=40 +lon_0=20 +x_0=0 +y_0=0 +datum=WGS84 +units=m",
        "utm-own": "+proj=utm +zone=33 +ellps=GRS80 +units=m",
        "longlat-own": "+proj=longlat +a=6378300 +b=6356700",
    }.items():
        transform = Affine(1e-4, 0, 12.5, 0, -1e-4, 41.5) if name == "longlat-own" else Affine(10, 0, 399960, 0, -10, 400000)
        yield Case(f"user-{name}", one, crs=proj, transform=transform, **small)
    yield Case("no-crs", one, crs=None, check=lambda profile: profile["georeference"] == "without CRS", **small)
    yield Case("nowhere", one, crs=None, transform=None, check=lambda profile: profile["georeference"] == "none", **small)

    def points(target):
        corners = [(0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH)]
        target.gcps = ([GroundControlPoint(row, col, 12 + col / 1e4, 41 - row / 1e4, 0) for row, col in corners],
                       rasterio.crs.CRS.from_epsg(4326))

    def rpc(target):
        target.rpcs = RPC(height_off=0, height_scale=1, lat_off=41, lat_scale=1, line_off=0, line_scale=1, long_off=12,
                          long_scale=1, samp_off=0, samp_scale=1, line_num_coeff=[1.0] * 20, line_den_coeff=[1.0] * 20,
                          samp_num_coeff=[1.0] * 20, samp_den_coeff=[1.0] * 20, err_bias=None, err_rand=None)

    yield Case("control-points", one, crs=None, transform=None, finish=points,
               check=lambda profile: profile["georeference"] == "control points", **small)
    yield Case("rational-polynomials", one, crs=None, transform=None, finish=rpc,
               check=lambda profile: profile["georeference"] == "rational polynomials", **small)

    # Notes.
    def notes(target):
        target.update_tags(TIFFTAG_DATETIME="2024:06:01 10:20:30", MISSION="S2 <A> & B")
        target.set_band_description(2, "near infrared \"B08\"")
        target.scales, target.offsets = (0.0001, 0.0001, 1.0), (-0.1, 0.0, 0.0)

    yield Case("notes", pixels("uint16", 3, 15), finish=notes, **small, check=lambda profile: (
        profile["datetime"] == "2024:06:01 10:20:30" and profile["metadata"]["MISSION"] == "S2 <A> & B"
        and profile["descriptions"][1] == "near infrared \"B08\""))

    # Places in a table of colours, whatever the file calls itself: scenes refuse them, masks have them.
    for photometric in ("PALETTE", "MINISBLACK"):
        yield Case(f"palette-{photometric.lower()}", one, photometric=photometric, compress="LZW",
                   finish=lambda target: target.write_colormap(1, {i: (i, 255 - i, 7, 255) for i in range(256)}), **tiled)

    # Refused by name.
    yield Case("refused-lzma", one, compress="LZMA", refused="LZMA", **tiled)
    yield Case("refused-cmyk", pixels("uint8", 4, 16), photometric="CMYK", refused="CMYK", **tiled)
    yield Case("refused-complex", pixels("float32", 1, 16).astype("complex64"), refused="complex", **tiled)
    yield Case("refused-int64", pixels("int32", 1, 16).astype("int64"), refused="64 bits", **tiled)
    yield Case("refused-uint64", pixels("uint32", 1, 16).astype("uint64"), refused="64 bits", **tiled)
    yield Case("refused-fax", pixels("uint8", 1, 16) >> 7, compress="CCITTFAX4", NBITS=1, refused="CCITT", **tiled)
    yield Case("refused-jxl", one, compress="JXL", refused="JPEG XL", **tiled)
    yield Case("refused-jpeg12", pixels("uint16", 1, 16) >> 4, compress="JPEG", NBITS=12, refused="12 bits", **tiled)
    yield Case("refused-lab", pixels("uint8", 3, 16), photometric="CIELAB", refused="CIE", **tiled)


class Reader:
    """The example program, asked line by line."""

    def __init__(self, binary):
        self.process = subprocess.Popen([binary, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the reader died at {words}")
        return json.loads(line)

    def read(self, path, scratch, window, bands, level=None):
        words = [path, scratch, window.col_off, window.row_off, window.width, window.height, ",".join(map(str, bands))]
        answer = self.ask(*words, *([] if level is None else [level]))
        if "error" in answer:
            raise ValueError(answer["error"])
        data = scratch.read_bytes()
        count = window.width * window.height
        dtype = np.dtype(answer["type"])
        values = np.frombuffer(data, dtype, count * len(bands)).reshape(len(bands), window.height, window.width)
        valid = np.frombuffer(data, np.uint8, count, values.nbytes).reshape(window.height, window.width)
        return values, valid.astype(bool), answer["empty"]


def valid_mask(source):
    """rasterio's dataset mask, and the alpha band where GDAL itself takes no notice of it."""
    return source.dataset_mask() > 0


def compare(case, path, reader, scratch, windows, random):
    """Yields the differences as text; counts comparisons in `compare.count`."""
    profile = reader.ask(path)
    if case.refused:
        compare.count += 1
        if case.refused not in profile.get("error", "") or "gdal_translate -of COG" not in profile["error"]:
            yield f"not refused by name: {profile}"
        return
    if "error" in profile:
        yield profile["error"]
        return
    levels = [None]
    with rasterio.open(path) as source:
        expected_profile = (source.width, source.height, source.count)
        if expected_profile != (profile["width"], profile["height"], profile["count"]):
            yield f"size {profile['width']}x{profile['height']}x{profile['count']}"
        if profile["transform"] is not None or not source.transform.is_identity:
            ours, theirs = profile["transform"], list(source.transform)[:6]
            if ours is None or not np.allclose(ours, theirs, rtol=1e-15, atol=1e-9):
                yield f"transform {ours}, GDAL's {theirs}"
        yield from compare_crs(profile, source)
        overviews = source.overviews(1)
        levels += list(range(len(overviews)))
        if len(profile["overviews"]) != len(overviews):
            yield f"overviews {profile['overviews']}, GDAL's {overviews}"
        if [colour_name(colour) for colour in source.colorinterp] != [colour.split(" ")[0].split("(")[0] for colour in profile["colours"]]:
            yield f"colours {profile['colours']}, GDAL's {source.colorinterp}"
        compare.count += 5
    if case.check and not case.check(profile):
        yield f"profile {profile}"
    for level in levels:
        options = {} if level is None else {"overview_level": level}
        with rasterio.open(path, **options) as source:
            truth = source.read()
            mask = valid_mask(source)
        bands = list(range(1, truth.shape[0] + 1))
        height, width = truth.shape[1:]
        turbo = by_turbo(path) if case.tolerance and level is None and truth.shape[0] == 3 else None
        whole = rasterio.windows.Window(0, 0, width, height)
        places = [whole]
        for _ in range(windows):
            w, h = int(random.integers(1, min(130, width) + 1)), int(random.integers(1, min(130, height) + 1))
            places.append(rasterio.windows.Window(int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1)), w, h))
        places.append(rasterio.windows.Window(-5, height - 9, 40, 30))
        for window in places:
            shuffled = bands if window is whole else [int(band) for band in random.permutation(bands)]
            try:
                ours, valid, empty = reader.read(path, scratch, window, shuffled, level)
            except ValueError as error:
                yield f"level {level} {window}: {error}"
                continue
            compare.count += 1
            inside = window.intersection(whole)
            rows, columns = inside.toslices()
            y, x = int(inside.row_off - window.row_off), int(inside.col_off - window.col_off)
            part = (slice(y, y + inside.height), slice(x, x + inside.width))
            expected = truth[[band - 1 for band in shuffled]][:, rows, columns]
            yield from compare_values(case, f"level {level} {window}", ours[(slice(None), *part)], expected)
            if turbo is not None and max(shuffled) <= 3:
                exact = turbo[[band - 1 for band in shuffled]][:, rows, columns]
                if not np.array_equal(ours[(slice(None), *part)], exact):
                    yield f"level {level} {window}: other values than Pillow's"
            expected_valid = np.zeros(valid.shape, bool)
            expected_valid[part] = mask[rows, columns]
            if (valid != expected_valid).any():
                yield f"level {level} {window}: {(valid != expected_valid).sum()} of {valid.size} mask values differ"
            if empty and expected_valid.any():
                yield f"level {level} {window}: called empty, and is not"


def by_turbo(path):
    """The first image of a file of JPEG blocks, decoded by libjpeg-turbo; little-endian classic TIFF, pixel interleaved."""
    data = path.read_bytes()
    number = lambda form, at: struct.unpack_from("<" + form, data, at)[0]
    directory, tags = number("I", 4), {}
    for at in range(directory + 2, directory + 2 + 12 * number("H", directory), 12):
        tag, kind, count = struct.unpack_from("<HHI", data, at)
        form = {1: "B", 3: "H", 4: "I", 7: "B"}.get(kind)
        if form:
            place = at + 8 if count * struct.calcsize(form) <= 4 else number("I", at + 8)
            tags[tag] = struct.unpack_from(f"<{count}{form}", data, place)
    width, height = tags[256][0], tags[257][0]
    offsets, counts = (tags[324], tags[325]) if 324 in tags else (tags[273], tags[279])
    columns, rows = (tags[322][0], tags[323][0]) if 324 in tags else (width, tags[278][0])
    tables = bytes(tags.get(347, b""))[2:-2]
    across = -(-width // columns)
    image = np.zeros((-(-height // rows) * rows, across * columns, 3), np.uint8)
    for index, (offset, count) in enumerate(zip(offsets, counts)):
        stream = data[offset:offset + 2] + tables + data[offset + 2:offset + count]
        block = np.asarray(Image.open(io.BytesIO(stream)).convert("RGB"))
        y, x = index // across * rows, index % across * columns
        image[y:y + block.shape[0], x:x + columns] = block
    return image[:height, :width].transpose(2, 0, 1)


def compare_values(case, what, ours, expected):
    if expected.dtype == np.float16:
        expected = expected.astype(np.float32)
    if ours.dtype != expected.dtype:
        yield f"{what}: type {ours.dtype}, GDAL's {expected.dtype}"
        return
    if case.tolerance == 0:
        if ours.tobytes() != np.ascontiguousarray(expected).tobytes() and not np.array_equal(ours, expected, equal_nan=ours.dtype.kind == "f"):
            yield f"{what}: {np.mean(ours != expected):.2%} of values differ"
        return
    difference = np.abs(ours.astype(int) - expected.astype(int))
    if difference.size > 10000:
        compare.colour.append((difference.max(), difference.mean()))
    if difference.size and (difference.max() > case.tolerance or (case.mean and difference.size > 10000 and difference.mean() > case.mean)):
        yield f"{what}: values differ by up to {difference.max()}, {difference.mean():.3f} on average"


def compare_crs(profile, source):
    if source.crs is None:
        if profile["epsg"] or profile["proj"]:
            yield f"a reference system where GDAL has none: {profile['epsg'] or profile['proj']}"
        return
    if profile["epsg"]:
        if source.crs.to_epsg() != profile["epsg"]:
            yield f"EPSG:{profile['epsg']}, GDAL's {source.crs}"
        return
    if not profile["proj"]:
        if profile["georeference"] in ("control points", "none"):
            return
        yield f"{profile['problem']}; GDAL's {source.crs.to_wkt()}"
        return
    # The same points in both systems: to the micrometre.
    ours = rasterio.crs.CRS.from_string(profile["proj"])
    a, b, c, d, e, f = profile["transform"]
    xs, ys = [c, c + a * 300, c + b * 200], [f, f + d * 300, f + e * 200]
    theirs = np.array(rasterio.warp.transform(source.crs, ours, xs, ys))
    scale = 1e-11 if source.crs.is_geographic else 1e-5
    if not np.allclose(theirs, [xs, ys], rtol=0, atol=scale):
        yield f"{profile['proj']} moves points by {np.abs(theirs - [xs, ys]).max()}; GDAL's {source.crs.to_wkt()}"


def colour_name(colour):
    names = {"gray": "Grey", "red": "Red", "green": "Green", "blue": "Blue", "alpha": "Alpha", "undefined": "Undefined",
             "palette": "Named"}
    return names.get(colour.name, colour.name)


def write_corpus(folder):
    """Small files of every codec for the fuzz target `geotiff`, named by their content as the others are."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0:16, 0:16]
    codecs = [("LZW", 2), ("ZSTD", 2), ("PACKBITS", 1), ("LERC", 1), ("LERC_ZSTD", 1), ("LERC_DEFLATE", 1), ("JPEG", 1),
              ("WEBP", 1), ("DEFLATE", 3)]
    for (codec, predictor), (bands, dtype) in itertools.product(codecs, [(3, "uint8"), (2, "float32")]):
        if (codec in ("JPEG", "WEBP") or predictor == 2) != (dtype == "uint8") and codec not in ("PACKBITS", "LERC"):
            continue
        options = dict(compress=codec, interleave="pixel" if codec == "WEBP" else "band", nodata=0, SPARSE_OK=True)
        if predictor > 1:
            options["predictor"] = predictor
        if codec == "JPEG":
            options.update(photometric="YCBCR", interleave="pixel")
        if codec == "WEBP":
            options["WEBP_LOSSLESS"] = True
        path = folder / "new.tif"
        with rasterio.open(path, "w", driver="GTiff", width=20, height=16, count=bands, dtype=dtype, tiled=True, blockxsize=16,
                           blockysize=16, crs="EPSG:32633", transform=NORTH_UP, **options) as target:
            target.write(np.stack([(x * 9 + y * 5 + band * 40 + 1) % 250 for band in range(bands)]).astype(dtype),
                         window=rasterio.windows.Window(0, 0, 16, 16))
        data = path.read_bytes()
        path.unlink()
        if len(data) <= 4096:
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="the built example read_window")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--windows", type=int, default=8, help="random windows per image")
    parser.add_argument("--keep", type=pathlib.Path, help="keep the files in this folder")
    parser.add_argument("--corpus", type=pathlib.Path, help="write the seeds of the fuzz target geotiff there, and end")
    arguments = parser.parse_args()
    if arguments.corpus:
        write_corpus(arguments.corpus)
        return
    random = np.random.default_rng(20261123)
    reader = Reader(arguments.binary)
    failures, files, skipped = 0, 0, []
    compare.count, compare.colour = 0, []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        folder = arguments.keep or pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for case in cases():
            if arguments.only not in case.name:
                continue
            path = folder / f"{case.name}.tif"
            try:
                case.write(path)
            except Exception as error:  # a codec that this wheel lacks: said at the end
                skipped.append(f"{case.name} ({str(error).splitlines()[0][:80]})")
                continue
            files += 1
            differences = list(compare(case, path, reader, folder / "window.raw", arguments.windows, random))
            failures += bool(differences)
            for difference in differences[:3]:
                print(f"FAIL {case.name}: {difference}")
            if not arguments.keep:
                path.unlink()
    for name in skipped:
        print(f"not written by this GDAL: {name}")
    if compare.colour:
        levels, means = zip(*compare.colour)
        print(f"JPEG with reduced colour: up to {max(levels)} levels, {max(means):.2f} on average")
    print(f"GDAL {rasterio.__gdal_version__}: {files} files, {compare.count} comparisons, {failures} files differ, "
          f"{len(skipped)} not written")
    sys.exit(failures > 0 or files == 0)


if __name__ == "__main__":
    main()
