#!/usr/bin/env python3
"""The seam figure of `dinov3 scene embed --dense`: how much more neighbouring cells differ across the borders of windows than
elsewhere, over the same where the whole scene was one window. 1 is no seam. The scene is seeded 1/f noise.

    seams.py --binary DINOV3 [--side 2048] [--window 512] [--overlap 128] [--model NAME]"""

import argparse
import pathlib
import sys
import tempfile

import numpy as np
import rasterio

from common import MODEL, run, write_scene

PATCH_PX = 16
# The bounds.
SEAMLESS, SEAM = 0.01, 1.05


def noise(side, seed):
    """[3, side, side]: 1/f noise as bytes. Cut from a field of twice the size, since that one comes around."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(2 * side)[:, None], np.fft.rfftfreq(2 * side)[None])
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(3):
        white = np.fft.rfft2(random.normal(size=(2 * side, 2 * side)))
        plane = np.fft.irfft2(white / frequency)[:side, :side]
        planes.append((plane - plane.mean()) / plane.std())
    # Colours of land are alike.
    common = sum(planes) / 3
    planes = [0.7 * common + 0.3 * plane for plane in planes]
    return np.stack([np.clip(128 + 45 * plane / plane.std(), 0, 255) for plane in planes]).astype("uint8")


def borders(cells, window, overlap):
    """Where windows begin and end, in cells."""
    last, stride = max(cells - window, 0), window - overlap
    starts = [*range(0, last, stride), last]
    return sorted({edge for start in starts for edge in (start, start + window)} - {0, cells})


def jumps(cells, edges):
    """Mean cosine distance of neighbours across the edges, over that of all others."""
    unit = cells / np.linalg.norm(cells, axis=2, keepdims=True)
    across, elsewhere = [], []
    for field in (unit, unit.transpose(1, 0, 2)):
        distance = 1 - (field[:, 1:] * field[:, :-1]).sum(2)
        is_edge = np.isin(np.arange(1, field.shape[1]), edges)
        across.append(distance[:, is_edge].ravel())
        elsewhere.append(distance[:, ~is_edge].ravel())
    return np.concatenate(across).mean() / np.concatenate(elsewhere).mean()


def dense(binary, scene, output, model, window, overlap):
    command = [binary, "scene", "embed", scene, "--dense", "--dims", "all", "--no-picture", *model, "--batch-size", 4,
               "--window", window, "--overlap", overlap, "--max-tokens", 100000, "-o", output]
    run(command)
    with rasterio.open(output) as raster:
        return raster.read().transpose(1, 2, 0).astype(np.float64)


def figures(binary, folder, side, window, overlap, model=MODEL[:6]):
    """The excess jump with overlap and without."""
    scene = write_scene(folder / "noise.tif", noise(side, seed=1), interleave="pixel", photometric="RGB")
    cells = side // PATCH_PX
    whole = dense(binary, scene, folder / "whole.tif", model, side, 0)
    found = []
    for overlap_px in (overlap, 0):
        blended = dense(binary, scene, folder / f"overlap-{overlap_px}.tif", model, window, overlap_px)
        edges = borders(cells, window // PATCH_PX, overlap_px // PATCH_PX)
        found.append(jumps(blended, edges) / jumps(whole, edges))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=128)
    parser.add_argument("--model", default="vit_small_patch16_dinov3")
    arguments = parser.parse_args()
    model = ["-m", arguments.model, *MODEL[2:6]]
    with tempfile.TemporaryDirectory() as folder:
        found = figures(arguments.binary.resolve(), pathlib.Path(folder), arguments.side, arguments.window,
                        arguments.overlap, model)
    held = 0
    for overlap, jump in zip((arguments.overlap, 0), found):
        good = abs(jump - 1) <= SEAMLESS if overlap else jump > SEAM
        held += good
        wanted = f"within {SEAMLESS} of 1" if overlap else f"above {SEAM}"
        print(f"windows of {arguments.window} px, overlap {overlap} px: excess jump {jump:.4f}, {wanted}: {good}")
    print(f"{held} of 2 checks passed; {2 - held} failed")
    return 0 if held == 2 else 1


if __name__ == "__main__":
    sys.exit(main())
