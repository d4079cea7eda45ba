"""JPEG files to embed: the photographs of scikit-image's wheel, cropped, mirrored and scaled, no two alike."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dev/parity"))
from images import PHOTOGRAPHS  # noqa: E402


def write(cache: Path, count: int, height_px: int, width_px: int) -> list[Path]:
    """The first `count` files of a set that is always the same, made where they are missing."""
    folder = cache / f"photographs-{width_px}x{height_px}"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:04}.jpg" for index in range(count)]
    for index, file in enumerate(files):
        if not file.exists():
            temporary = file.with_suffix(".tmp")
            photograph(index, height_px, width_px).save(temporary, "JPEG", quality=90)
            temporary.rename(file)
    return files


def photograph(index: int, height_px: int, width_px: int) -> Image.Image:
    rng = np.random.default_rng(index)
    with Image.open(PHOTOGRAPHS[index % len(PHOTOGRAPHS)]) as file:
        image = file.convert("RGB")
    share = rng.uniform(0.7, 1.0)
    width, height = (max(1, int(side * share)) for side in image.size)
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    image = image.crop((left, top, left + width, top + height))
    if rng.integers(2):
        image = ImageOps.mirror(image)
    return ImageOps.fit(image, (width_px, height_px), Image.Resampling.BICUBIC)
