"""Encoded audio to blocks of samples: wav by setk's own codec, all other formats by libsndfile."""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO, Iterator

import numpy as np

from setk.audio.pcm import check_finite
from setk.audio.wav import Info, WavReader, check_limits
from setk.core.errors import AudioError

_RIFF = (b"RIFF", b"RF64")


def decode(stream: BinaryIO, name: str, frames: int) -> tuple[Info, Iterator[np.ndarray]]:
    """Header and blocks, float32 [channels, 1 ... frames], of a byte stream. The iterator closes the stream.

    Blocks of a pipe arrive as the pipe delivers them. Raises AudioError (`name` is in its message) on what is empty
    or not audio; the iterator raises it on NaN or infinite samples and, after the last sample, on truncation.
    """
    try:
        head = stream.peek(4)[:4] if hasattr(stream, "peek") else stream.getbuffer()[:4].tobytes()  # type: ignore[attr-defined]
        if head in _RIFF:
            wav = WavReader(stream, name)
            return wav.info, _closing(stream, wav.blocks(frames))
        return _decode_other(stream, name, frames)
    except BaseException:
        stream.close()
        raise


def _closing(stream: BinaryIO, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    with stream:
        yield from blocks


def _decode_other(stream: BinaryIO, name: str, frames: int) -> tuple[Info, Iterator[np.ndarray]]:
    """Formats that libsndfile reads. It must seek, so a pipe is first read to its end."""
    import soundfile

    if not stream.seekable() or stream is sys.stdin.buffer:
        stream = io.BytesIO(stream.read())
    if not stream.read(1):
        raise AudioError(f"{name}: is empty")
    stream.seek(0)
    try:
        f = soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as e:
        raise AudioError(_unreadable(name, e)) from None
    info = check_limits(Info(f.samplerate, f.channels, f.frames), name)
    return info, _read_blocks(f, stream, name, frames)


def _read_blocks(f, stream: BinaryIO, name: str, frames: int) -> Iterator[np.ndarray]:
    import soundfile

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
            yield check_finite(np.ascontiguousarray(x.T), name)
        if done < f.frames:
            raise AudioError(
                f"{name}: is truncated: {f.frames - done} of {f.frames} samples are missing; make the file again"
            )


def probe_file(stream: BinaryIO, name: str) -> Info:
    """Rate, channels and frames of an open file by its header. Raises AudioError on what is truncated or not audio."""
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
    try:
        info = soundfile.info(name)
    except soundfile.LibsndfileError as e:
        raise AudioError(_unreadable(name, e)) from None
    return check_limits(Info(info.samplerate, info.channels, info.frames), name)


def _unreadable(name: str, error) -> str:
    return (
        f"{name}: is not an audio file that setk can read ({error.error_string.rstrip('.')}); convert it to wav or FLAC"
    )
