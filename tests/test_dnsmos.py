"""DNSMOS against speechmos and librosa (skipped where they are not installed), and without a model."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from importlib import util

import numpy as np
import pytest
from test_metrics import CORPUS, pairs  # noqa: F401  (a fixture)

from conftest import MINI

from setk import metrics
from setk.core import files
from setk.core.errors import UserError
from setk.metrics import Extras, dnsmos

NAMES = ["dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808"]
installed = pytest.mark.skipif(
    not (util.find_spec("speechmos") and util.find_spec("onnxruntime")),
    reason="needs the models: pip install speechmos onnxruntime",
)


@installed
@pytest.mark.skipif(not util.find_spec("librosa"), reason="speechmos needs librosa: pip install librosa")
@pytest.mark.parametrize("seconds", [4.0, 10.5])
def test_equal_to_speechmos(pairs, seconds):
    """Four seconds become windows that repeat, 10.5 two that do not; test_windows has more."""
    theirs = pytest.importorskip("speechmos.dnsmos")
    est = np.concatenate([est for _, est, _ in pairs] * 2)[: round(seconds * 16000)]
    est = est / max(1, abs(est).max())
    expected = theirs.run(est, 16000)
    scores, reasons = metrics.compute(est, est, 16000, NAMES)
    assert not reasons
    assert scores == pytest.approx({name: expected[name.removeprefix("dnsmos_") + "_mos"] for name in NAMES}, abs=1e-4)


@installed
@pytest.mark.skipif(bool(CORPUS), reason="the figures are of data/mini")
def test_golden_figures(pairs):
    """Of speechmos 0.0.1.1 for data/mini's first test utterance, with the models that it brings."""
    scores, _ = metrics.compute(*pairs[0], NAMES)
    assert scores == pytest.approx(
        {"dnsmos_sig": 1.491863, "dnsmos_bak": 1.224909, "dnsmos_ovrl": 1.194686, "dnsmos_p808": 2.597021}, abs=1e-4
    )


@pytest.mark.parametrize(
    "seconds, times",
    [(3, [1] * 3), (4, [2, 2, 2, 1]), (9.01, [1]), (9, [1] * 7), (15, [1] * 6), (30, [1] * 7), (34, [1] * 8)],
)
def test_windows(rng, seconds, times):
    """Numbers of the DNS Challenge's script: of 30 s only windows up to 15.01 s are rated, of 34 s the 25th too."""
    found = dnsmos._windows(rng.standard_normal(round(seconds * 16000)))
    assert [count for _, count in found] == times
    assert all(len(window) == 144160 for window, _ in found)


def test_windows_are_those_of_the_doubled_signal(rng):
    x = rng.standard_normal(50_001)
    whole = x
    while len(whole) < 144160:
        whole = np.append(whole, whole)
    expected = [whole[i * 16000 : i * 16000 + 144160] for i in range(int(len(whole) // 16000 - 9.01) + 1)]
    found = [window for window, times in dnsmos._windows(x) for _ in range(times)]
    assert len(found) == len(expected) and all((a == b).all() for a, b in zip(found, expected, strict=True))


@pytest.mark.skipif(not util.find_spec("librosa"), reason="needs the reference: pip install librosa")
def test_mel_levels_are_librosa_s(rng):
    import librosa

    t = np.arange(144160) / 16000
    # librosa's filters are in single precision.
    for x in (rng.standard_normal(144160), np.sin(2 * np.pi * 1000 * t) * (t > 4), 1e-7 * rng.standard_normal(144160)):
        mel = librosa.feature.melspectrogram(y=x[:-160], sr=16000, n_fft=321, hop_length=160, n_mels=120)
        expected = (librosa.power_to_db(mel, ref=np.max) + 40) / 40
        assert dnsmos.mel_levels(x) == pytest.approx(expected.T, abs=1e-6)


def test_mel_levels_of_an_impulse():
    """Golden figures, from librosa 0.11."""
    x = np.zeros(144160)
    x[72000] = 1
    levels = dnsmos.mel_levels(x)
    assert levels.shape == (900, 120) and levels.max() == 1
    assert levels[450, [0, 40, 119]] == pytest.approx([0.18117651, 0.7551766, 0.92485872], abs=1e-8)
    assert (np.delete(levels, 450, axis=0) == -1).all()


@pytest.mark.full
@installed
def test_the_reference_does_not_matter_and_level_does(pairs):
    ref, est, rate = pairs[1]
    one = metrics.compute(ref, est, rate, ["dnsmos_p808"])[0]
    assert metrics.compute(np.zeros_like(ref), est, rate, ["dnsmos_p808"])[0] == one
    assert (
        metrics.compute(ref, 0.05 * est, rate, ["dnsmos_sig"])[0] != metrics.compute(ref, est, rate, ["dnsmos_sig"])[0]
    )


@installed
def test_a_named_file_is_used_and_told(pairs, tmp_path):
    bundled = dnsmos.model_file("dnsmos_p808", Extras())
    copy = tmp_path / "own.onnx"
    copy.write_bytes(bundled.read_bytes())
    extras = Extras(dnsmos_p808=str(copy))
    assert pickle.loads(pickle.dumps(extras)) == extras
    assert metrics.compute(*pairs[1], ["dnsmos_p808"], extras=extras) == metrics.compute(*pairs[1], ["dnsmos_p808"])
    assert dnsmos.identity(extras) == {
        model: files.sha256(dnsmos.model_file(model, extras)) for model in ("dnsmos_p835", "dnsmos_p808")
    }


@installed
def test_files_that_are_no_such_model(pairs, tmp_path, capfd):
    foreign = tmp_path / "foreign.onnx"
    foreign.write_text("not a model")
    with pytest.raises(UserError, match="foreign.onnx: onnxruntime cannot read it"):
        metrics.compute(*pairs[0], ["dnsmos_sig"], extras=Extras(dnsmos_p835=str(foreign)))
    other = str(dnsmos.model_file("dnsmos_p808", Extras()))
    with pytest.raises(UserError, match="not a DNSMOS model sig_bak_ovr.onnx"):
        metrics.compute(*pairs[0], ["dnsmos_sig"], extras=Extras(dnsmos_p835=other))
    assert capfd.readouterr() == ("", "")


@installed
def test_what_cannot_be_rated(pairs):
    ref, est, rate = pairs[0]
    for x, y, hz, reason in (
        (ref, 0 * est, rate, "estimate is silent"),
        (ref, est, 8000, "16000 Hz"),
        (ref[:4000], est[:4000], rate, "too short"),
    ):
        scores, reasons = metrics.compute(x, y, hz, NAMES)
        assert all(map(math.isnan, scores.values())) and all(reason in text for text in reasons.values()), reasons


def test_what_is_missing_is_told_with_the_mend(monkeypatch, rng):
    x = rng.standard_normal(16000)
    find = util.find_spec
    for absent, mend in (("onnxruntime", "pip install onnxruntime"), ("speechmos", "--dnsmos-p808-model FILE")):
        monkeypatch.setattr(
            util, "find_spec", lambda name: None if name == absent else find(name) or name == "onnxruntime"
        )
        assert mend in metrics.availability("dnsmos_p808")
        with pytest.raises(UserError, match="dnsmos_p808 needs"):
            metrics.select(["dnsmos_p808"])
        scores, reasons = metrics.compute(x, x, 16000, ["dnsmos_p808", "si_sdr"])
        assert math.isnan(scores["dnsmos_p808"]) and mend in reasons["dnsmos_p808"] and scores["si_sdr"] == 100
    monkeypatch.setattr(
        util, "find_spec", lambda name: None if name == "speechmos" else find(name) or name == "onnxruntime"
    )
    assert "not a file" in metrics.availability("dnsmos_sig", Extras(dnsmos_p835="/nowhere/x.onnx"))
    assert dnsmos.identity() == {}


@installed
def test_neither_speechmos_nor_librosa_is_imported():
    code = (
        "import sys, numpy as np\nfrom setk import metrics\nx = np.random.default_rng(0).standard_normal((2, 8000))\n"
        "scores, _ = metrics.compute(*x, 16000, ['dnsmos_p808'])\nassert scores['dnsmos_p808'] > 0\n"
        "bad = [m for m in ('speechmos', 'librosa', 'scipy', 'torch') if m in sys.modules]\nassert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.full
@installed
def test_a_file_alone_is_rated_without_a_reference(se, tmp_path):
    path = sorted((MINI / "test/noisy").glob("*.flac"))[0]
    alone = se("score", path, "--metrics", "dnsmos_ovrl,dnsmos_p808", "--html", tmp_path / "r.html")
    assert alone.returncode == 0, alone.err
    assert alone.out == se("score", path, path, "--metrics", "dnsmos_ovrl,dnsmos_p808").out
    assert "clean" not in (tmp_path / "r.html").read_text().split("<article")[1].split("</article>")[0]
    piped = se("score", "-", "--metrics", "dnsmos_ovrl", input=path.read_bytes())
    assert piped.returncode == 0 and piped.out.split()[-1] == alone.out.split()[-2]
    done = se("score", path, "--metrics", "dnsmos_ovrl,stoi")
    assert done.returncode == 2 and "se-score clean.wav enhanced.wav" in done.err
