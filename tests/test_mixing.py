"""Levels, SNRs and rooms against plain loops and definitions."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from setk.core.rng import rng
from setk.data import mixing
from setk.core.errors import UserError
from setk.data.mixing import Spread


def p56_by_loop(x: np.ndarray, rate: int) -> tuple[float, float]:
    """ITU-T P.56 method B sample by sample, as the recommendation words it, with linear interpolation."""
    g, hang = math.exp(-1 / (rate * 0.03)), math.ceil(0.2 * rate)
    thresholds = [2.0**k for k in range(-15, 0)]
    active, since = [0] * 15, [hang] * 15
    p = q = energy = 0.0
    for s in x.tolist():
        energy += s * s
        p = g * p + (1 - g) * abs(s)
        q = g * q + (1 - g) * p
        for j, c in enumerate(thresholds):
            if q >= c:
                active[j], since[j] = active[j] + 1, 0
            elif since[j] < hang:
                active[j], since[j] = active[j] + 1, since[j] + 1
            else:
                break
    levels = [10 * math.log10(energy / a) for a in active if a]
    excess = [level - 20 * math.log10(c) - 15.9 for level, c in zip(levels, thresholds)]
    j = next(j for j, e in enumerate(excess) if e <= 0)
    level = levels[j - 1] + (levels[j] - levels[j - 1]) * excess[j - 1] / (excess[j - 1] - excess[j])
    return level, energy / len(x) / 10 ** (level / 10)


def talk(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise with pauses, at a random level."""
    pieces = rng.uniform(0, 1, -(-n // 3000)) ** 4
    return rng.standard_normal(n) * np.repeat(pieces, 3000)[:n] * 10 ** rng.uniform(-2.2, -0.8)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_active_level_is_that_of_the_plain_loop(rng, rate):
    for _ in range(3):
        x = talk(rng, int(rng.integers(20000, 40000)))
        assert mixing.active_level(x, rate) == pytest.approx(p56_by_loop(x, rate), abs=1e-9)


def test_active_level_leaves_pauses_out_and_scales_with_the_signal(rng):
    speech = rng.standard_normal(32000) * 0.1
    level, _ = mixing.active_level(speech, 16000)
    padded, activity = mixing.active_level(np.concatenate([speech, np.zeros(96000)]), 16000)
    assert padded == pytest.approx(level, abs=1)  # the hangover counts as speech; the RMS falls by 6 dB
    assert activity == pytest.approx(0.25, abs=0.05)
    assert mixing.active_level(speech * 2.0**-7, 16000)[0] == pytest.approx(level + mixing.to_db(2.0**-7), abs=1e-9)


@pytest.mark.parametrize("x", [np.zeros(1000), np.zeros(0), np.ones(1), np.full(5, 0.3), np.eye(1, 50000)[0]])
def test_levels_of_hardly_anything_are_no_nan(x):
    level, activity = mixing.active_level(x, 16000)
    assert not math.isnan(level) and 0 <= activity <= 1
    assert (level == -math.inf) == (not x.any())


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("level", [None, -35.0])
def test_snr_and_level_are_exact(rng, active, level):
    speech, noise = talk(rng, 40000), rng.standard_normal(40000) * 0.01
    mixed = mixing.mix(speech, noise, 7.5, level, active=active)
    # P.56 thresholds are fixed, so a common gain moves the active level: it is exact on the speech as it came.
    clean, noise = mixed.clean / mixed.gain, mixed.noise / mixed.gain
    of_speech = mixing.active_level(clean, 16000)[0] if active else mixing.rms_level(clean)
    assert of_speech - mixing.rms_level(noise) == pytest.approx(7.5, abs=1e-4)
    np.testing.assert_allclose(mixed.noisy, mixed.clean + mixed.noise, atol=1e-6)
    if level is not None:
        assert mixing.rms_level(mixed.noisy) == pytest.approx(level, abs=1e-4)
    elif not mixed.peak_scaled:
        np.testing.assert_allclose(mixed.clean, speech, rtol=1e-6, atol=1e-9)


def test_what_would_clip_is_scaled_as_one_and_said(rng):
    speech, noise = rng.uniform(-0.9, 0.9, 16000), rng.uniform(-0.9, 0.9, 16000)
    mixed = mixing.mix(speech, noise, 0.0)
    assert mixed.peak_scaled and mixed.gain < 1
    assert np.abs(mixed.noisy).max() <= 32767 / 32768
    assert mixing.rms_level(mixed.clean) - mixing.rms_level(mixed.noise) == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(mixed.clean, speech * mixed.gain, rtol=1e-5)


def test_silence_gives_no_nan(rng):
    sound, silence = rng.standard_normal(1000) * 0.1, np.zeros(1000)
    without_noise, without_speech = mixing.mix(sound, silence, 5.0), mixing.mix(silence, sound, 5.0)
    np.testing.assert_allclose(without_noise.noisy, sound, rtol=1e-6)
    np.testing.assert_allclose(without_speech.noisy, sound, rtol=1e-6)
    assert (without_noise.snr_db, without_speech.snr_db) == (math.inf, -math.inf)
    assert not mixing.mix(silence, silence, 5.0, level_db=-20.0).noisy.any()
    assert len(mixing.mix(silence[:0], silence[:0], 5.0).noisy) == 0


def test_what_is_below_the_level_of_silence_is_not_amplified(rng):
    sound, rounding = rng.standard_normal(1000) * 0.1, rng.integers(-1, 2, 1000) / 32768
    assert mixing.rms_level(rounding) < mixing.SILENCE_DB
    for speech, noise in ((sound, rounding), (rounding, sound)):
        mixed = mixing.mix(speech, noise, 5.0, level_db=-30.0)
        np.testing.assert_allclose(mixed.noisy, mixed.gain * (speech + noise), rtol=1e-4, atol=1e-7)
        assert mixed.snr_db == pytest.approx(mixing.rms_level(speech) - mixing.rms_level(noise))
        assert mixed.level_db == pytest.approx(-30, abs=0.01)
    np.testing.assert_allclose(mixing.mix(rounding, rounding, 5.0, level_db=-20.0).noisy, 2 * rounding, rtol=1e-6)
    room = np.array([1e-3])  # how loud a room is does not decide whether one speaks in it
    assert mixing.mix(sound, sound, 5.0, rir=room).snr_db == 5.0


def test_room_keeps_length_and_alignment_and_the_target_is_its_early_part(rng):
    speech = rng.standard_normal(8000) * 0.1
    rir = np.zeros(4000)
    rir[100], rir[100 + 400], rir[100 + 2400] = 1.0, 0.5, 0.25  # direct, 25 ms, 150 ms
    mixed = mixing.mix(speech, np.zeros(8000), 0.0, rir=rir)
    early = speech + 0.5 * np.concatenate([np.zeros(400), speech[:-400]])
    late = 0.25 * np.concatenate([np.zeros(2400), speech[:-2400]])
    np.testing.assert_allclose(mixed.clean, early * mixed.gain, atol=1e-6)
    np.testing.assert_allclose(mixed.noisy, (early + late) * mixed.gain, atol=1e-6)


def test_noise_is_looped_or_cut(rng):
    noise = rng.standard_normal(100)
    for place in (0.0, 0.5, 0.999999, 1 - 2**-53):
        start = mixing.noise_start(100, 30, place)
        assert 0 <= start <= 70
        np.testing.assert_array_equal(mixing.loop(noise, start, 30), noise[start : start + 30])
        start = mixing.noise_start(100, 250, place)
        np.testing.assert_array_equal(mixing.loop(noise, start, 250), np.tile(noise, 4)[start : start + 250])
    assert mixing.noise_start(0, 5, 0.5) == 0 and not mixing.loop(noise[:0], 0, 5).any()


def test_draws_are_stable_and_options_do_not_move_them():
    snr, level = Spread.parse("0:20", "--snr"), Spread.parse("-35:-15", "--level")
    plain = mixing.draw(rng(1, "utt", 3), 50, snr)
    full = mixing.draw(rng(1, "utt", 3), 50, snr, level, rirs=9)
    assert (plain.noise, plain.place, plain.snr_db) == (full.noise, full.place, full.snr_db)
    assert 0 <= full.rir < 9 and -35 <= full.level_db <= -15 and plain.level_db is None and plain.rir is None
    others = [mixing.draw(rng(*key), 50, snr) for key in [(2, "utt", 3), (1, "uttt", 3), (1, "utt", 4)]]
    assert plain not in others
    code = "from setk.core.rng import rng; print(rng(1, 'utt', 3).random(5).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other == f"{rng(1, 'utt', 3).random(5).tolist()}\n"


def test_choices_are_all_taken_and_nothing_else():
    spread = Spread.parse("0,5,-2.5", "--snr")
    assert {spread.at(u) for u in np.linspace(0, 1, 100, endpoint=False)} == {0, 5, -2.5}


@pytest.mark.parametrize("text", ["", "a", "1:2:3", "5:1", "1,,2", "nan", "0:inf", ":", "1e9", "-1e4:0"])
def test_bad_ranges_are_refused_by_name(text):
    with pytest.raises(UserError, match="--snr"):
        Spread.parse(text, "--snr")


def test_an_equaliser_is_smooth_bounded_and_has_no_phase():
    click = np.zeros(4096)
    click[2048] = 1
    y = mixing.equalise(click, rng(1, "a"), 12)
    gain = 20 * np.log10(np.abs(np.fft.rfft(y)))
    assert np.abs(gain).max() <= 12.001 and np.ptp(gain) > 1
    assert np.abs(np.diff(gain[64:])).max() < 1
    np.testing.assert_allclose(y[2048 - 500 : 2048], y[2049:2549][::-1], atol=1e-9)
    assert (y == mixing.equalise(click, rng(1, "a"), 12)).all()


def test_speed_moves_the_pitch():
    x = np.sin(2 * np.pi * 500 * np.arange(24000) / 16000)
    y = mixing.respeed(x, 16000)
    assert len(y) == 16000 and abs(np.abs(np.fft.rfft(y)).argmax() - 750) <= 1
    assert not mixing.respeed(np.zeros(0), 5).any()


def test_clipping_does_not_erase_what_is_short():
    x = np.zeros(32000)
    x[5000:5600] = np.linspace(-1, 1, 600)  # less than the part that is clipped
    y = mixing.clip(x, 0.05)
    assert 0.9 < np.abs(y).max() < 0.96 and np.array_equal(y, np.clip(x, y.min(), y.max()))
    assert not mixing.clip(np.zeros(100), 0.05).any()
