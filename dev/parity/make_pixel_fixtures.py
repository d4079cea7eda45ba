"""Writes the small pictures that the tests of dinov3-pixels decode, and what Pillow makes of them.

    python dev/parity/make_pixel_fixtures.py

Needs the environment of `requirements.txt`. The pictures are synthetic. `expected.tsv` holds one case per line,
tab-separated:

    decode  FILE  DEEP_GREY  ORIENTATION  WIDTH  HEIGHT  SHA256-OF-RGB
    resize  FILE  WIDTH  HEIGHT  FILTER  SHA256-OF-RGB
    recipe  FILE  NAME  HEIGHT  WIDTH  STATISTICS  SHA256-OF-F32

The recipes are torchvision's (`meta`, `meta-eval`) and Transformers' (`hf`), on a CPU with AVX2; the hash is that of the
little-endian f32 planes.
"""

import hashlib
import io
import pathlib
import struct

import numpy as np
import PIL
import torchvision
import transformers
from PIL import Image, ImageOps
from preprocess import IMAGENET, SATELLITE, hf_transform, meta_eval_transform, meta_transform

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates" / "dinov3-pixels" / "tests" / "fixtures"
WIDTH, HEIGHT = 45, 31


def synthetic(width=WIDTH, height=HEIGHT, seed=0):
    """Gradients with a disc and a little noise: smooth parts, edges and texture."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), (x + y) * 255 / (width + height - 2)], -1)
    disc = (x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    planes[disc] = [250, 40, 10]
    planes += generator.normal(0, 5, planes.shape)
    return Image.fromarray(np.clip(planes, 0, 255).astype(np.uint8))


def encoded(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def exif(value):
    block = Image.Exif()
    block[0x0112] = value
    return block


def swapped_sampling(data):
    """A 4:2:2 JPEG of 48 x 32 declared as 4:4:0: scrambled, but complete."""
    data = bytearray(data)
    frame = data.find(b"\xff\xc0\x00\x11")
    data[frame + 11] = 0x12
    data[frame + 5 : frame + 9] = struct.pack(">HH", 63, 23)
    return bytes(data)


def files():
    picture = synthetic()
    grey = picture.convert("L")
    cmyk = picture.convert("CMYK")
    translucent = picture.copy()
    translucent.putalpha(grey)
    palette = picture.quantize(200)
    for subsampling, name in [(0, "444"), (1, "422"), (2, "420"), ("4:1:1", "411")]:
        yield f"rgb_{name}.jpg", encoded(picture, format="JPEG", subsampling=subsampling, quality=85)
        yield f"rgb_{name}_progressive.jpg", encoded(picture, format="JPEG", subsampling=subsampling, quality=70, progressive=True)
    yield "rgb_440.jpg", swapped_sampling(encoded(synthetic(48, 32), format="JPEG", subsampling=1, quality=85))
    yield "rgb_stored.jpg", encoded(picture, format="JPEG", keep_rgb=True, quality=85)
    yield "rgb_restarts.jpg", encoded(picture, format="JPEG", restart_marker_blocks=2, quality=85)
    yield "grey.jpg", encoded(grey, format="JPEG", quality=85)
    yield "grey_progressive.jpg", encoded(grey, format="JPEG", quality=85, progressive=True)
    yield "cmyk.jpg", encoded(cmyk, format="JPEG", quality=85)
    ycck = bytearray(encoded(cmyk, format="JPEG", quality=85))
    ycck[ycck.find(b"Adobe") + 11] = 2
    yield "ycck.jpg", bytes(ycck)
    for value in range(1, 9):
        yield f"turned_{value}.jpg", encoded(synthetic(13, 9), format="JPEG", quality=85, exif=exif(value))
    yield "turned.png", encoded(synthetic(13, 9), format="PNG", exif=exif(6))
    yield "turned.webp", encoded(synthetic(13, 9), format="WEBP", lossless=True, exif=exif(7))
    yield "turned.tif", encoded(synthetic(13, 9), format="TIFF", compression="tiff_lzw", exif=exif(8))

    yield "rgb.png", encoded(picture, format="PNG")
    yield "rgba.png", encoded(translucent, format="PNG")
    yield "grey.png", encoded(grey, format="PNG")
    yield "grey_alpha.png", encoded(translucent.convert("LA"), format="PNG")
    yield "bits_1.png", encoded(picture.convert("1"), format="PNG")
    yield "palette.png", encoded(palette, format="PNG")
    yield "palette_4_bits.png", encoded(picture.quantize(11), format="PNG", bits=4)
    yield "palette_2_bits.png", encoded(picture.quantize(4), format="PNG", bits=2)
    yield "palette_transparent.png", encoded(palette, format="PNG", transparency=3)
    deep = np.random.default_rng(1).integers(0, 700, (HEIGHT, WIDTH), dtype=np.uint16)
    yield "grey_16_bits.png", encoded(Image.fromarray(deep), format="PNG")
    # Pillow cannot write deep colours; this is a PNG by hand.
    colours = np.random.default_rng(2).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    yield "rgb_16_bits.png", deep_png(colours)
    frames = [synthetic(20, 14, seed).convert("RGB") for seed in range(2)]
    yield "animated.png", encoded(frames[0], format="PNG", save_all=True, append_images=frames[1:])

    yield "lossless.webp", encoded(picture, format="WEBP", lossless=True)
    yield "lossless_alpha.webp", encoded(translucent, format="WEBP", lossless=True, exact=True)
    yield "lossy.webp", encoded(picture, format="WEBP", quality=80)
    yield "lossy_alpha.webp", encoded(translucent, format="WEBP", quality=80)
    yield "animated.webp", encoded(frames[0], format="WEBP", save_all=True, append_images=frames[1:], lossless=True)

    for compression in ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]:
        yield f"rgb_{compression}.tif", encoded(picture, format="TIFF", compression=compression)
    yield "rgba.tif", encoded(translucent, format="TIFF", compression="tiff_lzw")
    yield "grey.tif", encoded(grey, format="TIFF", compression="tiff_lzw")
    yield "bits_1.tif", encoded(picture.convert("1"), format="TIFF")
    yield "bits_1_fax.tif", encoded(picture.convert("1"), format="TIFF", compression="group4")
    yield "palette.tif", encoded(palette, format="TIFF", compression="tiff_lzw")
    yield "cmyk.tif", encoded(cmyk, format="TIFF", compression="tiff_lzw")
    yield "grey_16_bits.tif", encoded(Image.fromarray(deep), format="TIFF")
    yield "float.tif", encoded(Image.fromarray(deep.astype(np.float32) - 100.25), format="TIFF")
    yield "strips.tif", encoded(picture, format="TIFF", compression="tiff_lzw", strip_size=WIDTH * 3 * 7)

    yield "rgb.bmp", encoded(picture, format="BMP")
    yield "rgba.bmp", encoded(translucent, format="BMP")
    yield "palette.bmp", encoded(picture.quantize(17), format="BMP")
    yield "grey.bmp", encoded(grey, format="BMP")
    yield "bits_1.bmp", encoded(picture.convert("1"), format="BMP")
    yield "run_lengths.bmp", run_length_bmp()
    yield "bits_555.bmp", deep_bmp(None)
    yield "bits_565.bmp", deep_bmp((0xF800, 0x7E0, 0x1F))


def deep_png(pixels):
    import zlib

    def chunk(kind, payload):
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(width, height, bits, compression, extra, pixels):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    start = 14 + len(header) + len(extra)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + extra + pixels


def run_length_bmp():
    palette = bytes(value for index in range(256) for value in (index, 255 - index, index * 7 % 256, 0))
    rows = [
        bytes([5, 10, 3, 200, 0, 0]),
        bytes([0, 5, 1, 2, 3, 4, 5, 0, 3, 77, 0, 0]),
        bytes([2, 9, 0, 2, 3, 1, 3, 8, 0, 0]),
        bytes([8, 255, 0, 1]),
    ]
    # The delta of the third row jumps over one row.
    return bmp(8, 5, 8, 1, palette, b"".join(rows))


def deep_bmp(masks):
    pixels = np.random.default_rng(3).integers(0, 65536, (6, 10), dtype=np.uint16).tobytes()
    extra = struct.pack("<III", *masks) if masks else b""
    return bmp(10, 6, 16, 3 if masks else 0, extra, pixels)


def digest(picture):
    return hashlib.sha256(picture.tobytes()).hexdigest()


def cases(name, data):
    def opened():
        return Image.open(io.BytesIO(data))

    deep = opened().mode in ("I;16", "I;16B", "F", "I")
    picture = opened().convert("RGB")
    policy = "clip" if deep else "refuse"
    yield "decode", name, policy, "ignore", *picture.size, digest(picture)
    if name.startswith("turned"):
        turned = ImageOps.exif_transpose(opened()).convert("RGB")
        yield "decode", name, "refuse", "apply", *turned.size, digest(turned)
    if deep and opened().mode != "F":
        high = Image.fromarray((np.asarray(opened()) >> 8).astype(np.uint8)).convert("RGB")
        yield "decode", name, "high-byte", "ignore", *high.size, digest(high)
    if name in ("rgb.png", "rgb_420.jpg", "cmyk.jpg", "rgb_440.jpg"):
        for size in [(1, 1), (16, 16), (20, 90), (90, 12), (45, 64), (100, 31), (128, 128), (7, 5)]:
            for filter_name, resample in [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]:
                yield "resize", name, *size, filter_name, digest(picture.resize(size, resample))


def recipe_cases(name, data):
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    for statistics, (mean, std) in [("imagenet", IMAGENET), ("satellite", SATELLITE)]:
        for recipe, make, sizes in [
            ("hf", hf_transform, [(16, 16), (24, 64), (224, 224), (31, 45), (1, 1)]),
            ("meta", meta_transform, [(16, 16), (24, 64), (256, 256), (31, 45), (1, 1)]),
            ("meta-eval", lambda size, *rest: meta_eval_transform(size[0], *rest), [(16, 16), (33, 33), (224, 224)]),
        ]:
            for size in sizes:
                values = make(size, mean, std)(picture).numpy()
                sha = hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()
                yield "recipe", name, recipe, *size, statistics, sha


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    versions = f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}, transformers {transformers.__version__}"
    lines = [f"# {versions}; written by dev/parity/make_pixel_fixtures.py"]
    total = 0
    for name, data in files():
        (FOLDER / name).write_bytes(data)
        total += len(data)
        found = list(cases(name, data))
        if name in ("rgb.png", "rgb_420.jpg", "cmyk.jpg", "grey.png", "turned_1.jpg"):
            found += recipe_cases(name, data)
        lines += ["\t".join(map(str, case)) for case in found]
    (FOLDER / "expected.tsv").write_text("\n".join(lines) + "\n")
    print(f"{len(list(FOLDER.iterdir())) - 1} pictures of {total} bytes, {len(lines) - 1} cases")


if __name__ == "__main__":
    main()
