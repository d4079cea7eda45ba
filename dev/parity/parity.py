"""Compares the `dinov3` binary with timm (and Transformers) at full size; `run.sh` calls this.

Weights are synthetic, made on both sides from a seed that is drawn fresh, or random and written to files. The
sections:

    f32          every output against timm in f32, over sizes and images
    outliers     the same on the outliers flavour
    bf16         our error beside timm's own bf16 error, both against timm in f32
    names        names without tag and aliases give the bits of the full name
    determinism  alone, in any batch, at any position, with any number of threads: the same bits
    formats      timm's, Transformers' and Meta's files, safetensors and .pth, whole, sharded, three dtypes: same bits
    files        picture files through the model's own recipe, against timm's transform and model
    classify     class scores and the five best classes, of heads inside a checkpoint and of heads in files of their own
    7b           (only with --seven-b or --only 7b) bf16 against f32 run block by block

Prints a line per model, size and quantity, then the worst of each model; exits with 1 if anything failed.
"""

import argparse
import contextlib
import copy
import fnmatch
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
import timm
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn

import checkpoints
import images
import timm_side
from synthetic import Synthetic

REPOSITORY = Path(__file__).resolve().parents[2]

F32_BOUND = {"vit": 2e-6, "convnext": 3e-6}
OUTLIERS_BOUND = 1e-5
TRANSFORMERS_BOUND = 1e-5
FILES_BOUND = 2e-6
# Our bf16 error as a share of timm's. A ConvNeXt's map is its tokens, its pooled vector its mean.
BF16_BOUND = {"tokens": 0.65, "token": 0.65, "avg": 1.0}
SEVEN_B_BOUND = {"avg": 4.5e-3, "token": 1.1e-2}
SEVEN_B = "vit_7b_patch16_dinov3"

SIZES = [(224, 224), (256, 256), (256, 384), (512, 512)]
LARGE_SIZES = [(256, 256)]
QUICK_SIZES = [(224, 224), (256, 384)]
QUICK_MODELS = [
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_small_plus_patch16_dinov3_qkvb.lvd1689m",
    "convnext_tiny.dinov3_lvd1689m",
]
FORMAT_MODELS = [
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_small_plus_patch16_dinov3.lvd1689m",
    "vit_small_plus_patch16_dinov3_qkvb.lvd1689m",
    "convnext_tiny.dinov3_lvd1689m",
]
FILES_MODELS = [
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_large_patch16_dinov3.sat493m",
    "convnext_tiny.dinov3_lvd1689m",
]
CLASSIFY_MODELS = [
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_small_plus_patch16_dinov3_qkvb.lvd1689m",
    "convnext_tiny.dinov3_lvd1689m",
]
CLASSIFY_BOUND = 2e-6
CLASSES = 10
IMAGENET_CLASSES = 1000
BF16_IMAGES = 8

Tensors = dict[str, np.ndarray]


class BinaryFailed(Exception):
    """The binary ended with an error, or did not write what it should."""


@dataclass
class Binary:
    """Runs the command and reads back what it wrote."""

    path: Path
    scratch: Path

    def run(self, command: str, source, model: str, weights: str | Path, *options: str | int | Path) -> Tensors:
        """`source` is a stack of normalised images, or a list of picture files."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            output = Path(folder, "out.safetensors")
            if isinstance(source, np.ndarray):
                stack = Path(folder, "in.npy")
                np.save(stack, source)
                source, options = [stack], ("--preprocess", "none", *options)
            arguments = [self.path, command, *source, "-m", model, "--weights", weights, *options, "-o", output]
            done = subprocess.run([str(item) for item in arguments], capture_output=True, text=True)
            if done.returncode:
                raise BinaryFailed(f"{command} -m {model}: exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
            return load_file(output)

    def embed(self, source, model: str, weights, pools, *options) -> Tensors:
        """Pooled vectors as `pool.KIND`, and `logits` if asked for."""
        found = self.run("embed", source, model, weights, "--pool", ",".join(pools), *options)
        names = {"embedding": f"pool.{pools[0]}"} | {f"embedding_{kind}": f"pool.{kind}" for kind in pools[1:]}
        return {names.get(name, name): tensor for name, tensor in found.items()}

    def features(self, source, model: str, weights, *options) -> Tensors:
        """`tokens`, and `blocks.K` or `stages.K`."""
        return self.run("features", source, model, weights, "--all-tokens", *options)

    def classify(self, stack: np.ndarray, model: str, weights, *options: str | int | Path) -> list[dict]:
        """The `top` lists of all images, best class first."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            inputs = Path(folder, "in.npy")
            np.save(inputs, stack)
            command = [self.path, "classify", inputs, "--preprocess", "none", "-m", model, "--weights", weights]
            done = subprocess.run([str(item) for item in [*command, *options, "--json"]], capture_output=True, text=True)
            if done.returncode:
                raise BinaryFailed(f"classify -m {model}: exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
            return [json.loads(line)["top"] for line in done.stdout.splitlines()[:-1]]  # the last is the provenance

    def error_of(self, *arguments) -> str:
        """The message of a command that must fail."""
        try:
            self.run(*arguments)
        except BinaryFailed as error:
            return str(error)
        raise BinaryFailed("the command succeeded, but had to fail")


@dataclass
class Result:
    section: str
    model: str
    where: str
    quantity: str
    value: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.value <= self.bound  # a NaN fails


@dataclass
class Report:
    """Prints results as they come and keeps them for the summary."""

    results: list[Result] = field(default_factory=list)
    section: str = ""

    def add(self, model: str, where: str, quantity: str, value: float, bound: float) -> None:
        result = Result(self.section, model, where, quantity, float(value), bound)
        self.results.append(result)
        verdict = "PASS" if result.passed else "FAIL"
        print(f"{verdict}  {model:46} {where:8} {quantity:42} {result.value:9.3g} <= {bound:.3g}", flush=True)

    def same_bits(self, model: str, where: str, quantity: str, found: Tensors, expected: Tensors) -> None:
        """Adds the number of tensors that differ in any bit or are missing on one side; none may."""
        names = found.keys() | expected.keys()
        differing = [name for name in names if not same_bits(found.get(name), expected.get(name))]
        self.add(model, where, f"{quantity}: other bits", len(differing) if names else np.inf, 0)

    @contextlib.contextmanager
    def case(self, model: str, where: str) -> Iterator[None]:
        """A failing binary is a failed result, not the end of the run."""
        try:
            yield
        except BinaryFailed as error:
            print(error, flush=True)
            self.add(model, where, "the binary's run", np.inf, 0)

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(result.passed for result in self.results)

    def summary(self) -> str:
        """A Markdown table: per model and section, the result that came closest to its bound or went past it."""
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            groups.setdefault((result.model, result.section), []).append(result)
        lines = [
            "| model | section | checks | worst | bound | where | |",
            "| --- | --- | --: | --: | --: | --- | --- |",
        ]
        for (model, section), results in sorted(groups.items()):
            worst = max(results, key=lambda r: (not r.passed, r.value / r.bound if r.bound else r.value))
            verdict = "PASS" if all(result.passed for result in results) else "**FAIL**"
            lines.append(
                f"| {model} | {section} | {len(results)} | {worst.value:.2g} | {worst.bound:.2g} "
                f"| {worst.where} {worst.quantity} | {verdict} |"
            )
        return "\n".join(lines)


def same_bits(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return False
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def errors(found: np.ndarray | None, expected: np.ndarray) -> np.ndarray:
    """‖a − b‖ / ‖b‖ of each image; infinite where there is nothing to compare."""
    if found is None or found.shape != expected.shape:
        shown = "nothing" if found is None else f"shape {found.shape}"
        raise BinaryFailed(f"the binary gave {shown} where timm gives shape {expected.shape}")
    a, b = (array.reshape(len(array), -1) for array in (found, expected))
    with np.errstate(invalid="ignore"):
        return np.array([np.linalg.norm(np.float64(x) - y) / np.linalg.norm(np.float64(y)) for x, y in zip(a, b)])


def root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def size_name(stack: np.ndarray) -> str:
    return f"{stack.shape[2]}x{stack.shape[3]}"


@dataclass
class Run:
    """What every section needs."""

    binary: Binary
    report: Report
    seed: int
    models: list[str]
    quick: bool

    def stream(self, model: str, purpose: str) -> np.random.Generator:
        """Random numbers that depend on the run's seed and the names alone, not on what else is selected."""
        return np.random.default_rng([self.seed, zlib.crc32(model.encode()), zlib.crc32(purpose.encode())])

    def weights(self, model: str, purpose: str, outliers: bool = False) -> Synthetic:
        return Synthetic(int(self.stream(model, purpose).integers(2**64, dtype=np.uint64)), outliers)

    def stack(self, model: str, purpose: str, height: int, width: int) -> np.ndarray:
        rng = self.stream(model, f"{purpose} {height} {width}")
        return images.varied(height, width, timm_side.statistics(model), rng)

    def sizes(self, model: str) -> list[tuple[int, int]]:
        if is_large(model):
            return LARGE_SIZES
        return QUICK_SIZES if self.quick else SIZES

    def selected(self, candidates: list[str]) -> list[str]:
        return [model for model in candidates if model in self.models]

    def runnable(self) -> list[str]:
        """The selected models that fit into memory in f32."""
        return [model for model in self.models if not model.startswith(SEVEN_B)]

    def architectures(self) -> list[str]:
        """One name of each architecture."""
        return list({model.partition(".")[0]: model for model in reversed(self.runnable())}.values())[::-1]


def is_large(model: str) -> bool:
    return model.startswith(("vit_large", "vit_huge_plus"))


def f32_bound(model: str) -> float:
    return F32_BOUND[timm_side.family(model)]


# --- sections -------------------------------------------------------------------------------------------------


def f32(run: Run) -> None:
    for model in run.runnable():
        weights = run.weights(model, "f32")
        print(f"# {model}: {weights.spec}")
        net = timm_side.create(model, weights, num_classes=CLASSES)
        sizes = run.sizes(model)
        for height, width in sizes:
            compare_everything(run, net, model, weights, run.stack(model, "f32", height, width), f32_bound(model))
        if timm_side.family(model) == "vit":
            timm_side.round_periods(net)
            height, width = max(sizes, key=lambda size: size[1] / size[0])
            stack = run.stack(model, "periods", height, width)
            compare_pools_and_tokens(run, net, model, weights, stack, f32_bound(model), "--rope-periods", "bf16")


def outliers(run: Run) -> None:
    for model in run.architectures():
        if timm_side.family(model) == "vit":
            weights = run.weights(model, "outliers", outliers=True)
            print(f"# {model}: {weights.spec}")
            net = timm_side.create(model, weights, num_classes=CLASSES)
            stack = run.stack(model, "outliers", 256, 256)
            if is_large(model):
                compare_pools_and_tokens(run, net, model, weights, stack, OUTLIERS_BOUND)
            else:
                compare_everything(run, net, model, weights, stack, OUTLIERS_BOUND)


def compare_everything(run: Run, net, model: str, weights: Synthetic, stack: np.ndarray, bound: float) -> None:
    """Poolings, logits, all tokens, the maps of all blocks or stages and the command's default choice of them."""
    where = size_name(stack)
    truth = timm_side.outputs(net, stack)
    with run.report.case(model, where):
        kinds = timm_side.POOLINGS[timm_side.family(model)]
        found = run.binary.embed(stack, model, weights.spec, kinds, "--logits", "--num-classes", CLASSES)
        pools = [f"pool.{kind}" for kind in kinds] + ["logits"]
        report_worst(run.report, model, where, found, truth, bound, pools)
        explain_failures(net, stack, found, truth, bound, pools)
    with run.report.case(model, where):
        if timm_side.family(model) == "vit":
            taps = [f"blocks.{index}" for index in range(len(net.blocks))]
            prefixes = [f"{tap}.prefix_tokens" for tap in taps]
            options = ("--blocks", ",".join(str(index) for index in range(len(taps))), "--prefix-tokens")
            found = run.binary.features(stack, model, weights.spec, *options)
            normed = run.binary.features(stack, model, weights.spec, *options, "--norm")
            found |= {f"normed/{name}": tensor for name, tensor in normed.items()}
            groups = {
                "tokens": ["tokens"],
                f"maps of {len(taps)} blocks": taps,
                f"prefix tokens of {len(taps)} blocks": prefixes,
                f"maps of {len(taps)} blocks, normed": [f"normed/{name}" for name in taps],
                f"prefix tokens of {len(taps)} blocks, normed": [f"normed/{name}" for name in prefixes],
            }
            default = taps[-3:]
            rows = run.binary.features(stack, model, weights.spec, "--last", 3, "--norm", "--layout", "nlc")
            truth |= {f"rows/{name}": tensor for name, tensor in timm_side.last_rows(net, stack).items()}
            found |= {f"rows/{name}": tensor for name, tensor in rows.items()}
            groups["rows (NLC) of the last 3 blocks, normed"] = [f"rows/{name}" for name in default]
        else:
            default = [f"stages.{index}" for index in range(4)]
            found = run.binary.features(stack, model, weights.spec, "--blocks", "0,1,2,3")
            groups = {"tokens": ["tokens"], "maps of 4 stages": default}
        for quantity, names in groups.items():
            worst = max(errors(found.get(name), truth[name]).max() for name in names)
            run.report.add(model, where, quantity, worst, bound)
        if stack.shape[2] == 224:
            first = run.binary.run("features", stack[:1], model, weights.spec)
            run.report.same_bits(model, where, "default maps", first, {name: found[name][:1] for name in default})


def compare_pools_and_tokens(
    run: Run, net, model: str, weights: Synthetic, stack: np.ndarray, bound: float, *options: str
) -> None:
    where = size_name(stack)
    truth = timm_side.outputs(net, stack, maps=False)
    with run.report.case(model, where):
        kinds = timm_side.POOLINGS[timm_side.family(model)]
        found = run.binary.embed(stack, model, weights.spec, kinds, "--logits", "--num-classes", CLASSES, *options)
        found |= run.binary.features(stack, model, weights.spec, "--blocks", "0", *options)
        report_worst(run.report, model, where, found, truth, bound, truth, note=" ".join(options))
        explain_failures(net, stack, found, truth, bound, truth)


def report_worst(
    report: Report, model: str, where: str, found: Tensors, truth: Tensors, bound: float, names, note: str = ""
) -> None:
    for name in names:
        report.add(model, where, f"{name} {note}".strip(), errors(found.get(name), truth[name]).max(), bound)


def explain_failures(net, stack: np.ndarray, found: Tensors, truth: Tensors, bound: float, names) -> None:
    """Says whose f32 is off where a bound between the two is missed; the verdict stands."""
    missed = [name for name in names if not errors(found.get(name), truth[name]).max() <= bound]
    exact = timm_side.double_outputs(net, stack) if missed else {}
    for name in missed:
        ours, timms = (errors(side[name], exact[name]).max() for side in (found, truth))
        print(f"      {name}: against timm in f64, ours is off by {ours:.3g}, timm's f32 by {timms:.3g}", flush=True)


def bf16(run: Run) -> None:
    for model in run.architectures():
        kinds = ("token", "avg") if timm_side.family(model) == "vit" else ("avg",)
        size = (224, 224) if is_large(model) or run.quick else (256, 256)
        stack = images.photographs(BF16_IMAGES, *size, timm_side.statistics(model))
        where = size_name(stack)
        ours, timms = {}, {}
        with run.report.case(model, where):
            for round_ in range(2):
                weights = run.weights(model, f"bf16 {round_}")
                print(f"# {model}: {weights.spec}")
                net = timm_side.create(model, weights)
                truth = timm_side.outputs(net, stack, maps=False)
                rounded = timm_side.outputs(net.bfloat16(), stack, maps=False)
                del net
                found = run.binary.embed(stack, model, weights.spec, kinds, "--precision", "bf16")
                found |= run.binary.features(stack, model, weights.spec, "--blocks", "0", "--precision", "bf16")
                for name in ("tokens", *(f"pool.{kind}" for kind in kinds)):
                    ours.setdefault(name, []).extend(errors(found.get(name), truth[name]))
                    timms.setdefault(name, []).extend(errors(rounded[name], truth[name]))
            for name in ours:
                our_rms, timm_rms = root_mean_square(ours[name]), root_mean_square(timms[name])
                quantity = f"{name}: {our_rms:.2e} / timm {timm_rms:.2e}"
                run.report.add(model, where, quantity, our_rms / timm_rms, BF16_BOUND[name.removeprefix("pool.")])


def aliases(model: str) -> list[str]:
    """Other names of a model: without its tag, hub ids, Meta's entry."""
    architecture, _, tag = model.partition(".")
    names = [f"timm/{model}", f"hf-hub:timm/{model}"]
    if tag.endswith("lvd1689m"):
        names += [architecture] if timm_side.family(model) == "vit" else []
    if "_qkvb" in model:
        return names
    size = architecture.removeprefix("vit_").removesuffix("_patch16_dinov3")
    short = {"small": "s16", "small_plus": "s16plus", "base": "b16", "large": "l16", "huge_plus": "h16plus", "7b": "7b16"}
    meta = f"vit{short[size]}" if timm_side.family(model) == "vit" else architecture
    names.append(f"facebook/dinov3-{meta.replace('_', '-')}-pretrain-{tag.removeprefix('dinov3_')}")
    if tag.endswith("lvd1689m"):
        names.append(f"dinov3_{meta}")
    return names


def names(run: Run) -> None:
    for model in run.runnable():
        if "eupe" in model:
            continue
        weights = run.weights(model, "names")
        stack = run.stack(model, "names", 32, 48)[:1]
        with run.report.case(model, "32x48"):
            expected = run.binary.embed(stack, model, weights.spec, ["avg"])
            for alias in aliases(model):
                found = run.binary.embed(stack, alias, weights.spec, ["avg"])
                run.report.same_bits(model, "32x48", f"as {alias}", found, expected)


def determinism(run: Run) -> None:
    for model in run.architectures():
        if is_large(model):
            continue
        weights = run.weights(model, "determinism")
        stack = run.stack(model, "determinism", 224, 192)
        kinds = timm_side.POOLINGS[timm_side.family(model)]

        def every_output(pictures: np.ndarray, *options: str | int, batch_size: int = len(stack)) -> Tensors:
            pooled = run.binary.embed(pictures, model, weights.spec, kinds, *options, "--batch-size", batch_size)
            return pooled | run.binary.features(pictures, model, weights.spec, "--blocks", "0,3", *options)

        for precision in ("f32", "bf16"):
            with run.report.case(model, precision):
                expected = every_output(stack, "--precision", precision)
                in_order = [0, 1, 2, 3, 4]
                variants: list[tuple[str, list[int], tuple, int]] = [
                    ("alone", [2], (), 1),
                    ("reversed", in_order[::-1], (), 5),
                    ("repeated", [1, 1, 3, 1, 0, 1, 2], (), 7),
                    *((f"batches of {size}", in_order, (), size) for size in (1, 2, 3)),
                    *((f"{count} threads", in_order, ("--threads", count), 5) for count in (1, 2, 3)),
                ]
                for quantity, picks, options, batch_size in variants:
                    found = every_output(stack[picks], "--precision", precision, *options, batch_size=batch_size)
                    picked = {name: tensor[picks] for name, tensor in expected.items()}
                    run.report.same_bits(model, precision, quantity, found, picked)


def formats(run: Run) -> None:
    for model in run.selected(FORMAT_MODELS):
        stack = run.stack(model, "formats", 96, 128)
        source = checkpoints.random_model(model, int(run.stream(model, "formats").integers(2**32)))
        for dtype, torch_dtype in checkpoints.DTYPES.items():
            net = copy.deepcopy(source).to(torch_dtype).float()  # the weights as the files hold them
            truth = timm_side.outputs(net, stack, maps=False)
            with tempfile.TemporaryDirectory(dir=run.binary.scratch) as folder, run.report.case(model, dtype):
                vit = timm_side.family(model) == "vit"
                paths = checkpoints.write_all(net, dtype, Path(folder), local_cls_norm=vit)
                expected = run.binary.features(stack, model, paths["timm"], "--blocks", "0,3")
                pooled = run.binary.embed(stack, model, paths["timm"], ["avg"])
                report_worst(run.report, model, dtype, expected | pooled, truth, f32_bound(model), ["tokens", "pool.avg"])
                for name, path in paths.items():
                    found = run.binary.features(stack, model, path, "--blocks", "0,3")
                    run.report.same_bits(model, dtype, name, found, expected)
                if dtype == "f32":
                    compare_with_transformers(run.report, model, net, stack, expected | pooled)
                if "_qkvb" in model:
                    plain = model.replace("_qkvb", "")
                    for name in ("timm", "meta", "meta.pth", "transformers folder"):
                        message = run.binary.error_of("embed", stack, plain, paths[name])
                        named = model.partition(".")[0] in message
                        run.report.add(model, dtype, f"{name} refused as the plain model: unclear", not named, 0)


@torch.inference_mode()
def compare_with_transformers(report: Report, model: str, net, stack: np.ndarray, found: Tensors) -> None:
    twin = checkpoints.transformers_model(net)
    expected = twin(torch.from_numpy(stack)).last_hidden_state.numpy()
    if timm_side.family(model) == "vit":
        value = errors(found.get("tokens"), expected).max()
    else:  # there the first token is the pooled vector, the others are normed pixels
        value = errors(found.get("pool.avg"), expected[:, 0]).max()
    report.add(model, "f32", "Transformers' last_hidden_state", value, TRANSFORMERS_BOUND)


def files(run: Run) -> None:
    with tempfile.TemporaryDirectory(dir=run.binary.scratch) as folder:
        paths = images.write_files(Path(folder))
        for model in run.selected(FILES_MODELS):
            weights = run.weights(model, "files")
            print(f"# {model}: {weights.spec}")
            net = timm_side.create(model, weights)
            config = timm.data.resolve_model_data_config(net)
            transform = timm.data.create_transform(**config, is_training=False)
            pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
            truth = timm_side.outputs(net, pixels.numpy(), maps=False)["pool.avg"]
            with run.report.case(model, "files"):
                found = run.binary.embed(paths, model, weights.spec, ["avg"])
                values = errors(found.get("pool.avg"), truth)
                for path, value in zip(paths, values):
                    run.report.add(model, "files", path.name, value, max(FILES_BOUND, f32_bound(model)))


@torch.inference_mode()
def classify(run: Run) -> None:
    for model in run.selected(CLASSIFY_MODELS):
        weights = run.weights(model, "classify")
        print(f"# {model}: {weights.spec}")
        net = timm_side.create(model, weights, num_classes=IMAGENET_CLASSES)
        state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
        layer = {name: value for name, value in state.items() if name.startswith("head.") and ".norm." not in name}
        stack = run.stack(model, "classify", 224, 256)
        pixels = torch.from_numpy(stack)
        truth = net(pixels)
        with tempfile.TemporaryDirectory(dir=run.binary.scratch) as folder, run.report.case(model, "224x256"):
            whole, encoder, head = (Path(folder, f"{name}.safetensors") for name in ("whole", "encoder", "head"))
            save_file(state, whole)
            save_file({name: value for name, value in state.items() if name not in layer}, encoder)
            save_file(layer, head)
            compare_classes(run, model, "head in the checkpoint", truth, stack, whole)
            compare_classes(run, model, "head in its own file", truth, stack, encoder, "--head", head)
            if timm_side.family(model) == "vit":
                # Meta's form: a bare linear layer over the class token and the mean patch token.
                linear = nn.Linear(2 * net.embed_dim, IMAGENET_CLASSES)
                weights.fill(linear, prefix="meta.")
                save_file({name: value.numpy() for name, value in linear.state_dict().items()}, head)
                tokens = net.forward_features(pixels)
                truth = linear(torch.cat([tokens[:, 0], tokens[:, net.num_prefix_tokens :].mean(dim=1)], dim=1))
                compare_classes(run, model, "Meta's form of head", truth, stack, encoder, "--head", head)
            truth = net.forward_head(net.forward_features(pixels), pre_logits=True)
            compare_classes(run, model, "no head: softmax of features", truth, stack, encoder)


def compare_classes(run: Run, model: str, quantity: str, truth: torch.Tensor, stack: np.ndarray, weights, *options) -> None:
    """All scores and probabilities, and the five best as the model card's example takes them."""
    count = truth.shape[1]
    found = run.binary.classify(stack, model, weights, "--top", count, *options)
    logits, probabilities = (np.empty(truth.shape) for _ in range(2))
    for image, classes in enumerate(found):
        for entry in classes:
            logits[image, entry["index"]] = entry["logit"]
            probabilities[image, entry["index"]] = entry["probability"]
    report = run.report.add
    report(model, "224x256", f"{quantity}: logits", errors(logits, truth.numpy()).max(), CLASSIFY_BOUND)
    softmax = truth.double().softmax(dim=1).numpy()
    report(model, "224x256", f"{quantity}: probabilities", errors(probabilities, softmax).max(), CLASSIFY_BOUND)
    best = torch.topk(truth.softmax(dim=1) * 100, k=5).indices.tolist()
    other = sum([entry["index"] for entry in classes[:5]] != indices for classes, indices in zip(found, best))
    report(model, "224x256", f"{quantity}: other top 5", other, 0)


def seven_b(run: Run) -> None:
    for model in run.selected([f"{SEVEN_B}.sat493m"]):
        weights = run.weights(model, "7b")
        print(f"# {model}: {weights.spec}")
        look = timm_side.statistics(model)
        stacks = [images.photographs(2, 256, 256, look), run.stack(model, "7b", 224, 256)[:1]]
        truths = [timm_side.pool_tokens(tokens) for tokens in timm_side.tokens_block_by_block(model, weights, stacks)]
        for stack, truth in zip(stacks, truths):
            where = size_name(stack)
            with run.report.case(model, where):
                found = run.binary.embed(stack, model, weights.spec, list(truth), "--precision", "bf16")
                for kind, expected in truth.items():
                    value = errors(found.get(f"pool.{kind}"), expected).max()
                    run.report.add(model, where, f"pool.{kind}", value, SEVEN_B_BOUND[kind])
    both = [f"{SEVEN_B}.lvd1689m", f"{SEVEN_B}.sat493m"]
    if run.selected(both) == both:
        weights = run.weights(SEVEN_B, "names")
        stack = run.stack(both[0], "names", 32, 48)[:1]
        with run.report.case(both[0], "32x48"):
            expected, *others = (
                run.binary.embed(stack, model, weights.spec, ["avg"], "--precision", "bf16") for model in [*both, SEVEN_B]
            )
            for name, found in zip([both[1], SEVEN_B], others):
                run.report.same_bits(both[0], "32x48", f"as {name}", found, expected)


SECTIONS: dict[str, Callable[[Run], None]] = {
    "f32": f32,
    "outliers": outliers,
    "bf16": bf16,
    "names": names,
    "determinism": determinism,
    "formats": formats,
    "files": files,
    "classify": classify,
    "7b": seven_b,
}


# --- the command ----------------------------------------------------------------------------------------------


def versions() -> str:
    packages = {
        "timm": timm.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "Pillow": PIL.__version__,
        "Python": platform.python_version(),
    }
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({os.cpu_count()} cores)"
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()} cores)"


def choose_models(patterns: str | None, quick: bool) -> list[str]:
    """The models that match a comma-separated list of names, with or without tag, or shell patterns."""
    known = timm_side.released_models()
    if patterns is None:
        return QUICK_MODELS if quick else [model for model in known if "eupe" not in model]
    chosen = set()
    for pattern in patterns.split(","):
        matching = [
            model
            for model in known
            if fnmatch.fnmatch(model, pattern) or fnmatch.fnmatch(model.partition(".")[0], pattern)
        ]
        if not matching:
            sys.exit(f"no model matches '{pattern}'; timm knows {', '.join(known)}")
        chosen.update(matching)
    return [model for model in known if model in chosen]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/dinov3", help="default: %(default)s")
    parser.add_argument("--only", metavar="SECTION,...", help="run these sections only")
    parser.add_argument("--models", metavar="NAME,...", help="names with or without tag, or patterns")
    parser.add_argument("--quick", action="store_true", help="three small models, two sizes")
    parser.add_argument("--seven-b", action="store_true", help="run the 7b section too (6 minutes, 14 GB of memory)")
    parser.add_argument("--seed", type=int, help="default: a fresh one, printed")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the summary there")
    arguments = parser.parse_args()
    default = [name for name in SECTIONS if name != "7b"]
    sections = arguments.only.split(",") if arguments.only else default
    if unknown := set(sections) - SECTIONS.keys():
        parser.error(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if arguments.seven_b and "7b" not in sections:
        sections.append("7b")
    arguments.sections = sections
    return arguments


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(os.cpu_count() or 1)
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}; {cpu_name()}; {versions()}", flush=True)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="dinov3-parity-") as scratch:
        binary = Binary(arguments.binary.resolve(), Path(scratch))
        run = Run(binary, report, seed, choose_models(arguments.models, arguments.quick), arguments.quick)
        for name in arguments.sections:
            report.section = name
            started = time.monotonic()
            print(f"\n## {name}", flush=True)
            SECTIONS[name](run)
            print(f"# {name}: {time.monotonic() - started:.0f} s", flush=True)
    failed = sum(not result.passed for result in report.results)
    verdict = f"{len(report.results)} checks, {failed} failed" if report.results else "no checks were run"
    summary = report.summary()
    print(f"\n{summary}\n\n{verdict} (seed {seed})")
    if arguments.markdown:
        about = f"Seed {seed}, on {cpu_name()}, with {versions()}. {verdict}."
        arguments.markdown.write_text(f"{about}\n\n{summary}\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
