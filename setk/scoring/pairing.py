"""From the locations of an utterance to its row of the score table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np

from setk import audio, metrics
from setk.audio import Location
from setk.core.errors import AudioError
from setk.data import lists
from setk.data.index import IndexedList

SEARCH = 60.0  # s of the beginning of both signals in which an offset is looked for: bounds memory
RESEMBLING = 0.3  # correlation; recordings of different speech stay below it at every offset


class Pair(NamedTuple):
    """The locations of an utterance. `ref` None: not in the list of references, or, if `alone`, not needed; `est` None: not in the list of enhanced files."""

    utt: str
    ref: Location | None
    est: Location | None
    noisy: Location | None = None
    alone: bool = False


class How(NamedTuple):
    """What to score, and how; the same for all utterances. `rate` in Hz to resample to; 0: the rate of the files."""

    names: tuple[str, ...]
    rate: int
    tolerance: float
    extras: metrics.Extras


class Row(NamedTuple):
    """One line of the table; `error` is empty where every metric has a value."""

    pair: Pair
    scores: dict[str, float]
    error: str


def single(ref: str | None, est: str, noisy: str | None, allow_commands: bool = False) -> Iterator[Pair]:
    """The pair of two files, named after the second; `ref` None if no metric needs a reference."""

    def location(place: str | None) -> Location | None:
        return Location.parse(place, allow_commands) if place else None

    utt = one_line(Path(est).stem).replace(" ", "_")
    yield Pair(utt, location(ref), location(est), location(noisy), alone=ref is None)


def listed(
    ref: str, est: str, noisy: str | None, part: str | None, allow_commands: bool = False, jobs: int = 1
) -> Iterator[Pair]:
    """Pairs in the order of the list `est`, as its lines arrive, then the references that it does not name; for `jobs` processes."""
    piped = jobs > 1 or "-" in (ref, est, noisy)

    def place(location: Location) -> Location:
        return location.shared() if piped else location

    def found(table: IndexedList, value: str | None) -> Location | None:
        return None if value is None else place(table.location(value, allow_commands))

    references = IndexedList(ref)
    before = IndexedList(noisy) if noisy else None
    for utt, location in lists.take_part(lists.open_wavs(est, allow_commands), part):
        own = found(before, before.get(utt)) if before else None
        yield Pair(utt, found(references, references.take(utt)), place(location), own)
    # --part names some utterances on purpose; a list that lacks some is a mistake, from a pipe too.
    if not part:
        for utt, value in references.left():
            yield Pair(utt, references.location(value, allow_commands), None)


def score(pair: Pair, how: How) -> Row:
    """Read and score one pair; a score that cannot be computed is nan, and `error` says why."""
    try:
        ref, est, noisy, rate, fault = signals(pair, how)
    except AudioError as e:
        return Row(pair, dict.fromkeys(how.names, math.nan), one_line(e))
    scores, reasons = metrics.compute(ref, est, rate, how.names, noisy=noisy, extras=how.extras)
    if fault:
        reasons |= {name: fault for name in how.names if metrics.METRICS[name].gain_of}
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    return Row(pair, scores, one_line("; ".join(f"{', '.join(own)}: {reason}" for reason, own in groups.items())))


def one_line(text: object) -> str:
    """`text` as one field of the table; bytes of file names that are not UTF-8 are escaped."""
    return " ".join(str(text).encode(errors="backslashreplace").decode().split())


def signals(pair: Pair, how: How) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int, str]:
    """Reference, estimate and, where a metric needs it, the noisy signal, all [n]; their rate; why there is no noisy one.

    Raises AudioError if reference and estimate cannot be compared.
    """
    if pair.alone:
        est, rate, _ = _read(pair.est, how)
        return est, est, None, rate, ""
    if pair.ref is None:
        raise AudioError("is not in the list of references")
    if pair.est is None:
        raise AudioError("is in the list of references, but not in that of the enhanced files")
    ref, rate, grain = _read(pair.ref, how)
    signals = [ref, _like(ref, rate, grain, pair.est, "estimate", how)]
    fault = ""
    if any(metrics.METRICS[name].gain_of for name in how.names):
        try:
            if pair.noisy is None:
                raise AudioError("is not in the list of noisy files")
            signals.append(_like(ref, rate, grain, pair.noisy, "noisy signal", how))
        except AudioError as e:
            fault = str(e)
    n = min(map(len, signals))
    ref, est, noisy = (*(x[:n] for x in signals), None)[:3]
    return ref, est, noisy, rate, fault


def _read(location: Location, how: How) -> tuple[np.ndarray, int, int]:
    """A signal, its rate, and how many samples a sample of the file has become: its length is known no better."""
    x, rate = location.read_mono()
    if how.rate in (0, rate):
        return x, rate, 0
    return audio.resample(x, rate, how.rate), how.rate, math.ceil(how.rate / rate)


def _like(ref: np.ndarray, rate: int, grain: int, location: Location, who: str, how: How) -> np.ndarray:
    """Read a signal to compare with `ref` [n]; AudioError if the rates differ, or the lengths by more than the tolerance."""
    x, found, other = _read(location, how)
    if found != rate:
        raise AudioError(
            f"the reference is at {rate} Hz, the {who} at {found} Hz; --rate {min(rate, found)} resamples both"
        )
    if abs(len(ref) - len(x)) > max(how.tolerance * rate, grain, other):
        raise AudioError(
            f"lengths differ: the reference has {len(ref)} samples ({len(ref) / rate:.3f} s), the {who} "
            f"{len(x)} ({len(x) / rate:.3f} s); {_advice(ref, x, rate, who)}"
        )
    return x


def _advice(ref: np.ndarray, x: np.ndarray, rate: int, who: str) -> str:
    """How to fix two signals of different lengths: cutting the longer helps only where they begin together."""
    offset = find_offset(ref, x, rate)
    if offset is None:
        return f"no offset aligns the two: is this {who} of another recording?"
    if offset == 0:
        return "they begin together (offset 0): --tolerance SECONDS cuts the longer one"
    ms = 1000 * abs(offset) / rate
    if offset > 0:
        return f"the {who} is {offset} samples ({ms:.1f} ms) late: cut its beginning; --tolerance cuts ends"
    return f"the {who} is {-offset} samples ({ms:.1f} ms) early: pad its beginning; --tolerance cuts ends"


def find_offset(ref: np.ndarray, x: np.ndarray, rate: int) -> int | None:
    """Samples by which `x` [n] comes later than `ref` [m], where their cross-correlation peaks, of either sign.

    Looks at the first SEARCH seconds of both. None where their correlation at that offset is below RESEMBLING.
    """
    ref, x = (s[: round(SEARCH * rate)].astype(np.float64) for s in (ref, x))
    if not len(ref) or not len(x):
        return None
    ref, x = ref - ref.mean(), x - x.mean()
    size = 1 << (len(ref) + len(x) - 1).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(ref, size).conj(), size)
    peak = int(np.abs(correlation).argmax())
    offset = peak if peak < len(x) else peak - size
    a, b = ref[max(0, -offset) :], x[max(0, offset) :]
    n = min(len(a), len(b))
    power = float(np.sum(a[:n] ** 2) * np.sum(b[:n] ** 2))
    return offset if power > 0 and abs(correlation[peak]) >= RESEMBLING * np.sqrt(power) else None
