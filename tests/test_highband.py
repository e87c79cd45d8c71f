"""--highband: the band above the model's in recordings of a higher rate."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import MINI, ROOT

import setk
from setk import audio
from setk.audio.stft import STFT
from setk.data.lists import read_list
from setk.engines import open_stream
from setk.engines.output import Output

RATE = 48000


class Scaled:
    """An engine that multiplies its frames by a number."""

    name, sha256, sample_rate, lookahead, frames, causal, chunk_s = "scaled", "", 16000, 0, None, True, 1.0
    transform = STFT(512, 256)

    def __init__(self, gain):
        self.gain = np.float32(gain)

    def start(self, channels):
        return None

    def run(self, frames, state, active=None):
        return frames * self.gain, state


def enhanced(engine, x, rate=RATE, highband="gain", cuts=(), seconds=1.0, limit_db=None):
    stream = open_stream(engine, rate, len(x), seconds, Output(limit_db, highband))
    return np.concatenate([*map(stream.push, np.split(x, cuts, axis=1)), stream.flush()], axis=1)


def wide_band(x):
    """16-kHz audio [n] at 48 kHz, with its band of 4 to 8 kHz mirrored to 8 to 12 kHz at half the level."""
    low = audio.resample(x, 16000, RATE)
    image = np.zeros(len(low))
    image[::3] = 3 * x
    spectrum, f = np.fft.rfft(image), np.fft.rfftfreq(len(image), 1 / RATE)
    spectrum[(f < 8200) | (f > 12000)] = 0
    return (low + 0.5 * np.fft.irfft(spectrum, len(image))).astype(np.float32)


def band_db(x, low, high):
    spectrum, f = np.abs(np.fft.rfft(x)) ** 2, np.fft.rfftfreq(len(x), 1 / RATE)
    return 10 * np.log10(spectrum[(f >= low) & (f < high)].sum() + 1e-12)


@pytest.mark.parametrize("rate, channels", [(48000, 1), (44100, 2), (22050, 1)])
def test_what_the_model_passes_comes_out_complete_and_aligned(rng, rate, channels):
    x = (0.1 * rng.standard_normal((channels, rate))).astype(np.float32)
    y = enhanced(Scaled(1), x, rate, cuts=np.sort(rng.integers(0, rate, 9)), seconds=0)
    assert y.shape == x.shape
    middle = slice(rate // 20, -rate // 20)
    error = 10 * np.log10(np.mean((y - x)[:, middle] ** 2) / np.mean(x[:, middle] ** 2))
    assert error < -80, error


def test_the_upper_band_falls_with_the_models_top_bands(rng):
    x = (0.1 * rng.standard_normal((1, RATE))).astype(np.float32)
    for gain_db in (-60, -30, -12):
        y = enhanced(Scaled(10 ** (gain_db / 20)), x)[0, 4800:]
        change = band_db(y, 9000, 23000) - band_db(x[0, 4800:], 9000, 23000)
        assert change == pytest.approx(gain_db + 6, abs=0.5)


def test_the_output_does_not_depend_on_how_the_input_was_cut(rng):
    x = (0.1 * rng.standard_normal((2, RATE))).astype(np.float32) * np.linspace(0, 1, RATE, dtype=np.float32)
    model = setk.load("fspen").engine
    whole = enhanced(model, x)
    for seconds in (0, 0.37):
        y = enhanced(model, x, cuts=np.sort(rng.integers(0, RATE, 20)), seconds=seconds)
        assert y.shape == whole.shape and np.abs(y - whole).max() < 1e-4


def test_clean_speech_keeps_its_upper_band_and_noise_falls_with_the_rest():
    noisy, clean = read_list(MINI / "test/noisy.scp"), read_list(MINI / "test/clean.scp")
    model = setk.load("fspen").engine
    kept, upper, lower = [], [], []
    # The synthetic voices whose clean speech the model leaves as it is; of the others it removes some, and the upper band follows.
    for utt in (utt for utt in noisy if utt.startswith(("mona", "opal"))):
        c, n = (audio.read_mono(str(ROOT / paths[utt]))[0] for paths in (clean, noisy))
        speech, noise = wide_band(c), wide_band(n - c)
        y = enhanced(model, speech[None])[0]
        kept.append(band_db(y, 8200, 24000) - band_db(speech, 8200, 24000))
        y = enhanced(model, noise[None])[0]
        upper.append(band_db(y, 8200, 24000) - band_db(noise, 8200, 24000))
        lower.append(band_db(y, 0, 8000) - band_db(noise, 0, 8000))
    print("speech", np.round(kept, 2), "noise", np.round(upper, 1), np.round(lower, 1))
    assert abs(np.mean(kept)) < 1 and np.mean(upper) < -10 and np.mean(upper) < np.mean(lower) + 10


def test_without_a_higher_rate_and_with_a_limit(rng):
    x = (0.1 * rng.standard_normal((1, 16000))).astype(np.float32)
    model = setk.load("fspen")
    assert np.array_equal(model.enhance(x, 16000, highband="gain"), model.enhance(x, 16000))
    plain, limited = (enhanced(model.engine, x, limit_db=db) for db in (None, 10.0))
    gain = 10 ** (-10 / 20)
    assert np.abs(limited - ((1 - gain) * plain + gain * x)).max() < 1e-5


def test_a_lost_upper_band_is_reported(se, untrained, tmp_path):
    x = wide_band(np.random.default_rng(1).standard_normal(8000).astype(np.float32) * 0.1)
    audio.write(tmp_path / "x.wav", x, RATE)
    done = se("enhance", untrained, tmp_path / "x.wav", tmp_path / "none.wav")
    assert done.returncode == 0 and "nothing above 8000 Hz" in done.err and "--highband gain" in done.err
    done = se("enhance", untrained, tmp_path / "x.wav", tmp_path / "gain.wav", "--highband", "gain")
    assert done.returncode == 0 and "nothing above" not in done.err
    assert np.abs(audio.read(str(tmp_path / "gain.wav"))[0] - audio.read(str(tmp_path / "none.wav"))[0]).max() > 0.01
    audio.write(tmp_path / "x.wav", x[::3], 16000)
    assert "nothing above" not in se("enhance", untrained, tmp_path / "x.wav", tmp_path / "y.wav").err
    done = se("enhance", untrained, tmp_path / "x.wav", tmp_path / "y.wav", "--highband", "copy")
    assert done.returncode == 2 and "choose none or gain" in done.err


@pytest.mark.full
@pytest.mark.parametrize("options", [[], ["--jobs", "2"], ["--batch", "2"]])
def test_a_list_reports_how_many_outputs_lost_their_upper_band(se, untrained, rng, tmp_path, options):
    for name, rate in (("a", 48000), ("b", 16000), ("c", 44100)):
        audio.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(rate // 2), rate)
    (tmp_path / "list.scp").write_text("".join(f"{name} {tmp_path}/{name}.wav\n" for name in "abc"))
    run = ["enhance", untrained, "--list", tmp_path / "list.scp", *options]
    done = se(*run, "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "2 of 3 outputs have nothing above 8000 Hz; --highband gain keeps" in done.err
    assert "nothing above" not in se(*run, "--out", tmp_path / "kept", "--highband", "gain").err
