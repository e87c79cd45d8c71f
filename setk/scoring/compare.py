"""Two score tables compared, utterance by utterance.

Conventions
-----------
Differences are B - A, over the utterances where both tables have a score. The interval and `p_bootstrap` come
from the same resampling of utterances (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13
and 15). Where p is below 0.05, the 95 % interval excludes 0, and where the interval excludes 0, p is at most 0.0502. No p is
below 2 / (RESAMPLES + 1). Both p are two-sided.

`p_wilcoxon` is of the signed-rank test (F. Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics
Bulletin 1(6), 1945): exact up to EXACT pairs without ties and zeros; else by the normal approximation with
corrections for ties and continuity. Zero differences are ranked and then left out (J. W. Pratt, "Remarks on Zeros
and Ties in the Wilcoxon Signed Rank Procedures", JASA 54, 1959).

A difference is called clear where the interval excludes 0 and p_wilcoxon is below 0.05, which needs six utterances: an interval of
fewer is too narrow.

`better` is the share of utterances where B has the better score; ties count for neither.
"""

from __future__ import annotations

import math
import os
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

import numpy as np

from setk.core.errors import UserError
from setk.data.index import ABSENT
from setk.metrics import METRICS
from setk.scoring.summary import LEVEL, bootstrap_means
from setk.scoring.table import Table, as_table, read_table

EXACT = 50  # the counts of the exact distribution, up to 2**50, are whole in a float


class Comparison(NamedTuple):
    """One metric of two tables; nan where there are too few pairs. `left_out` pairs lack a score."""

    metric: str
    n: int
    mean_a: float
    mean_b: float
    diff: float
    low: float
    high: float
    p_bootstrap: float
    p_wilcoxon: float
    better: float
    left_out: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0, and the signed-rank test agrees."""
        return (self.low > 0 or self.high < 0) and self.p_wilcoxon < 1 - LEVEL


COLUMNS = Comparison._fields[:-1]


def compare_tables(
    a: str | os.PathLike | Iterable[Mapping[str, Any]], b: str | os.PathLike | Iterable[Mapping[str, Any]]
) -> list[Comparison]:
    """Compare two tables, each a path or rows, in all metrics and utterances that both have."""
    one, two = (read_table(os.fspath(t)) if isinstance(t, (str, os.PathLike)) else as_table(t) for t in (a, b))
    return list(compare(one, two, common_metrics(one, two)))


def common_metrics(a: Table, b: Table) -> list[str]:
    """The metrics of both tables, in the order of A. Raises UserError without one, or without a common utterance."""
    metrics = [name for name in a.names if name in b.names]
    if not metrics:
        raise UserError(f"the tables have no metric in common: {', '.join(a.names)} here, {', '.join(b.names)} there")
    if not (a.lines_in(b) != ABSENT).any():
        raise UserError(f"the tables have no utterance in common: {len(a)} here, {len(b)} others there")
    return metrics


def compare(a: Table, b: Table, metrics: Iterable[str], lines: np.ndarray | None = None) -> Iterator[Comparison]:
    """The Comparison of `a` and `b` for each of `metrics`, on the utterances of both, or on those in the `lines` of `a`."""
    partners = a.lines_in(b)
    chosen = np.flatnonzero(partners != ABSENT) if lines is None else lines
    for metric in metrics:
        yield paired(metric, a.column(metric)[chosen], b.column(metric)[partners[chosen]])


def paired(metric: str, a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compare the scores `a` [n] and `b` [n] of the same utterances; pairs with a nan are left out."""
    whole = ~(np.isnan(a) | np.isnan(b))
    a, b = a[whole], b[whole]
    # Sorted, so that the order of the tables does not matter to the resampling.
    difference, n, left_out = np.sort(_without_rounding(b - a, a, b)), len(a), int(np.count_nonzero(~whole))
    if not n:
        return Comparison(metric, 0, *[math.nan] * 8, left_out)  # type: ignore[call-arg]
    low, high, p = interval(difference)
    gain = -difference if METRICS[metric].lower_is_better else difference
    return Comparison(
        metric,
        n,
        math.fsum(a) / n,
        math.fsum(b) / n,
        math.fsum(difference) / n,
        low,
        high,
        p,
        wilcoxon(difference),
        float(np.mean(gain > 0)),
        left_out,
    )


def _without_rounding(difference: np.ndarray, *scores: np.ndarray) -> np.ndarray:
    """Differences of scores in decimals, of which equal ones would else differ in their last bits and be no ties."""
    largest = float(np.abs(scores).max(initial=0))
    return np.round(difference, 12 - math.ceil(math.log10(largest))) if 0 < largest < math.inf else difference


def interval(difference: np.ndarray) -> tuple[float, float, float]:
    """Percentile bootstrap interval of the mean of `difference` [n], and p of its being 0; nan for n < 2."""
    if len(difference) < 2:
        return math.nan, math.nan, math.nan
    means = bootstrap_means(difference)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    beyond = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    # One more than was seen, in numerator and denominator: 10,000 draws cannot show that p is 0.
    return float(low), float(high), float(min(1.0, 2 * (beyond + 1) / (len(means) + 1)))


def wilcoxon(difference: np.ndarray) -> float:
    """p of the signed-rank test that `difference` [n], n >= 1, is symmetric about 0; 1.0 if all of it is 0."""
    n, zeros = len(difference), int(np.count_nonzero(difference == 0))
    if zeros == n:
        return 1.0
    _, place, counts = np.unique(np.abs(difference), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    plus = float(ranks[difference > 0].sum())
    if n <= EXACT and not zeros and len(counts) == n:
        return _exact(n, round(plus))
    ties = counts[1:] if zeros else counts
    mean = (n * (n + 1) - zeros * (zeros + 1)) / 4
    variance = (n * (n + 1) * (2 * n + 1) - zeros * (zeros + 1) * (2 * zeros + 1)) / 24 - float(
        (ties**3.0 - ties).sum()
    ) / 48
    distance = max(0.0, abs(plus - mean) - 0.5)
    return math.erfc(distance / math.sqrt(2 * variance))


def _exact(n: int, plus: int) -> float:
    """Two-sided p of the sum `plus` of the ranks 1 ... n that have a positive sign, with all 2**n signs equally likely."""
    ways = np.ones(1)
    for rank in range(1, n + 1):
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    return float(min(1.0, 2 * min(ways[: plus + 1].sum(), ways[plus:].sum()) / 2.0**n))


def words(c: Comparison) -> str:
    """A comparison as one line to read."""
    missing = f"; {c.left_out} pairs lack a score" if c.left_out > 1 else "; 1 pair lacks a score" if c.left_out else ""
    if not c.n:
        return f"{c.metric}: nothing to compare{missing}"
    means = f"{c.mean_b:.3f} against {c.mean_a:.3f}, B - A = {c.diff:+.3f}"
    if c.n == 1:
        return f"{c.metric}: one utterance proves nothing: {means}{missing}"
    verdict = "no clear difference"
    if c.is_clear:
        verdict = "B is worse" if (c.diff > 0) == METRICS[c.metric].lower_is_better else "B is better"
    return (
        f"{c.metric}: {verdict}: {means} [{c.low:+.3f}, {c.high:+.3f}], better on {c.better:.1%} of {c.n}; "
        f"p {c.p_bootstrap:.2g} (bootstrap), {c.p_wilcoxon:.2g} (Wilcoxon){missing}"
    )
