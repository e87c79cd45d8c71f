"""Kinds of products with kernels of their own, or operands that are both computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from setk.native.places import PANEL, Memory, Read, Write, affine, materialise


@dataclass(frozen=True)
class Run:
    """A stretch of k, of X's columns `columns`, that one segment reads: strides of X in b, m and k."""

    address: int
    batch: int
    row: int
    step: int
    columns: np.ndarray


def narrow(memory: Memory, out: np.ndarray, runs: list[Run], weights: np.ndarray, bias: np.ndarray) -> bool:
    """The row of a product with few columns, whose lanes hold 2 or 4 neighbouring k of each. False where k is not in stretches of these."""
    n = out.shape[2]
    for every in (4, 2) if n <= 4 else (2,):
        if all(run.step == 1 and len(run.columns) % every == 0 for run in runs) and out.shape[1] >= 8:
            break
    else:
        return False
    lanes = PANEL // every
    columns = np.zeros((weights.shape[0], lanes), np.float32)
    columns[:, :n] = weights[np.concatenate([run.columns for run in runs])]
    first = np.zeros((lanes, every), np.float32)
    first[:n, 0] = bias
    packed = columns.reshape(-1, every, lanes).swapaxes(1, 2)  # [K / every, lanes, every]
    at, segments, done = int(memory.constant(packed, (packed.size, PANEL)).flat[0]), [], 0
    for run in runs:
        segments += [Read(run.address), run.row, Read(at + done * lanes), len(run.columns)]
        done += len(run.columns)
    origin, (_, row, _) = affine(out)
    memory.add(
        "NARROW",
        out.shape[1],
        n,
        every,
        Write(origin),
        row,
        Read(int(memory.constant(first).flat[0])),
        len(runs),
        *segments,
    )
    return True


def computed_product(memory: Memory, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Addresses [B, M, N] of the product of a [B, M, K] and b [B, K, N], both computed when the program runs."""
    batch, m, k = a.shape
    n = b.shape[2]
    left, right = affine(a), affine(b)
    if left is None:
        left = affine(materialise(memory, a))
    if right is None or n > 1 and right[1][2] != 1:
        right = affine(materialise(memory, b))
    out = memory.new((batch, m, n))
    origin, (c_batch, c_row, _) = affine(out)
    zero = int(memory.constant(np.zeros(1)).flat[0])
    memory.add(
        "PRODUCT",
        batch,
        m,
        n,
        Write(origin),
        c_batch,
        c_row,
        Read(zero),
        0,
        0,
        0,
        1,
        Read(left[0]),
        *left[1],
        Read(right[0]),
        right[1][0],
        right[1][1],
        PANEL,
        k,
    )
    return out


def sparse_product(memory: Memory, x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    found = affine(x[0, 0])
    if found is None:
        x = materialise(memory, x)
        found = affine(x[0, 0])
    k, n = weights.shape[1:]
    padded = np.zeros((k, -(-n // PANEL) * PANEL), np.float32)
    padded[:, :n] = weights[0]
    out, indices = memory.new((1, 1, n)), memory.new((k + 1,))
    memory.add(
        "SPARSE_PRODUCT",
        k,
        n,
        Read(found[0]),
        found[1][0],
        Read(int(memory.constant(bias).flat[0])),
        Read(int(memory.constant(padded, (padded.size, padded.shape[1])).flat[0])),
        padded.shape[1],
        Write(int(out.flat[0])),
        Write(int(indices.flat[0])),
    )
    return out
