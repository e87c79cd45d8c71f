"""Frames, STFT, overlap-add and compression: one definition, in torch for models and in NumPy for streaming.

Frames are causal: frame t ends with sample (t + 1) * hop, and what precedes the signal is silence. So a
stream that has delivered k hops has delivered exactly the first k frames of the offline transform, and the
overlap-add of k frames is final up to sample k * hop - (window - hop). Nothing is reflected at the edges.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Transform:
    """A signal as overlapping frames, and back by overlap-add; `encode` and `decode` say what a frame becomes.

    window, hop in samples; hop divides window. `shape` is that of one encoded frame.
    """

    window: int = 512
    hop: int = 256

    def __post_init__(self) -> None:
        if self.window % self.hop:
            raise ValueError(f"hop {self.hop} does not divide window {self.window}")

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """[..., window] samples to [..., *shape]."""
        raise NotImplementedError

    def decode(self, frames: torch.Tensor) -> torch.Tensor:
        """[..., *shape] to [..., window] samples that overlap-add to the signal."""
        raise NotImplementedError

    def encode_numpy(self, frames: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def decode_numpy(self, frames: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    @property
    def overlap(self) -> int:
        """Samples that a frame shares with those before it; with `hop`, the algorithmic latency."""
        return self.window - self.hop

    def latency(self, lookahead: int) -> int:
        """Algorithmic latency in samples, of a model that looks `lookahead` frames ahead."""
        return self.window + lookahead * self.hop

    def frames(self, samples: int) -> int:
        """Frames that determine `samples` samples of output; at least one."""
        return max(1, -(-(samples + self.overlap) // self.hop))

    def analysis(self, wave: torch.Tensor) -> torch.Tensor:
        """Waveform [B, n] to frames [B, frames(n), *shape]."""
        import torch

        n = wave.shape[-1]
        short = (self.frames(n) - 1) * self.hop + self.window - self.overlap - n
        return self.encode(torch.nn.functional.pad(wave, (self.overlap, short)).unfold(-1, self.window, self.hop))

    def synthesis(self, frames: torch.Tensor, samples: int) -> torch.Tensor:
        """Frames [B, T, *shape] to waveform [B, samples]."""
        import torch

        batch, t = frames.shape[:2]
        parts = self.window // self.hop
        # Piece p of frame t belongs at hop t + p: shift each piece by its number and add.
        pieces = self.decode(frames).reshape(batch, t, parts, self.hop)
        wave = sum(torch.nn.functional.pad(pieces[:, :, p], (0, 0, p, parts - 1 - p)) for p in range(parts))
        return wave.reshape(batch, -1)[:, self.overlap : self.overlap + samples]


@dataclass(frozen=True)
class STFT(Transform):
    """Short-time Fourier transform, Hann ** `power` on the way in and its dual on the way out.

    Spectra are float32 [B, T, F, 2] (real, imaginary) with F = fft // 2 + 1 bins, unnormalised. `fft`, the
    window's length unless given, is that of the transform; a longer one zero-pads each frame's end. With the
    dual window overlap-add needs no division and reconstruction is exact at any hop that divides the window.
    """

    fft: int | None = None
    power: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points % 2 or self.points < self.window:
            raise ValueError(f"a transform of {self.points} points: odd, or shorter than window {self.window}")
        if self.hop == self.window:
            raise ValueError(
                f"hop {self.hop}: as long as the window, which is 0 at its ends; at most {self.window // 2}"
            )

    @property
    def points(self) -> int:
        return self.fft or self.window

    @property
    def bins(self) -> int:
        return self.points // 2 + 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.bins, 2)

    @cached_property
    def analysis_window(self) -> np.ndarray:
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        return (hann**self.power).astype(np.float32)

    @cached_property
    def synthesis_window(self) -> np.ndarray:
        power = (self.analysis_window.astype(np.float64) ** 2).reshape(-1, self.hop).sum(0)
        return (self.analysis_window / np.tile(power, self.window // self.hop)).astype(np.float32)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.view_as_real(
            torch.fft.rfft(frames * torch.from_numpy(self.analysis_window).to(frames), self.points)
        )

    def decode(self, frames: torch.Tensor) -> torch.Tensor:
        import torch

        wave = torch.fft.irfft(torch.view_as_complex(frames.contiguous()), self.points)[..., : self.window]
        return wave * torch.from_numpy(self.synthesis_window).to(wave)

    def encode_numpy(self, frames: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(frames * self.analysis_window, self.points)  # complex64, as the frames are float32
        return spectrum.view(np.float32).reshape(*spectrum.shape, 2)

    def decode_numpy(self, frames: np.ndarray) -> np.ndarray:
        wave = np.fft.irfft(np.ascontiguousarray(frames).view(np.complex64)[..., 0], self.points)[..., : self.window]
        return wave * self.synthesis_window


@dataclass(frozen=True)
class Frames(Transform):
    """The samples themselves, for models with an encoder and a decoder of their own: frames [B, T, window]
    without a window function, overlap-added as they are."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.window,)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    decode = encode_numpy = decode_numpy = encode


def plain(transform: Transform) -> dict[str, Any]:
    """A transform as plain values, from which `restore` makes it again."""
    return {"kind": type(transform).__name__, **asdict(transform)}


def restore(values: dict[str, Any]) -> Transform:
    """The transform that `plain` described. Raises KeyError or TypeError on anything else."""
    kinds = {kind.__name__: kind for kind in (STFT, Frames)}
    return kinds[values["kind"]](**{k: v for k, v in values.items() if k != "kind"})


class StreamTransform:
    """A transform in NumPy, fed in pieces of any size; C channels run side by side.

    `analysis(x[C, n])` returns the frames that have become complete, `synthesis(frames[C, T, *shape])` the
    samples that have become final. `flush()` gives the frames that the end of the signal still owes.
    """

    def __init__(self, transform: Transform, channels: int = 1):
        self.transform = transform
        self._input = np.zeros((channels, transform.overlap), np.float32)
        self._tail = np.zeros((channels, transform.overlap), np.float32)
        self._seen = self._framed = self._given = 0

    def analysis(self, x: np.ndarray) -> np.ndarray:
        s = self.transform
        self._seen += x.shape[1]
        buffer = np.concatenate([self._input, x], axis=1)
        t = max(0, (buffer.shape[1] - s.overlap) // s.hop)
        self._input = buffer[:, t * s.hop :]
        self._framed += t
        if t == 0:
            return np.zeros((len(x), 0, *s.shape), np.float32)
        if t == 1:  # a live hop, to which numpy's sliding window would add a tenth
            return s.encode_numpy(buffer[:, None, : s.window])
        return s.encode_numpy(
            np.lib.stride_tricks.sliding_window_view(buffer, s.window, axis=1)[:, : t * s.hop : s.hop]
        )

    def flush(self) -> np.ndarray:
        """Frames still owed, the signal continued by silence."""
        s = self.transform
        if self._seen == 0:
            return self.analysis(np.zeros((len(self._input), 0), np.float32))
        owed = s.frames(self._seen) * s.hop - (self._framed * s.hop + self._input.shape[1] - s.overlap)
        seen = self._seen
        frames = self.analysis(np.zeros((len(self._input), owed), np.float32))
        self._seen = seen
        return frames

    def synthesis(self, frames: np.ndarray) -> np.ndarray:
        """Samples [C, n] that no later frame changes; the overlap before the signal's start is dropped, and
        nothing beyond the number of samples seen is given."""
        s = self.transform
        t = frames.shape[1]
        wave = np.zeros((len(frames), t * s.hop + s.overlap), np.float32)
        wave[:, : s.overlap] = self._tail
        if t:
            pieces = s.decode_numpy(frames)
            for p in range(s.window // s.hop):
                wave[:, p * s.hop : (p + t) * s.hop] += pieces[:, :, p * s.hop : (p + 1) * s.hop].reshape(len(wave), -1)
        self._tail = wave[:, t * s.hop :].copy()
        first = max(0, s.overlap - self._given)
        self._given += t * s.hop
        last = t * s.hop - max(0, self._given - s.overlap - self._seen)
        return wave[:, first : max(first, last)]


def check_power(power: float) -> None:
    """Raise ValueError unless magnitudes can be compressed by `power` and expanded again."""
    if not power > 0:
        raise ValueError(f"compression {power:g}: must be above 0")


def compress(spectrum: torch.Tensor, power: float, floor: float = 1e-5, dim: int = -1) -> torch.Tensor:
    """Raise the magnitude of a spectrum to `power`, keeping the phase; `dim` holds real and imaginary part.

    The magnitude is floored inside the power only: zero bins stay zero and have finite gradients.
    """
    if power == 1:
        return spectrum
    return spectrum * (spectrum.square().sum(dim, keepdim=True) + floor**2) ** ((power - 1) / 2)


def magnitude(spectrum: torch.Tensor, floor: float = 1e-6, dim: int = -1) -> torch.Tensor:
    """Magnitude of a spectrum, 1 long in `dim`; the floor keeps the gradient finite at zero bins."""
    return (spectrum.square().sum(dim, keepdim=True) + floor**2).sqrt()
