"""The features that a shard can store: samples (pcm), the compressed spectrum (stft), or mel bands (logmel).

stft is float16 [frames, bins, 2] (real, imaginary) of setk.audio.stft.STFT(window, hop), the magnitude raised to
`power`, the phase unchanged. logmel is float16 [frames, bands], the natural logarithm of the power spectrum in bands
(not below ln 1e-10). The bands are triangles of height 1, evenly spaced from 0 to half the rate on the mel scale
2595 lg(1 + f / 700 Hz).
"""

from __future__ import annotations

from functools import cached_property
from typing import Iterator

import numpy as np

from setk import audio
from setk.audio.stft import STFT, StreamTransform
from setk.core.errors import UserError
from setk.core.numerics import triangles

POWER = 0.3  # exponent of the compressed magnitude, as in FSPEN and most losses
_FLOOR = 1e-10
_BLOCK = 1 << 20  # samples whose spectrum is in memory at a time


class Pcm:
    """Unchanged 16-bit samples. The other features have the same members."""

    name, dtype = "pcm", np.dtype("<i2")
    shape: tuple[int, ...] = ()  # of one row; a row is a sample here, else a frame
    settings: dict[str, int | float] = {}

    def rows(self, samples: int) -> int:
        """Rows of a signal of `samples` samples."""
        return samples

    def encode(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Yield blocks of rows, in order, of float32 [n], and the number of samples of each block that were clipped to 16 bits."""
        yield audio.to_int16(x)


class Stft:
    """The compressed spectrum. Raises UserError on a transform that cannot be inverted."""

    name, dtype = "stft", np.dtype("<f2")

    def __init__(self, window: int = 512, hop: int = 256):
        if window < 2 or window % 2 or hop < 1:
            raise UserError(f"--window {window} --hop {hop}: the window must be even, and the hop at least 1")
        try:
            self.transform = STFT(window, hop)
        except ValueError as e:
            raise UserError(f"--window {window} --hop {hop}: {e}") from None
        self.shape: tuple[int, ...] = self.transform.shape
        self.settings: dict[str, int | float] = {"window": window, "hop": hop, "power": POWER}

    def rows(self, samples: int) -> int:
        return self.transform.frames(samples)

    def encode(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        stream = StreamTransform(self.transform)
        for start in range(0, len(x), _BLOCK):
            yield self._rows(stream.analysis(x[None, start : start + _BLOCK])[0]), 0
        yield self._rows(stream.flush()[0]), 0

    def _rows(self, spectrum: np.ndarray) -> np.ndarray:
        magnitude = np.hypot(spectrum[..., :1], spectrum[..., 1:])
        # Unlike stft.compress, which bounds the magnitude for its gradient, only zero needs care here.
        return (spectrum * np.maximum(magnitude, 1e-8) ** (POWER - 1)).astype(self.dtype)


class LogMel(Stft):
    """The logarithm of the energy in mel bands at `rate` Hz. Raises UserError where a band has no bin."""

    name = "logmel"

    def __init__(self, rate: int, window: int = 512, hop: int = 256, bands: int = 80):
        super().__init__(window, hop)
        self.rate, self.shape, self.settings = rate, (bands,), {"window": window, "hop": hop, "bands": bands}
        if bands < 1 or not self._weights.any(axis=0).all():
            raise UserError(
                f"--bands {bands}: must be more than 0, and so few that none is without a bin of window {window}"
            )

    @cached_property
    def _weights(self) -> np.ndarray:
        """float32 [bins, bands]."""
        mel = np.linspace(0, 2595 * np.log10(1 + self.rate / 2 / 700), self.shape[0] + 2)
        edges = 700 * (10 ** (mel / 2595) - 1)
        return triangles(edges, np.fft.rfftfreq(self.transform.points, 1 / self.rate)).astype(np.float32)

    def _rows(self, spectrum: np.ndarray) -> np.ndarray:
        power = np.square(spectrum).sum(-1)
        return np.log(np.maximum(power @ self._weights, _FLOOR)).astype(self.dtype)


Feature = Pcm | Stft
FEATURES = ("pcm", "stft", "logmel")


_OPTIONS = {"pcm": (), "stft": ("window", "hop"), "logmel": ("window", "hop", "bands")}


def make(name: str, rate: int, **options: int | None) -> Feature:
    """The feature `name` for signals at `rate` Hz. Of `options` (window, hop, bands), None selects the default.

    Raises UserError on an unknown name, or an option that the feature does not have.
    """
    if name not in _OPTIONS:
        raise UserError(f"--feature {name}: unknown feature; choose {', '.join(FEATURES)}")
    given = {option: value for option, value in options.items() if value is not None}
    for option, value in given.items():
        if option not in _OPTIONS[name]:
            raise UserError(f"--{option} {value}: does not apply to --feature {name}; remove it")
    if name == "logmel":
        return LogMel(rate, **given)
    return Stft(**given) if name == "stft" else Pcm()
