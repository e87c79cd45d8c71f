"""Places: where the elements of a tensor lie, as an array of addresses of the tensor's shape.

With that, every operation that only moves elements is one of NumPy's on addresses and costs nothing when the program runs:
reshape, transpose, slice, split, concatenate, pad, gather by constants. What computes looks for strides in the addresses of its
operands (`boxes`) and copies only what has none.

An address is that of a buffer, a multiple of 2**32, plus an offset in floats, which may be negative: zeros around the data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterator, Sequence

import numpy as np

ZERO = 1 << 31  # the address of no buffer: an element that is zero
PANEL = 16  # floats of the widest vector


class Unsupported(ValueError):
    """What the generator has no kernel for."""


@dataclass
class Buffer:
    """`size` floats of one kind of memory: "constant" (with `data`), "state" (with the data it starts from) or "scratch".
    `zeros`: offsets outside the data that a reader expects to be zero, in a scratch buffer only. `block`: of weights, which may be
    rounded to int8, the floats of a block and its columns, each of which has a step of its own."""

    number: int
    kind: str
    size: int
    data: np.ndarray | None = None
    used: np.ndarray | None = None  # offsets of its elements, sorted
    zeros: set[int] = field(default_factory=set)
    block: tuple[int, int] | None = None

    @property
    def base(self) -> int:
        return (self.number + 1) << 32


def owner(addresses: np.ndarray) -> np.ndarray:
    """The number of the buffer that each address belongs to, -1 for ZERO."""
    return np.where(addresses == ZERO, -1, ((addresses + (1 << 31)) >> 32) - 1)


@dataclass
class Row:
    """An operation and its arguments: ints, floats, and places as Read or Write. `in_place`: buffers (read, written) that may be the
    same memory. `parts`: rows that do the same one after the other, in a program that unpacks weights as it runs."""

    op: str
    arguments: list
    in_place: tuple[int, int] | None = None
    parts: Sequence[Row] = ()


@dataclass(frozen=True)
class Read:
    address: int


@dataclass(frozen=True)
class Write:
    address: int


@dataclass(frozen=True)
class Rounded:
    """The int8 of weights, or with `steps` the steps of their block."""

    address: int
    steps: bool = False


class Memory:
    """The buffers of a program, and the rows that use them."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.rows: list[Row] = []
        self.copies: dict[tuple, np.ndarray] = {}

    def buffer(self, kind: str, size: int, data: np.ndarray | None = None) -> Buffer:
        buffer = Buffer(len(self.buffers), kind, size, data)
        self.buffers.append(buffer)
        return buffer

    def new(self, shape: Sequence[int], order: Sequence[int] | None = None, kind: str = "scratch") -> np.ndarray:
        """Addresses of a new tensor, the axes lying in memory in `order`, outermost first. Rows that are long and not a multiple of
        a vector are kept apart, so that there may be zeros between them."""
        order = sorted(range(len(shape)) if order is None else order, key=lambda axis: shape[axis] > 1)
        sizes = [shape[axis] for axis in order]
        pitch = sizes[-1:] or [1]
        if len([n for n in sizes if n > 1]) > 1 and pitch[0] > 64 and pitch[0] % PANEL:
            pitch = [-(-(pitch[0] + 4) // PANEL) * PANEL]
        steps = np.cumprod([1, *pitch, *sizes[-2:0:-1]])[: len(sizes)][::-1] if sizes else np.zeros(0, int)
        offsets = np.zeros(shape, np.int64)
        for axis, step in zip(order, steps):
            offsets += (np.arange(shape[axis]) * step).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        buffer = self.buffer(kind, int(offsets.max()) + 1)
        buffer.used = np.arange(offsets.size) if buffer.size == offsets.size else np.sort(offsets, axis=None)
        return buffer.base + offsets

    def constant(self, data: np.ndarray, block: tuple[int, int] | None = None) -> np.ndarray:
        """Addresses of constants, equal ones only once. `block`: of weights, see Buffer."""
        data = np.ascontiguousarray(data, np.float32)
        numbers = data[data != 0]
        if block and (numbers == numbers[:1]).all():
            block = None  # of a sum or a mean, not weights
        for buffer in self.buffers:
            if (buffer.kind, buffer.size, buffer.block) == ("constant", data.size, block) and np.array_equal(
                buffer.data, data.ravel()
            ):
                return buffer.base + np.arange(data.size).reshape(data.shape)
        buffer = self.buffer("constant", data.size, data.ravel())
        buffer.block = block
        return buffer.base + np.arange(data.size).reshape(data.shape)

    def of(self, address: int) -> Buffer:
        return self.buffers[((int(address) + (1 << 31)) >> 32) - 1]

    def add(self, op: str, *arguments, in_place: tuple[int, int] | None = None, parts: Sequence[Row] = ()) -> None:
        self.rows.append(Row(op, list(arguments), in_place, parts))


def affine(a: np.ndarray) -> tuple[int, tuple[int, ...]] | None:
    """(origin, strides) of addresses in one buffer, or None. Strides of axes of length 1 are 0."""
    origin = int(a[(0,) * a.ndim])
    strides = tuple(
        int(a[tuple(int(i == axis) for i in range(a.ndim))]) - origin if n > 1 else 0 for axis, n in enumerate(a.shape)
    )
    expected = np.full((1,) * a.ndim, origin, np.int64)
    for axis, (n, stride) in enumerate(zip(a.shape, strides)):
        expected = expected + (np.arange(n) * stride).reshape([-1 if i == axis else 1 for i in range(a.ndim)])
    if not np.array_equal(a, expected):
        return None
    ends = [(s * (n - 1)) for n, s in zip(a.shape, strides)]
    low, high = (origin + sum(f(0, end) for end in ends) + (1 << 31) for f in (min, max))
    return (origin, strides) if low >> 32 == high >> 32 else None


def boxes(arrays: Sequence[np.ndarray]) -> list[tuple[slice, ...]]:
    """Slices that divide the shared shape of some address arrays so that each array is affine, in one buffer, in each of them."""
    pending, done = [tuple(slice(0, n) for n in arrays[0].shape)], []
    while pending:
        box = pending.pop()
        cut = next((c for c in (_cut(a[box]) for a in arrays) if c), None)
        if cut is None:
            done.append(box)
            continue
        axis, at = cut
        middle = box[axis].start + at
        for piece in (slice(middle, box[axis].stop), slice(box[axis].start, middle)):
            pending.append((*box[:axis], piece, *box[axis + 1 :]))
    return done


def _cut(a: np.ndarray) -> tuple[int, int] | None:
    """(axis, position) at which to divide addresses that are not affine."""
    if affine(a) is not None:
        return None
    for values, order in ((owner(a), 1), (a, 2)):
        found = []
        for axis, n in enumerate(a.shape):
            d = np.diff(values, n=order, axis=axis) if n > order else np.zeros(0)
            changes = np.flatnonzero(d.any(axis=tuple(i for i in range(a.ndim) if i != axis)) if d.size else d)
            if len(changes):
                found.append((len(changes), axis, int(changes[0]) + order))
        if found:
            return min(found)[1:]
    axis = max(range(a.ndim), key=lambda i: a.shape[i])  # differs across axes only, as a triangle does
    return axis, 1


def collapse(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Shape and strides of each array with axes of length 1 left out and axes that continue each other joined."""
    n: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if n and all(k[-1] == s[axis] * size for k, s in zip(kept, strides)):
            n[-1] *= size
            for k, s in zip(kept, strides):
                k[-1] = s[axis]
        else:
            n.append(size)
            for k, s in zip(kept, strides):
                k.append(s[axis])
    return n, kept


def arrange(parts: Sequence[np.ndarray]) -> Iterator[list]:
    """Affine operands, of which the first is written, as rows of three axes: [n, (address, strides) of each operand]. More axes
    become several rows. The last axis is the densest of the first operand; its stride there is 1, or it has one element."""
    found = [affine(a) for a in parts]
    axes = sorted(range(parts[0].ndim), key=lambda axis: -abs(found[0][1][axis]))
    n, strides = collapse([parts[0].shape[axis] for axis in axes], [[s[axis] for axis in axes] for _, s in found])
    if not n or strides[0][-1] != 1:
        n, strides = [*n, 1], [[*s, 0] for s in strides]
    missing = max(0, 3 - len(n))
    n, strides = [1] * missing + n, [[0] * missing + s for s in strides]
    for index in np.ndindex(*n[:-3]):
        yield [
            n[-3:],
            *((origin + int(np.dot(index, s[:-3])), tuple(s[-3:])) for (origin, _), s in zip(found, strides)),
        ]


def materialise(memory: Memory, x: np.ndarray, order: list[int] | None = None) -> np.ndarray:
    """Addresses of a copy of x without gaps, the only one that is made; ZERO becomes zeros."""
    key = (x.tobytes(), x.shape, tuple(order or ()))
    if key not in memory.copies:
        memory.copies[key] = memory.new(x.shape, order)
        copy(memory, x, memory.copies[key])
    return memory.copies[key]


def copy(memory: Memory, x: np.ndarray, out: np.ndarray) -> None:
    """Rows that copy what lies at x to `out`, of the same shape."""
    x = without_zeros(memory, x)
    for box in boxes([out, x]):
        for n, (to, step), (source, stride) in arrange([out[box], x[box]]):
            if stride[2] in (0, 1) and n[2] > 1:
                memory.add("MAP", "COPY", 0, *n, Write(to), *step[:2], Read(source), *stride)
            else:
                memory.add("MOVE", *n, Read(source), *stride, Write(to), *step)


def without_zeros(memory: Memory, x: np.ndarray) -> np.ndarray:
    """x with the address of a constant 0 for ZERO."""
    return np.where(x == ZERO, memory.constant(np.zeros(1))[0], x) if (x == ZERO).any() else x
