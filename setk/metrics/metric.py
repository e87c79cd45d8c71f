"""What every family of metrics shares: how a metric is described, and when a signal holds nothing to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

import numpy as np

# Scores of the metrics that could be computed (nan for the others), and why the others could not.
Scores = tuple[dict[str, float], dict[str, str]]


@dataclass(frozen=True)
class Metric:
    """One column of a score table. `needs` is the package that computes it, where numpy does not."""

    name: str
    meaning: str
    range: str
    reference: str
    needs: str = ""


def undefined(names: Iterable[str], reason: str) -> Scores:
    """None of `names` has a value for this pair of signals, for one reason."""
    names = tuple(names)
    return dict.fromkeys(names, np.nan), dict.fromkeys(names, reason)


def silence(ref: np.ndarray, est: np.ndarray) -> str | None:
    """Which of two signals [n] is silent, a constant offset counting as silence; None if neither is."""
    for x, name in ((ref, "reference"), (est, "estimate")):
        if np.ptp(x) == 0:
            return f"the {name} is silent"
    return None
