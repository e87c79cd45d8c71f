"""Perceptual evaluation of speech quality, as MOS-LQO, by the `pesq` package (ITU-T's own C code).

Conventions
-----------
Listening quality on the MOS scale: 1 is bad; a perfect copy gets 4.64 wideband, 4.55 narrowband. These are
P.862.2 and P.862.1 figures, not the raw P.862 score from -0.5 to 4.5 that older tables quote. Level does not
matter: the standard normalises it.

The package prints to standard output when a rate or a mode does not suit it, and with more than 50 stretches
of speech, some two minutes of reading, its memory is overrun: the score is silently wrong, or the process
dies. All of that is looked for before it is called, and it runs in a process of its own (setk.metrics.pesq_process).

Metrics
-------
pesq_wb: ITU-T P.862.2 (2007), 16 kHz.    pesq_nb: ITU-T P.862 (2001) with P.862.1 mapping, 8 or 16 kHz.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

from setk.metrics import pesq_process
from setk.metrics.metric import Metric, Scores, silence, undefined, wrong_rate

METRICS = (
    Metric("pesq_wb", "wideband PESQ, MOS-LQO", "1.0 ... 4.64", "ITU-T P.862.2", needs="pesq", rates=(16000,)),
    Metric(
        "pesq_nb",
        "narrowband PESQ, MOS-LQO",
        "1.0 ... 4.55",
        "ITU-T P.862 and P.862.1",
        needs="pesq",
        rates=(8000, 16000),
    ),
)
_RATES = {metric.name: metric.rates for metric in METRICS}
_SHORTEST, _LONGEST = 0.25, 300.0  # s; P.862.3 recommends 8 to 30
# The C code stores at most 50; the count here was within 10 % of its count on half a minute to 4 minutes of real speech.
_MOST_STRETCHES = 44
_FRAME = 0.004  # s
_BLIP, _JOIN, _LEAST = 4, 50, 50  # frames: not speech up to here; a pause up to here joins; a stretch counts from here
# Response of P.862's input filter, Hz and dB, as far as finding speech needs it.
_FILTER = np.array(
    [(100, -41), (200, -13), (300, 2), (500, 10), (1000, 10), (2000, 1), (3000, -3), (3500, -7), (4000, -18)]
).T


def compute(ref: np.ndarray, est: np.ndarray, rate: int, names: Sequence[str]) -> Scores:
    """pesq_wb, pesq_nb of `est` [n] against `ref` [n]; see setk.metrics."""
    if reason := _obstacle(ref, est, rate):
        return undefined(names, reason)
    scores: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name in names:
        value = _score(name, ref, est, rate)
        scores[name] = math.nan if isinstance(value, str) else value
        if isinstance(value, str):
            reasons[name] = value
    return scores, reasons


def _score(name: str, ref: np.ndarray, est: np.ndarray, rate: int) -> float | str:
    """The score, or why there is none."""
    if reason := wrong_rate(_RATES[name], rate):
        return reason
    from pesq.cypesq import cypesq_error_message

    try:
        value = pesq_process.score(rate, ref, est, name.removeprefix("pesq_"))
    except pesq_process.Crash as e:
        return f"PESQ {e}"
    if value < 0:
        return f"PESQ: {cypesq_error_message(int(value)).decode()}"
    return float(value) if math.isfinite(value) else "PESQ finds nothing to compare in the estimate"


def _obstacle(ref: np.ndarray, est: np.ndarray, rate: int) -> str | None:
    if reason := silence(ref, est):
        return reason
    if len(ref) < _SHORTEST * rate:
        return f"{len(ref) / rate:.3f} s is too short: {_SHORTEST} s are needed"
    if len(ref) > _LONGEST * rate:
        return f"{len(ref) / rate:.0f} s are too long for PESQ; score parts of 30 s or less"
    # A stretch and its pause last over 0.4 s: only long files can hold too many.
    if len(ref) > _MOST_STRETCHES * (_JOIN + _LEAST) * _FRAME * rate and (n := _stretches(ref, rate)) > _MOST_STRETCHES:
        return f"{len(ref) / rate:.0f} s with about {n} stretches of speech are too much for PESQ; score parts of 30 s or less"
    return None


def _stretches(ref: np.ndarray, rate: int) -> int:
    """About how many stretches of speech P.862's voice activity detector finds in the reference [n]."""
    frequency = np.fft.rfftfreq(len(ref), 1 / rate)
    gain = np.where(frequency < 4500, 10 ** (np.interp(frequency, *_FILTER) / 20), 0)
    x = np.fft.irfft(np.fft.rfft(ref) * gain, len(ref))
    frame = round(_FRAME * rate)
    power = np.square(x[: len(x) // frame * frame]).reshape(-1, frame).mean(axis=1)
    power = np.maximum(power, 1e-4 * power.max())
    threshold = power.mean()
    for _ in range(12):
        noise = power[power <= threshold]
        threshold = 1.001 * (noise.mean() + 2 * noise.std())
    # Runs of speech: blips go, short pauses close, and what is long enough then counts.
    edges = np.flatnonzero(np.diff(power > threshold, prepend=False, append=False)).reshape(-1, 2)
    edges = edges[edges[:, 1] - edges[:, 0] > _BLIP]
    pause = edges[1:, 0] - edges[:-1, 1] > _JOIN
    first, last = edges[np.append(True, pause)[: len(edges)], 0], edges[np.append(pause, True)[: len(edges)], 1]
    return int(np.count_nonzero(last - first >= _LEAST))
