"""Summary of a score table: means with a bootstrap interval, over all utterances and over groups of them."""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from statistics import NormalDist
from typing import Iterable, Mapping, Sequence

import numpy as np

from setk.core import files, provenance
from setk.data.index import ABSENT
from setk.metrics import dnsmos
from setk.scoring.groups import Groups
from setk.scoring.pairing import How, Row

RESAMPLES, SEED, LEVEL = 10_000, 20_190_512, 0.95
_BATCH = 1 << 22  # values drawn at a time: bounds memory for lists of any length
# From here on the distribution of a bootstrap mean is computed, not drawn: drawing takes minutes for a million values.
_MANY = 20_000
NAMED = 10  # utterances that a remark names


def bootstrap_means(values: np.ndarray) -> np.ndarray:
    """Means of RESAMPLES draws, with replacement, of as many values as `values` [n] has: [RESAMPLES].

    With more than 20,000 values they are equidistant quantiles of the distribution of such means, by its Cornish-Fisher expansion with
    the skewness (P. Hall, The Bootstrap and Edgeworth Expansion, 1992, section 2.5). What it leaves out is far smaller than the
    error of drawing, unless a few values are so large that they decide the mean; these are drawn.
    """
    if len(values) > _MANY and (means := _expanded_means(values)) is not None:
        return means
    rng = np.random.default_rng(SEED)
    rows = max(1, _BATCH // len(values))
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        stop = min(RESAMPLES, start + rows)
        means[start:stop] = values[rng.integers(len(values), size=(stop - start, len(values)))].mean(axis=1)
    return means


def _expanded_means(values: np.ndarray) -> np.ndarray | None:
    """Quantiles of the bootstrap mean of `values` [n]; None where a few values decide it."""
    n, mean, deviation = len(values), float(values.mean()), float(values.std())
    if not deviation:
        return np.full(RESAMPLES, mean)
    standard = (values - mean) / deviation
    skewness, kurtosis = float((standard**3).mean()) / math.sqrt(n), float((standard**4).mean()) / n
    if abs(skewness) > 0.1 or kurtosis > 0.01:
        return None
    inverse = NormalDist().inv_cdf
    z = np.array([inverse((i + 0.5) / RESAMPLES) for i in range(RESAMPLES)])
    return mean + deviation / math.sqrt(n) * (z + skewness * (z**2 - 1) / 6)


def summarise(values: Sequence[float] | np.ndarray) -> dict[str, float | int | None]:
    """Mean over the utterances where there is a score, its 95 % percentile bootstrap interval, and their number.

    `mean` is None without scores, `low` and `high` with fewer than two: one utterance shows no
    spread. The interval is over utterances (Efron & Tibshirani, An Introduction to the Bootstrap, 1993,
    section 13.3), and does not depend on their order.
    """
    x = np.asarray(values, float)
    x = np.sort(x[~np.isnan(x)])
    if not len(x):
        return {"mean": None, "low": None, "high": None, "scored": 0}
    low = high = None
    if len(x) > 1:
        tail = (1 - LEVEL) / 2
        low, high = (float(q) for q in np.quantile(bootstrap_means(x), [tail, 1 - tail]))
    return {"mean": math.fsum(x) / len(x), "low": low, "high": high, "scored": len(x)}


class Scores:
    """The scores of a table by metric, and the groups of its utterances, as numbers: 8 bytes per score, 4 per group. Ids and reasons are
    kept of utterances that failed.

    `tables` are the groupings by name. `without` holds, of each, how many utterances have no group, and the first NAMED of them.
    """

    def __init__(self, names: Sequence[str], tables: Mapping[str, Groups]):
        self.utterances, self.failed = 0, dict[str, str]()
        self._columns = {name: array("d") for name in names}
        self._tables = tables
        self._members = {name: array("i") for name in tables}
        self.without: dict[str, tuple[int, list[str]]] = {name: (0, []) for name in tables}

    def add(self, row: Row) -> None:
        """Add a row of the table."""
        utt = row.pair.utt
        self.utterances += 1
        if row.error:
            self.failed[utt] = row.error
        for name, column in self._columns.items():
            column.append(row.scores[name])
        for name, groups in self._tables.items():
            number = groups.number(utt)
            self._members[name].append(number)
            if number == ABSENT:
                count, first = self.without[name]
                self.without[name] = count + 1, [*first, utt][:NAMED]

    def figures(self) -> dict:
        """Means and counts, overall and by groups, as plain values."""
        return {
            "utterances": self.utterances,
            "scored": self.utterances - len(self.failed),
            "failed": self.failed,
            "metrics": self._means(slice(None)),
            "groups": {name: self._by_group(name) for name in self._tables},
        }

    def _means(self, chosen: slice | np.ndarray) -> dict[str, dict]:
        return {name: summarise(np.frombuffer(column)[chosen]) for name, column in self._columns.items()}

    def _by_group(self, table: str) -> dict[str, dict]:
        """The means of each group."""
        members, groups = np.frombuffer(self._members[table], np.int32), self._tables[table]
        present = {groups.names[number]: number for number in np.unique(members) if number != ABSENT}
        return {name: self._means(members == present[name]) for name in groups.ordered if name in present}


def named(what: str, count: int, first: Sequence[str]) -> list[str]:
    """A line on the `count` utterances that `what` is true for, with the `first` NAMED of them; none if there are no utterances."""
    if not count:
        return []
    rest = ", …" if count > len(first) else ""
    return [f"{what} {count} utterance{'s' if count > 1 else ''}: {', '.join(first)}{rest}"]


def origin(how: How, inputs: Iterable[str]) -> dict:
    """How figures were made: the interval's definition, and provenance with the hashes of those `inputs` that are files."""
    lists = {path: files.sha256(path) for path in inputs if Path(path).is_file()}
    used = {dnsmos.MODELS[name] for name in how.names if name in dnsmos.MODELS}
    model = {"dnsmos": {m: sha for m, sha in dnsmos.identity(how.extras).items() if m in used}} if used else {}
    return {
        "interval": {
            "level": LEVEL,
            "method": "percentile bootstrap over utterances",
            "resamples": RESAMPLES,
            "seed": SEED,
        },
        "provenance": provenance.stamp("numpy", "pesq", "soxr", "onnxruntime", lists=lists, **model),
    }


def words(table: Mapping[str, Mapping]) -> list[str]:
    """The means of metrics as lines to read; metrics without a score are left out."""
    lines = []
    for name, m in table.items():
        if m["mean"] is not None:
            interval = f" [{m['low']:.3f}, {m['high']:.3f}]" if m["low"] is not None else ""
            lines.append(f"{name} {m['mean']:.3f}{interval} over {m['scored']}")
    return lines
