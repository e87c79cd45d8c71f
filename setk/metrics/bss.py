"""Signal-to-distortion ratio of BSS-eval.

Conventions
-----------
Decibels. What a filter of 512 taps can make of the reference counts as signal, the rest of the estimate as
distortion, so that a delay, a gain or a smooth equalisation of the estimate is forgiven: values are above
those of si_sdr. The mean is not removed. Agrees with mir_eval's `bss_eval_sources` for one source.

Metrics
-------
sdr: E. Vincent, R. Gribonval, C. Fevotte, "Performance Measurement in Blind Audio Source Separation", IEEE
     TASLP 14(4), 2006, with time-invariant filters (section II-B).
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from setk.metrics.metric import Metric, Scores, silence, undefined
from setk.metrics.sdr import LIMIT_DB

TAPS = 512
SHORTEST = 2 * TAPS  # samples; a filter nearly as long as the signal turns any signal into any other
_SOURCE = "Vincent, Gribonval, Fevotte, TASLP 2006"

METRICS = (
    Metric("sdr", "BSS-eval signal-to-distortion ratio, 512 taps, dB", "-100 ... 100, clipped there", _SOURCE),
    Metric("sdri", "gain in sdr over the noisy signal, dB", "-200 ... 200", _SOURCE, gain_of="sdr"),
)


def compute(ref: np.ndarray, est: np.ndarray, rate: int, names: Sequence[str]) -> Scores:
    """sdr of `est` [n] against `ref` [n]; see setk.metrics."""
    if reason := silence(ref, est):
        return undefined(names, reason)
    if len(ref) < SHORTEST:
        return undefined(names, f"{len(ref) / rate:.3f} s is too short: {SHORTEST} samples are needed")
    return {"sdr": sdr(ref, est)}, {}


def sdr(ref: np.ndarray, est: np.ndarray) -> float:
    """SDR, dB, within +-LIMIT_DB; neither signal [n] may be zero."""
    # Neither signal's level matters, and very quiet ones must not underflow when squared.
    ref, est = ref / np.abs(ref).max(), est / np.abs(est).max()
    size = _fast_length(len(ref) + TAPS - 1)
    reference, estimate = np.fft.rfft(ref, size), np.fft.rfft(est, size)
    own = np.fft.irfft(reference.real**2 + reference.imag**2, size)[:TAPS]
    cross = np.fft.irfft(reference.conj() * estimate, size)[:TAPS]
    target = np.fft.irfft(reference * np.fft.rfft(solve_toeplitz(own, cross), size), size)
    distortion = -target
    distortion[: len(est)] += est
    signal, error = np.sum(target**2), np.sum(distortion**2)
    floor = 10 ** (-LIMIT_DB / 10) * (signal + error)
    return float(np.clip(10 * math.log10(max(signal, floor) / max(error, floor)), -LIMIT_DB, LIMIT_DB))


def solve_toeplitz(r: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x of T x = b for the symmetric Toeplitz matrix T with first row r [k]; of least squares where T is singular."""
    matrix = sliding_window_view(np.concatenate([r[:0:-1], r]), len(r))[::-1]
    try:
        return np.linalg.solve(matrix, b)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, b)[0]


def _fast_length(n: int) -> int:
    """The least of 2^k, 3 2^k, 5 2^k, 9 2^k, 15 2^k from `n` up: lengths that an FFT is fast at."""
    return min(factor << max(0, math.ceil(math.log2(n / factor))) for factor in (1, 3, 5, 9, 15))
