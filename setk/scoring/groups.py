"""Groups of utterances for means by group: `--by TABLE` and `--bins`."""

from __future__ import annotations

import math
from array import array
from typing import Iterable, Mapping, Sequence

import numpy as np

from setk.core.errors import UserError
from setk.data.index import ABSENT, HashIndex, IndexedList
from setk.metrics import METRICS
from setk.scoring.table import Table, read_table


class Groups:
    """The group of each utterance, of a list of any length: a number, ABSENT without one, 16 bytes per utterance. `names` are those of the
    groups by number, `ordered` as tables show them: intervals and numbers rise, then other names."""

    def __init__(self, index: HashIndex, numbers: array, names: Sequence[str], edges: Sequence[float] | None = None):
        self.names, self._index, self._numbers = names, index, np.frombuffer(numbers, np.int32)
        self.ordered = [name for name in bin_names(edges) if name in names] if edges else sorted(names, key=_rank)

    @classmethod
    def of(cls, group_of: Mapping[str, str]) -> Groups:
        """The groups of a mapping utt -> group."""
        index = HashIndex(array("q", [hash(utt.encode()) for utt in group_of]))
        return cls(index, *_numbered(group_of.values()))

    def number(self, utt: str) -> int:
        """The number of the group of an utterance; ABSENT without one."""
        line = self._index.find(hash(utt.encode()))
        return ABSENT if line is None else int(self._numbers[line])

    def numbers_of(self, table: Table) -> np.ndarray:
        """The number of the group of each utterance of a table [n]: [n], ABSENT without one."""
        lines = self._index.find_all(table.index)
        if not len(self._numbers):
            return lines
        return np.where(lines == ABSENT, ABSENT, self._numbers[lines])


def _rank(group: str) -> tuple[float, str]:
    try:
        value = float(group)
    except ValueError:
        value = math.inf
    return (math.inf if math.isnan(value) else value, group)


def _numbered(groups: Iterable[str | None]) -> tuple[array, list[str]]:
    """A number for each group, ABSENT for None, and the names by number."""
    numbers, known = array("i"), dict[str, int]()
    for group in groups:
        numbers.append(ABSENT if group is None else known.setdefault(group, len(known)))
    return numbers, list(known)


def split(spec: str) -> tuple[str, str]:
    """The file of `--by TABLE`, and METRIC of SCORES.tsv:METRIC; empty for lines 'utt-id group'."""
    path, _, metric = spec.rpartition(":")
    return (path, metric) if path and metric in METRICS else (spec, "")


def read_groups(spec: str, bins: str | None = None) -> Groups:
    """The groups of `--by TABLE`: lines 'utt-id group', or METRIC of a score table as SCORES.tsv:METRIC; with `bins`, the intervals that
    their numbers are in. Raises UserError if a group is then not a number, and on a table without the metric."""
    edges = parse_bins(bins) if bins else None
    path, metric = split(spec)
    if metric:
        table = read_table(path)
        if metric not in table.names:
            raise UserError(f"--by {spec}: {path} has no column {metric}")
        values = table.column(metric).tolist()
        return Groups(table.index, *_numbered(bin_name(v, edges) if edges else repr(v) for v in values), edges)
    listed = IndexedList(spec)
    rows = (listed.read(line) for line in range(len(listed)))
    return Groups(
        listed.index,
        *_numbered(_binned(utt, group, edges, f"--by {spec}") if edges else group for utt, group in rows),
        edges,
    )


# ── intervals ───────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_bins(text: str) -> list[float]:
    """The edges of `--bins`, as in `-6,0,6`. Raises UserError unless they are finite numbers that rise."""
    try:
        edges = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--bins {text}: write numbers with commas, as in 0,6,12") from None
    if not all(map(math.isfinite, edges)) or any(b <= a for a, b in zip(edges, edges[1:])):
        raise UserError(f"--bins {text}: the numbers must rise, as in 0,6,12")
    return edges


def bin_name(value: float, edges: Sequence[float]) -> str | None:
    """The half-open interval between `edges` that holds `value`; None for nan."""
    if math.isnan(value):
        return None
    for i, edge in enumerate(edges):
        if value < edge:
            return f"below {_edge(edge)}" if i == 0 else f"{_edge(edges[i - 1])} to {_edge(edge)}"
    return f"{_edge(edges[-1])} and above"


def bin_names(edges: Sequence[float]) -> list[str]:
    """All names of `bin_name`, in order."""
    between = (f"{_edge(a)} to {_edge(b)}" for a, b in zip(edges, edges[1:]))
    return [f"below {_edge(edges[0])}", *between, f"{_edge(edges[-1])} and above"]


def _edge(value: float) -> str:
    """The shortest text that no other number has."""
    return short if float(short := f"{value:g}") == value else repr(value).removesuffix(".0")


def _binned(utt: str, group: str, edges: Sequence[float], where: str) -> str | None:
    try:
        return bin_name(float(group), edges)
    except ValueError:
        raise UserError(f"{where}: the group of {utt} is '{group}', not a number; leave out --bins") from None
