"""Writes the golden files of this folder: timm's results for tiny models, stage by stage.

Made with timm 1.0.31, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0 (dev/parity/requirements.txt pins them):

    "$(dev/parity/environment.sh)" goldens/make.py

Weights come from a seed (`synthetic:SEED`), so that only activations are stored. timm runs in f64, with its RoPE
table in f32 as always, and results are rounded to f32 once: they are the truth to about 1e-7.
"""

import hashlib
import json
import platform
import sys
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import timm
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "dev" / "parity"))

import timm_side  # noqa: E402
from synthetic import Synthetic  # noqa: E402

CLASSES = 5
README = """\
# Goldens

`make.py` (its first lines say how to run it) wrote these from timm {timm} with torch {torch}, numpy {numpy},
safetensors {safetensors}, Python {python}. `SHA256SUMS` lists what it wrote.

- `NAME.json`: a timm-style `config.json`, plus the `seed` of the synthetic weights.
- `NAME.safetensors`, f32: `input`, normalised, of a noisy and an almost flat image; after each stage
  `stage.patch_embed` (with CLS and registers), `stage.block.N`, `stage.norm` (`forward_features`), or `stage.stem`,
  `stage.0` to `stage.3`; `pool.KIND` (`forward_head` with `pre_logits`; `none` is `global_pool=''`) and `logits`
  (from `avg`). The suffix `.rope_bf16` means RoPE periods rounded to bf16 and back.

| name | what it covers |
| --- | --- |
{rows}
"""


class Golden:
    """One tiny model and its input."""

    def __init__(self, name: str, covers: str, architecture: str, seed: int, size: tuple[int, int], **model_args):
        self.name, self.covers, self.size = name, covers, size
        cfg = timm.get_pretrained_cfg(architecture).to_dict()
        kept = ("tag", "input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "first_conv", "classifier")  # fmt: skip
        self.config = {
            "architecture": architecture.partition(".")[0],
            "num_classes": CLASSES,
            "num_features": model_args["embed_dim"] if "embed_dim" in model_args else model_args["dims"][-1],
            "global_pool": "avg",
            "model_args": model_args,
            "pretrained_cfg": {"num_classes": CLASSES} | {key: cfg[key] for key in kept if key in cfg},
            "seed": seed,
        }

    def model(self) -> torch.nn.Module:
        model = timm_side.create(
            self.config["architecture"],
            Synthetic(self.config["seed"]),
            num_classes=CLASSES,
            **self.config["model_args"],
        ).double()
        if hasattr(model, "rope"):
            model.rope.float()
        return model

    def input(self) -> np.ndarray:
        rng = np.random.default_rng(self.config["seed"])
        noisy = rng.standard_normal((3, *self.size))
        almost_flat = 0.005 + 0.002 * rng.standard_normal((3, *self.size))
        return np.stack([noisy, almost_flat]).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        model, images = self.model(), self.input()
        x = torch.from_numpy(images).double()
        with torch.inference_mode():
            result = stages(model, x) | heads(model, x)
            if hasattr(model, "rope"):
                timm_side.round_periods(model)
                rounded = {"stage.norm": model.forward_features(x)} | heads(model, x)
                result |= {f"{name}.rope_bf16": value for name, value in rounded.items()}
        tensors = {name: np.ascontiguousarray(value.float().numpy()) for name, value in result.items()}
        return {"input": images} | tensors

    def write(self) -> list[Path]:
        config, tensors = HERE / f"{self.name}.json", HERE / f"{self.name}.safetensors"
        config.write_text(json.dumps(self.config, indent=2) + "\n")
        tensors.write_bytes(safetensors.numpy.save(self.tensors()))
        return [config, tensors]


def stages(model: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The activations after each stage; the last one is `forward_features`, which is checked."""
    result = {}
    if hasattr(model, "blocks"):
        y, rope = model._pos_embed(model.patch_embed(x))
        result["stage.patch_embed"] = y
        for index, block in enumerate(model.blocks):
            y = result[f"stage.block.{index}"] = block(y, rope=rope)
        y = result["stage.norm"] = model.norm(y)
    else:
        y = result["stage.stem"] = model.stem(x)
        for index, stage in enumerate(model.stages):
            y = result[f"stage.{index}"] = stage(y)
    assert torch.equal(y, model.forward_features(x))
    return result


def heads(model: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every pooling and the logits."""
    features = model.forward_features(x)
    kinds = timm_side.POOLINGS["vit" if hasattr(model, "blocks") else "convnext"]
    result = {f"pool.{kind}": value for kind, value in timm_side.pooled(model, features, kinds).items()}
    result["pool.none"] = timm_side.unpooled(model, features)
    result["logits"] = model.forward_head(features)
    return result


GOLDENS = [
    Golden(
        "vit_gelu", "GELU, no q/v bias, head dimension 32", "vit_small_patch16_dinov3", 11, (32, 48),
        embed_dim=64, depth=3, num_heads=2, mlp_ratio=3,
    ),
    Golden(
        "vit_swiglu_qkvb", "SwiGLU (hidden size rounded up to 8), q/v bias, head dimension 64",
        "vit_small_plus_patch16_dinov3_qkvb", 12, (32, 48), embed_dim=128, depth=3, num_heads=2, mlp_ratio=2.7,
    ),
    Golden(
        "vit_head128", "SwiGLU (hidden size rounded up to 64), head dimension 128", "vit_7b_patch16_dinov3", 13,
        (48, 32), embed_dim=256, depth=2, num_heads=2, mlp_ratio=1.1,
    ),
    Golden(
        "convnext", "ConvNeXt, a size that no stage divides", "convnext_tiny.dinov3_lvd1689m", 14, (70, 45),
        dims=[8, 16, 24, 32], depths=[1, 1, 2, 1],
    ),
]  # fmt: skip


def main() -> None:
    written = sorted(path for golden in GOLDENS for path in golden.write())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in written]
    (HERE / "SHA256SUMS").write_text("".join(sums))
    (HERE / "README.md").write_text(
        README.format(
            timm=timm.__version__,
            torch=torch.__version__.partition("+")[0],
            numpy=np.__version__,
            safetensors=safetensors.__version__,
            python=platform.python_version(),
            rows="\n".join(f"| `{golden.name}` | {golden.covers} |" for golden in GOLDENS),
        )
    )
    for path in written:
        print(f"{path.stat().st_size:8} {path.name}")


if __name__ == "__main__":
    main()
