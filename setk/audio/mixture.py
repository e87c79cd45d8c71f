"""On-the-fly mixtures: audio that is computed when it is read, so that a corpus of mixtures needs no disk space.

    mix:{"length": 73840, "rate": 16000, "parts": [{"path": "/LibriSpeech/a.flac", "gain": 0.78754},
                                                   {"path": "/wham/n.wav", "gain": 1.79905, "reach": 90160}]}

is one entry of a wav list, on one line. `sum:` is accepted for `mix:`. A part is the first channel of a file. It is
played at `speed`, brought to `reach` samples (cut, or repeated with a cross-fade), multiplied by `gain`, converted to
`rate`, then cut or zero-padded to `length`. These are the steps by which LibriMix makes its files, in its order.

Limits, since a list may come from an untrusted source: 2^26 samples (length and reach), 64 parts, speed 0.1 ... 10,
1000 repetitions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Callable, Iterator

import numpy as np

from setk.audio.resample import resample
from setk.core.errors import AudioError

PREFIX, OLD_PREFIX = "mix:", "sum:"
_FADE = 8001  # LibriMix: the rising half of a Hann window of 1 s at 16 kHz
_MAX_SAMPLES, _MAX_PARTS, _MAX_REPEATS = 1 << 26, 64, 1000


@dataclass(frozen=True)
class Part:
    """One summand: a linear `gain`, a length in samples (`reach`; None keeps the length) and a playing speed."""

    path: str
    gain: float = 1.0
    reach: int | None = None
    speed: float = 1.0

    def is_valid(self) -> bool:
        return (
            isinstance(self.path, str)
            and "\0" not in self.path
            and abs(self.gain) < 1e6
            and 0.1 <= self.speed <= 10
            and (self.reach is None or _is_length(self.reach))
        )


@dataclass(frozen=True)
class Mixture:
    """`length` samples at `rate` Hz: the sum of `parts`."""

    length: int
    rate: int
    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> Mixture:
        """Read an entry of a wav list. Raises AudioError if it is malformed or beyond the limits."""
        try:
            fields = json.loads(text.removeprefix(PREFIX).removeprefix(OLD_PREFIX))
            mixture = cls(fields["length"], fields["rate"], tuple(Part(**part) for part in fields["parts"]))
            valid = (
                _is_length(mixture.length)
                and _is_length(mixture.rate)
                and mixture.rate > 0
                and 0 < len(mixture.parts) <= _MAX_PARTS
                and all(part.is_valid() for part in mixture.parts)
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            valid = False
        if not valid:
            raise AudioError(f"{text[:200]}: is not a valid on-the-fly mixture; prepare the list again")
        return mixture

    def text(self) -> str:
        """The entry of a wav list that states this mixture."""
        default = Part("")
        parts = [{k: v for k, v in asdict(part).items() if v != getattr(default, k)} for part in self.parts]
        return PREFIX + json.dumps({"length": self.length, "rate": self.rate, "parts": parts}, ensure_ascii=False)

    def render(self, read: Callable[[str], tuple[np.ndarray, int]]) -> np.ndarray:
        """Compute the mixture: float32 [length].

        `read(path)` returns float32 [channels, n] and the rate. Raises AudioError as `read` does, and on a part at
        another rate than the mixture's or twice that.
        """
        y = np.zeros(self.length, np.float32)
        for part in self.parts:
            x = self._render_part(part, read)
            n = min(len(x), self.length)
            y[:n] += x[:n]
        return y

    def _render_part(self, part: Part, read: Callable[[str], tuple[np.ndarray, int]]) -> np.ndarray:
        channels, rate = read(part.path)
        x = channels[0]
        if part.speed != 1:
            x = resample(x, round(rate * part.speed), rate)
        if part.reach is not None:
            x = _bring_to(x, part.reach, part.path)
        x = x * np.float32(part.gain)
        if rate == 2 * self.rate:
            return _halve_rate(x)
        if rate != self.rate:
            raise AudioError(
                f"{part.path}: is at {rate} Hz; expected {self.rate} Hz or twice that (se-prep resample converts)"
            )
        return x

    def blocks(self, read: Callable[[str], tuple[np.ndarray, int]], frames: int) -> Iterator[np.ndarray]:
        """Yield the mixture as float32 [1, 1 ... frames]."""
        x = self.render(read)
        for start in range(0, len(x), frames):
            yield x[None, start : start + frames]


def _is_length(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_SAMPLES


def _bring_to(x: np.ndarray, length: int, name: str) -> np.ndarray:
    """`x` [n] cut to `length` samples, or repeated, each time cross-faded into the next over _FADE samples."""
    if len(x) < length and (len(x) <= _FADE or (length - len(x)) / (len(x) - _FADE) > _MAX_REPEATS):
        raise AudioError(
            f"{name}: has {len(x)} samples, too few to be repeated up to {length} with a cross-fade of "
            f"{_FADE}; choose a longer file"
        )
    if len(x) >= length:
        return x[:length]
    rise = np.hanning(2 * _FADE - 1)[:_FADE]
    step = len(x) - _FADE
    repeats = -(-(length - len(x)) // step)
    y = np.empty(len(x) + repeats * step)
    y[: len(x)] = x
    for end in range(len(x), len(y), step):
        y[end - _FADE : end] = y[end - _FADE : end] * rise[::-1] + x[:_FADE] * rise
        y[end : end + step] = x[_FADE:]
    return y[:length]


def _halve_rate(x: np.ndarray) -> np.ndarray:
    """Every second sample of `x` [n] after a Kaiser-windowed sinc filter (beta 5, 41 taps): [ceil(n / 2)]. The same
    as scipy.signal.resample_poly with its defaults."""
    h = np.sinc(np.arange(-20, 21) / 2) * np.kaiser(41, 5.0)
    return np.convolve(x, h / h.sum())[20 : 20 + len(x) : 2]
