"""A perceptual distance that gradients pass through, like PMSQE.

Papers: Martin-Donas, Gomez, Gonzalez, Peinado, "A deep learning loss function based on the perceptual evaluation of
the speech quality", IEEE SPL 2018; the model of hearing is that of ITU-T P.862 with the input filter of P.862.2.

    power spectrum of 32-ms frames -> level -> input filter -> Bark bands -> spectral and gain equalisation
    -> loudness (Zwicker) -> disturbance beyond a dead zone, plain and asymmetric -> sum over frames

PMSQE takes the mean over frames; here it is the L6 norm over 320 ms and the L2 norm over the signal, as in P.862,
because that orders signals much more as PESQ does (tests/test_losses.py). The search for delays is left out, which a
loss has no use for. The ceiling on the disturbance of a frame, which noisy frames pass often, is approached smoothly,
so that they keep a gradient. The input filter and the level band act on power spectra. All is at 16 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from setk.audio.stft import STFT

TRANSFORM = STFT(512, 256, power=1.0)
RATE = 16000

# ITU-T P.862, 16 kHz, 49 bands: FFT bins (of 31.25 Hz, from 0 Hz on), density (Hz per Bark, per bin), hearing threshold.
# fmt: off
BINS = (1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2,
        3, 3, 3, 3, 4, 3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20)
DENSITY = (100, 100, 100, 100, 100, 100, 100, 100, 50, 100, 100, 100, 100, 100, 53, 110, 118, 65, 68.8, 70, 71.4, 75,
           76.8, 81, 88.6, 63.9, 68.2, 72.5, 75.6, 58.4, 81, 64.1, 54.4, 73.8, 64.4, 59.2, 65.5, 61.4, 58.1, 57, 64.1,
           54.3, 61.1, 55.1, 56.8, 55.6, 53.1, 55, 79.5)
THRESHOLD_DB = (77.1, 63.9, 48.5, 36.9, 30.7, 25.9, 20.2, 16.6, 12.5, 9.9, 6.9, 4.9, 2.8, 1, -0.1, -1.4, -2.5, -3.4, -4.1,
                -4.8, -5.3, -5.7, -5.9, -6, -6, -6, -6, -5.8, -5.4, -5.1, -4.7, -4.3, -4, -3.6, -3.3, -3.1, -3, -3, -2.9,
                -2.8, -2.8, -2.8, -2.9, -3.2, -3.7, -4.3, -4.4, -3.8, -2.7)
# fmt: on
POWER_SCALE, LOUDNESS_SCALE = 6.910853e-6, 0.1866055
LEVEL, LEVEL_BAND = 1e7, (350, 3250)  # mean power that signals are brought to, and between which frequencies, Hz
HIGH_PASS = (2.740826, (1, -2, 1), (1, -1.9444777, 0.94597794))  # input filter of P.862.2: gain, numerator, denominator
ZWICKER = 0.23
CEILING = 45  # disturbance of a frame


@dataclass(frozen=True)
class Ear:
    """Constants as tensors: weight of each FFT bin [257] in the level, matrix [257, 49] from power spectrum to Bark
    bands (filter included), and per band width in Bark, threshold and exponent of loudness."""

    level: Tensor
    bands: Tensor
    width: Tensor
    threshold: Tensor
    exponent: Tensor


@lru_cache(maxsize=4)
def _ear(device: torch.device) -> Ear:
    frequency = np.arange(TRANSFORM.bins) * RATE / TRANSFORM.points
    level = ((LEVEL_BAND[0] <= frequency) & (frequency <= LEVEL_BAND[1])) * 2 / TRANSFORM.points
    level = level / np.square(TRANSFORM.analysis_window, dtype=np.float64).sum()
    gain, zeros, poles = HIGH_PASS
    delay = np.exp(-2j * np.pi * frequency / RATE)
    passed = np.abs(gain * np.polyval(zeros[::-1], delay) / np.polyval(poles[::-1], delay)) ** 2
    band = np.repeat(np.arange(len(BINS)), BINS)
    bands = np.zeros((TRANSFORM.bins, len(BINS)))
    bands[np.arange(len(band)), band] = np.array(DENSITY)[band] * POWER_SCALE * passed[: len(band)]
    # P.862's table of widths in Bark is this polynomial to 1e-5, except the first band, which no sum below counts.
    width = np.polyval((8.813e-8, 2.2348e-5, 4.38348e-3, 0.313577), np.arange(len(BINS)))
    centre = np.cumsum(width) - width / 2 - width[0] / 2
    exponent = ZWICKER * np.clip(6 / (centre + 2), 1, 2) ** 0.15
    arrays = level, bands, width * (np.arange(len(BINS)) > 0), 10 ** (np.array(THRESHOLD_DB) / 10), exponent
    return Ear(*(torch.from_numpy(a).to(device, torch.float32) for a in arrays))


def shortfall(estimate: Tensor, clean: Tensor) -> Tensor:
    """How far [B] the raw PESQ score of waveforms [B, n] at 16 kHz lies below the best, 4.5.

    The level of either does not matter, as long as it is above some -60 dB re 1: silence stays silence.
    """
    symmetric, asymmetric = _disturbances(estimate, clean)
    return 0.1 * _pooled(symmetric) + 0.0309 * _pooled(asymmetric)


def _pooled(x: Tensor) -> Tensor:
    """[B, T] to [B]: L6 norm over 20 frames, every 10, then L2 norm, of disturbances below CEILING."""
    soft = x * (1 + (x / CEILING) ** 3) ** (-1 / 3)
    parts = torch.nn.functional.pad(soft, (0, 19)).unfold(1, 20, 10)
    return (parts.pow(6).mean(-1) + 1e-12).pow(1 / 3).mean(-1).sqrt()


def _disturbances(estimate: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Disturbance of each frame, symmetric and asymmetric, each [B, T]."""
    ear = _ear(clean.device)
    est, ref = (_bark_power(wave, ear) for wave in (estimate, clean))
    ref = ref * _spectral_gain(est, ref, ear)
    power = _audible(ref, ear)
    est = est * _frame_gain(_audible(est, ear), power)

    loud_est, loud_ref = _loudness(est, ear), _loudness(ref, ear)
    difference = (loud_est - loud_ref).abs()
    difference = (difference - 0.25 * torch.minimum(loud_est, loud_ref)).clamp(min=0) * ear.width
    # What is added annoys more than what is missing.
    factor = ((est + 50) / (ref + 50)) ** 1.2
    factor = torch.where(factor < 3, 0, factor.clamp(max=12))
    weight = ((power + 1e5) / 1e7) ** -0.04
    symmetric = (ear.width.sum() * difference.square().sum(-1) + 1e-8).sqrt()
    return symmetric * weight, (difference * factor).sum(-1) * weight


def _bark_power(wave: Tensor, ear: Ear) -> Tensor:
    """Power density [B, T, 49] in Bark bands, the signal's level equalised."""
    power = TRANSFORM.analysis(wave).square().sum(-1)
    level = (power @ ear.level).mean(-1)[:, None, None]
    return power @ ear.bands * (LEVEL / (level + 1e-6))


def _audible(power: Tensor, ear: Ear, factor: float = 1.0) -> Tensor:
    """Sum [B, T] over the bands whose power exceeds `factor` times the threshold; the lowest band does not count."""
    return torch.where(power > factor * ear.threshold, power, 0)[..., 1:].sum(-1)


def _spectral_gain(est: Tensor, ref: Tensor, ear: Ear) -> Tensor:
    """Gain [B, 1, 49] that gives the reference the long-term spectrum of the estimate, within 20 dB."""
    heard = (_audible(ref, ear, 100) >= 1e7)[..., None]
    est, ref = (torch.where(heard & (x > 100 * ear.threshold), x, 0).mean(1, keepdim=True) for x in (est, ref))
    return ((est + 1000) / (ref + 1000)).clamp(0.01, 100)


def _frame_gain(est: Tensor, ref: Tensor) -> Tensor:
    """Gain [B, T, 1] that follows the reference's power [B, T], smoothed over some frames."""
    gain = (ref + 5e3) / (est + 5e3)
    taps = 0.8 * 0.2 ** torch.arange(5, device=gain.device)
    padded = torch.cat([gain[:, :1].expand(-1, 4), gain], 1)
    return (padded.unfold(1, 5, 1) @ (taps / taps.sum()).flip(0)).clamp(3e-4, 5)[..., None]


def _loudness(power: Tensor, ear: Ear) -> Tensor:
    """Specific loudness [B, T, 49] in sone per Bark (Zwicker & Feldtkeller 1967); nothing below the threshold."""
    above = (0.5 + 0.5 * power / ear.threshold).clamp(min=1)
    return LOUDNESS_SCALE * (2 * ear.threshold) ** ear.exponent * (above**ear.exponent - 1)
