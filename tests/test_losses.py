"""Losses: what they measure, against PESQ's own code and formulas written out, and gradients that are always numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import MINI

from setk import audio
from setk.data import lists
from setk.audio.stft import Frames, STFT
from setk.training.losses import Example, LOSSES, PUBLISHED_LEVEL

# Those that look at the estimate, not at what goes on inside a model.
OF_SIGNALS = [name for name in LOSSES if not name.startswith(("spikes", "readout", "dormant", "pitch"))]
PERFECT = {"snr": -4.0, "si_sdr": -4.0, "hybrid": -4.0}  # where the best is not zero: ratios end at 40 dB


def example(noisy, clean, frames=None, transform=STFT()):
    frames = transform.analysis(noisy) if frames is None else frames
    return Example(transform, noisy, clean, frames, {})


def spoken(count=1, seconds=3.0):
    """[count, n] clean speech of the embedded corpus, each level a tenth of full scale."""
    waves = []
    for path in list(lists.read_list(MINI / "test" / "clean.scp").values())[:count]:
        x, _ = audio.read_mono(path, 16000)
        x = np.resize(x, round(seconds * 16000))
        waves.append(0.1 * x / np.sqrt(np.mean(x**2)))
    return torch.from_numpy(np.stack(waves))


def noise_like(clean, rng, snr_db):
    """Noise [B, n] at an SNR below `clean`, alternately white and low."""
    noise = rng.standard_normal(clean.shape)
    noise[1::2] = np.cumsum(noise[1::2], axis=1) - np.mean(np.cumsum(noise[1::2], axis=1), axis=1, keepdims=True)
    noise = torch.from_numpy(noise.astype(np.float32))
    level = clean.square().mean(-1, keepdim=True) / noise.square().mean(-1, keepdim=True)
    return noise * (level * 10 ** (-snr_db / 10)).sqrt()


@pytest.mark.parametrize("name", [name for name in OF_SIGNALS if name != "agreement"])
def test_a_perfect_estimate_is_best_and_less_noise_is_better(name, rng):
    clean = spoken(2)
    values = [float(LOSSES[name](example(clean + noise_like(clean, rng, snr), clean))) for snr in (0, 8, 16, 24)]
    best = float(LOSSES[name](example(clean, clean)))
    assert best == pytest.approx(PERFECT.get(name, 0.0), abs=2e-3)
    assert best < values[3] < values[2] < values[1] < values[0]


@pytest.mark.parametrize("name", OF_SIGNALS)
@pytest.mark.parametrize("transform", [STFT(), Frames(320, 160)], ids=["spectra", "samples"])
def test_gradients_are_numbers_whatever_is_silent(name, transform, rng):
    speech = spoken(2, 0.5)
    zero, click = torch.zeros_like(speech), torch.zeros_like(speech)
    click[:, rng.integers(click.shape[1])] = 1.0
    for noisy, clean in (
        (zero, zero),
        (speech, zero),
        (zero, speech),
        (speech, speech),
        (click, speech),
        (speech, click),
    ):
        frames = transform.analysis(noisy).requires_grad_()
        loss = LOSSES[name](example(noisy, clean, frames, transform))
        loss.backward()
        assert math.isfinite(loss.item()) and torch.isfinite(frames.grad).all()


@pytest.mark.parametrize("name", OF_SIGNALS)
def test_a_batch_is_the_mean_of_its_items(name, rng):
    clean = spoken(3, 1.0) * torch.tensor([[0.1], [1.0], [3.0]])
    noisy = clean + noise_like(clean, rng, 5)
    one_by_one = [float(LOSSES[name](example(noisy[i : i + 1], clean[i : i + 1]))) for i in range(3)]
    assert float(LOSSES[name](example(noisy, clean))) == pytest.approx(np.mean(one_by_one), rel=1e-4)


def test_hybrid_is_the_published_sum_of_signals_at_the_published_level(rng):
    clean = spoken(2, 1.0)
    e = example(clean + noise_like(clean, rng, 5), clean)
    recorded = [PUBLISHED_LEVEL * x for x in (e.estimate, e.clean)]
    est, ref = (torch.view_as_complex(e.stft.analysis(x)).numpy().astype(complex) for x in recorded)
    pressed = [x / np.maximum(np.abs(x), 1e-5) ** 0.7 for x in (est, ref)]
    real = np.mean((pressed[0].real - pressed[1].real) ** 2)
    imaginary = np.mean((pressed[0].imag - pressed[1].imag) ** 2)
    size = np.mean((np.abs(est) ** 0.3 - np.abs(ref) ** 0.3) ** 2)
    x, s = (v.numpy().astype(float) - v.numpy().mean(1, keepdims=True) for v in (e.estimate, e.clean))
    target = (x * s).sum(1, keepdims=True) / (s * s).sum(1, keepdims=True) * s
    si_snr = np.mean(np.log10((target**2).sum(1) / ((x - target) ** 2).sum(1)))
    assert float(LOSSES["hybrid"](e)) == pytest.approx(30 * (real + imaginary) + 70 * size - si_snr, rel=1e-3)


def test_phase_is_the_published_sum_and_agreement_is_nothing_for_the_spectrum_of_a_signal(rng):
    clean = spoken(2, 1.0)
    noisy = clean + noise_like(clean, rng, 5)
    e = example(noisy, clean)
    estimate, target = (np.angle(torch.view_as_complex(e.stft.analysis(x)).numpy()) for x in (e.estimate, e.clean))
    error = estimate - target
    parts = (error, np.diff(error, axis=2), np.diff(error, axis=1))
    wrapped = sum(np.mean(np.abs((x + np.pi) % (2 * np.pi) - np.pi)) for x in parts)
    assert float(LOSSES["phase"](e)) == pytest.approx(wrapped, rel=1e-2)
    assert float(LOSSES["agreement"](e)) < 1e-6
    turned = e.stft.analysis(noisy) * torch.from_numpy(
        rng.choice([-1.0, 1.0], (1, *e.direct.shape[1:3], 1)).astype(np.float32)
    )
    assert float(LOSSES["agreement"](example(noisy, clean, turned))) > 0.1


def test_multi_resolution_stft_is_the_published_sum(rng):
    clean = spoken(1, 1.0)
    e = example(clean + noise_like(clean, rng, 5), clean)
    found = []
    for points, window, hop in ((1024, 600, 120), (2048, 1200, 240), (512, 240, 48)):
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        padded = [np.pad(x.numpy()[0].astype(float), (window - hop, window)) for x in (e.estimate, e.clean)]
        frames = -(-(e.clean.shape[1] + window - hop) // hop)
        est, ref = (
            np.abs(np.fft.rfft([x[t * hop : t * hop + window] * hann for t in range(frames)], points)) for x in padded
        )
        est, ref = (np.sqrt(m**2 + 1e-4) for m in (est, ref))
        found.append(np.linalg.norm(ref - est) / np.linalg.norm(ref) + np.mean(np.abs(np.log(ref / est))))
    assert float(LOSSES["multi_resolution_stft"](e)) == pytest.approx(np.mean(found), rel=1e-3)


def raw_pesq(clean, estimate):
    """PESQ's wideband score before its mapping to MOS, by the package."""
    from pesq import pesq

    mos = np.array([pesq(16000, c, e, "wb") for c, e in zip(clean.numpy(), estimate.numpy())])
    return (3.8224 - np.log(4 / (mos - 0.999) - 1)) / 1.3669


def perceptual(clean, estimate):
    return np.array([float(LOSSES["perceptual"](example(e[None], c[None]))) for c, e in zip(clean, estimate)])


def degraded(rng):
    """Clean speech, and what noise, a missing band, clipping, gaps and a spectral gate make of it, [N, n] each."""
    speech = spoken(3)
    pairs = [(speech, speech + noise_like(speech, rng, snr)) for snr in (-3, 2, 7, 12, 17, 22, 30)]
    spectrum = torch.fft.rfft(speech)
    hertz = torch.linspace(0, 8000, spectrum.shape[1])
    pairs += [(speech, torch.fft.irfft(spectrum * (hertz < edge), speech.shape[1])) for edge in (1500, 3000, 5000)]
    pairs += [(speech, speech.clamp(-top, top)) for top in (0.05, 0.1, 0.2)]
    pairs += [(speech, speech * (torch.arange(speech.shape[1]) % 4000 > gap)) for gap in (100, 400, 1200)]
    noisy = speech + noise_like(speech, rng, 5)
    frames = STFT().analysis(noisy)
    power = frames.square().sum(-1, keepdim=True)
    pairs += [
        (speech, STFT().synthesis(frames * (power / (power + k * power.mean())), speech.shape[1]))
        for k in (0.05, 0.5, 2)
    ]
    return (torch.cat(part).contiguous() for part in zip(*pairs))


@pytest.mark.full
def test_perceptual_orders_degraded_speech_as_pesq_does_and_is_near_it(rng):
    from scipy.stats import spearmanr

    clean, estimate = degraded(rng)
    raw, ours = raw_pesq(clean, estimate), perceptual(clean, estimate)
    assert spearmanr(-ours, raw)[0] > 0.985
    assert np.median(np.abs(4.5 - ours - raw)) < 0.3


def test_perceptual_hears_no_level(rng):
    clean = spoken(2)
    noisy = clean + noise_like(clean, rng, 10)
    assert perceptual(clean, 0.03 * noisy) == pytest.approx(perceptual(4 * clean, noisy), rel=1e-3)


def test_going_down_the_perceptual_loss_raises_pesq(rng):
    clean = spoken(2)
    # White noise: of low noise PESQ may hear nothing, and then nothing can be raised.
    noisy = clean + torch.cat([noise_like(one[None], rng, 0) for one in clean])
    frames = STFT().analysis(noisy)
    mask = torch.zeros(frames.shape[:-1], requires_grad=True)
    optimizer = torch.optim.Adam([mask], lr=0.3)
    for _ in range(25):
        optimizer.zero_grad()
        e = example(noisy, clean, frames * torch.exp(mask)[..., None])
        LOSSES["perceptual"](e).backward()
        optimizer.step()
    estimate = STFT().synthesis(frames * torch.exp(mask.detach())[..., None], clean.shape[1])
    before, after = raw_pesq(clean, noisy), raw_pesq(clean, estimate)
    assert (after > before + 0.3).all() and (after > 3).all()


def test_residual_hears_what_is_left_without_speech_and_nothing_else(rng):
    clean = spoken(2)[:1]  # with white noise: of other noise, weak bands are soon below the lowest level that counts
    pause = torch.zeros_like(clean)
    pause[:, 16000:32000] = 1
    clean = clean * (1 - pause)
    noise = noise_like(clean, rng, 10)
    noisy = clean + noise

    def residual(estimate):
        return float(LOSSES["residual"](example(noisy, clean, STFT().analysis(estimate))))

    steps = np.diff([residual(clean + 10 ** (-gain / 20) * noise * pause) for gain in (0, 10, 20)])
    assert (
        steps[0] == pytest.approx(steps[1], rel=0.05) and steps[0] < -0.3
    )  # a decade of level is as much at any level
    assert residual(clean) == pytest.approx(0, abs=1e-3) and residual(0 * clean) == pytest.approx(0, abs=1e-6)


def test_envelope_orders_degraded_speech_as_stoi_does(rng):
    from scipy.stats import spearmanr

    from setk.metrics import compute

    clean, estimate = degraded(rng)
    ours = [float(LOSSES["envelope"](example(e[None], c[None]))) for c, e in zip(clean, estimate)]
    stoi = [compute(c.numpy(), e.numpy(), 16000, ["stoi"])[0]["stoi"] for c, e in zip(clean, estimate)]
    assert spearmanr(-np.array(ours), stoi)[0] > 0.9
