"""Find and fix the faults of a data directory."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from dataclasses import astuple, dataclass, field
from itertools import count
from pathlib import Path
from typing import Iterable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from setk import audio
from setk.audio import Location
from setk.core.errors import AudioError, UserError
from setk.data.copies import Place, SeenAudio
from setk.data.datadir import LISTS, TABLES, TEXTS, DataDir, described, seconds as as_text
from setk.data.index import ABSENT, IndexedList
from setk.data.lists import Table
from setk.core.pool import ordered_map

FAULT, REMARK = "fault", "remark"  # a remark does not exclude the utterance
_CLIPPED_RUN = 3  # samples in a row at full scale
_DROP = "make the file again, or drop it with se-prep fix"
_CONVERT = "convert the list with se-prep resample LIST OUT, or drop it with se-prep fix"


@dataclass(frozen=True)
class Fault:
    """One line of the report; `line` 0 is the complete file, `utt` is empty where it does not concern one utterance."""

    file: str
    line: int
    utt: str
    grade: str
    fault: str
    fix: str

    HEADER = "file\tline\tutt\tgrade\tfault\tfix"

    def text(self) -> str:
        return "\t".join(str(value).replace("\t", " ") for value in astuple(self))


class Task(NamedTuple):
    """An utterance to examine: its place in the first list, and its line in each list, with the location."""

    line: int
    utt: str
    places: tuple[tuple[Place, Location], ...]
    rate: int | None
    with_digests: bool


class Findings(NamedTuple):
    """The faults of an utterance, the seconds of its first wav, and, where they are asked for, digests of its wavs."""

    faults: list[Fault]
    seconds: float
    digests: list[tuple[Place, bytes]]


@dataclass
class Found:
    """What a check has found so far: the usable lines of the lists and tables; by stream (a pair counts as noisy) the seconds of each
    line of its list, nan where the utterance has a fault."""

    tables: dict[str, IndexedList] = field(default_factory=dict)
    seconds: dict[str, np.ndarray] = field(default_factory=dict)

    def seconds_of(self, stream: str, utt: str) -> float:
        """The seconds of an utterance; nan if it has a fault, or is not in the list."""
        line = self.tables[f"{stream}.scp"].line(utt)
        return math.nan if line is None else float(self.seconds[stream][line])

    def totals(self) -> dict[str, tuple[int, float]]:
        """Number and seconds of the utterances without a fault, by stream."""
        return {
            stream: (int(np.count_nonzero(~np.isnan(column))), float(np.nansum(column)))
            for stream, column in self.seconds.items()
        }


def check_all(
    directories: Iterable[str | os.PathLike], rate: int | None = 16000, jobs: int = 1, allow_commands: bool = False
) -> Iterator[tuple[DataDir, Found, Iterator[Fault]]]:
    """Check data directories one after the other: each with what is `Found` in it, and its faults, to be used up first.

    Audio that is in two of the directories is a fault of the later one. Raises UserError if a directory is given twice.
    """
    paths = list(directories)
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UserError(f"{' '.join(map(str, paths))}: a directory is given twice; give each once")
    seen = SeenAudio() if len(paths) > 1 else None
    for data in [DataDir(path, allow_commands) for path in paths]:
        found = Found()
        yield data, found, check(data, found, rate, jobs, seen)


def check(
    data: DataDir, found: Found, rate: int | None = 16000, jobs: int = 1, seen: SeenAudio | None = None
) -> Iterator[Fault]:
    """Yield every fault of a data directory; `found` lists in the end what is good.

    Lists and tables are checked first, then each wav is read completely. `rate` None accepts any rate that the files of
    one utterance share. `seen` has the audio of other directories, which must not occur again in this one, and is
    extended by that of this one. Within a directory audio may occur again: one clean utterance in many noises.
    """
    for name in (*(f"{stream}.scp" for stream in data.streams), *TABLES):
        if (data.path / name).exists():
            yield from _read_leniently(data.path / name, found)
    sets = [data.streams] if data.is_pairs else [(stream,) for stream in data.streams]
    for streams in sets:
        lists = [found.tables[f"{stream}.scp"] for stream in streams]
        yield from _unpaired(data, streams, lists)
        good = found.seconds[streams[0]] = np.full(len(lists[0]), np.nan)
        tasks = _tasks(data, streams, lists, rate, seen is not None)
        for line, utt, findings in ordered_map(_examine, tasks, jobs):
            faults = findings.faults + (_copies(utt, findings.digests, seen) if seen else [])
            if not any(fault.grade == FAULT for fault in faults):
                good[line] = findings.seconds
                if seen:
                    seen.add(findings.digests)
            yield from faults
        for name in TABLES:
            if name in found.tables and described(name, data.streams) == streams[0]:
                yield from _check_table(data, found, name, streams[0])
    if seen:
        seen.close()


def _tasks(
    data: DataDir, streams: Sequence[str], lists: Sequence[IndexedList], rate: int | None, with_digests: bool
) -> Iterator[Task]:
    """Every utterance that is in all lists, in the order of the first."""
    first = lists[0]
    lines = np.stack([first.lines_in(table) for table in lists])
    for line in np.flatnonzero((lines != ABSENT).all(0)):
        places = []
        for stream, table, own in zip(streams, lists, lines[:, line]):
            utt, value = table.read(own)
            place = Place(str(data.path / f"{stream}.scp"), table.number(own), table.start(own), value)
            places.append((place, table.location(value, data.allow_commands)))
        yield Task(int(line), utt, tuple(places), rate, with_digests)


def _copies(utt: str, digests: list[tuple[Place, bytes]], seen: SeenAudio) -> list[Fault]:
    faults = []
    for place, digest in digests:
        if first := seen.find(digest):
            what = f"{place.value}: is the same audio as {first.value} ({first.file}:{first.line})"
            remedy = "drop one; se-prep fix keeps that of the directory given first"
            faults.append(Fault(place.file, place.line, utt, FAULT, what, remedy))
    return faults


def _read_leniently(path: Path, found: Found) -> Iterator[Fault]:
    """Add the usable lines of a list or table to `found`, and yield the faults of the others."""
    name = str(path)
    try:
        if path.is_dir():
            raise UserError("is not a text file")
        table = found.tables[path.name] = IndexedList(path, lenient=True)
    except UserError as e:
        found.tables[path.name] = IndexedList.merged([])
        fault, _, remedy = str(e).removeprefix(f"{path}: ").partition("; ")
        yield Fault(name, 0, "", FAULT, fault, remedy or "write 'utt-id path' on each line")
        return
    faults = 0
    for number, utt, reason in table.refused():
        fault, _, remedy = reason.partition("; ")
        faults += 1
        yield Fault(name, number, utt, FAULT, fault, remedy or "write 'utt-id path'")
    if not len(table) and not faults:
        yield Fault(name, 0, "", FAULT, "is empty", "make the directory again")


def _unpaired(data: DataDir, streams: Sequence[str], lists: Sequence[IndexedList]) -> Iterator[Fault]:
    for stream, table in zip(streams, lists):
        for other, partner in zip(streams, lists):
            for line in np.flatnonzero(table.lines_in(partner) == ABSENT):
                what, remedy = f"is not in {data.path / other}.scp", "add it there, or drop it with se-prep fix"
                name = str(data.path / f"{stream}.scp")
                yield Fault(name, table.number(line), table.read(line)[0], FAULT, what, remedy)


def _examine(task: Task) -> tuple[int, str, Findings]:
    """Read the wavs of one utterance; its place in the first list, its id and the findings."""
    faults: list[Fault] = []
    digests: list[tuple[Place, bytes]] = []
    shapes = []

    def fault(entry: Place, what: str, remedy: str = _DROP, grade: str = FAULT) -> None:
        faults.append(Fault(entry.file, entry.line, task.utt, grade, what, remedy))

    for entry, location in task.places:
        try:
            x, found = location.read()
        except AudioError as e:
            fault(entry, str(e))
            continue
        try:
            audio.check_mono(entry.value, len(x), found, task.rate)
        except AudioError as e:
            fault(entry, str(e), _CONVERT)
            continue
        shapes.append((entry, x.shape[1], found))
        if x.shape[1] == 0:
            fault(entry, f"{entry.value}: has no samples")
        elif not x.any():
            fault(entry, f"{entry.value}: is silent")
        elif np.abs(x).max() <= audio.LOST:
            fault(entry, f"{entry.value}: is below what 16 bits hold, and would be silent in shards")
        else:
            if clipped := _clipped_samples(x[0]):
                fault(entry, f"{entry.value}: {clipped} samples are clipped", "record or scale it lower", REMARK)
            if task.with_digests:
                # Of the samples, so that a copy is found in another format too.
                digests.append((entry, hashlib.blake2b(x[0], digest_size=16).digest()))
    for entry, length, found in shapes[1:]:
        if (length, found) != shapes[0][1:]:
            first, frames, rate = shapes[0]
            what = f"{entry.value}: has {length} samples at {found} Hz, {first.value} {frames} at {rate}"
            fault(entry, what, _DROP if found == rate else _CONVERT)
    seconds = shapes[0][1] / shapes[0][2] if shapes else 0.0
    return task.line, task.utt, Findings(faults, seconds, digests)


def _clipped_samples(x: np.ndarray) -> int:
    """Samples of [n] in runs of at least _CLIPPED_RUN at full scale."""
    flat = np.concatenate([[False], np.abs(x) >= audio.FULL_SCALE, [False]])
    starts, ends = np.flatnonzero(np.diff(flat.astype(np.int8))).reshape(-1, 2).T
    runs = ends - starts
    return int(runs[runs >= _CLIPPED_RUN].sum())


def _check_table(data: DataDir, found: Found, name: str, stream: str) -> Iterator[Fault]:
    """Faults of a table against the list that it describes."""
    table, utts, path = found.tables[name], found.tables[f"{stream}.scp"], str(data.path / name)
    for line in range(len(table)):
        utt, value = table.read(line)
        if utt not in utts:
            what, remedy = "is in no list", "drop the line; se-prep fix does"
        elif name not in TEXTS and not _is_number(value, finite=name == "utt2dur"):
            what, remedy = f"{value} is not a number", "write one, or drop the line; se-prep fix does"
        elif name == "utt2dur" and abs(float(value) - found.seconds_of(stream, utt)) > 0.01:
            seconds = found.seconds_of(stream, utt)
            what = f"{value} s is not the duration of the wav ({seconds:.4f})"
            remedy = "se-prep fix writes it again"
        else:
            continue
        yield Fault(path, table.number(line), utt, FAULT, what, remedy)
    missing = np.flatnonzero(utts.lines_in(table) == ABSENT) if len(table) else []
    if len(missing):
        first = min(utts.read(line)[0] for line in missing)
        if name == "noise2kind":
            # Training draws a kind before a noise.
            found.seconds[stream][missing] = np.nan
            what = f"has no kind; {len(missing)} noises in all have none"
            yield Fault(path, 0, first, FAULT, what, "complete the table, or remove it; se-prep fix drops these noises")
        else:
            what = f"has no line; {len(missing)} utterances in all have none"
            yield Fault(path, 0, first, REMARK, what, "complete the table, or remove it")


def _is_number(text: str, finite: bool = False) -> bool:
    """Whether a table may have `text` as a number; that of an unknown SNR is nan."""
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) or (math.isnan(number) and not finite)


def fix(data: DataDir, found: Found) -> Path:
    """Write the directory again with the utterances that the finished check `found` good; the old lists are copied to
    DIR/.backup (.backup.2 and so on after earlier fixes). Raises UserError if no utterance is good."""
    totals = found.totals()
    if not all(totals["noisy" if data.is_pairs else stream][0] for stream in data.streams):
        raise UserError(f"{data.path}: no good utterance would be left; make the directory again")
    return _write_fixed(data, found, {name: _good_rows(data, found, name) for name in found.tables})


def _good_rows(data: DataDir, found: Found, name: str) -> Iterator[tuple[str, str]]:
    """The lines of a list or table that a fix keeps; those of utt2dur are written again."""
    first = data.streams[0]
    stream = described(name, data.streams) if name in TABLES else first if data.is_pairs else name.removesuffix(".scp")
    for utt, value in found.tables[f"{first}.scp" if name == "utt2dur" else name].sorted():
        seconds = found.seconds_of(stream, utt)
        if not math.isnan(seconds):
            if name == "utt2dur":
                yield utt, as_text(seconds)
            elif name in (*LISTS, *TEXTS) or _is_number(value):
                yield utt, value


def _write_fixed(data: DataDir, found: Found, tables: Mapping[str, Table]) -> Path:
    names = (".backup" if n == 1 else f".backup.{n}" for n in count(1))
    backup = next(path for name in names if not (path := data.path / name).exists())
    backup.mkdir()
    for name in found.tables:
        shutil.copy2(data.path / name, backup / name)
    DataDir.write(data.path, tables)
    return backup
