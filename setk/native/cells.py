"""The step of a GRU in one row: products whose results only go into its gates become part of these."""

from __future__ import annotations

from typing import Any

from setk.native.places import PANEL, Memory, Read


def join(memory: Memory) -> None:
    """Make one CELL of the last four rows if they are a product of h and x for r and z, one of x, one of h, and the GATES of these.

    What the products write must be read by nothing else. One row of h stays apart: its products have more columns at once. A CELL has the strides of h and of x, its weights and biases as the products
    have them, and h before and after; see layers.h for their order.
    """
    *products, gates = memory.rows[-4:]
    if len(products) < 3 or any(row.op != "PRODUCT" for row in products):
        return
    both, of_x, of_h = (row.arguments for row in products)
    units, rows = gates.arguments[1], both[1]
    batch = both[0]
    segments = [_segments(a) for a in (both, of_x, of_h)]
    if (
        units % PANEL
        or rows == 1
        or [a[2] for a in (both, of_x, of_h)] != [2 * units, units, units]
        or any(a[:2] != [batch, rows] or a[8:10] != [0, 1] for a in (both, of_x, of_h))
        or batch * rows != gates.arguments[0]
        or [len(s) for s in segments] != [2, 1, 1]
        or _place(segments[0][0]) != _place(segments[2][0])
        or _place(segments[0][1]) != _place(segments[1][0])
        or not _feeds(both, of_x, of_h, gates.arguments)
    ):
        return
    (rz_h, rz_x), (n_x,), (n_h,) = segments
    operands = [x for s in (rz_h, rz_x) for x in (*s[:4], s[8])]
    weights = [rz_h[4], rz_x[4], rz_h[5], rz_h[7], n_h[4], n_h[5], n_h[7], n_x[4], n_x[5], n_x[7]]
    biases = [x for a in (both, of_x, of_h) for x in a[6:8]]
    parts = memory.rows[-4:]
    del memory.rows[-4:]
    memory.add("CELL", batch, rows, units, *operands, *weights, *biases, *gates.arguments[10:14], parts=parts)


def _segments(product: list[Any]) -> list[list[Any]]:
    return [product[11 + 9 * i : 20 + 9 * i] for i in range(product[10])]


def _place(segment: list[Any]) -> list[Any]:
    """The operand of a segment and its length."""
    return [*segment[:4], segment[8]]


def _feeds(both: list[Any], of_x: list[Any], of_h: list[Any], gates: list[Any]) -> bool:
    """Whether the gates read r, z, x_n and h_n where the products write them, row after row."""
    batch, rows, units = both[0], both[1], gates[1]
    first = both[3].address
    written = [first, first + units, of_x[3].address, of_h[3].address]
    strides = {(a[4], a[5]) for a in (both, of_x, of_h)}
    row = both[5] if rows > 1 else both[4]
    dense = batch == 1 or rows == 1 or both[4] == rows * row
    places = [(Read(at), row if batch * rows > 1 else 0) for at in written]
    return len(strides) == 1 and dense and list(zip(gates[2:10:2], gates[3:10:2])) == places
