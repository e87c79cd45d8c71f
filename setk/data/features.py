"""What a shard keeps of a signal: its samples (pcm), its compressed spectrum (stft), or its mel bands (logmel).

stft is float16 [frames, bins, 2] (real, imaginary) of dsp.STFT(window, hop), the magnitude raised to `power`, the
phase kept; logmel float16 [frames, bands], the natural logarithm of the power spectrum in bands that are triangles
of height 1, evenly spaced from 0 to half the rate on the mel scale 2595 lg(1 + f / 700 Hz), no less than ln 1e-10.
"""

from __future__ import annotations

from functools import cached_property
from typing import Iterator

import numpy as np

from setk import audio
from setk.audio.stft import STFT, StreamTransform
from setk.core.errors import UserError

POWER = 0.3  # of the compressed magnitude, as FSPEN and most losses have it
_FLOOR = 1e-10
_BLOCK = 1 << 20  # samples whose spectrum is in memory at a time


class Pcm:
    """16-bit samples as they are. The other features have the same members."""

    name, dtype = "pcm", np.dtype("<i2")
    shape: tuple[int, ...] = ()  # of one row; a row is a sample here, else a frame
    settings: dict[str, int | float] = {}

    def rows(self, samples: int) -> int:
        """Rows of a signal of so many samples."""
        return samples

    def encode(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Blocks of rows, in order, of float32 [n]; and how many samples of each were beyond 16 bits and clipped."""
        yield audio.to_int16(x)


class Stft:
    """The compressed spectrum. Raises UserError on a hop that does not divide the window."""

    name, dtype = "stft", np.dtype("<f2")

    def __init__(self, window: int = 512, hop: int = 256):
        if window < 2 or window % 2 or hop < 1 or window % hop:
            raise UserError(f"--window {window} --hop {hop}: the hop divides the window, which is even")
        self.transform = STFT(window, hop)
        self.shape: tuple[int, ...] = self.transform.shape
        self.settings: dict[str, int | float] = {"window": window, "hop": hop, "power": POWER}

    def rows(self, samples: int) -> int:
        return self.transform.frames(samples)

    def encode(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        stream = StreamTransform(self.transform)
        for start in range(0, len(x), _BLOCK):
            yield self._rows(stream.analysis(x[None, start:start + _BLOCK])[0]), 0
        yield self._rows(stream.flush()[0]), 0

    def _rows(self, spectrum: np.ndarray) -> np.ndarray:
        magnitude = np.hypot(spectrum[..., :1], spectrum[..., 1:])
        # dsp.compress floors the magnitude for the sake of gradients; here only zero needs care.
        return (spectrum * np.maximum(magnitude, 1e-8) ** (POWER - 1)).astype(self.dtype)


class LogMel(Stft):
    """The logarithm of the energy in mel bands at `rate` Hz. Raises UserError on more bands than the spectrum can fill."""

    name = "logmel"

    def __init__(self, rate: int, window: int = 512, hop: int = 256, bands: int = 80):
        super().__init__(window, hop)
        self.rate, self.shape, self.settings = rate, (bands,), {"window": window, "hop": hop, "bands": bands}
        if bands < 1 or not self._weights.any(axis=0).all():
            raise UserError(f"--bands {bands}: more than 0, and fewer than leave a band without a bin of window {window}")

    @cached_property
    def _weights(self) -> np.ndarray:
        """float32 [bins, bands]."""
        mel = np.linspace(0, 2595 * np.log10(1 + self.rate / 2 / 700), self.shape[0] + 2)
        edges = 700 * (10 ** (mel / 2595) - 1)
        at = np.fft.rfftfreq(self.transform.points, 1 / self.rate)[:, None]
        rise, fall = (at - edges[:-2]) / np.diff(edges[:-1]), (edges[2:] - at) / np.diff(edges[1:])
        return np.maximum(np.minimum(rise, fall), 0).astype(np.float32)

    def _rows(self, spectrum: np.ndarray) -> np.ndarray:
        power = np.square(spectrum).sum(-1)
        return np.log(np.maximum(power @ self._weights, _FLOOR)).astype(self.dtype)


Feature = Pcm | Stft
FEATURES = ("pcm", "stft", "logmel")


def make(name: str, rate: int, **options: int | None) -> Feature:
    """A feature by its name, for signals at `rate` Hz; of `options` (window, hop, bands) None are left at their defaults.

    Raises UserError on a name or an option that is none of it.
    """
    given = {option: value for option, value in options.items() if value is not None}
    takes = {"pcm": (), "stft": ("window", "hop"), "logmel": ("window", "hop", "bands")}
    if name not in takes:
        raise UserError(f"--feature {name}: {', '.join(FEATURES)} are to be had")
    odd = sorted(given.keys() - set(takes[name]))
    if odd:
        raise UserError(f"--{odd[0]} {given[odd[0]]}: says nothing about --feature {name}; leave it out")
    return {"pcm": Pcm, "stft": Stft, "logmel": lambda **given: LogMel(rate, **given)}[name](**given)
