"""Where buffers lie in memory: constants and state one after the other, scratch by the time in which it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from setk.native.int8 import unpacking
from setk.native.places import PANEL, Buffer, Memory, Read, Rounded, Row, Write
from setk.native.program import Program

SLACK = (
    4 * PANEL
)  # floats behind constants and scratch that may be read; behind the state, of which there are many, a vector
OPERATIONS = (
    "PRODUCT",
    "NARROW",
    "SPARSE_PRODUCT",
    "MAP",
    "MOVE",
    "TAKE",
    "ZERO",
    "NORMALISE",
    "GATES",
    "SCAN",
    "DEPTHWISE",
    "PUSH",
    "SOFTMAX",
    "GREATEST_INDEX",
    "ANALYSE",
    "SYNTHESISE",
    "FRAME",
    "OVERLAP",
    "EXPAND",
    "SPARSE_INT8",
    "CELL",
)
FUNCTIONS = (
    "COPY",
    "ADD",
    "SUB",
    "MUL",
    "DIV",
    "MULADD",
    "MAXIMUM",
    "MINIMUM",
    "RELU",
    "ELU",
    "SIGMOID",
    "TANH",
    "EXP",
    "LOG",
    "SQRT",
    "POW",
    "ABS",
    "NEG",
    "PRELU",
    "EQUAL",
    "GREATER",
    "GREATER_EQUAL",
    "WHERE",
)
SPACES = {"constant": 0, "state": 1, "scratch": 2}


@dataclass
class Group:
    """Scratch buffers that share their memory one after the other: rows in which it is used, floats before and after offset 0."""

    first: int
    last: int
    before: int
    size: int
    zeros: set[int]
    at: int = 0


def assemble(memory: Memory, int8: bool = False) -> Program:
    """Place all buffers and resolve the rows. With `int8`, the program reads weights as int8."""
    weights = _weights(memory)
    rows, groups = _with_zeros(memory, unpacking(memory) if int8 else memory.rows)
    offsets = {number: group.at + group.before for number, group in groups.items()}
    scratch = max((group.at + group.size for group in groups.values()), default=0)
    constants, state, used = [], [], {b.number for b in map(memory.of, _addresses(rows))}
    ends, last = {"constant": 0, "state": 0}, 0
    for buffer in memory.buffers:
        if buffer.kind == "scratch" or buffer.block or buffer.number not in used:
            continue
        offsets[buffer.number] = ends[buffer.kind]
        if buffer.kind == "state":
            last = ends["state"] + buffer.size
        ends[buffer.kind] += -(-buffer.size // PANEL) * PANEL
        if buffer.kind == "constant":
            constants.append((offsets[buffer.number], buffer.data))
        elif buffer.data is not None and buffer.data.any():
            state.append((offsets[buffer.number], buffer.data))
    reset = [Row("ZERO", [last, 1 << 28])]
    for at, data in state:
        reset.append(Row("MOVE", [1, 1, data.size, ends["constant"], 0, 0, 1, 1 << 28 | at, 0, 0, 1]))
        constants.append((ends["constant"], data.ravel()))
        ends["constant"] += -(-data.size // PANEL) * PANEL
    end = floats = ends["constant"] + SLACK
    blocks = []
    for buffer in weights:
        offsets[buffer.number] = end
        blocks.append((end, buffer.size, *buffer.block))
        constants.append((end, buffer.data))
        end += -(-buffer.size // PANEL) * PANEL
    table = np.zeros(end + SLACK, np.float32)
    for at, data in constants:
        table[at : at + data.size] = data
    resolve = _Resolver(memory, offsets, floats, blocks)
    return Program(resolve.words(rows), resolve.words(reset), table, floats, blocks, last + PANEL, scratch + SLACK)


def _weights(memory: Memory) -> list[Buffer]:
    """The buffers of weights that rows read."""
    used = {memory.of(address).number for address in _addresses(memory.rows)}
    return [buffer for buffer in memory.buffers if buffer.block and buffer.number in used]


def _addresses(rows: list[Row]) -> list[int]:
    return [x.address for row in rows for x in row.arguments if isinstance(x, (Read, Write))]


class _Resolver:
    """Rows as numbers, once it is known where each buffer lies."""

    def __init__(self, memory: Memory, offsets: dict[int, int], floats: int, blocks: list[tuple[int, int, int, int]]):
        self._memory, self._offsets, self._floats = memory, offsets, floats
        self._steps, total = {}, 0  # the first step of the weights at an offset
        for first, count, length, columns in blocks:
            self._steps[first] = total
            total += count // length * columns

    def words(self, rows: list[Row]) -> np.ndarray:
        found: list[int] = []
        for row in rows:
            found += [OPERATIONS.index(row.op), len(row.arguments), *map(self._number, row.arguments)]
        return np.array(found, np.int64).astype(np.int32)

    def _number(self, x: Any) -> int:
        if isinstance(x, str):
            return FUNCTIONS.index(x)
        if not isinstance(x, (Read, Write, Rounded)):
            return int(x)
        buffer = self._memory.of(x.address)
        first, inside = self._offsets[buffer.number], x.address - buffer.base
        if not isinstance(x, Rounded):
            return SPACES[buffer.kind] << 28 | first + inside
        if not x.steps:
            return first + inside - self._floats
        length, columns = buffer.block
        return self._steps[first] + inside // length * columns


def _with_zeros(memory: Memory, rows: list[Row]) -> tuple[list[Row], dict[int, Group]]:
    """Rows with those that fill halos before the first that uses a buffer, and the placed groups by buffer."""
    spans: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        for address in _addresses([row]):
            buffer = memory.of(address)
            if buffer.kind == "scratch":
                spans.setdefault(buffer.number, [i, i])[1] = i
    leader = {number: number for number in spans}
    for i, row in enumerate(rows):
        if row.in_place is None:
            continue
        source, target = row.in_place
        a, b = memory.buffers[source], memory.buffers[target]
        if a.size == b.size and np.array_equal(a.used, b.used) and spans[source][1] == i and spans[target][0] == i:
            leader[target] = leader[source]
    groups: dict[int, Group] = {}
    for number, (first, last) in spans.items():
        buffer, key = memory.buffers[number], leader[number]
        group = groups.setdefault(key, Group(first, last, 0, 0, set()))
        group.first, group.last = min(group.first, first), max(group.last, last)
        group.zeros |= buffer.zeros
        group.before = max(group.before, -(-max(0, -min(buffer.zeros, default=0)) // PANEL) * PANEL)
        group.size = max(group.size, max(buffer.size, max(buffer.zeros, default=-1) + 1))
    for group in groups.values():
        group.size = -(-(group.before + group.size) // PANEL) * PANEL
    place(list(groups.values()))
    filled: list[Row] = []
    for i, row in enumerate(rows):
        for key, group in groups.items():
            if group.first == i:
                filled += [Row("ZERO", [n, Write(memory.buffers[key].base + at)]) for at, n in _stretches(group.zeros)]
        filled.append(row)
    return filled, {number: groups[leader[number]] for number in spans}


def _stretches(offsets: set[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for at in sorted(offsets):
        if found and sum(found[-1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((at, 1))
    return found


def place(groups: list[Group]) -> None:
    """The largest first, each at the lowest place that is free while it is used."""
    placed: list[Group] = []
    for group in sorted(groups, key=lambda g: -g.size):
        for other in sorted(placed, key=lambda g: g.at):
            if (
                other.first <= group.last
                and group.first <= other.last
                and group.at < other.at + other.size
                and other.at < group.at + group.size
            ):
                group.at = other.at + other.size
        placed.append(group)
