"""Encoded audio to blocks of samples: wav by setk's own codec, all other formats by libsndfile."""

from __future__ import annotations

import io
import logging
import os
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator

import numpy as np

from setk.audio.complete import shortcoming
from setk.audio.pcm import STANDARD_INPUT, check_finite
from setk.audio.wav import Info, WavReader, check_limits, read_exactly
from setk.core.errors import AudioError, Truncated

_RIFF = (b"RIFF", b"RF64")
_UNKNOWN = 1 << 62  # libsndfile states a length beyond this for a stream without one
# A program that writes to a pipe states a length before it knows it: sox, for one, estimates that of an mp3.
_EARLY_S = 1.0
_STATED_ONCE = ("FLAC", "MP3")  # of which the beginning states how many samples there are
_READ_AHEAD = 1 << 16  # bytes after the last sample that decoders may leave: their buffers, and tags
_SLACK_S = 0.1  # of sound after the samples of a wav that is not worth a word
_log = logging.getLogger("setk")


def decode(stream: BinaryIO, name: str, frames: int, pipe: bool | None = None) -> tuple[Info, Iterator[np.ndarray]]:
    """Header and blocks, float32 [channels, 1 ... frames], of a byte stream. The iterator closes the stream.

    Blocks of a pipe arrive as the pipe delivers them. Raises AudioError (`name` is in its message) on what is empty
    or not audio; the iterator raises it on NaN or infinite samples and, after the last sample, on truncation. The end
    of a `pipe` (None: a stream that cannot seek) less than a second early is a warning of the logger "setk" instead.
    """
    if pipe is None:
        pipe = not stream.seekable()
    try:
        with _reading(name):
            begin = read_exactly(stream, 4)
            if begin in _RIFF:
                wav = WavReader(stream, name, begin)
                info, blocks = wav.info, _wav_blocks(stream, wav, frames)
            else:
                info, blocks = _decode_other(stream, name, frames, begin)
        return info, (_until_early_end(blocks, name) if pipe else blocks)
    except BaseException:
        stream.close()
        raise


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """What the operating system refuses to read, as a failing disk does, concerns this file alone."""
    try:
        yield
    except OSError as e:
        raise AudioError(f"{name}: {e.strerror or e}") from None


def _wav_blocks(stream: BinaryIO, wav: WavReader, frames: int) -> Iterator[np.ndarray]:
    with stream, _reading(wav.name):
        yield from wav.blocks(frames)
        if wav.info.frames is None or not stream.seekable():
            return
        left = _left(stream)
        if left > _SLACK_S * wav.info.rate * wav.align and not wav.at_chunk(left):
            _warn_of_rest(wav.name, left)


def _until_early_end(blocks: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """`blocks`, with a warning in place of the error where little of what the header states is missing."""
    try:
        yield from blocks
    except Truncated as e:
        if e.seconds is None:
            _log.warning("%s", e)
        elif e.seconds < _EARLY_S:
            _log.warning("%s: ends %.3f s before the length that its header states", name, e.seconds)
        else:
            raise


def _decode_other(stream: BinaryIO, name: str, frames: int, begin: bytes = b"") -> tuple[Info, Iterator[np.ndarray]]:
    """Formats that libsndfile reads. It must seek, so a pipe is first read to its end; `begin` has been read already."""
    import soundfile

    pipe = not stream.seekable()
    if pipe or stream is sys.stdin.buffer:
        stream = io.BytesIO(begin + stream.read())
    stream.seek(0)
    if not stream.read(1):
        raise AudioError(f"{name}: is empty")
    fault = shortcoming(stream)
    stream.seek(0)
    _check_header(name)
    try:
        f = soundfile.SoundFile(_Source(stream))
    except soundfile.LibsndfileError as e:
        raise AudioError(_unreadable(stream, name, e)) from None
    info = check_limits(Info(f.samplerate, f.channels, _length(f.frames)), name)
    if info.frames is None:
        # soundfile goes to where it has read to, which fails at an end that libsndfile does not know.
        f.seekable = lambda: False
    return info, _read_blocks(f, stream, name, frames, pipe, fault)


class _Source:
    """A byte stream as libsndfile reads it: what a damaged header makes it seek to, before the beginning, raises nothing."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.read, self.readinto, self.tell = stream.read, stream.readinto, stream.tell  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._stream.seek(offset, whence)
        except (ValueError, OSError):
            return self._stream.tell()


def _length(frames: int) -> int | None:
    return frames if frames < _UNKNOWN else None


def _read_blocks(f, stream: BinaryIO, name: str, frames: int, pipe: bool, fault: str | None) -> Iterator[np.ndarray]:
    import soundfile

    done, damaged = 0, False
    with stream, f, _reading(name):
        while done < f.frames:
            try:
                x = f.read(frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                damaged = True
                break
            if not len(x):
                break
            done += len(x)
            yield check_finite(np.ascontiguousarray(x.T), name)
        if done >= f.frames:
            if fault:
                raise Truncated(f"{name}: {fault}", None)
            if f.format in _STATED_ONCE and (left := _left(stream)) > _READ_AHEAD:
                _warn_of_rest(name, left)
            return
        if _length(f.frames) is not None:
            raise Truncated(
                f"{name}: is truncated: {f.frames - done} of {f.frames} samples are missing; make the file again",
                (f.frames - done) / f.samplerate,
            )
        if damaged:
            raise AudioError(f"{name}: is damaged after {done} samples; make the file again")
        if pipe:
            raise Truncated(f"{name}: states no length, so a cut end cannot be detected; read {done} samples", None)


def _left(stream: BinaryIO) -> int:
    """Bytes from the position to the end; the position stays."""
    at = stream.tell()
    left = stream.seek(0, os.SEEK_END) - at
    stream.seek(at)
    return left


def _warn_of_rest(name: str, left: int) -> None:
    """Of files that were joined byte by byte, and of wavs whose writer was killed after it had stated a length, a reader sees as many
    samples as the first header states."""
    _log.warning("%s: %d bytes follow the samples that its header states, and are not read", name, left)


def probe_file(stream: BinaryIO, name: str) -> Info:
    """Rate, channels and frames of an open file by its header. Raises AudioError on what is truncated or not audio."""
    with _reading(name):
        return _probe(stream, name)


def _probe(stream: BinaryIO, name: str) -> Info:
    import soundfile

    if stream.peek(4)[:4] in _RIFF:  # type: ignore[attr-defined]
        wav = WavReader(stream, name)
        present = (os.fstat(stream.fileno()).st_size - stream.tell()) // wav.align
        if wav.info.frames is not None and present < wav.info.frames:
            raise AudioError(
                f"{name}: is truncated: {wav.info.frames - present} of {wav.info.frames} samples are missing; "
                "make the file again"
            )
        return Info(wav.info.rate, wav.info.channels, present if wav.info.frames is None else wav.info.frames)
    if not stream.peek(1):  # type: ignore[attr-defined]
        raise AudioError(f"{name}: is empty")
    _check_header(name)
    if fault := shortcoming(stream):
        raise AudioError(f"{name}: {fault}")
    try:
        info = soundfile.info(name)
    except soundfile.LibsndfileError as e:
        raise AudioError(_unreadable(stream, name, e)) from None
    found = check_limits(Info(info.samplerate, info.channels, _length(info.frames)), name)
    if found.frames is not None:
        return found
    stream.seek(0)
    _, blocks = _decode_other(stream, name, 1 << 16)
    return Info(found.rate, found.channels, sum(block.shape[1] for block in blocks))


def _check_header(name: str) -> None:
    """Raise AudioError for a name by which libsndfile expects samples without a header."""
    if name.lower().endswith(".raw"):
        raise AudioError(
            f"{name}: samples without a header have no rate; convert it to wav, or use a pipe and se-enhance --raw"
        )


def _is_wav_list(stream: BinaryIO) -> bool:
    """Whether the first line is an id and a path or command."""
    stream.seek(0)
    line = stream.read(4096).partition(b"\n")[0].decode(errors="replace")
    utt, _, place = line.strip().partition(" ")
    return line.isprintable() and bool(utt) and (place.endswith("|") or bool(Path(place).suffix))


def _unreadable(stream: BinaryIO, name: str, error) -> str:
    if name == STANDARD_INPUT:
        return (
            f"{name}: is not an audio file that setk can read; send wav or FLAC, whose length a pipe need not know, "
            "or samples without a header with --raw"
        )
    reason = f"{name}: is not an audio file that setk can read ({error.error_string.rstrip('.')}); "
    if name.endswith("|"):
        return reason + "have the command write wav or FLAC"
    if _is_wav_list(stream):
        return f"{name}: is a wav list, not audio; give it to --list (se-score: --ref)"
    wav = Path(name).with_suffix(".wav").name
    return (
        f"{reason}convert it to wav or FLAC; the sound of a video: ffmpeg -i {shlex.quote(name)} -vn {shlex.quote(wav)}"
    )
