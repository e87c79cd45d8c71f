"""One HTML page of a recording before and after its enhancement: to look at and to compare by ear, without a reference."""

from __future__ import annotations

import os
from typing import Any, Mapping, Sequence

import numpy as np

from setk import audio, metrics
from setk.audio.activity import Analysis, Frame
from setk.audio.wav import Info
from setk.core.files import write_text
from setk.scoring.report import media, number, page, text

_WIDTH, _HEIGHT, _TOP_DB = 960, 120, 40
DNSMOS = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak")


class Recorder:
    """Keeps the first seconds of input and output of an enhancement: start(info), add(x, y), then write(path, ...)."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._analysis = Analysis(self._frames.append)
        self._parts: list[np.ndarray] = []
        self._kept = self._seen = 0

    def start(self, info: Info) -> None:
        self._info = info
        self._analysis.start(info)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        missing = media.SECONDS * self._info.rate - self._kept
        if missing > 0 and x.shape[1]:
            self._parts.append(np.stack([x[0, :missing], y[0, :missing]]))
            self._kept += self._parts[-1].shape[1]
            self._analysis.add(x[:, :missing], y[:, :missing])
        self._seen += x.shape[1]

    def write(self, path: str | os.PathLike, facts: Mapping[str, Any]) -> None:
        """Write the page, atomically. `facts`: what is shown about the run, {name: value}."""
        self._analysis.finish()
        rate = self._info.rate
        signals = np.concatenate(self._parts, axis=1) if self._parts else np.zeros((2, 0), np.float32)
        clips = [
            media.from_samples(role, str(name), x, rate, self._seen > self._kept)
            for role, name, x in zip(("input", "output"), (facts["input"], facts["output"]), signals)
        ]
        pictures = list(media.spectrograms(clips))
        write_text(
            path,
            page(
                "recording.html",
                "recording.js",
                title=text(facts["input"]),
                seconds=f"{clips[0].seconds:.1f}",
                cut=f"The page has the first {media.SECONDS} s." if clips[0].cut else "",
                khz=f"{pictures[0].khz:g}",
                picture_input=pictures[0].uri,
                picture_output=pictures[1].uri,
                sound_input=media.sound_uri(clips[0]),
                sound_output=media.sound_uri(clips[1]),
                curve=reduction_curve(self._frames),
                mean=mean_reduction(self._frames),
                scores=_scores(signals, rate),
                facts="".join(
                    f"<dt>{text(name)}</dt><dd><code>{text(value)}</code></dd>" for name, value in facts.items()
                ),
            ),
        )


def mean_reduction(frames: Sequence[Frame]) -> str:
    """Noise reduction in dB, by power, of the frames without and with speech, as words."""
    words = []
    for speech, name in ((0, "without speech"), (1, "with speech")):
        own = [f for f in frames if f.speech == speech]
        if own:
            before = sum(10 ** (f.input_dbfs / 10) for f in own)
            after = sum(10 ** ((f.input_dbfs - f.reduction_db) / 10) for f in own)
            words.append(f"{10 * np.log10(before / after):.1f} dB in the {len(own) * 0.1:.1f} s {name}")
    return "; ".join(words) or "no audio"


def reduction_curve(frames: Sequence[Frame]) -> str:
    """SVG of the noise reduction over time, from 0 to 40 dB, with the frames that have speech shaded."""
    step = _WIDTH / max(1, len(frames))
    shades = "".join(
        f'<rect x="{i * step:.1f}" y="0" width="{step:.1f}" height="{_HEIGHT}"/>'
        for i, f in enumerate(frames)
        if f.speech
    )
    heights = [_HEIGHT * (1 - min(_TOP_DB, max(0.0, f.reduction_db)) / _TOP_DB) for f in frames]
    line = "".join(f"{'M' if i == 0 else 'L'}{(i + 0.5) * step:.1f} {y:.1f}" for i, y in enumerate(heights))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Noise reduction over time; shaded: speech">{shades}<path d="M0 {_HEIGHT}H{_WIDTH}"/>'
        f'<path class="mean" d="{line or "M0 0"}"/></svg>'
    )


def _scores(signals: np.ndarray, rate: int) -> str:
    """DNSMOS before and after, where its model is installed."""
    names = [name for name in DNSMOS if metrics.availability(name) is None]
    if not names:
        return '<p class="note">DNSMOS is not shown: its model is not installed (pip install speechmos).</p>'
    at_16k = [audio.resample(x, rate, 16000) for x in signals]
    before, after = (metrics.compute(x, x, 16000, names)[0] for x in at_16k)
    rows = "".join(
        f'<tr><th scope="row">{text(metrics.METRICS[name].meaning)}</th><td class="num">{number(before[name])}</td>'
        f'<td class="num main">{number(after[name])}</td></tr>'
        for name in names
    )
    return (
        '<div class="wide"><table><thead><tr><th scope="col">of the audio on this page</th><th scope="col" class="num">before</th>'
        f'<th scope="col" class="num">after</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )
