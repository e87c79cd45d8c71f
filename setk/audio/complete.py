"""Whether a file holds all that its format says it does, for formats of which libsndfile reads a cut file as a short one."""

from __future__ import annotations

import struct
from typing import BinaryIO, Callable

_UNKNOWN = 0x7F000000  # programs that do not know the size write one from here on
_MOST_CHUNKS = 10_000  # a damaged header may state any number of empty ones
_BEGINS, _ENDS = 2, 4  # flags of an Ogg page


def shortcoming(stream: BinaryIO) -> str | None:
    """What is wrong with the end of a stream that can seek, as the part of a message after the name; None where nothing is known
    to be. The position afterwards is anywhere."""
    stream.seek(0)
    begin = stream.read(12)
    size = stream.seek(0, 2)
    for magic, at, check in _CHECKS:
        if begin[at : at + len(magic)] == magic:
            return check(stream, size)
    return None


def _ogg(stream: BinaryIO, size: int) -> str | None:
    """Pages: a header of 27 bytes, the lengths of the segments, and these (RFC 3533)."""
    at, begun, ended = 0, set(), set()
    while at < size:
        stream.seek(at)
        head = stream.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            break
        flags, serial, lengths = head[5], head[14:18], stream.read(head[26])
        at += 27 + head[26] + sum(lengths)
        if at > size:
            break
        if flags & _BEGINS and begun and begun == ended:
            return "holds several recordings, one after the other, and only the first would be read; convert it with ffmpeg"
        if flags & _BEGINS:
            begun.add(serial)
        if flags & _ENDS:
            ended.add(serial)
    return None if begun <= ended else "is truncated: the page that ends its stream is missing; make the file again"


def _aiff(stream: BinaryIO, size: int) -> str | None:
    return _find_samples(stream, size, start=12, header=8, entry=_aiff_chunk)


def _w64(stream: BinaryIO, size: int) -> str | None:
    return _find_samples(stream, size, start=40, header=24, entry=_w64_chunk)


def _aiff_chunk(header: bytes) -> tuple[bool, int, int]:
    length = struct.unpack(">I", header[4:])[0]
    return header[:4] == b"SSND", length, length + length % 2


def _w64_chunk(header: bytes) -> tuple[bool, int, int]:
    length = struct.unpack("<Q", header[16:])[0] - 24  # of the header too, and filled to multiples of 8
    return header[:4] == b"data", length, -(-length // 8) * 8


def _find_samples(
    stream: BinaryIO, size: int, start: int, header: int, entry: Callable[[bytes], tuple[bool, int, int]]
) -> str | None:
    """Walk the chunks from `start` on. `entry` of a header: whether the samples follow, their bytes, and those to the next chunk."""
    at = start
    for _ in range(_MOST_CHUNKS):
        if at + header > size:
            return "is truncated: it has no samples; make the file again"
        stream.seek(at)
        is_samples, length, step = entry(stream.read(header))
        at += header
        if is_samples:
            return _missing(length, size - at)
        at += max(step, 0)
    return None


def _au(stream: BinaryIO, size: int) -> str | None:
    stream.seek(0)
    head = stream.read(12)
    if len(head) < 12:
        return "is truncated: its header is not complete; make the file again"
    offset, length = struct.unpack(">II" if head[:4] == b".snd" else "<II", head[4:])
    return _missing(length, size - offset)


def _missing(stated: int, present: int) -> str | None:
    if stated >= _UNKNOWN or stated <= present:
        return None
    return f"is truncated: {stated - present} of {stated} bytes of audio are missing; make the file again"


_CHECKS: tuple[tuple[bytes, int, Callable[[BinaryIO, int], str | None]], ...] = (
    (b"OggS", 0, _ogg),
    (b"AIF", 8, _aiff),
    (b"riff", 0, _w64),
    (b".snd", 0, _au),
    (b"dns.", 0, _au),
)
