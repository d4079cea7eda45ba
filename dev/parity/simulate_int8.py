"""Ways to run the blocks of a ViT in int8, simulated in torch: what each leaves of the cosines to f32.

    simulate_int8.py [--model vit_huge_plus_patch16_dinov3] [--size 160] [--seed 1] [--images 2]

Weights are synthetic-outliers:SEED. Numbers are rounded as the binary's kernels round them (evened channels, rotation, a
scale and a zero point per token, a scale per output channel), but products are f32. The table of docs/precision.md.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import timm_side
import torch
from images import photographs
from synthetic import Synthetic
from torch import nn

LANES, MOST_VECTORS = 16, 16


@dataclass(frozen=True)
class Way:
    """How a block is computed."""

    bf16: bool = False
    outlier_share: float = 0.0
    """Input channels, the largest ones, that are multiplied apart in bf16."""
    group: int = 0
    """Numbers of a row that share a scale; 0 for the whole row."""


def bf16(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.bfloat16().float()


def rotate(rows: torch.Tensor) -> torch.Tensor:
    """Mixes up to sixteen vectors of sixteen lanes by a Hadamard matrix."""
    vectors = rows.shape[-1] // LANES
    size = math.gcd(vectors, MOST_VECTORS)
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    blocks = rows.reshape(*rows.shape[:-1], vectors // size, size, LANES)
    return torch.einsum("...sl,st->...tl", blocks, matrix / math.sqrt(size)).reshape(rows.shape)


def grouped(rows: torch.Tensor, group: int) -> torch.Tensor:
    return rows.reshape(*rows.shape[:-1], -1, group if group and rows.shape[-1] % group == 0 else rows.shape[-1])


def rounded_weights(weights: torch.Tensor, group: int) -> torch.Tensor:
    groups = grouped(weights, group)
    step = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return ((groups / step).round() * step).reshape(weights.shape)


def rounded_activations(rows: torch.Tensor, group: int) -> torch.Tensor:
    groups = grouped(rows, group)
    lowest, highest = groups.amin(-1, keepdim=True).clamp_max(0), groups.amax(-1, keepdim=True).clamp_min(0)
    step = ((highest - lowest) / 255).clamp_min(1e-30)
    zero = (-lowest / step).round()
    return (((groups / step + zero).round().clamp(0, 255) - zero) * step).reshape(rows.shape)


class Rounded(nn.Module):
    """A linear layer whose input channels have the given sizes."""

    def __init__(self, linear: nn.Linear, sizes: torch.Tensor, way: Way):
        super().__init__()
        self.bias, self.way, weights = linear.bias, way, linear.weight
        if way.bf16:
            self.weights = bf16(weights)
            return
        order = torch.argsort(sizes, descending=True)
        apart = round(way.outlier_share * len(order))
        self.outliers, kept = order[:apart], torch.ones(len(order))
        kept[self.outliers] = 0
        factors = (sizes / sizes[order[apart]]).clamp(1e-6, 1).sqrt()
        self.outlier_weights, self.inputs = bf16(weights[:, self.outliers]), kept / factors
        self.weights = rounded_weights(rotate(weights * kept * factors), way.group)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.way.bf16:
            return nn.functional.linear(bf16(rows), self.weights, self.bias)
        operands = rounded_activations(rotate(rows * self.inputs), self.way.group)
        apart = nn.functional.linear(bf16(rows[..., self.outliers]), self.outlier_weights)
        return nn.functional.linear(operands, self.weights, self.bias) + apart


def set_ways(model: nn.Module, layers: list[dict[str, nn.Linear]], way_of: Callable[[int], Way]) -> None:
    for index, (block, linear) in enumerate(zip(model.blocks, layers, strict=True)):
        way = way_of(index)
        inputs = [torch.hypot(norm.weight, norm.bias) for norm in (block.norm1, block.norm2)]
        block.attn.qkv = Rounded(linear["qkv"], inputs[0], way)
        block.attn.proj = Rounded(linear["proj"], inputs[0], Way(bf16=True))
        hidden = 1.0
        for name in ("fc1", "fc1_g", "fc1_x"):
            if name in linear:
                first = linear[name]
                hidden = hidden * torch.sqrt(((first.weight * inputs[1]) ** 2).sum(1) + first.bias**2)
                setattr(block.mlp, name, Rounded(first, inputs[1], way))
        block.mlp.fc2 = Rounded(linear["fc2"], hidden, way)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_huge_plus_patch16_dinov3")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    model = timm_side.create(arguments.model, Synthetic(arguments.seed, outliers=True))
    statistics = timm_side.statistics(arguments.model)
    pixels = np.ascontiguousarray(photographs(arguments.images, arguments.size, arguments.size, statistics))
    pixels = torch.from_numpy(pixels).float()
    names = ("qkv", "proj", "fc1", "fc1_g", "fc1_x", "fc2")
    layers = [
        {name: layer for part in (block.attn, block.mlp) for name in names if (layer := getattr(part, name, None))}
        for block in model.blocks
    ]
    prefix = model.num_prefix_tokens
    exact = model.forward_features(pixels)
    depth = len(model.blocks)
    ways = {"no block in bf16": lambda _: Way()}
    for first in (1, 2, 4, 8):
        ways[f"the first {first} in bf16"] = lambda index, first=first: Way(bf16=index < first)
    half = Way(outlier_share=1 / 64)
    ways["the last half in bf16, 1/64 of channels apart"] = lambda index: Way(bf16=True) if 2 * index >= depth else half
    ways["1/64 of channels apart"] = lambda _: half
    ways["1/32 of channels apart"] = lambda _: Way(outlier_share=1 / 32)
    ways["1/64 of channels apart, a scale per 256"] = lambda _: Way(outlier_share=1 / 64, group=256)
    for name, way_of in ways.items():
        set_ways(model, layers, way_of)
        cosines = torch.nn.functional.cosine_similarity(exact.double(), model.forward_features(pixels).double(), dim=-1)
        patches, token = cosines[:, prefix:].mean(), cosines[:, 0].mean()
        print(f"{name:48} class token {token:.5f}  patch tokens {patches:.5f}  worst {cosines.min():.4f}", flush=True)


if __name__ == "__main__":
    main()
