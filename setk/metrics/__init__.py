"""Objective measures of enhanced speech against the clean reference.

Conventions
-----------
Signals are 1-D float arrays of one length, full scale 1.0, at `rate` Hz; the reference comes first. Scores
are floats, nan where a metric has no value for a pair (silence, too short, a rate that the metric is not
defined at). Then `reasons` says why, and nothing is raised, so that one bad file does not end a run.

    scores, reasons = compute(ref, est, rate, names, noisy=None, extras=Extras())

`noisy` is the unprocessed signal, for the metrics that are a gain over it; `extras` names files of models.

A family of metrics that share work is one module, named in FAMILIES, with

    METRICS: tuple[Metric, ...]
    compute(ref, est, rate, names) -> Scores      names: at least one of its metrics

and gets only signals that `obstacle` passed. Three kinds of metrics do not belong to a family. A gain (`gain_of`) is
a difference of two scores. `composite` is a formula over other scores, so that PESQ is computed once.
`dnsmos` rates the estimate alone, by a model.
"""

from __future__ import annotations

import math
from importlib import util
from typing import Iterable, Sequence

import numpy as np

from setk.core.errors import UserError, nearest
from setk.metrics import bss, composite, dnsmos, lsd, pesq, sdr, segmental, stoi
from setk.metrics.metric import Extras, Metric, Scores, undefined

FAMILIES = (pesq, stoi, sdr, bss, segmental, lsd)
METRICS: dict[str, Metric] = {m.name: m for family in (*FAMILIES, composite, dnsmos) for m in family.METRICS}
DEFAULT = ("pesq_wb", "stoi", "estoi", "si_sdr")


def availability(name: str, extras: Extras = Extras()) -> str | None:
    """Why metric `name` cannot be computed on this machine, and the command that fixes it; None if it can."""
    if name in dnsmos.MODELS:
        return dnsmos.missing(name, extras)
    package = METRICS[name].needs
    if package and not util.find_spec(package):
        return f"needs the package {package}: pip install {package}"
    return None


def listed(text: str) -> list[str]:
    """The names in a list separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def select(names: Iterable[str], extras: Extras = Extras()) -> tuple[str, ...]:
    """`names`, each once; UserError on one that is unknown, or that lacks its package or model."""
    names = tuple(dict.fromkeys(names))
    if not names:
        raise UserError(f"no metrics named; there are {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            raise UserError(f"metric '{name}' is unknown; {nearest(name, METRICS)}")
        if reason := availability(name, extras):
            raise UserError(f"{name} {reason}, or choose other --metrics")
    return names


def need_reference(names: Iterable[str]) -> bool:
    """Whether one of `names` compares with a reference; DNSMOS rates the estimate alone."""
    return any(name not in dnsmos.MODELS for name in names)


def check_gains(names: Iterable[str], noisy: object, how: str) -> None:
    """Raise UserError if one of `names` is a gain over the noisy signal, and `noisy` is None; `how` says how to name it."""
    gains = [name for name in names if METRICS[name].gain_of]
    if gains and noisy is None:
        raise UserError(f"{', '.join(gains)}: a gain needs the noisy signal; name it {how}")


def obstacle(ref: np.ndarray, est: np.ndarray) -> str | None:
    """Why no metric can compare two signals; None if they can be compared."""
    if ref.ndim != 1 or est.ndim != 1:
        return f"expected signals of one channel, not of shapes {ref.shape} and {est.shape}"
    if len(ref) != len(est):
        return f"lengths differ: the reference has {len(ref)} samples, the estimate {len(est)}"
    if not len(ref):
        return "the signals have no samples"
    for x, name in ((ref, "reference"), (est, "estimate")):
        if not np.isfinite(x).all():
            return f"the {name} holds NaN or infinite samples"
    return None


def compute(
    ref: np.ndarray,
    est: np.ndarray,
    rate: int,
    names: Sequence[str] = DEFAULT,
    noisy: np.ndarray | None = None,
    extras: Extras = Extras(),
) -> Scores:
    """Score `est` [n] against `ref` [n], and for gains against `noisy` [n] too, all at `rate` Hz.

    Returns name -> score for each of `names` in their order, nan where there is none, and name -> reason for
    those. Raises UserError if a file in `extras` is not a DNSMOS model.

    >>> scores, reasons = compute(clean, enhanced, 16000, ["stoi", "si_sdr"])
    """
    ref, est = np.asarray(ref, np.float64), np.asarray(est, np.float64)
    if reason := obstacle(ref, est):
        return undefined(names, reason)
    scores, reasons = _measure(ref, est, rate, {part for name in names for part in _parts(name, rate)})
    for values, why in (
        composite.combine(scores, reasons, rate, [name for name in names if name in composite.NAMES]),
        _gains(ref, noisy, rate, [name for name in names if METRICS[name].gain_of], (scores, reasons)),
        dnsmos.compute(est, rate, [name for name in names if name in dnsmos.MODELS], extras),
    ):
        scores |= values
        reasons |= why
    for name in names:
        if not math.isfinite(scores[name]):
            scores[name] = math.nan
            reasons.setdefault(name, "has no finite value for these signals")
    return {name: scores[name] for name in names}, {name: reasons[name] for name in names if name in reasons}


def _parts(name: str, rate: int) -> tuple[str, ...]:
    """The metrics of FAMILIES that `name` is computed from."""
    if name in composite.NAMES:
        return composite.parts(rate)
    return () if name in dnsmos.MODELS else (METRICS[name].gain_of or name,)


def _measure(ref: np.ndarray, est: np.ndarray, rate: int, names: Iterable[str]) -> Scores:
    """Scores of `names`, all of FAMILIES."""
    scores: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for family in FAMILIES:
        own = [metric.name for metric in family.METRICS if metric.name in names]
        if own:
            values, why = family.compute(ref, est, rate, own)
            scores |= values
            reasons |= why
    return scores, reasons


def _gains(ref: np.ndarray, noisy: np.ndarray | None, rate: int, names: Sequence[str], after: Scores) -> Scores:
    """Scores `after` enhancement less those of `noisy`, dB or the unit of the metric."""
    if noisy is None or not names:
        return undefined(names, "needs --noisy: the unprocessed signals")
    noisy = np.asarray(noisy, np.float64)
    bases = [METRICS[name].gain_of for name in names]
    reason = obstacle(ref, noisy)
    before = undefined(bases, reason) if reason else _measure(ref, noisy, rate, bases)
    scores: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, base in zip(names, bases, strict=True):
        scores[name] = after[0][base] - before[0][base]
        if base in after[1]:
            reasons[name] = after[1][base]
        elif base in before[1]:
            reasons[name] = before[1][base].replace("the estimate", "the noisy signal")
    return scores, reasons
