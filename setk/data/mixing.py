"""Speech + noise (+ room) at an SNR, the same for files written by se-prep and for mixing during training.

Levels are in dB re full scale: the RMS of a signal whose every sample is 1.0 is 0 dB (a full-scale sine, -3.01).
All random choices come from `core.rng`, and so depend on (seed, utterance, epoch) alone: never on the number of workers,
parts or ranks, nor on the order of the list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from setk.audio.pcm import FULL_SCALE
from setk.core.errors import UserError
from setk.core.numerics import from_db, to_db

# ITU-T P.56 method B.
_MARGIN_DB, _HANGOVER_S, _TIME_CONSTANT_S = 15.9, 0.2, 0.03
_LOWEST = -23  # thresholds are 2^-23 ... 2^-1: those of P.56 for 24 bits, which for 16-bit signals give the same level
# The part of a room response that is in the target: the direct path and the early reflections.
EARLY_S = 0.05
SILENCE_DB = -80.0  # an RMS below it is silence: a gain would amplify rounding errors


def rms_level(x: np.ndarray) -> float:
    """RMS of `x` [n] in dB re full scale; -inf for silence and for no samples."""
    return to_db(math.sqrt(np.mean(np.square(x, dtype=np.float64)))) if len(x) else -math.inf


def active_level(x: np.ndarray, rate: int) -> tuple[float, float]:
    """Active speech level of `x` [n] at `rate` Hz by ITU-T P.56 method B.

    Returns the level in dB re full scale and the activity factor, 0 ... 1. Silence gives (-inf, 0). The level
    between two thresholds is interpolated linearly in dB, exactly. Where P.56 is undefined, because the
    envelope never comes within the margin (a lone click, a few samples), the activity at the highest threshold
    reached is used, and without any, the complete signal.
    """
    total = rms_level(x)
    if total == -math.inf:
        return -math.inf, 0.0
    envelope = _smooth(_smooth(np.abs(x, dtype=np.float64), rate), rate)
    hangover = math.ceil(rate * _HANGOVER_S)
    # Active level >= long-term level, so no threshold further below that than the margin can be the one.
    first = max(_LOWEST, math.floor((total - _MARGIN_DB) / to_db(2.0)))
    level, excess = total, None
    for exponent in range(first, 0):
        active = _active_samples(envelope, 2.0**exponent, hangover)
        if not active:
            break
        below, level = level, total + 10 * math.log10(len(x) / active)
        excess_below, excess = excess, level - to_db(2.0**exponent) - _MARGIN_DB
        if excess <= 0:
            if excess_below is not None:
                level = below + (level - below) * excess_below / (excess_below - excess)
            break
    return level, 10 ** ((total - level) / 10)


def _smooth(x: np.ndarray, rate: int) -> np.ndarray:
    """y[n] = g y[n-1] + (1 - g) x[n] with the P.56 time constant, without a loop over samples.

    1 / (1 - g z^-1) is the product of (1 + g^s z^-s) over s = 1, 2, 4, ...; factors below rounding are left out.
    """
    g = math.exp(-1 / (rate * _TIME_CONSTANT_S))
    y = (1 - g) * x
    step = 1
    while step < len(y) and g**step > 1e-18:
        y[step:] += g**step * y[:-step]
        step *= 2
    return y


def _active_samples(envelope: np.ndarray, threshold: float, hangover: int) -> int:
    """Samples at or above the threshold, or at most `hangover` samples after one that is."""
    above = np.flatnonzero(envelope >= threshold)
    if not len(above):
        return 0
    gaps = np.diff(above, append=len(envelope))
    return int(np.minimum(gaps, hangover + 1).sum())


LOWEST_DB = -100.0  # of an SNR and of a level; one step of 16 bits is at -90 dBFS


@dataclass(frozen=True)
class Spread:
    """Where a quantity is drawn from: evenly from `low` ... `high`, or one of `values` if there are any."""

    low: float = 0.0
    high: float = 0.0
    values: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str, name: str, highest: float = 100.0) -> Spread:
        """`0:20` is a range, `0,5,10` a choice, `5` one value, of LOWEST_DB ... `highest`; `name` is used in messages. Raises UserError
        on anything else."""
        try:
            numbers = tuple(float(part) for part in text.split(":" if ":" in text else ","))
        except ValueError:
            numbers = ()
        if not numbers or not all(map(math.isfinite, numbers)) or (":" in text and len(numbers) != 2):
            raise UserError(f"{name} {text}: write a range as in 0:20, or values as in 0,5,10,15 (dB)")
        if not LOWEST_DB <= min(numbers) <= max(numbers) <= highest:
            raise UserError(f"{name} {text}: must be {LOWEST_DB:g} to {highest:g} dB")
        if ":" not in text:
            return cls(values=numbers)
        if numbers[0] > numbers[1]:
            raise UserError(f"{name} {text}: the lower end must come first")
        return cls(*numbers)

    def at(self, u: float) -> float:
        """The value at the quantile `u` (0 <= u < 1)."""
        return self.values[int(u * len(self.values))] if self.values else self.low + u * (self.high - self.low)


@dataclass(frozen=True)
class Draw:
    """The random choices of one mixture. `noise` and `rir` are indices into the ids in C order; `place`, 0 ... 1, is the
    start within the noise (see `noise_start`)."""

    noise: int
    place: float
    snr_db: float
    level_db: float | None
    rir: int | None


def by_kind(kinds: Sequence[str]) -> list[list[int]]:
    """The indices of each kind, kinds in C order, of noises whose kinds are these."""
    groups: dict[str, list[int]] = {}
    for i, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(i)
    return [groups[kind] for kind in sorted(groups, key=str.encode)]


def pick(u: float, groups: Sequence[Sequence[int]]) -> int:
    """The member for a uniform number 0 <= u < 1: each group is as likely as the others, and within a group each
    member, so that many recordings of one kind do not outweigh few of another."""
    group, rest = divmod(u * len(groups), 1)
    members = groups[int(group)]
    return members[int(rest * len(members))]


def draw(
    generator: np.random.Generator,
    noises: int,
    snr: Spread,
    level: Spread | None = None,
    rirs: int = 0,
    groups: Sequence[Sequence[int]] = (),
) -> Draw:
    """Draw one mixture out of `noises` noises, or `groups` of them (see `pick`), and `rirs` room responses.

    Always draws five numbers, so that noise, place and SNR do not depend on whether levels or rooms are drawn.
    """
    u = generator.random(5)
    return Draw(
        pick(u[0], groups) if groups else int(u[0] * noises),
        float(u[1]),
        snr.at(u[2]),
        level.at(u[3]) if level else None,
        int(u[4] * rirs) if rirs else None,
    )


def noise_start(length: int, size: int, place: float) -> int:
    """First sample of a piece of `size` samples out of `length`: anywhere without wrapping around if the noise
    is long enough, else anywhere."""
    starts = length - size + 1 if length >= size else length
    return min(int(place * starts), max(starts - 1, 0))


def loop(noise: np.ndarray, start: int, size: int) -> np.ndarray:
    """`size` samples of `noise` [n] from `start`, wrapping around as often as necessary; silence if n is 0."""
    if start + size <= len(noise):
        return noise[start : start + size]
    if not len(noise):
        return np.zeros(size, np.float32)
    return np.resize(np.roll(noise, -start), size)


def equalise(x: np.ndarray, generator: np.random.Generator, depth_db: float) -> np.ndarray:
    """`x` [n] through a random smooth equaliser: gains of -depth_db ... depth_db at six points evenly spaced on a
    logarithmic frequency axis over the upper six octaves, straight lines between them, no phase.

    So a few recordings of noise cover more microphones and rooms.
    """
    gains = generator.uniform(-depth_db, depth_db, 6)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(x)) * 2, 2.0**-6))  # of the upper band edge, 0 at half the rate
    return np.fft.irfft(np.fft.rfft(x) * 10 ** (np.interp(octave, np.linspace(-6, 0, 6), gains) / 20), len(x))


def clip(x: np.ndarray, part: float) -> np.ndarray:
    """`x` [n] clipped as by an input that is set too high: so low that `part` (0 ... 1) of the samples that are not 0
    reach the limit."""
    heard = np.abs(x[x != 0])
    limit = np.quantile(heard, 1 - part) if len(heard) else 0.0
    return np.clip(x, -limit, limit)


def respeed(x: np.ndarray, size: int) -> np.ndarray:
    """`x` [n] played faster or slower so that it has `size` samples; the pitch changes too. Linear interpolation,
    which is good enough for noise."""
    return np.interp(np.linspace(0, len(x) - 1, size), np.arange(len(x)), x) if len(x) else np.zeros(size)


@dataclass(frozen=True)
class Mixed:
    """float32 signals [n] of one mixture, and how it was made.

    noisy = reverberant speech + `noise`; `clean` is the target (the same speech, early part only under an RIR).
    `snr_db` is the resulting SNR: +-inf if noise or speech is 0. `gain` was applied to both speech and noise
    (level, clipping), `noise_gain` to the noise in total; `level_db` is the RMS of `noisy`. `peak_scaled`:
    `gain` was lowered so that neither `noisy` nor `clean` is clipped.
    """

    noisy: np.ndarray
    clean: np.ndarray
    noise: np.ndarray
    snr_db: float
    noise_gain: float
    gain: float
    level_db: float
    peak_scaled: bool


def mix(
    speech: np.ndarray,
    noise: np.ndarray,
    snr_db: float,
    level_db: float | None = None,
    rate: int = 16000,
    active: bool = False,
    rir: np.ndarray | None = None,
) -> Mixed:
    """Mix `speech` [n] and `noise` [n] (see `loop`) so that speech level minus noise RMS is `snr_db`.

    The speech level is its RMS, or with `active` its P.56 active level; under an RIR [k], that of the
    reverberant speech, as a microphone has it; measured before any common gain (P.56 thresholds are fixed, so
    its levels do not scale exactly). `level_db` sets the RMS of the mixture (as DNS does); without
    it the speech keeps its level. If the mixture would clip, all is scaled down together. Noise below SILENCE_DB
    leaves the speech alone, speech below it the noise at its own level, and a mixture below it keeps its level.
    """
    if len(noise) != len(speech):
        raise ValueError(f"noise has {len(noise)} samples, speech {len(speech)}; cut it with loop()")
    heard = target = np.asarray(speech, np.float64)
    if rir is not None:
        heard, target = reverberate(heard, rir, rate)
    speech_level = active_level(heard, rate)[0] if active else rms_level(heard)
    noise_level = rms_level(noise)
    silent = min(rms_level(speech), noise_level) < SILENCE_DB
    noise_gain = 1.0 if silent else from_db(speech_level - noise_level - snr_db)
    noisy = heard + noise_gain * noise
    gain, peak_scaled = _common_gain(noisy, target, level_db)
    parts = [(gain * part).astype(np.float32) for part in (noisy, target, noise_gain * noise)]
    return Mixed(
        *parts,
        snr_db=speech_level - noise_level if silent else snr_db,
        noise_gain=noise_gain * gain,
        gain=gain,
        level_db=rms_level(parts[0]),
        peak_scaled=peak_scaled,
    )


def _common_gain(noisy: np.ndarray, clean: np.ndarray, level_db: float | None) -> tuple[float, bool]:
    """The gain that brings `noisy` to `level_db` while neither clips at 16 bits, and whether clipping lowered it."""
    level = rms_level(noisy)
    gain = 1.0 if level_db is None or level < SILENCE_DB else from_db(level_db - level)
    peak = max(np.abs(x).max(initial=0.0) for x in (noisy, clean)) * gain
    return (gain * FULL_SCALE / peak, True) if peak > FULL_SCALE else (gain, False)


def reverberate(speech: np.ndarray, rir: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Speech [n] in a room with response `rir` [k]: all of it, and its part up to EARLY_S after the direct path.

    The direct path is the largest sample of the response, and its delay is removed, so that both are [n] and
    aligned with the dry speech. Convolution by FFT, float64.
    """
    n, direct = len(speech), int(np.argmax(np.abs(rir)))
    size = 1 << (n + len(rir) - 1).bit_length()
    spectrum = np.fft.rfft(speech, size)

    def convolve(h: np.ndarray) -> np.ndarray:
        return np.fft.irfft(spectrum * np.fft.rfft(h, size), size)[direct : direct + n]

    return convolve(rir), convolve(rir[: direct + round(EARLY_S * rate)])
