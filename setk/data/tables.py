"""What every corpus needs: wavs found in folders, ids made of file names, data directories written whole."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

from setk.core.errors import UserError
from setk.core.files import make_dir
from setk.data.lists import check_id, read_list, write_list

LISTS = ("noisy.scp", "clean.scp", "speech.scp", "noise.scp", "rir.scp")
TABLES = ("utt2dur", "utt2spk", "utt2snr")
SUFFIXES = (".wav", ".flac")

Faults = list[tuple[str, str]]


@dataclass
class Report:
    """What came of a corpus: utterances of each split, what is odd about it, what was left out and why, samples clipped."""

    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=list)
    clipped: int = 0

    def write(self, out: Path, split: str, tables: Mapping[str, Mapping[str, object]]) -> None:
        """Write OUT/SPLIT, unless there is nothing for it, which is warned about; empty tables are left out."""
        self.counts[split] = len(tables["noisy.scp"])
        if self.counts[split]:
            write_data_dir(out / split, {name: table for name, table in tables.items() if table})
        else:
            self.warnings.append(f"nothing is there for {split}; {out / split} is not made")


def write_data_dir(out: str | os.PathLike, tables: Mapping[str, Mapping[str, object]]) -> None:
    """Write the lists and tables of a data directory, e.g. {"noisy.scp": ..., "utt2dur": ...}.

    The lists come last, and those of an earlier run go first: a directory that an interrupted run leaves is
    none yet. Tables of an earlier run that are not given now are taken away, since they may be about others.
    """
    out = make_dir(out)
    for name in (*LISTS, *(t for t in TABLES if t not in tables)):
        (out / name).unlink(missing_ok=True)
    for name in sorted(tables, key=lambda name: name in LISTS):
        write_list(out / name, tables[name])


def check_location(location: str) -> str:
    """Return a path if a wav list can hold it; else raise UserError."""
    try:
        location.encode()
    except UnicodeEncodeError:
        raise UserError(f"{location!r}: the name is not UTF-8; rename it") from None
    if location != location.strip() or {"\n", "\0"} & set(location) or location.endswith("|"):
        raise UserError(f"{location!r}: a list cannot hold a name that ends in white space or '|' or has a line break; rename it")
    return location


def make_id(relative: str) -> str:
    """An utterance id from a path within a corpus: no suffix, '/' as '-', white space as '_', Unicode composed."""
    stem = unicodedata.normalize("NFC", os.path.splitext(relative)[0])
    return check_id("".join("_" if c.isspace() else c for c in stem).replace("/", "-"))


def find_wavs(place: str | os.PathLike) -> tuple[dict[str, str], Faults]:
    """id -> location of the audio files under a folder (hidden ones left out), or of a list; and unusable names.

    Links to folders are followed, each folder once. Raises UserError if there are none, or two files make one id.
    """
    if not os.path.isdir(place):
        return read_list(place), []
    found: dict[str, str] = {}
    faults: Faults = []
    seen = {os.path.realpath(place)}
    for folder, below, files in os.walk(place, followlinks=True):
        below[:] = sorted(d for d in below if not d.startswith(".") and _is_new(os.path.join(folder, d), seen))
        for file in sorted(files):
            path = os.path.join(folder, file)
            if file.startswith(".") or os.path.splitext(file)[1].lower() not in SUFFIXES:
                continue
            try:
                check_location(path)
                utt = make_id(os.path.relpath(path, place))
            except UserError as e:
                faults.append((repr(path), str(e)))
                continue
            if utt in found:
                raise UserError(f"{path} and {found[utt]} would both be called {utt}; rename one")
            found[utt] = path
    if not found and not faults:
        raise UserError(f"{place}: holds no {' or '.join(SUFFIXES)} files")
    return found, faults


def _is_new(folder: str, seen: set[str]) -> bool:
    """Whether a folder is not one of `seen`, nor a link to one; it is from now on."""
    place = os.path.realpath(folder)
    known = place in seen
    seen.add(place)
    return not known


def seconds(frames: int, rate: int) -> str:
    """A duration as utt2dur has it."""
    return f"{frames / rate:.4f}"
