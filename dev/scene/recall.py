#!/usr/bin/env python3
"""How many of the ten nearest neighbours by cosine are still found with smaller vectors? The sample scene's overlapping
chips, every tenth one asked. Synthetic weights: real embeddings are spread otherwise, so this is a check of the arithmetic
and an order of magnitude. Called by run.sh (`--recall`)."""

import argparse
import pathlib
import sys
import tempfile

import numpy as np

from common import MODEL, embed, vectors_of

NEIGHBOURS = 10


def neighbours(vectors, asked):
    """The nearest others of each asked row; of equals, the first ones."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similarity = unit[asked] @ unit.T
    similarity[np.arange(len(asked)), asked] = -2
    return np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--sample", type=pathlib.Path, required=True)
    parser.add_argument("--stride", type=int, default=32, help="from chip to chip, in pixels")
    parser.add_argument("--chip", type=int, default=96, help="side of a chip, in pixels")
    arguments = parser.parse_args()
    options = ["--chip", arguments.chip, "--stride", arguments.stride]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tables = {kind: embed(arguments.binary.resolve(), [arguments.sample], folder / f"{kind}.parquet", *options,
                              "--embedding-type", kind)[1] for kind in ("f32", "f16", "int8")}
        sizes = {kind: (folder / f"{kind}.parquet").stat().st_size for kind in tables}
    vectors = {"f32": vectors_of(tables["f32"]), "f16": vectors_of(tables["f16"]).astype(np.float32)}
    bytes_ = np.stack([np.frombuffer(row, np.int8) for row in tables["int8"]["embedding"].to_pylist()])
    vectors["int8"] = bytes_.astype(np.float32) * tables["int8"]["embedding_scale"].to_numpy()[:, None]
    asked = np.arange(0, len(bytes_), 10)
    expected = neighbours(vectors["f32"], asked)
    print(f"{' '.join(MODEL)}: {len(bytes_)} chips of {arguments.chip} px every {arguments.stride} px, {len(asked)} asked")
    held = True
    for kind, found in vectors.items():
        nearest = neighbours(found, asked)
        recall = np.mean([len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(nearest, expected)])
        first = np.mean(nearest[:, 0] == expected[:, 0])
        lengths = np.linalg.norm(vectors["f32"], axis=1) * np.linalg.norm(found, axis=1)
        cosine = ((vectors["f32"] * found).sum(1) / lengths).min()
        print(f"{kind:5} recall@{NEIGHBOURS} {recall:.4f}  nearest the same {first:.4f}  least cosine to f32 {cosine:.6f}  "
              f"file {sizes[kind] / 1e6:.2f} MB")
        held &= recall >= (0.9 if kind == "int8" else 0.98)
    print(f"{int(held)} of 1 checks passed; {int(not held)} failed")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
