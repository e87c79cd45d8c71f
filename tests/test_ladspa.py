"""se-quant export --for ladspa: the plugin against se-enhance, through real hosts where these are installed."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
import pytest
from conftest import COMMANDS, MINI

import setk
from setk import audio
from setk.audio.resample import resample
from setk.engines.compiled import compiler
from setk.export.ladspa.host import Plugin

pytestmark = [pytest.mark.full, pytest.mark.skipif(compiler() is None, reason="no C compiler")]


def needs(program: str, package: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed (Debian: apt-get install {package})")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("ladspa") / "fspen_ladspa.so"
    done = COMMANDS("quant", "export", "fspen", path, "--for", "ladspa")
    assert done.returncode == 0 and "SNR 1" in done.err, done.err
    return path


@pytest.fixture(scope="module")
def noisy():
    """Two channels at 48 kHz, [2, n], with noise above the model's band, at levels that 16 bits hold without loss."""
    channels = []
    for name in ("mona_0001", "mona_0002"):
        x, rate = audio.read_mono(str(MINI / f"test/noisy/{name}.flac"))
        channels.append(resample(x[: int(1.8 * rate)], rate, 48000))
    n = min(map(len, channels))
    x = np.stack([c[:n] for c in channels])
    x += (0.003 * np.random.default_rng(1).standard_normal(x.shape)).astype(np.float32)
    return (np.round(x * 32768) / 32768).astype(np.float32)


def enhanced(x: np.ndarray, rate: int = 48000, **options) -> np.ndarray:
    return setk.load("fspen").enhance(x, rate, **options)


def snr(reference: np.ndarray, x: np.ndarray, rate: int = 48000) -> float:
    """In dB, without the last 0.2 s: there se-enhance goes on with silence at the model's rate, and a plugin at its own."""
    n = reference.shape[-1] - rate // 5
    error = (x - reference)[..., :n]
    return float(
        10 * np.log10(np.sum(reference[..., :n] ** 2, dtype=float) / max(np.sum(error**2, dtype=float), 1e-30))
    )


def written(path, x: np.ndarray, rate: int = 48000):
    audio.write(path, x, rate, "FLOAT")
    return path


@pytest.mark.parametrize(("rate", "least"), [(16000, 100), (44100, 55), (48000, 65)])
def test_mono_and_stereo_are_se_enhance(library, noisy, rate, least):
    x = resample(noisy, 48000, rate)
    expected = enhanced(x, rate)
    assert snr(expected, Plugin(library, "fspen_stereo").run(x, rate), rate) > least
    assert snr(expected[1:], Plugin(library, "fspen").run(x[1:], rate, block=333), rate) > least


def test_the_control_is_the_limit_of_se_enhance(library, noisy):
    plugin = Plugin(library, "fspen")
    assert snr(enhanced(noisy[:1], limit_db=12.0), plugin.run(noisy[:1], 48000, limit_db=12.0)) > 65
    assert np.array_equal(plugin.run(noisy[:1], 48000, limit_db=0.0), noisy[:1])


def test_what_is_not_a_number_does_not_stay(library, noisy):
    x = noisy[:1].copy()
    x[0, 5000:5100] = np.nan
    for limit in (60.0, 6.0):
        assert np.isfinite(Plugin(library, "fspen").run(x, 48000, limit_db=limit)).all()


def test_a_rate_that_cannot_be_is_refused(library, noisy):
    with pytest.raises(ValueError, match="does not run at 7 Hz"):
        Plugin(library, "fspen").run(noisy[:1], 7)


def test_analyseplugin_reads_both(library):
    needs("analyseplugin", "ladspa-sdk")
    text = subprocess.run(["analyseplugin", library], capture_output=True, text=True, check=True).stdout
    assert 'Plugin Label: "fspen"' in text and 'Plugin Label: "fspen_stereo"' in text
    assert text.count('"Limit (dB)" input, control, 0 to 60, default 60') == 2
    assert text.count('"latency" output, control') == 2


def aligned(found: np.ndarray, late: int, n: int) -> np.ndarray:
    return np.pad(found[:, late:], ((0, 0), (0, n)))[:, :n]


def test_applyplugin(library, noisy, tmp_path):
    needs("applyplugin", "ladspa-sdk")
    audio.write(tmp_path / "in.wav", noisy, 48000)
    out = tmp_path / "out.wav"
    done = subprocess.run(
        ["applyplugin", "-s", "0.2", tmp_path / "in.wav", out, library, "fspen_stereo", "60"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found, rate = audio.read(str(out))
    assert rate == 48000
    # 16 bits: the rounding of the file is the larger part of the difference.
    assert snr(enhanced(noisy), aligned(found, 2211, noisy.shape[1])) > 45


@pytest.mark.parametrize("options", ["", ":c=c0=12"])
def test_ffmpeg(library, noisy, tmp_path, options):
    """Two channels through the mono plugin: ffmpeg runs two of them. `latency` lets it take out the delay."""
    needs("ffmpeg", "ffmpeg")
    x, out = written(tmp_path / "noisy48k.wav", noisy), tmp_path / "out.wav"
    environment = {**os.environ, "LADSPA_PATH": str(library.parent)}
    filters = f"ladspa=file=fspen_ladspa:plugin=fspen:latency=1{options}"
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", x, "-af", filters, "-c:a", "pcm_f32le", out],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found, rate = audio.read(str(out))
    expected = enhanced(noisy, limit_db=12.0 if options else None)
    assert rate == 48000
    assert snr(expected, aligned(found, 0, noisy.shape[1])) > 60


def test_sox(library, noisy, tmp_path):
    needs("sox", "sox")
    x, out = written(tmp_path / "in.wav", noisy[:1]), tmp_path / "out.wav"
    environment = {**os.environ, "LADSPA_PATH": str(library.parent)}
    done = subprocess.run(
        ["sox", x, "-e", "float", "-b", "32", out, "ladspa", "-l", "fspen_ladspa", "fspen", "60"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found, _ = audio.read(str(out))
    assert snr(enhanced(noisy[:1]), aligned(found, 0, noisy.shape[1])) > 60


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fspen", "x.c"], "the name must end in .so for ladspa"),
        (["fspen", "x.so", "--batch", "2"], "remove --frames and --batch"),
        (["conv_tasnet-small", "x.so"], "not causal"),
    ],
)
def test_what_cannot_be_a_plugin_is_refused(se, tmp_path, args, words):
    done = se("quant", "export", args[0], tmp_path / args[1], "--for", "ladspa", *args[2:])
    assert done.returncode == 2 and words in done.err and not list(tmp_path.iterdir())


def test_a_library_without_a_runtime_is_refused_with_the_option_for_plugins(se, tmp_path):
    done = se("quant", "export", "fspen", tmp_path / "x.so")
    assert done.returncode == 2 and "--for ladspa" in done.err and not list(tmp_path.iterdir())


def test_a_plugin_is_no_model_and_named_as_what_it_is(library, se, tmp_path):
    audio.write(tmp_path / "in.wav", np.zeros((1, 1600)), 16000)
    done = se("enhance", library, tmp_path / "in.wav", tmp_path / "out.wav", "--trust")
    assert done.returncode == 2 and "is a LADSPA plugin" in done.err and done.err.count("\n") == 1


def test_the_compiler_may_have_arguments(monkeypatch):
    monkeypatch.setenv("CC", "cc -O1 '-DNAME=two words'")
    assert compiler() == [shutil.which("cc"), "-O1", "-DNAME=two words"]


def test_without_a_compiler_the_error_names_one(se, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    done = se("quant", "export", "fspen", tmp_path / "x.so", "--for", "ladspa")
    assert done.returncode == 2 and "needs a C compiler; install one (Debian: apt-get install gcc)" in done.err
    assert not list(tmp_path.iterdir())
