"""Sums, means, softmax and the greatest along axes, as rows of the program."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from setk.native.elementwise import apply
from setk.native.places import PANEL, Memory, Read, Write, affine, materialise, without_zeros
from setk.native.products import SEGMENTS, product

FEW = 8  # elements that are added one after the other


def reduce(memory: Memory, x: np.ndarray, axes: Sequence[int], factor: float, keep: bool) -> np.ndarray:
    """Addresses of the sum of x over `axes` times `factor`; `keep` leaves them as axes of length 1."""
    axes = [axis % x.ndim for axis in axes]
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    flat = x.transpose(*rest, *axes).reshape(*(x.shape[axis] for axis in rest), -1)
    n = flat.shape[-1]
    if n <= FEW and factor == 1:
        y = flat[..., 0]
        for i in range(1, n):
            y = apply(memory, "ADD", [y, flat[..., i]])
    else:
        if flat.size == n:
            flat = _in_lanes(memory, flat.ravel()).reshape(*flat.shape[:-1], -1)
            n = flat.size
        y = product(memory, flat.reshape(1, -1, n), np.full((1, n, 1), factor, np.float32), None).reshape(
            flat.shape[:-1]
        )
    return np.expand_dims(y, tuple(axes)) if keep else y


def _in_lanes(memory: Memory, x: np.ndarray) -> np.ndarray:
    """Fewer addresses with the same sum as x [n]: stretches of numbers that lie next to each other are added as vectors."""
    one, lanes = memory.constant(np.ones(1)), memory.new((PANEL,))
    segments: list = []
    rest = []
    x = np.sort(x)
    for stretch in np.split(x, np.flatnonzero(np.diff(x) != 1) + 1):
        lines = len(stretch) // PANEL
        if lines and len(segments) < 9 * SEGMENTS:
            segments += [Read(int(one[0])), 0, 0, 0, Read(int(stretch[0])), 0, PANEL, PANEL, lines]
            stretch = stretch[lines * PANEL :]
        rest.append(stretch)
    if not segments:
        return x
    zeros = Read(int(memory.constant(np.zeros(PANEL))[0]))
    memory.add("PRODUCT", 1, 1, PANEL, Write(int(lanes[0])), 0, 0, zeros, 0, 0, 1, len(segments) // 9, *segments)
    return np.concatenate([lanes, *rest])


def along_last(memory: Memory, op: str, x: np.ndarray, size: int | None) -> np.ndarray:
    """Addresses of what an operation on n numbers makes of those along the last axis, `size` of them or as many."""
    rows = x.reshape(-1, x.shape[-1])
    out = memory.new((*x.shape[:-1], size or x.shape[-1]))
    for row, y in zip(rows, out.reshape(len(rows), -1)):
        memory.add(op, row.size, Read(dense(memory, row)), Write(int(y[0])))
    return out


def dense(memory: Memory, x: np.ndarray) -> int:
    """The address of the elements of x in a row, of a copy if they lie otherwise."""
    flat = without_zeros(memory, x).ravel()
    found = affine(flat)
    if found is None or flat.size > 1 and found[1][0] != 1:
        return int(materialise(memory, flat)[0])
    return found[0]
