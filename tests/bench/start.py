"""Start-up of se-enhance and of a compiled C filter, beside an interpreter that imports NumPy: all in one run, taking turns.

    python tests/bench/start.py [--rounds 20] [--tree DIR ...]

Prints a table: what runs, least and median ms from exec to its first output, the same for processor time to its end, and the ratio of the
least processor time to that of the import. A file of 4 s ends with its file; a pipe is fed a hop every millisecond until it answers
with samples. `--tree`: further checkouts, each with a .venv of its own, to compare with.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from setk import audio
from setk.engines.compiled import compiler

ROOT = Path(__file__).parents[2]
RATE, HOP, HEADER = 16000, 256, 44
IMPORT = "import numpy"


class Contender(NamedTuple):
    """A command; `answer`: bytes of its standard output that are the first samples, None for one that writes a file."""

    name: str
    argv: list[str]
    answer: int | None = None
    header: bytes = b""


def contenders(folder: Path, trees: list[Path]) -> list[Contender]:
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 4 * RATE)).astype(np.float32)
    source = folder / "in.wav"
    audio.write(source, noise, RATE)
    found = [Contender(IMPORT, [sys.executable, "-P", "-c", IMPORT])]
    for tree in [ROOT, *trees]:
        command = str(tree / "bin" / "se-enhance")
        where = "" if tree == ROOT else f" of {tree.name}"
        found += [
            Contender(
                f"se-enhance fspen in.wav out.wav{where}", [command, "fspen", str(source), str(folder / "out.wav")]
            ),
            Contender(
                f"se-enhance fspen - -{where}",
                [command, "fspen", "-", "-"],
                HEADER + 2,
                audio.wav_header(RATE, 1, None),
            ),
        ]
    if compiler():
        c = folder / "fspen.c"
        subprocess.run([str(ROOT / "bin" / "se-quant"), "-q", "export", "fspen", str(c)], check=True)
        flags = ["-O3", "-march=native", "-ffp-contract=off", "-DSETK_MAIN"]
        subprocess.run([*compiler(), *flags, str(c), "-o", str(folder / "filter")], check=True)
        found.append(Contender("C filter", [str(folder / "filter")], 2))
    return found


def first_output(one: Contender) -> float:
    """Seconds from exec to the first samples of a pipe, or to the end of a command that has none."""
    start = time.perf_counter()
    if one.answer is None:
        subprocess.run(one.argv, stderr=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start
    process = subprocess.Popen(one.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    os.set_blocking(process.stdout.fileno(), False)
    hop = (1000 * np.sin(np.arange(HOP))).astype("<i2").tobytes()
    received = 0
    os.write(process.stdin.fileno(), one.header)
    while received < one.answer:
        os.write(process.stdin.fileno(), hop)
        time.sleep(0.001)
        received += len(process.stdout.read(1 << 16) or b"")
    seconds = time.perf_counter() - start
    os.set_blocking(process.stdout.fileno(), True)
    process.communicate()
    return seconds


def processor() -> float:
    """Seconds that ended processes used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tree", type=Path, action="append", default=[], help="a checkout to compare with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="setk_bench_") as folder:
        taking_turns = contenders(Path(folder), [tree.resolve() for tree in options.tree])
        times: dict[str, list[tuple[float, float]]] = {one.name: [] for one in taking_turns}
        for _ in range(options.rounds):
            for one in taking_turns:
                before = processor()
                seconds = first_output(one)
                times[one.name].append((seconds, processor() - before))
    print("what", "least_ms", "median_ms", "least_cpu_ms", "median_cpu_ms", "ratio", sep="\t")
    unit = min(cpu for _, cpu in times[IMPORT])
    for name, measured in times.items():
        columns = list(zip(*measured))
        numbers = [f"{1000 * of(column):.1f}" for column in columns for of in (min, statistics.median)]
        print(name, *numbers, f"{min(columns[1]) / unit:.2f}", sep="\t")


if __name__ == "__main__":
    main()
