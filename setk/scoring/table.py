"""Score tables of any length: scores as numbers, and of each id its hash and its place in the file."""

from __future__ import annotations

import math
import sys
from array import array
from numbers import Real
from typing import Any, BinaryIO, Iterable, Mapping, Sequence

import numpy as np

from setk.core.errors import UserError
from setk.core.files import check_readable
from setk.data.index import HashIndex, Lines, seekable
from setk.metrics import METRICS


class Table:
    """A score table: `values` [n, len(names)] are scores, nan where one is missing; `ids` [n] is read by line."""

    def __init__(self, names: tuple[str, ...], values: np.ndarray, index: HashIndex, ids: Sequence[str] | Ids):
        self.names, self.values, self.index, self._ids = names, values, index, ids

    @classmethod
    def of(cls, names: Sequence[str], rows: Mapping[str, Sequence[float]]) -> Table:
        """A table of rows: utt -> scores in the order of `names`."""
        values = np.array(list(rows.values()), float).reshape(len(rows), len(names))
        return cls(tuple(names), values, HashIndex(array("q", [hash(utt.encode()) for utt in rows])), list(rows))

    def with_values(self, values: np.ndarray) -> Table:
        """A table of the same metrics and utterances with other scores."""
        return Table(self.names, values, self.index, self._ids)

    def __len__(self) -> int:
        return len(self.values)

    def utt(self, line: int) -> str:
        """The id of a line, 0 for the first one."""
        return self._ids[line]

    def row(self, utt: str) -> dict[str, float]:
        """metric -> score of an utterance; empty if the table lacks it."""
        line = self.index.find(hash(utt.encode()))
        return {} if line is None else dict(zip(self.names, self.values[line].tolist()))

    def column(self, metric: str) -> np.ndarray:
        """The scores of a metric [n]; empty if the table lacks it."""
        return self.values[:, self.names.index(metric)] if metric in self.names else np.empty(0)

    def lines_in(self, other: Table) -> np.ndarray:
        """The line of each utterance [n] in another table: [n], ABSENT where it lacks the utterance."""
        return other.index.find_all(self.index)


class Ids:
    """The ids of a score table, read from its file."""

    def __init__(self, file: BinaryIO, starts: array):
        self._lines = Lines(file, np.frombuffer(starts, np.int64))

    def __getitem__(self, line: int) -> str:
        return self._lines.text(line).partition("\t")[0]


def read_table(path: str) -> Table:
    """Read a table of se-score from a file or, for `-`, standard input.

    Raises UserError with file and line on anything else: another header, a truncated line, a duplicate
    utterance, a value that is not a number.
    """
    name = "standard input" if path == "-" else path
    file = _open(path)
    head = file.readline()
    if not head.strip(b"\n"):
        raise UserError(f"{name}:1: is empty; expected a score table of se-score")
    names, start = _header(_text(head, name, 1), name), len(head)
    starts, hashes, values = array("q"), array("q"), array("d")
    for number, line in enumerate(file, 2):
        utt, *fields = _text(line, name, number).split("\t")
        if len(fields) != len(names) + 1:
            raise UserError(
                f"{name}:{number}: has {len(fields) + 1} fields where the header has {len(names) + 2}; score again"
            )
        for metric, text in zip(names, fields):
            values.append(_number(text, name, number, metric, utt))
        starts.append(start)
        hashes.append(hash(utt.encode()))
        start += len(line)
    index, ids = HashIndex(hashes), Ids(file, starts)
    for repeated in index.repeated():
        raise UserError(f"{name}:{repeated + 2}: duplicate utterance {ids[repeated]}; remove one of the lines")
    return Table(names, np.frombuffer(values).reshape(-1, len(names)), index, ids)


def _open(path: str) -> BinaryIO:
    """The bytes of a table, in a file that can be read at any place."""
    check_readable(path)
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such score table") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; expected a score table of se-score") from None
    return seekable(file)


def _text(line: bytes, name: str, number: int) -> str:
    """A line without its line break."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise UserError(f"{name}:{number}: is not text; expected a score table of se-score") from None
    if not text.endswith("\n"):
        raise UserError(f"{name}:{number}: the last line is truncated; let se-score finish, or run it again")
    return text.rstrip("\r\n")


def _header(line: str, name: str) -> tuple[str, ...]:
    first, *names, last = line.split("\t") if "\t" in line else ("", "")
    if (first, last) != ("utt", "error") or not names:
        raise UserError(
            f"{name}:1: not a score table: expected 'utt', metrics and 'error' with tabs between, as se-score "
            "writes without --jsonl"
        )
    for i, metric in enumerate(names):
        if metric not in METRICS:
            raise UserError(f"{name}:1: '{metric}' is not a metric of se-score; remove the column")
        if metric in names[:i]:
            raise UserError(f"{name}:1: {metric} has two columns; keep one of them")
    return tuple(names)


def _number(text: str, name: str, number: int, metric: str, utt: str) -> float:
    """A finite number or nan; `float` alone would also accept inf, blanks and underscores."""
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value) or "_" in text or text != text.strip():
        raise UserError(
            f"{name}:{number}: {metric} of {utt} is '{text}', which is neither a number nor nan; score again"
        )
    return value


def _score(value: Any, number: int, metric: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, Real) or math.isinf(value):
        raise UserError(f"row {number}: {metric} is {value!r}, which is neither a finite number nor nan nor None")
    return float(value)


def as_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows {"utt": id, metric: score or None, ...} as a Table; a key "error" is ignored. Raises UserError on other rows."""
    names: tuple[str, ...] = ()
    table: dict[str, tuple[float, ...]] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("utt"), str):
            raise UserError(f"row {number}: has no 'utt' that is text")
        columns = tuple(name for name in row if name not in ("utt", "error"))
        names = names or columns
        if set(columns) != set(names):
            raise UserError(f"row {number}: has {', '.join(columns) or 'no metrics'}, the first row {', '.join(names)}")
        if row["utt"] in table:
            raise UserError(f"row {number}: duplicate utterance {row['utt']}")
        table[row["utt"]] = tuple(_score(row[name], number, name) for name in names)
    for name in names:
        if name not in METRICS:
            raise UserError(f"'{name}' is not a metric of se-score; remove it from the rows")
    return Table.of(names, table)
