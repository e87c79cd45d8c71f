"""Post-training quantization: the ranges of activations from what a list of signals puts through a model.

A quantizer's range is chosen from a histogram of what passed it, of bounded memory whatever the length of the list:

  minmax      from the least to the greatest value seen
  percentile  what is left when TAIL of the values is cut off at either end
  mse         the range of the least mean squared error, rounding and clipping taken together
"""

from __future__ import annotations

from typing import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from setk.core.errors import UserError
from setk.models import Model
from setk.nn.quantization import Scheme, quantize

TAIL = 5e-5  # of the values at either end
BINS = 4096  # of a histogram
TRIES = 64  # limits that mse tries on a side, from the whole of it downwards


class Histogram:
    """Counts of values in bins about zero that double their width when a value falls outside; the extremes are exact."""

    def __init__(self) -> None:
        self.counts, self.width = np.zeros(BINS), 0.0
        self.lo = self.hi = 0.0

    def add(self, x: Tensor) -> None:
        lo, hi = (float(v) for v in torch.aminmax(x))
        self.lo, self.hi = min(self.lo, lo), max(self.hi, hi)
        peak = max(-lo, hi)
        if peak == 0:
            return
        if not self.width:
            self.width = 2.0 ** np.ceil(np.log2(peak / (BINS / 2)))
        while peak > self.width * BINS / 2:
            self.width *= 2
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(1), BINS // 4)
        limit = self.width * BINS / 2
        self.counts += torch.histc(x.detach().float(), BINS, -limit, limit).numpy()

    @property
    def centres(self) -> np.ndarray:
        return (np.arange(BINS) - BINS / 2 + 0.5) * self.width


def minmax(seen: Histogram) -> tuple[float, float]:
    return seen.lo, seen.hi


def percentile(seen: Histogram) -> tuple[float, float]:
    below = np.cumsum(seen.counts) / seen.counts.sum()
    first, last = np.searchsorted(below, [TAIL, 1 - TAIL])
    edges = seen.centres[[first, last]] + np.array([-0.5, 0.5]) * seen.width
    return max(seen.lo, edges[0]), min(seen.hi, edges[1])


def mse(seen: Histogram) -> tuple[float, float]:
    """One limit after the other, twice: the error is flat about its least, and both together gain nothing that shows."""
    x, counts = seen.centres, seen.counts

    def error(limits: tuple[float, float]) -> float:
        scale = max((limits[1] - limits[0]) / 255, 1e-30)
        zero = np.rint(-limits[0] / scale)
        return float((counts * (np.clip(np.rint(x / scale), -zero, 255 - zero) * scale - x) ** 2).sum())

    parts, (lo, hi) = np.arange(TRIES, 0, -1) / TRIES, (seen.lo, seen.hi)
    for _ in range(2):
        hi = min((part * seen.hi for part in parts), key=lambda limit: error((lo, limit)))
        lo = min((part * seen.lo for part in parts), key=lambda limit: error((limit, hi)))
    return lo, hi


METHODS: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
}


def calibrate(model: Model, waves: Iterable[Tensor], method: str) -> None:
    """Quantize a float `model` in place, with ranges from `waves` [1, n]. The weights are quantized while they are measured.

    Raises UserError if there is nothing to be heard in `waves`.
    """
    quantize(model, Scheme("vanilla")).eval()
    quantizers = {path: q for path, q in model.activation_quantizers.items() if q.observe}
    seen = {path: Histogram() for path in quantizers}
    hooks = [
        q.register_forward_pre_hook(lambda _, args, path=path: seen[path].add(args[0]))
        for path, q in quantizers.items()
    ]
    heard = False
    with torch.no_grad():
        for wave in waves:
            if wave.any():
                heard = True
                _run(model, wave)
    for hook in hooks:
        hook.remove()
    if not heard:
        raise UserError("there is nothing to calibrate with: the list is empty, or all of it is silence")
    for path, q in quantizers.items():
        lo, hi = METHODS[method](seen[path]) if seen[path].width else (0.0, 0.0)
        q.lo.fill_(lo), q.hi.fill_(hi), q.seen.fill_(q.observe)


def _run(model: Model, wave: Tensor) -> None:
    """A signal through the model, `chunk_s` seconds at a time."""
    frames, state = model.transform.analysis(wave), model.init_state(len(wave))
    for piece in frames.split(round(model.chunk_s * model.sample_rate / model.transform.hop), 1):
        _, state = model(piece, state)
