"""Losses, each a function of an `Example` that returns a scalar; a conf weighs them by name.

Levels are equalised before any loss: estimate and target are scaled by one gain per item that brings the
noisy signal to unit RMS. A loss on waveforms would otherwise weigh quiet items away, beside compressed
spectra, whose square falls only with the 0.6th power of the level.
"""

from __future__ import annotations

from functools import cached_property
from typing import Callable, Mapping

import torch
from torch import Tensor

from setk.dsp import STFT, Transform, compress, magnitude

POWER = 0.3  # compression of the spectra that losses compare


class Example:
    """A batch as losses see it: `estimate` and `clean` [B, n] at equalised level, compressed spectra, computed
    once, and the model's `extras`. `frames` [B, T, *shape] are what the model put out."""

    def __init__(self, transform: Transform, noisy: Tensor, clean: Tensor, frames: Tensor, extras: Mapping[str, Tensor]):
        gain = 1 / (noisy.square().mean(-1, keepdim=True) + 1e-8).sqrt()
        self.stft = transform if isinstance(transform, STFT) else STFT()
        self.estimate = transform.synthesis(frames, clean.shape[-1]) * gain
        self.clean = clean * gain
        self.extras = extras
        self._spectrum = frames * gain[..., None, None] if isinstance(transform, STFT) else None

    @cached_property
    def target(self) -> Tensor:
        """Compressed spectrum of the clean signal."""
        return compress(self.stft.analysis(self.clean), POWER)

    @cached_property
    def direct(self) -> Tensor:
        """Compressed spectrum that the model put out, before overlap-add; of its waveform if it puts out samples."""
        return self.consistent if self._spectrum is None else compress(self._spectrum, POWER)

    @cached_property
    def consistent(self) -> Tensor:
        """Compressed spectrum of the waveform that was made of it."""
        return compress(self.stft.analysis(self.estimate), POWER)


def compressed_magnitude(e: Example) -> Tensor:
    """Mean square error of magnitude ** 0.3 (Ephrat et al. 2018; Braun & Tashev 2021)."""
    return (magnitude(e.direct) - magnitude(e.target)).square().mean()


def compressed_complex(e: Example) -> Tensor:
    """Mean square error of the compressed real and imaginary parts (Ephrat et al. 2018)."""
    return (e.direct - e.target).square().mean()


def consistency(e: Example) -> Tensor:
    """The complex error after synthesis and analysis again (Wisdom et al. 2019)."""
    return (e.consistent - e.target).square().mean()


def l1(e: Example) -> Tensor:
    """Mean absolute error of the waveform."""
    return (e.estimate - e.clean).abs().mean()


def snr(e: Example) -> Tensor:
    """Negative log10 of the signal-to-noise ratio, a mean over items: -SNR / 10 dB. Level counts, unlike in SI-SDR."""
    error = (e.estimate - e.clean).square().mean(-1)
    return torch.log10((error + 1e-4) / (e.clean.square().mean(-1) + 1e-4)).mean()


def si_sdr(e: Example) -> Tensor:
    """Negative log10 of the scale-invariant SDR, zero-mean, a mean over items (Le Roux et al. 2019)."""
    estimate = e.estimate - e.estimate.mean(-1, keepdim=True)
    clean = e.clean - e.clean.mean(-1, keepdim=True)
    scale = (estimate * clean).sum(-1, keepdim=True) / (clean.square().sum(-1, keepdim=True) + 1e-4)
    error = (estimate - scale * clean).square().mean(-1)
    return torch.log10((error + 1e-4) / ((scale * clean).square().mean(-1) + 1e-4)).mean()


LOSSES: Mapping[str, Callable[[Example], Tensor]] = {
    f.__name__: f for f in (compressed_magnitude, compressed_complex, consistency, l1, snr, si_sdr)}


def weighted(weights: Mapping[str, float], example: Example) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the named losses, and each of them unweighted."""
    terms = {name: LOSSES[name](example) for name in weights}
    return sum(weights[name] * term for name, term in terms.items()), terms
