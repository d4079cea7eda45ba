"""Images per second of the `dinov3` binary beside timm's, run in turns so that both meet the same machine.

timm runs eagerly with torch's threads, both with the same synthetic weights; each turn is one process of ours and
one stretch of timm, after a warm-up on either side. Prints the median of the turns and the ratio of the medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import timm
import torch

import timm_side
from synthetic import Synthetic

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = "vit_small_patch16_dinov3,vit_base_patch16_dinov3,vit_large_patch16_dinov3"
WEIGHTS = Synthetic(1)
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def ours(arguments: argparse.Namespace, model: str) -> float:
    command = [arguments.binary, "bench", "-m", model, "--weights", WEIGHTS.spec, "--precision", arguments.precision]
    command += ["--batch-size", arguments.batch_size, "--size", f"{arguments.size}x{arguments.size}"]
    command += ["--runs", arguments.runs, "--threads", arguments.threads, "--json"]
    done = subprocess.run([str(item) for item in command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)["images_per_second"]


@torch.inference_mode()
def timms(net: torch.nn.Module, batch: torch.Tensor, runs: int) -> float:
    """Median over `runs` forward passes, after one that does not count."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        net(batch)
        seconds.append(time.perf_counter() - started)
    return len(batch) / statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/dinov3", help="default: %(default)s")
    parser.add_argument("--models", default=MODELS, metavar="NAME,...", help="default: %(default)s")
    parser.add_argument("--precision", choices=DTYPES, default="f32")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="side of the images, default %(default)s")
    parser.add_argument("--turns", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=3, help="forward passes per turn, default %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    parser.add_argument("--at-least", type=float, metavar="RATIO", help="exit with 1 if a ratio is lower")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    dtype = DTYPES[arguments.precision]
    batch = torch.randn(arguments.batch_size, 3, arguments.size, arguments.size, dtype=dtype)
    print(
        f"timm {timm.__version__}, torch {torch.__version__}, {arguments.threads} threads, {arguments.precision}, "
        f"batch {arguments.batch_size}, {arguments.size}x{arguments.size}, {arguments.turns} turns; images per second"
    )
    print(f"{'model':34} {'ours':>9} {'timm':>9} {'ratio':>7}", flush=True)
    ratios = []
    for model in arguments.models.split(","):
        net = timm_side.create(model, WEIGHTS).to(dtype)
        turns = [(ours(arguments, model), timms(net, batch, arguments.runs)) for _ in range(arguments.turns)]
        our_median, timm_median = (statistics.median(side) for side in zip(*turns))
        ratios.append(our_median / timm_median)
        print(f"{model:34} {our_median:9.2f} {timm_median:9.2f} {ratios[-1]:7.2f}", flush=True)
    if arguments.at_least is not None and min(ratios) < arguments.at_least:
        sys.exit(1)


if __name__ == "__main__":
    main()
