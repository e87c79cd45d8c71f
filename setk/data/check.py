"""Find and fix the faults of a data directory."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from dataclasses import astuple, dataclass, field
from itertools import count
from pathlib import Path
from typing import Iterable, Iterator

import numpy as np

from setk import audio
from setk.audio import Location
from setk.core.errors import AudioError, UserError
from setk.data.datadir import LISTS, TABLES, DataDir
from setk.data.lists import parse_table
from setk.core.pool import ordered_map

FAULT, REMARK = "fault", "remark"  # a remark does not exclude the utterance
_FULL_SCALE = 32767 / 32768
_CLIPPED_RUN = 3  # samples in a row at full scale
_DROP = "make the file again, or drop it with se-prep fix"


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


@dataclass(frozen=True)
class Entry:
    """One line of a list or table; `location` is that of a wav list."""

    file: str
    line: int
    value: str
    location: Location


@dataclass
class Found:
    """What a check has found so far: the number of utterances, the seconds of those without a fault by stream (a pair
    counts as noisy), and the lines of the lists."""

    utterances: int = 0
    good: dict[str, dict[str, float]] = field(default_factory=dict)
    tables: dict[str, dict[str, Entry]] = field(default_factory=dict)


def check_all(
    directories: Iterable[str | os.PathLike], rate: int | None = 16000, jobs: int = 1, allow_commands: bool = False
) -> Iterator[tuple[DataDir, Found, Iterator[Fault]]]:
    """Check data directories one after the other: each with what is `Found` in it, and its faults, to be used up first.

    Audio that is in two of the directories is a fault of the later one. Raises UserError if a directory is given twice.
    """
    paths = list(directories)
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UserError(f"{' '.join(map(str, paths))}: a directory is given twice; give each once")
    seen: dict[bytes, Entry] | None = {} if len(paths) > 1 else None
    for data in [DataDir(path, allow_commands) for path in paths]:
        found = Found()
        yield data, found, check(data, found, rate, jobs, seen)


def check(
    data: DataDir, found: Found, rate: int | None = 16000, jobs: int = 1, seen: dict[bytes, Entry] | None = None
) -> Iterator[Fault]:
    """Yield every fault of a data directory; `found` lists in the end what is good.

    Lists and tables are checked first, then each wav is read completely. `rate` None accepts any rate that the files of
    one utterance share. `seen` has the audio of other directories, which must not occur again in this one, and is
    extended by that of this one. Within a directory audio may occur again: one clean utterance in many noises.
    """
    own: dict[bytes, Entry] = {}
    for name in (*(f"{stream}.scp" for stream in data.streams), *TABLES):
        if (data.path / name).exists():
            found.tables[name], faults = _read_leniently(data, name)
            yield from faults
    sets = [data.streams] if data.is_pairs else [(stream,) for stream in data.streams]
    for streams in sets:
        lists = {stream: found.tables[f"{stream}.scp"] for stream in streams}
        yield from _unpaired(data, lists)
        good = found.good[streams[0]] = {}
        for utt, faults, duration, digests in _examine_all(lists, rate, jobs, seen is not None):
            found.utterances += 1
            faults += _copies(utt, digests, seen or {})
            if not any(fault.grade == FAULT for fault in faults):
                good[utt] = duration
                own |= {digest: entry for entry, digest in digests}
            yield from faults
        if streams[0] in ("noisy", "speech"):
            yield from _check_tables(data, found, lists[streams[0]], good)
    if seen is not None:
        seen |= own


def _examine_all(
    lists: dict[str, dict[str, Entry]], rate: int | None, jobs: int, with_digests: bool
) -> Iterator[tuple[str, list[Fault], float, list[tuple[Entry, bytes]]]]:
    """_examine of every utterance that is in all lists, in the order of the first."""
    first, *others = lists.values()
    tasks = [
        (utt, tuple(table[utt] for table in lists.values()), rate, with_digests)
        for utt in first
        if all(utt in table for table in others)
    ]
    for task, result in zip(tasks, ordered_map(_examine, tasks, jobs)):
        yield task[0], *result


def _copies(utt: str, digests: list[tuple[Entry, bytes]], seen: dict[bytes, Entry]) -> list[Fault]:
    faults = []
    for entry, digest in digests:
        if first := seen.get(digest):
            what = f"{entry.value}: is the same audio as {first.value} ({first.file}:{first.line})"
            faults.append(
                Fault(
                    entry.file,
                    entry.line,
                    utt,
                    FAULT,
                    what,
                    "drop one; se-prep fix keeps that of the directory given first",
                )
            )
    return faults


def _read_leniently(data: DataDir, file: str) -> tuple[dict[str, Entry], list[Fault]]:
    """The usable lines of a list, and the faults of the others."""
    table: dict[str, Entry] = {}
    faults = []
    path = data.path / file
    name = str(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (UnicodeDecodeError, IsADirectoryError):
        return {}, [Fault(name, 0, "", FAULT, "is not a text file", "write 'utt-id path' on each line")]
    for number, line in enumerate(lines, 1):
        try:
            for utt, value in parse_table([line], ""):
                if utt in table:
                    faults.append(
                        Fault(
                            name,
                            number,
                            utt,
                            FAULT,
                            f"duplicate id, also in line {table[utt].line}",
                            "remove one of the lines",
                        )
                    )
                else:
                    table[utt] = Entry(
                        name, number, value, Location.parse(value, data.allow_commands).resolve(data.path)
                    )
        except UserError as e:
            fault, _, remedy = str(e).removeprefix(":1: ").partition("; ")
            faults.append(Fault(name, number, "", FAULT, fault, remedy or "write 'utt-id path'"))
    if not table and not faults:
        faults.append(Fault(name, 0, "", FAULT, "is empty", "make the directory again"))
    return table, faults


def _unpaired(data: DataDir, lists: dict[str, dict[str, Entry]]) -> Iterator[Fault]:
    for stream, table in lists.items():
        for utt, entry in table.items():
            for other in lists.keys() - {stream}:
                if utt not in lists[other]:
                    yield Fault(
                        entry.file,
                        entry.line,
                        utt,
                        FAULT,
                        f"is not in {data.path / other}.scp",
                        "add it there, or drop it with se-prep fix",
                    )


def _examine(
    task: tuple[str, tuple[Entry, ...], int | None, bool],
) -> tuple[list[Fault], float, list[tuple[Entry, bytes]]]:
    """Read the wavs of one utterance: the faults, the seconds of the first, and, with_digests, a digest of each."""
    utt, entries, rate, with_digests = task
    faults: list[Fault] = []
    digests: list[tuple[Entry, bytes]] = []
    shapes = []

    def fault(entry: Entry, what: str, remedy: str = _DROP, grade: str = FAULT) -> None:
        faults.append(Fault(entry.file, entry.line, utt, grade, what, remedy))

    for entry in entries:
        try:
            x, found = entry.location.read()
            audio.check_mono(entry.value, len(x), found, rate)
        except AudioError as e:
            fault(entry, str(e))
            continue
        shapes.append((entry, x.shape[1], found))
        if x.shape[1] == 0:
            fault(entry, f"{entry.value}: has no samples")
        elif not x.any():
            fault(entry, f"{entry.value}: is silent")
        else:
            if clipped := _clipped_samples(x[0]):
                fault(entry, f"{entry.value}: {clipped} samples are clipped", "record or scale it lower", REMARK)
            if with_digests:
                # Of the samples, so that a copy is found in another format too.
                digests.append((entry, hashlib.blake2b(x[0], digest_size=16).digest()))
    for entry, length, found in shapes[1:]:
        if (length, found) != shapes[0][1:]:
            first, frames, rate = shapes[0]
            fault(entry, f"{entry.value}: has {length} samples at {found} Hz, {first.value} {frames} at {rate}")
    return faults, shapes[0][1] / shapes[0][2] if shapes else 0.0, digests


def _clipped_samples(x: np.ndarray) -> int:
    """Samples of [n] in runs of at least _CLIPPED_RUN at full scale."""
    flat = np.concatenate([[False], np.abs(x) >= _FULL_SCALE, [False]])
    starts, ends = np.flatnonzero(np.diff(flat.astype(np.int8))).reshape(-1, 2).T
    runs = ends - starts
    return int(runs[runs >= _CLIPPED_RUN].sum())


def _check_tables(data: DataDir, found: Found, utts: dict[str, Entry], good: dict[str, float]) -> Iterator[Fault]:
    """Faults of the utt2* tables against the list."""
    for name in TABLES:
        table = found.tables.get(name, {})
        for utt, entry in table.items():
            if utt not in utts:
                yield Fault(entry.file, entry.line, utt, FAULT, "is in no list", "drop the line; se-prep fix does")
            elif name != "utt2spk" and not _is_number(entry.value):
                yield Fault(
                    entry.file,
                    entry.line,
                    utt,
                    FAULT,
                    f"{entry.value} is not a number",
                    "write one, or drop the line; se-prep fix does",
                )
            elif name == "utt2dur" and utt in good and abs(float(entry.value) - good[utt]) > 0.01:
                yield Fault(
                    entry.file,
                    entry.line,
                    utt,
                    FAULT,
                    f"{entry.value} s is not the duration of the wav ({good[utt]:.4f})",
                    "se-prep fix writes it again",
                )
        missing = sorted(utts.keys() - table.keys()) if table else []
        if missing:
            yield Fault(
                str(data.path / name),
                0,
                missing[0],
                REMARK,
                f"has no line; {len(missing)} utterances in all have none",
                "complete the table, or remove it",
            )


def _is_number(text: str) -> bool:
    try:
        return not math.isinf(float(text))
    except ValueError:
        return False


def fix(data: DataDir, found: Found) -> Path:
    """Write the directory again with the utterances that the finished check `found` good; the old lists are copied to
    DIR/.backup (.backup.2 and so on after earlier fixes). Raises UserError if no utterance is good."""
    tables: dict[str, dict[str, str]] = {}
    first = data.streams[0]
    for name, table in found.tables.items():
        good = found.good[first if data.is_pairs or name in TABLES else name.removesuffix(".scp")]
        tables[name] = {
            utt: entry.value
            for utt, entry in table.items()
            if utt in good and (name in (*LISTS, "utt2spk") or _is_number(entry.value))
        }
    if not all(tables[f"{stream}.scp"] for stream in data.streams):
        raise UserError(f"{data.path}: no good utterance would be left; make the directory again")
    if "utt2dur" in tables:
        tables["utt2dur"] = {utt: f"{found.good[first][utt]:.4f}" for utt in tables[f"{first}.scp"]}
    return _write_fixed(data, found, tables)


def _write_fixed(data: DataDir, found: Found, tables: dict[str, dict[str, str]]) -> Path:
    names = (".backup" if n == 1 else f".backup.{n}" for n in count(1))
    backup = next(path for name in names if not (path := data.path / name).exists())
    backup.mkdir()
    for name in found.tables:
        shutil.copy2(data.path / name, backup / name)
    DataDir.write(data.path, tables)
    return backup
