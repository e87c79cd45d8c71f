"""Objective measures of enhanced speech against the clean reference.

Conventions
-----------
Signals are 1-D float arrays of one length, full scale 1.0, at `rate` Hz; the reference comes first. Scores
are floats, nan where a metric has no value for a pair (silence, too short, a rate the metric is not defined
at); the reason then stands beside it, and nothing is raised, so that one bad file does not end a run.

A family of metrics that share work is one module, named in FAMILIES, with

    METRICS: tuple[Metric, ...]
    compute(ref, est, rate, names) -> Scores      names: those of its own that are wanted, at least one

and sees only signals that `obstacle` passed.
"""

from __future__ import annotations

import difflib
from importlib import util
from typing import Iterable, Sequence

import numpy as np

from setk.files import UserError
from setk.metrics import pesq, sdr, stoi
from setk.metrics.metric import Metric, Scores, undefined

FAMILIES = (pesq, stoi, sdr)
METRICS: dict[str, Metric] = {metric.name: metric for family in FAMILIES for metric in family.METRICS}
DEFAULT = ("pesq_wb", "stoi", "estoi", "si_sdr")


def select(names: Iterable[str]) -> tuple[str, ...]:
    """`names`, each once; UserError on one that is unknown, or whose package is not installed."""
    names = tuple(dict.fromkeys(names))
    if not names:
        raise UserError(f"no metrics named; there are {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, 1)
            raise UserError(f"metric '{name}' is unknown; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(METRICS)}"))
        if (package := METRICS[name].needs) and not util.find_spec(package):
            raise UserError(f"{name} needs the package {package}: pip install {package}, or choose other --metrics")
    return names


def obstacle(ref: np.ndarray, est: np.ndarray) -> str | None:
    """Why no metric at all can compare two signals; None if nothing stands in the way."""
    if ref.ndim != 1 or est.ndim != 1:
        return f"signals of one channel are wanted, not of shapes {ref.shape} and {est.shape}"
    if len(ref) != len(est):
        return f"lengths differ: the reference has {len(ref)} samples, the estimate {len(est)}"
    if not len(ref):
        return "there are no samples"
    for x, name in ((ref, "reference"), (est, "estimate")):
        if not np.isfinite(x).all():
            return f"the {name} holds NaN or infinite samples"
    return None


def compute(ref: np.ndarray, est: np.ndarray, rate: int, names: Sequence[str] = DEFAULT) -> Scores:
    """Score `est` [n] against `ref` [n], both at `rate` Hz.

    Returns name -> score for each of `names` in their order, nan where there is none, and name -> reason for
    those.

    >>> scores, reasons = compute(clean, enhanced, 16000, ["stoi", "si_sdr"])
    """
    ref, est = np.asarray(ref, np.float64), np.asarray(est, np.float64)
    if reason := obstacle(ref, est):
        return undefined(names, reason)
    scores: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for family in FAMILIES:
        own = [metric.name for metric in family.METRICS if metric.name in names]
        if own:
            values, why = family.compute(ref, est, rate, own)
            scores |= values
            reasons |= why
    return {name: scores[name] for name in names}, {name: reasons[name] for name in names if name in reasons}
