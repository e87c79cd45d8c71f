"""Scores against the reference implementations: pystoi for STOI and ESTOI, the pesq package called directly."""

from __future__ import annotations

import math
from functools import partial
from typing import Iterator, NamedTuple, Sequence

import numpy as np

from setk.core import pool
from setk.core.errors import UserError
from setk.scoring.pairing import How, Row, signals

TOLERANCE = 1e-6
SEED = 20_261_121  # of the choice of utterances: the same table is verified on the same ones


class Difference(NamedTuple):
    """The largest absolute difference of a metric to its reference over `n` utterances, and where it is."""

    metric: str
    n: int
    largest: float
    utt: str
    undecided: int = 0  # utterances whose reference depends on random numbers


def _pesq(mode: str, ref: np.ndarray, est: np.ndarray, rate: int) -> float:
    import pesq

    return pesq.pesq(rate, ref, est, mode)


def _stoi(extended: bool, ref: np.ndarray, est: np.ndarray, rate: int) -> float:
    """nan where it depends on the random numbers that pystoi adds: ESTOI of a signal that is 0 for a while."""
    import pystoi

    found = []
    for seed in (0, 1) if extended else (0,):
        np.random.seed(seed)
        found.append(float(pystoi.stoi(ref, est, rate, extended=extended)))
    return found[0] if max(found) - min(found) <= TOLERANCE else math.nan


REFERENCES = {
    "pesq_wb": partial(_pesq, "wb"),
    "pesq_nb": partial(_pesq, "nb"),
    "stoi": partial(_stoi, False),
    "estoi": partial(_stoi, True),
}


def referenced(names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that have a reference implementation. Raises UserError if none has."""
    found = tuple(name for name in names if name in REFERENCES)
    if not found:
        raise UserError(
            f"--verify: no reference implementation of {', '.join(names)}; add one of {', '.join(REFERENCES)} to --metrics"
        )
    return found


def agree(differences: Sequence[Difference]) -> bool:
    """Whether there is a difference for each metric, and all are within TOLERANCE."""
    return all((d.n or d.undecided) and d.largest <= TOLERANCE for d in differences)


def _can_be_verified(row: Row, names: Sequence[str]) -> bool:
    """Whether a row has a score with a reference, and its audio can be read a second time (a pipe cannot)."""
    return (
        any(not math.isnan(row.scores[name]) for name in names)
        and row.pair.ref.can_be_read_again()
        and row.pair.est.can_be_read_again()
    )


class Sample:
    """`count` random rows of a score table of any length, each with the same probability (J. S. Vitter, "Random Sampling with a
    Reservoir", ACM TOMS 11(1), 1985, algorithm R). Pipes, and scores that are nan, are left out."""

    def __init__(self, how: How, count: int):
        self._names, self._count, self._seen = referenced(how.names), count, 0
        self._rng = np.random.default_rng(SEED)
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Add a row of the table."""
        if not _can_be_verified(row, self._names):
            return
        self._seen += 1
        place = len(self.rows) if self._seen <= self._count else int(self._rng.integers(self._seen))
        if place < self._count:
            self.rows[place : place + 1] = [row]


def verify(rows: Sequence[Row], how: How, jobs: int = 1) -> list[Difference]:
    """Recompute the `rows` of a Sample with the reference implementations, in `jobs` processes.

    The signals are read again. Returns a Difference for each metric that has a reference.
    """
    names = referenced(how.names)
    table = {name: [] for name in names}
    for utt, differences in pool.ordered_map(partial(_differences, how=how), rows, jobs):
        for name, value in differences.items():
            table[name].append((value, utt))
    return [_largest(name, found) for name, found in table.items()]


def _largest(metric: str, found: Sequence[tuple[float, str]]) -> Difference:
    decided = [one for one in found if not math.isnan(one[0])]
    return Difference(metric, len(decided), *max(decided, default=(0.0, "")), len(found) - len(decided))


def _differences(row: Row, how: How) -> tuple[str, dict[str, float]]:
    ref, est, _, rate, _ = signals(row.pair, how)
    ref, est = ref.astype(np.float64), est.astype(np.float64)
    own = {name: row.scores[name] for name in referenced(how.names) if not math.isnan(row.scores[name])}
    return row.pair.utt, {name: abs(value - REFERENCES[name](ref, est, rate)) for name, value in own.items()}


def words(differences: Sequence[Difference]) -> Iterator[str]:
    """Each difference as one line to read."""
    for d in differences:
        if d.undecided:
            yield f"verify: {d.metric}: left out {d.undecided}: there the reference depends on random numbers"
        elif not d.n:
            yield f"verify: {d.metric}: no utterance can be recomputed"
        if d.n:
            verdict = "" if d.largest <= TOLERANCE else f", above {TOLERANCE:g}"
            yield f"verify: {d.metric}: largest difference to the reference {d.largest:.3g} over {d.n} utterances ({d.utt}){verdict}"
