"""Levels, estimated SNR, noise reduction and speech activity of a signal, from the input and the output of an enhancement.

The rule, per frame of 100 ms, with mean squares over time and channels of the input x, the output y and what was removed, x - y:

    input_dbfs    10 log10 x^2, full scale being 1
    snr_db        10 log10 (y^2 / (x - y)^2): the output counts as speech, what was removed as noise
    reduction_db  10 log10 (x^2 / y^2)
    speech        1 if the output is less than 30 dB below its recent peak and snr_db is above -15 dB
    speech_score  the smaller of two logistic functions (3 dB) of the distances to these limits; 0.5 is the decision

The recent peak is the largest output level so far, which falls by 1 dB per second to not less than -60 dBFS; it starts at -50 dBFS.
No frame depends on a later one. Mean squares below 1e-10 count as 1e-10.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from setk.audio.wav import Info

FRAME_S = 0.1
MARGIN_DB, MIN_SNR_DB, SOFT_DB = 30.0, -15.0, 3.0
FIRST_PEAK_DB, LOWEST_PEAK_DB, DECAY_DB_PER_S = -50.0, -60.0, 1.0
REFERENCE_DB = 30.0
_SILENCE = 1e-10


class Frame(NamedTuple):
    """One row of the report: start in seconds, and the values above."""

    time: float
    input_dbfs: float
    snr_db: float
    reduction_db: float
    speech: int
    speech_score: float


class Analysis:
    """Frames of a signal that is being enhanced: start(info), add(input [C, n], output [C, n]), finish().

    `on_frame` is called with each Frame as soon as it is complete; finish() passes the last, shorter one.
    """

    def __init__(self, on_frame: Callable[[Frame], None]):
        self._on_frame = on_frame

    def start(self, info: Info) -> None:
        self._rate, self._size = info.rate, round(FRAME_S * info.rate)
        self._pending = np.zeros((2, info.channels, 0), np.float32)
        self._count, self._peak = 0, FIRST_PEAK_DB

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        signals = np.concatenate([self._pending, np.stack([x, y])], axis=2)
        complete = signals.shape[2] - signals.shape[2] % self._size
        for at in range(0, complete, self._size):
            self._pass(signals[:, :, at : at + self._size])
        self._pending = signals[:, :, complete:]

    def finish(self) -> None:
        if self._pending.shape[2]:
            self._pass(self._pending)

    def _pass(self, signals: np.ndarray) -> None:
        x, y = signals.astype(float)
        level_in, level_out, removed = (_level(v) for v in (x, y, x - y))
        self._peak = max(self._peak - DECAY_DB_PER_S * FRAME_S, level_out, LOWEST_PEAK_DB)
        snr = level_out - removed
        margin = min(level_out - (self._peak - MARGIN_DB), snr - MIN_SNR_DB)
        score = 1 / (1 + math.exp(-margin / SOFT_DB))
        time = self._count * self._size / self._rate
        self._count += 1
        self._on_frame(Frame(time, level_in, snr, level_in - level_out, int(margin > 0), score))


def analyze(x: np.ndarray, y: np.ndarray, rate: int) -> list[Frame]:
    """The frames of a complete signal: input and output [n] or [C, n] at `rate` Hz."""
    from setk.audio.wav import Info

    x, y = np.atleast_2d(x), np.atleast_2d(y)
    frames: list[Frame] = []
    analysis = Analysis(frames.append)
    analysis.start(Info(rate, len(x), x.shape[1]))
    analysis.add(x, y)
    analysis.finish()
    return frames


def reference(clean: np.ndarray, rate: int) -> np.ndarray:
    """Where a clean signal [n] has speech: bool [frames], true where the level of a frame is less than 30 dB below the
    loudest frame. Digital silence has no speech."""
    size = round(FRAME_S * rate)
    levels = np.array([_level(clean[at : at + size].astype(float)) for at in range(0, len(clean), size)])
    if not levels.size:
        return np.zeros(0, bool)
    return levels > max(levels.max() - REFERENCE_DB, _level(np.zeros(1)))


def _level(x: np.ndarray) -> float:
    return 10 * math.log10(max(float(np.mean(x * x)), _SILENCE))
