"""What `se-quant export` writes about a model into its file, checked before anything of the file runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Mapping

import numpy as np

from setk.audio import stft
from setk.audio.wav import MAX_RATE, MIN_RATE
from setk.core import config
from setk.core.errors import UserError
from setk.engines.base import first_state

FORMAT = 1
# Largest values that a file may state. Memory follows them; no model comes near.
MAX_WINDOW, MAX_FRAMES, MAX_BATCH, MAX_STATE = 1 << 16, 1 << 14, 1 << 12, 1 << 26


@dataclass(frozen=True)
class State:
    """A state tensor: the axis of the batch, and the shape and first value of one signal's part."""

    axis: int
    shape: tuple[int, ...]
    start: Any

    def first(self) -> np.ndarray:
        """The state of one signal before its first frame, float32 [*shape]."""
        return first_state(self.start, self.shape)


@dataclass(frozen=True)
class Description:
    """The facts that running a file depends on; see setk.export.onnx for what they are."""

    model: str
    sample_rate: int
    lookahead: int
    frames: int | None
    batch: int
    transform: dict[str, Any]
    state: tuple[State, ...]
    causal: bool = True
    chunk_s: float = 10.0

    def frame_shape(self, restored: stft.Transform) -> tuple[int | None, ...]:
        """Shape of one call's input; None where any number of frames is accepted."""
        return (self.batch, self.frames, *restored.shape)


def describe(about: Mapping[str, Any], where: str) -> tuple[Description, stft.Transform]:
    """Check what a file states. Raises UserError on another format, and on values that are missing, of another type or out of range."""
    if not isinstance(about, Mapping):
        raise UserError(f"{where}: its metadata is damaged (not a mapping); export it again")
    if about.get("format") != FORMAT:
        raise UserError(
            f"{where}: has export format {str(about.get('format'))[:20]}; this setk reads {FORMAT}; update setk"
        )
    try:
        known = {f.name: about[f.name] for f in fields(Description) if f.name in about}
        described = config.build(Description, known, "metadata")
        transform = stft.restore(described.transform)
        wrong = _out_of_range(described, transform)
        if not wrong:
            for state in described.state:
                state.first()
    except (UserError, ValueError, KeyError, TypeError, AttributeError, OverflowError, ZeroDivisionError) as e:
        raise UserError(
            f"{where}: its metadata is damaged ({type(e).__name__}: {' '.join(str(e).split())[:150]}); export it again"
        ) from None
    if wrong:
        raise UserError(f"{where}: its metadata is damaged ({wrong} is out of range); export it again")
    return described, transform


def _out_of_range(described: Description, transform: stft.Transform) -> str | None:
    """The first fact that no model has; None if all are possible."""
    points = getattr(transform, "points", transform.window)
    ranges = {
        "sample_rate": (described.sample_rate, MIN_RATE, MAX_RATE),
        "lookahead": (described.lookahead, 0, MAX_FRAMES),
        "frames": (1 if described.frames is None else described.frames, 1, MAX_FRAMES),
        "batch": (described.batch, 1, MAX_BATCH),
        "chunk_s": (described.chunk_s, 1e-3, 3600),
        "window": (transform.window, 1, MAX_WINDOW),
        "hop": (transform.hop, 1, transform.window),
        "fft": (points, 1, MAX_WINDOW),
        "power": (getattr(transform, "power", 1), 0, 10),
    }
    for name, (value, low, high) in ranges.items():
        if not isinstance(value, (int, float)) or not low <= value <= high:
            return name
    for state in described.state:
        if not 0 <= state.axis < len(state.shape) or min(state.shape) < 1 or math.prod(state.shape) > MAX_STATE:
            return "state"
    return None if described.causal or not described.state else "state"
