"""What timm computes: the truth that the binary is compared with, under the names of the binary's tensors."""

import copy
from contextlib import contextmanager

import numpy as np
import timm
import torch
from timm.layers import SelectAdaptivePool2d
from torch import nn

from images import Statistics
from synthetic import Synthetic

POOLINGS = {"vit": ("avg", "token", "max", "avgmax"), "convnext": ("avg", "max", "avgmax")}


def released_models() -> list[str]:
    """Every DINOv3 name in timm's registry, with its tag, small models first."""
    sizes = ("tiny", "small", "small_plus", "base", "large", "huge_plus", "7b")

    def order(name: str):
        kind, _, rest = name.partition("_")
        size = max((size for size in sizes if rest.startswith(size)), key=len)
        return (kind != "vit", sizes.index(size), name)

    return sorted(timm.list_pretrained("*dinov3*"), key=order)


def family(name: str) -> str:
    return name.partition("_")[0]


def statistics(name: str) -> Statistics:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    return Statistics(tuple(config["mean"]), tuple(config["std"]))


def create(name: str, weights: Synthetic, **kwargs) -> nn.Module:
    """A model with synthetic weights, without the seconds that timm's own initialisation takes."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, **kwargs)
    model.to_empty(device="cpu").eval().requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):  # RoPE periods, the zero bias of k
            module.init_non_persistent_buffers()
    weights.fill(model)
    return model


def round_periods(model: nn.Module) -> None:
    """Rounds the RoPE periods to bf16 and back, as the model card says, to match the original weights.

    timm generates them in f32 and keeps them in a non-persistent buffer, from which models with a dynamic image
    size (all of DINOv3) build the table at every call.
    """
    assert model.rope.pos_embed_cached is None
    model.rope.periods.copy_(model.rope.periods.bfloat16())


@contextmanager
def pooling(model: nn.Module, kind: str):
    """Changes the pooling of a model for a while, without the new head that timm's `reset_classifier` makes."""
    if hasattr(model, "global_pool"):
        holder, value = model, kind
    else:
        holder, value = model.head, SelectAdaptivePool2d(pool_type=kind)
    before = holder.global_pool
    holder.global_pool = value
    try:
        yield
    finally:
        holder.global_pool = before


def pooled(model: nn.Module, features: torch.Tensor, kinds) -> dict[str, torch.Tensor]:
    """`forward_head(..., pre_logits=True)` with each of several poolings."""
    result = {}
    for kind in kinds:
        with pooling(model, kind):
            result[kind] = model.forward_head(features, pre_logits=True)
    return result


def unpooled(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """`forward_head(..., pre_logits=True)` of a model made with global_pool=''."""
    if hasattr(model, "global_pool"):
        return pooled(model, features, [""])[""]
    headless = copy.deepcopy(model)
    headless.reset_classifier(0, "")
    return headless.forward_head(features, pre_logits=True)


@torch.inference_mode()
def last_rows(model: nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """The last three blocks with the final norm, as rows [B, h * w, D]."""
    x = torch.from_numpy(images).to(next(model.parameters()).dtype)
    taps = model.forward_intermediates(x, indices=3, norm=True, output_fmt="NLC", intermediates_only=True)
    first = len(model.blocks) - 3
    return {f"blocks.{first + index}": tap.numpy() for index, tap in enumerate(taps)}


@torch.inference_mode()
def outputs(model: nn.Module, images: np.ndarray, maps: bool = True) -> dict[str, np.ndarray]:
    """Everything timm says about a stack of normalised images.

    `tokens` (forward_features), `pool.KIND`, `logits` if there is a head and, on request, the feature maps of all
    blocks: `blocks.K`, `blocks.K.prefix_tokens` and both once more after `normed/`; or `stages.K`.
    """
    x = torch.from_numpy(images).to(next(model.parameters()).dtype)
    result = {}
    if not maps:
        features = model.forward_features(x)
    elif hasattr(model, "blocks"):
        features, taps = model.forward_intermediates(x, return_prefix_tokens=True)
        for index, (patches, prefix) in enumerate(taps):
            result[f"blocks.{index}"] = patches
            result[f"blocks.{index}.prefix_tokens"] = prefix
            # what norm=True does: the final norm on every token of the tap
            result[f"normed/blocks.{index}"] = model.norm(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            result[f"normed/blocks.{index}.prefix_tokens"] = model.norm(prefix)
    else:
        features, taps = model.forward_intermediates(x)
        result.update({f"stages.{index}": tap for index, tap in enumerate(taps)})
    result["tokens"] = features
    kinds = POOLINGS["vit" if hasattr(model, "blocks") else "convnext"]
    result.update({f"pool.{kind}": value for kind, value in pooled(model, features, kinds).items()})
    if model.num_classes:
        result["logits"] = model.forward_head(features)
    return {name: value.float().numpy() for name, value in result.items()}


def double_outputs(model: nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """`outputs` in f64, but for the RoPE table and the last rounding: how far off either side's f32 is."""
    model = copy.deepcopy(model).double()
    if hasattr(model, "rope"):
        model.rope.float()
    return outputs(model, images, maps=False)


@torch.inference_mode()
def tokens_block_by_block(name: str, weights: Synthetic, stacks: list[np.ndarray]) -> list[np.ndarray]:
    """`forward_features` of a ViT that does not fit into memory: one block exists at a time."""
    depth = len(timm_blocks(name))
    model = create(name, weights, depth=1)
    block = model.blocks[0]
    states = [model._pos_embed(model.patch_embed(torch.from_numpy(stack))) for stack in stacks]
    for index in range(depth):
        weights.fill(block, prefix=f"blocks.{index}.")
        states = [(block(x, rope=rope), rope) for x, rope in states]
    return [model.norm(x).numpy() for x, _ in states]


def timm_blocks(name: str) -> nn.ModuleList:
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False).blocks


def pool_tokens(tokens: np.ndarray, prefix_tokens: int = 5) -> dict[str, np.ndarray]:
    """CLS and mean of a ViT's final tokens."""
    return {"token": tokens[:, 0], "avg": tokens[:, prefix_tokens:].mean(axis=1)}
