"""setk/native/live.h from Python: a live stream at any rate around a program."""

from __future__ import annotations

import ctypes

import numpy as np

from setk.native import kernels
from setk.native.program import Program

BLOCK = 128  # samples that a call accepts


class LiveStream:
    """`run(x)` returns the enhanced samples and the delayed input, both [n] and aligned with x; one signal for each object."""

    def __init__(self, program: Program, hop: int, delay: int, rate: int, model_rate: int):
        library, pointer, number = kernels.library(), ctypes.c_void_p, ctypes.c_int
        library.setk_live_start.argtypes = [pointer, *[number] * 4, pointer, number, *[pointer] * 3]
        library.setk_live.argtypes = [*[pointer] * 4, number]
        self._process = library.setk_live
        self._kept = kernels.Machine(program, hop, library), program
        self._memory = kernels.aligned(library.setk_live_floats(rate, model_rate, hop, delay))
        self._constants, self._scratch = kernels.aligned(program.constants.size), kernels.aligned(program.scratch)
        self._constants[:] = program.constants
        self._state = self._kept[0].start()
        self.delay = library.setk_live_start(
            self._memory.ctypes.data,
            rate,
            model_rate,
            hop,
            delay,
            program.words.ctypes.data,
            len(program.words),
            *(x.ctypes.data for x in (self._constants, self._state, self._scratch)),
        )

    def run(self, x: np.ndarray, sizes: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of 128 samples, or of random sizes."""
        x = np.concatenate([x, np.zeros(self.delay)]).astype(np.float32)
        wet, dry = np.empty_like(x), np.empty_like(x)
        at = 0
        while at < len(x):
            count = min(len(x) - at, BLOCK if sizes is None else int(sizes.integers(1, BLOCK + 1)))
            self._process(self._memory.ctypes.data, *(a[at:].ctypes.data for a in (x, wet, dry)), count)
            at += count
        return wet[self.delay :], dry[self.delay :]
