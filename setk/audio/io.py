"""Wav in and out: files, pipes, command pipes, odd headers, resampling.

Samples are float32 of shape [channels, n] with full scale 1.0; int16 converts by 32768 both ways, so that
what is read and written unchanged keeps its bytes. Wav is parsed here, since a wav on a pipe needs it
(ffmpeg and sox write sizes they do not know yet) and libsndfile takes a truncated wav for a short one; all
other formats are libsndfile's.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterator

import numpy as np

from setk.audio import sums
from setk.core.errors import AudioError, UserError
from setk.core.files import atomic_path

SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT")
# Sizes that mean "until the end": ffmpeg writes the first, sox and arecord ones near the others.
_OPEN_SIZES = (0, 0x7FFFF000, 0x80000000 - 44)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


@dataclass(frozen=True)
class Info:
    """What a header says: rate in Hz, channels, frames per channel (None when the header does not know)."""

    rate: int
    channels: int
    frames: int | None


class WavReader:
    """A wav read from a stream that need not seek. `info` is known after construction."""

    def __init__(self, stream: BinaryIO, name: str):
        self.stream, self.name = stream, name
        head = _read_exactly(stream, 12)
        if len(head) == 0:
            raise AudioError(f"{name}: is empty")
        if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
            raise AudioError(f"{name}: is not a wav")
        self._find_data()

    def _find_data(self) -> None:
        long_size = None
        layout = None
        while True:
            head = _read_exactly(self.stream, 8)
            if len(head) < 8:
                raise AudioError(f"{self.name}: is truncated: the wav header has no data chunk")
            kind, size = head[:4], struct.unpack("<I", head[4:])[0]
            if kind == b"data":
                break
            body = _read_exactly(self.stream, size + size % 2)
            if len(body) < size:
                raise AudioError(f"{self.name}: is truncated: the wav header has no data chunk")
            if kind == b"fmt " and size >= 16:
                layout = struct.unpack("<HHIIHH", body[:16])
                if layout[0] == _EXTENSIBLE and size >= 26:
                    layout = (struct.unpack("<H", body[24:26])[0], *layout[1:])
            elif kind == b"ds64":
                long_size = struct.unpack("<Q", body[8:16])[0]
        if layout is None:
            raise AudioError(f"{self.name}: the wav header has no format chunk")
        code, channels, rate, _, align, bits = layout
        if (code, bits) not in _DECODERS or channels < 1 or rate < 1 or align != channels * bits // 8:
            raise AudioError(f"{self.name}: wav format {code} with {bits} bits is not read here; convert it to 16-bit PCM")
        self._decode, self._align, self._float = _DECODERS[code, bits], align, code == _FLOAT
        if size == 0xFFFFFFFF and long_size is not None:
            size = long_size
        open_ended = size in _OPEN_SIZES or size >= 0xFFFFFFFF - 64
        self._left = None if open_ended else size
        self.info = Info(rate, channels, None if open_ended else size // align)

    def blocks(self, frames: int) -> Iterator[np.ndarray]:
        """Yield float32 [channels, 1 ... frames] as bytes arrive.

        Raises AudioError on NaN or infinite samples, and, after the last whole frame, where the data ends
        before the size that the header gives.
        """
        rest = b""
        while True:
            want = frames * self._align - len(rest)
            if self._left is not None:
                want = min(want, self._left)
            data = _read_some(self.stream, want) if want else b""
            if not data:
                break
            if self._left is not None:
                self._left -= len(data)
            data = rest + data
            whole = len(data) - len(data) % self._align
            data, rest = data[:whole], data[whole:]
            if whole:
                x = self._decode(data).reshape(-1, self.info.channels).T
                yield _finite(x, self.name) if self._float else x
        if self._left:
            raise AudioError(f"{self.name}: is truncated: {self._left} bytes of audio are missing; make the file again")


def _read_some(stream: BinaryIO, size: int) -> bytes:
    """What one read gives, without waiting for `size` bytes: a live pipe must not be held back."""
    return stream.read1(size) if hasattr(stream, "read1") else stream.read(size)


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, or fewer at the end of the stream."""
    parts, left = [], size
    while left:
        part = stream.read(min(left, 1 << 20))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _pcm24(data: bytes) -> np.ndarray:
    b = np.frombuffer(data, np.uint8).reshape(-1, 3)
    wide = np.zeros((len(b), 4), np.uint8)
    wide[:, 1:] = b
    return wide.view("<i4")[:, 0].astype(np.float32) / 2.0**31


_DECODERS = {
    (_PCM, 8): lambda d: (np.frombuffer(d, np.uint8).astype(np.float32) - 128) / 128,
    (_PCM, 16): lambda d: from_int16(np.frombuffer(d, "<i2")),
    (_PCM, 24): _pcm24,
    (_PCM, 32): lambda d: (np.frombuffer(d, "<i4") / 2.0**31).astype(np.float32),
    (_FLOAT, 32): lambda d: np.frombuffer(d, "<f4").astype(np.float32),
    (_FLOAT, 64): lambda d: np.frombuffer(d, "<f8").astype(np.float32),
}


def from_int16(x: np.ndarray) -> np.ndarray:
    """int16 samples to float32 with full scale 1.0."""
    y = x.astype(np.float32)
    y *= np.float32(1 / 32768)
    return y


def to_int16(x: np.ndarray) -> tuple[np.ndarray, int]:
    """float samples to int16 (rounded, clipped), and how many samples were clipped."""
    scaled = np.rint(np.asarray(x, np.float32) * np.float32(32768))
    clipped = 0
    if scaled.size and (scaled.max() > 32767 or scaled.min() < -32768):
        clipped = int(np.count_nonzero((scaled > 32767) | (scaled < -32768)))
        scaled = np.clip(scaled, -32768, 32767)
    return scaled.astype("<i2"), clipped


def _finite(x: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(x).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; mend the file")
    return x


def raw_blocks(stream: BinaryIO, channels: int, frames: int) -> Iterator[np.ndarray]:
    """Blocks float32 [channels, 1 ... frames] of headerless s16le, as they arrive."""
    rest = b""
    align = 2 * channels
    while data := _read_some(stream, frames * align - len(rest)):
        data = rest + data
        whole = len(data) - len(data) % align
        data, rest = data[:whole], data[whole:]
        if whole:
            yield from_int16(np.frombuffer(data, "<i2")).reshape(-1, channels).T


def is_command(location: str) -> bool:
    """Whether a list's location is a shell command whose output is the wav."""
    return location.endswith("|")


def newest_ns(location: str) -> int:
    """When the files behind a location changed last, in ns; 0 for a command, and for files that are gone by now."""
    if is_command(location):
        return 0
    files = [part.path for part in sums.parse(location).parts] if sums.is_sum(location) else [location]
    return max((os.stat(file).st_mtime_ns for file in files if os.path.exists(file)), default=0)


def _run_command(location: str, allow: bool) -> bytes:
    if not allow:
        raise AudioError(f"'{location}' is a shell command, and a list may come from a stranger; --allow-commands runs it")
    done = subprocess.run(["bash", "-o", "pipefail", "-c", location[:-1]], stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-2:]
        raise AudioError(f"'{location}' ended with code {done.returncode}{': ' if tail else ''}{' / '.join(tail)}")
    return done.stdout


def open_wav(location: str, *, allow_commands: bool = False) -> tuple[BinaryIO, str]:
    """Open `location` (path, `-`, or `command |`) for reading bytes; return it with its name for messages."""
    if location == "-":
        return sys.stdin.buffer, "standard input"
    if is_command(location):
        return io.BytesIO(_run_command(location, allow_commands)), f"'{location}'"
    try:
        return open(location, "rb"), location
    except FileNotFoundError:
        raise AudioError(f"{location}: no such file") from None
    except IsADirectoryError:
        raise AudioError(f"{location}: is a directory; an audio file is wanted") from None
    except OSError as e:
        raise AudioError(f"{location}: {e.strerror}") from None


def open_blocks(location: str, frames: int, *, allow_commands: bool = False) -> tuple[Info, Iterator[np.ndarray]]:
    """Header and blocks, float32 [channels, 1 ... frames], of a path, `-`, `command |` or `sum:…` (see `sums`).

    Blocks of a pipe come as the pipe delivers. Raises AudioError on what is missing, empty or no audio; the
    iterator raises it on NaN or infinite samples and, after the last sample, on truncation.
    """
    if sums.is_sum(location):
        x, rate = sums.render(location, read, resample)
        return Info(rate, 1, len(x)), (x[None, i:i + frames] for i in range(0, len(x), frames))
    stream, name = open_wav(location, allow_commands=allow_commands)
    try:
        head = stream.peek(4)[:4] if hasattr(stream, "peek") else stream.getbuffer()[:4].tobytes()
        if head in (b"RIFF", b"RF64"):
            wav = WavReader(stream, name)
            return wav.info, _closing(stream, wav.blocks(frames))
        return _open_other(stream, name, frames)
    except BaseException:
        stream.close()
        raise


def _closing(stream: BinaryIO, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    with stream:
        yield from blocks


def _open_other(stream: BinaryIO, name: str, frames: int) -> tuple[Info, Iterator[np.ndarray]]:
    """Formats that libsndfile reads; it must seek, so a pipe is taken in whole first."""
    import soundfile

    if not stream.seekable() or stream is sys.stdin.buffer:
        stream = io.BytesIO(stream.read())
    if not stream.read(1):
        raise AudioError(f"{name}: is empty")
    stream.seek(0)
    try:
        f = soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as e:
        raise AudioError(f"{name}: is no audio that can be read ({e.error_string.rstrip('.')})") from None

    def blocks() -> Iterator[np.ndarray]:
        done = 0
        with stream, f:
            while done < f.frames:
                try:
                    x = f.read(frames, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError:
                    break
                if not len(x):
                    break
                done += len(x)
                yield _finite(np.ascontiguousarray(x.T), name)
            if done < f.frames:
                raise AudioError(f"{name}: is truncated: {f.frames - done} of {f.frames} samples are missing; make the file again")

    return Info(f.samplerate, f.channels, f.frames), blocks()


def read(location: str, *, allow_commands: bool = False) -> tuple[np.ndarray, int]:
    """Read a whole file, standard input or command pipe: float32 [channels, n] and the rate in Hz.

    Raises AudioError as `open_blocks` and its iterator do.
    """
    info, blocks = open_blocks(location, 1 << 20, allow_commands=allow_commands)
    parts = list(blocks)
    if len(parts) == 1:  # as most files are: a copy less
        return np.ascontiguousarray(parts[0]), info.rate
    return (np.concatenate(parts, axis=1) if parts else np.zeros((info.channels, 0), np.float32)), info.rate


def probe(location: str, *, allow_commands: bool = False) -> Info:
    """Rate, channels and frames of a file by its header alone; a command or a pipe is read whole."""
    if sums.is_sum(location):
        total = sums.parse(location)
        for part in total.parts:
            probe(part.path)
        return Info(total.rate, 1, total.length)
    if location == "-" or is_command(location):
        x, rate = read(location, allow_commands=allow_commands)
        return Info(rate, *x.shape)
    stream, name = open_wav(location)
    with stream:
        if stream.peek(4)[:4] in (b"RIFF", b"RF64"):
            wav = WavReader(stream, name)
            present = (os.stat(location).st_size - stream.tell()) // wav._align
            if wav.info.frames is not None and present < wav.info.frames:
                raise AudioError(f"{name}: is truncated: {wav.info.frames - present} of {wav.info.frames} samples are missing")
            return Info(wav.info.rate, wav.info.channels, present if wav.info.frames is None else wav.info.frames)
        import soundfile

        if not stream.peek(1):
            raise AudioError(f"{name}: is empty")
        try:
            info = soundfile.info(location)
        except soundfile.LibsndfileError as e:
            raise AudioError(f"{name}: is no audio that can be read ({e.error_string.rstrip('.')})") from None
        return Info(info.samplerate, info.channels, info.frames)


def read_mono(location: str, rate: int | None = None, *, allow_commands: bool = False) -> tuple[np.ndarray, int]:
    """Read one channel: float32 [n] and the rate. Raises AudioError on more channels, or a rate other than `rate`."""
    x, found = read(location, allow_commands=allow_commands)
    check_mono(location, len(x), found, rate)
    return x[0], found


def check_mono(location: str, channels: int, found: int, rate: int | None) -> None:
    """Raise AudioError, with the mend, unless there is one channel, at `rate` Hz if that is given."""
    if channels != 1:
        raise AudioError(f"{location}: has {channels} channels; mono is wanted (se-prep resample --channel 1 takes one)")
    if rate and found != rate:
        raise AudioError(f"{location}: is at {found} Hz; {rate} Hz is wanted (se-prep resample converts)")


def wav_header(rate: int, channels: int, frames: int | None, bits: int = 16) -> bytes:
    """44 bytes of PCM wav header; `frames` None leaves the sizes open, for a pipe."""
    align = channels * bits // 8
    # Of the sizes that mean "until the end", the one that sox, ffmpeg and libsndfile all take; sox warns of others.
    size = 0x7FFFF000 if frames is None else frames * align
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", min(size + 36, 0xFFFFFFFF), b"WAVE", b"fmt ", 16,
                       _PCM, channels, rate, rate * align, align, bits, b"data", size)


class Writer:
    """Audio written in blocks: `with Writer(path, rate, channels) as w: w.write(x)`.

    A file appears, whole, when the block ends well; its format follows the suffix. `-` is standard output, and
    a named pipe is a path like it: wav with an open-ended header (or headerless with raw=True), flushed with every
    block. Nothing is rescaled:
    samples beyond full scale clip in integer formats and are counted in `clipped`. Raises UserError on an
    unknown suffix, or a subtype that the format does not take.
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
                raise UserError(f"{path}: {subtype} in '.{self._kind.lower()}' cannot be written; use .wav or .flac, PCM_16")
        elif self.path == "-" and sys.stdout.isatty():
            raise UserError("standard output is a terminal; send the audio to a file or a pipe")
        elif subtype != "PCM_16":
            raise UserError(f"{subtype} cannot be written to a pipe; PCM_16 can")

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
            soundfile.SoundFile(tmp, "w", self.rate, self.channels, self.subtype, format=self._kind))
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
            # libsndfile keeps the operating system's reason to itself.
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


def resampled_length(samples: int, source: int, target: int) -> int:
    """Samples at `target` Hz of so many at `source` Hz."""
    return -(-samples * target // source)


def resample(x: np.ndarray, source: int, target: int, resampler: str = "soxr") -> np.ndarray:
    """Resample float32 [..., n] from `source` to `target` Hz; length is ceil(n * target / source).

    `soxr` is its very-high-quality preset; `resampy` is kaiser_best, some 80 times slower, for parity with
    older corpora.
    """
    if resampler not in ("soxr", "resampy"):
        raise UserError(f"--resampler {resampler}: soxr or resampy")
    if source == target:
        return x
    n = resampled_length(x.shape[-1], source, target)
    if n == 0:
        return np.zeros((*x.shape[:-1], 0), np.float32)
    if resampler == "soxr":
        import soxr

        y = np.ascontiguousarray(soxr.resample(np.moveaxis(x, -1, 0), source, target, quality="VHQ").T)
    else:
        import resampy

        y = resampy.resample(x, source, target, axis=-1)
    y = y[..., :n].astype(np.float32)
    return np.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, n - y.shape[-1])])
