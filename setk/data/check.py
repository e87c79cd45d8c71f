"""Every fault of a data directory, with file, line and mend."""

from __future__ import annotations

import hashlib
import math
import shutil
from dataclasses import astuple, dataclass, field
from itertools import count
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from setk import audio
from setk.audio import Location
from setk.core.errors import AudioError, UserError
from setk.data.datadir import LISTS, TABLES, TEXTS, DataDir, described
from setk.data.lists import parse_table
from setk.core.pool import ordered_map

FAULT, REMARK = "fault", "remark"  # a remark is worth knowing, and no reason to leave the utterance out
_FULL_SCALE = 32767 / 32768
_CLIPPED_RUN = 3  # this many samples in a row at full scale are no accident
_DROP = "make the file again, or drop it with se-prep fix"


@dataclass(frozen=True)
class Fault:
    """One line of the report; `line` 0 is the file as a whole, `utt` empty where it concerns no one utterance."""

    file: str
    line: int
    utt: str
    grade: str
    fault: str
    mend: str

    HEADER = "file\tline\tutt\tgrade\tfault\tmend"

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
    """What a check has seen so far: utterances, the seconds of those without fault by stream (a pair counts as
    noisy), and what the lists say."""

    utterances: int = 0
    good: dict[str, dict[str, float]] = field(default_factory=dict)
    tables: dict[str, dict[str, Entry]] = field(default_factory=dict)


def check(data: DataDir, found: Found, rate: int | None = 16000, jobs: int = 1,
          seen: dict[bytes, Entry] | None = None) -> Iterator[Fault]:
    """Yield every fault of a data directory; `found` tells in the end what is good.

    Lists and tables are checked first, then each wav is read whole. `rate` None takes any rate, as long as the
    files of one utterance share it. `seen` holds the audio of other directories, which must not come again in this
    one, and takes up that of this one. Within a directory it may: one text of clean speech in many noises.
    """
    own: dict[bytes, Entry] = {}
    for name in (*data.streams, *TABLES):
        name = name if name in TABLES else f"{name}.scp"
        if (data.path / name).exists():
            found.tables[name], faults = _read_leniently(data, name)
            yield from faults
    sets = [data.streams] if data.is_pairs else [(stream,) for stream in data.streams]
    for streams in sets:
        lists = {stream: found.tables[f"{stream}.scp"] for stream in streams}
        yield from _unpaired(data, lists)
        tasks = [(utt, tuple(table[utt] for table in lists.values()), rate, seen is not None)
                 for utt in lists[streams[0]] if all(utt in table for table in lists.values())]
        good = found.good[streams[0]] = {}
        for task, (faults, duration, digests) in zip(tasks, ordered_map(_examine, tasks, jobs)):
            found.utterances += 1
            for entry, digest in digests:
                if seen and (first := seen.get(digest)):
                    what = f"{entry.value}: is the same audio as {first.value} ({first.file}:{first.line})"
                    faults.append(Fault(entry.file, entry.line, task[0], FAULT, what,
                                        "drop one; se-prep fix keeps that of the directory named first"))
            if not any(fault.grade == FAULT for fault in faults):
                good[task[0]] = duration
                own |= {digest: entry for entry, digest in digests}
            yield from faults
        about = [name for name in TABLES if described(name, data.streams) == streams[0]]
        yield from _odd_tables(data, found, about, lists[streams[0]], good)
    if seen is not None:
        seen |= own


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
                    faults.append(Fault(name, number, utt, FAULT, f"stands in line {table[utt].line} already",
                                        "keep one of the lines"))
                else:
                    table[utt] = Entry(name, number, value, Location.parse(value, data.allow_commands).resolve(data.path))
        except UserError as e:
            fault, _, mend = str(e).removeprefix(":1: ").partition("; ")
            faults.append(Fault(name, number, "", FAULT, fault, mend or "write 'utt-id path'"))
    if not table and not faults:
        faults.append(Fault(name, 0, "", FAULT, "lists nothing", "make the directory again"))
    return table, faults


def _unpaired(data: DataDir, lists: dict[str, dict[str, Entry]]) -> Iterator[Fault]:
    for stream, table in lists.items():
        for utt, entry in table.items():
            for other in lists.keys() - {stream}:
                if utt not in lists[other]:
                    yield Fault(entry.file, entry.line, utt, FAULT, f"is not in {data.path / other}.scp",
                                "add it there, or drop it with se-prep fix")


def _examine(task: tuple[str, tuple[Entry, ...], int | None, bool]) -> tuple[list[Fault], float, list[tuple[Entry, bytes]]]:
    """Read the wavs of one utterance: the faults, the seconds of the first, and a digest of each if that is asked."""
    utt, entries, rate, with_digests = task
    faults: list[Fault] = []
    digests: list[tuple[Entry, bytes]] = []
    shapes = []

    def fault(entry: Entry, what: str, mend: str = _DROP, grade: str = FAULT) -> None:
        faults.append(Fault(entry.file, entry.line, utt, grade, what, mend))

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


def _odd_tables(data: DataDir, found: Found, names: Sequence[str], utts: dict[str, Entry], good: dict[str, float]) -> Iterator[Fault]:
    """Faults of the tables `names` against the list that they describe."""
    for name in names:
        table = found.tables.get(name, {})
        for utt, entry in table.items():
            if utt not in utts:
                yield Fault(entry.file, entry.line, utt, FAULT, "is in no list", "drop the line; se-prep fix does")
            elif name not in TEXTS and not _is_number(entry.value):
                yield Fault(entry.file, entry.line, utt, FAULT, f"{entry.value} is not a number",
                            "write one, or drop the line; se-prep fix does")
            elif name == "utt2dur" and utt in good and abs(float(entry.value) - good[utt]) > 0.01:
                yield Fault(entry.file, entry.line, utt, FAULT, f"says {entry.value} s; the wav has {good[utt]:.4f}",
                            "se-prep fix writes it anew")
        missing = sorted(utts.keys() - table.keys()) if table else []
        if missing:
            yield Fault(str(data.path / name), 0, missing[0], REMARK, f"has no line, nor have {len(missing) - 1} others",
                        "complete the table, or take it away")


def _is_number(text: str) -> bool:
    try:
        return not math.isinf(float(text))
    except ValueError:
        return False


def fix(data: DataDir, found: Found) -> Path:
    """Write the directory anew with what the finished check `found` good; the old lists go to DIR/.backup, or
    where an earlier fix has put its own there, to .backup.2 and so on."""
    tables: dict[str, dict[str, str]] = {}
    first = data.streams[0]
    for name, table in found.tables.items():
        stream = described(name, data.streams) if name in TABLES else first if data.is_pairs else name.removesuffix(".scp")
        good = found.good[stream]
        tables[name] = {utt: entry.value for utt, entry in table.items()
                        if utt in good and (name in (*LISTS, *TEXTS) or _is_number(entry.value))}
    if not all(tables[f"{stream}.scp"] for stream in data.streams):
        raise UserError(f"{data.path}: nothing good would be left; make it again")
    if "utt2dur" in tables:
        tables["utt2dur"] = {utt: f"{found.good[first][utt]:.4f}" for utt in tables[f"{first}.scp"]}
    backup = next(path for n in count(1) if not (path := data.path / (f".backup.{n}" if n > 1 else ".backup")).exists())
    backup.mkdir()
    for name in found.tables:
        shutil.copy2(data.path / name, backup / name)
    DataDir.write(data.path, tables)
    return backup
