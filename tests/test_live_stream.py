"""The resampler and the live stream of the plugin and the page, against se-enhance."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import MINI
from live_stream import LiveStream

import setk
from setk import audio
from setk.audio.resample import resample
from setk.native import kernels
from setk.native.translate import translate
from setk.pretrained import included

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="setk's kernels were not built: no C compiler")
FSPEN = included(".onnx")["fspen"]


def snr(reference: np.ndarray, x: np.ndarray) -> float:
    return 10 * np.log10(np.sum(reference**2, dtype=float) / max(np.sum((x - reference) ** 2, dtype=float), 1e-30))


def stream_at(rate: int) -> LiveStream:
    translated = translate(FSPEN)
    return LiveStream(translated.program, translated.transform.hop, translated.delay, rate, 16000)


def noisy_at(rate: int, seconds: float = 3.0) -> np.ndarray:
    """Noisy speech, with noise above its band."""
    x, own = audio.read_mono(str(MINI / "test/noisy/mona_0001.flac"))
    x = resample(x[: int(own * seconds)], own, rate)
    return x + (0.003 * np.random.default_rng(1).standard_normal(len(x))).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 47999, 96000, 192000])
def test_a_live_stream_is_se_enhance_at_any_rate(rate):
    x = noisy_at(rate)
    wet, dry = stream_at(rate).run(x)
    # At the end se-enhance goes on with silence at the model's rate, and a stream at its own.
    n = len(x) - rate // 5
    assert snr(setk.load("fspen").enhance(x, rate)[:n], wet[:n]) > 80
    assert np.array_equal(dry, x)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 47999, 192000])
def test_blocks_of_any_size_make_the_same_samples(rate):
    """A queue that ran empty in some block would put silence between samples."""
    x = noisy_at(rate, 0.7)
    expected, _ = stream_at(rate).run(x)
    for seed in range(3):
        assert np.array_equal(expected, stream_at(rate).run(x, np.random.default_rng(seed))[0])


def test_what_is_not_a_number_is_gone_after_a_while():
    x = noisy_at(48000, 2.0)
    clean, _ = stream_at(48000).run(x)
    x[9600:9700] = np.nan
    x[10000] = np.inf
    wet, dry = stream_at(48000).run(x)
    assert np.isfinite(wet).all() and np.isfinite(dry).all() and np.array_equal(wet[:7000], clean[:7000])
