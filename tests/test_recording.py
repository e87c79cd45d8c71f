"""se-enhance --html: a page to compare a recording before and after."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import soundfile
from conftest import MINI

from setk import audio
from setk.audio.activity import Frame
from setk.scoring.report import media, recording

pytestmark = pytest.mark.full

NOISY = sorted((MINI / "test/noisy").glob("*.flac"))[0]


@pytest.fixture(scope="module")
def page(se, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    done = se("enhance", "fspen", NOISY, folder / "out.wav", "--html", folder / "look.html")
    assert done.returncode == 0, done.err
    return folder / "look.html"


def sounds(text):
    return [
        soundfile.read(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:audio/flac;base64,([^"]+)"', text)
    ]


def test_the_page_holds_both_signals_sample_by_sample(page):
    (before, rate), (after, _) = sounds(page.read_text())
    x, found = audio.read_mono(str(NOISY))
    assert rate == found and np.array_equal(before.astype(np.float32), x)
    assert np.array_equal(after.astype(np.float32), audio.read_mono(str(page.with_name("out.wav")))[0])


def test_the_page_needs_nothing_else_and_is_reproducible(page, se, tmp_path):
    text = page.read_text()
    assert (
        "default-src 'none'" in text
        and not re.search(r"(?:src|href)=\"(?!data:)", text)
        and "$" not in re.sub(r"<script>.*</script>", "", text, flags=re.S)
    )
    assert len(re.findall(r'src="data:image/png', text)) == 2
    again = page.with_name("again.html")
    done = se("enhance", "fspen", NOISY, page.with_name("out.wav"), "--html", again)
    assert done.returncode == 0 and again.read_text().replace("again.html", "look.html") == text


def test_long_stereo_recordings_are_cut_to_one_channel(se, tmp_path):
    x = (0.1 * np.random.default_rng(0).standard_normal((2, 8000 * (media.SECONDS + 1)))).astype(np.float32)
    audio.write(tmp_path / "x.wav", x, 8000)
    done = se("enhance", "fspen", tmp_path / "x.wav", tmp_path / "y.wav", "--html", tmp_path / "l.html")
    assert done.returncode == 0, done.err
    text = (tmp_path / "l.html").read_text()
    (before, rate), _ = sounds(text)
    assert len(before) == media.SECONDS * rate and f"first {media.SECONDS} s" in text
    assert np.array_equal(before.astype(np.float32), audio.read(str(tmp_path / "x.wav"))[0][0, : len(before)])


def test_the_curve_and_its_mean():
    frames = [Frame(0.0, -20, 0, 0, 1, 1), Frame(0.1, -20, 0, 20, 0, 0), Frame(0.2, -20, 0, 60, 0, 0)]
    curve = recording.reduction_curve(frames)
    assert curve.count("<rect") == 1 and "M160.0 120.0L480.0 60.0L800.0 0.0" in curve
    assert recording.mean_reduction(frames) == "23.0 dB in the 0.2 s without speech; 0.0 dB in the 0.1 s with speech"
    assert recording.mean_reduction([]) == "no audio" and "M0 0" in recording.reduction_curve([])


def test_switched_in_chromium(page, browser):
    browser.open(page)
    assert browser.run("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert not browser.run("return document.getElementById('player').hidden")
    browser.click("#after")
    pressed = "return ['before', 'after'].map(id => document.getElementById(id).getAttribute('aria-pressed'))"
    assert browser.run(pressed) == ["false", "true"]
    browser.click("#play")
    moved = "const t = setInterval(() => { if (document.getElementById('position').value > 0) { clearInterval(t); done(true); } }, 20);"
    assert browser.wait(moved)
    browser.type("body", "b")
    assert browser.run(pressed) == ["true", "false"]
    assert browser.complaints() == []
