"""Compares dinov3-pixels with Pillow, timm, torchvision and Transformers, bit for bit.

Run in an environment with Pillow, NumPy, torch, torchvision, timm and scikit-image, from anywhere in the repository:

    python dev/parity/preprocess.py [--binary PATH]

Without --binary the example is built and run with cargo. One line per group of cases; the last line is
"0 differing values in N comparisons" and the exit status 0 if, and only if, every value is equal. Only the `hf` recipe,
which resizes in f32, has a tolerance: a value differs there if it is more than 1e-6 away. torch resizes 8-bit tensors in
fixed point on CPUs with AVX2 only; the `meta` groups are meaningless on others.
"""

import argparse
import io
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import PIL
import skimage
import timm
import torch
import torchvision
import transformers
from PIL import Image, ImageFile, ImageOps
from timm.data import create_transform
from torchvision.transforms import v2
from transformers import DINOv3ViTImageProcessor

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# (width, height), odd and even, tiny and large.
SIZES = [
    (1, 1), (2, 3), (7, 5), (8, 8), (9, 16), (15, 17), (16, 16), (17, 31), (33, 32), (37, 100),
    (64, 48), (65, 63), (100, 37), (127, 129), (128, 128), (200, 150), (223, 224), (224, 224), (255, 257), (256, 256),
    (257, 255), (300, 451), (333, 500), (384, 256), (479, 639), (512, 512), (640, 480), (801, 601), (1000, 667), (1411, 1411),
]


def photographs():
    """Pictures that ship inside scikit-image's wheel."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    found = {}
    for name in ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png"]:
        path = folder / name
        if path.exists():
            found[path.stem] = Image.open(path).convert("RGB")
    return found


def source_picture(size, index, photos):
    """Photographs, noise and gradients in turn, brought to a size."""
    width, height = size
    kinds = list(photos.values())
    kind = index % (len(kinds) + 2)
    if kind < len(kinds):
        return kinds[kind].resize(size, Image.Resampling.LANCZOS)
    generator = np.random.default_rng(index)
    if kind == len(kinds):
        return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), (x + y) * 255 / max(width + height - 2, 1)]
    noise = generator.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8))


class Parity:
    def __init__(self, binary, folder):
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.jobs = []
        self.counter = itertools.count()
        self.comparisons = 0
        self.differing = 0

    def write(self, data, suffix):
        path = self.folder / f"{next(self.counter)}{suffix}"
        path.write_bytes(data)
        return path

    def job(self, kind, path, *arguments, expect):
        """expect is an array, or None where both sides must refuse."""
        out = self.folder / f"{next(self.counter)}.npy"
        self.jobs.append(("\t".join([kind, str(path), str(out), *map(str, arguments)]), out, expect))

    def finish(self, group, tolerance=0.0):
        lines = "\n".join(job for job, _, _ in self.jobs) + "\n"
        answer = subprocess.run(self.binary, input=lines, capture_output=True, text=True, check=True, cwd=ROOT)
        replies = answer.stdout.splitlines()
        assert len(replies) == len(self.jobs), (len(replies), len(self.jobs), answer.stderr)
        values = differing = 0
        worst = 0.0
        first = None
        for reply, (job, out, expect) in zip(replies, self.jobs):
            if expect is None:
                values += 1
                if not reply.startswith("error"):
                    differing += 1
                    first = first or f"accepted what Pillow refuses: {job}"
                continue
            values += expect.size
            if reply != "ok":
                differing += expect.size
                first = first or f"{reply}: {job}"
                continue
            actual = np.load(out)
            out.unlink()
            if actual.shape != expect.shape or actual.dtype != expect.dtype:
                differing += expect.size
                first = first or f"{actual.dtype}{actual.shape}, not {expect.dtype}{expect.shape}: {job}"
                continue
            distance = np.abs(actual.astype(np.float64) - expect.astype(np.float64))
            worst = max(worst, float(distance.max()))
            unequal = int(np.count_nonzero(~(distance <= tolerance)))
            if unequal:
                differing += unequal
                first = first or f"{unequal} of {expect.size} values: {job}"
        beyond = f" by more than {tolerance:g}" if tolerance else ""
        print(f"{group}: {len(self.jobs)} cases, {values} values, {differing} differing{beyond}, largest difference {worst:g}", flush=True)
        if first:
            print(f"    first: {first}", flush=True)
        self.comparisons += values
        self.differing += differing
        self.jobs = []


def encode(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def rgb_of(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def jpeg_kinds():
    for subsampling, name in [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0"), ("4:1:1", "4:1:1")]:
        for progressive in [False, True]:
            yield f"RGB {name}", {"subsampling": subsampling, "progressive": progressive}
    yield "grey", {"progressive": False}
    yield "grey", {"progressive": True}
    yield "CMYK", {"progressive": False}
    yield "CMYK", {"progressive": True}


def rare_jpegs(parity, photos):
    """Kinds that Pillow reads but does not write: their files are made by changing bytes of others."""
    for number, size in enumerate(SIZES):
        picture = source_picture(size, number, photos)
        # 4:4:0 from 4:2:2: the blocks are the same, so the picture is scrambled but complete.
        data = bytearray(encode(picture, format="JPEG", subsampling=1, quality=90, progressive=number % 2 == 1))
        frame = max(data.find(b"\xff\xc0\x00\x11"), data.find(b"\xff\xc2\x00\x11"))
        assert data[frame + 11] == 0x21
        data[frame + 11] = 0x12
        across, down = -(-size[0] // 16), -(-size[1] // 8)
        crop_x, crop_y = (number % 3 if across > 1 else 0), (number % 5 if down > 1 else 0)
        data[frame + 5 : frame + 9] = (down * 16 - crop_y).to_bytes(2, "big") + (across * 8 - crop_x).to_bytes(2, "big")
        parity.job("decode", parity.write(data, ".jpg"), "refuse", "ignore", expect=rgb_of(bytes(data)))
    parity.finish("decode JPEG RGB 4:4:0")
    for number, size in enumerate(SIZES):
        picture = source_picture(size, number, photos).convert("CMYK")
        data = bytearray(encode(picture, format="JPEG", quality=90))
        adobe = data.find(b"Adobe")
        assert adobe > 0
        data[adobe + 11] = 2
        parity.job("decode", parity.write(data, ".jpg"), "refuse", "ignore", expect=rgb_of(bytes(data)))
    parity.finish("decode JPEG YCCK")
    for number, size in enumerate(SIZES):
        picture = source_picture(size, number, photos)
        for options in [{"keep_rgb": True}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1, "progressive": True}]:
            data = encode(picture, format="JPEG", quality=90, **options)
            parity.job("decode", parity.write(data, ".jpg"), "refuse", "ignore", expect=rgb_of(data))
    parity.finish("decode JPEG stored as RGB, with restart markers")


def decoding(parity, photos):
    for index, (name, options) in enumerate(jpeg_kinds()):
        for number, size in enumerate(SIZES):
            picture = source_picture(size, index + number, photos)
            picture = picture.convert({"g": "L", "C": "CMYK"}.get(name[0], "RGB"))
            data = encode(picture, format="JPEG", quality=[50, 75, 90, 95, 100][number % 5], **options)
            parity.job("decode", parity.write(data, ".jpg"), "refuse", "ignore", expect=rgb_of(data))
        parity.finish(f"decode JPEG {name} {'progressive' if options['progressive'] else 'baseline'}")
    rare_jpegs(parity, photos)
    for mode in ["RGB", "RGBA", "L", "LA", "P", "1"]:
        for number, size in enumerate(SIZES):
            picture = source_picture(size, number, photos).convert(mode)
            data = encode(picture, format="PNG")
            parity.job("decode", parity.write(data, ".png"), "refuse", "ignore", expect=rgb_of(data))
        parity.finish(f"decode PNG {mode}")
    for name, options in [("lossless", {"lossless": True}), ("lossy", {"quality": 80})]:
        for mode in ["RGB", "RGBA"]:
            for number, size in enumerate(SIZES):
                picture = source_picture(size, number, photos).convert("RGB")
                if mode == "RGBA":
                    picture.putalpha(picture.getchannel(1))
                data = encode(picture, format="WEBP", exact=True, **options)
                parity.job("decode", parity.write(data, ".webp"), "refuse", "ignore", expect=rgb_of(data))
            parity.finish(f"decode WebP {name} {mode}")
    for mode, compression in itertools.product(["RGB", "RGBA", "L", "P", "1", "CMYK"], ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]):
        for number, size in enumerate(SIZES):
            data = encode(source_picture(size, number, photos).convert(mode), format="TIFF", compression=compression)
            parity.job("decode", parity.write(data, ".tif"), "refuse", "ignore", expect=rgb_of(data))
        parity.finish(f"decode TIFF {mode} {compression}")
    for mode in ["RGB", "RGBA", "L", "P", "1"]:
        for number, size in enumerate(SIZES):
            data = encode(source_picture(size, number, photos).convert(mode), format="BMP")
            parity.job("decode", parity.write(data, ".bmp"), "refuse", "ignore", expect=rgb_of(data))
        parity.finish(f"decode BMP {mode}")
    for suffix, kind in [(".png", "PNG"), (".tif", "TIFF")]:
        for number, size in enumerate(SIZES):
            grey = np.random.default_rng(number).integers(0, 600, size[::-1], dtype=np.uint16)
            data = encode(Image.fromarray(grey), format=kind)
            path = parity.write(data, suffix)
            parity.job("decode", path, "refuse", "ignore", expect=None)
            parity.job("decode", path, "clip", "ignore", expect=rgb_of(data))
            high = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, -1)
            parity.job("decode", path, "high-byte", "ignore", expect=high)
        parity.finish(f"decode {kind} 16-bit grey (clip, high byte, refused)")


def orientation(parity, photos):
    picture = source_picture((37, 23), 0, photos)
    for value in range(10):
        exif = Image.Exif()
        exif[0x0112] = value
        for kind, suffix in [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("TIFF", ".tif")]:
            options = {"lossless": True} if kind == "WEBP" else {}
            data = encode(picture, format=kind, exif=exif.tobytes() if kind != "TIFF" else exif, **options)
            opened = Image.open(io.BytesIO(data))
            turned = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
            path = parity.write(data, suffix)
            parity.job("decode", path, "refuse", "apply", expect=turned)
            parity.job("decode", path, "refuse", "ignore", expect=rgb_of(data))
    parity.finish("orientation")


def truncation(parity, photos):
    """Where Pillow refuses a cut file, so must we; where it accepts, the pixels must agree."""
    picture = source_picture((97, 61), 0, photos)
    for name, options in jpeg_kinds():
        data = encode(picture.convert({"g": "L", "C": "CMYK"}.get(name[0], "RGB")), format="JPEG", **options)
        for cut in [*range(4, len(data), max(1, len(data) // 40)), len(data) - 1, len(data) - 2, len(data) - 3]:
            part = data[:cut]
            try:
                expect = rgb_of(part)
            except (OSError, SyntaxError):
                expect = None
            parity.job("decode", parity.write(part, ".jpg"), "refuse", "ignore", expect=expect)
    parity.finish("truncated JPEG")
    generator = np.random.default_rng(5)
    for name, options in jpeg_kinds():
        data = encode(picture.convert({"g": "L", "C": "CMYK"}.get(name[0], "RGB")), format="JPEG", **options)
        start = data.index(b"\xff\xda") + 14
        for _ in range(25):
            broken = bytearray(data)
            broken[int(generator.integers(start, len(data) - 2))] ^= int(generator.integers(1, 256))
            try:
                expect = rgb_of(bytes(broken))
            except (OSError, SyntaxError):
                expect = None
            parity.job("decode", parity.write(bytes(broken), ".jpg"), "refuse", "ignore", expect=expect)
    parity.finish("JPEG with a changed byte in the scans")


def resizing(parity, photos):
    for name, interpolation in INTERPOLATION.items():
        for number, size in enumerate(SIZES):
            picture = source_picture(size, number, photos)
            path = parity.write(encode(picture, format="PNG"), ".png")
            targets = [SIZES[(number * 7 + step) % len(SIZES)] for step in range(0, 30, 3)]
            for target in [*targets, (256, 256), (size[0], 100), (100, size[1])]:
                expect = np.asarray(picture.resize(target, interpolation))
                parity.job("resize", path, *target, name, expect=expect)
        parity.finish(f"resize {name}, up and down")


def encoded_pictures(parity, photos):
    """A PNG and a JPEG of each size, as path and bytes."""
    files = []
    for number, size in enumerate(SIZES):
        picture = source_picture(size, number + 1, photos)
        files.append((encode(picture, format="PNG"), ".png"))
        kinds = list(jpeg_kinds())
        name, options = kinds[number % len(kinds)]
        picture = picture.convert({"g": "L", "C": "CMYK"}.get(name[0], "RGB"))
        files.append((encode(picture, format="JPEG", quality=90, **options), ".jpg"))
    return [(parity.write(*file), file[0]) for file in files]


def transforms(parity, photos):
    paths = encoded_pictures(parity, photos)
    recipes = [
        ((256, 256), 1.0, "center", IMAGENET), ((224, 224), 0.875, "center", IMAGENET), ((256, 256), 1.0, "center", SATELLITE),
        ((256, 384), 1.0, "center", IMAGENET), ((320, 192), 0.9, "center", IMAGENET), ((224, 224), 1.0, "squash", IMAGENET),
        ((224, 320), 0.95, "squash", IMAGENET), ((256, 256), 1.0, "border", IMAGENET), ((256, 160), 0.9, "border", SATELLITE),
        ((224, 224), 1.1, "center", IMAGENET), ((224, 224), 1.0, "border", ((0.3, 0.5, 0.1), (0.2, 0.2, 0.2))),
    ]
    for (target, crop_pct, crop_mode, (mean, std)), filter_name in itertools.product(recipes, INTERPOLATION):
        transform = create_transform(
            (3, *target), interpolation=filter_name, crop_pct=crop_pct, crop_mode=crop_mode, mean=mean, std=std
        )
        for path, data in paths:
            expect = transform(Image.open(io.BytesIO(data)).convert("RGB")).numpy()
            parity.job(
                "timm", path, *target, filter_name, crop_pct, crop_mode, ",".join(map(str, mean)), ",".join(map(str, std)),
                expect=expect,
            )
        parity.finish(f"timm {target[0]}x{target[1]} {filter_name} crop {crop_pct} {crop_mode}")
    for path, data in paths:
        pixels = torch.from_numpy(rgb_of(data).copy()).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
        parity.job(
            "native", path, ",".join(map(str, IMAGENET[0])), ",".join(map(str, IMAGENET[1])),
            expect=((pixels - mean) / std).numpy(),
        )
    parity.finish("native")


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def comma(values):
    return ",".join(map(str, values))


def meta_transform(size, mean, std):
    """What the README of Meta's repository describes: an 8-bit tensor, squashed."""
    return v2.Compose(
        [v2.ToImage(), v2.Resize(size, antialias=True), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=mean, std=std)]
    )


def meta_eval_transform(crop, mean, std):
    """What make_classification_eval_transform of Meta's repository builds."""
    shorter = 256 * crop // 224
    return v2.Compose([
        v2.ToImage(), v2.Resize(shorter, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(crop),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=mean, std=std),
    ])  # fmt: skip


def hf_transform(size, mean, std):
    processor = DINOv3ViTImageProcessor(size={"height": size[0], "width": size[1]}, image_mean=mean, image_std=std)
    return lambda picture: processor(picture, return_tensors="pt").pixel_values[0]


def recipes(parity, photos):
    paths = encoded_pictures(parity, photos)
    # Long and thin: many weights on one side, few on the other.
    for number, size in enumerate([(1, 300), (300, 1), (3, 900), (900, 3), (1, 2), (2, 1), (2000, 31), (31, 2000)]):
        data = encode(source_picture(size, number, photos), format="PNG")
        paths.append((parity.write(data, ".png"), data))
    squashed = [(256, 256), (224, 224), (160, 400), (257, 33), (512, 768), (1, 1)]
    for name, make, tolerance in [("meta", meta_transform, 0.0), ("hf", hf_transform, 1e-6)]:
        for size, (mean, std) in itertools.product(squashed, [IMAGENET, SATELLITE]):
            transform = make(size, mean, std)
            for path, data in paths:
                expect = transform(opened(data)).numpy()
                parity.job(name, path, *size, comma(mean), comma(std), expect=expect)
            parity.finish(f"{name} {size[0]}x{size[1]}", tolerance)
    for crop, (mean, std) in itertools.product([224, 256, 97, 512], [IMAGENET, SATELLITE]):
        transform = meta_eval_transform(crop, mean, std)
        for path, data in paths:
            picture = opened(data)
            if max(picture.size) > 200 * min(picture.size):
                continue  # gigabytes in torch
            parity.job("meta-eval", path, crop, crop, comma(mean), comma(std), expect=transform(picture).numpy())
        parity.finish(f"meta-eval {crop}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="the built `preprocess` example; default: cargo run")
    parser.add_argument("--only", help="comma-separated groups: decoding,orientation,truncation,resizing,transforms,recipes")
    arguments = parser.parse_args()
    cargo = ["cargo", "run", "--quiet", "--release", "--package", "dinov3-pixels", "--example", "preprocess"]
    binary = [os.path.abspath(arguments.binary)] if arguments.binary else cargo
    print(
        f"Pillow {PIL.__version__}, timm {timm.__version__}, torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}), torchvision {torchvision.__version__}, "
        f"transformers {transformers.__version__}, NumPy {np.__version__}",
        flush=True,
    )
    torch.set_num_threads(1)
    # Progressive files are written in one piece; the default buffer is too small for noise.
    ImageFile.MAXBLOCK = 1 << 26
    photos = photographs()
    print(f"photographs: {', '.join(photos) or 'none'}", flush=True)
    groups = [decoding, orientation, truncation, resizing, transforms, recipes]
    chosen = arguments.only.split(",") if arguments.only else [group.__name__ for group in groups]
    with tempfile.TemporaryDirectory() as folder:
        parity = Parity(binary, folder)
        for group in groups:
            if group.__name__ in chosen:
                group(parity, photos)
    print(f"{parity.differing} differing values in {parity.comparisons} comparisons")
    return 1 if parity.differing else 0


if __name__ == "__main__":
    sys.exit(main())
