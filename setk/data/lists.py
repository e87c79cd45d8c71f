"""Wav lists (scp) and tables: one line per utterance, `utt-id value`.

In a wav list the value is a location (see setk.audio.location): a path, with its inner spaces; `-`, standard input;
a shell command that ends in `|` (run only where the caller allows it); or an on-the-fly mixture `mix:{...}`.
A relative path is taken from the current directory, or, if it does not exist there, from the folder of the list.
A folder is accepted wherever a wav list is: its audio files are the list.

Ids become file names: they have no white space and no `/`, and are not `.` or `..`. What setk writes is sorted in
C order; any order is read.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import unicodedata
from array import array
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator, Mapping, TypeVar

from setk.audio import Location
from setk.core.errors import UserError
from setk.core.files import check_readable, finish_replacement, write_lines

# Of the audio files of a folder.
SUFFIXES = tuple(".wav .wave .flac .ogg .oga .opus .mp3 .aiff .aif .aifc .au .caf .rf64 .w64".split())
# Of recordings that setk cannot read.
_OTHERS = frozenset(".aac .amr .ape .m4a .mka .pcm .raw .sph .webm .wma .wv".split())
_log = logging.getLogger("setk")
T = TypeVar("T")

Faults = list[tuple[str, str]]  # (utterance or path, why it cannot be used)
Table = Mapping[str, object] | Iterable[tuple[str, object]]  # to be written: a mapping, or (id, value) in C order


_ID = re.compile(r"[^\s/\0]+")
_LINE = re.compile("[^\n\0\ud800-\udfff]+")  # the last are what a name that is not UTF-8 is read as


def check_id(utt: str) -> str:
    """Return `utt` if it can be an utterance id and a file name. Raises UserError otherwise."""
    if not _ID.fullmatch(utt) or utt in (".", ".."):
        raise UserError(
            f"{utt!r} cannot be an utterance id: ids become file names; use no white space, no '/', not '.' or '..'"
        )
    return utt


class SeenIds:
    """A set of ids that keeps a 64-bit hash of each, with open addressing: at most 32 bytes per id, where a set of strings needs more
    than 100. Different ids count as the same one with a probability below n**2 / 2**65, 3e-8 for a million."""

    def __init__(self) -> None:
        self._slots, self._count = array("Q", [0]) * 16, 0

    def add(self, utt: str) -> bool:
        """Add an id; False if it is in the set already."""
        if 2 * self._count >= len(self._slots):
            self._grow()
        return self._put(hash(utt) & 0xFFFF_FFFF_FFFF_FFFF or 1)  # 0 is a free slot

    def _put(self, key: int) -> bool:
        slots = self._slots
        last = len(slots) - 1
        place = key & last
        while slots[place]:
            if slots[place] == key:
                return False
            place = (place + 1) & last
        slots[place] = key
        self._count += 1
        return True

    def _grow(self) -> None:
        before = self._slots
        self._slots, self._count = array("Q", [0]) * (2 * len(before)), 0
        for key in filter(None, before):
            self._put(key)


def split_line(line: str) -> tuple[str, str]:
    """Id and value of a line; empty where it has none."""
    first, second = (*line.strip().lstrip("\ufeff").split(maxsplit=1), "", "")[:2]
    return first, second


def parse_table(lines: Iterable[str], name: str, first: int = 1) -> Iterator[tuple[str, str]]:
    """Yield (id, rest of the line) of each line as it arrives; `name`, and the number of the `first` line, are used in messages.

    Blank lines and CRLF endings are accepted. Raises UserError with the line's number on a missing value, an
    unusable id, or a duplicate id.
    """
    seen = SeenIds()
    for number, line in enumerate(lines, first):
        utt, value = split_line(line)
        if not utt:
            continue
        try:
            check_id(utt)
        except UserError as e:
            raise UserError(f"{name}:{number}: {e}") from None
        if not value:
            raise UserError(f"{name}:{number}: {utt} has no value; write 'utt-id path'")
        if not seen.add(utt):
            raise UserError(f"{name}:{number}: duplicate id {utt!r}; remove one of the lines")
        yield utt, value


def name_of(path: str | os.PathLike) -> str:
    """A list as messages name it."""
    return "standard input" if str(path) == "-" else str(path)


@contextmanager
def reported(path: str | os.PathLike) -> Iterator[None]:
    """Raise UserError for what is wrong with a list that is read in the block."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such list") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; expected a table with 'utt-id value' on each line") from None
    except UnicodeDecodeError:
        raise UserError(f"{name_of(path)}: is not a text file; a list has 'utt-id path' on each line") from None


def open_bytes(path: str | os.PathLike) -> BinaryIO:
    """Open the file of a list. Raises UserError if there is none."""
    with reported(path):
        finish_replacement(os.path.dirname(path) or ".")
        check_readable(path)
        return open(path, "rb")


def open_list(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """Yield (utt, value) of a table, or of standard input for `-`, line by line as they arrive."""
    with reported(path):
        if str(path) == "-":
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale, as for files
            yield from parse_table(sys.stdin, name_of(path))
            return
        with open_bytes(path) as f:
            yield from parse_table((line.decode() for line in f), str(path))


def read_list(path: str | os.PathLike) -> dict[str, str]:
    """Read a complete table, keeping its order."""
    return dict(open_list(path))


def open_wavs(path: str | os.PathLike, allow_commands: bool = False) -> Iterator[tuple[str, Location]]:
    """Yield (utt, Location) of a wav list, of standard input for `-`, or of the audio files in a folder.

    With `allow_commands` the locations may run shell commands. Raises UserError as `open_list` and `walk_wavs` do,
    and on a file in a folder whose name cannot be in a list.
    """
    if os.path.isdir(path):
        with list_of_folder(path) as f:
            for line in f:
                utt, text = split_line(line.decode())
                yield utt, Location.parse(text)
        return
    folder = os.path.dirname(path)
    for utt, text in open_list(path):
        location = Location.parse(text, allow_commands)
        yield utt, location.resolve(folder) if folder else location


def read_wavs(path: str | os.PathLike, allow_commands: bool = False) -> dict[str, Location]:
    """Read a complete wav list, or folder, as `open_wavs` does."""
    return dict(open_wavs(path, allow_commands))


def format_list(table: Table) -> Iterator[str]:
    """The lines of a list or table, in C order. Raises UserError on an id that cannot be one, or a value that a line cannot hold."""
    rows = sorted(table.items(), key=lambda row: row[0].encode()) if isinstance(table, Mapping) else table
    return (f"{check_id(utt)} {_check_value(utt, str(value))}\n" for utt, value in rows)


def _check_value(utt: str, value: str) -> str:
    if not _fits_a_line(value):
        raise UserError(
            f"{utt}: {value!r} cannot be in a list: it is empty, begins or ends in white space, has a line break, or is not UTF-8"
        )
    return value


def _fits_a_line(value: str) -> bool:
    return value == value.strip() and _LINE.fullmatch(value) is not None


def write_list(path: str | os.PathLike, table: Table) -> None:
    """Write a list or table atomically, sorted in C order."""
    write_lines(path, format_list(table))


def parse_part(part: str) -> tuple[int, int]:
    """Parse `k/n` (1-based): part k of n. Raises UserError on anything else."""
    k, _, n = part.partition("/")
    if not (part.isascii() and k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise UserError(f"--part {part}: write K/N with 1 <= K <= N, as in 3/40")
    return int(k), int(n)


def take_part(items: Iterable[T], part: str | None) -> Iterator[T]:
    """Every n-th item from the k-th, for `part` = "k/n"; all of them for None."""
    k, n = parse_part(part) if part is not None else (1, 1)
    return (item for i, item in enumerate(items) if i % n == k - 1)


def check_location(location: str) -> str:
    """Return a path if a wav list can hold it. Raises UserError otherwise."""
    try:
        location.encode()
    except UnicodeEncodeError:
        raise UserError(f"{location!r}: the name is not UTF-8; rename it") from None
    if not _fits_a_line(location) or location.endswith("|"):
        raise UserError(
            f"{location!r}: a list cannot hold a name that ends in white space or '|' or has a line break; rename it"
        )
    return location


def make_id(relative: str) -> str:
    """An utterance id from a path within a folder: no suffix, '-' for '/', '_' for white space, Unicode composed (NFC)."""
    stem = unicodedata.normalize("NFC", os.path.splitext(relative)[0])
    return check_id("".join("_" if c.isspace() else c for c in stem).replace("/", "-"))


def walk_wavs(place: str | os.PathLike, faults: Faults) -> Iterator[tuple[str, str]]:
    """Yield (utt, path) of the audio files in a folder, except hidden ones; unusable names are appended to `faults`.

    Links to folders are followed, each folder once. Raises UserError if there are no audio files, or two have the
    same id.
    """
    seen, empty = SeenIds(), True
    for path in _audio_files(str(place)):
        empty = False
        try:
            utt = make_id(os.path.relpath(check_location(path), place))
        except UserError as e:
            faults.append((repr(path), str(e)))
            continue
        if not seen.add(utt):
            raise UserError(f"{path} and {_first_of(place, utt)} would have the same id {utt!r}; rename one")
        yield utt, path
    if empty:
        hint = "; for a data directory, give one of its lists" if list(Path(place).glob("*.scp")) else ""
        raise UserError(f"{place}: has no audio files ({', '.join(SUFFIXES)}){hint}")


def _first_of(place: str | os.PathLike, utt: str) -> str:
    """The first audio file of a folder with this id."""
    return next(path for other, path in walk_wavs(place, []) if other == utt)


def list_of_folder(place: str | os.PathLike, faults: Faults | None = None) -> BinaryIO:
    """The list of a folder's audio files as a temporary file, so that no more than a folder's names are in memory. Raises UserError
    as `walk_wavs` does, and without `faults` on a name that cannot be in a list."""
    names: Faults = [] if faults is None else faults
    copy = tempfile.TemporaryFile()
    copy.writelines(f"{utt} {path}\n".encode() for utt, path in walk_wavs(place, names))
    if names and faults is None:
        raise UserError(names[0][1])
    copy.seek(0)
    return copy


def _audio_files(place: str) -> Iterator[str]:
    seen, others = {os.path.realpath(place)}, Counter()
    for folder, below, files in os.walk(place, followlinks=True):
        below[:] = sorted(d for d in below if not d.startswith(".") and _is_new(os.path.join(folder, d), seen))
        for file in sorted(file for file in files if not file.startswith(".")):
            suffix = os.path.splitext(file)[1].lower()
            if suffix in SUFFIXES:
                yield os.path.join(folder, file)
            elif suffix in _OTHERS:
                others[suffix] += 1
    if others:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        _log.warning("%s: left out %s, which setk cannot read; convert them to wav or FLAC", place, counts)


def _is_new(folder: str, seen: set[str]) -> bool:
    """Whether a folder is not one of `seen`, nor a link to one; it is from now on."""
    place = os.path.realpath(folder)
    known = place in seen
    seen.add(place)
    return not known
