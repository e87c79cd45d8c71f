"""The band above the model's: the input's, scaled by what the model did to its own top band."""

from __future__ import annotations

from typing import Callable

import numpy as np

from setk.engines.output import Delay

BLOCK_S = 0.005  # a gain per block
SMOOTHING_S = 0.015  # time constant of the energies that the gain is the ratio of
TOP = 0.5, 0.94  # the model's top bands, of half its sample rate; above them resamplers fade
MAKEUP = 2.0  # of what models take from clean speech in their top bands, about half is given back (docs/enhance.md)
_SILENCE = 1e-9  # energy of a window, about -100 dBFS, below which there is nothing to measure


class HighBand:
    """Adds the upper band of C channels: feed(x, low) accepts the input and its copy at the model's rate, and
    add(y, enhanced, last) returns y, the output so far, with it; `enhanced` is the model's at its own rate.

    The upper band is the input minus its copy at the model's rate, resampled as the output is. Its gain in a block of 5 ms goes
    linearly to 2 sqrt(E_y / E_x), at most 1: the energies of enhanced and input in the model's top bands, in Hann windows of two
    blocks that end where the block begins, smoothed with 15 ms. So the upper band has no latency of its own, and its gain
    follows the model's by 5 ms.
    """

    def __init__(self, rate: int, model_rate: int, channels: int, up: Callable[[np.ndarray, bool], np.ndarray]):
        self._up, self._block, self._per_sample = up, round(BLOCK_S * model_rate), model_rate / rate
        size = 2 * self._block
        self._window = np.hanning(size + 1)[:-1].astype(np.float32)
        self._bins = slice(*(round(edge * size / 2) for edge in TOP))
        self._keep = np.exp(-BLOCK_S / SMOOTHING_S)
        self._input, self._low = Delay(channels), Delay(channels)
        self._pending = np.zeros(
            (2, channels, self._block), np.float32
        )  # of input and enhanced: the last block, and what follows
        self._energy = np.zeros((2, channels))
        self._gains = np.zeros((channels, 2))  # at the starts of block `_first` and of those after it
        self._first = self._done = 0

    def feed(self, x: np.ndarray, low: np.ndarray) -> None:
        self._input.put(x)
        self._low.put(low)

    def add(self, y: np.ndarray, enhanced: np.ndarray, last: bool) -> np.ndarray:
        low = self._low.take(enhanced.shape[1])
        low = np.pad(low, ((0, 0), (0, enhanced.shape[1] - low.shape[1])))  # the last frame is longer than the signal
        self._measure(np.stack([low, enhanced]))
        below = self._up(low, last)[:, : y.shape[1]]
        below = np.pad(below, ((0, 0), (0, y.shape[1] - below.shape[1])))
        return y + self._next_gains(y.shape[1]) * (self._input.take(y.shape[1]) - below)

    def _measure(self, signals: np.ndarray) -> None:
        """Append the gains of the blocks that `signals` [2, C, n] complete."""
        signals = np.concatenate([self._pending, signals], axis=2)
        count = signals.shape[2] // self._block - 1
        gains = []
        for at in range(0, count * self._block, self._block):
            spectra = np.fft.rfft(signals[:, :, at : at + 2 * self._block] * self._window)[:, :, self._bins]
            energy = np.sum(spectra.real**2 + spectra.imag**2, axis=2)
            self._energy = self._keep * self._energy + (1 - self._keep) * energy
            gains.append(np.minimum(1, MAKEUP * np.sqrt(self._energy[1] / (self._energy[0] + _SILENCE))))
        self._gains = np.concatenate([self._gains, np.array(gains).reshape(count, len(self._gains)).T], axis=1)
        self._pending = signals[:, :, count * self._block :]

    def _next_gains(self, count: int) -> np.ndarray:
        """[C, count], for the samples after the last ones."""
        at = (self._done + np.arange(count)) * (self._per_sample / self._block)
        self._done += count
        first = np.floor(at).astype(int)
        part = at - first
        start = first - self._first
        last = self._gains.shape[1] - 1
        a, b = self._gains[:, np.minimum(start, last)], self._gains[:, np.minimum(start + 1, last)]
        if count and (used := min(start[-1], last - 1)) > 0:
            self._gains, self._first = self._gains[:, used:], self._first + used
        return (a + part * (b - a)).astype(np.float32)
