"""What a table of scores comes to: means with a bootstrap interval."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

RESAMPLES, SEED, LEVEL = 10_000, 20_190_512, 0.95
_BATCH = 1 << 22  # values drawn at a time: bounds memory for lists of any length


def bootstrap_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Means of `resamples` draws, with replacement, of as many values as `values` [n] has: [resamples]."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BATCH // len(values))
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        stop = min(resamples, start + rows)
        means[start:stop] = values[rng.integers(len(values), size=(stop - start, len(values)))].mean(axis=1)
    return means


def summarise(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean over the utterances where there is a score, its 95 % percentile bootstrap interval, and their number.

    `mean` is None without scores, `low` and `high` with fewer than two: one utterance says nothing of the
    spread. The interval is over utterances (Efron & Tibshirani, An Introduction to the Bootstrap, 1993,
    section 13.3), and does not depend on their order.
    """
    x = np.sort([v for v in values if not math.isnan(v)])
    if not len(x):
        return {"mean": None, "low": None, "high": None, "scored": 0}
    low = high = None
    if len(x) > 1:
        tail = (1 - LEVEL) / 2
        low, high = (float(q) for q in np.quantile(bootstrap_means(x), [tail, 1 - tail]))
    return {"mean": math.fsum(x) / len(x), "low": low, "high": high, "scored": len(x)}
