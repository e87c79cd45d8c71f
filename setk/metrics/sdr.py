"""Scale-invariant ratio of signal to distortion.

Conventions
-----------
Decibels; zero-mean: gain and constant offset of either signal do not matter.

Metrics
-------
si_sdr: J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey, "SDR - half-baked or well done?", ICASSP 2019.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from setk.metrics.metric import Metric, Scores, silence, undefined

# An estimate equal to the reference would be at infinity, and one such file would make every mean infinite.
# 16-bit rounding of a full-scale signal is at 98 dB, so that values beyond this say nothing about speech.
LIMIT_DB = 100.0

METRICS = (
    Metric(
        "si_sdr",
        "scale-invariant signal-to-distortion ratio, zero-mean, dB",
        "-100 ... 100, clipped there",
        "Le Roux, Wisdom, Erdogan, Hershey, ICASSP 2019",
    ),
    Metric(
        "si_sdri",
        "gain in si_sdr over the noisy signal, dB",
        "-200 ... 200",
        "Le Roux, Wisdom, Erdogan, Hershey, ICASSP 2019",
        gain_of="si_sdr",
    ),
)


def compute(ref: np.ndarray, est: np.ndarray, rate: int, names: Sequence[str]) -> Scores:
    """si_sdr of `est` [n] against `ref` [n]; see setk.metrics."""
    if reason := silence(ref, est):
        return undefined(names, reason)
    return {"si_sdr": si_sdr(ref, est)}, {}


def snr(ref: np.ndarray, est: np.ndarray) -> float:
    """dB of `ref` over what `est` differs from it by, level included; infinite where both are the same."""
    signal, error = (float(np.square(x, dtype=np.float64).sum()) for x in (ref, est - ref))
    with np.errstate(divide="ignore"):
        return float("inf") if error == 0 else float(10 * np.log10(signal / error))


def si_sdr(ref: np.ndarray, est: np.ndarray) -> float:
    """Le Roux (2), dB, within +-LIMIT_DB; neither signal [n] may be constant."""
    # Both are brought to a peak near 1 first, so that very quiet signals do not underflow when squared.
    ref = ref / np.abs(ref).max()
    est = est / np.abs(est).max()
    ref = ref - ref.mean()
    est = est - est.mean()
    # np.sum, not @: the last digits of BLAS change with its number of threads.
    target = np.sum(est * ref) / np.sum(ref * ref) * ref
    signal, distortion = np.sum(target**2), np.sum((est - target) ** 2)
    floor = 10 ** (-LIMIT_DB / 10) * (signal + distortion)
    return float(np.clip(10 * np.log10(max(signal, floor) / max(distortion, floor)), -LIMIT_DB, LIMIT_DB))
