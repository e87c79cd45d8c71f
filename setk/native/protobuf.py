"""Messages of protocol buffers, without their package (https://protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

from typing import Iterator, TypeVar

Data = TypeVar("Data", bytes, memoryview)


class Damaged(ValueError):
    """What is not a message."""


def fields(data: Data) -> Iterator[tuple[int, int | Data]]:
    """(number, value) of each field of a message; a value is an integer, or bytes of the kind of `data`. Raises Damaged."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise Damaged(f"wire type {wire}")
        if at + size > len(data):
            raise Damaged("a field is longer than its message")
        yield number, data[at : at + size]
        at += size


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A variable-length integer at `at`, and the position after it. Raises Damaged."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Damaged("an integer is cut off")
