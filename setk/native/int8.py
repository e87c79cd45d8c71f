"""Weights as int8: values = int8 * step, with a step for each column of a block, that is, for each output channel.

A step is 1 / 127 of the largest value of its column.
Biases, windows and tables stay float.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Iterator

import numpy as np

from setk.native.places import PANEL, Memory, Read, Rounded, Row, Write

if TYPE_CHECKING:
    from setk.native.program import Program

MOST = 1024  # floats that are unpacked at a time for a product


def quantize(values: np.ndarray, length: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of `length` floats in rows of `columns` as int8 [n], within half a step, and the steps [n / length * columns]."""
    rows = values.reshape(-1, length // columns, columns)
    steps = np.maximum(np.abs(rows).max(1), 1e-30).astype(np.float32) / np.float32(127)
    return np.rint(rows / steps[:, None]).astype(np.int8).ravel(), steps.ravel()


def dequantize(small: np.ndarray, steps: np.ndarray, length: int, columns: int) -> np.ndarray:
    """The floats [n] that a program computes with."""
    rows = small.reshape(-1, length // columns, columns).astype(np.float32)
    return (rows * steps.reshape(-1, 1, columns)).ravel()


def rounded(program: Program) -> Program:
    """The program with its weights rounded to int8, as float."""
    constants = program.constants.copy()
    for first, count, length, columns in program.blocks:
        part = slice(first, first + count)
        constants[part] = dequantize(*quantize(constants[part], length, columns), length, columns)
    return replace(program, constants=constants)


def packed(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """The int8 of all blocks, at the distances that they have in the constants, and their steps, one block after the other."""
    start = program.floats
    small, steps = np.zeros(len(program.constants) - start, np.int8), [np.zeros(0, np.float32)]
    for first, count, length, columns in program.blocks:
        values, each = quantize(program.constants[first : first + count], length, columns)
        small[first - start : first - start + count] = values
        steps.append(each)
    return small, np.concatenate(steps)


def unpacking(memory: Memory) -> list[Row]:
    """The rows of a program whose weights are kept as int8: EXPAND makes floats of a part of them before each row that reads it."""
    rows: list[Row] = []
    apart = [part for row in memory.rows for part in row.parts or [row]]
    for row in apart:
        found = [x for x in row.arguments if isinstance(x, Read) and memory.of(x.address).block]
        if not found:
            rows.append(row)
        elif row.op == "PRODUCT":
            rows += _product(memory, row.arguments)
        elif row.op == "SPARSE_PRODUCT":
            rows.append(_sparse(row))
        else:
            rows += _complete(memory, row, found)
    return rows


def _expand(memory: Memory, address: int, blocks: int, length: int | None = None) -> tuple[int, Row]:
    """Where the floats of some blocks will be, or the first `length` of one, and the row that puts them there."""
    size, columns = memory.of(address).block
    length = length or size
    to = int(memory.new((blocks * length,)).flat[0])
    places = [Rounded(address), Rounded(address, steps=True), Write(to)]
    return to, Row("EXPAND", [blocks, length, columns, *places])


def _complete(memory: Memory, row: Row, found: list[Read]) -> list[Row]:
    """A row before which all of its weights are unpacked."""
    rows, to = [], {}
    for base in sorted({memory.of(x.address).base for x in found}):
        buffer = memory.of(base)
        to[base], expand = _expand(memory, base, buffer.size // buffer.block[0])
        rows.append(expand)
    moved = {x.address: to[memory.of(x.address).base] + x.address - memory.of(x.address).base for x in found}
    arguments = [Read(moved[x.address]) if isinstance(x, Read) and x.address in moved else x for x in row.arguments]
    return [*rows, Row(row.op, arguments, row.in_place)]


def _sparse(row: Row) -> Row:
    """SPARSE_PRODUCT of int8: it reads the rows of weights that count, and unpacks no others."""
    at = row.arguments[5].address
    return Row("SPARSE_INT8", [*row.arguments[:5], Rounded(at), Rounded(at, steps=True), *row.arguments[6:8]])


def _product(memory: Memory, a: list[Any]) -> list[Row]:
    """A product in parts whose weights are unpacked one after the other (see products.h for the arguments).

    A part is some batches; or of one batch some panels of columns, or rows where weights are the left operand; or of one panel
    some of the k, of which the first part starts from the bias and the others from the sum so far.
    """
    batches, rows, columns, out, out_batch, out_row, bias, bias_batch, bias_row, bias_column, count = a[:11]
    segments = [a[11 + 9 * i : 20 + 9 * i] for i in range(count)]
    left = bool(memory.of(segments[0][0].address).block)
    weight, stride = (
        (0, segments[0][1]) if left else (4, segments[0][5])
    )  # where a segment names its weights; their batches
    base = min(s[weight].address for s in segments)
    length = memory.of(base).block[0]
    made: list[Row] = []
    for first, end, start, stop, low, high in _parts(
        batches if stride else 1, rows if left else -(-columns // PANEL), length, left
    ):
        end = end if stride else batches
        copies = (end - first if stride else 1) * (stop - start)
        at = base + first * stride + start * length + low * PANEL
        to, expand = _expand(memory, at, copies, None if left else (high - low) * PANEL)
        across, down = (0, start) if left else (start * PANEL, 0)
        to_c = out.address + first * out_batch + down * out_row + across
        from_bias = bias.address + first * bias_batch + down * bias_row + across * bias_column
        sums = [Read(from_bias), bias_batch, bias_row, bias_column] if low == 0 else [Read(to_c), out_batch, out_row, 1]
        parts: list[Any] = []
        for s in segments:
            done = 0 if left else (s[4].address - base) // PANEL
            skipped, most = max(0, low - done), s[8] if left else min(s[8], high - done)
            if skipped >= most:
                continue
            moved = [
                Read(s[0].address + first * s[1] + skipped * s[3]),
                *s[1:4],
                Read(s[4].address + first * s[5]),
                *s[5:],
            ]
            moved[weight] = Read(to + (s[weight].address - base if left else (done + skipped - low) * PANEL))
            moved[7] = s[7] if left else (high - low) * PANEL
            moved[8] = most - skipped
            parts += moved
        m = stop - start if left else rows
        n = columns if left else min(columns, stop * PANEL) - across
        made += [
            expand,
            Row("PRODUCT", [end - first, m, n, Write(to_c), out_batch, out_row, *sums, len(parts) // 9, *parts]),
        ]
    return made


def _parts(batches: int, blocks: int, length: int, left: bool) -> Iterator[tuple[int, int, int, int, int, int]]:
    """First and last batch, block of a batch, and k, of the parts of a product; `length`: floats of a block."""
    k = 1 if left else length // PANEL
    at_once = MOST // length
    if batches * blocks <= at_once:
        yield 0, batches, 0, blocks, 0, k
    elif blocks <= at_once:
        together = at_once // blocks
        for first in range(0, batches, together):
            yield first, min(batches, first + together), 0, blocks, 0, k
    else:
        some = max(1, at_once)
        if left:
            some = max(8, some // 8 * 8)  # the kernel multiplies eight rows at a time
        deep = k if left or at_once else MOST // PANEL
        for first in range(batches):
            for start in range(0, blocks, some):
                for low in range(0, k, deep):
                    yield first, first + 1, start, min(blocks, start + some), low, min(k, low + deep)
