"""Losses, each a function of an `Example` that returns a scalar; a config weighs them by name.

Levels are equalised before any loss: estimate and target are scaled by one gain per item that brings the
noisy signal to unit RMS. A loss on waveforms would otherwise weigh quiet items away, beside compressed
spectra, whose square falls only with the 0.6th power of the level.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from setk.audio.stft import STFT, Transform, compress, magnitude
from setk.core.errors import UserError
from setk.nn import pitch as pitches
from setk.training.perceptual import RATE, shortfall

POWER = 0.3  # compression of the spectra that losses compare
PUBLISHED_LEVEL = 0.056  # mean RMS of the noisy signals of VoiceBank+DEMAND, -25 dBFS
# Window, hop and FFT as published, except a hop of 50 that does not divide its window.
RESOLUTIONS = STFT(600, 120, 1024, 1.0), STFT(1200, 240, 2048, 1.0), STFT(240, 48, 512, 1.0)


def spectra_of(transform: Transform) -> STFT:
    """The STFT in which the signals of a model with this transform are compared."""
    return transform if isinstance(transform, STFT) else STFT()


class Example:
    """A batch as losses see it: `estimate`, `reference` and `clean` [B, n] at equalised level, compressed spectra, computed
    once, and the model's `extras`. `frames` [B, T, *shape] are what the model put out.

    Errors are differences from the reference: the clean signal, or that between it and the output of a teacher. What a listener
    hears (`perceptual`, `residual`, the discriminator) and labels such as those of `pitch` know the clean signal alone: a teacher leaves noise.
    """

    def __init__(
        self,
        transform: Transform,
        noisy: Tensor,
        clean: Tensor,
        frames: Tensor,
        extras: Mapping[str, Tensor],
        reference: Tensor | None = None,
    ):
        gain = 1 / (noisy.square().mean(-1, keepdim=True) + 1e-8).sqrt()
        self.stft = spectra_of(transform)
        self.estimate = transform.synthesis(frames, clean.shape[-1]) * gain
        self.clean = clean * gain
        self.reference = self.clean if reference is None else reference * gain
        self.extras = extras
        self._spectrum = frames * gain[..., None, None] if isinstance(transform, STFT) else None

    @cached_property
    def target(self) -> Tensor:
        """Compressed spectrum of the reference."""
        return (
            self.clean_target if self.reference is self.clean else compress(self.stft.analysis(self.reference), POWER)
        )

    @cached_property
    def clean_target(self) -> Tensor:
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
    return (e.estimate - e.reference).abs().mean()


def mse(e: Example) -> Tensor:
    """Mean square error of the waveform."""
    return (e.estimate - e.reference).square().mean()


def snr(e: Example) -> Tensor:
    """Negative log10 of the signal-to-noise ratio, a mean over items: -SNR / 10 dB. Level counts, unlike in SI-SDR."""
    error = (e.estimate - e.reference).square().mean(-1)
    return torch.log10((error + 1e-4) / (e.reference.square().mean(-1) + 1e-4)).mean()


def si_sdr(e: Example) -> Tensor:
    """Negative log10 of the scale-invariant SDR, zero-mean, a mean over items (Le Roux et al. 2019)."""
    estimate = e.estimate - e.estimate.mean(-1, keepdim=True)
    reference = e.reference - e.reference.mean(-1, keepdim=True)
    scale = (estimate * reference).sum(-1, keepdim=True) / (reference.square().sum(-1, keepdim=True) + 1e-4)
    error = (estimate - scale * reference).square().mean(-1)
    return torch.log10((error + 1e-4) / ((scale * reference).square().mean(-1) + 1e-4)).mean()


def hybrid(e: Example) -> Tensor:
    """30 x error of compressed real and of imaginary parts + 70 x error of compressed magnitude + SI-SDR, the loss of
    GTCRN (Rong et al., ICASSP 2024) and of what is public of Lite-RTSE; compressed_complex is the mean of two parts.

    The published weights are for spectra of signals as they are recorded, of an RMS of PUBLISHED_LEVEL. At the RMS of 1
    to which levels are equalised here the errors of spectra are 5.64 times as large; they are scaled back.
    """
    spectral = 60 * compressed_complex(e) + 70 * compressed_magnitude(e)
    return PUBLISHED_LEVEL ** (2 * POWER) * spectral + si_sdr(e)


def multi_resolution_stft(e: Example) -> Tensor:
    """Spectral convergence and mean absolute error of log magnitudes, a mean over three resolutions (Yamamoto et al.,
    Parallel WaveGAN, 2020). Magnitudes are floored 60 dB below those of noise at the level of the noisy signal."""
    terms = []
    for stft in RESOLUTIONS:
        estimate, reference = (magnitude(stft.analysis(wave), 1e-2).flatten(1) for wave in (e.estimate, e.reference))
        convergence = torch.linalg.vector_norm(reference - estimate, dim=1) / torch.linalg.vector_norm(reference, dim=1)
        terms.append(convergence.mean() + (reference.log() - estimate.log()).abs().mean())
    return torch.stack(terms).mean()


def perceptual(e: Example) -> Tensor:
    """How far PESQ at 16 kHz lies below its best before the mapping to MOS, a mean over items (after PMSQE,
    Martin-Donas et al. 2018)."""
    return shortfall(e.estimate, e.clean).mean()


def residual(e: Example) -> Tensor:
    """How far the level of the estimate lies above that of the clean signal where there is no speech, in units of 10 dB:
    a mean over the bins of the STFT in which the clean signal is 20 dB or more below the mean level of the noisy signal.

    Levels below -50 dB re that mean level count as -50 dB. A compressed spectrum hardly weighs what is left
    there, a listener hears it in pauses and between harmonics.
    """
    # The square of the noisy signal has a mean of 1, see `Example`.
    mean = math.log10(float(np.square(e.stft.analysis_window, dtype=np.float64).sum()))
    estimate, clean = (2 / POWER * torch.log10(magnitude(s, 1e-3)) - mean for s in (e.consistent, e.clean_target))
    without_speech = clean < -2
    excess = (estimate - clean.clamp(min=-5)).clamp(min=0) * without_speech
    return (excess.mean((1, 2)) / (without_speech.float().mean((1, 2)) + 1e-3)).mean()


def envelope(e: Example) -> Tensor:
    """1 - mean correlation of the envelopes of estimate and clean signal in one-third octave bands over 0.4 s, after STOI
    (Taal et al. 2011): normalised, clipped 15 dB below, and taken where the clean signal is within 40 dB of its loudest part.

    STOI works at 10 kHz with frames of 25.6 ms; here these are the STFT's, and bands reach to 150 Hz ... 4.3 kHz at 16 kHz.
    """
    bands = _third_octaves(e.stft.points, e.reference.device)
    estimate, reference = (
        (e.stft.analysis(wave).square().sum(-1) @ bands + 1e-6).sqrt() for wave in (e.estimate, e.reference)
    )
    count = max(2, min(reference.shape[1], round(0.384 * RATE / e.stft.hop)))
    step = max(1, count // 4)
    # [B, segments, bands, count]
    estimate, reference = (x.unfold(1, count, step) for x in (estimate, reference))
    level = reference.square().sum((2, 3))
    heard = (level > 1e-4 * level.amax(1, keepdim=True)).float()[..., None]
    scale = (reference.square().sum(-1, keepdim=True) / (estimate.square().sum(-1, keepdim=True) + 1e-6)).sqrt()
    estimate = torch.minimum(estimate * scale, reference * (1 + 10 ** (15 / 20)))
    estimate, reference = (x - x.mean(-1, keepdim=True) for x in (estimate, reference))
    energy = estimate.square().sum(-1) * reference.square().sum(-1)
    # A band in which neither signal moves counts as equal.
    correlation = ((estimate * reference).sum(-1) + 1e-4) / ((energy + 1e-12).sqrt() + 1e-4)
    part = (1 - correlation).mean(-1, keepdim=True)
    return ((part * heard).sum((1, 2)) / (heard.sum((1, 2)) + 1e-3)).mean()


@lru_cache(maxsize=4)
def _third_octaves(points: int, device: torch.device) -> Tensor:
    """Matrix [points // 2 + 1, 15] from power spectrum to the bands of STOI, at 16 kHz: centres from 150 Hz in steps of a third
    of an octave, each from its lower edge to that of the next."""
    edges = 150 * 2 ** ((np.arange(16) - 0.5) / 3)
    hertz = np.arange(points // 2 + 1) * RATE / points
    within = (hertz[:, None] >= edges[:-1]) & (hertz[:, None] < edges[1:])
    return torch.from_numpy(within).to(device, torch.float32)


def _activity(e: Example, name: str) -> Tensor:
    """Mean magnitude over the last dimension of what a spiking model puts into extras: [B, T] of each frame, or a scalar."""
    if name not in e.extras:
        raise UserError(f"losses: '{name}' needs a spiking model, which reports it; remove it")
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


def dormant(e: Example) -> Tensor:
    """How far DPSNN's neurons that do not fire in a batch stay below their threshold, a mean over all neurons: a lower bound
    on activity (Zenke & Vogels 2021), on membranes in place of spikes, whose surrogate slope is negative far below."""
    return _activity(e, "dormant")


def pitch(e: Example) -> Tensor:
    """Cross-entropy between the classes of pitch that a model estimates and the pitch of the clean speech, in nats, a mean over
    frames. The model has logits [B, T, classes] in its extras; it may answer late, so the last ones count."""
    if "pitch" not in e.extras:
        raise UserError("losses: 'pitch' needs a model that estimates pitch, such as dpcrn_cf; remove it")
    labels = pitches.likelihoods(pitches.periods(e.clean, e.stft))
    logits = e.extras["pitch"].float()[:, -labels.shape[1] :]
    return -(labels * torch.log_softmax(logits, -1)).sum(-1).mean()


AT_16_KHZ = ("perceptual", "envelope")  # whose bands are those of RATE
WITHOUT_REFERENCE = (  # of which a teacher changes nothing
    "agreement",
    "perceptual",
    "residual",
    "spikes",
    "readout",
    "spikes_last_frame",
    "readout_last_frame",
    "dormant",
    "pitch",
)
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
        residual,
        envelope,
        spikes,
        readout,
        spikes_last_frame,
        readout_last_frame,
        dormant,
        pitch,
    )
}


def weighted(weights: Mapping[str, float], example: Example) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the named losses, and each of them unweighted."""
    terms = {name: LOSSES[name](example) for name in weights}
    return sum(weights[name] * term for name, term in terms.items()), terms
