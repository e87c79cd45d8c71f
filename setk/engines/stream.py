"""Streams: audio in blocks of any size at any rate to enhanced audio, sample-aligned with it.

Files, lists and live pipes all pass through a stream: a file is a stream with long chunks.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Iterable

import numpy as np

from setk.audio.resample import StreamResampler
from setk.audio.stft import StreamTransform
from setk.engines.base import Engine, whole_chunk
from setk.engines.highband import HighBand
from setk.engines.output import Limiter, Output


_log = logging.getLogger("setk")


class Signal:
    """One input of C channels around a model: resampled, cut into frames, and back.

    feed(x float32 [C, n]) accepts samples, and end() marks the end of the input; take(count) returns at most `waiting`
    frames, and give(frames) turns the model's output of them into samples, in the same order. Over all calls as many
    samples come out as went in, aligned with them; then `done` is true.
    """

    def __init__(self, engine: Engine, rate: int, channels: int, output: Output = Output()):
        self.lookahead = self._early = engine.lookahead  # outputs that belong to frames before the first
        self._transform = StreamTransform(engine.transform, channels)
        self._waiting = np.zeros((channels, 0, *engine.transform.shape), np.float32)
        self._seen = self._given = 0
        self._down, down_s = _resampler(rate, engine.sample_rate, channels)
        self._up, up_s = _resampler(engine.sample_rate, rate, channels)
        self.delay_s = down_s + up_s  # of the resamplers
        self._highband = None
        if output.highband == "gain" and rate > engine.sample_rate:
            up, _ = _resampler(engine.sample_rate, rate, channels)
            self._highband = HighBand(rate, engine.sample_rate, channels, up)
        self._limiter = None if output.limit_db is None else Limiter(output.limit_db, channels)
        self.ended = self.done = False

    @property
    def waiting(self) -> int:
        return self._waiting.shape[1]

    def feed(self, x: np.ndarray) -> None:
        self._seen += x.shape[1]
        if self._limiter:
            self._limiter.feed(x)
        low = self._down(x, False)
        if self._highband:
            self._highband.feed(x, low)
        frames = self._transform.analysis(low)
        self._waiting = np.concatenate([self._waiting, frames], axis=1) if self.waiting else frames

    def end(self) -> None:
        nothing = np.zeros((len(self._waiting), 0), np.float32)
        rest = self._down(nothing, True)
        if self._highband:
            self._highband.feed(nothing, rest)
        silence = np.zeros((len(self._waiting), self.lookahead, *self._waiting.shape[2:]), np.float32)
        self._waiting = np.concatenate(
            [self._waiting, self._transform.analysis(rest), self._transform.flush(), silence], axis=1
        )
        self.ended = True

    def take(self, count: int) -> np.ndarray:
        """[C, t, *shape], t at most `count`."""
        taken, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        return taken

    def give(self, frames: np.ndarray) -> np.ndarray:
        """Samples [C, n] that are final now; after the end and the last frame, all remaining ones."""
        last = self.ended and not self.waiting
        early = min(self._early, frames.shape[1])
        self._early -= early
        enhanced = self._transform.synthesis(frames[:, early:])
        y = self._up(enhanced, last)[:, : self._seen - self._given]
        self._given += y.shape[1]
        if last:
            y = np.pad(y, ((0, 0), (0, self._seen - self._given)))  # the two resamplers may round a sample away
            self.done = True
        if self._highband:
            y = self._highband.add(y, enhanced, last)
        return self._limiter.mix(y) if self._limiter else y


class Guard:
    """Keeps a value that is not finite out of what a model remembers, where it would spoil all that follows.

    Such a channel starts again, its input is the output of these frames, and the logger "setk" warns once.
    """

    def __init__(self, engine: Engine):
        self._engine, self.restarted = engine, False

    def check(self, out: np.ndarray, frames: np.ndarray, state: Any, rows: Iterable[int] | None = None) -> np.ndarray:
        """The model's output [C, t, *shape] of `frames`, made finite in place; `rows`: the channels that ran (None: all)."""
        if np.isfinite(out).all():
            return out
        for row in range(len(out)) if rows is None else rows:
            if np.isfinite(out[row]).all():
                continue
            out[row] = frames[row]
            if self._engine.causal:
                self._engine.restart(state, row)
            if not self.restarted:
                self.restarted = True
                _log.warning("%s: NaN or infinite output; the model starts again", self._engine.name)
        return out


class Stream:
    """Enhance C channels of audio at `rate` Hz in blocks: push(x float32 [C, n]) and flush() return [C, m].

    The model always runs on `chunk` frames at a time (fewer only at the end), so the output does not depend on
    how the input was cut; `chunk` is rounded up to a multiple of the engine's frames. `latency_ms`: the algorithmic
    latency, the wait for a chunk to fill, and what the resamplers hold back (14 ms above the model's 16 kHz, 28 ms at 8 kHz).
    """

    def __init__(self, engine: Engine, rate: int, channels: int, chunk: int = 1, output: Output = Output()):
        self.engine, self.chunk = engine, whole_chunk(engine, chunk)
        self._signal, self._state = Signal(engine, rate, channels, output), engine.start(channels)
        frames_s = engine.transform.latency(engine.lookahead + self.chunk - 1) / engine.sample_rate
        self.latency_ms = 1000 * (frames_s + self._signal.delay_s)
        self._nothing, self._guard = np.zeros((channels, 0), np.float32), Guard(engine)

    @property
    def restarted(self) -> bool:
        """Whether the model has put out NaN or infinite values, and started again."""
        return self._guard.restarted

    def push(self, x: np.ndarray) -> np.ndarray:
        self._signal.feed(x)
        return self._advance()

    def flush(self) -> np.ndarray:
        self._signal.end()
        return self._advance()

    def _advance(self) -> np.ndarray:
        done = []
        while not self._signal.done and self._ready():
            done.append(self._signal.give(self._next()))
        return done[0] if len(done) == 1 else np.concatenate(done, axis=1) if done else self._nothing

    def _ready(self) -> bool:
        return self._signal.waiting >= self.chunk or self._signal.ended

    def _next(self) -> np.ndarray:
        """The model's output for the next frames."""
        frames = np.ascontiguousarray(self._signal.take(self.chunk))
        if frames.shape[1]:  # nothing went in, nothing is left
            out, self._state = self.engine.run(frames, self._state)
            return self._guard.check(out, frames, self._state)
        return frames


def _resampler(source: int, target: int, channels: int) -> tuple[Callable[[np.ndarray, bool], np.ndarray], float]:
    """push(x [C, n], last) -> [C, m], and the seconds by which that is late."""
    if source == target:
        return lambda x, last: x, 0.0
    resampler = StreamResampler(source, target, channels)
    return resampler.push, resampler.delay_s
