"""Summary of a score table: means with a bootstrap interval, over all utterances and over groups of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Iterable, Mapping, Sequence

import numpy as np

from setk.core import files, provenance
from setk.metrics import dnsmos
from setk.scoring.pairing import How, Row

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

    `mean` is None without scores, `low` and `high` with fewer than two: one utterance shows no
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


def means(rows: Sequence[Row], names: Sequence[str]) -> dict[str, dict]:
    """`summarise` of each of `names`."""
    return {name: summarise([row.scores[name] for row in rows]) for name in names}


def groups(rows: Sequence[Row], names: Sequence[str], group_of: Mapping[str, str]) -> dict[str, dict]:
    """`means` of each group; utterances that `group_of` lacks are in none. Groups are sorted, numbers as numbers."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        if row.pair.utt in group_of:
            members.setdefault(group_of[row.pair.utt], []).append(row)
    return {group: means(members[group], names) for group in sorted(members, key=group_order)}


def group_order(group: str) -> tuple[float, str]:
    try:
        value = float(group)
    except ValueError:
        value = math.inf
    return (math.inf if math.isnan(value) else value, group)


def figures(rows: Sequence[Row], names: Sequence[str], tables: Mapping[str, Mapping[str, str]]) -> dict:
    """Means and counts of `rows`, overall and by the groups of each of `tables` (name -> utt -> group), as plain values."""
    failed = {row.pair.utt: row.error for row in rows if row.error}
    return {
        "utterances": len(rows),
        "scored": len(rows) - len(failed),
        "failed": failed,
        "metrics": means(rows, names),
        "groups": {name: groups(rows, names, group_of) for name, group_of in tables.items()},
    }


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
    """`means` as lines to read; metrics without a score are left out."""
    lines = []
    for name, m in table.items():
        if m["mean"] is not None:
            interval = f" [{m['low']:.3f}, {m['high']:.3f}]" if m["low"] is not None else ""
            lines.append(f"{name} {m['mean']:.3f}{interval} over {m['scored']}")
    return lines
