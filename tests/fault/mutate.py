"""Damaged inputs: a valid file, changed at random in the ways in which files are damaged or forged. All by seed."""

from __future__ import annotations

import random
import struct
from typing import Callable

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
TOKENS = (
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "1e-400",
    "9" * 40,
    "",
    " ",
    "\t",
    "\0",
    "\r",
    "..",
    "/",
    "-",
    "|",
    "true |",
    "sum:{}",
    'mix:{"length": 1, "rate": 0, "parts": []}',
    "\ufeff",
    "é" * 90,
    "a" * 300,
    "./missing.wav",
    "{",
    "[",
    "!!python/object:os.system x",
    "&a [*a]",
    "*a",
    "null",
    "~",
    "0x10",
    "1_000",
    "2001-02-30",
    "2001-02-03",
)


def flip(data: bytes, rng: random.Random) -> bytes:
    """A few bits inverted."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end missing."""
    return data[: rng.randrange(len(data))]


def remove(data: bytes, rng: random.Random) -> bytes:
    """A piece missing."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 2, 4, 100)) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A piece twice."""
    start, size = rng.randrange(len(data)), rng.choice((1, 4, 44, 500))
    return data[: start + size] + data[start:]


def extreme(data: bytes, rng: random.Random) -> bytes:
    """A number in the header at the end of its range."""
    changed, value = bytearray(data), rng.choice(EXTREMES)
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, min(len(data) - size, rng.choice((64, 512, len(data))))))
    changed[at : at + size] = struct.pack("<Q", value)[:size]
    return bytes(changed)


def zeros(data: bytes, rng: random.Random) -> bytes:
    """A page that was never written."""
    start = rng.randrange(len(data))
    size = min(rng.choice((16, 512, 4096)), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def noise(data: bytes, rng: random.Random) -> bytes:
    """Another file altogether."""
    return rng.randbytes(rng.choice((0, 1, 44, 1000)))


BINARY: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip,
    flip,
    cut,
    remove,
    repeat,
    extreme,
    extreme,
    extreme,
    zeros,
    noise,
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` after one or two of these accidents."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        if data:
            data = rng.choice(BINARY)(data, rng)
    return data


def damaged_text(text: str, rng: random.Random) -> bytes:
    """A text file with a word, a separator or a line changed, or its bytes damaged."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        words = lines[at].split(" ")
        what = rng.randrange(6)
        if what == 0:
            words[rng.randrange(len(words))] = rng.choice(TOKENS)
            lines[at] = " ".join(words)
        elif what == 1:
            lines.insert(at, rng.choice(lines))
        elif what == 2:
            lines[at] = rng.choice(("", " ", "\t")) + lines[at] + rng.choice(("", " ", "\r", " " + rng.choice(TOKENS)))
        elif what == 3:
            del lines[at]
            lines = lines or [""]
        elif what == 4:
            lines[at] = rng.choice(TOKENS)
        else:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)] + rng.choice(TOKENS)
    data = "\n".join(lines).encode()
    return damaged(data, rng) if data and rng.random() < 0.2 else data


VALUES = ("1.5", "-0", "3", "1e-3", "4.999999999999999999", "nan", "nan", "NaN", "0", "-1e300", "1e308", "5e-324", "")
NAMES = ("si_sdr", "estoi", "pesq_nb", "csig", "pesq_wb", "error", "é")


def damaged_table(rows: list[list[str]], rng: random.Random) -> list[list[str]]:
    """A table, its header first, after changes of fields, rows and columns that leave it a table: most results are valid."""
    rows = [list(row) for row in rows]
    for _ in range(rng.choice((1, 2, 3, 6))):
        row, column = rng.randrange(1, len(rows)), rng.randrange(len(rows[0]))
        inner = 1 + column % max(1, len(rows[0]) - 2)  # mostly: a table without its first or last column is none
        column = inner if rng.random() < 0.9 else column
        what = rng.randrange(14)
        if what < 5 or what > 11:
            rows[row][column] = rng.choice(VALUES)
        elif what == 5:
            other = rows[rng.randrange(1, len(rows))][0]
            rows[row][0] = rng.choice(
                (f"new{rng.randrange(9)}", f"{other} x", f"new{rng.randrange(9)}", other, rng.choice(TOKENS))
            )
        elif what == 6 and rng.random() < 0.3:
            rows[row][column] = rng.choice(TOKENS)
        elif what == 6:
            rows[0][column] = rng.choice(NAMES)
        elif what == 7 and len(rows) > 2:
            del rows[row]
        elif what == 8:
            rows[1:] = rng.sample(rows[1:], len(rows) - 1)
        elif what == 9:
            other = 1 + rng.randrange(max(1, len(rows[0]) - 2))
            for cells in rows:
                cells[column], cells[other] = cells[other], cells[column]
        elif what == 10:
            values, name = rng.choice((VALUES[:5], VALUES, TOKENS)), rng.choice(NAMES)
            for i, cells in enumerate(rows):
                cells.insert(column, rng.choice(values) if i else name)
        elif len(rows[0]) > 2:
            for cells in rows:
                del cells[column]
    return rows


def table_text(rows: list[list[str]], rng: random.Random) -> bytes:
    """The rows with tabs, and with ends of lines and a beginning that programs write. A tenth are damaged as bytes."""
    end = rng.choice((*8 * ("\n",), "\r\n", "\n\n"))
    text = end.join(map("\t".join, rows))
    data = (rng.choice((*9 * ("",), "\ufeff")) + text + rng.choice((*9 * (end,), ""))).encode()
    return damaged(data, rng) if rng.random() < 0.1 else data
