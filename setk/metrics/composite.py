"""Composite measures of signal distortion, background intrusiveness and overall quality.

Conventions
-----------
Predicted ratings from 1 (bad) to 5, clipped there: linear formulas over PESQ and the segmental measures of
setk.metrics.segmental. This is the variant of Loizou's Matlab `composite.m`, which papers report, and not
the one of the article: other coefficients, and the means of LLR and WSS over the best 95 % of the frames.

At 16 kHz PESQ is P.862.2's MOS-LQO, as everyone reports. At 8 kHz it is the raw P.862 score, from -0.5 to
4.5, with which the formulas were fitted, and as `composite.m` has it.

Metrics
-------
csig, cbak, covl: Y. Hu, P. C. Loizou, "Evaluation of Objective Quality Measures for Speech Enhancement",
IEEE TASLP 16(1), 2008; P. C. Loizou, "Speech Enhancement: Theory and Practice", 2nd ed., 2013, chapter 11.
"""

from __future__ import annotations

import math
from typing import Mapping, Sequence

from setk.metrics.metric import Metric, Scores, undefined

_SHARED = {
    "range": "1 ... 5",
    "reference": "Hu, Loizou, TASLP 2008; the variant of Loizou's composite.m",
    "needs": "pesq",
    "rates": (8000, 16000),
}
METRICS = (
    Metric("csig", "predicted rating of signal distortion", **_SHARED),
    Metric("cbak", "predicted rating of background intrusiveness", **_SHARED),
    Metric("covl", "predicted rating of overall quality", **_SHARED),
)
NAMES = tuple(metric.name for metric in METRICS)
# Offset, and weights of PESQ, LLR, WSS, SSNR.
_WEIGHTS = {
    "csig": (3.093, 0.603, -1.029, -0.009, 0.0),
    "cbak": (1.634, 0.478, 0.0, -0.007, 0.063),
    "covl": (1.594, 0.805, -0.512, -0.007, 0.0),
}


def parts(rate: int) -> tuple[str, ...]:
    """The metrics that the formulas are over, in the order of their weights."""
    return ("pesq_nb" if rate == 8000 else "pesq_wb", "llr", "wss", "ssnr")


def combine(scores: Mapping[str, float], reasons: Mapping[str, str], rate: int, names: Sequence[str]) -> Scores:
    """csig, cbak, covl from the scores of `parts(rate)`; without one of those there is none of them."""
    if not names:
        return {}, {}
    for part in parts(rate):
        if part in reasons:
            return undefined(names, reasons[part])
    values = [scores[part] for part in parts(rate)]
    if rate == 8000:
        values[0] = raw_pesq(values[0])
    return {name: _rating(_WEIGHTS[name], values) for name in names}, {}


def raw_pesq(mos: float) -> float:
    """P.862 score from -0.5 to 4.5 of a narrowband MOS-LQO (ITU-T P.862.1 (1), inverted)."""
    return (4.6607 - math.log(4 / (mos - 0.999) - 1)) / 1.4945


def _rating(weights: Sequence[float], values: Sequence[float]) -> float:
    offset, *slopes = weights
    return min(5.0, max(1.0, offset + sum(a * x for a, x in zip(slopes, values, strict=True))))
