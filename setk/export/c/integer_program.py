"""A program of integers as it is written row by row: constants, places and weights, for the kernels of integer_layers.h."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Sequence

import numpy as np

from setk.native.arena import Group, place

OPERATIONS = (
    "PRODUCT",
    "MOVE",
    "ZERO",
    "ADD",
    "NORMALISE",
    "GATES",
    "SCAN",
    "ANALYSE",
    "LEVEL",
    "COMPRESS",
    "MASK",
    "SYNTHESISE",
)
SPACES = {"bytes": 0, "shorts": 1, "longs": 2, "state": 3, "scratch": 4}
FUNCTIONS = {"linear": 0, "relu": 1, "elu": 2}
DTYPES = {"bytes": np.int8, "shorts": np.int16, "longs": np.int32}
POINTS = 512  # of the transform (integer_transform.h)
GATE, HIDDEN = 12, 15  # fractional bits of what goes into a gate, and of the state of a GRU
MOST, MOST_SUM = 127, 2**15  # of a weight, and of the sum of a row's |weights|: sums stay below 2^30 (integer_layers.h)
_SLACK = 8  # numbers behind a buffer that may be read


@dataclass(frozen=True)
class Place:
    """Where int16 of state or scratch begin: a buffer, and an offset in it."""

    buffer: int
    offset: int = 0

    def __add__(self, offset: int) -> Place:
        return Place(self.buffer, self.offset + offset)


@dataclass(frozen=True)
class Tensor:
    """Rows of `width` numbers one after the other, each a multiple of 2^-fraction."""

    at: Place
    width: int
    fraction: int

    def row(self, index: int) -> Place:
        """Where row `index` begins; -1 is the first row of the zeros before the tensor."""
        return self.at + index * self.width


@dataclass
class Integers:
    """What the kernels run: the words of a hop, the constants, the int16 of state and scratch, and the products of a hop."""

    words: list[list[int]]
    constants: dict[str, np.ndarray]
    state: int
    scratch: int
    multiply_adds: int


@dataclass
class Weights:
    """Rows of int8, and what turns their sums into Qf: (sum + bias) factor / 2^(16 + shift), rounded down. `bias` contains the half
    that makes that the nearest. See `quantize`."""

    rows: np.ndarray
    bias: np.ndarray
    factor: np.ndarray
    shift: int


def fraction_bits(most: float) -> int:
    """Fractional bits of int16 for numbers up to `most`, from 6 (see ELU in integer.h) to 15."""
    return int(np.clip(15 - math.ceil(math.log2(max(most, 1e-9))), 6, 15))


def quantize(weights: np.ndarray, bias: np.ndarray, before: int, after: int) -> Weights:
    """Weights [N, K] and bias [N] of a layer that reads Q`before` and writes Q`after`: int8 with a scale for each of the N.

    A scale is a multiple of 2^-shift by an integer of 15 bits, the factor, so that it is exact. It is as small as three bounds
    allow: the largest weight is 127, the sum of a row's |weights| is 2^15, and the bias fits.
    """
    least = np.maximum.reduce(
        [np.abs(weights).max(1) / MOST, np.abs(weights).sum(1) / MOST_SUM, np.abs(bias) * 2.0 ** (before - 29)]
    )
    units = np.maximum(least, least.max() * 2.0**-14) * 2.0 ** (after - before + 16)
    shift = min(14, math.floor(math.log2(32767 / units.max())))
    if shift < 0:
        raise ValueError(f"weights up to {np.abs(weights).max():g} are too large for the ranges of the activations")
    factor = np.ceil(units * 2.0**shift)
    scale = factor * 2.0 ** (before - after - 16 - shift)
    rows = np.rint(weights / scale[:, None]).astype(np.int8)
    half = 2.0 ** (15 + shift) / factor
    return Weights(rows, np.rint(bias / scale * 2.0**before + half).astype(np.int32), factor.astype(np.int16), shift)


def packed(rows: np.ndarray, segments: Sequence[int]) -> np.ndarray:
    """Rows [N, sum of segments] as the kernels read them: each segment padded to eights, fours in the order 0 2 1 3, and the fours
    of two rows in turn. Flat, N times `padded(segments)` numbers."""
    parts = [np.pad(part, ((0, 0), (0, -part.shape[1] % 8))) for part in np.split(rows, np.cumsum(segments)[:-1], 1)]
    fours = np.concatenate(parts, 1).reshape(len(rows), -1, 4)[..., [0, 2, 1, 3]]
    pairs = fours[: len(rows) // 2 * 2].reshape(-1, 2, *fours.shape[1:]).transpose(0, 2, 1, 3)
    return np.concatenate([pairs.ravel(), fours[len(rows) // 2 * 2 :].ravel()])


def unpacked(data: np.ndarray, columns: int) -> np.ndarray:
    """The rows [N, padded K] that `packed` made flat."""
    even = columns // 2 * 2
    line = len(data) // columns
    pairs = data[: even * line].reshape(-1, line // 4, 2, 4).transpose(0, 2, 1, 3).reshape(even, -1, 4)
    fours = np.concatenate([pairs, data[even * line :].reshape(-1, line // 4, 4)])
    return fours[..., [0, 2, 1, 3]].reshape(columns, line)


def padded(segments: Sequence[int]) -> int:
    """Numbers of a packed row."""
    return sum(length + -length % 8 for length in segments)


@dataclass
class Builder:
    """Rows, buffers and constants of a program, in the order in which they are needed."""

    rows: list[tuple[str, list]] = field(default_factory=list)
    sizes: list[tuple[str, int]] = field(default_factory=list)
    tables: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in DTYPES})
    known: dict[tuple[str, bytes], int] = field(default_factory=dict)
    multiply_adds: int = 0

    def add(self, op: str, *arguments: int | Place) -> None:
        self.rows.append((op, list(arguments)))

    def buffer(self, size: int, kind: str = "scratch") -> Place:
        """Memory of `size` int16."""
        self.sizes.append((kind, size))
        return Place(len(self.sizes) - 1)

    def constant(self, space: str, values: np.ndarray) -> int:
        """The place of a table of "bytes", "shorts" or "longs". Equal tables are one."""
        data = np.ascontiguousarray(values.ravel().astype(DTYPES[space]))
        key = (space, data.tobytes())
        if key not in self.known:
            self.known[key] = SPACES[space] << 28 | sum(len(x) for x in self.tables[space])
            self.tables[space].append(np.pad(data, (0, -len(data) % 4)))
        return self.known[key]

    def tensor(self, rows: int, width: int, fraction: int, before: int = 0, after: int = 0) -> Tensor:
        """A new tensor with `before` and `after` rows of zeros around it."""
        at = self.buffer((before + rows + after) * width)
        for first, count in ((0, before), (before + rows, after)):
            if count:
                self.add("ZERO", count * width, at + first * width)
        return Tensor(at + before * width, width, fraction)

    def product(
        self,
        out: Tensor,
        inputs: Sequence[tuple[Place, int, int]],
        weights: np.ndarray,
        bias: np.ndarray,
        rows: int,
        before: int,
        *,
        function: str = "linear",
        at: Place | None = None,
        strides: tuple[int, int] | None = None,
        batch: tuple[int, int] | None = None,
    ) -> None:
        """out = function(bias + sum of the inputs' parts), from numbers in Q`before`.

        `inputs`: for each stretch of K where its first row is, the stride of rows, and its length. weights [N, K], bias [N].
        `at`, `strides` (of row and column): where in `out` to write, from its start and row by row by default. With
        `batch`, (row strides of input and output of one part), weights are [B, N, K], bias [B, N], and `rows` those of a part.
        """
        parts = weights[None] if batch is None else weights
        found = quantize(parts.reshape(-1, parts.shape[2]), bias.ravel(), before, out.fraction)
        lengths = [length for _, _, length in inputs]
        data = np.concatenate([packed(part, lengths) for part in np.split(found.rows, len(parts))])
        step_in, step_out = batch or (0, 0)
        row, column = strides or (out.width, 1)
        self.multiply_adds += rows * weights.size
        segments: list[int | Place] = []
        for place_, stride, length in inputs:
            segments += [place_, step_in, stride, padded([length])]
        self.add(
            "PRODUCT",
            len(parts),
            rows,
            parts.shape[1],
            FUNCTIONS[function],
            found.shift,
            out.fraction,
            at or out.at,
            step_out,
            row,
            column,
            self.constant("longs", found.bias),
            self.constant("shorts", found.factor),
            self.constant("bytes", data),
            padded(lengths),
            len(inputs),
            *segments,
        )

    def assemble(self) -> Integers:
        """Place the buffers: state one after the other, scratch by the time of its use."""
        spans: dict[int, list[int]] = {}
        for i, (_, arguments) in enumerate(self.rows):
            for x in arguments:
                if isinstance(x, Place):
                    spans.setdefault(x.buffer, [i, i])[1] = i
        offsets, state, groups = {}, 0, {}
        for number, (kind, size) in enumerate(self.sizes):
            taken = -(-(size + _SLACK) // 8) * 8
            if kind == "state":
                offsets[number], state = SPACES["state"] << 28 | state, state + taken
            elif number in spans:
                first, last = spans[number]
                groups[number] = Group(first, last, 0, taken, set())
        place(list(groups.values()))
        offsets |= {number: SPACES["scratch"] << 28 | group.at for number, group in groups.items()}
        words = [
            [
                OPERATIONS.index(op),
                len(arguments),
                *(offsets[x.buffer] + x.offset if isinstance(x, Place) else int(x) for x in arguments),
            ]
            for op, arguments in self.rows
        ]
        constants = {name: np.concatenate([np.zeros(0, DTYPES[name]), *parts]) for name, parts in self.tables.items()}
        scratch = max(group.at + group.size for group in groups.values())
        return Integers(words, constants, state, scratch, self.multiply_adds)
