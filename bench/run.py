"""Runs rows of the speed table (rows.toml), both sides in turns, and writes what was seen to runs/DATE-CPU/ROW.json.

A pair is one turn of ours and one of the peer; which goes first changes from pair to pair, and the machine's peak is
probed before, between and after. Outputs are compared before anything is timed. Names may be patterns: 's-*'.
"""

import argparse
import datetime
import fnmatch
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import machine
import peers
import photographs
import verdict
from rows import MODELS, Row, read

HERE = Path(__file__).resolve().parent
# Ours and a peer's f32 round differently; below this they compute the same function. For the others the cosine of the
# worst image: bf16 has 8 bits, and NNCF's static int8 saw random pixels.
F32_BOUND = 1e-5
COSINES = {"bf16": 0.999, "int8": 0.99, "openvino-nncf": 0.9}


class Skip(Exception):
    """A row that this binary, machine or environment cannot run."""


# Share of the machine's speed below which a turn is measured again.
STILL = 0.9


@dataclass
class Bench:
    binary: Path
    turns: int
    runs: int
    threads: int
    cache: Path
    scratch: Path
    stillness: machine.Stillness
    left_out: list[dict] = field(default_factory=list)

    def ours(self, *words) -> str:
        command = [str(self.binary), *map(str, words)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines() or ["no message"]
            if "invalid value 'int8'" in done.stderr:
                raise Skip("this binary has no int8")
            raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}: {last[0]}")
        return done.stdout

    def common(self, row: Row, model: str) -> list:
        return ["-m", MODELS[model], "--weights", f"synthetic:{peers.SEED}", "--precision", row.precision,
                "--threads", self.threads]  # fmt: skip

    def encoder(self, row: Row, model: str = "", batch: int = 0, size_px: int = 0, extra=()) -> dict:
        words = ["bench", *self.common(row, model or row.model), "--batch-size", batch or row.batch]
        words += ["--size", size_px or row.size_px, "--runs", self.runs, "--json", *extra]
        return json.loads(self.ours(*words))

    def peak(self) -> dict:
        return json.loads(self.ours("info", "--peak", "--json"))["peak_gflops"]

    def case(self, row: Row) -> peers.Case:
        precision = row.peer_precision or row.precision
        return peers.Case(MODELS[row.model], precision, row.batch, row.size_px, row.size_px, self.threads, str(self.cache))

    def pairs(self, first, second) -> list[dict]:
        """Turns of two sides, each a function that gives a dictionary."""

        def turn(number: int) -> dict:
            sides = [("ours", first), ("peer", second)]
            if number % 2:
                sides.reverse()
            turn = {"order": [name for name, _ in sides], "load_average": os.getloadavg(), "peak_gflops": [self.peak()],
                    "stillness": [self.stillness.share()]}  # fmt: skip
            for name, side in sides:
                turn[name] = side()
                turn["stillness"].append(self.stillness.share())
                turn["peak_gflops"].append(self.peak())
            return turn

        return self.repeat(turn)

    def repeat(self, turn) -> list[dict]:
        """As many turns as asked for that nothing disturbed; after twice as many, the stillest ones."""
        still, disturbed = [], []
        while len(still) < self.turns and len(still) + len(disturbed) < 2 * self.turns:
            found = turn(len(still))
            (still if min(found["stillness"]) >= STILL else disturbed).append(found)
            print(f"  {len(still)}/{self.turns}, {len(disturbed)} disturbed", end="\r", file=sys.stderr, flush=True)
        disturbed.sort(key=lambda found: min(found["stillness"]), reverse=True)
        kept = still + disturbed[: self.turns - len(still)]
        self.left_out = disturbed[self.turns - len(still) :]
        return kept

    def alone(self, measure) -> list[dict]:
        """Turns of one side."""

        def turn(_number: int) -> dict:
            before = self.stillness.share()
            return measure() | {"stillness": [before, self.stillness.share()]}

        return self.repeat(turn)


def sha256_of_rows(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.astype("<f4").tobytes()).hexdigest()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Of the worst image."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())


def compare_outputs(ours: np.ndarray, theirs: np.ndarray, precisions: tuple[str, str], peer: str) -> dict:
    if ours.shape != theirs.shape:
        raise RuntimeError(f"{peer} gives {theirs.shape}, ours is {ours.shape}")
    found = {"relative": relative(theirs, ours), "lowest_cosine": float(cosines(theirs, ours).min())}
    if precisions == ("f32", "f32"):
        found |= {"measure": "relative", "bound": F32_BOUND, "agree": found["relative"] <= F32_BOUND}
    else:
        bound = min(COSINES[key] for key in (*precisions, peer) if key in COSINES)
        found |= {"measure": "lowest_cosine", "bound": bound, "agree": found["lowest_cosine"] >= bound}
    return found


def our_outputs(bench: Bench, row: Row) -> tuple[Path, np.ndarray, str]:
    """Inputs, what `embed` makes of them, and the hash, which `bench` must have found too."""
    inputs, outputs = bench.scratch / "inputs.npy", bench.scratch / "outputs.npy"
    found = bench.encoder(row, extra=["--write-inputs", inputs])["output_sha256"]
    bench.ours("embed", inputs, *bench.common(row, row.model), "--preprocess", "none", "--batch-size", row.batch,
               "-o", outputs)  # fmt: skip
    rows = np.load(outputs)
    if sha256_of_rows(rows) != found:
        raise RuntimeError("bench and embed give different outputs for the same inputs")
    return inputs, rows, found


def best_peer(bench: Bench, row: Row, inputs: Path, ours: np.ndarray) -> tuple[str, dict, list[dict]]:
    """The fastest setting of the fastest peer that computes the same, and everything that was tried."""
    tried = []
    case = bench.case(row)
    for name in row.peers:
        with peers.Peer(name, case) as peer:
            try:
                settings = peer.ask(do="settings")
            except RuntimeError as error:
                tried.append({"peer": name, "error": str(error)})
                continue
        for setting in settings:
            facts = {"peer": name, "setting": setting}
            tried.append(facts)
            print(f"  trying {name} {setting}", file=sys.stderr)
            # A process each: no memory and no threads of one setting beside the next.
            with peers.Peer(name, case) as peer:
                try:
                    peer.ask(do="open", setting=setting)
                    file = bench.scratch / "theirs.npy"
                    peer.ask(do="outputs", inputs=str(inputs), to=str(file))
                    facts["agreement"] = compare_outputs(ours, np.load(file), (row.precision, case.precision), name)
                    if not facts["agreement"]["agree"]:
                        print(f"  {name} {setting} computes something else: {facts['agreement']}", file=sys.stderr)
                        continue
                    facts["seconds"] = peer.ask(do="time", runs=min(bench.runs, 3))
                except (RuntimeError, BrokenPipeError) as error:
                    facts["error"] = str(error)
    usable = [facts for facts in tried if "seconds" in facts]
    if not usable:
        reasons = {facts.get("error") or str(facts.get("agreement")) for facts in tried}
        raise Skip(f"no setting of {', '.join(row.peers)} can be measured: {'; '.join(sorted(reasons))}")
    best = min(usable, key=lambda facts: float(np.median(facts["seconds"])))
    return best["peer"], best["setting"], tried


def open_peer(bench: Bench, row: Row, name: str, setting: dict, inputs: Path) -> peers.Peer:
    peer = peers.Peer(name, bench.case(row))
    peer.ask(do="open", setting=setting)
    peer.ask(do="outputs", inputs=str(inputs), to=str(bench.scratch / "theirs.npy"))
    return peer


def peer_turn(peer: peers.Peer, bench: Bench, row: Row) -> dict:
    seconds = peer.ask(do="time", runs=bench.runs)
    return {"seconds": seconds, "images_per_second": row.batch / float(np.median(seconds))}


def compare(bench: Bench, row: Row) -> dict:
    inputs, outputs, sha256 = our_outputs(bench, row)
    name, setting, tried = best_peer(bench, row, inputs, outputs)

    def ours() -> dict:
        result = bench.encoder(row)
        if result["output_sha256"] != sha256:
            raise RuntimeError("the outputs changed from one turn to the next")
        return result

    if "7b" in row.model:  # both at once would not fit into memory

        def theirs() -> dict:
            with open_peer(bench, row, name, setting, inputs) as peer:
                return peer_turn(peer, bench, row)

        turns = bench.pairs(ours, theirs)
    else:
        with open_peer(bench, row, name, setting, inputs) as peer:
            turns = bench.pairs(ours, lambda: peer_turn(peer, bench, row))
    rates = rates_of(turns)
    return {
        "peer": name, "setting": setting, "tried": tried, "output_sha256": sha256, "turns": turns,
        "ours": verdict.median(rates[:, 0]), "theirs": verdict.median(rates[:, 1]), "unit": "images/s",
        "share_of_peak": verdict.median(np.array([turn["ours"]["share_of_peak"] for turn in turns])),
        "summary": verdict.summarise(verdict.ratio_of_medians, rates, row.gate, row.stretch),
    }  # fmt: skip


def rates_of(turns: list[dict]) -> np.ndarray:
    return np.array([[turn[side]["images_per_second"] for side in ("ours", "peer")] for turn in turns])


def share(bench: Bench, row: Row) -> dict:
    turns = bench.alone(lambda: bench.encoder(row))
    shares = np.array([turn["share_of_peak"] for turn in turns])
    return {
        "turns": turns, "ours": verdict.median(np.array([turn["gflops"] for turn in turns])), "unit": "GFLOP/s",
        "summary": verdict.summarise(verdict.median, shares, row.gate, row.stretch),
    }  # fmt: skip


def first(bench: Bench, row: Row) -> dict:
    """Whole processes, from nothing to an embedding in a file, of one photograph."""
    picture = photographs.write(bench.cache, 1, 512, 512)[0]
    case = bench.case(row)
    # Weights as each side's users have them: ours packed if this binary can, timm's safetensors, an ONNX file.
    weights = bench.cache / f"{case.model}-{peers.SEED}.safetensors"
    script = [sys.executable, str(HERE / "first_embedding.py")]
    model = weights if row.peers == ["timm"] else peers.onnx_file(case, 1)
    if not weights.exists():
        subprocess.run([*script, "prepare", case.model, weights], check=True)
    packed = bench.scratch / "packed.dinov3"
    form = "packed"
    try:
        bench.ours("pack", weights, "-m", case.model, "--precision", row.precision, "-o", packed)
    except RuntimeError as reason:
        print(f"  not packed: {reason}", file=sys.stderr)
        packed, form = weights, "safetensors, not packed"
    ours_file, theirs_file = bench.scratch / "first.npy", bench.scratch / "theirs.npy"

    def timed(command: list) -> dict:
        started = time.perf_counter()
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return {"seconds": time.perf_counter() - started}

    ours_command = [bench.binary, "embed", picture, "-m", case.model, "--weights", packed, "--precision", row.precision,
                    "--threads", bench.threads, "-o", ours_file]  # fmt: skip
    theirs_command = [*script, row.peers[0], case.model, model, picture, theirs_file, bench.threads]
    timed(ours_command), timed(theirs_command)  # files come into the page cache
    agreement = compare_outputs(np.load(ours_file), np.load(theirs_file), (row.precision, "f32"), row.peers[0])
    if not agreement["agree"]:
        raise RuntimeError(f"the embeddings differ: {agreement}")
    turns = bench.pairs(lambda: timed(ours_command), lambda: timed(theirs_command))
    seconds = np.array([[turn["peer"]["seconds"], turn["ours"]["seconds"]] for turn in turns])
    return {
        "weights": form, "agreement": agreement, "turns": turns, "peer": row.peers[0],
        "ours": verdict.median(seconds[:, 1]), "theirs": verdict.median(seconds[:, 0]), "unit": "s",
        "summary": verdict.summarise(verdict.ratio_of_medians, seconds, row.gate, row.stretch),
    }  # fmt: skip


def neighbours(bench: Bench, row: Row) -> dict:
    """Each turn measures both sides alone and beside busy processes, all on two cores."""
    with machine.two_cores():
        bench.threads = min(bench.threads, 2)
        bench.runs *= 4  # long enough for the scheduler to be fair
        inputs, outputs, _ = our_outputs(bench, row)
        name, setting, tried = best_peer(bench, row, inputs, outputs)

        def beside(side) -> dict:
            alone = side()
            with machine.busy_neighbours(row.neighbours):
                time.sleep(0.5)
                busy = side()
            return {"alone": alone, "busy": busy, "kept": busy["images_per_second"] / alone["images_per_second"]}

        with open_peer(bench, row, name, setting, inputs) as peer:
            turns = bench.pairs(lambda: beside(lambda: bench.encoder(row)), lambda: beside(lambda: peer_turn(peer, bench, row)))
    rates = np.array([[turn["ours"][state]["images_per_second"] for state in ("busy", "alone")] for turn in turns])
    return {
        "peer": name, "setting": setting, "tried": tried, "turns": turns, "unit": "of its own speed",
        "ours": verdict.median(np.array([turn["ours"]["kept"] for turn in turns])),
        "theirs": verdict.median(np.array([turn["peer"]["kept"] for turn in turns])),
        "summary": verdict.summarise(verdict.ratio_of_medians, rates, row.gate, row.stretch),
    }  # fmt: skip


def pipeline(bench: Bench, row: Row) -> dict:
    """From JPEG files to a file of embeddings, without the start of the process on either side."""
    height_px, width_px = row.picture_px
    count = max(24, 24 * bench.runs)
    files = photographs.write(bench.cache, count, height_px, width_px)
    listed = bench.scratch / "files.txt"
    listed.write_text("\n".join(map(str, files)) + "\n")
    output, theirs_file = bench.scratch / "embeddings.npy", bench.scratch / "theirs.npy"
    command = [bench.binary, "embed", "-", *bench.common(row, row.model), "--batch-size", row.batch, "-o", output]

    def ours() -> dict:
        with listed.open() as lines:
            done = subprocess.run([str(word) for word in command], stdin=lines, capture_output=True, text=True)
        if done.returncode != 0:
            error = done.stderr.strip().splitlines()
            raise Skip("this binary has no int8") if "invalid value 'int8'" in done.stderr else RuntimeError(error)
        said = done.stderr.strip().splitlines()[-1]
        return {"said": said, "images_per_second": rate_said(said)}

    if row.against == "encoder":
        turns = bench.pairs(ours, lambda: bench.encoder(row))
        tried, agreement, name = [], None, "our encoder alone"
    else:
        script = [sys.executable, HERE / "timm_loader.py", MODELS[row.model], row.peer_precision or row.precision,
                  row.batch, bench.threads, listed, theirs_file]  # fmt: skip

        def theirs(workers: int) -> dict:
            words = [str(word) for word in (*script, workers)]
            return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout)

        ours()
        tried = [{"workers": workers} | theirs(workers) for workers in (0, 1, bench.threads)]
        workers = max(tried, key=lambda facts: facts["images_per_second"])["workers"]
        precisions = (row.precision, row.peer_precision or row.precision)
        agreement = compare_outputs(np.load(output), np.load(theirs_file), precisions, "timm")
        if not agreement["agree"]:
            raise RuntimeError(f"the embeddings differ: {agreement}")
        turns = bench.pairs(ours, lambda: theirs(workers))
        name = f"timm, {workers} loader processes"
    rates = rates_of(turns)
    return {
        "peer": name, "tried": tried, "agreement": agreement, "turns": turns, "unit": "images/s",
        "ours": verdict.median(rates[:, 0]), "theirs": verdict.median(rates[:, 1]),
        "summary": verdict.summarise(verdict.ratio_of_medians, rates, row.gate, row.stretch),
    }  # fmt: skip


def rate_said(text: str) -> float:
    """Images/s of `24 images in 1.2 s, 20.0 images/s, 0 failed -> FILE`, from the figure that rounding hurts less."""
    images, seconds, rate = map(float, re.match(r"(\d+) images in ([\d.]+) s, ([\d.]+) images/s", text).groups())
    return rate if rate > seconds else images / seconds


def growth(bench: Bench, row: Row) -> dict:
    """All points in each turn, so that drift meets them alike."""

    def point(value) -> dict:
        key = {"batch": "batch", "size": "size_px", "model": "model"}[row.along]
        fixed = {"size": {"batch": 1}}.get(row.along, {})
        found = bench.encoder(row, **({key: value} | fixed))
        return {"point": value, "nanoseconds_per_megaflop": 1e6 / found["gflops"]} | found

    turns = bench.alone(lambda: {"points": [point(value) for value in row.points]})
    costs = np.array([[found["nanoseconds_per_megaflop"] for found in turn["points"]] for turn in turns])
    return {
        "turns": turns, "unit": "ns per MFLOP", "curve": dict(zip(map(str, row.points), np.median(costs, axis=0))),
        "ours": float(np.median(costs, axis=0).max()), "theirs": float(np.median(costs, axis=0).min()),
        "summary": verdict.summarise(verdict.worst_over_best, costs, row.gate, row.stretch, lower_is_better=True),
    }  # fmt: skip


KINDS = {"compare": compare, "share": share, "first": first, "neighbours": neighbours, "pipeline": pipeline,
         "growth": growth}  # fmt: skip


def choose(rows: list[Row], patterns: list[str]) -> list[Row]:
    chosen = []
    for pattern in patterns:
        found = [row for row in rows if fnmatch.fnmatch(row.name, pattern) and (not row.opt_in or row.name == pattern)]
        if not found:
            sys.exit(f"no row is called '{pattern}'; --list shows all (those marked * only by their full names)")
        chosen += [row for row in found if row not in chosen]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--list", action="store_true", help="the rows, their gates and stretches")
    parser.add_argument("--binary", type=Path, default=HERE.parent / "target/release/dinov3", help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=verdict.ENOUGH_PAIRS, help="pairs, default %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="forward passes of each side per pair, default %(default)s")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all, %(default)s")
    parser.add_argument("--cache", type=Path, default=HERE.parent / "target/bench-cache", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=HERE / "runs", help="default: %(default)s")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a gate is missed or a row fails")
    arguments = parser.parse_args()
    rows = read()
    if arguments.list or not arguments.rows:
        for row in rows:
            print(f"{row.name + ('*' if row.opt_in else ''):34} {row.title:52} gate {row.gate:<5} stretch {row.stretch}")
        return

    arguments.cache.mkdir(parents=True, exist_ok=True)
    date = datetime.date.today().isoformat()
    folder = arguments.output / machine.folder_name(date)
    failures = 0
    stillness = machine.Stillness(arguments.threads)
    for row in choose(rows, arguments.rows):
        print(f"{row.name}: {row.title}", file=sys.stderr)
        started, load = datetime.datetime.now(datetime.UTC), os.getloadavg()
        with tempfile.TemporaryDirectory(prefix="dinov3-bench-") as scratch:
            bench = Bench(arguments.binary.resolve(), arguments.turns, arguments.runs, arguments.threads,
                          arguments.cache.resolve(), Path(scratch), stillness)  # fmt: skip
            try:
                result = KINDS[row.kind](bench, row)
            except Skip as reason:
                print(f"{row.name:34} skipped: {reason}", flush=True)
                continue
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"{row.name:34} failed: {error}", flush=True)
                failures += 1
                continue
        summary = result["summary"]
        facts = {
            "row": row.facts(),
            "summary": summary,
            "command": "bench/run.sh " + shlex.join([row.name, "--turns", str(arguments.turns), "--runs", str(arguments.runs)]),
            "started": started.isoformat(timespec="seconds"),
            "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "left_out": bench.left_out,
            "load_average": {"before": load, "after": os.getloadavg()},
            "threads": bench.threads,
            "machine": machine.facts(),
            "commit": machine.commit(),
            "versions": {"dinov3": bench.ours("--version").split()[-1]} | peers.versions(),
        } | result
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{row.name}.json"
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
        temporary.rename(file)
        bounds = "" if summary["interval"] is None else " [{:.3f}, {:.3f}]".format(*summary["interval"])
        print(f"{row.name:34} {summary['value']:.3f}{bounds} gate {row.gate} stretch {row.stretch}: {summary['verdict']}",
              flush=True)  # fmt: skip
        failures += summary["verdict"] == "missed"
    stillness.close()
    if failures and arguments.strict:
        sys.exit(1)


if __name__ == "__main__":
    main()
