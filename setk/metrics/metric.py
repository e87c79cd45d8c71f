"""What all families of metrics share: the description of a metric, and the check for silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

import numpy as np

# Scores of the metrics that could be computed (nan for the others), and why the others could not.
Scores = tuple[dict[str, float], dict[str, str]]


@dataclass(frozen=True)
class Metric:
    """One column of a score table.

    `needs` is the package that computes it, where numpy does not. `gain_of` names the metric of which this one
    is the difference between estimate and unprocessed noisy signal; it needs the latter. `rates`: Hz at which it is defined;
    (): any.
    """

    name: str
    meaning: str
    range: str
    reference: str
    needs: str = ""
    gain_of: str = ""
    lower_is_better: bool = False
    rates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Extras:
    """Files of models, for the metrics that are one; None: the file in an installed package, if there is one."""

    dnsmos_p835: str | None = None
    dnsmos_p808: str | None = None


def wrong_rate(rates: tuple[int, ...], rate: int) -> str | None:
    """Why a metric that is defined at `rates` has no value at `rate` Hz; None if it has one."""
    if not rates or rate in rates:
        return None
    return f"is defined at {' or '.join(map(str, rates))} Hz, not at {rate} Hz; se-score --rate {rates[-1]} resamples"


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
