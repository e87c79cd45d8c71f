"""The RIFF wav codec: headers, and a reader for streams that cannot seek.

setk parses wav itself because a wav on a pipe needs it: ffmpeg and sox write sizes that they do not know yet, and
libsndfile reads a truncated wav as a short one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Iterator

import numpy as np

from setk.audio.pcm import DECODERS, FLOAT, PCM, byte_blocks, check_finite
from setk.core.errors import AudioError, Truncated

MIN_RATE, MAX_RATE, MAX_CHANNELS = 1000, 768_000, 256
# Sizes that mean "until the end", besides 0 and nearly 4 GiB: sox writes 0x7FFFF000, arecord 0x7FFFFF00 or 0x80000000, oggdec and
# opusdec 0x7FFFFFFF or somewhat less.
_OPEN_SIZES = range(0x7FFFF000, 0x80000000 + 1)
LARGEST = 0xFFFFFFFF - 256  # bytes of samples that the sizes of a header can state
_EXTENSIBLE = 0xFFFE
_TRUNCATED_HEADER = "is truncated: the wav header has no data chunk; make the file again"


@dataclass(frozen=True)
class Info:
    """What a header states: rate in Hz, channels, frames per channel (None where the header does not know)."""

    rate: int
    channels: int
    frames: int | None


def check_limits(info: Info, name: str) -> Info:
    """Return `info`. Raises AudioError on a rate or a channel count that no recording has: memory follows both."""
    if not MIN_RATE <= info.rate <= MAX_RATE or not 1 <= info.channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name}: {info.rate} Hz with {info.channels} channels is outside the limits "
            f"({MIN_RATE} ... {MAX_RATE} Hz, 1 ... {MAX_CHANNELS} channels); convert the file"
        )
    return info


def wav_header(rate: int, channels: int, frames: int | None) -> bytes:
    """The 44 bytes of the header of a wav of 16 bits; `frames` None leaves the sizes open, for a pipe, and so do more than it can state."""
    align = 2 * channels
    # sox, ffmpeg and libsndfile all accept this one of the sizes that mean "until the end"; sox warns of others.
    size = 0x7FFFF000 if frames is None or frames * align > LARGEST else frames * align
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        min(size + 36, 0xFFFFFFFF),
        b"WAVE",
        b"fmt ",
        16,
        PCM,
        channels,
        rate,
        rate * align,
        align,
        16,
        b"data",
        size,
    )


class WavReader:
    """A wav read from a stream that need not seek. `info` is known after construction; `align` is bytes per frame.

    Raises AudioError on what is not a wav, a format other than integer or float PCM, and values outside the limits.
    """

    def __init__(self, stream: BinaryIO, name: str, begin: bytes = b""):
        self.stream, self.name = stream, name
        head = begin + read_exactly(stream, 12 - len(begin))
        if len(head) == 0:
            raise AudioError(f"{name}: is empty")
        if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
            raise AudioError(f"{name}: is not a wav file")
        self._read_chunks(8 + _size(head))

    def _read_chunks(self, total: int) -> None:
        """Read the header up to the first sample; it states `total` bytes of the file."""
        long_size = layout = None
        read = 12
        while True:
            head = read_exactly(self.stream, 8)
            read += 8
            if len(head) < 8:
                raise AudioError(f"{self.name}: {_TRUNCATED_HEADER}")
            kind, size = head[:4], _size(head)
            if kind == b"data":
                break
            body = read_exactly(self.stream, size + size % 2)
            read += len(body)
            if len(body) < size:
                raise AudioError(f"{self.name}: {_TRUNCATED_HEADER}")
            if kind == b"fmt " and size >= 16:
                layout = struct.unpack("<HHIIHH", body[:16])
                if layout[0] == _EXTENSIBLE and size >= 26:
                    layout = (struct.unpack("<H", body[24:26])[0], *layout[1:])
            elif kind == b"ds64" and size >= 16:
                long_size = struct.unpack("<Q", body[8:16])[0]
        if layout is None:
            raise AudioError(f"{self.name}: the wav header has no format chunk; make the file again")
        # Other chunks follow: nothing is open here.
        empty = size == 0 and read < total < _OPEN_SIZES.start
        self._use_layout(layout, long_size if size == 0xFFFFFFFF and long_size is not None else size, empty)

    def _use_layout(self, layout: tuple[int, ...], size: int, empty: bool) -> None:
        code, channels, rate, _, align, bits = layout
        if (code, bits) not in DECODERS or align != channels * bits // 8:
            raise AudioError(
                f"{self.name}: wav format {code} with {bits} bits is not supported; convert it to 16-bit PCM"
            )
        check_limits(Info(rate, channels, None), self.name)
        self._decode, self.align, self._is_float = DECODERS[code, bits], align, code == FLOAT
        open_ended = not empty and (size == 0 or size in _OPEN_SIZES or 0xFFFFFFFF - 64 <= size <= 0xFFFFFFFF)
        self._size = None if open_ended else size
        self.info = Info(rate, channels, None if open_ended else size // align)

    def decode(self, data: bytes) -> np.ndarray:
        """Complete frames to float32 [channels, n]. Raises AudioError on NaN or infinite samples."""
        x = self._decode(data).reshape(-1, self.info.channels).T
        return check_finite(x, self.name) if self._is_float else x

    def blocks(self, frames: int) -> Iterator[np.ndarray]:
        """Yield float32 [channels, 1 ... frames] as bytes arrive.

        Raises AudioError on NaN or infinite samples, and, after the last complete frame, where the data ends
        before the size that the header states.
        """
        seen = 0
        for data in byte_blocks(self.stream, self.align, frames, self._size):
            seen += len(data)
            yield self.decode(data)
        if self._size is not None and self._size - seen >= self.align:
            raise Truncated(
                f"{self.name}: is truncated: {self._size - seen} bytes of audio are missing; make the file again",
                (self._size - seen) / self.align / self.info.rate,
            )

    def at_chunk(self, left: int) -> bool:
        """Whether the `left` bytes after the samples begin as a chunk does; reads its header."""
        filled = (self._size or 0) % 2
        head = read_exactly(self.stream, filled + 8)[filled:]
        return head[:4].isascii() and head[:4].decode("ascii").isprintable() and _size(head) <= left


def _size(head: bytes) -> int:
    return struct.unpack("<I", head[4:8])[0]


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, or fewer at the end of the stream."""
    parts, left = [], size
    while left:
        part = stream.read(min(left, 1 << 20))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
