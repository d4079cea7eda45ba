"""Test pictures: photographs out of scikit-image's wheel, noise, and two flat ones.

Nothing is downloaded and nothing is stored in the repository: the photographs ship inside the wheel.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageOps

PHOTOGRAPHS = [
    Path(skimage.__file__).parent / "data" / name
    for name in (
        "astronaut.png",
        "coffee.png",
        "chelsea.png",
        "motorcycle_left.png",
        "ihc.png",
        "rocket.jpg",
        "retina.jpg",
        "hubble_deep_field.jpg",
    )
]


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation per channel, for pixels in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """u8 [H, W, 3] to f32 [3, H, W]."""
        unit = pixels.astype(np.float32) / np.float32(255)
        normalised = (unit - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))

    def mean_colour(self) -> tuple[int, int, int]:
        return tuple(round(255 * value) for value in self.mean)


def photograph(index: int, height: int, width: int, jpeg: bool = False) -> np.ndarray:
    """One of the photographs cropped and resized to u8 [height, width, 3], through a JPEG file if asked."""
    with Image.open(PHOTOGRAPHS[index % len(PHOTOGRAPHS)]) as file:
        image = ImageOps.fit(file.convert("RGB"), (width, height), Image.Resampling.BICUBIC)
    if jpeg:
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=90)
        image = Image.open(encoded).convert("RGB")
    return np.asarray(image)


def flat(colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.uint8(colour), (height, width, 3))


def varied(height: int, width: int, statistics: Statistics, rng: np.random.Generator) -> np.ndarray:
    """f32 [5, 3, height, width]: two photographs (PNG, JPEG), noise, the mean colour, black.

    The flat ones show a wrong epsilon, which photographs hide.
    """
    first = int(rng.integers(len(PHOTOGRAPHS)))
    pictures = [
        photograph(first, height, width),
        photograph(first + 1, height, width, jpeg=True),
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        flat(statistics.mean_colour(), height, width),
        flat((0, 0, 0), height, width),
    ]
    return np.stack([statistics.normalise(picture) for picture in pictures])


def photographs(count: int, height: int, width: int, statistics: Statistics) -> np.ndarray:
    """f32 [count, 3, height, width]: different photographs, every second one through JPEG."""
    return np.stack(
        [statistics.normalise(photograph(index, height, width, jpeg=index % 2 == 1)) for index in range(count)]
    )


def write_files(folder: Path) -> list[Path]:
    """Photographs in the encodings that people have, at sizes that need resizing and cropping."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for path in PHOTOGRAPHS:
        with Image.open(path) as file:
            images.append(file.convert("RGB"))
    astronaut, coffee, chelsea, motorcycle, ihc, rocket, retina, _ = images
    variants = [
        (astronaut, "astronaut.png", {}),
        (retina.resize((333, 501)), "retina-odd.png", {}),
        (chelsea.resize((90, 61)), "chelsea-small.png", {}),
        (coffee.convert("L"), "coffee-grey.png", {}),
        (ihc.convert("RGBA"), "ihc-alpha.png", {}),
        (coffee.quantize(64), "coffee-palette.png", {}),
        (astronaut, "astronaut-444.jpg", {"quality": 90, "subsampling": "4:4:4"}),
        (coffee, "coffee-422.jpg", {"quality": 85, "subsampling": "4:2:2"}),
        (rocket.resize((301, 257)), "rocket-420-odd.jpg", {"quality": 75, "subsampling": "4:2:0"}),
        (motorcycle, "motorcycle-progressive.jpg", {"quality": 80, "progressive": True}),
        (chelsea.convert("L"), "chelsea-grey.jpg", {"quality": 90}),
        (ihc.convert("CMYK"), "ihc-cmyk.jpg", {"quality": 90}),
    ]
    for image, name, options in variants:
        image.save(folder / name, **options)
    return [folder / name for _, name, _ in variants]
