"""Pitch of clean speech, and the classes in which a network estimates it.

Paper: de Cheveigné, Kawahara, "YIN, a fundamental frequency estimator for speech and music", JASA 2002, steps 1 to 5: squared
difference of a frame and itself one lag later, divided by its mean over shorter lags, the first dip below a threshold,
parabolic interpolation. Step 6 is replaced by a median over three frames.

Classes are the periods 256, 255 ... 32 samples at 16 kHz (62.5 to 500 Hz), and unvoiced.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from setk.audio.stft import Transform

LONGEST, SHORTEST = 256, 32  # periods, in samples
VOICED = LONGEST - SHORTEST + 1  # class c has the period LONGEST - c; class VOICED is unvoiced
WINDOW = 512  # samples that are compared with those one lag later
DIP = 0.15  # normalised difference below which a frame is periodic
QUIET = 1e-4  # a frame is unvoiced below this part of the power of the loudest one
SILENT = 1e-9  # or below this power
TOLERANCE = 0.01  # of a period: the error that a comb filter of order 3 bears


def periods(wave: Tensor, transform: Transform) -> Tensor:
    """Period in samples of each frame of clean speech: [B, n] -> [B, frames(n)]; 0 where the frame is unvoiced.

    A period is measured about the centre of the frame that `transform` makes.
    """
    reach = WINDOW + LONGEST + 1
    before = reach // 2 + transform.window // 2 - transform.hop
    frames = transform.frames(wave.shape[-1])
    short = (frames - 1) * transform.hop + reach - before - wave.shape[-1]
    x = F.pad(wave, (before, max(0, short))).unfold(-1, reach, transform.hop)[:, :frames]
    difference = _difference(x)
    lags = torch.arange(1, LONGEST + 2, device=x.device)
    relative = difference * lags / (difference.cumsum(-1) + 1e-12)

    # The first dip: a local minimum below the threshold, at lags SHORTEST to LONGEST.
    middle = relative[..., SHORTEST - 1 : LONGEST]
    left, right = relative[..., SHORTEST - 2 : LONGEST - 1], relative[..., SHORTEST : LONGEST + 1]
    dips = (middle < DIP) & (middle <= left) & (middle < right)
    first = dips.float().argmax(-1, keepdim=True)
    a, b, c = (part.gather(-1, first).squeeze(-1) for part in (left, middle, right))
    offset = (a - c) / (2 * (a - 2 * b + c)).clamp_min(1e-9)
    period = first.squeeze(-1) + SHORTEST + offset.clamp(-0.5, 0.5)

    power = x.square().mean(-1)
    heard = (power > QUIET * power.amax(-1, keepdim=True)) & (power > SILENT)
    period = torch.where(dips.any(-1) & heard, period, torch.zeros_like(period))
    return F.pad(period, (1, 1)).unfold(-1, 3, 1).median(-1).values


def _difference(x: Tensor) -> Tensor:
    """Sum over WINDOW samples of the square difference to those `lag` later, lags 1 ... LONGEST + 1: [..., reach] ->
    [..., LONGEST + 1]."""
    points = 1024  # holds WINDOW + LONGEST + 1 samples, so that lags do not wrap
    spectra = torch.fft.rfft(x[..., :WINDOW], points).conj() * torch.fft.rfft(x, points)
    correlation = torch.fft.irfft(spectra, points)[..., : LONGEST + 2]
    energy = F.pad(x.square().cumsum(-1), (1, 0))
    energies = energy[..., WINDOW : WINDOW + LONGEST + 2] - energy[..., : LONGEST + 2]
    return (energies[..., :1] + energies - 2 * correlation)[..., 1:].clamp_min(0)


def classes(period: Tensor) -> Tensor:
    """The nearest class of each period, VOICED where it is 0."""
    nearest = (LONGEST - period.round()).clamp(0, VOICED - 1).long()
    return torch.where(period > 0, nearest, VOICED)


def likelihoods(period: Tensor) -> Tensor:
    """Target distribution over classes, [...] -> [..., VOICED + 1]: a Gaussian about the period, TOLERANCE wide, so that its
    neighbours are less wrong than other classes; unvoiced is certain."""
    grid = LONGEST - torch.arange(VOICED, device=period.device)
    centre = period.clamp(SHORTEST, LONGEST)[..., None]
    voiced = torch.softmax(-0.5 * ((grid - centre) / (TOLERANCE * centre)).square(), -1)
    certain = (period > 0)[..., None]
    return torch.cat([voiced * certain, (~certain).to(voiced)], -1)
