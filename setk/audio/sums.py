"""A location that is a sum of audio files, made as it is read: a corpus of mixtures then takes no disk.

    sum:{"length": 73840, "rate": 16000, "parts": [{"path": "/LibriSpeech/a.flac", "gain": 0.78754},
                                                   {"path": "/wham/n.wav", "gain": 1.79905, "reach": 90160}]}

on one line, in a wav list like any path. A part is the first channel of a file: played at `speed`, brought to
`reach` samples (cut, or repeated with a cross-fade), times `gain`, brought to `rate`, then cut or padded with zeros
to `length`. These are the steps by which LibriMix makes its files, in its order.

The functions take what reads audio as arguments, since `audio` itself comes here with such a location.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Callable

import numpy as np

from setk.core.errors import AudioError

PREFIX = "sum:"
_FADE = 8001  # LibriMix: the rising half of a Hann window of 1 s at 16 kHz
_LONGEST = 1 << 28  # samples; a list may come from a stranger


@dataclass(frozen=True)
class Part:
    """One summand; `reach` None leaves the length as it is. `gain` is linear."""

    path: str
    gain: float = 1.0
    reach: int | None = None
    speed: float = 1.0


@dataclass(frozen=True)
class Sum:
    """`length` samples at `rate` Hz."""

    length: int
    rate: int
    parts: tuple[Part, ...]

    def location(self) -> str:
        """The entry of a wav list that says this."""
        default = Part("")
        parts = [{k: v for k, v in asdict(part).items() if v != getattr(default, k)} for part in self.parts]
        return PREFIX + json.dumps({"length": self.length, "rate": self.rate, "parts": parts}, ensure_ascii=False)


def is_sum(location: str) -> bool:
    """Whether a location says a sum; a file of such a name can be given as ./sum:…"""
    return location.startswith(PREFIX)


def parse(location: str) -> Sum:
    """What a location says. Raises AudioError if it is malformed."""
    try:
        said = json.loads(location.removeprefix(PREFIX))
        parts = tuple(Part(**part) for part in said["parts"])
        total = Sum(int(said["length"]), int(said["rate"]), parts)
        sane = parts and total.rate > 0 and all(0 <= n <= _LONGEST for n in (total.length, *(p.reach or 0 for p in parts))) \
            and all(isinstance(p.path, str) and 0.1 <= p.speed <= 10 and abs(p.gain) < 1e6 for p in parts)
    except (ValueError, TypeError, KeyError):
        sane = False
    if not sane:
        raise AudioError(f"{location[:200]}: is no sum of audio files; prepare the list again")
    return total


def render(location: str, read: Callable[[str], tuple[np.ndarray, int]],
           resample: Callable[[np.ndarray, int, int], np.ndarray]) -> tuple[np.ndarray, int]:
    """The sum, float32 [length], and its rate in Hz.

    `read(path)` gives float32 [channels, n] and the rate, `resample(x, source, target)` changes it. Raises
    AudioError as `read` does, and on a part at another rate than the sum's or twice that.
    """
    total = parse(location)
    y = np.zeros(total.length, np.float32)
    for part in total.parts:
        channels, rate = read(part.path)
        x = channels[0]
        if part.speed != 1:
            x = resample(x, round(rate * part.speed), rate)
        if part.reach is not None:
            x = _bring_to(x, part.reach, part.path)
        x = x * np.float32(part.gain)
        if rate == 2 * total.rate:
            x = _halve_rate(x)
        elif rate != total.rate:
            raise AudioError(f"{part.path}: is at {rate} Hz; {total.rate} Hz is wanted, or twice that")
        n = min(len(x), total.length)
        y[:n] += x[:n]
    return y, total.rate


def _bring_to(x: np.ndarray, wanted: int, name: str) -> np.ndarray:
    """`x` [n] cut to `wanted` samples, or repeated, each time faded into the next over _FADE samples."""
    if len(x) < wanted and len(x) <= _FADE:
        raise AudioError(f"{name}: has {len(x)} samples, too few to be repeated with a cross-fade of {_FADE}; take another")
    rise = np.hanning(2 * _FADE - 1)[:_FADE]
    y = x
    while len(y) < wanted:
        y = np.concatenate([y[:-_FADE], y[-_FADE:] * rise[::-1] + x[:_FADE] * rise, x[_FADE:]])
    return y[:wanted]


def _halve_rate(x: np.ndarray) -> np.ndarray:
    """Every second sample of `x` [n] behind a Kaiser-windowed sinc (beta 5, 41 taps): [ceil(n / 2)], as
    scipy.signal.resample_poly gives by default."""
    h = np.sinc(np.arange(-20, 21) / 2) * np.kaiser(41, 5.0)
    return np.convolve(x, h / h.sum())[20:20 + len(x):2]
