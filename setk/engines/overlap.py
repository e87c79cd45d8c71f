"""Overlapping windows of a long signal, for models that are not causal."""

from __future__ import annotations

import numpy as np

from setk.engines.base import Engine, frames_in
from setk.engines.output import Output
from setk.engines.stream import Stream


class Overlapped(Stream):
    """A stream for a model that is not causal: windows of `chunk` frames that share an eighth, where the output cross-fades
    linearly from one to the next. A signal no longer than a window is one window; the last window of a longer one is as
    long as the others.
    """

    def __init__(self, engine: Engine, rate: int, channels: int, chunk: int, output: Output = Output()):
        super().__init__(engine, rate, channels, chunk, output)
        self._overlap = self.chunk // 8
        self._seen = self._tail = None  # the last window's input, and its output that the next one shares

    def _ready(self) -> bool:
        # One frame more than a window: what is left for the last is never nothing.
        return self._signal.waiting > self._new or self._signal.ended

    @property
    def _new(self) -> int:
        """Frames that the next window does not share with the last."""
        return self.chunk if self._seen is None else self.chunk - self._overlap

    def _next(self) -> np.ndarray:
        taken = self._signal.take(self._new)
        if not taken.shape[1]:
            return taken
        if self._seen is None:
            window, shared = taken, 0
        else:
            window, shared = np.concatenate([self._seen[:, taken.shape[1] :], taken], 1), self._overlap
        out, state = self.engine.run(np.ascontiguousarray(window), ())
        out = self._guard.check(out, window, state)
        out = out[:, out.shape[1] - taken.shape[1] - shared :]
        if shared:
            part = (np.arange(1, shared + 1, dtype=np.float32) / (shared + 1)).reshape(-1, *(1,) * (out.ndim - 2))
            out = np.concatenate([self._tail + part * (out[:, :shared] - self._tail), out[:, shared:]], 1)
        if self._signal.ended and not self._signal.waiting:
            return out
        self._seen, self._tail = window, out[:, out.shape[1] - self._overlap :]
        return out[:, : out.shape[1] - self._overlap]


def open_stream(engine: Engine, rate: int, channels: int, seconds: float, output: Output = Output()) -> Stream:
    """The stream for an engine: `channels` at `rate` Hz, `seconds` of audio (at least one frame) at a time."""
    return (Stream if engine.causal else Overlapped)(engine, rate, channels, frames_in(engine, seconds), output)
