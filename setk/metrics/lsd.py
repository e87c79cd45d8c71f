"""Log-spectral distance.

Conventions
-----------
Decibels; lower is closer, a copy is at 0. Level matters. Hann frames of 32 ms every 8 ms. Both spectra are
raised to a floor 50 dB below the strongest point of the reference's, so that what nobody hears does not
decide. Many definitions are about (natural logarithms, no floor, levels matched first): compare only numbers
of one.

Metrics
-------
lsd: I. Cohen, S. Gannot, "Spectral Enhancement Methods", Springer Handbook of Speech Processing, 2008, chapter
     44; R. M. Gray et al., "Distortion Measures for Speech Processing", IEEE TASSP 28(4), 1980.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from setk.metrics.metric import Metric, Scores, silence, undefined

FRAME, OVERLAP = 0.032, 4  # s; frames that a sample is in
RANGE_DB = 50.0
_FRAMES = 64  # taken at a time

METRICS = (
    Metric(
        "lsd",
        "log-spectral distance above -50 dB, dB",
        "0 ...",
        "Cohen, Gannot, Handbook of Speech Processing, 2008",
        lower_is_better=True,
    ),
)


def compute(ref: np.ndarray, est: np.ndarray, rate: int, names: Sequence[str]) -> Scores:
    """lsd of `est` [n] against `ref` [n]; see setk.metrics."""
    if reason := silence(ref, est):
        return undefined(names, reason)
    length = OVERLAP * max(1, round(FRAME / OVERLAP * rate))
    if len(ref) < length:
        return undefined(names, f"{len(ref) / rate:.3f} s is too short: {length / rate:.3f} s are needed")
    value = lsd(ref, est, length)
    return undefined(names, "the reference is silent in every frame") if math.isnan(value) else ({"lsd": value}, {})


def lsd(ref: np.ndarray, est: np.ndarray, length: int) -> float:
    """Mean over frames of `length` samples of the root mean square difference of levels, dB; nan where the reference
    has no energy in any of them."""
    scale = np.abs(ref).max()  # squares of very quiet signals would underflow
    frames = sliding_window_view(np.stack([ref, est]) / scale, length, axis=1)[:, :: length // OVERLAP]
    power = np.empty((*frames.shape[:2], length // 2 + 1))
    window = np.hanning(length + 1)[:-1]
    for start in range(0, frames.shape[1], _FRAMES):
        part = slice(start, start + _FRAMES)
        spectrum = np.fft.rfft(frames[:, part] * window)
        power[:, part] = spectrum.real**2 + spectrum.imag**2
    floor = 10 ** (-RANGE_DB / 10) * power[0].max()
    if not floor:
        return math.nan
    level = 10 * np.log10(np.maximum(power, floor))
    return float(np.sqrt(((level[0] - level[1]) ** 2).mean(axis=1)).mean())
