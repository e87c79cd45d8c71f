"""The transform around a network: rows that make frames of samples, and samples of frames, with their tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from setk.native.places import PANEL, Memory, Read, Unsupported, Write, affine, materialise


def frames(memory: Memory, transform: Any) -> np.ndarray:
    """Addresses [1, 1, *shape] of the newest frame, which the program's first row computes."""
    if type(transform).__name__ == "Frames":
        history = memory.buffer("state", transform.window)
        memory.add("FRAME", transform.window, transform.hop, Write(history.base))
        return (history.base + np.arange(transform.window))[None, None]
    points = transform.points
    if points & (points - 1) or points < 64 or transform.hop % 2:
        raise Unsupported(
            f"a Fourier transform of {points} points and hop {transform.hop}: need a power of 2 from 64 on, and an even hop"
        )
    history = memory.buffer("state", transform.window - transform.hop)
    spectrum = memory.new((2, transform.bins))
    window = transform.analysis_window.reshape(-1, 2).T
    memory.add(
        "ANALYSE",
        transform.window,
        transform.hop,
        points,
        Write(history.base),
        Write(int(spectrum[0, 0])),
        Write(int(spectrum[1, 0])),
        Write(_work(memory, points)),
        *_tables(memory, window, points),
    )
    return spectrum.T[None, None]


def samples(memory: Memory, transform: Any, y: np.ndarray) -> None:
    """The row that adds frame y [1, 1, *shape] to the output; a hop of samples leaves."""
    tail = memory.buffer("state", transform.overlap)
    if type(transform).__name__ == "Frames":
        memory.add("OVERLAP", transform.window, transform.hop, Write(tail.base), Read(int(_row(memory, y.ravel())[0])))
        return
    parts = [_row(memory, y[0, 0, :, i], exclusive=True) for i in range(2)]
    window = transform.synthesis_window.reshape(-1, 2).T / (transform.points // 2)
    memory.add(
        "SYNTHESISE",
        transform.window,
        transform.hop,
        transform.points,
        Write(tail.base),
        Read(int(parts[0][0])),
        Write(int(parts[1][0])),
        Write(_work(memory, transform.points)),
        *_tables(memory, window, transform.points),
    )


def _row(memory: Memory, x: np.ndarray, exclusive: bool = False) -> np.ndarray:
    """x, or a copy where it is not one stretch of memory. `exclusive`: of the program's own, which may be changed."""
    found = affine(x)
    if found is None or found[1] != (1,) or exclusive and memory.of(found[0]).kind != "scratch":
        return materialise(memory, x)
    return x


def _work(memory: Memory, points: int) -> int:
    return int(memory.new((4 * (points // 2 + PANEL),))[0])


def _tables(memory: Memory, window: np.ndarray, points: int) -> list[Read]:
    """The window's even and odd samples, the turn of each bin, and the tables of a transform of points / 2, as transform.h has them."""
    h = points // 2
    m = h // 16
    turn = np.exp(-2j * np.pi * np.arange(h) / points)
    parts = [
        np.exp(-2j * np.pi * np.arange(16) / 16),
        np.exp(-2j * np.pi * np.outer(np.arange(16), np.arange(m)) / h).ravel(),
        np.exp(-2j * np.pi * np.arange(m) / m),
    ]
    tables = np.concatenate([x for part in parts for x in (part.real, part.imag)])
    return [Read(int(memory.constant(x).flat[0])) for x in (window, np.stack([turn.real, turn.imag]), tables)]
