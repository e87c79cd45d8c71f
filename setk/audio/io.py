"""Read and write audio: files, pipes, commands and on-the-fly mixtures.

Samples are float32 of shape [channels, n] with full scale 1.0. int16 is converted by 32768 both ways, so that
what is read and written unchanged keeps its bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import BinaryIO, Iterator

import numpy as np

from setk.audio.location import Location
from setk.audio.pcm import LOST, to_int16
from setk.audio.wav import LARGEST, Info, wav_header
from setk.core.errors import AudioError, UserError
from setk.core.files import atomic_path

_log = logging.getLogger("setk")
_SYSTEM_ERROR = 2  # SF_ERR_SYSTEM of libsndfile: the operating system's, which it does not name
_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_SOUND = 1e-6  # -120 dBFS; what a model makes of silence is below
_FLOATS = ("FLOAT", "DOUBLE")
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


def check_format(path: str | os.PathLike, subtype: str) -> str:
    """The format that the suffix of `path` names, as libsndfile calls it. Raises UserError if it or `subtype` cannot be written."""
    import soundfile

    kind = Path(path).suffix.lstrip(".").upper()
    if kind == "RAW" or kind not in soundfile.available_formats() or not soundfile.check_format(kind, subtype):
        if not kind:
            raise UserError(f"{path}: without the suffix of a format cannot be written; use .wav or .flac")
        raise UserError(f"{path}: {subtype} in '.{kind.lower()}' cannot be written; use .wav or .flac with PCM_16")
    return kind


class Writer:
    """Audio written in blocks: `with Writer(path, rate, channels) as w: w.write(x)`.

    A file appears, complete, when the block ends without an error; the suffix decides its format. `-` (standard
    output) and named pipes get a wav with an open-ended header (no header with raw=True), flushed with every block;
    where standard output is a file, the header gets the length at the end. Nothing is rescaled: samples beyond full
    scale are clipped in integer formats and counted in `clipped`. Raises UserError on an unknown suffix, or on a subtype
    that the format does not support, AudioError on a rate or a number of channels that it does not, and on more samples than a
    wav can hold (at once if their number, `frames`, is given), OSError where the file cannot be written completely.
    """

    def __init__(
        self,
        path: str,
        rate: int,
        channels: int,
        subtype: str = "PCM_16",
        raw: bool = False,
        frames: int | None = None,
    ):
        self.path, self.rate, self.channels, self.subtype, self.raw = str(path), rate, channels, subtype, raw
        self.clipped = self._frames = 0
        self._peak = 0.0  # of what is written as PCM_16, as far as it is not above LOST
        self._stack = contextlib.ExitStack()
        self._live = self.path == "-" or _is_pipe(self.path)
        if not self._live:
            self._kind = check_format(path, subtype)
            self._check_length(frames or 0)
        elif self.path == "-" and sys.stdout.isatty():
            raise UserError("standard output is a terminal; send the audio to a file or a pipe")
        elif subtype != "PCM_16":
            raise UserError(f"{subtype} cannot be written to a pipe; use PCM_16")

    def __enter__(self) -> Writer:
        if self._live:
            self._pipe = sys.stdout.buffer if self.path == "-" else self._stack.enter_context(open(self.path, "wb"))
            if not self.raw:
                self._stack.callback(self._complete_header, _position(self._pipe))
                self._pipe.write(wav_header(self.rate, self.channels, None))
                self._pipe.flush()
            return self
        with contextlib.ExitStack() as stack:
            self._tmp = stack.enter_context(atomic_path(self.path))
            self._file = stack.enter_context(self._create())
            self._stack = stack.pop_all()
        return self

    def _create(self):
        """A soundfile.SoundFile for the temporary file. Raises AudioError and OSError."""
        import soundfile

        with open(self._tmp, "wb"):  # libsndfile does not report why a file cannot be made
            pass
        try:
            # As bytes: soundfile refuses names that are not UTF-8.
            return soundfile.SoundFile(
                os.fsencode(self._tmp), "w", self.rate, self.channels, self.subtype, format=self._kind
            )
        except soundfile.LibsndfileError as e:
            if e.code == _SYSTEM_ERROR:
                raise self._failure(1 << 12) from None
            raise AudioError(
                f"{self.path}: {self.channels} channels at {self.rate} Hz cannot be written ({e.error_string.rstrip('.')}); "
                "use .wav"
            ) from None

    def __exit__(self, kind, error, trace) -> None:
        if kind is None and not self._live:
            try:
                self._close()
            except BaseException as e:
                self._stack.__exit__(type(e), e, e.__traceback__)
                raise
        self._stack.__exit__(kind, error, trace)
        if kind is None and _SOUND < self._peak <= LOST:
            name = "standard output" if self.path == "-" else self.path
            _log.warning("%s: is silent, as all of its sound is below what 16 bits hold", name)

    def write(self, x: np.ndarray) -> None:
        """Append float [channels, n]."""
        self._frames += x.shape[1]
        if self.subtype == "PCM_16":
            if self._peak <= LOST:
                self._peak = max(self._peak, float(np.abs(x).max(initial=0)))
            x, clipped = to_int16(x)
            self.clipped += clipped
        elif self.subtype not in _FLOATS:
            # libsndfile clips what does not fit 32 bits, and cuts the rest off.
            self.clipped += int(np.count_nonzero((x >= 1) | (x < -1)))
        if self._live:
            self._pipe.write(np.ascontiguousarray(x.T).tobytes())
            self._pipe.flush()
        else:
            self._check_length(self._frames)
            self._write_file(x.T)

    def _check_length(self, frames: int) -> None:
        if self._kind == "WAV" and frames * self.channels * _BYTES.get(self.subtype, 1) > LARGEST:
            raise AudioError(f"{self.path}: a wav holds no more than 4 GiB; write .w64 or .flac")

    def _write_file(self, frames: np.ndarray) -> None:
        import soundfile

        try:
            self._file.write(frames)
        except soundfile.LibsndfileError:
            raise self._failure(frames.nbytes) from None

    def _close(self) -> None:
        """Close the file, and read its end: libsndfile reports neither a full disk nor a limit when it writes what it holds back."""
        import soundfile

        try:
            self._file.close()
            if not self._frames:  # libsndfile does not open a FLAC without samples
                return
            with soundfile.SoundFile(os.fsencode(self._tmp)) as written:
                # Lossy codecs pad.
                complete = written.frames == self._frames or self._kind in ("MP3", "OGG")
                if complete:
                    written.seek(written.frames - 1)
                    complete = len(written.read(1, dtype="int16")) == 1
        except soundfile.LibsndfileError:
            complete = False
        if not complete:
            raise self._failure(1 << 16)

    def _failure(self, needed: int) -> OSError:
        # libsndfile does not report the operating system's reason.
        full = shutil.disk_usage(Path(self.path).parent).free < needed
        code = errno.ENOSPC if full else errno.EIO
        return OSError(code, os.strerror(code), self.path)

    def _complete_header(self, start: int | None) -> None:
        """Write the length into the header at `start`; None: it cannot be reached."""
        if start is None:
            return
        end = self._pipe.tell()
        self._pipe.seek(start)
        self._pipe.write(wav_header(self.rate, self.channels, self._frames))
        self._pipe.flush()
        self._pipe.seek(end)


def _position(stream: BinaryIO) -> int | None:
    """Where the next byte goes, if it can be overwritten later: not in a pipe, and not in a file that is appended to."""
    try:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return None
        if fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_APPEND:
            return None
        return stream.tell()
    except OSError:
        return None


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
