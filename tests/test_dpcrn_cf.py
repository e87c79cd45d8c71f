"""DPCRN-CF, the reconstruction: the size and cost that it was made for, and its comb filters on signals of known pitch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from setk import models
from setk.cost import macs
from setk.models import dpcrn_cf
from setk.models.dpcrn_cf import Bands, Comb, Fourier, LONGEST, SHORTEST, VOICED, WINDOW
from setk.training import settings

torch.set_num_threads(1)


@pytest.mark.parametrize("preset, latency", [("dpcrn_cf", 48), ("dpcrn_cf-causal", 32)])
def test_size_and_cost_are_those_of_the_reconstruction(preset, latency):
    """The sheet's count leaves out what is about the network: bands, and the transforms of the comb."""
    m = models.build_preset(preset)
    assert models.count_parameters(m)["params"] == 427_160 and m.latency_ms == latency
    rows = macs.layers(m, 0.05)
    assert sum(row.macs_per_second for row in rows) == 321_100_000
    about = sum(row.macs_per_second for row in rows if row.layer == "." or row.layer.startswith(("bands", "comb")))
    assert 321_100_000 - about == 125 * 2_431_904
    assert "reconstruction" in m.paper


def test_bands_share_every_bin_and_none_is_empty():
    bands = Bands()
    torch.testing.assert_close(bands.bank.sum(0), torch.ones(257))
    assert bands.bank.shape[0] == 64 and (bands.bank.sum(1) > 0.99).all()
    assert (bands.bank.argmax(1).diff() >= 1).all()
    torch.testing.assert_close(bands.expand(torch.full((3, 64), 0.7)), torch.full((3, 257), 0.7))


def test_the_transform_by_products_is_the_fourier_transform():
    fourier, x = Fourier(), torch.randn(2, 3, 512)
    spectrum = torch.view_as_real(torch.fft.rfft(x))
    torch.testing.assert_close(fourier(x), spectrum, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fourier.inverse(spectrum), x[..., 256:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_samples_come_back_from_spectra_to_where_the_window_ends(rng):
    m = models.build_preset("dpcrn_cf")
    wave = torch.from_numpy(rng.standard_normal((2, int(rng.integers(3000, 5000)))).astype(np.float32))
    frames = m.transform.analysis(wave)
    samples, _ = m.comb.unfold(frames, m.init_state(2)[3])
    ends = torch.arange(1, frames.shape[1] + 1) * 128
    wanted = torch.nn.functional.pad(wave, (1024, 1024))[:, ends[:, None] + torch.arange(1024)]
    weight = torch.cat([torch.ones(896), m.comb.window[-128:]])
    assert ((samples - wanted) * weight).abs().max() < 1e-5


def certain(classes, time):
    """Logits of which one class stands out in every frame."""
    logits = torch.zeros(1, time, VOICED + 1)
    logits[..., classes] = 50
    return logits


def spectrum_of(comb, frame):
    return torch.view_as_real(torch.fft.rfft(frame * comb.window))


@torch.no_grad()
@pytest.mark.parametrize("one_sided", [False, True])
def test_classes_are_225_periods_with_taps_exactly_there_and_the_frame_as_it_is(one_sided):
    assert (LONGEST, SHORTEST, VOICED) == (256, 32, 225)
    comb = Comb(one_sided)
    samples = torch.randn(1, 1, 1024)
    for c in (0, 1, 100, 224):
        period = 256 - c
        at = torch.arange(WINDOW) + comb.first
        taps = (0, -period, -2 * period) if one_sided else (0, -period, period)
        wanted = sum(weight * samples[..., at + tap] for weight, tap in zip((0.5, 0.25, 0.25), taps))
        # A thousandth is the frame as it is.
        torch.testing.assert_close(comb(samples, certain(c, 1)), spectrum_of(comb, wanted), atol=0.1, rtol=0)
    unvoiced = comb(samples, certain(225, 1))
    torch.testing.assert_close(
        unvoiced, spectrum_of(comb, samples[..., comb.first : comb.first + WINDOW]), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("one_sided", [False, True])
def test_the_comb_takes_4_db_of_noise_off_a_voice_at_its_pitch_and_not_beside_it(one_sided, rng):
    m = models.build("dpcrn_cf", {"one_sided": one_sided})
    t = np.arange(32000) / 16000
    voice = sum(np.cos(2 * np.pi * 125 * k * t + rng.uniform(0, 2 * np.pi)) for k in range(1, 60))
    noise = rng.standard_normal(len(t)) * voice.std()

    def output(x, c):
        frames = m.transform.analysis(torch.from_numpy(x[None].astype(np.float32)))
        samples, _ = m.comb.unfold(frames, m.init_state(1)[3])
        y = m.comb(samples, certain(c, frames.shape[1]))
        late = 0 if one_sided else 2
        return m.transform.synthesis(torch.cat([y[:, late:], torch.zeros_like(y[:, :late])], 1), len(x))[
            0, 4000:-4000
        ].numpy()

    def snr(c):
        wanted = voice[4000:-4000]
        return 10 * np.log10(np.sum(wanted**2) / np.sum((output(voice + noise, c) - wanted) ** 2))

    assert snr(256 - 128) > 4.0
    assert abs(snr(225)) < 0.3
    assert snr(256 - 131) < 2


def test_the_mix_is_continuous_where_classes_swap_and_is_sure_where_one_stands_out(rng):
    comb, samples = Comb(False), torch.from_numpy(rng.standard_normal((1, 200, 1024)).astype(np.float32))
    logits = torch.from_numpy(rng.standard_normal((1, 200, VOICED + 1)).astype(np.float32))
    best = logits.topk(4).indices
    for a, b in ((0, 1), (1, 2), (2, 3)):  # draw two classes to a tie, from either side
        ties = logits.gather(-1, best)
        ties[..., a] = ties[..., b]
        near = [logits.scatter(-1, best, ties + 1e-6 * side * torch.eye(4)[a]) for side in (-1, 1)]
        with torch.no_grad():
            jump = comb(samples, near[0]) - comb(samples, near[1])
        assert jump.abs().max() < 5e-2, (a, b)  # of spectra of magnitude 14; another filter altogether: 10
    _, weights = dpcrn_cf._mix(certain(7, 1))
    assert weights[0] > 0.998 and weights[1] < 1e-3


def test_the_gradient_tells_the_pitch_network_where_the_period_is(rng):
    """Between two candidates the better one's probability is to grow."""
    comb = Comb(False)
    voice = torch.cos(2 * torch.pi * 125 / 16000 * torch.arange(1024))
    wave, clean = voice + torch.from_numpy(0.5 * rng.standard_normal((1, 20, 1024))).float(), voice[256:768]
    logits = torch.zeros(1, 20, VOICED + 1)
    logits[..., [128, 190]] = 3.0
    logits += 0.01 * torch.randn_like(logits)
    logits.requires_grad_()
    (comb(wave, logits) - spectrum_of(comb, clean)).square().mean().backward()
    slope = logits.grad.mean((0, 1))
    assert slope[128] < 0 < slope[190]


@pytest.mark.parametrize("conf, config", [("dpcrn_cf", {}), ("dpcrn_cf_open", {"level_range": [-42, -12]})])
def test_the_confs_of_its_recipes_resolve(conf, config):
    s = settings.resolve(conf)
    assert s.model == "dpcrn_cf" and s.config == models.config_values("dpcrn_cf", "dpcrn_cf", config)
