"""Pitch labels on signals of known pitch, the loss that compares with them, and training of a part of a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import MINI

from setk import audio, models
from setk.audio.stft import STFT
from setk.core.errors import UserError
from setk.data import lists
from setk.nn import pitch
from setk.training.losses import Example, LOSSES
from setk.training.objective import Objective
from setk.training.ranks import joined
from setk.training.settings import Settings

DPCRN = STFT(512, 128, power=1.0)


def harmonics(hertz, rng, seconds=1.0, noise=0.0):
    """[1, n]: a voice of one pitch, of harmonics up to 4 kHz at random phases, 6 dB less per octave."""
    t = np.arange(round(16000 * seconds)) / 16000
    wave = sum(
        np.cos(2 * np.pi * hertz * k * t + rng.uniform(0, 2 * np.pi)) / k for k in range(1, int(4000 / hertz) + 1)
    )
    return torch.from_numpy((0.1 * wave + noise * rng.standard_normal(len(t)))[None].astype(np.float32))


@pytest.mark.parametrize("transform", [DPCRN, STFT(512, 256)], ids=["hop 128", "hop 256"])
def test_the_period_of_a_voice_is_found_in_every_frame(transform, rng):
    for hertz in rng.uniform(65, 480, 8):
        found = pitch.periods(harmonics(hertz, rng), transform)
        assert found.shape == (1, transform.frames(16000))
        inside = found[0, 6:-6]
        assert (inside > 0).all()
        torch.testing.assert_close(16000 / inside, torch.full_like(inside, float(hertz)), rtol=5e-3, atol=0)


def test_noise_and_silence_are_unvoiced_and_so_is_what_lies_40_db_below_the_voice(rng):
    noise = torch.from_numpy(rng.standard_normal((2, 16000)).astype(np.float32))
    assert (pitch.periods(noise, DPCRN) > 0).float().mean() < 0.01
    assert not pitch.periods(torch.zeros(1, 8000), DPCRN).any()
    voice = harmonics(120, rng)
    voice[:, 8000:] *= 10 ** (-45 / 20)
    found = pitch.periods(voice, DPCRN)[0]
    assert (found[8:55] > 0).all() and not found[70:].any()


def test_a_frame_has_the_pitch_at_its_centre(rng):
    """Where the pitch jumps, so do the labels: at the frame whose centre is there."""
    wave = torch.cat([harmonics(100, rng, 0.5), harmonics(220, rng, 0.5)], 1)
    found = pitch.periods(wave, DPCRN)[0]
    centre = (torch.arange(len(found)) + 1) * 128 - 256
    for low, high, hertz in ((1000, 7500, 100), (8500, 15000, 220)):
        inside = found[(centre > low) & (centre < high)]
        torch.testing.assert_close(16000 / inside, torch.full_like(inside, float(hertz)), rtol=5e-3, atol=0)


def test_speech_is_voiced_in_part_and_its_pitch_is_a_speakers():
    for path in list(lists.read_list(MINI / "test" / "clean.scp").values())[:4]:
        wave, _ = audio.read_mono(path, 16000)
        found = pitch.periods(torch.from_numpy(wave)[None], DPCRN)[0]
        voiced = found[found > 0]
        assert 0.2 < len(voiced) / len(found) < 0.95
        low, high = (16000 / voiced).quantile(torch.tensor([0.1, 0.9])).tolist()
        assert 70 < low < high < 450 and high < 2.2 * low


def test_likelihoods_are_highest_at_the_class_and_unvoiced_is_certain(rng):
    periods = torch.from_numpy(rng.uniform(32, 256, 50).astype(np.float32)).round()
    expected = pitch.likelihoods(periods)
    torch.testing.assert_close(expected.sum(-1), torch.ones(50))
    assert (expected.argmax(-1) == pitch.classes(periods)).all()
    assert (pitch.classes(periods) == 256 - periods).all() and (expected[:, pitch.VOICED] == 0).all()
    unvoiced = pitch.likelihoods(torch.zeros(3))
    assert (unvoiced[:, pitch.VOICED] == 1).all() and unvoiced.sum() == 3
    assert (pitch.classes(torch.zeros(3)) == pitch.VOICED).all()


def example(clean, logits):
    return Example(DPCRN, clean, clean, DPCRN.analysis(clean), {"pitch": logits})


def test_the_loss_compares_the_last_answers_of_a_model_that_is_late(rng):
    clean = harmonics(150, rng)
    clean[:, 8000:] = 0
    expected = pitch.likelihoods(pitch.periods(clean, DPCRN))
    right = torch.log(expected + 1e-9)
    late = torch.cat([torch.zeros(1, 2, expected.shape[-1]), right], 1)
    entropy = -(expected * torch.log(expected + 1e-9)).sum(-1).mean()
    assert LOSSES["pitch"](example(clean, late)) == pytest.approx(float(entropy), abs=1e-4)
    assert LOSSES["pitch"](example(clean, torch.zeros_like(late))) == pytest.approx(np.log(226), rel=1e-4)
    wrong = torch.cat([right, torch.zeros(1, 2, expected.shape[-1])], 1)
    assert LOSSES["pitch"](example(clean, wrong)) > entropy + 0.1


def test_the_loss_needs_a_model_that_estimates_pitch(rng):
    clean = harmonics(150, rng)
    with pytest.raises(UserError, match="'pitch' needs a model that estimates pitch"):
        LOSSES["pitch"](Example(DPCRN, clean, clean, DPCRN.analysis(clean), {}))


def test_only_the_named_parts_learn_and_the_others_keep_their_statistics(rng):
    only = ("pitch_encoder", "pitch_gru", "pitch")
    s = Settings("dpcrn_cf", only=only, losses={"pitch": 1.0}, lr=1e-2)
    m = models.build_preset("dpcrn_cf")
    before = {name: value.clone() for name, value in m.state_dict().items()}
    clean = harmonics(150, rng, 0.5)
    with joined("cpu") as ranks:
        objective = Objective(m, s, ranks)
        first = objective.update([(clean, clean)])["pitch"]
        for _ in range(5):
            last = objective.update([(clean, clean)])["pitch"]
    assert last < first
    moved = {name for name, value in m.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and {name.partition(".")[0] for name in moved} == set(only)
    assert any("running_mean" in name for name in moved)
    assert m.training and not m.encoder.training and m.pitch_encoder.training


def test_a_part_that_the_model_does_not_have_is_an_error_that_lists_them():
    m = models.build_preset("dpcrn_cf")
    s = Settings("dpcrn_cf", only=("pitches",), losses={"pitch": 1.0})
    with joined("cpu") as ranks, pytest.raises(UserError, match="no part 'pitches'.*pitch_gru"):
        Objective(m, s, ranks)
