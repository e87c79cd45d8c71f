"""Losses, each a function of an `Example` that returns a scalar; a conf weighs them by name.

Levels are equalised before any loss: estimate and target are scaled by one gain per item that brings the
noisy signal to unit RMS. A loss on waveforms would otherwise weigh quiet items away, beside compressed
spectra, whose square falls only with the 0.6th power of the level.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Callable, Mapping

import torch
from torch import Tensor

from setk.audio.stft import STFT, Transform, compress, magnitude
from setk.core.errors import UserError
from setk.training.perceptual import shortfall

POWER = 0.3  # compression of the spectra that losses compare
# Window, hop and FFT as published, but for a hop of 50 that does not divide its window.
RESOLUTIONS = STFT(600, 120, 1024, 1.0), STFT(1200, 240, 2048, 1.0), STFT(240, 48, 512, 1.0)


def spectra_of(transform: Transform) -> STFT:
    """The STFT in which the signals of a model with this transform are compared."""
    return transform if isinstance(transform, STFT) else STFT()


class Example:
    """A batch as losses see it: `estimate` and `clean` [B, n] at equalised level, compressed spectra, computed
    once, and the model's `extras`. `frames` [B, T, *shape] are what the model put out."""

    def __init__(
        self, transform: Transform, noisy: Tensor, clean: Tensor, frames: Tensor, extras: Mapping[str, Tensor]
    ):
        gain = 1 / (noisy.square().mean(-1, keepdim=True) + 1e-8).sqrt()
        self.stft = spectra_of(transform)
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


def agreement(e: Example) -> Tensor:
    """Mean square difference of the compressed spectrum that the model put out and that of its waveform: nothing where
    frames that overlap agree, whatever they hold (MP-SENet's consistency; Zadorozhnyy et al. 2022)."""
    return (e.direct - e.consistent).square().mean()


def phase(e: Example) -> Tensor:
    """Mean magnitude of the error of phase, and of its differences from bin to bin (group delay) and from frame to frame
    (instantaneous frequency), each taken to the nearest multiple of 2 pi (Ai & Ling 2023; MP-SENet)."""
    # The offsets, as in MP-SENet, keep the gradient finite at zero bins.
    angle, target = (torch.atan2(s[..., 1] + 1e-10, s[..., 0] + 1e-5) for s in (e.direct, e.target))
    error = angle - target
    errors = error, error.diff(dim=2), error.diff(dim=1)
    return sum((x - 2 * math.pi * torch.round(x / (2 * math.pi))).abs().mean() for x in errors)


def l1(e: Example) -> Tensor:
    """Mean absolute error of the waveform."""
    return (e.estimate - e.clean).abs().mean()


def mse(e: Example) -> Tensor:
    """Mean square error of the waveform."""
    return (e.estimate - e.clean).square().mean()


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


def hybrid(e: Example) -> Tensor:
    """30 x error of compressed real and of imaginary parts + 70 x error of compressed magnitude + SI-SDR, the loss of
    GTCRN (Rong et al., ICASSP 2024) and of what is public of Lite-RTSE; compressed_complex is the mean of two parts."""
    return 60 * compressed_complex(e) + 70 * compressed_magnitude(e) + si_sdr(e)


def multi_resolution_stft(e: Example) -> Tensor:
    """Spectral convergence and mean absolute error of log magnitudes, a mean over three resolutions (Yamamoto et al.,
    Parallel WaveGAN, 2020). Magnitudes are floored 60 dB below those of noise at the level of the noisy signal."""
    terms = []
    for stft in RESOLUTIONS:
        estimate, clean = (magnitude(stft.analysis(wave), 1e-2).flatten(1) for wave in (e.estimate, e.clean))
        convergence = torch.linalg.vector_norm(clean - estimate, dim=1) / torch.linalg.vector_norm(clean, dim=1)
        terms.append(convergence.mean() + (clean.log() - estimate.log()).abs().mean())
    return torch.stack(terms).mean()


def perceptual(e: Example) -> Tensor:
    """How far PESQ at 16 kHz lies below its best before the mapping to MOS, a mean over items (after PMSQE,
    Martin-Donas et al. 2018)."""
    return shortfall(e.estimate, e.clean).mean()


def _activity(e: Example, name: str) -> Tensor:
    """Mean magnitude of each frame [B, T] of what a spiking model puts into extras."""
    if name not in e.extras:
        raise UserError(f"losses: '{name}' wants a spiking model, which reports it; take it out")
    return e.extras[name].abs().mean(-1)


def spikes(e: Example) -> Tensor:
    """Mean of the binary features of DPSNN, which keeps them sparse (Sun & Bohte 2024)."""
    return _activity(e, "spikes").mean()


def readout(e: Example) -> Tensor:
    """Mean magnitude of DPSNN's readout."""
    return _activity(e, "readout").mean()


def spikes_last_frame(e: Example) -> Tensor:
    """`spikes` of the last frame alone, as DPSNN's published code takes it."""
    return _activity(e, "spikes")[:, -1].mean()


def readout_last_frame(e: Example) -> Tensor:
    """`readout` of the last frame alone, as DPSNN's published code takes it."""
    return _activity(e, "readout")[:, -1].mean()


LOSSES: Mapping[str, Callable[[Example], Tensor]] = {
    f.__name__: f
    for f in (
        compressed_magnitude,
        compressed_complex,
        consistency,
        agreement,
        phase,
        l1,
        mse,
        snr,
        si_sdr,
        hybrid,
        multi_resolution_stft,
        perceptual,
        spikes,
        readout,
        spikes_last_frame,
        readout_last_frame,
    )
}


def weighted(weights: Mapping[str, float], example: Example) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the named losses, and each of them unweighted."""
    terms = {name: LOSSES[name](example) for name in weights}
    return sum(weights[name] * term for name, term in terms.items()), terms
