"""Sample-rate conversion: of complete signals by libsoxr, and of streams, where libsoxr holds back some 80 ms."""

from __future__ import annotations

import math

import numpy as np

from setk.core.errors import UserError

RESAMPLERS = ("soxr", "resampy")


def resampled_length(samples: int, source: int, target: int) -> int:
    """Number of samples at `target` Hz of a signal with `samples` samples at `source` Hz: the quotient, rounded up."""
    return -(-samples * target // source)


def resample(x: np.ndarray, source: int, target: int, resampler: str = "soxr") -> np.ndarray:
    """Resample float32 [..., n] from `source` to `target` Hz; returns float32 [..., ceil(n * target / source)].

    `soxr` uses the very-high-quality preset of SoX. `resampy` uses kaiser_best: about 80 times slower, for
    parity with corpora that were made with it. Raises UserError on another name.
    """
    if resampler not in RESAMPLERS:
        raise UserError(f"--resampler {resampler}: unknown resampler; choose {' or '.join(RESAMPLERS)}")
    if source == target:
        return x
    n = resampled_length(x.shape[-1], source, target)
    if n == 0:
        return np.zeros((*x.shape[:-1], 0), np.float32)
    if resampler == "soxr":
        import soxr

        y = np.ascontiguousarray(soxr.resample(np.moveaxis(x, -1, 0), source, target, quality="VHQ").T)
    else:
        import resampy

        y = resampy.resample(x, source, target, axis=-1)
    y = y[..., :n].astype(np.float32)
    return np.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, n - y.shape[-1])])


# The sinc of `setk/native/resample.h`, which says why these: samples of the lower rate on either side, cutoff re the lower Nyquist
# frequency, beta of Kaiser's window, and fractions of a sample between which values are interpolated.
_HALF, _CUTOFF, _BETA, _PHASES = 112, 0.95566, 13.15, 1024
_TOGETHER = 64  # outputs of one product of matrices, at least


class StreamResampler:
    """C channels from `source` to `target` Hz, in blocks of any size, without clicks between them.

    push(x float32 [C, n]) returns the samples [C, m] that are known now; with `last` the input ends, and all that remain come: over
    all calls as many as `resampled_length` states, aligned with the input. Each is known `delay_s` seconds after its time. The result
    does not depend on how the input was cut. A sinc with a Kaiser window at exact fractions of a sample, in double precision.
    """

    def __init__(self, source: int, target: int, channels: int):
        divisor = math.gcd(source, target)
        self._from, self._to = source // divisor, target // divisor
        self._half = max(_HALF, -(-_HALF * self._from // self._to))
        self._table = _sinc(self._half, min(1.0, self._to / self._from), min(self._to, _PHASES))
        self._block = self._to * -(-_TOGETHER // self._to)  # outputs after which the fractions of a sample begin again
        self._matrix = self._banded() if self._to <= _PHASES else None
        # From `half - 1` samples before the block's first output on.
        self._buffer = np.zeros((channels, self._half - 1))
        self._given = 0  # outputs of the block
        self.delay_s = self._half / source

    def push(self, x: np.ndarray, last: bool = False) -> np.ndarray:
        end = np.zeros((len(x), self._half if last else 0))
        self._buffer = np.concatenate([self._buffer, x, end], axis=1)
        known = -(-(self._buffer.shape[1] - 2 * self._half + 1) * self._to // self._from)
        if known <= self._given:
            return np.zeros((len(x), 0), np.float32)
        if self._matrix is None:
            pieces = range(self._given, known, _PHASES)
            y = np.concatenate([self._interpolated(at, min(at + _PHASES, known)) for at in pieces], axis=1)
            self._forget(known)
        else:
            y = np.concatenate([self._blocks(known // self._block), self._begun(known % self._block)], axis=2)
            y = y.reshape(len(x), -1)
        return y.astype(np.float32)

    def _blocks(self, count: int) -> np.ndarray:
        """The outputs [C, 1, m] of the next `count` blocks, less those given."""
        if not count:
            return np.zeros((len(self._buffer), 1, 0))
        step = self._block // self._to * self._from
        rows = np.lib.stride_tricks.sliding_window_view(self._buffer, len(self._matrix), axis=1)[
            :, : count * step : step
        ]
        made = (np.ascontiguousarray(rows).reshape(-1, len(self._matrix)) @ self._matrix).reshape(
            len(self._buffer), 1, -1
        )
        self._buffer, given, self._given = self._buffer[:, count * step :], self._given, 0
        return made[:, :, given:]

    def _begun(self, count: int) -> np.ndarray:
        """The outputs [C, 1, m] up to `count` of a block that is not complete, less those given."""
        columns = self._matrix[: self._buffer.shape[1], self._given : count]
        self._given = max(count, self._given)
        return self._buffer[:, None, : len(columns)] @ columns

    def _banded(self) -> np.ndarray:
        """[samples, outputs] of a block: in each column the sinc around an output's time."""
        steps = np.arange(self._block) * self._from
        matrix = np.zeros((steps[-1] // self._to + 2 * self._half, self._block))
        for column, (first, row) in enumerate(zip(steps // self._to, steps % self._to)):
            matrix[first : first + 2 * self._half, column] = self._table[row]
        return matrix

    def _interpolated(self, begin: int, end: int) -> np.ndarray:
        """The outputs [C, m] from `begin` to `end`, by interpolation between sincs: for rates that have hardly a common divisor."""
        steps = np.arange(begin, end) * self._from
        row, part = np.divmod(steps % self._to * (_PHASES / self._to), 1)
        row = row.astype(int)
        sinc = self._table[row] + part[:, None] * (self._table[row + 1] - self._table[row])
        windows = np.lib.stride_tricks.sliding_window_view(self._buffer, 2 * self._half, axis=1)[:, steps // self._to]
        return np.einsum("cmk,mk->cm", windows, sinc)

    def _forget(self, given: int) -> None:
        """Drop the samples that no output after `given` needs."""
        whole, self._given = divmod(given, self._to)
        self._buffer = self._buffer[:, whole * self._from :]


def _sinc(half: int, band: float, rows: int) -> np.ndarray:
    """[rows + 1, 2 half]: weights of the samples around a time that is row / rows after the one before it; `band` is the lower rate
    re that of the samples."""
    x = np.arange(2 * half) - half + 1 - np.arange(rows + 1)[:, None] / rows
    window = np.i0(_BETA * np.sqrt(np.maximum(0, 1 - (x / half) ** 2))) * (np.abs(x) < half)
    weights = np.sinc(_CUTOFF * band * x) * window
    return weights / weights.sum(axis=1, keepdims=True)
