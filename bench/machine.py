"""What a run was made on, and what disturbs it."""

import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def facts() -> dict:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    number = lambda field: (re.search(rf"{field}\s*:\s*(\d+)", text) or [None, None])[1]  # noqa: E731
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor(),
        "family": number("cpu family"),
        "model": number(r"model\s"),
        "virtual": "hypervisor" in text,
        "threads": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "kernel": platform.system() + " " + ".".join(platform.release().split(".")[:2]),
    }


def instruction_set() -> str:
    """The best of those that encoders use: virtual machines call processors of several generations by one name."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set((re.search(r"flags\s*:\s*(.+)", text) or [None, ""])[1].split())
    best = {"amx": "amx_tile", "avx512bf16": "avx512_bf16", "avx512vnni": "avx512_vnni", "avx512": "avx512f",
            "avxvnni": "avx_vnni", "avx2": "avx2"}  # fmt: skip
    return next((name for name, flag in best.items() if flag in flags), platform.machine())


def folder_name(date: str) -> str:
    """`2026-01-31-amd-epyc-avx2-2-threads`."""
    slug = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    return f"{date}-{slug}-{instruction_set()}-{len(os.sched_getaffinity(0))}-threads"


def commit() -> str:
    """The revision, with `+` if files differ from it."""
    git = lambda *words: subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True).stdout  # noqa: E731
    changed = git("status", "--porcelain", "--untracked-files=no").strip()
    return git("rev-parse", "--short=12", "HEAD").strip() + ("+" if changed else "")


def _spin(_task: int) -> float:
    """Seconds that a fixed piece of work takes, about a hundredth: the median of three."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        total = 0
        for number in range(500_000):
            total += number
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


class Stillness:
    """What share of its speed the machine gives, seen by a fixed piece of work on all cores at once.

    A virtual machine loses cores to its neighbours without a trace in its load average, for seconds or minutes; the peak
    probe, which takes the best of short bursts, does not see it either.
    """

    def __init__(self, threads: int):
        # A process each: in one pool a worker might take the work of another.
        context = multiprocessing.get_context("spawn")
        self.pools = [context.Pool(1) for _ in range(threads)]
        self.shortest = float("inf")
        for _ in range(8):
            self.share()

    def share(self) -> float:
        """1 if nothing disturbs any core; of the slowest core otherwise."""
        answers = [pool.map_async(_spin, [0]) for pool in self.pools]
        seconds = [answer.get()[0] for answer in answers]
        self.shortest = min(self.shortest, *seconds)
        return self.shortest / max(seconds)

    def close(self) -> None:
        for pool in self.pools:
            pool.terminate()


@contextmanager
def busy_neighbours(count: int):
    """Processes that take all the time they get."""
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


@contextmanager
def two_cores():
    """This process and all that it starts on two cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:2]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
