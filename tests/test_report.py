"""The HTML report of se-score: what it holds, and that it works when a real browser is driven through it."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from setk import audio
from setk.audio import Location
from setk.core.errors import UserError
from setk.scoring import report

NAMES = ("pesq_wb", "si_sdr")
EVIL = "<script>alert(1)</script>", '"><img/src=x/onerror="alert(1)">'
VOID = {"meta", "img", "br", "input", "link"}


def summary_of(rows: list[dict], **more) -> dict:
    """What se-score --summary would write of `rows`, as far as the page depends on it."""
    metrics = {}
    for name in NAMES:
        values = [row["scores"][name] for row in rows if not math.isnan(row["scores"][name])]
        mean = sum(values) / len(values) if values else None
        metrics[name] = {"mean": mean, "low": mean and mean - 0.1, "high": mean and mean + 0.1, "scored": len(values)}
    failed = {row["utt"]: row["error"] for row in rows if row["error"]}
    return {
        "utterances": len(rows),
        "scored": len(rows) - len(failed),
        "failed": failed,
        "metrics": metrics,
        "interval": {"level": 0.95, "method": "percentile bootstrap", "resamples": 10_000, "seed": 1},
        "provenance": {"command": "se-score --html r.html", "git": None, "versions": {"numpy": "2.0"}},
        **more,
    }


def row(utt: str, pesq: float, sdr: float, error: str = "") -> dict:
    return {"utt": utt, "scores": dict(zip(NAMES, (pesq, sdr))), "error": error}


@pytest.fixture
def places(tmp_path):
    """(reference, enhanced, noisy) of one utterance: two tones of one second, and with noise."""
    rng = np.random.default_rng(1)
    clean = 0.2 * np.sin(np.arange(16000) * 0.2).astype(np.float32)
    for name, level in (("clean", 0), ("enhanced", 0.01), ("noisy", 0.1)):
        audio.write(tmp_path / f"{name}.wav", clean + level * rng.standard_normal(16000), 16000)
    return tuple(str(tmp_path / f"{name}.wav") for name in ("clean", "enhanced", "noisy"))


@pytest.fixture
def scored(places):
    """Rows and places of 250 utterances, of which two fail and two have ids that try to be HTML."""
    rows = [row(f"utt_{i:03d}", 1 + (i * 37 % 250) / 100, i / 10) for i in range(246)]
    rows += [row(utt, 1.5, -3.25) for utt in EVIL]
    rows += [
        row("broken_1", math.nan, math.nan, "lengths differ: <b>3</b> & 4"),
        row("broken_2", math.nan, 2, "pesq_wb: too short"),
    ]
    return rows, {r["utt"]: places for r in rows}


class Page(HTMLParser):
    """Elements of a page: (tag, attributes, text inside), in order; strict about nesting."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self._open: list[int] = []
        self.feed(path.read_text("utf-8"))
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data):
        for i in self._open:
            self.elements[i][2].append(data)

    def all(self, tag: str) -> list[tuple[dict, str]]:
        return [(attrs, "".join(words)) for name, attrs, words in self.elements if name == tag]


def write(path: Path, rows: list[dict], places: dict, **options) -> Page:
    report.write_report(path, rows, places, summary_of(rows), **options)
    return Page(path)


def test_the_page_tells_everything(tmp_path, scored):
    rows, places = scored
    groups = {"data/utt2snr": {"2.5": summary_of(rows)["metrics"], "5": summary_of(rows[-2:-1])["metrics"]}}
    report.write_report(tmp_path / "r.html", rows, places, summary_of(rows, groups=groups))
    page = Page(tmp_path / "r.html")
    text = page.all("body")[0][1]
    for told in (
        "250 utterances, 248 scored, 2 failed",
        "By utt2snr",
        "95% intervals",
        "se-score --html r.html",
        "Worst by pesq_wb",
    ):
        assert told in text
    rows_told = [words for _, words in page.all("tr")]
    assert len(rows_told) == 1 + 2 + 1 + 2 + 1 + 250
    assert any("broken_1" in words and "failed lengths differ: <b>3</b> & 4" in words for words in rows_told)
    assert len(page.all("svg")) == 2 and "248 scores from 1.000 to 3.490" in page.all("svg")[0][0]["aria-label"]
    cards = [words for _, words in page.all("article")]
    assert len(cards) == 10 and cards[0].startswith("utt_000") and "3.490" in cards[5]
    assert len(page.all("audio")) == 30


def test_sound_and_pictures_are_those_of_the_files(tmp_path, places):
    import matplotlib.image
    import soundfile

    page = write(tmp_path / "r.html", [row("a", 2, 3)], {"a": places})
    for (attrs, _), location in zip(page.all("audio"), reversed(places), strict=True):
        x, rate = soundfile.read(
            io.BytesIO(base64.b64decode(attrs["src"].removeprefix("data:audio/flac;base64,"))), dtype="int16"
        )
        expected, _ = soundfile.read(location, dtype="int16")
        assert rate == 16000 and np.array_equal(x, expected)
    noisy, enhanced, clean = (
        matplotlib.image.imread(io.BytesIO(base64.b64decode(attrs["src"].removeprefix("data:image/png;base64,"))))
        for attrs, _ in page.all("img")
    )
    assert noisy.shape == clean.shape == (128, 125, 4)
    loudest = clean[:, :, :3].sum(axis=(1, 2)).argmax()
    assert abs((128 - loudest) * 62.5 - 0.2 / (2 * math.pi) * 16000) < 100
    assert clean.mean() < enhanced.mean() < noisy.mean()


@pytest.mark.parametrize("rate, n", [(8000, 3), (44100, 44100), (96000, 96000), (16000, 400_000)])
def test_any_rate_and_length(tmp_path, rate, n):
    audio.write(tmp_path / "x.wav", 0.1 * np.random.default_rng(0).standard_normal(n), rate)
    where = str(tmp_path / "x.wav")
    page = write(tmp_path / "r.html", [row("a", 2, 3)], {"a": (where, where, None)})
    assert len(page.all("audio")) == 2
    assert ("the first 15 s" in page.all("article")[0][1]) == (n == 400_000)


def test_nothing_from_outside_is_taken_for_html(tmp_path, places):
    rows = [row(utt, 2, 3, f"si_sdr: {utt}") for utt in EVIL] + [row("bad", math.nan, math.nan, EVIL[1])]
    record = summary_of(
        rows,
        groups={EVIL[1]: {EVIL[0]: summary_of(rows)["metrics"]}},
        provenance={"command": EVIL[0], EVIL[1]: {EVIL[0]: 1}},
    )
    where = {rows[0]["utt"]: places, rows[1]["utt"]: (*EVIL, "no\udcffutf8.wav")}
    report.write_report(tmp_path / "r.html", rows, where, record)
    page = Page(tmp_path / "r.html")
    assert len(page.all("script")) == 1 and all(attrs["src"].startswith("data:") for attrs, _ in page.all("img"))
    assert not [name for _, attrs, _ in page.elements for name in attrs if name.startswith("on")]
    assert EVIL[0] in page.all("article")[0][1]


def test_the_page_asks_for_nothing_outside(tmp_path, scored):
    page = write(tmp_path / "r.html", *scored)
    for _, attrs, _ in page.elements:
        assert all(attrs[name].startswith(("data:", "#")) for name in ("src", "href") if name in attrs)
    assert "default-src 'none'" in (tmp_path / "r.html").read_text()


def test_the_same_input_gives_the_same_bytes(tmp_path, scored):
    for name in "ab":
        report.write_report(tmp_path / name, *scored, summary_of(scored[0]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_cannot_be_read_any_more_is_told(tmp_path, places):
    (tmp_path / "torn.wav").write_bytes(Path(places[0]).read_bytes()[:2000])
    (tmp_path / "none.wav").write_bytes(audio.wav_header(16000, 1, 0))
    audio.write(tmp_path / "two.wav", np.zeros((2, 100)), 16000)
    odd = {
        "gone.wav": "no such file",
        "-": "-: is not a file",
        "/dev/null": "a second time",
        str(tmp_path): f"{tmp_path}: is not a file",
        str(tmp_path / "torn.wav"): "truncated",
        str(tmp_path / "two.wav"): "2 channels",
        str(tmp_path / "none.wav"): "no samples",
        f"cat {places[1]} |": "shell command",
    }
    rows = [row(f"u{i}", i, i) for i in range(len(odd))]
    page = write(
        tmp_path / "r.html", rows, {r["utt"]: (places[0], where, None) for r, where in zip(rows, odd)}, worst=9, best=0
    )
    told = [words for attrs, words in page.all("figure") if attrs.get("class") == "gone"]
    assert len(told) == len(odd) and all(any(reason in words for words in told) for reason in odd.values())
    assert len(page.all("audio")) == len(odd)
    page = write(
        tmp_path / "r.html",
        rows[-1:],
        {"u7": (places[0], Location.parse(f"cat {places[1]} |", allow_commands=True), None)},
    )
    assert len(page.all("audio")) == 2


def test_few_or_no_scores(tmp_path, places):
    page = write(
        tmp_path / "r.html",
        [row("a", 2, math.inf), row("b", 2, -math.inf), row("c", 1, 5)],
        dict.fromkeys("abc", places),
    )
    assert [words[0] for _, words in page.all("article")] == ["c", "a", "b"]
    page = write(tmp_path / "r.html", [row("a", math.nan, math.nan, "silent")], {})
    assert not page.all("article") and "No utterance has a score" in page.all("body")[0][1]
    page = write(tmp_path / "r.html", [], {})
    assert "0 utterances" in page.all("body")[0][1]


def test_the_metric_that_orders(tmp_path, scored):
    page = write(tmp_path / "r.html", *scored, by="si_sdr", worst=1, best=1)
    assert [re.match(r"<script|utt_\d+", words)[0] for _, words in page.all("article")] == ["<script", "utt_245"]
    with pytest.raises(UserError, match="'stoi' is not in the table"):
        write(tmp_path / "r.html", *scored, by="stoi")


def first_cells(browser, column: int) -> list[str]:
    return browser.run(
        f"return [...document.querySelectorAll('#scores tbody tr')].map(row => row.cells[{column}].textContent)"
    )


@pytest.mark.full
def test_clicked_through_in_chromium(tmp_path, scored, browser):
    write(tmp_path / "r.html", *scored)
    browser.open(tmp_path / "r.html")
    assert browser.run("return document.title") == "Enhancement scores"
    assert browser.run("return document.getElementById('shown').textContent") == "1–100 of 250"
    assert browser.run("return getComputedStyle(document.querySelector('h1')).fontWeight") == "700"
    before = first_cells(browser, 0)
    assert len(before) == 100 and before[0] == "utt_000"

    browser.click("#scores th:nth-child(3) button")
    assert browser.run("return document.querySelector('#scores th:nth-child(3)').ariaSort") == "ascending"
    assert first_cells(browser, 2)[:3] == ["−3.250", "−3.250", "0.000"] and first_cells(browser, 0)[0] == EVIL[0]
    browser.type("#scores th:nth-child(3) button", "\ue007")  # Enter, as from the keyboard
    assert browser.run("return document.querySelectorAll('#scores th[aria-sort]').length") == 1
    assert browser.run("return document.querySelector('#scores th:nth-child(3)').ariaSort") == "descending"
    assert first_cells(browser, 2)[:2] == ["24.500", "24.400"]
    browser.click("#next")
    browser.click("#next")
    assert browser.run("return document.getElementById('shown').textContent") == "201–250 of 250"
    assert first_cells(browser, 2)[-1] == "–"

    browser.type("#filter", "Broken_")
    assert first_cells(browser, 0) == ["broken_2", "broken_1"]
    browser.type("#filter", "1 lengths")
    assert first_cells(browser, 0) == ["broken_1"]
    browser.type("#filter", " nowhere")
    assert (
        first_cells(browser, 0) == []
        and browser.run("return document.getElementById('shown').textContent") == "none matches"
    )

    seconds = browser.wait(
        "const sound = document.querySelector('audio'); sound.onloadedmetadata = () => done(sound.duration);"
        "sound.onerror = () => done(sound.error.message); sound.load()"
    )
    assert seconds == pytest.approx(1.0, abs=0.01)
    assert browser.run("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.complaints() == []
    for scheme in ("light", "dark"):
        browser.screenshot(tmp_path / f"{scheme}.png", scheme)
        assert (tmp_path / f"{scheme}.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "light.png").read_bytes() != (tmp_path / "dark.png").read_bytes()


@pytest.mark.full
def test_of_ten_thousand_utterances_the_page_draws_a_hundred(tmp_path, places, browser):
    rows = [row(f"utt_{i:05d}", 1 + i % 350 / 100, i / 1000) for i in range(10_000)]
    write(tmp_path / "r.html", rows, dict.fromkeys((r["utt"] for r in rows), places))
    assert (tmp_path / "r.html").stat().st_size < 5e6
    browser.open(tmp_path / "r.html")
    browser.click("#scores th:nth-child(2) button")
    assert len(first_cells(browser, 0)) == 100
    # What makes a page slow is how much of it there is: a sorted table draws no more than its first page.
    assert browser.run("return document.getElementsByTagName('*').length") < 5000
    assert browser.complaints() == []
