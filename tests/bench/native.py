"""Time of a hop: the C of a model for several processors beside ONNX Runtime, all in one run, taking turns.

    python tests/bench/native.py fspen.onnx [dpsnn.onnx ...] [--rounds 200]

Prints a table: model, engine, least and median microseconds of a hop, and the ratio of the least to that of ONNX Runtime fed through
Stream.push. Each hop of each engine is timed alone. Each engine runs five in a row: in the first, the caches hold the data of others.
SETK_BENCH=scalar,sse2,avx2,avx512 chooses the builds (all that the processor runs, by default).
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable

import numpy as np

from setk.engines import OnnxEngine, Stream
from setk.engines.compiled import compiler
from setk.native.translate import translate

FLAGS = {
    "scalar": ["-DSETK_SCALAR"],
    "sse2": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mfma"],
}
HOPS = 5  # that an engine runs before the next one


class Program:
    """A translated model in one build of the kernels."""

    def __init__(self, path: Path, library: ctypes.CDLL):
        translated = translate(path)
        program = translated.program
        self._words, self._library, self._hop = program.words, library, translated.transform.hop
        self._memories = [
            _aligned(np.zeros(n, np.float32)) for n in (program.constants.size, program.state, program.scratch)
        ]
        self._memories[0][:] = program.constants
        self._outputs: list[np.ndarray] = []
        self._call(program.reset, np.zeros(self._hop, np.float32))()

    def prepare(self, x: np.ndarray) -> Callable[[], None]:
        """A call of the C for these samples, all of whose arguments are made already."""
        return self._call(self._words, x)

    def _call(self, words: np.ndarray, x: np.ndarray) -> Callable[[], None]:
        out = np.zeros_like(x)
        self._outputs.append(out)
        at = [ctypes.c_void_p(a.ctypes.data) for a in (words, *self._memories, x, out)]
        numbers = [ctypes.c_int(n) for n in (len(words), len(x) // self._hop, self._hop)]
        return functools.partial(self._library.setk_run, at[0], numbers[0], *at[1:], *numbers[1:])


def _aligned(x: np.ndarray) -> np.ndarray:
    space = np.zeros(len(x) + 16, np.float32)
    first = -space.ctypes.data // 4 % 16
    return space[first : first + len(x)]


def libraries(names: list[str], folder: str) -> dict[str, ctypes.CDLL]:
    found = {}
    for name in names:
        out = Path(folder) / f"{name}.so"
        source = Path(translate.__code__.co_filename).with_name("native.c")
        subprocess.run(
            [*compiler(), "-O3", "-std=gnu99", "-shared", "-fPIC", *FLAGS[name], str(source), "-o", str(out)],
            check=True,
        )
        found[name] = ctypes.CDLL(str(out))
    return found


def builds() -> list[str]:
    """Those that this processor runs, or what SETK_BENCH lists."""
    if "SETK_BENCH" in os.environ:
        return os.environ["SETK_BENCH"].split(",")
    features = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return [
        "scalar",
        "sse2",
        *(name for name, flag in (("avx2", " avx2 "), ("avx512", " avx512dq ")) if flag in features),
    ]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help=".onnx files of se-quant export")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    print("model", "engine", "least_us", "median_us", "ratio", sep="\t")
    with tempfile.TemporaryDirectory(prefix="setk_bench_") as folder:
        compiled = libraries(builds(), folder)
        for path in options.models:
            engine = OnnxEngine(path)
            hop = engine.transform.hop
            programs = {name: Program(path, library) for name, library in compiled.items()}
            stream = Stream(engine, engine.sample_rate, 1)
            noise = (0.1 * np.random.default_rng(0).standard_normal(HOPS * hop)).astype(np.float32)
            hops = np.split(noise, HOPS)
            calls: dict[str, list[Callable[[], object]]] = {
                "onnx": [functools.partial(stream.push, x[None]) for x in hops]
            }
            calls |= {name: [program.prepare(x) for x in hops] for name, program in programs.items()}
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(options.rounds):
                for name in times:
                    times[name] += [_seconds(call) for call in calls[name]]
            least = {name: min(values) for name, values in times.items()}
            for name, values in times.items():
                print(
                    path.stem,
                    name,
                    f"{1e6 * least[name]:.1f}",
                    f"{1e6 * statistics.median(values):.1f}",
                    f"{least[name] / least['onnx']:.3f}",
                    sep="\t",
                )


if __name__ == "__main__":
    main()
