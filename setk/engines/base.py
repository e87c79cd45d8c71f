"""What every engine is: a loaded model that runs some frames at a time."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import numpy as np

from setk.audio.stft import Transform


class Engine(Protocol):
    """A loaded model: `run(frames float32 [C, T, *shape], state)` gives as many frames and the next state.

    `frames` is the T that the engine is made for, None for any; a last, shorter piece is always taken. A state
    belongs to the engine and may be changed in place. `run` with `active` [C] leaves the state of the others as
    it was, and their output is of no use; `restart` puts one channel back to the start. Files are taken `chunk_s`
    seconds at a time; for one that is not `causal` these are windows that overlap, and a shorter signal is taken whole.
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
    """The state of one signal before its first frame, as se-quant export put it down."""
    if isinstance(start, str):
        return np.frombuffer(base64.b64decode(start), np.float32).reshape(shape)
    return np.full(shape, start, np.float32)


def frames_in(engine: Engine, seconds: float) -> int:
    """Frames of so much audio, at the least one."""
    return max(1, round(seconds * engine.sample_rate / engine.transform.hop))


def whole_chunk(engine: Engine, chunk: int) -> int:
    """`chunk` frames, rounded up to what the engine takes."""
    least = engine.frames or 1
    return -(-chunk // least) * least
