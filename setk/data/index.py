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
from typing import BinaryIO, Iterator, Sequence

import numpy as np

from setk.audio import Location
from setk.core.errors import UserError
from setk.data import lists

ABSENT = -1  # the line of an id that a list lacks


class HashIndex:
    """Which line has an id, for ids that are known by their 64-bit hashes: 12 bytes per line."""

    def __init__(self, hashes: array):
        unsorted = np.frombuffer(hashes, np.int64)
        self._lines = np.argsort(unsorted, kind="stable").astype(np.int32)
        self._hashes = unsorted[self._lines]

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, key: int) -> int | None:
        """The line with the hash `key`; None if there is none."""
        place = int(np.searchsorted(self._hashes, key))
        if place == len(self._hashes) or self._hashes[place] != key:
            return None
        return int(self._lines[place])

    def find_all(self, other: HashIndex) -> np.ndarray:
        """The line of each id of `other` [n], in the order of its lines: [n], ABSENT where there is none."""
        found = np.full(len(other), ABSENT, np.int32)
        if len(self):
            places = np.minimum(np.searchsorted(self._hashes, other._hashes), len(self) - 1)
            found[other._lines] = np.where(self._hashes[places] == other._hashes, self._lines[places], ABSENT)
        return found

    def repeated(self) -> np.ndarray:
        """The lines whose id an earlier line has, in order."""
        return np.sort(self._lines[1:][self._hashes[1:] == self._hashes[:-1]])


class Lines:
    """Lines of a file that begin at `starts` [n], read when they are asked for. Threads can share it."""

    def __init__(self, file: BinaryIO, starts: np.ndarray):
        self._file, self._starts = file, starts
        self._size = os.fstat(file.fileno()).st_size
        self._counted = 0, 1  # a position, and the number of its line

    def __len__(self) -> int:
        return len(self._starts)

    def text(self, line: int) -> str:
        """A line, by its place in `starts`."""
        end = self._starts[line + 1] if line + 1 < len(self._starts) else self._size
        return self.text_at(int(self._starts[line]), int(end))

    def text_at(self, start: int, end: int | None = None) -> str:
        """The line that begins at `start`, without its line break; it ends before `end`."""
        stop = self._size if end is None else end
        block = b""
        while start < stop and b"\n" not in block:
            part = os.pread(self._file.fileno(), min(stop - start, 1 << 16), start)
            if not part:
                break
            block, start = block + part, start + len(part)
        return block.partition(b"\n")[0].decode()

    def number(self, start: int) -> int:
        """The number in the file, which may have other lines, of the line that begins at `start`. In rising order this is cheap."""
        begin, number = self._counted if self._counted[0] <= start else (0, 1)
        while begin < start:
            block = os.pread(self._file.fileno(), min(start - begin, 1 << 16), begin)
            if not block:
                break
            begin, number = begin + len(block), number + block.count(b"\n")
        self._counted = start, number
        return number

    def start(self, line: int) -> int:
        return int(self._starts[line])


class IndexedList:
    """A wav list or table of which only an index is in memory: 21 bytes per line. Values are read from the file when they are asked for.

    Standard input (`-`), named pipes and the audio files of a folder are first copied to a temporary file. Unusable names in a folder
    are appended to `faults`. Raises UserError as `lists.open_list` and `lists.open_wavs` do; a `lenient` one leaves out the lines
    that they would refuse (`refused`).
    """

    def __init__(self, path: str | os.PathLike, faults: lists.Faults | None = None, lenient: bool = False):
        file = _open(path, faults)
        # Relative paths in a list may be relative to its folder; those of a folder already include it.
        self._folder = "" if os.path.isdir(path) else os.path.dirname(path)
        self._build(file, path, lenient)

    @classmethod
    def merged(cls, paths: Sequence[str | os.PathLike]) -> IndexedList:
        """Several wav lists or folders as one. Raises UserError if two of them have the same id."""
        if len(paths) == 1:
            return cls(paths[0])
        copy, ends = tempfile.TemporaryFile(), []
        for path in paths:
            copy.writelines(f"{utt} {place}\n".encode() for utt, place in lists.open_wavs(path))
            ends.append(copy.tell())
        copy.seek(0)
        merged = cls.__new__(cls)
        merged._folder = ""
        merged._build(copy, "", lenient=True)
        for start in merged._refused:
            path = next(path for path, end in zip(paths, ends) if start < end)
            utt, _ = lists.split_line(merged._lines.text_at(start))
            raise UserError(f"{path}: duplicate id {utt!r}, also in an earlier list; rename one")
        return merged

    def _build(self, file: BinaryIO, path: str | os.PathLike, lenient: bool) -> None:
        starts, hashes, refused, before = array("q"), array("q"), array("q"), b""
        self._ordered = True
        with lists.reported(path):
            for start, utt in _starts_of_lines(file, lists.name_of(path), refused if lenient else None):
                starts.append(start)
                hashes.append(hash(utt))
                self._ordered, before = self._ordered and before < utt, utt
        self._lines, self.index = Lines(file, np.frombuffer(starts, np.int64)), HashIndex(hashes)
        repeated = () if self._ordered else self.index.repeated()
        if len(repeated):
            if not lenient:
                line = int(repeated[0])
                raise UserError(
                    f"{lists.name_of(path)}:{self.number(line)}: duplicate id {self.read(line)[0]!r}; remove one of the lines"
                )
            refused.extend(starts[line] for line in repeated)
            kept = np.delete(np.frombuffer(starts, np.int64), repeated)
            self.index = HashIndex(array("q", np.delete(np.frombuffer(hashes, np.int64), repeated).tobytes()))
            self._lines = Lines(file, kept)
        self._refused = sorted(refused)
        self._taken = bytearray(len(self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, utt: str) -> bool:
        return self.line(utt) is not None

    def get(self, utt: str) -> str | None:
        """The value of an id; None if the list lacks it."""
        line = self.line(utt)
        return None if line is None else self.read(line)[1]

    def take(self, utt: str) -> str | None:
        """`get`, and `left` no longer yields the id."""
        line = self.line(utt)
        if line is None:
            return None
        self._taken[line] = 1
        return self.read(line)[1]

    def left(self) -> Iterator[tuple[str, str]]:
        """(utt, value) of the lines that `take` has not returned, in the order of the list."""
        for line, taken in enumerate(self._taken):
            if not taken:
                yield self.read(line)

    def line(self, utt: str) -> int | None:
        """The line of an id, 0 for the first one; None if the list lacks it."""
        return self.index.find(hash(utt.encode()))

    def read(self, line: int) -> tuple[str, str]:
        """(utt, value) of a line."""
        return lists.split_line(self._lines.text(line))

    def number(self, line: int) -> int:
        """The number that a line has in the file, which may have blank ones."""
        return self._lines.number(self._lines.start(line))

    def start(self, line: int) -> int:
        """Where a line begins in the file, in bytes."""
        return self._lines.start(line)

    def order(self) -> Sequence[int]:
        """The lines in C order of the ids, as setk writes lists. Another order needs memory for all ids while it is sorted."""
        if self._ordered:
            return range(len(self))
        ids = [self.read(line)[0] for line in range(len(self))]
        return array("l", sorted(range(len(ids)), key=ids.__getitem__))

    def sorted(self) -> Iterator[tuple[str, str]]:
        """(utt, value) of all lines in `order`."""
        return map(self.read, self.order())

    def location(self, value: str, allow_commands: bool = False) -> Location:
        """The Location that a value of this list states."""
        location = Location.parse(value, allow_commands)
        return location.resolve(self._folder) if self._folder else location

    def locations(self, allow_commands: bool = False) -> Iterator[tuple[str, Location]]:
        """(utt, Location) of all lines in `order`."""
        return ((utt, self.location(value, allow_commands)) for utt, value in self.sorted())

    def lines_in(self, other: IndexedList) -> np.ndarray:
        """The line of each id of this list [n] in another one: [n], ABSENT where it lacks the id."""
        return other.lines_of(self.index)

    def lines_of(self, ids: HashIndex) -> np.ndarray:
        """The line of each of `ids` [n] in this list: [n], ABSENT where it lacks the id."""
        return self.index.find_all(ids)

    def refused(self) -> Iterator[tuple[int, str, str]]:
        """(number, id or "", reason) of the lines that a lenient list has left out, in order."""
        for start in self._refused:
            number = self._lines.number(start)
            try:
                ((utt, _),) = lists.parse_table([self._lines.text_at(start)], "")
            except UserError as e:
                yield number, "", str(e).removeprefix(":1: ")
                continue
            line = self.line(utt)
            assert line is not None
            yield number, utt, f"duplicate id, also in line {self.number(line)}; remove one of the lines"


def _open(path: str | os.PathLike, faults: lists.Faults | None) -> BinaryIO:
    """The bytes of a list, in a file that can be read at any place."""
    if os.path.isdir(path):
        return lists.list_of_folder(path, faults)
    return seekable(sys.stdin.buffer if str(path) == "-" else lists.open_bytes(path))


def seekable(file: BinaryIO) -> BinaryIO:
    """A file, or a copy of standard input or of a pipe, that can be read at any place."""
    if file is not sys.stdin.buffer and file.seekable():
        return file
    copy = tempfile.TemporaryFile()
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


# A line as nearly all are: checked by one match, since a list has to be read before the first utterance is handled.
_PLAIN = re.compile(rb"(?!\.{1,2}\s)([^\s/\0]+)[ \t]+\S").match


def _starts_of_lines(file: BinaryIO, name: str, refused: array | None) -> Iterator[tuple[int, bytes]]:
    """Where it begins, and the id, of each line that is not blank; `refused` collects where unusable lines begin, which are else a
    UserError."""
    start = 0
    for number, line in enumerate(file, 1):
        if (plain := _PLAIN(line)) and line.isascii():
            yield start, plain[1]
        else:
            try:
                for utt, _ in lists.parse_table([line.decode()], name, number):
                    yield start, utt.encode()
            except UserError:
                if refused is None:
                    raise
                refused.append(start)
        start += len(line)
