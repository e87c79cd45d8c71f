"""A data directory in parts of about equal duration."""

from __future__ import annotations

import heapq
import math
from pathlib import Path
from typing import Iterator

import numpy as np

from setk.core.errors import UserError
from setk.data.datadir import TABLES, DataDir, described
from setk.data.index import ABSENT, IndexedList


def split(data: DataDir, parts: int, by_speaker: bool = False) -> list[tuple[Path, int, float]]:
    """Write DIR/splitN/1 ... N = `parts`, data directories that share the utterances of DIR; path, utterances and
    seconds of each.

    The longest remaining utterance goes to the shortest part, with `by_speaker` all of a speaker (utt2spk) at once;
    so the same directory is always split in the same way. Of speech and noise, the speech is split; noise and room
    responses go completely to each part. Durations are those of utt2dur, or of the wavs. Raises UserError where a
    part would be empty, or a speaker is not known.
    """
    tables = data.indexed()
    main = tables[data.streams[0]]
    order = np.asarray(main.order())
    length = np.array([_duration(data, tables, line) for line in order])
    groups, group = _speakers(data, tables, order) if by_speaker else (len(order), np.arange(len(order)))
    if not 1 <= parts <= groups:
        what = "speakers" if by_speaker else "utterances"
        raise UserError(f"{data.path}: {groups} {what} cannot be split into {parts} parts; choose 1 ... {groups}")
    part_of_group, totals = _assign(np.bincount(group, weights=length, minlength=groups), parts)
    part_of = np.empty(len(main), np.int32)
    part_of[order] = part_of_group[group]

    written = []
    own = {name: _lines_by_part(main, tables[name], part_of, parts) for name in tables if _is_shared(data, name)}
    for part in range(parts):
        lists = {
            name if name in TABLES else f"{name}.scp": _rows(
                data, name, table, own[name][part] if name in own else None
            )
            for name, table in tables.items()
            if len(table)
        }
        folder = data.path / f"split{parts}" / str(part + 1)
        DataDir.write(folder, lists)
        written.append((folder, int(np.count_nonzero(part_of == part)), totals[part]))
    return written


def _speakers(data: DataDir, tables: dict[str, IndexedList], order: np.ndarray) -> tuple[int, np.ndarray]:
    """How many speakers there are, and the number, in C order, of that of each utterance in `order` [n]: [n]."""
    numbers: dict[str, int] = {}
    found = np.empty(len(order), np.int32)
    for i, line in enumerate(order):
        utt, _ = tables[data.streams[0]].read(line)
        speaker = tables["utt2spk"].get(utt) if "utt2spk" in tables else None
        if speaker is None:
            raise UserError(f"{data.path}/utt2spk: {utt} has no speaker, which --by-speaker needs; complete the table")
        found[i] = numbers.setdefault(speaker, len(numbers))
    names = sorted(numbers, key=str.encode)
    place = np.empty(len(names), np.int32)
    for number, name in enumerate(names):
        place[numbers[name]] = number
    return len(names), place[found]


def _assign(durations: np.ndarray, parts: int) -> tuple[np.ndarray, list[float]]:
    """The part, 0 ... parts - 1, of each group of these durations [n], longest first, groups in C order: [n]; the seconds of each part."""
    heap = [(0.0, part) for part in range(parts)]
    part_of = np.empty(len(durations), np.int32)
    for group in np.argsort(-durations, kind="stable"):
        total, part = heap[0]
        part_of[group] = part
        heapq.heapreplace(heap, (total + float(durations[group]), part))
    return part_of, [total for total, _ in sorted(heap, key=lambda entry: entry[1])]


def _is_shared(data: DataDir, name: str) -> bool:
    """Whether the utterances of a list or table are those that the parts share."""
    if name in TABLES:
        return described(name, data.streams) == data.streams[0]
    return data.is_pairs or name == data.streams[0]


def _lines_by_part(main: IndexedList, table: IndexedList, part_of: np.ndarray, parts: int) -> list[np.ndarray]:
    """The lines of a table that belong to each part, in C order; `part_of` [n] is the part of each line of the `main` list."""
    lines = np.asarray(table.order(), np.int32)
    line_of_main = table.lines_in(main)[lines]
    known = line_of_main != ABSENT
    lines, part = lines[known], part_of[line_of_main[known]]
    by_part = np.argsort(part, kind="stable")
    return np.split(lines[by_part], np.searchsorted(part[by_part], np.arange(1, parts)))


def _rows(data: DataDir, name: str, table: IndexedList, lines: np.ndarray | None) -> Iterator[tuple[str, str]]:
    for line in table.order() if lines is None else lines:
        utt, value = table.read(line)
        yield utt, value if name in TABLES else table.location(value, data.allow_commands)


def _duration(data: DataDir, tables: dict[str, IndexedList], line: int) -> float:
    utt, place = tables[data.streams[0]].read(line)
    text = tables["utt2dur"].get(utt) if "utt2dur" in tables else None
    if text is None:
        info = tables[data.streams[0]].location(place, data.allow_commands).probe()
        return info.frames / info.rate
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{data.path}/utt2dur: {utt} has {text!r}; expected a number of seconds")
    return seconds
