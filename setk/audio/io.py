"""Read and write audio: files, pipes, commands and on-the-fly mixtures.

Samples are float32 of shape [channels, n] with full scale 1.0. int16 is converted by 32768 both ways, so that
what is read and written unchanged keeps its bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Iterator

import numpy as np

from setk.audio.location import Location
from setk.audio.pcm import to_int16
from setk.audio.wav import Info, wav_header
from setk.core.errors import UserError
from setk.core.files import atomic_path

SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT")
Source = str | os.PathLike | Location


def open_blocks(source: Source, frames: int) -> tuple[Info, Iterator[np.ndarray]]:
    """Header and blocks, float32 [channels, 1 ... frames], of a Location or of the text of one.

    A text has no permission to run commands; see `Location.parse` and `Location.open`.
    """
    return Location.parse(source).open(frames)


def read(source: Source) -> tuple[np.ndarray, int]:
    """All samples, float32 [channels, n], and the rate in Hz; see `Location.read`."""
    return Location.parse(source).read()


def read_mono(source: Source, rate: int | None = None) -> tuple[np.ndarray, int]:
    """One channel, float32 [n], and the rate in Hz, which must be `rate` if given; see `Location.read_mono`."""
    return Location.parse(source).read_mono(rate)


def probe(source: Source) -> Info:
    """Rate, channels and frames, by the header where possible; see `Location.probe`."""
    return Location.parse(source).probe()


class Writer:
    """Audio written in blocks: `with Writer(path, rate, channels) as w: w.write(x)`.

    A file appears, complete, when the block ends without an error; the suffix decides its format. `-` (standard
    output) and named pipes get a wav with an open-ended header (no header with raw=True), flushed with every block.
    Nothing is rescaled: samples beyond full scale are clipped in integer formats and counted in `clipped`. Raises
    UserError on an unknown suffix, or on a subtype that the format does not support.
    """

    def __init__(self, path: str, rate: int, channels: int, subtype: str = "PCM_16", raw: bool = False):
        self.path, self.rate, self.channels, self.subtype, self.raw = str(path), rate, channels, subtype, raw
        self.clipped = 0
        self._stack = contextlib.ExitStack()
        self._live = self.path == "-" or _is_pipe(self.path)
        if not self._live:
            import soundfile

            self._kind = Path(path).suffix.lstrip(".").upper()
            if self._kind not in soundfile.available_formats() or not soundfile.check_format(self._kind, subtype):
                raise UserError(
                    f"{path}: {subtype} in '.{self._kind.lower()}' cannot be written; use .wav or .flac with PCM_16"
                )
        elif self.path == "-" and sys.stdout.isatty():
            raise UserError("standard output is a terminal; send the audio to a file or a pipe")
        elif subtype != "PCM_16":
            raise UserError(f"{subtype} cannot be written to a pipe; use PCM_16")

    def __enter__(self) -> Writer:
        if self._live:
            self._pipe = sys.stdout.buffer if self.path == "-" else self._stack.enter_context(open(self.path, "wb"))
            if not self.raw:
                self._pipe.write(wav_header(self.rate, self.channels, None))
                self._pipe.flush()
            return self
        import soundfile

        tmp = self._stack.enter_context(atomic_path(self.path))
        self._file = self._stack.enter_context(
            soundfile.SoundFile(tmp, "w", self.rate, self.channels, self.subtype, format=self._kind)
        )
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)

    def write(self, x: np.ndarray) -> None:
        """Append float [channels, n]."""
        pcm, clipped = to_int16(x) if self.subtype != "FLOAT" else (None, 0)
        self.clipped += clipped
        if self._live:
            self._pipe.write(np.ascontiguousarray(pcm.T).tobytes())
            self._pipe.flush()
        else:
            self._write_file(pcm.T if self.subtype == "PCM_16" else x.T)

    def _write_file(self, frames: np.ndarray) -> None:
        import soundfile

        try:
            self._file.write(frames)
        except soundfile.LibsndfileError:
            # libsndfile does not report the operating system's reason.
            full = shutil.disk_usage(Path(self.path).parent).free < frames.nbytes
            code = errno.ENOSPC if full else errno.EIO
            raise OSError(code, os.strerror(code), self.path) from None


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def write(path: str | os.PathLike, x: np.ndarray, rate: int, subtype: str = "PCM_16") -> int:
    """Write float [channels, n] (or [n]) to `path` as `Writer` does; returns the number of clipped samples."""
    x = np.atleast_2d(x)
    with Writer(str(path), rate, len(x), subtype) as w:
        w.write(x)
    return w.clipped
