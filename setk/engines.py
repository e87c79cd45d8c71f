"""Engines: what runs a model a chunk at a time, behind one interface, and the stream that feeds it.

A `Stream` takes audio in pieces of any size at any rate and gives enhanced audio, sample-aligned with what it
took. Files, lists and live pipes all go through it: a file is a stream with long chunks.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from setk.dsp import StreamTransform, Transform


class Engine(Protocol):
    """A loaded model: `run(frames float32 [C, T, *shape], state)` gives as many frames and the next state."""

    name: str
    sha256: str
    sample_rate: int
    latency_ms: float
    transform: Transform
    lookahead: int

    def start(self, channels: int) -> Any: ...

    def run(self, frames: np.ndarray, state: Any) -> tuple[np.ndarray, Any]: ...


class TorchEngine:
    """A checkpoint in torch, one compute thread."""

    def __init__(self, spec: str):
        import torch

        from setk import checkpoint

        torch.set_num_threads(1)
        self.model, about = checkpoint.load(checkpoint.find(spec))
        self.name, self.sha256 = about["model"], about["sha256"]
        self.sample_rate, self.latency_ms = self.model.sample_rate, self.model.latency_ms
        self.transform, self.lookahead = self.model.transform, self.model.lookahead

    def start(self, channels: int) -> Any:
        return self.model.init_state(channels)

    def run(self, frames: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        import torch

        with torch.inference_mode():
            y, state = self.model(torch.from_numpy(frames), state)
        return y.numpy(), state


def open_engine(spec: str) -> Engine:
    """The engine for MODEL: a checkpoint's path or the name of a model that ships. Raises UserError."""
    return TorchEngine(spec)


class Stream:
    """Enhance C channels of audio at `rate` Hz, fed in pieces.

    push(x float32 [C, n]) -> [C, m] and flush() -> [C, m]; over all calls as many samples come out as went in,
    aligned with them. The model always runs on `chunk` frames at a time (fewer only at the end), so the output
    does not depend on how the input was cut. Delay: `delay` samples at `rate`.
    """

    def __init__(self, engine: Engine, rate: int, channels: int, chunk: int = 1):
        self.engine, self.chunk = engine, chunk
        self.delay = round(rate * (engine.latency_ms / 1000 + (chunk - 1) * engine.transform.hop / engine.sample_rate))
        self._transform = StreamTransform(engine.transform, channels)
        self._state = engine.start(channels)
        self._waiting = np.zeros((channels, 0, *engine.transform.shape), np.float32)
        self._seen = self._given = 0
        self._early = engine.lookahead  # outputs that belong to frames before the first
        self._down = _resampler(rate, engine.sample_rate, channels)
        self._up = _resampler(engine.sample_rate, rate, channels)

    def push(self, x: np.ndarray) -> np.ndarray:
        self._seen += x.shape[1]
        y = self._process(self._transform.analysis(self._down(x, False)), False)
        return self._give(self._up(y, False))

    def flush(self) -> np.ndarray:
        rest = self._down(np.zeros((len(self._waiting), 0), np.float32), True)
        silence = np.zeros((len(self._waiting), self.engine.lookahead, *self.engine.transform.shape), np.float32)
        frames = np.concatenate([self._transform.analysis(rest), self._transform.flush(), silence], axis=1)
        y = self._give(self._up(self._process(frames, True), True))
        short = self._seen - self._given  # the two resamplers may round a sample away
        self._given = self._seen
        return np.pad(y, ((0, 0), (0, short)))

    def _process(self, frames: np.ndarray, last: bool) -> np.ndarray:
        self._waiting = np.concatenate([self._waiting, frames], axis=1)
        done = []
        while self._waiting.shape[1] >= self.chunk or (last and self._waiting.shape[1]):
            y, self._state = self.engine.run(np.ascontiguousarray(self._waiting[:, :self.chunk]), self._state)
            self._waiting = self._waiting[:, self.chunk:]
            early = min(self._early, y.shape[1])
            self._early -= early
            done.append(self._transform.synthesis(y[:, early:]))
        return np.concatenate(done, axis=1) if done else np.zeros((len(frames), 0), np.float32)

    def _give(self, y: np.ndarray) -> np.ndarray:
        y = y[:, :self._seen - self._given]
        self._given += y.shape[1]
        return y


def _resampler(source: int, target: int, channels: int):
    """A stateful resampler (x [C, n], last) -> [C, m] without clicks at the borders of pieces."""
    if source == target:
        return lambda x, last: x
    import soxr

    stream = soxr.ResampleStream(source, target, channels, dtype="float32", quality="VHQ")

    def push(x: np.ndarray, last: bool) -> np.ndarray:
        y = stream.resample_chunk(np.ascontiguousarray(x.T), last=last)
        return np.ascontiguousarray(y.reshape(-1, channels).T)

    return push
