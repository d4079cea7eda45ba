"""Writes what the runs in runs/ say into docs/performance.md, README.md and docs/performance.svg, and checks that it is there.

Text goes between lines `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`. Of each row and machine the newest run counts.
Only the plot needs a package, matplotlib; `--check` needs none.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from rows import MODELS, TITLES, Row, read

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = ("docs/performance.md", "README.md")
PLOT = REPOSITORY / "docs/performance.svg"
NOT_MEASURED = "not yet measured"
NO_BF16 = "this processor has no bf16"
WITHOUT_BF16 = ("avx2", "avxvnni", "avx512", "avx512vnni")  # see machine.instruction_set
PEER_TITLES = {
    "openvino": "OpenVINO", "openvino-nncf": "OpenVINO, NNCF static int8", "onnxruntime": "ONNX Runtime",
    "timm-eager": "timm eager", "timm-compiled": "timm compiled", "timm": "timm",
}  # fmt: skip


def newest_runs(folder: Path) -> dict[str, dict[str, dict]]:
    """Machine -> row -> facts."""
    machines: dict[str, dict[str, dict]] = {}
    for run in sorted(path for path in folder.glob("*") if path.is_dir()):
        machine = run.name[len("2026-01-31-") :]
        for file in sorted(run.glob("*.json")):
            facts = json.loads(file.read_text())
            machines.setdefault(machine, {})[file.stem] = facts | {"file": f"{run.name}/{file.name}"}
    return machines


def number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def against(row: Row, facts: dict | None) -> str:
    if row.kind == "share":
        return "the machine's peak"
    if row.kind == "growth":
        return "its cheapest point"
    if row.kind == "neighbours":
        return "itself alone"
    if row.kind == "pipeline":
        return "our encoder alone" if row.against == "encoder" else "timm + Pillow loader"
    title = PEER_TITLES[row.peers[0]] if len(row.peers) == 1 else "best of " + ", ".join(PEER_TITLES[p] for p in row.peers)
    if row.peer_precision:
        title += f" {row.peer_precision}"
    if facts and len(row.peers) > 1:
        title += f" ({PEER_TITLES[facts['peer']]})"
    return title


def instruction_set(machine: str) -> str:
    """Of `amd-epyc-avx2-2-threads`; see machine.folder_name."""
    return machine.split("-")[-3]


def line(row: Row, facts: dict | None, machine: str | None = None) -> str:
    limits = f"{number(row.gate)} / {number(row.stretch)}"
    if row.lower_is_better:
        limits = f"at most {limits}"
    if facts is None:
        of_bf16 = "bf16" in (row.precision, row.peer_precision)
        state = NO_BF16 if machine and of_bf16 and instruction_set(machine) in WITHOUT_BF16 else NOT_MEASURED
        return f"| {row.title} | {against(row, None)} | | | {limits} | {state} |"
    summary = facts["summary"]
    bounds = "" if summary["interval"] is None else " ({} to {})".format(*map(number, summary["interval"]))
    sides = f"{number(facts['ours'])} / {number(facts['theirs'])}" if "theirs" in facts else number(facts["ours"])
    value = f"**{number(summary['value'])}**{bounds}"
    verdict = f"[{summary['verdict']}](../bench/runs/{facts['file']})"
    return f"| {row.title} | {against(row, facts)} | {sides} {facts['unit']} | {value} | {limits} | {verdict} |"


def machine_line(runs: dict[str, dict]) -> str:
    facts = max(runs.values(), key=lambda facts: facts["started"])
    machine, versions = facts["machine"], facts["versions"]
    loads = [load for run in runs.values() for load in (run["load_average"]["before"][0], run["load_average"]["after"][0])]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    virtual = "virtual, " if machine["virtual"] else ""
    return (
        f"{machine['processor']} ({virtual}family {machine['family']}, model {machine['model']}), {facts['threads']} threads, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB. {listed}. Load average at the ends of rows: {min(loads):.1f} to {max(loads):.1f}."
    )


def results(rows: list[Row], machines: dict) -> str:
    head = "| case | against | ours / theirs | ratio (95 %) | gate / stretch | |\n| --- | --- | --- | --- | --- | --- |\n"
    if not machines:
        return head + "\n".join(line(row, None) for row in rows)
    parts = []
    for machine, runs in sorted(machines.items()):
        lines = [line(row, runs.get(row.name), machine) for row in rows]
        parts.append(f"### {machine}\n\n{machine_line(runs)}\n\n{head}" + "\n".join(lines))
    return "\n\n".join(parts)


def headlines(rows: list[Row], machines: dict) -> str:
    """For the README: batch 8 against every peer, a table for each machine."""
    parts = []
    for machine, runs in sorted(machines.items()):
        columns: dict[str, dict[str, str]] = {}
        for row in rows:
            if row.kind == "compare" and row.batch == 8 and row.name in runs:
                value = f"{runs[row.name]['summary']['value']:.2f} ×"
                columns.setdefault(f"{row.precision} / {against(row, None)}", {})[TITLES[row.model]] = value
        if not columns:
            continue
        models = [title for title in TITLES.values() if any(title in column for column in columns.values())]
        text = f"| {machine} | " + " | ".join(models) + " |\n| --- |" + " --- |" * len(models)
        for case, column in columns.items():
            text += f"\n| {case} | " + " | ".join(column.get(model, "") for model in models) + " |"
        parts.append(text)
    if not parts:
        return f"Against OpenVINO, ONNX Runtime and compiled timm: {NOT_MEASURED}; `bench/run.sh --list` shows what will be."
    return "256 × 256, batch 8: our images per second over the peer's.\n\n" + "\n\n".join(parts) + "\n\n![Ratios with their intervals](docs/performance.svg)"


def limits(binary: Path) -> str:
    """What no implementation can avoid, from the model table."""
    table = {model["name"]: model for model in json.loads(subprocess.check_output([binary, "models", "--json"]))}
    text = "| model | parameters | GFLOP per image | weights in bf16 | FLOP per byte of them, batch 1 | images/s per TFLOP/s |\n"
    text += "| --- | --- | --- | --- | --- | --- |"
    for short, name in MODELS.items():
        parameters, flops = table[name]["parameters"], table[name]["flops_at_256_px"]
        bytes_bf16 = 2 * parameters
        text += (
            f"\n| {TITLES[short]} | {parameters / 1e6:.1f} M | {flops / 1e9:.1f} | {bytes_bf16 / 1e6:.0f} MB | "
            f"{flops / bytes_bf16:.0f} | {1e12 / flops:.3g} |"
        )
    return text


def plotted(rows: list[Row], machines: dict) -> list[dict]:
    points = []
    for machine, runs in sorted(machines.items()):
        for row in rows:
            if row.kind == "compare" and row.name in runs:
                summary = runs[row.name]["summary"]
                label = f"{row.title} / {against(row, None)}"
                if len(machines) > 1:
                    label += f", {instruction_set(machine)}"
                points.append({"machine": machine, "label": label, "value": summary["value"],
                               "interval": summary["interval"], "gate": row.gate, "stretch": row.stretch})  # fmt: skip
    return points


def fingerprint(points: list[dict]) -> str:
    return "bench data " + hashlib.sha256(json.dumps(points, sort_keys=True).encode()).hexdigest()


def draw(points: list[dict]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "dinov3", "font.size": 8})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.24 * len(points)), layout="constrained")
    for place, point in enumerate(reversed(points)):
        value = point["value"]
        low, high = point["interval"] or (value, value)
        axes.barh(place, value, color="#4477aa", height=0.6)
        axes.errorbar(value, place, xerr=[[max(0, value - low)], [max(0, high - value)]], color="black", capsize=2, linewidth=0.8)
        axes.plot([point["gate"]] * 2, [place - 0.4, place + 0.4], color="#cc3311", linewidth=1.5)
        axes.plot([point["stretch"]] * 2, [place - 0.4, place + 0.4], color="#009988", linewidth=1.5)
    axes.set_yticks(range(len(points)), [point["label"] for point in reversed(points)])
    axes.axvline(1, color="black", linewidth=0.8)
    # Of the figure: under the axes alone, which are narrow beside long names, it would be cut.
    figure.supxlabel("images per second, ours over the peer's; red: gate, green: stretch, whiskers: 95 %", fontsize=8)
    figure.savefig(PLOT, metadata={"Date": None, "Description": fingerprint(points)})


def with_block(text: str, name: str, content: str) -> str:
    start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if start not in text:
        return text
    before, rest = text.split(start, 1)
    _, after = rest.split(end, 1)
    return f"{before}{start}\n{content}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a document is out of date")
    parser.add_argument("--binary", type=Path, help="dinov3, whose model table gives the block `limits`")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "bench/runs", help="default: %(default)s")
    arguments = parser.parse_args()
    rows, machines = read(), newest_runs(arguments.runs)
    blocks = {"results": results(rows, machines), "headlines": headlines(rows, machines)}
    if arguments.binary:
        blocks["limits"] = limits(arguments.binary)
    stale = []
    for name in DOCUMENTS:
        path = REPOSITORY / name
        before = after = path.read_text()
        for block, content in blocks.items():
            after = with_block(after, block, content)
        if after != before:
            stale.append(name)
            if not arguments.check:
                path.write_text(after)
    points = plotted(rows, machines)
    drawn = PLOT.read_text() if PLOT.exists() else None
    if points and fingerprint(points) not in (drawn or "") or not points and drawn:
        stale.append(str(PLOT.relative_to(REPOSITORY)))
        if not arguments.check:
            draw(points) if points else PLOT.unlink()
    for name in stale:
        print(f"{name}: {'out of date; run bench/report.py' if arguments.check else 'written'}")
    sys.exit(1 if arguments.check and stale else 0)


if __name__ == "__main__":
    main()
