"""Scores of NumPy arrays: what setk.score returns."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from setk import metrics as measures
from setk.audio.arrays import as_mono, check_rate


class Scores(dict[str, float]):
    """Metric -> score, in the order that was asked for; nan where there is none, and `reasons` (metric -> text) says why."""

    def __init__(self, scores: dict[str, float], reasons: dict[str, str]):
        super().__init__(scores)
        self.reasons = reasons


def score(
    clean: np.ndarray,
    enhanced: np.ndarray,
    rate: int,
    metrics: Sequence[str] = measures.DEFAULT,
    *,
    noisy: np.ndarray | None = None,
    extras: measures.Extras = measures.Extras(),
) -> Scores:
    """Score `enhanced` [n] against `clean` [n], float with full scale 1.0 or int16, at `rate` Hz.

    `metrics`: names as `se-score --list-metrics` lists them. `noisy` [n], the unprocessed signal, is for the metrics that
    are a gain over it. The scores equal those of se-score to the last bit. Raises UserError on an unknown metric, on one
    that needs `noisy` or a package, and on arrays that are not mono audio. Signals that cannot be compared raise nothing: their
    scores are nan.

    >>> scores = setk.score(clean, enhanced, 16000, ["pesq_wb", "stoi"])
    >>> scores["stoi"], scores.reasons
    """
    names = measures.select([metrics] if isinstance(metrics, str) else metrics, extras)
    measures.check_gains(names, noisy, "with noisy=")
    signals = [None if x is None else as_mono(x) for x in (clean, enhanced, noisy)]
    return Scores(*measures.compute(signals[0], signals[1], check_rate(rate), names, noisy=signals[2], extras=extras))
