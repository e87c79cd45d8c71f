"""Measures over short frames, from one front end: segmental SNR, log-likelihood ratio, weighted spectral slope.

Conventions
-----------
As in Loizou's Matlab `composite.m`: Hann frames of 30 ms every 7.5 ms, the last one left out. The means of LLR
and WSS are over the best 95 % of the frames, that of the SNR over all. Level matters to ssnr and wss.

One departure: `composite.m` adds 2e-16 to every sample, so that LPC of digital silence gives some number made
of rounding. Here a frame where either signal has no energy has no LLR, and is left out of its mean. LPC of an
empty band is made of rounding too: score what was upsampled at its first rate.

Metrics
-------
ssnr: segmental SNR, each frame within -10 ... 35 dB.
      J. H. L. Hansen, B. L. Pellom, "An Effective Quality Evaluation Protocol for Speech Enhancement
      Algorithms", ICSLP 1998; Loizou, section 11.1.
llr:  log-likelihood ratio of LPC models, order 16, or 10 below 10 kHz. S. R. Quackenbush, T. P. Barnwell,
      M. A. Clements, "Objective Measures of Speech Quality", 1988; Loizou, section 11.1.
wss:  weighted spectral slope in 25 critical bands up to 3.8 kHz. D. H. Klatt, "Prediction of Perceived Phonetic
      Distance from Critical-Band Spectra: A First Step", ICASSP 1982; Loizou, section 11.1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from setk.metrics.metric import Metric, Scores, silence, undefined

FRAME, OVERLAP = 0.030, 4  # s; frames that a sample is in
LOWEST_DB, HIGHEST_DB = -10.0, 35.0  # of a frame's SNR
KEPT = 0.95  # of the frames, the best, in the means of LLR and WSS
LEAST_RATE = 8000  # Hz; the critical bands end at 3.8 kHz
_EPS = np.finfo(float).eps
_FLOOR = 1e-10  # of the energy in a critical band
_MAX_DB, _LOCAL_DB = 20.0, 1.0  # Klatt's Kmax and Klocmax
# An LPC model that predicts better than this would be made of rounding errors.
_LEAST_ERROR = 1e-13
_FRAMES = 64  # transformed at a time: the work stays in the cache, and a lecture does not need gigabytes
# fmt: off
# Centres and bandwidths of the critical bands, Hz.
_CENTRES = np.array([50, 120, 190, 260, 330, 400, 470, 540, 617.372, 703.378, 798.717, 904.128, 1020.38, 1148.30, 1288.72,
                     1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17, 3597.63])
_WIDTHS = np.array([70, 70, 70, 70, 70, 70, 70, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423, 153.823,
                    168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465, 346.136])
# fmt: on

_BOOK = "Loizou, Speech Enhancement: Theory and Practice, 2013, section 11.1, as composite.m has it"
METRICS = (
    Metric("ssnr", "segmental signal-to-noise ratio, dB", "-10 ... 35", _BOOK),
    Metric("llr", "log-likelihood ratio of LPC models", "0 ...", _BOOK, lower_is_better=True),
    Metric("wss", "weighted spectral slope distance", "0 ...", _BOOK, lower_is_better=True),
)


def compute(ref: np.ndarray, est: np.ndarray, rate: int, names: Sequence[str]) -> Scores:
    """ssnr, llr, wss of `est` [n] against `ref` [n]; see setk.metrics."""
    length = round(FRAME * rate)
    hop = length // OVERLAP
    if reason := silence(ref, est):
        return undefined(names, reason)
    if rate < LEAST_RATE:
        return undefined(
            names, f"is defined at {LEAST_RATE} Hz and above, not at {rate} Hz; se-score --rate {LEAST_RATE} resamples"
        )
    if len(ref) < length + hop:
        return undefined(names, f"{len(ref) / rate:.3f} s is too short: {(length + hop) / rate:.4f} s are needed")
    scores = {name: _mean(name, x) for name, x in frame_values(np.stack([ref, est]), rate, names).items()}
    return scores, {name: "in every frame one of the signals is silent" for name, x in scores.items() if math.isnan(x)}


def _mean(name: str, values: np.ndarray) -> float:
    """Mean over the frames [T] that have a value, for LLR and WSS over the best of them; nan if none has."""
    if name == "ssnr":
        return float(values.mean())
    values = np.sort(values[~np.isnan(values)])
    # Half a frame more is a frame, as Matlab rounds; Python would round to the even number.
    kept = math.floor(KEPT * len(values) + 0.5)
    return float(values[:kept].mean()) if kept else math.nan


def frame_values(x: np.ndarray, rate: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The measures `names` of each frame: name -> [T], for x [2, n], reference and estimate; llr nan in silence."""
    length = round(FRAME * rate)
    hop = length // OVERLAP
    count = (x.shape[1] - length) // hop
    frames = sliding_window_view(x, length, axis=1)[:, ::hop][:, :count]
    parts = [
        _front_end(frames[:, start : start + _FRAMES] * _window(length), rate, names)
        for start in range(0, count, _FRAMES)
    ]
    return {name: _MEASURES[name](*np.concatenate([part[name] for part in parts], axis=-1)) for name in names}


def _window(length: int) -> np.ndarray:
    """Hann window without its zeros, as Matlab's `hanning`."""
    return np.hanning(length + 2)[1:-1]


def _front_end(frames: np.ndarray, rate: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What measures are made of, name -> [2, k, T] ([2, T] for ssnr), for windowed frames [2, T, length].

    Frames are last: sums over bands or lags are then sums of long rows, which numpy does fast.
    """
    found = {}
    if "ssnr" in names:
        error = frames[0] - frames[1]
        found["ssnr"] = np.stack([np.einsum("tn,tn->t", x, x) for x in (frames[0], error)])
    if "llr" in names or "wss" in names:
        nfft = 1 << (2 * frames.shape[2] - 1).bit_length()
        spectrum = np.fft.rfft(frames, nfft)
        power = spectrum.real**2 + spectrum.imag**2
        matrices = {"llr": _lags(nfft, 16 if rate >= 10_000 else 10), "wss": _critical_bands(rate, nfft)}
        found |= {name: (power @ matrix).swapaxes(1, 2) for name, matrix in matrices.items() if name in names}
    return found


def ssnr(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """SNR [T] of the energies [T] of frames, dB, clipped."""
    return np.clip(10 * np.log10(signal / (noise + _EPS) + _EPS), LOWEST_DB, HIGHEST_DB)


@lru_cache(maxsize=4)
def _lags(nfft: int, order: int) -> np.ndarray:
    """Matrix [nfft / 2 + 1, order + 1] from a power spectrum to its autocorrelation (inverse DFT of the first lags)."""
    bins, lags = np.arange(nfft // 2 + 1)[:, None], np.arange(order + 1)
    twice = np.where((bins == 0) | (bins == nfft // 2), 1, 2)
    # The angle is reduced in integers first, for the last digits.
    return twice * np.cos(2 * np.pi / nfft * (bins * lags % nfft)) / nfft


def levinson(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prediction filters [P + 1, T], the first tap 1, and their errors [T], of autocorrelations [P + 1, T].

    The recursion of a frame ends where its error has become rounding; r[0] must be above 0.
    """
    filters = np.zeros_like(r)
    filters[0] = 1
    error = r[0].copy()
    for order in range(1, len(r)):
        reflection = -np.einsum("kt,kt->t", filters[:order], r[order:0:-1]) / error
        after = (1 - reflection**2) * error
        reflection = np.where(after > _LEAST_ERROR * r[0], reflection, 0)
        filters[1 : order + 1] += reflection * filters[order - 1 :: -1][:order]
        error *= 1 - reflection**2
    return filters, error


def llr(ref: np.ndarray, est: np.ndarray) -> np.ndarray:
    """Log-likelihood ratio [T] of autocorrelations [P + 1, T]; nan where either has no energy."""
    audible = (ref[0] > 0) & (est[0] > 0)
    ref, est = (np.where(audible, r, np.eye(len(r))[:, :1]) for r in (ref, est))
    filters, _ = levinson(est)
    # a' R a, by lags: R is Toeplitz.
    order = len(ref) - 1
    numerator = ref[0] * np.einsum("kt,kt->t", filters, filters)
    for lag in range(1, order + 1):
        numerator += 2 * ref[lag] * np.einsum("kt,kt->t", filters[lag:], filters[: order + 1 - lag])
    _, denominator = levinson(ref)
    # No filter is better than the reference's own: below is rounding.
    return np.where(audible, np.log(np.maximum(numerator, denominator) / denominator), np.nan)


@lru_cache(maxsize=4)
def _critical_bands(rate: int, nfft: int) -> np.ndarray:
    """Matrix [nfft / 2 + 1, 25] from a power spectrum to energies in Gaussian bands, cut 30 dB down."""
    bins = np.arange(nfft // 2 + 1)[:, None]
    centres, widths = np.floor(_CENTRES * nfft / rate), _WIDTHS * nfft / rate
    gain = np.exp(-11 * ((bins - centres) / widths) ** 2) * (_WIDTHS[0] / _WIDTHS)
    return np.where((gain > math.exp(-30 / (2 * 2.303))) & (bins < nfft // 2), gain, 0)


def _peaks(level: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Levels of the peaks nearest to bands, [24, T], of levels [25, T] and their slopes [24, T].

    As in `composite.m`, one who climbs stops in the last band from which the level still rises, one short of
    the peak; one who looks back down the slope stops on the peak.
    """
    peaks = level[:-1].copy()
    rising = slope > 0
    for band in range(len(slope) - 2, -1, -1):
        np.copyto(peaks[band], peaks[band + 1], where=rising[band] & rising[band + 1])
    for band in range(1, len(slope)):
        np.copyto(peaks[band], peaks[band - 1], where=~rising[band] & ~rising[band - 1])
    return peaks


def wss(ref: np.ndarray, est: np.ndarray) -> np.ndarray:
    """Weighted distance [T] of the slopes of band energies [25, T]."""
    weights, slopes = [], []
    for energy in (ref, est):
        level = 10 * np.log10(np.maximum(energy, _FLOOR))
        slopes.append(np.diff(level, axis=0))
        below, peak = level[:-1], _peaks(level, slopes[-1])
        weights.append(_MAX_DB / (_MAX_DB + level.max(axis=0) - below) * _LOCAL_DB / (_LOCAL_DB + peak - below))
    weight = weights[0] + weights[1]
    return (weight * (slopes[0] - slopes[1]) ** 2).sum(axis=0) / weight.sum(axis=0)


_MEASURES = {"ssnr": ssnr, "llr": llr, "wss": wss}
