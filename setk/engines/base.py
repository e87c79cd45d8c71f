"""The interface of every engine: a loaded model that runs a few frames at a time."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import numpy as np

from setk.audio.stft import Transform


class Engine(Protocol):
    """A loaded model: `run(frames float32 [C, T, *shape], state)` returns as many frames and the next state.

    `frames` is the T that the engine is made for, None for any; a last, shorter piece is always accepted. A state
    belongs to the engine and may be changed in place. `run` with `active` [C] leaves the state of the other channels
    unchanged, and their output is undefined; `restart` resets one channel to the start. Files are processed `chunk_s`
    seconds at a time; for a model that is not `causal` these are windows that overlap, and a shorter signal is one window.
    """

    name: str
    sha256: str
    sample_rate: int
    transform: Transform
    lookahead: int
    frames: int | None
    causal: bool
    chunk_s: float

    def start(self, channels: int) -> Any: ...

    def run(self, frames: np.ndarray, state: Any, active: np.ndarray | None = None) -> tuple[np.ndarray, Any]: ...

    def restart(self, state: Any, channel: int) -> None: ...


def first_state(start: float | str, shape: tuple[int, ...]) -> np.ndarray:
    """The state of one signal before its first frame, as se-quant export stored it."""
    if isinstance(start, str):
        return np.frombuffer(base64.b64decode(start), np.float32).reshape(shape)
    return np.full(shape, start, np.float32)


def latency_ms(engine: Engine) -> float | None:
    """Algorithmic latency in ms: window, look-ahead, and the frames that one call needs; None if not causal."""
    if not engine.causal:
        return None
    return 1000 * engine.transform.latency(engine.lookahead + (engine.frames or 1) - 1) / engine.sample_rate


def frames_in(engine: Engine, seconds: float) -> int:
    """The number of frames in `seconds` of audio, at least one."""
    return max(1, round(seconds * engine.sample_rate / engine.transform.hop))


def whole_chunk(engine: Engine, chunk: int) -> int:
    """`chunk` frames, rounded up to a multiple of what the engine is made for."""
    least = engine.frames or 1
    return -(-chunk // least) * least
