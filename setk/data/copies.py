"""The same audio in several data directories."""

from __future__ import annotations

from array import array
from typing import Iterable, NamedTuple

import numpy as np

from setk.data import lists
from setk.data.index import HashIndex, Lines


class Place(NamedTuple):
    """A line of a wav list: the file, its number, where it begins, and the location that it states."""

    file: str
    line: int
    start: int
    value: str


class SeenAudio:
    """The audio of data directories by a digest of its samples: 29 bytes for each file.

    Digests have 64 bits. Two of n different files have the same one with a probability below n**2 / 2**65.
    """

    def __init__(self) -> None:
        self._files: list[str] = []
        self._digests, self._starts, self._file_of = array("q"), array("q"), array("H")
        self._index = HashIndex(array("q"))

    def add(self, digests: Iterable[tuple[Place, bytes]]) -> None:
        """Add the files of an utterance. `find` knows them after `close`."""
        for place, digest in digests:
            if place.file not in self._files:
                self._files.append(place.file)
            self._digests.append(_key(digest))
            self._starts.append(place.start)
            self._file_of.append(self._files.index(place.file))

    def close(self) -> None:
        """End a directory."""
        self._index = HashIndex(self._digests[:])

    def find(self, digest: bytes) -> Place | None:
        """The first line whose file has the samples of this `digest`; None without one."""
        found = self._index.find(_key(digest))
        if found is None:
            return None
        name, start = self._files[self._file_of[found]], self._starts[found]
        with open(name, "rb") as f:
            lines = Lines(f, np.empty(0, np.int64))
            return Place(name, lines.number(start), start, lists.split_line(lines.text_at(start))[1])


def _key(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little", signed=True)
