"""Two folders or two lists, noisy and clean, to a data directory."""

from __future__ import annotations

import math
import os
from typing import Callable, Iterator

import numpy as np

from setk import audio
from setk.audio import Location
from setk.core.errors import AudioError, UserError
from setk.core.pool import ordered_map
from setk.data.datadir import DataDir, seconds
from setk.data.index import ABSENT, IndexedList
from setk.data.lists import Faults

_Pair = tuple[int, str, tuple[Location, Location]]  # line of the first list, id, (noisy, clean)


def pairs(
    noisy: str | os.PathLike,
    clean: str | os.PathLike,
    out: str | os.PathLike,
    allow_commands: bool = False,
    jobs: int = 1,
) -> tuple[int, Faults]:
    """Write the data directory `out` of the files that `noisy` and `clean` share, by relative path or by id, with `jobs` processes.

    Returns the number of pairs, and what was left out and why: files without a partner, files that cannot be
    read, pairs that differ in length, rate or channels. Raises UserError if no pair is left.
    """
    left, right, partner, faults = _indexed(noisy, clean)
    durations = np.full(len(left), np.nan)
    for line, utt, duration, error in ordered_map(_look, _common(left, right, partner, allow_commands), jobs):
        durations[line] = duration
        if error:
            faults.append((utt, error))
    count = int(np.count_nonzero(~np.isnan(durations)))
    if not count:
        reasons = f" (first fault: {faults[0][0]}: {faults[0][1]})" if faults else ""
        raise UserError(f"{noisy} and {clean}: no usable pair among them{reasons}")

    def column(value: Callable[[int, str], object]) -> Iterator[tuple[str, object]]:
        for line in left.order():
            if not np.isnan(durations[line]):
                utt, place = left.read(line)
                yield utt, value(line, place)

    DataDir.write(
        out,
        {
            "noisy.scp": column(lambda line, place: left.location(place)),
            "clean.scp": column(lambda line, place: right.location(right.read(partner[line])[1])),
            "utt2dur": column(lambda line, place: seconds(durations[line])),
        },
    )
    return count, faults


def match(
    noisy: str | os.PathLike, clean: str | os.PathLike, allow_commands: bool = False
) -> tuple[dict[str, tuple[Location, Location]], Faults]:
    """utt -> (noisy, clean) of the ids in both, and the files that have no partner."""
    left, right, partner, faults = _indexed(noisy, clean)
    return {utt: places for _, utt, places in _common(left, right, partner, allow_commands)}, faults


def _indexed(noisy: str | os.PathLike, clean: str | os.PathLike) -> tuple[IndexedList, IndexedList, np.ndarray, Faults]:
    """Both lists, the line in the second one of each id of the first, and what has no partner."""
    faults: Faults = []
    left, right = IndexedList(noisy, faults), IndexedList(clean, faults)
    alone = [*_alone(left, right, clean), *_alone(right, left, noisy)]
    return left, right, left.lines_in(right), faults + sorted(alone, key=lambda fault: fault[0].encode())


def _common(left: IndexedList, right: IndexedList, partner: np.ndarray, allow_commands: bool) -> Iterator[_Pair]:
    """The ids in both lists."""
    for line in np.flatnonzero(partner != ABSENT).tolist():
        utt, place = left.read(line)
        other = right.read(partner[line])[1]
        yield line, utt, (left.location(place, allow_commands), right.location(other, allow_commands))


def _look(pair: _Pair) -> tuple[int, str, float, str]:
    """Line and id of a pair, and its duration in seconds, or nan and why it cannot be used."""
    line, utt, places = pair
    try:
        for place in places:
            if not place.can_be_read_again():
                raise AudioError(f"{place}: is a pipe, which can be read only once; save it as a file")
        return line, utt, pair_duration(*places), ""
    except AudioError as e:
        return line, utt, math.nan, str(e)


def _alone(table: IndexedList, other: IndexedList, where: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """The entries of a list that the `other`, of `where`, lacks."""
    for line in np.flatnonzero(table.lines_in(other) == ABSENT):
        utt, place = table.read(line)
        yield utt, f"{table.location(place)}: has no partner in {where}"


def pair_duration(noisy: str, clean: str) -> float:
    """The duration of a pair in seconds, by its headers. Raises AudioError if one cannot be read or the two differ."""
    a, b = (audio.probe(place) for place in (noisy, clean))
    if a != b:
        raise AudioError(
            f"{noisy} ({a.frames} samples, {a.rate} Hz, {a.channels} channels) and "
            f"{clean} ({b.frames}, {b.rate}, {b.channels}) do not match; replace one of them"
        )
    if not a.frames:
        raise AudioError(f"{noisy}: has no samples")
    return a.frames / a.rate
