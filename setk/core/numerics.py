"""Small numeric helpers that several packages share: levels in dB, and banks of triangular filters."""

from __future__ import annotations

import math

import numpy as np


def to_db(amplitude: float) -> float:
    """Level in dB of an amplitude (20 log10); -inf for 0."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def from_db(level: float) -> float:
    """Amplitude of a level in dB."""
    return 10 ** (level / 20)


def triangles(edges: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Bank of triangular filters [n, bands]: weights of the points `at` [n].

    Band k has height 1 at edges[k + 1] and falls linearly to 0 at edges[k] and edges[k + 2]; `edges` [bands + 2]
    increases.
    """
    rise = (at[:, None] - edges[:-2]) / np.diff(edges[:-1])
    fall = (edges[2:] - at[:, None]) / np.diff(edges[1:])
    return np.maximum(np.minimum(rise, fall), 0)
