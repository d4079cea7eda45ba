"""Weights from a seed and a tensor's timm name, bit for bit the same in every implementation.

Element i of a tensor is `offset + scale * unit(i)` in f32, where unit(i) is a splitmix64 stream started at a hash
of the name and the seed. `synthetic:SEED` is the plain flavour; in `synthetic-outliers:SEED` a few norm weights
and rows of the first MLP layer are larger, as in trained models.

    python synthetic.py --check          compare with the published checksums
"""

import math
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
SEED_STEP = 0xD1342543DE82EF95
CHUNK = 1 << 15  # scratch of three arrays stays within a core's L2 cache
STEPS = np.arange(1, CHUNK + 1, dtype=np.uint64) * np.uint64(GOLDEN)
THREADS = os.cpu_count() or 1

OUTLIER_NAME = re.compile(r"blocks\.\d+\.(norm[12]|mlp\.fc1|mlp\.fc1_x)\.weight")
OUTLIER_THRESHOLD = np.float32(1 - 2**-6)
NORM_OUTLIER = np.float32(16)
ROW_OUTLIER = np.float32(8)


def fnv1a64(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def offset_and_scale(name: str, shape: tuple[int, ...]) -> tuple[np.float32, np.float32]:
    """The range of a tensor's elements; the first rule that matches counts."""
    leaf = name.rpartition(".")[2]
    if leaf in ("cls_token", "reg_token"):
        return np.float32(0), np.float32(1)
    if leaf.startswith("gamma"):
        return np.float32(0.25), np.float32(0.125)
    if leaf.endswith("bias"):
        return np.float32(0), np.float32(0.125)
    if len(shape) == 1:
        return np.float32(1), np.float32(0.25)
    return np.float32(0), np.float32(math.sqrt(3 / math.prod(shape[1:])))


def write_span(out: np.ndarray, state: int, start: int, offset: np.float32, scale: np.float32) -> None:
    """Elements start, start + 1, ... of the stream that begins at `state`, into the flat f32 array `out`."""
    z, shifted = np.empty(CHUNK, np.uint64), np.empty(CHUNK, np.uint64)
    for at in range(0, out.size, CHUNK):
        count = min(CHUNK, out.size - at)
        a, b, unit = z[:count], shifted[:count], out[at : at + count]
        np.add(STEPS[:count], np.uint64((state + (start + at) * GOLDEN) & MASK), out=a)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            np.right_shift(a, np.uint64(shift), out=b)
            np.bitwise_xor(a, b, out=a)
            np.multiply(a, np.uint64(factor), out=a)
        np.right_shift(a, np.uint64(31), out=b)
        np.bitwise_xor(a, b, out=a)
        np.right_shift(a, np.uint64(40), out=a)
        unit[:] = a.view(np.int64)  # 24 bits: exact in f32
        unit *= np.float32(2**-23)
        unit -= np.float32(1)
        unit *= scale
        unit += offset


@dataclass(frozen=True)
class Synthetic:
    """One set of synthetic weights."""

    seed: int
    outliers: bool = False

    @property
    def spec(self) -> str:
        """What the binary's `--weights` takes."""
        return f"synthetic{'-outliers' if self.outliers else ''}:{self.seed}"

    def _write(self, flat: np.ndarray, name: str, offset: np.float32, scale: np.float32) -> None:
        state = (fnv1a64(name) + self.seed * SEED_STEP) & MASK
        if flat.size <= 4 * CHUNK:
            return write_span(flat, state, 0, offset, scale)
        share = -(-flat.size // (4 * THREADS))
        with ThreadPoolExecutor(THREADS) as pool:
            spans = [
                pool.submit(write_span, flat[start : start + share], state, start, offset, scale)
                for start in range(0, flat.size, share)
            ]
            for span in spans:
                span.result()

    def write(self, out: np.ndarray, name: str) -> None:
        """Overwrites the contiguous f32 array `out` with the tensor called `name`."""
        self._write(out.reshape(-1), name, *offset_and_scale(name, out.shape))
        if self.outliers and OUTLIER_NAME.fullmatch(name):
            unit = np.empty(out.shape[0], np.float32)
            self._write(unit, name + "#outliers", np.float32(0), np.float32(1))
            out[unit >= OUTLIER_THRESHOLD] *= NORM_OUTLIER if out.ndim == 1 else ROW_OUTLIER

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        out = np.empty(shape, np.float32)
        self.write(out, name)
        return out

    def fill(self, module, prefix: str = "") -> None:
        """Overwrites every f32 parameter of a torch module, whose names are preceded by `prefix`."""
        for name, parameter in module.named_parameters():
            self.write(parameter.detach().numpy(), prefix + name)


def check() -> bool:
    """Whether the checksums published with the definition come out."""

    def bit_sum(tensor: np.ndarray) -> int:
        return int(tensor.view(np.uint32).sum(dtype=np.uint64))

    weights = Synthetic(7)
    results = [
        ("cls_token", bit_sum(weights.tensor("cls_token", (1, 1, 384))), 0xBC9F184180),
        ("qkv", bit_sum(weights.tensor("blocks.0.attn.qkv.weight", (1152, 384))), 0x34CA940A1840D),
        ("patch_embed", weights.tensor("patch_embed.proj.weight", (384, 3, 16, 16)).flat[0], np.float32(0.061508544)),
    ]
    for name, found, expected in results:
        shown = hex(found) if isinstance(found, int) else found
        print(f"{'ok  ' if found == expected else 'FAIL'} {name}: {shown}")
    return all(found == expected for _, found, expected in results)


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        sys.exit(__doc__)
    sys.exit(0 if check() else 1)
