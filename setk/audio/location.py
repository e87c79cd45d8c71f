"""Where a signal is: a file, standard input, the output of a shell command, or an on-the-fly mixture.

Location.parse("a.wav")                                       a path: any format that libsndfile reads
Location.parse("-")                                           standard input
Location.parse("sox in.mp3 -t wav - |", allow_commands=True)  a shell command whose output is the audio
Location.parse('mix:{"length": ...}')                         a mixture (see setk.audio.mixture)
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from typing import Iterable, Iterator, Mapping

import numpy as np

from setk.audio import decode
from setk.audio.mixture import OLD_PREFIX, PREFIX, Mixture
from setk.audio.wav import Info
from setk.core.errors import AudioError, UserError

_BLOCK = 1 << 20


class Location(str):
    """One entry of a wav list: a string (it compares, sorts and prints as its text) that can be opened.

    Made by `parse`, which decides the kind and whether a shell command may run. Whatever is wrong with a location
    shows when it is opened, as an AudioError, so that one bad entry does not stop a list.
    """

    is_file = False  # a path, whose file can be used in place

    strict = False  # an early end of a pipe is an error, however little is missing

    @staticmethod
    def parse(text: str | os.PathLike, allow_commands: bool = False, strict: bool = False) -> Location:
        """The Location that `text` states; a Location is returned unchanged, with the permission that it has.

        Commands are refused when they are opened, unless `allow_commands` was given here. A pipe that ends less than a
        second before the length that its header states is read with a warning, unless it is `strict`.
        """
        if isinstance(text, Location):
            return text
        location = Location._kind(text, allow_commands)
        if strict:  # an attribute of its own would double the memory of a list
            location.strict = True
        return location

    @staticmethod
    def _kind(text: str | os.PathLike, allow_commands: bool) -> Location:
        text = os.fspath(text)
        if text == "-":
            return StandardInput(text)
        if text.endswith("|"):
            return AllowedCommand(text) if allow_commands else Command(text)
        return OnTheFlyMixture(text) if text.startswith((PREFIX, OLD_PREFIX)) else File(text)

    def open(self, frames: int = _BLOCK) -> tuple[Info, Iterator[np.ndarray]]:
        """Header, and blocks float32 [channels, 1 ... frames] as they arrive.

        Raises AudioError on what is missing, empty or not audio; the iterator raises it on NaN or infinite samples
        and, after the last sample, on truncation.
        """
        raise NotImplementedError

    def read(self) -> tuple[np.ndarray, int]:
        """All samples, float32 [channels, n], and the rate in Hz. Raises AudioError as `open` and its iterator do."""
        info, blocks = self.open()
        parts = list(blocks)
        if len(parts) == 1:  # as most files are: one copy fewer
            return np.ascontiguousarray(parts[0]), info.rate
        return (np.concatenate(parts, axis=1) if parts else np.zeros((info.channels, 0), np.float32)), info.rate

    def read_mono(self, rate: int | None = None) -> tuple[np.ndarray, int]:
        """All samples of a mono signal, float32 [n], and the rate. Raises AudioError also on more channels, or on a
        rate other than `rate`."""
        x, found = self.read()
        check_mono(self, len(x), found, rate)
        return x[0], found

    def probe(self) -> Info:
        """Rate, channels and frames: by the header where there is a file, else by reading everything."""
        x, rate = self.read()
        return Info(rate, *x.shape)

    def changed_ns(self) -> int:
        """When the underlying files were last changed, in ns since the epoch; 0 where there are none (any more)."""
        return 0

    def can_be_read_again(self) -> bool:
        """Whether a second `open` returns the same signal: not of a pipe, which the first one drained."""
        return True

    def state(self) -> str:
        """What the signal is as of now, to compare with later; empty for a pipe, which is another one each time."""
        try:
            return f"{self}\0{self.changed_ns()}" if self.can_be_read_again() else ""
        except AudioError:  # shows when it is read
            return ""

    def reads(self, path: str | os.PathLike) -> bool:
        """Whether the file `path` is (under any name) one that this location is read from."""
        return False

    def shared(self) -> Location:
        """The location where standard input is not free to be read."""
        return Taken(self) if isinstance(self, StandardInput) else self

    def resolve(self, folder: str | os.PathLike) -> Location:
        """The location with relative paths taken from `folder`, where they do not exist from the current directory
        and do exist there; else unchanged."""
        return self


class File(Location):
    """A path, regular file or named pipe."""

    is_file = True

    def open(self, frames: int = _BLOCK) -> tuple[Info, Iterator[np.ndarray]]:
        return decode.decode(self._open_bytes(), self, frames, False if self.strict else None)

    def _open_bytes(self):
        try:
            return open(self, "rb")
        except FileNotFoundError:
            raise AudioError(f"{self}: no such file") from None
        except IsADirectoryError:
            raise AudioError(f"{self}: is a directory; give an audio file") from None
        except ValueError:
            raise AudioError(f"{self!r}: is not a valid path") from None
        except OSError as e:
            raise AudioError(f"{self}: {e.strerror}") from None

    def probe(self) -> Info:
        with self._open_bytes() as stream:
            return decode.probe_file(stream, self)

    def changed_ns(self) -> int:
        try:
            return os.stat(self).st_mtime_ns
        except (OSError, ValueError):
            return 0

    def can_be_read_again(self) -> bool:
        return os.path.isfile(self) or not os.path.exists(self)

    def reads(self, path: str | os.PathLike) -> bool:
        try:
            return os.path.samefile(self, path)
        except (OSError, ValueError):
            return False

    def resolve(self, folder: str | os.PathLike) -> Location:
        if os.path.isabs(self) or os.path.lexists(self):
            return self
        there = os.path.join(folder, self)
        return File(there) if os.path.exists(there) else self


class StandardInput(Location):
    """`-`."""

    def open(self, frames: int = _BLOCK) -> tuple[Info, Iterator[np.ndarray]]:
        return decode.decode(sys.stdin.buffer, decode.STANDARD_INPUT, frames, False if self.strict else None)

    def can_be_read_again(self) -> bool:
        return False

    def reads(self, path: str | os.PathLike) -> bool:
        try:
            return os.path.samestat(os.fstat(0), os.stat(path))
        except (OSError, ValueError):
            return False


class Taken(Location):
    """`-`, where standard input is something else already."""

    def open(self, frames: int = _BLOCK) -> tuple[Info, Iterator[np.ndarray]]:
        raise AudioError("standard input cannot be an entry here: it is the list, or several processes would share it")


class Command(Location):
    """`command |`, which is not allowed to run."""

    def open(self, frames: int = _BLOCK) -> tuple[Info, Iterator[np.ndarray]]:
        raise AudioError(
            f"'{self}' is a shell command and was not run; commands with --allow-commands run those of lists that you trust"
        )


class AllowedCommand(Command):
    """`command |`: run by bash, its standard output read to the end before the first block."""

    def open(self, frames: int = _BLOCK) -> tuple[Info, Iterator[np.ndarray]]:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self[:-1]], stdin=subprocess.DEVNULL, capture_output=True
        )
        if done.returncode:
            tail = done.stderr.decode(errors="replace").strip().splitlines()[-2:]
            raise AudioError(f"'{self}' ended with code {done.returncode}{': ' if tail else ''}{' / '.join(tail)}")
        return decode.decode(io.BytesIO(done.stdout), f"'{self}'", frames, not self.strict)


class OnTheFlyMixture(Location):
    """`mix:{...}`, or `sum:{...}`: a sum of files that is computed when it is read; mono."""

    def open(self, frames: int = _BLOCK) -> tuple[Info, Iterator[np.ndarray]]:
        mixture = Mixture.parse(self)
        return Info(mixture.rate, 1, mixture.length), mixture.blocks(lambda path: File(path).read(), frames)

    def probe(self) -> Info:
        mixture = Mixture.parse(self)
        for part in mixture.parts:
            File(part.path).probe()
        return Info(mixture.rate, 1, mixture.length)

    def changed_ns(self) -> int:
        return max(File(part.path).changed_ns() for part in Mixture.parse(self).parts)

    def reads(self, path: str | os.PathLike) -> bool:
        try:
            return any(File(part.path).reads(path) for part in Mixture.parse(self).parts)
        except AudioError:  # raised again when it is opened
            return False

    def resolve(self, folder: str | os.PathLike) -> Location:
        try:
            mixture = Mixture.parse(self)
        except AudioError:  # raised again when it is opened
            return self
        parts = tuple(replace(part, path=str(File(part.path).resolve(folder))) for part in mixture.parts)
        return self if parts == mixture.parts else OnTheFlyMixture(replace(mixture, parts=parts).text())


def check_unread(outputs: Mapping[str, str | os.PathLike | None], places: Iterable[Location]) -> None:
    """Raise UserError if a file to write, by its option, is one that a signal is read from."""
    for place in places:
        for option, path in outputs.items():
            if path and place.reads(path):
                raise UserError(f"{option} {path}: is the input {place}; choose another file to write")


def check_mono(name: str, channels: int, found: int, rate: int | None) -> None:
    """Raise AudioError unless there is one channel, and `found` is `rate` in Hz where that is given."""
    if channels != 1:
        raise AudioError(
            f"{name}: has {channels} channels; expected mono (se-prep resample --channel 1 keeps the first)"
        )
    if rate and found != rate:
        raise AudioError(f"{name}: is at {found} Hz; expected {rate} Hz (se-prep resample converts)")
