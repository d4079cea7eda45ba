"""Peak of anonymous memory while `dinov3` loads a checkpoint as bf16, beside the size of the bf16 weights.

Anonymous memory is what the process itself holds; mapped pages of the file belong to the page cache, which the system
takes back when it likes. Linux only: reads /proc/PID/status. Make a checkpoint first:

    cargo xtask make-checkpoint --model vit_7b_patch16_dinov3 --weights synthetic:1 -o seven-b
    dev/parity/load_memory.py --model vit_7b_patch16_dinov3 --weights seven-b

Exits with 1 if the ratio is above --most.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/dinov3", help="default: %(default)s")
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--most", type=float, default=1.1, help="largest ratio; default: %(default)s")
    arguments = parser.parse_args()

    listed = subprocess.run([arguments.binary, "models", "--json"], stdout=subprocess.PIPE, text=True, check=True)
    names = (arguments.model, f"{arguments.model}.lvd1689m", f"{arguments.model}.dinov3_lvd1689m")
    parameters = next(model["parameters"] for model in json.loads(listed.stdout) if model["name"] in names)

    # One small picture: what is measured is the loading.
    command = [arguments.binary, "bench", "-m", arguments.model, "--weights", arguments.weights]
    command += ["--precision", "bf16", "--size", "64x64", "--batch-size", "1", "--runs", "1"]
    process = subprocess.Popen([str(item) for item in command], stdout=subprocess.DEVNULL)
    peak = {"RssAnon": 0, "RssFile": 0}
    started = time.perf_counter()
    while process.poll() is None:
        for key, size_bytes in sizes(process.pid).items():
            if key in peak:
                peak[key] = max(peak[key], size_bytes)
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"{command[1]} failed with {process.returncode}")
    weights, seconds = 2 * parameters, time.perf_counter() - started
    ratio = peak["RssAnon"] / weights
    print(
        f"{arguments.model}: anonymous memory {peak['RssAnon'] / 1e9:.2f} GB, bf16 weights {weights / 1e9:.2f} GB, "
        f"ratio {ratio:.3f}; mapped pages of files {peak['RssFile'] / 1e9:.2f} GB at most; {seconds:.0f} s"
    )
    sys.exit(ratio > arguments.most)


def sizes(pid: int) -> dict[str, int]:
    """Memory of a process by kind, in bytes; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines)
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields if len(field) == 3 and field[2] == "kB"}


if __name__ == "__main__":
    main()
