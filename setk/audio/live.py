"""A live source in a pipe: only its newest audio, so that what waited does not become a lasting delay."""

from __future__ import annotations

import os
import select
import stat
from typing import BinaryIO, Callable, Iterator

import numpy as np

from setk.audio.pcm import STANDARD_INPUT, check_headerless, from_int16
from setk.audio.wav import Info, WavReader
from setk.core.errors import UserError

HOLD_S = 0.25  # audio that may wait: sound servers deliver fragments of up to 0.13 s
KEEP_S = 0.02  # the newest part of what waited longer: one fragment of a server at low latency
_READ = 1 << 16
_DRAIN = 1 << 24  # bytes read in one go, at most: a source without end must not keep us here


class LiveSource:
    """The newest audio of a pipe. `info`: its format; `dropped`: samples per channel that were left out so far.

    What waits at the first read is dropped except the last KEEP_S seconds, and so is what waits later if it is more than
    HOLD_S: after a stall of the source, of the reader of the output, or of this process. No clock is read. `on_drop(seconds)` is
    called for each drop. `raw`: the format of headerless s16le; None: the pipe carries a wav. Raises UserError on a regular
    file, AudioError on what is not a wav.
    """

    def __init__(
        self,
        stream: BinaryIO,
        raw: Info | None = None,
        on_drop: Callable[[float], None] = lambda seconds: None,
    ):
        self._descriptor, self._on_drop = stream.fileno(), on_drop
        if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise UserError(
                f"{STANDARD_INPUT} is a file, and --live drops all that waits; remove --live, or use a pipe"
            )
        self._wav = None if raw else WavReader(_Unbuffered(self._descriptor), STANDARD_INPUT)
        self.info = raw or self._wav.info
        self._align = self._wav.align if self._wav else 2 * self.info.channels
        self._left = None if self.info.frames is None else self.info.frames * self._align
        self._rest, self._begins = b"", raw is not None
        self.dropped = 0

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 [channels, 1 ... HOLD_S * rate]. Raises AudioError on NaN or infinite samples."""
        data = self._newest(self._waiting(), 0.0)
        while True:
            if data:
                yield self._decode(data)
            first = self._read()
            if not first:
                return
            data = self._newest(first + self._waiting(), HOLD_S)

    def _read(self) -> bytes:
        """What one read returns, after a wait for the first byte; nothing at the end."""
        size = _READ if self._left is None else min(_READ, self._left)
        data = os.read(self._descriptor, size) if size else b""
        if self._begins:
            check_headerless(data, STANDARD_INPUT)
            self._begins = False
        if self._left is not None:
            self._left -= len(data)
        return data

    def _waiting(self) -> bytes:
        """All that can be read without waiting."""
        parts, size = [], 0
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while size < _DRAIN and poll.poll(0) and (data := self._read()):
            parts.append(data)
            size += len(data)
        return b"".join(parts)

    def _newest(self, data: bytes, hold: float) -> bytes:
        """The complete frames of `data`, or the last KEEP_S of them if they are more than `hold` seconds."""
        data = self._rest + data
        frames = len(data) // self._align
        data, self._rest = data[: frames * self._align], data[frames * self._align :]
        keep = round(KEEP_S * self.info.rate)
        if frames <= max(keep, hold * self.info.rate):
            return data
        self.dropped += frames - keep
        self._on_drop((frames - keep) / self.info.rate)
        return data[(frames - keep) * self._align :]

    def _decode(self, data: bytes) -> np.ndarray:
        if self._wav:
            return self._wav.decode(data)
        return from_int16(np.frombuffer(data, "<i2")).reshape(-1, self.info.channels).T


class _Unbuffered:
    """A descriptor as the stream that WavReader reads a header from: nothing beyond it is read."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        return os.read(self._descriptor, size)
