"""The same random weights as files in the three dialects (timm's, Transformers' and Meta's names), as safetensors and
as PyTorch files."""

import re
from collections import OrderedDict
from pathlib import Path

import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

transformers.utils.logging.disable_progress_bar()

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

# timm, Transformers, Meta. Rows are tried from the top; "#" is a number.
VIT_NAMES = [
    ("cls_token", "embeddings.cls_token", "cls_token"),
    ("reg_token", "embeddings.register_tokens", "storage_tokens"),
    ("patch_embed.proj.", "embeddings.patch_embeddings.", "patch_embed.proj."),
    ("blocks.#.norm", "layer.#.norm", "blocks.#.norm"),
    ("blocks.#.attn.proj.", "layer.#.attention.o_proj.", "blocks.#.attn.proj."),
    ("blocks.#.gamma_1", "layer.#.layer_scale1.lambda1", "blocks.#.ls1.gamma"),
    ("blocks.#.gamma_2", "layer.#.layer_scale2.lambda1", "blocks.#.ls2.gamma"),
    ("norm.", "norm.", "norm."),
]
GELU_NAMES = [
    ("blocks.#.mlp.fc1.", "layer.#.mlp.up_proj.", "blocks.#.mlp.fc1."),
    ("blocks.#.mlp.fc2.", "layer.#.mlp.down_proj.", "blocks.#.mlp.fc2."),
]
SWIGLU_NAMES = [
    ("blocks.#.mlp.fc1_g.", "layer.#.mlp.gate_proj.", "blocks.#.mlp.w1."),
    ("blocks.#.mlp.fc1_x.", "layer.#.mlp.up_proj.", "blocks.#.mlp.w2."),
    ("blocks.#.mlp.fc2.", "layer.#.mlp.down_proj.", "blocks.#.mlp.w3."),
]
CONVNEXT_NAMES = [
    ("stem.", "stages.0.downsample_layers.", "downsample_layers.0."),
    ("stages.#.downsample.", "stages.#.downsample_layers.", "downsample_layers.#."),
    ("stages.#.blocks.#.gamma", "stages.#.layers.#.gamma", "stages.#.#.gamma"),
    ("stages.#.blocks.#.conv_dw.", "stages.#.layers.#.depthwise_conv.", "stages.#.#.dwconv."),
    ("stages.#.blocks.#.norm.", "stages.#.layers.#.layer_norm.", "stages.#.#.norm."),
    ("stages.#.blocks.#.mlp.fc1.", "stages.#.layers.#.pointwise_conv1.", "stages.#.#.pwconv1."),
    ("stages.#.blocks.#.mlp.fc2.", "stages.#.layers.#.pointwise_conv2.", "stages.#.#.pwconv2."),
    ("head.norm.", "layer_norm.", "norm."),
]

State = dict[str, torch.Tensor]


def random_model(name: str, seed: int) -> nn.Module:
    """A timm model with weights from torch's generator, at the scale of trained ones."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    model = timm.create_model(name, pretrained=False).eval().requires_grad_(False)
    for key, parameter in model.named_parameters():
        leaf = key.rpartition(".")[2]
        if leaf.startswith("gamma"):
            mean, deviation = 0.25, 0.05
        elif parameter.ndim == 1 and leaf == "weight":
            mean, deviation = 1.0, 0.1
        elif parameter.ndim == 1 or leaf.endswith("token"):
            mean, deviation = 0.0, 0.1
        else:
            mean, deviation = 0.0, parameter[0].numel() ** -0.5
        parameter.normal_(mean, deviation, generator=generator)
    return model


def renamed(state: State, table: list[tuple[str, str, str]], column: int) -> State:
    """`state` under the names of a column of the table; tensors that it does not list are left out."""
    result = {}
    for key, tensor in state.items():
        for row in table:
            match = re.match(re.escape(row[0]).replace(r"\#", r"(\d+)"), key)
            if match:
                numbers = iter(match.groups())
                prefix = re.sub("#", lambda _: next(numbers), row[column])
                result[prefix + key[match.end() :]] = tensor
                break
    return result


def names_of(state: State) -> list[tuple[str, str, str]]:
    if "cls_token" not in state:
        return CONVNEXT_NAMES
    return VIT_NAMES + (SWIGLU_NAMES if "blocks.0.mlp.fc1_g.weight" in state else GELU_NAMES)


def qkv(state: State):
    """(block, fused weight, q bias, v bias) of every block; a model without biases has zeros."""
    for key, weight in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.weight", key):
            zeros = torch.zeros(weight.shape[1], dtype=weight.dtype)
            biases = [state.get(f"blocks.{match[1]}.attn.{kind}_bias", zeros) for kind in "qv"]
            yield match[1], weight, *biases


def transformers_state(state: State) -> State:
    """Names as Transformers writes them. The released configurations have q and v biases in all but the 7B."""
    result = renamed(state, names_of(state), 1)
    if "cls_token" in state:
        result["embeddings.mask_token"] = torch.full_like(state["cls_token"], 0.5)
    for block, weight, q_bias, v_bias in qkv(state):
        for kind, part in zip("qkv", weight.chunk(3)):
            result[f"layer.{block}.attention.{kind}_proj.weight"] = part.contiguous()
        result[f"layer.{block}.attention.q_proj.bias"] = q_bias
        result[f"layer.{block}.attention.v_proj.bias"] = v_bias
    return result


def meta_state(state: State, local_cls_norm: bool) -> State:
    """Names as in Meta's files, with everything in them that inference does not use."""
    result = renamed(state, names_of(state), 2)
    for block, weight, q_bias, v_bias in qkv(state):
        k_bias = torch.full_like(q_bias, 0.75)  # masked out: must be ignored
        mask = torch.ones(3, *q_bias.shape, dtype=weight.dtype)
        mask[1] = 0
        result[f"blocks.{block}.attn.qkv.weight"] = weight
        result[f"blocks.{block}.attn.qkv.bias"] = torch.cat([q_bias, k_bias, v_bias])
        result[f"blocks.{block}.attn.qkv.bias_mask"] = mask.flatten()
    if "cls_token" in state:
        head_dim = 64
        exponents = 2 * torch.arange(head_dim // 4) / (head_dim // 2)
        result["rope_embed.periods"] = (100**exponents).bfloat16()
        result["mask_token"] = torch.full_like(state["cls_token"][0], 0.5)
    else:
        for leaf in ("weight", "bias"):
            result[f"norms.3.{leaf}"] = result[f"norm.{leaf}"].clone()
    if local_cls_norm:
        for leaf in ("weight", "bias"):
            result[f"local_cls_norm.{leaf}"] = torch.full_like(result[f"norm.{leaf}"], 0.5)
    return result


def transformers_model(model: nn.Module) -> nn.Module:
    """The Transformers model with the weights of a timm model."""
    state = model.state_dict()
    if hasattr(model, "blocks"):
        gated = "blocks.0.mlp.fc1_g.weight" in state
        config = transformers.DINOv3ViTConfig(
            hidden_size=model.embed_dim,
            intermediate_size=state["blocks.0.mlp.fc2.weight"].shape[1],
            num_hidden_layers=len(model.blocks),
            num_attention_heads=model.blocks[0].attn.num_heads,
            hidden_act="silu" if gated else "gelu",
            use_gated_mlp=gated,
            num_register_tokens=4,
        )
        twin = transformers.DINOv3ViTModel(config)
    else:
        config = transformers.DINOv3ConvNextConfig(
            hidden_sizes=[info["num_chs"] for info in model.feature_info],
            depths=[len(stage.blocks) for stage in model.stages],
        )
        twin = transformers.DINOv3ConvNextModel(config)
    # in memory the encoder sits under "model."; on disk it does not
    in_memory = {re.sub(r"^(layer|stages)\.", r"model.\1.", key): v for key, v in transformers_state(state).items()}
    twin.load_state_dict(in_memory, strict=True)
    return twin.eval().requires_grad_(False)


def write_all(model: nn.Module, dtype: str, folder: Path, local_cls_norm: bool) -> dict[str, Path]:
    """Writes a timm model in every dialect; what the binary's `--weights` takes, by a name for the reader."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.to(DTYPES[dtype]) for key, tensor in model.state_dict().items()}
    timm_file, meta_file = folder / "timm.safetensors", folder / "meta.safetensors"
    meta = meta_state(state, local_cls_norm)
    save_file(state, timm_file)
    save_file(meta, meta_file)
    twin = transformers_model(model).to(DTYPES[dtype])
    whole, sharded = folder / "transformers", folder / "transformers-sharded"
    twin.save_pretrained(whole)
    twin.save_pretrained(sharded, max_shard_size="20MB")
    index = sharded / "model.safetensors.index.json"
    assert index.is_file() and len(list(sharded.glob("model-*.safetensors"))) > 1
    return {
        "timm": timm_file,
        "meta": meta_file,
        "transformers folder": whole,
        "transformers file": whole / "model.safetensors",
        "transformers sharded folder": sharded,
        "transformers index": index,
    } | write_torch_files(state, meta, folder)


def write_torch_files(state: State, meta: State, folder: Path) -> dict[str, Path]:
    """The same as `torch.save` writes it: Meta's flat files, a training checkpoint, timm's pytorch_model.bin."""
    flat, newest, training = folder / "meta.pth", folder / "meta-protocol5.pth", folder / "training.pth"
    torch.save(OrderedDict(meta), flat)
    torch.save(meta, newest, pickle_protocol=5)
    teacher = {f"backbone.{key}": nn.Parameter(tensor) for key, tensor in meta.items()}
    teacher |= {f"{head}.last_layer.weight": torch.ones(4, 3) for head in ("dino_head", "ibot_head")}
    student = {key: torch.zeros_like(tensor) for key, tensor in teacher.items()}
    settings = {"lr": 1e-4, "crops": (2, 8), "large": 2**80, "bf16": torch.bfloat16, "notes": [None, True, "x"]}
    torch.save({"student": student, "teacher": teacher, "iteration": 12_499, "args": settings}, training)
    one_storage = folder / "shared.pth"  # views of one storage, at their offsets
    kind = next(iter(state.values())).dtype
    parts = torch.cat([tensor.flatten().to(kind) for tensor in state.values()]).split([t.numel() for t in state.values()])
    views = {key: part.view(tensor.shape) for (key, tensor), part in zip(state.items(), parts)}
    torch.save(views, one_storage)
    hub = folder / "timm-bin"
    hub.mkdir()
    torch.save(state, hub / "pytorch_model.bin")
    return {
        "meta.pth": flat,
        "meta.pth, protocol 5": newest,
        "training checkpoint": training,
        "one storage": one_storage,
        "pytorch_model.bin": hub,
    }
