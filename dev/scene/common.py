"""What the checks and the figures share: scenes that GDAL writes, and the program."""

import pathlib
import subprocess

import numpy as np
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import Affine

MODEL = ["-m", "vit_small_patch16_dinov3", "--weights", "synthetic:7", "--precision", "bf16", "--batch-size", "8"]
# The model's data config in timm: ImageNet's statistics.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORTH_UP = Affine(10, 0, 399960, 0, -10, 4200000)
DEFLATE = dict(compress="DEFLATE", predictor=2)


class Checks:
    """Counts what held, and says what did not."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def __call__(self, held, what):
        if held:
            self.passed += 1
        else:
            self.failed += 1
            print(f"  FAILED: {what}", flush=True)
        return held


def land(bands, height, width, seed, levels=256, dtype="uint8"):
    """Smooth hills and noise: [bands, height, width], of which no two rows or columns are alike."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for band in range(bands):
        hills = np.sin(x / (37 + 11 * band) + band) + np.cos(y / (53 + 7 * band) + x / 211)
        planes.append(np.clip(hills / 4 + 0.5 + random.normal(0, 0.05, hills.shape), 0, 1))
    return np.floor(np.stack(planes) * (levels - 1)).astype(dtype)


def write_scene(path, data, *, crs="EPSG:32633", transform=NORTH_UP, mask=None, colours=None, **options):
    """A tiled GeoTIFF, by GDAL."""
    layout = dict(tiled=True, blockxsize=128, blockysize=128) if options.pop("tiled", True) else {}
    profile = dict(driver="GTiff", width=data.shape[2], height=data.shape[1], count=data.shape[0], dtype=data.dtype,
                   transform=transform, **(layout | DEFLATE | options))
    if crs is not None:
        profile["crs"] = crs
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as target:
        target.write(data)
        if colours:
            target.colorinterp = colours
        if mask is not None:
            target.write_mask(mask)
    return path


def embed_command(binary, scenes, output, *options):
    """`dinov3 scene embed`, as a list."""
    return [str(binary), "scene", "embed", *map(str, scenes), *MODEL, *map(str, options), "-o", str(output)]


def run(command, codes=(0,), **options):
    """Runs a program that shall end with one of these codes."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, **options)
    if result.returncode not in codes:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {result.returncode}:\n{result.stderr}")
    return result


def embed(binary, scenes, output, *options, codes=(0,)):
    """Runs `dinov3 scene embed`; gives what it said and the table that it wrote."""
    result = run(embed_command(binary, scenes, output, *options), codes)
    return result, pq.read_table(output)


def vectors_of(table):
    """[rows, dimensions], as it was stored."""
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)


def parse_only(text, known):
    chosen = text.split(",") if text else list(known)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise SystemExit(f"--only: {', '.join(unknown)} is not one of {', '.join(known)}")
    return chosen


def add_arguments(parser, known):
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="the dinov3 program")
    parser.add_argument("--sample", type=pathlib.Path, required=True, help="the sample scene (run.sh draws it)")
    parser.add_argument("--only", help=f"a list of {', '.join(known)}")
    parser.add_argument("--keep", type=pathlib.Path, help="work in this folder and leave everything there")
