"""Short-time objective intelligibility, plain and extended, from one front end.

Conventions
-----------
A number without unit; higher is more intelligible. Anything is brought to 10 kHz first, by the filter of
Octave's `resample`, and frames where the reference is 40 dB below its loudest are left out of both signals.
Scores agree with pystoi 0.4.1 to rounding; unlike it, no random numbers are drawn, and what pystoi answers
with 0.0 or 1e-5 (a silent signal, too little speech) has no score here.

Metrics
-------
stoi:  C. H. Taal, R. C. Hendriks, R. Heusdens, J. Jensen, "An Algorithm for Intelligibility Prediction of
       Time-Frequency Weighted Noisy Speech", IEEE TASLP 19(7), 2011.
estoi: J. Jensen, C. H. Taal, "An Algorithm for Predicting the Intelligibility of Speech Masked by Modulated
       Noise Maskers", IEEE/ACM TASLP 24(11), 2016.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from setk.metrics.metric import Metric, Scores, silence, undefined

RATE, FRAME, HOP, NFFT = 10_000, 256, 128, 512  # Taal, section II
BANDS, LOWEST = 15, 150.0  # third octaves; centre of the lowest, Hz
SEGMENT = 30  # frames of one intermediate measure: 384 ms
RANGE_DB, CLIP_DB = 40.0, -15.0  # of speech frames; lower bound of a unit's signal-to-distortion ratio
SHORTEST = 0.3  # s
_EPS = np.finfo(float).eps
_TINY = np.finfo(float).tiny
# Frames and segments are processed in parts: the work stays in the cache, and a lecture does not need gigabytes.
_FRAMES, _SEGMENTS = 64, 256
_MOST_TAPS = 1 << 22  # of a resampling matrix; uncommon rates such as 15999 Hz would need gigabytes

METRICS = (
    Metric(
        "stoi", "short-time objective intelligibility", "about 0 ... 1", "Taal, Hendriks, Heusdens, Jensen, TASLP 2011"
    ),
    Metric("estoi", "extended short-time objective intelligibility", "about 0 ... 1", "Jensen, Taal, TASLP 2016"),
)


def compute(ref: np.ndarray, est: np.ndarray, rate: int, names: Sequence[str]) -> Scores:
    """stoi and estoi of `est` [n] against `ref` [n]; see setk.metrics."""
    if reason := _obstacle(ref, est, rate):
        return undefined(names, reason)
    speech = drop_silence(*resample(np.stack([ref, est]), rate))
    if speech.shape[1] < (SEGMENT + 1) * HOP:
        return undefined(names, f"the reference has fewer than {SEGMENT} frames (0.4 s) of speech")
    x, y = third_octaves(speech)
    return {name: average(name, x, y) for name in names}, {}


def _obstacle(ref: np.ndarray, est: np.ndarray, rate: int) -> str | None:
    if len(ref) < SHORTEST * rate:
        return f"{len(ref) / rate:.3f} s is too short: {SHORTEST} s are needed"
    up, down = _ratio(rate)
    if up * (up + down) > _MOST_TAPS:
        return f"{rate} Hz has no small ratio to {RATE} Hz; se-score --rate 16000 resamples"
    return silence(ref, est)


def _ratio(rate: int) -> tuple[int, int]:
    """RATE / rate in lowest terms."""
    common = math.gcd(RATE, rate)
    return RATE // common, rate // common


def _lowpass(up: int, down: int) -> np.ndarray:
    """Taps of Octave's `resample` for up/down: Kaiser-windowed sinc, 60 dB, gain `up`, odd length."""
    cutoff = 1 / (2 * max(up, down))
    rejection = 60.0
    half = math.ceil((rejection - 8) / (28.714 * cutoff / 10))
    t = np.arange(-half, half + 1)
    taps = np.sinc(2 * cutoff * t) * np.kaiser(2 * half + 1, 0.1102 * (rejection - 8.7))
    return taps * (up / taps.sum())


@lru_cache(maxsize=4)
def _polyphase(up: int, down: int) -> tuple[np.ndarray, int, int]:
    """Resampling as one matrix product: (matrix [width, outputs], inputs from row to row, inputs ahead of the first).

    Output m is sum_i x[i] h[m down - i up + half]. The matrix gives `outputs` of them, a multiple of `up`, from
    `width` inputs in a row; several periods at a time, since neighbours share most of their inputs.
    """
    taps = _lowpass(up, down)
    half = len(taps) // 2
    periods = max(1, 64 // up)
    outputs, step = periods * up, periods * down
    ahead = half // up
    width = ahead + ((outputs - 1) * down + half) // up + 1
    index = np.arange(outputs) * down - (np.arange(width)[:, None] - ahead) * up + half
    return np.where((index >= 0) & (index < len(taps)), taps[np.clip(index, 0, len(taps) - 1)], 0.0), step, ahead


def resample(x: np.ndarray, rate: int) -> np.ndarray:
    """Signals [k, n] at `rate` Hz to [k, ceil(n RATE / rate)] at RATE."""
    if rate == RATE:
        return x
    up, down = _ratio(rate)
    matrix, step, ahead = _polyphase(up, down)
    n = -(-x.shape[1] * up // down)
    rows = -(-n // matrix.shape[1])
    padded = np.pad(x, [(0, 0), (ahead, max(0, (rows - 1) * step + len(matrix) - ahead - x.shape[1]))])
    windows = sliding_window_view(padded, len(matrix), axis=1)[:, : rows * step : step]
    return (windows @ matrix).reshape(len(x), -1)[:, :n]


def _window() -> np.ndarray:
    """Hann window of FRAME samples without its zeros, as Matlab's `hanning`."""
    return np.hanning(FRAME + 2)[1:-1]


def drop_silence(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two signals [n] without the frames in which `x` is RANGE_DB below its loudest: [2, m].

    Frames are windowed, and those kept are overlap-added. As in the authors' Matlab code, the signal's last
    frame is never looked at, and the half frame that the last one leaves open is given up.
    """
    window = _window()
    count = -(-(len(x) - FRAME) // HOP)
    blocks = np.stack([x, y])[:, : (count + 1) * HOP].reshape(2, count + 1, HOP)
    power = blocks[0] ** 2 @ (window**2).reshape(2, HOP).T
    level = 20 * np.log10(np.sqrt(power[:-1, 0] + power[1:, 1]) + _EPS)
    kept = np.flatnonzero(level > level.max() - RANGE_DB)
    joined = blocks[:, kept] * window[:HOP]
    joined[:, 1:] += blocks[:, kept[:-1] + 1] * window[HOP:]
    return joined.reshape(2, -1)


@lru_cache(maxsize=1)
def _bands() -> np.ndarray:
    """0/1 matrix [NFFT / 2 + 1, BANDS] that sums bins to third octaves; edges on the nearest bins."""
    bins = np.arange(NFFT // 2 + 1)
    edges = LOWEST * 2.0 ** ((2 * np.arange(BANDS)[:, None] + [-1, 1]) / 6)
    low, high = np.rint(edges * NFFT / RATE).T
    return ((bins[:, None] >= low) & (bins[:, None] < high)).astype(float)


def third_octaves(x: np.ndarray) -> np.ndarray:
    """Signals [k, m] to magnitudes [k, BANDS, T] in frames of FRAME every HOP samples (Taal (1))."""
    frames = sliding_window_view(x, FRAME, axis=1)[:, ::HOP]
    bands = np.empty((len(x), BANDS, frames.shape[1]))
    for start in range(0, frames.shape[1], _FRAMES):
        part = slice(start, start + _FRAMES)
        spectrum = np.fft.rfft(frames[:, part] * _window(), NFFT)
        power = spectrum.real**2 + spectrum.imag**2
        bands[:, :, part] = np.sqrt(power @ _bands()).swapaxes(1, 2)
    return bands


def _segments(x: np.ndarray) -> np.ndarray:
    """View [BANDS, SEGMENT, J] of [BANDS, T]: column j is the segment that begins at frame j.

    With segments last, sums over bands or frames are sums of long rows, which numpy does fast.
    """
    return sliding_window_view(x, x.shape[1] - SEGMENT + 1, axis=1)


def _norm(x: np.ndarray) -> np.ndarray:
    """Euclidean norm over the frames of segments: [BANDS, 1, J]."""
    return np.sqrt(np.einsum("bkj,bkj->bj", x, x))[:, None]


def stoi(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Similarity [J] of the segments of short-time envelopes [BANDS, T] (Taal (2)-(5), mean over bands)."""
    x, y = _segments(x), _segments(y)
    y = y * (_norm(x) / (_norm(y) + _EPS))
    np.minimum(y, x * (1 + 10 ** (-CLIP_DB / 20)), out=y)
    x = x - x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    correlation = np.einsum("bkj,bkj->bj", x, y) / ((_norm(x) + _EPS) * (_norm(y) + _EPS))[:, 0]
    return correlation.mean(axis=0)


def _unit_rows(x: np.ndarray) -> np.ndarray:
    """Segments [BANDS, SEGMENT, J] with each band's mean over frames removed and its norm 1; 0 for a constant band."""
    x = x - x.mean(axis=1, keepdims=True)
    x /= np.maximum(_norm(x), _TINY)
    return x


def estoi(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Similarity [J] of the normalised spectra in segments of [BANDS, T] (Jensen & Taal, section II, mean over frames).

    A band or a frame without variation counts as uncorrelated; pystoi lets random numbers decide.
    """
    x, y = _unit_rows(_segments(x)), _unit_rows(_segments(y))
    x -= x.mean(axis=0)
    y -= y.mean(axis=0)
    dot = np.einsum("bkj,bkj->kj", x, y)
    power = np.einsum("bkj,bkj->kj", x, x) * np.einsum("bkj,bkj->kj", y, y)
    return (dot / np.sqrt(np.maximum(power, _TINY))).mean(axis=0)


_SIMILARITY = {"stoi": stoi, "estoi": estoi}


def average(name: str, x: np.ndarray, y: np.ndarray) -> float:
    """Mean similarity over all segments of [BANDS, T] (Taal (6)), some at a time."""
    count = x.shape[1] - SEGMENT + 1
    total = 0.0
    for start in range(0, count, _SEGMENTS):
        part = slice(start, min(start + _SEGMENTS, count) + SEGMENT - 1)
        total += _SIMILARITY[name](x[:, part], y[:, part]).sum()
    return float(total / count)
