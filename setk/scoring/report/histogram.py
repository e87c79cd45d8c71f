"""A histogram as inline SVG, coloured by the page's style."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

_WIDTH, _HEIGHT, _FOOT = 260, 120, 18


def histogram(values: Sequence[float], mean: float | None) -> str:
    """SVG of how the finite ones among `values` are spread, with the mean marked; empty if there are none."""
    x = np.array([v for v in values if math.isfinite(v)])
    if not len(x):
        return ""
    edges = _grid(x.min(), x.max(), int(np.clip(2 * math.sqrt(len(x)), 6, 24)))
    counts, _ = np.histogram(x, edges)
    at = (edges - edges[0]) * _WIDTH / (edges[-1] - edges[0])
    base = _HEIGHT - _FOOT
    bars = "".join(
        f'<rect x="{left + 0.5:.1f}" y="{base * (1 - n / counts.max()):.1f}" width="{at[1] - 1:.1f}" '
        f'height="{base * n / counts.max():.1f}"><title>{_label(a)} to {_label(b)}: {n}</title></rect>'
        for a, b, left, n in zip(edges, edges[1:], at, counts)
        if n
    )
    # A whole number of bins apart, so that labels are at edges; at most six fit.
    ticks = "".join(
        f'<text x="{left:.1f}" y="{_HEIGHT - 4}">{_label(a)}</text>'
        for a, left in list(zip(edges, at))[:: -(-len(edges) // 6)]
    )
    mark = ""
    if mean is not None and math.isfinite(mean):
        mark = f'<path class="mean" d="M{np.interp(mean, edges, at):.1f} 0V{base}"/>'
    return (
        f'<svg viewBox="-3 0 {_WIDTH + 6} {_HEIGHT}" role="img" aria-label="{len(x)} scores from {x.min():.3f} to {x.max():.3f}">'
        f'{bars}<path d="M-3 {base}h{_WIDTH + 6}"/>{ticks}{mark}</svg>'
    )


def _grid(low: float, high: float, parts: int) -> np.ndarray:
    """About `parts` equal steps of 1, 2 or 5 times a power of ten, from at most `low` to above `high`."""
    # With a spread near the resolution of floats, a step would not change the value.
    raw = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-6) / parts
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    return step * np.arange(math.floor(low / step), math.floor(high / step) + 2)


def _label(value: float) -> str:
    return f"{round(value, 9) + 0.0:g}".replace("-", "−")
