"""se-enhance --report: levels, SNR, noise reduction and speech activity."""

from __future__ import annotations

import csv
import io
import os

import numpy as np
import pytest

import setk
from conftest import MINI, ROOT
from setk import audio
from setk.audio import activity
from setk.data.lists import read_list


def table(text):
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_values_are_levels_and_ratios_of_the_signals(rng):
    rate = 8000
    speech, noise = (rng.standard_normal(rate // 2 + 37) for _ in range(2))
    x, y = 0.1 * speech + 0.03 * noise, 0.1 * speech
    frames = activity.analyze(x, y, rate)
    assert [f.time for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    for k, f in enumerate(frames):
        part = slice(k * 800, (k + 1) * 800)
        power = [float(np.mean(v[part].astype(np.float32).astype(float) ** 2)) for v in (x, y, x - y)]
        assert f.input_dbfs == pytest.approx(10 * np.log10(power[0]), abs=1e-3)
        assert f.snr_db == pytest.approx(10 * np.log10(power[1] / power[2]), abs=1e-2)
        assert f.reduction_db == pytest.approx(10 * np.log10(power[0] / power[1]), abs=1e-3)
        assert f.speech == 1 and f.speech_score > 0.99


def test_removed_noise_and_silence_are_no_speech_and_a_peak_is_forgotten():
    rate = 1000
    loud, quiet, silence = 0.5 * np.ones(rate), 0.5 * 10 ** (-40 / 20) * np.ones(20 * rate), np.zeros(rate)
    x = np.concatenate([silence, loud, quiet, loud])
    y = np.concatenate([silence, loud, quiet, 0.1 * loud])  # 20 dB removed: SNR -19 dB
    speech = np.array([f.speech for f in activity.analyze(x, y, rate)])
    assert not speech[:10].any() and speech[10:20].all()
    assert not speech[20:110].any() and speech[130:220].all()  # 40 dB below the peak, which falls by 1 dB per second
    assert not speech[220:].any()


def test_frames_do_not_depend_on_how_the_signal_was_cut(rng):
    x, y = (rng.standard_normal((2, 4321)).astype(np.float32) for _ in range(2))
    frames = []
    analysis = activity.Analysis(frames.append)
    analysis.start(audio.Info(4410, 2, None))
    cuts = np.sort(rng.integers(0, 4321, 11))
    for a, b in zip(np.split(x, cuts, axis=1), np.split(y, cuts, axis=1)):
        analysis.add(a, b)
    analysis.finish()
    assert frames == activity.analyze(x, y, 4410) and len(frames) == 10


def test_speech_activity_agrees_with_the_clean_signal():
    noisy, clean = read_list(ROOT / "data/pairs/noisy.scp"), read_list(ROOT / "data/pairs/clean.scp")
    model = setk.load("fspen")
    truth, found = [], []
    for utt in noisy:
        x, rate = audio.read_mono(str(ROOT / noisy[utt]))
        truth.append(activity.reference(audio.read_mono(str(ROOT / clean[utt]))[0], rate))
        found.append([f.speech for f in activity.analyze(x, model.enhance(x, rate), rate)])
    truth, found = np.concatenate(truth), np.concatenate(found).astype(bool)
    f1 = 2 * np.sum(truth & found) / (truth.sum() + found.sum())
    pauses = np.mean(~found[~truth])
    print(f"F1 {f1:.3f}, pauses found {pauses:.3f}, share of speech {truth.mean():.3f}")
    assert f1 > 2 * truth.mean() / (1 + truth.mean()) + 0.02  # better than to call everything speech
    assert f1 > 0.9 and pauses > 0.6


@pytest.mark.full
def test_the_report_of_a_file_a_pipe_and_standard_output(se, tmp_path):
    path = ROOT / next(iter(read_list(MINI / "test/noisy.scp").values()))
    done = se("enhance", "fspen", path, tmp_path / "y.wav", "--report", tmp_path / "r.tsv")
    assert done.returncode == 0, done.err
    x, rate = audio.read_mono(str(path))
    rows = table((tmp_path / "r.tsv").read_text())
    expected = activity.analyze(x, setk.load("fspen").enhance(x, rate), rate)
    assert list(rows[0]) == list(activity.Frame._fields) and len(rows) == len(expected)
    for row, frame in zip(rows, expected):
        assert np.abs(np.array([float(v) for v in row.values()]) - frame).max() < 0.051
    before = (tmp_path / "y.wav").read_bytes()
    done = se("enhance", "fspen", path, tmp_path / "y.wav", "--report", "-")
    assert done.out == (tmp_path / "r.tsv").read_text() and (tmp_path / "y.wav").read_bytes() == before
    done = se("enhance", "fspen", "-", "-", "--report", "-", input=path.read_bytes())
    assert done.returncode == 2 and "both be standard output" in done.err


def test_a_run_that_fails_leaves_no_report(se, tmp_path):
    done = se("enhance", "fspen", tmp_path / "no.wav", tmp_path / "y.wav", "--report", tmp_path / "r.tsv")
    assert done.returncode == 1 and os.listdir(tmp_path) == []
