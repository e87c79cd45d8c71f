"""Several signals that advance in one call of an engine."""

from __future__ import annotations

import numpy as np

from setk.engines.base import Engine, whole_chunk
from setk.engines.stream import Guard, Signal


class Batch:
    """Up to `size` mono signals that advance in one call of the engine, each at its own position in time.

    `slots` holds Signals or None; put(signal) uses a free slot. advance() runs the signals that have `chunk`
    frames waiting, or have ended, and returns (signal, samples) of each; finished ones leave their slot.
    """

    def __init__(self, engine: Engine, size: int, chunk: int = 1):
        self.engine, self.chunk = engine, whole_chunk(engine, chunk)
        self.slots: list[Signal | None] = [None] * size
        self._state, self._guard = engine.start(size), Guard(engine)
        self._frames = np.zeros((size, self.chunk, *engine.transform.shape), np.float32)

    def put(self, signal: Signal) -> None:
        slot = self.slots.index(None)
        self.slots[slot] = signal
        self.engine.restart(self._state, slot)

    def drop(self, signal: Signal) -> None:
        self.slots[self.slots.index(signal)] = None

    def ready(self, signal: Signal) -> bool:
        return signal.waiting >= self.chunk or signal.ended

    def advance(self) -> list[tuple[Signal, np.ndarray]]:
        ready = [s is not None and self.ready(s) for s in self.slots]
        if not any(ready):
            return []
        counts = {}
        for row, signal in enumerate(self.slots):
            if ready[row]:
                taken = signal.take(self.chunk)[0]
                counts[row] = len(taken)
                self._frames[row, : len(taken)], self._frames[row, len(taken) :] = taken, 0
        out, self._state = self.engine.run(self._frames, self._state, np.array(ready))
        self._guard.check(out, self._frames, self._state, counts)
        done = []
        for row, count in counts.items():
            signal = self.slots[row]
            done.append((signal, signal.give(out[row : row + 1, :count])))
            if signal.done:
                self.slots[row] = None
        return done
