"""The compiled kernels: one build for each width of vector, of which the processor chooses. They are optional (see setup.py)."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import threading

import numpy as np

from setk.native.program import Program

BUILDS = ("base", "avx2", "avx512")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The build that suits this processor, or None where the kernels were not built."""
    base = _load("base")
    if base is None:
        return None
    for name in reversed(BUILDS[: base.setk_level() + 1]):
        if (found := _load(name)) is not None:
            return found
    return base


def _load(name: str) -> ctypes.CDLL | None:
    spec = importlib.util.find_spec(f"setk.native._kernels_{name}")
    if spec is None:
        return None
    found = ctypes.CDLL(spec.origin)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    found.setk_run.argtypes = [pointer, number, pointer, pointer, pointer, pointer, pointer, number, number]
    found.setk_run.restype = None
    return found


class Scratch(threading.local):
    """Memory that a call uses and leaves behind: float32 [size] of each thread, as calls of several threads overlap."""

    def __init__(self, size: int):
        self.memory = aligned(size)


class Machine:
    """A program with its constants. A state belongs to one signal; threads may run different states at once."""

    def __init__(self, program: Program, hop: int, kernels: ctypes.CDLL):
        self._program, self._hop, self._run = program, hop, kernels.setk_run
        self._constants, self._scratch = aligned(program.constants.size), Scratch(program.scratch)
        self._constants[:] = program.constants

    def start(self) -> np.ndarray:
        """The state before the first sample."""
        state = aligned(self._program.state)
        self.restart(state)
        return state

    def restart(self, state: np.ndarray) -> None:
        nothing = np.zeros(1, np.float32)
        self._call(self._program.reset, state, nothing, nothing, 1)

    def run(self, samples: np.ndarray, state: np.ndarray) -> np.ndarray:
        """What the program makes of samples [n], float32, n whole hops; the state moves on."""
        out = np.empty_like(samples)
        self._call(self._program.words, state, samples, out, len(samples) // self._hop)
        return out

    def _call(self, words: np.ndarray, state: np.ndarray, samples: np.ndarray, out: np.ndarray, hops: int) -> None:
        self._run(
            words.ctypes.data,
            len(words),
            self._constants.ctypes.data,
            state.ctypes.data,
            self._scratch.memory.ctypes.data,
            samples.ctypes.data,
            out.ctypes.data,
            hops,
            self._hop,
        )


def aligned(size: int) -> np.ndarray:
    """Zeros, float32 [size], at a multiple of 64 bytes."""
    space = np.zeros(size + 16, np.float32)
    first = -space.ctypes.data // 4 % 16
    return space[first : first + size]
