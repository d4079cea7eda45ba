"""What a run was made on, and what disturbs it."""

import os
import platform
import re
import subprocess
import sys
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


def folder_name(date: str) -> str:
    """`2026-01-31-amd-epyc-2-threads`."""
    slug = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    return f"{date}-{slug}-{len(os.sched_getaffinity(0))}-threads"


def commit() -> str:
    """The revision, with `+` if files differ from it."""
    git = lambda *words: subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True).stdout  # noqa: E731
    changed = git("status", "--porcelain", "--untracked-files=no").strip()
    return git("rev-parse", "--short=12", "HEAD").strip() + ("+" if changed else "")


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
