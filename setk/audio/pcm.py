"""Samples as bytes: integers and floats of a file or pipe to float32 with full scale 1.0, and back."""

from __future__ import annotations

from typing import BinaryIO, Callable, Iterator

import numpy as np

from setk.core.errors import AudioError

FULL_SCALE = 32767 / 32768  # the greatest sample of 16 bits
LOST = 0.5 / 32768  # a signal whose peak is not above this is silent in 16 bits
STANDARD_INPUT = "standard input"
PCM, FLOAT, A_LAW, MU_LAW = 1, 3, 6, 7  # format codes of a wav


def from_int16(x: np.ndarray) -> np.ndarray:
    """int16 samples to float32 with full scale 1.0."""
    y = x.astype(np.float32)
    y *= np.float32(1 / 32768)
    return y


def to_int16(x: np.ndarray) -> tuple[np.ndarray, int]:
    """Float samples to int16 (rounded, clipped), and the number of samples that were clipped."""
    scaled = np.rint(np.asarray(x, np.float32) * np.float32(32768))
    clipped = 0
    if scaled.size and (scaled.max() > 32767 or scaled.min() < -32768):
        clipped = int(np.count_nonzero((scaled > 32767) | (scaled < -32768)))
        scaled = np.clip(scaled, -32768, 32767)
    return scaled.astype("<i2"), clipped


def _from_uint8(data: bytes) -> np.ndarray:
    return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128


def _from_int24(data: bytes) -> np.ndarray:
    packed = np.frombuffer(data, np.uint8).reshape(-1, 3)
    wide = np.zeros((len(packed), 4), np.uint8)
    wide[:, 1:] = packed
    return wide.view("<i4")[:, 0].astype(np.float32) / 2.0**31


def _a_law() -> np.ndarray:
    """The values of the 256 codes of A-law (ITU-T G.711), at 16 bits."""
    code = np.arange(256) ^ 0x55
    segment = code >> 4 & 7
    magnitude = np.where(segment, ((code & 15) * 16 + 264) << np.maximum(segment - 1, 0), (code & 15) * 16 + 8)
    return np.where(code & 128, magnitude, -magnitude)


def _mu_law() -> np.ndarray:
    """The values of the 256 codes of mu-law (ITU-T G.711), at 16 bits."""
    code = np.arange(256) ^ 0xFF
    magnitude = (((code & 15) * 8 + 132) << (code >> 4 & 7)) - 132
    return np.where(code & 128, -magnitude, magnitude)


def _from_codes(values: np.ndarray) -> Callable[[bytes], np.ndarray]:
    table = from_int16(values)
    return lambda data: table[np.frombuffer(data, np.uint8)]


# (format code, bits per sample) -> bytes to float32 [n]
DECODERS = {
    (PCM, 8): _from_uint8,
    (PCM, 16): lambda data: from_int16(np.frombuffer(data, "<i2")),
    (PCM, 24): _from_int24,
    (PCM, 32): lambda data: (np.frombuffer(data, "<i4") / 2.0**31).astype(np.float32),
    (FLOAT, 32): lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    (A_LAW, 8): _from_codes(_a_law()),
    (MU_LAW, 8): _from_codes(_mu_law()),
    (FLOAT, 64): lambda data: np.frombuffer(data, "<f8").astype(np.float32),
}


def check_finite(x: np.ndarray, name: str) -> np.ndarray:
    """Return `x`. Raises AudioError on NaN or infinite samples."""
    if not np.isfinite(x).all():
        raise AudioError(f"{name}: has NaN or infinite samples; replace the file")
    return x


def byte_blocks(stream: BinaryIO, align: int, frames: int, size: int | None = None) -> Iterator[bytes]:
    """Yield bytes as they arrive, in multiples of `align`, at most `align * frames` at once.

    Ends with the stream, or after `size` bytes. Bytes of an incomplete frame at the end are dropped.
    """
    rest = b""
    left = size
    while True:
        request = frames * align - len(rest)
        if left is not None:
            request = min(request, left)
        data = read_some(stream, request) if request else b""
        if not data:
            return
        if left is not None:
            left -= len(data)
        data = rest + data
        complete = len(data) - len(data) % align
        data, rest = data[:complete], data[complete:]
        if complete:
            yield data


def read_some(stream: BinaryIO, size: int) -> bytes:
    """What one read returns, without waiting for `size` bytes: a live pipe must not be held back."""
    return stream.read1(size) if hasattr(stream, "read1") else stream.read(size)


def check_headerless(data: bytes, name: str) -> None:
    """Raise AudioError if the first samples of a raw stream are the header of a file: they would be heard, and their rate ignored."""
    if data.startswith((b"RIFF", b"RF64", b"fLaC", b"OggS")):
        raise AudioError(f"{name}: begins as a wav, FLAC or Ogg file does, not as samples; leave out --raw")


def raw_blocks(stream: BinaryIO, channels: int, frames: int) -> Iterator[np.ndarray]:
    """Yield float32 [channels, 1 ... frames] of headerless 16-bit little-endian samples as they arrive. Raises AudioError if they
    begin with the header of a file."""
    for i, data in enumerate(byte_blocks(stream, 2 * channels, frames)):
        if i == 0:
            check_headerless(data, STANDARD_INPUT)
        yield from_int16(np.frombuffer(data, "<i2")).reshape(-1, channels).T
