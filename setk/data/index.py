"""Lists of any length: what a command keeps of each line is a few bytes, not the line.

Ids are compared by 64-bit hashes with a random key. Two of n different ids have the same one with a probability below n**2 / 2**65:
3e-8 for a million.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from array import array
from typing import BinaryIO, Iterator

import numpy as np

from setk.audio import Location
from setk.core.errors import UserError
from setk.data import lists


class IndexedList:
    """A wav list or table of which only an index is in memory: 25 bytes per line. Values are read from the file when they are asked for.

    Standard input (`-`), named pipes and the audio files of a folder are first copied to a temporary file. Raises UserError as
    `lists.open_list` and `lists.open_wavs` do.
    """

    def __init__(self, path: str | os.PathLike):
        self._file = _open(path)
        # Relative paths in a list may be relative to its folder; those of a folder already include it.
        self._folder = "" if os.path.isdir(path) else os.path.dirname(path)
        starts, hashes, ordered, before = array("q"), array("q"), True, b""
        with lists.reported(path):
            for start, utt in _starts_of_lines(self._file, lists.name_of(path)):
                starts.append(start)
                hashes.append(hash(utt))
                ordered, before = ordered and before < utt, utt
        self._starts, unsorted = np.frombuffer(starts, np.int64), np.frombuffer(hashes, np.int64)
        self._lines = np.argsort(unsorted, kind="stable")
        self._hashes = unsorted[self._lines]
        self._taken = bytearray(len(starts))
        self._ordered = ordered
        if not ordered:
            self._refuse_duplicates(lists.name_of(path))

    def __len__(self) -> int:
        return len(self._starts)

    def __contains__(self, utt: str) -> bool:
        return self._line_of(utt) is not None

    def get(self, utt: str) -> str | None:
        """The value of an id; None if the list lacks it."""
        line = self._line_of(utt)
        return None if line is None else self._read(line)[1]

    def take(self, utt: str) -> str | None:
        """`get`, and `left` no longer yields the id."""
        line = self._line_of(utt)
        if line is None:
            return None
        self._taken[line] = 1
        return self._read(line)[1]

    def left(self) -> Iterator[tuple[str, str]]:
        """(utt, value) of the lines that `take` has not returned, in the order of the list."""
        for line, taken in enumerate(self._taken):
            if not taken:
                yield self._read(line)

    def sorted(self) -> Iterator[tuple[str, str]]:
        """(utt, value) of all lines in C order of the ids, as setk writes lists. Another order needs memory for all ids while it is
        sorted."""
        lines = range(len(self)) if self._ordered else self._order()
        return (self._read(line) for line in lines)

    def location(self, value: str, allow_commands: bool = False) -> Location:
        """The Location that a value of this list states."""
        location = Location.parse(value, allow_commands)
        return location.resolve(self._folder) if self._folder else location

    def has_same_ids(self, other: IndexedList) -> bool:
        return np.array_equal(self._hashes, other._hashes)

    def _refuse_duplicates(self, name: str) -> None:
        repeated = np.flatnonzero(self._hashes[1:] == self._hashes[:-1]) + 1
        if len(repeated):
            line = int(self._lines[repeated].min())
            number = self._number(line)
            raise UserError(f"{name}:{number}: duplicate id {self._read(line)[0]!r}; remove one of the lines")

    def _number(self, line: int) -> int:
        """The number of a line in the file, which may have blank ones."""
        self._file.seek(0)
        return self._file.read(self._starts[line]).count(b"\n") + 1

    def _order(self) -> list[int]:
        ids = [self._read(line)[0] for line in range(len(self))]
        return sorted(range(len(ids)), key=ids.__getitem__)

    def _line_of(self, utt: str) -> int | None:
        key = hash(utt.encode())
        place = int(np.searchsorted(self._hashes, key))
        if place == len(self._hashes) or self._hashes[place] != key:
            return None
        return int(self._lines[place])

    def _read(self, line: int) -> tuple[str, str]:
        self._file.seek(self._starts[line])
        return lists.split_line(self._file.readline().decode())


def _open(path: str | os.PathLike) -> BinaryIO:
    """The bytes of a list, in a file that can be read at any place."""
    if str(path) != "-" and not os.path.isdir(path):
        file = lists.open_bytes(path)
        if file.seekable():
            return file
    copy = tempfile.TemporaryFile()
    if os.path.isdir(path):
        copy.writelines(f"{utt} {place}\n".encode() for utt, place in lists.open_wavs(path))
    else:
        shutil.copyfileobj(sys.stdin.buffer if str(path) == "-" else file, copy)
    copy.seek(0)
    return copy


# A line as nearly all are: checked by one match, since a list has to be read before the first utterance is handled.
_PLAIN = re.compile(rb"(?!\.{1,2}\s)([^\s/\0]+)[ \t]+\S").match


def _starts_of_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Where it begins, and the id, of each line that is not blank."""
    start = 0
    for number, line in enumerate(file, 1):
        if (plain := _PLAIN(line)) and line.isascii():
            yield start, plain[1]
        else:
            for utt, _ in lists.parse_table([line.decode()], name, number):
                yield start, utt.encode()
        start += len(line)
