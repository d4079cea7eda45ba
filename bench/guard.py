"""Compares instruction counts and main loops of the kernels with guard.json. No packages beside Python's own.

Counts: callgrind, or `perf stat` where valgrind is missing and the counter is allowed; the difference between three
rounds and one, so that start and preparation do not count. Main loops: innermost loops of the disassembly with at least
twelve multiply-adds that make up at least three tenths of their instructions, which are those of the register tiles and
of the depthwise convolution, and not polynomials. A vector register stored to the stack in one is a spill.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXPECTATIONS = Path(__file__).with_name("guard.json")
TOLERANCE = 0.03
OTHER_COMPILER_TOLERANCE = 0.10
MULTIPLY_ADD = re.compile(r"^(vfn?madd\d+ps|vdpbf16ps|vpdpbusds?|vpdpwssds?)$")
LEAST_MULTIPLY_ADDS = 12
LEAST_SHARE = 0.3
STACK_STORE = re.compile(r"%[xyz]mm\d+,-?(0x)?[0-9a-f]*\(%rsp[,)]")


def output(command: list[str], **environment: str) -> tuple[str, str]:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout, done.stderr


def counter():
    """A function of a command that gives its instructions, and its name."""
    if shutil.which("valgrind"):

        def callgrind(command: list[str]) -> int:
            tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
            return int(re.search(r"Collected : (\d+)", output(tool + command, DINOV3_ISA="avx2")[1])[1])

        return callgrind, "callgrind"
    if shutil.which("perf") and "not supported" not in output(["perf", "stat", "-e", "instructions:u", "true"])[1]:

        def perf(command: list[str]) -> int:
            counted = output(["perf", "stat", "-x", ",", "-e", "instructions:u", *command], DINOV3_ISA="avx2")[1]
            return int(counted.split(",")[0])

        return perf, "perf"
    return None, "nothing: install valgrind, or allow perf its counter"


def instructions(program: Path) -> dict[str, int] | None:
    count, name = counter()
    print(f"instructions counted by {name}")
    if count is None:
        return None
    cases = output([str(program)])[0].split()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rounds = {(case, n): pool.submit(count, [str(program), case, str(n)]) for case in cases for n in (1, 3)}
    return {case: (rounds[case, 3].result() - rounds[case, 1].result()) // 2 for case in cases}


def main_loops(program: Path) -> dict[str, dict[str, int]]:
    """By instruction and register: how many main loops there are, and spills in all of them."""
    text, _ = output(["objdump", "--disassemble", "--no-show-raw-insn", str(program)])
    found: dict = defaultdict(lambda: {"loops": 0, "most_multiply_adds": 0, "spills": 0})
    for function in re.split(r"\n\n", text):
        code = []  # address, mnemonic, operands
        for line in function.splitlines():
            match = re.match(r"\s*([0-9a-f]+):\s+(?:\{vex\}\s+)?(\S+)\s*(.*)", line)
            if match:
                code.append((int(match[1], 16), match[2], match[3]))
        backward = []
        places = {address: place for place, (address, _, _) in enumerate(code)}
        for place, (address, mnemonic, operands) in enumerate(code):
            target = re.match(r"([0-9a-f]+)\b", operands) if mnemonic.startswith("j") else None
            if target and int(target[1], 16) <= address and int(target[1], 16) in places:
                backward.append((places[int(target[1], 16)], place))
        for start, end in backward:
            if any(start <= other and end_of < end or start < other and end_of <= end for other, end_of in backward):
                continue  # another loop lies inside
            body = code[start : end + 1]
            kinds = defaultdict(int)
            for _, mnemonic, operands in body:
                if MULTIPLY_ADD.match(mnemonic):
                    name = re.sub(r"\d+ps$", "ps", mnemonic) if mnemonic.startswith("vf") else mnemonic
                    kinds[f"{name} {re.findall(r'%([xyz]mm)', operands)[-1]}"] += 1
            count = sum(kinds.values())
            if count >= max(LEAST_MULTIPLY_ADDS, LEAST_SHARE * len(body)):
                facts = found[max(kinds, key=kinds.get)]
                facts["loops"] += 1
                facts["most_multiply_adds"] = max(facts["most_multiply_adds"], count)
                facts["spills"] += sum(
                    mnemonic.startswith("vmov") and bool(STACK_STORE.search(operands)) for _, mnemonic, operands in body
                )
    return dict(sorted(found.items()))


def outlined(program: Path) -> list[str]:
    """Vector instructions that became functions: what calls them was compiled without vector registers, most often a closure
    that was not inlined, and is many times slower."""
    text, _ = output(["objdump", "--syms", str(program)])
    return sorted(set(re.findall(r"core_arch\S*?(_mm(?:256|512)_[a-z0-9_]+?)(?=17h|[^a-z0-9_]|$)", text)))


def problems(expected: dict, counts: dict[str, int] | None, loops: dict, compiler: str) -> list[str]:
    tolerance = TOLERANCE
    if expected["compiler"] != compiler:
        print(f"note: expectations are of {expected['compiler']}, this is {compiler}: 10 % instead of 3 % are allowed")
        tolerance = OTHER_COMPILER_TOLERANCE
    found = []
    for case, count in (counts or {}).items():
        before = expected["instructions"].get(case)
        if before is None:
            found.append(f"{case}: no expectation yet; run bench/guard.sh --update")
            continue
        change = count / before - 1
        print(f"  {case:20} {count:12} instructions a round, {change:+.1%}")
        if change > tolerance:
            found.append(f"{case}: {count} instructions a round, {before} expected")
    for case in expected["instructions"].keys() - (counts or expected["instructions"]).keys():
        found.append(f"{case}: gone; run bench/guard.sh --update")
    for kind, before in expected["main_loops"].items():
        now = loops.get(kind, {"loops": 0, "most_multiply_adds": 0, "spills": 0})
        print(f"  {kind:20} {now['loops']:4} main loops, the largest of {now['most_multiply_adds']}, {now['spills']} spills")
        if now["most_multiply_adds"] < before["most_multiply_adds"] and expected["compiler"] == compiler:
            found.append(f"{kind}: the largest main loop has {now['most_multiply_adds']} multiply-adds, "
                         f"{before['most_multiply_adds']} expected")  # fmt: skip
        if now["loops"] == 0:
            found.append(f"{kind}: no main loop left")
        # Another compiler's registers are its own affair.
        if now["spills"] > before["spills"] and expected["compiler"] == compiler:
            found.append(f"{kind}: {now['spills']} spills in main loops, {before['spills']} expected")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--update", action="store_true", help="write guard.json anew")
    arguments = parser.parse_args()
    compiler = output(["rustc", "--version"])[0].strip().rsplit(" (")[0]
    counts, loops = instructions(arguments.program), main_loops(arguments.program)
    if arguments.update:
        if counts is None:
            sys.exit("nothing can count instructions here")
        facts = {"compiler": compiler, "instructions": counts, "main_loops": loops}
        EXPECTATIONS.write_text(json.dumps(facts, indent=1) + "\n")
        print(f"wrote {EXPECTATIONS.name}: {len(counts)} cases, {len(loops)} kinds of main loops")
        return
    found = problems(json.loads(EXPECTATIONS.read_text()), counts, loops, compiler)
    found += [f"{name}: an instruction that is a function; its caller has to be inlined" for name in outlined(arguments.program)]
    for problem in found:
        print(f"FAIL {problem}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
