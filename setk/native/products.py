"""Products of addresses and constant weights as rows of the program: segments, halos, panels, zeros left out.

Everything that is linear with constant weights comes here as C[b, m, n] = bias[b, n] + sum over k of X[b, m, k] W[b, k, n]: X are
addresses, of which a convolution repeats those that its windows share.
"""

from __future__ import annotations

import numpy as np

from setk.native.kinds import Run, narrow, sparse_product
from setk.native.places import PANEL, ZERO, Memory, Read, Write, affine, materialise, owner

SEGMENTS = 24  # of one row of the program, as products.h has it


def product(
    memory: Memory,
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None,
    needed: np.ndarray | None = None,
    sparse: bool = False,
    rows: bool = False,
) -> np.ndarray:
    """Addresses [B, M, N] of the product of x [B, M, K] and weights [B or 1, K, N] with bias [B or 1, N]. Only elements `needed`
    [M, N] are computed. `sparse`: most of x is zero when the program runs. `rows`: the N numbers of a row must lie next to each other."""
    batch, m, k = x.shape
    n = weights.shape[2]
    weights = np.broadcast_to(weights, (batch, k, n)) if len(weights) > 1 else weights
    bias = np.zeros((1, n), np.float32) if bias is None else bias.reshape(-1, n)
    if sparse and batch == m == 1:
        return sparse_product(memory, x, weights, bias)
    across = None if rows else _across(x, n, needed)
    if across is not None:
        return _transposed(memory, across, weights, bias, (batch, m, n))
    out = memory.new((batch, m, n))
    ranges = _ranges(memory, x)
    if ranges is None:
        x = materialise(memory, x)
        ranges = _ranges(memory, x)
    for start, stop, runs in ranges:
        _rows(memory, out[:, start:stop], runs, weights, bias, None if needed is None else needed[start:stop])
    return out


def strided(memory: Memory, x: np.ndarray) -> bool:
    """Whether a product can read x [B, M, K] where it lies."""
    return _ranges(memory, x) is not None


def _ranges(memory: Memory, x: np.ndarray) -> list[tuple[int, int, list[Run]]] | None:
    """Ranges of m with the segments of each, or None if x has no strides worth having."""
    x = _with_halos(memory, x)
    if x is None:
        return None
    cuts = {0, x.shape[1]} | {int(i) + 1 for i in np.flatnonzero(np.diff(owner(x), axis=1).any(axis=(0, 2)))}
    d = np.diff(x, axis=1)
    if d.shape[1] > 1:
        cuts |= {int(i) + 2 for i in np.flatnonzero((d[:, 1:] != d[:, :-1]).any(axis=(0, 2)))}
    if len(cuts) > 6:
        return None
    ranges = []
    edges = sorted(cuts)
    for start, stop in zip(edges, edges[1:]):
        runs = _runs(x[:, start:stop])
        if runs is None or len(runs) > SEGMENTS:
            return None
        ranges.append((start, stop, runs))
    return ranges


def _runs(x: np.ndarray) -> list[Run] | None:
    """Segments of x [B, M, K], in an order of k that makes them few."""
    first = x[0, 0]
    rows = x[0, 1] - first if x.shape[1] > 1 else np.zeros_like(first)
    batches = x[1, 0] - first if x.shape[0] > 1 else np.zeros_like(first)
    expected = first + rows * np.arange(x.shape[1])[:, None] + (batches * np.arange(x.shape[0])[:, None])[:, None]
    if not np.array_equal(x, expected):
        return None
    owners = owner(first)
    if not (owner(x) == owners).all():
        return None
    order = np.lexsort((first, rows, batches, owners))
    keys = list(zip(owners[order].tolist(), batches[order].tolist(), rows[order].tolist()))
    addresses = first[order].tolist()
    runs, at = [], 0
    while at < len(order):
        step, end = 1, at + 1
        while end < len(order) and keys[end] == keys[at]:
            distance = addresses[end] - addresses[end - 1]
            if end == at + 1:
                step = distance
            elif distance != step:
                break
            end += 1
        runs.append(Run(addresses[at], keys[at][1], keys[at][2], step, order[at:end]))
        at = end
    return runs


def _with_halos(memory: Memory, x: np.ndarray) -> np.ndarray | None:
    """x with ZERO replaced by addresses next to the data, which are noted as zeros; None where that cannot be."""
    if not (x == ZERO).any():
        return x
    known = x != ZERO
    if x.shape[0] > 1 or (known.sum(1) < 3).any():
        return None
    first = known[0].argmax(0)
    columns = np.arange(x.shape[2])
    origin = x[0, first, columns]
    stride = x[0, np.minimum(first + 1, x.shape[1] - 1), columns] - origin
    filled = (origin + stride * (np.arange(x.shape[1])[:, None] - first))[None]
    if not np.array_equal(filled[known], x[known]):
        return None
    new = filled[x == ZERO]
    if (owner(new) < 0).any():
        return None
    needed_zeros: dict[int, set[int]] = {}
    for address in sorted(set(new.tolist())):
        buffer = memory.of(address)
        offset = address - buffer.base
        at = np.searchsorted(buffer.used, offset) if buffer.used is not None else 0
        taken = buffer.used is None or at < len(buffer.used) and buffer.used[at] == offset
        if buffer.kind != "scratch" or taken:
            return None
        needed_zeros.setdefault(buffer.number, set()).add(offset)
    for number, offsets in needed_zeros.items():
        memory.buffers[number].zeros |= offsets
    return filled


def _rows(
    memory: Memory, out: np.ndarray, runs: list[Run], weights: np.ndarray, bias: np.ndarray, needed: np.ndarray | None
) -> None:
    """One row of the program for each group of panels that read the same parts of k and are needed in the same rows."""
    batch, m, n = out.shape
    if batch == 1 and n <= 8 and needed is None and narrow(memory, out, runs, weights[0], bias[0]):
        return
    origin, (c_batch, c_row, _) = affine(out)
    order = np.concatenate([run.columns for run in runs])
    packed = weights[:, order]
    edges = np.cumsum([0, *(len(run.columns) for run in runs)])
    groups: list[tuple[tuple, int, int]] = []
    for start in range(0, n, PANEL):
        used = (packed[:, :, start : start + PANEL] != 0).any(axis=(0, 2))
        parts = tuple(_extent(used[a:b]) for a, b in zip(edges, edges[1:]))
        if not used.any():  # as of a channel that was pruned: the bias is added to a product by zeros
            parts = ((0, 1), *parts[1:])
        rows = (0, m) if needed is None else _extent(needed[:, start : start + PANEL].any(axis=1))
        key = (parts, rows)
        if groups and groups[-1][0] == key:
            groups[-1] = (key, groups[-1][1], min(n, start + PANEL))
        else:
            groups.append((key, start, min(n, start + PANEL)))
    for (parts, (top, bottom)), start, stop in groups:
        if top == bottom:
            continue
        kept = np.concatenate([np.arange(e + a, e + b) for e, (a, b) in zip(edges, parts)])
        w, size = _panels(packed[:, kept, start:stop])
        at, b_batch = memory.constant(w, (size, PANEL)).flat[0], w[0].size if len(w) > 1 else 0
        segments, done = [], 0
        for run, (a, b) in zip(runs, parts):
            if a < b:
                segments += [
                    Read(run.address + a * run.step + top * run.row),
                    run.batch,
                    run.row,
                    run.step,
                    Read(int(at) + done * PANEL),
                    b_batch,
                    PANEL,
                    size,
                    b - a,
                ]
                done += b - a
        padded = np.zeros((len(bias), -(-(stop - start) // PANEL) * PANEL), np.float32)
        padded[:, : stop - start] = bias[:, start:stop]
        memory.add(
            "PRODUCT",
            batch,
            bottom - top,
            stop - start,
            Write(origin + top * c_row + start),
            c_batch,
            c_row,
            Read(int(memory.constant(padded).flat[0])),
            padded.shape[1] if len(bias) > 1 else 0,
            0,
            1,
            len(segments) // 9,
            *segments,
        )


def _extent(used: np.ndarray) -> tuple[int, int]:
    at = np.flatnonzero(used)
    return (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)


def _panels(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights [B, K, N] as [B, N / 16, K, 16], and the floats of a panel."""
    b, k, n = weights.shape
    padded = np.zeros((b, k, -(-n // PANEL) * PANEL), np.float32)
    padded[:, :, :n] = weights
    return np.ascontiguousarray(padded.reshape(b, k, -1, PANEL).transpose(0, 2, 1, 3)), k * PANEL


def _across(x: np.ndarray, n: int, needed: np.ndarray | None) -> list[Run] | None:
    """The segments of x if its rows lie next to each other, so that they can be the columns of the product, and that costs no more."""
    batch, m, k = x.shape
    if m < 8 or needed is not None or (x == ZERO).any():
        return None
    if n * -(-m // PANEL) > m * -(-n // PANEL) or not (np.diff(x, axis=1) == 1).all():
        return None
    runs = _runs(x)
    return runs if runs is not None and len(runs) <= SEGMENTS else None


def _transposed(
    memory: Memory, runs: list[Run], weights: np.ndarray, bias: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """The product with weights as the left operand: rows are the weights' columns n, columns the positions m of x."""
    batch, m, n = shape
    out = memory.new((batch, m, n), [0, 2, 1])
    origin, (c_batch, _, c_row) = affine(out)
    c_row = c_row or m
    order = np.concatenate([run.columns for run in runs])
    left = np.ascontiguousarray(weights[:, order].transpose(0, 2, 1))  # [B, N, K]
    k = left.shape[2]
    at = int(memory.constant(left, (k, 1)).flat[0])
    segments, done = [], 0
    for run in runs:
        segments += [
            Read(at + done),
            n * k if len(left) > 1 else 0,
            k,
            1,
            Read(run.address),
            run.batch,
            run.step,
            PANEL,
            len(run.columns),
        ]
        done += len(run.columns)
    memory.add(
        "PRODUCT",
        batch,
        n,
        m,
        Write(origin),
        c_batch,
        c_row,
        Read(int(memory.constant(bias).flat[0])),
        n if len(bias) > 1 else 0,
        1,
        0,
        len(runs),
        *segments,
    )
    return out
